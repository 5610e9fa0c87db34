"""SQL of the user's own, kept within one tenant by the database itself.

The framework's own statements name `main."orders"` and are left alone. A statement of the user's own finds temporary
views (`enclosure`) in place of the tables of several tenants, and an authorizer refuses every way past them. What the
authorizer cannot tell by itself it knows from the words of the statement: SQLite's identifiers have no escapes, so a
name that a statement does not utter is one that it does not mean.
"""

import re
import sqlite3
import string
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

from dataflow.errors import DataFlowError, QueryError, UniqueError
from dataflow.model import ModelSpec
from dataflow.sqlite.enclosure import COLUMNS, INNER, OUTLAWED, RESERVED, UNIQUE, WRITER, Table, quoted
from dataflow.sqlite.functions import take_fault

_IDENTIFIER = re.compile(r"[A-Za-z0-9_$\x80-\U0010ffff]+")
_VERB = re.compile(r"(?:[\s;\ufeff]|--[^\n]*(?:\n|$)|/\*.*?(?:\*/|$))*([A-Za-z]*)", re.DOTALL)
_VERBS = frozenset({"select", "values", "with", "insert", "replace", "update", "delete", "explain"})
_FOLD = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
"""What SQLite takes for the same letter in names."""
_SYSTEM = frozenset({"dbstat", "bytecode", "tables_used", "completion", "fsdir", "zipfile"})
"""Tables that SQLite or its shell may bring along, and that tell of more than one's own rows."""
_FORBIDDEN = frozenset(
    {"load_extension", "last_insert_rowid", "changes", "total_changes", "df_counted", "fts3_tokenizer", "sqlite_offset"}
)
"""Functions that reach beyond the statement, or tell what the connection did for others."""
_HARMLESS = frozenset(
    {
        "count", "sum", "total", "avg", "min", "max", "group_concat", "string_agg", "row_number", "rank", "dense_rank",
        "percent_rank", "cume_dist", "ntile", "lag", "lead", "first_value", "last_value", "nth_value", "coalesce",
        "ifnull", "nullif", "iif", "if", "typeof", "length", "lower", "upper", "substr", "substring", "trim", "ltrim",
        "rtrim", "instr", "round", "likely", "unlikely", "likelihood", "date", "time", "datetime", "julianday",
        "unixepoch", "current_date", "current_time", "current_timestamp", "df_tenant",
    }
)  # fmt: skip
"""Functions that fail for no value: those of rows in a condition, those of groups after it."""
_ROWID = frozenset({"rowid", "_rowid_", "oid"})
_REACHED = ("main", None)


@attrs.frozen
class _Text:
    """A statement of the user's own, as far as its words tell what it does.

    Attributes:
        sql: as it goes to SQLite: no trusted statement has the same text, nor one that was read when less was known.
        words: everything in it that could be a name, in lower case.
        tables: tables of several tenants that it may mean, in lower case.
        walled: whether its conditions must wait until the views have chosen their rows.
        past: whether it may mean a view or virtual table that leads past ours.
    """

    sql: str
    words: frozenset[str]
    tables: tuple[str, ...]
    walled: bool
    past: bool


