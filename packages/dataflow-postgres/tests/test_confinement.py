"""Confined connections: whatever SQL a tenant sends, the server itself shows and changes the tenant's own rows only.

The plugin here is a throw-away one that confines, stamps records with their tenant and filters nothing: what holds, the
database holds.
"""

import asyncio
import base64
import hmac
import re
import secrets
import threading
import time
import types
from contextlib import contextmanager
from urllib.parse import urlsplit

import asyncpg
import pytest

from dataflow import DataFlow
from dataflow.dialect import Command
from dataflow.errors import (
    ConfigurationError,
    DataFlowError,
    InputError,
    QueryError,
    TenancyError,
    WorkflowExecutionError,
)
from dataflow.fields import FieldSpec
from dataflow.model import IndexSpec, SchemaExtra
from dataflow.nodes import BaseDataFlowNode
from dataflow.plan.stages import Stage
from dataflow.plugins import SettingSpec, hookimpl
from dataflow.postgres.confinement_sql import BACKEND
from dataflow.postgres.database import _POOLS
from dataflow.postgres.own_sql import refuse_beyond_tenant
from dataflow.postgres.proof import Key, verifier
from dataflow.runtime import AsyncLocalRuntime, LocalRuntime
from dataflow.session import AMBIENT, Call, atomic, undone
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
            GRANT CREATE ON SCHEMA public TO {self.owner};
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
        given = {"postgres_schema": schema, "pool_size": 5, **settings}
        db = DataFlow(url or self.url, plugins=[Plugin()], **given)
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
            owned = (
                "SELECT EXISTS (SELECT FROM pg_auth_members WHERE roleid = to_regrole($1) AND member = to_regrole($2))"
            )
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


SECRETS = r"canary-of-b-\d|4242(?!\d)|planted|SCRAM-SHA"
PROOF = "a" * 64
ATTACKS = [
    # the settings
    "SELECT set_config('dataflow.tenant', 'b', false), (SELECT string_agg(secret, ',') FROM notes)",
    "SELECT set_config('dataflow.tenant', 'b', true), secret FROM notes",
    "WITH s AS MATERIALIZED (SELECT set_config('dataflow.tenant', 'b', false)) SELECT * FROM notes, s",
    f"SELECT set_config('dataflow.proof', '{PROOF}', false), set_config('dataflow.tenant', 'b', false), n FROM notes",
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
    "WITH RECURSIVE r AS (SELECT 1 AS d, secret FROM notes UNION SELECT 2, n.secret FROM notes n, r) SELECT * FROM r",
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
    "INSERT INTO notes (tenant_id, secret) VALUES ('b', 'x') ON CONFLICT (tenant_id, secret) DO UPDATE SET n = 7",
    "INSERT INTO notes (id, tenant_id, secret) SELECT g, 'a', g FROM generate_series(1, 4) g ON CONFLICT DO NOTHING",
    "INSERT INTO notes (id, tenant_id, secret) VALUES (2, 'a', '') ON CONFLICT (id) DO UPDATE SET n = 7 RETURNING *",
    "MERGE INTO notes USING tags ON notes.tenant_id = 'b' WHEN MATCHED THEN UPDATE SET n = 0",
    "WITH gone AS (DELETE FROM notes WHERE tenant_id = 'b' RETURNING *) SELECT * FROM gone",
    "SELECT setval(pg_get_serial_sequence('notes', 'id'), 1)",
    "ALTER SEQUENCE notes_id_seq RESTART",
    "SELECT * FROM notes_id_seq",
    "SELECT dataflow_advance('dataflow_tenant_key', 'place', 7)",
    # names that stand in the way
    "CREATE TEMP TABLE notes AS SELECT 'x' AS secret; SELECT * FROM shop.notes",
    "CREATE TEMP TABLE pg_class (oid oid); SELECT * FROM notes",
    "CREATE TEMP TABLE dataflow_tenant_key (inner_key bytea, outer_key bytea); SET dataflow.tenant = b; TABLE notes",
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
        session._link.dirty = session._link.spoiled = True
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
            found.append(repr([str(error), *(value for name, value in vars(error).items() if name != "query")]))
            break
    await transaction.rollback()
    return "\n".join(found)


def test_what_the_framework_refuses_or_mends_the_server_keeps_to_the_tenant_all_the_same(db, house):
    before = of_b(house)
    lasting = [attack for attack in ATTACKS if re.search("PREPARE|DEALLOCATE|FETCH|TEMP", attack)]
    unread = ("SELECT * FROM pg_stat", "LOAD")  # types that the driver cannot read
    undone = [attack for attack in ATTACKS if attack not in lasting and not attack.startswith(unread)]
    for attacks in (undone, *([attack] for attack in lasting)):
        with proven(house, db) as raw:
            for attack in attacks:
                shown = house.server.background.run(answers(raw, attack.replace("{owner}", house.owner)))
                assert not re.search(SECRETS, shown.replace("4242", "") if "4242" in attack else shown), attack
            assert [row[0] for row in house.server.background.run(raw.fetch(TENANTS))] in ([A], [])
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


def test_a_proof_is_bound_to_the_start_of_the_process_whose_number_comes_again(db, house):
    key = Key(*house.server.rows("SELECT inner_key, outer_key FROM shop.dataflow_tenant_key")[0])
    with proven(house, db) as raw:
        run = house.server.background.run
        number, start = run(raw.fetchval(BACKEND.replace("its::text,", ""))).split("|")
        run(raw.execute("SET dataflow.tenant = 'b'"))
        run(raw.execute(f"SET dataflow.proof = '{key.proof(f'{number}|{int(start) - 1}', B)}'"))
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="not proven"):
            run(raw.fetch("SELECT * FROM notes"))
        run(raw.execute(f"SET dataflow.proof = '{key.proof(f'{number}|{start}', B)}'"))
        assert len(run(raw.fetch("SELECT * FROM notes"))) == 3


