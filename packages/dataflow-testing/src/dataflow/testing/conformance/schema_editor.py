"""Schema editors: what a catalog tells, schemas that are built aside, and steps that lead from one to another."""

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event
from typing import Any, ClassVar

import attrs
import pytest

from dataflow import DataFlow
from dataflow.catalog import Catalog
from dataflow.changes import Change
from dataflow.dialect import COUNT, Command, Program
from dataflow.errors import DatabaseError, DatabaseTimeout, DataFlowError
from dataflow.testing.conformance.bench import Bench
from dataflow.testing.conformance.editing import (
    BOOKS,
    PREFIX,
    ROWS,
    SHELVES,
    TOMES,
    WRITERS,
    Case,
    Draft,
    Edit,
    Editing,
    edited,
)
from dataflow.testing.conformance.suite import Suite, requires


class _Edited(Suite):
    """A suite about an editor: every test begins with no table of the small schema."""

    conformance_area: ClassVar[str] = "schema editor"

    @pytest.fixture
    def editing(self, bench: Bench) -> Iterator[Editing]:
        """The editor, with nothing there yet."""
        found = Editing(bench)
        found.clear()
        yield found
        found.clear()


def without(table: str, *keys: str) -> Edit:
    """Return the edit that takes something out of a table."""

    def edit(draft: Draft) -> None:
        for key in keys:
            draft.tables[table].pop(key, None)

    return edit


def with_column(table: str, name: str, kind: str = "text", **options: Any) -> Edit:
    """Return the edit that adds a column to a table, or replaces it."""

    def edit(draft: Draft) -> None:
        draft.tables[table][name] = draft.column(name, getattr(draft, kind), **options)

    return edit


def both(*edits: Edit) -> Edit:
    """Return the edit that makes several."""

    def edit(draft: Draft) -> None:
        for each in edits:
            each(draft)

    return edit


def shelves(draft: Draft) -> None:
    """Add a table with all that a table may have."""
    draft.tables[SHELVES] = {
        "id": draft.column("id", draft.integer, nullable=False),
        "label": draft.column("label", draft.text, nullable=False, server_default="it's"),
        "width": draft.column("width", draft.integer),
        "key": draft.key("pk_edited_shelves"),
        "uq": draft.unique("uq_edited_shelves", "label", "width"),
        "ck": draft.check("ck_edited_shelves", "width >= 0"),
        "ix": draft.index("ix_edited_shelves", "width DESC"),
    }


def no_books(draft: Draft) -> None:
    """Leave a table out."""
    del draft.tables[BOOKS]


def tomes(draft: Draft) -> None:
    """Call a table otherwise."""
    draft.tables[TOMES] = draft.tables.pop(BOOKS)


def length(draft: Draft) -> None:
    """Call a column otherwise, that a check and indexes mention."""
    books = draft.tables[BOOKS]
    draft.tables[BOOKS] = {("length" if key == "pages" else key): item for key, item in books.items()}
    books = draft.tables[BOOKS]
    books["length"] = draft.column("length", draft.integer)
    books["ck"] = draft.check("ck_edited_books_pages", "length > 0")
    books["ix"] = draft.index("ix_edited_books_title", "title DESC", "length")
    if "part" in books:
        books["part"] = draft.index("ix_edited_books_long", "length", where="length > 500")


def renamed_check(draft: Draft) -> None:
    """Call a check otherwise."""
    draft.tables[BOOKS]["ck"] = draft.check("ck_edited_books_length", "pages > 0")


def titles(draft: Draft) -> None:
    """Add a unique constraint."""
    draft.tables[BOOKS]["uq"] = draft.unique("uq_edited_books_title", "title")


TITLES, PAGES, NONE = ("One", "Two", "Three"), (10, 600, None), (None, None, None)


def note_index(name: str, *, unique: bool = False) -> Edit:
    """Return the edit that adds an index."""

    def edit(draft: Draft) -> None:
        draft.tables[BOOKS]["more"] = draft.index(name, "note", unique=unique)

    return edit


def nothing(draft: Draft) -> None:
    """Leave the schema as it is."""


