"""Cancelling and timing out: the statement stops on the server, nothing is half-written, the connection goes on."""

import asyncio
import contextlib
import random
import threading

import pytest

from dataflow import BaseDataFlowNode
from dataflow.dialect import COUNT, Command
from dataflow.errors import DatabaseTimeout, QueryError, UsageError, WorkflowExecutionError
from dataflow.nodes.sql import sql_program
from dataflow.runtime import AsyncLocalRuntime, LocalRuntime
from dataflow.session import CURRENT_RUN, Call

SLEEP = "SELECT pg_sleep(600)"
SLOW_WRITE = "INSERT INTO rows (n) SELECT n FROM generate_series(100, 700) AS n"
SLOW = 600
"""The row whose INSERT takes ten minutes."""
CANCEL_REQUEST = (80877102).to_bytes(4)
"""What a request to cancel begins with."""


@pytest.fixture
def db(pg):
    return slow(pg, pg.open(pool_size=1, pool_max_overflow=0, lock_timeout=10))


@pytest.fixture
def far(pg, proxy):
    """An instance with a network in between that can be held up."""
    return slow(pg, pg.open(proxy.url(pg.url), pool_size=1, pool_max_overflow=0, lock_timeout=10))


def slow(pg, db):
    db.express_sync.create("Row", {"n": 0})
    pg.slow_to_insert(SLOW)
    return db


async def cancelled(coroutine, when, times=1):
    """Cancel a call at a moment, maybe again and again, and see it end as cancelled tasks do."""
    task = asyncio.ensure_future(coroutine)
    await when(task)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


def asleep(pg):
    """The moment when a statement of the test sleeps on the server."""

    async def when(task):
        await pg.eventually(lambda: task.done() or pg.connections("wait_event = 'PgSleep'"))

    return when


def held(pg, proxy, text):
    """The moment when the network holds back the answer to a statement, which the server has carried out."""

    async def when(task):
        await pg.eventually(proxy.seen.is_set)
        await pg.eventually(lambda: not pg.connections("state = 'active'"))
        asyncio.get_running_loop().call_later(0.05, proxy.release)

    proxy.on(text, "hold-reply")
    return when


async def whole(pg, db, stored, pid=None):
    """Check what is stored, that nothing is under way, and that the pool is as it was."""
    assert pg.active() == []
    assert pg.stored() == stored
    if pid is not None:
        assert await pg.pid(db) == pid
    assert db.core.database.describe()["connections_in_use"] == 0
    assert await db.express.count("Row") == {"count": len(stored)}


def nodes(db):
    """Return the operations that take long, as coroutine functions."""

    async def scope():
        await bench_run(db, "TransactionScopeNode", ("RowCreateNode", {"n": 1}), SLEEP)

    return {
        "user SQL": lambda: bench_run(db, SLEEP),
        "user SQL that writes": lambda: bench_run(db, SLOW_WRITE),
        "statement": lambda: db.express.create("Row", {"n": SLOW}),
        "transaction": lambda: db.express.bulk_create("Row", [{"n": n} for n in range(590, 610)], batch_size=5),
        "copy": lambda: db.express.bulk_create("Row", [{"n": n} for n in range(1, 5000)]),
        "upsert": lambda: db.express.bulk_upsert("Row", [{"n": n} for n in range(590, 610)], ["n"]),
        "scope": scope,
        "express in a scope": lambda: bench_run(
            db, "TransactionScopeNode", ("RowCreateNode", {"n": 1}), ("RowBulkCreateNode", {"data": [{"n": SLOW}] * 60})
        ),
        "custom node": lambda: bench_run(db, "TransactionScopeNode", ("RowCreateNode", {"n": 1}), "Asks"),
        "thread": lambda: bench_run(db, "TransactionScopeNode", ("RowCreateNode", {"n": 1}), "Blocks"),
    }


