"""Faults of the server and the network: clear errors, nothing half-written, and the pool heals."""

import asyncio

import pytest

from dataflow.errors import (
    DatabaseError,
    DatabaseTimeout,
    DatabaseUnavailable,
    QueryError,
    SerializationError,
    WorkflowExecutionError,
)
from dataflow.runtime import AsyncLocalRuntime

SLEEP = "SELECT pg_sleep(600)"
LOST = "the connection to the database was lost"


@pytest.fixture
def db(pg):
    return pg.open(pool_size=2, pool_max_overflow=0)


@pytest.fixture
def far(pg, proxy):
    """An instance with one connection, and a network in between that can be cut."""
    return pg.open(proxy.url(pg.url), pool_size=1, pool_max_overflow=0)


async def failing(awaitable, kind=DatabaseUnavailable):
    """Return the error of a call; of a run, the error of its node."""
    with pytest.raises((kind, WorkflowExecutionError)) as caught:
        await awaitable
    error = caught.value
    if isinstance(error, WorkflowExecutionError):
        error = error.__cause__
    assert isinstance(error, kind)
    return error


async def asleep(pg, count=1):
    await pg.eventually(lambda: len(pg.connections("wait_event = 'PgSleep'")) == count)


async def healthy(pg, db, stored):
    """Check what is stored, and that all connections the pool may have work, for reads and writes."""
    await pg.eventually(lambda: not pg.active())  # the server notices a cut after a moment
    assert pg.stored() == stored
    await asyncio.gather(*[db.express.count("Row") for _ in range(10)])
    await db.express.create("Row", {"n": 99})
    await db.express.delete("Row", (await db.express.list("Row", {"n": 99}))["records"][0]["id"])
    assert pg.active() == []


# -- connections end --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_restart_of_the_server_undoes_what_is_under_way_and_the_pool_heals(own, mode):
    db = own.open()
    await db.express.create("Row", {"n": 1})
    await asyncio.gather(*[db.express.count("Row") for _ in range(5)])
    await asyncio.to_thread(db.express_sync.count, "Row")
    scope = asyncio.create_task(failing(own.run(db, "TransactionScopeNode", ("RowCreateNode", {"n": 2}), SLEEP)))
    sql = asyncio.create_task(failing(own.run(db, SLEEP)))
    await asleep(own, 2)
    await asyncio.to_thread(own.server.server.restart, mode=mode)
    for error in await asyncio.gather(scope, sql):
        assert error.message.startswith(LOST)
    await healthy(own, db, [1])
    await asyncio.to_thread(db.express_sync.create, "Row", {"n": 3})
    assert own.stored() == [1, 3]


async def test_a_server_that_is_away_gives_a_clear_error_until_it_is_back(pg, far, proxy):
    await far.express.create("Row", {"n": 1})
    proxy.mode = "refuse"
    proxy.reset()
    for call in (
        lambda: far.express.count("Row"),
        lambda: far.express.create("Row", {"n": 2}),
        lambda: pg.run(far, "TransactionScopeNode", ("RowCreateNode", {"n": 2})),
    ):
        error = await failing(call())
        assert error.where["host"], error.where["port"] == ("127.0.0.1", proxy.port)
    proxy.mode = "pass"
    await healthy(pg, far, [1])


async def test_idle_connections_that_an_administrator_ends_are_replaced_unnoticed(pg, db):
    await db.express.create("Row", {"n": 1})
    await asyncio.gather(*[db.express.count("Row") for _ in range(5)])
    for call in (
        lambda: db.express.count("Row"),
        lambda: db.express.create("Row", {"n": 2}),
        lambda: pg.run(db, "TransactionScopeNode", ("RowCreateNode", {"n": 3})),
    ):
        pids = pg.connections()
        await asyncio.to_thread(pg.terminate, pids)
        await asyncio.sleep(0.2)  # the news has to arrive: a write that was sent already is not sent again
        await call()
        assert not set(pids) & set(pg.connections())
    await healthy(pg, db, [1, 2, 3])


