"""What the framework keeps about schemas, in tables of its own: the history of migrations, and the registry of models.

`dataflow_migrations` has a row for each migration, with its whole plan and what it does to the registry, so that any
process can end it; `dataflow_migration_steps` one for each step that was begun, so that it goes on where it was.
`dataflow_models` says which tables DataFlow has made, for which model, and what of them. Times are ISO 8601 in UTC.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Self, TypeVar

import attrs

from dataflow.dialect import COUNT, Command, Dialect, Program
from dataflow.migrations.plan import Plan
from dataflow.migrations.target import Owned
from dataflow.model import FEATURE_OPTIONS

T = TypeVar("T")
HISTORY, STEPS, MODELS = "dataflow_migrations", "dataflow_migration_steps", "dataflow_models"
RUNNING, DONE, FAILED, UNDONE = "running", "done", "failed", "undone"
_TABLES = {
    HISTORY: ("id", "plan", "status", "started_at", "ended_at", "actor", "error", "note", "registry"),
    STEPS: ("migration", "position", "status", "cursor"),
    MODELS: ("table_name", "model", "definition", "ddl", "owned", "written_at"),
}
_MANY = 8
"""Tables of the registry from which on all of it is read at once."""
_KEYS = {HISTORY: ("id",), STEPS: ("migration", "position"), MODELS: ("table_name",)}


def now() -> str:
    """Return this instant as text."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


@attrs.frozen
class Registered:
    """What the registry knows of a table.

    Attributes:
        table: its name.
        model: the model's name.
        definition: `registry.dump` of the model.
        ddl: hash of the statements that make it.
        owned: what DataFlow has made of it, so far.
    """

    table: str
    model: str
    definition: Mapping[str, Any]
    ddl: str
    owned: Owned

    @property
    def features(self) -> tuple[str, ...]:
        """The options of `FEATURE_OPTIONS` that hold for the model."""
        options = self.definition.get("options", {})
        return tuple(name for name in FEATURE_OPTIONS if options.get(name))

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        owned = {name: sorted(items) for name, items in attrs.asdict(self.owned).items()}
        return {**attrs.asdict(self, recurse=False), "owned": owned}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return what `to_dict` has written."""
        owned = {name: frozenset(items) for name, items in data["owned"].items()}
        return cls(**{**data, "owned": Owned(**owned)})


@attrs.frozen
class Outcome:
    """What a migration does to the registry.

    Attributes:
        before: entries that go.
        after: entries that come in their place.
    """

    before: Sequence[Registered] = ()
    after: Sequence[Registered] = ()

    @property
    def reverse(self) -> "Outcome":
        """What undoing the migration does."""
        return Outcome(self.after, self.before)

    def to_json(self) -> str:
        """Return it as text."""
        return json.dumps([[entry.to_dict() for entry in entries] for entries in (self.before, self.after)])

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return what `to_json` has written."""
        return cls(*([Registered.from_dict(entry) for entry in entries] for entries in json.loads(text or "[]")))


@attrs.frozen
class Entry:
    """A migration of the history.

    Attributes:
        id: begins with the instant at which it began.
        plan: what it did.
        status: running, done, failed or undone.
        started_at: ISO 8601, UTC.
        ended_at: the same; "" while it runs.
        actor: who did it, as far as known.
        error: why it failed.
        note: where a backup is.
        done: positions of the steps that are done.
        cursors: position -> where a step in batches has come to.
        outcome: what it does to the registry.
    """

    id: str
    plan: Plan
    status: str
    started_at: str
    ended_at: str = ""
    actor: str = ""
    error: str = ""
    note: str = ""
    done: frozenset[int] = frozenset()
    cursors: Mapping[int, Any] = attrs.field(factory=dict)
    outcome: Outcome = Outcome()

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        return {
            "id": self.id,
            "status": self.status,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "actor": self.actor,
            "error": self.error,
            "note": self.note,
            "steps_done": len(self.done),
            "steps": [planned.step.summary for planned in self.plan.steps],
            "risk": self.plan.risk.value,
        }


