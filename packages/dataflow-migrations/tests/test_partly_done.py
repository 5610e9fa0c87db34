"""Migrations that fail in the middle, on PostgreSQL, where they are several transactions: undone, or said to be partly
done."""

import asyncio

import pytest

from dataflow import DataFlow
from dataflow.errors import DatabaseUnavailable
from dataflow.migrations.execution import MigrationError
from dataflow.migrations.proof.releases import model

UNIQUE = [{"name": "notes_kind", "fields": ["kind"], "unique": True}]


@pytest.fixture
def opened(postgres_database, monkeypatch):
    """Open DataFlows on a database with three notes, two of which are of one kind; every table counts as large."""
    monkeypatch.setattr("dataflow.postgres.migration.draft.LARGE", 0)
    with DataFlow(postgres_database) as db:
        model(db, "Note", {"kind": str, "text": str | None})
        for number in range(3):
            db.express_sync.create("Note", {"kind": f"kind {number // 2}", "text": "x"})
    made = []

    def open_with(fields, indexes=UNIQUE, name="Note", **options):
        db = DataFlow(postgres_database)
        made.append(db)
        model(db, name, fields, indexes, **options)
        return db

    yield open_with
    for db in made:
        db.close()


def migrate(db, **options):
    return asyncio.run(db.auto_migrate(auto_confirm=True, max_risk_level="CRITICAL", **options))


def failed(db, **options):
    with pytest.raises(MigrationError, match="a record with that kind exists already") as caught:
        migrate(db, **options)
    return caught.value


def engine(db):
    return db.core.schema_engine


def inspected(db):
    return db.core.ask(engine(db).editor.inspect(), write=True)


def registered(db):
    return db.core.ask(engine(db).journal.registered())


def statuses(db):
    return [entry.status for entry in engine(db).history_sync()]


MORE = {"kind": str, "text": str | None, "size": (int, 1)}


def test_what_was_done_is_undone_when_a_later_step_fails(opened):
    db = opened(MORE, [{"name": "notes_a", "fields": ["text"]}, *UNIQUE])
    before, known = inspected(db), registered(db)
    error = failed(db)
    assert error.undone
    assert "create unique index notes_kind" in error.step
    assert "nothing has changed" in error.hint
    assert inspected(db) == before
    assert registered(db) == known
    (entry,) = engine(db).history_sync()
    assert entry.status == "undone"
    assert entry.error == "a record with that kind exists already"
    assert len(entry.done) >= 2


def test_without_rollback_it_stays_partly_done_and_the_rest_is_done_later(opened, postgres_database):
    db = opened(MORE)
    error = failed(db, rollback_on_error=False)
    assert not error.undone
    assert "is partly done" in error.hint
    assert statuses(db) == ["failed"]
    assert "size" in inspected(db).tables["notes"].columns
    with pytest.raises(MigrationError, match="exists already"):
        db.express_sync.count("Note")  # first use would do the rest
    asyncio.run(corrected(postgres_database))
    assert migrate(db)[0]
    assert statuses(db) == ["failed", "undone", "done"]
    assert db.express_sync.count("Note", {"size": 1}) == {"count": 3}
    assert engine(db).plan_sync().steps == ()


async def corrected(url):
    import asyncpg

    connection = await asyncpg.connect(url)
    await connection.execute("UPDATE notes SET kind = id::text")
    await connection.close()


def test_a_step_that_nothing_can_undo_leaves_it_partly_done(opened):
    db = opened({"kind": str})
    error = failed(db)
    assert not error.undone
    assert "is partly done" in error.hint
    assert statuses(db) == ["failed"]
    assert "text" not in inspected(db).tables["notes"].columns


def test_what_is_partly_done_can_be_undone(opened):
    db = opened(MORE)
    before, known = inspected(db), registered(db)
    failed(db, rollback_on_error=False)
    asyncio.run(engine(db).undo())
    assert statuses(db) == ["undone", "done"]
    assert inspected(db) == before
    assert registered(db) == known


def test_a_table_that_was_renamed_before_it_failed_is_still_dataflow_s(opened):
    db = opened({"kind": str, "text": str | None}, name="Paper", renamed_from="notes")
    failed(db, rollback_on_error=False)
    assert {*registered(db)} == {"papers"}
    db = opened({"kind": str}, (), name="Paper")
    assert "drop column papers.text" in [step.step.summary for step in engine(db).plan_sync().steps]


