"""asyncpg's errors, translated: which constraint, which table and columns, and what to do. Never a row's values.

Texts that can reach printed JSON (a bulk node's `errors`) are those of the SQLite dialect, so that scripts print the
same.
"""

import asyncio
import re

import asyncpg

from dataflow import errors as e

_KEY = re.compile(r"Key \((?P<columns>.+?)\)=\(")
_COLUMN = re.compile(r'"(?P<quoted>(?:[^"]|"")+)"|(?P<plain>[^,\s][^,]*)')
_MARK = re.compile(r"dataflow:(?P<fault>[a-z-]+)")
ARITHMETIC = {
    "not-whole": "the result is not a whole number; nothing is rounded silently",
    "not-exact": "the result is not an exact Decimal; nothing is rounded silently",
    "sum-too-large": "the sum does not fit in 64 bits",
    "not-a-list": "$append needs a list, and the stored JSON is not one",
}
"""Faults that expressions raise by casting ``dataflow:<fault>`` to a number: SQL cannot fail on purpose otherwise."""
_OPERAND_HINT = "change the operand, or the stored values"
LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleSessionTimeoutError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InternalClientError,  # the server's goodbye met a statement on its way, say
    ConnectionError,
)
"""Errors after which a connection is gone, or of no use."""


def is_lost(error: BaseException) -> bool:
    """Tell whether an error means that the connection is gone."""
    if isinstance(error, asyncpg.InterfaceError):
        return "closed" in str(error) or "connection has been released" in str(error)
    if is_unreadable(error):
        return False
    return isinstance(error, LOST) or (isinstance(error, OSError) and not isinstance(error, TimeoutError))


def is_unreadable(error: BaseException) -> bool:
    """Tell whether a statement has a type that the driver knows nothing of, such as the arrays of pg_stats."""
    return isinstance(error, asyncpg.InternalClientError) and "could not resolve query result" in str(error)


def translate(error: BaseException) -> e.DataFlowError:
    """Return the framework's error for one of asyncpg's, or of the network."""
    if isinstance(error, e.DataFlowError):
        return error
    if is_lost(error):
        msg = "the connection to the database was lost; what was not committed is undone"
        return e.DatabaseUnavailable(msg, hint="run it again; if it happens again, look at the server's log")
    if is_unreadable(error):
        msg = "the statement has values of a type that the driver cannot read"
        return e.QueryError(msg, hint="cast them: SELECT most_common_vals::text", code="unreadable-type")
    if isinstance(error, asyncpg.IntegrityConstraintViolationError):
        return _integrity(error)
    if isinstance(error, (ValueError, OverflowError, TypeError)) or "query argument" in str(error):
        return _parameter(error)  # the driver could not encode it
    if isinstance(error, asyncpg.PostgresError):
        found = _arithmetic(error) or _transaction(error) or _tenancy(error) or _privilege(error)
        return found or _environment(error) or _query(error)
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)):
        return e.DatabaseTimeout("the database did not answer in time", hint="raise the setting lock_timeout (seconds)")
    return e.DatabaseError(f"the driver failed: {type(error).__name__}", hint="see the cause of this error")


def without_values(error: BaseException) -> BaseException | None:
    """Return the driver's error as a cause that tracebacks may show, or None where its own text quotes values."""
    if isinstance(error, (asyncpg.DataError, OverflowError, UnicodeError)):
        return None
    if isinstance(error, asyncpg.PostgresError):
        error.detail = None  # "Key (name)=(Ada) already exists.", "Failing row contains (…)."
    return error


