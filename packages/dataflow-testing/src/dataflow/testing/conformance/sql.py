"""SQL of one's own: placeholders, fetch modes, values as models store them, what validation refuses."""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any, ClassVar
from uuid import UUID

import pytest

from dataflow import DataFlow
from dataflow.errors import InputError, QueryError
from dataflow.testing.conformance.bench import Bench, keys_of
from dataflow.testing.conformance.suite import Suite, requires


class Size(Enum):
    """A value that is stored as text."""

    BIG = "big"


VALUES: dict[str, tuple[str, Any, Any, Any]] = {
    "int": ("int64", int, -(2**63), 1),
    "float": ("int64", float, 0.1 + 0.2, 1.5),
    "text": ("text", str, "it's :x $1 🦁", "b"),
    "bool": ("bool", bool, True, False),
    "bytes": ("bytes", bytes, b"\x00\xff", b""),
    "decimal": ("decimal", Decimal, Decimal("19.990000000000000001"), Decimal(2)),
    "uuid": ("uuid", UUID, UUID(int=2**127), UUID(int=0)),
    "instant": ("instants", datetime, datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=UTC), datetime(2000, 1, 1, tzinfo=UTC)),
    "date": ("dates", date, date(2024, 2, 29), date(1, 1, 1)),
    "time": ("dates", time, time(23, 59, 59, 999999), time(0)),
    "enum": ("enum", Size, Size.BIG, None),
    "json": ("json", dict, {"a": [1, {"b": None}]}, {}),
}
"""kind -> (capability, annotation, value, another value)."""


