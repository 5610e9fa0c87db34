"""Runtimes under load: threads, tasks, running loops, timeouts, interruption."""

import asyncio
import contextlib
import contextvars
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from dataflow import BaseDataFlowNode, DataFlow
from dataflow.errors import DatabaseTimeout, UsageError, WorkflowExecutionError
from dataflow.runtime import AsyncLocalRuntime, LocalRuntime


@pytest.fixture
def db(tmp_path):
    with DataFlow(f"sqlite:///{tmp_path}/bank.db") as instance:

        class Account:
            balance: int = 0

        instance.model(Account)
        instance.express_sync.create("Account", {})
        yield instance


def increments(db, *, scope):
    builder = db.workflow()
    if scope:
        builder.add_node("TransactionScopeNode", "scope")
    builder.add_node("AccountUpdateNode", "one", {"id": 1, "balance": {"$inc": 1}})
    builder.add_node("AccountReadNode", "look", {"id": 1})
    builder.add_node("AccountUpdateNode", "two", {"id": 1, "balance": {"$inc": 1}})
    return builder.build()


def balance(db):
    return db.express_sync.read("Account", 1)["balance"]


def test_eight_threads_share_one_runtime_and_lose_no_update(db):
    runtime = LocalRuntime()
    plain, scoped = increments(db, scope=False), increments(db, scope=True)
    failures = []

    def work():
        try:
            for _ in range(25):
                runtime.execute(plain)
                runtime.execute(scoped)
        except Exception as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert balance(db) == 8 * 25 * 4


async def test_sixty_four_concurrent_workflows_on_one_file_wait_for_each_other(db):
    runtime = AsyncLocalRuntime()
    plain, scoped = increments(db, scope=False), increments(db, scope=True)
    await asyncio.gather(*[runtime.execute_async(scoped if i % 2 else plain) for i in range(64)])
    found = await db.express.read("Account", 1)
    assert found["balance"] == 128


async def test_threads_and_tasks_mix_on_one_instance(db):
    plain, scoped = increments(db, scope=False), increments(db, scope=True)
    blocking, awaiting = LocalRuntime(), AsyncLocalRuntime()
    jobs = [asyncio.to_thread(blocking.execute, plain) for _ in range(16)]
    jobs += [awaiting.execute_async(scoped) for _ in range(16)]
    await asyncio.gather(*jobs)
    assert (await db.express.read("Account", 1))["balance"] == 64


async def test_a_synchronous_run_works_inside_a_running_loop(db):
    results, _ = LocalRuntime().execute(increments(db, scope=True))
    assert results["two"]["balance"] == 2


async def test_many_loops_may_use_one_instance(db):
    for _ in range(3):
        await asyncio.to_thread(lambda: asyncio.run(db.express.update("Account", 1, {"balance": {"$inc": 1}})))
    assert (await db.express.read("Account", 1))["balance"] == 3


async def test_a_blocking_call_that_would_wait_for_its_own_loop_raises(db):
    entered, leave = asyncio.Event(), asyncio.Event()

    class Hold(BaseDataFlowNode):
        async def execute(self, input_data):
            entered.set()
            await leave.wait()
            return {}

    db.register_node(Hold)
    workflow = db.workflow().add_node("TransactionScopeNode", "scope")
    workflow.add_node("AccountUpdateNode", "one", {"id": 1, "balance": 5})
    workflow.add_node("Hold", "hold").add_connection("one", "result", "hold", "input")
    workflow.add_node("AccountReadNode", "look", {"id": 1}).add_connection("hold", "result", "look", "input")
    task = asyncio.create_task(AsyncLocalRuntime().execute_async(workflow.build()))
    await entered.wait()
    with pytest.raises(UsageError) as caught:
        db.express_sync.update("Account", 1, {"balance": 1})
    assert caught.value.code == "would-deadlock"
    leave.set()
    results, _ = await task
    assert results["look"]["balance"] == 5


def test_parallel_branches_overlap_and_join(db):
    waiting = threading.Barrier(2, timeout=10)

    class Meet(BaseDataFlowNode):
        def execute(self, input_data):
            waiting.wait()  # passes only if both branches run at once
            return {"done": True}

    db.register_node(Meet)
    workflow = db.workflow()
    workflow.add_node("AccountReadNode", "start", {"id": 1})
    for branch in ("left", "right"):
        workflow.add_node("Meet", branch).add_connection("start", "result", branch, "input")
    workflow.add_node("AccountUpdateNode", "end", {"id": 1, "balance": {"$inc": 1}})
    for branch in ("left", "right"):
        workflow.add_connection(branch, "result", "end", "input")
    results, _ = LocalRuntime(max_concurrency=2).execute(workflow.build())
    assert results["end"]["balance"] == 1


