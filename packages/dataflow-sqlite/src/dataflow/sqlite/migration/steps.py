"""Changes -> steps, in an order in which SQLite can make them."""

from collections.abc import Iterable, Sequence
from functools import cached_property

from dataflow.catalog import Catalog, Index, Table, Trigger, View
from dataflow.changes import SWAPPED, Change, Step, renaming
from dataflow.errors import NotYetAvailable
from dataflow.sqlite.migration.alteration import STRUCTURE, Alteration, Surroundings, rename_steps
from dataflow.sqlite.migration.moves import moved, rename_table
from dataflow.sqlite.migration.tables import table_text
from dataflow.sqlite.migration.tokens import names_in, quoted, tokens
from dataflow.sqlite.migration.words import failure, loss, operation, summary

_OTHERS = frozenset(
    [
        "create_table",
        "drop_table",
        "rename_table",
        "rename_column",
        "create_index",
        "drop_index",
        "rename_index",
        "create_trigger",
        "drop_trigger",
        "alter_trigger",
        "create_view",
        "drop_view",
        "alter_view",
    ]
)


class Planner:
    """Finds the steps of one migration.

    Args:
        found: the catalog before.
        wanted: the catalog after.
        changes: what leads from one to the other.
    """

    def __init__(self, found: Catalog, wanted: Catalog, changes: Sequence[Change]) -> None:
        unknown = sorted({change.kind for change in changes} - STRUCTURE - _OTHERS)
        if unknown:
            msg = f"SQLite cannot {unknown[0].replace('_', ' ')}"
            raise NotYetAvailable(msg, hint="leave it out of the schema", code="unsupported")
        self.found = found
        self.wanted = wanted
        self.changes = changes
        self.names = {_old(change): change.name for change in self._of("rename_table")}
        self.moves = renaming(self.names.items())
        self.gone_tables = {change.name for change in self._of("drop_table")}
        self.views: dict[str, View] = {}
        self.triggers: dict[str, Trigger] = {}
        self.new_views: dict[str, View] = {}
        self.new_triggers: dict[str, Trigger] = {}
        self._collect()

    def _of(self, *kinds: str) -> list[Change]:
        return [change for change in self.changes if change.kind in kinds]

    def steps(self) -> list[Step]:
        """Return them."""
        alterations = self._alterations()
        return [
            *(self._drop_view(view) for view in self.views.values()),
            *(self._drop_trigger(trigger) for trigger in self.triggers.values()),
            *(self._drop_index(change) for change in self._of("drop_index")),
            *(self._drop_index(change) for change in self.in_the_way),
            *(self._drop_table(change) for change in self._of("drop_table")),
            *(self._rename_tables(moves) for moves in self.moves),
            *(step for each in alterations for step in (*rename_steps(each), *each.steps())),
            *(self._create_table(change) for change in self._of("create_table")),
            *(self._rename_index(change) for change in self._of("rename_index") if change not in self.in_the_way),
            *self._create_indexes(),
            *(self._create_view(view) for view in self.new_views.values()),
            *(self._create_trigger(trigger) for trigger in self.new_triggers.values()),
        ]

    # -- views and triggers -------------------------------------------------------------------------------------------
    def _collect(self) -> None:
        """Find the views and triggers that are dropped, and those that are made, some of them anew."""
        for change in self.changes:
            if change.kind in ("drop_view", "alter_view"):
                self.views[change.before.name] = change.before
            if change.kind in ("create_view", "alter_view"):
                self.new_views[change.name] = change.after
            if change.kind in ("drop_trigger", "alter_trigger"):
                self.triggers[change.before.name] = change.before
            if change.kind in ("create_trigger", "alter_trigger"):
                self.new_triggers[change.name] = change.after
        created = {change.name: change.after for change in self._of("create_table")}
        for name, table in created.items():
            for trigger in self.wanted.tables.get(name, table).triggers.values():
                self.new_triggers.setdefault(trigger.name, trigger)
        self._stand_aside()
        self.views = {name: self.found.views.get(name, view) for name, view in self.views.items()}
        known = {name: one for table in self.found.tables.values() for name, one in table.triggers.items()}
        hung = {name for view in self.views.values() for name in view.triggers}
        self.triggers = {
            name: known.get(name, one)
            for name, one in self.triggers.items()
            if known.get(name, one).table not in self.gone_tables and name not in hung
        }
        hung = {name for view in self.new_views.values() for name in view.triggers}
        self.new_triggers = {name: one for name, one in self.new_triggers.items() if name not in hung}

    def _stand_aside(self) -> None:
        """Let views and triggers that mention what is renamed be made anew: SQLite would rewrite their texts."""
        back = {new: old for old, new in self.names.items()}
        gone = {name.lower() for name in self.names}
        gone |= {back.get(change.table, change.table).lower() for change in self._of("rename_column")}
        if not gone:
            return
        for name, view in self.found.views.items():
            texts = [view.definition, *(one.definition for one in view.triggers.values())]
            if name not in self.views and name in self.wanted.views and any(gone & names_in(text) for text in texts):
                self.views[name], self.new_views[name] = view, self.wanted.views[name]
        wanted = {name: one for table in self.wanted.tables.values() for name, one in table.triggers.items()}
        for table in self.found.tables.values():
            for name, trigger in table.triggers.items():
                if name not in self.triggers and name in wanted and gone & names_in(trigger.definition):
                    self.triggers[name], self.new_triggers[name] = trigger, wanted[name]

    def _drop_view(self, view: View) -> Step:
        inverse = (view.definition, *(one.definition for one in view.triggers.values()))
        again = " (it is made anew)" if view.name in self.new_views else ""
        return Step("drop_view", f"drop view {view.name}{again}", "", (f"DROP VIEW {quoted(view.name)}",), inverse)

    def _create_view(self, view: View) -> Step:
        made = (view.definition, *(one.definition for one in view.triggers.values()))
        return Step("create_view", f"create view {view.name}", "", made, (f"DROP VIEW {quoted(view.name)}",))

    def _drop_trigger(self, trigger: Trigger) -> Step:
        again = " (it is made anew)" if trigger.name in self.new_triggers else ""
        drop, said = f"DROP TRIGGER {quoted(trigger.name)}", f"drop trigger {trigger.name}{again}"
        return Step("drop_trigger", said, trigger.table, (drop,), (trigger.definition,))

    def _create_trigger(self, trigger: Trigger) -> Step:
        drop, said = f"DROP TRIGGER {quoted(trigger.name)}", f"create trigger {trigger.name}"
        return Step("create_trigger", said, trigger.table, (trigger.definition,), (drop,))

    # -- tables -------------------------------------------------------------------------------------------------------
    def _alterations(self) -> list[Alteration]:
        gone = {*self.views, *self.triggers}
        texts = [names_in(text) for name, text in self._texts() if name not in gone]
        dropped = {*self.triggers} | {change.before.name for change in (*self._of("drop_index"), *self.in_the_way)}
        around = Surroundings(self.found, self.wanted, texts, frozenset(dropped))
        columns: dict[str, list[tuple[str, str]]] = {}
        structure: dict[str, list[Change]] = {}
        for change in self.changes:
            if change.kind == "rename_column":
                columns.setdefault(change.table, []).append((_old(change), _new(change)))
            elif change.kind in STRUCTURE:
                structure.setdefault(change.table, []).append(change)
        back = {new: old for old, new in self.names.items()}
        created = {change.name for change in self._of("create_table")}
        tables = moved(self.found, self.wanted, self.moves, columns)
        return [
            Alteration(back.get(name, name), tables[name], columns.get(name, ()), structure.get(name, ()), around)
            for name in {**columns, **structure}
            if name not in created
        ]

    def _texts(self) -> Iterable[tuple[str, str]]:
        for view in self.found.views.values():
            yield view.name, view.definition
            for trigger in view.triggers.values():
                yield view.name, trigger.definition
        for table in self.found.tables.values():
            for trigger in table.triggers.values():
                yield trigger.name, trigger.definition

    def _rename_tables(self, moves: Sequence[tuple[str, str]]) -> Step:
        sql = tuple(rename_table(old, new) for old, new in moves)
        back = tuple(rename_table(new, old) for old, new in reversed(moves))
        old, new = moves[0][0], self.names[moves[0][0]]
        names = [name for name, _ in moves if name != SWAPPED]
        said = f"rename table {old} to {new}" if len(moves) == 1 else f"swap the names of tables {', '.join(names)}"
        return Step(
            "rename_table", said, new, sql, back,
            locks={self.names[name]: "WRITE" for name in names}, details={"clears": sorted({*names, new})},
        )  # fmt: skip

    def _drop_table(self, change: Change) -> Step:
        table: Table = change.before
        return Step(
            "drop_table", f"drop table {table.name}", table.name, (f"DROP TABLE {quoted(table.name)}",), None,
            locks={table.name: "WRITE"}, data_loss=loss(change), details={"clears": [table.name]},
        )  # fmt: skip

    def _create_table(self, change: Change) -> Step:
        table: Table = change.after
        keys = any(one.kind == "foreign key" for one in table.constraints)
        return Step(
            "create_table_with_fk" if keys else "create_table",
            f"create table {table.name}",
            table.name,
            (table.sql or table_text(table),),
            (f"DROP TABLE {quoted(table.name)}",),
            locks={table.name: "WRITE"},
        )

    # -- indexes ------------------------------------------------------------------------------------------------------
    def _create_indexes(self) -> list[Step]:
        changes = [*self._of("create_index"), *self.in_the_way]
        made = {change.name for change in changes}
        for change in self._of("create_table"):
            table = self.wanted.tables.get(change.name, change.after)
            changes += [
                Change("create_index", table.name, name, after=index)
                for name, index in table.indexes.items()
                if name not in made
            ]
        return [
            Step(
                operation(change), f"{summary(change)} on {change.table}", change.table, (change.after.definition,),
                (f"DROP INDEX {quoted(change.name)}",), locks={change.table: "WRITE"}, scans=True,
                fails_on_data=failure(change),
            )
            for change in changes
        ]  # fmt: skip

    def _drop_index(self, change: Change) -> Step:
        index = self._index(change)
        return Step(
            "drop_index", f"drop index {change.before.name}", change.table, (f"DROP INDEX {quoted(index.name)}",),
            (index.definition,), locks={change.table: "WRITE"},
        )  # fmt: skip

    @cached_property
    def in_the_way(self) -> list[Change]:
        """Return the indexes that get another name since a table gets theirs: they go before, and are made anew."""
        taken = {name.lower() for name in (*self.names.values(), *(one.name for one in self._of("create_table")))}
        return [change for change in self._of("rename_index") if change.before.name.lower() in taken]

    def _rename_index(self, change: Change) -> Step:
        """Make it anew; it is undone before columns get their old names back, so by a text with their new ones."""
        old, new = change.before, change.after
        return Step(
            "rename_index",
            f"rename index {old.name} to {new.name}",
            change.table,
            (f"DROP INDEX {quoted(old.name)}", _called(new.definition, new.name)),
            (f"DROP INDEX {quoted(new.name)}", _called(new.definition, old.name)),
            locks={change.table: "WRITE"},
            scans=True,
        )

    def _index(self, change: Change) -> Index:
        back = {new: old for old, new in self.names.items()}
        table = self.found.tables.get(back.get(change.table, change.table))
        index: Index = change.before
        return table.indexes.get(index.name, index) if table else index


def _called(definition: str, name: str) -> str:
    """Return the text of an index with another name."""
    words = tokens(definition)
    place = next(place for place, (word, _, _) in enumerate(words) if word.upper() == "INDEX")
    _, start, end = words[place + 1]
    return f"{definition[:start]}{quoted(name)}{definition[end:]}"


def _old(change: Change) -> str:
    before = change.before
    return before if isinstance(before, str) else str(before.name)


def _new(change: Change) -> str:
    after = change.after
    return after if isinstance(after, str) else str(after.name)
