"""Files in and out: what is dumped comes back exactly, bad rows are told and kept, and each row is loaded once."""

import asyncio
import csv
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataflow.errors import InputError
from dataflow.files import dump, load
from dataflow.files.places import FileError
from dataflow.testing.opening import opened

FORMATS = ["csv", "jsonl", "parquet"]


class Colour(Enum):
    RED = "red"
    NONE = ""
    ODD = 'a,"b"'


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Everything:
    __dataflow__: ClassVar = {"timestamps": False}

    id: int
    text: str
    text0: str | None
    whole: int | None
    real: float | None
    flag: bool | None
    data: bytes | None
    moment: datetime | None
    day: date | None
    clock: time | None
    exact: Decimal | None
    key: UUID | None
    colour: Colour | None
    level: Level | None
    doc: Any | None
    texts: list[str] | None
    wholes: list[int] | None
    exacts: list[Decimal] | None
    days: list[datetime] | None
    colours: list[Colour] | None


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8) | st.sampled_from(
    ["", " ", '"', '""', ",", "\n", "\r", "\r\n", "\\N", "NULL", "\ufeff", "007", "null", "a\nb", "=1+1", "\u2028", "'"]
)
decimals = st.decimals(allow_nan=False, allow_infinity=False) | st.builds(
    lambda digits, exponent: Decimal((0, tuple(digits), exponent)),
    st.lists(st.integers(0, 9), min_size=1, max_size=60),
    st.integers(-40, 40),
)
moments = st.datetimes(
    datetime.fromisoformat("0001-01-02"),
    datetime.fromisoformat("9999-12-30"),
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=-9))]),
)
floats = st.floats(allow_nan=False, allow_infinity=False)
documents = st.recursive(
    st.booleans() | st.integers() | floats | texts,
    lambda inner: st.lists(inner | st.none(), max_size=3) | st.dictionaries(texts, inner | st.none(), max_size=3),
    max_leaves=6,
)
maybe = {
    "text0": texts,
    "whole": st.integers(-(2**63), 2**63 - 1),
    "real": floats,
    "flag": st.booleans(),
    "data": st.binary(max_size=6),
    "moment": moments,
    "day": st.dates(),
    "clock": st.times(),
    "exact": decimals,
    "key": st.uuids(),
    "colour": st.sampled_from(Colour),
    "level": st.sampled_from(Level),
    "doc": documents,
    "texts": st.lists(texts, max_size=3),
    "wholes": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
    "exacts": st.lists(decimals, max_size=3),
    "days": st.lists(moments, max_size=2),
    "colours": st.lists(st.sampled_from(Colour), max_size=2),
}
records = st.lists(
    st.fixed_dictionaries({"text": texts, **{name: st.none() | kind for name, kind in maybe.items()}}), max_size=6
)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path, monkeypatch):
    """An empty place on each database, and an empty folder to work in."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yield from opened(request, tmp_path, "files")


@pytest.fixture
def everything(place):
    db = place()
    db.model(Everything)
    return db


def all_of(db):
    return db.express_sync.list(db.list_models()[0])["records"]


@pytest.mark.parametrize("form", FORMATS)
@settings(deadline=None, derandomize=True, database=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(rows=records)
def test_what_is_dumped_loads_as_exactly_the_same_records(everything, tmp_path, form, rows):
    db = everything
    db.express_sync.bulk_delete("Everything", filter={}, confirmed=True)
    db.express_sync.bulk_create("Everything", rows)
    before = all_of(db)
    path = tmp_path / f"all.{form}"
    assert dump(db, "Everything", path)["rows"] == len(rows)
    db.express_sync.bulk_delete("Everything", filter={}, confirmed=True)
    report = load(db, "Everything", path, restart=True)
    assert report.faults == []
    assert report.created == len(rows)
    assert all_of(db) == before


# -- CSV: text is never altered ---------------------------------------------------------------------------------------
class Note:
    __dataflow__: ClassVar = {"timestamps": False}
    __indexes__: ClassVar = [{"name": "uq_note_code", "fields": ["code"], "unique": True}]

    code: str
    text: str | None
    size: int = 7
    price: Decimal | None
    at: datetime | None
    flag: bool | None
    data: bytes | None


@pytest.fixture
def notes(place):
    db = place()
    db.model(Note)
    return db


def put(name, content):
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return name


def column(db, name):
    return [record[name] for record in all_of(db)]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("007", "007"),
        ("  a ", "  a "),
        ('" a"', " a"),
        ('"a ""b"" c"', 'a "b" c'),
        ('5" pipe', '5" pipe'),
        ('"x\ny"', "x\ny"),
        ('"x\r\ny"', "x\r\ny"),
        ('"x\ry"', "x\ry"),
        ('"\ufeff"', "\ufeff"),
        ('","', ","),
        ("", None),
        ('""', ""),
        ('"\'"', "'"),
        ("=1+1", "=1+1"),
        ("NULL", "NULL"),
        (r"\N", r"\N"),
        ("\u2028", "\u2028"),
        ("é", "é"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_text_in_csv_is_what_stands_between_the_separators(notes, cell, text, end):
    put("n.csv", f"\ufeffcode,text{end}a,{cell}{end}b,last")
    assert load(notes, "Note", "n.csv").rejected == 0
    assert column(notes, "text") == [text, "last"]


def test_an_empty_cell_is_null_else_the_default_else_empty_text(notes):
    put("n.csv", 'code,size,text\n,,\n"x",3,""\n')
    load(notes, "Note", "n.csv")
    assert column(notes, "code") == ["", "x"]
    assert column(notes, "size") == [7, 3]
    assert column(notes, "text") == [None, ""]


def test_values_are_read_by_their_fields(notes):
    put("n.csv", "code,size,price,at,flag,data\na, 12 ,1e2,2020-01-01T00:00+02:00,Yes,AQI=\nb,-0,0.10,2020-01-01,f,\n")
    report = load(notes, "Note", "n.csv")
    assert report.faults == []
    assert column(notes, "size") == [12, 0]
    assert column(notes, "price") == [Decimal(100), Decimal("0.1")]
    assert column(notes, "at") == [datetime(2019, 12, 31, 22, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC)]
    assert column(notes, "flag") == [True, False]
    assert column(notes, "data") == [b"\1\2", None]


@pytest.mark.parametrize(
    ("field", "cell"),
    [
        ("size", "1.0"),
        ("size", "1_000"),
        ("size", "٣"),
        ("size", "9223372036854775808"),
        ("size", "9" * 5000),
        ("price", "1,5"),
        ("price", "NaN"),
        ("at", "yesterday"),
        ("flag", "maybe"),
        ("data", "#"),
        ("text", "a\0b"),
        ("text", b"\xff"),
    ],
)
def test_a_cell_that_is_no_value_of_its_field_is_refused_and_kept_as_it_was(notes, field, cell):
    raw = cell if isinstance(cell, bytes) else cell.encode()
    row = b'x,"' + raw + b'"'
    put("n.csv", b"code," + field.encode() + b"\na,\n" + row + b"\r\nb,\n")
    report = load(notes, "Note", "n.csv")
    assert (report.rows, report.created, report.rejected) == (3, 2, 1)
    (fault,) = report.faults
    assert (fault["line"], fault["field"]) == (3, field)
    assert raw.decode("latin-1") not in fault["reason"] or len(raw) < 4
    kept = Path(report.reject_file).read_bytes()
    assert kept.startswith(b"_line,_field,_reason,code," + field.encode() + b"\n3,")
    assert kept.endswith(b"," + row + b"\r\n")


def test_refused_rows_load_after_correction(notes):
    put("n.csv", 'code,size,text\na,1,"x, ""y"""\nb,two,"z\nz"\nc,3\nd,4,"e"f\n')
    report = load(notes, "Note", "n.csv")
    assert [fault["line"] for fault in report.faults] == [3, 5, 6]
    assert report.created == 1
    text = Path("n.rejects.csv").read_text().replace("two", "2").replace("c,3\n", 'c,3,""\n').replace('"e"f', '"ef"')
    put("again.csv", text)
    report = load(notes, "Note", "again.csv")
    assert (report.created, report.faults) == (3, [])
    assert [(r["code"], r["size"], r["text"]) for r in all_of(notes)] == [
        ("a", 1, 'x, "y"'), ("b", 2, "z\nz"), ("c", 3, ""), ("d", 4, "ef"),
    ]  # fmt: skip


