"""DuckDB's side of the dialect protocol: types, schema, rows in bulk. Expressions are its neighbour's.

Native types throughout: BIGINT, DOUBLE, VARCHAR, TIMESTAMPTZ, UUID, JSON, lists. A Decimal is canonical text, for
DuckDB's DECIMAL ends at 38 digits.
"""

import os
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from functools import cached_property
from itertools import groupby
from typing import Any, ClassVar
from uuid import UUID

import attrs
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from dataflow import exact
from dataflow import types as t
from dataflow.config import Config, DatabaseURL
from dataflow.dialect import COUNT, ROWS_TABLE, ColumnInfo, Command, Convert, Database, Insert, Joined, Program, Rows
from dataflow.fields import UNSET, FieldSpec
from dataflow.jsontext import dump_json, dump_json_column, load_json
from dataflow.model import ModelSpec
from dataflow_duckdb.compiler import DuckDBDialect, Named
from dataflow_duckdb.expressions import Expressions

_STORAGE: dict[str, sa.types.TypeEngine[Any]] = {
    "int": sa.BigInteger(),
    "float": sa.Double(),
    "bool": sa.Boolean(),
    "bytes": Named("BLOB"),
    "datetime": pg.TIMESTAMP(timezone=True),
    "date": sa.Date(),
    "time": Named("TIME"),
    "uuid": sa.Uuid(),
    "json": Named("JSON"),
}
_BEGIN = Command("BEGIN", COUNT)
ROWS_AT_ONCE = 20_000


def _decimal(value: Decimal) -> str:
    return format(value, "f")  # accepted values are canonical already


def _utc(value: datetime) -> datetime:
    return value.astimezone(UTC)


