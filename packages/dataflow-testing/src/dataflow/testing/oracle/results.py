"""Order and aggregates of rows in plain Python, and how results are compared."""

import fractions
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any, Self

from dataflow.testing.oracle.filters import Row, holds, json_equal
from dataflow.testing.oracle.models import FIELDS, INT_MAX, INT_MIN
from dataflow.testing.oracle.values import key_of, plain_decimal

FUNCTIONS = ("$sum", "$avg", "$min", "$max", "$count", "$count_distinct")
Sort = Sequence[tuple[str, bool]]
"""(name, descending) pairs."""


class Near(float):
    """A float that was added up: any order of adding is right.

    Attributes:
        magnitude: sum of the absolute values; 1e-12 of it is the tolerance.
    """

    magnitude: float

    def __new__(cls, value: float, magnitude: float) -> Self:
        """Make one."""
        self = super().__new__(cls, value)
        self.magnitude = magnitude
        return self


class Overflow(Exception):
    """The sum of a group does not fit its type: the database must say so.

    Attributes:
        certain: False where only some order of adding up overflows.
    """

    def __init__(self, *, certain: bool) -> None:
        super().__init__()
        self.certain = certain


def rank(value: Any) -> tuple[bool, Any]:
    """Return what values of one field are ordered by: None first."""
    return (False, 0) if value is None else (True, key_of(value))


def ordered(rows: Sequence[Row], sort: Sort, key: Sequence[str] = ("id",)) -> list[Any]:
    """Sort rows by (name, descending) pairs and then by key: NULLs first when ascending, last when descending."""
    found = list(rows)
    names = [name for name, _ in sort]
    for name, descending in reversed([*sort, *((part, False) for part in key if part not in names)]):
        found.sort(key=_ranked(name), reverse=descending)
    return found


def _ranked(name: str) -> Callable[[Row], Any]:
    return lambda row: rank(row[name])


def aggregated(rows: Sequence[Row], asked: Mapping[str, Any], model: str = "Thing") -> list[dict[str, Any]]:
    """Answer an aggregate: parameters group_by, aggregate, having, sort (a list of one-item dicts), limit.

    Raises:
        Overflow: a sum of any group leaves the range of its type.
    """
    names = list(asked.get("group_by", ()))
    kinds = {name: FIELDS[model][name] for name in names}
    kinds |= {name: _result_kind(item, model) for name, item in asked["aggregate"].items()}
    grouped: dict[Any, list[Row]] = {} if names else {(): []}
    for row in rows:
        grouped.setdefault(tuple(row[name] for name in names), []).append(row)
    out = []
    for key, members in grouped.items():
        record = dict(zip(names, key, strict=True))
        for name, item in asked["aggregate"].items():
            ((function, field),) = item.items()
            record[name] = _aggregate(function, field, members, FIELDS[model].get(field, ""))
        out.append(record)
    out = [record for record in out if _having(asked.get("having", {}), record, kinds)]
    sort = [(name, direction == -1) for item in asked.get("sort", ()) for name, direction in item.items()]
    return ordered(out, sort, names)[: asked.get("limit")]


def _result_kind(item: Mapping[str, str], model: str) -> str:
    ((function, field),) = item.items()
    kind = FIELDS[model].get(field, "int")
    if function in ("$count", "$count_distinct"):
        return "int"
    return "float" if function == "$avg" and kind == "int" else kind


def _having(document: Mapping[str, Any], record: Mapping[str, Any], kinds: Mapping[str, str]) -> bool:
    def one(name: str, value: Any) -> bool:
        if name == "$not":
            return not _having(value, record, kinds)
        if name in ("$and", "$or", "$nor"):
            found = [_having(branch, record, kinds) for branch in value]
            return all(found) if name == "$and" else any(found) is (name == "$or")
        return holds(value, record[name], kinds[name])

    return all(one(name, value) for name, value in document.items())


def _aggregate(function: str, field: str, rows: Sequence[Row], kind: str) -> Any:
    if field == "*":
        return len(rows)
    found = [row[field] for row in rows if row[field] is not None]
    if function == "$count":
        return len(found)
    if function == "$count_distinct":
        return _distinct(kind, found)
    if function in ("$min", "$max"):
        return (min if function == "$min" else max)(found, key=key_of) if found else None
    if function == "$avg" and not found:
        return None
    return _total(kind, found) if function == "$sum" else _average(kind, found)


def _distinct(kind: str, found: Sequence[Any]) -> int:
    if kind != "json" and not kind.startswith("list["):
        return len({key_of(value) for value in found})
    same: Callable[[Any, Any], bool] = json_equal if kind == "json" else lambda one, other: bool(one == other)
    different: list[Any] = []
    for value in found:
        if not any(same(value, other) for other in different):
            different.append(value)
    return len(different)


def _total(kind: str, found: Sequence[Any]) -> Any:
    if kind == "float":
        return _float(found)
    if kind == "decimal":
        return plain_decimal(_exact(found))
    total = sum(found)
    if not INT_MIN <= total <= INT_MAX:
        raise Overflow(certain=True)
    return total


def _exact(found: Sequence[Decimal]) -> Decimal:
    total = Decimal(0)
    for value in found:
        total = Context(prec=500).add(total, value)
    return total


def _float(found: Sequence[float]) -> Near:
    exact = sum((fractions.Fraction(value) for value in found), fractions.Fraction(0))
    magnitude = sum((abs(fractions.Fraction(value)) for value in found), fractions.Fraction(0))
    try:
        total = float(exact)
    except OverflowError:
        raise Overflow(certain=True) from None
    if magnitude > sys.float_info.max:
        raise Overflow(certain=False)
    return Near(total, float(magnitude))


def _average(kind: str, found: Sequence[Any]) -> Any:
    if kind == "decimal":
        average = Context(prec=28, rounding=ROUND_HALF_UP).divide(_exact(found), Decimal(len(found)))
        return plain_decimal(average)
    if kind == "float":
        total = _float(found)
        return Near(total / len(found), total.magnitude / len(found))
    average_of_ints = sum(found) / len(found)
    return Near(average_of_ints, abs(average_of_ints))


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
