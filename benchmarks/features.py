"""What a feature costs that is compiled into a plan: a WHERE, a SET and a guard, as tenancy and versioning have them."""

import contextvars
from collections.abc import AsyncGenerator
from typing import Any

from benchmarks.harness import Contest, Target, case
from dataflow import DataFlow
from dataflow.plan.builder import PlanBuilder
from dataflow.plan.stages import Stage
from dataflow.plugins import hookimpl

TENANT = contextvars.ContextVar("tenant", default="acme")


def _conflict(call: Any, rows: int) -> None:
    raise AssertionError(call, rows)


class _Confined:
    """Confines every statement to one tenant, writes it into new rows, and looks at what was changed."""

    name = "confined"
    stage = Stage.SCOPE
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    capability = "confined"

    def extend_model(self, draft: Any) -> None:
        """Leave the model as it is: the column is there already, so that both sides have the same table."""

    def extend_plan(self, plan: PlanBuilder) -> None:
        """Add the predicate and the value."""
        if plan.statement == "insert":
            plan.set("tenant", lambda _call: TENANT.get())
            return
        plan.where(plan.table.c.tenant == plan.bind(lambda _call: TENANT.get(), like=plan.table.c.tenant))
        if plan.statement == "update":
            plan.set("tenant", lambda _call: TENANT.get())
        if plan.statement in ("update", "delete"):
            plan.guard(_conflict, unmatched=True)


class _Plugin:
    dataflow_api = "1.0"

    @hookimpl
    def dataflow_features(self, model: Any, config: Any) -> list[Any]:
        """Confine models of that name."""
        del config
        return [_Confined()] if model.name == "Confined" else []


@case("features/compiled")
async def compiled() -> AsyncGenerator[Contest, None]:
    """The same operation on a model with the feature and on one without; in memory, without a thread hop."""
    db = DataFlow(":memory:", plugins=[_Plugin()])

    @db.model
    class Plain:
        tenant: str = "acme"
        name: str
        size: int = 0

    @db.model
    class Confined:
        tenant: str = "acme"
        name: str
        size: int = 0

    express = db.express_sync
    for model in ("Plain", "Confined"):
        express.bulk_create(model, [{"name": f"row {i}", "size": i % 100} for i in range(10_000)])

    def contest(name: str, one: Any, *, calls: int = 2000) -> Contest:
        return Contest(
            {"without": lambda: one("Plain"), "dataflow": lambda: one("Confined")}, Target(most=1.1), same=None,
            calls=calls, rounds=11, name=f"feature: {name}", note="the same plan without the feature",
        )  # fmt: skip

    yield contest("read", lambda model: express.read(model, 77))
    yield contest("update", lambda model: express.update(model, 77, {"size": 1}))
    yield contest("create", lambda model: express.create(model, {"name": "new"}))
    yield contest("list of 100", lambda model: express.list(model, {"id": {"$gte": 500}}, limit=100), calls=300)
    await db.aclose()
