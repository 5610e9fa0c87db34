"""One round trip: a schema with rows is migrated to another schema, and what comes out is held against a fresh build.

A trip is drawn from seeds: of the first schema, and of each edit that leads to the second. Edits can be left out, and
the others still mean something.
"""

import json
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import attrs

from dataflow.catalog import Catalog
from dataflow.changes import Change, Step
from dataflow.dialect import Program
from dataflow.errors import DataFlowError, ForeignKeyError, InputError, IntegrityError, QueryError, SchemaError
from dataflow.migrations.diff import changes
from dataflow.migrations.execution import Limits, MigrationError, nothing, units
from dataflow.migrations.journal import Journal
from dataflow.migrations.plan import Plan, PlannedStep
from dataflow.migrations.preview import text
from dataflow.migrations.proof.benches import Bench
from dataflow.migrations.proof.editing import edited
from dataflow.migrations.proof.rows import Comparison, Rows, compare, inserts, some_rows
from dataflow.migrations.proof.schema import Column, Schema
from dataflow.migrations.renames import Renames
from dataflow.migrations.risk import level_of

_LIMITS = Limits(lock_timeout=10, patience=10, waiting=30)
_LARGE = 1 << 30
_OTHER = 1000
"""The lowest number of parts of a schema that was not made from another by edits."""


@attrs.frozen
class Trip:
    """A schema, another one, and how to get from one to the other.

    Attributes:
        before: the first schema.
        after: the second.
        seed: of the rows, and of values that existing rows get.
        rows: that each table gets, at most.
        large: whether tables are taken for large ones.
        apart: whether each step has a transaction of its own.
    """

    before: Schema
    after: Schema
    seed: int = 0
    rows: int = 8
    large: bool = False
    apart: bool = False


