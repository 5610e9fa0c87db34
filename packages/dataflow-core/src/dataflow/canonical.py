"""The one way each value is written: Decimals without exponent, JSON with sorted keys, text that databases hold."""

import json
import math
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

MAX_DEPTH = 200
"""Levels of a JSON document. Readers give up at some depth: SQLite at 1,000, Python's own at its recursion limit."""
_SAFE_FLOAT = 1e16  # from here on repr() writes an exponent, which jsonb would expand to an integer


class ValueRefused(Exception):  # an internal signal, turned into InputError with field and model
    """A value does not fit a type.

    Args:
        message: what was expected and what came, never the value itself.
        hint: what to pass instead.
        index: position of the value, when a column of values was checked.
    """

    def __init__(self, message: str, hint: str = "", index: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.index = index


def kind(value: object) -> str:
    """Name the type of a value for an error message."""
    return "None" if value is None else type(value).__name__


def encodable(text: str) -> bool:
    """Tell whether text has no lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_text(text: str) -> None:
    """Refuse text with NUL or lone surrogates."""
    if "\0" in text:
        msg = "text with a NUL character cannot be stored"
        raise ValueRefused(msg, "remove it, or declare the field as bytes")
    if not text.isascii() and not encodable(text):
        msg = "text with a lone surrogate cannot be stored"
        raise ValueRefused(msg, "decode the input properly, or declare the field as bytes")


def canonical_decimal(value: Decimal) -> Decimal:
    """Strip trailing zeros, exponent and the sign of zero, without rounding."""
    if not value.is_finite():
        msg = "NaN and infinities cannot be stored"
        raise ValueRefused(msg, "use None for a missing number")
    if not value:
        return Decimal(0)
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    end = len(digits)
    while digits[end - 1] == 0:
        end -= 1
    digits, exponent = digits[:end], exponent + len(digits) - end
    if len(digits) + exponent > 131_072 or exponent < -16_383:
        msg = "the Decimal has more digits than a database holds"
        raise ValueRefused(msg)
    if exponent > 0:
        digits, exponent = digits + (0,) * exponent, 0
    return Decimal((sign, digits, exponent))


def canonical_json(value: Any, path: str = "$", depth: int = 0) -> Any:
    """Check that `value` is JSON and normalise what databases would write differently (-0.0, huge floats)."""
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        try:
            check_text(value)
        except ValueRefused as fault:
            fault.message = f"{fault.message} (at {path})"
            raise
        return str.__str__(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            msg = f"NaN and infinities are not JSON (at {path})"
            raise ValueRefused(msg, "use None for a missing number")
        return int(value) if abs(value) >= _SAFE_FLOAT else value + 0.0
    if isinstance(value, (dict, list, tuple)) and depth == MAX_DEPTH:
        msg = f"the JSON is nested more than {MAX_DEPTH} levels deep"
        raise ValueRefused(msg, "store it in parts, or as text")
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                msg = f"JSON keys are str, got {kind(key)} (at {path})"
                raise ValueRefused(msg, "convert the key with str(…)")
        return {
            canonical_json(key, path): canonical_json(value[key], f"{path}.{key}", depth + 1) for key in sorted(value)
        }
    if isinstance(value, (list, tuple)):
        return [canonical_json(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    if isinstance(value, int):
        if value.bit_length() > 13_000:
            msg = f"the integer has more than 3,900 digits (at {path})"
            raise ValueRefused(msg, "store it as text")
        return int(value)
    msg = f"{kind(value)} is not JSON (at {path})"
    hint = "convert it to text" if isinstance(value, (datetime, date, time, Decimal, UUID, Enum, bytes)) else ""
    raise ValueRefused(msg, hint)


dump_json: Callable[[Any], str] = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
).encode
"""Write canonical JSON text: keys sorted by code point, no spaces."""
