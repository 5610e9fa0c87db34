"""A database under test: runs steps of a program in every way there is, and keeps what it calls symbolic values."""

import asyncio
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from dataflow import BaseDataFlowNode, DataFlow
from dataflow.errors import DataFlowError, WorkflowBuildError, WorkflowExecutionError
from dataflow.operations import BY_NAME
from dataflow.runtime import AsyncLocalRuntime, LocalRuntime
from dataflow.testing.differential.compare import Divergence, compare
from dataflow.testing.differential.expect import Outcome
from dataflow.testing.differential.models import CLEARING, TABLES, declare
from dataflow.testing.differential.programs import (
    GHOSTS,
    Cursor,
    Dangling,
    Op,
    Ref,
    Stamp,
    Step,
    Text,
    Wire,
    Wrong,
)
from dataflow.testing.differential.world import World

T = TypeVar("T")
Call = tuple[str, str, Mapping[str, Any]]
"""(operation, model, params)."""
EXPRESS = ("direct", "sync", "async")
"""Modes without a workflow."""
GAP = 1000
"""Distance of an explicit id from the greatest one so far: more than other operations of its step may use."""

NOTHING = ("none", "")
LATE = {"unknown-input": "unknown-parameter"}
"""Codes of errors that say the same at execution."""


class Boom(BaseDataFlowNode):
    """A node of the user's own that fails."""

    def execute(self, input_data: Mapping[str, Any]) -> Any:
        """Fail."""
        del input_data
        msg = "boom"
        raise RuntimeError(msg)


