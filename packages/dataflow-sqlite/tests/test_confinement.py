"""SQL of the user's own stays within its tenant, whatever it says; and works as usual where it does.

Tenant `a` attacks; all that tenant `b` owns holds CANARY, or a number that begins with 8675309. A second suite of the
same statements runs where the statements come through a whole DataFlow with a throw-away tenancy.
"""

import asyncio
import random
import sqlite3
from contextlib import contextmanager, suppress

import pytest

from dataflow import DataFlow
from dataflow.dialect import COUNT, Command
from dataflow.errors import DataFlowError, IntegrityError, QueryError, UniqueError
from dataflow.fields import FieldSpec
from dataflow.model import ModelSpec, SchemaExtra
from dataflow.nodes.sql import run_sql
from dataflow.plan.stages import Stage
from dataflow.plugins import hookimpl
from dataflow.session import AMBIENT, atomic
from dataflow.sqlite.dialect import SQLite
from dataflow.types import StrType

CANARY = "canary"
NUMBER = 8675309
ODD = 'or"der [s]'

SCHEMA = f"""\
CREATE TABLE parents (tenant_id TEXT NOT NULL, id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT,
    UNIQUE (tenant_id, id), UNIQUE (tenant_id, name)) STRICT;
CREATE TABLE countries (id INTEGER PRIMARY KEY, name TEXT) STRICT;
CREATE TABLE orders (tenant_id TEXT NOT NULL, id INTEGER PRIMARY KEY AUTOINCREMENT, parent_id INTEGER,
    note TEXT, code INTEGER, amount INTEGER NOT NULL DEFAULT 7, made TEXT DEFAULT (strftime('%Y', 'now')),
    _alive INTEGER GENERATED ALWAYS AS (CASE WHEN note IS NULL THEN 1 END) STORED,
    FOREIGN KEY (tenant_id, parent_id) REFERENCES parents (tenant_id, id) ON DELETE CASCADE) STRICT;
CREATE INDEX ix_orders ON orders (tenant_id, id);
CREATE UNIQUE INDEX ux_orders_code ON orders (code);
CREATE UNIQUE INDEX ux_orders_note ON orders (note);
CREATE TABLE visits (tenant_id TEXT NOT NULL, id INTEGER PRIMARY KEY,
    country INTEGER REFERENCES countries (id) ON DELETE CASCADE) STRICT;
CREATE TABLE "or""der [s]" (tenant_id TEXT NOT NULL, id INTEGER PRIMARY KEY, note TEXT) STRICT;
CREATE TABLE log (what TEXT, id INTEGER, amount INTEGER) STRICT;
CREATE TRIGGER noted AFTER DELETE ON orders BEGIN INSERT INTO log VALUES ('deleted', old.id, old.amount); END;
CREATE TRIGGER raised AFTER UPDATE OF amount ON orders WHEN new.amount > 1000
    BEGIN INSERT INTO log VALUES ('raised', new.id, (SELECT count(*) FROM orders)); END;
CREATE VIEW all_orders AS SELECT * FROM orders;
CREATE VIEW order_count AS SELECT (SELECT count(*) FROM orders) AS n;
CREATE VIEW one_each AS SELECT 1 AS one FROM orders;
CREATE VIEW deeper AS SELECT * FROM one_each;
CREATE VIEW big_countries AS SELECT * FROM countries WHERE id > 1;
CREATE VIRTUAL TABLE search USING fts5(note, content='orders', content_rowid='id');
CREATE VIRTUAL TABLE articles USING fts5(body);
INSERT INTO countries VALUES (1, 'one'), (2, 'two'), (3, 'three');
INSERT INTO articles VALUES ('hello world');
INSERT INTO parents (tenant_id, id, name) VALUES ('a', 1, 'p1'), ('a', 2, 'p2'), ('b', 3, '{CANARY}-p');
INSERT INTO orders (tenant_id, id, parent_id, note, code, amount) VALUES
    ('a', 1, 1, 'first', 11, 10), ('a', 2, 1, 'second', 12, 20), ('a', 4, 2, 'third', 13, 30),
    ('b', 3, 3, '{CANARY}-1', {NUMBER}, {NUMBER}), ('b', 5, NULL, '{CANARY}-2', {NUMBER}1, {NUMBER}1);
INSERT INTO visits VALUES ('a', 1, 1), ('b', 2, 1), ('b', 90, 2);
INSERT INTO "or""der [s]" VALUES ('a', 1, 'odd'), ('b', 2, '{CANARY}-odd');
INSERT INTO search (rowid, note) SELECT id, note FROM orders;
ANALYZE"""
MODELS = [
    ModelSpec("Parent", "parents", {}, ("id",), scope=("tenant_id",)),
    ModelSpec("Order", "orders", {}, ("id",), scope=("tenant_id",)),
    ModelSpec("Visit", "visits", {}, ("id",), scope=("tenant_id",)),
    ModelSpec("Odd", ODD, {}, ("id",), scope=("tenant_id",)),
    ModelSpec("Country", "countries", {}, ("id",)),
]
OWN = [("a", 1, 1, "first", 11, 10), ("a", 2, 1, "second", 12, 20), ("a", 4, 2, "third", 13, 30)]


class Shop:
    """A confined database with rows of two tenants."""

    def __init__(self, url, schema=SCHEMA):
        with DataFlow(url) as template:  # for its settings
            config = template.core.config
        self.dialect = SQLite()
        self.models = list(MODELS)
        self.database = self.dialect.connect(config.url, config)
        self.database.confine(lambda: list(self.models))
        for statement in schema.split(";\n"):
            self.admin(statement)
        self.enclose(*self.models)

    def enclose(self, *models):
        with self.session(privileged=True) as session:
            for model in models:
                session.run_blocking(self.dialect.enclose(model))
                assert session.run_blocking(self.dialect.enclosed(model))

    @contextmanager
    def session(self, *, tenant="a", privileged=False, write=True):
        session = self.database.lease_blocking(write=write, holder="test", privileged=privileged)
        try:
            if tenant is not None:
                session.run_blocking(self.dialect.enter(session, {"tenant": tenant}))
            yield session
        finally:
            session.release_blocking()

    def sql(self, text, *arguments, tenant="a", privileged=False, write=True, named=True):
        with self.session(tenant=tenant, privileged=privileged, write=write) as session:
            return session.run_blocking(sent(text, *arguments, named=named))

    def rows(self, text, *arguments, **how):
        return self.sql(text, *arguments, **how)[1]

    def changed(self, text, *arguments, **how):
        return self.sql(text, *arguments, **how)[2]

    def admin(self, text, *arguments):
        return self.sql(text, *arguments, privileged=True)[1]

    def belongings(self):
        """All that tenant `b` and the database itself own."""
        tables = ("parents", "orders", "visits", '"or""der [s]"')
        owned = [self.admin(f"SELECT * FROM {table} WHERE tenant_id = 'b' ORDER BY id") for table in tables]
        return [*owned, self.admin("SELECT type, name, sql FROM sqlite_master")]


