"""Privileges of roles: the statements that give a role what is wanted, and what the catalogs say that it has.

A role has what it was granted itself, what everybody was, and what any role was that it is a member of, for it can
become that one. An owner's rights cannot be taken away, for it can give them back to itself.
"""

from collections.abc import Collection, Mapping, Sequence

import attrs

from dataflow.dialect import Command, Dialect, Program
from dataflow.errors import ConfigurationError, SchemaError
from dataflow.files.journal import TABLE as LOADS
from dataflow.privileges import ALL, RolePrivileges, TablePrivileges

NOTES = "dataflow_audit_note"
_SECRET = "dataflow_tenant_"  # noqa: S105  # what the names of the owner's own tables begin with
_USED: Mapping[str, tuple[str, ...]] = {LOADS: ("INSERT", "UPDATE", "DELETE"), NOTES: ("INSERT",)}
"""What the framework does to its own tables besides reading: it notes how far loads are, and who passes a guard."""


@attrs.frozen
class _Place:
    """Where the connection is, and what is known of a role there.

    Attributes:
        database, schema: names.
        user: whom the connection belongs to.
        unsafe: why nothing can be kept from the role, or ""; None: there is no such role.
        connects: whether it may connect to the database.
    """

    database: str
    schema: str
    user: str
    unsafe: str | None
    connects: bool


@attrs.frozen
class _Table:
    """A table of the schema.

    Attributes:
        name: its name.
        owner: who owns it.
        kept: whether anything can be kept from the role: it neither is the owner nor can become it.
        ours: whether the connected user may grant: it is the owner, or has its rights.
        counters: column -> sequence of its ids.
    """

    name: str
    owner: str
    kept: bool
    ours: bool
    counters: Mapping[str, str]


