"""What filters, sorts, pages and aggregates mean, once more, in plain Python over lists of dicts.

Knows SPEC §4 and nothing of DataFlow's inside: `declare` registers two related models through the public decorator,
`rows` and the other strategies make data and questions, `matches`, `ordered` and `aggregated` answer them. A dialect is
right when it gives the same answers; so this module serves any database.
"""

import enum
import fractions
import functools
import json
import math
import re
import string
import sys
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

INT_MIN, INT_MAX = -(2**63), 2**63 - 1


class Color(enum.Enum):
    """An enum stored by value, whose order by text is not its order of definition."""

    RED = "red"
    GREEN = "green"
    DEEP_BLUE = "Blue"


class Level(enum.Enum):
    """An enum that is stored by name, because not all values are texts."""

    LOW = 1
    HIGH = "zz"
    MIDDLE = 2.5


KINDS = {
    "number": "int",
    "ratio": "float",
    "text": "str",
    "flag": "bool",
    "raw": "bytes",
    "moment": "datetime",
    "day": "date",
    "clock": "time",
    "price": "decimal",
    "token": "uuid",
    "color": "enum",
    "level": "enum",
    "document": "json",
    "words": "list[str]",
    "numbers": "list[int]",
    "ratios": "list[float]",
    "prices": "list[decimal]",
    "days": "list[date]",
    "blobs": "list[bytes]",
    "colors": "list[enum]",
    "tokens": "list[uuid]",
    "flags": "list[bool]",
}
FIELDS = {
    "Thing": {"id": "int", "maker_id": "int", **KINDS},
    "Maker": {"id": "int", "name": "str", "rating": "float", "document": "json", "words": "list[str]"},
}
RELATIONS = {
    "Thing": {"maker": ("Maker", "maker_id", "id", False)},
    "Maker": {"things": ("Thing", "id", "maker_id", True)},
}
"""model -> relation -> (target, field here, field there, whether it leads to several)."""
ORDERED = ("int", "float", "str", "bytes", "datetime", "date", "time", "decimal", "uuid", "enum")
NUMERIC = ("int", "float", "decimal")


def declare(db: Any) -> None:
    """Register the two models on an instance. Every field is nullable, and things may have makers that do not exist."""

    @db.model
    class Maker:
        name: str | None
        rating: float | None
        document: Any = None
        words: list[str] | None

    @db.model
    class Thing:
        maker_id: int | None
        number: int | None
        ratio: float | None
        text: str | None
        flag: bool | None
        raw: bytes | None
        moment: datetime | None
        day: date | None
        clock: time | None
        price: Decimal | None
        token: UUID | None
        color: Color | None
        level: Level | None
        document: Any = None
        words: list[str] | None
        numbers: list[int] | None
        ratios: list[float] | None
        prices: list[Decimal] | None
        days: list[date] | None
        blobs: list[bytes] | None
        colors: list[Color] | None
        tokens: list[UUID] | None
        flags: list[bool] | None

    del Maker, Thing


# -- values: small pools, so that filters hit, with the edges among them ---------------------------------------------
TEXTS = (
    "",
    "a",
    "A",
    "ab",
    "aB",
    "b",
    "ba",
    "é",
    "É",
    "z",
    "ä\nb",
    "a%",
    "a_b",
    "a*?[",
    "\\",
    "100",
    "日本",
    "😀",
    "\uffff",
)
WORDS = ("", "a", "b", "é", '"', "\\", "😀")
POOLS: dict[str, tuple[Any, ...]] = {
    "int": (INT_MIN, -7, -1, 0, 1, 2, 3, 2**53 + 1, INT_MAX),
    "float": (-1e308, -1.5, -5e-324, 0.0, 5e-324, 0.1, 0.30000000000000004, 1.0, 2.0, 1e16, 1.7976931348623157e308),
    "str": TEXTS,
    "bool": (True, False),
    "bytes": (b"", b"\0", b"\0a", b"a", b"\x7f", b"\xff", b"\xff\0"),
    "datetime": (
        datetime.min.replace(tzinfo=UTC),
        datetime(2025, 1, 30, 23, 59, 59, 999999, UTC),
        datetime(2025, 1, 31, tzinfo=UTC),
        datetime(2025, 1, 31, 12, 30, 0, 1, UTC),
        datetime(2025, 1, 31, 23, 59, 59, 999999, UTC),
        datetime(2025, 2, 1, tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
    ),
    "date": (date.min, date(2025, 1, 30), date(2025, 1, 31), date(2025, 2, 1), date.max),
    "time": (time.min, time(12), time(12, 30), time(12, 30, 0, 1), time.max),
    "decimal": tuple(
        map(
            Decimal,
            (
                "-1E+20",
                "-2",
                "-1.5",
                "0",
                "0.0000000000000000000000001",
                "1",
                "1.10",
                "2",
                "10",
                "19.990000000000000001",
                "19.990000000000000002",
                "9" * 40,
            ),
        )
    ),
    "uuid": tuple(UUID(int=n) for n in (0, 1, 2**64, 2**127, 2**128 - 1)),
}
ENUMS = {"color": Color, "level": Level, "colors": Color}
MEMBERS: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    1.0,
    -1.5,
    2,
    0.1,
    10**20,
    1e20,
    "",
    "a",
    "A",
    "ab",
    "é",
    "1",
    [],
    {},
)
"""Values of JSON members."""
KEYS = ("a", "b", "é", 'q"t', "b\\s", "n\nl", "", "0")
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


