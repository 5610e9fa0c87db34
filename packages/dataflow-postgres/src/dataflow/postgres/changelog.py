"""The change log of a PostgreSQL schema: statement triggers that record every change, each in its record's hash chain.

One function per table, called once per statement with all the rows it changed, so that twenty thousand rows cost one
INSERT … SELECT. Joins of old and new rows are kept from nested loops: a plan that was cached for one row would take
minutes for many. The function runs as its owner with settings of its own, whatever the session has set.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID
from zlib import crc32

from dataflow import types as t
from dataflow.changelog import columns_of, columns_to_watch, read_columns
from dataflow.dialect import COUNT, Command, Convert, Dialect, Program
from dataflow.model import LONGEST_NAME, ModelSpec
from dataflow.postgres import changelog_sql as texts
from dataflow.postgres.confinement import Confining


class ChangeLog(Dialect):
    """The part of the dialect that watches over changes."""

    alone: bool
    log_source: ClassVar[str] = "dataflow_audit"
    log_at: ClassVar[str] = texts.AT.format("at")
    log_single: ClassVar[bool] = False
    log_chain: ClassVar[str] = "encode(sha256(convert_to(concat(length(tbl), ':', tbl, record), 'UTF8')), 'hex')"

    def _functions(self, schema: str) -> Mapping[str, str]:
        """Return the functions of the log itself: name -> body."""
        return {
            "dataflow_audit_kept": texts.REFUSE,
            "dataflow_audit_direct": texts.REFUSE_DIRECT,
            "dataflow_audit_truncate": texts.REFUSE_TRUNCATE,
            "dataflow_audit_noted": texts.note(schema),
        }

    def _function_name(self, model: ModelSpec) -> str:
        name = f"dataflow_audit_of_{model.table}"
        if len(name.encode()) <= LONGEST_NAME:
            return name
        kept = name.encode()[: LONGEST_NAME - 9].decode(errors="ignore")
        return f"{kept}_{crc32(name.encode()):08x}"

    def _here(self) -> Program[str]:
        rows = yield Command("SELECT current_schema()"), ()
        return self.quote(rows[0][0])

    def watched(self, model: ModelSpec, masked: Sequence[str]) -> Program[bool]:
        if not (yield from self.log_present()):
            return False
        schema = yield from self._here()
        function = self._function_name(model)
        rows = yield Command(texts.WATCHING), (self.quote(model.table), function)
        if not rows or rows[0][0] != texts.body(schema, (yield from self._watching(model, masked))):
            return False
        role = yield from self._confined_role()
        if role is None:
            return True
        rows = yield Command(texts.READER), (role,)
        return bool(rows) and tuple(rows[0]) == (True, True, 1)

    def _watching(self, model: ModelSpec, masked: Sequence[str]) -> Program[texts.Columns]:
        rows = yield Command(texts.WATCHER), (self.quote(model.table), self._function_name(model))
        known = read_columns(rows[0][0]) if rows else []
        there = {column.name for column in (yield from self.list_columns(model.table))}
        return texts.Columns(self, model, columns_to_watch(columns_of(model, masked), known, there))

    def _confined_role(self) -> Program[str | None]:
        """Return the role of connections that are confined to a tenant; None where there are none."""
        if not isinstance(self, Confining):
            return None
        found = yield from self._known()
        return None if found is None else found.role

    def watch(self, model: ModelSpec, masked: Sequence[str]) -> Program[None]:
        yield from self.log_create()
        schema = yield from self._here()
        columns = yield from self._watching(model, masked)
        table, function = f"{schema}.{self.quote(model.table)}", f"{schema}.{self.quote(self._function_name(model))}"
        yield Command(texts.function(function, texts.body(schema, columns), schema), COUNT, writes=True), ()
        yield Command(f"REVOKE ALL ON FUNCTION {function}() FROM PUBLIC", COUNT, writes=True), ()
        wanted = {what: f"AFTER {what.upper()} ON {table} REFERENCING {t}" for what, t in texts.TRANSITIONS.items()}
        for what, when in wanted.items():
            yield from self._trigger(f"dataflow_audit_{what}", table, when, function)
        when = f"BEFORE TRUNCATE ON {table}"
        yield from self._trigger("dataflow_audit_truncate", table, when, f"{schema}.dataflow_audit_truncate")
        role = yield from self._confined_role()
        if role is not None:
            for sql in texts.reader(schema, self.quote(role)):
                yield Command(sql, COUNT, writes=True), ()
            ((comment,),) = yield Command(texts.READER_SIGNED), ()
            comment = f"COMMENT ON POLICY dataflow_audit_reader ON {schema}.dataflow_audit IS '{comment}'"
            yield Command(comment, COUNT, writes=True), ()
        yield from self._find(schema, columns)

    @staticmethod
    def _trigger(name: str, table: str, when: str, function: str) -> Program[None]:
        for sql in texts.trigger(name, table, when, function):
            yield Command(sql, COUNT, writes=True), ()

    def _find(self, schema: str, columns: texts.Columns) -> Program[None]:
        """Record the rows that the log does not know as they are, and those that it knows and are not there."""
        table, log = texts.literal(columns.model.table), f"{schema}.dataflow_audit"
        here = f"{schema}.{self.quote(columns.model.table)}"
        known = f"EXISTS (SELECT FROM {here}) OR EXISTS (SELECT FROM {log} WHERE tbl = {table})"  # noqa: S608
        rows = yield Command(f"SELECT {known}"), ()
        if not rows[0][0]:
            return
        changes = f"""\
