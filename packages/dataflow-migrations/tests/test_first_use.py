"""What happens by itself when a model is first used: additions, and nothing else."""

import asyncio
from enum import Enum
from typing import Annotated

import pytest

from dataflow import DataFlow, Field, ForeignKey
from dataflow.errors import MissingCapability, SchemaError
from dataflow.migrations.journal import Journal, Registered


def note(db, *, fields=None, indexes=(), name="Note", **options):
    """Register a model with a title and more fields."""
    annotations = {"title": str, **{name: kind for name, (kind, *_) in (fields or {}).items()}}
    body = {name: default[0] for name, (_, *default) in (fields or {}).items() if default}
    members = {"__annotations__": annotations, "__indexes__": list(indexes), "__dataflow__": options, **body}
    return db.model(type(name, (), members))


def history(db):
    return [(entry.status, [step.step.summary for step in entry.plan.steps]) for entry in engine(db).history_sync()]


def engine(db):
    return db.core.schema_engine


def count(db):
    return db.express_sync.count("Note")["count"]


def tables(db):
    return db.show_tables()


def inspected(db):
    return db.core.ask(engine(db).editor.inspect(), write=True)


@pytest.fixture
def filled(opening):
    """A database with a model of an earlier release, and three records."""
    db = opening()
    note(db)
    for title in "abc":
        db.express_sync.create("Note", {"title": title})
    db.close()
    return opening


def test_a_second_model_leaves_the_first_one_s_table_alone(filled):
    db = filled()
    note(db, name="Page")
    db.express_sync.create("Page", {"title": "x"})
    assert tables(db) == ["notes", "pages"]
    db = filled()
    note(db)
    assert [record["title"] for record in db.express_sync.list("Note")["records"]] == ["a", "b", "c"]
    assert tables(db) == ["notes", "pages"]
    assert engine(db).plan_sync().steps == ()


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


ADDED = {
    "nothing by default": (str | None, None),
    "text": (str, "x"),
    "yes or no": (bool, True),
    "a number": (float, 0.5),
    "one of several": (Colour, Colour.BLUE),
    "a list": (list[str], ["a"]),
    "bytes": (bytes, b"\0x"),
}


@pytest.mark.parametrize("added", ADDED)
def test_a_new_field_becomes_a_column_and_the_records_stay(filled, added):
    kind, default = ADDED[added]
    db = filled()
    note(db, fields={"extra": (kind, default)})
    records = db.express_sync.list("Note")["records"]
    assert [(record["title"], record["extra"]) for record in records] == [(title, default) for title in "abc"]
    assert db.express_sync.create("Note", {"title": "d"})["extra"] == default
    ((status, steps),) = history(db)
    assert status == "done"
    assert "extra" in steps[0]
    assert engine(db).plan_sync().steps == ()


def test_a_new_foreign_key_comes_with_its_column(filled):
    db = filled()
    note(db, name="Shelf")
    note(db, fields={"shelf_id": (Annotated[int | None, ForeignKey("Shelf", on_delete="cascade")], None)})
    shelf = db.express_sync.create("Shelf", {"title": "s"})["id"]
    db.express_sync.create("Note", {"title": "d", "shelf_id": shelf})
    db.express_sync.delete("Shelf", shelf)
    assert count(db) == 3
    assert engine(db).plan_sync().steps == ()


def test_new_indexes_are_built(filled):
    db = filled()
    unique = {"name": "notes_title", "fields": ["title"], "unique": True}
    part = {"name": "notes_a", "fields": ["title"], "where": "title = 'a'"}
    note(db, indexes=[unique, part])
    assert count(db) == 3
    assert set(inspected(db).tables["notes"].indexes) == {"notes_a", "notes_title"}
    assert engine(db).plan_sync().steps == ()


def test_an_index_that_the_records_contradict_is_refused_and_nothing_has_changed(filled):
    db = filled()
    note(db)
    db.express_sync.create("Note", {"title": "a"})
    db = filled()
    note(db, fields={"extra": (int, 1)}, indexes=[{"name": "notes_title", "fields": ["title"], "unique": True}])
    with pytest.raises(SchemaError, match="the migration failed") as caught:
        db.express_sync.list("Note")
    assert caught.value.undone
    assert set(inspected(db).tables["notes"].columns) == {"id", "title", "created_at", "updated_at"}
    assert [status for status, _ in history(db)] in (["undone"], [])  # what one transaction undoes leaves no trace