def bench_run(db, *given):
    if "Asks" not in db.core.node_types:

        @db.register_node
        class Asks(BaseDataFlowNode):
            async def execute(self, input_data):
                return {"rows": await self.query(SLEEP)}

        @db.register_node
        class Blocks(BaseDataFlowNode):
            def execute(self, input_data):
                with contextlib.suppress(Exception):
                    self.run_custom_query(SLEEP)
                return {}

    builder = db.workflow()
    for position, node in enumerate(given):
        kind, params = node if isinstance(node, tuple) else (node, {})
        if not kind.isidentifier():
            kind, params = "AsyncSQLDatabaseNode", {"query": kind, "validate_queries": False}
        builder.add_node(kind, f"n{position}", params)
    return AsyncLocalRuntime().execute_async(builder.build())


KINDS = list(nodes(None))


# -- cancelling -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_cancelled_stops_on_the_server_and_the_connection_goes_on(pg, db, kind):
    pid = await pg.pid(db)
    await cancelled(nodes(db)[kind](), asleep(pg))
    await whole(pg, db, [0], None if kind == "thread" else pid)


@pytest.mark.parametrize("kind", KINDS)
async def test_cancelling_again_and_again_changes_nothing(pg, db, kind):
    await cancelled(nodes(db)[kind](), asleep(pg), times=5)
    await whole(pg, db, [0])


@pytest.mark.parametrize("kind", ["statement", "copy", "scope"])
async def test_timeouts_of_asyncio_work(pg, db, kind):
    pid = await pg.pid(db)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(nodes(db)[kind](), 0.1)
    await whole(pg, db, [0], pid)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await nodes(db)[kind]()
    await whole(pg, db, [0], pid)


async def test_a_bulk_node_that_commits_every_so_many_rows_keeps_whole_commits(pg, db):
    rows = [{"n": n} for n in range(1, 1000)]
    await cancelled(db.express.bulk_create("Row", rows, batch_size=10, commit_every=100), asleep(pg))
    await whole(pg, db, list(range(501)))


@pytest.mark.parametrize("rollback", [True, False])
@pytest.mark.parametrize("last", ["statement", "await", "thread"])
async def test_a_transaction_scope_is_rolled_back_wherever_it_is_cancelled(pg, db, last, rollback):
    reached, go_on, told = threading.Event(), threading.Event(), []

    @db.register_node
    class Waits(BaseDataFlowNode):
        async def execute(self, input_data):
            reached.set()
            await asyncio.sleep(3600)

    @db.register_node
    class Hangs(BaseDataFlowNode):
        def execute(self, input_data):
            reached.set()
            go_on.wait(30)
            try:
                self.run_custom_query("INSERT INTO rows (n) VALUES (7)")
            except UsageError as error:
                told.append(error.code)
            return {}

    async def when(task):
        await (asleep(pg)(task) if last == "statement" else pg.eventually(reached.is_set))

    node = {"statement": SLEEP, "await": "Waits", "thread": "Hangs"}[last]
    scope = ("TransactionScopeNode", {"rollback_on_error": rollback})
    await cancelled(pg.run(db, scope, ("RowCreateNode", {"n": 5}), node, ("RowCreateNode", {"n": 6})), when)
    await whole(pg, db, [0])
    go_on.set()  # the thread that was left behind now tries to write
    if last == "thread":
        await pg.eventually(lambda: told)
        assert told == ["run-over"]
    await whole(pg, db, [0])


async def test_who_waits_for_a_connection_can_be_cancelled_and_loses_nothing_for_the_others(pg, db):
    with pg.locked(1):
        first = asyncio.create_task(pg.run(db, "SELECT pg_advisory_xact_lock(1)"))
        await pg.eventually(lambda: pg.connections("wait_event_type = 'Lock'"))
        waiting = [asyncio.create_task(db.express.create("Row", {"n": n})) for n in range(1, 11)]
        await asyncio.sleep(0)
        for task in waiting[::2]:
            task.cancel()
    done = await asyncio.gather(first, *waiting, return_exceptions=True)
    assert [isinstance(item, asyncio.CancelledError) for item in done] == [False, *[True, False] * 5]
    await whole(pg, db, [0, 2, 4, 6, 8, 10])


