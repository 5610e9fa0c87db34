"""Parameters that no node takes: each is refused with its reason, by build() or before the first statement."""

# ruff: noqa: E501  # a table reads best in rows

import pickle
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import IntEnum
from typing import Any

import pytest

from dataflow.errors import InputError, WorkflowBuildError, WorkflowExecutionError
from dataflow.runtime import LocalRuntime

FAR_EAST, FAR_WEST = timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))


class Level(IntEnum):
    HIGH = 9


@pytest.fixture
def yard(bench: Any) -> Any:
    @bench.db.model
    class Part:
        name: str
        count: int = 1
        weight: float = 1.0
        price: Decimal = Decimal(1)
        fine: bool = True
        made: datetime | None = None
        day: date | None = None
        photo: bytes | None = None
        notes: dict = {}  # noqa: RUF012
        tags: list[str] = []  # noqa: RUF012
        __indexes__ = [{"name": "uq_parts", "fields": ["name"], "unique": True}]  # noqa: RUF012

    @bench.db.model
    class Cell:
        row: int
        col: int
        text: str = ""
        __dataflow__ = {"primary_key": ["row", "col"]}  # noqa: RUF012

    bench.run("PartCreateNode", name="a")
    bench.run("CellCreateNode", row=1, col=1)
    return bench


