"""Crashes: migrations killed at every statement, before it and within it, and begun again by another process.

``python -m dataflow.migrations.proof.crashes --url URL`` brings databases from one release to the next (`releases`),
kills the process that does it at the first statement, in another copy at the second, and so on. Then another process
does the same, or uses its models first. What there is in the end has to equal what there is without a crash: schema,
rows, registry, history, and a plan that is empty. On SQLite, what the crash has left has to be the old schema or the
new one.
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from dataflow.migrations.proof.copies import Copies
from dataflow.migrations.proof.forks import Ended, Forks
from dataflow.migrations.proof.releases import CHANGES, KILLED, Change

_COMPARED = ("schema", "rows", "registry", "plan", "checks", "running")
_LOOKS = ("select", "with", "pragma", "--", "show", "\n")
"""How statements begin that leave nothing behind."""
_DONE = {"unknown-migration"}
"""What undoing says that was already undone."""


@attrs.define
class Report:
    """What was tried.

    Attributes:
        points: change -> how many kills.
        counts: what became of them -> how often.
        failures: what went wrong, with the point.
    """

    points: Counter[str] = attrs.field(factory=Counter)
    counts: Counter[str] = attrs.field(factory=Counter)
    failures: list[str] = attrs.field(factory=list)

    def __str__(self) -> str:
        lines = [f"{sum(self.points.values())} kills: {dict(self.points)}", f"recovered: {dict(self.counts)}"]
        return "\n".join([*lines, *(f"FAILED {failure}" for failure in self.failures)])


@attrs.frozen
class Trial:
    """One change, in copies of one database.

    Attributes:
        name: of the change.
        copies: of the database before it.
        forks: run what happens.
        report: what is told.
        old: the state before.
        reference: the state afterwards, without a crash, and how the process ended.
        trace: the statements of that, in order.
        seconds: how long it took.
    """

    name: str
    copies: Copies
    forks: Forks
    report: Report
    old: Mapping[str, Any]
    reference: Mapping[str, Any]
    trace: Sequence[str]
    seconds: float

    @property
    def change(self) -> Change:
        """What changes."""
        return CHANGES[self.name]

    def writes(self) -> list[int]:
        """Return the numbers of the statements that leave something behind."""
        return [n for n, sql in enumerate(self.trace, 1) if not sql.lower().startswith(_LOOKS)]

    def kill(self, kill: Mapping[str, Any], *others: str) -> None:
        """Kill the process at a point, and let others do it again.

        Args:
            kill: see `forks.Child`.
            others: how: "" for the same way, "use" for first use by the new release, "use-old" by the old one before.
        """
        for other in others or ("",):
            url = self.copies.fresh()
            ended = self._do(url, "act", kill=kill)
            where = f"{self.name}, {dict(kill)} ({ended.told.get('at', 'not reached')!r:.60}), then {other or 'again'}"
            self.report.points[self.name] += ended.killed
            self.report.counts["killed" if ended.killed else "done before"] += 1
            try:
                self._recover(url, other)
            except AssertionError as error:
                self.report.failures.append(f"{where}: {error}")

    def _do(self, url: str, do: str, **more: Any) -> Ended:
        (ended,) = self.forks.run({"url": url, "settings": self.copies.settings, "change": self.name, "do": do, **more})
        return ended

    def _recover(self, url: str, other: str) -> None:
        if self.copies.whole:
            left = self._do(url, "recover", act="nothing").told
            assert "error" not in left, f"what is left cannot be opened: {left['error']}"
            assert left["schema"] in (self.old["schema"], self.reference["schema"]), "the schema is half done"
            assert left["rows"] in (self.old["rows"], self.reference["rows"]), "the rows are half done"
            assert not left["checks"], f"the file is damaged: {left['checks']}"
        if other == "use-old":
            ended = self._do(url, "act", act="use-old")
            assert "error" not in ended.told, f"the old release: {ended.told['error']}"
        found = self._do(url, "recover", act="use" if other else None).told
        code = found.get("code", "")
        if other == "use" and code == "not-additive":
            assert found["schema"] == self.old["schema"], "neither old nor resumed"
            self.report.counts["refused as before"] += 1
            return
        self._compare(found, code, found.get("error", ""))
        self.report.counts["equal"] += 1

    def _compare(self, found: Mapping[str, Any], code: str, error: str) -> None:
        allowed = {"", *_DONE} if self.change.act == "undo" else {""}
        allowed = {"migration-failed"} if self.change.fails else allowed
        assert code in allowed and ("error" in found) == bool(code), f"{error} {found.get('trace')}"  # noqa: PT018
        for what in _COMPARED:
            assert found[what] == self.reference[what], _differ(what, found[what], self.reference[what])
        history, wanted = found["history"], self.reference["history"]
        if self.change.fails:
            history = history[:1] if set(history) <= {"failed", "undone"} else history
        assert history == wanted, _differ("history", history, wanted)


def _differ(what: str, found: Any, wanted: Any) -> str:
    return f"{what} differs: {found!r:.1500} instead of {wanted!r:.1500}"


def trial(name: str, copies: Copies, forks: Forks, report: Report) -> Trial:
    """Prepare the database of a change, and find out what becomes of it without a crash."""
    task = {"settings": copies.settings, "change": name}
    (ended,) = forks.run({**task, "url": copies.first(), "do": "prepare"})
    assert "error" not in ended.told, ended.told
    (old,) = forks.run({**task, "url": copies.fresh(), "do": "recover", "act": "nothing"})
    (new,) = forks.run({**task, "url": copies.fresh(), "do": "recover", "kill": {"trace": True}})
    assert ("error" in new.told) == CHANGES[name].fails, new.told
    return Trial(name, copies, forks, report, old.told, new.told, new.told["trace"], new.told["seconds"])


def others(name: str) -> tuple[str, ...]:
    """Return the ways in which other processes may come after a crash."""
    change = CHANGES[name]
    if change.old is None or change.act == "undo" or change.fails:
        return ("",)
    return ("", "use") if change.act == "migrate" else ("", "use-old")


def campaign(
    url: str, names: Iterable[str], *, every: int = 1, seed: int = 0, writes: bool = False, thorough: bool = False
) -> Report:
    """Kill migrations at their statements.

    Args:
        url: "sqlite", or a PostgreSQL server on which databases may be made.
        names: of changes.
        every: only each so-many-th statement.
        seed: of what is drawn.
        writes: only statements that leave something behind.
        thorough: each statement in all ways, before and within it; else one of them is drawn.
    """
    report, rng = Report(), random.Random(f"crashes {seed}")  # noqa: S311  # a seed, not a secret
    with Forks() as forks, Copies.at(url) as copies:
        for name in names:
            start = time.monotonic()
            own = trial(name, copies, forks, report)
            if name == "rebuild":
                for _ in range(max(40 // every, 2)):
                    own.kill({"number": 1, "delay": rng.uniform(0, own.seconds)})
                continue
            numbers = own.writes() if writes else list(range(1, len(own.trace) + 1))
            for number in numbers[rng.randrange(min(every, len(numbers))) :: every]:
                ways = others(name)
                moments: list[float | None] = [None, rng.uniform(0, 0.004)]
                for moment in moments if thorough else [rng.choice(moments)]:
                    own.kill({"number": number, "delay": moment}, *(ways if thorough else [rng.choice(ways)]))
            sys.stderr.write(f"{name}: {report.points[name]} kills, {time.monotonic() - start:.0f} s\n")
    return report


def main(arguments: list[str] | None = None) -> int:
    """Run a campaign and print what came of it; 1 where something differed."""
    parser = argparse.ArgumentParser(prog="python -m dataflow.migrations.proof.crashes", description=__doc__)
    parser.add_argument("--url", default="sqlite", help='"sqlite" (temporary files), or of a PostgreSQL server')
    parser.add_argument("--every", type=int, default=1, help="kill at each so-many-th statement only")
    parser.add_argument("--writes", action="store_true", help="only at statements that leave something behind")
    parser.add_argument("--thorough", action="store_true", help="in all ways, instead of one that is drawn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("changes", nargs="*", help=f"of {', '.join(KILLED)}, rebuild; all by default")
    given = parser.parse_args(arguments)
    names = given.changes or [*KILLED, *(["rebuild"] if given.url == "sqlite" else [])]
    report = campaign(
        given.url, names, every=given.every, seed=given.seed, writes=given.writes, thorough=given.thorough
    )
    sys.stdout.write(f"{report}\n")
    return bool(report.failures)


if __name__ == "__main__":
    sys.exit(main())
