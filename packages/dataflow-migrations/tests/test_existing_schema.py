"""A database that somebody else has made: every node works on it, and its schema stays as it is to the last byte."""

import asyncio
import subprocess
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from dataflow import DataFlow
from dataflow.errors import DataFlowError, SchemaError
from dataflow.runtime import LocalRuntime
from dataflow.testing import _installation

POSTGRES = """
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE DOMAIN email AS text CHECK (VALUE LIKE '%@%');
CREATE TABLE customers (
    customer_id char(5) PRIMARY KEY, company varchar(40) NOT NULL, country char(2) NOT NULL DEFAULT 'NL',
    since timestamp NOT NULL DEFAULT now(), credit numeric(10,2) CHECK (credit >= 0), active boolean DEFAULT true,
    vat varchar(20) CONSTRAINT one_vat UNIQUE, mood mood DEFAULT 'ok', mail email, address inet);
CREATE TABLE "Employees" (
    "EmployeeID" serial PRIMARY KEY, "Last Name" varchar(20) NOT NULL, "HireDate" date, "Photo" bytea,
    "ReportsTo" int4 REFERENCES "Employees" ON DELETE SET NULL);
CREATE TABLE products (
    product_id int4 PRIMARY KEY, name text NOT NULL, price numeric(8,2) NOT NULL DEFAULT 0, stock int2 DEFAULT 0,
    worth numeric(12,2) GENERATED ALWAYS AS (price * stock) STORED, data jsonb, tags text[]);
CREATE TABLE orders (
    order_id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer_id char(5) NOT NULL REFERENCES customers,
    billing_customer_id char(5) REFERENCES customers, employee int4 REFERENCES "Employees", ship_via int4,
    ordered timestamptz, freight real);
CREATE TABLE "Order Details" (
    order_id int8 REFERENCES orders ON DELETE CASCADE, product_id int4 REFERENCES products,
    quantity int2 NOT NULL DEFAULT 1 CHECK (quantity > 0), discount float8 NOT NULL DEFAULT 0,
    PRIMARY KEY (order_id, product_id));
CREATE TABLE statuses (code varchar(10) NOT NULL UNIQUE, label text);
CREATE TABLE import_log (line text, at timestamp);
CREATE INDEX by_company ON customers (lower(company));
CREATE UNIQUE INDEX one_open ON orders (customer_id) WHERE ordered IS NULL;
CREATE VIEW totals AS SELECT order_id, sum(quantity) AS pieces FROM "Order Details" GROUP BY order_id;
CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN NEW.company = upper(NEW.company); RETURN NEW; END $$;
CREATE TRIGGER shouting BEFORE INSERT ON customers FOR EACH ROW EXECUTE FUNCTION shout();
"""
SQLITE = """
CREATE TABLE customers (
    customer_id CHAR(5) NOT NULL PRIMARY KEY, company VARCHAR(40) NOT NULL, country CHAR(2) NOT NULL DEFAULT 'NL',
    since TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, credit NUMERIC(10,2) CHECK (credit >= 0),
    active BOOLEAN DEFAULT 1, vat VARCHAR(20) CONSTRAINT one_vat UNIQUE, mood MOOD DEFAULT 'ok', mail, address ANY);
CREATE TABLE Employees (
    EmployeeID INTEGER PRIMARY KEY AUTOINCREMENT, [Last Name] NVARCHAR(20) NOT NULL, HireDate DATE, Photo BLOB,
    ReportsTo INT REFERENCES employees (employeeid) ON DELETE SET NULL);
CREATE TABLE products (
    product_id INT PRIMARY KEY, name TEXT NOT NULL, price DECIMAL(8,2) NOT NULL DEFAULT 0, stock SMALLINT DEFAULT 0,
    worth DECIMAL(12,2) GENERATED ALWAYS AS (price * stock) VIRTUAL, data JSON, tags STRING);
CREATE TABLE orders (
    order_id INTEGER PRIMARY KEY, customer_id CHAR(5) NOT NULL REFERENCES customers,
    billing_customer_id CHAR(5) REFERENCES customers, employee INT REFERENCES Employees, ship_via INT,
    ordered DATETIME, freight REAL);
CREATE TABLE "Order Details" (
    order_id INT REFERENCES orders ON DELETE CASCADE, product_id INT REFERENCES products,
    quantity SMALLINT NOT NULL DEFAULT 1 CHECK (quantity > 0), discount DOUBLE NOT NULL DEFAULT 0,
    PRIMARY KEY (order_id, product_id)) WITHOUT ROWID;
CREATE TABLE statuses (code VARCHAR(10) NOT NULL UNIQUE, label TEXT);
CREATE TABLE import_log (line TEXT, at DATETIME);
CREATE INDEX by_company ON customers (lower(company));
CREATE UNIQUE INDEX one_open ON orders (customer_id) WHERE ordered IS NULL;
CREATE VIEW totals AS SELECT order_id, sum(quantity) AS pieces FROM "Order Details" GROUP BY order_id;
CREATE TRIGGER shouting AFTER INSERT ON customers BEGIN
    UPDATE customers SET company = upper(company) WHERE customer_id = NEW.customer_id; END;
PRAGMA user_version = 7;
"""
ROWS = """
INSERT INTO customers (customer_id, company, credit) VALUES ('ALFKI', 'Alfreds', 12.50), ('AB', 'Short', NULL);
INSERT INTO "Employees" ("Last Name", "HireDate", "ReportsTo") VALUES ('Davolio', '1992-05-01', NULL),
    ('Fuller', NULL, 1);
INSERT INTO products (product_id, name, price, stock) VALUES (1, 'Chai', 18.00, 39), (2, 'Chang', 19.5, 17);
INSERT INTO orders (customer_id, employee, ship_via, ordered, freight) VALUES
    ('ALFKI', 1, 3, '1996-07-04 00:00:00', 32.5), ('AB', 2, 99, '1996-07-05 10:00:00', NULL);
INSERT INTO "Order Details" (order_id, product_id, quantity) VALUES (1, 1, 12), (1, 2, 10), (2, 1, 1);
INSERT INTO statuses VALUES ('new', 'New'), ('gone', NULL);
INSERT INTO import_log VALUES ('x', '1996-07-04 00:00:00');
"""
THEIRS = {"sqlite": SQLITE + ROWS, "postgresql": POSTGRES + ROWS}
MODELS = {
    "Customer": "customers", "Employee": "Employees", "Product": "products", "Order": "orders",
    "OrderDetail": "Order Details", "Status": "statuses",
}  # fmt: skip


