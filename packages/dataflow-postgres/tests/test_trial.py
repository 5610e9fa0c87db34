"""A DataFlow in tdd mode on PostgreSQL: one transaction that is never committed, whatever is done inside."""

import asyncio
import gc
import threading
from typing import Annotated

import pytest

from dataflow import BaseDataFlowNode, DataFlow
from dataflow.errors import DatabaseTimeout, DataFlowError, NotYetAvailable, UniqueError, WorkflowExecutionError
from dataflow.fields import ForeignKey
from dataflow.runtime import AsyncLocalRuntime, LocalRuntime

CATALOG = """
SELECT 'schema', oid, nspname::text FROM pg_namespace UNION ALL
SELECT 'relation', oid, relname::text FROM pg_class UNION ALL
SELECT 'type', oid, typname::text FROM pg_type UNION ALL
SELECT 'function', oid, proname::text FROM pg_proc UNION ALL
SELECT 'constraint', oid, conname::text FROM pg_constraint UNION ALL
SELECT 'column', attrelid, attname::text FROM pg_attribute WHERE attrelid >= 16384
ORDER BY 1, 2, 3"""


@pytest.fixture
def catalog(server):
    """What the catalog of the database holds."""
    return lambda: server.rows(CATALOG)


@pytest.fixture
def tried(pg):
    """Open a DataFlow in tdd mode on a schema that is there, with the tables of the models."""
    with pg.open() as db:
        db.express_sync.create("Row", {"n": 0})
        db.express_sync.count("Note")
    return lambda **settings: pg.open(tdd_mode=True, **settings)


def sql(db, query, **more):
    """Run SQL as users do."""
    params = {"query": query, "validate_queries": False, **more}
    built = db.workflow().add_node("AsyncSQLDatabaseNode", "sql", params).build()
    return LocalRuntime().execute(built)[0]["sql"]["result"]["data"]


def numbers(db):
    return [row["n"] for row in db.express_sync.list("Row")["records"]]


def test_what_exists_is_seen_and_what_is_written_is_gone(pg, tried, catalog):
    before = catalog()
    with tried() as db:
        assert numbers(db) == [0]
        db.express_sync.bulk_create("Row", [{"n": n} for n in range(1, 500)])
        assert db.express_sync.count("Row")["count"] == 500
        assert pg.stored() == [0]
    assert pg.stored() == [0]
    assert catalog() == before


def test_a_column_and_an_index_that_tables_lack_are_added_inside_the_transaction(pg, tried, catalog):
    before = catalog()
    with DataFlow(pg.url, postgres_schema=pg.schema, tdd_mode=True) as db:

        @db.model
        class Row:
            n: int
            colour: str = "red"
            __indexes__ = ({"name": "ix_colour", "fields": ["colour"]},)

        assert db.express_sync.list("Row")["records"][0]["colour"] == "red"
        db.express_sync.create("Row", {"n": 1, "colour": "blue"})
    assert catalog() == before


def test_auto_migrate_is_undone_as_well(pg, tried, catalog):
    before = catalog()
    with DataFlow(pg.url, postgres_schema=pg.schema, tdd_mode=True) as db:

        @db.model
        class Row:
            n: int
            size: float = 1.5
            __indexes__ = ({"name": "ix_size", "fields": ["size"]},)

        done, _ = asyncio.run(db.auto_migrate(auto_confirm=True))
        assert done
        assert db.express_sync.list("Row")["records"][0]["size"] == 1.5
    assert catalog() == before


def test_sql_that_fails_spoils_nothing(tried):
    with tried() as db:
        db.express_sync.create("Row", {"n": 1})
        for query in ("SELECT nothing FROM nowhere", "INSERT INTO rows (n) VALUES (1)", "SELECT 1/0", "COMMIT"):
            with pytest.raises(WorkflowExecutionError):
                sql(db, query)
        with pytest.raises(UniqueError):
            db.express_sync.create("Row", {"n": 1})
        assert numbers(db) == [0, 1]


def test_a_scope_that_fails_is_rolled_back_and_no_more_than_that(tried):
    with tried() as db:
        db.express_sync.create("Row", {"n": 1})
        flow = db.workflow().add_node("TransactionScopeNode", "all", {})
        flow.add_node("RowCreateNode", "two", {"n": 2}).add_node("RowCreateNode", "again", {"n": 1})
        with pytest.raises(WorkflowExecutionError):
            LocalRuntime().execute(flow.build())
        assert numbers(db) == [0, 1]


def test_batches_that_were_committed_before_one_fails_stay(tried):
    with tried() as db:
        with pytest.raises(UniqueError):
            db.express_sync.bulk_create("Row", [{"n": 1}, {"n": 2}, {"n": 3}, {"n": 0}], commit_every=2)
        assert numbers(db) == [0, 1, 2]


