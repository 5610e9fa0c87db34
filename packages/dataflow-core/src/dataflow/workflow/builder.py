"""WorkflowBuilder: collects nodes and connections; `build()` checks the whole."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from dataflow.errors import InputError
from dataflow.types import kind
from dataflow.workflow.graph import Connection, NodeRecord, plain_copy

if TYPE_CHECKING:
    from dataflow.engine import DataFlow
    from dataflow.workflow.workflow import Workflow


class WorkflowBuilder:
    """Collects a workflow. `add_node` and `add_connection` check only the shape of their arguments.

    Args:
        db: instance that model nodes without ``database`` belong to; None looks at all live instances.
    """

    def __init__(self, db: "DataFlow | None" = None) -> None:
        self.db = db
        self.nodes: list[NodeRecord] = []
        self.connections: list[Connection] = []

    def add_node(self, node_type: Any, node_id: str, params: Mapping[str, Any] | None = None) -> Self:
        """Add a node.

        Args:
            node_type: name of a node type ("UserCreateNode"), or a `BaseDataFlowNode` class.
            node_id: unique in the workflow.
            params: constants for its inputs.

        Raises:
            InputError: an argument has the wrong type.
        """
        if not isinstance(node_id, str) or not node_id:
            msg = f"the node id is a non-empty str, got {kind(node_id)}"
            raise InputError(msg, hint='write add_node("UserCreateNode", "create", {…})', code="bad-node")
        if not isinstance(node_type, (str, type)):
            msg = f"the node type is a str, got {kind(node_type)}"
            raise InputError(msg, hint='write add_node("UserCreateNode", "create", {…})', code="bad-node")
        if params is not None and not isinstance(params, Mapping):
            msg = f"the params of node {node_id!r} are a dict, got {kind(params)}"
            raise InputError(msg, hint='write {"name": value}', code="bad-node")
        self.nodes.append(NodeRecord(node_type, node_id, plain_copy(dict(params or {}))))
        return self

    def add_connection(self, source: str, output: str, target: str, input: str) -> Self:
        """Connect an output of one node to an input of another.

        Args:
            source: id of the node that gives.
            output: key of its result; "result" for the whole.
            target: id of the node that takes.
            input: one of its parameters; "input" only orders the two.

        Raises:
            InputError: an argument is not a str.
        """
        for name, value in (("source", source), ("output", output), ("target", target), ("input", input)):
            if not isinstance(value, str) or not value:
                msg = f"add_connection takes four names; {name} is {kind(value)}"
                raise InputError(msg, hint='write add_connection("create", "id", "read", "id")', code="bad-connection")
        self.connections.append(Connection(source, output, target, input))
        return self

    def build(self) -> "Workflow":
        """Check everything at once and resolve it into a frozen `Workflow`.

        Raises:
            WorkflowBuildError: listing all problems.
        """
        from dataflow.workflow.build import build

        return build(self.nodes, self.connections, self.db)
