"""Random programs over all 32 subsets of the features, as long as wanted; prints what occurred, and what differed.

For the canaries: ``python -m dataflow.enterprise.proof.canaries --help``; for questions that could tell of another
tenant's records: ``python -m dataflow.enterprise.proof.probes --help``.
"""

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import attrs

from dataflow.enterprise.proof.drawing import WEIGHTS
from dataflow.enterprise.proof.machine import FILLING, Failure, Target, hunt
from dataflow.enterprise.proof.shop import SUBSETS, initials, shop_of

STEPS = 60
ROUTES = ("sync", "async", "node", "scope")
_NEEDS = {"restore": "soft_delete", "purge": "soft_delete"}


@attrs.define
class Report:
    """What a campaign did.

    Attributes:
        subsets: of customers' features.
        operations: how many.
        cells: (operation, subset) -> how often.
        routes: (operation, how it was run) -> how often.
        outcomes: (operation, class of error, or what it found) -> how often.
        failures: programs that show a difference.
    """

    subsets: Sequence[frozenset[str]] = SUBSETS
    operations: int = 0
    cells: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    routes: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    outcomes: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    failures: list[Failure] = attrs.field(factory=list)

    def add(self, target: Target, subset: str) -> None:
        """Add what was done on one database."""
        self.operations += target.operations
        self.routes.update(target.routes)
        self.outcomes.update(target.seen)
        for (kind, _), count in target.seen.items():
            self.cells[kind, subset] += count

    def empty(self) -> list[tuple[str, str]]:
        """Return the cells in which nothing happened: operations of subsets, and routes of operations."""
        cells = [
            (kind, initials(subset))
            for kind in WEIGHTS
            for subset in self.subsets
            if _NEEDS.get(kind, "") in ("", *subset) and not self.cells[kind, initials(subset)]
        ]
        return cells + [
            (kind, route)
            for kind in WEIGHTS
            for route in ROUTES
            if not self.routes[kind, route] and not (kind == "sql" and route in ("sync", "async"))
            and not (route == "scope" and kind in ("read", "list", "count", "aggregate", "sql", "purge"))
        ]  # fmt: skip

    def table(self) -> str:
        """Return what occurred: operations by subsets, by routes, and by outcomes."""
        subsets = list(dict.fromkeys(subset for _, subset in self.cells))
        rows = [["operation", *subsets]]
        rows += [[kind, *(str(self.cells[kind, subset] or ".") for subset in subsets)] for kind in WEIGHTS]
        widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
        lines = [" ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        for title, found in (("how", self.routes), ("outcome", self.outcomes)):
            lines += ["", f"operation by {title}:"]
            for kind in WEIGHTS:
                told = {name or "some": count for (own, name), count in sorted(found.items()) if own == kind}
                lines.append(f"  {kind}: {', '.join(f'{name} {count}' for name, count in told.items())}")
        return "\n".join(lines)


def run_campaign(
    url: str,
    *,
    operations: int,
    seed: int = 0,
    isolation: str = "shared",
    steps: int = STEPS,
    settings: Mapping[str, Any] | None = None,
) -> Report:
    """Run programs over all subsets.

    Args:
        url: a database; ``{number}`` stands for that of the subset.
        operations: how many in all, at least.
        seed: of the first program.
        isolation: setting `tenant_isolation`.
        steps: of one program.
        settings: of the DataFlow.
    """
    placed = isolation in ("schema", "database")
    subsets = [(n, s) for n, s in enumerate(SUBSETS) if "multi_tenant" in s or not placed]
    report = Report([subset for _, subset in subsets])
    turn = 0
    while report.operations < operations:
        for number, subset in subsets:
            variant = seed + turn * len(SUBSETS) + number
            prefix = f"t{variant}_"
            named = {**(settings or {}), **({"tenant_database_prefix": f"p{variant}_"} if placed else {})}
            shop = shop_of(subset, variant, placed=placed)
            target = Target(url.format(number=number), shop, isolation=isolation, prefix=prefix, **named)
            each = min(max(operations // len(subsets), len(FILLING) + 6), 30 * steps)
            try:
                while target.operations < each:
                    failure = hunt(target, f"{variant}:{target.operations}", min(steps, each))
                    if failure is not None:
                        report.failures.append(failure)
                        break
                report.add(target, initials(subset))
            finally:
                target.close()
        turn += 1
    return report


def main(arguments: list[str] | None = None) -> int:
    """Run a campaign and print its report; 1 where something differed."""
    parser = argparse.ArgumentParser(prog="python -m dataflow.enterprise.proof", description=__doc__)
    parser.add_argument("--database", default="sqlite", help='"sqlite" (a temporary file), or a URL')
    parser.add_argument("--operations", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--isolation", choices=["shared", "strict", "schema", "database"], default="shared")
    given = parser.parse_args(arguments)
    start = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        lite = given.database == "sqlite"
        url = f"sqlite:///{os.path.join(folder, 'proof{number}.db')}" if lite else given.database
        settings = {"sqlite_synchronous": "OFF"} if url.startswith("sqlite") else {"pool_size": 2}
        report = run_campaign(
            url, operations=given.operations, seed=given.seed, isolation=given.isolation, settings=settings
        )
    lines = [report.table(), "", *map(str, report.failures[:10])]
    lines.append(
        f"{report.operations:,} operations, {len(report.failures)} divergences, "
        f"{len(report.empty())} empty cells, {perf_counter() - start:.0f} s"
    )
    sys.stdout.write("\n".join(lines) + "\n")
    return bool(report.failures)


if __name__ == "__main__":
    sys.exit(main())
