"""Carrying a plan out: units of steps, each in its transaction, journalled, retried, resumed, and undone on failure.

All of it is a program (`dataflow.dialect.Program`) on one connection, which holds the migration lock meanwhile: the
lock, and what it protects, cannot part company. Where a database makes a migration in one transaction
(`SchemaEditor.whole`), a crash leaves the old schema; elsewhere the journal says where to go on.
"""

import getpass
import random
import socket
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from time import monotonic
from typing import Any, TypeVar

import attrs

from dataflow.changes import SchemaEditor, Step
from dataflow.dialect import COUNT, Command, Program
from dataflow.errors import DatabaseTimeout, DatabaseUnavailable, DataFlowError, SchemaError, SerializationError
from dataflow.migrations.journal import DONE, FAILED, HISTORY, STEPS, UNDONE, Entry, Journal, Outcome
from dataflow.migrations.plan import Plan, undoing

T = TypeVar("T")
_AGAIN = ("lock-timeout", SerializationError.code)
"""Codes of errors after which a part of a migration is tried again: nothing of it was done."""


@attrs.frozen
class Limits:
    """How patient a migration is.

    Attributes:
        lock_timeout: seconds to wait for the lock of a table; writers wait no longer than this behind it.
        statement_timeout: seconds that a statement may take; 0 for any.
        patience: seconds in which a step that got no lock is tried again.
        waiting: seconds to wait for other processes that migrate.
    """

    lock_timeout: float = 2.0
    statement_timeout: float = 0.0
    patience: float = 60.0
    waiting: float = 300.0


class MigrationError(SchemaError):
    """A migration failed.

    Attributes:
        step: summary of the step that failed.
        undone: whether the schema is as it was before.
    """

    code = "migration-failed"

    def __init__(self, message: str, *, step: str = "", undone: bool = False, **more: Any) -> None:
        super().__init__(message, **more)
        self.step = step
        self.undone = undone


@attrs.frozen
class Unit:
    """Steps that are made together: positions in the plan, and how."""

    positions: tuple[int, ...]
    mode: str


def units(steps: Sequence[Step]) -> list[Unit]:
    """Return the units of a plan: neighbours that go together, and others each by itself."""
    found: list[Unit] = []
    for position, step in enumerate(steps):
        if step.mode == "together" and found and found[-1].mode == "together":
            found[-1] = Unit((*found[-1].positions, position), "together")
        else:
            found.append(Unit((position,), step.mode))
    return found


