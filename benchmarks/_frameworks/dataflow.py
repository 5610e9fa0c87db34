"""DataFlow through `db.express`."""

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from benchmarks._frameworks import Framework
from benchmarks.databases import PostgresBench, SQLiteBench
from dataflow import DataFlow


class Express:
    """Direct calls."""

    table = "readings"

    def __init__(self, db: DataFlow) -> None:
        self.express = db.express

    async def read(self, key: int) -> dict[str, Any]:
        return await self.express.read("Reading", key)

    async def update(self, key: int, label: str) -> dict[str, Any]:
        return await self.express.update("Reading", key, {"label": label})

    async def create(self, row: dict[str, Any]) -> dict[str, Any]:
        return await self.express.create("Reading", row)

    async def many(self, low: int, high: int) -> list[dict[str, Any]]:
        found = await self.express.list("Reading", {"n": {"$gte": low, "$lt": high}}, sort=["id"], limit=None)
        return found["records"]

    async def bulk(self, data: list[dict[str, Any]]) -> int:
        return (await self.express.bulk_create("Reading", data))["created"]


@contextlib.asynccontextmanager
async def sqlite(bench: SQLiteBench) -> AsyncGenerator[dict[str, Framework], None]:
    """Use the benchmark's own DataFlow."""
    yield {"dataflow": Express(bench.db)}


@contextlib.asynccontextmanager
async def postgres(bench: PostgresBench) -> AsyncGenerator[dict[str, Framework], None]:
    """Use the benchmark's own DataFlow."""
    yield {"dataflow": Express(bench.db)}
