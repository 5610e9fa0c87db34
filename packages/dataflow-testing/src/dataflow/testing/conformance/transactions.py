"""Transaction scopes: what belongs to them, commit and rollback, isolation levels, what is left after a failure."""

import contextlib
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from dataflow import BaseDataFlowNode, DataFlow
from dataflow.errors import (
    DatabaseTimeout,
    DataFlowError,
    NotFoundError,
    SerializationError,
    UniqueError,
    WorkflowBuildError,
    WorkflowExecutionError,
)
from dataflow.testing.conformance.bench import Bench, keys_of
from dataflow.testing.conformance.suite import Suite, requires
from dataflow.workflow import WorkflowBuilder

SCOPE = "TransactionScopeNode"
LEVELS = ("READ_UNCOMMITTED", "READ_COMMITTED", "REPEATABLE_READ", "SERIALIZABLE")
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT count(*) AS total FROM n"
"""A query that never ends, in the SQL of every database that has recursive queries."""


class Stop(Exception):  # what nodes of the tests fail with
    """A node was told to fail."""


def node(work: Callable[[BaseDataFlowNode], Any]) -> type[BaseDataFlowNode]:
    """Return a node class that does some work, in a worker thread where the workflow runs on an event loop."""

    class Work(BaseDataFlowNode):
        def execute(self, input_data: Any) -> Any:
            del input_data
            return {"value": work(self)}

    return Work


def async_node(work: Callable[[BaseDataFlowNode], Any]) -> type[BaseDataFlowNode]:
    """Return a node class that awaits what `work` returns."""

    class Work(BaseDataFlowNode):
        async def execute(self, input_data: Any) -> Any:
            del input_data
            return {"value": await work(self)}

    return Work


def aside(work: Callable[[], Any]) -> Any:
    """Do some work in a thread of its own, outside the surrounding run; return its result, or the error it raised."""
    found: list[Any] = []

    def target() -> None:
        try:
            found.append(work())
        except DataFlowError as error:
            found.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    return found[0]


def declare_accounts(db: DataFlow) -> None:
    """Register the model of these tests."""

    @db.model
    class Account:
        owner: str
        balance: int = 100
        __indexes__: ClassVar = [{"name": "uq_accounts", "fields": ["owner"], "unique": True}]


def balances(bench: Bench) -> list[int]:
    """Return the balances in key order."""
    return keys_of(bench.list("Account"), "balance")


