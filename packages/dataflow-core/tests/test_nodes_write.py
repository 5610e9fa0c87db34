"""Create, Update, Delete and Upsert nodes: parameters, results, operators, exactness."""

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from uuid import UUID, uuid4

import pytest

from dataflow import Factory
from dataflow.errors import InputError, NotFoundError, QueryError, UniqueError, WorkflowExecutionError


class Mood(Enum):
    CALM = "calm"
    WILD = "wild"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


@pytest.fixture
def zoo(bench: Any) -> Any:
    db = bench.db

    @db.model
    class Animal:
        name: str
        legs: int = 4
        weight: float | None = None
        price: Decimal = Decimal("0.10")
        tame: bool = False
        mood: Mood = Mood.CALM
        level: Level = Level.LOW
        born: datetime | None = None
        day: date | None = None
        feeding: time | None = None
        chip: UUID | None = None
        photo: bytes | None = None
        notes: dict = {}  # noqa: RUF012
        anything: Any = None
        tags: list[str] = []  # noqa: RUF012
        chips: list[UUID] = []  # noqa: RUF012
        __indexes__ = [{"name": "uq_animals_chip", "fields": ["chip"], "unique": True}]  # noqa: RUF012

    @db.model
    class Keeper:
        name: str
        badge: str
        shift: str
        hours: int = 0
        __indexes__ = [{"name": "uq_keepers", "fields": ["badge", "shift"], "unique": True}]  # noqa: RUF012

    return bench


def cause(caught: Any) -> Any:
    """Return what made a node fail."""
    assert isinstance(caught.value, WorkflowExecutionError)
    return caught.value.__cause__


# -- create -----------------------------------------------------------------------------------------------------------
def test_create_returns_every_column_with_its_python_type(zoo: Any) -> None:
    born = datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC)
    chip = uuid4()
    given = {
        "name": "Løve 🦁", "legs": -(2**63), "weight": 0.1, "price": Decimal("19.990000000000000001"), "tame": True,
        "mood": Mood.WILD, "level": Level.HIGH, "born": born, "day": date(1, 1, 1), "feeding": time(23, 59, 59, 1),
        "chip": chip, "photo": b"\x00\xff", "notes": {"b": [1, 2.5, None, True], "a": {"ö": "ü"}},
        "anything": [1, "two"], "tags": ["a", ""], "chips": [chip],
    }  # fmt: skip
    made = zoo.run("AnimalCreateNode", given)
    read = zoo.run("AnimalReadNode", {"id": made["id"]})
    for record in (made, read):
        for name, value in given.items():
            assert record[name] == value, name
            assert type(record[name]) is type(value), name
        assert record["created_at"] == record["updated_at"]
        assert record["created_at"].tzinfo is UTC
    assert made["id"] == 1
    assert abs(datetime.now(UTC) - made["created_at"]) < timedelta(minutes=1)


def test_create_fills_defaults_and_leaves_the_rest_none(zoo: Any) -> None:
    made = zoo.run("AnimalCreateNode", {"name": "Ox"})
    expected = {
        "legs": 4, "weight": None, "price": Decimal("0.1"), "tame": False, "mood": Mood.CALM, "level": Level.LOW,
        "born": None, "chip": None, "photo": None, "notes": {}, "anything": None, "tags": [], "chips": [],
    }  # fmt: skip
    assert {name: made[name] for name in expected} == expected


def test_create_accepts_only_the_documented_conversions(zoo: Any) -> None:
    chip = uuid4()
    made = zoo.run(
        "AnimalCreateNode", name="Ox", weight=700, price=12, chip=str(chip).upper(), mood="wild", level="HIGH"
    )
    assert (made["weight"], type(made["weight"])) == (700.0, float)
    assert (made["price"], type(made["price"])) == (Decimal(12), Decimal)
    assert (made["chip"], made["mood"], made["level"]) == (chip, Mood.WILD, Level.HIGH)


def test_decimals_lose_trailing_zeros_and_exponents_but_no_digit(zoo: Any) -> None:
    for given, shown in (("1.10", "1.1"), ("1E+3", "1000"), ("-0.00", "0"), ("0.0000010", "0.000001")):
        made = zoo.run("AnimalCreateNode", name="Ox", price=Decimal(given))
        assert str(made["price"]) == shown
    tiny = Decimal("0.000000000000000000001")
    assert zoo.run("AnimalCreateNode", name="Ox", price=tiny)["price"] == tiny


