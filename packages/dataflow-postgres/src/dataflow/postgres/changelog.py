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
from dataflow.dialect import COUNT, Command, Convert, Dialect, Program
from dataflow.model import LONGEST_NAME, ModelSpec

_SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
}
"""What makes the text of a value the same in every session, and exact."""
_AT = """to_char({0} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')"""
_KEPT = ("dataflow_audit", "dataflow_audit_purged", "dataflow_audit_checkpoint")
"""Tables that take rows and never change or lose them."""
_HASHED = ("prev", "seq", "at_text", "tbl", "record", "tenant", "actor", "run", "node", "action", "df_old", "df_new")


def _setting(name: str) -> str:
    return f"nullif(current_setting('dataflow.{name}', true), '')"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _append(schema: str, changes: str) -> str:
    """Return the INSERT that appends changes (tbl, record, tenant, action, df_old, df_new) to the log, hashed and numbered.

    A record's entries form a chain: the lock on its row lets one transaction at a time go on with it. Whoever comes
    with an older snapshot collides on (tbl, record, n), and is told to try again.
    """
    lengths = ", ':', ".join(f"length({name}::text)" for name in _HASHED)
    texts = ", ".join(_HASHED)
    return f"""\
INSERT INTO {schema}.dataflow_audit
    (seq, at, tbl, record, tenant, actor, run, node, action, old, new, n, hash)
SELECT seq, at, tbl, record, tenant, actor, run, node, action, df_old, df_new, n,
       encode(sha256(convert_to(concat({lengths}, '|', {texts}), 'UTF8')), 'hex')
FROM (SELECT c.*, nextval({_text(schema + ".dataflow_audit_seq_seq")}) AS seq, df_moment AS at,
             {_AT.format("df_moment")} AS at_text, coalesce(last[1]::bigint, 0) + 1 AS n, coalesce(last[2], '') AS prev,
             df_actor AS actor, df_run AS run, df_node AS node
      FROM (SELECT d.*, (SELECT ARRAY[a.n::text, a.hash] FROM {schema}.dataflow_audit a
                         WHERE a.tbl = d.tbl AND a.record = d.record ORDER BY a.n DESC LIMIT 1) AS last
            FROM ({changes}) d OFFSET 0) c
      OFFSET 0) e"""


_DECLARED = f"""\
DECLARE
    df_moment timestamptz := clock_timestamp();
    df_actor text := coalesce({_setting("actor")}, 'unknown');
    df_run text := {_setting("run")};
    df_node text := {_setting("node")};
    df_tenant text := {_setting("tenant")};"""


class _Columns:
    """How the columns of a table are written into the log, as SQL.

    Args:
        dialect: quotes names.
        model: the model.
        masked: fields whose values are not written.
    """

    def __init__(self, dialect: Dialect, model: ModelSpec, masked: Sequence[str]) -> None:
        self.quote = dialect.quote
        self.model = model
        self.types = {name: field.type for name, field in model.fields.items()}
        self.types |= {column.name: column.type for column in model.hidden}
        self.masked = frozenset(masked)

    def column(self, row: str, name: str) -> str:
        return f"{row}.{self.quote(name)}"

    def key(self, row: str) -> str:
        """Return the text that names a record."""
        return key_text([(self.types[name], self.column(row, name)) for name in self.model.row_key])

    def tenant(self, row: str) -> str:
        """Return the tenant that a row itself names, or that of the call."""
        if not self.model.scope:
            return "df_tenant"
        name = self.model.scope[0]
        return key_text([(self.types[name], self.column(row, name))])

    def image(self, row: str, changed_from: str = "") -> str:
        """Return the JSON of a row; `changed_from`: tell which masked fields differ from that row's."""
        pairs = [(name, self._value(name, self.column(row, name))) for name in self.types]
        if changed_from:
            pairs += [
                (f"${name}", f"{self.column(row, name)}::text IS DISTINCT FROM {self.column(changed_from, name)}::text")
                for name in self.types
                if name in self.masked
            ]
        groups = [pairs[start : start + _WIDEST] for start in range(0, len(pairs), _WIDEST)]
        text = ""
        for group in reversed(groups):
            parts = [f"{_text(name)}, {value}" for name, value in group]
            joined = ", ".join([*parts, *([f"'$more', {text}"] if text else [])])
            text = f"json_build_object({joined})"
        return f"{text}::text"

    def _value(self, name: str, column: str) -> str:
        if name in self.masked:
            return f"CASE WHEN {column} IS NOT NULL THEN '***' END"
        storage = self.types[name].storage
        if storage in ("int", "bool", "float"):
            return column
        return f"{column}::text[]" if storage == "array" else _readable(storage, column)

    def same_record(self, one: str, other: str) -> str:
        """Return whether two rows have one key."""
        return " AND ".join(f"{self.column(one, n)} = {self.column(other, n)}" for n in self.model.row_key)

    def differ(self, one: str, other: str) -> str:
        """Return whether any column differs between two rows, to the byte."""
        rows = [f"ROW({', '.join(self.column(row, name) for name in self.types)})::record" for row in (one, other)]
        return " OPERATOR(pg_catalog.*<>) ".join(rows)


