"""AggregateNode: functions and their types, groups, having, order, limits."""

from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest

from dataflow.errors import WorkflowBuildError, WorkflowExecutionError


class Channel(Enum):
    WEB = "web"
    SHOP = "shop"


@pytest.fixture
def sales(bench: Any) -> Any:
    db = bench.db

    @db.model
    class Customer:
        name: str
        city: str

    @db.model
    class Sale:
        customer_id: int
        channel: Channel | None = None
        amount: int | None = None
        weight: float | None = None
        price: Decimal | None = None
        day: date | None = None
        at: datetime | None = None
        meta: dict = {}  # noqa: RUF012

    x = db.express_sync
    x.bulk_create("Customer", [{"name": "Ada", "city": "Bern"}, {"name": "Bob", "city": "Rom"}])
    x.bulk_create("Sale", [
        {"customer_id": 1, "channel": "web", "amount": 2, "weight": 1.5, "price": Decimal("0.1"),
         "day": date(2024, 1, 2), "at": datetime(2024, 1, 2, 3, tzinfo=UTC)},
        {"customer_id": 1, "channel": "shop", "amount": 5, "weight": 2.5, "price": Decimal("0.2")},
        {"customer_id": 2, "channel": "web", "amount": 2, "price": Decimal("10.123456789012345678901")},
        {"customer_id": 2, "day": date(2023, 1, 1)},
    ])  # fmt: skip
    return bench


def groups(bench: Any, **params: Any) -> list[dict[str, Any]]:
    return bench.run("SaleAggregateNode", params)["groups"]


def one(bench: Any, function: str, field: str, **params: Any) -> Any:
    return groups(bench, aggregate={"x": {function: field}}, **params)[0]["x"]


@pytest.mark.parametrize(
    ("function", "field", "expected"),
    [
        ("$sum", "amount", 9),
        ("$sum", "weight", 4.0),
        ("$sum", "price", Decimal("10.423456789012345678901")),
        ("$avg", "amount", 3.0),
        ("$avg", "weight", 2.0),
        ("$avg", "price", Decimal("3.474485596337448559633666667")),
        ("$min", "amount", 2),
        ("$max", "amount", 5),
        ("$min", "weight", 1.5),
        ("$min", "price", Decimal("0.1")),
        ("$max", "price", Decimal("10.123456789012345678901")),
        ("$min", "channel", Channel.SHOP),
        ("$max", "day", date(2024, 1, 2)),
        ("$max", "at", datetime(2024, 1, 2, 3, tzinfo=UTC)),
        ("$count", "*", 4),
        ("$count", "amount", 3),
        ("$count_distinct", "amount", 2),
        ("$count_distinct", "customer_id", 2),
    ],
)
def test_a_function_has_the_value_and_type_of_the_rules(sales: Any, function: str, field: str, expected: Any) -> None:
    found = one(sales, function, field)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("function", "field", "expected"),
    [("$sum", "amount", 0), ("$sum", "weight", 0.0), ("$sum", "price", Decimal(0)), ("$avg", "amount", None),
     ("$avg", "price", None), ("$min", "price", None), ("$max", "day", None), ("$count", "*", 0),
     ("$count_distinct", "amount", 0)],
)  # fmt: skip
def test_no_rows_sum_to_zero_and_have_no_extremes(sales: Any, function: str, field: str, expected: Any) -> None:
    found = one(sales, function, field, filter={"customer_id": 9})
    assert found == expected
    assert type(found) is type(expected)


def test_decimals_are_compared_by_value_not_as_text(sales: Any) -> None:
    sales.db.express_sync.create("Sale", {"customer_id": 3, "price": Decimal("9.5")})
    assert one(sales, "$max", "price") == Decimal("10.123456789012345678901")
    found = groups(sales, group_by=["price"], aggregate={"n": {"$count": "*"}}, filter={"price": {"$not": None}})
    assert [g["price"] for g in found] == sorted(g["price"] for g in found)


def test_groups_come_in_the_order_of_their_keys_with_nulls_first(sales: Any) -> None:
    found = groups(sales, group_by=["channel"], aggregate={"n": {"$count": "*"}, "total": {"$sum": "amount"}})
    assert found == [
        {"channel": None, "n": 1, "total": 0},
        {"channel": Channel.SHOP, "n": 1, "total": 5},
        {"channel": Channel.WEB, "n": 2, "total": 4},
    ]


def test_groups_by_several_fields_and_one_name_alone(sales: Any) -> None:
    found = groups(sales, group_by=["customer_id", "channel"], aggregate={"n": {"$count": "*"}})
    assert [(g["customer_id"], g["channel"]) for g in found] == [
        (1, Channel.SHOP), (1, Channel.WEB), (2, None), (2, Channel.WEB),
    ]  # fmt: skip
    assert groups(sales, group_by="customer_id", aggregate={"n": {"$count": "*"}})[0] == {"customer_id": 1, "n": 2}


def test_groups_are_sorted_and_limited_on_request(sales: Any) -> None:
    params = {"group_by": ["channel"], "aggregate": {"n": {"$count": "*"}}}
    assert [g["channel"] for g in groups(sales, **params, sort=[{"n": -1}])] == [Channel.WEB, None, Channel.SHOP]
    assert [g["n"] for g in groups(sales, **params, order_by=["-channel"], limit=1)] == [2]
    assert groups(sales, **params, limit=0) == []