def sent(text, *arguments, named=True):
    return (yield Command(text, writes=True, named=named), arguments)


def outcome(shop, text, *arguments, **how):
    """What a statement tells: its reply, or all that its error says."""
    try:
        return repr(shop.sql(text, *arguments, **how))
    except (DataFlowError, sqlite3.Error) as error:
        said = []
        while error is not None:
            said += [repr(error), str(error), repr(getattr(error, "__dict__", ""))]
            error = error.__cause__
        return " ".join(said)


def assert_tells_nothing(shop, statement, **how):
    told = outcome(shop, statement, **how).replace(statement, "").replace(repr(statement), "")
    assert CANARY not in told
    assert str(NUMBER) not in told


@pytest.fixture(params=["memory", "file"])
def shop(request, tmp_path):
    shop = Shop(":memory:" if request.param == "memory" else f"sqlite:///{tmp_path / 'shop.db'}")
    yield shop
    shop.database.close_blocking()


@contextmanager
def unharmed(shop):
    before = shop.belongings()
    yield
    assert shop.belongings() == before


REFUSED = [
    # past the view
    "SELECT * FROM main.orders",
    "SELECT count(*) FROM main.orders",
    'SELECT * FROM "main"."orders"',
    "SELECT * FROM [MAIN].[Orders]",
    "SELECT * FROM `main`.`ORDERS`",
    "SELECT * FROM 'main'.'orders'",
    "SELECT * FROM main /* x */ . -- y\n orders",
    "SELECT 1 WHERE EXISTS (SELECT 1 FROM main.orders WHERE tenant_id = 'b')",
    "SELECT (SELECT max(note) FROM main.orders)",
    "SELECT o.id FROM orders o JOIN main.orders m ON m.id > 0",
    "SELECT id FROM orders WHERE id IN main.orders",
    "SELECT id FROM orders UNION ALL SELECT id FROM main.orders",
    "WITH orders AS (SELECT * FROM main.orders) SELECT * FROM orders",
    "WITH RECURSIVE orders(i) AS (SELECT 9 FROM main.orders UNION ALL SELECT i - 1 FROM orders) SELECT * FROM orders",
    "WITH orders AS MATERIALIZED (SELECT count(*) AS n FROM main.orders) SELECT n FROM orders",
    'WITH noted AS (SELECT * FROM main.orders) SELECT note FROM "noted"',
    "WITH raised AS (SELECT note FROM main.orders) SELECT * FROM raised",
    "WITH dataflow_tenant_orders AS (SELECT * FROM main.orders) SELECT * FROM dataflow_tenant_orders",
    'WITH "DATAFLOW_tenant_orders" AS (SELECT * FROM main.orders) SELECT * FROM "DATAFLOW_tenant_orders"',
    "WITH dataflow_write_orders_insert_row AS (SELECT * FROM main.orders), x AS (SELECT 1) SELECT * FROM x",
    'WITH x AS (SELECT 1), dataflow_write_orders_insert_row AS (SELECT * FROM "main"."orders") SELECT * FROM x',
    "SELECT * FROM (SELECT * FROM main.orders) AS dataflow_tenant_orders",
    "EXPLAIN QUERY PLAN SELECT * FROM main.orders",
    # views and virtual tables that others made
    "SELECT * FROM all_orders",
    "SELECT count(*) FROM all_orders",
    "SELECT n FROM order_count",
    "SELECT 1 FROM order_count WHERE n > 3",
    "SELECT count(*) FROM one_each",
    "SELECT count(*) FROM deeper",
    "SELECT 1 FROM one_each WHERE 'orders' <> ''",
    "SELECT count(*) FROM one_each WHERE 'orders' <> '' AND (SELECT count(*) FROM orders) > 0",
    "SELECT one FROM deeper LEFT JOIN orders",
    "SELECT sum(one) FROM deeper, orders",
    "WITH x AS (SELECT count(*) AS n FROM one_each) SELECT n FROM x",
    "UPDATE all_orders SET note = 'x'",
    f"SELECT * FROM search WHERE search MATCH '{CANARY}'",
    "SELECT count(*) FROM search",
    "SELECT snippet(search, 0, '', '', '', 9) FROM search('x')",
    "SELECT * FROM search_data",
    "INSERT INTO search (search) VALUES ('rebuild')",
    # the framework's and the database's own
    "SELECT * FROM dataflow_write_orders_insert",
    "INSERT INTO dataflow_write_orders_delete (k0, c0) VALUES (3, 'b')",
    "SELECT * FROM sqlite_sequence",
    "SELECT count(*) FROM sqlite_sequence",
    "UPDATE sqlite_sequence SET seq = 0",
    "SELECT * FROM sqlite_stat1",
    "SELECT * FROM dbstat",
    "SELECT sum(pgsize) FROM dbstat WHERE name = 'orders'",
    "SELECT sql FROM sqlite_stmt",
    "SELECT sql FROM temp.sqlite_master",
    "SELECT count(*) FROM temp.sqlite_schema",
    "SELECT * FROM sqlite_temp_schema",
    "SELECT * FROM pragma_table_info('orders')",
    "SELECT last_insert_rowid()",
    "SELECT total_changes()",
    "SELECT changes()",
    "SELECT df_counted(1)",
    "SELECT load_extension('x')",
    "SELECT id FROM orders WHERE load_extension(note)",
    # what is no query
    "PRAGMA query_only = OFF",
    "PRAGMA writable_schema = ON",
    "; PRAGMA table_info(orders)",
    "/* x */ PRAGMA writable_schema = ON",
    "EXPLAIN PRAGMA writable_schema = ON",
    "ATTACH ':memory:' AS other",
    "DETACH main",
    "VACUUM",
    "VACUUM INTO 'copy.db'",
    "CREATE TABLE t AS SELECT * FROM orders",
    "CREATE TEMP TABLE t (x)",
    "CREATE TEMP VIEW v AS SELECT * FROM main.orders",
    "CREATE TEMP TRIGGER t AFTER INSERT ON log BEGIN DELETE FROM orders; END",
    "CREATE VIEW v AS SELECT * FROM orders",
    "CREATE INDEX i ON orders (note)",
    "CREATE VIRTUAL TABLE v USING fts5vocab('search', 'row')",
    "DROP VIEW orders",
    "DROP VIEW temp.orders",
    "DROP TABLE main.orders",
    "DROP TRIGGER noted",
    "ALTER TABLE orders RENAME TO mine",
    "REINDEX",
    "ANALYZE",
    "BEGIN",
    "COMMIT",
    "SAVEPOINT s",
    # writing
    "UPDATE main.orders SET note = 'x'",
    "UPDATE main.orders SET note = 'x' WHERE tenant_id = 'b' RETURNING note",
    "DELETE FROM main.orders",
    "DELETE FROM main.orders WHERE tenant_id = 'b' RETURNING *",
    "INSERT INTO main.orders (tenant_id, note) VALUES ('b', 'x')",
    f"REPLACE INTO main.orders (tenant_id, id) VALUES ('a', {NUMBER})",
    "INSERT INTO orders (tenant_id, note) VALUES ('b', 'planted')",
    "INSERT INTO orders (tenant_id, note) SELECT 'b', note FROM orders",
    "INSERT INTO orders (note) VALUES ('x') RETURNING (SELECT max(note) FROM main.orders)",
    "INSERT INTO orders (note) VALUES ('x') RETURNING id",
    "INSERT INTO orders (id, note) VALUES (3, 'x') ON CONFLICT (id) DO UPDATE SET note = 'stolen'",
    "UPDATE orders SET tenant_id = 'b'",
    "UPDATE orders SET tenant_id = NULL",
    "UPDATE orders SET note = 'x' RETURNING (SELECT max(note) FROM main.orders)",
    "DELETE FROM orders RETURNING (SELECT count(*) FROM main.orders)",
    "DELETE FROM parents WHERE id = 1 RETURNING id IN main.orders",
    "UPDATE orders SET note = (SELECT note FROM main.orders WHERE id = 3) WHERE id = 1",
    "UPDATE orders SET note = m.note FROM main.orders AS m WHERE m.id = 3 AND orders.id = 1",
    "DELETE FROM orders WHERE EXISTS (SELECT 1 FROM main.orders WHERE id = 3)",
    "DELETE FROM countries WHERE id IN (SELECT count(*) FROM main.orders)",
    "INSERT INTO log SELECT note, id, amount FROM main.orders",
    "INSERT INTO log SELECT 'n', n, 0 FROM order_count",
    "DELETE FROM countries WHERE id = 1",  # its rows carry along visits of all tenants
    "UPDATE countries SET id = 9 WHERE id = 1",
    "REPLACE INTO countries VALUES (1, 'again')",
    "INSERT INTO orders (note, _alive) VALUES ('x', 1)",
    "UPDATE orders SET _alive = 1",
    "SELECT rowid FROM orders",
    "SELECT id FROM orders WHERE _rowid_ = 3",
    "INSERT INTO orders (rowid, note) VALUES (3, 'x')",
    "INSERT INTO orders (note, oid) VALUES ('x', 3)",
    "UPDATE orders SET rowid = 3",
]
IMPOSSIBLE = [
    "SELECT * FROM sqlite_dbpage",
    "SELECT * FROM pragma_stats",
    "DELETE FROM sqlite_master",
    "UPDATE sqlite_schema SET sql = ''",
    "CREATE",
    "",
    "SELECT 1; SELECT * FROM main.orders",
    "SELECT id FROM orders INDEXED BY ux_orders_note WHERE note > ''",
    "SELECT * FROM other.orders",
    "SELECT raise(ignore) FROM orders",
]


