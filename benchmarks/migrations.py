"""What migrations cost: reading and comparing large schemas, plans, the lock, large tables, and the look at first use.

A schema of 1,000 tables with 2,000 foreign keys, read by DataFlow and by SQLAlchemy's reflection; a table of a million
rows that gets columns and an index while another process writes to it.
"""

import json
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import asyncpg

from benchmarks import databases
from benchmarks.harness import Contest, Target, case
from dataflow import DataFlow
from dataflow.dialect import Program
from dataflow.migrations.diff import changes
from dataflow.migrations.planning import Planner
from dataflow.migrations.target import target

TABLES, CHANGES, ROWS, MODELS = 1_000, 100, 1_000_000, 100
_MS = "ms"
_LOCK_TIMEOUT = 2.0


def _table(number: int, kind: int | None) -> str:
    """Write a table with two foreign keys to tables before it (the first ones refer to themselves).

    Args:
        number: of the table.
        kind: 0: it has one more column; 1: one less; 2: one may be NULL.
    """
    far = [max(number - 1, 0), number // 2]
    keys = [f"CONSTRAINT t{number}_k{k} FOREIGN KEY (r{k}) REFERENCES t{to} (id)" for k, to in enumerate(far)]
    columns = [
        "id bigint NOT NULL PRIMARY KEY",
        f"name text{'' if kind == 2 else ' NOT NULL'}",
        "size bigint DEFAULT 0",
    ]
    columns += [] if kind == 1 else ["note text"]
    columns += ["r0 bigint", "r1 bigint", *(["extra text"] if kind == 0 else [])]
    table = f"CREATE TABLE t{number} ({', '.join(columns + keys)})"
    return f"{table}; CREATE INDEX t{number}_name ON t{number} (name)"


SCHEMA = "; ".join(_table(number, None) for number in range(TABLES))
CHANGED = "; ".join(
    _table(number, number // 7 % 3 if number % 7 == 0 and number < CHANGES * 7 else None) for number in range(TABLES)
)
"""The same with a change in each of a hundred tables."""


async def _run(db: DataFlow, program: Callable[[], Program[Any]]) -> Any:
    return await db.core.run(program(), db.core.own_call(), write=True, holder="benchmark")


def _nothing() -> Program[None]:
    yield from ()


# -- large schemas ----------------------------------------------------------------------------------------------------
def _reflection(url: str) -> Callable[[], int]:
    """Read the schema with SQLAlchemy."""
    import sqlalchemy as sa

    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))

    def reflect() -> int:
        metadata = sa.MetaData()
        metadata.reflect(engine)
        return len(metadata.tables)

    return reflect


async def _schemas(db: DataFlow, after: DataFlow, url: str, what: str) -> AsyncGenerator[Contest, None]:
    editor = db.core.schema_engine.editor
    found = await _run(db, editor.inspect)
    wanted = await _run(after, after.core.schema_engine.editor.inspect)
    planner: Planner = db.core.schema_engine.planner
    loose = db.core.dialect.references_ahead

    async def inspected() -> int:
        return len((await _run(db, editor.inspect)).tables)

    async def compared() -> int:
        return len(changes(await _run(db, editor.inspect), wanted, loose=loose))

    def planned() -> int:
        merged, _ = target(found, wanted, {}, drop=[f"t{number * 7}.note" for number in range(CHANGES)])
        some = changes(found, merged, loose=loose)
        return len(planner.steps(found, merged, some))

    one = {"calls": 1, "rounds": 5}
    size = f"{TABLES:,} tables, {2 * TABLES:,} foreign keys"
    yield Contest(
        {"metadata.reflect": _reflection(url), "dataflow": inspected}, name=f"{what}: introspection, {size}",
        note="SQLAlchemy's MetaData.reflect", **one,
    )  # fmt: skip
    yield Contest(
        {"dataflow": compared}, Target(value=500, unit=_MS), per=1000, name=f"{what}: introspection and diff, {size}",
        note=f"the live schema is read and compared with one that differs by {CHANGES}", **one,
    )  # fmt: skip
    yield Contest(
        {"dataflow": planned}, Target(value=100, unit=_MS), per=1000, name=f"{what}: plan of {CHANGES} changes",
        note="both schemas are read already: what shall be, differences, steps with locks and risk", **one,
    )  # fmt: skip
    yield _lock(db, f"{what}: lock, acquired and released, {size}", Target(unit=_MS), calls=3)


