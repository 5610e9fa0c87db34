"""Confined connections: whatever SQL a tenant sends, the server itself shows and changes the tenant's own rows only.

The plugin here is a throw-away one that confines, stamps records with their tenant and filters nothing: what holds, the
database holds.
"""

import asyncio
import re
import secrets
from contextlib import contextmanager
from urllib.parse import urlsplit

import asyncpg
import pytest

from dataflow import DataFlow
from dataflow.dialect import Command
from dataflow.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    DataFlowError,
    InputError,
    QueryError,
    TenancyError,
    UsageError,
    WorkflowExecutionError,
)
from dataflow.fields import FieldSpec
from dataflow.model import IndexSpec, SchemaExtra
from dataflow.plan.stages import Stage
from dataflow.plugins import SettingSpec, hookimpl
from dataflow.postgres.own_sql import refuse_beyond_tenant
from dataflow.postgres.proof import Key, verifier
from dataflow.runtime import AsyncLocalRuntime, LocalRuntime
from dataflow.session import AMBIENT, Call
from dataflow.types import StrType

CANARY = "canary-of-b"
A, B = "a", "b"


class Guard:
    name = "test-tenancy"
    confines = True
    exclusive = False

    def privileged(self, core, ambient):
        return bool(core.around(ambient, "all_tenants"))

    def context(self, call, *, writes):
        tenant = call.around("tenant")
        return {"tenant": tenant or "", **({"actor": call.around("actor") or "nobody"} if writes else {})}

    def sql(self, core, ambient, statements):
        pass

    def escape(self, core, name, reason):
        return None


class Feature:
    before = after = ()

    def __init__(self, name, stage):
        self.name = self.capability = name
        self.stage = stage

    def extend_model(self, draft):
        pass

    def extend_plan(self, plan):
        pass


class Stamp(Feature):
    """Write the tenant into every record, and make it a part of every key and index."""

    def extend_model(self, draft):
        draft.scope = ("tenant_id",)
        draft.add_field(FieldSpec("tenant_id", StrType(), origin=self.name))
        own = [(index.name, index.fields, index.unique, index.where) for index in draft.indexes]
        draft.indexes[:] = [IndexSpec(name, ("tenant_id", *fields), *rest) for name, fields, *rest in own]

    def extend_plan(self, plan):
        if plan.statement == "insert":
            plan.set("tenant_id", lambda call: call.around("tenant") or "")


class Enclosed(Feature):
    """Let the database enclose every table."""

    def extend_model(self, draft):
        made = SchemaExtra("confinement", lambda d, spec: d.enclosed(spec), lambda d, spec: d.enclose(spec))
        draft.ddl_extras.append(made)


class Plugin:
    dataflow_api = "1.0"

    @hookimpl
    def dataflow_guards(self, config):
        return [Guard()]

    @hookimpl
    def dataflow_settings(self):
        return [SettingSpec("walled", bool, scope="model")]

    @hookimpl
    def dataflow_features(self, model, config):
        own = [Stamp("stamp", Stage.SCOPE)] if model.options.get("walled") else []
        return [*own, Enclosed("enclosed", Stage.EXECUTE)]


@contextmanager
def around(db, **values):
    """Surround calls with a tenant, or with all of them."""
    own = {(name, db.core.number): value for name, value in values.items()}
    token = AMBIENT.set({**AMBIENT.get({}), **own})
    try:
        yield
    finally:
        AMBIENT.reset(token)


def tenant(db, name):
    return around(db, tenant=name)


def everybody(db):
    return around(db, tenant=None, all_tenants="test")


def with_models(db):
    @db.model
    class Note:
        secret: str
        n: int = 0
        __dataflow__ = {"walled": True}  # noqa: RUF012
        __indexes__ = [  # noqa: RUF012
            {"name": "uq_note_secret", "fields": ["secret"], "unique": True},
            {"name": "ix_note_n", "fields": ["n"]},
        ]

    @db.model
    class Tag:
        name: str

    del Note, Tag
    return db