def test_negative_zero_becomes_zero(zoo: Any) -> None:
    made = zoo.run("AnimalCreateNode", name="Ox", weight=-0.0, notes={"x": -0.0})
    assert str(made["weight"]) == "0.0"
    assert str(zoo.run("AnimalReadNode", id=made["id"])["notes"]["x"]) == "0.0"


def test_json_comes_back_with_sorted_keys(zoo: Any) -> None:
    made = zoo.run("AnimalCreateNode", name="Ox", notes={"b": 1, "a": {"d": 1, "c": 2}})
    assert list(made["notes"]) == ["a", "b"]
    assert list(made["notes"]["a"]) == ["c", "d"]


def test_datetimes_are_instants_returned_in_utc(zoo: Any) -> None:
    tokyo = timezone(timedelta(hours=9))
    made = zoo.run("AnimalCreateNode", name="Ox", born=datetime(2024, 1, 1, 9, tzinfo=tokyo))
    assert made["born"] == datetime(2024, 1, 1, tzinfo=UTC)
    assert made["born"].tzinfo is UTC
    naive = datetime(2024, 7, 1, 12)  # noqa: DTZ001
    assert zoo.run("AnimalCreateNode", name="Ox", born=naive)["born"] == naive.astimezone(UTC)


def test_created_at_may_be_given(zoo: Any) -> None:
    old = datetime(2001, 1, 1, tzinfo=UTC)
    assert zoo.run("AnimalCreateNode", name="Ox", created_at=old)["created_at"] == old


def test_fields_may_come_as_values(zoo: Any) -> None:
    made = zoo.run("AnimalCreateNode", {"values": {"name": "Ox", "legs": 3}})
    assert (made["name"], made["legs"]) == ("Ox", 3)
    made = zoo.run("AnimalCreateNode", {"legs": 2, "_values": {"name": "Emu"}})
    assert (made["name"], made["legs"]) == ("Emu", 2)


def test_status_tells_what_happened_and_result_is_the_whole(zoo: Any) -> None:
    made = zoo.run("AnimalCreateNode", name="Ox")
    assert made["_status"] == {"created": True}
    assert made["_result"] is made["result"] is made
    assert "created" not in made  # the record's own columns only


def test_a_created_record_is_a_copy_that_changes_nothing(zoo: Any) -> None:
    tags = ["a"]
    made = zoo.run("AnimalCreateNode", name="Ox", tags=tags)
    tags.append("b")
    made["tags"].append("c")
    zoo.db.get_model("Animal").tags.append("d")  # the class's default list, after registration
    assert zoo.run("AnimalReadNode", id=made["id"])["tags"] == ["a"]
    assert zoo.run("AnimalCreateNode", name="Ox")["tags"] == []


def test_explicit_ids_advance_the_sequence_and_no_id_is_used_twice(zoo: Any) -> None:
    assert zoo.run("AnimalCreateNode", id=41, name="Ox")["id"] == 41
    assert zoo.run("AnimalCreateNode", name="Emu")["id"] == 42
    zoo.run("AnimalDeleteNode", id=42)
    assert zoo.run("AnimalCreateNode", name="Yak")["id"] == 43


def test_a_unique_key_is_enforced_and_named(zoo: Any) -> None:
    chip = uuid4()
    zoo.run("AnimalCreateNode", name="Ox", chip=chip)
    with pytest.raises(WorkflowExecutionError) as caught:
        zoo.run("AnimalCreateNode", name="Emu", chip=chip)
    assert isinstance(cause(caught), UniqueError)
    assert cause(caught).where["columns"] == "chip"
    zoo.run("AnimalCreateNode", name="Emu", chip=None)
    zoo.run("AnimalCreateNode", name="Yak", chip=None)  # None is no value, so it is not taken
    assert zoo.run("AnimalCountNode")["count"] == 3


# -- update -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def ox(zoo: Any) -> Any:
    return zoo.run("AnimalCreateNode", name="Ox", weight=700.5, tags=["big"], notes={"list": [1]})


