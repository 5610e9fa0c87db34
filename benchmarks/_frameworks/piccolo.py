"""Piccolo, whose queries return dicts.

On SQLite, where it writes instants in another form, it has its own table, and no pool: outside transactions, each query
opens a connection and closes it. On PostgreSQL (asyncpg) it has DataFlow's table.
"""

import contextlib
import sqlite3
from collections.abc import AsyncGenerator
from typing import Any

from piccolo.columns import JSON, JSONB, BigInt, Boolean, DoublePrecision, Serial, Text, Timestamptz
from piccolo.engine.postgres import PostgresEngine
from piccolo.engine.sqlite import CONVERTERS, SQLiteEngine
from piccolo.table import Table
from piccolo.utils.encoding import load_json

from benchmarks._frameworks import POOL, Framework, now
from benchmarks.databases import PostgresBench, SQLiteBench

_BATCH = 1000
"""Rows of a multi-row insert; parameters are limited."""
_OWN = {name: sqlite3.converters.pop(name) for name in CONVERTERS}
"""Piccolo's converters. They are global, and would have Django read each integer by way of Decimal."""


class _Connection(sqlite3.Connection):
    """A connection with the settings that all sides have; Piccolo sets foreign_keys itself."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute("PRAGMA synchronous = NORMAL")


class _SQLiteEngine(SQLiteEngine):
    """Piccolo's engine, whose converters are there while it runs a query, and only then."""

    async def run_querystring(self, *args: Any, **kwargs: Any) -> Any:
        sqlite3.converters.update(_OWN)
        try:
            return await super().run_querystring(*args, **kwargs)
        finally:
            for name in _OWN:
                del sqlite3.converters[name]


def _mapped(name: str, engine: SQLiteEngine | PostgresEngine, document: type[JSON]) -> type[Table]:
    class Reading(Table, tablename=name, db=engine):
        id = Serial(primary_key=True)
        n = BigInt(index=True)
        code = Text(unique=True)
        label = Text()
        value = DoublePrecision()
        flag = Boolean()
        at = Timestamptz()
        data = document()
        created_at = Timestamptz()
        updated_at = Timestamptz(auto_update=now)

    return Reading


class Tables:
    """Queries; dicts are what they return."""

    def __init__(self, mapped: Any) -> None:
        self.mapped = mapped
        self.table = mapped._meta.tablename  # noqa: SLF001

    async def read(self, key: int) -> dict[str, Any]:
        return await self.mapped.select().where(self.mapped.id == key).first().output(load_json=True)

    async def update(self, key: int, label: str) -> dict[str, Any]:
        query = self.mapped.update({self.mapped.label: label}).where(self.mapped.id == key)
        found = (await query.returning(*self.mapped.all_columns()))[0]
        found["data"] = load_json(found["data"])  # update() has no output(load_json=True)
        return found

    async def create(self, row: dict[str, Any]) -> dict[str, Any]:
        reading = self.mapped(**row)
        await reading.save()
        return reading.to_dict()

    async def many(self, low: int, high: int) -> list[dict[str, Any]]:
        query = self.mapped.select().where((self.mapped.n >= low) & (self.mapped.n < high))
        return await query.order_by(self.mapped.id).output(load_json=True)

    async def bulk(self, data: list[dict[str, Any]]) -> int:
        async with self.mapped._meta.db.transaction():  # noqa: SLF001
            for start in range(0, len(data), _BATCH):
                await self.mapped.insert(*[self.mapped(**row) for row in data[start : start + _BATCH]])
        return len(data)


@contextlib.asynccontextmanager
async def sqlite(bench: SQLiteBench) -> AsyncGenerator[dict[str, Framework], None]:
    """Open Piccolo on the file, and make its table."""
    mapped = _mapped("piccolo_readings", _SQLiteEngine(bench.path, factory=_Connection), JSON)
    await mapped.create_table()
    yield {"Piccolo": Tables(mapped)}


@contextlib.asynccontextmanager
async def postgres(bench: PostgresBench) -> AsyncGenerator[dict[str, Framework], None]:
    """Open Piccolo's pool on the database."""
    engine = PostgresEngine({"dsn": bench.url})
    await engine.start_connection_pool(min_size=POOL, max_size=POOL)
    try:
        yield {"Piccolo": Tables(_mapped("readings", engine, JSONB))}
    finally:
        await engine.close_connection_pool()
