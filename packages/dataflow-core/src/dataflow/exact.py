"""What operators mean, computed in Python: for dialects whose database cannot compute it, or would round.

A dialect offers these to its database as SQL functions. Decimals and JSON come and go as text, in the one form in which
they are stored (`Decimal` without exponent, `dump_json`); NULL is None, and gives None. Knows no database.

Each function raises `dataflow.types.ValueRefused` where there is no exact result; its message holds no stored value.
"""

import json
import math
import re
from decimal import ROUND_HALF_UP, Context, Decimal, Inexact, InvalidOperation
from functools import lru_cache
from typing import Any, NoReturn

from dataflow.jsontext import dump_json, load_json
from dataflow.types import INT_MAX, INT_MIN, ValueRefused, canonical_decimal

EXACT = Context(prec=140_000, Emax=999_999, Emin=-999_999)
AVERAGE = Context(prec=28, rounding=ROUND_HALF_UP)
"""Significant digits of a Decimal average; a half is rounded away from zero. The same on every dialect."""


def _refuse(text: str) -> NoReturn:
    raise ValueRefused(text)


# -- text -------------------------------------------------------------------------------------------------------------
@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def matches(pattern: str | None, text: Any) -> bool | None:
    """Tell whether a pattern, as `dataflow.regex` writes it for Python, is found in a text; None for other values."""
    if pattern is None or not isinstance(text, str):  # a JSON member may be a number, and AND has no order in SQL
        return None
    return _compiled(pattern).search(text) is not None


# -- numbers ----------------------------------------------------------------------------------------------------------
@lru_cache(maxsize=4096)
def decimal_of(text: str) -> Decimal:
    """Read a stored Decimal."""
    try:
        return Decimal(text)
    except (InvalidOperation, ValueError, TypeError):
        _refuse("a stored value is not a Decimal")


def compare_decimals(left: str, right: str) -> int:
    """Compare two stored Decimals by value: -1, 0 or 1."""
    one, other = decimal_of(left), decimal_of(right)
    return (one > other) - (one < other)


def decimal_key(text: str | None) -> str | None:
    """Return a text that sorts by code point as stored Decimals do by value, for databases that order text alone."""
    if text is None:
        return None
    decimal_of(text)
    digits = text.lstrip("-")
    whole = digits.partition(".")[0].lstrip("0")
    key = f"{len(whole):06d}{digits.lstrip('0')}"
    return f"1{key}" if text[0] != "-" else f"0{key.translate(_COMPLEMENT)}~"


_COMPLEMENT = str.maketrans("0123456789", "9876543210")


def decimal_text(value: Decimal) -> str:
    """Write a Decimal the one way it is stored."""
    return format(canonical_decimal(value), "f")


def _number(value: Any) -> Decimal:
    return Decimal(value) if isinstance(value, (int, str)) else Decimal(repr(value))


def arithmetic(sign: str, left: Any, right: Any, kind: str) -> Any:
    """Compute exactly.

    Args:
        sign: + - * or /.
        left: what is stored: an int, or a Decimal as text.
        right: the operand: an int, a float (meant as its shortest text), or a Decimal as text.
        kind: of the result: "int" or "decimal" (text).
    """
    if left is None or right is None:
        return None
    one, other = _number(left), _number(right)
    if sign == "/":
        if not other:
            _refuse("division by zero")
        try:
            result = Context(prec=60, traps=[Inexact]).divide(one, other)
        except Inexact:
            what = "a whole number" if kind == "int" else "an exact Decimal"
            _refuse(f"the result is not {what}; nothing is rounded silently")
    else:
        result = {"+": EXACT.add, "-": EXACT.subtract, "*": EXACT.multiply}[sign](one, other)
    if kind != "int":
        return decimal_text(result)
    if result != result.to_integral_value():
        _refuse("the result is not a whole number; nothing is rounded silently")
    whole = int(result)
    return whole if INT_MIN <= whole <= INT_MAX else overflow()


def overflow() -> NoReturn:
    """Refuse an integer beyond 64 bits."""
    _refuse("the result does not fit in 64 bits")


def multiply_floats(left: float | None, right: float | None) -> float | None:
    """Multiply; a product that is 0 only because floats end is refused."""
    return None if left is None or right is None else _visible(left * right, zero=not left or not right)


def divide_floats(left: float | None, right: float | None) -> float | None:
    """Divide; a quotient that is 0 only because floats end is refused."""
    if left is None or right is None:
        return None
    return _visible(left / right, zero=not left) if right else _refuse("division by zero")


def _visible(value: float, *, zero: bool) -> float:
    return value if value or zero else _refuse("the result is too small for a float")