@pytest.mark.parametrize("statement", REFUSED)
def test_a_way_past_the_tenant_is_refused_and_tells_nothing(shop, statement):
    for write in (True, False):
        with unharmed(shop), pytest.raises(QueryError) as caught:
            shop.sql(statement, write=write)
        assert caught.value.code in ("confined", "no-such-name")  # not every SQLite has all that is named
        assert_tells_nothing(shop, statement, write=write)
    assert shop.rows("SELECT tenant_id, id, parent_id, note, code, amount FROM orders ORDER BY id") == OWN


@pytest.mark.parametrize("statement", IMPOSSIBLE)
def test_what_sqlite_itself_refuses_tells_nothing_either(shop, statement):
    for write in (True, False):
        with unharmed(shop), pytest.raises(DataFlowError):
            shop.sql(statement, write=write)
        assert_tells_nothing(shop, statement, write=write)


KEPT = [
    ("SELECT count(*), max(amount), group_concat(DISTINCT tenant_id) FROM orders", [(3, 30, "a")]),
    ("SELECT id FROM orders WHERE tenant_id = 'b'", []),
    ("SELECT id FROM orders WHERE tenant_id <> 'a' OR 1", [(1,), (2,), (4,)]),
    ("SELECT id FROM temp.orders", [(1,), (2,), (4,)]),
    ('SELECT id FROM "orders" ORDER BY id DESC', [(4,), (2,), (1,)]),
    ("SELECT id FROM [ORDERS] WHERE id IN (1, 3, 5)", [(1,)]),
    ("SELECT id FROM `Orders` AS o WHERE o.id = 3", []),
    ("SELECT id FROM 'orders' LIMIT -1 OFFSET 2", [(4,)]),
    ("SELECT count(*) FROM orders, parents", [(6,)]),
    ("SELECT count(*) FROM orders o LEFT JOIN parents p ON p.id = o.parent_id WHERE p.id = 3", [(0,)]),
    ("SELECT count(*) FROM countries c LEFT JOIN orders o ON o.id = 3", [(3,)]),
    ("SELECT p.id, o.id FROM parents p LEFT JOIN orders o ON o.id = p.id + 2", [(1, None), (2, 4)]),
    ("SELECT exists(SELECT 1 FROM orders WHERE id = 3), exists(SELECT 1 FROM orders)", [(0, 1)]),
    ("SELECT id FROM orders WHERE id IN orders", "no"),
    ("SELECT 3 IN (SELECT id FROM orders), 4 IN (SELECT id FROM orders)", [(0, 1)]),
    ("SELECT id FROM orders EXCEPT SELECT 1 UNION SELECT id FROM visits", [(1,), (2,), (4,)]),
    ("WITH orders AS (SELECT id + 100 AS id FROM orders) SELECT * FROM orders", "no"),
    ("WITH mine AS (SELECT id FROM orders) SELECT count(*) FROM mine", [(3,)]),
    ("WITH orders AS (SELECT 1 AS id) SELECT count(*) FROM orders", [(1,)]),
    ("WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT 9) SELECT id FROM n, orders WHERE i = id",
     [(1,), (2,), (4,)]),
    ("SELECT id, sum(amount) OVER (ORDER BY id), lag(note) OVER (ORDER BY id) FROM orders",
     [(1, 10, None), (2, 30, "first"), (4, 60, "second")]),
    ("SELECT (SELECT count(*) FROM orders i WHERE i.id <= o.id) FROM orders o", [(1,), (2,), (3,)]),
    ("SELECT id FROM orders WHERE note GLOB '*r*' AND amount BETWEEN 10 AND 9e99", [(1,), (4,)]),
    ("SELECT note || '!' FROM orders WHERE id = 2", [("second!",)]),
    ("SELECT e.value FROM orders, json_each('[1, 2]') AS e WHERE orders.id = 1", [(1,), (2,)]),
    ("SELECT count(*) FROM json_tree('[[1]]')", [(3,)]),
    ("SELECT df_tenant()", [("a",)]),
    ('SELECT note FROM "or""der [s]"', [("odd",)]),
    ('SELECT note FROM `or"der [s]`', [("odd",)]),
    ("SELECT count(*) FROM visits JOIN countries ON country = countries.id", [(1,)]),
    ("SELECT name FROM big_countries", [("two",), ("three",)]),
    ("SELECT body FROM articles WHERE articles MATCH 'hello'", [("hello world",)]),
    ("SELECT count(*) FROM articles, orders", [(3,)]),
    ("SELECT name FROM sqlite_master WHERE name = 'orders'", [("orders",)]),
    ("VALUES (1), (2)", [(1,), (2,)]),
    (" -- a comment\n /* another */ SELECT 1", [(1,)]),
    ("SELECT 'dataflow', 'mainly', 1 AS \"main\" FROM orders WHERE id = 1", [("dataflow", "mainly", 1)]),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "expected"), KEPT)
