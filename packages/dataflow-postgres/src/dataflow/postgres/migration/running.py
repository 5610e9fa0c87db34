"""Around the steps of a migration: one process at a time, limits to waiting, and steps that no transaction can hold."""

import random
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any, TypeVar

from dataflow.catalog import Index
from dataflow.changes import Step
from dataflow.dialect import COUNT, Command, Program
from dataflow.errors import DatabaseError, DatabaseTimeout, SchemaError, UsageError
from dataflow.postgres.migration.catalog import index_named
from dataflow.postgres.standing import KEPT, SCHEMA_LOCK, STANDS, WAIT
from dataflow.session import COMMIT, ROLLBACK, framed

T = TypeVar("T")
_TRY = Command("SELECT pg_try_advisory_lock($1)", KEPT)
_UNLOCK = Command("SELECT pg_advisory_unlock($1)")
_LIMIT = Command("SELECT set_config('lock_timeout', $1, false), set_config('statement_timeout', $2, false)", KEPT)
_UNLIMITED = Command("RESET lock_timeout; RESET statement_timeout", COUNT)
_BEGIN = Command("BEGIN", COUNT)
_SNAPSHOT = Command("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY", COUNT)
_PATIENCE = 0.02, 0.08
"""Seconds between two tries to get the lock: at least, at most."""


def locked(body: Program[T], *, timeout: float) -> Program[T]:
    """Run a program while no other process migrates or creates tables.

    The lock belongs to the connection. It is asked for again and again: who waits for it within a statement holds a
    snapshot, which concurrent builds of indexes wait for. Where the program is abandoned, the lock goes when the
    connection is reset or closed.
    """
    try:
        if (yield STANDS, ()):
            msg = "a migration needs a connection of its own, and a transaction is open on this one"
            raise UsageError(
                msg, hint="migrate outside transactions, and before tests in tdd mode", code="in-transaction"
            )
        yield from _acquire(timeout)
    except BaseException:
        body.close()
        raise
    try:
        result = yield from body
    except GeneratorExit:
        raise
    except BaseException:
        with suppress(DatabaseError):  # of a lost connection, or a failed transaction: its end releases the lock
            yield _UNLOCK, (SCHEMA_LOCK,)
        raise
    yield _UNLOCK, (SCHEMA_LOCK,)
    return result


def _acquire(timeout: float) -> Program[None]:
    deadline = monotonic() + timeout
    while True:
        if (yield _TRY, (SCHEMA_LOCK,))[0][0]:
            return
        left = deadline - monotonic()
        if left <= 0:
            msg = f"another process has been changing the schema for {timeout:g} s"
            raise DatabaseTimeout(msg, hint="wait until it is done, or end it", code="migrating")
        yield WAIT, (min(random.uniform(*_PATIENCE), left),)  # noqa: S311  # to fall out of step with others


def snapshot(body: Program[T]) -> Program[T]:
    """Run a program that reads in one snapshot, so that what others change meanwhile is seen wholly or not at all."""
    if (yield STANDS, ()):
        return (yield from body)
    yield _SNAPSHOT, ()
    try:
        result = yield from body
    except GeneratorExit:
        raise
    except BaseException:
        yield ROLLBACK, ()
        raise
    yield COMMIT, ()
    return result


def attempt(body: Program[T], *, lock_timeout: float, statement_timeout: float, transaction: bool) -> Program[T]:
    """Run a program with limits, in a transaction or with settings of the session."""
    limits = _milliseconds(lock_timeout), _milliseconds(statement_timeout)
    run = _within(body, limits) if transaction else _outside(body, limits)
    return (yield from run)


def _within(body: Program[T], limits: tuple[str, str]) -> Program[T]:
    yield _BEGIN, ()
    return (yield from framed(_limited(body, limits), end=COMMIT, undo=(ROLLBACK,)))


def _limited(body: Program[T], limits: tuple[str, str]) -> Program[T]:
    yield Command(limited(*limits), COUNT), ()
    return (yield from body)


def limited(lock_timeout: str, statement_timeout: str) -> str:
    """Write the settings of a transaction that changes the schema: functions may be made before what they read."""
    return (
        f"SET LOCAL lock_timeout = '{lock_timeout}'; SET LOCAL statement_timeout = '{statement_timeout}';"
        " SET LOCAL check_function_bodies = off"
    )


