"""Which node type a name means, and on which instance."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dataflow import later
from dataflow.engine import DataFlow
from dataflow.errors import DataFlowError, InputError, suggest
from dataflow.instances import find_instance, forget_garbage, live_instances
from dataflow.nodes import BaseDataFlowNode
from dataflow.nodes.scope import ScopeNode
from dataflow.nodes.sql import SQLNode
from dataflow.operations import KINDS
from dataflow.plugins.manager import plugin_set
from dataflow.plugins.specs import NodeSpec, load
from dataflow.workflow.tasks import CONTROL, ModelTask, PythonTask, ScopeTask, SQLTask, Task, shape_of

if TYPE_CHECKING:
    from dataflow.workflow.graph import NodeRecord

_SUFFIXES = sorted((kind.suffix for kind in KINDS), key=len, reverse=True)


class Resolver:
    """Resolves the nodes of one workflow.

    Args:
        bound: the builder's instance, or None.
    """

    def __init__(self, bound: DataFlow | None) -> None:
        self.bound = bound
        self.live = live_instances()
        asked = [db.core.plugins for db in ([bound] if bound is not None else self.live)] or [plugin_set()]
        self.workflow_nodes = {
            name: spec for plugins in reversed(asked) for name, spec in plugins.workflow_nodes.items()
        }
        self._foreign: dict[str, DataFlow] = {}

    def task(self, record: "NodeRecord") -> Task:
        """Return the task of a node.

        Raises:
            DataFlowError: its type or its database is unknown or ambiguous.
        """
        if isinstance(record.type, type):
            return self._class_task(record, record.type)
        name = record.type
        constants = dict(record.params)
        spec = self.workflow_nodes.get(name)
        if spec is not None:
            return self._workflow_task(record, spec, constants)
        db = self._owner(name, constants)
        bound, spec = db.core.node_types[name]
        if bound is None:
            cls = load(spec.implementation)
            for control in ("database", "_database"):
                if control in constants and control not in shape_of(cls).constructor.parameters:
                    del constants[control]
            return PythonTask(record.id, name, db, constants, spec, cls=cls)
        operation = bound.operation(spec.operation)
        _drop_control(constants, operation.route if hasattr(operation, "route") else {})
        return ModelTask(
            record.id, name, db, constants, spec, implementation=operation, bound=bound, writes=operation.writes
        )

    def _class_task(self, record: "NodeRecord", cls: type) -> Task:
        if not issubclass(cls, BaseDataFlowNode):
            msg = f"{cls.__name__} is not a node class"
            hint = f'write add_node("{cls.__name__}CreateNode", …) for a model, or derive from BaseDataFlowNode'
            raise InputError(msg, hint=hint, code="bad-node")
        constants = dict(record.params)
        spec = NodeSpec(cls.__name__, cls.__name__, cls, outputs=cls.outputs, writes=True)
        label = constants.pop("database", None)
        db = (
            self._instance(label)
            if label is not None
            else self.bound or (self.live[0] if len(self.live) == 1 else None)
        )
        return PythonTask(record.id, cls.__name__, db, constants, spec, cls=cls)

    def _owner(self, name: str, constants: Mapping[str, Any]) -> DataFlow:
        """Find the instance that has a node type."""
        if self.bound is not None and "database" not in constants and "_database" not in constants:
            if name in self.bound.core.node_types:
                return self.bound
            raise self._unknown(name, [self.bound])
        owners = [db for db in self.live if name in db.core.node_types]
        label = self._label(owners, name, constants)
        if label is not None:
            db = self._instance(label)
            if name not in db.core.node_types:
                raise self._unknown(name, [db])
            return db
        if self.bound is not None and name in self.bound.core.node_types:
            return self.bound
        if len(owners) > 1:
            del owners
            self.live = []
            forget_garbage()
            self.live = live_instances()
            owners = [db for db in self.live if name in db.core.node_types]
        if not owners:
            raise self._unknown(name, self.live)
        if len(owners) > 1:
            listed = "; ".join(map(repr, owners))
            msg = f"{name} is registered by several live instances: {listed}"
            hint = "pick one: params {'database': name}, or WorkflowBuilder(db) / db.workflow()"
            raise InputError(msg, hint=hint, code="ambiguous-database")
        return owners[0]

    @staticmethod
    def _label(owners: list[DataFlow], name: str, constants: Mapping[str, Any]) -> Any:
        if "_database" in constants:
            return constants["_database"]
        if "database" not in constants:
            return None
        for db in owners:  # a field called `database` wins the name
            bound = db.core.node_types[name][0]
            if bound is not None and "database" in bound.fields:
                return None
        return constants["database"]

    @staticmethod
    def _instance(label: Any) -> DataFlow:
        if isinstance(label, DataFlow):
            return label
        if not isinstance(label, str):
            msg = f"database takes the name of an instance, got {type(label).__name__}"
            raise InputError(msg, hint="write database='primary'", code="unknown-database")
        return find_instance(label)

    def _unknown(self, name: str, instances: list[DataFlow]) -> DataFlowError:
        if name in later.NODES or name.endswith(later.NODE_SUFFIXES):
            return later.refuse("node type", name)
        known = {known for db in instances for known in db.core.node_types} | set(self.workflow_nodes)
        models = sorted({model for db in instances for model in db.list_models()})
        suffix = next((ending for ending in _SUFFIXES if name.endswith(ending)), "")
        if suffix:  # the operation is right, so the model is what is wrong
            model = suggest(name.removesuffix(suffix), models)
            close = f"{model}{suffix}" if model else None
        else:
            close = suggest(name, known)
        if close:
            hint = f"did you mean {close!r}?"
        elif models:
            hint = f"models: {', '.join(models)}; each has CreateNode, ReadNode, UpdateNode, ListNode …"
        else:
            hint = "no live DataFlow has a model yet: register one with @db.model, and keep `db` referenced"
        return InputError(f"there is no node type {name!r}", hint=hint, code="unknown-node")

    def _workflow_task(self, record: "NodeRecord", spec: NodeSpec, constants: dict[str, Any]) -> Task:
        implementation = load(spec.implementation)
        if implementation is SQLNode:
            db = self._sql_instance(constants)
            _drop_control(constants, {})
            core = db.core
            return SQLTask(record.id, spec.type, db, constants, spec, implementation=SQLNode(core))
        if implementation is ScopeNode:
            label = constants.get("database", constants.get("_database"))
            db_or_none = self._instance(label) if label is not None else self.bound
            _drop_control(constants, {})
            return ScopeTask(record.id, spec.type, db_or_none, constants, spec)
        return PythonTask(record.id, spec.type, self.bound, constants, spec, cls=implementation)

    def _sql_instance(self, constants: dict[str, Any]) -> DataFlow:
        url = constants.pop("connection_string", None)
        allowed = constants.pop("allow_foreign_connections", False)
        label = constants.get("database", constants.get("_database"))
        if url is not None and label is not None:
            msg = "connection_string and database were both given"
            raise InputError(msg, hint="give one of them", code="bad-parameter")
        if label is not None:
            return self._instance(label)
        if url is not None:
            return self._by_url(url, allowed=bool(allowed))
        if self.bound is not None:
            return self.bound
        if len(self.live) == 1:
            return self.live[0]
        listed = "; ".join(map(repr, self.live)) or "none"
        msg = "AsyncSQLDatabaseNode needs to know the database"
        raise InputError(
            msg, hint=f"give database=… or connection_string=…; live instances: {listed}", code="ambiguous-database"
        )

    def _by_url(self, text: str, *, allowed: bool) -> DataFlow:
        """Return the live instance with that database, else an instance of the workflow's own.

        Raises:
            InputError: it is a database of no live instance, and one of those may not be got round.
        """
        own = self._foreign.get(text)
        if own is not None:
            return own
        settings: dict[str, Any] = {"tdd_mode": True} if any(db.config["tdd_mode"] for db in self.live) else {}
        other = DataFlow(text, **settings)
        identity = other.core.dialect.identity(other.config.url)
        for db in self.live:
            if identity and db.core.dialect.identity(db.config.url) == identity:
                other.close()
                return db
        if not allowed and any(guard.exclusive for db in self.live for guard in db.core.guards):
            other.close()
            msg = "connection_string is the database of no live instance, and a live one is strict or protected"
            hint = "use database=…, or say that it is meant: allow_foreign_connections=True"
            raise InputError(msg, hint=hint, code="foreign-connection")
        self._foreign[text] = other
        return other


def _drop_control(constants: dict[str, Any], route: Mapping[str, Any]) -> None:
    """Remove the control inputs that are no parameters of the node itself."""
    for name in CONTROL:
        if name in constants and name not in route:
            del constants[name]
