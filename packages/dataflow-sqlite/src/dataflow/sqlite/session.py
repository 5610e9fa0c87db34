"""One lease of a connection: programs run on it, are interrupted and undone, and leave it clean.

Knows the link it leases only by its parts (`raw`, `aio`, `guard`, `lock`); opening and closing are its neighbour's.
"""

import asyncio
import re
import sqlite3
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from dataflow.dialect import COUNT, MANY, ROWS, Command, Program
from dataflow.errors import DataFlowError, InputError, QueryError, UsageError
from dataflow.sqlite.errors import translate
from dataflow.sqlite.functions import Refused

if TYPE_CHECKING:
    import aiosqlite

    from dataflow.sqlite.connection import Link

T = TypeVar("T")
_STATEFUL = re.compile(r"pragma|attach|detach|temp|trigger", re.IGNORECASE)
"""Words without which SQL of the user's own leaves a connection as it was."""
SEAL = "PRAGMA query_only = ON"
"""After which the connection refuses writes, for the length of one statement."""
_UNDO = ("ROLLBACK", "RELEASE", "PRAGMA query_only = OFF")
SIGNALS_EVERY = 200_000
"""Steps of SQLite's machine (some milliseconds) after which Ctrl-C is looked for."""


class _Cancelled(BaseException):
    """The program was cancelled; thrown into it, so that it undoes what it began."""


class Turn:
    """One program on its way through a connection: what is to stop it."""

    __slots__ = ("stop",)

    def __init__(self) -> None:
        self.stop: BaseException | None = None


def watch(link: "Link") -> Generator[int, None, None]:
    """Serve as a connection's progress handler: signal handlers run meanwhile, and what they raise stops the turn.

    Ctrl-C interrupts a statement that way in the main thread; in other threads Python runs no signal handlers.
    """
    answer = 0
    while True:
        try:
            while True:
                yield answer
                answer = 0
        except GeneratorExit:
            return
        except BaseException as error:  # noqa: BLE001  # sqlite3 would drop it
            if link.turn is not None:
                link.turn.stop = error
            answer = 1


class SQLiteSession:
    """A leased connection.

    Attributes:
        depth: open transaction (1) plus savepoints.
        max_parameters: as the connection reports.
        privileged: whether SQL of the user's own sees the records of all tenants.
        shield: asked about each change of SQL of the user's own, where a policy wants it.
        place: whose file it is, where each tenant has its own.
    """

    __slots__ = (
        "_dirty",
        "_lifted",
        "_link",
        "_over",
        "_sealed",
        "_undone",
        "depth",
        "max_parameters",
        "place",
        "privileged",
        "shield",
    )

    def __init__(self, link: "Link", *, privileged: bool = True) -> None:
        self._link = link
        self._dirty = False
        self._lifted = link.confinement is None or not privileged
        self._over = False
        self._sealed = False
        self._undone = False
        self.depth = 0
        self.max_parameters = link.max_parameters
        self.privileged = privileged
        self.place: str | None = None
        self.shield: Denies | None = None
        if link.confinement is not None:
            link.context = {}  # whoever comes next says whom it serves

    @property
    def context(self) -> Mapping[str, str]:
        """What the connection knows of the call it serves."""
        return self._link.context

    @context.setter
    def context(self, known: Mapping[str, str]) -> None:
        self._link.context = known

    @property
    def reads_only(self) -> bool:
        """Whether the connection refuses every write, whatever the call."""
        return self._link.reads_only

    @property
    def contended(self) -> bool:
        """Whether somebody waits for this connection."""
        return self._link.lock.contended

    def _drive(self, program: Program[T], turn: Turn) -> T:
        """Run a program to its end on the connection, in whichever thread this is."""
        link = self._link
        with link.guard:
            raw = link.raw
            if raw is None:
                program.close()
                msg = "the database was closed while an operation ran"
                raise UsageError(msg, hint="close it after the last operation", code="closed")
            if link.watcher is not None and link.watcher.gi_frame is None:  # type: ignore[attr-defined]
                # it has ended: a signal hit while it dealt with another
                link.watch(raw)
            link.turn = turn
            try:
                return self._steps(raw, program, turn)
            finally:
                with link.turning:
                    link.turn = None

    def _stop(self, turn: Turn) -> None:
        """Stop a program, and interrupt the statement under way if it is its own."""
        link = self._link
        turn.stop = _Cancelled()
        with link.turning:
            if link.turn is turn and link.raw is not None:
                link.raw.interrupt()

    def _steps(self, raw: sqlite3.Connection, program: Program[T], turn: Turn) -> T:
        try:
            command, arguments = next(program)
            while True:
                if turn.stop is not None and not command.sql.startswith(_UNDO):
                    command, arguments = program.throw(turn.stop)
                    continue
                try:
                    reply = self._execute(raw, command, arguments)
                except DataFlowError as fault:
                    command, arguments = program.throw(fault)
                except (sqlite3.Error, UnicodeError, OverflowError, Refused) as error:
                    if turn.stop is not None and not command.sql.startswith(_UNDO):
                        continue  # it was interrupted; what interrupted it is thrown in its place
                    command, arguments = program.throw(self._explained(error))
                else:
                    command, arguments = program.send(reply)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        except BaseException:
            program.close()
            raise

    def _execute(self, raw: sqlite3.Connection, command: Command, arguments: Sequence[Any]) -> Any:
        if self._over:
            msg = "the call belongs to a run that is over"
            raise UsageError(msg, hint="the run was cancelled or timed out; nothing more is written", code="run-over")
        if self.depth and not raw.in_transaction:  # interrupted, disk full …: SQLite undid all of it
            self._undone = command.sql.startswith("ROLLBACK") or (self._undone and command.sql.startswith(_UNDO))
            if self._undone:
                return 0
            msg = "the database rolled the transaction back after an earlier error"
            raise QueryError(msg, hint="let that error end the transaction, then run it again", code="rolled-back")
        confinement = self._link.confinement
        if not self._lifted and confinement is not None:
            confinement.lift(raw)
            self._lifted = True
        if command.named and confinement is not None and not self.privileged:
            return confinement.run(raw, command.sql, arguments)
        if command.returns is ROWS and not command.named:
            return raw.execute(command.sql, arguments).fetchall()
        if command.returns is COUNT:
            self._sealed = self._sealed or command.sql == SEAL
            changed = raw.execute(command.sql, arguments).rowcount
            return _changes(raw) if changed < 0 and command.writes else changed
        if command.returns is MANY:
            return raw.executemany(command.sql, arguments).rowcount
        self._dirty = self._dirty or _STATEFUL.search(command.sql) is not None
        before = raw.total_changes
        with _shielded(raw, self.shield):
            cursor = raw.execute(command.sql, arguments)
            rows = cursor.fetchall()
        changed = cursor.rowcount
        if changed < 0 and raw.total_changes > before:
            changed = _changes(raw)
        return [column[0] for column in cursor.description or ()], rows, changed

    def _explained(self, error: Exception) -> DataFlowError:
        known = translate(error, self._link.path) if isinstance(error, sqlite3.Error) else _unbindable(error)
        known.__cause__ = error
        return known

    async def run(self, program: Program[T]) -> T:
        """Run a program on aiosqlite's thread, in one hop; cancellation interrupts it and waits until it stopped."""
        aio = self._link.aio
        assert aio is not None
        turn = Turn()
        try:
            return await aio._execute(self._drive, program, turn)  # type: ignore[no-any-return,no-untyped-call]  # noqa: SLF001
        except asyncio.CancelledError:
            self._stop(turn)
            await _drained(aio)
            raise

    def run_blocking(self, program: Program[T]) -> T:
        """Run a program in the calling thread; in the main thread, Ctrl-C interrupts its statement."""
        return self._drive(program, Turn())

    def _clean(self) -> None:
        self._over = True
        link = self._link
        while not link.guard.acquire(timeout=0.05):  # a thread that a cancelled run left behind is in a statement
            if link.raw is not None:
                link.raw.interrupt()
        try:
            if link.raw is not None:
                if link.raw.in_transaction:
                    link.raw.rollback()
                if self._dirty:
                    link.reset(link.raw)
                elif self._sealed and not link.reads_only:
                    link.raw.execute("PRAGMA query_only = OFF")
        finally:
            link.guard.release()
        self.depth = 0

    async def release(self) -> None:
        """Roll back what is open, and give the connection back."""
        self.release_blocking()

    def release_blocking(self) -> None:
        """Roll back what is open, and give the connection back."""
        try:
            self._clean()
        finally:
            self._link.lock.release()

    abandon = release_blocking


