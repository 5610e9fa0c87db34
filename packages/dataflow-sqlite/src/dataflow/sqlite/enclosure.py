"""The views and triggers through which SQL of the user's own meets a table of several tenants, as SQL text.

Reads go through two temporary views: the outer has the table's name, the inner one that no such SQL may utter, so that
an access on behalf of the inner is known to be ours. Writes go from triggers on the outer view to permanent views
without rows, `dataflow_write_<table>_<operation>`, whose triggers write the table: only what is stored in the file
means the file's tables by their names. Nothing permanent calls functions of ours, so that files open in any other tool.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import attrs

RESERVED = "dataflow_"
"""How names begin that SQL of the user's own may not utter."""
INNER = "dataflow_tenant_"
WRITER = "dataflow_write_"
OUTLAWED = "dataflow-confined: "
"""How messages of the triggers begin; a word follows that says which rule was broken."""
WALL = " LIMIT -1 OFFSET 0"
"""Keeps conditions of the statement outside a view until the view has chosen its rows."""
COLUMNS = "SELECT name, dflt_value, pk, hidden FROM pragma_table_xinfo(?, 'main') ORDER BY cid"
OPERATIONS = ("insert", "update", "rekey", "delete")
FOUND = "SELECT name, sql FROM main.sqlite_master WHERE tbl_name IN (?, ?, ?, ?)"
UNIQUE = """SELECT l.name, i.cid, i.name, i.coll FROM pragma_index_list(?, 'main') AS l
    JOIN pragma_index_xinfo(l.name, 'main') AS i WHERE l."unique" AND i.key ORDER BY l.seq, i.seqno"""


def quoted(name: str) -> str:
    """Quote an identifier for SQLite."""
    return '"' + name.replace('"', '""') + '"'