def _entry(row: Sequence[Any], steps: Iterable[Sequence[Any]]) -> Entry:
    """Return a migration from its row, and those of its steps."""
    own = list(steps)
    return Entry(
        row[0],
        Plan.from_dict(json.loads(row[1])),
        status=row[2],
        started_at=row[3],
        ended_at=row[4],
        actor=row[5],
        error=row[6],
        note=row[7],
        done=frozenset(position for _, position, status, _ in own if status == DONE),
        cursors={position: json.loads(cursor) for _, position, status, cursor in own if status == RUNNING},
        outcome=Outcome.from_json(row[8]),
    )


class Journal:
    """Reads and writes the framework's tables of one database.

    Args:
        dialect: of the database.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    # -- tables ---------------------------------------------------------------------------------------------------
    def there(self, table: str) -> Program[bool]:
        """Tell whether a table of the framework's is there."""
        return bool((yield from self.dialect.list_columns(table)))

    def make(self, *tables: str) -> Program[None]:
        """Create tables of the framework's that are missing."""
        for table in tables:
            columns = ", ".join(f"{self._name(column)} {self._type(column)} NOT NULL" for column in _TABLES[table])
            key = ", ".join(map(self._name, _KEYS[table]))
            sql = f"CREATE TABLE IF NOT EXISTS {self._table(table)} ({columns}, PRIMARY KEY ({key}))"
            yield Command(sql, COUNT, writes=True), ()

    def _type(self, column: str) -> str:
        return "INTEGER" if column == "position" else "TEXT"

    def _name(self, name: str) -> str:
        return self.dialect.quote(name)

    def _table(self, name: str) -> str:
        return self.dialect.table_name(name)

    def _insert(self, table: str, values: tuple[Any, ...]) -> Program[None]:
        names = ", ".join(map(self._name, _TABLES[table]))
        places = ", ".join(self.dialect.placeholder(place + 1) for place in range(len(values)))
        yield Command(f"INSERT INTO {self._table(table)} ({names}) VALUES ({places})", COUNT, writes=True), values  # noqa: S608

    def _update(self, table: str, key: Mapping[str, Any], values: Mapping[str, Any]) -> Program[None]:
        places = iter(range(1, 100))
        mark = self.dialect.placeholder
        changed = ", ".join(f"{self._name(name)} = {mark(next(places))}" for name in values)
        which = " AND ".join(f"{self._name(name)} = {mark(next(places))}" for name in key)
        sql = f"UPDATE {self._table(table)} SET {changed} WHERE {which}"  # noqa: S608
        yield Command(sql, COUNT, writes=True), (*values.values(), *key.values())

    def _select(self, table: str, order: str, **which: Any) -> Program[list[tuple[Any, ...]]]:
        names = ", ".join(map(self._name, _TABLES[table]))
        marks = [f"{self._name(name)} = {self.dialect.placeholder(place)}" for place, name in enumerate(which, 1)]
        where = f" WHERE {' AND '.join(marks)}" if marks else ""
        sql = f"SELECT {names} FROM {self._table(table)}{where} ORDER BY {order}"  # noqa: S608
        rows: list[tuple[Any, ...]] = yield Command(sql), tuple(which.values())
        return rows

    # -- history --------------------------------------------------------------------------------------------------
    def begin(self, plan: Plan, actor: str, note: str = "", outcome: Outcome | None = None) -> Program[Entry]:
        """Write down that a migration begins, and what the registry will say when it is done."""
        started = now()
        stamp = started[:26].translate(str.maketrans("", "", "-:."))
        entry = Entry(f"{stamp}-{plan.id[:8]}", plan, RUNNING, started, actor=actor, note=note)
        entry = attrs.evolve(entry, outcome=outcome or Outcome())
        row = (entry.id, json.dumps(plan.to_dict()), RUNNING, started, "", actor, "", note, entry.outcome.to_json())
        yield from self._insert(HISTORY, row)
        return entry

    def record(self, entry: Entry) -> Program[None]:
        """Write down a migration that another tool has made."""
        row = (entry.id, json.dumps(entry.plan.to_dict()), entry.status, entry.started_at, entry.ended_at)
        yield from self._insert(HISTORY, (*row, entry.actor, entry.error, entry.note, entry.outcome.to_json()))

    def mark(self, entry: Entry, positions: Iterable[int], cursor: Any = None, *, done: bool = True) -> Program[None]:
        """Write down that steps are done, or how far one has come."""
        for position in positions:
            yield from self.unmark(entry, [position])
            status = DONE if done else RUNNING
            yield from self._insert(STEPS, (entry.id, position, status, json.dumps(cursor)))

    def unmark(self, entry: Entry, positions: Iterable[int]) -> Program[None]:
        """Write down that steps are not done, as if they had not begun."""
        key = self.dialect.placeholder
        where = f"{self._name('migration')} = {key(1)} AND {self._name('position')} = {key(2)}"
        for position in positions:
            sql = f"DELETE FROM {self._table(STEPS)} WHERE {where}"  # noqa: S608
            yield Command(sql, COUNT, writes=True), (entry.id, position)

    def end(self, entry: Entry, status: str, error: str = "") -> Program[None]:
        """Write down how a migration ended."""
        yield from self._update(HISTORY, {"id": entry.id}, {"status": status, "ended_at": now(), "error": error})

    def end_of(self, migration: str, status: str) -> Program[None]:
        """Write down how a migration ended that is known by its id."""
        yield from self._update(HISTORY, {"id": migration}, {"status": status, "ended_at": now()})

    def history(self) -> Program[list[Entry]]:
        """Return the migrations, the first first; none where there is no history."""
        if not (yield from self.there(HISTORY)):
            return []
        steps: dict[str, list[Sequence[Any]]] = {}
        for row in (yield from self._select(STEPS, self._name("position"))):
            steps.setdefault(row[0], []).append(row)
        rows = yield from self._select(HISTORY, self._name("id"))
        return [_entry(row, steps.get(row[0], ())) for row in rows]

    def unfinished(self) -> Program[Entry | None]:
        """Return the migration that was interrupted, if one was."""
        if not (yield from self.there(HISTORY)):
            return None
        rows = yield from self._select(HISTORY, self._name("id"), status=RUNNING)
        if not rows:
            return None
        steps = yield from self._select(STEPS, self._name("position"), migration=rows[0][0])
        return _entry(rows[0], steps)

    def last(self) -> Program[str]:
        """Return the id of the migration that began last, or ""."""
        if not (yield from self.there(HISTORY)):
            return ""
        rows = yield Command(f"SELECT max({self._name('id')}) FROM {self._table(HISTORY)}"), ()  # noqa: S608
        return rows[0][0] or ""

    # -- registry of models -----------------------------------------------------------------------------------------
    def registered(self, tables: Collection[str] | None = None) -> Program[dict[str, Registered]]:
        """Return table -> what the registry knows of it.

        Args:
            tables: names; all when left out. To read each entry takes its time.
        """
        if not (yield from self.there(MODELS)):
            return {}
        order = self._name("table_name")
        if tables is None or len(tables) > _MANY:
            rows = yield from self._select(MODELS, order)
        else:
            rows = []
            for table in sorted(tables):
                rows += yield from self._select(MODELS, order, table_name=table)
        found = {}
        for table, model, definition, ddl, owned, _ in rows:
            if tables is None or table in tables:
                stored = {"definition": json.loads(definition), "ddl": ddl, "owned": json.loads(owned)}
                found[table] = Registered.from_dict({"table": table, "model": model, **stored})
        return found

    def listed(self) -> Program[set[str]]:
        """Return the tables that the registry knows."""
        if not (yield from self.there(MODELS)):
            return set()
        rows = yield Command(f"SELECT {self._name('table_name')} FROM {self._table(MODELS)}"), ()  # noqa: S608
        return {table for (table,) in rows}

    def register(self, entries: Iterable[Registered]) -> Program[None]:
        """Write entries to the registry, in place of older ones."""
        for entry in entries:
            yield from self.forget(entry.table)
            owned = json.dumps(entry.to_dict()["owned"])
            row = (entry.table, entry.model, json.dumps(entry.definition), entry.ddl, owned, now())
            yield from self._insert(MODELS, row)

    def forget(self, table: str) -> Program[None]:
        """Remove a table from the registry."""
        where = f"{self._name('table_name')} = {self.dialect.placeholder(1)}"
        yield Command(f"DELETE FROM {self._table(MODELS)} WHERE {where}", COUNT, writes=True), (table,)  # noqa: S608
