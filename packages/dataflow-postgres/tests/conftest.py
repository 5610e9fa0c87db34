"""Fixtures for the tests of robustness: instances with a name of their own on the server, the server's view of their
connections, and a network between the two that can be cut.
"""

import asyncio
import contextlib
import itertools
import os
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time

import asyncpg
import pytest

from dataflow import DataFlow
from dataflow.errors import ConfigurationError
from dataflow.runtime import AsyncLocalRuntime

_NUMBERS = itertools.count()
_NOT_RUN = pytest.StashKey()
_PATIENCE = 20.0


def pytest_configure(config):
    config.stash[_NOT_RUN] = []


def pytest_terminal_summary(terminalreporter, config):
    for line in config.stash[_NOT_RUN]:
        terminalreporter.section("not tested on this machine", yellow=True, bold=True)
        terminalreporter.line(line)


@pytest.fixture(scope="session")
def not_run(pytestconfig):
    """Lines for the end of pytest's output: what could not be tested here."""
    return pytestconfig.stash[_NOT_RUN]


class LoopThread:
    """An event loop in a thread of its own, so that it goes on while tests block theirs."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    def stop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


class Server:
    """What the server itself says, by a connection that no test touches."""

    def __init__(self, background, server, url):
        self.background = background
        self.server = server
        self.url = url
        self._raw = None

    async def _connected(self):
        if self._raw is None or self._raw.is_closed():
            self._raw = await asyncpg.connect(self.url, server_settings={"application_name": "observer"})
        return self._raw

    async def _fetch(self, sql, arguments):
        return await (await self._connected()).fetch(sql, *arguments)

    async def _execute(self, sql):
        await (await self._connected()).execute(sql)

    def execute(self, sql):
        """Run statements."""
        self.background.run(self._execute(sql))

    def rows(self, sql, *arguments):
        """Run SQL and return the rows as tuples."""
        return [tuple(row) for row in self.background.run(self._fetch(sql, arguments))]

    def value(self, sql, *arguments):
        """Run SQL and return the first value."""
        return self.rows(sql, *arguments)[0][0]

    def close(self):
        if self._raw is not None:
            self.background.run(self._raw.close())


class Bench:
    """Instances of one test: told apart from others by their application_name, with a schema of their own."""

    def __init__(self, server, url):
        number = next(_NUMBERS)
        self.server = server
        self.url = url
        self.name = f"test_{number}"
        self.schema = f"schema_{number}"
        self.opened = []

    def open(self, url=None, **settings):
        """Open a DataFlow with a model Row, whose column `n` is unique, and a model Note."""
        given = {"postgres_application_name": self.name, "postgres_schema": self.schema, "pool_size": 5, **settings}
        db = DataFlow(url or self.url, **{name: value for name, value in given.items() if value is not UNSET})
        self.opened.append(db)
        return with_models(db)

    @staticmethod
    def run(db, *nodes, **options):
        """Return a coroutine that runs nodes in their order: (type, params), just a type, or SQL."""
        builder = db.workflow()
        for position, node in enumerate(nodes):
            kind, params = node if isinstance(node, tuple) else (node, {})
            if not kind.isidentifier():
                kind, params = "AsyncSQLDatabaseNode", {"query": kind, "validate_queries": False}
            builder.add_node(kind, f"n{position}", params)
        return AsyncLocalRuntime(**options).execute_async(builder.build())

    async def sql(self, db, query):
        """Run SQL as users do, and return the rows as tuples."""
        results, _ = await self.run(db, query)
        return [tuple(row.values()) for row in results["n0"]["result"]["data"]]

    async def pid(self, db):
        """Return the process on the server that serves the next call."""
        return (await self.sql(db, "SELECT pg_backend_pid()"))[0][0]

    # -- what the server says -------------------------------------------------------------------------------------
    def connections(self, where="true"):
        """Return the process ids of this test's connections."""
        sql = f"SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND {where} ORDER BY backend_start"
        return [row[0] for row in self.server.rows(sql, self.name)]

    def active(self):
        """Return the process ids of those in a statement or a transaction."""
        return self.connections("state <> 'idle'")

    def stored(self):
        """Return what is committed: the `n` of all rows."""
        return [row[0] for row in self.server.rows(f"SELECT n FROM {self.schema}.rows ORDER BY n")]

    def until(self, condition):
        """Wait until something is so."""
        deadline = time.monotonic() + _PATIENCE
        while not (found := condition()):
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.005)
        return found

    async def eventually(self, condition):
        """Wait until something is so, while the loop runs."""
        return await asyncio.to_thread(self.until, condition)

    def slow_to_insert(self, n, seconds=600):
        """Let the INSERT of the row with this `n` take its time."""
        self.server.execute(
            f"""
            CREATE OR REPLACE FUNCTION {self.schema}.slow() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN IF NEW.n = {n} THEN PERFORM pg_sleep({seconds}); END IF; RETURN NEW; END $$;
            CREATE OR REPLACE TRIGGER slow BEFORE INSERT ON {self.schema}.rows
            FOR EACH ROW EXECUTE FUNCTION {self.schema}.slow();
            """,
        )

    @contextlib.contextmanager
    def locked(self, key):
        """Hold an advisory lock, which statements of the test wait for."""
        self.server.rows("SELECT pg_advisory_lock($1)", key)
        try:
            yield
        finally:
            self.server.rows("SELECT pg_advisory_unlock($1)", key)

    @contextlib.contextmanager
    def transaction(self, sql):
        """Keep a transaction open in which a statement was carried out, and roll it back."""
        other = Server(self.server.background, self.server.server, self.url)
        other.execute(f"BEGIN; {sql}")
        try:
            yield
        finally:
            other.close()

    def terminate(self, pids):
        """End connections as an administrator does."""
        for pid in pids:
            self.server.rows("SELECT pg_terminate_backend($1, 10000)", pid)

    def script(self, body, *arguments, **options):
        """Run a script in a process of its own, whose `db` has the model Row."""
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", self.text(body), *self.words(), *arguments],
            capture_output=True, text=True, timeout=60, check=False, **options,
        )  # fmt: skip

    @staticmethod
    def text(body):
        """Return a script, whose `db` has the model Row."""
        return SCRIPT + textwrap.dedent(body)

    def words(self):
        """Return the arguments that `SCRIPT` takes."""
        return [self.url, self.name, self.schema]