class DuckDB(Expressions):
    """The DuckDB dialect."""

    name: ClassVar[str] = "duckdb"
    nulls_need_order: ClassVar[bool] = True
    aborts_on_error: ClassVar[bool] = True
    numbers_apart: ClassVar[bool] = True

    def __init__(self) -> None:
        self.keys: dict[
            str, list[tuple[str, ...]]
        ] = {}  # of tables made here: what is not committed, others do not see

    def connect(self, url: DatabaseURL, config: Config) -> Database:
        from dataflow_duckdb.database import DuckDBDatabase  # the driver loads on first use

        return DuckDBDatabase(url, config, self.keys)

    def identity(self, url: DatabaseURL) -> str:
        return "" if url.path == ":memory:" else f"duckdb:{os.path.realpath(url.path)}"

    @cached_property
    def sqlalchemy(self) -> Any:
        return DuckDBDialect()

    def placeholder(self, position: int) -> str:
        return f"${position}"

    # -- types ----------------------------------------------------------------------------------------------------
    def column_type(self, field: t.FieldType) -> sa.types.TypeEngine[Any]:
        if field.column:  # as others declared it
            return Named(field.column)
        if isinstance(field, t.ArrayType):
            return Named(f"{self.type_text(self.column_type(field.item))}[]")
        return _STORAGE.get(field.storage, sa.Text())

    def encoder(self, field: t.FieldType) -> Convert | None:
        if isinstance(field, t.ArrayType):
            inner = self.encoder(field.item)
            return None if inner is None else lambda items: [inner(item) for item in items]
        encoders: dict[str, Callable[[Any], Any]] = {"decimal": _decimal, "json": dump_json}
        return encoders.get(field.storage)

    def column_encoder(self, field: t.FieldType) -> Callable[[list[Any]], list[Any]] | None:
        return dump_json_column if field.storage == "json" else None

    def decoder(self, field: t.FieldType) -> Convert | None:
        if isinstance(field, t.ArrayType):
            inner = self.decoder(field.item)
            return None if inner is None else lambda items: [inner(item) for item in items]
        decoders: dict[str, Callable[[Any], Any]] = {"datetime": _utc, "decimal": Decimal, "json": load_json}
        return decoders.get(field.storage)

    def encode_any(self, value: Any) -> Any:
        if isinstance(value, Enum):
            return self.encode_any(value.value)
        plain: tuple[tuple[type, t.FieldType], ...] = (
            (bool, t.BoolType()), (int, t.IntType()), (float, t.FloatType()), (str, t.StrType()),
            (bytes, t.BytesType()), (datetime, t.DateTimeType()),
        )  # fmt: skip
        for kind, own in plain:
            if isinstance(value, kind):
                return own.accept(value)
        if value is None or isinstance(value, (date, time, UUID)):
            return value
        return exact.decimal_text(value) if isinstance(value, Decimal) else dump_json(t.canonical_json(value))

    # -- schema ---------------------------------------------------------------------------------------------------
    def table_options(self, model: ModelSpec) -> dict[str, Any]:
        del model
        return {"implicit_returning": False}  # or an INSERT that asks for nothing would return keys

    def column_options(self, field: FieldSpec, check: str) -> dict[str, Any]:
        if field.generated:
            return {"server_default": _constant(f"nextval({self._sequence(check, field.name)})")}
        if field.write:
            return {"server_default": sa.text("CURRENT_TIMESTAMP")}
        if field.default is UNSET:
            return {}
        literal = self._literal(field.type, field.type.accept(field.default))
        return {"server_default": _constant(literal)}

    def _sequence(self, table: str, column: str) -> str:
        """Return the name of the sequence of a generated column, as a text constant."""
        return _quoted(self.quote(f"{table}_{column}_seq"))

    def _literal(self, field: t.FieldType, value: Any) -> str:
        """Write an accepted value as a constant of its column's type."""
        if value is None:
            return "NULL"
        kind = self.type_text(self.column_type(field))
        if isinstance(field, t.ArrayType):
            return f"CAST([{', '.join(self._literal(field.item, item) for item in value)}] AS {kind})"
        if isinstance(value, (bool, int)):
            return str(value).lower()
        writers: dict[str, Callable[[Any], str]] = {"bytes": _blob, "json": dump_json, "float": repr}
        return f"CAST({_quoted(writers.get(field.storage, str)(value))} AS {kind})"

    def checks(self, field: FieldSpec) -> list[str]:
        column = self.quote(field.name).replace(":", r"\:")
        if field.type.storage == "float":
            return [f"isfinite({column})"]
        if field.type.choices:
            return [f"{column} IN ({', '.join(map(_quoted, field.type.choices))})".replace(":", r"\:")]
        return []

    def before_tables(self, models: Sequence[ModelSpec]) -> Program[None]:
        """Create the sequences that number rows."""
        for model in models:
            self.keys[model.table] = [*model.unique_keys]
            if model.counter:
                name = self.quote(f"{model.table}_{model.counter}_seq")
                yield Command(f"CREATE SEQUENCE IF NOT EXISTS {name} MINVALUE 0 START 1", COUNT, writes=True), ()

    def list_tables(self) -> Program[list[str]]:
        rows = yield Command(_TABLES), ()
        return sorted(row[0] for row in rows if not row[0].startswith("dataflow_"))

    def list_columns(self, table: str) -> Program[list[ColumnInfo]]:
        if not (yield Command(_TABLE), (table,)):
            return []
        return [ColumnInfo(*row) for row in (yield Command(_COLUMNS), (self.quote(table),))]

    def list_indexes(self, table: str) -> Program[list[str]]:
        rows = yield Command(_INDEXES), (table,)
        return [row[0] for row in rows]

    def schema_lock(self) -> Program[None]:
        """Do nothing: one transaction writes at a time."""
        yield from ()

    def begin(self, isolation: str | None, *, write: bool) -> Command:
        del isolation, write  # transactions that write come one after the other, which is at least what was asked for
        return _BEGIN

    # -- bulk -----------------------------------------------------------------------------------------------------
    def insert(self, table: sa.Table) -> Any:
        return pg.insert(table)

    def numbered(self, table: str, column: str, highest: int) -> Program[None]:
        name = f"{table}_{column}_seq"
        yield Command(_ADVANCE, writes=True), (self.quote(name), highest, name)

    def number_rows(self, insert: Insert, rows: Sequence[Sequence[Any]]) -> Program[Sequence[Sequence[Any]]]:
        """Take open ids from the sequence, each beyond those of the rows before."""
        if insert.generated not in insert.columns:
            return rows
        place = insert.columns.index(insert.generated)
        filled = list(rows)
        for given, stretch in groupby(range(len(rows)), lambda index: rows[index][place] is not None):
            indexes = list(stretch)
            if given:
                yield from self.numbered(insert.table, insert.generated, max(rows[index][place] for index in indexes))
                continue
            name = self.quote(f"{insert.table}_{insert.generated}_seq")
            numbers = yield Command("SELECT nextval($1) FROM range($2)", writes=True), (name, len(indexes))
            for index, (number,) in zip(indexes, numbers, strict=True):
                filled[index] = (*filled[index][:place], number, *filled[index][place + 1 :])
        return filled

    def insert_many(self, insert: Insert, rows: Rows, most_parameters: int) -> Program[tuple[int, list[Any]]]:
        """Hand the rows over as lists, one a column: DuckDB is slow at many parameters."""
        del most_parameters
        if insert.generated in insert.columns:
            rows = Rows.of((yield from self.number_rows(insert, list(rows))))
        lists = ", ".join(f"unnest(${place}::{self.type_text(kind)}[])" for place, kind in enumerate(insert.types, 1))
        sql = f"{insert.head.removesuffix('VALUES ')}SELECT {lists}{insert.tail}"
        command = Command(sql, writes=True) if insert.returning else Command(sql, COUNT, writes=True)
        size = insert.batch_size if insert.capped else max(insert.batch_size, ROWS_AT_ONCE)
        written, returned = 0, []
        for start in range(0, len(rows), size):
            columns = rows.columns(start, min(start + size, len(rows)))
            reply = yield command, [*map(list, columns), *insert.arguments]
            if insert.returning:
                returned += reply
            written += len(reply) if insert.returning else reply
        return written, returned

    def with_rows(self, joined: Joined, rows: Rows, most_parameters: int) -> Program[list[Any]]:
        """Hand the rows over as lists, one a column."""
        del most_parameters
        own = len(joined.arguments)
        lists = ", ".join(
            f"unnest(${own + place}::{self.type_text(kind)}[])" for place, kind in enumerate(joined.types, 1)
        )
        names = ", ".join(f"c{place}" for place in range(len(joined.types)))
        sql = f"WITH {ROWS_TABLE}({names}) AS (SELECT {lists}) {joined.command.sql}"
        command = attrs.evolve(joined.command, sql=sql)
        size = joined.batch_size or ROWS_AT_ONCE
        replies = []
        for start in range(0, len(rows), size):
            columns = rows.columns(start, min(start + size, len(rows)))
            replies.append((yield command, [*joined.arguments, *map(list, columns)]))
        return replies


def _constant(sql: str) -> Any:
    return sa.text(sql.replace(":", r"\:"))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _blob(value: bytes) -> str:
    return "".join(f"\\x{byte:02X}" for byte in value)


_HERE = "schema_name = current_schema() AND database_name = current_database()"
_TABLES = f"SELECT table_name FROM duckdb_tables() WHERE NOT internal AND NOT temporary AND {_HERE}"
_INDEXES = f"SELECT index_name FROM duckdb_indexes() WHERE table_name = $1 AND {_HERE}"
_TABLE = f"{_TABLES} AND table_name = $1"
_COLUMNS = 'SELECT name, type, NOT "notnull" AND NOT pk, pk, dflt_value FROM pragma_table_info($1) ORDER BY cid'
_ADVANCE = f"""\
SELECT setval($1, $2::BIGINT) FROM duckdb_sequences()
WHERE sequence_name = $3 AND {_HERE} AND coalesce(last_value, 0) < $2::BIGINT"""
