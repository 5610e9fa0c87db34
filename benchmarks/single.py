"""One operation at a time, and ten in one workflow: express, the runtimes, and the driver by hand."""

import asyncio
from collections.abc import AsyncGenerator
from itertools import count
from typing import Any

from benchmarks import rows
from benchmarks.databases import ROWS, PostgresBench, SQLiteBench, now, postgres_bench, sqlite_bench
from benchmarks.harness import Contest, Target, case
from dataflow import DataFlow
from dataflow.runtime import AsyncLocalRuntime, LocalRuntime
from dataflow.workflow import Workflow, WorkflowBuilder

_ALL = ", ".join(f'"{name}"' for name in rows.READING)
_NEW = ", ".join(f'"{name}"' for name in rows.READING[1:])


def one_node(db: DataFlow, kind: str, params: dict[str, Any]) -> Workflow:
    """Return a workflow of a single node."""
    return WorkflowBuilder(db).add_node(kind, "it", params).build()


def ten_nodes(db: DataFlow, key: int) -> Workflow:
    """Return ten reads, each of the record that the one before found."""
    workflow = WorkflowBuilder(db).add_node("ReadingReadNode", "n0", {"id": key})
    for i in range(1, 10):
        workflow.add_node("ReadingReadNode", f"n{i}").add_connection(f"n{i - 1}", "id", f"n{i}", "id")
    return workflow.build()


class _Keys:
    """Keys all over the table, the same for every side."""

    def __init__(self) -> None:
        self.at = count()

    def __call__(self) -> int:
        return next(self.at) * 7919 % ROWS + 1


# -- SQLite -----------------------------------------------------------------------------------------------------------
class SQLiteHand:
    """What one writes by hand with aiosqlite, one hop an operation."""

    def __init__(self, bench: SQLiteBench) -> None:
        self.aio = bench.aio
        self.select = f"SELECT {_ALL} FROM readings WHERE id = ?"  # noqa: S608
        self.insert = f"INSERT INTO readings ({_NEW}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING {_ALL}"  # noqa: S608
        self.change = f"UPDATE readings SET label = ?, updated_at = ? WHERE id = ? RETURNING {_ALL}"  # noqa: S608

    async def read(self, key: int) -> dict[str, Any]:
        found = await self.aio.execute_fetchall(self.select, (key,))
        return rows.sqlite_reading(next(iter(found)))  # type: ignore[arg-type]

    async def create(self, row: dict[str, Any]) -> dict[str, Any]:
        found = await self.aio.execute_fetchall(self.insert, rows.sqlite_tuple(row, rows.text_of(now())))
        return rows.sqlite_reading(next(iter(found)))  # type: ignore[arg-type]

    async def update(self, key: int, label: str) -> dict[str, Any]:
        found = await self.aio.execute_fetchall(self.change, (label, rows.text_of(now()), key))
        return rows.sqlite_reading(next(iter(found)))  # type: ignore[arg-type]