CASES = {
    "create a table": Case(
        shelves, (("create_table", SHELVES, SHELVES), ("create_index", SHELVES, "ix_edited_shelves"))
    ),
    "drop a table": Case(no_books, (("drop_table", BOOKS, BOOKS),), loses="certain"),
    "rename a table": Case(
        tomes, (("rename_table", TOMES, TOMES, BOOKS),), rows={TOMES: {"title": TITLES, "pages": PAGES}}
    ),
    "add a column": Case(with_column(BOOKS, "isbn"), (("add_column", BOOKS, "isbn"),), rows={BOOKS: {"isbn": NONE}}),
    "add a column with a default": Case(
        with_column(BOOKS, "state", server_default="it's new"),
        (("add_column", BOOKS, "state"),),
        rows={BOOKS: {"state": ("it's new",) * 3}},
    ),
    "add a column that may not be null": Case(
        with_column(BOOKS, "state", nullable=False, server_default="new"),
        (("add_column", BOOKS, "state"),),
        rows={BOOKS: {"state": ("new",) * 3}},
    ),
    "add a column and fill it": Case(
        with_column(BOOKS, "stock", "integer", nullable=False),
        (("add_column", BOOKS, "stock"),),
        value="id * 2",
        rows={BOOKS: {"stock": (2, 4, 6)}},
    ),
    "drop a column": Case(without(BOOKS, "note"), (("drop_column", BOOKS, "note"),), loses="certain"),
    "rename a column": Case(
        length, (("rename_column", BOOKS, "length", "pages"),), rows={BOOKS: {"length": PAGES, "title": TITLES}}
    ),
    "set a default": Case(with_column(BOOKS, "note", server_default="none yet"), (("alter_column", BOOKS, "note"),)),
    "drop a default": Case(with_column(BOOKS, "title", nullable=False), (("alter_column", BOOKS, "title"),)),
    "allow null": Case(with_column(BOOKS, "title", server_default="untitled"), (("alter_column", BOOKS, "title"),)),
    "forbid null": Case(
        with_column(BOOKS, "note", nullable=False),
        (("alter_column", BOOKS, "note"),),
        value="'-'",
        loses="",
        rows={BOOKS: {"note": ("x", "-", "")}},
    ),
    "change a type": Case(
        with_column(WRITERS, "age"),
        (("alter_column", WRITERS, "age"),),
        loses="",
        rows={WRITERS: {"age": ("41", None)}},
    ),
    "add a check": Case(None, (("add_constraint", BOOKS, "ck_edited_books_pages"),), before=without(BOOKS, "ck")),
    "drop a check": Case(without(BOOKS, "ck"), (("drop_constraint", BOOKS, "ck_edited_books_pages"),)),
    "rename a check": Case(
        renamed_check,
        (("rename_constraint", BOOKS, "ck_edited_books_length", "ck_edited_books_pages"),),
    ),
    "add a unique key": Case(titles, (("add_constraint", BOOKS, "uq_edited_books_title"),)),
    "drop a unique key": Case(None, (("drop_constraint", BOOKS, "uq_edited_books_title"),), before=titles),
    "add a primary key": Case(None, (("add_constraint", BOOKS, "pk_edited_books"),), before=without(BOOKS, "key")),
    "create an index": Case(None, (("create_index", BOOKS, "ix_edited_books_title"),), before=without(BOOKS, "ix")),
    "create a unique index": Case(
        note_index("ix_edited_books_note", unique=True), (("create_index", BOOKS, "ix_edited_books_note"),)
    ),
    "drop an index": Case(without(BOOKS, "ix"), (("drop_index", BOOKS, "ix_edited_books_title"),)),
    "rename an index": Case(
        note_index("ix_edited_books_n"),
        (("rename_index", BOOKS, "ix_edited_books_n", "ix_edited_books_note"),),
        before=note_index("ix_edited_books_note"),
    ),
    "several at once": Case(
        both(length, shelves, titles, without(BOOKS, "note"), with_column(BOOKS, "isbn", server_default="-")),
        (
            ("rename_column", BOOKS, "length", "pages"),
            ("drop_column", BOOKS, "note"),
            ("create_table", SHELVES, SHELVES),
            ("add_column", BOOKS, "isbn"),
            ("add_constraint", BOOKS, "uq_edited_books_title"),
            ("create_index", SHELVES, "ix_edited_shelves"),
        ),
        loses="certain",
        rows={BOOKS: {"length": PAGES, "isbn": ("-",) * 3}},
    ),
    "add a foreign key": Case(
        None, (("add_constraint", BOOKS, "fk_edited_books_writer"),), before=without(BOOKS, "fk")
    ),
    "drop a foreign key": Case(without(BOOKS, "fk"), (("drop_constraint", BOOKS, "fk_edited_books_writer"),)),
    "create a partial index": Case(
        None, (("create_index", BOOKS, "ix_edited_books_long"),), before=without(BOOKS, "part")
    ),
    "drop a partial index": Case(without(BOOKS, "part"), (("drop_index", BOOKS, "ix_edited_books_long"),)),
}
NEEDS = {"foreign key": "foreign_keys", "partial index": "partial_indexes"}
"""Words in the names of cases, and the capabilities they need besides."""


