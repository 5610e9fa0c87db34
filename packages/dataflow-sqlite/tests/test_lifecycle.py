"""Closing, forgetting and outliving: connections, their threads and the loops that used them."""

import asyncio
import contextlib
import gc
import sqlite3
import subprocess
import sys
import textwrap
import threading
import warnings
import weakref

import pytest

from dataflow import DataFlow
from dataflow.errors import UsageError
from dataflow.runtime import LocalRuntime

SLOW = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 50000000) SELECT count(*) AS n FROM c"


def with_rows(db):
    @db.model
    class Row:
        n: int

    del Row
    return db


def urls(tmp_path):
    return {"memory": ":memory:", "file": f"sqlite:///{tmp_path}/app.db"}


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path):
    return urls(tmp_path)[request.param]


def connections(db):
    return [link.raw for link in db.core.database._links() if link.raw is not None]


def is_closed(raw):
    try:
        raw.execute("SELECT 1")
    except sqlite3.ProgrammingError as error:
        return "closed database" in str(error)
    return False


def test_a_closed_instance_refuses_everything_and_may_be_closed_again(url):
    db = with_rows(DataFlow(url))
    workflow = db.workflow().add_node("RowCreateNode", "c", {"n": 1}).build()
    LocalRuntime().execute(workflow)
    db.express_sync.count("Row")
    raws = connections(db)
    db.close()
    db.close()
    assert raws
    assert all(map(is_closed, raws))
    for use in (
        lambda: db.express_sync.create("Row", {"n": 1}),
        lambda: db.express_sync.count("Row"),
        lambda: LocalRuntime().execute(workflow),
        lambda: LocalRuntime(timeout=5).execute(workflow),
        db.show_tables,
        lambda: asyncio.run(db.express.count("Row")),
        lambda: asyncio.run(db.initialize()),
    ):
        with pytest.raises(Exception, match="this DataFlow is closed"):
            use()
    assert not connections(db)
    assert db.health()["ok"] is False


async def test_closing_works_from_a_loop_and_from_another_thread_and_ends_the_thread_of_the_connection(url):
    for close in ("aclose", "close", "thread"):
        before = set(threading.enumerate())
        db = with_rows(DataFlow(url))
        await db.express.create("Row", {"n": 1})
        await db.express.count("Row")
        raws, started = connections(db), set(threading.enumerate()) - before
        assert started
        if close == "aclose":
            await db.aclose()
            await db.aclose()
        elif close == "close":
            db.close()
        else:
            await asyncio.to_thread(db.close)
        assert all(map(is_closed, raws))
        for thread in started:
            if thread.name != "asyncio_0":  # the pool of to_thread() stays
                thread.join(5)
                assert not thread.is_alive()


async def test_closing_waits_for_the_operation_under_way_and_who_queues_behind_it_is_told(url):
    db = with_rows(DataFlow(url))
    await db.initialize()
    load = asyncio.create_task(db.express.bulk_create("Row", [{"n": n} for n in range(20_000)]))
    await asyncio.sleep(0)
    closing = asyncio.create_task(db.aclose())
    await asyncio.sleep(0)
    late = asyncio.create_task(db.express.create("Row", {"n": 1}))
    assert (await load)["created"] == 20_000
    await closing
    with pytest.raises(UsageError, match="closed"):
        await late
    assert not connections(db)


async def test_closing_where_it_would_wait_for_its_own_loop_is_refused_and_works_afterwards(url):
    db = with_rows(DataFlow(url))
    await db.initialize()
    load = asyncio.create_task(db.express.bulk_create("Row", [{"n": n} for n in range(30_000)]))
    while not db.core.database.writer.lock._held:  # noqa: ASYNC110
        await asyncio.sleep(0)
    with pytest.raises(UsageError, match="which a blocking call stops") as caught:
        db.close()
    assert caught.value.code == "would-deadlock"
    assert (await load)["created"] == 30_000
    raws = connections(db)
    db.close()
    assert raws
    assert all(map(is_closed, raws))


