"""PgBouncer in transaction mode, the real one: every transaction may have another session on the server."""

import asyncio
import contextlib
import enum
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import asyncpg
import pytest

from dataflow import DataFlow
from dataflow.errors import ConfigurationError, DatabaseTimeout, DatabaseUnavailable, WorkflowExecutionError

CONFIGURATION = """
[databases]
* = host={host} port={port} user=postgres pool_size={sessions}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
max_client_conn = 2000
{more}
"""
SESSIONS = 4
IGNORING = "ignore_startup_parameters = lock_timeout, search_path, statement_timeout, options"


class Bouncer:
    """A pgbouncer process between the tests and their server."""

    def __init__(self, program, target, sessions=SESSIONS, more=""):
        self.program = program
        self.folder = tempfile.mkdtemp(prefix="dataflow-pgbouncer-")
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        host, _, port = target.partition(":")
        file = Path(self.folder) / "pgbouncer.ini"
        values = {"host": host, "port": port, "own_port": self.port, "sessions": sessions, "more": more}
        file.write_text(CONFIGURATION.format(**values))
        self.options = {}
        if os.geteuid() == 0:  # which pgbouncer refuses to run as
            self.options = {"user": "nobody", "group": "nogroup", "extra_groups": []}
            Path(self.folder).chmod(0o755)
        self.start()

    def start(self):
        command = [self.program, "-q", f"{self.folder}/pgbouncer.ini"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd="/", **self.options)
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            if self.process.poll() is not None:
                pytest.fail(f"pgbouncer did not start: {self.process.stderr.read()}")

    def stop(self):
        self.process.kill()
        self.process.communicate()

    def url(self, url):
        return f"postgresql://postgres@127.0.0.1:{self.port}/{url.rpartition('/')[2]}"


@pytest.fixture(scope="module")
def program(not_run):
    """The pgbouncer program: installed, or installed now where that is possible."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which("pgbouncer", path=path)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        for words in (["update", "-qq"], ["install", "-y", "-qq", "pgbouncer"]):
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(
                    ["apt-get", *words], timeout=50, check=False, capture_output=True, stdin=subprocess.DEVNULL,
                    env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                )  # fmt: skip
        found = shutil.which("pgbouncer", path=path)
    if found is None:
        reason = "no pgbouncer on this machine (Debian: apt install pgbouncer)"
        not_run.append(f"PgBouncer was NOT tested: {reason}")
        pytest.skip(reason)
    return found


@pytest.fixture(scope="module")
def target(postgres_server):
    return postgres_server.url().rpartition("@")[2].partition("/")[0]


@pytest.fixture(scope="module")
def bouncer(program, target):
    found = Bouncer(program, target)
    yield found
    found.stop()


@pytest.fixture(scope="module")
def tolerant(program, target):
    """One that ignores settings it cannot keep, so that connecting tells nothing."""
    found = Bouncer(program, target, more=IGNORING)
    yield found
    found.stop()


@pytest.fixture
def single(program, target):
    """One with a single session on the server."""
    found = Bouncer(program, target, sessions=1)
    yield found
    found.stop()


@pytest.fixture
def pooled(pg):
    """A function that opens an instance behind a pgbouncer, with tables in the schema public."""
    opened = []

    def open_behind(bouncer, **settings):
        given = {"postgres_schema": None, "pool_size": 60, "pool_max_overflow": 0, **settings}
        opened.append(pg.open(bouncer.url(pg.url), **given))
        return opened[-1]

    pg.server.execute("DROP SCHEMA IF EXISTS public CASCADE; CREATE SCHEMA public")
    yield open_behind
    for db in opened:
        db.close()
    pg.terminate(pg.connections())  # those that the pgbouncer keeps


def sessions(pg):
    """Return how many connections the server has, but for the observer's."""
    sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    return pg.server.value(sql)


@pytest.mark.parametrize("how", ["refusing", "ignoring", "told"])
async def test_it_is_noticed_or_told(pg, pooled, bouncer, tolerant, how):
    db = pooled(tolerant if how == "ignoring" else bouncer, **({"pooler": "transaction"} if how == "told" else {}))
    await db.express.create("Row", {"n": 1})
    assert db.core.database.describe()["pooler"] == "transaction"
    assert (await db.express.list("Row"))["records"][0]["n"] == 1


