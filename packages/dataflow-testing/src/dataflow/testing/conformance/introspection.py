"""The schema: what is created and when, what can be read from a database, schemas of others."""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import pytest

from dataflow import DataFlow, ForeignKey
from dataflow.errors import SchemaError, UniqueError
from dataflow.testing.conformance.bench import Bench, keys_of
from dataflow.testing.conformance.suite import Suite, requires


class TestIntrospection(Suite):
    """Tables come when they are needed, and can be looked at."""

    conformance_area: ClassVar[str] = "introspection"

    @classmethod
    def declare(cls, db: DataFlow) -> None:
        @db.model
        class Shelf:
            label: str
            depth: int | None = None
            width: float = 1.5
            __tablename__ = "schema_shelves"

        @db.model
        class Place:
            row: int
            col: int
            shelf_id: Annotated[int | None, ForeignKey("Shelf")] = None
            __tablename__ = "schema_places"
            __dataflow__: ClassVar = {"primary_key": ["row", "col"], "timestamps": False}

    @requires("introspection")
    def test_a_table_comes_with_the_first_use_of_its_model(self, bench: Bench) -> None:
        bench.register("Fresh", {"n": int}, __tablename__="schema_fresh")
        assert "schema_fresh" not in bench.db.show_tables()
        assert bench.count("Fresh") == {"count": 0}
        assert "schema_fresh" in bench.db.show_tables()

    @requires("introspection")
    def test_initialize_creates_all_tables(self, bench: Bench) -> None:
        bench.register("Early", {"n": int}, __tablename__="schema_early")
        assert bench.await_(bench.db.initialize()) is True
        assert bench.await_(bench.db.initialize()) is True
        assert "schema_early" in bench.db.show_tables()

    @requires("introspection")
    def test_tables_are_listed_in_order_and_the_frameworks_are_left_out(self, bench: Bench) -> None:
        bench.await_(bench.db.initialize())
        tables = bench.db.show_tables()
        assert tables == sorted(tables)
        assert {"schema_places", "schema_shelves"} <= set(tables)
        assert not [name for name in tables if name.startswith(("dataflow_", "sqlite_", "pg_"))]

    @requires("introspection")
    def test_columns_are_told_with_type_null_key_and_default(self, bench: Bench) -> None:
        bench.await_(bench.db.initialize())
        schema = bench.db.discover_schema()
        columns = schema["schema_shelves"]["columns"]
        assert list(columns) == ["id", "label", "depth", "width", "created_at", "updated_at"]
        assert {name: column["primary_key"] for name, column in columns.items() if column["primary_key"]} == {
            "id": True
        }
        assert [name for name, column in columns.items() if column["nullable"]] == ["depth"]
        assert all(column["type"] for column in columns.values())
        assert "1.5" in columns["width"]["default"]
        assert (columns["label"]["default"], columns["depth"]["default"]) == (None, None)
        places = schema["schema_places"]["columns"]
        assert [name for name, column in places.items() if column["primary_key"]] == ["row", "col"]
        assert (places["row"]["nullable"], places["shelf_id"]["nullable"]) == (False, True)

    @requires("introspection", "raw_sql")
    def test_tables_of_others_are_seen_and_views_are_not(self, bench: Bench) -> None:
        columns = '("the key" INTEGER PRIMARY KEY, "note" VARCHAR(20) NOT NULL DEFAULT \'x\')'
        bench.sql(f'CREATE TABLE "Their Table" {columns}', validate_queries=False)
        bench.sql('CREATE VIEW "Their View" AS SELECT 1 AS one', validate_queries=False)
        schema = bench.db.discover_schema()
        assert "Their View" not in bench.db.show_tables()
        assert list(schema["Their Table"]["columns"]) == ["the key", "note"]
        assert schema["Their Table"]["columns"]["the key"]["primary_key"] is True
        assert schema["Their Table"]["columns"]["note"]["nullable"] is False
        bench.sql('DROP VIEW "Their View"', validate_queries=False)

    @requires("introspection", "raw_sql")
    def test_a_model_works_on_a_table_of_others(self, bench: Bench) -> None:
        bench.sql(
            'CREATE TABLE "legacy" ("code" VARCHAR(9) PRIMARY KEY, "count" INTEGER NOT NULL)', validate_queries=False
        )
        bench.sql("INSERT INTO legacy VALUES ('a', 1), ('b', 2)")
        options = {"primary_key": "code", "timestamps": False}
        bench.register("Legacy", {"code": str, "count": int}, __tablename__="legacy", __dataflow__=options)
        before = bench.db.discover_schema()
        assert bench.update("Legacy", "a", {"count": {"$inc": 5}})["count"] == 6
        assert bench.create("Legacy", {"code": "c", "count": 3}) == {"code": "c", "count": 3}
        assert keys_of(bench.list("Legacy", {"count": {"$gt": 2}}), "code") == ["a", "c"]
        assert bench.db.discover_schema() == before

    @requires("shared_database")
    def test_a_second_instance_keeps_the_data_and_adds_indexes(self, bench: Bench, database_url: str) -> None:
        bench.register("Grown", {"n": int}, __tablename__="schema_grown")
        bench.create("Grown", {"n": 1})
        with DataFlow(database_url) as other:
            unique = {"name": "uq_schema_grown", "fields": ["n"], "unique": True}
            other.model(type("Grown", (), {
                "__annotations__": {"n": int}, "__tablename__": "schema_grown", "__indexes__": [unique],
            }))  # fmt: skip
            assert keys_of(other.express_sync.list("Grown"), "n") == [1]
            with pytest.raises(UniqueError):
                other.express_sync.create("Grown", {"n": 1})

    @pytest.mark.parametrize("settings", [{"auto_migrate": False}, {"existing_schema_mode": True}], ids=str)
    @requires("shared_database")
    def test_nothing_is_created_where_that_is_not_allowed(
        self, bench: Bench, database_url: str, settings: dict[str, Any]
    ) -> None:
        bench.create("Shelf", {"label": "a"})
        before = bench.db.discover_schema()
        with DataFlow(database_url, **settings) as other:
            other.model(type("Absent", (), {"__annotations__": {"n": int}, "__tablename__": "schema_absent"}))
            attempts: list[Callable[[], Any]] = [
                lambda: other.express_sync.create("Absent", {"n": 1}),
                lambda: other.express_sync.list("Absent"),
                lambda: bench.await_(other.express.count("Absent")),
            ]
            for attempt in attempts:
                with pytest.raises(SchemaError) as caught:
                    attempt()
                assert (caught.value.code, caught.value.where["table"]) == ("missing-table", "schema_absent")
            bench.await_(other.aclose())
        assert bench.db.discover_schema() == before

    @requires("shared_database")
    def test_a_column_that_is_missing_is_named_and_nothing_is_changed(self, bench: Bench, database_url: str) -> None:
        bench.create("Shelf", {"label": "a"})
        with DataFlow(database_url, auto_migrate=False) as other:
            fields = {"label": str, "depth": int | None, "width": float, "colour": str}
            other.model(type("Shelf", (), {"__annotations__": fields, "__tablename__": "schema_shelves"}))
            with pytest.raises(SchemaError) as caught:
                other.express_sync.list("Shelf")
            assert caught.value.code == "missing-column"
            assert "lacks colour" in caught.value.message
        assert keys_of(bench.list("Shelf"), "label") == ["a"]

    @requires("partial_indexes")
    def test_a_partial_unique_index_binds_only_the_rows_it_names(self, bench: Bench) -> None:
        index = {"name": "uq_schema_drafts", "fields": ["slug"], "unique": True, "where": "live = 1"}
        bench.register("Draft", {"slug": str, "live": int}, __tablename__="schema_drafts", __indexes__=[index])
        bench.bulk_create("Draft", [{"slug": "a", "live": 0}, {"slug": "a", "live": 0}, {"slug": "a", "live": 1}])
        with pytest.raises(UniqueError):
            bench.create("Draft", {"slug": "a", "live": 1})
        assert bench.create("Draft", {"slug": "a", "live": 0})["live"] == 0

    def test_health_and_description_tell_where_this_is(self, bench: Bench) -> None:
        health = bench.db.health()
        assert health["ok"] is True
        assert health["checks"]["database"]["dialect"] == bench.db.core.dialect.name
        with bench.another() as other:
            other.db.close()
            assert other.db.health()["ok"] is False
