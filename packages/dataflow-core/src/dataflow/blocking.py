"""Connections for drivers that block, as a dialect's `Database`: an author says how to open one and how to send.

Each connection is driven by two kinds of callers, never at once: synchronous callers in their own thread, and
coroutines on the connection's thread, one hop per program. A fair lock decides whose turn it is. Knows no driver.
"""

import asyncio
import contextlib
import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from dataflow.dialect import Command, Program
from dataflow.errors import DataFlowError, NotYetAvailable, UsageError
from dataflow.session import FairLock

if TYPE_CHECKING:
    from dataflow.config import Config
    from dataflow.model import ModelSpec

T = TypeVar("T")
_UNDO = ("ROLLBACK", "RELEASE")
INTERRUPT_EVERY = 0.05
"""Seconds between attempts to interrupt a statement: the first may come before the driver has begun it."""
_LIVE: "weakref.WeakSet[BlockingDatabase]" = weakref.WeakSet()
_ABANDONED: list[Any] = []  # connections of a parent process: using or closing them here could harm it


class _Cancelled(BaseException):
    """The program was cancelled; thrown into it, so that it undoes what it began."""


class _Turn:
    """One program on its way through a connection: whether it is to stop, and whether a statement is under way."""

    __slots__ = ("busy", "stop")

    def __init__(self) -> None:
        self.stop: BaseException | None = None
        self.busy = False


class _Thread:
    """A thread that works off what coroutines hand it; a daemon, so that a script that closes nothing still ends."""

    def __init__(self, name: str) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work

    def submit(self, function: Callable[..., T], *arguments: Any) -> "asyncio.Future[T]":
        """Call a function there; must be called in a coroutine."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            if not future.done():
                future.set_exception(error) if error is not None else future.set_result(result)  # type: ignore[arg-type]

        def work() -> None:
            result, failure = None, None
            try:
                result = function(*arguments)
            except BaseException as error:  # noqa: BLE001  # it belongs to the caller
                failure = error
            with contextlib.suppress(RuntimeError):  # the caller's event loop is closed
                loop.call_soon_threadsafe(settle, result, failure)

        self._work.put(work)
        return future

    def stop(self) -> None:
        """End the thread after what it does."""
        self._work.put(None)


class Link:
    """One connection, opened on first use, with its lock and its thread.

    Attributes:
        raw: the driver's connection, or None while it is not open.
        write: whether it may write.
        lock: whose the connection is.
        shared: what whoever holds the connection holds as well.
        guard: held while a program runs on it.
        turn: the program that runs on it; changed under `turning`.
        users: how many hold it or wait for it.
    """

    def __init__(self, name: str, *, write: bool, shared: FairLock | None = None) -> None:
        self.name = name
        self.write = write
        self.lock = FairLock(f"{'the writer' if write else 'a reader'} of {name}")
        self.shared = shared
        self.users = 0
        self.raw: Any = None
        self.thread: _Thread | None = None
        self.start_over()

    def start_over(self) -> None:
        """Begin with locks that nobody holds."""
        self.guard, self.turning = threading.Lock(), threading.Lock()
        self.turn: _Turn | None = None


class BlockingSession:
    """A leased connection (`dataflow.dialect.Session`).

    A database without savepoints derives from it, and overrides `send` and `undo`: savepoints come as the commands
    ``SAVEPOINT name``, ``ROLLBACK TO SAVEPOINT name`` and ``RELEASE SAVEPOINT name``.

    Attributes:
        depth: open transaction (1) plus savepoints.
        max_parameters: most bound parameters of one statement.
        context: what the connection knows of the call it serves.
        privileged: whether SQL of the user's own sees everything; always, where nothing is confined.
        place: whose database it is in, where each tenant has its own.
    """

    def __init__(self, database: "BlockingDatabase", link: Link) -> None:
        self.database = database
        self.depth = 0
        self.max_parameters = database.max_parameters
        self.context: Mapping[str, str] = {}
        self.privileged = True
        self.place: str | None = None
        self._link = link
        self._over = False
        self._own_sql: set[str] = set()

    @property
    def contended(self) -> bool:
        """Whether somebody waits for this connection."""
        link = self._link
        return link.lock.contended or (link.shared is not None and link.shared.contended)

    def send(self, raw: Any, command: Command, arguments: Sequence[Any]) -> Any:
        """Send one command and return its reply."""
        return self.database.execute(raw, command, arguments)

    def undo(self, raw: Any) -> None:
        """Roll back what is open."""
        self.database.rollback(raw)

    def run_blocking(self, program: Program[T]) -> T:
        """Run a program in the calling thread."""
        return self._drive(program, _Turn())

    async def run(self, program: Program[T]) -> T:
        """Run a program on the connection's thread, in one hop; cancellation interrupts it and waits for its end."""
        link, turn = self._link, _Turn()
        if link.thread is None:
            link.thread = _Thread(f"dataflow {link.name}")
        future = link.thread.submit(self._drive, program, turn)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            turn.stop = _Cancelled()
            while not future.done():
                self._interrupt(turn)
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([future], timeout=INTERRUPT_EVERY)
            future.exception()  # nobody else asks
            raise

    def _interrupt(self, turn: _Turn) -> None:
        with self._link.turning:
            if self._link.turn is turn and turn.busy and self._link.raw is not None:
                self.database.interrupt(self._link.raw)

    def _drive(self, program: Program[T], turn: _Turn) -> T:
        """Run a program to its end on the connection, in whichever thread this is."""
        link = self._link
        with link.guard:
            if link.raw is None:
                program.close()
                msg = "the database was closed while an operation ran"
                raise UsageError(msg, hint="close it after the last operation", code="closed")
            link.turn = turn
            try:
                return self._steps(link.raw, program, turn)
            except BaseException:
                program.close()
                raise
            finally:
                with link.turning:
                    link.turn = None

    def _steps(self, raw: Any, program: Program[T], turn: _Turn) -> T:
        try:
            command, arguments = next(program)
            while True:
                undoing = command.sql.startswith(_UNDO)
                if turn.stop is not None and not undoing:
                    command, arguments = program.throw(turn.stop)
                    continue
                turn.busy = not undoing
                reply, fault = self._attempt(raw, command, arguments)
                turn.busy = False
                if fault is None:
                    command, arguments = program.send(reply)
                elif turn.stop is None or undoing:
                    command, arguments = program.throw(fault)
                # else it was interrupted; what interrupted it is thrown in its place
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]

    def _attempt(self, raw: Any, command: Command, arguments: Sequence[Any]) -> tuple[Any, DataFlowError | None]:
        """Return a reply, or the error in its place: without the driver's own, which may hold values of rows."""
        if self._over:
            msg = "the call belongs to a run that is over"
            hint = "the run was cancelled or timed out; nothing more is written"
            return None, UsageError(msg, hint=hint, code="run-over")
        if command.named:
            self._own_sql.add(command.sql)
        try:
            return self.send(raw, command, arguments), None
        except DataFlowError as fault:
            return None, fault
        except self.database.faults as error:
            known = self.database.explain(error, command, arguments)
            known.__suppress_context__ = True
            return None, known

    def release_blocking(self) -> None:
        """Roll back what is open, and give the connection back."""
        self._over = True
        link = self._link
        try:
            while not link.guard.acquire(timeout=INTERRUPT_EVERY):  # a statement that a cancelled run left behind
                if link.raw is not None:
                    self.database.interrupt(link.raw)
            try:
                if link.raw is not None:
                    self.undo(link.raw)
                    if self._own_sql:
                        link.raw = self.database.refresh(link.raw, self._own_sql)
            finally:
                link.guard.release()
            self.depth = 0
        finally:
            self.database.give_back(link)

    async def release(self) -> None:
        """Roll back what is open, and give the connection back."""
        self.release_blocking()

    abandon = release_blocking


