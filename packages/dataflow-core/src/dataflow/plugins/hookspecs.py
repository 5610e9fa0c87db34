"""The map of the framework: every hook a plugin may implement.

All hooks are synchronous and take any subset of the arguments shown. They are called when plugins load, when a
DataFlow is built, when a model is registered and when a shape of call is first compiled; never while an operation
runs. Each plugin answers for itself, in the order of the plugins' names; None is no answer. What two plugins provide
alike is a `PluginConflictError` naming both distributions.
"""

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import pluggy

from dataflow.plugins import specs

if TYPE_CHECKING:
    from dataflow.config import Config
    from dataflow.engine import DataFlow
    from dataflow.model import ModelDraft, ModelSpec
    from dataflow.types import FieldType

hookspec = pluggy.HookspecMarker("dataflow")


@hookspec
def dataflow_settings() -> "Iterable[specs.SettingSpec]":  # type: ignore[empty-body]
    """Declare settings of ``DataFlow(…)`` and options of ``__dataflow__``.

    Called once per plugin set, before any setting is read.

    Returns the settings, read from keywords and ``DATAFLOW_*`` variables, or for ``scope="model"`` from the model.

    Two with one name and scope conflict.

    Example:
        ``return [SettingSpec("slug_separator", str, "-", "Text between words of a slug.")]``
    """


@hookspec
def dataflow_configure(config: "Config") -> None:
    """Check the finished settings of one DataFlow; raise `ConfigurationError` to refuse them.

    Called once per DataFlow, after all settings are known and before a model can be registered.

    Returns nothing; the settings are frozen.

    Every plugin is asked; nothing can conflict.

    Example:
        ``if config["slug_separator"] == "": raise ConfigurationError("slug_separator is empty")``
    """


@hookspec
def dataflow_dialects() -> "Iterable[specs.DialectSpec]":  # type: ignore[empty-body]
    """Provide database dialects.

    Called when the first URL is resolved.

    Returns the dialects; the dialect's own module is imported when a URL asks for it.

    Two with one name conflict, and two with one URL scheme.

    Example:
        ``return [DialectSpec("duckdb", ("duckdb",), "my_package.dialect:DuckDB")]``
    """


@hookspec
def dataflow_field_types() -> "Iterable[specs.FieldTypeSpec]":  # type: ignore[empty-body]
    """Provide field types for annotation classes.

    Called once per plugin set, when the first model is registered.

    Returns the types, each for exactly one class.

    Two for one class conflict. They win over core's own types.

    Example:
        ``return [FieldTypeSpec("IPAddress", "ipaddress:IPv4Address", "my_package.types:IPv4Type")]``
    """


@hookspec(firstresult=True)
def dataflow_resolve_annotation(annotation: Any, model_name: str) -> "FieldType | None":
    """Find the field type for an annotation that is not a plain class.

    Called at registration, for each annotation that `dataflow_field_types` does not know, before core's own types.

    Returns the type, or None to pass.

    The first plugin (by name) that answers wins, and the others are not asked: the only hook with that rule.

    Example:
        ``return VectorType(*get_args(annotation)) if get_origin(annotation) is Vector else None``
    """


@hookspec
def dataflow_tenancy(model: "ModelDraft", config: "Config") -> "specs.Feature | None":
    """Confine a model to tenants.

    Called at registration; demanded by the model option ``multi_tenant``.

    Returns the feature, or None for a model that does not ask for it.

    Two answers conflict; none while it is demanded is `MissingCapability`.

    Example:
        ``return RowTenancy() if model.options.get("multi_tenant") else None``
    """


@hookspec
def dataflow_soft_delete(model: "ModelDraft", config: "Config") -> "specs.Feature | None":
    """Hide deleted rows of a model instead of removing them.

    Called at registration; demanded by the model option ``soft_delete``.

    Returns the feature, or None for a model that does not ask for it.

    Two answers conflict; none while it is demanded is `MissingCapability`.

    Example:
        ``return SoftDelete() if model.options.get("soft_delete") else None``
    """


@hookspec
def dataflow_versioning(model: "ModelDraft", config: "Config") -> "specs.Feature | None":
    """Lock the records of a model optimistically.

    Called at registration; demanded by the model option ``versioned``.

    Returns the feature, or None for a model that does not ask for it.

    Two answers conflict; none while it is demanded is `MissingCapability`.

    Example:
        ``return Versioned() if model.options.get("versioned") else None``
    """


@hookspec
def dataflow_audit(model: "ModelDraft", config: "Config") -> "Iterable[specs.Feature] | None":
    """Record the changes of a model.

    Called at registration; demanded by the model option ``audit_log``.

    Returns features, or None for a model that does not ask for it.

    Several plugins may answer; two features with one name conflict; none while demanded is `MissingCapability`.

    Example:
        ``return [AuditLog()] if model.options.get("audit_log") else None``
    """


