"""An operation for each cell of the coverage table, so that none stays empty by bad luck."""

from collections.abc import Mapping, Sequence
from functools import cache
from random import Random
from typing import Any

from dataflow.testing.differential import conditions, updates
from dataflow.testing.differential import values as v
from dataflow.testing.differential.conditions import Fill, mapping
from dataflow.testing.differential.coverage import FILTERED, RELATION_OPERATORS, UPDATING, Cell, allowed
from dataflow.testing.differential.models import TABLES
from dataflow.testing.differential.parts import Template, both, key, key_parts, key_value, op_of
from dataflow.testing.differential.world import World
from dataflow.testing.oracle import FUNCTIONS, RELATIONS


@cache
def assignable() -> Sequence[Cell]:
    """Return the cells that get an operation of their own, in a mixed order that is always the same."""
    found = [cell for cell in allowed() if cell[1] not in ("(run as)", "*")]
    Random("cells").shuffle(found)  # noqa: S311
    return found


def _fields(kind: str, *, nullable: bool) -> list[tuple[str, str]]:
    return [
        (model, name)
        for model, table in TABLES.items()
        for name, own in table.kinds.items()
        if own == kind and name not in (*table.refs, *table.key, "visit_id") and (table.nullable(name) or not nullable)
    ]


def _known_keys(model: str, name: str) -> list[tuple[str, ...]]:
    """Return the unique keys that a user can know beforehand, without those that hold a field."""
    table = TABLES[model]
    return [key for key in table.keys if name not in key and (key != ("id",) or not table.auto)]


@cache
def template(cell: Cell) -> Template:
    """Return the template of an operation that touches a cell."""
    node, kind, op = cell
    draws = Random("/".join(cell))  # noqa: S311
    if kind == "relation":
        return _relation(draws, node, op)
    fields = _fields(kind, nullable=op in ("$unset", "None", "=None"))
    if node in ("delete", "bulk_delete"):  # vendors are referred to, so that many cannot be removed
        fields = [(model, name) for model, name in fields if model != "Vendor"] or fields
    if node in ("upsert", "bulk_upsert"):
        fields = [(model, name) for model, name in fields if _known_keys(model, name)]
    model, name = draws.choice(fields)
    if op in ("value", "None"):
        return _writing(draws, node, model, name, none=op == "None")
    if node in UPDATING and op in updates.operators(kind):
        return _updating(draws, node, model, name, op)
    if node == "having":
        return _having(draws, model, name, op)
    if node == "aggregate" and (op in ("group_by", "sort asc", "sort desc") or op in FUNCTIONS):
        return _aggregating(draws, model, name, op)
    if op.startswith(("sort", "cursor")):
        parts = {"sort": conditions.constant([{name: 1 if op.endswith("asc") else -1}])}
        parts |= {"limit": conditions.constant(1)} if op.startswith("cursor") else {}
        return op_of("list", model, mapping(parts))
    return _filtering(draws, node, model, conditions.field_filter(draws, model, name, op))


def some_rows(rng: Random, world: World, model: str) -> list[dict[str, Any]]:
    """Draw rows to make sure that questions meet some."""
    table = TABLES[model]
    free = [name for name in table.kinds if name not in table.required and not (table.auto and name == "id")]
    found = []
    for _ in range(rng.randrange(3, 7)):
        names = [*table.required, *rng.sample(free, rng.randrange(len(free) + 1))]
        found.append({name: v.field_value(rng, world, model, name) for name in names})
    return found


def _filtering(draws: Random, node: str, model: str, document: Fill) -> Template:
    """Put a filter into the params of a node."""
    parts: dict[str, Fill] = {draws.choice(FILTERED[node]): document}
    if node in ("update", "bulk_update"):
        table = TABLES[model]
        kept = {*table.key, *table.foreign, *table.refs, *(name for key in table.uniques for name in key)}
        free = [name for name in table.kinds if name not in kept]
        parts["values" if node == "update" else "update"] = updates.changes(draws, model, [draws.choice(free)], ":=")
    if node == "aggregate":
        parts["aggregate"] = conditions.constant({"n": {"$count": "*"}})
    if node == "bulk_delete":
        parts["confirmed"] = conditions.constant(value=True)
    return op_of(node, model, mapping(parts))


