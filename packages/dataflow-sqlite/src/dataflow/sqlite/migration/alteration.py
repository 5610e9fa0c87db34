"""The changes of one table, as steps: by ALTER TABLE where SQLite has it and it is safe, else one rebuild for all."""

from collections.abc import Collection, Mapping, Sequence

import attrs

from dataflow.catalog import Catalog, Constraint, Index, Table
from dataflow.changes import SWAPPED, Change, Step, renaming
from dataflow.errors import SchemaError
from dataflow.sqlite.migration.aside import table_after
from dataflow.sqlite.migration.catalog import resolved
from dataflow.sqlite.migration.moves import rename_column
from dataflow.sqlite.migration.rebuild import Rebuild
from dataflow.sqlite.migration.tables import Patch, agree, alike, changed, column_text, table_text
from dataflow.sqlite.migration.text import read_table
from dataflow.sqlite.migration.tokens import constant, is_null, names_in, quoted
from dataflow.sqlite.migration.words import failure, loss, operation, summary, worst

STRUCTURE = frozenset(
    [
        "add_column",
        "drop_column",
        "alter_column",
        "add_constraint",
        "drop_constraint",
        "rename_constraint",
        "alter_table",
    ]
)


@attrs.frozen
class Surroundings:
    """What is around a table while it is altered.

    Attributes:
        found: the catalog before.
        wanted: the catalog after.
        texts: names in each view and trigger that stands meanwhile.
        dropped: names of indexes and triggers that are gone by then.
        tables: all tables, by their names in lower case.
        referred: tables and columns that foreign keys lead to, in lower case.
    """

    found: Catalog
    wanted: Catalog
    texts: Sequence[frozenset[str]]
    dropped: frozenset[str]
    tables: Mapping[str, Table] = attrs.field(init=False)
    referred: frozenset[tuple[str, str]] = attrs.field(init=False)

    @tables.default
    def _tables(self) -> Mapping[str, Table]:
        return {name.lower(): table for name, table in {**self.found.tables, **self.wanted.tables}.items()}

    @referred.default
    def _referred(self) -> frozenset[tuple[str, str]]:
        keys = [key for table in self.found.tables.values() for key in table.constraints if key.target]
        return frozenset((key.target.lower(), column.lower()) for key in keys for column in key.remote)


