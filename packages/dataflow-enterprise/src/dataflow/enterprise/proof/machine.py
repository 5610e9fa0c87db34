"""Runs random programs on a database and on the oracle, compares what they give, and shrinks what differs.

A program is a list of steps, each a seed: what a step does depends on its seed and on what is there when its turn
comes, so that steps can be left out and the others still mean something.
"""

import asyncio
import contextvars
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from random import Random
from typing import Any

import attrs

from dataflow import BaseDataFlowNode, DataFlow
from dataflow.enterprise.proof import effects
from dataflow.enterprise.proof.drawing import TENANTS, WRITES, draw
from dataflow.enterprise.proof.shop import MODELS, POLICY, TABLES, Shop, declare
from dataflow.enterprise.proof.world import Around, Op, Open, Pending, Refused, World
from dataflow.errors import DataFlowError, WorkflowBuildError, WorkflowExecutionError
from dataflow.runtime import LocalRuntime

SUFFIXES = {
    "bulk_create": "BulkCreate", "bulk_update": "BulkUpdate", "bulk_delete": "BulkDelete", "bulk_upsert": "BulkUpsert",
}  # fmt: skip
FILLING = tuple(f"fill {model}" for model in (*MODELS, "Customer", *MODELS))
"""How programs begin."""
ADMIN = Around(everyone=True, unlocked=True)
TOLD = ("found", "updated", "deleted", "restored", "purged", "created", "records", "count", "groups", "n")
"""What results say of how much there was."""
MODES = ("sync", "sync", "sync", "sync", "sync", "async", "node")


class Divergence(AssertionError):
    """The database does something else than the oracle."""

    def __init__(self, what: str, expected: Any, got: Any) -> None:
        super().__init__(f"{what}\n  expected: {expected!r}\n  got:      {got!r}")


class Boom(BaseDataFlowNode):
    """A node of the user's own that fails."""

    def execute(self, input_data: Mapping[str, Any]) -> Any:
        """Fail."""
        del input_data
        msg = "boom"
        raise RuntimeError(msg)


class Tally(BaseDataFlowNode):
    """A node of the user's own that asks the database by itself."""

    def execute(self, input_data: Mapping[str, Any]) -> Any:
        """Run the query."""
        return {"n": self.run_custom_query(input_data["query"], input_data["params"])[0]["n"]}


@attrs.frozen
class Step:
    """What is run at once: one operation, or several in a transaction scope that may end in a failure."""

    ops: tuple[Op, ...]
    mode: str = "sync"
    scope: bool = False
    boom: bool = False

    def __str__(self) -> str:
        """Write it as calls."""
        lines = [str(op) for op in self.ops]
        if self.scope:
            return "\n".join(["scope:", *(f"    {line}" for line in [*lines, *(["boom"] if self.boom else [])])])
        return f"{lines[0]} ({self.mode})"


def draw_step(rng: Random, world: World, kind: str = "") -> Step:
    """Draw a step: mostly one operation.

    Args:
        rng: the source.
        world: what is there.
        kind: "fill Model" for rows of a model; the name of an operation; or any.
    """
    if kind.startswith("fill "):
        return Step((draw(rng, world, "bulk_create", kind[5:]),))
    if not kind and rng.random() < 0.06:
        around = None
        ops: list[Op] = []
        trial = world.copy()
        for _ in range(rng.choice((2, 3, 4))):
            op = draw(rng, trial, rng.choice(sorted(WRITES - {"purge"})))
            around = around or op.around
            op.around = around
            try:
                effects.apply(trial, op)
            except Open:
                continue
            except Refused:
                ops.append(op)
                break
            ops.append(op)
        if ops:
            return Step(tuple(ops), "node", scope=True, boom=rng.random() < 0.3)
    return Step((draw(rng, world, kind),), rng.choice(MODES))


