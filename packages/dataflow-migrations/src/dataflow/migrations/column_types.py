"""SQL column types as annotations, for models of existing tables: only what is read and written without a change.

Knows how PostgreSQL and SQLite write types, and what values other programs keep in them.
"""

import re
import types
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Any
from uuid import UUID

import attrs

from dataflow.catalog import Catalog, Column
from dataflow.migrations import existing as own
from dataflow.migrations.class_names import class_name

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
    "timestamp": own.Stored(own.TimestampType()), "timestamp without time zone": own.Stored(own.TimestampType()),
    "timestamp with time zone": datetime, "timestamptz": datetime,
    "uuid": UUID, "json": Any, "jsonb": Any, "bytea": bytes,
}  # fmt: skip
_IN_ARRAYS: Mapping[str, Any] = {
    **{name: _POSTGRES[name] for name in ("bigint", "text", "double precision", "numeric", "boolean", "date", "uuid")},
    **{name: _POSTGRES[name] for name in ("bytea", "real", "timestamp without time zone", "timestamp with time zone")},
    **{name: own.Stored(own.WholeType(name)) for name in ("smallint", "integer")},
    "time without time zone": time,
    "character varying": own.Stored(own.TextType("character varying")),
}
"""Types of elements; PostgreSQL compares an array only with one of the same type."""
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
        name = base[:-2]
        item = _IN_ARRAYS.get(name, _enum(name, catalog))
        if item is None or (arguments and name not in ("numeric", "character varying")):
            return Refused(f"no field type compares arrays as {written} needs it")
        if arguments and name == "numeric":
            item = _scaled(arguments[1])
        return types.GenericAlias(list, (item,))
    if base == "numeric" and arguments:
        return _scaled(arguments[1])
    found = _POSTGRES.get(base, _enum(written, catalog))
    return Refused(f"there is no field type for {written}") if found is None else found


def _scaled(arguments: str) -> own.Stored:
    return own.Stored(own.ScaledType(max(int(f"{arguments},0".split(",")[1]), 0)))


def _enum(written: str, catalog: Catalog) -> own.Stored | None:
    """Return the annotation for an enum type of the schema."""
    found = catalog.enums.get(written.strip('"').replace('""', '"'))
    return None if found is None else own.Stored(own.NativeEnumType(_enum_class(found.name, found.labels), written))


@lru_cache(maxsize=1000)
def _enum_class(name: str, labels: tuple[str, ...]) -> type[Enum]:
    """Build the class of an enum type, once; members are called as their labels where that is an identifier."""
    members: dict[str, str] = {}
    for place, label in enumerate(labels, 1):
        called = re.sub(r"\W", "_", label)
        usable = called.isidentifier() and not called.startswith("_") and called not in ("mro", *members)
        members[called if usable else f"value_{place}"] = label
    made: Any = Enum  # its functional form, whose name is not known here
    return made(class_name(name) or "Choice", members)  # type: ignore[no-any-return]