class Alteration:
    """The changes of one table.

    Args:
        old: what it is called before.
        now: the table once it and its columns have their new names.
        columns: (old name, new name) of columns, in order.
        changes: all others of its structure.
        around: what is around it.
    """

    def __init__(
        self, old: str, now: Table, columns: Sequence[tuple[str, str]], changes: Sequence[Change], around: Surroundings
    ) -> None:
        self.old = old
        self.name = now.name
        self.columns = columns
        self.changes = changes
        self.around = around
        self.now = now
        self.target = changed(now, changes, dict(columns))

    # -- what a table is ----------------------------------------------------------------------------------------------
    def _resolved(self, table: Table) -> Table:
        far = (self.around.tables.get(key.target.lower()) for key in table.constraints if key.target)
        others = {other.name: other for other in far if other is not None}
        return resolved({table.name: table}, others)[table.name]

    def _means(self, statements: Sequence[str]) -> bool:
        """Tell whether statements make the table as it shall be."""
        made = table_after(self.name, statements)
        return made is not None and alike(self._resolved(made), self.target)

    # -- steps --------------------------------------------------------------------------------------------------------
    def steps(self) -> list[Step]:
        """Return the steps, without the renaming."""
        added = {change.name for change in self.changes if change.kind == "add_column"}
        if not added and alike(self.now, self.target):  # nothing to do, or the renaming has done it
            return []
        return self._native() or [self._rebuild()]

    def _native(self) -> list[Step]:
        """Return the ALTER TABLE statements that do; none where something needs more."""
        added = [change for change in self.changes if change.kind == "add_column"]
        dropped = [change for change in self.changes if change.kind == "drop_column"]
        names = {change.name for change in added}
        others = [change for change in self.changes if change not in added and change not in dropped]
        gone = {change.name for change in dropped}
        if (
            not all(_goes_with(change, names, gone) for change in others)
            or len(dropped) > 1
            or not all(map(self._droppable, dropped))
            or not all(map(_addable, added))
        ):
            return []
        steps = [self._drop(change) for change in dropped] + [self._add(change, others) for change in added]
        indexes = [index.definition for name, index in self.now.indexes.items() if name not in self.around.dropped]
        statements = [sql for step in steps for sql in step.sql]
        return steps if self._means([self.now.sql, *indexes, *statements]) else []

    def _droppable(self, change: Change) -> bool:
        name, table = change.name.lower(), self.name.lower()
        read = any({name, table} <= text for text in self.around.texts)
        return not read and (table, name) not in self.around.referred

    def _drop(self, change: Change) -> Step:
        drop = f"ALTER TABLE {quoted(self.name)} DROP COLUMN {quoted(change.name)}"
        inverse = None
        if change.before.generated is not None and not change.before.stored:
            inverse = (f"ALTER TABLE {quoted(self.name)} ADD COLUMN {column_text(change.before)}",)
        return self._step([change], (drop,), inverse, rewrites=True, scans=True, clears=True)

    def _add(self, change: Change, others: Sequence[Change]) -> Step:
        own = [one for one in others if one.kind == "add_constraint" and change.name in one.after.columns]
        donor = self._donor(change)
        inline = [one.after for one in own if donor is None or not any(agree(one.after, other) for other in donor[1])]
        text = column_text(change.after, inline=inline) if donor is None else donor[0]
        if donor is not None and inline:
            text = f"{text} {column_text(change.after, inline=inline)[len(column_text(change.after)) + 1 :]}"
        drop = f"ALTER TABLE {quoted(self.name)} DROP COLUMN {quoted(change.name)}"
        sql = (f"ALTER TABLE {quoted(self.name)} ADD COLUMN {text}",)
        checked = any(one.after.kind == "check" for one in own)
        return self._step([change, *own], sql, (drop,), scans=checked, name=operation(change))

    def _donor(self, change: Change) -> tuple[str, tuple[Constraint, ...]] | None:
        wanted = self.around.wanted.tables.get(self.name)
        if wanted is None or not wanted.sql:
            return None
        item = next((one for one in read_table(wanted.sql).items if one.column == change.name), None)
        return None if item is None else (item.text, item.constraints)

    def _rebuild(self) -> Step:
        values = {change.name: change.value for change in self.changes if change.value is not None}
        fresh = {change.name for change in self.changes if change.kind == "add_column"}
        kept = {name for name in (*self.now.indexes, *self.now.triggers) if name not in self.around.dropped}
        attached = [index.definition for name, index in self.now.indexes.items() if name in kept]
        wanted = self.around.wanted.tables.get(self.name)
        triggers = {**self.now.triggers, **(wanted.triggers if wanted else {})}
        attached += [triggers[name].definition for name in self.now.triggers if name in kept]
        target = attrs.evolve(self.target, sql=self._text())
        there = Rebuild(self.now, target, fresh, values, attached)
        losses = worst([loss(change) for change in self.changes])
        inverse = None
        if losses != "certain":
            gone = {change.name for change in self.changes if change.kind == "drop_column"}
            before = attrs.evolve(self.now, sql=self.now.sql)
            inverse = Rebuild(target, before, gone, {}, attached).statements()
        name = operation(self.changes[0]) if len(self.changes) == 1 else "rebuild_table"
        return self._step(self.changes, there.statements(), inverse, rewrites=True, scans=True, clears=True, name=name)

    def _text(self) -> str:
        """Return a text that means the target: the wanted one if it does, else the stored one, patched."""
        wanted = self.around.wanted.tables.get(self.name)
        donor = wanted.sql if wanted is not None else ""
        for text in (donor, str(Patch(self.now, self.target, donor)), str(Patch(self.now, self.target, ""))):
            if text and self._means([text]):
                return text
        text = table_text(self.target)
        if not self._means([text]):
            msg = f"no CREATE TABLE statement was found that makes {self.name} as it shall be"
            raise SchemaError(msg, hint="change the table by hand", where={"table": self.name}, code="cannot-rebuild")
        return text

    def _filled(self, changes: Sequence[Change]) -> list[str]:
        """Return constrained columns in which rows get a value, or one of another type."""
        held = {name for one in self.target.constraints for name in one.columns}
        keys = [text for index in self.now.indexes.values() if index.unique for text in _read_by(index)]
        held |= {name for name in self.target.columns if name.lower() in names_in(" ".join(keys))}
        if any(column.generated is not None for name, column in self.target.columns.items() if name in held):
            held |= set(self.target.columns)  # it may be computed from any of them
        checked = {name for one in self.target.constraints if one.kind == "check" for name in one.columns}
        found = []
        for one in changes:
            if one.kind == "alter_column":
                filled = one.value is not None and one.before.nullable and not one.after.nullable
                moved = one.before.type != one.after.type
                found += [one.name] * ((filled and one.name in held) or (moved and one.name in checked))
        return found

    def _step(
        self,
        changes: Sequence[Change],
        sql: tuple[str, ...],
        inverse: tuple[str, ...] | None,
        *,
        rewrites: bool = False,
        scans: bool = False,
        clears: bool = False,
        name: str = "",
    ) -> Step:
        said = [summary(change) for change in changes]
        rebuilds = rewrites and len(sql) > 1
        fails = [reason for change in changes if (reason := failure(change)) != "no"]
        fails += [f"a constraint refuses the value that {name} gets" for name in self._filled(changes)]
        details: Mapping[str, object] = {"clears": sorted({self.old, self.name})} if clears else {}
        return Step(
            name or operation(changes[0]),
            f"rebuild {self.name}: {'; '.join(said)}" if rebuilds else "; ".join(said),
            self.name,
            sql,
            inverse,
            locks={self.name: "EXCLUSIVE" if rebuilds else "WRITE"},
            rewrites=rewrites,
            scans=scans,
            data_loss=worst([loss(change) for change in changes]),
            fails_on_data=", or ".join(fails) or "no",
            details=details,
        )


