"""Building and running workflows: order, connections, parameters, JSON, errors of a run."""

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest

from dataflow import BaseDataFlowNode, DataFlow
from dataflow.errors import InputError, WorkflowBuildError, WorkflowExecutionError
from dataflow.runtime import AsyncLocalRuntime, LocalRuntime, NodeEvent
from dataflow.wire import from_wire, to_wire
from dataflow.workflow import Workflow, WorkflowBuilder


class Color(Enum):
    RED = "red"


class Rank(Enum):
    FIRST = 1


@pytest.fixture
def desk(bench: Any) -> Any:
    @bench.db.model
    class Task:
        title: str
        done: bool = False
        parent_id: int | None = None
        cost: Decimal = Decimal(0)
        due: datetime | None = None
        data: dict = {}  # noqa: RUF012

    return bench


def execute(workflow: Any, **parameters: Any) -> Any:
    return LocalRuntime().execute(workflow, parameters=parameters or None)[0]


# -- order and connections --------------------------------------------------------------------------------------------
def test_unconnected_nodes_run_in_the_order_they_were_added(desk: Any) -> None:
    new = desk.db.workflow()
    for title in "cab":
        new.add_node("TaskCreateNode", title, {"title": title})
    results = execute(new.build())
    assert list(results) == ["c", "a", "b"]
    assert [results[title]["id"] for title in "cab"] == [1, 2, 3]


def test_a_node_runs_after_what_it_depends_on_and_no_later_than_needed(desk: Any) -> None:
    new = desk.db.workflow()
    new.add_node("TaskCreateNode", "child", {"title": "child"})
    new.add_node("TaskCreateNode", "other", {"title": "other"})
    new.add_node("TaskCreateNode", "parent", {"title": "parent"})
    new.add_node("TaskCreateNode", "last", {"title": "last"})
    new.add_connection("parent", "id", "child", "parent_id")
    workflow = new.build()
    assert [task.id for task in workflow.tasks] == ["other", "parent", "child", "last"]
    results = execute(workflow)
    assert results["child"]["parent_id"] == results["parent"]["id"]


def test_add_node_and_add_connection_can_be_chained(desk: Any) -> None:
    new = desk.db.workflow()
    same = new.add_node("TaskCreateNode", "a", {"title": "a"}).add_node("TaskCreateNode", "b", {"title": "b"})
    assert same.add_connection("a", "id", "b", "parent_id") is new
    assert execute(new.build())["b"]["parent_id"] == 1


def test_one_output_may_feed_many_inputs_and_flags_are_outputs(desk: Any) -> None:
    new = desk.db.workflow()
    new.add_node("TaskCreateNode", "a", {"title": "a"})
    new.add_node("TaskReadNode", "read", {})
    new.add_connection("a", "id", "read", "id")
    new.add_node("TaskCreateNode", "b", {"title": "b"})
    new.add_connection("a", "id", "b", "parent_id")
    new.add_connection("read", "found", "b", "done")
    new.add_connection("a", "_status", "b", "data")
    results = execute(new.build())
    assert (results["b"]["parent_id"], results["b"]["done"], results["b"]["data"]) == (1, True, {"created": True})


def test_a_connection_overrides_a_param_and_parameters_override_params(desk: Any) -> None:
    new = desk.db.workflow()
    new.add_node("TaskCreateNode", "a", {"title": "from params"})
    new.add_node("TaskCreateNode", "b", {"title": "from params"})
    new.add_connection("a", "title", "b", "title")
    results = execute(new.build(), a={"title": "from parameters"})
    assert [results[name]["title"] for name in "ab"] == ["from parameters", "from parameters"]


