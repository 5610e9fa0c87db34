"""Create, update, delete, upsert on the oracle's tables."""

from collections.abc import Mapping
from typing import Any

from dataflow.testing.differential.changes import changed, read_changes
from dataflow.testing.differential.models import TABLES
from dataflow.testing.differential.programs import Ambiguous, Failure, Op
from dataflow.testing.differential.reads import Params, target
from dataflow.testing.differential.world import Key, Row, World

NOT_FOUND = ("NotFoundError", "not-found")
CONTROLS = ("id", "record_id", "conditions", "filter", "values", "fields", "raise_on_not_found")


def create(world: World, op: Op, params: Params) -> Row:
    """Insert a record."""
    given = {name: value for name, value in params.items() if name != "values"} | dict(params.get("values", {}))
    return dict(world.insert(op.model, world.fresh(op.model, given, op.number), op.number))


def change_rows(world: World, op: Op, rows: list[Row], update: Mapping[str, Any]) -> list[Row]:
    """Update rows as one statement does; return them as they are then.

    Raises:
        Ambiguous: several kinds of errors are possible, and which comes first is open.
    """
    table = TABLES[op.model]
    changes = read_changes(update)
    new: dict[Key, Row] = {}
    failures: list[Failure] = []
    for row in rows:
        try:
            new[world.key(table, row)] = changed(op.model, row, changes, op.number)
        except Failure as failure:
            failures.append(failure)
    if failures:
        before = world.snapshot()
        try:
            world.change(op.model, new)
        except Failure:
            raise Ambiguous from None
        finally:
            world.restore(before)
        raise failures[0]
    world.change(op.model, new)
    return list(new.values())


def update(world: World, op: Op, params: Params) -> Row:
    """Change a record, or all that match."""
    key_names = TABLES[op.model].key
    rows, key = target(world, op, params)
    inner = params.get("values", params.get("fields", {}))
    top = {name: value for name, value in params.items() if name not in (*CONTROLS, *key_names)}
    if not rows:
        if params.get("raise_on_not_found"):
            raise Failure(*NOT_FOUND)
        return {**(key or {}), "updated": 0}
    done = change_rows(world, op, rows, {**top, **inner})
    return {**done[0], "updated": len(done)}


def delete(world: World, op: Op, params: Params) -> Row:
    """Remove a record, or all that match."""
    table = TABLES[op.model]
    rows, key = target(world, op, params)
    world.remove(op.model, [world.key(table, row) for row in rows])
    named = dict(key) if key is not None else {name: rows[0][name] for name in table.key if rows}
    out = {"deleted": len(rows), **named}
    if named and "id" not in table.columns:
        out["id"] = tuple(named[name] for name in table.key)
    return out


def upsert(world: World, op: Op, params: Params) -> Row:
    """Update the record with a unique key, or create it."""
    where = dict(params["where"])
    new = {**where, **params.get("create", {})}
    named = set(params.get("conflict_on", where))
    key = next(names for names in TABLES[op.model].keys if set(names) == named)
    wanted = world.fresh(op.model, {name: new[name] for name in key}, op.number)
    rows = [row for row in world.rows(op.model) if all(row[name] == wanted[name] for name in key)]
    if not rows:
        return {**world.insert(op.model, world.fresh(op.model, new, op.number), op.number), "created": True}
    changes = params.get("update")
    if changes is None:
        changes = {name: value for name, value in new.items() if name not in (*key, *TABLES[op.model].key)}
    if changes:
        rows = change_rows(world, op, rows, changes)
    return {**rows[0], "created": False}