def _goes_with(change: Change, added: Collection[str], dropped: Collection[str]) -> bool:
    """Tell whether a constraint comes with a column that is added, or goes with one that is dropped."""
    if change.kind == "drop_constraint":
        return not {*dropped}.isdisjoint(change.before.columns)
    if change.kind != "add_constraint" or change.after.kind not in ("foreign key", "check"):
        return False
    return len({*added}.intersection(change.after.columns)) == 1


def _addable(change: Change) -> bool:
    """Tell whether ADD COLUMN can add a column to a table with rows, as far as the column itself goes."""
    column = change.after
    if change.value is not None or column.stored or column.identity:
        return False
    if column.generated is not None:
        return bool(column.nullable)
    if column.default is None or is_null(column.default):
        return bool(column.nullable)
    return constant(column.default)


def _read_by(index: Index) -> list[str]:
    """Return what an index reads of a row: its keys and its condition."""
    return [*(key.expression for key in index.keys), index.where or ""]


def rename_steps(alteration: Alteration) -> list[Step]:
    """Return the steps that rename a table's columns."""
    table, steps = alteration.name, []
    for moves in renaming(alteration.columns):
        names = [old for old, _ in moves if old != SWAPPED]
        swaps = f"swap the names of columns {', '.join(f'{table}.{name}' for name in names)}"
        step = Step(
            "rename_column",
            f"rename column {table}.{moves[0][0]} to {moves[0][1]}" if len(moves) == 1 else swaps,
            table,
            tuple(rename_column(table, old, new) for old, new in moves),
            tuple(rename_column(table, new, old) for old, new in reversed(moves)),
            locks={table: "WRITE"},
            details={"clears": sorted({alteration.old, table})},
        )
        steps.append(step)
    return steps
