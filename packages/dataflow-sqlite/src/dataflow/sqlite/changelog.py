"""The change log of a SQLite database: triggers that record every change, and the seals that say who made it.

The triggers of the tables use nothing but SQLite itself, so that any tool can go on writing: what it changes is
recorded with the actor 'unknown'. The connections of the framework have a TEMP trigger besides, which gives each entry
its seal in the same statement: tenant, actor, run, node, and a hash that chains it to the entry before.
"""

import hashlib
import json
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from dataflow import types as t
from dataflow.changelog import WatchedColumn, columns_of, columns_to_watch, read_columns, write_columns
from dataflow.dialect import COUNT, Command, Convert, Dialect, Program
from dataflow.model import ModelSpec

NOW = "(strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000+00:00')"
MASK = "'***'"
_WIDEST = 40
"""Columns per JSON object: SQLite's functions take 100 arguments; what goes beyond is nested under `$more`."""
_TABLES = (
    f"""\
CREATE TABLE IF NOT EXISTS dataflow_audit (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL DEFAULT {NOW}, tbl TEXT NOT NULL, record TEXT NOT NULL,
    tenant TEXT, action TEXT NOT NULL, old TEXT, new TEXT) STRICT""",
    "CREATE INDEX IF NOT EXISTS ix_dataflow_audit_record ON dataflow_audit (tbl, record, seq)",
    """\
CREATE TABLE IF NOT EXISTS dataflow_audit_seal (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT, actor TEXT NOT NULL, run TEXT, node TEXT, hash TEXT NOT NULL)
STRICT""",
    """\
INSERT INTO dataflow_audit_seal (seq, actor, hash)
SELECT 0, '', '' WHERE NOT EXISTS (SELECT 1 FROM dataflow_audit_seal)""",
    """\
CREATE TABLE IF NOT EXISTS dataflow_audit_purged (
    seq INTEGER PRIMARY KEY, chain TEXT NOT NULL, n INTEGER NOT NULL, hash TEXT NOT NULL, purge INTEGER NOT NULL)
STRICT""",
    "CREATE TABLE IF NOT EXISTS dataflow_audit_checkpoint (number INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT",
    """\
CREATE VIEW IF NOT EXISTS dataflow_audit_entries AS
SELECT e.seq, e.at, e.tbl, e.record, coalesce(e.tenant, s.tenant) AS tenant, coalesce(s.actor, 'unknown') AS actor,
       s.run, s.node, e.action, e.old, e.new, e.seq AS n, s.hash
FROM dataflow_audit e LEFT JOIN dataflow_audit_seal s ON s.seq = e.seq""",
    """\
CREATE VIEW IF NOT EXISTS dataflow_audit_last AS
SELECT s.seq, s.hash, (SELECT min(e.seq) FROM dataflow_audit e WHERE e.seq > s.seq) AS first
FROM dataflow_audit_seal s ORDER BY s.seq DESC LIMIT 1""",
    """\
CREATE VIEW IF NOT EXISTS dataflow_audit_unsealed AS
SELECT e.seq, e.at, e.tbl, e.record, e.tenant, e.action, e.old, e.new, l.hash AS given, l.first
FROM dataflow_audit e, dataflow_audit_last l WHERE e.seq > l.seq""",
)
"""Views, not subqueries: an authorizer is told the name of a view, so that it knows who looks at the log."""
KEPT = ("dataflow_audit", "dataflow_audit_seal", "dataflow_audit_purged", "dataflow_audit_checkpoint")
"""Tables that take rows and never change or lose them."""


def _kept(table: str) -> dict[str, str]:
    """Return the triggers that make a table append-only: name -> SQL."""
    number = "number" if table.endswith("checkpoint") else "seq"
    refuse = f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
    twice = f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {number} = NEW.{number})"  # noqa: S608  # INSERT OR REPLACE
    whens = {"update": "BEFORE UPDATE", "delete": "BEFORE DELETE", "insert": "BEFORE INSERT"}
    return {
        f"{table}_no_{what}": f"CREATE TRIGGER {table}_no_{what} {when} ON {table} "
        f"{twice + ' ' if what == 'insert' else ''}{refuse}"
        for what, when in whens.items()
    }


