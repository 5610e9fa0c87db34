"""The map of the framework: every hook a plugin may implement.

All hooks are synchronous and take any subset of the arguments shown. They are called when plugins load, when a
DataFlow is built, when a model is registered and when a shape of call is first compiled; never while an operation
runs. Two plugins that return descriptors with the same name are a `PluginConflictError` naming both distributions.
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

    Called once per plugin set, before any setting is read. Two settings with one name and scope conflict.

    Example:
        ``return [SettingSpec("slug_separator", str, "-", "Text between words of a slug.")]``
    """


@hookspec
def dataflow_configure(config: "Config") -> None:
    """Check the finished settings of one DataFlow; raise `ConfigurationError` to refuse them.

    Called once per DataFlow, after all settings are known and before a model can be registered.

    Example:
        ``if config["slug_separator"] == "": raise ConfigurationError("slug_separator is empty")``
    """


@hookspec
def dataflow_dialects() -> "Iterable[specs.DialectSpec]":  # type: ignore[empty-body]
    """Provide database dialects.

    Called when the first URL is resolved. Two dialects with one name or one scheme conflict.

    Example:
        ``return [DialectSpec("duckdb", ("duckdb",), "my_package.dialect:DuckDB")]``
    """


@hookspec
def dataflow_field_types() -> "Iterable[specs.FieldTypeSpec]":  # type: ignore[empty-body]
    """Provide field types for annotation classes.

    Called once per plugin set. Two types for one annotation conflict.

    Example:
        ``return [FieldTypeSpec("IPAddress", "ipaddress:IPv4Address", "my_package.types:IPv4Type")]``
    """


@hookspec(firstresult=True)
def dataflow_resolve_annotation(annotation: Any, model_name: str) -> "FieldType | None":
    """Return the field type for an annotation that is not a plain class, or None to pass.

    Called at registration for annotations that neither core nor `dataflow_field_types` knows. The first plugin
    (by name) that answers wins: the only hook with that rule.

    Example:
        ``return VectorType(*get_args(annotation)) if get_origin(annotation) is Vector else None``
    """


@hookspec
def dataflow_tenancy(model: "ModelDraft", config: "Config") -> "specs.Feature | None":
    """Return the feature that confines a model to tenants, or None if this model does not ask for it.

    Called at registration. At most one plugin may answer; none while ``multi_tenant`` is demanded is
    `MissingCapability`.

    Example:
        ``return RowTenancy() if model.options.get("multi_tenant") else None``
    """


@hookspec
def dataflow_soft_delete(model: "ModelDraft", config: "Config") -> "specs.Feature | None":
    """Return the feature that hides deleted rows instead of removing them, or None. Rules as for tenancy.

    Called at registration; demanded by ``soft_delete``. At most one plugin may answer.

    Example:
        ``return SoftDelete() if model.options.get("soft_delete") else None``
    """


@hookspec
def dataflow_versioning(model: "ModelDraft", config: "Config") -> "specs.Feature | None":
    """Return the feature for optimistic locking, or None. Rules as for tenancy.

    Called at registration; demanded by ``versioned``. At most one plugin may answer.

    Example:
        ``return Versioned() if model.options.get("versioned") else None``
    """


@hookspec
def dataflow_audit(model: "ModelDraft", config: "Config") -> "Iterable[specs.Feature] | None":
    """Return features that record changes, or None.

    Called at registration. Several plugins may answer; none while ``audit_log`` is demanded is `MissingCapability`.

    Example:
        ``return [AuditLog()] if model.options.get("audit_log") else None``
    """


@hookspec
def dataflow_features(model: "ModelDraft", config: "Config") -> "Iterable[specs.Feature] | None":
    """Return any other features for a model: encryption, cache, slugs and the like.

    Called at registration, after the named feature hooks. Two features with one name on a model conflict.

    Example:
        ``return [Slug(model.options["slug"])] if "slug" in model.options else None``
    """


@hookspec
def dataflow_nodes(model: "ModelSpec", config: "Config") -> "Iterable[specs.NodeSpec] | None":
    """Return the node types of a model; core's own plugin returns the create, read, update … nodes.

    Called once the model is frozen. Two node types with one name conflict.

    Example:
        ``return [NodeSpec(f"{model.name}BySlugNode", "by_slug", "my_package.nodes:BySlug", model.name)]``
    """


@hookspec
def dataflow_workflow_nodes() -> "Iterable[specs.NodeSpec]":  # type: ignore[empty-body]
    """Return node types that belong to no model.

    Called at the first `build()`. Two with one name conflict.

    Example:
        ``return [NodeSpec("MailNode", "mail", "my_package.nodes:MailNode")]``
    """


@hookspec
def dataflow_runtimes() -> "Iterable[specs.RuntimeSpec]":  # type: ignore[empty-body]
    """Provide runtimes by name.

    Called when a runtime is named. Two with one name conflict.

    Example:
        ``return [RuntimeSpec("durable", "my_package.runtime:DurableRuntime")]``
    """


@hookspec
def dataflow_migration_engines() -> "Iterable[specs.MigrationEngineSpec]":  # type: ignore[empty-body]
    """Provide migration engines by role.

    Called at the first migration call. Two for one role conflict.

    Example:
        ``return [MigrationEngineSpec("schema", "my_package.schema:Engine")]``
    """


@hookspec
def dataflow_schema_rules(dialect: str) -> "Iterable[specs.SchemaRuleSpec]":  # type: ignore[empty-body]
    """Return extra diff, risk and lint rules for a dialect.

    Called at the start of a schema plan. Two rules with one name conflict.

    Example:
        ``return [SchemaRuleSpec("no-dropped-audit", "lint", "my_package.rules:no_dropped_audit")]``
    """


@hookspec
def dataflow_backends() -> "Iterable[specs.BackendSpec]":  # type: ignore[empty-body]
    """Provide backends of a kind (cache, keys, audit, events, blobs) for URL schemes.

    Called when such a URL is resolved. Two for one kind and scheme conflict.

    Example:
        ``return [BackendSpec("cache", "redis", "my_package.redis:RedisCache")]``
    """


@hookspec
def dataflow_lifespan(db: "DataFlow") -> "AbstractAsyncContextManager[None] | None":
    """Return an async context manager that is entered when a DataFlow starts and left when it closes, or None.

    Called by ``await db.initialize()``; left by ``await db.aclose()`` in reverse order.

    Example:
        ``return worker_pool(db)`` where ``worker_pool`` is an ``@asynccontextmanager``
    """


@hookspec
def dataflow_health(db: "DataFlow") -> "Iterable[specs.HealthCheck] | None":
    """Return health checks for ``db.health()`` and ``dataflow doctor``.

    Called at each of these. Two with one name conflict.

    Example:
        ``return [HealthCheck("queue", check_queue)]``
    """


@hookspec
def dataflow_commands() -> "Iterable[specs.CommandSpec]":  # type: ignore[empty-body]
    """Return commands of the ``dataflow`` program.

    Called when the program starts; the command's own module is imported when it runs. Two with one name conflict.

    Example:
        ``return [CommandSpec("slugs", "List slugs.", "my_package.cli:slugs")]``
    """
