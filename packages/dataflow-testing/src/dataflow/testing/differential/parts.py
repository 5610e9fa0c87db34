"""Parts that templates of operations share: which record, which values, which options.

Everything that decides the SQL is fixed by a template; values are drawn each time it is filled.
"""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from dataflow.testing.differential import values as v
from dataflow.testing.differential.conditions import Fill, document
from dataflow.testing.differential.models import TABLES
from dataflow.testing.differential.programs import Op, Ref
from dataflow.testing.differential.world import World

Template = Callable[[Random, World, int], Op]
"""(values, state of the tables, number of the operation) -> operation."""


def op_of(kind: str, model: str, params: Fill) -> Template:
    """Turn a template of params into one of an operation."""
    return lambda rng, world, number: Op(number, kind, model, params(rng, world))


def options(shapes: Random, choices: Mapping[str, tuple[float, Sequence[Any]]]) -> dict[str, Fill]:
    """Choose options: name -> (probability, values); the value is fixed with the shape."""
    found: dict[str, Fill] = {}
    for name, (chance, usable) in choices.items():
        if shapes.random() < chance:
            value = shapes.choice(usable)
            found[name] = lambda _rng, _world, value=value: value  # type: ignore[misc]
    return found


def key_parts(model: str) -> Fill:
    """Return a template of a key as a dict: mostly one that exists."""
    table = TABLES[model]

    def fill(rng: Random, world: World) -> dict[str, Any]:
        rows = list(world.tables[model].values())
        if rows and rng.random() < 0.8:
            row = rng.choice(rows)
            return {name: row[name] for name in table.key}
        if table.auto:
            return {"id": v.ghost(rng, model)}
        return {name: rng.choice(v.DOMAINS[model, name]) for name in table.key}

    return fill


def key(shapes: Random, model: str) -> Fill:
    """Return a template of params that name one record, in one of the spellings."""
    parts = key_parts(model)
    names = TABLES[model].key
    spelling = shapes.choice(("id", "record_id", "dict", "top" if len(names) > 1 else "id"))

    def fill(rng: Random, world: World) -> dict[str, Any]:
        found = parts(rng, world)
        if spelling == "top":
            return dict(found)
        if spelling == "dict":
            return {"id": found}
        return {spelling: found[names[0]] if len(names) == 1 else tuple(found.values())}

    return fill


def key_value(rng: Random, world: World, model: str, names: Sequence[str]) -> dict[str, Any]:
    """Return values of a unique key, never None."""
    if names == ("id",) and TABLES[model].auto:
        return {"id": some_id(rng, world, model) or v.new_id(world, model)}
    rows = list(world.tables[model].values())
    if rows and rng.random() < 0.5:
        row = rng.choice(rows)
        if None not in [row[name] for name in names]:
            return {name: row[name] for name in names}
    return {name: rng.choice(v.DOMAINS[model, name]) for name in names}


def some_id(rng: Random, world: World, model: str) -> Ref | None:
    """Return an id for a new record: new, taken, or None for one that the database gives."""
    choice = rng.random()
    if choice < 0.15:
        return None
    if choice < 0.3 and world.tables[model]:
        return v.reference(rng, world, model, orphans=0)
    return v.new_id(world, model, rng.randrange(30))


def one_record(shapes: Random, model: str, *, keyed: float, spelling: Sequence[str] = ("conditions",)) -> Fill:
    """Return a template of params that name one record by key, or by conditions."""
    if shapes.random() < keyed:
        return key(shapes, model)
    name = shapes.choice(spelling)
    inner = document(shapes, model, 1)

    def fill(rng: Random, world: World) -> dict[str, Any]:
        return {name: inner(rng, world) or {TABLES[model].key[0]: {"$exists": True}}}

    return fill


def both(*parts: Fill) -> Fill:
    """Join templates of params."""
    return lambda rng, world: {key: value for part in parts for key, value in part(rng, world).items()}


def chosen_fields(shapes: Random, model: str, most: int = 6) -> list[str]:
    """Choose the fields to give a new record."""
    table = TABLES[model]
    free = [name for name in table.kinds if name not in table.required and not (table.auto and name == "id")]
    found = [*table.required, *shapes.sample(free, shapes.randrange(min(most, len(free)) + 1))]
    shapes.shuffle(found)
    return found


def written(model: str, names: Sequence[str], *, explicit: bool = False) -> Fill:
    """Return a template of values to write; `explicit`: an auto id is given, mostly a new one."""

    def fill(rng: Random, world: World) -> dict[str, Any]:
        found = {name: v.field_value(rng, world, model, name) for name in names}
        return {**found, "id": some_id(rng, world, model)} if explicit else found

    return fill
