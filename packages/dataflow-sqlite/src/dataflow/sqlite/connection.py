"""SQLite connections: one writer and one reader per file, one for both in memory.

Each is one `sqlite3` connection that two kinds of callers drive, never at once: coroutines on aiosqlite's thread, one
hop per program, and synchronous callers in their own thread without a hop. A fair lock decides whose turn it is.
"""

import asyncio
import atexit
import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataflow.config import Config, DatabaseURL
from dataflow.errors import ConfigurationError, DatabaseUnavailable, DataFlowError, UsageError
from dataflow.model import ModelSpec
from dataflow.session import FairLock
from dataflow.sqlite.changelog import attach
from dataflow.sqlite.confinement import Confinement
from dataflow.sqlite.enclosure import quoted
from dataflow.sqlite.errors import translate
from dataflow.sqlite.functions import install
from dataflow.sqlite.session import SIGNALS_EVERY, SQLiteSession, Turn, watch

if TYPE_CHECKING:
    import aiosqlite

OLDEST = (3, 37, 0)
"""STRICT tables came with SQLite 3.37, RETURNING with 3.35."""
_LIVE: "weakref.WeakSet[SQLiteDatabase]" = weakref.WeakSet()
_FORKING: "list[Link]" = []  # held until the fork is done
_CROSSED: set[str] = set()  # files that were in use when this process was forked: SQLite confuses whose locks they are
_ABANDONED: list[Any] = []  # connections of a parent process: using or closing them here could harm its file


