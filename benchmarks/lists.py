"""Lists of 10 and of 1,000 rows of 8 columns, decoded to dicts: JSON, instants and Decimals among them."""

from collections.abc import AsyncGenerator
from typing import Any

from benchmarks import rows
from benchmarks.databases import postgres_bench, sqlite_bench
from benchmarks.harness import Contest, Target, case

_COLUMNS = ", ".join(f'"{name}"' for name in rows.ITEM)
SIZES = (10, 1000)


def _records(found: Any) -> Any:
    return [rows.settled(record) for record in (found["records"] if isinstance(found, dict) else found)]


@case("sqlite/list")
async def sqlite_list() -> AsyncGenerator[Contest, None]:
    """A list by a range of the key, through express."""
    async with sqlite_bench(20_000) as bench:
        sql = f"SELECT {_COLUMNS} FROM items WHERE id >= ? ORDER BY id LIMIT ?"  # noqa: S608
        for size in SIZES:

            async def driver(size: int = size) -> Any:
                return [rows.sqlite_item(row) for row in await bench.aio.execute_fetchall(sql, (5000, size))]  # type: ignore[arg-type]

            async def dataflow(size: int = size) -> Any:
                return await bench.db.express.list("Item", {"id": {"$gte": 5000}}, limit=size)

            yield Contest(
                {"aiosqlite": driver, "dataflow": dataflow}, Target(most=1.3), same=_records, calls=max(1, 3000 // size),
                name=f"sqlite: list of {size:,}", note="aiosqlite, one hop, decoded by hand",
            )  # fmt: skip


@case("postgresql/list")
async def postgres_list() -> AsyncGenerator[Contest, None]:
    """The same on PostgreSQL; both sides take a connection of their pool."""
    async with postgres_bench(20_000) as bench:
        sql = f"SELECT {_COLUMNS} FROM items WHERE id >= $1 ORDER BY id LIMIT $2"  # noqa: S608
        for size in SIZES:

            async def driver(size: int = size) -> Any:
                return [rows.postgres_record(row) for row in await bench.held.fetch(sql, 5000, size)]

            async def dataflow(size: int = size) -> Any:
                return await bench.db.express.list("Item", {"id": {"$gte": 5000}}, limit=size)

            yield Contest(
                {"asyncpg": driver, "dataflow": dataflow}, Target(most=1.3), same=_records, calls=max(1, 2000 // size),
                name=f"postgresql: list of {size:,}", note="asyncpg on a held connection, decoded by hand",
            )  # fmt: skip