def test_sql_of_a_tenants_own_works_as_far_as_its_own_records_go(db):
    with tenant(db, "c"):
        sql(db, "INSERT INTO notes (tenant_id, secret, n) VALUES ('c', :secret, 1), ('c', 'two', 2)", {"secret": "one"})
        assert sql(db, "SELECT secret FROM notes ORDER BY n") == [("one",), ("two",)]
        assert sql(db, "UPDATE notes SET n = n + 10 RETURNING n") == [(11,), (12,)]
        assert sql(db, "SELECT count(*) FROM notes JOIN tags ON true") == [(2,)]
        assert sql(db, "INSERT INTO tags (name) VALUES ('mine') RETURNING name") == [("mine",)]
        assert sql(db, "CREATE TEMP TABLE kept AS SELECT n FROM notes; SELECT max(n) FROM kept") == [(12,)]
        assert sql(db, "WITH gone AS (DELETE FROM notes WHERE n = 11 RETURNING n) SELECT n FROM gone") == [(11,)]
        assert db.express_sync.count("Note")["count"] == 1
        db.express_sync.bulk_delete("Note", filter={"n": 12})
        assert db.express_sync.count("Note")["count"] == 0


def test_privileged_calls_see_the_records_of_all_tenants(db, house):
    with everybody(db):
        assert sql(db, "SELECT DISTINCT tenant_id FROM notes WHERE tenant_id IN ('a', 'b') ORDER BY 1") == [
            ("a",),
            ("b",),
        ]
        assert sql(db, "SELECT current_user::text") == [(house.owner,)]
        assert db.express_sync.count("Note", filter={"secret": {"$startswith": CANARY}})["count"] == 3
        assert sql(db, "EXPLAIN SELECT 1")


def test_calls_without_a_tenant_see_and_write_nothing(db):
    assert sql(db, "SELECT * FROM notes") == []
    assert db.express_sync.count("Note")["count"] == 0
    with pytest.raises(TenancyError) as caught:
        db.express_sync.create("Note", {"secret": "nobody's"})
    assert caught.value.code == "other-tenant"
    assert db.express_sync.count("Tag")["count"] > 0


def test_equal_keys_of_two_tenants_are_in_nobodys_way(db):
    for name in (A, B):
        with tenant(db, name):
            db.express_sync.create("Note", {"secret": "the same"})
            assert sql(db, "DELETE FROM notes WHERE secret = 'the same' RETURNING tenant_id") == [(name,)]


