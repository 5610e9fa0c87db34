"""A catalog as it is once tables and columns have other names, so that the rest can be compared name by name."""

import re
from collections.abc import Collection, Mapping

import attrs

from dataflow.catalog import Catalog, Constraint, Index, Table, View
from dataflow.changes import Change
from dataflow.errors import InputError
from dataflow.migrations.words import renamed


@attrs.frozen
class Renames:
    """What was renamed, by declaration or by a confirmed suggestion.

    Attributes:
        tables: old name -> new name.
        columns: new name of the table -> {old name of the column -> new name}.
    """

    tables: Mapping[str, str] = attrs.field(factory=dict)
    columns: Mapping[str, Mapping[str, str]] = attrs.field(factory=dict)

    def __bool__(self) -> bool:
        return bool(self.tables or self.columns)

    def apply(self, found: Catalog) -> Catalog:
        """Return the catalog as it is afterwards."""
        if not self:
            return found
        tables = {}
        for name, table in found.tables.items():
            called = self.tables.get(name, name)
            tables[called] = self._table(table, called)
        views = {name: self._view(view, found) for name, view in found.views.items()}
        sequences = {
            name: attrs.evolve(sequence, owner=self._owner(sequence.owner))
            for name, sequence in found.sequences.items()
        }
        return attrs.evolve(found, tables=tables, views=views, sequences=sequences)

    def _owner(self, owner: str) -> str:
        table, _, column = owner.rpartition(".")
        table = self.tables.get(table, table)
        return f"{table}.{self.columns.get(table, {}).get(column, column)}" if table else owner

    def _table(self, table: Table, called: str) -> Table:
        own = self.columns.get(called, {})
        words = {**self.tables, **own}
        columns = {
            own.get(name, name): attrs.evolve(
                column,
                name=own.get(name, name),
                generated=column.generated and renamed(column.generated, own),
            )
            for name, column in table.columns.items()
        }
        triggers = {
            name: attrs.evolve(trigger, table=called, definition=renamed(trigger.definition, words))
            for name, trigger in table.triggers.items()
        }
        policies = {
            name: attrs.evolve(policy, definition=renamed(policy.definition, words))
            for name, policy in table.policies.items()
        }
        return attrs.evolve(
            table,
            name=called,
            columns=columns,
            constraints=tuple(self._constraint(found, own) for found in table.constraints),
            indexes={name: _index(index, own) for name, index in table.indexes.items()},
            triggers=triggers,
            policies=policies,
        )

    def _constraint(self, constraint: Constraint, own: Mapping[str, str]) -> Constraint:
        target = self.tables.get(constraint.target, constraint.target)
        there = self.columns.get(target, {}) if target else {}
        definition = constraint.definition
        if constraint.kind == "foreign key":
            head, refers, tail = definition.partition(" REFERENCES ")
            tail = renamed(tail, {**self.tables, **there})
            definition = f"{renamed(head, own)}{refers}{tail}"
        else:
            definition = renamed(definition, own)
        return attrs.evolve(
            constraint,
            columns=tuple(own.get(name, name) for name in constraint.columns),
            definition=definition,
            target=target,
            remote=tuple(there.get(name, name) for name in constraint.remote),
        )

    def _view(self, view: View, found: Catalog) -> View:
        names = dict(self.tables)
        for read in view.reads:
            if read in found.tables:
                names |= self.columns.get(self.tables.get(read, read), {})
        reads = tuple(self.tables.get(read, read) for read in view.reads)
        if not names or (reads == view.reads and not names):
            return view
        return attrs.evolve(view, definition=renamed(view.definition, names), reads=reads)

    def changes(self, found: Catalog) -> tuple[list[Change], list[Change]]:
        """Return the renaming of tables, and that of columns, each in an order in which no name is taken.

        Names that swap come one after another.

        Raises:
            InputError: a new name is taken by something that stays.
        """
        tables = [
            Change("rename_table", new, new, before=old, after=new)
            for old, new in _in_order(self.tables, set(found.tables), "table")
        ]
        columns: list[Change] = []
        back = {new: old for old, new in self.tables.items()}
        for table, own in self.columns.items():
            existing = found.tables[back.get(table, table)].columns
            columns += [
                Change("rename_column", table, new, before=old, after=new)
                for old, new in _in_order(own, set(existing), f"column of {table}")
            ]
        return tables, columns


