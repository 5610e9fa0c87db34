"""Every way to write asks the policy, on both databases, and a refusal leaves every table as it was."""

import asyncio
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from itertools import count
from typing import Annotated

import pytest

from dataflow import DataFlow
from dataflow.enterprise.protection import Protection, Rule, Window, policy_of
from dataflow.errors import DataFlowError, WorkflowBuildError, WorkflowExecutionError, WriteProtectedError
from dataflow.fields import ForeignKey
from dataflow.nodes import BaseDataFlowNode
from dataflow.nodes.sql import run_sql
from dataflow.operations import BY_NAME
from dataflow.runtime import LocalRuntime

DIALECTS = ("sqlite", "postgresql")
SCHEMAS = count()


class Shop:
    """Two items and a note in a database, and ways to reach them under a policy."""

    def __init__(self, url, options):
        self.url = url
        self.options = options
        with self.under(None) as open_shop:
            open_shop.express_sync.bulk_create("Item", [{"name": "ink", "price": 5}, {"name": "pen", "price": 7}])
            open_shop.express_sync.create("Note", {"text": "keep", "item_id": 1})

    @contextmanager
    def under(self, policy):
        with DataFlow(self.url, name="shop", protection=policy, **self.options) as db:

            @db.model
            class Item:
                name: str
                price: int = 0
                __indexes__ = [{"name": "uq_item", "fields": ["name"], "unique": True}]

            @db.model
            class Note:
                text: str
                item_id: int | None = None

            yield db

    def rows(self):
        with self.under(None) as db:
            return [db.express_sync.list(model)["records"] for model in ("Item", "Note")]


@pytest.fixture(params=DIALECTS)
def shop(request, tmp_path):
    if request.param == "sqlite":
        return Shop(f"sqlite:///{tmp_path}/shop.db", {"sqlite_synchronous": "OFF"})
    schema = f"shop_{next(SCHEMAS)}"
    return Shop(request.getfixturevalue("postgres_url"), {"postgres_schema": schema, "pool_size": 2})


HOWS = ("sync", "async", "workflow", "late")


@pytest.fixture(params=HOWS)
def how(request):
    return request.param


def call(db, how, operation, model, **params):
    """Carry out an operation; "late" gives the parameters to a workflow that is built already."""
    if how == "sync":
        return db.express_sync.call(operation, model, **params)
    if how == "async":
        return asyncio.run(db.express.call(operation, model, **params))
    node_type = f"{model}{BY_NAME[operation].suffix}"
    late = how == "late"
    with db.unlocked(reason="building is not the test") if late else nullcontext():
        workflow = db.workflow().add_node(node_type, "node", {} if late else params).build()
    try:
        results, _ = LocalRuntime().execute(workflow, parameters={"node": params} if late else {})
    except WorkflowExecutionError as error:
        raise error.__cause__ from None
    return results["node"]


