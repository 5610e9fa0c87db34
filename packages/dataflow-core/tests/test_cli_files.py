"""``dataflow load`` and ``dataflow dump`` as programs: what they print, their exit codes, standard input and output."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

APP = """
import os
from decimal import Decimal
from dataflow import DataFlow

db = DataFlow(os.environ["APP_URL"])


@db.model
class Book:
    title: str
    price: Decimal = Decimal(0)
    __dataflow__ = {"timestamps": False}
    __indexes__ = [{"name": "uq_book_title", "fields": ["title"], "unique": True}]
"""


NOT_A_NUMBER = "expected Decimal, got text that is not a number; write 12.50, without separators of thousands"


@pytest.fixture(params=["sqlite", "postgresql"])
def shop(request, tmp_path, monkeypatch):
    """A folder with an application on each database."""
    monkeypatch.chdir(tmp_path)
    url = "sqlite:///shop.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_database")
    monkeypatch.setenv("APP_URL", url)
    monkeypatch.setenv("DATAFLOW_APP", "shop.py")
    Path("shop.py").write_text(APP)
    return tmp_path


def call(*args, code=0, **options):
    command = [sys.executable, "-c", "from dataflow.cli import main; main()", *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_a_load_tells_what_it_did_and_exits_with_1_where_rows_were_refused(shop):
    Path("b.csv").write_text("title,price\nEmma,7.5\nUtopia,cheap\nEmma,1\n")
    done = call("load", "b.csv", "--model", "Book", code=1)
    assert done.stdout.splitlines() == [
        "b.csv: loaded: 3 rows read, 1 created, 2 rejected",
        f"  line 3: price: {NOT_A_NUMBER}",
        "  line 4: a record with that title exists already",
        "  bad rows are in b.rejects.csv; correct them there, and load that file",
    ]
    assert done.stderr == ""
    again = json.loads(call("load", "b.csv", "--model", "Book", "--json", code=1).stdout)
    assert (again["status"], again["created"], again["rejected"]) == ("already-loaded", 1, 2)


def test_what_is_wrong_with_the_command_line_or_the_columns_writes_nothing(shop):
    Path("b.csv").write_text("titel,price\nEmma,7.5\n")
    assert "did you mean 'Book'" in call("load", "b.csv", "--model", "Bok", code=2).stderr
    error = json.loads(call("load", "b.csv", "--model", "Book", "--json", code=1).stderr)
    assert [problem["code"] for problem in error["problems"]] == ["unknown-column", "missing-column"]
    assert "cannot be read" in call("load", "no.csv", "--model", "Book", code=1).stderr
    assert "ending" in call("load", "shop.py", "--model", "Book", code=1).stderr
    assert call("dump", "--model", "Book").stdout == "id,title,price\n"
    assert "--filter is not JSON" in call("dump", "--model", "Book", "--filter", "{", code=2).stderr


def test_records_go_through_standard_output_and_input(shop):
    text = 'title,price\n"a\r\nb",1.50\n"",2\n'
    call("load", "-", "--format", "csv", "--model", "Book", input=text)
    assert call("dump", "--model", "Book", "--fields", "title,price", "--sort", "-title").stdout == (
        'title,price\n"a\nb",1.5\n"",2\n'  # the pipe of this test reads line ends as Python does
    )
    found = call("dump", "--model", "Book", "--format", "jsonl", "--filter", '{"price": "1.5"}').stdout
    assert json.loads(found) == {"id": 1, "title": "a\r\nb", "price": "1.5"}


def test_an_upsert_a_dry_run_and_a_dump_to_a_file(shop):
    Path("b.jsonl").write_text('{"title": "Emma", "price": 7.5}\n{"title": "Emma", "price": 8}\n')
    dry = json.loads(call("load", "b.jsonl", "--model", "Book", "--upsert", "title", "--dry-run", "--json").stdout)
    assert dry["status"] == "checked"
    assert call("dump", "--model", "Book").stdout == "id,title,price\n"
    done = call("load", "b.jsonl", "--model", "Book", "--upsert", "title")
    assert done.stdout == "b.jsonl: loaded: 2 rows read, 1 created, 1 updated\n"
    assert call("dump", "--model", "Book", "--out", "o.tsv").stdout == "o.tsv: 1 record of Book\n"
    assert Path("o.tsv").read_text() == "id\ttitle\tprice\n1\tEmma\t8\n"


def test_progress_is_shown_on_a_terminal_only(shop):
    Path("b.csv").write_text("title\nEmma\n")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from dataflow.cli import main; main()", "load", "b.csv", "--model", "Book"]
    environment = {**os.environ, "TERM": "xterm"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, timeout=60, check=True, env=environment)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "Book from b.csv" in shown
    assert done.stdout.decode() == "b.csv: loaded: 1 row read, 1 created\n"