async def test_who_is_cancelled_in_the_moment_of_being_given_a_connection_passes_it_on(pg, db):
    for turns in range(8):  # one of them is the moment between the gift and its acceptance
        with pg.locked(1):
            first = asyncio.create_task(pg.run(db, "SELECT pg_advisory_xact_lock(1)"))
            await pg.eventually(lambda: pg.connections("wait_event_type = 'Lock'"))
            second, third = (asyncio.create_task(db.express.count("Row")) for _ in range(2))
            await asyncio.sleep(0)
        while not first.done():  # noqa: ASYNC110  # the very moment
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        second.cancel()
        assert await third == {"count": 1}
        await asyncio.gather(second, return_exceptions=True)


@pytest.mark.parametrize("text", [b"user\0", b"BEGIN", b"max_connections", b"COMMIT"])
async def test_opening_a_connection_can_be_cancelled_at_each_step(pg, proxy, text):
    db = pg.open(proxy.url(pg.url), pool_size=1, pool_max_overflow=0, lock_timeout=10)
    proxy.on(text, "hold-reply")
    task = asyncio.create_task(db.express.count("Row"))
    await pg.eventually(proxy.seen.is_set)
    task.cancel()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    proxy.release()
    await pg.eventually(lambda: not pg.connections())
    assert await db.express.count("Row") == {"count": 0}


# -- at bad moments ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("times", [1, 4])
async def test_cancelling_during_begin_leaves_no_transaction_open(pg, far, proxy, times):
    pid = await pg.pid(far)
    await cancelled(far.express.bulk_create("Row", [{"n": n} for n in range(1, 200)]), held(pg, proxy, b"BEGIN"), times)
    await far.express.create("Row", {"n": 1})
    await whole(pg, far, [0, 1], pid)


@pytest.mark.parametrize("times", [1, 4])
async def test_cancelling_during_commit_waits_for_its_outcome(pg, proxy, times):
    db = pg.open(proxy.url(pg.url), pool_size=1, pool_max_overflow=0, lock_timeout=10)
    await pg.pid(db)
    await cancelled(db.initialize(), held(pg, proxy, b"COMMIT"), times)
    assert [model.ready for model in db.core.models.values()] == [True, True]  # what was to follow the commit did
    await db.express.create("Row", {"n": 1})
    await whole(pg, db, [1])


@pytest.mark.parametrize("times", [1, 4])
async def test_a_cancelled_commit_of_a_scope_is_whole(pg, far, proxy, times):
    pid = await pg.pid(far)
    scope = pg.run(far, "TransactionScopeNode", *[("RowCreateNode", {"n": n}) for n in (1, 2)])
    await cancelled(scope, held(pg, proxy, b"COMMIT"), times)
    await whole(pg, far, [0, 1, 2], pid)


@pytest.mark.parametrize("how", ["scope", "node", "call"])
async def test_what_follows_a_commit_is_done_even_if_giving_the_connection_back_is_cancelled(pg, far, proxy, how):
    done = []

    @far.register_node
    class Notes(BaseDataFlowNode):
        async def execute(self, input_data):
            CURRENT_RUN.get().remember(self.db.core, [lambda: done.append(1)])
            return {}

    await far.express.count("Row")
    if how == "call":
        call = Call(far.core)
        call.after_commit.append(lambda: done.append(1))
        program, _ = sql_program(
            far.core, call, "INSERT INTO rows (n) VALUES (1)", None, fetch_mode="all", validate=True
        )
        work = far.core.run(program, call, write=True, holder="test")
    else:
        scope = ["TransactionScopeNode"] if how == "scope" else []
        work = pg.run(far, *scope, "Notes", "INSERT INTO rows (n) VALUES (1)")
    await cancelled(work, held(pg, proxy, b"SET SESSION AUTHORIZATION"))
    assert done == [1]
    await whole(pg, far, [0, 1])