def until(condition):
    """Wait until something is so."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


# -- one connection for many ------------------------------------------------------------------------------------------
async def run(db, *nodes):
    """Run nodes in their order: SQL, the name of a node, or (name, params); return the rows of the last one."""
    builder = db.workflow()
    for position, entry in enumerate(nodes):
        kind, params = entry if isinstance(entry, tuple) else (entry, {})
        if not kind.isidentifier():
            kind, params = "AsyncSQLDatabaseNode", {"query": kind, "validate_queries": False}
        builder.add_node(kind, f"n{position}", params)
    results, _ = await AsyncLocalRuntime().execute_async(builder.build())
    last = results[f"n{len(nodes) - 1}"]
    return [tuple(row.values()) for row in last["result"]["data"]] if "result" in last else last


@pytest.fixture
async def narrow(house, db):
    """A DataFlow with one confined connection."""
    found = house.open(pool_size=1, pool_max_overflow=0)
    yield found
    await found.aclose()


PID = "SELECT pg_backend_pid()"
OTHERS = "SELECT secret FROM notes WHERE tenant_id <> current_setting('dataflow.tenant')"
TENANTS = "SELECT DISTINCT tenant_id FROM notes"


async def test_what_a_tenant_leaves_in_a_session_is_gone_before_the_next_one_comes(narrow):
    left = [
        "CREATE TEMP TABLE notes AS SELECT * FROM shop.notes",
        "DECLARE k CURSOR WITH HOLD FOR SELECT * FROM notes",
        "SELECT set_config('my.own', max(secret), false) FROM notes",
        "SELECT pg_advisory_lock(77)",
        "SET search_path = pg_temp",
    ]
    with tenant(narrow, B):
        process = await run(narrow, PID)
        await run(narrow, *left)
    with tenant(narrow, A):
        assert await run(narrow, PID) == process
        assert await run(narrow, "SELECT FROM pg_class WHERE relpersistence = 't' AND relkind = 'r'") == []
        assert await run(narrow, "SELECT FROM pg_cursors WHERE name = 'k'") == []
        assert await run(narrow, "SELECT coalesce(current_setting('my.own', true), '')") == [("",)]
        assert await run(narrow, "SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()") == []
        assert await run(narrow, OTHERS) == []
        await run(narrow, "PREPARE p AS SELECT 1")
        assert await run(narrow, PID) != process


async def test_a_prepared_statement_that_sql_has_put_in_the_drivers_place_ends_the_connection(narrow, house):
    house.server.execute(
        """
        CREATE OR REPLACE FUNCTION shop.swapped() RETURNS void LANGUAGE plpgsql AS $$
        BEGIN EXECUTE 'PREP' || 'ARE swapped AS SELECT 1'; END $$
        """
    )
    with tenant(narrow, A):
        process = await run(narrow, PID)
        await run(narrow, "SELECT shop.swapped()::text")
    with tenant(narrow, B):
        assert await run(narrow, PID) != process


async def test_sql_of_two_tenants_does_not_share_a_transaction(narrow):
    class Nested(BaseDataFlowNode):
        async def execute(self, input_data):
            with tenant(narrow, B):
                await self.query("SELECT 1")
            return {"result": 1}

    narrow.register_node(Nested)
    with tenant(narrow, A):
        with pytest.raises(WorkflowExecutionError) as caught:
            await run(narrow, "TransactionScopeNode", "CREATE TEMP TABLE notes (secret text)", "Nested")
        assert await run(narrow, OTHERS) == []
    assert caught.value.__cause__.code == "other-tenant"


async def test_calls_of_many_tenants_share_few_connections_and_never_meet(house, db):
    own = house.open(pool_size=2, pool_max_overflow=0)
    names = [f"many-{number}" for number in range(8)]

    async def one(name, turn):
        with tenant(own, name):
            if turn % 4 == 0:
                await own.express.create("Note", {"secret": f"{name} {turn}"})
            elif turn % 4 == 1:
                found = (await own.express.list("Note"))["records"]
                assert {record["tenant_id"] for record in found} <= {name}
            elif turn % 4 == 2:
                assert await run(own, OTHERS) == []
            else:
                with pytest.raises(WorkflowExecutionError):
                    await run(own, "TransactionScopeNode", ("NoteCreateNode", {"secret": "undone"}), "SELECT 1 / 0")
            assert (await own.express.count("Note", filter={"tenant_id": {"$ne": name}}))["count"] == 0

    try:
        await asyncio.gather(*(one(name, turn) for turn in range(8) for name in names))
        for name in names:
            with tenant(own, name):
                assert (await own.express.count("Note"))["count"] == 2
                await run(own, "DELETE FROM notes")
    finally:
        await own.aclose()


# -- what the connection knows ----------------------------------------------------------------------------------------
KNOWN = "SELECT current_setting('dataflow.tenant') AS tenant, current_setting('dataflow.actor') AS actor"


async def statement(db, query):
    """Run a statement of the framework's."""
    call = Call(db.core)
    return [tuple(row) for row in await db.core.run(ask(query), call, write=False, holder="test")]


async def test_what_is_rolled_back_is_told_again(narrow):
    for name in (A, B):
        with tenant(narrow, name), pytest.raises(WorkflowExecutionError):
            await run(narrow, "TransactionScopeNode", "NoteCountNode", "SELECT 1 / 0")
        with tenant(narrow, name):
            assert await statement(narrow, TENANTS) == [(name,)]


async def test_a_call_that_fails_in_a_transaction_leaves_the_tenant_of_the_others(narrow):
    def parts(call):
        with pytest.raises(QueryError):
            yield from undone(ask("SELECT 1 / 0"), "df_part")
        assert call.session.context == {}
        return (yield from undone(ask(TENANTS), "df_part"))

    with tenant(narrow, A):
        call = Call(narrow.core)
        found = await narrow.core.run(atomic(call, parts(call)), call, write=True, holder="test")
    assert [tuple(row) for row in found] == [(A,)]


