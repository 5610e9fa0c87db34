"""The connections of a DataFlow in tdd mode: one, in a transaction that is rolled back when the DataFlow closes.

What the framework calls a transaction is a savepoint there, so that everything works as usual, and nothing stays. A
dialect that can copy its database does that instead (`Dialect.trial`). Knows no dialect.
"""

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from dataflow import _loop
from dataflow.dialect import Command, Database, Program, Session, Step
from dataflow.errors import NotYetAvailable, UsageError
from dataflow.session import ROLLBACK, FairLock, savepoint

if TYPE_CHECKING:
    from dataflow.config import Config
    from dataflow.model import ModelSpec

T = TypeVar("T")
_TAKE, _UNDO, _KEEP = savepoint("dataflow_trial")
_ALONE, _ALONE_UNDO, _ALONE_KEEP = savepoint("dataflow_step")


class _Translated:
    """A program whose transactions are savepoints; a statement outside of them gets one of its own."""

    def __init__(self, *, aborts_on_error: bool) -> None:
        self.open = False
        self._aborts = aborts_on_error

    def __call__(self, program: Program[T]) -> Program[T]:
        try:
            step: Step = next(program)
            while True:
                try:
                    reply = yield from self._sent(step)
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001  # hand it to the program, which decides
                    step = program.throw(error)
                else:
                    step = program.send(reply)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        finally:
            program.close()

    def _sent(self, step: Step) -> Program[Any]:
        sql = step[0].sql
        if sql.startswith("BEGIN"):
            yield from self._begin(sql)
            return 0
        if sql == "COMMIT":
            self.open = False
            return (yield _KEEP, ())
        if sql == "ROLLBACK":
            yield from self.undo()
            return 0
        if self.open or not self._aborts:
            return (yield step)
        return (yield from self._alone(step))

    def _begin(self, sql: str) -> Program[None]:
        begin = _TAKE
        if "READ ONLY" in sql:  # lasts as long as the savepoint
            begin = Command(f"{_TAKE.sql}; SET TRANSACTION READ ONLY", _TAKE.returns)
        yield begin, ()
        self.open = True

    def _alone(self, step: Step) -> Program[Any]:
        """Send a statement that commits by itself, and keep its failure from spoiling the transaction."""
        yield _ALONE, ()
        try:
            reply = yield step
        except GeneratorExit:
            raise
        except BaseException:
            yield _ALONE_UNDO, ()
            yield _ALONE_KEEP, ()
            raise
        yield _ALONE_KEEP, ()
        return reply

    def undo(self) -> Program[None]:
        """Undo what the open transaction has done."""
        self.open = False
        yield _UNDO, ()
        yield _KEEP, ()


class TrialSession:
    """A lease of the one connection (`dataflow.dialect.Session`)."""

    def __init__(self, database: "TrialDatabase", inner: Session) -> None:
        self._database = database
        self.inner = inner
        self._translated = _Translated(aborts_on_error=database.aborts_on_error)
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
        return await self._database.at_home(self.inner.run(self._checked(program)))

    def run_blocking(self, program: Program[T]) -> T:
        return self.inner.run_blocking(self._checked(program))

    async def release(self) -> None:
        self._over = True
        try:
            if self._translated.open:
                await self._database.at_home(self.inner.run(self._translated.undo()))
        finally:
            self._database.lock.release()

    def release_blocking(self) -> None:
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
            _loop.run(self.release())


class TrialDatabase:
    """One connection in one transaction, lent to one call or run at a time.

    Args:
        inner: the connections of the database.
        begin: starts the transaction.
        config: settings of the DataFlow.
        aborts_on_error: whether a failed statement spoils its transaction.
    """

    def __init__(self, inner: Database, begin: Command, config: "Config", *, aborts_on_error: bool) -> None:
        self.inner = inner
        self.blocking = inner.blocking
        self.aborts_on_error = aborts_on_error
        self.lock = FairLock("the connection of this DataFlow in tdd mode")
        self._begin = begin
        self._wait = config["lock_timeout"]
        self._session: Session | None = None
        self._marks = 0

    def confine(self, models: "Callable[[], Iterable[ModelSpec]]") -> None:
        """Refuse: what confines connections to a tenant needs more than one of them."""
        del models
        msg = "tdd mode has one connection here, and tenant_isolation='strict' needs several"
        hint = "test with the default isolation, or on a database of the test's own without tdd mode"
        raise NotYetAvailable(msg, hint=hint)

    async def at_home(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await on the event loop that the connection belongs to: the background loop, unless drivers block."""
        if self.blocking:
            return await coroutine
        return await _loop.on_background(coroutine)

    async def lease(self, *, write: bool, holder: str, privileged: bool = False) -> TrialSession:
        del write, privileged
        await self.lock.acquire(holder, self._wait)
        try:
            if self._session is None:
                await self.at_home(self._start())
            assert self._session is not None
            return TrialSession(self, self._session)
        except BaseException:
            self.lock.release()
            raise

    async def _start(self) -> None:
        session = await self.inner.lease(write=True, holder="tdd mode", privileged=True)
        try:
            await session.run(_one(self._begin))
        except BaseException:
            await session.release()
            raise
        session.depth = 1
        self._session = session

    def lease_blocking(self, *, write: bool, holder: str, privileged: bool = False) -> TrialSession:
        del write, privileged
        self.lock.acquire_blocking(holder, self._wait)
        try:
            if self._session is None:
                session = self.inner.lease_blocking(write=True, holder="tdd mode", privileged=True)
                try:
                    session.run_blocking(_one(self._begin))
                except BaseException:
                    session.release_blocking()
                    raise
                session.depth = 1
                self._session = session
            return TrialSession(self, self._session)
        except BaseException:
            self.lock.release()
            raise

    async def close(self) -> None:
        await self.lock.acquire("close", self._wait)
        try:
            session, self._session = self._session, None
            if session is not None:
                await self.at_home(_ended(session))
        finally:
            self.lock.release()
            await self.inner.close()

    def close_blocking(self) -> None:
        self.lock.acquire_blocking("close", self._wait)
        try:
            session, self._session = self._session, None
            if session is not None and self.blocking:
                session.run_blocking(_one(ROLLBACK))
                session.depth = 0
                session.release_blocking()
            elif session is not None:
                _loop.run(_ended(session))
        finally:
            self.lock.release()
            self.inner.close_blocking()

    # -- marks ----------------------------------------------------------------------------------------------------
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
        lease = self.lease_blocking(write=True, holder="tdd mode")
        try:
            for command in commands:
                lease.inner.run_blocking(_one(command))
        finally:
            lease.release_blocking()

    async def _sent(self, commands: Sequence[Command]) -> None:
        lease = await self.lease(write=True, holder="tdd mode")
        try:
            for command in commands:
                await lease.inner.run(_one(command))
        finally:
            await lease.release()

    def discard(self) -> None:
        self._session = None
        self.inner.discard()  # the database rolls back what was open

    def describe(self) -> dict[str, Any]:
        return {**self.inner.describe(), "tdd_mode": True}


async def _ended(session: Session) -> None:
    await session.run(_one(ROLLBACK))
    session.depth = 0
    await session.release()


def _one(command: Command, arguments: Sequence[Any] = ()) -> Program[Any]:
    return (yield command, arguments)


__all__ = ["TrialDatabase", "TrialSession"]