def test_rows_that_the_database_refuses_are_refused_rows_and_the_others_are_loaded(notes):
    rows = [f"{i % 90},{i}" for i in range(100)]
    put("n.csv", "code,size\n" + "\n".join(rows) + "\n")
    report = load(notes, "Note", "n.csv", batch_size=30)
    assert (report.rows, report.created, report.rejected) == (100, 90, 10)
    assert [fault["line"] for fault in report.faults] == list(range(92, 102))
    assert sorted(column(notes, "size")) == list(range(90))
    kept = list(csv.DictReader(io.StringIO(Path("n.rejects.csv").read_text())))
    assert [int(row["size"]) for row in kept] == list(range(90, 100))


def test_wrong_columns_are_told_together_and_nothing_is_written(notes):
    put("n.csv", "cod,size,size,colour\na,1,1,red\n")
    with pytest.raises(InputError) as caught:
        load(notes, "Note", "n.csv")
    codes = [problem.code for problem in caught.value.problems]
    assert codes == ["unknown-column", "duplicate-column", "unknown-column", "missing-column"]
    assert "did you mean 'code'?" in str(caught.value)
    assert all_of(notes) == []
    put("n.csv", "code,size,colour\na,1,red\n")
    assert load(notes, "Note", "n.csv", skip=["colour"]).created == 1