class TestTransactions(Suite):
    """What one transaction holds together."""

    conformance_area: ClassVar[str] = "transactions"

    @classmethod
    def declare(cls, db: DataFlow) -> None:
        declare_accounts(db)

        @db.model
        class Memo:
            text: str
            __tablename__ = "transaction_memos"

    @pytest.fixture
    def ids(self, bench: Bench, clean: None) -> tuple[int, int]:
        """The ids of two accounts with 100 each."""
        del clean
        one, other = bench.bulk_create("Account", [{"owner": "Ada"}, {"owner": "Bob"}], return_ids=True)["ids"]
        return one, other

    def transfer(self, bench: Bench, ids: tuple[int, int], **scope: Any) -> WorkflowBuilder:
        """Build a transfer of 30 from one account to the other."""
        new = bench.workflow().add_node(SCOPE, "scope", scope)
        new.add_node("AccountUpdateNode", "take", {"id": ids[0], "balance": {"$dec": 30}})
        return new.add_node(
            "AccountUpdateNode", "give", {"id": ids[1], "balance": {"$inc": 30}, "raise_on_not_found": True}
        )

    def test_what_follows_a_scope_is_committed_together(self, calls: Bench, ids: tuple[int, int]) -> None:
        results = calls.run(self.transfer(calls, ids))
        assert results["scope"]["isolation_level"] is None
        assert balances(calls) == [70, 130]

    def test_a_failure_rolls_all_of_it_back_and_the_connection_is_fit_for_the_next(
        self, calls: Bench, ids: tuple[int, int]
    ) -> None:
        with pytest.raises(WorkflowExecutionError) as caught:
            calls.run(self.transfer(calls, (ids[0], -9)))
        assert (caught.value.node_id, caught.value.node_type) == ("give", "AccountUpdateNode")
        assert isinstance(caught.value.__cause__, NotFoundError)
        assert set(caught.value.results) == {"scope", "take"}
        assert balances(calls) == [100, 100]
        calls.run(self.transfer(calls, ids))
        assert balances(calls) == [70, 130]

    def test_without_rollback_on_error_what_was_done_before_stays(self, calls: Bench, ids: tuple[int, int]) -> None:
        with pytest.raises(WorkflowExecutionError):
            calls.run(self.transfer(calls, (ids[0], -9), rollback_on_error=False))
        assert balances(calls) == [70, 100]

    @requires("savepoints")
    def test_a_failing_node_leaves_nothing_of_its_own_where_the_rest_stays(
        self, calls: Bench, ids: tuple[int, int]
    ) -> None:
        new = calls.workflow().add_node(SCOPE, "scope", {"rollback_on_error": False})
        new.add_node("AccountUpdateNode", "take", {"id": ids[0], "balance": {"$dec": 30}})
        new.add_node("AccountBulkCreateNode", "many", {"data": [{"owner": "Cy"}, {"owner": "Bob"}], "batch_size": 1})
        with pytest.raises(WorkflowExecutionError) as caught:
            calls.run(new)
        assert isinstance(caught.value.__cause__, UniqueError)
        assert balances(calls) == [70, 100]

    @requires("savepoints")
    def test_bad_rows_inside_a_scope_do_not_spoil_it(self, calls: Bench, ids: tuple[int, int]) -> None:
        new = calls.workflow().add_node(SCOPE, "scope")
        rows = [{"owner": "Cy", "balance": 1}, {"owner": "Bob"}, {"owner": "Di", "balance": 2}]
        new.add_node("AccountBulkCreateNode", "collect", {"data": rows, "on_error": "collect"})
        new.add_node("AccountBulkCreateNode", "skip", {"data": rows[1:], "conflict_resolution": "skip"})
        new.add_node("AccountUpdateNode", "take", {"id": ids[0], "balance": {"$dec": 30}})
        results = calls.run(new)
        assert [(error["row"], error["code"]) for error in results["collect"]["errors"]] == [(1, "unique")]
        assert (results["collect"]["created"], results["skip"]["created"], results["skip"]["skipped"]) == (2, 0, 2)
        assert balances(calls) == [70, 100, 1, 2]

    @requires("savepoints")
    def test_a_call_that_fails_inside_a_node_which_goes_on_does_not_spoil_the_scope(
        self, calls: Bench, ids: tuple[int, int]
    ) -> None:
        def work(self: BaseDataFlowNode) -> str:
            with pytest.raises(UniqueError):
                self.db.express_sync.create("Account", {"owner": "Bob"})
            with pytest.raises(DataFlowError):
                self.run_custom_query("SELECT absent FROM nowhere")
            return str(self.db.express_sync.create("Account", {"owner": "Cy", "balance": 1})["owner"])

        new = self.transfer(calls, ids).add_node(node(work), "work")
        new.add_node("AccountCountNode", "count")
        results = calls.run(new)
        assert (results["work"], results["count"]) == ({"value": "Cy"}, {"count": 3})
        assert balances(calls) == [70, 130, 1]

    @requires("shared_database", "concurrent_readers")
    def test_others_see_nothing_before_the_end_and_the_scope_sees_its_own(
        self, calls: Bench, ids: tuple[int, int]
    ) -> None:
        with calls.another() as other:
            seen = node(lambda _: aside(lambda: balances(other)))
            own = node(lambda self: [row["balance"] for row in self.db.express_sync.list("Account")["records"]])
            new = self.transfer(calls, ids).add_node(seen, "others").add_node(own, "own")
            results = calls.run(new)
            assert results["others"] == {"value": [100, 100]}
            assert results["own"] == {"value": [70, 130]}
            assert balances(other) == [70, 130]

    @pytest.mark.parametrize("kind", ["blocking", "async"])
    def test_a_failing_custom_node_is_undone_with_the_scope_or_alone(
        self, calls: Bench, ids: tuple[int, int], kind: str
    ) -> None:
        sql = "UPDATE accounts SET balance = balance - 1 WHERE owner = :owner"

        def work(self: BaseDataFlowNode) -> None:
            self.run_custom_query(sql, {"owner": "Ada"})
            raise Stop

        async def async_work(self: BaseDataFlowNode) -> None:
            await self.query(sql, {"owner": "Ada"})
            raise Stop

        for rollback in (True, False):
            new = calls.workflow().add_node(SCOPE, "scope", {"rollback_on_error": rollback})
            new.add_node("AccountUpdateNode", "take", {"id": ids[0], "balance": {"$dec": 30}})
            new.add_node(node(work) if kind == "blocking" else async_node(async_work), "work")
            with pytest.raises(WorkflowExecutionError) as caught:
                calls.run(new)
            assert isinstance(caught.value.__cause__, Stop)
            assert balances(calls) == [100 if rollback else 70, 100]

    @requires("raw_sql")
    def test_custom_nodes_sql_nodes_and_express_calls_join_the_transaction(
        self, calls: Bench, ids: tuple[int, int]
    ) -> None:
        def work(self: BaseDataFlowNode) -> list[dict[str, Any]]:
            self.run_custom_query("UPDATE accounts SET balance = 1 WHERE owner = $1", ["Bob"])
            self.db.express_sync.create("Account", {"owner": "Cy"})
            return self.run_custom_query("SELECT balance FROM accounts ORDER BY id")

        for last in (-9, ids[0]):
            new = self.transfer(calls, ids).add_node(node(work), "work")
            query = "SELECT sum(balance) AS total FROM accounts"
            new.add_node("AsyncSQLDatabaseNode", "sql", {"query": query, "fetch_mode": "value"})
            new.add_node("AccountReadNode", "last", {"id": last, "raise_on_not_found": True})
            if last == -9:
                with pytest.raises(WorkflowExecutionError) as caught:
                    calls.run(new)
                assert caught.value.results["work"]["value"] == [{"balance": 70}, {"balance": 1}, {"balance": 100}]
                assert caught.value.results["sql"]["result"]["data"] == 171
                assert balances(calls) == [100, 100]
            else:
                calls.run(new)
                assert balances(calls) == [70, 1, 100]

    @requires("transactional_ddl")
    def test_tables_created_in_a_transaction_that_fails_are_created_again(self, calls: Bench) -> None:
        name = "Late" if calls.way == "express_sync" else "Later"
        calls.register(name, {"text": str}, __tablename__=f"transaction_{name.lower()}")

        def work(self: BaseDataFlowNode) -> None:
            self.db.express_sync.create(name, {"text": "a"})
            raise Stop

        with pytest.raises(WorkflowExecutionError):
            calls.run(calls.workflow().add_node(SCOPE, "scope").add_node(node(work), "work"))
        assert calls.count(name) == {"count": 0}
        assert calls.create(name, {"text": "b"})["text"] == "b"

    def test_a_connected_scope_holds_only_what_follows_it(self, calls: Bench, ids: tuple[int, int]) -> None:
        new = calls.workflow().add_node("AccountUpdateNode", "before", {"id": ids[0], "balance": 1})
        new.add_node(SCOPE, "scope").add_node("AccountUpdateNode", "inside", {"id": ids[1], "balance": 2})
        new.add_connection("before", "result", "scope", "input").add_connection("scope", "result", "inside", "input")
        new.add_node("AccountReadNode", "after", {"id": -9, "raise_on_not_found": True})
        with pytest.raises(WorkflowExecutionError):
            calls.run(new)
        assert balances(calls) == [1, 2]

    def test_a_stray_node_between_the_members_is_a_build_error(self, bench: Bench, ids: tuple[int, int]) -> None:
        new = bench.workflow().add_node(SCOPE, "scope")
        new.add_node("AccountUpdateNode", "one", {"id": ids[0], "balance": 1})
        new.add_node("AccountListNode", "stray").add_node("AccountUpdateNode", "two", {"id": ids[1], "balance": 1})
        new.add_connection("scope", "result", "one", "input").add_connection("scope", "result", "two", "input")
        with pytest.raises(WorkflowBuildError) as caught:
            new.build()
        assert [problem.code for problem in caught.value.problems] == ["inside-scope"]

    def test_a_node_is_all_or_nothing_without_a_scope_too(self, calls: Bench, ids: tuple[int, int]) -> None:
        new = calls.workflow().add_node("AccountCreateNode", "done", {"owner": "Cy", "balance": 1})
        new.add_node("AccountBulkCreateNode", "fails", {"data": [{"owner": "Di"}, {"owner": "Ada"}], "batch_size": 1})
        with pytest.raises(WorkflowExecutionError):
            calls.run(new)
        assert balances(calls) == [100, 100, 1]

    @requires("interrupts", "raw_sql")
    def test_a_transaction_whose_time_is_up_is_stopped_and_undone(self, calls: Bench, ids: tuple[int, int]) -> None:
        new = self.transfer(calls, ids, timeout=0.2).add_node("AsyncSQLDatabaseNode", "endless", {"query": ENDLESS})
        with pytest.raises(WorkflowExecutionError) as caught:
            calls.run(new)
        assert isinstance(caught.value.__cause__, DatabaseTimeout)
        assert balances(calls) == [100, 100]
        calls.run(self.transfer(calls, ids, timeout=10))
        assert balances(calls) == [70, 130]


