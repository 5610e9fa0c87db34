"""The guards that the settings of a DataFlow ask for."""

from typing import TYPE_CHECKING

from dataflow.plugins.specs import Guard

if TYPE_CHECKING:
    from dataflow.config import Config


def guards(config: "Config") -> list[Guard]:
    """Return the guards: tenancy, protection, and the audit log, which sleeps until a model is audited."""
    found: list[Guard] = []
    if config["tenant_isolation"] == "strict":
        from dataflow.enterprise.tenancy.guard import StrictTenancy

        found.append(StrictTenancy())
    elif config["tenant_isolation"] in ("schema", "database"):
        from dataflow.enterprise.tenancy.places import Places

        schemas = config["tenant_isolation"] == "schema"
        found.append(Places(schemas=schemas, prefix=config["tenant_database_prefix"]))
    if config["protection"] is not None:
        from dataflow.enterprise.protection import ProtectionGuard, protection_of

        policy = protection_of(config)
        assert policy is not None
        found.append(ProtectionGuard(policy))
    from dataflow.enterprise.audit.guard import AuditGuard

    return [*found, AuditGuard()]
