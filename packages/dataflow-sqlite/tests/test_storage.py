"""What stands in the file: tables that other tools understand, and comparisons that mean what Python's mean."""

import enum
import re
import sqlite3
from contextlib import closing
from datetime import date, datetime, time
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID, uuid4

import pytest

from dataflow import DataFlow, Factory, ForeignKey
from dataflow.errors import InputError, QueryError


class Color(enum.Enum):
    RED = "red"
    BLUE = "it's: blue"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.db"


def with_everything(db):
    @db.model
    class Owner:
        id: UUID = Factory(uuid4)
        name: str = "it's: 50%"

    @db.model
    class Sample:
        owner_id: Annotated[UUID, ForeignKey("Owner", on_delete="cascade")]
        order: int = 7
        ratio: float = 0.5
        text: str | None
        flag: bool = True
        raw: bytes = b"x'\0"
        moment: datetime | None
        day: date = date(2025, 1, 31)
        clock: time = time(12, 30)
        price: Decimal = Decimal("1.50")
        color: Color = Color.BLUE
        words: list[str] = Factory(list)
        document: Any = {"b": 1, "a": []}  # noqa: RUF012

        __indexes__ = [  # noqa: RUF012
            {"name": "uq_order", "fields": ["order"], "unique": True, "where": "flag = 1"},
            {"name": "ix_text", "fields": ["text", "created_at"]},
        ]

    @db.model
    class Pair:
        a: str
        b: int

        __dataflow__ = {"primary_key": ["a", "b"], "timestamps": False}  # noqa: RUF012
        __tablename__ = 'odd "name"'

    del Owner, Sample, Pair
    return db


NOW = """(strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000+00:00')"""
EXPECTED = f"""
CREATE INDEX "ix_text" ON "samples" ("text", "created_at")
CREATE TABLE "odd ""name\""" ( "a" TEXT NOT NULL, "b" INTEGER NOT NULL, PRIMARY KEY ("a", "b") ) STRICT
CREATE TABLE "owners" ( "id" TEXT NOT NULL, "name" TEXT DEFAULT 'it''s: 50%' NOT NULL,
 "created_at" TEXT DEFAULT {NOW} NOT NULL, "updated_at" TEXT DEFAULT {NOW} NOT NULL, PRIMARY KEY ("id") ) STRICT
CREATE TABLE "samples" ( "id" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, "owner_id" TEXT NOT NULL,
 "order" INTEGER DEFAULT 7 NOT NULL, "ratio" REAL DEFAULT (0.5) NOT NULL, "text" TEXT,
 "flag" INTEGER DEFAULT 1 NOT NULL, "raw" BLOB DEFAULT (X'782700') NOT NULL, "moment" TEXT,
 "day" TEXT DEFAULT '2025-01-31' NOT NULL, "clock" TEXT DEFAULT '12:30:00.000000' NOT NULL,
 "price" TEXT DEFAULT '1.5' NOT NULL, "color" TEXT DEFAULT 'it''s: blue' NOT NULL, "words" TEXT NOT NULL,
 "document" TEXT DEFAULT '{{"a":[],"b":1}}' NOT NULL, "created_at" TEXT DEFAULT {NOW} NOT NULL,
 "updated_at" TEXT DEFAULT {NOW} NOT NULL, CHECK (abs("ratio") <= 1.7976931348623157e308),
 CHECK ("flag" IN (0, 1)), CHECK ("color" IN ('red', 'it''s: blue')),
 CONSTRAINT fk_samples_owner_id FOREIGN KEY("owner_id") REFERENCES "owners" ("id") ON DELETE CASCADE ) STRICT
CREATE UNIQUE INDEX "uq_order" ON "samples" ("order") WHERE flag = 1
"""