class House:
    """A database with an owner who is no superuser, and DataFlows on it."""

    def __init__(self, server, url):
        self.server = server
        self.database = urlsplit(url).path.lstrip("/")
        self.owner = f"owner_{self.database}"
        server.execute(
            f"""
            CREATE ROLE {self.owner} LOGIN CREATEROLE;
            GRANT CREATE ON DATABASE {self.database} TO {self.owner};
            REVOKE CREATE ON SCHEMA public FROM PUBLIC;
            """
        )
        place = urlsplit(url)
        self.host = f"{place.hostname}:{place.port}"
        self.superuser = url
        self.url = self.url_of(self.owner)
        self.opened = []

    def url_of(self, role):
        return f"postgresql://{role}@{self.host}/{self.database}"

    def open(self, url=None, schema="shop", **settings):
        db = DataFlow(url or self.url, plugins=[Plugin()], postgres_schema=schema, pool_size=5, **settings)
        self.opened.append(db)
        return with_models(db)

    def role(self, schema="shop"):
        """Return the role that is confined."""
        return self.server.value(f"SELECT role FROM {schema}.dataflow_tenant_role")

    def close(self):
        for db in self.opened:
            db.close()
        roles = [row[0] for row in self.server.rows("SELECT rolname::text FROM pg_roles WHERE rolname ~ '^dataflow_'")]
        mine = self.server.rows("SELECT nspname::text FROM pg_namespace WHERE nspowner = to_regrole($1)", self.owner)
        for (schema,) in mine:
            self.server.execute(f"DROP SCHEMA {schema} CASCADE")
        for role in roles:
            owned = "SELECT EXISTS (SELECT FROM pg_auth_members WHERE roleid = to_regrole($1) AND member = to_regrole($2))"
            if self.server.value(owned, role, self.owner):
                self.server.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
        self.server.execute(f"DROP OWNED BY {self.owner}; DROP ROLE {self.owner}")


@pytest.fixture(scope="module")
def house(server, postgres_url):
    found = House(server, postgres_url)
    yield found
    found.close()


@pytest.fixture(scope="module")
def db(house):
    found = house.open()
    with tenant(found, A):
        found.express_sync.create("Note", {"secret": "own-of-a", "n": 1})
    with tenant(found, B):
        for number in range(3):
            found.express_sync.create("Note", {"secret": f"{CANARY}-{number}", "n": 4242})
    found.express_sync.create("Tag", {"name": "common"})
    house.server.execute("ANALYZE shop.notes")
    return found


def sql(db, query, params=None, **more):
    """Send SQL of a user's own, of any kind."""
    node = {"query": query, "validate_queries": False, **({"params": params} if params else {}), **more}
    builder = db.workflow().add_node("AsyncSQLDatabaseNode", "n", node)
    results, _ = LocalRuntime().execute(builder.build())
    return [tuple(row.values()) for row in results["n"]["result"]["data"]]


def of_b(house):
    return house.server.rows("SELECT id, secret, n FROM shop.notes WHERE tenant_id = 'b' ORDER BY id")