def test_a_connected_value_of_the_wrong_type_fails_at_its_node_and_keeps_what_was_done(desk: Any) -> None:
    new = desk.db.workflow()
    new.add_node("TaskCreateNode", "a", {"title": "a"})
    new.add_node("TaskCreateNode", "b", {"title": "b"})
    new.add_connection("a", "title", "b", "parent_id")
    with pytest.raises(WorkflowExecutionError) as caught:
        execute(new.build())
    error = caught.value
    assert error.node_id == "b"
    assert error.where == {
        "node": "b", "type": "TaskCreateNode", "run": error.run_id, "model": "Task", "operation": "create",
        "field": "parent_id",
    }  # fmt: skip
    assert error.results["a"]["id"] == 1
    assert isinstance(error.__cause__, InputError)
    assert error.to_dict()["cause"]["code"] == "wrong-value"
    assert desk.run("TaskCountNode")["count"] == 1


def test_a_workflow_runs_again_and_again_with_new_parameters(desk: Any) -> None:
    workflow = desk.db.workflow().add_node("TaskCreateNode", "new", {"cost": Decimal(1)}).build()
    assert workflow.inputs == {"new": ("title",)}
    runtime = LocalRuntime()
    runs = [runtime.execute(workflow, {"new": {"title": str(i)}}) for i in range(3)]
    assert [results["new"]["id"] for results, _ in runs] == [1, 2, 3]
    assert len({run_id for _, run_id in runs}) == 3
    with runtime as same:
        assert same is runtime


def test_a_record_may_be_named_in_any_way_when_the_workflow_runs(desk: Any) -> None:
    desk.run("TaskCreateNode", title="a")
    workflow = desk.build("TaskReadNode")
    assert workflow.inputs == {"node": ("id",)}
    for given in ({"id": 1}, {"record_id": 1}, {"conditions": {"title": "a"}}, {"_id": 1}):
        assert execute(workflow, node=given)["node"]["found"] is True
    for given in ({}, {"fields": ["title"]}):
        with pytest.raises(InputError) as caught:
            execute(workflow, node=given)
        assert caught.value.code == "missing-input"
    new = desk.db.workflow()
    new.add_node("TaskListNode", "first", {"fields": ["title"], "limit": 1})
    new.add_node("TaskCreateNode", "copy", {})
    new.add_connection("first", "_status", "copy", "values")
    assert new.build().inputs == {}
    results = execute(desk.build("TaskCreateNode"), node={"values": {"title": "b"}})
    assert results["node"]["title"] == "b"


def test_a_built_workflow_does_not_change_with_its_builder_or_params(desk: Any) -> None:
    params = {"title": "a", "data": {"x": [1]}}
    new = desk.db.workflow().add_node("TaskCreateNode", "a", params)
    workflow = new.build()
    new.add_node("TaskCreateNode", "b", {"title": "b"})
    params["title"] = "changed"
    assert list(execute(workflow)) == ["a"]
    assert execute(workflow)["a"]["title"] == "a"


def test_an_empty_workflow_does_nothing(desk: Any) -> None:
    workflow = desk.db.workflow().build()
    assert execute(workflow) == {}
    assert repr(workflow) == "<Workflow of 0 nodes, 0 connections>"


def test_all_problems_are_reported_at_once(desk: Any) -> None:
    new = desk.db.workflow()
    new.add_node("TaskCreateNode", "a", {"titel": "a"})
    new.add_node("TakCreateNode", "b", {})
    new.add_node("TaskListNode", "a", {"limit": 1})
    new.add_node("TaskUpdateNode", "c", {"id": 1, "cost": 1.5, "title": "${a.id}"})
    new.add_connection("a", "idd", "c", "parent_id")
    new.add_connection("a", "id", "c", "parent_id")
    new.add_connection("x", "id", "c", "done")
    new.add_connection("c", "id", "a", "parent_id")
    with pytest.raises(WorkflowBuildError) as caught:
        new.build()
    assert [problem.code for problem in caught.value.problems] == [
        "unknown-parameter", "unknown-node", "duplicate-id", "wrong-value", "template", "unknown-output",
        "two-connections", "unknown-node-id", "cycle",
    ]  # fmt: skip
    assert caught.value.message == "the workflow has 9 problems"
    assert desk.run("TaskCountNode")["count"] == 0


