"""Nodes of one's own: how they are written, what they get and give, SQL from inside them."""

import asyncio
import threading
from typing import Any

import pytest

from dataflow import BaseDataFlowNode, DataFlow
from dataflow.errors import InputError, UsageError, WorkflowBuildError, WorkflowExecutionError
from dataflow.runtime import AsyncLocalRuntime, LocalRuntime
from dataflow.workflow import WorkflowBuilder


@pytest.fixture
def team(bench: Any) -> Any:
    @bench.db.model
    class Person:
        name: str
        age: int = 30

    bench.db.express_sync.bulk_create("Person", [{"name": "Ada", "age": 36}, {"name": "Bob"}])
    return bench


def test_execute_gets_params_overridden_by_connections_and_parameters(team: Any) -> None:
    class Echo(BaseDataFlowNode):
        def execute(self, input_data: Any) -> Any:
            return {"seen": dict(input_data), "config": self.config, "id": self.node_id}

    new = team.db.workflow()
    new.add_node("PersonReadNode", "person", {"id": 1})
    new.add_node(Echo, "echo", {"a": 1, "b": 2})
    new.add_connection("person", "name", "echo", "b")
    results, _ = LocalRuntime().execute(new.build(), parameters={"echo": {"c": 3}})
    assert results["echo"] == {"seen": {"a": 1, "b": "Ada", "c": 3}, "config": {"a": 1, "b": 2}, "id": "echo"}


def test_run_takes_its_inputs_as_arguments(team: Any) -> None:
    class Greet(BaseDataFlowNode):
        outputs = ("text",)

        def run(self, name: str, greeting: str = "Hello") -> Any:
            return {"text": f"{greeting}, {name}"}

    new = team.db.workflow()
    new.add_node("PersonReadNode", "person", {"id": 1})
    new.add_node(Greet, "greet", {"greeting": "Salve"})
    new.add_connection("person", "name", "greet", "name")
    assert LocalRuntime().execute(new.build())[0]["greet"] == {"text": "Salve, Ada"}
    workflow = team.build(Greet)
    assert workflow.inputs == {"node": ("name",)}
    with pytest.raises(InputError, match="required inputs have no value: name of node 'node'"):
        LocalRuntime().execute(workflow)
    assert LocalRuntime().execute(workflow, parameters={"node": {"name": "Bo"}})[0]["node"]["text"] == "Hello, Bo"
    with pytest.raises(InputError, match="an input 'nme' that Greet does not take"):
        LocalRuntime().execute(workflow, parameters={"node": {"nme": "Bo"}})
    new = team.db.workflow().add_node(Greet, "a", {"name": "A"}).add_node(Greet, "b")
    new.add_connection("a", "txt", "b", "nam")
    with pytest.raises(WorkflowBuildError) as caught:
        new.build()
    assert [problem.code for problem in caught.value.problems] == ["unknown-output", "unknown-input"]
    assert "did you mean 'text'?" in str(caught.value)


def test_run_may_take_anything(team: Any) -> None:
    class Collect(BaseDataFlowNode):
        def run(self, **inputs: Any) -> Any:
            return {"names": sorted(inputs)}

    assert team.run(Collect, x=1, y=2) == {"names": ["x", "y"]}
    assert team.late(Collect, {"z": 3}) == {"names": ["z"]}


async def test_async_nodes_are_awaited_by_both_runtimes(team: Any) -> None:
    class Wait(BaseDataFlowNode):
        async def run(self, seconds: float) -> Any:
            await asyncio.sleep(seconds)
            return {"rows": await self.query("SELECT name FROM people WHERE age > :age", {"age": 35})}

    workflow = team.build(Wait, {"seconds": 0})
    expected = {"rows": [{"name": "Ada"}]}
    assert (await AsyncLocalRuntime().execute_async(workflow))[0]["node"] == expected
    assert (await asyncio.to_thread(LocalRuntime().execute, workflow))[0]["node"] == expected


