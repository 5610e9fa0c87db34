"""Steps for columns: added, altered in all that a column has, filled where it has no value, renamed, dropped."""

import re
from typing import Any

import attrs

from dataflow.catalog import Column
from dataflow.changes import SWAPPED, Change
from dataflow.postgres.migration import types
from dataflow.postgres.migration.draft import Draft, commented, named, swapping
from dataflow.postgres.migration.names import counter_aside, not_null_check, usual
from dataflow.postgres.migration.rights import column_grants
from dataflow.postgres.migration.tables import column as written
from dataflow.postgres.migration.texts import literal

BATCH = 5_000
"""Rows that are filled in one transaction."""
_TEXT = re.compile(r"'(?:[^']|'')*'")
_LITERAL = re.compile(
    r"\(?\s*(?:''|[-+]?\s*[0-9.]+(?:e[-+]?[0-9]+)?|true|false|null)\s*\)?"
    r"(?:::[\w\s\".]+(?:\([0-9, ]+\))?[\w\s]*(?:\[\])*)?",
    re.IGNORECASE,
)
_NULL = re.compile(r"NULL(?:::.*)?", re.IGNORECASE)
_CALL = re.compile(r"([a-z_][\w$]*|\")\s*\(", re.IGNORECASE)
_STABLE = {
    "now", "transaction_timestamp", "statement_timestamp", "current_setting", "timezone", "date_trunc", "lower",
    "upper", "coalesce", "concat",
    "make_date", "make_interval", "make_timestamptz", "jsonb_build_object", "jsonb_build_array",
    "json_build_object", "json_build_array", "current_database", "current_schema", "pg_backend_pid",
    "numeric", "varying", "character", "bit", "timestamp", "time", "interval", "array", "row", "in", "and", "or", "not",
    "case", "when", "then", "else", "values", "char", "varchar", "decimal",
}  # fmt: skip
"""Functions (and words before parentheses) that give the same within a statement."""
_PLAIN = {
    "smallint", "integer", "bigint", "numeric", "real", "double precision", "money", "text", "character varying",
    "character", "name", "bytea", "boolean", "date", "timestamp without time zone", "timestamp with time zone",
    "time without time zone", "time with time zone", "interval", "uuid", "json", "jsonb", "xml", "inet", "cidr",
    "macaddr", "bit", "bit varying",
    "point", "box", "tsvector", "tsquery", "int4range", "int8range", "numrange", "tsrange",
    "tstzrange", "daterange", "oid",
}  # fmt: skip


def is_constant(expression: str) -> bool:
    """Tell whether an expression is one value, whatever the row and the time."""
    bare = _TEXT.sub("''", expression.strip())
    return _LITERAL.fullmatch(bare) is not None


def is_null(expression: str) -> bool:
    """Tell whether an expression is NULL of some type: as a default it gives rows nothing."""
    return is_constant(expression) and _NULL.fullmatch(expression.strip()) is not None


def is_volatile(expression: str) -> bool:
    """Tell whether an expression may give each row another value; what is not known does."""
    bare = _TEXT.sub("''", expression)
    return any(found[1].lower() not in _STABLE for found in _CALL.finditer(bare))


# -- adding -----------------------------------------------------------------------------------------------------------
def add_column(draft: Draft, change: Change) -> None:
    """Add a column; where it has to have a value, fill it before it may be demanded."""
    after: Column = change.after
    plain = after.generated is None and not after.identity and not draft.is_empty(change.table)
    gives = after.default is not None and not is_null(after.default)
    if plain and not gives and not after.nullable and change.value is not None:
        _add_filled(draft, change, change.value)
    elif plain and after.default is not None and is_volatile(after.default) and draft.is_large(change.table):
        _add_filled(draft, change, after.default)
    else:
        _add(draft, change.table, after)
    if after.comment is not None:
        _comment(draft, change.table, attrs.evolve(after, comment=None), after)
    if ("drop_column", change.table, after.name) in draft.changed:
        _grant(draft, change.table, after)


