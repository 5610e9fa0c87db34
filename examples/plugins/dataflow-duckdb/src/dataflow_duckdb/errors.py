"""DuckDB's errors, translated: which constraint, which table and columns, and what to do. Never a row's values."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs
import duckdb

from dataflow import errors as e
from dataflow_duckdb.functions import MARK

_TABLE = re.compile(r'(?:INSERT INTO|UPDATE)\s+(?:"((?:[^"]|"")+)"|([^\s(]+))', re.IGNORECASE)
_QUALIFIED = re.compile(r'"((?:[^"]|"")*)"|([^."]+)')
_CHECK = re.compile(r'on table "(?P<table>.+?)" with expression (?P<what>.+)$', re.DOTALL)
_MISSING = re.compile(r"does not exist|not found in FROM|Referenced table")
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\b\d[\w.]*")
TAKEN = "use another value, an UpsertNode, or conflict_resolution='skip'"
_ENVIRONMENT = (
    ("Could not set lock", "another process has the database open", "DuckDB lets one process at a time; end the other"),
    ("not a valid DuckDB database", "the file is not a DuckDB database", "check the path in the URL"),
    ("No such file or directory", "the database file cannot be opened", "check that its folder exists"),
    ("Permission denied", "the database file cannot be opened", "check the permissions of the file and its folder"),
    ("No space left", "the disk is full; the transaction was rolled back", "free some space and run it again"),
)
_LISTED = re.compile(
    r"""(?:INSERT\ INTO|\bON)\s+ (?:"(?:[^"]|"")*"|[^\s("]+) \s*\( ((?:"(?:[^"]|"")*"|[^"()])*) \)""",
    re.IGNORECASE | re.VERBOSE,
)
_NAME = re.compile(r'"((?:[^"]|"")*)"|([^\s,()"]+)')
Keys = Callable[[str], Iterable[Sequence[str]]]
"""table -> its unique keys."""


@attrs.frozen
class Sent:
    """A statement and its arguments."""

    sql: str
    arguments: Sequence[Any]


def columns_of(sql: str) -> list[str]:
    """Return the columns that an INSERT lists, or a CREATE INDEX."""
    found = _LISTED.search(sql)
    return [(quoted or plain).replace('""', '"') for quoted, plain in _NAME.findall(found[1])] if found else []


def translate(error: Exception, sent: Sent, file: str, keys: Keys) -> e.DataFlowError:
    """Return the framework's error for one of DuckDB's.

    Args:
        error: what DuckDB raised.
        sent: the statement.
        file: path of the database.
        keys: tells the unique keys of a table, for DuckDB's message does not say which was broken.
    """
    text = str(error)
    if MARK in text:
        return _arithmetic(text.partition(MARK)[2].splitlines()[0])
    if isinstance(error, duckdb.ConstraintException):
        return _constraint(text, sent, keys)
    if isinstance(error, duckdb.OutOfRangeException) or "is out of range" in text:
        return _arithmetic("the result does not fit in 64 bits")
    if isinstance(error, duckdb.InterruptException):
        return e.DatabaseTimeout("the statement was interrupted", hint="raise the timeout of the runtime (seconds)")
    if isinstance(error, duckdb.TransactionException):
        return _transaction(text)
    if isinstance(error, duckdb.IOException):
        for part, message, hint in _ENVIRONMENT:
            if part in text:
                return e.DatabaseUnavailable(message, hint=hint, where={"file": file})
    return _query(error, text)


def _arithmetic(message: str) -> e.QueryError:
    return e.QueryError(message, hint="change the operand, or the stored values", code="arithmetic")


def _constraint(text: str, sent: Sent, keys: Keys) -> e.IntegrityError:
    if "NOT NULL constraint failed: " in text:
        table, column = _place(text.partition("failed: ")[2])
        where: dict[str, str | int] = {"table": table, "columns": column}
        return e.NotNullError(f"{column} must have a value", hint="give it a value", where=where)
    if "foreign key" in text:
        return _reference(text, sent.sql)
    check = _CHECK.search(text)
    if check:
        if "isfinite" in check["what"]:
            return _arithmetic("the result is too large for a float")  # type: ignore[return-value]
        hint = "see the table's CHECK constraints"
        return e.CheckError("a check refused the value", hint=hint, where={"table": check["table"]})
    found = _TABLE.search(sent.sql)
    table = (found[1] or found[2]).replace('""', '"') if found else ""
    columns = _broken(text, sent, list(keys(table))) if table else ()
    named = ", ".join(columns)
    where = {"table": table, "columns": named} if columns else {}
    return e.UniqueError(f"a record with that {named or 'key'} exists already", hint=TAKEN, where=where)


def _place(text: str) -> tuple[str, str]:
    """Read ``table.column``, each quoted where DuckDB must."""
    names = [(quoted or plain).replace('""', '"') for quoted, plain in _QUALIFIED.findall(text)]
    return (names[0], names[-1]) if len(names) > 1 else ("", text)


def _broken(text: str, sent: Sent, keys: Sequence[Sequence[str]]) -> Sequence[str]:
    """Return the key that a message is about. Of rows of its own transaction, DuckDB tells the values only."""
    named = next((key for key in keys if _is_key(text, key)), None)
    if named is not None:
        return named
    names = columns_of(sent.sql)
    given = [key for key in keys if set(key) <= set(names)]
    told = text.partition('duplicate key "')[2].rstrip().removesuffix('"')
    for key in given:
        if told in _texts([sent.arguments[names.index(column)] for column in key if len(sent.arguments) >= len(names)]):
            return key
    return given[0] if len(given) == 1 else ()


def _texts(values: Sequence[Any]) -> set[str]:
    """Write the key of every row as DuckDB does."""
    rows = zip(*(value if isinstance(value, list) else [value] for value in values), strict=True)
    return {", ".join(str(part) for part in row) for row in rows}


def _is_key(text: str, key: Sequence[str]) -> bool:
    """Tell whether a message ("Duplicate key "a: 1, b: 2" violates …") is about a key of these columns."""
    parts = ", ".join(f"{re.escape(column)}: .*" for column in key)
    return re.search(f'Duplicate key "{parts}" violates', text, re.DOTALL) is not None


def _reference(text: str, sql: str) -> e.ForeignKeyError:
    if "still referenced" not in text:
        msg = "a foreign key refers to a record that does not exist, or a record is still referred to"
        return e.ForeignKeyError(msg, hint="write the record referred to first, or delete what refers to it first")
    hint = "delete what refers to it first, in a transaction of its own"
    if not sql.lstrip().upper().startswith("DELETE"):
        hint = "DuckDB replaces a row whose unique or list fields change; change them while nothing refers to it"
    return e.ForeignKeyError("the record is still referred to by others (foreign key)", hint=hint)


def _transaction(text: str) -> e.DatabaseError:
    if "is aborted" in text:
        msg = "the database rolled the transaction back after an earlier error"
        return e.QueryError(msg, hint="let that error end the transaction, then run it again", code="rolled-back")
    if "onflict" in text:
        return e.SerializationError("another transaction changed the same records", hint="run it again")
    if "read-only" in text:
        return e.QueryError("the statement may not write", hint="it is a reading one", code="read-only")
    return e.QueryError(f"the database says: {_plain(text)}", hint="check the SQL")


def _query(error: Exception, text: str) -> e.QueryError:
    if isinstance(error, (duckdb.CatalogException, duckdb.BinderException)) and _MISSING.search(text):
        hint = "check the name; db.show_tables() lists tables"
        return e.QueryError(f"the database says: {text.splitlines()[0]}", hint=hint, code="no-such-name")
    if isinstance(error, (duckdb.ParserException, duckdb.CatalogException, duckdb.BinderException)):
        return e.QueryError(f"the database says: {text.splitlines()[0]}", hint="check the SQL")
    return e.QueryError(f"the database says: {_plain(text)}", hint="check the SQL, and the values")


def _plain(text: str) -> str:
    """Leave out what may be values."""
    return _QUOTED.sub("…", text.splitlines()[0])
