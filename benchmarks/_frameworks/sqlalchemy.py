"""SQLAlchemy's asyncio extension: Core and ORM, on DataFlow's own table.

Core is there twice: as it is by default, with a transaction around each piece of work, and with the driver's
autocommit, which is what the bare driver and DataFlow use where one statement is all there is.
"""

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite as sqlite_types
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from benchmarks._frameworks import AUTOCOMMIT, POOL, Framework, now, record
from benchmarks.databases import PostgresBench, SQLiteBench, pragmas

_WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_DATAFLOWS = "%(year)04d-%(month)02d-%(day)02dT%(hour)02d:%(minute)02d:%(second)02d.%(microsecond)06d+00:00"
_INSTANT = sa.DateTime(timezone=True).with_variant(sqlite_types.DATETIME(storage_format=_DATAFLOWS), "sqlite")

READINGS = sa.Table(
    "readings",
    sa.MetaData(),
    sa.Column("id", _WHOLE, primary_key=True),
    sa.Column("n", _WHOLE),
    sa.Column("code", sa.Text),
    sa.Column("label", sa.Text),
    sa.Column("value", sa.Double),
    sa.Column("flag", sa.Boolean),
    sa.Column("at", _INSTANT),
    sa.Column("data", sa.JSON().with_variant(postgresql.JSONB(), "postgresql")),
    sa.Column("created_at", _INSTANT, default=now),
    sa.Column("updated_at", _INSTANT, default=now, onupdate=now),
)


class _Base(DeclarativeBase):
    pass


class Reading(_Base):
    """A row as an object."""

    __table__ = READINGS


# Statements are built once, which spares SQLAlchemy a third of what a short one takes.
_READ = sa.select(READINGS).where(READINGS.c.id == sa.bindparam("key"))
_MANY = (
    sa.select(READINGS)
    .where(READINGS.c.n >= sa.bindparam("low"), READINGS.c.n < sa.bindparam("high"))
    .order_by(READINGS.c.id)
)


class Core:
    """Statements on connections of the engine."""

    table = "readings"
    create_one = sa.insert(READINGS).returning(*READINGS.c)
    create_many = sa.insert(READINGS)
    update_one = (
        sa.update(READINGS)
        .where(READINGS.c.id == sa.bindparam("key"))
        .values(label=sa.bindparam("text"))
        .returning(*READINGS.c)
    )

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    async def read(self, key: int) -> dict[str, Any]:
        async with self.engine.connect() as connection:
            return dict((await connection.execute(_READ, {"key": key})).mappings().one())

    async def update(self, key: int, label: str) -> dict[str, Any]:
        async with self.engine.begin() as connection:
            return dict((await connection.execute(self.update_one, {"key": key, "text": label})).mappings().one())

    async def create(self, row: dict[str, Any]) -> dict[str, Any]:
        async with self.engine.begin() as connection:
            return dict((await connection.execute(self.create_one, row)).mappings().one())

    async def many(self, low: int, high: int) -> list[dict[str, Any]]:
        async with self.engine.connect() as connection:
            found = await connection.execute(_MANY, {"low": low, "high": high})
            names = tuple(found.keys())
            return [dict(zip(names, row, strict=True)) for row in found]  # faster than mappings()

    async def bulk(self, data: list[dict[str, Any]]) -> int:
        async with self.engine.begin() as connection:
            await connection.execute(self.create_many, data)
        return len(data)


class ORM:
    """Objects of sessions."""

    table = "readings"
    read_many = sa.select(Reading).from_statement(_MANY)
    update_one = (
        sa.update(Reading)
        .where(Reading.id == sa.bindparam("key"))
        .values(label=sa.bindparam("text"))
        .returning(Reading)
        .execution_options(synchronize_session=False)  # the session is empty
    )
    create_many = sa.insert(Reading)

    def __init__(self, engine: AsyncEngine) -> None:
        self.session = async_sessionmaker(engine, expire_on_commit=False)

    async def read(self, key: int) -> dict[str, Any]:
        async with self.session() as session:
            return record(await session.get_one(Reading, key))

    async def update(self, key: int, label: str) -> dict[str, Any]:
        async with self.session.begin() as session:
            return record((await session.scalars(self.update_one, {"key": key, "text": label})).one())

    async def create(self, row: dict[str, Any]) -> dict[str, Any]:
        async with self.session.begin() as session:
            reading = Reading(**row)
            session.add(reading)
        return record(reading)

    async def many(self, low: int, high: int) -> list[dict[str, Any]]:
        async with self.session() as session:
            found = await session.scalars(self.read_many, {"low": low, "high": high})
            return [record(reading) for reading in found]

    async def bulk(self, data: list[dict[str, Any]]) -> int:
        async with self.session.begin() as session:
            await session.execute(self.create_many, data)
        return len(data)


@contextlib.asynccontextmanager
async def _opened(url: str) -> AsyncGenerator[dict[str, Framework], None]:
    engine = create_async_engine(url, pool_size=POOL, max_overflow=0)
    autocommit = create_async_engine(
        url, pool_size=POOL, max_overflow=0, isolation_level="AUTOCOMMIT", skip_autocommit_rollback=True
    )
    if engine.dialect.name == "sqlite":
        for each in (engine, autocommit):
            sa.event.listen(each.sync_engine, "connect", lambda connection, _: pragmas(connection.cursor()))
    try:
        yield {"SQLAlchemy Core": Core(engine), AUTOCOMMIT: Core(autocommit), "SQLAlchemy ORM": ORM(engine)}
    finally:
        await engine.dispose()
        await autocommit.dispose()


def sqlite(bench: SQLiteBench) -> contextlib.AbstractAsyncContextManager[dict[str, Framework]]:
    """Open SQLAlchemy on the file."""
    return _opened(bench.url.replace("sqlite:", "sqlite+aiosqlite:", 1))


def postgres(bench: PostgresBench) -> contextlib.AbstractAsyncContextManager[dict[str, Framework]]:
    """Open SQLAlchemy on the database, through asyncpg."""
    return _opened(bench.url.replace("postgresql:", "postgresql+asyncpg:", 1))
