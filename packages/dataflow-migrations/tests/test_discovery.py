"""Existing tables as models: what they become, what is left out and why, and that reading and writing is faithful."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from dataflow import DataFlow
from dataflow.catalog import Catalog, Column, Constraint, Table
from dataflow.errors import DataFlowError, InputError, ModelError
from dataflow.migrations import discovery, relating
from dataflow.migrations.discovery import described
from dataflow.migrations.registry import dump, restore


def table(name: str, columns: dict[str, str], *constraints: Constraint, key: str = "id", **more: Any) -> Table:
    """Return a table whose columns are "type", or "type null"."""
    found = {
        name: Column(name, kind.removesuffix(" null"), nullable=kind.endswith(" null"))
        for name, kind in columns.items()
    }
    primary = [Constraint("", "primary key", tuple(key.split()), "")] if key else []
    return Table(name, found, (*primary, *constraints), **more)


def refers(column: str, target: str, remote: str = "id", on_delete: str = "NO ACTION") -> Constraint:
    """Return a foreign key."""
    return Constraint("", "foreign key", (column,), "", target, (remote,), on_delete)


def catalog(*tables: Table) -> Catalog:
    """Return a catalog of tables."""
    return Catalog({table.name: table for table in tables})


@pytest.fixture
def db() -> Iterator[DataFlow]:
    with DataFlow(":memory:", existing_schema_mode=True) as opened:
        yield opened


ID = {"id": "INTEGER"}


# -- which tables become models, and what they are called -------------------------------------------------------------
def test_tables_become_models_with_all_nodes(db: DataFlow) -> None:
    answer = discovery.register(db.core, catalog(table("users", ID), table("people", ID)))
    assert answer["models"] == {"User": "users", "Person": "people"}
    assert answer["generated_nodes"]["User"]["create"] == "UserCreateNode"
    assert answer["generated_nodes"]["User"].keys() == {
        node.operation for node in db.core.models["User"].nodes.values()
    }
    assert answer["skipped"] == {}
    assert db.get_spec("User").existing
    with pytest.raises(DataFlowError, match="User is a model"):
        db.get_model("User")()


def test_only_the_tables_asked_for_become_models(db: DataFlow) -> None:
    found = catalog(table("users", ID), table("orders", ID))
    assert discovery.register(db.core, found, tables=["orders"])["models"] == {"Order": "orders"}
    assert discovery.register(db.core, found)["models"] == {"User": "users", "Order": "orders"}
    assert db.list_models() == ["Order", "User"]


def test_a_name_can_be_given(db: DataFlow) -> None:
    answer = discovery.register(db.core, catalog(table("users", ID), table("2fa", ID)), names={"users": "Account"})
    assert answer["models"] == {"Account": "users"}
    assert "gives no class name" in answer["skipped"]["2fa"]
    assert discovery.register(db.core, catalog(table("2fa", ID)), names={"2fa": "Token"})["models"] == {"Token": "2fa"}


def test_an_unknown_table_is_an_error_with_the_nearest_name(db: DataFlow) -> None:
    with pytest.raises(InputError, match="there is no table 'user'") as caught:
        discovery.register(db.core, catalog(table("users", ID)), tables=["user"])
    assert "did you mean 'users'?" in str(caught.value)
    with pytest.raises(InputError, match="there is no table 'nothing'"):
        discovery.register(db.core, catalog(table("users", ID)), names={"nothing": "X"})


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (table("2fa", ID), "gives no class name"),
        (table("logs", {"line": "TEXT"}, key=""), "neither a primary key nor a unique key"),
        (table("places", {"at": "POINT"}, key="at"), r"its key \(at\) cannot be a field"),
        (table("documents", {"id": "JSON"}), r"its key \(id\) cannot be a field"),
        (table("x" * 64, ID), "too long"),
        (table("User", ID), "the table '(users|User)' gives the class name User as well"),
        (table("thing", ID), "another model is called Thing"),
    ],
    ids=lambda value: value.name[:9] if isinstance(value, Table) else "",
)
def test_a_table_that_cannot_be_a_model_is_skipped_or_refused_where_it_was_named(
    db: DataFlow, bad: Table, reason: str
) -> None:
    db.model(type("Thing", (), {"__annotations__": {"x": int}}))
    found = catalog(table("users", ID), table("orders", ID), bad)
    answer = discovery.register(db.core, found)
    assert "Order" in answer["models"]
    assert answer["skipped"].keys() >= {bad.name}
    with DataFlow(":memory:") as other:
        other.model(type("Thing", (), {"__annotations__": {"x": int}}))
        with pytest.raises(InputError, match=reason):
            discovery.register(other.core, found, tables=[bad.name, "users"])


def test_a_table_that_a_model_has_stays_its(db: DataFlow) -> None:
    db.model(type("Mine", (), {"__annotations__": {"x": int}, "__tablename__": "users"}))
    answer = discovery.register(db.core, catalog(table("users", ID)))
    assert answer == {"generated_nodes": {}, "models": {}, "skipped": {"users": "the model Mine has it already"}}


def test_a_model_whose_nodes_are_taken_is_skipped_and_nothing_refers_to_it(db: DataFlow) -> None:
    found = catalog(
        table("users", ID),
        table("user_bulks", ID),
        table("orders", {**ID, "bulk_id": "INT"}, refers("bulk_id", "user_bulks")),
    )
    answer = discovery.register(db.core, found)
    assert answer["models"].keys() >= {"Order"}
    assert len(answer["models"]) == 2
    (reason,) = answer["skipped"].values()
    assert "would define the node type" in reason


# -- columns ----------------------------------------------------------------------------------------------------------
def test_what_has_no_field_type_is_left_out_with_the_reason(db: DataFlow) -> None:
    columns = {**ID, "place": "POINT null", "area": "POLYGON", "ctid": "INT null", "_x": "INT null", "a.b": "INT null"}
    answer = discovery.register(db.core, catalog(table("shops", columns)))
    assert list(db.get_spec("Shop").fields) == ["id"]
    assert "records cannot be created without it" in answer["skipped"]["shops.area"]
    assert "records" not in answer["skipped"]["shops.place"]
    assert answer["skipped"].keys() == {f"shops.{name}" for name in columns if name != "id"}


def test_timestamps_are_kept_only_where_the_table_has_both(db: DataFlow) -> None:
    both = {**ID, "created_at": "DATETIME", "updated_at": "DATETIME"}
    discovery.register(db.core, catalog(table("posts", both), table("notes", {**ID, "created_at": "DATETIME"})))
    assert db.get_spec("Post").fields["updated_at"].write == "update"
    assert db.get_spec("Note").fields["created_at"].write == ""


def test_without_a_primary_key_the_shortest_unique_key_without_null_identifies(db: DataFlow) -> None:
    unique = [Constraint("", "unique", names, "") for names in (("a", "b"), ("c",), ("d",))]
    columns = {"a": "INT", "b": "INT", "c": "TEXT null", "d": "TEXT"}
    discovery.register(db.core, catalog(table("things", columns, *unique, key="")))
    assert db.get_spec("Thing").primary_key == ("d",)
    assert set(db.get_spec("Thing").unique_keys) == {("d",), ("a", "b"), ("c",)}


def test_a_composite_key_is_kept(db: DataFlow) -> None:
    discovery.register(db.core, catalog(table("lines", {"a": "INT", "b": "TEXT"}, key="a b")))
    assert db.get_spec("Line").primary_key == ("a", "b")
    assert not db.get_spec("Line").fields["a"].generated


# -- relations --------------------------------------------------------------------------------------------------------
def reached(db: DataFlow) -> dict[str, dict[str, str]]:
    """Return model -> relation -> "target.field"."""
    return {
        name: {its.name: f"{its.target}.{its.remote}" for its in model.relations.values()}
        for name, model in db.core.models.items()
    }


def test_a_foreign_key_is_a_relation_in_both_directions(db: DataFlow) -> None:
    found = catalog(
        table("orders", {**ID, "customer_id": "INT"}, refers("customer_id", "customers", on_delete="CASCADE")),
        table("customers", ID),
    )
    discovery.register(db.core, found)
    assert reached(db) == {"Customer": {"orders": "Order.customer_id"}, "Order": {"customer": "Customer.id"}}
    assert db.get_spec("Order").fields["customer_id"].relation.on_delete == "cascade"  # type: ignore[union-attr]


def test_several_foreign_keys_to_one_table_are_told_apart(db: DataFlow) -> None:
    columns = {**ID, "customer_id": "INT", "billing_customer_id": "INT", "payer": "INT"}
    found = catalog(
        table("customers", {**ID, "orders": "INT"}),
        table("orders", columns, *[refers(name, "customers") for name in columns if name != "id"]),
    )
    discovery.register(db.core, found)
    assert reached(db)["Order"].keys() == {"customer", "billing_customer", "payer_customer"}
    assert reached(db)["Customer"].keys() == {"orders_2", "billing_customer_orders", "payer_customer_orders"}


def test_a_table_may_refer_to_itself_and_tables_to_each_other(db: DataFlow) -> None:
    found = catalog(
        table("employees", {**ID, "ReportsTo": "INT null", "team_id": "INT"}, refers("ReportsTo", "employees"),
              refers("team_id", "teams")),
        table("teams", {**ID, "lead_id": "INT"}, refers("lead_id", "employees")),
    )  # fmt: skip
    discovery.register(db.core, found)
    assert reached(db) == {
        "Employee": {
            "reports_to_employee": "Employee.id",
            "employees": "Employee.ReportsTo",
            "team": "Team.id",
            "teams": "Team.lead_id",
        },
        "Team": {"lead": "Employee.id", "employees": "Employee.team_id"},
    }


def test_what_a_relation_cannot_be_is_said(db: DataFlow) -> None:
    pair = Constraint("", "foreign key", ("a", "b"), "", "pairs", ("a", "b"), "NO ACTION")
    found = catalog(
        table("pairs", {"a": "INT", "b": "INT"}, key="a b"),
        table("texts", {"id": "TEXT"}),
        table("users", {**ID, "a": "INT", "b": "INT", "text_id": "INT", "gone_id": "INT"}, pair,
              refers("text_id", "texts"), refers("gone_id", "elsewhere")),
    )  # fmt: skip
    answer = discovery.register(db.core, found)
    assert answer["skipped"].keys() == {"users.a+b", "users.text_id"}
    assert reached(db)["User"] == {}
    assert list(db.get_spec("User").fields) == ["id", "a", "b", "text_id", "gone_id"]


def test_a_field_that_would_relate_by_its_name_is_in_nobodys_way(db: DataFlow) -> None:
    columns = {**ID, "customer_id": "INT", "buyer_id": "INT"}
    found = catalog(
        table("customers", {"customer_id": "INTEGER"}, key="customer_id"),
        table("orders", columns, refers("buyer_id", "customers", "customer_id")),
    )
    discovery.register(db.core, found)
    assert reached(db) == {
        "Customer": {"orders": "Order.customer_id", "buyer_orders": "Order.buyer_id"},
        "Order": {"customer": "Customer.customer_id", "buyer": "Customer.customer_id"},
    }


def test_a_later_call_relates_to_models_of_an_earlier_one(db: DataFlow) -> None:
    found = catalog(table("customers", ID), table("orders", {**ID, "by": "INT"}, refers("by", "customers")))
    discovery.register(db.core, found, tables=["customers"])
    discovery.register(db.core, found, tables=["orders"])
    assert reached(db)["Customer"] == {"orders": "Order.by"}


def test_names_of_relations_do_not_depend_on_the_order_of_tables() -> None:
    references = [
        relating.Reference("Order", field, "Customer", "id", "restrict") for field in ("a_id", "b_id", "customer_id")
    ]
    taken = {"Order": {"a"}, "Customer": set[str]()}
    forwards = relating.relations(references, taken)
    assert forwards == relating.relations(reversed(references), taken)
    assert [forwards["Order", field].name for field in ("a_id", "b_id", "customer_id")] == ["a_2", "b", "customer"]


# -- the shape of discover_schema() -----------------------------------------------------------------------------------
def test_a_schema_is_described_as_plain_data() -> None:
    found = described(
        catalog(
            table("orders", {**ID, "by": "INT null"}, refers("by", "customers"), Constraint("", "unique", ("by",), ""))
        )
    )
    assert json.loads(json.dumps(found)) == found
    assert found["orders"]["columns"]["by"] == {
        "type": "INT", "nullable": True, "primary_key": False, "default": None, "generated": None, "identity": "",
        "comment": None,
    }  # fmt: skip
    assert found["orders"]["primary_key"] == ["id"]
    assert found["orders"]["unique"] == [["by"]]
    assert found["orders"]["foreign_keys"][0]["table"] == "customers"


# -- faithful on real databases ---------------------------------------------------------------------------------------
INSTANT = datetime(2025, 1, 31, 12, 30, 0, 250_000, tzinfo=UTC)
SQLITE_TYPES: list[tuple[str, str, Any, Any]] = [
    ("INT", "5", 5, 2**62),
    ("BIGINT UNSIGNED", "5", 5, -1),
    ("TINYINT(1)", "1", 1, 0),
    ("TEXT", "'é'", "é", "007"),
    ("NVARCHAR(20)", "'12'", "12", "1e5"),
    ("CHAR(2)", "'a'", "a", "a "),
    ("CLOB", "'x'", "x", ""),
    ("REAL", "2", 2.0, 0.1),
    ("DOUBLE PRECISION", "0.1", 0.1, 1e300),
    ("FLOAT", "1.5", 1.5, -2.0),
    ("NUMERIC(10,2)", "1.10", Decimal("1.1"), Decimal("0.1")),
    ("DECIMAL", "10", Decimal(10), Decimal("123456789012.345")),
    ("BOOLEAN", "1", True, False),
    ("BLOB", "x'0001'", b"\0\1", b""),
    ("VARBINARY(16)", "x'ff'", b"\xff", b"text"),
    ("DATE", "'2025-01-31'", date(2025, 1, 31), date(1, 1, 1)),
    ("TIME", "'12:30:00'", time(12, 30), time(1, 2, 3, 4)),
    ("DATETIME", "'2025-01-31 12:30:00'", INSTANT.replace(microsecond=0), INSTANT),
    ("TIMESTAMP", "'2025-01-31 12:30:00.250000'", INSTANT, INSTANT.replace(microsecond=0)),
    ("DATETIME", "'2025-01-31T12:30:00.250+00:00'", INSTANT, INSTANT),
    ("JSON", """'{"b": 1, "a": [1, null]}'""", {"a": [1, None], "b": 1}, ["x"]),
]
POSTGRES_TYPES: list[tuple[str, str, Any, Any]] = [
    ("int2", "5", 5, -1),
    ("int4", "5", 5, 2**31 - 1),
    ("int8", "5", 5, 2**62),
    ("text", "'é'", "é", "007"),
    ("varchar(20)", "'x'", "x", "a "),
    ("char(5)", "'ab'", "ab", "abcde"),
    ("name", "'x'", "x", "y"),
    ("bool", "true", True, False),
    ("float4", "0.5", 0.5, 0.25),
    ("float8", "0.1", 0.1, 1e300),
    ("numeric", "1.10", Decimal("1.1"), Decimal("0.1")),
    ("numeric(10,2)", "1.10", Decimal("1.1"), Decimal("12345678.91")),
    ("date", "'2025-01-31'", date(2025, 1, 31), date(1, 1, 1)),
    ("time", "'12:30'", time(12, 30), time(1, 2, 3, 4)),
    ("timestamptz", "'2025-01-31 12:30:00.25Z'", INSTANT, INSTANT.replace(microsecond=0)),
    ("uuid", f"'{UUID(int=7)}'", UUID(int=7), UUID(int=8)),
    ("bytea", r"'\x0001'", b"\0\1", b""),
    ("jsonb", """'{"b": 1, "a": [1, null]}'""", {"a": [1, None], "b": 1}, 5),
    ("text[]", "'{a,b}'", ["a", "b"], []),
    ("int8[]", "'{1,2}'", [1, 2], [2**62]),
    ("numeric[]", "'{1.10}'", [Decimal("1.1")], [Decimal("0.1")]),
    ("numeric(10,2)[]", "'{1.10}'", [Decimal("1.1")], [Decimal("0.1")]),
    ("int4[]", "'{1,2}'", [1, 2], []),
    ("int2[]", "'{1,2}'", [1, 2], [-1]),
    ("varchar(5)[]", "'{a,b}'", ["a", "b"], []),
    ("float4[]", "'{0.5}'", [0.5], [0.25]),
    ("bool[]", "'{t}'", [True], [False]),
    ("timestamptz[]", "'{2025-01-31 12:30:00.25Z}'", [INSTANT], []),
    ("timestamp", "'2025-01-31 12:30:00.25'", INSTANT, INSTANT.replace(microsecond=0)),
    ("timestamp[]", "'{2025-01-31 12:30:00.25}'", [INSTANT], []),
    ("date[]", "'{2025-01-31}'", [date(2025, 1, 31)], []),
    ("time[]", "'{12:30}'", [time(12, 30)], []),
    ("uuid[]", f"'{{{UUID(int=7)}}}'", [UUID(int=7)], []),
]


def faithful(db: DataFlow, found: Any, written: Any) -> None:
    """Check that both values are read, written by every node that writes, and found again."""
    nodes = db.express_sync
    assert nodes.read("Value", 1)["v"] == found
    assert type(nodes.read("Value", 1)["v"]) is type(found)
    assert nodes.list("Value", filter={"v": found})["count"] == 1
    for value in (written, found):
        made = nodes.create("Value", {"v": value})
        assert (made["v"], type(made["v"])) == (value, type(value))
        assert nodes.read("Value", made["id"])["v"] == value
        assert nodes.list("Value", filter={"v": {"$in": [value]}})["count"] >= 1
        assert made["id"] in [row["id"] for row in nodes.list("Value", filter={"v": value})["records"]]
    assert nodes.update("Value", 1, {"v": written})["v"] == written
    assert nodes.update("Value", 1, {"v": found})["v"] == found
    rows = [{"v": [written, found, None][number % 3]} for number in range(90)]
    ids = nodes.bulk_create("Value", rows, return_ids=True)["ids"]
    assert [nodes.read("Value", key)["v"] for key in ids[:3]] == [written, found, None]
    nodes.bulk_upsert("Value", [{"id": 1, "v": written}, {"id": ids[0], "v": found}])
    assert [nodes.read("Value", key)["v"] for key in (1, ids[0])] == [written, found]
    nodes.bulk_update("Value", data=[{"id": ids[1], "v": written}])
    assert nodes.read("Value", ids[1])["v"] == written


@pytest.mark.parametrize(("kind", "literal", "found", "written"), SQLITE_TYPES)
def test_values_of_sqlite_tables_are_read_and_written_as_they_are(
    tmp_path: Any, kind: str, literal: str, found: Any, written: Any
) -> None:
    connection = sqlite3.connect(tmp_path / "theirs.db")
    connection.executescript(
        f"CREATE TABLE value (id INTEGER PRIMARY KEY, v {kind}); INSERT INTO value VALUES (1, {literal})"
    )
    connection.close()
    with DataFlow(f"sqlite:///{tmp_path / 'theirs.db'}", existing_schema_mode=True) as db:
        assert db.register_schema_as_models()["skipped"] == {}
        if kind == "DATETIME" and "T" in literal:  # another notation of the same instant is read, not found
            assert db.express_sync.read("Value", 1)["v"] == found
            return
        if kind == "TIMESTAMP":  # a fraction with zeros at the end as well
            assert db.express_sync.read("Value", 1)["v"] == found
            assert db.express_sync.list("Value", filter={"v": {"$gte": found.replace(second=0)}})["count"] == 1
            return
        faithful(db, found, written)


@pytest.mark.parametrize(("kind", "literal", "found", "written"), POSTGRES_TYPES, ids=lambda value: str(value)[:12])
def test_values_of_postgres_tables_are_read_and_written_as_they_are(
    foreign: Callable[..., DataFlow], kind: str, literal: str, found: Any, written: Any
) -> None:
    ddl = f"CREATE TABLE value (id serial PRIMARY KEY, v {kind}); INSERT INTO value (v) VALUES ({literal})"
    db = foreign(ddl)
    assert db.register_schema_as_models()["skipped"] == {}
    faithful(db, found, written)


@pytest.mark.parametrize(
    "kind", ["inet", "interval", "point", "tsvector", "money", "xml", "int4range", "timetz", "bit(3)"]
)
def test_a_column_of_postgres_that_no_type_keeps_is_left_out(foreign: Callable[..., DataFlow], kind: str) -> None:
    db = foreign(f"CREATE TABLE value (id serial PRIMARY KEY, v {kind})")
    assert list(db.register_schema_as_models()["skipped"]) == ["value.v"]
    assert db.express_sync.create("Value", {}) == {"id": 1}


def test_an_enum_type_becomes_an_enum(foreign: Callable[..., DataFlow]) -> None:
    db = foreign("""
        CREATE TYPE order_status AS ENUM ('new', 'on hold', '2nd');
        CREATE TABLE value (id serial PRIMARY KEY, v order_status, many order_status[]);
        INSERT INTO value (v, many) VALUES ('on hold', '{new}')""")
    assert db.register_schema_as_models()["skipped"] == {}
    kind = db.get_spec("Value").fields["v"].type
    enum = kind.enum  # type: ignore[attr-defined]
    assert (enum.__name__, list(enum.__members__)) == ("OrderStatus", ["new", "on_hold", "value_3"])
    faithful(db, enum.on_hold, enum.new)
    nodes = db.express_sync
    assert nodes.list("Value", filter={"many": {"$contains": "new"}})["count"] == 1
    assert nodes.update("Value", 1, {"many": {"$append": "2nd"}})["many"] == [enum.new, enum.value_3]
    assert nodes.list("Value", filter={"v": "on hold"}, sort=["-v"])["count"] > 1
    with pytest.raises(InputError, match="expected one of new, on hold, 2nd"):
        nodes.create("Value", {"v": "gone"})
    entry = dump(db.get_spec("Value"))
    with foreign("SELECT 1") as again:
        assert restore(again.core, {"Value": entry})["reconstructed_models"] == ["Value"]
        assert again.express_sync.create("Value", {"v": "new"})["v"].value == "new"


@pytest.mark.parametrize("kind", ["int4[]", "varchar[]", "timestamp[]", "int8[]"])
def test_arrays_are_searched_and_appended_to_as_their_columns_are(foreign: Callable[..., DataFlow], kind: str) -> None:
    db = foreign(f"CREATE TABLE value (id serial PRIMARY KEY, v {kind})")
    db.register_schema_as_models()
    item: Any = {"i": 5, "v": "x", "t": INSTANT}[kind[0]]
    db.express_sync.create("Value", {"v": [item]})
    for document in ({"$contains": item}, {"$overlap": [item]}, [item], {"$in": [[item]]}):
        assert db.express_sync.list("Value", filter={"v": document})["count"] == 1
    assert db.express_sync.update("Value", 1, {"v": {"$append": item}})["v"] == [item, item]


def test_timestamps_without_zone_are_utc_whatever_the_server_thinks(foreign: Any) -> None:
    foreign.run("CREATE TABLE value (id serial PRIMARY KEY, v timestamp); INSERT INTO value (v) VALUES ('2025-01-31')")
    change = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I {} timezone {}', current_database()); END $$"
    foreign.run(change.format("SET", "= ''Asia/Tokyo''"))
    db = foreign("SELECT 1")
    try:
        db.register_schema_as_models()
        faithful(db, datetime(2025, 1, 31, tzinfo=UTC), INSTANT)
        stored = foreign.run("SELECT DISTINCT v::text FROM value WHERE v IS NOT NULL ORDER BY 1")
        assert stored == [("2025-01-31 00:00:00",), ("2025-01-31 12:30:00.25",)]
    finally:
        db.close()
        foreign.run(change.format("RESET", ""))


def test_digits_that_a_column_would_round_off_are_refused(foreign: Callable[..., DataFlow]) -> None:
    db = foreign("CREATE TABLE value (id serial PRIMARY KEY, v numeric(10,2), f float4)")
    db.register_schema_as_models()
    with pytest.raises(InputError, match="keeps 2 digits"):
        db.express_sync.create("Value", {"v": Decimal("1.005")})
    assert db.express_sync.create("Value", {"f": 0.1})["f"] == 0.10000000149011612
    assert db.express_sync.list("Value", filter={"f": 0.1})["count"] == 1


def test_spaces_at_the_end_of_char_mean_nothing(foreign: Callable[..., DataFlow]) -> None:
    db = foreign("CREATE TABLE value (id char(5) PRIMARY KEY); INSERT INTO value VALUES ('ab')")
    db.register_schema_as_models()
    for key in ("ab", "ab   "):
        assert db.express_sync.read("Value", key) == {"id": "ab", "found": True}
    with pytest.raises(DataFlowError, match=r"unique|exists"):
        db.express_sync.create("Value", {"id": "ab"})


def test_digits_that_sqlite_would_lose_are_refused(tmp_path: Any) -> None:
    connection = sqlite3.connect(tmp_path / "theirs.db")
    connection.executescript("CREATE TABLE value (id INTEGER PRIMARY KEY, v NUMERIC, j JSON)")
    connection.close()
    with DataFlow(f"sqlite:///{tmp_path / 'theirs.db'}", existing_schema_mode=True) as db:
        db.register_schema_as_models()
        with pytest.raises(InputError, match="keeps 15 digits"):
            db.express_sync.create("Value", {"v": Decimal("1234567890.123456")})
        with pytest.raises(InputError, match="not bare numbers"):
            db.express_sync.create("Value", {"j": 5})


# -- what the database fills ------------------------------------------------------------------------------------------
FILLED = {
    "sqlite": """
        CREATE TABLE things (
            id INTEGER PRIMARY KEY, state TEXT NOT NULL DEFAULT 'new', rank INT DEFAULT 7, name TEXT,
            full TEXT GENERATED ALWAYS AS (name || state) VIRTUAL, at DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP)""",
    "postgresql": """
        CREATE TABLE things (
            id serial PRIMARY KEY, state text NOT NULL DEFAULT 'new', rank int4 DEFAULT 7, name text,
            "full" text GENERATED ALWAYS AS (name || state) STORED, at timestamptz NOT NULL DEFAULT now())""",
}


def test_what_the_database_fills_may_be_left_out(either: Callable[..., DataFlow]) -> None:
    db = either(FILLED)
    db.register_schema_as_models()
    nodes = db.express_sync
    made = nodes.create("Thing", {"name": "a"})
    assert (made["state"], made["rank"], made["full"], made["at"].tzinfo) == ("new", 7, "anew", UTC)
    assert nodes.create("Thing", {"state": None, "rank": None})["state"] == "new"  # None asks where NULL is no value
    assert nodes.create("Thing", {"rank": None})["rank"] is None
    with pytest.raises(InputError, match="full is kept by the database"):
        nodes.create("Thing", {"full": "x"})
    with pytest.raises(InputError, match="full is kept by the database"):
        nodes.update("Thing", 1, {"full": "x"})
    upserted = nodes.upsert("Thing", where={"id": 50}, create={"name": "u"}, update={"name": "v"})
    assert (upserted["state"], upserted["full"]) == ("new", "unew")


def test_rows_that_leave_different_fields_to_the_database_get_its_values(either: Callable[..., DataFlow]) -> None:
    db = either(FILLED)
    db.register_schema_as_models()
    nodes = db.express_sync
    rows = [{"name": "a"}, {"rank": 1}, {"rank": None}, {"state": "x"}, {"state": None, "rank": 2}, {}] * 20
    answer = nodes.bulk_create("Thing", rows, return_ids=True)
    assert answer["created"] == len(rows)
    found = [nodes.read("Thing", key) for key in answer["ids"][:6]]
    assert [row["state"] for row in found] == ["new", "new", "new", "x", "new", "new"]
    assert [row["rank"] for row in found] == [7, 1, None, 7, 2, 7]
    keys = answer["ids"][:3]
    nodes.bulk_upsert("Thing", [{"id": keys[0], "state": "y"}, {"id": 9_000, "rank": 3}, {"id": keys[2], "name": "z"}])
    assert [nodes.read("Thing", key)["state"] for key in (keys[0], 9_000, keys[2])] == ["y", "new", "new"]
    assert nodes.bulk_create("Thing", [{"state": "ok"}, {"rank": "no"}], on_error="collect")["errors"][0]["row"] == 1


def test_ids_that_are_no_numbers_come_back_in_the_order_of_the_rows(either: Callable[..., DataFlow]) -> None:
    db = either({
        "sqlite": "CREATE TABLE things (id TEXT NOT NULL DEFAULT (lower(hex(randomblob(8)))) PRIMARY KEY, name TEXT)",
        "postgresql": "CREATE TABLE things (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text)",
    })  # fmt: skip
    db.register_schema_as_models()
    for size in (3, 700):
        rows = [{"name": f"n{number}"} for number in range(size)]
        ids = db.express_sync.bulk_create("Thing", rows, return_ids=True)["ids"]
        assert [db.express_sync.read("Thing", key)["name"] for key in ids[:5]] == [row["name"] for row in rows[:5]]


def test_an_identity_that_is_always_generated_cannot_be_chosen(foreign: Callable[..., DataFlow]) -> None:
    db = foreign("CREATE TABLE things (id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text)")
    db.register_schema_as_models()
    assert db.express_sync.create("Thing", {"name": "a"})["id"] == 1
    with pytest.raises(InputError, match="id is kept by the database"):
        db.express_sync.create("Thing", {"id": 9, "name": "a"})
    rows = [{"name": "x"}] * 60
    assert db.express_sync.bulk_create("Thing", rows, return_ids=True)["ids"] == list(range(2, 62))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"given": "name"}, "is a list of fields"),
        ({"computed": ["nane"]}, "names the field 'nane', which does not exist"),
        ({"existing": "yes"}, "is True or False"),
    ],
)
def test_the_options_of_existing_tables_are_checked(db: DataFlow, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        db.model(type("Thing", (), {"__annotations__": {"name": str}, "__dataflow__": options}))


def test_a_model_of_ones_own_may_leave_fields_to_the_database(either: Callable[..., DataFlow]) -> None:
    db = either(FILLED)
    body = {
        "__annotations__": {"name": str | None, "state": str},
        "__dataflow__": {"given": ["state"], "timestamps": False},
    }
    db.model(type("Thing", (), body))
    assert db.express_sync.create("Thing", {"name": "a"})["state"] == "new"