async def test_sql_of_the_users_own_makes_the_connection_forget_and_the_framework_tells_it_again(narrow):
    with tenant(narrow, A):
        for claim in ("SET dataflow.tenant = 'b'", "RESET ALL", "SET dataflow.proof = ''"):
            assert await run(narrow, "TransactionScopeNode", claim, TENANTS) == [(A,)]
        with around(narrow, actor="alice"):
            assert await run(narrow, KNOWN) == [(A, "alice")]
        assert await run(narrow, KNOWN) == [(A, "nobody")]


@pytest.mark.parametrize("moment", ["before the call", "in a transaction"])
async def test_a_lost_connection_is_replaced_by_one_that_knows_the_tenant(narrow, house, moment):
    for name in (A, B, A):
        with tenant(narrow, name):
            assert await statement(narrow, TENANTS) == [(name,)]
            ((process,),) = await statement(narrow, PID)
            if moment == "before the call":
                house.server.rows("SELECT pg_terminate_backend($1, 10000)", process)
            else:
                kill = f"SELECT pg_terminate_backend({process})"
                with pytest.raises(WorkflowExecutionError):
                    await run(narrow, "TransactionScopeNode", "NoteCountNode", kill, "NoteCountNode")
            assert await statement(narrow, TENANTS) == [(name,)]


async def test_a_cancelled_statement_leaves_the_next_one_its_tenant(narrow, house):
    asleep = f"SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND usename = '{house.role()}'"
    for name in (A, B):
        with tenant(narrow, name):
            task = asyncio.create_task(run(narrow, f"SELECT pg_sleep(600)::text, '{name}'"))
            await asyncio.to_thread(until, lambda: house.server.value(asleep))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await statement(narrow, TENANTS) == [(name,)]


async def test_a_connection_that_knows_the_tenant_is_preferred(house, db):
    own = house.open(pool_size=3)

    async def leased():
        call = Call(own.core)
        session = call.session = await own.core.lease(write=False, holder="test", ambient=call.ambient)
        ((process,),) = await session.run(own.core.supervise(ask(PID), call))
        return session, process

    try:
        served, sessions = {}, []
        for name in ("x", "y", "z"):
            with tenant(own, name):
                session, served[name] = await leased()
                sessions.append(session)
        for session in sessions:
            await session.release()
        for name in ("x", "z", "y", "x"):
            with tenant(own, name):
                session, process = await leased()
                await session.release()
                assert process == served[name]
    finally:
        await own.aclose()


# -- many rows --------------------------------------------------------------------------------------------------------
async def test_rows_are_loaded_without_copy_and_get_their_ids_in_order(house, db):
    rows = [{"secret": f"bulk {number:04}", "n": number} for number in range(1500)]
    with tenant(db, "bulk"):
        made = await db.express.bulk_create("Note", rows, return_ids=True)
        stored = (await db.express.list("Note", sort=["id"], limit=2000))["records"]
        assert made["ids"] == [record["id"] for record in stored]
        assert [record["n"] for record in stored] == list(range(1500))
        await run(db, "DELETE FROM notes WHERE n >= 1000")
        await db.express.bulk_create("Note", rows, conflict_resolution="skip")
        assert (await db.express.count("Note"))["count"] == 1500
        changed = [{"id": record["id"], "n": -record["n"]} for record in stored[:600]]
        await db.express.bulk_update("Note", data=changed)
        assert (await db.express.count("Note", filter={"n": {"$lt": 0}}))["count"] == 599
        await run(db, "DELETE FROM notes")
    assert len(of_b(house)) == 3


async def test_ids_that_callers_choose_move_the_counter_on_and_never_to_its_end(house, db):
    counter = "SELECT last_value FROM shop.notes_id_seq"
    last = house.server.value(counter)
    with tenant(db, "counter"):
        await db.express.create("Note", {"id": last + 5000, "secret": "jump"})
        assert (await db.express.create("Note", {"secret": "next"}))["id"] == last + 5001
        with pytest.raises(WorkflowExecutionError):
            await run(db, "SELECT setval('notes_id_seq', 1)")
        await run(db, f"SELECT dataflow_advance('notes', 'id', {last})::text")
        assert house.server.value(counter) == last + 5001
        await run(db, "SELECT dataflow_advance('notes', 'id', 9223372036854775807)::text")
        assert (await db.express.create("Note", {"secret": "there is room"}))["id"] == 2**62 + 1
        await run(db, "DELETE FROM notes")
    house.server.rows("SELECT setval('shop.notes_id_seq', $1)", last)


