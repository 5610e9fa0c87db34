"""Bulk calls take quick ways where they can: all rows in one go, COPY, a staging table, one UPDATE for many rows.

Each must do what the slow way does: the same rows, ids, counts and errors, and nothing half-written.
"""

import enum
import re
from collections import OrderedDict, defaultdict
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from itertools import count
from types import MappingProxyType, ModuleType
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataflow import DataFlow, Factory
from dataflow.errors import DataFlowError, InputError, UniqueError
from dataflow.fields import FieldSpec
from dataflow.plan.stages import Stage
from dataflow.plugins import hookimpl
from dataflow.runtime import LocalRuntime
from dataflow.types import IntType, StrType

SETTINGS = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
MANY = 5000
CLASSES = [0, 1, 49, 50, 998, 999, 1000, 1001, 2500, 4998, 4999]
"""First and last of all, of a chunk, of the rows that COPY is for, and some between."""
STAGED = 700
"""More rows than PostgreSQL's staging table is made for."""
CLOCKS = ("created_at", "updated_at")
_NUMBER = count()


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Stamp(datetime):
    """As freezegun, pendulum and pandas have."""


class Zone(tzinfo):
    """As dateutil has: a zone that is equal to others, and cannot be hashed."""

    __hash__ = None

    def __eq__(self, other):
        return isinstance(other, Zone)

    def utcoffset(self, moment):
        return timedelta(hours=2)

    def dst(self, moment):
        return timedelta(0)


class Missing:
    """As pandas.NA is: comparing it tells nothing."""

    __hash__ = object.__hash__

    def __eq__(self, other):
        return self

    def __bool__(self):
        raise TypeError("the truth of a missing value is not known")


def declare_item(db):
    @db.model
    class Item:
        sku: str
        n: int = 7
        note: str | None = None
        __indexes__ = [{"name": "uq_items_sku", "fields": ["sku"], "unique": True}]  # noqa: RUF012


@pytest.fixture
def items(bench):
    declare_item(bench.db)
    return bench


@pytest.fixture(scope="module")
def shared(module_bench):
    """One table for calls that must leave it empty."""
    declare_item(module_bench.db)
    module_bench.db.express_sync.count("Item")
    return module_bench


def rows_of(total, prefix="s"):
    return [{"sku": f"{prefix}{index}", "n": index} for index in range(total)]


def pairs(bench, *names, model="Item"):
    found = bench.db.express_sync.list(model, limit=100_000)["records"]
    return [tuple(record[name] for name in names) for record in found]


# -- bulk create: all at once, and the way back to the bad row --------------------------------------------------------
BAD = {
    "of another type": ({"n": "x"}, "n: expected int, got str"),
    "missing": ({"sku": ...}, "sku is required"),
    "None": ({"sku": None}, "sku: None is not allowed"),
    "a NUL": ({"note": "a\0"}, "note: text with a NUL character cannot be stored"),
    "too large": ({"n": 2**63}, "n: the integer does not fit in 64 bits"),
}


@pytest.mark.parametrize(
    ("what", "place"), [*[("of another type", place) for place in CLASSES], *[(what, 1500) for what in BAD]]
)
def test_a_bad_value_anywhere_among_many_rows_is_named_and_nothing_is_written(shared, what, place):
    change, message = BAD[what]
    rows = rows_of(MANY)
    rows[place] = {name: value for name, value in {**rows[place], **change}.items() if value is not ...}
    express = shared.db.express_sync
    with pytest.raises(InputError) as caught:
        express.bulk_create("Item", rows, return_ids=bool(place % 2))
    assert caught.value.message == f"row {place}: {message}"
    assert caught.value.where["row"] == place
    assert express.count("Item")["count"] == 0


@pytest.mark.parametrize(("place", "ids"), [(1, True), (50, False), (999, True), (1000, False), (4999, True)])
def test_a_row_that_conflicts_anywhere_among_many_rows_is_named_and_nothing_is_written(shared, place, ids):
    rows = rows_of(MANY)
    rows[place]["sku"] = "s0"
    express = shared.db.express_sync
    with pytest.raises(UniqueError) as caught:
        express.bulk_create("Item", rows, return_ids=ids)
    assert caught.value.message == f"row {place}: a record with that sku exists already"
    assert caught.value.where["row"] == place
    assert express.count("Item")["count"] == 0


@pytest.mark.parametrize(("first", "second"), [(10, 20), (10, 4000), (1500, 1501), (2100, 4999)])
def test_of_two_bad_rows_in_different_batches_the_first_is_named_on_every_database(shared, first, second):
    rows = rows_of(MANY)
    rows[first]["sku"] = "s0"
    rows[second]["n"] = "x"
    with pytest.raises(DataFlowError) as caught:
        shared.db.express_sync.bulk_create("Item", rows)
    found = first if first // 1000 != second // 1000 else second  # values are looked at before a batch is written
    assert caught.value.where["row"] == found
    assert shared.db.express_sync.count("Item")["count"] == 0


