"""Tenants that share tables: a column says whose a record is, and every statement is confined to the call's tenant.

Keys begin with the tenant, so that no key, reference or upsert reaches, or tells of, another tenant's records.
"""

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import attrs

from dataflow.errors import TenancyError
from dataflow.fields import FieldSpec
from dataflow.model import ModelDraft, SchemaExtra
from dataflow.plan.stages import Stage
from dataflow.session import Call
from dataflow.types import IntType, StrType

if TYPE_CHECKING:
    from dataflow.plan.builder import PlanBuilder

TENANT = "tenant_id"
_KEPT = "tenancy"


def tenant_of(call: Call) -> str:
    """Return the tenant a call acts for.

    Raises:
        TenancyError: none is known, or ``tenant_id`` contradicts what surrounds the call.
    """
    around: str | None = call.around("tenant")
    given = call.options.get(TENANT)
    if given is None:
        if around is None:
            raise no_tenant(call)
        return around
    if not isinstance(given, str) or not given.strip() or "\0" in given:
        msg = f"{TENANT} is a text that is not empty"
        raise TenancyError(msg, hint=f"write {TENANT}='acme'", code="bad-tenant")
    if around is not None and given != around:
        msg = f"{TENANT} names another tenant than the one that surrounds the call"
        raise TenancyError(msg, hint=f"leave {TENANT} out, or leave the `with db.tenant(…)` block", code="other-tenant")
    return given


def no_tenant(call: Call) -> TenancyError:
    """Build the error of a call without a tenant."""
    hint = f"call inside `with db.tenant('acme'):`, or give {TENANT}='acme'"
    if call.around("all_tenants") is not None:
        return TenancyError("a new record belongs to one tenant, also among all tenants", hint=f"give {TENANT}='acme'")
    return TenancyError("the call names no tenant", hint=hint)


class RowTenancy:
    """Adds ``tenant_id`` to a model, and confines each of its plans to one tenant.

    Args:
        strict: whether the database enforces it as well.
    """

    name = "tenancy"
    stage = Stage.SCOPE
    before: tuple[str, ...] = ("soft_delete",)
    after: tuple[str, ...] = ()
    capability = "multi_tenant"

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict

    def extend_model(self, draft: ModelDraft) -> None:
        """Add the column, first in every key; ids that the database generates are then its alone to give."""
        draft.add_field(FieldSpec(TENANT, StrType(), origin=self.name, kept=_KEPT))
        draft.scope = (*draft.scope, TENANT)
        draft.add_option(TENANT)
        for name in draft.primary_key:
            field = draft.fields[name]
            if field.generated and isinstance(field.type, IntType):
                draft.fields[name] = attrs.evolve(field, kept="the database")
        if self.strict:
            draft.ddl_extras.append(confinement())

    def plan_key(self, call: Call) -> Hashable:
        """Tell whether a call sees the records of all tenants."""
        return call.around("all_tenants") is not None and call.options.get(TENANT) is None

    def extend_plan(self, plan: "PlanBuilder") -> None:
        """Stamp new records with the tenant, and show no others."""
        column = plan.table.c[TENANT]
        if plan.statement == "insert":
            plan.set(TENANT, tenant_of)
        elif not plan.options.get(f"@{self.name}"):
            plan.where(column == plan.bind(tenant_of, label=TENANT, like=column))
        elif plan.operation in ("upsert", "bulk_upsert"):
            plan.authorize(_refuse_new)  # it may create, whatever is there
        elif plan.by_key and plan.model.spec.row_key != plan.model.spec.primary_key:
            plan.authorize(_refuse_key)


def _refuse_new(call: Call, fields: tuple[str, ...]) -> None:
    del fields
    raise no_tenant(call)


def _refuse_key(call: Call, fields: tuple[str, ...]) -> None:
    del call, fields
    msg = "a key means one record of each tenant, and the call is among all tenants"
    raise TenancyError(msg, hint=f"give {TENANT}='acme' with the key")


def confinement() -> SchemaExtra:
    """Return what a table needs so that the database confines SQL to a tenant, or, of a model without, lets it pass."""
    return SchemaExtra(
        "tenant_isolation='strict'",
        present=lambda dialect, spec: dialect.enclosed(spec),
        create=lambda dialect, spec: dialect.enclose(spec),
    )


class Open:
    """Lets the restricted connections of a strict instance use a model that belongs to no tenant."""

    name = "tenancy"
    stage = Stage.SCOPE
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    capability = "strict"

    def extend_model(self, draft: ModelDraft) -> None:
        """Ask for the grants."""
        draft.ddl_extras.append(confinement())

    def extend_plan(self, plan: Any) -> None:
        """Do nothing: such records are everybody's."""
