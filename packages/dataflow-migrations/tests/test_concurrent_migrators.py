"""Several processes that migrate at once, and processes that write meanwhile."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from dataflow import DataFlow
from dataflow.errors import DatabaseTimeout
from dataflow.migrations.execution import MigrationError
from dataflow.migrations.proof.copies import Copies
from dataflow.migrations.proof.crashes import Report, trial
from dataflow.migrations.proof.forks import Forks
from dataflow.migrations.proof.releases import model

EIGHT = 8


@pytest.fixture(scope="module")
def forks():
    with Forks() as started:
        yield started


@pytest.fixture(params=["sqlite", "postgresql"])
def copies(request):
    place = "sqlite" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    with Copies.at(place) as made:
        yield made


@pytest.mark.parametrize("name", ["create", "change"])
def test_eight_processes_that_start_together_migrate_once(copies, forks, name):
    own = trial(name, copies, forks, Report())
    task = {"url": copies.fresh(), "settings": copies.settings, "change": name}
    ended = forks.run(*[{**task, "do": "act"}] * EIGHT)
    assert [each.told.get("error") for each in ended] == [None] * EIGHT
    (state,) = forks.run({**task, "do": "recover", "act": "nothing"})
    for what in ("schema", "rows", "registry", "history", "plan", "checks", "running"):
        assert state.told[what] == own.reference[what]


def test_processes_that_create_migrate_and_use_an_older_release_do_not_disturb_each_other(copies, forks):
    trial("grow-small", copies, forks, Report())
    task = {"url": copies.fresh(), "settings": copies.settings}
    grow = {**task, "change": "grow-small", "do": "act"}
    create = {**task, "change": "beside", "do": "act"}
    older = {**task, "change": "grow-small", "do": "act", "act": "use-old"}
    ended = forks.run(*[grow, create, older] * 3)
    assert [each.told.get("error") for each in ended] == [None] * 9
    for change in ("grow-small", "beside"):
        (state,) = forks.run({**task, "change": change, "do": "recover", "act": "nothing"})
        assert state.told["plan"] == []
        assert state.told["history"] == ["done"]
        assert {*state.told["registry"]} == {"notes", "tags", "visits", "writers"}


# -- PostgreSQL: locks ------------------------------------------------------------------------------------------------
def release(db, **more):
    """Register the models: notes, and writers; `more` are fields of both."""
    model(db, "Writer", {"name": str, **more})
    model(db, "Note", {"title": str, **more})


@pytest.fixture
def started(postgres_database):
    """The URL of a database with notes and writers."""
    with DataFlow(postgres_database) as db:
        release(db)
        for number in range(10):
            db.express_sync.create("Note", {"title": str(number)})
            db.express_sync.create("Writer", {"name": str(number)})
    return postgres_database


@contextmanager
def transaction(url, *statements):
    """Hold a transaction open in another thread; yield what runs further statements in it."""
    import asyncpg

    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(url))
        try:
            runner.run(connection.execute("BEGIN"))
            for sql in statements:
                runner.run(connection.execute(sql))
            yield lambda sql: runner.run(connection.execute(sql))
        finally:
            runner.run(connection.close())


def waits(db, monkeypatch):
    """Return an event that is set when a migration has waited in vain for a lock."""
    happened = threading.Event()
    pause = type(db.core.schema_engine.editor).pause

    def noticed(editor, seconds):
        happened.set()
        yield from pause(editor, seconds)

    monkeypatch.setattr(type(db.core.schema_engine.editor), "pause", noticed)
    return happened


def migrate(db, **options):
    return asyncio.run(db.auto_migrate(auto_confirm=True, **options))


def test_writers_get_through_while_a_migration_waits_for_a_long_transaction(started, monkeypatch):
    """The long transaction ends only after the writer has written: whoever queued behind the migration would hang."""
    with DataFlow(started, migration_lock_timeout=0.2) as db, DataFlow(started) as other, ThreadPoolExecutor() as pool:
        release(db, more=(int, 1))
        release(other)
        other.express_sync.count("Note")
        waited = waits(db, monkeypatch)
        with transaction(started, "UPDATE notes SET title = 'x' WHERE id = 1"):
            migration = pool.submit(migrate, db)
            assert waited.wait(60)
            for number in range(20):
                other.express_sync.create("Note", {"title": f"meanwhile {number}"})
                other.express_sync.update("Note", 2, {"title": f"meanwhile {number}"})
            assert not migration.done()
        assert migration.result(60)[0]
        assert db.express_sync.count("Note", {"more": 1}) == {"count": 30}


def test_a_migration_whose_patience_ends_says_so_and_has_changed_nothing(started):
    with DataFlow(started, migration_lock_timeout=0.1, migration_patience=0.5) as db:
        release(db, more=(int, 1))
        before = db.core.ask(db.core.schema_engine.editor.inspect(), write=True).fingerprint
        with (
            transaction(started, "UPDATE notes SET title = 'x' WHERE id = 1"),
            pytest.raises(MigrationError, match="another transaction held a lock for too long") as caught,
        ):
            migrate(db)
        assert caught.value.undone
        assert isinstance(caught.value.__cause__, DatabaseTimeout)
        assert "nothing has changed" in str(caught.value)
        assert db.core.ask(db.core.schema_engine.editor.inspect(), write=True).fingerprint == before
        assert [entry.status for entry in db.core.schema_engine.history_sync()] == ["undone"]
        assert migrate(db)[0]
        assert db.express_sync.count("Note", {"more": 1}) == {"count": 10}


def test_a_migration_that_the_server_ends_to_resolve_a_deadlock_is_tried_again(started, monkeypatch):
    name = started.rpartition("/")[2]
    with transaction(started, "COMMIT") as run:
        run(f"ALTER DATABASE \"{name}\" SET deadlock_timeout = '3s'")  # the server looks for deadlocks once in a wait
    with DataFlow(started, migration_lock_timeout=90.0, migration_patience=90.0) as db, ThreadPoolExecutor() as pool:
        release(db, more=(int, 1))
        waited = waits(db, monkeypatch)
        with transaction(started, "SET deadlock_timeout = '90s'", "UPDATE writers SET name = 'x' WHERE id = 1") as run:
            migration = pool.submit(migrate, db)
            _until_locked(started)
            run("UPDATE notes SET title = 'x' WHERE id = 1")  # each waits for the other, until the server ends one
            assert waited.wait(30)
            run("COMMIT")
        assert migration.result(60)[0]
        assert db.express_sync.count("Note", {"more": 1}) == {"count": 10}


def _until_locked(url):
    """Wait until the migration waits for a lock of the table of writers."""
    import asyncpg

    async def look():
        connection = await asyncpg.connect(url)
        try:
            sql = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'writers'::regclass"
            while not await connection.fetchval(sql):  # noqa: ASYNC110  # the server tells nobody
                await asyncio.sleep(0.02)
        finally:
            await connection.close()

    asyncio.run(look())
