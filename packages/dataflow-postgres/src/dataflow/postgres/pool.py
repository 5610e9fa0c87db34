"""The connections of one event loop: lent one at a time, given back clean, closed with the loop.

Lean on purpose: taking and returning an idle connection costs no round trip. A connection is reset only after SQL of
the user's own, checked only after it was idle for a while, and never shared between loops.
"""

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import AsyncGenerator
from time import monotonic

import asyncpg
import attrs

from dataflow.config import Config
from dataflow.errors import DatabaseTimeout, UsageError
from dataflow.postgres.connection import Target, open_connection
from dataflow.session import CURRENT_RUN

IDLE_UNCHECKED = 1.0
"""Seconds that a connection may lie idle without being checked before use (`pool_pre_ping`)."""
CLOSING = 5.0
"""Seconds that a connection gets to say goodbye."""
_RESET = """\
SELECT pg_advisory_unlock_all();
CLOSE ALL;
UNLISTEN *;
SET SESSION AUTHORIZATION DEFAULT;
RESET ALL;
DISCARD TEMP;
DISCARD SEQUENCES"""
"""What DISCARD ALL does, but for the prepared statements, which are the driver's."""


@attrs.define(eq=False)
class Link:
    """One connection of a pool.

    Attributes:
        raw: the driver's connection.
        born: when it was opened (seconds of the monotonic clock).
        idle_since: when it was given back.
        dirty: whether SQL of the user's own may have left something behind.
        holder: who has it, with the run's id.
        taken: when it was lent.
    """

    raw: asyncpg.Connection
    born: float
    idle_since: float = 0.0
    dirty: bool = False
    holder: str = ""
    taken: float = 0.0


