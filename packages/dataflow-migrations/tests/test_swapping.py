"""Names that swap in one migration: tables and columns, on both databases, and whether that is done already."""

import asyncio
from typing import Annotated

import asyncpg
import pytest

from dataflow import DataFlow, Field, ForeignKey
from dataflow.dialect import Command
from dataflow.errors import InputError, SchemaError
from dataflow.migrations.execution import MigrationError


def was(kind, name):
    return Annotated[kind, Field(renamed_from=name)]


def model(db, called, indexes=(), options=(), /, table=None, **fields):
    members = {"__annotations__": fields, "__indexes__": list(indexes), "__dataflow__": dict(options)}
    return db.model(type(called, (), members | ({"__tablename__": table} if table else {})))


def engine(db):
    return db.core.schema_engine


def migrate(db, **options):
    done, steps = asyncio.run(db.auto_migrate(auto_confirm=True, max_risk_level="CRITICAL", **options))
    assert done
    return steps


def rows(db, name):
    hidden = {"created_at", "updated_at"}
    return [
        {key: value for key, value in row.items() if key not in hidden} for row in db.express_sync.list(name)["records"]
    ]


def inspected(db):
    return db.core.ask(engine(db).editor.inspect(), write=True)


# -- columns ----------------------------------------------------------------------------------------------------------
BY = [{"name": "notes_left", "fields": ["left"], "unique": True}, {"name": "notes_right", "fields": ["right"]}]


@pytest.fixture
def notes(opening):
    db = opening()
    model(db, "Note", BY, left=str, right=str, third=int)
    db.express_sync.create("Note", {"left": "l", "right": "r", "third": 3})
    return opening


def swapped(opening, third=int, **settings):
    db = opening(**settings)
    model(db, "Note", BY, left=was(str, "right"), right=was(str, "left"), third=third)
    return db


def test_columns_swap_their_names_and_keep_their_values(notes):
    db = swapped(notes)
    before = inspected(db)
    steps = migrate(db)
    assert any(step.step.summary.startswith("swap the names of columns notes.") for step in steps)
    assert rows(db, "Note") == [{"id": 1, "left": "r", "right": "l", "third": 3}]
    assert inspected(db).tables["notes"].indexes == before.tables["notes"].indexes
    assert migrate(db) == []
    again = swapped(notes)
    assert migrate(again) == []
    assert rows(again, "Note")[0]["left"] == "r"


def test_what_was_swapped_is_swapped_back(notes):
    db = swapped(notes)
    before = inspected(db)
    migrate(db)
    engine(db).undo_sync()
    assert inspected(db) == before
    later = swapped(notes)
    assert rows_raw(later) == [("l", "r")]
    assert len(migrate(later)) >= 1
    assert rows(later, "Note")[0]["left"] == "r"


def rows_raw(db):
    def program():
        return (yield Command('SELECT "left", "right" FROM notes'), ())

    return [tuple(row) for row in db.core.ask(program())]


def test_first_use_does_not_take_one_column_for_the_other(notes):
    db = swapped(notes)
    with pytest.raises(SchemaError, match="more than additions"):
        db.express_sync.list("Note")
    assert rows_raw(db) == [("l", "r")]


def test_three_columns_change_names_in_a_ring(opening):
    db = opening()
    model(db, "Note", [], a=int, b=int, c=int)
    db.express_sync.create("Note", {"a": 1, "b": 2, "c": 3})
    later = opening()
    model(later, "Note", [], a=was(int, "c"), b=was(int, "a"), c=was(int, "b"))
    migrate(later)
    assert rows(later, "Note") == [{"id": 1, "a": 3, "b": 1, "c": 2}]


def test_a_name_that_gets_free_is_taken_by_another(opening):
    db = opening()
    model(db, "Note", [], a=int, b=int)
    db.express_sync.create("Note", {"a": 1, "b": 2})
    later = opening()
    model(later, "Note", [], b=was(int, "a"), c=was(int, "b"))
    migrate(later)
    assert rows(later, "Note") == [{"id": 1, "b": 1, "c": 2}]
    again = opening()
    model(again, "Note", [], b=was(int, "a"), c=was(int, "b"))
    assert migrate(again) == []


def test_swapping_goes_with_other_changes_of_the_columns(notes):
    db = swapped(notes, third=str)
    migrate(db)
    assert rows(db, "Note") == [{"id": 1, "left": "r", "right": "l", "third": "3"}]
    assert migrate(db) == []


def test_without_a_registry_the_plan_asks_whether_it_is_done(opening):
    db = opening(enable_model_persistence=False)
    model(db, "Note", [], left=str, right=str)
    db.express_sync.create("Note", {"left": "l", "right": "r"})
    later = opening(enable_model_persistence=False)
    model(later, "Note", [], left=was(str, "right"), right=was(str, "left"))
    with pytest.raises(SchemaError, match="only you can answer") as caught:
        asyncio.run(later.auto_migrate(auto_confirm=True))
    assert "--rename notes.left=right" in str(caught.value)
    assert migrate(later, renames={"notes.left": None, "notes.right": None}) == []
    migrate(later, renames={"notes.left": "right", "notes.right": "left"})
    assert rows(later, "Note") == [{"id": 1, "left": "r", "right": "l"}]


def test_two_columns_cannot_have_been_the_same(notes):
    db = notes()
    model(db, "Note", [], one=was(str, "left"), other=was(str, "left"))
    with pytest.raises(InputError, match=r"notes\.one and notes\.other both say that they were 'left'"):
        asyncio.run(db.auto_migrate(dry_run=True))