def _integrity(error: asyncpg.IntegrityConstraintViolationError) -> e.IntegrityError:
    table, detail = error.table_name or "", error.detail or ""
    found = _KEY.search(detail)
    parts = _COLUMN.finditer(found["columns"]) if found else ()
    columns = [(part["quoted"] or part["plain"]).replace('""', '"') for part in parts]
    if error.column_name:
        columns = [error.column_name]
    where: dict[str, str | int] = {"table": table, "columns": ", ".join(columns)} if table and columns else {}
    if isinstance(error, (asyncpg.UniqueViolationError, asyncpg.ExclusionViolationError)):
        named = ", ".join(columns) or "key"
        hint = "use another value, an UpsertNode, or conflict_resolution='skip'"
        return e.UniqueError(f"a record with that {named} exists already", hint=hint, where=where)
    if isinstance(error, asyncpg.RestrictViolationError) or "still referenced" in detail:
        msg = "the record is still referred to by others (foreign key)"
        return e.ForeignKeyError(msg, hint="delete them first, or declare ForeignKey(…, on_delete='cascade')")
    if isinstance(error, asyncpg.ForeignKeyViolationError):
        msg = "a foreign key refers to a record that does not exist, or a record is still referred to"
        return e.ForeignKeyError(msg, hint="write the record referred to first, or delete what refers to it first")
    if isinstance(error, asyncpg.NotNullViolationError):
        what = ", ".join(columns) or "a column"
        return e.NotNullError(f"{what} must have a value", hint="give it a value", where=where)
    what = error.constraint_name or "of the table"
    return e.CheckError(f"a check refused the value: {what}", hint="see the table's CHECK constraints")


def _arithmetic(error: asyncpg.PostgresError) -> e.DatabaseError | None:
    text = error.args[0] if error.args else ""
    marked = _MARK.search(text) if isinstance(error, asyncpg.InvalidTextRepresentationError) else None
    if marked and marked["fault"] in ARITHMETIC:
        fault = marked["fault"]
        hint = "declare the field as Decimal, or sum fewer rows" if fault == "sum-too-large" else _OPERAND_HINT
        return e.QueryError(ARITHMETIC[fault], hint=hint, code="arithmetic")
    if isinstance(error, asyncpg.DivisionByZeroError):
        return e.QueryError("division by zero", hint=_OPERAND_HINT, code="arithmetic")
    if isinstance(error, asyncpg.NumericValueOutOfRangeError):
        return e.QueryError(f"the result {_range(text)}", hint=_OPERAND_HINT, code="arithmetic")
    return None


def _range(text: str) -> str:
    if text.endswith(("overflow", "underflow")):  # of floats
        return f"is too {'small' if text.endswith('underflow') else 'large'} for a float"
    return "does not fit in 64 bits" if "bigint" in text or "integer" in text else "does not fit its type"


def _transaction(error: asyncpg.PostgresError) -> e.DatabaseError | None:
    if isinstance(error, (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)):
        msg = "another transaction changed or locked the same records; this one was undone"
        return e.SerializationError(msg, hint="run it again")
    if isinstance(error, asyncpg.InFailedSQLTransactionError):
        msg = "the database rolled the transaction back after an earlier error"
        return e.QueryError(msg, hint="let that error end the transaction, then run it again", code="rolled-back")
    if isinstance(error, asyncpg.LockNotAvailableError):
        msg = "another transaction held a lock for too long"
        hint = "end it, or raise the setting lock_timeout (seconds)"
        return e.DatabaseTimeout(msg, hint=hint, code="lock-timeout")
    if isinstance(error, asyncpg.TransactionTimeoutError):
        return e.DatabaseTimeout("the transaction took longer than the server allows", hint="do less in one")
    if isinstance(error, asyncpg.QueryCanceledError):
        if "statement timeout" in str(error):
            msg = "the statement took longer than postgres_statement_timeout"
            return e.DatabaseTimeout(msg, hint="raise the setting postgres_statement_timeout (seconds)")
        return e.DatabaseTimeout("the statement was interrupted", hint="raise the timeout of the runtime (seconds)")
    return None


def _tenancy(error: asyncpg.PostgresError) -> e.TenancyError | None:
    text = _first(error)
    if not isinstance(error, asyncpg.InsufficientPrivilegeError):
        return None
    if text.startswith("new row violates row-level security policy"):
        table = text.rpartition("for table ")[2]
        msg = f"a record of table {table} belongs to another tenant than the call, or would"
        return e.TenancyError(msg, hint="leave the tenant's field out: it is set", code="other-tenant")
    if text.startswith("dataflow: the tenant"):
        msg = "SQL of the user's own has changed what the connection knows of its tenant"
        return e.TenancyError(msg, hint='name it around the call: with db.tenant("acme"):', code="forged-tenant")
    return None


