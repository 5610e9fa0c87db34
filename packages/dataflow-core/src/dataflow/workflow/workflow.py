"""Workflow: frozen, checked, ready to run; JSON is its durable form."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from dataflow.errors import InputError, WorkflowExecutionError, suggest
from dataflow.pictures.workflows import PictureEdge, PictureNode, State, to_mermaid, to_svg
from dataflow.wire import from_wire, to_wire
from dataflow.workflow.graph import Connection, NodeRecord
from dataflow.workflow.tasks import DatabaseTask, Task, stretches

if TYPE_CHECKING:
    from dataflow.engine import DataFlow
    from dataflow.plan.bound import BoundModel

FORMAT = 1


@attrs.frozen(eq=False, repr=False)
class Workflow:
    """A checked workflow. It keeps the instances it runs on alive.

    Attributes:
        nodes: as the user added them.
        connections: as the user added them.
        tasks: the resolved nodes, in the order they run.
        inputs: node id -> required inputs that `execute(parameters=…)` must supply.
        stretches: the tasks, cut where a run gives its connection back: consecutive database nodes of one database, or
            a single other node.
        models: the models whose tables a run needs.
        blocking: whether the calling thread can run everything itself.
    """

    nodes: tuple[NodeRecord, ...]
    connections: tuple[Connection, ...]
    tasks: tuple[Task, ...]
    inputs: Mapping[str, tuple[str, ...]]
    stretches: tuple[Sequence[Task], ...] = attrs.field(init=False)
    models: "tuple[BoundModel, ...]" = attrs.field(init=False)
    blocking: bool = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        models = {task.bound: None for task in self.tasks if isinstance(task, DatabaseTask) and task.bound is not None}
        object.__setattr__(self, "stretches", stretches(self.tasks))
        object.__setattr__(self, "models", tuple(models))
        object.__setattr__(self, "blocking", all(task.may_block for task in self.tasks))

    def __repr__(self) -> str:
        return f"<Workflow of {len(self.nodes)} nodes, {len(self.connections)} connections>"

    def check_parameters(self, parameters: Mapping[str, Mapping[str, Any]] | None) -> Mapping[str, Mapping[str, Any]]:
        """Check the parameters of a run before anything is written.

        Raises:
            InputError: a node or input is unknown, or a required input is not supplied.
        """
        if not parameters and not self.inputs and (parameters is None or type(parameters) is dict):
            return {}
        given: Mapping[str, Mapping[str, Any]] = parameters or {}
        tasks = {task.id: task for task in self.tasks}
        if not isinstance(given, Mapping) or not all(isinstance(values, Mapping) for values in given.values()):
            msg = "parameters is a dict of dicts: {node id: {input: value}}"
            raise InputError(msg, hint='write parameters={"create": {"name": "Ada"}}', code="bad-parameters")
        for node, values in given.items():
            if node not in tasks:
                close = suggest(str(node), tasks)
                msg = f"parameters name a node {node!r} that the workflow does not have"
                raise InputError(
                    msg,
                    hint=f"did you mean {close!r}?" if close else f"nodes: {', '.join(tasks)}",
                    code="unknown-node-id",
                )
            for name in values:
                if not tasks[node].accepts(name):
                    names = sorted(tasks[node].parameters)
                    close = suggest(str(name), names)
                    msg = f"parameters give node {node!r} an input {name!r} that {tasks[node].type} does not take"
                    hint = f"did you mean {close!r}?" if close else f"inputs: {', '.join(names)}"
                    raise InputError(msg, hint=hint, where={"node": node}, code="unknown-input")
        wired: dict[str, set[str]] = {}
        for connection in self.connections:
            wired.setdefault(connection.target, set()).add(connection.input)
        lacking = {
            node: tasks[node].missing({*tasks[node].constants, *wired.get(node, ()), *given.get(node, ())})
            for node in self.inputs  # asked again: a record may be named by conditions instead of its id
        }
        lacking = {node: names for node, names in lacking.items() if names}
        if lacking:
            listed = "; ".join(f"{', '.join(names)} of node {node!r}" for node, names in lacking.items())
            inputs = {node: ", ".join(f'"{name}": …' for name in names) for node, names in lacking.items()}
            example = ", ".join(f'"{node}": {{{values}}}' for node, values in inputs.items())
            msg = f"required inputs have no value: {listed}"
            raise InputError(
                msg, hint=f"connect them, or execute(workflow, parameters={{{example}}})", code="missing-input"
            )
        return given

    # -- JSON -----------------------------------------------------------------------------------------------------
    def to_dict(self) -> dict[str, Any]:
        """Return the workflow as JSON-able data, ``{"format": 1, "nodes": […], "connections": […]}``.

        Raises:
            InputError: a param has no JSON form, or a node type is a class that is not registered by name.
        """
        nodes = [{"type": r.type_name, "id": r.id, "params": self._params(r)} for r in self.nodes]
        connections = [attrs.astuple(connection) for connection in self.connections]
        return {"format": FORMAT, "nodes": nodes, "connections": [list(c) for c in connections]}

    def _params(self, record: NodeRecord) -> Any:
        core = next(task for task in self.tasks if task.id == record.id).core
        _, spec = (None, None) if core is None else core.node_types.get(record.type_name, (None, None))
        if isinstance(record.type, type) and (spec is None or spec.implementation is not record.type):
            msg = f"node {record.id!r} is of the class {record.type_name}, which JSON cannot name"
            hint = f"register it: db.register_node({record.type_name})"
            raise InputError(msg, hint=hint, where={"node": record.id}, code="not-json")
        try:
            return to_wire(dict(record.params))
        except InputError as error:
            error.at(node=record.id)
            raise

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], db: "DataFlow | None" = None) -> "Workflow":
        """Build a workflow from `to_dict` data.

        Raises:
            InputError: the data is of another format.
            WorkflowBuildError: it does not fit the live instances.
        """
        from dataflow.workflow.builder import WorkflowBuilder

        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            msg = f"this is not a workflow of format {FORMAT}"
            raise InputError(msg, hint="pass what Workflow.to_dict() returned", code="bad-workflow")
        builder = WorkflowBuilder(db)
        try:
            for node in data["nodes"]:
                builder.add_node(node["type"], node["id"], from_wire(node["params"]))
            for source, output, target, name in data["connections"]:
                builder.add_connection(source, output, target, name)
        except (KeyError, TypeError, ValueError) as error:
            msg = "the nodes or connections of the workflow do not have their form"
            raise InputError(msg, hint="pass what Workflow.to_dict() returned", code="bad-workflow") from error
        return builder.build()

    # -- pictures -------------------------------------------------------------------------------------------------
    def _picture(
        self, run: "Mapping[str, Any] | WorkflowExecutionError | None"
    ) -> tuple[list[PictureNode], list[PictureEdge]]:
        states: dict[str, State] = {}
        if isinstance(run, WorkflowExecutionError):
            states = {task.id: "done" if task.id in run.results else "skipped" for task in self.tasks}
            states[run.node_id] = "failed"
        elif run is not None:
            states = {task.id: "done" if task.id in run else "pending" for task in self.tasks}
        nodes = [PictureNode(record.id, record.type_name, state=states.get(record.id)) for record in self.nodes]
        return nodes, [PictureEdge(*attrs.astuple(connection)) for connection in self.connections]

    def to_mermaid(self, run: "Mapping[str, Any] | WorkflowExecutionError | None" = None) -> str:
        """Draw the workflow as a mermaid flowchart; `run` (results, or the error of a run) colours the nodes."""
        return to_mermaid(*self._picture(run))

    def to_svg(self, run: "Mapping[str, Any] | WorkflowExecutionError | None" = None) -> str:
        """Draw the workflow as SVG; `run` (results, or the error of a run) colours the nodes."""
        return to_svg(*self._picture(run))

    def _repr_html_(self) -> str:
        return self.to_svg()