class Divergence(AssertionError):
    """What was promised does not hold; `kind` tells of which kind it is."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(f"{kind}: {what}")
        self.kind = kind


@attrs.define
class Report:
    """What trips did.

    Attributes:
        trips: how many.
        changes: by kind.
        steps: by operation.
        outcomes: of trips.
        numbers: values compared, steps measured …
    """

    trips: int = 0
    changes: Counter[str] = attrs.field(factory=Counter)
    steps: Counter[str] = attrs.field(factory=Counter)
    outcomes: Counter[str] = attrs.field(factory=Counter)
    numbers: Counter[str] = attrs.field(factory=Counter)


def drawn(bench: Bench, seed: int, edits: Sequence[int]) -> Trip:
    """Draw a trip. Edits that lead to a schema which the database refuses are left out.

    Args:
        bench: the database.
        seed: of the first schema.
        edits: seeds of edits; now and then the second schema has nothing to do with the first.
    """
    rng = seeded(seed)
    before = whole(bench, rng, 1)
    while buildable(bench, before):
        before = whole(bench, rng, 1)
    after = before
    if rng.random() < 0.08:
        after = whole(bench, rng, _OTHER)
        after = before if buildable(bench, after) else after
    first = max(before.parts, default=0) + 1
    after = _after(bench, after, edits, first)
    large = bench.drawer.name == "postgres" and rng.random() < 0.4
    return Trip(before, after, seed, some_rows(rng), large, bench.drawer.name == "postgres" and rng.random() < 0.6)


def seeded(seed: object) -> Random:
    """Return a source of random numbers."""
    return Random(str(seed))  # noqa: S311  # a seed, not a secret


def whole(bench: Bench, rng: Random, first: int) -> Schema:
    """Draw a schema."""
    return bench.drawer(rng, first=first).whole(3)


def _after(bench: Bench, schema: Schema, edits: Sequence[int], first: int) -> Schema:
    after = schema
    for seed in edits:
        after = edited(bench.drawer, after, seed, first)
    if not buildable(bench, after):
        return after
    after = schema
    for seed in edits:
        new = edited(bench.drawer, after, seed, first)
        after = after if buildable(bench, new) else new
    return after


def buildable(bench: Bench, schema: Schema) -> str:
    """Return why the database refuses a schema; "" where it does not."""
    try:
        bench.run(bench.editor.desired(bench.built(schema)))
    except DataFlowError as error:
        return str(error)
    return ""


def renames_of(before: Schema, after: Schema) -> Renames:
    """Return what has the same number and another name."""
    tables: dict[str, str] = {}
    columns: dict[str, dict[str, str]] = {}
    for number, part in before.parts.items():
        new = after.parts.get(number)
        if new is None or new.kind != part.kind or new.name == part.name:
            continue
        if part.kind == "table":
            tables[part.name] = new.name
        elif isinstance(part, Column) and new.owner == part.owner:
            columns.setdefault(after.parts[part.owner].name, {})[part.name] = new.name
    return Renames(tables, columns)


class Journey:
    """A trip on its way.

    Args:
        bench: where.
        trip: which.
        report: to which is added what happens.
    """

    def __init__(self, bench: Bench, trip: Trip, report: Report) -> None:
        self.bench = bench
        self.trip = trip
        self.report = report
        self.plan: Plan | None = None
        self.filled: set[tuple[str, str]] = set()
        self.found = Catalog()
        self.wanted = Catalog()
        self.renames = renames_of(trip.before, trip.after)

    def make(self) -> str:
        """Make the trip; return how it ended.

        Raises:
            Divergence: something is not as promised.
        """
        bench, trip = self.bench, self.trip
        bench.start(trip.before)
        self._fill()
        self.found = bench.run(bench.editor.inspect())
        rows = bench.rows(self.found)
        try:
            plan = self._planned()
        except (InputError, SchemaError) as error:
            if error.code in ("name-taken", "cannot-rename"):
                return f"not planned: {error.code}"
            raise
        self.plan = plan
        execution = bench.execution(bench.editor, Journal(bench.dialect), limits=_LIMITS, finish=nothing)
        try:
            bench.run(bench.editor.locked(self._carried_out(execution, plan), timeout=30))
        except (MigrationError, ForeignKeyError) as error:
            return self._refused(error, rows)
        self._check(rows)
        self.report.numbers["steps measured"] += getattr(execution, "measured", 0)
        excesses = getattr(execution, "excesses", ())
        if excesses:
            raise Divergence("more than announced", "; ".join(excesses))
        return "done"

    def _fill(self) -> None:
        bench = self.bench
        drawer = bench.drawer(seeded(self.trip.seed), self.trip.before)
        for sql in inserts(self.trip.before, drawer, bench.dialect.quote, self.trip.rows):
            try:
                bench.execute(sql)
                self.report.numbers["rows"] += 1
            except (IntegrityError, QueryError):
                self.report.numbers["rows that constraints refused"] += 1

    # -- the plan -------------------------------------------------------------------------------------------------
    def _planned(self) -> Plan:
        bench = self.bench
        found = self.found
        self.wanted = bench.run(bench.editor.desired(bench.built(self.trip.after)))
        if self.trip.large:
            tables = {name: attrs.evolve(t, bytes=0 if t.empty else _LARGE) for name, t in found.tables.items()}
            found = attrs.evolve(found, tables=tables)
        some = changes(
            found, self.wanted, renames=self.renames, values=self._values(), loose=bench.dialect.references_ahead
        )
        self.report.changes.update(change.kind for change in some)
        self.filled = {(c.table, c.name) for c in some if c.kind == "alter_column" and _fills(c)}
        steps = bench.editor.steps(found, self.wanted, some)
        self.report.steps.update(step.operation for step in steps)
        if self.trip.apart:
            steps = [attrs.evolve(s, mode="apart" if s.mode == "together" else s.mode) for s in steps]
        plan = Plan(bench.dialect.name, found.fingerprint, tuple(PlannedStep(step, level_of(step)) for step in steps))
        return Plan.from_dict(json.loads(json.dumps(plan.to_dict())))

    def _values(self) -> dict[tuple[str, str], str]:
        """Return what existing rows get: a column's default, or what a user would have said."""
        drawer = self.bench.drawer(seeded(self.trip.seed), self.trip.after)
        values = {
            (name, column.name): column.default
            for name, table in self.wanted.tables.items()
            for column in table.columns.values()
            if column.default is not None and not column.nullable
        }
        for part in self.trip.after.parts.values():
            if isinstance(part, Column) and part.generated is None and drawer.chance(0.6):
                value = drawer.pick(drawer.values(part.type))
                key = (self.trip.after.parts[part.owner].name, part.name)
                if key not in values and not part.nullable and not part.identity:
                    values[key] = f"'{value}'" if drawer.name == "postgres" else value
        return values

    def _carried_out(self, execution: Any, plan: Plan) -> Program[None]:
        yield from self.bench.editor.clear([planned.step for planned in plan.steps])
        yield from execution.run(plan)

    # -- what came of it --------------------------------------------------------------------------------------------
    def _refused(self, error: DataFlowError, rows: Rows) -> str:
        """See whether a failure was announced, and whether it left everything as it was."""
        assert self.plan is not None
        steps = [planned.step for planned in self.plan.steps]
        failed = getattr(error, "step", "")
        unit = next((u for u in units(steps) if ", ".join(steps[n].summary for n in u.positions) == failed), None)
        concerned = steps if unit is None else [steps[n] for n in unit.positions]
        cause = error.__cause__ if isinstance(error, MigrationError) else error
        if not _by_data(cause):
            raise Divergence("failed", str(error)) from error
        if not any(step.fails_on_data != "no" for step in concerned):
            raise Divergence("refused by data, unannounced", str(error)) from error
        undone = getattr(error, "undone", True)
        if undone and "values may have changed" in error.hint:
            return "refused by data, undone but for values"
        if undone:
            self._as_before(rows)
        return f"refused by data, {'undone' if undone else 'partly done'}"

    def _as_before(self, rows: Rows) -> None:
        found = self.bench.run(self.bench.editor.inspect())
        if found != self.found:
            raise Divergence("not undone", _difference(changes(found, self.found)))
        filled = list(() if self.bench.editor.whole else self.filled)  # filling is not undone
        back = {new: old for old, new in self.renames.tables.items()}
        filled = [(back.get(table, table), self._old(table, column)) for table, column in filled]
        wrong = compare((self.found, rows), (found, self.bench.rows(found)), Renames(), filled).wrong
        if wrong:
            raise Divergence("rows not as before", "; ".join(wrong))

    def _old(self, table: str, column: str) -> str:
        names = self.renames.columns.get(table, {})
        return next((old for old, new in names.items() if new == column), column)

    def _check(self, rows: Rows) -> None:
        bench = self.bench
        now = bench.run(bench.editor.inspect())
        left = changes(now, self.wanted, loose=bench.dialect.references_ahead)
        if left:
            raise Divergence("second difference", _difference(left))
        compared = compare((self.found, rows), (now, bench.rows(now)), self.renames, self.filled)
        self._count(compared)
        if compared.wrong:
            raise Divergence("rows", "; ".join(compared.wrong))
        assert self.plan is not None
        if compared.lost and not any(planned.step.data_loss != "none" for planned in self.plan.steps):
            raise Divergence("loss, unannounced", ", ".join(sorted(compared.lost)))
        dumps = bench.dumps(self.trip.after)
        if dumps[0] != dumps[1]:
            extra = [line for line in dumps[0] if line not in dumps[1]]
            lacking = [line for line in dumps[1] if line not in dumps[0]]
            raise Divergence(
                "dump", "\n  migrated: {}\n  fresh:    {}".format(*map("\n            ".join, (extra, lacking)))
            )
        damage = bench.damage()
        if damage:
            raise Divergence("damage", "; ".join(damage))

    def _count(self, compared: Comparison) -> None:
        self.report.numbers["values that stayed"] += compared.kept
        self.report.numbers["values in a new type"] += compared.cast
        self.report.numbers["columns not compared"] += compared.skipped


