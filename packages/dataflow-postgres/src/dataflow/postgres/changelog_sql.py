"""The texts of the change log: its tables, trigger functions, and how a row is written into it.

Whoever changes `append` changes the rule of the hash, which `dataflow.enterprise.audit.chain` verifies.
"""

from collections.abc import Mapping, Sequence

from dataflow import types as t
from dataflow.changelog import WatchedColumn, write_columns
from dataflow.dialect import Dialect
from dataflow.model import ModelSpec

SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
}
"""What makes the text of a value the same in every session, and exact."""
AT = """to_char({0} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')"""
KEPT = ("dataflow_audit", "dataflow_audit_purged", "dataflow_audit_checkpoint")
"""Tables that take rows and never change or lose them."""
_HASHED = ("prev", "seq", "at_text", "tbl", "record", "tenant", "actor", "run", "node", "action", "df_old", "df_new")


def _setting(name: str) -> str:
    return f"nullif(current_setting('dataflow.{name}', true), '')"


def literal(value: str) -> str:
    """Write a text literal."""
    return "'" + value.replace("'", "''") + "'"


def append(schema: str, changes: str) -> str:
    """Return the INSERT that appends changes to the log, numbered and hashed.

    A record's entries form a chain: the lock on its row lets one transaction at a time go on with it. Whoever comes
    with an older snapshot collides on (tbl, record, n).

    Args:
        schema: quoted.
        changes: SELECT of tbl, record, tenant, action, df_old, df_new.
    """
    lengths = ", ':', ".join(f"length({name}::text)" for name in _HASHED)
    texts = ", ".join(_HASHED)
    return f"""\
INSERT INTO {schema}.dataflow_audit
    (seq, at, tbl, record, tenant, actor, run, node, action, old, new, n, hash)
SELECT seq, at, tbl, record, tenant, actor, run, node, action, df_old, df_new, n,
       encode(sha256(convert_to(concat({lengths}, '|', {texts}), 'UTF8')), 'hex')
FROM (SELECT c.*, nextval({literal(schema + ".dataflow_audit_seq_seq")}) AS seq, df_moment AS at,
             {AT.format("df_moment")} AS at_text, coalesce(last[1]::bigint, 0) + 1 AS n, coalesce(last[2], '') AS prev,
             df_actor AS actor, df_run AS run, df_node AS node
      FROM (SELECT d.*, (SELECT ARRAY[a.n::text, a.hash] FROM {schema}.dataflow_audit a
                         WHERE a.tbl = d.tbl AND a.record = d.record ORDER BY a.n DESC LIMIT 1) AS last
            FROM ({changes}) d OFFSET 0) c
      OFFSET 0) e"""  # noqa: S608


DECLARED = f"""\
DECLARE
    df_moment timestamptz := clock_timestamp();
    df_actor text := coalesce({_setting("actor")}, 'unknown');
    df_run text := {_setting("run")};
    df_node text := {_setting("node")};
    df_tenant text := {_setting("tenant")};"""