WRITES = {
    "create": ("create", {"name": "nib", "price": 1}),
    "create, values": ("create", {"values": {"name": "gum", "price": 1}}),
    "create, chosen id": ("create", {"id": 99, "name": "wax", "price": 1}),
    "update": ("update", {"id": 1, "price": 6}),
    "update, nested": ("update", {"id": 1, "fields": {"price": 6}}),
    "update, operator": ("update", {"id": 1, "$inc": {"price": 1}}),
    "update by conditions": ("update", {"conditions": {"name": "ink"}, "price": 6}),
    "delete": ("delete", {"id": 1}),
    "delete by conditions": ("delete", {"conditions": {"name": "ink"}}),
    "upsert, new": ("upsert", {"where": {"name": "nib"}, "create": {"price": 1}}),
    "upsert, there": ("upsert", {"where": {"name": "ink"}, "create": {"price": 1}, "update": {"price": 6}}),
    "bulk create": ("bulk_create", {"data": [{"name": f"n{i}", "price": i} for i in range(10)]}),
    "bulk create, batches": (
        "bulk_create",
        {"data": [{"name": f"b{i}", "price": i} for i in range(9)], "batch_size": 2},
    ),
    "bulk create, commits": (
        "bulk_create",
        {"data": [{"name": f"c{i}", "price": i} for i in range(9)], "commit_every": 3},
    ),
    "bulk create, skip": ("bulk_create", {"data": [{"name": "ink", "price": 1}], "conflict_resolution": "skip"}),
    "bulk create, upsert": (
        "bulk_create",
        {"data": [{"name": "ink", "price": 9}], "conflict_resolution": "upsert", "key_fields": ["name"]},
    ),
    "bulk create, one by one": ("bulk_create", {"data": [{"name": "lead", "price": 3}, {}], "on_error": "collect"}),
    "bulk update": ("bulk_update", {"filter": {"price": {"$gt": 1}}, "update": {"price": 0}}),
    "bulk update, limit": ("bulk_update", {"filter": {"price": {"$gt": 1}}, "update": {"price": 0}, "limit": 1}),
    "bulk update, rows": ("bulk_update", {"data": [{"id": 1, "price": 0}, {"id": 2, "price": 1}]}),
    "bulk update, mixed rows": (
        "bulk_update",
        {"data": [{"id": 1, "price": {"$inc": 1}}, {"id": 2, "name": "xyz", "price": 3}]},
    ),
    "bulk delete": ("bulk_delete", {"filter": {"price": {"$gt": 1}}}),
    "bulk delete, ids": ("bulk_delete", {"ids": [1, 2]}),
    "bulk delete, limit": ("bulk_delete", {"filter": {"price": {"$gt": 1}}, "limit": 1}),
    "bulk upsert": ("bulk_upsert", {"data": [{"name": "ink", "price": 8}], "key_fields": ["name"]}),
    "bulk upsert, new": ("bulk_upsert", {"data": [{"name": "nib", "price": 8}], "key_fields": ["name"]}),
}
EVERY_LEVEL = {
    "global": {"global": {"deny": ["write"]}},
    "connection": {"connection": {"shop": {"deny": ["write"]}}},
    "model": {"model": {"Item": {"deny": ["write"]}}},
    "operation": {
        "operation": {"deny": ["create", "update", "delete"]},
    },
    "runtime": {"runtime": {"deny": True}},
}


@pytest.mark.parametrize("level", EVERY_LEVEL)
def test_no_way_to_write_gets_past_a_rule(shop, how, level):
    before = shop.rows()
    with shop.under(EVERY_LEVEL[level]) as db:
        for what, (operation, params) in WRITES.items():
            with pytest.raises(DataFlowError) as caught:
                call(db, how, operation, "Item", **params)
            error = caught.value
            if how == "workflow" and level != "runtime":
                assert isinstance(error, WorkflowBuildError), what
                assert {problem.code for problem in error.problems} == {"write-protected"}, what
                assert f"at level {level}" in str(error)
            else:
                assert isinstance(error, WriteProtectedError), (what, error)
                assert error.level == level
                assert error.where["model"] == "Item"
    assert shop.rows() == before


def test_the_field_level_refuses_what_writes_the_field_and_nothing_else(shop, how):
    before = shop.rows()
    with shop.under({"field": {"Item": {"price": {"deny": ["update"]}}}}) as db:
        for what, (operation, params) in WRITES.items():
            if operation in ("create", "delete", "bulk_delete"):
                continue
            if operation == "bulk_create" and params.get("conflict_resolution") != "upsert":
                continue
            with pytest.raises(DataFlowError) as caught:
                call(db, how, operation, "Item", **params)
            assert "[field.Item.price]" in str(caught.value), what
        assert shop.rows() == before
        assert call(db, how, "update", "Item", id=1, name="pencil")["updated"] == 1
        assert call(db, how, "create", "Item", name="nib", price=3)["price"] == 3
        assert call(db, how, "bulk_update", "Item", data=[{"id": 1, "name": "chalk"}])["updated"] == 1
        assert call(db, how, "delete", "Item", id=2)["deleted"] == 1
        assert call(db, how, "upsert", "Item", where={"name": "chalk"}, create={"price": 1}, update={})["price"] == 5


