"""Alembic beside us: what it believes, its history in ours, what it finds in schemas that we have made."""

import asyncio
import sys
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from textwrap import dedent
from types import SimpleNamespace
from typing import Annotated, Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from dataflow import Factory, Field, ForeignKey
from dataflow.errors import InputError, MissingCapability, SchemaError
from dataflow.migrations.alembic import directory, import_history, revisions, stamp, stamped
from dataflow.migrations.proof import histories
from dataflow.migrations.proof.histories import main, replay

FIRST, SECOND, THIRD, SIDE, BOTH = "1a", "2b", "3c", "3s", "4m"
BODIES = {
    FIRST: """
        op.create_table(
            "authors",
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("name", sa.String(40), nullable=False),
            sa.Column("born", sa.Date),
        )
        op.create_table(
            "books",
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("title", sa.String(80), nullable=False),
            sa.Column("author_id", sa.Integer, sa.ForeignKey("authors.id", name="books_author"), nullable=False),
        )
        op.create_index("books_title", "books", ["title"])
    """,
    SECOND: """
        with op.batch_alter_table("books") as books:
            books.add_column(sa.Column("pages", sa.Integer, nullable=False, server_default="1"))
            books.add_column(sa.Column("blurb", sa.Text, nullable=False, server_default=""))
            books.create_unique_constraint("books_key", ["author_id", "title"])
    """,
    THIRD: """
        with op.batch_alter_table("books") as books:
            books.alter_column("pages", type_=sa.BigInteger, server_default=None)
            books.drop_column("blurb")
            books.add_column(sa.Column("isbn", sa.String(13), nullable=False))
    """,
    SIDE: """
        with op.batch_alter_table("authors") as authors:
            authors.alter_column("born", new_column_name="birthday")
            authors.create_check_constraint("named", "name <> ''")
    """,
    BOTH: "pass",
}
BELOW = {FIRST: None, SECOND: FIRST, THIRD: SECOND, SIDE: SECOND, BOTH: (THIRD, SIDE)}


@pytest.fixture
def scripts(tmp_path):
    """An Alembic history of four revisions, two of them side by side, and one that joins them."""
    versions = tmp_path / "alembic" / "versions"
    versions.mkdir(parents=True)
    for name, body in BODIES.items():
        head = f'"""Revision {name} of books"""\nimport sqlalchemy as sa\nfrom alembic import op\n'
        head += f"revision = {name!r}\ndown_revision = {BELOW[name]!r}\n\ndef upgrade():\n"
        text = dedent(body).strip().replace("\n", "\n    ")
        (versions / f"{name}.py").write_text(f"{head}    {text}\n")
    return str(tmp_path / "alembic")


@contextmanager
def connected(opening):
    """Connect as Alembic does: by SQLAlchemy's synchronous drivers."""
    url, options = opening.url, {}
    if opening.dialect == "postgresql":
        url = sa.make_url(url).set(drivername="postgresql+psycopg")
        options["connect_args"] = {"options": f"-csearch_path={opening.settings['postgres_schema']}"}
    engine = sa.create_engine(url, **options)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def heads(opening):
    with connected(opening) as connection:
        return MigrationContext.configure(connection).get_current_heads()


# -- the version table ------------------------------------------------------------------------------------------------
def test_alembic_believes_what_is_stamped(opening, scripts):
    db = opening()
    assert stamped(db) == ()
    stamp(db, FIRST)
    assert heads(opening) == (FIRST,) == stamped(db)
    stamp(db, [THIRD, SIDE])
    assert sorted(heads(opening)) == [THIRD, SIDE] == list(stamped(db))
    stamp(db, "head", script_location=scripts)
    assert heads(opening) == (BOTH,)
    stamp(db, [])
    assert heads(opening) == ()


