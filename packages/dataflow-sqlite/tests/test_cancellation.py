"""Cancelling and timing out: the statement under way stops, nothing is half-written, the connection goes on."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from dataflow import BaseDataFlowNode, DataFlow
from dataflow.errors import DatabaseTimeout, UsageError, WorkflowExecutionError
from dataflow.runtime import AsyncLocalRuntime, LocalRuntime

ENDLESS = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) AS n FROM c"
ENDLESS_WRITE = "INSERT INTO rows (n) WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c"
MANY = [{"n": n} for n in range(200_000)]


@pytest.fixture(params=["memory", "file"])
def db(request, tmp_path):
    url = ":memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/app.db"
    with DataFlow(url) as instance:

        @instance.model
        class Row:
            n: int

        instance.express_sync.create("Row", {"n": 0})
        yield instance


async def cancelled(coroutine, db=None):
    """Cancel a call while it runs (after it has written some rows of `db`), and see it end as cancelled tasks do."""
    task = asyncio.create_task(coroutine)
    await (asyncio.sleep(0.05) if db is None else has_written(db))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def has_written(db, rows=100):
    """Wait until the connection has written some rows."""
    raw = db.core.database.writer.raw
    most = raw.total_changes + rows
    while raw.total_changes < most:  # noqa: ASYNC110  # it is another thread that writes
        await asyncio.sleep(0.001)


async def usable(db, count=1):
    """Check that reader and writer work, by both kinds of calls, and what is stored."""
    assert await db.express.count("Row") == {"count": count}
    row = await db.express.create("Row", {"n": 1})
    assert db.express_sync.count("Row") == {"count": count + 1}
    db.express_sync.delete("Row", row["id"])
    assert db.core.database.writer.lock._held is False
    assert db.core.database.reader.lock._held is False


def run(db, *nodes, **options):
    """Return a coroutine that runs these nodes: (type, params) or just a type."""
    builder = db.workflow()
    for position, node in enumerate(nodes):
        kind, params = node if isinstance(node, tuple) else (node, {})
        builder.add_node(kind, f"n{position}", params)
    return AsyncLocalRuntime(**options).execute_async(builder.build())


def sql(query):
    return "AsyncSQLDatabaseNode", {"query": query}


@pytest.mark.parametrize("query", [ENDLESS, ENDLESS_WRITE])
async def test_the_statement_under_way_is_interrupted(db, query):
    await cancelled(run(db, sql(query)))
    await usable(db)
    await cancelled(run(db, ("RowCreateNode", {"n": 5}), sql(query)))
    await usable(db, 2)  # the node before was committed by itself


async def test_a_bulk_node_is_undone_as_a_whole(db):
    await cancelled(db.express.bulk_create("Row", MANY, batch_size=10), db)
    await usable(db)
    await cancelled(run(db, ("RowBulkCreateNode", {"data": MANY, "batch_size": 10})), db)
    await usable(db)


async def test_a_bulk_node_that_commits_every_so_many_rows_keeps_whole_commits(db):
    await cancelled(db.express.bulk_create("Row", MANY, batch_size=10, commit_every=1000), db)
    count = (await db.express.count("Row"))["count"]
    assert count % 1000 == 1
    assert count < len(MANY)
    await usable(db, count)


@pytest.mark.parametrize("rollback", [True, False])
@pytest.mark.parametrize("last", ["statement", "await", "thread"])
async def test_a_transaction_scope_is_rolled_back_wherever_it_is_cancelled(db, last, rollback):
    go_on = threading.Event()

    @db.register_node
    class Waits(BaseDataFlowNode):
        async def execute(self, input_data):
            await asyncio.sleep(3600)

    @db.register_node
    class Blocks(BaseDataFlowNode):
        def execute(self, input_data):
            go_on.wait(30)
            self.run_custom_query("INSERT INTO rows (n) VALUES (7)")
            return {}

    node = {"statement": sql(ENDLESS_WRITE), "await": "Waits", "thread": "Blocks"}[last]
    scope = ("TransactionScopeNode", {"rollback_on_error": rollback})
    await cancelled(run(db, scope, ("RowCreateNode", {"n": 5}), node, ("RowCreateNode", {"n": 6})))
    await usable(db)
    go_on.set()  # the thread that was left behind now tries to write
    await asyncio.sleep(0.1)
    await usable(db)


async def test_who_waits_for_the_connection_can_be_cancelled_and_loses_nothing_for_the_others(db):
    load = asyncio.create_task(db.express.bulk_create("Row", MANY[:50_000]))
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(db.express.create("Row", {"n": n})) for n in range(10)]
    await asyncio.sleep(0)
    for task in waiting[::2]:
        task.cancel()
    done = await asyncio.gather(load, *waiting, return_exceptions=True)
    assert [isinstance(item, asyncio.CancelledError) for item in done] == [False, *[True, False] * 5]
    await usable(db, 50_006)


async def test_a_nested_call_that_times_out_is_undone_and_the_scope_around_it_goes_on(db):
    @db.register_node
    class Tries(BaseDataFlowNode):
        async def execute(self, input_data):
            await cancelled(self.db.express.bulk_create("Row", MANY, batch_size=10), self.db)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(self.query(ENDLESS), 0.1)
            return await self.db.express.count("Row")

    for _ in range(100):
        try:
            results, _ = await run(
                db, "TransactionScopeNode", ("RowCreateNode", {"n": 5}), "Tries", ("RowCreateNode", {"n": 6})
            )
        except WorkflowExecutionError as error:  # it hit a statement that writes: SQLite gives the transaction up
            if "rolled the transaction back after an earlier error" not in str(error):
                raise
            await usable(db)
        else:
            break
    assert results["n2"]["count"] == 2
    await usable(db, 3)


async def test_a_scope_whose_transaction_sqlite_has_given_up_is_undone_to_the_last_row(db):
    """An interrupted write ends the whole transaction in SQLite; what follows must not be written on its own."""

    @db.register_node
    class Tries(BaseDataFlowNode):
        async def execute(self, input_data):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(self.query(ENDLESS_WRITE), 0.1)
            return {}

    for rollback, failing in ((True, "n3"), (False, "n2")):
        with pytest.raises(
            WorkflowExecutionError, match="rolled the transaction back after an earlier error"
        ) as caught:
            await run(
                db,
                ("TransactionScopeNode", {"rollback_on_error": rollback}),
                ("RowCreateNode", {"n": 5}),
                "Tries",
                ("RowCreateNode", {"n": 6}),
                ("RowCreateNode", {"n": 7}),
            )
        assert caught.value.node_id == failing
        await usable(db)
    assert "what 'n0' had done before could not be kept" in caught.value.__cause__.__notes__[0]


async def test_cancelling_one_of_several_calls_in_a_transaction_leaves_the_others_alone(db):
    @db.register_node
    class Together(BaseDataFlowNode):
        async def execute(self, input_data):
            slow = asyncio.create_task(self.query(ENDLESS))
            await asyncio.sleep(0.05)
            others = [asyncio.create_task(self.db.express.create("Row", {"n": n})) for n in range(3)]
            await asyncio.sleep(0)
            slow.cancel()
            rows = await asyncio.gather(*others)
            with pytest.raises(asyncio.CancelledError):
                await slow
            return {"n": [row["n"] for row in rows]}

    results, _ = await run(db, "TransactionScopeNode", ("RowCreateNode", {"n": 5}), "Together")
    assert results["n2"]["n"] == [0, 1, 2]
    await usable(db, 5)


class Stop(Exception):
    """What a signal handler raises."""


def test_one_interruption_after_another_leaves_the_connection_whole(tmp_path):
    """A signal may come at any moment of the statement after the one that was interrupted."""
    script = textwrap.dedent("""
        import random, signal
        from dataflow import DataFlow
        from dataflow.runtime import LocalRuntime

        def stop(*_):
            raise KeyboardInterrupt

        chance = random.Random(7)
        with DataFlow(":memory:") as db:
            @db.model
            class Row:
                n: int

            db.express_sync.bulk_create("Row", [{"n": n} for n in range(150)])
            query = "SELECT count(*) AS found FROM rows a, rows b, rows c WHERE (a.n + b.n + c.n) % 7 = 3"
            workflow = db.workflow().add_node("AsyncSQLDatabaseNode", "slow", {"query": query}).build()
            signal.signal(signal.SIGALRM, stop)
            interrupted = 0
            for turn in range(60):
                try:
                    signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0005, 0.006))
                    LocalRuntime().execute(workflow)
                except KeyboardInterrupt:
                    interrupted += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            results, _ = LocalRuntime().execute(workflow)
            print(interrupted > 30, results["slow"]["result"]["data"])
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=100)
    times = [len(range(rest, 150, 7)) for rest in range(7)]
    found = sum(times[a] * times[b] * times[(3 - a - b) % 7] for a in range(7) for b in range(7))
    assert (done.stdout, done.stderr) == (f"True [{{'found': {found}}}]\n", "")


