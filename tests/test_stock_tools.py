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
    with DataFlow(f"sqlite:///{file}", existing_schema_mode=True) as db:  # the model is only part of the table

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


def test_others_read_what_is_committed_and_write_while_the_instance_is_open(tmp_path):
    path = tmp_path / "live.db"
    with DataFlow(f"sqlite:///{path}") as db, closing(sqlite3.connect(path)) as other:

        @db.model
        class Item:
            name: str
            stock: int = 1

        db.express_sync.create("Item", {"name": "ours"})
        assert other.execute("SELECT name, stock FROM items").fetchall() == [("ours", 1)]
        with other:
            other.execute("INSERT INTO items (name) VALUES ('theirs')")
            other.execute("UPDATE items SET stock = stock + 1 WHERE name = 'ours'")
        rows = db.express_sync.list("Item")["records"]
        assert [(row["name"], row["stock"]) for row in rows] == [("ours", 2), ("theirs", 1)]
        assert db.express_sync.create("Item", {"name": "ours again"})["id"] == 3
        other.execute("VACUUM")
        other.execute("REINDEX")
        other.execute("ANALYZE")
        assert db.express_sync.count("Item", {"name": {"$startswith": "ours"}}) == {"count": 2}
        assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_plain_sql_sorts_filters_and_computes_on_what_we_store(file):
    """Dates as text sort by time, JSON opens with SQLite's own functions, Decimals are numbers in text."""
    with DataFlow(f"sqlite:///{file}") as db:

        @db.model
        class Event:
            at: datetime
            data: dict
            price: Decimal
            tags: list[int]

        instants = ["2025-06-01T12:00:00+05:30", "2025-06-01T07:00:00+00:00", "2025-06-01T00:00:00-10:00"]
        db.express_sync.bulk_create(
            "Event",
            [
                {
                    "at": datetime.fromisoformat(text),
                    "data": {"n": n, "é": [n]},
                    "price": Decimal(n) / 8,
                    "tags": [n, 9],
                }
                for n, text in enumerate(instants)
            ],
        )
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT json_extract(data, '$.n') FROM events ORDER BY at").fetchall() == [
            (0,),
            (1,),
            (2,),
        ]
        assert connection.execute("SELECT datetime(max(at)) FROM events").fetchone() == ("2025-06-01 10:00:00",)
        assert connection.execute("SELECT data ->> '$.é[0]' FROM events WHERE id = 3").fetchone() == (2,)
        assert connection.execute("SELECT sum(price) FROM events").fetchone() == (0.375,)
        values = connection.execute("SELECT value FROM events, json_each(tags) WHERE value <> 9 ORDER BY 1").fetchall()
        assert values == [(0,), (1,), (2,)]


def test_no_statement_of_ours_leaves_behind_what_needs_our_functions(file):
    """Indexes, checks, defaults and triggers of a file must work where our functions and collations are unknown."""
    with DataFlow(f"sqlite:///{file}", existing_schema_mode=True) as db:

        @db.model
        class Thing:
            price: Decimal
            tags: list[str]
            extra: dict

        db.express_sync.bulk_update("Thing", filter={"price": {"$gt": 1}}, update={"price": {"$multiply": Decimal(2)}})
        db.express_sync.update("Thing", 1, {"tags": {"$append": "new"}})
    with closing(sqlite3.connect(file)) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            connection.execute(f'SELECT * FROM "{table}"').fetchall()
        assert connection.execute("SELECT price, tags FROM things").fetchall() == [("39.98", '["new"]')]
        with connection:
            connection.execute("UPDATE things SET price = '1', fragile = 1")
            connection.execute("REINDEX")
            connection.execute("CREATE TABLE copy AS SELECT * FROM things")
            connection.execute("DELETE FROM makers")  # without foreign keys switched on, nothing cascades
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == [("things", 1, "makers", 0)]
        with connection:
            connection.execute("INSERT INTO makers (id, name) VALUES (1, 'back')")
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def test_a_backup_made_with_stock_means_is_a_database_of_ours(file, tmp_path):
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(tmp_path / "backup.db")) as target:
        source.backup(target)
    with DataFlow(f"sqlite:///{tmp_path}/backup.db", existing_schema_mode=True) as db:

        @db.model
        class Thing:
            price: Decimal
            day: date | None
            colour: Colour

        row = db.express_sync.read("Thing", 1)
        assert (row["price"], row["day"], row["colour"]) == (Decimal("19.99"), date(2026, 1, 2), Colour.RED)


def test_the_sqlite3_shell_shows_and_checks_the_file(file):
    shell = shutil.which("sqlite3")
    if shell is None:
        pytest.skip("the sqlite3 shell is not installed")
    queries = ["SELECT name FROM makers;", "PRAGMA integrity_check;", "PRAGMA foreign_key_check;"]
    commands = "\n".join([".tables", ".mode csv", *queries, ".lint fkey-indexes", ""])
    done = subprocess.run([shell, "-readonly", str(file)], input=commands, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    tables, name, check, *_ = done.stdout.splitlines()
    assert tables.split() == ["dataflow_models", "makers", "things"]
    assert (name, check) == ('"Ünïcode & Co"', "ok")


def test_pandas_reads_a_table(file):
    pandas = pytest.importorskip("pandas")
    with closing(sqlite3.connect(file)) as connection:
        frame = pandas.read_sql("SELECT * FROM things", connection, parse_dates=["created_at"])
    assert frame.loc[0, "price"] == "19.99"
    assert str(frame["created_at"].dt.tz) == "UTC"