@requires("raw_sql")
class TestSql(Suite):
    """AsyncSQLDatabaseNode."""

    conformance_area: ClassVar[str] = "sql"

    @classmethod
    def declare(cls, db: DataFlow) -> None:
        @db.model
        class Client:
            name: str
            age: int | None = None
            __tablename__ = "sql_clients"

    @pytest.fixture
    def people(self, bench: Bench, clean: None) -> None:
        """Ada is 36, Bob has no age, Cy is 7."""
        del clean
        bench.bulk_create("Client", [{"name": "Ada", "age": 36}, {"name": "Bob"}, {"name": "Cy", "age": 7}])

    def run(self, calls: Bench, query: str, **options: Any) -> Any:
        """Run a query and return data and number of rows."""
        return calls.node("AsyncSQLDatabaseNode", {"query": query, **options})["result"]

    def test_each_fetch_mode_gives_its_form(self, calls: Bench, people: None) -> None:
        names = [{"name": name} for name in ("Ada", "Bob", "Cy")]
        for mode, some, nothing in (
            ("all", names, []),
            ("one", names[0], None),
            ("value", "Ada", None),
            ("none", [], []),
        ):
            query = "SELECT name FROM sql_clients WHERE id >= :least ORDER BY id"
            found = self.run(calls, query, fetch_mode=mode, params={"least": 0})
            assert found == {"data": some, "row_count": 3}, mode
            found = self.run(calls, query, fetch_mode=mode, params={"least": 10**12})
            assert found == {"data": nothing, "row_count": 0}, mode

    def test_placeholders_are_names_with_a_dict_or_numbers_with_a_list(self, calls: Bench, people: None) -> None:
        for where, params in (
            ("name = :n OR age = :a", {"n": "Ada", "a": 7}),
            ("name = $1 OR age = $2", ["Ada", 7]),
            ("age = $2 OR name = $1", ("Ada", 7)),
            ("name = :n OR name = :n OR age IN (:a, :a)", {"n": "Ada", "a": 7}),
        ):
            found = calls.sql(f"SELECT name FROM sql_clients WHERE {where} ORDER BY id", params)
            assert found == [{"name": "Ada"}, {"name": "Cy"}], where

    def test_placeholders_inside_quotes_and_comments_are_text(self, calls: Bench, people: None) -> None:
        query = """
            SELECT ':a' AS "x:b", 'it''s $1; ?' AS y, name  -- :c; and ?
            FROM sql_clients /* $2 ; ? */ WHERE name = :name;
        """
        assert calls.sql(query, {"name": "Ada"}) == [{"x:b": ":a", "y": "it's $1; ?", "name": "Ada"}]

    def test_changes_are_counted_and_returning_gives_rows(self, calls: Bench, people: None) -> None:
        assert self.run(calls, "UPDATE sql_clients SET age = 1 WHERE age IS NULL") == {"data": [], "row_count": 1}
        found = self.run(calls, "DELETE FROM sql_clients WHERE name > $1 RETURNING name", params=["Ada"])
        assert (sorted(row["name"] for row in found["data"]), found["row_count"]) == (["Bob", "Cy"], 2)
        assert self.run(calls, "INSERT INTO sql_clients (name) VALUES ('Di'), ('Ed')")["row_count"] == 2
        assert calls.count("Client") == {"count": 3}

    def test_writing_with_a_common_table_expression_is_seen_as_writing(self, calls: Bench, people: None) -> None:
        query = "WITH more(name) AS (VALUES ('x'), ('y')) INSERT INTO sql_clients (name) SELECT name FROM more"
        assert self.run(calls, query)["row_count"] == 2
        assert calls.sql("WITH one(n) AS (SELECT 1) SELECT n FROM one") == [{"n": 1}]
        assert calls.count("Client") == {"count": 5}

    @pytest.mark.parametrize("kind", [pytest.param(name, marks=requires(found[0])) for name, found in VALUES.items()])
    def test_params_are_written_and_found_as_models_store_them(self, calls: Bench, kind: str) -> None:
        _, annotation, value, other = VALUES[kind]
        model, table = f"Typed{kind.title()}", f"sql_typed_{kind}"
        if model not in calls.db.models:
            calls.register(model, {"value": annotation | None}, __tablename__=table)
        calls.create(model, {"value": other})
        calls.sql(f"INSERT INTO {table} (value) VALUES (:value)", {"value": value})
        calls.sql(f"INSERT INTO {table} (value) VALUES ($1)", [None])
        assert [record["value"] for record in calls.list(model)["records"]] == [other, value, None]
        found = calls.sql(f"SELECT id FROM {table} WHERE value = :value", {"value": value})
        assert found == calls.list(model, {"value": {"$eq": value}}, fields=["id"])["records"]
        assert len(found) == 1

    def test_a_value_is_never_read_as_sql(self, calls: Bench, people: None) -> None:
        evil = "x'; DROP TABLE sql_clients; --"
        calls.sql("INSERT INTO sql_clients (name) VALUES (:name)", {"name": evil})
        assert calls.sql("SELECT name FROM sql_clients WHERE name = :name", {"name": evil}) == [{"name": evil}]
        assert calls.count("Client") == {"count": 4}

    def test_a_param_that_cannot_be_stored_is_refused(self, calls: Bench) -> None:
        for value in ("x\0y", "\ud800", 2**63, object(), {"x": object()}, float("nan")):
            with pytest.raises(InputError) as caught:
                calls.sql("INSERT INTO sql_clients (name) VALUES (:v)", {"v": value})
            assert caught.value.code == "bad-params", ascii(value)

    def test_placeholders_and_params_have_to_match(self, calls: Bench, people: None) -> None:
        for query, params in (
            ("SELECT :a", {}), ("SELECT :a", {"b": 1}), ("SELECT $1", []), ("SELECT $2", [1]), ("SELECT :a", [1]),
            ("SELECT 1", 5),
        ):  # fmt: skip
            with pytest.raises((InputError, QueryError)):
                calls.sql(query, params)

    def test_validation_refuses_ddl_and_several_statements(self, calls: Bench, people: None) -> None:
        for query in (
            "DROP TABLE sql_clients", "CREATE TABLE t (x INTEGER)", "ALTER TABLE sql_clients ADD COLUMN x INTEGER",
            "SELECT 1; SELECT 2", "DELETE FROM sql_clients; SELECT 1", "/* SELECT */ DROP TABLE sql_clients",
            "; DROP TABLE sql_clients", "TRUNCATE sql_clients", "VACUUM", "GRANT ALL ON sql_clients TO x",
        ):  # fmt: skip
            with pytest.raises(InputError) as caught:
                calls.sql(query)
            assert caught.value.code == "refused-query", query
        assert calls.count("Client") == {"count": 3}

    def test_transactions_belong_to_the_framework(self, bench: Bench) -> None:
        for query in ("BEGIN", "COMMIT", "rollback", "SAVEPOINT x", "RELEASE x", "END"):
            for validate in (True, False):
                with pytest.raises(InputError) as caught:
                    bench.sql(query, validate_queries=validate)
                assert caught.value.code == "bad-query"

    def test_without_validation_several_statements_are_one_transaction(self, calls: Bench, people: None) -> None:
        several = "UPDATE sql_clients SET age = 1; INSERT INTO sql_clients (name, age) VALUES ('Di', 2);"
        found = self.run(calls, f"{several} SELECT name FROM sql_clients WHERE age = 2", validate_queries=False)
        assert found == {"data": [{"name": "Di"}], "row_count": 1}
        with pytest.raises(QueryError):
            calls.sql("DELETE FROM sql_clients; INSERT INTO nowhere VALUES (1)", validate_queries=False)
        assert calls.count("Client") == {"count": 4}

    def test_rows_of_sql_are_what_models_see(self, calls: Bench, people: None) -> None:
        calls.sql("UPDATE sql_clients SET name = :new WHERE name = :old", {"new": "Zoe", "old": "Bob"})
        assert keys_of(calls.list("Client"), "name") == ["Ada", "Zoe", "Cy"]
        rows = calls.sql("SELECT id, name, age FROM sql_clients ORDER BY id")
        assert rows == calls.list("Client", fields=["id", "name", "age"])["records"]
