"""What update operators do to a value: exact arithmetic, and errors where the outcome does not fit."""

import math
from collections.abc import Mapping
from decimal import Context, Decimal, Inexact
from fractions import Fraction
from typing import Any

from dataflow.testing.differential.models import TABLES
from dataflow.testing.differential.programs import Ambiguous, Failure, Stamp
from dataflow.testing.oracle import INT_MAX, INT_MIN, accept, key_of
from dataflow.testing.oracle.values import plain_decimal

Change = tuple[str, str, Any]
ARITHMETIC = ("QueryError", "arithmetic")
EXACT = Context(prec=2000)
DIGITS = 60
"""Significant digits of an exact Decimal quotient."""


def read_changes(values: Mapping[str, Any]) -> list[Change]:
    """Turn a dict of changes into (field, operator, operand)."""
    found: list[Change] = []
    for name, value in values.items():
        if name.startswith("$"):
            found += [(field, name, operand) for field, operand in value.items()]
        elif isinstance(value, dict) and any(key.startswith("$") for key in value):
            found += [(name, *item) for item in value.items()]
        else:
            found.append((name, "$set", value))
    return found


def changed(model: str, row: Mapping[str, Any], changes: list[Change], number: int) -> dict[str, Any]:
    """Return the row after an update.

    Raises:
        Failure: a result does not fit its field.
    """
    out = dict(row)
    kinds = TABLES[model].kinds
    if TABLES[model].stamped:
        out["updated_at"] = Stamp(number)
    for name, op, operand in changes:
        out[name] = apply(op, kinds[name], row[name], operand, name)
    return out


def apply(op: str, kind: str, value: Any, operand: Any, name: str) -> Any:
    """Apply one operator."""
    if op == "$set":
        return operand if kind == "int" else accept(kind, operand, name)
    if op == "$unset":
        return None
    if op == "$append":
        if value is not None and not isinstance(value, list):
            raise Failure(*ARITHMETIC)
        item = accept("json" if kind == "json" else kind[5:-1], operand, name)
        return [*(value or []), item]
    if op in ("$min", "$max"):
        other = accept(kind, operand, name)
        if value is None:
            return other
        one, two = key_of(value), key_of(other)
        return value if (one <= two if op == "$min" else one >= two) else other
    if value is None:
        return None
    if kind == "float":
        return _float(op, value, float(operand))
    return _whole(op, value, operand) if kind == "int" else _decimal(op, value, Decimal(operand))


def _float(op: str, value: float, operand: float) -> float:
    try:
        result = {
            "$inc": lambda: value + operand,
            "$dec": lambda: value - operand,
            "$multiply": lambda: value * operand,
            "$divide": lambda: value / operand,
        }[op]()
    except OverflowError:
        result = math.inf
    lost = not result and value and operand and op in ("$multiply", "$divide")  # too small for a float
    if lost or not math.isfinite(result):
        raise Failure(*ARITHMETIC)
    return result + 0.0


def _whole(op: str, value: int, operand: float | Decimal) -> int:
    exact = Fraction(Decimal(repr(operand)) if isinstance(operand, float) else operand)
    result = {
        "$inc": lambda: value + exact,
        "$dec": lambda: value - exact,
        "$multiply": lambda: value * exact,
        "$divide": lambda: value / exact,
    }[op]()
    if result.denominator != 1 or not INT_MIN <= result <= INT_MAX:
        raise Failure(*ARITHMETIC)
    return int(result)


def _decimal(op: str, value: Decimal, operand: Decimal) -> Decimal:
    if op == "$divide":
        try:
            return plain_decimal(Context(prec=DIGITS, traps=[Inexact]).divide(value, operand))
        except Inexact:
            quotient = Fraction(value) / Fraction(operand)
            if not _ends(quotient):
                raise Failure(*ARITHMETIC) from None
            raise Ambiguous from None  # exact, but with more digits than anybody needs
    function = {"$inc": EXACT.add, "$dec": EXACT.subtract, "$multiply": EXACT.multiply}[op]
    return plain_decimal(function(value, operand))


def _ends(number: Fraction) -> bool:
    """Tell whether a fraction has finitely many decimal digits."""
    rest = number.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1
