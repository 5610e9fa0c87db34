"""The one way each value is written: Decimals without exponent, JSON with sorted keys, text that databases hold."""

import math
import re
from collections.abc import Iterable, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from itertools import chain
from types import NoneType
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


_SHORT = 1000
_CANONICAL = re.compile(r"-?(?:[1-9]\d*(?:\.\d*[1-9])?|0\.\d*[1-9]|0(?<!-0))").fullmatch
"""Texts of most Decimals that are canonical; a closer look at the others costs more."""


def is_canonical(value: Decimal) -> bool:
    """Tell quickly that `canonical_decimal` would change nothing; False may mean that only it can tell."""
    return type(value) is Decimal and len(text := str(value)) < _SHORT and _CANONICAL(text) is not None


def canonical_decimal(value: Decimal) -> Decimal:
    """Strip trailing zeros, exponent and the sign of zero, without rounding."""
    if is_canonical(value):
        return value
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


def canonical_json(value: Any) -> Any:
    """Check that `value` is JSON and normalise what databases would write differently (-0.0, huge floats).

    Raises:
        ValueRefused: it is not JSON, or no database could give it back.
    """
    return value if _is_plain(value, 0) else _normalised(value, "$", 0)


def _is_plain(value: Any, depth: int) -> bool:
    """Tell quickly that `_normalised` would find nothing to change; False may mean that only it can tell."""
    kind = type(value)
    if kind is str:
        return bool(value.isascii()) and "\0" not in value
    if kind is int:
        return bool(-_SAFE_INT < value < _SAFE_INT)
    if kind is float:
        return bool(0 < abs(value) < _SAFE_FLOAT)
    if depth == MAX_DEPTH:
        return False
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str or not key.isascii() or "\0" in key or not _is_plain(item, depth + 1):
                return False
        return True
    if kind is list:
        return all(_is_plain(item, depth + 1) for item in value)
    return value is None or kind is bool


def are_canonical(values: Sequence[Any]) -> bool:
    """Tell in C speed, level by level, that `canonical_json` would find nothing to change in any of many values.

    False may mean that only a closer look can tell.
    """
    level = values
    for _ in range(MAX_DEPTH):
        kinds = set(map(type, level))
        if (
            not kinds <= _PLAIN
            or (str in kinds and not _are_texts(level if len(kinds) == 1 else [v for v in level if type(v) is str]))
            or (int in kinds and not _are_safe([value for value in level if type(value) is int], _SAFE_INT))
            or (float in kinds and not _are_floats([value for value in level if type(value) is float]))
        ):
            return False
        inner: list[Any] = []
        dicts = [value for value in level if type(value) is dict] if dict in kinds else []
        lists = [value for value in level if type(value) is list] if list in kinds else []
        if sum(map(len, dicts)) + sum(map(len, lists)) > _MOST_VALUES:  # maybe a list that holds itself twice
            return False
        if dicts:
            names = set().union(*dicts)
            if set(map(type, names)) - {str} or not _are_texts(names):
                return False
            inner += chain.from_iterable(map(dict.values, dicts))
        inner += chain.from_iterable(lists)
        if not inner:
            return True
        level = inner
    return False


_PLAIN = {dict, list, str, int, float, bool, NoneType}
_SAFE_INT = 2**63
_MOST_VALUES = 5_000_000


def _are_texts(texts: Iterable[str]) -> bool:
    joined = "".join(texts)
    return "\0" not in joined and (joined.isascii() or encodable(joined))


def _are_safe(numbers: Sequence[float], limit: float) -> bool:
    return -limit < min(numbers) and max(numbers) < limit


def _are_floats(numbers: Sequence[float]) -> bool:
    return math.isfinite(sum(numbers)) and 0.0 not in numbers and _are_safe(numbers, _SAFE_FLOAT)


def _normalised(value: Any, path: str, depth: int) -> Any:
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
            _normalised(key, path, depth): _normalised(value[key], f"{path}.{key}", depth + 1) for key in sorted(value)
        }
    if isinstance(value, (list, tuple)):
        return [_normalised(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    if isinstance(value, int):
        if value.bit_length() > 13_000:
            msg = f"the integer has more than 3,900 digits (at {path})"
            raise ValueRefused(msg, "store it as text")
        return int(value)
    msg = f"{kind(value)} is not JSON (at {path})"
    hint = "convert it to text" if isinstance(value, (datetime, date, time, Decimal, UUID, Enum, bytes)) else ""
    raise ValueRefused(msg, hint)