# -- filters ----------------------------------------------------------------------------------------------------------
PATTERNS = (
    ("a", "a"),
    ("^a", r"\Aa"),
    ("b$", r"b\Z"),
    ("^$", r"\A\Z"),
    ("a.b", r"a[^\n]b"),
    ("[a-c]+", "[a-c]+"),
    ("[^a]", "[^a]"),
    (r"\d{2,}", "[0-9]{2,}"),
    (r"\bab?\b", r"(?a:\bab?\b)"),
    ("(?:a|é)B?", "(?:a|é)B?"),
    (r"\\", r"\\"),
    ("", ""),
)
"""(pattern of the shared language, what it means to Python's `re`)."""
LETTERS = "aAbéÉ%_*?[]^\\\n😀"
LIKES = ("%", "_", "a%", "%b", "%a%", "a_b", "a\\%", "a\\_b", "%\\\\%", "", "%*?[%", "__", "É", "a%%b")


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
        inner.map(lambda one: {"$not": one}),
        *(several.map(lambda branches, op=op: {op: branches}) for op in ("$and", "$or", "$nor")),
    )


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
            found += [pairs.map(lambda pair, name=name: {f"{name}.{pair[0]}" if pair[0] else name: pair[1]})] * 3
        else:
            found.append(conditions(name, kind).map(lambda under, name=name: {name: under}))
    return st.one_of(*found).map(dict)  # a mapped strategy is one choice among others, not as many as it has branches


def _relation_filters(model: str, depth: int) -> st.SearchStrategy[dict[str, Any]]:
    flags = st.sampled_from([{"$exists": True}, {"$exists": False}, {"$null": True}, None, {}])
    found = []
    for relation, (target, *_) in RELATIONS[model].items():
        inner = filters(target, depth)
        found += [
            flags.map(lambda flag, relation=relation: {relation: flag}),
            inner.map(lambda under, relation=relation: {relation: under}),
            inner.map(lambda under, relation=relation: {f"{relation}.{k}": v for k, v in under.items() if k[0] != "$"}),
        ]
    return st.one_of(*found).map(dict)  # a mapped strategy is one choice among others, not as many as it has branches


# -- the meaning of filters -------------------------------------------------------------------------------------------
def stored_text(member: enum.Enum) -> str:
    """Return the text an enum member is stored, compared and ordered by."""
    by_value = all(isinstance(one.value, str) for one in type(member))
    return str(member.value) if by_value else member.name


def matches(document: dict[str, Any], row: dict[str, Any], model: str, data: dict[str, list[dict[str, Any]]]) -> bool:
    """Tell whether a row satisfies a filter document.

    Two truth values are enough: a comparison with NULL is false, and what negates a part asks whether it is true.
    """
    return all(_entry(key, value, row, model, data) for key, value in document.items())


