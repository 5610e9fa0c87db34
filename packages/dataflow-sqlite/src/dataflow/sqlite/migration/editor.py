"""The SQLite side of migrations: `SQLiteEditor` reads schemas and changes them, all of a migration or nothing."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import attrs

from dataflow.catalog import Catalog
from dataflow.changes import Change, Step
from dataflow.dialect import COUNT, Command, Dialect, Program
from dataflow.errors import DatabaseTimeout, DataFlowError, ForeignKeyError, UsageError
from dataflow.session import COMMIT, ROLLBACK, framed, undone
from dataflow.sqlite.migration.aside import build, copied, drive, memory, shared
from dataflow.sqlite.migration.backup import backup
from dataflow.sqlite.migration.catalog import inspect, is_own
from dataflow.sqlite.migration.steps import Planner
from dataflow.sqlite.migration.tokens import names_in, quoted

T = TypeVar("T")
_BEGIN = Command("BEGIN IMMEDIATE", COUNT)
_OBJECTS = Command("SELECT type, name, tbl_name, sql FROM main.sqlite_master WHERE type IN ('trigger', 'view')")
_KEYS = Command(
    'SELECT m.name, k."table", k."from" FROM main.sqlite_master m, pragma_foreign_key_list(m.name) k '
    "WHERE m.type = 'table' AND m.sql LIKE '%REFERENCES%' AND k.seq = 0"
)
_VIOLATIONS = (
    'SELECT v."table", v.parent, k."from", count(*) FROM {source} '
    'JOIN pragma_foreign_key_list(v."table") k ON k.id = v.fkid AND k.seq = 0 GROUP BY 1, 2, 3'
)
_ALL = Command(_VIOLATIONS.format(source="pragma_foreign_key_check() v"))
_ONE = Command(_VIOLATIONS.format(source="pragma_foreign_key_check(?) v"))
_WAIT = 0.1
"""Seconds after which a wait for other processes looks whether it was cancelled."""
Key = tuple[str, ...]


class SQLiteEditor:
    """Reads and changes schemas of SQLite databases.

    Args:
        dialect: the SQLite dialect.

    Attributes:
        whole: a migration is one transaction.
    """

    whole: ClassVar[bool] = True

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    def inspect(self) -> Program[Catalog]:
        """Read the whole schema, without what the framework itself keeps in it; what others change is seen wholly."""
        return undone(inspect(), "dataflow_look")

    def desired(self, build: Program[None]) -> Program[Catalog]:
        """Run statements that create a schema on a database in memory, and read what they made."""
        yield from ()
        with memory() as raw:
            drive(raw, build)
            return drive(raw, inspect())

    def steps(self, found: Catalog, wanted: Catalog, changes: Sequence[Change]) -> list[Step]:
        """Return the steps that make changes; those of one table that need it are one rebuild."""
        with shared():
            return Planner(found, wanted, changes).steps()

    # -- around a migration -------------------------------------------------------------------------------------------
    def locked(self, body: Program[T], *, timeout: float) -> Program[T]:
        """Run a program in one transaction that no other process writes beside.

        Foreign keys are not enforced meanwhile, so that a table can be replaced under its references; they are checked
        before the end. References that led nowhere before are none of the migration's business.

        Args:
            body: the program.
            timeout: seconds to wait for other processes that write.

        Raises:
            DatabaseTimeout: another process still writes.
            ForeignKeyError: rows refer to nothing that did not before; nothing has changed.
            UsageError: a transaction is open.
        """
        yield from _set("foreign_keys", "OFF")
        rows = yield Command("SELECT foreign_keys FROM pragma_foreign_keys"), ()
        if rows and rows[0][0]:  # SQLite ignores the setting inside a transaction
            msg = "a migration needs a transaction of its own, and one is open"
            raise UsageError(msg, hint="migrate outside of transactions and workflows", code="open-transaction")
        try:
            before = yield from _references()  # outside of the lock: it reads every row that refers
            yield from _begin(timeout)
            result = yield from framed(_checked(body, before), end=COMMIT, undo=(ROLLBACK,))
        except GeneratorExit:  # abandoned: the session resets the connection when it is released
            raise
        except BaseException:
            yield from _restored()
            raise
        yield from _restored()
        return result

    def clear(self, steps: Sequence[Step]) -> Program[None]:
        """Drop the framework's triggers and views on tables that steps change; features make them anew afterwards."""
        tables = {name.lower() for step in steps for name in step.details.get("clears", ())}
        if not tables:
            return
        objects = yield _OBJECTS, ()
        own = [row for row in objects if is_own(row[0], row[1])]
        concerned = [row for row in own if tables & names_in(row[3])]
        views = {table for kind, _, table, _ in concerned if kind == "trigger" and is_own("view", table)}
        views |= {name for kind, name, _, _ in concerned if kind == "view"}
        for kind, name, table, _ in concerned:
            if kind == "trigger" and table not in views:
                yield Command(f"DROP TRIGGER {quoted(name)}", COUNT, writes=True), ()
        for name in sorted(views & {row[1] for row in own if row[0] == "view"}):
            yield Command(f"DROP VIEW {quoted(name)}", COUNT, writes=True), ()

    def attempt(
        self, body: Program[T], *, lock_timeout: float, statement_timeout: float, transaction: bool
    ) -> Program[T]:
        """Run part of a migration in a savepoint.

        Args:
            body: the program.
            lock_timeout: of no use here: `locked` holds the only lock there is.
            statement_timeout: not enforced: SQLite has none. Cancelling the call interrupts the statement.
            transaction: of no use here: all is in one.
        """
        del lock_timeout, statement_timeout, transaction
        return undone(body, "dataflow_step")

    def pause(self, seconds: float) -> Program[None]:
        """Do nothing: nobody waits for a lock of a table."""
        del seconds
        yield from ()

    def perform(self, step: Step) -> Program[None]:
        """Raise: every step can run in a transaction."""
        raise _no_such(step)
        yield

    def batch(self, step: Step, cursor: Any) -> Program[tuple[int, Any]]:
        """Raise: no step is made in batches."""
        del cursor
        raise _no_such(step)
        yield

    def backup(self, tables: Sequence[str]) -> Program[str]:
        """Copy the whole file, beside it."""
        del tables
        return backup()

    def rehearse(self, body: Program[T]) -> Program[T | None]:
        """Run a program on a copy of the schema in memory."""
        schema = yield from copied()
        with memory() as raw:
            if not build(raw, schema):
                body.close()
                return None
            return drive(raw, body)

    def script(self, steps: Sequence[Step], *, before: Sequence[str] = (), after: Sequence[str] = ()) -> str:
        """Write steps as SQL for the sqlite3 shell."""
        lines = [".bail on", "PRAGMA foreign_keys = OFF;", "BEGIN IMMEDIATE;"]
        if before:
            lines += ["", "-- what DataFlow keeps on tables steps aside", *(f"{sql};" for sql in before)]
        for step in steps:
            lines += ["", f"-- {' '.join(step.summary.split())}", *(f"{sql};" for sql in step.sql)]
        if after:
            lines += ["", "-- what DataFlow keeps on tables", *(f"{sql};" for sql in after)]
        lines += ["", "PRAGMA foreign_key_check;", "COMMIT;", "PRAGMA foreign_keys = ON;"]
        return "\n".join(lines) + "\n"


