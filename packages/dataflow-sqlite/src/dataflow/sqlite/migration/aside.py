"""A database in memory, in which schemas are built and changed to see what becomes of them; no file is touched."""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from dataflow.catalog import Catalog, Table
from dataflow.dialect import COUNT, MANY, Command, Program
from dataflow.sqlite.changelog import attach
from dataflow.sqlite.errors import translate
from dataflow.sqlite.functions import install
from dataflow.sqlite.migration.catalog import inspect

T = TypeVar("T")
_PLACE = ":memory:"
_SHARED: ContextVar[sqlite3.Connection | None] = ContextVar("dataflow_sqlite_aside", default=None)


@contextmanager
def memory() -> Iterator[sqlite3.Connection]:
    """Open a database in memory, with the functions that the framework's own connections have."""
    raw = sqlite3.connect(_PLACE, isolation_level=None)
    try:
        install(raw)
        attach(raw, dict)
        yield raw
    finally:
        raw.close()


def copied() -> Program[list[str]]:
    """Read the statements that make the schema, the framework's own objects too; tables before what hangs on them."""
    sql = (
        "SELECT sql FROM main.sqlite_master WHERE sql IS NOT NULL AND name NOT GLOB 'sqlite_*' "
        "ORDER BY CASE type WHEN 'table' THEN 0 WHEN 'index' THEN 1 WHEN 'view' THEN 2 ELSE 3 END, rowid"
    )
    rows = yield Command(sql), ()
    return [row[0] for row in rows]


def build(raw: sqlite3.Connection, schema: Iterable[str]) -> bool:
    """Make a schema; False where that cannot be, for an extension is missing."""
    for sql in schema:
        try:
            raw.execute(sql)
        except sqlite3.Error as error:
            if "already exists" not in str(error):  # of a table that belongs to a virtual one
                return False
    return True


@contextmanager
def shared() -> Iterator[None]:
    """Let `after` use one database, emptied each time: to open one costs more than to build a table in it."""
    with memory() as raw:
        token = _SHARED.set(raw)
        try:
            yield
        finally:
            _SHARED.reset(token)


def drive(raw: sqlite3.Connection, program: Program[T]) -> T:
    """Run a program to its end on a connection."""
    try:
        step = next(program)
        while True:
            try:
                reply = _reply(raw, *step)
            except sqlite3.Error as error:
                step = program.throw(translate(error, _PLACE))
            else:
                step = program.send(reply)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


def _reply(raw: sqlite3.Connection, command: Command, arguments: Any) -> Any:
    if command.returns is MANY:
        return raw.executemany(command.sql, arguments).rowcount
    cursor = raw.execute(command.sql, arguments)
    if command.named:
        return [column[0] for column in cursor.description or ()], cursor.fetchall(), cursor.rowcount
    return max(cursor.rowcount, 0) if command.returns is COUNT else cursor.fetchall()


def after(statements: Iterable[str]) -> Catalog:
    """Return the schema that statements make of nothing.

    Raises:
        sqlite3.Error: one of them cannot be carried out.
    """
    raw = _SHARED.get()
    if raw is None:
        with shared():
            return after(statements)
    raw.execute("BEGIN")
    try:
        for sql in statements:
            raw.execute(sql)
        return drive(raw, inspect())
    finally:
        if raw.in_transaction:
            raw.execute("ROLLBACK")


def table_after(name: str, statements: Iterable[str]) -> Table | None:
    """Return the table that statements make, or None where they fail or make no such table."""
    try:
        return after(statements).tables.get(name)
    except sqlite3.Error:
        return None
