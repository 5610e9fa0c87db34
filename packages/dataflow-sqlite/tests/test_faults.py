"""What SQLite and the operating system refuse, in the framework's words; nothing is half-written."""

import os
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing, contextmanager
from typing import Annotated

import pytest

from dataflow import DataFlow, ForeignKey
from dataflow.errors import (
    CheckError,
    DatabaseTimeout,
    DatabaseUnavailable,
    ForeignKeyError,
    IntegrityError,
    NotNullError,
    QueryError,
    UniqueError,
    WorkflowExecutionError,
)
from dataflow.runtime import AsyncLocalRuntime, LocalRuntime


def with_models(db):
    @db.model
    class Author:
        name: str
        email: str | None

        __indexes__ = [{"name": "uq_author", "fields": ["email", "name"], "unique": True}]  # noqa: RUF012

    @db.model
    class Book:
        author_id: Annotated[int, ForeignKey("Author")]
        pages: int = 1

    del Author, Book
    return db


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.db"


@pytest.fixture
def db(path):
    with with_models(DataFlow(f"sqlite:///{path}", sqlite_busy_timeout=0.05)) as instance:
        yield instance


def counts(path):
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [raw.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("authors", "books")]


# -- constraints ------------------------------------------------------------------------------------------------------
def test_a_broken_constraint_is_named_with_its_table_and_columns_and_without_the_values(db, path):
    x = db.express_sync
    author = x.create("Author", {"name": "Ada", "email": "ada@example.org"})["id"]
    cases = [
        (
            lambda: x.create("Author", {"name": "Ada", "email": "ada@example.org"}),
            UniqueError,
            "email, name",
            "authors",
        ),
        (lambda: x.create("Author", {"id": author, "name": "Eve", "email": "e"}), UniqueError, "id", "authors"),
        (lambda: x.create("Book", {"author_id": 99}), ForeignKeyError, "", ""),
        (lambda: x.bulk_create("Book", [{"author_id": author}, {"author_id": 99}]), ForeignKeyError, "", ""),
    ]
    for act, kind, columns, table in cases:
        with pytest.raises(kind) as caught:
            act()
        error = caught.value
        assert isinstance(error, IntegrityError)
        assert isinstance(error.__cause__, sqlite3.IntegrityError)
        assert error.where.get("columns", "") == columns
        assert error.where.get("table", "") == table
        assert error.hint
        for value in ("Ada", "ada@", "Eve", "99"):
            assert value not in str(error)
    assert counts(path) == [1, 0]


def test_checks_of_the_table_and_values_of_the_wrong_type_in_sql_of_the_users_own_are_named(db, path):
    x = db.express_sync
    author = x.create("Author", {"name": "Ada", "email": None})["id"]
    x.create("Book", {"author_id": author})
    for sql, kind, message in (
        ("UPDATE authors SET name = NULL", NotNullError, "name must have a value"),
        ("UPDATE books SET pages = 'secret'", CheckError, "pages holds INTEGER, and the value is TEXT"),
        ("UPDATE books SET pages = 1.5", CheckError, "nothing is rounded silently"),
        ("UPDATE books SET author_id = 99", ForeignKeyError, "refers to"),
        ("DELETE FROM authors", ForeignKeyError, r"refer.*(foreign key|still)"),
        ("SELECT * FROM nowhere", QueryError, "no such table: nowhere"),
        ("SELECT nope FROM books", QueryError, "no such column: nope"),
        ("SELECT (", QueryError, "incomplete input"),
    ):
        with pytest.raises(WorkflowExecutionError, match=message) as caught:
            LocalRuntime().execute(db.workflow().add_node("AsyncSQLDatabaseNode", "sql", {"query": sql}).build())
        assert isinstance(caught.value.__cause__, kind)
        assert "secret" not in str(caught.value)
    assert counts(path) == [1, 1]