class Target:
    """One database.

    Args:
        url: where it is; ``{job}`` stands for the number of the worker.
        job: number of the worker: part of the names of the tables, so that workers can share a database.
    """

    def __init__(self, url: str, job: int = 0) -> None:
        self.url = url.replace("{job}", str(job))
        self.db = DataFlow(self.url)
        self.name = self.db.core.dialect.name
        declare(self.db, f"diff{job}_")
        self.db.register_node(Boom)
        self.loop = asyncio.new_event_loop()
        self.highest = dict.fromkeys(TABLES, 0)
        self.reach = dict.fromkeys(TABLES, 0)  # ids that were tried and rolled back count here
        self.ids: dict[str, dict[int, int]] = {}
        self.settled: dict[str, list[int]] = {model: [] for model in TABLES}
        self.instants: dict[int, Any] = {}
        self.cursors: dict[int, str] = {}
        self.texts: dict[tuple[int, ...], str] = {}
        self.reset()

    def close(self) -> None:
        """Close the database."""
        self._await(self.db.aclose())
        self._await(self.loop.shutdown_asyncgens())
        self.loop.close()
        self.db.close()

    def reset(self) -> None:
        """Empty all tables, and forget what values are called."""
        everything = {"filter": {}, "confirmed": True}
        self._direct([("bulk_delete", model, everything) for model in CLEARING])
        for model, ids in self.settled.items():
            self.highest[model] = max([self.highest[model], *ids])
            self.reach[model] = max(self.reach[model], self.highest[model])
        self.ids = {model: {} for model in TABLES}
        self.instants = {}
        self.cursors = {}
        self.texts = {}

    # -- symbolic values ------------------------------------------------------------------------------------------
    def bind(self, symbol: Any, actual: Any) -> bool:
        """Remember what this database calls a value; False if it called it otherwise before."""
        if isinstance(symbol, Ref):
            if symbol >= GHOSTS:
                return bool(actual == int(symbol))
            return bool(self.ids[symbol.model].setdefault(int(symbol), actual) == actual)
        if isinstance(symbol, Stamp):
            return bool(self.instants.setdefault(symbol.number, actual) == actual)
        if isinstance(symbol, Text):
            self.texts.update({symbol.place: actual} if symbol.place else {})
        else:
            self.cursors[symbol.number] = actual
        return True

    def real(self, value: Any) -> Any:
        """Write params as this database takes them."""
        kind = type(value)
        if kind is dict:
            return {key: self.real(item) for key, item in value.items()}
        if kind is list or kind is tuple:
            return kind(self.real(item) for item in value)
        if kind is Ref:
            return int(value) if value >= GHOSTS else self.ids[value.model][int(value)]
        if kind is Cursor:
            return self.cursors[value.number]
        return value.value if kind is Wrong else value

    def _name_new(self, step: Step) -> None:
        """Choose what explicit new ids are called here.

        Raises:
            Dangling: an id belongs to no operation of the program.
        """
        own = {op.number for op in step.ops}
        leaves = [leaf for op in step.ops for leaf in op.symbols]
        for leaf in sorted(leaf for leaf in leaves if isinstance(leaf, Ref) and leaf < GHOSTS):
            known = self.ids[leaf.model]
            if leaf not in known:
                if leaf.origin not in own:
                    raise Dangling
                self.reach[leaf.model] = max([self.reach[leaf.model], *known.values()]) + GAP
                known[int(leaf)] = self.reach[leaf.model]
        if any(type(leaf) is Cursor and leaf.number not in self.cursors for leaf in leaves):
            raise Dangling

    def _settle(self, world: World, before: Mapping[str, set[int]]) -> None:
        """Find out what new ids are called that no result told, and forget those that were rolled back."""
        for model, ids in self.ids.items():
            if not TABLES[model].auto:
                continue
            present = {int(key[0]) for key in world.tables[model]}
            for number in set(ids) - before[model] - present:
                del ids[number]
            unnamed = sorted(present - set(ids))
            if unnamed:
                (listed,) = self._direct([("list", model, {"fields": ["id"]})])
                found = sorted({row["id"] for row in listed["records"]} - set(ids.values()))
                if len(found) != len(unnamed):
                    raise Divergence(f"number of new {model} records", len(unnamed), len(found))
                ids.update(zip(unnamed, found, strict=True))
            if len(ids) > len(before[model]):
                in_order = [ids[number] for number in sorted(ids)]
                if in_order != sorted(set(in_order)) or in_order[0] <= self.highest[model]:
                    raise Divergence(f"ids of {model}", "new ids greater than all before", in_order)
                self.settled[model] = in_order

    # -- steps ----------------------------------------------------------------------------------------------------
    def run(self, step: Step, outcome: Outcome, world: World) -> None:
        """Run a step and compare what it gives, and the contents of all tables where it fails.

        Raises:
            Divergence: this database does something else.
            Dangling: the step refers to an operation that is not in the program.
        """
        before = {model: set(ids) for model, ids in self.ids.items()}
        self._name_new(step)
        results, error = self.perform(step)
        expected = None if outcome.error is None else (*outcome.error, outcome.failed)
        if expected != (None if error is None else error[:3]):
            raise Divergence("error", expected or NOTHING, error or NOTHING)
        for index, (wanted, got) in enumerate(zip(outcome.results, results, strict=True)):
            compare(wanted, got, self.bind, f"result of {step.ops[index].kind}")
        self._settle(world, before)
        instants = [self.instants[number] for number in sorted(self.instants)]
        if instants != sorted(instants):
            raise Divergence("instants of the framework's clock", "ascending", instants)
        if outcome.error is not None:
            self.check(world)

    def check(self, world: World) -> None:
        """Compare the contents of all tables."""
        for model, got in zip(TABLES, self._direct([("list", model, {}) for model in TABLES]), strict=True):
            compare(world.rows(model), got["records"], self.bind, f"table of {model}")

    def perform(self, step: Step) -> tuple[list[Any], tuple[Any, ...] | None]:
        """Run a step: (results, (class, code, index of the operation, text) of its error)."""
        try:
            if step.mode not in EXPRESS:
                return self._workflow(step), None
            calls: list[Call] = [(op.kind, op.model, self.real(op.params)) for op in step.ops]
            if step.mode == "direct":
                return self._direct(calls), None
            if step.mode == "sync":
                return [call(self.db.express_sync, *each) for each in calls], None
            return self._await(self._express(calls)), None
        except WorkflowBuildError as error:
            codes = [problem.code for problem in error.problems]
            return [], ("InputError", codes[0] if len(codes) == 1 else "several-faults", 0, str(error))
        except WorkflowExecutionError as error:
            done = [error.results[node] for node in map(node_id, step.ops) if node in error.results]
            cause = error.__cause__
            if not isinstance(cause, DataFlowError):
                return done, ("Boom" if isinstance(cause, RuntimeError) else type(cause).__name__, "", len(done), cause)
            return done, (type(cause).__name__, cause.code, len(done), str(cause))
        except DataFlowError as error:
            code = LATE.get(error.code, error.code)
            return [], (type(error).__name__, code, 0, str(error))

    def _direct(self, calls: Sequence[Call]) -> list[Any]:
        """Make calls of express the way that costs this database least: no thread waits for another."""
        if self.db.core.database.blocking:
            return [call(self.db.express_sync, *each) for each in calls]
        return self._await(self._express(calls))

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    async def _express(self, calls: Sequence[Call]) -> list[Any]:
        return [await call(self.db.express, *each) for each in calls]

    def _workflow(self, step: Step) -> list[Any]:
        builder = self.db.workflow()
        if step.scope is not None:
            builder.add_node("TransactionScopeNode", "scope", step.scope)
        late: dict[str, Any] = {}
        for op in step.ops:
            params = {name: self.real(value) for name, value in op.params.items() if not isinstance(value, Wire)}
            if step.mode == "late":
                late[node_id(op)] = params
            builder.add_node(f"{op.model}{BY_NAME[op.kind].suffix}", node_id(op), {} if step.mode == "late" else params)
        for source, output, target, name in wires(step):
            builder.add_connection(source, output, target, name)
        if step.boom:
            builder.add_node("Boom", "boom")
        workflow = builder.build()
        if step.mode == "anode":
            results, _ = self._await(AsyncLocalRuntime().execute_async(workflow, late or None))
        else:
            results, _ = LocalRuntime().execute(workflow, late or None)
        return [results[node_id(op)] for op in step.ops]