# -- what is made, and what is not believed ---------------------------------------------------------------------------
def test_the_role_has_no_privileges_and_only_the_owner_knows_its_password_and_the_key(db, house):
    role = house.role()
    flags = "rolsuper, rolbypassrls, rolcreatedb, rolcreaterole, rolreplication, rolcanlogin"
    assert house.server.rows(f"SELECT {flags} FROM pg_roles WHERE rolname = '{role}'") == [(False,) * 5 + (True,)]
    assert house.server.rows(f"SELECT FROM pg_auth_members WHERE member = to_regrole('{role}')") == []
    grants = (
        "SELECT DISTINCT grantee::text FROM information_schema.role_table_grants WHERE table_name LIKE 'dataflow_%'"
    )
    assert house.server.rows(grants) == [(house.owner,)]
    password = house.server.value("SELECT password FROM shop.dataflow_tenant_role")
    stored = house.server.value(f"SELECT rolpassword FROM pg_authid WHERE rolname = '{role}'")
    assert stored == verifier(password, salt_of(stored))
    with tenant(db, A):
        assert sql(db, "SELECT 1 AS n") == [(1,)]
    database = db.core.database
    told = [repr(vars(database)), repr(database.describe()), repr(db), repr(db.config), repr(vars(db.core.dialect))]
    assert not any(password in text or database._restricted[0].key.inner.hex() in text for text in told)
    assert database.describe()["tenant_role"] == role


def salt_of(stored):
    return base64.b64decode(stored.split("$")[1].partition(":")[2])


def test_the_verifier_is_what_the_server_itself_makes_of_a_password(server):
    server.execute("CREATE ROLE verified PASSWORD 'swordfish'")
    stored = server.value("SELECT rolpassword FROM pg_authid WHERE rolname = 'verified'")
    server.execute("DROP ROLE verified")
    assert verifier("swordfish", salt_of(stored)) == stored
    assert verifier("swordfish") != stored


def test_a_proof_is_the_hmac_of_process_and_tenant():
    key = Key.new()
    secret = bytes(byte ^ 0x36 for byte in key.inner)
    assert key.proof("1|2", "a") == hmac.new(secret, b"1|2|a", "sha256").hexdigest()


def test_processes_that_start_together_agree_on_role_and_key(house):
    found, barrier = [], threading.Barrier(4)

    async def main():
        async with house.open(schema="together") as own:
            barrier.wait()
            with tenant(own, A):
                await run(own, "SELECT 1")
                await own.express.create("Note", {"secret": secrets.token_hex(8)})
                found.append((await own.express.count("Note"))["count"])

    threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == max(found) == 4
    assert house.server.value("SELECT count(*) FROM together.dataflow_tenant_key") == 1
    assert house.role("together") != house.role()


def test_a_key_that_came_with_a_copy_of_another_database_is_replaced(house):
    with house.open(schema="copied") as own, tenant(own, A):
        own.express_sync.create("Note", {"secret": "x"})
    key = "SELECT inner_key FROM copied.dataflow_tenant_key"
    first = house.server.value(key)
    house.server.execute("UPDATE copied.dataflow_tenant_key SET place = '7/7'")
    with house.open(schema="copied") as own, tenant(own, A):
        assert own.express_sync.count("Note")["count"] == 1
    assert len(house.server.rows(key)) == 1
    assert house.server.value(key) != first


def test_a_role_that_is_left_from_a_schema_of_the_same_name_gets_a_password_of_its_own(house):
    found = []
    for _ in range(2):
        house.server.execute("DROP SCHEMA IF EXISTS again CASCADE")
        with house.open(schema="again") as own, tenant(own, A):
            own.express_sync.create("Note", {"secret": "x"})
            assert own.express_sync.count("Note")["count"] == 1
        found += house.server.rows("SELECT role, password FROM again.dataflow_tenant_role")
        stored = house.server.value("SELECT rolpassword FROM pg_authid WHERE rolname = $1", found[-1][0])
        assert stored == verifier(found[-1][1], salt_of(stored))
    assert found[0][0] == found[1][0]
    assert found[0][1] != found[1][1]


def refused(house, **settings):
    """Open a DataFlow and return the error of its first confined call."""
    with house.open(**settings) as own, tenant(own, A), pytest.raises(DataFlowError) as caught:
        sql(own, "SELECT 1")
    return caught.value.__cause__ if isinstance(caught.value, WorkflowExecutionError) else caught.value


@pytest.fixture
def prepared(house):
    """A role as an administrator prepares it."""
    name = f"prepared_{house.database}"
    house.server.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'hunter2' NOINHERIT")
    yield name
    house.server.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_a_role_that_an_administrator_has_prepared_is_used(house, prepared):
    url = house.url_of(f"{prepared}:hunter2")
    with house.open(schema="given", postgres_tenant_url=url) as own:
        for name in (A, B):
            with tenant(own, name):
                own.express_sync.create("Note", {"secret": name})
                assert sql(own, "SELECT current_user::text AS who, secret FROM notes") == [(prepared, name)]
        assert house.server.value("SELECT count(*) FROM given.dataflow_tenant_role") == 0
        assert "hunter2" not in repr(own.core.dialect.confinement) + repr(vars(own.core.database))