_WIDEST = 45
"""Columns per JSON object: a function takes 100 arguments; what goes beyond is nested under `$more`."""
_READABLE = {
    "bytes": "encode({0}, 'hex')",
    "datetime": _AT,
    "date": "{0}::text",
}


def _readable(storage: str, column: str) -> str:
    return f"{column}::text" if storage == "datetime" else _READABLE.get(storage, "{0}::text").format(column)


def key_text(parts: Sequence[tuple[t.FieldType, str]]) -> str:
    """Return SQL for the text that names a record: its key, or the parts of one, each after its length."""
    texts = [_READABLE.get(kind.storage, "{0}::text").format(expression) for kind, expression in parts]
    if len(texts) == 1:
        return texts[0]
    return " || ',' || ".join(f"length({text}) || ':' || {text}" for text in texts)


def body(schema: str, columns: _Columns) -> str:
    """Return the body of the trigger function of a table."""
    table = _text(columns.model.table)
    key = columns.model.row_key[0]
    old, new = columns.column("o", key), columns.column("n", key)
    one_side = "SELECT {table}::text AS tbl, {key} AS record, {tenant} AS tenant, '{action}' AS action, {images} FROM {rows}"
    created = one_side.format(
        table=table, key=columns.key("n"), tenant=columns.tenant("n"), action="insert",
        images=f"NULL::text AS df_old, {columns.image('n')} AS df_new", rows="dataflow_new n",
    )  # fmt: skip
    deleted = one_side.format(
        table=table, key=columns.key("o"), tenant=columns.tenant("o"), action="delete",
        images=f"{columns.image('o')} AS df_old, NULL::text AS df_new", rows="dataflow_old o",
    )  # fmt: skip
    before = columns.image("o", "n") if columns.masked else columns.image("o")
    updated = f"""\
SELECT {table}::text AS tbl, CASE WHEN {new} IS NULL THEN {columns.key("o")} ELSE {columns.key("n")} END AS record,
       CASE WHEN {new} IS NULL THEN {columns.tenant("o")} ELSE {columns.tenant("n")} END AS tenant,
       CASE WHEN {old} IS NULL THEN 'insert' WHEN {new} IS NULL THEN 'delete' ELSE 'update' END AS action,
       CASE WHEN {old} IS NOT NULL THEN {before} END AS df_old,
       CASE WHEN {new} IS NOT NULL THEN {columns.image("n")} END AS df_new
FROM dataflow_old o FULL JOIN dataflow_new n ON {columns.same_record("o", "n")}
WHERE {old} IS NULL OR {new} IS NULL OR {columns.differ("o", "n")}"""
    return f"""
{_DECLARED}
BEGIN
    IF TG_OP = 'INSERT' THEN
{_append(schema, created)};
    ELSIF TG_OP = 'DELETE' THEN
{_append(schema, deleted)};
    ELSE
{_append(schema, updated)};
    END IF;
    RETURN NULL;
END """


