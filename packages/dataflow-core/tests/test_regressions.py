"""One test per defect that a review found: what was wrong stays right."""

import asyncio
import enum
import sqlite3
from decimal import Decimal
from typing import Annotated

import pytest

from dataflow import BaseDataFlowNode, DataFlow, ForeignKey
from dataflow.errors import DataFlowError, InputError, ModelError, WorkflowBuildError, WorkflowExecutionError
from dataflow.runtime import AsyncLocalRuntime, LocalRuntime
from dataflow.workflow import Workflow


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@pytest.fixture
def db():
    with DataFlow(":memory:") as instance:

        @instance.model
        class Customer:
            nick: str | None = None

        @instance.model
        class Order:
            customer_id: int | None = None
            total: int = 0
            level: Level = Level.LOW
            items: list = []  # noqa: RUF012
            amount: Decimal | None = None

        yield instance


def test_an_operator_behind_a_dot_is_refused_not_compiled(db):
    with pytest.raises(InputError, match="operator behind a dot"):
        db.express_sync.bulk_delete("Order", filter={"customer.$or": [{"nick": {"$exists": False}}]})
    with pytest.raises(InputError, match="operator behind a dot"):
        db.express_sync.list("Order", {"items.a.$gt": 5})


def test_a_generator_of_rows_is_read_once_by_an_upsert(db):
    rows = ({"id": n, "total": n} for n in range(1, 4))
    out = db.express_sync.bulk_create("Order", rows, conflict_resolution="upsert", key_fields=["id"])
    assert out["created"] == 3


@pytest.mark.parametrize("stop", [SystemExit, KeyboardInterrupt])
def test_exit_in_a_node_reaches_the_caller_and_leaves_the_loop_running(db, stop):
    class Leave(BaseDataFlowNode):
        def execute(self, input_data):
            raise stop

    db.register_node(Leave)
    workflow = db.workflow().add_node("Leave", "leave").build()
    with pytest.raises(stop):
        LocalRuntime(timeout=5).execute(workflow)
    again = db.workflow().add_node("OrderCountNode", "count").build()
    assert LocalRuntime(timeout=5).execute(again)[0]["count"] == {"count": 0}


async def test_stop_iteration_in_a_node_is_its_failure(db):
    class Empty(BaseDataFlowNode):
        def execute(self, input_data):
            return {"first": next(iter([]))}

    db.register_node(Empty)
    with pytest.raises(WorkflowExecutionError, match="StopIteration"):
        async with asyncio.timeout(10):
            await AsyncLocalRuntime().execute_async(db.workflow().add_node("Empty", "e").build())


def test_two_rows_for_one_record_are_refused_in_a_bulk_update(db):
    db.express_sync.create("Order", {})
    with pytest.raises(InputError, match="row 1: the same key as row 0"):
        db.express_sync.bulk_update("Order", data=[{"id": 1, "total": 1}, {"id": 1, "total": 2, "items": []}])


@pytest.mark.parametrize(
    "document", [{}, {"$and": [{}]}, {"$or": [{}]}, {"$nor": [{"$nor": [{}]}]}, {"id": {"$nin": []}}]
)
def test_a_filter_that_compares_nothing_deletes_nothing_unconfirmed(db, document):
    db.express_sync.create("Order", {})
    with pytest.raises(InputError) as caught:
        db.express_sync.bulk_delete("Order", filter=document)
    assert caught.value.code == "unconfirmed"
    assert db.express_sync.count("Order")["count"] == 1


def test_cursors_and_workflow_json_carry_int_enums(db):
    db.express_sync.bulk_create("Order", [{"level": Level.HIGH}, {"level": Level.LOW}])
    page = db.express_sync.list("Order", sort="level", limit=1)
    assert db.express_sync.list("Order", sort="level", limit=1, cursor=page["next_cursor"])["count"] == 1
    workflow = db.workflow().add_node("OrderCreateNode", "o", {"level": Level.HIGH}).build()
    again = Workflow.from_dict(workflow.to_dict(), db)
    assert LocalRuntime().execute(again)[0]["o"]["level"] is Level.HIGH


def test_a_built_workflow_does_not_change_with_the_dicts_it_was_built_from(db):
    params = {"items": ["a"]}
    workflow = db.workflow().add_node("OrderCreateNode", "o", params).build()
    params["items"].append("b")
    assert LocalRuntime().execute(workflow)[0]["o"]["items"] == ["a"]


def test_a_node_cannot_change_what_the_next_run_gets(db):
    class Grow(BaseDataFlowNode):
        def execute(self, input_data):
            input_data["seen"].append(1)
            self.config["seen"].append(1)
            return {"n": len(input_data["seen"])}

    db.register_node(Grow)
    workflow = db.workflow().add_node("Grow", "g", {"seen": []}).build()
    assert [LocalRuntime().execute(workflow)[0]["g"]["n"] for _ in range(2)] == [1, 1]


