"""The pool: who gets a connection, how many there are, and what state they are in."""

import asyncio
import re
import threading
import time

import pytest

from dataflow import BaseDataFlowNode
from dataflow.errors import (
    DatabaseTimeout,
    DatabaseUnavailable,
    InputError,
    UniqueError,
    UsageError,
    WorkflowExecutionError,
)
from dataflow.postgres import pool as pools
from dataflow.runtime import LocalRuntime
from dataflow.session import CURRENT_RUN

WAIT = "SELECT pg_advisory_xact_lock(1)"


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests set forward."""

    class Clock:
        ahead = 0.0

    monkeypatch.setattr(pools, "monotonic", lambda: time.monotonic() + Clock.ahead)
    return Clock


async def waiting(pg, count):
    """Wait until so many statements of this test wait for a lock."""
    await pg.eventually(lambda: len(pg.connections("wait_event_type = 'Lock'")) == count)


# -- one pool per event loop ------------------------------------------------------------------------------------------
def test_one_instance_works_on_any_number_of_loops_and_leaves_nothing_behind(pg):
    db = pg.open()

    async def work(n):
        await db.express.create("Row", {"n": n})
        await asyncio.gather(*[db.express.count("Row") for _ in range(5)])
        return len(pg.connections())

    for n in range(12):
        assert 1 <= asyncio.run(work(n)) <= 5
        pg.until(lambda: not pg.connections())
    assert pg.stored() == list(range(12))
    assert db.express_sync.count("Row") == {"count": 12}


def test_loops_in_several_threads_work_at_the_same_time(pg):
    db = pg.open(pool_size=2)
    db.express_sync.count("Row")
    together = threading.Barrier(5)
    pids, failures = {}, []

    async def work(number):
        pids[number] = await pg.pid(db)
        await asyncio.to_thread(together.wait, 20)  # all loops have their connections now
        for n in range(10):
            await db.express.create("Row", {"n": number * 10 + n})
            await asyncio.gather(*[db.express.count("Row") for _ in range(3)])

    def thread(number):
        try:
            asyncio.run(work(number))
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=thread, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    together.wait(20)
    assert db.core.database.describe()["pools"] == 5  # with that of the synchronous calls
    for n in range(40, 50):
        db.express_sync.create("Row", {"n": n})
    for one in threads:
        one.join()
    assert not failures
    assert len(set(pids.values())) == 4
    assert pg.stored() == list(range(50))


async def test_instances_with_equal_settings_share_connections_and_closing_one_leaves_the_other(pg):
    one, two = (pg.open(pool_size=1, pool_max_overflow=0) for _ in range(2))
    other = pg.open(pool_size=1, pool_max_overflow=0, lock_timeout=7)
    pid = await pg.pid(one)
    assert await pg.pid(two) == pid
    assert await pg.pid(other) != pid
    await one.aclose()
    assert await pg.pid(two) == pid
    with pytest.raises(UsageError, match="this DataFlow is closed"):
        await one.express.count("Row")
    await two.aclose()
    await pg.eventually(lambda: pid not in pg.connections())
    await other.express.count("Row")


# -- what a lease costs -----------------------------------------------------------------------------------------------
async def test_taking_and_giving_back_a_connection_costs_no_round_trip(pg, proxy):
    db = pg.open(proxy.url(pg.url), pool_size=1, pool_max_overflow=0)
    await db.express.create("Row", {"n": 1})
    await db.express.read("Row", 1)
    before = proxy.requests
    for _ in range(10):
        await db.express.read("Row", 1)
    assert proxy.requests - before == 10


# -- a clean session --------------------------------------------------------------------------------------------------
TRACES = {
    "setting": ("SET statement_timeout = 12345", "SHOW statement_timeout"),
    "search path": ("SET search_path = pg_catalog", "SHOW search_path"),
    "own setting": (
        "SELECT set_config('app.tenant', 'seven', false)",
        "SELECT coalesce(current_setting('app.tenant', true), '')",
    ),
    "read only": ("SET default_transaction_read_only = on", "SHOW default_transaction_read_only"),
    "isolation": (
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SHOW default_transaction_isolation",
    ),
    "encoding": ("SET client_encoding = 'LATIN1'", "SHOW client_encoding"),
    "temporary table": (
        "CREATE TEMP TABLE scratch AS SELECT 1 AS n",
        "SELECT count(*) FROM pg_class WHERE relpersistence = 't'",
    ),
    "advisory lock": (
        "SELECT pg_advisory_lock(99), pg_advisory_lock_shared(98)",
        "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'",
    ),
    "channel": ("LISTEN gossip", "SELECT count(*) FROM pg_listening_channels()"),
    "cursor": ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "SELECT count(*) FROM pg_cursors"),
    "role": ("SET ROLE pg_read_all_data", "SELECT current_user"),
    "session user": ("SET SESSION AUTHORIZATION guest", "SELECT session_user"),
}


@pytest.fixture
def guest(server):
    server.rows("CREATE ROLE guest")
    yield
    server.rows("DROP ROLE guest")


@pytest.mark.parametrize(("leaves", "looks"), TRACES.values(), ids=TRACES)
async def test_nothing_that_sql_leaves_in_a_session_is_seen_by_the_next_lease(pg, guest, leaves, looks):
    db = pg.open(pool_size=1, pool_max_overflow=0)
    await db.express.create("Row", {"n": 1})
    before = await pg.pid(db), await pg.sql(db, looks)
    await pg.sql(db, leaves)
    assert await db.express.create("Row", {"n": 2})
    assert (await pg.pid(db), await pg.sql(db, looks)) == before


async def test_a_value_drawn_from_a_sequence_is_not_the_next_ones(pg):
    db = pg.open(pool_size=1, pool_max_overflow=0)
    await db.initialize()
    pid = await pg.pid(db)
    await pg.sql(db, "SELECT nextval('rows_id_seq')")
    with pytest.raises(WorkflowExecutionError, match="not yet defined in this session"):
        await pg.sql(db, "SELECT lastval()")
    assert await pg.pid(db) == pid


@pytest.mark.parametrize("leaves", ["PREPARE mine AS SELECT 1", "DISCARD ALL", "DEALLOCATE ALL"])
async def test_a_connection_whose_prepared_statements_sql_has_touched_is_not_used_again(pg, leaves):
    db = pg.open(pool_size=1, pool_max_overflow=0)
    for n in range(3):
        await db.express.create("Row", {"n": n})
    pid = await pg.pid(db)
    await pg.sql(db, leaves)
    assert (await db.express.read("Row", 1))["n"] == 0
    assert await pg.sql(db, "SELECT name FROM pg_prepared_statements WHERE from_sql") == []
    assert await pg.pid(db) != pid
    await pg.eventually(lambda: pid not in pg.connections())


async def test_what_sql_leaves_behind_in_a_scope_is_gone_after_it(pg):
    db = pg.open(pool_size=1, pool_max_overflow=0)
    await db.initialize()
    pid = await pg.pid(db)
    await pg.run(db, "TransactionScopeNode", "SET lock_timeout = 1", ("RowCreateNode", {"n": 1}))
    assert await pg.sql(db, "SHOW lock_timeout") == [("30s",)]
    with pytest.raises(WorkflowExecutionError):
        await pg.run(db, "TransactionScopeNode", "SET lock_timeout = 1", ("RowCreateNode", {"n": 1}))
    assert await pg.sql(db, "SHOW lock_timeout") == [("30s",)]
    assert await pg.pid(db) == pid


async def test_values_that_the_driver_cannot_encode_leave_no_lock_on_the_table(pg):
    db = pg.open(pool_size=1, pool_max_overflow=0)
    await db.initialize()
    with pytest.raises(InputError):
        await db.express.list("Note", {"text": {"$like": "\ud800"}})
    assert pg.connections("state <> 'idle'") == []
    assert not pg.server.rows("SELECT 1 FROM pg_locks WHERE pid = ANY ($1) AND relation IS NOT NULL", pg.connections())


# -- how many ---------------------------------------------------------------------------------------------------------
async def test_a_pool_grows_to_its_size_and_overflow_and_shrinks_to_its_size(pg):
    db = pg.open(pool_size=2, pool_max_overflow=1)
    await db.initialize()
    with pg.locked(1):
        tasks = [asyncio.create_task(pg.sql(db, WAIT)) for _ in range(6)]
        await waiting(pg, 3)
        await asyncio.sleep(0)
        assert len(pg.connections()) == 3
        assert db.core.database.describe()["connections_in_use"] == 3
    assert len(await asyncio.gather(*tasks)) == 6
    await pg.eventually(lambda: len(pg.connections()) == 2)


async def test_connections_beyond_the_size_are_kept_for_a_while(pg):
    """Opening one takes milliseconds: calls that need a few more than `pool_size` must not open one each."""
    db = pg.open(pool_size=1, pool_max_overflow=3)
    await db.initialize()
    pids = set()

    async def one(n):
        pids.add(await pg.pid(db))
        await db.express.count("Row", {"n": n})

    for _ in range(20):
        await asyncio.gather(*[one(n) for n in range(4)])
    assert len(pids) <= 4
    await pg.eventually(lambda: len(pg.connections()) == 1)


async def test_connections_in_hand_over_are_counted(pg):
    db = pg.open(pool_size=2, pool_max_overflow=0)
    await db.initialize()
    pids = set()

    async def one(n):
        for _ in range(5):
            pids.add(await pg.pid(db))
            await db.express.count("Row", {"n": n})

    await asyncio.gather(*[one(n) for n in range(20)])
    assert len(pids) == 2


async def test_an_exhausted_pool_names_who_holds_its_connections(pg):
    db = pg.open(pool_size=1, pool_max_overflow=1, lock_timeout=0.3)
    runs = []

    @db.register_node
    class Holds(BaseDataFlowNode):
        async def execute(self, input_data):
            runs.append(CURRENT_RUN.get().id)
            await self.query("SELECT pg_sleep(60)")

    await db.initialize()
    tasks = []
    for nodes in (["TransactionScopeNode", "Holds"], ["Holds"]):
        tasks.append(asyncio.create_task(pg.run(db, *nodes)))
        await pg.eventually(lambda: len(pg.connections("query LIKE '%pg_sleep%'")) == len(tasks))
    with pytest.raises(DatabaseTimeout) as caught:
        await db.express.count("Row")
    assert caught.value.code == "pool-exhausted"
    age = r"[0-9]+\.[0-9] s"
    assert re.fullmatch(
        r"Row\.count got no connection within 0\.3 s: all 2 are in use \(pool_size \+ pool_max_overflow\), "
        rf"by transaction n0 of run {runs[0]} for {age}; n0 of run {runs[1]} for {age}",
        caught.value.message,
    )
    with pytest.raises(WorkflowExecutionError, match=rf"node n0 of run \w+ got no connection .* {runs[1]} for"):
        await pg.run(db, ("RowCreateNode", {"n": 1}))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (await db.express.count("Row"))["count"] == 0


async def test_who_waits_is_served_in_turn(pg):
    db = pg.open(pool_size=1, pool_max_overflow=0)
    await db.initialize()
    order = []

    async def one(n):
        await db.express.count("Row")
        order.append(n)

    with pg.locked(1):
        first = asyncio.create_task(pg.sql(db, WAIT))
        await waiting(pg, 1)
        tasks = []
        for n in range(10):
            tasks.append(asyncio.create_task(one(n)))
            await asyncio.sleep(0)
        for task in tasks[1::3]:
            task.cancel()
    await asyncio.gather(first, *tasks, return_exceptions=True)
    assert order == [0, 2, 3, 5, 6, 8, 9]


async def test_a_place_is_passed_on_when_its_connection_cannot_be_opened(pg, server, proxy):
    db = pg.open(proxy.url(pg.url), pool_size=1, pool_max_overflow=0)
    proxy.mode = "refuse"
    outcomes = await asyncio.gather(*[db.express.count("Row") for _ in range(5)], return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [DatabaseUnavailable] * 5
    proxy.mode = "pass"
    outcomes = await asyncio.gather(*[db.express.count("Row") for _ in range(5)])
    assert outcomes == [{"count": 0}] * 5


# -- age --------------------------------------------------------------------------------------------------------------
async def test_a_connection_is_replaced_after_pool_recycle(pg, clock):
    db = pg.open(pool_size=1, pool_max_overflow=0, pool_recycle=100)
    pid = await pg.pid(db)
    clock.ahead += 99
    assert await pg.pid(db) == pid
    clock.ahead += 2
    assert await pg.pid(db) != pid
    await pg.eventually(lambda: pid not in pg.connections())


async def test_a_busy_connection_is_replaced_as_well(pg, clock):
    db = pg.open(pool_size=1, pool_max_overflow=0, pool_recycle=100)
    await db.initialize()
    with pg.locked(1):
        first = asyncio.create_task(pg.sql(db, "SELECT pg_backend_pid(), pg_advisory_xact_lock(1)"))
        await waiting(pg, 1)
        second = asyncio.create_task(pg.pid(db))
        await asyncio.sleep(0)
        clock.ahead += 101
    assert (await first)[0][0] != await second


@pytest.mark.parametrize("ping", [True, False])
async def test_a_connection_is_checked_after_it_was_idle(pg, proxy, clock, ping):
    db = pg.open(proxy.url(pg.url), pool_size=1, pool_max_overflow=0, pool_pre_ping=ping)
    await db.express.create("Row", {"n": 1})
    await db.express.read("Row", 1)
    before = proxy.requests
    await db.express.read("Row", 1)
    clock.ahead += 2
    await db.express.read("Row", 1)
    assert proxy.requests - before == 2 + ping


async def test_a_connection_that_the_network_has_silently_lost_is_replaced(pg, proxy, clock, monkeypatch):
    monkeypatch.setattr(pools, "CHECKING", 0.2)
    db = pg.open(proxy.url(pg.url), pool_size=1, pool_max_overflow=0)
    await db.express.create("Row", {"n": 1})
    proxy.silence()
    clock.ahead += 2
    assert (await db.express.update("Row", 1, {"n": 2}))["n"] == 2
    proxy.reset()


async def test_cancelling_who_checks_a_connection_lets_the_next_have_its_place(pg, proxy, clock):
    db = pg.open(proxy.url(pg.url), pool_size=1, pool_max_overflow=0, lock_timeout=10)
    await db.express.create("Row", {"n": 1})
    clock.ahead += 2
    proxy.on(b"SELECT\0", "silence")
    first = asyncio.create_task(db.express.count("Row"))
    await pg.eventually(proxy.seen.is_set)
    second = asyncio.create_task(db.express.count("Row"))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == {"count": 1}
    proxy.reset()


# -- settings ---------------------------------------------------------------------------------------------------------
async def test_lock_timeout_bounds_the_wait_for_a_record(pg):
    db = pg.open(lock_timeout=0.2)
    await db.express.create("Row", {"n": 1})
    with pg.transaction(f"UPDATE {pg.schema}.rows SET n = 5"):
        with pytest.raises(DatabaseTimeout, match="another transaction held a lock for too long"):
            await db.express.update("Row", 1, {"n": 2})
        with pytest.raises(WorkflowExecutionError, match="another transaction held a lock for too long"):
            await pg.run(db, "TransactionScopeNode", ("RowUpdateNode", {"id": 1, "n": 2}))
    assert (await db.express.update("Row", 1, {"n": 2}))["n"] == 2


async def test_a_lock_timeout_of_nothing_waits_for_nobody(pg):
    db = pg.open(pool_size=1, pool_max_overflow=0, lock_timeout=0)
    await db.express.create("Row", {"n": 1})
    await pg.sql(db, "SET work_mem = '1MB'")
    with pg.locked(1), pytest.raises(WorkflowExecutionError, match="another transaction held a lock"):
        await pg.sql(db, WAIT)
    first, second = await asyncio.gather(*[db.express.count("Row") for _ in range(2)], return_exceptions=True)
    assert (first, second.code) == ({"count": 1}, "pool-exhausted")


# -- a transaction belongs to its loop --------------------------------------------------------------------------------
async def test_work_from_other_threads_and_loops_joins_the_transaction(pg):
    db = pg.open(pool_size=1, pool_max_overflow=0)  # whoever asked for a second connection would wait in vain
    pid = await pg.pid(db)

    @db.register_node
    class Works(BaseDataFlowNode):
        def execute(self, input_data):
            pids = {row["pid"] for row in self.run_custom_query("SELECT pg_backend_pid() AS pid")}
            db.express_sync.create("Row", {"n": 2})
            nested = db.workflow().add_node("RowCreateNode", "a", {"n": 3}).build()
            LocalRuntime().execute(nested)
            asyncio.run(db.express.create("Row", {"n": 4}))
            seen = [row["n"] for row in self.run_custom_query("SELECT n FROM rows ORDER BY n")]
            return {"pids": pids, "seen": seen, "committed": pg.stored()}

    results, _ = await pg.run(db, "TransactionScopeNode", ("RowCreateNode", {"n": 1}), "Works")
    assert results["n2"] == {"pids": {pid}, "seen": [1, 2, 3, 4], "committed": []}
    assert pg.stored() == [1, 2, 3, 4]


async def test_errors_from_other_threads_are_undone_by_themselves(pg):
    db = pg.open(pool_size=1, pool_max_overflow=0)

    @db.register_node
    class Tries(BaseDataFlowNode):
        def execute(self, input_data):
            with pytest.raises(UniqueError):
                db.express_sync.bulk_create("Row", [{"n": 7}, {"n": 1}])
            return {}

    await pg.run(db, "TransactionScopeNode", ("RowCreateNode", {"n": 1}), "Tries", ("RowCreateNode", {"n": 2}))
    assert pg.stored() == [1, 2]


async def test_a_call_that_would_wait_for_its_own_loop_is_refused_and_the_transaction_goes_on(pg):
    db = pg.open()
    nested = db.workflow().add_node("RowCreateNode", "a", {"n": 3}).build()

    @db.register_node
    class Blocks(BaseDataFlowNode):
        async def execute(self, input_data):
            for call in (
                lambda: db.express_sync.create("Row", {"n": 2}),
                lambda: LocalRuntime().execute(nested),
                lambda: self.run_custom_query("SELECT 1"),
            ):
                with pytest.raises((UsageError, WorkflowExecutionError)) as caught:
                    call()
                error = caught.value if isinstance(caught.value, UsageError) else caught.value.__cause__
                assert error.code == "would-deadlock"
            return {}

    await pg.run(db, "TransactionScopeNode", ("RowCreateNode", {"n": 1}), "Blocks", ("RowCreateNode", {"n": 4}))
    assert pg.stored() == [1, 4]


def test_a_thread_whose_transaction_belongs_to_a_loop_that_stands_still_is_told_so(pg):
    db = pg.open()
    reached, go_on, told = threading.Event(), threading.Event(), []

    @db.register_node
    class Lags(BaseDataFlowNode):
        def execute(self, input_data):
            reached.set()
            go_on.wait(20)
            try:
                self.run_custom_query("SELECT 1")
            except UsageError as error:
                told.append(error.code)
            return {}

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        task = loop.create_task(pg.run(db, "TransactionScopeNode", ("RowCreateNode", {"n": 1}), "Lags"))
        while not reached.is_set():
            runner.run(asyncio.sleep(0.01))
        go_on.set()
        pg.until(lambda: told)
        loop.run_until_complete(task)
    assert told == ["would-deadlock"]
    assert pg.stored() == [1]


async def test_tasks_and_threads_of_one_transaction_take_turns(pg):
    db = pg.open(pool_size=1, pool_max_overflow=0)

    @db.register_node
    class Together(BaseDataFlowNode):
        async def execute(self, input_data):
            def thread(n):
                self.run_custom_query("INSERT INTO rows (n) VALUES (:n)", {"n": n})
                return db.express_sync.create("Row", {"n": n + 1})["n"]

            tasks = [self.db.express.bulk_create("Row", [{"n": n}, {"n": n + 1}]) for n in range(0, 40, 2)]
            threads = [asyncio.to_thread(thread, n) for n in range(40, 60, 2)]
            failing = [self.db.express.bulk_create("Row", [{"n": n}, {"n": 1000}]) for n in range(60, 70)]
            done = await asyncio.gather(*tasks, *threads, *failing, return_exceptions=True)
            return {"errors": [str(type(item)) for item in done if isinstance(item, Exception)]}

    scope = ["TransactionScopeNode", ("RowCreateNode", {"n": 1000}), "Together"]
    results, _ = await pg.run(db, *scope)
    assert len(results["n2"]["errors"]) == 10
    assert pg.stored() == [*range(60), 1000]