def _grant(draft: Draft, table: str, column: Column) -> None:
    """Grant a column that is made anew what it was granted by itself."""
    sql = _grants(draft, table, column)
    if sql:
        summary = f"grant on {table}.{column.name} what was granted before"
        draft.add("comment", summary, table, sql, inverse=())


def _grants(draft: Draft, table: str, column: Column) -> list[str]:
    return column_grants(draft.server.rights, draft.place(table, column.name), draft.quote(table), column.name)


def _add(draft: Draft, table: str, column: Column) -> None:
    operation = _addition(draft, column)
    computed = operation == "add_column_generated_virtual" and not column.nullable and not draft.is_empty(table)
    reads: dict[str, Any] = {"scans": True, "fails_on_data": "possible"} if computed else {}
    draft.add(
        operation,
        f"add column {table}.{column.name} ({column.type})",
        table,
        (draft.alter(table, f"ADD COLUMN {written(draft, column)}"),),
        inverse=(_removal(draft, table, column.name),),
        **reads,
    )


def _addition(draft: Draft, column: Column) -> str:
    if column.generated is not None:
        return "add_column_generated_stored" if column.stored else "add_column_generated_virtual"
    if column.identity:
        return "add_column_identity"
    if _may_check(draft, column.type):
        return "add_column_domain_constrained"
    if column.default is None or is_null(column.default):
        return "add_column_nullable" if column.nullable else "add_column_not_null_no_default"
    if is_volatile(column.default):
        return "add_column_volatile_default"
    if not column.nullable:
        return "add_column_not_null_constant_default"
    return "add_column_constant_default" if is_constant(column.default) else "add_column_stable_default"


def _may_check(draft: Draft, type_: str) -> bool:
    """Tell whether a type is a domain, whose checks are made for all rows."""
    bare = type_.removesuffix("[]")
    if types.kind(type_).base in _PLAIN or {bare, bare.strip('"')} & {*draft.found.enums, *draft.wanted.enums}:
        return False
    return draft.server.domains is None or bare in draft.server.domains


def _add_filled(draft: Draft, change: Change, value: str) -> None:
    """Add a column that existing rows get a value in."""
    after: Column = change.after
    table = change.table
    if is_constant(value):  # the catalogue keeps it for the rows that are there
        filled = attrs.evolve(after, default=value)
        own = "DROP DEFAULT" if after.default is None else f"SET DEFAULT {after.default}"
        draft.add(
            "add_column_not_null_constant_default",
            f"add column {table}.{after.name} ({after.type}) with a value for existing rows",
            table,
            (
                draft.alter(table, f"ADD COLUMN {written(draft, filled)}"),
                draft.alter(table, f"ALTER COLUMN {draft.quote(after.name)} {own}"),
            ),
            inverse=(_removal(draft, table, after.name),),
        )
        return
    _add(draft, table, attrs.evolve(after, nullable=True, default=None))
    if after.default is not None:
        _default(draft, table, attrs.evolve(after, default=None), after)
    _fill(draft, table, after, value)
    if not after.nullable:
        _demand(draft, table, after)


def _removal(draft: Draft, table: str, name: str) -> str:
    return draft.alter(table, f"DROP COLUMN {draft.quote(name)}")


def _fill(draft: Draft, table: str, column: Column, value: str) -> None:
    """Give the rows a value that have none."""
    own, name = draft.quote(table), draft.quote(column.name)
    sql = f"UPDATE {own} SET {name} = {value} WHERE {name} IS NULL"  # noqa: S608
    summary = f"fill {table}.{column.name}"
    far = sorted(draft.references(table, {column.name}))  # rows there are held while keys are looked up
    if not draft.is_large(table):
        at_once = ("SET CONSTRAINTS ALL IMMEDIATE",) if draft.defers(table) else ()
        draft.add("bulk_update", summary, table, (sql, *at_once), inverse=(), far=far)
        return
    key, kinds = _key(draft, table)
    details = {"table": table, "column": column.name, "value": value, "key": key, "types": kinds, "size": BATCH}
    draft.add("bulk_update", summary, table, (sql,), inverse=(), far=far, mode="batches", details=details, scans=False)


