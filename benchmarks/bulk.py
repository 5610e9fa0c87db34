"""Many rows at once: created, upserted, changed and removed, beside the best that one writes by hand.

Each side gets the same list of dicts, and begins with the same table.
"""

import itertools
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

from benchmarks import rows
from benchmarks.databases import PostgresBench, SQLiteBench, now, postgres_bench, sqlite_bench
from benchmarks.harness import Contest, Target, case

MANY, HALF = 100_000, 50_000
_NEW = rows.READING[1:]
_COLUMNS = ", ".join(f'"{name}"' for name in _NEW)
_SET = ", ".join(
    f'"{name}" = excluded."{name}"' for name in ("n", "label", "value", "flag", "at", "data", "updated_at")
)


def _refreshed() -> list[dict[str, Any]]:
    """Return 50,000 rows with a key: every second is there already."""
    return [{**rows.reading(2 * i), "label": f"upserted {i}"} for i in range(HALF)]


def _sum(what: str) -> str:
    return f"SELECT count(*), sum(n), sum(length(label)), sum(value) FROM readings WHERE {what}"  # noqa: S608


# -- SQLite -----------------------------------------------------------------------------------------------------------
async def _in_one_hop(bench: SQLiteBench, work: Callable[[], Any]) -> Any:
    def job() -> Any:
        raw = bench.aio._conn  # noqa: SLF001
        raw.execute("BEGIN IMMEDIATE")
        found = work()
        raw.execute("COMMIT")
        return found

    return await bench.aio._execute(job)  # type: ignore[no-untyped-call]  # noqa: SLF001