def _no_such(step: Step) -> UsageError:
    msg = f"SQLite makes every step in the transaction of the migration, also: {step.summary}"
    return UsageError(msg, hint="execute the step's statements inside locked()", code="no-such-step")


def _set(name: str, value: str) -> Program[None]:
    """Change a setting of the connection, as SQL of the user's own would: so the session resets it, come what may."""
    yield Command(f"PRAGMA {name} = {value}", named=True), ()


def _restored() -> Program[None]:
    yield from _set("legacy_alter_table", "OFF")
    yield from _set("foreign_keys", "ON")


def _begin(timeout: float) -> Program[None]:
    """Wait for the lock in short pieces, for SQLite's own waiting cannot be interrupted."""
    rows = yield Command("SELECT timeout FROM pragma_busy_timeout"), ()
    deadline = time.monotonic() + timeout
    yield from _set("busy_timeout", str(int(min(_WAIT, timeout) * 1000)))
    while True:
        try:
            yield _BEGIN, ()
            break
        except DatabaseTimeout as error:
            if time.monotonic() < deadline:
                continue
            msg = f"another process has been writing to the database for {timeout:g} s"
            hint = "let it end, or wait longer"
            raise DatabaseTimeout(msg, hint=hint, where=error.where, code="migration-lock") from error
    yield from _set("busy_timeout", str(rows[0][0]))


def _checked(body: Program[T], before: "References") -> Program[T]:
    """Run a program in the open transaction, and check foreign keys."""
    result = yield from body
    _compare(before, (yield from _references()))
    return result


@attrs.frozen
class References:
    """The foreign keys of a database, as (table, table referred to, first column).

    Attributes:
        keys: all of them.
        broken: how many rows of each refer to nothing.
    """

    keys: frozenset[Key]
    broken: Counter[Key]


def _references() -> Program[References]:
    """Look at every row that refers."""
    keys = yield _KEYS, ()
    broken: Counter[Key] = Counter()
    try:
        rows = yield _ALL, ()
    except DataFlowError:  # one of the keys fits no key of the table that it refers to
        broken = yield from _one_by_one(sorted({key[0] for key in keys}))
    else:
        broken.update({tuple(key): count for *key, count in rows})
    return References(frozenset(map(tuple, keys)), broken)


def _one_by_one(tables: Sequence[str]) -> Program[Counter[Key]]:
    broken: Counter[Key] = Counter()
    for table in tables:
        try:
            rows = yield _ONE, (table,)
        except DataFlowError:
            broken[table, "", ""] += 1
        else:
            broken.update({tuple(key): count for *key, count in rows})
    return broken


def _compare(before: References, now: References) -> None:
    """Refuse broken references that were not there; those of a key that has gone may be of one that is new.

    Raises:
        ForeignKeyError: some are new.
    """
    gone = [before.broken[key] for key in before.broken if key not in now.keys]
    for key, count in now.broken.items():
        if count <= before.broken[key]:
            continue
        former = next((other for other in sorted(gone) if other >= count), None)
        if key not in before.keys and former is not None:  # the table or the column was renamed
            gone.remove(former)
            continue
        table, parent, column = key
        msg = f"{count - before.broken[key]} rows of {table} refer by {column} to no row of {parent}"
        if not parent:
            msg = f"a foreign key of {table} refers to columns that are no key"
        raise ForeignKeyError(msg, hint="correct the rows, or leave the foreign key out", where={"table": table})
