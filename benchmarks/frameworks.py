"""The same work in the bare driver, in DataFlow, and in the frameworks one might use instead, if they are installed.

Each side has its own connections with the same settings, and the same rows: in DataFlow's table, or, where a framework
writes instants in another form, in a table of its own in the same file. The results of all sides are compared.
"""

import contextlib
import importlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from datetime import datetime
from importlib.util import find_spec
from itertools import count
from typing import Any

from benchmarks import rows
from benchmarks._frameworks import AUTOCOMMIT, POOL, Framework
from benchmarks.databases import postgres_bench, sqlite_bench
from benchmarks.harness import Contest, Side, case

ROWS, LOW, HIGH = 20_000, 100, 150
"""Rows of each table, and the values of `n` that 1,000 of them have."""
_NEEDS = {
    "driver": (),
    "dataflow": (),
    "sqlalchemy": ("greenlet",),  # SQLAlchemy itself is there, but not always what its asyncio extension runs on
    "tortoise": ("tortoise",),
    "piccolo": ("piccolo",),
    "django": ("django", "psycopg"),
}
"""Module -> the packages that it cannot be imported without. The reference is the first."""


async def _open(stack: contextlib.AsyncExitStack, kind: str, bench: Any) -> dict[str, Framework]:
    """Return all sides by name, open until the stack is closed."""
    sides: dict[str, Framework] = {}
    for name, packages in _NEEDS.items():
        if all(find_spec(package) for package in packages):
            module = importlib.import_module(f"benchmarks._frameworks.{name}")
            sides |= await stack.enter_async_context(getattr(module, kind)(bench))
    return sides


# -- results ----------------------------------------------------------------------------------------------------------
def _record(found: dict[str, Any]) -> dict[str, Any]:
    """Return what has to be the same, having seen that the rest is of the right type."""
    assert isinstance(found["id"], int)
    assert isinstance(found["flag"], bool)  # 1 == True
    assert isinstance(found["created_at"], datetime)
    assert isinstance(found["updated_at"], datetime)
    return rows.settled(found)


def _created(found: dict[str, Any]) -> dict[str, Any]:
    assert found["code"].startswith("new-")
    return {**_record(found), "code": None}  # unique, so that no two sides have the same


def _records(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [_record(record) for record in found]


# -- work -------------------------------------------------------------------------------------------------------------
def _reads(side: Framework) -> Side:
    numbers = count()

    async def read() -> Any:
        return await side.read(next(numbers) * 7919 % ROWS + 1)

    return read


def _updates(side: Framework) -> Side:
    numbers = count()

    async def update() -> Any:
        return await side.update(next(numbers) * 7919 % ROWS + 1, "changed")

    return update


def _creates(side: Framework, numbers: Iterator[int]) -> Side:
    row = rows.reading(ROWS)

    async def create() -> Any:
        return await side.create({**row, "code": f"new-{next(numbers)}"})

    return create


def _lists(side: Framework) -> Side:
    async def many() -> Any:
        return await side.many(LOW, HIGH)

    return many


def _bulks(side: Framework, data: list[dict[str, Any]]) -> Side:
    async def bulk() -> Any:
        return await side.bulk(data)

    return bulk


def _contests(
    kind: str, sides: Mapping[str, Framework], data: list[dict[str, Any]], clear: Callable[[], Awaitable[None]]
) -> Iterator[Contest]:
    fresh = count()
    yield Contest(
        {name: _reads(side) for name, side in sides.items()}, calls=60, rounds=5, same=_record,
        name=f"{kind}: frameworks, read one", note=f"by hand, decoded dict. {_NOTES[kind]}",
    )  # fmt: skip
    yield Contest(
        {name: _updates(side) for name, side in sides.items()}, calls=40, rounds=5, same=_record,
        name=f"{kind}: frameworks, update one",
        note="UPDATE … RETURNING by hand. Tortoise and Django have none: they read the row, then save it.",
    )  # fmt: skip
    yield Contest(
        {name: _creates(side, fresh) for name, side in sides.items()}, calls=40, rounds=5, same=_created,
        name=f"{kind}: frameworks, create one",
        note="INSERT … RETURNING by hand. ORMs return the object that they were given, with its new key.",
    )  # fmt: skip
    yield Contest(
        {name: _lists(side) for name, side in sides.items()}, per=1000, calls=3, rounds=5, same=_records,
        name=f"{kind}: frameworks, list of 1,000", note="by hand, decoded dicts. Microseconds per row.",
    )  # fmt: skip
    how = {"sqlite": "executemany", "postgresql": "COPY"}[kind]
    yield Contest(
        {name: _bulks(side, data) for name, side in sides.items() if name != AUTOCOMMIT},
        per=ROWS, calls=1, rounds=3, before=clear, name=f"{kind}: frameworks, bulk create of 20,000",
        note=f"{how} by hand, one transaction. Microseconds per row.",
    )  # fmt: skip


_NOTES = {
    "sqlite": "Piccolo opens a connection for each query. Django: async methods, in a thread.",
    "postgresql": "Pools of 10; Django: async methods, in a thread with one connection (psycopg).",
}


async def _check_bulk(
    sides: Mapping[str, Framework], data: list[dict[str, Any]], clear: Callable[[], Awaitable[None]]
) -> None:
    """See that what each side creates in bulk is what it was given: more than one batch of any framework."""
    data = data[:3000]
    wanted = [row for row in data if LOW <= row["n"] < HIGH]
    for name, side in sides.items():
        if name != AUTOCOMMIT:
            await clear()
            await side.bulk(data)
            assert _records(await side.many(LOW, HIGH)) == wanted, name


@case("frameworks/sqlite")
async def sqlite() -> AsyncGenerator[Contest, None]:
    """Frameworks on SQLite."""
    async with sqlite_bench(ROWS) as bench, contextlib.AsyncExitStack() as stack:
        sides = await _open(stack, "sqlite", bench)
        data, own = [rows.reading(i) for i in range(ROWS)], {side.table for side in sides.values()} - {"readings"}
        for side in sides.values():
            if side.table in own:
                await side.bulk(data)
        bench.raw.execute("ANALYZE")

        async def clear() -> None:
            for table in own:
                bench.raw.execute(f"DELETE FROM {table}")  # noqa: S608
            await bench.clear()

        for contest in _contests("sqlite", sides, data, clear):
            yield contest
        await _check_bulk(sides, data, clear)


@case("frameworks/postgresql")
async def postgres() -> AsyncGenerator[Contest, None]:
    """Frameworks on PostgreSQL."""
    data = [rows.reading(i) for i in range(ROWS)]
    async with (
        postgres_bench(ROWS, pool_size=POOL, pool_max_overflow=0) as bench,
        contextlib.AsyncExitStack() as stack,
    ):
        sides = await _open(stack, "postgres", bench)
        for contest in _contests("postgresql", sides, data, bench.clear):
            yield contest
        await _check_bulk(sides, data, bench.clear)