SECRETS = r"canary-of-b-\d|4242(?!\d)|planted|owner_|SCRAM|dataflow_tenant_key_"
PROOF = "a" * 64
ATTACKS = [
    # the settings
    "SELECT set_config('dataflow.tenant', 'b', false), (SELECT string_agg(secret, ',') FROM notes)",
    "SELECT set_config('dataflow.tenant', 'b', true), secret FROM notes",
    "WITH s AS MATERIALIZED (SELECT set_config('dataflow.tenant', 'b', false)) SELECT * FROM notes, s",
    f"SELECT set_config('dataflow.proof', '{PROOF}', false), set_config('dataflow.tenant', 'b', false), secret FROM notes",
    "SELECT secret, set_config('dataflow.tenant', 'b', true) FROM notes UNION ALL SELECT secret, '' FROM notes",
    "SET dataflow.tenant = 'b'; SELECT * FROM notes",
    "SET LOCAL dataflow.tenant = 'b'; SELECT * FROM notes",
    f"SET dataflow.tenant = 'b'; SET dataflow.proof = '{PROOF}'; SELECT * FROM notes",
    "RESET dataflow.tenant; SELECT * FROM notes",
    "RESET ALL; SELECT * FROM notes",
    "DISCARD ALL; SELECT * FROM notes",
    "SELECT set_config('dataflow.tenant', '', false), count(*) FILTER (WHERE tenant_id = 'b') FROM notes",
    "SELECT set_config('dataflow.backend', '1', false), * FROM notes",
    "SELECT set_config('dataflow.backend', 'x', false), * FROM notes",
    "UPDATE pg_settings SET setting = 'b' WHERE name = 'dataflow.tenant'; SELECT * FROM notes",
    "ALTER ROLE CURRENT_USER SET dataflow.tenant = 'b'",
    "SELECT dataflow_proven(now()), * FROM notes WHERE tenant_id = 'b'",
    "SELECT dataflow_proven(pg_stat_get_backend_start(g)) FROM generate_series(1, 20) g",
    "SET row_security = off; SELECT * FROM notes",
    "SELECT set_config('row_security', 'off', false), * FROM notes",
    # other roles
    "SET ROLE {owner}; SELECT * FROM notes",
    "SET ROLE postgres",
    "SET SESSION AUTHORIZATION {owner}; SELECT * FROM notes",
    "SET SESSION AUTHORIZATION DEFAULT; SELECT * FROM notes",
    "RESET ROLE; SELECT * FROM notes",
    "ALTER ROLE CURRENT_USER BYPASSRLS",
    "/* /* */ SELECT */ ALTER USER CURRENT_USER PASSWORD 'x'",
    "GRANT {owner} TO CURRENT_USER",
    "CREATE ROLE mallory SUPERUSER",
    "DROP OWNED BY CURRENT_USER",
    "REASSIGN OWNED BY CURRENT_USER TO {owner}",
    # blocks and functions
    "DO $$ BEGIN PERFORM set_config('dataflow.tenant', 'b', false); RAISE '%', (SELECT max(secret) FROM notes); END $$",
    "DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$",
    "CREATE FUNCTION pg_temp.f() RETURNS text LANGUAGE sql AS 'SELECT max(secret) FROM notes'",
    "CREATE FUNCTION f() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT max(secret) FROM notes'",
    "CREATE OR REPLACE FUNCTION dataflow_tenant() RETURNS text LANGUAGE sql AS 'SELECT ''b'''",
    "ALTER FUNCTION dataflow_tenant() OWNER TO CURRENT_USER",
    "DROP FUNCTION dataflow_tenant()",
    "SELECT query_to_xml('SELECT set_config(''dataflow.tenant'', ''b'', false), * FROM notes', true, true, '')",
    "SELECT query_to_xml('SELECT * FROM notes', true, true, '')",
    "SELECT table_to_xml('notes', true, true, '')",
    "SELECT database_to_xml(true, true, '')",
    "SELECT * FROM ts_stat('SELECT to_tsvector(secret) FROM notes')",
    "SELECT ts_rewrite('x'::tsquery, 'SELECT secret::tsquery, ''y''::tsquery FROM shop.notes')",
    # tables, policies, privileges
    "TRUNCATE notes",
    "ALTER TABLE notes DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE notes NO FORCE ROW LEVEL SECURITY",
    "CREATE POLICY all_of_it ON notes USING (true)",
    "ALTER POLICY dataflow_owner ON notes TO PUBLIC",
    "DROP POLICY dataflow_owner ON notes",
    "ALTER TABLE notes OWNER TO CURRENT_USER",
    "DROP TABLE notes",
    "GRANT ALL ON notes TO PUBLIC",
    "CREATE TRIGGER t BEFORE INSERT ON notes EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE RULE r AS ON INSERT TO notes DO ALSO SELECT * FROM notes",
    "CREATE INDEX ON notes (secret)",
    "CREATE STATISTICS st ON secret, n FROM notes",
    "CREATE TABLE shop.mine (a int)",
    "CREATE SCHEMA mine",
    "CREATE VIEW shop.v AS SELECT * FROM notes",
    "CREATE TEMP TABLE part () INHERITS (notes)",
    "SELECT * FROM ONLY notes WHERE tenant_id = 'b'",
    "TABLE notes",
    # reading
    "SELECT * FROM notes WHERE tenant_id = 'b' OR true",
    "SELECT * FROM notes TABLESAMPLE SYSTEM (100)",
    "SELECT * FROM notes WHERE ctid = ANY (ARRAY(SELECT format('(0,%s)', g)::tid FROM generate_series(1, 50) g))",
    "SELECT * FROM notes FOR UPDATE",
    "SELECT string_agg(secret, ',') FROM notes CROSS JOIN generate_series(1, 2)",
    "SELECT (SELECT max(secret) FROM notes WHERE tenant_id <> 'a')",
    "SELECT * FROM tags LEFT JOIN notes ON true",
    "WITH RECURSIVE r AS (SELECT secret, 1 AS d FROM notes UNION SELECT n.secret, d + 1 FROM notes n, r WHERE d < 3) "
    "SELECT * FROM r",
    "CREATE TEMP VIEW w AS SELECT * FROM notes; SELECT * FROM w",
    "CREATE TEMP TABLE c AS SELECT * FROM notes; SELECT * FROM c",
    "SELECT * INTO TEMP d FROM notes; SELECT * FROM d",
    "DECLARE k CURSOR WITH HOLD FOR SELECT * FROM notes; FETCH ALL FROM k",
    "DECLARE k CURSOR FOR SELECT set_config('dataflow.tenant', 'b', true), secret FROM notes; FETCH ALL FROM k",
    "PREPARE p AS SELECT * FROM notes; EXECUTE p",
    "PREPARE p AS SELECT set_config('dataflow.tenant', 'b', true), * FROM notes; EXECUTE p",
    "DEALLOCATE ALL; SELECT * FROM notes",
    "COPY notes TO STDOUT",
    "COPY (SELECT set_config('dataflow.tenant', 'b', false), secret FROM notes) TO STDOUT",
    "COPY notes TO PROGRAM 'cat'",
    "COPY notes FROM '/etc/passwd'",
    "COPY (SELECT * FROM notes) TO '/tmp/notes'",
    # errors that would quote a value
    "SELECT secret::int FROM notes WHERE secret LIKE 'canary%'",
    "SELECT CAST(secret AS int) FROM notes ORDER BY secret",
    "SELECT 1 / (CASE WHEN secret LIKE 'canary%' THEN 0 ELSE 1 END) FROM notes",
    "SELECT count(*) FROM notes WHERE 1 / (n - 4242) = 0",
    "SELECT json_object(array_agg(secret)) FROM notes",
    "SELECT * FROM notes WHERE substring(secret, 1, 6)::xid8 IS NOT NULL AND tenant_id = 'b'",
    # writing
    "UPDATE notes SET secret = 'changed'",
    "UPDATE notes SET n = 0 WHERE tenant_id = 'b' RETURNING secret",
    "UPDATE notes SET tenant_id = 'b'",
    "DELETE FROM notes WHERE tenant_id = 'b' RETURNING *",
    "DELETE FROM notes USING tags WHERE notes.tenant_id <> 'a'",
    "INSERT INTO notes (tenant_id, secret, n) VALUES ('b', 'planted', 1)",
    "INSERT INTO notes (tenant_id, secret) SELECT 'b', secret FROM notes",
    f"INSERT INTO notes (tenant_id, secret) VALUES ('b', '{CANARY}-0') ON CONFLICT DO NOTHING RETURNING *",
    f"INSERT INTO notes (tenant_id, secret) VALUES ('b', '{CANARY}-0') ON CONFLICT (tenant_id, secret) DO UPDATE "
    "SET n = 7 RETURNING *",
    "INSERT INTO notes (id, tenant_id, secret) SELECT g, 'a', 'x' || g FROM generate_series(1, 4) g ON CONFLICT (id) "
    "DO UPDATE SET secret = excluded.secret, tenant_id = 'a' RETURNING *",
    "MERGE INTO notes USING tags ON notes.tenant_id = 'b' WHEN MATCHED THEN UPDATE SET n = 0 WHEN NOT MATCHED THEN "
    "DO NOTHING",
    "WITH gone AS (DELETE FROM notes WHERE tenant_id = 'b' RETURNING *) SELECT * FROM gone",
    "SELECT setval(pg_get_serial_sequence('notes', 'id'), 1)",
    "ALTER SEQUENCE notes_id_seq RESTART",
    "SELECT * FROM notes_id_seq",
    "SELECT dataflow_advance('dataflow_tenant_key', 'place', 7)",
    # names that stand in the way
    "CREATE TEMP TABLE notes AS SELECT 'x' AS secret; SELECT * FROM shop.notes",
    "CREATE TEMP TABLE pg_class (oid oid); SELECT * FROM notes",
    "CREATE TEMP TABLE dataflow_tenant_key (place text, inner_key bytea, outer_key bytea); SELECT "
    "set_config('dataflow.tenant', 'b', false), * FROM shop.notes",
    "SET search_path = pg_temp, shop; SELECT * FROM notes",
    "SET search_path = public, shop, pg_catalog; SELECT * FROM notes",
    "CREATE DOMAIN pg_temp.text AS int; SELECT * FROM notes",
    "CREATE OPERATOR pg_temp.= (LEFTARG = text, RIGHTARG = text, FUNCTION = textne); SELECT * FROM shop.notes",
    # the catalogs and the server
    "SELECT * FROM pg_stats WHERE tablename = 'notes'",
    "SELECT * FROM pg_statistic",
    "SELECT * FROM pg_stats_ext_exprs",
    "EXPLAIN SELECT * FROM notes WHERE n = 4242",
    "EXPLAIN (ANALYZE, VERBOSE, BUFFERS) SELECT * FROM notes",
    " -- look\n EXPLAIN ANALYZE SELECT secret FROM notes",
    "SELECT query FROM pg_stat_activity",
    "SELECT * FROM pg_stat_get_activity(NULL)",
    "SELECT * FROM pg_authid",
    "SELECT * FROM pg_shadow",
    "SELECT pg_read_file('PG_VERSION')",
    "SELECT pg_read_binary_file(pg_relation_filepath('notes'))",
    "SELECT pg_ls_dir('base')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_export(1, '/tmp/x')",
    "SELECT get_raw_page('notes', 0)",
    "CREATE EXTENSION pageinspect",
    "CREATE EXTENSION dblink",
    "LOAD 'auto_explain'",
    "LISTEN changes",
    "SELECT pg_logical_slot_peek_changes('x', NULL, NULL)",
    "SELECT pg_create_logical_replication_slot('x', 'test_decoding')",
    "CREATE PUBLICATION p FOR TABLE notes",
    "ALTER SYSTEM SET row_security = off",
    "SELECT pg_reload_conf()",
    # what belongs to the framework
    "SELECT * FROM dataflow_tenant_key",
    "SELECT * FROM dataflow_tenant_role",
    "UPDATE dataflow_tenant_role SET password = 'x'",
    "INSERT INTO dataflow_tenant_key VALUES ('x', '', '')",
    "COPY dataflow_tenant_key TO STDOUT",
    "SET debug_print_plan = on; SET client_min_messages = log; SELECT dataflow_tenant()",
]