GUARDS: Mapping[str, str] = {name: sql for table in KEPT for name, sql in _kept(table).items()}

_SEALED = """\
INSERT INTO dataflow_audit_seal (seq, tenant, actor, run, node, hash)
SELECT seq, coalesce(tenant, {tenant}), coalesce({actor}, 'unknown'), {run}, {node},
       df_audit_hash(seq = first, given, seq, at, tbl, record, coalesce(tenant, {tenant}), coalesce({actor}, 'unknown'),
                     {run}, {node}, action, old, new)
FROM dataflow_audit_unsealed ORDER BY seq"""
_CONTEXT = ("tenant", "actor", "run", "node")
_COMPLETE = Command(_SEALED.format(**dict.fromkeys(_CONTEXT, "NULL")), COUNT, writes=True)
_OWN = {name: f"CASE seq WHEN NEW.seq THEN df_audit_context('{name}') END" for name in _CONTEXT}
_SEALING = (
    "CREATE TEMP TRIGGER IF NOT EXISTS dataflow_audit_sealing AFTER INSERT ON main.dataflow_audit BEGIN "
    f"{_SEALED.format(**_OWN)}; END"
)
_RECURSIVE = "PRAGMA recursive_triggers = ON"  # else REPLACE removes rows without a trigger
_PRESENT = "SELECT count(*) FROM main.sqlite_master WHERE name = 'dataflow_audit_unsealed'"
_LACKS_SEALING = Command(
    f"SELECT ({_PRESENT}) AND NOT (SELECT query_only FROM pragma_query_only) AND NOT EXISTS "  # noqa: S608
    "(SELECT 1 FROM sqlite_temp_master WHERE name = 'dataflow_audit_sealing')"
)


def digest(prev: str, *columns: Any) -> str:
    """Hash an entry: SHA-256 of the lengths of all columns, then their texts; NULL has no length."""
    texts = [None if column is None else str(column) for column in (prev, *columns)]
    lengths = ":".join("" if text is None else str(len(text)) for text in texts)
    return hashlib.sha256(f"{lengths}|{''.join(text or '' for text in texts)}".encode()).hexdigest()


class _Chain:
    """Hashes the entries of one statement, each after the one before."""

    def __init__(self) -> None:
        self.hash = ""

    def __call__(self, first: int, given: str, *columns: Any) -> str:
        self.hash = digest(given if first else self.hash, *columns)
        return self.hash


def attach(raw: sqlite3.Connection, context: Callable[[], Mapping[str, str]]) -> None:
    """Give a connection what its seals need; where the database has a change log, seal what it writes from now on.

    Args:
        raw: the connection.
        context: says what it knows of the call it serves.
    """
    raw.create_function("df_audit_context", 1, lambda name: context().get(name) or None)
    raw.create_function("df_audit_hash", 13, _Chain())
    if raw.execute(_LACKS_SEALING.sql).fetchone()[0]:
        raw.execute(_RECURSIVE)
        raw.execute(_SEALING)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


