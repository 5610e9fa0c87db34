"""Filters that look inside a value: the elements of lists, the members of JSON documents."""

from datetime import date
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

import pytest

from dataflow import DataFlow
from dataflow.testing.conformance.bench import Bench, keys_of
from dataflow.testing.conformance.filters import ALL, Case, check
from dataflow.testing.conformance.suite import Suite, requires


class TestListFilters(Suite):
    """Filters on lists."""

    conformance_area: ClassVar[str] = "filters"
    reads_only: ClassVar[bool] = True
    CASES: ClassVar[list[Case]] = [
        ({"tags": {"$contains": "b"}}, [1, 2]),
        ({"tags": {"$contains": "B"}}, []),
        ({"tags": {"$overlap": ["a", "x"]}}, [1]),
        ({"tags": {"$overlap": []}}, []),
        ({"tags": ["a", "b"]}, [1]),
        ({"tags": ["b", "a"]}, []),
        ({"tags": []}, [3]),
        ({"tags": {"$in": [["b"], []]}}, [2, 3]),
        ({"tags": {"$ne": ["b"]}}, [1, 3, 4, 5]),
        ({"tags": {"$not": {"$contains": "b"}}}, [3, 4, 5]),
        ({"tags": None}, [4, 5]),
        ({"marks": {"$contains": 2}}, [1, 2]),
        ({"marks": {"$overlap": [1, 9]}}, [1]),
        ({"sums": {"$contains": Decimal("1.50")}}, [1]),
        ({"sums": {"$overlap": [Decimal("1.5"), 7]}}, [1, 2]),
        ({"days": {"$contains": "2024-01-31"}}, [1]),
        ({"ids": {"$contains": UUID(int=1)}}, [1]),
        ({"ids": {"$overlap": [str(UUID(int=1)), UUID(int=5)]}}, [1]),
    ]

    @classmethod
    def declare(cls, db: DataFlow) -> None:
        @db.model
        class Tagged:
            tags: list[str] | None = None
            marks: list[int]
            sums: list[Decimal] | None = None
            days: list[date] | None = None
            ids: list[UUID] | None = None

    @requires("arrays")
    def test_a_filter_on_a_list_looks_at_its_elements(self, bench: Bench) -> None:
        bench.bulk_create("Tagged", [
            {"id": 1, "tags": ["a", "b"], "marks": [1, 2], "sums": [Decimal("1.5")], "days": [date(2024, 1, 31)],
             "ids": [UUID(int=1)]},
            {"id": 2, "tags": ["b"], "marks": [2], "sums": [Decimal(7)]},
            {"id": 3, "tags": [], "marks": []}, {"id": 4, "marks": []}, {"id": 5, "marks": []},
        ])  # fmt: skip
        check(bench, "Tagged", self.CASES)


