"""Processes: scripts that never close, forks, several processes on one database, exit in mid-run."""

import os
import sqlite3
import subprocess
import sys
import textwrap
import time
from contextlib import closing

import pytest

from dataflow import DataFlow

MODEL = """
import asyncio, os, sys, warnings
from dataflow import DataFlow
warnings.filterwarnings("ignore", message=".*multi-threaded.*", category=DeprecationWarning)  # of fork, in new Pythons
db = DataFlow(sys.argv[1])
@db.model
class Note:
    text: str
"""


class SQLitePlace:
    """A folder for scripts, and the file they use."""

    url = "sqlite:///notes.db"

    def __init__(self, folder):
        self.folder = folder

    def count(self):
        """Count the notes, and look whether the file is sound."""
        with closing(sqlite3.connect(self.folder / "notes.db")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            return connection.execute("SELECT count(*) FROM notes").fetchone()[0]


class PostgresPlace:
    """A folder for scripts, and the database they use."""

    def __init__(self, folder, server, url):
        self.folder = folder
        self.server = server
        self.url = url

    def count(self):
        """Count the notes."""
        return int(self.server.psql("SELECT count(*) FROM notes", database=self.url))

    def wait_until(self, condition, sessions):
        """Wait until a condition holds for the sessions of this database; the test's time limit ends it."""
        query = f"SELECT {condition} FROM pg_stat_activity WHERE datname = current_database() AND {sessions}"
        while self.server.psql(query, database=self.url) != "t":
            time.sleep(0.02)


@pytest.fixture
def sqlite_place(tmp_path):
    return SQLitePlace(tmp_path)


@pytest.fixture
def postgres_place(tmp_path, postgres_server, postgres_database):
    return PostgresPlace(tmp_path, postgres_server, postgres_database)


@pytest.fixture(params=["sqlite", "postgres"])
def place(request):
    """An empty database, on each dialect."""
    return request.getfixturevalue(f"{request.param}_place")


def run(script, place, url=None, timeout=30):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", MODEL + textwrap.dedent(script), url or place.url],
        cwd=place.folder, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def start(script, place):
    command = [sys.executable, "-W", "error", "-c", MODEL + textwrap.dedent(script), place.url]
    return subprocess.Popen(command, cwd=place.folder, stderr=subprocess.PIPE, text=True)


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
def test_a_script_that_never_closes_ends_by_itself_with_its_data_safe(place, body):
    done = run(body, place, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")
    assert place.count() == 1


def test_exit_during_a_run_leaves_nothing_half_written(place):
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
        place,
        timeout=20,
    )
    assert done.returncode == 0, done.stderr
    assert place.count() == 1


FORK = """
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
"""


def test_after_a_fork_parent_and_child_both_go_on(place):
    done = run(FORK, place)
    assert (done.stdout, done.stderr) == ("0 4\n", "")


def test_after_a_fork_a_database_in_memory_was_copied_with_the_process(sqlite_place):
    done = run(FORK, sqlite_place, url=":memory:")
    assert (done.stdout, done.stderr) == ("0 2\n", "")


WRITER = """
db.express_sync.bulk_create("Note", [{"text": "x"}] * 20)
for _ in range(20):
    db.express_sync.create("Note", {"text": "x"})
"""


def test_several_processes_create_the_tables_and_write_at_the_same_time(place):
    processes = [start(WRITER, place) for _ in range(6)]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert errors == [""] * 6
    assert place.count() == 6 * 40


MANY_TABLES = """
from dataflow import ForeignKey
from typing import Annotated
from enum import Enum
class Colour(Enum):
    RED = "red"
for number in range(12):
    annotations = {"text": str, "colour": Colour}
    if number:
        key = ForeignKey(f"Model{number - 1}", name="earlier", reverse="later")
        annotations["earlier_id"] = Annotated[int | None, key]
    index = {"name": f"ix_{number}", "fields": ["text"]}
    db.model(type(f"Model{number}", (), {"__annotations__": annotations, "__indexes__": [index]}))
print("ready", flush=True)
sys.stdin.readline()  # until all processes have come this far
db.express_sync.create("Model11", {"text": "x", "colour": Colour.RED})
db.express_sync.create("Note", {"text": "x"})
"""


def test_processes_that_start_at_once_on_an_empty_database_create_each_table_once(place):
    """Nothing in PostgreSQL keeps two CREATE TABLE IF NOT EXISTS from colliding; the schema lock does."""
    command = [sys.executable, "-W", "error", "-c", MODEL + MANY_TABLES, place.url]
    processes = [
        subprocess.Popen(
            command, cwd=place.folder, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(5)
    ]  # fmt: skip
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 5
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert errors == [""] * 5
    assert place.count() == 5
    with DataFlow(place.url.replace("///", f"///{place.folder}/")) as db:
        assert db.show_tables() == sorted(["notes", *(f"model{number}s" for number in range(12))])


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
def test_however_it_was_used_a_script_ends_by_itself_without_a_warning(place, body):
    done = run(textwrap.dedent(MIXED[body]), place, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")
    assert place.count() == 1


USED = "db.express_sync.create('Note', {'text': 'x'})\nasyncio.run(db.express.count('Note'))"


def test_nothing_but_the_database_stays_behind_when_a_script_ends(sqlite_place):
    done = run(USED, sqlite_place)
    assert (done.returncode, done.stderr) == (0, "")
    assert [file.name for file in sqlite_place.folder.iterdir()] == ["notes.db"]  # the write-ahead log was taken up


def test_no_connection_stays_behind_when_a_script_ends(postgres_place):
    done = run(USED, postgres_place)
    assert (done.returncode, done.stderr) == (0, "")
    postgres_place.wait_until("count(*) = 0", "application_name = 'dataflow'")
    assert list(postgres_place.folder.iterdir()) == []


DAEMON = """
    import threading, time
    from dataflow.runtime import AsyncLocalRuntime, LocalRuntime
    db.express_sync.create("Note", {{"text": "before"}})
    workflow = db.workflow().add_node("TransactionScopeNode", "scope")
    workflow.add_node("NoteCreateNode", "n", {{"text": "no"}})
    workflow.add_node("AsyncSQLDatabaseNode", "sql", {{"query": "INSERT INTO notes (text) {long}"}})
    workflow = workflow.build()
    def work():
        try:
            {how}
        except BaseException:
            pass
    threading.Thread(target=work, daemon=True).start()
"""
HOW = pytest.mark.parametrize(
    "how", ["LocalRuntime().execute(workflow)", "asyncio.run(AsyncLocalRuntime().execute_async(workflow))"]
)


@HOW
def test_the_interpreter_does_not_wait_for_a_statement_of_a_daemon_thread(sqlite_place, how):
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT 'x' || i FROM n"
    waiting = """
    raw = db.core.database.writer.raw
    while not raw.in_transaction:
        time.sleep(0.001)
    time.sleep(0.05)
    """
    done = run(textwrap.dedent(DAEMON.format(how=how, long=endless)) + textwrap.dedent(waiting), sqlite_place)
    assert (done.returncode, done.stderr) == (0, "")
    assert sqlite_place.count() == 1


@HOW
def test_the_interpreter_does_not_wait_for_a_statement_that_a_server_works_on(postgres_place, how):
    waiting = """
    running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'INSERT INTO notes (t%'"
    look = {"query": running, "fetch_mode": "value"}
    workflow = db.workflow().add_node("AsyncSQLDatabaseNode", "look", look).build()
    while LocalRuntime().execute(workflow)[0]["look"]["result"]["data"] != 1:
        time.sleep(0.01)
    """
    script = textwrap.dedent(DAEMON.format(how=how, long="SELECT 'x' FROM pg_sleep(60)")) + textwrap.dedent(waiting)
    done = run(script, postgres_place)
    assert (done.returncode, done.stderr) == (0, "")
    assert postgres_place.count() == 1


def test_nodes_that_run_workflows_do_not_wait_for_each_other_for_a_thread(place):
    done = run(
        """
        from concurrent.futures import ThreadPoolExecutor
        from dataflow import BaseDataFlowNode
        from dataflow.runtime import LocalRuntime
        class Inner(BaseDataFlowNode):
            def execute(self, input_data):
                return self.run_custom_query("SELECT count(*) AS n FROM notes")[0]
        class Outer(BaseDataFlowNode):
            def execute(self, input_data):
                return LocalRuntime().execute(db.workflow().add_node(Inner, "inner").build())[0]["inner"]
        db.express_sync.create("Note", {"text": "x"})
        workflow = db.workflow().add_node(Outer, "outer").build()
        with ThreadPoolExecutor(40) as pool:
            runs = list(pool.map(LocalRuntime().execute, [workflow] * 40))
        print({results["outer"]["n"] for results, _ in runs}, len(runs))
        """,
        place,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "{1} 40\n", "")


# -- forking ------------------------------------------------------------------------------------------------------
def test_a_child_that_ends_like_any_program_leaves_the_parents_database_alone(place):
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
        place,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "11\n", "")
    assert place.count() == 11


def test_a_child_goes_on_after_its_parent_has_ended(place):
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
        place,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "51\n", "")
    assert place.count() == 51


FORK_INSIDE = """
    import threading
    from dataflow import BaseDataFlowNode
    from dataflow.errors import UsageError
    from dataflow.runtime import LocalRuntime
    db.express_sync.create("Note", {{"text": "before"}})
    inside, leave = threading.Event(), threading.Event()
    class Hold(BaseDataFlowNode):
        def execute(self, input_data):
            inside.set()
            leave.wait(30)
    workflow = db.workflow().add_node("TransactionScopeNode", "scope")
    workflow.add_node("NoteCreateNode", "n", {{"text": "x"}})
    workflow.add_node(Hold, "hold").add_node("NoteCreateNode", "m", {{"text": "y"}})
    thread = threading.Thread(target=LocalRuntime().execute, args=[workflow.build()])
    thread.start()
    inside.wait(10)
    child = os.fork()
    if not child:
        code = 1
        try:
            code = ({child})()
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    leave.set()
    thread.join()
    print(code, db.express_sync.count("Note")["count"])
"""


def test_a_child_forked_in_the_middle_of_a_transaction_is_refused_the_file_and_the_parent_is_not(sqlite_place):
    """SQLite keeps its locks per process: what the child wrote could be lost, and what the parent holds confused."""
    refused = """
def refused():
    codes = []
    for act in (lambda: db.express_sync.count("Note"), lambda: DataFlow(sys.argv[1]).show_tables()):
        try:
            act()
        except UsageError as error:
            codes.append(error.code)
    return 0 if codes == ["forked-in-use"] * 2 else 1
    """
    done = run(refused + textwrap.dedent(FORK_INSIDE.format(child="refused")), sqlite_place)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 3\n", "")


def test_a_child_forked_in_the_middle_of_a_transaction_goes_on_outside_of_it(postgres_place):
    """Its connections are its own: it does not see what the parent has not committed, and does not end it either."""
    apart = """
def apart():
    db.express_sync.create("Note", {"text": "child"})
    return 0 if db.express_sync.count("Note")["count"] == 2 else 1
    """
    done = run(apart + textwrap.dedent(FORK_INSIDE.format(child="apart")), postgres_place)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 4\n", "")


def test_a_fork_waits_for_an_operation_that_is_about_to_end(place):
    done = run(
        """
        import threading
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
        place,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{[0] * 10} 10\n", "")
    assert place.count() > 11


POOL = """
import multiprocessing, sys, warnings
from concurrent.futures import ProcessPoolExecutor

from dataflow import DataFlow
from dataflow.runtime import LocalRuntime

db = DataFlow()


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
def test_pools_of_processes_work_with_an_instance_of_the_module(place, method):
    (place.folder / "script.py").write_text(POOL)
    done = subprocess.run(
        [sys.executable, "-W", "error", "script.py", method],
        cwd=place.folder, env={**os.environ, "DATABASE_URL": place.url},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("36\n12\n66\n", "")
    assert place.count() == 66


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


def test_processes_that_read_and_then_write_in_transactions_wait_for_each_other(place):
    """Reading first and writing later is what makes others see 'database is locked' at once, whatever the timeout."""
    processes = [start(RIVAL, place) for _ in range(4)]
    errors = [process.communicate(timeout=90)[1] for process in processes]
    assert errors == [""] * 4
    assert place.count() == 4 * 10 * 4 * 2


def test_what_one_process_commits_another_sees_at_once(place):
    with DataFlow(place.url.replace("///", f"///{place.folder}/")) as db:

        @db.model
        class Note:
            text: str

        for number in range(1, 4):
            assert db.express_sync.count("Note") == {"count": number - 1}
            assert run("db.express_sync.create('Note', {'text': 'x'})", place).returncode == 0
            assert db.express_sync.count("Note") == {"count": number}