UNSET = object()
SCRIPT = """
import asyncio, contextlib, os, signal, sys, threading, time
from dataflow import BaseDataFlowNode, DataFlow
from dataflow.runtime import AsyncLocalRuntime, LocalRuntime
db = DataFlow(sys.argv[1], postgres_application_name=sys.argv[2], postgres_schema=sys.argv[3], pool_size=5)
@db.model
class Row:
    n: int
    __indexes__ = [{"name": "rows_n", "fields": ["n"], "unique": True}]
"""


def with_models(db):
    @db.model
    class Row:
        n: int
        __indexes__ = [{"name": "rows_n", "fields": ["n"], "unique": True}]  # noqa: RUF012

    @db.model
    class Note:
        text: str

    del Row, Note
    return db


@pytest.fixture(scope="session")
def background():
    thread = LoopThread()
    yield thread
    thread.stop()


@pytest.fixture(scope="module")
def server(background, postgres_server, postgres_url):
    found = Server(background, postgres_server, postgres_url)
    yield found
    found.close()


@pytest.fixture
def pg(server, postgres_url):
    """A bench; whatever the test did, no connection may be left behind at its end."""
    yield from tidy_bench(server, postgres_url)


def tidy_bench(server, url):
    bench = Bench(server, url)
    yield bench
    for db in bench.opened:
        db.close()
    bench.until(lambda: not bench.connections())
    server.rows(f"DROP SCHEMA IF EXISTS {bench.schema} CASCADE")


@pytest.fixture(scope="session")
def own_server():
    """A server that tests may restart and configure."""
    from dataflow.testing.server import PostgresServer

    try:
        server = PostgresServer(settings={"max_connections": 60})
    except ConfigurationError as error:
        if "DATAFLOW_TEST_POSTGRES" in os.environ:
            pytest.skip(f"needs a server to restart and configure: {error.message}")
        raise
    with server:
        yield server


@pytest.fixture(scope="module")
def own_url(own_server):
    return own_server.create_database()


@pytest.fixture
def own(background, own_server, own_url):
    """A bench on the test's own server."""
    server = Server(background, own_server, own_url)
    yield from tidy_bench(server, own_url)
    server.close()


# -- the network ------------------------------------------------------------------------------------------------------
class Wire:
    """One connection through the proxy: two streams, and what happens to them."""

    def __init__(self, reader, writer):
        self.streams = [(reader, writer)]
        self.silent = False
        self.losing = False

    def cut(self):
        """Reset both sides."""
        for _, writer in self.streams:
            with contextlib.suppress(OSError):
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()


