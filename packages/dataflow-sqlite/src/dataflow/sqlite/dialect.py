"""SQLite's side of the dialect protocol: types, schema, expressions, multi-row inserts.

Storage is made for other tools too: STRICT tables, ISO texts, canonical Decimal text, JSON with sorted keys.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from functools import cached_property
from typing import Any, ClassVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite as sqlite_types
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.sql import ColumnElement

from dataflow import types as t
from dataflow.config import Config, DatabaseURL
from dataflow.dialect import (
    COUNT,
    ROWS,
    Bind,
    ColumnInfo,
    Command,
    Convert,
    Database,
    Insert,
    Program,
    Rows,
    Session,
    Step,
    Trial,
    interleaved,
    refuse_unknown_context,
)
from dataflow.fields import UNSET, FieldSpec
from dataflow.jsontext import dump_instants, dump_json, dump_json_column, load_json
from dataflow.model import ModelSpec
from dataflow.sqlite.changelog import ChangeLog
from dataflow.sqlite.compiler import ExactDialect
from dataflow.sqlite.enclosure import COLUMNS, FOUND, Table
from dataflow.sqlite.functions import decimal_text

_STORAGE: dict[str, sa.types.TypeEngine[Any]] = {
    "int": sa.Integer(),
    "float": sqlite_types.REAL(),
    "bool": sa.Integer(),
    "bytes": sqlite_types.BLOB(),
}
_PLAIN: dict[type, t.FieldType] = {int: t.IntType(), float: t.FloatType(), str: t.StrType(), bytes: t.BytesType()}
_SEAL, _UNSEAL = Command("PRAGMA query_only = ON", COUNT), Command("PRAGMA query_only = OFF", COUNT)
_BEGIN, _BEGIN_WRITE = Command("BEGIN", COUNT), Command("BEGIN IMMEDIATE", COUNT)
_NOW_UTC = "(strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000+00:00')"
_AS_TEXT: dict[str, tuple[Convert, str]] = {"float": (repr, "df_float"), "bytes": (bytes.hex, "df_bytes")}
"""How IN-lists pass what JSON would change or refuse: writer, and the SQL function that reads it."""


def datetime_text(value: datetime) -> str:
    """Write an instant (aware UTC) at fixed width, so that text order is time order."""
    return value.isoformat(timespec="microseconds")


def _instant(text: str) -> datetime:
    """Read an instant; what other tools wrote without an offset (CURRENT_TIMESTAMP) is UTC."""
    value = datetime.fromisoformat(text)
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def time_text(value: time) -> str:
    """Write a time at fixed width."""
    return value.isoformat(timespec="microseconds")


def _accepted_decimal(value: Decimal) -> str:
    return format(value, "f")  # accepted values are canonical already


class SQLite(ChangeLog):
    """The SQLite dialect.

    Attributes:
        exact: whether statements name tables with their schema, as temporary views have the same names.
    """

    exact = False
    name: ClassVar[str] = "sqlite"
    aborts_on_error: ClassVar[bool] = False
    references_ahead: ClassVar[bool] = True

    def connect(self, url: DatabaseURL, config: Config) -> Database:
        from dataflow.sqlite.connection import SQLiteDatabase  # the driver loads on first use

        return SQLiteDatabase(url, config, confining=self._confining)

    def trial(self, url: DatabaseURL, config: Config) -> Trial:
        """Connect to a copy of the file, which goes when the DataFlow closes; memory goes by itself."""
        from dataflow.sqlite.copy import CopiedDatabase, TrialDatabase

        kind = TrialDatabase if url.path == ":memory:" else CopiedDatabase
        return kind(url, config, confining=self._confining)

    def _confining(self) -> None:
        self.exact = True
        self.__dict__.pop("sqlalchemy", None)

    def identity(self, url: DatabaseURL) -> str:
        return "" if url.path == ":memory:" else f"sqlite:{os.path.realpath(url.path)}"

    @cached_property
    def sqlalchemy(self) -> Any:
        dialect = (ExactDialect if self.exact else SQLiteDialect_pysqlite)(paramstyle="qmark")
        dialect.server_version_info = (3, 40, 0)
        dialect.insert_returning = dialect.update_returning = dialect.delete_returning = True
        return dialect

    def table_name(self, name: str) -> str:
        return f"main.{self.quote(name)}" if self.exact else self.quote(name)

    def placeholder(self, position: int) -> str:
        del position
        return "?"

    # -- types ----------------------------------------------------------------------------------------------------
    def column_type(self, field: t.FieldType) -> sa.types.TypeEngine[Any]:
        return _STORAGE.get(field.storage, sa.Text())

    def encoder(self, field: t.FieldType) -> Convert | None:
        if isinstance(field, t.ArrayType):
            inner = self.encoder(field.item)
            if field.item.storage == "bytes":
                inner = bytes.hex
            return dump_json if inner is None else lambda items: dump_json([inner(item) for item in items])
        encoders: dict[str, Callable[[Any], Any]] = {
            "bool": int,
            "datetime": datetime_text,
            "date": date.isoformat,
            "time": time_text,
            "decimal": _accepted_decimal,
            "uuid": str,
            "json": dump_json,
        }
        return encoders.get(field.storage)

    def column_encoder(self, field: t.FieldType) -> Callable[[list[Any]], list[Any]] | None:
        encoders: dict[str, Callable[[list[Any]], list[Any]]] = {
            "datetime": dump_instants,
            "json": dump_json_column,
        }
        return encoders.get(field.storage)

    def decoder(self, field: t.FieldType) -> Convert | None:
        if isinstance(field, t.ArrayType):
            inner = self.decoder(field.item)
            if field.item.storage == "bytes":
                inner = bytes.fromhex
            return load_json if inner is None else lambda text: [inner(item) for item in load_json(text)]
        decoders: dict[str, Callable[[Any], Any]] = {
            "bool": bool,
            "datetime": _instant,
            "date": date.fromisoformat,
            "time": time.fromisoformat,
            "decimal": Decimal,
            "uuid": UUID,
            "json": load_json,
        }
        return decoders.get(field.storage)

    def encode_any(self, value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, Enum):
            return self.encode_any(value.value)
        if isinstance(value, bool):
            return int(value)
        for kind, plain in _PLAIN.items():
            if isinstance(value, kind):
                return plain.accept(value)
        if isinstance(value, datetime):
            return datetime_text(t.DateTimeType().accept(value))
        writers: dict[type, Convert] = {date: date.isoformat, time: time_text, Decimal: decimal_text, UUID: str}
        for kind, write in writers.items():
            if isinstance(value, kind):
                return write(value)
        return dump_json(t.canonical_json(value))

    # -- schema ---------------------------------------------------------------------------------------------------
    def table_options(self, model: ModelSpec) -> dict[str, Any]:
        generated = len(model.primary_key) == 1 and model.key[0].generated
        return {"sqlite_strict": True, "sqlite_autoincrement": generated}

    def column_options(self, field: FieldSpec, check: str) -> dict[str, Any]:
        del check
        if field.write:
            return {"server_default": sa.text(_NOW_UTC)}
        if field.default is UNSET:
            return {}
        encode = self.encoder(field.type)
        accepted = field.type.accept(field.default)
        value = accepted if encode is None else encode(accepted)
        literal = "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)
        if isinstance(value, bytes):
            literal = f"X'{value.hex()}'"
        return {"server_default": sa.text(literal.replace(":", r"\:"))}

    def checks(self, field: FieldSpec) -> list[str]:
        column = self.quote(field.name).replace(":", r"\:")
        if field.type.storage == "bool":
            return [f"{column} IN (0, 1)"]
        if field.type.storage == "float":
            return [f"abs({column}) <= 1.7976931348623157e308"]
        if field.type.choices:
            texts = ", ".join("'" + text.replace("'", "''").replace(":", r"\:") + "'" for text in field.type.choices)
            return [f"{column} IN ({texts})"]
        return []

    def nulling(self, name: str, child: str, columns: Sequence[str], parent: str, remotes: Sequence[str]) -> str:
        pairs = zip(columns, remotes, strict=True)
        refers = " AND ".join(f"{self.quote(column)} = OLD.{self.quote(remote)}" for column, remote in pairs)
        begin = f"CREATE TRIGGER {self.quote(name)} BEFORE DELETE ON {self.quote(parent)} BEGIN "
        change = f"UPDATE {self.quote(child)} SET {self.quote(columns[-1])} = NULL WHERE {refers}"  # noqa: S608
        return f"{begin}{change}; END"

    def list_tables(self) -> Program[list[str]]:
        rows = yield (
            Command("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT GLOB 'sqlite_*' ORDER BY name"),
            (),
        )
        return [row[0] for row in rows if not row[0].startswith("dataflow_")]

    def list_columns(self, table: str) -> Program[list[ColumnInfo]]:
        sql = 'SELECT name, type, "notnull", pk, dflt_value FROM pragma_table_xinfo(?) WHERE hidden <> 1 ORDER BY cid'
        rows = yield Command(sql), (table,)
        return [
            ColumnInfo(name, kind, not notnull and not pk, bool(pk), default)
            for name, kind, notnull, pk, default in rows
        ]

    def list_indexes(self, table: str) -> Program[list[str]]:
        rows = yield Command("SELECT name FROM pragma_index_list(?)"), (table,)
        return [row[0] for row in rows]

    def schema_lock(self) -> Program[None]:
        """Do nothing: BEGIN IMMEDIATE has locked out other writers already."""
        yield from ()

    def enter(self, session: Session, context: Mapping[str, str]) -> Program[None]:
        refuse_unknown_context(context)
        session.context = {**session.context, **context}
        yield from self.log_ready()

    def sealed(self, session: Session, step: Step) -> Program[Any]:
        if getattr(session, "reads_only", False):
            return (yield step)
        yield _SEAL, ()  # also inside an open transaction
        try:
            reply = yield step
        except GeneratorExit:  # abandoned: the release unseals
            raise
        except BaseException:
            yield _UNSEAL, ()
            raise
        yield _UNSEAL, ()
        return reply

    def enclosed(self, model: ModelSpec) -> Program[bool]:
        table = yield from self._enclosure(model)
        found = yield Command(FOUND), table.writers
        if not model.scope:
            return not found  # else it is a table of several tenants: nobody may take it for everybody's
        return table.tenant in table.columns and dict(found) == table.permanent()

    def enclose(self, model: ModelSpec) -> Program[None]:
        """Create the views and triggers through which SQL of the user's own writes a model's table."""
        table = yield from self._enclosure(model)
        for view in table.writers:
            yield Command(f"DROP VIEW IF EXISTS main.{self.quote(view)}", COUNT, writes=True), ()
        for statement in table.permanent().values() if model.scope else ():
            yield Command(statement, COUNT, writes=True), ()

    def _enclosure(self, model: ModelSpec) -> Program[Table]:
        columns = yield Command(COLUMNS), (model.table,)
        return Table.found(model.table, (*model.scope, "")[0], model.primary_key, columns)

    def shielded(self, session: Session, step: Step, denies: Callable[[str, str, str], bool]) -> Program[Any]:
        """Send a statement; the authorizer asks about each change. Confined connections have another one."""
        session.shield = denies  # type: ignore[attr-defined]
        try:
            return (yield step)
        finally:
            session.shield = None  # type: ignore[attr-defined]

    def begin(self, isolation: str | None, *, write: bool) -> Command:
        del isolation  # SQLite's transactions are serializable, which is at least what was asked for
        return _BEGIN_WRITE if write else _BEGIN

    # -- expressions ----------------------------------------------------------------------------------------------
    def comparable(self, column: ColumnElement[Any], field: t.FieldType) -> ColumnElement[Any]:
        return sa.collate(column, "df_decimal") if field.storage == "decimal" else column

    def returned(self, column: ColumnElement[Any], field: t.FieldType) -> ColumnElement[Any]:
        """Make floats floats: SQLite's RETURNING gives 700.0 as the integer 700."""
        return sa.cast(column, sqlite_types.REAL) if field.storage == "float" else column

    def in_list(
        self, column: ColumnElement[Any], field: t.FieldType, encode: Convert, bind: Bind, size: int
    ) -> ColumnElement[bool]:
        del size  # one parameter, whatever the length
        value: ColumnElement[Any] = sa.literal_column("value")
        write = encode
        if field.storage in _AS_TEXT:
            text, read = _AS_TEXT[field.storage]
            value = getattr(sa.func, read)(value)
            write = lambda item: text(encode(item))  # noqa: E731
        array = bind(lambda items: dump_json([write(item) for item in items]))
        return column.in_(sa.select(value).select_from(sa.func.json_each(array)))

    def text_match(self, op: str, column: ColumnElement[Any], bind: Bind) -> ColumnElement[bool]:
        if op == "$like":
            return column.op("GLOB", is_comparison=True)(bind(_glob))
        if op == "$contains":
            return sa.func.instr(column, bind(None)) > sa.literal_column("0")
        if op in ("$startswith", "$endswith"):
            star = (lambda s: _escaped(s) + "*") if op == "$startswith" else (lambda s: "*" + _escaped(s))
            return column.op("GLOB", is_comparison=True)(bind(star))
        from dataflow import regex

        patterns: dict[str, Convert] = {
            "$ilike": lambda s: regex.like_pattern(s).to_python(ignore_case=True),
            "$regex": regex.python_pattern,
            "$iregex": lambda s: regex.python_pattern(s, ignore_case=True),
        }
        return sa.func.regexp(bind(patterns[op]), column, type_=sa.Boolean())

    def list_match(
        self, op: str, column: ColumnElement[Any], field: t.FieldType, encode: Convert, bind: Bind
    ) -> ColumnElement[bool]:
        assert isinstance(field, t.ArrayType)
        store = self.encoder(field)
        assert store is not None
        if op == "$contains":
            return sa.func.df_json_contains(column, bind(lambda item: store([encode(item)])), type_=sa.Boolean())
        return sa.func.df_json_overlap(
            column, bind(lambda items: store([encode(i) for i in items])), type_=sa.Boolean()
        )

    def json_match(
        self, op: str, column: ColumnElement[Any], path: Sequence[str], kind: str, bind: Bind
    ) -> ColumnElement[bool]:
        if any(_UNSPEAKABLE.search(part) for part in path):
            column, path = sa.func.df_json_member(column, sa.literal(dump_json(list(path)))), ()
        place = sa.literal("$" + "".join(_step(part) for part in path))
        value = sa.func.json_extract(column, place)
        found = sa.func.json_type(column, place)
        if op == "$exists":
            return found.is_not(None)
        if op in ("$contains", "$overlap"):
            name = sa.func.df_json_contains if op == "$contains" else sa.func.df_json_overlap
            match = name(_document(column, place), bind(dump_json), type_=sa.Boolean())
            if op == "$overlap" or kind != "str":
                return match
            is_text = found == sa.literal_column("'text'")
            inside = sa.func.instr(value, bind(None)) > sa.literal_column("0")
            return sa.case((is_text, inside), else_=match).is_(sa.true())
        if kind == "null":
            return value.is_(None)
        if kind == "bool":
            return found == bind(lambda flag: "true" if flag else "false")
        if kind == "json":
            name = sa.func.df_json_in if op == "$in" else sa.func.df_json_equal
            return name(_document(column, place), bind(dump_json), type_=sa.Boolean())
        same_type = (
            found == sa.literal_column("'text'")
            if kind == "str"
            else found.in_([sa.literal_column("'integer'"), sa.literal_column("'real'")])
        )
        if op in ("$like", "$ilike", "$regex", "$iregex", "$startswith", "$endswith"):
            return sa.and_(same_type, self.text_match(op, value, bind))
        if op == "$in":
            array = sa.func.json_each(bind(dump_json))
            within: ColumnElement[bool] = value.in_(sa.select(sa.literal_column("value")).select_from(array))
            if kind == "number":
                among = sa.func.df_json_in(_document(column, place), bind(_large_items), type_=sa.Boolean())
                within = sa.case((bind(_large_items).is_(None), within), else_=among)
            return sa.and_(same_type, within)
        if kind != "number":
            return sa.and_(same_type, _comparison(op, value, bind(None)))
        order = sa.func.df_json_order(_document(column, place), bind(_large), type_=sa.Integer())
        exactly = _comparison(op, order, sa.literal_column("0"))
        native = _comparison(op, value, bind(_bindable))
        return sa.and_(same_type, sa.case((bind(_large).is_(None), native), else_=exactly))

    def arithmetic(
        self, op: str, column: ColumnElement[Any], field: t.FieldType, operand: type, bind: Bind
    ) -> ColumnElement[Any]:
        if op in ("$min", "$max"):
            parameter = bind(None)
            ordered = self.comparable(column, field)
            keep = ordered <= parameter if op == "$min" else ordered >= parameter
            return sa.case((keep, column), else_=parameter)
        sign = {"$inc": "+", "$dec": "-", "$multiply": "*", "$divide": "/"}[op]
        if field.storage == "float":
            functions = {"*": sa.func.df_multiply, "/": sa.func.df_divide}
            return functions[sign](column, bind(None)) if sign in functions else column.op(sign)(bind(None))
        if field.storage == "int" and operand is int and sign != "/":  # native, with a function only for overflow
            exact = sa.func.typeof(column.op(sign)(bind(None))).in_(
                [sa.literal_column("'integer'"), sa.literal_column("'null'")]
            )
            return sa.case((exact, column.op(sign)(bind(None))), else_=sa.func.df_overflow())
        kind = "int" if field.storage == "int" else "decimal"
        number = bind(lambda value: value if isinstance(value, (int, float, str)) else decimal_text(value))
        return sa.func.df_arithmetic(sa.literal_column(f"'{sign}'"), column, number, sa.literal_column(f"'{kind}'"))

    def append(self, column: ColumnElement[Any], field: t.FieldType, encode: Convert, bind: Bind) -> ColumnElement[Any]:
        inner = self.encoder(field.item) if isinstance(field, t.ArrayType) else None
        if isinstance(field, t.ArrayType) and field.item.storage == "bytes":
            inner = bytes.hex
        write = (lambda item: dump_json(inner(item))) if inner is not None else dump_json
        del encode
        return sa.func.df_json_append(column, bind(write))

    def aggregate(self, op: str, column: ColumnElement[Any] | None, field: t.FieldType | None) -> ColumnElement[Any]:
        if column is None or field is None:
            return sa.func.count()
        if op == "$count":
            return sa.func.count(column)
        if op == "$count_distinct":
            return sa.func.count((sa.func.df_json_value(column) if field.storage == "json" else column).distinct())
        if op in ("$sum", "$avg"):
            return _total(op, column, field.storage)
        function = sa.func.min if op == "$min" else sa.func.max
        return function(self.comparable(column, field))

    # -- bulk -----------------------------------------------------------------------------------------------------
    def insert(self, table: sa.Table) -> Any:
        return sqlite_types.insert(table)

    def insert_many(self, insert: Insert, rows: Rows, most_parameters: int) -> Program[tuple[int, list[Any]]]:
        """Write multi-row VALUES statements; auto ids of one statement ascend in row order."""
        width = max(len(insert.columns), 1)
        size = max(1, min(insert.batch_size, (most_parameters - len(insert.arguments)) // width))
        written = 0
        returned: list[Any] = []
        counted = insert.generated is not None and insert.generated not in insert.columns and insert.returning == 1
        full = Command(_values(insert, size), ROWS if insert.returning else COUNT, writes=True)
        for start in range(0, len(rows), size):
            count = min(size, len(rows) - start)
            arguments = interleaved(rows.columns(start, start + count), count)
            command = full if count == size else Command(_values(insert, count), full.returns, writes=True)
            reply = yield command, [*arguments, *insert.arguments] if insert.arguments else arguments
            if insert.returning:
                returned += sorted(reply) if counted else reply
                written += len(reply)
            else:
                written += reply
        return written, returned


def _values(insert: Insert, count: int) -> str:
    return insert.head + ", ".join([insert.group] * count) + insert.tail


def _total(op: str, column: ColumnElement[Any], storage: str) -> ColumnElement[Any]:
    """Sum or average; integers are added in two halves, so that neither order nor size of the parts matters."""
    if storage == "decimal":
        if op == "$avg":
            return sa.func.df_decimal_avg(column)
        return sa.func.coalesce(sa.func.df_decimal_sum(column), sa.literal_column("'0'"))
    if storage == "float":
        found = sa.func.coalesce(sa.func.sum(column), sa.literal_column("0.0")) if op == "$sum" else sa.func.avg(column)
        return sa.func.df_finite(found)
    high: ColumnElement[Any] = sa.func.sum(column.op(">>")(sa.literal_column("32")))
    low: ColumnElement[Any] = sa.func.sum(column.op("&")(sa.literal_column("4294967295")))
    if op == "$avg":
        return sa.func.df_average(high, low, sa.func.count(column))
    return sa.func.df_whole(high, low)


_UNSPEAKABLE = re.compile(r'["\\\x00-\x1f]')
"""What a JSON path cannot name: SQLite compares keys as they are escaped."""


def _comparison(op: str, one: ColumnElement[Any], other: ColumnElement[Any]) -> ColumnElement[bool]:
    found: ColumnElement[bool] = {
        "$eq": one.__eq__, "$gt": one.__gt__, "$gte": one.__ge__, "$lt": one.__lt__, "$lte": one.__le__,
    }[op](other)  # fmt: skip
    return found


def _is_large(number: float) -> bool:
    """Tell whether a number is beyond 64 bits: SQLite reads such integers of JSON as floats, and takes none."""
    return not t.INT_MIN <= number <= t.INT_MAX


def _bindable(number: float) -> float:
    return 0 if _is_large(number) else number


def _large(number: float) -> str | None:
    """Pass a number beyond 64 bits as JSON, to be compared in Python."""
    return dump_json(number) if _is_large(number) else None


def _large_items(numbers: Sequence[float]) -> str | None:
    return dump_json(numbers) if any(map(_is_large, numbers)) else None


def _document(column: ColumnElement[Any], place: ColumnElement[Any]) -> ColumnElement[Any]:
    """The JSON text at a place (objects and arrays), or NULL; stored texts are canonical already."""
    return column.op("->")(place)


def _step(part: str) -> str:
    return f'."{part}"'


def _escaped(text: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


def _glob(pattern: str) -> str:
    """Turn a LIKE pattern (% _ and backslash) into a GLOB pattern, which is case-sensitive."""
    out = []
    characters = iter(pattern)
    for c in characters:
        if c == "\\":
            following = next(characters, None)
            if following is None:
                msg = "the pattern ends in a backslash"
                raise t.ValueRefused(msg, "double it, or put the character it escapes")
            out.append(_escaped(following))
        else:
            out.append({"%": "*", "_": "?"}.get(c) or _escaped(c))
    return "".join(out)