def schema(place: Any) -> Any:
    """Return all there is to know of a schema: what pg_dump writes; SQLite's own table and the file's header."""
    if place.dialect == "sqlite":
        pragmas = ("schema_version", "user_version", "application_id", "encoding", "auto_vacuum", "journal_mode")
        listed = place.run("SELECT type, name, tbl_name, rootpage, sql FROM sqlite_master ORDER BY rowid")
        return listed, [place.run(f"PRAGMA {pragma}") for pragma in pragmas]
    program = Path(_installation.psql()).with_name("pg_dump")
    command = [str(program), "--schema-only", "--schema", place.settings["postgres_schema"], "-d", place.url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))]


def test_tables_of_others_become_models_and_what_cannot_is_named(either: Callable[..., DataFlow]) -> None:
    db = either(THEIRS)
    answer = db.register_schema_as_models()
    assert answer["models"] == {model: MODELS[model] for model in answer["models"]}
    assert answer["models"].keys() == MODELS.keys()
    left_out = {"import_log", "customers.mood", "customers.mail", "customers.address", "products.tags"}
    kept = {"customers.mood", "products.tags"} if db.core.dialect.name == "postgresql" else set()
    assert answer["skipped"].keys() == left_out - kept
    assert set(db.get_spec("Customer").unique_keys) == {("customer_id",), ("vat",)}
    relations = {name: sorted(model.relations) for name, model in db.core.models.items()}
    assert relations == {
        "Customer": ["billing_customer_orders", "orders"],
        "Employee": ["employees", "orders", "reports_to_employee"],
        "Order": ["billing_customer", "customer", "employee_employee", "order_details"],
        "OrderDetail": ["order", "product"],
        "Product": ["order_details"],
        "Status": [],
    }


def run(db: DataFlow, node: str, /, **params: Any) -> dict[str, Any]:
    """Run one node as a workflow of its own."""
    builder = db.workflow()
    builder.add_node(node, "it", params)
    results, _ = LocalRuntime().execute(builder.build())
    return results["it"]


NEW: dict[str, list[dict[str, Any]]] = {
    "Customer": [
        {"customer_id": f"NEW{number}", "company": f"c{number}", "credit": Decimal("1.25"), "vat": f"v{number}"}
        for number in range(6)
    ],
    "Employee": [{"Last Name": f"n{number}", "HireDate": date(2025, 1, 31), "Photo": b"\0"} for number in range(6)],
    "Product": [{"product_id": 100 + number, "name": "p", "data": {"a": [number]}} for number in range(6)],
    "Order": [
        {"customer_id": "ALFKI", "employee": 1, "ordered": datetime(2025, 1, number, tzinfo=UTC), "freight": 0.5}
        for number in range(1, 7)
    ],
    "OrderDetail": [{"order_id": 2, "product_id": 200 + number, "quantity": 3} for number in range(6)],
    "Status": [{"code": f"s{number}", "label": "s"} for number in range(6)],
}
CHANGE: dict[str, dict[str, Any]] = {
    "Customer": {"credit": Decimal("7.5"), "active": False, "since": datetime(2020, 2, 29, 1, 2, 3, tzinfo=UTC)},
    "Employee": {"HireDate": None, "ReportsTo": 1, "Last Name": "x"},
    "Product": {"price": Decimal("2.5"), "stock": 4, "data": None},
    "Order": {"freight": 2.25, "ship_via": 5, "billing_customer_id": "AB"},
    "OrderDetail": {"discount": 0.25, "quantity": 8},
    "Status": {"label": None},
}