@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize("text", [b"SAVEPOINT df_node", b"ROLLBACK TO", b"RELEASE"])
async def test_a_nested_call_cancelled_at_its_savepoint_leaves_the_scope_whole(pg, far, proxy, text, times):
    pid, stored = await pg.pid(far), []
    proxy.on(CANCEL_REQUEST, "pass")

    @far.register_node
    class Tries(BaseDataFlowNode):
        async def execute(self, input_data):
            nested = self.db.express.bulk_create("Row", [{"n": n} for n in (7, 0 if text == b"ROLLBACK TO" else 8)])
            await cancelled(nested, held(pg, proxy, text), times)
            stored.extend(row["n"] for row in (await self.db.express.list("Row"))["records"])
            return {}

    await pg.run(far, "TransactionScopeNode", ("RowCreateNode", {"n": 5}), "Tries", ("RowCreateNode", {"n": 6}))
    assert sorted(stored) in ([0, 5], [0, 5, 7, 8])
    assert proxy.rules == [(CANCEL_REQUEST, "pass")]  # what takes no time is not stopped half-way
    await whole(pg, far, sorted([*stored, 6]), pid)


async def test_the_server_is_asked_again_when_it_did_not_hear_the_request_to_stop(pg, far, proxy):
    """As it is when the request overtakes the statement that it is meant for."""
    pid = await pg.pid(far)
    for _ in range(2):
        proxy.on(CANCEL_REQUEST, "swallow")
    await cancelled(bench_run(far, SLEEP), asleep(pg))
    assert proxy.rules == []
    await whole(pg, far, [0], pid)


async def test_closing_asks_again_as_well(pg, proxy):
    db = pg.open(proxy.url(pg.url), lock_timeout=0.1)
    task = asyncio.create_task(bench_run(db, SLEEP))
    await asleep(pg)(task)
    for _ in range(2):
        proxy.on(CANCEL_REQUEST, "swallow")
    await db.aclose()
    assert proxy.rules == []
    with pytest.raises(WorkflowExecutionError):
        await task
    await pg.eventually(lambda: not pg.connections())


