"""The connections of a DataFlow in tdd mode: one, in a transaction that is rolled back when the DataFlow closes.

What the framework calls a transaction is a savepoint there, so that everything works as usual, and nothing stays. The
connection belongs to the background loop; calls from other loops and threads are sent there, and take turns. A dialect
that can copy its database does that instead (`Dialect.trial`). Knows no dialect; one may derive from `TrialDatabase`.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from dataflow import _loop
from dataflow.dialect import STANDING, Command, Database, Program, Session, Step
from dataflow.errors import DatabaseTimeout, NotYetAvailable, UsageError
from dataflow.session import FairLock, framed, savepoint, through

if TYPE_CHECKING:
    from dataflow.config import Config
    from dataflow.model import ModelSpec

T = TypeVar("T")
_TRANSACTION, _STATEMENT = "dataflow_trial", "dataflow_step"
"""The savepoints that stand for a transaction, and for a statement that commits by itself."""
_HOLDER = "tdd mode"


class _Translated:
    """Programs whose transactions are savepoints; a statement outside of them gets one of its own.

    Attributes:
        open: whether a savepoint stands for a transaction that was begun.
    """

    def __init__(self, database: "TrialDatabase") -> None:
        self.open = False
        self._database = database

    def __call__(self, program: Program[T]) -> Program[T]:
        return through(program, self._sent)

    def _sent(self, step: Step) -> Program[Any]:
        command, arguments = step
        if command.sql.startswith("BEGIN"):
            reply = yield self._database.begun(command, _TRANSACTION), ()
            self.open = True
            return reply
        if command.sql == "COMMIT":
            return (yield from self._commit())
        if command.sql == "ROLLBACK":
            return (yield from self.undo())
        if command.returns == STANDING:
            return self.open
        step = self._database.instead(command), arguments
        if self.open or not self._database.aborts_on_error:
            return (yield step)
        return (yield from self._alone(step))

    def _alone(self, step: Step) -> Program[Any]:
        """Send a statement that commits by itself, and keep its failure from spoiling the transaction."""
        begin, *undo = savepoint(_STATEMENT)
        yield begin, ()
        return (yield from framed(_sent(step), end=self._database.kept(_STATEMENT), undo=undo))

    def _commit(self) -> Program[int]:
        if not self.open:
            return 0
        self.open = False
        try:
            yield self._database.kept(_TRANSACTION), ()
        except GeneratorExit:
            raise
        except BaseException:
            yield from _undone(_TRANSACTION)
            raise
        return 0

    def undo(self) -> Program[int]:
        """Undo what the open transaction has done."""
        if self.open:
            self.open = False
            yield from _undone(_TRANSACTION)
        return 0


def _sent(step: Step) -> Program[Any]:
    return (yield step)


def _undone(name: str) -> Program[None]:
    _, undo, release = savepoint(name)
    yield undo, ()
    yield release, ()


class TrialSession:
    """A lease of the one connection (`dataflow.dialect.Session`)."""

    def __init__(self, database: "TrialDatabase", inner: Session) -> None:
        self._database = database
        self.inner = inner
        self._translated = _Translated(database)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop = _loop.running()
        self._over = False
        self.depth = 0
        self.max_parameters = inner.max_parameters
        self.privileged = True
        self.place: str | None = None

    @property
    def context(self) -> Mapping[str, str]:
        """What the connection knows of the call it serves."""
        return self.inner.context

    @context.setter
    def context(self, known: Mapping[str, str]) -> None:
        self.inner.context = known

    @property
    def contended(self) -> bool:
        """Whether somebody waits for this connection."""
        return self._database.lock.contended

    def _checked(self, program: Program[T]) -> Program[T]:
        if self._over:
            program.close()
            msg = "the call belongs to a run that is over"
            raise UsageError(msg, hint="the run was cancelled or timed out; nothing more is written", code="run-over")
        return self._translated(program)

    async def run(self, program: Program[T]) -> T:
        return await self._database.at_home(self._tracked(self._checked(program)))

    async def _tracked(self, program: Program[T]) -> T:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            return await self.inner.run(program)
        finally:
            self._tasks.discard(task)

    def run_blocking(self, program: Program[T]) -> T:
        return self.inner.run_blocking(self._checked(program))

    async def release(self) -> None:
        if self._loop is not _loop.running():  # the run was closed by hand, outside its loop: nothing can be awaited
            self.abandon()
            return
        await self._release()

    async def _release(self) -> None:
        if self._over:
            return
        self._over = True
        try:
            if self._translated.open or self._tasks:
                await self._database.at_home(self._cleaned())
        finally:
            self._database.lock.release()

    async def _cleaned(self) -> None:
        """Undo what is open, after what a cancelled run has left behind in a statement."""
        left = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)
        await self.inner.run(self._translated.undo())

    def release_blocking(self) -> None:
        if self._over:
            return
        self._over = True
        try:
            if self._translated.open:
                self.inner.run_blocking(self._translated.undo())
        finally:
            self._database.lock.release()

    def abandon(self) -> None:
        if self._database.blocking:
            self.release_blocking()
        else:
            _loop.begin(self._release())


class TrialDatabase:
    """One connection in one transaction, lent to one call or run at a time.

    A dialect whose savepoints lack something that its transactions have derives from this class.

    Args:
        inner: the connections of the database.
        begin: starts the transaction.
        config: settings of the DataFlow.
        aborts_on_error: whether a failed statement spoils its transaction.

    Attributes:
        patience: seconds that `close` waits for a call under way, before it is stopped.
    """

    def __init__(self, inner: Database, begin: Command, config: "Config", *, aborts_on_error: bool) -> None:
        self.inner = inner
        self.blocking = inner.blocking
        self.aborts_on_error = aborts_on_error
        self.lock = FairLock("the connection of this DataFlow in tdd mode")
        self.patience = 5.0
        self._begin = begin
        self._wait = config["lock_timeout"]
        self._session: Session | None = None
        self._marks = 0

    # -- what a dialect may do its own way --------------------------------------------------------------------------
    def prepare(self) -> Program[None]:
        """Do what is to be done first in the transaction; nothing here."""
        yield from ()

    def begun(self, begin: Command, name: str) -> Command:
        """Return the command that sets a savepoint in place of the beginning of a transaction."""
        del begin
        return savepoint(name)[0]

    def kept(self, name: str) -> Command:
        """Return the command that releases a savepoint in place of a commit, after what a commit would check."""
        return savepoint(name)[2]

    def instead(self, command: Command) -> Command:
        """Return what is sent in place of a command that no transaction can hold; here the command itself."""
        return command

    # -- lending ----------------------------------------------------------------------------------------------------
    def confine(self, models: "Callable[[], Iterable[ModelSpec]]") -> None:
        """Refuse: what confines connections to a tenant needs more than one of them."""
        del models
        msg = "tdd mode has one connection here, and tenant_isolation='strict' needs several"
        hint = "test with the default isolation, or on a database of the test's own without tdd mode"
        raise NotYetAvailable(msg, hint=hint, code="unsupported")

    async def at_home(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await on the event loop that the connection belongs to: the background loop, unless drivers block."""
        if self.blocking:
            return await coroutine
        return await _loop.on_background(coroutine)

    async def lease(self, *, write: bool, holder: str, privileged: bool = False) -> TrialSession:
        del write, privileged
        await self.lock.acquire(holder, self._wait)
        try:
            session = self._session
            return TrialSession(self, await self.at_home(self._start()) if session is None else session)
        except BaseException:
            self.lock.release()
            raise

    def lease_blocking(self, *, write: bool, holder: str, privileged: bool = False) -> TrialSession:
        del write, privileged
        self.lock.acquire_blocking(holder, self._wait)
        try:
            return TrialSession(self, self._session or self._start_blocking())
        except BaseException:
            self.lock.release()
            raise

    async def _start(self) -> Session:
        session = await self.inner.lease(write=True, holder=_HOLDER, privileged=True)
        try:
            await session.run(self._started())
        except BaseException:
            await session.release()
            raise
        session.depth = 1
        self._session = session
        return session

    def _start_blocking(self) -> Session:
        session = self.inner.lease_blocking(write=True, holder=_HOLDER, privileged=True)
        try:
            session.run_blocking(self._started())
        except BaseException:
            session.release_blocking()
            raise
        session.depth = 1
        self._session = session
        return session

    def _started(self) -> Program[None]:
        yield self._begin, ()
        yield from self.prepare()

    # -- closing ----------------------------------------------------------------------------------------------------
    async def close(self) -> None:
        try:
            with contextlib.suppress(DatabaseTimeout):
                await self.lock.acquire("close", min(self._wait, self.patience))
            session, self._session = self._session, None
            if session is not None:
                await self.at_home(session.release())  # stops what still runs on it
        finally:
            self.lock.release()
            await self.inner.close()

    def close_blocking(self) -> None:
        try:
            with contextlib.suppress(DatabaseTimeout):
                self.lock.acquire_blocking("close", min(self._wait, self.patience))
            session, self._session = self._session, None
            if session is not None and self.blocking:
                session.release_blocking()
            elif session is not None:
                _loop.run(session.release())
        finally:
            self.lock.release()
            self.inner.close_blocking()

    def discard(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.abandon()
        self.inner.discard()

    def describe(self) -> dict[str, Any]:
        return {**self.inner.describe(), "tdd_mode": True}

    # -- marks ------------------------------------------------------------------------------------------------------
    def mark(self) -> str:
        """Remember how everything is now; return what `undo` takes. Marks are undone in the reverse order."""
        self._marks += 1
        name = f"dataflow_mark_{self._marks}"
        self._directly(savepoint(name)[:1])
        return name

    def undo(self, mark: Any) -> None:
        """Undo everything since a mark."""
        self._directly(savepoint(mark)[1:])

    def _directly(self, commands: Sequence[Command]) -> None:
        if not self.blocking:
            _loop.run(self._sent(commands))
            return
        lease = self.lease_blocking(write=True, holder=_HOLDER)
        try:
            lease.inner.run_blocking(_all(commands))
            lease.context = {}  # what was set since is undone
        finally:
            lease.release_blocking()

    async def _sent(self, commands: Sequence[Command]) -> None:
        lease = await self.lease(write=True, holder=_HOLDER)
        try:
            await lease.inner.run(_all(commands))
            lease.context = {}  # what was set since is undone
        finally:
            await lease.release()


def _all(commands: Sequence[Command]) -> Program[None]:
    for command in commands:
        yield command, ()


__all__ = ["TrialDatabase", "TrialSession"]
