"""One test per divergence that the differential test found: what was settled stays so, on both databases."""

import math
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import pytest

from dataflow import DataFlow
from dataflow.errors import DataFlowError, InputError, QueryError, UniqueError, WorkflowExecutionError
from dataflow.runtime import LocalRuntime
from dataflow.testing.differential import Boom, declare
from dataflow.testing.differential.models import CLEARING
from dataflow.testing.oracle import Level

FIRST, LAST = (datetime.fromisoformat(text) for text in ("0001-01-01T00Z", "9999-12-31T23:59:59.999999Z"))
KEY = {"price": Decimal("1.5"), "token": UUID(int=2**127)}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request, tmp_path_factory):
    if request.param == "postgresql":
        return request.getfixturevalue("postgres_url")
    return f"sqlite:///{tmp_path_factory.mktemp('divergences')}/app.db"


@pytest.fixture(scope="module")
def instance(url):
    with DataFlow(url) as db:
        declare(db)
        db.register_node(Boom)
        yield db


@pytest.fixture
def db(instance):
    for model in CLEARING:
        instance.express_sync.bulk_delete(model, filter={}, confirmed=True)
    return instance


@pytest.fixture
def x(db):
    return db.express_sync


def refused(call):
    with pytest.raises(DataFlowError) as caught:
        call()
    return type(caught.value), caught.value.code


def test_a_connection_comes_back_clean_from_a_scope_whose_last_node_failed(db, x, url):
    workflow = db.workflow().add_node("TransactionScopeNode", "scope")
    workflow.add_node("PartCreateNode", "part", {"title": "a"})
    workflow.add_node("Boom", "boom")
    with pytest.raises(WorkflowExecutionError):
        LocalRuntime().execute(workflow.build())
    assert x.count("Part") == {"count": 0}
    with pytest.raises(UniqueError):
        x.bulk_create("Vendor", [{"code": "a"}, {"code": "a"}])
    x.create("Part", {"title": "b"})
    with DataFlow(url) as other:
        declare(other)
        assert other.express_sync.count("Part") == {"count": 1}  # committed, not left in an open transaction


@pytest.mark.parametrize("moment", [FIRST, LAST])
def test_the_first_and_the_last_instant_come_back_aware(x, moment):
    made = x.create("Visit", {"id": "a", "day": moment.date(), "moment": moment})
    assert made["moment"] == moment
    assert made["moment"].tzinfo is UTC
    assert made["day"] == moment.date()
    assert x.list("Visit", {"moment": moment, "day": {"$eq": moment.date()}})["count"] == 1
    assert x.aggregate("Visit", aggregate={"m": {"$max": "moment"}})["groups"] == [{"m": moment}]


@pytest.mark.parametrize(("start", "change"), [(-1.0, {"$multiply": 0.0}), (0.0, {"$divide": -2.0})])
def test_arithmetic_gives_no_negative_zero(x, start, change):
    key = x.create("Part", {"ratio": start})["id"]
    assert math.copysign(1, x.update("Part", key, {"ratio": change})["ratio"]) == 1
    assert math.copysign(1, x.read("Part", key)["ratio"]) == 1


@pytest.mark.parametrize(
    ("start", "change"),
    [
        (1e300, {"$multiply": 1e300}),
        (1e300, {"$divide": 1e-300}),
        (1e308, {"$inc": 1e308}),
        (1e-300, {"$multiply": 1e-300}),
        (1e-300, {"$divide": 1e300}),
    ],
)
def test_a_float_that_floats_cannot_show_is_an_error(x, start, change):
    key = x.create("Part", {"ratio": start})["id"]
    assert refused(lambda: x.update("Part", key, {"ratio": change})) == (QueryError, "arithmetic")
    assert x.read("Part", key)["ratio"] == start


