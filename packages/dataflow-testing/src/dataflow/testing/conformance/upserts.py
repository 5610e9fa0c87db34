"""Upserts: single and in bulk, created told from updated, conflicts, duplicates."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID, uuid4

import pytest

from dataflow import DataFlow
from dataflow.errors import InputError, UniqueError
from dataflow.testing.conformance.bench import Bench, keys_of
from dataflow.testing.conformance.suite import Suite, requires


@requires("upsert")
class TestUpserts(Suite):
    """Update the record with a unique key, or create it."""

    conformance_area: ClassVar[str] = "upsert"

    @classmethod
    def declare(cls, db: DataFlow) -> None:
        @db.model
        class Keeper:
            name: str
            badge: str
            shift: str
            hours: int = 0
            __indexes__: ClassVar = [{"name": "uq_keepers", "fields": ["badge", "shift"], "unique": True}]

        @db.model
        class Ware:
            sku: str
            name: str | None = None
            price: float = 1.0
            count: int = 7
            __indexes__: ClassVar = [{"name": "uq_wares_sku", "fields": ["sku"], "unique": True}]

        @db.model
        class Label:
            text: str
            __dataflow__: ClassVar = {"timestamps": False}
            __indexes__: ClassVar = [{"name": "uq_labels", "fields": ["text"], "unique": True}]
            __tablename__ = "upsert_labels"

        @db.model
        class Rate:
            at: datetime
            code: UUID
            amount: Decimal
            __indexes__: ClassVar = [{"name": "uq_rates", "fields": ["at", "code", "amount"], "unique": True}]

    @pytest.fixture
    def ids(self, bench: Bench, clean: None) -> list[int]:
        """The ids of three wares: a, b, c, with counts 1, 2, 3."""
        rows = [{"sku": sku, "count": count} for count, sku in enumerate("abc", 1)]
        return list(bench.bulk_create("Ware", rows, return_ids=True)["ids"])

    def test_an_upsert_creates_then_updates_and_tells_which(self, calls: Bench) -> None:
        where, create, update = {"badge": "b1", "shift": "night"}, {"name": "Kim"}, {"hours": {"$inc": 8}}
        first = calls.upsert("Keeper", where, create, update)
        again = calls.upsert("Keeper", where, create, update)
        assert (first["created"], first["hours"]) == (True, 0)
        assert (again["created"], again["hours"], again["id"]) == (False, 8, first["id"])
        assert (again["_status"], again["created_at"]) == ({"created": False}, first["created_at"])
        assert again["updated_at"] > first["updated_at"]

    def test_without_update_it_writes_what_create_says_and_an_empty_one_keeps_the_record(self, calls: Bench) -> None:
        where = {"badge": "b1", "shift": "night"}
        calls.upsert("Keeper", where, {"name": "Kim", "hours": 3})
        again = calls.upsert("Keeper", where, {"name": "Kay"})
        assert (again["name"], again["hours"], again["created"]) == ("Kay", 3, False)
        kept = calls.upsert("Keeper", where, {"name": "Lou"}, {})
        assert dict(kept) == dict(again)

    def test_it_goes_by_id_or_by_conflict_on(self, calls: Bench) -> None:
        made = calls.upsert("Keeper", {"id": 7_000_000}, {"name": "Kim", "badge": "b", "shift": "day"})
        assert (made["id"], made["created"]) == (7_000_000, True)
        where = {"shift": "day", "badge": "b"}
        again = calls.upsert("Keeper", where, {"name": "Kay"}, conflict_on=["badge", "shift"])
        assert (again["id"], again["name"], again["created"]) == (7_000_000, "Kay", False)
        assert calls.create("Keeper", {"name": "x", "badge": "x", "shift": "x"})["id"] > 7_000_000

    def test_breaking_another_key_is_an_error(self, calls: Bench) -> None:
        calls.create("Keeper", {"name": "Kim", "badge": "b", "shift": "day"})
        with pytest.raises(UniqueError):
            calls.upsert("Keeper", {"id": -9}, {"name": "Kay", "badge": "b", "shift": "day"})
        assert keys_of(calls.list("Keeper"), "name") == ["Kim"]

    def test_a_key_that_is_not_unique_or_has_no_value_is_refused(self, calls: Bench) -> None:
        for where in ({"name": "Kim"}, {"badge": None, "shift": "x"}, {"badge": "b"}, {}):
            with pytest.raises(InputError):
                calls.upsert("Keeper", where, {"name": "Kim", "badge": "b", "shift": "x"})
        assert calls.count("Keeper") == {"count": 0}

    def test_bulk_upserts_create_and_update_and_count_both(self, calls: Bench, ids: list[int]) -> None:
        rows: list[dict[str, Any]] = [
            {"sku": "c", "name": "C"},
            {"sku": "new", "name": "N"},
            {"sku": "a", "count": 100},
        ]
        done = calls.bulk_upsert("Ware", rows, return_ids=True)
        assert (done["created"], done["updated"], done["skipped"], done["total"]) == (1, 2, 0, 3)
        assert [calls.read("Ware", key)["sku"] for key in done["ids"]] == ["c", "new", "a"]
        records = {record["sku"]: record for record in calls.list("Ware")["records"]}
        assert (records["c"]["name"], records["c"]["count"]) == ("C", 3)
        assert (records["a"]["name"], records["a"]["count"]) == (None, 100)
        assert (records["new"]["count"], records["new"]["price"]) == (7, 1.0)
        assert records["c"]["updated_at"] > records["c"]["created_at"]
        assert records["b"]["updated_at"] == records["b"]["created_at"]

    def test_bulk_create_upserts_on_request(self, calls: Bench, ids: list[int]) -> None:
        rows = [{"sku": "x", "name": "X"}, {"sku": "b", "name": "B"}]
        done = calls.bulk_create("Ware", rows, conflict_resolution="upsert", key_fields=["sku"], return_ids=True)
        assert (done["created"], done["updated"], done["ids"][1]) == (1, 1, ids[1])
        assert (calls.read("Ware", ids[1])["name"], calls.read("Ware", ids[1])["count"]) == ("B", 2)

    def test_bulk_upserts_go_by_primary_key_too(self, calls: Bench, ids: list[int]) -> None:
        far = ids[2] + 500
        done = calls.bulk_upsert("Ware", [{"id": ids[1], "sku": "B"}, {"id": far, "sku": "I"}], ["id"])
        assert (done["created"], done["updated"]) == (1, 1)
        assert keys_of(calls.list("Ware"), "sku") == ["a", "B", "c", "I"]
        assert calls.create("Ware", {"sku": "next"})["id"] > far

    def test_rows_that_are_only_their_key(self, calls: Bench) -> None:
        first = calls.bulk_upsert("Label", [{"text": "a"}, {"text": "b"}], return_ids=True)["ids"]
        again = calls.bulk_upsert("Label", [{"text": "b"}, {"text": "c"}], return_ids=True)
        assert (again["created"], again["updated"], again["ids"][0]) == (1, 1, first[1])
        assert calls.read("Label", again["ids"][1])["text"] == "c"

    def test_one_key_twice_is_an_error_unless_the_last_shall_win(self, calls: Bench, ids: list[int]) -> None:
        rows = [{"sku": "x", "name": "1"}, {"sku": "y"}, {"sku": "x", "name": "2"}]
        with pytest.raises(InputError) as caught:
            calls.bulk_upsert("Ware", rows)
        assert (caught.value.code, caught.value.where["row"]) == ("duplicate-key", 2)
        assert keys_of(calls.list("Ware"), "sku") == ["a", "b", "c"]
        done = calls.bulk_upsert("Ware", rows, on_duplicate="last", return_ids=True)
        assert (done["created"], done["updated"], done["skipped"]) == (2, 0, 1)
        assert done["ids"][0] == done["ids"][2]
        assert calls.read("Ware", done["ids"][0])["name"] == "2"

    @requires("decimal", "uuid", "instants")
    def test_keys_are_compared_as_they_are_stored(self, calls: Bench) -> None:
        at, code = datetime(2025, 1, 1, tzinfo=UTC), uuid4()
        same: list[dict[str, Any]] = [
            {"at": at, "code": code, "amount": Decimal("1.0")}, {"at": at, "code": str(code), "amount": 1},
        ]  # fmt: skip
        with pytest.raises(InputError, match="row 1: the same key as row 0"):
            calls.bulk_upsert("Rate", same)
        first = calls.bulk_upsert("Rate", same[:1], return_ids=True)
        again = calls.bulk_upsert("Rate", same[1:], return_ids=True)
        assert (first["created"], again["updated"], again["ids"]) == (1, 1, first["ids"])

    def test_bulk_upserts_are_all_or_nothing(self, calls: Bench, ids: list[int]) -> None:
        rows: list[dict[str, Any]] = [{"sku": "a", "count": 50}, {"sku": "n", "count": 1}, {"sku": "b", "count": "x"}]
        with pytest.raises(InputError) as caught:
            calls.bulk_upsert("Ware", rows, batch_size=1)
        assert caught.value.where["row"] == 2
        with pytest.raises(UniqueError):
            calls.bulk_upsert("Ware", [{"id": ids[0], "sku": "z"}, {"id": -8, "sku": "b"}], ["id"], batch_size=1)
        assert [(r["sku"], r["count"]) for r in calls.list("Ware")["records"]] == [("a", 1), ("b", 2), ("c", 3)]

    def test_rows_without_a_value_for_the_key_are_named(self, calls: Bench, ids: list[int]) -> None:
        with pytest.raises(InputError) as caught:
            calls.bulk_upsert("Ware", [{"sku": "a"}, {"name": "x"}, {"sku": None}], ["sku"])
        assert [problem.where["row"] for problem in caught.value.problems] == [1, 2]

    def test_a_long_bulk_upsert_finds_every_existing_row(self, bench: Bench) -> None:
        bench.bulk_create("Ware", [{"sku": str(i)} for i in range(0, 3000, 2)])
        done = bench.bulk_upsert("Ware", [{"sku": str(i), "count": i} for i in range(3000)], return_ids=True)
        assert (done["created"], done["updated"], len(set(done["ids"]))) == (1500, 1500, 3000)
        assert bench.read("Ware", done["ids"][2999])["count"] == 2999