class BlockingDatabase(ABC):
    """The connections of one DataFlow (`dataflow.dialect.Database`): one that writes, and some that read.

    Args:
        name: of the database, for errors.
        config: settings of the DataFlow.
        readers: connections that only read; 0 where the writer must serve for everything.
        shared: a lock that the writer takes as well, where several instances write to one database in turn.

    Attributes:
        faults: the driver's exceptions.
        sessions: class of the leases.
        max_parameters: most bound parameters of one statement.
    """

    blocking = True
    faults: ClassVar[tuple[type[Exception], ...]] = ()
    sessions: ClassVar[type[BlockingSession]] = BlockingSession
    max_parameters: int = 32_766

    def __init__(self, name: str, config: "Config", *, readers: int = 1, shared: FairLock | None = None) -> None:
        self.name = name
        self.config = config
        self.closed = False
        self.writer = Link(name, write=True, shared=shared)
        self.readers = [Link(name, write=False) for _ in range(readers)]
        self._choosing, self._opening = threading.Lock(), threading.Lock()
        _LIVE.add(self)

    # -- what a dialect says --------------------------------------------------------------------------------------
    @abstractmethod
    def open(self, *, write: bool) -> Any:
        """Open a connection that commits each statement by itself while no transaction is open.

        The writer is opened before the first reader. It is used by one thread at a time, but not always the same.
        """

    @abstractmethod
    def execute(self, raw: Any, command: Command, arguments: Sequence[Any]) -> Any:
        """Send a command and return its reply, by what `command.returns` and `command.named` say."""

    @abstractmethod
    def explain(self, error: Exception, command: Command, arguments: Sequence[Any]) -> DataFlowError:
        """Return the error that says what happened, for one of `faults`; it must hold no value of a row."""

    @abstractmethod
    def rollback(self, raw: Any) -> None:
        """Roll back where a transaction is open."""

    def interrupt(self, raw: Any) -> None:  # noqa: B027  # not every driver can
        """Stop the statement under way, from another thread; where the driver cannot, it comes to its end."""

    def refresh(self, raw: Any, own_sql: Iterable[str]) -> Any:
        """Undo what SQL of the user's own may have changed about a connection; return the one to go on with."""
        del own_sql
        return raw

    def shut(self, raw: Any) -> None:
        """Close a connection."""
        raw.close()

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Say where this is and how it is set, for doctor; JSON-able, without secrets."""

    # -- leases ---------------------------------------------------------------------------------------------------
    def confine(self, models: "Callable[[], Iterable[ModelSpec]]") -> None:
        """Refuse: the database does not keep its connections within a tenant."""
        del models
        msg = f"{self.name} cannot keep SQL of the user's own within a tenant"
        raise NotYetAvailable(msg, hint="leave tenant_isolation='strict' out, or use another database")

    def _choose(self, *, write: bool) -> Link:
        """Return the connection to wait for, counted as used."""
        with self._choosing:
            self._check()
            link = self.writer if write or not self.readers else min(self.readers, key=lambda link: link.users)
            link.users += 1
            return link

    def _check(self) -> None:
        if self.closed:
            msg = "this DataFlow is closed"
            raise UsageError(msg, hint="create a new one, or close it later", code="closed")

    def give_back(self, link: Link) -> None:
        """End the use of a connection whose lock is held."""
        if link.shared is not None:
            link.shared.release()
        self._unused(link)
        link.lock.release()

    def _unused(self, link: Link) -> None:
        with self._choosing:
            link.users -= 1

    def _session(self, link: Link) -> BlockingSession:
        """Open a connection whose lock is held."""
        try:
            self._check()  # it may have been closed meanwhile
            with self._opening:
                for each in (self.writer, link):
                    if each.raw is None:
                        each.raw = self._opened(write=each.write)
            return self.sessions(self, link)
        except BaseException:
            self.give_back(link)
            raise

    def _opened(self, *, write: bool) -> Any:
        try:
            return self.open(write=write)
        except self.faults as error:
            raise self.explain(error, Command(""), ()) from None

    async def lease(self, *, write: bool, holder: str, privileged: bool = False) -> BlockingSession:
        """Wait for a connection."""
        del privileged
        link = self._choose(write=write)
        wait = self.config["lock_timeout"]
        async with contextlib.AsyncExitStack() as undo:
            undo.callback(self._unused, link)
            await link.lock.acquire(holder, wait)
            undo.callback(link.lock.release)
            if link.shared is not None:
                await link.shared.acquire(holder, wait)
            undo.pop_all()
        return self._session(link)

    def lease_blocking(self, *, write: bool, holder: str, privileged: bool = False) -> BlockingSession:
        """Wait for a connection in the calling thread."""
        del privileged
        link = self._choose(write=write)
        wait = self.config["lock_timeout"]
        with contextlib.ExitStack() as undo:
            undo.callback(self._unused, link)
            link.lock.acquire_blocking(holder, wait)
            undo.callback(link.lock.release)
            if link.shared is not None:
                link.shared.acquire_blocking(holder, wait)
            undo.pop_all()
        return self._session(link)

    # -- the end --------------------------------------------------------------------------------------------------
    async def close(self) -> None:
        """Close every connection, after the operation under way."""
        self.closed = True
        for link in (*self.readers, self.writer):
            await link.lock.acquire("close", self.config["lock_timeout"])
            try:
                self._shut(link)
            finally:
                link.lock.release()

    def close_blocking(self) -> None:
        """Close every connection, after the operation under way."""
        self.closed = True
        for link in (*self.readers, self.writer):
            link.lock.acquire_blocking("close", self.config["lock_timeout"])
            try:
                self._shut(link)
            finally:
                link.lock.release()

    def discard(self) -> None:
        """Close every connection without waiting: nobody uses them any more."""
        self.closed = True
        for link in (*self.readers, self.writer):
            self._shut(link)

    def _shut(self, link: Link) -> None:
        raw, link.raw = link.raw, None
        thread, link.thread = link.thread, None
        if thread is not None:
            thread.stop()
        if raw is not None:
            self.shut(raw)

    def in_child(self) -> None:
        """Start afresh after a fork: connections belong to the parent."""
        for link in (*self.readers, self.writer):
            _ABANDONED.append((link.raw, link.thread))
            link.raw = link.thread = None
            link.users = 0
            link.start_over()
            for lock in (link.lock, link.shared):
                if lock is not None:
                    lock.reset()
        self._choosing, self._opening = threading.Lock(), threading.Lock()


def _in_child() -> None:
    for database in list(_LIVE):
        database.in_child()


os.register_at_fork(after_in_child=_in_child)

__all__ = ["BlockingDatabase", "BlockingSession", "Link"]