@case("sqlite/one")
async def sqlite_one() -> AsyncGenerator[Contest, None]:
    """One operation through express and through a one-node workflow."""
    async with sqlite_bench() as bench:
        hand, db = SQLiteHand(bench), bench.db
        runtime, keys = LocalRuntime(), _Keys()
        note = "aiosqlite, one hop, same decoded dict"

        async def read_driver() -> Any:
            return await hand.read(keys())

        async def read_express() -> Any:
            return await db.express.read("Reading", keys())

        async def fixed_driver() -> Any:
            return await hand.read(4321)

        workflow = one_node(db, "ReadingReadNode", {"id": 4321})

        def workflow_sync() -> Any:
            return runtime.execute(workflow)[0]["it"]

        async def workflow_async() -> Any:
            return (await AsyncLocalRuntime().execute_async(workflow))[0]["it"]

        def express_sync() -> Any:
            return db.express_sync.read("Reading", 4321)

        yield Contest(
            {"aiosqlite": read_driver, "dataflow": read_express},
            Target(most=1.3), same=None, calls=1000, name="sqlite: express.read", note=note,
        )  # fmt: skip
        for name, side, target in (
            ("sqlite: express_sync.read", express_sync, Target()),
            ("sqlite: one-node workflow, LocalRuntime", workflow_sync, Target(most=1.2)),
            ("sqlite: one-node workflow, AsyncLocalRuntime", workflow_async, Target()),
        ):
            yield Contest(
                {"aiosqlite": fixed_driver, "dataflow": side},
                target,
                same=rows.settled,
                calls=1000,
                name=name,
                note=note,
            )

        async def update_driver() -> Any:
            return await hand.update(77, "changed")

        async def update_express() -> Any:
            return await db.express.update("Reading", 77, {"label": "changed"})

        yield Contest(
            {"aiosqlite": update_driver, "dataflow": update_express},
            Target(most=1.3), same=rows.settled, calls=1000, name="sqlite: express.update", note=note,
        )  # fmt: skip
        numbers = count(ROWS)

        async def create_driver() -> Any:
            return await hand.create(rows.reading(next(numbers)))

        async def create_express() -> Any:
            return await db.express.create("Reading", rows.reading(next(numbers)))

        yield Contest(
            {"aiosqlite": create_driver, "dataflow": create_express},
            Target(most=1.3), same=None, calls=500, name="sqlite: express.create", note=note,
        )  # fmt: skip


@case("sqlite/ten")
async def sqlite_ten() -> AsyncGenerator[Contest, None]:
    """Ten connected reads in one workflow."""
    async with sqlite_bench() as bench:
        hand, workflow, runtime = SQLiteHand(bench), ten_nodes(bench.db, 4321), LocalRuntime()

        async def driver() -> Any:
            key = 4321
            for _ in range(10):
                record = await hand.read(key)
                key = record["id"]
            return record

        async def in_async() -> Any:
            return (await AsyncLocalRuntime().execute_async(workflow))[0]["n9"]

        def in_sync() -> Any:
            return runtime.execute(workflow)[0]["n9"]

        note = "ten aiosqlite calls, one hop each"
        yield Contest(
            {"aiosqlite": driver, "dataflow": in_async}, Target(most=0.45), same=rows.settled, per=10, calls=200,
            name="sqlite: ten connected nodes, AsyncLocalRuntime", note=note,
        )  # fmt: skip
        yield Contest(
            {"aiosqlite": driver, "dataflow": in_sync}, Target(most=0.45), same=rows.settled, per=10, calls=200,
            name="sqlite: ten connected nodes, LocalRuntime", note=note,
        )  # fmt: skip


# -- PostgreSQL -------------------------------------------------------------------------------------------------------
class PostgresHand:
    """What one writes by hand with asyncpg."""

    def __init__(self, bench: PostgresBench) -> None:
        self.pool = bench.pool
        self.held = bench.held
        self.select = f"SELECT {_ALL} FROM readings WHERE id = $1"  # noqa: S608
        self.change = f"UPDATE readings SET label = $1, updated_at = $2 WHERE id = $3 RETURNING {_ALL}"  # noqa: S608
        self.insert = f"INSERT INTO readings ({_NEW}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING {_ALL}"  # noqa: S608
        self.prepared: Any = None

    async def prepare(self) -> None:
        self.prepared = await self.held.prepare(self.select)

    async def read_held(self, key: int) -> dict[str, Any]:
        return rows.postgres_record(await self.prepared.fetchrow(key))

    async def read_pooled(self, key: int) -> dict[str, Any]:
        async with self.pool.acquire() as connection:
            return rows.postgres_record(await connection.fetchrow(self.select, key))

    async def update_pooled(self, key: int, label: str) -> dict[str, Any]:
        async with self.pool.acquire() as connection:
            return rows.postgres_record(await connection.fetchrow(self.change, label, now(), key))

    async def create_pooled(self, row: dict[str, Any]) -> dict[str, Any]:
        async with self.pool.acquire() as connection:
            return rows.postgres_record(await connection.fetchrow(self.insert, *rows.postgres_tuple(row, now())))


