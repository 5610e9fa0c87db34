"""TransactionScopeNode: what belongs to it, commit and rollback, what is left after a failure."""

import asyncio
from typing import Any

import pytest

from dataflow import BaseDataFlowNode, DataFlow
from dataflow.errors import DatabaseTimeout, WorkflowBuildError, WorkflowExecutionError
from dataflow.runtime import AsyncLocalRuntime, LocalRuntime
from dataflow.workflow import WorkflowBuilder

SCOPE = "TransactionScopeNode"


@pytest.fixture
def bank(file_bench: Any) -> Any:
    """Two accounts in a file, so that another connection sees only what is committed."""

    @file_bench.db.model
    class Account:
        owner: str
        balance: int = 100
        __indexes__ = [{"name": "uq_accounts", "fields": ["owner"], "unique": True}]  # noqa: RUF012

    @file_bench.db.register_node
    class Pay(BaseDataFlowNode):
        """Take an amount from one account by SQL, and fail on request."""

        def execute(self, input_data: Any) -> Any:
            sql = "UPDATE accounts SET balance = balance - :n WHERE id = :id"
            self.run_custom_query(sql, {"n": self.config.get("n", 1), "id": self.config.get("id", 1)})
            if self.config.get("fail"):
                raise RuntimeError("no more")
            seen = self.run_custom_query("SELECT balance FROM accounts WHERE id = 1")
            return {"balance": seen[0]["balance"], "committed": committed(file_bench)}

    @file_bench.db.register_node
    class PayAsync(BaseDataFlowNode):
        async def execute(self, input_data: Any) -> Any:
            await self.query("UPDATE accounts SET balance = balance - 1 WHERE id = 1")
            if self.config.get("fail"):
                raise RuntimeError("no more")
            return {"committed": committed(file_bench)}

    file_bench.db.express_sync.bulk_create("Account", [{"owner": "Ada"}, {"owner": "Bob"}])
    return file_bench


def committed(bank: Any) -> list[int]:
    """Read the balances through a connection of the standard library."""
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(bank.path)) as raw:
        return [row[0] for row in raw.execute("SELECT balance FROM accounts ORDER BY id")]


def transfer(bank: Any, scope: Any, *, target: int = 2) -> WorkflowBuilder:
    new = bank.db.workflow()
    new.add_node(SCOPE, "scope", scope)
    new.add_node("AccountUpdateNode", "take", {"id": 1, "balance": {"$dec": 30}})
    new.add_node("AccountUpdateNode", "give", {"id": target, "balance": {"$inc": 30}, "raise_on_not_found": True})
    return new


def test_all_nodes_after_an_unconnected_scope_are_committed_together(bank: Any) -> None:
    new = transfer(bank, {})
    results, _ = LocalRuntime().execute(new.build())
    assert committed(bank) == [70, 130]
    assert results["scope"] == {"database": "app", "isolation_level": None}


def test_nothing_is_committed_before_the_last_node_is_done(bank: Any) -> None:
    new = transfer(bank, {})
    new.add_node("Pay", "pay", {"n": 5})
    new.add_node("AccountCreateNode", "cy", {"owner": "Cy"})
    results, _ = LocalRuntime().execute(new.build())
    assert results["pay"]["committed"] == [100, 100]
    assert results["pay"]["balance"] == 65
    assert committed(bank) == [65, 130, 100]


def test_a_failure_rolls_all_of_it_back(bank: Any) -> None:
    with pytest.raises(WorkflowExecutionError) as caught:
        LocalRuntime().execute(transfer(bank, {}, target=9).build())
    assert caught.value.node_id == "give"
    assert set(caught.value.results) == {"scope", "take"}
    assert committed(bank) == [100, 100]
    LocalRuntime().execute(transfer(bank, {}).build())  # the connection is fit for the next
    assert committed(bank) == [70, 130]


def test_without_rollback_on_error_what_was_done_before_stays(bank: Any) -> None:
    with pytest.raises(WorkflowExecutionError):
        LocalRuntime().execute(transfer(bank, {"rollback_on_error": False}, target=9).build())
    assert committed(bank) == [70, 100]


def test_a_failing_node_leaves_nothing_of_its_own_even_where_the_rest_stays(bank: Any) -> None:
    new = bank.db.workflow()
    new.add_node(SCOPE, "scope", {"rollback_on_error": False})
    new.add_node("AccountUpdateNode", "take", {"id": 1, "balance": {"$dec": 30}})
    new.add_node("AccountBulkCreateNode", "many", {"data": [{"owner": "Cy"}, {"owner": "Bob"}], "batch_size": 1})
    with pytest.raises(WorkflowExecutionError):
        LocalRuntime().execute(new.build())
    assert committed(bank) == [70, 100]


