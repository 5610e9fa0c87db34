"""Core's own contributions, as a plugin like any other: settings, nodes, runtimes, commands."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dataflow.config import CORE_SETTINGS
from dataflow.operations import KINDS
from dataflow.plugins import CommandSpec, NodeSpec, Parameter, RuntimeSpec, SettingSpec, hookimpl

if TYPE_CHECKING:
    from dataflow.config import Config
    from dataflow.model import ModelSpec

dataflow_api = "1.0"


@hookimpl
def dataflow_settings() -> Iterable[SettingSpec]:
    """Declare the settings that core implements."""
    return CORE_SETTINGS


@hookimpl
def dataflow_nodes(model: "ModelSpec", config: "Config") -> Iterable[NodeSpec]:
    """Generate one node type per operation."""
    del config
    names = tuple(model.fields)
    every = tuple(_field_parameter(model, name) for name in names)
    changes = tuple(_field_parameter(model, name, required=False) for name in names if name not in model.primary_key)
    optional = tuple(_field_parameter(model, name, required=False) for name in names)
    by_kind = {"": (), "values": every, "changes": changes, "defaults": optional}
    return [kind.node(model.name, by_kind[kind.takes_fields], names) for kind in KINDS]


def _field_parameter(model: "ModelSpec", name: str, *, required: bool | None = None) -> Parameter:
    field = model.fields[name]
    optional = " | None" if field.nullable else ""
    need = field.required if required is None else required
    return Parameter(name, f"{field.type}{optional}", need, doc=f"Field of {model.name}.")


@hookimpl
def dataflow_workflow_nodes() -> Iterable[NodeSpec]:
    """Offer the nodes that belong to no model."""
    return [
        NodeSpec(
            "AsyncSQLDatabaseNode",
            "sql",
            "dataflow.nodes.sql:SQLNode",
            None,
            (
                Parameter("query", "str", required=True, doc="SQL of your own, with :name or $1 placeholders."),
                Parameter("params", "dict | list", doc="Values of the placeholders."),
                Parameter("connection_string", "str", doc="Database URL, instead of `database`."),
                Parameter(
                    "fetch_mode",
                    "str",
                    default="all",
                    doc="all, one, value or none.",
                    choices=("all", "one", "value", "none"),
                ),
                Parameter("validate_queries", "bool", default=True, doc="Refuse several statements and DDL."),
                Parameter("allow_foreign_connections", "bool", default=False, doc="Allow URLs of no live instance."),
            ),
            ("result",),
            writes=True,
            doc="Run SQL of your own.",
        ),
        NodeSpec(
            "TransactionScopeNode",
            "transaction",
            "dataflow.nodes.scope:ScopeNode",
            None,
            (
                Parameter("isolation_level", "str", doc="READ_COMMITTED, REPEATABLE_READ, SERIALIZABLE …"),
                Parameter("timeout", "float", doc="Seconds the whole transaction may take."),
                Parameter(
                    "rollback_on_error", "bool", default=True, doc="False commits what was done before the failure."
                ),
            ),
            ("database", "isolation_level"),
            writes=True,
            doc="Let the nodes that follow share one transaction.",
        ),
    ]


@hookimpl
def dataflow_runtimes() -> Iterable[RuntimeSpec]:
    """Offer the local runtimes."""
    return [
        RuntimeSpec("local", "dataflow.runtime:LocalRuntime", "In this process, for synchronous callers."),
        RuntimeSpec("async", "dataflow.runtime:AsyncLocalRuntime", "In this process, on the running event loop."),
    ]


@hookimpl
def dataflow_commands() -> Iterable[CommandSpec]:
    """Offer core's commands."""
    texts = {
        "demo": "Show DataFlow at work, in memory.",
        "plugins": "List plugins: what is active, broken, and why.",
        "doctor": "Check the installation, the settings and the database.",
        "models": "List the models of an application.",
        "nodes": "List node types, or the parameters and results of one model's.",
        "graph": "Draw a workflow.",
        "er": "Draw the models and their relations.",
        "shell": "Try things out: models and nodes at hand, await at the prompt.",
        "run": "Run a workflow.",
        "load": "Load a CSV, JSON Lines or Parquet file into a model.",
        "dump": "Write the records of a model to such a file.",
        "stubs": "Write type stubs, with which type checkers know your models.",
    }
    return [CommandSpec(name, text, f"dataflow.cli.{name}:{name}") for name, text in texts.items()]
