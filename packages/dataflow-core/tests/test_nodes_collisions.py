"""Fields with the names of options, flags and control inputs: the field wins, and an escape remains."""

from typing import Any

import pytest

from dataflow import DataFlow
from dataflow.errors import InputError, WorkflowBuildError, WorkflowExecutionError
from dataflow.runtime import LocalRuntime
from dataflow.workflow import WorkflowBuilder

NAMES = (
    "filter", "limit", "name", "data", "created", "found", "updated", "deleted", "result", "input", "database",
    "values", "fields", "sort", "order_by", "offset", "include", "conditions", "where", "create", "update",
    "ids", "count", "records", "record_id", "cursor", "aggregate", "group_by", "having", "total", "batch_size",
    "return_ids", "on_error", "key_fields", "conflict_on", "confirmed", "raise_on_not_found", "type", "model",
    "operation", "errors", "self", "class_", "from_", "select", "order", "group", "table", "keys", "items",
    "get",
)  # fmt: skip


@pytest.fixture
def odd(bench: Any) -> Any:
    """A model whose fields are called like everything else; all of them are texts."""
    model = type("Odd", (), {"__annotations__": dict.fromkeys(NAMES, str)})
    model.__module__ = __name__
    bench.db.model(model)
    return bench


ROW = {name: f"v-{name}" for name in NAMES}


def test_every_name_can_be_a_field_of_a_created_record(odd: Any) -> None:
    made = odd.run("OddCreateNode", ROW)
    assert {name: made[name] for name in NAMES} == ROW
    assert made["_status"] == {"created": True}
    assert made["_result"] is made
    assert odd.run("OddCreateNode", {"_values": ROW})["values"] == "v-values"


def test_flags_give_way_to_fields_and_stay_in_status(odd: Any) -> None:
    odd.run("OddCreateNode", ROW)
    read = odd.run("OddReadNode", id=1)
    assert (read["found"], read["_status"]) == ("v-found", {"found": True})
    changed = odd.run("OddUpdateNode", id=1, updated="changed", created="changed")
    assert (changed["updated"], changed["_status"]) == ("changed", {"updated": 1})
    again = odd.run("OddUpsertNode", where={"id": 1}, create=ROW, update={"created": "again"})
    assert (again["created"], again["_status"]) == ("again", {"created": False})
    gone = odd.run("OddDeleteNode", id=1)
    assert gone["_status"] == {"deleted": 1}
    missing = odd.run("OddReadNode", id=1)
    assert missing["_status"] == {"found": False}


def test_options_remain_under_an_underscore(odd: Any) -> None:
    rows = [{**ROW, "name": name} for name in ("a", "b", "c")]
    made = odd.run("OddBulkCreateNode", _data=rows, _return_ids=True, _batch_size=1)
    assert made["ids"] == [1, 2, 3]
    page = odd.run("OddListNode", filter={"name": {"$gt": "a"}}, sort="-name", limit=1)  # a list takes no fields
    assert [record["name"] for record in page["records"]] == ["c"]
    changed = odd.run("OddUpdateNode", _conditions={"name": "b"}, filter="changed", values="too")
    assert (changed["filter"], changed["values"], changed["name"]) == ("changed", "too", "b")
    changed = odd.run("OddUpdateNode", id=3, _values={"data": "x"})
    assert changed["data"] == "x"
    assert odd.run("OddUpdateNode", id=99, data="x")["_status"] == {"updated": 0}
    with pytest.raises(WorkflowExecutionError, match="no Odd with that key"):
        odd.run("OddUpdateNode", id=99, data="x", _raise_on_not_found=True)
    upserted = odd.run("OddBulkUpsertNode", _data=[{**ROW, "id": 2, "name": "B"}], _key_fields=["id"])
    assert upserted["updated"] == 1
    assert odd.run("OddBulkDeleteNode", filter={"name": "B"}, confirmed=True)["deleted"] == 1


def test_a_field_beside_data_is_a_default_even_when_it_is_called_data(odd: Any) -> None:
    rest = {name: ROW[name] for name in NAMES if name != "name"}
    odd.run("OddBulkCreateNode", {**rest, "_data": [{"name": "a"}, {"name": "b", "data": "own"}]})
    assert [record["data"] for record in odd.run("OddListNode")["records"]] == ["v-data", "own"]
    with pytest.raises(WorkflowBuildError, match="data: expected str, got list"):
        odd.build("OddBulkCreateNode", {"data": [{"name": "a"}]})
    with pytest.raises(InputError, match="required inputs have no value: _data of node 'node'"):
        odd.run("OddBulkCreateNode")
    with pytest.raises(InputError, match="this model has a field 'data', so pass the rows as _data="):
        odd.db.express_sync.call("bulk_create", "Odd")


