"""Arrow in and out: tables of pyarrow, pandas and polars are rows, and records are tables with the model's types."""

import datetime as dt
import subprocess
import sys
from decimal import Decimal
from enum import Enum
from typing import Any, ClassVar
from uuid import UUID

import pytest

from dataflow.arrow import schema, to_arrow
from dataflow.errors import InputError

pa = pytest.importorskip("pyarrow")


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Thing:
    __dataflow__: ClassVar = {"timestamps": False}

    name: str
    whole: int | None
    real: float | None
    flag: bool | None
    blob: bytes | None
    moment: dt.datetime | None
    day: dt.date | None
    clock: dt.time | None
    exact: Decimal | None
    key: UUID | None
    colour: Colour | None
    doc: Any | None
    tags: list[str] | None
    exacts: list[Decimal] | None


FULL = {
    "name": "a",
    "whole": -(2**63),
    "real": 0.1,
    "flag": True,
    "blob": b"\0\xff",
    "moment": dt.datetime(2020, 1, 1, 12, 0, 0, 1, tzinfo=dt.UTC),
    "day": dt.date(2020, 1, 1),
    "clock": dt.time(1, 2, 3, 4),
    "exact": Decimal("12.5"),
    "key": UUID(int=7),
    "colour": Colour.BLUE,
    "doc": {"a": [1, None, 0.5], "b": {"c": "d"}},
    "tags": ["x", ""],
    "exacts": [Decimal("1.25")],
}
NAMES = list(FULL)


@pytest.fixture
def things(bench):
    bench.db.model(Thing)
    return bench.db


def all_of(db):
    return db.express_sync.list("Thing", fields=NAMES)["records"]


def test_a_list_becomes_a_table_with_the_types_of_the_model_also_when_it_is_empty(things):
    spec = things.get_spec("Thing")
    empty = to_arrow(things.express_sync.list("Thing"), spec)
    things.express_sync.bulk_create("Thing", [FULL, {"name": "b"}])
    table = to_arrow(things.express_sync.list("Thing"), spec)
    assert table.schema == empty.schema == schema(spec)
    assert {field.name: str(field.type) for field in table.schema} == {
        "id": "int64",
        "name": "string",
        "whole": "int64",
        "real": "double",
        "flag": "bool",
        "blob": "binary",
        "moment": "timestamp[us, tz=UTC]",
        "day": "date32[day]",
        "clock": "time64[us]",
        "exact": "decimal128(38, 18)",
        "key": "string",
        "colour": "dictionary<values=string, indices=int32, ordered=0>",
        "doc": "string",
        "tags": "list<item: string>",
        "exacts": "list<item: decimal128(38, 18)>",
    }
    assert [field.nullable for field in table.schema][:3] == [False, False, True]
    assert pa.concat_tables([empty, table]).num_rows == 2


@pytest.mark.parametrize("operation", ["bulk_create", "bulk_upsert"])
def test_a_table_of_records_is_data_for_bulk_operations(things, operation):
    things.express_sync.bulk_create("Thing", [FULL, {"name": "b"}])
    before = things.express_sync.list("Thing")["records"]
    table = to_arrow(before, things.get_spec("Thing"))
    if operation == "bulk_create":
        things.express_sync.bulk_delete("Thing", filter={}, confirmed=True)
    report = things.express_sync.call(operation, "Thing", data=table)
    assert report["total"] == 2
    assert things.express_sync.list("Thing")["records"] == before


def test_rows_of_a_table_change_records(things):
    made = things.express_sync.bulk_create("Thing", [{"name": "a"}, {"name": "b"}], return_ids=True)
    table = pa.table({"id": made["ids"], "whole": [1, None], "colour": pa.array(["red", None]).dictionary_encode()})
    assert things.express_sync.bulk_update("Thing", data=table)["updated"] == 2
    assert [(r["whole"], r["colour"]) for r in all_of(things)] == [(1, Colour.RED), (None, None)]


def test_a_node_takes_a_table(bench):
    bench.db.model(Thing)
    result = bench.run("ThingBulkCreateNode", {"data": pa.table({"name": ["a", "b"]}), "return_ids": True})
    assert result["created"] == 2
    assert len(result["ids"]) == 2


@pytest.mark.parametrize("every", [None, 1, 3, 1000])
def test_a_stream_of_small_batches_is_read_in_order(things, every):
    texts = [pa.array([f"{i}.{j}" for j in range(i % 3)], pa.string()) for i in range(10)]
    batches = [pa.record_batch({"name": text}) for text in texts]
    reader = pa.RecordBatchReader.from_batches(batches[0].schema, batches)
    options = {} if every is None else {"commit_every": every}
    assert things.express_sync.bulk_create("Thing", reader, **options)["created"] == 9
    assert [r["name"] for r in all_of(things)] == [f"{i}.{j}" for i in range(10) for j in range(i % 3)]