class Link:
    """One sqlite3 connection, opened on first use, with its lock and its aiosqlite thread.

    Attributes:
        lock: whose the connection is.
        guard: held while a program runs on it.
        turn: the program that runs on it; changed under `turning`.
        watcher: looks for signals meanwhile.
        context: what the connection knows of the call it serves.
        models: the registered models, as they grow, where the connection keeps within the tenant it serves.
        confinement: what keeps it, while it is open.
    """

    def __init__(self, path: str, config: Config, *, reads_only: bool) -> None:
        self.path = path
        self.config = config
        self.reads_only = reads_only
        self.lock = FairLock(f"the {'reader' if reads_only else 'writer'} of {os.path.basename(path)}")
        self.guard = threading.Lock()
        self.turning = threading.Lock()
        self.turn: Turn | None = None
        self.watcher: Generator[int, None, None] | None = None
        self.raw: sqlite3.Connection | None = None
        self.aio: aiosqlite.Connection | None = None
        self.max_parameters = 999
        self.context: Mapping[str, str] = {}
        self.models: Callable[[], Iterable[ModelSpec]] | None = None
        self.confinement: Confinement | None = None

    def open(self) -> sqlite3.Connection:
        """Open the connection in the calling thread, which takes microseconds; the lock must be held."""
        if _CROSSED and os.path.realpath(self.path) in _CROSSED:
            msg = f"this process was forked while {self.lock.what} was in use, so it cannot use the file safely"
            raise UsageError(msg, hint="fork between runs, or start processes with 'spawn'", code="forked-in-use")
        if self.raw is None:
            try:
                self.raw = self._connect()
            except sqlite3.Error as error:
                raise translate(error, self.path) from error
        return self.raw

    def _connect(self) -> sqlite3.Connection:
        if self.path != ":memory:" and not os.path.isdir(os.path.dirname(self.path)):
            msg = f"the folder {os.path.dirname(self.path)!r} of the database file does not exist"
            raise DatabaseUnavailable(msg, hint="create it, or correct the URL", where={"file": self.path})
        create = self.config["auto_migrate"] and not self.config["existing_schema_mode"]
        if not create and self.path != ":memory:" and not os.path.exists(self.path):
            msg = "the database file does not exist, and this DataFlow may not create it"
            hint = "correct the URL, or allow it: DataFlow(auto_migrate=True, existing_schema_mode=False)"
            raise DatabaseUnavailable(msg, hint=hint, where={"file": self.path})
        target = self.path if create or self.path == ":memory:" else f"{Path(self.path).as_uri()}?mode=rw"
        raw = sqlite3.connect(
            target,
            uri=not create,
            timeout=self.config["sqlite_busy_timeout"],
            isolation_level=None,
            check_same_thread=False,
            cached_statements=512,
        )
        try:
            if self.path != ":memory:" and not self.config["existing_schema_mode"]:
                _write_ahead(raw)
            self.prepare(raw)
            self.confine(raw)
        except BaseException:
            raw.close()
            raise
        self.max_parameters = raw.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
        self.watch(raw)
        return raw

    def watch(self, raw: sqlite3.Connection) -> None:
        """Look for signals while statements run on a connection."""
        self.watcher = watch(self)
        next(self.watcher)  # a signal at its very beginning would end it
        raw.set_progress_handler(self.watcher.__next__, SIGNALS_EVERY)

    def confine(self, raw: sqlite3.Connection) -> None:
        """Keep SQL of the user's own on a connection within the tenant it serves, where that is asked for."""
        if self.models is not None:
            tenant = lambda: self.context.get("tenant") or None  # noqa: E731
            self.confinement = Confinement(self.models, tenant, reads_only=self.reads_only)
            self.confinement.attach(raw)

    def prepare(self, raw: sqlite3.Connection) -> None:
        """Set a connection's session state, all of it."""
        raw.execute(f"PRAGMA busy_timeout = {int(self.config['sqlite_busy_timeout'] * 1000)}")
        raw.execute(f"PRAGMA synchronous = {self.config['sqlite_synchronous']}")
        raw.execute("PRAGMA foreign_keys = ON")
        raw.execute(f"PRAGMA query_only = {'ON' if self.reads_only else 'OFF'}")
        install(raw)
        attach(raw, lambda: self.context)

    def reset(self, raw: sqlite3.Connection) -> None:
        """Undo what SQL of the user's own may have left behind: settings, attached databases, temporary objects."""
        for name, value in _USUAL.items():
            raw.execute(f"PRAGMA {name} = {value}")
        if not raw.execute("SELECT 'a' LIKE 'A'").fetchone()[0]:  # no indexes or computed columns may use LIKE after it
            raw.execute("PRAGMA case_sensitive_like = OFF")
        self.prepare(raw)
        found = raw.execute("SELECT type, name FROM sqlite_temp_master WHERE type <> 'index' ORDER BY type").fetchall()
        for kind, name in found:
            raw.execute(f"DROP {kind} IF EXISTS temp.{quoted(name)}")
        for _, name, _ in raw.execute("PRAGMA database_list").fetchall():
            if name not in ("main", "temp"):
                raw.execute(f"DETACH {quoted(name)}")
        attach(raw, lambda: self.context)
        if self.reads_only:
            raw.execute("PRAGMA query_only = ON")

    async def open_async(self) -> "aiosqlite.Connection":
        """Open aiosqlite's thread on the same connection."""
        raw = self.open()
        self._bury()
        if self.aio is None:
            import aiosqlite  # only coroutines need it

            aio = aiosqlite.Connection(lambda: raw, 64)
            _thread_of(aio).daemon = True  # a script that never calls close() must still end
            self.aio = await aio
        return self.aio

    def _bury(self) -> None:
        """Forget a thread that died because its caller's event loop was closed in the middle of a statement."""
        if self.aio is not None and not _thread_of(self.aio).is_alive():
            self.aio._connection = None  # noqa: SLF001  # the connection itself is ours
            self.aio = None

    def take(self) -> "tuple[sqlite3.Connection | None, aiosqlite.Connection | None]":
        """Hand out the open connections for closing."""
        self._bury()
        pair = self.raw, self.aio
        self.raw = self.aio = None
        return pair

    def shut(self) -> None:
        """Close the connection, from any thread."""
        raw, aio = self.take()
        if aio is not None:
            _close_aio(aio)
        elif raw is not None:
            raw.close()

    def abandon(self, *, keep: bool) -> None:
        """Forget the parent's connections in a forked child; memory (`keep`) was copied with the process."""
        if self.aio is not None:
            self.aio._connection = None  # noqa: SLF001  # its thread does not exist here
        _ABANDONED.append((self.raw, self.aio))
        self.aio = None
        if not keep:
            if self.raw is not None:
                _CROSSED.add(os.path.realpath(self.path))
            self.raw = None
        self.lock.reset()
        self.guard, self.turning, self.turn = threading.Lock(), threading.Lock(), None


