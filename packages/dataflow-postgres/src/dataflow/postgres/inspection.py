"""What an administrator has to look at: where the catalogs show a way past the confinement of a table.

Reads only; `dataflow.postgres.confinement` makes what is right, and never touches what is here.
"""

from collections.abc import Iterable, Mapping, Sequence

from dataflow.dialect import Command, Program
from dataflow.model import ModelSpec

_TABLE = "to_regclass(quote_ident(current_schema()) || '.' || quote_ident($1))"


def problems(
    models: Iterable[ModelSpec], enclosed: Mapping[str, Sequence[bool] | None], role: str, version: int
) -> Program[list[str]]:
    """List the ways past the confinement of the models' tables, in sentences.

    Args:
        models: the models.
        enclosed: table -> what `ENCLOSED` says of it; None: there is no such table.
        role: that is confined.
        version: of the server, as 180004.
    """
    found: list[str] = []
    scopes = {model.table: model.scope[0] for model in models if model.scope}
    for table, facts in enclosed.items():
        if facts is None:
            continue
        found += _own(table, facts, scoped=table in scopes)
    for table, column in scopes.items():
        if enclosed.get(table) is None:
            continue
        queries: list[tuple[str, tuple[str, ...]]] = [
            (_POLICIES, (table, role)),
            (_INDEXES, (table, column)),
            (_REFERENCES, (table, role, column)),
            (_PARTS, (table, role)),
            (_VIEWS if version >= 150_000 else _VIEWS_BEFORE_15, (table, role)),
        ]
        for sql, arguments in queries:
            rows = yield Command(sql), arguments
            found += [row[0] for row in rows]
    for sql in (_DEFINERS, _FRAMEWORK):
        rows = yield Command(sql), (role,)
        found += [row[0] for row in rows]
    return found


def _own(table: str, facts: Sequence[bool], *, scoped: bool) -> list[str]:
    granted, too_much, forced, own, owners = facts
    found = []
    if not granted:
        found.append(
            f"table {table}: the restricted role lacks SELECT, INSERT, UPDATE or DELETE, or USAGE of a sequence"
        )
    if too_much:
        found.append(f"table {table}: the restricted role may TRUNCATE it, or has REFERENCES or TRIGGER on it")
    if scoped and not forced:
        found.append(f"table {table}: row-level security is not enabled and forced")
    if scoped and not own:
        found.append(f"table {table}: the policy of the restricted role is missing, or is not what DataFlow made")
    if scoped and not owners:
        found.append(
            f"table {table}: the policy dataflow_owner, which lets privileged work pass, is missing or different"
        )
    return found


