"""Health checks: what the database enforces of the features, and where only the framework does."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from dataflow.session import Call

if TYPE_CHECKING:
    from dataflow.engine import DataFlow

Check = Callable[["DataFlow"], Awaitable[dict[str, Any]]]


def checks(db: "DataFlow") -> dict[str, Check]:
    """Return the checks that make sense for a DataFlow: name -> check."""
    found: dict[str, Check] = {}
    if db.config["tenant_isolation"] == "strict":
        found["tenancy"] = tenancy
    if db.config["protection"] is not None:
        found["protection"] = protection
    return found


async def tenancy(db: "DataFlow") -> dict[str, Any]:
    """List what the database lacks to keep tenants apart by itself."""
    core = db.core
    specs = [model.spec for model in core.models.values()]
    call = Call(core, ambient={"dataflow.schema": True})
    program = core.dialect.enforcement_problems(specs)
    problems = await core.run(program, call, write=False, holder="doctor")
    return {"ok": not problems, "problems": problems}


async def protection(db: "DataFlow") -> dict[str, Any]:
    """Say which rules the database enforces as well."""
    from dataflow.enterprise.protection import protection_check, protection_of

    policy = protection_of(db.config)
    assert policy is not None
    return await protection_check(db, policy)
