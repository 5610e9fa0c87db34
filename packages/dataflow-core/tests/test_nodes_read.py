"""Read, List and Count nodes: keys, projections, order, both ways of paging, related records."""

import base64
import itertools
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any
from uuid import UUID

import pytest

from dataflow import ForeignKey, Relation
from dataflow.errors import NotFoundError, WorkflowExecutionError
from dataflow.runtime import LocalRuntime


class Kind(Enum):
    BOOK = "book"
    FILM = "film"


@pytest.fixture
def library(bench: Any) -> Any:
    db = bench.db

    @db.model
    class Author:
        name: str
        country: str | None = None

    @db.model
    class Publisher:
        id: str
        city: str

    @db.model
    class Book:
        title: str
        author_id: int | None = None
        publisher_id: str | None = None
        rating: float | None = None
        price: Decimal = Decimal(1)
        kind: Kind = Kind.BOOK
        printed: date | None = None
        meta: dict = {}  # noqa: RUF012

    @db.model
    class Review:
        book_id: Annotated[int, ForeignKey("Book", on_delete="cascade")]
        stars: int
        critic: Annotated[int | None, Relation("Author", name="written_by", reverse="reviews_written")] = None

    x = db.express_sync
    authors = [{"name": "Le Guin", "country": "US"}, {"name": "Lem", "country": "PL"}, {"name": "Nobody"}]
    x.bulk_create("Author", authors)
    x.bulk_create("Publisher", [{"id": "ace", "city": "New York"}, {"id": "lit", "city": "Kraków"}])
    x.bulk_create("Book", [
        {"title": "The Dispossessed", "author_id": 1, "publisher_id": "ace", "rating": 4.5, "meta": {"pages": 341}},
        {"title": "Solaris", "author_id": 2, "publisher_id": "lit", "rating": 4.5, "printed": date(1961, 6, 1)},
        {"title": "Fiasco", "author_id": 2, "rating": None, "price": Decimal("10.5")},
        {"title": "Lavinia", "author_id": 1, "rating": 4.0, "price": Decimal("9.5")},
        {"title": "Orphan", "author_id": 99, "rating": None, "kind": "film"},
        {"title": "Anonymous", "rating": 1.0},
    ])  # fmt: skip
    reviews = [{"book_id": 1, "stars": 5, "critic": 2}, {"book_id": 1, "stars": 3}, {"book_id": 2, "stars": 4}]
    x.bulk_create("Review", reviews)
    return bench


def titles(page: Any) -> list[str]:
    return [record["title"] for record in page["records"]]


# -- read -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("key", [{"id": 2}, {"record_id": 2}, {"conditions": {"title": "Solaris"}}, {"_id": 2}])
def test_read_returns_the_record_and_that_it_was_found(library: Any, key: Any) -> None:
    record = library.run("BookReadNode", key)
    assert (record["id"], record["title"], record["found"]) == (2, "Solaris", True)
    assert record["_status"] == {"found": True}
    assert set(record) == {*library.db.get_spec("Book").fields, "found"}


def test_read_of_a_missing_record_says_so(library: Any) -> None:
    assert library.run("BookReadNode", id=99) == {"id": 99, "found": False}
    assert library.run("BookReadNode", conditions={"title": "Nothing"}) == {"found": False}
    assert library.run("BookReadNode", id=99)["_status"] == {"found": False}
    for params in ({"id": 99}, {"conditions": {"title": "Nothing"}}):
        with pytest.raises(WorkflowExecutionError) as caught:
            library.run("BookReadNode", params, raise_on_not_found=True)
        assert isinstance(caught.value.__cause__, NotFoundError)


def test_read_by_conditions_returns_the_first_by_primary_key(library: Any) -> None:
    assert library.run("BookReadNode", conditions={"author_id": 2})["title"] == "Solaris"


def test_read_returns_only_the_fields_asked_for(library: Any) -> None:
    assert library.run("BookReadNode", id=2, fields=["title", "rating"]) == {
        "title": "Solaris", "rating": 4.5, "found": True,
    }  # fmt: skip


def test_read_includes_related_records(library: Any) -> None:
    record = library.run("BookReadNode", id=1, include=["author", "reviews.written_by"])
    assert record["author"]["name"] == "Le Guin"
    assert [review["stars"] for review in record["reviews"]] == [5, 3]
    assert record["reviews"][0]["written_by"]["name"] == "Lem"
    assert record["reviews"][1]["written_by"] is None


def test_a_projection_does_not_show_the_columns_an_include_needs(library: Any) -> None:
    record = library.run("BookReadNode", id=1, fields=["title"], include=["author"])
    assert set(record) == {"title", "author", "found"}
    assert record["author"]["name"] == "Le Guin"