def test_a_process_of_an_older_release_goes_on_beside_a_newer_one(filled):
    newer = filled()
    note(newer, fields={"extra": (str | None, None)}, indexes=[{"name": "notes_title", "fields": ["title"]}])
    newer.express_sync.count("Note")
    older = filled()
    note(older)
    older.express_sync.create("Note", {"title": "old"})
    again = filled()
    note(again, fields={"extra": (str | None, None)}, indexes=[{"name": "notes_title", "fields": ["title"]}])
    again.express_sync.create("Note", {"title": "new", "extra": "x"})
    assert count(again) == 5
    assert len(history(again)) == 1


REFUSED = {
    "another type": {"title": (int, 0)},
    "a value that old records lack": {"extra": (str,)},
}


@pytest.mark.parametrize("what", REFUSED)
def test_more_than_an_addition_stops_with_the_plan_and_what_to_type(filled, what):
    db = filled()
    note(db, fields=REFUSED[what])
    before = inspected(db)
    with pytest.raises(SchemaError) as caught:
        db.express_sync.list("Note")
    assert caught.value.code == "not-additive"
    assert caught.value.problems
    assert "dataflow migrate apply" in caught.value.hint
    assert "await db.auto_migrate()" in caught.value.hint
    assert inspected(db).fingerprint == before.fingerprint
    assert history(db) == []


def test_a_removed_field_that_must_have_a_value_stops(opening):
    db = opening()
    note(db, fields={"code": (str,)})
    db.express_sync.create("Note", {"title": "a", "code": "x"})
    db = opening()
    note(db)
    with pytest.raises(SchemaError, match="more than additions"):
        db.express_sync.create("Note", {"title": "b"})


def test_a_removed_field_that_may_be_empty_stays_in_the_table(opening):
    db = opening()
    note(db, fields={"code": (str | None, None)})
    db.express_sync.create("Note", {"title": "a", "code": "x"})
    db = opening()
    note(db)
    db.express_sync.create("Note", {"title": "b"})
    assert "code" in inspected(db).tables["notes"].columns
    (step,) = engine(db).plan_sync().steps
    assert (step.risk, step.step.data_loss) == ("HIGH", "certain")
    assert "drop column notes.code" in step.step.summary


def test_a_declared_rename_stops_too(filled):
    db = filled()
    db.model(type("Note", (), {"__annotations__": {"subject": Annotated[str, Field(renamed_from="title")]}}))
    with pytest.raises(SchemaError, match="rename column"):
        db.express_sync.list("Note")
    db = filled()
    db.model(type("Memo", (), {"__annotations__": {"title": str}, "__dataflow__": {"renamed_from": "notes"}}))
    with pytest.raises(SchemaError, match="rename table"):
        db.express_sync.list("Memo")
    assert tables(db) == ["notes"]


def test_a_table_that_somebody_else_made_only_gets_what_it_lacks(opening):
    db = opening()
    make = 'CREATE TABLE notes (id INTEGER PRIMARY KEY, title VARCHAR(20), old TEXT, "when" TEXT)'
    run(db, make)
    db = opening()
    note(db, fields={"extra": (int | None, None)}, timestamps=False)
    run(db, "INSERT INTO notes (id, title) VALUES (1, 'a')")
    assert db.express_sync.list("Note")["records"] == [{"id": 1, "title": "a", "extra": None}]
    found = inspected(db).tables["notes"].columns
    assert {"old", "when", "extra"} <= set(found)
    assert "20" in found["title"].type


def run(db, sql):
    from dataflow.dialect import COUNT, Command

    def program():
        yield from db.core.dialect.before_tables([])
        yield Command(sql, COUNT, writes=True), ()

    db.core.ask(program(), write=True)


