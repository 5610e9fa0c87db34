"""Closing, forgetting and outliving: instances, loops, processes; the server is told whenever that is possible."""

import asyncio
import gc
import multiprocessing
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref

import pytest

from dataflow.errors import UsageError, WorkflowExecutionError
from dataflow.runtime import LocalRuntime

WAIT = "SELECT pg_advisory_xact_lock(1)"
SLEEP = "SELECT pg_sleep(600)"


async def use(db, n=1):
    await db.express.create("Row", {"n": n})
    await asyncio.gather(*[db.express.count("Row") for _ in range(3)])


# -- closing ----------------------------------------------------------------------------------------------------------
def test_a_closed_instance_refuses_everything_and_may_be_closed_again(pg):
    db = pg.open()
    workflow = db.workflow().add_node("RowCreateNode", "c", {"n": 1}).build()
    LocalRuntime().execute(workflow)
    asyncio.run(use(db, 2))
    db.close()
    db.close()
    asyncio.run(db.aclose())
    pg.until(lambda: not pg.connections())
    for call in (
        lambda: db.express_sync.create("Row", {"n": 3}),
        lambda: db.express_sync.count("Row"),
        lambda: LocalRuntime().execute(workflow),
        lambda: LocalRuntime(timeout=5).execute(workflow),
        db.show_tables,
        lambda: asyncio.run(db.express.count("Row")),
        lambda: asyncio.run(db.initialize()),
    ):
        with pytest.raises(Exception, match="this DataFlow is closed"):
            call()
    assert not pg.connections()
    assert db.health()["ok"] is False


async def test_closing_waits_for_operations_under_way_and_who_waits_for_a_connection_is_told(pg):
    db = pg.open(pool_size=1, pool_max_overflow=1)
    await db.initialize()
    with pg.locked(1):
        working = [asyncio.create_task(pg.run(db, ("RowCreateNode", {"n": n}), WAIT)) for n in range(2)]
        await pg.eventually(lambda: len(pg.connections("wait_event_type = 'Lock'")) == 2)
        waiting = asyncio.create_task(db.express.create("Row", {"n": 7}))
        await asyncio.sleep(0)
        closing = asyncio.create_task(db.aclose())
        with pytest.raises(UsageError, match="closed"):
            await waiting
        with pytest.raises(UsageError, match="closed"):
            await db.express.create("Row", {"n": 8})
        assert not closing.done()
    assert len(await asyncio.gather(*working)) == 2
    await closing
    assert not pg.connections()
    assert pg.stored() == [0, 1]


@pytest.mark.parametrize("how", ["aclose", "close", "thread"])
async def test_closing_ends_what_takes_too_long_and_stops_it_on_the_server(pg, how):
    db = pg.open(lock_timeout=0.2)
    await db.initialize()
    scope = pg.run(db, "TransactionScopeNode", ("RowCreateNode", {"n": 1}), SLEEP)
    tasks = [asyncio.create_task(scope), asyncio.create_task(pg.sql(db, SLEEP))]
    await pg.eventually(lambda: len(pg.connections("query = 'SELECT pg_sleep(600)'")) == 2)
    if how == "aclose":
        await db.aclose()
    elif how == "close":
        db.close()
    else:
        await asyncio.to_thread(db.close)
    for failure in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(failure, WorkflowExecutionError)
    await pg.eventually(lambda: not pg.connections())
    assert pg.stored() == []


