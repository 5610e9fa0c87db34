"""AsyncSQLDatabaseNode: placeholders, fetch modes, several statements, what validation refuses, which database."""

import sqlite3
from contextlib import closing
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from dataflow import DataFlow
from dataflow.errors import InputError, QueryError, WorkflowBuildError, WorkflowExecutionError
from dataflow.runtime import AsyncLocalRuntime, LocalRuntime
from dataflow.workflow import WorkflowBuilder

NODE = "AsyncSQLDatabaseNode"


class Size(Enum):
    BIG = "big"


@pytest.fixture
def shop(bench: Any) -> Any:
    @bench.db.model
    class User:
        name: str
        age: int | None = None

    bench.db.express_sync.bulk_create("User", [{"name": "Ada", "age": 36}, {"name": "Bob"}, {"name": "Cy", "age": 7}])
    return bench


def query(shop: Any, sql: str, params: Any = None, **options: Any) -> Any:
    return shop.run(NODE, {"query": sql, "params": params, **options})["result"]


def refused(caught: Any) -> str:
    assert isinstance(caught.value.__cause__, InputError)
    return caught.value.__cause__.code


def test_rows_come_as_dicts_with_their_number(shop: Any) -> None:
    found = query(shop, "SELECT id, name FROM users WHERE age > :age ORDER BY id", {"age": 5})
    assert found == {"data": [{"id": 1, "name": "Ada"}, {"id": 3, "name": "Cy"}], "row_count": 2}


@pytest.mark.parametrize(
    ("mode", "data", "count"),
    [("all", [{"name": "Ada"}, {"name": "Bob"}, {"name": "Cy"}], 3), ("one", {"name": "Ada"}, 3), ("value", "Ada", 3),
     ("none", [], 3)],
)  # fmt: skip
def test_each_fetch_mode_gives_its_form(shop: Any, mode: str, data: Any, count: int) -> None:
    found = query(shop, "SELECT name FROM users ORDER BY id", fetch_mode=mode)
    assert found == {"data": data, "row_count": count}


@pytest.mark.parametrize(("mode", "data"), [("all", []), ("one", None), ("value", None), ("none", [])])
def test_each_fetch_mode_has_a_form_for_nothing(shop: Any, mode: str, data: Any) -> None:
    assert query(shop, "SELECT name FROM users WHERE id = 99", fetch_mode=mode) == {"data": data, "row_count": 0}


def test_changes_are_counted_and_returning_gives_rows(shop: Any) -> None:
    assert query(shop, "UPDATE users SET age = 1 WHERE age IS NULL") == {"data": [], "row_count": 1}
    assert query(shop, "DELETE FROM users WHERE id > $1 RETURNING id", [1])["data"] == [{"id": 2}, {"id": 3}]
    assert query(shop, "INSERT INTO users (name) VALUES ('Di'), ('Ed')")["row_count"] == 2
    assert shop.run("UserCountNode")["count"] == 3


@pytest.mark.parametrize(
    ("sql", "params"),
    [
        ("SELECT name FROM users WHERE name = :n OR age = :a ORDER BY id", {"n": "Ada", "a": 7}),
        ("SELECT name FROM users WHERE name = $1 OR age = $2 ORDER BY id", ["Ada", 7]),
        ("SELECT name FROM users WHERE age = $2 OR name = $1 ORDER BY id", ("Ada", 7)),
        ("SELECT name FROM users WHERE name = :n OR name = :n OR age IN (:a, :a) ORDER BY id", {"n": "Ada", "a": 7}),
    ],
)
def test_placeholders_are_names_with_a_dict_or_numbers_with_a_list(shop: Any, sql: str, params: Any) -> None:
    assert [row["name"] for row in query(shop, sql, params)["data"]] == ["Ada", "Cy"]


def test_placeholders_inside_quotes_and_comments_are_text(shop: Any) -> None:
    sql = """
        SELECT ':a' AS "x:b", 'it''s $1; ?' AS y, name  -- :c; and ?
        FROM users /* $2 ; ? */ WHERE name = :name;
    """
    found = query(shop, sql, {"name": "Ada"})["data"]
    assert found == [{"x:b": ":a", "y": "it's $1; ?", "name": "Ada"}]


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (None, None), (True, 1), (3, 3), (1.5, 1.5), ("x", "x"), (b"y", b"y"), (Size.BIG, "big"),
        (Decimal("1.50"), "1.5"), (UUID(int=1), str(UUID(int=1))), (date(2024, 1, 2), "2024-01-02"),
        (time(8), "08:00:00.000000"), (datetime(2024, 1, 2, tzinfo=UTC), "2024-01-02T00:00:00.000000+00:00"),
        ({"b": 1, "a": [1]}, '{"a":[1],"b":1}'), ([1, "x"], '[1,"x"]'),
    ],
)  # fmt: skip
def test_params_are_stored_as_models_store_them(shop: Any, value: Any, stored: Any) -> None:
    found = query(shop, "SELECT :v AS v", {"v": value}, fetch_mode="value")["data"]
    native = not isinstance(value, (dict, list, Size)) and shop.db.core.dialect.name == "postgresql"
    assert found == (value if native else stored)
    assert type(found) is type(value if native else stored) or isinstance(value, UUID)