def test_having_filters_groups_by_aggregates_and_keys(sales: Any) -> None:
    params = {"group_by": ["customer_id"], "aggregate": {"n": {"$count": "*"}, "price": {"$sum": "price"}}}
    assert [g["customer_id"] for g in groups(sales, **params, having={"price": {"$gt": 1}})] == [2]
    assert [g["customer_id"] for g in groups(sales, **params, having={"customer_id": 1, "n": {"$gte": 2}})] == [1]
    having = {"$or": [{"price": {"$lt": Decimal("0.5")}}, {"customer_id": 9}]}
    assert [g["customer_id"] for g in groups(sales, **params, having=having)] == [1]
    having = {"$not": {"price": {"$lt": Decimal("0.5")}}}
    assert [g["customer_id"] for g in groups(sales, **params, having=having)] == [2]
    assert groups(sales, **params, having={"n": {"$in": [7]}}, filter={"channel": "web"}) == []


def test_an_aggregate_may_be_called_like_a_field(sales: Any) -> None:
    found = groups(sales, group_by=["customer_id"], aggregate={"amount": {"$sum": "amount"}}, sort="-amount")
    assert found == [{"customer_id": 1, "amount": 7}, {"customer_id": 2, "amount": 2}]


def test_a_filter_before_grouping_reaches_related_records(sales: Any) -> None:
    found = groups(sales, filter={"customer": {"city": "Bern"}}, aggregate={"total": {"$sum": "amount"}})
    assert found == [{"total": 7}]


def test_a_sum_of_ints_beyond_64_bits_is_an_error(sales: Any) -> None:
    sales.run("SaleBulkCreateNode", data=[{"customer_id": 5, "amount": 2**62}] * 2)
    with pytest.raises(WorkflowExecutionError, match="the sum does not fit in 64 bits"):
        one(sales, "$sum", "amount")
    assert one(sales, "$avg", "amount", filter={"customer_id": 5}) == float(2**62)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"aggregate": {"x": "$sum"}}, "the aggregate 'x' is {function: field}"),
        ({"aggregate": {"x": {"$sum": "amount", "$avg": "amount"}}}, "the aggregate 'x' is {function: field}"),
        ({"aggregate": {"x": {"$summ": "amount"}}}, "'$summ' is not an aggregate function"),
        ({"aggregate": {"x": {"$sum": "*"}}}, "model Sale has no field '*'"),
        ({"aggregate": {"x": {"$sum": "amuont"}}}, "model Sale has no field 'amuont'"),
        ({"aggregate": {"x": {"$max": "meta"}}}, "$max needs an order, and 'meta' is JSON"),
        ({"aggregate": {"x": {"$count": ["amount"]}}}, "aggregate 'x': model Sale has no field"),
        ({"aggregate": {"channel": {"$count": "*"}}, "group_by": "channel"}, "is a group field and an aggregate"),
        ({"aggregate": {"n": {"$count": "*"}}, "group_by": ["meta"]}, "'meta' is JSON, which has no groups"),
        ({"aggregate": {"n": {"$count": "*"}}, "group_by": ["chanel"]}, "model Sale has no field 'chanel'"),
        ({"aggregate": {"n": {"$count": "*"}}, "group_by": 3}, "group_by takes a list of names, got int"),
        ({"aggregate": {"n": {"$count": "*"}}, "sort": "-amount"}, "sort: no group field or aggregate 'amount'"),
        ({"aggregate": {"n": {"$count": "*"}}, "having": {"n": {"$gt": "1"}}}, "having n: expected int, got str"),
        ({"aggregate": {"n": {"$count": "*"}}, "having": {"$or": [{"m": 1}]}}, "no group field or aggregate 'm'"),
        ({"aggregate": {"n": {"$count": "*"}}, "having": {"$or": [3]}}, "a filter is a dict, got int"),
        ({"aggregate": {"n": {"$count": "*"}}, "limit": "1"}, "limit takes a whole number of at least 0, got str"),
    ],
)
def test_a_faulty_aggregate_says_what_is_wrong(sales: Any, params: Any, message: str) -> None:
    with pytest.raises((WorkflowExecutionError, WorkflowBuildError)) as caught:
        groups(sales, **params)
    assert message in str(caught.value)


def test_the_average_of_ints_is_the_float_next_to_the_true_one(bench: Any) -> None:
    """Both databases print the same digits."""

    @bench.db.model
    class Reading:
        place: int
        value: int

    values = {place: [place, 0, *[1] * (place % 17), 10 ** (place % 19)] for place in range(80)}
    rows = [{"place": place, "value": value} for place, found in values.items() for value in found]
    bench.run("ReadingBulkCreateNode", {"data": rows})
    means = bench.run("ReadingAggregateNode", {"group_by": ["place"], "aggregate": {"mean": {"$avg": "value"}}})
    assert [group["mean"] for group in means["groups"]] == [sum(found) / len(found) for found in values.values()]