def node_id(op: Op) -> str:
    """Name the node of an operation."""
    return f"n{op.number}"


def wires(step: Step) -> Iterator[tuple[str, str, str, str]]:
    """Yield the connections of a workflow: (source, output, target, input)."""
    for op in step.ops:
        for name, value in op.params.items():
            if isinstance(value, Wire):
                yield f"n{value.source}", value.output, node_id(op), name


HEADS: Mapping[str, tuple[str, ...]] = {
    "create": ("values",),
    "read": ("id",),
    "update": ("id", "values"),
    "delete": ("id",),
    "list": ("filter",),
    "count": ("filter",),
    "upsert": ("where", "create", "update"),
    "bulk_create": ("data",),
    "bulk_upsert": ("data",),
}
"""Which params the methods of express take by position; the rest goes by name."""


def arguments(kind: str, params: Mapping[str, Any]) -> tuple[str, list[Any], dict[str, Any]]:
    """Return how express is called: (method, positional arguments, keywords)."""
    heads = HEADS.get(kind, ())
    positional = [params[name] for name in heads if name in params]
    if kind == "upsert":
        positional = [params.get(name) for name in heads]
    named = {name: value for name, value in params.items() if name not in heads}
    if len(positional) == len(heads) or (kind in ("list", "count") and not positional):
        return kind, positional, named
    return "call", [], dict(params)


def call(express: Any, kind: str, model: str, params: Mapping[str, Any]) -> Any:
    """Call express by the method of its own where the params allow that, else by `call`."""
    method, positional, named = arguments(kind, params)
    if method == "call":
        return express.call(kind, model, **named)
    return getattr(express, method)(model, *positional, **named)
