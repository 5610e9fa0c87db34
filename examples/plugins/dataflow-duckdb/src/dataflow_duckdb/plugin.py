"""The entry point: what this package offers, without importing it."""

from collections.abc import Iterable

from dataflow.plugins import DialectSpec, SettingSpec, hookimpl

dataflow_api = "1.0"

CAPABILITIES = {
    "decimal": "emulated: canonical text, compared by a key that a function of ours computes",
    "json": "emulated: JSON text; members are found and compared by functions of ours",
    "regex": "emulated: Python's re",
    "ilike": "emulated: Python's re",
    "aggregates": "emulated: Decimals are added by a function of ours",
    "exact_arithmetic": "emulated: Decimals, and fractions of integers, are computed by a function of ours",
    "upsert": "emulated: existing keys are looked up in the same transaction",
    "foreign_keys": "full: DuckDB checks each statement at once, and refuses more than it must",
    "foreign_key_actions": "unsupported: DuckDB knows neither CASCADE nor SET NULL; delete what refers to it first",
    "partial_indexes": "unsupported: DuckDB has no indexes with a predicate; make the key wider instead",
    "savepoints": "emulated: DuckDB has none; the transaction is rolled back, and what came before is done again",
    "isolation": "emulated: one transaction writes at a time, so each is serializable",
    "context": "unsupported: nothing in DuckDB would ask whom a connection serves",
    "read_only": "unsupported: DuckDB cannot refuse the writes of one statement; read the file with another tool",
    "confinement": "unsupported: DuckDB has neither users nor policies; give each tenant a file",
    "grants": "unsupported: DuckDB has no users",
    "change_log": "unsupported: DuckDB has no triggers; write the history in the application",
    "schema_editor": "unsupported: nobody has written one yet; change tables by hand",
    "many_processes": "unsupported: DuckDB lets one process have a file open",
    "concurrent_writers": "unsupported: one transaction writes at a time; others wait for it",
}


@hookimpl
def dataflow_dialects() -> Iterable[DialectSpec]:
    """Offer the dialect."""
    return [DialectSpec("duckdb", ("duckdb",), "dataflow_duckdb.dialect:DuckDB", CAPABILITIES)]


@hookimpl
def dataflow_settings() -> Iterable[SettingSpec]:
    """Declare the settings of the dialect."""
    doc = "Threads that DuckDB uses for a file; as many as there are cores where nothing is said."
    return [SettingSpec("duckdb_threads", int, None, doc, minimum=1)]
