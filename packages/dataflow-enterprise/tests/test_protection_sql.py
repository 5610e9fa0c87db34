"""SQL of the user's own under a policy: judged by its text where it writes, by the database where it claims to read."""

from itertools import count

import pytest

from dataflow import DataFlow
from dataflow.enterprise.protection import policy_of
from dataflow.enterprise.protection.statements import touched
from dataflow.errors import DataFlowError, WorkflowBuildError, WorkflowExecutionError, WriteProtectedError
from dataflow.runtime import LocalRuntime
from dataflow.sqltext import parse

ANY = None
TOUCHES = [
    ("DELETE FROM items", "delete", {"items"}),
    ("delete from ITEMS where 1 = 1", "delete", {"items"}),
    ('DELETE FROM "Items"', "delete", {"items"}),
    ("DELETE FROM [items]", "delete", {"items"}),
    ("DELETE FROM `items`", "delete", {"items"}),
    ("DELETE FROM ONLY items", "delete", {"items"}),
    ("DELETE FROM notes", "delete", {"notes"}),
    ("DELETE FROM notes WHERE id IN (SELECT id FROM items)", "delete", {"items", "notes"}),
    ("UPDATE notes SET text = 'items'", "update", {"notes"}),
    ("UPDATE notes SET text = 'please delete me'", "update", {"notes"}),
    ("UPDATE notes SET text = replace(text, 'a', 'b')", "update", {"notes"}),
    ("UPDATE OR IGNORE notes SET text = ''", "update", {"notes"}),
    ("INSERT INTO notes (text) VALUES (:t)", "create", {"notes"}),
    ("INSERT INTO notes (text) SELECT name FROM items", "create", {"items", "notes"}),
    ("INSERT INTO notes (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET text = ''", "create update", {"notes"}),
    ("INSERT OR REPLACE INTO notes (id) VALUES (1)", "create update delete", {"notes"}),
    ("REPLACE INTO notes (id) VALUES (1)", "create update delete", {"notes"}),
    ("WITH old AS (DELETE FROM items RETURNING *) SELECT count(*) FROM old", "delete", {"items"}),
    ("WITH a AS (UPDATE notes SET text = '' RETURNING 1) DELETE FROM items", "update delete", {"items", "notes"}),
    # what is not a table of a model, or not understood, may be anything
    ("DELETE FROM scratch", "delete", ANY),
    ("DELETE FROM items_view WHERE id IN (SELECT id FROM notes)", "delete", ANY),
    ("DELETE/**/FROM/**/notes", "delete", ANY),
    ("DELETE FROM other.notes", "delete", ANY),
    ('DELETE FROM U&"\\0069tems"', "delete", ANY),
    ("UPDATE notes SET text = '' -- do\nUPDATE scratch SET a = 1", "update", ANY),
    ("MERGE INTO notes USING items ON true WHEN MATCHED THEN DELETE", "create update delete", ANY),
    ("TRUNCATE notes", "create update delete ddl", ANY),
    ("DO $$ BEGIN EXECUTE 'del' || 'ete from it' || 'ems'; END $$", "create update delete ddl", ANY),
    ("CALL clean()", "create update delete ddl", ANY),
    ("DROP TABLE notes", "create update delete ddl", ANY),
    ("COPY notes FROM '/tmp/x'", "create update delete ddl", ANY),
    ("frobnicate", "create update delete ddl", ANY),
]


@pytest.mark.parametrize(("sql", "effects", "tables"), TOUCHES, ids=[case[0][:40] for case in TOUCHES])
def test_what_a_statement_may_touch(sql, effects, tables):
    (statement,) = parse(sql)
    assert statement.writes
    found = touched(statement, ["items", "notes"])
    assert " ".join(found.effects) == effects
    assert found.tables == (None if tables is ANY else frozenset(tables))


def test_an_update_names_the_fields_it_changes():
    def fields(sql, effect="update"):
        return touched(parse(sql)[0], ["items"]).fields(effect, ["id", "name", "price"])

    assert fields("UPDATE items SET price = 1") == ("price",)
    assert fields('UPDATE items SET "PRICE" = 1 WHERE id = 2') == ("id", "price")
    assert fields("UPDATE items SET rowid = 5") == ("id", "name", "price")
    assert fields("UPDATE scratch SET name = ''") == ("id", "name", "price")
    assert fields("INSERT INTO items VALUES (1, 'a', 2)", "create") == ("id", "name", "price")
    assert fields("DELETE FROM items WHERE price = 1", "delete") == ()