def told(db, attack):
    """Send an attack as a tenant, statement by statement and all at once; return all that it is told."""
    with tenant(db, A):
        try:
            return repr(sql(db, attack))
        except WorkflowExecutionError as error:
            return f"{error}\n{error.to_dict()}\n{error.__cause__!r}"


def texts_of(error):
    found = []
    while error is not None:
        found += [str(error), repr(error), repr(getattr(error, "detail", None))]
        error = error.__cause__ or error.__context__
    return "\n".join(found)


def test_there_are_enough_attacks():
    assert len(set(ATTACKS)) >= 60


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_shows_and_changes_nothing_of_another_tenant(db, house, attack):
    house.server.execute(
        "DELETE FROM shop.notes WHERE tenant_id = 'a'; INSERT INTO shop.notes (tenant_id, secret) VALUES ('a', 'own')"
    )
    before = of_b(house)
    shown = told(db, attack.replace("{owner}", house.owner)).replace(attack, "")
    assert not re.search(SECRETS, shown)
    assert of_b(house) == before


@contextmanager
def proven(house, db, name=A):
    """Lend the driver's connection that the framework has proven for a tenant, without what it refuses."""

    async def lent():
        with tenant(db, name):
            core = db.core
            session = await core.lease(write=True, holder="test", ambient=AMBIENT.get({}))
            call = Call(core)
            call.session = session
            await session.run(core.supervise(ask("SELECT count(*) FROM notes"), call))
            return session

    session = house.server.background.run(lent())
    try:
        yield session._link.raw
    finally:
        session._link.spoiled = True
        house.server.background.run(session.release())


