"""The audit log: whatever writes, the database records it, says who it was, and can prove that nothing was changed."""

import asyncio
import sqlite3
import subprocess
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from itertools import count

import asyncpg
import pytest

from dataflow import DataFlow
from dataflow.enterprise.audit import AuditLog, AuditLogSync, Checkpoint
from dataflow.enterprise.audit.chain import hash_of
from dataflow.enterprise.audit.proof import Programs, differences, register, table
from dataflow.errors import (
    DataFlowError,
    InputError,
    MissingCapability,
    ModelError,
    SchemaError,
    TenancyError,
    UniqueError,
    WorkflowBuildError,
    WorkflowExecutionError,
)
from dataflow.nodes import BaseDataFlowNode
from dataflow.runtime import AsyncLocalRuntime, LocalRuntime
from dataflow.sqlite.changelog import digest

DIALECTS = ("sqlite", "postgresql")
SCHEMAS = count()


class Place:
    """An empty database, DataFlows on it, and a look at it past DataFlow."""

    def __init__(self, dialect, request, folder):
        self.dialect = dialect
        self.sqlite = dialect == "sqlite"
        self.open = []
        if self.sqlite:
            self.path = folder / "app.db"
            self.url, self.settings = f"sqlite:///{self.path}", {"sqlite_synchronous": "OFF"}
        else:
            self.url = request.getfixturevalue("postgres_url")
            self.schema = f"audit_{next(SCHEMAS)}"
            self.settings = {"postgres_schema": self.schema, "pool_size": 3}

    def flow(self, **settings):
        db = DataFlow(self.url, **{**self.settings, **settings})
        self.open.append(db)
        return db

    def sql(self, *statements):
        """Send statements past DataFlow; return the rows of the last."""
        if self.sqlite:
            with closing(sqlite3.connect(self.path)) as raw, raw:
                return [raw.execute(sql).fetchall() for sql in statements][-1]
        return asyncio.run(self._sql(statements))

    async def _sql(self, statements):
        raw = await asyncpg.connect(self.url, server_settings={"search_path": self.schema})
        try:
            return [[tuple(row) for row in await raw.fetch(sql)] for sql in statements][-1]
        finally:
            await raw.close()

    def close(self):
        for db in self.open:
            db.close()


@pytest.fixture(params=DIALECTS)
def place(request, tmp_path):
    found = Place(request.param, request, tmp_path)
    yield found
    found.close()


def model(db, **options):
    @db.model
    class User:
        name: str
        age: int = 0
        ssn: str | None = None
        __dataflow__ = {"audit_log": True, **options}

    return User


@pytest.fixture
def db(place):
    found = place.flow()
    model(found)
    return found


def told(db, name="User", **params):
    """(action, key, actor, name before, name after) of each entry."""
    found = db.express_sync.call("audit", name, **params)["entries"]
    return [
        (e["action_type"], e["record_id"], e["actor"], (e["old"] or {}).get("name"), (e["new"] or {}).get("name"))
        for e in found
    ]


def whole(db):
    report = AuditLogSync(db).verify()
    return report.ok or report.faults


# -- what is recorded --------------------------------------------------------------------------------------------------
def test_who_changed_what_is_recorded(db):
    call = db.express_sync
    with db.actor("alice"):
        call.create("User", {"name": "a"})
        call.update("User", 1, {"name": "b"})
    call.delete("User", 1)
    assert told(db) == [
        ("create", 1, "alice", None, "a"), ("update", 1, "alice", "a", "b"), ("delete", 1, "unknown", "b", None)
    ]  # fmt: skip
    assert whole(db) is True


def test_an_entry_shows_python_values_and_what_changed(db):
    before = datetime.now(UTC) - timedelta(seconds=1)
    made = db.express_sync.create("User", {"name": "a", "age": 3})
    db.express_sync.update("User", 1, {"age": {"$inc": 1}})
    first, second = db.express_sync.call("audit", "User")["entries"]
    assert first["new"] == dict(made)
    assert first["old"] is None
    assert (second["old"]["age"], second["new"]["age"], second["changed"]) == (3, 4, ["age", "updated_at"])
    assert before < first["at"] <= second["at"] <= datetime.now(UTC)
    assert (first["tenant"], first["run"], first["node"]) == (None, None, None)


def test_every_way_to_write_is_recorded(db):
    call = db.express_sync
    rows = call.bulk_create("User", [{"name": f"n{i}", "age": i} for i in range(700)], return_ids=True)
    assert rows["created"] == 700
    assert call.bulk_update("User", filter={"age": {"$lt": 600}}, update={"age": {"$inc": 1000}})["updated"] == 600
    assert call.bulk_update("User", data=[{"id": 1, "name": "x"}, {"id": 2, "name": "y"}])["updated"] == 2
    call.bulk_upsert("User", [{"id": 3, "name": "z"}, {"id": 9001, "name": "new"}])
    call.upsert("User", {"id": 4}, {"name": "w"}, {"age": 1})
    assert call.bulk_delete("User", filter={"age": {"$gte": 650}})["deleted"] > 500
    counted = {}
    for action, *_ in told(db):
        counted[action] = counted.get(action, 0) + 1
    assert counted["create"] == 701
    assert counted["update"] == 604
    assert counted["delete"] == 701 - call.count("User")["count"]
    assert whole(db) is True


def test_sql_of_the_users_own_is_recorded_with_run_and_node(db):
    db.express_sync.bulk_create("User", [{"name": "a"}, {"name": "b"}])
    builder = db.workflow()
    builder.add_node("AsyncSQLDatabaseNode", "raw", {"query": "UPDATE users SET name = 'c' WHERE id = 2"})
    builder.add_node("UserDeleteNode", "gone", {"id": 1})
    with db.actor("bob"):
        _, run = LocalRuntime().execute(builder.build())
    entries = db.express_sync.call("audit", "User", actor="bob")["entries"]
    assert [(e["action_type"], e["run"], e["node"]) for e in entries] == [
        ("update", run, "raw"), ("delete", run, "gone")
    ]  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"max_concurrency": 2}, {"timeout": 30}])
