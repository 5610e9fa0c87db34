"""How costs grow: with the rows of a table, the models of an instance, the nodes of a workflow, the runs at once.

``python -m benchmarks.scale`` measures and writes one JSON document; `plots` draws it. The databases come from
`databases`. What a bare driver takes for the same is the business of the contests, not of this module.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import multiprocessing
import os
import re
import statistics
import sys
import tempfile
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractAsyncContextManager, ExitStack
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import asyncpg
import attrs

from benchmarks import databases, rows
from benchmarks.databases import PostgresBench, SQLiteBench, postgres_bench, sqlite_bench
from benchmarks.engine import chain
from benchmarks.harness import machine
from dataflow import BaseDataFlowNode, DataFlow, ForeignKey
from dataflow.plan.sorting import write_cursor
from dataflow.runtime import AsyncLocalRuntime
from dataflow.testing.server import ExistingServer, PostgresServer
from dataflow.workflow import Workflow, WorkflowBuilder

CALLS = 40
"""Calls of an operation of which the median is taken."""
PATIENCE = 5.0
"""Seconds after which a slow operation is not called again."""
SPARE = 50_000_000
"""Number of the first row that does not belong to the table: created and removed within one measurement."""
CHUNK = 10_000
"""Rows that are made up and handed over at once while the table is filled."""
RUNS = 512
"""Runs of a workflow, together, whether one or 256 at once."""

Bench = SQLiteBench | PostgresBench
_SIZE = "rows in the table"
_AXES = {
    "one/": (_SIZE, "µs per operation"),
    "page/": (_SIZE, "µs per page of 50"),
    "bulk/": (_SIZE, "µs per row"),
    "fill/": (_SIZE, "seconds in all"),
    "models/register": ("models", "µs per model"),
    "models/memory": ("models", "KiB per model"),
    "models/first": ("models", "ms"),
    "workflow/": ("nodes", "µs per node"),
    "concurrent/": ("runs at once", "runs per second"),
}


@attrs.define
class Curve:
    """One curve.

    Attributes:
        name: group, and what is measured: ``one/read by key``.
        x: label of the axis, as `y`.
        database: ``sqlite`` or ``postgresql``; None where none takes part.
        points: (x, y), x ascending.
    """

    name: str
    x: str
    y: str
    database: str | None
    points: list[tuple[float, float]] = attrs.field(factory=list)


class Curves:
    """What was measured so far, and what is asked for.

    Args:
        only: curves whose names it matches are measured.
        most: where the curves end, unless their own end comes before.
    """

    def __init__(self, only: str, most: int) -> None:
        self._only = re.compile(only)
        self._most = most
        self.found: dict[tuple[str, str | None], Curve] = {}

    def wants(self, *names: str) -> bool:
        """Tell whether one of these is asked for."""
        return any(self._only.search(name) for name in names)

    def places(self, start: int, end: int, factor: int = 10) -> Iterator[int]:
        """Return `start`, `factor` times that, and so on, to `end` or where all curves end."""
        while start <= min(end, self._most):
            yield start
            start *= factor

    def add(self, name: str, database: str | None, x: float, y: float) -> None:
        """Add a point, and print it; one that is not asked for is left out."""
        if self.wants(name):
            axes = next(axes for prefix, axes in _AXES.items() if name.startswith(prefix))
            curve = self.found.setdefault((name, database), Curve(name, *axes, database))
            curve.points.append((x, float(f"{y:.4g}")))
            print(f"{name:42} {database or '':10} {x:>12,} {axes[0]:18} {y:14,.2f} {axes[1]}", flush=True)


async def median(
    call: Callable[[Any], Awaitable[Mapping[str, Any]]], arguments: Sequence[Any], expect: Mapping[str, Any]
) -> float:
    """Return the median seconds of a call, one for each argument, without the first, which compiles.

    Args:
        call: what is measured.
        arguments: of the calls.
        expect: what each result has to hold, so that no mistake is measured.

    Raises:
        AssertionError: a result holds something else.
    """
    taken: list[float] = []
    gc.collect()
    for argument in arguments:
        start = perf_counter()
        result = await call(argument)
        taken.append(perf_counter() - start)
        found = {name: result[name] for name in expect}
        if found != expect:
            raise AssertionError(f"expected {expect}, found {found}")
        if len(taken) > 3 and sum(taken) > PATIENCE:
            break
    return statistics.median(taken[1:])


# -- rows of a table --------------------------------------------------------------------------------------------------
Params = list[dict[str, Any]]
"""The parameters of each call of an operation."""


@attrs.frozen
class Work:
    """An operation on a table of some size.

    Attributes:
        operation: its name.
        prepare: returns the parameters of the calls; what else it does is not measured either.
        expect: what the results have to hold.
        per: rows that one call handles.
    """

    operation: str
    prepare: Callable[[], Awaitable[Params]]
    expect: Mapping[str, Any]
    per: int = 1

    async def microseconds(self, db: DataFlow) -> float:
        """Return the median time per row."""

        async def call(params: dict[str, Any]) -> Mapping[str, Any]:
            # The model has a field `data`, so options are written with an underscore, as `express` does.
            options = {f"_{name}": value for name, value in params.items()}
            result: Mapping[str, Any] = await db.express.call(self.operation, "Reading", **options)
            return result

        return await median(call, await self.prepare(), self.expect) / self.per * 1e6


def _given(params: Params) -> Callable[[], Awaitable[Params]]:
    """Return a `prepare` that has nothing to do."""

    async def prepare() -> Params:
        return params

    return prepare


def _code(i: int) -> str:
    return str(rows.reading(i)["code"])


def _codes(first: int, count: int) -> dict[str, Any]:
    """Return the filter for `count` consecutive rows, by a unique index."""
    return {"code": {"$gte": _code(first), "$lt": _code(first + count)}}


def _spare(first: int, count: int) -> list[dict[str, Any]]:
    return [rows.reading(SPARE + i) for i in range(first, first + count)]


class Table:
    """The work on one table, which holds the readings 0, 1, 2 … in the order of their ids.

    Args:
        db: the instance.
        size: rows in the table, a power of ten from 1,000 on.

    Attributes:
        works: by the names of the curves.
    """

    def __init__(self, db: DataFlow, size: int) -> None:
        self.express = db.express
        self.size = size
        self.each = size // 1000  # rows with the same n, which are i, i + 1000, i + 2000 …
        self.scattered = [rows.reading(i * 7919 % size) for i in range(CALLS)]
        self.works = {**self._one(), **self._pages(), **self._bulk()}

    async def _keys(self) -> Params:
        codes = [row["code"] for row in self.scattered]
        found = await self.express.list("Reading", {"code": {"$in": codes}}, fields=["id"])
        return [{"id": record["id"]} for record in found["records"]]

    async def _changes(self) -> Params:
        return [{**key, "values": {"label": "changed"}} for key in await self._keys()]

    async def _spare_keys(self) -> Params:
        created = await self.express.bulk_create("Reading", _spare(0, CALLS), return_ids=True)
        return [{"id": key} for key in created["ids"]]

    def _one(self) -> dict[str, Work]:
        def upserts(given: list[dict[str, Any]]) -> Callable[[], Awaitable[Params]]:
            update = {"label": "changed"}
            return _given([{"where": {"code": row["code"]}, "create": row, "update": update} for row in given])

        first = (self.size - 1000) // 2
        few = _codes(first, 1000)
        sums = {"rows": {"$count": "*"}, "sum": {"$sum": "value"}}
        groups = [{"rows": 1000, "sum": sum(rows.reading(first + i)["value"] for i in range(1000))}]
        find = _given([{"conditions": {"code": row["code"]}} for row in self.scattered])
        create = _given([{"values": row} for row in _spare(0, CALLS)])
        count, share = _given([{"filter": few}] * CALLS), _given([{"filter": {"n": 500}}] * CALLS)
        aggregate = _given([{"filter": few, "aggregate": sums}] * CALLS)
        return {
            "one/read by key": Work("read", self._keys, {"found": True}),
            "one/read by unique field": Work("read", find, {"found": True}),
            "one/create": Work("create", create, {}),
            "one/update by key": Work("update", self._changes, {"updated": 1}),
            "one/delete by key": Work("delete", self._spare_keys, {"deleted": 1}),
            "one/upsert that updates": Work("upsert", upserts(self.scattered), {"created": False}),
            "one/upsert that creates": Work("upsert", upserts(_spare(0, CALLS)), {"created": True}),
            "one/count 1,000 rows": Work("count", count, {"count": 1000}),
            "one/count a thousandth of the rows": Work("count", share, {"count": self.each}),
            "one/aggregate 1,000 rows": Work("aggregate", aggregate, {"groups": groups}),
        }

    def _pages(self) -> dict[str, Work]:
        found = {
            f"page/by {field}, cursor at the {place}": Work("list", self._cursor(field, skipped), {"count": 50})
            for field in ("id", "n")
            for place, skipped in (("start", 50), ("middle", self.size // 2), ("end", self.size - 50))
        }
        offset = _given([{"sort": ["id"], "limit": 50, "offset": self.size // 2}] * CALLS)
        return {**found, "page/by id, offset to the middle": Work("list", offset, {"count": 50})}

    def _cursor(self, field: str, skipped: int) -> Callable[[], Awaitable[Params]]:
        """Prepare the cursor that the page before would have given, without reading all pages before."""
        last = skipped - 1
        number = last if field == "id" else last % self.each * 1000 + last // self.each
        sort = dict.fromkeys((field, "id"), False)

        async def prepare() -> Params:
            record = await self.express.call("read", "Reading", conditions={"code": _code(number)})
            return [{"sort": [field], "limit": 50, "cursor": write_cursor(tuple(sort.items()), record)}] * CALLS

        return prepare

    def _bulk(self) -> dict[str, Work]:
        parts, apart = range(9), (self.size - 1000) // 8

        async def new() -> Params:
            return [{"data": _spare(part * 1000, 1000)} for part in parts]

        async def half_new() -> Params:
            old = [[rows.reading((i * self.each + part) % self.size) for i in range(500)] for part in parts]
            return [{"data": old[part] + _spare(part * 500, 500), "key_fields": ["code"]} for part in parts]

        async def created() -> Params:
            await self.express.bulk_create("Reading", _spare(0, 9000))
            return [{"filter": _codes(SPARE + part * 1000, 1000)} for part in parts]

        update = _given([{"filter": _codes(part * apart, 1000), "update": {"label": "changed"}} for part in parts])
        return {
            "bulk/create 1,000": Work("bulk_create", new, {"created": 1000}, 1000),
            "bulk/upsert 1,000, half of them new": Work(
                "bulk_upsert", half_new, {"created": 500, "updated": 500}, 1000
            ),
            "bulk/update 1,000 by filter": Work("bulk_update", update, {"updated": 1000}, 1000),
            "bulk/delete 1,000 by filter": Work("bulk_delete", created, {"deleted": 1000}, 1000),
        }


async def _grow(db: DataFlow, start: int, size: int) -> float:
    """Fill the table up to `size` rows; return the seconds it took, without making the rows up."""
    seconds = 0.0
    for first in range(start, size, CHUNK):
        part = [rows.reading(i) for i in range(first, min(first + CHUNK, size))]
        begin = perf_counter()
        await db.express.bulk_create("Reading", part)
        seconds += perf_counter() - begin
    return seconds


async def _settle(bench: Bench) -> None:
    """Let the database do now what it would do while we measure."""
    if isinstance(bench, SQLiteBench):
        bench.raw.execute("ANALYZE")
        bench.raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return
    await bench.held.execute("VACUUM ANALYZE")
    with contextlib.suppress(asyncpg.InsufficientPrivilegeError):
        await bench.held.execute("CHECKPOINT")


async def tables(bench: Bench, database: str, curves: Curves) -> None:
    """Measure one table as it grows."""
    db, spare = bench.db, {"code": {"$gte": _code(SPARE)}}
    if not curves.wants("bulk/create, 10,000 at a time", "fill/create", *Table(db, 1000).works):
        return
    await db.express.bulk_create("Reading", _spare(0, 1000))  # creates the table, and compiles
    await db.express.bulk_delete("Reading", filter=spare)
    filled, total = 0, 0.0
    for size in curves.places(1000, 10**7):
        seconds = await _grow(db, filled, size)
        total += seconds
        curves.add("bulk/create, 10,000 at a time", database, size, seconds / (size - filled) * 1e6)
        curves.add("fill/create", database, size, total)
        filled = size
        await _settle(bench)
        for name, work in Table(db, size).works.items():
            if curves.wants(name):
                curves.add(name, database, size, await work.microseconds(db))
                await db.express.bulk_delete("Reading", filter=spare)


# -- models -----------------------------------------------------------------------------------------------------------
def _order(number: int) -> type:
    """Make a class like an Order; nine of ten refer to the one before."""
    fields: dict[str, Any] = {"number": str, "total": Decimal, "note": str | None, "placed_at": datetime}
    if number % 10:
        before = ForeignKey(f"Order{number - 1}", name="before", reverse="after")
        fields["before_id"] = Annotated[int, before]
    indexes = [{"name": f"ix_order{number}_number", "fields": ["number"]}]
    return type(f"Order{number}", (), {"__annotations__": fields, "__indexes__": indexes, "__module__": __name__})


def registering(url: str, count: int, *, traced: bool) -> dict[str, float]:
    """Register models in this process.

    Args:
        url: of an empty database.
        count: models.
        traced: measure memory, which takes its time, instead of time.

    Returns:
        KiB per model; or µs per model, and ms of the first operation, which creates ten tables.
    """
    with DataFlow(url) as other, DataFlow(url) as db:
        # What is loaded and opened once in a process is not the models' cost.
        other.model(type("Other", (), {"__annotations__": {"name": str}, "__module__": __name__}))
        other.express_sync.count("Other")
        classes = [_order(number) for number in range(count)]
        gc.collect()
        if traced:
            tracemalloc.start()
        start = perf_counter()
        for cls in classes:
            db.model(cls)
        registered = perf_counter()
        if traced:
            gc.collect()
            return {"models/memory": tracemalloc.get_traced_memory()[0] / 1024 / count}
        db.express_sync.count(f"Order{count // 2}")
        first = perf_counter() - registered
        return {"models/register": (registered - start) / count * 1e6, "models/first operation": first * 1e3}


async def models(database: str, curves: Curves) -> None:
    """Measure models, each number of them in processes of their own."""
    if not curves.wants("models/register", "models/memory", "models/first operation"):
        return
    spawn = multiprocessing.get_context("spawn")
    for count in sorted([*curves.places(10, 1000), *curves.places(30, 1000)]):
        found: dict[str, list[float]] = {}
        for traced in (False, False, False, True):
            with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, spawn) as process:
                url = f"sqlite:///{folder}/models.db" if database == "sqlite" else databases.SERVER()
                for name, value in process.submit(registering, url, count, traced=traced).result().items():
                    found.setdefault(name, []).append(value)
        for name, values in found.items():
            curves.add(name, database, count, statistics.median(values))


# -- nodes of a workflow ----------------------------------------------------------------------------------------------
class Pass(BaseDataFlowNode):
    """Hands a value on."""

    async def execute(self, input_data: Mapping[str, Any]) -> dict[str, Any]:
        """Return what was given."""
        return {"value": input_data["value"]}


def _reads(db: DataFlow, nodes: int) -> WorkflowBuilder:
    """Return reads in a chain, each of the record that the one before found."""
    workflow = WorkflowBuilder(db).add_node("ReadingReadNode", "n0", {"id": 1})
    for i in range(1, nodes):
        workflow.add_node("ReadingReadNode", f"n{i}").add_connection(f"n{i - 1}", "id", f"n{i}", "id")
    return workflow


async def _workflows(
    kind: str, database: str | None, curves: Curves, make: Callable[[int], WorkflowBuilder], output: str
) -> None:
    """Measure workflows of ever more nodes, which hand the number 1 on as `output`."""
    building, running, runtime = f"workflow/build, {kind}", f"workflow/run, {kind}", AsyncLocalRuntime()

    async def build(builder: WorkflowBuilder) -> dict[str, Any]:
        return {"nodes": len(builder.build().nodes)}

    async def run(workflow: Workflow) -> dict[str, Any]:
        results, _ = await runtime.execute_async(workflow)
        return {"value": results[f"n{len(workflow.nodes) - 1}"][output]}

    for nodes in curves.places(10, 10_000) if curves.wants(building, running) else ():
        builder, calls = make(nodes), CALLS if nodes <= 100 else 6
        seconds = await median(build, [builder] * calls, {"nodes": nodes})
        curves.add(building, database, nodes, seconds / nodes * 1e6)
        seconds = await median(run, [builder.build()] * calls, {"value": 1})
        curves.add(running, database, nodes, seconds / nodes * 1e6)


async def custom_nodes(curves: Curves) -> None:
    """Measure chains of nodes that do nothing."""
    async with DataFlow(":memory:") as db:
        db.register_node(Pass)
        await _workflows("custom nodes", None, curves, lambda nodes: chain(db, "Pass", nodes), "value")


async def read_nodes(bench: Bench, database: str, curves: Curves) -> None:
    """Measure chains of connected reads."""
    await bench.db.express.create("Reading", rows.reading(0))  # its id is 1
    await _workflows("read nodes", database, curves, lambda nodes: _reads(bench.db, nodes), "id")


# -- runs at once -----------------------------------------------------------------------------------------------------
async def concurrent(bench: Bench, database: str, curves: Curves) -> None:
    """Measure how many workflows of a read and an update end in a second, with so many at once."""
    name = "concurrent/read and update"
    if not curves.wants(name):
        return
    created = await bench.db.express.bulk_create("Reading", [rows.reading(i) for i in range(RUNS)], return_ids=True)
    await _settle(bench)
    builder = WorkflowBuilder(bench.db).add_node("ReadingReadNode", "read")
    builder.add_node("ReadingUpdateNode", "update", {"label": "changed"}).add_connection("read", "id", "update", "id")
    workflow, runtime = builder.build(), AsyncLocalRuntime()

    async def several(keys: Sequence[int]) -> int:
        updated = 0
        for key in keys:
            results, _ = await runtime.execute_async(workflow, parameters={"read": {"id": key}})
            updated += results["update"]["updated"]
        return updated

    async def all_runs(at_once: int) -> dict[str, int]:
        parts = [created["ids"][i::at_once] for i in range(at_once)]
        return {"updated": sum(await asyncio.gather(*map(several, parts)))}

    for at_once in curves.places(1, 256, 2):
        curves.add(name, database, at_once, RUNS / await median(all_runs, [at_once] * 6, {"updated": RUNS}))


# -- the command line -------------------------------------------------------------------------------------------------
async def _measure(curves: Curves, names: Sequence[str]) -> None:
    await custom_nodes(curves)
    for database in names:
        await models(database, curves)
        for part in (read_nodes, concurrent, tables):  # the big table comes last: it would keep the server busy
            bench: AbstractAsyncContextManager[Bench]
            bench = sqlite_bench(count=0) if database == "sqlite" else postgres_bench(count=0)
            async with bench as opened:
                await part(opened, database, curves)


def main(arguments: list[str] | None = None) -> int:
    """Measure the curves, print each point, write JSON."""
    parser = argparse.ArgumentParser("python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgresql", "both"], default="both")
    parser.add_argument("--most", type=int, default=10**6, help="rows of the largest table; no curve goes beyond it")
    parser.add_argument("--json", type=Path, help="write the curves here")
    parser.add_argument("--only", default="", help="regular expression; curves whose names it matches are measured")
    options = parser.parse_args(arguments)
    names = ["sqlite", "postgresql"] if options.database == "both" else [options.database]
    before, curves = machine(), Curves(options.only, options.most)
    print(before)
    with ExitStack() as stack:
        if "postgresql" in names:
            given = os.environ.get("DATAFLOW_TEST_POSTGRES")
            settings = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
            server: Any = ExistingServer(given) if given else PostgresServer(settings=settings)
            stack.enter_context(server)
            databases.SERVER = server.create_database
        asyncio.run(_measure(curves, names))
    found = {"before": before, "after": machine(), "curves": [attrs.asdict(curve) for curve in curves.found.values()]}
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