def _key(draft: Draft, table: str) -> tuple[list[str], list[str]]:
    """Return what the rows of a table are gone through by, and its types: its key, else the place of rows."""
    wanted = draft.wanted.tables.get(table)
    if wanted is None or not wanted.primary_key:
        return ["ctid"], ["tid"]
    found = draft.table(table)
    if found is None or not found.primary_key or any(name not in wanted.columns for name in wanted.primary_key):
        return ["ctid"], ["tid"]
    return list(wanted.primary_key), [wanted.columns[name].type for name in wanted.primary_key]


# -- NOT NULL ---------------------------------------------------------------------------------------------------------
def _demand(draft: Draft, table: str, column: Column) -> None:
    """Demand values; of a large table, without keeping others waiting while the rows are read."""
    name = draft.quote(column.name)
    sql = draft.alter(table, f"ALTER COLUMN {name} SET NOT NULL")
    back = draft.alter(table, f"ALTER COLUMN {name} DROP NOT NULL")
    summary = f"demand values in {table}.{column.name}"
    if not draft.is_large(table):
        draft.add("set_not_null", summary, table, (sql,), inverse=(back,))
        return
    check = draft.quote(not_null_check(table, column.name))
    drop = draft.alter(table, f"DROP CONSTRAINT {check}")
    again = draft.alter(table, f"DROP CONSTRAINT IF EXISTS {check}")
    add = draft.alter(table, f"ADD CONSTRAINT {check} CHECK ({name} IS NOT NULL) NOT VALID")
    draft.add(
        "add_check_not_valid", f"refuse rows without {table}.{column.name}", table, (again, add), inverse=(again,)
    )
    validate = draft.alter(table, f"VALIDATE CONSTRAINT {check}")
    draft.add(
        "validate_check", f"look for rows without {table}.{column.name}", table, (validate,), inverse=(), mode="apart"
    )
    draft.add("set_not_null_proven", summary, table, (sql, drop), inverse=(back,))


# -- altering ---------------------------------------------------------------------------------------------------------
def alter_column(draft: Draft, change: Change) -> None:
    """Change all in which a column differs."""
    before: Column = change.before
    after: Column = change.after
    table = change.table
    if before.generated != after.generated or (after.generated is not None and before.stored != after.stored):
        if not _expression(draft, table, before, after):
            return
        before = attrs.evolve(before, generated=after.generated, stored=after.stored)
    moved = (before.type, before.collation) != (after.type, after.collation)
    if before.identity and not after.identity:
        _identity(draft, table, before, after)
    default = before.default
    if before.default is not None and (moved or after.default is None):
        _default(draft, table, before, attrs.evolve(before, default=None))
        default = None
    if after.nullable and not before.nullable:
        _release(draft, table, after)
    if moved:
        _retype(draft, table, before, after)
    if after.default is not None and after.default != default:
        _default(draft, table, attrs.evolve(after, default=default), after)
    if before.nullable and not after.nullable:
        if change.value is not None and not draft.is_empty(table):
            _fill(draft, table, after, change.value)
        _demand(draft, table, after)
    if after.identity and after.identity != before.identity:
        _identity(draft, table, before, after)
    if before.comment != after.comment:
        _comment(draft, table, before, after)


def _release(draft: Draft, table: str, column: Column) -> None:
    name = draft.quote(column.name)
    sql = draft.alter(table, f"ALTER COLUMN {name} DROP NOT NULL")
    back = draft.alter(table, f"ALTER COLUMN {name} SET NOT NULL")
    draft.add("drop_not_null", f"allow NULL in {table}.{column.name}", table, (sql,), inverse=(back,))


