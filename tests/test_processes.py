"""Processes: scripts that never close, forks, several processes on one file, exit in mid-run."""

import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing

import pytest

from dataflow import DataFlow

MODEL = """
import asyncio, os, sys
from dataflow import DataFlow
db = DataFlow(sys.argv[1])
@db.model
class Note:
    text: str
"""


def run(script, folder, url="sqlite:///notes.db", timeout=30):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", MODEL + textwrap.dedent(script), url],
        cwd=folder, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def count(folder):
    with closing(sqlite3.connect(folder / "notes.db")) as connection:
        return connection.execute("SELECT count(*) FROM notes").fetchone()[0]


@pytest.mark.parametrize(
    "body",
    [
        "db.express_sync.create('Note', {'text': 'x'})",
        "asyncio.run(db.express.create('Note', {'text': 'x'}))",
        "asyncio.run(db.express.create('Note', {'text': 'x'}))\ndb.express_sync.read('Note', 1)",
        "async def main():\n    await db.express.create('Note', {'text': 'x'})\n    sys.exit(0)\nasyncio.run(main())",
    ],
    ids=["sync", "async", "both", "exit-in-loop"],
)
def test_a_script_that_never_closes_ends_by_itself_with_its_data_safe(tmp_path, body):
    done = run(body, tmp_path, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")
    assert count(tmp_path) == 1


def test_exit_during_a_run_leaves_nothing_half_written(tmp_path):
    done = run(
        """
        import threading, time
        from dataflow import BaseDataFlowNode
        from dataflow.runtime import LocalRuntime
        db.express_sync.create("Note", {"text": "before"})
        reached = threading.Event()
        @db.register_node
        class Hold(BaseDataFlowNode):
            def execute(self, input_data):
                reached.set()
                time.sleep(60)
        workflow = db.workflow().add_node("TransactionScopeNode", "scope")
        workflow.add_node("NoteCreateNode", "one", {"text": "half"}).add_node("Hold", "hold")
        workflow.add_node("NoteListNode", "look")
        threading.Thread(target=LocalRuntime().execute, args=(workflow.build(),), daemon=True).start()
        reached.wait(10)
        """,
        tmp_path,
        timeout=20,
    )
    assert done.returncode == 0
    assert count(tmp_path) == 1


@pytest.mark.parametrize("url", ["sqlite:///notes.db", ":memory:"])
def test_after_a_fork_parent_and_child_both_go_on(tmp_path, url):
    done = run(
        """
        db.express_sync.create("Note", {"text": "parent"})
        asyncio.run(db.express.create("Note", {"text": "parent"}))
        child = os.fork()
        if not child:
            code = 1
            try:
                db.express_sync.create("Note", {"text": "child"})
                asyncio.run(db.express.create("Note", {"text": "child"}))
                code = 0 if db.express_sync.count("Note")["count"] == 4 else 2
            finally:
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), db.express_sync.count("Note")["count"])
        db.close()
        """,
        tmp_path,
        url,
    )
    expected = "0 4\n" if url != ":memory:" else "0 2\n"  # memory was copied with the process
    assert (done.stdout, done.stderr) == (expected, "")


WRITER = """
db.express_sync.bulk_create("Note", [{"text": "x"}] * 20)
for _ in range(20):
    db.express_sync.create("Note", {"text": "x"})
"""


def test_several_processes_create_the_tables_and_write_at_the_same_time(tmp_path):
    command = [sys.executable, "-W", "error", "-c", MODEL + WRITER, "sqlite:///notes.db"]
    processes = [subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) for _ in range(6)]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert errors == [""] * 6
    assert count(tmp_path) == 6 * 40


# -- ending -------------------------------------------------------------------------------------------------------
MIXED = {
    "a timeout, so the background loop": """
        from dataflow.runtime import LocalRuntime
        workflow = db.workflow().add_node("NoteCreateNode", "n", {"text": "x"}).build()
        LocalRuntime(timeout=30).execute(workflow)
    """,
    "a sync node on a loop, so a worker thread": """
        from dataflow import BaseDataFlowNode
        from dataflow.runtime import AsyncLocalRuntime
        class Writes(BaseDataFlowNode):
            def execute(self, input_data):
                self.db.express_sync.create("Note", {"text": "x"})
        asyncio.run(AsyncLocalRuntime().execute_async(db.workflow().add_node(Writes, "w").build()))
    """,
    "from a thread": """
        import threading
        thread = threading.Thread(target=lambda: asyncio.run(db.express.create("Note", {"text": "x"})))
        thread.start()
        thread.join()
    """,
    "two instances, one closed": """
        other = DataFlow("sqlite:///other.db")
        asyncio.run(other.initialize())
        other.close()
        asyncio.run(db.express.create("Note", {"text": "x"}))
        db.express_sync.count("Note")
    """,
    "only reading": """
        async def main():
            await db.express.create("Note", {"text": "x"})
        asyncio.run(main())
        del main
        asyncio.run(db.express.list("Note"))
        asyncio.run(db.express.list("Note"))
    """,
}


