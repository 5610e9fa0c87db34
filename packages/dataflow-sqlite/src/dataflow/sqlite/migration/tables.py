"""What becomes of a table by changes: its description, and the CREATE TABLE text that means it."""

from collections.abc import Iterable, Mapping, Sequence

import attrs

from dataflow.catalog import Column, Constraint, Table
from dataflow.changes import Change
from dataflow.sqlite.migration.catalog import rowid_name
from dataflow.sqlite.migration.text import Item, TableText, ordered, read_table
from dataflow.sqlite.migration.tokens import constant, quoted


def changed(table: Table, changes: Iterable[Change], names: Mapping[str, str] | None = None) -> Table:
    """Return a table as it is after changes of its columns, constraints and options.

    Args:
        table: as it is once its columns have their new names.
        changes: of it.
        names: old name -> new name of columns: constraints that are dropped may still be told with the old ones.
    """
    columns, constraints, options = dict(table.columns), list(table.constraints), table.options
    for change in changes:
        if change.kind == "drop_column":
            columns.pop(change.name, None)
            constraints = [one for one in constraints if change.name not in one.columns]
        elif change.kind in ("add_column", "alter_column"):
            columns[change.name] = change.after
        elif change.kind == "alter_table":
            options = change.after.options
        elif change.kind in ("drop_constraint", "rename_constraint"):
            _remove(constraints, change.before, names or {})
        if change.kind in ("add_constraint", "rename_constraint") and change.after not in constraints:
            constraints.append(change.after)
    return attrs.evolve(table, columns=columns, constraints=ordered(constraints), options=options)


def _remove(constraints: list[Constraint], gone: Constraint, names: Mapping[str, str]) -> None:
    columns = tuple(names.get(column, column) for column in gone.columns)
    same = [one for one in constraints if one == gone]
    same += [one for one in constraints if one.name == gone.name and one.name]
    same += [one for one in constraints if (one.kind, one.columns) == (gone.kind, columns) and not gone.name]
    if same:
        constraints.remove(same[0])


def alike(one: Table | None, other: Table) -> bool:
    """Tell whether two tables are the same but for what hangs on them."""
    return (
        one is not None
        and one.columns == other.columns
        and ordered(one.constraints) == ordered(other.constraints)
        and one.options == other.options
    )


def alias(table: Table) -> str | None:
    """Return the column that is another name of the rowid."""
    types = {name: column.type for name, column in table.columns.items()}
    return rowid_name(table.constraints, types, table.options)


def rowid(*tables: Table) -> str | None:
    """Return a name by which all of the tables call their rowid, or None."""
    taken = {name.lower() for table in tables for name in table.columns}
    if any("without rowid" in table.options for table in tables):
        return None
    return next((name for name in ("rowid", "_rowid_", "oid") if name not in taken), None)


# -- texts ------------------------------------------------------------------------------------------------------------
def column_text(column: Column, *, inline: Sequence[Constraint] = ()) -> str:
    """Write a column's definition; `inline`: constraints that are written with it."""
    parts = [quoted(column.name), column.type] if column.type else [quoted(column.name)]
    if column.generated is not None:
        parts.append(f"GENERATED ALWAYS AS ({column.generated}) {'STORED' if column.stored else 'VIRTUAL'}")
    conflict = next((one.definition for one in inline if one.kind == "not null"), "NOT NULL")
    if not column.nullable:
        parts.append(conflict)
    if column.default is not None:
        parts.append(f"DEFAULT {column.default}" if constant(column.default) else f"DEFAULT ({column.default})")
    if column.collation:
        parts.append(f"COLLATE {quoted(column.collation)}")
    return " ".join([*parts, *(_inline(one, column) for one in inline if one.kind != "not null")])


def _inline(constraint: Constraint, column: Column) -> str:
    """Write a constraint of one column behind the column."""
    name = f"CONSTRAINT {quoted(constraint.name)} " if constraint.name else ""
    text = constraint.definition
    if constraint.kind == "foreign key":
        text = "REFERENCES " + text.partition(" REFERENCES ")[2]
    elif constraint.kind in ("primary key", "unique"):
        title, _, conflict = text.partition(f" ({quoted(column.name)})")
        text = f"{title}{conflict}"
    return f"{name}{text}{' AUTOINCREMENT' if constraint.kind == 'primary key' and column.identity else ''}"


