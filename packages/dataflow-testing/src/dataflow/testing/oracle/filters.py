"""What filter documents mean, once more, in plain Python over lists of dicts.

Knows SPEC §4 and nothing of DataFlow's inside. A dialect is right when it finds the same rows.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from typing import Any
from uuid import UUID

from dataflow.testing.oracle.models import FIELDS, RELATIONS
from dataflow.testing.oracle.pools import PATTERNS
from dataflow.testing.oracle.values import key_of

Row = Mapping[str, Any]
Data = Mapping[str, Sequence[Row]]
"""model -> rows."""


def matches(document: Mapping[str, Any], row: Row, model: str, data: Data) -> bool:
    """Tell whether a row satisfies a filter document.

    Two truth values are enough: a comparison with NULL is false, and what negates a part asks whether it is true.
    """
    return all(_entry(key, value, row, model, data) for key, value in document.items())


def _entry(key: str, value: Any, row: Row, model: str, data: Data) -> bool:
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
    return holds(value, row[head], kind)


def _logic(op: str, value: Any, test: Callable[[Any], bool]) -> bool:
    if op == "$not":
        return not test(value)
    results = [test(branch) for branch in value]
    if op == "$and":
        return all(results)
    return any(results) is (op == "$or")


def holds(condition: Any, value: Any, kind: str) -> bool:
    """Tell whether what stands under a field holds for its value."""
    if not isinstance(condition, dict):
        return _compare("$eq", condition, value, kind)
    return all(
        _logic(op, operand, lambda part: holds(part, value, kind))
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
        low, high = _operand(operand[0], kind), _operand(operand[1], kind, end=True)
        return bool(low <= key_of(value) <= high)
    if op in ("$gt", "$gte", "$lt", "$lte"):
        return _ordered(op, key_of(value), _operand(operand, kind, end=op == "$lte"))
    if kind.startswith("list["):
        wanted = [_operand(item, kind[5:-1]) for item in (operand if op == "$overlap" else [operand])]
        return any(key_of(item) in wanted for item in value)
    return _text(op, operand, value)


def _ordered(op: str, one: Any, other: Any) -> bool:
    return bool({"$gt": one > other, "$gte": one >= other, "$lt": one < other, "$lte": one <= other}[op])


def _operand(operand: Any, kind: str, *, end: bool = False) -> Any:
    """Convert an operand as the accepted conversions say, to what `key_of` gives for values."""
    if isinstance(operand, (list, tuple)):
        return [_operand(item, kind[5:-1]) for item in operand]
    if isinstance(operand, str) and kind == "datetime":
        operand = _moment(operand, end=end)
    if isinstance(operand, str) and kind in ("date", "time"):
        operand = date.fromisoformat(operand) if kind == "date" else time.fromisoformat(operand)
    if isinstance(operand, datetime):
        return operand.astimezone(UTC)
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
    names: dict[type, str] = {str: "string", list: "array", dict: "object"}
    return names.get(type(value), "nothing")


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
