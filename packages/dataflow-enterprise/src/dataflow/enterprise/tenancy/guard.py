"""Strict tenancy: connections without privileges, which the database itself keeps within the call's tenant."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dataflow.enterprise.tenancy.rows import TENANT, tenant_of
from dataflow.errors import TenancyError

if TYPE_CHECKING:
    from dataflow.core import Core
    from dataflow.session import Call
    from dataflow.sqltext import Statement


class StrictTenancy:
    """Tells connections the tenant of each call; SQL of the user's own cannot change it."""

    name = "tenancy"
    confines = True
    exclusive = True

    def privileged(self, core: "Core", ambient: Mapping[Any, Any]) -> bool:
        """Tell whether a call is one among all tenants."""
        return core.around(ambient, "all_tenants") is not None

    def context(self, call: "Call", *, writes: bool) -> Mapping[str, str]:
        """Return the tenant; none is one that owns nothing."""
        del writes
        known = call.around("tenant") is not None or call.options.get(TENANT) is not None
        return {"tenant": tenant_of(call) if known else ""}

    def sql(self, core: "Core", ambient: Mapping[Any, Any], statements: "Sequence[Statement]") -> None:
        """Refuse definitions: they could take the walls down."""
        if self.privileged(core, ambient):
            return
        for statement in statements:
            if statement.defines:
                msg = f"{statement.verb or 'this'} statements are refused where tenants are kept apart strictly"
                hint = 'an administrator may send it: with db.all_tenants(reason="…"):'
                raise TenancyError(msg, hint=hint, code="confined")

    def escape(self, core: "Core", name: str, reason: str) -> None:
        """Record nothing: the audit log does."""
        del core, name, reason
