"""The connections of one event loop: lent one at a time, given back clean, closed with the loop.

Lean on purpose: taking and returning an idle connection costs no round trip. A connection is reset only after SQL of
the user's own, checked only after it was idle for a while, and never shared between loops.

A pool has a fixed number of places. A connection occupies one from before it is opened until it is dropped; who waits
is given a connection, or the place of one that is gone, first come, first served.
"""

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import Future
from functools import partial
from time import monotonic

import asyncpg
import attrs

from dataflow.config import Config
from dataflow.errors import DatabaseTimeout, UsageError
from dataflow.postgres.connection import Target, open_connection
from dataflow.postgres.ending import CLOSING, NOTHING, cut, farewell
from dataflow.session import CURRENT_RUN

IDLE_UNCHECKED = 1.0
"""Seconds that a connection may lie idle without being checked before use (`pool_pre_ping`)."""
OVERFLOW_IDLE = 2.0
"""Seconds that a connection beyond `pool_size` lies idle before it is closed: opening one takes milliseconds."""
CHECKING = 5.0
"""Seconds that an idle connection gets to answer."""
_RESET = """\
SET SESSION AUTHORIZATION DEFAULT;
SELECT pg_catalog.pg_advisory_unlock_all();
CLOSE ALL;
UNLISTEN *;
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
        spoiled: whether it may have left what no reset undoes.
        holder: who has it, with the run's id.
        taken: when it was lent.
        context: what it knows of the call it serves.
        backend: its number among those of the server, and what tells it from all others; None: not asked yet.
        tenant: whose SQL has made it dirty.
    """

    raw: asyncpg.Connection
    born: float
    idle_since: float = 0.0
    dirty: bool = False
    spoiled: bool = False
    holder: str = ""
    taken: float = 0.0
    context: Mapping[str, str] = attrs.field(factory=dict)
    backend: tuple[str, str] | None = None
    tenant: str = ""