def test_a_registered_node_goes_by_its_name_and_takes_its_constructors_params(team: Any) -> None:
    class CustomAnalyticsNode(BaseDataFlowNode):
        """Run a query of the workflow's author."""

        def __init__(self, node_id: str, custom_query: str) -> None:
            self.custom_query = custom_query
            super().__init__(node_id)

        def execute(self, input_data: Any) -> Any:
            return self.run_custom_query(self.custom_query)

    assert team.db.register_node(CustomAnalyticsNode) is CustomAnalyticsNode
    assert team.db.register_node(CustomAnalyticsNode) is CustomAnalyticsNode  # once more does no harm
    result = team.run("CustomAnalyticsNode", custom_query="SELECT avg(age) AS a FROM people")
    assert result == {"result": [{"a": 33.0}]}
    with pytest.raises(WorkflowBuildError, match="cannot be made with these params"):
        team.build("CustomAnalyticsNode", {"query": "SELECT 1"})


@pytest.mark.parametrize(
    ("returned", "result"),
    [({"a": 1}, {"a": 1}), (None, {}), ({}, {}), ([1, 2], {"result": [1, 2]}), ({"result": 5}, {"result": 5})],
    ids=["dict", "nothing", "empty", "list", "result"],
)
def test_what_a_node_returns_becomes_its_outputs(team: Any, returned: Any, result: Any) -> None:
    class Give(BaseDataFlowNode):
        def execute(self, input_data: Any) -> Any:
            return returned

    class Take(BaseDataFlowNode):
        def run(self, whole: Any) -> Any:
            return {"whole": whole}

    new = (
        team.db.workflow()
        .add_node(Give, "give")
        .add_node(Take, "take")
        .add_connection("give", "result", "take", "whole")
    )
    results, _ = LocalRuntime().execute(new.build())
    assert results["give"] == result
    assert results["take"] == {"whole": result.get("result", result)}


@pytest.mark.parametrize("returned", [3, "text", {1}, (1, 2), object()], ids=["int", "str", "set", "tuple", "object"])
def test_a_node_that_returns_something_else_fails(team: Any, returned: Any) -> None:
    class Give(BaseDataFlowNode):
        def execute(self, input_data: Any) -> Any:
            return returned

    with pytest.raises(WorkflowExecutionError, match="a node returns a dict of outputs"):
        team.run(Give)


def test_run_custom_query_takes_both_kinds_of_placeholders_and_gives_dicts(team: Any) -> None:
    class Ask(BaseDataFlowNode):
        def execute(self, input_data: Any) -> Any:
            return {
                "named": self.run_custom_query("SELECT name FROM people WHERE age = :age", {"age": 36}),
                "numbered": self.run_custom_query("SELECT name FROM people WHERE age = $1", [30]),
                "changed": self.run_custom_query("UPDATE people SET age = age + 1"),
                "returned": self.run_custom_query("DELETE FROM people WHERE age > 36 RETURNING name"),
            }

    assert team.run(Ask) == {
        "named": [{"name": "Ada"}], "numbered": [{"name": "Bob"}], "changed": [], "returned": [{"name": "Ada"}],
    }  # fmt: skip


@pytest.mark.parametrize("sql", ["DROP TABLE people", "DELETE FROM people; DELETE FROM people", "COMMIT", "PRAGMA x"])
def test_run_custom_query_refuses_what_the_sql_node_refuses(team: Any, sql: str) -> None:
    class Ask(BaseDataFlowNode):
        def execute(self, input_data: Any) -> Any:
            return {"rows": self.run_custom_query(sql)}

    with pytest.raises(WorkflowExecutionError) as caught:
        team.run(Ask)
    assert isinstance(caught.value.__cause__, InputError)
    assert team.run("PersonCountNode")["count"] == 2


async def test_run_custom_query_on_the_loops_own_thread_raises_and_names_the_awaitable(team: Any) -> None:
    class Ask(BaseDataFlowNode):
        blocking = False

        def execute(self, input_data: Any) -> Any:
            return {"rows": self.run_custom_query("SELECT 1")}

    with pytest.raises(WorkflowExecutionError) as caught:
        await AsyncLocalRuntime().execute_async(team.build(Ask))
    assert isinstance(caught.value.__cause__, UsageError)
    assert caught.value.__cause__.code == "would-deadlock"
    assert "await self.query(sql, params)" in caught.value.hint


