"""`await db.auto_migrate()`: what is planned, asked, refused, done, undone, and written down."""

import asyncio
import json
from datetime import date, datetime
from typing import Annotated

import pytest

from dataflow import Field, ForeignKey
from dataflow.errors import InputError, SchemaError
from dataflow.migrations.execution import MigrationError
from dataflow.migrations.plan import Plan, PlannedStep
from dataflow.migrations.risk import RiskLevel

STAMPS = {"created_at", "updated_at"}


def model(db, called, indexes=(), options=(), /, **fields):
    """Register a model: field=type, or field=(type, default)."""
    kinds = {field: kind if not isinstance(kind, tuple) else kind[0] for field, kind in fields.items()}
    defaults = {field: kind[1] for field, kind in fields.items() if isinstance(kind, tuple)}
    members = {"__annotations__": kinds, "__indexes__": list(indexes), "__dataflow__": dict(options), **defaults}
    return db.model(type(called, (), members))


def engine(db):
    return db.core.schema_engine


def migrate(db, **options):
    return asyncio.run(db.auto_migrate(**options))


def columns(db, table="people"):
    found = db.core.ask(engine(db).editor.inspect(), write=True).tables[table]
    return {name: column for name, column in found.columns.items() if name not in STAMPS}


def records(db, name="Person"):
    return [
        {key: value for key, value in record.items() if key not in STAMPS}
        for record in db.express_sync.list(name)["records"]
    ]


@pytest.fixture
def people(opening):
    """A database with two people, of an earlier release."""
    db = opening()
    model(db, "Person", name=str, email=str, age=(int, 3), note=(str | None, None))
    db.express_sync.create("Person", {"name": "Ada", "email": "a@x"})
    db.express_sync.create("Person", {"name": "Bob", "email": "b@x", "age": 40, "note": "n"})
    db.close()
    return opening


def later(opening, **settings):
    """Open the database with the models of a later release."""
    db = opening(**settings)
    model(
        db, "Person", [{"name": "people_mail", "fields": ["mail"], "unique": True}],
        full_name=Annotated[str, Field(renamed_from="name")],
        mail=Annotated[str, Field(renamed_from="email")],
        age=(str, "3"),
        year=(int, 7),
    )  # fmt: skip
    return db


EXPECTED = [
    {"id": 1, "full_name": "Ada", "mail": "a@x", "age": "3", "year": 7},
    {"id": 2, "full_name": "Bob", "mail": "b@x", "age": "40", "year": 7},
]


def test_a_dry_run_changes_nothing_and_asks_nobody(people, monkeypatch):
    monkeypatch.setattr("builtins.input", None)
    db = later(people)
    before = db.core.ask(engine(db).editor.inspect(), write=True).fingerprint
    ok, pending = migrate(db, dry_run=True)
    assert ok
    assert all(isinstance(step, PlannedStep) for step in pending)
    assert {step.risk for step in pending} >= {"MEDIUM", "HIGH"}
    assert db.core.ask(engine(db).editor.inspect(), write=True).fingerprint == before
    assert engine(db).history_sync() == []


def test_a_confirmed_migration_keeps_what_stays(people):
    db = later(people)
    ok, steps = migrate(db, auto_confirm=True, max_risk_level="HIGH")
    assert ok
    assert steps
    assert records(db) == EXPECTED
    assert migrate(db, dry_run=True) == (True, [])
    assert [entry.status for entry in engine(db).history_sync()] == ["done"]
    assert set(columns(db)) == {"id", "full_name", "mail", "age", "year"}


def test_a_level_refuses_what_is_above_it(people, capsys):
    for options in ({"max_risk_level": "MEDIUM"}, {"max_risk_level": "low"}, {"max_risk_level": RiskLevel.LOW}, {}):
        db = later(people)
        ok, steps = migrate(db, auto_confirm=True, **options)
        assert not ok
        assert steps
        assert "refused" in capsys.readouterr().err
        assert "name" in columns(db)