class Target:
    """One database with the models of a shop, beside the oracle's world.

    Args:
        url: where it is.
        shop: the models.
        isolation: setting `tenant_isolation`.
        prefix: of the tables' names, so that several shops fit into one database.
        settings: of the DataFlow.
    """

    def __init__(self, url: str, shop: Shop, *, isolation: str = "shared", prefix: str = "", **settings: Any) -> None:
        self.shop = shop
        self.prefix = prefix
        self.isolation = isolation
        protection = {"protection": POLICY} if shop.protected else {}
        self.db = DataFlow(url, tenant_isolation=isolation, **protection, **settings)
        self.blocking = self.db.core.database.blocking
        declare(self.db, shop, prefix)
        self.db.register_node(Boom)
        self.db.register_node(Tally)
        self.contexts: dict[Around, contextvars.Context] = {}
        self.loop = asyncio.new_event_loop()
        self.world = World(shop)
        self.read_so_far: dict[Around, int] = {}
        self.operations = 0
        self.seen: Counter[tuple[str, str]] = Counter()
        self.routes: Counter[tuple[str, str]] = Counter()

    def close(self) -> None:
        """Close the database."""
        if not self.blocking:
            self.loop.run_until_complete(self.db.aclose())
        self.loop.close()
        self.db.close()

    # -- running ------------------------------------------------------------------------------------------------------
    def inside(self, around: Around, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function inside the blocks that surround an operation."""
        context = self.contexts.get(around)
        if context is None:
            context = contextvars.copy_context()
            context.run(self._enter, around)
            self.contexts[around] = context
        return context.run(function, *args, **kwargs)

    def _enter(self, around: Around) -> None:
        if around.actor:
            self.db.actor(around.actor).__enter__()
        if around.tenant:
            self.db.tenant(around.tenant).__enter__()
        if around.everyone:
            self.db.all_tenants(reason="proof").__enter__()
        if around.unlocked and self.shop.protected:
            self.db.unlocked(reason="proof").__enter__()

    def call(self, around: Around, kind: str, model: str, **params: Any) -> Any:
        """Make a call of express."""
        return self.inside(around, self.db.express_sync.call, kind, model, **params)

    def admins(self) -> Sequence[Around]:
        """Return what surrounds calls that see everything, together."""
        if self.shop.placed:
            return [Around(tenant, unlocked=True) for tenant in TENANTS]
        shared = self.isolation == "shared" and not any(self.shop.has(model, "multi_tenant") for model in MODELS)
        return [Around(unlocked=True) if shared else ADMIN]

    def reset(self) -> None:
        """Empty all tables."""
        self.world = World(self.shop)
        for around in self.admins():
            for model in ("Line", "Order", "Badge", "Customer"):
                soft = {"soft_delete": False, "include_deleted": True} if self.shop.has(model, "soft_delete") else {}
                self.call(around, "bulk_delete", model, filter={}, confirmed=True, **soft)
        for entry in self.entries():
            self.read_so_far[entry["around"]] = max(entry["seq"], self.read_so_far.get(entry["around"], 0))

    def run(self, step: Step) -> None:
        """Run a step on the database and on the oracle.

        Raises:
            Divergence: they differ.
        """
        trial = self.world.copy()
        expected: list[Any] = []
        errors = None
        try:
            for op in step.ops:
                expected.append(effects.apply(trial, op))
        except Refused as refused:
            errors = refused.errors
        if step.boom and errors is None:
            errors = {("RuntimeError", "")}
        results, raised = self.perform(step)
        self.operations += len(step.ops)
        self._count(step, expected, errors)
        self._compare(step, expected, errors, results, raised)
        if errors is None:
            self.world = trial
        self.check()

    def _count(self, step: Step, expected: list[Any], errors: Any) -> None:
        """Count what happened, for the report."""
        for op in step.ops[: len(expected) + 1]:
            self.routes[op.kind, "scope" if step.scope else step.mode] += 1
        for op, wanted in zip(step.ops, expected, strict=False):
            told = [wanted[name] for name in TOLD if name in wanted]
            outcome = "" if any(told) or not told else "nothing"
            if op.kind == "upsert":
                outcome = "created" if wanted["created"] else "changed"
            self.seen[op.kind, outcome] += 1
        if errors:
            self.seen[step.ops[len(expected) - 1 if step.boom else len(expected)].kind, min(errors)[0]] += 1

    def _compare(
        self, step: Step, expected: list[Any], errors: Any, results: list[Any], raised: BaseException | None
    ) -> None:
        if errors is None:
            if raised is not None:
                raise Divergence(f"{step}", "a result", raised) from raised
            for op, wanted, got in zip(step.ops, expected, results, strict=True):
                compare(wanted, _reduced(op, got), f"result of {op}")
            return
        if raised is None:
            raise Divergence(f"{step}", errors, results)
        found = _names(raised)
        allowed = set(errors)
        if any(name == "InputError" for name, _ in errors):
            allowed.add(("InputError", "several-faults"))
        if not allowed & found and not {code for _, code in errors if code} & {c for n, c in found if n == "Problem"}:
            raise Divergence(f"{step}", errors, f"{sorted(found)}: {raised}") from raised

    def perform(self, step: Step) -> tuple[list[Any], BaseException | None]:
        """Run a step: (results, error)."""
        try:
            if step.scope:
                return self.inside(step.ops[0].around, self._workflow, step), None
            return [self.inside(step.ops[0].around, self._single, step.ops[0], step.mode)], None
        except (DataFlowError, RuntimeError) as error:
            return [], error

    def _single(self, op: Op, mode: str) -> Any:
        if mode == "node" or op.kind == "sql":
            return self._workflow(Step((op,), mode))[0]
        if op.kind == "list" and "limit" in op.params and "offset" not in op.params:
            return self._pages(op)
        if mode == "async":
            return self.loop.run_until_complete(self.db.express.call(op.kind, op.model, **op.params))
        return self.db.express_sync.call(op.kind, op.model, **op.params)

    def _pages(self, op: Op) -> Any:
        """Read all pages of a list."""
        found = page = self.db.express_sync.call("list", op.model, **op.params)
        records = list(page["records"])
        while page["has_more"]:
            page = self.db.express_sync.call("list", op.model, **op.params, cursor=page["next_cursor"])
            records += page["records"]
        return {**found, "records": records, "count": len(records), "has_more": False}

    def _workflow(self, step: Step) -> list[Any]:
        builder = self.db.workflow()
        if step.scope:
            builder.add_node("TransactionScopeNode", "scope", {})
        for number, op in enumerate(step.ops):
            node, params = self._node(op)
            builder.add_node(node, f"n{number}", params)
        if step.boom:
            builder.add_node("Boom", "boom")
        results, _ = LocalRuntime().execute(builder.build())
        found = [results[f"n{number}"] for number in range(len(step.ops))]
        first = step.ops[0]
        if first.kind == "list" and "limit" in first.params and "offset" not in first.params and not step.scope:
            return [self._pages(first)]
        return found

    def _node(self, op: Op) -> tuple[str, dict[str, Any]]:
        if op.kind != "sql":
            return f"{op.model}{SUFFIXES.get(op.kind, op.kind.capitalize())}Node", dict(op.params)
        table = self.db.core.dialect.quote(self.prefix + TABLES[op.model])
        query = f"SELECT count(*) AS n FROM {table}"
        params: dict[str, Any] = {}
        if self.shop.scoped(op.model) and op.around.tenant and self.isolation == "shared":
            query, params = f"{query} WHERE tenant_id = :tenant", {"tenant": op.around.tenant}
        return "Tally", {"query": query, "params": params}

    # -- comparing ----------------------------------------------------------------------------------------------------
    def check(self) -> None:
        """Compare the contents of all tables, and learn the ids and instants that no result told."""
        for model, rows in self.world.tables.items():
            soft = {"include_deleted": True} if self.shop.has(model, "soft_delete") else {}
            for around in self.admins():
                mine = [row for row in rows if not self.shop.placed or row["tenant_id"] == around.tenant]
                got = self.call(around, "list", model, **soft)["records"]
                known = {_value(row["id"]) for row in mine}
                waiting = [row for row in mine if _value(row["id"]) is None]
                for new in (row for row in got if row["id"] not in known):
                    fits = [row for row in waiting if all(row[name] == new[name] for name in MODELS[model])]
                    for row in (fits or waiting)[:1]:
                        row["id"].value = new["id"]
                        waiting.remove(row)
                for row in mine:
                    row["id"] = _value(row["id"]) if _value(row["id"]) is not None else row["id"]
                wanted = [self.world.shown(model, row) for row in self.world.ordered(mine, ())]
                compare(wanted, got, f"table of {model}")

    def entries(self) -> list[dict[str, Any]]:
        """Return the entries of the audit log since the program began."""
        found = []
        for model in MODELS:
            if self.shop.has(model, "audit_log"):
                for around in self.admins():
                    listed = self.call(around, "audit", model)["entries"]
                    seen = self.read_so_far.get(around, 0)
                    found += [{"model": model, "around": around, **entry} for entry in listed if entry["seq"] > seen]
        return found

    def check_audit(self) -> None:
        """Compare the audit log with what the oracle says that it must hold."""
        wanted = sorted(
            (note.model, str(_value(note.record)), note.action, note.actor, str(note.tenant))
            for note in self.world.notes
        )
        got = sorted(
            (
                entry["model"],
                str(entry["record_id"]),
                entry["action_type"],
                entry["actor"],
                str(entry["tenant"] if self.shop.has(entry["model"], "multi_tenant") else None),
            )
            for entry in self.entries()
        )
        if wanted != got:
            missing, extra = list(wanted), []
            for entry in got:
                if entry in missing:
                    missing.remove(entry)
                else:
                    extra.append(entry)
            unnamed = sorted((model, *rest) for model, record, *rest in missing if record == "None")
            if len(unnamed) == len(missing) and unnamed == sorted((model, *rest) for model, _, *rest in extra):
                return  # created and removed in one scope: no result told their ids
            raise Divergence("audit log", f"also {missing}", f"also {extra}")


def _value(value: Any) -> Any:
    return value.value if isinstance(value, Pending) else value


def _names(error: BaseException) -> set[tuple[str, str]]:
    """Return (class, code) of an error, or of its problems where `build()` found them."""
    if isinstance(error, WorkflowBuildError):
        return {("Problem", problem.code) for problem in error.problems} | {("WorkflowBuildError", "unknown-node")}
    cause = error.__cause__ if isinstance(error, WorkflowExecutionError) else error
    while isinstance(cause, WorkflowExecutionError):
        cause = cause.__cause__
    found = {(type(cause).__name__, getattr(cause, "code", ""))}
    return found | {("Problem", problem.code) for problem in getattr(cause, "problems", ())}


def _reduced(op: Op, got: Any) -> Any:
    """Leave of a result what the oracle tells."""
    if op.kind == "list":
        names = ["records", *(["total"] if "total" in got else [])]
        return {name: got[name] for name in names}
    if op.kind == "bulk_create" and "errors" in got:
        return {**got, "errors": sorted(error["row"] for error in got["errors"])}
    if op.kind == "bulk_update" and "conflicts" in got:
        order = [row["id"] for row in op.params["data"]]
        return {**got, "conflicts": sorted(got["conflicts"], key=order.index)}
    return dict(got)


def compare(wanted: Any, got: Any, what: str) -> None:
    """Compare a result with what the oracle expects, and learn ids and instants from it.

    Raises:
        Divergence: they differ.
    """
    if isinstance(wanted, Pending):
        if wanted.value is None and isinstance(got, {"id": int, "instant": datetime}[wanted.kind]):
            wanted.value = got
        if wanted.value != got:
            raise Divergence(what, wanted, got)
    elif isinstance(wanted, dict):
        if not isinstance(got, Mapping) or set(wanted) != set(got):
            raise Divergence(what, wanted, got)
        for name, value in wanted.items():
            compare(value, got[name], f"{what}: {name}")
    elif isinstance(wanted, list):
        if not isinstance(got, list) or len(wanted) != len(got):
            raise Divergence(what, wanted, got)
        for place, value in enumerate(wanted):
            compare(value, got[place], f"{what}[{place}]")
    elif type(wanted) is float or type(got) is float:
        if wanted is None or got is None or abs(wanted - got) > 1e-9:
            raise Divergence(what, wanted, got)
    elif wanted != got or isinstance(wanted, bool) is not isinstance(got, bool):
        raise Divergence(what, wanted, got)


# -- programs ----------------------------------------------------------------------------------------------------
@attrs.frozen
class Failure:
    """A program that shows a difference, as small as it could be made."""

    seed: str
    shop: Shop
    steps: tuple[str, ...]
    error: Divergence

    def __str__(self) -> str:
        """Print it."""
        lines = [f"seed {self.seed}: {self.shop}", *(f"  {line}" for step in self.steps for line in step.split("\n"))]
        return "\n".join([*lines, f"  -> {self.error}"])


def run_program(target: Target, seeds: Iterable[str]) -> tuple[list[str], Divergence | None]:
    """Run a program on an empty database: (its steps as text, what differed)."""
    target.reset()
    done: list[str] = []
    for seed in seeds:
        number = int(seed.rpartition(".")[2])
        step = draw_step(Random(seed), target.world, FILLING[number] if number < len(FILLING) else "")
        try:
            trial = target.world.copy()
            with suppress(Refused):
                for op in step.ops:
                    effects.apply(trial, op)
        except Open:
            continue
        done.append(str(step))
        try:
            target.run(step)
        except Divergence as divergence:
            return done, divergence
    try:
        target.check_audit()
    except Divergence as divergence:
        return done, divergence
    return done, None


def shrink(target: Target, seeds: list[str], shown: tuple[list[str], Divergence], most: int = 150) -> Any:
    """Leave out steps as long as a difference remains; return the steps that are left, as text, and what differs."""
    size = max(len(seeds) // 2, 1)
    tries = 0
    while size:
        start = 0
        while start < len(seeds) and tries < most:
            tries += 1
            shorter = seeds[:start] + seeds[start + size :]
            done, found = run_program(target, shorter)
            if found is None:
                start += size
            else:
                seeds, shown = shorter, (done, found)
        size //= 2
    return shown


def hunt(target: Target, seed: str, steps: int) -> Failure | None:
    """Run a program of some steps; return the smallest program found that shows a difference."""
    seeds = [f"{seed}.{number}" for number in range(steps)]
    done, found = run_program(target, seeds)
    if found is None:
        return None
    done, found = shrink(target, seeds, (done, found))
    return Failure(seed, target.shop, tuple(done), found)


__all__ = ["Divergence", "Failure", "Step", "Target", "draw_step", "hunt", "run_program"]