def test_the_table_of_versions_is_as_alembic_makes_it(opening):
    stamp(opening(), FIRST)
    with connected(opening) as connection:
        ours = (
            sa.inspect(connection).get_columns("alembic_version"),
            sa.inspect(connection).get_pk_constraint("alembic_version"),
        )
        connection.execute(sa.text("DROP TABLE alembic_version"))
        context = MigrationContext.configure(connection)
        context._ensure_version_table()
        theirs = (
            sa.inspect(connection).get_columns("alembic_version"),
            sa.inspect(connection).get_pk_constraint("alembic_version"),
        )
        connection.rollback()
    assert repr(ours) == repr(theirs)


def test_a_revision_that_the_scripts_do_not_know_is_not_stamped(opening, scripts):
    db = opening()
    with pytest.raises(InputError) as caught:
        stamp(db, "2bb", script_location=scripts)
    assert (caught.value.code, caught.value.hint) == ("unknown-revision", f"did you mean {SECOND!r}?")
    with pytest.raises(InputError, match="no identifier"):
        stamp(db, "head")
    assert stamped(db) == ()


# -- its history ------------------------------------------------------------------------------------------------------
def test_the_history_up_to_the_stamp_is_imported_once(opening, scripts):
    db = opening()
    stamp(db, SECOND)
    assert [entry.note for entry in import_history(db, scripts)] == [
        f"Alembic revision {name}: Revision {name} of books" for name in (FIRST, SECOND)
    ]
    assert import_history(db, scripts) == []
    stamp(db, BOTH)
    assert [entry.id.partition("-")[2] for entry in import_history(db, scripts)][-1] == BOTH
    history = db.core.schema_engine.history_sync()
    assert [entry.id.partition("-")[2] for entry in history][:2] == [FIRST, SECOND]
    assert len(history) == len(BODIES)
    assert {(entry.status, entry.plan.steps) for entry in history} == {("done", ())}


def test_what_alembic_made_is_before_what_we_make_and_is_not_undone_by_us(opening, scripts):
    db = opening()

    @db.model
    class Note:
        text: str

    db.express_sync.create("Note", {"text": "x"})
    db.close()
    db = opening()

    @db.model
    class Note:  # noqa: F811  # the next release
        text: str
        mark: int = 0

    assert asyncio.run(db.auto_migrate(auto_confirm=True))[0]
    stamp(db, SECOND)
    import_history(db, scripts)
    engine = db.core.schema_engine
    assert [bool(entry.plan) for entry in engine.history_sync()] == [False, False, True]
    engine.undo_sync()
    with pytest.raises(SchemaError, match="no migration to undo"):
        engine.undo_sync()


def test_nothing_is_imported_where_alembic_has_made_nothing(opening, scripts):
    db = opening()
    with pytest.raises(SchemaError, match="names no revision"):
        import_history(db, scripts)
    stamp(db, "ffff")
    with pytest.raises(InputError, match="ffff"):
        import_history(db, scripts)
    with pytest.raises(InputError, match="nowhere"):
        import_history(db, f"{scripts}/nowhere")
    assert db.core.schema_engine.history_sync() == []


def test_without_alembic_the_extra_is_named(opening, scripts, monkeypatch):
    monkeypatch.setitem(sys.modules, "alembic.script", None)
    with pytest.raises(MissingCapability, match=r"(?s)alembic is missing.*\[alembic\]"):
        stamp(opening(), "head", script_location=scripts)


def test_revisions_come_after_those_that_they_follow(scripts):
    found = revisions(directory(scripts))
    assert {found[0].id, found[1].id, found[-1].id} == {FIRST, SECOND, BOTH}
    for place, revision in enumerate(found):
        assert {*revision.below} <= {before.id for before in found[:place]}


# -- a second opinion on what we make ---------------------------------------------------------------------------------
class Kind(Enum):
    A = "a"
    B = "b"


def first_release(db):
    @db.model
    class Author:
        name: str

    @db.model
    class Book:
        title: str
        old: int | None
        author: Annotated[int, ForeignKey("Author", name="writer")]

        __indexes__ = [{"fields": ["title"], "name": "book_title"}]


