"""``dataflow dev-pg``, run as a newcomer runs it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest

COMMAND = [sys.executable, "-W", "error", "-c", "from dataflow.cli import main; main()", "dev-pg"]


@pytest.fixture(scope="module")
def folder():
    """A folder that any account can reach, which pytest's own are not."""
    folder = Path(f"/tmp/dataflow-dev-pg-{os.getpid()}")
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@contextmanager
def started(folder, *arguments):
    pipe = subprocess.PIPE
    with subprocess.Popen([*COMMAND, *arguments], cwd=folder, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()  # where a test failed before it was told to end


def refused(folder, *arguments):
    done = subprocess.run([*COMMAND, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


async def query(url, sql):
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(sql)
    finally:
        await connection.close()


async def test_it_prints_a_url_runs_until_it_is_told_to_end_and_keeps_its_data(folder):
    with started(folder) as first:
        shown = [first.stdout.readline() for _ in range(4)]
        assert shown[0] == f"PostgreSQL runs until Ctrl-C; its data are in {folder}/.dataflow-pg\n"
        url = shown[2].removeprefix("export DATABASE_URL=").rstrip()
        await query(url, "CREATE TABLE notes (text text)")
        assert (await query(url, "SHOW fsync"))[0][0] == "on"

        busy = refused(folder)
        assert f"a server runs already on the data in {folder}/.dataflow-pg" in busy
        port = url.rpartition(":")[2].partition("/")[0]
        assert f"port {port} at 127.0.0.1 is taken" in refused(folder, "--data", "other", "--port", port)

        first.send_signal(signal.SIGINT)
        assert first.communicate() == ("", "")
    assert first.returncode == 0
    with pytest.raises(ConnectionRefusedError):
        await query(url, "SELECT 1")
    assert (folder / ".dataflow-pg/.gitignore").read_text() == "*\n"

    with started(folder, "--json") as second:
        found = json.loads("".join(second.stdout.readline() for _ in range(5)))
        assert found == {"url": url, "port": int(port), "data": f"{folder}/.dataflow-pg"}
        assert await query(url, "SELECT * FROM notes") == []
        second.kill()
        second.communicate()

    with started(folder) as third:  # at once, while the server of the second is still on its way down
        assert third.stdout.readline()
        assert await query(url, "SELECT * FROM notes") == []
        third.send_signal(signal.SIGTERM)
        assert third.communicate()[1] == ""
    assert third.returncode == 0


def test_when_the_server_ends_by_itself_the_command_says_so(folder):
    with started(folder, "--data", "fresh") as command:
        assert command.stdout.readline()
        postmaster = int((folder / "fresh/data/postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGTERM)
        _, errors = command.communicate()
    assert command.returncode == 1
    assert errors.startswith("PostgreSQL ended by itself")
    assert f"see its log: {folder}/fresh/log" in errors


def test_a_port_that_is_none_is_refused(folder):
    done = subprocess.run([*COMMAND, "--port", "0"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'--port'" in done.stderr