@pytest.mark.parametrize("content", ["", "\n\n", '"code\n'])
def test_a_file_without_a_heading_is_refused(notes, content):
    put("n.csv", content)
    with pytest.raises(InputError, match="heading"):
        load(notes, "Note", "n.csv")


def test_an_unknown_option_is_refused_with_the_one_that_was_meant(notes):
    with pytest.raises(InputError, match="did you mean 'on_error'"):
        load(notes, "Note", "n.csv", on_eror="stop")
    with pytest.raises(FileError, match="cannot be read"):
        load(notes, "Note", "n.csv")


def test_other_delimiters_encodings_and_packed_files(notes):
    put("n.csv", "code;text\na;\xe9\n".encode("latin-1"))
    load(notes, "Note", "n.csv", delimiter=";", encoding="latin-1")
    put("n.tsv", "code\ttext\nb\tx,y\n")
    load(notes, "Note", "n.tsv")
    put("n.csv.gz", gzip.compress(b"code,text\nc,z\n"))
    load(notes, "Note", "n.csv.gz")
    assert column(notes, "text") == ["é", "x,y", "z"]
    dump(notes, "Note", "o.csv.gz", fields=["code", "text"], sort="-code", delimiter=";")
    assert gzip.decompress(Path("o.csv.gz").read_bytes()).decode() == "code;text\nc;z\nb;x,y\na;é\n"


def test_a_column_alone_keeps_its_nulls(notes):
    notes.express_sync.bulk_create("Note", [{"code": c, "text": t} for c, t in [("a", None), ("b", ""), ("c", "x")]])
    dump(notes, "Note", "o.csv", fields=["text"])
    assert Path("o.csv").read_text() == 'text\n\n""\nx\n'
    put("p.csv", 'code\n""\nx\n')
    assert load(notes, "Note", "p.csv").created == 2