class Confinement:
    """What keeps one connection within the tenant it serves.

    Args:
        models: the registered models, as they grow.
        tenant: tells the tenant that the connection serves; None shows no rows.
        reads_only: whether the connection is kept from writing.
    """

    def __init__(
        self, models: Callable[[], Iterable[ModelSpec]], tenant: Callable[[], str | None], *, reads_only: bool
    ) -> None:
        self._models = models
        self._tenant = tenant
        self._reads_only = reads_only
        self._number = 0  # of what was found in the schema
        self._counts = (-1, -1, -1)  # models, and the versions of the schemas of main and temp
        self._tables: dict[str, Table] = {}  # of registered models, by their names in lower case
        self._strange: set[str] = set()  # enclosed by somebody, but of no registered model
        self._plain: set[str] = set()  # tables that are neither views nor virtual
        self._leading: set[str] = set()  # views and virtual tables that lead to tables of several tenants
        self._triggers: set[str] = set()  # of the file: whoever may change the schema wrote them
        self._writers: dict[str, str] = {}
        self._cascades: set[str] = set()
        self._views: dict[str, bool] = {}  # the views that stand, and whether they are walled
        self._texts: dict[str, _Text] = {}
        self._walled: set[str] = set()  # statements that need it
        self._now: _Text | None = None
        self._fresh = False  # whether the schema was looked at for the statement under way
        self._deep = False  # whether a trigger of ours began to write
        self._refusal = ""
        self._counted = self._total = 0

    def attach(self, raw: sqlite3.Connection) -> None:
        """Begin to watch over a new connection."""
        raw.create_function("df_tenant", 0, self._tenant, deterministic=True)  # one value per statement
        raw.create_function("df_counted", 1, self._count)
        for function in ("json_each", "json_tree"):  # later, their first use would look like a change of the schema
            raw.execute(f"SELECT 1 FROM {function}('[]')").fetchall()  # noqa: S608
        raw.set_authorizer(self._authorize)

    def lift(self, raw: sqlite3.Connection) -> None:
        """Take the views away, for a session with all privileges."""
        if self._views or self._version(raw, "temp") != self._counts[2]:
            self._drop_views(raw)

    def run(self, raw: sqlite3.Connection, sql: str, arguments: Sequence[Any]) -> Any:
        """Run a statement of the user's own; return (column names, rows, rows changed).

        Raises:
            QueryError: it would reach past the tenant (code "confined").
        """
        known = self._texts.get(sql) if len(list(self._models())) == self._counts[0] else None
        if known is not None and all(self._views.get(table) is known.walled for table in known.tables):
            try:
                return self._execute(raw, known, arguments)
            except sqlite3.Error as error:
                if self._refusal != "stale":
                    self._explain(error)
                    raise
        try:
            return self._execute(raw, self._settle(raw, sql), arguments, fresh=True)
        except sqlite3.Error as error:
            if self._refusal != "unsafe":
                self._explain(error)
                raise
        self._walled.add(sql)
        try:
            return self._execute(raw, self._settle(raw, sql), arguments, fresh=True)
        except sqlite3.Error as error:
            self._explain(error)
            raise

    def _execute(self, raw: sqlite3.Connection, text: _Text, arguments: Sequence[Any], *, fresh: bool = False) -> Any:
        self._refusal = ""
        self._counted, self._total = 0, raw.total_changes
        before = self._total
        self._now, self._fresh, self._deep = text, fresh, False
        take_fault()  # what another tenant's statement may have left
        try:
            cursor = raw.execute(text.sql, arguments)
            rows = cursor.fetchall()
        finally:
            self._now = None
        changed = cursor.rowcount
        if self._counted:
            changed = self._counted
        elif changed < 0 and raw.total_changes > before:  # sqlite3 does not count where it begins with WITH
            changed = int(raw.execute("SELECT changes()").fetchone()[0])
        return [column[0] for column in cursor.description or ()], rows, changed

    def _count(self, total: int) -> None:
        """Count a row that a trigger of ours has changed; SQLite does not count rows of views."""
        if total > self._total:
            self._counted += 1
        self._total = total

    # -- statements -----------------------------------------------------------------------------------------------
    def _settle(self, raw: sqlite3.Connection, sql: str) -> _Text:
        """Look at the schema as it is now, read a statement, and put up the views that it needs."""
        self._refresh(raw)
        text = self._texts.get(sql)
        if text is None or (sql in self._walled and not text.walled):
            if len(self._texts) >= 512:
                self._texts.clear()
                self._walled &= {sql}
            text = self._texts[sql] = self._read(sql)
        wrong = [table for table in text.tables if self._views.get(table) is not text.walled]
        if wrong:
            self._put_up(raw, wrong, walled=text.walled)
        return text

    def _read(self, sql: str) -> _Text:
        folded = sql.translate(_FOLD)
        verb = _VERB.match(folded)
        if verb is None or verb[1] not in _VERBS:
            raise _refused("statement")
        found = _IDENTIFIER.findall(folded)
        words = frozenset(found)
        if any(word.startswith(RESERVED) for word in words):
            raise _refused("system")
        tables = tuple(_mentioned(self._tables, words, folded))
        past = bool(_mentioned(self._leading, words, folded))
        walled = bool(tables) and (sql in self._walled or self._judges(found, sql))
        return _Text(f"/* {self._number} */ {sql}", words, tables, walled, past)

    def _judges(self, words: Sequence[str], sql: str) -> bool:
        """Tell whether conditions might fail, or take their time, for some rows: then they must see none of others.

        A condition without a query inside, that neither joins texts nor calls any but harmless functions (which the
        authorizer sees), compares values: it may be merged with the view's own, and use an index with it.
        """
        outer = "update" in words or "delete" in words  # has conditions, and no SELECT before them
        inside = words.count("select") - (not outer)
        return inside > 0 or "||" in sql or "collate" in words

    def _explain(self, error: sqlite3.Error) -> None:
        """Raise what an error means if it comes from what keeps the statement within its tenant."""
        text = str(error)
        word = self._refusal or (text.removeprefix(OUTLAWED) if text.startswith(OUTLAWED) else "")
        if not word and "UPSERT a view" in text:
            word = "upsert"
        if not word and "because it is a view" in text:
            word = "no-writer"
        if word:
            raise _refused(word) from error

    # -- the schema -----------------------------------------------------------------------------------------------
    def _version(self, raw: sqlite3.Connection, schema: str) -> int:
        return int(raw.execute(f"PRAGMA {schema}.schema_version").fetchone()[0])

    def _refresh(self, raw: sqlite3.Connection) -> None:
        """Learn what has changed since the last look: models, the file, or views that went with a rollback."""
        specs = list(self._models())
        found = len(specs), self._version(raw, "main"), self._version(raw, "temp")
        if found == self._counts:
            return
        if found[:2] != self._counts[:2]:
            self._counts = (-1, -1, -1)  # until it is known again
            self._scan(raw, specs)
        self._drop_views(raw)
        self._counts = (*found[:2], self._counts[2])

    def _scan(self, raw: sqlite3.Connection, specs: Iterable[ModelSpec]) -> None:
        self._number += 1
        self._texts.clear()
        rows = raw.execute("SELECT type, name, sql FROM main.sqlite_master WHERE sql IS NOT NULL").fetchall()
        self._triggers = {name for kind, name, _ in rows if kind == "trigger"}
        self._writers = {name: sql for _, name, sql in rows if name.startswith(WRITER)}
        self._tables = {}
        for spec in specs:
            if spec.scope:
                columns, unique = (raw.execute(sql, (spec.table,)).fetchall() for sql in (COLUMNS, UNIQUE))
                table = Table.found(spec.table, spec.scope[0], spec.primary_key, columns, unique)
                self._tables[_folded(spec.table)] = table
        self._strange = {
            _folded(name[len(WRITER) : -len("_insert")]) for name in self._writers if name.endswith("_insert")
        }
        self._strange -= self._tables.keys()
        derived = {
            _folded(name): sql.translate(_FOLD)
            for kind, name, sql in rows
            if (kind == "view" and not name.startswith(RESERVED)) or sql.translate(_FOLD).startswith("create virtual")
        }
        names = {_folded(name) for kind, name, _ in rows if kind == "table"}
        self._leading = _leading(derived, {*self._tables, *self._strange}, names)
        self._leading |= {n for n, sql in derived.items() if any(w.startswith(RESERVED) for w in _words(sql))}
        self._plain = names - derived.keys()
        self._cascades = self._safe_cascades(raw)

    def _safe_cascades(self, raw: sqlite3.Connection) -> set[str]:
        """Return the tables that only rows of the same tenant carry along when they are deleted or change their key."""
        sql = 'SELECT id, "table", "from", "to", on_update <> \'NO ACTION\' OR on_delete <> \'NO ACTION\' FROM %s'
        source = sql % "pragma_foreign_key_list(?, 'main')"
        keys: dict[str, dict[int, tuple[str, set[tuple[str, str]]]]] = {}
        for name in self._plain:
            for number, parent, column, target, acts in raw.execute(source, (name,)):
                if acts:
                    pairs = keys.setdefault(name, {}).setdefault(number, (_folded(parent), set()))[1]
                    pairs.add((_folded(column), _folded(target or "")))

        def safe(name: str) -> bool:
            own = _folded(self._tables[name].tenant)
            return all(
                (own, _folded(self._tables[parent].tenant)) in pairs if parent in self._tables else parent not in keys
                for parent, pairs in keys.get(name, {}).values()
            )

        return {name for name in self._tables if safe(name)}

    @contextmanager
    def _changing(self, raw: sqlite3.Connection) -> Iterator[None]:
        """Change the temporary schema, all of it or nothing, also where nothing may be written."""
        sealed = raw.execute("PRAGMA query_only").fetchone()[0]
        if sealed:
            raw.execute("PRAGMA query_only = OFF")
        try:
            raw.execute("SAVEPOINT dataflow_views")
            try:
                yield
            except BaseException:
                if raw.in_transaction:
                    raw.execute("ROLLBACK TO dataflow_views")
                raise
            finally:
                if raw.in_transaction:
                    raw.execute("RELEASE dataflow_views")
        finally:
            if sealed:
                raw.execute("PRAGMA query_only = ON")

    def _drop_views(self, raw: sqlite3.Connection) -> None:
        found = raw.execute("SELECT name FROM sqlite_temp_master WHERE type = 'view'").fetchall()
        if found:
            with self._changing(raw):
                for (name,) in found:
                    raw.execute(f"DROP VIEW temp.{quoted(name)}")
        self._views = {}
        self._counts = (*self._counts[:2], self._version(raw, "temp"))

    def _put_up(self, raw: sqlite3.Connection, tables: Iterable[str], *, walled: bool) -> None:
        with self._changing(raw):
            for name in tables:
                table = self._tables[name]
                inner, *outer = table.views(walled=walled)
                if name in self._views:
                    raw.execute(f"DROP VIEW temp.{quoted(table.inner)}")
                    raw.execute(inner)
                    continue
                for sql in (inner, *outer):
                    raw.execute(sql)
                if not self._reads_only and self._writable(table):
                    for sql in table.triggers():
                        raw.execute(sql)
        self._views |= dict.fromkeys(tables, walled)
        self._counts = (*self._counts[:2], self._version(raw, "temp"))

    def _writable(self, table: Table) -> bool:
        return table.tenant in table.columns and table.permanent().items() <= self._writers.items()

    # -- the authorizer -------------------------------------------------------------------------------------------
    def _authorize(
        self, action: int, one: str | None, other: str | None, schema: str | None, source: str | None
    ) -> int:
        """Say whether a statement that is being prepared may do something; `source`: the view or trigger that does."""
        if self._now is None:  # the framework's own
            wrong = source is not None and source.startswith(INNER)
            return sqlite3.SQLITE_DENY if wrong else sqlite3.SQLITE_OK
        reason = self._judge(self._now, action, one or "", other or "", schema, source) if self._fresh else "stale"
        if not reason:
            return sqlite3.SQLITE_OK
        self._refusal = self._refusal or reason
        return sqlite3.SQLITE_DENY

    def _judge(self, now: _Text, action: int, one: str, other: str, schema: str | None, source: str | None) -> str:
        """Return why something is refused, or ""."""
        if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE):
            return ""
        if action == sqlite3.SQLITE_PRAGMA:  # full-text search looks at it
            return "" if one == "data_version" and not other else "statement"
        ours = source is not None and source.startswith(INNER)
        trusted = source is not None and self._trusts(now, source)
        if action in (sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE):
            self._deep = self._deep or ours
            return "" if trusted else self._writing(now, action, _folded(one), other, schema, source)
        if trusted and action in (sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION):
            return ""
        if action == sqlite3.SQLITE_READ:
            return self._reading(now, _folded(one), other, schema, source)
        if action == sqlite3.SQLITE_FUNCTION:
            name = _folded(other)
            if name in _FORBIDDEN or name.startswith("df_audit_"):
                return "function"
            return "unsafe" if now.tables and not now.walled and name not in _HARMLESS else ""
        return "statement"

    def _trusts(self, now: _Text, source: str) -> bool:
        """Tell whether a view or trigger is the framework's or a trigger of the file, and nothing that is called so."""
        if source.startswith(RESERVED):  # no statement of the user's own utters that
            return True
        return source in self._triggers and not _mentioned((_folded(source),), now.words, now.sql)

    def _reading(self, now: _Text, name: str, column: str, schema: str | None, source: str | None) -> str:
        if name in ("sqlite_master", "sqlite_schema"):
            return "" if schema in _REACHED else "system"
        if name.startswith(INNER):  # on behalf of the outer view
            return ""
        if self._is_system(name):
            return "system"
        if name in self._leading:
            return self._led(now, name)
        if name in self._tables:
            if schema == "temp":
                return "rowid" if column == "ROWID" else ""
            if schema is None and not column:  # count(*) of what the statement calls so: the view, or a CTE
                return "" if name in now.tables and name in self._views and not now.past else "past"
            return "" if self._carried(now, source) else "past"
        if name in self._strange:
            return "strange"
        return "unsafe" if now.tables and not now.walled and name not in self._plain else ""

    def _writing(self, now: _Text, action: int, name: str, column: str, schema: str | None, source: str | None) -> str:
        if name == "sqlite_master" and schema == "main" and action == sqlite3.SQLITE_UPDATE:
            # so it looks when a virtual table is first used
            return "system" if any(word.startswith("sqlite_") for word in now.words) else ""
        if self._is_system(name):
            return "system"
        if name in self._leading:
            return self._led(now, name)
        if name in self._strange:
            return "strange"
        if name not in self._tables:
            return ""
        if schema != "temp":
            return "" if name in self._cascades and self._carried(now, source) else "past"
        if column == "ROWID" or (
            action == sqlite3.SQLITE_INSERT and _ROWID & now.words - self._tables[name].columns.keys()
        ):
            return "rowid"
        if action == sqlite3.SQLITE_INSERT and "returning" in now.words:
            return "returning"
        if action != sqlite3.SQLITE_DELETE and self._tables[name].opaque and "replace" in now.words:
            return "replace"
        return ""

    def _is_system(self, name: str) -> bool:
        return name.startswith(("sqlite_", "pragma_", RESERVED)) or name in _SYSTEM

    def _led(self, now: _Text, name: str) -> str:
        """Refuse what leads past the views, unless others than the statement mean it, such as a search index itself."""
        return "past" if _mentioned((name,), now.words, now.sql) else ""

    def _carried(self, now: _Text, source: str | None) -> bool:
        """Tell whether a foreign key does it, which carries rows along once a trigger of ours has begun to write.

        Its accesses have no source, as those of the statement itself; but that means a table past its view only if it
        utters `main`.
        """
        return source is None and self._deep and "main" not in now.words


