"""A program from a seed: which operations, in which surroundings, with which values.

Operations are drawn with the oracle's tables at hand, so that they often meet records that exist.
"""

from collections.abc import Mapping
from random import Random
from typing import Any

import attrs

from dataflow.testing.differential import values as v
from dataflow.testing.differential.bulk import Rows
from dataflow.testing.differential.cells import assignable, some_rows, template
from dataflow.testing.differential.coverage import Cell
from dataflow.testing.differential.expect import Outcome, execute
from dataflow.testing.differential.faults import bad_value, faulty
from dataflow.testing.differential.models import TABLES
from dataflow.testing.differential.programs import Ambiguous, Cursor, Op, Step, Wire, Wrong
from dataflow.testing.differential.shapes import EPOCH, pool
from dataflow.testing.differential.world import World

WEIGHTS = {
    "create": 9, "read": 7, "update": 14, "delete": 4, "list": 18, "count": 4, "aggregate": 10, "upsert": 7,
    "bulk_create": 9, "bulk_update": 8, "bulk_delete": 3, "bulk_upsert": 8,
}  # fmt: skip
"""How often each operation is drawn."""
MODELS = {"Vendor": 4, "Part": 8, "Visit": 6, "Shelf": 6, "Rate": 3}
MODES = {"direct": 74, "sync": 5, "async": 5, "node": 9, "late": 4, "anode": 3}
"""How often a single operation is run in each way."""
LEAST, MOST = 20, 22
"""Operations of a program."""
CELLS = 2
"""Operations of a program that are there for the coverage table."""
FEW = 3
"""Rows of a table below which some are created before a question is asked for the coverage table."""
FILLED = 3
"""Tables besides that of vendors that get rows at the beginning."""
CROWD = 14
"""Rows of a table from which on no more are created."""
CROWDED = 0.05
"""How often a program ends with an operation on many rows."""
TRIES = 30