@pytest.mark.parametrize(("values", "average"), [([5e-324], 5e-324), ([5e-324, 0.0], 0.0), ([1e308], 1e308)])
def test_an_average_of_the_smallest_or_largest_floats_is_no_error(x, values, average):
    x.bulk_create("Part", [{"ratio": value} for value in values])
    assert x.aggregate("Part", aggregate={"a": {"$avg": "ratio"}})["groups"] == [{"a": average}]


def test_a_division_by_zero_is_refused_alike_whether_or_not_its_plan_is_known(x):
    key = x.create("Part", {"number": 8})["id"]
    calls = (
        lambda by: x.update("Part", key, {"number": {"$divide": by}}),
        lambda by: x.bulk_update("Part", filter={"number": {"$gt": 0}}, update={"number": {"$divide": by}}),
        lambda by: x.upsert("Part", {"id": key}, update={"number": {"$divide": by}}),
        lambda by: x.bulk_update("Part", data=[{"id": key, "number": {"$divide": by}}]),
    )
    for call in calls:
        for operand in (0, 1, 0):
            if operand:
                call(operand)
            else:
                assert refused(lambda call=call: call(0)) == (InputError, "wrong-value")
    assert x.read("Part", key)["number"] == 8


@pytest.mark.parametrize("factor", [math.nan, math.inf, Decimal("NaN"), 2**63, 10**400])
@pytest.mark.parametrize("op", ["$multiply", "$divide"])
def test_an_int_is_multiplied_only_with_what_is_a_number_that_fits(x, op, factor):
    key = x.create("Part", {"number": 8})["id"]
    assert refused(lambda: x.update("Part", key, {"number": {op: factor}})) == (InputError, "wrong-value")
    assert x.read("Part", key)["number"] == 8


def test_an_upsert_by_another_unique_key_leaves_the_primary_key_alone(x):
    day = date(2025, 1, 31)
    x.create("Visit", {"id": "a", "day": day, "token": UUID(int=1)})
    out = x.upsert("Visit", {"token": UUID(int=1)}, {"id": "b", "day": date(2025, 2, 1)})
    assert (out["id"], out["day"], out["created"]) == ("a", date(2025, 2, 1), False)


def test_where_of_an_upsert_holds_values_not_a_filter(db):
    where = {"code": "a", "profile": {}}
    for created in (True, False):
        workflow = db.workflow().add_node("VendorUpsertNode", "v", {"where": where, "conflict_on": ["code"]})
        out = LocalRuntime().execute(workflow.build())[0]["v"]
        assert (out["profile"], out["created"]) == ({}, created)


@pytest.mark.parametrize("moment", [FIRST, datetime(2025, 1, 31, 12, tzinfo=UTC), LAST])
def test_a_bulk_upsert_returns_composite_keys_of_every_type(x, moment):
    rows = [{**KEY, "moment": moment, "level": level, "factor": 1.0} for level in (Level.LOW, "MIDDLE")]
    expected = [(moment, Decimal("1.5"), UUID(int=2**127), level) for level in (Level.LOW, Level.MIDDLE)]
    for created in (2, 0):
        out = x.bulk_upsert("Rate", rows, return_ids=True)
        assert (out["created"], out["ids"]) == (created, expected)
        assert [type(part) for part in out["ids"][0]] == [datetime, Decimal, UUID, Level]


@pytest.mark.parametrize("options", [{}, {"return_ids": True}, {"batch_size": 2}, {"on_error": "skip"}])
def test_ids_ascend_with_the_rows_of_a_bulk_where_some_are_given(x, options):
    base = x.create("Part", {"sku": "a", "batch": 1})["id"]
    rows = [{"title": "1"}, {"title": "2", "id": base + 100}, {"title": "3"}, {"title": "4", "id": base + 200}]
    x.bulk_create("Part", [*rows, {"title": "5"}], **options)
    listed = x.list("Part", {"title": {"$null": False}}, fields=["title", "id"])["records"]
    assert [row["title"] for row in listed] == ["1", "2", "3", "4", "5"]
    assert [listed[1]["id"], listed[3]["id"]] == [base + 100, base + 200]


