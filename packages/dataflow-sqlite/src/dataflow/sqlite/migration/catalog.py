"""Reads a SQLite database's schema: a handful of statements for all of it, and the stored texts for the rest."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from dataflow.catalog import Catalog, Column, Constraint, Index, IndexKey, Table, Trigger, View
from dataflow.dialect import Command, Program
from dataflow.sqlite.enclosure import RESERVED
from dataflow.sqlite.migration.text import Item, foreign_key, ordered, read_index, read_table
from dataflow.sqlite.migration.tokens import literal, named, names_in, normal_type, quoted, tokens

NULLING = "dataflow_null_"
"""How triggers begin that belong to foreign keys (`Dialect.nulling`): no feature makes them anew, so they count."""
_OBJECTS = Command(
    "SELECT type, name, tbl_name, sql FROM main.sqlite_master WHERE name NOT GLOB 'sqlite_*' ORDER BY rowid"
)
_KINDS = Command("SELECT name, type, wr, strict FROM pragma_table_list WHERE schema = 'main'")
_MODULES = Command("SELECT name FROM pragma_module_list")
_COLUMNS = Command(
    'SELECT m.name, x.name, x.type, x."notnull", x.dflt_value, x.pk, x.hidden '
    "FROM main.sqlite_master m, pragma_table_xinfo(m.name, 'main') x "
    "WHERE m.type = 'table' AND m.name NOT GLOB 'sqlite_*' AND m.sql NOT LIKE 'CREATE VIRTUAL%'"
)
_KEYS = Command(
    "SELECT m.name, x.cid, x.name, x.desc, x.coll FROM main.sqlite_master m, pragma_index_xinfo(m.name, 'main') x "
    "WHERE m.type = 'index' AND m.sql IS NOT NULL AND x.key ORDER BY m.name, x.seqno"
)
_MOST_TABLES = 400  # of 500 parts that a compound SELECT may have


def inspect() -> Program[Catalog]:
    """Read the schema of the main database, without what the framework keeps in it."""
    objects = yield _OBJECTS, ()
    kinds = yield _KINDS, ()
    virtual = any(sql and sql.upper().startswith("CREATE VIRTUAL") for *_, sql in objects)
    modules = (yield _MODULES, ()) if virtual else ()
    tables = _Tables(objects, kinds, {name for (name,) in modules})
    columns = yield _COLUMNS, ()
    keys = yield _KEYS, ()
    empty = yield from _empty(list(tables.sql))
    return tables.catalog(_grouped(columns), _grouped(keys), empty)


def is_own(kind: str, name: str) -> bool:
    """Tell whether an object is the framework's own business."""
    return name.startswith(RESERVED) and not (kind == "trigger" and name.startswith(NULLING))


def _grouped(rows: Iterable[Sequence[Any]]) -> dict[str, list[Sequence[Any]]]:
    return {name: [row[1:] for row in group] for name, group in itertools.groupby(rows, key=lambda row: row[0])}


def _empty(names: Sequence[str]) -> Program[set[str]]:
    """Return which tables have no rows."""
    found: set[str] = set()
    for start in range(0, len(names), _MOST_TABLES):
        parts = [
            f"SELECT {literal(name)} WHERE NOT EXISTS (SELECT 1 FROM main.{quoted(name)})"  # noqa: S608
            for name in names[start : start + _MOST_TABLES]
        ]
        rows = yield Command(" UNION ALL ".join(parts)), ()
        found.update(name for (name,) in rows)
    return found


class _Tables:
    """The objects of a schema, by kind.

    Attributes:
        sql: tables that count -> their stored text.
        options: of all tables.
    """

    def __init__(self, objects: Sequence[Sequence[Any]], kinds: Sequence[Sequence[Any]], modules: set[str]) -> None:
        self.objects = [row for row in objects if not is_own(row[0], row[1])]
        self.options = {
            name: tuple(word for word, set_ in (("strict", strict), ("without rowid", wr)) if set_)
            for name, kind, wr, strict in kinds
            if kind == "table"
        }
        strangers = tuple(
            f"{name}_"
            for kind, name, _, sql in objects
            if kind == "table" and sql.upper().startswith("CREATE VIRTUAL") and _module(sql) not in modules
        )
        self.sql = {
            name: sql
            for kind, name, _, sql in self.objects
            if kind == "table" and name in self.options and not name.startswith(strangers or "\0")
        }

    def _all(self, kind: str) -> Iterator[tuple[str, str, str]]:
        return ((name, table, sql) for found, name, table, sql in self.objects if found == kind and sql)

    def catalog(
        self, columns: Mapping[str, Sequence[Any]], keys: Mapping[str, Sequence[Any]], empty: set[str]
    ) -> Catalog:
        """Build it."""
        indexes: dict[str, dict[str, Index]] = {}
        for name, table, sql in self._all("index"):
            if table in self.sql and name in keys:
                declared = _collations(self.sql[table])
                names = {row[0].lower(): row[0] for row in columns[table]}
                indexes.setdefault(table, {})[name] = _index(name, sql, keys[name], names, declared)
        triggers: dict[str, dict[str, Trigger]] = {}
        for name, table, sql in self._all("trigger"):
            triggers.setdefault(table.lower(), {})[name] = Trigger(name, table, sql)
        tables = {
            name: _table(name, sql, columns[name], self.options[name], empty=name in empty)
            for name, sql in self.sql.items()
        }
        tables = resolved(tables)
        for name, found in tables.items():
            own, hung = indexes.get(name, {}), triggers.get(name.lower(), {})
            if own or hung:
                tables[name] = attrs.evolve(found, indexes=own, triggers=hung)
        return Catalog(tables, self._views(triggers))

    def _views(self, triggers: Mapping[str, Mapping[str, Trigger]]) -> dict[str, View]:
        names = {name.lower(): name for kind, name, _, _ in self.objects if kind in ("table", "view")}
        views = {}
        for name, _, sql in self._all("view"):
            read = names_in(sql) & names.keys() - {name.lower()}
            reads = tuple(sorted(names[found] for found in read))
            views[name] = View(name, sql, reads=reads, triggers=triggers.get(name.lower(), {}))
        return views


