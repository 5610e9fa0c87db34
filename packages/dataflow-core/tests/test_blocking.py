"""Connections for drivers that block: turns, readers, cancellation, closing, forks. The driver here is sqlite3."""

import asyncio
import gc
import os
import sqlite3
import threading
import time
import weakref

import pytest

from dataflow.blocking import BlockingDatabase, BlockingSession
from dataflow.config import CORE_SETTINGS, Config, DatabaseURL
from dataflow.dialect import COUNT, Command
from dataflow.errors import DatabaseTimeout, NotYetAvailable, QueryError, UsageError
from dataflow.session import FairLock

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT count(*) FROM n"
BEGIN, COMMIT, ROLLBACK = (Command(sql, COUNT) for sql in ("BEGIN", "COMMIT", "ROLLBACK"))


class Sqlite(BlockingDatabase):
    """A database that counts its connections, and fails to open when it is told to."""

    faults = (sqlite3.Error,)

    def __init__(self, path, **options):
        values = {setting.name: setting.default for setting in CORE_SETTINGS} | {"lock_timeout": 0.3}
        super().__init__("app.db", Config(values, frozenset(), DatabaseURL("test", str(path))), **options)
        self.path = path
        self.opened = 0
        self.refreshed = []

    def open(self, *, write):
        self.opened += 1
        raw = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=0.2)
        raw.execute("PRAGMA journal_mode = WAL")
        return raw

    def execute(self, raw, command, arguments):
        return raw.execute(command.sql, arguments).fetchall()

    def explain(self, error, command, arguments):
        return QueryError(f"refused: {type(error).__name__}", hint="look at it")

    def rollback(self, raw):
        raw.rollback()

    def interrupt(self, raw):
        raw.interrupt()

    def refresh(self, raw, own_sql):
        self.refreshed += own_sql
        return raw

    def describe(self):
        return {"file": str(self.path)}


def ask(sql, *arguments):
    """Return the program that sends one statement."""
    return (yield Command(sql), arguments)


def kept(program):
    """Return the program that runs another in a transaction, and undoes it if it fails."""
    yield BEGIN, ()
    try:
        result = yield from program
    except BaseException:
        yield ROLLBACK, ()
        raise
    yield COMMIT, ()
    return result


@pytest.fixture
def database(tmp_path):
    found = Sqlite(tmp_path / "app.db")
    session = found.lease_blocking(write=True, holder="setup")
    session.run_blocking(ask("CREATE TABLE t (n INTEGER PRIMARY KEY)"))
    session.release_blocking()
    yield found
    found.close_blocking()


def numbers(database):
    session = database.lease_blocking(write=False, holder="count")
    try:
        return [n for (n,) in session.run_blocking(ask("SELECT n FROM t ORDER BY n"))]
    finally:
        session.release_blocking()