# -- tables -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def two(opening):
    db = opening()
    model(db, "Car", [{"name": "cars_by", "fields": ["wheels"]}], table="cars", wheels=int)
    model(db, "Boat", [{"name": "boats_by", "fields": ["sails"], "unique": True}], table="boats", sails=int)
    model(db, "Part", table="parts", car_id=Annotated[int, ForeignKey("Car", on_delete="cascade")])
    for number in (1, 2):
        db.express_sync.create("Car", {"wheels": number})
        db.express_sync.create("Part", {"car_id": number})
    db.express_sync.create("Boat", {"sails": 7})
    return opening


def exchanged(opening, **settings):
    db = opening(**settings)
    model(db, "Car", [{"name": "cars_by", "fields": ["wheels"]}], {"renamed_from": "cars"}, table="boats", wheels=int)
    model(db, "Boat", [{"name": "boats_by", "fields": ["sails"], "unique": True}], {"renamed_from": "boats"},
          table="cars", sails=int)  # fmt: skip
    model(db, "Part", table="parts", car_id=Annotated[int, ForeignKey("Car", on_delete="cascade")])
    return db


def test_tables_swap_their_names_with_all_that_is_theirs(two):
    db = exchanged(two)
    migrate(db)
    assert [row["wheels"] for row in rows(db, "Car")] == [1, 2]
    assert [row["sails"] for row in rows(db, "Boat")] == [7]
    assert migrate(db) == []
    found = inspected(db).tables
    assert found["parts"].constraints[-1].target == "boats"
    assert db.express_sync.create("Car", {"wheels": 3})["id"] == 3
    assert db.express_sync.create("Boat", {"sails": 8})["id"] == 2
    db.express_sync.delete("Car", 1)
    assert len(rows(db, "Part")) == 1
    again = exchanged(two)
    assert migrate(again) == []
    assert [row["wheels"] for row in rows(again, "Car")] == [2, 3]


def test_tables_that_were_swapped_are_swapped_back(two):
    db = exchanged(two)
    before = inspected(db)
    migrate(db)
    engine(db).undo_sync()
    assert inspected(db) == before
    assert len(migrate(exchanged(two))) >= 1


def test_first_use_does_not_take_one_table_for_the_other(opening):
    db = opening()
    for name in ("One", "Two"):
        model(db, name, table=name.lower(), text=str)
        db.express_sync.create(name, {"text": name})
    for used in ("One", "Two"):
        later = opening()
        model(later, "One", [], {"renamed_from": "one"}, table="two", text=str)
        model(later, "Two", [], {"renamed_from": "two"}, table="one", text=str)
        with pytest.raises(SchemaError, match="more than additions"):
            later.express_sync.list(used)
    migrate(later)
    assert rows(later, "One")[0]["text"] == "One"
    assert rows(later, "Two")[0]["text"] == "Two"


def test_a_fresh_database_with_declarations_of_old_swaps_is_left_alone(opening):
    db = exchanged(opening)
    db.express_sync.create("Car", {"wheels": 1})
    assert {step.step.operation for step in migrate(db)} <= {"create_table", "create_table_with_fk", "create_index"}
    assert [row["wheels"] for row in rows(db, "Car")] == [1]
    db.express_sync.create("Boat", {"sails": 1})
    assert migrate(db) == []


# -- what others have made of it ---------------------------------------------------------------------------------------
def test_a_view_keeps_the_names_of_its_columns_when_those_it_reads_are_renamed(postgres_database):
    def run(sql):
        async def connected():
            connection = await asyncpg.connect(postgres_database)
            try:
                return [tuple(row) for row in await connection.fetch(sql)] if sql.startswith("SELECT") else (
                    await connection.execute(sql)
                )  # fmt: skip
            finally:
                await connection.close()

        return asyncio.run(connected())

    with DataFlow(postgres_database) as db:
        model(db, "Note", table="notes", text=str, size=int)
        db.express_sync.create("Note", {"text": "a", "size": 1})
    run("CREATE VIEW seen AS SELECT id, text, size FROM notes; GRANT SELECT (text) ON seen TO PUBLIC;"
        "CREATE MATERIALIZED VIEW sums AS SELECT text, sum(size) AS size FROM notes GROUP BY text;"
        "CREATE UNIQUE INDEX sums_text ON sums (text); COMMENT ON COLUMN seen.text IS 'said'")  # fmt: skip
    with DataFlow(postgres_database) as db:
        model(db, "Note", [], {"renamed_from": "notes"}, table="papers", title=was(str, "text"), size=str)
        before = inspected(db)
        sums = "SELECT text, size::text FROM sums"
        assert run("SELECT id, text, size::text FROM seen") == [(1, "a", "1")]
        with pytest.raises(MigrationError, match="function sum"):
            migrate(db)
        run("DROP MATERIALIZED VIEW sums; CREATE MATERIALIZED VIEW sums AS SELECT text, max(size) AS size FROM notes "
            "GROUP BY text; CREATE UNIQUE INDEX sums_text ON sums (text)")  # fmt: skip
        before = inspected(db)
        migrate(db)
        assert run("SELECT id, text, size::text FROM seen") == [(1, "a", "1")]
        assert run(sums) == [("a", "1")]
        assert run("SELECT attacl::text, col_description(attrelid, attnum) FROM pg_attribute "
                   "WHERE attrelid = 'seen'::regclass AND attname = 'text'") == [("{=r/postgres}", "said")]  # fmt: skip
        assert migrate(db) == []
        engine(db).undo_sync()
        assert inspected(db) == before