def _module(sql: str) -> str:
    words = [token for token, _, _ in tokens(sql)]
    place = next((place for place, word in enumerate(words) if word.upper() == "USING"), -1)
    return named(words[place + 1]) if place >= 0 else ""


def _collations(sql: str) -> dict[str, str]:
    return {item.column: item.collation for item in read_table(sql).items if item.column and item.collation}


def _table(name: str, sql: str, rows: Sequence[Any], options: tuple[str, ...], *, empty: bool) -> Table:
    text = read_table(sql)
    items = {item.column.lower(): item for item in text.items if item.column}
    counted = {item.counted.lower() for item in text.items if item.counted}
    alias = rowid_name(text.constraints, {row[0]: row[1] for row in rows}, options)
    columns = {}
    for column, kind, notnull, default, _, hidden in rows:
        item = items.get(column.lower(), _NOTHING)
        columns[column] = Column(
            column,
            kind.upper() if kind.isalnum() else normal_type(kind),
            not notnull and column != alias,
            default,
            item.generated,
            stored=hidden == 3,
            identity="autoincrement" if column.lower() in counted else "",
            collation=item.collation,
        )
    return Table(name, columns, text.constraints, options=options, sql=sql, empty=empty)


_NOTHING = Item("", "")


def rowid_name(constraints: Iterable[Constraint], types: Mapping[str, str], options: Sequence[str]) -> str | None:
    """Return the column that is another name of the rowid, if there is one."""
    key = next((found for found in constraints if found.kind == "primary key"), None)
    if key is None or len(key.columns) != 1 or "without rowid" in options:
        return None
    if key.definition.startswith("PRIMARY KEY DESC") or types.get(key.columns[0], "").upper() != "INTEGER":
        return None
    return key.columns[0]


def resolved(tables: Mapping[str, Table], others: Mapping[str, Table] | None = None) -> dict[str, Table]:
    """Return tables whose foreign keys name the columns that they refer to, also where the primary key is meant."""
    known = {table.name.lower(): table for table in [*(others or {}).values(), *tables.values()]}
    found = {}
    for name, table in tables.items():
        keys = {key: _resolved(key, known.get(key.target.lower())) for key in table.constraints if key.target}
        changed = any(key is not new for key, new in keys.items())
        found[name] = (
            attrs.evolve(table, constraints=ordered(keys.get(key, key) for key in table.constraints))
            if changed
            else table
        )
    return found


def _resolved(key: Constraint, target: Table | None) -> Constraint:
    if target is None or (key.remote and key.target == target.name):
        return key
    full = attrs.evolve(key, target=target.name, remote=key.remote or target.primary_key)
    if len(full.remote) != len(full.columns):
        return key
    return attrs.evolve(full, definition=foreign_key(full, deferred=key.definition.endswith(" DEFERRED")))


def _index(
    name: str, sql: str, keys: Sequence[Any], columns: Mapping[str, str], collations: Mapping[str, str]
) -> Index:
    text = read_index(sql, columns)
    parts = []
    for (cid, column, descending, collation), expression in zip(keys, text.keys, strict=True):
        own = collations.get(column, "BINARY") if cid >= 0 else "BINARY"
        written = quoted(column) if cid >= 0 else expression
        parts.append(
            IndexKey(written, bool(descending), collation=None if collation.upper() == own else collation.upper())
        )
    named_columns = tuple(column for cid, column, _, _ in keys if cid >= 0)
    return Index(name, tuple(parts), named_columns, unique=text.unique, where=text.where, definition=sql)