def test_a_run_may_say_who_acts(db, options):
    class Own(BaseDataFlowNode):
        def execute(self, input_data):
            db.express_sync.create("User", {"name": "own"})

    db.register_node(Own)
    builder = db.workflow()
    builder.add_node("UserCreateNode", "one", {"name": "a"})
    builder.add_node("Own", "two", {})
    with db.actor("outer"):
        LocalRuntime(**options).execute(builder.build(), actor="alice")
        asyncio.run(AsyncLocalRuntime(**options).execute_async(builder.build(), actor="bob"))
        LocalRuntime(**options).execute(builder.build())
    db.express_sync.create("User", {"name": "nobody"})
    found = [entry["actor"] for entry in db.express_sync.call("audit", "User")["entries"]]
    assert found == ["alice"] * 2 + ["bob"] * 2 + ["outer"] * 2 + ["unknown"]
    with pytest.raises(InputError, match="an actor's name"):
        LocalRuntime(**options).execute(builder.build(), actor="")


@pytest.mark.parametrize("is_async", [False, True])
def test_calls_of_a_custom_node_are_recorded_with_run_and_node(db, is_async):
    class Sync(BaseDataFlowNode):
        def execute(self, input_data):
            db.express_sync.create("User", {"name": self.node_id})

    class Async(BaseDataFlowNode):
        async def execute(self, input_data):
            await asyncio.gather(*[db.express.create("User", {"name": self.node_id}) for _ in range(2)])
            async for user in db.express.stream("User"):
                await db.express.update("User", user["id"], {"age": 1})

    db.register_node(Sync)
    db.register_node(Async)
    builder = db.workflow()
    builder.add_node("Sync", "one", {})
    builder.add_node("Async", "two", {})
    builder.add_node("UserCreateNode", "three", {"name": "c"})
    with db.actor("bob"):
        runtime = AsyncLocalRuntime()
        _, run = (
            asyncio.run(runtime.execute_async(builder.build())) if is_async else LocalRuntime().execute(builder.build())
        )
        db.express_sync.create("User", {"name": "outside"})
    entries = db.express_sync.call("audit", "User", actor="bob")["entries"]
    assert [(e["run"], e["node"]) for e in entries] == [
        (run, "one"), *[(run, "two")] * 5, (run, "three"), (None, None)
    ]  # fmt: skip


def test_what_is_rolled_back_leaves_no_entry(place):
    db = place.flow()
    register(db)
    builder = db.workflow().add_node("TransactionScopeNode", "scope")
    builder.add_node("LedgerCreateNode", "one", {"name": "a"}).add_node("Fails", "fails")
    with db.actor("alice"), pytest.raises(WorkflowExecutionError):
        LocalRuntime().execute(builder.build())
    db.express_sync.create("Ledger", {"name": "b"})
    (entry,) = db.express_sync.call("audit", "Ledger")["entries"]
    assert (entry["new"]["name"], entry["actor"]) == ("b", "unknown")
    assert differences(db) == []


def test_a_row_that_is_skipped_leaves_no_entry(place):
    db = place.flow()
    register(db)
    rows = [{"code": code, "label": label} for code, label in (("a", "1"), ("b", "1"), ("c", "2"))]
    done = db.express_sync.bulk_create("Tag", rows, on_error="skip")
    assert done["created"] == 2
    assert [e["record_id"] for e in db.express_sync.call("audit", "Tag")["entries"]] == ["a", "c"]
    assert differences(db) == []


def test_a_failing_call_leaves_no_entry_and_the_chain_goes_on(place):
    db = place.flow()
    register(db)
    db.express_sync.create("Tag", {"code": "a", "label": "1"})
    with pytest.raises(UniqueError):
        db.express_sync.bulk_create("Tag", [{"code": "b", "label": "2"}, {"code": "c", "label": "1"}])
    db.express_sync.update("Tag", "a", {"weight": 2})
    assert db.express_sync.call("audit", "Tag")["count"] == 2
    assert differences(db) == []


def test_a_change_that_changes_nothing_is_none(db):
    db.express_sync.create("User", {"name": "a"})
    db.express_sync.call("list", "User")
    builder = db.workflow().add_node("AsyncSQLDatabaseNode", "raw", {"query": "UPDATE users SET name = name, age = 0"})
    LocalRuntime().execute(builder.build())
    assert len(told(db)) == 1


def test_a_changed_key_is_one_record_gone_and_another_made(db, place):
    db.express_sync.bulk_create("User", [{"name": "a"}, {"name": "b"}])
    place.sql("UPDATE users SET id = id + 100 WHERE id = 2")
    assert told(db)[2:] == [("delete", 2, "unknown", "b", None), ("create", 102, "unknown", None, "b")] or told(db)[
        2:
    ] == [("create", 102, "unknown", None, "b"), ("delete", 2, "unknown", "b", None)]
    assert whole(db) is True


async def test_it_is_recorded_from_coroutines_too(place):
    db = place.flow()
    model(db)
    async with db.actor("alice"):
        await db.express.create("User", {"name": "a"})
        await asyncio.gather(*(db.express.update("User", 1, {"age": {"$inc": 1}}) for _ in range(8)))
    log = AuditLog(db)
    report = await log.verify(checkpoint=await log.seal())
    assert (report.ok, report.entries) == (True, 9)
    assert (await log.replay("User"))[0]["age"] == 8
    found = await db.express.call("audit", "User", record_id=1)
    assert {e["actor"] for e in found["entries"]} == {"alice"}
    await db.aclose()


def test_both_databases_record_the_same(request, tmp_path):
    logs = []
    for dialect in DIALECTS:
        place = Place(dialect, request, tmp_path)
        db = place.flow()
        register(db)
        failed = [Programs(db, seed).run(15) for seed in range(4)]
        assert differences(db) == []
        found = {}
        for name in ("Ledger", "Tag", "Pair"):
            for e in db.express_sync.call("audit", name)["entries"]:
                shown = {key: e[key] for key in ("action_type", "actor", "old", "new", "changed")}
                found.setdefault((name, e["record_id"]), []).append(shown)
        logs.append((failed, found))
        place.close()
    (failed, one), (also, other) = logs
    assert failed == also
    assert one.keys() == other.keys()
    for key, entries in one.items():
        assert entries == other[key], key