def test_a_failing_branch_stops_the_others_and_is_named(db):
    class Fail(BaseDataFlowNode):
        def execute(self, input_data):
            msg = "broken"
            raise ValueError(msg)

    class Wait(BaseDataFlowNode):
        async def execute(self, input_data):
            await asyncio.sleep(30)

    db.register_node(Fail)
    db.register_node(Wait)
    workflow = db.workflow().add_node("Wait", "wait").add_node("Fail", "fail")
    with pytest.raises(WorkflowExecutionError, match="node 'fail' failed: ValueError: broken") as caught:
        LocalRuntime(max_concurrency=2).execute(workflow.build())
    assert caught.value.node_id == "fail"


def test_progress_tells_when_nodes_start_and_end(db):
    events = []
    LocalRuntime(progress=events.append).execute(increments(db, scope=True))
    seen = [(event.node_id, event.state) for event in events]
    assert seen == [(node, state) for node in ("scope", "one", "look", "two") for state in ("running", "done")]
    assert events[-1].result["balance"] == 2


def test_a_long_run_gives_way_to_others(db):
    builder = db.workflow()
    for number in range(3000):
        builder.add_node("AccountUpdateNode", f"n{number}", {"id": 1, "balance": {"$inc": 1}})
    workflow = builder.build()
    started = threading.Event()
    long_run = threading.Thread(target=LocalRuntime(progress=lambda event: started.set()).execute, args=(workflow,))
    long_run.start()
    started.wait(10)
    db.express_sync.update("Account", 1, {"balance": {"$inc": 1}})
    running = long_run.is_alive()
    long_run.join()
    assert running  # the short call was served while the long run went on
    assert balance(db) == 3001


def test_a_run_that_takes_too_long_is_cancelled_and_rolled_back(db):
    class Sleep(BaseDataFlowNode):
        async def execute(self, input_data):
            await asyncio.sleep(30)

    db.register_node(Sleep)
    workflow = db.workflow().add_node("TransactionScopeNode", "scope")
    workflow.add_node("AccountUpdateNode", "one", {"id": 1, "balance": 9})
    workflow.add_node("Sleep", "sleep").add_node("AccountReadNode", "look", {"id": 1})
    with pytest.raises(DatabaseTimeout, match=r"longer than 0\.2 s"):
        LocalRuntime(timeout=0.2).execute(workflow.build())
    assert balance(db) == 0


def test_a_statement_that_takes_too_long_is_interrupted(db):
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    workflow = db.workflow().add_node("AsyncSQLDatabaseNode", "endless", {"query": endless})
    start = time.monotonic()
    with pytest.raises(DatabaseTimeout):
        LocalRuntime(timeout=0.3).execute(workflow.build())
    assert time.monotonic() - start < 20  # it would never end by itself
    assert balance(db) == 0


async def test_a_cancelled_task_leaves_nothing_and_the_connection_works(db):
    entered = asyncio.Event()

    class Hold(BaseDataFlowNode):
        async def execute(self, input_data):
            entered.set()
            await asyncio.sleep(30)

    db.register_node(Hold)
    workflow = db.workflow().add_node("TransactionScopeNode", "scope")
    workflow.add_node("AccountUpdateNode", "one", {"id": 1, "balance": 9})
    workflow.add_node("Hold", "hold").add_node("AccountReadNode", "look", {"id": 1})
    task = asyncio.create_task(AsyncLocalRuntime().execute_async(workflow.build()))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await db.express.update("Account", 1, {"balance": {"$inc": 1}}))["balance"] == 1


def test_context_variables_reach_nodes_in_worker_threads(db):
    who = contextvars.ContextVar("who", default="nobody")

    class Who(BaseDataFlowNode):
        def execute(self, input_data):
            return {"who": who.get(), "thread": threading.current_thread().name}

    db.register_node(Who)
    workflow = db.workflow().add_node("Who", "ask").build()

    async def main():
        who.set("ada")
        return (await AsyncLocalRuntime().execute_async(workflow))[0]["ask"]

    found = asyncio.run(main())
    assert found["who"] == "ada"
    assert found["thread"] != "MainThread"


