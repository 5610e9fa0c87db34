import asyncio
import subprocess
import sys

import pytest
from dataflow.errors import InputError, ModelError, NotFoundError, UniqueError
from dataflow.runtime import LocalRuntime


def slugs(call, **options):
    return [record["slug"] for record in call.list("Article", **options)["records"]]


# -- deriving ---------------------------------------------------------------------------------------------------------
def test_a_record_gets_the_slug_of_its_title(articles):
    assert articles.create("Article", {"title": "Crème brûlée"})["slug"] == "creme-brulee"


def test_records_that_say_the_same_get_numbers_in_turn(articles):
    assert [articles.create("Article", {"title": "Hello"})["slug"] for _ in range(4)] == [
        "hello", "hello-2", "hello-3", "hello-4",
    ]  # fmt: skip


def test_a_title_that_ends_in_a_number_meets_nobody(articles):
    titles = ["Hello 2", "Hello", "Hello", "Hello 2", "Hello-2-2"]
    made = [articles.create("Article", {"title": title})["slug"] for title in titles]
    assert made == ["hello-2", "hello", "hello-3", "hello-2-2", "hello-2-2-2"]


def test_a_title_without_ascii_is_called_after_the_table(articles):
    assert [articles.create("Article", {"title": "日本"})["slug"] for _ in range(2)] == ["articles", "articles-2"]


def test_rows_of_a_bulk_differ_from_each_other_and_from_what_is_there(articles):
    articles.create("Article", {"title": "A"})
    titles = ["A", "B", "A 2", "B", "A", "B", "A 3"]
    done = articles.bulk_create("Article", [{"title": title} for title in titles], return_ids=True)
    assert (done["created"], len(set(done["ids"]))) == (7, 7)
    assert slugs(articles) == ["a", "a-2", "b", "a-2-2", "b-2", "a-3", "b-3", "a-3-2"]


def test_thousands_that_say_the_same_and_one_more(articles):
    rows = [{"title": "Untitled"}] * 3000
    articles.bulk_create("Article", rows)
    assert articles.create("Article", {"title": "Untitled"})["slug"] == "untitled-3001"
    assert len(set(slugs(articles))) == 3001
    articles.bulk_create("Article", rows)
    assert len(set(slugs(articles))) == 6001


def test_a_slug_of_ones_own_is_kept_or_refused(articles):
    assert articles.create("Article", {"title": "A", "slug": "my-way"})["slug"] == "my-way"
    with pytest.raises(UniqueError):
        articles.create("Article", {"title": "A", "slug": "my-way"})
    with pytest.raises(UniqueError):
        articles.bulk_create("Article", [{"title": "A", "slug": "b"}, {"title": "A", "slug": "my-way"}])
    for wrong in ("My way", "", 5):
        with pytest.raises(InputError, match="slug"):
            articles.create("Article", {"title": "A", "slug": wrong})
        with pytest.raises(InputError, match="slug"):
            articles.bulk_create("Article", [{"title": "A", "slug": wrong}])
    articles.bulk_create("Article", [{"title": "B"}, {"title": "A", "slug": "b"}])
    assert slugs(articles) == ["my-way", "b-2", "b"]


def test_an_upsert_derives_for_new_records_only(articles):
    made = articles.upsert("Article", {"slug": "a"}, {"title": "First"})
    assert (made["created"], made["slug"]) == (True, "a")
    again = articles.upsert("Article", {"slug": "a"}, {"title": "Second"})
    assert (again["created"], again["slug"], again["title"]) == (False, "a", "Second")
    rows = [{"id": made["id"], "title": "Third"}, {"id": 70, "title": "Third"}]
    done = articles.bulk_upsert("Article", rows, key_fields=["id"])
    assert (done["created"], done["updated"]) == (1, 1)
    assert slugs(articles) == ["a", "third-2"]  # the row that changed a record had claimed the first
    rows = [{"slug": "a", "title": "Fourth"}, {"slug": "b", "title": "Fifth"}]
    done = articles.bulk_upsert("Article", rows, key_fields=["slug"], return_ids=True)
    assert (done["created"], done["updated"], done["ids"][0]) == (1, 1, made["id"])
    assert slugs(articles) == ["a", "third-2", "b"]