def test_without_one_none_is_noticed(pg):
    db = pg.open()
    db.express_sync.count("Row")
    assert db.core.database.describe()["pooler"] == "none"


async def test_hundreds_of_concurrent_calls_share_a_few_sessions(pg, pooled, bouncer):
    db = pooled(bouncer)
    await db.initialize()
    rows = [{"text": str(n)} for n in range(100)]

    def call(n):
        kind = n % 8
        if kind == 0:
            return db.express.create("Row", {"n": n})
        if kind == 1:
            return db.express.list("Row", {"n": {"$lt": n}}, limit=n + 1)
        if kind == 2:
            return pg.run(
                db,
                "TransactionScopeNode",
                ("RowCreateNode", {"n": n}),
                ("RowUpdateNode", {"conditions": {"n": n}, "fields": {"n": -n}}),
            )
        if kind == 3:
            return db.express.bulk_create("Note", rows, return_ids=True)
        if kind == 4:
            return pg.sql(db, f"SELECT {n}, count(*) FROM notes")
        if kind == 5:
            return db.express.bulk_upsert("Row", [{"n": n}, {"n": n + 100_000}], ["n"])
        if kind == 6:
            return db.express.bulk_create("Note", rows)
        return pg.run(db, ("AsyncSQLDatabaseNode", {"query": "SELECT :n + 1 AS m", "params": {"n": n}}))

    outcomes = await asyncio.gather(*[call(n) for n in range(400)], return_exceptions=True)
    assert [outcome for outcome in outcomes if isinstance(outcome, BaseException)] == []
    assert outcomes[7][0]["n0"]["result"]["data"] == [{"m": 8}]
    assert await db.express.count("Row") == {"count": 200}
    assert await db.express.count("Note") == {"count": 10_000}
    assert 1 <= sessions(pg) <= SESSIONS


async def test_statements_of_different_processes_do_not_meet_under_one_name(pg, pooled, single, monkeypatch):
    one, two = (pooled(single, lock_timeout=seconds) for seconds in (10, 11))
    for n in range(3):
        for db in (one, two):
            monkeypatch.setattr(asyncpg.connection, "_uid", 0)  # as in another process
            assert await pg.sql(db, f"SELECT {n}") == [(n,)]
            await db.express.list("Row", {"n": n})
            assert await pg.sql(db, "SELECT name FROM pg_prepared_statements") == []


async def test_types_of_the_users_own_are_known_on_every_session(pg, pooled, bouncer):
    class Mood(enum.Enum):
        GLAD = "glad"
        ANGRY = "angry"

    db = pooled(bouncer, postgres_native_enums=True)

    @db.model
    class Person:
        mood: Mood
        moods: list[Mood]

    await db.initialize()
    await asyncio.gather(*[db.express.create("Person", {"mood": Mood.GLAD, "moods": [Mood.ANGRY]}) for _ in range(50)])
    lists = await asyncio.gather(*[db.express.list("Person", {"mood": Mood.GLAD}) for _ in range(50)])
    assert {found["count"] for found in lists} == {50}
    assert lists[0]["records"][0]["moods"] == [Mood.ANGRY]


@pytest.mark.parametrize("how", ["refusing", "ignoring", "told"])
@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"postgres_schema": "mine"}, "postgres_schema (ALTER ROLE … SET search_path = …)"),
        ({"postgres_statement_timeout": 5}, "postgres_statement_timeout (ALTER ROLE … SET statement_timeout = …)"),
        ({"url": "?options=-c%20work_mem%3D7MB"}, "the URL's options (ALTER ROLE … SET …)"),
    ],
)
async def test_settings_that_cannot_be_kept_are_refused(pg, pooled, bouncer, tolerant, how, setting, named):
    settings = {"postgres_schema": None, **setting}
    url = (tolerant if how == "ignoring" else bouncer).url(pg.url) + settings.pop("url", "")
    db = pg.open(url, **settings, **({"pooler": "transaction"} if how == "told" else {}))
    with pytest.raises(ConfigurationError) as caught:
        await db.express.count("Row")
    assert caught.value.code == "pooler"
    assert caught.value.message == f"a pooler in transaction mode cannot keep {named}"