_REFUSE = """
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END """
_REFUSE_DIRECT = """
BEGIN
    IF pg_trigger_depth() < 2 THEN
        RAISE EXCEPTION '% is written by triggers only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END """
_REFUSE_TRUNCATE = """
BEGIN
    RAISE EXCEPTION 'the table % is audited, so TRUNCATE is refused', TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege', HINT = 'DELETE FROM it instead';
END """


def _note(schema: str) -> str:
    change = (
        "SELECT ''::text AS tbl, NEW.record AS record, df_tenant AS tenant, NEW.action AS action, NULL::text AS df_old, "
        "NEW.new AS df_new"
    )
    return f"\n{_DECLARED}\nBEGIN\n{_append(schema, change)};\n    RETURN NULL;\nEND "


class ChangeLog(Dialect):
    """The part of the dialect that watches over changes."""

    log_source: ClassVar[str] = "dataflow_audit"
    log_at: ClassVar[str] = _AT.format("at")
    log_single: ClassVar[bool] = False
    log_chain: ClassVar[str] = "encode(sha256(convert_to(concat(length(tbl), ':', tbl, record), 'UTF8')), 'hex')"

    def _functions(self, schema: str) -> Mapping[str, str]:
        """Return the functions of the log itself: name -> body."""
        return {
            "dataflow_audit_kept": _REFUSE,
            "dataflow_audit_direct": _REFUSE_DIRECT,
            "dataflow_audit_truncate": _REFUSE_TRUNCATE,
            "dataflow_audit_noted": _note(schema),
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
        rows = yield Command(_WATCHING), (self.quote(model.table), function)
        return bool(rows and rows[0][0] == body(schema, _Columns(self, model, masked)))

    def watch(self, model: ModelSpec, masked: Sequence[str]) -> Program[None]:
        yield from self.log_create()
        schema = yield from self._here()
        columns = _Columns(self, model, masked)
        table, function = f"{schema}.{self.quote(model.table)}", f"{schema}.{self.quote(self._function_name(model))}"
        yield Command(_function(function, body(schema, columns), schema), COUNT, writes=True), ()
        yield Command(f"REVOKE ALL ON FUNCTION {function}() FROM PUBLIC", COUNT, writes=True), ()
        for what, tables in _TRANSITIONS.items():
            sql = (
                f"CREATE OR REPLACE TRIGGER dataflow_audit_{what} AFTER {what.upper()} ON {table} "
                f"REFERENCING {tables} FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
            )
            yield Command(sql, COUNT, writes=True), ()
        refuse = (
            f"CREATE OR REPLACE TRIGGER dataflow_audit_truncate BEFORE TRUNCATE ON {table} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {schema}.dataflow_audit_truncate()"
        )
        yield Command(refuse, COUNT, writes=True), ()
        for what in (*_TRANSITIONS, "truncate"):
            yield Command(f"ALTER TABLE {table} ENABLE TRIGGER dataflow_audit_{what}", COUNT, writes=True), ()
        yield from self._find(schema, columns)

    def _find(self, schema: str, columns: _Columns) -> Program[None]:
        """Record the rows that the log does not know as they are."""
        rows = yield Command(f"SELECT EXISTS (SELECT FROM {schema}.{self.quote(columns.model.table)})"), ()  # noqa: S608
        if not rows[0][0]:
            return
        table = _text(columns.model.table)
        changes = f"""\
SELECT * FROM (
    SELECT {table}::text AS tbl, {columns.key("r")} AS record, {columns.tenant("r")} AS tenant, 'found' AS action,
           (SELECT a.new FROM {schema}.dataflow_audit a WHERE a.tbl = {table} AND a.record = {columns.key("r")}
            ORDER BY a.n DESC LIMIT 1) AS df_old,
           {columns.image("r")} AS df_new
    FROM {schema}.{self.quote(columns.model.table)} r) f
WHERE df_old IS DISTINCT FROM df_new"""
        text = f"{_DECLARED}\nBEGIN\n{_append(schema, changes)};\nRETURN NULL;\nEND "
        finder = f"{schema}.dataflow_audit_found"
        yield Command(_function(finder, text, schema), COUNT, writes=True), ()
        trigger = f"BEFORE INSERT ON {schema}.dataflow_audit_note FOR EACH ROW EXECUTE FUNCTION {finder}()"
        yield Command(f"CREATE TRIGGER dataflow_audit_a_found {trigger}", COUNT, writes=True), ()
        insert = f"INSERT INTO {schema}.dataflow_audit_note (record, action) VALUES ('', '')"  # noqa: S608
        yield Command(insert, COUNT, writes=True), ()
        yield Command(f"DROP FUNCTION {finder} CASCADE", COUNT, writes=True), ()

    # -- the log itself ---------------------------------------------------------------------------------------------
    def log_present(self) -> Program[bool]:
        """Tell whether the log is there, and append-only."""
        rows = yield Command(_PRESENT), ()
        found = {(table, trigger): source for table, trigger, source in rows}
        if len(found) != len(_GUARDED):
            return False
        texts = self._functions((yield from self._here()))
        return all(found.get(place) == texts[function] for place, function in _GUARDED.items())

    def log_create(self) -> Program[None]:
        """Create the log and what keeps it append-only, where missing; all of it or nothing."""
        if (yield from self.log_present()):
            return
        schema = yield from self._here()
        statements = [text.format(schema=schema) for text in _TABLES]
        for name, text in self._functions(schema).items():
            statements += [
                _function(f"{schema}.{name}", text, schema),
                f"REVOKE ALL ON FUNCTION {schema}.{name}() FROM PUBLIC",
            ]
        for table in _KEPT:
            statements.append(
                f"CREATE OR REPLACE TRIGGER dataflow_audit_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON "
                f"{schema}.{table} FOR EACH STATEMENT EXECUTE FUNCTION {schema}.dataflow_audit_kept()"
            )
            statements.append(f"ALTER TABLE {schema}.{table} ENABLE TRIGGER dataflow_audit_kept")
        statements += [
            f"CREATE OR REPLACE TRIGGER dataflow_audit_direct BEFORE INSERT ON {schema}.dataflow_audit "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {schema}.dataflow_audit_direct()",
            f"ALTER TABLE {schema}.dataflow_audit ENABLE TRIGGER dataflow_audit_direct",
            f"CREATE OR REPLACE TRIGGER dataflow_audit_noted BEFORE INSERT ON {schema}.dataflow_audit_note "
            f"FOR EACH ROW EXECUTE FUNCTION {schema}.dataflow_audit_noted()",
            f"ALTER TABLE {schema}.dataflow_audit_note ENABLE TRIGGER dataflow_audit_noted",
        ]
        lock = "SELECT pg_advisory_xact_lock(7022315511034982)"
        yield Command(";\n".join([lock, *statements]), COUNT, writes=True), ()

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
        return key_text(parts)

    def log_parameter(self, position: int, kind: t.FieldType) -> str:
        """Return a placeholder for a stored value."""
        return self.typed_placeholder(position, self.column_type(kind))

    def log_member(self, image: str, name: str, place: int) -> str:
        """Return SQL for a member of an image, which is the one at that place, as text."""
        deeper = " -> '$more'" * (place // _WIDEST)
        return f"({image}::json{deeper} ->> {_text(name)})"

    def log_differences(self, model: ModelSpec, masked: Sequence[str]) -> Program[list[tuple[str, str]]]:
        """Return (record, "absent", "unknown" or "other") where the table is not as the log says."""
        settings = ", ".join(f"set_config({_text(name)}, {_text(value)}, true)" for name, value in _SETTINGS.items())
        yield Command(f"SELECT {settings}"), ()
        columns = _Columns(self, model, masked)
        table = _text(model.table)
        sql = f"""\
SELECT coalesce(h.record, l.record),
       CASE WHEN h.record IS NULL THEN 'absent' WHEN l.record IS NULL THEN 'unknown' ELSE 'other' END
FROM (SELECT {columns.key("r")} AS record, {columns.image("r")} AS image FROM {self.quote(model.table)} r) h
FULL JOIN (SELECT DISTINCT ON (record) record, new FROM dataflow_audit WHERE tbl = {table} ORDER BY record, n DESC) l
ON h.record = l.record WHERE l.new IS DISTINCT FROM h.image"""
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


def _function(name: str, text: str, schema: str) -> str:
    settings = " ".join(f"SET {key} = {_text(value)}" for key, value in _SETTINGS.items())
    return (
        f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER "
        f"SET search_path = pg_catalog, {schema}, pg_temp {settings} SET enable_nestloop = off SET jit = off "
        f"AS $dataflow${text}$dataflow$"
    )


_TRANSITIONS = {
    "insert": "NEW TABLE AS dataflow_new",
    "update": "OLD TABLE AS dataflow_old NEW TABLE AS dataflow_new",
    "delete": "OLD TABLE AS dataflow_old",
}
_TABLES = (
    """\
CREATE TABLE IF NOT EXISTS {schema}.dataflow_audit (
    seq bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL,
    tbl text COLLATE "C" NOT NULL, record text COLLATE "C" NOT NULL, tenant text, actor text NOT NULL, run text,
    node text, action text NOT NULL, old text, new text, n bigint NOT NULL, hash text NOT NULL)""",
    "CREATE UNIQUE INDEX IF NOT EXISTS uq_dataflow_audit_record ON {schema}.dataflow_audit (tbl, record, n)",
    """\
CREATE TABLE IF NOT EXISTS {schema}.dataflow_audit_purged (
    seq bigint PRIMARY KEY, chain text NOT NULL, n bigint NOT NULL, hash text NOT NULL, purge bigint NOT NULL)""",
    "CREATE TABLE IF NOT EXISTS {schema}.dataflow_audit_checkpoint (number bigint PRIMARY KEY, body text NOT NULL)",
    "CREATE TABLE IF NOT EXISTS {schema}.dataflow_audit_note (record text NOT NULL, action text NOT NULL, new text)",
)
_GUARDED: Mapping[tuple[str, str], str] = {
    **{(table, "dataflow_audit_kept"): "dataflow_audit_kept" for table in _KEPT},
    ("dataflow_audit", "dataflow_audit_direct"): "dataflow_audit_direct",
    ("dataflow_audit_note", "dataflow_audit_noted"): "dataflow_audit_noted",
}
"""The triggers of the log itself: (table, trigger) -> function."""
_PRESENT = """\
SELECT relname::text, tgname::text, prosrc FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
JOIN pg_proc ON pg_proc.oid = tgfoid
WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND tgenabled = 'O' AND tgname IN (
    'dataflow_audit_kept', 'dataflow_audit_direct', 'dataflow_audit_noted')"""
_WATCHING = """\
SELECT max(prosrc) FILTER (WHERE proname = $2) FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid
WHERE tgrelid = to_regclass(quote_ident(current_schema()) || '.' || $1) AND tgenabled = 'O'
      AND (proname = $2 AND tgname IN ('dataflow_audit_insert', 'dataflow_audit_update', 'dataflow_audit_delete')
           OR tgname = 'dataflow_audit_truncate')
HAVING count(*) = 4"""
