"""The background event loop behind synchronous calls: one daemon thread per process, started on first use."""

import asyncio
import contextlib
import os
import threading
import weakref
from collections.abc import Coroutine
from contextvars import ContextVar
from importlib import import_module
from typing import Any, TypeVar, cast

from dataflow.errors import ConfigurationError, MissingCapability, UsageError

T = TypeVar("T")


def _new_loop() -> asyncio.AbstractEventLoop:
    """Make the kind of loop that the environment variable DATAFLOW_EVENT_LOOP names: asyncio (default) or uvloop.

    Raises:
        ConfigurationError: it names another.
        MissingCapability: uvloop is not installed.
    """
    name = os.environ.get("DATAFLOW_EVENT_LOOP") or "asyncio"
    if name == "asyncio":
        return asyncio.new_event_loop()
    if name != "uvloop":
        msg = f"DATAFLOW_EVENT_LOOP is 'asyncio' or 'uvloop', not {name!r}"
        raise ConfigurationError(msg, hint="correct it, or unset it", code="bad-setting")
    try:
        uvloop = import_module("uvloop")  # the extra `uvloop`
    except ImportError as error:
        msg = "DATAFLOW_EVENT_LOOP=uvloop, and uvloop is not installed"
        raise MissingCapability(msg, hint="pip install uvloop, or unset the variable") from error
    return cast(asyncio.AbstractEventLoop, uvloop.new_event_loop())


class _LoopThread:
    def __init__(self) -> None:
        self.loop = _new_loop()
        self.thread = threading.Thread(target=self._serve, name="dataflow-loop", daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()


_STOPPED: ContextVar[frozenset[asyncio.AbstractEventLoop]] = ContextVar("dataflow_stopped", default=frozenset())
_lock = threading.Lock()
_current: _LoopThread | None = None


def _thread() -> _LoopThread:
    global _current  # noqa: PLW0603  # one per process is the point
    with _lock:
        if _current is None or not _current.thread.is_alive():
            _current = _LoopThread()
        return _current


def stopped(*, blocking: bool) -> frozenset[asyncio.AbstractEventLoop]:
    """Return the event loops that stand still until the current call returns.

    Args:
        blocking: whether it blocks its own thread, and with it the event loop that may run there.
    """
    if not blocking:
        return _STOPPED.get()
    try:
        return _STOPPED.get() | {asyncio.get_running_loop()}
    except RuntimeError:
        return _STOPPED.get()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the background loop and wait; Ctrl-C cancels it and waits for its cleanup.

    Raises:
        UsageError: called from the background loop itself, which would wait for itself.
    """
    try:
        owner = _thread()
    except BaseException:
        coroutine.close()
        raise
    if threading.current_thread() is owner.thread:
        coroutine.close()
        msg = "a synchronous call was made on DataFlow's own event loop, which would wait for itself"
        raise UsageError(msg, hint="await the async form: db.express, execute_async, self.query", code="would-deadlock")
    over = threading.Event()
    waiting = stopped(blocking=True)

    async def guarded() -> tuple[T | None, BaseException | None]:
        _STOPPED.set(waiting)
        try:
            return await coroutine, None
        except (SystemExit, KeyboardInterrupt) as stop:  # out of a task, these would end the loop itself
            return None, stop
        finally:
            over.set()

    future = asyncio.run_coroutine_threadsafe(guarded(), owner.loop)
    try:
        value, stop = future.result()
    except BaseException:
        if not future.done():  # Ctrl-C, or what another signal handler raised
            future.cancel()
            over.wait(5)
        raise
    if stop is not None:
        raise stop
    return cast(T, value)


async def on_background(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine on the background loop, from any loop.

    Cancelling this cancels it there, and waits until it has ended: what it undoes is undone then.
    """
    owner = _thread()
    here = asyncio.get_running_loop()
    if here is owner.loop:
        return await coroutine
    tasks: list[asyncio.Task[tuple[T | None, BaseException | None]]] = []
    over: asyncio.Future[None] = here.create_future()
    waiting = weakref.ref(over)  # what waits on a loop that was closed goes, and need not be kept until this ends

    async def guarded() -> tuple[T | None, BaseException | None]:
        try:
            return await coroutine, None
        except (SystemExit, KeyboardInterrupt) as stop:  # out of a task, these would end the loop itself
            return None, stop

    def tell() -> None:
        future = waiting()
        if future is not None and not future.done():
            future.set_result(None)

    def ended(_: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop that waited was closed meanwhile
            here.call_soon_threadsafe(tell)

    def start() -> None:
        tasks.append(owner.loop.create_task(guarded()))
        tasks[0].add_done_callback(ended)

    def cancel() -> None:
        tasks[0].cancel()

    owner.loop.call_soon_threadsafe(start)
    cancelled: asyncio.CancelledError | None = None
    while not over.done():
        try:
            await asyncio.shield(over)
        except asyncio.CancelledError as error:
            cancelled = error
            owner.loop.call_soon_threadsafe(cancel)
    if cancelled is not None:
        if not tasks[0].cancelled():
            tasks[0].exception()  # nobody else asks
        raise cancelled
    value, stop = tasks[0].result()
    if stop is not None:
        raise stop
    return cast(T, value)


def running() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, or None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def begin(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Let a coroutine run on the background loop, and do not wait for it."""
    asyncio.run_coroutine_threadsafe(coroutine, _thread().loop)


def _in_child() -> None:
    global _current, _lock
    _current, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_in_child)