# -- other processes --------------------------------------------------------------------------------------------------
@contextmanager
def locked(path):
    """Hold the write lock, as another process would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def test_a_write_lock_held_by_another_process_is_a_timeout_that_says_so_and_reading_goes_on(db, path):
    db.express_sync.create("Author", {"name": "Ada", "email": None})
    with locked(path):
        for act in (
            lambda: db.express_sync.create("Author", {"name": "Eve", "email": None}),
            lambda: db.express_sync.bulk_create("Author", [{"name": "Eve", "email": None}] * 10),
            lambda: db.express_sync.delete("Author", 1),
        ):
            with pytest.raises(DatabaseTimeout, match="another process holds the database's write lock") as caught:
                act()
            assert "sqlite_busy_timeout" in caught.value.hint
            assert caught.value.where["file"] == str(path)
        assert db.express_sync.count("Author") == {"count": 1}
    assert db.express_sync.create("Author", {"name": "Eve", "email": None})["id"] == 2


async def test_a_scope_that_cannot_begin_because_of_another_process_fails_at_its_own_node(db, path):
    await db.initialize()
    workflow = (
        db.workflow()
        .add_node("TransactionScopeNode", "tx")
        .add_node("AuthorCreateNode", "a", {"name": "Ada", "email": None})
        .build()
    )
    with locked(path):
        with pytest.raises(WorkflowExecutionError, match="another process holds") as caught:
            await AsyncLocalRuntime().execute_async(workflow)
        assert caught.value.node_id == "tx"
        with pytest.raises(WorkflowExecutionError, match="another process holds"):
            LocalRuntime().execute(workflow)
    await AsyncLocalRuntime().execute_async(workflow)
    assert counts(path) == [1, 0]


def test_a_process_that_starts_while_another_writes_can_read_at_once(db, path):
    db.express_sync.create("Author", {"name": "Ada", "email": None})
    with locked(path), with_models(DataFlow(f"sqlite:///{path}", sqlite_busy_timeout=0.05)) as late:
        assert late.express_sync.count("Author") == {"count": 1}


# -- the file ---------------------------------------------------------------------------------------------------------
def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with with_models(DataFlow(f"sqlite:///{tmp_path}/no/where/app.db")) as db:
        with pytest.raises(DatabaseUnavailable, match=r"the folder '.*/no/where' of the database file does not exist"):
            db.express_sync.count("Author")
        (tmp_path / "no" / "where").mkdir(parents=True)
        assert db.express_sync.count("Author") == {"count": 0}  # the next call finds what was missing


def test_a_file_that_is_no_database_is_left_as_it_was(path):
    content = b"not a database, but longer than the header of one: " + b"x" * 4096
    path.write_bytes(content)
    with with_models(DataFlow(f"sqlite:///{path}")) as db:
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable, match="not a SQLite database"):
                db.express_sync.create("Author", {"name": "Ada", "email": None})
    assert path.read_bytes() == content
    assert sorted(file.name for file in path.parent.iterdir()) == ["app.db"]


def test_a_folder_in_place_of_the_file_cannot_be_opened(path):
    path.mkdir()
    with with_models(DataFlow(f"sqlite:///{path}")) as db, pytest.raises(DatabaseUnavailable, match="cannot be opened"):
        db.express_sync.count("Author")


def test_a_damaged_file_is_reported_as_damaged(path):
    with with_models(DataFlow(f"sqlite:///{path}")) as db:
        rows = [{"name": f"name {n}" * 20, "email": None} for n in range(2000)]
        db.express_sync.bulk_create("Author", rows)
    content = bytearray(path.read_bytes())
    content[4096 * 4 : 4096 * 40] = b"\xff" * (4096 * 36)
    path.write_bytes(content)
    with with_models(DataFlow(f"sqlite:///{path}")) as db:
        with pytest.raises(DatabaseUnavailable, match="the database file is damaged") as caught:
            db.express_sync.list("Author")
        assert caught.value.where["file"] == str(path)


def test_a_full_disk_is_reported_as_such_and_the_whole_node_is_undone(db, path):
    db.express_sync.create("Author", {"name": "Ada", "email": None})
    raw = db.core.database.writer.raw
    most = raw.execute("PRAGMA page_count").fetchone()[0] + 5
    raw.execute(f"PRAGMA max_page_count = {most}")
    rows = [{"name": "x" * 1000, "email": str(n)} for n in range(500)]
    for act in (
        lambda: db.express_sync.bulk_create("Author", rows, batch_size=10),
        lambda: db.express_sync.bulk_create("Author", rows, batch_size=10, on_error="collect"),
        lambda: db.express_sync.bulk_upsert("Author", rows, ["email", "name"], batch_size=10),
        lambda: db.express_sync.create("Author", {"name": "x" * 100_000, "email": None}),
    ):
        with pytest.raises(DatabaseUnavailable, match="the disk is full; the transaction was rolled back"):
            act()
        assert db.express_sync.count("Author") == {"count": 1}
    raw.execute("PRAGMA max_page_count = 1000000")
    assert db.express_sync.bulk_create("Author", rows)["created"] == 500
    assert counts(path) == [501, 0]


@pytest.mark.parametrize("rollback", [True, False])
async def test_a_full_disk_inside_a_scope_undoes_what_the_scope_would_undo_and_is_what_the_error_says(
    db, path, rollback
):
    await db.initialize()
    raw = db.core.database.writer.raw
    raw.execute(f"PRAGMA max_page_count = {raw.execute('PRAGMA page_count').fetchone()[0] + 5}")
    workflow = (
        db.workflow()
        .add_node("TransactionScopeNode", "tx", {"rollback_on_error": rollback})
        .add_node("AuthorCreateNode", "first", {"name": "Ada", "email": None})
        .add_node("AuthorBulkCreateNode", "many", {"data": [{"name": "x" * 1000, "email": None}] * 500})
        .add_node("AuthorCreateNode", "last", {"name": "Eve", "email": None})
        .build()
    )
    for kept, execute in enumerate((AsyncLocalRuntime().execute_async, LocalRuntime().execute), 1):
        with pytest.raises(WorkflowExecutionError, match="node 'many' failed: the disk is full") as caught:
            await execute(workflow) if kept == 1 else execute(workflow)
        assert caught.value.node_id == "many"
        assert counts(path) == [0 if rollback else kept, 0]
    raw.execute("PRAGMA max_page_count = 1000000")
    await AsyncLocalRuntime().execute_async(workflow)
    assert counts(path) == [502 if rollback else 504, 0]


UNPRIVILEGED = """
    import os
    from dataflow import DataFlow

    def attempt(act):
        try:
            return str(act())
        except Exception as error:
            return f"{{type(error).__name__}} {{error}}".splitlines()[0]

    for url in (":memory:", {url!r}):  # the first loads every module, while modules may be read
        db = DataFlow(url)

        @db.model
        class Author:
            name: str
            email: str | None

        found = attempt(lambda: db.express_sync.count("Author"))
        made = attempt(lambda: db.express_sync.create("Author", {{"name": "Eve", "email": None}})["id"])
        if url == ":memory:" and os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
    print(found, made, sep="\\n")
"""


@pytest.mark.parametrize(
    ("folder", "file", "expected"),
    [
        (0o777, 0o444, ["{'count': 1}", "DatabaseUnavailable the database is read-only"]),
        (0o755, 0o444, ["DatabaseUnavailable the database is read-only"] * 2),  # WAL needs files beside it
        (0o777, 0o000, ["DatabaseUnavailable the database file cannot be opened"] * 2),
        (0o777, 0o666, ["{'count': 1}", "2"]),
    ],
    ids=["read-only", "read-only folder", "no access", "writable"],
)
def test_permissions_of_the_file_are_reported_by_what_they_forbid(tmp_path_factory, folder, file, expected):
    home = tmp_path_factory.mktemp("shared")
    for parent in (home, *home.parents):
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o001:
            parent.chmod(0o755)
    path = home / "app.db"
    with with_models(DataFlow(f"sqlite:///{path}")) as db:
        db.express_sync.create("Author", {"name": "Ada", "email": None})
    path.chmod(file)
    home.chmod(folder)
    try:
        script = textwrap.dedent(UNPRIVILEGED.format(url=f"sqlite:///{path}"))
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
        assert done.stdout.splitlines() == expected, done.stderr
    finally:
        home.chmod(0o755)
        path.chmod(0o644)
