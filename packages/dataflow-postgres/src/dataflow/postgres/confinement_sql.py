"""The SQL of `dataflow.postgres.confinement`: tables, functions, policies and grants, and how they are found again.

Functions name everything with its schema, for whoever calls them chooses the search path.
"""

import attrs

ROLE_OPTIONS = "LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION NOINHERIT"
ENTER = """\
SELECT pg_catalog.set_config('dataflow.tenant', $1, $7), pg_catalog.set_config('dataflow.actor', $2, $7),
       pg_catalog.set_config('dataflow.run', $3, $7), pg_catalog.set_config('dataflow.node', $4, $7),
       pg_catalog.set_config('dataflow.proof', $5, $7), pg_catalog.set_config('dataflow.backend', $6, $7)"""
BACKEND = """\
SELECT its::text,
       pg_catalog.concat(pg_catalog.pg_backend_pid(), '|', (extract(epoch FROM started) * 1000000)::pg_catalog.int8)
FROM pg_catalog.pg_stat_get_backend_idset() AS its, pg_catalog.pg_stat_get_backend_start(its) AS started
WHERE pg_catalog.pg_stat_get_backend_pid(its) = pg_catalog.pg_backend_pid()"""
"""A connection's number among those of the server, and what no other connection ever has in common with it."""
PLACE = """\
SELECT current_database()::text, coalesce(current_schema()::text, $1),
       (SELECT concat(system_identifier, '/', oid) FROM pg_control_system(), pg_database
        WHERE datname = current_database()),
       current_user::text, current_setting('server_version_num')::int, rolcreaterole, rolsuper
FROM pg_roles WHERE rolname = current_user"""
MAY_HIDE = "SELECT has_parameter_privilege('track_activities', 'SET')"
TABLES = """\
SELECT to_regclass(quote_ident($1) || '.dataflow_tenant_key') IS NOT NULL
       AND to_regclass(quote_ident($1) || '.dataflow_tenant_role') IS NOT NULL,
       (SELECT coalesce('track_activities=off' = ANY (rolconfig), false) FROM pg_roles WHERE rolname = $2)"""
KEY = """\
SELECT inner_key, outer_key, (SELECT password FROM {schema}.dataflow_tenant_role WHERE role = $2)
FROM {schema}.dataflow_tenant_key WHERE place = $1"""
GRANTEES = """\
SELECT DISTINCT relname::text, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
FROM pg_class, aclexplode(relacl)
WHERE relnamespace = to_regnamespace(quote_ident($1)) AND grantee <> relowner
      AND relname IN ('dataflow_tenant_key', 'dataflow_tenant_role')"""
