"""Hypothesis strategies for the models `Thing` and `Maker`: rows, filters, sorts, aggregates.

Needs hypothesis (extra `hypothesis`); the rest of the oracle does not.
"""

import functools
import string
from datetime import datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from dataflow.testing.oracle.models import ENUMS, FIELDS, NUMERIC, ORDERED, RELATIONS
from dataflow.testing.oracle.pools import KEYS, LETTERS, LIKES, MEMBERS, PATTERNS, POOLS, TEXTS, WORDS
from dataflow.testing.oracle.results import FUNCTIONS
from dataflow.testing.oracle.values import stored_text

documents = st.recursive(
    st.sampled_from(MEMBERS[1:]),
    lambda inner: (
        st.dictionaries(st.sampled_from(KEYS), st.none() | inner, max_size=3) | st.lists(st.none() | inner, max_size=3)
    ),
    max_leaves=5,
)


@functools.cache
def values(name: str, kind: str) -> st.SearchStrategy[Any]:
    """Values of a field, never None."""
    if kind == "json":
        return documents
    if kind.startswith("list["):
        return st.lists(values(name, kind[5:-1]), max_size=3)
    if kind == "enum":
        return st.sampled_from(list(ENUMS[name]))
    if name == "text":
        return st.sampled_from(TEXTS) | st.text(LETTERS, max_size=4)
    return st.sampled_from(WORDS if name == "words" else POOLS[kind])


@functools.cache
def _rows(model: str, most: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    given = {name: values(name, kind) for name, kind in FIELDS[model].items() if name != "id"}
    if model == "Thing":
        given["maker_id"] = st.integers(1, 4)
    some = st.lists(st.sampled_from(sorted(given)), max_size=10, unique=True)
    row = some.flatmap(lambda names: st.fixed_dictionaries({name: given[name] for name in names}))
    return st.lists(row, max_size=most)


@st.composite
def tables(draw: st.DrawFn, *, things: int = 6, makers: int = 3) -> dict[str, list[dict[str, Any]]]:
    """Rows of both models, in an order that is not that of their keys; most fields of a row are None."""
    found = {}
    for model, most in (("Maker", makers), ("Thing", things)):
        rows = draw(_rows(model, most))
        up = draw(st.booleans())
        keys = range(1, len(rows) + 1) if up else range(len(rows), 0, -1)
        nothing = dict.fromkeys(FIELDS[model])
        found[model] = [{**nothing, **row, "id": key} for key, row in zip(keys, rows, strict=True)]
    return found


def _as_text(value: Any) -> st.SearchStrategy[Any]:
    """Write an operand as the ISO text that filters take as well."""
    texts = [value.isoformat()]
    if isinstance(value, datetime) and 1 < value.year < 9999:
        texts += [
            value.astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat(),
            value.replace(tzinfo=None).isoformat(),
            value.date().isoformat(),
        ]
    return st.sampled_from([value, *texts])


likes = st.lists(st.sampled_from([*LETTERS.replace("\\", ""), "\\\\", "\\%", "\\_", "\\a"]), max_size=4).map("".join)


@functools.cache
def operands(name: str, kind: str) -> st.SearchStrategy[Any]:
    """What a filter may compare a field with: its values, and what converts to them."""
    plain = values(name, kind)
    if kind in ("datetime", "date", "time"):
        return plain.flatmap(_as_text)
    if kind in ("float", "decimal"):
        return plain | st.integers(-2, 2)
    if kind == "uuid":
        return plain | plain.map(str)
    if kind == "enum":
        return plain | plain.map(stored_text)
    return plain


@functools.cache
def conditions(name: str, kind: str, depth: int = 2) -> st.SearchStrategy[Any]:
    """What may stand under a field."""
    one = operands(name, kind)
    ops: dict[str, st.SearchStrategy[Any]] = {
        "$eq": st.none() | one,
        "$ne": st.none() | one,
        "$in": st.lists(st.none() | one, max_size=5),
        "$nin": st.lists(st.none() | one, max_size=5),
        "$exists": st.booleans(),
        "$null": st.booleans(),
    }
    if kind in ORDERED:
        ops |= dict.fromkeys(("$gt", "$gte", "$lt", "$lte"), one)
        ops["$between"] = st.tuples(one, one).map(list)
    if kind == "str":
        ops |= dict.fromkeys(("$startswith", "$endswith", "$contains"), one | st.text(LETTERS, max_size=2))
        ops |= dict.fromkeys(("$like", "$ilike"), st.sampled_from(LIKES) | likes)
        ops |= dict.fromkeys(("$regex", "$iregex"), st.sampled_from(PATTERNS).map(lambda pair: pair[0]))
    if kind.startswith("list["):
        ops["$contains"] = operands(name, kind[5:-1])
        ops["$overlap"] = st.lists(operands(name, kind[5:-1]), max_size=3)
    document = st.lists(st.sampled_from(sorted(ops)), min_size=1, max_size=2, unique=True).flatmap(
        lambda chosen: st.fixed_dictionaries({op: ops[op] for op in chosen})
    )
    found = st.none() | one | document if kind != "enum" or name != "level" else one | document
    return found if not depth else found | nested(conditions(name, kind, 0))


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """$not $and $or $nor around something."""
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        inner.map(functools.partial(_under, "$not")),
        *(several.map(functools.partial(_under, op)) for op in ("$and", "$or", "$nor")),
    )


