"""PostgreSQL's side of the dialect protocol: connections, types, schema. Expressions and bulk are its neighbours'.

Native types throughout: bigint, double precision, text compared by code point, timestamptz, numeric, uuid, jsonb,
arrays, bytea. Enums are text with a CHECK unless the setting `postgres_native_enums` asks for enum types.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time
from decimal import Context, Decimal
from enum import Enum
from functools import cached_property
from typing import Any, ClassVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from dataflow import types as t
from dataflow.config import Config, DatabaseURL
from dataflow.dialect import COUNT, ColumnInfo, Command, Convert, Database, Program, Session, Step, Trial
from dataflow.errors import ConfigurationError, DatabaseTimeout, SchemaError
from dataflow.fields import UNSET, FieldSpec
from dataflow.jsontext import dump_json, dump_json_column, load_json
from dataflow.model import ModelSpec
from dataflow.naming import snake
from dataflow.postgres.bulk import Bulk
from dataflow.postgres.changelog import ChangeLog
from dataflow.postgres.confinement import Confinement, Confining, tenant_url
from dataflow.postgres.expressions import Expressions
from dataflow.postgres.grants import Granting
from dataflow.postgres.standing import SCHEMA_LOCK, WAIT
from dataflow.session import COMMIT, ROLLBACK

_STORAGE: dict[str, sa.types.TypeEngine[Any]] = {
    "int": sa.BigInteger(),
    "float": sa.Double(),
    "str": pg.TEXT(collation="C"),
    "bool": sa.Boolean(),
    "bytes": pg.BYTEA(),
    "datetime": pg.TIMESTAMP(timezone=True),
    "date": sa.Date(),
    "time": pg.TIME(),
    "decimal": sa.Numeric(),
    "uuid": sa.Uuid(),
    "enum": pg.TEXT(collation="C"),
    "json": pg.JSONB(),
}
_BEGIN = Command("BEGIN", COUNT)
_EXACT = Context(prec=150_000, Emax=999_999, Emin=-999_999)


def _canonical(value: Decimal) -> Decimal:
    """Strip trailing zeros, which computed or foreign numbers may have; without exponent."""
    if t.is_canonical(value):
        return value
    if not value:
        return Decimal(0)
    stripped = value.normalize(_EXACT)
    return stripped if stripped == value and stripped.as_tuple().exponent <= 0 else value.quantize(1, context=_EXACT)  # type: ignore[operator]


def _sorted_json(text: str) -> Any:
    """Read JSON; jsonb keeps keys by length."""
    value = load_json(text)
    return _in_order(value) if type(value) in _CONTAINERS else value


def _in_order(value: Any) -> Any:
    if type(value) is dict:
        names = sorted(value)
        if names != list(value):
            value = {name: value[name] for name in names}
        if not _CONTAINERS.isdisjoint(map(type, value.values())):
            for name, item in value.items():
                if type(item) in _CONTAINERS:
                    value[name] = _in_order(item)
    elif not _CONTAINERS.isdisjoint(map(type, value)):
        for index, item in enumerate(value):
            if type(item) in _CONTAINERS:
                value[index] = _in_order(item)
    return value


_CONTAINERS = frozenset((dict, list))


def _uuid(value: UUID) -> UUID:
    return UUID(int=value.int)  # the driver's own subclass compares equal, and is another type


def _aware(value: datetime) -> datetime:
    """Give datetime.max and .min their zone back: the driver stores them as infinities, and returns those naive."""
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def _hex(value: bytes) -> str:
    return "\\x" + value.hex()


class Declared(sa.types.UserDefinedType[Any]):
    """A column type that others chose, as PostgreSQL writes it: parameters are cast to it."""

    cache_ok = True
    render_bind_cast = True

    def __init__(self, text: str) -> None:
        self.text = text

    def get_col_spec(self, **_: Any) -> str:
        return self.text


def quoted(text: str) -> str:
    """Write a text literal (with standard_conforming_strings, the default since PostgreSQL 9.1)."""
    return "'" + text.replace("'", "''") + "'"


class PostgreSQL(Expressions, Bulk, Confining, ChangeLog, Granting):
    """The PostgreSQL dialect."""

    name: ClassVar[str] = "postgresql"
    nulls_need_order: ClassVar[bool] = True
    aborts_on_error: ClassVar[bool] = True
    numbers_apart: ClassVar[bool] = True

    def __init__(self) -> None:
        self.native_enums = False
        self.alone = False  # whether nobody else sees the schema: then there is nobody to be locked out
        self.confinement = Confinement(None, creates=False)

    def connect(self, url: DatabaseURL, config: Config) -> Database:
        from dataflow.postgres.database import PostgresDatabase  # the driver loads on first use

        self.native_enums = config["postgres_native_enums"]
        self.lock_timeout = config["lock_timeout"]
        self.schema = config["postgres_schema"]
        creates = config["auto_migrate"] and not config["existing_schema_mode"]
        self.confinement = Confinement(tenant_url(config["postgres_tenant_url"]), creates=creates)
        return PostgresDatabase(url, config, self.confinement, self.restricted)

    def trial(self, url: DatabaseURL, config: Config) -> Trial:
        from dataflow.postgres.trial import PostgresTrial

        return PostgresTrial(self, self.connect(url, config), _BEGIN, config)

    def identity(self, url: DatabaseURL) -> str:
        options = dict(url.query)
        host, port = url.host or options.get("host", "localhost"), url.port or options.get("port", 5432)
        host = "localhost" if host in ("127.0.0.1", "::1", "[::1]") else host
        return f"postgresql:{host}:{port}/{url.path or options.get('dbname', '')}"

    @cached_property
    def sqlalchemy(self) -> Any:
        dialect: Any = PGDialect_asyncpg()  # type: ignore[no-untyped-call]
        dialect.server_version_info = (15, 0)
        dialect._backslash_escapes = False  # noqa: SLF001  # what SQLAlchemy finds out when it connects
        return dialect

    def placeholder(self, position: int) -> str:
        return f"${position}"

    # -- types ----------------------------------------------------------------------------------------------------
    def column_type(self, field: t.FieldType) -> sa.types.TypeEngine[Any]:
        if field.column:
            return Declared(field.column)
        if isinstance(field, t.ArrayType):
            return pg.ARRAY(self.column_type(field.item))
        if isinstance(field, t.EnumType) and self.native_enums:
            return pg.ENUM(*field.choices, name=snake(field.enum.__name__), create_type=False)
        return _STORAGE.get(field.storage, pg.TEXT(collation="C"))

    def encoder(self, field: t.FieldType) -> Convert | None:
        if isinstance(field, t.ArrayType):
            inner = self.encoder(field.item)
            return None if inner is None else lambda items: [inner(item) for item in items]
        return dump_json if field.storage == "json" else None

    def column_encoder(self, field: t.FieldType) -> Callable[[list[Any]], list[Any]] | None:
        return dump_json_column if field.storage == "json" else None

    def decoder(self, field: t.FieldType) -> Convert | None:
        if isinstance(field, t.ArrayType):
            inner = self.decoder(field.item)
            return None if inner is None else lambda items: [inner(item) for item in items]
        decoders: dict[str, Convert] = {
            "datetime": _aware,
            "decimal": _canonical,
            "uuid": _uuid,
            "json": _sorted_json,
        }
        return decoders.get(field.storage)

    def encode_any(self, value: Any) -> Any:
        if isinstance(value, Enum):
            return self.encode_any(value.value)
        plain: tuple[tuple[type, t.FieldType], ...] = (
            (bool, t.BoolType()),
            (int, t.IntType()),
            (float, t.FloatType()),
            (str, t.StrType()),
            (bytes, t.BytesType()),
            (datetime, t.DateTimeType()),
        )
        for kind, own in plain:
            if isinstance(value, kind):
                return own.accept(value)
        if value is None or isinstance(value, (date, time, Decimal, UUID, list, tuple)):
            return value
        return dump_json(t.canonical_json(value))

    # -- schema ---------------------------------------------------------------------------------------------------
    def column_options(self, field: FieldSpec, check: str) -> dict[str, Any]:
        del check
        if field.generated:
            return {"server_default": sa.Identity(always=False)}
        if field.write:
            return {"server_default": sa.text("CURRENT_TIMESTAMP")}
        if field.default is UNSET:
            return {}
        literal = self._literal(field.type, field.type.accept(field.default))
        return {"server_default": sa.text(literal.replace(":", r"\:"))}

    def _literal(self, field: t.FieldType, value: Any) -> str:
        """Write an accepted value as a constant of its column's type."""
        if value is None:
            return "NULL"
        if isinstance(field, t.ArrayType):
            items = ", ".join(self._literal(field.item, item) for item in value)
            return f"ARRAY[{items}]::{self.type_text(self.column_type(field))}"
        if field.storage in ("int", "bool"):
            return str(value).lower()
        writers: dict[str, Callable[[Any], str]] = {"bytes": _hex, "json": dump_json, "float": repr}
        text = writers.get(field.storage, str)(value)
        return f"{quoted(text)}::{self.type_text(self.column_type(field))}"

    def checks(self, field: FieldSpec) -> list[str]:
        if not field.type.choices or self.native_enums:
            return []
        texts = ", ".join(map(quoted, field.type.choices))
        return [f"{self.quote(field.name)} IN ({texts})".replace(":", r"\:")]

    def set_null_of(self, column: str) -> str:
        return f"SET NULL ({self.quote(column)})"

    def create_database(self, name: str) -> Program[None]:
        if not (yield Command("SELECT FROM pg_database WHERE datname = $1"), (name,)):
            yield Command(f"CREATE DATABASE {self.quote(name)}", COUNT, writes=True), ()

    def before_tables(self, models: Sequence[ModelSpec]) -> Program[None]:
        if self.schema and not (yield Command("SELECT FROM pg_namespace WHERE nspname = $1"), (self.schema,)):
            yield Command(f"CREATE SCHEMA {self.quote(self.schema)}", COUNT, writes=True), ()
        if not self.native_enums:
            return
        enums: dict[str, t.EnumType] = {}
        for field in (field.type for model in models for field in model.fields.values()):
            own = field.item if isinstance(field, t.ArrayType) else field
            if isinstance(own, t.EnumType):
                enums[snake(own.enum.__name__)] = own
        for name, enum in enums.items():
            yield from self._create_enum(name, enum)

    def _create_enum(self, name: str, enum: t.EnumType) -> Program[None]:
        sql = (
            "SELECT enumlabel::text FROM pg_enum JOIN pg_type ON pg_type.oid = enumtypid "
            "WHERE typname = $1 AND typnamespace = to_regnamespace(quote_ident(current_schema())) "
            "ORDER BY enumsortorder"
        )
        found = [row[0] for row in (yield Command(sql), (name,))]
        if not found:
            labels = ", ".join(map(quoted, enum.choices))
            yield Command(f"CREATE TYPE {self.quote(name)} AS ENUM ({labels})", COUNT, writes=True), ()
        elif not set(enum.choices) <= set(found):
            lacking = ", ".join(label for label in enum.choices if label not in found)
            msg = f"the enum type {name!r} of the database lacks {lacking}"
            raise SchemaError(msg, hint=f"ALTER TYPE {self.quote(name)} ADD VALUE '…'", code="enum-differs")

    def list_tables(self) -> Program[list[str]]:
        rows = yield Command(_TABLES), ()
        return [row[0] for row in rows if not row[0].startswith("dataflow_")]

    def list_columns(self, table: str) -> Program[list[ColumnInfo]]:
        rows = yield Command(_COLUMNS), (table,)
        return [ColumnInfo(*row) for row in rows]

    def list_indexes(self, table: str) -> Program[list[str]]:
        rows = yield Command(_INDEXES), (table,)
        return [row[0] for row in rows]

    def schema_lock(self) -> Program[None]:
        """Ask again and again: a process that waits within a statement would hold a snapshot all the while."""
        if self.alone:
            return
        asked = Command("SELECT pg_try_advisory_xact_lock($1)")
        for _ in range(max(int(self.lock_timeout / 0.05), 1)):
            rows = yield asked, (SCHEMA_LOCK,)
            if rows[0][0]:
                return
            yield WAIT, (0.05,)
        msg = f"another process has been creating tables for {self.lock_timeout:g} s"
        raise DatabaseTimeout(msg, hint="end it, or raise the setting lock_timeout (seconds)")

    # -- transactions ---------------------------------------------------------------------------------------------
    def sealed(self, session: Session, step: Step) -> Program[Any]:
        """Send a statement in a transaction, or savepoint, that is read only: no SQL inside can switch that back."""
        depth = session.depth
        begin, undo, end = _SEAL_WITHIN if depth else _SEAL
        yield begin, ()
        session.depth = depth + 1
        try:
            reply = yield step
            yield end, ()
        except GeneratorExit:
            raise
        except BaseException:
            for command in undo:
                yield command, ()
            session.depth = depth
            raise
        session.depth = depth
        return reply

    def begin(self, isolation: str | None, *, write: bool) -> Command:
        del write  # a reading transaction may be continued by a writing node
        if isolation is None:
            return _BEGIN
        if isolation not in self.isolation_levels:
            raise ConfigurationError("there is no such isolation level", code="bad-parameter")
        return Command(f"BEGIN ISOLATION LEVEL {isolation.replace('_', ' ')}", COUNT)


_SEAL = Command("BEGIN READ ONLY", COUNT), (ROLLBACK,), COMMIT
_SEAL_WITHIN = (
    Command("SAVEPOINT df_sealed; SET TRANSACTION READ ONLY", COUNT),
    (Command("ROLLBACK TO SAVEPOINT df_sealed", COUNT), Command("RELEASE SAVEPOINT df_sealed", COUNT)),
    Command("RELEASE SAVEPOINT df_sealed", COUNT),
)
_TABLES = """\
SELECT relname::text FROM pg_class
WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relkind IN ('r', 'p')
ORDER BY relname COLLATE "C\""""
_COLUMNS = """\
SELECT attname::text, format_type(atttypid, atttypmod), NOT attnotnull,
       EXISTS (SELECT FROM pg_index WHERE indrelid = attrelid AND indisprimary AND attnum = ANY (indkey)),
       pg_get_expr(adbin, adrelid)
FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attrelid = to_regclass(quote_ident(current_schema()) || '.' || quote_ident($1))
      AND attnum > 0 AND NOT attisdropped
ORDER BY attnum"""
_INDEXES = """\
SELECT relname::text FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE indrelid = to_regclass(quote_ident(current_schema()) || '.' || quote_ident($1))"""