@pytest.mark.parametrize(
    "text",
    ["${USD}", "${nobody.id}", "costs ${5.00}", "$a.id", "{a.id}", "${a}", "${}", "$${a .id}"],
)
def test_other_text_with_a_dollar_and_braces_is_data(desk: Any, text: str) -> None:
    new = desk.db.workflow()
    new.add_node("TaskCreateNode", "a", {"title": text, "data": {"x": text}})
    assert execute(new.build())["a"]["title"] == text


@pytest.mark.parametrize("params", [{"title": "${a.id}"}, {"title": "x ${ a.id } y"}, {"data": {"x": ["${a.id}"]}}])
def test_a_template_of_a_node_is_refused_with_the_line_to_write(desk: Any, params: Any) -> None:
    new = desk.db.workflow()
    new.add_node("TaskCreateNode", "a", {"title": "a"})
    new.add_node("TaskUpdateNode", "b", {"id": 1, **params})
    with pytest.raises(WorkflowBuildError) as caught:
        new.build()
    assert [problem.code for problem in caught.value.problems] == ["template"]
    if "title" in params:
        assert 'workflow.add_connection("a", "id", "b", "title")' in str(caught.value)


# -- events -----------------------------------------------------------------------------------------------------------
def test_progress_hears_of_every_node(desk: Any) -> None:
    events: list[NodeEvent] = []
    new = desk.db.workflow()
    new.add_node("TaskCreateNode", "a", {"title": "a"})
    new.add_node("TaskReadNode", "b", {"id": 99, "raise_on_not_found": True})
    with pytest.raises(WorkflowExecutionError):
        LocalRuntime(progress=events.append).execute(new.build())
    assert [(event.node_id, event.state) for event in events] == [
        ("a", "running"), ("a", "done"), ("b", "running"), ("b", "failed"),
    ]  # fmt: skip
    assert events[1].result is not None
    assert events[1].result["title"] == "a"
    assert events[1].node_type == "TaskCreateNode"


async def test_the_async_runtime_gives_the_same_results(desk: Any) -> None:
    new = desk.db.workflow()
    new.add_node("TaskCreateNode", "a", {"title": "a"})
    new.add_node("TaskListNode", "all", {"fields": ["title"]})
    workflow = new.build()
    async with AsyncLocalRuntime() as runtime:
        one, _ = await runtime.execute_async(workflow)
        two, _ = await runtime.execute_workflow_async(workflow, {"a": {"title": "b"}})
    assert [record["title"] for record in one["all"]["records"]] == ["a"]
    assert [record["title"] for record in two["all"]["records"]] == ["a", "b"]


