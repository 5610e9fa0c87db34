"""What a dialect declares that it cannot do is refused by core, before anything is written; URLs and hints for it.

The dialect here is SQLite's, under another name and with another declaration.
"""

from typing import Annotated, ClassVar

import pytest

from dataflow import DataFlow, ForeignKey
from dataflow.config import DatabaseURL, parse_url
from dataflow.errors import NotYetAvailable, SchemaError
from dataflow.instances import labels
from dataflow.plugins import DialectSpec, hookimpl
from dataflow.sqlite.dialect import SQLite


class Lame(SQLite):
    """SQLite under another name."""

    name = "lame"


LACKS = {name: f"unsupported: no {name}" for name in ("foreign_key_actions", "partial_indexes")}


def plugin(**capabilities):
    """Return a plugin with a dialect ``lame://`` that declares some capabilities."""

    class Plugin:
        dataflow_api = "1.0"

        @hookimpl
        def dataflow_dialects(self):
            return [DialectSpec("lame", ("lame",), Lame, capabilities)]

    return Plugin()


@pytest.fixture
def db(tmp_path):
    with DataFlow(f"lame:///{tmp_path}/app.lame", plugins=[plugin(**LACKS)]) as db:
        yield db


def refused(db, capability):
    """Use a model, and expect that it is refused before its table is there."""
    with pytest.raises(NotYetAvailable, match=f"does not support {capability}") as caught:
        db.express_sync.list(db.list_models()[-1])
    assert caught.value.hint == f"no {capability}"
    assert caught.value.code == "unsupported"
    assert db.show_tables() == []


@pytest.mark.parametrize("action", ["cascade", "set null"])
def test_actions_of_foreign_keys_are_refused(db, action):
    @db.model
    class Team:
        name: str

    @db.model
    class Player:
        team_id: Annotated[int | None, ForeignKey("Team", on_delete=action)] = None

    refused(db, "foreign_key_actions")


def test_foreign_keys_without_actions_are_not(db):
    @db.model
    class Team:
        name: str

    @db.model
    class Player:
        team_id: Annotated[int, ForeignKey("Team")]

    team = db.express_sync.create("Team", {"name": "Reds"})
    assert db.express_sync.create("Player", {"team_id": team["id"]})["team_id"] == team["id"]


def test_foreign_keys_are_refused_where_there_are_none(tmp_path):
    lacking = plugin(foreign_keys="unsupported: no foreign_keys")
    with DataFlow(f"lame:///{tmp_path}/app.lame", plugins=[lacking]) as db:

        @db.model
        class Team:
            name: str

        @db.model
        class Player:
            team_id: Annotated[int, ForeignKey("Team")]

        refused(db, "foreign_keys")


def test_indexes_with_a_predicate_are_refused(db):
    @db.model
    class Draft:
        slug: str
        __indexes__: ClassVar = [{"name": "uq", "fields": ["slug"], "unique": True, "where": "slug <> ''"}]

    refused(db, "partial_indexes")


def test_a_missing_column_names_the_dialect_that_has_no_schema_editor(db, tmp_path):
    @db.model
    class Note:
        text: str

    db.express_sync.create("Note", {"text": "a"})
    with DataFlow(f"lame:///{tmp_path}/app.lame", plugins=[plugin(**LACKS)]) as other:
        other.model(type("Note", (), {"__annotations__": {"text": str, "more": str | None}, "more": None}))
        with pytest.raises(SchemaError, match="lacks more") as caught:
            other.express_sync.list("Note")
    assert caught.value.hint.endswith("the dialect lame has no schema editor that would do it")


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("lame:///shop.lame", "shop.lame"),
        ("lame:////tmp/a@b/shop.lame", "/tmp/a@b/shop.lame"),
        ("lame:////tmp/a%20b:c/x", "/tmp/a b:c/x"),
        ("lame:///:memory:", ":memory:"),
    ],
)
def test_three_slashes_mean_a_path_whatever_the_scheme(url, path):
    assert parse_url(url) == DatabaseURL("lame", path)
    assert parse_url(f"{url}?x=1") == DatabaseURL("lame", path, query=(("x", "1"),))


def test_the_stem_of_any_file_names_its_instance(db):
    assert "app" in labels(db)