@pytest.mark.parametrize("seed", range(3))
def test_the_log_rebuilds_the_tables_after_any_program(place, seed):
    db = place.flow()
    register(db)
    Programs(db, 500 + seed).run(25)
    assert differences(db) == []


def test_the_log_rebuilds_an_earlier_moment(db):
    db.express_sync.create("User", {"name": "a"})
    moment = db.express_sync.call("audit", "User")["entries"][-1]["at"]
    db.core.ask(_pause(db), write=True)
    db.express_sync.update("User", 1, {"name": "b"})
    db.express_sync.create("User", {"name": "c"})
    log = AuditLogSync(db)
    assert [r["name"] for r in log.replay("User", at=moment)] == ["a"]
    assert log.replay("User") == db.express_sync.list("User")["records"]


def _pause(db):
    import time

    time.sleep(0.01)
    yield from db.core.dialect.list_tables()


# -- others who write --------------------------------------------------------------------------------------------------
def test_what_other_tools_write_is_recorded_as_by_an_unknown_actor(db, place):
    with db.actor("alice"):
        db.express_sync.create("User", {"name": "a"})
    place.sql(
        "INSERT INTO users (name, age, created_at, updated_at) SELECT 'b', 1, created_at, updated_at FROM users",
        "UPDATE users SET age = 7",
        "DELETE FROM users WHERE id = 1",
    )
    assert told(db)[1:] == [
        ("create", 2, "unknown", None, "b"), ("update", 1, "unknown", "a", "a"), ("update", 2, "unknown", "b", "b"),
        ("delete", 1, "unknown", "a", None),
    ]  # fmt: skip
    with db.actor("bob"):
        db.express_sync.update("User", 2, {"age": 8})
    assert [actor for _, _, actor, *_ in told(db)] == ["alice", *["unknown"] * 4, "bob"]
    assert whole(db) is True
    assert AuditLogSync(db).replay("User") == db.express_sync.list("User")["records"]


def test_the_sqlite3_shell_goes_on_writing(tmp_path, request):
    place = Place("sqlite", request, tmp_path)
    db = place.flow()
    model(db)
    db.express_sync.create("User", {"name": "a"})
    script = "UPDATE users SET name = 'shell' WHERE id = 1; DELETE FROM users;"
    try:
        done = subprocess.run(["sqlite3", place.path, script], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no sqlite3 program here")
    assert (done.returncode, done.stderr) == (0, "")
    assert told(db)[1:] == [("update", 1, "unknown", "a", "shell"), ("delete", 1, "unknown", "shell", None)]
    assert whole(db) is True
    place.close()


def test_a_replaced_row_is_recorded_with_what_it_removes(tmp_path, request):
    place = Place("sqlite", request, tmp_path)
    db = place.flow()
    register(db)
    for code, label in (("a", "1"), ("b", "2")):
        db.express_sync.create("Tag", {"code": code, "label": label})
    sql = "INSERT OR REPLACE INTO tags (code, label) VALUES ('a', '2')"
    LocalRuntime().execute(db.workflow().add_node("AsyncSQLDatabaseNode", "raw", {"query": sql}).build())
    entries = db.express_sync.call("audit", "Tag")["entries"][2:]
    assert [(e["action_type"], e["record_id"]) for e in entries[:2]] in (
        [("delete", "a"), ("delete", "b")],
        [("delete", "b"), ("delete", "a")],
    )
    assert (entries[2]["action_type"], entries[2]["record_id"]) == ("create", "a")
    assert differences(db) == []
    place.sql("INSERT OR REPLACE INTO tags (code, label) VALUES ('a', '9')")  # same key: no trigger for what it removes
    assert differences(db) == []
    place.close()


def test_a_connection_that_was_there_before_the_log_seals_all_the_same(tmp_path, request):
    place = Place("sqlite", request, tmp_path)
    early = place.flow()

    @early.model
    class Other:
        text: str

    early.express_sync.create("Other", {"text": "x"})
    late = place.flow()
    model(late)
    late.express_sync.create("User", {"name": "a"})
    model(early)
    with early.actor("early"):
        early.express_sync.update("User", 1, {"name": "b"})
    assert told(late)[1:] == [("update", 1, "early", "a", "b")]
    assert whole(late) is True
    place.close()


def test_sql_that_takes_the_seal_away_is_undone_with_the_lease(tmp_path, request):
    place = Place("sqlite", request, tmp_path)
    db = place.flow()
    model(db)
    db.express_sync.create("User", {"name": "a"})
    query = {"query": "DROP TRIGGER dataflow_audit_sealing", "validate_queries": False}
    LocalRuntime().execute(db.workflow().add_node("AsyncSQLDatabaseNode", "raw", query).build())
    with db.actor("alice"):
        db.express_sync.create("User", {"name": "b"})
    assert told(db)[-1] == ("create", 2, "alice", None, "b")
    place.close()


def test_counts_and_ids_are_those_of_the_users_own_statement(db):
    assert db.express_sync.bulk_create("User", [{"name": "a"}, {"name": "b"}], return_ids=True)["ids"] == [1, 2]
    assert db.express_sync.bulk_update("User", filter={}, update={"age": 1})["updated"] == 2
    builder = db.workflow().add_node("AsyncSQLDatabaseNode", "raw", {"query": "DELETE FROM users WHERE age = 1"})
    results, _ = LocalRuntime().execute(builder.build())
    assert results["raw"]["result"]["row_count"] == 2


def test_truncate_is_refused_where_there_is_one(request, tmp_path):
    place = Place("postgresql", request, tmp_path)
    db = place.flow()
    model(db)
    db.express_sync.create("User", {"name": "a"})
    with pytest.raises(asyncpg.PostgresError, match="audited"):
        place.sql("TRUNCATE users")
    assert whole(db) is True
    place.close()


def test_writers_of_one_record_take_turns_in_its_chain(request, tmp_path):
    place = Place("postgresql", request, tmp_path)
    db = place.flow(pool_size=8)
    model(db)
    db.express_sync.create("User", {"name": "a"})

    async def work():
        async def one(number):
            async with db.actor(f"w{number}"):
                for _ in range(10):
                    await db.express.update("User", 1, {"age": {"$inc": 1}})
                    await db.express.create("User", {"name": f"n{number}"})

        await asyncio.gather(*(one(number) for number in range(8)))

    asyncio.run(work())
    report = AuditLogSync(db).verify()
    assert (report.faults, report.entries) == ((), 161)
    place.close()


def test_settings_of_a_session_change_nothing_of_what_is_recorded(request, tmp_path):
    place = Place("postgresql", request, tmp_path)
    db = place.flow()
    register(db)
    Programs(db, 3).bulk_create()
    place.sql(
        "SET TimeZone = 'Asia/Tokyo'", "SET DateStyle = 'German'", "SET extra_float_digits = 0",
        "SET bytea_output = 'escape'", "UPDATE ledgers SET rate = 1.0/3.0, size = 5, raw = '\\xff00'",
    )  # fmt: skip
    assert differences(db) == []
    place.close()


# -- the log keeps itself ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE dataflow_audit SET action = 'x'",
        "DELETE FROM dataflow_audit",
        "DELETE FROM dataflow_audit_checkpoint",
        "UPDATE dataflow_audit_purged SET hash = 'x'",
    ],
)
def test_the_log_is_append_only(db, place, sql):
    db.express_sync.create("User", {"name": "a"})
    AuditLogSync(db).seal()
    if "purged" in sql:
        AuditLogSync(db).purge(datetime.now(UTC) + timedelta(days=1), reason="r")
        db.express_sync.update("User", 1, {"name": "b"})
        AuditLogSync(db).purge(datetime.now(UTC) + timedelta(days=1), reason="r")
    with pytest.raises((sqlite3.Error, asyncpg.PostgresError), match="append-only"):
        place.sql(sql)
    assert whole(db) is True