async def test_lock_timeout_holds_in_transactions(pg, pooled, bouncer):
    db = pooled(bouncer, lock_timeout=0.2)
    await db.express.create("Row", {"n": 1})
    results, _ = await pg.run(db, "TransactionScopeNode", "SHOW lock_timeout")
    assert results["n1"]["result"]["data"] == [{"lock_timeout": "200ms"}]
    with pg.transaction("UPDATE public.rows SET n = 5"):
        with pytest.raises(WorkflowExecutionError) as caught:
            await pg.run(db, "TransactionScopeNode", ("RowUpdateNode", {"id": 1, "n": 2}))
        assert isinstance(caught.value.__cause__, DatabaseTimeout)
        with pytest.raises(DatabaseTimeout):
            await db.express.bulk_update("Row", data=[{"id": 1, "n": 7}])
    assert await pg.sql(db, "SHOW lock_timeout") == [("0",)]  # nothing is left on the session


async def test_what_is_cancelled_stops_on_the_server(pg, pooled, bouncer):
    db = pooled(bouncer)
    await db.express.create("Row", {"n": 1})
    pg.schema = "public"
    pg.slow_to_insert(600)
    for call in (
        lambda: pg.sql(db, "SELECT pg_sleep(600)"),
        lambda: db.express.create("Row", {"n": 600}),
        lambda: db.express.bulk_create("Row", [{"n": n} for n in range(500, 700)]),
        lambda: pg.run(db, "TransactionScopeNode", ("RowCreateNode", {"n": 2}), "SELECT pg_sleep(600)"),
    ):
        task = asyncio.create_task(call())
        await pg.eventually(lambda: pg.connections("wait_event = 'PgSleep'"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert pg.connections("state <> 'idle'") == []
        assert pg.stored() == [1]


async def test_a_value_that_cannot_be_sent_keeps_no_session(pg, pooled, single):
    """The statement was prepared, and the session belongs to its client until it ends."""
    one, two = pooled(single), pooled(single, lock_timeout=10)
    await one.express.create("Row", {"n": 1})
    await two.express.count("Row")
    for call in (
        lambda: one.express.list("Note", {"text": {"$like": "\ud800"}}),
        lambda: pg.run(one, ("AsyncSQLDatabaseNode", {"query": "SELECT :n + 1", "params": {"n": "text"}})),
    ):
        with pytest.raises(Exception, match=r"does not fit|cannot be stored"):
            await call()
        assert await two.express.count("Row") == {"count": 1}


async def test_its_restart_is_survived(pg, pooled, program, target):
    bouncer = Bouncer(program, target)
    try:
        db = pooled(bouncer)
        await db.express.create("Row", {"n": 1})
        scope = asyncio.create_task(
            pg.run(db, "TransactionScopeNode", ("RowCreateNode", {"n": 2}), "SELECT pg_sleep(600)")
        )
        await pg.eventually(lambda: pg.connections("wait_event = 'PgSleep'"))
        await asyncio.to_thread(bouncer.stop)
        with pytest.raises(WorkflowExecutionError, match="the connection to the database was lost"):
            await scope
        with pytest.raises(DatabaseUnavailable, match="cannot be reached"):
            await db.express.count("Row")
        pg.terminate(pg.connections("wait_event = 'PgSleep'"))
        await asyncio.to_thread(bouncer.start)
        assert await db.express.count("Row") == {"count": 1}
        await db.express.create("Row", {"n": 3})
    finally:
        bouncer.stop()


def test_scripts_end_and_synchronous_calls_work(pg, pooled, bouncer):
    with DataFlow(bouncer.url(pg.url), postgres_application_name=pg.name) as db:
        db.model(type("Note", (), {"__annotations__": {"text": str}}))
        db.express_sync.create("Note", {"text": "x"})
        assert asyncio.run(db.express.count("Note")) == {"count": 1}
