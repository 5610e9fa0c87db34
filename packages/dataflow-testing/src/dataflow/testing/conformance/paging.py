"""Order, limits, offsets, keyset pages, projections."""

from datetime import date
from typing import Any, ClassVar

import pytest

from dataflow import DataFlow
from dataflow.errors import InputError
from dataflow.testing.conformance.bench import Bench, keys_of
from dataflow.testing.conformance.suite import Suite

BOOKS: list[dict[str, Any]] = [
    {"id": 1, "title": "The Dispossessed", "author": 1, "rating": 4.5, "pages": 341},
    {"id": 2, "title": "Solaris", "author": 2, "rating": 4.5, "printed": date(1961, 6, 1)},
    {"id": 3, "title": "fiasco", "author": 2, "rating": None, "pages": 322},
    {"id": 4, "title": "Lavinia", "author": 1, "rating": 4.0, "pages": 279, "read": True},
    {"id": 5, "title": "Äther", "author": 99, "rating": None, "printed": date(2001, 1, 1)},
    {"id": 6, "title": "Anonymous", "rating": 1.0, "pages": 322},
]


class TestPaging(Suite):
    """Lists in a known order, in parts."""

    conformance_area: ClassVar[str] = "sorting and paging"
    reads_only: ClassVar[bool] = True

    @classmethod
    def declare(cls, db: DataFlow) -> None:
        @db.model
        class Book:
            title: str
            author: int | None = None
            rating: float | None = None
            pages: int | None = None
            printed: date | None = None
            read: bool = False

    @classmethod
    def fill(cls, bench: Bench) -> None:
        bench.bulk_create("Book", BOOKS[::-1])

    def test_without_a_sort_records_come_by_primary_key(self, calls: Bench) -> None:
        page = calls.list("Book")
        assert keys_of(page) == [1, 2, 3, 4, 5, 6]
        assert {name: page[name] for name in page if name != "records"} == {
            "count": 6, "limit": None, "offset": 0, "has_more": False, "next_cursor": None,
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("sort", "expected"),
        [
            ("rating", [3, 5, 6, 4, 1, 2]),
            ("-rating", [1, 2, 4, 6, 3, 5]),
            (["author", "-rating"], [6, 1, 4, 2, 3, 5]),
            (["-author", "rating"], [5, 3, 2, 4, 1, 6]),
            ("title", [6, 4, 2, 1, 3, 5]),
            (["-title"], [5, 3, 1, 2, 4, 6]),
            ("-id", [6, 5, 4, 3, 2, 1]),
            (["printed", "-pages"], [1, 3, 6, 4, 2, 5]),
            (["-read", "-printed"], [4, 5, 2, 1, 3, 6]),
            ([{"pages": -1}, {"title": 1}], [1, 6, 3, 4, 2, 5]),
        ],
    )
    def test_nulls_come_first_ascending_ties_by_key_and_pages_are_the_whole_list(
        self, bench: Bench, sort: Any, expected: list[int]
    ) -> None:
        assert keys_of(bench.list("Book", sort=sort)) == expected
        for limit in (1, 2, 4, 6, 7):
            seen: list[int] = []
            cursor = None
            for _ in range(7):
                page = bench.list("Book", sort=sort, limit=limit, cursor=cursor)
                seen += keys_of(page)
                cursor = page["next_cursor"]
                assert (cursor is not None) == page["has_more"]
                if cursor is None:
                    break
            assert seen == expected, limit

    def test_every_spelling_of_a_sort_means_the_same(self, calls: Bench) -> None:
        spellings: list[dict[str, Any]] = [
            {"sort": [{"title": -1}]}, {"order_by": ["-title"]}, {"sort": "-title"}, {"sort": {"title": -1}},
            {"order_by": [{"title": "desc"}]}, {"sort": ["-title"]},
        ]  # fmt: skip
        assert [keys_of(calls.list("Book", **spelling)) for spelling in spellings] == [[5, 3, 1, 2, 4, 6]] * 6

    def test_limit_and_offset_cut_and_the_total_is_counted_on_request(self, calls: Bench) -> None:
        page = calls.list("Book", limit=2, offset=4, include_total=True)
        assert (keys_of(page), page["count"], page["total"], page["has_more"]) == ([5, 6], 2, 6, False)
        page = calls.list("Book", limit=2, offset=3)
        assert (keys_of(page), page["has_more"], "total" in page) == ([4, 5], True, False)
        assert keys_of(calls.list("Book", offset=5)) == [6]
        assert keys_of(calls.list("Book", offset=50)) == []
        page = calls.list("Book", limit=0)
        assert (page["records"], page["has_more"]) == ([], True)

    def test_count_only_counts(self, calls: Bench) -> None:
        page = calls.list("Book", {"author": 2}, count_only=True, limit=1)
        assert (page["records"], page["count"], page["total"]) == ([], 2, 2)
        assert calls.count("Book", {"author": 2}) == {"count": 2}

    def test_a_projection_returns_only_the_fields_asked_for(self, calls: Bench) -> None:
        assert calls.list("Book", {"id": 2}, fields=["title", "rating"])["records"] == [
            {"title": "Solaris", "rating": 4.5}
        ]

    def test_a_cursor_keeps_filter_and_projection_working(self, calls: Bench) -> None:
        params: dict[str, Any] = {
            "filter": {"rating": {"$gte": 4.0}},
            "fields": ["title"],
            "sort": "-rating",
            "limit": 1,
        }
        first = calls.call("list", "Book", **params)
        second = calls.call("list", "Book", **params, cursor=first["next_cursor"])
        assert (first["records"], second["records"]) == ([{"title": "The Dispossessed"}], [{"title": "Solaris"}])

    def test_a_cursor_neither_skips_nor_repeats_when_rows_come_and_go(self, bench: Bench) -> None:
        try:
            first = bench.list("Book", sort="-rating", limit=2)
            bench.delete("Book", 1)  # a row of the first page
            bench.create("Book", {"id": 7, "title": "New", "rating": 5.0})  # belongs before it
            assert keys_of(bench.list("Book", sort="-rating", cursor=first["next_cursor"])) == [4, 6, 3, 5]
        finally:
            bench.delete("Book", 7)
            bench.create("Book", BOOKS[0])

    def test_faulty_pages_are_refused(self, calls: Bench) -> None:
        cursor = calls.list("Book", limit=1)["next_cursor"]
        for params in (
            {"sort": "ratting"}, {"sort": ["title", "-title"]}, {"limit": -1}, {"limit": True}, {"offset": "1"},
            {"fields": ["titel"]}, {"cursor": "abc", "limit": 1}, {"cursor": cursor, "sort": "title", "limit": 1},
        ):  # fmt: skip
            with pytest.raises(InputError):
                calls.call("list", "Book", **params)