def ask(query, *arguments):
    return (yield Command(query), arguments)


async def answers(raw, attack):
    """Send the statements of an attack one after another, as far as they go, and undo them; return what they tell."""
    found = []
    transaction = raw.transaction()
    await transaction.start()
    for statement in attack.split("; "):
        try:
            found.append(repr([tuple(row) for row in await raw.fetch(statement)]))
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            found.append(repr([str(error), error.__dict__]))
            break
    await transaction.rollback()
    return "\n".join(found)


def test_what_the_framework_refuses_or_mends_the_server_keeps_to_the_tenant_all_the_same(db, house):
    before = of_b(house)
    for attack in ATTACKS:
        if attack.startswith(("SELECT * FROM pg_stat", "LOAD")):
            continue  # types that the driver cannot read
        statement = attack.replace("{owner}", house.owner)
        with proven(house, db) as raw:
            shown = house.server.background.run(answers(raw, statement))
            assert not re.search(SECRETS.replace("4242", "none" if "4242" in statement else "4242"), shown), statement
    assert of_b(house) == before


def test_a_tenant_that_is_claimed_without_proof_is_refused(db, house):
    claims = [
        "SET dataflow.tenant = 'b'",
        f"SET dataflow.tenant = 'b'; SET dataflow.proof = '{PROOF}'",
        "RESET dataflow.proof",
        "SET dataflow.backend = '999'",
        "RESET dataflow.backend",
        "SET dataflow.tenant = 'a '",
    ]
    for claim in claims:
        with proven(house, db) as raw:
            house.server.background.run(raw.execute(claim))
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="not proven"):
                house.server.background.run(raw.fetch("SELECT * FROM notes"))