@pytest.mark.parametrize("rollback", [True, False])
@pytest.mark.parametrize("node", ["Pay", "PayAsync"])
def test_a_failing_custom_node_is_undone_with_the_scope_or_alone(bank: Any, node: str, rollback: bool) -> None:
    new = bank.db.workflow()
    new.add_node(SCOPE, "scope", {"rollback_on_error": rollback})
    new.add_node("AccountUpdateNode", "take", {"id": 1, "balance": {"$dec": 30}})
    new.add_node(node, "pay", {"fail": True})
    with pytest.raises(WorkflowExecutionError) as caught:
        LocalRuntime().execute(new.build())
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert committed(bank) == [100 if rollback else 70, 100]


@pytest.mark.parametrize("node", ["Pay", "PayAsync"])
def test_a_custom_node_at_the_end_is_part_of_the_transaction(bank: Any, node: str) -> None:
    new = bank.db.workflow()
    new.add_node(SCOPE, "scope", {})
    new.add_node("AccountUpdateNode", "take", {"id": 1, "balance": {"$dec": 30}})
    new.add_node(node, "pay", {})
    results, _ = LocalRuntime().execute(new.build())
    assert results["pay"]["committed"] == [100, 100]
    assert committed(bank) == [69, 100]


def test_a_scope_of_custom_nodes_alone_holds_them_together(bank: Any) -> None:
    new = bank.db.workflow()
    new.add_node(SCOPE, "scope", {})
    new.add_node("Pay", "one", {"n": 5})
    new.add_node("Pay", "two", {"n": 5, "fail": True})
    with pytest.raises(WorkflowExecutionError):
        LocalRuntime().execute(new.build())
    assert committed(bank) == [100, 100]


def test_express_calls_of_a_custom_node_join_the_transaction(bank: Any) -> None:
    @bank.db.register_node
    class Open(BaseDataFlowNode):
        def execute(self, input_data: Any) -> Any:
            return {"account": self.db.express_sync.create("Account", {"owner": "Cy"})}

    new = bank.db.workflow()
    new.add_node(SCOPE, "scope", {})
    new.add_node("Open", "open")
    new.add_node("AccountCreateNode", "again", {"owner": "Cy"})
    with pytest.raises(WorkflowExecutionError) as caught:
        LocalRuntime().execute(new.build())
    assert caught.value.node_id == "again"
    assert committed(bank) == [100, 100]


def test_tables_created_inside_a_transaction_that_fails_are_created_again(bank: Any) -> None:
    @bank.db.model
    class Memo:
        text: str

    @bank.db.register_node
    class Write(BaseDataFlowNode):
        def execute(self, input_data: Any) -> Any:
            self.db.express_sync.create("Memo", {"text": "a"})
            self.db.express_sync.create("Memo", {"text": "b"})
            raise RuntimeError("no more")

    new = bank.db.workflow().add_node(SCOPE, "scope", {}).add_node("Write", "write")
    with pytest.raises(WorkflowExecutionError):
        LocalRuntime().execute(new.build())
    assert bank.db.express_sync.count("Memo")["count"] == 0
    assert bank.db.express_sync.create("Memo", {"text": "c"})["id"] == 1


def test_a_connected_scope_holds_only_what_follows_it(bank: Any) -> None:
    new = bank.db.workflow()
    new.add_node("AccountUpdateNode", "before", {"id": 1, "balance": 1})
    new.add_node(SCOPE, "scope", {})
    new.add_node("AccountUpdateNode", "inside", {"id": 2, "balance": 2})
    new.add_connection("before", "result", "scope", "input")
    new.add_connection("scope", "result", "inside", "input")
    new.add_node("AccountUpdateNode", "after", {"id": 9, "balance": 1, "raise_on_not_found": True})
    workflow = new.build()
    assert workflow.tasks[1].members == ("inside",)
    with pytest.raises(WorkflowExecutionError):
        LocalRuntime().execute(workflow)
    assert committed(bank) == [1, 2]


def test_what_follows_indirectly_belongs_to_the_scope(bank: Any) -> None:
    new = bank.db.workflow()
    new.add_node(SCOPE, "scope", {})
    new.add_node("AccountUpdateNode", "one", {"id": 1, "balance": 1})
    new.add_node("AccountUpdateNode", "two", {"balance": {"$inc": 1}})
    new.add_connection("scope", "result", "one", "input")
    new.add_connection("one", "id", "two", "id")
    assert new.build().tasks[0].members == ("one", "two")


def test_two_scopes_one_after_the_other_are_two_transactions(bank: Any) -> None:
    new = bank.db.workflow()
    for name, key in (("a", 1), ("b", 2)):
        new.add_node(SCOPE, f"scope_{name}", {})
        new.add_node("AccountUpdateNode", f"one_{name}", {"id": key, "balance": 7})
        new.add_connection(f"scope_{name}", "result", f"one_{name}", "input")
    new.add_node("AccountUpdateNode", "fails", {"id": 9, "balance": 1, "raise_on_not_found": True})
    new.add_connection("one_b", "result", "fails", "input")
    with pytest.raises(WorkflowExecutionError):
        LocalRuntime().execute(new.build())
    assert committed(bank) == [7, 100]