async def test_pg_terminate_backend_in_mid_run_undoes_the_run(pg, db):
    await db.express.create("Row", {"n": 1})
    pg.slow_to_insert(600)
    inside = (
        lambda: pg.run(db, "TransactionScopeNode", ("RowCreateNode", {"n": 2}), ("RowCreateNode", {"n": 600})),
        lambda: db.express.bulk_create("Row", [{"n": n} for n in range(590, 610)], batch_size=5),
        lambda: db.express.bulk_create("Row", [{"n": n} for n in range(100, 700)]),
        lambda: pg.run(db, SLEEP),
    )
    alone = (lambda: db.express.create("Row", {"n": 600}),)  # old drivers do not tell that it was the server's doing
    for call in (*inside, *alone):
        task = asyncio.create_task(failing(call()))
        await asleep(pg)
        pg.terminate(pg.connections("wait_event = 'PgSleep'"))
        error = await task
        assert error.message.startswith(
            LOST if call in inside else (LOST, "the connection was lost during a statement")
        )
        assert "600" not in str(error)
        await healthy(pg, db, [1])


@pytest.mark.parametrize("rollback", [True, False])
async def test_a_scope_whose_connection_is_gone_has_nothing_to_keep(pg, db, rollback):
    await db.express.create("Row", {"n": 1})
    scope = ("TransactionScopeNode", {"rollback_on_error": rollback})
    task = asyncio.create_task(
        failing(pg.run(db, scope, ("RowCreateNode", {"n": 2}), SLEEP, ("RowCreateNode", {"n": 3})))
    )
    await asleep(pg)
    pg.terminate(pg.connections("wait_event = 'PgSleep'"))
    error = await task
    assert error.message.startswith(LOST)
    notes = getattr(error, "__notes__", [])
    assert notes == ([] if rollback else [f"what 'n0' had done before could not be kept: {error.message}"])
    await healthy(pg, db, [1])


# -- what is asked again, and what is not -----------------------------------------------------------------------------
async def test_a_read_whose_connection_is_lost_is_asked_again_once(pg, db):
    await db.express.create("Row", {"n": 1})
    await db.express.list("Row")
    locked = "wait_event_type = 'Lock'"
    with pg.transaction(f"LOCK TABLE {pg.schema}.rows IN ACCESS EXCLUSIVE MODE"):
        first, second = (asyncio.create_task(db.express.list("Row")) for _ in range(2))
        pids = await pg.eventually(lambda: len(found := pg.connections(locked)) == 2 and found)
        await asyncio.to_thread(pg.terminate, pids)
        again = await pg.eventually(lambda: len(found := pg.connections(locked)) == 2 and found)
        assert not set(pids) & set(again)
        await asyncio.to_thread(pg.terminate, again[:1])
        await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
    await asyncio.wait([first, second])
    done, failed = sorted([first, second], key=lambda task: task.exception() is not None)
    assert (await failing(failed)).message.startswith(LOST)
    assert (await done)["records"][0]["n"] == 1
    await healthy(pg, db, [1])


async def test_a_read_that_the_network_cuts_off_is_asked_again(pg, far, proxy):
    await far.express.create("Row", {"n": 1})
    await far.express.list("Row")
    for action in ("cut", "lose-reply"):
        await far.express.list("Row")
        proxy.on(b"", action)
        assert (await far.express.list("Row"))["count"] == 1
        assert proxy.seen.is_set()
    await healthy(pg, far, [1])


