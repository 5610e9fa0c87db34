"""What steps are called, and what a change may cost: the words of plans."""

from dataflow.catalog import Column, Constraint, Table
from dataflow.changes import Change
from dataflow.sqlite.migration.rebuild import lossy
from dataflow.sqlite.migration.tokens import constant, is_null

LOSSES = ("none", "possible", "certain")
_CONSTRAINTS = {
    "primary key": "primary_key",
    "unique": "unique",
    "foreign key": "foreign_key",
    "check": "check",
    "not null": "not_null",
}


def operation(change: Change) -> str:
    """Return the class of a change."""
    if change.kind == "add_column":
        return _added(change.after, change.value)
    if change.kind == "alter_column":
        return _altered(change.before, change.after)
    if change.kind in ("add_constraint", "drop_constraint"):
        constraint: Constraint = change.after or change.before
        if constraint.kind == "not null":
            return "set_not_null" if change.after else "drop_not_null"
        return f"{change.kind.partition('_')[0]}_{_CONSTRAINTS.get(constraint.kind, 'check')}"
    return "set_table_options" if change.kind == "alter_table" else change.kind


def _added(column: Column, value: str | None) -> str:
    if column.generated is not None:
        return "add_column_generated_stored" if column.stored else "add_column_generated_virtual"
    if column.identity:
        return "add_column_serial"
    if column.default is None or is_null(column.default):
        return "add_column_nullable" if column.nullable else "add_column_not_null_no_default"
    if not constant(column.default):
        return "add_column_stable_default" if "CURRENT" in column.default.upper() else "add_column_volatile_default"
    del value
    return "add_column_constant_default" if column.nullable else "add_column_not_null_constant_default"


def _altered(before: Column, after: Column) -> str:
    if before.type != after.type:
        return "change_type_narrowing" if lossy(before.type, after.type) else "change_type_rewrite"
    if before.generated != after.generated or before.stored != after.stored:
        return "set_expression" if after.generated is not None else "drop_expression"
    if before.nullable != after.nullable:
        return "drop_not_null" if after.nullable else "set_not_null"
    if before.identity != after.identity:
        return "add_identity_existing"
    if before.default != after.default:
        return "drop_default" if after.default is None else "set_default"
    return "change_type_rewrite"  # the collation


def loss(change: Change) -> str:
    """Return how much data a change loses."""
    if change.kind == "drop_column":
        return "none" if change.before.generated is not None else "certain"
    if change.kind == "alter_column":
        before, after = change.before, change.after
        if after.generated is not None and before.generated is None:
            return "certain"
        return "possible" if lossy(before.type, after.type) else "none"
    if change.kind == "drop_table":
        table: Table = change.before
        return "possible" if table.empty else "certain"
    return "none"


def worst(losses: list[str]) -> str:
    """Return the worst of several losses."""
    return max(losses, key=LOSSES.index, default="none")


def failure(change: Change) -> str:
    """Say which rows make a change fail, or "no"."""
    column = change.after
    if change.kind == "add_column":
        given = column.default is not None and not is_null(column.default)
        if not (column.nullable or given or change.value is not None or column.generated is not None):
            return f"there are rows, which have no {change.name}"
        computed = column.generated is not None and not column.nullable
        return f"{change.name} is computed as NULL for a row" if computed else "no"
    if change.kind == "alter_column":
        reasons = []
        if lossy(change.before.type, column.type):
            reasons.append(f"{change.name} holds a value that is no {column.type}")
        if change.before.nullable and not column.nullable and change.value is None:
            reasons.append(f"{change.name} is NULL in a row")
        return ", or ".join(reasons) or "no"
    if change.kind == "add_constraint":
        columns = ", ".join(column.columns)
        return {
            "primary key": f"rows have the same {columns}, or none",
            "unique": f"rows have the same {columns}",
            "foreign key": f"{columns} refers to nothing in a row",
            "check": "a row breaks the check",
        }.get(column.kind, f"{columns} is NULL in a row")
    if change.kind == "alter_table":
        return "a value does not have the type of its column" if "strict" in column.options else "no"
    if change.kind == "create_index" and column.unique:
        return "rows have the same key"
    return "no"


def summary(change: Change) -> str:
    """Say in a few words what a change does."""
    if change.kind == "add_column":
        return f"add column {change.table}.{change.name} ({change.after.type or 'any type'})"
    if change.kind == "alter_column":
        return f"alter column {change.table}.{change.name}: {_difference(change.before, change.after)}"
    if change.kind in ("add_constraint", "drop_constraint"):
        constraint: Constraint = change.after or change.before
        return f"{change.kind.partition('_')[0]} {constraint.name or constraint.definition} on {change.table}"
    if change.kind == "alter_table":
        return f"make {change.table} {', '.join(change.after.options) or 'an ordinary table'}"
    what = change.kind.replace("_", " ")
    of_table = "_column" in change.kind or "_constraint" in change.kind
    return f"{what} {change.table}.{change.name}" if of_table else f"{what} {change.name}"


def _difference(before: Column, after: Column) -> str:
    said = []
    if before.type != after.type:
        said.append(f"{before.type or 'any type'} to {after.type or 'any type'}")
    if before.nullable != after.nullable:
        said.append("may be NULL" if after.nullable else "not NULL")
    if before.default != after.default:
        said.append("no default" if after.default is None else f"default {after.default}")
    if (before.generated, before.stored) != (after.generated, after.stored):
        said.append("computed" if after.generated is not None else "not computed")
    if before.identity != after.identity:
        said.append(after.identity or "not autoincrement")
    if before.collation != after.collation:
        said.append(f"collation {after.collation or 'BINARY'}")
    return ", ".join(said) or "nothing"