_COUNTS = re.compile(r"nextval\('((?:[^']|'')+)'::regclass\)")


def with_sequences(found: Catalog, wanted: Catalog) -> tuple[Catalog, list[Change]]:
    """Return a catalog in which sequences of renamed columns have the names that are wanted, and that renaming.

    A new sequence would count from the beginning.
    """
    new = {each.owner: name for name, each in wanted.sequences.items() if each.owner and name not in found.sequences}
    names = {
        name: new[each.owner]
        for name, each in found.sequences.items()
        if name not in wanted.sequences and each.owner in new
    }
    if not names:
        return found, []
    sequences = {
        names.get(name, name): attrs.evolve(each, name=names.get(name, name)) for name, each in found.sequences.items()
    }
    tables = {name: _counting(table, wanted.tables.get(name), names) for name, table in found.tables.items()}
    changes = [Change("rename_sequence", "", to, before=name, after=to) for name, to in names.items()]
    return attrs.evolve(found, tables=tables, sequences=sequences), changes


def _counting(table: Table, wanted: Table | None, names: Mapping[str, str]) -> Table:
    """Return a table whose defaults count by renamed sequences, written as they are wanted."""
    columns = dict(table.columns)
    for name, column in table.columns.items():
        then = wanted.columns.get(name) if wanted is not None else None
        to = names.get(_sequence(column.default))
        if then is not None and to is not None and _sequence(then.default) == to:
            columns[name] = attrs.evolve(column, default=then.default)
    return attrs.evolve(table, columns=columns)


def _sequence(default: str | None) -> str:
    """Return the sequence that a default counts by, or ""."""
    found = _COUNTS.fullmatch(default or "")
    if found is None:
        return ""
    name = found[1].replace("''", "'")
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _index(index: Index, own: Mapping[str, str]) -> Index:
    if not own:
        return index
    return attrs.evolve(
        index,
        keys=tuple(attrs.evolve(key, expression=renamed(key.expression, own)) for key in index.keys),
        columns=tuple(own.get(name, name) for name in index.columns),
        include=tuple(own.get(name, name) for name in index.include),
        where=index.where and renamed(index.where, own),
    )


def _ring(name: str, renames: Mapping[str, str]) -> list[str]:
    """Return the names, from one on, that change in a ring; none where they do not."""
    ring, later = [name], renames[name]
    while later != name:
        if later not in renames or later in ring:
            return []
        ring.append(later)
        later = renames[later]
    return ring


def pending(declared: Mapping[str, str], there: Collection[str]) -> tuple[dict[str, str], list[list[str]]]:
    """Sort declarations that something was renamed: those stay declared when they are done.

    Args:
        declared: old name -> new name.
        there: the names that are there.

    Returns:
        Those that are to be done, for the new name is free, or gets free; and the rings among them, whose names are
        there before and after.
    """
    left = {old: new for old, new in declared.items() if old in there and old != new}
    while True:
        stuck = [old for old, new in left.items() if new in there and new not in left]
        if not stuck:
            break
        for old in stuck:
            del left[old]
    rings: list[list[str]] = []
    for old in left:
        ring = _ring(old, left)
        if ring and not any(old in each for each in rings):
            rings.append(ring)
    return left, rings


def _in_order(renames: Mapping[str, str], taken: set[str], what: str) -> list[tuple[str, str]]:
    todo, order = dict(renames), []
    while todo:
        free = next((old for old, new in todo.items() if new not in taken), None)
        if free is None:
            old, new = next(iter(todo.items()))
            ring = _ring(old, todo)
            if ring:
                order += [(name, todo.pop(name)) for name in ring]
                continue
            msg = f"the {what} {old!r} cannot be renamed to {new!r}, which exists"
            raise InputError(msg, hint="rename or drop that one in a migration of its own first", code="name-taken")
        taken = taken - {free} | {todo[free]}
        order.append((free, todo.pop(free)))
    return order