@pytest.mark.parametrize("action", ["cut", "lose-reply"])
@pytest.mark.parametrize("kind", ["create", "update", "delete"])
async def test_a_write_that_commits_by_itself_is_never_sent_again(pg, far, proxy, action, kind):
    await far.express.bulk_create("Row", [{"n": n} for n in (10, 20, 30)])
    calls = {
        "create": lambda n: far.express.create("Row", {"n": n}),
        "update": lambda n: far.express.update("Row", 2, {"n": {"$inc": 5}}),
        "delete": lambda n: far.express.delete("Row", n),
    }
    after = {
        "create": ([10, 20, 30, 1], [10, 20, 30, 1, 2]),
        "update": ([10, 25, 30], [10, 30, 30]),
        "delete": ([20, 30], [30]),
    }
    pg.server.execute(f"DROP INDEX {pg.schema}.rows_n")
    await calls[kind](1)  # now it is known to the connection, and one message is all it takes
    proxy.on(b"", action)
    error = await failing(calls[kind](2))
    assert proxy.seen.is_set()
    assert error.code == "commit-unknown"
    assert "whether it was kept is not known" in error.message
    await healthy(pg, far, sorted(after[kind][action == "lose-reply"]))


async def test_the_users_own_sql_is_never_sent_again(pg, far, proxy):
    await far.express.create("Row", {"n": 1})
    pg.slow_to_insert(600)
    task = asyncio.create_task(failing(pg.run(far, "INSERT INTO rows (n) VALUES (600)")))
    await asleep(pg)
    proxy.reset()
    assert (await task).code == "commit-unknown"
    pg.terminate(pg.connections("wait_event = 'PgSleep'"))
    await healthy(pg, far, [1])


async def test_a_read_after_the_users_own_sql_is_not_asked_again(pg, far, proxy):
    """What the SQL has set (a role, a tenant) would be missing on another connection."""
    await far.express.create("Row", {"n": 1})
    await far.express.list("Row")
    proxy.on(b'FROM "rows"', "cut")
    read = ("RowListNode", {"filter": {"n": {"$gt": 0}}})
    error = await failing(pg.run(far, "SELECT set_config('app.tenant', '7', false)", read))
    assert proxy.seen.is_set()
    assert error.message.startswith(LOST)
    await healthy(pg, far, [1])


async def test_a_read_inside_a_transaction_is_not_asked_again(pg, far, proxy):
    await far.express.create("Row", {"n": 1})
    await far.express.list("Row")
    proxy.on(b'FROM "rows"', "cut")
    workflow = far.workflow().add_node("TransactionScopeNode", "tx").add_node("RowCreateNode", "a", {"n": 2})
    workflow.add_node("RowListNode", "b", {"filter": {"n": {"$gt": 0}}, "limit": 3})
    error = await failing(AsyncLocalRuntime().execute_async(workflow.build()))
    assert error.message.startswith(LOST)
    assert proxy.seen.is_set()
    await healthy(pg, far, [1])


@pytest.mark.parametrize("text", [b"INSERT", b"COPY", b"SAVEPOINT", b"RELEASE"])
async def test_a_cut_between_begin_and_commit_undoes_everything(pg, far, proxy, text):
    await far.express.create("Row", {"n": 1})
    await far.express.count("Row")
    proxy.on(text, "cut")
    rows = [{"n": n} for n in range(100, 200)]
    if text == b"INSERT":
        call = far.express.bulk_upsert("Row", rows, ["n"], batch_size=10)
    elif text == b"COPY":
        call = far.express.bulk_create("Row", rows)
    else:
        call = pg.run(far, "TransactionScopeNode", ("RowCreateNode", {"n": 2}), ("RowBulkCreateNode", {"data": rows}))
    error = await failing(call)
    assert proxy.seen.is_set()
    assert error.message.startswith(LOST)
    assert error.code != "commit-unknown"
    await healthy(pg, far, [1])


async def test_a_cut_at_begin_is_not_even_noticed(pg, far, proxy):
    await far.express.create("Row", {"n": 1})
    for n, call in enumerate(
        (
            lambda: far.express.bulk_create("Row", [{"n": n} for n in range(100, 200)]),
            lambda: pg.run(far, "TransactionScopeNode", ("RowCreateNode", {"n": 2})),
        )
    ):
        proxy.on(b"BEGIN", "lose-reply" if n else "cut")
        await call()
        assert proxy.seen.is_set()
    await healthy(pg, far, [1, 2, *range(100, 200)])