class Pool:
    """The connections of one event loop to one database.

    Args:
        to: where to connect.
        config: settings.
    """

    def __init__(self, to: Target, config: Config) -> None:
        self.to = to
        self.loop = asyncio.get_running_loop()
        self.size: int = config["pool_size"]
        self.most: int = config["pool_size"] + config["pool_max_overflow"]
        self.recycle: float = config["pool_recycle"]
        self.ping: bool = config["pool_pre_ping"]
        self.patience: float = config["lock_timeout"]
        self.users: set[int] = set()
        self.closed = False
        self.pooled = to.pooled
        self.lent: set[Link] = set()
        self._idle: list[Link] = []
        self._opening = 0
        self._waiting: deque[asyncio.Future[Link | None]] = deque()
        self._guard: AsyncGenerator[None, None] | None = None
        self._empty = asyncio.Event()
        self._farewells: set[asyncio.Task[None]] = set()

    # -- lending --------------------------------------------------------------------------------------------------
    async def take(self, holder: str) -> Link:
        """Wait for a connection.

        Raises:
            DatabaseTimeout: none was given back in time; says who holds them.
            DatabaseUnavailable: the server cannot be reached.
            UsageError: the pool is closed.
        """
        run = CURRENT_RUN.get()
        who = f"{holder} of run {run.id}" if run is not None else holder
        while True:
            link = self._idle_one()
            if link is None:
                link = await self._new_or_returned(who)
            elif self.ping and monotonic() - link.idle_since > IDLE_UNCHECKED and not await self._answers(link):
                continue
            if link is not None:
                link.holder, link.taken = who, monotonic()
                self.lent.add(link)
                return link

    def _idle_one(self) -> Link | None:
        self._refuse_closed()
        while self._idle:
            link = self._idle.pop()  # the one used last: its caches are warm
            if not link.raw.is_closed() and monotonic() - link.born <= self.recycle:
                return link
            self.drop(link)
        return None

    def _refuse_closed(self) -> None:
        if self.closed:
            msg = "this DataFlow is closed"
            raise UsageError(msg, hint="create a new one, or close it later", code="closed")

    async def _answers(self, link: Link) -> bool:
        self._opening += 1  # it counts while it belongs to nobody
        try:
            async with asyncio.timeout(self.patience):
                await link.raw.execute("")
        except BaseException as error:
            self.drop(link)
            if isinstance(error, Exception):
                return False
            raise
        finally:
            self._opening -= 1
        return True

    async def _new_or_returned(self, who: str) -> Link | None:
        if len(self.lent) + len(self._idle) + self._opening < self.most:
            return await self._open()
        future: asyncio.Future[Link | None] = self.loop.create_future()
        self._waiting.append(future)
        try:
            async with asyncio.timeout(self.patience):
                link = await future
        except BaseException as error:
            with contextlib.suppress(ValueError):
                self._waiting.remove(future)
            if future.done() and not future.cancelled() and future.exception() is None:  # granted meanwhile
                self._pass_on(future.result())
            if isinstance(error, TimeoutError):
                raise self._exhausted(who) from None
            raise
        self._refuse_closed()
        return link

    async def _open(self) -> Link:
        self._opening += 1
        try:
            raw, self.pooled = await open_connection(
                self.to if self.pooled is None else attrs.evolve(self.to, pooled=self.pooled)
            )
        except BaseException:
            self._wake()
            raise
        finally:
            self._opening -= 1
        if self.closed:
            raw.terminate()
            self._refuse_closed()
        if self._guard is None:
            self._guard = self._close_with_loop()
            await anext(self._guard)
        return Link(raw, monotonic())

    async def fresh(self, link: Link) -> None:
        """Put a new connection in the place of one that was lost while it was idle."""
        old = link.raw
        old.terminate()
        new = await self._open()
        link.raw, link.born, link.dirty = new.raw, new.born, False

    def _exhausted(self, who: str) -> DatabaseTimeout:
        now = monotonic()
        held = sorted(self.lent, key=lambda link: link.taken)
        listed = "; ".join(f"{link.holder} for {now - link.taken:.1f} s" for link in held[:10])
        more = f"; and {len(held) - 10} more" if len(held) > 10 else ""
        msg = (
            f"{who} got no connection within {self.patience:g} s: all {self.most} are in use "
            f"(pool_size + pool_max_overflow), by {listed or 'connections being opened'}{more}"
        )
        hint = "keep transactions short, or raise pool_size, pool_max_overflow or lock_timeout (seconds)"
        return DatabaseTimeout(msg, hint=hint, code="pool-exhausted")

    # -- giving back ----------------------------------------------------------------------------------------------
    async def clean(self, link: Link) -> None:
        """Undo what SQL of the user's own may have left in the session; a connection that fails at it is dropped."""
        try:
            async with asyncio.timeout(self.patience):
                await link.raw.execute("ROLLBACK" if self.pooled else _RESET)
        except BaseException as error:
            self.lent.discard(link)
            self.drop(link)
            self._wake()
            if not isinstance(error, Exception):
                raise
        else:
            link.dirty = False

    def give_back(self, link: Link) -> None:
        """Take a clean connection back."""
        self.lent.discard(link)
        link.holder = ""
        if self.closed or link.raw.is_closed() or len(self._idle) + len(self.lent) >= self.size + len(self._waiting):
            self.drop(link)
            self._wake()
        else:
            self._pass_on(link)
        if not self.lent:
            self._empty.set()

    def lose(self, link: Link) -> None:
        """Take back a connection that cannot be used again."""
        self.lent.discard(link)
        self.drop(link)
        self._wake()
        if not self.lent:
            self._empty.set()

    def _pass_on(self, link: Link | None) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(link)
                return
        if link is not None:
            link.idle_since = monotonic()
            self._idle.append(link)

    def _wake(self) -> None:
        """Let the first who waits open a connection in the place of one that is gone."""
        self._pass_on(None)

    def drop(self, link: Link) -> None:
        """Close a connection without waiting."""
        if link.raw.is_closed() or link.raw.is_in_transaction():
            link.raw.terminate()
            return
        self.keep(self.loop.create_task(_farewell(link.raw)))

    def keep(self, task: "asyncio.Task[None]") -> None:
        """Hold on to a task until it is done."""
        self._farewells.add(task)
        task.add_done_callback(self._farewells.discard)

    # -- the end --------------------------------------------------------------------------------------------------
    async def _close_with_loop(self) -> AsyncGenerator[None, None]:
        """Close the connections when asyncio closes the loop: it ends the asynchronous generators that still run."""
        try:
            yield
        finally:
            await self.close(patience=0.0)

    async def close(self, *, patience: float | None = None) -> None:
        """Close all connections, after the operations under way.

        Args:
            patience: seconds to wait for those; None for `lock_timeout`.
        """
        self.closed = True
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        if self.lent:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.patience if patience is None else patience):
                    await self._empty.wait()
        idle, self._idle = self._idle, []
        under_way = self._farewells - {asyncio.current_task()}
        await asyncio.gather(*under_way, *[_farewell(link.raw) for link in idle], return_exceptions=True)
        for link in list(self.lent):
            link.raw.terminate()
        if self._guard is not None and patience is None:
            guard, self._guard = self._guard, None
            with contextlib.suppress(RuntimeError):
                await guard.aclose()

    def abandon(self) -> None:
        """Drop all connections of a loop that does not run: no goodbye can be said."""
        self.closed = True
        for link in [*self._idle, *self.lent]:
            cut(link.raw)
        self._idle = []


async def _farewell(raw: asyncpg.Connection) -> None:
    with contextlib.suppress(Exception):
        await raw.close(timeout=CLOSING)


def cut(raw: asyncpg.Connection) -> None:
    """Shut the socket of a connection whose loop does not run, so that the server learns of it at once."""
    with contextlib.suppress(Exception):
        transport = raw._transport  # noqa: SLF001  # asyncpg has no public way without its loop
        found = transport.get_extra_info("socket")
        if found is not None:
            found.shutdown(socket.SHUT_RDWR)
        transport.abort()