EXCESSES = [
    ("ALTER ROLE {role} BYPASSRLS", "ALTER ROLE {role} NOBYPASSRLS", "NOBYPASSRLS"),
    ("ALTER ROLE {role} SUPERUSER", "ALTER ROLE {role} NOSUPERUSER", "NOSUPERUSER"),
    ("ALTER ROLE {role} CREATEROLE CREATEDB", "ALTER ROLE {role} NOCREATEROLE NOCREATEDB", "NOCREATEDB"),
    ("GRANT pg_monitor TO {role}", "REVOKE pg_monitor FROM {role}", "REVOKE"),
    ("CREATE TABLE shop.own (); ALTER TABLE shop.own OWNER TO {role}", "DROP TABLE shop.own", "REASSIGN OWNED"),
    ("GRANT CREATE ON SCHEMA shop TO {role}", "REVOKE CREATE ON SCHEMA shop FROM {role}", "REVOKE CREATE"),
]


@pytest.mark.parametrize(("change", "undo", "word"), EXCESSES)
def test_a_role_that_may_do_too_much_is_refused_with_the_cure(house, db, change, undo, word):
    names = {"role": house.role(), "owner": house.owner}
    house.server.execute(change.format(**names))
    try:
        error = refused(house)
    finally:
        house.server.execute(undo.format(**names))
    assert error.code == "unsafe-role"
    assert word in error.hint


def test_a_prepared_role_that_is_not_there_or_elsewhere_is_refused(house, prepared, postgres_server):
    missing = refused(house, schema="given2", postgres_tenant_url=house.url_of("nobody_at_all:hunter2"))
    assert (missing.code, "hunter2" in str(missing)) == ("no-role", False)
    url = postgres_server.create_database()
    try:
        there = f"postgresql://{prepared}:hunter2@{house.host}/{urlsplit(url).path.lstrip('/')}"
        elsewhere = refused(house, schema="given2", postgres_tenant_url=there)
    finally:
        postgres_server.drop_database(url)
    assert (elsewhere.code, "hunter2" in str(elsewhere)) == ("bad-url", False)
    assert refused(house, postgres_tenant_url=f"postgresql://{house.host}/{house.database}").code == "bad-url"
    with pytest.raises(ConfigurationError, match="no URL of PostgreSQL"):
        house.open(postgres_tenant_url="sqlite:///x.db")


def test_an_owner_who_may_not_create_roles_is_told_what_an_administrator_has_to_run(house):
    house.server.execute(f"ALTER ROLE {house.owner} NOCREATEROLE")
    try:
        error = refused(house, schema="poor")
    finally:
        house.server.execute(f"ALTER ROLE {house.owner} CREATEROLE")
    assert error.code == "no-createrole"
    assert re.search(r'CREATE ROLE "dataflow_tenant_\w+" LOGIN NOSUPERUSER NOBYPASSRLS', error.hint)


def test_nothing_is_made_where_the_schema_is_to_stay_as_it_is(house):
    assert refused(house, schema="as_it_is", auto_migrate=False).code == "not-confined"
    assert house.server.rows("SELECT FROM pg_namespace WHERE nspname = 'as_it_is'") == []


def test_a_superusers_tenants_do_not_see_each_others_statements(house, db):
    with house.open(house.superuser, schema="super") as own:
        with tenant(own, A):
            own.express_sync.create("Note", {"secret": "x"})
            seen = "SELECT string_agg(query, '') AS q FROM pg_stat_activity WHERE usename = current_user"
            assert sql(own, seen) == [("",)]
            assert sql(own, "SELECT count(*) AS n FROM notes") == [(1,)]
        assert own.core.database.describe()["tenant_role_hides_statements"]
    role = house.role("super")
    house.server.execute(f"DROP SCHEMA super CASCADE; DROP OWNED BY {role}; DROP ROLE {role}")
    assert db.core.database.describe()["tenant_role_hides_statements"] is False


def test_all_connections_end_with_the_dataflow(house, db):
    own = house.open(postgres_application_name="ending")
    with tenant(own, A):
        assert sql(own, "SELECT 1 AS n") == [(1,)]
    mine = "SELECT count(DISTINCT usename) FROM pg_stat_activity WHERE application_name = 'ending'"
    assert house.server.value(mine) == 2
    own.close()
    until(lambda: not house.server.value(mine))


def test_behind_a_pooler_in_transaction_mode_confinement_is_refused(house, db):
    assert refused(house, pooler="transaction", schema=None).code == "pooler"