@hookspec
def dataflow_features(model: "ModelDraft", config: "Config") -> "Iterable[specs.Feature] | None":
    """Add any other features to a model: encryption, cache, slugs and the like.

    Called at registration, after the named feature hooks.

    Returns features, or None. They act in the order of their stages, then of `before` and `after`, then of names.

    Two features with one name on a model conflict, whichever hook they come from.

    Example:
        ``return [Slug(model.options["slug"])] if "slug" in model.options else None``
    """


@hookspec
def dataflow_guards(config: "Config") -> "Iterable[specs.Guard] | None":
    """Watch over every call of one DataFlow: what connections know of it, which SQL is refused, who may pass.

    Called once per DataFlow, when it is built.

    Returns guards, or None where the settings ask for none: each costs something per statement.

    Two guards with one name conflict.

    Example:
        ``return [StrictTenancy()] if config["tenant_isolation"] == "strict" else None``
    """


@hookspec
def dataflow_nodes(model: "ModelSpec", config: "Config") -> "Iterable[specs.NodeSpec] | None":
    """Give a model node types; core's own plugin gives it the create, read, update … nodes.

    Called at registration, once the model is frozen.

    Returns the node types, or None. Express calls reach them by their `operation`.

    Two node types with one name conflict, and two with one operation.

    Example:
        ``return [NodeSpec(f"{model.name}BySlugNode", "by_slug", "my_package.nodes:BySlug", model.name)]``
    """


@hookspec
def dataflow_workflow_nodes() -> "Iterable[specs.NodeSpec]":  # type: ignore[empty-body]
    """Provide node types that belong to no model.

    Called at the first `build()` or registration.

    Returns the node types, whose implementations are `BaseDataFlowNode` classes.

    Two with one name conflict.

    Example:
        ``return [NodeSpec("MailNode", "mail", "my_package.nodes:MailNode")]``
    """


@hookspec
def dataflow_runtimes() -> "Iterable[specs.RuntimeSpec]":  # type: ignore[empty-body]
    """Provide runtimes by name.

    Called when `dataflow.runtime.get` is given a name.

    Returns the runtimes.

    Two with one name conflict.

    Example:
        ``return [RuntimeSpec("durable", "my_package.runtime:DurableRuntime")]``
    """


@hookspec
def dataflow_migration_engines() -> "Iterable[specs.MigrationEngineSpec]":  # type: ignore[empty-body]
    """Provide migration engines by role.

    Called at the first migration call.

    Returns the engines; each is called with the core of the DataFlow, once.

    Two for one role conflict.

    Example:
        ``return [MigrationEngineSpec("schema", "my_package.schema:Engine")]``
    """


@hookspec
def dataflow_schema_rules(dialect: str) -> "Iterable[specs.SchemaRuleSpec]":  # type: ignore[empty-body]
    """Add diff, risk and lint rules to schema plans on a dialect.

    Called at the start of each schema plan.

    Returns the rules.

    Two with one name conflict.

    Example:
        ``return [SchemaRuleSpec("no-dropped-audit", "lint", "my_package.rules:no_dropped_audit")]``
    """


@hookspec
def dataflow_backends() -> "Iterable[specs.BackendSpec]":  # type: ignore[empty-body]
    """Provide backends of a kind (cache, keys, audit, events, blobs) for URL schemes.

    Called when such a URL is resolved.

    Returns the backends.

    Two for one kind and scheme conflict.

    Example:
        ``return [BackendSpec("cache", "redis", "my_package.redis:RedisCache")]``
    """


@hookspec
def dataflow_lifespan(db: "DataFlow") -> "AbstractAsyncContextManager[None] | None":
    """Run something for as long as a DataFlow runs.

    Called by ``await db.initialize()`` (or ``async with``), once; what it returns is left when the DataFlow closes.

    Returns an async context manager, or None.

    All are entered in the order of the plugins' names and left in reverse; if one fails to start, those before it are
    left. Nothing can conflict.

    Example:
        ``return worker_pool(db)`` where ``worker_pool`` is an ``@asynccontextmanager``
    """


@hookspec
def dataflow_health(db: "DataFlow") -> "Iterable[specs.HealthCheck] | None":
    """Add health checks to ``db.health()`` and ``dataflow doctor``.

    Called at each of these.

    Returns the checks, or None.

    Two with one name conflict.

    Example:
        ``return [HealthCheck("queue", check_queue)]``
    """


@hookspec
def dataflow_commands() -> "Iterable[specs.CommandSpec]":  # type: ignore[empty-body]
    """Add commands to the ``dataflow`` program.

    Called when the program starts; the command's own module is imported when it runs.

    Returns the commands.

    Two with one name conflict.

    Example:
        ``return [CommandSpec("slugs", "List slugs.", "my_package.cli:slugs")]``
    """
