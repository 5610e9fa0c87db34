"""The call shapes that the reference documents bind us to: a user of the original types these."""

from datetime import UTC, datetime, timedelta
from typing import Any, Dict, List, Optional  # noqa: UP035  # as the documents write them

import pytest

from dataflow import DataFlow
from dataflow.errors import (
    ConfigurationError,
    MissingCapability,
    NotYetAvailable,
    WorkflowBuildError,
    WorkflowExecutionError,
)
from dataflow.runtime import AsyncLocalRuntime, LocalRuntime
from dataflow.workflow import WorkflowBuilder


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """An empty database, on each dialect."""
    return f"sqlite:///{tmp_path}/app.db" if request.param == "sqlite" else request.getfixturevalue("postgres_database")


@pytest.fixture
def db(url):
    with DataFlow(url, auto_migrate=True, existing_schema_mode=False) as instance:
        yield instance


def run(workflow):
    with LocalRuntime() as runtime:
        return runtime.execute(workflow.build())[0]


def test_create_then_list_with_an_ordering_connection(db):
    @db.model
    class User:
        name: str
        email: str
        active: bool = True

    workflow = WorkflowBuilder()
    workflow.add_node("UserCreateNode", "create", {"name": "Alice", "email": "alice@example.com"})
    workflow.add_node("UserListNode", "list", {"filter": {"active": True}})
    workflow.add_connection("create", "result", "list", "input")
    results = run(workflow)
    assert results["create"]["id"] == 1
    assert [user["name"] for user in results["list"]["records"]] == ["Alice"]


def test_string_ids_stay_strings_by_id_record_id_and_conditions(db):
    @db.model
    class SsoSession:
        id: str
        user_id: str
        state: str = "active"

    key = "session-80706348-0456"
    workflow = WorkflowBuilder()
    workflow.add_node("SsoSessionCreateNode", "create", {"id": key, "user_id": "7"})
    workflow.add_node("SsoSessionReadNode", "by_id", {"id": key})
    workflow.add_node("SsoSessionReadNode", "by_record_id", {"record_id": key})
    workflow.add_node("SsoSessionReadNode", "by_conditions", {"conditions": {"id": key}, "raise_on_not_found": True})
    results = run(workflow)
    assert [results[n]["id"] for n in ("by_id", "by_record_id", "by_conditions")] == [key] * 3
    assert db.show_tables(use_real_inspection=True) == ["sso_sessions"]


def test_instances_are_isolated_and_deferred(url, tmp_path):
    with (
        DataFlow(database_url=url, auto_migrate=True) as dev,
        DataFlow(database_url=f"sqlite:///{tmp_path}/prod.db", auto_migrate=False, existing_schema_mode=True) as prod,
    ):

        @dev.model
        class DevModel:
            id: str
            name: str

        @prod.model
        class ProdModel:
            id: str
            name: str

        assert list(dev.models.keys()) == ["DevModel"]
        assert list(prod.models.keys()) == ["ProdModel"]
        assert list(tmp_path.iterdir()) == []  # registration touches no database
        assert dev.show_tables() == []


def test_operators_sorting_and_relations_of_the_query_examples(db):
    @db.model
    class Customer:
        email: str

    @db.model
    class Order:
        customer_id: int
        total: float = 0.0
        status: str = "pending"

    workflow = WorkflowBuilder()
    workflow.add_node("CustomerCreateNode", "customer", {"email": "boss@enterprise.com"})
    workflow.add_node("OrderCreateNode", "order", {"total": 250.0})
    workflow.add_connection("customer", "id", "order", "customer_id")
    workflow.add_node(
        "OrderListNode",
        "search",
        {
            "filter": {
                "status": {"$in": ["pending", "processing"]},
                "total": {"$gte": 100.0},
                "created_at": {"$gte": "2025-01-01"},
                "customer": {"email": {"$regex": ".*@enterprise.com"}},
            },
            "sort": [{"created_at": -1}],
            "limit": 100,
            "offset": 0,
        },
    )
    workflow.add_node("OrderListNode", "ordered", {"order_by": ["-created_at"], "limit": 10})
    workflow.add_node(
        "OrderAggregateNode",
        "analytics",
        {
            "group_by": ["status", "customer_id"],
            "aggregate": {
                "total_amount": {"$sum": "total"},
                "order_count": {"$count": "*"},
                "avg_order": {"$avg": "total"},
            },
            "having": {"total_amount": {"$gt": 100}},
        },
    )
    results = run(workflow)
    assert results["search"]["count"] == results["ordered"]["count"] == 1
    group = {"status": "pending", "customer_id": 1, "total_amount": 250.0, "order_count": 1, "avg_order": 250.0}
    assert results["analytics"]["groups"] == [group]