DIALECTS = ("sqlite", "memory", "postgresql")
SCHEMAS = count()


class Bench:
    """A database with items and notes, opened under a policy."""

    def __init__(self, db, dialect):
        self.db = db
        self.dialect = dialect

    def sql(self, query, params=None, *, late=False, **more):
        """Run SQL in a workflow; late: the query arrives when the workflow is built already."""
        given = {"query": query, "params": params, **more}
        workflow = self.db.workflow().add_node("AsyncSQLDatabaseNode", "sql", {} if late else given).build()
        try:
            results, _ = LocalRuntime().execute(workflow, parameters={"sql": given} if late else {})
        except WorkflowExecutionError as error:
            raise error.__cause__ from None
        return results["sql"]["result"]["data"]

    def rows(self):
        return [self.db.express_sync.list(model)["records"] for model in ("Item", "Note")]


@pytest.fixture(params=DIALECTS)
def opened(request, tmp_path):
    """Open a new database under a policy."""
    dialect = request.param
    closing = []

    def open_under(policy):
        url, options = ":memory:", {}
        if dialect == "sqlite":
            url = f"sqlite:///{tmp_path}/app.db"
        if dialect == "postgresql":
            url = request.getfixturevalue("postgres_url")
            options = {"postgres_schema": f"sql_{next(SCHEMAS)}", "pool_size": 2}
        db = DataFlow(url, name="shop", protection=policy, **options)
        closing.append(db)

        @db.model
        class Item:
            name: str
            price: int = 0

        @db.model
        class Note:
            text: str

        with db.unlocked(reason="set up"):
            db.express_sync.bulk_create("Item", [{"name": "ink", "price": 5}, {"name": "pen", "price": 7}])
            db.express_sync.create("Note", {"text": "keep"})
        return Bench(db, dialect)

    yield open_under
    for db in closing:
        db.close()


LATE = pytest.mark.parametrize("late", [False, True], ids=["at build", "at execution"])
ITEM_WRITES = [
    "DELETE FROM items",
    'DELETE FROM "items" WHERE id = 1',
    "UPDATE items SET price = 0",
    "INSERT INTO items (name, price, created_at, updated_at) SELECT name, price, created_at, updated_at FROM items",
    "WITH chosen AS (SELECT 1 AS id) DELETE FROM items WHERE id IN (SELECT id FROM chosen)",
    "DELETE FROM elsewhere",
    "DELETE/* */FROM items",
]


@LATE
@pytest.mark.parametrize(
    "policy",
    [
        {"global": {"deny": ["write"]}},
        {"connection": {"shop": {"deny": True}}},
        {"model": {"Item": {"deny": True}}},
        {"operation": {"deny": ["sql"]}},
        {"field": {"Item": {"price": {"deny": True}}}, "model": {"Item": {"deny": ["delete"]}}},
        {"default": "deny"},
        {"default": "deny", "model": {"Note": {"allow": True}}},
    ],
)
def test_sql_that_writes_is_refused_where_a_rule_denies_it(opened, policy, late):
    bench = opened(policy)
    before = bench.rows()
    for query in ITEM_WRITES:
        with pytest.raises(WriteProtectedError if late else WorkflowBuildError, match="SQL that writes") as caught:
            bench.sql(query, late=late)
        if not late:
            assert [problem.code for problem in caught.value.problems] == ["write-protected"]
    for query in ("DROP TABLE items", "TRUNCATE items", "CREATE TABLE more (n int)"):
        with pytest.raises((WriteProtectedError, WorkflowBuildError), match="write-protected"):
            bench.sql(query, late=late, validate_queries=False)
    assert bench.rows() == before
    assert bench.sql("SELECT count(*) AS n FROM items", late=late) == [{"n": 2}]
    with bench.db.unlocked(reason="a test"):
        bench.sql("UPDATE items SET price = 0 WHERE id = :id", {"id": 1}, late=late)
        bench.sql("CREATE TABLE more (n int)", late=late, validate_queries=False)
    assert [item["price"] for item in bench.rows()[0]] == [0, 7]