def test_what_was_built_beside_others_is_undone_beside_others(opened):
    before = inspected(opened({"kind": str, "text": str | None}, []))
    db = opened({"kind": str, "text": str | None}, [{"name": "notes_text", "fields": ["text"]}])
    assert migrate(db)[0]
    entry, back = engine(db).undo_plan_sync()
    (step,) = [planned.step for planned in back.steps]
    assert step.mode == "outside"
    assert step.sql == ('DROP INDEX CONCURRENTLY IF EXISTS "notes_text"',)
    engine(db).undo_sync(entry.id)
    assert inspected(db) == before
    assert statuses(db) == ["undone", "done"]


def test_an_index_that_was_dropped_beside_others_is_built_so_again(opened):
    kept = opened({"kind": str, "text": str | None}, [{"name": "notes_text", "fields": ["text"]}])
    assert migrate(kept)[0]
    before = inspected(kept)
    db = opened({"kind": str, "text": str | None}, [])
    assert migrate(db)[0]
    entry, back = engine(db).undo_plan_sync()
    (step,) = [planned.step for planned in back.steps]
    assert step.mode == "outside"
    assert step.sql[0].startswith('CREATE INDEX CONCURRENTLY "notes_text"')
    engine(db).undo_sync(entry.id)
    assert inspected(db) == before


def test_an_undoing_that_was_interrupted_goes_on_where_it_was(opened, monkeypatch):
    before = inspected(opened({"kind": str, "text": str | None}, []))
    indexes = [{"name": f"notes_{number}", "fields": ["text"], "where": f"text = '{number}'"} for number in range(3)]
    db = opened({"kind": str, "text": str | None}, indexes)
    assert migrate(db)[0]
    entry, _ = engine(db).undo_plan_sync()
    perform, calls = engine(db).editor.perform, []

    def lost(step):
        calls.append(step.sql)
        if len(calls) == 2:
            raise DatabaseUnavailable("gone", hint="")
        return (yield from perform(step))

    monkeypatch.setattr(engine(db).editor, "perform", lost)
    with pytest.raises(MigrationError, match="gone"):
        engine(db).undo_sync(entry.id)
    assert len(inspected(db).tables["notes"].indexes) == 2
    monkeypatch.undo()
    assert engine(db).undo_sync().note == f"undoes {entry.id}"
    assert inspected(db) == before
    assert statuses(db) == ["undone", "done"]


def test_a_rollback_that_is_interrupted_says_what_is_left_of_it(opened, monkeypatch):
    db = opened(MORE, [{"name": "notes_a", "fields": ["text"]}, {"name": "notes_b", "fields": ["size"]}, *UNIQUE])
    before = inspected(db)
    perform, dropped = engine(db).editor.perform, []

    def lost(step):
        if step.operation.startswith("undo"):
            dropped.append(step.sql)
            if len(dropped) == 2:
                raise DatabaseUnavailable("gone", hint="")
        return (yield from perform(step))

    monkeypatch.setattr(engine(db).editor, "perform", lost)
    with pytest.raises(MigrationError) as caught:
        migrate(db)
    assert "partly done" in caught.value.hint
    (entry,) = engine(db).history_sync()
    assert entry.status == "running"
    done = [entry.plan.steps[position].step.summary for position in sorted(entry.done)]
    assert "notes_b" not in str(done)
    assert "notes_a" in str(done)
    assert set(inspected(db).tables["notes"].indexes) == {"notes_a"}
    monkeypatch.undo()
    with pytest.raises(MigrationError, match="a record with that kind exists already") as caught:
        migrate(db)
    assert caught.value.undone
    assert inspected(db) == before


def test_applying_a_plan_ends_what_was_interrupted_and_says_so(opened, monkeypatch):
    indexes = [{"name": "notes_a", "fields": ["text"]}, {"name": "notes_b", "fields": ["kind"]}]
    db = opened({"kind": str, "text": str | None}, indexes)
    perform, calls = engine(db).editor.perform, []

    def lost(step):
        calls.append(step)
        if len(calls) == 2:
            raise DatabaseUnavailable("gone", hint="")
        return (yield from perform(step))

    monkeypatch.setattr(engine(db).editor, "perform", lost)
    with pytest.raises(MigrationError, match="gone"):
        migrate(db)
    monkeypatch.undo()
    entry = engine(db).apply_sync(engine(db).plan_sync(), {})
    assert entry.status == "done"
    assert len(entry.done) == 2
    assert engine(db).plan_sync().steps == ()
