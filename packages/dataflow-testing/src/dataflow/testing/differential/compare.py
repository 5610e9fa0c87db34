"""Comparing what a database gave with what the oracle expects: types and order exactly, sums to 1e-12."""

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from dataflow.testing.differential.programs import Cursor, Ref, Stamp, Text
from dataflow.testing.oracle.results import Near

PLAIN = frozenset({int, str, bool, bytes, date, time, UUID})
Bind = Callable[[Any, Any], bool]
"""Remembers what a database calls a symbolic value; False if it called it otherwise before."""


class Divergence(Exception):
    """A database does not do what the oracle expects.

    Args:
        what: where they differ, or how.
        expected: by the oracle.
        actual: from the database.
    """

    def __init__(self, what: str, expected: Any, actual: Any) -> None:
        super().__init__(f"{what}: expected {expected!r}, got {actual!r}")
        self.what = what
        self.expected = expected
        self.actual = actual


def compare(expected: Any, actual: Any, bind: Bind, path: str = "result") -> None:
    """Raise `Divergence` at the first difference; symbolic values are bound to what stands in their place."""
    kind = type(expected)
    if kind is dict:
        if not isinstance(actual, dict):
            raise Divergence(path, expected, actual)
        if list(expected) != list(actual):
            raise Divergence(f"{path} (keys)", list(expected), list(actual))
        for key, value in expected.items():
            if value is not None or actual[key] is not None:  # most values are None
                compare(value, actual[key], bind, f"{path}[{key!r}]")
    elif kind is list or kind is tuple:
        if type(actual) is not kind or len(actual) != len(expected):
            raise Divergence(path, expected, actual)
        for index, (one, other) in enumerate(zip(expected, actual, strict=True)):
            compare(one, other, bind, f"{path}[{index}]")
    elif kind in PLAIN:
        if type(actual) is not kind or actual != expected:
            raise Divergence(path, expected, actual)
    elif not _same(expected, actual, bind):
        raise Divergence(path, expected, actual)


def _same(expected: Any, actual: Any, bind: Bind) -> bool:
    kind = type(expected)
    if kind is Ref:
        return type(actual) is int and bind(expected, actual)
    if kind is Stamp:
        return type(actual) is datetime and actual.tzinfo is UTC and bind(expected, actual)
    if kind is Cursor:
        return type(actual) is str and bind(expected, actual)
    if kind is Text:
        return type(actual) is str and bind(expected, actual)
    if kind is Near:
        tolerance = 1e-12 * expected.magnitude
        return type(actual) is float and math.isclose(actual, expected, rel_tol=1e-12, abs_tol=tolerance)
    if type(actual) is not kind:
        return False
    if kind is float or kind is Decimal:
        return str(actual) == str(expected)  # tells -0.0 from 0.0, and 1.0 from 1.00
    if kind is datetime and actual.tzinfo is not UTC:
        return False
    return bool(actual == expected)