# -- list and count ---------------------------------------------------------------------------------------------------
def test_list_without_anything_returns_all_by_primary_key(library: Any) -> None:
    page = library.run("BookListNode")
    assert [record["id"] for record in page["records"]] == [1, 2, 3, 4, 5, 6]
    assert {name: page[name] for name in page if name != "records"} == {
        "count": 6, "limit": None, "offset": 0, "has_more": False, "next_cursor": None,
    }  # fmt: skip


def test_list_pages_by_limit_and_offset_and_counts_on_request(library: Any) -> None:
    page = library.run("BookListNode", limit=2, offset=4, include_total=True, filter={"id": {"$gt": 0}})
    assert (titles(page), page["count"], page["total"]) == (["Orphan", "Anonymous"], 2, 6)
    assert (page["limit"], page["offset"], page["has_more"]) == (2, 4, False)
    page = library.run("BookListNode", limit=2, offset=3)
    assert page["has_more"] is True
    assert "total" not in page


def test_an_offset_works_without_a_limit(library: Any) -> None:
    assert titles(library.run("BookListNode", offset=5)) == ["Anonymous"]
    assert titles(library.run("BookListNode", offset=50)) == []


def test_a_limit_of_nothing_returns_nothing_but_knows_there_is_more(library: Any) -> None:
    page = library.run("BookListNode", limit=0)
    assert (page["records"], page["count"], page["has_more"]) == ([], 0, True)


def test_count_only_counts(library: Any) -> None:
    page = library.run("BookListNode", filter={"author_id": 2}, count_only=True, limit=1)
    assert page["records"] == []
    assert (page["count"], page["total"]) == (2, 2)
    assert library.run("BookCountNode", filter={"author_id": 2}) == {"count": 2}
    assert library.run("BookCountNode") == {"count": 6}
    assert library.run("BookCountNode", filter={"title": "Nothing"}) == {"count": 0}


@pytest.mark.parametrize(
    "sort", [{"sort": [{"title": -1}]}, {"order_by": ["-title"]}, {"sort": "-title"}, {"sort": {"title": -1}},
             {"order_by": [{"title": "desc"}]}, {"sort": ["-title"]}],
)  # fmt: skip
def test_every_spelling_of_a_sort_means_the_same(library: Any, sort: Any) -> None:
    page = library.run("BookListNode", sort)
    assert titles(page) == ["The Dispossessed", "Solaris", "Orphan", "Lavinia", "Fiasco", "Anonymous"]


def test_nulls_come_first_ascending_and_last_descending_and_ties_go_by_key(library: Any) -> None:
    assert titles(library.run("BookListNode", sort="rating")) == [
        "Fiasco", "Orphan", "Anonymous", "Lavinia", "The Dispossessed", "Solaris",
    ]  # fmt: skip
    assert titles(library.run("BookListNode", sort="-rating")) == [
        "The Dispossessed", "Solaris", "Lavinia", "Anonymous", "Fiasco", "Orphan",
    ]  # fmt: skip


def test_text_sorts_by_code_point_and_decimals_by_value(library: Any) -> None:
    create = library.db.express_sync.create
    for name in ("Zola", "ärzte", "apfel", "Äpfel"):
        create("Author", {"name": name})
    found = library.run("AuthorListNode", sort="name", filter={"id": {"$gt": 3}})
    assert [record["name"] for record in found["records"]] == sorted(["Zola", "ärzte", "apfel", "Äpfel"])
    prices = [record["price"] for record in library.run("BookListNode", sort="price")["records"]]
    assert prices == sorted(prices)
    assert max(prices) == Decimal("10.5")


def test_bools_enums_and_dates_can_be_sorted_by(library: Any) -> None:
    assert titles(library.run("BookListNode", sort=["-kind"]))[0] == "Orphan"
    assert titles(library.run("BookListNode", sort=["-printed"]))[0] == "Solaris"


@pytest.mark.parametrize(
    "sort",
    [[], ["rating"], ["-rating"], ["rating", "-title"], ["-rating", "title"], ["author_id", "rating"], ["-price"],
     ["kind", "-author_id"], ["-id"], ["printed", "-rating"]],
)  # fmt: skip
@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_keyset_pages_over_ties_and_nulls_are_the_whole_list_in_order(library: Any, sort: Any, limit: int) -> None:
    expected = titles(library.run("BookListNode", sort=sort))
    seen: list[str] = []
    cursor = None
    for _ in range(10):
        page = library.run("BookListNode", sort=sort, limit=limit, cursor=cursor)
        seen += titles(page)
        cursor = page["next_cursor"]
        assert (cursor is not None) == page["has_more"]
        if cursor is None:
            break
    assert seen == expected


