"""Steps under construction: what is there, what shall be, and how a step is put together from the facts."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs

from dataflow.catalog import Catalog, Column, Index, Table
from dataflow.changes import Change, Mode, Step, renaming
from dataflow.postgres.migration.facts import FACTS, stronger
from dataflow.postgres.migration.names import Given, Place, following
from dataflow.postgres.migration.rights import Rights
from dataflow.postgres.migration.texts import literal

LARGE = 1 << 20
"""Bytes of a table's rows from which on nobody shall wait until they are read."""


@attrs.frozen
class Server:
    """What the server was found to be.

    Attributes:
        version: 160004, say.
        domains: types that may check what they hold; None: nobody asked.
        given: what belongs to columns and is named after them.
        rights: what objects have that no catalog tells.
    """

    version: int = 150_000
    domains: frozenset[str] | None = None
    given: Mapping[Place, tuple[Given, ...]] = attrs.field(factory=dict)
    rights: Rights = attrs.field(factory=Rights)


class Draft:
    """The steps so far.

    Args:
        found: the schema as it is.
        wanted: as it shall be.
        changes: all of them.
        quote: how the dialect quotes identifiers.
        server: what the server is.
    """

    def __init__(
        self,
        found: Catalog,
        wanted: Catalog,
        changes: Sequence[Change],
        *,
        quote: Callable[[str], str],
        server: Server,
    ) -> None:
        self.found = found
        self.wanted = wanted
        self.quote = quote
        self.server = server
        self.steps: list[Step] = []
        self.changed = {(change.kind, change.table, change.name) for change in changes}
        self._columns = {
            (change.table, change.name): named(change.before) for change in changes if change.kind == "rename_column"
        }
        self._given = server.given
        self._before = {change.name: named(change.before) for change in changes if change.kind == "rename_table"}
        self._moves = dict(_moves(changes))

    # -- what is there --------------------------------------------------------------------------------------------
    def table(self, name: str) -> Table | None:
        """Return a table as it was found, by the name it has after all renaming; None for a new one."""
        old = self._before.get(name)
        if old is not None:
            return self.found.tables.get(old) or self.found.tables.get(name)
        return None if name in self._before.values() else self.found.tables.get(name)

    def before(self, name: str) -> str:
        """Return the name that a table has before all renaming."""
        return self._before.get(name, name)

    def moves(self, name: str, table: str = "") -> list[tuple[str, str]]:
        """Return what a step renames that begins with a table, or a column of one; nothing where another's step does.

        Args:
            name: before.
            table: of a column.
        """
        return self._moves.get((table, name), [])

    @property
    def gone(self) -> list[str]:
        """The names of tables and columns before renaming."""
        return [*self._before.values(), *self._columns.values()]

    def defers(self, name: str) -> bool:
        """Tell whether what a table checks at the end of a transaction would be in the way of altering it."""
        table = self.table(name)
        if table is None:
            return False
        own = [key.definition for key in table.constraints] + [each.definition for each in table.triggers.values()]
        far = [
            key.definition for other in self.found.tables.values() for key in other.constraints if key.target == name
        ]
        return any("DEFERRABLE" in definition for definition in own + far)

    def clears(self, table: str, column: str) -> dict[str, Any]:
        """Return details of a step that what holds a column is in the way of: its names before renaming, and now."""
        return {"clears": [*self.place(table, column), column]}

    def place(self, table: str, column: str) -> Place:
        """Return the names that a table and a column of it have before all renaming."""
        return self.before(table), self._columns.get((table, column), column)

    def follow(self, moves: Iterable[tuple[Place, Place]]) -> tuple[list[str], list[str]]:
        """Return statements that rename what PostgreSQL has named after columns that are renamed, and undo it."""
        taken = {name for catalog in (self.found, self.wanted) for name in (*catalog.tables, *catalog.sequences)}
        self._given, sql, inverse = following(self._given, moves, taken=taken, quote=self.quote)
        return sql, inverse

    def is_given(self, name: str) -> bool:
        """Tell whether a sequence of an identity column has a name now."""
        return any(each.name == name and each.label == "seq" for own in self._given.values() for each in own)

    def renamed(self, name: str) -> str:
        """Return the name that a table that was found has after all renaming."""
        return next((new for new, old in self._before.items() if old == name), name)

    def staying(self, table: Table) -> list[Column]:
        """Return the columns of a table that was found which are not dropped, by the names they have afterwards."""
        name = self.renamed(table.name)
        if ("drop_table", name, name) in self.changed:
            return []
        back = {old: new for (owner, new), old in self._columns.items() if owner == name}
        columns = [attrs.evolve(column, name=back.get(column.name, column.name)) for column in table.columns.values()]
        return [column for column in columns if ("drop_column", name, column.name) not in self.changed]

    def is_large(self, name: str) -> bool:
        """Tell whether a table is so large that nobody shall wait until its rows are read."""
        table = self.table(name)
        return table is not None and table.bytes > LARGE

    def is_empty(self, name: str) -> bool:
        """Tell whether a table is new or was found without rows."""
        table = self.table(name)
        return table is None or table.empty

    def is_partitioned(self, name: str) -> bool:
        """Tell whether a table has its rows in others."""
        table = self.table(name)
        return table is not None and any(option.startswith("partition by ") for option in table.options)

    def parts(self, name: str) -> list[str]:
        """Return the tables that hold rows of a partitioned one."""
        start = (f"partition of {name} ", f"partition of {self.quote(name)} ", f"inherits {name}")
        own = [table.name for table in self._parts if any(option.startswith(start) for option in table.options)]
        return own + [below for part in own for below in self.parts(part)]

    @cached_property
    def _parts(self) -> list[Table]:
        """The tables that are parts of others."""
        kin = ("partition of ", "inherits ")
        return [t for t in self.found.tables.values() if any(option.startswith(kin) for option in t.options)]

    def references(self, name: str, columns: Collection[str] | None = None) -> set[str]:
        """Return the tables that foreign keys of a table lead to, or come from, as far as the keys stay meanwhile.

        Args:
            name: the table.
            columns: only those that use one of these columns of it.
        """
        led = self._references.get(name, ())
        return {other for other, own in led if columns is None or set(columns) & set(own)} - {name}

    @cached_property
    def _references(self) -> dict[str, list[tuple[str, tuple[str, ...]]]]:
        """Table -> the other table, and its own columns, of each foreign key that stays."""
        found: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
        for table in (*self.found.tables.values(), *self.wanted.tables.values()):
            near = self.renamed(table.name)
            for key in table.constraints:
                if key.kind == "foreign key" and ("drop_constraint", near, key.name) not in self.changed:
                    far = self.renamed(key.target)
                    found.setdefault(near, []).append((far, key.columns))
                    found.setdefault(far, []).append((near, key.remote))
        return found

    def indexes_on(self, name: str, column: str) -> bool:
        """Tell whether an index or key holds a column."""
        table, column = self.table(name), self._columns.get((name, column), column)
        if table is None:
            return False
        keyed = any(column in each.columns for each in table.constraints if each.kind not in ("check", "foreign key"))
        return keyed or any(column in index.columns or _mentions(index, column) for index in table.indexes.values())

    def checks_on(self, name: str, column: str) -> bool:
        """Tell whether a check that stays mentions a column: it is verified again when the column's type changes."""
        table, column = self.table(name), self._columns.get((name, column), column)
        return table is not None and any(
            each.kind == "check" and column in each.columns and ("drop_constraint", name, each.name) not in self.changed
            for each in table.constraints
        )

    # -- steps ----------------------------------------------------------------------------------------------------
    def add(
        self,
        operation: str,
        summary: str,
        table: str,
        sql: Iterable[str],
        *,
        inverse: Iterable[str] | None = None,
        far: Iterable[str] = (),
        locked: str | None = None,
        also: Iterable[str] = (),
        mode: Mode = "together",
        details: Mapping[str, Any] | None = None,
        **other: Any,
    ) -> None:
        """Add a step.

        Args:
            operation: its class, of `facts.FACTS`.
            summary: what it does.
            table: the table it is about, or "".
            sql: statements.
            inverse: statements that undo it.
            far: other tables that are locked.
            locked: name of what is locked, where that is not `table`.
            also: other tables that are locked as that is.
            mode: see `Step`.
            details: see `Step`.
            other: fields of `Step` that differ from the facts.
        """
        fact = FACTS[operation]
        locks: dict[str, str] = {}
        near = table if locked is None else locked
        for each in [near, *also] if near and fact.lock else []:
            locks |= dict.fromkeys([each, *self.parts(each)], fact.lock)
        for name in far if fact.far else ():
            locks[name] = stronger(locks.get(name, ""), fact.far)
        step = Step(
            operation,
            summary,
            table,
            tuple(sql),
            None if inverse is None else tuple(inverse),
            mode,
            locks,
            fact.rewrites,
            fact.scans,
            fact.data_loss,
            fact.fails,
            dict(details or {}),
        )
        if table and self.is_empty(table):
            other = {**other, "fails_on_data": "no"}
        self.steps.append(attrs.evolve(step, **other) if other else step)

    def remark(self, kind: str, table: str, name: str) -> list[str]:
        """Return the statement that comments again on an index, constraint, trigger or policy; none where it is new."""
        if (f"drop_{kind}", table, name) not in self.changed:
            return []
        found = self.server.rights.of(kind, name, "" if kind == "index" else self.before(table)).remark
        on = "" if kind == "index" else f" ON {self.quote(table)}"
        return [] if found is None else [commented(kind.upper(), f"{self.quote(name)}{on}", found)]

    def alter(self, table: str, *actions: str) -> str:
        """Write an ALTER TABLE."""
        return f"ALTER TABLE {self.quote(table)} {', '.join(actions)}"


def _moves(changes: Iterable[Change]) -> Iterable[tuple[Place, list[tuple[str, str]]]]:
    pairs: dict[str, list[tuple[str, str]]] = {}
    for change in changes:
        if change.kind in ("rename_table", "rename_column"):
            table = change.table if change.kind == "rename_column" else ""
            pairs.setdefault(table, []).append((named(change.before), change.name))
    for table, own in pairs.items():
        for moves in renaming(own):
            yield (table, moves[0][0]), moves


def named(what: Any) -> str:
    """Return the name of an object, or the name itself."""
    name: str = getattr(what, "name", what)
    return name


def swapping(what: str, names: Sequence[str]) -> str:
    """Say that names swap."""
    if len(names) == 2:
        return f"swap the names of {what} {names[0]} and {names[1]}"
    return f"swap the names of {what} {', '.join(names)} in a ring"


def commented(kind: str, name: str, comment: str | None) -> str:
    """Write COMMENT ON."""
    return f"COMMENT ON {kind} {name} IS {'NULL' if comment is None else literal(comment)}"


def _mentions(index: Index, column: str) -> bool:
    texts = [*(key.expression for key in index.keys), index.where or ""]
    return any(column in text for text in texts)