class TestIsolation(Suite):
    """What transactions see of each other, by level."""

    conformance_area: ClassVar[str] = "isolation"

    @classmethod
    def declare(cls, db: DataFlow) -> None:
        declare_accounts(db)

    @requires("isolation")
    def test_every_level_is_accepted_in_any_spelling(self, calls: Bench) -> None:
        for level in (*LEVELS, "repeatable read", "Serializable"):
            new = calls.workflow().add_node(SCOPE, "scope", {"isolation_level": level})
            new.add_node("AccountCreateNode", "create", {"owner": level})
            assert calls.run(new)["scope"]["isolation_level"] == level.upper().replace(" ", "_")
        assert calls.count("Account") == {"count": 6}
        with pytest.raises(WorkflowBuildError, match="there is no isolation level 'STRICT'"):
            calls.workflow().add_node(SCOPE, "s", {"isolation_level": "strict"}).add_node(
                "AccountListNode", "l"
            ).build()

    @requires("isolation")
    @pytest.mark.parametrize("level", LEVELS[1:])
    def test_what_others_commit_meanwhile_is_seen_as_the_level_says(self, bench: Bench, level: str) -> None:
        with bench.another(lock_timeout=0.7) as quick:
            key = quick.create("Account", {"owner": "Ada"})["id"]
            change = node(lambda _: aside(lambda: quick.update("Account", key, {"balance": 7})))
            new = quick.workflow().add_node(SCOPE, "scope", {"isolation_level": level})
            new.add_node("AccountReadNode", "before", {"id": key}).add_node(change, "change")
            new.add_node("AccountReadNode", "after", {"id": key})
            results = quick.run(new)
            changed = results["change"]["value"]
            if isinstance(changed, DataFlowError):  # it had to wait for the transaction, which is as good
                assert isinstance(changed, DatabaseTimeout)
                assert results["after"]["balance"] == 100
            else:
                assert results["after"]["balance"] == (7 if level == "READ_COMMITTED" else 100)

    @requires("isolation")
    @pytest.mark.parametrize("level", ["REPEATABLE_READ", "SERIALIZABLE"])
    def test_no_update_is_lost(self, bench: Bench, level: str) -> None:
        key = bench.create("Account", {"owner": "Ada", "balance": 0})["id"]
        both = threading.Barrier(2)

        def work() -> Any:
            def wait(self: BaseDataFlowNode) -> Any:
                seen = self.db.express_sync.read("Account", key)["balance"]
                with contextlib.suppress(threading.BrokenBarrierError):  # the other one waits for this transaction
                    both.wait(0.3)
                return self.db.express_sync.update("Account", key, {"balance": seen + 1})["balance"]

            new = bench.workflow().add_node(SCOPE, "scope", {"isolation_level": level}).add_node(node(wait), "add")
            return bench.execute(new)["add"]["value"]

        outcomes = self.both(work)
        failed = [found for found in outcomes if isinstance(found, DataFlowError)]
        assert all(isinstance(error, SerializationError) for error in failed)
        assert bench.read("Account", key)["balance"] == 2 - len(failed)
        assert len(failed) < 2

    @requires("isolation")
    def test_serializable_transactions_are_as_if_one_after_the_other(self, bench: Bench) -> None:
        bench.bulk_create("Account", [{"owner": "Ada"}, {"owner": "Bob"}])
        both = threading.Barrier(2)
        owners = iter(("Ada", "Bob"))

        def work() -> Any:
            owner = next(owners)

            def take(self: BaseDataFlowNode) -> Any:  # allowed only while there are 200 in both together
                total = self.db.express_sync.aggregate("Account", aggregate={"t": {"$sum": "balance"}})["groups"][0][
                    "t"
                ]
                with contextlib.suppress(threading.BrokenBarrierError):
                    both.wait(0.3)
                if total < 200:
                    return "refused"
                return self.db.express_sync.bulk_update(
                    "Account", filter={"owner": owner}, update={"balance": {"$dec": 150}}
                )

            new = (
                bench.workflow().add_node(SCOPE, "s", {"isolation_level": "SERIALIZABLE"}).add_node(node(take), "take")
            )
            return bench.execute(new)["take"]["value"]

        outcomes = self.both(work)
        failed = [found for found in outcomes if isinstance(found, DataFlowError)]
        assert all(isinstance(error, SerializationError) for error in failed)
        assert sorted(balances(bench)) == [-50, 100]

    @staticmethod
    def both(work: Callable[[], Any]) -> list[Any]:
        """Do some work in two threads at once; return both results, or the errors they raised."""
        found: list[Any] = []
        threads = [threading.Thread(target=lambda: found.append(aside(work))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found