class TestJsonFilters(Suite):
    """Filters on members of JSON documents; values are compared with their type."""

    conformance_area: ClassVar[str] = "filters"
    reads_only: ClassVar[bool] = True
    CASES: ClassVar[dict[str, list[Case]]] = {
        "equality": [
            ({"meta.color": "red"}, [1]),
            ({"meta": {"color": "red"}}, [1]),
            ({"meta": {"color": {"$ne": "red"}}}, [2, 3, 4, 5]),
            ({"meta.color": 7}, [3]),
            ({"meta.color": 7.0}, [3]),
            ({"meta.color": "7"}, []),
            ({"meta.size": 3.0}, [1]),
            ({"meta.size": {"$in": [3.5, "3", None]}}, [2, 3, 4, 5]),
            ({"meta.size": {"$nin": [3, 3.5]}}, [3, 4, 5]),
            ({"meta.deep.t": True}, [1]),
            ({"meta.deep.t": {"$in": [True, False]}}, [1]),
            ({"meta.deep.t": 1}, []),
            ({"meta.big": 2**63}, [1]),
        ],
        "null": [
            ({"meta": None}, [4, 5]),
            ({"meta": {"$ne": None}}, [1, 2, 3]),
            ({"meta.deep.none": None}, ALL),
            ({"meta.deep.none": {"$exists": True}}, [1]),
            ({"meta.deep.none": {"$exists": False}}, [2, 3, 4, 5]),
            ({"meta.deep": {"$null": False}}, [1, 2]),
        ],
        "order": [
            ({"meta.size": {"$gt": 3}}, [2]),
            ({"meta.size": {"$gte": 3}}, [1, 2]),
            ({"meta.size": {"$between": [1, 3.2]}}, [1]),
            ({"meta.big": {"$gt": 2**62}}, [1]),
            ({"meta.color": {"$gt": "b"}}, [1]),
        ],
        "text": [
            ({"meta.color": {"$startswith": "r"}}, [1]),
            ({"meta.color": {"$like": "B%"}}, [2]),
            ({"meta.color": {"$contains": "e"}}, [1, 2]),
            ({"meta.color": {"$endswith": "7"}}, []),
        ],
        "documents": [
            ({"meta.deep.list": [1, 2]}, [1]),
            ({"meta.deep.list": {"$contains": 2}}, [1]),
            ({"meta.deep.list": {"$overlap": [2, 9]}}, [1]),
            ({"meta.deep.list": []}, [2]),
            ({"meta": {"deep": {"list": {"$ne": [1, 2]}}}}, [2, 3, 4, 5]),
            ({"meta": {"$contains": {"deep": {"list": [2]}}}}, [1]),
            ({"meta": {"$contains": {"size": 3}}}, [1]),
            ({"meta": {"$eq": {"color": 7}}}, [3]),
        ],
        "logic": [
            ({"meta": {"$not": {"color": "red"}}}, [2, 3, 4, 5]),
            ({"meta": {"$or": [{"color": "red"}, {"size": 3.5}]}}, [1, 2]),
            ({"meta": {"color": "red", "size": {"$lt": 3}}}, []),
        ],
    }

    @classmethod
    def declare(cls, db: DataFlow) -> None:
        @db.model
        class Doc:
            meta: dict[str, Any] | None = None

    @classmethod
    def fill(cls, bench: Bench) -> None:
        bench.bulk_create("Doc", [
            {"id": 1, "meta": {
                "color": "red", "size": 3, "big": 2**63, "deep": {"list": [1, 2], "none": None, "t": True},
            }},
            {"id": 2, "meta": {"color": "Blue", "size": 3.5, "deep": {"list": []}}},
            {"id": 3, "meta": {"color": 7}},
            {"id": 4}, {"id": 5},
        ])  # fmt: skip

    @requires("json")
    @pytest.mark.parametrize("topic", CASES)
    def test_a_filter_reaches_the_members_of_documents(self, bench: Bench, topic: str) -> None:
        check(bench, "Doc", self.CASES[topic])

    @requires("json", "regex", "ilike")
    def test_patterns_reach_the_members_of_documents(self, bench: Bench) -> None:
        check(bench, "Doc", [
            ({"meta.color": {"$ilike": "bl%"}}, [2]), ({"meta.color": {"$regex": "e$"}}, [2]),
            ({"meta.color": {"$iregex": "^RED"}}, [1]), ({"meta.color": {"$not": {"$regex": "e"}}}, [3, 4, 5]),
        ])  # fmt: skip

    @requires("json")
    def test_members_of_any_name_are_found(self, bench: Bench) -> None:
        for number, key in enumerate(['a"b', "a[0]", "ключ", "a b", "*", "it's", "x\\y", "%", "0", "{}"], 100):
            bench.create("Doc", {"id": number, "meta": {key: key, "plain": {key: 1}}})
            assert keys_of(bench.list("Doc", {"meta": {key: key}})) == [number], key
            assert keys_of(bench.list("Doc", {"meta": {"plain": {key: {"$gte": 1}}}})) == [number], key
            bench.delete("Doc", number)
