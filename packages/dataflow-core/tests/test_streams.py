"""Rows out of iterators, and lists read page by page: bounded memory, one transaction, the same on both databases."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from dataflow import BaseDataFlowNode
from dataflow.errors import InputError, UniqueError, WorkflowExecutionError
from dataflow.plan.bulk_create import AT_ONCE
from dataflow.runtime import AsyncLocalRuntime
from dataflow.workflow import WorkflowBuilder

MANY = AT_ONCE * 2 + 345


@pytest.fixture
def desk(bench: Any) -> Any:
    @bench.db.model
    class Row:
        n: int
        note: str | None = None
        __dataflow__ = {"timestamps": False}  # noqa: RUF012
        __indexes__ = [  # noqa: RUF012
            {"name": "uq_rows_n", "fields": ["n"], "unique": True},
            {"name": "ix_rows_note", "fields": ["note"]},
        ]

    return bench


def rows(count: int = MANY, **faults: Any) -> Iterator[dict[str, Any]]:
    for n in range(count):
        yield faults.get(f"at_{n}", {"n": n})


async def later(source: Iterator[Any]) -> AsyncIterator[Any]:
    for number, row in enumerate(source):
        if number % 5000 == 0:
            await asyncio.sleep(0)
        yield row


async def count(desk: Any) -> int:
    return int((await desk.db.express.count("Row"))["count"])


async def create(desk: Any, way: str, source: Iterator[Any], **options: Any) -> Any:
    """Hand rows over as a list, an iterator or an async iterator."""
    data = {"list": list, "iterator": iter, "async iterator": later}[way](source)
    return await desk.db.express.bulk_create("Row", data, **options)


WAYS = pytest.mark.parametrize("way", ["list", "iterator", "async iterator"])


@WAYS
async def test_rows_may_come_at_once_or_bit_by_bit(desk: Any, way: str) -> None:
    made = await create(desk, way, rows(), return_ids=True)
    assert (made["created"], made["skipped"], made["total"]) == (MANY, 0, MANY)
    assert made["ids"] == list(range(1, MANY + 1))
    assert await count(desk) == MANY
    assert (await desk.db.express.read("Row", MANY))["n"] == MANY - 1


@WAYS
async def test_nothing_to_create_is_no_fault(desk: Any, way: str) -> None:
    assert await create(desk, way, iter(())) == {"created": 0, "updated": 0, "skipped": 0, "total": 0}


@WAYS
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"n": "x"}, f"row {MANY - 3}: n: expected int, got str"),
        ({"n": 1, "nope": 2}, f"row {MANY - 3}: model Row has no field 'nope'"),
        (7, f"row {MANY - 3} is not a dict but int"),
    ],
)
async def test_a_bad_row_is_named_by_its_place_and_nothing_is_written(
    desk: Any, way: str, fault: Any, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        await create(desk, way, rows(**{f"at_{MANY - 3}": fault}))
    assert caught.value.message == message
    assert await count(desk) == 0
    await create(desk, way, rows(5))  # and the connection is as good as before
    assert await count(desk) == 5


@WAYS
async def test_a_row_that_the_database_refuses_is_named_by_its_place(desk: Any, way: str) -> None:
    with pytest.raises(UniqueError) as caught:
        await create(desk, way, rows(**{f"at_{MANY - 3}": {"n": 5}}))
    assert caught.value.message == f"row {MANY - 3}: a record with that n exists already"
    assert await count(desk) == 0


@WAYS
async def test_what_commit_every_has_committed_stays(desk: Any, way: str) -> None:
    with pytest.raises(InputError, match=f"commit_every=5000: {AT_ONCE * 2} rows were committed before"):
        await create(desk, way, rows(**{f"at_{MANY - 3}": {"n": "x"}}), commit_every=5000)
    assert await count(desk) == AT_ONCE * 2


@WAYS
@pytest.mark.parametrize("options", [{"conflict_resolution": "skip"}, {"on_error": "collect"}])
async def test_rows_are_skipped_across_all_parts(desk: Any, way: str, options: Any) -> None:
    faults = {f"at_{place}": {"n": 5} for place in (8, AT_ONCE + 8, MANY - 1)}
    made = await create(desk, way, rows(**faults), **options)
    assert (made["created"], made["skipped"], made["total"]) == (MANY - 3, 3, MANY)
    assert [error["row"] for error in made.get("errors", [])] in ([], [8, AT_ONCE + 8, MANY - 1])
    assert await count(desk) == MANY - 3


@WAYS
async def test_an_iterator_that_fails_undoes_what_came_before(desk: Any, way: str) -> None:
    def failing() -> Iterator[Any]:
        yield from rows(AT_ONCE + 10)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await create(desk, way, failing())
    assert await count(desk) == 0


async def test_an_async_iterator_that_is_cancelled_undoes_what_came_before(desk: Any) -> None:
    reached = asyncio.Event()

    async def endless() -> AsyncIterator[Any]:
        for row in rows(AT_ONCE + 10):
            yield row
        reached.set()
        await asyncio.sleep(600)

    task = asyncio.create_task(desk.db.express.bulk_create("Row", endless()))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await count(desk) == 0
    assert (await create(desk, "iterator", rows(3)))["created"] == 3


async def test_an_async_iterator_of_an_upsert_is_refused_before_it_is_read(desk: Any) -> None:
    async def unread() -> AsyncIterator[Any]:
        pytest.fail("it was read")
        yield {}

    with pytest.raises(InputError, match="needs all its rows at once"):
        await desk.db.express.bulk_create("Row", unread(), conflict_resolution="upsert")


async def test_a_synchronous_call_says_that_it_takes_no_async_iterator(desk: Any) -> None:
    with pytest.raises(InputError, match="data takes a list of dicts, got async_generator"):
        desk.db.express_sync.bulk_create("Row", later(rows(1)))


@pytest.mark.parametrize("fails", [False, True])
async def test_an_async_iterator_inside_a_transaction_belongs_to_it(desk: Any, fails: bool) -> None:
    @desk.db.register_node
    class Load(BaseDataFlowNode):
        async def execute(self, input_data: Any) -> Any:  # type: ignore[override]
            made = await self.db.express.bulk_create("Row", later(rows(AT_ONCE + 1)))
            with pytest.raises(InputError, match=f"row {AT_ONCE + 1}: n: expected int"):
                await self.db.express.bulk_create(
                    "Row", later({"n": -1 - n} if n <= AT_ONCE else {"n": "x"} for n in range(AT_ONCE + 2))
                )
            inside = await self.db.express.count("Row")
            if fails:
                raise ZeroDivisionError
            return {"created": made["created"], "inside": inside["count"]}

    workflow = WorkflowBuilder(desk.db).add_node("TransactionScopeNode", "scope")
    workflow.add_node("RowCreateNode", "one", {"n": 1_000_000}).add_connection("scope", "result", "one", "input")
    workflow.add_node("Load", "load").add_connection("one", "result", "load", "input")
    run = AsyncLocalRuntime().execute_async(workflow.build())
    if fails:
        with pytest.raises(WorkflowExecutionError):
            await run
        assert await count(desk) == 0
        return
    results, _ = await run
    assert results["load"] == {"created": AT_ONCE + 1, "inside": AT_ONCE + 2}
    assert await count(desk) == AT_ONCE + 2


async def test_a_million_rows_need_no_more_memory_than_a_part(desk: Any) -> None:
    """100,000 rows here; as a list of dicts they would take about 25 MB."""
    await create(desk, "iterator", rows(1))
    await desk.db.express.bulk_delete("Row", filter={}, confirmed=True)
    tracemalloc.start()
    try:
        made = await create(desk, "async iterator", rows(100_000))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert made["created"] == 100_000
    assert most < 12 * 2**20


# -- reading ----------------------------------------------------------------------------------------------------------
async def read(desk: Any, way: str, *args: Any, **options: Any) -> list[dict[str, Any]]:
    if way == "async":
        return [record async for record in desk.db.express.stream("Row", *args, **options)]
    return list(desk.db.express_sync.stream("Row", *args, **options))


@pytest.mark.parametrize("way", ["async", "sync"])
@pytest.mark.parametrize("size", [1, 7, 30, 1000])
async def test_a_stream_is_the_list(desk: Any, way: str, size: int) -> None:
    notes = ["b", None, "a"]
    await desk.db.express.bulk_create("Row", [{"n": n, "note": notes[n % 3]} for n in range(30)])
    for sort in (None, "-n", ["note"], ["-note"], ["note", "-n"], ["-note", "n"]):
        for filters in ({}, {"n": {"$gte": 11}}, {"note": None}, {"n": -1}):
            options = {} if sort is None else {"sort": sort}
            wanted = (await desk.db.express.list("Row", filters, **options))["records"]
            assert await read(desk, way, filters, batch_size=size, **options) == wanted
    assert [set(record) for record in await read(desk, way, fields=["note"], sort="n", batch_size=size)] == [
        {"note"}
    ] * 30


@pytest.mark.parametrize("option", ["limit", "offset", "cursor", "count_only", "include_total"])
def test_a_stream_refuses_what_means_a_page(desk: Any, option: str) -> None:
    for calls in (desk.db.express, desk.db.express_sync):
        with pytest.raises(InputError, match=f"so it takes no {option}"):
            calls.stream("Row", **{option: 1})


@pytest.mark.parametrize("size", [0, -1, "7", True, None])
def test_a_stream_refuses_a_size_that_is_none(desk: Any, size: Any) -> None:
    with pytest.raises(InputError, match="batch_size takes a whole number of at least 1"):
        desk.db.express_sync.stream("Row", batch_size=size)


async def test_a_stream_holds_no_connection_between_its_pages(desk: Any) -> None:
    await desk.db.express.bulk_create("Row", [{"n": n} for n in range(10)])
    seen = []
    async for record in desk.db.express.stream("Row", batch_size=3):
        seen.append(record["n"])
        await desk.db.express.update("Row", record["id"], {"note": "seen"})
    assert seen == list(range(10))
    assert (await desk.db.express.count("Row", {"note": "seen"}))["count"] == 10


@pytest.mark.parametrize("sort", [["note"], ["-note"], ["note", "-n"]])
async def test_a_page_by_any_sort_searches_the_index(desk: Any, sort: list[str]) -> None:
    """What stands before the place of the cursor must not be read again."""
    await desk.db.express.bulk_create("Row", [{"n": n, "note": f"{n // 3:06}"} for n in range(3000)])
    page = await desk.db.express.list("Row", {"note": {"$gte": "000500"}}, sort=sort, limit=5)
    again = await desk.db.express.list(
        "Row", {"note": {"$gte": "000500"}}, sort=sort, limit=5, cursor=page["next_cursor"]
    )
    whole = await desk.db.express.list("Row", {"note": {"$gte": "000500"}}, sort=sort, limit=10)
    assert page["records"] + again["records"] == whole["records"]
    plans = desk.db.core.model("Row").plans._plans
    texts = [plan.plan.command.sql for plan in plans.values() if hasattr(plan, "tree") and hasattr(plan, "hidden")]
    if desk.db.core.dialect.name == "sqlite" and sort == ["note"]:
        paged = next(text for text in texts if "OR" in text)
        raw = desk.db.core.database.writer.raw
        steps = raw.execute(f"EXPLAIN QUERY PLAN {paged}", [None] * paged.count("?")).fetchall()
        assert any("SEARCH" in step[3] and "note>" in step[3] for step in steps)


async def test_a_page_far_behind_an_offset_warns_and_names_the_cursor(desk: Any) -> None:
    with pytest.warns(UserWarning, match=r"RowListNode skips 10,001 records by reading them; page with cursor="):
        await desk.db.express.list("Row", offset=10_001, limit=1)
    assert (await desk.db.express.list("Row", offset=10_000, limit=1))["records"] == []
