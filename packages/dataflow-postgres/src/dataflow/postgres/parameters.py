"""Parameters of the user's own SQL: Python values where the server has inferred types, or could not.

Where nothing tells a parameter's type (``SELECT :n``), PostgreSQL takes it for text; then the value's own type decides.
"""

from collections.abc import Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from dataflow import sqltext
from dataflow import types as t
from dataflow.jsontext import dump_json

_TEXTS = ("text", "varchar", "bpchar", "name")
_CASTS: tuple[tuple[type, str], ...] = (
    (bool, "boolean"),
    (int, "bigint"),
    (float, "double precision"),
    (Decimal, "numeric"),
    (UUID, "uuid"),
    (bytes, "bytea"),
    (datetime, "timestamptz"),
    (date, "date"),
    (time, "time"),
)


def with_casts(sql: str, types: Sequence[str], values: Sequence[Any]) -> str:
    """Say the types of parameters that were taken for text and hold something else.

    Args:
        sql: a statement with ``$n`` for each value.
        types: names of the inferred types.
        values: one for each.
    """
    casts = {
        number: _cast(value)
        for number, (kind, value) in enumerate(zip(types, values, strict=False), 1)
        if kind in _TEXTS and _cast(value)
    }
    if not casts:
        return sql
    (statement,) = sqltext.parse(sql)
    parts = []
    for part in statement.parts:
        if isinstance(part, str):
            parts.append(part)
        else:
            number = int(part[0])
            parts.append(f"${number}::{casts[number]}" if number in casts else f"${number}")
    return "".join(parts)


def _cast(value: Any) -> str:
    return next((name for kind, name in _CASTS if isinstance(value, kind)), "")


def fitted(types: Sequence[str], values: Sequence[Any]) -> list[Any]:
    """Write lists as JSON text where the statement wants JSON or text."""
    wanted = [*types, *[""] * (len(values) - len(types))]
    return [
        dump_json(t.canonical_json(list(value)))
        if isinstance(value, (list, tuple)) and kind in ("json", "jsonb", *_TEXTS)
        else value
        for kind, value in zip(wanted, values, strict=False)
    ]