def test_a_level_that_covers_the_plan_lets_it_through(people):
    db = people()
    model(db, "Person", name=str, email=str, age=(int, 3), note=(str | None, None), town=(str | None, None))
    assert migrate(db, auto_confirm=True, max_risk_level="MEDIUM")[0]
    assert records(db)[0]["town"] is None


def test_without_a_terminal_nothing_is_done_unless_it_is_confirmed(people, capsys):
    db = later(people)
    assert not migrate(db)[0]
    assert "auto_confirm=True" in capsys.readouterr().err
    assert "name" in columns(db)


@pytest.mark.parametrize(("answer", "done"), [("y", True), ("n", False), ("", False)])
def test_at_a_terminal_the_plan_is_shown_and_asked_for(people, monkeypatch, capsys, answer, done):
    monkeypatch.setattr("dataflow.migrations.engine.somebody_there", lambda: True)
    monkeypatch.setattr("builtins.input", lambda prompt: answer)
    db = later(people)
    assert migrate(db)[0] is done
    assert "HIGH" in capsys.readouterr().out
    assert ("full_name" in columns(db)) is done


def test_a_rename_that_nobody_declared_is_asked_for(people, monkeypatch):
    def changed(db):
        model(db, "Person", name=str, mail=str, age=(int, 3), note=(str | None, None))
        return db

    db = changed(people())
    with pytest.raises(SchemaError) as caught:
        migrate(db, auto_confirm=True, max_risk_level="CRITICAL", backfill={"people.mail": "?"})
    assert caught.value.code == "question"
    assert "renamed_from" in str(caught.value)
    assert "--rename people.mail=email" in str(caught.value)
    assert migrate(db, auto_confirm=True, max_risk_level="MEDIUM", renames={"people.mail": "email"})[0]
    assert [record["mail"] for record in records(db)] == ["a@x", "b@x"]


