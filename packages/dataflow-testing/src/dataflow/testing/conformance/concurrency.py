"""Many callers at once: threads, tasks, instances and processes lose nothing, and none waits for ever."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

from dataflow import DataFlow, errors
from dataflow.errors import DatabaseTimeout, DatabaseUnavailable, UsageError
from dataflow.runtime import AsyncLocalRuntime, LocalRuntime
from dataflow.testing.conformance.bench import Bench, keys_of
from dataflow.testing.conformance.suite import Suite, requires
from dataflow.testing.conformance.transactions import ENDLESS, SCOPE, aside, node

PROCESS = """
import json
import sys
from dataflow import DataFlow
from dataflow.errors import DataFlowError

with DataFlow(sys.argv[1]) as db:

    @db.model
    class Visit:
        who: str
        __tablename__ = "process_visits"
        __indexes__ = [{"name": "idx_process_visits", "fields": ["who"]}]

    try:
        for _ in range(20):
            db.express_sync.create("Visit", {"who": sys.argv[2]})
        db.express_sync.bulk_create("Visit", [{"who": sys.argv[2]}] * 30)
    except DataFlowError as error:
        print(json.dumps(error.to_dict()))
"""


def at_once(work: Callable[[int], Any], times: int) -> list[Any]:
    """Do some work in as many threads, which start together; return the results."""
    start = threading.Barrier(times)

    def one(number: int) -> Any:
        start.wait()
        return work(number)

    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(one, range(times)))


class TestConcurrency(Suite):
    """One database, many callers."""

    conformance_area: ClassVar[str] = "concurrency"

    @classmethod
    def declare(cls, db: DataFlow) -> None:
        @db.model
        class Counter:
            name: str
            hits: int = 0
            __indexes__: ClassVar = [{"name": "uq_counters", "fields": ["name"], "unique": True}]

    def test_no_increment_is_lost_between_threads(self, bench: Bench) -> None:
        key = bench.create("Counter", {"name": "a"})["id"]
        at_once(lambda _: [bench.update("Counter", key, {"hits": {"$inc": 1}}) for _ in range(5)], 12)
        assert bench.read("Counter", key)["hits"] == 60

    def test_no_increment_is_lost_between_tasks(self, bench: Bench) -> None:
        key = bench.create("Counter", {"name": "a"})["id"]

        async def work() -> None:
            async with asyncio.TaskGroup() as group:
                for _ in range(60):
                    group.create_task(bench.db.express.update("Counter", key, {"hits": {"$inc": 1}}))

        bench.await_(work())
        assert bench.read("Counter", key)["hits"] == 60

    def test_threads_and_tasks_share_an_instance(self, bench: Bench) -> None:
        async def work(number: int) -> None:
            async with asyncio.TaskGroup() as group:
                for task in range(5):
                    group.create_task(bench.db.express.create("Counter", {"name": f"task {number} {task}"}))

        threads = [
            threading.Thread(target=lambda n=n: bench.create("Counter", {"name": f"thread {n}"})) for n in range(8)
        ]
        for thread in threads:
            thread.start()
        bench.await_(work(0))
        for thread in threads:
            thread.join()
        bench.await_(work(1))
        assert bench.count("Counter") == {"count": 18}

    def test_ids_are_unique_whoever_writes(self, bench: Bench) -> None:
        made = at_once(
            lambda n: bench.bulk_create("Counter", [{"name": f"{n} {i}"} for i in range(40)], return_ids=True)["ids"], 6
        )
        assert len({key for ids in made for key in ids}) == 240
        for number, ids in enumerate(made):
            names = [bench.read("Counter", key)["name"] for key in (ids[0], ids[-1])]
            assert names == [f"{number} 0", f"{number} 39"]

    @requires("upsert")
    def test_of_many_upserts_of_one_key_one_creates(self, bench: Bench) -> None:
        made = at_once(
            lambda _: bench.upsert("Counter", {"name": "a"}, {"hits": 1}, {"hits": {"$inc": 1}})["created"], 8
        )
        assert sorted(made) == [False] * 7 + [True]
        assert keys_of(bench.list("Counter"), "hits") == [8]

    @requires("upsert")
    def test_bulk_upserts_of_the_same_keys_do_not_harm_each_other(self, bench: Bench) -> None:
        rows = [{"name": str(number)} for number in range(50)]
        done = at_once(lambda n: bench.bulk_upsert("Counter", [{**row, "hits": n} for row in rows], ["name"]), 4)
        assert sum(found["created"] for found in done) == 50
        assert sum(found["created"] + found["updated"] for found in done) == 200
        assert bench.count("Counter") == {"count": 50}

    def test_one_runtime_serves_threads_and_tasks(self, bench: Bench) -> None:
        runtime = LocalRuntime()
        workflow = bench.workflow().add_node("CounterCreateNode", "create").build()
        at_once(lambda n: runtime.execute(workflow, parameters={"create": {"name": f"thread {n}"}}), 6)

        async def work() -> None:
            shared = AsyncLocalRuntime()
            async with asyncio.TaskGroup() as group:
                for number in range(30):
                    given = {"create": {"name": f"task {number}"}}
                    group.create_task(shared.execute_async(workflow, parameters=given))

        bench.await_(work())
        assert bench.count("Counter") == {"count": 36}

    @requires("schema_lock")
    def test_threads_that_use_a_new_model_at_once_create_its_table_once(self, bench: Bench) -> None:
        index = {"name": "idx_concurrent_news", "fields": ["n"]}
        bench.register("News", {"n": int}, __tablename__="concurrent_news", __indexes__=[index])
        at_once(lambda n: bench.create("News", {"n": n}), 8)
        assert bench.count("News") == {"count": 8}

    @requires("shared_database", "schema_lock")
    def test_instances_that_start_at_once_create_the_tables_once(self, bench: Bench, database_url: str) -> None:
        def work(number: int) -> None:
            with DataFlow(database_url) as db:

                @db.model
                class Start:
                    n: int
                    __tablename__ = "concurrent_starts"
                    __indexes__: ClassVar = [{"name": "uq_concurrent_starts", "fields": ["n"], "unique": True}]

                db.express_sync.create("Start", {"n": number})

        at_once(work, 5)
        bench.register("Start", {"n": int}, __tablename__="concurrent_starts")
        assert sorted(keys_of(bench.list("Start"), "n")) == [0, 1, 2, 3, 4]

    @requires("many_processes", "schema_lock", refusal=(DatabaseUnavailable,))
    def test_processes_that_start_at_once_lose_nothing(self, bench: Bench, database_url: str) -> None:
        command = [sys.executable, "-c", PROCESS, database_url]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        children = [subprocess.Popen([*command, name], **pipes) for name in "ab"]  # type: ignore[call-overload]  # noqa: S603
        told = [child.communicate(timeout=60) for child in children]
        assert [child.returncode for child in children] == [0, 0], told
        for refused, _ in told:
            if refused:
                found = json.loads(refused)
                raise getattr(errors, found["error"])(found["message"], hint=found["hint"])
        bench.register("Visit", {"who": str}, __tablename__="process_visits")
        groups = bench.aggregate("Visit", group_by=["who"], aggregate={"n": {"$count": "*"}})["groups"]
        assert groups == [{"who": "a", "n": 50}, {"who": "b", "n": 50}]

    @requires("concurrent_readers")
    def test_a_reader_does_not_wait_for_a_transaction_that_writes(self, bench: Bench) -> None:
        with bench.another(lock_timeout=5) as quick:
            key = quick.create("Counter", {"name": "a"})["id"]
            new = quick.workflow().add_node(SCOPE, "scope")
            new.add_node("CounterUpdateNode", "write", {"id": key, "hits": 5})
            new.add_node(node(lambda _: aside(lambda: quick.read("Counter", key)["hits"])), "seen")
            assert quick.execute(new)["seen"] == {"value": 0}
            assert quick.read("Counter", key)["hits"] == 5

    @requires("concurrent_writers", refusal=(DatabaseTimeout,))
    def test_a_writer_does_not_wait_for_a_transaction_on_other_records(self, bench: Bench) -> None:
        with bench.another(lock_timeout=0.7) as quick:
            one, other = (quick.create("Counter", {"name": name})["id"] for name in "ab")

            def write() -> Any:
                found = aside(lambda: quick.update("Counter", other, {"hits": 7}))
                if isinstance(found, Exception):
                    raise found
                return found["hits"]

            new = quick.workflow().add_node(SCOPE, "scope")
            new.add_node("CounterUpdateNode", "write", {"id": one, "hits": 5}).add_node(
                node(lambda _: write()), "other"
            )
            assert quick.execute(new)["other"] == {"value": 7}

    @requires("interrupts", "raw_sql")
    def test_a_cancelled_task_stops_its_statement_and_leaves_the_connection_fit(self, bench: Bench) -> None:
        workflow = bench.workflow().add_node(SCOPE, "scope").add_node("CounterCreateNode", "create", {"name": "gone"})
        workflow.add_node("AsyncSQLDatabaseNode", "endless", {"query": ENDLESS})
        built = workflow.build()

        async def work() -> None:
            task = asyncio.create_task(AsyncLocalRuntime().execute_async(built))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await bench.db.express.count("Counter") == {"count": 0}
            await bench.db.express.create("Counter", {"name": "kept"})

        bench.await_(work())
        assert keys_of(bench.list("Counter"), "name") == ["kept"]

    @requires("interrupts", "raw_sql")
    def test_a_run_whose_time_is_up_is_stopped(self, calls: Bench) -> None:
        new = calls.workflow().add_node("CounterCreateNode", "create", {"name": "kept"})
        new.add_node("AsyncSQLDatabaseNode", "endless", {"query": ENDLESS})
        with pytest.raises(DatabaseTimeout):
            calls.execute(new, timeout=1)
        assert calls.count("Counter") == {"count": 1}

    def test_closing_waits_for_nobody_and_refuses_what_comes_after(self, bench: Bench) -> None:
        with bench.another() as other:
            other.count("Counter")
            other.db.close()
            for way in ("express_sync", "express", "workflow"):
                with pytest.raises(UsageError) as caught:
                    other.by(way).count("Counter")
                assert caught.value.code == "closed"