@pytest.mark.parametrize("key", [{"id": 1}, {"record_id": 1}, {"conditions": {"id": 1}}, {"filter": {"name": "Ox"}}])
@pytest.mark.parametrize("change", [{"legs": 3}, {"values": {"legs": 3}}, {"fields": {"legs": 3}}])
def test_update_takes_the_record_and_the_change_in_any_form(zoo: Any, ox: Any, key: Any, change: Any) -> None:
    changed = zoo.run("AnimalUpdateNode", {**key, **change})
    assert changed["legs"] == 3
    assert changed["updated"] == 1
    assert changed["_status"] == {"updated": 1}
    assert changed["name"] == "Ox"
    assert changed["created_at"] == ox["created_at"]
    assert changed["updated_at"] >= ox["updated_at"]


def test_update_of_a_missing_record_changes_nothing_and_says_so(zoo: Any, ox: Any) -> None:
    assert zoo.run("AnimalUpdateNode", id=99, legs=3) == {"id": 99, "updated": 0}
    assert zoo.run("AnimalUpdateNode", conditions={"name": "Gnu"}, legs=3) == {"updated": 0}
    with pytest.raises(WorkflowExecutionError) as caught:
        zoo.run("AnimalUpdateNode", id=99, legs=3, raise_on_not_found=True)
    assert isinstance(cause(caught), NotFoundError)


def test_update_by_conditions_returns_the_first_record_and_the_number(zoo: Any, ox: Any) -> None:
    zoo.run("AnimalCreateNode", name="Emu")
    changed = zoo.run("AnimalUpdateNode", conditions={"legs": 4}, legs=2)
    assert (changed["id"], changed["updated"]) == (1, 2)


def test_update_to_none_stores_null(zoo: Any, ox: Any) -> None:
    assert zoo.run("AnimalUpdateNode", id=1, weight=None)["weight"] is None


def test_update_sets_updated_at_by_the_frameworks_clock_unless_given(zoo: Any, ox: Any) -> None:
    old = datetime(2001, 1, 1, tzinfo=UTC)
    assert zoo.run("AnimalUpdateNode", id=1, updated_at=old)["updated_at"] == old
    assert zoo.run("AnimalUpdateNode", id=1, legs=3)["updated_at"] > old


@pytest.mark.parametrize(
    ("change", "field", "expected"),
    [
        ({"legs": {"$inc": 2}}, "legs", 6),
        ({"legs": {"$inc": -6}}, "legs", -2),
        ({"legs": {"$dec": 1}}, "legs", 3),
        ({"legs": {"$multiply": 3}}, "legs", 12),
        ({"legs": {"$multiply": 0.5}}, "legs", 2),
        ({"legs": {"$multiply": Decimal("0.25")}}, "legs", 1),
        ({"legs": {"$divide": 2}}, "legs", 2),
        ({"legs": {"$min": 3}}, "legs", 3),
        ({"legs": {"$min": 9}}, "legs", 4),
        ({"legs": {"$max": 9}}, "legs", 9),
        ({"legs": {"$set": 7}}, "legs", 7),
        ({"weight": {"$inc": 1}}, "weight", 701.5),
        ({"weight": {"$multiply": 2}}, "weight", 1401.0),
        ({"weight": {"$divide": 4}}, "weight", 175.125),
        ({"price": {"$inc": Decimal("0.000000000000000000001")}}, "price", Decimal("0.100000000000000000001")),
        ({"price": {"$multiply": 3}}, "price", Decimal("0.3")),
        ({"price": {"$multiply": Decimal("1.1")}}, "price", Decimal("0.11")),
        ({"price": {"$divide": 8}}, "price", Decimal("0.0125")),
        ({"price": {"$max": Decimal(9)}}, "price", Decimal(9)),
        ({"price": {"$min": Decimal("0.09")}}, "price", Decimal("0.09")),
        ({"name": {"$max": "Yak"}}, "name", "Yak"),
        ({"tags": {"$append": "calm"}}, "tags", ["big", "calm"]),
        ({"chips": {"$append": UUID(int=7)}}, "chips", [UUID(int=7)]),
        ({"weight": {"$unset": True}}, "weight", None),
        ({"$inc": {"legs": 2}}, "legs", 6),
        ({"$set": {"legs": 5}}, "legs", 5),
    ],
)
def test_update_operators_run_in_the_database(zoo: Any, ox: Any, change: Any, field: str, expected: Any) -> None:
    changed = zoo.run("AnimalUpdateNode", {"id": 1, "values": change})
    assert changed[field] == expected
    assert type(changed[field]) is type(expected)
    assert zoo.run("AnimalReadNode", id=1)[field] == expected