def test_constraints_that_are_checked_at_commit_are_checked_where_a_commit_would_be(pg, tried, server):
    server.execute(
        f"SET search_path = {pg.schema}; ALTER TABLE notes ADD row_n bigint;"
        " ALTER TABLE notes ADD FOREIGN KEY (row_n) REFERENCES rows (n) DEFERRABLE INITIALLY DEFERRED"
    )
    with tried() as db:
        with pytest.raises(WorkflowExecutionError, match="foreign key"):
            sql(db, "INSERT INTO notes (text, row_n) VALUES ('x', 99)")
        assert db.express_sync.count("Note")["count"] == 0
        flow = db.workflow().add_node("TransactionScopeNode", "all", {})
        insert = {"query": "INSERT INTO notes (text, row_n) VALUES ('x', 99)", "validate_queries": False}
        flow.add_node("AsyncSQLDatabaseNode", "early", insert).add_node("RowCreateNode", "late", {"n": 99})
        LocalRuntime().execute(flow.build())
        assert db.express_sync.count("Note")["count"] == 1
        flow = db.workflow().add_node("TransactionScopeNode", "all", {})
        flow.add_node("RowCreateNode", "new", {"n": 5})
        insert = {"query": "INSERT INTO notes (text, row_n) VALUES ('x', 98)", "validate_queries": False}
        flow.add_node("AsyncSQLDatabaseNode", "wrong", insert)
        with pytest.raises(WorkflowExecutionError, match="foreign key"):
            LocalRuntime().execute(flow.build())
        assert numbers(db) == [0, 99]


async def test_a_cancelled_call_is_undone_and_over_when_it_ends(pg, tried):
    db = tried()
    pg.slow_to_insert(600)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await db.express.bulk_create("Row", [{"n": 1}, {"n": 600}])
    assert await asyncio.wait_for(db.express.count("Row"), 5) == {"count": 1}
    flow = db.workflow().add_node("RowCreateNode", "slow", {"n": 600}).build()
    with pytest.raises(DatabaseTimeout):
        await AsyncLocalRuntime(timeout=0.2).execute_async(flow)
    with pytest.raises(DatabaseTimeout):
        await asyncio.to_thread(LocalRuntime(timeout=0.2).execute, flow)
    await db.express.create("Row", {"n": 1})
    assert (await db.express.count("Row"))["count"] == 2
    await asyncio.wait_for(db.aclose(), 5)


