"""Beside the steps of a migration: what the framework keeps on tables gets out of the way, and rows are copied."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from dataflow.changes import Step
from dataflow.dialect import COUNT, Command, Program
from dataflow.errors import SchemaError
from dataflow.session import COMMIT, ROLLBACK

Quote = Callable[[str], str]
_MAY_CREATE = Command("SELECT has_database_privilege(current_database(), 'CREATE')")
_SNAPSHOT = Command("BEGIN ISOLATION LEVEL REPEATABLE READ", COUNT)
_OWN = r"""
WITH moved AS (
    SELECT attrelid, attnum FROM pg_class
    JOIN pg_attribute ON attrelid = pg_class.oid
    JOIN unnest($1::text[], $2::text[]) AS listed (table_name, column_name)
         ON relname = table_name AND attname = column_name
    WHERE relnamespace = to_regnamespace(quote_ident(current_schema())))
SELECT DISTINCT 'POLICY', polname::text, relname::text
FROM moved
JOIN pg_depend ON refclassid = 'pg_class'::regclass AND refobjid = attrelid AND refobjsubid = attnum
JOIN pg_policy ON classid = 'pg_policy'::regclass AND objid = pg_policy.oid
JOIN pg_class ON pg_class.oid = polrelid
WHERE polname LIKE 'dataflow\_%'
      OR (polroles = ARRAY(SELECT oid FROM pg_roles WHERE rolname = polname)
          AND EXISTS (SELECT FROM pg_policy AS other WHERE other.polrelid = pg_policy.polrelid
                                                           AND other.polname LIKE 'dataflow\_%'))
UNION ALL
SELECT DISTINCT 'TRIGGER', tgname::text, relname::text
FROM moved JOIN pg_trigger ON tgrelid = attrelid JOIN pg_class ON pg_class.oid = tgrelid
WHERE NOT tgisinternal AND tgname LIKE 'dataflow\_%'"""


def clear(steps: Sequence[Step], quote: Quote) -> Program[None]:
    """Drop the framework's policies that hold columns which steps alter, and its triggers, whose functions name them.

    Without its policy, the confined role sees no row of the table: what is missing never shows too much.
    """
    moved = {(*step.details["clears"][:2],) for step in steps if "clears" in step.details}
    moved |= {(step.table, step.details["clears"][-1]) for step in steps if "clears" in step.details}  # since renamed
    if not moved:
        return
    tables, columns = (list(each) for each in zip(*sorted(moved), strict=True))
    for kind, name, table in (yield Command(_OWN), (tables, columns)):
        yield Command(f"DROP {kind} {quote(name)} ON {quote(table)}", COUNT, writes=True), ()


def refuse_without_right(what: str) -> Program[None]:
    """Raise unless the database user may create schemas; `what` needs one."""
    if (yield _MAY_CREATE, ())[0][0]:
        return
    hint = "GRANT CREATE ON DATABASE … TO the user, or migrate as another one"
    raise SchemaError(f"{what}, and the database user may create none", hint=hint, code="no-privilege")


def backup(tables: Sequence[str], quote: Quote) -> Program[str]:
    """Copy the rows of tables, as they are at one moment, into a schema of its own that nobody else may look into."""
    yield from refuse_without_right("rows are copied into a schema of their own")
    schema = f"dataflow_backup_{datetime.now(UTC):%Y%m%d_%H%M%S_%f}"
    yield _SNAPSHOT, ()
    try:
        yield Command(f"CREATE SCHEMA {quote(schema)}", COUNT, writes=True), ()
        copied = []
        for table in tables:
            sql = "SELECT to_regclass(quote_ident(current_schema()) || '.' || quote_ident($1)) IS NOT NULL"
            if not (yield Command(sql), (table,))[0][0]:
                continue
            copy = f"CREATE TABLE {quote(schema)}.{quote(table)} AS TABLE {quote(table)}"
            yield Command(copy, COUNT, writes=True), ()
            copied.append(table)
        yield COMMIT, ()
    except GeneratorExit:
        raise
    except BaseException:
        yield ROLLBACK, ()
        raise
    return f"the schema {schema} (tables {', '.join(copied) or 'none'})"