def who() -> str:
    """Say who runs this process: user@host."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):
        return socket.gethostname()


def nothing(what: object) -> Program[None]:
    """Do nothing."""
    del what
    yield from ()


class Execution:
    """Carries out one plan, or the rest of one.

    Args:
        editor: of the dialect.
        journal: of the database.
        limits: how patient it is.
        finish: a program to run in the transaction in which the migration ends: registry, extras of features.
        leave: the same for one that fails and stays partly done.
        again: makes anew what the framework keeps on tables, once steps that it was in the way of are made.
        rollback: whether what was done is undone when a later step fails, where that is possible.
        log: told of progress: ``log("migration.progressed", …)``.

    Attributes:
        at: summary of the step that is made now.
    """

    def __init__(
        self,
        editor: SchemaEditor,
        journal: Journal,
        *,
        limits: Limits,
        finish: Callable[[Entry], Program[None]],
        leave: Callable[[Entry], Program[None]] = nothing,
        again: Callable[[Collection[str]], Program[None]] = nothing,
        rollback: bool = True,
        log: Callable[..., None] = lambda *_, **__: None,
    ) -> None:
        self.log = log
        self.editor = editor
        self.journal = journal
        self.limits = limits
        self.finish = finish
        self.leave = leave
        self.again = again
        self.rollback = rollback
        self.at = ""

    def run(self, plan: Plan, *, actor: str = "", note: str = "", outcome: Outcome | None = None) -> Program[Entry]:
        """Carry a plan out; inside `SchemaEditor.locked`."""
        entry = yield from self._attempt(self._begin(plan, actor or who(), note, outcome))
        return (yield from self.resume(entry))

    def _begin(self, plan: Plan, actor: str, note: str, outcome: Outcome | None) -> Program[Entry]:
        yield from self.journal.make(HISTORY, STEPS)
        return (yield from self.journal.begin(plan, actor, note, outcome))

    def resume(self, entry: Entry) -> Program[Entry]:
        """Carry out what is left of a migration; inside `SchemaEditor.locked`.

        Raises:
            MigrationError: a step failed.
        """
        steps = [planned.step for planned in entry.plan.steps]
        done = set(entry.done)
        for unit in units(steps):
            if done.issuperset(unit.positions):
                continue
            self.at = steps[unit.positions[0]].summary
            try:
                yield from self._unit(entry, unit, steps)
            except GeneratorExit:
                raise
            except Exception as error:
                raise (yield from self._failed(entry, sorted(done), self.at, error)) from error
            done.update(unit.positions)
            self.log("migration.progressed", migration=entry.id, done=len(done), steps=len(steps))
        try:
            yield from self._attempt(self._end(entry))
        except GeneratorExit:
            raise
        except Exception as error:
            raise (yield from self._failed(entry, sorted(done), "finish", error)) from error
        return attrs.evolve(entry, status=DONE, done=frozenset(done))

    def _end(self, entry: Entry) -> Program[None]:
        yield from self.finish(entry)
        yield from self.journal.end(entry, DONE)

    # -- one unit -------------------------------------------------------------------------------------------------
    def _unit(self, entry: Entry, unit: Unit, steps: Sequence[Step]) -> Program[None]:
        step = steps[unit.positions[0]]
        if unit.mode == "batches":
            yield from self._batches(entry, unit.positions[0], step)
        elif unit.mode == "outside":
            yield from self._perform(step)
            yield from self._attempt(self.journal.mark(entry, unit.positions))
        else:
            together = self._statements(entry, unit, [steps[position] for position in unit.positions])
            yield from self._attempt_again(together, step=step.summary)

    def _perform(self, step: Step) -> Program[None]:
        yield from self._attempt_again(lambda: self.editor.perform(step), step=step.summary, transaction=False)

    def _statements(self, entry: Entry, unit: Unit, steps: Sequence[Step]) -> Callable[[], Program[None]]:
        cleared = [] if self.editor.whole else [step for step in steps if "clears" in step.details]

        def body() -> Program[None]:
            yield from self.editor.clear(cleared)
            for step in steps:
                self.at = step.summary
                yield from self.made(step)
            yield from self.again({step.table for step in cleared})
            yield from self.journal.mark(entry, unit.positions)

        return body

    def made(self, step: Step) -> Program[None]:
        """Make a step in the open transaction."""
        for sql in step.sql:
            yield Command(sql, COUNT, writes=True), ()

    def _batches(self, entry: Entry, position: int, step: Step) -> Program[None]:
        cursor = entry.cursors.get(position)
        while True:

            def body(start: Any = cursor) -> Program[Any]:
                _, reached = yield from self.editor.batch(step, start)
                yield from self.journal.mark(entry, [position], reached, done=reached is None)
                return reached

            cursor = yield from self._attempt_again(body, step=step.summary)
            if cursor is None:
                return

    def _attempt(self, body: Program[T], *, transaction: bool = True) -> Program[T]:
        """Run part of the migration; outside a transaction, nobody waits behind it, and it may wait for long."""
        limits = self.limits
        patience = limits.lock_timeout if transaction else max(limits.lock_timeout, limits.patience)
        return (
            yield from self.editor.attempt(
                body, lock_timeout=patience, statement_timeout=limits.statement_timeout, transaction=transaction
            )
        )

    def _attempt_again(self, body: Callable[[], Program[T]], *, step: str, transaction: bool = True) -> Program[T]:
        """Try until the locks are granted, with pauses in which whoever waits behind gets through."""
        spent = 0.0
        for pause in _pauses():
            start = monotonic()
            try:
                return (yield from self._attempt(body(), transaction=transaction))
            except (DatabaseTimeout, SerializationError) as error:  # the latter: a deadlock that others got out of
                spent += min(monotonic() - start, self.limits.lock_timeout if transaction else self.limits.patience)
                spent += pause
                if error.code not in _AGAIN or spent > self.limits.patience:
                    raise
                self.log("migration.waits", step=step, seconds=round(pause, 2))
            yield from self.editor.pause(pause)
        raise AssertionError

    # -- failure --------------------------------------------------------------------------------------------------
    def _failed(self, entry: Entry, done: list[int], step: str, error: Exception) -> Program[MigrationError]:
        """Undo what was done, if that is wanted and possible; write down what came of it."""
        if self.editor.whole:
            return _explained(entry, step, error, undone=True)  # the surrounding transaction undoes everything
        if isinstance(error, DatabaseUnavailable):
            return _explained(entry, step, error, interrupted=True)
        text = str(error).split("\n", maxsplit=1)[0]
        try:
            undone = (self.rollback or not done) and (yield from self._undo(entry, done, text))
            if not undone:
                yield from self._attempt(self._left(entry, text))
        except DatabaseUnavailable:
            return _explained(entry, step, error, interrupted=True)
        steps = [entry.plan.steps[position].step for position in done if undone]
        changed = ", ".join(each.summary for each in steps if each.data_loss != "none")
        return _explained(entry, step, error, undone=undone, changed=changed)

    def _left(self, entry: Entry, text: str) -> Program[None]:
        yield from self.leave(entry)
        yield from self.journal.end(entry, FAILED, text)

    def _undo(self, entry: Entry, done: list[int], text: str) -> Program[bool]:
        """Undo steps, and say so in the history, both or neither: nobody undoes them again after a crash.

        Where some cannot run in a transaction, a crash leaves a migration of which less is done: it goes on from there.
        """
        steps = {position: entry.plan.steps[position].step for position in reversed(done)}
        if any(step.inverse is None for step in steps.values()):
            return False
        back = {position: undoing(step) for position, step in steps.items()}
        try:
            together: list[int] = []
            for position, step in back.items():
                if step.mode != "outside":
                    together.append(position)
                    continue
                yield from self._unmade(entry, together, back)
                yield from self._perform(step)
                together = [position]  # what is done is said before anything else is
                back[position] = attrs.evolve(step, sql=())
            yield from self._unmade(entry, together, back, text)
        except DatabaseUnavailable:
            raise
        except DataFlowError as error:
            self.log("migration.not_undone", migration=entry.id, error=str(error).split("\n")[0])
            return False
        return True

    def _unmade(
        self, entry: Entry, positions: Sequence[int], back: Mapping[int, Step], end: str | None = None
    ) -> Program[None]:
        """Undo steps in one transaction, and say so; with `end`, the reason, the migration is undone then."""

        def body() -> Program[None]:
            for position in positions:
                yield from self.made(back[position])
            if end is None:
                yield from self.journal.unmark(entry, positions)
            else:
                yield from self.journal.end(entry, UNDONE, end)

        if positions or end is not None:
            yield from self._attempt_again(body, step="undo")


def _pauses() -> Iterator[float]:
    pause = 0.1
    while True:
        yield pause * random.uniform(0.5, 1.5)  # noqa: S311  # jitter
        pause = min(pause * 2, 5.0)


def _explained(
    entry: Entry,
    step: str,
    error: Exception,
    *,
    undone: bool = False,
    interrupted: bool = False,
    changed: str = "",
) -> MigrationError:
    """Return the error of a migration; `changed`: steps that are undone, but for what they did to values."""
    reason = error.message if isinstance(error, DataFlowError) else f"{type(error).__name__}: {error}"
    hint = error.hint if isinstance(error, DataFlowError) else ""
    msg = f"the migration failed at: {step}: {reason}"
    if interrupted:
        hint = f"migrate again: it goes on where it was; migration {entry.id} is partly done"
    elif changed:
        hint = f"{hint}; " * bool(hint) + f"the schema is as it was, but values may have changed: {changed}"
    elif undone:
        hint = f"{hint}; nothing has changed" if hint else "nothing has changed"
    else:
        hint = f"{hint}; " * bool(hint) + f"see 'dataflow migrate history'; migration {entry.id} is partly done"
    return MigrationError(msg, step=step, undone=undone, hint=hint, where={"migration": entry.id})