def test_several_fields_and_a_length(db):
    @db.model
    class Person:
        given: str
        family: str | None = None

        __dataflow__ = {"slug": {"from": ["given", "family"], "longest": 8}}

    call = db.express_sync
    people = [{"given": "Ada", "family": "Lovelace"}, {"given": "Ada"}, {"given": "Grace", "family": "Ho"}]
    assert [call.create("Person", person)["slug"] for person in people] == ["ada", "ada-2", "grace-ho"]


# -- changing ---------------------------------------------------------------------------------------------------------
def test_a_change_keeps_the_slug_unless_it_sets_it(articles):
    made = articles.create("Article", {"title": "A"})
    assert articles.update("Article", made["id"], {"title": "B"})["slug"] == "a"
    assert articles.bulk_update("Article", filter={}, update={"title": "C"})["updated"] == 1
    assert slugs(articles) == ["a"]
    assert articles.update("Article", made["id"], {"slug": "b"})["slug"] == "b"
    with pytest.raises(InputError, match="slug: not a slug"):
        articles.update("Article", made["id"], {"slug": "Not so"})


def test_reslug_derives_it_anew(articles):
    for title in ("A", "B", "B"):
        articles.create("Article", {"title": title})
    articles.update("Article", 1, {"title": "B"})
    done = articles.call("reslug", "Article", id=1)
    assert (done["slug"], done["updated"], done["title"]) == ("b-3", 1, "B")
    again = articles.call("reslug", "Article", id=1)
    assert (again["slug"], again["updated"]) == ("b-3", 0)
    assert articles.call("reslug", "Article", id=99)["updated"] == 0
    with pytest.raises(NotFoundError):
        articles.call("reslug", "Article", id=99, raise_on_not_found=True)


# -- finding ----------------------------------------------------------------------------------------------------------
def test_by_slug_finds_the_record(articles):
    articles.create("Article", {"title": "A", "text": "long"})
    found = articles.call("by_slug", "Article", slug="a")
    assert (found["found"], found["title"]) == (True, "A")
    assert set(articles.call("by_slug", "Article", slug="a", fields=["text"])) >= {"text", "found"}
    for nobodys in ("b", "Not a slug", ""):
        assert articles.call("by_slug", "Article", slug=nobodys)["found"] is False
    with pytest.raises(NotFoundError):
        articles.call("by_slug", "Article", slug="b", raise_on_not_found=True)
    with pytest.raises(InputError, match="takes a slug"):
        articles.call("by_slug", "Article", slug=5)


def test_nodes_in_a_workflow(db, articles):
    workflow = db.workflow()
    workflow.add_node("ArticleCreateNode", "made", {"title": "A"})
    workflow.add_node("ArticleBySlugNode", "found")
    workflow.add_connection("made", "slug", "found", "slug")
    results, _ = LocalRuntime().execute(workflow.build())
    assert results["found"]["id"] == results["made"]["id"]


# -- at the same time -------------------------------------------------------------------------------------------------
async def test_calls_at_the_same_time_all_get_a_slug_without_gaps(opening):
    one, other = opening(), opening()
    for db in (one, other):

        @db.model
        class Article:
            title: str

            __dataflow__ = {"slug": {"from": "title"}}

    await one.initialize()
    calls = [db.express.create("Article", {"title": "Same"}) for _ in range(12) for db in (one, other)]
    rows = [{"title": "Same"}, {"title": "Same 2"}, {"title": "Same"}]
    calls += [db.express.bulk_create("Article", rows) for _ in range(4) for db in (one, other)]
    await asyncio.gather(*calls)
    found = [record["slug"] for record in (await one.express.list("Article"))["records"]]
    assert len(set(found)) == len(found) == 48
    plain = {slug for slug in found if slug == "same" or slug.removeprefix("same-").isdigit()}
    assert plain >= {"same", *(f"same-{n}" for n in range(2, 41))}