def test_a_node_cannot_belong_to_two_scopes(bank: Any) -> None:
    new = bank.db.workflow()
    new.add_node(SCOPE, "one", {})
    new.add_node(SCOPE, "two", {})
    new.add_node("AccountListNode", "list", {})
    new.add_connection("one", "result", "list", "input")
    new.add_connection("two", "result", "list", "input")
    with pytest.raises(WorkflowBuildError) as caught:
        new.build()
    assert "two-scopes" in [problem.code for problem in caught.value.problems]


def test_a_stray_node_between_the_members_is_a_build_error(bank: Any) -> None:
    new = bank.db.workflow()
    new.add_node(SCOPE, "scope", {})
    new.add_node("AccountUpdateNode", "one", {"id": 1, "balance": 1})
    new.add_node("AccountListNode", "stray", {})
    new.add_node("AccountUpdateNode", "two", {"id": 2, "balance": 1})
    new.add_connection("scope", "result", "one", "input")
    new.add_connection("scope", "result", "two", "input")
    with pytest.raises(WorkflowBuildError) as caught:
        new.build()
    assert [problem.code for problem in caught.value.problems] == ["inside-scope"]
    assert committed(bank) == [100, 100]


def test_nodes_of_other_databases_inside_the_span_are_left_alone(bank: Any) -> None:
    with DataFlow(":memory:", name="log") as log:

        @log.model
        class Entry:
            text: str

        new = bank.db.workflow()
        new.add_node(SCOPE, "scope", {})
        new.add_node("AccountUpdateNode", "take", {"id": 1, "balance": 1})
        new.add_node("EntryCreateNode", "note", {"text": "taking", "database": "log"})
        new.add_node("AccountUpdateNode", "fails", {"id": 9, "balance": 1, "raise_on_not_found": True})
        with pytest.raises(WorkflowExecutionError):
            LocalRuntime().execute(new.build())
        assert log.express_sync.count("Entry")["count"] == 1
        assert committed(bank) == [100, 100]


def test_an_unbound_scope_takes_the_database_of_the_nodes_after_it(bank: Any) -> None:
    new = WorkflowBuilder()
    new.add_node(SCOPE, "scope", {})
    new.add_node("AccountUpdateNode", "one", {"id": 1, "balance": 1})
    workflow = new.build()
    assert workflow.tasks[0].db is bank.db
    LocalRuntime().execute(workflow)
    assert committed(bank) == [1, 100]
    with DataFlow(":memory:", name="log") as log:

        @log.model
        class Entry:
            text: str

        new.add_node("EntryListNode", "entries", {})
        with pytest.raises(WorkflowBuildError, match="the nodes after it use several databases"):
            new.build()
        with pytest.raises(WorkflowBuildError, match="no database node comes after it"):
            WorkflowBuilder().add_node(SCOPE, "scope", {}).build()


def test_every_isolation_level_is_accepted_in_any_spelling(bank: Any) -> None:
    for level in ("READ_COMMITTED", "repeatable read", "SERIALIZABLE", "read_uncommitted"):
        results, _ = LocalRuntime().execute(transfer(bank, {"isolation_level": level}).build())
        assert results["scope"]["isolation_level"] == level.upper().replace(" ", "_")


@pytest.mark.parametrize("blocking", [True, False])
def test_a_transaction_that_takes_too_long_is_rolled_back(bank: Any, blocking: bool) -> None:
    sql = """WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"""
    new = bank.db.workflow()
    new.add_node(SCOPE, "scope", {"timeout": 0.2})
    new.add_node("AccountUpdateNode", "take", {"id": 1, "balance": 1})
    new.add_node("AsyncSQLDatabaseNode", "endless", {"query": sql})
    workflow = new.build()

    def run() -> None:
        if blocking:
            LocalRuntime().execute(workflow)
        else:
            asyncio.run(AsyncLocalRuntime().execute_async(workflow))

    with pytest.raises(WorkflowExecutionError) as caught:
        run()
    assert isinstance(caught.value.__cause__, DatabaseTimeout)
    assert committed(bank) == [100, 100]
    LocalRuntime().execute(transfer(bank, {"timeout": 10}).build())
    assert committed(bank) == [70, 130]


async def test_a_scope_works_on_an_event_loop(bank: Any) -> None:
    new = transfer(bank, {})
    new.add_node("PayAsync", "pay")
    new.add_node("Pay", "too", {"n": 2})
    results, _ = await AsyncLocalRuntime().execute_async(new.build())
    assert results["pay"]["committed"] == results["too"]["committed"] == [100, 100]
    assert committed(bank) == [67, 130]
    with pytest.raises(WorkflowExecutionError):
        await AsyncLocalRuntime().execute_async(transfer(bank, {}, target=9).build())
    assert committed(bank) == [67, 130]


def test_a_scope_survives_json(bank: Any) -> None:
    from dataflow.workflow import Workflow

    data = transfer(bank, {"isolation_level": "SERIALIZABLE"}, target=9).build().to_dict()
    with pytest.raises(WorkflowExecutionError):
        LocalRuntime().execute(Workflow.from_dict(data, bank.db))
    assert committed(bank) == [100, 100]
