"""The entry point: what this package offers. Its parts are imported when a setting or a model asks for them."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from dataflow.plugins import CommandSpec, HealthCheck, NodeSpec, SettingSpec, hookimpl

if TYPE_CHECKING:
    from dataflow.config import Config
    from dataflow.engine import DataFlow
    from dataflow.model import ModelDraft, ModelSpec
    from dataflow.plugins.specs import Feature, Guard

dataflow_api = "1.0"


@hookimpl
def dataflow_settings() -> Iterable[SettingSpec]:
    """Declare the settings of tenancy, audit and write protection."""
    return [
        SettingSpec("multi_tenant", bool, False, "Make every model multi-tenant."),
        SettingSpec(
            "tenant_isolation", str, "shared", "How tenants are kept apart.",
            choices=("shared", "strict", "schema", "database"),
        ),
        SettingSpec(
            "tenant_id_header", str, "X-Tenant-ID",
            "HTTP header that names the tenant, for channels of a later release; nothing reads it yet.",
        ),
        SettingSpec(
            "tenant_database_prefix", str, "tenant_", "What a tenant's database, schema or file name begins with."
        ),
        SettingSpec("audit_logging", bool, False, "Audit every model."),
        SettingSpec("audit_key", str, None, "Secret that signs checkpoints of the audit log."),
        SettingSpec(
            "audit_mask", object, (), "Fields of which the audit log tells that they changed, never their values.",
            scope="model",
        ),
        SettingSpec("protection", object, None, "Write protection: a Protection, or the path of a TOML file."),
    ]  # fmt: skip


@hookimpl
def dataflow_configure(config: "Config") -> None:
    """Check settings that depend on each other."""
    if config["protection"] is not None:
        _policy(config)
    if config["tenant_isolation"] in ("schema", "database"):
        from dataflow.enterprise.tenancy.places import check

        check(config)


def is_multi_tenant(options: Mapping[str, Any], config: "Config") -> bool:
    """Tell whether a model is multi-tenant: by its own option, or by the setting where it has none."""
    return bool(options.get("multi_tenant", config["multi_tenant"]))


@hookimpl
def dataflow_tenancy(model: "ModelDraft", config: "Config") -> "Feature | None":
    """Confine multi-tenant models."""
    multi_tenant, isolation = is_multi_tenant(model.options, config), config["tenant_isolation"]
    if isolation in ("schema", "database"):
        from dataflow.enterprise.tenancy.places import PlacedTenancy, refuse_unplaced

        if not multi_tenant:
            raise refuse_unplaced(config, model.name)
        return PlacedTenancy()
    if not multi_tenant and isolation != "strict":
        return None
    from dataflow.enterprise.tenancy.rows import Open, RowTenancy

    return RowTenancy(strict=isolation == "strict") if multi_tenant else Open()


@hookimpl
def dataflow_soft_delete(model: "ModelDraft", config: "Config") -> "Feature | None":
    """Let deletes mark."""
    del config
    if not model.options.get("soft_delete"):
        return None
    from dataflow.enterprise.soft_delete.feature import SoftDelete

    return SoftDelete()


@hookimpl
def dataflow_versioning(model: "ModelDraft", config: "Config") -> "Feature | None":
    """Count changes."""
    del config
    if not model.options.get("versioned"):
        return None
    from dataflow.enterprise.versioning import Versioning

    return Versioning()


def _is_audited(options: Mapping[str, Any], config: "Config") -> bool:
    return bool(options.get("audit_log", config["audit_logging"]))


@hookimpl
def dataflow_audit(model: "ModelDraft", config: "Config") -> "Iterable[Feature] | None":
    """Record changes."""
    if not _is_audited(model.options, config) and not model.options.get("audit_mask"):
        return None
    from dataflow.enterprise import audit

    return audit.features(model, config)


@hookimpl
def dataflow_features(model: "ModelDraft", config: "Config") -> "Iterable[Feature] | None":
    """Protect every model, where there is a policy."""
    del model
    if config["protection"] is None:
        return None
    from dataflow.enterprise.protection import ProtectionFeature

    return [ProtectionFeature(_policy(config))]


@hookimpl
def dataflow_guards(config: "Config") -> "Iterable[Guard]":
    """Watch over SQL of the user's own as well, and over what connections know."""
    from dataflow.enterprise.guards import guards

    return guards(config)


@hookimpl
def dataflow_nodes(model: "ModelSpec", config: "Config") -> Iterable[NodeSpec]:
    """Give models the nodes of their features."""
    found: list[NodeSpec] = []
    if model.options.get("soft_delete"):
        from dataflow.enterprise.soft_delete.operations import nodes

        found += nodes(model)
    if _is_audited(model.options, config):
        from dataflow.enterprise import audit

        found += audit.nodes(model, config)
    if config["protection"] is not None:
        from dataflow.enterprise.protection import check_model

        check_model(_policy(config), model)
    return found


@hookimpl
def dataflow_health(db: "DataFlow") -> Iterable[HealthCheck]:
    """Say what the database enforces, and where it does not."""
    from dataflow.enterprise.health import checks

    return [HealthCheck(name, partial(check, db)) for name, check in checks(db).items()]


def _policy(config: "Config") -> Any:
    from dataflow.enterprise.protection import protection_of

    return protection_of(config)


@hookimpl
def dataflow_commands() -> Iterable[CommandSpec]:
    """Offer the commands for the audit log and the write protection."""
    commands = {
        "audit": "Verify, seal, read and shorten the audit log.",
        "protection": "Give a role of the database what the write protection permits.",
    }
    return [CommandSpec(name, text, f"dataflow.enterprise.cli:{name}") for name, text in commands.items()]
