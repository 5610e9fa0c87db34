"""Values that a feature derives from new records: in every way to create them, on both databases, also at once.

The feature here numbers the records of a series, 1, 2, 3 …: what it derives depends on what is there.
"""

import asyncio
from typing import ClassVar

import pytest

from dataflow.errors import DataFlowError, InputError, PluginError, UniqueError
from dataflow.fields import FieldSpec
from dataflow.model import IndexSpec
from dataflow.plan.stages import Stage
from dataflow.plugins import SettingSpec, hookimpl
from dataflow.runtime import LocalRuntime
from dataflow.testing.opening import opened
from dataflow.types import IntType, StrType, ValueRefused


class Numbers:
    """Number the records of a series; `seen` holds what the program was asked about."""

    name = "numbers"
    stage = Stage.EXECUTE
    before = after = ()
    capability = "numbers"

    def __init__(self, seen):
        self.seen = seen

    def extend_model(self, draft):
        draft.add_field(FieldSpec("number", IntType(), origin=self.name))
        draft.add_index(IndexSpec(f"uq_{draft.table}_number", ("series", "number"), unique=True))

    def extend_plan(self, plan):
        model = plan.model

        def derive(call, records):
            self.seen.append([dict(record) for record in records])
            wanted = sorted({record["series"] for record in records})
            params = {"_group_by": ["series"], "_aggregate": {"top": {"$max": "number"}}}
            found = yield from model.operation("aggregate").program(
                {**params, "_filter": {"series": {"$in": wanted}}}, call
            )
            top = {group["series"]: group["top"] for group in found["groups"]}
            for record in records:
                top[record["series"]] = max(top.get(record["series"], 0), record.get("number", 0))
            numbers = []
            for record in records:
                if "number" not in record:
                    top[record["series"]] += 1
                numbers.append(record.get("number", top[record["series"]]))
            return numbers

        plan.derive("number", derive)


class NumbersPlugin:
    dataflow_api = "1.0"

    def __init__(self):
        self.seen = []

    @hookimpl
    def dataflow_settings(self):
        return [SettingSpec("numbers", bool, scope="model")]

    @hookimpl
    def dataflow_features(self, model):
        return [Numbers(self.seen)] if model.options.get("numbers") else None


@pytest.fixture(params=["sqlite", "postgresql"])
def opening(request, tmp_path):
    yield from opened(request, tmp_path, "derived")


@pytest.fixture
def plugin():
    return NumbersPlugin()


@pytest.fixture
def db(opening, plugin):
    db = opening(plugins=[plugin])

    @db.model
    class Invoice:
        title: str
        series: str = "A"

        __dataflow__: ClassVar = {"numbers": True}
        __indexes__: ClassVar = [{"name": "uq_invoices_title", "fields": ["title"], "unique": True}]

    return db


def numbers(db, **filters):
    records = db.express_sync.list("Invoice", filters, sort=["series", "number"])["records"]
    return [(record["series"], record["number"], record["title"]) for record in records]


def test_a_created_record_comes_back_with_what_was_derived_from_it(db):
    call = db.express_sync
    assert [call.create("Invoice", {"title": title})["number"] for title in "abc"] == [1, 2, 3]
    assert call.create("Invoice", {"title": "d", "series": "B"})["number"] == 1


def test_the_program_sees_literal_defaults_and_values_of_the_right_types_only(db, plugin):
    call = db.express_sync
    for _ in range(2):  # the second call uses the plan of the first
        with pytest.raises(InputError, match="title: expected str, got int"):
            call.create("Invoice", {"title": 5})
    with pytest.raises(InputError, match="row 1: title"):
        call.bulk_create("Invoice", [{"title": "a"}, {"title": 5}])
    assert plugin.seen == []
    call.create("Invoice", {"title": "a"})
    call.create("Invoice", {"title": "b"})
    with pytest.raises(InputError, match="title: expected str, got int"):
        call.create("Invoice", {"title": 5})
    assert plugin.seen == [[{"series": "A", "title": "a"}], [{"series": "A", "title": "b"}]]


