"""Tortoise ORM: objects for one row, ``values()`` for many, which is what is faster each time.

On SQLite, where it writes instants in another form, it has its own table; on PostgreSQL (asyncpg), DataFlow's.
"""

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import sqlalchemy as sa
from tortoise import Tortoise, fields
from tortoise.models import Model

from benchmarks._frameworks import POOL, Framework, record
from benchmarks.databases import PostgresBench, SQLiteBench


class _Reading(Model):
    id = fields.IntField(primary_key=True)
    n = fields.IntField(db_index=True)
    code = fields.CharField(max_length=255, unique=True)  # its TextField cannot be indexed
    label = fields.TextField()
    value = fields.FloatField()
    flag = fields.BooleanField()
    at = fields.DatetimeField()
    data: Any = fields.JSONField()
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now=True)

    class Meta:
        abstract = True


class Own(_Reading):
    """A reading in a table of Tortoise's."""

    class Meta:
        app, table = "own", "tortoise_readings"


class Shared(_Reading):
    """A reading in DataFlow's table."""

    class Meta:
        app, table = "shared", "readings"


class Objects:
    """Objects and query sets."""

    def __init__(self, model: type[Own | Shared]) -> None:
        self.model = model
        self.table = model._meta.db_table  # noqa: SLF001

    async def read(self, key: int) -> dict[str, Any]:
        return record(await self.model.get(id=key))

    async def update(self, key: int, label: str) -> dict[str, Any]:
        reading = await self.model.get(id=key)
        reading.label = label
        await reading.save(update_fields=["label", "updated_at"])
        return record(reading)

    async def create(self, row: dict[str, Any]) -> dict[str, Any]:
        return record(await self.model.create(**row))

    async def many(self, low: int, high: int) -> list[dict[str, Any]]:
        return await self.model.filter(n__gte=low, n__lt=high).order_by("id").values()

    async def bulk(self, data: list[dict[str, Any]]) -> int:
        await self.model.bulk_create([self.model(**row) for row in data])
        return len(data)


@contextlib.asynccontextmanager
async def _opened(
    model: type[Own | Shared], backend: str, credentials: dict[str, Any]
) -> AsyncGenerator[dict[str, Framework], None]:
    connection = {"engine": f"tortoise.backends.{backend}", "credentials": credentials}
    app = {"models": [__name__], "default_connection": "default"}  # of the module's models, those of this app
    config = {"connections": {"default": connection}, "apps": {model._meta.app: app}}  # noqa: SLF001
    await Tortoise.init(config, use_tz=True, timezone="UTC")
    try:
        yield {"Tortoise": Objects(model)}
    finally:
        await Tortoise.close_connections()


@contextlib.asynccontextmanager
async def sqlite(bench: SQLiteBench) -> AsyncGenerator[dict[str, Framework], None]:
    """Open Tortoise on the file, and make its table."""
    pragmas = {"journal_mode": "WAL", "synchronous": "NORMAL", "foreign_keys": "ON", "busy_timeout": 5000}
    usual = {"journal_size_limit": -1}  # Tortoise's own, 16 kB, has each checkpoint cut the file
    async with _opened(Own, "sqlite", {"file_path": bench.path, **pragmas, **usual}) as sides:
        await Tortoise.generate_schemas()
        yield sides


@contextlib.asynccontextmanager
async def postgres(bench: PostgresBench) -> AsyncGenerator[dict[str, Framework], None]:
    """Open Tortoise on the database."""
    url = sa.make_url(bench.url)
    place = {"host": url.host, "port": url.port or 5432, "database": url.database}
    credentials = {**place, "user": url.username, "password": url.password, "minsize": POOL, "maxsize": POOL}
    async with _opened(Shared, "asyncpg", credentials) as sides:
        yield sides