ONE = {"id": 1}
ROWS = {"data": [{"name": "b"}]}
FAULTS: list[tuple[str, dict[str, Any], str]] = [
    # update operators
    ("PartUpdate", {**ONE, "values": {"$incr": {"count": 1}}}, "'$incr' is not an update operator; did you mean '$inc'?"),
    ("PartUpdate", {**ONE, "values": {"$explode": 1}}, "'$explode' is not an update operator"),
    ("PartUpdate", {**ONE, "count": {"$inc": 1, "$dec": 1}}, "count: one operator per field"),
    ("PartUpdate", {**ONE, "count": {"$inc": 1, "by": 1}}, "count: 'by' is not an update operator"),
    ("PartUpdate", {**ONE, "values": {"count": 1, "$inc": {"count": 1}}}, "count: the field is changed twice"),
    ("PartUpdate", {**ONE, "values": {"$inc": {"cuont": 1}}}, "model Part has no field 'cuont'; did you mean 'count'?"),
    ("PartUpdate", {**ONE, "fine": {"$max": True}}, "fine: $max needs an order, and the field is bool"),
    ("PartUpdate", {**ONE, "count": {"$inc": None}}, "count: $inc takes a value, got None"),
    ("PartUpdate", {**ONE, "count": {"$multiply": "2"}}, "count: $multiply takes a number, got str"),
    ("PartUpdate", {**ONE, "count": {"$inc": 1.5}}, "count: expected int, got float"),
    ("PartUpdate", {**ONE, "price": {"$inc": 0.1}}, "price: expected Decimal, got float"),
    ("PartUpdate", {**ONE, "weight": {"$inc": float("inf")}}, "weight: NaN and infinities cannot be stored"),
    ("PartUpdate", {**ONE, "tags": {"$append": 1}}, "tags: expected str, got int"),
    ("PartUpdate", {**ONE, "notes": {"$append": object()}}, "notes: object is not JSON"),
    ("PartUpdate", {**ONE, "name": {"$set": None}}, "name: None is not allowed"),
    ("PartUpdate", {**ONE, "values": {"id": 2}}, "id: the primary key of a record cannot be changed"),
    ("PartUpdate", {**ONE, "values": {3: 1}}, "model Part has no field 3"),
    ("PartCreate", {"values": {3: 1}}, "values: model Part has no field 3"),
    ("PartBulkCreate", {"data": [{3: 1}]}, "row 0: model Part has no field '3'"),
    ("PartList", {"filter": {3: 1}}, "3 is not a filter operator that can stand here"),
    ("PartUpsert", {"where": {3: 1}}, "model Part has no field 3"),
    # which record
    ("PartUpdate", {**ONE, "values": {"count": 1}, "fields": {"count": 1}}, "values and fields mean the same; both were given"),
    ("PartUpdate", {"conditions": {"id": 1}, "filter": {"id": 1}, "count": 1}, "conditions and filter mean the same"),
    ("PartUpdate", {**ONE, "count": 1, "values": {"count": 2}}, "count is given twice: at top level and in values"),
    ("PartUpdate", {**ONE, "count": 1, "raise_on_not_found": "yes"}, "raise_on_not_found takes True or False, got str"),
    ("CellRead", {"id": (1, 1), "row": 1, "col": 1}, "id and the key fields mean the same; both were given"),
    ("CellRead", {"id": 1}, "the key of Cell has 2 parts: row, col"),
    ("CellRead", {"id": {"row": 1}}, "the key of Cell is row, col; got row"),
    ("CellRead", {"id": {}}, "the key of Cell is row, col; got nothing"),
    ("CellRead", {"row": 1, "col": None}, "col is None; a key has a value"),
    ("CellRead", {"id": (1, {"$gt": 0})}, "col: expected int, got dict"),
    ("PartDelete", {"id": {"id": {"$gt": 0}}}, "id: expected int, got dict"),
    ("PartDelete", {"conditions": [1]}, "conditions takes a dict, got list"),
    # lists
    ("PartList", {"sort": 3}, "a sort is [{'field': 1 or -1}], ['-field'] or 'field'"),
    ("PartList", {"sort": ["name", "-name"]}, "sort: 'name' stands twice"),
    ("PartList", {"sort": "name", "order_by": "name"}, "sort and order_by mean the same; both were given"),
    ("PartList", {"fields": 3}, "fields takes a list of names, got int"),
    ("PartList", {"include": [3]}, "include takes a list of names, got list"),
    ("PartList", {"count_only": 1}, "count_only takes True or False, got int"),
    ("PartList", {"offset": -1}, "offset takes a whole number of at least 0, got -1"),
    ("PartList", {"limit": True}, "limit takes a whole number of at least 0, got bool"),
    ("PartList", {"cursor": 5, "limit": 1}, "the cursor is not one that a ListNode returned"),
    ("PartCount", {"filter": "name"}, "filter takes a dict, got str"),
    ("PartAggregate", {"aggregate": {"n": {"$count": "*"}}, "sort": 3}, "a sort is [{'field': 1 or -1}]"),
    # upserts
    ("PartUpsert", {"where": {}}, "upsert needs where"),
    ("PartUpsert", {"where": {"name": "a"}, "create": {"name": "b"}}, "name differs between where and create"),
    ("PartUpsert", {"where": {"name": None}}, "name is part of the unique key, and has no value"),
    ("PartUpsert", {"where": {"nmae": "a"}}, "model Part has no field"),
    ("PartUpsert", {"where": {"name": "b"}, "conflict_on": ["nmae"]}, "conflict_on: model Part has no field 'nmae'"),
    ("PartUpsert", {"where": {"name": "b"}, "create": {"cuont": 1}}, "create: model Part has no field 'cuont'"),
    ("PartUpsert", {"where": {"name": "b"}, "create": {"count": "x"}}, "count: expected int, got str"),
    ("PartUpsert", {"where": {"name": "a"}, "update": {"count": {"$inc": "x"}}}, "count: expected int, got str"),
    ("PartBulkUpsert", {"data": [{"name": "a"}], "key_fields": ["count"]}, "key_fields (count) is not a unique key of Part"),
    ("PartBulkUpsert", {"data": [{"name": 3}], "key_fields": ["name"]}, "row 0: name: expected str, got int"),
    ("PartBulkUpsert", {"data": [{"id": 1, "name": "a"}], "on_duplicate": "first"}, "on_duplicate is one of error, last"),
    # bulk
    ("PartBulkCreate", {**ROWS, "key_fields": ["name"]}, "key_fields goes with conflict_resolution='upsert'"),
    ("PartBulkCreate", {**ROWS, "conflict_resolution": "upsert", "on_error": "skip"}, "on_error works with"),
    ("PartBulkCreate", {**ROWS, "on_error": "ignore"}, "on_error is one of stop, skip, collect"),
    ("PartBulkCreate", {**ROWS, "return_ids": "all"}, "return_ids takes True or False, got str"),
    ("PartBulkCreate", {**ROWS, "commit_every": 0}, "commit_every takes a whole number of at least 1, got 0"),
    ("PartBulkCreate", {"data": "name"}, "data takes a list of dicts, got str"),
    ("PartBulkCreate", {"data": 3}, "data takes a list of dicts, got int"),
    ("PartBulkCreate", {**ROWS, "count": "x"}, "count: expected int, got str"),
    ("PartBulkUpdate", {**ROWS, "filter": {}}, "data was given together with filter, update or limit"),
    ("PartBulkUpdate", {"filter": {}, "update": {}}, "nothing to change"),
    ("PartBulkUpdate", {"filter": {}, "update": {"cuont": 1}}, "model Part has no field 'cuont'"),
    ("PartBulkUpdate", {"filter": {}, "update": {"count": "x"}}, "count: expected int, got str"),
    ("PartBulkUpdate", {"filter": {}, "update": 3}, "update takes a dict, got int"),
    ("PartBulkUpdate", {"data": 3}, "data takes a list of dicts, got int"),
    ("PartBulkUpdate", {"data": [{"name": "b"}] * 30}, "row 19: the key id is missing"),
    ("PartBulkDelete", {"ids": [1], "limit": 1}, "limit goes with filter, not with ids"),
    ("PartBulkDelete", {"ids": [None]}, "id is None; a key has a value"),
    ("PartBulkDelete", {"ids": ["1"]}, "id: expected int, got str"),
    ("PartBulkDelete", {"filter": {"id": 1}, "confirmed": "yes"}, "confirmed takes True or False, got str"),
    ("PartBulkDelete", {"filter": {"id": 1}, "ids": [1]}, "bulk_delete needs filter or ids, and not both"),
    # values
    ("PartCreate", {"name": "b", "weight": 10**400}, "weight: the integer is too large for a float"),
    ("PartCreate", {"name": "b", "price": Decimal("1e200000")}, "price: the Decimal has more digits than a database holds"),
    ("PartCreate", {"name": "b", "price": Decimal("sNaN")}, "price: NaN and infinities cannot be stored"),
    ("PartCreate", {"name": "b", "made": datetime(1, 1, 1, tzinfo=FAR_EAST)}, "made: the datetime is outside the years 1 to 9999"),
    ("PartCreate", {"name": "b", "made": datetime(9999, 12, 31, 23, tzinfo=FAR_WEST)}, "made: the datetime is outside"),
    ("PartCreate", {"name": "b", "day": datetime(2025, 1, 1, tzinfo=UTC)}, "day: expected date, got datetime; pass its .date()"),
    ("PartCreate", {"name": "b", "photo": "x"}, "photo: expected bytes, got str; encode it with .encode()"),
    ("PartCreate", {"name": "b", "notes": {"a": ["x", {"b": "\0"}]}}, "(at $.a[1].b)"),
    ("PartCreate", {"name": "b", "notes": {"\0": 1}}, "notes: text with a NUL character cannot be stored"),
    ("PartList", {"filter": {"day": "January"}}, "day: expected date, got text that is not ISO 8601"),
    # other nodes
    ("AsyncSQLDatabase", {"query": 3}, "the query is a str, got int"),
    ("AsyncSQLDatabase", {"query": "SELECT :a", "params": "x"}, "the placeholder :a has no value"),
    ("AsyncSQLDatabase", {"query": "SELECT 1", "params": 5}, "params is a dict or a list, got int"),
]  # fmt: skip