def _under(key: str, value: Any) -> dict[str, Any]:
    return {key: value}


@functools.cache
def member_conditions(depth: int = 2) -> st.SearchStrategy[Any]:
    """What may stand under a JSON member, or under a whole document (where a dict would name members)."""
    any_value = st.sampled_from(MEMBERS) | documents
    scalar = st.sampled_from([item for item in MEMBERS if not isinstance(item, (dict, list))])
    ordered = st.sampled_from(
        [item for item in MEMBERS if isinstance(item, (int, float, str)) and item not in (True, False)]
    )
    texts = st.sampled_from(("", "a", "A", "b", "é"))
    ops: dict[str, st.SearchStrategy[Any]] = {
        "$eq": any_value,
        "$ne": any_value,
        "$in": st.lists(any_value, max_size=5),
        "$nin": st.lists(any_value, max_size=5),
        "$exists": st.booleans(),
        "$null": st.booleans(),
        **dict.fromkeys(("$gt", "$gte", "$lt", "$lte"), ordered),
        "$between": st.one_of(
            st.tuples(*[ordered.filter(lambda item: isinstance(item, str))] * 2),
            st.tuples(*[ordered.filter(lambda item: not isinstance(item, str))] * 2),
        ).map(list),
        **dict.fromkeys(("$startswith", "$endswith"), texts),
        **dict.fromkeys(("$like", "$ilike"), st.sampled_from(LIKES)),
        **dict.fromkeys(("$regex", "$iregex"), st.sampled_from(PATTERNS).map(lambda pair: pair[0])),
        "$contains": any_value.filter(lambda item: item is not None),
        "$overlap": st.lists(any_value, max_size=3),
    }
    document = st.lists(st.sampled_from(sorted(ops)), min_size=1, max_size=2, unique=True).flatmap(
        lambda chosen: st.fixed_dictionaries({op: ops[op] for op in chosen})
    )
    found = scalar | st.lists(scalar, max_size=2) | document
    if not depth:
        return found
    below = st.dictionaries(st.sampled_from(KEYS), member_conditions(depth - 1), min_size=1, max_size=2)
    return found | nested(member_conditions(0)) | below


