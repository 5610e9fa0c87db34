"""The entry point: what this package offers, without importing it."""

from collections.abc import Iterable

from dataflow.plugins import CommandSpec, SettingSpec, hookimpl

dataflow_api = "1.0"


@hookimpl
def dataflow_commands() -> Iterable[CommandSpec]:
    """Offer a PostgreSQL for those who have none."""
    return [CommandSpec("dev-pg", "Run a PostgreSQL server to develop with.", "dataflow.testing.dev_pg:dev_pg")]


@hookimpl
def dataflow_settings() -> Iterable[SettingSpec]:
    """Declare what the pytest fixtures read."""
    doc = "URL of a PostgreSQL server on which the pytest fixtures make databases, instead of starting one."
    return [SettingSpec("test_postgres", str, None, doc, scope="process")]