# -- what an administrator has to look at -----------------------------------------------------------------------------
def specs(db):
    return [model.spec for model in db.core.models.values()]


def problems(db):
    return db.core.ask(db.core.dialect.enforcement_problems(specs(db)))


def test_a_database_as_the_framework_makes_it_has_no_problems(db):
    assert problems(db) == []


PROBLEMS = [
    ("ALTER TABLE shop.notes NO FORCE ROW LEVEL SECURITY", "not enabled and forced"),
    ("ALTER TABLE shop.notes DISABLE ROW LEVEL SECURITY", "not enabled and forced"),
    ("DROP POLICY {role} ON shop.notes", "the policy of the restricted role is missing"),
    ("ALTER POLICY {role} ON shop.notes USING (true)", "is not what DataFlow made"),
    ("DROP POLICY dataflow_owner ON shop.notes", "dataflow_owner"),
    ("ALTER POLICY dataflow_owner ON shop.notes TO PUBLIC", "dataflow_owner"),
    ("CREATE POLICY more ON shop.notes FOR SELECT USING (true)", "the policy more lets"),
    ("GRANT TRUNCATE ON shop.notes TO PUBLIC", "may TRUNCATE"),
    ("REVOKE DELETE ON shop.tags FROM {role}", "lacks SELECT"),
    ("CREATE UNIQUE INDEX lone ON shop.notes (secret)", "the unique key lone"),
    ("CREATE INDEX lone ON shop.notes (n)", "the index lone"),
    ("CREATE INDEX lone ON shop.notes (lower(secret), tenant_id)", "the index lone"),
    ("CREATE TABLE shop.child (note bigint CONSTRAINT lone REFERENCES shop.notes (id))", "the foreign key lone"),
    ("CREATE VIEW shop.seen AS SELECT * FROM shop.notes; GRANT SELECT ON shop.seen TO PUBLIC", "the view seen"),
    (
        "CREATE VIEW shop.v AS TABLE notes; CREATE VIEW shop.seen AS TABLE shop.v; GRANT ALL ON shop.seen TO {role}",
        "the view seen",
    ),
    (
        "CREATE MATERIALIZED VIEW shop.seen AS SELECT * FROM shop.notes; GRANT SELECT ON shop.seen TO PUBLIC",
        "the materialized view seen",
    ),
    ("CREATE TABLE shop.part () INHERITS (shop.notes); GRANT SELECT ON shop.part TO {role}", "table part, a part of"),
    (
        "CREATE FUNCTION shop.told() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM shop.notes'",
        "the function told()",
    ),
    ("ALTER ROLE {role} BYPASSRLS", "BYPASSRLS"),
    ("GRANT pg_monitor TO {role}", "membership in other roles"),
    ("GRANT SELECT ON shop.dataflow_tenant_key TO {role}", "dataflow_tenant_key"),
    (
        "CREATE OR REPLACE FUNCTION shop.dataflow_tenant() RETURNS text LANGUAGE sql AS 'SELECT ''b'''",
        "the functions are missing",
    ),
    ("UPDATE shop.dataflow_tenant_key SET place = 'elsewhere'", "the key"),
    ("DROP OWNED BY {role}", "the policy of the restricted role is missing"),
]


@pytest.mark.parametrize(("change", "said"), PROBLEMS)
def test_a_way_past_the_confinement_is_found(db, house, change, said):
    names = {"role": house.role(), "owner": house.owner}

    async def look():
        raw = await asyncpg.connect(house.superuser, server_settings={"search_path": "shop"})
        try:
            await raw.execute(f"BEGIN; {change.format(**names)}; SET LOCAL ROLE {house.owner}")
            return await drive(raw, db.core.dialect.enforcement_problems(specs(db)))
        finally:
            await raw.close()

    found = asyncio.run(look())
    assert any(said in problem for problem in found), found


async def drive(raw, program):
    """Send the statements of a program on the driver's connection."""
    reply = None
    try:
        while True:
            command, arguments = program.send(reply)
            reply = await raw.fetch(command.sql, *arguments)
    except StopIteration as end:
        return end.value


def test_what_is_harmless_is_no_problem(db, house):
    house.server.execute(
        f"""
        CREATE VIEW shop.own WITH (security_invoker = true) AS SELECT secret FROM shop.notes;
        CREATE VIEW shop.report AS SELECT count(*) FROM shop.notes;
        GRANT SELECT ON shop.own TO {house.role()};
        """
    )
    try:
        assert problems(db) == []
        for name, count in ((B, 3), (A, 0)):
            with tenant(db, name):
                assert sql(db, f"SELECT count(*) AS n FROM own WHERE secret LIKE '{CANARY}%'") == [(count,)]
        with tenant(db, A), pytest.raises(WorkflowExecutionError):
            sql(db, "SELECT * FROM report")
    finally:
        house.server.execute("DROP VIEW shop.own, shop.report")