def _outside(body: Program[T], limits: tuple[str, str]) -> Program[T]:
    yield _LIMIT, limits
    try:
        result = yield from body
    except GeneratorExit:
        raise
    except BaseException:
        with suppress(DatabaseError):  # of a lost connection
            yield _UNLIMITED, ()
        raise
    yield _UNLIMITED, ()
    return result


def _milliseconds(seconds: float) -> str:
    return f"{max(round(seconds * 1000), 1)}ms" if seconds else "0"


# -- indexes, concurrently --------------------------------------------------------------------------------------------
_DROPPING = ("drop_index_concurrently", "undo_create_index_concurrently")


def perform(step: Step, quote: Callable[[str], str]) -> Program[None]:
    """Build or drop an index concurrently; what an interrupted attempt has left is dropped first."""
    name = step.details["index"]
    found = yield from index_named(quote, name)
    drop = Command(f"DROP INDEX CONCURRENTLY {quote(name)}", COUNT, writes=True)
    if step.operation in _DROPPING:
        if found is not None:
            yield drop, ()
        return
    if found is not None and found.valid:
        if _fits(found, step):
            return
        msg = f"there is another index {name!r}"
        raise SchemaError(msg, hint="drop or rename it", where={"table": step.table}, code="index-differs")
    if found is not None:
        yield drop, ()
    try:
        for sql in step.sql:
            yield Command(sql, COUNT, writes=True), ()
    except GeneratorExit:
        raise
    except BaseException:
        yield from _drop_remains(name, drop, quote)
        raise
    found = yield from index_named(quote, name)
    if found is None or not found.valid:
        yield from _drop_remains(name, drop, quote)
        msg = f"the index {name!r} was built, and is not valid"
        raise SchemaError(msg, hint="see the server's log", where={"table": step.table}, code="invalid-index")


def _fits(found: Index, step: Step) -> bool:
    """Tell whether an index is what a step builds."""
    key = step.details.get("key")
    if key is None:
        return bool(found.definition == step.details.get("definition"))
    plain = tuple(map(str, key["columns"])) == found.columns[: len(found.keys)] and found.where is None
    return plain and found.unique and found.nulls_distinct == key["nulls_distinct"]


def _drop_remains(name: str, drop: Command, quote: Callable[[str], str]) -> Program[None]:
    """Drop what a failed build has left; where that fails as well, the next attempt does it."""
    with suppress(DatabaseError):
        found = yield from index_named(quote, name)
        if found is not None and not found.valid:
            yield drop, ()


# -- rows in batches --------------------------------------------------------------------------------------------------
def batch(step: Step, cursor: Any, quote: Callable[[str], str]) -> Program[tuple[int, Any]]:
    """Fill the next rows of a column that have no value, by the table's key (or by place, where it has none)."""
    what = step.details
    keys, kinds = list(what["key"]), list(what["types"])
    table, column = quote(what["table"]), quote(what["column"])
    quoted = [key if key == "ctid" else quote(key) for key in keys]
    listed = ", ".join(f"{key} AS dataflow_{n}" for n, key in enumerate(quoted))
    after = ""
    if cursor is not None:
        bounds = ", ".join(f"CAST(${n + 1}::text AS {kind})" for n, kind in enumerate(kinds))
        after = f" AND ({', '.join(quoted)}) > ({bounds})"
    joined = " AND ".join(f"{table}.{key} = dataflow_part.dataflow_{n}" for n, key in enumerate(quoted))
    backwards = ", ".join(f"dataflow_{n} DESC" for n in range(len(keys)))
    texts = ", ".join(f"dataflow_{n}::text" for n in range(len(keys)))
    sql = (
        f"WITH dataflow_part AS MATERIALIZED (SELECT {listed} FROM {table} WHERE {column} IS NULL{after}"  # noqa: S608
        f" ORDER BY {', '.join(quoted)} LIMIT {int(what['size'])}),"
        f" dataflow_done AS (UPDATE {table} SET {column} = {what['value']} FROM dataflow_part"
        f" WHERE {joined} AND {table}.{column} IS NULL RETURNING 1)"
        f" SELECT (SELECT count(*) FROM dataflow_done), (SELECT count(*) FROM dataflow_part), {texts}"
        f" FROM dataflow_part ORDER BY {backwards} LIMIT 1"
    )
    rows = yield Command(sql, writes=True), () if cursor is None else tuple(cursor)
    if not rows:
        return 0, None
    changed, looked_at, *last = rows[0]
    return changed, list(last) if looked_at == what["size"] else None