@pytest.mark.parametrize("body", MIXED)
def test_however_it_was_used_a_script_ends_by_itself_without_a_warning(tmp_path, body):
    done = run(textwrap.dedent(MIXED[body]), tmp_path, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")
    assert count(tmp_path) == 1


def test_nothing_but_the_database_stays_behind_when_a_script_ends(tmp_path):
    done = run("db.express_sync.create('Note', {'text': 'x'})\nasyncio.run(db.express.count('Note'))", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [file.name for file in tmp_path.iterdir()] == ["notes.db"]  # the write-ahead log was taken up


@pytest.mark.parametrize(
    "how", ["LocalRuntime().execute(workflow)", "asyncio.run(AsyncLocalRuntime().execute_async(workflow))"]
)
def test_the_interpreter_does_not_wait_for_a_statement_of_a_daemon_thread(tmp_path, how):
    done = run(
        f"""
        import threading, time
        from dataflow.runtime import AsyncLocalRuntime, LocalRuntime
        db.express_sync.create("Note", {{"text": "before"}})
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT 'x' || i FROM n"
        workflow = db.workflow().add_node("TransactionScopeNode", "scope")
        workflow.add_node("NoteCreateNode", "n", {{"text": "no"}})
        workflow.add_node("AsyncSQLDatabaseNode", "sql", {{"query": "INSERT INTO notes (text) " + endless}})
        workflow = workflow.build()
        def work():
            try:
                {how}
            except BaseException:
                pass
        threading.Thread(target=work, daemon=True).start()
        raw = db.core.database.writer.raw
        while not raw.in_transaction:
            time.sleep(0.001)
        time.sleep(0.05)
        """,
        tmp_path,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert count(tmp_path) == 1


# -- forking ------------------------------------------------------------------------------------------------------
def test_a_child_that_ends_like_any_program_leaves_the_parents_database_alone(tmp_path):
    """It runs its own exit handlers, and so closes what it inherited or opened."""
    done = run(
        """
        asyncio.run(db.express.create("Note", {"text": "parent"}))
        db.express_sync.count("Note")
        for number in range(3):
            child = os.fork()
            if not child:
                if number:
                    asyncio.run(db.express.create("Note", {"text": "child"}))
                    db.express_sync.create("Note", {"text": "child"})
                sys.exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            db.express_sync.create("Note", {"text": "parent"})
            asyncio.run(db.express.create("Note", {"text": "parent"}))
        print(db.express_sync.count("Note")["count"])
        """,
        tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "11\n", "")
    assert count(tmp_path) == 11
    with closing(sqlite3.connect(tmp_path / "notes.db")) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_child_goes_on_after_its_parent_has_ended(tmp_path):
    done = run(
        """
        import time
        db.express_sync.create("Note", {"text": "parent"})
        parent = os.getpid()
        read, write = os.pipe()
        if not os.fork():
            os.close(write)
            os.read(read, 1)  # until the parent has gone, having closed its connections
            for _ in range(50):
                db.express_sync.create("Note", {"text": "child"})
            print(db.express_sync.count("Note")["count"])
            sys.exit(0)
        """,
        tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "51\n", "")
    assert count(tmp_path) == 51


def test_a_child_forked_in_the_middle_of_a_transaction_is_refused_the_file_and_the_parent_is_not(tmp_path):
    """SQLite keeps its locks per process: what the child wrote could be lost, and what the parent holds confused."""
    done = run(
        """
        import threading
        from dataflow import BaseDataFlowNode
        from dataflow.errors import UsageError
        from dataflow.runtime import LocalRuntime
        db.express_sync.create("Note", {"text": "before"})
        inside, leave = threading.Event(), threading.Event()
        class Hold(BaseDataFlowNode):
            def execute(self, input_data):
                inside.set()
                leave.wait(30)
        workflow = db.workflow().add_node("TransactionScopeNode", "scope")
        workflow.add_node("NoteCreateNode", "n", {"text": "x"})
        workflow.add_node(Hold, "hold").add_node("NoteCreateNode", "m", {"text": "y"})
        thread = threading.Thread(target=LocalRuntime().execute, args=[workflow.build()])
        thread.start()
        inside.wait(10)
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads, from Python 3.12 on
        child = os.fork()
        if not child:
            codes = []
            for act in (lambda: db.express_sync.count("Note"), lambda: DataFlow(sys.argv[1]).show_tables()):
                try:
                    act()
                except UsageError as error:
                    codes.append(error.code)
            os._exit(0 if codes == ["forked-in-use"] * 2 else 1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        leave.set()
        thread.join()
        print(code, db.express_sync.count("Note")["count"])
        """,
        tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 3\n", "")


def test_a_fork_waits_for_an_operation_that_is_about_to_end(tmp_path):
    done = run(
        """
        import threading, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        db.express_sync.create("Note", {"text": "before"})
        stop = threading.Event()
        def work():
            while not stop.is_set():
                db.express_sync.create("Note", {"text": "x"})
                db.express_sync.count("Note")
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        codes = []
        for _ in range(10):
            child = os.fork()
            if not child:
                code = 1
                try:
                    db.express_sync.create("Note", {"text": "child"})
                    code = 0 if db.express_sync.count("Note")["count"] > 1 else 2
                finally:
                    os._exit(code)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        stop.set()
        for thread in threads:
            thread.join()
        print(codes, db.express_sync.count("Note", {"text": "child"})["count"])
        """,
        tmp_path,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{[0] * 10} 10\n", "")
    with closing(sqlite3.connect(tmp_path / "notes.db")) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


POOL = """
import multiprocessing, sys, warnings
from concurrent.futures import ProcessPoolExecutor

from dataflow import DataFlow
from dataflow.runtime import LocalRuntime

db = DataFlow("sqlite:///notes.db")


@db.model
class Note:
    text: str


def work(number):
    workflow = db.workflow().add_node("NoteCreateNode", "a", {"text": str(number)})
    workflow.add_node("NoteBulkCreateNode", "b", {"data": [{"text": "x"}] * 3})
    return LocalRuntime().execute(workflow.build())[0]["b"]["created"]


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message=".*multi-threaded.*", category=DeprecationWarning)
    db.express_sync.create("Note", {"text": "parent"})
    context = multiprocessing.get_context(sys.argv[1])
    with context.Pool(3) as pool:
        print(sum(pool.map(work, range(12))))
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        print(sum(pool.map(work, range(4))))
    db.express_sync.create("Note", {"text": "parent"})
    print(db.express_sync.count("Note")["count"])
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_pools_of_processes_work_with_an_instance_of_the_module(tmp_path, method):
    (tmp_path / "script.py").write_text(POOL)
    done = subprocess.run(
        [sys.executable, "-W", "error", "script.py", method],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("36\n12\n66\n", "")
    assert count(tmp_path) == 66


# -- several processes on one file --------------------------------------------------------------------------------
RIVAL = """
    import threading
    from dataflow.runtime import AsyncLocalRuntime
    async def main():
        builder = db.workflow().add_node("TransactionScopeNode", "scope")
        builder.add_node("NoteListNode", "look").add_node("NoteCreateNode", "a", {"text": "a"})
        builder.add_node("NoteCreateNode", "b", {"text": "b"})
        workflow = builder.build()
        for _ in range(10):
            await asyncio.gather(*[AsyncLocalRuntime().execute_async(workflow) for _ in range(4)])
            assert (await db.express.count("Note"))["count"] % 2 == 0
    asyncio.run(main())
"""


def test_processes_that_read_and_then_write_in_transactions_wait_for_each_other(tmp_path):
    """Reading first and writing later is what makes others see 'database is locked' at once, whatever the timeout."""
    command = [sys.executable, "-W", "error", "-c", MODEL + textwrap.dedent(RIVAL), "sqlite:///notes.db"]
    processes = [subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    errors = [process.communicate(timeout=90)[1] for process in processes]
    assert errors == [""] * 4
    assert count(tmp_path) == 4 * 10 * 4 * 2


def test_what_one_process_commits_another_sees_at_once(tmp_path):
    url = f"sqlite:///{tmp_path}/notes.db"
    with DataFlow(url) as db:

        @db.model
        class Note:
            text: str

        for number in range(1, 4):
            assert db.express_sync.count("Note") == {"count": number - 1}
            assert run("db.express_sync.create('Note', {'text': 'x'})", tmp_path).returncode == 0
            assert db.express_sync.count("Note") == {"count": number}
