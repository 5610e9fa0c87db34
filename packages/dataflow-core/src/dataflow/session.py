"""What surrounds a call: its context, the run it belongs to, transactions, and a lock for threads and tasks alike.

Knows sessions only by the protocol of `dataflow.dialect`; knows no SQL but what the dialect hands it.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from dataflow import _log, _loop
from dataflow.dialect import COUNT, Command, Program, Session, Step
from dataflow.errors import DatabaseTimeout, UsageError

if TYPE_CHECKING:
    from dataflow.core import Core

T = TypeVar("T")
AMBIENT: ContextVar[Mapping[Any, Any]] = ContextVar("dataflow_ambient")
"""Values that surround calls (tenant, actor …), set by features; captured when a call is made."""
ITSELF: Mapping[Any, Any] = {"dataflow.schema": True}
"""Surrounds what the framework does by itself, with all privileges: to the schema, or to record who passes a guard."""
BUILDING = "dataflow.build"
"""The ambient value that surrounds what guards are asked by `build()`, when nothing runs yet."""
_NOTHING: Mapping[Any, Any] = {}


def surroundings() -> Mapping[Any, Any]:
    """Return the ambient values of the calling task or thread; a connection's own thread does not see them."""
    return AMBIENT.get(_NOTHING)


class Run:
    """One workflow run, or one explicit transaction: the connections it holds open.

    Attributes:
        id: run id.
        transactions: database core -> session with an open transaction, for nested calls to join.
        after_commit: database core -> what to do once its open work is committed.
        undone: cores on which a transaction of the run was rolled back.
        outer: the run whose node started this one, or None.
    """

    __slots__ = ("after_commit", "id", "outer", "transactions", "undone")

    def __init__(self, run_id: str) -> None:
        self.id = run_id
        self.transactions: dict[Any, Session] = {}
        self.after_commit: dict[Any, list[Callable[[], Any]]] = {}
        self.undone: set[Any] = set()
        self.outer = CURRENT_RUN.get()

    def remember(self, core: Any, notes: list[Callable[[], Any]]) -> None:
        """Keep what to do once the open work on a database is committed."""
        self.after_commit.setdefault(core, []).extend(notes)

    def committed(self, core: Any) -> None:
        """Do what was kept for a database."""
        notify(self.after_commit.pop(core, ()))

    def rolled_back(self, core: Any) -> None:
        """Forget what was kept for a database."""
        self.after_commit.pop(core, None)
        self.undone.add(core)

    def joined(self, core: Any) -> Session | None:
        """Return the session with the open transaction on a database, for a nested call to join; None without one.

        Raises:
            UsageError: that transaction was rolled back, and the call comes from a thread or task it left behind.
        """
        if core in self.undone:
            msg = "the call belongs to a run whose transaction was rolled back"
            hint = "the run failed, was cancelled or timed out; nothing more is written"
            raise UsageError(msg, hint=hint, code="run-over")
        session = self.transactions.get(core)
        return self.outer.joined(core) if session is None and self.outer is not None else session


def notify(notes: Iterable[Callable[[], Any]]) -> None:
    """Do what was to be done after a commit. A note that fails is logged: the change stands, so the call succeeded."""
    for note in notes:
        try:
            note()
        except Exception as error:  # noqa: BLE001  # a stranger's code
            _log.event("note.failed", error=type(error).__name__, note=repr(getattr(note, "func", note)))


CURRENT_RUN: ContextVar[Run | None] = ContextVar("dataflow_run", default=None)
CURRENT_NODE: ContextVar[str] = ContextVar("dataflow_node", default="")
"""The id of the custom node whose code makes calls, or "": they are its own."""