def test_what_was_changed_is_mended_when_a_process_starts(house, db):
    role = house.role()
    house.server.execute(
        f"""
        ALTER TABLE shop.notes NO FORCE ROW LEVEL SECURITY;
        ALTER POLICY {role} ON shop.notes USING (true);
        GRANT TRUNCATE ON shop.notes TO {role};
        REVOKE INSERT ON shop.tags FROM {role};
        GRANT SELECT ON shop.dataflow_tenant_key TO PUBLIC;
        CREATE OR REPLACE FUNCTION shop.dataflow_tenant() RETURNS text LANGUAGE sql AS 'SELECT ''b''';
        """
    )
    with house.open() as own:
        with tenant(own, A):
            own.express_sync.count("Note")
        assert problems(own) == []


def test_an_index_that_does_not_begin_with_the_tenant_would_tell_which_values_there_are(db, house):
    used = "SELECT idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relid = 'notes'::regclass"

    async def fetched(raw):
        found = []
        for guess in (f"{CANARY}-0", "nobody has this"):
            async with raw.transaction():
                await raw.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
                before = await raw.fetchval(used)
                assert await raw.fetchval("SELECT count(*) FROM notes WHERE secret = $1", guess) == 0
                found.append(await raw.fetchval(used) - before)
        return found

    with proven(house, db) as raw:
        there, not_there = house.server.background.run(fetched(raw))
        assert there == not_there
    house.server.execute("CREATE INDEX lone ON shop.notes (secret)")
    try:
        with proven(house, db) as raw:
            there, not_there = house.server.background.run(fetched(raw))
            assert there > not_there
        assert any("the index lone" in problem for problem in problems(db))
    finally:
        house.server.execute("DROP INDEX shop.lone")


# -- without confinement ----------------------------------------------------------------------------------------------
class Telling(Guard):
    confines = False


class TellingPlugin:
    dataflow_api = "1.0"

    @hookimpl
    def dataflow_guards(self, config):
        return [Telling()]


async def test_a_connection_that_is_not_confined_is_told_as_well(house):
    async with DataFlow(house.url, plugins=[TellingPlugin()], pool_size=1, pool_max_overflow=0) as own:
        with tenant(own, A), around(own, actor="alice"):
            assert await run(own, KNOWN) == [(A, "alice")]
            assert await run(own, "SET dataflow.actor = 'bob'", KNOWN) == [(A, "alice")]
        with tenant(own, B):
            assert await statement(own, "SELECT current_setting('dataflow.tenant')") == [(B,)]
        with pytest.raises(ConfigurationError, match="colour"):
            list(own.core.dialect.enter(types.SimpleNamespace(context={}), {"colour": "red"}))


async def test_behind_a_pooler_only_transactions_are_told(house):
    async with DataFlow(house.url, plugins=[TellingPlugin()], pooler="transaction", pool_size=1) as own:
        with tenant(own, A):
            with pytest.raises(ConfigurationError) as caught:
                await statement(own, "SELECT 1")
            assert caught.value.code == "pooler"
            assert await run(own, "TransactionScopeNode", "SELECT current_setting('dataflow.tenant')") == [(A,)]
        (raw,) = [link.raw for pool in _POOLS.values() for link in pool._idle if pool.pooled]
        assert await raw.fetchval("SELECT coalesce(current_setting('dataflow.tenant', true), '')") == ""


# -- the first words --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "query",
    [
        "explain select 1",
        "-- x\n/* y */ EXPLAIN (ANALYZE) SELECT 1",
        "/* a /* b */ select */ explain select 1",
        ";;/**/; explain select 1",
        "/*/ */explain select 1",
        "do $$ begin end $$",
        "create /* x */ or -- y\n replace function f() returns int as '' language sql",
        "CREATE PROCEDURE p() LANGUAGE sql AS ''",
        "alter user x set y = 1",
        "drop owned by current_user",
    ],
)
def test_a_statement_that_reaches_beyond_the_tenant_is_refused(query):
    with pytest.raises(InputError) as caught:
        refuse_beyond_tenant(query)
    assert caught.value.code == "refused-query"


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 'explain'",
        "SELECT explain FROM t",
        "/* explain */ SELECT 1",
        "/* /* */ explain",
        "document",
        "INSERT INTO t SELECT 1 ON CONFLICT DO NOTHING",
        "ALTER TABLE t ADD c int",
        "CREATE TEMP TABLE function (a int)",
        "(SELECT 1)",
        "",
    ],
)
def test_other_statements_are_the_servers_to_judge(query):
    refuse_beyond_tenant(query)
