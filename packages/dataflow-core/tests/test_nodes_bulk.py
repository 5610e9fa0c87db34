"""Bulk nodes: one transaction each, rows of any shape, conflicts, bad rows, keys in input order, confirmation."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID, uuid4

import pytest

from dataflow import Factory, ForeignKey
from dataflow.errors import CheckError, ForeignKeyError, InputError, UniqueError, WorkflowExecutionError
from dataflow.runtime import LocalRuntime


@pytest.fixture
def stock(bench: Any) -> Any:
    db = bench.db

    @db.model
    class Product:
        sku: str
        name: str | None = None
        price: Decimal = Decimal(1)
        count: int = 7
        tags: list[str] = []  # noqa: RUF012
        code: UUID = Factory(uuid4)
        __indexes__ = [{"name": "uq_products_sku", "fields": ["sku"], "unique": True}]  # noqa: RUF012

    @db.model
    class Line:
        product_id: Annotated[int, ForeignKey("Product", on_delete="cascade")]
        amount: int = 1

    return bench


def all_of(bench: Any, field: str = "sku", model: str = "Product") -> list[Any]:
    return [record[field] for record in bench.run(f"{model}ListNode")["records"]]


def failed(caught: Any) -> Any:
    """Return what made the node fail."""
    assert isinstance(caught.value, WorkflowExecutionError)
    return caught.value.__cause__


# -- create -----------------------------------------------------------------------------------------------------------
def test_bulk_create_writes_all_rows_and_counts_them(stock: Any) -> None:
    made = stock.run("ProductBulkCreateNode", data=[{"sku": "a"}, {"sku": "b"}, {"sku": "c"}])
    assert made == {"created": 3, "updated": 0, "skipped": 0, "total": 3}
    assert all_of(stock) == ["a", "b", "c"]


def test_rows_may_have_different_keys_and_a_missing_key_means_the_default(stock: Any) -> None:
    rows = [{"sku": "a", "price": Decimal(5)}, {"sku": "b", "name": "B"}, {"sku": "c", "count": 0, "tags": ["x"]}]
    stock.run("ProductBulkCreateNode", data=rows)
    records = stock.run("ProductListNode")["records"]
    assert [r["price"] for r in records] == [Decimal(5), Decimal(1), Decimal(1)]
    assert [r["name"] for r in records] == [None, "B", None]
    assert [r["count"] for r in records] == [7, 7, 0]
    assert [r["tags"] for r in records] == [[], [], ["x"]]
    assert len({r["code"] for r in records}) == 3
    assert len({r["created_at"] for r in records}) == 1


def test_an_explicit_none_is_not_a_missing_key(stock: Any) -> None:
    with pytest.raises(WorkflowExecutionError) as caught:
        stock.run("ProductBulkCreateNode", data=[{"sku": "a", "price": None}])
    assert failed(caught).problems == ()
    assert failed(caught).message == "row 0: price: None is not allowed"
    assert all_of(stock) == []


def test_rows_without_any_key_are_rows_of_defaults(bench: Any) -> None:
    @bench.db.model
    class Blank:
        note: str | None = None
        __dataflow__ = {"timestamps": False}  # noqa: RUF012

    assert bench.run("BlankBulkCreateNode", data=[{}, {}], return_ids=True)["ids"] == [1, 2]
    assert bench.run("BlankCreateNode")["id"] == 3
    assert bench.run("BlankBulkCreateNode", data=[{"note": "x"}, {}], return_ids=True)["ids"] == [4, 5]


def test_no_rows_are_no_work(stock: Any) -> None:
    assert stock.run("ProductBulkCreateNode", data=[], return_ids=True) == {
        "created": 0, "updated": 0, "skipped": 0, "total": 0, "ids": [],
    }  # fmt: skip
    assert stock.run("ProductBulkUpsertNode", data=[], key_fields=["sku"])["created"] == 0
    assert stock.run("ProductBulkUpdateNode", data=[]) == {"updated": 0, "total": 0, "missing": 0}
    assert stock.run("ProductBulkDeleteNode", ids=[]) == {"deleted": 0}


def test_a_field_beside_data_is_a_default_for_all_rows(stock: Any) -> None:
    rows = [{"sku": "a"}, {"sku": "b", "name": "own"}]
    stock.run("ProductBulkCreateNode", data=rows, name="shared", price=3)
    records = stock.run("ProductListNode")["records"]
    assert [(r["name"], r["price"]) for r in records] == [("shared", Decimal(3)), ("own", Decimal(3))]


def test_a_connection_supplies_the_foreign_key_of_all_rows(stock: Any) -> None:
    new = stock.db.workflow()
    new.add_node("ProductCreateNode", "product", {"sku": "a"})
    new.add_node("LineBulkCreateNode", "lines", {"data": [{"amount": 2}, {"amount": 3}], "return_ids": True})
    new.add_connection("product", "id", "lines", "product_id")
    new.add_node("LineListNode", "check", {})
    new.add_connection("lines", "result", "check", "input")
    results, _ = LocalRuntime().execute(new.build())
    assert results["lines"]["ids"] == [1, 2]
    assert [(r["product_id"], r["amount"]) for r in results["check"]["records"]] == [(1, 2), (1, 3)]


@pytest.mark.parametrize("batch", [1, 2, 3, 1000])
def test_ids_come_in_input_order_whatever_the_batch(stock: Any, batch: int) -> None:
    rows = [{"sku": f"s{i}"} for i in (5, 3, 9, 1, 7)]
    ids = stock.run("ProductBulkCreateNode", data=rows, return_ids=True, batch_size=batch)["ids"]
    assert [stock.run("ProductReadNode", id=i)["sku"] for i in ids] == ["s5", "s3", "s9", "s1", "s7"]


def test_ids_given_and_generated_mix(stock: Any) -> None:
    rows = [{"id": 50, "sku": "a"}, {"sku": "b"}, {"id": 10, "sku": "c"}, {"id": None, "sku": "d"}]
    ids = stock.run("ProductBulkCreateNode", data=rows, return_ids=True)["ids"]
    assert [stock.run("ProductReadNode", id=i)["sku"] for i in ids] == ["a", "b", "c", "d"]
    assert (ids[0], ids[2]) == (50, 10)
    assert ids[1] == 51
    assert ids[3] == 52


def test_more_rows_and_columns_than_one_statement_holds(stock: Any) -> None:
    total = 12_000
    made = stock.run(
        "ProductBulkCreateNode", data=[{"sku": str(i)} for i in range(total)], batch_size=100_000, return_ids=True
    )
    assert made["ids"] == list(range(1, total + 1))
    assert stock.run("ProductReadNode", id=total)["sku"] == str(total - 1)


def test_rows_may_come_from_any_iterable(stock: Any) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield {"sku": "a"}
        yield {"sku": "b"}

    assert stock.db.express_sync.bulk_create("Product", rows())["created"] == 2
    assert stock.db.express_sync.bulk_create("Product", ({"sku": s} for s in "cd"), return_ids=True)["ids"] == [3, 4]


def test_one_bad_value_writes_nothing_and_names_its_row(stock: Any) -> None:
    rows = [{"sku": str(i)} for i in range(2500)]
    rows[2100] = {"sku": 7}
    with pytest.raises(WorkflowExecutionError) as caught:
        stock.run("ProductBulkCreateNode", data=rows, batch_size=500)
    assert isinstance(failed(caught), InputError)
    assert failed(caught).message == "row 2100: sku: expected str, got int"
    assert failed(caught).where["row"] == 2100
    assert all_of(stock) == []


def test_one_refused_row_writes_nothing_and_names_its_row(stock: Any) -> None:
    rows = [{"sku": str(i)} for i in range(2500)]
    rows[2100] = {"sku": "17"}
    with pytest.raises(WorkflowExecutionError) as caught:
        stock.run("ProductBulkCreateNode", data=rows, batch_size=500)
    assert isinstance(failed(caught), UniqueError)
    assert failed(caught).message == "row 2100: a record with that sku exists already"
    assert failed(caught).where["row"] == 2100
    assert all_of(stock) == []


def test_at_most_twenty_bad_rows_are_listed(stock: Any) -> None:
    with pytest.raises(WorkflowExecutionError) as caught:
        stock.run("ProductBulkCreateNode", data=[{"sku": 1}] * 50)
    assert len(failed(caught).problems) == 20


BAD = [
    {"sku": "a"},
    {"sku": 7},  # wrong type
    {"sku": "b", "price": 1.5},  # no Decimal
    {"sku": "old"},  # taken
    {"sku": "c"},
    {"sku": "a"},  # taken by a row of this call
    {"name": "x"},  # no sku
]


@pytest.mark.parametrize("batch", [1, 3, 1000])
@pytest.mark.parametrize("ids", [True, False])
def test_bad_rows_can_be_collected_with_their_index_and_reason(stock: Any, batch: int, ids: bool) -> None:
    stock.run("ProductCreateNode", sku="old")
    made = stock.run("ProductBulkCreateNode", data=BAD, on_error="collect", batch_size=batch, return_ids=ids)
    assert (made["created"], made["skipped"], made["total"]) == (2, 5, 7)
    assert [(e["row"], e["code"]) for e in sorted(made["errors"], key=lambda e: e["row"])] == [
        (1, "bad-row"), (2, "bad-row"), (3, "unique"), (5, "unique"), (6, "bad-row"),
    ]  # fmt: skip
    assert all("message" in error for error in made["errors"])
    assert all_of(stock) == ["old", "a", "c"]
    if ids:
        assert [i is not None for i in made["ids"]] == [True, False, False, False, True, False, False]
        assert stock.run("ProductReadNode", id=made["ids"][4])["sku"] == "c"
    else:
        assert "ids" not in made


def test_bad_rows_can_be_skipped_in_silence(stock: Any) -> None:
    stock.run("ProductCreateNode", sku="old")
    made = stock.run("ProductBulkCreateNode", data=BAD, on_error="skip")
    assert made == {"created": 2, "updated": 0, "skipped": 5, "total": 7}
    assert all_of(stock) == ["old", "a", "c"]


def test_rows_with_a_foreign_key_to_nothing_are_bad_rows(stock: Any) -> None:
    stock.run("ProductCreateNode", sku="a")
    made = stock.run("LineBulkCreateNode", data=[{"product_id": 1}, {"product_id": 9}], on_error="collect")
    assert (made["created"], made["errors"][0]["row"], made["errors"][0]["code"]) == (1, 1, "foreign-key")
    with pytest.raises(WorkflowExecutionError) as caught:
        stock.run("LineBulkCreateNode", data=[{"product_id": 1}, {"product_id": 9}])
    assert isinstance(failed(caught), ForeignKeyError)
    assert failed(caught).where["row"] == 1
    assert all_of(stock, "amount", "Line") == [1]


@pytest.mark.parametrize("ids", [True, False])
def test_existing_keys_can_be_skipped(stock: Any, ids: bool) -> None:
    stock.run("ProductCreateNode", sku="b", name="kept")
    made = stock.run(
        "ProductBulkCreateNode",
        data=[{"sku": "a"}, {"sku": "b", "name": "new"}, {"sku": "c"}, {"sku": "a"}],
        conflict_resolution="skip",
        return_ids=ids,
    )
    assert (made["created"], made["skipped"]) == (2, 2)
    if ids:
        assert [i is None for i in made["ids"]] == [False, True, False, True]
    assert stock.run("ProductReadNode", conditions={"sku": "b"})["name"] == "kept"


def test_existing_keys_can_be_updated(stock: Any) -> None:
    stock.run("ProductCreateNode", sku="b", name="old", count=1)
    made = stock.run(
        "ProductBulkCreateNode",
        data=[{"sku": "a", "name": "A"}, {"sku": "b", "name": "B"}],
        conflict_resolution="upsert",
        key_fields=["sku"],
        return_ids=True,
    )
    assert (made["created"], made["updated"], made["ids"]) == (1, 1, [2, 1])
    record = stock.run("ProductReadNode", id=1)
    assert (record["name"], record["count"]) == ("B", 1)


def test_commit_every_commits_as_it_goes_and_reports_how_far_it_came(stock: Any) -> None:
    made = stock.run("ProductBulkCreateNode", data=[{"sku": str(i)} for i in range(10)], commit_every=4)
    assert (made["created"], made["committed"]) == (10, 10)
    rows = [{"sku": f"n{i}"} for i in range(10)]
    rows[9] = {"sku": "3"}
    with pytest.raises(WorkflowExecutionError) as caught:
        stock.run("ProductBulkCreateNode", data=rows, commit_every=4)
    assert failed(caught).where["committed"] == 8
    assert "(commit_every=4: 8 rows were committed before)" in failed(caught).message
    assert stock.run("ProductCountNode")["count"] == 18


# -- update -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def shelf(stock: Any) -> Any:
    rows = [{"sku": s, "price": Decimal(p), "count": c} for s, p, c in (("a", 1, 1), ("b", 2, 2), ("c", 3, 3))]
    stock.run("ProductBulkCreateNode", data=rows)
    return stock


def test_bulk_update_changes_what_the_filter_matches(shelf: Any) -> None:
    changed = shelf.run(
        "ProductBulkUpdateNode",
        filter={"price": {"$gte": 2}},
        update={"price": {"$multiply": Decimal("0.9")}, "name": "sale"},
    )
    assert changed == {"updated": 2}
    assert all_of(shelf, "price") == [Decimal(1), Decimal("1.8"), Decimal("2.7")]
    assert all_of(shelf, "name") == [None, "sale", "sale"]
    before, after = all_of(shelf, "created_at"), all_of(shelf, "updated_at")
    assert after[0] == before[0]
    assert after[1] > before[1]


def test_bulk_update_with_an_empty_filter_means_every_record(shelf: Any) -> None:
    assert shelf.run("ProductBulkUpdateNode", filter={}, update={"count": {"$inc": 10}})["updated"] == 3
    assert all_of(shelf, "count") == [11, 12, 13]


def test_bulk_update_and_delete_take_the_first_matches_in_key_order(shelf: Any) -> None:
    changed = shelf.run(
        "ProductBulkUpdateNode", filter={"count": {"$gt": 0}}, update={"name": "x"}, limit=2, return_ids=True
    )
    assert changed == {"updated": 2, "ids": [1, 2]}
    gone = shelf.run("ProductBulkDeleteNode", filter={"count": {"$gt": 1}}, limit=1, return_ids=True)
    assert gone == {"deleted": 1, "ids": [2]}
    assert shelf.run("ProductBulkUpdateNode", filter={}, update={"name": "y"}, limit=0) == {"updated": 0}


def test_bulk_update_by_rows_changes_each_in_its_own_way(shelf: Any) -> None:
    rows = [{"id": 3, "name": "C"}, {"id": 1, "count": {"$inc": 5}, "name": None}, {"id": 99, "name": "?"}]
    changed = shelf.run("ProductBulkUpdateNode", data=rows, return_ids=True)
    assert changed == {"updated": 2, "total": 3, "missing": 1, "ids": [3, 1, None]}
    assert all_of(shelf, "name") == [None, None, "C"]
    assert all_of(shelf, "count") == [6, 2, 3]
    assert shelf.run("ProductBulkUpdateNode", data=rows)["updated"] == 2
    assert all_of(shelf, "count") == [11, 2, 3]


def test_bulk_update_by_rows_is_all_or_nothing(shelf: Any) -> None:
    with pytest.raises(WorkflowExecutionError) as caught:
        shelf.run("ProductBulkUpdateNode", data=[{"id": 1, "sku": "z"}, {"id": 2, "sku": "c"}])
    assert isinstance(failed(caught), UniqueError)
    with pytest.raises(WorkflowExecutionError) as caught:
        shelf.run("ProductBulkUpdateNode", data=[{"id": 1, "sku": "z"}, {"id": 2, "sku": 7}, {"id": 3}, {"nope": 1}])
    assert [problem.where["row"] for problem in failed(caught).problems] == [1, 2, 3]
    assert all_of(shelf) == ["a", "b", "c"]


def test_bulk_update_by_rows_of_a_composite_key(bench: Any) -> None:
    @bench.db.model
    class Seat:
        row: int
        letter: str
        taken: bool = False
        __dataflow__ = {"primary_key": ["row", "letter"]}  # noqa: RUF012

    bench.run("SeatBulkCreateNode", data=[{"row": r, "letter": x} for r in (1, 2) for x in "AB"])
    changed = bench.run(
        "SeatBulkUpdateNode",
        data=[{"row": 2, "letter": "A", "taken": True}, {"row": 1, "letter": "B", "taken": True}],
        return_ids=True,
    )
    assert changed["ids"] == [(2, "A"), (1, "B")]
    chosen = bench.run("SeatBulkUpdateNode", filter={"taken": True}, update={"taken": False}, limit=1, return_ids=True)
    assert chosen["ids"] == [(1, "B")]
    made = bench.run("SeatBulkCreateNode", data=[{"row": 9, "letter": "Z"}, {"row": 8, "letter": "Y"}], return_ids=True)
    assert made["ids"] == [(9, "Z"), (8, "Y")]
    upserted = bench.run(
        "SeatBulkUpsertNode",
        data=[{"row": 8, "letter": "Y", "taken": True}, {"row": 7, "letter": "X"}],
        return_ids=True,
    )
    assert (upserted["created"], upserted["updated"], upserted["ids"]) == (1, 1, [(8, "Y"), (7, "X")])


def test_a_filter_of_a_bulk_update_reaches_related_records(shelf: Any) -> None:
    shelf.run("LineBulkCreateNode", data=[{"product_id": 1}, {"product_id": 3}])
    changed = shelf.run(
        "ProductBulkUpdateNode", filter={"lines": {"$exists": True}}, update={"name": "sold"}, limit=5, return_ids=True
    )
    assert changed["ids"] == [1, 3]
    gone = shelf.run("LineBulkDeleteNode", filter={"product": {"name": "sold", "sku": "c"}}, return_ids=True)
    assert gone["ids"] == [2]


def test_a_result_that_does_not_fit_one_record_changes_none(shelf: Any) -> None:
    with pytest.raises(WorkflowExecutionError):
        shelf.run("ProductBulkUpdateNode", filter={}, update={"count": {"$divide": 2}})
    assert all_of(shelf, "count") == [1, 2, 3]


# -- delete -----------------------------------------------------------------------------------------------------------
def test_bulk_delete_by_filter_and_by_ids(shelf: Any) -> None:
    assert shelf.run("ProductBulkDeleteNode", filter={"sku": "a"}) == {"deleted": 1}
    assert shelf.run("ProductBulkDeleteNode", ids=[3, 99], return_ids=True) == {"deleted": 1, "ids": [3]}
    assert all_of(shelf) == ["b"]


def test_bulk_delete_by_more_ids_than_one_statement_takes(stock: Any) -> None:
    stock.run("ProductBulkCreateNode", data=[{"sku": str(i)} for i in range(2500)])
    assert stock.run("ProductBulkDeleteNode", ids=list(range(1, 2400)))["deleted"] == 2399
    assert stock.run("ProductCountNode")["count"] == 101


def test_an_empty_filter_deletes_nothing_unless_confirmed(shelf: Any) -> None:
    with pytest.raises(WorkflowExecutionError) as caught:
        shelf.run("ProductBulkDeleteNode", filter={})
    assert failed(caught).code == "unconfirmed"
    assert shelf.run("ProductCountNode")["count"] == 3
    assert shelf.run("ProductBulkDeleteNode", filter={}, confirmed=True)["deleted"] == 3


def test_confirmation_says_how_many_rows_would_go(shelf: Any) -> None:
    params = {"filter": {"price": {"$gt": 1}}, "confirmation_required": True}
    asked = shelf.run("ProductBulkDeleteNode", params)
    assert asked == {"deleted": 0, "confirmation_required": True, "would_delete": 2}
    assert shelf.run("ProductBulkDeleteNode", params, limit=1)["would_delete"] == 1
    asked = shelf.run("ProductBulkDeleteNode", ids=[1, 2, 99], confirmation_required=True)
    assert asked["would_delete"] == 2
    assert shelf.run("ProductCountNode")["count"] == 3
    assert shelf.run("ProductBulkDeleteNode", params, confirmed=True)["deleted"] == 2


def test_deleting_takes_along_what_cascades(shelf: Any) -> None:
    shelf.run("LineBulkCreateNode", data=[{"product_id": 1}, {"product_id": 2}])
    assert shelf.run("ProductBulkDeleteNode", filter={"id": 1})["deleted"] == 1
    assert all_of(shelf, "product_id", "Line") == [2]


# -- upsert -----------------------------------------------------------------------------------------------------------
def test_bulk_upsert_creates_and_updates_and_counts_both(shelf: Any) -> None:
    rows = [{"sku": "c", "name": "C"}, {"sku": "new", "name": "N"}, {"sku": "a", "count": 100}]
    done = shelf.run("ProductBulkUpsertNode", data=rows, return_ids=True)
    ids = done.pop("ids")
    assert done == {"created": 1, "updated": 2, "skipped": 0, "total": 3}
    assert [shelf.run("ProductReadNode", id=i)["sku"] for i in ids] == ["c", "new", "a"]
    records = {r["sku"]: r for r in shelf.run("ProductListNode")["records"]}
    assert (records["c"]["name"], records["c"]["count"], records["c"]["price"]) == ("C", 3, Decimal(3))
    assert (records["a"]["name"], records["a"]["count"]) == (None, 100)
    assert (records["new"]["count"], records["new"]["price"]) == (7, Decimal(1))
    assert records["c"]["updated_at"] > records["c"]["created_at"]
    assert records["b"]["updated_at"] == records["b"]["created_at"]


def test_an_update_by_upsert_touches_only_what_the_row_gives(shelf: Any) -> None:
    code = shelf.run("ProductReadNode", id=1)["code"]
    shelf.run("ProductBulkUpsertNode", data=[{"sku": "a", "name": "A"}, {"sku": "b", "price": 9}], key_fields=["sku"])
    one, two = (shelf.run("ProductReadNode", id=i) for i in (1, 2))
    assert (one["name"], one["price"], one["code"]) == ("A", Decimal(1), code)
    assert (two["name"], two["price"], two["count"]) == (None, Decimal(9), 2)


def test_bulk_upsert_by_primary_key(shelf: Any) -> None:
    done = shelf.run("ProductBulkUpsertNode", data=[{"id": 2, "sku": "B"}, {"id": 9, "sku": "I"}], key_fields="id")
    assert (done["created"], done["updated"]) == (1, 1)
    assert all_of(shelf) == ["a", "B", "c", "I"]
    assert shelf.run("ProductCreateNode", sku="next")["id"] == 10


def test_bulk_upsert_of_rows_that_are_only_their_key(bench: Any) -> None:
    @bench.db.model
    class Tag:
        label: str
        __dataflow__ = {"timestamps": False}  # noqa: RUF012
        __indexes__ = [{"name": "uq_tags", "fields": ["label"], "unique": True}]  # noqa: RUF012

    assert bench.run("TagBulkUpsertNode", data=[{"label": "a"}, {"label": "b"}], return_ids=True)["ids"] == [1, 2]
    again = bench.run("TagBulkUpsertNode", data=[{"label": "b"}, {"label": "c"}], return_ids=True)
    assert (again["created"], again["updated"], again["ids"][0]) == (1, 1, 2)
    assert bench.run("TagReadNode", id=again["ids"][1])["label"] == "c"


def test_one_key_twice_is_an_error_unless_the_last_shall_win(shelf: Any) -> None:
    rows = [{"sku": "x", "name": "1"}, {"sku": "y"}, {"sku": "x", "name": "2"}]
    with pytest.raises(WorkflowExecutionError) as caught:
        shelf.run("ProductBulkUpsertNode", data=rows)
    assert failed(caught).code == "duplicate-key"
    assert failed(caught).where["row"] == 2
    assert all_of(shelf) == ["a", "b", "c"]
    done = shelf.run("ProductBulkUpsertNode", data=rows, on_duplicate="last", return_ids=True)
    assert (done["created"], done["updated"], done["skipped"]) == (2, 0, 1)
    assert done["ids"][0] == done["ids"][2]
    assert shelf.run("ProductReadNode", id=done["ids"][0])["name"] == "2"


def test_keys_are_compared_as_they_are_stored(bench: Any) -> None:
    @bench.db.model
    class Rate:
        at: datetime
        code: UUID
        amount: Decimal
        __indexes__ = [{"name": "uq_rates", "fields": ["at", "code", "amount"], "unique": True}]  # noqa: RUF012

    at, code = datetime(2025, 1, 1, tzinfo=UTC), uuid4()
    same = [{"at": at, "code": code, "amount": Decimal("1.0")}, {"at": at, "code": str(code), "amount": 1}]
    with pytest.raises(WorkflowExecutionError, match="row 1: the same key as row 0"):
        bench.run("RateBulkUpsertNode", data=same)
    assert bench.run("RateBulkUpsertNode", data=same[:1])["created"] == 1
    assert bench.run("RateBulkUpsertNode", data=same[1:], return_ids=True)["ids"] == [1]


def test_a_shared_default_may_be_part_of_the_key(shelf: Any) -> None:
    done = shelf.run("ProductBulkUpsertNode", data=[{"name": "A"}], sku="a", return_ids=True)
    assert (done["updated"], done["ids"]) == (1, [1])


def test_bulk_upsert_is_all_or_nothing(shelf: Any) -> None:
    rows = [{"sku": "a", "count": 50}, {"sku": "n", "count": 1}, {"sku": "b", "count": "many"}]
    with pytest.raises(WorkflowExecutionError) as caught:
        shelf.run("ProductBulkUpsertNode", data=rows, batch_size=1)
    assert failed(caught).where["row"] == 2
    with pytest.raises(WorkflowExecutionError):
        shelf.run("ProductBulkUpsertNode", data=[{"id": 1, "sku": "z"}, {"id": 8, "sku": "b"}], key_fields=["id"])
    assert all_of(shelf) == ["a", "b", "c"]
    assert all_of(shelf, "count") == [1, 2, 3]


def test_bulk_upsert_without_a_value_for_the_key_names_the_rows(shelf: Any) -> None:
    with pytest.raises(WorkflowExecutionError) as caught:
        shelf.run("ProductBulkUpsertNode", data=[{"sku": "a"}, {"name": "x"}, {"sku": None}], key_fields=["sku"])
    assert [problem.where["row"] for problem in failed(caught).problems] == [1, 2]


def test_bulk_upsert_commits_every_so_many_rows(shelf: Any) -> None:
    rows = [{"sku": str(i)} for i in range(7)]
    done = shelf.run("ProductBulkUpsertNode", data=rows, commit_every=3)
    assert (done["created"], done["committed"]) == (7, 7)
    rows = [{"sku": "7"}, {"sku": "8"}, {"sku": "a"}, {"sku": "9", "count": "x"}]
    with pytest.raises(WorkflowExecutionError) as caught:
        shelf.run("ProductBulkUpsertNode", data=rows, commit_every=3)
    assert failed(caught).where["committed"] == 3
    assert shelf.run("ProductCountNode")["count"] == 12


def test_a_long_bulk_upsert_finds_every_existing_row(stock: Any) -> None:
    stock.run("ProductBulkCreateNode", data=[{"sku": str(i)} for i in range(0, 3000, 2)])
    done = stock.run("ProductBulkUpsertNode", data=[{"sku": str(i), "count": i} for i in range(3000)], return_ids=True)
    assert (done["created"], done["updated"]) == (1500, 1500)
    assert len(set(done["ids"])) == 3000
    assert stock.run("ProductReadNode", id=done["ids"][2999])["count"] == 2999


@pytest.mark.parametrize("bench", ["sqlite"], indirect=True)
def test_a_check_of_the_table_refuses_the_whole_bulk(stock: Any) -> None:
    stock.run("ProductCountNode")
    trigger = """CREATE TRIGGER limit_count BEFORE INSERT ON products WHEN NEW.count > 100
        BEGIN SELECT RAISE(ABORT, 'too many'); END"""
    stock.run("AsyncSQLDatabaseNode", query=trigger, validate_queries=False)
    with pytest.raises(WorkflowExecutionError) as caught:
        stock.run("ProductBulkCreateNode", data=[{"sku": "a"}, {"sku": "b", "count": 101}])
    assert isinstance(failed(caught), CheckError)
    assert failed(caught).where["row"] == 1
    assert all_of(stock) == []