def test_pandas_and_polars_frames_are_data_and_take_results(things):
    pd, pl = pytest.importorskip("pandas"), pytest.importorskip("polars")
    frame = pd.DataFrame(
        {"name": ["a", "b"], "real": [0.5, None], "colour": pd.Categorical(["red", None])}, index=[7, 9]
    )
    assert things.express_sync.bulk_create("Thing", frame)["created"] == 2
    frame = pl.DataFrame({"name": ["c"], "moment": [dt.datetime(2020, 1, 1, tzinfo=dt.UTC)], "doc": [{"a": 1}]})
    assert things.express_sync.bulk_create("Thing", frame)["created"] == 1
    rows = all_of(things)
    assert [row["real"] for row in rows] == [0.5, None, None]
    assert rows[0]["colour"] is Colour.RED
    assert rows[2]["moment"] == dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    assert rows[2]["doc"] == {"a": 1}
    table = to_arrow(rows, things.get_spec("Thing"))
    assert pl.DataFrame(table)["name"].to_list() == ["a", "b", "c"]
    assert list(table.to_pandas()["name"]) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("column", "field", "value"),
    [
        (pa.array([1], pa.uint8()), "whole", 1),
        (pa.array([1], pa.int32()), "real", 1.0),
        (pa.array([1], pa.int64()), "exact", Decimal(1)),
        (pa.array([1.5], pa.float32()), "real", 1.5),
        (pa.array([Decimal("1.10")], pa.decimal256(60, 4)), "exact", Decimal("1.1")),
        (pa.array([1_000], pa.timestamp("ns", "UTC")), "moment", dt.datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=dt.UTC)),
        (pa.array([0], pa.timestamp("s", "Asia/Tokyo")), "moment", dt.datetime(1970, 1, 1, tzinfo=dt.UTC)),
        (pa.array([0], pa.date64()), "day", dt.date(1970, 1, 1)),
        (pa.array([1], pa.time32("s")), "clock", dt.time(0, 0, 1)),
        (pa.array(["x"], pa.large_string()), "name", "x"),
        (pa.array([b"x"], pa.large_binary()), "blob", b"x"),
        (pa.array([[1, 2]], pa.list_(pa.int8())), "doc", [1, 2]),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), "doc", {"k": 1}),
        (pa.array(["00000000-0000-0000-0000-000000000007"]), "key", UUID(int=7)),
        (pa.array([None], pa.null()), "whole", None),
    ],
    ids=str,
)
def test_arrow_types_become_the_values_of_fields(things, column, field, value):
    columns = {"name": pa.array(["n"]), field: column}
    things.express_sync.bulk_create("Thing", pa.table(columns))
    assert all_of(things)[0][field] == value


@pytest.mark.parametrize(
    ("column", "field", "said"),
    [
        (pa.array([1], pa.timestamp("ns", "UTC")), "moment", "no exact form"),
        (pa.array([2**62], pa.timestamp("us", "UTC")), "moment", "no exact form"),
        (pa.array([2**63], pa.uint64()), "whole", "64 bits"),
        (pa.array([1.0]), "whole", "expected int, got float"),
        (pa.array(["2020-01-01"]), "moment", "expected datetime, got str"),
        (pa.array([float("nan")]), "real", "NaN"),
        (pa.array([1], pa.duration("us")), "clock", "expected time"),
        (pa.array(["green"]), "colour", "one of red, blue"),
        (pa.array([1]), "nam", "did you mean"),
    ],
    ids=str,
)
def test_what_a_field_does_not_take_is_refused_and_nothing_is_written(things, column, field, said):
    with pytest.raises(InputError, match=said):
        things.express_sync.bulk_create("Thing", pa.table({"name": pa.array(["n"]), field: column}))
    assert all_of(things) == []


def test_an_arrow_array_is_no_table(things):
    with pytest.raises(InputError, match="not a table"):
        things.express_sync.bulk_create("Thing", pa.array([1]))
    with pytest.raises(InputError, match="two columns"):
        things.express_sync.bulk_create("Thing", pa.Table.from_arrays([pa.array(["a"])] * 2, ["name", "name"]))


def test_decimals_beyond_the_type_are_refused_unless_they_are_text(things):
    spec = things.get_spec("Thing")
    rows = [{"name": "a", "exact": Decimal("0." + "1" * 30)}]
    with pytest.raises(InputError, match="decimal128"):
        to_arrow(rows, spec)
    assert str(to_arrow(rows, spec, decimals=(76, 38)).schema.field("exact").type) == "decimal256(76, 38)"
    table = to_arrow(rows, spec, decimals="text")
    things.express_sync.bulk_create("Thing", table)
    assert all_of(things)[0]["exact"] == rows[0]["exact"]
    with pytest.raises(InputError, match="did you mean 'exact'"):
        to_arrow(rows, spec, fields=["exat"])


def test_without_pyarrow_the_extra_is_named():
    code = """
import sys
sys.modules["pyarrow"] = None
from dataflow import DataFlow
from dataflow.errors import MissingCapability
db = DataFlow(":memory:")
@db.model
class Thing:
    name: str
class Table:
    def __arrow_c_stream__(self, requested_schema=None): ...
for call in (
    lambda: db.express_sync.bulk_create("Thing", Table()),
    lambda: __import__("dataflow.arrow").arrow.to_arrow([], db.get_spec("Thing")),
    lambda: __import__("dataflow.files").files.dump(db, "Thing", "x.parquet"),
):
    try:
        call()
    except MissingCapability as error:
        assert "workflow-dataflow-core[arrow]" in str(error), error
        assert "not on the public index" in str(error)
    else:
        raise SystemExit("nothing was refused")
db.close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