@attrs.frozen
class Table:
    """What views and triggers must know of a table of several tenants.

    Attributes:
        name: in the database.
        tenant: the column that says whose a row is.
        key: the columns that, with the tenant, identify a row.
        columns: those that statements may write -> the SQL of their default, or None.
        computed: those that the database computes itself.
        shared: unique keys that rows of all tenants share, as (column, collation) pairs.
        opaque: whether there are unique keys of all tenants that no condition can express.
    """

    name: str
    tenant: str
    key: tuple[str, ...]
    columns: dict[str, str | None]
    computed: tuple[str, ...] = ()
    shared: tuple[tuple[tuple[str, str], ...], ...] = ()
    opaque: bool = False

    @classmethod
    def found(
        cls, name: str, tenant: str, key: Sequence[str], columns: Iterable[Any], unique: Iterable[Any] = ()
    ) -> "Table":
        """Make one of what `COLUMNS` and `UNIQUE` say."""
        rows = list(columns)
        keys: dict[str, list[tuple[str | None, str]]] = {}
        for index, place, column, collation in unique:
            keys.setdefault(index, []).append((column if place >= 0 else None, collation))
        own: list[tuple[str | None, str]] = [
            (column, "BINARY") for column, _, place, _ in sorted(rows, key=lambda row: row[2]) if place
        ]
        every = [tuple(own), *map(tuple, keys.values())] if own else list(map(tuple, keys.values()))
        shared = [parts for parts in every if tenant not in [column for column, _ in parts]]
        clear = [tuple((column, collation) for column, collation in parts if column is not None) for parts in shared]
        return cls(
            name,
            tenant,
            tuple(column for column in key if column != tenant),
            {column: default for column, default, _, hidden in rows if not hidden},
            tuple(column for column, _, _, hidden in rows if hidden),
            tuple(dict.fromkeys(key for key, parts in zip(clear, shared, strict=True) if len(key) == len(parts))),
            any(column is None for parts in shared for column, _ in parts),
        )

    @property
    def inner(self) -> str:
        """Name of the inner view."""
        return INNER + self.name

    @property
    def writers(self) -> tuple[str, ...]:
        """Names of the permanent views, in the order of `OPERATIONS`."""
        return tuple(f"{WRITER}{self.name}_{operation}" for operation in OPERATIONS)

    def permanent(self) -> dict[str, str]:
        """Return what the file must hold, for writing: name -> SQL."""
        table = quoted(self.name)
        places = {column: f"NEW.{place}" for column, place in self._places("c", self.columns)}
        others = [column for column in self.columns if column not in (self.tenant, *self.key)]
        own = [column for column in self.key if column in self.columns]
        found = " AND ".join(
            [f"{table}.{quoted(self.tenant)} = {places.get(self.tenant, 'NULL')}"]
            + [f"{table}.{quoted(column)} IS NEW.{place}" for column, place in self._places("k", self.key)]
        )

        def assigned(columns: Sequence[str]) -> str:
            return ", ".join(f"{quoted(column)} = {places[column]}" for column in columns)

        names, values = ", ".join(map(quoted, self.columns)), ", ".join(places.values())
        bodies = (
            f"INSERT INTO {table} ({names}) VALUES ({values})",  # noqa: S608
            f"UPDATE {table} SET {assigned(others or own)} WHERE {found}",  # noqa: S608
            f"UPDATE {table} SET {assigned([*own, *others])} WHERE {found}",  # noqa: S608
            f"DELETE FROM {table} WHERE {found}",  # noqa: S608
        )
        nulls = ", ".join(f"NULL AS {place}" for _, place in self._handed())
        statements = {}
        for name, body in zip(self.writers, bodies, strict=True):
            view, trigger = quoted(name), quoted(f"{name}_row")
            statements[name] = f"CREATE VIEW {view} AS SELECT {nulls}"
            statements[f"{name}_row"] = f"CREATE TRIGGER {trigger} INSTEAD OF INSERT ON {view} BEGIN {body}; END"
        return statements

    def _places(self, letter: str, columns: Iterable[str]) -> list[tuple[str, str]]:
        return [(column, f"{letter}{number}") for number, column in enumerate(columns)]

    def _handed(self) -> list[tuple[str, str]]:
        """Return the columns of the permanent views: of the key before, and of the row after."""
        return self._places("k", self.key) + self._places("c", self.columns)

    def views(self, *, walled: bool) -> list[str]:
        """Return the SQL of the temporary views."""
        inner = quoted(self.inner)
        own = f"t.{quoted(self.tenant)} = df_tenant() COLLATE BINARY"
        wall = WALL if walled else ""
        return [
            f"CREATE TEMP VIEW {inner} AS SELECT t.* FROM main.{quoted(self.name)} AS t WHERE {own}{wall}",  # noqa: S608
            f"CREATE TEMP VIEW {quoted(self.name)} AS SELECT * FROM temp.{inner}",  # noqa: S608
        ]

    def triggers(self) -> list[str]:
        """Return the SQL of the temporary triggers, which hand on what is written through the outer view."""
        tenant, computed = quoted(self.tenant), [quoted(column) for column in self.computed]
        new = {column: f"NEW.{quoted(column)}" for column in self.columns}
        filled = {
            c: new[c] if default is None else f"coalesce({new[c]}, ({default}))" for c, default in self.columns.items()
        }
        filled[self.tenant] = "df_tenant()"
        old = [f"OLD.{quoted(column)}" for column in self.key]
        moved = " OR ".join(f"NEW.{name} IS NOT OLD.{name}" for name in map(quoted, self.key)) or "0"
        insert, update, rekey, delete = self.writers
        changed = [*old, *new.values()]
        gone = [*old, *(f"OLD.{tenant}" if column == self.tenant else "NULL" for column in self.columns)]
        stolen = f"NEW.{tenant} IS NOT NULL AND NEW.{tenant} IS NOT df_tenant() COLLATE BINARY"
        steps = {
            "insert": [
                _refuse("no-tenant", "df_tenant() IS NULL"),
                _refuse("tenant", stolen),
                *(_refuse("computed", f"NEW.{column} IS NOT NULL") for column in computed),
                *self._taken(),
                self._hand_on(insert, [*("NULL" for _ in self.key), *filled.values()]),
            ],
            "update": [
                _refuse("tenant", f"NEW.{tenant} IS NOT OLD.{tenant} COLLATE BINARY"),
                *(_refuse("computed", f"NEW.{column} IS NOT OLD.{column}") for column in computed),
                *self._taken(changed=True),
                self._hand_on(update, changed, f"NOT ({moved})"),
                self._hand_on(rekey, changed, moved),
            ],
            "delete": [self._hand_on(delete, gone)],
        }
        return [self._trigger(event, body) for event, body in steps.items()]

    def _trigger(self, event: str, steps: Sequence[str]) -> str:
        body = "; ".join([*steps, "SELECT df_counted(total_changes())"])
        name, view = quoted(f"{self.inner}_{event}"), quoted(self.name)
        return f"CREATE TEMP TRIGGER {name} INSTEAD OF {event.upper()} ON {view} BEGIN {body}; END"

    def _hand_on(self, writer: str, values: Sequence[str], condition: str = "1") -> str:
        places = ", ".join(place for _, place in self._handed())
        return f"INSERT INTO {quoted(writer)} ({places}) SELECT {', '.join(values)} WHERE {condition}"

    def _taken(self, *, changed: bool = False) -> list[str]:
        """Refuse keys that another tenant's row has: OR REPLACE would delete that row."""
        steps = []
        for parts in self.shared:
            same = [f"t.{quoted(c)} = NEW.{quoted(c)} COLLATE {quoted(collation)}" for c, collation in parts]
            other = f"t.{quoted(self.tenant)} IS NOT df_tenant() COLLATE BINARY"
            condition = " AND ".join([*same, other])
            taken = f"EXISTS (SELECT 1 FROM main.{quoted(self.name)} AS t WHERE {condition})"  # noqa: S608
            if changed:
                moved = " OR ".join(f"NEW.{quoted(c)} IS NOT OLD.{quoted(c)}" for c, _ in parts)
                taken = f"({moved}) AND {taken}"
            steps.append(_refuse("taken", taken))
        return steps


def _refuse(word: str, condition: str) -> str:
    return f"SELECT RAISE(ABORT, '{OUTLAWED}{word}') WHERE {condition}"
