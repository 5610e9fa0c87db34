"""Steps as text for psql: what the programs around them do, in SQL that an administrator can read and run."""

from collections.abc import Callable, Sequence
from itertools import groupby

from dataflow.changes import Step
from dataflow.postgres.standing import SCHEMA_LOCK

_START = f"""\
\\set ON_ERROR_STOP on
SET lock_timeout = '5s';
SET check_function_bodies = off;
DO $dataflow$ BEGIN
    IF NOT pg_try_advisory_lock({SCHEMA_LOCK}) THEN RAISE EXCEPTION 'another process changes the schema'; END IF;
END $dataflow$;
"""
_END = f"""\
SELECT pg_advisory_unlock({SCHEMA_LOCK});
RESET check_function_bodies;
RESET lock_timeout;
"""


def script(
    steps: Sequence[Step], quote: Callable[[str], str], *, before: Sequence[str] = (), after: Sequence[str] = ()
) -> str:
    """Write steps as a script for psql."""
    parts = [_START, *_around("what DataFlow keeps on tables steps aside", before)]
    for together, group in groupby(steps, key=lambda step: step.mode == "together"):
        if together:
            parts.append("\n".join(["BEGIN;", *map(_plain, group), "COMMIT;", ""]))
        else:
            parts += [_alone(step, quote) for step in group]
    return "\n".join([*parts, *_around("what DataFlow keeps on tables", after), _END])


def _around(said: str, statements: Sequence[str]) -> list[str]:
    return (
        ["\n".join(["BEGIN;", f"-- {said}", *(f"{sql};" for sql in statements), "COMMIT;", ""])] if statements else []
    )


def _plain(step: Step) -> str:
    return "\n".join([_said(step), *(f"{sql};" for sql in step.sql)])


def _said(step: Step) -> str:
    locks = ", ".join(f"{lock} on {table}" for table, lock in step.locks.items())
    notes = [f"locks: {locks}"] if locks else []
    notes += ["rewrites the table"] if step.rewrites else []
    notes += ["reads all rows"] if step.scans and not step.rewrites else []
    text = step.summary + (f" ({'; '.join(notes)})" if notes else "")
    return "-- " + " ".join(text.splitlines())


def _alone(step: Step, quote: Callable[[str], str]) -> str:
    if step.mode == "apart":
        return "\n".join(["BEGIN;", _plain(step), "COMMIT;", ""])
    if step.mode == "batches":
        return f"{_said(step)}\n{_batches(step, quote)}"
    hint = "-- cannot run in a transaction; where it failed before, drop what it has left:"
    remains = f"-- DROP INDEX CONCURRENTLY IF EXISTS {quote(step.details['index'])};"
    lines = [_said(step), *([hint, remains] if step.operation.startswith("create") else [])]
    return "\n".join([*lines, *(f"{sql};" for sql in step.sql), ""])


def _batches(step: Step, quote: Callable[[str], str]) -> str:
    what = step.details
    table, column, value = quote(what["table"]), quote(what["column"]), what["value"]
    return f"""\
DO $dataflow$ BEGIN
    LOOP
        UPDATE {table} SET {column} = {value} WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM {table} WHERE {column} IS NULL AND ({value}) IS NOT NULL LIMIT {what["size"]}));
        EXIT WHEN NOT FOUND;
        COMMIT;
    END LOOP;
END $dataflow$;
"""  # noqa: S608