def test_bulk_nodes_take_the_documented_parameters(db):
    @db.model
    class Product:
        name: str
        price: float
        category: str = "electronics"
        __indexes__ = [{"name": "uq_product_name", "fields": ["name"], "unique": True}]  # noqa: RUF012

    rows = [{"name": "A", "price": 100.0}, {"name": "B", "price": 200.0}]
    workflow = WorkflowBuilder()
    workflow.add_node(
        "ProductBulkCreateNode",
        "import",
        {"data": rows, "batch_size": 1000, "conflict_resolution": "upsert", "return_ids": True},
    )
    workflow.add_node(
        "ProductBulkUpdateNode",
        "price_update",
        {"filter": {"category": "electronics"}, "update": {"price": {"$multiply": 0.5}}, "limit": 5000},
    )
    workflow.add_node("ProductBulkUpsertNode", "sync", {"data": rows[:1], "key_fields": ["name"]})
    workflow.add_node(
        "ProductBulkDeleteNode", "cleanup", {"filter": {"price": {"$gt": 1.0}}, "confirmation_required": True}
    )
    results = run(workflow)
    assert results["import"] == {"created": 2, "updated": 0, "skipped": 0, "total": 2, "ids": [1, 2]}
    assert results["price_update"]["updated"] == 2
    assert (results["sync"]["created"], results["sync"]["updated"]) == (0, 1)
    assert results["cleanup"] == {"deleted": 0, "confirmation_required": True, "would_delete": 2}


def test_the_order_items_example_takes_its_foreign_key_from_a_connection(db):
    @db.model
    class Order:
        customer_id: int
        total: float = 0.0

    @db.model
    class OrderItem:
        order_id: int
        product_id: int
        quantity: int
        price: float

    workflow = WorkflowBuilder()
    workflow.add_node("OrderCreateNode", "create", {"customer_id": 123})  # no customers row is needed
    items = [{"product_id": 1, "quantity": 2, "price": 50.00}]
    workflow.add_node("OrderItemBulkCreateNode", "add_items", {"data": items})
    workflow.add_connection("create", "id", "add_items", "order_id")
    run(workflow)
    assert db.express_sync.list("OrderItem")["records"][0]["order_id"] == 1


def test_arrays_and_json_are_values_not_text(db):
    @db.model
    class BlogPost:
        title: str
        tags: List[str] = []  # noqa: RUF012, UP006
        config: Dict[str, Any] = {}  # noqa: RUF012, UP006
        phone: Optional[str] = None  # noqa: UP045

    post = db.express_sync.create("BlogPost", {"title": "x", "tags": ["a"], "config": {"database": {"host": "h"}}})
    assert post["config"]["database"]["host"] == "h"
    assert post["tags"] == ["a"]
    assert post["phone"] is None


def test_native_datetimes_are_taken_and_texts_are_refused(db):
    @db.model
    class Task:
        due_date: datetime

    now = datetime.now(UTC)
    assert db.express_sync.create("Task", {"due_date": now})["due_date"] == now
    local = datetime.now()  # noqa: DTZ005  # naive means local time
    stored = db.express_sync.create("Task", {"due_date": local})["due_date"]
    assert abs(stored - now) < timedelta(minutes=1)
    with pytest.raises(WorkflowBuildError, match=r"due_date: expected datetime, got str; pass datetime.fromisoformat"):
        db.workflow().add_node("TaskCreateNode", "create", {"due_date": now.isoformat()}).build()


def test_templates_are_refused_with_the_connection_to_write(db):
    @db.model
    class Order:
        customer_id: int

    workflow = db.workflow()
    workflow.add_node("OrderCreateNode", "first", {"customer_id": 1})
    workflow.add_node("OrderCreateNode", "second", {"customer_id": "${first.id}"})
    with pytest.raises(WorkflowBuildError) as caught:
        workflow.build()
    assert 'workflow.add_connection("first", "id", "second", "customer_id")' in str(caught.value)


def test_the_transaction_scope_example_rolls_back(db):
    @db.model
    class Order:
        total: float

    workflow = db.workflow()
    workflow.add_node(
        "TransactionScopeNode",
        "atomic_operation",
        {"isolation_level": "READ_COMMITTED", "timeout": 10, "rollback_on_error": True},
    )
    workflow.add_node("OrderCreateNode", "first", {"total": 1.0})
    workflow.add_node("OrderReadNode", "missing", {"id": 99, "raise_on_not_found": True})
    with pytest.raises(WorkflowExecutionError):
        run(workflow)
    assert db.express_sync.count("Order")["count"] == 0