def _entry(key: str, value: Any, row: dict[str, Any], model: str, data: dict[str, list[dict[str, Any]]]) -> bool:
    if key in ("$and", "$or", "$nor", "$not"):
        return _logic(key, value, lambda part: matches(part, row, model, data))
    head, _, path = key.partition(".")
    if head in RELATIONS[model]:
        target, here, there, _many = RELATIONS[model][head]
        related = [other for other in data[target] if row[here] is not None and other[there] == row[here]]
        if path:
            return any(_entry(path, value, other, target, data) for other in related)
        if value is None or value in ({"$exists": False}, {"$null": True}):
            return not related
        if value in ({"$exists": True}, {"$null": False}):
            return bool(related)
        return any(matches(value, other, target, data) for other in related)
    kind = FIELDS[model][head]
    if kind == "json":
        return _member(value, row[head], path.split(".") if path else [])
    return _field(value, row[head], kind)


def _logic(op: str, value: Any, test: Any) -> bool:
    if op == "$not":
        return not test(value)
    results = [test(branch) for branch in value]
    return {"$and": all, "$or": any, "$nor": lambda found: not any(found)}[op](results)


def _field(condition: Any, value: Any, kind: str) -> bool:
    if not isinstance(condition, dict):
        return _compare("$eq", condition, value, kind)
    return all(
        _logic(op, operand, lambda part: _field(part, value, kind))
        if op in ("$and", "$or", "$nor", "$not")
        else _compare(op, operand, value, kind)
        for op, operand in condition.items()
    )


def _compare(op: str, operand: Any, value: Any, kind: str) -> bool:
    if op in ("$exists", "$null"):
        return (value is not None) is (operand if op == "$exists" else not operand)
    if op in ("$eq", "$ne"):
        same = value is None if operand is None else value is not None and key_of(value) == _operand(operand, kind)
        return same is (op == "$eq")
    if op in ("$in", "$nin"):
        found = any(_compare("$eq", item, value, kind) for item in operand)
        return found is (op == "$in")
    if value is None:
        return False
    if op == "$between":
        return _operand(operand[0], kind) <= key_of(value) <= _operand(operand[1], kind, end=True)
    if op in ("$gt", "$gte", "$lt", "$lte"):
        return _ordered(op, key_of(value), _operand(operand, kind, end=op == "$lte"))
    if kind.startswith("list["):
        wanted = [_operand(item, kind[5:-1]) for item in (operand if op == "$overlap" else [operand])]
        return any(key_of(item) in wanted for item in value)
    return _text(op, operand, value)


def _ordered(op: str, one: Any, other: Any) -> bool:
    return {"$gt": one > other, "$gte": one >= other, "$lt": one < other, "$lte": one <= other}[op]


def _operand(operand: Any, kind: str, *, end: bool = False) -> Any:
    """Convert an operand as the accepted conversions say, to what `key_of` gives for values."""
    if isinstance(operand, list):
        return [_operand(item, kind[5:-1]) for item in operand]
    if isinstance(operand, str) and kind in ("datetime", "date", "time"):
        if kind == "datetime":
            operand = _moment(operand, end=end)
        else:
            operand = {"date": date, "time": time}[kind].fromisoformat(operand)
    if kind == "float":
        return float(operand)
    if isinstance(operand, str) and kind == "uuid":
        return UUID(operand)
    return key_of(operand)


def _moment(text: str, *, end: bool) -> datetime:
    value = datetime.fromisoformat(text)
    if end and len(text) == len("2025-01-31"):
        value = datetime.combine(value.date(), time.max)
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _text(op: str, operand: str, value: str) -> bool:
    if op in ("$startswith", "$endswith", "$contains"):
        name = {"$startswith": "startswith", "$endswith": "endswith", "$contains": "__contains__"}[op]
        return bool(getattr(value, name)(operand))
    flags = re.IGNORECASE if op in ("$ilike", "$iregex") else 0
    if op in ("$like", "$ilike"):
        return re.fullmatch(like(operand), value, flags | re.DOTALL) is not None
    return re.search(dict(PATTERNS)[operand], value, flags) is not None


def like(pattern: str) -> str:
    r"""Turn a LIKE pattern into a regular expression: % is any run, _ one character, \ takes the next literally."""
    out = ""
    rest = iter(pattern)
    for char in rest:
        out += {"%": ".*", "_": "."}.get(char) or re.escape(next(rest) if char == "\\" else char)
    return out


MISSING = object()