async def test_a_cancelled_scope_gives_the_connection_back(pg, tried):
    db = tried()
    pg.slow_to_insert(600)
    flow = db.workflow().add_node("TransactionScopeNode", "all", {}).add_node("RowCreateNode", "one", {"n": 1})
    task = asyncio.create_task(
        AsyncLocalRuntime().execute_async(flow.add_node("RowCreateNode", "s", {"n": 600}).build())
    )
    await pg.eventually(lambda: pg.connections("wait_event = 'PgSleep'"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await db.express.count("Row"))["count"] == 1
    await db.aclose()


def test_event_loops_come_and_go(tried):
    with tried() as db:
        for n in range(1, 4):
            asyncio.run(db.express.create("Row", {"n": n}))
        assert numbers(db) == [0, 1, 2, 3]


def test_a_run_whose_event_loop_was_closed_is_undone_and_gives_the_connection_back(pg, tried):
    db = tried(lock_timeout=5)
    pg.slow_to_insert(600)
    flow = db.workflow().add_node("TransactionScopeNode", "all", {}).add_node("RowCreateNode", "one", {"n": 1})
    flow = flow.add_node("RowCreateNode", "slow", {"n": 600}).build()
    for _ in range(2):
        loop = asyncio.new_event_loop()
        task = loop.create_task(AsyncLocalRuntime().execute_async(flow))
        while not pg.connections("wait_event = 'PgSleep'"):
            loop.run_until_complete(asyncio.sleep(0.01))
        task._log_destroy_pending = False  # what asyncio says of such tasks is not the point
        loop.close()
        del task, loop
        gc.collect()
        assert numbers(db) == [0]


def test_threads_and_nodes_that_call_share_the_transaction(tried):
    with tried() as db:

        @db.register_node
        class Doubling(BaseDataFlowNode):
            def execute(self, input_data):
                rows = self.run_custom_query("SELECT max(n) AS n FROM rows")
                self.run_custom_query("INSERT INTO rows (n) VALUES (:n)", {"n": rows[0]["n"] * 2})
                return {"n": rows[0]["n"]}

        flow = db.workflow().add_node("RowCreateNode", "one", {"n": 4}).add_node("Doubling", "double", {}).build()
        LocalRuntime().execute(flow)
        threads = [threading.Thread(target=db.express_sync.create, args=("Row", {"n": 100 + n})) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert numbers(db) == [0, 4, 8, *range(100, 108)]


def test_two_at_once_make_the_same_tables_without_waiting_for_each_other(postgres_database):
    opened = []
    for _ in range(2):
        db = DataFlow(postgres_database, tdd_mode=True, lock_timeout=2)
        opened.append(db)

        @db.model
        class Parent:
            name: str

        @db.model
        class Child:
            parent_id: Annotated[int, ForeignKey("Parent", on_delete="cascade")]
            __dataflow__ = {"audit_log": True, "soft_delete": True}  # noqa: RUF012

    for db in opened:
        parent = db.express_sync.create("Parent", {"name": "Ada"})
        assert parent["id"] == 1
        db.express_sync.create("Child", {"parent_id": parent["id"]})
        db.express_sync.bulk_create("Parent", [{"id": 100_000, "name": "Bob"}, {"id": 900_000, "name": "Cy"}])
    for db in opened:
        assert db.show_tables() == ["children", "parents"]
        db.close()
    with DataFlow(postgres_database) as db:
        assert db.show_tables() == []


def test_a_schema_that_has_tables_is_worked_on_itself(pg, tried):
    with tried() as db:
        assert db.show_tables() == ["notes", "rows"]
        assert sql(db, "SELECT current_schema() AS s") == [{"s": pg.schema}]


def test_one_that_is_not_closed_leaves_nothing_open(pg, tried):
    db = tried()
    db.express_sync.create("Row", {"n": 1})
    assert pg.connections("state = 'idle in transaction'")
    pg.opened.remove(db)
    del db
    gc.collect()
    pg.until(lambda: not pg.connections("state = 'idle in transaction'"))
    assert pg.stored() == [0]


def test_closing_does_not_wait_for_ever_for_a_call_that_never_ends(pg, tried):
    db = tried()
    pg.slow_to_insert(600)
    flow = db.workflow().add_node("RowCreateNode", "slow", {"n": 600}).build()

    def run():
        with pytest.raises(DataFlowError):
            LocalRuntime().execute(flow)

    thread = threading.Thread(target=run)
    thread.start()
    pg.until(lambda: pg.connections("wait_event = 'PgSleep'"))
    db.core.database.patience = 0.5
    db.close()
    thread.join(20)
    assert not thread.is_alive()
    pg.until(lambda: not pg.connections("state <> 'idle'"))


def test_a_lost_connection_is_an_error_of_every_later_call(pg, tried):
    db = tried()
    db.express_sync.create("Row", {"n": 1})
    pg.terminate(pg.connections("state = 'idle in transaction'"))
    for _ in range(2):
        with pytest.raises(DataFlowError):
            db.express_sync.create("Row", {"n": 2})
    db.close()
    assert pg.stored() == [0]


def test_what_is_done_after_a_commit_is_done_when_the_savepoint_is_released(tried):
    with tried() as db:

        @db.register_node
        class Fails(BaseDataFlowNode):
            def execute(self, input_data):
                raise ValueError("on purpose")

        told = []
        original = db.core.supervise

        def noting(program, call):
            call.after_commit.append(lambda: told.append(call.node_id) if call.node_id else None)
            return original(program, call)

        db.core.supervise = noting
        flow = db.workflow().add_node("TransactionScopeNode", "all", {}).add_node("RowCreateNode", "one", {"n": 1})
        LocalRuntime().execute(flow.build())
        assert told == ["one"]
        flow = db.workflow().add_node("TransactionScopeNode", "all", {}).add_node("RowCreateNode", "two", {"n": 2})
        with pytest.raises(WorkflowExecutionError):
            LocalRuntime().execute(flow.add_node("Fails", "fails", {}).build())
        assert told == ["one"]


@pytest.mark.parametrize("isolation", ["strict", "schema", "database"])
def test_isolation_of_tenants_that_needs_more_connections_is_refused(pg, isolation):
    with pytest.raises(NotYetAvailable, match="tdd"):
        DataFlow(pg.url, tdd_mode=True, multi_tenant=True, tenant_isolation=isolation)


def test_isolation_levels_are_accepted_for_runs_take_turns(tried):
    with tried() as db:
        for level in db.core.dialect.isolation_levels:
            flow = db.workflow().add_node("TransactionScopeNode", "all", {"isolation_level": level})
            LocalRuntime().execute(flow.add_node("RowListNode", "rows", {}).build())
        assert numbers(db) == [0]
