"""Aggregates: functions and their exact types, groups, having, order."""

from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, ClassVar

import pytest

from dataflow import DataFlow
from dataflow.errors import InputError, QueryError
from dataflow.testing.conformance.bench import Bench
from dataflow.testing.conformance.suite import Suite, requires
from dataflow.testing.conformance.values import exactly


class Channel(Enum):
    """How something was sold."""

    WEB = "web"
    SHOP = "shop"


LOW = Decimal("0.1")
HIGH = Decimal("10.123456789012345678901")
FUNCTIONS: dict[str, list[tuple[str, str, Any, Any]]] = {
    "int": [
        ("$sum", "amount", 9, 0),
        ("$avg", "amount", 3.0, None),
        ("$min", "amount", 2, None),
        ("$max", "amount", 5, None),
        ("$count", "amount", 3, 0),
        ("$count_distinct", "amount", 2, 0),
        ("$count", "*", 4, 0),
    ],
    "float": [
        ("$sum", "weight", 4.0, 0.0),
        ("$avg", "weight", 2.0, None),
        ("$min", "weight", 1.5, None),
        ("$max", "weight", 2.5, None),
        ("$count_distinct", "weight", 2, 0),
    ],
    "other": [
        ("$min", "channel", Channel.SHOP, None),
        ("$max", "channel", Channel.WEB, None),
        ("$min", "name", "A", None),
        ("$max", "name", "ä", None),
        ("$max", "day", date(2024, 1, 2), None),
        ("$min", "day", date(2023, 1, 1), None),
        ("$max", "at", datetime(2024, 1, 2, 3, tzinfo=UTC), None),
        ("$count_distinct", "name", 4, 0),
    ],
}
DECIMAL_FUNCTIONS: list[tuple[str, str, Any, Any]] = [
    ("$sum", "price", LOW + LOW + LOW + HIGH, Decimal(0)),
    ("$avg", "price", (LOW + LOW + LOW + HIGH) / 4, None),
    ("$min", "price", LOW, None),
    ("$max", "price", HIGH, None),
    ("$count", "price", 4, 0),
    ("$count_distinct", "price", 2, 0),
]


def one(bench: Bench, model: str, function: str, field: str, **params: Any) -> Any:
    """Return one aggregate over all records."""
    (group,) = bench.aggregate(model, aggregate={"x": {function: field}}, **params)["groups"]
    return group["x"]


def check(bench: Bench, model: str, functions: list[tuple[str, str, Any, Any]]) -> None:
    """Assert that functions give values and types, over all records and over none."""
    wrong = {}
    for function, field, expected, of_none in functions:
        found = one(bench, model, function, field), one(bench, model, function, field, filter={"id": -1})
        if exactly(list(found)) != exactly([expected, of_none]):
            wrong[function, field] = found
    assert wrong == {}


