"""How connections are set up and used: settings, threads, hops, limits."""

import sqlite3
import threading
from contextlib import closing

import aiosqlite
import pytest

from dataflow import BaseDataFlowNode, DataFlow
from dataflow.errors import ConfigurationError
from dataflow.runtime import AsyncLocalRuntime, LocalRuntime


def with_rows(db):
    @db.model
    class Row:
        n: int
        note: str = ""

    del Row
    return db


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.db"


@pytest.fixture
def db(path):
    with with_rows(DataFlow(f"sqlite:///{path}")) as instance:
        yield instance


@pytest.fixture
def memory():
    with with_rows(DataFlow(":memory:")) as instance:
        yield instance


def pragma(db, name, *, write):
    """Ask the connection itself, as it stands."""
    database = db.core.database
    session = database.lease_blocking(write=write, holder="test")
    try:
        return (database.writer if write else database.reader).raw.execute(f"PRAGMA {name}").fetchone()[0]
    finally:
        session.release_blocking()


# -- settings ---------------------------------------------------------------------------------------------------------
def test_a_file_is_in_wal_mode_and_every_connection_checks_foreign_keys_and_waits_for_other_processes(db):
    db.express_sync.create("Row", {"n": 1})
    for write in (True, False):
        assert pragma(db, "journal_mode", write=write) == "wal"
        assert pragma(db, "foreign_keys", write=write) == 1
        assert pragma(db, "busy_timeout", write=write) == 30_000
        assert pragma(db, "synchronous", write=write) == 1  # NORMAL
        assert pragma(db, "query_only", write=write) == (0 if write else 1)


def test_settings_reach_the_connections(path):
    with DataFlow(f"sqlite:///{path}", sqlite_synchronous="FULL", sqlite_busy_timeout=0.25) as db:
        assert pragma(db, "synchronous", write=True) == pragma(db, "synchronous", write=False) == 2
        assert pragma(db, "busy_timeout", write=True) == pragma(db, "busy_timeout", write=False) == 250


def test_the_reading_connection_cannot_write(db):
    database = db.core.database
    db.express_sync.create("Row", {"n": 1})
    session = database.lease_blocking(write=False, holder="test")
    try:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            database.reader.raw.execute("DELETE FROM rows")
    finally:
        session.release_blocking()
    assert db.express_sync.count("Row") == {"count": 1}