@LATE
def test_sql_that_writes_what_no_rule_protects_runs(opened, late):
    policy = {"model": {"Item": {"deny": ["delete"]}}, "field": {"Item": {"price": {"deny": ["update"]}}}}
    bench = opened(policy)
    bench.sql("UPDATE notes SET text = 'new'", late=late)
    bench.sql("UPDATE items SET name = 'x' WHERE id = 1", late=late)
    with pytest.raises(DataFlowError, match=r"Item\.price"):
        bench.sql("UPDATE items SET name = 'x', price = 3", late=late)
    bench.sql("DELETE FROM notes", late=late)
    assert bench.db.express_sync.count("Note") == {"count": 0}
    assert [(item["name"], item["price"]) for item in bench.rows()[0]] == [("x", 5), ("pen", 7)]


def test_several_statements_are_judged_one_by_one(opened):
    bench = opened({"model": {"Item": {"deny": True}}})
    before = bench.rows()
    with pytest.raises(WriteProtectedError):
        bench.sql("UPDATE notes SET text = 'new'; DELETE FROM items", late=True, validate_queries=False)
    assert bench.rows() == before
    both = "UPDATE notes SET text = 'new'; SELECT count(*) AS n FROM items"
    assert bench.sql(both, late=True, validate_queries=False) == [{"n": 2}]
    assert bench.rows()[1][0]["text"] == "new"


# -- SQL that claims to read ------------------------------------------------------------------------------------------
FUNCTION = """
CREATE FUNCTION {schema}.wipe() RETURNS int LANGUAGE sql VOLATILE AS 'DELETE FROM {schema}.items; SELECT 1'
"""
DISGUISED = [
    "EXPLAIN ANALYZE DELETE FROM items",
    "WITH a AS (SELECT 1) -- \r DELETE FROM items",
    "SELECT * INTO copied FROM items",
    "SELECT wipe()",
    "VALUES (wipe())",
    "SELECT nextval(pg_get_serial_sequence('items', 'id'))",
    "SELECT set_config('transaction_read_only', 'off', false), wipe()",
    "SELECT set_config('default_transaction_read_only', 'off', false), wipe()",
]


@pytest.fixture(params=["alone", "in a transaction", "after others"])
def disguised(request):
    """Ways in which a query may be sent."""

    def send(bench, query):
        if request.param == "after others":
            first = "SELECT set_config('default_transaction_read_only', 'off', false); UPDATE notes SET text = 'a'"
            return bench.sql(f"{first}; {query}", late=True, validate_queries=False)
        builder = bench.db.workflow()
        if request.param == "in a transaction":
            builder.add_node("TransactionScopeNode", "scope")
            builder.add_node("NoteCreateNode", "note", {"text": "new"})
        workflow = builder.add_node("AsyncSQLDatabaseNode", "sql", {"query": query}).build()
        try:
            return LocalRuntime().execute(workflow)
        except WorkflowExecutionError as error:
            raise error.__cause__ from None

    return send


@pytest.mark.parametrize("opened", ["postgresql"], indirect=True)
@pytest.mark.parametrize("query", DISGUISED)
def test_postgresql_itself_refuses_a_write_that_is_disguised_as_a_query(opened, query, disguised):
    bench = opened({"model": {"Item": {"deny": True}}})
    with bench.db.unlocked(reason="a test"):
        bench.sql(FUNCTION.format(schema=bench.db.config["postgres_schema"]), validate_queries=False)
    before = bench.rows()
    with pytest.raises((WriteProtectedError, DataFlowError), match=r"refused it as a write|read-write mode"):
        disguised(bench, query)
    assert bench.rows() == before
    bench.db.express_sync.create("Note", {"text": "the connection is as it was"})
    assert bench.sql("SELECT count(*) AS n FROM items") == [{"n": 2}]
    with bench.db.unlocked(reason="a test"):
        bench.sql("SELECT wipe()")
    assert bench.rows()[0] == []


