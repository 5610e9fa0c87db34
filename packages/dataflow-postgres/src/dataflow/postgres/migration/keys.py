"""Steps for constraints and indexes: plain on small tables, in ways that let others work on large ones."""

import re

from dataflow.catalog import Constraint, Index
from dataflow.changes import Change
from dataflow.postgres.migration.catalog import defined
from dataflow.postgres.migration.draft import Draft, named

_KEY = re.compile(
    r"(?:PRIMARY KEY|UNIQUE)(?P<nulls> NULLS NOT DISTINCT)? \((?P<columns>.*?)\)(?P<include> INCLUDE \(.*?\))?"
    r"(?P<more>(?: NOT)?(?: DEFERRABLE.*)?)"
)
_ADD = {
    "primary key": "add_primary_key", "unique": "add_unique", "check": "add_check", "exclude": "add_exclusion",
    "foreign key": "add_foreign_key",
}  # fmt: skip
_DROP = {
    "primary key": "drop_primary_key", "unique": "drop_unique", "check": "drop_check", "exclude": "drop_unique",
    "foreign key": "drop_foreign_key",
}  # fmt: skip


# -- constraints ------------------------------------------------------------------------------------------------------
def add_constraint(draft: Draft, change: Change) -> None:
    """Add a constraint."""
    after: Constraint = change.after
    large = draft.is_large(change.table) or (draft.is_large(after.target) and not draft.is_empty(change.table))
    if after.kind in ("primary key", "unique") and large and not draft.is_partitioned(change.table):
        found = _KEY.fullmatch(after.definition)
        if found is not None and "WITHOUT OVERLAPS" not in after.definition:
            _add_by_index(draft, change.table, after, found)
            return
    if after.kind in ("foreign key", "check") and (large or not after.valid) and _may_wait(draft, change.table, after):
        _add_in_two(draft, change.table, after)
        return
    sql, inverse = _addition(draft, change.table, after), _removal(draft, change.table, after.name)
    draft.add(
        _ADD[after.kind],
        _summary(change.table, after),
        change.table,
        (sql, *draft.remark("constraint", change.table, after.name)),
        inverse=(inverse,),
        far=_far(draft, after),
    )


def _may_wait(draft: Draft, table: str, constraint: Constraint) -> bool:
    """Tell whether a constraint may be added without looking at the rows at once."""
    return constraint.kind == "check" or draft.server.version >= 180_000 or not draft.is_partitioned(table)


def _addition(draft: Draft, table: str, constraint: Constraint) -> str:
    return draft.alter(table, f"ADD CONSTRAINT {draft.quote(constraint.name)} {constraint.definition}")


def _removal(draft: Draft, table: str, name: str) -> str:
    return draft.alter(table, f"DROP CONSTRAINT {draft.quote(name)}")


def _far(draft: Draft, constraint: Constraint) -> list[str]:
    return [constraint.target, *draft.parts(constraint.target)] if constraint.target else []


def _summary(table: str, constraint: Constraint) -> str:
    return f"add {constraint.kind} {constraint.name} to {table}"


def _add_by_index(draft: Draft, table: str, key: Constraint, parts: re.Match[str]) -> None:
    """Build the index of a key while others write, then declare the key."""
    own, name = draft.quote(table), draft.quote(key.name)
    include = parts["include"] or ""
    sql = f'CREATE UNIQUE INDEX CONCURRENTLY {name} ON {own} USING "btree" ({parts["columns"]}){include}'
    sql += parts["nulls"] or ""
    draft.add(
        "create_index_concurrently",
        f"build the index of {key.kind} {key.name} of {table}",
        table,
        (sql,),
        inverse=(f"DROP INDEX CONCURRENTLY IF EXISTS {name}",),
        mode="outside",
        details={"index": key.name, "key": {"columns": list(key.columns), "nulls_distinct": not parts["nulls"]}},
        fails_on_data="yes",
    )
    words = "PRIMARY KEY" if key.kind == "primary key" else "UNIQUE"
    declare = f"ADD CONSTRAINT {name} {words} USING INDEX {name}{parts['more']}"
    draft.add(
        f"{_ADD[key.kind]}_using_index",
        _summary(table, key),
        table,
        (draft.alter(table, declare), *draft.remark("constraint", table, key.name)),
        inverse=(_removal(draft, table, key.name),),
    )


def _add_in_two(draft: Draft, table: str, constraint: Constraint) -> None:
    """Add a constraint for new rows, then look at those that are there while others write."""
    operation = _ADD[constraint.kind]
    draft.add(
        f"{operation}_not_valid",
        _summary(table, constraint),
        table,
        (_addition(draft, table, constraint) + " NOT VALID", *draft.remark("constraint", table, constraint.name)),
        inverse=(_removal(draft, table, constraint.name),),
        far=_far(draft, constraint),
    )
    if constraint.valid:
        _validate(draft, table, constraint)