class Call:
    """The context of one operation, handed to binders, guards and records of features.

    Attributes:
        core: the database the operation runs on.
        session: the leased connection, set when the program starts.
        options: options of the call (`include_deleted`, `tenant_id` …).
        ambient: what surrounded the call (tenant, actor …).
        run: the run it belongs to, or None.
        node_id: the node that it is, or that makes it; "" outside of nodes.
        after_commit: callables to run once the change is committed.
    """

    __slots__ = ("_id", "_now", "after_commit", "ambient", "core", "node_id", "options", "run", "session")

    def __init__(
        self, core: "Core", node_id: str = "", *, ambient: Mapping[Any, Any] | None = None, run: Run | None = None
    ) -> None:
        self.core = core
        self.options: Mapping[str, Any] = _NOTHING
        self.ambient = surroundings() if ambient is None else ambient
        self.run = run or CURRENT_RUN.get()
        self.node_id = node_id or CURRENT_NODE.get()
        self.session: Session = None  # type: ignore[assignment]  # set before the first step
        self.after_commit: list[Callable[[], Any]] = []
        self._id = ""
        self._now: datetime | None = None

    @property
    def id(self) -> str:
        """An id of this call, the same for all its rows."""
        self._id = self._id or uuid4().hex
        return self._id

    def around(self, name: str) -> Any:
        """Return what surrounds the call under a name (tenant, actor …) on its DataFlow, or None."""
        return self.core.around(self.ambient, name)

    @property
    def now(self) -> datetime:
        """The instant of this call, the same for all its rows and columns."""
        if self._now is None:
            self._now = datetime.now(UTC)
        return self._now


@lru_cache(maxsize=256)
def savepoint(name: str) -> tuple[Command, Command, Command]:
    """Return the commands that set a savepoint, roll back to it, and release it."""
    texts = (f"SAVEPOINT {name}", f"ROLLBACK TO SAVEPOINT {name}", f"RELEASE SAVEPOINT {name}")
    begin, rollback, release = (Command(text, COUNT) for text in texts)
    return begin, rollback, release


COMMIT = Command("COMMIT", COUNT)
ROLLBACK = Command("ROLLBACK", COUNT)


def atomic(call: Call, body: Program[T], *, isolation: str | None = None) -> Program[T]:
    """Run `body` in a transaction, or in a savepoint when one is open: all of it happens, or nothing."""
    session = call.session
    depth = session.depth
    noted = len(call.after_commit)
    undo: tuple[Command, ...]
    if depth:
        begin, rollback, commit = savepoint(f"df_{depth}")
        undo = (rollback, commit)
    else:
        begin, commit = call.core.dialect.begin(isolation, write=True), COMMIT
        undo = (ROLLBACK,)
    yield begin, ()
    session.depth = depth + 1
    try:
        result = yield from body
        yield commit, ()
    except GeneratorExit:  # abandoned: the session rolls back when it is released
        del call.after_commit[noted:]
        raise
    except BaseException:
        del call.after_commit[noted:]
        for command in undo:
            yield command, ()
        session.depth = depth
        raise
    session.depth = depth
    return result


def through(program: Program[T], send: Callable[[Step], Program[Any]]) -> Program[T]:
    """Run a program each of whose steps is sent by another: `send` makes it, and its result or error is the reply."""
    try:
        step: Step = next(program)
        while True:
            try:
                reply = yield from send(step)
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


def framed(program: Program[T], *, end: Command, undo: Iterable[Command]) -> Program[T]:
    """Run the inside of a transaction or savepoint that was begun: it is ended, or undone when the program fails."""
    try:
        result = yield from program
        yield end, ()
    except GeneratorExit:  # abandoned: the session rolls back when it is released
        raise
    except BaseException:
        for command in undo:
            yield command, ()
        raise
    return result


def undone(program: Program[T], name: str) -> Program[T]:
    """Run part of an open transaction in a savepoint, so that only this part is undone when it fails."""
    begin, rollback, release = savepoint(name)
    yield begin, ()
    return (yield from framed(program, end=release, undo=(rollback, release)))


def standing_still() -> frozenset[asyncio.AbstractEventLoop]:
    """Return the event loops that cannot run anything until the current call returns: work sent there would wait."""
    return _loop.stopped(blocking=False)