def _expression(draft: Draft, table: str, before: Column, after: Column) -> bool:
    """Change how a column is computed; False where it was made anew as it shall be."""
    name = draft.quote(before.name)
    if after.generated is None and before.stored:
        sql = draft.alter(table, f"ALTER COLUMN {name} DROP EXPRESSION")
        draft.add("drop_expression", f"keep {table}.{before.name} as it is computed now", table, (sql,))
        return True
    kept = before.generated is not None and after.generated is not None and before.stored == after.stored
    if kept and draft.server.version >= 170_000:
        sql, back = (
            draft.alter(table, f"ALTER COLUMN {name} SET EXPRESSION AS ({c.generated})") for c in (after, before)
        )
        operation = "set_expression" if after.stored else "set_expression_virtual"
        draft.add(operation, f"compute {table}.{after.name} anew", table, (sql,), inverse=(back,), data_loss="none")
        return True
    drop_column(draft, Change("drop_column", table, before.name, before))
    if after.generated is None:  # a virtual one, whose values are nowhere
        draft.steps[-1] = attrs.evolve(draft.steps[-1], data_loss="certain")
    add_column(draft, Change("add_column", table, after.name, None, after))
    _grant(draft, table, after)
    return False


def _default(draft: Draft, table: str, before: Column, after: Column) -> None:
    name = draft.quote(after.name)
    sql, back = (
        draft.alter(
            table, f"ALTER COLUMN {name} " + ("DROP DEFAULT" if c.default is None else f"SET DEFAULT {c.default}")
        )
        for c in (after, before)
    )
    operation = "drop_default" if after.default is None else "set_default"
    draft.add(operation, f"{operation.replace('_', ' ')} of {table}.{after.name}", table, (sql,), inverse=(back,))


def _retype(draft: Draft, table: str, before: Column, after: Column) -> None:
    collation = before.collation != after.collation
    far = sorted(draft.references(table, {after.name}))
    cost, narrows = types.cost(before.type, after.type, collation=collation), types.narrows(before.type, after.type)
    if cost == "catalog" and draft.indexes_on(table, after.name):
        cost = "index"
    operation = {"catalog": "change_type_coercible", "index": "change_type_index_rebuild"}.get(
        cost, "change_type_rewrite"
    )
    if cost == "rewrite" and (narrows or far):
        operation = "change_type_narrowing" if narrows else "change_type_referenced_pk"
    draft.add(
        operation,
        f"change {table}.{after.name} from {_written(before)} to {_written(after)}",
        table,
        (draft.alter(table, _type(draft, before, after)),),
        inverse=(draft.alter(table, _type(draft, after, before)),),
        far=far,
        scans=cost != "catalog" or bool(far) or draft.checks_on(table, after.name),
        details=draft.clears(table, after.name),
    )


def _written(column: Column) -> str:
    """Write a type, with its collation where that is not the type's own."""
    return f"{column.type} COLLATE {column.collation}" if column.collation else column.type


def _type(draft: Draft, before: Column, after: Column) -> str:
    name = draft.quote(after.name)
    return f"ALTER COLUMN {name} TYPE {_written(after)}{types.using(name, before.type, after.type)}"


def _identity(draft: Draft, table: str, before: Column, after: Column) -> None:
    name, words = draft.quote(after.name), after.identity.upper()
    counter = _counter(draft, table, after.name)
    alter = f"ALTER COLUMN {name} "
    if not after.identity:
        sql, back = alter + "DROP IDENTITY", alter + f"ADD GENERATED {before.identity.upper()} AS IDENTITY{counter}"
        draft.add(
            "drop_identity", f"count {table}.{after.name} no longer", table, (draft.alter(table, sql),),
            inverse=(draft.alter(table, back), _counted(draft, table, after.name)),
        )  # fmt: skip
        return
    if before.identity:
        sql, back = alter + f"SET GENERATED {words}", alter + f"SET GENERATED {before.identity.upper()}"
        summary = f"count {table}.{after.name} {after.identity}"
        draft.add("set_identity", summary, table, (draft.alter(table, sql),), inverse=(draft.alter(table, back),))
        return
    sql = draft.alter(table, alter + f"ADD GENERATED {words} AS IDENTITY{counter}")
    draft.add(
        "add_identity_existing", f"count {table}.{after.name}", table, (sql, _counted(draft, table, after.name)),
        inverse=(draft.alter(table, alter + "DROP IDENTITY"),), scans=not draft.is_empty(table),
    )  # fmt: skip