def test_several_operators_in_one_update_all_see_the_old_record(zoo: Any, ox: Any) -> None:
    changed = zoo.run("AnimalUpdateNode", {"id": 1, "legs": {"$inc": 1}, "$multiply": {"weight": 2}, "name": "Bull"})
    assert (changed["legs"], changed["weight"], changed["name"]) == (5, 1401.0, "Bull")


def test_arithmetic_on_none_stays_none(zoo: Any, ox: Any) -> None:
    zoo.run("AnimalUpdateNode", id=1, weight=None)
    assert zoo.run("AnimalUpdateNode", id=1, weight={"$inc": 1})["weight"] is None


def test_append_to_none_makes_a_list(zoo: Any, ox: Any) -> None:
    assert zoo.run("AnimalUpdateNode", id=1, anything={"$append": {"a": 1}})["anything"] == [{"a": 1}]
    assert zoo.run("AnimalUpdateNode", id=1, anything={"$append": 2})["anything"] == [{"a": 1}, 2]


def test_a_json_value_may_hold_dollar_keys_when_set_explicitly(zoo: Any, ox: Any) -> None:
    changed = zoo.run("AnimalUpdateNode", {"id": 1, "notes": {"$set": {"$inc": 1}}})
    assert changed["notes"] == {"$inc": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"legs": {"$divide": 3}}, "the result is not a whole number; nothing is rounded silently"),
        ({"legs": {"$multiply": 0.3}}, "the result is not a whole number; nothing is rounded silently"),
        ({"legs": {"$multiply": 2**62}}, "the result does not fit in 64 bits"),
        ({"legs": {"$inc": 2**63 - 1}}, "the result does not fit in 64 bits"),
        ({"notes": {"$append": 1}}, "$append needs a list, and the stored JSON is not one"),
    ],
)
def test_a_result_that_does_not_fit_is_an_error_and_changes_nothing(
    zoo: Any, ox: Any, change: Any, message: str
) -> None:
    before = dict(zoo.run("AnimalReadNode", id=1))
    with pytest.raises(WorkflowExecutionError) as caught:
        zoo.run("AnimalUpdateNode", {"id": 1, **change})
    assert isinstance(cause(caught), QueryError)
    assert cause(caught).message == message
    assert zoo.run("AnimalReadNode", id=1) == before


def test_a_float_result_beyond_all_floats_is_an_error(zoo: Any, ox: Any) -> None:
    with pytest.raises(WorkflowExecutionError):
        zoo.run("AnimalUpdateNode", id=1, weight={"$multiply": 1.7e308})
    assert zoo.run("AnimalReadNode", id=1)["weight"] == 700.5


@pytest.mark.parametrize("field", ["legs", "weight", "price"])
def test_division_by_zero_is_an_error_also_when_it_comes_late(zoo: Any, ox: Any, field: str) -> None:
    zoo.late("AnimalUpdateNode", {"id": 1, field: {"$divide": 1}})  # the same shape of call, compiled
    with pytest.raises(WorkflowExecutionError, match=r"\$divide by zero"):
        zoo.late("AnimalUpdateNode", {"id": 1, field: {"$divide": 0}})


# -- delete -----------------------------------------------------------------------------------------------------------
def test_delete_tells_how_many_and_which(zoo: Any, ox: Any) -> None:
    gone = zoo.run("AnimalDeleteNode", id=1)
    assert gone == {"deleted": 1, "id": 1}
    assert gone["_status"] == {"deleted": 1}
    assert zoo.run("AnimalDeleteNode", record_id=1) == {"deleted": 0, "id": 1}
    assert zoo.run("AnimalCountNode")["count"] == 0


def test_delete_by_conditions(zoo: Any, ox: Any) -> None:
    zoo.run("AnimalCreateNode", name="Emu")
    assert zoo.run("AnimalDeleteNode", conditions={"name": "Emu"}) == {"deleted": 1, "id": 2}
    assert zoo.run("AnimalDeleteNode", conditions={"name": "Emu"}) == {"deleted": 0}
    assert zoo.run("AnimalDeleteNode", conditions={"legs": {"$gt": 0}})["deleted"] == 1