def test_filters_aggregates_and_projections_reach_all_fields(odd: Any) -> None:
    odd.run("OddCreateNode", ROW)
    for name in NAMES:
        assert odd.run("OddCountNode", filter={name: f"v-{name}"}) == {"count": 1}
        assert odd.run("OddListNode", filter={name: "x"}, sort=[{name: -1}], fields=[name])["count"] == 0
        record = odd.run("OddListNode", fields=[name])["records"][0]
        assert record == {name: f"v-{name}"}
    groups = odd.run("OddAggregateNode", group_by=["count"], aggregate={"sum": {"$max": "total"}})
    assert groups == {"groups": [{"count": "v-count", "sum": "v-total"}]}


def test_express_takes_such_fields_too(odd: Any) -> None:
    x = odd.db.express_sync
    assert x.create("Odd", ROW)["filter"] == "v-filter"
    assert x.read("Odd", 1)["id"] == 1
    assert x.update("Odd", 1, {"values": "x", "fields": "y"})["values"] == "x"
    assert x.list("Odd", {"filter": "v-filter"}, limit=1)["count"] == 1
    assert x.bulk_create("Odd", [ROW, ROW])["created"] == 2
    assert x.bulk_upsert("Odd", [{**ROW, "id": 1}], key_fields=["id"])["updated"] == 1
    assert x.bulk_update("Odd", filter={"id": 2}, update={"update": "z"})["updated"] == 1
    assert x.bulk_delete("Odd", ids=[2, 3])["deleted"] == 2
    assert x.upsert("Odd", {"id": 1}, ROW, {"where": "w"})["where"] == "w"
    assert x.count("Odd", {"where": "w"})["count"] == 1
    assert x.delete("Odd", 1)["_status"] == {"deleted": 1}


def test_a_connection_into_a_field_called_input_carries_its_value(bench: Any) -> None:
    @bench.db.model
    class Cell:
        input: str
        result: str = "none"

    new = bench.db.workflow()
    new.add_node("CellCreateNode", "first", {"input": "start", "result": "done"})
    new.add_node("CellCreateNode", "second", {"result": "two"})
    new.add_connection("first", "result", "second", "input")  # the field, not the whole
    new.add_node("CellReadNode", "third", {"id": 2})
    new.add_connection("second", "_result", "third", "_after")
    results, _ = LocalRuntime().execute(new.build())
    assert results["second"]["input"] == "done"
    assert results["third"]["input"] == "done"


def test_result_and_input_order_and_hand_over_the_whole(bench: Any) -> None:
    @bench.db.model
    class Cell:
        name: str
        parent: dict = {}  # noqa: RUF012

    new = bench.db.workflow()
    new.add_node("CellListNode", "after", {})  # added first, run last
    new.add_node("CellCreateNode", "one", {"name": "one"})
    new.add_node("CellCreateNode", "two", {"name": "two"})
    new.add_connection("one", "result", "after", "input")
    new.add_connection("two", "_result", "after", "input")  # several may order one node
    new.add_connection("one", "_status", "two", "parent")
    results, _ = LocalRuntime().execute(new.build())
    assert list(results) == ["one", "two", "after"]
    assert results["after"]["count"] == 2
    assert results["two"]["parent"] == {"created": True}


def test_database_is_a_field_where_the_model_has_one_and_a_choice_elsewhere() -> None:
    with DataFlow(":memory:", name="one") as one, DataFlow(":memory:", name="two") as two:
        for db in (one, two):

            @db.model
            class Server:
                database: str

            @db.model
            class Plain:
                note: str

        new = WorkflowBuilder(one)
        new.add_node("ServerCreateNode", "field", {"database": "postgres"})
        new.add_node("ServerCreateNode", "other", {"database": "sqlite", "_database": "two"})
        new.add_node("PlainCreateNode", "plain", {"note": "x", "database": "two"})
        results, _ = LocalRuntime().execute(new.build())
        assert results["field"]["database"] == "postgres"
        assert one.express_sync.count("Server")["count"] == 1
        assert two.express_sync.count("Server", {"database": "sqlite"})["count"] == 1
        assert one.express_sync.count("Plain")["count"] == 0
        assert two.express_sync.count("Plain")["count"] == 1
        with pytest.raises(WorkflowBuildError, match="registered by several live instances"):
            WorkflowBuilder().add_node("ServerCreateNode", "x", {"database": "postgres"}).build()