def test_a_proof_is_worth_nothing_on_another_connection(db, house):
    names = ("tenant", "proof", "backend")
    read = "SELECT " + ", ".join(f"current_setting('dataflow.{name}')" for name in names)
    with proven(house, db, B) as of_other, proven(house, db) as own:
        run = house.server.background.run
        values = run(of_other.fetchrow(read))
        for left_out in (None, "backend"):
            for name, value in zip(names, values, strict=True):
                if name != left_out:
                    run(own.execute(f"SET dataflow.{name} = '{value}'"))
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="not proven"):
                run(own.fetch("SELECT * FROM notes"))


def test_sql_of_a_tenants_own_works_as_far_as_its_own_records_go(db):
    with tenant(db, "c"):
        sql(db, "INSERT INTO notes (tenant_id, secret, n) VALUES ('c', :secret, 1), ('c', 'two', 2)", {"secret": "one"})
        assert sql(db, "SELECT secret FROM notes ORDER BY n") == [("one",), ("two",)]
        assert sql(db, "UPDATE notes SET n = n + 10 RETURNING n") == [(11,), (12,)]
        assert sql(db, "SELECT count(*) FROM notes JOIN tags ON true") == [(2,)]
        assert sql(db, "INSERT INTO tags (name) VALUES ('mine') RETURNING name") == [("mine",)]
        assert sql(db, "CREATE TEMP TABLE kept AS SELECT n FROM notes; SELECT max(n) FROM kept") == [(12,)]
        assert sql(db, "WITH gone AS (DELETE FROM notes WHERE n = 11 RETURNING n) SELECT n FROM gone") == [(11,)]
        assert db.express_sync.count("Note") == 1
        db.express_sync.bulk_delete("Note", filter={"n": 12})
        assert db.express_sync.count("Note") == 0


