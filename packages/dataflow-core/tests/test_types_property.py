"""Every field type gives back exactly what was stored, along every way in and every way out; the rest is refused."""

import enum
import math
import sys
import time as clock
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dataflow import DataFlow
from dataflow.errors import InputError
from dataflow.testing.oracle import INT_MAX, INT_MIN, Color, Level, canonical

SETTINGS = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


class Digit(enum.IntEnum):
    ONE = 1


class Label(enum.StrEnum):
    RED = "red"


# -- what may be stored, and what comes back ------------------------------------------------------------------------
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
naive = datetime.fromisoformat
FIRST, LAST = naive("0001-01-02"), naive("9999-12-30")
moments = st.datetimes(FIRST, LAST, timezones=st.sampled_from([UTC, timezone(timedelta(hours=-9, minutes=-30))]))
decimals = st.decimals(allow_nan=False, allow_infinity=False) | st.builds(
    lambda sign, digits, exponent: Decimal((sign, tuple(digits), exponent)),
    st.integers(0, 1),
    st.lists(st.integers(0, 9), min_size=1, max_size=60),
    st.integers(-80, 80),
)
floats = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | floats | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def plain_json(value):
    """Normalise JSON as the specification says: sorted keys, no -0.0, whole numbers from 1e16 on as integers."""
    if isinstance(value, dict):
        return {key: plain_json(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [plain_json(item) for item in value]
    if isinstance(value, float):
        return int(value) if abs(value) >= 1e16 else value + 0.0
    return value


def plain_decimal(value):
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return Decimal(0) if Decimal(text) == 0 else Decimal(text)


def same(value):
    return value


def each(convert):
    return lambda values: [convert(value) for value in values]


def in_utc(value):
    return value.astimezone(UTC).replace(fold=0)


def zero_safe(value):
    return value + 0.0


TYPES: dict[str, tuple[Any, st.SearchStrategy[Any], Any]] = {
    "Int": (int, st.integers(INT_MIN, INT_MAX) | st.sampled_from([INT_MIN, INT_MAX, 0, 2**53 + 1]), same),
    "Float": (float, floats | st.sampled_from([-0.0, 5e-324, -5e-324, sys.float_info.max, 0.1 + 0.2]), zero_safe),
    "Str": (str, texts, same),
    "Bool": (bool, st.booleans(), same),
    "Bytes": (bytes, st.binary() | st.sampled_from([b"", b"\0", b"a\0b"]), same),
    "Moment": (datetime, moments, in_utc),
    "Date": (date, st.dates() | st.sampled_from([date.min, date.max]), same),
    "Time": (time, st.times() | st.sampled_from([time.min, time.max]), lambda value: value.replace(fold=0)),
    "Dec": (Decimal, decimals, plain_decimal),
    "Uuid": (UUID, st.uuids(), same),
    "Color": (Color, st.sampled_from(list(Color)), same),
    "Level": (Level, st.sampled_from(list(Level)), same),
    "Label": (Label, st.sampled_from(list(Label)), same),
    "Json": (Any, json_values.filter(lambda value: value is not None), plain_json),
    "Dict": (dict, st.dictionaries(texts, json_values, max_size=4), plain_json),
    "IntList": (list[int], st.lists(st.integers(INT_MIN, INT_MAX)), same),
    "FloatList": (list[float], st.lists(floats), each(zero_safe)),
    "StrList": (list[str], st.lists(texts), same),
    "BoolList": (list[bool], st.lists(st.booleans()), same),
    "BytesList": (list[bytes], st.lists(st.binary()), same),
    "MomentList": (list[datetime], st.lists(moments), each(in_utc)),
    "DateList": (list[date], st.lists(st.dates()), same),
    "TimeList": (list[time], st.lists(st.times()), each(lambda value: value.replace(fold=0))),
    "DecList": (list[Decimal], st.lists(decimals), each(plain_decimal)),
    "UuidList": (list[UUID], st.lists(st.uuids()), same),
    "ColorList": (list[Color], st.lists(st.sampled_from(list(Color))), same),
    "JsonList": (list[dict[str, Any]], st.lists(st.dictionaries(texts, json_values, max_size=2)), plain_json),
}
"""name -> (annotation, values, what comes back)."""


@pytest.fixture(scope="module")
def db(module_bench):
    for name, (annotation, _, _) in TYPES.items():
        body = {
            "__annotations__": {"key": str, "value": annotation, "maybe": annotation | None},
            "__indexes__": [{"name": f"uq_{name}", "fields": ["key"], "unique": True}],
            "maybe": None,
        }
        module_bench.db.model(type(name, (), body))
    return module_bench.db


def everything(db, model):
    return {row["key"]: row for row in db.express_sync.list(model)["records"]}


def write_all_ways(db, model, value, other):
    """Store `value` along every way in; `other` is what changes start from."""
    x = db.express_sync
    start = {"value": other, "maybe": other}
    created = x.create(model, {"key": "create", "value": value, "maybe": value})
    ids = x.bulk_create(
        model,
        [{"key": "bulk_create", "value": value, "maybe": value}]
        + [{"key": key, **start} for key in ("update", "set", "bulk_update", "by_rows", "upsert", "bulk_upsert")],
        return_ids=True,
    )["ids"]
    answers = [created, x.update(model, ids[1], {"value": value, "maybe": value})]
    answers.append(x.update(model, ids[2], {"$set": {"value": value, "maybe": value}}))
    x.bulk_update(model, filter={"key": "bulk_update"}, update={"value": {"$set": value}, "maybe": {"$set": value}})
    x.bulk_update(model, data=[{"id": ids[4], "value": value, "maybe": value}])
    for key in ("upsert", "upsert_new"):
        answers.append(x.upsert(model, {"key": key}, create={"value": value, "maybe": value}))
    x.bulk_upsert(
        model, [{"key": key, "value": value, "maybe": value} for key in ("bulk_upsert", "bulk_upsert_new")], ["key"]
    )
    x.create(model, {"key": "null", "value": value, "maybe": None})
    x.bulk_create(model, [{"key": "bulk_null", "value": value, "maybe": None}, {"key": "left_out", "value": value}])
    answers.append(x.read(model, ids[0]))
    return answers


@pytest.mark.parametrize("model", TYPES)
def test_a_value_comes_back_the_same_along_every_way_in_and_out(db, model):
    _, values, restored = TYPES[model]

    @settings(SETTINGS, max_examples=15)
    @given(value=values, other=values)
    def check(value, other):
        db.express_sync.bulk_delete(model, filter={}, confirmed=True)
        before = canonical([value])
        answers = write_all_ways(db, model, value, other)
        expected = canonical(restored(value))
        assert canonical([value]) == before, "the caller's own value is left as it was"
        rows = everything(db, model)
        assert len(rows) == 13
        for row in [*answers, *rows.values()]:
            assert canonical(row["value"]) == expected, row["key"]
            if row["key"] not in ("null", "bulk_null", "left_out"):
                assert canonical(row["maybe"]) == expected, row["key"]
        assert [rows[key]["maybe"] for key in ("null", "bulk_null", "left_out")] == [None] * 3
        for question in ({"value": {"$eq": value}}, {"value": {"$in": [value]}}, {"maybe": {"$in": [None, value]}}):
            assert db.express_sync.count(model, question)["count"] == 13, question
        assert db.express_sync.count(model, {"maybe": {"$eq": value}})["count"] == 10
        assert db.express_sync.count(model, {"value": {"$ne": value}})["count"] == 0

    check()


@settings(SETTINGS, max_examples=60)
@given(moment=st.datetimes(FIRST, LAST), fold=st.integers(0, 1))
@example(naive("2025-10-26T02:30"), 0)
@example(naive("2025-10-26T02:30"), 1)
@example(naive("2025-03-30T02:30"), 0)
@example(naive("2025-03-30T02:30"), 1)
def test_an_instant_is_the_same_whether_its_offset_is_written_or_follows_from_a_time_zone(db, moment, fold):
    aware = moment.replace(tzinfo=ZoneInfo("Europe/Berlin"), fold=fold)
    instant = aware.astimezone(UTC)
    row = db.express_sync.create("Moment", {"key": f"{moment}{fold}", "value": aware})
    assert canonical(row["value"]) == canonical(instant)
    fixed = aware.astimezone(timezone(timedelta(hours=14)))
    assert row["id"] in [r["id"] for r in db.express_sync.list("Moment", {"value": fixed}, fields=["id"])["records"]]
    db.express_sync.delete("Moment", row["id"])


@pytest.mark.parametrize("fold", [0, 1])
def test_a_naive_datetime_is_local_time_also_in_the_hour_that_comes_twice(db, monkeypatch, fold):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    clock.tzset()
    try:
        value = naive("2025-10-26T02:30").replace(fold=fold)
        row = db.express_sync.create("Moment", {"key": f"naive {fold}", "value": value})
        assert row["value"] == datetime(2025, 10, 26, fold, 30, tzinfo=UTC)
        assert db.express_sync.count("Moment", {"id": row["id"], "value": value})["count"] == 1
    finally:
        monkeypatch.undo()
        clock.tzset()


@pytest.mark.parametrize(
    ("meaning", "expected"),
    [("utc", datetime(2025, 1, 1, 12, tzinfo=UTC)), ("reject", None)],
)
def test_the_setting_naive_datetimes_says_what_a_datetime_without_offset_means(meaning, expected):
    with DataFlow(":memory:", naive_datetimes=meaning) as db:

        @db.model
        class Event:
            at: datetime

        value = naive("2025-01-01T12:00")
        if expected is None:
            with pytest.raises(InputError, match="without offset is refused"):
                db.express_sync.create("Event", {"at": value})
            assert db.express_sync.count("Event") == {"count": 0}
        else:
            assert db.express_sync.create("Event", {"at": value})["at"] == expected


def test_the_first_and_the_last_instant_are_stored_and_what_lies_beyond_in_utc_is_refused(db):
    for value in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
        assert db.express_sync.create("Moment", {"key": str(value), "value": value})["value"] == value
    for value in (
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
    ):
        with pytest.raises(InputError, match="outside the years 1 to 9999"):
            db.express_sync.create("Moment", {"key": str(value), "value": value})


@pytest.mark.parametrize(
    "text",
    ["1" * 131_072, "1" + "0" * 131_071, "0." + "0" * 16_382 + "1", "-" + "9" * 1000 + "." + "9" * 1000],
    ids=["many digits", "many zeros", "tiny", "long"],
)
def test_a_decimal_keeps_every_digit_up_to_the_limits_of_databases(db, text):
    value = Decimal(text)
    row = db.express_sync.create("Dec", {"key": str(hash(text)), "value": value})
    assert canonical(row["value"]) == canonical(value)
    assert db.express_sync.count("Dec", {"id": row["id"], "value": {"$gte": value, "$lte": value}})["count"] == 1


class Odd(str):
    __slots__ = ()


def test_values_of_subclasses_are_stored_as_the_plain_type(db):
    for model, value, expected in (
        ("Int", Digit.ONE, 1),
        ("Float", 3, 3.0),
        ("Str", Odd("x"), "x"),
        ("Str", Label.RED, "red"),
        ("Dec", 7, Decimal(7)),
        ("Uuid", "{00000000-0000-0000-0000-00000000000A}", UUID(int=10)),
        ("Color", "Blue", Color.DEEP_BLUE),
        ("Level", "HIGH", Level.HIGH),
        ("Bytes", bytearray(b"x"), b"x"),
        ("StrList", ("a", Odd("b")), ["a", "b"]),
        ("Json", {"b": (1, Digit.ONE), "a": Odd("x")}, {"a": "x", "b": [1, 1]}),
    ):
        one = db.express_sync.create(model, {"key": f"one {value!r}", "value": value})
        made = db.express_sync.bulk_create(model, [{"key": f"all {value!r}", "value": value}], return_ids=True)
        for row in (one, db.express_sync.read(model, made["ids"][0])):
            assert canonical(row["value"]) == canonical(expected)


def nest(levels):
    found: Any = []
    for _ in range(levels - 1):
        found = [found]
    return found


REFUSED: dict[str, list[Any]] = {
    "Int": [2**63, -(2**63) - 1, True, 1.0, "1", Decimal(1), math.nan, None, [], {}],
    "Float": [math.nan, math.inf, -math.inf, True, "1.5", Decimal(1), 10**400, None],
    "Str": ["a\0b", "\ud800", 1, b"x", None, UUID(int=1), ["a"]],
    "Bool": [0, 1, "true", None, 1.0],
    "Bytes": ["x", 1, None, [1], memoryview(b"x")],
    "Moment": ["2025-01-01T00:00:00+00:00", date(2025, 1, 1), 0, None],
    "Date": [datetime(2025, 1, 1, tzinfo=UTC), "2025-01-01", 0, None],
    "Time": [time(12, tzinfo=UTC), "12:00", datetime(2025, 1, 1, tzinfo=UTC), None],
    "Dec": [*map(Decimal, ("NaN", "sNaN", "Infinity", "1E+131072", "1E-16384")), 1.5, "1", True],
    "Uuid": ["no", 1, b"0" * 16, None, ""],
    "Color": ["RED", "blue", 1, None, Level.LOW, ""],
    "Level": [1, "zz", Level.HIGH.value, Color.RED, None],
    "Json": [
        {1: "a"}, {"a": math.nan}, [math.inf], {"a": "\0"}, {"a": "\ud800"}, {"\0": 1}, {"a": {1, 2}}, [b"x"],
        Decimal(1), nest(201), nest(100_000),
    ],
    "Dict": [None, {"a": datetime(2025, 1, 1, tzinfo=UTC)}],
    "IntList": ["1", [None], [1, "2"], [True], [2**63], {1}, 1, None],
    "FloatList": [[math.nan], ["1"], [None]],
    "StrList": ["abc", ["a", None], ["a\0"], ["\ud800"], [1]],
    "BoolList": [[1]],
    "BytesList": [["x"]],
    "DateList": [["2025-01-01"], [datetime(2025, 1, 1, tzinfo=UTC)]],
    "DecList": [[1.5], [Decimal("NaN")]],
    "ColorList": [["RED"], [Level.LOW]],
}  # fmt: skip


@pytest.mark.parametrize("model", REFUSED)
def test_a_value_that_does_not_fit_is_refused_on_every_way_in_and_nothing_is_written(db, model):
    x = db.express_sync
    x.bulk_delete(model, filter={}, confirmed=True)
    good = next(iter(good_values(model)))
    first = x.create(model, {"key": "first", "value": good})
    before = everything(db, model)
    for bad in REFUSED[model]:
        ways = {
            "create": lambda bad=bad: x.create(model, {"key": "bad", "value": bad}),
            "bulk_create": lambda bad=bad: x.bulk_create(
                model, [{"key": "good", "value": good}, {"key": "bad", "value": bad}]
            ),
            "update": lambda bad=bad: x.update(model, first["id"], {"key": "changed", "value": bad}),
            "bulk_update": lambda bad=bad: x.bulk_update(model, filter={}, update={"key": "k", "value": {"$set": bad}}),
            "by_rows": lambda bad=bad: x.bulk_update(model, data=[{"id": first["id"], "value": bad}]),
            "upsert": lambda bad=bad: x.upsert(model, {"key": "first"}, create={"value": bad}),
            "bulk_upsert": lambda bad=bad: x.bulk_upsert(
                model, [{"key": "good", "value": good}, {"key": "first", "value": bad}], ["key"]
            ),
        }
        for name, way in ways.items():
            for _ in range(2):  # the second time by the cached plan
                with pytest.raises(InputError, match="value") as caught:
                    way()
                assert everything(db, model) == before, (name, type(bad))
                if isinstance(bad, str) and len(bad) > 2 and bad != "true":
                    assert bad not in str(caught.value)


def good_values(model):
    return {
        "Int": [1], "Float": [1.0], "Str": ["a"], "Bool": [True], "Bytes": [b""],
        "Moment": [datetime(2025, 1, 1, tzinfo=UTC)],
        "Date": [date(2025, 1, 1)], "Time": [time(1)], "Dec": [Decimal(1)], "Uuid": [UUID(int=1)], "Color": [Color.RED],
        "Level": [Level.LOW], "Json": [{}], "Dict": [{}],
    }.get(model, [[]])  # fmt: skip


def test_json_is_stored_up_to_two_hundred_levels(db):
    row = db.express_sync.create("Json", {"key": "deep", "value": nest(200)})
    assert row["value"] == nest(200)
    assert db.express_sync.count("Json", {"value": {"$eq": nest(200)}, "id": row["id"]}) == {"count": 1}


def test_many_good_values_do_not_hide_a_bad_one(db):
    db.express_sync.bulk_delete("Float", filter={}, confirmed=True)
    huge = sys.float_info.max
    rows = [{"key": str(n), "value": huge} for n in range(5)]
    assert db.express_sync.bulk_create("Float", rows)["created"] == 5  # their sum is infinite, they are not
    for bad in (math.inf, -math.inf, math.nan):
        with pytest.raises(InputError, match="row 3: value: NaN and infinities"):
            db.express_sync.bulk_create("Float", [{"key": f"x{n}", "value": bad if n == 3 else huge} for n in range(6)])
    with pytest.raises(InputError, match="row 1: value: the integer does not fit"):
        db.express_sync.bulk_create("Int", [{"key": "a", "value": 1}, {"key": "b", "value": 2**63}])
    assert db.express_sync.count("Float") == {"count": 5}