def test_entries_cannot_be_replaced_or_written_directly(db, place):
    db.express_sync.create("User", {"name": "a"})
    if place.sqlite:
        with pytest.raises(sqlite3.Error, match="append-only"):
            place.sql("INSERT OR REPLACE INTO dataflow_audit (seq, tbl, record, action) VALUES (1, 'users', '1', 'x')")
        with pytest.raises(sqlite3.Error, match="append-only"):
            place.sql("INSERT OR REPLACE INTO dataflow_audit_seal (seq, actor, hash) VALUES (1, 'x', '')")
        with pytest.raises(sqlite3.Error, match="append-only"):
            place.sql("UPDATE dataflow_audit_seal SET actor = 'x'")
        return
    for sql in ("TRUNCATE dataflow_audit", "INSERT INTO dataflow_audit SELECT * FROM dataflow_audit"):
        with pytest.raises(asyncpg.PostgresError, match=r"append-only|by triggers"):
            place.sql(sql)


def test_a_row_changed_behind_the_triggers_is_found(db, place):
    db.express_sync.bulk_create("User", [{"name": "a"}, {"name": "b"}, {"name": "c"}])
    if place.sqlite:
        rows = place.sql("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'users'")
        away, back = [f'DROP TRIGGER "{name}"' for name, _ in rows], [sql for _, sql in rows]
    else:
        away, back = ["ALTER TABLE users DISABLE TRIGGER USER"], ["ALTER TABLE users ENABLE TRIGGER USER"]
    place.sql(
        *away,
        "UPDATE users SET name = 'x' WHERE id = 1",
        "DELETE FROM users WHERE id = 2",
        "INSERT INTO users (id, name, created_at, updated_at) SELECT 77, 'f', created_at, updated_at FROM users "
        "WHERE id = 3",
        *back,
    )
    report = AuditLogSync(db).verify()
    assert sorted((fault.kind, fault.record) for fault in report.faults) == [
        ("differs", "1"), ("differs", "2"), ("differs", "77")
    ]  # fmt: skip


def test_triggers_that_are_gone_are_made_anew_and_what_changed_meanwhile_is_told(db, place):
    db.express_sync.bulk_create("User", [{"name": "a"}, {"name": "b"}])
    if place.sqlite:
        rows = place.sql("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'users'")
        place.sql(*(f'DROP TRIGGER "{name}"' for (name,) in rows))
    else:
        place.sql("DROP TRIGGER dataflow_audit_update ON users")
    place.sql("UPDATE users SET name = 'x' WHERE id = 1")
    strict = place.flow(auto_migrate=False)
    model(strict)
    with pytest.raises(SchemaError, match="lacks what audit needs") as caught:
        strict.express_sync.count("User")
    assert caught.value.code == "missing-extra"
    again = place.flow()
    model(again)
    assert told(again)[2:] == [("found", 1, "unknown", "a", "x")]
    report = AuditLogSync(again).verify()
    assert report.ok
    assert "nothing watched it" in report.notes[0]


def test_a_record_that_went_while_nothing_watched_is_told_too(db, place):
    with db.actor("ann"):
        db.express_sync.bulk_create("User", [{"name": "a"}, {"name": "b"}])
    if place.sqlite:
        rows = place.sql("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'users'")
        place.sql(*(f'DROP TRIGGER "{name}"' for (name,) in rows))
    else:
        place.sql("DROP TRIGGER dataflow_audit_delete ON users")
    place.sql("DELETE FROM users WHERE id = 1")
    again = place.flow()
    model(again)
    assert told(again)[2:] == [("found", 1, "unknown", "a", None)]
    report = AuditLogSync(again).verify()
    assert report.ok, report.faults
    assert "nothing watched it" in report.notes[0]
    assert [row["id"] for row in AuditLogSync(again).replay("User")] == [2]


def test_a_table_that_is_made_anew_goes_on_in_the_log(db, place):
    db.express_sync.bulk_create("User", [{"name": "a"}, {"name": "b"}])
    db.close()
    place.sql("DROP TABLE users")
    again = place.flow(enable_model_persistence=False)
    model(again)
    again.express_sync.create("User", {"name": "c"})
    assert sorted(told(again)[2:4]) == [("found", 1, "unknown", "a", None), ("found", 2, "unknown", "b", None)]
    assert told(again)[4:] == [("create", 1, "unknown", None, "c")]
    assert whole(again) is True
    assert AuditLogSync(again).replay("User") == again.express_sync.list("User")["records"]


