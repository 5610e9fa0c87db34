"""What the engine itself takes: nodes that do nothing, and `build()`."""

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from benchmarks.harness import Contest, Target, case
from dataflow import BaseDataFlowNode, DataFlow
from dataflow.runtime import AsyncLocalRuntime, LocalRuntime
from dataflow.workflow import WorkflowBuilder

NODES = 1000


def chain(db: DataFlow, kind: str, nodes: int = NODES) -> WorkflowBuilder:
    """Return nodes in a chain, each connected to the one before."""
    workflow = WorkflowBuilder(db)
    workflow.add_node(kind, "n0", {"value": 1})
    for i in range(1, nodes):
        workflow.add_node(kind, f"n{i}").add_connection(f"n{i - 1}", "value", f"n{i}", "value")
    return workflow


@case("engine/empty")
async def empty() -> AsyncGenerator[Contest, None]:
    """A chain of 1,000 nodes that hand a value on."""
    db = DataFlow(":memory:")

    @db.register_node
    class Pass(BaseDataFlowNode):
        def execute(self, input_data: Mapping[str, Any]) -> dict[str, Any]:
            return {"value": input_data["value"]}

    @db.register_node
    class PassAsync(BaseDataFlowNode):
        async def execute(self, input_data: Mapping[str, Any]) -> dict[str, Any]:  # type: ignore[override]
            return {"value": input_data["value"]}

    sync, in_async = chain(db, "Pass").build(), chain(db, "PassAsync").build()
    runtime, async_runtime = LocalRuntime(), AsyncLocalRuntime()

    def run_sync() -> Any:
        return runtime.execute(sync)[0][f"n{NODES - 1}"]["value"]

    async def run_async() -> Any:
        return (await async_runtime.execute_async(in_async))[0][f"n{NODES - 1}"]["value"]

    yield Contest({"dataflow": run_sync}, Target(value=5), per=NODES, calls=10, name="engine: empty node, LocalRuntime")
    yield Contest(
        {"dataflow": run_async}, Target(value=5), per=NODES, calls=10, name="engine: empty node, AsyncLocalRuntime"
    )
    await db.aclose()


@case("engine/build")
async def build() -> AsyncGenerator[Contest, None]:
    """`build()` of 1,000 nodes."""
    db = DataFlow(":memory:")

    @db.model
    class Thing:
        name: str
        size: int = 0

    @db.register_node
    class Pass(BaseDataFlowNode):
        def execute(self, input_data: Mapping[str, Any]) -> dict[str, Any]:
            return {"value": input_data["value"]}

    empty = chain(db, "Pass")
    full = WorkflowBuilder(db)
    for i in range(NODES):
        full.add_node("ThingCreateNode", f"n{i}", {"name": f"thing {i}"})
        if i:
            full.add_connection(f"n{i - 1}", "id", f"n{i}", "size")
    for name, builder in (("custom nodes", empty), ("create nodes", full)):

        def run(builder: WorkflowBuilder = builder) -> Any:
            return len(builder.build().nodes)

        yield Contest({"dataflow": run}, Target(value=30), per=NODES, calls=5, name=f"engine: build(), {name}")
    await db.aclose()