@pytest.mark.parametrize("action", ["cut", "lose-reply"])
@pytest.mark.parametrize("kind", ["bulk", "scope"])
async def test_a_cut_during_commit_leaves_the_outcome_open_and_says_so(pg, far, proxy, action, kind):
    await far.express.create("Row", {"n": 1})
    await far.express.count("Row")
    proxy.on(b"COMMIT", action)
    if kind == "bulk":
        call = far.express.bulk_create("Row", [{"n": n} for n in (2, 3)], batch_size=1)
    else:
        call = pg.run(far, "TransactionScopeNode", ("RowCreateNode", {"n": 2}), ("RowCreateNode", {"n": 3}))
    error = await failing(call)
    assert error.code == "commit-unknown"
    assert "whether the transaction was kept is not known" in error.message
    await healthy(pg, far, [1] if action == "cut" else [1, 2, 3])


# -- the server refuses -----------------------------------------------------------------------------------------------
async def test_a_read_only_server_says_so(pg, db):
    await db.express.create("Row", {"n": 1})
    other = pg.open(f"{pg.url}?options=-c%20default_transaction_read_only%3Don")
    for call in (
        lambda: other.express.create("Row", {"n": 2}),
        lambda: other.express.bulk_create("Row", [{"n": n} for n in range(100)]),
        lambda: pg.run(other, "TransactionScopeNode", ("RowListNode", {}), ("RowCreateNode", {"n": 2})),
        lambda: pg.run(other, "CREATE TABLE more (n int)"),
    ):
        assert (await failing(call())).message == "the database is read-only"
    assert await other.express.count("Row") == {"count": 1}
    await healthy(pg, db, [1])


async def test_tables_that_cannot_be_created_on_a_read_only_server(pg):
    db = pg.open(f"{pg.url}?options=-c%20default_transaction_read_only%3Don")
    assert (await failing(db.express.count("Row"))).message == "the database is read-only"
    pg.open().express_sync.create("Row", {"n": 1})
    assert await db.express.count("Row") == {"count": 1}


@pytest.fixture
def narrow(pg):
    """A role that may connect twice."""
    role = f"narrow_{pg.name}"
    pg.server.execute(f"CREATE ROLE {role} LOGIN SUPERUSER CONNECTION LIMIT 2")
    pg.server.execute(f"ALTER ROLE {role} NOSUPERUSER; GRANT pg_read_all_data, pg_write_all_data TO {role}")
    yield pg.url.replace("postgres@", f"{role}@")
    for instance in pg.opened:
        instance.close()
    pg.until(lambda: not pg.connections())
    pg.server.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_a_server_without_a_free_slot_says_so_and_who_holds_a_connection_goes_on(pg, narrow):
    pg.open().express_sync.create("Row", {"n": 1})
    db = pg.open(narrow, existing_schema_mode=True, postgres_application_name=f"{pg.name}", lock_timeout=20)
    with pg.locked(1):
        tasks = [asyncio.create_task(pg.sql(db, "SELECT pg_advisory_xact_lock(1)")) for _ in range(2)]
        await pg.eventually(lambda: len(pg.connections("wait_event_type = 'Lock'")) == 2)
        for call in (lambda: db.express.count("Row"), lambda: db.express.create("Row", {"n": 2})):
            error = await failing(call())
            assert error.message == "the server has no free connection slot"
            assert "lower pool_size" in error.hint
    await asyncio.gather(*tasks)
    for _ in range(3):
        await db.express.count("Row")
    assert pg.stored() == [1]