# -- JSON lines ----------------------------------------------------------------------------------------------------
def test_json_lines_are_read_by_their_fields_and_bad_ones_are_kept(notes):
    lines = [
        b'\xef\xbb\xbf{"code": "a", "price": 0.1, "at": "2020-01-01T00:00:00Z", "data": "AQI="}',
        b"",
        b'{"code": "b", "size": "3"}',
        b"{oops",
        b'{"code": "c", "price": "12.50", "text": null}',
        b'["d"]',
        b'{"text": "no code"}',
        b'{"code": "\xff"}',
        b'{"code": "e", "txt": 1}',
    ]
    put("n.jsonl", b"\r\n".join(lines))
    with pytest.raises(InputError, match="did you mean 'text'"):
        load(notes, "Note", "n.jsonl")
    assert all_of(notes) == []
    put("n.jsonl", b"\r\n".join(lines[:-1]))
    report = load(notes, "Note", "n.jsonl")
    assert (report.rows, report.created) == (7, 2)
    assert [fault["line"] for fault in report.faults] == [3, 4, 6, 7, 8]
    assert column(notes, "price") == [Decimal("0.1"), Decimal("12.5")]
    kept = [json.loads(line) for line in Path("n.rejects.jsonl").read_text().splitlines()]
    assert kept[0] == {"_line": 3, "_field": "size", "_reason": kept[0]["_reason"], "code": "b", "size": "3"}
    assert kept[1]["_text"] == "{oops"
    kept[0]["size"], kept[1]["_text"], kept[3]["code"] = 3, '{"code": "f"}', "g"
    put("again.jsonl", "\n".join(json.dumps(row) for row in (kept[0], kept[1], kept[3])))
    assert load(notes, "Note", "again.jsonl").created == 3


# -- upserts, dry runs, stopping -----------------------------------------------------------------------------------
@pytest.mark.parametrize("batch", [1, 2, 100])
def test_an_upsert_lets_later_rows_win_however_the_file_is_cut(notes, batch):
    notes.express_sync.create("Note", {"code": "a", "text": "old", "size": 1})
    rows = ['{"code": "a", "size": 2}', '{"code": "b", "text": "x"}', '{"code": "b", "size": 5}', '{"code": "b"}']
    put("n.jsonl", "\n".join(rows))
    report = load(notes, "Note", "n.jsonl", upsert="code", batch_size=batch)
    assert (report.created, report.updated, report.rejected) == (1, 3, 0)
    assert [(r["code"], r["text"], r["size"]) for r in all_of(notes)] == [("a", "old", 2), ("b", "x", 5)]


def test_an_upsert_needs_a_unique_key(notes):
    put("n.csv", "code,text\na,b\n")
    with pytest.raises(InputError, match="text"):
        load(notes, "Note", "n.csv", upsert=["text"])


def test_a_dry_run_tells_the_same_faults_and_writes_nothing(notes):
    put("n.csv", "code,size\na,1\nb,x\na,2\nc,3\n")
    dry = load(notes, "Note", "n.csv", dry_run=True)
    assert dry.status == "checked"
    assert [fault["line"] for fault in dry.faults] == [3]  # there is no table yet
    notes.express_sync.count("Note")
    dry = load(notes, "Note", "n.csv", dry_run=True)
    assert notes.express_sync.count("Note")["count"] == 0
    assert os.listdir() == ["n.csv"]
    wet = load(notes, "Note", "n.csv")
    assert (dry.faults, dry.created, dry.rejected) == (wet.faults, wet.created, wet.rejected)
    assert [fault["line"] for fault in wet.faults] == [3, 4]


def test_stopping_at_a_bad_row_loads_nothing(notes):
    put("n.csv", "code,size\n" + "".join(f"{i},{i}\n" for i in range(50)) + "x,y\n")
    with pytest.raises(InputError, match="1 bad rows") as caught:
        load(notes, "Note", "n.csv", on_error="stop", batch_size=10)
    assert caught.value.problems[0].where == {"line": 52}
    assert all_of(notes) == []
    put("n.csv", "code,size\nx,1\n")
    for status in ("loaded", "already-loaded"):
        assert load(notes, "Note", "n.csv", on_error="stop").status == status
    assert column(notes, "code") == ["x"]


def test_a_file_that_was_loaded_is_loaded_again_only_on_request(notes):
    put("n.jsonl", '{"code": "a"}\n')
    assert load(notes, "Note", "n.jsonl").created == 1
    os.rename("n.jsonl", "m.jsonl")
    again = load(notes, "Note", "m.jsonl")
    assert (again.status, again.created) == ("already-loaded", 1)
    with pytest.raises(InputError, match="no interrupted load"):
        load(notes, "Note", put("o.jsonl", '{"code": "b"}'), resume=True)
    notes.express_sync.bulk_delete("Note", filter={}, confirmed=True)
    assert load(notes, "Note", "m.jsonl", restart=True).status == "loaded"
    assert column(notes, "code") == ["a"]


