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
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

from dataflow.config import Config, DatabaseURL
from dataflow.dialect import COUNT, MANY, Program
from dataflow.errors import ConfigurationError, DatabaseUnavailable, DataFlowError, UsageError
from dataflow.session import FairLock
from dataflow.sqlite.errors import translate
from dataflow.sqlite.functions import install

T = TypeVar("T")
OLDEST = (3, 37, 0)
"""STRICT tables came with SQLite 3.37, RETURNING with 3.35."""
_LIVE: "weakref.WeakSet[SQLiteDatabase]" = weakref.WeakSet()
_ABANDONED: list[Any] = []  # connections of a parent process: using or closing them here could harm its file


class _Cancelled(Exception):
    """The program was cancelled between two steps."""


class _Link:
    """One sqlite3 connection, opened on first use, with its lock and its aiosqlite thread."""

    def __init__(self, path: str, config: Config, *, reads_only: bool) -> None:
        self.path = path
        self.config = config
        self.reads_only = reads_only
        self.lock = FairLock(f"the {'reader' if reads_only else 'writer'} of {os.path.basename(path)}")
        self.guard = threading.Lock()
        self.raw: sqlite3.Connection | None = None
        self.aio: aiosqlite.Connection | None = None
        self.max_parameters = 999

    def open(self) -> sqlite3.Connection:
        """Open the connection in the calling thread, which takes microseconds; the lock must be held."""
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
            target, uri=not create, isolation_level=None, check_same_thread=False, cached_statements=512
        )
        try:
            raw.execute(f"PRAGMA busy_timeout = {int(self.config['sqlite_busy_timeout'] * 1000)}")
            if self.path != ":memory:" and not self.config["existing_schema_mode"]:
                _write_ahead(raw)
            self.prepare(raw)
        except BaseException:
            raw.close()
            raise
        self.max_parameters = raw.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
        return raw

    def prepare(self, raw: sqlite3.Connection) -> None:
        """Set a connection's session state, all of it."""
        raw.execute(f"PRAGMA synchronous = {self.config['sqlite_synchronous']}")
        raw.execute("PRAGMA foreign_keys = ON")
        raw.execute(f"PRAGMA query_only = {'ON' if self.reads_only else 'OFF'}")
        install(raw)

    async def open_async(self) -> aiosqlite.Connection:
        """Open aiosqlite's thread on the same connection."""
        raw = self.open()
        if self.aio is None:
            aio = aiosqlite.Connection(lambda: raw, 64)
            vars(aio).get("_thread", aio).daemon = True  # a script that never calls close() must still end
            self.aio = await aio
        return self.aio

    def take(self) -> tuple[sqlite3.Connection | None, aiosqlite.Connection | None]:
        """Hand out the open connections for closing."""
        pair = self.raw, self.aio
        self.raw = self.aio = None
        return pair

    def abandon(self, *, keep: bool) -> None:
        """Forget the parent's connections in a forked child; memory (`keep`) was copied with the process."""
        if self.aio is not None:
            self.aio._connection = None  # noqa: SLF001  # its thread does not exist here
        _ABANDONED.append((self.raw, self.aio))
        self.aio = None
        self.raw = self.raw if keep else None
        self.lock.reset()
        self.guard = threading.Lock()


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


class SQLiteSession:
    """A leased connection.

    Attributes:
        depth: open transaction (1) plus savepoints.
        max_parameters: as the connection reports.
    """

    __slots__ = ("_cancelled", "_dirty", "_link", "depth", "max_parameters")

    def __init__(self, link: _Link) -> None:
        self._link = link
        self._cancelled = False
        self._dirty = False
        self.depth = 0
        self.max_parameters = link.max_parameters

    @property
    def contended(self) -> bool:
        """Whether somebody waits for this connection."""
        return self._link.lock.contended

    def _drive(self, program: Program[T]) -> T:
        """Run a program to its end on the connection, in whichever thread this is."""
        link = self._link
        raw = link.raw
        if raw is None:
            program.close()
            msg = "the database was closed while an operation ran"
            raise UsageError(msg, hint="close it after the last operation", code="closed")
        with link.guard:
            try:
                command, arguments = next(program)
                while True:
                    if self._cancelled:
                        raise _Cancelled
                    try:
                        if command.returns is COUNT:
                            reply: Any = raw.execute(command.sql, arguments).rowcount
                        elif command.returns is MANY:
                            reply = raw.executemany(command.sql, arguments).rowcount
                        else:
                            cursor = raw.execute(command.sql, arguments)
                            reply = cursor.fetchall()
                            if command.named:
                                reply = ([c[0] for c in cursor.description or ()], reply, cursor.rowcount)
                                self._dirty = True
                    except (sqlite3.Error, UnicodeError, OverflowError) as error:
                        fault = translate(error, link.path) if isinstance(error, sqlite3.Error) else _unbindable(error)
                        fault.__cause__ = error
                        command, arguments = program.throw(fault)
                    else:
                        command, arguments = program.send(reply)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            except BaseException:
                program.close()
                raise

    async def run(self, program: Program[T]) -> T:
        """Run a program on aiosqlite's thread, in one hop; cancellation interrupts it and waits until it stopped."""
        aio = self._link.aio
        assert aio is not None
        try:
            return await aio._execute(self._drive, program)  # type: ignore[no-any-return,no-untyped-call]  # noqa: SLF001
        except asyncio.CancelledError:
            await self._stop(aio)
            raise

    async def _stop(self, aio: aiosqlite.Connection) -> None:
        self._cancelled = True
        if self._link.raw is not None:
            self._link.raw.interrupt()
        while True:
            try:
                await aio._execute(lambda: None)  # type: ignore[no-untyped-call]  # noqa: SLF001  # queued behind the program: it is over when this is
            except asyncio.CancelledError:
                continue
            except ValueError:  # closed meanwhile
                pass
            self._cancelled = False
            return

    def run_blocking(self, program: Program[T]) -> T:
        """Run a program in the calling thread."""
        return self._drive(program)

    def _clean(self) -> None:
        raw = self._link.raw
        if raw is not None:
            if raw.in_transaction:
                raw.rollback()
            if self._dirty:  # SQL of the user's own may have set anything
                self._link.prepare(raw)
        self.depth = 0

    async def release(self) -> None:
        """Roll back what is open, and give the connection back."""
        self.release_blocking()

    def release_blocking(self) -> None:
        """Roll back what is open, and give the connection back."""
        try:
            self._clean()
        finally:
            self._link.lock.release()