SELECT * FROM (
    SELECT {table}::text AS tbl, {columns.key("r")} AS record, {columns.tenant("r")} AS tenant, 'found' AS action,
           (SELECT a.new FROM {log} a WHERE a.tbl = {table} AND a.record = {columns.key("r")}
            ORDER BY a.n DESC LIMIT 1) AS df_old,
           {columns.image("r")} AS df_new
    FROM {here} r
    UNION ALL
    SELECT a.tbl, a.record, a.tenant, 'found', a.new, NULL
    FROM (SELECT DISTINCT ON (record) * FROM {log} WHERE tbl = {table} ORDER BY record, n DESC) a
    WHERE NOT EXISTS (SELECT FROM {here} r WHERE {columns.key("r")} = a.record)) f
WHERE df_old IS DISTINCT FROM df_new"""  # noqa: S608
        text = f"{texts.DECLARED}\nBEGIN\n{texts.append(schema, changes)};\nRETURN NULL;\nEND "
        finder = f"{schema}.dataflow_audit_found"
        yield Command(texts.function(finder, text, schema), COUNT, writes=True), ()
        trigger = f"BEFORE INSERT ON {schema}.dataflow_audit_note FOR EACH ROW EXECUTE FUNCTION {finder}()"
        yield Command(f"CREATE TRIGGER dataflow_audit_a_found {trigger}", COUNT, writes=True), ()
        insert = f"INSERT INTO {schema}.dataflow_audit_note (record, action) VALUES ('', '')"  # noqa: S608
        yield Command(insert, COUNT, writes=True), ()
        yield Command(f"DROP FUNCTION {finder} CASCADE", COUNT, writes=True), ()

    # -- the log itself ---------------------------------------------------------------------------------------------
    def log_present(self) -> Program[bool]:
        """Tell whether the log is there, and append-only."""
        rows = yield Command(texts.PRESENT), ()
        found = {(table, trigger): source for table, trigger, source in rows}
        if len(found) != len(texts.GUARDED):
            return False
        bodies = self._functions((yield from self._here()))
        return all(found.get(place) == bodies[function] for place, function in texts.GUARDED.items())

    def log_create(self) -> Program[None]:
        """Create the log and what keeps it append-only, where missing; all of it or nothing."""
        if (yield from self.log_present()):
            return
        schema = yield from self._here()
        statements = [text.format(schema=schema) for text in texts.TABLES]
        for name, text in self._functions(schema).items():
            statements += [
                texts.function(f"{schema}.{name}", text, schema),
                f"REVOKE ALL ON FUNCTION {schema}.{name}() FROM PUBLIC",
            ]
        for table in texts.KEPT:
            when = f"BEFORE UPDATE OR DELETE OR TRUNCATE ON {schema}.{table}"
            kept = f"{schema}.dataflow_audit_kept"
            statements += texts.trigger("dataflow_audit_kept", f"{schema}.{table}", when, kept)
        log, note = f"{schema}.dataflow_audit", f"{schema}.dataflow_audit_note"
        statements += texts.trigger("dataflow_audit_direct", log, f"BEFORE INSERT ON {log}", f"{log}_direct")
        noted = f"{schema}.dataflow_audit_noted"
        statements += texts.trigger("dataflow_audit_noted", note, f"BEFORE INSERT ON {note}", noted, each="ROW")
        if not self.alone:
            statements.insert(0, "SELECT pg_advisory_xact_lock(7022315511034982)")
        yield Command(";\n".join(statements), COUNT, writes=True), ()

    def log_note(self, action: str, subject: str, new: str) -> Program[None]:
        """Append an entry about no record."""
        sql = "INSERT INTO dataflow_audit_note (record, action, new) VALUES ($1, $2, $3)"
        yield Command(sql, COUNT, writes=True), (subject, action, new)

    def log_complete(self) -> Program[None]:
        """Do nothing: whoever writes, the entries are complete."""
        yield from ()

    def log_settled(self) -> Program[None]:
        """Wait until no transaction that wrote entries is open, and let none begin until this one ends."""
        yield Command("LOCK TABLE dataflow_audit IN SHARE ROW EXCLUSIVE MODE", COUNT, writes=True), ()

    def log_counters(self) -> Program[tuple[int | None, int | None]]:
        """Return nothing that would tell of missing entries: numbers of transactions that were undone are gone."""
        yield from ()
        return None, None

    def log_unsealed(self) -> Program[list[int]]:
        """Return nothing: an entry holds its own seal."""
        yield from ()
        return []

    def log_key(self, parts: Sequence[tuple[t.FieldType, str]]) -> str:
        """Return SQL for the text that names a record, given SQL for the parts of its key."""
        return texts.key_text(parts)

    def log_parameter(self, position: int, kind: t.FieldType) -> str:
        """Return a placeholder for a stored value."""
        return self.typed_placeholder(position, self.column_type(kind))

    def log_member(self, image: str, name: str, place: int) -> str:
        """Return SQL for a member of an image, which is the one at that place, as text."""
        deeper = [" -> '$more'" * deep for deep in range(place // texts.WIDEST + 2)]
        return f"coalesce({', '.join(f'{image}::json{path} ->> {texts.literal(name)}' for path in deeper)})"

    def log_differences(self, model: ModelSpec, masked: Sequence[str]) -> Program[list[tuple[str, str]]]:
        """Return (record, "absent", "unknown" or "other") where the table is not as the log says."""
        settings = ", ".join(
            f"set_config({texts.literal(name)}, {texts.literal(value)}, true)" for name, value in texts.SETTINGS.items()
        )
        yield Command(f"SELECT {settings}"), ()
        columns = yield from self._watching(model, masked)
        table = texts.literal(model.table)
        sql = f"""\