class FairLock:
    """A lock that threads and tasks of any event loop can wait for, first come, first served.

    Args:
        what: named in the error of a wait that took too long.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.holder = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._held = False
        self._mutex = threading.Lock()
        self._waiters: deque[tuple[Callable[[], None], asyncio.AbstractEventLoop | None]] = deque()

    @property
    def contended(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiters)

    def _take(self, holder: str, loop: asyncio.AbstractEventLoop | None) -> bool:
        """Take the lock if it is free."""
        with self._mutex:
            if self._held:
                return False
            self._held, self.holder, self._loop = True, holder, loop
            return True

    def _enter(self, holder: str, loop: asyncio.AbstractEventLoop | None, wake: Callable[[], None]) -> bool:
        """Take the lock if it is free, else queue `wake`.

        Raises:
            UsageError: the holder, or somebody ahead in the queue, runs on an event loop that waits for this call.
        """
        with self._mutex:
            if not self._held:
                self._held, self.holder, self._loop = True, holder, loop
                return True
            stopped = _loop.stopped(blocking=loop is None)
            if stopped and (self._loop in stopped or any(waiting in stopped for _, waiting in self._waiters)):
                who = self.holder or "a task"
                msg = f"{self.what} is held by {who} on this event loop, which a blocking call stops"
                hint = "await the async form: db.express, AsyncLocalRuntime().execute_async(…)"
                raise UsageError(msg, hint=hint, code="would-deadlock")
            self._waiters.append((wake, loop))
            return False

    def _withdraw(self, wake: Callable[[], None]) -> bool:
        """Leave the queue; False if the lock was handed over meanwhile."""
        with self._mutex:
            for entry in self._waiters:
                if entry[0] == wake:
                    self._waiters.remove(entry)
                    return True
            return False

    def _timeout(self, seconds: float) -> DatabaseTimeout:
        msg = f"{self.what} was not free within {seconds:g} s; it is held by {self.holder or 'another call'}"
        return DatabaseTimeout(msg, hint="keep transactions short, or raise the setting lock_timeout (seconds)")

    def acquire_blocking(self, holder: str, timeout: float) -> None:
        """Wait in the calling thread.

        Args:
            holder: who waits, for errors of others.
            timeout: seconds.

        Raises:
            DatabaseTimeout: not granted in time.
            UsageError: waiting would stop an event loop on which the holder runs, or somebody ahead in the queue.
        """
        if self._take(holder, None):
            return
        event = threading.Event()
        wake = event.set
        if not self._enter(holder, None, wake):
            try:
                granted = event.wait(timeout)
            except BaseException:
                if not self._withdraw(wake):
                    self.release()
                raise
            if not granted and self._withdraw(wake):
                raise self._timeout(timeout)
        self.holder = holder

    async def acquire(self, holder: str, timeout: float) -> None:  # noqa: ASYNC109  # the lock words its own error
        """Wait in a task; cancellation leaves the queue. See `acquire_blocking`."""
        loop = asyncio.get_running_loop()
        if self._take(holder, loop):
            return
        future: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(lambda: None if future.done() else future.set_result(None))
            except RuntimeError:  # that loop is closed: pass the lock on
                self.release()

        if not self._enter(holder, loop, wake):
            try:
                async with asyncio.timeout(timeout):
                    await future
            except BaseException as error:
                if not self._withdraw(wake):
                    self.release()
                if isinstance(error, TimeoutError):
                    raise self._timeout(timeout) from None
                raise
        self.holder = holder

    def release(self) -> None:
        """Hand the lock to the first in the queue."""
        with self._mutex:
            wake, self._loop = self._waiters.popleft() if self._waiters else (None, None)
            if wake is None:
                self._held, self.holder = False, ""
        if wake is not None:
            wake()

    def reset(self) -> None:
        """Forget holder and queue; for a forked child, where they do not exist."""
        self._mutex = threading.Lock()
        self._held, self.holder, self._loop = False, "", None
        self._waiters.clear()