@functools.cache
def filters(model: str = "Thing", depth: int = 3) -> st.SearchStrategy[dict[str, Any]]:
    """Filter documents: fields, JSON members (nested and dotted), relations (nested and dotted), logic."""
    parts = [_field_filters(model)]
    if depth:
        parts += [nested(filters(model, depth - 1)).map(dict), _relation_filters(model, depth - 1)]
    return st.lists(st.one_of(*parts), min_size=1, max_size=2).map(
        lambda found: {key: value for part in found for key, value in part.items()}
    )


def _field_filters(model: str) -> st.SearchStrategy[dict[str, Any]]:
    dotted = st.lists(st.sampled_from(KEYS[:4]), max_size=2).map(".".join)
    found = []
    for name, kind in FIELDS[model].items():
        if kind == "json":
            pairs = st.tuples(dotted, member_conditions())
            found += [pairs.map(functools.partial(_member, name))] * 3
        else:
            found.append(conditions(name, kind).map(functools.partial(_under, name)))
    return st.one_of(*found).map(dict)  # a mapped strategy is one choice among others, not as many as it has branches


def _member(name: str, pair: tuple[str, Any]) -> dict[str, Any]:
    path, condition = pair
    return {f"{name}.{path}" if path else name: condition}


def _dotted(relation: str, inner: dict[str, Any]) -> dict[str, Any]:
    return {f"{relation}.{key}": value for key, value in inner.items() if key[0] != "$"}


def _relation_filters(model: str, depth: int) -> st.SearchStrategy[dict[str, Any]]:
    flags = st.sampled_from([{"$exists": True}, {"$exists": False}, {"$null": True}, None, {}])
    found = []
    for relation, (target, *_) in RELATIONS[model].items():
        inner = filters(target, depth)
        found += [
            flags.map(functools.partial(_under, relation)),
            inner.map(functools.partial(_under, relation)),
            inner.map(functools.partial(_dotted, relation)),
        ]
    return st.one_of(*found).map(dict)  # a mapped strategy is one choice among others, not as many as it has branches


def sorts(model: str = "Thing") -> st.SearchStrategy[list[tuple[str, bool]]]:
    """Sorts by up to three fields."""
    names = sorted(name for name, kind in FIELDS[model].items() if kind in (*ORDERED, "bool"))
    return st.lists(st.tuples(st.sampled_from(names), st.booleans()), max_size=3, unique_by=lambda pair: pair[0])


@st.composite
def aggregates(draw: st.DrawFn, model: str = "Thing") -> dict[str, Any]:
    """Parameters of an aggregate: group_by, aggregate, having, sort, limit."""
    fields = FIELDS[model]
    groups = draw(
        st.lists(
            st.sampled_from(sorted(name for name, kind in fields.items() if kind in (*ORDERED, "bool"))),
            max_size=2,
            unique=True,
        )
    )
    found: dict[str, Any] = {}
    for name in string.ascii_lowercase[: draw(st.integers(1, 3))]:
        function = draw(st.sampled_from(FUNCTIONS))
        kinds = {"$sum": NUMERIC, "$avg": NUMERIC, "$min": ORDERED, "$max": ORDERED}.get(function, (*ORDERED, "bool"))
        usable = sorted(field for field, kind in fields.items() if kind in kinds)
        found[f"x_{name}"] = {function: draw(st.sampled_from(["*", *usable] if function == "$count" else usable))}
    names = [*groups, *found]
    sort = draw(st.lists(st.tuples(st.sampled_from(names), st.booleans()), max_size=2, unique_by=lambda pair: pair[0]))
    counts = [name for name, item in found.items() if next(iter(item)).startswith("$count")]
    having: dict[str, Any] = {}
    if bool(counts) and draw(st.booleans()):
        having = {draw(st.sampled_from(counts)): draw(conditions("number", "int", 0).filter(lambda c: c is not None))}
    return {
        "group_by": groups,
        "aggregate": found,
        "sort": [{name: -1 if descending else 1} for name, descending in sort],
        **({"having": having} if having else {}),
        **({"limit": draw(st.integers(0, 3))} if draw(st.booleans()) else {}),
    }