class Generator:
    """Draws the steps of one program.

    Args:
        seed: determines the program.
    """

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)  # noqa: S311
        self.pool = pool(seed // EPOCH)
        self.number = 0
        self.size = self.rng.randrange(LEAST, MOST + 1)
        cells = assignable()
        mine = [cells[(CELLS * seed + offset) % len(cells)] for offset in range(CELLS)]
        self.assigned = [(self.rng.randrange(8, self.size), cell) for cell in mine]
        self.pages: list[Op] = []
        self.filled = ["Vendor", *self.rng.sample([model for model in MODELS if model != "Vendor"], FILLED)]
        self.crowd = self.rng.random() < CROWDED
        self.fed: set[int] = set()
        self.following: Op | None = None

    @property
    def done(self) -> bool:
        """Whether the program is long enough."""
        return self.number >= self.size and not self.assigned and self.following is None

    def next(self, world: World) -> tuple[Step, Outcome]:
        """Draw a step and run it on the oracle; one whose outcome is open is drawn again."""
        for left in reversed(range(TRIES)):
            due = [pair for pair in self.assigned if pair[0] <= self.number or self.number >= self.size]
            step = self._assigned(world, due[0][1]) if due else self._draw(world)
            try:
                outcome = execute(world, step)
            except Ambiguous:
                continue
            if due and outcome.error is not None and left > TRIES // 2:
                continue
            if due and "on_error" in step.ops[0].params:
                self.fed.add(self.number + 1)
            elif due:
                self.assigned.remove(due[0])
                if due[0][1][2].startswith("cursor") and self.number in world.cursors:
                    self.following = step.ops[0]
            self.number = max(op.number for op in step.ops) + 1
            for op in step.ops:
                if op.kind == "list" and op.number in world.cursors:
                    self.pages.append(op)
            return step, outcome
        return self._plain(world)

    def _assigned(self, world: World, cell: Cell) -> Step:
        """Draw the operation of a cell, after one that makes sure it meets records."""
        world.number = self.number
        op = template(cell)(self.rng, world, self.number)
        if op.number in self.fed or len(world.tables[op.model]) >= FEW:
            return Step((op,), self._mode())
        params = {"data": some_rows(self.rng, world, op.model), "on_error": "skip"}
        return Step((Op(self.number, "bulk_create", op.model, params),))

    def _plain(self, world: World) -> tuple[Step, Outcome]:
        self.assigned = []
        step = Step((Op(self.number, "count", "Part", {}),))
        self.number += 1
        return step, execute(world, step)

    def _draw(self, world: World) -> Step:
        rng = self.rng
        if self.crowd and self.number >= self.size - 2:
            self.crowd = False
            return Step((self._crowd(world),), rng.choice(("direct", "node")))
        if self.following is not None:
            before, self.following = self.following, None
            return self._page_after(before)
        if self.number < len(self.filled):
            params = {"data": some_rows(rng, world, self.filled[self.number]), "on_error": "skip"}
            return Step((Op(self.number, "bulk_create", self.filled[self.number], params),))
        choice = rng.random()
        if choice < 0.07:
            return Step((faulty(rng, world, self.number),), self._mode())
        if choice < 0.09:
            return Step((self._wrong_value(world),), self._mode())
        if choice < 0.18 and self.pages:
            return self._next_page()
        if choice < 0.27:
            return self._several(world)
        return Step((self._op(world, self.number),), self._mode())

    def _mode(self) -> str:
        return self.rng.choices(tuple(MODES), tuple(MODES.values()))[0]

    def _op(self, world: World, number: int, kinds: tuple[str, ...] = ()) -> Op:
        rng = self.rng
        model = rng.choices(list(MODELS), list(MODELS.values()))[0]
        kind = rng.choice(kinds) if kinds else rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        if len(world.tables[model]) >= CROWD and kind in ("create", "bulk_create", "bulk_upsert"):
            kind = "bulk_delete"
        world.number = number
        op = rng.choice(self.pool[kind, model])(rng, world, number)
        if kind in ("bulk_create", "bulk_upsert") and rng.random() < 0.12:
            op = attrs.evolve(op, params={**op.params, "data": self._spoiled(op.model, op.params["data"])})
        return op

    def _wrong_value(self, world: World) -> Op:
        """Draw an operation whose shape is known to be good, with one value that its field refuses."""
        kind, at = self.rng.choice(
            (("create", "values"), ("update", "values"), ("upsert", "create"), ("bulk_update", "update"))
        )
        op = self._op(world, self.number, (kind,))
        inner: Mapping[str, Any] = op.params.get(at) or {}
        names = [name for name in inner if name in TABLES[op.model].kinds and not isinstance(inner[name], dict)]
        if not names or op.kind != kind:
            return faulty(self.rng, world, self.number)
        name = self.rng.choice(names)
        wrong = Wrong(bad_value(self.rng, TABLES[op.model].kinds[name]))
        return attrs.evolve(op, params={**op.params, at: {**inner, name: wrong}})

    def _spoiled(self, model: str, rows: Rows) -> Rows:
        """Put a wrong value into one of the rows."""
        if not rows:
            return rows
        table = TABLES[model]
        keys = {name for key in table.keys for name in key}
        name = self.rng.choice([name for name in table.kinds if name not in keys and name not in table.refs])
        place = self.rng.randrange(len(rows))
        wrong = Wrong(bad_value(self.rng, table.kinds[name]))
        return [{**row, name: wrong} if index == place else row for index, row in enumerate(rows)]

    def _next_page(self) -> Step:
        return self._page_after(self.rng.choice(self.pages[-3:]))

    def _page_after(self, before: Op) -> Step:
        params = {name: value for name, value in before.params.items() if name != "offset"}
        return Step((Op(self.number, "list", before.model, {**params, "cursor": Cursor(before.number)}),), self._mode())

    def _crowd(self, world: World) -> Op:
        """Draw an operation on more rows than databases take one by one."""
        rng, world.number = self.rng, self.number
        size = rng.randrange(50, 120)
        if rng.random() < 0.5:
            names = rng.sample([name for name in TABLES["Part"].kinds if name not in ("id", "sku", "batch")], 3)
            rows = [{name: v.field_value(rng, world, "Part", name) for name in names} for _ in range(size)]
            return Op(self.number, "bulk_create", "Part", {"data": rows, "return_ids": rng.random() < 0.5})
        rows = [{"aisle": "a", "slot": rng.randrange(size), "flags": [True], "document": slot} for slot in range(size)]
        params = {"data": rows, "on_duplicate": "last", "return_ids": rng.random() < 0.5}
        return Op(self.number, "bulk_upsert", "Shelf", params)

    # -- workflows of several nodes -------------------------------------------------------------------------------
    def _several(self, world: World) -> Step:
        rng = self.rng
        ops = self._wired(world) if rng.random() < 0.5 else self._unwired(world)
        scope: dict[str, Any] | None = None
        if rng.random() < 0.6:
            scope = {} if rng.random() < 0.7 else {"rollback_on_error": rng.random() < 0.5}
            if rng.random() < 0.1:
                scope["isolation_level"] = "SERIALIZABLE"
            if rng.random() < 0.1:
                scope["timeout"] = 60
        if rng.random() < 0.2:
            ops = (*ops, self._failing(ops[-1].number + 1))
        mode = rng.choice(("node", "late", "anode"))
        return Step(ops, mode, scope, boom=rng.random() < 0.15)

    def _unwired(self, world: World) -> tuple[Op, ...]:
        found: list[Op] = []
        for _ in range(self.rng.randrange(2, 4)):
            op = self._op(world, self.number + len(found))
            if not any(isinstance(value, Wrong) for value in op.params.values()) and "commit_every" not in op.params:
                found.append(op)
        return tuple(found) or (Op(self.number, "count", "Vendor", {}),)

    def _failing(self, number: int) -> Op:
        """Draw an operation that fails when it runs, not when it is built."""
        rng = self.rng
        if rng.random() < 0.4:
            return Op(number, "read", "Vendor", {"id": v.ghost(rng, "Vendor"), "raise_on_not_found": True})
        if rng.random() < 0.5:
            day = v.draw(rng, "date")
            return Op(number, "create", "Visit", {"id": "nobody", "day": day, "vendor_id": v.ghost(rng, "Vendor")})
        change = {"stock": {"$multiply": 2**62}, "number": {"$divide": 2**61 + 1}}
        return Op(number, "bulk_update", "Part", {"filter": {}, "update": change})

    def _wired(self, world: World) -> tuple[Op, ...]:
        rng, n = self.rng, self.number
        pattern = rng.randrange(5)
        if pattern == 0:
            return (
                Op(n, "create", "Vendor", {"name": v.draw(rng, "str")}),
                Op(n + 1, "create", "Part", {"vendor_id": Wire(n, "id"), "number": v.draw(rng, "int")}),
                Op(n + 2, "bulk_create", "Shelf", {"data": self._shelves(world), "part_id": Wire(n + 1, "id")}),
            )
        if pattern == 1:
            return (
                Op(n, "list", "Part", {"fields": ["id", "ratio", "stock"], "limit": 2}),
                Op(n + 1, "bulk_upsert", "Part", {"data": Wire(n, "records"), "flag": rng.random() < 0.5}),
            )
        if pattern == 2:
            rows = [{"title": v.draw(rng, "str")} for _ in range(rng.randrange(3))]
            return (
                Op(n, "bulk_create", "Part", {"data": rows, "return_ids": True}),
                Op(n + 1, "bulk_delete", "Part", {"ids": Wire(n, "ids")}),
                Op(n + 2, "count", "Part", {}),
            )
        if pattern == 3:
            code = rng.choice(v.DOMAINS["Vendor", "code"])
            return (
                Op(n, "upsert", "Vendor", {"where": {"code": code}, "update": {"rating": {"$inc": 1}}}),
                Op(n + 1, "read", "Vendor", {"record_id": Wire(n, "id"), "include": ["parts"]}),
                Op(n + 2, "update", "Vendor", {"id": Wire(n, "id"), "profile": Wire(n + 1, "name")}),
            )
        return (
            Op(n, "aggregate", "Part", {"aggregate": {"total": {"$sum": "stock"}}}),
            Op(n + 1, "create", "Vendor", {"profile": Wire(n, "groups")}),
            Op(n + 2, "delete", "Vendor", {"record_id": Wire(n + 1, "id")}),
        )

    def _shelves(self, world: World) -> Rows:
        return [
            {name: v.field_value(self.rng, world, "Shelf", name) for name in ("aisle", "slot")}
            for _ in range(self.rng.randrange(1, 3))
        ]