"""Who may do anything with the tables that are the owner's alone."""
FUNCTIONS = """\
SELECT proname::text, prosrc,
       pronamespace = to_regnamespace(quote_ident($1)) AND proowner <> to_regrole(quote_ident($2::name))
       AND (prosecdef AND proconfig = ARRAY['search_path=pg_catalog, pg_temp'] OR proname = 'dataflow_tenant')
       AND has_function_privilege($2::name, pg_proc.oid, 'EXECUTE')
       AND has_schema_privilege($2::name, pronamespace, 'USAGE')
FROM pg_proc WHERE pronamespace = to_regnamespace(quote_ident($1)) AND proname = ANY ($3::text[])"""
FLAGS = """\
SELECT rolsuper, rolbypassrls, rolcreatedb, rolcreaterole, rolreplication,
       EXISTS (SELECT FROM pg_auth_members WHERE member = its.oid),
       EXISTS (SELECT FROM pg_class WHERE relowner = its.oid AND relpersistence <> 't')
       OR EXISTS (SELECT FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace
                  WHERE proowner = its.oid AND nspname NOT LIKE 'pg\\_temp%')
       OR EXISTS (SELECT FROM pg_namespace WHERE nspowner = its.oid)
       OR EXISTS (SELECT FROM pg_database WHERE datdba = its.oid),
       coalesce(has_schema_privilege($1::name, to_regnamespace(quote_ident($2)), 'CREATE'), false)
FROM pg_roles AS its WHERE rolname = $1::name"""
PASSWORD = "SELECT password FROM {schema}.dataflow_tenant_role WHERE role = $1"  # noqa: S105
MAKE_KEY = "INSERT INTO {schema}.dataflow_tenant_key VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
FORGET_COPIED = "DELETE FROM {schema}.dataflow_tenant_key WHERE place <> $1"
"""The key of the database that this one is a copy of is known to others."""
KEEP_ROLE = """\
INSERT INTO {schema}.dataflow_tenant_role VALUES ($1, $2)
ON CONFLICT (role) DO UPDATE SET password = excluded.password"""
_DIGEST = "md5(concat(pg_get_expr(polqual, polrelid), ' | ', pg_get_expr(polwithcheck, polrelid)))"
_TABLE = "to_regclass(quote_ident(current_schema()) || '.' || quote_ident($1))"
ENCLOSED = f"""\
SELECT has_table_privilege($2::name, its.oid, 'SELECT') AND has_table_privilege($2::name, its.oid, 'INSERT')
       AND has_table_privilege($2::name, its.oid, 'UPDATE') AND has_table_privilege($2::name, its.oid, 'DELETE')
       AND (SELECT coalesce(bool_and(has_sequence_privilege($2::name, counter, 'USAGE')), true)
            FROM unnest($3::text[]) AS named, pg_get_serial_sequence(its.oid::regclass::text, named) AS counter
            WHERE counter IS NOT NULL),
       has_table_privilege($2::name, its.oid, 'TRUNCATE') OR has_table_privilege($2::name, its.oid, 'REFERENCES')
       OR has_table_privilege($2::name, its.oid, 'TRIGGER'),
       relrowsecurity AND relforcerowsecurity,
       EXISTS (SELECT FROM pg_policy
               WHERE polrelid = its.oid AND polname = $2::name AND polcmd = '*' AND polpermissive
                     AND polroles = ARRAY[to_regrole(quote_ident($2::name))::oid]
                     AND obj_description(oid, 'pg_policy') = concat('dataflow:', $4::int, ':', {_DIGEST})),
       EXISTS (SELECT FROM pg_policy
               WHERE polrelid = its.oid AND polname = 'dataflow_owner' AND polcmd = '*' AND polpermissive
                     AND polroles @> ARRAY[relowner]
                     AND NOT polroles && ARRAY[0::oid, to_regrole(quote_ident($2::name))::oid]
                     AND pg_get_expr(polqual, polrelid) = 'true' AND pg_get_expr(polwithcheck, polrelid) = 'true')
FROM pg_class AS its WHERE its.oid = {_TABLE}"""  # noqa: S608
"""Whether the role has its privileges, whether it has others, whether policies bind everybody, and whether the role's
and the owner's are as they were made: a digest in a policy's comment tells."""
COLUMN = f"""\
SELECT format_type(atttypid, NULL), quote_ident(pg_get_userbyid(relowner))
FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
WHERE attrelid = {_TABLE} AND attname = $2 AND NOT attisdropped"""  # noqa: S608
SIGNED = f"""\
SELECT concat('dataflow:', $3::int, ':', {_DIGEST}) FROM pg_policy WHERE polrelid = {_TABLE} AND polname = $2::name"""  # noqa: S608


@attrs.frozen
class Function:
    """A function that policies or the framework call: its body, and the statement that makes it."""

    body: str
    statement: str


_START = """\
pg_catalog.pg_stat_get_backend_start(pg_catalog.substring(
    pg_catalog.current_setting('dataflow.backend', true), '^[0-9]{1,9}$')::pg_catalog.int4)"""
"""A setting tells where to look, for looking through all connections costs more than all the rest; whoever sets it to
another's number gets another's start, and no proof fits that."""
_START_BEFORE_16 = """\
(SELECT its.backend_start FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) AS its)"""
_PROVEN = """
DECLARE
    tenant text := current_setting('dataflow.tenant', true);
    expected text;
BEGIN
    IF tenant IS NULL OR tenant = '' THEN
        RETURN NULL;
    END IF;
    -- The key goes from the table into the hash: it is never a constant of a plan, which settings may print.
    SELECT encode(sha256(outer_key || sha256(inner_key || convert_to(concat(
        pg_backend_pid(), '|', (extract(epoch FROM started) * 1000000)::bigint, '|', tenant), 'UTF8'))), 'hex')
        INTO expected FROM {schema}.dataflow_tenant_key;
    -- Hashed once more, so that the time that the comparison takes tells nothing.
    IF sha256(convert_to(current_setting('dataflow.proof', true), 'UTF8'))
            IS DISTINCT FROM sha256(convert_to(expected, 'UTF8')) THEN
        RAISE insufficient_privilege USING MESSAGE = 'dataflow: the tenant of this connection is not proven';
    END IF;
    RETURN tenant;
END
"""
_ADVANCE = """
DECLARE
    counted regclass := to_regclass(format('{schema}.%I', of_table));
    counter regclass;
BEGIN
    IF counted IS NULL OR NOT has_table_privilege(session_user, counted, 'INSERT') THEN
        RAISE insufficient_privilege USING MESSAGE = 'dataflow: ids of this table are not yours to count';
    END IF;
    counter := pg_get_serial_sequence(format('{schema}.%I', of_table), of_column);
    PERFORM pg_advisory_xact_lock(hashtextextended(counter::text, 0));
    highest := least(highest, 4611686018427387904);  -- there must be numbers left for others
    IF coalesce(pg_sequence_last_value(counter), 0) < highest THEN
        PERFORM setval(counter, highest);
    END IF;
END
"""
_DEFINER = "SECURITY DEFINER SET search_path = pg_catalog, pg_temp"