def test_a_query_sees_the_tenant_s_rows_and_what_belongs_to_nobody(shop, statement, expected):
    for write in (True, False, True):
        with unharmed(shop):
            assert_tells_nothing(shop, statement, write=write)
            if expected != "no":
                assert sorted(map(repr, shop.rows(statement, write=write))) == sorted(map(repr, expected))


@pytest.mark.parametrize("tenant", ["", None])
def test_without_a_tenant_nothing_is_seen_and_nothing_is_changed(shop, tenant):
    shop.admin("INSERT INTO visits VALUES ('', 77, 3)")
    assert shop.rows("SELECT * FROM orders UNION ALL SELECT 1,2,3,4,5,6,7,8 FROM visits", tenant=tenant) == []
    assert shop.changed("UPDATE orders SET note = 'x'", tenant=tenant) == 0
    assert shop.changed("DELETE FROM visits", tenant=tenant) == 0
    for sql in ("INSERT INTO orders (note) VALUES ('x')", "INSERT INTO orders (tenant_id) VALUES ('a')"):
        with pytest.raises(QueryError, match="no tenant is known"):
            shop.sql(sql, tenant=tenant)
    assert shop.rows("SELECT count(*) FROM countries", tenant=tenant) == [(3,)]
    assert len(shop.admin("SELECT * FROM orders")) == 5


def test_who_leases_a_connection_next_inherits_no_tenant(shop):
    for write in (True, False):
        assert len(shop.rows("SELECT id FROM orders", tenant="a", write=write)) == 3
        assert shop.rows("SELECT id FROM orders", tenant=None, write=write) == []


def test_one_text_shows_each_tenant_its_own(shop):
    for tenant, ids in [("a", [1, 2, 4]), ("b", [3, 5]), ("c", []), ("A", []), ("a", [1, 2, 4])] * 3:
        for sql in ("SELECT id FROM orders", "SELECT id FROM orders WHERE note LIKE '%' ORDER BY id"):
            assert [row[0] for row in shop.rows(sql, tenant=tenant)] == ids


def test_within_one_transaction_each_statement_is_of_the_tenant_of_its_time(shop):
    with shop.session() as session:
        for tenant, number in (("a", 3), ("b", 2), ("a", 3), ("", 0)):
            session.run_blocking(shop.dialect.enter(session, {"tenant": tenant}))
            assert session.run_blocking(sent("SELECT count(*) FROM orders"))[1] == [(number,)]


FAILING = "abs(-9223372036854775807 - ({guess}))"
"""Fails with an overflow exactly if a guess is right."""
CONDITIONS = [
    "id = 3 AND {f}",
    "id IN (3, 1) AND {f}",
    "note = 'canary-1' AND {f}",
    "note > 'b' AND note < 'd' AND {f} ORDER BY note",
    f"code = {NUMBER} AND {{f}}",
    "(id = 3 AND {f}) OR id = 5",
    "(code = 8675309 AND {f}) OR (note = 'canary-1' AND {f})",
    "CASE WHEN note LIKE 'canary%' THEN {f} END",
    "+id = 3 AND (SELECT {f})",
    "EXISTS (SELECT {f})",
    "id = 3 AND json(CASE WHEN {g} THEN '{{' ELSE '1' END)",
    "id = 3 AND regexp(CASE WHEN {g} THEN '(' ELSE '' END, note)",
    "id = 3 AND 'x' LIKE 'x' ESCAPE substr(note, 1, 1 + ({g}))",
    "id = 3 AND df_divide(1.0, 1.0 - ({g})) IS NULL",
    "id = 3 AND (SELECT sum(x) FROM (SELECT 9223372036854775807 AS x UNION ALL SELECT ({g}))) > 0",
    "id = 3 AND (note COLLATE df_decimal) > '1'",
    "note > '0' AND (note COLLATE df_decimal) > '1' ORDER BY note",
    "(id = 3 AND note COLLATE df_decimal > '1') OR (id = 3 AND note COLLATE df_decimal < '9')",
    "id = 3 AND json_extract(note, CASE WHEN {g} THEN 'x' ELSE '$' END)",
    "note = 'canary-1' AND note ->> CASE WHEN {g} THEN '$[' ELSE '$' END",
    "id = 3 AND strftime(note, 'now') AND zeroblob(({g}) * 2000000000)",
]
FORMS = [
    "SELECT id FROM orders WHERE {c}",
    "SELECT count(*) FROM orders WHERE {c}",
    "SELECT p.id FROM parents p LEFT JOIN orders ON {c}",
    "UPDATE orders SET amount = 1 WHERE {c}",
    "DELETE FROM orders WHERE {c}",
    "INSERT INTO log SELECT 'x', id, 1 FROM orders WHERE {c}",
]


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("form", FORMS)
def test_no_condition_is_judged_for_a_row_of_another_tenant(shop, form, condition):
    """A condition that fails exactly where a guess about a row is right must not tell what the row holds."""
    if "ORDER BY" in condition and not form.startswith("SELECT id"):
        condition = condition.partition(" ORDER")[0]
    guess = "note GLOB 'canary*'"
    text = form.format(c=condition.format(f=FAILING.format(guess=guess), g=guess))
    told = []
    for held in ("canary-1", "zebra-1", "17.5"):
        shop.admin(
            "UPDATE orders SET note = ?, code = CASE ? WHEN 'canary-1' THEN 8675309 END WHERE id = 3", held, held
        )
        with shop.session() as session:
            session.run_blocking(sent("BEGIN IMMEDIATE", named=False))
            try:
                told.append(repr(session.run_blocking(sent(text))))
            except DataFlowError as error:
                told.append(str(error))
    assert len(set(told)) == 1


def test_the_wall_is_needed(shop):
    """What the tests above look for is there where a view is merged with the statement."""
    failing = FAILING.format(guess="note GLOB 'canary*'")
    raw = shop.database.writer.open()
    raw.execute("CREATE TEMP VIEW merged AS SELECT * FROM main.orders WHERE tenant_id = 'a'")
    with pytest.raises(sqlite3.OperationalError, match="overflow"):
        raw.execute(f"SELECT id FROM merged WHERE note = 'canary-1' AND {failing}").fetchall()