def test_rows_that_were_there_before_are_found(place):
    first = place.flow()

    @first.model
    class User:
        name: str
        age: int = 0
        ssn: str | None = None

    first.express_sync.bulk_create("User", [{"name": "a"}, {"name": "b"}])
    db = place.flow()
    model(db)
    with db.actor("alice"):
        db.express_sync.delete("User", 1)
    assert [(action, key) for action, key, *_ in told(db)] == [("found", 1), ("found", 2), ("delete", 1)]
    assert whole(db) is True
    assert AuditLogSync(db).replay("User") == db.express_sync.list("User")["records"]


def test_a_new_column_is_watched_from_then_on(place):
    first = place.flow()
    model(first)
    first.express_sync.create("User", {"name": "a"})
    place.sql("ALTER TABLE users ADD COLUMN mood text")
    db = place.flow()

    @db.model
    class User:
        name: str
        age: int = 0
        ssn: str | None = None
        mood: str | None = None
        __dataflow__ = {"audit_log": True}

    db.express_sync.update("User", 1, {"mood": "good"})
    assert [e["action_type"] for e in db.express_sync.call("audit", "User")["entries"]] == ["create", "found", "update"]
    assert db.express_sync.call("audit", "User", field="mood")["count"] == 1
    assert whole(db) is True


def test_releases_side_by_side_watch_what_either_of_them_has(place):
    def release(*names, **options):
        db = place.flow()
        body = {"__annotations__": dict.fromkeys(("name", *names), str | None), **dict.fromkeys(("name", *names))}
        db.model(type("User", (), {**body, "__dataflow__": {"audit_log": True, **options}}))
        return db

    def entries(db):
        found = db.express_sync.call("audit", "User")["entries"]
        return [(e["action_type"], e["changed"]) for e in found]

    old = release()
    old.express_sync.create("User", {"name": "a"})
    new = release("mood")
    new.express_sync.update("User", 1, {"mood": "good"})
    again = release()  # an older process starts once more
    again.express_sync.update("User", 1, {"name": "b"})
    other = release("shoe")
    with new.actor("ann"):
        new.express_sync.update("User", 1, {"mood": "bad"})
    other.express_sync.update("User", 1, {"shoe": "42"})
    assert entries(new)[2:] == [
        ("update", ["mood", "updated_at"]),
        ("update", ["name", "updated_at"]),
        ("update", ["mood", "updated_at"]),
        ("found", []),
        ("update", ["shoe", "updated_at"]),
    ]
    for db in (old, new, again, other):
        report = AuditLogSync(db).verify()
        assert (report.ok, report.notes) == (True, ())
        assert AuditLogSync(db).replay("User") == db.express_sync.list("User")["records"]
    assert new.express_sync.call("audit", "User", field="mood", actor="ann")["count"] == 1
    existing = place.flow(existing_schema_mode=True)
    existing.model(
        type("User", (), {"__annotations__": {"name": str | None}, "name": None, "__dataflow__": {"audit_log": True}})
    )
    assert existing.express_sync.count("User") == {"count": 1}


def test_a_wide_table_is_recorded_whole(place):
    db = place.flow()
    fields = {f"f{i}": int for i in range(130)}
    wide = type("Wide", (), {"__annotations__": fields, "__dataflow__": {"audit_log": True, "audit_mask": ["f99"]}})
    db.model(wide)
    db.express_sync.create("Wide", {f"f{i}": i for i in range(130)})
    db.express_sync.update("Wide", 1, {"f129": 0, "f99": 7})
    (entry,) = db.express_sync.call("audit", "Wide", field="f129", action_type="update")["entries"]
    assert (entry["old"]["f129"], entry["new"]["f129"], entry["changed"]) == (129, 0, ["f99", "f129", "updated_at"])
    assert db.express_sync.call("audit", "Wide", field="f99", action_type="update")["count"] == 1
    assert whole(db) is True


def test_changes_of_a_field_are_found_wherever_it_stands_and_whatever_it_is_called(place):
    odd = ['we"ird', "it's", "a */ b", "back\\slash"]

    def release(*more):
        db = place.flow()
        names = [*more, *(f"field{number}" for number in range(95)), *odd]
        body = {"__annotations__": dict.fromkeys(names, str | None), **dict.fromkeys(names)}
        db.model(type("Wide", (), {**body, "__dataflow__": {"audit_log": True, "audit_mask": ["field94"]}}))
        return db

    changed = ["field0", "field40", "field94", *odd]
    old = release()
    old.express_sync.create("Wide", {})
    for name in changed:
        old.express_sync.update("Wide", 1, {name: "1"})
    new = release("one", "two", "three")  # what comes after them stands elsewhere
    for name in changed:
        new.express_sync.update("Wide", 1, {name: "2"})
    for db in (old, new):
        counts = {name: db.express_sync.call("audit", "Wide", field=name)["count"] for name in changed}
        assert counts == dict.fromkeys(changed, 2)
        assert whole(db) is True


def test_a_table_of_others_that_is_not_strict_is_recorded_exactly(tmp_path, request):
    place = Place("sqlite", request, tmp_path)
    with closing(sqlite3.connect(place.path)) as raw, raw:
        raw.execute("CREATE TABLE loose (id INTEGER PRIMARY KEY, name TEXT, size INTEGER, rate REAL, raw BLOB)")
        raw.execute("INSERT INTO loose VALUES (1, x'00ff', 'seven', 700, 'text'), (2, 'n', 2.5, 0.1, NULL)")
    db = place.flow()

    @db.model
    class Loose:
        name: str | None = None
        size: int | None = None
        rate: float | None = None
        raw: bytes | None = None
        __tablename__ = "loose"
        __dataflow__ = {"audit_log": True, "timestamps": False}

    assert db.express_sync.count("Loose") == {"count": 2}
    place.sql("UPDATE loose SET size = 1e300 WHERE id = 2", "UPDATE loose SET name = 'b7' || char(0) WHERE id = 1")
    assert AuditLogSync(db).stored("Loose") == table(db, "Loose")
    assert whole(db) is True
    place.close()


