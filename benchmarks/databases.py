"""Where contests take place: a database with the same rows for every side, and each side's own way to it.

The same durability everywhere: SQLite in WAL with ``synchronous = NORMAL``; PostgreSQL as it is configured.
"""

import contextlib
import sqlite3
import tempfile
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiosqlite
import asyncpg
import attrs

from benchmarks import rows
from dataflow import DataFlow

ROWS = 100_000
"""Rows of each table; ids run from 1."""


@attrs.define
class SQLiteBench:
    """A database file.

    Attributes:
        path: of the file.
        db: DataFlow on it.
        aio: aiosqlite on it, as one would open it by hand.
        raw: sqlite3 on it.
    """

    path: str
    db: DataFlow
    aio: aiosqlite.Connection
    raw: sqlite3.Connection

    @property
    def url(self) -> str:
        """The file's URL."""
        return f"sqlite:///{self.path}"

    async def fill(self, count: int = ROWS) -> None:
        """Create the tables, and load the same rows into both."""
        for start in range(0, count, 10_000):
            numbers = range(start, min(start + 10_000, count))
            await self.db.express.bulk_create("Reading", [rows.reading(i) for i in numbers])
            await self.db.express.bulk_create("Item", [rows.item(i) for i in numbers])
        self.raw.execute("ANALYZE")

    async def clear(self) -> None:
        """Empty the table of readings."""
        self.raw.execute("DELETE FROM readings")
        self.raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def pragmas(raw: sqlite3.Connection) -> None:
    """Set what DataFlow sets as well."""
    raw.execute("PRAGMA journal_mode = WAL")
    raw.execute("PRAGMA synchronous = NORMAL")
    raw.execute("PRAGMA foreign_keys = ON")
    raw.execute("PRAGMA busy_timeout = 5000")


@contextlib.asynccontextmanager
async def sqlite_bench(count: int = ROWS, **settings: Any) -> AsyncGenerator[SQLiteBench, None]:
    """Make a file with rows, and open it each way."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "bench.db")
        async with DataFlow(f"sqlite:///{path}", **settings) as db:
            rows.declare(db)
            await db.initialize()
            aio = await aiosqlite.connect(path, isolation_level=None)
            raw = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                await aio._execute(pragmas, aio._conn)  # type: ignore[no-untyped-call]  # noqa: SLF001
                pragmas(raw)
                bench = SQLiteBench(path, db, aio, raw)
                await bench.fill(count)
                yield bench
            finally:
                await aio.close()
                raw.close()


@attrs.define
class PostgresBench:
    """A PostgreSQL database.

    Attributes:
        url: of the database.
        db: DataFlow on it.
        pool: asyncpg's own pool, as one would make it by hand.
        held: one connection of asyncpg's, always the same.
    """

    url: str
    db: DataFlow
    pool: Any
    held: Any

    async def fill(self, count: int = ROWS) -> None:
        """Create the tables, and load the rows."""
        for start in range(0, count, 10_000):
            numbers = range(start, min(start + 10_000, count))
            await self.db.express.bulk_create("Reading", [rows.reading(i) for i in numbers])
            await self.db.express.bulk_create("Item", [rows.item(i) for i in numbers])
        await self.held.execute("VACUUM ANALYZE")

    async def clear(self) -> None:
        """Empty the table of readings."""
        await self.held.execute("TRUNCATE readings")


@contextlib.asynccontextmanager
async def postgres_bench(count: int = ROWS, **settings: Any) -> AsyncGenerator[PostgresBench, None]:
    """Make a database with rows on the server of this run, and open it each way."""
    made = SERVER()
    async with DataFlow(made, **settings) as db:
        rows.declare(db)
        await db.initialize()
        pool = await asyncpg.create_pool(made, min_size=10, max_size=16)
        held = await asyncpg.connect(made)
        try:
            bench = PostgresBench(made, db, pool, held)
            await bench.fill(count)
            yield bench
        finally:
            await held.close()
            await pool.close()


def _no_server() -> str:
    msg = "no PostgreSQL server was started for this run"
    raise RuntimeError(msg)


def new_database() -> str:
    """Return the URL of an empty database."""
    return SERVER()


SERVER: Callable[[], str] = _no_server
"""Makes a database and returns its URL; set by the command line."""


def now() -> datetime:
    """Return the instant, as hand-written code would."""
    return datetime.now(UTC)
