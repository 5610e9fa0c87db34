"""Changes of updates by shape: which fields, by which operators, with operands drawn anew each time."""

from collections.abc import Sequence
from random import Random
from typing import Any

from dataflow.testing.differential import values as v
from dataflow.testing.differential.conditions import Fill, mapping
from dataflow.testing.differential.models import TABLES
from dataflow.testing.differential.world import World
from dataflow.testing.oracle import NUMERIC, ORDERED

ARITHMETIC = ("$inc", "$dec", "$multiply", "$divide")
SMALL = {"int": (1, 2, 3, -1, 10), "float": (0.5, 2.0, -1.5, 3.0, 1e300), "decimal": (2, -3, 4, 5, 10)}


def operators(kind: str) -> tuple[str, ...]:
    """Return the update operators that a kind takes; ":=" is a plain value."""
    found = [":=", "$set", "$unset"]
    if kind in NUMERIC:
        found += ARITHMETIC
    if kind in ORDERED:
        found += ["$min", "$max"]
    if kind == "json" or kind.startswith("list["):
        found.append("$append")
    return tuple(found)


def operand(shapes: Random, model: str, name: str, op: str) -> Fill:
    """Return a template of the operand of one operator."""
    kind = TABLES[model].kinds[name]
    if op in (":=", "$set"):
        return lambda rng, world: v.field_value(rng, world, model, name)
    if op == "$unset":
        return lambda _rng, _world: ""
    if op == "$append":
        return _appended(shapes, kind, name)
    if op in ("$min", "$max"):
        return lambda rng, world: v.sought(rng, world, model, name)
    forms = {"int": ("int", "int", "float", "decimal"), "float": ("float", "int")}.get(kind, ("decimal", "int"))
    form = shapes.choice(forms)
    if kind == "int" and op in ("$inc", "$dec"):
        form = "int"
    return _number(form, op)


def _number(form: str, op: str) -> Fill:
    def fill(rng: Random, _world: World) -> Any:
        choice = rng.random()
        if choice < 0.7 or (op in ("$divide", "$multiply") and form == "float"):
            value: Any = rng.choice(SMALL[form])
        else:
            value = v.draw(rng, form) or 1
        if op == "$divide" and not value:
            value = 1
        if form == "float":
            return float(value)
        return v.plain_number(value) if form == "decimal" else value

    return fill


def _appended(shapes: Random, kind: str, name: str) -> Fill:
    if kind != "json":
        return lambda rng, _world: v.draw(rng, kind[5:-1], name)
    form = shapes.choice(v.JSON_FORMS)
    return lambda rng, _world: v.json_operand(rng, form)


def changes(shapes: Random, model: str, names: Sequence[str] = (), op: str = "") -> Fill:
    """Return a template of a dict of changes.

    Args:
        shapes: draws the structure.
        model: its fields are changed.
        names: which; some if empty.
        op: one of `operators` for all of them; any if empty.
    """
    table = TABLES[model]
    free = [name for name in table.kinds if name not in table.key]
    chosen = list(names) or shapes.sample(free, min(len(free), shapes.choice((1, 1, 2, 3))))
    flat: dict[str, Fill] = {}
    grouped: dict[str, dict[str, Fill]] = {}
    for name in chosen:
        usable = [each for each in operators(table.kinds[name]) if each != "$unset" or table.nullable(name)]
        if name in table.refs or name == "visit_id":
            usable = [":=", "$set"]
        each = op or shapes.choice(usable)
        one = operand(shapes, model, name, each)
        if each == ":=":
            flat[name] = one
        elif shapes.random() < 0.5:
            flat[name] = mapping({each: one})
        else:
            grouped.setdefault(each, {})[name] = one
    return mapping({**flat, **{each: mapping(inner) for each, inner in grouped.items()}})