def test_other_models_and_reads_are_as_free_as_before(shop, how):
    with shop.under({"model": {"Item": {"deny": True}}}) as db:
        assert call(db, how, "create", "Note", text="new")["id"] == 2
        assert call(db, how, "bulk_delete", "Note", filter={"text": "new"})["deleted"] == 1
        assert call(db, how, "read", "Item", id=1)["name"] == "ink"
        assert call(db, how, "list", "Item", filter={"price": {"$gt": 5}})["count"] == 1
        assert call(db, how, "count", "Item")["count"] == 2
        assert call(db, how, "aggregate", "Item", aggregate={"n": {"$sum": "price"}})["groups"] == [{"n": 12}]
        assert (
            call(db, how, "bulk_delete", "Item", filter={"price": 5}, confirmation_required=True)["would_delete"] == 1
        )


@pytest.mark.parametrize(
    ("how", "level"),
    [
        *((how, "global") for how in HOWS),
        *(("sync", level) for level in ("connection", "model", "operation", "runtime", "field")),
    ],
)
def test_unlocked_calls_pass(shop, how, level):
    before = shop.rows()[0]
    policy = EVERY_LEVEL.get(level) or {"field": {"Item": {"price": {"deny": True}}}}
    with shop.under(policy) as db, db.unlocked(reason="a test"):
        for operation, params in WRITES.values():
            call(db, how, operation, "Item", **params)
        assert shop.rows()[0] != before
    with shop.under(policy) as db, pytest.raises(DataFlowError, match="write-protected"):
        call(db, how, "update", "Item", id=99, price=3)


def test_unlocking_holds_for_the_block_and_what_it_starts_only(shop):
    with shop.under({"global": {"deny": ["write"]}}) as db, shop.under({"global": {"deny": ["write"]}}) as other:

        async def both():
            async with db.unlocked(reason="a test"):
                await asyncio.create_task(db.express.update("Item", 1, {"price": 6}))
                with pytest.raises(WriteProtectedError):
                    await other.express.update("Item", 1, {"price": 7})
            with pytest.raises(WriteProtectedError):
                await db.express.update("Item", 1, {"price": 8})

        asyncio.run(both())
    assert [item["price"] for item in shop.rows()[0]] == [6, 7]


def test_a_workflow_built_unlocked_is_refused_when_it_runs(shop):
    with shop.under({"model": {"Item": {"deny": ["delete"]}}}) as db:
        with db.unlocked(reason="a test"):
            workflow = db.workflow().add_node("ItemDeleteNode", "node", {"id": 1}).build()
        with pytest.raises(WorkflowExecutionError) as caught:
            LocalRuntime().execute(workflow)
        assert isinstance(caught.value.__cause__, WriteProtectedError)
        assert len(shop.rows()[0]) == 2
        with db.unlocked(reason="a test"):
            results, _ = LocalRuntime().execute(workflow)
        assert results["node"]["deleted"] == 1


def test_a_refused_node_undoes_the_transaction_it_belongs_to(shop):
    before = shop.rows()
    with shop.under({"model": {"Item": {"deny": ["delete"]}}}) as db:
        builder = db.workflow().add_node("TransactionScopeNode", "scope")
        builder.add_node("NoteCreateNode", "note", {"text": "new"})
        builder.add_node("ItemDeleteNode", "delete", {})
        with db.unlocked(reason="a test"):
            workflow = builder.build()
        with pytest.raises(WorkflowExecutionError):
            LocalRuntime().execute(workflow, parameters={"delete": {"id": 1}})
    assert shop.rows() == before


def test_nodes_of_ones_own_and_streams_are_refused_too(shop):
    before = shop.rows()
    with shop.under({"model": {"Item": {"deny": ["write"]}}}) as db:

        @db.register_node
        class Sneak(BaseDataFlowNode):
            def run(self):
                return {"done": self.db.express_sync.update("Item", 1, {"price": 0})}

        with pytest.raises(WorkflowExecutionError, match="write-protected"):
            LocalRuntime().execute(db.workflow().add_node("Sneak", "node").build())

        async def rows():
            for i in range(3):
                yield {"name": f"n{i}"}

        with pytest.raises(WriteProtectedError):
            asyncio.run(db.express.bulk_create("Item", rows()))
        with pytest.raises(WriteProtectedError):
            asyncio.run(db.express.bulk_create("Item", rows(), commit_every=1))
    assert shop.rows() == before