def test_at_a_terminal_a_rename_can_be_answered(people, monkeypatch):
    monkeypatch.setattr("dataflow.migrations.engine.somebody_there", lambda: True)
    answers = iter(["email", "y"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(answers))
    db = people()
    model(db, "Person", name=str, mail=str, age=(int, 3), note=(str | None, None))
    assert migrate(db)[0]
    assert [record["mail"] for record in records(db)] == ["a@x", "b@x"]


def test_a_column_can_be_new_although_another_of_its_type_goes(people):
    db = people()
    model(db, "Person", name=str, mail=str, age=(int, 3), note=(str | None, None))
    wishes = {"renames": {"Person.mail": None}, "backfill": {"Person.mail": "?"}}
    assert migrate(db, auto_confirm=True, max_risk_level="HIGH", **wishes)[0]
    assert [record["mail"] for record in records(db)] == ["?", "?"]


def test_what_existing_rows_get_is_asked_for(people):
    db = people()
    model(db, "Person", name=str, email=str, age=(int, 3), note=(str | None, None), rank=int)
    with pytest.raises(SchemaError, match="what do existing rows of people get as rank"):
        migrate(db, auto_confirm=True)
    assert migrate(db, auto_confirm=True, max_risk_level="HIGH", backfill={"people.rank": 7})[0]
    assert [record["rank"] for record in records(db)] == [7, 7]
    assert not columns(db)["rank"].nullable
    assert columns(db)["rank"].default is None


def test_a_field_that_must_have_a_value_from_now_on(people):
    db = people()
    model(db, "Person", name=str, email=str, age=(int, 3), note=str)
    with pytest.raises(MigrationError) as caught:
        migrate(db, auto_confirm=True, max_risk_level="HIGH")
    assert caught.value.undone
    assert "nothing has changed" in caught.value.hint
    assert columns(db)["note"].nullable
    assert migrate(db, auto_confirm=True, max_risk_level="HIGH", backfill={"Person.note": "-"})[0]
    assert [record["note"] for record in records(db)] == ["-", "n"]


def test_values_that_do_not_fit_their_new_type_stop_it_and_nothing_is_lost(people):
    db = people()
    model(db, "Person", name=int, email=str, age=(int, 3), note=(str | None, None))
    with pytest.raises(MigrationError) as caught:
        migrate(db, auto_confirm=True, max_risk_level="CRITICAL")
    assert caught.value.undone
    assert "Ada" not in str(caught.value)
    entries = engine(db).history_sync()
    assert [entry.status for entry in entries] in (["failed"], ["undone"])
    assert "Ada" not in json.dumps([entry.to_dict() for entry in entries])
    db = people()
    model(db, "Person", name=str, email=str, age=(int, 3), note=(str | None, None))
    assert [record["name"] for record in records(db)] == ["Ada", "Bob"]


def test_what_dataflow_has_not_made_stays_unless_it_is_named(people):
    db = people()
    execute(db, "ALTER TABLE people ADD COLUMN theirs TEXT")
    execute(db, "CREATE INDEX theirs_idx ON people (theirs)")
    execute(db, "CREATE TABLE elsewhere (x INTEGER)")
    model(db, "Person", name=str, email=str, age=(int, 3), note=(str | None, None))
    plan = engine(db).plan_sync()
    assert plan.steps == ()
    assert any("people.theirs" in note and "--drop people.theirs" in note for note in plan.notes)
    assert migrate(db, auto_confirm=True)[0]
    assert "theirs" in columns(db)
    assert migrate(db, auto_confirm=True, max_risk_level="CRITICAL", drop=["people.theirs", "elsewhere"])[0]
    assert "theirs" not in columns(db)
    assert db.show_tables() == ["people"]


def execute(db, sql):
    from dataflow.dialect import COUNT, Command

    def program():
        yield Command(sql, COUNT, writes=True), ()

    db.core.ask(program(), write=True)


def test_a_table_of_a_model_that_is_gone_is_never_dropped(people):
    db = people()
    model(db, "Other", name=str)
    assert migrate(db, auto_confirm=True, max_risk_level="CRITICAL")[0]
    assert db.show_tables() == ["others", "people"]


def test_no_models_no_plan_and_a_note(people):
    db = people()
    plan = engine(db).plan_sync()
    assert plan.steps == ()
    assert any("no models are registered" in note for note in plan.notes)


def test_a_renamed_table_keeps_its_records(people):
    db = people()
    model(db, "Citizen", (), {"renamed_from": "people"}, name=str, email=str, age=(int, 3), note=(str | None, None))
    assert migrate(db, auto_confirm=True, max_risk_level="CRITICAL")[0]
    assert [record["name"] for record in records(db, "Citizen")] == ["Ada", "Bob"]
    assert db.show_tables() == ["citizens"]
    assert migrate(db, dry_run=True) == (True, [])
    db = people()
    model(db, "Citizen", (), {"renamed_from": "people"}, name=str, email=str, age=(int, 3))
    assert migrate(db, dry_run=True)[1], "what was made under the old name is DataFlow's under the new one"


def test_models_that_refer_to_each_other_are_created_and_follow(opening):
    def release(**more):
        db = opening()
        model(
            db,
            "Author",
            name=str,
            best_id=(Annotated[int | None, ForeignKey("Book", name="best", reverse="fans")], None),
        )
        model(db, "Book", title=str, author_id=Annotated[int, ForeignKey("Author", on_delete="cascade")], **more)
        return db

    db = release()
    assert migrate(db, auto_confirm=True)[0]
    author = db.express_sync.create("Author", {"name": "a"})["id"]
    book = db.express_sync.create("Book", {"title": "b", "author_id": author})["id"]
    db.express_sync.update("Author", author, {"best_id": book})
    db = release(pages=(int, 1))
    assert migrate(db, auto_confirm=True)[0]
    assert records(db, "Book")[0]["pages"] == 1


def test_the_last_migration_can_be_undone(people):
    db = people()
    model(db, "Person", name=str, email=str, age=(int, 3), note=(str | None, None), town=(str, "x"))
    assert migrate(db, auto_confirm=True)[0]
    engine(db).undo_sync()
    assert "town" not in columns(db)
    assert [entry.status for entry in engine(db).history_sync()] == ["undone", "done"]
    with pytest.raises(SchemaError, match="no migration to undo"):
        engine(db).undo_sync()
    assert migrate(db, auto_confirm=True)[0]
    assert records(db)[0]["town"] == "x"


def test_a_migration_that_lost_data_cannot_be_undone_and_says_so(people):
    db = later(people)
    assert migrate(db, auto_confirm=True, max_risk_level="HIGH")[0]
    with pytest.raises(SchemaError, match="cannot be undone"):
        engine(db).undo_sync()
    assert records(db) == EXPECTED


def test_a_plan_is_data(people):
    db = later(people)
    plan = engine(db).plan_sync()
    again = Plan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan
    assert again.id == plan.id == engine(db).plan_sync().id
    script = engine(db).editor.script([planned.step for planned in plan.steps])
    assert "full_name" in script
    assert "COMMIT" in script


def test_a_plan_that_is_out_of_date_is_not_carried_out(people):
    db = later(people)
    plan = engine(db).plan_sync()
    execute(db, "ALTER TABLE people ADD COLUMN year TEXT")
    with pytest.raises(SchemaError) as caught:
        engine(db).apply_sync(plan, {})
    assert caught.value.code == "plan-stale"
    assert "name" in columns(db)


def test_a_plan_that_somebody_else_has_carried_out_is_done(people):
    db, other = later(people), later(people)
    plan = engine(db).plan_sync()
    assert migrate(other, auto_confirm=True, max_risk_level="HIGH")[0]
    assert engine(db).apply_sync(plan, {}) is None
    assert records(db) == EXPECTED


def test_a_schema_that_is_used_as_it_is_is_not_changed(people):
    db = later(people, existing_schema_mode=True)
    assert migrate(db, dry_run=True)[1]
    with pytest.raises(SchemaError, match="existing_schema_mode"):
        migrate(db, auto_confirm=True, max_risk_level="CRITICAL")
    assert "name" in columns(db)


def test_an_explicit_call_migrates_although_nothing_happens_by_itself(people):
    db = later(people, auto_migrate=False)
    assert migrate(db, auto_confirm=True, max_risk_level="HIGH")[0]
    assert records(db) == EXPECTED


WRONG = {
    "dry_run": "yes",
    "auto_confirm": 1,
    "max_risk_level": "EXTREME",
    "rename": {"people.mail": "email"},
    "renames": {"people.nothing": "email"},
    "backfill": {"Person.nothing": 1},
    "drop": ["nowhere"],
}


@pytest.mark.parametrize("option", WRONG)
def test_wrong_options_are_refused(people, option):
    db = later(people)
    with pytest.raises(InputError):
        migrate(db, **{"dry_run": True, option: WRONG[option]})


def test_a_backup_is_taken_first_and_the_history_says_where(people):
    db = later(people)
    assert migrate(db, auto_confirm=True, max_risk_level="HIGH", backup_before_migration=True)[0]
    (entry,) = engine(db).history_sync()
    assert "backup" in entry.note
    if people.dialect == "sqlite":
        import re
        import sqlite3

        (path,) = re.findall(r"\S+\.backup-\S+", entry.note)
        with sqlite3.connect(path) as copy:
            assert copy.execute("SELECT name, email FROM people ORDER BY id").fetchall() == [
                ("Ada", "a@x"),
                ("Bob", "b@x"),
            ]
        copy.close()


def test_the_connection_manager_is_the_dataflow_itself(people):
    db = people()
    assert db.connection_manager is db


def test_values_for_existing_rows_are_those_of_the_field_s_type(people):
    from datetime import UTC, date, datetime
    from decimal import Decimal
    from enum import Enum
    from uuid import UUID

    class Colour(Enum):
        RED = "red"

    kinds = {
        "day": date,
        "at": datetime,
        "price": Decimal,
        "colour": Colour,
        "key": UUID,
        "tags": list[str],
        "half": float,
    }
    values = {
        "day": "2024-02-29", "at": datetime(2024, 1, 1, tzinfo=UTC), "price": Decimal("1.50"), "colour": Colour.RED,
        "key": UUID(int=7), "tags": ["a'b", ":c"], "half": Decimal("0.5"),
    }  # fmt: skip
    db = people()
    model(db, "Person", name=str, email=str, age=(int, 3), note=(str | None, None), **kinds)
    with pytest.raises(InputError, match=r"backfill: people\.price"):
        migrate(
            db, dry_run=True, backfill={f"Person.{name}": value for name, value in {**values, "price": "x"}.items()}
        )
    backfill = {f"Person.{name}": value for name, value in values.items()}
    assert migrate(db, auto_confirm=True, max_risk_level="HIGH", backfill=backfill)[0]
    record = records(db)[0]
    expected = {**values, "day": date(2024, 2, 29), "price": Decimal("1.5"), "half": 0.5}
    assert {name: record[name] for name in values} == expected
    assert engine(db).plan_sync().steps == ()


def test_rules_of_plugins_change_plans_raise_risks_and_add_notes(people):
    from types import ModuleType

    from dataflow.plugins import SchemaRuleSpec, hookimpl

    rules = ModuleType("rules")
    rules.dataflow_api = "1.0"
    rules.dataflow_schema_rules = hookimpl(
        lambda dialect: [
            SchemaRuleSpec("no-indexes", "diff", lambda changes: [c for c in changes if c.kind != "create_index"]),
            SchemaRuleSpec("careful", "risk", lambda step: "CRITICAL" if step.table == "people" else None),
            SchemaRuleSpec("says", "lint", lambda plan: [f"{len(plan.steps)} steps on {dialect}"]),
        ]
    )
    db = people(plugins=[rules])
    more = {"name": str, "email": str, "age": (int, 3), "note": (str | None, None), "town": (str | None, None)}
    model(db, "Person", [{"name": "people_town", "fields": ["town"]}], **more)
    plan = engine(db).plan_sync()
    assert [planned.risk for planned in plan.steps] == ["CRITICAL"]
    assert f"1 steps on {people.dialect}" in plan.notes
    assert not migrate(db, auto_confirm=True, max_risk_level="HIGH")[0]


def test_a_step_that_fails_is_named_alone(opening):
    db = opening()
    model(db, "Person", name=str, age=(int, 3))
    for _ in range(2):
        db.express_sync.create("Person", {"name": "Ada"})
    later = opening()
    model(later, "Person", [{"name": "by_name", "fields": ["name"], "unique": True}], name=str, age=(str, "3"))
    with pytest.raises(MigrationError) as caught:
        migrate(later, auto_confirm=True, max_risk_level="HIGH")
    assert "by_name" in caught.value.step
    assert "age" not in str(caught.value)


def test_a_truth_becomes_a_number(opening):
    db = opening()
    model(db, "Person", name=str, tall=(bool, True), wide=(bool, False))
    db.express_sync.create("Person", {"name": "Ada"})
    later = opening()
    model(later, "Person", name=str, tall=(int, 7), wide=(float, 0.5))
    assert migrate(later, auto_confirm=True, max_risk_level="HIGH")[0]
    assert records(later) == [{"id": 1, "name": "Ada", "tall": 1, "wide": 0.0}]


def test_values_that_another_type_stores_alike_are_told_of(opening):
    db = opening()
    model(db, "Person", day=date, name=str)
    db.express_sync.create("Person", {"day": date(2020, 1, 2), "name": "Ada"})
    later = opening()
    model(later, "Person", day=datetime, name=str)
    plan = engine(later).plan_sync()
    if later.core.dialect.name == "sqlite":
        (note,) = plan.notes
        assert note.startswith("people.day: was date and is datetime, both stored as TEXT: the values that are there")
    else:
        assert plan.notes == ()
        assert plan.steps
    same = opening()
    model(same, "Person", day=str, name=str)
    assert engine(same).plan_sync().notes == ()
