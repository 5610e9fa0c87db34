"""Filter documents by shape: a template fixes structure, operators and types; filling it draws the values.

A database compiles each shape once, so templates are drawn from pools that are large but finite, and filled anew each
time.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from dataflow.testing.differential import values as v
from dataflow.testing.differential.models import TABLES
from dataflow.testing.differential.world import World
from dataflow.testing.oracle import ORDERED, RELATIONS
from dataflow.testing.oracle.pools import KEYS, LETTERS, LIKES, PATTERNS

Fill = Callable[[Random, World], Any]
LOGIC = ("$and", "$or", "$nor")
COMMON = ("=", "=None", "$eq", "$ne", "$in", "$nin", "$exists", "$null", "$not", *LOGIC)
RANGES = ("$gt", "$gte", "$lt", "$lte", "$between")
TEXT = ("$like", "$ilike", "$regex", "$iregex", "$startswith", "$endswith")
LISTS = ("$contains", "$overlap")
LIKE_PARTS = ("%", "_", "a", "A", "b", "é", "É", "*", "[", "?", "\\\\", "\\%", "\\_", "\\a", "\n")


def operators(kind: str) -> tuple[str, ...]:
    """Return the filter operators that a kind takes; "=" is a plain value, "=None" a plain None."""
    if kind == "json":
        return (*COMMON, *RANGES, *TEXT, *LISTS)
    if kind.startswith("list["):
        return (*COMMON, *LISTS)
    if kind == "str":
        return (*COMMON, *RANGES, *TEXT, "$contains")
    return (*COMMON, *RANGES) if kind in ORDERED else COMMON


def constant(value: Any) -> Fill:
    """Fill in the same value always."""
    return lambda _rng, _world: value


def every(parts: Sequence[Fill]) -> Fill:
    """Fill a list."""
    return lambda rng, world: [part(rng, world) for part in parts]


def mapping(parts: dict[str, Fill]) -> Fill:
    """Fill a dict."""
    return lambda rng, world: {name: part(rng, world) for name, part in parts.items()}


def field(model: str, name: str, form: str) -> Fill:
    """Fill in an operand for a field."""
    return lambda rng, world: v.sought(rng, world, model, name, form)


def _text(op: str) -> Fill:
    def fill(rng: Random, _world: World) -> str:
        if op in ("$regex", "$iregex"):
            return rng.choice(PATTERNS)[0]
        if op in ("$like", "$ilike"):
            return rng.choice(LIKES) if rng.random() < 0.6 else "".join(rng.choices(LIKE_PARTS, k=rng.randrange(5)))
        return "".join(rng.choices(LETTERS, k=rng.randrange(3)))

    return fill


def _element(model: str, name: str) -> Fill:
    def fill(rng: Random, world: World) -> Any:
        held = v.stored(rng, world, model, name)
        if held and rng.random() < 0.6:
            return rng.choice(held)
        kind = TABLES[model].kinds[name][5:-1]
        value = v.draw(rng, kind, name)
        return float(value) if kind == "float" else value

    return fill


def condition(shapes: Random, model: str, name: str, op: str = "", depth: int = 1) -> Fill:
    """Return a template of what stands under a field.

    Args:
        shapes: draws the structure.
        model: of the field.
        name: of the field.
        op: one of `operators`; any if empty.
        depth: levels of logic.
    """
    kind = TABLES[model].kinds[name]
    usable = [each for each in operators(kind) if depth or each not in ("$not", *LOGIC)]
    op = op or shapes.choice(usable)
    if op == "=None":
        return constant(None)
    if op in LOGIC:
        return mapping({op: every([condition(shapes, model, name, "", depth - 1) for _ in range(2)])})
    if op == "$not":
        inner = shapes.choice(usable)
        if inner in ("=", "=None") or kind == "json":
            return mapping({op: operand(shapes, model, name, "$eq")})
        return mapping({op: condition(shapes, model, name, inner, depth - 1)})
    one = operand(shapes, model, name, op)
    return one if op == "=" else mapping({op: one})


def operand(shapes: Random, model: str, name: str, op: str) -> Fill:
    """Return a template of the operand of one operator."""
    kind = TABLES[model].kinds[name]
    if op in ("$exists", "$null"):
        return constant(shapes.random() < 0.5)
    if op in TEXT or (op == "$contains" and kind == "str"):
        return _text(op)
    if kind == "json":
        return _json_operand(shapes, op)
    forms = v.FORMS.get(kind, ("plain",)) if name not in TABLES[model].refs else ("plain",)
    if op in LISTS:
        item = _element(model, name)
        return item if op == "$contains" else every([item] * shapes.choice((0, 1, 2, 3)))
    if op in ("$in", "$nin"):
        parts = [field(model, name, shapes.choice(forms)) for _ in range(shapes.choice((0, 1, 2, 3, 5)))]
        return every([*parts, *([constant(None)] if shapes.random() < 0.3 else [])])
    if op == "$between":
        return every([field(model, name, shapes.choice(forms)), field(model, name, shapes.choice(forms))])
    if op in ("$eq", "$ne") and shapes.random() < 0.15:
        return constant(None)
    return field(model, name, shapes.choice(forms))


def _json_operand(shapes: Random, op: str) -> Fill:
    def leaf(forms: Sequence[str]) -> Fill:
        form = shapes.choice(forms)
        return lambda rng, _world: v.json_operand(rng, form)

    if op in ("$in", "$nin", "$overlap"):
        return every([leaf(v.JSON_FORMS) for _ in range(shapes.choice((0, 1, 2, 3)))])
    if op == "$between":
        forms = shapes.choice((("str",), ("int", "float")))
        return every([leaf(forms), leaf(forms)])
    if op in RANGES:
        return leaf(("int", "float", "str"))
    if op == "$contains":
        return leaf([form for form in v.JSON_FORMS if form != "null"])
    return leaf([form for form in v.JSON_FORMS if op != "=" or form not in ("dict", "null")])


def field_filter(shapes: Random, model: str, name: str, op: str = "", depth: int = 1) -> Fill:
    """Return a template of a filter on one field; a JSON field may be entered by dots or by nesting."""
    inner = condition(shapes, model, name, op, depth)
    if TABLES[model].kinds[name] != "json":
        return mapping({name: inner})
    path = shapes.choices(KEYS[:4], k=shapes.choice((0, 0, 1, 1, 2)))
    if shapes.random() < 0.5:
        return mapping({".".join([name, *path]): inner})
    for key in reversed([*path, *([shapes.choice(KEYS)] if path and shapes.random() < 0.5 else [])]):
        inner = mapping({key: inner})
    return mapping({name: inner})


def relation_filter(shapes: Random, model: str, depth: int) -> Fill:
    """Return a template of a filter through a relation."""
    name = shapes.choice(list(RELATIONS[model]))
    choice = shapes.randrange(6)
    if choice == 0:
        return mapping({name: constant(None)})
    if choice == 1:
        return mapping({name: mapping({shapes.choice(("$exists", "$null")): constant(shapes.random() < 0.5)})})
    inner = document(shapes, RELATIONS[model][name][0], depth - 1)
    if choice < 4:
        return mapping({name: inner})

    def dotted(rng: Random, world: World) -> Any:
        return {f"{name}.{key}": value for key, value in inner(rng, world).items() if not key.startswith("$")}

    return dotted


def document(shapes: Random, model: str, depth: int = 2) -> Fill:
    """Return a template of a filter document: fields, JSON members, relations, logic."""
    parts = []
    for _ in range(shapes.choice((1, 1, 2))):
        choice = shapes.random()
        if depth and choice < 0.2 and RELATIONS[model]:
            parts.append(relation_filter(shapes, model, depth))
        elif depth and choice < 0.4:
            op = shapes.choice(("$not", *LOGIC))
            inner = [document(shapes, model, depth - 1) for _ in range(1 if op == "$not" else shapes.choice((1, 2, 3)))]
            parts.append(mapping({op: inner[0] if op == "$not" else every(inner)}))
        else:
            name = shapes.choice(list(TABLES[model].kinds))
            parts.append(field_filter(shapes, model, name, depth=min(depth, 1)))

    def fill(rng: Random, world: World) -> Any:
        return {key: value for part in parts for key, value in part(rng, world).items()}

    return fill
