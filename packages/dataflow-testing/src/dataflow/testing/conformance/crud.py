"""Create, read, update and delete: parameters, results, keys, update operators. Every test runs both paths."""

from datetime import UTC, datetime
from itertools import product
from typing import Any, ClassVar
from uuid import UUID, uuid4

import pytest

from dataflow import DataFlow, Factory
from dataflow.errors import InputError, NotFoundError
from dataflow.testing.conformance.bench import WAYS, Bench, keys_of
from dataflow.testing.conformance.suite import Suite, requires
from dataflow.testing.conformance.values import exactly

_LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)


class TestCrud(Suite):
    """Single records."""

    conformance_area: ClassVar[str] = "crud"

    @classmethod
    def declare(cls, db: DataFlow) -> None:
        @db.model
        class Animal:
            name: str
            legs: int = 4
            weight: float | None = None
            tame: bool = False
            seen: datetime | None = None

        @db.model
        class Passport:
            id: str
            holder: str

        @db.model
        class Device:
            id: UUID = Factory(uuid4)
            label: str = "new"

        @db.model
        class Airport:
            code: str
            city: str
            __dataflow__: ClassVar = {"primary_key": "code"}

        @db.model
        class Seat:
            row: int
            letter: str
            taken: bool = False
            __dataflow__: ClassVar = {"primary_key": ["row", "letter"], "timestamps": False}

        @db.model
        class Tick:
            at: datetime
            price: float
            __dataflow__: ClassVar = {"primary_key": ["at"], "timestamps": False}

        @db.model
        class Odd:
            filter: str
            limit: int
            found: str = "f"
            created: str = "c"
            updated: str = "u"
            deleted: str = "d"
            result: str = "r"
            input: str = "i"
            database: str = "b"
            values: str = "v"
            name: str = "n"

    # -- create and read ------------------------------------------------------------------------------------------
    @requires("returning")
    def test_create_returns_the_stored_record_with_every_column(self, calls: Bench) -> None:
        made = calls.create("Animal", {"name": "Løve", "weight": 0.1})
        assert list(made) == ["id", "name", "legs", "weight", "tame", "seen", "created_at", "updated_at"]
        assert (made["name"], made["legs"], made["weight"], made["tame"], made["seen"]) == ("Løve", 4, 0.1, False, None)
        assert made["created_at"] == made["updated_at"]
        assert made["created_at"].tzinfo is UTC
        assert (made["_status"], "created" in made) == ({"created": True}, False)
        read = calls.read("Animal", made["id"])
        assert read.pop("found") is True
        assert exactly(dict(read)) == exactly(dict(made))

    def test_the_same_calls_give_the_same_every_way(self, bench: Bench) -> None:
        def story(x: Bench) -> list[Any]:
            made = x.create("Animal", {"name": "Ox"})
            key = made["id"]
            given = [made, x.read("Animal", key, fields=["name"]), x.read("Animal", -1)]
            given += [x.update("Animal", key, {"legs": {"$inc": 1}}), x.update("Animal", -1, {"legs": 1})]
            given += [x.bulk_create("Animal", [{"name": "a"}, {"name": "b"}])]
            given += [x.bulk_update("Animal", filter={"name": {"$in": ["a", "b"]}}, update={"legs": 0})]
            given += [x.list("Animal", {"legs": 0}, sort="-name", limit=1, include_total=True, fields=["name"])]
            given += [x.count("Animal"), x.aggregate("Animal", aggregate={"legs": {"$sum": "legs"}})]
            given += [x.upsert("Animal", {"id": key}, update={"tame": True}, create={"name": "?"})]
            given += [x.delete("Animal", key), x.bulk_delete("Animal", filter={"legs": {"$gte": 0}})]
            changing = ("id", "created_at", "updated_at", "next_cursor")
            return [{name: value for name, value in one.items() if name not in changing} for one in given]

        told = [story(bench.by(way)) for way in WAYS]
        assert told[0][-1] == {"deleted": 2}
        assert told == [told[0]] * len(WAYS)

    def test_fields_may_come_as_values(self, calls: Bench) -> None:
        made = calls.call("create", "Animal", values={"name": "Ox", "legs": 3})
        assert (made["name"], made["legs"]) == ("Ox", 3)

    @requires("uuid")
    def test_factories_run_for_each_record(self, calls: Bench) -> None:
        one, two = calls.create("Device", {}), calls.create("Device", {"label": "x"})
        assert one["id"] != two["id"]
        assert calls.read("Device", str(two["id"]))["label"] == "x"

    def test_created_at_may_be_given(self, calls: Bench) -> None:
        assert calls.create("Animal", {"name": "Ox", "created_at": _LONG_AGO})["created_at"] == _LONG_AGO

    @requires("auto_ids")
    def test_ids_that_are_given_advance_those_generated_and_none_is_used_twice(self, calls: Bench) -> None:
        given = calls.create("Animal", {"name": "Ox"})["id"] + 41
        assert calls.create("Animal", {"id": given, "name": "Emu"})["id"] == given
        after = calls.create("Animal", {"name": "Yak"})["id"]
        assert after > given
        calls.delete("Animal", after)
        assert calls.create("Animal", {"name": "Gnu"})["id"] > after
        low = calls.create("Animal", {"id": -given, "name": "Elk"})["id"]
        assert (low, calls.create("Animal", {"name": "Eel"})["id"] > after) == (-given, True)

    def test_a_record_is_read_by_id_record_id_or_conditions(self, calls: Bench) -> None:
        key = calls.create("Animal", {"name": "Ox"})["id"]
        calls.create("Animal", {"name": "Ox"})
        for params in ({"id": key}, {"record_id": key}, {"conditions": {"name": "Ox"}}):
            record = calls.call("read", "Animal", **params)
            assert (record["id"], record["found"], record["_status"]) == (key, True, {"found": True})

    def test_reading_what_is_not_there_says_so(self, calls: Bench) -> None:
        assert calls.read("Animal", 99) == {"id": 99, "found": False}
        assert calls.call("read", "Animal", conditions={"name": "Gnu"}) == {"found": False}
        for params in ({"id": 99}, {"conditions": {"name": "Gnu"}}):
            with pytest.raises(NotFoundError):
                calls.call("read", "Animal", raise_on_not_found=True, **params)

    # -- keys -----------------------------------------------------------------------------------------------------
    def test_text_ids_stay_text(self, calls: Bench) -> None:
        for key in ("session-80706348-0456", "007", "1e5", " ", "", "ключ", "x" * 500):
            made = calls.create("Passport", {"id": key, "holder": "42"})
            assert (made["id"], made["holder"]) == (key, "42")
            for params in ({"id": key}, {"record_id": key}, {"conditions": {"id": key}}):
                assert calls.call("read", "Passport", **params)["found"] is True
            assert calls.read("Passport", key + "0")["found"] is False
            assert calls.update("Passport", key, {"holder": "43"})["holder"] == "43"
            assert calls.delete("Passport", key) == {"deleted": 1, "id": key}

    @requires("uuid")
    def test_uuid_ids_are_found_by_uuid_and_by_text(self, calls: Bench) -> None:
        key = UUID(int=2**127)
        assert calls.create("Device", {"id": key})["id"] == key
        assert calls.read("Device", str(key).upper())["id"] == key
        assert calls.list("Device", {"id": {"$in": [key]}})["count"] == 1
        assert calls.bulk_delete("Device", ids=[str(key)]) == {"deleted": 1}

    def test_a_natural_key_takes_its_own_name_and_id(self, calls: Bench) -> None:
        assert "id" not in calls.create("Airport", {"code": "ZRH", "city": "Zürich"})
        for params in ({"code": "ZRH"}, {"id": "ZRH"}, {"record_id": "ZRH"}, {"_id": {"code": "ZRH"}}):
            assert calls.call("read", "Airport", **params)["city"] == "Zürich"
        assert calls.update("Airport", "ZRH", {"city": "Kloten"})["city"] == "Kloten"
        assert calls.delete("Airport", "ZRH") == {"deleted": 1, "code": "ZRH", "id": "ZRH"}

    def test_a_composite_key_is_a_tuple_a_dict_or_its_fields(self, calls: Bench) -> None:
        calls.bulk_create("Seat", [{"row": row, "letter": letter} for row in (1, 2) for letter in "AB"])
        for key in ({"id": (2, "A")}, {"id": [2, "A"]}, {"id": {"letter": "A", "row": 2}}, {"row": 2, "letter": "A"}):
            record = calls.call("read", "Seat", **key)
            assert (record["row"], record["letter"], record["found"]) == (2, "A", True)
        assert calls.update("Seat", (2, "B"), {"taken": True}) == {"row": 2, "letter": "B", "taken": True, "updated": 1}
        assert calls.delete("Seat", (1, "A")) == {"deleted": 1, "row": 1, "letter": "A", "id": (1, "A")}
        assert calls.bulk_delete("Seat", ids=[(1, "B"), {"row": 2, "letter": "A"}, (9, "Z")])["deleted"] == 2
        assert keys_of(calls.list("Seat"), "letter") == ["B"]
        with pytest.raises(InputError):
            calls.read("Seat", 1)

    @requires("instants")
    def test_an_instant_may_be_a_key(self, calls: Bench) -> None:
        at = datetime(2025, 1, 1, 12, 0, 0, 1, tzinfo=UTC)
        assert calls.create("Tick", {"at": at, "price": 1.0}) == {"at": at, "price": 1.0}
        assert calls.read("Tick", at)["found"] is True
        assert calls.delete("Tick", at)["deleted"] == 1

    def test_fields_called_like_options_and_results_are_fields(self, calls: Bench) -> None:
        given = {"filter": "x", "limit": 5, "found": "F", "result": "R", "values": "V", "database": "D"}
        made = calls.create("Odd", given)
        assert {name: made[name] for name in given} == given
        read = calls.read("Odd", made["id"])
        assert (read["found"], read["_status"], read["_result"]["result"]) == ("F", {"found": True}, "R")
        assert calls.call("list", "Odd", _filter={"limit": 5}, _limit=1)["records"][0]["filter"] == "x"
        changed = calls.update("Odd", made["id"], {"updated": "now", "input": "new"})
        assert (changed["updated"], changed["input"], changed["_status"]) == ("now", "new", {"updated": 1})
        assert calls.count("Odd", {"result": "R", "updated": "now"}) == {"count": 1}

    # -- update and delete ----------------------------------------------------------------------------------------
    def test_update_takes_the_record_and_the_change_in_every_form(self, calls: Bench) -> None:
        made = calls.create("Animal", {"name": "Ox", "weight": 1.0})
        ox = {"name": "Ox"}
        keys: list[dict[str, Any]] = [{"id": made["id"]}, {"record_id": made["id"]}, {"conditions": ox}, {"filter": ox}]
        forms = (lambda change: change, lambda change: {"values": change}, lambda change: {"fields": change})
        for legs, (key, form) in enumerate(product(keys, forms)):
            changed = calls.call("update", "Animal", **key, **form({"legs": legs}))
            assert (changed["legs"], changed["updated"], changed["name"]) == (legs, 1, "Ox")
        assert changed["created_at"] == made["created_at"]
        assert changed["updated_at"] > made["updated_at"]
        assert calls.update("Animal", made["id"], {"weight": None})["weight"] is None

    def test_update_of_what_is_not_there_changes_nothing_and_says_so(self, calls: Bench) -> None:
        assert calls.update("Animal", 99, {"legs": 3}) == {"id": 99, "updated": 0}
        assert calls.call("update", "Animal", conditions={"name": "Gnu"}, legs=3) == {"updated": 0}
        with pytest.raises(NotFoundError):
            calls.update("Animal", 99, {"legs": 3}, raise_on_not_found=True)

    def test_update_by_conditions_changes_all_and_returns_the_first(self, calls: Bench) -> None:
        first, second = (calls.create("Animal", {"name": name})["id"] for name in ("Ox", "Emu"))
        changed = calls.call("update", "Animal", conditions={"legs": 4}, legs=2)
        assert (changed["id"], changed["updated"]) == (first, 2)
        assert calls.read("Animal", second)["legs"] == 2

    def test_updated_at_is_set_by_each_update_unless_given(self, calls: Bench) -> None:
        key = calls.create("Animal", {"name": "Ox"})["id"]
        assert calls.update("Animal", key, {"updated_at": _LONG_AGO})["updated_at"] == _LONG_AGO
        assert calls.update("Animal", key, {"legs": 3})["updated_at"] > _LONG_AGO

    def test_delete_tells_how_many_and_which(self, calls: Bench) -> None:
        first, second = (calls.create("Animal", {"name": name})["id"] for name in ("Ox", "Emu"))
        gone = calls.delete("Animal", first)
        assert (gone, gone["_status"]) == ({"deleted": 1, "id": first}, {"deleted": 1})
        assert calls.delete("Animal", first) == {"deleted": 0, "id": first}
        assert calls.call("delete", "Animal", conditions={"name": "Emu"}) == {"deleted": 1, "id": second}
        assert calls.call("delete", "Animal", conditions={"name": "Emu"}) == {"deleted": 0}
        assert calls.count("Animal") == {"count": 0}