@case("sqlite/bulk")
async def sqlite_bulk() -> AsyncGenerator[Contest, None]:
    """Bulk operations on SQLite."""
    data, half = [rows.reading(i) for i in range(MANY)], [rows.reading(i) for i in range(HALF)]
    async with sqlite_bench(0) as bench:
        express, marks = bench.db.express, ", ".join("?" * len(_NEW))
        insert = f"INSERT INTO readings ({_COLUMNS}) VALUES ({marks})"  # noqa: S608

        def raw() -> Any:
            return bench.aio._conn  # noqa: SLF001

        def seen(_found: Any) -> Any:
            return bench.raw.execute(_sum("true")).fetchone()

        def encoded(given: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
            stamp = rows.text_of(now())
            return [rows.sqlite_tuple(row, stamp) for row in given]

        async def create_driver() -> Any:
            return await _in_one_hop(bench, lambda: raw().executemany(insert, encoded(data)))

        async def create() -> Any:
            return await express.bulk_create("Reading", data)

        yield Contest(
            {"aiosqlite": create_driver, "dataflow": create}, Target(least=1.5), per=MANY, calls=1, rounds=5,
            before=bench.clear, same=seen, name="sqlite: bulk_create 100,000 × 10", note="executemany + json.dumps, one transaction",
        )  # fmt: skip

        async def ids_driver() -> Any:
            def work() -> Any:
                tuples, found = encoded(half), []
                for start in range(0, HALF, 500):
                    part = tuples[start : start + 500]
                    many = (
                        f"INSERT INTO readings ({_COLUMNS}) VALUES {', '.join([f'({marks})'] * len(part))} RETURNING id"  # noqa: S608
                    )
                    found += raw().execute(many, list(itertools.chain.from_iterable(part))).fetchall()
                return [row[0] for row in found]

            return await _in_one_hop(bench, work)

        async def ids() -> Any:
            return (await express.bulk_create("Reading", half, return_ids=True))["ids"]

        yield Contest(
            {"aiosqlite": ids_driver, "dataflow": ids}, Target(least=0.85), per=HALF, calls=1, rounds=5,
            before=bench.clear, same=lambda found: [key - found[0] for key in found],
            name="sqlite: bulk_create 50,000, return_ids", note="multi-row VALUES … RETURNING id by hand, json.dumps",
        )  # fmt: skip
        fresh = _refreshed()

        async def filled() -> None:
            await bench.clear()
            await express.bulk_create("Reading", half)

        async def upsert_driver() -> Any:
            def work() -> Any:
                tuples = encoded(fresh)
                for start in range(0, HALF, 500):
                    part = tuples[start : start + 500]
                    many = (
                        f"INSERT INTO readings ({_COLUMNS}) VALUES {', '.join([f'({marks})'] * len(part))} "  # noqa: S608
                        f"ON CONFLICT (code) DO UPDATE SET {_SET}"
                    )
                    raw().execute(many, list(itertools.chain.from_iterable(part)))

            return await _in_one_hop(bench, work)

        async def upsert() -> Any:
            return await express.bulk_upsert("Reading", fresh, key_fields=["code"])

        yield Contest(
            {"aiosqlite": upsert_driver, "dataflow": upsert}, Target(least=0.85), per=HALF, calls=1, rounds=5,
            before=filled, same=seen, name="sqlite: bulk_upsert 50,000", note="multi-row VALUES … ON CONFLICT by hand, json.dumps",
        )  # fmt: skip

        await filled()
        first = bench.raw.execute("SELECT min(id) FROM readings").fetchone()[0]
        changes = [{"id": first + i, "label": f"changed {i}", "value": i / 2} for i in range(HALF)]

        async def update_driver() -> Any:
            def work() -> Any:
                stamp = rows.text_of(now())
                sql = "UPDATE readings SET label = ?, value = ?, updated_at = ? WHERE id = ?"
                raw().executemany(sql, [(row["label"], row["value"], stamp, row["id"]) for row in changes])

            return await _in_one_hop(bench, work)

        async def update() -> Any:
            return await express.bulk_update("Reading", data=changes)

        yield Contest(
            {"aiosqlite": update_driver, "dataflow": update}, Target(least=0.85), per=HALF, calls=1, rounds=5,
            same=seen, name="sqlite: bulk_update 50,000 by key", note="executemany in one transaction",
        )  # fmt: skip

        async def filter_driver() -> Any:
            sql = "UPDATE readings SET label = ?, updated_at = ? WHERE n >= ?"
            return await _in_one_hop(bench, lambda: raw().execute(sql, ("all", rows.text_of(now()), 0)))

        async def by_filter() -> Any:
            return await express.bulk_update("Reading", filter={"n": {"$gte": 0}}, update={"label": "all"})

        yield Contest(
            {"aiosqlite": filter_driver, "dataflow": by_filter}, Target(least=0.95), per=HALF, calls=1, rounds=7,
            same=seen, name="sqlite: bulk_update 50,000 by filter", note="the one statement",
        )  # fmt: skip

        async def delete_driver() -> Any:
            return await _in_one_hop(bench, lambda: raw().execute("DELETE FROM readings WHERE n >= ?", (0,)))

        async def delete() -> Any:
            return await express.bulk_delete("Reading", filter={"n": {"$gte": 0}})

        yield Contest(
            {"aiosqlite": delete_driver, "dataflow": delete}, Target(least=0.95), per=HALF, calls=1, rounds=5,
            before=filled, same=seen, name="sqlite: bulk_delete 50,000 by filter", note="the one statement",
        )  # fmt: skip


# -- PostgreSQL -------------------------------------------------------------------------------------------------------
@case("postgresql/bulk")
async def postgres_bulk() -> AsyncGenerator[Contest, None]:
    """Bulk operations on PostgreSQL."""
    data, half = [rows.reading(i) for i in range(MANY)], [rows.reading(i) for i in range(HALF)]
    async with postgres_bench(0) as bench:
        express, held = bench.db.express, bench.held

        def encoded(given: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
            stamp = now()
            return [rows.postgres_tuple(row, stamp) for row in given]

        async def create_driver() -> Any:
            await held.copy_records_to_table("readings", records=encoded(data), columns=_NEW)

        async def create() -> Any:
            await express.bulk_create("Reading", data)

        yield Contest(
            {"asyncpg": create_driver, "dataflow": create}, Target(least=0.9), per=MANY, calls=1, rounds=5,
            before=bench.clear, name="postgresql: bulk_create 100,000 × 10", note="COPY + json.dumps",
        )  # fmt: skip
        await _expect(bench, data)

        async def ids_driver() -> Any:
            reserve = "SELECT nextval('readings_id_seq') FROM generate_series(1, $1)"
            numbers = [row[0] for row in await held.fetch(reserve, HALF)]
            records = [(number, *row) for number, row in zip(numbers, encoded(half), strict=True)]
            await held.copy_records_to_table("readings", records=records, columns=("id", *_NEW))
            return numbers

        async def ids() -> Any:
            return (await express.bulk_create("Reading", half, return_ids=True))["ids"]

        yield Contest(
            {"asyncpg": ids_driver, "dataflow": ids}, Target(least=0.85), per=HALF, calls=1, rounds=5,
            before=bench.clear, same=lambda found: [key - found[0] for key in found],
            name="postgresql: bulk_create 50,000, return_ids", note="ids from the sequence, then COPY; json.dumps",
        )  # fmt: skip
        fresh = _refreshed()

        async def filled() -> None:
            await bench.clear()
            await express.bulk_create("Reading", half)

        async def upsert_driver() -> Any:
            async with held.transaction():
                await held.execute(
                    "CREATE TEMP TABLE incoming (n bigint, code text, label text, value float8, flag boolean, at timestamptz,"
                    " data jsonb, created_at timestamptz, updated_at timestamptz) ON COMMIT DROP"
                )
                await held.copy_records_to_table("incoming", records=encoded(fresh), columns=_NEW)
                await held.execute(
                    f"INSERT INTO readings ({_COLUMNS}) SELECT {_COLUMNS} FROM incoming ON CONFLICT (code) DO UPDATE SET {_SET}"  # noqa: S608
                )

        async def upsert() -> Any:
            await express.bulk_upsert("Reading", fresh, key_fields=["code"])

        yield Contest(
            {"asyncpg": upsert_driver, "dataflow": upsert}, Target(least=0.85), per=HALF, calls=1, rounds=5,
            before=filled, name="postgresql: bulk_upsert 50,000",
            note="COPY to a temporary table, INSERT … ON CONFLICT; json.dumps",
        )  # fmt: skip
        await filled()
        first = await held.fetchval("SELECT min(id) FROM readings")
        changes = [{"id": first + i, "label": f"changed {i}", "value": i / 2} for i in range(HALF)]

        async def update_driver() -> Any:
            sql = (
                "UPDATE readings SET label = new.label, value = new.value, updated_at = $4 "
                "FROM unnest($1::bigint[], $2::text[], $3::float8[]) AS new(id, label, value) WHERE readings.id = new.id"
            )
            columns = [[row[name] for row in changes] for name in ("id", "label", "value")]
            await held.execute(sql, *columns, now())

        async def update() -> Any:
            await express.bulk_update("Reading", data=changes)

        async def vacuumed() -> None:
            await held.execute("VACUUM readings")

        yield Contest(
            {"asyncpg": update_driver, "dataflow": update}, Target(least=0.85), per=HALF, calls=1, rounds=5,
            before=vacuumed, name="postgresql: bulk_update 50,000 by key", note="UPDATE … FROM unnest",
        )  # fmt: skip

        async def filter_driver() -> Any:
            sql = "UPDATE readings SET label = $1, updated_at = $2 WHERE n >= $3"
            await held.execute(sql, "all", now(), 0)

        async def by_filter() -> Any:
            await express.bulk_update("Reading", filter={"n": {"$gte": 0}}, update={"label": "all"})

        yield Contest(
            {"asyncpg": filter_driver, "dataflow": by_filter}, Target(least=0.95), per=HALF, calls=1, rounds=7,
            before=vacuumed, name="postgresql: bulk_update 50,000 by filter", note="the one statement",
        )  # fmt: skip

        async def delete_driver() -> Any:
            await held.execute("DELETE FROM readings WHERE n >= $1", 0)

        async def delete() -> Any:
            await express.bulk_delete("Reading", filter={"n": {"$gte": 0}})

        yield Contest(
            {"asyncpg": delete_driver, "dataflow": delete}, Target(least=0.95), per=HALF, calls=1, rounds=5,
            before=filled, name="postgresql: bulk_delete 50,000 by filter", note="the one statement",
        )  # fmt: skip


async def _expect(bench: PostgresBench, data: list[dict[str, Any]]) -> None:
    """Check what the last call of a contest left in the table."""
    found = tuple(await bench.held.fetchrow(_sum("true")))
    wanted = (
        len(data),
        sum(row["n"] for row in data),
        sum(len(row["label"]) for row in data),
        sum(row["value"] for row in data),
    )
    if found != wanted:
        msg = f"the table holds {found}, not {wanted}"
        raise AssertionError(msg)
    documents = await bench.held.fetch("SELECT data FROM readings ORDER BY n, code LIMIT 1")
    assert json.loads(documents[0]["data"]) == data[0]["data"]
