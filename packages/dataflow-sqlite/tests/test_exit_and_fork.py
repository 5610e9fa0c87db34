"""What is done at interpreter exit and around a fork, step by step (tests/test_processes.py does it for real)."""

import asyncio

import pytest

from dataflow import DataFlow
from dataflow.errors import UsageError
from dataflow.sqlite import connection


@pytest.fixture
def db(tmp_path):
    with DataFlow(f"sqlite:///{tmp_path}/notes.db") as instance:
        instance.model(type("Note", (), {"__annotations__": {"text": str}}))
        instance.express_sync.create("Note", {"text": "x"})
        yield instance


def count(db):
    return db.express_sync.count("Note")["count"]


def test_exit_closes_idle_connections_and_leaves_no_wal(db, tmp_path):
    asyncio.run(db.express.create("Note", {"text": "y"}))
    assert (tmp_path / "notes.db-wal").exists()
    db.core.database.at_exit()
    assert not (tmp_path / "notes.db-wal").exists()
    assert count(db) == 2  # who goes on after all gets new connections


def test_the_parent_goes_on_after_a_fork(db):
    asyncio.run(db.express.create("Note", {"text": "y"}))
    connection._before_fork()
    connection._in_parent()
    assert count(db) == 2
    assert db.express_sync.create("Note", {"text": "z"})["id"] == 3


def test_the_child_opens_connections_of_its_own(db):
    connection._before_fork()
    connection._in_child()
    assert count(db) == 1
    assert asyncio.run(db.express.create("Note", {"text": "y"}))["id"] == 2


def test_the_child_of_a_fork_in_mid_use_is_told_so(db):
    lease = db.core.database.lease_blocking(write=True, holder="a long transaction")
    try:
        connection._before_fork()
        connection._in_child()
        with pytest.raises(UsageError, match=r"forked while the writer of notes\.db was in use") as caught:
            db.express_sync.create("Note", {"text": "y"})
        assert caught.value.code == "forked-in-use"
    finally:
        connection._CROSSED.clear()
        for link in connection._ABANDONED:
            if link[0] is not None:
                link[0].close()
        connection._ABANDONED.clear()
    del lease


async def test_closing_inside_a_running_loop_closes_the_thread_too(tmp_path):
    db = DataFlow(f"sqlite:///{tmp_path}/notes.db")
    db.model(type("Note", (), {"__annotations__": {"text": str}}))
    await db.express.create("Note", {"text": "x"})
    await asyncio.to_thread(lambda: None)
    db.close()
    with pytest.raises(UsageError, match="closed"):
        await db.express.count("Note")