def test_a_plain_condition_uses_the_index_together_with_the_view(shop):
    for number in range(500):
        shop.admin("INSERT INTO orders (tenant_id, amount) VALUES ('b', ?)", number)
    shop.admin("ANALYZE")
    for sql, index in [
        ("SELECT note FROM orders WHERE id = ?", "rowid=?"),
        ("SELECT o.note FROM parents p JOIN orders o ON o.id = p.id WHERE p.id = ?", "rowid=?"),
        ("UPDATE orders SET amount = 3 WHERE id = ?", "rowid=?"),
        ("SELECT id FROM orders WHERE amount > ?", "ix_orders (tenant_id=?)"),
        ("SELECT id FROM orders WHERE note LIKE ?", "ix_orders (tenant_id=?)"),
    ]:
        plan = shop.rows("EXPLAIN QUERY PLAN " + sql, 1)
        assert any(index in row[3] for row in plan), plan
        assert any("CO-ROUTINE" in row[3] for row in plan) == ("LIKE" in sql)


# -- writing ----------------------------------------------------------------------------------------------------------
def notes(shop, tenant="a"):
    return shop.admin("SELECT id, note, amount FROM orders WHERE tenant_id = ? ORDER BY id", tenant)


def test_an_insert_is_stamped_with_the_tenant_and_filled_with_defaults(shop):
    with unharmed(shop):
        assert shop.changed("INSERT INTO orders (note) VALUES (?), (?)", "x", "y") == 2
        assert shop.changed("INSERT INTO orders (tenant_id, note, amount) VALUES ('a', 'z', 8)") == 1
        assert shop.changed("INSERT INTO orders DEFAULT VALUES") == 1
        assert shop.changed("INSERT INTO parents (name) SELECT note FROM orders WHERE id < 4") == 2
    found = shop.admin("SELECT tenant_id, note, amount, made = strftime('%Y', 'now'), _alive FROM orders WHERE id > 5")
    assert found == [("a", "x", 7, 1, None), ("a", "y", 7, 1, None), ("a", "z", 8, 1, None), ("a", None, 7, 1, 1)]
    assert shop.admin("SELECT name FROM parents WHERE id > 3") == [("first",), ("second",)]


def test_an_update_changes_and_counts_the_tenant_s_rows(shop):
    with unharmed(shop):
        assert shop.changed("UPDATE orders SET amount = amount + 1") == 3
        assert shop.changed("UPDATE orders SET amount = 5 WHERE id = 3 OR note = 'first'") == 1
        assert shop.changed("UPDATE orders SET amount = 5 WHERE id = 3") == 0
        assert (
            shop.changed("WITH x AS (SELECT 2 AS id) UPDATE orders SET amount = 6 WHERE id IN (SELECT id FROM x)") == 1
        )
        assert shop.changed("UPDATE orders SET note = c.name FROM countries c WHERE c.id = 1 AND orders.id = 1") == 1
        names, rows, count = shop.sql("UPDATE orders SET id = 40, note = 'moved' WHERE id = 4 RETURNING id, note")
        assert (names, rows, count) == (["id", "note"], [(40, "moved")], 1)
    assert notes(shop) == [(1, "one", 5), (2, "second", 6), (40, "moved", 31)]


def test_a_delete_removes_and_counts_the_tenant_s_rows_and_those_they_carry_along(shop):
    with unharmed(shop):
        assert shop.changed("DELETE FROM orders WHERE id IN (1, 3)") == 1
        assert shop.changed("DELETE FROM parents WHERE id <> 2") == 1  # carries order 2 along
        assert notes(shop) == [(4, "third", 30)]
        assert shop.changed("DELETE FROM orders") == 1
        assert shop.changed("DELETE FROM parents") == 1
    assert shop.rows("SELECT what, id FROM log ORDER BY id") == [("deleted", 1), ("deleted", 2), ("deleted", 4)]


def test_triggers_of_the_file_do_what_their_author_meant(shop):
    assert shop.changed("UPDATE orders SET amount = 2000 WHERE id = 1") == 1
    assert shop.rows("SELECT * FROM log") == [("raised", 1, 5)]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO orders (id, note) VALUES (3, 'x')",
        "INSERT OR REPLACE INTO orders (id, note) VALUES (3, 'x')",
        "REPLACE INTO orders (id, note) VALUES (3, 'x')",
        f"REPLACE INTO orders (code) VALUES ({NUMBER})",
        f"REPLACE INTO orders (note) VALUES ('{CANARY}-1')",
        "REPLACE INTO orders (id, note) SELECT id + 1, 'x' FROM orders",
        "INSERT OR IGNORE INTO orders (id, note) VALUES (3, 'x')",
        "UPDATE OR REPLACE orders SET id = 3 WHERE id = 1",
        "UPDATE OR REPLACE orders SET id = 5 WHERE id = 1",
        f"UPDATE OR REPLACE orders SET code = {NUMBER} WHERE id = 1",
        "UPDATE orders SET id = id + 1",
        "UPDATE OR IGNORE orders SET id = 3",
    ],
)
def test_a_key_of_another_tenant_cannot_be_taken_and_nothing_is_lost(shop, statement):
    with unharmed(shop), pytest.raises(UniqueError):
        shop.sql(statement)
    assert shop.rows("SELECT tenant_id, id, parent_id, note, code, amount FROM orders ORDER BY id") == OWN


def test_or_replace_works_within_the_tenant(shop):
    with unharmed(shop):
        assert shop.changed("REPLACE INTO orders (id, note) VALUES (1, 'again')") == 1
        assert shop.changed("INSERT OR IGNORE INTO orders (id, note) VALUES (1, 'x'), (9, 'nine')") == 1
        assert shop.changed("UPDATE OR REPLACE orders SET id = 2 WHERE id = 9") == 1
    assert notes(shop) == [(1, "again", 7), (2, "nine", 7), (4, "third", 30)]


def test_or_replace_is_refused_where_a_key_of_all_tenants_is_an_expression(shop):
    shop.admin("CREATE UNIQUE INDEX ux_lower ON orders (lower(note))")
    with unharmed(shop):
        for statement in (
            "REPLACE INTO orders (note) VALUES ('CANARY-1')",
            "UPDATE OR REPLACE orders SET note = 'CANARY-1'",
        ):
            with pytest.raises(QueryError, match="OR REPLACE"):
                shop.sql(statement)
        with pytest.raises(UniqueError):
            shop.sql("INSERT INTO orders (note) VALUES ('CANARY-1')")
        assert shop.changed("INSERT INTO orders (note) VALUES ('mine')") == 1


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("INSERT INTO orders (amount) VALUES ('many')", IntegrityError),
        ("INSERT INTO parents (name) VALUES ('p1')", UniqueError),
        ("INSERT INTO orders (parent_id) VALUES (3)", IntegrityError),  # the parent is another tenant's
        ("UPDATE orders SET parent_id = 3", IntegrityError),
        ("SELECT nothing FROM orders", QueryError),
        ("SELECT * FROM nowhere, orders", QueryError),
        ("SELEC 1", QueryError),
        ("SELECT (", QueryError),
        ("SELECT abs(-9223372036854775808) FROM orders", QueryError),
    ],
)
def test_errors_of_one_s_own_stay_what_they_are_and_undo_the_statement(shop, statement, kind):
    with unharmed(shop), pytest.raises(kind):
        shop.sql(statement)
    assert notes(shop) == [(1, "first", 10), (2, "second", 20), (4, "third", 30)]