def test_the_way_back_to_the_bad_row_leaves_an_outer_transaction_usable(items):
    new = items.db.workflow()
    new.add_node("TransactionScopeNode", "scope", {"rollback_on_error": False})
    new.add_node("ItemCreateNode", "before", {"sku": "before"})
    new.add_node("ItemBulkCreateNode", "rows", {"data": [*rows_of(1500), {"sku": "s3"}]})
    new.add_connection("scope", "result", "before", "input")
    new.add_connection("before", "result", "rows", "input")
    with pytest.raises(DataFlowError, match="row 1500: a record with that sku exists already"):
        execute(new)
    assert pairs(items, "sku") == [("before",)]


def execute(builder):
    return LocalRuntime().execute(builder.build())[0]


@pytest.mark.parametrize("every", [1000, 700, 10_000])
def test_rows_committed_before_a_bad_one_stay_and_are_counted(items, every):
    rows = rows_of(3000)
    rows[2600]["sku"] = "s5"
    with pytest.raises(UniqueError, match="row 2600") as caught:
        items.db.express_sync.bulk_create("Item", rows, commit_every=every)
    kept = 2600 // every * every
    assert caught.value.where["committed"] == kept
    assert items.db.express_sync.count("Item")["count"] == kept


@pytest.mark.parametrize("batch", [None, 1, 49, 50, 999, 1001])
@pytest.mark.parametrize("ids", [True, False])
def test_every_cap_on_a_batch_writes_the_same_rows_with_the_same_ids(items, batch, ids):
    total = 1100 if batch != 1 else 60
    options = {} if batch is None else {"batch_size": batch}
    made = items.db.express_sync.bulk_create("Item", rows_of(total), return_ids=ids, **options)
    assert (made["created"], made["skipped"], made["total"]) == (total, 0, total)
    stored = pairs(items, "id", "sku", "n", "note")
    assert [row[1:] for row in stored] == [(f"s{index}", index, None) for index in range(total)]
    if ids:
        assert made["ids"] == [row[0] for row in stored]


def test_defaults_are_the_same_along_the_quick_way_and_row_by_row(items):
    rows = [{"sku": "a"}, {"sku": "b", "n": 1}, {"sku": "c", "note": "x"}]
    express = items.db.express_sync
    express.bulk_create("Item", rows)
    quick = pairs(items, "sku", "n", "note")
    express.bulk_delete("Item", filter={}, confirmed=True)
    express.bulk_create("Item", rows, on_error="skip")
    assert pairs(items, "sku", "n", "note") == quick == [("a", 7, None), ("b", 1, None), ("c", 7, "x")]


def test_computed_defaults_are_computed_for_each_row_and_constants_only_shared_where_they_may(bench):
    numbers = count(1)

    @bench.db.model
    class Made:
        name: str
        own: int = Factory(lambda: next(numbers))
        data: dict = {"a": [1]}  # noqa: RUF012
        tags: list[str] = ["t"]  # noqa: RUF012

    bench.db.express_sync.bulk_create("Made", [{"name": str(i)} for i in range(1200)])
    found = pairs(bench, "own", "data", "tags", model="Made")
    assert [own for own, _, _ in found] == list(range(1, 1201))
    assert all((data, tags) == ({"a": [1]}, ["t"]) for _, data, tags in found)


@pytest.mark.parametrize("kind", [dict, OrderedDict, MappingProxyType])
def test_rows_may_be_any_mapping(items, kind):
    rows = [kind({"sku": "a"}), kind({"sku": "b", "n": 1})]
    items.db.express_sync.bulk_create("Item", rows)
    items.db.express_sync.bulk_update("Item", data=[kind({"id": 1, "note": "x"})])
    assert pairs(items, "sku", "n", "note") == [("a", 7, "x"), ("b", 1, None)]


def test_a_row_that_invents_missing_members_gets_the_default_of_the_column(items):
    rows = [defaultdict(int, sku="a"), {"sku": "b", "n": 1}]
    items.db.express_sync.bulk_create("Item", rows)
    assert pairs(items, "sku", "n") == [("a", 7), ("b", 1)]
    assert rows[0] == {"sku": "a"}


# -- values that look alike -------------------------------------------------------------------------------------------
@pytest.fixture
def events(bench):
    @bench.db.model
    class Event:
        at: datetime
        doc: dict = {}  # noqa: RUF012
        until: datetime | None = None

    return bench


@pytest.mark.parametrize(
    "moment",
    [
        Stamp(2025, 1, 1, 12, tzinfo=UTC),
        Stamp(2025, 1, 1, 14, tzinfo=Zone()),
        datetime(2025, 1, 1, 14, tzinfo=Zone()),
    ],
    ids=["own class", "own class and zone", "own zone"],
)
def test_moments_of_classes_and_zones_of_others_are_stored_as_a_single_record_stores_them(events, moment):
    express = events.db.express_sync
    noon = datetime(2025, 1, 1, 12, tzinfo=UTC)
    assert express.create("Event", {"at": moment})["at"] == noon
    express.bulk_create("Event", [{"at": moment}, {"at": noon, "until": moment}])
    express.bulk_update("Event", data=[{"id": 1, "until": moment}])
    express.bulk_upsert("Event", [{"id": 2, "at": moment, "until": moment}])
    assert pairs(events, "at", "until", model="Event") == [(noon, noon)] * 3


