"""Tables once they and their columns have new names, as SQLite itself rewrites their texts."""

import sqlite3
from collections.abc import Mapping, Sequence

import attrs

from dataflow.catalog import Catalog, Table
from dataflow.changes import renaming
from dataflow.errors import SchemaError
from dataflow.sqlite.migration.aside import after
from dataflow.sqlite.migration.catalog import resolved
from dataflow.sqlite.migration.tokens import quoted, renamed


def moved(
    found: Catalog,
    wanted: Catalog,
    tables: Sequence[Sequence[tuple[str, str]]],
    columns: Mapping[str, Sequence[tuple[str, str]]],
) -> dict[str, Table]:
    """Return the tables of a catalog after renaming, by their new names.

    Args:
        found: the catalog.
        wanted: the catalog afterwards: for keys of tables that foreign keys refer to.
        tables: what `dataflow.changes.renaming` returns.
        columns: new name of a table -> (old name, new name) of columns, in order.

    Raises:
        SchemaError: SQLite refuses.
    """
    names = {moves[0][0]: moves[-1][1] for moves in tables}
    names |= dict(pair for moves in tables for pair in moves[1:-1])
    touched = {*names} | {old for old in found.tables if names.get(old, old) in columns}
    if not touched:
        return dict(found.tables)
    concerned = {
        name: table
        for name, table in found.tables.items()
        if name in touched or any(key.target in touched for key in table.constraints)
    }
    statements = [rename_table(old, new) for moves in tables for old, new in moves]
    for table, pairs in columns.items():
        statements += [rename_column(table, old, new) for moves in renaming(pairs) for old, new in moves]
    made = [table.sql for table in concerned.values()]
    taken = {name.lower() for name in names.values()}  # an index of such a name is dropped before
    indexes = [index for table in concerned.values() for index in table.indexes.values()]
    made += [index.definition for index in indexes if index.name.lower() not in taken]
    try:
        there = resolved(after([*made, *statements]).tables, {**found.tables, **wanted.tables})
    except sqlite3.Error as error:
        msg = f"SQLite cannot rename that: {error}"
        raise SchemaError(msg, hint="rename in a migration of its own", code="cannot-rename") from error
    rest = {name: table for name, table in found.tables.items() if name not in concerned}
    words = {old.lower(): new for old, new in names.items()}
    for name, before in concerned.items():
        called = names.get(name, name)
        own = {old.lower(): new for old, new in columns.get(called, ())}
        rest[called] = _hung(there[called], before, words | own)
    return rest


def _hung(table: Table, before: Table, words: Mapping[str, str]) -> Table:
    """Return a table with its triggers, which are renamed by their words alone."""
    triggers = {
        name: attrs.evolve(one, table=table.name, definition=renamed(one.definition, words))
        for name, one in before.triggers.items()
    }
    return attrs.evolve(table, triggers=triggers, empty=before.empty)


def rename_table(old: str, new: str) -> str:
    """Return the statement that renames a table."""
    return f"ALTER TABLE {quoted(old)} RENAME TO {quoted(new)}"


def rename_column(table: str, old: str, new: str) -> str:
    """Return the statement that renames a column."""
    return f"ALTER TABLE {quoted(table)} RENAME COLUMN {quoted(old)} TO {quoted(new)}"