def test_a_table_that_is_not_there_is_missed_by_name(shop):
    shop.models.append(ModelSpec("Late", "lates", {}, ("id",), scope=("tenant_id",)))
    with pytest.raises(QueryError, match="no such table") as caught:
        shop.sql("SELECT * FROM lates")
    assert caught.value.code == "no-such-name"


# -- transactions -----------------------------------------------------------------------------------------------------
class Calling:
    """What `atomic` needs of a call."""

    def __init__(self, shop, session):
        self.core = shop
        self.session = session
        self.after_commit = []


class Undo(Exception):
    pass


def test_views_made_in_a_transaction_go_with_it_and_come_back(shop):
    def inner(undo):
        yield from sent("INSERT INTO orders (amount) VALUES (1)")
        if undo:
            raise Undo

    def outer(call, undo):
        yield from sent("UPDATE orders SET amount = 1 WHERE id = 1")
        _, before, _ = yield from sent("SELECT count(*) FROM orders")
        with suppress(Undo):
            yield from atomic(call, inner(True))
        _, rows, _ = yield from sent("SELECT count(*) FROM orders")
        assert rows == before
        yield from atomic(call, inner(False))
        if undo:
            raise Undo

    for undo, amount, number in ((True, 10, 3), (False, 1, 4), (True, 1, 4)):
        with unharmed(shop):
            with shop.session() as session, suppress(Undo):
                call = Calling(shop, session)
                session.run_blocking(atomic(call, outer(call, undo)))
            assert shop.rows("SELECT amount FROM orders WHERE id = 1") == [(amount,)]
            assert shop.rows("SELECT count(*) FROM orders") == [(number,)]
            assert shop.changed("DELETE FROM orders WHERE id = 3") == 0


def test_many_statements_of_one_text_write_one_row_each(shop):
    def many():
        yield Command("BEGIN IMMEDIATE", COUNT), ()
        for number in range(500):
            yield from sent("INSERT INTO orders (note, amount) VALUES (?, ?)", f"n{number}", number)
        yield Command("COMMIT", COUNT), ()

    with unharmed(shop), shop.session() as session:
        session.run_blocking(many())
    assert shop.rows("SELECT count(*), sum(amount) FROM orders WHERE note GLOB 'n*'") == [(500, 124750)]


def test_the_framework_s_statements_name_the_file_s_tables_beside_the_views(shop):
    shop.rows("SELECT 1 FROM orders")
    with shop.session() as session:
        assert session.run_blocking(sent('SELECT count(*) FROM main."orders"', named=False)) == [(5,)]
        with pytest.raises(DataFlowError):  # a slip of ours is an error, not a leak
            session.run_blocking(sent("SELECT count(*) FROM orders", named=False))


def test_a_connection_that_is_sealed_is_read_and_not_written(shop):
    with shop.session() as session:
        for sql in ("SELECT count(*) FROM orders", "SELECT count(*) FROM orders WHERE note LIKE '%'"):
            assert session.run_blocking(shop.dialect.sealed(session, (Command(sql, named=True), ())))[1] == [(3,)]
        for sql in ("DELETE FROM orders", "UPDATE parents SET name = 'x'"):
            with pytest.raises(DataFlowError):
                session.run_blocking(shop.dialect.sealed(session, (Command(sql, writes=True, named=True), ())))
        session.run_blocking(sent("UPDATE orders SET amount = 1 WHERE id = 1"))
    assert notes(shop) == [(1, "first", 1), (2, "second", 20), (4, "third", 30)]


def test_a_privileged_session_sees_everything_and_may_define(shop):
    for _ in range(3):
        assert shop.rows("SELECT count(*) FROM orders") == [(3,)]
        assert shop.admin("SELECT count(*) FROM orders") == [(5,)]
    shop.admin("CREATE TEMP TABLE orders AS SELECT 1 AS id")  # goes with its session
    assert shop.rows("SELECT count(*) FROM orders") == [(3,)]
    shop.admin("VACUUM")
    shop.admin("PRAGMA writable_schema = ON")
    assert shop.rows("SELECT count(*) FROM orders") == [(3,)]


def test_a_row_does_not_carry_along_those_of_another_tenant(shop):
    shop.admin(
        "CREATE TABLE remarks (tenant_id TEXT NOT NULL, id INTEGER PRIMARY KEY, "
        "order_id INTEGER REFERENCES orders (id) ON DELETE CASCADE) STRICT"
    )
    shop.admin("INSERT INTO remarks VALUES ('b', 1, 1), ('a', 2, 2)")
    shop.models.append(ModelSpec("Remark", "remarks", {}, ("id",), scope=("tenant_id",)))
    with pytest.raises(QueryError) as caught:
        shop.sql("DELETE FROM orders WHERE id = 1")
    assert caught.value.code == "confined"
    assert len(shop.admin("SELECT * FROM remarks")) == 2
    assert shop.changed("UPDATE orders SET amount = 3 WHERE id = 1") == 1


# -- changes of the schema --------------------------------------------------------------------------------------------
def test_a_changed_table_is_read_at_once_and_written_when_it_is_enclosed_again(shop):
    sql = "SELECT * FROM parents WHERE id = 1"
    assert shop.sql(sql)[0] == ["tenant_id", "id", "name"]
    shop.admin("ALTER TABLE parents ADD COLUMN age INTEGER")
    assert shop.sql(sql)[0] == ["tenant_id", "id", "name", "age"]
    with pytest.raises(QueryError) as caught:
        shop.sql("UPDATE parents SET age = 3")
    assert caught.value.code == "confined"
    with shop.session(privileged=True) as session:
        assert not session.run_blocking(shop.dialect.enclosed(MODELS[0]))
    shop.enclose(MODELS[0])
    assert shop.changed("UPDATE parents SET age = 3") == 2


def test_what_leads_past_the_views_is_noticed_when_it_is_made(shop):
    shop.admin("CREATE TABLE later (x)")
    text = "SELECT count(*) FROM later"
    assert shop.rows(text) == [(0,)]
    shop.admin("DROP TABLE later")
    shop.admin("CREATE VIEW later AS SELECT 1 AS x FROM orders")
    with pytest.raises(QueryError) as caught:
        shop.sql(text)
    assert caught.value.code == "confined"


def test_a_model_that_is_registered_later_is_confined_from_then_on(shop):
    shop.admin("CREATE TABLE lates (tenant_id TEXT NOT NULL, id INTEGER PRIMARY KEY) STRICT")
    shop.admin("INSERT INTO lates VALUES ('a', 1), ('b', 2)")
    text = "SELECT id FROM lates"
    assert shop.rows(text) == [(1,), (2,)]  # nobody knows better
    model = ModelSpec("Late", "lates", {}, ("id",), scope=("tenant_id",))
    shop.enclose(model)
    with pytest.raises(QueryError, match="not registered"):  # somebody has enclosed it
        shop.sql(text)
    shop.models.append(model)
    assert shop.rows(text) == [(1,)]
    assert shop.changed("INSERT INTO lates DEFAULT VALUES") == 1


