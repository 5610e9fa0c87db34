"""The connections of one DataFlow to a PostgreSQL database: one pool per event loop, shared by equal settings.

A pool belongs to the loop that opened it, and closes with it; synchronous callers use the background loop's.
"""

import asyncio
import atexit
import ctypes
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from time import monotonic
from typing import Any

import asyncpg
import attrs

from dataflow.config import Config, DatabaseURL
from dataflow.dialect import Command, Program
from dataflow.errors import ConfigurationError, UsageError
from dataflow.model import ModelSpec
from dataflow.postgres.confinement import Confinement, Restricted
from dataflow.postgres.connection import Target, target
from dataflow.postgres.pool import Pool
from dataflow.postgres.session import PostgresSession
from dataflow.session import surroundings

_LOOKING = 0.1
"""Seconds after which one looks again whether another event loop runs."""
_POOLS: "dict[tuple[int, Any], Pool]" = {}
"""(event loop, target and sizes) -> pool."""
_EVER: "weakref.WeakSet[Pool]" = weakref.WeakSet()
"""Every pool there is, also those that are being closed."""
_mutex = threading.RLock()  # the garbage collector may close a DataFlow while this thread holds it


class PostgresDatabase:
    """The connections of one DataFlow.

    Args:
        url: of the database; where connections are confined, that of the owner of the tables.
        config: settings.
        confinement: shared with the dialect.
        restricted: the program that finds the role of confined connections, or makes it.
    """

    blocking = False

    def __init__(
        self,
        url: DatabaseURL,
        config: Config,
        confinement: Confinement,
        restricted: Callable[[], Program[Restricted]],
    ) -> None:
        self.url = url
        self.config = config
        self.to = target(url, config)
        sizes = ("pool_size", "pool_max_overflow", "pool_recycle", "pool_pre_ping", "lock_timeout")
        self._sizes = tuple(config[name] for name in sizes)
        self.closed = False
        self.pooled: bool | None = self.to.pooled
        self._confinement = confinement
        self._find_restricted = restricted
        self._restricted: tuple[Restricted, Target] | None = None

    def _pool(self, to: Target, *, confined: bool = False) -> Pool:
        loop = asyncio.get_running_loop()
        key = (id(loop), (to.key, self._sizes, confined))
        with _mutex:  # or another thread closes this DataFlow, or the pool, in between
            if self.closed:
                msg = "this DataFlow is closed"
                raise UsageError(msg, hint="create a new one, or close it later", code="closed")
            while True:
                pool = _POOLS.get(key)
                if pool is None or pool.closed or pool.loop is not loop:
                    _sweep()
                    pool = _POOLS[key] = Pool(to, self.config)
                    _EVER.add(pool)
                pool.users.add(id(self))
                if _POOLS.get(key) is pool:  # else the garbage collector has just closed its last user
                    return pool

    def confine(self, models: Callable[[], Iterable[ModelSpec]]) -> None:
        """Lend connections of a role that row-level security confines to a tenant, unless the lease is privileged."""
        self._confinement.models = models

    async def lease(self, *, write: bool, holder: str, privileged: bool = False) -> PostgresSession:
        """Wait for a connection of the running loop's pool."""
        del write  # every connection can do both
        if self._confinement.models is not None and not privileged:
            return await self._lease_confined(holder)
        pool = self._pool(self.to)
        link = await pool.take(holder, _tenant())
        self.pooled = pool.pooled
        return PostgresSession(pool, link, privileged=privileged)

    async def _lease_confined(self, holder: str) -> PostgresSession:
        restricted, to = self._restricted or await self._prepare()
        pool = self._pool(to, confined=True)
        link = await pool.take(holder, _tenant())
        if pool.pooled:
            pool.give_back(link)
            msg = "a pooler in transaction mode hands what SQL leaves in a session to other tenants"
            hint = "name the server itself: in the database URL, or in postgres_tenant_url"
            raise ConfigurationError(msg, hint=hint, code="pooler")
        return PostgresSession(pool, link, privileged=False, key=restricted.key)

    async def _prepare(self) -> tuple[Restricted, Target]:
        """Find out, with the owner's connection, how confined connections log in; check the first of them."""
        async with self._pool(self.to).preparing:
            if self._restricted is not None:
                return self._restricted
            session = await self.lease(write=True, holder="schema", privileged=True)
            try:
                found = await session.run(self._find_restricted())
            finally:
                await session.release()
            url = self._confinement.url
            if url is None:
                query = tuple((name, value) for name, value in self.url.query if name not in ("user", "password"))
                url = attrs.evolve(self.url, user=found.role, password=found.password, query=query)
            to = target(url, self.config)
            await self._check(to, found)
            self._restricted = found, to
            return self._restricted

    async def _check(self, to: Target, restricted: Restricted) -> None:
        """Check that a URL of an administrator's leads to the same database, and to the role that it names."""
        pool = self._pool(to, confined=True)
        session = PostgresSession(pool, await pool.take("schema"), privileged=False)
        try:
            (row,) = await session.run(_asked(_WHERE))
        finally:
            await session.release()
        if tuple(row) != (restricted.role, restricted.place.identity):
            msg = "the setting postgres_tenant_url leads to another database or role than it should"
            raise ConfigurationError(msg, hint="name the same server and database as the database URL", code="bad-url")

    def lease_blocking(self, *, write: bool, holder: str, privileged: bool = False) -> PostgresSession:
        """Not for this database: synchronous callers go through the background loop."""
        del write, holder, privileged
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
        confinement, most = self._confinement, self.config["pool_size"] + self.config["pool_max_overflow"]
        return {
            "dialect": "postgresql",
            "url": str(self.url),
            "asyncpg": asyncpg.__version__,
            "pooler": {None: "not known yet", True: "transaction", False: "none"}[self.pooled],
            "schema": self.config["postgres_schema"],
            "pools": len(pools),
            "connections_in_use": sum(len(pool.lent) for pool in pools),
            "most_connections_per_event_loop": most if confinement.models is None else 2 * most,
            "confined": confinement.models is not None,
            **({} if self._restricted is None else _facts(self._restricted[0])),
        }


_WHERE = """\
SELECT session_user::text, concat(system_identifier, '/', oid) FROM pg_control_system(), pg_database
WHERE datname = current_database()"""


def _asked(sql: str) -> Program[Any]:
    return (yield Command(sql), ())


def _facts(restricted: Restricted) -> dict[str, Any]:
    return {"tenant_role": restricted.role, "tenant_role_hides_statements": restricted.hides}


def _tenant() -> str | None:
    """Return for whom a connection is wanted, as far as what surrounds the call tells: any will do, this costs less."""
    for key, value in surroundings().items():
        if type(key) is tuple and key[0] == "tenant" and value is not None:
            return value  # type: ignore[no-any-return]
    return None


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
