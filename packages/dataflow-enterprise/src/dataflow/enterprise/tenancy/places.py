"""Tenants with a place of their own: a database each (a file each on SQLite), or a schema each (PostgreSQL).

The same models and plans serve all of them; what differs is where a call's connection comes from.
"""

import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from dataflow.config import Config, DatabaseURL
from dataflow.enterprise.tenancy.rows import TENANT, tenant_of
from dataflow.errors import ConfigurationError, TenancyError, UsageError
from dataflow.model import ModelDraft
from dataflow.plan.stages import Stage

if TYPE_CHECKING:
    from dataflow.core import Core
    from dataflow.dialect import Database, Session
    from dataflow.plan.builder import PlanBuilder
    from dataflow.session import Call
    from dataflow.sqltext import Statement

MOST_OPEN = 64
"""Databases of tenants that are kept open; the one used longest ago is closed."""
LONGEST = 63
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


class PlacedTenancy:
    """Lets calls on a model say whose place they mean; the records themselves need no mark."""

    name = "tenancy"
    stage = Stage.SCOPE
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    capability = "multi_tenant"

    def extend_model(self, draft: ModelDraft) -> None:
        """Add the option."""
        draft.add_option(TENANT)

    def extend_plan(self, plan: "PlanBuilder") -> None:
        """Check on every call that its tenant is the one whose place it is in."""
        plan.authorize(_check_place)


def _check_place(call: "Call", fields: tuple[str, ...]) -> None:
    del fields
    tenant_of(call)


def place_of(core: "Core", ambient: Mapping[Any, Any]) -> str:
    """Return the tenant that surrounds a call.

    Raises:
        TenancyError: there is none, or its id cannot be part of a name.
    """
    tenant: str | None = core.around(ambient, "tenant")
    if tenant is None:
        if core.around(ambient, "all_tenants") is not None:
            msg = "each tenant has a database or schema of its own, so that no call sees all of them"
            raise TenancyError(msg, hint="take them one by one: with db.tenant(…):", code="no-tenant")
        msg = "no tenant surrounds the call"
        raise TenancyError(msg, hint="call inside `with db.tenant('acme'):`")
    if not _LETTERS.issuperset(tenant):
        msg = "a tenant's id is part of a name here: letters, digits, _ and -"
        raise TenancyError(msg, hint="choose another id, or tenant_isolation='strict'", code="bad-tenant")
    return tenant


class Places:
    """The guard that sends each call to its tenant's place.

    Args:
        schemas: whether a place is a schema of one database, instead of a database.
        prefix: what its name begins with.
    """

    name = "tenancy"
    confines = False
    exclusive = True

    def __init__(self, *, schemas: bool, prefix: str) -> None:
        self.schemas = schemas
        self.prefix = prefix

    def route(self, core: "Core") -> "PlacedDatabase":
        """Return the connections of all tenants."""
        return PlacedDatabase(core, self)

    def place(self, core: "Core", ambient: Mapping[Any, Any]) -> str:
        """Return whose place a call belongs to.

        Raises:
            TenancyError: no tenant is known, or its id cannot be part of a name.
        """
        tenant = place_of(core, ambient)
        if len(self.prefix) + len(tenant) > LONGEST:
            msg = f"the name of the tenant's place is longer than {LONGEST} bytes"
            raise TenancyError(msg, hint="choose a shorter id, or a shorter tenant_database_prefix", code="bad-tenant")
        return tenant

    def privileged(self, core: "Core", ambient: Mapping[Any, Any]) -> bool:
        """Grant nothing: there are no restricted connections."""
        del core, ambient
        return False

    def context(self, call: "Call", *, writes: bool) -> Mapping[str, str]:
        """Tell connections nothing: they are in the tenant's place."""
        del call, writes
        return {}

    def sql(self, core: "Core", ambient: Mapping[Any, Any], statements: "Sequence[Statement]") -> None:
        """Refuse SQL that leaves the place."""
        del core, ambient
        for statement in statements:
            if statement.verb in ("ATTACH", "DETACH", "SET", "RESET") or (self.schemas and statement.defines):
                msg = f"{statement.verb} could leave the tenant's {'schema' if self.schemas else 'database'}"
                raise TenancyError(msg, hint="send it to another DataFlow, as an administrator", code="confined")

    def escape(self, core: "Core", name: str, reason: str) -> None:
        """Record nothing: the audit log does."""
        del core, name, reason

    def url(self, url: DatabaseURL, tenant: str) -> DatabaseURL:
        """Return the URL of a tenant's database: the file beside that of the DataFlow, or a database of the server."""
        name = f"{self.prefix}{tenant}"
        if not url.scheme.startswith("sqlite"):
            return attrs.evolve(url, path=name)
        if url.path == ":memory:":
            return url
        folder, file = os.path.split(url.path)
        return attrs.evolve(url, path=os.path.join(folder, f"{name}{os.path.splitext(file)[1] or '.db'}"))


