"""The SQL functions and collations each connection gets.

They are used in queries only, never in stored DDL, so that files open in any other SQLite tool.
"""

import json
import math
import re
import sqlite3
import threading
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Context, Decimal, Inexact, InvalidOperation
from functools import lru_cache
from typing import Any

from dataflow.jsontext import dump_json, load_json
from dataflow.types import INT_MAX, INT_MIN, ValueRefused, canonical_decimal

_FAULT = threading.local()
EXACT = Context(prec=140_000, Emax=999_999, Emin=-999_999)
AVERAGE = Context(prec=28, rounding=ROUND_HALF_UP)
"""Significant digits of a Decimal average; a half is rounded away from zero, as PostgreSQL does."""


def take_fault() -> str:
    """Return and forget why a function of ours failed on this thread; sqlite3 itself does not tell."""
    fault = getattr(_FAULT, "text", "")
    _FAULT.text = ""
    return fault


class Refused(ValueError):
    """A function or collation of ours cannot go on; the message holds no stored value."""


def _refuse(text: str) -> Any:
    _FAULT.text = text
    raise Refused(text)


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _regexp(pattern: str | None, text: Any) -> bool | None:
    if pattern is None or not isinstance(text, str):  # a JSON member may be a number, and AND has no order in SQL
        return None
    return _compiled(pattern).search(text) is not None


@lru_cache(maxsize=4096)
def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except (InvalidOperation, ValueError, TypeError):
        return Decimal(str(_refuse("a stored value is not a Decimal")))


def _compare(left: str, right: str) -> int:
    one, other = _decimal(left), _decimal(right)
    return (one > other) - (one < other)


def _number(value: Any) -> Decimal:
    return Decimal(value) if isinstance(value, (int, str)) else Decimal(repr(value))


def decimal_text(value: Decimal) -> str:
    """Write a Decimal the one way it is stored."""
    try:
        return format(canonical_decimal(value), "f")
    except ValueRefused as refused:
        return str(_refuse(refused.message))


def _arithmetic(op: str, left: Any, right: Any, kind: str) -> Any:
    """Compute exactly; `kind` is the field's: int or decimal."""
    if left is None or right is None:
        return None
    one, other = _number(left), _number(right)
    if op == "/":
        if not other:
            return _refuse("division by zero")
        try:
            result = Context(prec=60, traps=[Inexact]).divide(one, other)
        except Inexact:
            what = "a whole number" if kind == "int" else "an exact Decimal"
            return _refuse(f"the result is not {what}; nothing is rounded silently")
    else:
        result = {"+": EXACT.add, "-": EXACT.subtract, "*": EXACT.multiply}[op](one, other)
    if kind != "int":
        return decimal_text(result)
    if result != result.to_integral_value():
        return _refuse("the result is not a whole number; nothing is rounded silently")
    whole = int(result)
    return whole if INT_MIN <= whole <= INT_MAX else _refuse("the result does not fit in 64 bits")


def _multiply_float(left: float | None, right: float | None) -> float | None:
    return None if left is None or right is None else _visible(left * right, zero=not left or not right)


def _divide_float(left: float | None, right: float | None) -> float | None:
    if left is None or right is None:
        return None
    return _visible(left / right, zero=not left) if right else _refuse("division by zero")


def _visible(value: float, *, zero: bool) -> float | None:
    """Refuse a result that is 0 only because floats end; `zero`: whether 0 is right."""
    return value if value or zero else _refuse("the result is too small for a float")


