"""The oracle's database: tables as dicts, unique keys, foreign keys, auto ids, and the way back.

Rows are never changed in place, so that a copy of the tables' outer dicts is a snapshot.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from dataflow.testing.differential.models import TABLES, Table
from dataflow.testing.differential.programs import SPAN, Ambiguous, Failure, Ref, Stamp
from dataflow.testing.oracle import accept, key_of
from dataflow.testing.oracle.filters import matches

Row = dict[str, Any]
Key = tuple[Any, ...]
UNIQUE = ("UniqueError", "unique")
FOREIGN = ("ForeignKeyError", "foreign-key")


def _by_key(item: tuple[Key, Row]) -> Any:
    return [key_of(part) for part in item[0]]


class World:
    """The contents of all tables.

    Attributes:
        tables: model -> key -> row.
        highest: model -> greatest auto id ever given.
        cursors: number of a list operation -> (sort, values) of the place after its page.
        number: of the operation that is being drawn.
    """

    def __init__(self) -> None:
        self.tables: dict[str, dict[Key, Row]] = {name: {} for name in TABLES}
        self.highest: dict[str, int] = dict.fromkeys(TABLES, 0)
        self.cursors: dict[int, tuple[Any, list[Any]]] = {}
        self.number = 0

    def snapshot(self) -> Any:
        """Return what `restore` takes."""
        return {name: dict(rows) for name, rows in self.tables.items()}, dict(self.highest)

    def restore(self, snapshot: Any) -> None:
        """Make everything as it was."""
        tables, highest = snapshot
        self.tables = {name: dict(rows) for name, rows in tables.items()}
        self.highest = dict(highest)

    def rows(self, model: str) -> list[Row]:
        """Return the rows of a model in key order."""
        return [row for _, row in sorted(self.tables[model].items(), key=_by_key)]

    def data(self) -> Mapping[str, list[Row]]:
        """Return all rows, for filters that reach through relations."""
        return {name: list(rows.values()) for name, rows in self.tables.items()}

    def found(self, model: str, document: Mapping[str, Any] | None) -> list[Row]:
        """Return the rows that match a filter, in key order."""
        rows = self.rows(model)
        if not document:
            return rows
        data = self.data()
        return [row for row in rows if matches(document, row, model, data)]

    # -- new rows -------------------------------------------------------------------------------------------------
    def fresh(self, model: str, values: Mapping[str, Any], number: int) -> Row:
        """Make a row of given values and defaults; the auto id is given by `insert`."""
        table = TABLES[model]
        row: Row = {}
        for name, kind in table.kinds.items():
            value = values[name] if name in values else table.defaults.get(name)
            row[name] = value if isinstance(value, Ref) else accept(kind, value, name)
        if table.stamped:
            row["created_at"] = row["updated_at"] = Stamp(number)
        return row

    def insert(self, model: str, row: Row, number: int, *, checked: bool = True) -> Row:
        """Insert a row; return it as stored.

        Args:
            model: its model.
            row: its values.
            number: of the operation.
            checked: whether foreign keys are checked.

        Raises:
            Failure: a unique or foreign key refuses it.
        """
        table = TABLES[model]
        if table.auto and row["id"] is None:
            row = {**row, "id": Ref(max(self.highest[model] + 1, number * SPAN), model)}
        if self.holder(table, row) is not None:
            raise Failure(*UNIQUE)
        if checked:
            self.check_foreign(table, row)
        if table.auto:
            self.highest[model] = max(self.highest[model], row["id"])
        self.tables[model][self.key(table, row)] = row
        return row

    def key(self, table: Table, row: Mapping[str, Any]) -> Key:
        """Return the primary key of a row."""
        return tuple(row[name] for name in table.key)

    def holder(self, table: Table, row: Row, ignored: Iterable[Key] = ()) -> Row | None:
        """Return a row that has one of the row's unique keys."""
        for names in table.keys:
            wanted = tuple(row[name] for name in names)
            if None in wanted:
                continue
            for key, other in self.tables[table.name].items():
                if key not in ignored and wanted == tuple(other[name] for name in names):
                    return other
        return None

    def clashes(self, table: Table, row: Row) -> int:
        """Count the unique keys of a row that others hold."""
        found = 0
        for names in table.keys:
            wanted = tuple(row[name] for name in names)
            held = [tuple(other[name] for name in names) for other in self.tables[table.name].values()]
            found += None not in wanted and wanted in held
        return found

    def check_foreign(self, table: Table, row: Row) -> None:
        """Raise if a foreign key leads nowhere."""
        for field, (target, _) in table.foreign.items():
            if row[field] is not None and (row[field],) not in self.tables[target]:
                raise Failure(*FOREIGN)

    # -- changes --------------------------------------------------------------------------------------------------
    def change(self, model: str, changed: Mapping[Key, Row]) -> None:
        """Replace rows, as one statement does.

        Raises:
            Failure: a constraint refuses the outcome.
            Ambiguous: it depends on the order in which the rows are changed.
        """
        table = TABLES[model]
        rows = self.tables[model]
        for names in table.uniques:
            new = [tuple(row[name] for name in names) for row in changed.values()]
            old = {key: tuple(rows[key][name] for name in names) for key in changed}
            taken = [value for value in new if None not in value]
            others = {tuple(row[name] for name in names) for key, row in rows.items() if key not in changed}
            if len(set(taken)) < len(taken) or others & set(taken):
                raise Failure(*UNIQUE)
            for key, value in zip(changed, new, strict=True):
                moved = None not in value and value != old[key]
                if moved and value in [other for place, other in old.items() if place != key]:
                    raise Ambiguous
        for row in changed.values():
            self.check_foreign(table, row)
        rows.update(changed)

    def remove(self, model: str, keys: Iterable[Key]) -> None:
        """Remove rows, and do to others what their foreign keys say.

        Raises:
            Failure: a record is still referred to.
        """
        for key in keys:
            del self.tables[model][key]
            for child in TABLES.values():
                for field, (target, action) in child.foreign.items():
                    if target == model:
                        self._orphan(child, field, key[0], action)

    def _orphan(self, child: Table, field: str, value: Any, action: str) -> None:
        referring = [key for key, row in self.tables[child.name].items() if row[field] == value]
        if referring and action == "restrict":
            raise Failure(*FOREIGN)
        if action == "cascade":
            self.remove(child.name, referring)
        for key in referring:
            if action == "set null":
                self.tables[child.name][key] = {**self.tables[child.name][key], field: None}