@pytest.mark.parametrize("raised", [KeyboardInterrupt, Stop])
@pytest.mark.parametrize("query", [ENDLESS, ENDLESS_WRITE])
def test_what_a_signal_handler_raises_interrupts_a_statement_in_the_main_thread(db, raised, query):
    def interrupt(number, frame):
        raise raised

    workflow = db.workflow().add_node("TransactionScopeNode", "tx").add_node("RowCreateNode", "a", {"n": 5})
    built = workflow.add_node("AsyncSQLDatabaseNode", "b", {"query": query}).build()
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        with pytest.raises(KeyboardInterrupt if raised is KeyboardInterrupt else WorkflowExecutionError) as caught:
            LocalRuntime().execute(built)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert raised is KeyboardInterrupt or isinstance(caught.value.__cause__, Stop)
    asyncio.run(usable(db))


# -- timeouts ---------------------------------------------------------------------------------------------------------
async def test_the_timeout_of_a_runtime_interrupts_the_run(db):
    for node in (sql(ENDLESS), sql(ENDLESS_WRITE), ("RowBulkCreateNode", {"data": MANY, "batch_size": 10})):
        with pytest.raises(DatabaseTimeout, match=r"the run took longer than 0\.1 s and was cancelled") as caught:
            await run(db, "TransactionScopeNode", ("RowCreateNode", {"n": 5}), node, timeout=0.1)
        assert "run" in caught.value.where
        await usable(db)