def _member(condition: Any, value: Any, path: list[str]) -> bool:
    """Apply a condition to the member of a JSON document; None as the whole document is SQL's NULL."""
    if not isinstance(condition, dict):
        return _json("$eq", condition, value, path)
    parts = []
    for op, operand in condition.items():
        if op in ("$and", "$or", "$nor") or (op == "$not" and isinstance(operand, dict)):
            parts.append(_logic(op, operand, lambda part: _member(part, value, path)))
        elif op == "$not":
            parts.append(_json("$ne", operand, value, path))
        elif op.startswith("$"):
            parts.append(_json(op, operand, value, path))
        else:
            parts.append(_member(operand, value, [*path, *op.split(".")]))
    return all(parts)


def _reach(value: Any, path: list[str]) -> Any:
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return MISSING
        value = value[key]
    return MISSING if value is None and not path else value


def _json(op: str, operand: Any, document: Any, path: list[str]) -> bool:
    value = _reach(document, path)
    if op == "$exists":
        return (value is not MISSING) is operand
    if op == "$null":
        return (value is MISSING or value is None) is operand
    if op in ("$eq", "$ne"):
        same = (value is MISSING or value is None) if operand is None else json_equal(value, operand)
        return same is (op == "$eq")
    if op in ("$in", "$nin"):
        return any(_json("$eq", item, document, path) for item in operand) is (op == "$in")
    if value is MISSING:
        return False
    if op == "$between":
        return _json("$gte", operand[0], document, path) and _json("$lte", operand[1], document, path)
    if op in ("$gt", "$gte", "$lt", "$lte"):
        return json_type(value) == json_type(operand) and _ordered(op, value, operand)
    if op == "$contains":
        return (
            operand in value if isinstance(value, str) and isinstance(operand, str) else json_contains(value, operand)
        )
    if op == "$overlap":
        return isinstance(value, list) and any(json_equal(item, wanted) for item in value for wanted in operand)
    return isinstance(value, str) and _text(op, operand, value)


def json_type(value: Any) -> str:
    """Name the JSON type of a value."""
    if value is None or isinstance(value, bool):
        return repr(type(value))
    if isinstance(value, (int, float)):
        return "number"
    return {str: "string", list: "array", dict: "object"}.get(type(value), "nothing")


def json_equal(one: Any, other: Any) -> bool:
    """Compare JSON values: numbers by value, true and false never with numbers."""
    if json_type(one) != json_type(other):
        return False
    if isinstance(one, dict):
        return set(one) == set(other) and all(json_equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(json_equal, one, other))
    return bool(one == other)


def json_contains(outer: Any, inner: Any) -> bool:
    """Tell whether a document contains another: members of objects, elements of lists in any order, at any depth."""
    if isinstance(outer, list) and not isinstance(inner, list):
        return any(_within(item, inner) for item in outer)
    return _within(outer, inner)


def _within(outer: Any, inner: Any) -> bool:
    if isinstance(outer, dict) and isinstance(inner, dict):
        return all(key in outer and _within(outer[key], inner[key]) for key in inner)
    if isinstance(outer, list) and isinstance(inner, list):
        return all(any(_within(item, wanted) for item in outer) for wanted in inner)
    return json_equal(outer, inner)


# -- order and pages --------------------------------------------------------------------------------------------------
def key_of(value: Any) -> Any:
    """Return what a value is compared by."""
    if isinstance(value, enum.Enum):
        return stored_text(value)
    return [key_of(item) for item in value] if isinstance(value, list) else value


def ordered(
    rows: list[dict[str, Any]], sort: list[tuple[str, bool]], key: tuple[str, ...] = ("id",)
) -> list[dict[str, Any]]:
    """Sort rows by (name, descending) pairs and then by key: NULLs first when ascending, last when descending."""
    found = list(rows)
    names = [name for name, _ in sort]
    for name, descending in reversed([*sort, *((part, False) for part in key if part not in names)]):
        found.sort(
            key=lambda row, name=name: (row[name] is not None, 0 if row[name] is None else key_of(row[name])),
            reverse=descending,
        )
    return found


def sorts(model: str = "Thing") -> st.SearchStrategy[list[tuple[str, bool]]]:
    """Sorts by up to three fields."""
    names = sorted(name for name, kind in FIELDS[model].items() if kind in (*ORDERED, "bool"))
    return st.lists(st.tuples(st.sampled_from(names), st.booleans()), max_size=3, unique_by=lambda pair: pair[0])


