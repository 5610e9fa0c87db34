"""The SQL functions that DuckDB lacks: those of `dataflow.exact`, with DuckDB's types."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import attrs
import duckdb
from duckdb.func import FunctionNullHandling

from dataflow import exact
from dataflow.types import ValueRefused

TEXT, WHOLE, TRUTH = "VARCHAR", "BIGINT", "BOOLEAN"


@attrs.frozen
class Function:
    """A function as DuckDB calls it: with so many texts, of which any may be None."""

    name: str
    call: Callable[..., Any]
    takes: int
    returns: str


def arithmetic(sign: str, left: str | None, right: str, kind: str) -> str | None:
    """Compute exactly, on numbers as text."""
    found = exact.arithmetic(sign, left, right, kind)
    return None if found is None else str(found)


def _total(texts: str | None) -> exact.DecimalTotal:
    total = exact.DecimalTotal()
    for text in texts.split(" ") if texts else ():
        total.add(text)
    return total


FUNCTIONS = (
    Function("df_matches", exact.matches, 2, TRUTH),
    Function("df_arithmetic", arithmetic, 4, TEXT),
    Function("df_decimal_key", exact.decimal_key, 1, TEXT),
    Function("df_decimal_sum", lambda texts: _total(texts).sum(), 1, TEXT),
    Function("df_decimal_avg", lambda texts: _total(texts).average(), 1, TEXT),
    Function("df_json_append", exact.json_append, 2, TEXT),
    Function("df_json_contains", exact.json_contains, 2, TRUTH),
    Function("df_json_equal", exact.json_equal, 2, TRUTH),
    Function("df_json_in", exact.json_in, 2, TRUTH),
    Function("df_json_kind", exact.json_kind, 1, TEXT),
    Function("df_json_member", exact.json_member, 2, TEXT),
    Function("df_json_order", exact.json_order, 2, WHOLE),
    Function("df_json_overlap", exact.json_overlap, 2, TRUTH),
    Function("df_json_text", exact.json_text, 1, TEXT),
    Function("df_json_value", exact.json_value, 1, TEXT),
)
MARK = "dataflow: "
"""Begins the errors of these functions, and of expressions that have no exact result."""


def _telling(function: Function) -> Callable[..., Any]:
    @wraps(function.call)  # DuckDB counts the parameters
    def call(*arguments: Any) -> Any:
        try:
            return function.call(*arguments)
        except ValueRefused as refused:
            raise ValueError(MARK + refused.message) from None

    return call


def install(connection: duckdb.DuckDBPyConnection) -> None:
    """Give a database the functions; they live as long as this connection."""
    for function in FUNCTIONS:
        connection.create_function(
            function.name,
            _telling(function),
            [TEXT] * function.takes,
            function.returns,
            null_handling=FunctionNullHandling.SPECIAL,
        )
