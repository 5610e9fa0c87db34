"""Random round trips of schemas with rows on one database; prints what occurred, and what went wrong, made small."""

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from time import perf_counter

import attrs

from dataflow.migrations.proof.benches import Bench, bench
from dataflow.migrations.proof.shrinking import shrunk
from dataflow.migrations.proof.trips import Divergence, Report, Trip, drawn, seeded, travel


@attrs.define
class Failure:
    """A trip that went wrong, made small.

    Attributes:
        seed: from which it was drawn.
        trip: the small one.
        divergence: what went wrong on it.
        statements: of the two schemas.
    """

    seed: int
    trip: Trip
    divergence: Divergence
    statements: tuple[list[str], list[str]]

    def __str__(self) -> str:
        notes = "\n".join(getattr(self.divergence, "__notes__", ()))
        before, after = (";\n  ".join(statements) for statements in self.statements)
        how = f"rows={self.trip.rows} large={self.trip.large} apart={self.trip.apart}"
        return f"seed {self.seed} ({how}): {self.divergence}\nfrom:\n  {before}\nto:\n  {after}\n{notes}\n"


def campaign(
    at: Bench,
    *,
    seed: int,
    count: int,
    edits: int,
    most: int = 400,
    tell: Callable[[Failure], None] = lambda _: None,
) -> tuple[Report, list[Failure]]:
    """Make trips.

    Args:
        at: where.
        seed: of the first; each has the next one.
        count: how many.
        edits: how many lead from one schema to the other, at most.
        most: how many trips may be tried to make one that goes wrong smaller.
        tell: called with each trip that goes wrong.
    """
    report, failures = Report(), []
    for own in range(seed, seed + count):
        rng = seeded(f"edits {own}")
        trip = drawn(at, own, [rng.getrandbits(32) for _ in range(rng.randint(1, edits))])
        try:
            travel(at, trip, report)
        except Divergence as divergence:
            report.outcomes["wrong"] += 1
            small, found = shrunk(at, trip, divergence, most=most) if most else (trip, divergence)
            failures.append(Failure(own, small, found, (at.sql(small.before), at.sql(small.after))))
            tell(failures[-1])
    return report, failures


def table(report: Report) -> str:
    """Return what occurred."""
    lines = [f"{report.trips:,} trips"]
    for title in ("outcomes", "changes", "steps", "numbers"):
        found: Counter[str] = getattr(report, title)
        lines += ["", f"{title}:", *(f"  {name:<40} {count:>8,}" for name, count in sorted(found.items()))]
    return "\n".join(lines)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(arguments: list[str] | None = None) -> int:
    """Make trips and print what they did; 1 where something went wrong."""
    parser = argparse.ArgumentParser(prog="python -m dataflow.migrations.proof", description=__doc__)
    parser.add_argument("url", help='"sqlite" (a temporary file), or a PostgreSQL database; two are made next to it')
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=200, help="how many trips")
    parser.add_argument(
        "--edits", type=int, default=6, help="how many edits lead from one schema to the other, at most"
    )
    parser.add_argument("--shrink", type=int, default=400, help="how many trips make one that goes wrong smaller")
    given = parser.parse_args(arguments)
    start = perf_counter()
    with bench(given.url) as at:
        report, failures = campaign(
            at,
            seed=given.seed,
            count=given.count,
            edits=given.edits,
            most=given.shrink,
            tell=lambda one: _say(str(one)),
        )
    _say(table(report))
    _say(f"{len(failures)} failures in {perf_counter() - start:.0f} s")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
