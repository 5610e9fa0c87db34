"""Contests: the same work done several ways, alternately, in one process; medians, and results that are compared.

Knows nothing of databases. A case is an async generator that prepares, yields contests, and cleans up.
"""

import gc
import inspect
import os
import platform
import statistics
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any

import attrs

MICRO = 1e6
Side = Callable[[], Any]
"""One call of the work: a function, or a coroutine function. Its result is compared with the reference's."""


@attrs.frozen
class Target:
    """What the ratio of DataFlow to the reference is meant to be.

    Attributes:
        most: highest time, as a multiple of the reference's; or None.
        least: lowest speed, as a multiple of the reference's; or None.
        value: highest time of its own (microseconds per operation, or in `unit`); or None.
        unit: of `value`.
    """

    most: float | None = None
    least: float | None = None
    value: float | None = None
    unit: str = "µs"

    def __str__(self) -> str:
        if self.most is not None:
            return f"≤ {self.most:g} ×"
        if self.least is not None:
            return f"≥ {self.least:g} × speed"
        return f"≤ {self.value:g} {self.unit}" if self.value is not None else ""

    def met(self, ratio: float | None, own: float) -> bool | None:
        """Tell whether it is reached; None where there is no target.

        Args:
            ratio: time of DataFlow as a multiple of the reference's.
            own: time per operation, in `unit`.
        """
        if self.most is not None and ratio is not None:
            return ratio <= self.most
        if self.least is not None and ratio is not None:
            return 1 / ratio >= self.least
        return None if self.value is None else own <= self.value


@attrs.frozen
class Contest:
    """The same work, done by several sides.

    Attributes:
        sides: name -> one call of the work; the first is the reference, unless it is DataFlow that stands alone.
        target: what DataFlow's ratio is meant to be.
        per: operations (or rows) that one call does.
        calls: calls per round.
        rounds: rounds; each side has its turn in each.
        before: what each call needs beforehand, not measured (only with ``calls=1``).
        same: brings a result into the form in which sides are compared; None where they cannot be.
        note: what the reference does.
        reported: whether sides return what is to be compared (in the target's unit) instead of being timed.
        name: in the table.
    """

    sides: Mapping[str, Side]
    target: Target = Target()
    per: int = 1
    calls: int = 300
    rounds: int = 9
    before: Side | None = None
    same: Callable[[Any], Any] | None = lambda result: result
    note: str = ""
    reported: bool = False
    name: str = ""


@attrs.frozen
class Outcome:
    """What a contest showed: side -> seconds per operation (median of the rounds), and all rounds."""

    name: str
    target: Target
    seconds: Mapping[str, float]
    rounds: Mapping[str, list[float]]
    note: str = ""

    @property
    def reference(self) -> str | None:
        """The side that DataFlow is compared with."""
        first = next(iter(self.seconds))
        return None if first == "dataflow" else first

    @property
    def ratio(self) -> float | None:
        """Time of DataFlow as a multiple of the reference's."""
        return None if self.reference is None else self.seconds["dataflow"] / self.seconds[self.reference]

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome for JSON; times in microseconds per operation."""
        return {
            "name": self.name,
            "target": str(self.target),
            "unit": self.target.unit,
            "met": self.target.met(self.ratio, self.seconds["dataflow"] * 1e6),
            "ratio": self.ratio,
            "reference": self.reference,
            "microseconds": {side: seconds * 1e6 for side, seconds in self.seconds.items()},
            "rounds": {side: [seconds * 1e6 for seconds in found] for side, found in self.rounds.items()},
            "note": self.note,
        }


Case = Callable[[], AsyncGenerator[Contest, None]]
CASES: dict[str, Case] = {}
"""Every case by name, in the order of registration."""


def case(name: str) -> Callable[[Case], Case]:
    """Register a case under a name such as ``sqlite/read``."""

    def register(function: Case) -> Case:
        CASES[name] = function
        return function

    return register


async def _once(side: Side) -> Any:
    found = side()
    return await found if inspect.isawaitable(found) else found


async def _timed(side: Side, calls: int) -> float:
    """Return the seconds that some calls take; the loop itself costs the same for every side."""
    if inspect.iscoroutinefunction(side):
        awaited: Callable[[], Awaitable[Any]] = side
        start = perf_counter()
        for _ in range(calls):
            await awaited()
        return perf_counter() - start
    start = perf_counter()
    for _ in range(calls):
        side()
    return perf_counter() - start


async def hold(contest: Contest, *, quick: bool = False) -> Outcome:
    """Measure one contest.

    Raises:
        AssertionError: two sides do not come to the same result.
    """
    rounds = 3 if quick else contest.rounds
    calls = max(1, contest.calls // 10) if quick else contest.calls
    if not contest.reported:
        await _verify(contest)
    found: dict[str, list[float]] = {side: [] for side in contest.sides}
    names = list(contest.sides)
    for number in range(-1, rounds):  # the first round only warms up
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            if contest.before is not None:
                await _once(contest.before)
            gc.collect()
            if contest.reported:
                measured = await _once(contest.sides[name]) / MICRO
            else:
                measured = await _timed(contest.sides[name], calls) / calls / contest.per
            if number >= 0:
                found[name].append(measured)
    if not contest.reported:
        await _verify(contest)
    medians = {name: statistics.median(times) for name, times in found.items()}
    return Outcome(contest.name, contest.target, medians, found, contest.note)


async def _verify(contest: Contest) -> None:
    results = {}
    for name, side in contest.sides.items():
        if contest.before is not None:
            await _once(contest.before)
        result = await _once(side)
        if contest.same is not None:
            results[name] = contest.same(result)
    first = next(iter(results), None)
    for name, result in results.items():
        if result != results[first]:
            msg = f"{contest.name}: {name} and {first} differ:\n{result!r:.600}\n{results[first]!r:.600}"
            raise AssertionError(msg)


def machine() -> dict[str, Any]:
    """Describe where this runs, and how busy it is."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "implementation": sys.implementation.name,
    }