@pytest.mark.parametrize(("node", "params", "message"), FAULTS, ids=[f"{i}-{f[0]}" for i, f in enumerate(FAULTS)])
def test_a_faulty_parameter_is_refused_and_nothing_changes(yard: Any, node: str, params: Any, message: str) -> None:
    before = yard.sql("SELECT * FROM parts"), yard.sql("SELECT * FROM cells")
    with pytest.raises((WorkflowBuildError, WorkflowExecutionError)) as built:
        yard.run(f"{node}Node", params)
    assert message in str(built.value)
    with pytest.raises((WorkflowExecutionError, InputError)) as late:  # the same when the values come late
        yard.late(f"{node}Node", params)
    assert node == "PartUpsert" or message.partition(";")[0] in str(late.value)
    assert (yard.sql("SELECT * FROM parts"), yard.sql("SELECT * FROM cells")) == before


def test_a_scope_takes_only_its_own_options(yard: Any) -> None:
    for params, message in (
        ({"rollback_on_error": "no"}, "rollback_on_error is True or False"),
        ({"timeout": -1}, "timeout is a number of seconds above 0"),
        ({"timeout": True}, "timeout is a number of seconds above 0"),
        (
            {"isolation": "SERIALIZABLE"},
            "TransactionScopeNode takes no parameter 'isolation'; did you mean 'isolation_level'?",
        ),
    ):
        new = yard.db.workflow().add_node("TransactionScopeNode", "tx", params).add_node("PartListNode", "list")
        with pytest.raises(WorkflowBuildError) as caught:
            new.build()
        assert message in str(caught.value)


def test_rows_that_come_only_once_are_refused_in_a_workflow(yard: Any) -> None:
    with pytest.raises(WorkflowBuildError, match="which gives its rows only once"):
        yard.build("PartBulkCreateNode", {"data": iter([{"name": "b"}])})


def test_ints_of_other_classes_are_stored_as_ints(yard: Any) -> None:
    made = yard.run("PartCreateNode", name="b", count=Level.HIGH, notes={"level": Level.HIGH, "big": 1e300})
    assert (made["count"], type(made["count"]), made["notes"]["level"]) == (9, int, 9)
    assert made["notes"]["big"] == 1e300


def test_json_may_be_deep_but_not_bottomless(yard: Any) -> None:
    deep: Any = 1
    for _ in range(30):
        deep = [deep]
    assert yard.run("PartCreateNode", name="b", notes={"deep": deep})["notes"]["deep"] == deep
    for _ in range(2000):
        deep = [deep]
    with pytest.raises(WorkflowBuildError, match="nested more than"):
        yard.build("PartCreateNode", {"name": "c", "notes": {"deep": deep}})


def test_results_can_be_pickled_with_their_flags(yard: Any) -> None:
    result = pickle.loads(pickle.dumps(yard.run("PartReadNode", id=1)))
    assert result["_status"] == {"found": True}
    assert result["_result"]["name"] == "a"
    with pytest.raises(KeyError):
        result["nothing"]


def test_a_value_in_parameters_is_checked_before_the_node_runs(yard: Any) -> None:
    workflow = yard.build("PartCreateNode", {"name": "b"})
    with pytest.raises(WorkflowExecutionError, match="count: expected int, got str"):
        LocalRuntime().execute(workflow, parameters={"node": {"count": "7"}})
    assert yard.run("PartCountNode")["count"] == 1