def test_ids_ascend_with_the_rows_as_well_where_a_first_attempt_was_undone(x):
    base = x.create("Part", {"sku": "a", "batch": 1})["id"]
    rows = [{"title": "1"}, {"sku": "a", "batch": 1}, {"title": "3", "id": base + 100}, {"title": "4"}]
    out = x.bulk_create("Part", rows, on_error="skip", return_ids=True)
    assert (out["created"], out["skipped"]) == (3, 1)
    assert [row["title"] for row in x.list("Part", {"id": {"$gt": base}})["records"]] == ["1", "3", "4"]
    assert out["ids"][1] is None
    assert out["ids"][2] == base + 100


@pytest.mark.filterwarnings("ignore:.*records by reading them")
@pytest.mark.parametrize("most", [2**63 - 1, 2**63, 10**30])
def test_a_limit_beyond_all_rows_is_as_good_as_none_and_an_offset_skips_them_all(x, most):
    x.bulk_create("Part", [{"title": "a"}, {"title": "b"}])
    listed = x.list("Part", limit=most)
    assert (listed["count"], listed["limit"], listed["has_more"]) == (2, most, False)
    assert x.list("Part", offset=most)["count"] == 0
    assert len(x.aggregate("Part", group_by="title", aggregate={"n": {"$count": "*"}}, limit=most)["groups"]) == 2
    assert x.bulk_update("Part", filter={}, update={"flag": True}, limit=most) == {"updated": 2}
    assert x.bulk_delete("Part", filter={"flag": True}, limit=most) == {"deleted": 2}


@pytest.mark.parametrize("sign", ["", "-"])
def test_half_a_digit_of_a_decimal_average_is_rounded_away_from_zero(x, sign):
    x.create("Part", {"price": Decimal(f"{sign}1.2345678901234567890123456785")})
    average = x.aggregate("Part", aggregate={"a": {"$avg": "price"}})["groups"][0]["a"]
    assert str(average) == f"{sign}1.234567890123456789012345679"


def test_json_values_that_are_equal_count_once(x):
    same = ([1, 1.0], [[1], [1.0]], [{"a": [1]}, {"a": [1.0]}], [True], ["1"], [None])
    documents = [value for group in same for value in group]
    x.bulk_create("Shelf", [{"aisle": "a", "slot": n, "document": value} for n, value in enumerate(documents)])
    out = x.aggregate("Shelf", aggregate={"n": {"$count_distinct": "document"}})
    assert out["groups"] == [{"n": 5}]


@pytest.mark.parametrize("factor", [Decimal("0.1"), Decimal("1E-16383")])
def test_a_decimal_product_that_would_lose_places_is_an_error(x, factor):
    key = x.create("Part", {"price": Decimal("1E-16383")})["id"]
    assert refused(lambda: x.update("Part", key, {"price": {"$multiply": factor}})) == (QueryError, "arithmetic")
    assert x.read("Part", key)["price"] == Decimal("1E-16383")


def test_json_integers_beyond_64_bits_are_compared_exactly(x):
    numbers = [10**20, 10**20 + 1, 2**63, 2**63 - 1, 10**400, -(10**400), 1.5]
    x.bulk_create("Shelf", [{"aisle": "a", "slot": n, "document": {"v": v}} for n, v in enumerate(numbers)])

    def found(condition):
        rows = x.list("Shelf", {"document.v": condition}, fields=["document"])["records"]
        return [row["document"]["v"] for row in rows]

    for number in numbers:
        assert found(number) == [number]
        assert found({"$in": [number, 7]}) == [number]
        assert found({"$gt": number}) == [other for other in numbers if other > number]
        assert found({"$lte": number}) == [other for other in numbers if other <= number]
        assert found({"$ne": number}) == [other for other in numbers if other != number]
    assert found({"$between": [1e20, 10**400]}) == [10**20, 10**20 + 1, 10**400]