class _Columns:
    """How the columns of a table are written into the log, as SQL.

    Args:
        model: the model.
        watched: columns, of the model and of other releases of it.
        strict: whether the table is STRICT, so that each column holds values of its type only.
    """

    def __init__(self, model: ModelSpec, watched: Sequence[WatchedColumn], *, strict: bool) -> None:
        self.model = model
        self.watched = watched
        self.storage = {column.name: column.storage for column in watched}
        self.masked = frozenset(column.name for column in watched if column.masked)
        self.strict = strict

    def key(self, row: str) -> str:
        """Return the text that names a record."""
        return key_text([(self.model.fields[name].type, self._column(row, name)) for name in self.model.row_key])

    def tenant(self, row: str) -> str:
        """Return the tenant that a row itself names, or NULL."""
        if not self.model.scope:
            return "NULL"
        name = self.model.scope[0]
        return key_text([(self.model.fields[name].type, self._column(row, name))])

    def image(self, row: str, changed_from: str = "") -> str:
        """Return the JSON of a row; `changed_from`: tell which masked fields differ from that row's."""
        pairs = [(name, self._value(name, self._column(row, name))) for name in self.storage]
        if changed_from:
            pairs += [
                (f"${name}", f"{self._column(row, name)} IS NOT {self._column(changed_from, name)}")
                for name in self.storage
                if name in self.masked
            ]
        return _json_object(pairs, "" if self.strict else ", '$typed', 1")

    def differ(self, one: str, other: str) -> str:
        """Return whether any column differs between two rows."""
        return " OR ".join(
            f"{self._column(one, name)} IS NOT {self._column(other, name)} COLLATE BINARY" for name in self.storage
        )

    def moved(self, one: str, other: str) -> str:
        """Return whether the key differs between two rows."""
        return " OR ".join(
            f"{self._column(one, name)} IS NOT {self._column(other, name)} COLLATE BINARY"
            for name in self.model.row_key
        )

    def _column(self, row: str, name: str) -> str:
        quoted = '"' + name.replace('"', '""') + '"'
        return f"{row}.{quoted}" if row else quoted

    def _value(self, name: str, column: str) -> str:
        if name in self.masked:
            return f"CASE WHEN {column} IS NOT NULL THEN {MASK} END"
        storage = self.storage[name]
        if self.strict:
            written = _EXACTLY.get(storage, "")
            return f"CASE WHEN {column} IS NOT NULL THEN {written.format(column)} END" if written else column
        reals = "('real', 'integer')" if storage == "float" else "('real')"  # SQLite keeps 700.0 as an integer
        return (
            f"CASE WHEN typeof({column}) IN {reals} THEN 'r' || {_EXACTLY['float'].format(column)} "
            f"WHEN typeof({column}) = 'blob' THEN 'b' || hex({column}) "
            f"WHEN {column} IS NOT NULL THEN substr(typeof({column}), 1, 1) || {column} END"
        )


_EXACTLY = {"float": "printf('%!.20e', {0})", "bytes": "hex({0})"}
"""What JSON would round or refuse; quote() has too few digits for other readers of numbers."""


def _json_object(pairs: Sequence[tuple[str, str]], mark: str = "") -> str:
    head, more = pairs[:_WIDEST], pairs[_WIDEST:]
    parts = [f"{_text(name)}, {value}" for name, value in head]
    if more:
        parts.append(f"'$more', {_json_object(more)}")
    return f"json_object({', '.join(parts)}{mark})"


def key_text(parts: Sequence[tuple[t.FieldType, str]]) -> str:
    """Return SQL for the text that names a record: its key, or the parts of one, each after its length."""
    texts = [f"CAST({_EXACTLY.get(kind.storage, '{0}').format(expression)} AS TEXT)" for kind, expression in parts]
    if len(texts) == 1:
        return texts[0]
    return " || ',' || ".join(f"length({text}) || ':' || {text}" for text in texts)