def _words(folded: str) -> frozenset[str]:
    return frozenset(_IDENTIFIER.findall(folded))


def _folded(name: str) -> str:
    return name.translate(_FOLD)


def _mentioned(names: Collection[str], words: frozenset[str], sql: str) -> list[str]:
    """Return those of some names that a statement may mean, in whichever quotes it puts them."""
    odd = [name for name in names if not _IDENTIFIER.fullmatch(name)]
    folded = sql.translate(_FOLD) if odd else ""
    spelled = [n for n in odd if any(text in folded for text in (n, *(n.replace(q, q * 2) for q in "\"'`")))]
    return [*sorted(words.intersection(names)), *spelled]


def _leading(derived: dict[str, str], tables: set[str], names: set[str]) -> set[str]:
    """Return the views and virtual tables that lead to certain tables, with the tables in which the latter keep things.

    Args:
        derived: name -> SQL of views and virtual tables.
        tables: where they must not lead.
        names: of all tables.
    """
    words = {name: _words(sql) for name, sql in derived.items()}
    found: set[str] = set()
    while True:
        more = {
            name for name, sql in derived.items() if name not in found and _mentioned(tables | found, words[name], sql)
        }
        if not more:
            return found
        found |= more | {name for name in names if name.startswith(tuple(f"{view}_" for view in more))} - tables


