"""Update operators: computed in the database, exactly or not at all."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

import pytest

from dataflow import DataFlow, Factory
from dataflow.errors import InputError, QueryError
from dataflow.testing.conformance.bench import WAYS, Bench
from dataflow.testing.conformance.suite import Suite, requires
from dataflow.testing.conformance.values import exactly

_LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)
RESULTS: dict[str, list[tuple[dict[str, Any], Any]]] = {
    "count": [
        ({"$inc": 2}, 6),
        ({"$inc": -6}, -2),
        ({"$dec": 1}, 3),
        ({"$multiply": 3}, 12),
        ({"$multiply": 0.5}, 2),
        ({"$multiply": Decimal("0.25")}, 1),
        ({"$divide": 2}, 2),
        ({"$divide": 0.5}, 8),
        ({"$min": 3}, 3),
        ({"$min": 9}, 4),
        ({"$max": 2**63 - 1}, 2**63 - 1),
        ({"$inc": 2**63 - 5}, 2**63 - 1),
        ({"$multiply": -(2**61)}, -(2**63)),
        ({"$set": 7}, 7),
        ({"$unset": True}, None),
    ],
    "level": [
        ({"$inc": 1}, 701.5),
        ({"$dec": 0.5}, 700.0),
        ({"$multiply": 2}, 1401.0),
        ({"$divide": 4}, 175.125),
        ({"$max": 1e300}, 1e300),
        ({"$min": -0.0}, 0.0),
    ],
    "name": [({"$max": "z"}, "z"), ({"$min": "Z"}, "Z"), ({"$max": "Ä"}, "Ä")],
    "at": [({"$max": _LONG_AGO}, datetime(2024, 1, 1, tzinfo=UTC)), ({"$min": _LONG_AGO}, _LONG_AGO)],
}
"""field -> (change, what it gives on the defaults of Gauge)."""
DECIMAL_RESULTS: list[tuple[dict[str, Any], str]] = [
    ({"$inc": Decimal("0.000000000000000000001")}, "0.100000000000000000001"),
    ({"$dec": Decimal("0.1")}, "0"),
    ({"$inc": 10**30}, "1000000000000000000000000000000.1"),
    ({"$multiply": Decimal("1.1")}, "0.11"),
    ({"$multiply": 10}, "1"),
    ({"$divide": 8}, "0.0125"),
    ({"$divide": Decimal("0.4")}, "0.25"),
    ({"$max": Decimal(9)}, "9"),
    ({"$min": Decimal("0.09")}, "0.09"),
]
"""(change, what it gives on 0.10)."""


class TestOperators(Suite):
    """Update operators: computed in the database, exactly or not at all."""

    conformance_area: ClassVar[str] = "crud"

    @classmethod
    def declare(cls, db: DataFlow) -> None:
        @db.model
        class Gauge:
            name: str = "m"
            count: int | None = 4
            level: float | None = 700.5
            at: datetime | None = datetime(2024, 1, 1, tzinfo=UTC)
            __tablename__ = "gauges"

        @db.model
        class Price:
            amount: Decimal | None = Decimal("0.10")

        @db.model
        class Basket:
            tags: list[str] | None = Factory(lambda: ["big"])
            codes: list[UUID] = Factory(list)
            sums: list[Decimal] = Factory(list)

        @db.model
        class Note:
            body: dict[str, Any] | None = Factory(lambda: {"list": [1]})
            extra: Any = None

    @requires("exact_arithmetic")
    @pytest.mark.parametrize("field", RESULTS)
    def test_an_operator_gives_the_exact_result(self, calls: Bench, field: str) -> None:
        wrong = {}
        for change, expected in RESULTS[field]:
            key, other = (calls.create("Gauge", {})["id"] for _ in range(2))
            calls.bulk_update("Gauge", data=[{"id": other, field: change}])
            found = [calls.update("Gauge", key, {field: change})[field], calls.read("Gauge", other)[field]]
            if exactly(found) != exactly([expected, expected]):
                wrong[str(change)] = found
        assert wrong == {}

    @requires("exact_arithmetic", "decimal")
    def test_an_operator_keeps_every_digit_of_a_decimal(self, calls: Bench) -> None:
        wrong = {}
        for change, expected in DECIMAL_RESULTS:
            found = calls.update("Price", calls.create("Price", {})["id"], {"amount": change})["amount"]
            if exactly(found) != exactly(Decimal(expected)):
                wrong[str(change)] = found
        assert wrong == {}

    @requires("arrays")
    def test_append_adds_to_a_list(self, calls: Bench) -> None:
        key = calls.create("Basket", {})["id"]
        changes = {"tags": "it's", "codes": UUID(int=7), "sums": Decimal("1.50")}
        made = calls.update("Basket", key, {field: {"$append": item} for field, item in changes.items()})
        expected = [["big", "it's"], [UUID(int=7)], [Decimal("1.5")]]
        assert exactly([made["tags"], made["codes"], made["sums"]]) == exactly(expected)
        calls.update("Basket", key, {"tags": None})
        assert calls.update("Basket", key, {"tags": {"$append": "a"}})["tags"] == ["a"]

    @requires("json")
    def test_append_adds_to_a_json_list_or_makes_one(self, calls: Bench) -> None:
        key = calls.create("Note", {})["id"]
        assert calls.update("Note", key, {"extra": {"$append": {"a": 1}}})["extra"] == [{"a": 1}]
        assert calls.update("Note", key, {"extra": {"$append": "x"}})["extra"] == [{"a": 1}, "x"]

    @requires("json")
    def test_json_with_dollar_keys_is_stored_when_set_explicitly(self, calls: Bench) -> None:
        key = calls.create("Note", {"body": {"$inc": 1}})["id"]
        assert calls.update("Note", key, {"body": {"$set": {"$max": {"$": 2}}}})["body"] == {"$max": {"$": 2}}

    def test_operators_may_stand_outside_and_all_see_the_old_record(self, calls: Bench) -> None:
        key = calls.create("Gauge", {})["id"]
        changed = calls.update("Gauge", key, {"$inc": {"count": 2}, "$multiply": {"level": 2}, "name": "n"})
        assert (changed["count"], changed["level"], changed["name"]) == (6, 1401.0, "n")

    def test_arithmetic_on_none_stays_none(self, calls: Bench) -> None:
        key = calls.create("Gauge", {"count": None, "level": None})["id"]
        changed = calls.update("Gauge", key, {"count": {"$inc": 1}, "level": {"$divide": 2}})
        assert (changed["count"], changed["level"]) == (None, None)

    @requires("exact_arithmetic")
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"count": {"$divide": 3}}, "the result is not a whole number; nothing is rounded silently"),
            ({"count": {"$multiply": 0.3}}, "the result is not a whole number; nothing is rounded silently"),
            ({"count": {"$multiply": 2**62}}, "the result does not fit in 64 bits"),
            ({"count": {"$inc": 2**63 - 4}}, "the result does not fit in 64 bits"),
            ({"level": {"$multiply": 1.7e308}}, "the result is too large for a float"),
        ],
    )
    def test_a_result_that_does_not_fit_is_an_error_and_changes_nothing(
        self, bench: Bench, change: Any, message: str
    ) -> None:
        key = bench.create("Gauge", {})["id"]
        before = bench.read("Gauge", key)
        for way in WAYS:
            with pytest.raises(QueryError) as caught:
                bench.by(way).update("Gauge", key, change)
            assert (caught.value.message, caught.value.code) == (message, "arithmetic")
            assert bench.read("Gauge", key) == before

    @requires("exact_arithmetic", "decimal")
    def test_a_decimal_division_without_exact_result_is_refused(self, calls: Bench) -> None:
        key = calls.create("Price", {"amount": Decimal(10)})["id"]
        with pytest.raises(QueryError) as caught:
            calls.update("Price", key, {"amount": {"$divide": 3}})
        assert caught.value.message == "the result is not an exact Decimal; nothing is rounded silently"
        assert calls.read("Price", key)["amount"] == Decimal(10)

    @pytest.mark.parametrize("field", ["count", "level"])
    def test_division_by_zero_is_an_error(self, calls: Bench, field: str) -> None:
        key = calls.create("Gauge", {})["id"]
        calls.update("Gauge", key, {field: {"$divide": 1}})  # the same shape of call, compiled
        with pytest.raises(InputError, match=r"\$divide by zero"):
            calls.update("Gauge", key, {field: {"$divide": 0}})
        assert calls.read("Gauge", key)[field] in (4, 700.5)

    @requires("json")
    def test_append_to_what_is_no_list_is_an_error(self, calls: Bench) -> None:
        key = calls.create("Note", {})["id"]
        with pytest.raises(QueryError) as caught:
            calls.update("Note", key, {"body": {"$append": 1}})
        assert caught.value.message == "$append needs a list, and the stored JSON is not one"
