"""The descriptors that hooks return: frozen, import-light records holding lazy references.

A reference is text, ``"package.module:Object"``, so that knowing what a plugin offers does not import what it
offers. Tests and small plugins may put the object itself.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

import attrs

from dataflow.errors import PluginLoadError

API_VERSION = (1, 0)
"""Version of the plugin API: a plugin states the one it was written for as ``dataflow_api = "1.0"``."""

Reference = str | Callable[..., Any] | type | object


def load(reference: Reference) -> Any:
    """Import what a lazy reference names; anything but text is returned as it is.

    Raises:
        PluginLoadError: the module or the object does not exist.
    """
    if not isinstance(reference, str):
        return reference
    module, _, name = reference.partition(":")
    try:
        target: Any = import_module(module)
        for part in name.split("."):
            target = getattr(target, part)
    except (ImportError, AttributeError) as error:
        msg = f"the reference {reference!r} cannot be loaded: {error}"
        raise PluginLoadError(msg, hint="reinstall the package that provides it") from error
    return target


@attrs.frozen
class SettingSpec:
    """A setting of ``DataFlow(…)``, or an option of ``__dataflow__``.

    Attributes:
        name: keyword; the environment variable is ``DATAFLOW_`` + its upper case.
        type: bool, int, float, str, or object for anything.
        default: value when nobody sets it.
        doc: one sentence, with the unit.
        scope: "instance" for DataFlow keywords, "model" for keys of ``__dataflow__``, "process" for an environment
            variable that only the package itself reads.
        choices: the only values allowed, if not empty.
        minimum: smallest number allowed, or None.
    """

    name: str
    type: type = object
    default: Any = None
    doc: str = ""
    scope: str = "instance"
    choices: tuple[Any, ...] = ()
    minimum: float | None = None


@attrs.frozen
class DialectSpec:
    """A database dialect.

    Attributes:
        name: "sqlite", "postgresql" …
        schemes: URL schemes it answers to, without ``://``.
        dialect: reference to the `dataflow.dialect.Dialect` implementation, called with no arguments.
        capabilities: name -> "full", "emulated", or "unsupported: reason".
        schema_editor: reference to the `dataflow.changes.SchemaEditor`, called with the dialect; None: its schemas
            cannot be migrated.
    """

    name: str
    schemes: tuple[str, ...]
    dialect: Reference
    capabilities: Mapping[str, str] = attrs.field(factory=dict)
    schema_editor: Reference | None = None


@attrs.frozen
class FieldTypeSpec:
    """A field type for annotations.

    Attributes:
        name: how listings call it.
        annotation: reference to the class that users write as annotation.
        type: reference to a `dataflow.types.FieldType` subclass or instance.
    """

    name: str
    annotation: Reference
    type: Reference


@attrs.frozen
class Parameter:
    """An input of a node.

    Attributes:
        name: keyword of ``add_node`` params and target of connections.
        type: how listings print the expected type.
        required: whether the node cannot run without it.
        default: value when it is not given.
        doc: what it does, with unit.
        choices: the only texts it takes, for listings and type stubs; empty for any.
    """

    name: str
    type: str = "Any"
    required: bool = False
    default: Any = None
    doc: str = ""
    choices: tuple[str, ...] = ()


@attrs.frozen
class NodeSpec:
    """A node type.

    Attributes:
        type: the name users write: "UserCreateNode".
        operation: what it does, for ``db.express.call``: "create".
        implementation: reference. For a node of a model: class called with the bound model, having
            ``check`` and ``program`` (`dataflow.operations.Operation`). Without model: a `BaseDataFlowNode` subclass.
        model: name of the model, or None.
        parameters: its inputs, except ``database``, ``input`` and their aliases, which every node has.
        outputs: the keys of its result; None when they are not known beforehand.
        writes: whether it changes data.
        doc: one sentence.
    """

    type: str
    operation: str
    implementation: Reference
    model: str | None = None
    parameters: tuple[Parameter, ...] = ()
    outputs: tuple[str, ...] | None = None
    writes: bool = False
    doc: str = ""


@attrs.frozen
class RuntimeSpec:
    """A runtime: something with ``execute(workflow, parameters)``."""

    name: str
    runtime: Reference
    doc: str = ""


@attrs.frozen
class MigrationEngineSpec:
    """A migration engine for a role ("schema", "risk", "staging" …), called with the `Core` of a DataFlow.

    That of the role "schema" has ``auto_migrate(**options)``, ``register_schema_as_models(tables, **options)`` and
    ``reconstruct_models_from_registry()``, as `DataFlow` has them, and may have besides:

    ``look(models) -> Program[str]``: asked when models are first used: "" (all is there), "create" or "migrate".
    ``create(models) -> Program[None]``: makes tables that are missing; in a transaction that holds the schema lock.
    ``bring(models, call) -> Program[None]``: adapts tables that are there, or raises `SchemaError` with what to do.
    ``discover_schema() -> dict``, or None where it cannot tell more than core.
    ``hint``: how to add a missing column, where that is not allowed by itself.
    """

    role: str
    engine: Reference
    doc: str = ""


@attrs.frozen
class SchemaRuleSpec:
    """A rule for schema plans; `kind` is "diff", "risk" or "lint"."""

    name: str
    kind: str
    rule: Reference


@attrs.frozen
class BackendSpec:
    """A backend of a kind (cache, keys, audit, events, blobs) behind a URL scheme."""

    kind: str
    scheme: str
    backend: Reference


@attrs.frozen
class HealthCheck:
    """A named check: an async callable that returns a dict with at least ``ok: bool``."""

    name: str
    check: Callable[[], Any]


@attrs.frozen
class CommandSpec:
    """A command of the ``dataflow`` program; the reference names a click command, imported when it runs."""

    name: str
    help: str
    command: Reference


@runtime_checkable
class Guard(Protocol):
    """What watches over every call of one DataFlow, whatever model or SQL it is about.

    Ambient values of one DataFlow (tenant, actor …) are read with ``core.around(ambient, name)``.

    Methods that a guard may have besides:

    ``seal(call, command) -> Callable[[], DataFlowError] | None``: where it returns a function, the database refuses the
    command if it writes, and what the function returns is raised then.
    ``shield(call, command) -> Shield | None``: its ``denies(effect, table, column) -> bool`` is asked, by databases
    that can, about each change of a statement; where one was denied, its ``error()`` is raised.
    ``active(core) -> bool``: whether it has something to watch over, asked when a model was registered; calls of a
    DataFlow without active guards cost nothing for them.
    ``schema(core, ambient) -> None``: asked before tables are created; raises to refuse it.
    ``route(core) -> Database`` and ``place(core, ambient) -> str | None``: give each tenant a database or schema of its
    own. The connections that `route` returns are leased with ``place=`` what `place` says.

    Attributes:
        name: unique among the guards of a DataFlow.
        confines: whether calls get connections without privileges, which the database itself keeps within the
            surroundings that `context` names; the dialect must be able to (`Database.confine`).
        exclusive: whether SQL on databases of no live instance is refused while this one lives.
    """

    name: str
    confines: bool
    exclusive: bool

    def privileged(self, core: Any, ambient: Mapping[str, Any]) -> bool:
        """Tell whether calls in these surroundings may use a connection with all privileges."""

    def context(self, call: Any, *, writes: bool) -> Mapping[str, str]:
        """Return what the connection has to know before a statement of a call: tenant, actor, run, node."""

    def sql(self, core: Any, ambient: Mapping[str, Any], statements: Any) -> None:
        """Refuse SQL of the user's own (parsed: `dataflow.sqltext.Statement`) by raising."""

    def escape(self, core: Any, name: str, reason: str) -> Any:
        """Return the program that records who passes a guard (`all_tenants`, `unlocked`) and why; None: not mine."""


@runtime_checkable
class Feature(Protocol):
    """What edits models and plans: tenancy, soft delete, audit, encryption … all come as this.

    A feature whose `extend_plan` depends on what surrounds a call (``Call.ambient``) also has a method
    ``plan_key(call) -> Hashable``: calls with different keys get different plans, and ``extend_plan`` finds the key
    in ``plan.options["@" + name]``. A feature with a method ``check_node(operation, params) -> list[Problem]`` is asked
    by `build()` about the constants of each node of the model; `operation` is the bound operation.

    Attributes:
        name: unique among the features of a model.
        stage: a `dataflow.plan.stages.Stage`; features run in stage order.
        before: names of features that must run after this one.
        after: names of features that must run before this one.
        capability: what it provides ("multi_tenant"), for the fail-closed check.
    """

    name: str
    stage: Any
    before: tuple[str, ...]
    after: tuple[str, ...]
    capability: str

    def extend_model(self, draft: Any) -> None:
        """Add fields, indexes, options to a `dataflow.model.ModelDraft`; called once, at registration."""

    def extend_plan(self, plan: Any) -> None:
        """Edit a `dataflow.plan.builder.PlanBuilder`; called once per shape of call."""