def test_tables_are_written_like_this(path):
    with with_everything(DataFlow(f"sqlite:///{path}", disable={"migrations"})) as db:
        for model in ("Sample", "Pair"):
            db.express_sync.count(model)
    with closing(sqlite3.connect(path)) as raw:
        found = raw.execute("SELECT sql FROM sqlite_master WHERE name NOT LIKE 'sqlite%' ORDER BY name").fetchall()
        strict = dict(raw.execute("SELECT name, strict FROM pragma_table_list WHERE schema = 'main'").fetchall())
    assert "\n".join(re.sub(r"\s+", " ", sql) for (sql,) in found) == re.sub(r"\n ", " ", EXPECTED.strip())
    assert strict["samples"] == strict["owners"] == strict['odd "name"'] == 1


def test_values_stand_in_the_file_as_other_tools_expect_them(path):
    with with_everything(DataFlow(f"sqlite:///{path}")) as db:
        db.express_sync.create("Owner", {"id": UUID(int=10)})
        moment = datetime.fromisoformat("2025-06-01T12:00:00+02:00")
        db.express_sync.create(
            "Sample",
            {
                "owner_id": UUID(int=10), "moment": moment, "price": Decimal("1E+3"), "text": "é", "words": ["ä", '"'],
                "document": {"z": 1.0, "a": {"ü": None}},
            },
        )  # fmt: skip
    with closing(sqlite3.connect(path)) as raw:
        raw.row_factory = sqlite3.Row
        row = dict(raw.execute("SELECT * FROM samples").fetchone())
    assert row["owner_id"] == "00000000-0000-0000-0000-00000000000a"
    assert row["moment"] == "2025-06-01T10:00:00.000000+00:00"
    assert (row["day"], row["clock"]) == ("2025-01-31", "12:30:00.000000")
    assert (row["price"], row["flag"], row["color"]) == ("1000", 1, "it's: blue")
    assert (row["raw"], row["text"]) == (b"x'\0", "é")
    assert (row["words"], row["document"]) == ('["ä","\\""]', '{"a":{"ü":null},"z":1.0}')
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", row["created_at"])


def test_ids_are_never_used_again(path):
    for _ in range(2):
        with with_everything(DataFlow(f"sqlite:///{path}")) as db:
            owner = db.express_sync.create("Owner", {})["id"]
            first = db.express_sync.create("Sample", {"owner_id": owner})["id"]
            db.express_sync.delete("Sample", first)
            second = db.express_sync.create("Sample", {"owner_id": owner})["id"]
            assert second == first + 1
            db.express_sync.delete("Owner", owner)
            assert db.express_sync.count("Sample") == {"count": 0}  # the foreign key cascades
    with with_everything(DataFlow(f"sqlite:///{path}")) as db:
        owner = db.express_sync.create("Owner", {})["id"]
        assert db.express_sync.create("Sample", {"owner_id": owner, "id": 100})["id"] == 100
        assert db.express_sync.create("Sample", {"owner_id": owner, "order": 1})["id"] == 101


# -- comparisons ------------------------------------------------------------------------------------------------------
@pytest.fixture
def prices():
    with DataFlow(":memory:") as db:

        @db.model
        class Price:
            value: Decimal
            name: str = ""

        yield db


def listed(db, filter=None, **options):
    return [row["value"] for row in db.express_sync.list("Price", filter, **options)["records"]]


def test_decimals_are_ordered_and_compared_as_numbers_to_the_last_digit(prices):
    texts = ["10", "9", "-1", "-10", "0.1", "0.10000000000000000000000000001", "1E+30", "-0"]
    values = [Decimal(text) for text in texts]
    prices.express_sync.bulk_create("Price", [{"value": value} for value in values])
    assert listed(prices, sort="value") == sorted(values)
    assert listed(prices, sort="-value") == sorted(values, reverse=True)
    assert listed(prices, {"value": {"$gt": Decimal("0.1")}}, sort="value") == sorted(values)[4:]
    assert listed(prices, {"value": {"$between": [-1, 9]}}, sort="value") == sorted(values)[1:6]
    assert listed(prices, {"value": Decimal("10.000")}) == [Decimal(10)]
    assert listed(prices, {"value": Decimal("0.1")}) == [Decimal("0.1")]
    (group,) = prices.express_sync.aggregate(
        "Price", aggregate={name: {f"${name}": "value"} for name in ("min", "max", "sum", "avg", "count_distinct")}
    )["groups"]
    exact = Decimal("1000000000000000000000000000008.20000000000000000000000000001")
    assert group["sum"] == exact
    assert (group["min"], group["max"], group["count_distinct"]) == (Decimal(-10), Decimal("1E+30"), 8)
    assert group["avg"] == Decimal("1.25E+29")  # averages have 28 digits