def test_another_program_may_define_and_write_at_any_time(tmp_path):
    shop = Shop(f"sqlite:///{tmp_path / 'shop.db'}")
    texts = ["SELECT count(*) FROM orders", "SELECT count(*) FROM orders WHERE note LIKE '%'"]
    for number in range(4):
        for write in (True, False):
            assert [shop.rows(text, write=write) for text in texts] == [[(3 + number,)]] * 2
        with sqlite3.connect(tmp_path / "shop.db") as other:
            other.execute("INSERT INTO orders (tenant_id, note) VALUES ('a', ?)", (f"more{number}",))
            other.execute(f"CREATE TABLE other{number} (x)")
        other.close()
    shop.database.close_blocking()


def test_the_file_opens_in_any_other_tool(tmp_path):
    shop = Shop(f"sqlite:///{tmp_path / 'shop.db'}")
    shop.rows("SELECT 1 FROM orders")
    shop.database.close_blocking()
    with sqlite3.connect(tmp_path / "shop.db") as other:
        assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert other.execute("SELECT count(*) FROM orders").fetchone() == (5,)
        other.execute("ALTER TABLE orders RENAME TO jobs")
        other.execute("ALTER TABLE jobs RENAME COLUMN amount TO price")
        other.execute("DELETE FROM jobs WHERE id = 3")
        other.execute("ALTER TABLE visits ADD COLUMN z TEXT")
    other.close()


def test_models_without_scope_need_no_enclosure(shop):
    with shop.session(privileged=True) as session:
        assert session.run_blocking(shop.dialect.enclosed(MODELS[4]))
        session.run_blocking(shop.dialect.enclose(MODELS[4]))
    assert not shop.admin("SELECT name FROM sqlite_master WHERE name LIKE 'dataflow_write_countries%'")


# -- a whole DataFlow -------------------------------------------------------------------------------------------------
def tenant_of(call):
    return call.ambient.get("whose", "")


class Shared:
    """A feature: the rows of a model belong to tenants."""

    name = capability = "shared"
    stage = Stage.SCOPE
    before = after = ()

    def extend_model(self, draft):
        draft.add_field(FieldSpec("tenant_id", StrType(), origin=self.name))
        draft.scope = ("tenant_id",)
        extra = SchemaExtra("shared", lambda dialect, spec: dialect.enclosed(spec), lambda d, spec: d.enclose(spec))
        draft.ddl_extras.append(extra)

    def extend_plan(self, plan):
        if plan.statement == "insert":
            plan.set("tenant_id", tenant_of)
        column = plan.table.c.tenant_id
        plan.where(column == plan.bind(tenant_of, like=column))


class Confining:
    """A guard: calls keep to the tenant `whose`; without one they are the administrator's."""

    name = "confining"
    confines = True
    exclusive = False

    def privileged(self, core, ambient):
        return "whose" not in ambient

    def context(self, call, *, writes):
        return {"tenant": tenant_of(call)}

    def sql(self, core, ambient, statements):
        pass

    def escape(self, core, name, reason):
        return None


class Tenancy:
    dataflow_api = "1.0"

    @hookimpl
    def dataflow_features(self, model, config):
        return [Shared()] if model.name != "Tag" else []

    @hookimpl
    def dataflow_guards(self, config):
        return [Confining()]


@contextmanager
def acting_for(name):
    token = AMBIENT.set({**AMBIENT.get({}), "whose": name})
    try:
        yield
    finally:
        AMBIENT.reset(token)


def office(url):
    db = DataFlow(url, plugins=[Tenancy()])

    @db.model
    class Letter:
        title: str
        pages: int = 1

    @db.model
    class Tag:
        name: str

    del Letter, Tag
    return db


def query(db, sql, params=None):
    return run_sql(db, sql, params)["data"]


@pytest.mark.parametrize("url", [":memory:", "file"])
def test_nodes_and_sql_of_one_s_own_go_together(tmp_path, url):
    with office(url if url == ":memory:" else f"sqlite:///{tmp_path / 'office.db'}") as db:
        express = db.express_sync
        for name in ("a", "b"):
            with acting_for(name):
                express.create("Letter", {"title": f"of {name}"})
                express.bulk_create("Letter", [{"title": f"{name}{i}", "pages": i} for i in range(5)])
        for _ in range(2):
            with acting_for("a"):
                assert query(db, "SELECT count(*) AS n FROM letters") == [{"n": 6}]
                assert express.count("Letter") == {"count": 6}
                query(db, "UPDATE letters SET pages = pages + 1 WHERE title LIKE :t", {"t": "a%"})
                query(db, "INSERT INTO letters (title) VALUES (:t)", {"t": "by hand"})
                mine = express.list("Letter", {"title": "by hand"})["records"][0]["id"]
                express.upsert("Letter", {"id": mine}, {"title": "by hand"}, {"pages": 9})
                express.bulk_update("Letter", data=[{"id": mine, "pages": 4}])
                assert query(db, "DELETE FROM letters WHERE title = 'by hand' RETURNING pages") == [{"pages": 4}]
                assert express.list("Letter", {"title": {"$like": "b%"}})["records"] == []
                express.create("Tag", {"name": "x"})
            with acting_for("b"):
                assert query(db, "SELECT sum(pages) AS n FROM letters") == [{"n": 11}]
                assert query(db, "SELECT count(*) AS n FROM tags")[0]["n"] > 0
        assert query(db, "SELECT count(*) AS n FROM letters") == [{"n": 12}]


def test_tasks_of_several_tenants_keep_apart_on_the_same_connections(tmp_path):
    async def work(db, name):
        with acting_for(name):
            for i in range(25):
                await db.express.create("Letter", {"title": f"{name}{i}"})
                reply = await asyncio.to_thread(query, db, "SELECT DISTINCT substr(title, 1, 1) AS t FROM letters")
                assert reply == [{"t": name}]

    async def main(db):
        await asyncio.gather(*(work(db, name) for name in "abcd"))

    with office(f"sqlite:///{tmp_path / 'office.db'}") as db, office(f"sqlite:///{tmp_path / 'office.db'}") as twin:
        asyncio.run(main(db))
        with acting_for("c"):
            assert query(twin, "SELECT count(*) AS n FROM letters") == [{"n": 25}]
        assert query(twin, "SELECT count(*) AS n FROM letters") == [{"n": 100}]