def _lock(db: DataFlow, name: str, most: Target, calls: int = 50) -> Contest:
    editor = db.core.schema_engine.editor

    async def locked() -> None:
        await _run(db, lambda: editor.locked(_nothing(), timeout=1))

    note = "nobody else migrates; SQLite checks all foreign keys before and after"
    return Contest({"dataflow": locked}, most, per=1000, calls=calls, rounds=7, name=name, note=note)


@case("migrations/sqlite/schemas")
async def sqlite_schemas() -> AsyncGenerator[Contest, None]:
    """A large schema in a SQLite file."""
    import sqlite3

    with tempfile.TemporaryDirectory() as folder:
        urls = []
        for number, sql in enumerate((SCHEMA, CHANGED)):
            raw = sqlite3.connect(f"{folder}/{number}.db")
            raw.executescript(f"BEGIN; {sql}; COMMIT")
            raw.close()
            urls.append(f"sqlite:///{folder}/{number}.db")
        async with DataFlow(urls[0]) as db, DataFlow(urls[1]) as after:
            async for contest in _schemas(db, after, urls[0], "SQLite"):
                yield contest


@case("migrations/postgresql/schemas")
async def postgres_schemas() -> AsyncGenerator[Contest, None]:
    """A large schema in a PostgreSQL database."""
    urls = []
    for sql in (SCHEMA, CHANGED):
        urls.append(databases.new_database())
        raw = await asyncpg.connect(urls[-1])
        await raw.execute(sql)
        await raw.execute("VACUUM ANALYZE pg_class, pg_attribute, pg_constraint, pg_index, pg_depend")
        await raw.close()
    async with DataFlow(urls[0]) as db, DataFlow(urls[1]) as after:
        async for contest in _schemas(db, after, urls[0], "PostgreSQL"):
            yield contest


# -- large tables -----------------------------------------------------------------------------------------------------
_WRITER = """
import asyncio, json, sqlite3, sys, threading
from time import perf_counter

url = sys.argv[1]
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
taken = []

async def postgres():
    import asyncpg
    raw = await asyncpg.connect(url)
    while not over.is_set():
        start = perf_counter()
        await raw.execute("INSERT INTO events (name, size) VALUES ('new', 1)")
        await raw.execute("UPDATE events SET size = size + 1 WHERE id = $1", len(taken) % 1000 + 1)
        taken.append(perf_counter() - start)

def sqlite():
    raw = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=600, isolation_level=None)
    raw.execute("PRAGMA synchronous = NORMAL")
    while not over.is_set():
        start = perf_counter()
        raw.execute("INSERT INTO events (name, size) VALUES ('new', 1)")
        raw.execute("UPDATE events SET size = size + 1 WHERE id = ?", [len(taken) % 1000 + 1])
        taken.append(perf_counter() - start)

print("ready", flush=True)
sqlite() if url.startswith("sqlite") else asyncio.run(postgres())
print(json.dumps(taken))
"""


def _events(db: DataFlow, *, later: bool) -> None:
    annotations: dict[str, Any] = {"name": str, "size": int}
    body: dict[str, Any] = {"__annotations__": annotations, "__dataflow__": {"timestamps": False}}
    if later:
        annotations |= {"note": str | None, "stars": int, "kind": str}
        body |= {"stars": 3, "kind": "plain", "__indexes__": [{"name": "events_name", "fields": ["name", "size"]}]}
    db.model(type("Event", (), body))