def test_another_instance_of_the_same_file_inside_a_scope_is_a_build_error(tmp_path):
    url = f"sqlite:///{tmp_path}/one.db"
    with DataFlow(url, name="first") as first, DataFlow(url, name="second") as second:
        for instance in (first, second):
            instance.model(type("Note", (), {"__annotations__": {"text": str}}))
        workflow = first.workflow().add_node("TransactionScopeNode", "scope", {"database": "first"})
        workflow.add_node("NoteCreateNode", "a", {"text": "x", "database": "first"})
        workflow.add_node("NoteCreateNode", "b", {"text": "x", "database": "second"})
        workflow.add_node("NoteCreateNode", "c", {"text": "x", "database": "first"})
        with pytest.raises(WorkflowBuildError, match="would run inside the transaction"):
            workflow.build()


def test_a_workflow_started_inside_a_transaction_belongs_to_it(db):
    inner = db.workflow().add_node("OrderCreateNode", "inner", {"total": 7}).build()

    class Nested(BaseDataFlowNode):
        def execute(self, input_data):
            return {"id": LocalRuntime().execute(inner)[0]["inner"]["id"]}

    db.register_node(Nested)
    workflow = db.workflow().add_node("TransactionScopeNode", "scope")
    workflow.add_node("OrderCreateNode", "outer", {"total": 1}).add_node("Nested", "nested")
    workflow.add_node("OrderReadNode", "gone", {"id": 99, "raise_on_not_found": True})
    with pytest.raises(WorkflowExecutionError, match="gone"):
        LocalRuntime().execute(workflow.build())
    assert db.express_sync.count("Order")["count"] == 0


def test_values_that_another_tool_stored_wrongly_are_named_and_not_shown(tmp_path):
    with DataFlow(f"sqlite:///{tmp_path}/x.db") as db:
        db.model(type("Sale", (), {"__annotations__": {"amount": Decimal | None}}))
        db.express_sync.create("Sale", {"amount": Decimal(1)})
        with sqlite3.connect(tmp_path / "x.db") as other:
            other.execute("UPDATE sales SET created_at = 'secret', amount = 'secret'")
        other.close()
        calls = [
            lambda: db.express_sync.aggregate("Sale", group_by=["created_at"], aggregate={"n": {"$count": "*"}}),
            lambda: db.express_sync.count("Sale", {"amount": {"$gt": 1}}),
            lambda: db.express_sync.aggregate("Sale", aggregate={"n": {"$sum": "amount"}}),
            lambda: db.express_sync.list("Sale"),
        ]
        for call in calls:
            with pytest.raises(DataFlowError) as caught:
                call()
            assert "secret" not in str(caught.value)


def test_filters_and_json_beyond_all_measure_are_refused(db):
    deep = {"id": 1}
    for _ in range(400):
        deep = {"$and": [deep]}
    with pytest.raises(InputError, match="levels deep"):
        db.express_sync.list("Order", deep)
    with pytest.raises(InputError, match="digits"):
        db.express_sync.create("Order", {"items": [10**5000]})


def test_a_division_without_an_exact_result_is_refused_on_a_decimal(db):
    db.express_sync.create("Order", {"amount": Decimal(10)})
    assert db.express_sync.update("Order", 1, {"amount": {"$divide": 8}})["amount"] == Decimal("1.25")
    with pytest.raises(DataFlowError, match="not an exact Decimal; nothing is rounded silently"):
        db.express_sync.update("Order", 1, {"amount": {"$divide": 3}})


def test_a_crafted_cursor_is_refused(db):
    with pytest.raises(InputError, match="not one that a ListNode returned"):
        db.express_sync.list("Order", cursor="eyJzIjo1LCJ2IjpbXX0=")


def test_conditions_on_the_key_return_the_first_record_only(db):
    db.express_sync.bulk_create("Order", [{"total": n} for n in range(5)])
    assert db.express_sync.call("read", "Order", conditions={"id": {"$gt": 2}})["id"] == 3


def test_a_progress_callback_that_raises_does_not_change_the_run(db, capsys):
    def broken(event):
        raise ValueError(event.state)

    workflow = db.workflow().add_node("OrderCreateNode", "o").build()
    assert LocalRuntime(progress=broken).execute(workflow)[0]["o"]["id"] == 1
    assert "progress.failed" in capsys.readouterr().err


def test_included_records_are_not_shared(db):
    db.express_sync.create("Customer", {"nick": "a"})
    db.express_sync.bulk_create("Order", [{"customer_id": 1}, {"customer_id": 1}])
    first, second = db.express_sync.list("Order", include=["customer"])["records"]
    first["customer"]["nick"] = "changed"
    assert second["customer"]["nick"] == "a"


def test_a_foreign_key_to_a_field_that_is_no_key_is_refused():
    with DataFlow(":memory:") as db:

        @db.model
        class Country:
            code: str

        with pytest.raises(ModelError, match="not a unique key"):

            @db.model
            class City:
                country: Annotated[str, ForeignKey("Country", to="code", name="in_country")]


def test_an_empty_enum_is_refused_at_registration():
    class Nothing(enum.Enum):
        pass

    with DataFlow(":memory:") as db, pytest.raises(ModelError, match="no members"):
        db.model(type("Thing", (), {"__annotations__": {"kind": Nothing}}))