class TestAggregates(Suite):
    """Aggregates over a known set of sales."""

    conformance_area: ClassVar[str] = "aggregates"
    reads_only: ClassVar[bool] = True

    @classmethod
    def declare(cls, db: DataFlow) -> None:
        @db.model
        class Client:
            name: str
            city: str

        @db.model
        class Sale:
            client_id: int
            name: str
            channel: Channel | None = None
            amount: int | None = None
            weight: float | None = None
            day: date | None = None
            at: datetime | None = None

        @db.model
        class Fare:
            price: Decimal | None = None

        @db.model
        class Big:
            number: int | None = None
            size: float | None = None
            __tablename__ = "aggregate_bigs"

    @classmethod
    def fill(cls, bench: Bench) -> None:
        bench.bulk_create("Client", [{"id": 1, "name": "Ada", "city": "Bern"}, {"id": 2, "name": "Bob", "city": "Rom"}])
        bench.bulk_create("Sale", [
            {"client_id": 1, "name": "A", "channel": "web", "amount": 2, "weight": 1.5, "day": date(2024, 1, 2),
             "at": datetime(2024, 1, 2, 3, tzinfo=UTC)},
            {"client_id": 1, "name": "a", "channel": "shop", "amount": 5, "weight": 2.5},
            {"client_id": 2, "name": "ä", "channel": "web", "amount": 2},
            {"client_id": 2, "name": "Z", "day": date(2023, 1, 1)},
        ])  # fmt: skip

    @requires("aggregates")
    @pytest.mark.parametrize("kind", FUNCTIONS)
    def test_a_function_has_the_value_and_type_of_the_rules_also_over_nothing(self, calls: Bench, kind: str) -> None:
        check(calls, "Sale", FUNCTIONS[kind])

    @requires("aggregates", "decimal")
    def test_decimals_are_added_and_compared_exactly(self, calls: Bench) -> None:
        calls.bulk_delete("Fare", filter={}, confirmed=True)
        calls.bulk_create("Fare", [{"price": price} for price in (LOW, HIGH, None, LOW, LOW)])
        check(calls, "Fare", DECIMAL_FUNCTIONS)
        groups = calls.aggregate("Fare", group_by=["price"], aggregate={"n": {"$count": "*"}})["groups"]
        assert groups == [{"price": None, "n": 1}, {"price": LOW, "n": 3}, {"price": HIGH, "n": 1}]
        having = calls.aggregate("Fare", group_by="price", aggregate={"s": {"$sum": "price"}}, having={"s": {"$gt": 9}})
        assert having["groups"] == [{"price": HIGH, "s": HIGH}]

    def test_groups_come_in_the_order_of_their_keys_with_nulls_first(self, calls: Bench) -> None:
        aggregate = {"n": {"$count": "*"}, "total": {"$sum": "amount"}, "mean": {"$avg": "amount"}}
        assert calls.aggregate("Sale", group_by=["channel"], aggregate=aggregate)["groups"] == [
            {"channel": None, "n": 1, "total": 0, "mean": None},
            {"channel": Channel.SHOP, "n": 1, "total": 5, "mean": 5.0},
            {"channel": Channel.WEB, "n": 2, "total": 4, "mean": 2.0},
        ]
        names = calls.aggregate("Sale", group_by=["name"], aggregate={"n": {"$count": "*"}})["groups"]
        assert [group["name"] for group in names] == ["A", "Z", "a", "ä"]
        both = calls.aggregate("Sale", group_by=["client_id", "channel"], aggregate={"n": {"$count": "*"}})["groups"]
        assert [(group["client_id"], group["channel"]) for group in both] == [
            (1, Channel.SHOP), (1, Channel.WEB), (2, None), (2, Channel.WEB),
        ]  # fmt: skip

    def test_groups_are_sorted_and_limited_on_request(self, calls: Bench) -> None:
        params: dict[str, Any] = {"group_by": ["channel"], "aggregate": {"n": {"$count": "*"}}}
        found = calls.aggregate("Sale", **params, sort=[{"n": -1}])["groups"]
        assert [group["channel"] for group in found] == [Channel.WEB, None, Channel.SHOP]
        assert [g["n"] for g in calls.aggregate("Sale", **params, order_by=["-channel"], limit=1)["groups"]] == [2]
        assert calls.aggregate("Sale", **params, limit=0)["groups"] == []
        found = calls.aggregate("Sale", group_by="client_id", aggregate={"amount": {"$sum": "amount"}}, sort="-amount")
        assert found["groups"] == [{"client_id": 1, "amount": 7}, {"client_id": 2, "amount": 2}]

    def test_having_filters_groups_by_aggregates_and_keys(self, calls: Bench) -> None:
        params: dict[str, Any] = {
            "group_by": ["client_id"], "aggregate": {"n": {"$count": "*"}, "sum": {"$sum": "amount"}},
        }  # fmt: skip
        for having, expected in (
            ({"sum": {"$gt": 2}}, [1]),
            ({"client_id": 1, "n": {"$gte": 2}}, [1]),
            ({"$or": [{"sum": {"$lt": 3}}, {"client_id": 9}]}, [2]),
            ({"$not": {"sum": {"$lt": 3}}}, [1]),
            ({"n": {"$in": [7]}}, []),
        ):
            found = calls.aggregate("Sale", **params, having=having)["groups"]
            assert [group["client_id"] for group in found] == expected, having

    def test_a_filter_before_grouping_reaches_related_records(self, calls: Bench) -> None:
        assert one(calls, "Sale", "$sum", "amount", filter={"client": {"city": "Bern"}}) == 7

    @requires("aggregates")
    def test_a_sum_beyond_64_bits_is_an_error_and_an_average_is_not(self, calls: Bench) -> None:
        calls.bulk_delete("Big", filter={}, confirmed=True)
        calls.bulk_create("Big", [{"number": 2**62}] * 2)
        with pytest.raises(QueryError) as caught:
            one(calls, "Big", "$sum", "number")
        assert caught.value.message == "the sum does not fit in 64 bits"
        assert exactly(one(calls, "Big", "$avg", "number")) == exactly(float(2**62))
        calls.bulk_create("Big", [{"number": -(2**62)}, {"number": 2**63 - 1}, {"number": -(2**63)}])
        assert one(calls, "Big", "$sum", "number") == 2**62 - 1

    @requires("aggregates")
    def test_a_sum_of_floats_is_close_or_an_error(self, calls: Bench) -> None:
        calls.bulk_delete("Big", filter={}, confirmed=True)
        calls.bulk_create("Big", [{"size": 0.1}] * 10)
        assert one(calls, "Big", "$sum", "size") == pytest.approx(1.0, rel=1e-12)
        assert one(calls, "Big", "$avg", "size") == pytest.approx(0.1, rel=1e-12)
        calls.bulk_create("Big", [{"size": 1.7e308}] * 2)
        with pytest.raises(QueryError) as caught:
            one(calls, "Big", "$sum", "size")
        assert caught.value.message == "the result is too large for a float"

    @pytest.mark.parametrize(
        ("params", "message"),
        [
            ({"aggregate": {"x": {"$summ": "amount"}}}, "'$summ' is not an aggregate function"),
            ({"aggregate": {"x": {"$sum": "amuont"}}}, "model Sale has no field 'amuont'"),
            ({"aggregate": {"n": {"$count": "*"}}, "group_by": ["chanel"]}, "model Sale has no field 'chanel'"),
            ({"aggregate": {"n": {"$count": "*"}}, "sort": "-amount"}, "sort: no group field or aggregate 'amount'"),
            ({"aggregate": {"n": {"$count": "*"}}, "having": {"n": {"$gt": "1"}}}, "having n: expected int, got str"),
        ],
    )
    def test_a_faulty_aggregate_says_what_is_wrong(self, bench: Bench, params: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError) as caught:
            bench.aggregate("Sale", **params)
        assert message in caught.value.message