def test_a_reject_file_that_is_there_is_never_overwritten(notes):
    put("n.rejects.csv", "mine")
    put("n.csv", "code\na\n")
    with pytest.raises(InputError, match="is there already"):
        load(notes, "Note", "n.csv")
    assert Path("n.rejects.csv").read_text() == "mine"
    assert load(notes, "Note", "n.csv", reject_file="other.csv").created == 1


def test_without_tables_of_the_framework_a_load_is_one_transaction(notes, place):
    notes.express_sync.create("Note", {"code": "a"})
    db = place(existing_schema_mode=True)
    db.model(Note)
    put("n.csv", "code\nb\na\nc\n")
    with pytest.raises(InputError, match="cannot be resumed"):
        load(db, "Note", "n.csv", resume=True)
    report = load(db, "Note", "n.csv", batch_size=1)
    assert (report.created, report.rejected) == (2, 1)
    assert "one transaction" in report.notes[0]
    assert db.core.ask(db.core.dialect.list_columns("dataflow_loads")) == []


# -- killed at any moment ---------------------------------------------------------------------------------------------
KILLED = """
import os, signal, sys
from dataflow import DataFlow
from dataflow.files import load, loading, rejects
from dataflow.files.journal import Journal

url, settings, point, left = sys.argv[1], eval(sys.argv[2]), sys.argv[3], int(sys.argv[4])

def dying(real, when):
    def wrapped(*args, **options):
        global left
        left -= 1
        if not left and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return real(*args, **options)
        finally:
            if not left and when == "after":
                os.kill(os.getpid(), signal.SIGKILL)
    return wrapped

owner, name, when = {
    "rejects": (rejects.Rejects, "write", "after"),
    "note": (Journal, "note", "before"),
    "claim": (Journal, "claim", "before"),
    "write": (loading._Loading, "_write", "before"),
    "commit": (loading._Loading, "_tell", "before"),
    "finish": (loading._Loading, "_finish", "after"),
}[point]
setattr(owner, name, dying(getattr(owner, name), when))
with DataFlow(url, **settings) as db:
    @db.model
    class Row:
        place: int
    load(db, "Row", "rows.csv", batch_size=10)
"""