@pytest.mark.parametrize("opened", ["sqlite", "memory"], indirect=True)
def test_sqlite_is_as_before_after_a_query_and_its_reader_stays_a_reader(opened):
    bench = opened({"model": {"Item": {"deny": True}}})
    for _ in range(2):
        assert bench.sql("SELECT count(*) AS n FROM items") == [{"n": 2}]
        with pytest.raises(DataFlowError):
            bench.sql("SELECT no_such_column FROM items")
        bench.db.express_sync.create("Note", {"text": "written"})
    reader = bench.db.core.database.reader
    state = reader.raw.execute("PRAGMA query_only").fetchone()[0]
    assert state == (1 if bench.dialect == "sqlite" else 0)


# -- a connection that only reads -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "policy", [{"global": {"deny": ["write"]}}, {"global": {"deny": True}}, {"connection": {"shop": {"deny": True}}}]
)
def test_the_database_refuses_every_write_of_a_read_only_connection(opened, policy):
    bench = opened(policy)
    before = bench.rows()
    for feature in [f for model in bench.db.core.models.values() for f in model.features]:
        if feature.name == "protection":
            feature._ask = lambda wanted, call: None  # as if the framework forgot to ask
    for operation, params in (
        ("create", {"name": "nib"}),
        ("update", {"id": 1, "price": 0}),
        ("delete", {"id": 1}),
        ("upsert", {"where": {"id": 1}, "create": {"name": "x"}}),
        ("bulk_create", {"data": [{"name": "nib"}]}),
        ("bulk_update", {"filter": {"price": 5}, "update": {"price": 0}}),
        ("bulk_update", {"data": [{"id": 1, "price": 0}]}),
        ("bulk_delete", {"filter": {"price": 5}}),
        ("bulk_upsert", {"data": [{"id": 1, "name": "x"}]}),
    ):
        with pytest.raises(WriteProtectedError, match="the database refused a write") as caught:
            bench.db.express_sync.call(operation, "Item", **params)
        assert caught.value.level in policy
    assert bench.rows() == before
    with bench.db.unlocked(reason="a test"):
        assert bench.db.express_sync.update("Item", 1, {"price": 1})["updated"] == 1
    assert bench.db.health()["checks"]["protection"]["by_the_database"] == ["SQL that reads", "every write"]


def test_a_frozen_policy_is_enforced_by_the_database_as_well(opened):
    bench = opened({})
    policy_of(bench.db).freeze("moving house")
    for feature in bench.db.core.models["Item"].features:
        if feature.name == "protection":
            feature._ask = lambda wanted, call: None
    with pytest.raises(WriteProtectedError, match="the database refused a write"):
        bench.db.express_sync.update("Item", 1, {"price": 0})
    policy_of(bench.db).thaw()
    assert bench.db.express_sync.update("Item", 1, {"price": 0})["updated"] == 1


# -- what no text tells -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("opened", ["sqlite", "memory"], indirect=True)
def test_sqlite_asks_about_changes_that_triggers_make(opened):
    bench = opened({"model": {"Item": {"deny": ["delete"]}}, "field": {"Item": {"price": {"deny": ["update"]}}}})
    with bench.db.unlocked(reason="a test"):
        for event, action in (("UPDATE", "UPDATE items SET price = 0"), ("DELETE", "DELETE FROM items")):
            trigger = f"CREATE TRIGGER on_{event} AFTER {event} ON notes BEGIN {action}; END"
            bench.sql(trigger, validate_queries=False)
        trigger = "CREATE TRIGGER on_insert AFTER INSERT ON notes BEGIN UPDATE items SET name = 'x'; END"
        bench.sql(trigger, validate_queries=False)
    before = bench.rows()
    with pytest.raises(WriteProtectedError, match=r"SQL that writes to Item\.price"):
        bench.sql("UPDATE notes SET text = 'fires'")
    with pytest.raises(WriteProtectedError, match="SQL that writes to Item is"):
        bench.sql("DELETE FROM notes")
    assert bench.rows() == before
    bench.sql("INSERT INTO notes (text, created_at, updated_at) SELECT text, created_at, updated_at FROM notes")
    assert {item["name"] for item in bench.rows()[0]} == {"x"}
    with bench.db.unlocked(reason="a test"):
        bench.sql("DELETE FROM notes")
    assert bench.rows() == [[], []]
