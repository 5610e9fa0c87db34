"""How much goes through: long values, many rows, many columns, deep filters; and what is beyond is refused clearly."""

from decimal import Decimal
from typing import Any, ClassVar

import pytest

from dataflow import DataFlow
from dataflow.errors import InputError
from dataflow.testing.conformance.bench import Bench, keys_of
from dataflow.testing.conformance.suite import Suite, requires
from dataflow.testing.conformance.values import exactly

COLUMNS = [f"c{number}" for number in range(250)]


class TestLimits(Suite):
    """Large things."""

    conformance_area: ClassVar[str] = "limits"

    @classmethod
    def declare(cls, db: DataFlow) -> None:
        @db.model
        class Blob:
            text: str | None = None
            data: bytes | None = None
            __tablename__ = "limit_blobs"

        @db.model
        class Exact:
            value: Decimal
            __tablename__ = "limit_exacts"

        @db.model
        class Tree:
            doc: dict[str, Any]
            __tablename__ = "limit_trees"

        @db.model
        class Row:
            n: int
            __tablename__ = "limit_rows"

        fields: dict[str, Any] = dict.fromkeys(COLUMNS, int | None)
        db.model(type("Wide", (), {"__annotations__": fields, "__tablename__": "limit_wides"}))

    @requires("text", "bytes")
    def test_texts_and_bytes_of_megabytes_come_back(self, calls: Bench) -> None:
        text, data = "ä'\\\n🦁" * 400_000, bytes(range(256)) * 12_000
        made = calls.create("Blob", {"text": text, "data": data})
        read = calls.read("Blob", made["id"])
        assert read["text"] == text
        assert read["data"] == data

    @requires("decimal")
    @pytest.mark.parametrize(
        "text",
        ["1" * 131_072, "1" + "0" * 131_071, "0." + "0" * 16_382 + "1", "-" + "9" * 1000 + "." + "9" * 1000],
        ids=["many digits", "many zeros", "tiny", "long"],
    )
    def test_a_decimal_keeps_every_digit_up_to_the_common_limit(self, bench: Bench, text: str) -> None:
        value = Decimal(text)
        made = bench.create("Exact", {"value": value})
        assert exactly(made["value"]) == exactly(value)
        assert bench.count("Exact", {"value": {"$gte": value, "$lte": value}}) == {"count": 1}
        for beyond in ("1E+131072", "1E-16384"):
            with pytest.raises(InputError, match="more digits than a database holds"):
                bench.create("Exact", {"value": Decimal(beyond)})

    @requires("json")
    def test_json_is_stored_up_to_the_common_depth_and_length(self, calls: Bench) -> None:
        deep: Any = 1
        for _ in range(199):
            deep = {"a": deep}
        document = {"deep": deep["a"], "long": list(range(20_000)), "number": 10**3800, "text": "x" * 300_000}
        made = calls.create("Tree", {"doc": document})
        assert calls.read("Tree", made["id"])["doc"] == document
        for beyond in ({"a": {"a": deep}}, {"a": 10**4000}):
            with pytest.raises(InputError, match="doc"):
                calls.create("Tree", {"doc": beyond})

    @requires("bulk")
    def test_wide_rows_are_written_in_bulk_and_read_back(self, calls: Bench) -> None:
        rows = [{name: row * 1000 + place for place, name in enumerate(COLUMNS)} for row in range(400)]
        ids = calls.bulk_create("Wide", rows, return_ids=True)["ids"]
        records = calls.list("Wide", fields=["id", *COLUMNS])["records"]
        assert [{name: record[name] for name in COLUMNS} for record in records] == rows
        assert [record["id"] for record in records] == ids
        changed = calls.bulk_update("Wide", data=[{"id": key, "c0": -1, "c249": -2} for key in ids])
        assert changed["updated"] == 400

    def test_a_list_of_values_may_be_very_long(self, calls: Bench) -> None:
        calls.bulk_create("Row", [{"n": n} for n in (1, 70_000, 99_999)])
        assert keys_of(calls.list("Row", {"n": {"$in": list(range(2, 90_000))}}), "n") == [70_000]
        assert keys_of(calls.list("Row", {"n": {"$nin": list(range(2, 90_000))}}), "n") == [1, 99_999]

    def test_a_filter_may_be_deep_but_not_bottomless(self, calls: Bench) -> None:
        calls.create("Row", {"n": 1})
        deep: dict[str, Any] = {"n": 1}
        for _ in range(90):
            deep = {"$and": [deep]}
        assert calls.count("Row", deep) == {"count": 1}
        for _ in range(400):
            deep = {"$and": [deep]}
        with pytest.raises(InputError, match="levels deep"):
            calls.list("Row", deep)

    def test_a_very_long_list_warns_and_names_paging(self, bench: Bench) -> None:
        bench.bulk_create("Row", [{"n": n} for n in range(10_001)])
        with pytest.warns(UserWarning, match=r"RowListNode returned 10,001 records at once; page with limit="):
            assert bench.list("Row")["count"] == 10_001
        assert bench.list("Row", limit=10_002, offset=1)["count"] == 10_000
        with pytest.warns(UserWarning, match=r"RowListNode skips .* records by reading them; page with cursor="):
            assert bench.list("Row", offset=2**63 - 1, limit=2**63 - 2)["count"] == 0
        assert bench.bulk_delete("Row", filter={"n": {"$gte": 0}}) == {"deleted": 10_001}