class Columns:
    """How the columns of a table are written into the log, as SQL.

    Args:
        dialect: quotes names.
        model: the model.
        watched: columns, of the model and of other releases of it.
    """

    def __init__(self, dialect: Dialect, model: ModelSpec, watched: Sequence[WatchedColumn]) -> None:
        self.quote = dialect.quote
        self.model = model
        self.watched = watched
        self.storage = {column.name: column.storage for column in watched}
        self.masked = frozenset(column.name for column in watched if column.masked)

    def column(self, row: str, name: str) -> str:
        """Return a column of a row."""
        return f"{row}.{self.quote(name)}"

    def key(self, row: str) -> str:
        """Return the text that names a record."""
        return key_text([(self.model.fields[name].type, self.column(row, name)) for name in self.model.row_key])

    def tenant(self, row: str) -> str:
        """Return the tenant that a row itself names, or that of the call."""
        if not self.model.scope:
            return "df_tenant"
        name = self.model.scope[0]
        return key_text([(self.model.fields[name].type, self.column(row, name))])

    def image(self, row: str, changed_from: str = "") -> str:
        """Return the JSON of a row; `changed_from`: tell which masked fields differ from that row's."""
        pairs = [(name, self._value(name, self.column(row, name))) for name in self.storage]
        if changed_from:
            pairs += [
                (f"${name}", f"{self.column(row, name)}::text IS DISTINCT FROM {self.column(changed_from, name)}::text")
                for name in self.storage
                if name in self.masked
            ]
        groups = [pairs[start : start + WIDEST] for start in range(0, len(pairs), WIDEST)]
        text = ""
        for group in reversed(groups):
            parts = [f"{literal(name)}, {value}" for name, value in group]
            joined = ", ".join([*parts, *([f"'$more', {text}"] if text else [])])
            text = f"json_build_object({joined})"
        return f"{text}::text"

    def _value(self, name: str, column: str) -> str:
        if name in self.masked:
            return f"CASE WHEN {column} IS NOT NULL THEN '***' END"
        storage = self.storage[name]
        if storage in ("int", "bool", "float"):
            return column
        if storage == "bytes":
            return f"encode({column}, 'hex')"
        return f"{column}::text[]" if storage == "array" else f"{column}::text"

    def same_record(self, one: str, other: str) -> str:
        """Return whether two rows have one key."""
        return " AND ".join(f"{self.column(one, n)} = {self.column(other, n)}" for n in self.model.row_key)

    def differ(self, one: str, other: str) -> str:
        """Return whether any column differs between two rows, to the byte."""
        rows = [f"ROW({', '.join(self.column(row, name) for name in self.storage)})::record" for row in (one, other)]
        return " OPERATOR(pg_catalog.*<>) ".join(rows)


WIDEST = 45
"""Columns per JSON object: a function takes 100 arguments; what goes beyond is nested under `$more`."""
_READABLE = {
    "bytes": "encode({0}, 'hex')",
    "datetime": AT,
}
"""How the parts of a key are written, where ``::text`` would depend on the session."""


def key_text(parts: Sequence[tuple[t.FieldType, str]]) -> str:
    """Return SQL for the text that names a record: its key, or the parts of one, each after its length."""
    texts = [_READABLE.get(kind.storage, "{0}::text").format(expression) for kind, expression in parts]
    if len(texts) == 1:
        return texts[0]
    return " || ',' || ".join(f"length({text}) || ':' || {text}" for text in texts)


def body(schema: str, columns: Columns) -> str:
    """Return the body of the trigger function of a table."""
    table = literal(columns.model.table)
    key = columns.model.row_key[0]
    old, new = columns.column("o", key), columns.column("n", key)
    one_side = (
        "SELECT {table}::text AS tbl, {key} AS record, {tenant} AS tenant, '{action}' AS action, {images} FROM {rows}"
    )
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
WHERE {old} IS NULL OR {new} IS NULL OR {columns.differ("o", "n")}"""  # noqa: S608
    return f"""
{DECLARED}
BEGIN
    {write_columns(columns.watched)}
    IF TG_OP = 'INSERT' THEN
{append(schema, created)};
    ELSIF TG_OP = 'DELETE' THEN
{append(schema, deleted)};
    ELSE
{append(schema, updated)};
    END IF;
    RETURN NULL;
END """


REFUSE = """
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END """
REFUSE_DIRECT = """
BEGIN
    IF pg_trigger_depth() < 2 THEN
        RAISE EXCEPTION '% is written by triggers only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END """
REFUSE_TRUNCATE = """
BEGIN
    RAISE EXCEPTION 'the table % is audited, so TRUNCATE is refused', TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege', HINT = 'DELETE FROM it instead';
END """


def note(schema: str) -> str:
    """Return the body of the function that appends an entry about no record."""
    change = (
        "SELECT ''::text AS tbl, NEW.record AS record, df_tenant AS tenant, NEW.action AS action, "
        "NULL::text AS df_old, NEW.new AS df_new"
    )
    return f"\n{DECLARED}\nBEGIN\n{append(schema, change)};\n    RETURN NULL;\nEND "


