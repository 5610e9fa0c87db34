"""Django's async methods. They run in a thread that holds the one connection, and ends with the case.

On SQLite, where it writes instants in another form, it has its own table; on PostgreSQL (psycopg), DataFlow's. Its
settings are made once per process, its database for each case.
"""

import contextlib
from collections.abc import AsyncGenerator
from typing import Any, ClassVar

import django
import sqlalchemy as sa
from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.conf import settings
from django.db import connections, models

from benchmarks._frameworks import Framework, record
from benchmarks.databases import PostgresBench, SQLiteBench

if not settings.configured:
    settings.configure(USE_TZ=True, TIME_ZONE="UTC")
    django.setup()


class _Reading(models.Model):
    id = models.BigAutoField(primary_key=True)
    n = models.BigIntegerField(db_index=True)
    code = models.TextField(unique=True)
    label = models.TextField()
    value = models.FloatField()
    flag = models.BooleanField()
    at = models.DateTimeField()
    data = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    objects: ClassVar[Any]

    class Meta:
        abstract = True


class Own(_Reading):  # noqa: DJ008
    """A reading in a table of Django's."""

    class Meta:
        app_label, db_table = "benchmarks", "django_readings"


class Shared(_Reading):  # noqa: DJ008
    """A reading in DataFlow's table."""

    class Meta:
        app_label, db_table = "benchmarks", "readings"


class Objects:
    """Objects to write, and the dicts of ``values()`` to read."""

    def __init__(self, model: type[_Reading]) -> None:
        self.model = model
        self.table = model._meta.db_table  # noqa: SLF001

    async def read(self, key: int) -> dict[str, Any]:
        return await self.model.objects.values().aget(id=key)

    async def update(self, key: int, label: str) -> dict[str, Any]:
        reading = await self.model.objects.aget(id=key)
        reading.label = label
        await reading.asave(update_fields=["label", "updated_at"])  # faster than aupdate(), and reading it back
        return record(reading)

    async def create(self, row: dict[str, Any]) -> dict[str, Any]:
        return record(await self.model.objects.acreate(**row))

    async def many(self, low: int, high: int) -> list[dict[str, Any]]:
        query = self.model.objects.filter(n__gte=low, n__lt=high).order_by("id")
        return [found async for found in query.values()]

    async def bulk(self, data: list[dict[str, Any]]) -> int:
        return len(await self.model.objects.abulk_create([self.model(**row) for row in data]))


@contextlib.asynccontextmanager
async def _opened(model: type[_Reading], database: dict[str, Any]) -> AsyncGenerator[dict[str, Framework], None]:
    connections.settings = connections.configure_settings({"default": database})
    async with ThreadSensitiveContext():
        try:
            yield {"Django": Objects(model)}
        finally:
            await sync_to_async(connections.close_all)()


def _make_table() -> None:
    with connections["default"].schema_editor() as editor:
        editor.create_model(Own)


@contextlib.asynccontextmanager
async def sqlite(bench: SQLiteBench) -> AsyncGenerator[dict[str, Framework], None]:
    """Open Django on the file, and make its table."""
    options = {"init_command": "PRAGMA synchronous = NORMAL"}  # Django sets foreign_keys itself
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": bench.path, "OPTIONS": options}
    async with _opened(Own, database) as sides:
        await sync_to_async(_make_table)()
        yield sides


@contextlib.asynccontextmanager
async def postgres(bench: PostgresBench) -> AsyncGenerator[dict[str, Framework], None]:
    """Open Django on the database, through psycopg."""
    url = sa.make_url(bench.url)
    place = {"HOST": url.host, "PORT": url.port or 5432, "NAME": url.database}
    database = {"ENGINE": "django.db.backends.postgresql", **place, "USER": url.username, "PASSWORD": url.password}
    async with _opened(Shared, database) as sides:
        yield sides