def test_a_value_is_never_read_as_sql(shop: Any) -> None:
    evil = "x'; DROP TABLE users; --"
    assert query(shop, "SELECT :v AS v", {"v": evil})["data"] == [{"v": evil}]
    assert query(shop, "SELECT count(*) AS n FROM users", fetch_mode="value")["data"] == 3


@pytest.mark.parametrize(
    "sql",
    ["DROP TABLE users", "CREATE TABLE t (x)", "ALTER TABLE users ADD COLUMN x", "PRAGMA journal_mode = DELETE",
     "ATTACH 'x.db' AS x", "VACUUM", "SELECT 1; SELECT 2", "DELETE FROM users; SELECT 1", "REINDEX", "ANALYZE",
     "/* SELECT */ DROP TABLE users", "; DROP TABLE users"],
)  # fmt: skip
def test_validation_refuses_ddl_and_several_statements(shop: Any, sql: str) -> None:
    with pytest.raises(WorkflowExecutionError) as caught:
        query(shop, sql)
    assert refused(caught) == "refused-query"
    assert shop.run("UserCountNode")["count"] == 3


@pytest.mark.parametrize("sql", ["BEGIN", "COMMIT", "rollback", "SAVEPOINT x", "RELEASE x", "END"])
@pytest.mark.parametrize("validate", [True, False])
def test_transactions_belong_to_the_framework(shop: Any, sql: str, validate: bool) -> None:
    with pytest.raises(WorkflowExecutionError) as caught:
        query(shop, sql, validate_queries=validate)
    assert refused(caught) == "bad-query"


def test_without_validation_several_statements_are_one_transaction(shop: Any) -> None:
    sql = "CREATE TABLE extra (x INTEGER); INSERT INTO extra VALUES (1), (2); SELECT sum(x) AS s FROM extra;"
    assert query(shop, sql, validate_queries=False) == {"data": [{"s": 3}], "row_count": 1}
    with pytest.raises(WorkflowExecutionError):
        query(shop, "INSERT INTO extra VALUES (9); INSERT INTO nowhere VALUES (1)", validate_queries=False)
    assert query(shop, "SELECT count(*) AS n FROM extra", fetch_mode="value")["data"] == 2
    with pytest.raises(WorkflowExecutionError) as caught:
        query(shop, "DELETE FROM extra WHERE x = :x; DELETE FROM extra", {"x": 1}, validate_queries=False)
    assert refused(caught) == "bad-params"


@pytest.mark.parametrize("bench", ["sqlite"], indirect=True)
def test_without_validation_a_trigger_with_semicolons_is_one_statement(shop: Any) -> None:
    trigger = """CREATE TRIGGER shout AFTER INSERT ON users BEGIN
        UPDATE users SET name = upper(name) WHERE id = NEW.id; UPDATE users SET age = 0 WHERE id = NEW.id;
    END; INSERT INTO users (name) VALUES ('di')"""
    query(shop, trigger, validate_queries=False)
    assert shop.run("UserReadNode", id=4)["name"] == "DI"
    assert shop.run("UserReadNode", id=4)["age"] == 0


@pytest.mark.parametrize("bench", ["sqlite"], indirect=True)
def test_settings_a_query_changed_do_not_outlive_it(shop: Any) -> None:
    query(shop, "PRAGMA foreign_keys = OFF", validate_queries=False)
    assert query(shop, "PRAGMA foreign_keys", validate_queries=False, fetch_mode="value")["data"] == 1


def test_writing_with_a_common_table_expression_is_seen_as_writing(file_bench: Any) -> None:
    @file_bench.db.model
    class Item:
        n: int

    file_bench.run("ItemCreateNode", n=1)
    sql = "WITH more(n) AS (VALUES (2), (3)) INSERT INTO items (n) SELECT n FROM more"
    assert query(file_bench, sql)["row_count"] == 2
    assert query(file_bench, "WITH x AS (SELECT 1 AS n) SELECT n FROM x")["data"] == [{"n": 1}]
    assert query(file_bench, "EXPLAIN QUERY PLAN SELECT * FROM items")["row_count"] > 0