class Granting(Dialect):
    """The part of the PostgreSQL dialect that writes and reads privileges."""

    schema: str | None

    def grants(self, wanted: RolePrivileges) -> Program[list[str]]:
        place = yield from self._place_of(wanted.role)
        rows = yield Command(_TABLES), (place.schema, list(wanted.tables), wanted.role)
        tables = {
            name: _Table(name, owner, kept, ours, dict(zip(columns, counters, strict=True)))
            for name, owner, kept, ours, columns, counters in rows
        }
        self._refuse_missing(wanted.tables, tables, place)
        self._refuse_owner(wanted.role, tables.values())
        self._refuse_stranger(place.user, tables.values())
        schema, role = self.quote(place.schema), self.quote(wanted.role)
        found = [] if place.connects else [f"GRANT CONNECT ON DATABASE {self.quote(place.database)} TO {role}"]
        if not wanted.creates:
            found.append(f"REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC, {role}")
        found.append(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
        for name, privileges in sorted(wanted.tables.items()):
            found += self._of_table(tables[name], privileges, schema, role)
        writes = any(privileges != TablePrivileges() for privileges in wanted.tables.values())
        for name in sorted(tables.keys() - wanted.tables.keys()):
            found += self._of_own(name, schema, role, writes=writes)
        return found

    def _place_of(self, role: str) -> Program[_Place]:
        ((database, schema, user, unsafe, connects),) = yield Command(_PLACE), (role,)
        if schema is None:
            msg = "the schema of the tables is not there"
            raise SchemaError(msg, hint="create the tables first, as their owner", code="missing-table")
        if unsafe is None:
            hint = f"have an administrator run: CREATE ROLE {self.quote(role)} LOGIN PASSWORD '…'"
            raise ConfigurationError(f"there is no role {role!r}", hint=hint, code="no-role")
        if unsafe:
            msg = f"nothing can be kept from the role {role!r}: it {unsafe}"
            raise ConfigurationError(msg, hint="use a role without privileges of its own", code="unsafe-role")
        return _Place(database, schema, user, unsafe, connects)

    @staticmethod
    def _refuse_missing(wanted: Collection[str], found: Collection[str], place: _Place) -> None:
        missing = sorted(set(wanted) - set(found))
        if missing:
            msg = f"the schema {place.schema!r} has no table {', '.join(missing)}"
            hint = "create the tables first, as their owner: await db.initialize(), or dataflow migrate apply"
            raise SchemaError(msg, hint=hint, code="missing-table")

    def _refuse_owner(self, role: str, tables: Collection[_Table]) -> None:
        owned = next((table for table in tables if not table.kept), None)
        if owned is None:
            return
        if owned.owner == role:
            msg = f"nothing can be kept from the role {role!r}: it owns the table {owned.name}"
            hint = "let another role own the tables"
        else:
            msg = f"nothing can be kept from the role {role!r}: it is a member of {owned.owner}, who owns {owned.name}"
            hint = f"REVOKE {self.quote(owned.owner)} FROM {self.quote(role)}"
        raise ConfigurationError(msg, hint=hint, code="unsafe-role")

    @staticmethod
    def _refuse_stranger(user: str, tables: Collection[_Table]) -> None:
        """Refuse to grant as somebody who may not: the server would only warn."""
        strange = next((table for table in tables if not table.ours), None)
        if strange is not None:
            msg = f"the connected user {user!r} may not grant privileges on the table {strange.name}"
            raise ConfigurationError(msg, hint=f"connect as its owner, {strange.owner}", code="not-owner")

    def _of_table(self, table: _Table, wanted: TablePrivileges, schema: str, role: str) -> list[str]:
        name = f"{schema}.{self.quote(table.name)}"
        words = ["SELECT", self._on_columns("INSERT", wanted.insert), self._on_columns("UPDATE", wanted.update)]
        words += ["DELETE"] if wanted.delete else []
        found = [
            f"REVOKE ALL ON TABLE {name} FROM {role}",
            f"GRANT {', '.join(filter(None, words))} ON TABLE {name} TO {role}",
        ]
        for column, counter in table.counters.items():
            found.append(f"REVOKE ALL ON SEQUENCE {counter} FROM {role}")
            if wanted.insert:  # an id that the caller chose sets the counter: that is UPDATE
                usage = "USAGE, UPDATE" if wanted.inserts(column) else "USAGE"
                found.append(f"GRANT {usage} ON SEQUENCE {counter} TO {role}")
        return found

    def _on_columns(self, privilege: str, columns: Collection[str]) -> str:
        if not columns or ALL in columns:
            return privilege if columns else ""
        return f"{privilege} ({', '.join(map(self.quote, sorted(columns)))})"

    def _of_own(self, name: str, schema: str, role: str, *, writes: bool) -> list[str]:
        """Return what the role may do with a table of the framework's own."""
        table = f"{schema}.{self.quote(name)}"
        revoked = f"REVOKE ALL ON TABLE {table} FROM {role}"
        if name.startswith(_SECRET):
            return [revoked]
        words = ["SELECT", *(_USED.get(name, ()) if writes else ())]
        return [revoked, f"GRANT {', '.join(words)} ON TABLE {table} TO {role}"]

    def privileges(self, tables: Sequence[str], role: str | None = None) -> Program[RolePrivileges]:
        ((name, creates),) = yield Command(_CREATES), (role,)
        if creates is None:
            raise ConfigurationError(f"there is no role {name!r}", hint="check its name", code="no-role")
        rows = yield Command(_PRIVILEGES), (list(tables), name)
        found = {
            table: TablePrivileges(frozenset(insert), frozenset(update), delete, more)
            for table, insert, update, delete, more in rows
        }
        return RolePrivileges(name, found, creates)


_PLACE = """\
SELECT current_database()::text, current_schema()::text, current_user::text,
       CASE WHEN rolsuper THEN 'is a superuser'
            WHEN rolcreaterole THEN 'may create roles, and so make itself a member of others'
            WHEN rolname IS NOT NULL THEN '' END,
       coalesce(has_database_privilege(rolname, current_database(), 'CONNECT'), false)
FROM (VALUES ($1::name)) AS asked (name) LEFT JOIN pg_roles ON rolname = asked.name"""
_TABLES = """\
WITH counted AS (
    SELECT refobjid AS its, attname::text, format('%I.%I', nspname, pg_class.relname) AS counter
    FROM pg_depend JOIN pg_class ON pg_class.oid = objid AND relkind = 'S'
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
    WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass AND deptype IN ('a', 'i'))
SELECT relname::text, pg_get_userbyid(relowner)::text, NOT pg_has_role($3::name, relowner, 'MEMBER'),
       pg_has_role(relowner, 'USAGE'),
       ARRAY(SELECT attname FROM counted WHERE its = pg_class.oid ORDER BY counter),
       ARRAY(SELECT counter FROM counted WHERE its = pg_class.oid ORDER BY counter)
FROM pg_class
WHERE relnamespace = to_regnamespace(quote_ident($1)) AND relkind IN ('r', 'p', 'v', 'f')
      AND (relname = ANY ($2::text[]) OR relname LIKE 'dataflow\\_%')"""
"""Tables of models, and the framework's own: who owns them, and which counters their columns have."""
_BECOMES = "SELECT oid FROM pg_roles WHERE pg_has_role($2::name, oid, 'MEMBER')"
_CREATES = """\
SELECT asked.name::text,
       CASE WHEN its.oid IS NOT NULL THEN
           EXISTS (SELECT FROM pg_roles AS becomes
                   WHERE pg_has_role(its.oid, becomes.oid, 'MEMBER')
                         AND has_schema_privilege(becomes.oid, current_schema()::text, 'CREATE')) END
FROM (VALUES (coalesce($1::name, session_user))) AS asked (name)
LEFT JOIN pg_roles AS its ON its.rolname = asked.name"""
_PRIVILEGES = f"""\
WITH becomes AS MATERIALIZED ({_BECOMES}),
its AS (
    SELECT pg_class.oid, relname::text, relowner IN (SELECT oid FROM becomes) AS owned
    FROM pg_class
    WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relname = ANY ($1::text[])
          AND relkind IN ('r', 'p', 'v', 'f')),
columns AS (
    SELECT attrelid, attname::text,
           owned OR EXISTS (SELECT FROM becomes WHERE has_column_privilege(becomes.oid, attrelid, attnum, 'INSERT'))
               AS inserts,
           owned OR EXISTS (SELECT FROM becomes WHERE has_column_privilege(becomes.oid, attrelid, attnum, 'UPDATE'))
               AS updates
    FROM its JOIN pg_attribute ON attrelid = its.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = '')
SELECT relname, ARRAY(SELECT attname FROM columns WHERE attrelid = its.oid AND inserts),
       ARRAY(SELECT attname FROM columns WHERE attrelid = its.oid AND updates),
       owned OR EXISTS (SELECT FROM becomes WHERE has_table_privilege(becomes.oid, its.oid, 'DELETE')),
       owned OR EXISTS (SELECT FROM becomes
                        WHERE has_table_privilege(becomes.oid, its.oid, 'TRUNCATE, TRIGGER')
                              OR has_any_column_privilege(becomes.oid, its.oid, 'REFERENCES'))
FROM its"""  # noqa: S608