@pytest.mark.parametrize("way", ["create", "upsert", "update"])
def test_a_value_that_cannot_even_be_compared_is_refused_with_its_row(events, way):
    express = events.db.express_sync
    moment = datetime(2025, 1, 1, tzinfo=UTC)
    calls = {
        "create": lambda: express.bulk_create("Event", [{"at": moment}, {"at": moment, "doc": Missing()}]),
        "upsert": lambda: express.bulk_upsert("Event", [{"id": 1, "at": moment}, {"id": Missing(), "at": moment}]),
        "update": lambda: express.bulk_update("Event", data=[{"id": 1, "at": moment}, {"id": Missing(), "at": moment}]),
    }
    with pytest.raises(InputError, match="row 1: "):
        calls[way]()
    assert express.count("Event")["count"] == 0


# -- conflicts, many rows at once -------------------------------------------------------------------------------------
@pytest.mark.parametrize("ids", [True, False])
@pytest.mark.parametrize("batch", [None, 100, 500])
def test_many_rows_of_which_some_exist_and_some_come_twice_are_skipped_exactly(items, batch, ids):
    express = items.db.express_sync
    express.bulk_create("Item", [{"sku": f"s{index}", "n": -1} for index in range(0, STAGED, 7)])
    rows = [*rows_of(STAGED), *rows_of(30)]
    options = {} if batch is None else {"batch_size": batch}
    made = express.bulk_create("Item", rows, conflict_resolution="skip", return_ids=ids, **options)
    assert (made["created"], made["skipped"], made["total"]) == (600, 130, 730)
    stored = {sku: (key, n) for key, sku, n in pairs(items, "id", "sku", "n")}
    assert {sku: n for sku, (_, n) in stored.items()} == {f"s{i}": i if i % 7 else -1 for i in range(STAGED)}
    if ids:
        given = [None if i % 7 == 0 else stored[f"s{i}"][0] for i in range(STAGED)]
        assert made["ids"] == given + [None] * 30


@pytest.mark.parametrize("ids", [True, False])
@pytest.mark.parametrize("batch", [None, 1, 499, 500])
def test_many_rows_are_upserted_and_counted_exactly(items, batch, ids):
    total = STAGED if batch != 1 else 40
    express = items.db.express_sync
    express.bulk_create("Item", [{"sku": f"s{index}", "note": "old"} for index in range(0, total, 7)])
    options = {} if batch is None else {"batch_size": batch}
    made = express.bulk_upsert("Item", rows_of(total)[::-1], key_fields=["sku"], return_ids=ids, **options)
    old = len(range(0, total, 7))
    assert (made["created"], made["updated"], made["skipped"], made["total"]) == (total - old, old, 0, total)
    stored = {sku: (key, n, note) for key, sku, n, note in pairs(items, "id", "sku", "n", "note")}
    assert {sku: found[1:] for sku, found in stored.items()} == {
        f"s{i}": (i, None if i % 7 else "old") for i in range(total)
    }
    if ids:
        assert made["ids"] == [stored[f"s{i}"][0] for i in range(total)][::-1]


def test_the_last_of_many_rows_with_one_key_wins_and_all_get_its_id(items):
    rows = [*rows_of(STAGED), *[{"sku": f"s{i}", "n": -i} for i in range(0, STAGED, 3)]]
    made = items.db.express_sync.bulk_upsert("Item", rows, key_fields=["sku"], on_duplicate="last", return_ids=True)
    repeated = len(range(0, STAGED, 3))
    assert (made["created"], made["updated"], made["skipped"]) == (STAGED, 0, repeated)
    stored = {sku: (key, n) for key, sku, n in pairs(items, "id", "sku", "n")}
    assert all(stored[f"s{i}"][1] == (-i if i % 3 == 0 else i) for i in range(STAGED))
    assert made["ids"] == [stored[row["sku"]][0] for row in rows]


@pytest.mark.parametrize("place", [0, 500, 1000, 1999])
def test_a_bad_value_among_many_rows_to_upsert_is_named_and_changes_nothing(items, place):
    express = items.db.express_sync
    express.create("Item", {"sku": "s1", "note": "old"})
    rows = rows_of(2000)
    rows[place]["n"] = 0.5
    with pytest.raises(InputError, match=f"row {place}: n: expected int, got float"):
        express.bulk_upsert("Item", rows, key_fields=["sku"])
    assert pairs(items, "sku", "n", "note") == [("s1", 7, "old")]
    assert express.bulk_upsert("Item", rows_of(2000), key_fields=["sku"])["created"] == 1999


