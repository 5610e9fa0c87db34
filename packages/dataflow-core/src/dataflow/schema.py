"""ModelSpec -> SQLAlchemy Table, and the creation of missing tables.

The fuller schema story (differences, plans, migrations) belongs to the migrations package; here a missing table is
created, and a missing column is an error that says so. `create_tables` and `create_extras` serve that package as well.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from zlib import crc32

import attrs
import sqlalchemy as sa
from sqlalchemy.schema import AddConstraint, CreateIndex, CreateTable

from dataflow.dialect import COUNT, Command, Dialect, Program, refuse_unsupported
from dataflow.errors import SchemaError
from dataflow.fields import FieldSpec
from dataflow.model import LONGEST_NAME, IndexSpec, ModelSpec, SchemaExtra
from dataflow.plugins.hints import extra_for

if TYPE_CHECKING:
    from dataflow.plan.bound import BoundModel


ALIVE = "_alive"
"""A computed column: 1 as long as the record lives, else NULL. References to it are references to what lives."""


@attrs.frozen
class Reference:
    """A foreign key to build.

    Attributes:
        field: the field that refers.
        target: the model it refers to.
        remote: the field of the target.
        on_delete: "restrict", "cascade", "set null" or "no action".
    """

    field: str
    target: ModelSpec
    remote: str
    on_delete: str


def build_table(
    model: ModelSpec, dialect: Dialect, metadata: sa.MetaData, references: Sequence[Reference] = ()
) -> sa.Table:
    """Build the table of a model.

    Keys begin with the fields of its scope, and so do references, which cannot leave it then. Unique indexes do not
    count records that live no more, and references to a model whose records may end lead only to those that live.

    Args:
        model: the model.
        dialect: gives types, defaults and options.
        metadata: collection of the instance's tables.
        references: its foreign keys.
    """
    items: list[Any] = []
    composite = model.row_key != model.primary_key or len(model.primary_key) > 1
    for field in model.fields.values():
        items.append(
            sa.Column(
                sa.quoted_name(field.name, quote=True),
                dialect.column_type(field.type),
                primary_key=field.name in model.primary_key and not composite,
                nullable=field.nullable,
                **_column_options(field, model, dialect),
            )
        )
        items += [sa.CheckConstraint(sa.text(check)) for check in dialect.checks(field)]
    for hidden in model.hidden:
        column = sa.quoted_name(hidden.name, quote=True)
        items.append(sa.Column(column, dialect.column_type(hidden.type), nullable=hidden.nullable))
    if model.ends or any(reference.target.ends for reference in references):
        items.append(_alive(model, dialect))
    if composite:
        items.append(sa.PrimaryKeyConstraint(*model.row_key))
    items += _keys_to_refer_to(model)
    afterwards: list[str] = []
    for reference in references:
        items += _foreign_keys(model, reference, dialect, afterwards)
    table = sa.Table(
        sa.quoted_name(model.table, quote=True),
        metadata,
        *items,
        info={"afterwards": afterwards},
        **dialect.table_options(model),
    )
    for index in model.indexes:
        _build_index(index, model, table, dialect)
    return table


def _column_options(field: FieldSpec, model: ModelSpec, dialect: Dialect) -> dict[str, Any]:
    if field.generated and field.name != model.counter:  # a column of others, whose default is theirs
        return {"server_default": sa.FetchedValue()}
    return dialect.column_options(field, model.table)


def _alive(model: ModelSpec, dialect: Dialect) -> sa.Column[Any]:
    lives = "1"
    if model.ends:
        refuse_unsupported(dialect, "partial_indexes")  # unique keys and references then count only what lives
        lives = f"CASE WHEN {dialect.quote(model.ends)} IS NULL THEN 1 END"
    return sa.Column(sa.quoted_name(ALIVE, quote=True), sa.Integer(), sa.Computed(lives, persisted=True))


def _keys_to_refer_to(model: ModelSpec) -> list[sa.UniqueConstraint]:
    """Return the unique keys that references within a scope, or to what lives, need."""
    found = []
    key = model.scoped(model.primary_key)
    if key != model.row_key:
        found.append(sa.UniqueConstraint(*key, name=_shortened(f"uq_{model.table}_scope")))
    if model.ends:
        found.append(sa.UniqueConstraint(*key, ALIVE, name=_shortened(f"uq_{model.table}_alive")))
    return found


def _foreign_keys(
    model: ModelSpec, reference: Reference, dialect: Dialect, afterwards: list[str]
) -> list[sa.ForeignKeyConstraint]:
    """Return the constraints of a reference; what has to be created after the tables is appended to `afterwards`."""
    target, name = reference.target, f"fk_{model.table}_{reference.field}"
    columns, remotes = [*target.scope, reference.field], [*target.scope, reference.remote]
    action = reference.on_delete.upper()
    refuse_unsupported(dialect, "foreign_keys")
    if action in ("CASCADE", "SET NULL"):
        refuse_unsupported(dialect, "foreign_key_actions")
    if target.scope and action == "SET NULL":
        action = dialect.set_null_of(reference.field) or "NO ACTION"
        if action == "NO ACTION":
            trigger = _shortened(f"dataflow_null_{model.table}_{reference.field}")
            afterwards.append(dialect.nulling(trigger, model.table, columns, target.table, remotes))
    found = [_foreign_key(columns, target.table, remotes, name, action)]
    if target.ends:
        found.append(_foreign_key([*columns, ALIVE], target.table, [*remotes, ALIVE], f"{name}_alive", "NO ACTION"))
    return found


def _foreign_key(
    columns: Sequence[str], target: str, remotes: Sequence[str], name: str, action: str
) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        columns, [f"{target}.{remote}" for remote in remotes], name=_shortened(name), ondelete=action, link_to_name=True
    )


def _shortened(name: str) -> str:
    """Keep a name of ours within what databases allow, and different from others."""
    if len(name.encode()) <= LONGEST_NAME:
        return name
    kept = name.encode()[: LONGEST_NAME - 9].decode(errors="ignore")
    return f"{kept}_{crc32(name.encode()):08x}"


def _build_index(index: IndexSpec, model: ModelSpec, table: sa.Table, dialect: Dialect) -> None:
    names = model.scoped(index.fields)  # not only unique ones: how often an index is used would tell of other scopes
    where = index.where
    if index.unique and model.ends:
        lives = f"{dialect.quote(model.ends)} IS NULL"
        where = lives if where is None else f"({where}) AND {lives}"
    if where is not None:
        refuse_unsupported(dialect, "partial_indexes")
    options: dict[str, Any] = {} if where is None else {f"{dialect.sqlalchemy.name}_where": sa.text(where)}
    columns = [table.c[name] for name in names]
    sa.Index(sa.quoted_name(index.name, quote=True), *columns, unique=index.unique, **options)


def _ddl(element: Any, dialect: Dialect) -> Command:
    return Command(str(element.compile(dialect=dialect.sqlalchemy)).strip(), COUNT, writes=True)


def lacks(models: Iterable["BoundModel"], dialect: Dialect) -> Program[bool]:
    """Tell whether a table or index is missing; needs no lock, so that reading does not wait for a writer."""
    existing = set((yield from dialect.list_tables()))
    for model in models:
        if model.spec.existing:
            continue
        if model.spec.table not in existing:
            return True
        if model.spec.indexes:
            present = set((yield from dialect.list_indexes(model.spec.table)))
            if any(index.name not in present for index in model.spec.indexes):
                return True
        for extra in _extras(model.spec):
            if not (yield from extra.present(dialect, model.spec)):
                return True
    return False


def _extras(spec: ModelSpec) -> list[SchemaExtra]:
    return [extra for extra in spec.ddl_extras if isinstance(extra, SchemaExtra)]


def create_missing(models: Sequence["BoundModel"], dialect: Dialect, *, create: bool, hint: str = "") -> Program[None]:
    """Create the tables and indexes that are missing; check the columns of those that are there.

    Runs inside a transaction that holds the schema lock, so that several processes may start together.

    Args:
        models: in an order in which they can be created.
        dialect: of the database.
        create: whether anything may be created.
        hint: how a column that is missing can be added.

    Raises:
        SchemaError: a table lacks a column, or is missing while `create` is False.
    """
    existing = set((yield from dialect.list_tables()))
    for model in models:
        may = create and not model.spec.existing
        if model.spec.table in existing:
            yield from _complete(model, dialect, create=may, hint=hint)
        elif not may:
            raise _missing_table(model.spec)
    if create:
        yield from create_tables(models, dialect, existing)
    yield from create_extras(models, dialect, create=create)


def create_tables(models: Iterable["BoundModel"], dialect: Dialect, existing: Iterable[str] = ()) -> Program[None]:
    """Create the tables of models, with their indexes, unless they are among the `existing` ones."""
    there = set(existing)
    later: list[Command] = []
    for model in models:
        if model.spec.table not in there:
            there.add(model.spec.table)
            yield from _create_table(model, dialect, there, later)
    for command in later:
        yield command, ()


def create_extras(models: Iterable["BoundModel"], dialect: Dialect, *, create: bool = True) -> Program[None]:
    """Create what features want besides tables and is not there, or not as it should be.

    Raises:
        SchemaError: something is missing while `create` is False.
    """
    for model in models:
        for extra in _extras(model.spec):
            if not (yield from extra.present(dialect, model.spec)):
                if not create:
                    raise _missing_extra(model.spec, extra)
                yield from extra.create(dialect, model.spec)


def statements(model: "BoundModel", dialect: Dialect) -> list[str]:
    """Return the statements that create a model's table and indexes: texts that change exactly when it does."""
    elements = [CreateTable(model.table), *map(CreateIndex, sorted(model.table.indexes, key=lambda i: str(i.name)))]
    extras = [extra for extra in model.spec.ddl_extras if isinstance(extra, str)]
    return [*(_ddl(element, dialect).sql for element in elements), *model.table.info["afterwards"], *extras]


