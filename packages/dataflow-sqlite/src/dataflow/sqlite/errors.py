"""sqlite3's errors, translated: which constraint, which table and columns, and what to do. Never a row's values."""

import re
import sqlite3

from dataflow import errors as e
from dataflow.sqlite.functions import take_fault

_COLUMNS = re.compile(r"constraint failed: (?P<what>.+)$")
_FINITE = re.compile(r"CHECK constraint failed: abs\(.+\) <= 1\.79")
"""The check of every float column: values from callers are finite, so that it was a computed one."""
_DATATYPE = re.compile(r"cannot store (?P<got>\w+) value in (?P<type>\w+) column (?P<place>\S+)")


def translate(error: sqlite3.Error, path: str) -> e.DataFlowError:
    """Return the framework's error for one of sqlite3's."""
    text = str(error)
    name = getattr(error, "sqlite_errorname", "") or ""
    if _FINITE.search(text):
        return e.QueryError("the result is too large for a float", hint="change the operand", code="arithmetic")
    altered = text.startswith("CHECK constraint failed")  # ALTER TABLE says so with another code
    if altered or name.startswith("SQLITE_CONSTRAINT") or isinstance(error, sqlite3.IntegrityError):
        return _constraint(name, text)
    if "user-defined function raised" in text or "user-defined aggregate" in text:
        fault = take_fault()
        hint = "change the operand, or the stored values"
        if fault.startswith("the sum"):
            hint = "declare the field as Decimal, or sum fewer rows"
        return e.QueryError(fault or text, hint=hint, code="arithmetic")
    if name == "SQLITE_AUTH":
        return e.QueryError("the statement may not do that", hint="it changes what is protected", code="denied")
    if name == "SQLITE_INTERRUPT":
        return e.DatabaseTimeout("the statement was interrupted", hint="raise the timeout of the runtime (seconds)")
    return _environment(name, text, path) or _query(text)


def _constraint(name: str, text: str) -> e.IntegrityError:
    found = _COLUMNS.search(text)
    what = found["what"] if found else ""
    columns = [part.partition(".")[2] or part for part in what.split(", ")] if "." in what else []
    table = what.partition(".")[0] if columns else ""
    where: dict[str, str | int] = {"table": table, "columns": ", ".join(columns)} if columns else {}
    if name in ("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_ROWID"):
        named = ", ".join(columns) or "key"
        hint = "use another value, an UpsertNode, or conflict_resolution='skip'"
        return e.UniqueError(f"a record with that {named} exists already", hint=hint, where=where)
    if name == "SQLITE_CONSTRAINT_TRIGGER" and text == "FOREIGN KEY constraint failed":  # ON DELETE RESTRICT
        msg = "the record is still referred to by others (foreign key)"
        return e.ForeignKeyError(msg, hint="delete them first, or declare ForeignKey(…, on_delete='cascade')")
    if name == "SQLITE_CONSTRAINT_FOREIGNKEY":
        msg = "a foreign key refers to a record that does not exist, or a record is still referred to"
        return e.ForeignKeyError(msg, hint="write the record referred to first, or delete what refers to it first")
    if name == "SQLITE_CONSTRAINT_NOTNULL":
        return e.NotNullError(
            f"{', '.join(columns) or 'a column'} must have a value", hint="give it a value", where=where
        )
    wrong = _DATATYPE.search(text)
    if wrong:
        table, _, column = wrong["place"].partition(".")
        rounded = "; nothing is rounded silently" if wrong["got"] == "REAL" else ""
        msg = f"{column} holds {wrong['type']}, and the value is {wrong['got']}{rounded}"
        return e.CheckError(msg, hint="change the value or the field's type", where={"table": table, "columns": column})
    return e.CheckError(f"a check refused the value: {what or text}", hint="see the table's CHECK constraints")


def _environment(name: str, text: str, path: str) -> e.DatabaseError | None:
    where: dict[str, str | int] = {"file": path}
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        msg = "another process holds the database's write lock"
        return e.DatabaseTimeout(msg, hint="end it, or raise the setting sqlite_busy_timeout (seconds)", where=where)
    table = {
        "SQLITE_FULL": ("the disk is full; the transaction was rolled back", "free some space and run it again"),
        "SQLITE_READONLY": ("the database is read-only", "check the permissions of the file and its folder"),
        "SQLITE_CANTOPEN": ("the database file cannot be opened", "check that its folder exists and is writable"),
        "SQLITE_NOTADB": ("the file is not a SQLite database", "check the path in the URL"),
        "SQLITE_CORRUPT": ("the database file is damaged", "restore a backup; see PRAGMA integrity_check"),
        "SQLITE_IOERR": ("the operating system refused to read or write the database file", "check the disk"),
        "SQLITE_PERM": ("access to the database file is denied", "check the permissions of the file"),
    }
    for code, (message, hint) in table.items():
        if name == code or name.startswith(code + "_"):
            kind = "read-only" if code == "SQLITE_READONLY" else "unavailable"
            return e.DatabaseUnavailable(message, hint=hint, where=where, code=kind)
    if "unable to open" in text:
        message, hint = table["SQLITE_CANTOPEN"]
        return e.DatabaseUnavailable(message, hint=hint, where=where)
    return None


def _query(text: str) -> e.DatabaseError:
    if text.startswith(("no such table", "no such column")):
        return e.QueryError(
            f"the database says: {text}", hint="check the name; db.show_tables() lists tables", code="no-such-name"
        )
    if "Incorrect number of bindings" in text or "did not supply a value for binding" in text:
        return e.QueryError(
            "the statement's placeholders and its params do not match",
            hint="give every :name in a dict, or every $1 in a list",
        )
    return e.QueryError(f"the database says: {text}", hint="check the SQL")