def test_build_lists_every_refused_node_and_names_rule_and_field(shop):
    policy = {
        "model": {"Note": {"deny": ["delete"]}},
        "field": {"Item": {"price": {"deny": ["update"], "message": "no"}}},
    }
    with shop.under(policy) as db:
        builder = db.workflow().add_node("NoteDeleteNode", "a", {"id": 1})
        builder.add_node("ItemUpdateNode", "b", {"id": 1, "price": 3})
        builder.add_node("ItemUpdateNode", "c", {"id": 1, "name": "x"})
        builder.add_node("AsyncSQLDatabaseNode", "d", {"query": "DELETE FROM notes"})
        with pytest.raises(WorkflowBuildError) as caught:
            builder.build()
    assert [problem.where["node"] for problem in caught.value.problems] == ["a", "b", "d"]
    text = str(caught.value)
    assert 'delete of Note is write-protected at level model: [model.Note] deny = ["delete"]' in text
    assert 'update of Item.price is write-protected at level field: [field.Item.price] deny = ["update"] (no)' in text


def test_build_leaves_to_the_run_what_only_the_run_knows(shop):
    policy = {
        "default": "deny",
        "field": {"Item": {"price": {"allow": ["update"]}}},
        "runtime": {"allow": ["create"], "days": ["sun"]},
    }
    with shop.under(policy) as db:
        workflow = db.workflow().add_node("ItemUpdateNode", "node", {"id": 1}).build()
        LocalRuntime().execute(workflow, parameters={"node": {"price": 6}})
        with pytest.raises(WorkflowExecutionError, match='default = "deny"'):
            LocalRuntime().execute(workflow, parameters={"node": {"price": 6, "name": "x"}})
        db.workflow().add_node("ItemCreateNode", "node", {"name": "x"}).build()
        with pytest.raises(WorkflowBuildError, match='default = "deny"'):
            db.workflow().add_node("ItemDeleteNode", "node", {"id": 1}).build()


def test_a_policy_is_frozen_and_thawed_while_it_runs(shop, how):
    with shop.under({}) as db:
        policy = policy_of(db)
        call(db, how, "update", "Item", id=1, price=6)
        policy.freeze("moving house")
        with pytest.raises(WriteProtectedError, match="moving house") as caught:
            call(db, how, "update", "Item", id=1, price=7)
        assert (caught.value.level, caught.value.rule) == ("runtime", "policy.freeze(…)")
        assert db.health()["checks"]["protection"]["frozen"] == "moving house"
        with db.unlocked(reason="a test"):
            call(db, how, "update", "Item", id=1, price=8)
        policy.thaw()
        assert call(db, how, "update", "Item", id=1, price=9)["price"] == 9


def test_a_window_holds_when_the_call_is_made(shop, how):
    instants = [datetime(2026, 3, 1, 12, tzinfo=UTC)]
    rule = Rule("runtime", "deny", ["write"], window=Window(("sun",)))
    with shop.under(Protection("allow", [rule], clock=lambda: instants[0])) as db:
        with pytest.raises(WriteProtectedError, match="level runtime"):
            call(db, how, "delete", "Note", id=1)
        instants[0] = datetime(2026, 3, 2, 12, tzinfo=UTC)
        assert call(db, how, "delete", "Note", id=1)["deleted"] == 1


@pytest.mark.parametrize("how", ["sync", "workflow"])
@pytest.mark.parametrize(
    ("operation", "params"),
    [
        ("bulk_delete", {"filter": {"price": {"$gt": 1}}}),
        ("bulk_delete", {"ids": [1, 2]}),
        ("bulk_update", {"filter": {"price": {"$gt": 1}}, "update": {"price": 0}}),
        ("bulk_update", {"data": [{"id": 1, "price": 0}, {"id": 2, "price": 0}]}),
        ("update", {"conditions": {"price": {"$gt": 1}}, "price": 0}),
        ("delete", {"conditions": {"price": {"$gt": 1}}}),
    ],
)
def test_a_change_of_too_many_rows_is_undone(shop, how, operation, params):
    before = shop.rows()
    with shop.under({"model": {"Item": {"deny": ["update", "delete"], "max_rows": 1}}}) as db:
        with pytest.raises(WriteProtectedError, match="max_rows = 1"):
            call(db, how, operation, "Item", **params)
        assert shop.rows() == before
        with pytest.raises(WriteProtectedError, match="max_rows = 1"):
            run_sql(db, "DELETE FROM items", None)
        call(db, how, "update", "Item", id=1, price=6)
        assert call(db, how, "bulk_delete", "Item", filter={"price": 6})["deleted"] == 1