# -- masks -------------------------------------------------------------------------------------------------------------
def test_a_masked_field_never_reaches_the_log(place):
    db = place.flow()
    model(db, audit_mask=["ssn"])
    call = db.express_sync
    call.bulk_create("User", [{"name": "a", "ssn": "SECRET-1"}, {"name": "b"}])
    call.update("User", 1, {"ssn": "SECRET-2"})
    call.update("User", 1, {"name": "c"})
    call.update("User", 2, {"ssn": "SECRET-2"})
    entries = call.call("audit", "User")["entries"]
    assert [((e["old"] or {}).get("ssn"), e["new"]["ssn"], "ssn" in e["changed"]) for e in entries] == [
        (None, "***", True), (None, None, False), ("***", "***", True), ("***", "***", False), (None, "***", True)
    ]  # fmt: skip
    assert [e["record_id"] for e in call.call("audit", "User", field="ssn")["entries"]] == [1, 1, 2]
    log = repr(place.sql("SELECT * FROM dataflow_audit"))
    assert "***" in log
    assert "SECRET" not in log
    assert whole(db) is True


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (["snn"], "did you mean 'ssn'"),
        ("ssn", "list of field names"),
        (["id"], "by which entries are found"),
        ([1], "list"),
    ],
)
def test_a_mask_that_names_no_field_is_refused(mask, message):
    with DataFlow(":memory:") as db, pytest.raises(ModelError, match=message):
        model(db, audit_mask=mask)


def test_a_mask_without_audit_is_refused():
    with DataFlow(":memory:") as db, pytest.raises(ModelError, match="not audited"):
        model(db, audit_mask=["ssn"], audit_log=False)


def test_the_setting_audits_every_model(place):
    db = place.flow(audit_logging=True)

    @db.model
    class Plain:
        text: str

    db.express_sync.create("Plain", {"text": "a"})
    assert db.express_sync.call("audit", "Plain")["count"] == 1
    with DataFlow(":memory:", disable={"enterprise"}) as bare, pytest.raises(MissingCapability, match="audit_log"):
        model(bare)


# -- the node ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def busy(db):
    call = db.express_sync
    call.bulk_create("User", [{"name": f"n{i}"} for i in range(5)])
    with db.actor("alice"):
        call.update("User", 2, {"age": 5})
        call.update("User", 2, {"name": "x"})
        call.delete("User", 3)
    return db


def count_of(db, **params):
    return db.express_sync.call("audit", "User", **params)["count"]


def test_entries_are_filtered(busy):
    assert count_of(busy) == 8
    assert count_of(busy, record_id=2) == count_of(busy, id=2) == 3
    assert count_of(busy, record_id=99) == 0
    assert count_of(busy, action_type="update") == 2
    assert count_of(busy, action_type=["create", "delete"]) == 6
    assert count_of(busy, action_type=["soft_delete", "restore"]) == 0
    assert count_of(busy, actor="alice") == 3
    assert count_of(busy, actor="alice", action_type="delete", record_id=3) == 1
    assert count_of(busy, field="name") == 7
    assert count_of(busy, field="age", action_type="update") == 1


def test_a_date_range_is_inclusive_and_an_end_without_time_covers_its_day(busy):
    today = datetime.now(UTC).date()
    if datetime.now(UTC).hour == 23 and datetime.now(UTC).minute == 59:
        pytest.skip("the day is about to end")
    tomorrow, yesterday = today + timedelta(days=1), today - timedelta(days=1)
    assert count_of(busy, date_range={"start": str(today), "end": str(today)}) == 8
    assert count_of(busy, date_range={"start": today, "end": today}) == 8
    assert count_of(busy, date_range={"end": str(yesterday)}) == 0
    assert count_of(busy, date_range={"start": str(tomorrow)}) == 0
    at = [e["at"] for e in busy.express_sync.call("audit", "User")["entries"]]
    last = [moment for moment in at if moment >= at[-1]]
    assert count_of(busy, date_range={"start": at[-1], "end": at[-1].isoformat()}) == len(last)


def test_pages_follow_each_other(busy):
    call = busy.express_sync
    for newest_first in (False, True):
        seen, cursor = [], None
        while True:
            page = call.call("audit", "User", limit=3, cursor=cursor, newest_first=newest_first)
            seen += [e["seq"] for e in page["entries"]]
            cursor = page["next_cursor"]
            assert page["has_more"] == (cursor is not None)
            if cursor is None:
                break
        assert len(seen) == 8
        assert seen == sorted(seen, reverse=newest_first)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"action_type": "updated"}, "did you mean 'update'"),
        ({"action_type": 5}, "text or a list"),
        ({"action_type": []}, "empty list"),
        ({"date_range": "2025-01-01"}, "takes a dict"),
        ({"date_range": {"begin": "2025-01-01"}}, "date_range has no 'begin'"),
        ({"date_range": {"start": "soon"}}, "not ISO 8601"),
        ({"date_range": {"start": "2025-02-01", "end": "2025-01-01"}}, "ends before it starts"),
        ({"limit": 0}, "at least 1"),
        ({"limit": "5"}, "whole number"),
        ({"cursor": "zzz"}, "not one that an AuditNode"),
        ({"field": "nam"}, "did you mean 'name'"),
        ({"actor": 5}, "actor takes a text"),
        ({"newest_first": 1}, "True or False"),
        ({"recordid": 1}, "did you mean 'record_id'"),
    ],
)
def test_a_wrong_parameter_is_explained_at_once_and_at_build(params, message):
    with DataFlow(":memory:") as db:
        model(db)
        with pytest.raises(InputError, match=message):
            db.express_sync.call("audit", "User", **params)
        with pytest.raises(WorkflowBuildError, match=message):
            db.workflow().add_node("UserAuditNode", "audit", params).build()


def test_the_node_runs_in_workflows_as_the_documents_write_it(busy):
    builder = busy.workflow()
    builder.add_node(
        "UserAuditNode", "audit",
        {
            "record_id": 2, "action_type": "update", "limit": 1,
            "date_range": {"start": "2025-01-01", "end": "2125-01-31"},
        },
    )  # fmt: skip
    results, _ = LocalRuntime().execute(builder.build())
    found = results["audit"]
    assert (found["count"], found["has_more"], found["entries"][0]["new"]["age"]) == (1, True, 5)