def _privilege(error: asyncpg.PostgresError) -> e.DatabaseUnavailable | None:
    if not isinstance(error, asyncpg.InsufficientPrivilegeError):
        return None
    text = _first(error)
    named = text.startswith(("permission denied for ", "must be owner of "))  # names only; a trigger may say more
    msg = f"the database user may not do that{f': {text}' if named else ''}"
    hint = "GRANT the right, or use another user; db.unlocked() lifts the framework's rules, not the database's"
    return e.DatabaseUnavailable(msg, hint=hint, code="not-granted")


_REFUSALS: tuple[tuple[type[BaseException], str, str], ...] = (
    (asyncpg.InvalidPasswordError, "the server refused the password", "correct the URL, or set PGPASSWORD"),
    (asyncpg.InvalidAuthorizationSpecificationError, "the server refused the login", "see its pg_hba.conf"),
    (asyncpg.InvalidCatalogNameError, "the database of the URL does not exist", "create it: createdb NAME"),
    (
        asyncpg.TooManyConnectionsError,
        "the server has no free connection slot",
        "lower pool_size and pool_max_overflow, raise the server's max_connections, or put PgBouncer in between",
    ),
    (asyncpg.ReadOnlySQLTransactionError, "the database is read-only", "connect to the primary server"),
    (asyncpg.DiskFullError, "the server's disk is full; the transaction was rolled back", "free some space there"),
    (asyncpg.OutOfMemoryError, "the server ran out of memory", "write fewer rows at once: batch_size"),
    (asyncpg.InsufficientResourcesError, "the server ran out of resources", "see its log"),
    (asyncpg.ConfigurationLimitExceededError, "the server reached a limit", "see its log"),
)


def _environment(error: asyncpg.PostgresError) -> e.DatabaseError | None:
    for kind, message, hint in _REFUSALS:
        if isinstance(error, kind):
            code = "read-only" if kind is asyncpg.ReadOnlySQLTransactionError else None
            return e.DatabaseUnavailable(message, hint=hint, code=code)
    return None


def _query(error: asyncpg.PostgresError) -> e.DatabaseError:
    if isinstance(error, (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.InvalidSchemaNameError)):
        hint = "check the name; db.show_tables() lists tables"
        return e.QueryError(f"the database says: {_first(error)}", hint=hint, code="no-such-name")
    if isinstance(error, asyncpg.DataError):  # its text may quote a value
        return e.QueryError(f"the database refused a value: {_kind(error)}", hint="check the SQL and its params")
    return e.QueryError(f"the database says: {_first(error)}", hint="check the SQL")


def _parameter(error: BaseException) -> e.InputError:
    """Explain why the driver could not encode a value; its own text quotes the value."""
    text = str(error).replace("\n", " ")
    place = re.search(r"\$(\d+)", text)
    where = f"parameter {place[1]} of the statement" if place else "a parameter"
    types = re.search(r"expected (\w+), got (\w+)\)$|required \(got type (\w+)\)|'(\w+)' object cannot", text)
    if isinstance(error, UnicodeError):
        return e.InputError("a parameter cannot be stored: text with lone surrogates", hint="convert it first")
    if "out of" in text or isinstance(error, OverflowError):
        return e.InputError(f"{where} cannot be stored: a number beyond its type", hint="convert it first")
    got = f", and is {next(filter(None, reversed(types.groups())))}" if types else ""
    hint = "convert the value, or say what it is: CAST(:name AS bigint)"
    return e.InputError(f"{where} does not fit where it stands{got}", hint=hint)


def _kind(error: asyncpg.PostgresError) -> str:
    name = re.sub(r"(?<!^)(?=[A-Z])", " ", type(error).__name__.removesuffix("Error")).lower()
    return f"{name} ({error.sqlstate})"


def _first(error: asyncpg.PostgresError) -> str:
    return (str(error.args[0]) if error.args else type(error).__name__).split("\n")[0]