def second_release(db):
    @db.model
    class Author:
        name: str
        mail: str | None = None

        __indexes__ = [{"fields": ["mail"], "name": "author_mail", "unique": True}]

    @db.model
    class Shelf:
        id: UUID
        place: Decimal
        topics: list[str]

    @db.model
    class Book:
        title: str
        called: Annotated[int | None, Field(renamed_from="old")]
        author: Annotated[int, ForeignKey("Author", name="writer", on_delete="cascade")]
        shelf: Annotated[UUID | None, ForeignKey("Shelf", name="stands")] = None
        kind: Kind = Kind.A
        bought: date | None = None
        read_at: datetime | None = None
        data: dict[str, Any] = Factory(dict)
        amount: Decimal = Decimal(0)
        blob: bytes | None = None
        rating: float = 0.5
        good: bool = True
        __indexes__ = [{"fields": ["title", "author"], "name": "book_title", "unique": True}]


def differences(opening, db):
    """Return what Alembic would change to make the schema that of the models."""
    metadata = next(iter(db.core.models.values())).table.metadata
    ours = set(metadata.tables)

    def concerned(name, kind, _parents):
        return kind != "table" or name in ours

    with connected(opening) as connection:
        options = {"compare_type": True, "compare_server_default": True, "include_name": concerned}
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)


def test_alembic_finds_no_difference_after_our_migration(opening):
    db = opening()
    first_release(db)
    db.express_sync.create("Author", {"name": "Ada"})
    db.express_sync.create("Book", {"title": "T", "author": 1})
    db.close()
    db = opening()
    second_release(db)
    assert differences(opening, db), "Alembic has to see that the schema is an older one"
    assert asyncio.run(db.auto_migrate(auto_confirm=True, max_risk_level="CRITICAL", backfill={"books.data": {}}))[0]
    assert differences(opening, db) == []


# -- replays ----------------------------------------------------------------------------------------------------------
def place_of(opening):
    return opening.url if opening.dialect == "postgresql" else "sqlite"


@pytest.mark.parametrize("rename", [False, True])
def test_a_history_of_alembics_is_replayed_by_us(opening, scripts, rename):
    report = replay(scripts, place_of(opening), rename=rename)
    assert report.failures == []
    assert report.counts["revisions"] == len(BODIES)
    assert report.counts["revisions that change no schema"] == 1
    assert report.counts["rows compared"] > 0
    assert report.counts["tables left empty"] == 0
    assert {"create_table", "add_column", "drop_column", "alter_column", "add_constraint"} <= report.kinds.keys()
    assert ("rename_column" in report.kinds) == rename


def test_a_history_may_start_from_tables_and_need_data_of_its_own(opening, scripts, monkeypatch):
    """Two rows cannot get one value in a column whose values are unique: that is proven without rows."""
    metadata = sa.MetaData(naming_convention={"uq": "only_%(column_0_name)s"})
    sa.Table("shops", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String(9)))
    monkeypatch.setitem(sys.modules, "theirs", SimpleNamespace(Base=SimpleNamespace(metadata=metadata)))
    with open(f"{scripts}/versions/5s.py", "w") as file:
        file.write(
            "import sqlalchemy as sa\nfrom alembic import op\nrevision, down_revision = '5s', '4m'\n\ndef upgrade():\n"
            "    with op.batch_alter_table('shops') as shops:\n"
            "        shops.add_column(sa.Column('code', sa.String(9), nullable=False))\n"
            "        shops.create_unique_constraint(op.f('only_code'), ['code'])\n"
        )
    named = "theirs:Base.metadata"
    report = replay(scripts, place_of(opening), base=named, target=named)
    assert report.failures == []
    assert report.counts["revisions proven without rows"] == 1
    assert any("needs data of its own" in reason for reason in report.left)


def test_a_replay_tells_what_is_not_as_it_should_be(opening, scripts, monkeypatch, capsys):
    whole = histories.changes
    monkeypatch.setattr(histories, "changes", lambda *a, **k: [c for c in whole(*a, **k) if c.kind != "drop_column"])
    assert main(["--alembic", scripts, "--url", place_of(opening)]) == 1
    assert f"FAILED at {THIRD}" in capsys.readouterr().out