def test_upserts_count_what_they_create_whatever_the_ids_were(items):
    express = items.db.express_sync

    def upsert(*skus):
        made = express.bulk_upsert("Item", [{"sku": sku} for sku in skus], key_fields=["sku"])
        return made["created"], made["updated"]

    assert upsert("a", "b") == (2, 0)
    assert upsert("a", "b", "c") == (1, 2)
    express.bulk_delete("Item", filter={"sku": "c"})  # the highest id is free, and is not given again
    assert upsert("a", "c") == (1, 1)
    express.bulk_delete("Item", filter={}, confirmed=True)
    assert upsert("a", "b") == (2, 0)
    express.create("Item", {"id": 1_000_000, "sku": "high"})
    assert upsert("high", "low", "a") == (1, 2)
    express.create("Item", {"id": -5, "sku": "negative"})
    assert upsert("negative", "new") == (1, 1)
    mixed = [{"sku": "a", "n": 1}, {"sku": "x"}, {"sku": "y", "note": "n"}, {"sku": "b"}, {"sku": "z", "n": 2}]
    made = express.bulk_upsert("Item", mixed, key_fields=["sku"], return_ids=True)
    assert (made["created"], made["updated"]) == (3, 2)
    stored = {sku: key for key, sku in pairs(items, "id", "sku")}
    assert made["ids"] == [stored[row["sku"]] for row in mixed]


def test_an_upsert_in_a_table_of_negative_ids_counts_exactly(bench):
    declare_item(bench.db)
    express = bench.db.express_sync
    express.bulk_create("Item", [{"id": -10, "sku": "a"}, {"id": -20, "sku": "b"}])
    made = express.bulk_upsert("Item", [{"sku": "a"}, {"sku": "c"}, {"sku": "d"}], key_fields=["sku"])
    assert (made["created"], made["updated"]) == (2, 1)


@settings(SETTINGS, max_examples=15)
@given(
    st.lists(st.sets(st.integers(0, 12), min_size=1), min_size=1, max_size=4),
    st.sampled_from([None, 1, 3]),
    st.sampled_from([None, 2]),
    st.booleans(),
)
def test_any_series_of_upserts_counts_as_a_dict_would(shared, series, batch, every, ids):
    express = shared.db.express_sync
    options = {name: value for name, value in {"batch_size": batch, "commit_every": every}.items() if value}
    known: dict[str, Any] = {}
    try:
        for step, keys in enumerate(series):
            rows = [{"sku": f"k{key}", **({"n": step} if key % 2 else {"note": str(step)})} for key in sorted(keys)]
            made = express.bulk_upsert("Item", rows, key_fields=["sku"], return_ids=ids, **options)
            fresh = [row["sku"] for row in rows if row["sku"] not in known]
            assert (made["created"], made["updated"]) == (len(fresh), len(rows) - len(fresh))
            known |= {row["sku"]: {**known.get(row["sku"], {"n": 7, "note": None}), **row} for row in rows}
        found = {sku: (n, note) for sku, n, note in pairs(shared, "sku", "n", "note")}
        assert found == {sku: (row["n"], row["note"]) for sku, row in known.items()}
    finally:
        express.bulk_delete("Item", filter={}, confirmed=True)


def test_a_unique_list_tells_records_apart_on_every_database(bench):
    @bench.db.model
    class Tagged:
        tags: list[str]
        n: int = 0
        __indexes__ = [{"name": "uq_tagged", "fields": ["tags"], "unique": True}]  # noqa: RUF012

    express = bench.db.express_sync
    express.create("Tagged", {"tags": ["a"]})
    made = express.bulk_upsert("Tagged", [{"tags": ["a"], "n": 1}, {"tags": ["b"], "n": 2}], key_fields=["tags"])
    assert (made["created"], made["updated"]) == (1, 1)


# -- names ------------------------------------------------------------------------------------------------------------
NAMES = ["a$1", "b$99", 'quo"te', "apo'stro", "back\\slash", "br{a}ce", "per%cent", "co:lon", "new\nline", "c0", "row",
         "decode_0", "None", "excluded", "é", "a b", "(p)"]  # fmt: skip


@pytest.mark.parametrize("total", [1, 60, STAGED])
def test_columns_may_be_called_almost_anything(bench, total):
    fields = {"sku": str, **dict.fromkeys(NAMES, int)}
    index = [{"name": "uq_odd", "fields": ["sku"], "unique": True}]
    model = type("Odd", (), {"__annotations__": fields, "__indexes__": index, "__module__": __name__})
    bench.db.model(model)
    express = bench.db.express_sync
    rows = [{"sku": str(i), **{name: i + place for place, name in enumerate(NAMES)}} for i in range(total)]
    assert express.bulk_create("Odd", rows, return_ids=True)["ids"] == list(range(1, total + 1))
    changed = [{**row, **{name: row[name] + 1 for name in NAMES}} for row in rows]
    assert express.bulk_upsert("Odd", changed, key_fields=["sku"])["updated"] == total
    assert express.bulk_create("Odd", rows, conflict_resolution="skip")["skipped"] == total
    assert pairs(bench, *NAMES, model="Odd") == [tuple(row[name] for name in NAMES) for row in changed]
    back = [{"id": i, **{name: row[name] for name in NAMES}} for i, row in enumerate(rows, 1)]
    assert express.bulk_update("Odd", data=back)["updated"] == total
    assert pairs(bench, *NAMES, model="Odd") == [tuple(row[name] for name in NAMES) for row in rows]