def _counter(draft: Draft, table: str, column: str) -> str:
    """Name the sequence of an identity column, while another has the name that it would get by itself."""
    usually = usual((table, column), "seq")
    made = ("create_sequence", "", usually) in draft.changed
    gone = any(step.operation == "drop_sequence" and step.sql[0].endswith(draft.quote(usually)) for step in draft.steps)
    taken = made or (("drop_sequence", "", usually) in draft.changed and not gone)
    return f" (SEQUENCE NAME {draft.quote(counter_aside(usually))})" if taken else ""


def _counted(draft: Draft, table: str, column: str) -> str:
    """Let a new counter go on after the highest value that is there; another may belong to the column as well."""
    own, name = draft.quote(table), draft.quote(column)
    highest = f"SELECT max({name}) FROM {own}"  # noqa: S608
    return (
        f"SELECT setval(objid::regclass, coalesce(({highest}), 0) + 1, false) FROM pg_depend"  # noqa: S608
        " JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid"
        " WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass AND deptype = 'i'"
        f" AND refobjid = {literal(own)}::regclass AND attname = {literal(column)}"
    )


def _comment(draft: Draft, table: str, before: Column, after: Column) -> None:
    what = f"{draft.quote(table)}.{draft.quote(after.name)}"
    sql, back = (commented("COLUMN", what, each.comment) for each in (after, before))
    draft.add("comment", f"comment on {table}.{after.name}", table, (sql,), inverse=(back,))


# -- the rest ---------------------------------------------------------------------------------------------------------
def drop_column(draft: Draft, change: Change) -> None:
    """Drop a column; what computed columns held is not lost."""
    before: Column = change.before
    lost = "possible" if before.generated is not None or draft.is_empty(change.table) else "certain"
    if before.generated is not None:
        lost = "none"
    back = [draft.alter(change.table, f"ADD COLUMN {written(draft, before)}")]
    if before.comment is not None:
        what = f"{draft.quote(change.table)}.{draft.quote(before.name)}"
        back.append(commented("COLUMN", what, before.comment))
    back += _grants(draft, change.table, before)
    sql = _removal(draft, change.table, change.name)
    far = sorted(draft.references(change.table, {change.name}))
    summary = f"drop column {change.table}.{change.name}"
    draft.add(
        "drop_column",
        summary,
        change.table,
        (sql,),
        inverse=back if lost == "none" else None,
        far=far,
        data_loss=lost,
        details={"clears": [draft.before(change.table), change.name, change.name]},
    )


def rename_column(draft: Draft, change: Change) -> None:
    """Rename a column, with what PostgreSQL has named after it."""
    table = change.table
    moves = draft.moves(named(change.before), table)
    sql: list[str] = []
    inverse: list[str] = []
    for old, new in moves:
        more, less = draft.follow([((table, old), (table, new))])
        sql += [draft.alter(table, f"RENAME COLUMN {draft.quote(old)} TO {draft.quote(new)}"), *more]
        inverse[:0] = [*less, draft.alter(table, f"RENAME COLUMN {draft.quote(new)} TO {draft.quote(old)}")]
    names = [old for old, _ in moves if old != SWAPPED]
    if names:
        said = f"rename column {table}.{names[0]} to {change.name}"
        said = said if len(moves) == 1 else swapping("columns", [f"{table}.{name}" for name in names])
        details = {"clears": [draft.before(table), names[0], change.name]}
        draft.add("rename_column", said, table, sql, inverse=inverse, details=details)
