"""What the features of dataflow-enterprise cost: the same operation on a model without them, in the same run."""

import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from typing import Any

from benchmarks import databases
from benchmarks.harness import Contest, Target, case
from dataflow import DataFlow

ROWS, MANY = 10_000, 5_000
FEATURES: dict[str, dict[str, Any]] = {
    "without": {},
    "tenancy": {"multi_tenant": True},
    "soft delete": {"soft_delete": True},
    "versioning": {"versioned": True},
    "audit": {"audit_log": True},
    "all four": {"multi_tenant": True, "soft_delete": True, "versioned": True, "audit_log": True},
}
_POLICY = {"model": {"Nothing": {"deny": ["delete"]}}}


def _declare(db: DataFlow, options: dict[str, Any]) -> None:
    class Thing:
        name: str
        size: int = 0
        note: str = ""
        __dataflow__ = options

    db.model(Thing)


class Side:
    """One DataFlow with one table of things."""

    def __init__(self, db: DataFlow) -> None:
        self.db = db
        self.x = db.express

    async def read(self) -> Any:
        """Read one."""
        return await self.x.read("Thing", 77)

    async def update(self) -> Any:
        """Change one."""
        return await self.x.update("Thing", 77, {"size": 1})

    async def create(self) -> Any:
        """Create one."""
        return await self.x.create("Thing", {"name": "new"})

    async def list(self) -> Any:
        """List a hundred."""
        return await self.x.list("Thing", {"id": {"$gte": 500}}, limit=100)

    async def bulk_create(self) -> Any:
        """Create many."""
        return await self.x.bulk_create("Thing", [{"name": f"n{i}", "size": i} for i in range(MANY)])

    async def bulk_update(self) -> Any:
        """Change many."""
        return await self.x.bulk_update("Thing", filter={"id": {"$lte": MANY}}, update={"size": {"$inc": 1}})


async def _sides(stack: AsyncExitStack, url: Callable[[], str]) -> dict[str, Side]:
    wanted = {name: (options, {}) for name, options in FEATURES.items()}
    wanted["protection"] = ({}, {"protection": _POLICY})
    wanted["strict tenancy"] = ({"multi_tenant": True}, {"tenant_isolation": "strict"})
    found = {}
    for name, (options, settings) in wanted.items():
        db = await stack.enter_async_context(DataFlow(url(), **settings))
        _declare(db, options)
        await db.initialize()
        stack.enter_context(db.tenant("acme"))  # each DataFlow has its own
        found[name] = Side(db)
        for start in range(0, ROWS, MANY):
            rows = [{"name": f"row {i}", "size": i % 100} for i in range(start, start + MANY)]
            await db.express.bulk_create("Thing", rows)
    return found


async def _contests(url: Callable[[], str], what: str) -> AsyncGenerator[Contest, None]:
    async with AsyncExitStack() as stack:
        sides = await _sides(stack, url)
        for operation, calls in (
            ("read", 500), ("update", 300), ("create", 300), ("list", 100), ("bulk_create", 1), ("bulk_update", 1),
        ):  # fmt: skip
            for name, side in sides.items():
                if name == "without":
                    continue
                yield Contest(
                    {"without": getattr(sides["without"], operation), "dataflow": getattr(side, operation)},
                    Target(), same=None, calls=calls, rounds=7, name=f"{what}: {operation}, {name}",
                    per=MANY if calls == 1 else 1, note=f"the same without; {MANY} rows in bulk",
                )  # fmt: skip


@case("features/sqlite")
async def sqlite_features() -> AsyncGenerator[Contest, None]:
    """Features on SQLite files."""
    with tempfile.TemporaryDirectory() as folder:
        numbers = iter(range(100))
        async for contest in _contests(lambda: f"sqlite:///{folder}/{next(numbers)}.db", "SQLite"):
            yield contest


@case("features/postgresql")
async def postgres_features() -> AsyncGenerator[Contest, None]:
    """Features on PostgreSQL databases."""
    async for contest in _contests(databases.new_database, "PostgreSQL"):
        yield contest