def cases() -> list[Any]:
    """Return the cases as parameters, each with what it needs."""
    found = []
    for name, case in CASES.items():
        needed = next((capability for words, capability in NEEDS.items() if words in name), None)
        found.append(pytest.param(case, id=name, marks=() if needed is None else requires(needed)))
    return found


@requires("schema_editor")
class TestCatalogs(_Edited):
    """What an editor tells of a schema (`SchemaEditor.inspect`, `SchemaEditor.desired`)."""

    def test_tables_and_their_columns_are_told_in_order(self, editing: Editing) -> None:
        editing.build(shelves)
        found = editing.inspect()
        assert set(found.tables) == {WRITERS, BOOKS, SHELVES}
        books = found.tables[BOOKS]
        assert list(books.columns) == ["id", "writer_id", "title", "pages", "note"]
        assert [name for name, column in books.columns.items() if not column.nullable] == ["id", "title"]
        assert all(column.name == name and column.type for name, column in books.columns.items())
        types = {name: column.type for name, column in books.columns.items()}
        assert types["id"] == types["writer_id"] == types["pages"] != types["title"] == types["note"]

    def test_defaults_are_told_as_expressions(self, editing: Editing) -> None:
        editing.build(shelves)
        books, shelf = editing.table(BOOKS), editing.table(SHELVES)
        assert "untitled" in str(books.columns["title"].default)
        assert "it''s" in str(shelf.columns["label"].default)
        assert [name for name, column in books.columns.items() if column.default] == ["title"]

    def test_keys_and_checks_are_told_with_name_and_columns(self, editing: Editing) -> None:
        editing.build(shelves)
        shelf = editing.table(SHELVES)
        told = {found.kind: found for found in shelf.constraints}
        assert shelf.primary_key == ("id",)
        assert (told["unique"].name, told["unique"].columns) == ("uq_edited_shelves", ("label", "width"))
        assert told["check"].name == "ck_edited_shelves"
        assert ">=" in told["check"].definition
        assert "width" in told["check"].definition
        assert told["primary key"].name == "pk_edited_shelves"

    @requires("foreign_keys", "foreign_key_actions")
    def test_foreign_keys_are_told_with_what_they_refer_to_and_do(self, editing: Editing) -> None:
        editing.build()
        (key,) = (found for found in editing.table(BOOKS).constraints if found.kind == "foreign key")
        assert (key.name, key.columns, key.target, key.remote) == (
            "fk_edited_books_writer", ("writer_id",), WRITERS, ("id",),
        )  # fmt: skip
        assert (key.on_delete, key.on_update) == ("CASCADE", "NO ACTION")

    def test_indexes_are_told_with_order_and_uniqueness(self, editing: Editing) -> None:
        editing.build(note_index("ix_edited_books_note", unique=True))
        indexes = editing.table(BOOKS).indexes
        title, note = indexes["ix_edited_books_title"], indexes["ix_edited_books_note"]
        assert title.columns == ("title", "pages")
        assert [key.descending for key in title.keys] == [True, False]
        assert [title.unique, note.unique] == [False, True]
        assert title.where is None
        assert not {"pk_edited_books", "uq_edited_writers_code"} & set(indexes), "indexes of constraints are theirs"

    @requires("partial_indexes")
    def test_the_predicate_of_a_partial_index_is_told(self, editing: Editing) -> None:
        editing.build()
        index = editing.table(BOOKS).indexes["ix_edited_books_long"]
        assert index.columns == ("pages",)
        assert "500" in str(index.where)

    def test_whether_a_table_has_rows_is_told_and_counts_for_nothing(self, editing: Editing) -> None:
        editing.build(rows=False)
        empty = editing.inspect()
        assert empty.tables[BOOKS].empty
        editing.clear()
        editing.build()
        filled = editing.inspect()
        assert not filled.tables[BOOKS].empty
        assert empty == filled
        assert empty.fingerprint == filled.fingerprint

    def test_what_the_framework_keeps_is_left_out(self, editing: Editing) -> None:
        editing.send("CREATE TABLE dataflow_edited (id INTEGER PRIMARY KEY)")
        try:
            found = editing.run(editing.editor.inspect())
        finally:
            editing.send("DROP TABLE dataflow_edited")
        assert not [name for name in found.tables if name.startswith("dataflow_")]

    @pytest.mark.parametrize("edit", [nothing, shelves, length, titles, no_books], ids=lambda edit: edit.__name__)
    def test_a_schema_that_is_built_aside_is_told_as_if_it_were_there(self, editing: Editing, edit: Edit) -> None:
        wanted = editing.desired(edit)
        assert editing.inspect().tables == {}
        editing.build(edit, rows=False)
        assert editing.inspect() == wanted
        assert editing.desired(edit) == wanted
        assert editing.inspect().fingerprint == wanted.fingerprint

    def test_every_difference_is_seen(self, editing: Editing) -> None:
        edits = {name: edited for name, edited in EDITS.items() if edited is not None}
        seen = {name: editing.desired(edit).fingerprint for name, edit in edits.items()}
        seen["nothing"] = editing.desired().fingerprint
        assert len(set(seen.values())) == len(seen), seen

    def test_a_build_that_fails_says_why_and_leaves_nothing(self, editing: Editing) -> None:
        editing.build()
        before = editing.inspect()

        def build() -> Program[None]:
            yield from edited(editing.dialect, shelves).build()
            yield Command("CREATE TABLE edited_shelves (id INTEGER)", COUNT, writes=True), ()

        with pytest.raises(DatabaseError):
            editing.run(editing.editor.desired(build()))
        assert editing.inspect() == before
        assert editing.rows(BOOKS, "title") == [(title,) for title in TITLES]