def functions(schema: str, version: int) -> dict[str, Function]:
    """Return the functions by name.

    Args:
        schema: where they are, quoted.
        version: of the server, as 180004.
    """
    literal = schema.replace("'", "''")
    tenant = f"SELECT {schema}.dataflow_proven({_START if version >= 160_000 else _START_BEFORE_16})"
    proven = _PROVEN.replace("{schema}", schema)
    advance = _ADVANCE.replace("{schema}", literal.replace("%", "%%"))
    read = "STABLE PARALLEL RESTRICTED"  # parallel workers are processes of their own
    heads = {
        "dataflow_proven(started timestamptz)": (f"text LANGUAGE plpgsql {read} {_DEFINER}", proven),
        "dataflow_tenant()": (f"text LANGUAGE sql {read}", tenant),
        "dataflow_advance(of_table text, of_column text, highest bigint)": (
            f"void LANGUAGE plpgsql {_DEFINER}",
            advance,
        ),
    }
    return {
        head.partition("(")[0]: Function(
            body, f"CREATE OR REPLACE FUNCTION {schema}.{head} RETURNS {rest} AS {_quoted(body)}"
        )
        for head, (rest, body) in heads.items()
    }


def _quoted(body: str) -> str:
    return "'" + body.replace("'", "''") + "'"


def make_tables(schema: str) -> list[str]:
    """Return what makes the tables that are the owner's alone."""
    tables = {
        "dataflow_tenant_key": "place text PRIMARY KEY, inner_key bytea NOT NULL, outer_key bytea NOT NULL",
        "dataflow_tenant_role": "role text PRIMARY KEY, password text NOT NULL",
    }
    return [f"CREATE TABLE IF NOT EXISTS {schema}.{name} ({columns})" for name, columns in tables.items()]


def make_base(schema: str, role: str, version: int) -> list[str]:
    """Return what makes the functions, and lets the role use them and the schema; names are quoted."""
    made = functions(schema, version)
    every = ", ".join(f"{schema}.{name}" for name in made)
    return [
        *(function.statement for function in made.values()),
        f"REVOKE ALL ON FUNCTION {every} FROM PUBLIC",
        f"GRANT EXECUTE ON FUNCTION {every} TO {role}",
        f"REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC, {role}",
        f"GRANT USAGE ON SCHEMA {schema} TO {role}",
    ]


def grants(table: str, role: str) -> list[str]:
    """Return what lets the role read and change the rows of a table, and nothing else; names are quoted."""
    return [
        f"REVOKE TRUNCATE, REFERENCES, TRIGGER ON {table} FROM PUBLIC, {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {role}",
    ]


def policies(table: str, role: str, condition: str, owners: str) -> list[str]:
    """Return what binds the role to a condition, and lets the owners pass; names are quoted."""
    return [
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        f"DROP POLICY IF EXISTS {role} ON {table}",
        f"DROP POLICY IF EXISTS dataflow_owner ON {table}",
        f"CREATE POLICY {role} ON {table} TO {role} USING ({condition}) WITH CHECK ({condition})",
        f"CREATE POLICY dataflow_owner ON {table} TO {owners} USING (true) WITH CHECK (true)",
    ]


def condition(column: str, kind: str, schema: str) -> str:
    """Return the policy's condition; the subquery is evaluated once a statement, so that indexes serve.

    Args:
        column: that holds the tenant, quoted.
        kind: its type, as the server writes it.
        schema: of the function, quoted.
    """
    tenant = f"(SELECT {schema}.dataflow_tenant())"
    return f"{column} = {tenant if kind == 'text' else f'CAST({tenant} AS {kind})'}"
