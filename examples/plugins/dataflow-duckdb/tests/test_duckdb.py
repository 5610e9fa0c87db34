"""What is DuckDB's own: savepoints that it does not have, one process, one writer, connections that keep settings."""

import os
import subprocess
import sys
from decimal import Decimal
from typing import Any, ClassVar

import duckdb
import pytest
from dataflow_duckdb import savepoints

from dataflow import BaseDataFlowNode, DataFlow
from dataflow.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    NotYetAvailable,
    QueryError,
    SchemaError,
    SerializationError,
    UniqueError,
    WorkflowExecutionError,
)
from dataflow.runtime import LocalRuntime


def shop(url: str, **settings: Any) -> DataFlow:
    """Open a DataFlow with two models."""
    db = DataFlow(url, **settings)

    @db.model
    class Customer:
        name: str
        email: str
        spent: Decimal = Decimal(0)
        __indexes__: ClassVar = [{"name": "uq_customers_email", "fields": ["email"], "unique": True}]

    @db.model
    class Order:
        customer_id: int
        tags: list[str] = []

    return db


@pytest.fixture
def url(tmp_path):
    return f"duckdb:///{tmp_path}/shop@home.duckdb"


@pytest.fixture
def db(url):
    with shop(url) as db:
        yield db


def node(work):
    """Return a node class that does some work."""

    class Work(BaseDataFlowNode):
        def execute(self, input_data):
            return {"value": work(self)}

    return Work


def names(db):
    return [record["name"] for record in db.express_sync.list("Customer")["records"]]


def test_data_stay_and_ids_go_on_after_the_file_was_closed(url):
    with shop(url) as db:
        first = db.express_sync.create("Customer", {"name": "Ada", "email": "a", "spent": Decimal("1.50")})
    with shop(url) as db:
        again = db.express_sync.create("Customer", {"name": "Bob", "email": "b", "spent": Decimal("2.25")})
        assert again["id"] > first["id"]
        total = db.express_sync.aggregate("Customer", aggregate={"total": {"$sum": "spent"}})["groups"]
        assert total == [{"total": Decimal("3.75")}]


def test_memory_is_shared_by_the_connections_of_one_instance_only():
    with shop("duckdb:///:memory:") as db, shop("duckdb:///:memory:") as other:
        db.express_sync.create("Customer", {"name": "Ada", "email": "a"})
        assert (names(db), names(other)) == (["Ada"], [])


def test_other_tools_see_native_columns(db, url):
    db.express_sync.create("Order", {"customer_id": 1, "tags": ["gift"]})
    found = db.workflow().add_node("AsyncSQLDatabaseNode", "sql", {"query": "SELECT tags, created_at FROM orders"})
    results, _ = LocalRuntime().execute(found.build())
    (row,) = results["sql"]["result"]["data"]
    assert row["tags"] == ["gift"]
    assert row["created_at"].tzinfo is not None


def test_consecutive_calls_compile_nothing(db):
    key = db.express_sync.create("Customer", {"name": "Ada", "email": "a"})["id"]
    db.express_sync.read("Customer", key)
    before = db.stats()["compilations"]
    for number in range(5):
        key = db.express_sync.create("Customer", {"name": "Bob", "email": str(number)})["id"]
        assert db.express_sync.read("Customer", key)["email"] == str(number)
    assert db.stats()["compilations"] == before


# -- savepoints -------------------------------------------------------------------------------------------------------
def scope(db, work, **options):
    """Run a scope that creates Ada, and then does some work in a node."""
    new = db.workflow().add_node("TransactionScopeNode", "scope", options)
    new.add_node("CustomerCreateNode", "ada", {"name": "Ada", "email": "a"})
    new.add_node(node(work), "work")
    return LocalRuntime().execute(new.build())[0]


def taken(self):
    """Fail at a key that is taken, which spoils DuckDB's transaction, and go on."""
    with pytest.raises(UniqueError):
        self.db.express_sync.create("Customer", {"name": "Eve", "email": "a"})


def test_what_came_before_a_failed_call_is_done_again_with_the_same_ids(db):
    def work(self):
        bob = self.db.express_sync.create("Customer", {"name": "Bob", "email": "b"})
        taken(self)
        return bob["id"], self.db.express_sync.create("Customer", {"name": "Cy", "email": "c"})["id"]

    results = scope(db, work)
    records = db.express_sync.list("Customer")["records"]
    assert [record["name"] for record in records] == ["Ada", "Bob", "Cy"]
    assert [record["id"] for record in records] == [results["ada"]["id"], *results["work"]["value"]]


def test_what_cannot_be_done_again_undoes_everything_and_says_so(db):
    insert = "INSERT INTO customers (name, email) VALUES ('Bob', random()::VARCHAR) RETURNING email"

    def work(self):
        self.run_custom_query(insert)
        taken(self)
        self.db.express_sync.create("Customer", {"name": "Cy", "email": "c"})

    with pytest.raises(WorkflowExecutionError) as caught:
        scope(db, work)
    assert isinstance(caught.value.__cause__, SerializationError)
    assert names(db) == []
    db.express_sync.create("Customer", {"name": "Di", "email": "a"})
    assert names(db) == ["Di"]


def test_a_transaction_too_large_to_be_done_again_is_rolled_back_whole(db, monkeypatch):
    monkeypatch.setattr(savepoints, "MOST_VALUES", 10)

    def work(self):
        self.db.express_sync.bulk_create("Customer", [{"name": "x", "email": str(n)} for n in range(20)])
        taken(self)
        return self.db.express_sync.count("Customer")

    with pytest.raises(WorkflowExecutionError) as caught:
        scope(db, work)
    assert isinstance(caught.value.__cause__, QueryError)
    assert "too large" in str(caught.value)
    assert names(db) == []


