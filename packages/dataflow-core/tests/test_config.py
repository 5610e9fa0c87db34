"""URLs and settings: what is tolerated, what is refused, where values come from, what is never shown."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dataflow import DataFlow
from dataflow.config import CORE_SETTINGS, Config, DatabaseURL, parse_url
from dataflow.errors import ConfigurationError, DatabaseTimeout, InputError, MissingCapability, NotYetAvailable


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name == "DATABASE_URL" or name.startswith("DATAFLOW_"):
            monkeypatch.delenv(name)


# -- URLs -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (":memory:", DatabaseURL("sqlite", ":memory:")),
        ("sqlite:///:memory:", DatabaseURL("sqlite", ":memory:")),
        ("sqlite://", None),
        ("sqlite:///", DatabaseURL("sqlite", ":memory:")),
        ("sqlite:///app.db", DatabaseURL("sqlite", "app.db")),
        ("sqlite:////var/app.db", DatabaseURL("sqlite", "/var/app.db")),
        ("SQLite:///My%20Data.db", DatabaseURL("sqlite", "My Data.db")),
        ("sqlite:///a.db?mode=ro", DatabaseURL("sqlite", "a.db", query=(("mode", "ro"),))),
        ("postgresql://h/d", DatabaseURL("postgresql", "d", "h")),
        ("postgres://u@h/d", DatabaseURL("postgres", "d", "h", user="u")),
        ("postgresql+asyncpg://u:p@h:5433/d?ssl=on", DatabaseURL(
            "postgresql+asyncpg", "d", "h", 5433, "u", "p", (("ssl", "on"),))),
        ("postgresql://u:p%40ss@h/d", DatabaseURL("postgresql", "d", "h", user="u", password="p@ss")),
        ("postgresql://u:p@ss#w?rd%@h/d", DatabaseURL("postgresql", "d", "h", user="u", password="p@ss#w?rd%")),
        ("postgresql://u:a:b@h/d", DatabaseURL("postgresql", "d", "h", user="u", password="a:b")),
        ("postgresql://u:100%@h/d", DatabaseURL("postgresql", "d", "h", user="u", password="100%")),
        ("postgresql://u:%ff@h/d", DatabaseURL("postgresql", "d", "h", user="u", password="%ff")),
        ("postgresql://u@[::1]:5432/d", DatabaseURL("postgresql", "d", "[::1]", 5432, "u")),
        ("postgresql://u@[::1]/d", DatabaseURL("postgresql", "d", "[::1]", None, "u")),
        ("postgresql:///d", DatabaseURL("postgresql", "d")),
    ],
)  # fmt: skip
def test_urls_are_read_with_tolerance(text: str, expected: DatabaseURL | None) -> None:
    if expected is None:
        with pytest.raises(ConfigurationError):
            parse_url(text)
    else:
        assert parse_url(text) == expected


@pytest.mark.parametrize(
    "text", ["app.db", "postgresql", "://h/d", "a b://h/d", "postgresql://h:port/d", "sqlite:/a.db"]
)
def test_what_is_no_url_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_url(text)
    assert caught.value.code == "bad-url"
    assert "write" in caught.value.hint


@pytest.mark.parametrize(
    "url", ["postgresql://ada:hunter2@h/d", "postgresql://ada:hunter2@@h:1/d", "postgresql://hunter2:@h/d"]
)
def test_a_password_is_never_shown(url: str) -> None:
    parsed = parse_url(url)
    if parsed.password:
        assert "hunter2" not in f"{parsed} {parsed!r}"
        assert ":***@" in str(parsed)
    config = Config({"a": 1}, frozenset(), parsed)
    assert "hunter2" not in repr(config) or parsed.user == "hunter2"
    with pytest.raises(MissingCapability) as caught:
        DataFlow(url, disable=["postgres"])
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "database"),
    [("sqlite:///dir/shop.v2.db", "shop.v2"), (":memory:", ":memory:"), ("postgresql://h/shop", "shop")],
)
def test_a_database_has_a_short_name(url: str, database: str) -> None:
    assert parse_url(url).database == database


def test_a_sqlite_url_is_relative_to_the_current_directory_or_absolute(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for url, file in (("sqlite:///sub/a.db", "sub/a.db"), (f"sqlite:///{tmp_path}/b.db", "b.db")):
        with DataFlow(url) as db:
            db.model(note())
            db.express_sync.create("Note", {"text": "x"})
        with closing(sqlite3.connect(tmp_path / file)) as raw:
            assert raw.execute("SELECT text FROM notes").fetchall() == [("x",)]


def test_the_url_may_be_a_keyword_or_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with DataFlow(database_url="sqlite:///k.db") as db:
        assert db.config.url.path == "k.db"
    monkeypatch.setenv("DATABASE_URL", "sqlite:///env.db")
    with DataFlow() as db:
        assert db.config.url.path == "env.db"
    with DataFlow(":memory:") as db:
        assert db.config.url.path == ":memory:"


def test_without_a_url_data_go_to_a_file_and_it_is_said_once(tmp_path: Path) -> None:
    code = """