# -- aggregates -------------------------------------------------------------------------------------------------------
FUNCTIONS = ("$sum", "$avg", "$min", "$max", "$count", "$count_distinct")


class Overflow(Exception):
    """The sum of a group does not fit its type: the database must say so.

    Attributes:
        certain: False where only some order of adding up overflows.
    """

    def __init__(self, *, certain: bool) -> None:
        super().__init__()
        self.certain = certain


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
    if counts and draw(st.booleans()):
        having = {draw(st.sampled_from(counts)): draw(conditions("number", "int", 0).filter(lambda c: c is not None))}
    return {
        "group_by": groups,
        "aggregate": found,
        "sort": [{name: -1 if descending else 1} for name, descending in sort],
        **({"having": having} if having else {}),
        **({"limit": draw(st.integers(0, 3))} if draw(st.booleans()) else {}),
    }


def aggregated(rows: list[dict[str, Any]], asked: dict[str, Any], model: str = "Thing") -> list[dict[str, Any]]:
    """Answer an aggregate.

    Raises:
        Overflow: a sum of any group leaves the range of its type.
    """
    names = asked["group_by"]
    grouped: dict[Any, list[dict[str, Any]]] = {} if names else {(): []}
    for row in rows:
        grouped.setdefault(tuple(row[name] for name in names), []).append(row)
    out = []
    for key, members in grouped.items():
        record = dict(zip(names, key, strict=True))
        for name, item in asked["aggregate"].items():
            ((function, field),) = item.items()
            record[name] = _aggregate(function, field, members, FIELDS[model].get(field, ""))
        out.append(record)
    out = [
        record for record in out if all(_field(c, record[name], "int") for name, c in asked.get("having", {}).items())
    ]
    sort = [(name, direction == -1) for item in asked["sort"] for name, direction in item.items()]
    return ordered(out, sort, tuple(names))[: asked.get("limit")]


def _aggregate(function: str, field: str, rows: list[dict[str, Any]], kind: str) -> Any:
    if field == "*":
        return len(rows)
    found = [row[field] for row in rows if row[field] is not None]
    if function == "$count":
        return len(found)
    if function == "$count_distinct":
        return len({key_of(value) for value in found})
    if function in ("$min", "$max"):
        return (min if function == "$min" else max)(found, key=key_of) if found else None
    if function == "$avg" and not found:
        return None
    return _total(kind, found) if function == "$sum" else _average(kind, found)


def _total(kind: str, found: list[Any]) -> Any:
    if kind == "float":
        return _float(found)
    if kind == "decimal":
        return _exact(found)
    total = sum(found)
    if not INT_MIN <= total <= INT_MAX:
        raise Overflow(certain=True)
    return total


def _exact(found: list[Decimal]) -> Decimal:
    total = Decimal(0)
    for value in found:
        total = Context(prec=200).add(total, value)
    return total


def _float(found: list[float]) -> float:
    if abs(sum(map(fractions.Fraction, found))) > sys.float_info.max:
        raise Overflow(certain=True)
    if sum(map(fractions.Fraction, map(abs, found))) > sys.float_info.max:
        raise Overflow(certain=False)
    return math.fsum(found)


def _average(kind: str, found: list[Any]) -> Any:
    if kind == "decimal":
        return Context(prec=28, rounding=ROUND_HALF_EVEN).divide(_exact(found), Decimal(len(found)))
    return _float(found) / len(found) if kind == "float" else sum(found) / len(found)


def same_number(got: Any, expected: Any, magnitude: float) -> bool:
    """Compare results: floats to 1e-12 relative to the magnitude of what was added up, everything else exactly."""
    if isinstance(expected, float):
        return type(got) is float and math.isclose(got, expected, rel_tol=1e-12, abs_tol=1e-12 * magnitude)
    return type(got) is type(expected) and got == expected


def canonical(value: Any) -> str:
    """Write a value so that two texts are equal exactly if type and value are (1, 1.0 and True differ)."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {canonical(value[key])}" for key in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(canonical, value)) + "]"
    return f"{type(value).__name__}({value!r})"
