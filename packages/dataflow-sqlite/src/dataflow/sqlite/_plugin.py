"""The entry point: what this package offers, without importing it."""

from collections.abc import Iterable

from dataflow.plugins import DialectSpec, SettingSpec, hookimpl

dataflow_api = "1.0"


@hookimpl
def dataflow_dialects() -> Iterable[DialectSpec]:
    """Offer the SQLite dialect."""
    capabilities = {
        "returning": "full",
        "json": "full",
        "arrays": "emulated: JSON text",
        "decimal": "emulated: canonical text, compared by a collation",
        "regex": "emulated: Python's re behind REGEXP",
        "isolation": "emulated: every transaction is serializable",
        "concurrent_writers": "unsupported: SQLite has one writer; others wait for it",
    }
    return [DialectSpec("sqlite", ("sqlite",), "dataflow.sqlite.dialect:SQLite", capabilities)]


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