class Proxy:
    """A network between clients and the server, on the loopback address.

    `on(text, action)` waits for a text in what a client sends, once:
    "cut" resets the connection instead of passing it on; "lose-reply" passes it on, waits for the answer, and resets;
    "swallow" ends the connection as if it had been passed on;
    "silence" passes it on, and nothing after it, in either direction; "hold-reply" holds back what the server says
    until `release()`.

    Attributes:
        mode: of new connections: "pass"; "refuse"; "silent", which accepts them and says nothing.
        requests: messages (or several at once) that clients have sent.
        tls: an SSL context, with which this end offers encryption, as the server itself would; None: it is asked.
        plain: whether unencrypted logins are allowed where `tls` is set.
        handshakes: "ssl" or "plain", for each login where `tls` is set.
    """

    def __init__(self, background, host, port):
        self.background = background
        self.target = host, port
        self.rules = []
        self.wires = set()
        self.requests = 0
        self.tls = None
        self.plain = True
        self.handshakes = []
        self.mode = "pass"
        self.seen = threading.Event()
        self.open_gate = None
        background.run(self._start())

    async def _start(self):
        self.open_gate = asyncio.Event()
        self.open_gate.set()
        self.tasks = set()
        self.listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.listener.sockets[0].getsockname()[1]

    def url(self, url):
        """Return a URL of the server with this network in between."""
        return url.replace("{}:{}".format(*self.target), f"127.0.0.1:{self.port}")

    def on(self, text, action):
        self.seen.clear()
        self.rules.append((text, action))

    def reset(self):
        """Reset all connections."""
        self.background.run(self._reset())

    async def _reset(self):
        for wire in list(self.wires):
            wire.cut()

    def silence(self):
        """Let nothing pass on any connection, without a word."""
        for wire in list(self.wires):
            wire.silent = True

    def hold(self):
        self.background.loop.call_soon_threadsafe(self.open_gate.clear)

    def release(self):
        self.background.loop.call_soon_threadsafe(self.open_gate.set)

    async def _serve(self, reader, writer):
        wire = Wire(reader, writer)
        task = asyncio.current_task()
        self.tasks.add(task)
        self.wires.add(wire)
        try:
            if self.mode == "refuse":
                return
            if self.mode == "silent":
                wire.silent = True
            first = b"" if self.tls is None else await self._handshake(reader, writer)
            wire.streams.append(await asyncio.open_connection(*self.target))
            wire.streams[1][1].write(first)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._upstream(wire))
                group.create_task(self._downstream(wire))
        except* (OSError, EOFError):
            pass
        finally:
            self.wires.discard(wire)
            self.tasks.discard(task)
            for _, stream in wire.streams:
                stream.transport.abort() if self.tls else stream.close()

    async def _handshake(self, reader, writer):
        """Offer encryption; return what was read instead, to be passed on."""
        first = await reader.readexactly(8)
        code = int.from_bytes(first[4:])
        if code == 80877103:  # SSLRequest
            writer.write(b"S")
            await writer.start_tls(self.tls)
            self.handshakes.append("ssl")
            return b""
        if code == 80877102 or self.plain:  # CancelRequest
            self.handshakes.append("plain")
            return first
        fields = b"SFATAL\0VFATAL\0C28000\0Mno pg_hba.conf entry for this host, no encryption\0\0"
        writer.write(b"E" + (len(fields) + 4).to_bytes(4) + fields)
        raise EOFError

    async def _upstream(self, wire):
        reader, writer = wire.streams[0][0], wire.streams[1][1]
        while data := await reader.read(1 << 16):
            self.requests += 1
            action = next((rule for rule in self.rules if rule[0] in data), (b"", "pass"))
            if action in self.rules:
                self.rules.remove(action)
            if wire.silent:
                continue
            if action[1] == "cut":
                wire.cut()
            elif action[1] == "swallow":
                wire.streams[0][1].close()
            else:
                wire.silent = action[1] == "silence"
                wire.losing = action[1] == "lose-reply"
                if action[1] == "hold-reply":
                    self.open_gate.clear()
                writer.write(data)
            if action[1] != "pass":
                self.seen.set()
        if not wire.silent:
            writer.close()

    async def _downstream(self, wire):
        reader, writer = wire.streams[1][0], wire.streams[0][1]
        while data := await reader.read(1 << 16):
            await self.open_gate.wait()
            if wire.losing:
                wire.cut()
                return
            if not wire.silent:
                writer.write(data)
        if not wire.silent:
            writer.close()

    def close(self):
        self.background.run(self._close())

    async def _close(self):
        self.listener.close()
        self.open_gate.set()
        for wire in list(self.wires):
            wire.cut()
        while self.tasks:
            await asyncio.wait(self.tasks)
        await self.listener.wait_closed()


@pytest.fixture
def proxy(background, postgres_server):
    place = postgres_server.url().rpartition("@")[2].partition("/")[0]
    host, _, port = place.partition(":")
    found = Proxy(background, host, int(port))
    yield found
    found.close()
