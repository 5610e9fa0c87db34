"""Bulk create, update and delete: all or nothing, rows of any shape, bad rows, keys in input order, confirmation."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, ClassVar

import pytest

from dataflow import DataFlow, Factory
from dataflow.errors import InputError, QueryError, UniqueError
from dataflow.testing.conformance.bench import Bench, keys_of
from dataflow.testing.conformance.suite import Suite, requires

TAKEN = "a record with that sku exists already"


class Stock(Suite):
    """Base of the suites that write products."""

    @classmethod
    def declare(cls, db: DataFlow) -> None:
        @db.model
        class Product:
            sku: str
            name: str | None = None
            price: float = 1.0
            count: int = 7
            serial: int = Factory(iter(range(10**9)).__next__)
            __indexes__: ClassVar = [{"name": "uq_products_sku", "fields": ["sku"], "unique": True}]

        @db.model
        class Line:
            product_id: int
            amount: int = 1

        @db.model
        class Blank:
            note: str | None = None
            __dataflow__: ClassVar = {"timestamps": False}

        @db.model
        class Slot:
            row: int
            letter: str
            taken: bool = False
            __dataflow__: ClassVar = {"primary_key": ["row", "letter"]}


def skus(bench: Bench) -> list[str]:
    """Return what is stored, in key order."""
    return keys_of(bench.list("Product"), "sku")


@requires("bulk")
class TestBulkCreate(Stock):
    """Many new records at once."""

    conformance_area: ClassVar[str] = "bulk"
    BAD: ClassVar[list[dict[str, Any]]] = [
        {"sku": "a"},
        {"sku": 7},  # wrong type
        {"sku": "b", "price": "1"},  # wrong type
        {"sku": "old"},  # taken
        {"sku": "c"},
        {"sku": "a"},  # taken by a row of this call
        {"name": "x"},  # no sku
    ]

    def test_all_rows_are_written_and_counted(self, calls: Bench) -> None:
        made = calls.bulk_create("Product", [{"sku": "a"}, {"sku": "b"}, {"sku": "c"}])
        assert made == {"created": 3, "updated": 0, "skipped": 0, "total": 3}
        assert skus(calls) == ["a", "b", "c"]
        assert calls.bulk_create("Product", [], return_ids=True) == {
            "created": 0, "updated": 0, "skipped": 0, "total": 0, "ids": [],
        }  # fmt: skip

    def test_rows_may_have_different_keys_and_a_missing_key_means_the_default(self, calls: Bench) -> None:
        calls.bulk_create("Product", [{"sku": "a", "price": 5}, {"sku": "b", "name": "B"}, {"sku": "c", "count": 0}])
        records = calls.list("Product")["records"]
        assert [r["price"] for r in records] == [5.0, 1.0, 1.0]
        assert [r["name"] for r in records] == [None, "B", None]
        assert [r["count"] for r in records] == [7, 7, 0]
        assert len({r["serial"] for r in records}) == 3
        assert len({r["created_at"] for r in records}) == 1

    def test_rows_of_defaults_and_rows_of_values_mix(self, calls: Bench) -> None:
        ids = calls.bulk_create("Blank", [{}, {"note": "x"}, {}], return_ids=True)["ids"]
        assert [calls.read("Blank", key)["note"] for key in ids] == [None, "x", None]
        assert calls.create("Blank", {})["id"] > max(ids)

    def test_a_field_beside_data_is_a_default_for_all_rows(self, calls: Bench) -> None:
        calls.bulk_create("Product", [{"sku": "a"}, {"sku": "b", "name": "own"}], name="shared", price=3)
        assert [(r["name"], r["price"]) for r in calls.list("Product")["records"]] == [("shared", 3.0), ("own", 3.0)]

    def test_a_connection_supplies_a_field_of_all_rows(self, calls: Bench) -> None:
        new = calls.workflow().add_node("ProductCreateNode", "product", {"sku": "a"})
        new.add_node("LineBulkCreateNode", "lines", {"data": [{"amount": 2}, {"amount": 3}], "return_ids": True})
        new.add_connection("product", "id", "lines", "product_id")
        results = calls.execute(new)
        lines = calls.list("Line")["records"]
        assert results["lines"]["ids"] == [line["id"] for line in lines]
        assert [(r["product_id"], r["amount"]) for r in lines] == [(results["product"]["id"], n) for n in (2, 3)]

    @pytest.mark.parametrize("batch", [1, 2, 1000])
    def test_ids_come_in_input_order_whatever_the_batch(self, calls: Bench, batch: int) -> None:
        rows = [{"sku": f"s{i}", **({"name": "n"} if i % 3 else {})} for i in (5, 3, 9, 1, 7)]
        ids = calls.bulk_create("Product", rows, return_ids=True, batch_size=batch)["ids"]
        assert [calls.read("Product", key)["sku"] for key in ids] == ["s5", "s3", "s9", "s1", "s7"]

    @requires("auto_ids")
    def test_ids_given_and_generated_mix(self, calls: Bench) -> None:
        start = calls.create("Product", {"sku": "first"})["id"] + 100
        rows = [{"id": start, "sku": "a"}, {"sku": "b"}, {"id": -start, "sku": "c"}, {"id": None, "sku": "d"}]
        ids = calls.bulk_create("Product", rows, return_ids=True)["ids"]
        assert [calls.read("Product", key)["sku"] for key in ids] == ["a", "b", "c", "d"]
        assert (ids[0], ids[2], len(set(ids))) == (start, -start, 4)
        assert calls.create("Product", {"sku": "e"})["id"] > max(ids)

    def test_more_rows_than_one_statement_holds(self, bench: Bench) -> None:
        total = 12_000
        made = bench.bulk_create("Product", [{"sku": str(i)} for i in range(total)], batch_size=10**6, return_ids=True)
        assert (made["created"], len(set(made["ids"]))) == (total, total)
        assert made["ids"] == sorted(made["ids"])
        for place in (0, total // 2, total - 1):
            assert bench.read("Product", made["ids"][place])["sku"] == str(place)

    def test_rows_may_come_from_any_iterable(self, bench: Bench) -> None:
        def rows() -> Iterator[dict[str, Any]]:
            yield {"sku": "a"}
            yield {"sku": "b"}

        assert bench.bulk_create("Product", rows())["created"] == 2
        assert bench.by("express").bulk_create("Product", ({"sku": s} for s in "cd"))["created"] == 2
        assert skus(bench) == ["a", "b", "c", "d"]

    def test_one_bad_value_writes_nothing_and_names_its_row(self, calls: Bench) -> None:
        rows: list[dict[str, Any]] = [{"sku": str(i)} for i in range(2500)]
        rows[2100] = {"sku": 7}
        with pytest.raises(InputError) as caught:
            calls.bulk_create("Product", rows, batch_size=500)
        assert (caught.value.message, caught.value.where["row"]) == ("row 2100: sku: expected str, got int", 2100)
        assert calls.count("Product") == {"count": 0}

    @pytest.mark.parametrize("batch", [500, 10_000])
    def test_one_refused_row_writes_nothing_and_names_its_row(self, calls: Bench, batch: int) -> None:
        rows = [{"sku": str(i)} for i in range(2500)]
        rows[2100] = {"sku": "17"}
        with pytest.raises(UniqueError) as caught:
            calls.bulk_create("Product", rows, batch_size=batch)
        assert (caught.value.message, caught.value.where["row"]) == (f"row 2100: {TAKEN}", 2100)
        assert calls.count("Product") == {"count": 0}

    @pytest.mark.parametrize("batch", [1, 3, 1000])
    def test_bad_rows_are_collected_with_their_index_and_reason(self, calls: Bench, batch: int) -> None:
        calls.create("Product", {"sku": "old"})
        ids = calls.way == "express_sync"
        made = calls.bulk_create("Product", self.BAD, on_error="collect", batch_size=batch, return_ids=ids)
        assert (made["created"], made["skipped"], made["total"]) == (2, 5, 7)
        errors = sorted(made["errors"], key=lambda error: error["row"])
        assert [(error["row"], error["code"], error["message"]) for error in errors] == [
            (1, "bad-row", "sku: expected str, got int"),
            (2, "bad-row", "price: expected float, got str"),
            (3, "unique", TAKEN),
            (5, "unique", TAKEN),
            (6, "bad-row", "sku is required"),
        ]
        assert skus(calls) == ["old", "a", "c"]
        if ids:
            assert [key is not None for key in made["ids"]] == [True, False, False, False, True, False, False]
            assert calls.read("Product", made["ids"][4])["sku"] == "c"

    def test_bad_rows_can_be_skipped_in_silence(self, calls: Bench) -> None:
        calls.create("Product", {"sku": "old"})
        made = calls.bulk_create("Product", self.BAD, on_error="skip")
        assert made == {"created": 2, "updated": 0, "skipped": 5, "total": 7}
        assert skus(calls) == ["old", "a", "c"]

    def test_existing_keys_can_be_skipped(self, calls: Bench) -> None:
        rows = [{"sku": "a"}, {"sku": "b", "name": "new"}, {"sku": "c"}, {"sku": "a"}]
        for ids in (True, False):
            calls.clear()
            calls.create("Product", {"sku": "b", "name": "kept"})
            made = calls.bulk_create("Product", rows, conflict_resolution="skip", return_ids=ids)
            assert (made["created"], made["skipped"]) == (2, 2)
            if ids:
                assert [key is None for key in made["ids"]] == [False, True, False, True]
                assert calls.read("Product", made["ids"][2])["sku"] == "c"
            assert calls.call("read", "Product", conditions={"sku": "b"})["name"] == "kept"

    def test_commit_every_commits_as_it_goes_and_reports_how_far_it_came(self, calls: Bench) -> None:
        made = calls.bulk_create("Product", [{"sku": str(i)} for i in range(10)], commit_every=4)
        assert (made["created"], made["committed"]) == (10, 10)
        rows = [{"sku": f"n{i}"} for i in range(9)] + [{"sku": "3"}]
        with pytest.raises(UniqueError) as caught:
            calls.bulk_create("Product", rows, commit_every=4)
        assert caught.value.where["committed"] == 8
        assert calls.count("Product") == {"count": 18}

    @requires("decimal", "arrays", "json")
    def test_rows_of_every_type_are_loaded_the_same_in_bulk(self, bench: Bench) -> None:
        fields = {"price": Decimal | None, "tags": list[str] | None, "doc": dict | None}
        if "Loaded" not in bench.db.models:
            bench.register("Loaded", fields, __tablename__="bulk_loaded")
        rows = [
            {"price": Decimal(n) / 8, "tags": [str(n), "it's"], "doc": {"n": n, "t": "a\tb\\N\n"}} for n in range(50)
        ]
        rows += [{"price": None, "tags": None, "doc": None}, {"price": Decimal("1E+30"), "tags": [], "doc": {}}]
        for options in ({}, {"return_ids": True}, {"batch_size": 7}):
            bench.clear()
            bench.bulk_create("Loaded", rows, **options)
            found = bench.list("Loaded", fields=["price", "tags", "doc"])["records"]
            assert found == rows


class TestBulkChange(Stock):
    """Many records updated or deleted at once."""

    conformance_area: ClassVar[str] = "bulk"

    @pytest.fixture
    def ids(self, bench: Bench, clean: None) -> list[int]:
        """The ids of three products: a, b, c, with counts 1, 2, 3."""
        rows = [{"sku": sku, "price": price, "count": price} for price, sku in enumerate("abc", 1)]
        return list(bench.bulk_create("Product", rows, return_ids=True)["ids"])

    def test_bulk_update_changes_what_the_filter_matches(self, calls: Bench, ids: list[int]) -> None:
        change = {"price": {"$multiply": 0.5}, "name": "sale"}
        assert calls.bulk_update("Product", filter={"price": {"$gte": 2}}, update=change) == {"updated": 2}
        first, *others = calls.list("Product")["records"]
        assert (first["price"], first["name"], first["updated_at"]) == (1.0, None, first["created_at"])
        assert [(r["price"], r["name"], r["updated_at"] > r["created_at"]) for r in others] == [
            (1.0, "sale", True), (1.5, "sale", True),
        ]  # fmt: skip
        assert calls.bulk_update("Product", filter={}, update={"count": {"$inc": 10}}) == {"updated": 3}

    def test_a_limit_takes_the_first_matches_in_key_order(self, calls: Bench, ids: list[int]) -> None:
        changed = calls.bulk_update(
            "Product", filter={"count": {"$gt": 0}}, update={"name": "x"}, limit=2, return_ids=True
        )
        assert changed == {"updated": 2, "ids": ids[:2]}
        gone = calls.bulk_delete("Product", filter={"count": {"$gt": 1}}, limit=1, return_ids=True)
        assert gone == {"deleted": 1, "ids": [ids[1]]}
        assert calls.bulk_update("Product", filter={}, update={"name": "y"}, limit=0) == {"updated": 0}

    def test_bulk_update_by_rows_changes_each_in_its_own_way(self, calls: Bench, ids: list[int]) -> None:
        rows = [
            {"id": ids[2], "name": "C"},
            {"id": ids[0], "count": {"$inc": 5}, "name": None},
            {"id": -9, "name": "?"},
        ]
        changed = calls.bulk_update("Product", data=rows, return_ids=True)
        assert changed == {"updated": 2, "total": 3, "missing": 1, "ids": [ids[2], ids[0], None]}
        assert [(r["name"], r["count"]) for r in calls.list("Product")["records"]] == [(None, 6), (None, 2), ("C", 3)]

    def test_bulk_update_is_all_or_nothing(self, calls: Bench, ids: list[int]) -> None:
        with pytest.raises(UniqueError):
            calls.bulk_update("Product", data=[{"id": ids[0], "sku": "z"}, {"id": ids[1], "sku": "c"}])
        with pytest.raises(InputError) as caught:
            calls.bulk_update("Product", data=[{"id": ids[0], "sku": "z"}, {"id": ids[1], "sku": 7}, {"nope": 1}])
        assert [problem.where["row"] for problem in caught.value.problems] == [1, 2]
        with pytest.raises(QueryError, match="whole number"):
            calls.bulk_update("Product", filter={}, update={"count": {"$divide": 2}})
        with pytest.raises(UniqueError):
            calls.bulk_update("Product", filter={}, update={"sku": "same"})
        assert [(r["sku"], r["count"]) for r in calls.list("Product")["records"]] == [("a", 1), ("b", 2), ("c", 3)]

    def test_two_rows_for_one_record_are_refused(self, calls: Bench, ids: list[int]) -> None:
        with pytest.raises(InputError, match="row 1: the same key as row 0"):
            calls.bulk_update("Product", data=[{"id": ids[0], "count": 1}, {"id": ids[0], "count": 2}])

    def test_composite_keys_come_back_in_input_order(self, calls: Bench) -> None:
        calls.bulk_create("Slot", [{"row": r, "letter": x} for r in (1, 2) for x in "AB"])
        rows = [{"row": 2, "letter": "A", "taken": True}, {"row": 1, "letter": "B", "taken": True}]
        assert calls.bulk_update("Slot", data=rows, return_ids=True)["ids"] == [(2, "A"), (1, "B")]
        made = calls.bulk_create("Slot", [{"row": 9, "letter": "Z"}, {"row": 8, "letter": "Y"}], return_ids=True)
        assert made["ids"] == [(9, "Z"), (8, "Y")]
        assert calls.bulk_delete("Slot", filter={"taken": True}, return_ids=True)["ids"] == [(1, "B"), (2, "A")]

    def test_filters_of_bulk_changes_reach_related_records(self, calls: Bench, ids: list[int]) -> None:
        calls.bulk_create("Line", [{"product_id": ids[0]}, {"product_id": ids[2]}])
        changed = calls.bulk_update(
            "Product", filter={"lines": {"$exists": True}}, update={"name": "x"}, return_ids=True
        )
        assert changed["ids"] == [ids[0], ids[2]]
        assert calls.bulk_delete("Line", filter={"product": {"name": "x", "sku": "c"}}) == {"deleted": 1}
        assert keys_of(calls.list("Line"), "product_id") == [ids[0]]

    def test_bulk_delete_by_filter_and_by_ids(self, calls: Bench, ids: list[int]) -> None:
        assert calls.bulk_delete("Product", filter={"sku": "a"}) == {"deleted": 1}
        assert calls.bulk_delete("Product", ids=[ids[2], -9], return_ids=True) == {"deleted": 1, "ids": [ids[2]]}
        assert calls.bulk_delete("Product", ids=[]) == {"deleted": 0}
        assert skus(calls) == ["b"]

    def test_bulk_delete_takes_more_ids_than_one_statement(self, bench: Bench) -> None:
        ids = bench.bulk_create("Product", [{"sku": str(i)} for i in range(2500)], return_ids=True)["ids"]
        assert bench.bulk_delete("Product", ids=[*ids[:2400], -1])["deleted"] == 2400
        assert bench.count("Product") == {"count": 100}

    def test_a_filter_that_compares_nothing_deletes_nothing_unconfirmed(self, calls: Bench, ids: list[int]) -> None:
        documents: list[dict[str, Any]] = [{}, {"$and": [{}]}, {"$or": [{}]}, {"id": {"$nin": []}}]
        for document in documents:
            with pytest.raises(InputError) as caught:
                calls.bulk_delete("Product", filter=document)
            assert caught.value.code == "unconfirmed"
        assert calls.count("Product") == {"count": 3}

    def test_a_confirmation_says_how_many_rows_would_go(self, calls: Bench, ids: list[int]) -> None:
        params: dict[str, Any] = {"filter": {"price": {"$gt": 1}}, "confirmation_required": True}
        asked = calls.bulk_delete("Product", **params)
        assert asked == {"deleted": 0, "confirmation_required": True, "would_delete": 2}
        assert calls.bulk_delete("Product", **params, limit=1)["would_delete"] == 1
        assert calls.bulk_delete("Product", ids=[*ids[:2], -9], confirmation_required=True)["would_delete"] == 2
        assert calls.count("Product") == {"count": 3}
        assert calls.bulk_delete("Product", **params, confirmed=True)["deleted"] == 2
        assert calls.bulk_delete("Product", filter={}, confirmed=True)["deleted"] == 1