def test_a_value_that_the_caller_gives_is_the_programs_to_keep(db):
    call = db.express_sync
    assert call.create("Invoice", {"title": "a", "number": 7})["number"] == 7
    assert call.create("Invoice", {"title": "b"})["number"] == 8
    with pytest.raises(UniqueError):
        call.create("Invoice", {"title": "c", "number": 7})
    with pytest.raises(InputError, match="number: expected int, got str"):
        call.create("Invoice", {"title": "c", "number": "7"})
    assert call.bulk_create("Invoice", [{"title": "c", "number": 9}, {"title": "d"}])["created"] == 2
    assert [number for _, number, _ in numbers(db)] == [7, 8, 9, 10]


def test_rows_of_a_bulk_are_derived_together(db, plugin):
    rows = [{"title": f"t{n}", "series": "AB"[n % 2]} for n in range(6)]
    made = db.express_sync.bulk_create("Invoice", rows, return_ids=True)
    assert (made["created"], len(made["ids"]), len(plugin.seen)) == (6, 6, 1)
    assert numbers(db, series="A") == [("A", 1, "t0"), ("A", 2, "t2"), ("A", 3, "t4")]
    assert numbers(db, series="B") == [("B", 1, "t1"), ("B", 2, "t3"), ("B", 3, "t5")]
    db.express_sync.bulk_create("Invoice", [{"title": f"u{n}"} for n in range(5)], series="B", batch_size=2)
    assert [number for _, number, _ in numbers(db, series="B")] == list(range(1, 9))


def test_rows_that_are_skipped_or_bad_take_no_value(db):
    call = db.express_sync
    call.create("Invoice", {"title": "a"})
    rows = [{"title": "b"}, {"title": "a"}, {"title": "c"}]
    assert call.bulk_create("Invoice", rows, conflict_resolution="skip")["created"] == 2
    assert numbers(db) == [("A", 1, "a"), ("A", 2, "b"), ("A", 3, "c")]
    made = call.bulk_create(
        "Invoice", [{"title": "d"}, {"title": 5}, {"title": "a"}, {"title": "e"}], on_error="collect"
    )
    assert (made["created"], [fault["row"] for fault in made["errors"]]) == (2, [1, 2])
    assert numbers(db)[3:] == [("A", 4, "d"), ("A", 5, "e")]
    with pytest.raises(UniqueError, match="row 1"):
        call.bulk_create("Invoice", [{"title": "f"}, {"title": "a"}])
    assert len(numbers(db)) == 5


def test_an_upsert_derives_for_a_new_record_and_leaves_the_value_of_one_that_is_there(db):
    call = db.express_sync
    first = call.upsert("Invoice", {"title": "a"}, {"series": "B"})
    assert (first["created"], first["number"]) == (True, 1)
    call.create("Invoice", {"title": "b", "series": "B"})
    again = call.upsert("Invoice", {"title": "a"}, {"series": "B"})
    assert (again["created"], again["number"]) == (False, 1)
    done = call.bulk_upsert(
        "Invoice", [{"title": title, "series": "B"} for title in "cab"], key_fields=["title"], return_ids=True
    )
    assert (done["created"], done["updated"]) == (1, 2)
    assert [(number, title) for _, number, title in numbers(db)] == [(1, "a"), (2, "b"), (3, "c")]


def test_a_workflow_derives_as_a_call_does(db):
    workflow = db.workflow()
    workflow.add_node("InvoiceCreateNode", "one", {"title": "a"})
    workflow.add_node("InvoiceBulkCreateNode", "more", {"data": [{"title": "b"}, {"title": "c"}]})
    results, _ = LocalRuntime().execute(workflow.build())
    assert results["one"]["number"] == 1
    assert [number for _, number, _ in numbers(db)] == [1, 2, 3]


