"""Files in and out: what is dumped comes back exactly, bad rows are told and kept, and each row is loaded once."""

import csv
import gzip
import io
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from textwrap import dedent
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataflow import DataFlow, Factory
from dataflow.canonical import canonical_decimal, canonical_json
from dataflow.errors import DataFlowError, InputError, TenancyError
from dataflow.files import dump, load
from dataflow.files.places import FileError

FORMATS = ["csv", "jsonl", "parquet"]


class Colour(Enum):
    RED = "red"
    NONE = ""
    ODD = 'a,"b"'


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Everything:
    __dataflow__ = {"timestamps": False}

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
    datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.sampled_from([UTC, timezone(timedelta(hours=-9))])
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


@pytest.fixture
def everything(bench, tmp_path):
    bench.db.model(Everything)
    return bench.db


def all_of(db, model="Everything"):
    return db.express_sync.list(model)["records"]


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
