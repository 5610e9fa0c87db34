"""The reference: what one writes by hand with aiosqlite (one hop an operation) and with asyncpg's own pool."""

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from benchmarks import rows
from benchmarks._frameworks import Framework, now
from benchmarks.databases import PostgresBench, SQLiteBench
from benchmarks.single import PostgresHand, SQLiteHand

_ALL = ", ".join(f'"{name}"' for name in rows.READING)
_NEW = rows.READING[1:]


class SQLite(SQLiteHand):
    """By hand with aiosqlite."""

    table = "readings"
    select_many = f"SELECT {_ALL} FROM readings WHERE n >= ? AND n < ? ORDER BY id"  # noqa: S608
    insert_many = f"INSERT INTO readings ({', '.join(_NEW)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608

    async def many(self, low: int, high: int) -> list[dict[str, Any]]:
        found = await self.aio.execute_fetchall(self.select_many, (low, high))
        return [rows.sqlite_reading(row) for row in found]  # type: ignore[arg-type]

    async def bulk(self, data: list[dict[str, Any]]) -> int:
        def work() -> None:
            raw, stamp = self.aio._conn, rows.text_of(now())  # noqa: SLF001
            raw.execute("BEGIN IMMEDIATE")
            raw.executemany(self.insert_many, [rows.sqlite_tuple(row, stamp) for row in data])
            raw.execute("COMMIT")

        await self.aio._execute(work)  # type: ignore[no-untyped-call]  # noqa: SLF001
        return len(data)


class Postgres(PostgresHand):
    """By hand with asyncpg."""

    table = "readings"
    select_many = f"SELECT {_ALL} FROM readings WHERE n >= $1 AND n < $2 ORDER BY id"  # noqa: S608

    async def read(self, key: int) -> dict[str, Any]:
        return await self.read_pooled(key)

    async def update(self, key: int, label: str) -> dict[str, Any]:
        return await self.update_pooled(key, label)

    async def create(self, row: dict[str, Any]) -> dict[str, Any]:
        return await self.create_pooled(row)

    async def many(self, low: int, high: int) -> list[dict[str, Any]]:
        async with self.pool.acquire() as connection:
            return [rows.postgres_record(row) for row in await connection.fetch(self.select_many, low, high)]

    async def bulk(self, data: list[dict[str, Any]]) -> int:
        stamp = now()
        records = [rows.postgres_tuple(row, stamp) for row in data]
        async with self.pool.acquire() as connection:
            await connection.copy_records_to_table("readings", records=records, columns=_NEW)
        return len(data)


@contextlib.asynccontextmanager
async def sqlite(bench: SQLiteBench) -> AsyncGenerator[dict[str, Framework], None]:
    """Use the benchmark's own connection."""
    yield {"aiosqlite": SQLite(bench)}


@contextlib.asynccontextmanager
async def postgres(bench: PostgresBench) -> AsyncGenerator[dict[str, Framework], None]:
    """Use the benchmark's own pool."""
    yield {"asyncpg pool": Postgres(bench)}
