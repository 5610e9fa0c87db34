"""What the driver alone takes for the same rows: the same tables once more, with the same durability; and its answers.

Its rows are tuples of the driver's own types already; nothing is checked or converted while the clock runs. Nothing of
DataFlow is in here but the parsed URL.
"""

import asyncio
import os
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

from dataflow.config import DatabaseURL

if TYPE_CHECKING:
    from asyncpg import Connection

T = TypeVar("T")

TABLES = ("airlines", "airports", "planes", "weather", "flights")


class SQLiteFile:
    """A database file, by the standard library.

    Args:
        url: of the file.
    """

    driver = "sqlite3"

    def __init__(self, url: DatabaseURL) -> None:
        self.path = self.place = os.path.abspath(url.path)

    def ask(self, questions: dict[str, str]) -> dict[str, list[Any]]:
        """Run SELECTs: name -> rows."""
        with closing(sqlite3.connect(self.path)) as file:
            return {name: file.execute(sql).fetchall() for name, sql in questions.items()}

    def copy(self) -> dict[str, Any]:
        """Copy the tables into a new file beside this one, in one transaction: rows and seconds."""
        with (
            TemporaryDirectory(dir=Path(self.path).parent) as folder,
            closing(sqlite3.connect(self.path)) as source,
            closing(sqlite3.connect(Path(folder) / "raw.db", isolation_level=None)) as target,
        ):
            target.execute("PRAGMA journal_mode = WAL")
            target.execute("PRAGMA synchronous = NORMAL")
            for (sql,) in source.execute(
                "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
            ):
                target.execute(sql)
            tables = {table: source.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}
            start = perf_counter()
            target.execute("BEGIN IMMEDIATE")
            for table, rows in tables.items():
                marks = ", ".join("?" * len(rows[0]))
                target.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
            target.execute("COMMIT")
            seconds = perf_counter() - start
        return {"rows": sum(len(rows) for rows in tables.values()), "seconds": seconds}


class PostgresSchema:
    """A schema of a PostgreSQL database, by asyncpg.

    Args:
        url: of the database.
        schema: whose tables are read.
    """

    driver = "asyncpg"

    def __init__(self, url: DatabaseURL, schema: str) -> None:
        self.url = url
        self.schema = schema
        self.place = f"{url}, schema {schema}"

    def ask(self, questions: dict[str, str]) -> dict[str, list[Any]]:
        """Run SELECTs: name -> rows."""

        async def work(connection: "Connection") -> dict[str, list[Any]]:
            return {name: await connection.fetch(sql) for name, sql in questions.items()}

        return self._connected(work)

    def copy(self) -> dict[str, Any]:
        """COPY the tables into a schema of their own, in one transaction: rows and seconds. The schema is dropped."""
        schema = f"{self.schema}_raw"

        async def work(connection: "Connection") -> dict[str, Any]:
            await connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}")
            for table in TABLES:
                await connection.execute(f"CREATE TABLE {schema}.{table} (LIKE {table} INCLUDING ALL)")
            tables = {table: await connection.fetch(f"SELECT * FROM {table}") for table in TABLES}
            start = perf_counter()
            async with connection.transaction():
                for table, rows in tables.items():
                    await connection.copy_records_to_table(table, schema_name=schema, records=rows)
            seconds = perf_counter() - start
            await connection.execute(f"DROP SCHEMA {schema} CASCADE")
            return {"rows": sum(len(rows) for rows in tables.values()), "seconds": seconds}

        return self._connected(work)

    def _connected(self, work: "Callable[[Connection], Awaitable[T]]") -> T:
        import asyncpg  # only who has PostgreSQL needs it

        async def main() -> T:
            connection = await asyncpg.connect(
                f"postgresql://?{urlencode(self.url.query)}" if self.url.query else None,
                host=self.url.host,
                port=self.url.port,
                user=self.url.user,
                password=self.url.password,
                database=self.url.path or None,
                server_settings={"search_path": self.schema},
            )
            try:
                return await work(connection)
            finally:
                await connection.close()

        return asyncio.run(main())