def _create_table(model: "BoundModel", dialect: Dialect, existing: set[str], later: list[Command]) -> Program[None]:
    """Create a table; what has to wait until all tables are there is appended to `later`."""
    keys = sorted(model.table.foreign_key_constraints, key=lambda key: str(key.name))
    now = [key for key in keys if dialect.references_ahead or key.referred_table.name in existing]
    yield _ddl(CreateTable(model.table, include_foreign_key_constraints=now), dialect), ()
    for index in sorted(model.table.indexes, key=lambda i: str(i.name)):
        yield _ddl(CreateIndex(index), dialect), ()
    for extra in model.spec.ddl_extras:
        if isinstance(extra, str):
            yield Command(extra, COUNT, writes=True), ()
    later += [_ddl(AddConstraint(key), dialect) for key in keys if key not in now]  # models that refer to each other
    later += [Command(sql, COUNT, writes=True) for sql in model.table.info["afterwards"]]


def _complete(model: "BoundModel", dialect: Dialect, *, create: bool, hint: str) -> Program[None]:
    """Check the columns of a table, and create the indexes it lacks."""
    columns = yield from dialect.list_columns(model.spec.table)
    _check_columns(model.spec, {column.name for column in columns}, hint)
    if create:
        present = set((yield from dialect.list_indexes(model.spec.table)))
        for index in sorted(model.table.indexes, key=lambda i: str(i.name)):
            if str(index.name) not in present:
                yield _ddl(CreateIndex(index), dialect), ()