async def _million(url: str, fill: Callable[[], Awaitable[None]], file: Callable[[], Awaitable[Any]]) -> dict[str, Any]:
    """Migrate a table of a million rows while another process writes to it; return what was measured."""
    async with DataFlow(url) as db:
        _events(db, later=False)
        await db.initialize()
    await fill()
    before = await file()
    writer = subprocess.Popen(  # noqa: ASYNC220  # nothing else runs meanwhile
        [sys.executable, "-c", textwrap.dedent(_WRITER), url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    async with DataFlow(url, migration_lock_timeout=_LOCK_TIMEOUT) as db:
        _events(db, later=True)
        start = perf_counter()
        await db.initialize()
        taken = perf_counter() - start
    told = json.loads(writer.communicate("")[0])
    return {"seconds": taken, "longest": max(told), "writes": len(told), "rewritten": before != await file()}


def _measured(found: Mapping[str, Any], what: str, most: float | None) -> list[Contest]:
    note = f"three columns and an index; {found['writes']:,} writes meanwhile; rewritten: {found['rewritten']}"
    one: dict[str, Any] = {"reported": True, "rounds": 1, "note": note}
    return [
        Contest(
            {"dataflow": lambda: found["seconds"] * 1000}, Target(unit=_MS),
            name=f"{what}: additive migration of {ROWS:,} rows", **one,
        ),
        Contest(
            {"dataflow": lambda: found["longest"] * 1000}, Target(value=most, unit=_MS),
            name=f"{what}: longest write meanwhile", **one,
        ),
    ]  # fmt: skip


@case("migrations/postgresql/rows")
async def postgres_rows() -> AsyncGenerator[Contest, None]:
    """A large table in PostgreSQL."""
    url = databases.new_database()
    raw = await asyncpg.connect(url)

    async def fill() -> None:
        await raw.execute(
            f"INSERT INTO events (name, size) SELECT 'event ' || n, n FROM generate_series(1, {ROWS}) AS n"  # noqa: S608
        )
        await raw.execute("VACUUM ANALYZE events")

    found = await _million(url, fill, lambda: raw.fetchval("SELECT relfilenode FROM pg_class WHERE relname = 'events'"))
    await raw.close()
    for contest in _measured(found, "PostgreSQL", _LOCK_TIMEOUT * 1000):
        yield contest


@case("migrations/sqlite/rows")
async def sqlite_rows() -> AsyncGenerator[Contest, None]:
    """A large table in SQLite."""
    import sqlite3

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/rows.db"

        async def fill() -> None:
            raw = sqlite3.connect(path)
            numbers = f"WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})"  # noqa: S608
            raw.execute(f"{numbers} INSERT INTO events (name, size) SELECT 'event ' || i, i FROM n")  # noqa: S608
            raw.commit()
            raw.close()

        async def file() -> Any:
            raw = sqlite3.connect(path)
            (page,) = raw.execute("SELECT rootpage FROM sqlite_master WHERE name = 'events'").fetchone()
            raw.close()
            return page

        for contest in _measured(await _million(f"sqlite:///{path}", fill, file), "SQLite", None):
            yield contest


# -- first use --------------------------------------------------------------------------------------------------------
def _many(db: DataFlow) -> None:
    for number in range(MODELS):
        index = [{"name": f"ix_{number}", "fields": ["name"]}]
        fields = {"name": str, "size": int, "price": float, "note": str | None}
        db.model(type(f"Model{number}", (), {"__annotations__": fields, "__indexes__": index}))


async def _starts(url: str, what: str) -> AsyncGenerator[Contest, None]:
    def start(**settings: Any) -> Callable[[], Awaitable[float]]:
        async def started() -> float:
            async with DataFlow(url, **settings) as db:
                _many(db)
                await _run(db, _nothing)  # connected
                begin = perf_counter()
                await db.initialize()
                return (perf_counter() - begin) * 1e6 / MODELS

        return started

    await start()()
    async with DataFlow(url) as db:
        yield _lock(db, f"{what}: lock, acquired and released", Target(value=10, unit=_MS))
    yield Contest(
        {"core alone": start(disable=["migrations"]), "dataflow": start()}, Target(), reported=True, rounds=9,
        name=f"{what}: look at first use, per model", note=f"{MODELS} models with an index each; nothing has changed",
    )  # fmt: skip


@case("migrations/sqlite/look")
async def sqlite_look() -> AsyncGenerator[Contest, None]:
    """First use of a SQLite file that is as the models say."""
    with tempfile.TemporaryDirectory() as folder:
        async for contest in _starts(f"sqlite:///{Path(folder) / 'look.db'}", "SQLite"):
            yield contest


@case("migrations/postgresql/look")
async def postgres_look() -> AsyncGenerator[Contest, None]:
    """First use of a PostgreSQL database that is as the models say."""
    async for contest in _starts(databases.new_database(), "PostgreSQL"):
        yield contest
