"""DuckDB in a file passes the public conformance suites."""

import pytest

from dataflow.testing.conformance import *  # noqa: F403


@pytest.fixture(scope="module")
def database_url(tmp_path_factory):
    return f"duckdb:///{tmp_path_factory.mktemp('conformance')}/app.duckdb"