def _missing_table(model: ModelSpec) -> SchemaError:
    msg = f"the table {model.table!r} of model {model.name} does not exist"
    hint = "create it yourself, or allow it: DataFlow(auto_migrate=True, existing_schema_mode=False)"
    return SchemaError(msg, hint=hint, where={"model": model.name, "table": model.table}, code="missing-table")


def _missing_extra(model: ModelSpec, extra: SchemaExtra) -> SchemaError:
    msg = f"the table {model.table!r} of model {model.name} lacks what {extra.name} needs"
    hint = "allow it to be made: DataFlow(auto_migrate=True, existing_schema_mode=False), or remove the option"
    return SchemaError(msg, hint=hint, where={"model": model.name, "table": model.table}, code="missing-extra")


def missing_columns(model: ModelSpec, columns: Iterable[str]) -> list[str]:
    """Return the columns that a model needs and a table lacks."""
    there = set(columns)
    return [name for name in (*model.fields, *(hidden.name for hidden in model.hidden)) if name not in there]


def _check_columns(model: ModelSpec, columns: set[str], hint: str) -> None:
    missing = missing_columns(model, columns)
    if not missing:
        return
    msg = f"the table {model.table!r} of model {model.name} lacks {', '.join(missing)}"
    stamps = {"created_at", "updated_at"} & set(missing)
    extra = extra_for("capability", "migrations")
    hint = f"add what is missing with ALTER TABLE; {hint or f'to have columns added by themselves, {extra}'}"
    if stamps:
        hint = "set __dataflow__ = {'timestamps': False} if the table has no timestamps; or " + hint
    raise SchemaError(msg, hint=hint, where={"model": model.name, "table": model.table}, code="missing-column")
