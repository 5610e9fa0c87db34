"""SQL column types as annotations, for models of existing tables: only what is read and written without a change.

Knows how PostgreSQL and SQLite write types, and what values other programs keep in them.
"""

import re
import types
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import attrs

from dataflow.catalog import Catalog, Column
from dataflow.migrations import existing as own

_ARGUMENTS = re.compile(r"\s*\(([^)]*)\)")
_POSTGRES: Mapping[str, Any] = {
    "smallint": int, "integer": int, "bigint": int, "int2": int, "int4": int, "int8": int,
    "text": str, "character varying": str, "varchar": str, "name": str,
    "character": own.Stored(own.PaddedType()), "bpchar": str,
    "boolean": bool, "bool": bool,
    "real": own.Stored(own.SingleType()), "float4": own.Stored(own.SingleType()),
    "double precision": float, "float8": float,
    "numeric": Decimal,
    "date": date, "time": time, "time without time zone": time,
    "timestamp": datetime, "timestamp without time zone": datetime,
    "timestamp with time zone": datetime, "timestamptz": datetime,
    "uuid": UUID, "json": Any, "jsonb": Any, "bytea": bytes,
}  # fmt: skip
_IN_ARRAYS = frozenset(["bigint", "text", "double precision", "numeric", "boolean", "date", "uuid", "bytea"])
"""Types of elements that are the framework's own: PostgreSQL compares an array only with one of the same type."""
_WHOLE = re.compile(r"(unsigned )?(tiny|small|medium|big |big)?int(eger|2|4|8)?( unsigned| signed)?")
_SQLITE: tuple[tuple[str, Any], ...] = (
    (r"(var|n|nvar|var |varying |native |native var)?char(acter)?2?( varying)?", str),
    (r"n?text|(long|medium|tiny)text|n?clob", str),
    (r"real|float[48]?|double( precision)?", float),
    (r"n?(numeric|decimal)|money", own.Stored(own.NumberType())),
    (r"bool(ean)?", bool),
    (r"date", date),
    (r"datetime|timestamp", own.Stored(own.InstantTextType())),
    (r"time", own.Stored(own.TimeTextType())),
    (r"(long|medium|tiny)?blob|(var)?binary", bytes),
    (r"jsonb?", own.Stored(own.DocumentType())),
)  # fmt: skip


@attrs.frozen
class Refused:
    """Why a column cannot be a field."""

    reason: str


def annotation(column: Column, catalog: Catalog, dialect: str) -> Any:
    """Return the annotation for a column, without whether it takes NULL, or `Refused`.

    Args:
        column: the column.
        catalog: its schema, for enum types.
        dialect: name of the dialect that read it.
    """
    return _of_sqlite(column.type) if dialect == "sqlite" else _of_postgres(column.type, catalog)


def _of_sqlite(written: str) -> Any:
    base = " ".join(_ARGUMENTS.sub("", written).lower().split())
    if _WHOLE.fullmatch(base):
        return int
    for pattern, found in _SQLITE:
        if re.fullmatch(pattern, base):
            return found
    if not base or base == "any":
        return Refused("the column has no type, so its values may be of any")
    return Refused(f"no field type keeps what a column declared as {written} may hold")


def _of_postgres(written: str, catalog: Catalog) -> Any:
    arguments = _ARGUMENTS.search(written)
    base = _ARGUMENTS.sub("", written)
    if base.endswith("[]"):
        if base[:-2] not in _IN_ARRAYS or (arguments and base != "numeric[]"):
            return Refused(f"no field type compares arrays as {written} needs it")
        return types.GenericAlias(list, (_of_postgres(written[:-2], catalog),))
    if base == "numeric" and arguments:
        return own.Stored(own.ScaledType(max(int((arguments[1] + ",0").split(",")[1]), 0)))
    found = _POSTGRES.get(base)
    if found is not None:
        return found
    if written.rpartition(".")[2].strip('"') in catalog.enums:
        return Refused(f"values of the enum type {written} cannot be written yet")
    return Refused(f"there is no field type for {written}")