# -- with other features ----------------------------------------------------------------------------------------------
def test_a_slug_is_unique_within_its_tenant_and_among_what_lives(db):
    pytest.importorskip("dataflow.enterprise")

    @db.model
    class Article:
        title: str

        __dataflow__ = {"slug": {"from": "title"}, "multi_tenant": True, "soft_delete": True}

    call = db.express_sync
    with db.tenant("acme"):
        first = call.create("Article", {"title": "A"})
        assert call.create("Article", {"title": "A"})["slug"] == "a-2"
        call.delete("Article", first["id"])
        assert call.call("by_slug", "Article", slug="a")["found"] is False
        assert call.bulk_create("Article", [{"title": "A"}])["created"] == 1
        assert slugs(call) == ["a-2", "a"]
        with pytest.raises(UniqueError, match="a live Article holds the key"):
            call.call("restore", "Article", id=first["id"])
    with db.tenant("other"):
        assert call.create("Article", {"title": "A"})["slug"] == "a"
        assert call.call("by_slug", "Article", slug="a-2")["found"] is False
    assert call.create("Article", {"title": "A"}, tenant_id="third")["slug"] == "a"
    assert call.create("Article", {"title": "A"}, tenant_id="third")["slug"] == "a-2"
    assert call.call("by_slug", "Article", slug="a-2", tenant_id="third")["found"] is True
    moved = call.call("reslug", "Article", id=first["id"], tenant_id="third")
    assert moved["updated"] == 0


@pytest.mark.parametrize("isolation", ["shared", "strict"])
def test_reslug_and_collisions_stay_within_the_tenant(opening, isolation):
    pytest.importorskip("dataflow.enterprise")
    db = opening(tenant_isolation=isolation)

    @db.model
    class Article:
        title: str

        __dataflow__ = {"slug": {"from": "title"}, "multi_tenant": True, "audit_log": True, "versioned": True}

    call = db.express_sync
    for tenant in ("acme", "other"):
        with db.tenant(tenant), db.actor("ada"):
            call.bulk_create("Article", [{"title": "A"}, {"title": "A"}, {"title": "B"}])
            last = call.call("by_slug", "Article", slug="b")
            call.update("Article", last["id"], {"title": "A"}, version=last["version"])
            done = call.call("reslug", "Article", id=last["id"])
            assert (done["slug"], done["version"]) == ("a-3", 3)
            assert slugs(call) == ["a", "a-2", "a-3"]


# -- mistakes ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("title", "is a dict"),
        ({}, "is a dict"),
        ({"form": "title"}, "is a dict"),
        ({"from": "titel"}, "'titel', which is no text field"),
        ({"from": "size"}, "'size', which is no text field"),
        ({"from": []}, "at least one field"),
        ({"from": "title", "longest": 0}, "whole number"),
    ],
)
def test_a_wrong_option_is_a_clear_error(db, option, message):
    class Article:
        title: str
        size: int = 0

        __dataflow__ = {"slug": option}

    with pytest.raises(ModelError, match=message) as caught:
        db.model(Article)
    assert caught.value.hint


def test_a_model_without_the_option_has_none_of_it(db):
    @db.model
    class Note:
        title: str

    assert "slug" not in db.express_sync.create("Note", {"title": "A"})
    with pytest.raises(InputError):
        db.express_sync.call("by_slug", "Note", slug="a")


def test_listing_what_the_plugin_offers_imports_none_of_it():
    heavy = ["sqlalchemy", "dataflow_slugs.feature", "dataflow_slugs.nodes"]
    code = f"import dataflow_slugs.plugin, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