# -- what the database does because of a foreign key -------------------------------------------------------------------
@pytest.mark.parametrize(
    ("action", "rule", "refused"),
    [
        ("cascade", {"model": {"Child": {"deny": ["delete"]}}}, True),
        ("cascade", {"model": {"Grandchild": {"deny": ["delete"]}}}, True),
        ("cascade", {"model": {"Child": {"deny": ["update"]}}}, False),
        ("set null", {"field": {"Child": {"parent_id": {"deny": ["update"]}}}}, True),
        ("set null", {"model": {"Child": {"deny": ["delete"]}}}, False),
        ("restrict", {"model": {"Child": {"deny": True}}}, False),
    ],
)
def test_a_delete_that_reaches_protected_rows_is_refused(action, rule, refused):
    with DataFlow(":memory:", protection=rule) as db:

        @db.model
        class Parent:
            name: str

        @db.model
        class Child:
            parent_id: Annotated[int | None, ForeignKey("Parent", on_delete=action)] = None

        @db.model
        class Grandchild:
            child_id: Annotated[int | None, ForeignKey("Child", on_delete="cascade")] = None

        with db.unlocked(reason="set up"):
            db.express_sync.create("Parent", {"name": "a"})
        if refused:
            for operation, params in (("delete", {"id": 1}), ("bulk_delete", {"filter": {"name": "a"}})):
                with pytest.raises(WriteProtectedError, match="hild"):
                    db.express_sync.call(operation, "Parent", **params)
        else:
            assert db.express_sync.delete("Parent", 1)["deleted"] == 1


# -- tables ------------------------------------------------------------------------------------------------------------
def test_tables_are_not_made_where_ddl_is_denied(tmp_path):
    url = f"sqlite:///{tmp_path}/new.db"
    with DataFlow(url, protection={"global": {"deny": ["ddl"]}}) as db:

        @db.model
        class Item:
            name: str

        with pytest.raises(WriteProtectedError, match="the making of tables") as caught:
            db.express_sync.create("Item", {"name": "ink"})
        assert (caught.value.level, caught.value.rule) == ("global", '[global] deny = ["ddl"]')
        with pytest.raises(WriteProtectedError):
            db.express_sync.list("Item")
        assert db.show_tables() == []
        with db.unlocked(reason="the first start"):
            db.express_sync.count("Item")
        assert db.express_sync.create("Item", {"name": "ink"})["id"] == 1


def test_a_foreign_connection_is_refused_while_a_policy_lives(shop, tmp_path):
    foreign = {"connection_string": f"sqlite:///{tmp_path}/other.db", "query": "SELECT 1 AS n"}
    with shop.under({}) as db:
        with pytest.raises(WorkflowBuildError, match="allow_foreign_connections"):
            db.workflow().add_node("AsyncSQLDatabaseNode", "node", foreign).build()
        same = {"connection_string": shop.url, "query": "DELETE FROM items"}
        policy_of(db).freeze("a test")
        workflow = db.workflow().add_node("AsyncSQLDatabaseNode", "node", same).build()
        with pytest.raises(WorkflowExecutionError, match="write-protected"):
            LocalRuntime().execute(workflow)


def test_without_a_policy_nothing_watches():
    with DataFlow(":memory:") as db:

        @db.model
        class Item:
            name: str

        assert "protection" not in {feature.name for feature in db.core.models["Item"].features}
        assert "protection" not in {guard.name for guard in db.core.guards}
        assert policy_of(db) is None
        assert "protection" not in db.health()["checks"]


def test_a_refused_bulk_create_draws_no_ids(opening):
    db = opening(protection={"operation": {"deny": ["bulk_create"]}})

    @db.model
    class Memo:
        text: str

    x = db.express_sync
    assert x.create("Memo", {"text": "first"})["id"] == 1
    with pytest.raises(WriteProtectedError):
        x.bulk_create("Memo", [{"id": 50, "text": "chosen"}, {"text": "counted"}])
    assert x.create("Memo", {"text": "second"})["id"] == 2
