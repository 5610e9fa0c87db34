"""The SQL functions and collations each connection gets: those of `dataflow.exact`, as SQLite calls them.

They are used in queries only, never in stored DDL, so that files open in any other SQLite tool.
"""

import sqlite3
import threading
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any

from dataflow import exact
from dataflow.types import ValueRefused

_FAULT = threading.local()


def take_fault() -> str:
    """Return and forget why a function of ours failed on this thread; sqlite3 itself does not tell."""
    fault = getattr(_FAULT, "text", "")
    _FAULT.text = ""
    return fault


class Refused(ValueError):
    """A function or collation of ours cannot go on; the message holds no stored value."""


def _telling(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function, and note why it refuses."""
    try:
        return function(*arguments)
    except ValueRefused as refused:
        _FAULT.text = refused.message
        raise Refused(refused.message) from None


class _DecimalSum:
    def __init__(self) -> None:
        self.found = exact.DecimalTotal()

    def step(self, value: str | None) -> None:
        """Add one value."""
        _telling(self.found.add, value)

    def finalize(self) -> str | None:
        """Return the sum as text; sqlite3 does not call it for no rows."""
        return _telling(self.found.sum)  # type: ignore[no-any-return]


class _DecimalAverage(_DecimalSum):
    def finalize(self) -> str | None:
        """Return the average as text."""
        return _telling(self.found.average)  # type: ignore[no-any-return]


def decimal_text(value: Decimal) -> str:
    """Write a Decimal the one way it is stored."""
    return _telling(exact.decimal_text, value)  # type: ignore[no-any-return]


def install(connection: sqlite3.Connection) -> None:
    """Give a connection all functions and collations."""
    telling: list[tuple[str, int, Callable[..., Any]]] = [
        ("df_arithmetic", 4, exact.arithmetic),
        ("df_multiply", 2, exact.multiply_floats),
        ("df_divide", 2, exact.divide_floats),
        ("df_overflow", 0, exact.overflow),
        ("df_finite", 1, exact.finite),
        ("df_whole", 2, exact.whole_sum),
        ("df_average", 3, exact.whole_average),
        ("df_json_equal", 2, exact.json_equal),
        ("df_json_in", 2, exact.json_in),
        ("df_json_order", 2, exact.json_order),
        ("df_json_value", 1, exact.json_value),
        ("df_json_member", 2, exact.json_member),
        ("df_json_contains", 2, exact.json_contains),
        ("df_json_overlap", 2, exact.json_overlap),
        ("df_json_append", 2, exact.json_append),
    ]
    plain: list[tuple[str, int, Callable[..., Any]]] = [
        ("regexp", 2, exact.matches),
        ("df_float", 1, float),
        ("df_bytes", 1, bytes.fromhex),
    ]
    for name, arguments, function in telling:
        connection.create_function(name, arguments, partial(_telling, function), deterministic=True)
    for name, arguments, function in plain:
        connection.create_function(name, arguments, function, deterministic=True)
    connection.create_collation("df_decimal", partial(_telling, exact.compare_decimals))
    connection.create_aggregate("df_decimal_sum", 1, _DecimalSum)  # type: ignore[arg-type]
    connection.create_aggregate("df_decimal_avg", 1, _DecimalAverage)  # type: ignore[arg-type]