# -- bulk update by rows: one statement for many ----------------------------------------------------------------------
def declare_all(db):
    @db.model
    class Part:
        name: str
        day: date
        color: Color
        whole: int | None = None
        real: float | None = None
        exact: Decimal | None = None
        flag: bool | None = None
        raw: bytes | None = None
        at: datetime | None = None
        hour: time | None = None
        own: UUID | None = None
        level: Level | None = None
        doc: Any = None
        words: list[str] | None = None
        shades: list[Color] | None = None
        __dataflow__ = {"primary_key": ["name", "day", "color"]}  # noqa: RUF012


cells = {
    "whole": st.sampled_from([None, 0, -(2**63), 2**63 - 1]),
    "real": st.sampled_from([None, 1, -0.0, 1e300, 0.1]),
    "exact": st.sampled_from([None, 3, Decimal("1.50"), Decimal("-0"), Decimal("1E+3")]),
    "flag": st.sampled_from([None, True, False]),
    "raw": st.sampled_from([None, b"", b"\0\xff", bytearray(b"x")]),
    "at": st.sampled_from([None, datetime.max.replace(tzinfo=UTC), datetime(1, 1, 2, tzinfo=UTC)]),
    "hour": st.sampled_from([None, time(0), time(23, 59, 59, 999999)]),
    "own": st.sampled_from([None, UUID(int=5), str(UUID(int=6))]),
    "level": st.sampled_from([None, Level.HIGH, "LOW"]),
    "doc": st.sampled_from([None, 1, "x", [], {}, {"a": {"$inc": 1}}, {"a": 1, "b": [None]}, {"$set": {"a": 2}}]),
    "words": st.sampled_from([None, [], ["a", "b"], ["é\"'"]]),
    "shades": st.sampled_from([None, [], [Color.RED, "blue"]]),
}
part_keys = st.tuples(
    st.sampled_from(["a", "b", "é"]),
    st.sampled_from([date(2025, 1, 1), "2025-01-02"]),
    st.sampled_from([Color.RED, "blue"]),
)
cells_of_one_shape = st.sets(st.sampled_from(sorted(cells)), min_size=1, max_size=5).flatmap(
    lambda names: st.dictionaries(part_keys, st.fixed_dictionaries({name: cells[name] for name in names}), max_size=6)
)
cells_of_any_shape = st.dictionaries(
    part_keys, st.fixed_dictionaries({}, optional=cells).filter(bool), min_size=1, max_size=6
)


@pytest.fixture
def parts(bench):
    declare_all(bench.db)
    return bench


def test_rows_of_a_bulk_update_do_what_single_updates_do(parts):
    express = parts.db.express_sync
    many = 12 if parts.db.core.dialect.name == "postgresql" else 30

    def reset():
        express.bulk_delete("Part", filter={}, confirmed=True)
        express.bulk_create(
            "Part",
            [{"name": n, "day": date(2025, 1, d), "color": c} for n in "ab" for d in (1, 2) for c in Color],
        )

    def state():
        found = express.list("Part")["records"]
        return repr([{name: value for name, value in record.items() if name not in CLOCKS} for record in found])

    @settings(SETTINGS, max_examples=many)
    @given(cells_of_one_shape | cells_of_any_shape, st.sampled_from([None, 1, 2]))
    def check(changes, batch):
        reset()
        single = [express.call("update", "Part", _id=key, _values=values) for key, values in changes.items()]
        wanted = state()
        reset()
        rows = [dict(zip(("name", "day", "color"), key, strict=True)) | values for key, values in changes.items()]
        options = {} if batch is None else {"batch_size": batch}
        made = express.bulk_update("Part", data=rows, return_ids=True, **options)
        assert state() == wanted
        hits = [bool(result["updated"]) for result in single]
        assert (made["updated"], made["missing"], made["total"]) == (sum(hits), len(hits) - sum(hits), len(hits))
        keys = [tuple(result[name] for name in ("name", "day", "color")) if hit else None
                for result, hit in zip(single, hits, strict=True)]  # fmt: skip
        assert made["ids"] == keys

    check()