@pytest.mark.parametrize("connections", [2])
async def test_a_file_has_one_writer_and_one_reader_however_many_callers_there_are(db, monkeypatch, connections):
    opened = []
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: opened.append(a) or connect(*a, **k))
    workflow = db.workflow().add_node("RowCreateNode", "c", {"n": 1}).add_node("RowListNode", "l").build()
    threads = [threading.Thread(target=LocalRuntime().execute, args=[workflow]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(3):
        await AsyncLocalRuntime().execute_async(workflow)
        await db.express.list("Row")
        db.express_sync.list("Row")
    assert len(opened) == connections
    assert await db.express.count("Row") == {"count": 11}
    monkeypatch.undo()


async def test_memory_is_one_database_for_every_kind_of_call(memory, monkeypatch):
    opened = []
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: opened.append(a) or connect(*a, **k))

    @memory.register_node
    class Adds(BaseDataFlowNode):
        def execute(self, input_data):
            self.run_custom_query("INSERT INTO rows (n) VALUES (:n)", {"n": 5})
            return {}

    memory.express_sync.create("Row", {"n": 1})
    await memory.express.create("Row", {"n": 2})
    LocalRuntime().execute(memory.workflow().add_node("RowCreateNode", "c", {"n": 3}).build())
    workflow = memory.workflow().add_node("RowCreateNode", "c", {"n": 4}).add_node("Adds", "a").build()
    await AsyncLocalRuntime().execute_async(workflow)
    thread = threading.Thread(target=memory.express_sync.create, args=["Row", {"n": 6}])
    thread.start()
    thread.join()
    assert [row["n"] for row in memory.express_sync.list("Row", sort="n")["records"]] == [1, 2, 3, 4, 5, 6]
    assert len(opened) == 1


def test_two_instances_in_memory_are_two_databases(memory):
    with with_rows(DataFlow("sqlite:///:memory:")) as other:
        memory.express_sync.create("Row", {"n": 1})
        assert other.express_sync.count("Row") == {"count": 0}


# -- URLs -------------------------------------------------------------------------------------------------------------
def test_a_relative_url_means_the_current_directory_an_absolute_one_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a folder").mkdir()
    for url, file in (
        ("sqlite:///rel.db", tmp_path / "rel.db"),
        (f"sqlite:///{tmp_path / 'abs.db'}", tmp_path / "abs.db"),
        ("sqlite:///a%20folder/50%25.db", tmp_path / "a folder" / "50%.db"),
        ("sqlite:///a folder/na?me.db".replace("?", "%3F"), tmp_path / "a folder" / "na?me.db"),
    ):
        with with_rows(DataFlow(url)) as db:
            db.express_sync.create("Row", {"n": 1})
            assert file.is_file(), url
            assert db.core.database.describe()["file"] == str(file)


def test_the_file_stays_the_same_when_the_current_directory_changes(tmp_path, monkeypatch):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    with with_rows(DataFlow("sqlite:///app.db")) as db:
        monkeypatch.chdir(tmp_path / "two")
        db.express_sync.create("Row", {"n": 1})
    assert (tmp_path / "one" / "app.db").is_file()
    assert not list((tmp_path / "two").iterdir())


def test_options_in_the_url_are_refused_not_ignored(path):
    with pytest.raises(ConfigurationError, match="take no options, got mode"):
        DataFlow(f"sqlite:///{path}?mode=ro")


def test_an_instance_that_may_not_create_leaves_no_file_behind(path):
    with with_rows(DataFlow(f"sqlite:///{path}", auto_migrate=False)) as db:
        with pytest.raises(Exception, match="the database file does not exist") as caught:
            db.express_sync.count("Row")
        assert type(caught.value).__name__ == "DatabaseUnavailable"
    assert not path.exists()


# -- hops and threads -------------------------------------------------------------------------------------------------
@pytest.fixture
def hops(monkeypatch):
    """Count the crossings to a connection's thread."""
    crossed = []
    execute = aiosqlite.Connection._execute

    async def counted(self, function, *args, **kwargs):
        crossed.append(function)
        return await execute(self, function, *args, **kwargs)

    monkeypatch.setattr(aiosqlite.Connection, "_execute", counted)
    return crossed


@pytest.mark.parametrize("url", ["memory", "file"])
async def test_consecutive_database_nodes_cross_to_the_thread_once(request, path, url, hops):
    instance = with_rows(DataFlow(":memory:" if url == "memory" else f"sqlite:///{path}"))
    with instance as db:
        await db.initialize()
        workflow = (
            db.workflow()
            .add_node("RowCreateNode", "one", {"n": 1})
            .add_node("RowBulkCreateNode", "many", {"data": [{"n": n} for n in range(5000)], "batch_size": 100})
            .add_node("RowReadNode", "read")
            .add_connection("one", "id", "read", "id")
            .add_node("RowUpsertNode", "upsert", {"where": {"id": 1}, "create": {"n": 2}})
            .add_node("RowListNode", "list", {"filter": {"n": {"$lt": 3}}, "include_total": True})
            .add_node("AsyncSQLDatabaseNode", "sql", {"query": "SELECT count(*) AS n FROM rows"})
            .build()
        )
        hops.clear()
        await AsyncLocalRuntime().execute_async(workflow)
        assert len(hops) == 1
        hops.clear()
        await db.express.create("Row", {"n": 3})
        assert len(hops) == 1  # execute, fetch, commit and decode together


async def test_a_transaction_scope_crosses_for_its_begin_its_nodes_and_its_commit(db, hops):
    await db.initialize()
    workflow = db.workflow().add_node("TransactionScopeNode", "tx")
    for n in range(5):
        workflow.add_node("RowCreateNode", f"c{n}", {"n": n})
    built = workflow.build()
    hops.clear()
    await AsyncLocalRuntime().execute_async(built)
    assert len(hops) == 3


async def test_a_node_that_is_no_database_operation_parts_the_nodes_around_it(db, hops):
    await db.initialize()

    @db.register_node
    class Thinks(BaseDataFlowNode):
        async def execute(self, input_data):
            return {"held": self.db.core.database.writer.lock._held}

    builder = db.workflow()
    for node in ("RowCreateNode", "RowCreateNode", "Thinks", "RowCreateNode", "RowListNode"):
        builder.add_node(node, f"{node}{len(builder.nodes)}", {"n": 1} if node == "RowCreateNode" else {})
    built = builder.build()
    hops.clear()
    results, _ = await AsyncLocalRuntime().execute_async(built)
    assert len(hops) == 2
    assert results["Thinks2"] == {"held": False}  # the connection was given back before the node


@pytest.mark.parametrize("url", ["memory", "file"])
def test_synchronous_use_never_starts_a_thread(path, url, monkeypatch):
    def refuse(self):
        pytest.fail(f"a thread was started: {self.name}")

    with with_rows(DataFlow(":memory:" if url == "memory" else f"sqlite:///{path}")) as db:

        @db.register_node
        class Doubles(BaseDataFlowNode):
            def run(self, n):
                rows = self.run_custom_query("SELECT :n * 2 AS n", {"n": n})
                return {"n": rows[0]["n"]}

        monkeypatch.setattr(threading.Thread, "start", refuse)
        workflow = (
            db.workflow()
            .add_node("TransactionScopeNode", "tx")
            .add_node("RowCreateNode", "create", {"n": 21})
            .add_node("Doubles", "double")
            .add_connection("create", "n", "double", "n")
            .add_node("RowCreateNode", "again")
            .add_connection("double", "n", "again", "n")
            .build()
        )
        results, _ = LocalRuntime().execute(workflow)
        assert results["again"]["n"] == 42
        db.express_sync.bulk_create("Row", [{"n": n} for n in range(3000)])
        assert db.express_sync.count("Row") == {"count": 3002}
        assert db.health()["ok"]
        assert db.show_tables() == ["rows"]


# -- limits -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("limit", [7, 100, 32_766])
def test_bulk_statements_keep_to_the_number_of_variables_that_the_connection_allows(path, monkeypatch, limit):
    sizes = []
    connect = sqlite3.connect

    class Limited(sqlite3.Connection):
        def execute(self, sql, parameters=(), /):
            sizes.append(len(parameters))
            return super().execute(sql, parameters)

    def limited(*args, **kwargs):
        raw = connect(*args, factory=Limited, **kwargs)
        raw.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, limit)
        return raw

    monkeypatch.setattr(sqlite3, "connect", limited)
    with with_rows(DataFlow(f"sqlite:///{path}")) as db:
        rows = [{"n": n, "note": str(n)} for n in range(2000)]
        made = db.express_sync.bulk_create("Row", rows, batch_size=100_000, return_ids=True)
        assert made["created"] == 2000
        assert db.express_sync.read("Row", made["ids"][1234])["n"] == 1234
        upserted = db.express_sync.bulk_upsert(
            "Row", [{"id": key, "n": -1, "note": "x"} for key in made["ids"][:500]], batch_size=100_000
        )
        assert upserted["updated"] == 500
        found = db.express_sync.list("Row", {"id": {"$in": made["ids"]}, "n": -1})
        assert found["count"] == 500
        assert db.express_sync.bulk_delete("Row", ids=made["ids"])["deleted"] == 2000
    assert max(sizes) <= limit
    assert limit > 1000 or max(sizes) > limit - 7  # and statements are as large as they may be


