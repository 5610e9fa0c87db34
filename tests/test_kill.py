"""SIGKILL at random moments of a bulk load: the database stays sound, holds whole nodes or whole commits, and goes on.

Each round kills a loader that would load for ever, judges the database without our code, and completes the interrupted
run with DataFlow on the same database.
"""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from dataflow import DataFlow

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the worker forks")

WORKER = Path(__file__).with_name("kill_worker.py")
KILLS = {"sqlite": 30, "postgresql": 10}  # per mode


@pytest.fixture(scope="module")
def kill_worker():
    """The worker as a module: its model, and how it loads."""
    spec = spec_from_file_location("kill_worker", WORKER)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Worker:
    """The process that forks loaders."""

    def __init__(self):
        command = [sys.executable, WORKER, "dataflow.postgres.dialect", "dataflow.postgres.database"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.loader = 0

    def start(self, url, mode, run):
        """Fork a loader that loads one run after another, from the given one on, until it is killed."""
        self.process.stdin.write(json.dumps({"url": url, "mode": mode, "run": run}) + "\n")
        self.loader = self.read("loader")
        assert self.read("ready") == run

    def read(self, word):
        """Read a line that must be `word` and a number; return the number."""
        found, number = (self.process.stdout.readline() or "nothing 0").split()
        assert found == word
        return int(number)

    def kill(self):
        """Kill the loader; return how many runs it had finished, and its exit code."""
        os.kill(self.loader, signal.SIGKILL)
        self.loader = 0
        finished = 0
        while (line := self.process.stdout.readline().split())[0] == "finished":
            finished += 1
        return finished, int(line[1])

    def close(self):
        if self.loader:
            os.kill(self.loader, signal.SIGKILL)
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()


@pytest.fixture
def worker():
    worker = Worker()
    yield worker
    worker.close()


class File:
    """A SQLite file, judged by the standard library."""

    def __init__(self, path):
        self.path = path
        self.url = f"sqlite:///{path}"

    def rows(self, sql):
        with closing(sqlite3.connect(self.path)) as file:
            assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            return file.execute(sql).fetchall()


class Database:
    """A PostgreSQL database, judged by psql."""

    def __init__(self, server, url):
        self.server = server
        self.url = url

    def rows(self, sql):
        self.wait_for_the_end()
        return [tuple(map(int, line.split("|"))) for line in self.server.psql(sql, database=self.url).splitlines()]

    def wait_for_the_end(self):
        """Wait until the server has noticed that its client is gone: what it was told before, it may still do."""
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid != pg_backend_pid()"
        while self.server.psql(others, database=self.url) != "0":
            time.sleep(0.01)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path):
    if request.param == "sqlite":
        return File(tmp_path / "killed.db")
    return Database(request.getfixturevalue("postgres_server"), request.getfixturevalue("postgres_database"))


def judge(database):
    """Judge the database without our code; return run -> part -> number of rows."""
    found = {}
    for run, part, rows, last in database.rows("SELECT run, part, count(*), max(place) FROM items GROUP BY run, part"):
        assert rows == last + 1, "a row before the last one is missing"
        found.setdefault(run, {})[part] = rows
    return found


@pytest.mark.parametrize("mode", ["nodes", "commits"])
def test_a_killed_load_leaves_whole_nodes_or_commits_in_a_sound_database_that_goes_on(
    database, worker, kill_worker, mode
):
    kills = KILLS["sqlite" if isinstance(database, File) else "postgresql"]
    whole = dict.fromkeys(range(kill_worker.PARTS), kill_worker.ROWS)
    chance = random.Random(20130101)

    worker.start(database.url, mode, run=0)
    worker.read("finished")
    start = time.perf_counter()
    worker.read("finished")
    window = 3 * (time.perf_counter() - start)  # seconds for three runs on this machine
    worker.kill()

    held = []
    for run in range(1000, 1000 * (kills + 1), 1000):
        with DataFlow(database.url) as db:
            db.model(kill_worker.Item)
            db.express_sync.bulk_delete("Item", filter={}, confirmed=True)
        worker.start(database.url, mode, run)
        warm = chance.random() < 0.7  # past its first run, which takes longer
        if warm:
            worker.read("finished")
        time.sleep(chance.uniform(0, window))
        finished, exit_code = worker.kill()
        finished += warm
        assert exit_code == -signal.SIGKILL

        found = judge(database)
        interrupted = found.pop(run + finished, {})
        assert found == {run + earlier: whole for earlier in range(finished)}, "a finished run is not whole"
        assert interrupted == dict.fromkeys(range(len(interrupted)), kill_worker.ROWS), "a part is not whole"
        held.append(len(interrupted))
        if finished == warm:
            window *= 1.3  # the machine has become slower
        elif finished > 3:
            window /= 1.3

        with DataFlow(database.url) as db:
            db.model(kill_worker.Item)
            kill_worker.load(kill_worker.loading(db, mode, conflict="skip"), run + finished)
        assert judge(database) == {run + number: whole for number in range(finished + 1)}

    assert len(held) == kills
    within = sum(0 < parts < kill_worker.PARTS for parts in held)
    assert within >= kills // 6, f"too few kills landed within a run: {held}"