def test_keyset_paging_neither_skips_nor_repeats_when_rows_come_and_go(library: Any) -> None:
    first = library.run("BookListNode", sort=["-rating"], limit=2)
    library.run("BookDeleteNode", id=1)  # a row of the first page
    library.run("BookCreateNode", title="New", rating=5.0)  # belongs before it
    rest = library.run("BookListNode", sort=["-rating"], limit=9, cursor=first["next_cursor"])
    assert titles(rest) == ["Lavinia", "Anonymous", "Fiasco", "Orphan"]


def test_a_cursor_keeps_filter_and_projection_working(library: Any) -> None:
    params = {"filter": {"rating": {"$gte": 4.0}}, "fields": ["title"], "sort": ["-rating"], "limit": 1}
    first = library.run("BookListNode", params)
    second = library.run("BookListNode", params, cursor=first["next_cursor"])
    assert first["records"] == [{"title": "The Dispossessed"}]
    assert second["records"] == [{"title": "Solaris"}]


def test_a_tampered_cursor_cannot_compare_with_another_type(library: Any) -> None:
    cursor = library.run("BookListNode", sort=["rating"], limit=1)["next_cursor"]
    data = json.loads(base64.urlsafe_b64decode(cursor))
    for values in (["x", 1], [[1], 1], [{"$type": "nothing", "value": 1}, 1]):
        forged = base64.urlsafe_b64encode(json.dumps({**data, "v": values}).encode()).decode()
        with pytest.raises(WorkflowExecutionError):
            library.run("BookListNode", sort=["rating"], limit=1, cursor=forged)


def test_a_list_above_ten_thousand_rows_warns_and_names_paging(library: Any) -> None:
    library.db.express_sync.bulk_create("Author", [{"name": "x"}] * 10_001)
    with pytest.warns(UserWarning, match=r"AuthorListNode returned 10,004 records at once; page with limit="):
        assert library.run("AuthorListNode")["count"] == 10_004
    assert library.run("AuthorListNode", limit=10_004)["count"] == 10_004  # asked for, so no warning


# -- include ----------------------------------------------------------------------------------------------------------
def test_list_includes_to_one_to_many_and_nested(library: Any) -> None:
    page = library.run("AuthorListNode", include=["books.reviews", "books.publisher", "reviews_written"])
    le_guin, lem, nobody = page["records"]
    assert [book["title"] for book in le_guin["books"]] == ["The Dispossessed", "Lavinia"]
    assert [review["stars"] for review in le_guin["books"][0]["reviews"]] == [5, 3]
    assert le_guin["books"][0]["publisher"]["city"] == "New York"
    assert le_guin["books"][1]["publisher"] is None
    assert [review["stars"] for review in lem["reviews_written"]] == [5]
    assert nobody["books"] == nobody["reviews_written"] == []


def test_a_relation_that_leads_to_nothing_is_none(library: Any) -> None:
    page = library.run("BookListNode", filter={"title": {"$in": ["Orphan", "Anonymous"]}}, include="author")
    assert [record["author"] for record in page["records"]] == [None, None]


def test_include_reads_once_per_relation_however_many_records(library: Any) -> None:
    with_stats = type(library.db)(":memory:", monitoring=True)
    with with_stats as db:
        db.model(library.db.get_model("Author"))
        db.model(library.db.get_model("Book"))
        db.express_sync.bulk_create("Author", [{"name": str(i)} for i in range(2500)])
        db.express_sync.bulk_create("Book", [{"title": str(i), "author_id": i} for i in range(1, 2501)])
        before = db.stats()["statements"]
        page = db.express_sync.list("Book", include=["author"])
        assert all(int(r["author"]["name"]) == r["author_id"] - 1 for r in page["records"])
        assert db.stats()["statements"] - before == 1 + 3  # the list, and one per thousand keys


def test_included_records_are_ordered_by_their_key(library: Any) -> None:
    library.run("ReviewCreateNode", id=100, book_id=1, stars=1)
    library.run("ReviewCreateNode", id=50, book_id=1, stars=2)
    record = library.run("BookReadNode", id=1, include=["reviews"])
    assert [review["id"] for review in record["reviews"]] == [1, 2, 50, 100]


def test_nodes_hand_their_records_on(library: Any) -> None:
    new = library.db.workflow()
    new.add_node("BookListNode", "top", {"sort": ["-rating"], "limit": 1, "include_total": True})
    new.add_node("BookListNode", "next", {"sort": ["-rating"], "limit": 1})
    new.add_connection("top", "next_cursor", "next", "cursor")
    new.add_node("BookCreateNode", "count", {"title": "Report"})
    new.add_connection("top", "total", "count", "author_id")
    new.add_connection("top", "records", "count", "meta")
    with pytest.raises(WorkflowExecutionError, match="datetime is not JSON"):  # the records hold some
        LocalRuntime().execute(new.build())
    assert library.run("BookCountNode")["count"] == 6