def _finite(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else _refuse("the result is too large for a float")


def _whole(high: int | None, low: int | None) -> int:
    """Join a sum of integers whose upper and lower 32 bits were added up apart."""
    total = ((high or 0) << 32) + (low or 0)
    return total if INT_MIN <= total <= INT_MAX else _refuse("the sum does not fit in 64 bits")


def _average(high: int | None, low: int | None, count: int) -> float | None:
    return None if high is None or low is None else ((high << 32) + low) / count


def _overflow() -> None:
    _refuse("the result does not fit in 64 bits")


def _dump(value: Any) -> str:
    """Write JSON that others may have written; the codec would make null of their infinities."""
    text = dump_json(value)
    if "null" in text:
        try:
            json.dumps(value, allow_nan=False)
        except ValueError:
            return str(_refuse("the stored JSON holds an infinity or NaN, which is no JSON"))
    return text


def _contains(outer: Any, inner: Any) -> bool:
    """Tell whether JSON `outer` contains `inner`, by PostgreSQL's rules for ``@>``."""
    if isinstance(outer, dict) and isinstance(inner, dict):
        return all(key in outer and _contains(outer[key], value) for key, value in inner.items())
    if isinstance(outer, list) and isinstance(inner, list):
        return all(any(_contains(item, wanted) for item in outer) for wanted in inner)
    return _same(outer, inner)


def _same(one: Any, other: Any) -> bool:
    """Compare JSON values: numbers by value, true and false never with numbers."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _json_equal(one: str | None, other: str | None) -> bool | None:
    if one is None or other is None:
        return None
    return one == other or _same(load_json(one), load_json(other))


def _json_in(document: str | None, items: str) -> bool | None:
    if document is None:
        return None
    value = load_json(document)
    return any(_same(value, item) for item in load_json(items))


def _json_order(document: str | None, operand: str | None) -> int | None:
    """Compare two numbers exactly: -1, 0 or 1."""
    if document is None or operand is None:
        return None
    one, other = load_json(document), load_json(operand)
    if isinstance(one, bool) or not isinstance(one, (int, float)):  # AND has no order in SQL
        return None
    return int(one > other) - int(one < other)


def _json_value(document: str | None) -> str | None:
    """Write JSON so that equal values have equal texts: 1.0 as 1."""
    return None if document is None else _dump(_whole_numbers(load_json(document)))


def _whole_numbers(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _whole_numbers(item) for key, item in value.items()}
    return [_whole_numbers(item) for item in value] if isinstance(value, list) else value


def _json_member(document: str | None, path: str) -> str | None:
    """Return the JSON text of a member, for keys that SQLite's paths cannot name."""
    value = None if document is None else load_json(document)
    for key in load_json(path):
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return _dump(value)


def _json_contains(outer: str | None, inner: str | None) -> bool | None:
    if outer is None or inner is None:
        return None
    document, wanted = load_json(outer), load_json(inner)
    if isinstance(document, list) and not isinstance(wanted, list):
        return any(_contains(item, wanted) for item in document)
    return _contains(document, wanted)


def _json_overlap(outer: str | None, inner: str | None) -> bool | None:
    if outer is None or inner is None:
        return None
    document = load_json(outer)
    if not isinstance(document, list):
        return False
    return any(_same(item, wanted) for item in document for wanted in load_json(inner))


def _json_append(document: str | None, item: str) -> str | None:
    items = [] if document is None else load_json(document)
    if not isinstance(items, list):
        return str(_refuse("$append needs a list, and the stored JSON is not one"))
    return _dump([*items, load_json(item)])


class _DecimalSum:
    def __init__(self) -> None:
        self.total = Decimal(0)
        self.count = 0

    def step(self, value: str | None) -> None:
        """Add one value."""
        if value is not None:
            self.total = EXACT.add(self.total, _decimal(value))
            self.count += 1

    def finalize(self) -> str | None:
        """Return the sum as text; sqlite3 does not call it for no rows."""
        return decimal_text(self.total)


class _DecimalAverage(_DecimalSum):
    def finalize(self) -> str | None:
        """Return the average as text; None of no rows."""
        return decimal_text(AVERAGE.divide(self.total, Decimal(self.count))) if self.count else None


def install(connection: sqlite3.Connection) -> None:
    """Give a connection all functions and collations."""
    functions: list[tuple[str, int, Callable[..., Any]]] = [
        ("regexp", 2, _regexp),
        ("df_arithmetic", 4, _arithmetic),
        ("df_multiply", 2, _multiply_float),
        ("df_divide", 2, _divide_float),
        ("df_overflow", 0, _overflow),
        ("df_finite", 1, _finite),
        ("df_whole", 2, _whole),
        ("df_average", 3, _average),
        ("df_float", 1, float),
        ("df_bytes", 1, bytes.fromhex),
        ("df_json_equal", 2, _json_equal),
        ("df_json_in", 2, _json_in),
        ("df_json_order", 2, _json_order),
        ("df_json_value", 1, _json_value),
        ("df_json_member", 2, _json_member),
        ("df_json_contains", 2, _json_contains),
        ("df_json_overlap", 2, _json_overlap),
        ("df_json_append", 2, _json_append),
    ]
    for name, arguments, function in functions:
        connection.create_function(name, arguments, function, deterministic=True)
    connection.create_collation("df_decimal", _compare)
    connection.create_aggregate("df_decimal_sum", 1, _DecimalSum)  # type: ignore[arg-type]
    connection.create_aggregate("df_decimal_avg", 1, _DecimalAverage)  # type: ignore[arg-type]