def test_an_update_derives_nothing(db, plugin):
    made = db.express_sync.create("Invoice", {"title": "a"})
    plugin.seen.clear()
    assert db.express_sync.update("Invoice", made["id"], {"title": "b"})["number"] == 1
    assert db.express_sync.bulk_update("Invoice", filter={"title": "b"}, update={"series": "B"})["updated"] == 1
    assert plugin.seen == []


async def test_calls_at_the_same_time_get_different_values_without_gaps(db, opening, plugin):
    await db.initialize()
    other = opening(plugins=[plugin])
    other.model(db.models["Invoice"])
    calls = [(db, other)[n % 2].express.create("Invoice", {"title": f"t{n}"}) for n in range(16)]
    calls += [
        (db, other)[n % 2].express.bulk_create("Invoice", [{"title": f"b{n}.{i}"} for i in range(5)]) for n in range(4)
    ]
    calls += [
        (db, other)[n % 2].express.bulk_create(
            "Invoice", [{"title": f"s{n}.{i}"} for i in range(3)], conflict_resolution="skip"
        )
        for n in range(4)
    ]
    calls += [(db, other)[n % 2].express.upsert("Invoice", {"title": f"u{n}"}) for n in range(8)]
    made = await asyncio.gather(*calls)
    assert [done["created"] for done in made[16:24]] == [5] * 4 + [3] * 4
    found = (await db.express.list("Invoice", sort=["number"]))["records"]
    assert [record["number"] for record in found] == list(range(1, 16 + 20 + 12 + 8 + 1))


class Odd(Numbers):
    """A feature whose program is wrong."""

    def __init__(self, values):
        self.values = values

    def extend_plan(self, plan):
        def derive(call, records):
            yield from ()
            return self.values

        plan.derive("number", derive)


class OddPlugin(NumbersPlugin):
    def __init__(self, values):
        self.values = values

    @hookimpl
    def dataflow_features(self, model):
        return [Odd(self.values)]


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [([1, 2], PluginError, "2 values were derived for the field 'number' of 1 records"),
     (["x"], InputError, "number: expected int, got str"),
     ([7], UniqueError, "exists already")],
)  # fmt: skip
def test_a_program_that_derives_what_does_not_fit_is_an_error(opening, values, kind, message):
    db = opening(plugins=[OddPlugin(values)])

    @db.model
    class Invoice:
        series: str

    call = db.express_sync
    if values == [7]:
        call.create("Invoice", {"series": "a"})
    for write in (
        lambda: call.create("Invoice", {"series": "a"}),
        lambda: call.bulk_create("Invoice", [{"series": "a"}]),
    ):
        with pytest.raises(kind, match=message):
            write()
    assert call.count("Invoice")["count"] == (values == [7])
    assert issubclass(kind, DataFlowError)


class Even(IntType):
    """Whole numbers that can be halved."""

    name = "even"

    def accept(self, value):
        if super().accept(value) % 2:
            message = "odd"
            raise ValueRefused(message)
        return value


class Lower(StrType):
    """Text without capitals."""

    name = "lower"

    def accept(self, value):
        if super().accept(value) != value.lower():
            message = "has capitals"
            raise ValueRefused(message)
        return value


@pytest.mark.parametrize(("kind", "good", "bad"), [(Even(), 2, 3), (Lower(), "a", "A")])
def test_a_type_of_a_plugins_own_is_asked_about_each_value_of_a_bulk(opening, kind, good, bad):
    class Kinds:
        dataflow_api = "1.0"

        @hookimpl
        def dataflow_resolve_annotation(self, annotation):
            return kind if annotation is object else None

    db = opening(plugins=[Kinds()])

    @db.model
    class Thing:
        value: object

    assert db.express_sync.bulk_create("Thing", [{"value": good}] * 3)["created"] == 3
    with pytest.raises(InputError, match="row 1: value"):
        db.express_sync.bulk_create("Thing", [{"value": good}, {"value": bad}])