def function(name: str, text: str, schema: str) -> str:
    """Return the statement that makes a trigger function."""
    settings = " ".join(f"SET {key} = {literal(value)}" for key, value in SETTINGS.items())
    return (
        f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER "
        f"SET search_path = pg_catalog, {schema}, pg_temp {settings} SET enable_nestloop = off SET jit = off "
        f"AS $dataflow${text}$dataflow$"
    )


def trigger(name: str, table: str, when: str, function: str, *, each: str = "STATEMENT") -> list[str]:
    """Return the statements that make a trigger anew."""
    return [
        f"DROP TRIGGER IF EXISTS {name} ON {table}",
        f"CREATE TRIGGER {name} {when} FOR EACH {each} EXECUTE FUNCTION {function}()",
    ]


TRANSITIONS = {
    "insert": "NEW TABLE AS dataflow_new",
    "update": "OLD TABLE AS dataflow_old NEW TABLE AS dataflow_new",
    "delete": "OLD TABLE AS dataflow_old",
}
TABLES = (
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
GUARDED: Mapping[tuple[str, str], str] = {
    **{(table, "dataflow_audit_kept"): "dataflow_audit_kept" for table in KEPT},
    ("dataflow_audit", "dataflow_audit_direct"): "dataflow_audit_direct",
    ("dataflow_audit_note", "dataflow_audit_noted"): "dataflow_audit_noted",
}
"""The triggers of the log itself: (table, trigger) -> function."""
PRESENT = """\
SELECT relname::text, tgname::text, prosrc FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
JOIN pg_proc ON pg_proc.oid = tgfoid
WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND tgenabled = 'O' AND tgname IN (
    'dataflow_audit_kept', 'dataflow_audit_direct', 'dataflow_audit_noted')"""
WATCHING = """\
SELECT max(prosrc) FILTER (WHERE proname = $2) FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid
WHERE tgrelid = to_regclass(quote_ident(current_schema()) || '.' || $1) AND tgenabled = 'O'
      AND (proname = $2 AND tgname IN ('dataflow_audit_insert', 'dataflow_audit_update', 'dataflow_audit_delete')
           OR tgname = 'dataflow_audit_truncate')
HAVING count(*) = 4"""
WATCHER = """\
SELECT prosrc FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid
WHERE tgrelid = to_regclass(quote_ident(current_schema()) || '.' || $1) AND proname = $2 LIMIT 1"""
READER = """\
SELECT has_table_privilege($1::name, 'dataflow_audit', 'SELECT')
       AND NOT has_table_privilege($1::name, 'dataflow_audit', 'INSERT') AND relrowsecurity,
       (SELECT concat('dataflow:', md5(pg_get_expr(polqual, polrelid))) = obj_description(pg_policy.oid, 'pg_policy')
        FROM pg_policy WHERE polrelid = pg_class.oid AND polname = 'dataflow_audit_reader' AND polcmd = 'r'
              AND polroles = ARRAY[to_regrole(quote_ident($1::name))::oid]),
       (SELECT count(*) FROM pg_policy WHERE polrelid = pg_class.oid)
FROM pg_class WHERE pg_class.oid = to_regclass(quote_ident(current_schema()) || '.dataflow_audit')"""
"""Whether a confined role may read the log, and of its tenant only: (privileges, policy, number of policies)."""
READER_SIGNED = """\
SELECT concat('dataflow:', md5(pg_get_expr(polqual, polrelid))) FROM pg_policy
WHERE polrelid = to_regclass(quote_ident(current_schema()) || '.dataflow_audit')
      AND polname = 'dataflow_audit_reader'"""


def reader(schema: str, role: str) -> list[str]:
    """Return what lets a confined role read the entries of its tenant; names are quoted."""
    log = f"{schema}.dataflow_audit"
    own = f"tenant = (SELECT {schema}.dataflow_tenant())"
    return [
        f"GRANT SELECT ON {log} TO {role}",
        f"ALTER TABLE {log} ENABLE ROW LEVEL SECURITY",  # the owner passes, and with it the triggers
        f"DROP POLICY IF EXISTS dataflow_audit_reader ON {log}",
        f"CREATE POLICY dataflow_audit_reader ON {log} FOR SELECT TO {role} USING ({own})",
    ]
