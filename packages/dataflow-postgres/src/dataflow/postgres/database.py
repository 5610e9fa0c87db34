"""The connections of one DataFlow to a PostgreSQL database: one pool per event loop, shared by equal settings.

A pool belongs to the loop that opened it, and closes with it; synchronous callers use the background loop's.
"""

import asyncio
import atexit
import ctypes
import os
import threading
import weakref
from concurrent.futures import Future, wait
from time import monotonic
from typing import Any

import asyncpg

from dataflow.config import Config, DatabaseURL
from dataflow.errors import UsageError
from dataflow.postgres.connection import target
from dataflow.postgres.pool import Pool
from dataflow.postgres.session import PostgresSession

_LOOKING = 0.1
"""Seconds after which one looks again whether another event loop runs."""
_POOLS: "dict[tuple[int, Any], Pool]" = {}
"""(event loop, target and sizes) -> pool."""
_EVER: "weakref.WeakSet[Pool]" = weakref.WeakSet()
"""Every pool there is, also those that are being closed."""
_mutex = threading.RLock()  # the garbage collector may close a DataFlow while this thread holds it


class PostgresDatabase:
    """The connections of one DataFlow."""

    blocking = False

    def __init__(self, url: DatabaseURL, config: Config) -> None:
        self.url = url
        self.config = config
        self.to = target(url, config)
        sizes = ("pool_size", "pool_max_overflow", "pool_recycle", "pool_pre_ping", "lock_timeout")
        self._key = (self.to.key, tuple(config[name] for name in sizes))
        self.closed = False
        self.pooled: bool | None = self.to.pooled

    def _pool(self) -> Pool:
        loop = asyncio.get_running_loop()
        key = (id(loop), self._key)
        with _mutex:  # or another thread closes this DataFlow, or the pool, in between
            if self.closed:
                msg = "this DataFlow is closed"
                raise UsageError(msg, hint="create a new one, or close it later", code="closed")
            while True:
                pool = _POOLS.get(key)
                if pool is None or pool.closed or pool.loop is not loop:
                    _sweep()
                    pool = _POOLS[key] = Pool(self.to, self.config)
                    _EVER.add(pool)
                pool.users.add(id(self))
                if _POOLS.get(key) is pool:  # else the garbage collector has just closed its last user
                    return pool

    async def lease(self, *, write: bool, holder: str) -> PostgresSession:
        """Wait for a connection of the running loop's pool."""
        del write  # every connection can do both
        pool = self._pool()
        link = await pool.take(holder)
        self.pooled = pool.pooled
        return PostgresSession(pool, link)

    def lease_blocking(self, *, write: bool, holder: str) -> PostgresSession:
        """Not for this database: synchronous callers go through the background loop."""
        del write, holder
        raise UsageError("PostgreSQL is not driven in the calling thread", hint="use db.express_sync or LocalRuntime")

    def _leave(self) -> list[Pool]:
        """Close this DataFlow to new calls; return the pools that nobody else uses."""
        with _mutex:
            self.closed = True
            mine = [pool for pool in list(_POOLS.values()) if id(self) in pool.users]
            for pool in mine:
                pool.users.discard(id(self))
            alone = [pool for pool in mine if not pool.users]
            for key in [key for key, pool in list(_POOLS.items()) if pool in alone]:
                _POOLS.pop(key, None)
        return alone

    async def close(self) -> None:
        """Close all connections, after the operations under way."""
        here = asyncio.get_running_loop()
        for pool, closing in self._close_elsewhere(here):
            if closing is None:
                await pool.close()
                continue
            over = asyncio.wrap_future(closing)
            while not over.done() and pool.loop.is_running():  # its end closes the pool as well
                await asyncio.wait([over], timeout=_LOOKING)

    def close_blocking(self) -> None:
        """Close all connections, from any thread; on an event loop itself, without waiting for operations under way."""
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        deadline = monotonic() + self.config["lock_timeout"] + 10
        for pool, closing in self._close_elsewhere(here):
            if closing is None:
                pool.closing()
                continue
            while not closing.done() and pool.loop.is_running() and monotonic() < deadline:
                wait([closing], timeout=_LOOKING)

    def _close_elsewhere(self, here: asyncio.AbstractEventLoop | None) -> "list[tuple[Pool, Future[None] | None]]":
        """Begin to close the pools of other loops; return them, and that of this loop with None."""
        found: list[tuple[Pool, Future[None] | None]] = []
        for pool in self._leave():
            if pool.loop is here:
                found.append((pool, None))
            elif pool.loop.is_running():
                found.append((pool, pool.closing()))
            elif here is None and pool.thread == threading.get_ident() and not pool.loop.is_closed():
                pool.loop.run_until_complete(pool.close())  # between two runs of a loop of this thread
            else:
                pool.abandon()
        return found

    def discard(self) -> None:
        """Close all connections without waiting: the garbage collector calls from any thread, at any place."""
        for pool in self._leave():
            if pool.loop.is_running():
                pool.closing()
            else:
                pool.abandon()

    def describe(self) -> dict[str, Any]:
        """Say where the database is and how it is reached."""
        pools = [pool for pool in list(_POOLS.values()) if id(self) in pool.users]
        return {
            "dialect": "postgresql",
            "url": str(self.url),
            "asyncpg": asyncpg.__version__,
            "pooler": {None: "not known yet", True: "transaction", False: "none"}[self.pooled],
            "schema": self.config["postgres_schema"],
            "pools": len(pools),
            "connections_in_use": sum(len(pool.lent) for pool in pools),
            "most_connections_per_event_loop": self.config["pool_size"] + self.config["pool_max_overflow"],
        }


def _sweep() -> None:
    """Forget pools whose loop was closed."""
    for key, pool in list(_POOLS.items()):
        if pool.loop.is_closed():
            _POOLS.pop(key, None)
            pool.abandon()


@atexit.register
def _at_exit() -> None:
    """Say goodbye to the server where a loop still runs (the background loop of synchronous calls)."""
    pools, farewells = list(_POOLS.values()), []
    _POOLS.clear()
    for pool in pools:
        if pool.loop.is_running():
            farewells.append(pool.closing(patience=0.0))
        else:
            pool.abandon()
    wait(farewells, timeout=1.0)


def _in_child() -> None:
    """Never touch what the parent has opened: closing it here would end the parent's sessions.

    Not even at the end of the interpreter, when the driver says goodbye for connections that nobody closed.
    """
    global _mutex  # noqa: PLW0603  # it may have been held when the process was forked
    _mutex = threading.RLock()
    parents = [*_POOLS.values(), *_EVER]
    _POOLS.clear()
    _EVER.clear()
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(parents))


os.register_at_fork(after_in_child=_in_child)