_REFUSALS = {
    "statement": ("only SELECT, INSERT, UPDATE and DELETE are possible", ""),
    "system": ("it names what belongs to the database or to DataFlow", "rename what begins with dataflow_"),
    "function": (
        "it calls a function that tells what the connection did for others",
        "use nodes, which return ids",
    ),
    "past": ("it would reach a table of several tenants past the tenant's view of it", "name the table without schema"),
    "strange": ("it names a table of several tenants whose model is not registered here", "register the model"),
    "rowid": ("rows of several tenants have no rowid", "use the primary key"),
    "returning": ("INSERT … RETURNING does not know what the database fills in", "use a create node"),
    "upsert": ("ON CONFLICT does not work on a table of several tenants", "use an upsert node"),
    "replace": ("OR REPLACE might delete another tenant's row", "use an upsert node"),
    "computed": ("it sets a column that the database computes", "leave the column out"),
    "no-tenant": ("no tenant is known for the call", "run it inside `with db.tenant(…)`"),
    "tenant": ("it would give a row to another tenant", "leave the tenant's column out"),
    "no-writer": (
        "the table cannot be written by it",
        "let await db.initialize() bring the triggers up to date, and use the writing connection",
    ),
}
"""Word of a refusal -> (why, how to go on)."""


def _refused(word: str) -> DataFlowError:
    if word == "taken":
        hint = "use another value, an UpsertNode, or conflict_resolution='skip'"
        return UniqueError("a record with that key exists already", hint=hint)
    why, how = _REFUSALS.get(word, _REFUSALS["past"])
    hint = "; ".join([*([how] if how else []), "or use the nodes, or db.all_tenants(…) where all is to be seen"])
    return QueryError(f"SQL of your own is confined to the tenant: {why}", hint=hint, code="confined")


__all__ = ["Confinement"]