class PlacedDatabase:
    """The connections to the places of all tenants, opened as they are used.

    Args:
        core: whose.
        places: names them.
    """

    def __init__(self, core: "Core", places: Places) -> None:
        self.core = core
        self.places = places
        self.main = core.database
        self.blocking = self.main.blocking
        self.closed = False
        self._open: OrderedDict[str, Database] = OrderedDict()
        self._made: set[str] = set()

    def _at(self, tenant: str) -> "Database":
        if self.closed:
            msg = "this DataFlow is closed"
            raise UsageError(msg, hint="create a new one, or close it later", code="closed")
        found = self._open.get(tenant)
        if found is None:
            found = self._open[tenant] = self._connect(tenant)
        self._open.move_to_end(tenant)
        return found

    def _connect(self, tenant: str) -> "Database":
        core, places = self.core, self.places
        settings = dict(core.config)
        url = core.config.url
        if places.schemas:
            settings["postgres_schema"] = f"{places.prefix}{tenant}"
        else:
            url = places.url(url, tenant)
        return core.dialect.connect(url, Config(settings, core.config.explicit, url))

    async def lease(self, *, write: bool, holder: str, place: str) -> "Session":
        """Wait for a connection to a tenant's place."""
        await self._make_room(place)
        if place not in self._made:
            await self._make(place)
        session = await self._at(place).lease(write=write, holder=holder)
        session.place = place
        return session

    def lease_blocking(self, *, write: bool, holder: str, place: str) -> "Session":
        """`lease` for the calling thread; databases that can be driven so are created by opening them."""
        while len(self._open) >= MOST_OPEN and place not in self._open:
            self._open.popitem(last=False)[1].close_blocking()
        session = self._at(place).lease_blocking(write=write, holder=holder)
        session.place = place
        return session

    async def _make(self, place: str) -> None:
        """Create the tenant's database where the server has to be asked for it, and this DataFlow may."""
        core = self.core
        if not self.places.schemas and core.config["auto_migrate"] and not core.config["existing_schema_mode"]:
            session = await self.main.lease(write=True, holder="schema")
            try:
                await session.run(core.dialect.create_database(f"{self.places.prefix}{place}"))
            finally:
                await session.release()
        self._made.add(place)

    async def _make_room(self, place: str) -> None:
        while len(self._open) >= MOST_OPEN and place not in self._open:
            await self._open.popitem(last=False)[1].close()

    def confine(self, models: Any) -> None:
        """Never called: each tenant's place is closed to the others."""
        raise NotImplementedError(models)

    def _all(self) -> "list[Database]":
        self.closed = True
        found = [*self._open.values(), self.main]
        self._open.clear()
        return found

    async def close(self) -> None:
        """Close every connection."""
        for database in self._all():
            await database.close()

    def close_blocking(self) -> None:
        """`close` for the calling thread."""
        for database in self._all():
            database.close_blocking()

    def discard(self) -> None:
        """`close` without waiting."""
        for database in self._all():
            database.discard()

    def describe(self) -> dict[str, Any]:
        """Say where the places are."""
        mode = "schema" if self.places.schemas else "database"
        return {**self.main.describe(), "tenants": f"a {mode} each", "open": len(self._open)}


def check(config: Config) -> None:
    """Check that tenants can have places of their own.

    Raises:
        ConfigurationError: the database has no schemas, or the prefix cannot be part of a name.
    """
    if config["tenant_isolation"] == "schema" and config.url.scheme.startswith("sqlite"):
        msg = "SQLite has no schemas that tenants could have one each of"
        raise ConfigurationError(msg, hint="write tenant_isolation='database': a file each", code="bad-setting")
    if not _LETTERS.issuperset(config["tenant_database_prefix"]):
        msg = "tenant_database_prefix is part of a name: letters, digits, _ and -"
        raise ConfigurationError(msg, hint="write tenant_database_prefix='tenant_'", code="bad-setting")


def refuse_unplaced(config: Config, name: str) -> ConfigurationError:
    """Build the error for a model that belongs to no tenant, where each tenant has a place of its own."""
    msg = f"model {name} is not multi-tenant, and with tenant_isolation={config['tenant_isolation']!r} all models are"
    hint = "set multi_tenant=True, or register what all tenants share on a DataFlow of its own"
    return ConfigurationError(msg, hint=hint, where={"model": name}, code="bad-setting")


__all__ = ["PlacedTenancy", "Places", "check", "place_of", "refuse_unplaced"]