# -- random statements ------------------------------------------------------------------------------------------------
# On two databases that differ in nothing but what tenant `b` owns they must tell the same. That covers what no list of
# attacks can: values, counts, errors, and errors that depend on rows of others.
LIKE = (
    SCHEMA.replace("UNIQUE INDEX", "INDEX")  # a unique key of all tenants tells of others by its nature
    .replace("(SELECT count(*) FROM orders));", "0);")  # and so does a trigger that was told to
    .replace(";\nANALYZE", "")  # and statistics, by the order of rows
)
UNLIKE = (
    LIKE.replace(CANARY, "zebra")
    .replace(str(NUMBER), "4")
    .replace("('b', 5, NULL, 'zebra-2', 41, 41)", "('b', 5, 3, '17.5', 12, 20), ('b', 90, 3, 'first', 11, 10)")
)
TABLES = ["orders"] * 9 + [
    '"Orders"', "temp.orders", "parents", "visits", "countries", "log", "main.orders", '"main"."parents"', "all_orders",
    "order_count", "one_each", "deeper", "search", "articles", "search_data", "sqlite_master", "noted", "raised", "x",
]  # fmt: skip
NAMES = ["noted", "raised", "orders", '"NOTED"', "x", "one_each", "sqlite_returning"]
COLUMNS = ["id", "note", "code", "amount", "parent_id", "tenant_id", "_alive"]
VALUES = [
    "1",
    "0",
    "3",
    "90",
    "-9223372036854775808",
    "'first'",
    "'canary-1'",
    "'zebra-1'",
    "8675309",
    "4",
    "NULL",
    "''",
]
CALLS = [
    "abs({0})", "json({0})", "length({0})", "count({0})", "sum({0})", "max({0})", "min({0}, {1})", "coalesce({0}, {1})",
    "regexp({0}, {1})", "{0} LIKE {1} ESCAPE {0}", "{0} GLOB {1}", "df_divide({0}, {1})", "zeroblob({0})",
    "CASE WHEN {0} THEN {1} END", "{0} COLLATE df_decimal < {1}", "{0} IN ({1}, {0})", "rank() OVER (ORDER BY {0})",
    "sum({0}) OVER (ORDER BY {1})", "json_extract({0}, {1})", "printf({0}, {1})", "date({0})", "quote({0})",
    "({0} + {1})", "({0} = {1})", "({0} > {1})", "({0} OR {1})", "({0} AND {1})", "({0} || {1})", "({0} ->> {1})",
]  # fmt: skip
REACH = ["id = 3", "id IN (3, 5, 1)", "note = 'canary-1'", "note > 'b' AND note < 'd'", "code = 8675309", "1", "id > 2"]
GUESSES = [
    "note GLOB 'canary*'",
    "note > 'd'",
    "code > 100",
    "parent_id IS NULL",
    "length(note) = 8",
    "tenant_id = 'b'",
]
TRAPS = [
    "abs(-9223372036854775807 - ({}))",
    "json(CASE WHEN {} THEN 'x' ELSE '1' END)",
    "regexp(CASE WHEN {} THEN '(' ELSE '' END, 'x')",
    "(SELECT sum(x) FROM (SELECT 9223372036854775807 AS x UNION ALL SELECT ({})))",
    "CASE WHEN {} THEN (note COLLATE df_decimal) > '1' ELSE 1 END",
    "'x' LIKE 'x' ESCAPE substr('xy', 1, 1 + ({}))",
]


class Writer:
    """Writes random statements."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.aliases = []

    def one(self, choices):
        return self.random.choice(choices)

    def often(self, chance):
        return self.random.random() < chance

    def expression(self, depth=0):
        if depth < 3 and self.often(0.5):
            return self.one(CALLS).format(self.expression(depth + 1), self.expression(depth + 1))
        if depth < 2 and self.often(0.15):
            return self.one(["(", "EXISTS (", "id IN ("]) + self.select(depth + 1) + ")"
        prefix = "" if len(self.aliases) < 2 else self.one(self.aliases) + "."
        return prefix + self.one(COLUMNS) if self.often(0.6) else self.one(VALUES)

    def condition(self, depth=0):
        if len(self.aliases) > 1 or self.often(0.5):
            return self.expression(depth)
        parts = [self.one(REACH), self.one(TRAPS).format(self.one(GUESSES))]
        self.random.shuffle(parts)
        both = " AND ".join(parts)
        return f"({both}) OR ({self.one(REACH)} AND {both})" if self.often(0.4) else both

    def source(self, depth):
        self.aliases = self.random.sample(["a", "b", "o"], self.one([1, 1, 1, 2]))
        tables = [f"({self.select(depth + 1)})" if depth < 2 and self.often(0.1) else self.one(TABLES) for _ in "ab"]
        return self.one([", ", " LEFT JOIN "]).join(
            f"{table} AS {alias}" for table, alias in zip(tables, self.aliases, strict=False)
        )

    def select(self, depth=0):
        outer = self.aliases
        source = self.source(depth)
        result = self.one(["*", "id, note", "count(*)", self.expression(depth + 1), self.expression(depth + 1)])
        text = f"SELECT {result} FROM {source}"
        text += f" WHERE {self.condition(depth)}" if self.often(0.7) else ""
        text += f" GROUP BY {self.expression(depth + 1)}" if self.often(0.1) else ""
        self.aliases = outer
        return text + (f" UNION ALL {self.select(depth + 1)}" if depth < 2 and self.often(0.05) else "")

    def statement(self):
        self.aliases = []
        head = f"WITH {self.one(NAMES)} AS ({self.select(1)}) " if self.often(0.2) else ""
        if self.often(0.6):
            return head + self.select()
        table, column, condition = self.one(TABLES), self.one(COLUMNS), self.condition()
        clash = self.one(["", "", "OR REPLACE ", "OR IGNORE "])
        text = self.one(
            [
                f"UPDATE {clash}{table} SET {column} = {self.expression(1)} WHERE {condition}",
                f"DELETE FROM {table} WHERE {condition}",
                f"INSERT {clash}INTO {table} ({column}) {self.select(1)}",
            ]
        )
        return head + text + (f" RETURNING {self.expression(1)}" if self.often(0.2) else "")


def told(shop, text):
    """What a statement tells, and what tenant `a` finds afterwards; and whether `b` still has what it had."""
    owned = "SELECT * FROM main.orders WHERE tenant_id = 'b'", "SELECT * FROM main.parents WHERE tenant_id = 'b'"
    with shop.session() as session:
        before = [session.run_blocking(sent(sql, named=False)) for sql in owned]
        session.run_blocking(sent("BEGIN IMMEDIATE", named=False))
        try:
            names, rows, changed = session.run_blocking(sent(text))
        except DataFlowError as error:
            return type(error), str(error)
        seen = [names, sorted(map(repr, rows)), changed]
        for table in ("orders", "parents", "visits", "log", "countries"):
            seen.append(sorted(map(repr, session.run_blocking(sent(f"SELECT * FROM {table}"))[1])))
        assert [session.run_blocking(sent(sql, named=False)) for sql in owned] == before, text
        return seen


@pytest.mark.parametrize("seed", range(4))
def test_what_a_statement_tells_does_not_depend_on_what_others_own(seed):
    shops = []
    for schema in (LIKE, UNLIKE):
        shops.append(Shop(":memory:", schema))
        shops[-1].admin("UPDATE sqlite_sequence SET seq = 5000")  # ids tell how many rows there were
    writer = Writer(seed)
    worked = 0
    for _ in range(250):
        text = writer.statement()
        one, other = (told(shop, text) for shop in shops)
        assert one == other, text
        worked += isinstance(one, list)
    assert worked > 40
    for shop in shops:
        shop.database.close_blocking()