SELECT coalesce(h.record, l.record),
       CASE WHEN h.record IS NULL THEN 'absent' WHEN l.record IS NULL THEN 'unknown' ELSE 'other' END
FROM (SELECT {columns.key("r")} AS record, {columns.image("r")} AS image FROM {self.quote(model.table)} r) h
FULL JOIN (SELECT DISTINCT ON (record) record, new FROM dataflow_audit WHERE tbl = {table} ORDER BY record, n DESC) l
ON h.record = l.record WHERE l.new IS DISTINCT FROM h.image"""  # noqa: S608
        rows = yield Command(sql), ()
        return [tuple(row) for row in rows]

    def log_purge(self, purge: int) -> Program[None]:
        """Remove the entries of a purge, whose stubs are written; the guards stand aside for it."""
        yield Command("ALTER TABLE dataflow_audit DISABLE TRIGGER dataflow_audit_kept", COUNT, writes=True), ()
        sql = "DELETE FROM dataflow_audit WHERE seq IN (SELECT seq FROM dataflow_audit_purged WHERE purge = $1)"
        yield Command(sql, COUNT, writes=True), (purge,)
        yield Command("ALTER TABLE dataflow_audit ENABLE TRIGGER dataflow_audit_kept", COUNT, writes=True), ()

    def log_read(self, image: str) -> dict[str, Any]:
        """Read an image: name -> value in the form of its column, or marks that begin with ``$``."""
        found: dict[str, Any] = json.loads(image)
        while "$more" in found:
            found |= found.pop("$more")
        return found

    def log_value(self, kind: t.FieldType) -> Convert | None:
        """Return what turns a value of an image into the driver's; None for identity."""
        if isinstance(kind, t.ArrayType):
            item = _FROM_TEXT.get(kind.item.storage)
            return None if item is None else lambda values: [None if v is None else item(v) for v in values]
        if kind.storage == "bytes":
            return bytes.fromhex
        return None if kind.storage in ("int", "bool") else _FROM_TEXT.get(kind.storage)


def _instant(text: str) -> datetime:
    if text in _INFINITE:  # as the driver reads them
        return datetime.max if text == "infinity" else datetime.min  # noqa: DTZ901
    value = datetime.fromisoformat(text)
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def _day(text: str) -> date:
    if text in _INFINITE:
        return date.max if text == "infinity" else date.min
    return date.fromisoformat(text)


_INFINITE = ("infinity", "-infinity")
_FROM_TEXT: Mapping[str, Callable[[Any], Any]] = {
    "int": int,
    "float": float,
    "bool": lambda text: text == "true",
    "bytes": lambda text: bytes.fromhex(text.removeprefix("\\x")),
    "datetime": _instant,
    "date": _day,
    "time": time.fromisoformat,
    "decimal": Decimal,
    "uuid": UUID,
}