Denies = Callable[[str, str, str], bool]
_CHANGES = {
    sqlite3.SQLITE_INSERT: "create",
    sqlite3.SQLITE_UPDATE: "update",
    sqlite3.SQLITE_DELETE: "delete",
    sqlite3.SQLITE_DROP_TABLE: "delete",
}


@contextmanager
def _shielded(raw: sqlite3.Connection, denies: Denies | None) -> Iterator[None]:
    """Ask about every change of the statement that is prepared meanwhile, also by triggers, views and foreign keys."""
    if denies is None:
        yield
        return

    def authorize(action: int, table: str | None, column: str | None, schema: str | None, source: str | None) -> int:
        del schema, source
        effect = _CHANGES.get(action)
        named = column if action == sqlite3.SQLITE_UPDATE and column else ""
        denied = effect is not None and denies(effect, table or "", named)
        return sqlite3.SQLITE_DENY if denied else sqlite3.SQLITE_OK

    raw.set_authorizer(authorize)
    try:
        yield
    finally:
        raw.set_authorizer(None)


def _changes(raw: sqlite3.Connection) -> int:
    """Return what the last statement changed; sqlite3 does not count where it begins with WITH."""
    return int(raw.execute("SELECT changes()").fetchone()[0])


async def _drained(aio: "aiosqlite.Connection") -> None:
    """Wait until what is queued for a connection's thread is done; cancelling does not shorten this."""
    while True:
        try:
            await aio._execute(lambda: None)  # type: ignore[no-untyped-call]  # noqa: SLF001
        except asyncio.CancelledError:
            continue
        except ValueError:  # closed meanwhile
            pass
        return


def _unbindable(error: Exception) -> DataFlowError:
    if isinstance(error, Refused):  # out of a collation, which sqlite3 does not wrap
        hint = "something else wrote it: correct the row, or the field's type"
        return QueryError(str(error), hint=hint, code="bad-stored-value")
    msg = "a parameter cannot be stored: " + (
        "text with lone surrogates" if isinstance(error, UnicodeError) else "an integer beyond 64 bits"
    )
    return InputError(msg, hint="convert it first")