def test_the_timeout_of_a_runtime_works_for_synchronous_callers(db):
    workflow = (
        db.workflow().add_node("RowCreateNode", "a", {"n": 1}).add_node("AsyncSQLDatabaseNode", "b", sql(ENDLESS)[1])
    )
    built = workflow.build()
    with pytest.raises(DatabaseTimeout, match="the run took longer than"):
        LocalRuntime(timeout=0.2).execute(built)
    assert db.express_sync.count("Row") == {"count": 2}
    asyncio.run(usable(db, 2))


@pytest.mark.parametrize("node", ["statement", "nested", "await"])
async def test_the_timeout_of_a_scope_ends_it_at_its_own_node(db, node):
    @db.register_node
    class Nested(BaseDataFlowNode):
        async def execute(self, input_data):
            await self.query("INSERT INTO rows (n) VALUES (3)")
            await self.query(ENDLESS)

    @db.register_node
    class Waits(BaseDataFlowNode):
        async def execute(self, input_data):
            await asyncio.sleep(3600)

    slow = {"statement": sql(ENDLESS), "nested": "Nested", "await": "Waits"}[node]
    scope = ("TransactionScopeNode", {"timeout": 0.1})
    with pytest.raises(WorkflowExecutionError, match="the transaction took longer than") as caught:
        await run(db, scope, ("RowCreateNode", {"n": 5}), slow, ("RowCreateNode", {"n": 6}))
    assert isinstance(caught.value.__cause__, DatabaseTimeout)
    await usable(db)
    await run(db, scope, ("RowCreateNode", {"n": 5}))
    await usable(db, 2)


