"""Tenancy that the server itself enforces: a role without privileges, policies on the tables, a tenant that is proven.

Calls that are not privileged get connections of a role that owns nothing and that row-level security binds. Policies
compare a row's tenant with `dataflow_tenant()`, which believes a connection's settings only with a proof that the
framework alone can make (`dataflow.postgres.proof`). Everything lies in the DataFlow's own schema, is made by its owner
under the schema lock, and is looked at again when a process starts. The rest of the catalogs is looked at, never
changed, by `dataflow.postgres.inspection`.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs

from dataflow.config import DatabaseURL, parse_url
from dataflow.dialect import COUNT, Command, Dialect, Program, Session, refuse_unknown_context
from dataflow.errors import ConfigurationError, DataFlowError, NotYetAvailable
from dataflow.model import ModelSpec
from dataflow.postgres import confinement_sql as texts
from dataflow.postgres.inspection import problems
from dataflow.postgres.proof import Key, verifier

CONTEXT = "context"
"""What a command returns that lets the connection know of the call it serves; the session words it."""
ENTER = Command(texts.ENTER, CONTEXT)
_BEGIN, _COMMIT, _ROLLBACK = (Command(word, COUNT) for word in ("BEGIN", "COMMIT", "ROLLBACK"))
_FLAGS = ("SUPERUSER", "BYPASSRLS", "CREATEDB", "CREATEROLE", "REPLICATION")
_VERSION = 1
"""Of the policies: what an older release made is made anew."""


@attrs.define(eq=False)
class Confinement:
    """What one DataFlow knows of its confinement; shared by its dialect and its connections.

    Attributes:
        url: of the restricted role, where an administrator has prepared one.
        creates: whether what is missing may be made.
        models: the registered models; None: connections are not confined.
        base: what all tables share, once it was found.
        making: whether it is being made, in a transaction that may yet be undone.
    """

    url: DatabaseURL | None = attrs.field(repr=False)
    creates: bool
    models: Callable[[], Iterable[ModelSpec]] | None = None
    base: "Restricted | None" = attrs.field(default=None, repr=False)
    making: bool = False

    def covers(self, table: str) -> bool:
        """Tell whether the rows of a table are confined."""
        return self.models is not None and any(spec.scope and spec.table == table for spec in self.models())


@attrs.frozen
class Place:
    """Where the owner's connection is, and what it may do there.

    Attributes:
        database, schema: names.
        identity: of the database, other than that of its copies.
        user: the owner's role.
        version: of the server, as 180004.
        creates_roles: whether it may create roles.
        hides: whether it may keep the statements of a role out of pg_stat_activity.
    """

    database: str
    schema: str
    identity: str
    user: str
    version: int
    creates_roles: bool
    hides: bool


@attrs.frozen
class Restricted:
    """The role that confined connections log in as.

    Attributes:
        role: its name.
        password: None where an administrator has prepared it.
        key: of the proofs.
        place: database and what tells it from its copies.
        hides: whether one tenant's statements are kept from others, who log in as the same role.
    """

    role: str
    password: str | None = attrs.field(repr=False)
    key: Key
    place: Place
    hides: bool


class Confining(Dialect):
    """The part of the PostgreSQL dialect that makes and checks the confinement."""

    confinement: Confinement
    schema: str | None

    def enter(self, session: Session, context: Mapping[str, str]) -> Program[None]:
        """Tell the server in one statement; the session adds the proof."""
        refuse_unknown_context(context)
        yield ENTER, ({**session.context, **context},)

    # -- the role, the key, the functions ---------------------------------------------------------------------------
    def restricted(self) -> Program[Restricted]:
        """Return the restricted role and the key, on a connection of the owner's; make them if need be.

        Raises:
            ConfigurationError: there is no such role and none can be made, or it may do too much.
        """
        found = yield from self._found()
        if found is None:
            if not self.confinement.creates:
                msg = "the database is not prepared to keep tenants apart"
                hint = (
                    "let it be: DataFlow(auto_migrate=True, existing_schema_mode=False), once, as owner of the tables"
                )
                raise ConfigurationError(msg, hint=hint, code="not-confined")
            yield _BEGIN, ()
            try:
                yield from self.schema_lock()
                yield from self.before_tables(())
                yield from self._make_base()
                yield _COMMIT, ()
            except GeneratorExit:
                raise
            except BaseException:
                yield _ROLLBACK, ()
                raise
            found = yield from self._found()
            assert found is not None
        yield from self._refuse_unsafe(found)
        return found

    def _place(self) -> Program[Place]:
        (row,) = yield Command(texts.PLACE), (self.schema or "",)
        database, schema, identity, user, version, creates_roles, superuser = row
        hides = superuser
        if version >= 150_000 and not superuser:
            ((hides,),) = yield Command(texts.MAY_HIDE), ()
        return Place(database, schema, identity, user, version, creates_roles or superuser, hides)

    def _role(self, place: Place) -> str:
        if self.confinement.url is None:
            known = hashlib.sha256(f"{place.database}\0{place.schema}".encode()).hexdigest()[:16]
            return f"dataflow_tenant_{known}"  # roles are those of all databases of a server
        if not self.confinement.url.user:
            msg = "the setting postgres_tenant_url names no user"
            raise ConfigurationError(msg, hint="write postgresql://user:password@host/database", code="bad-url")
        return self.confinement.url.user

    def _found(self) -> Program[Restricted | None]:
        """Return what is there already, if that is all and as it should be."""
        place = yield from self._place()
        role = self._role(place)
        ((tables, hides),) = yield Command(texts.TABLES), (place.schema, role)
        if not tables or hides is None:
            return None
        keys = yield Command(texts.KEY.format(schema=self.quote(place.schema))), (place.identity, role)
        if not keys or (keys[0][2] is None and self.confinement.url is None):
            return None
        if (yield Command(texts.GRANTEES), (place.schema,)):
            return None
        functions = texts.functions(self.quote(place.schema), place.version)
        rows = yield Command(texts.FUNCTIONS), (place.schema, role, list(functions))
        if {name: source for name, source, safe in rows if safe} != {n: made.body for n, made in functions.items()}:
            return None
        inner, outer, password = keys[0]
        return Restricted(role, password, Key(inner, outer), place, hides)

    def _known(self) -> Program[Restricted | None]:
        """Return what `_found` returns, which is looked at once, not for each model."""
        found = self.confinement.base or (yield from self._found())
        if not self.confinement.making:
            self.confinement.base = found
        return found

    def _make_base(self) -> Program[tuple[Place, str]]:
        """Make what all tables share: the tables of key and role, the role, the functions. Returns place and role."""
        self.confinement.making = True
        place = yield from self._place()
        role, schema = self._role(place), self.quote(place.schema)
        for sql in texts.make_tables(schema):
            yield Command(sql, COUNT, writes=True), ()
        for table, grantee in (yield Command(texts.GRANTEES), (place.schema,)):
            yield Command(f"REVOKE ALL ON {schema}.{table} FROM {grantee}", COUNT, writes=True), ()
        key = Key.new()
        sql = texts.FORGET_COPIED.format(schema=schema)
        yield Command(sql, COUNT, writes=True), (place.identity,)
        sql = texts.MAKE_KEY.format(schema=schema)
        yield Command(sql, COUNT, writes=True), (place.identity, key.inner, key.outer)
        if self.confinement.url is None:
            yield from self._make_role(place, role)
        elif not (yield Command(texts.FLAGS), (role, place.schema)):
            msg = f"the role {role} of postgres_tenant_url does not exist"
            raise ConfigurationError(msg, hint=f"CREATE ROLE {self.quote(role)} LOGIN PASSWORD '…'", code="no-role")
        for sql in texts.make_base(schema, self.quote(role), place.version):
            yield Command(sql, COUNT, writes=True), ()
        ((connects,),) = yield Command("SELECT has_database_privilege($1, current_database(), 'CONNECT')"), (role,)
        if not connects:
            sql = f"GRANT CONNECT ON DATABASE {self.quote(place.database)} TO {self.quote(role)}"
            yield Command(sql, COUNT, writes=True), ()
        return place, role

    def _make_role(self, place: Place, role: str) -> Program[None]:
        """Create the role, or give the one that is left from an earlier schema of the same name a password."""
        schema, name = self.quote(place.schema), self.quote(role)
        stored = yield Command(texts.PASSWORD.format(schema=schema)), (role,)
        flags = yield Command(texts.FLAGS), (role, place.schema)
        if stored and flags:
            return
        password = stored[0][0] if stored else secrets.token_urlsafe(32)
        made = f"ALTER ROLE {name} LOGIN" if flags else f"CREATE ROLE {name} {texts.ROLE_OPTIONS}"
        by_hand = f"CREATE ROLE {name} {texts.ROLE_OPTIONS} PASSWORD '…'"
        hint = f"have an administrator run: {by_hand}; then set postgres_tenant_url to a URL of that role"
        if not place.creates_roles:
            msg = f"the user {place.user} may not create the role that confined connections need"
            raise ConfigurationError(msg, hint=hint, code="no-createrole")
        try:
            yield Command(f"{made} PASSWORD '{verifier(password)}'", COUNT, writes=True), ()
            if place.hides:
                yield Command(f"ALTER ROLE {name} SET track_activities = off", COUNT, writes=True), ()
        except DataFlowError as error:
            msg = f"the user {place.user} could not make the role that confined connections need"
            raise ConfigurationError(msg, hint=hint, code="no-createrole") from error
        yield Command(texts.KEEP_ROLE.format(schema=schema), COUNT, writes=True), (role, password)

    def _refuse_unsafe(self, found: Restricted) -> Program[None]:
        ((*flags, member, owns, creates),) = yield Command(texts.FLAGS), (found.role, found.place.schema)
        name, schema = self.quote(found.role), self.quote(found.place.schema)
        unsafe = [word for word, given in zip(_FLAGS, flags, strict=True) if given]
        wrong = [(word, f"ALTER ROLE {name} NO{word}") for word in unsafe]
        if member:
            wrong.append(("membership in other roles", f"REVOKE … FROM {name}"))
        if owns:
            wrong.append(("objects of its own", f"REASSIGN OWNED BY {name} TO {self.quote(found.place.user)}"))
        if creates:
            wrong.append((f"the right to create in {schema}", f"REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC, {name}"))
        if wrong:
            msg = f"the role {found.role}, which is to be confined, has {', '.join(what for what, _ in wrong)}"
            raise ConfigurationError(msg, hint="; ".join(fix for _, fix in wrong), code="unsafe-role")

    # -- the tables -------------------------------------------------------------------------------------------------
    def enclosed(self, model: ModelSpec) -> Program[bool]:
        found = yield from self._known()
        if found is None:
            return False
        rows = yield Command(texts.ENCLOSED), (model.table, found.role, self._generated(model), _VERSION)
        if not rows:
            return False
        ((granted, too_much, forced, own, owners),) = rows
        if not granted or too_much:
            return False
        return not model.scope or (forced and own and owners)

    def enclose(self, model: ModelSpec) -> Program[None]:
        """Create policies and grants, and what all tables share if this is the first.

        Raises:
            ConfigurationError: see `restricted`; or the model has a scope of several fields.
        """
        if len(model.scope) > 1:
            msg = f"the scope of model {model.name} has several fields, and a policy compares one"
            raise NotYetAvailable(msg, hint="let the scope be the tenant's field alone", code="unsupported")
        found = yield from self._known()
        place, role = (yield from self._make_base()) if found is None else (found.place, found.role)
        table, name = self.quote(model.table), self.quote(role)
        for sql in texts.grants(table, name):
            yield Command(sql, COUNT, writes=True), ()
        for field in self._generated(model):
            rows = yield Command("SELECT pg_get_serial_sequence($1, $2)"), (table, field)
            if rows[0][0] is not None:
                yield Command(f"GRANT USAGE ON SEQUENCE {rows[0][0]} TO {name}", COUNT, writes=True), ()
        if not model.scope:
            return
        ((kind, owner),) = yield Command(texts.COLUMN), (model.table, model.scope[0])
        condition = texts.condition(self.quote(model.scope[0]), kind, self.quote(place.schema))
        for sql in texts.policies(table, name, condition, f"{owner}, CURRENT_USER"):
            yield Command(sql, COUNT, writes=True), ()
        ((comment,),) = yield Command(texts.SIGNED), (model.table, role, _VERSION)
        yield Command(f"COMMENT ON POLICY {name} ON {table} IS '{comment}'", COUNT, writes=True), ()

    @staticmethod
    def _generated(model: ModelSpec) -> list[str]:
        return [field.name for field in model.fields.values() if field.generated]

    def enforcement_problems(self, models: Sequence[ModelSpec]) -> Program[list[str]]:
        """List what keeps the database from confining connections, in sentences; empty: nothing.

        For a health check, on a connection of the owner's.
        """
        place = yield from self._place()
        found = yield from self._found()
        listed: list[str] = []
        if found is None:
            listed.append(
                "the restricted role, the key or the functions are missing, or differ from what DataFlow made"
            )
        role = self._role(place)
        if not (yield Command(texts.FLAGS), (role, place.schema)):
            return [*listed, f"the restricted role {role} does not exist"]
        if found is not None:
            try:
                yield from self._refuse_unsafe(found)
            except ConfigurationError as error:
                listed.append(f"{error.message}: {error.hint}")
        own: dict[str, Any] = {}
        for model in models:
            rows = yield Command(texts.ENCLOSED), (model.table, role, self._generated(model), _VERSION)
            own[model.table] = rows[0] if rows else None
        listed += yield from problems(models, own, role, place.version)
        return listed


def tenant_url(text: str | None) -> DatabaseURL | None:
    """Read the setting postgres_tenant_url. Raises ConfigurationError for one that is no such URL."""
    if text is None:
        return None
    url = parse_url(text)
    if not url.scheme.startswith("postgres"):
        msg = "the setting postgres_tenant_url is no URL of PostgreSQL"
        raise ConfigurationError(msg, hint="write postgresql://user:password@host/database", code="bad-url")
    return url
