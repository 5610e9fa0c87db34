"""Running a program on several databases, and making a failing one small."""

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from dataflow.testing.differential.compare import Divergence
from dataflow.testing.differential.expect import Outcome, execute
from dataflow.testing.differential.generator import Generator
from dataflow.testing.differential.programs import Ambiguous, Dangling, Op, Step, origins
from dataflow.testing.differential.target import Target
from dataflow.testing.differential.world import World

MOST_REPLAYS = 400


@attrs.frozen
class Found:
    """A divergence, with the steps that lead to it.

    Attributes:
        steps: the last one is where it shows.
        database: name of the dialect.
        what: where oracle and database differ.
        expected: by the oracle.
        actual: from the database.
    """

    steps: tuple[Step, ...]
    database: str
    what: str
    expected: Any
    actual: Any

    @property
    def signature(self) -> tuple[Any, ...]:
        """What two divergences share that are one defect, as far as one can tell."""
        error = (tuple(self.expected)[:2], tuple(self.actual)[:2]) if self.what == "error" else ()
        return (self.database, self.what.partition("[")[0], *error)


class Senseless(Exception):
    """What is left of a program makes no sense to the oracle, which trusts the generator."""


Watch = Callable[[Step, Outcome], None]


def run_program(seed: int, targets: Sequence[Target], watch: Watch | None = None) -> Found | None:
    """Run the program of a seed on all databases; return the first divergence.

    Args:
        seed: determines the program.
        targets: the databases.
        watch: called after each step on which all agree.
    """
    generator = Generator(seed)
    world = World()
    steps: list[Step] = []

    def draw() -> Iterator[tuple[Step, Outcome]]:
        while not generator.done:
            step, outcome = generator.next(world)
            steps.append(step)
            yield step, outcome

    return _drive(draw(), steps, world, targets, watch)


def replay(steps: Sequence[Step], targets: Sequence[Target]) -> Found | None:
    """Run given steps; return the first divergence.

    Raises:
        Dangling: a step refers to one that is not among them.
        Ambiguous: the outcome of a step is open now.
        Senseless: the oracle cannot carry a step out.
    """
    world = World()
    done: list[Step] = []

    def given() -> Iterator[tuple[Step, Outcome]]:
        for step in steps:
            done.append(step)
            try:
                outcome = execute(world, step)
            except (Ambiguous, Dangling):
                raise
            except Exception as error:
                raise Senseless from error
            yield step, outcome

    return _drive(given(), done, world, targets, None)


def _drive(
    pairs: Iterator[tuple[Step, Outcome]],
    done: list[Step],
    world: World,
    targets: Sequence[Target],
    watch: Watch | None,
) -> Found | None:
    for target in targets:
        target.reset()
    for step, outcome in pairs:
        for target in targets:
            try:
                target.run(step, outcome, world)
            except Divergence as found:
                return Found(tuple(done), target.name, found.what, found.expected, found.actual)
            except Dangling:
                raise
            except Exception as error:  # noqa: BLE001  # whatever it is, it should not have been raised
                actual = (type(error).__name__, getattr(error, "code", ""), traceback.format_exc(limit=-8))
                return Found(tuple(done), target.name, "error", ("none", ""), actual)
            if target.texts != targets[0].texts:
                return Found(tuple(done), target.name, "texts", targets[0].texts, target.texts)
        if watch is not None:
            watch(step, outcome)
    for target in targets:
        try:
            target.check(world)
        except Divergence as found:
            return Found(tuple(done), target.name, found.what, found.expected, found.actual)
    return None


# -- making it small --------------------------------------------------------------------------------------------------
class Minimiser:
    """Leaves out whatever a divergence does not need (delta debugging).

    Args:
        found: the divergence.
        targets: the databases.
    """

    def __init__(self, found: Found, targets: Sequence[Target]) -> None:
        self.best = found
        self.targets = targets
        self.replays = 0

    def run(self) -> Found:
        """Return the smallest program found that shows the same divergence; the whole one where it does not repeat."""
        if not self._try(self.best.steps):
            return self.best
        while self._drop_steps() | self._simplify_steps():
            pass
        return self.best

    def _try(self, steps: Sequence[Step]) -> bool:
        """Replay; keep the steps if they show the same divergence."""
        if self.replays >= MOST_REPLAYS:
            return False
        self.replays += 1
        try:
            found = replay(steps, self.targets)
        except (Ambiguous, Dangling, Senseless):
            return False
        if found is None or found.signature != self.best.signature:
            return False
        self.best = found
        return True

    def _drop_steps(self) -> bool:
        changed = False
        size = max(len(self.best.steps) // 2, 1)
        while True:
            start = 0
            while start < len(self.best.steps) - 1:
                steps = self.best.steps
                dropped = range(start, min(start + size, len(steps) - 1))
                if dropped and self._try(_without(steps, dropped)):
                    changed = True
                else:
                    start += size
            if size == 1:
                return changed
            size //= 2

    def _simplify_steps(self) -> bool:
        changed = False
        place = 0
        while place < len(self.best.steps):
            steps = self.best.steps
            for step in _simpler(steps[place]):
                if self._try((*steps[:place], step, *steps[place + 1 :])):
                    changed = True
                    break
            else:
                place += 1
        return changed


def _without(steps: Sequence[Step], dropped: Sequence[int]) -> tuple[Step, ...]:
    """Leave steps out, and those that refer to what they made."""
    gone: set[int] = set()
    kept = []
    for place, step in enumerate(steps):
        last = place == len(steps) - 1
        if place in dropped or (not last and origins(step) & gone):
            gone |= {op.number for op in step.ops}
        else:
            kept.append(step)
    return tuple(kept)


def _simpler(step: Step) -> Iterator[Step]:
    """Yield steps with a little less in them."""
    if step.boom:
        yield attrs.evolve(step, boom=False)
    if step.scope is not None:
        yield attrs.evolve(step, scope=None)
    if len(step.ops) > 1:
        for place in range(len(step.ops)):
            yield attrs.evolve(step, ops=(*step.ops[:place], *step.ops[place + 1 :]))
    if len(step.ops) == 1 and step.mode != "direct" and step.scope is None and not step.boom:
        yield attrs.evolve(step, mode="direct")
    for place, op in enumerate(step.ops):
        for params in _smaller(op.params):
            simpler = Op(op.number, op.kind, op.model, params, op.fault)
            yield attrs.evolve(step, ops=(*step.ops[:place], simpler, *step.ops[place + 1 :]))


def _smaller(value: Any, depth: int = 0) -> Iterator[Any]:
    """Yield documents with one entry less, at any depth."""
    if depth > 5:
        return
    if isinstance(value, Mapping):
        for key in value:
            yield {name: item for name, item in value.items() if name != key}
        for key, item in value.items():
            for smaller in _smaller(item, depth + 1):
                yield {**value, key: smaller}
    elif isinstance(value, list):
        for place in range(len(value)):
            yield [*value[:place], *value[place + 1 :]]
        for place, item in enumerate(value):
            for smaller in _smaller(item, depth + 1):
                yield [*value[:place], smaller, *value[place + 1 :]]