@case("postgresql/one")
async def postgres_one() -> AsyncGenerator[Contest, None]:
    """One operation on a held connection, and with one of the pool."""
    async with postgres_bench() as bench:
        hand, db, keys = PostgresHand(bench), bench.db, _Keys()
        await hand.prepare()
        note = "asyncpg, prepared fetchrow on a held connection, same decoded dict"

        core = db.core
        bound = core.model("Reading")
        reading = bound.operation("read")

        async def held_driver() -> Any:
            return await hand.read_held(4321)

        from dataflow.session import Call

        session = await core.database.lease(write=False, holder="benchmark")

        async def held_dataflow() -> Any:
            call = Call(core)
            call.session = session
            return await session.run(reading.program({"_id": 4321}, call))

        try:
            yield Contest(
                {"asyncpg": held_driver, "dataflow": held_dataflow}, Target(most=1.25), same=rows.settled, calls=1000,
                name="postgresql: read on a held connection", note=note,
            )  # fmt: skip
        finally:
            await session.release()

        pooled = "asyncpg's pool: acquire, fetchrow, decode"

        async def read_driver() -> Any:
            return await hand.read_pooled(keys())

        async def read_express() -> Any:
            return await db.express.read("Reading", keys())

        yield Contest(
            {"asyncpg pool": read_driver, "dataflow": read_express}, Target(most=0.6), same=None, calls=1000,
            name="postgresql: express.read", note=pooled,
        )  # fmt: skip

        async def update_driver() -> Any:
            return await hand.update_pooled(77, "changed")

        async def update_express() -> Any:
            return await db.express.update("Reading", 77, {"label": "changed"})

        yield Contest(
            {"asyncpg pool": update_driver, "dataflow": update_express}, Target(), same=rows.settled, calls=200,
            name="postgresql: express.update", note=pooled,
        )  # fmt: skip
        numbers = count(ROWS)

        async def create_driver() -> Any:
            return await hand.create_pooled(rows.reading(next(numbers)))

        async def create_express() -> Any:
            return await db.express.create("Reading", rows.reading(next(numbers)))

        yield Contest(
            {"asyncpg pool": create_driver, "dataflow": create_express}, Target(), same=None, calls=200,
            name="postgresql: express.create", note=pooled,
        )  # fmt: skip


@case("postgresql/ten")
async def postgres_ten() -> AsyncGenerator[Contest, None]:
    """Ten connected reads in one workflow."""
    async with postgres_bench() as bench:
        hand, workflow, runtime = PostgresHand(bench), ten_nodes(bench.db, 4321), AsyncLocalRuntime()
        await hand.prepare()

        async def driver() -> Any:
            key = 4321
            for _ in range(10):
                record = await hand.read_held(key)
                key = record["id"]
            return record

        async def dataflow() -> Any:
            return (await runtime.execute_async(workflow))[0]["n9"]

        yield Contest(
            {"asyncpg": driver, "dataflow": dataflow}, Target(most=1.15), same=rows.settled, per=10, calls=100,
            name="postgresql: ten connected nodes", note="ten prepared fetchrow calls on a held connection",
        )  # fmt: skip


@case("postgresql/concurrent")
async def postgres_concurrent() -> AsyncGenerator[Contest, None]:
    """Sixteen tasks that read at once."""
    async with postgres_bench(pool_size=16, pool_max_overflow=0) as bench:
        hand, db, keys = PostgresHand(bench), bench.db, _Keys()

        async def many(one: Any) -> None:
            for _ in range(20):
                await one(keys())

        async def driver() -> Any:
            await asyncio.gather(*[many(hand.read_pooled) for _ in range(16)])

        async def read(key: int) -> Any:
            return await db.express.read("Reading", key)

        async def dataflow() -> Any:
            await asyncio.gather(*[many(read) for _ in range(16)])

        yield Contest(
            {"asyncpg pool": driver, "dataflow": dataflow}, Target(least=1.6), same=None, per=320, calls=5,
            name="postgresql: 16 tasks read at once", note="asyncpg's pool of 16",
        )  # fmt: skip