@pytest.mark.parametrize("total", [3, 251, 700])
@pytest.mark.parametrize("batch", [None, 1, 250])
def test_many_rows_change_each_in_its_own_way_whatever_the_batch(items, total, batch):
    express = items.db.express_sync
    keys = express.bulk_create("Item", rows_of(total), return_ids=True)["ids"]
    data = [{"id": key, "n": -key, "note": f"x{key}" if key % 2 else None} for key in reversed(keys)]
    options = {} if batch is None else {"batch_size": batch}
    made = express.bulk_update("Item", data=[*data, {"id": 10**9, "n": 1, "note": None}], return_ids=True, **options)
    assert (made["updated"], made["missing"]) == (total, 1)
    assert made["ids"] == [*reversed(keys), None]
    assert pairs(items, "id", "n", "note") == [(key, -key, f"x{key}" if key % 2 else None) for key in keys]
    assert express.bulk_update("Item", data=data, **options) == {"updated": total, "total": total, "missing": 0}


@pytest.mark.parametrize("place", [0, 250, 699])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": "x"}, "n: expected int, got str"),
        ({"n": None}, "n: None is not allowed"),
        ({"nn": 1}, "model Item has no field 'nn'"),
        ({"id": "x"}, "id: expected int, got str"),
        ({"id": None}, "id is None; a key has a value"),
        ({"id": 5}, "the same key as row 4"),
        ({"note": {"$inc": 1}}, "note: $inc needs a number, and the field is str"),
    ],
)
def test_a_bad_row_anywhere_in_a_bulk_update_is_named_and_changes_nothing(shared, place, change, message):
    express = shared.db.express_sync
    try:
        keys = express.bulk_create("Item", rows_of(STAGED), return_ids=True)["ids"]
        own = {"id": keys[4]} if change.get("id") == 5 else change
        data = [{"id": key, "n": -1} for key in keys]
        data[place] = {**data[place], **own}
        with pytest.raises(InputError) as caught:
            express.bulk_update("Item", data=data)
        row, wanted = place, message
        if own.get("id") == keys[4] and place < 4:
            row, wanted = 4, f"the same key as row {place}"
        assert caught.value.message == f"row {row}: {wanted}"
        assert pairs(shared, "n") == [(n,) for n in range(STAGED)]
    finally:
        express.bulk_delete("Item", filter={}, confirmed=True)


@pytest.mark.parametrize("total", [3, 100])
@pytest.mark.parametrize("upwards", [True, False])
@pytest.mark.parametrize("where", [None, "live"])
def test_unique_values_move_from_record_to_record_in_the_order_of_the_rows(bench, where, upwards, total):
    @bench.db.model
    class Slot:
        slug: str
        live: bool = True
        __indexes__ = [{"name": "uq_slots", "fields": ["slug"], "unique": True, "where": where}]  # noqa: RUF012

    express = bench.db.express_sync
    keys = express.bulk_create("Slot", [{"slug": f"{i:05}"} for i in range(total)], return_ids=True)["ids"]
    step = 1 if upwards else -1
    places = range(total - 1, -1, -1) if upwards else range(total)  # each takes what the one before has left
    data = [{"id": keys[i], "slug": f"{i + step:05}" if 0 <= i + step < total else "free"} for i in places]
    assert express.bulk_update("Slot", data=data)["updated"] == total
    assert dict(pairs(bench, "id", "slug", model="Slot")) == {r["id"]: r["slug"] for r in data}


@pytest.mark.parametrize("total", [1, 100])
def test_records_enter_and_leave_a_partial_unique_index_in_the_order_of_the_rows(bench, total):
    @bench.db.model
    class Slot:
        slug: str
        live: bool = True
        __indexes__ = [{"name": "uq_slots", "fields": ["slug"], "unique": True, "where": "live"}]  # noqa: RUF012

    express = bench.db.express_sync
    old = express.bulk_create("Slot", [{"slug": f"{i}"} for i in range(total)], return_ids=True)["ids"]
    new = express.bulk_create("Slot", [{"slug": f"{i}", "live": False} for i in range(total)], return_ids=True)["ids"]
    for leaving, entering in ((old, new), (new, old)):
        data = [row for one, other in zip(leaving, entering, strict=True)
                for row in ({"id": one, "live": False}, {"id": other, "live": True})]  # fmt: skip
        assert express.bulk_update("Slot", data=data)["updated"] == 2 * total
        assert {key for key, live in pairs(bench, "id", "live", model="Slot") if live} == set(entering)


# -- features ---------------------------------------------------------------------------------------------------------
class Backwards:
    """Stores notes backwards."""

    name = "backwards"
    stage = Stage.ENCODE
    before = after = ()
    capability = ""

    def extend_model(self, draft):
        del draft

    def extend_plan(self, plan):
        for field in ("sku", "note"):
            if field in plan.model.fields:
                plan.encode(field, lambda text: text[::-1])
                plan.decode(field, lambda text: text[::-1])


class Counting(Backwards):
    """Counts versions, and refuses nothing."""

    name = "counting"
    stage = Stage.VERSION

    def extend_model(self, draft):
        draft.add_field(FieldSpec("version", IntType(), default=1))

    def extend_plan(self, plan):
        if plan.statement == "insert":
            plan.set("version", 1)
        if plan.statement == "update":
            plan.set("version", plan.table.c.version + 1)
            plan.guard(lambda call, changed: None)