from dataflow import DataFlow
for _ in range(2):
    with DataFlow() as db:
        @db.model
        class Note:
            text: str
        print(db.express_sync.create("Note", {"text": "x"})["id"])
"""
    environment = {k: v for k, v in os.environ.items() if k != "DATABASE_URL"}
    for expected in ("1\n2\n", "3\n4\n"):  # the data survive the process
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, env=environment
        )
        assert done.stdout == expected
        assert done.stderr == f"dataflow: no DATABASE_URL, so data is kept in {tmp_path / 'dataflow.db'}\n"


def test_a_memory_database_is_one_for_each_instance_and_its_whole_life() -> None:
    with DataFlow(":memory:") as one, DataFlow("sqlite:///:memory:") as two:
        for db in (one, two):
            db.model(note())
        one.express_sync.create("Note", {"text": "x"})
        assert [db.express_sync.count("Note")["count"] for db in (one, two)] == [1, 0]


# -- settings ---------------------------------------------------------------------------------------------------------
def note() -> type:
    class Note:
        text: str
        at: datetime | None = None

    return Note


DOCUMENTED = {
    "pool_size": 25, "pool_max_overflow": 50, "pool_recycle": 3600, "pool_pre_ping": True, "echo": False,
    "pool_reset_on_return": "commit", "monitoring": True, "slow_query_threshold": 100, "bulk_batch_size": 500,
    "async_operations": True, "connection_pool_size": 50, "auto_migrate": True, "existing_schema_mode": False,
    "enable_model_persistence": True, "name": "primary", "query_cache_enabled": False, "cache_ttl": 300,
    "encryption_enabled": False, "encryption_key": None, "gdpr_compliance": False, "data_retention_days": None,
    "read_replica_enabled": False, "cache_backend": None, "tdd_mode": False,
}  # fmt: skip


def test_every_documented_setting_is_accepted() -> None:
    with DataFlow(":memory:", **DOCUMENTED) as db:
        assert db.config["pool_size"] == 50  # connection_pool_size is another name for it
        assert db.config["slow_query_threshold"] == 100.0
        assert isinstance(db.config["slow_query_threshold"], float)
        assert db.config["name"] == "primary"
        assert "name" in db.config.explicit
        assert "lock_timeout" not in db.config.explicit
        assert len(db.config) == len(set(db.config))


@pytest.mark.parametrize(
    "name", ["query_cache_enabled", "encryption_enabled", "gdpr_compliance", "read_replica_enabled"]
)
def test_a_setting_of_a_later_release_is_refused_not_ignored(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotYetAvailable, match=name):
        DataFlow(":memory:", **{name: True})
    monkeypatch.setenv(f"DATAFLOW_{name.upper()}", "1")
    with pytest.raises(NotYetAvailable, match=name):
        DataFlow(":memory:")
    monkeypatch.setenv(f"DATAFLOW_{name.upper()}", "off")
    DataFlow(":memory:").close()


@pytest.mark.parametrize(
    ("name", "value"),
    [("cache_ttl", 60), ("cache_backend", "redis://h"), ("encryption_key", "hunter2"), ("data_retention_days", 30)],
)
def test_another_value_than_the_default_is_refused_without_showing_it(name: str, value: Any) -> None:
    with pytest.raises(NotYetAvailable) as caught:
        DataFlow(":memory:", **{name: value})
    assert str(value) not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", True), ("TRUE", True), ("yes", True), ("on", True), ("0", False), ("No", False), ("", False)],
)
def test_flags_are_read_from_the_environment(text: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATAFLOW_MONITORING", text)
    with DataFlow(":memory:") as db:
        assert db.config["monitoring"] is expected
    with DataFlow(":memory:", monitoring=not expected) as db:  # a keyword wins
        assert db.config["monitoring"] is not expected


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [("BULK_BATCH_SIZE", "7", 7), ("LOCK_TIMEOUT", "1.5", 1.5), ("LOCK_TIMEOUT", "2", 2.0), ("NAME", "main", "main")],
)
def test_numbers_and_texts_are_read_from_the_environment(
    name: str, text: str, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"DATAFLOW_{name}", text)
    with DataFlow(":memory:") as db:
        assert db.config[name.lower()] == expected


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("MONITORING", "maybe"),
        ("BULK_BATCH_SIZE", "many"),
        ("BULK_BATCH_SIZE", "0"),
        ("LOCK_TIMEOUT", "x"),
        ("NAIVE_DATETIMES", "UTC"),
    ],
)
def test_a_variable_that_does_not_fit_is_named(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"DATAFLOW_{name}", text)
    with pytest.raises(ConfigurationError) as caught:
        DataFlow(":memory:")
    assert caught.value.where == {"variable": f"DATAFLOW_{name}"}


@pytest.mark.parametrize(
    ("name", "value"),
    [("auto_migrate", 1), ("auto_migrate", None), ("pool_size", "20"), ("pool_size", True), ("pool_size", 0),
     ("lock_timeout", -1), ("lock_timeout", True), ("lock_timeout", float("nan")), ("name", 3), ("echo", "yes"),
     ("async_operations", False)],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        DataFlow(":memory:", **{name: value})
    assert caught.value.code == "bad-setting"
    assert repr(name) in caught.value.message


def test_core_settings_are_documented_and_their_defaults_are_valid() -> None:
    for spec in CORE_SETTINGS:
        assert spec.doc.endswith(".")
        if spec.default is not None:
            assert isinstance(spec.default, spec.type)
            assert not spec.choices or spec.default in spec.choices
            assert spec.minimum is None or spec.default >= spec.minimum


def test_the_settings_of_an_instance_cannot_be_changed() -> None:
    with DataFlow(":memory:") as db:
        with pytest.raises(TypeError):
            db.config["echo"] = True  # type: ignore[index]
        assert repr(db.config) == f"<Config of sqlite:///:memory: ({len(db.config)} settings)>"
        assert repr(db) == "<DataFlow sqlite:///:memory: models=[]>"
    assert repr(db) == "<DataFlow sqlite:///:memory: models=[] closed>"


# -- what settings do -------------------------------------------------------------------------------------------------
def test_naive_datetimes_mean_what_the_setting_says() -> None:
    noon = datetime(2025, 7, 1, 12)  # noqa: DTZ001
    for setting, expected in (("local", noon.astimezone(UTC)), ("utc", noon.replace(tzinfo=UTC))):
        with DataFlow(":memory:", naive_datetimes=setting) as db:
            db.model(note())
            assert db.express_sync.create("Note", {"text": "x", "at": noon})["at"] == expected
            assert db.express_sync.count("Note", {"at": noon})["count"] == 1
    with DataFlow(":memory:", naive_datetimes="reject") as db:
        db.model(note())
        with pytest.raises(InputError, match="a datetime without offset is refused"):
            db.express_sync.create("Note", {"text": "x", "at": noon})
        aware = noon.replace(tzinfo=UTC)
        assert db.express_sync.create("Note", {"text": "x", "at": aware})["at"] == aware


def test_bulk_batch_size_is_the_rows_per_statement() -> None:
    with DataFlow(":memory:", bulk_batch_size=10, monitoring=True) as db:
        db.model(note())
        db.express_sync.count("Note")
        before = db.stats()["statements"]
        db.express_sync.bulk_create("Note", [{"text": "x"}] * 95)
        assert db.stats()["statements"] - before >= 10
        assert db.express_sync.count("Note")["count"] == 95


def test_lock_timeout_bounds_the_wait_for_the_writer(tmp_path: Path) -> None:
    with DataFlow("sqlite:///a.db", lock_timeout=0.05) as db:
        db.model(note())
        db.express_sync.create("Note", {"text": "x"})
        session = db.core.database.lease_blocking(write=True, holder="a long import")
        try:
            with pytest.raises(DatabaseTimeout, match=r"was not free within 0\.05 s; it is held by a long import"):
                db.express_sync.create("Note", {"text": "y"})
        finally:
            session.release_blocking()
        assert db.express_sync.create("Note", {"text": "y"})["id"] == 2


def test_busy_timeout_bounds_the_wait_for_other_processes(tmp_path: Path) -> None:
    with DataFlow("sqlite:///a.db", sqlite_busy_timeout=0.05) as db:
        db.model(note())
        db.express_sync.create("Note", {"text": "x"})
        with closing(sqlite3.connect("a.db", isolation_level=None)) as raw:
            raw.execute("BEGIN IMMEDIATE")
            with pytest.raises(DatabaseTimeout, match="another process holds the database's write lock"):
                db.express_sync.create("Note", {"text": "y"})
            raw.execute("ROLLBACK")
        assert db.express_sync.create("Note", {"text": "y"})["id"] == 2


@pytest.mark.parametrize("level", ["OFF", "NORMAL", "FULL", "EXTRA"])
def test_sqlite_synchronous_is_set_on_each_connection(level: str) -> None:
    with DataFlow("sqlite:///a.db", sqlite_synchronous=level) as db:
        new = db.workflow().add_node("AsyncSQLDatabaseNode", "sql", {
            "query": "PRAGMA synchronous", "validate_queries": False, "fetch_mode": "value"})  # fmt: skip
        from dataflow.runtime import LocalRuntime

        results, _ = LocalRuntime().execute(new.build())
        assert results["sql"]["result"]["data"] == ["OFF", "NORMAL", "FULL", "EXTRA"].index(level)
        assert db.health()["checks"]["database"]["synchronous"] == level