def _relation(draws: Random, node: str, op: str) -> Template:
    model = draws.choice([model for model in TABLES if RELATIONS[model]])
    name = draws.choice(list(RELATIONS[model]))
    inner: Mapping[str, Fill] = {
        "=None": conditions.constant(None),
        "=": conditions.document(draws, RELATIONS[model][name][0], 0),
        "$exists": mapping({"$exists": conditions.constant(draws.random() < 0.5)}),
        "$null": mapping({"$null": conditions.constant(draws.random() < 0.5)}),
    }
    assert set(inner) == set(RELATION_OPERATORS)
    return _filtering(draws, node, model, mapping({name: inner[op]}))


def _updating(draws: Random, node: str, model: str, name: str, op: str) -> Template:
    changes = updates.changes(draws, model, [name], op)
    if node == "update":
        return op_of(node, model, both(key(draws, model), mapping({"values": changes})))
    if node == "bulk_update":
        return op_of(node, model, mapping({"filter": key_parts(model), "update": changes}))
    if node == "bulk_update rows":
        one = key_parts(model)

        def rows(rng: Random, world: World) -> list[Any]:
            return [{**one(rng, world), **changes(rng, world)}]

        return op_of("bulk_update", model, mapping({"data": rows}))
    table = TABLES[model]
    names = next(key for key in table.keys if key != ("id",) or not table.auto)

    def upsert(rng: Random, world: World) -> dict[str, Any]:
        needed = {each: v.field_value(rng, world, model, each) for each in table.required if each not in names}
        where = key_value(rng, world, model, names)
        return {"where": where, "create": needed, "update": changes(rng, world)}

    return op_of(node, model, upsert)


def _writing(draws: Random, node: str, model: str, name: str, *, none: bool) -> Template:
    table = TABLES[model]
    keys = _known_keys(model, name)
    names = draws.choice(keys) if keys else table.key

    def row(rng: Random, world: World) -> dict[str, Any]:
        found = {each: v.field_value(rng, world, model, each) for each in table.required}
        if node in ("upsert", "bulk_upsert"):
            found |= key_value(rng, world, model, names)
        if none:
            return {**found, name: None}
        value = None
        while value is None:
            value = v.field_value(rng, world, model, name)
        return {**found, name: value}

    def params(rng: Random, world: World) -> dict[str, Any]:
        values = row(rng, world)
        if node == "create":
            return {"values": values}
        if node == "upsert":
            where = {each: values.pop(each) for each in names}
            return {"where": where, "create": values}
        return {"data": [values], **({"key_fields": list(names)} if node == "bulk_upsert" else {})}

    return op_of(node, model, params)


def _having(draws: Random, model: str, name: str, op: str) -> Template:
    parts = {
        "group_by": conditions.constant([name]),
        "aggregate": conditions.constant({"n": {"$count": "*"}}),
        "having": mapping({name: conditions.condition(draws, model, name, op)}),
    }
    return op_of("aggregate", model, mapping(parts))


def _aggregating(draws: Random, model: str, name: str, op: str) -> Template:
    if op in FUNCTIONS:
        items = {"x": {op: name}}
        groupable = [each for each in TABLES[model].key if each != name]
        groups = [groupable[0]] if groupable and draws.random() < 0.3 else []
        parts = {"aggregate": conditions.constant(items)}
        if groups:
            parts["group_by"] = conditions.constant(groups)
        return op_of("aggregate", model, mapping(parts))
    direction = {"sort": conditions.constant([{name: -1 if op == "sort desc" else 1}])} if op != "group_by" else {}
    parts = {"group_by": conditions.constant([name]), "aggregate": conditions.constant({"n": {"$count": "*"}})}
    return op_of("aggregate", model, mapping({**parts, **direction}))