def test_keys_of_any_type_find_their_record(place):
    db = place.flow()
    register(db)
    call = db.express_sync
    call.create("Pair", {"left": 1, "right": "b,1:x"})
    call.create("Tag", {"code": "ä'", "label": "l"})

    @db.model
    class Day:
        day: datetime
        rate: float
        __dataflow__ = {"audit_log": True, "primary_key": ["day", "rate"]}

    moment = datetime(2025, 1, 1, 12, 0, 0, 5, tzinfo=UTC)
    call.create("Day", {"day": moment, "rate": 0.1})
    assert call.call("audit", "Pair", record_id=(1, "b,1:x"))["entries"][0]["record_id"] == (1, "b,1:x")
    assert call.call("audit", "Pair", left=1, right="b,1:x")["count"] == 1
    assert call.call("audit", "Tag", record_id="ä'")["count"] == 1
    assert call.call("audit", "Day", record_id={"day": moment, "rate": 0.1})["count"] == 1


# -- with other features -----------------------------------------------------------------------------------------------
def test_soft_deletion_and_restoration_are_told_apart(place):
    db = place.flow()
    model(db, soft_delete=True, versioned=True)
    call = db.express_sync
    call.create("User", {"name": "a"})
    call.update("User", 1, {"name": "b"})
    call.delete("User", 1)
    call.call("restore", "User", id=1)
    assert [action for action, *_ in told(db)] == ["create", "update", "soft_delete", "restore"]
    for action in ("create", "update", "soft_delete", "restore"):
        assert [found for found, *_ in told(db, action_type=action)] == [action]
    assert whole(db) is True


def test_a_tenant_sees_its_own_entries_only(place):
    db = place.flow()

    @db.model
    class Note:
        code: str
        text: str
        __dataflow__ = {"audit_log": True, "multi_tenant": True, "primary_key": ["code"]}

    call = db.express_sync
    for tenant in ("acme", "globex"):
        with db.tenant(tenant):
            call.create("Note", {"code": "k", "text": tenant})
            call.update("Note", "k", {"text": f"{tenant}!"})
    with db.tenant("acme"):
        entries = call.call("audit", "Note", record_id="k")["entries"]
    assert [(e["tenant"], e["new"]["text"]) for e in entries] == [("acme", "acme"), ("acme", "acme!")]
    assert call.call("audit", "Note", tenant_id="globex")["count"] == 2
    with pytest.raises(TenancyError):
        call.call("audit", "Note")
    with db.tenant("acme"), pytest.raises(TenancyError):
        call.call("audit", "Note", tenant_id="globex")
    with db.actor("root"), db.all_tenants(reason="review"):
        assert call.call("audit", "Note", record_id="k")["count"] == 4
    assert whole(db) is True
    (passed,) = AuditLogSync(db).entries(actor="root")["entries"]
    assert (passed["action_type"], passed["new"], passed["table"]) == ("all_tenants", {"reason": "review"}, "")


def test_strict_tenants_are_audited_and_see_their_own_entries_only(place):
    db = place.flow(tenant_isolation="strict")

    @db.model
    class Note:
        text: str
        __dataflow__ = {"audit_log": True, "multi_tenant": True}

    def own_sql(query):
        builder = db.workflow().add_node("AsyncSQLDatabaseNode", "raw", {"query": query})
        return LocalRuntime().execute(builder.build())[0]["raw"]["result"]

    for tenant in ("acme", "globex"):
        with db.tenant(tenant), db.actor(f"of {tenant}"):
            db.express_sync.create("Note", {"text": tenant})
            assert own_sql("UPDATE notes SET text = text || '!'")["row_count"] == 1
    with db.tenant("acme"):
        entries = db.express_sync.call("audit", "Note")["entries"]
        assert [(e["tenant"], e["actor"], e["new"]["text"]) for e in entries] == [
            ("acme", "of acme", "acme"), ("acme", "of acme", "acme!")
        ]  # fmt: skip
        if place.sqlite:
            with pytest.raises(WorkflowExecutionError, match="confined"):
                own_sql("SELECT count(*) FROM dataflow_audit_entries")
        else:
            assert own_sql("SELECT DISTINCT tenant FROM dataflow_audit")["data"] == [{"tenant": "acme"}]
        for table in ("dataflow_audit", "dataflow_audit_note"):
            with pytest.raises(WorkflowExecutionError, match=r"confined|may not do that"):
                own_sql(f"INSERT INTO {table} (record, action) VALUES ('x', 'y')")
    with db.all_tenants(reason="review"):
        assert db.express_sync.call("audit", "Note")["count"] == 4
    assert whole(db) is True
    assert db.health()["checks"].get("tenancy", {"ok": True})["ok"], db.health()


@pytest.mark.parametrize("isolation", ["schema", "database"])
def test_each_place_of_a_tenant_has_its_own_log(request, tmp_path, isolation):
    place = Place("sqlite" if isolation == "database" else "postgresql", request, tmp_path)
    settings = {} if isolation == "database" else {"postgres_schema": None}
    prefix = {"tenant_database_prefix": f"audit_{next(SCHEMAS)}_"}
    db = place.flow(tenant_isolation=isolation, multi_tenant=True, **settings, **prefix)
    model(db)
    for tenant in ("acme", "globex"):
        with db.tenant(tenant), db.actor("alice"):
            db.express_sync.create("User", {"name": tenant})
    for tenant in ("acme", "globex"):
        with db.tenant(tenant):
            (entry,) = db.express_sync.call("audit", "User")["entries"]
            assert (entry["actor"], entry["new"]["name"]) == ("alice", tenant)
            assert whole(db) is True
    place.close()


def test_passing_a_guard_is_recorded_even_before_there_is_a_log(place):
    db = place.flow(multi_tenant=True)
    with db.actor("root"), db.all_tenants(reason="look"):
        pass
    (entry,) = AuditLogSync(db).entries()["entries"]
    assert (entry["actor"], entry["action_type"], entry["new"]) == ("root", "all_tenants", {"reason": "look"})
    assert whole(db) is True