_POLICIES = f"""\
SELECT concat('table ', $1::text, ': the policy ', polname, ' lets the restricted role see more')
FROM pg_policy
WHERE polrelid = {_TABLE} AND polpermissive AND polname <> $2::name
      AND EXISTS (SELECT FROM unnest(polroles) AS its
                  WHERE CASE its WHEN 0 THEN true
                        ELSE pg_has_role(to_regrole(quote_ident($2::name)), its, 'MEMBER') END)
ORDER BY polname"""  # noqa: S608
_INDEXES = f"""\
WITH its AS (
    SELECT pg_class.relname, indisunique OR indisexclusion AS key,
           ARRAY(SELECT attname::text FROM unnest(indkey::int2[]) WITH ORDINALITY AS listed (number, place)
                 LEFT JOIN pg_attribute ON attrelid = indrelid AND attnum = number AND number <> 0
                 WHERE place <= indnkeyatts ORDER BY place) AS names,
           EXISTS (SELECT FROM pg_attribute
                   WHERE attrelid = indrelid AND attnum = indkey[0] AND indnkeyatts = 1
                         AND pg_get_serial_sequence(attrelid::regclass::text, attname) IS NOT NULL)
           AS counted
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE indrelid = {_TABLE})
SELECT CASE
    WHEN key AND NOT $2 = ANY (names)
    THEN concat('table ', $1::text, ': the unique key ', relname, ' does not hold ', $2::text,
                ': it tells of other tenants')
    ELSE concat('table ', $1::text, ': the index ', relname, ' does not begin with ', $2::text,
                ': statistics of its use tell which values other tenants have')
    END
FROM its WHERE names[1] IS DISTINCT FROM $2 AND NOT counted
ORDER BY relname"""  # noqa: S608
"""Ids that the database counts are unique whatever the tenant, and tell nothing but how many there are."""
_REFERENCES = f"""\
SELECT concat('table ', conrelid::regclass, ': the foreign key ', conname, ' to ', confrelid::regclass,
              ' may lead to another tenant''s records')
FROM pg_constraint
WHERE contype = 'f' AND confrelid = {_TABLE}
      AND NOT EXISTS (
          SELECT FROM unnest(conkey, confkey) AS pair (near, far)
          JOIN pg_attribute AS there ON there.attrelid = confrelid AND there.attnum = far
          JOIN pg_policy ON polrelid = conrelid AND polname = $2::name
          WHERE there.attname = $3
                AND EXISTS (SELECT FROM pg_depend JOIN pg_attribute AS here
                            ON here.attrelid = conrelid AND here.attnum = refobjsubid
                            WHERE classid = 'pg_policy'::regclass AND objid = pg_policy.oid
                                  AND refobjid = conrelid AND here.attnum = near))
ORDER BY conname"""  # noqa: S608
"""A pair of tenants' columns must be among the columns of every reference to a confined table."""
_PARTS = f"""\
SELECT concat('table ', inhrelid::regclass, ', a part of ', $1::text,
              ': the restricted role may read it past the policies')
FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
WHERE inhparent = {_TABLE} AND NOT relrowsecurity
      AND has_any_column_privilege($2::name, inhrelid, 'SELECT, INSERT, UPDATE, REFERENCES')"""  # noqa: S608
_VIEWS = f"""\
WITH RECURSIVE above AS (
    SELECT {_TABLE}::oid AS its
    UNION
    SELECT ev_class FROM above
    JOIN pg_depend ON refclassid = 'pg_class'::regclass AND refobjid = its AND classid = 'pg_rewrite'::regclass
    JOIN pg_rewrite ON pg_rewrite.oid = objid
    WHERE ev_class <> its)
SELECT concat('the ', CASE relkind WHEN 'v' THEN 'view ' ELSE 'materialized view ' END, its::regclass,
              ' shows the restricted role the rows of table ', $1::text, ' as its owner sees them',
              CASE relkind WHEN 'v' THEN ': ALTER VIEW … SET (security_invoker = true)' END)
FROM above JOIN pg_class ON pg_class.oid = its
WHERE its <> {_TABLE} AND relkind IN ('v', 'm')
      AND NOT coalesce(relkind = 'v' AND (SELECT option_value::bool FROM pg_options_to_table(reloptions)
                                          WHERE option_name = 'security_invoker'), false)
      AND has_any_column_privilege($2::name, its, 'SELECT, INSERT, UPDATE')
ORDER BY its::regclass::text"""  # noqa: S608
_VIEWS_BEFORE_15 = _VIEWS.replace(": ALTER VIEW … SET (security_invoker = true)", ": revoke that")
_DEFINERS = """\
SELECT concat('the function ', pg_proc.oid::regprocedure,
              ', which runs with the rights of ', pg_get_userbyid(proowner), ', may be called by the restricted role')
FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace
WHERE prosecdef AND prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
      AND nspname NOT IN ('pg_catalog', 'information_schema') AND proname NOT LIKE 'dataflow\\_%'
      AND has_schema_privilege($1::name, pronamespace, 'USAGE')
      AND has_function_privilege($1::name, pg_proc.oid, 'EXECUTE')
ORDER BY 1"""
_FRAMEWORK = """\
SELECT concat('table ', relname, ': the restricted role may look into it')
FROM pg_class
WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relkind IN ('r', 'p', 'v', 'm')
      AND relname LIKE 'dataflow\\_%' AND NOT relrowsecurity
      AND has_any_column_privilege($1::name, pg_class.oid, 'SELECT, INSERT, UPDATE, REFERENCES')
ORDER BY relname"""
"""Tables of the framework's own are nothing to tenants, unless policies of their own bind them."""