# -- upsert -----------------------------------------------------------------------------------------------------------
def test_upsert_creates_then_updates_and_tells_which(zoo: Any) -> None:
    params = {"where": {"badge": "b1", "shift": "night"}, "create": {"name": "Kim"}, "update": {"hours": {"$inc": 8}}}
    first = zoo.run("KeeperUpsertNode", params)
    again = zoo.run("KeeperUpsertNode", params)
    assert (first["created"], first["hours"], first["id"]) == (True, 0, 1)
    assert (again["created"], again["hours"], again["id"]) == (False, 8, 1)
    assert again["_status"] == {"created": False}
    assert again["created_at"] == first["created_at"]


def test_upsert_without_update_writes_what_create_says(zoo: Any) -> None:
    where = {"badge": "b1", "shift": "night"}
    zoo.run("KeeperUpsertNode", where=where, create={"name": "Kim", "hours": 3})
    again = zoo.run("KeeperUpsertNode", where=where, create={"name": "Kay"})
    assert (again["name"], again["hours"], again["created"]) == ("Kay", 3, False)


def test_upsert_with_an_empty_update_keeps_the_record(zoo: Any) -> None:
    where = {"badge": "b1", "shift": "night"}
    first = zoo.run("KeeperUpsertNode", where=where, create={"name": "Kim"}, update={})
    again = zoo.run("KeeperUpsertNode", where=where, create={"name": "Kay"}, update={})
    assert again["created"] is False
    assert {**again, "created": True} == first


def test_upsert_by_id_and_by_conflict_on(zoo: Any) -> None:
    made = zoo.run("KeeperUpsertNode", where={"id": 5}, create={"name": "Kim", "badge": "b", "shift": "day"})
    assert (made["id"], made["created"]) == (5, True)
    again = zoo.run(
        "KeeperUpsertNode",
        where={"shift": "day", "badge": "b"},
        create={"name": "Kay"},
        conflict_on=["badge", "shift"],
    )
    assert (again["id"], again["name"], again["created"]) == (5, "Kay", False)


def test_upsert_that_breaks_another_key_is_an_error(zoo: Any) -> None:
    zoo.run("KeeperCreateNode", name="Kim", badge="b", shift="day")
    with pytest.raises(WorkflowExecutionError) as caught:
        zoo.run("KeeperUpsertNode", where={"id": 9}, create={"name": "Kay", "badge": "b", "shift": "day"})
    assert isinstance(cause(caught), UniqueError)
    assert zoo.run("KeeperCountNode")["count"] == 1


def test_upsert_finds_records_by_uuid_and_text_of_it(zoo: Any) -> None:
    chip = uuid4()
    zoo.run("AnimalUpsertNode", where={"chip": chip}, create={"name": "Ox"})
    assert zoo.run("AnimalUpsertNode", where={"chip": str(chip)}, create={"name": "Bull"})["created"] is False


# -- factories --------------------------------------------------------------------------------------------------------
def test_a_factory_runs_for_each_record(bench: Any) -> None:
    @bench.db.model
    class Ticket:
        code: UUID = Factory(uuid4)
        seats: list[int] = Factory(lambda: [1])

    one, two = bench.run("TicketCreateNode"), bench.run("TicketCreateNode")
    assert one["code"] != two["code"]
    assert one["seats"] == [1]
    codes = {bench.run("TicketReadNode", id=i)["code"] for i in bench.run(
        "TicketBulkCreateNode", data=[{}, {}, {"seats": []}], return_ids=True)["ids"]}  # fmt: skip
    assert len(codes | {one["code"], two["code"]}) == 5


def test_a_factory_that_gives_a_wrong_value_is_an_error_that_names_the_field(bench: Any) -> None:
    @bench.db.model
    class Ticket:
        seats: int = Factory(lambda: "many")

    with pytest.raises(WorkflowExecutionError) as caught:
        bench.run("TicketCreateNode")
    assert isinstance(cause(caught), InputError)
    assert cause(caught).message == "seats: expected int, got str"
    assert bench.run("TicketCountNode")["count"] == 0