class Owned(Backwards):
    """Confines every call to one owner."""

    name = "owned"
    stage = Stage.SCOPE

    def extend_model(self, draft):
        draft.add_field(FieldSpec("owner", StrType()))
        draft.add_option("by")

    def extend_plan(self, plan):
        def owner(call):
            return call.options.get("by", "me")

        if plan.statement == "insert":
            plan.set("owner", owner)
            return
        plan.where(plan.table.c.owner == plan.bind(owner, like=plan.table.c.owner))


class Watching(Backwards):
    """Remembers what was written."""

    name = "watching"
    stage = Stage.RECORD

    def __init__(self):
        self.seen = []

    def extend_plan(self, plan):
        if plan.statement != "select":
            plan.record(self.note)

    def note(self, call, records):
        self.seen += [record["sku"] for record in records]
        yield from ()


@contextmanager
def featured(request, *features):
    module = ModuleType("bulk_paths")
    module.dataflow_api = "1.0"
    module.dataflow_features = hookimpl(lambda: list(features))
    settings, url = {"plugins": [module]}, ":memory:"
    if request.node.callspec.params["dialect"] == "postgresql":
        url = request.getfixturevalue("core_postgres")
        settings |= {"postgres_schema": f"paths_{next(_NUMBER)}", "pool_size": 2}
    with DataFlow(url, **settings) as db:
        declare_item(db)
        yield db


on_both = pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])


def listed(db, *names, **options):
    found = db.express_sync.list("Item", **options)["records"]
    return [tuple(record[name] for name in names) for record in found]


@on_both
@pytest.mark.parametrize("total", [30, STAGED])
@pytest.mark.parametrize("features", [(Backwards,), (Counting,), (Backwards, Counting)])
def test_features_see_every_row_of_every_quick_way(request, dialect, features, total):
    with featured(request, *[feature() for feature in features]) as db:
        express, counted = db.express_sync, Counting in features
        names = ["sku", "n", "note", *(["version"] if counted else [])]
        rows = [{"sku": f"sku{i}", "n": i, "note": f"note{i}"} for i in range(total)]
        keys = express.bulk_create("Item", rows, return_ids=True)["ids"]
        made = express.bulk_upsert(
            "Item", [*rows, {"sku": "sku-new", "n": 0, "note": "new"}], key_fields=["sku"], return_ids=True
        )
        assert (made["created"], made["updated"], made["ids"][:-1]) == (1, total, keys)
        data = [{"id": key, "note": f"again{i}"} for i, key in enumerate(keys)]
        assert express.bulk_update("Item", data=data, return_ids=True)["ids"] == keys
        skipped = express.bulk_create("Item", rows, conflict_resolution="skip")
        assert (skipped["created"], skipped["skipped"]) == (0, total)
        wanted = [(f"sku{i}", i, f"again{i}", *((3,) if counted else ())) for i in range(total)]
        assert listed(db, *names)[:total] == wanted
        assert express.count("Item", {"note": "again7"})["count"] == 1


@on_both
def test_a_feature_that_confines_calls_confines_every_quick_way(request, dialect):
    with featured(request, Owned()) as db:
        express = db.express_sync
        mine = express.bulk_create("Item", rows_of(STAGED), return_ids=True)["ids"]
        made = express.bulk_update("Item", data=[{"id": key, "n": -1} for key in mine], return_ids=True, by="you")
        assert (made["updated"], made["missing"], set(made["ids"])) == (0, STAGED, {None})
        with pytest.raises(UniqueError, match="cannot see"):
            express.bulk_upsert("Item", rows_of(STAGED), key_fields=["sku"], by="you")
        made = express.bulk_upsert("Item", rows_of(STAGED, "y"), key_fields=["sku"], by="you")
        assert (made["created"], made["updated"]) == (STAGED, 0)
        made = express.bulk_upsert("Item", rows_of(STAGED + 1, "y"), key_fields=["sku"], by="you")
        assert (made["created"], made["updated"]) == (1, STAGED)
        assert listed(db, "n") == [(n,) for n in range(STAGED)]


@on_both
def test_a_feature_that_watches_sees_each_written_row_once(request, dialect):
    watching = Watching()
    with featured(request, watching) as db:
        express = db.express_sync
        rows = rows_of(1200)
        keys = express.bulk_create("Item", rows, return_ids=True)["ids"]
        express.bulk_upsert("Item", rows[:STAGED], key_fields=["sku"])
        express.bulk_update("Item", data=[{"id": key, "n": 0} for key in keys[:30]])
        with pytest.raises(UniqueError):
            express.bulk_create("Item", [*rows_of(60, "z"), {"sku": "s1"}])
        expected = [row["sku"] for row in (*rows, *rows[:STAGED], *rows[:30])]
        assert [sku for sku in watching.seen if not re.match("z", sku)] == expected