def _fills(change: Change) -> bool:
    """Tell whether rows may get a value: one that was given, or a number where SQLite makes keys of its own."""
    return change.before.nullable and not change.after.nullable


def _by_data(error: BaseException | None) -> bool:
    if isinstance(error, IntegrityError):
        return True
    if not isinstance(error, QueryError):
        return False
    return error.code == "arithmetic" or error.message.startswith("the database refused a value")


def _difference(some: Sequence[Change]) -> str:
    return "; ".join(f"{c.kind} {c.table}.{c.name}: {c.before!r} -> {c.after!r}" for c in some)


def travel(bench: Bench, trip: Trip, report: Report) -> tuple[str, Plan | None]:
    """Make a trip; return how it ended, and its plan.

    Raises:
        Divergence: something is not as promised; its notes hold the plan.
    """
    journey = Journey(bench, trip, report)
    report.trips += 1
    try:
        outcome = journey.make()
    except Divergence as divergence:
        if journey.plan is not None:
            divergence.add_note(text(journey.plan))
        raise
    except Exception as error:
        found = Divergence("failed", f"{type(error).__name__}: {error}")
        if journey.plan is not None:
            found.add_note(text(journey.plan))
        raise found from error
    report.outcomes[outcome] += 1
    return outcome, journey.plan


__all__ = ["Divergence", "Report", "Step", "Trip", "drawn", "travel"]
