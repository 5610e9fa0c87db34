"""Two catalogs -> the changes that lead from one to the other, in an order in which a database can make them.

Names change first, so that all that follows, and what undoes it, speaks of the new ones. Then what is in the way is
dropped (views, triggers, foreign keys, indexes, keys), tables and columns change, and keys, indexes, foreign keys,
views and triggers are made. Objects that the database would refuse to keep while something below them changes are
dropped and made anew. Knows no database, but whether its references are loose.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

import attrs

from dataflow.catalog import Catalog, Column, Constraint, Index, Table, View
from dataflow.changes import SWAPPED, Change
from dataflow.migrations.renames import Renames, with_sequences
from dataflow.migrations.words import identifiers

_PHASES = (
    "step_aside", "rename_table", "rename_column", "rename_sequence",
    "drop_view", "drop_trigger", "drop_policy", "drop_foreign_key", "drop_index", "drop_constraint", "drop_table",
    "keep_computed", "drop_column", "drop_unused",
    "create_enum", "alter_enum", "create_sequence", "alter_sequence", "create_function", "alter_function",
    "create_table", "alter_column", "add_column", "own_sequence", "rename_constraint", "add_constraint", "rename_index",
    "create_index", "add_foreign_key", "alter_table", "create_view", "alter_view", "create_trigger", "create_policy",
    "drop_function", "drop_sequence", "drop_enum",
)  # fmt: skip

_KEYS = ("primary key", "unique", "exclude")
"""Constraints that have an index, whose name no table or sequence may have."""


def changes(
    found: Catalog,
    wanted: Catalog,
    *,
    renames: Renames | None = None,
    values: Mapping[tuple[str, str], str] | None = None,
    loose: bool = False,
) -> list[Change]:
    """Return the changes that lead from one catalog to another.

    Args:
        found: what is there.
        wanted: what shall be there: nothing else is left.
        renames: tables and columns that were renamed; everything else with another name is dropped and made.
        values: (table, column) -> SQL expression that fills existing rows.
        loose: whether foreign keys refer to names only, so that what they refer to may be altered under them.
    """
    renames = renames or Renames()
    tables, columns = renames.changes(found)
    moved, sequences = with_sequences(renames.apply(found), wanted)
    difference = _Difference(moved, wanted, values or {}, loose=loose)
    return difference.ordered([*tables, *columns, *sequences])


class _Difference:
    """Collects changes by phase."""

    def __init__(self, found: Catalog, wanted: Catalog, values: Mapping[tuple[str, str], str], *, loose: bool) -> None:
        self.found = found
        self.wanted = wanted
        self.values = values
        self.loose = loose
        self.phases: dict[str, list[Change]] = {phase: [] for phase in _PHASES}
        self.dropped_keys: dict[str, list[tuple[str, ...]]] = {}
        self.retyped: dict[str, set[str]] = {}
        self.touched: set[str] = set()
        self.replaced = _replaced(found, wanted)

    def add(self, kind: str, table: str, name: str, *, phase: str = "", **what: Any) -> None:
        self.phases[phase or kind].append(Change(kind, table, name, **what))

    def ordered(self, first: Iterable[Change]) -> list[Change]:
        for change in first:
            self.phases[change.kind].append(change)
            self.touched.add(change.table)
        self._functions()
        for name in self.found.tables:
            if name not in self.wanted.tables:
                self._drop_table(self.found.tables[name])
        for new in self._by_references(t for t in self.wanted.tables if t not in self.found.tables):
            self._create_table(self.wanted.tables[new])
        for name, table in self.wanted.tables.items():
            before = self.found.tables.get(name)
            if before is not None and (before != table or self.replaced & _types(before)):
                _TableDifference(self, self.found.tables[name], table).collect()
        if not self.loose:
            self._rebuild_references()
        self._enums()
        self._sequences()
        self._views()
        self._free_names()
        if not self.loose:
            self._step_aside()
        return [change for phase in _PHASES for change in self.phases[phase]]

    def _free_names(self) -> None:
        """Rename constraints and indexes, which share names, in an order in which the new names are free."""
        todo = self.phases["rename_constraint"] + self.phases["rename_index"]
        order: list[Change] = []
        while todo:
            taken = {self._place(change, change.before.name) for change in todo}
            free = [change for change in todo if self._place(change, change.name) not in taken]
            if not free:  # names swap
                aside, todo[0] = _aside(todo[0])
                free = [aside]
            order += free
            todo = [change for change in todo if change not in free]
        self.phases["rename_constraint"], self.phases["rename_index"] = order, []

    def _step_aside(self) -> None:
        """Give indexes another name that have one which a table gets before they are dropped or renamed themselves."""
        soon = {change.name for change in self.phases["rename_table"]}
        later = soon | {change.name for kind in ("create_table", "create_sequence") for change in self.phases[kind]}
        for phase in ("drop_index", "drop_constraint", "drop_table", "rename_constraint"):
            for place, change in enumerate(self.phases[phase]):
                taken = later if phase == "rename_constraint" else soon
                if phase == "drop_table":
                    self._aside(change.table, [i for i in _indexes(change.before) if i.name in taken])
                elif _index_of(change.before) and change.before.name in taken:
                    (name,) = self._aside(change.table, [change.before])
                    before = attrs.evolve(change.before, name=name)
                    name = change.name if phase == "rename_constraint" else name
                    self.phases[phase][place] = attrs.evolve(change, name=name, before=before)

    def _aside(self, table: str, some: Iterable[Index | Constraint]) -> list[str]:
        names = []
        for what in some:
            names.append(f"{SWAPPED}_{len(self.phases['step_aside'])}")
            after = attrs.evolve(what, name=names[-1])
            self.add("rename_index", table, names[-1], phase="step_aside", before=what, after=after)
        return names

    def _place(self, change: Change, name: str) -> tuple[str, str]:
        """Return where a name of a constraint or index is taken: in the whole schema, or in its table."""
        indexed = _index_of(change.before) and not (self.loose and change.kind == "rename_constraint")
        return "" if indexed else change.table, name

    # -- whole tables ---------------------------------------------------------------------------------------------
    def _drop_table(self, table: Table) -> None:
        self.touched.add(table.name)
        gone = self.found.tables.keys() - self.wanted.tables.keys()
        for key in table.constraints:
            if key.kind == "foreign key" and key.target in gone and key.target != table.name and not self.loose:
                self.add("drop_constraint", table.name, key.name, phase="drop_foreign_key", before=key)
        self.add("drop_table", table.name, table.name, before=table)

    def _by_references(self, names: Iterable[str]) -> list[str]:
        """Order new tables so that what they refer to comes first, as far as there is such an order."""
        new = list(names)
        below = {
            name: {key.target for key in self.wanted.tables[name].constraints if key.target in new} - {name}
            for name in new
        }
        return _in_order(below)

    def _create_table(self, table: Table) -> None:
        made = {change.name for change in self.phases["create_table"]} | {table.name}
        made |= {name for name, found in self.found.tables.items() if found == self.wanted.tables.get(name)}
        later = [key for key in table.constraints if key.kind == "foreign key" and key.target not in made]
        now = table
        if later and not self.loose:
            now = attrs.evolve(table, constraints=tuple(key for key in table.constraints if key not in later))
            for key in later:
                self.add("add_constraint", table.name, key.name, phase="add_foreign_key", after=key)
        self.add("create_table", table.name, table.name, after=now)
        for index in table.indexes.values():
            self.add("create_index", table.name, index.name, after=index)
        for trigger in table.triggers.values():
            self.add("create_trigger", table.name, trigger.name, after=trigger)
        for policy in table.policies.values():
            self.add("create_policy", table.name, policy.name, after=policy)

    # -- references to what changes ---------------------------------------------------------------------------------
    def _rebuild_references(self) -> None:
        """Drop and make anew foreign keys whose columns change type, or whose key is dropped."""
        gone = {(c.table, c.name) for c in self.phases["drop_foreign_key"]}
        new = {(c.table, c.name) for c in self.phases["add_foreign_key"]}
        for table in self.found.tables.values():
            wanted = self.wanted.tables.get(table.name)
            kept = {key.name: key for key in wanted.constraints} if wanted is not None else {}
            for key in table.constraints:
                if key.kind != "foreign key" or (table.name, key.name) in gone or not self._disturbed(table.name, key):
                    continue
                self.add("drop_constraint", table.name, key.name, phase="drop_foreign_key", before=key)
                after = kept.get(key.name)
                for renaming in self.phases["rename_constraint"]:
                    if (renaming.table, renaming.before.name) == (table.name, key.name):
                        self.phases["rename_constraint"].remove(renaming)
                        after = renaming.after
                        break
                if after is not None and (table.name, after.name) not in new:
                    self.add("add_constraint", table.name, after.name, phase="add_foreign_key", after=after)

    def _disturbed(self, table: str, key: Constraint) -> bool:
        here = self.retyped.get(table, set()) & set(key.columns)
        there = self.retyped.get(key.target, set()) & set(key.remote)
        return bool(here or there) or any(
            set(columns) == set(key.remote) for columns in self.dropped_keys.get(key.target, ())
        )

    # -- views ----------------------------------------------------------------------------------------------------
    def _views(self) -> None:
        """Drop views that change, or that read what changes, above those they read; make them anew below."""
        stale = {name for name, view in self.found.views.items() if self._stale(name, view)}
        while True:
            above = {n for n, view in self.found.views.items() if n not in stale and stale & set(view.reads)}
            if not above:
                break
            stale |= above
        for name in _views_in_order(self.found.views, stale)[::-1]:
            self.add("drop_view", "", name, before=self.found.views[name])
        wanted = self.wanted.views
        for name in _views_in_order(wanted, {n for n in wanted if n in stale or n not in self.found.views}):
            self.add("create_view", "", name, after=wanted[name])
        for name, view in wanted.items():
            if name in self.found.views and name not in stale and view != self.found.views[name]:
                self.add("alter_view", "", name, before=self.found.views[name], after=view)

    def _stale(self, name: str, view: View) -> bool:
        after = self.wanted.views.get(name)
        if after is None or attrs.evolve(after, comment=None) != attrs.evolve(view, comment=None):
            return True
        return any(table in self.touched for table in view.reads)

    # -- what belongs to no table -------------------------------------------------------------------------------------
    def _enums(self) -> None:
        for name, enum in self.wanted.enums.items():
            before = self.found.enums.get(name)
            if before is None:
                self.add("create_enum", "", name, after=enum)
            elif before != enum:
                self.add("alter_enum", "", name, before=before, after=enum)
        for name, enum in self.found.enums.items():
            if name not in self.wanted.enums:
                self.add("drop_enum", "", name, phase=self._phase("drop_enum", name), before=enum)

    def _functions(self) -> None:
        for name, function in self.wanted.functions.items():
            before = self.found.functions.get(name)
            if before is None:
                self.add("create_function", "", name, after=function)
            elif before != function:
                self.add("alter_function", "", name, before=before, after=function)
        for name, function in self.found.functions.items():
            if name not in self.wanted.functions:
                self.add("drop_function", "", name, before=function)

    def _sequences(self) -> None:
        for name, sequence in self.wanted.sequences.items():
            before = self.found.sequences.get(name)
            if before is not None and before.owner and self._dropped(before.owner):
                before = None  # it went with its column
            if before is None:
                self.add("create_sequence", "", name, after=attrs.evolve(sequence, owner=""))
                before = attrs.evolve(sequence, owner="")
            elif attrs.evolve(before, owner="") != attrs.evolve(sequence, owner=""):
                after = attrs.evolve(sequence, owner=before.owner)
                self.add("alter_sequence", "", name, before=before, after=after)
                before = after
            if before.owner != sequence.owner:
                self.add("alter_sequence", "", name, phase="own_sequence", before=before, after=sequence)
        for name, sequence in self.found.sequences.items():
            if name not in self.wanted.sequences and not self._dropped(sequence.owner):
                self.add("drop_sequence", "", name, phase=self._phase("drop_sequence", name), before=sequence)

    def _phase(self, phase: str, name: str) -> str:
        """Return when something is dropped: before others may need its name, unless something may still use it."""
        tables = [table for table in self.found.tables.values() if table.name in self.wanted.tables]
        gone = {(change.table, change.name) for change in self.phases["drop_column"]}
        columns = [c for table in tables for c in table.columns.values() if (table.name, c.name) not in gone]
        texts = [text for c in columns for text in (c.type, c.default or "")]
        texts += [function.definition for function in self.found.functions.values()]
        texts += [view.definition for view in self.found.views.values()]
        word = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")
        return phase if any(map(word.search, texts)) else "drop_unused"

    def _dropped(self, owner: str) -> bool:
        table, _, column = owner.rpartition(".")
        if not table:
            return False
        if table not in self.wanted.tables:
            return True
        return any(change.table == table and change.name == column for change in self.phases["drop_column"])


class _TableDifference:
    """Collects the changes of one table that is there before and after."""

    def __init__(self, whole: _Difference, found: Table, wanted: Table) -> None:
        self.whole = whole
        self.found = found
        self.wanted = wanted
        self.name = wanted.name
        self.replaced = {name for name, column in found.columns.items() if _type(column) in whole.replaced}
        self.anew = set(self._columns_made_anew())

    def add(self, kind: str, name: str, *, phase: str = "", **what: Any) -> None:
        self.whole.add(kind, self.name, name, phase=phase, **what)

    def collect(self) -> None:
        if self.anew or self._retyped() or self.found.columns.keys() - self.wanted.columns.keys():
            self.whole.touched.add(self.name)
        self._columns()
        self._constraints()
        self._indexes()
        self._attached("trigger", self.found.triggers, self.wanted.triggers)
        self._attached("policy", self.found.policies, self.wanted.policies)
        if (self.found.options, self.found.comment) != (self.wanted.options, self.wanted.comment):
            self.add("alter_table", self.name, before=self.found, after=self.wanted)

    # -- columns --------------------------------------------------------------------------------------------------
    def _retyped(self) -> set[str]:
        """Return columns that get another type, or whose enum type is made anew."""
        return (self.replaced & self.wanted.columns.keys()) | {
            name
            for name, column in self.wanted.columns.items()
            if name in self.found.columns
            and (column.type, column.collation) != (self.found.columns[name].type, self.found.columns[name].collation)
        }

    def _moving(self) -> set[str]:
        """Return columns that change type or go."""
        return self._retyped() | (self.found.columns.keys() - self.wanted.columns.keys())

    def _columns_made_anew(self) -> Iterator[str]:
        """Yield computed columns that cannot be altered: a plain one becomes computed, or what they read changes."""
        moving = self._moving()
        for name, column in self.wanted.columns.items():
            before = self.found.columns.get(name)
            if before is None or column.generated is None:
                continue
            same = attrs.evolve(before, nullable=column.nullable, comment=column.comment) == column
            if not same or identifiers(before.generated) & moving:
                yield name

    def _reads_moving(self, column: Column) -> bool:
        return bool(identifiers(column.generated) & self._moving())

    def _columns(self) -> None:
        retyped = self._retyped()
        if retyped:
            self.whole.retyped[self.name] = retyped
        computed = [n for n, c in self.found.columns.items() if c.generated is not None]
        for name in sorted(self.found.columns, key=lambda name: name not in computed):  # what reads others first
            if name not in self.wanted.columns or name in self.anew:
                self.add("drop_column", name, before=self.found.columns[name])
        after = sorted(self.wanted.columns.items(), key=lambda item: item[1].generated is not None)  # they read others
        for name, column in after:
            before = self.found.columns.get(name)
            value = _some(self.whole.values.get((self.name, name)))
            if before is not None and before.generated and not column.generated and self._reads_moving(before):
                kept = attrs.evolve(before, generated=None, stored=False)  # while what it reads is still there
                self.add("alter_column", name, phase="keep_computed", before=before, after=kept)
                before = kept
            if before is None or name in self.anew:
                self.add("add_column", name, after=column, value=value)
            elif before != column:
                if value is None and before.nullable and not column.nullable:
                    value = _some(column.default)  # what rows get that have none
                self.add("alter_column", name, before=before, after=column, value=value)

    # -- constraints ----------------------------------------------------------------------------------------------
    def _constraints(self) -> None:
        gone = {name for name in self.found.columns if name not in self.wanted.columns} | self.anew
        old = list(self.found.constraints)
        left = []
        for constraint in self.wanted.constraints:
            lost = gone | self.replaced if constraint.kind == "check" else gone
            same = next((o for o in old if o == constraint and not lost & set(o.columns)), None)
            if same is None:
                left.append(constraint)
            else:
                old.remove(same)
        for constraint in left:
            lost = gone | self.replaced if constraint.kind == "check" else gone
            twin = next((o for o in old if _content(o) == _content(constraint) and not lost & set(o.columns)), None)
            if twin is not None and twin.name and constraint.name:
                old.remove(twin)
                self.add("rename_constraint", constraint.name, before=twin, after=constraint)
                continue
            phase = "add_foreign_key" if constraint.kind == "foreign key" else ""
            self.add("add_constraint", constraint.name, phase=phase, after=constraint)
        for constraint in old:
            phase = "drop_foreign_key" if constraint.kind == "foreign key" else ""
            self.add("drop_constraint", constraint.name, phase=phase, before=constraint)
            if constraint.kind in ("primary key", "unique"):
                self.whole.dropped_keys.setdefault(self.name, []).append(constraint.columns)

    # -- indexes, triggers, policies --------------------------------------------------------------------------------
    def _indexes(self) -> None:
        old = dict(self.found.indexes)
        for name, index in self.wanted.indexes.items():
            if old.get(name) == index and self._stays(index):
                del old[name]
                continue
            twin = next((o for o in old.values() if attrs.evolve(o, name=name) == index), None)
            if twin is not None and twin.name not in self.wanted.indexes and self._stays(twin):
                del old[twin.name]
                self.add("rename_index", name, before=twin, after=index)
                continue
            self.add("create_index", name, after=index)
        for name, index in old.items():
            self.add("drop_index", name, before=index)

    def _stays(self, index: Index) -> bool:
        """Tell whether an index outlives columns that go, and types that are made anew."""
        gone = {name for name in self.found.columns if name not in self.wanted.columns} | self.anew
        plain = set(index.columns)
        computed = {name for key in index.keys for name in identifiers(key.expression)} - plain
        return not (gone & plain or (gone | self.replaced) & (computed | identifiers(index.where)))

    def _attached(self, kind: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        """Compare triggers or policies; those that mention a column that changes are made anew."""
        moving = self._moving() | self.anew
        for name, before in found.items():
            stays = name in wanted and wanted[name] == before
            if not stays or identifiers(before.definition) & moving:
                self.add(f"drop_{kind}", name, before=before)
                if stays:
                    self.add(f"create_{kind}", name, after=wanted[name])
        for name, after in wanted.items():
            if found.get(name) != after:
                self.add(f"create_{kind}", name, after=after)


def _index_of(what: Index | Constraint) -> bool:
    """Tell whether something is, or has, an index."""
    return isinstance(what, Index) or what.kind in _KEYS


def _indexes(table: Table) -> list[Index | Constraint]:
    return [*table.indexes.values(), *filter(_index_of, table.constraints)]


def _aside(change: Change) -> tuple[Change, Change]:
    """Return the renaming of a constraint or index by way of another name."""
    between = attrs.evolve(change.after, name=SWAPPED)
    aside = attrs.evolve(change, name=SWAPPED, after=between)
    return aside, attrs.evolve(change, before=attrs.evolve(change.before, name=SWAPPED))


def _replaced(found: Catalog, wanted: Catalog) -> frozenset[str]:
    """Return enum types that lose labels, or change their order: they are made anew, and columns move to them."""
    both = [(found.enums[name], after) for name, after in wanted.enums.items() if name in found.enums]
    return frozenset(
        after.name
        for before, after in both
        if before.labels != tuple(label for label in after.labels if label in before.labels)
    )


def _some(value: str | None) -> str | None:
    """Return an expression for a value, unless it says that there is none."""
    return None if value is None or value.upper() == "NULL" else value


def _type(column: Column) -> str:
    """Return the name of a column's type, or of its items'."""
    name = column.type.removesuffix("[]")
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _types(table: Table) -> set[str]:
    return {_type(column) for column in table.columns.values()}


def _content(constraint: Constraint) -> Constraint:
    return attrs.evolve(constraint, name="")


def _views_in_order(views: Mapping[str, View], some: set[str]) -> list[str]:
    below = {name: {read for read in views[name].reads if read in some} for name in views if name in some}
    return _in_order(below)


def _in_order(below: Mapping[str, Iterable[str]]) -> list[str]:
    """Order names so that those below each come first, as far as there is such an order."""
    try:
        return list(TopologicalSorter(below).static_order())
    except CycleError:
        return list(below)


def renameable(found: Table, wanted: Table) -> list[tuple[Column, Column]]:
    """Return pairs (column that goes, column that comes) of one type: a rename that nobody declared, perhaps."""
    gone = [column for name, column in found.columns.items() if name not in wanted.columns]
    new = [column for name, column in wanted.columns.items() if name not in found.columns]
    return [(old, column) for old in gone for column in new if old.type == column.type]