@pytest.mark.parametrize("how", ["sync", "async", "both"])
def test_an_instance_that_nobody_refers_to_closes_its_connections_without_a_warning(url, how):
    before = set(threading.enumerate())

    def use():
        db = with_rows(DataFlow(url))
        if how != "async":
            db.express_sync.create("Row", {"n": 1})
            db.express_sync.count("Row")
        if how != "sync":
            asyncio.run(db.express.create("Row", {"n": 1}))
            asyncio.run(db.express.count("Row"))
        return weakref.ref(db), weakref.ref(db.core), connections(db)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        instance, core, raws = use()
        gc.collect()
    assert instance() is None
    assert core() is None
    assert all(map(is_closed, raws))
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive(), thread.name


async def test_an_instance_forgotten_on_a_running_loop_is_closed_as_well(url):
    db = with_rows(DataFlow(url))
    await db.express.create("Row", {"n": 1})
    raws = connections(db)
    del db
    gc.collect()
    assert all(map(is_closed, raws))


def test_an_instance_lives_as_long_as_a_workflow_or_a_call_on_it(url):
    def build():
        db = with_rows(DataFlow(url))
        return db.workflow().add_node("RowCreateNode", "c", {"n": 7}).build(), db.express_sync

    workflow, express = build()
    gc.collect()
    assert LocalRuntime().execute(workflow)[0]["c"]["n"] == 7
    assert express.count("Row") == {"count": 1}
    express._db.close()


def test_the_context_manager_closes_after_an_error_too(url):
    raws = []

    def use():
        with with_rows(DataFlow(url)) as db:
            db.express_sync.create("Row", {"n": 1})
            raws.extend(connections(db))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use()
    assert raws
    assert all(map(is_closed, raws))


async def test_the_asynchronous_context_manager_creates_tables_and_closes(tmp_path):
    async with with_rows(DataFlow(f"sqlite:///{tmp_path}/app.db")) as db:
        with contextlib.closing(sqlite3.connect(tmp_path / "app.db")) as other:
            assert other.execute("SELECT count(*) FROM rows").fetchone() == (0,)
        raws = connections(db)
    assert all(map(is_closed, raws))


# -- loops that end -----------------------------------------------------------------------------------------------
def test_one_instance_serves_one_event_loop_after_another_and_several_at_once(url):
    with with_rows(DataFlow(url)) as db:
        for n in range(5):
            asyncio.run(db.express.create("Row", {"n": n}))

        def run():
            async def several():
                await asyncio.gather(*[db.express.create("Row", {"n": n}) for n in range(20)])

            asyncio.run(several())

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert asyncio.run(db.express.count("Row")) == {"count": 85}


ABANDON = """
    import asyncio, gc, threading
    from dataflow import BaseDataFlowNode, DataFlow
    from dataflow.runtime import AsyncLocalRuntime

    threading.excepthook = lambda args: print("thread", args.exc_value)
    db = DataFlow({url!r}, lock_timeout=30.0)

    @db.model
    class Row:
        n: int

    @db.register_node
    class Slow(BaseDataFlowNode):
        async def execute(self, input_data):
            await self.query("INSERT INTO rows (n) VALUES (1)")
            return {{"rows": await self.query({slow!r})}}

    builder = db.workflow().add_node("TransactionScopeNode", "tx").add_node("Slow", "slow")
    workflow = builder.add_node("RowCreateNode", "create", {{"n": 2}}).build()
    asyncio.run(db.initialize())
    for _ in range(2):
        loop = asyncio.new_event_loop()
        task = loop.create_task(AsyncLocalRuntime().execute_async(workflow))
        loop.run_until_complete(asyncio.sleep(0.1))
        loop.close()
        task._log_destroy_pending = False
        del task, loop
        db.core.database.writer.aio._thread.join(60)  # the statement ends, and the thread, for want of a listener
        gc.collect()
        assert asyncio.run(asyncio.wait_for(db.express.count("Row"), 30))["count"] == 0, "rolled back"
        assert db.express_sync.count("Row") == {{"count": 0}}
    db.close()
    print("done")
"""


def test_a_loop_that_is_closed_in_the_middle_of_a_statement_leaves_a_connection_that_works(url):
    slow = SLOW.replace("50000000", "2000000")  # nobody can interrupt it any more
    script = textwrap.dedent(ABANDON.format(url=url, slow=slow))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=100)
    assert done.stdout == "thread Event loop is closed\n" * 2 + "done\n", done.stderr