async def test_cancelling_the_closing_leaves_operations_alone_and_connections_go_with_them(pg):
    db = pg.open()
    await db.initialize()
    with pg.locked(1):
        working = asyncio.create_task(pg.run(db, ("RowCreateNode", {"n": 1}), WAIT))
        await pg.eventually(lambda: pg.connections("wait_event_type = 'Lock'"))
        closing = asyncio.create_task(db.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
    await working
    await pg.eventually(lambda: not pg.connections())
    assert pg.stored() == [1]


def test_closing_works_from_another_loop(pg, background):
    db = pg.open()
    background.run(use(db))
    db.express_sync.count("Row")
    assert len(pg.connections()) >= 2
    asyncio.run(db.aclose())
    assert not pg.connections()


@pytest.mark.parametrize("how", ["close", "aclose"])
def test_closing_while_another_loop_is_about_to_end_does_not_wait_for_it_for_ever(pg, how):
    chance = random.Random(3)
    for n in range(25):
        db = pg.open()
        started, failures = threading.Event(), []

        def work(db=db, n=n, started=started, failures=failures):
            async def main():
                await db.express.create("Note", {"text": str(n)})
                started.set()
                await asyncio.sleep(chance.random() * 0.004)

            try:
                asyncio.run(main())
            except UsageError:
                pass
            except BaseException as error:
                failures.append(error)
                raise

        thread = threading.Thread(target=work)
        thread.start()
        started.wait(20)
        time.sleep(chance.random() * 0.004)
        if how == "close":
            db.close()
        else:
            asyncio.run(db.aclose())
        thread.join()
        assert failures == []
    pg.until(lambda: not pg.connections())


async def test_a_connection_being_opened_while_the_pool_closes_is_not_left_behind(pg, proxy):
    db = pg.open(proxy.url(pg.url))
    proxy.hold()
    opening = asyncio.create_task(db.express.count("Row"))
    await pg.eventually(lambda: proxy.wires)
    closing = asyncio.create_task(db.aclose())
    await asyncio.sleep(0)
    proxy.release()
    with pytest.raises(UsageError, match="closed"):
        await opening
    await closing
    await pg.eventually(lambda: not pg.connections())


# -- the end of a loop ------------------------------------------------------------------------------------------------
def nothing(pg):
    async def main():
        await use(pg.open())

    asyncio.run(main())


def context_manager(pg):
    async def main():
        with pg.open() as db:
            await use(db)

    asyncio.run(main())


def async_context_manager(pg):
    async def main():
        async with pg.open() as db:
            await use(db)

    asyncio.run(main())


def close_and_go_on(pg):
    async def main():
        db = pg.open()
        await use(db)
        db.close()
        await asyncio.sleep(0.01)

    asyncio.run(main())


def unreferenced(pg):
    async def main():
        db = pg.open()
        pg.opened.clear()
        await use(db)

    asyncio.run(main())


def unreferenced_while_the_loop_goes_on(pg):
    async def main():
        db = pg.open()
        pg.opened.clear()
        await use(db)
        gone = weakref.ref(db)
        del db
        gc.collect()
        assert gone() is None
        await pg.eventually(lambda: not pg.connections())

    asyncio.run(main())


def unreferenced_in_another_thread(pg):
    async def main():
        held = [pg.open()]
        pg.opened.clear()
        await use(held[0])
        await asyncio.to_thread(held.clear)
        await pg.eventually(lambda: not pg.connections())

    asyncio.run(main())


def tasks_that_the_end_cancels(pg):
    async def main():
        db = pg.open()
        await use(db)
        background = asyncio.create_task(pg.sql(db, SLEEP))
        await pg.eventually(lambda: pg.connections("query = 'SELECT pg_sleep(600)'"))
        return background

    asyncio.run(main())


def closed_between_two_runs(pg):
    with asyncio.Runner() as runner:
        db = pg.open()
        runner.run(use(db))
        db.close()
        assert not pg.connections()
        runner.run(asyncio.sleep(0))


def closed_between_two_runs_by_another_thread(pg):
    with asyncio.Runner() as runner:
        db = pg.open()
        runner.run(use(db))
        closing = threading.Thread(target=db.close)
        closing.start()
        closing.join()
        pg.until(lambda: not pg.connections())
        runner.run(asyncio.sleep(0))


def loop_closed_without_notice(pg):
    loop = asyncio.new_event_loop()
    db = pg.open()
    loop.run_until_complete(use(db))
    loop.close()
    db.close()


def loop_closed_without_notice_and_the_next_one(pg):
    db = pg.open()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(use(db))
    pids = pg.connections()
    loop.close()
    del loop
    asyncio.run(use(db, 2))
    pg.until(lambda: not set(pids) & set(pg.connections()))


def loop_closed_with_a_transaction_open(pg):
    db = pg.open()
    loop = asyncio.new_event_loop()
    task = loop.create_task(pg.run(db, "TransactionScopeNode", ("RowCreateNode", {"n": 5}), WAIT))
    with pg.locked(1):
        while not pg.connections("wait_event_type = 'Lock'"):
            loop.run_until_complete(asyncio.sleep(0.01))
        task._log_destroy_pending = False  # what asyncio says of such tasks is not the point
        loop.close()
        del task, loop
        gc.collect()
    db.close()


ENDS = [
    nothing,
    context_manager,
    async_context_manager,
    close_and_go_on,
    unreferenced,
    unreferenced_while_the_loop_goes_on,
    unreferenced_in_another_thread,
    tasks_that_the_end_cancels,
    closed_between_two_runs,
    closed_between_two_runs_by_another_thread,
    loop_closed_without_notice,
    loop_closed_without_notice_and_the_next_one,
    loop_closed_with_a_transaction_open,
]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_whatever_ends_first_no_connection_and_no_warning_is_left(pg, caplog, end):
    with pg.open() as db:
        db.express_sync.count("Row")
    pg.opened.clear()
    for _ in range(3):
        end(pg)
        gc.collect()
        pg.until(lambda: not pg.connections())
        pg.server.rows(f"TRUNCATE {pg.schema}.rows")
    assert caplog.records == []


@pytest.mark.parametrize("text", [b"BEGIN", b"SAVEPOINT", b"COMMIT"])
def test_a_loop_closed_in_mid_statement_leaves_nothing_open_on_the_server(pg, proxy, caplog, text):
    pg.open().express_sync.count("Row")
    db = pg.open(proxy.url(pg.url), lock_timeout=15)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(db.express.count("Row"))
    proxy.on(text, "hold-reply")
    task = loop.create_task(pg.run(db, "TransactionScopeNode", ("RowCreateNode", {"n": 5}), "SELECT 1"))
    while not proxy.seen.is_set():
        loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    del task, loop
    gc.collect()
    db.close()
    proxy.release()
    gc.collect()
    assert all("Task was destroyed but it is pending" in record.message for record in caplog.records)
    pg.until(lambda: not pg.active())


def test_an_instance_that_nobody_refers_to_is_closed(pg):
    db = pg.open()
    pg.opened.clear()
    db.express_sync.create("Row", {"n": 1})
    assert pg.connections()
    del db
    gc.collect()
    pg.until(lambda: not pg.connections())


# -- the end of the interpreter ---------------------------------------------------------------------------------------
SCRIPTS = [
    "db.express_sync.create('Row', {'n': N})",
    "asyncio.run(db.express.create('Row', {'n': N}))",
    "asyncio.run(db.express.create('Row', {'n': N}))\ndb.express_sync.read('Row', 1)",
    "async def main():\n    await db.express.create('Row', {'n': N})\n    sys.exit(0)\nasyncio.run(main())",
    "loop = asyncio.new_event_loop()\nloop.run_until_complete(db.express.create('Row', {'n': N}))\nloop.close()",
]


def test_scripts_that_never_close_end_by_themselves_and_say_goodbye(pg):
    processes = []
    for n, body in enumerate(SCRIPTS):
        command = [sys.executable, "-W", "error", "-c", pg.text(body.replace("N", str(n))), *pg.words()]
        processes.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    try:
        for process in processes:
            _, errors = process.communicate(timeout=60)
            assert (process.returncode, errors) == (0, "")
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    pg.until(lambda: not pg.connections())
    assert pg.stored() == [0, 1, 2, 3, 4]


def test_exit_in_mid_run_stops_the_statement_and_leaves_nothing_half_written(pg):
    done = pg.script(
        """
        db.express_sync.create("Row", {"n": 1})
        scope = db.workflow().add_node("TransactionScopeNode", "scope").add_node("RowCreateNode", "a", {"n": 2})
        scope.add_node("AsyncSQLDatabaseNode", "b", {"query": "SELECT pg_sleep(600)"})
        built = scope.build()
        def work():
            with contextlib.suppress(Exception):
                LocalRuntime().execute(built)
        threading.Thread(target=work, daemon=True).start()
        query = "SELECT count(*) AS n FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'"
        look = db.workflow().add_node("AsyncSQLDatabaseNode", "look", {"query": query}).build()
        while LocalRuntime().execute(look)[0]["look"]["result"]["data"][0]["n"] == 0:
            pass
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
    pg.until(lambda: not pg.connections())
    assert pg.stored() == [1]


def test_ctrl_c_stops_the_statement_of_a_synchronous_call_and_the_instance_goes_on(pg):
    script = """
        @db.register_node
        class Blocks(BaseDataFlowNode):
            def execute(self, input_data):
                return {"rows": self.run_custom_query("SELECT pg_sleep(600)")}
        def run(*nodes):
            params = {
                "RowCreateNode": {"n": 5},
                "AsyncSQLDatabaseNode": {"query": "SELECT pg_sleep(600)"},
                "RowBulkCreateNode": {"data": [{"n": 6}, {"n": 600}]},
            }
            builder = db.workflow()
            for node in nodes:
                builder.add_node(node, node.lower(), params.get(node, {}))
            return LocalRuntime().execute(builder.build())
        signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let background jobs ignore it
        db.express_sync.create("Row", {"n": 1})
        print("ready", flush=True)
        sys.stdin.readline()
        for call in (
            lambda: run("AsyncSQLDatabaseNode"),
            lambda: run("TransactionScopeNode", "RowCreateNode", "AsyncSQLDatabaseNode"),
            lambda: run("TransactionScopeNode", "RowCreateNode", "Blocks"),
            lambda: db.express_sync.create("Row", {"n": 600}),
            lambda: run("RowBulkCreateNode"),
        ):
            try:
                call()
            except KeyboardInterrupt:
                print("interrupted", db.express_sync.count("Row")["count"], flush=True)
                sys.stdin.readline()
    """
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", pg.text(script), *pg.words()],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "ready\n"
        pg.slow_to_insert(600)
        for _ in range(5):
            process.stdin.write("\n")
            process.stdin.flush()
            pg.until(lambda: pg.connections("wait_event = 'PgSleep'"))
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "interrupted 1\n"
            pg.until(lambda: not pg.active())
        assert process.communicate("\n", timeout=60) == ("", "")
    finally:
        process.kill()
        process.communicate()
    assert pg.stored() == [1]


# -- other processes --------------------------------------------------------------------------------------------------
def test_after_a_fork_parent_and_child_both_go_on_with_connections_of_their_own(pg):
    done = pg.script(
        """
        import warnings
        warnings.filterwarnings("ignore", message=".*multi-threaded.*", category=DeprecationWarning)
        def pid():
            query = {"query": "SELECT pg_backend_pid() AS p"}
            built = db.workflow().add_node("AsyncSQLDatabaseNode", "p", query).build()
            return LocalRuntime().execute(built)[0]["p"]["result"]["data"][0]["p"]
        db.express_sync.create("Row", {"n": 1})
        mine = pid()
        with asyncio.Runner() as runner:
            runner.run(db.express.count("Row"))
            child = os.fork()
            if child == 0:
                assert pid() != mine
                db.express_sync.create("Row", {"n": 2})
                asyncio.run(db.express.create("Row", {"n": 3}))
                sys.exit(0)  # with all that the interpreter does at its end
            assert os.waitpid(child, 0)[1] == 0
            assert pid() == mine
            print(runner.run(db.express.count("Row")), db.express_sync.count("Row"))
        db.close()
        """
    )
    assert (done.stdout, done.stderr) == ("{'count': 3} {'count': 3}\n", "")


def test_closing_in_the_child_of_a_fork_leaves_the_parent_alone(pg):
    done = pg.script(
        """
        import gc, warnings
        warnings.filterwarnings("ignore", message=".*multi-threaded.*", category=DeprecationWarning)
        db.express_sync.create("Row", {"n": 1})
        before = db.core.database.describe()
        child = os.fork()
        if child == 0:
            db.close()
            del db, Row
            gc.collect()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert db.core.database.describe() == before
        print(db.express_sync.count("Row"))
        """
    )
    assert (done.stdout, done.stderr) == ("{'count': 1}\n", "")


def test_the_child_of_a_fork_inside_a_transaction_is_told_so_instead_of_waiting_for_ever(pg):
    done = pg.script(
        """
        import warnings
        warnings.filterwarnings("ignore", message=".*multi-threaded.*", category=DeprecationWarning)
        @db.register_node
        class Forks(BaseDataFlowNode):
            def execute(self, input_data):
                child = os.fork()
                if child == 0:
                    try:
                        self.run_custom_query("SELECT 1")
                    except BaseException as error:
                        os._exit(7 if getattr(error, "code", "") == "forked-in-use" else 8)
                    os._exit(9)
                return {"status": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}
        builder = db.workflow().add_node("TransactionScopeNode", "s").add_node("RowCreateNode", "a", {"n": 1})
        built = builder.add_node("Forks", "forks").add_node("RowCreateNode", "b", {"n": 2}).build()
        print(LocalRuntime().execute(built)[0]["forks"]["status"], db.express_sync.count("Row"))
        """
    )
    assert (done.stdout, done.stderr) == ("7 {'count': 2}\n", "")


PROCESSES = """
import multiprocessing
import sys
import warnings

from dataflow import DataFlow
from dataflow.runtime import LocalRuntime

db = DataFlow(sys.argv[1], postgres_application_name=sys.argv[2], postgres_schema=sys.argv[3], pool_size=5)


@db.model
class Row:
    n: int


def work(number):
    workflow = db.workflow().add_node("RowCreateNode", "a", {"n": number})
    workflow.add_node("RowBulkCreateNode", "b", {"data": [{"n": number}] * 3})
    return LocalRuntime().execute(workflow.build())[0]["b"]["created"]


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message=".*multi-threaded.*", category=DeprecationWarning)
    db.express_sync.create("Row", {"n": 1})
    with multiprocessing.get_context(sys.argv[4]).Pool(2) as pool:
        print(sum(pool.map(work, range(10))))
        pool.close()
        pool.join()
    print(db.express_sync.count("Row")["count"])
"""


@pytest.mark.parametrize("method", [m for m in multiprocessing.get_all_start_methods() if m != "forkserver"])
def test_pools_of_processes_work_with_an_instance_of_the_module(pg, tmp_path, method):
    (tmp_path / "script.py").write_text(textwrap.dedent(PROCESSES))
    done = subprocess.run(
        [sys.executable, "-W", "error", "script.py", *pg.words(), method],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("30\n41\n", "")
    pg.until(lambda: not pg.connections())
