"""Processes: scripts that never close, forks, several processes on one file, exit in mid-run."""

import sqlite3
import subprocess
import sys
import textwrap

import pytest

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
    with sqlite3.connect(folder / "notes.db") as connection:
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
