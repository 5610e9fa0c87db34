"""Soft delete: a deleted record is hidden, in nobody's way, and comes back whole."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import pytest

from dataflow import ForeignKey
from dataflow.errors import ForeignKeyError, InputError, NotFoundError, TenancyError, UniqueError
from dataflow.runtime import LocalRuntime


def library(db, on_delete="restrict", **options):
    wish = {"soft_delete": True, **options}

    @db.model
    class Author:
        name: str
        email: str | None = None
        __dataflow__ = wish
        __indexes__ = [{"name": "uq_author_email", "fields": ["email"], "unique": True}]

    @db.model
    class Book:
        author_id: Annotated[int | None, ForeignKey("Author", on_delete=on_delete)]
        title: str
        __dataflow__ = wish

    @db.model
    class Page:
        book_id: Annotated[int | None, ForeignKey("Book", on_delete=on_delete)]
        number: int = 0
        __dataflow__ = wish

    return db.express_sync


def filled(db, on_delete="restrict", **options):
    x = library(db, on_delete, **options)
    for name in ("Ann", "Bob"):
        author = x.create("Author", {"name": name, "email": f"{name}@x"})["id"]
        for title in ("one", "two"):
            book = x.create("Book", {"author_id": author, "title": f"{name} {title}"})["id"]
            x.bulk_create("Page", [{"book_id": book, "number": n} for n in (1, 2)])
    return x


def counts(x, **options):
    return tuple(x.count(model, **options)["count"] for model in ("Author", "Book", "Page"))


def test_deleted_records_are_hidden_from_every_read_unless_asked_for(opening):
    x = filled(opening())
    x.bulk_delete("Page", filter={"book_id": 1})
    x.delete("Book", 1)
    assert x.read("Book", 1) == {"id": 1, "found": False}
    assert x.read("Book", 1, include_deleted=True)["title"] == "Ann one"
    assert [b["id"] for b in x.list("Book")["records"]] == [2, 3, 4]
    assert [b["id"] for b in x.list("Book", only_deleted=True)["records"]] == [1]
    assert x.count("Book", include_deleted=True)["count"] == 4
    assert x.list("Book", limit=1, include_total=True)["total"] == 3
    assert x.aggregate("Page", aggregate={"n": {"$count": "*"}})["groups"] == [{"n": 6}]
    assert x.aggregate("Page", aggregate={"n": {"$count": "*"}}, only_deleted=True)["groups"] == [{"n": 2}]
    author = x.read("Author", 1, include=["books.pages"])
    assert [b["id"] for b in author["books"]] == [2]
    assert x.count("Author", {"books": {"title": "Ann one"}})["count"] == 0
    both = x.list("Author", {"id": 1}, include=["books"], include_deleted=True)["records"][0]["books"]
    assert [b["id"] for b in both] == [1, 2]
    assert x.update("Book", 1, {"title": "x"})["updated"] == 0
    assert x.bulk_update("Book", filter={}, update={"title": {"$set": "y"}})["updated"] == 3
    assert x.bulk_update("Book", data=[{"id": 1, "title": "x"}])["missing"] == 1


def test_deleting_again_changes_nothing_and_keeps_the_first_time(opening):
    x = filled(opening())
    assert x.delete("Page", 1) == {"deleted": 1, "id": 1}
    first = x.read("Page", 1, include_deleted=True)["deleted_at"]
    assert abs(first - datetime.now(UTC)) < timedelta(minutes=1)
    assert x.delete("Page", 1)["deleted"] == 0
    assert x.bulk_delete("Page", ids=[1, 2], return_ids=True) == {"deleted": 1, "ids": [2]}
    assert x.read("Page", 1, include_deleted=True)["deleted_at"] == first


def test_each_call_may_remove_for_good(opening):
    db = opening()
    x = filled(db)
    assert x.delete("Page", 1, soft_delete=False)["deleted"] == 1
    assert x.read("Page", 1, include_deleted=True)["found"] is False
    x.delete("Page", 2, soft_delete=True)
    assert x.delete("Page", 2, soft_delete=False)["deleted"] == 0  # it is hidden
    assert x.delete("Page", 2, soft_delete=False, include_deleted=True)["deleted"] == 1
    assert x.bulk_delete("Page", filter={"number": 1}, soft_delete=False)["deleted"] == 3
    builder = db.workflow().add_node("PageDeleteNode", "d", {"id": 4, "soft_delete": True})
    assert LocalRuntime().execute(builder.build())[0]["d"]["deleted"] == 1
    assert x.count("Page", only_deleted=True)["count"] == 1
    with pytest.raises(InputError, match="soft_delete takes True or False"):
        x.delete("Page", 6, soft_delete="yes")
    with pytest.raises(InputError, match="include_deleted"):
        x.update("Page", 6, {"number": 2}, include_deleted=True)


def test_a_deleted_record_holds_no_unique_key_and_an_upsert_makes_a_new_one(opening):
    x = filled(opening(), "cascade")
    x.delete("Author", 1)
    new = x.upsert("Author", {"email": "Ann@x"}, {"name": "Ann II"})
    assert (new["created"], new["id"] != 1) == (True, True)
    assert x.upsert("Author", {"email": "Ann@x"}, {"name": "Ann III"})["created"] is False
    x.delete("Author", new["id"])
    found = x.bulk_upsert("Author", [{"email": "Ann@x", "name": "IV"}, {"email": "Bob@x", "name": "B"}], ["email"])
    assert (found["created"], found["updated"]) == (1, 1)
    found = x.bulk_create("Author", [{"email": "Ann@x", "name": "V"}], conflict_resolution="skip")
    assert (found["created"], found["skipped"]) == (0, 1)
    assert x.count("Author", {"email": "Ann@x"}, include_deleted=True)["count"] == 3
    with pytest.raises(UniqueError, match="a live Author holds the key"):
        x.call("restore", "Author", id=1)
    assert x.read("Author", 1)["found"] is False


@pytest.mark.parametrize("on_delete", ["restrict", "no action"])
def test_a_parent_of_live_children_cannot_be_deleted(opening, on_delete):
    x = filled(opening(), on_delete)
    with pytest.raises(ForeignKeyError):
        x.delete("Book", 1)
    with pytest.raises(ForeignKeyError):
        x.bulk_delete("Author", filter={"name": "Ann"})
    assert counts(x) == (2, 4, 8)
    x.bulk_delete("Page", filter={"book_id": 1})
    assert x.delete("Book", 1)["deleted"] == 1
    with pytest.raises(ForeignKeyError):
        x.create("Page", {"book_id": 1})  # no child of what is deleted
    with pytest.raises(ForeignKeyError, match="deleted itself"):
        x.call("restore", "Page", id=1)


def test_children_that_cascade_are_deleted_and_restored_together_and_no_others(opening):
    x = filled(opening(), "cascade")
    x.delete("Page", 1)  # by an operation of its own
    x.delete("Author", 1)
    assert counts(x) == (1, 2, 4)
    assert counts(x, only_deleted=True) == (1, 2, 4)
    found = x.call("restore", "Author", id=1)
    assert (found["restored"], found["name"], found["deleted_at"]) == (1, "Ann", None)
    assert counts(x) == (2, 4, 7)
    assert x.read("Page", 1)["found"] is False
    x.delete("Author", 1)
    assert x.call("restore", "Author", record_id=1, cascade=False)["restored"] == 1
    assert counts(x) == (2, 2, 4)
    assert x.call("restore", "Book", conditions={"author_id": 1})["restored"] == 2
    assert counts(x) == (2, 4, 7)


def test_children_that_are_let_go_lose_their_parent(opening):
    x = filled(opening(), "set null")
    x.delete("Author", 1)
    assert [b["author_id"] for b in x.list("Book")["records"]] == [None, None, 2, 2]
    assert counts(x) == (1, 4, 8)


def test_a_child_without_the_option_keeps_its_parent_from_being_deleted(opening):
    db = opening()
    x = filled(db)

    @db.model
    class Prize:
        author_id: Annotated[int, ForeignKey("Author", on_delete="cascade")]

    x.create("Prize", {"author_id": 2})
    x.bulk_delete("Page", filter={}, confirmed=True)
    x.bulk_delete("Book", filter={}, confirmed=True)
    with pytest.raises(ForeignKeyError):
        x.delete("Author", 2)
    assert x.delete("Author", 1)["deleted"] == 1
    with pytest.raises(ForeignKeyError):
        x.create("Prize", {"author_id": 1})


def test_what_fails_half_way_undoes_everything(opening):
    db = opening()
    x = filled(db, "cascade")

    @db.model
    class Prize:
        page_id: Annotated[int, ForeignKey("Page")]

    x.create("Prize", {"page_id": 3})
    with pytest.raises(ForeignKeyError):
        x.delete("Author", 1)
    assert counts(x) == (2, 4, 8)


def test_restoring_what_is_not_deleted_or_not_there_restores_nothing(opening):
    x = filled(opening())
    assert x.call("restore", "Page", id=1) == {"id": 1, "restored": 0}
    assert x.call("restore", "Page", id=999)["restored"] == 0
    with pytest.raises(NotFoundError):
        x.call("restore", "Page", id=999, raise_on_not_found=True)
    with pytest.raises(InputError, match="which record"):
        x.call("restore", "Page")
    with pytest.raises(InputError, match="empty"):
        x.call("restore", "Page", conditions={})


def test_purge_removes_what_was_deleted_long_enough_ago(opening):
    db = opening()
    x = filled(db)
    x.bulk_delete("Page", filter={"number": 1})
    assert x.call("purge", "Page", older_than=timedelta(hours=1))["purged"] == 0
    assert x.call("purge", "Page", older_than=1)["purged"] == 0
    assert x.call("purge", "Page", older_than=datetime.now(UTC) - timedelta(days=1))["purged"] == 0
    assert x.call("purge", "Page", older_than=0, limit=1)["purged"] == 1
    assert x.count("Page", only_deleted=True)["count"] == 3
    builder = db.workflow().add_node("PagePurgeNode", "p", {"older_than": timedelta(0)})
    assert LocalRuntime().execute(builder.build())[0]["p"] == {"purged": 3}
    assert counts(x, include_deleted=True) == (2, 4, 4)
    for odd in ("a month", timedelta(-1), True, None):
        with pytest.raises(InputError):
            x.call("purge", "Page", older_than=odd)
    with pytest.raises(InputError, match="older_than"):
        x.call("purge", "Page")


def test_the_column_is_kept_by_the_feature(opening):
    x = filled(opening())
    now = datetime.now(UTC)
    for call in (
        lambda: x.create("Page", {"book_id": 1, "deleted_at": now}),
        lambda: x.update("Page", 1, {"deleted_at": now}),
        lambda: x.bulk_update("Page", filter={}, update={"deleted_at": None}),
        lambda: x.bulk_update("Page", data=[{"id": 1, "deleted_at": None}]),
        lambda: x.bulk_create("Page", [{"book_id": 1, "deleted_at": now}]),
        lambda: x.upsert("Author", {"email": "z"}, {"name": "z", "deleted_at": now}),
        lambda: x.bulk_upsert("Author", [{"email": "z", "name": "z", "deleted_at": now}], ["email"]),
    ):
        with pytest.raises(InputError, match="kept by soft_delete"):
            call()
    assert x.count("Page", {"deleted_at": None}, include_deleted=True)["count"] == 8
    assert x.count("Page", {"deleted_at": {"$not": None}}, include_deleted=True)["count"] == 0


def test_deleting_counts_as_a_change_of_the_version(opening):
    db = opening()
    x = filled(db, "cascade", versioned=True)
    x.delete("Author", 1, version=1)
    assert x.read("Author", 1, include_deleted=True)["version"] == 2
    assert x.read("Page", 1, include_deleted=True)["version"] == 2
    assert x.call("restore", "Author", id=1, version=2)["version"] == 3


def test_a_delete_whose_filter_looks_at_the_children_it_deletes_reaches_the_parent(opening):
    x = filled(opening(), "cascade")
    assert x.call("delete", "Book", conditions={"pages": {"number": 2}, "title": "Ann one"})["deleted"] == 1
    assert x.bulk_delete("Author", filter={"books": {"title": "Bob one"}}, return_ids=True) == {
        "deleted": 1,
        "ids": [2],
    }
    assert counts(x) == (1, 1, 2)


def test_many_parents_are_deleted_by_their_keys(opening):
    x = library(opening(), "cascade")
    x.bulk_create("Author", [{"name": str(n)} for n in range(2500)])
    x.bulk_create("Book", [{"author_id": n + 1, "title": "t"} for n in range(2500)])
    assert x.bulk_delete("Author", filter={"id": {"$gt": 3}})["deleted"] == 2497
    assert counts(x) == (3, 3, 0)


def test_what_is_deleted_cannot_be_deleted_again_on_purpose(opening):
    x = filled(opening())
    for call in (
        lambda: x.delete("Page", 1, include_deleted=True),
        lambda: x.bulk_delete("Page", filter={"number": 1}, include_deleted=True),
        lambda: x.bulk_delete("Page", filter={"number": 1}, include_deleted=True, confirmation_required=True),
    ):
        with pytest.raises(InputError, match="soft_delete=False"):
            call()


def test_of_what_one_call_deleted_a_part_can_be_restored(opening):
    x = filled(opening(), "cascade")
    assert x.bulk_delete("Author", ids=[1, 2])["deleted"] == 2
    assert x.call("restore", "Author", id=1)["restored"] == 1
    assert counts(x) == (1, 2, 4)
    with pytest.raises(ForeignKeyError, match="deleted itself"):
        x.call("restore", "Book", id=3)
    assert x.call("restore", "Author", conditions={"name": "Bob"})["restored"] == 1
    assert counts(x) == (2, 4, 8)


@pytest.mark.parametrize("on_delete", ["set null", "cascade"])
def test_a_record_that_all_share_goes_with_the_records_of_the_calls_tenant_only(opening, on_delete):
    db = opening()

    @db.model
    class Maker:
        name: str
        __dataflow__ = {"soft_delete": True}

    @db.model
    class Part:
        maker_id: Annotated[int | None, ForeignKey("Maker", on_delete=on_delete)]
        __dataflow__ = {"soft_delete": True, "multi_tenant": True}

    x = db.express_sync
    x.bulk_create("Maker", [{"name": "shared"}, {"name": "a's"}])
    for tenant, maker in (("a", 1), ("b", 1), ("a", 2)):
        with db.tenant(tenant):
            x.create("Part", {"maker_id": maker})
    with pytest.raises(TenancyError, match="records of Part, which belong to tenants, go with the record") as caught:
        x.delete("Maker", 1)
    assert "all_tenants" in caught.value.hint
    with db.tenant("a"):
        with pytest.raises(ForeignKeyError):  # b's part keeps it alive
            x.delete("Maker", 1)
        assert x.delete("Maker", 2)["deleted"] == 1
        assert x.count("Part", filter={"maker_id": 2})["count"] == 0
        assert x.count("Part", filter={"maker_id": 1})["count"] == 1
    with db.all_tenants(reason="it is no more"):
        assert x.delete("Maker", 1)["deleted"] == 1
        assert x.count("Part", filter={"maker_id": 1})["count"] == 0
    with pytest.raises(TenancyError, match="records of Part"):
        x.call("restore", "Maker", id=1)
    with db.tenant("a"):
        assert x.call("restore", "Maker", id=1)["restored"] == 1
        assert x.count("Part", filter={"maker_id": 1})["count"] == (1 if on_delete == "cascade" else 0)