async def test_coroutines_and_threads_take_turns_on_one_connection(database):
    async def write(n):
        session = await database.lease(write=True, holder="coroutine")
        try:
            await session.run(kept(ask("INSERT INTO t VALUES (?)", n)))
        finally:
            await session.release()

    def block(n):
        session = database.lease_blocking(write=True, holder="thread")
        try:
            session.run_blocking(ask("INSERT INTO t VALUES (?)", n))
        finally:
            session.release_blocking()

    database.config._values["lock_timeout"] = 10
    threads = [threading.Thread(target=block, args=(10 + n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    await asyncio.gather(*(write(n) for n in range(5)))
    for thread in threads:
        thread.join()
    assert numbers(database) == [0, 1, 2, 3, 4, 10, 11, 12]
    assert database.opened == 2


def test_readers_wait_neither_for_the_writer_nor_for_each_other(tmp_path):
    database = Sqlite(tmp_path / "app.db", readers=2)
    writer = database.lease_blocking(write=True, holder="writer")
    one, other = (database.lease_blocking(write=False, holder="reader") for _ in range(2))
    assert database.opened == 3
    with pytest.raises(DatabaseTimeout, match=r"a reader of app\.db was not free"):
        database.lease_blocking(write=False, holder="third")
    for session in (writer, one, other):
        assert not session.contended
        session.release_blocking()
    assert database.lease_blocking(write=False, holder="again")._link in database.readers
    database.discard()


def test_without_readers_the_writer_serves_for_everything(tmp_path):
    database = Sqlite(tmp_path / "app.db", readers=0)
    session = database.lease_blocking(write=False, holder="read")
    with pytest.raises(DatabaseTimeout):
        database.lease_blocking(write=True, holder="write")
    session.release_blocking()
    database.close_blocking()


def test_instances_that_share_a_lock_write_in_turn_and_close_apart(tmp_path):
    shared = FairLock("the writer of app.db")
    one, other = (Sqlite(tmp_path / "app.db", shared=shared) for _ in range(2))
    session = one.lease_blocking(write=True, holder="one")
    with pytest.raises(DatabaseTimeout, match="held by one"):
        other.lease_blocking(write=True, holder="other")
    other.lease_blocking(write=False, holder="reading is free").release_blocking()
    other.close_blocking()
    session.release_blocking()
    one.lease_blocking(write=True, holder="again").release_blocking()
    one.close_blocking()


def test_what_is_open_at_the_end_of_a_lease_is_rolled_back(database):
    session = database.lease_blocking(write=True, holder="careless")
    session.run_blocking(ask("BEGIN"))
    session.run_blocking(ask("INSERT INTO t VALUES (1)"))
    session.release_blocking()
    assert numbers(database) == []
    with pytest.raises(UsageError) as caught:
        session.run_blocking(ask("INSERT INTO t VALUES (2)"))
    assert caught.value.code == "run-over"


def test_the_drivers_error_does_not_travel_with_its_translation(database):
    session = database.lease_blocking(write=True, holder="wrong")
    with pytest.raises(QueryError, match="refused: OperationalError") as caught:
        session.run_blocking(ask("SELECT 4711 FROM nowhere"))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    session.release_blocking()


async def test_a_cancelled_statement_is_interrupted_and_undone(database):
    async def work():
        session = await database.lease(write=True, holder="endless")
        try:
            await session.run(kept(both()))
        finally:
            await session.release()

    def both():
        yield Command("INSERT INTO t VALUES (1)"), ()
        return (yield Command(ENDLESS), ())

    task = asyncio.create_task(work())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert numbers(database) == []
    session = await database.lease(write=True, holder="next")
    await session.run(ask("INSERT INTO t VALUES (2)"))
    await session.release()
    assert numbers(database) == [2]


async def test_what_a_cancelled_program_does_to_clean_up_is_not_interrupted(database):
    undone = []

    def program():
        yield BEGIN, ()
        try:
            yield Command(ENDLESS), ()
        except BaseException:
            undone.append((yield ROLLBACK, ()))
            raise

    session = await database.lease(write=True, holder="endless")
    task = asyncio.create_task(session.run(program()))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert undone == [[]]
    await session.release()


def test_sql_of_the_users_own_is_told_when_the_lease_ends(database):
    session = database.lease_blocking(write=True, holder="own")
    session.run_blocking(ask("SELECT 1"))
    session.run_blocking(iter_named("PRAGMA cache_size = 7"))
    session.release_blocking()
    assert database.refreshed == ["PRAGMA cache_size = 7"]


def iter_named(sql):
    """Return the program that sends SQL of the user's own."""
    return (yield Command(sql, named=True), ())


def test_a_closed_database_lends_nothing(database):
    database.lease_blocking(write=False, holder="first").release_blocking()
    database.close_blocking()
    database.close_blocking()
    with pytest.raises(UsageError) as caught:
        database.lease_blocking(write=True, holder="late")
    assert caught.value.code == "closed"


def test_a_failing_connection_leaves_the_locks_free(tmp_path):
    database = Sqlite(tmp_path / "missing" / "app.db")
    for _ in range(3):
        with pytest.raises(QueryError, match="refused: OperationalError"):
            database.lease_blocking(write=True, holder="a")
    assert (database.writer.users, database.writer.lock.holder) == (0, "")


def test_tenants_cannot_be_confined(database):
    with pytest.raises(NotYetAvailable):
        database.confine(list)


def test_discarding_waits_for_nobody(database):
    session = database.lease_blocking(write=True, holder="forgotten")
    database.discard()  # would raise DatabaseTimeout if it waited
    with pytest.raises(UsageError):
        session.run_blocking(ask("SELECT 1"))
    session.release_blocking()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_opens_connections_of_its_own(database):
    held = database.lease_blocking(write=True, holder="parent")
    child = os.fork()
    if not child:
        code = 1
        try:
            found = database.lease_blocking(write=True, holder="child")
            code = 0 if database.opened == 2 and found.run_blocking(ask("SELECT 1")) == [(1,)] else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    held.release_blocking()


def test_nothing_of_it_outlives_its_database(tmp_path):
    database = Sqlite(tmp_path / "app.db")
    asyncio.run(leased(database))
    database.close_blocking()
    gone = weakref.ref(database)
    del database
    deadline = time.monotonic() + 20  # its thread ends by itself
    while gone() is not None and time.monotonic() < deadline:
        time.sleep(0.01)
        gc.collect()
    assert gone() is None


async def leased(database):
    """Use a connection's thread."""
    session = await database.lease(write=False, holder="once")
    assert await session.run(ask("SELECT 1")) == [(1,)]
    await session.release()


def test_a_session_may_be_of_another_class(tmp_path):
    class Session(BlockingSession):
        def send(self, raw, command, arguments):
            return [(command.sql, *arguments)]

    class Database(Sqlite):
        sessions = Session

    database = Database(tmp_path / "app.db")
    session = database.lease_blocking(write=True, holder="own")
    assert session.run_blocking(ask("SAVEPOINT a", 1)) == [("SAVEPOINT a", 1)]
    session.release_blocking()
    database.close_blocking()