async def test_a_network_that_is_silent_does_not_hold_up_a_cancelled_call_for_ever(pg, far, proxy, monkeypatch):
    from dataflow.postgres import session

    monkeypatch.setattr(session, "_INTERRUPTING", 0.1)
    await far.express.count("Row")
    for text in (b"COPY", b"COMMIT", b"ROLLBACK"):
        proxy.on(text, "silence")
        rows = [{"n": n} for n in range(1, 200)] + ([{"n": 0}] if text == b"ROLLBACK" else [])
        task = asyncio.create_task(far.express.bulk_create("Row", rows))
        await pg.eventually(proxy.seen.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        proxy.reset()
        await pg.eventually(lambda: len(pg.connections()) == 0)
        pg.server.rows(f"DELETE FROM {pg.schema}.rows WHERE n > 0")
    await far.express.create("Row", {"n": 1})
    await whole(pg, far, [0, 1])


# -- inside a transaction ---------------------------------------------------------------------------------------------
async def test_a_nested_call_that_times_out_is_undone_and_the_scope_around_it_goes_on(pg, db):
    @db.register_node
    class Tries(BaseDataFlowNode):
        async def execute(self, input_data):
            await cancelled(self.db.express.bulk_create("Row", [{"n": 599}, {"n": 600}]), asleep(pg))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(self.query(SLEEP), 0.1)
            return await self.db.express.count("Row")

    results, _ = await pg.run(
        db, "TransactionScopeNode", ("RowCreateNode", {"n": 5}), "Tries", ("RowCreateNode", {"n": 6})
    )
    assert results["n2"]["count"] == 2
    await whole(pg, db, [0, 5, 6])


async def test_cancelling_one_of_several_calls_in_a_transaction_leaves_the_others_alone(pg, db):
    @db.register_node
    class Together(BaseDataFlowNode):
        async def execute(self, input_data):
            first = asyncio.create_task(self.query(SLEEP))
            await asleep(pg)(first)
            others = [asyncio.create_task(self.db.express.create("Row", {"n": n})) for n in (1, 2, 3)]
            await asyncio.sleep(0)
            first.cancel()
            rows = await asyncio.gather(*others)
            with pytest.raises(asyncio.CancelledError):
                await first
            return {"n": [row["n"] for row in rows]}

    results, _ = await pg.run(db, "TransactionScopeNode", ("RowCreateNode", {"n": 5}), "Together")
    assert results["n2"]["n"] == [1, 2, 3]
    await whole(pg, db, [0, 1, 2, 3, 5])


async def test_a_transaction_that_the_database_gave_up_cannot_look_committed(pg, db):
    """PostgreSQL answers COMMIT of such a transaction with ROLLBACK, and no error."""

    @db.register_node
    class Spoils(BaseDataFlowNode):
        async def execute(self, input_data):
            def program():
                yield Command("SELECT 1 / 0"), ()

            session = CURRENT_RUN.get().joined(self.db.core)
            with pytest.raises(QueryError, match="division by zero"):
                await session.run(program())
            return {}

    with pytest.raises(WorkflowExecutionError, match="rolled the transaction back after an earlier error"):
        await pg.run(db, "TransactionScopeNode", ("RowCreateNode", {"n": 5}), "Spoils")
    await whole(pg, db, [0])


async def test_a_session_that_was_given_back_takes_no_more_programs(pg, db):
    session = await db.core.database.lease(write=True, holder="test")
    await session.release()

    def program():
        yield Command("DELETE FROM rows", COUNT, writes=True), ()

    with pytest.raises(UsageError) as caught:
        await session.run(program())
    assert caught.value.code == "run-over"
    await session.release()
    await whole(pg, db, [0])


# -- timeouts ---------------------------------------------------------------------------------------------------------
async def test_the_timeout_of_a_runtime_stops_the_run(pg, db):
    pid = await pg.pid(db)
    for node in (
        SLEEP,
        ("RowCreateNode", {"n": SLOW}),
        ("RowBulkCreateNode", {"data": [{"n": n} for n in range(500, 700)]}),
    ):
        with pytest.raises(DatabaseTimeout, match=r"the run took longer than 0\.1 s and was cancelled"):
            await pg.run(db, "TransactionScopeNode", ("RowCreateNode", {"n": 5}), node, timeout=0.1)
        await whole(pg, db, [0], pid)


def test_the_timeout_of_a_runtime_works_for_synchronous_callers(pg, db):
    workflow = db.workflow().add_node("RowCreateNode", "a", {"n": 1}).add_node("RowCreateNode", "b", {"n": SLOW})
    with pytest.raises(DatabaseTimeout, match="the run took longer than"):
        LocalRuntime(timeout=0.2).execute(workflow.build())
    assert pg.active() == []
    assert db.express_sync.count("Row") == {"count": 2}  # a node by itself is committed by itself


@pytest.mark.parametrize("kind", [SLEEP, "Asks", "Waits", "Blocks"])
async def test_the_timeout_of_a_scope_ends_it_at_its_own_node(pg, db, kind):
    @db.register_node
    class Waits(BaseDataFlowNode):
        async def execute(self, input_data):
            await asyncio.sleep(3600)

    scope = ("TransactionScopeNode", {"timeout": 0.2})
    with pytest.raises(WorkflowExecutionError, match="the transaction took longer than") as caught:
        await bench_run(db, scope, ("RowCreateNode", {"n": 5}), kind, ("RowCreateNode", {"n": 6}))
    assert isinstance(caught.value.__cause__, DatabaseTimeout)
    await whole(pg, db, [0])
    await bench_run(db, scope, ("RowCreateNode", {"n": 5}))
    await whole(pg, db, [0, 5])


# -- at any moment ----------------------------------------------------------------------------------------------------
async def test_transfers_cancelled_at_random_moments_never_lose_or_make_money(pg):
    db = pg.open(pool_size=2, pool_max_overflow=1)

    @db.model
    class Account:
        balance: int = 100

    @db.register_node
    class Thinks(BaseDataFlowNode):
        async def execute(self, input_data):
            with contextlib.suppress(TimeoutError):  # what is given up here is undone, and the scope goes on
                async with asyncio.timeout(0.001):
                    await self.db.express.bulk_update("Account", filter={"id": 3}, update={"balance": {"$inc": 5}})
            await self.db.express.update("Account", 3, {"balance": {"$inc": 1}})
            await self.db.express.update("Account", 4, {"balance": {"$dec": 1}})
            return {}

    await db.express.bulk_create("Account", [{}] * 4)
    workflow = (
        db.workflow()
        .add_node("TransactionScopeNode", "tx")
        .add_node("AccountUpdateNode", "take", {"id": 1, "balance": {"$dec": 1}})
        .add_node("Thinks", "think")
        .add_node("AccountUpdateNode", "give", {"id": 2, "balance": {"$inc": 1}})
        .build()
    )
    chance = random.Random(7)
    given_up = 0
    for _ in range(60):
        tasks = [asyncio.create_task(AsyncLocalRuntime().execute_async(workflow)) for _ in range(6)]
        for task in tasks[:-1]:
            await asyncio.sleep(chance.random() * 0.006)
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        given_up += sum(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
        assert isinstance(outcomes[-1], tuple)
        assert all(isinstance(o, (tuple, asyncio.CancelledError)) for o in outcomes), outcomes
        balances = [row["balance"] for row in (await db.express.list("Account"))["records"]]
        assert balances[0] - 100 == 100 - balances[1]
        assert (balances[2] + balances[3] - 200) % 5 == 0  # give or take what was done before its time was up
    assert given_up > 60
    assert pg.active() == []
    await pg.eventually(lambda: len(pg.connections()) <= 2)


async def test_a_storm_of_cancellations_leaves_the_pool_whole(pg):
    db = pg.open(pool_size=3, pool_max_overflow=2, lock_timeout=10)
    await db.initialize()
    chance = random.Random(11)
    bulk = [{"text": str(n)} for n in range(300)]

    def one():
        return chance.choice(
            [
                lambda: db.express.create("Note", {"text": "x"}),
                lambda: db.express.list("Note", limit=5),
                lambda: db.express.bulk_create("Note", bulk),
                lambda: pg.sql(db, "SET work_mem = '1MB'"),
                lambda: pg.sql(db, "SELECT pg_sleep(0.002)"),
                lambda: pg.sql(db, "SELECT 1 / 0"),
                lambda: pg.run(db, "TransactionScopeNode", *[("NoteCreateNode", {"text": "y"})] * 3),
            ]
        )()

    async def again(task):
        for _ in range(chance.randrange(1, 4)):
            await asyncio.sleep(chance.random() * 0.01)
            task.cancel()

    given_up = 0
    for _ in range(12):
        tasks = [asyncio.create_task(one()) for _ in range(30)]
        await asyncio.gather(*[again(task) for task in tasks])
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        given_up += sum(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
        wrong = [o for o in outcomes if isinstance(o, Exception) and "division by zero" not in str(o)]
        assert wrong == []
    assert given_up > 100
    assert db.core.database.describe()["connections_in_use"] == 0
    await pg.eventually(lambda: len(pg.connections()) <= 3)
    assert pg.active() == []
    assert pg.server.value(f"SELECT count(*) % 300 FROM {pg.schema}.notes WHERE text <> 'x' AND text <> 'y'") == 0
    assert pg.server.value(f"SELECT count(*) % 3 FROM {pg.schema}.notes WHERE text = 'y'") == 0
    with pg.locked(1):  # all five places are there
        tasks = [asyncio.create_task(pg.sql(db, "SELECT pg_advisory_xact_lock(1)")) for _ in range(5)]
        await pg.eventually(lambda: len(pg.connections("wait_event_type = 'Lock'")) == 5)
    await asyncio.gather(*tasks)