def triggers(columns: _Columns) -> dict[str, str]:
    """Return the triggers of a table: name -> SQL, as SQLite keeps it."""
    table, quoted = columns.model.table, '"' + columns.model.table.replace('"', '""') + '"'
    entry = "INSERT INTO dataflow_audit (tbl, record, tenant, action, old, new) VALUES"

    def values(action: str, row: str, old: str, new: str) -> str:
        return f"{entry} ({_text(table)}, {columns.key(row)}, {columns.tenant(row)}, '{action}', {old}, {new});"

    old, new = columns.image("OLD"), columns.image("NEW")
    created, deleted = values("insert", "NEW", "NULL", new), values("delete", "OLD", old, "NULL")
    updated = values("update", "NEW", columns.image("OLD", "NEW") if columns.masked else old, new)
    moved = columns.moved("OLD", "NEW")
    bodies = {
        "insert": f"AFTER INSERT ON {quoted} BEGIN {write_columns(columns.watched)} {created} END",
        "update": f"AFTER UPDATE ON {quoted} WHEN NOT ({moved}) AND ({columns.differ('OLD', 'NEW')}) "
        f"BEGIN {updated} END",
        "move": f"AFTER UPDATE ON {quoted} WHEN {moved} BEGIN {deleted} {created} END",
        "delete": f"AFTER DELETE ON {quoted} BEGIN {deleted} END",
    }
    prefix = f"dataflow_audit_{table}_"
    names = {what: '"' + f"{prefix}{what}".replace('"', '""') + '"' for what in bodies}
    return {f"{prefix}{what}": f"CREATE TRIGGER {names[what]} {body}" for what, body in bodies.items()}


_UNSPEAKABLE = re.compile(r'["\\\x00-\x1f]')
"""What a JSON path cannot name."""


def _extracted(image: str, path: Sequence[str]) -> str:
    if any(map(_UNSPEAKABLE.search, path)):
        return f"json_extract(df_json_member({image}, {_text(json.dumps(path))}), '$')"
    place = "$" + "".join(f'."{part}"' for part in path)
    return f"json_extract({image}, {_text(place)})"


_TRIGGER = "SELECT sql FROM main.sqlite_master WHERE type = 'trigger' AND tbl_name = ? AND name = ?"