def holds(record: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Tell whether a record has all of the expected values."""
    return {name: record[name] for name in expected} == expected


@pytest.mark.parametrize("model", NEW)
def test_every_node_works_on_a_table_of_others(either: Callable[..., DataFlow], model: str) -> None:
    db = either(THEIRS)
    db.register_schema_as_models()
    if model == "OrderDetail":
        run(db, "ProductBulkCreateNode", _data=[{"product_id": 200 + number, "name": "p"} for number in range(9)])
    new, change = NEW[model], CHANGE[model]
    keys = db.get_spec(model).primary_key

    def key(record: dict[str, Any]) -> Any:
        found = tuple(record[name] for name in keys)
        return found[0] if len(found) == 1 else found

    before = run(db, f"{model}CountNode")["count"]
    made = run(db, f"{model}CreateNode", values=new[0])
    shown = {name: value for name, value in new[0].items() if name != "company"}  # their trigger changes that one
    assert holds(made, shown)
    assert holds(run(db, f"{model}ReadNode", id=key(made)), shown)
    assert holds(run(db, f"{model}UpdateNode", id=key(made), values=change), change)
    listed = run(db, f"{model}ListNode", filter=change, sort=[{keys[0]: 1}])
    assert key(made) in [key(record) for record in listed["records"]]
    numbers = run(db, f"{model}AggregateNode", aggregate={"n": {"$count": "*"}, "most": {"$max": keys[0]}})
    assert numbers["groups"][0]["n"] == before + 1
    if db.get_spec(model).fields[keys[0]].kept == "":
        record = {**new[1], **({keys[0]: 5_000} if keys[0] not in new[1] else {})}
        where = {name: record[name] for name in keys}
        assert holds(run(db, f"{model}UpsertNode", where=where, create=record), shown_of(record))
        assert holds(run(db, f"{model}UpsertNode", where=where, create=record, update=change), change)
    answer = run(db, f"{model}BulkCreateNode", _data=new[2:5], return_ids=True)
    assert answer["created"] == 3
    ids = answer["ids"]
    assert run(db, f"{model}BulkUpdateNode", _data=[{**named(keys, ids[0]), **change}])["updated"] == 1
    assert holds(run(db, f"{model}ReadNode", id=ids[0]), change)
    if db.get_spec(model).fields[keys[0]].kept == "":
        rows = [{**new[3], **named(keys, ids[1])}, {**new[5], **({keys[0]: 6_000} if keys[0] not in new[5] else {})}]
        upserted = run(db, f"{model}BulkUpsertNode", _data=rows)
        assert (upserted["created"], upserted["updated"]) == (1, 1)
    assert run(db, f"{model}DeleteNode", id=key(made))["deleted"] == 1
    deleted = run(db, f"{model}BulkDeleteNode", ids=ids, confirmed=True)
    assert deleted["deleted"] == 3
    assert not run(db, f"{model}ReadNode", id=ids[0])["found"]


def shown_of(record: dict[str, Any]) -> dict[str, Any]:
    """Return what a record shows: their trigger changes one column."""
    return {name: value for name, value in record.items() if name != "company"}


def named(keys: tuple[str, ...], key: Any) -> dict[str, Any]:
    """Return a key as a dict."""
    return dict(zip(keys, key if len(keys) > 1 else (key,), strict=True))


def test_related_records_come_along_and_orphans_are_no_error(either: Callable[..., DataFlow]) -> None:
    db = either(THEIRS)
    db.register_schema_as_models()
    (order,) = run(db, "OrderListNode", filter={"order_id": 1}, include=["customer", "order_details.product"])[
        "records"
    ]
    assert order["customer"]["customer_id"] == "ALFKI"
    assert [line["product"]["name"] for line in order["order_details"]] == ["Chai", "Chang"]
    assert run(db, "OrderListNode", filter={"customer.company": "SHORT"})["count"] == 1
    assert run(db, "OrderReadNode", id=2)["ship_via"] == 99
    boss = run(db, "EmployeeListNode", filter={"reports_to_employee.Last Name": "Davolio"})["records"]
    assert [record["Last Name"] for record in boss] == ["Fuller"]


def test_the_schema_is_the_same_afterwards(either: Any) -> None:
    either.run(THEIRS[either.dialect])
    before = schema(either)
    db = either("SELECT 1")
    db.register_schema_as_models()
    for model in ("Customer", "Status", "Order"):
        for record in NEW[model]:
            db.express_sync.create(model, record)
        db.express_sync.bulk_create(model, [], return_ids=True)
        db.express_sync.list(model)
    db.discover_schema()
    db.close()
    assert schema(either) == before
    assert either.run("SELECT count(*) FROM customers") == [(8,)]


def test_a_model_of_ones_own_whose_table_differs_is_refused_and_changes_nothing(either: Any) -> None:
    either.run(THEIRS[either.dialect])
    before = schema(either)
    db = either("SELECT 1")
    db.model(type("Status", (), {"__annotations__": {"code": str, "colour": str}, "__tablename__": "statuses",
                                 "__dataflow__": {"primary_key": ["code"], "timestamps": False}}))  # fmt: skip
    db.model(type("Missing", (), {"__annotations__": {"x": int}}))
    with pytest.raises(SchemaError, match="lacks colour"):
        db.express_sync.list("Status")
    with pytest.raises(DataFlowError, match="does not exist"):
        db.express_sync.list("Missing")
    db.close()
    assert schema(either) == before


def test_tables_of_others_stay_as_they_are_where_ones_own_are_made(either: Any) -> None:
    either.run(THEIRS[either.dialect])
    before = schema(either)
    db = either("SELECT 1", existing_schema_mode=False)
    db.register_schema_as_models(tables=["statuses", "customers"])
    db.model(type("Mine", (), {"__annotations__": {"x": int}}))
    db.express_sync.create("Mine", {"x": 1})
    db.express_sync.create("Status", {"code": "x"})
    db.close()
    after = schema(either)
    if either.dialect == "sqlite":
        assert after[0][: len(before[0])] == before[0]
    else:
        assert [line for line in before if line not in after] == []


# -- tables of others that models are laid upon ------------------------------------------------------------------------
UNDER = {
    "sqlite": """
CREATE TABLE st (id INTEGER PRIMARY KEY);
CREATE TABLE items (
    id INTEGER PRIMARY KEY, qty NUMERIC(10, 2) DEFAULT 1 CHECK (qty > 0), total AS (qty * 2), st INT REFERENCES st,
    label VARCHAR(20) CHECK (label <> ''), untyped);
INSERT INTO st VALUES (1);
INSERT INTO items (id, qty, st, label, untyped) VALUES (1, 3, 1, 'x', 'y');
CREATE VIEW seen AS SELECT id FROM items;
""",
    "postgresql": """
CREATE TABLE st (id integer PRIMARY KEY);
CREATE TABLE items (
    id integer PRIMARY KEY, qty numeric(10, 2) DEFAULT 1 CHECK (qty > 0),
    total numeric GENERATED ALWAYS AS (qty * 2) STORED, st integer REFERENCES st,
    label varchar(20) CHECK (label <> ''), untyped text);
INSERT INTO st VALUES (1);
INSERT INTO items (id, qty, st, label, untyped) VALUES (1, 3, 1, 'x', 'y');
CREATE VIEW seen AS SELECT id FROM items;
""",
}


def laid_upon(either, model_name, table, **annotations):
    db = either("SELECT 1", existing_schema_mode=False)
    members = {"__annotations__": annotations, "__tablename__": table, "__dataflow__": {"timestamps": False}}
    db.model(type(model_name, (), members))
    return db


def test_what_others_have_made_of_a_table_stays_theirs_also_when_it_is_made_anew(either):
    either.run(UNDER[either.dialect])
    for kind in (float | None, int | None):
        db = laid_upon(either, "Item", "items", qty=kind, more=int | None)
        plan = db.core.schema_engine.plan_sync()
        kept = [note.partition(":")[0].partition(" ")[0] for note in plan.notes]
        assert {"items.total", "items.label", "items.untyped"} <= set(kept)
        assert asyncio.run(db.auto_migrate(auto_confirm=True, max_risk_level="HIGH"))[0]
        assert asyncio.run(db.auto_migrate(dry_run=True)) == (True, [])
        found = db.core.ask(db.core.schema_engine.editor.inspect(), write=True).tables["items"]
        kinds = sorted(constraint.kind for constraint in found.constraints)
        assert {"id", "qty", "total", "st", "label", "untyped", "more"} == set(found.columns)
        assert kinds.count("foreign key") == 1
        assert "check" in kinds


def test_a_view_cannot_follow_a_model(either):
    either.run(UNDER[either.dialect])
    db = laid_upon(either, "Seen", "seen", word=str)
    with pytest.raises(SchemaError, match="'seen' is a view"):
        asyncio.run(db.auto_migrate(dry_run=True))
