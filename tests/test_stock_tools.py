"""Files written by us open in tools that know nothing of us."""

import shutil
import sqlite3
import subprocess
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated
from uuid import UUID

import pytest

from dataflow import DataFlow, ForeignKey


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@pytest.fixture
def file(tmp_path):
    with DataFlow(f"sqlite:///{tmp_path}/shop.db") as db:

        @db.model
        class Maker:
            name: str

        @db.model
        class Thing:
            maker_id: Annotated[int, ForeignKey("Maker", on_delete="cascade")]
            price: Decimal
            weight: float = 1.5
            colour: Colour = Colour.RED
            fragile: bool = False
            code: UUID | None = None
            day: date | None = None
            tags: list[str] = []  # noqa: RUF012
            extra: dict = {}  # noqa: RUF012
            note: str = "it's a: 'quoted' text"
            __indexes__ = ({"name": "idx_thing_price", "fields": ["price", "created_at"]},)

        db.express_sync.create("Maker", {"name": "Ünïcode & Co"})
        code = UUID("12345678-1234-5678-1234-567812345678")
        values = {
            "maker_id": 1,
            "price": Decimal("19.990"),
            "code": code,
            "day": date(2026, 1, 2),
            "extra": {"b": 1, "a": 2},
        }
        db.express_sync.create("Thing", values)
    return tmp_path / "shop.db"


def test_the_standard_library_reads_every_column(file):
    with closing(sqlite3.connect(file)) as connection:
        connection.row_factory = sqlite3.Row
        row = dict(connection.execute("SELECT * FROM things").fetchone())
    created = datetime.fromisoformat(row.pop("created_at"))
    assert created.tzinfo == UTC
    row.pop("updated_at")
    assert row == {
        "id": 1, "maker_id": 1, "price": "19.99", "weight": 1.5, "colour": "red", "fragile": 0,
        "code": "12345678-1234-5678-1234-567812345678", "day": "2026-01-02", "tags": "[]", "extra": '{"a":2,"b":1}',
        "note": "it's a: 'quoted' text",
    }  # fmt: skip


def test_rows_that_others_insert_get_defaults_timestamps_and_checks(file):
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("INSERT INTO things (maker_id, price) VALUES (1, '5')")
        with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
            connection.execute("INSERT INTO things (maker_id, price, colour) VALUES (1, '5', 'green')")
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute("INSERT INTO things (maker_id, price, weight) VALUES (1, '5', 'heavy')")
        connection.commit()
    with DataFlow(f"sqlite:///{file}") as db:

        @db.model
        class Thing:
            price: Decimal
            colour: Colour
            fragile: bool
            tags: list[str]
            note: str

        thing = db.express_sync.list("Thing", sort="-id", limit=1)["records"][0]
    assert thing["price"] == Decimal(5)
    assert thing["colour"] is Colour.RED
    assert (thing["fragile"], thing["tags"], thing["note"]) == (False, [], "it's a: 'quoted' text")
    assert abs((datetime.now(UTC) - thing["created_at"]).total_seconds()) < 60


def test_checks_of_the_file_pass_and_the_ddl_names_nothing_of_ours(file):
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        ddl = " ".join(row[0] for row in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"))
    assert "df_" not in ddl
    assert "STRICT" in ddl
    assert "ON DELETE CASCADE" in ddl


def test_the_sqlite3_shell_dumps_and_restores_the_file(file, tmp_path):
    shell = shutil.which("sqlite3")
    if shell is None:
        pytest.skip("the sqlite3 shell is not installed")
    dump = subprocess.run([shell, str(file), ".dump"], capture_output=True, text=True, check=True).stdout
    subprocess.run([shell, str(tmp_path / "copy.db")], input=dump, text=True, check=True)
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("SELECT price FROM things").fetchall() == [("19.99",)]
