"""The rows that are measured: two models of DataFlow's, and what the raw drivers need to do the same with them.

`Reading` has 10 columns (int, indexed int, unique text, text, float, bool, instant, JSON, two timestamps), as the table of
the measurements this project started from. `Item` has 8, with Decimal, and no timestamps.
"""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from dataflow import DataFlow

START = datetime(2024, 1, 1, tzinfo=UTC)
READING = ("id", "n", "code", "label", "value", "flag", "at", "data", "created_at", "updated_at")
ITEM = ("id", "n", "code", "value", "flag", "at", "data", "price")


def declare(db: DataFlow) -> None:
    """Register the models."""

    @db.model
    class Reading:
        n: int
        code: str
        label: str
        value: float
        flag: bool
        at: datetime
        data: dict[str, Any]
        __indexes__ = [
            {"name": "ix_readings_n", "fields": ["n"]},
            {"name": "uq_readings_code", "fields": ["code"], "unique": True},
        ]

    @db.model
    class Item:
        n: int
        code: str
        value: float
        flag: bool
        at: datetime
        data: dict[str, Any]
        price: Decimal
        __dataflow__ = {"timestamps": False}


def _document(i: int) -> dict[str, Any]:
    return {"kind": f"k{i % 7}", "size": i % 1000, "tags": ["a", "b", f"t{i % 13}"], "weight": i % 100 + 0.5}


def reading(i: int) -> dict[str, Any]:
    """Return row number `i`, without id and timestamps."""
    return {
        "n": i % 1000,
        "code": f"code-{i:08d}",
        "label": f"reading number {i}",
        "value": i * 0.25,
        "flag": i % 2 == 0,
        "at": START + timedelta(seconds=i),
        "data": _document(i),
    }


def item(i: int) -> dict[str, Any]:
    """Return row number `i` of the other model, without id."""
    found = reading(i)
    del found["label"]
    return {**found, "price": Decimal(i) / 100 + Decimal("0.01")}


# -- by hand, SQLite --------------------------------------------------------------------------------------------------
def text_of(value: datetime) -> str:
    """Write an instant as DataFlow stores it."""
    return value.isoformat(timespec="microseconds")


def sqlite_tuple(row: dict[str, Any], stamp: str) -> tuple[Any, ...]:
    """Encode a reading for sqlite3 as one would by hand."""
    return (
        row["n"],
        row["code"],
        row["label"],
        row["value"],
        int(row["flag"]),
        text_of(row["at"]),
        json.dumps(row["data"]),
        stamp,
        stamp,
    )


def sqlite_reading(row: tuple[Any, ...]) -> dict[str, Any]:
    """Decode a reading of sqlite3's as one would by hand."""
    record = dict(zip(READING, row, strict=True))
    record["flag"] = bool(record["flag"])
    record["data"] = json.loads(record["data"])
    for name in ("at", "created_at", "updated_at"):
        record[name] = datetime.fromisoformat(record[name])
    return record


def sqlite_item(row: tuple[Any, ...]) -> dict[str, Any]:
    """Decode an item of sqlite3's as one would by hand."""
    record = dict(zip(ITEM, row, strict=True))
    record["flag"] = bool(record["flag"])
    record["data"] = json.loads(record["data"])
    record["at"] = datetime.fromisoformat(record["at"])
    record["price"] = Decimal(record["price"])
    return record


# -- by hand, PostgreSQL ----------------------------------------------------------------------------------------------
def postgres_tuple(row: dict[str, Any], now: datetime) -> tuple[Any, ...]:
    """Encode a reading for asyncpg as one would by hand."""
    return (
        row["n"],
        row["code"],
        row["label"],
        row["value"],
        row["flag"],
        row["at"],
        json.dumps(row["data"]),
        now,
        now,
    )


def postgres_record(row: Any) -> dict[str, Any]:
    """Decode a row of asyncpg's as one would by hand."""
    record = dict(row)
    record["data"] = json.loads(record["data"])
    return record


def settled(record: dict[str, Any]) -> dict[str, Any]:
    """Bring a record into the form in which sides are compared: without what each call makes anew."""
    return {
        name: value
        for name, value in record.items()
        if name not in ("id", "created_at", "updated_at", "found", "updated", "created")
    }
