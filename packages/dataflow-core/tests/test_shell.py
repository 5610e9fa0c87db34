"""``dataflow shell``: models and nodes at hand, await at the prompt, code from an argument or a pipe."""

import contextlib
import json
import os
import pty
import subprocess
import sys

import pytest

PROGRAM = [sys.executable, "-W", "error", "-c", "from dataflow.cli import main; main()", "shell", "--app", "notes.py"]
NOTES = """
from dataflow import DataFlow

db = DataFlow("sqlite:///notes.db", sqlite_synchronous="OFF")


@db.model
class Note:
    text: str
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "notes.py").write_text(NOTES)
    return tmp_path


def shell(folder, *arguments, typed=None):
    return subprocess.run(
        [*PROGRAM, *arguments], cwd=folder, input=typed, capture_output=True, text=True, timeout=60, check=False
    )


def test_code_awaits_nodes_and_express_and_its_last_value_is_printed(folder):
    code = "note = await NoteCreateNode(text='kept')\n(note['text'], await express.count('Note'), Note.__name__)"
    done = shell(folder, "-c", code)
    assert (done.stdout, done.stderr, done.returncode) == ("('kept', {'count': 1}, 'Note')\n", "", 0)


def test_code_comes_through_a_pipe_and_the_value_goes_out_as_json(folder):
    code = (
        "for text in ('a', 'b'):\n"
        "    await express.create('Note', {'text': text})\n"
        "await express.list('Note', sort='-text')"
    )
    done = shell(folder, "--json", typed=code)
    assert [note["text"] for note in json.loads(done.stdout)["records"]] == ["b", "a"]


def test_a_statement_prints_nothing(folder):
    assert shell(folder, "-c", "x = 1").stdout == ""


def test_synchronous_calls_and_workflows_work(folder):
    code = (
        "flow = WorkflowBuilder().add_node('NoteCreateNode', 'n', {'text': 't'}).build()\n"
        "LocalRuntime().execute(flow)[0]['n']['text'], db.express_sync.count('Note')['count']"
    )
    assert shell(folder, "-c", code).stdout == "('t', 1)\n"


@pytest.mark.parametrize(
    ("code", "said", "status"),
    [
        ("1 +", "the code does not compile", 2),
        ("await NoteCreateNode(txt='x')", "did you mean 'text'?", 1),
        ("1 / 0", "ZeroDivisionError", 1),
        ("import sys; sys.exit(3)", "", 3),
    ],
)
def test_faulty_code_says_so_and_ends(folder, code, said, status):
    done = shell(folder, "-c", code)
    assert done.returncode == status
    assert said in done.stderr


class Terminal:
    """A terminal on which the shell runs."""

    def __init__(self, folder, *arguments):
        self.end, inner = pty.openpty()
        self.shown = ""
        variables = {**os.environ, "TERM": "dumb", "IPYTHONDIR": str(folder / "ipython"), "NO_COLOR": "1"}
        streams = {"stdin": inner, "stdout": inner, "stderr": inner}
        self.process = subprocess.Popen(
            [*PROGRAM, *arguments], cwd=folder, env=variables, start_new_session=True, **streams
        )
        os.close(inner)

    def answers(self, answer):
        """Wait until the terminal shows this."""
        while answer not in self.shown:
            self.shown += os.read(self.end, 4096).decode(errors="replace")
        self.shown = self.shown[self.shown.index(answer) + len(answer) :]

    def type(self, line):
        os.write(self.end, f"{line}\r".encode())

    def close(self):
        """Read what else comes, and return the exit code."""
        with contextlib.suppress(OSError):  # the program has ended
            while data := os.read(self.end, 4096):
                self.shown += data.decode(errors="replace")
        os.close(self.end)
        return self.process.wait(60)


@pytest.mark.parametrize("arguments", [(), ("--plain",)], ids=["IPython", "standard library"])
def test_the_prompt_awaits_shows_errors_and_goes_on(folder, arguments):
    terminal = Terminal(folder, *arguments)
    terminal.answers("DataFlow shell on notes.py:db (Note)")
    terminal.type("note = await NoteCreateNode(text='kept')")
    terminal.type("note['text'] * 2")
    terminal.answers("'keptkept'")
    terminal.type("1 / 0")
    terminal.answers("ZeroDivisionError")
    terminal.type("(await express.count('Note'))['count'] + 41")
    terminal.answers("42")
    terminal.type("exit()")
    assert terminal.close() == 0


def test_a_prompt_prints_no_json(folder):
    terminal = Terminal(folder, "--json")
    assert terminal.close() == 2
    assert "no-code" in terminal.shown