class ChangeLog(Dialect):
    """The part of the dialect that watches over changes."""

    log_source: ClassVar[str] = "dataflow_audit_entries"
    log_at: ClassVar[str] = "at"
    log_single: ClassVar[bool] = True
    log_chain: ClassVar[str] = "''"

    def _watching(self, model: ModelSpec, masked: Sequence[str]) -> Program[_Columns]:
        rows = yield Command("SELECT strict FROM pragma_table_list(?)"), (model.table,)
        strict = bool(rows and rows[0][0])
        there = yield Command("SELECT name FROM pragma_table_xinfo(?)"), (model.table,)
        kept = yield Command(_TRIGGER), (model.table, f"dataflow_audit_{model.table}_insert")
        known = read_columns(kept[0][0]) if kept else []
        return _Columns(
            model, columns_to_watch(columns_of(model, masked), known, {name for (name,) in there}), strict=strict
        )

    def watched(self, model: ModelSpec, masked: Sequence[str]) -> Program[bool]:
        wanted = {**triggers((yield from self._watching(model, masked))), **GUARDS}
        rows = yield Command("SELECT name, sql FROM main.sqlite_master WHERE type = 'trigger'"), ()
        return wanted.items() <= dict(rows).items() and (yield from self.log_present())

    def watch(self, model: ModelSpec, masked: Sequence[str]) -> Program[None]:
        yield from self.log_create()
        columns = yield from self._watching(model, masked)
        rows = yield Command("SELECT name, sql FROM main.sqlite_master WHERE type = 'trigger'"), ()
        present = dict(rows)
        for name, sql in triggers(columns).items():
            if present.get(name) != sql:
                if name in present:
                    quoted = '"' + name.replace('"', '""') + '"'
                    yield Command(f"DROP TRIGGER {quoted}", COUNT, writes=True), ()
                yield Command(sql, COUNT, writes=True), ()
        yield from self._find(columns)

    def _find(self, columns: _Columns) -> Program[None]:
        """Record the rows that the log does not know as they are, and those that it knows and are not there."""
        table, quoted = _text(columns.model.table), self.quote(columns.model.table)
        known = (
            f"(SELECT e.new FROM dataflow_audit e WHERE e.tbl = {table} AND e.record = {columns.key('r')} "  # noqa: S608
            "ORDER BY e.seq DESC LIMIT 1)"
        )
        sql = (
            "INSERT INTO dataflow_audit (tbl, record, tenant, action, old, new) "  # noqa: S608
            f"SELECT {table}, {columns.key('r')}, {columns.tenant('r')}, 'found', {known}, {columns.image('r')} "
            f"FROM {quoted} r WHERE {known} IS NOT {columns.image('r')}"
        )
        yield Command(sql, COUNT, writes=True), ()
        sql = (
            "INSERT INTO dataflow_audit (tbl, record, tenant, action, old, new) "  # noqa: S608
            "SELECT e.tbl, e.record, e.tenant, 'found', e.new, NULL FROM dataflow_audit e JOIN (SELECT max(seq) AS seq "
            f"FROM dataflow_audit WHERE tbl = {table} GROUP BY record) l ON l.seq = e.seq "
            f"WHERE e.new IS NOT NULL AND e.record NOT IN (SELECT {columns.key('r')} FROM {quoted} r)"
        )
        yield Command(sql, COUNT, writes=True), ()

    # -- the log itself ---------------------------------------------------------------------------------------------
    def log_present(self) -> Program[bool]:
        """Tell whether the log is there."""
        rows = yield Command(_PRESENT), ()
        return bool(rows[0][0])

    def log_create(self) -> Program[None]:
        """Create the log and what keeps it append-only, where missing."""
        for sql in _TABLES:
            yield Command(sql, COUNT, writes=True), ()
        for sql in GUARDS.values():
            yield Command(sql.replace("TRIGGER", "TRIGGER IF NOT EXISTS", 1), COUNT, writes=True), ()
        yield from self.log_ready()

    def log_ready(self) -> Program[None]:
        """Let a connection seal what it writes, where the log came later than the connection."""
        rows = yield _LACKS_SEALING, ()
        if rows[0][0]:
            yield Command(_RECURSIVE, COUNT), ()
            yield Command(_SEALING, COUNT, writes=True), ()

    def log_note(self, action: str, subject: str, new: str) -> Program[None]:
        """Append an entry about no record."""
        sql = "INSERT INTO dataflow_audit (tbl, record, action, new) VALUES ('', ?, ?, ?)"
        yield Command(sql, COUNT, writes=True), (subject, action, new)

    def log_complete(self) -> Program[None]:
        """Seal the entries that others wrote."""
        yield _COMPLETE, ()

    def log_settled(self) -> Program[None]:
        """Do nothing: the transaction that asks is the only one that writes."""
        yield from ()

    def log_counters(self) -> Program[tuple[int | None, int | None]]:
        """Return the numbers that were given last to an entry and to a seal."""
        sql = (
            "SELECT (SELECT seq FROM sqlite_sequence WHERE name = 'dataflow_audit'), "
            "(SELECT seq FROM sqlite_sequence WHERE name = 'dataflow_audit_seal')"
        )
        rows = yield Command(sql), ()
        return rows[0][0] or 0, rows[0][1] or 0

    def log_unsealed(self) -> Program[list[int]]:
        """Return the entries without a seal that are older than one with, and the seals without an entry."""
        sql = (
            "SELECT e.seq FROM dataflow_audit e LEFT JOIN dataflow_audit_seal s ON s.seq = e.seq "
            "WHERE s.seq IS NULL AND e.seq < (SELECT max(seq) FROM dataflow_audit_seal) UNION ALL "
            "SELECT s.seq FROM dataflow_audit_seal s LEFT JOIN dataflow_audit e ON e.seq = s.seq "
            "WHERE e.seq IS NULL AND (s.seq > 0 OR s.hash <> '' OR s.actor <> '') ORDER BY 1"
        )
        rows = yield Command(sql), ()
        return [row[0] for row in rows]

    def log_key(self, parts: Sequence[tuple[t.FieldType, str]]) -> str:
        """Return SQL for the text that names a record, given SQL for the parts of its key."""
        return key_text(parts)

    def log_parameter(self, position: int, kind: t.FieldType) -> str:
        """Return a placeholder for a stored value."""
        del position, kind
        return "?"

    def log_member(self, image: str, name: str, place: int) -> str:
        """Return SQL for a member of an image, which is the one at that place, as text."""
        found = [_extracted(image, [*["$more"] * deep, name]) for deep in range(place // _WIDEST + 2)]
        return f"CAST(coalesce({', '.join(found)}) AS TEXT)"

    def log_differences(self, model: ModelSpec, masked: Sequence[str]) -> Program[list[tuple[str, str]]]:
        """Return (record, "absent", "unknown" or "other") where the table is not as the log says."""
        columns = yield from self._watching(model, masked)
        table, quoted = _text(model.table), self.quote(model.table)
        last = (
            "SELECT e.record, e.new FROM dataflow_audit e JOIN (SELECT max(seq) AS seq FROM dataflow_audit "  # noqa: S608
            f"WHERE tbl = {table} GROUP BY record) l ON l.seq = e.seq"
        )
        sql = (
            f"WITH last AS MATERIALIZED ({last}), here AS MATERIALIZED (SELECT {columns.key('r')} AS record, "  # noqa: S608
            f"{columns.image('r')} AS image FROM {quoted} r) "
            "SELECT h.record, CASE WHEN l.record IS NULL THEN 'unknown' ELSE 'other' END FROM here h "
            "LEFT JOIN last l ON l.record = h.record WHERE l.new IS NOT h.image UNION ALL "
            "SELECT l.record, 'absent' FROM last l "
            "WHERE l.new IS NOT NULL AND l.record NOT IN (SELECT record FROM here)"
        )
        rows = yield Command(sql), ()
        return [tuple(row) for row in rows]

    def log_purge(self, purge: int) -> Program[None]:
        """Remove the entries of a purge, whose stubs are written; the guards stand aside for it."""
        stubs = "SELECT seq FROM dataflow_audit_purged WHERE purge = ?"
        for table in ("dataflow_audit", "dataflow_audit_seal"):
            name = f"{table}_no_delete"
            yield Command(f"DROP TRIGGER {name}", COUNT, writes=True), ()
            yield Command(f"DELETE FROM {table} WHERE seq IN ({stubs})", COUNT, writes=True), (purge,)  # noqa: S608
            yield Command(GUARDS[name], COUNT, writes=True), ()

    def log_read(self, image: str) -> dict[str, Any]:
        """Read an image: name -> value in the form of its column, or marks that begin with ``$``."""
        found: dict[str, Any] = json.loads(image)
        while "$more" in found:
            found |= found.pop("$more")
        if found.pop("$typed", 0):
            return {name: _typed(value) for name, value in found.items()}
        return found

    def log_value(self, kind: t.FieldType) -> Convert | None:
        """Return what turns a value of an image into the driver's; None for identity."""
        if kind.storage == "float":
            return _float
        return _bytes if kind.storage == "bytes" else _plain


class _Typed(str):
    """A text of a table that is not STRICT, in whatever column it stands."""

    __slots__ = ()


def _plain(value: Any) -> Any:
    return str.__str__(value) if type(value) is _Typed else value


def _float(value: Any) -> Any:
    return float(value) if type(value) is str else _plain(value)


def _bytes(value: Any) -> Any:
    return bytes.fromhex(value) if type(value) is str else _plain(value)


def _typed(value: Any) -> Any:
    if not isinstance(value, str) or value == "***":
        return value
    readers: dict[str, Convert] = {"i": int, "r": float, "b": bytes.fromhex, "t": _Typed}
    return readers[value[0]](value[1:])