def test_decimal_arithmetic_happens_in_the_database_and_is_exact(prices):
    key = prices.express_sync.create("Price", {"value": Decimal("0.1")})["id"]
    for change, expected in (
        ({"$inc": Decimal("0.2")}, "0.3"),
        ({"$multiply": Decimal("1E-20")}, "0.000000000000000000003"),
        ({"$dec": Decimal("0.000000000000000000003")}, "0"),
        ({"$inc": 3}, "3"),
        ({"$divide": Decimal(8)}, "0.375"),
        ({"$min": Decimal("0.25")}, "0.25"),
        ({"$max": Decimal(11)}, "11"),
        ({"$min": Decimal(9)}, "9"),
    ):
        row = prices.express_sync.update("Price", key, {"value": change})
        assert format(row["value"], "f") == expected, change


def test_a_regular_expression_means_the_same_as_in_the_filter_language_and_others_are_refused(prices):
    names = ["apple", "Apple pie", "pineapple", "", "naïve", "a\nb", "100%"]
    prices.express_sync.bulk_create("Price", [{"value": n, "name": name} for n, name in enumerate(names)])

    def found(condition):
        return [names[int(value)] for value in listed(prices, {"name": condition})]

    assert found({"$regex": "^apple$"}) == ["apple"]
    assert found({"$regex": r"\bapple\b"}) == ["apple"]
    assert found({"$iregex": r"\bapple\b"}) == ["apple", "Apple pie"]
    assert found({"$regex": r"^\w+$"}) == ["apple", "pineapple"]  # \w is ASCII on every database
    assert found({"$regex": "a.b"}) == []
    assert found({"$regex": "b$"}) == ["a\nb"]
    assert found({"$not": {"$regex": "a"}}) == ["Apple pie", "", "100%"]
    for pattern in ("(?=a)", r"(a)\1", "(", "a++"):
        with pytest.raises(InputError, match="name:"):
            found({"$regex": pattern})


def test_arithmetic_that_has_no_result_is_an_error_that_names_it_and_changes_nothing():
    with DataFlow(":memory:") as db:

        @db.model
        class Number:
            whole: int = 7
            real: float = 1e308
            exact: Decimal = Decimal("1E-16383")

        key = db.express_sync.create("Number", {})["id"]
        for change, error, message in (
            ({"whole": {"$divide": 2}}, QueryError, "not a whole number"),
            ({"whole": {"$inc": 2**63 - 1}}, QueryError, "does not fit in 64 bits"),
            ({"whole": {"$multiply": -(2**62)}}, QueryError, "does not fit in 64 bits"),
            ({"whole": {"$multiply": Decimal("0.5")}}, QueryError, "not a whole number"),
            ({"real": {"$multiply": 10.0}}, QueryError, "too large for a float"),
            ({"exact": {"$multiply": Decimal("0.1")}}, QueryError, "more digits than a database holds"),
        ):
            with pytest.raises(error, match=message):
                db.express_sync.bulk_update("Number", filter={}, update=change)
            row = db.express_sync.read("Number", key)
            assert (row["whole"], row["real"], row["exact"]) == (7, 1e308, Decimal("1E-16383"))


def test_a_sum_that_fits_no_float_is_an_error_not_infinity():
    with DataFlow(":memory:") as db:

        @db.model
        class Number:
            real: float

        db.express_sync.bulk_create("Number", [{"real": 1e308}] * 3)
        with pytest.raises(QueryError, match="too large for a float"):
            db.express_sync.aggregate("Number", aggregate={"sum": {"$sum": "real"}})