# -- JSON -------------------------------------------------------------------------------------------------------------
VALUES = {
    "none": None, "bool": True, "int": 2**62, "float": 0.1, "text": 'ü\n"', "decimal": Decimal("1.10"),
    "datetime": datetime(2025, 1, 1, 12, tzinfo=UTC), "date": date(2025, 1, 31), "time": time(8, 30, 0, 1),
    "uuid": UUID(int=5), "bytes": b"\x00\xff", "tuple": (1, (2, Decimal(3))), "list": [1, [date(2025, 1, 1)]],
    "dict": {"a": {"b": Decimal(1)}}, "dollar": {"$type": "decimal", "value": "1"}, "filter": {"$in": [1, 2]},
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_values_survive_json_with_their_type(name: str) -> None:
    data = json.loads(json.dumps(to_wire(VALUES[name])))
    assert from_wire(data) == VALUES[name]
    assert type(from_wire(data)) is type(VALUES[name])


def test_enums_become_what_a_model_accepts() -> None:
    assert to_wire([Color.RED, Rank.FIRST]) == ["red", "FIRST"]


@pytest.mark.parametrize(
    "data", [{"$type": "object", "value": 1}, {"$type": "decimal", "value": "x"}, {"$type": "uuid"}]
)
def test_json_that_means_nothing_is_refused(data: Any) -> None:
    with pytest.raises(InputError) as caught:
        from_wire(data)
    assert caught.value.code == "not-json"


def test_a_workflow_survives_json(desk: Any) -> None:
    new = desk.db.workflow()
    due = datetime(2025, 1, 1, tzinfo=UTC)
    new.add_node("TaskCreateNode", "a", {"title": "a", "cost": Decimal("1.10"), "due": due, "data": {"$type": 1}})
    new.add_node("TaskListNode", "list", {"filter": {"due": {"$between": (due, "2025-12-31")}}})
    new.add_connection("a", "result", "list", "input")
    data = new.build().to_dict()
    assert data["format"] == 1
    assert data["nodes"][0]["params"]["cost"] == {"$type": "decimal", "value": "1.10"}
    assert data["connections"] == [["a", "result", "list", "input"]]
    again = Workflow.from_dict(json.loads(json.dumps(data)), desk.db)
    results = execute(again)
    assert results["a"]["cost"] == Decimal("1.1")
    assert results["a"]["data"] == {"$type": 1}
    assert results["list"]["count"] == 1
    assert again.to_dict() == data


def test_json_of_a_registered_node_class_names_it(desk: Any) -> None:
    @desk.db.register_node
    class Shout(BaseDataFlowNode):
        def run(self, text: str) -> Any:
            return {"text": text.upper()}

    data = desk.build(Shout, {"text": "a"}).to_dict()
    assert data["nodes"] == [{"type": "Shout", "id": "node", "params": {"text": "a"}}]
    assert execute(Workflow.from_dict(data, desk.db))["node"] == {"text": "A"}


@pytest.mark.parametrize("data", [None, [], {}, {"format": 2, "nodes": [], "connections": []}, "{}"])
def test_other_data_is_no_workflow(data: Any) -> None:
    with pytest.raises(InputError, match="this is not a workflow of format 1"):
        Workflow.from_dict(data)


@pytest.mark.parametrize(
    "data",
    [{"format": 1}, {"format": 1, "nodes": [{}], "connections": []}, {"format": 1, "nodes": 3, "connections": []},
     {"format": 1, "nodes": [], "connections": [["a", "b"]]}, {"format": 1, "nodes": ["x"], "connections": []}],
)  # fmt: skip
def test_a_mangled_workflow_is_refused_not_crashed_on(data: Any) -> None:
    with pytest.raises(InputError) as caught:
        Workflow.from_dict(data)
    assert caught.value.code == "bad-workflow"


# -- pictures and lookups ---------------------------------------------------------------------------------------------
def test_a_workflow_draws_itself_with_the_state_of_a_run(desk: Any) -> None:
    new = desk.db.workflow()
    new.add_node("TaskCreateNode", "a", {"title": "a"})
    new.add_node("TaskReadNode", "b", {"id": 99, "raise_on_not_found": True})
    new.add_node("TaskListNode", "c", {})
    new.add_connection("a", "result", "b", "input")
    workflow = new.build()
    assert "TaskCreateNode" in workflow.to_mermaid()
    assert workflow._repr_html_() == workflow.to_svg()
    with pytest.raises(WorkflowExecutionError) as caught:
        execute(workflow)
    assert "failed" in workflow.to_mermaid(caught.value)
    assert "skipped" in workflow.to_mermaid(caught.value)
    assert "failed" not in workflow.to_mermaid({"a": {}, "b": {}, "c": {}})
    assert "pending" in workflow.to_mermaid({"a": {}})


def test_workflows_are_registered_under_an_id(desk: Any) -> None:
    workflow = desk.build("TaskListNode")
    desk.db.register_workflow("nightly", workflow)
    assert desk.db.workflows == {"nightly": workflow}


def test_a_workflow_keeps_its_instance_alive() -> None:
    def make() -> Workflow:
        db = DataFlow(":memory:")

        @db.model
        class Task:
            title: str

        return WorkflowBuilder(db).add_node("TaskCreateNode", "a", {"title": "a"}).build()

    workflow = make()
    assert execute(workflow)["a"]["id"] == 1
    db = workflow.tasks[0].db
    assert db is not None
    db.close()
    with pytest.raises(WorkflowExecutionError) as caught:
        execute(workflow)
    assert caught.value.node_id == "a"
    assert "this DataFlow is closed" in str(caught.value)
