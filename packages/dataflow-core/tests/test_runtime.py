"""Runtimes under load: threads, tasks, running loops, timeouts, interruption."""

import asyncio
import contextvars
import signal
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