@pytest.mark.parametrize(
    ("point", "left"),
    [
        ("claim", 1),
        ("write", 3),
        ("rejects", 1),
        ("rejects", 3),
        ("note", 4),
        ("commit", 1),
        ("commit", 4),
        ("finish", 1),
    ],
)
def test_a_load_that_is_killed_goes_on_and_each_row_is_loaded_or_refused_once(place, point, left):
    put("rows.csv", "place\n" + "".join(f"{i}\n" if i % 7 else f"x{i}\n" for i in range(45)))
    command = [sys.executable, "-c", KILLED, place.url, repr(place.settings), point, str(left)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    db = place()

    @db.model
    class Row:
        place: int

    report = load(db, "Row", "rows.csv", batch_size=10)
    assert (report.rows, report.created, report.rejected) == (45, 38, 7)
    assert report.status == ("already-loaded" if point == "finish" else "loaded")
    assert sorted(column(db, "place")) == [i for i in range(45) if i % 7]
    kept = list(csv.DictReader(io.StringIO(Path("rows.rejects.csv").read_text())))
    assert [row["place"] for row in kept] == [f"x{i}" for i in range(0, 45, 7)]
    assert load(db, "Row", "rows.csv").status == "already-loaded"


def test_a_load_that_is_killed_while_all_is_one_transaction_has_loaded_nothing(place):
    with place() as first:
        first.model(Note)
        first.express_sync.count("Note")
    put("rows.csv", "code\n" + "".join(f"{i}\n" for i in range(45)))
    code = KILLED.replace("class Row:\n        place: int", "class Note:\n        code: str").replace('"Row"', '"Note"')
    code = code.replace("    class Note:", '    class Note:\n        __dataflow__ = {"timestamps": False}')
    settings = {**place.settings, "existing_schema_mode": True}
    command = [sys.executable, "-c", code, place.url, repr(settings), "commit", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    db = place(existing_schema_mode=True)
    db.model(Note)
    assert all_of(db) == []
    assert load(db, "Note", "rows.csv").created == 45


def test_an_interrupted_load_goes_on_only_with_the_same_options_and_its_reject_file(notes):
    put("n.csv", "code,size\na,x\nb,1\nc,2\n")

    def stop(report):
        if report.rows == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(notes, "Note", "n.csv", batch_size=1, progress=stop)
    with pytest.raises(InputError, match="other options"):
        load(notes, "Note", "n.csv", upsert="code")
    os.rename("n.rejects.csv", "away")
    with pytest.raises(InputError, match="is gone"):
        load(notes, "Note", "n.csv")
    os.rename("away", "n.rejects.csv")
    report = load(notes, "Note", "n.csv", resume=True)
    assert (report.resumed_at, report.rows, report.created, report.rejected) == (2, 3, 2, 1)


def test_two_processes_that_load_one_file_write_no_row_twice(notes, place):
    put("n.csv", "code\n" + "".join(f"{i}\n" for i in range(30)))
    other = place()
    other.model(Note)

    def interfere(report):
        if report.rows == 10:
            load(other, "Note", "n.csv", batch_size=10)

    with pytest.raises(InputError, match="another process"):
        load(notes, "Note", "n.csv", batch_size=10, progress=interfere)
    assert len(all_of(notes)) == 30


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_parquet_goes_on_within_its_row_groups(notes, size):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(
        pa.table({"code": [str(i) for i in range(20)], "size": list(range(20))}), "n.parquet", row_group_size=6
    )

    def stop(report):
        if report.rows >= 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(notes, "Note", "n.parquet", batch_size=size, progress=stop)
    load(notes, "Note", "n.parquet", batch_size=size)
    assert column(notes, "size") == list(range(20))


# -- dumps ------------------------------------------------------------------------------------------------------------
def test_a_dump_takes_what_a_list_takes_and_leaves_nothing_half_written(notes):
    notes.express_sync.bulk_create("Note", [{"code": str(i), "size": i} for i in range(5)])
    assert dump(notes, "Note", "o.csv", filter={"size": {"$gte": 3}}, fields=["size"], sort=["-size"])["rows"] == 2
    assert Path("o.csv").read_text() == "size\n4\n3\n"

    def fail(rows):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        dump(notes, "Note", "o.csv", progress=fail)
    assert Path("o.csv").read_text() == "size\n4\n3\n"
    assert sorted(os.listdir()) == ["o.csv"]
    with pytest.raises(InputError, match="did you mean 'size'"):
        dump(notes, "Note", "o.csv", fields=["sze"])
    with pytest.raises(InputError, match="ending"):
        dump(notes, "Note", "o.txt")


def test_a_dump_is_one_snapshot(notes, place, monkeypatch):
    monkeypatch.setattr("dataflow.files.dumping.PAGE", 2)
    notes.express_sync.bulk_create("Note", [{"code": f"b{i}"} for i in range(5)])
    other = place()
    other.model(Note)
    seen = []

    async def write():
        await other.express.create("Note", {"code": "new"})
        await other.express.bulk_update("Note", filter={}, update={"size": 9})
        await other.aclose()

    def meanwhile(rows):
        if not seen:
            writer = threading.Thread(target=lambda: asyncio.run(write()))
            writer.start()
            writer.join()
        seen.append(rows)

    assert dump(notes, "Note", "o.csv", fields=["code", "size"], progress=meanwhile)["rows"] == 5
    assert "new" not in Path("o.csv").read_text()
    assert "9" not in Path("o.csv").read_text()
    assert len(all_of(notes)) == 6


def test_a_decimal_that_parquet_cannot_hold_makes_its_column_text(notes):
    pq = pytest.importorskip("pyarrow.parquet")
    notes.express_sync.create("Note", {"code": "a", "price": Decimal("1.5")})
    assert dump(notes, "Note", "o.parquet")["notes"] == []
    assert str(pq.read_schema("o.parquet").field("price").type) == "decimal128(38, 18)"
    notes.express_sync.create("Note", {"code": "b", "price": Decimal("0." + "1" * 50)})
    assert "price is text" in dump(notes, "Note", "o.parquet")["notes"][0]
    assert str(pq.read_schema("o.parquet").field("price").type) == "string"
