"""A DataFlow in tdd mode on SQLite: it works on a copy, and the original is as if nobody had looked."""

import asyncio
import gc
import os
import sqlite3
import subprocess
import sys
import textwrap

import pytest

from dataflow import DataFlow
from dataflow.errors import DatabaseUnavailable, UsageError
from dataflow.runtime import LocalRuntime
from dataflow.sqlite import copy
from dataflow.testing import savepoint
from dataflow.testing.tdd import TestContext as Context

WRITER = """
    import os, sys
    from dataflow import DataFlow

    db = DataFlow(sys.argv[1])

    @db.model
    class Row:
        n: int

    db.express_sync.create("Row", {"n": 2})
    os._exit(0)  # the log is left behind
"""


def with_rows(db):
    @db.model
    class Row:
        n: int

    del Row
    return db


def numbers(db):
    return [row["n"] for row in db.express_sync.list("Row")["records"]]


@pytest.fixture
def folder(tmp_path):
    """A folder with nothing in it but a database of one row."""
    folder = tmp_path / "only"
    folder.mkdir()
    with with_rows(DataFlow(f"sqlite:///{folder}/app.db")) as db:
        db.express_sync.create("Row", {"n": 1})
    return folder


@pytest.fixture
def url(folder):
    return f"sqlite:///{folder}/app.db"


def contents(folder):
    """The files of a folder: name, time and bytes."""
    return {entry.name: (entry.stat().st_mtime_ns, (folder / entry.name).read_bytes()) for entry in os.scandir(folder)}


def test_the_folder_of_the_original_is_as_before(folder, url):
    before = contents(folder)
    with with_rows(DataFlow(url, tdd_mode=True)) as db:
        db.express_sync.create("Row", {"n": 2})
        assert contents(folder) == before
    assert contents(folder) == before


def test_what_is_only_in_the_log_of_a_process_that_was_killed_is_copied(folder, url):
    subprocess.run([sys.executable, "-c", textwrap.dedent(WRITER), url], check=True)
    with with_rows(DataFlow(url, tdd_mode=True)) as db:
        assert numbers(db) == [1, 2]


def test_a_writer_that_comes_while_the_file_is_copied_is_noticed(folder, url, monkeypatch):
    back_up, ways = copy._back_up, []

    def late(path, to, how):
        ways.append(how)
        back_up(path, to, how)
        if len(ways) == 1:
            with with_rows(DataFlow(url)) as other:
                other.express_sync.create("Row", {"n": 2})

    monkeypatch.setattr(copy, "_back_up", late)
    with with_rows(DataFlow(url, tdd_mode=True)) as db:
        assert numbers(db) == [1, 2]
    assert ways == ["immutable=1", "mode=ro"]


def test_a_file_that_is_not_there_is_not_made(tmp_path):
    with with_rows(DataFlow(f"sqlite:///{tmp_path}/none.db", tdd_mode=True)) as db:
        db.express_sync.create("Row", {"n": 1})
        assert numbers(db) == [1]
        assert os.listdir(tmp_path) == []
    db = with_rows(DataFlow(f"sqlite:///{tmp_path}/none.db", tdd_mode=True, existing_schema_mode=True))
    with db, pytest.raises(DatabaseUnavailable):
        numbers(db)
    assert os.listdir(tmp_path) == []


def test_a_file_that_is_no_database_is_an_error_that_names_it(tmp_path):
    (tmp_path / "app.db").write_text("no database " * 100)
    with pytest.raises(DatabaseUnavailable, match=r"app\.db"):
        DataFlow(f"sqlite:///{tmp_path}/app.db", tdd_mode=True)


def test_the_copy_is_gone_when_nobody_refers_to_it(url):
    db = with_rows(DataFlow(url, tdd_mode=True))
    assert numbers(db) == [1]
    place = os.path.dirname(db.core.database.path)
    assert os.path.isdir(place)
    del db
    gc.collect()
    assert not os.path.exists(place)


def test_a_process_that_never_closes_leaves_no_copy(url, tmp_path):
    script = f"from dataflow import DataFlow\ndb = DataFlow({url!r}, tdd_mode=True)\nprint(db.core.database.path)\n"
    script += "db.show_tables()\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not os.path.exists(os.path.dirname(done.stdout.strip()))


def test_a_savepoint_is_seen_by_readers_and_writers_of_a_file_with_pages_of_any_size(tmp_path):
    with sqlite3.connect(tmp_path / "app.db") as raw:
        raw.execute("PRAGMA page_size = 8192")
        raw.execute("CREATE TABLE other (x)")
    raw.close()
    with with_rows(DataFlow(f"sqlite:///{tmp_path}/app.db", tdd_mode=True)) as db:
        context = Context(db, "here")
        db.express_sync.create("Row", {"n": 1})
        with context.savepoint():
            db.express_sync.bulk_create("Row", [{"n": n} for n in range(5000)])
            with context.savepoint():
                db.express_sync.bulk_delete("Row", filter={}, confirmed=True)
                assert numbers(db) == []
            assert len(numbers(db)) == 5001
        assert numbers(db) == [1]
        assert db.express_sync.create("Row", {"n": 2})["id"] == 2
        assert asyncio.run(db.express.count("Row")) == {"count": 2}


async def test_a_savepoint_does_not_wait_for_a_call_of_the_loop_it_stops(url):
    async with with_rows(DataFlow(url, tdd_mode=True)) as db:
        seen = []

        async def rows():
            yield {"n": 3}
            with pytest.raises(UsageError) as refused:
                Context(db, "here").savepoint().__enter__()
            seen.append(refused.value.code)

        await db.express.bulk_create("Row", rows())
        assert seen == ["would-deadlock"]


def test_strict_tenants_are_kept_apart_in_a_copy_as_well(url):
    with DataFlow(url, tdd_mode=True, multi_tenant=True, tenant_isolation="strict") as db:

        @db.model
        class Note:
            text: str

        own = {"query": "SELECT text FROM notes", "fetch_mode": "all"}
        flow = db.workflow().add_node("AsyncSQLDatabaseNode", "own", own).build()
        for _ in range(2):
            with savepoint(db):
                for tenant in ("acme", "bolt"):
                    with db.tenant(tenant):
                        db.express_sync.create("Note", {"text": tenant})
                        assert [note["text"] for note in db.express_sync.list("Note")["records"]] == [tenant]
                        results, _ = LocalRuntime().execute(flow)
                        assert results["own"]["result"]["data"] == [{"text": tenant}]