# -- one process, one writer ------------------------------------------------------------------------------------------
PROCESS = """
import sys
from dataflow import DataFlow
from dataflow.errors import DatabaseUnavailable
with DataFlow(sys.argv[1]) as db:
    try:
        print(db.show_tables())
    except DatabaseUnavailable as error:
        print(error.message)
"""


def test_another_process_is_told_who_keeps_it_out(db, url):
    command = [sys.executable, "-c", PROCESS, url]
    db.express_sync.create("Customer", {"name": "Ada", "email": "a"})
    assert subprocess.check_output(command, text=True) == "another process has the database open\n"
    db.close()
    assert subprocess.check_output(command, text=True) == "['customers', 'orders']\n"


def test_closing_one_instance_leaves_the_functions_of_the_other(db, url):
    with shop(url) as first:
        first.express_sync.create("Customer", {"name": "Ada", "email": "a", "spent": Decimal("1.1")})
    assert db.express_sync.count("Customer", {"spent": {"$gt": Decimal(1)}}) == {"count": 1}
    assert db.express_sync.count("Customer", {"name": {"$regex": "^A"}}) == {"count": 1}


def test_a_script_that_closes_nothing_ends_and_keeps_its_data(url, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import asyncio, sys\nfrom dataflow import DataFlow\ndb = DataFlow(sys.argv[1])\n"
        "@db.model\nclass Note:\n    text: str\n"
        "db.express_sync.create('Note', {'text': 'a'})\n"
        "asyncio.run(db.express.create('Note', {'text': 'b'}))\n"
    )
    subprocess.run([sys.executable, script, url], check=True, timeout=30)
    with duckdb.connect(os.fspath(tmp_path / "shop@home.duckdb")) as raw:
        assert raw.execute("SELECT text FROM notes ORDER BY id").fetchall() == [("a",), ("b",)]


NOTES = """
import os, signal, sys, threading
from dataflow import DataFlow
from dataflow.errors import UsageError
from dataflow.runtime import LocalRuntime

db = DataFlow(sys.argv[1])

@db.model
class Note:
    text: str

db.express_sync.create("Note", {"text": "first"})
"""
FORK = """
child = os.fork()
if not child:
    try:
        db.express_sync.count("Note")
    except UsageError as error:
        os._exit(7 if error.code == "forked-in-use" else 1)
    os._exit(1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), db.express_sync.count("Note")["count"])
"""
INTERRUPT = """
endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT count(*) AS total FROM n"
new = db.workflow().add_node("TransactionScopeNode", "scope").add_node("NoteCreateNode", "note", {"text": "gone"})
new.add_node("AsyncSQLDatabaseNode", "endless", {"query": endless})
threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    LocalRuntime().execute(new.build())
except KeyboardInterrupt:
    print("interrupted", db.express_sync.count("Note")["count"], db.express_sync.create("Note", {"text": "b"})["text"])
"""


@pytest.mark.parametrize("place", ["file", "memory"])
def test_a_forked_child_is_refused_what_was_open(url, place):
    where = url if place == "file" else "duckdb:///:memory:"
    assert subprocess.check_output([sys.executable, "-c", NOTES + FORK, where], text=True, timeout=60) == "7 1\n"


def test_ctrl_c_stops_a_statement_and_leaves_the_connection_fit(url):
    told = subprocess.check_output([sys.executable, "-c", NOTES + INTERRUPT, url], text=True, timeout=60)
    assert told == "interrupted 1 b\n"


def test_settings_of_own_sql_do_not_outlive_it(db):
    made = db.express_sync.create("Customer", {"name": "Ada", "email": "a"})
    for query in (
        "SET TimeZone = 'Asia/Tokyo'",
        "CREATE TEMP TABLE customers (id BIGINT)",
        "SET schema = 'pg_catalog'",
    ):
        new = db.workflow().add_node("AsyncSQLDatabaseNode", "sql", {"query": query, "validate_queries": False})
        LocalRuntime().execute(new.build())
        assert db.express_sync.read("Customer", made["id"])["created_at"] == made["created_at"], query


# -- what is refused --------------------------------------------------------------------------------------------------
def test_a_missing_column_says_what_to_do(url):
    with shop(url) as db:
        db.express_sync.create("Customer", {"name": "Ada", "email": "a"})
    with DataFlow(url) as db:

        @db.model
        class Customer:
            name: str
            email: str
            phone: str | None = None

        with pytest.raises(SchemaError, match="lacks phone") as caught:
            db.express_sync.list("Customer")
        assert caught.value.hint.startswith(
            "add what is missing with ALTER TABLE; the dialect duckdb has no schema editor"
        )


def test_a_unique_index_with_a_predicate_is_refused(url):
    with DataFlow(url) as db:

        @db.model
        class Draft:
            slug: str
            live: int
            __indexes__: ClassVar = [{"name": "uq", "fields": ["slug"], "unique": True, "where": "live = 1"}]

        with pytest.raises(NotYetAvailable, match="partial_indexes"):
            db.express_sync.create("Draft", {"slug": "a", "live": 1})


def test_a_url_that_is_none_of_a_file_is_refused(tmp_path):
    for url in ("duckdb://shop.duckdb", "duckdb:///shop.duckdb?threads=2"):
        with pytest.raises(ConfigurationError, match="DuckDB URL"):
            DataFlow(url)
    (tmp_path / "text.duckdb").write_text("no database" * 1000)
    for name, says in (("none", "does not exist"), ("text", "not a DuckDB database")):
        db = DataFlow(f"duckdb:///{tmp_path}/{name}.duckdb", auto_migrate=False)
        with db, pytest.raises(DatabaseUnavailable, match=says):
            db.show_tables()