def finite(value: float | None) -> float | None:
    """Refuse an infinity, which is what databases make of a result beyond the floats."""
    return value if value is None or math.isfinite(value) else _refuse("the result is too large for a float")


def whole_sum(high: int | None, low: int | None) -> int:
    """Join a sum of integers whose upper and lower 32 bits were added up apart, so that no part overflows."""
    total = ((high or 0) << 32) + (low or 0)
    return total if INT_MIN <= total <= INT_MAX else _refuse("the sum does not fit in 64 bits")


def whole_average(high: int | None, low: int | None, count: int) -> float | None:
    """Divide a sum of integers, in two halves as for `whole_sum`, by their number."""
    return None if high is None or low is None else ((high << 32) + low) / count


class DecimalTotal:
    """Stored Decimals, added up one by one."""

    def __init__(self) -> None:
        self.total = Decimal(0)
        self.count = 0

    def add(self, text: str | None) -> None:
        """Add one; None is left out."""
        if text is not None:
            self.total = EXACT.add(self.total, decimal_of(text))
            self.count += 1

    def sum(self) -> str | None:
        """Return the sum; None of none."""
        return decimal_text(self.total) if self.count else None

    def average(self) -> str | None:
        """Return the average; None of none."""
        return decimal_text(AVERAGE.divide(self.total, Decimal(self.count))) if self.count else None


# -- JSON -------------------------------------------------------------------------------------------------------------
def _dump(value: Any) -> str:
    """Write JSON that others may have written; the codec would make null of their infinities."""
    text = dump_json(value)
    if "null" in text:
        try:
            json.dumps(value, allow_nan=False)
        except ValueError:
            _refuse("the stored JSON holds an infinity or NaN, which is no JSON")
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


def json_equal(one: str | None, other: str | None) -> bool | None:
    """Tell whether two documents are equal."""
    if one is None or other is None:
        return None
    return one == other or _same(load_json(one), load_json(other))


def json_in(document: str | None, items: str) -> bool | None:
    """Tell whether a document equals one of a list's elements."""
    if document is None:
        return None
    value = load_json(document)
    return any(_same(value, item) for item in load_json(items))


def json_order(document: str | None, operand: str | None) -> int | None:
    """Compare two numbers exactly: -1, 0 or 1; None where the document is no number."""
    if document is None or operand is None:
        return None
    one, other = load_json(document), load_json(operand)
    if isinstance(one, bool) or not isinstance(one, (int, float)):  # AND has no order in SQL
        return None
    return int(one > other) - int(one < other)


def json_value(document: str | None) -> str | None:
    """Write JSON so that equal values have equal texts: 1.0 as 1."""
    return None if document is None else _dump(_whole_numbers(load_json(document)))


def _whole_numbers(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _whole_numbers(item) for key, item in value.items()}
    return [_whole_numbers(item) for item in value] if isinstance(value, list) else value


def json_member(document: str | None, path: str) -> str | None:
    """Return the text of a member; `path` is a JSON list of keys, which never reach into lists by position."""
    value = None if document is None else load_json(document)
    for key in load_json(path):
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return _dump(value)


def json_kind(document: str | None) -> str | None:
    """Tell what a document is, in the words of `Dialect.json_match`: str number bool null json."""
    if document is None:
        return None
    head = document[:1]
    return {'"': "str", "{": "json", "[": "json", "t": "bool", "f": "bool", "n": "null"}.get(head, "number")


def json_text(document: str | None) -> str | None:
    """Return the characters of a JSON string; None for other documents."""
    return load_json(document) if document is not None and document[:1] == '"' else None


def json_contains(outer: str | None, inner: str | None) -> bool | None:
    """Tell whether a document contains another as a part, or a list contains it as an element."""
    if outer is None or inner is None:
        return None
    document, wanted = load_json(outer), load_json(inner)
    if isinstance(document, list) and not isinstance(wanted, list):
        return any(_contains(item, wanted) for item in document)
    return _contains(document, wanted)


def json_overlap(outer: str | None, inner: str | None) -> bool | None:
    """Tell whether a list shares an element with another."""
    if outer is None or inner is None:
        return None
    document = load_json(outer)
    if not isinstance(document, list):
        return False
    return any(_same(item, wanted) for item in document for wanted in load_json(inner))


def json_append(document: str | None, item: str) -> str:
    """Return a list with one element more; a list of it where there was nothing."""
    items = [] if document is None else load_json(document)
    if not isinstance(items, list):
        _refuse("$append needs a list, and the stored JSON is not one")
    return _dump([*items, load_json(item)])