def test_privileged_calls_see_the_records_of_all_tenants(db, house):
    with everybody(db):
        assert sql(db, "SELECT DISTINCT tenant_id FROM notes WHERE tenant_id IN ('a', 'b') ORDER BY 1") == [("a",), ("b",)]
        assert sql(db, "SELECT current_user::text") == [(house.owner,)]
        assert db.express_sync.count("Note", filter={"secret": {"$startswith": CANARY}}) == 3
        assert sql(db, "EXPLAIN SELECT 1")


def test_calls_without_a_tenant_see_and_write_nothing(db):
    assert sql(db, "SELECT * FROM notes") == []
    assert db.express_sync.count("Note") == 0
    with pytest.raises(TenancyError) as caught:
        db.express_sync.create("Note", {"secret": "nobody's"})
    assert caught.value.code == "other-tenant"
    assert db.express_sync.count("Tag") > 0


def test_equal_keys_of_two_tenants_are_in_nobodys_way(db):
    for name in (A, B):
        with tenant(db, name):
            db.express_sync.create("Note", {"secret": "the same"})
            assert sql(db, "DELETE FROM notes WHERE secret = 'the same' RETURNING tenant_id") == [(name,)]


# -- one connection for all -------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def narrow(house, db):
    """A DataFlow that has one confined connection at a time."""
    return house.open(pool_max_overflow=0, postgres_application_name="narrow", **{"connection_pool_size": None})


def test_what_a_tenant_leaves_in_a_session_is_gone_before_the_next_one_comes(house, db):
    async def main():
        own = house.open(pool_max_overflow=0)
        own.core.config._values["pool_size"] = 1
        own.core.database._sizes = (1, *own.core.database._sizes[1:])

        async def run(query):
            builder = own.workflow().add_node("AsyncSQLDatabaseNode", "n", {"query": query, "validate_queries": False})
            results, _ = await AsyncLocalRuntime().execute_async(builder.build())
            return [tuple(row.values()) for row in results["n"]["result"]["data"]]

        try:
            with tenant(own, B):
                process = await run("SELECT pg_backend_pid()")
                for left in (
                    "CREATE TEMP TABLE notes AS SELECT * FROM shop.notes",
                    "DECLARE k CURSOR WITH HOLD FOR SELECT * FROM notes",
                    "SELECT set_config('my.own', max(secret), false) FROM notes",
                    "SELECT pg_advisory_lock(77)",
                    "SET search_path = pg_temp",
                ):
                    await run(left)
            with tenant(own, A):
                assert await run("SELECT pg_backend_pid()") == process
                assert await run("SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND relkind = 'r'") == [(0,)]
                assert await run("SELECT count(*) FROM pg_cursors WHERE name = 'k'") == [(0,)]
                assert await run("SELECT coalesce(current_setting('my.own', true), '')") == [("",)]
                assert await run("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]
                assert await run("SELECT tenant_id FROM notes WHERE tenant_id <> 'a'") == []
                await run("PREPARE p AS SELECT 1")
                assert await run("SELECT pg_backend_pid()") != process
        finally:
            await own.close_async() if hasattr(own, "close_async") else own.close()

    asyncio.run(main())