def test_a_table_that_only_has_rows_gets_no_column_that_they_contradict(opening):
    db = opening()
    run(db, "CREATE TABLE notes (id INTEGER PRIMARY KEY, title TEXT NOT NULL)")
    run(db, "INSERT INTO notes (id, title) VALUES (1, 'a')")
    db = opening()
    note(db, fields={"extra": (int,)}, timestamps=False)
    with pytest.raises(SchemaError, match=r"what do existing rows of notes get as extra\?"):
        db.express_sync.list("Note")


def test_without_permission_nothing_is_added(filled):
    for settings in ({"auto_migrate": False}, {"existing_schema_mode": True}):
        db = filled(**settings)
        note(db, fields={"extra": (str | None, None)})
        with pytest.raises(SchemaError, match="lacks extra") as caught:
            db.express_sync.list("Note")
        assert "dataflow migrate" in caught.value.hint
    assert "extra" not in inspected(db).tables["notes"].columns


def test_core_alone_creates_tables_and_names_the_package_for_columns(filled):
    db = filled(disable={"migrations"})
    note(db, fields={"extra": (str | None, None)})
    with pytest.raises(SchemaError, match="lacks extra") as caught:
        db.express_sync.list("Note")
    assert "workflow-dataflow[migrations]" in caught.value.hint
    with pytest.raises(MissingCapability, match="migrations package"):
        asyncio.run(db.auto_migrate())


def test_a_model_that_did_not_change_is_not_compared(filled, monkeypatch):
    db = filled()
    note(db)
    monkeypatch.setattr(type(engine(db).editor), "inspect", None)
    assert count(db) == 3


def test_no_registry_is_kept_where_nobody_wants_it(opening):
    db = opening(enable_model_persistence=False)
    note(db)
    db.express_sync.create("Note", {"title": "a"})
    assert not db.core.ask(Journal(db.core.dialect).there("dataflow_models"))
    db = opening(enable_model_persistence=False)
    note(db, fields={"extra": (int, 1)})
    assert db.express_sync.list("Note")["records"][0]["extra"] == 1
    assert db.reconstruct_models_from_registry()["reconstructed_models"] == []


def test_another_process_gets_the_models_back(filled):
    db = filled()
    answer = db.reconstruct_models_from_registry()
    assert answer["reconstructed_models"] == ["Note"]
    assert answer["generated_nodes"]["Note"]["create"] == "NoteCreateNode"
    assert count(db) == 3


def test_inside_an_open_transaction_additions_are_part_of_it(filled):
    from dataflow.runtime import LocalRuntime

    db = filled()
    note(db, fields={"extra": (int, 1)})
    workflow = db.workflow()
    workflow.add_node("TransactionScopeNode", "scope", {})
    workflow.add_node("NoteCreateNode", "create", {"title": "d"})
    results, _ = LocalRuntime().execute(workflow.build())
    assert results["create"]["extra"] == 1


async def test_a_call_inside_a_transaction_can_need_a_new_column(filled):
    db = filled()
    note(db, name="Page")
    note(db, fields={"extra": (int, 1)})
    await db.express.create("Page", {"title": "p"})
    assert isinstance(db, DataFlow)
    assert (await db.express.create("Note", {"title": "x"}))["extra"] == 1


def test_a_column_that_somebody_added_by_hand_is_used_as_it_is(filled):
    db = filled()
    run(db, "ALTER TABLE notes ADD COLUMN extra TEXT DEFAULT 'y'")
    note(db, fields={"extra": (str | None, None)})
    db.express_sync.create("Note", {"title": "d", "extra": "x"})
    assert "'y'" in (inspected(db).tables["notes"].columns["extra"].default or "")


def test_first_use_reads_only_what_the_registry_knows_of_the_tables_at_hand(opening, monkeypatch):
    def register(db):
        for number in range(12):
            db.model(
                type(f"Thing{number}", (), {"__annotations__": {"name": str}, "__tablename__": f"things_{number}"})
            )
        return db

    asyncio.run(register(opening()).initialize())
    later = register(opening())
    read = []
    whole = Registered.from_dict.__func__
    monkeypatch.setattr(
        Registered, "from_dict", classmethod(lambda cls, data: (read.append(data["table"]), whole(cls, data))[1])
    )
    later.express_sync.list("Thing3")
    assert read == ["things_3"]
    asyncio.run(register(opening()).initialize())
    assert len(read) == 13