EDITS = {
    name: CASES[name].after
    for name in (
        "create a table", "drop a table", "rename a table", "add a column", "add a column with a default",
        "drop a column", "rename a column", "set a default", "drop a default", "allow null", "forbid null",
        "change a type", "drop a check", "add a unique key", "create a unique index", "drop an index",
    )
}  # fmt: skip


@requires("schema_editor")
class TestChanges(_Edited):
    """Steps lead from one schema to another (`SchemaEditor.steps`, `locked`, `attempt`, `perform`, `batch`)."""

    @pytest.mark.parametrize("case", cases())
    def test_steps_lead_to_what_a_fresh_build_is_and_keep_rows(self, editing: Editing, case: Case) -> None:
        editing.build(case.before)
        before, wanted = editing.inspect(), editing.desired(case.after)
        assert before != wanted
        steps = editing.steps(wanted, case.changes, case.value, found=before)
        editing.follow(steps)
        assert editing.inspect() == wanted
        self.check_rows(editing, case, wanted)
        self.check_announcements(case, steps)
        if any(step.inverse is None for step in steps):
            assert any(step.data_loss != "none" for step in steps), "what loses nothing can be undone"
            return
        editing.back(steps)
        assert editing.inspect() == before

    @staticmethod
    def check_rows(editing: Editing, case: Case, catalog: Catalog) -> None:
        """Compare what tables hold with what they held, and with what the case says."""
        for name, table in catalog.tables.items():
            records = ROWS.get(name, ())
            held = {column: [record[column] for record in records] for column in (records[0] if records else ())}
            expected = {**held, **case.rows.get(name, {})}
            columns = [column for column in table.columns if column in expected]
            if columns:
                wanted = list(zip(*(expected[column] for column in columns), strict=True))
                assert editing.rows(name, *columns) == wanted, name

    @staticmethod
    def check_announcements(case: Case, steps: Any) -> None:
        """Look at what steps say of themselves."""
        assert steps
        for step in steps:
            assert step.operation
            assert step.summary
            assert step.table == "" or step.table.startswith(PREFIX)
            assert step.mode in ("together", "apart", "outside", "batches")
            assert step.sql or step.mode in ("outside", "batches")
            assert json.loads(json.dumps(attrs.asdict(step)))["operation"] == step.operation
        losses = {step.data_loss for step in steps}
        worst = next(level for level in ("certain", "possible", "none") if level in losses)
        assert worst == case.loses if case.loses else worst in ("none", "possible")

    def test_steps_are_written_without_a_database_and_the_same_each_time(self, editing: Editing) -> None:
        editing.build()
        found, wanted = editing.inspect(), editing.desired(length)
        changes = [Change("rename_column", BOOKS, "length", "pages", "length")]
        editing.clear()
        assert editing.editor.steps(found, wanted, changes) == editing.editor.steps(found, wanted, changes)
        assert editing.editor.steps(found, found, []) == []

    def test_steps_that_alter_a_table_say_what_they_lock(self, editing: Editing) -> None:
        editing.build()
        for case in (CASES["drop a column"], CASES["change a type"], CASES["drop a table"]):
            steps = editing.steps(editing.desired(case.after), case.changes)
            assert {table for step in steps for table, lock in step.locks.items() if lock} >= {case.changes[0][1]}

    def test_a_step_that_rows_may_refuse_says_so_and_one_that_they_refuse_leaves_all_as_it_was(
        self, editing: Editing
    ) -> None:
        editing.build()
        insert = f"INSERT INTO {BOOKS} (id, title, pages) VALUES (4, 'One', 7)"
        editing.send(insert)
        before = editing.inspect()
        steps = editing.steps(editing.desired(titles), CASES["add a unique key"].changes)
        assert any(step.fails_on_data != "no" for step in steps)
        with pytest.raises(DataFlowError):
            editing.follow(steps)
        assert editing.inspect() == before
        assert [title for (title,) in editing.rows(BOOKS, "title")] == [*TITLES, "One"]
        editing.send(f"DELETE FROM {BOOKS} WHERE id = 4")
        editing.follow(steps)
        assert editing.inspect() == editing.desired(titles)

    def test_null_where_it_gets_forbidden_is_refused_and_leaves_all_as_it_was(self, editing: Editing) -> None:
        editing.build()
        before = editing.inspect()
        case = CASES["forbid null"]
        steps = editing.steps(editing.desired(case.after), case.changes)
        assert any(step.fails_on_data != "no" for step in steps)
        with pytest.raises(DataFlowError):
            editing.follow(steps)
        assert editing.inspect() == before
        assert [note for (note,) in editing.rows(BOOKS, "note")] == ["x", None, ""]

    @requires("transactional_ddl")
    def test_an_attempt_that_fails_is_undone_with_the_steps_before_it(self, editing: Editing) -> None:
        editing.build()
        before = editing.inspect()
        steps = editing.steps(editing.desired(shelves), CASES["create a table"].changes)

        def body() -> Program[None]:
            for step in steps:
                yield from editing.made(step.sql)
            yield Command(f"DELETE FROM {BOOKS}", COUNT, writes=True), ()
            raise ZeroDivisionError

        attempt = editing.editor.attempt(body(), lock_timeout=5, statement_timeout=0, transaction=True)
        with pytest.raises(ZeroDivisionError):
            editing.run(editing.editor.locked(attempt, timeout=10))
        assert editing.inspect() == before
        assert len(editing.rows(BOOKS, "id")) == 3
        editing.follow(steps)
        assert SHELVES in editing.inspect().tables

    @requires("savepoints")
    def test_after_an_attempt_that_failed_another_may_succeed(self, editing: Editing) -> None:
        editing.build()

        def attempt(key: int, *, fails: bool) -> Program[None]:
            yield from editing.made([f"INSERT INTO {BOOKS} (id, title) VALUES ({key}, 'more')"])
            if fails:
                raise ZeroDivisionError

        def body() -> Program[None]:
            for key, fails in ((4, True), (5, False), (6, True), (7, False)):
                with suppress(ZeroDivisionError):
                    yield from editing.editor.attempt(
                        attempt(key, fails=fails), lock_timeout=5, statement_timeout=0, transaction=True
                    )
                yield from editing.editor.pause(0.01)

        editing.run(editing.editor.locked(body(), timeout=10))
        assert [key for (key,) in editing.rows(BOOKS, "id")] == [1, 2, 3, 5, 7]

    def test_what_is_locked_ends_with_its_body_and_whole_ones_undo_it(self, editing: Editing) -> None:
        editing.build()
        insert = f"INSERT INTO {BOOKS} (id, title) VALUES (4, 'Four')"

        def body() -> Program[None]:
            attempt = editing.editor.attempt(
                editing.made([insert]), lock_timeout=5, statement_timeout=0, transaction=True
            )
            yield from attempt
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            editing.run(editing.editor.locked(body(), timeout=10))
        assert len(editing.rows(BOOKS, "id")) == (3 if editing.editor.whole else 4)
        assert editing.run(editing.editor.locked(done(), timeout=1)) == "done"

    @requires("shared_database")
    def test_one_migrates_at_a_time_and_others_wait_no_longer_than_they_want(
        self, editing: Editing, database_url: str
    ) -> None:
        editing.inspect()
        holds, ends = Event(), Event()

        async def hold() -> None:
            async with DataFlow(database_url) as other:

                def body() -> Program[None]:
                    yield from done()
                    holds.set()
                    ends.wait(10)

                locked = editing.editor.locked(body(), timeout=10)
                await other.core.run(locked, other.core.own_call(), write=True, holder="conformance")

        with ThreadPoolExecutor(1) as threads:
            held = threads.submit(asyncio.run, hold())
            try:
                assert holds.wait(10)
                with pytest.raises(DatabaseTimeout):
                    editing.run(editing.editor.locked(done(), timeout=0.3))
            finally:
                ends.set()
            held.result(10)
        assert editing.run(editing.editor.locked(done(), timeout=10)) == "done"

    def test_a_script_holds_the_statements_of_steps(self, editing: Editing) -> None:
        editing.build()
        case = CASES["several at once"]
        steps = editing.steps(editing.desired(case.after), case.changes)
        script = editing.editor.script(steps)
        for step in steps:
            if step.mode == "together":
                assert all(sql.strip() in script for sql in step.sql), step.summary

    def test_a_backup_says_where_it_is_and_changes_nothing(self, editing: Editing) -> None:
        editing.build()
        before = editing.inspect()
        where = editing.run(editing.editor.locked(editing.editor.backup([BOOKS]), timeout=10))
        assert isinstance(where, str)
        assert where.strip()
        assert editing.inspect() == before
        assert len(editing.rows(BOOKS, "id")) == 3

    @requires("any_identifier")
    def test_names_may_be_any_identifier(self, editing: Editing) -> None:
        table, old, new = 'edited_ order"s ä', 'the "old" one', "select; --"

        def odd(column: str) -> Edit:
            def edit(draft: Draft) -> None:
                draft.tables = {table: {
                    "id": draft.column("id", draft.integer, nullable=False),
                    "odd": draft.column(column, draft.text, server_default="x"),
                    "key": draft.key("pk of 'it'"),
                    "ix": draft.index('ix "of it"', column),
                }}  # fmt: skip

            return edit

        editing.build(odd(old), rows=False)
        before, wanted = editing.inspect(), editing.desired(odd(new))
        steps = editing.steps(wanted, [("rename_column", table, new, old)])
        editing.follow(steps)
        assert editing.inspect() == wanted
        editing.back(steps)
        assert editing.inspect() == before


def done() -> Program[str]:
    """Do nothing."""
    yield from ()
    return "done"