def test_more_values_in_one_list_than_variables_are_one_parameter(memory, monkeypatch):
    memory.express_sync.bulk_create("Row", [{"n": n, "note": str(n)} for n in range(10)])
    memory.core.database.writer.raw.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 3)
    many = list(range(50_000))
    assert memory.express_sync.count("Row", {"n": {"$in": many}}) == {"count": 10}
    assert memory.express_sync.count("Row", {"note": {"$nin": [str(n) for n in many]}}) == {"count": 0}


# -- user SQL leaves no trace on the connection -----------------------------------------------------------------------
DIRTY = [
    "PRAGMA foreign_keys = OFF",
    "PRAGMA synchronous = OFF",
    "PRAGMA query_only = ON",
    "PRAGMA busy_timeout = 1",
    "PRAGMA ignore_check_constraints = ON",
    "PRAGMA recursive_triggers = ON",
    "PRAGMA case_sensitive_like = ON",
    "PRAGMA reverse_unordered_selects = ON",
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA writable_schema = ON",
    "/* hidden */ pragma Foreign_Keys(0)",
    "ATTACH ':memory:' AS other",
    "CREATE TEMP TABLE rows (id INTEGER PRIMARY KEY, n INTEGER, note TEXT, created_at TEXT, updated_at TEXT)",
    "CREATE TEMPORARY VIEW peek AS SELECT * FROM rows",
    'CREATE TABLE temp."od""d" (x)',
    "CREATE TEMP TRIGGER spy AFTER INSERT ON main.rows BEGIN UPDATE rows SET n = n + 1; END",
]