class Pool:
    """The connections of one event loop to one database.

    Args:
        to: where to connect.
        config: settings.

    Attributes:
        loop, thread: the event loop, and the thread (its number) that it ran in when the pool was made.
        process: the process (its number) that made the pool.
        pooled: whether a pooler in transaction mode is in between; None: not known yet.
        prelude: what follows BEGIN where a pooler forgets the settings of the session.
        users: ids of the `PostgresDatabase` objects that share the pool.
        lent: the connections in use.
        closed: whether no more are lent.
        preparing: held while the database is being prepared for confined connections.
    """

    def __init__(self, to: Target, config: Config) -> None:
        self.to = to
        self.loop = asyncio.get_running_loop()
        self.thread = threading.get_ident()
        self.process = os.getpid()
        self.size: int = config["pool_size"]
        self.most: int = config["pool_size"] + config["pool_max_overflow"]
        self.recycle: float = config["pool_recycle"]
        self.ping: bool = config["pool_pre_ping"]
        self.patience: float = config["lock_timeout"]
        self.users: set[int] = set()
        self.closed = False
        self.pooled = to.pooled
        self.prelude = f"; SET LOCAL lock_timeout = {to.settings['lock_timeout']}"
        self.lent: set[Link] = set()
        self._links: set[Link] = set()
        self._idle: list[Link] = []
        self._places = 0  # in use; somebody waits only while all are
        self._waiting: deque[asyncio.Future[Link | None]] = deque()
        self._vacated = asyncio.Event()
        self._shrinking: asyncio.TimerHandle | None = None
        self._guard: AsyncGenerator[None, None] | None = None
        self._farewells: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.preparing = asyncio.Lock()

    @property
    def inherited(self) -> bool:
        """Whether this process was forked from that of the pool, whose connections it must not touch."""
        return self.process != os.getpid()

    # -- lending --------------------------------------------------------------------------------------------------
    async def take(self, holder: str, tenant: str | None = None) -> Link:
        """Wait for a connection.

        Args:
            holder: named in errors of others.
            tenant: for whom it is; one that knows this tenant already is preferred.

        Raises:
            DatabaseTimeout: none was given back in time; says who holds them.
            DatabaseUnavailable: the server cannot be reached.
            UsageError: the pool is closed.
        """
        run = CURRENT_RUN.get()
        who = f"{holder} of run {run.id}" if run is not None else holder
        self._refuse_closed()
        link = self._idle_one(tenant)
        if link is None:
            if self._places < self.most:
                self._places += 1
            else:
                link = await self._given(who)
            if link is None:
                link = await self._filled()
        elif self.ping and monotonic() - link.idle_since > IDLE_UNCHECKED and not await self._answers(link):
            link = await self._filled()
        link.holder, link.taken = who, monotonic()
        self.lent.add(link)
        return link

    def _idle_one(self, tenant: str | None) -> Link | None:
        while self._idle:
            last = len(self._idle) - 1  # the one used last: its caches are warm
            places = range(last, -1, -1) if tenant is not None else ()
            link = self._idle.pop(
                next((place for place in places if self._idle[place].context.get("tenant") == tenant), last)
            )
            if self._is_good(link):
                return link
            self._drop(link)
            self._places -= 1
        return None

    def _is_good(self, link: Link) -> bool:
        return not link.raw.is_closed() and monotonic() - link.born <= self.recycle

    def _refuse_closed(self) -> None:
        if self.closed:
            raise _closed()

    async def _given(self, who: str) -> Link | None:
        """Wait until somebody gives a connection back, or vacates the place of one (None)."""
        future: asyncio.Future[Link | None] = self.loop.create_future()
        self._waiting.append(future)
        try:
            async with asyncio.timeout(self.patience):
                link = await future
        except BaseException as error:
            if not future.done() or future.cancelled():
                with contextlib.suppress(ValueError):
                    self._waiting.remove(future)
            elif future.exception() is None:  # given meanwhile
                self._offer(future.result())
            if isinstance(error, TimeoutError):
                raise self._exhausted(who) from None
            raise
        if self.closed:  # meanwhile
            self._offer(link)
            raise _closed()
        return link

    async def _answers(self, link: Link) -> bool:
        """Check an idle connection; one that does not answer is dropped, and its place is ours."""
        try:
            async with asyncio.timeout(CHECKING):
                await link.raw.execute(NOTHING)
        except BaseException as error:
            self._links.discard(link)
            link.raw.terminate()
            if isinstance(error, Exception):
                return False
            self._offer(None)
            raise
        if self.closed:  # meanwhile
            self._offer(link)
            raise _closed()
        return True

    async def _filled(self) -> Link:
        """Open a connection in a place that is ours."""
        try:
            raw = await self._open()
        except BaseException:
            self._offer(None)  # who waits next may be luckier, or is told the same
            raise
        link = Link(raw, monotonic())
        self._links.add(link)
        return link

    async def _open(self) -> asyncpg.Connection:
        to = self.to if self.pooled is None else attrs.evolve(self.to, pooled=self.pooled)
        raw, self.pooled = await open_connection(to)
        if self.closed:
            raw.terminate()
            raise _closed()
        if self._guard is None:
            self._guard = self._close_with_loop()
            await anext(self._guard)
        return raw

    async def fresh(self, link: Link) -> None:
        """Put a new connection in the place of one that was lost while it was idle."""
        link.raw.terminate()
        link.raw = await self._open()
        link.born, link.dirty, link.spoiled = monotonic(), False, False
        link.context, link.backend = {}, None

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
    def give_back(self, link: Link) -> None:
        """Take a clean connection back."""
        self.lent.discard(link)
        link.holder = ""
        if link not in self._links:  # dropped meanwhile, by closing or in a loop that did not run
            self._offer(None)
        elif not self._is_good(link):
            self._drop(link)
            self._offer(None)
        else:
            self._offer(link)
            if self._places > self.size and self._idle and self._shrinking is None:
                self._shrinking = self.loop.call_later(OVERFLOW_IDLE, self._shrink)

    def _shrink(self) -> None:
        """Close connections beyond `pool_size` that nobody has needed for a while."""
        self._shrinking = None
        if self.closed:
            return
        until = monotonic() - OVERFLOW_IDLE
        for link in [link for link in self._idle if link.idle_since <= until][: max(self._places - self.size, 0)]:
            self._idle.remove(link)  # those used last stay
            self._drop(link)
            self._offer(None)
        if self._places > self.size and self._idle:
            self._shrinking = self.loop.call_later(OVERFLOW_IDLE, self._shrink)

    def lose(self, link: Link) -> None:
        """Take back a connection that cannot be used again."""
        self.lent.discard(link)
        self._drop(link)
        self._offer(None)

    def _offer(self, link: Link | None) -> None:
        """Give a connection, or the place of one, to the first who waits; else lay it by."""
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(link)
                return
        if link is not None and not self.closed:
            link.idle_since = monotonic()
            self._idle.append(link)
            return
        if link is not None:
            self._drop(link)
        self._places -= 1
        if not self._places:
            self._vacated.set()

    def _drop(self, link: Link) -> None:
        """Close a connection without waiting. A statement under way is stopped; its place stays taken."""
        if link not in self._links:
            return
        self._links.discard(link)
        if link.raw.is_closed():
            link.raw.terminate()
            return
        task = self.loop.create_task(farewell(link.raw))
        self._farewells.add(task)
        task.add_done_callback(partial(self._gone, link.raw))

    def _gone(self, raw: asyncpg.Connection, task: "asyncio.Task[None]") -> None:
        self._farewells.discard(task)
        raw.terminate()  # the end of a loop cancels tasks, even those that have not begun

    # -- the end --------------------------------------------------------------------------------------------------
    async def _close_with_loop(self) -> AsyncGenerator[None, None]:
        """Close the connections when asyncio closes the loop: it ends the asynchronous generators that still run."""
        try:
            yield
        finally:
            await self._close(0.0)
            others = self._tasks - {asyncio.current_task()}
            if others:
                await asyncio.wait(others, timeout=CLOSING)

    def closing(self, patience: float | None = None) -> "Future[None]":
        """Start `close` on the loop, from any thread and at any place; the future is done when it is over."""
        over: Future[None] = Future()

        def start() -> None:
            task = self.loop.create_task(self.close(patience=patience))
            task.add_done_callback(lambda _: over.set_result(None))
            self.keep(task)

        try:
            self.loop.call_soon_threadsafe(start)
        except RuntimeError:  # the loop was closed in this moment
            self.abandon()
            over.set_result(None)
        return over

    def keep(self, task: "asyncio.Task[None]") -> None:
        """Hold on to a task until it is done, beyond the end of the loop's last run."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self, *, patience: float | None = None) -> None:
        """Close all connections, after the operations under way.

        Args:
            patience: seconds to wait for those; None for `lock_timeout`.
        """
        await self._close(self.patience if patience is None else patience)
        if self._guard is not None:
            with contextlib.suppress(RuntimeError):  # it runs already: the loop is being closed
                await self._guard.aclose()

    async def _close(self, patience: float) -> None:
        self.closed = True
        if self.inherited:
            return
        if self._shrinking is not None:
            self._shrinking.cancel()
            self._shrinking = None
        waiting, self._waiting = self._waiting, deque()
        for future in waiting:
            if not future.done():
                future.set_exception(_closed())
        idle, self._idle = self._idle, []
        for link in idle:
            self._offer(link)
        if self._places:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._vacated.wait()
            for link in list(self._links):
                self._drop(link)
        while self._farewells:
            await asyncio.wait(set(self._farewells))

    def forget(self, link: Link) -> None:
        """Drop a connection of a loop that does not run."""
        if link in self._links:
            self._places -= 1
        self.lent.discard(link)
        self._links.discard(link)
        if not self.inherited:
            cut(link.raw, self.loop)

    def abandon(self) -> None:
        """Drop all connections of a loop that does not run: no goodbye can be said."""
        self.closed = True
        for link in list(self._links):
            self.forget(link)
        self._idle.clear()


def _closed() -> UsageError:
    return UsageError("this DataFlow is closed", hint="create a new one, or close it later", code="closed")


async def reset(link: Link, *, pooled: bool) -> None:
    """Undo what SQL of the user's own may have left in the session.

    Behind a pooler, the next transaction has another session; but a statement half sent would keep this one.
    """
    await link.raw.execute(NOTHING if pooled else _RESET)
    link.dirty, link.context = False, {}