@on_both
def test_a_bulk_update_that_a_feature_guards_is_compiled_once(request, dialect):
    with featured(request, Counting()) as db:
        keys = db.express_sync.bulk_create("Item", rows_of(5), return_ids=True)["ids"]
        data = [{"id": key, "n": 0} for key in keys]
        db.express_sync.bulk_update("Item", data=data)
        compiled = db.stats()["compilations"]
        for _ in range(3):
            db.express_sync.bulk_update("Item", data=data)
        assert db.stats()["compilations"] == compiled


# -- PostgreSQL's own ways --------------------------------------------------------------------------------------------
def test_native_enums_and_arrays_in_a_schema_of_ones_own_take_every_quick_way(core_postgres):
    settings = {"postgres_schema": f"Paths {next(_NUMBER)}", "postgres_native_enums": True}
    with DataFlow(core_postgres, **settings) as db:
        declare_all(db)
        express = db.express_sync
        rows = [
            {
                "name": str(i),
                "day": date(2025, 1, 1),
                "color": Color.RED,
                "shades": ["red"],
                "level": Level.LOW,
                "doc": [i],
            }
            for i in range(STAGED)
        ]
        keys = express.bulk_create("Part", rows, return_ids=True)["ids"]
        assert keys[-1] == (str(STAGED - 1), date(2025, 1, 1), Color.RED)
        changed = [{**row, "level": Level.HIGH, "shades": [Color.BLUE, "red"]} for row in rows]
        assert express.bulk_upsert("Part", changed)["updated"] == STAGED
        assert express.bulk_update("Part", data=[{**row, "level": None} for row in changed])["updated"] == STAGED
        (found,) = express.list("Part", {"name": "5"})["records"]
        assert (found["level"], found["shades"], found["doc"]) == (None, [Color.BLUE, Color.RED], [5])


def test_a_user_who_may_not_make_temporary_tables_upserts_many_rows_all_the_same(postgres_server, postgres_database):
    postgres_server.psql(
        "CREATE ROLE bulk_guest LOGIN PASSWORD 'x'; GRANT CREATE, USAGE ON SCHEMA public TO bulk_guest;"
        ' REVOKE TEMP ON DATABASE :"name" FROM PUBLIC',
        database=database_of(postgres_database),
        name=database_of(postgres_database),
    )
    try:
        with DataFlow(re.sub("//[^@/]*@", "//bulk_guest:x@", postgres_database)) as db:
            declare_item(db)
            for created in (STAGED, 0):
                made = db.express_sync.bulk_upsert("Item", rows_of(STAGED), key_fields=["sku"])
                assert (made["created"], made["updated"]) == (created, STAGED - created)
            assert db.express_sync.bulk_create("Item", rows_of(STAGED), conflict_resolution="skip")["created"] == 0
    finally:
        postgres_server.psql("DROP OWNED BY bulk_guest; DROP ROLE bulk_guest", database=database_of(postgres_database))


def database_of(url):
    return url.rsplit("/", 1)[1].partition("?")[0]


@pytest.mark.parametrize("way", ["create", "upsert"])
def test_a_column_that_changed_its_type_meanwhile_takes_the_new_values(postgres_server, postgres_database, way):
    def declare(db, kind):
        class Entry:
            sku: str
            v: kind
            __dataflow__ = {"primary_key": ["sku"], "timestamps": False}  # noqa: RUF012

        db.model(Entry)

    def write(db, prefix, value):
        rows = [{"sku": f"{prefix}{i}", "v": value} for i in range(STAGED)]
        call = db.express_sync.bulk_create if way == "create" else db.express_sync.bulk_upsert
        return call("Entry", rows)["created"]

    settings = {"pool_size": 1, "pool_max_overflow": 0}
    with DataFlow(postgres_database, **settings) as first, DataFlow(postgres_database, **settings) as second:
        declare(first, int)
        declare(second, str)
        assert write(first, "a", 1) == STAGED
        altered = 'ALTER TABLE entries ALTER COLUMN v TYPE text COLLATE "C"'
        postgres_server.psql(altered, database=database_of(postgres_database))
        assert write(second, "b", "text") == STAGED


def test_nothing_of_a_staged_upsert_is_left_on_the_connection(core_postgres):
    settings = {"postgres_schema": f"paths_{next(_NUMBER)}", "pool_size": 1, "pool_max_overflow": 0}
    with DataFlow(core_postgres, **settings) as db:
        declare_item(db)
        express = db.express_sync
        express.bulk_upsert("Item", rows_of(STAGED), key_fields=["sku"])
        bad = rows_of(STAGED)
        bad[600]["n"] = "x"
        with pytest.raises(InputError, match="row 600"):
            express.bulk_upsert("Item", bad, key_fields=["sku"])
        builder = db.workflow().add_node("AsyncSQLDatabaseNode", "left", {"query": _LEFT})
        assert execute(builder)["left"]["result"]["data"] == [{"n": 0}]
        assert express.bulk_upsert("Item", rows_of(STAGED), key_fields=["sku"])["updated"] == STAGED


_LEFT = "SELECT count(*) AS n FROM pg_class WHERE relpersistence = 't' AND relname LIKE 'dataflow%'"
