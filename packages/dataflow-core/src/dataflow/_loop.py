"""The background event loop behind synchronous calls: one daemon thread per process, started on first use."""

import asyncio
import os
import threading
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
    """Await a coroutine on the background loop, from any loop; cancelling this cancels it there."""
    owner = _thread()
    if threading.current_thread() is owner.thread:
        return await coroutine
    future = asyncio.run_coroutine_threadsafe(coroutine, owner.loop)
    return await asyncio.wrap_future(future)


def _in_child() -> None:
    global _current, _lock
    _current, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_in_child)
