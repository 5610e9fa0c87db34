"""What surrounds a migration of a SQLite database: the lock, settings of the connection, checks."""

import asyncio
import sqlite3
import threading

import pytest

from dataflow.dialect import COUNT, ROWS, Command
from dataflow.errors import DatabaseTimeout, ForeignKeyError, QueryError, UsageError
from dataflow.schema import create_missing
from dataflow.session import atomic

PARENT = "CREATE TABLE parent (id INTEGER PRIMARY KEY, name TEXT)"
CHILD = "CREATE TABLE child (id INTEGER PRIMARY KEY, parent_id INTEGER REFERENCES parent (id))"
SETTINGS = (
    "SELECT foreign_keys, legacy_alter_table, timeout "
    "FROM pragma_foreign_keys, pragma_legacy_alter_table, pragma_busy_timeout"
)
USUAL = [(1, 0, 30000)]


def run(*statements, then=None):
    for sql in statements:
        yield Command(sql, COUNT, writes=True), ()
    if then is not None:
        raise then


def settings(migration):
    def look():
        return (yield Command(SETTINGS, ROWS), ())

    return migration.ask(look())


def locked(migration, *statements, then=None, timeout=5):
    migration.ask(migration.editor.locked(run(*statements, then=then), timeout=timeout))


def test_a_migration_happens_wholly_or_not_at_all(migration):
    with pytest.raises(QueryError):
        locked(migration, PARENT, CHILD, "CREATE TABLE parent (x)")
    assert migration.sql("SELECT name FROM sqlite_master") == []
    assert settings(migration) == USUAL
    locked(migration, PARENT, CHILD)
    assert migration.sql("SELECT name FROM sqlite_master") == [("parent",), ("child",)]
    assert settings(migration) == USUAL


def test_settings_are_as_usual_after_a_failure_in_the_middle_of_a_rebuild(migration):
    with pytest.raises(ZeroDivisionError):
        locked(migration, "PRAGMA legacy_alter_table = ON", then=ZeroDivisionError())
    assert settings(migration) == USUAL


def test_a_cancelled_migration_leaves_nothing_behind(migration):
    migration.sql(PARENT, "INSERT INTO parent VALUES (1, 'a')")
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    body = run("PRAGMA legacy_alter_table = ON", "DROP TABLE parent", endless)

    async def cancelled():
        core = migration.db.core
        call = core.own_call()
        async with asyncio.timeout(0.3):
            await core.run(migration.editor.locked(body, timeout=5), call, write=True, holder="migration")

    with pytest.raises(TimeoutError):
        asyncio.run(cancelled())
    assert settings(migration) == USUAL
    assert migration.sql("SELECT * FROM parent") == [(1, "a")]


def test_no_migration_starts_inside_an_open_transaction(migration):
    core = migration.db.core
    call = core.own_call()

    def program():
        return (yield from atomic(call, migration.editor.locked(run(PARENT), timeout=1)))

    with pytest.raises(UsageError) as caught:
        core.run_sync(program(), call, write=True, holder="test")
    assert caught.value.code == "open-transaction"
    assert settings(migration) == USUAL


def test_another_process_that_writes_is_waited_for_and_named_when_it_does_not_end(migration):
    migration.sql(PARENT)
    other = sqlite3.connect(migration.path, isolation_level=None, check_same_thread=False)
    migration.inspect()  # the file is in WAL mode from now on
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseTimeout) as caught:
        locked(migration, CHILD, timeout=0.3)
    assert caught.value.code == "migration-lock"
    assert settings(migration) == USUAL
    threading.Timer(0.3, lambda: other.execute("COMMIT")).start()
    locked(migration, CHILD)
    assert len(migration.inspect().tables) == 2
    other.close()