async def test_a_statement_that_takes_longer_than_its_setting_is_ended(pg):
    db = pg.open(pool_size=1, pool_max_overflow=0, postgres_statement_timeout=0.2)
    await db.express.create("Row", {"n": 1})
    pid = await pg.pid(db)
    pg.slow_to_insert(600)
    for call in (
        lambda: pg.run(db, SLEEP),
        lambda: db.express.create("Row", {"n": 600}),
        lambda: pg.run(db, "TransactionScopeNode", ("RowCreateNode", {"n": 2}), ("RowCreateNode", {"n": 600})),
        lambda: db.express.bulk_create("Row", [{"n": n} for n in range(500, 700)]),
    ):
        error = await failing(call(), DatabaseTimeout)
        assert error.message == "the statement took longer than postgres_statement_timeout"
    assert await pg.pid(db) == pid
    await healthy(pg, db, [1])


async def both(*calls):
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert len(failures) == 1
    assert isinstance(failures[0], WorkflowExecutionError)
    return failures[0].__cause__


async def test_a_deadlock_ends_one_of_the_two_and_the_other_goes_on(pg, db):
    await db.express.bulk_create("Row", [{"n": 10}, {"n": 20}])
    meeting = asyncio.Barrier(2)
    meets(db, meeting)

    def crossing(first, second):
        return pg.run(
            db,
            "TransactionScopeNode",
            ("RowUpdateNode", {"id": first, "n": {"$inc": 1}}),
            "Meets",
            ("RowUpdateNode", {"id": second, "n": {"$inc": 1}}),
        )

    error = await both(crossing(1, 2), crossing(2, 1))
    assert isinstance(error, SerializationError)
    assert "another transaction changed or locked the same records" in error.message
    await healthy(pg, db, [11, 21])


async def test_a_serialization_failure_ends_one_of_the_two_and_the_other_goes_on(pg, db):
    await db.express.bulk_create("Row", [{"n": 10}])
    meets(db, asyncio.Barrier(2))
    scope = ("TransactionScopeNode", {"isolation_level": "SERIALIZABLE"})

    def adding():
        return pg.run(db, scope, "RowListNode", "Meets", ("RowUpdateNode", {"id": 1, "n": {"$inc": 1}}))

    error = await both(adding(), adding())
    assert isinstance(error, SerializationError)
    await healthy(pg, db, [11])


def meets(db, barrier):
    from dataflow import BaseDataFlowNode

    @db.register_node
    class Meets(BaseDataFlowNode):
        async def execute(self, input_data):
            await barrier.wait()
            return {}


async def test_a_change_of_the_schema_by_others_is_noticed_at_most_once(pg, db):
    await db.express.create("Note", {"text": "a"})
    for _ in range(3):
        await asyncio.gather(*[db.express.read("Note", 1) for _ in range(4)])
    pg.server.execute(f"ALTER TABLE {pg.schema}.notes ALTER COLUMN text TYPE varchar(100)")
    for _ in range(3):
        for record in await asyncio.gather(*[db.express.read("Note", 1) for _ in range(4)]):
            assert record["text"] == "a"
    pg.server.execute(f"ALTER TABLE {pg.schema}.notes ALTER COLUMN text TYPE text")
    with pytest.raises(WorkflowExecutionError) as caught:
        await pg.run(db, "TransactionScopeNode", ("NoteReadNode", {"id": 1}))
    assert isinstance(caught.value.__cause__, DatabaseError)
    results, _ = await pg.run(db, "TransactionScopeNode", ("NoteReadNode", {"id": 1}))
    assert results["n1"]["text"] == "a"


async def test_a_type_that_the_driver_does_not_know_is_no_lost_connection(pg, db):
    builder = db.workflow()
    builder.add_node("AsyncSQLDatabaseNode", "stats", {"query": "SELECT most_common_vals FROM pg_stats"})
    error = await failing(AsyncLocalRuntime().execute_async(builder.build()), QueryError)
    assert (error.code, "::text" in error.hint) == ("unreadable-type", True)