async def test_a_sync_node_runs_in_a_thread_unless_it_says_it_does_not_block(team: Any) -> None:
    class Where(BaseDataFlowNode):
        def execute(self, input_data: Any) -> Any:
            return {"thread": threading.get_ident(), "rows": self.run_custom_query("SELECT 1 AS one")}

    class Here(BaseDataFlowNode):
        blocking = False

        def execute(self, input_data: Any) -> Any:
            return {"thread": threading.get_ident()}

    here = threading.get_ident()
    where, _ = await AsyncLocalRuntime().execute_async(team.build(Where))
    assert where["node"]["thread"] != here
    assert where["node"]["rows"] == [{"one": 1}]
    assert (await AsyncLocalRuntime().execute_async(team.build(Here)))[0]["node"]["thread"] == here
    if team.db.core.database.blocking:
        assert LocalRuntime().execute(team.build(Where))[0]["node"]["thread"] == here


def test_a_node_sees_what_nodes_before_it_wrote(team: Any) -> None:
    class Count(BaseDataFlowNode):
        def execute(self, input_data: Any) -> Any:
            sql = self.run_custom_query("SELECT count(*) AS n FROM people")[0]["n"]
            return {"sql": sql, "express": self.db.express_sync.count("Person")["count"]}

    new = team.db.workflow()
    new.add_node("PersonCreateNode", "cy", {"name": "Cy"})
    new.add_node(Count, "count")
    new.add_connection("cy", "result", "count", "input")
    assert LocalRuntime().execute(new.build())[0]["count"] == {"sql": 3, "express": 3}


def test_the_error_of_a_node_tells_which_and_keeps_results_and_cause(team: Any) -> None:
    class Break(BaseDataFlowNode):
        def execute(self, input_data: Any) -> Any:
            raise KeyError("missing")

    new = team.db.workflow()
    new.add_node("PersonCreateNode", "cy", {"name": "Cy"})
    new.add_node(Break, "break")
    new.add_node("PersonCreateNode", "di", {"name": "Di"})
    with pytest.raises(WorkflowExecutionError) as caught:
        LocalRuntime().execute(new.build())
    error = caught.value
    assert (error.node_id, error.node_type) == ("break", "Break")
    assert isinstance(error.__cause__, KeyError)
    assert list(error.results) == ["cy"]
    assert len(error.run_id) == 32
    assert error.message == "node 'break' failed: KeyError: 'missing'"
    assert team.run("PersonCountNode")["count"] == 3  # what was done before stays, without a scope


def test_a_node_class_works_on_the_one_live_instance_or_the_one_it_is_told(team: Any) -> None:
    class Names(BaseDataFlowNode):
        def execute(self, input_data: Any) -> Any:
            return {"names": [row["name"] for row in self.run_custom_query("SELECT name FROM people ORDER BY id")]}

    team.db.register_node(Names)
    assert LocalRuntime().execute(WorkflowBuilder().add_node(Names, "n").build())[0]["n"]["names"] == ["Ada", "Bob"]
    with DataFlow(":memory:", name="other") as other:

        @other.model
        class Person:
            name: str

        other.express_sync.create("Person", {"name": "Zed"})
        other.register_node(Names)
        for node in (Names, "Names"):
            new = WorkflowBuilder().add_node(node, "n", {"database": "other"})
            assert LocalRuntime().execute(new.build())[0]["n"]["names"] == ["Zed"]
            assert LocalRuntime().execute(team.db.workflow().add_node(node, "n").build())[0]["n"]["names"][0] == "Ada"
        with pytest.raises(WorkflowBuildError, match="registered by several live instances"):
            WorkflowBuilder().add_node("Names", "n").build()


def test_node_classes_of_the_same_name_on_one_instance_clash(team: Any) -> None:
    def make() -> type:
        class Twin(BaseDataFlowNode):
            pass

        return Twin

    team.db.register_node(make())
    with pytest.raises(Exception, match="the node type 'Twin', which exists already"):
        team.db.register_node(make())
