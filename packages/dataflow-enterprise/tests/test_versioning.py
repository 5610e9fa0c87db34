"""Versions: a change that expects another version than the record has is refused, in the statement that makes it."""

import asyncio

import pytest

from dataflow.errors import InputError, VersionConflict, WorkflowExecutionError
from dataflow.runtime import LocalRuntime


def shelf(db, **options):
    @db.model
    class Item:
        sku: str
        stock: int = 0
        __dataflow__ = {"versioned": True, **options}
        __indexes__ = [{"name": "uq_item_sku", "fields": ["sku"], "unique": True}]

    x = db.express_sync
    for sku in ("a", "b", "c"):
        x.create("Item", {"sku": sku})
    return x


def state(x):
    return [(r["sku"], r["stock"], r["version"]) for r in x.list("Item")["records"]]


def test_a_record_begins_with_one_and_counts_its_changes(opening):
    x = shelf(opening())
    assert x.read("Item", 1)["version"] == 1
    assert x.update("Item", 1, {"stock": 5})["version"] == 2
    assert x.update("Item", 1, {"stock": {"$inc": 1}})["version"] == 3
    assert x.bulk_update("Item", filter={"sku": "a"}, update={"stock": 7})["updated"] == 1
    assert x.upsert("Item", {"sku": "a"}, update={"stock": 8})["version"] == 5
    assert x.bulk_upsert("Item", [{"sku": "a", "stock": 9}], ["sku"])["updated"] == 1
    assert x.bulk_update("Item", data=[{"id": 1, "stock": 10}])["updated"] == 1
    assert state(x) == [("a", 10, 7), ("b", 0, 1), ("c", 0, 1)]


def test_an_update_that_carries_the_version_succeeds_only_against_it(opening):
    db = opening()
    x = shelf(db)
    assert x.update("Item", 1, {"stock": 1, "version": 1})["version"] == 2
    assert x.update("Item", 1, {"stock": 2}, version=2)["version"] == 3
    before = state(x)
    for call in (
        lambda: x.update("Item", 1, {"stock": 3, "version": 1}),
        lambda: x.update("Item", 1, {"stock": 3}, version=1),
        lambda: x.call("update", "Item", id=1, stock=3, version=1),
        lambda: x.call("update", "Item", filter={"sku": "a"}, values={"stock": 3}, version=1),
        lambda: x.delete("Item", 1, version=1),
        lambda: x.upsert("Item", {"sku": "a"}, update={"stock": 3}, version=1),
        lambda: x.upsert("Item", {"sku": "a"}, update={"stock": 3, "version": 1}),
        lambda: x.upsert("Item", {"sku": "a"}, update={}, version=1),
    ):
        for _ in range(2):
            with pytest.raises(VersionConflict) as conflict:
                call()
            assert conflict.value.ids == [1]
        assert state(x) == before
    builder = db.workflow().add_node("ItemUpdateNode", "u", {"id": 1, "stock": 3, "version": 1})
    with pytest.raises(WorkflowExecutionError) as failed:
        LocalRuntime().execute(builder.build())
    assert isinstance(failed.value.__cause__, VersionConflict)
    assert state(x) == before
    assert x.delete("Item", 1, version=3)["deleted"] == 1


def test_a_record_that_is_not_there_is_no_conflict(opening):
    x = shelf(opening())
    assert x.update("Item", 99, {"stock": 1, "version": 1})["updated"] == 0
    assert x.delete("Item", 99, version=1)["deleted"] == 0
    assert x.upsert("Item", {"sku": "new"}, {"stock": 1}, version=4)["created"] is True


@pytest.mark.parametrize("quick", [True, False])
def test_rows_that_carry_versions_name_exactly_those_that_conflict(opening, quick):
    x = shelf(opening())
    x.update("Item", 2, {"stock": 1})
    x.update("Item", 3, {"stock": 1})
    before = state(x)
    change = 5 if quick else {"$inc": 5}  # an operator goes row by row
    rows = [{"id": n, "stock": change, "version": 1} for n in (1, 2, 3, 99)]
    with pytest.raises(VersionConflict) as conflict:
        x.bulk_update("Item", data=rows)
    assert sorted(conflict.value.ids) == [2, 3]
    assert state(x) == before
    found = x.bulk_update("Item", data=rows, on_error="collect", return_ids=True)
    assert found["ids"] == [1, None, None, None]
    assert (found["updated"], sorted(found["conflicts"]), found["missing"]) == (1, [2, 3], 1)
    assert [row[1:] for row in state(x)] == [(5, 2), (1, 2), (1, 2)]
    assert x.bulk_update("Item", data=[{"id": 2, "stock": change, "version": 2}])["updated"] == 1


def test_upserted_rows_that_carry_versions_are_checked_too(opening):
    x = shelf(opening())
    x.update("Item", 2, {"stock": 1})
    before = state(x)
    rows = [{"sku": "a", "stock": 5, "version": 1}, {"sku": "b", "stock": 5, "version": 1}, {"sku": "n", "stock": 1}]
    with pytest.raises(VersionConflict) as conflict:
        x.bulk_upsert("Item", rows, ["sku"])
    assert conflict.value.ids == [2]
    assert state(x) == before
    rows[1]["version"] = 2
    found = x.bulk_upsert("Item", rows, ["sku"], return_ids=True)
    assert (found["created"], found["updated"], found["ids"][:2]) == (1, 2, [1, 2])
    assert [row[1:] for row in state(x)] == [(5, 2), (5, 3), (0, 1), (1, 1)]


def test_the_version_is_an_int_and_nobody_writes_it(opening):
    x = shelf(opening())
    for odd in ("1", 1.0, True):
        with pytest.raises(InputError):
            x.update("Item", 1, {"stock": 1, "version": odd})
        with pytest.raises(InputError):
            x.bulk_update("Item", data=[{"id": 1, "stock": 1, "version": odd}])
    for call in (
        lambda: x.create("Item", {"sku": "z", "version": 5}),
        lambda: x.bulk_create("Item", [{"sku": "z", "version": 5}]),
        lambda: x.bulk_update("Item", filter={}, update={"version": 5}),
    ):
        with pytest.raises(InputError, match="kept by versioning"):
            call()
    assert state(x) == [("a", 0, 1), ("b", 0, 1), ("c", 0, 1)]


def test_concurrent_increments_lose_nothing(opening):
    db = opening()
    x = shelf(db)

    async def add(times):
        conflicts = 0
        for _ in range(times):
            while True:
                item = await db.express.read("Item", 1)
                try:
                    await db.express.update("Item", 1, {"stock": item["stock"] + 1, "version": item["version"]})
                except VersionConflict:
                    conflicts += 1
                else:
                    break
        return conflicts

    async def many():
        return sum(await asyncio.gather(*[add(10) for _ in range(8)]))

    asyncio.run(many())
    assert state(x)[0] == ("a", 80, 81)