def _validate(draft: Draft, table: str, constraint: Constraint) -> None:
    draft.add(
        "validate_foreign_key" if constraint.kind == "foreign key" else "validate_check",
        f"look for rows that break {constraint.name} of {table}",
        table,
        (draft.alter(table, f"VALIDATE CONSTRAINT {draft.quote(constraint.name)}"),),
        inverse=(),
        far=_far(draft, constraint),
        mode="apart",
    )


def drop_constraint(draft: Draft, change: Change) -> None:
    """Drop a constraint."""
    before: Constraint = change.before
    sql, back = _removal(draft, change.table, before.name), _addition(draft, change.table, before)
    draft.add(
        _DROP[before.kind],
        f"drop {before.kind} {before.name} of {change.table}",
        change.table,
        (sql,),
        inverse=(
            back if before.valid else back + " NOT VALID",
            *draft.remark("constraint", change.table, before.name),
        ),
        far=_far(draft, before),
    )


def alter_constraint(draft: Draft, change: Change) -> None:
    """Validate a constraint; any other change makes it anew."""
    before: Constraint = change.before
    after: Constraint = change.after
    if before.definition == after.definition and after.valid and not before.valid:
        _validate(draft, change.table, after)
        return
    drop_constraint(draft, change)
    add_constraint(draft, change)


def rename_constraint(draft: Draft, change: Change) -> None:
    """Rename a constraint, with its index."""
    old, new = named(change.before), change.name
    sql, back = (
        draft.alter(change.table, f"RENAME CONSTRAINT {draft.quote(a)} TO {draft.quote(b)}")
        for a, b in ((old, new), (new, old))
    )
    summary = f"rename constraint {old} of {change.table} to {new}"
    draft.add("rename_constraint", summary, change.table, (sql,), inverse=(back,))


# -- indexes ----------------------------------------------------------------------------------------------------------
def create_index(draft: Draft, change: Change) -> None:
    """Create an index."""
    after: Index = change.after
    summary = f"create {'unique ' if after.unique else ''}index {after.name} on {change.table}"
    drop = f"DROP INDEX {draft.quote(after.name)}"
    plain = after.where is None and {key.expression for key in after.keys} <= set(map(draft.quote, after.columns))
    remark = draft.remark("index", change.table, after.name)
    fails = "yes" if after.unique else "no" if plain else "possible"  # to compute an expression may fail
    if not draft.is_large(change.table) or draft.is_partitioned(change.table):
        operation = "partition_index" if draft.is_partitioned(change.table) else "create_index"
        draft.add(operation, summary, change.table, (after.definition, *remark), inverse=(drop,), fails_on_data=fails)
        return
    draft.add(
        "create_index_concurrently",
        summary,
        change.table,
        (_concurrently(after.definition),),
        inverse=(f"DROP INDEX CONCURRENTLY IF EXISTS {draft.quote(after.name)}",),
        mode="outside",
        details={"index": after.name, "definition": after.definition},
        fails_on_data=fails,
    )
    if remark:
        draft.add("comment", f"comment on index {after.name} as before", change.table, remark, inverse=())


def _concurrently(definition: str) -> str:
    return definition.replace(" INDEX ", " INDEX CONCURRENTLY ", 1)


def drop_index(draft: Draft, change: Change) -> None:
    """Drop an index."""
    before: Index = change.before
    summary = f"drop index {before.name} of {change.table}"
    name = draft.quote(before.name)
    again = defined(before, change.table, draft.quote).definition  # the table was renamed before
    remark = draft.remark("index", change.table, before.name)
    if not draft.is_large(change.table) or draft.is_partitioned(change.table):
        draft.add("drop_index", summary, change.table, (f"DROP INDEX {name}",), inverse=(again, *remark))
        return
    draft.add(
        "drop_index_concurrently",
        summary,
        change.table,
        (f"DROP INDEX CONCURRENTLY {name}",),
        inverse=(_concurrently(again), *remark),
        mode="outside",
        details={"index": before.name, "definition": again},
    )


def rename_index(draft: Draft, change: Change) -> None:
    """Rename an index."""
    old, new = named(change.before), change.name
    sql, back = (f"ALTER INDEX {draft.quote(a)} RENAME TO {draft.quote(b)}" for a, b in ((old, new), (new, old)))
    draft.add("rename_index", f"rename index {old} to {new}", change.table, (sql,), inverse=(back,))