_USUAL = {
    "locking_mode": "NORMAL",
    "ignore_check_constraints": "OFF",
    "defer_foreign_keys": "OFF",
    "recursive_triggers": "OFF",
    "read_uncommitted": "OFF",
    "reverse_unordered_selects": "OFF",
    "writable_schema": "OFF",
    "legacy_alter_table": "OFF",
    "automatic_index": "ON",
    "wal_autocheckpoint": 1000,
    "query_only": "OFF",
}
"""Settings of a connection that the framework relies on without setting them itself."""


def _thread_of(aio: "aiosqlite.Connection") -> threading.Thread:
    thread = vars(aio).get("_thread", aio)  # before aiosqlite 0.22, the connection was the thread
    assert isinstance(thread, threading.Thread)
    return thread


def _write_ahead(raw: sqlite3.Connection) -> None:
    """Switch to WAL; several processes may try at once, and SQLite's busy handler does not cover the switch."""
    for attempt in range(50):
        try:
            raw.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorname", "") == "SQLITE_READONLY":
                return
            if "locked" not in str(error) or attempt == 49:
                raise
            time.sleep(0.02)
        else:
            return


class SQLiteDatabase:
    """The connections of one DataFlow to one SQLite database.

    Args:
        url: of the file, or of memory.
        config: settings of the DataFlow.
        confining: called when SQL of the user's own is to be confined: the framework's must name the file's tables.
    """

    blocking = True

    def __init__(self, url: DatabaseURL, config: Config, *, confining: Callable[[], None] = lambda: None) -> None:
        if sqlite3.sqlite_version_info < OLDEST:
            msg = f"SQLite {sqlite3.sqlite_version} is too old: 3.37 or newer is needed"
            raise ConfigurationError(msg, hint="use a Python built with a newer SQLite", code="old-sqlite")
        if url.query:
            msg = f"SQLite URLs take no options, got {', '.join(name for name, _ in url.query)}"
            raise ConfigurationError(msg, hint="use settings: DataFlow(url, sqlite_synchronous=…)", code="bad-url")
        self.path = ":memory:" if url.path == ":memory:" else os.path.abspath(url.path)
        self.config = config
        self.closed = False
        self.confining = confining
        self.writer = Link(self.path, config, reads_only=False)
        self.reader = self.writer if self.path == ":memory:" else Link(self.path, config, reads_only=True)
        _LIVE.add(self)

    def _choose(self, *, write: bool) -> Link:
        if self.closed:
            msg = "this DataFlow is closed"
            raise UsageError(msg, hint="create a new one, or close it later", code="closed")
        return self.writer if write else self.reader

    def confine(self, models: Callable[[], Iterable[ModelSpec]]) -> None:
        """Keep SQL of the user's own within the tenant of its context, unless the lease is privileged."""
        self.confining()
        for link in self._links():
            link.models = models

    async def lease(self, *, write: bool, holder: str, privileged: bool = False) -> SQLiteSession:
        """Wait for the writer or the reader."""
        link = self._choose(write=write)
        await link.lock.acquire(holder, self.config["lock_timeout"])
        try:
            self._choose(write=write)  # it may have been closed meanwhile
            if link is not self.writer and self.writer.raw is None:  # the writer creates the file
                async with contextlib.AsyncExitStack() as stack:
                    await self.writer.lock.acquire(holder, self.config["lock_timeout"])
                    stack.callback(self.writer.lock.release)
                    self.writer.open()
            await link.open_async()
            return SQLiteSession(link, privileged=privileged)
        except BaseException:
            link.lock.release()
            raise

    def lease_blocking(self, *, write: bool, holder: str, privileged: bool = False) -> SQLiteSession:
        """Wait for the writer or the reader in the calling thread."""
        link = self._choose(write=write)
        link.lock.acquire_blocking(holder, self.config["lock_timeout"])
        try:
            if link.raw is None:
                self._choose(write=write)  # it may have been closed meanwhile
                if link is not self.writer and self.writer.raw is None:
                    self.writer.lock.acquire_blocking(holder, self.config["lock_timeout"])
                    try:
                        self.writer.open()
                    finally:
                        self.writer.lock.release()
                link.open()
            return SQLiteSession(link, privileged=privileged)
        except BaseException:
            link.lock.release()
            raise

    async def close(self) -> None:
        """Close both connections, after the operation under way."""
        self.closed = True
        for link in self._links():
            await link.lock.acquire("close", self.config["lock_timeout"])
            try:
                raw, aio = link.take()
                if aio is not None:
                    await aio.close()
                elif raw is not None:
                    raw.close()
            finally:
                link.lock.release()

    def close_blocking(self) -> None:
        """Close both connections from any thread; inside a running loop, through a thread."""
        self.closed = True
        for link in self._links():
            link.lock.acquire_blocking("close", self.config["lock_timeout"])
            try:
                link.shut()
            finally:
                link.lock.release()

    discard = close_blocking  # nobody uses its connections any more

    def _links(self) -> list[Link]:
        return [self.reader, self.writer] if self.reader is not self.writer else [self.writer]

    def at_exit(self) -> None:
        """Close what is idle when the interpreter ends; WAL keeps committed data safe either way."""
        for link in self._links():
            with contextlib.suppress(Exception):
                if link.raw is not None and link.guard.locked():
                    link.raw.interrupt()  # a daemon thread is in a statement
                link.shut()

    def before_fork(self) -> list[Link]:
        """Close a file, for SQLite's locks belong to one process; return the links that are kept from being used."""
        kept = []
        for link in self._links() if self.path != ":memory:" else ():
            try:
                link.lock.acquire_blocking("a fork", 1.0)
            except DataFlowError:  # in use; the child will not use it
                continue
            kept.append(link)
            with contextlib.suppress(Exception):
                link.shut()
        return kept

    def in_child(self) -> None:
        """Start afresh after a fork."""
        for link in self._links():
            link.abandon(keep=self.path == ":memory:")

    def describe(self) -> dict[str, Any]:
        """Say where the database is and how it is set."""
        import aiosqlite

        return {
            "dialect": "sqlite",
            "file": self.path,
            "sqlite": sqlite3.sqlite_version,
            "aiosqlite": getattr(aiosqlite, "__version__", "unknown"),
            "journal_mode": "memory"
            if self.path == ":memory:"
            else ("as found" if self.config["existing_schema_mode"] else "wal"),
            "synchronous": self.config["sqlite_synchronous"],
            "connections": len(self._links()),
        }


def _close_aio(aio: "aiosqlite.Connection") -> None:
    if threading.current_thread() is _thread_of(aio):  # garbage collected there: it cannot wait for itself
        aio.stop()
        return

    async def close() -> None:
        await asyncio.wait_for(aio.close(), 5)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(close())
        return
    thread = threading.Thread(target=lambda: asyncio.run(close()))
    thread.start()
    thread.join()


@atexit.register
def _at_exit() -> None:
    for database in list(_LIVE):
        database.at_exit()


def _before_fork() -> None:
    _FORKING.extend([link for database in list(_LIVE) for link in database.before_fork()])


def _in_parent() -> None:
    while _FORKING:
        _FORKING.pop().lock.release()


def _in_child() -> None:
    _FORKING.clear()
    for database in list(_LIVE):
        database.in_child()


os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