def _unbindable(error: Exception) -> DataFlowError:
    msg = "a parameter cannot be stored: " + (
        "text with lone surrogates" if isinstance(error, UnicodeError) else "an integer beyond 64 bits"
    )
    return DataFlowError(msg, hint="convert it first", code="input")


class SQLiteDatabase:
    """The connections of one DataFlow to one SQLite database."""

    blocking = True

    def __init__(self, url: DatabaseURL, config: Config) -> None:
        if sqlite3.sqlite_version_info < OLDEST:
            msg = f"SQLite {sqlite3.sqlite_version} is too old: 3.37 or newer is needed"
            raise ConfigurationError(msg, hint="use a Python built with a newer SQLite", code="old-sqlite")
        if url.query:
            msg = f"SQLite URLs take no options, got {', '.join(name for name, _ in url.query)}"
            raise ConfigurationError(msg, hint="use settings: DataFlow(url, sqlite_synchronous=…)", code="bad-url")
        self.path = ":memory:" if url.path == ":memory:" else os.path.abspath(url.path)
        self.config = config
        self.closed = False
        self.writer = _Link(self.path, config, reads_only=False)
        self.reader = self.writer if self.path == ":memory:" else _Link(self.path, config, reads_only=True)
        _LIVE.add(self)

    def _choose(self, *, write: bool) -> _Link:
        if self.closed:
            msg = "this DataFlow is closed"
            raise UsageError(msg, hint="create a new one, or close it later", code="closed")
        return self.writer if write else self.reader

    async def lease(self, *, write: bool, holder: str) -> SQLiteSession:
        """Wait for the writer or the reader."""
        link = self._choose(write=write)
        await link.lock.acquire(holder, self.config["lock_timeout"])
        try:
            if link is self.reader and self.writer.raw is None:  # the writer creates the file
                async with contextlib.AsyncExitStack() as stack:
                    await self.writer.lock.acquire(holder, self.config["lock_timeout"])
                    stack.callback(self.writer.lock.release)
                    self.writer.open()
            if link.aio is None:
                await link.open_async()
            return SQLiteSession(link)
        except BaseException:
            link.lock.release()
            raise

    def lease_blocking(self, *, write: bool, holder: str) -> SQLiteSession:
        """Wait for the writer or the reader in the calling thread."""
        link = self._choose(write=write)
        link.lock.acquire_blocking(holder, self.config["lock_timeout"])
        try:
            if link.raw is None:
                if link is self.reader and link is not self.writer and self.writer.raw is None:
                    self.writer.lock.acquire_blocking(holder, self.config["lock_timeout"])
                    try:
                        self.writer.open()
                    finally:
                        self.writer.lock.release()
                link.open()
            return SQLiteSession(link)
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
                raw, aio = link.take()
                if aio is not None:
                    _close_aio(aio)
                elif raw is not None:
                    raw.close()
            finally:
                link.lock.release()

    def _links(self) -> list[_Link]:
        return [self.reader, self.writer] if self.reader is not self.writer else [self.writer]

    def at_exit(self) -> None:
        """Close what is idle when the interpreter ends; WAL keeps committed data safe either way."""
        for link in self._links():
            raw, aio = link.take()
            with contextlib.suppress(Exception):
                if aio is not None:
                    _close_aio(aio)
                elif raw is not None:
                    raw.close()

    def in_child(self) -> None:
        """Start afresh after a fork."""
        for link in self._links():
            link.abandon(keep=self.path == ":memory:")

    def describe(self) -> dict[str, Any]:
        """Say where the database is and how it is set."""
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


def _close_aio(aio: aiosqlite.Connection) -> None:
    if threading.current_thread() is vars(aio).get(
        "_thread", aio
    ):  # garbage collected there: it cannot wait for itself
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


def _in_child() -> None:
    for database in list(_LIVE):
        database.in_child()


os.register_at_fork(after_in_child=_in_child)
