"""The entry point: what this package offers, without importing it."""

from collections.abc import Iterable

from dataflow.plugins import DialectSpec, SettingSpec, hookimpl

dataflow_api = "1.0"


@hookimpl
def dataflow_dialects() -> Iterable[DialectSpec]:
    """Offer the SQLite dialect."""
    capabilities = {
        "bool": "emulated: 0 and 1, checked",
        "decimal": "emulated: canonical text, compared by a collation",
        "instants": "emulated: ISO 8601 text in UTC, of fixed width",
        "dates": "emulated: ISO 8601 text",
        "uuid": "emulated: canonical text",
        "json": "full",
        "arrays": "emulated: JSON text",
        "regex": "emulated: Python's re behind REGEXP",
        "ilike": "emulated: Python's re behind REGEXP",
        "aggregates": "emulated: integers are added in two halves, Decimals by a function of ours",
        "exact_arithmetic": "emulated: functions of ours",
        "returning": "full",
        "upsert": "emulated: existing keys are looked up in the same transaction",
        "isolation": "emulated: every transaction is serializable",
        "concurrent_writers": "unsupported: SQLite has one writer; others wait for it",
        "grants": "unsupported: a file has no users",
    }
    editor = "dataflow.sqlite.migration.editor:SQLiteEditor"
    return [DialectSpec("sqlite", ("sqlite",), "dataflow.sqlite.dialect:SQLite", capabilities, editor)]


@hookimpl
def dataflow_settings() -> Iterable[SettingSpec]:
    """Declare the settings of the SQLite dialect."""
    return [
        SettingSpec(
            "sqlite_synchronous", str, "NORMAL", "Durability of commits, as PRAGMA synchronous.",
            choices=("OFF", "NORMAL", "FULL", "EXTRA"),
        ),
        SettingSpec("sqlite_busy_timeout", float, 30.0, "Seconds to wait for other processes that write.", minimum=0),
    ]  # fmt: skip
