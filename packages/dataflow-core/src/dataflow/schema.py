"""ModelSpec -> SQLAlchemy Table, and the creation of missing tables.

The fuller schema story (differences, plans, migrations) belongs to the migrations package; here a missing table is
created, and a missing column is an error that says so.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from zlib import crc32

import sqlalchemy as sa
from sqlalchemy.schema import AddConstraint, CreateIndex, CreateTable

from dataflow.dialect import COUNT, Command, Dialect, Program
from dataflow.errors import SchemaError
from dataflow.fields import ForeignKey
from dataflow.model import LONGEST_NAME, IndexSpec, ModelSpec
from dataflow.plugins.hints import extra_for

if TYPE_CHECKING:
    from dataflow.plan.bound import BoundModel


def build_table(
    model: ModelSpec, dialect: Dialect, metadata: sa.MetaData, foreign: dict[str, tuple[str, str]]
) -> sa.Table:
    """Build the table of a model.

    Args:
        model: the model.
        dialect: gives types, defaults and options.
        metadata: collection of the instance's tables.
        foreign: field -> (target table, target column), for fields annotated `ForeignKey`.
    """
    items: list[Any] = []
    for field in model.fields.values():
        options = dialect.column_options(field, model.table)
        if field.name in foreign and isinstance(field.relation, ForeignKey):
            target = ".".join(foreign[field.name])
            options["_fk"] = sa.ForeignKey(
                target,
                ondelete=field.relation.on_delete.upper(),
                name=_shortened(f"fk_{model.table}_{field.name}"),
                link_to_name=True,
            )
        fk = options.pop("_fk", None)
        args = [fk] if fk is not None else []
        column = sa.Column(
            sa.quoted_name(field.name, quote=True),
            dialect.column_type(field.type),
            *args,
            primary_key=field.name in model.primary_key,
            nullable=field.nullable,
            **options,
        )
        items.append(column)
        items += [sa.CheckConstraint(sa.text(check)) for check in dialect.checks(field)]
    table = sa.Table(sa.quoted_name(model.table, quote=True), metadata, *items, **dialect.table_options(model))
    for index in model.indexes:
        _build_index(index, table, dialect)
    return table


def _shortened(name: str) -> str:
    """Keep a name of ours within what databases allow, and different from others."""
    if len(name.encode()) <= LONGEST_NAME:
        return name
    kept = name.encode()[: LONGEST_NAME - 9].decode(errors="ignore")
    return f"{kept}_{crc32(name.encode()):08x}"


def _build_index(index: IndexSpec, table: sa.Table, dialect: Dialect) -> None:
    where: dict[str, Any] = {} if index.where is None else {f"{dialect.sqlalchemy.name}_where": sa.text(index.where)}
    columns = [table.c[name] for name in index.fields]
    sa.Index(sa.quoted_name(index.name, quote=True), *columns, unique=index.unique, **where)


def _ddl(element: Any, dialect: Dialect) -> Command:
    return Command(str(element.compile(dialect=dialect.sqlalchemy)).strip(), COUNT, writes=True)


def lacks(models: Iterable["BoundModel"], dialect: Dialect) -> Program[bool]:
    """Tell whether a table or index is missing; needs no lock, so that reading does not wait for a writer."""
    existing = set((yield from dialect.list_tables()))
    for model in models:
        if model.spec.table not in existing:
            return True
        if model.spec.indexes:
            present = set((yield from dialect.list_indexes(model.spec.table)))
            if any(index.name not in present for index in model.spec.indexes):
                return True
    return False


def create_missing(models: Iterable["BoundModel"], dialect: Dialect, *, create: bool) -> Program[None]:
    """Create the tables and indexes that are missing; check the columns of those that are there.

    Runs inside a transaction that holds the schema lock, so that several processes may start together.

    Raises:
        SchemaError: a table lacks a column, or is missing while `create` is False.
    """
    existing = set((yield from dialect.list_tables()))
    later: list[sa.ForeignKeyConstraint] = []
    for model in models:
        if model.spec.table not in existing:
            if not create:
                raise _missing_table(model.spec)
            existing.add(model.spec.table)
            keys = sorted(model.table.foreign_key_constraints, key=lambda key: str(key.name))
            now = [key for key in keys if dialect.references_ahead or key.referred_table.name in existing]
            later += [key for key in keys if key not in now]
            yield _ddl(CreateTable(model.table, include_foreign_key_constraints=now), dialect), ()
            for index in sorted(model.table.indexes, key=lambda i: str(i.name)):
                yield _ddl(CreateIndex(index), dialect), ()
            for extra in model.spec.ddl_extras:
                yield Command(str(extra), COUNT, writes=True), ()
            continue
        columns = yield from dialect.list_columns(model.spec.table)
        _check_columns(model.spec, {column.name for column in columns})
        if create:
            present = set((yield from dialect.list_indexes(model.spec.table)))
            for index in sorted(model.table.indexes, key=lambda i: str(i.name)):
                if str(index.name) not in present:
                    yield _ddl(CreateIndex(index), dialect), ()
    for key in later:  # models that refer to each other
        yield _ddl(AddConstraint(key), dialect), ()


def _missing_table(model: ModelSpec) -> SchemaError:
    msg = f"the table {model.table!r} of model {model.name} does not exist"
    hint = "create it yourself, or allow it: DataFlow(auto_migrate=True, existing_schema_mode=False)"
    return SchemaError(msg, hint=hint, where={"model": model.name, "table": model.table}, code="missing-table")


def _check_columns(model: ModelSpec, columns: set[str]) -> None:
    missing = [name for name in model.fields if name not in columns]
    if not missing:
        return
    msg = f"the table {model.table!r} of model {model.name} lacks {', '.join(missing)}"
    stamps = {"created_at", "updated_at"} & set(missing)
    extra = extra_for("capability", "migrations")
    hint = f"add what is missing with ALTER TABLE; to have columns added by themselves, {extra}"
    if stamps:
        hint = "set __dataflow__ = {'timestamps': False} if the table has no timestamps; or " + hint
    raise SchemaError(msg, hint=hint, where={"model": model.name, "table": model.table}, code="missing-column")
