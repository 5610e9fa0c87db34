"""What the suites call a capability, one sentence each, and how a declaration is read.

A dialect declares them in its `DialectSpec.capabilities`: name -> "full", "emulated: how" or "unsupported: reason".
What it leaves out is "full". Knows no dialect.
"""

from collections.abc import Mapping

from dataflow.errors import suggest

CAPABILITIES: Mapping[str, str] = {
    # values
    "int64": "Integers of 64 bits come back exactly; larger ones are refused.",
    "bool": "True and False are values of their own, never numbers.",
    "text": "Text of any length and any character but NUL, compared and sorted by code point.",
    "bytes": "Bytes of any value and length, compared byte by byte.",
    "decimal": "Decimals keep every digit, and are compared by value.",
    "instants": "Instants keep microseconds, are compared by time, and come back in UTC.",
    "dates": "Dates and times of day are compared by calendar and clock.",
    "uuid": "UUIDs, also as keys.",
    "enum": "Members of an Enum; the database refuses any other text.",
    "json": "JSON documents come back parsed; filters reach their members.",
    "arrays": "Lists of one scalar type, with `$contains`, `$overlap` and `$append`.",
    # questions
    "regex": "`$regex` and `$iregex` in the one pattern language of all databases.",
    "ilike": "`$ilike` ignores the case of every script.",
    "aggregates": "Sums, averages and extremes are exact and keep the field's type.",
    "exact_arithmetic": "Update operators compute in the database, and never round or overflow silently.",
    # writes
    "returning": "Writes return the record as it is stored.",
    "auto_ids": "Generated ids ascend and are never used twice; ids that are given advance them.",
    "bulk": "Many rows per statement; ids come back in the order of the rows.",
    "upsert": "Upserts are atomic, and tell created from updated.",
    "foreign_keys": "Foreign keys are enforced.",
    "foreign_key_actions": "Deleting a record deletes what refers to it, or sets it to NULL, where declared.",
    "partial_indexes": "A unique index with a predicate binds only the rows that match it.",
    # transactions
    "savepoints": "A node that fails inside a transaction takes back its own changes only.",
    "transactional_ddl": "Tables created in a transaction that fails are gone.",
    "isolation": "A transaction gets the isolation level that it asks for.",
    "interrupts": "A statement whose time is up, or whose caller is cancelled, is stopped and undone.",
    "schema_lock": "Several callers may use a new model at the same time; its table is created once.",
    "shared_database": "Several DataFlow instances of one process open the same database.",
    "many_processes": "Several processes open the same database.",
    "concurrent_readers": "Readers see what is committed while a transaction writes, without waiting for it.",
    "concurrent_writers": "Two transactions change different records at the same time.",
    # what the database itself watches over
    "context": "Connections know of the call they serve: tenant, actor, run and node.",
    "read_only": "A statement can be sent so that the database refuses it if it writes.",
    "confinement": "The database keeps SQL of one's own within the tenant of its call.",
    "change_log": "Every change of a record is written to an append-only log, whoever makes it.",
    "grants": "A role gets exactly the privileges that are wanted, and what a role may do can be looked up.",
    # schema
    "introspection": "Tables and columns can be read from the database.",
    "schema_editor": "Schemas are read as a whole, built aside, and changed in steps that keep rows.",
    "any_identifier": "Names may be reserved words, and hold spaces, quotes and letters of any script.",
    "long_identifiers": "Names of up to 63 bytes are told apart to the last; longer ones are refused.",
    "raw_sql": "SQL of one's own, with `:name` or `$1`, on the same values.",
}
"""name -> what it promises."""
LEVELS = ("full", "emulated", "unsupported")


def check_name(name: str) -> None:
    """Raise ValueError, with the name that was probably meant, if there is no such capability."""
    if name not in CAPABILITIES:
        close = suggest(name, CAPABILITIES)
        meant = f"did you mean {close!r}?" if close else f"there are {', '.join(CAPABILITIES)}"
        msg = f"there is no capability {name!r}; {meant}"
        raise ValueError(msg)


def faults(declaration: Mapping[str, str]) -> list[str]:
    """Return what is wrong with a declaration, in sentences: unknown names, unknown levels, missing reasons."""
    found = []
    for name, text in declaration.items():
        try:
            check_name(name)
        except ValueError as error:
            found.append(str(error))
        level, _, reason = text.partition(":")
        if level.strip() not in LEVELS:
            found.append(f"{name}: {level.strip()!r} is not a level; write one of {', '.join(LEVELS)}")
        elif level.strip() != "full" and not reason.strip():
            found.append(f"{name}: {level.strip()} needs a reason: '{level.strip()}: …'")
    return found