def _must_be_inline(constraint: Constraint, columns: Mapping[str, Column]) -> bool:
    if constraint.kind == "not null" or constraint.definition.startswith("PRIMARY KEY DESC"):
        return True
    return constraint.kind == "primary key" and any(
        columns[name].identity for name in constraint.columns if name in columns
    )


def _constraint_text(constraint: Constraint) -> str:
    return f"CONSTRAINT {quoted(constraint.name)} {constraint.definition}" if constraint.name else constraint.definition


def table_text(table: Table) -> str:
    """Write a table of which no text is known."""
    inline = [one for one in table.constraints if _must_be_inline(one, table.columns)]
    parts = [
        column_text(column, inline=[one for one in inline if one.columns == (name,)])
        for name, column in table.columns.items()
    ]
    parts += [_constraint_text(one) for one in table.constraints if one not in inline]
    return f"CREATE TABLE {quoted(table.name)} ({', '.join(parts)}){_options(table)}"


def _options(table: Table) -> str:
    return " " + ", ".join(word.upper() for word in table.options) if table.options else ""


def own_options(text: TableText) -> tuple[str, ...]:
    """Return the options that a text ends with."""
    words = " ".join(text.tail.lower().split())
    return tuple(option for option in ("strict", "without rowid") if option in words)


class Patch:
    """A stored text, changed so that it means another table: what is untouched stays as it is written.

    Args:
        before: the table as it is, with its text.
        after: as it shall be.
        donor: a text that may hold new definitions of columns, or "".
    """

    def __init__(self, before: Table, after: Table, donor: str) -> None:
        self.before = before
        self.after = after
        self.text = read_table(before.sql)
        self.donor = {item.column: item for item in read_table(donor).items if item.column} if donor else {}

    def __str__(self) -> str:
        items = [kept for item in self.text.items if (kept := self._kept(item)) is not None]
        columns = [item for item in items if item.column]
        there = {item.column for item in columns}
        new = [column for name, column in self.after.columns.items() if name not in there]
        columns += [Item(" ", self._new(column), column=column.name) for column in new]
        rest = [item for item in items if not item.column]
        present = read_table(str(attrs.evolve(self.text, items=(*columns, *rest)))).constraints
        lacking = [one for one in self.after.constraints if not any(agree(one, other) for other in present)]
        rest += [Item(" ", _constraint_text(one)) for one in lacking]
        same = set(own_options(self.text)) == set(self.after.options)
        tail = self.text.tail if same else f"){_options(self.after)}"
        return str(attrs.evolve(self.text, items=(*columns, *rest), tail=tail))

    def _stays(self, constraint: Constraint) -> bool:
        return any(agree(wanted, constraint) for wanted in self.after.constraints)

    def _kept(self, item: Item) -> Item | None:
        """Return an item as it shall be, or None where it goes."""
        stays = [one for one in item.constraints if self._stays(one)]
        whole = len(stays) == len(item.constraints)
        if item.column:
            after = self.after.columns.get(item.column)
            if after is None:
                return None
            if whole and after == self.before.columns.get(item.column):
                return item
            return attrs.evolve(item, text=self._new(after, stays))
        if whole:
            return item
        return attrs.evolve(item, text=", ".join(map(_constraint_text, stays))) if stays else None

    def _new(self, column: Column, stays: Sequence[Constraint] = ()) -> str:
        donor = self.donor.get(column.name)
        if donor is not None and all(map(self._stays, donor.constraints)):
            return donor.text
        own = [one for one in self.after.constraints if one.columns == (column.name,)]
        inline = [one for one in own if one in stays or _must_be_inline(one, self.after.columns)]
        return column_text(column, inline=inline)


def agree(one: Constraint, other: Constraint) -> bool:
    """Compare constraints; a text alone does not tell which columns a foreign key without any refers to."""
    if one == other:
        return True
    if (one.kind, other.kind) != ("foreign key", "foreign key") or other.remote:
        return False
    return attrs.evolve(one, remote=(), target=other.target, definition=other.definition) == other