# -- proof -------------------------------------------------------------------------------------------------------------
def test_a_checkpoint_that_was_kept_elsewhere_finds_a_log_that_was_made_anew(db, place):
    with db.actor("mallory"):
        db.express_sync.create("User", {"name": "a"})
    db.express_sync.create("User", {"name": "b"})
    log = AuditLogSync(db)
    kept = log.seal()
    from dataflow.enterprise.audit.chain import Entry
    from dataflow.enterprise.audit.intruder import Intruder

    intruder = Intruder(db, 1)
    within = intruder.break_in()
    next(within)
    source = db.core.dialect
    columns = f"seq, {source.log_at}, tbl, record, tenant, actor, run, node, action, old, new, n, hash"
    prev = ""
    for row in intruder.ask(f"SELECT {columns} FROM {source.log_source} ORDER BY seq"):
        entry = Entry(*row)._replace(actor="innocent")
        prev = prev if source.log_single else ""
        prev = hash_of(prev, entry)
        seal = "dataflow_audit_seal" if place.sqlite else "dataflow_audit"
        intruder.do(f"UPDATE {seal} SET actor = 'innocent', hash = '{prev}' WHERE seq = {entry.seq}")
    intruder.do("DELETE FROM dataflow_audit_checkpoint")
    next(within, None)
    assert log.verify().ok  # without anything kept outside, there is nothing to tell it by
    report = log.verify(checkpoint=kept)
    assert not report.ok
    assert {fault.kind for fault in report.faults} == {"checkpoint"}
    assert not log.verify(checkpoint=kept.to_dict()).ok


def test_a_checkpoint_is_signed_with_the_key(place):
    db = place.flow(audit_key="secret")
    model(db)
    db.express_sync.create("User", {"name": "a"})
    log = AuditLogSync(db)
    kept = log.seal()
    assert log.verify(checkpoint=kept).ok
    other = Checkpoint(**{**kept.to_dict(), "count": 2})
    assert any("signature" in fault.detail for fault in log.verify(checkpoint=other).faults)
    assert "secret" not in repr(db.core.config) + str(kept)
    thief = place.flow(audit_key="guess")
    model(thief)
    assert not AuditLogSync(thief).verify().ok


def test_later_entries_do_not_disturb_checkpoints(db):
    log = AuditLogSync(db)
    kept = []
    for name in "abc":
        db.express_sync.create("User", {"name": name})
        kept.append(log.seal())
    db.express_sync.bulk_update("User", filter={}, update={"age": 1})
    report = log.verify(checkpoint=kept)
    assert (report.ok, report.checkpoints, [one.count for one in kept]) == (True, 3, [1, 2, 3])


def test_retention_removes_what_is_old_and_all_can_still_be_verified(db):
    call = db.express_sync
    log = AuditLogSync(db)
    call.bulk_create("User", [{"name": f"n{i}"} for i in range(6)])
    call.bulk_update("User", filter={}, update={"age": 1})
    call.bulk_delete("User", ids=[1, 2])
    kept = log.seal()
    later = datetime.now(UTC) + timedelta(days=1)
    with pytest.raises(InputError, match="reason"):
        log.purge(later, reason="")
    with pytest.raises(InputError, match="older_than"):
        log.purge(datetime(2025, 1, 1), reason="r")  # noqa: DTZ001
    assert log.purge(datetime(2025, 1, 1, tzinfo=UTC), reason="nothing is that old") == 0
    with db.actor("dpo"):
        assert log.purge(later, reason="retention") == 10  # the last entry of each of four records stays
    report = log.verify(checkpoint=kept)
    assert report.faults == ()
    assert "were purged" in report.notes[0]
    call.update("User", 3, {"age": 2})
    call.bulk_upsert("User", [{"id": 1, "name": "again"}])
    assert log.purge(later, reason="retention") == 2 - 1
    assert log.verify(checkpoint=[kept, log.seal()]).faults == ()
    assert log.replay("User") == call.list("User")["records"]
    purge = log.entries(actor="dpo")["entries"][0]
    assert (purge["action_type"], purge["new"]["removed"], purge["new"]["reason"]) == ("purge", 10, "retention")


def test_the_rule_of_the_hash_is_one(db, place):
    db.express_sync.create("User", {"name": "ä\n'"})
    columns = f"seq, {db.core.dialect.log_at}, tbl, record, tenant, actor, run, node, action, old, new"
    ((*values, stored),) = place.sql(f"SELECT {columns}, hash FROM {db.core.dialect.log_source}")
    assert digest("", *values) == stored


def test_there_is_nothing_to_verify_without_a_log():
    with DataFlow(":memory:") as db, pytest.raises(SchemaError, match="no audit log"):
        AuditLogSync(db).verify()


def test_a_model_that_is_not_audited_has_no_log(db):
    @db.model
    class Plain:
        text: str

    with pytest.raises(InputError, match="not audited"):
        AuditLogSync(db).replay("Plain")
    with pytest.raises(DataFlowError):
        db.express_sync.call("audit", "Plain")


def test_a_plan_made_for_one_row_does_not_make_many_slow(db):
    db.express_sync.create("User", {"name": "a"})
    db.express_sync.update("User", 1, {"age": 1})
    db.express_sync.bulk_create("User", [{"name": "n"} for _ in range(20_000)])
    start = datetime.now(UTC)
    db.express_sync.bulk_update("User", filter={}, update={"age": 2})
    assert (datetime.now(UTC) - start).total_seconds() < 15  # nested loops would take minutes


def test_a_day_as_a_value_is_its_own(place):
    db = place.flow()
    register(db)
    db.express_sync.create("Ledger", {"name": "a", "day": date.max})
    assert db.express_sync.call("audit", "Ledger")["entries"][0]["new"]["day"] == date.max


def test_entries_of_all_models_name_their_table_and_options_are_checked(place):
    db = place.flow()
    model(db, multi_tenant=True)
    for tenant in ("acme", "bolt"):
        with db.tenant(tenant):
            db.express_sync.create("User", {"name": tenant})
    with db.all_tenants(reason="look"):
        pass
    log = AuditLogSync(db)
    assert [entry["table"] for entry in log.entries()["entries"]] == ["users", "users", ""]
    assert [entry["tenant"] for entry in log.entries("User", tenant_id="bolt")["entries"]] == ["bolt"]
    for options in ({"limit": 0}, {"limit": "x"}, {"newest_first": "yes"}, {"actor": 5}, {"cursor": "zz"}):
        for name in (None, "User"):
            with pytest.raises(InputError) as caught:
                log.entries(name, **options)
            assert caught.value.code in ("bad-parameter", "bad-cursor")