def test_the_manual_table_example_runs_ddl_on_purpose(url):
    workflow = WorkflowBuilder()
    query = "CREATE TABLE IF NOT EXISTS users (id INTEGER PRIMARY KEY, name VARCHAR(255) NOT NULL)"
    workflow.add_node(
        "AsyncSQLDatabaseNode", "create_table", {"connection_string": url, "query": query, "validate_queries": False}
    )
    run(workflow)
    with DataFlow(url) as db:
        assert db.show_tables() == ["users"]
        assert list(db.discover_schema(use_real_inspection=True)["users"]["columns"]) == ["id", "name"]


async def test_the_async_runtime_has_both_names(db):
    @db.model
    class User:
        name: str

    workflow = db.workflow().add_node("UserCreateNode", "create", {"name": "Ada"}).build()
    runtime = AsyncLocalRuntime()
    assert (await runtime.execute_async(workflow))[0]["create"]["id"] == 1
    assert (await runtime.execute_workflow_async(workflow))[0]["create"]["id"] == 2
    assert await db.initialize() is True


def test_documented_settings_are_accepted_or_refused_never_ignored(url):
    accepted = {
        "pool_size": 20, "pool_max_overflow": 30, "pool_recycle": 3600, "pool_pre_ping": True, "echo": False,
        "monitoring": True, "slow_query_threshold": 100, "pool_reset_on_return": "commit", "bulk_batch_size": 1000,
        "async_operations": True, "connection_pool_size": 50, "enable_model_persistence": True, "tdd_mode": False,
        "query_cache_enabled": False, "cache_ttl": 300, "encryption_enabled": False, "gdpr_compliance": False,
    }  # fmt: skip
    with DataFlow(url, **accepted) as db:
        assert db.config["slow_query_threshold"] == 100.0
        assert db.config["pool_size"] == 50
        assert db.health()["ok"] is True
    later = {
        "query_cache_enabled": True, "cache_ttl": 5, "encryption_enabled": True, "encryption_key": "from_env",
        "gdpr_compliance": True, "data_retention_days": 90, "read_replica_enabled": True, "cache_backend": "redis",
    }  # fmt: skip
    for name, value in later.items():
        with pytest.raises(NotYetAvailable):
            DataFlow(url, **{name: value})
    elsewhere = {"multi_tenant": True, "tenant_isolation": "strict", "audit_logging": True, "tenant_id_header": "X"}
    for name, value in elsewhere.items():
        with pytest.raises(ConfigurationError, match="enterprise"):
            DataFlow(url, disable={"enterprise"}, **{name: value})


@pytest.mark.parametrize("option", ["multi_tenant", "soft_delete", "versioned", "audit_log"])
def test_enterprise_options_are_refused_while_nobody_provides_them(url, option):
    with DataFlow(url, disable={"enterprise"}) as db, pytest.raises(MissingCapability, match=option):
        db.model(type("Order", (), {"__annotations__": {"total": float}, "__dataflow__": {option: True}}))


@pytest.mark.parametrize("node", ["TransactionManagerNode", "CDCListenerNode", "GDPRExportNode", "OrderAnalyticsNode"])
def test_nodes_of_later_releases_say_so(db, node):
    with pytest.raises(WorkflowBuildError, match="later release"):
        db.workflow().add_node(node, "x", {}).build()


@pytest.mark.parametrize("name", ["cache_key", "cache_ttl", "cache_invalidation", "read_preference"])
def test_node_options_of_later_releases_say_so(db, name):
    @db.model
    class User:
        name: str

    with pytest.raises(WorkflowBuildError, match="later release"):
        db.workflow().add_node("UserListNode", "x", {name: "y"}).build()


def test_a_postgresql_server_is_not_needed_before_the_database_is_used():
    pool = {
        "pool_size": 20, "pool_max_overflow": 30, "pool_recycle": 3600, "pool_pre_ping": True,
        "pool_reset_on_return": "commit",
    }  # fmt: skip
    with DataFlow("postgresql://user:pass@localhost/db", **pool) as db:

        @db.model
        class User:
            name: str

        assert db.list_models() == ["User"]
        assert "pass@" not in f"{db!r} {db.config.url} {db.config!r}"
        db.workflow().add_node("UserCreateNode", "create", {"name": "Ada"}).build()