def test_ctrl_c_in_mid_run_rolls_back_and_ends_the_process(tmp_path):
    script = textwrap.dedent(
        """
        import time
        from dataflow import BaseDataFlowNode, DataFlow
        from dataflow.runtime import LocalRuntime
        db = DataFlow("sqlite:///bank.db")
        @db.model
        class Account:
            balance: int = 0
        db.express_sync.create("Account", {})
        @db.register_node
        class Hold(BaseDataFlowNode):
            def execute(self, input_data):
                print("holding", flush=True)
                time.sleep(60)
        workflow = db.workflow().add_node("TransactionScopeNode", "scope")
        workflow.add_node("AccountUpdateNode", "one", {"id": 1, "balance": 9})
        workflow.add_node("Hold", "hold").add_node("AccountReadNode", "look", {"id": 1})
        LocalRuntime().execute(workflow.build())
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline() == b"holding\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert b"KeyboardInterrupt" in errors
    with DataFlow(f"sqlite:///{tmp_path}/bank.db") as db:
        rows = db.workflow().add_node("AsyncSQLDatabaseNode", "sql", {"query": "SELECT balance FROM accounts"})
        assert LocalRuntime().execute(rows.build())[0]["sql"]["result"]["data"] == [{"balance": 0}]


# -- many callers -----------------------------------------------------------------------------------------------------
def transfers(db, node="AccountUpdateNode"):
    builder = db.workflow().add_node("TransactionScopeNode", "scope")
    builder.add_node(node, "take", {"id": 2, "balance": {"$dec": 1}})
    builder.add_node("AccountReadNode", "look", {"id": 2})
    builder.add_node(node, "give", {"id": 3, "balance": {"$inc": 1}})
    return builder.build()


def reports(db):
    builder = db.workflow()
    builder.add_node("AccountListNode", "list", {"filter": {"id": {"$gt": 1}}, "sort": "-balance"})
    builder.add_node(
        "AccountAggregateNode", "sum", {"aggregate": {"sum": {"$sum": "balance"}}, "filter": {"id": {"$gt": 1}}}
    )
    return builder.build()


def test_sixty_four_runs_of_every_kind_at_once_lose_nothing_and_never_see_a_locked_database(db):
    """Threads, event loops and tasks; reading, writing and transactions; with and without nodes of one's own."""

    @db.register_node
    class Thinks(BaseDataFlowNode):
        def execute(self, input_data):
            rows = self.run_custom_query("SELECT balance FROM accounts WHERE id = 1")
            time.sleep(0.001)
            return {"balance": rows[0]["balance"]}

    db.express_sync.bulk_create("Account", [{"balance": 0}, {"balance": 0}])
    thinking = db.workflow().add_node("Thinks", "think")
    thinking.add_node("AccountUpdateNode", "one", {"id": 1, "balance": {"$inc": 2}})
    kinds = [increments(db, scope=False), increments(db, scope=True), transfers(db), reports(db), thinking.build()]
    blocking, awaiting = LocalRuntime(), AsyncLocalRuntime()
    start = threading.Barrier(34)
    outcomes = []

    def in_thread(workflow, runtime):
        start.wait(30)
        for _ in range(4):
            try:
                outcomes.append(runtime.execute(workflow)[0])
            except Exception as error:  # noqa: BLE001
                outcomes.append(error)

    def in_loop():
        async def sixteen():
            start.wait(30)
            runs = [awaiting.execute_async(kinds[n % 5]) for n in range(16)]
            outcomes.extend(await asyncio.gather(*runs, return_exceptions=True))

        asyncio.run(sixteen())

    threads = [
        threading.Thread(target=in_thread, args=[kinds[n % 5], blocking if n % 3 else LocalRuntime(timeout=60)])
        for n in range(32)
    ]
    threads += [threading.Thread(target=in_loop) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcome for outcome in outcomes if isinstance(outcome, Exception)] == []
    assert len(outcomes) == 32 * 4 + 32
    counts = [0] * 5
    for n in range(32):
        counts[n % 5] += 4
    for n in range(16):
        counts[n % 5] += 2
    assert balance(db) == 2 * (counts[0] + counts[1] + counts[4])
    rows = db.express_sync.list("Account", {"id": {"$gt": 1}})["records"]
    assert [row["balance"] for row in rows] == [-counts[2], counts[2]]
    sums = [o["sum"]["groups"][0]["sum"] for o in outcomes if isinstance(o, dict) and "sum" in o]
    assert set(sums) == {0}  # a reader never sees half a transfer


def test_many_threads_may_be_the_first_to_use_a_model(tmp_path):
    for attempt in range(5):
        with DataFlow(f"sqlite:///{tmp_path}/{attempt}.db") as db:

            @db.model
            class Customer:
                name: str

            @db.model
            class Order:
                customer_id: int
                total: float = 0.0

            start = threading.Barrier(8)
            failures = []

            def work(number, db=db, start=start, failures=failures):
                start.wait(10)
                try:
                    if number % 2:
                        db.express_sync.create("Order", {"customer_id": number})
                        db.express_sync.list("Customer", {"orders": {"total": 0.0}}, include=["orders"])
                    else:
                        asyncio.run(db.express.create("Customer", {"name": "x"}))
                except Exception as error:  # noqa: BLE001
                    failures.append(error)

            threads = [threading.Thread(target=work, args=[n]) for n in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert failures == []
            assert db.express_sync.count("Order") == db.express_sync.count("Customer") == {"count": 4}


def test_who_waits_for_the_writer_is_served_in_the_order_of_coming(db):
    order = []

    async def main():
        runs = [
            AsyncLocalRuntime(progress=lambda event, n=n: order.append(n) if event.state == "done" else None)
            for n in range(10)
        ]
        workflow = db.workflow().add_node("AccountUpdateNode", "one", {"id": 1, "balance": {"$inc": 1}}).build()
        await asyncio.gather(*[run.execute_async(workflow) for run in runs])

    asyncio.run(main())
    assert order == list(range(10))


# -- calls that would wait for themselves -----------------------------------------------------------------------------
@pytest.fixture
def held(db):
    """A run on the current loop that holds the writer until told to leave it."""

    @contextlib.asynccontextmanager
    async def hold():
        entered, leave = asyncio.Event(), asyncio.Event()

        class Hold(BaseDataFlowNode):
            async def execute(self, input_data):
                entered.set()
                await leave.wait()

        workflow = db.workflow().add_node("TransactionScopeNode", "scope")
        workflow.add_node("AccountUpdateNode", "one", {"id": 1, "balance": 5}).add_node(Hold, "hold")
        workflow.add_node("AccountReadNode", "look", {"id": 1})
        task = asyncio.create_task(AsyncLocalRuntime().execute_async(workflow.build()))
        await entered.wait()
        yield
        leave.set()
        await task

    return hold


@pytest.mark.parametrize("how", ["express", "runtime", "runtime on the background loop", "node of one's own"])
async def test_every_blocking_way_into_a_database_that_its_own_loop_holds_is_refused(db, held, how):
    @db.register_node
    class Counts(BaseDataFlowNode):
        async def execute(self, input_data):
            return await self.db.express.update("Account", 1, {"balance": 1})

    workflow = db.workflow().add_node("AccountUpdateNode", "one", {"id": 1, "balance": 1}).build()
    own = db.workflow().add_node("Counts", "count").build()
    act = {
        "express": lambda: db.express_sync.update("Account", 1, {"balance": 1}),
        "runtime": lambda: LocalRuntime().execute(workflow),
        "runtime on the background loop": lambda: LocalRuntime(timeout=20).execute(workflow),
        "node of one's own": lambda: LocalRuntime().execute(own),
    }[how]
    async with held():
        with pytest.raises((UsageError, WorkflowExecutionError), match="which a blocking call stops") as caught:
            act()
        cause = caught.value if isinstance(caught.value, UsageError) else caught.value.__cause__
        assert cause.code == "would-deadlock"
        assert "await" in cause.hint
        assert (await db.express.read("Account", 1))["balance"] == 0  # reading goes on
    assert (await db.express.read("Account", 1))["balance"] == 5
    act()
    assert (await db.express.read("Account", 1))["balance"] == 1


async def test_a_blocking_call_behind_a_waiting_task_of_its_own_loop_is_refused(db):
    """A thread holds the writer; a task waits for it; a blocking call would wait for the task, which cannot run."""
    holding, leave = threading.Event(), threading.Event()

    class Hold(BaseDataFlowNode):
        def execute(self, input_data):
            holding.set()
            leave.wait(30)

    workflow = db.workflow().add_node("TransactionScopeNode", "scope")
    workflow.add_node("AccountUpdateNode", "one", {"id": 1, "balance": {"$inc": 1}}).add_node(Hold, "hold")
    thread = threading.Thread(target=LocalRuntime().execute, args=[workflow.build()])
    thread.start()
    await asyncio.to_thread(holding.wait, 30)
    waiting = asyncio.create_task(db.express.update("Account", 1, {"balance": {"$inc": 10}}))
    await asyncio.sleep(0.01)
    with pytest.raises(UsageError, match="which a blocking call stops"):
        db.express_sync.update("Account", 1, {"balance": 0})
    leave.set()
    await waiting
    await asyncio.to_thread(thread.join)
    assert (await db.express.read("Account", 1))["balance"] == 11


def test_a_blocking_call_waits_for_other_threads_and_other_loops(db):
    inside, leave = threading.Event(), threading.Event()

    class Hold(BaseDataFlowNode):
        async def execute(self, input_data):
            inside.set()
            await asyncio.to_thread(leave.wait, 30)

    workflow = db.workflow().add_node("TransactionScopeNode", "scope")
    workflow.add_node("AccountUpdateNode", "one", {"id": 1, "balance": {"$inc": 1}}).add_node(Hold, "hold").build()

    async def main():
        threading.Timer(0.05, leave.set).start()
        return db.express_sync.update("Account", 1, {"balance": {"$inc": 10}})["balance"]

    thread = threading.Thread(target=lambda: asyncio.run(AsyncLocalRuntime().execute_async(workflow.build())))
    thread.start()
    inside.wait(30)
    assert asyncio.run(main()) == 11
    thread.join()


# -- nested calls -----------------------------------------------------------------------------------------------------
class Node(BaseDataFlowNode):
    """Calls the database in every way open to its kind."""

    async def ask(self):
        await self.db.express.create("Account", {"balance": 10})
        await self.query("INSERT INTO accounts (balance) VALUES (:n)", {"n": 20})
        return await self.db.express.count("Account")

    def ask_blocking(self):
        self.db.express_sync.create("Account", {"balance": 10})
        self.run_custom_query("INSERT INTO accounts (balance) VALUES ($1)", [20])
        return self.db.express_sync.count("Account")


class Awaits(Node):
    async def execute(self, input_data):
        return await self.ask()


class Blocks(Node):
    def execute(self, input_data):
        return self.ask_blocking()


class StaysOnTheLoop(Node):
    blocking = False

    def execute(self, input_data):
        self.db.express_sync.create("Account", {"balance": 10})
        self.db.express_sync.create("Account", {"balance": 20})
        return self.db.express_sync.count("Account")


class AwaitsAndBlocks(Node):
    async def execute(self, input_data):
        return await asyncio.to_thread(self.ask_blocking)


NODES = [Awaits, Blocks, StaysOnTheLoop, AwaitsAndBlocks]


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("how", ["sync", "async", "sync with timeout", "sync in a loop"])
def test_calls_inside_a_node_join_the_transaction_of_the_run(db, node, fails, how):
    builder = db.workflow().add_node("TransactionScopeNode", "scope")
    builder.add_node("AccountCreateNode", "first", {"balance": 1}).add_node(node, "own")
    table = "nowhere" if fails else "accounts"
    workflow = builder.add_node("AsyncSQLDatabaseNode", "last", {"query": f"SELECT * FROM {table}"}).build()

    async def in_loop():
        return LocalRuntime().execute(workflow)

    act = {
        "sync": lambda: LocalRuntime().execute(workflow),
        "async": lambda: asyncio.run(AsyncLocalRuntime().execute_async(workflow)),
        "sync with timeout": lambda: LocalRuntime(timeout=30).execute(workflow),
        "sync in a loop": lambda: asyncio.run(in_loop()),
    }[how]
    if fails:
        with pytest.raises(WorkflowExecutionError, match="node 'last' failed") as caught:
            act()
        assert caught.value.results["own"] == {"count": 4}  # inside, everything was there
        assert db.express_sync.count("Account") == {"count": 1}
    else:
        results, _ = act()
        assert results["own"] == {"count": 4}
        assert db.express_sync.count("Account") == {"count": 4}


@pytest.mark.parametrize("node", NODES)
def test_calls_inside_a_node_outside_a_transaction_are_their_own(db, node):
    builder = db.workflow().add_node("AccountCreateNode", "first", {"balance": 1}).add_node(node, "own")
    workflow = builder.add_node("AsyncSQLDatabaseNode", "last", {"query": "SELECT * FROM nowhere"}).build()
    for n, run in enumerate((LocalRuntime().execute, lambda w: asyncio.run(AsyncLocalRuntime().execute_async(w))), 1):
        with pytest.raises(WorkflowExecutionError, match="node 'last' failed"):
            run(workflow)
        assert db.express_sync.count("Account") == {"count": 1 + 3 * n}


async def test_after_a_run_the_task_that_awaited_it_is_outside_of_it_again(db):
    builder = db.workflow().add_node("TransactionScopeNode", "scope")
    builder.add_node("AccountCreateNode", "first", {"balance": 1})
    builder.add_node("AsyncSQLDatabaseNode", "last", {"query": "SELECT * FROM nowhere"})
    with pytest.raises(WorkflowExecutionError):
        await AsyncLocalRuntime().execute_async(builder.build())
    assert (await db.express.create("Account", {"balance": 1}))["id"] == 2
    assert db.express_sync.count("Account") == {"count": 2}


def test_a_node_may_run_another_workflow(db):
    inner = increments(db, scope=True)

    @db.register_node
    class Runs(BaseDataFlowNode):
        def execute(self, input_data):
            return {"balance": LocalRuntime().execute(inner)[0]["two"]["balance"]}

    @db.register_node
    class RunsAwaiting(BaseDataFlowNode):
        async def execute(self, input_data):
            return {"balance": (await AsyncLocalRuntime().execute_async(inner))[0]["two"]["balance"]}

    builder = db.workflow().add_node("AccountReadNode", "look", {"id": 1}).add_node("Runs", "sync")
    workflow = builder.add_node("RunsAwaiting", "async").add_node("AccountReadNode", "again", {"id": 1}).build()
    results, _ = LocalRuntime().execute(workflow)
    assert [results[node]["balance"] for node in ("look", "sync", "async", "again")] == [0, 2, 4, 4]
    results, _ = asyncio.run(AsyncLocalRuntime().execute_async(workflow))
    assert results["again"]["balance"] == 8


# -- parallel branches ------------------------------------------------------------------------------------------------
def diamond(builder, name, *, scope, pause):
    """top -> (left, right, a node that is no database operation) -> bottom; all in one transaction if asked for."""
    if scope:
        builder.add_node("TransactionScopeNode", f"{name}_scope")
    for corner in ("top", "left", "right", "bottom"):
        builder.add_node("AccountUpdateNode", f"{name}_{corner}", {"id": 1, "balance": {"$inc": 1}})
    builder.add_node(pause, f"{name}_pause")
    if scope:
        builder.add_connection(f"{name}_scope", "result", f"{name}_top", "input")
    for side in ("left", "right", "pause"):
        builder.add_connection(f"{name}_top", "result", f"{name}_{side}", "input")
        builder.add_connection(f"{name}_{side}", "result", f"{name}_bottom", "input")


@pytest.mark.parametrize("most", [1, 2, 8])
async def test_diamonds_and_transactions_run_side_by_side_and_come_out_whole(db, most):
    class Pause(BaseDataFlowNode):
        async def execute(self, input_data):
            await asyncio.sleep(0.001)

    builder = db.workflow()
    for number in range(6):
        diamond(builder, f"d{number}", scope=number % 2 == 0, pause=Pause)
    workflow = builder.build()
    results, _ = await AsyncLocalRuntime(max_concurrency=most).execute_async(workflow)
    assert (await db.express.read("Account", 1))["balance"] == 24
    for number in range(6):
        found = {corner: results[f"d{number}_{corner}"]["balance"] for corner in ("top", "left", "right", "bottom")}
        assert found["top"] < min(found["left"], found["right"])
        assert max(found["left"], found["right"]) < found["bottom"]
        if number % 2 == 0:  # nobody else wrote inside the transaction
            assert found["bottom"] == found["top"] + 3
    results, _ = await asyncio.to_thread(LocalRuntime(max_concurrency=most).execute, workflow)
    assert (await db.express.read("Account", 1))["balance"] == 48


async def test_a_transaction_in_a_branch_is_undone_when_another_branch_fails(db):
    inside = asyncio.Event()

    class Waits(BaseDataFlowNode):
        async def execute(self, input_data):
            inside.set()
            await asyncio.sleep(60)

    class Fails(BaseDataFlowNode):
        async def execute(self, input_data):
            await inside.wait()
            msg = "broken"
            raise ValueError(msg)

    builder = db.workflow().add_node("TransactionScopeNode", "scope")
    builder.add_node("AccountUpdateNode", "one", {"id": 1, "balance": 9}).add_node(Waits, "wait")
    builder.add_node("AccountUpdateNode", "two", {"id": 1, "balance": 9}).add_node(Fails, "fail")
    for source, target in (("scope", "one"), ("one", "wait"), ("wait", "two")):
        builder.add_connection(source, "result", target, "input")
    with pytest.raises(WorkflowExecutionError, match="node 'fail' failed: ValueError: broken") as caught:
        await AsyncLocalRuntime(max_concurrency=2).execute_async(builder.build())
    assert caught.value.results["one"]["balance"] == 9
    assert (await db.express.read("Account", 1))["balance"] == 0
    assert (await db.express.update("Account", 1, {"balance": 3}))["updated"] == 1


async def test_at_most_so_many_branches_run_at_once(db):
    running, most = [], []

    class Runs(BaseDataFlowNode):
        async def execute(self, input_data):
            running.append(1)
            most.append(len(running))
            await asyncio.sleep(0.002)
            running.pop()

    builder = db.workflow()
    for n in range(12):
        builder.add_node(Runs, f"n{n}")
    for limit in (1, 3, 20):
        most.clear()
        await AsyncLocalRuntime(max_concurrency=limit).execute_async(builder.build())
        assert max(most) == min(limit, 12)


# -- progress ---------------------------------------------------------------------------------------------------------
async def test_progress_hears_of_failures_and_of_what_was_interrupted(db):
    class Waits(BaseDataFlowNode):
        async def execute(self, input_data):
            await asyncio.sleep(60)

    events = []

    def note(event):
        events.append((event.node_id, event.state, event.seconds > 0, event.result is not None))

    builder = db.workflow().add_node("AccountReadNode", "read", {"id": 1})
    failing = builder.add_node("AsyncSQLDatabaseNode", "sql", {"query": "SELECT * FROM nowhere"}).build()
    for execute in (AsyncLocalRuntime(progress=note).execute_async, LocalRuntime(progress=note).execute):
        events.clear()
        with pytest.raises(WorkflowExecutionError):
            await found if asyncio.iscoroutine(found := execute(failing)) else found
        assert events == [
            ("read", "running", False, False), ("read", "done", True, True),
            ("sql", "running", False, False), ("sql", "failed", True, False),
        ]  # fmt: skip
    events.clear()
    with pytest.raises(DatabaseTimeout):
        await AsyncLocalRuntime(progress=note, timeout=0.05).execute_async(db.workflow().add_node(Waits, "w").build())
    assert events == [("w", "running", False, False), ("w", "failed", True, False)]


@pytest.mark.parametrize("scope", [False, True])
async def test_a_progress_callback_that_raises_is_logged_and_the_run_goes_on(db, scope, capsys):
    def break_down(event):
        if event.node_id == "look":
            msg = "no terminal"
            raise OSError(msg)

    workflow = increments(db, scope=scope)
    for execute in (AsyncLocalRuntime(progress=break_down).execute_async, LocalRuntime(progress=break_down).execute):
        results, _ = await found if asyncio.iscoroutine(found := execute(workflow)) else found
        assert list(results)[-1] == "two"
        assert "no terminal" in capsys.readouterr().err
    assert (await db.express.read("Account", 1))["balance"] == 4


# -- interruption -----------------------------------------------------------------------------------------------------
async def test_cancelling_a_run_is_seen_as_cancelling_by_whoever_awaits_it(db):
    """Not as a failed node: `asyncio.timeout()` and task groups depend on it."""

    class Waits(BaseDataFlowNode):
        async def execute(self, input_data):
            await asyncio.sleep(60)

    for builder in (
        db.workflow().add_node(Waits, "wait"),
        db.workflow()
        .add_node("TransactionScopeNode", "scope")
        .add_node("AccountReadNode", "a", {"id": 1})
        .add_node(Waits, "wait")
        .add_node("AccountReadNode", "b", {"id": 1}),
    ):
        for most in (1, 4):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await AsyncLocalRuntime(max_concurrency=most).execute_async(builder.build())
    assert (await db.express.update("Account", 1, {"balance": 3}))["updated"] == 1


def test_what_a_node_raises_to_leave_the_program_is_not_turned_into_a_failed_node(db):
    class Leaves(BaseDataFlowNode):
        def execute(self, input_data):
            raise input_data["error"]

    for error in (SystemExit(3), KeyboardInterrupt()):
        builder = db.workflow().add_node("TransactionScopeNode", "scope", {"rollback_on_error": False})
        builder.add_node("AccountUpdateNode", "one", {"id": 1, "balance": 9}).add_node(
            Leaves, "leave", {"error": error}
        )
        workflow = builder.add_node("AccountReadNode", "look", {"id": 1}).build()
        with pytest.raises(type(error)):
            LocalRuntime().execute(workflow)
        assert balance(db) == 0


INTERRUPTED = {
    "statement": "LocalRuntime().execute(endless)",
    "statement in a worker": "LocalRuntime(timeout=100).execute(endless)",
    "node": "LocalRuntime().execute(sleeping)",
    "awaiting node": "LocalRuntime().execute(awaiting)",
    "asyncio.run": "asyncio.run(AsyncLocalRuntime().execute_async(awaiting))",
    "asyncio.run, statement": "asyncio.run(AsyncLocalRuntime().execute_async(endless))",
}
SCRIPT = """
    import asyncio, threading, time
    from dataflow import BaseDataFlowNode, DataFlow
    from dataflow.runtime import AsyncLocalRuntime, LocalRuntime

    db = DataFlow("sqlite:///bank.db")

    @db.model
    class Account:
        balance: int = 0

    db.express_sync.create("Account", {{}})

    class Sleeps(BaseDataFlowNode):
        def execute(self, input_data):
            print("now", flush=True)
            time.sleep(60)

    class Awaits(BaseDataFlowNode):
        async def execute(self, input_data):
            print("now", flush=True)
            await asyncio.sleep(60)

    class Tells(BaseDataFlowNode):
        def execute(self, input_data):
            print("now", flush=True)

    def build(*nodes):
        builder = db.workflow().add_node("TransactionScopeNode", "scope")
        builder.add_node("AccountUpdateNode", "one", {{"id": 1, "balance": 9}})
        for position, (kind, params) in enumerate(nodes):
            builder.add_node(kind, f"n{{position}}", params)
        return builder.add_node("AccountReadNode", "look", {{"id": 1}}).build()

    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    query = "INSERT INTO accounts (balance) " + numbers
    endless = build((Tells, {{}}), ("AsyncSQLDatabaseNode", {{"query": query}}))
    sleeping, awaiting = build((Sleeps, {{}})), build((Awaits, {{}}))
    try:
        {act}
    except KeyboardInterrupt:
        print(db.express_sync.read("Account", 1)["balance"], db.express_sync.count("Account")["count"], flush=True)
        db.express_sync.update("Account", 1, {{"balance": 1}})
        raise
"""


@pytest.mark.parametrize("act", INTERRUPTED)
def test_ctrl_c_ends_whatever_is_under_way_undone_and_the_program_may_go_on(tmp_path, act):
    script = textwrap.dedent(SCRIPT.format(act=INTERRUPTED[act]))
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "now\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert output == "0 1\n"
    assert process.returncode == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt"), errors
    assert "Task was destroyed" not in errors
    assert "ResourceWarning" not in errors
    with contextlib.closing(sqlite3.connect(tmp_path / "bank.db")) as connection:
        assert connection.execute("SELECT balance FROM accounts").fetchall() == [(1,)]


def test_ctrl_c_while_waiting_for_another_run_leaves_the_queue(db):
    inside, leave = threading.Event(), threading.Event()

    class Hold(BaseDataFlowNode):
        def execute(self, input_data):
            inside.set()
            leave.wait(30)

    workflow = db.workflow().add_node("TransactionScopeNode", "scope")
    workflow.add_node("AccountUpdateNode", "one", {"id": 1, "balance": {"$inc": 1}}).add_node(Hold, "hold")
    thread = threading.Thread(target=LocalRuntime().execute, args=[workflow.build()])
    thread.start()
    inside.wait(30)

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        with pytest.raises(KeyboardInterrupt):
            db.express_sync.update("Account", 1, {"balance": 99})
    finally:
        signal.signal(signal.SIGUSR1, before)
    leave.set()
    thread.join()
    assert db.express_sync.update("Account", 1, {"balance": {"$inc": 1}})["balance"] == 2


@pytest.mark.parametrize(("name", "code"), [("trio", "bad-setting"), ("uvloop", "missing-capability"), ("", None)])
def test_the_loop_of_synchronous_calls_is_named_by_the_environment(name: str, code: str | None) -> None:
    """uvloop is not installed where the tests run; a name that is none is refused, not ignored."""
    script = (
        "import sys; sys.modules['uvloop'] = None\n"
        "from dataflow import _loop\n"
        "from dataflow.errors import DataFlowError\n"
        "async def one(): return 1\n"
        "try: print(_loop.run(one()))\n"
        "except DataFlowError as error: print(error.code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env={**os.environ, "DATAFLOW_EVENT_LOOP": name},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == (str(code or 1), "")