SETTINGS = [
    "foreign_keys",
    "synchronous",
    "query_only",
    "busy_timeout",
    "ignore_check_constraints",
    "recursive_triggers",
    "reverse_unordered_selects",
    "locking_mode",
    "writable_schema",
    "defer_foreign_keys",
    "read_uncommitted",
    "automatic_index",
    "legacy_alter_table",
    "wal_autocheckpoint",
]


def state(raw):
    """Return what SQL can change on a connection."""
    found = {name: raw.execute(f"PRAGMA {name}").fetchone()[0] for name in SETTINGS}
    found["like"] = raw.execute("SELECT 'A' LIKE 'a'").fetchone()[0]
    found["databases"] = [row[1] for row in raw.execute("PRAGMA database_list") if row[1] != "temp"]
    found["temporary"] = raw.execute("SELECT name FROM sqlite_temp_master").fetchall()
    return found


@pytest.mark.parametrize("sql", DIRTY)
@pytest.mark.parametrize("kind", ["memory", "file"])
def test_what_the_users_sql_sets_on_a_connection_is_gone_when_it_is_given_back(path, sql, kind):
    with with_rows(DataFlow(":memory:" if kind == "memory" else f"sqlite:///{path}")) as db:
        db.express_sync.create("Row", {"n": 1})
        raw = db.core.database.writer.raw
        before = state(raw)
        query = {"query": sql, "validate_queries": False, "fetch_mode": "none"}
        LocalRuntime().execute(db.workflow().add_node("AsyncSQLDatabaseNode", "sql", query).build())
        assert state(raw) == before
        db.express_sync.create("Row", {"n": 2})
        assert [row["n"] for row in db.express_sync.list("Row")["records"]] == [1, 2]


def test_what_the_users_sql_sets_lasts_as_long_as_its_transaction_scope(db):
    db.express_sync.count("Row")
    query = {"validate_queries": False, "fetch_mode": "none"}
    workflow = (
        db.workflow()
        .add_node("TransactionScopeNode", "tx")
        .add_node("AsyncSQLDatabaseNode", "make", {"query": "CREATE TEMP TABLE scratch AS SELECT 7 AS n", **query})
        .add_node("AsyncSQLDatabaseNode", "use", {"query": "INSERT INTO rows (n) SELECT n FROM scratch"})
        .build()
    )
    LocalRuntime().execute(workflow)
    assert [row["n"] for row in db.express_sync.list("Row")["records"]] == [7]
    with pytest.raises(Exception, match="no such table: scratch"):
        db.core.ask(one_statement("SELECT * FROM scratch"), write=True)


def one_statement(sql):
    from dataflow.dialect import Command

    return (yield Command(sql), ())


def test_indexes_and_computed_columns_may_use_like_after_sql_of_the_users_own(path):
    """Setting case_sensitive_like, to whatever, makes SQLite take LIKE for not deterministic."""
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("CREATE TABLE t (a TEXT, is_x INT AS (a LIKE 'x%'))")
        raw.execute("CREATE INDEX some ON t (a) WHERE a NOT LIKE 'q%'")
    with DataFlow(f"sqlite:///{path}") as db:
        query = {"validate_queries": False, "fetch_mode": "none"}
        for sql in ("CREATE TABLE u (b TEXT AS (t LIKE 'x%'), t TEXT)", "INSERT INTO t VALUES ('x')"):
            workflow = db.workflow().add_node("AsyncSQLDatabaseNode", "sql", {"query": sql, **query})
            LocalRuntime().execute(workflow.build())
        assert db.core.ask(one_statement("SELECT a, is_x FROM t WHERE a NOT LIKE 'q%'"), write=True) == [("x", 1)]


def test_transactions_of_the_users_own_are_refused_because_the_framework_ends_them(db):
    for sql in ("BEGIN", "commit", "ROLLBACK", "SAVEPOINT a", "select 1; END"):
        workflow = db.workflow().add_node("AsyncSQLDatabaseNode", "sql", {"query": sql, "validate_queries": False})
        with pytest.raises(Exception, match="cannot be sent by hand"):
            LocalRuntime().execute(workflow.build())


def test_files_of_others_keep_their_journal_mode_in_existing_schema_mode(path):
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, n INTEGER NOT NULL, note TEXT NOT NULL DEFAULT '')")
    with DataFlow(f"sqlite:///{path}", existing_schema_mode=True) as db:

        @db.model
        class Row:
            n: int
            note: str = ""
            __dataflow__ = {"timestamps": False}  # noqa: RUF012

        db.express_sync.create("Row", {"n": 1})
        assert db.express_sync.count("Row") == {"count": 1}
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("delete",)