def test_a_new_reference_to_nothing_undoes_the_migration(migration):
    migration.sql(PARENT, CHILD, "INSERT INTO parent VALUES (1, 'a')", "INSERT INTO child VALUES (1, 1)")
    with pytest.raises(ForeignKeyError, match="1 rows of child refer by parent_id to no row of parent"):
        locked(migration, "DELETE FROM parent")
    assert migration.sql("SELECT count(*) FROM parent") == [(1,)]
    with pytest.raises(ForeignKeyError):
        locked(migration, "DROP TABLE parent")
    assert settings(migration) == USUAL


def test_references_to_nothing_that_were_there_do_not_count(migration):
    migration.sql("PRAGMA foreign_keys = OFF", PARENT, CHILD, "INSERT INTO child VALUES (1, 7), (2, 8)")
    locked(migration, "ALTER TABLE child RENAME TO kid")
    locked(migration, "DELETE FROM kid WHERE id = 1")
    with pytest.raises(ForeignKeyError):
        locked(migration, "INSERT INTO kid VALUES (3, 9)")
    assert migration.sql("SELECT * FROM kid") == [(2, 8)]


def test_a_foreign_key_that_fits_no_key_is_refused_unless_it_was_there(migration):
    wrong = "CREATE TABLE wrong (x REFERENCES parent (name))"
    migration.sql(PARENT)
    with pytest.raises(ForeignKeyError, match="refers to columns that are no key"):
        locked(migration, wrong, "INSERT INTO wrong VALUES (1)")
    migration.sql("PRAGMA foreign_keys = OFF", wrong, "INSERT INTO wrong VALUES (1)")
    locked(migration, CHILD)
    with pytest.raises(ForeignKeyError):
        locked(migration, "INSERT INTO child VALUES (1, 1)")


def test_an_attempt_that_fails_is_undone_alone(migration):
    def body():
        yield from run(PARENT)
        with pytest.raises(QueryError):
            yield from migration.editor.attempt(
                run(CHILD, "nonsense"), lock_timeout=1, statement_timeout=1, transaction=True
            )

    migration.ask(migration.editor.locked(body(), timeout=1))
    assert migration.sql("SELECT name FROM sqlite_master") == [("parent",)]


def test_what_only_other_databases_need_is_refused_or_does_nothing(migration):
    steps = migration.plan(PARENT)
    for program in (migration.editor.perform(steps[0]), migration.editor.batch(steps[0], None)):
        with pytest.raises(UsageError):
            migration.ask(program)
    assert migration.ask(migration.editor.pause(60)) is None


def test_a_script_does_in_the_shell_what_the_migration_does(migration):
    migration.sql(PARENT, CHILD, "INSERT INTO parent VALUES (1, 'a')", "INSERT INTO child VALUES (1, 1)")
    new = (PARENT.replace("TEXT", "TEXT NOT NULL"), CHILD)
    script = migration.editor.script(migration.plan(*new))
    raw = sqlite3.connect(migration.path, isolation_level=None)
    raw.executescript(script.replace(".bail on\n", ""))
    raw.close()
    assert migration.inspect() == migration.desired(*new)
    assert migration.sql("SELECT count(*) FROM child") == [(1,)]


def test_the_build_of_a_schema_aside_touches_no_file_and_tells_what_is_wrong(migration):
    assert list(migration.desired(PARENT, CHILD).tables) == ["parent", "child"]
    assert migration.inspect().tables == {}
    with pytest.raises(QueryError):
        migration.desired(PARENT, PARENT)


# -- models ------------------------------------------------------------------------------------------------------------
def test_models_are_built_aside_as_they_are_built_in_the_file(migration):
    db = migration.db

    @db.model
    class Author:
        name: str
        active: bool = True
        score: float = 0.5

    db.express_sync.create("Author", {"name": "a"})
    build = create_missing(db.core.models.values(), db.core.dialect, create=True)
    assert migration.ask(migration.editor.desired(build)) == migration.inspect()
    assert migration.inspect().tables["authors"].options == ("strict",)
    del Author