async def test_a_thread_that_a_timed_out_scope_left_behind_can_write_no_more(db):
    go_on, over = threading.Event(), threading.Event()
    raised = []

    @db.register_node
    class Blocks(BaseDataFlowNode):
        def execute(self, input_data):
            go_on.wait(30)
            for act in (
                lambda: self.run_custom_query("INSERT INTO rows (n) VALUES (7)"),
                lambda: self.db.express_sync.bulk_create("Row", MANY[:10]),
            ):
                try:
                    act()
                except UsageError as error:
                    raised.append(error.code)
            over.set()
            return {}

    with pytest.raises(WorkflowExecutionError, match="the transaction took longer than"):
        await run(db, ("TransactionScopeNode", {"timeout": 0.1}), ("RowCreateNode", {"n": 5}), "Blocks")
    await usable(db)
    go_on.set()
    await asyncio.to_thread(over.wait, 30)
    assert raised == ["run-over", "run-over"]
    await usable(db)


async def test_a_thread_in_the_middle_of_a_statement_is_interrupted_when_its_scope_times_out(db):
    @db.register_node
    class Hogs(BaseDataFlowNode):
        def execute(self, input_data):
            self.run_custom_query(ENDLESS_WRITE)

    with pytest.raises(WorkflowExecutionError, match="the transaction took longer than"):
        await run(db, ("TransactionScopeNode", {"timeout": 0.2}), ("RowCreateNode", {"n": 5}), "Hogs")
    await usable(db)


async def test_waiting_for_the_connection_ends_after_lock_timeout_and_names_the_holder(tmp_path):
    with DataFlow(f"sqlite:///{tmp_path}/app.db", lock_timeout=0.1) as db:

        @db.model
        class Row:
            n: int

        await db.initialize()
        task = asyncio.create_task(run(db, sql(ENDLESS_WRITE)))
        await asyncio.sleep(0.05)
        with pytest.raises(
            DatabaseTimeout, match=r"the writer of app.db was not free within 0\.1 s; it is held by node n0"
        ):
            await db.express.create("Row", {"n": 1})
        with pytest.raises(DatabaseTimeout, match=r"was not free within 0\.1 s"):
            await asyncio.to_thread(db.express_sync.create, "Row", {"n": 1})
        assert await db.express.count("Row") == {"count": 0}  # the reader is free
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await db.express.create("Row", {"n": 1})


# -- at any moment ----------------------------------------------------------------------------------------------------
async def test_transfers_cancelled_at_random_moments_never_lose_or_make_money(tmp_path):
    with DataFlow(f"sqlite:///{tmp_path}/app.db") as db:

        @db.model
        class Account:
            balance: int = 100

        @db.register_node
        class Thinks(BaseDataFlowNode):
            async def execute(self, input_data):
                await asyncio.sleep(0)
                await self.db.express.update("Account", 3, {"balance": {"$inc": 1}})
                await self.db.express.update("Account", 4, {"balance": {"$dec": 1}})
                return {}

        await db.express.bulk_create("Account", [{}] * 4)
        workflow = (
            db.workflow()
            .add_node("TransactionScopeNode", "tx")
            .add_node("AccountUpdateNode", "take", {"id": 1, "balance": {"$dec": 1}})
            .add_node("Thinks", "think")
            .add_node("AccountUpdateNode", "give", {"id": 2, "balance": {"$inc": 1}})
            .build()
        )
        chance = random.Random(7)
        finished = 0
        for _ in range(150):
            tasks = [asyncio.create_task(AsyncLocalRuntime().execute_async(workflow)) for _ in range(3)]
            await asyncio.sleep(chance.random() * 0.004)
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            finished += sum(isinstance(outcome, tuple) for outcome in outcomes)
            assert all(isinstance(o, (tuple, asyncio.CancelledError)) for o in outcomes), outcomes
            rows = (await db.express.list("Account"))["records"]
            balances = [row["balance"] for row in rows]
            assert balances[0] - 100 == 100 - balances[1] == balances[3] - 100 == 100 - balances[2]
            assert sum(balances) == 400
        assert 0 < finished < 450  # else it cancelled nothing, or everything
        assert db.core.database.writer.lock._held is False