def test_the_result_can_be_connected(shop: Any) -> None:
    new = shop.db.workflow()
    new.add_node(NODE, "sql", {"query": "SELECT name FROM users WHERE id = 1", "fetch_mode": "one"})
    new.add_node(NODE, "count", {"query": "SELECT count(*) AS n FROM users WHERE name = :name"})

    from dataflow import BaseDataFlowNode

    class Params(BaseDataFlowNode):
        def execute(self, input_data: Any) -> Any:
            return {"params": input_data["found"]["data"]}

    new.add_node(Params, "params")
    new.add_connection("sql", "result", "params", "found")
    new.add_connection("params", "params", "count", "params")
    results, _ = LocalRuntime().execute(new.build())
    assert results["count"] == {"result": {"data": [{"n": 1}], "row_count": 1}}


async def test_it_runs_on_an_event_loop_as_well(shop: Any) -> None:
    workflow = shop.build(NODE, {"query": "SELECT name FROM users WHERE id = $1", "params": [2], "fetch_mode": "value"})
    results, _ = await AsyncLocalRuntime().execute_async(workflow)
    assert results["node"]["result"]["data"] == "Bob"


# -- which database ---------------------------------------------------------------------------------------------------
def test_a_connection_string_of_a_live_instance_is_that_instance(tmp_path: Path) -> None:
    path = tmp_path / "one.db"
    with DataFlow(f"sqlite:///{path}") as db, DataFlow(":memory:"):

        @db.model
        class Item:
            n: int

        db.express_sync.create("Item", {"n": 1})
        new = WorkflowBuilder()
        new.add_node(NODE, "sql", {"query": "SELECT n FROM items", "connection_string": f"sqlite:////{path}"})
        workflow = new.build()
        assert workflow.tasks[0].db is db
        assert LocalRuntime().execute(workflow)[0]["sql"]["result"]["data"] == [{"n": 1}]


def test_another_connection_string_opens_that_database(tmp_path: Path, shop: Any) -> None:
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as raw:
        raw.execute("CREATE TABLE notes (text TEXT)")
        raw.execute("INSERT INTO notes VALUES ('hi')")
        raw.commit()
    new = shop.db.workflow()
    new.add_node(NODE, "theirs", {"query": "SELECT text FROM notes", "connection_string": f"sqlite:///{other}"})
    new.add_node(NODE, "write", {
        "query": "INSERT INTO notes VALUES (:t)", "params": {"t": "ho"}, "connection_string": f"sqlite:///{other}",
    })  # fmt: skip
    new.add_node(NODE, "ours", {"query": "SELECT count(*) AS n FROM users"})
    workflow = new.build()
    results, _ = LocalRuntime().execute(workflow)
    assert results["theirs"]["result"]["data"] == [{"text": "hi"}]
    assert results["ours"]["result"]["data"] == [{"n": 3}]
    with closing(sqlite3.connect(other)) as raw:
        assert raw.execute("SELECT count(*) FROM notes").fetchone() == (2,)
    for task in workflow.tasks:
        if task.db is not shop.db:
            task.db.close()


def test_database_names_the_instance(shop: Any) -> None:
    with DataFlow(":memory:", name="spare") as spare:
        spare.express_sync  # noqa: B018
        new = WorkflowBuilder().add_node(NODE, "sql", {"query": "SELECT 1 AS one", "database": "spare"})
        assert new.build().tasks[0].db is spare
        with pytest.raises(WorkflowBuildError, match="no DataFlow instance answers to database='spear'"):
            WorkflowBuilder().add_node(NODE, "sql", {"query": "SELECT 1", "database": "spear"}).build()


def test_an_error_of_the_database_names_no_value(shop: Any) -> None:
    with pytest.raises(WorkflowExecutionError) as caught:
        query(shop, "INSERT INTO users (id, name) VALUES (:id, :name)", {"id": 1, "name": "Lovelace"})
    assert "Lovelace" not in str(caught.value)
    with pytest.raises(WorkflowExecutionError) as caught:
        query(shop, "SELECT json_extract(:v, '$.x')", {"v": "Lovelace"})
    assert isinstance(caught.value.__cause__, QueryError)
    assert "Lovelace" not in str(caught.value)


@pytest.mark.parametrize("value", ["x\0y", "\ud800", 2**63, object(), {"x": object()}, float("nan")])
def test_a_param_that_cannot_be_stored_is_refused(shop: Any, value: Any) -> None:
    with pytest.raises(WorkflowExecutionError) as caught:
        query(shop, "SELECT :v AS v", {"v": value})
    assert refused(caught) == "bad-params"