# -- keys -------------------------------------------------------------------------------------------------------------
def test_text_ids_stay_text(bench: Any) -> None:
    @bench.db.model
    class Session:
        id: str
        user_id: str

    key = "session-80706348-0456-468b-8851-329a756a3a93"
    for value in (key, "007", "1e5", " ", "ключ"):
        made = bench.run("SessionCreateNode", id=value, user_id="42")
        assert (made["id"], made["user_id"]) == (value, "42")
        for params in ({"id": value}, {"record_id": value}, {"conditions": {"id": value}}):
            assert bench.run("SessionReadNode", params)["found"] is True
    assert bench.run("SessionReadNode", id="7")["found"] is False
    assert bench.run("SessionUpdateNode", id="007", user_id="43")["user_id"] == "43"
    assert bench.run("SessionDeleteNode", id="007") == {"deleted": 1, "id": "007"}


def test_uuid_ids_are_found_by_uuid_and_by_text(bench: Any) -> None:
    @bench.db.model
    class Device:
        id: UUID
        name: str

    key = UUID(int=2**127)
    assert bench.run("DeviceCreateNode", id=key, name="a")["id"] == key
    assert bench.run("DeviceReadNode", id=str(key))["id"] == key
    assert bench.run("DeviceListNode", filter={"id": {"$in": [key]}})["count"] == 1
    assert bench.run("DeviceBulkDeleteNode", ids=[key]) == {"deleted": 1}


def test_a_natural_key_takes_its_own_name_id_and_record_id(bench: Any) -> None:
    @bench.db.model
    class Airport:
        code: str
        name: str
        __dataflow__ = {"primary_key": "code"}  # noqa: RUF012

    assert "id" not in bench.run("AirportCreateNode", code="ZRH", name="Zürich")
    for params in ({"code": "ZRH"}, {"id": "ZRH"}, {"record_id": "ZRH"}, {"_id": {"code": "ZRH"}}):
        assert bench.run("AirportReadNode", params)["name"] == "Zürich"
    assert bench.run("AirportUpdateNode", code="ZRH", name="Kloten")["name"] == "Kloten"
    assert bench.run("AirportDeleteNode", id="ZRH") == {"deleted": 1, "code": "ZRH", "id": "ZRH"}


def test_a_composite_key_is_a_tuple_a_dict_or_its_fields(bench: Any) -> None:
    @bench.db.model
    class Seat:
        row: int
        letter: str
        taken: bool = False
        __dataflow__ = {"primary_key": ["row", "letter"]}  # noqa: RUF012

    for row, letter in itertools.product((1, 2), "AB"):
        bench.run("SeatCreateNode", row=row, letter=letter)
    keys = ({"id": (2, "A")}, {"id": [2, "A"]}, {"record_id": {"letter": "A", "row": 2}}, {"row": 2, "letter": "A"})
    for key in keys:
        record = bench.run("SeatReadNode", key)
        assert (record["row"], record["letter"]) == (2, "A")
    assert bench.run("SeatUpdateNode", row=2, letter="B", taken=True)["taken"] is True
    assert bench.run("SeatDeleteNode", id=(1, "A")) == {"deleted": 1, "row": 1, "letter": "A", "id": (1, "A")}
    assert bench.run("SeatBulkDeleteNode", ids=[(1, "B"), {"row": 2, "letter": "A"}, (9, "Z")])["deleted"] == 2
    assert [r["letter"] for r in bench.run("SeatListNode")["records"]] == ["B"]
    for bad in ({"id": 1}, {"id": (1,)}, {"row": 1}, {"id": {"row": 1}}, {"id": (1, None)}):
        with pytest.raises(WorkflowExecutionError):
            bench.run("SeatReadNode", bad)


def test_a_datetime_key_is_found_by_its_instant(bench: Any) -> None:
    @bench.db.model
    class Tick:
        at: datetime
        value: float
        __dataflow__ = {"primary_key": ["at"], "timestamps": False}  # noqa: RUF012

    at = datetime(2025, 1, 1, 12, tzinfo=UTC)
    assert bench.run("TickCreateNode", at=at, value=1.0) == {"at": at, "value": 1.0}
    assert bench.run("TickReadNode", id=at)["found"] is True
    page = bench.run("TickListNode", limit=1)
    assert page["next_cursor"] is None
