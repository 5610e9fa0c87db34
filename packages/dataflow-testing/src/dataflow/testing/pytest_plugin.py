"""The pytest plugin: PostgreSQL databases as fixtures, and the scorecard of the conformance suites.

pytest imports this module and the scorecard at the start of every run, wanted or not: both must stay light, and import
no other module of DataFlow, which would then escape measurements of coverage. Fixtures import what they need.
"""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dataflow.testing.server import Server

pytest.register_assert_rewrite("dataflow.testing.conformance")
pytest_plugins = ["dataflow.testing.scorecard"]


@pytest.fixture(scope="session")
def postgres_server() -> "Iterator[Server]":
    """A PostgreSQL server for the whole session, started when a test first asks for it.

    It is an embedded `dataflow.testing.server.PostgresServer`; or, when the variable ``DATAFLOW_TEST_POSTGRES`` holds
    the URL of a server that runs already, an `ExistingServer` there.
    """
    from dataflow.testing.server import ExistingServer, PostgresServer

    url = os.environ.get("DATAFLOW_TEST_POSTGRES")
    with ExistingServer(url) if url else PostgresServer() as server:
        yield server


@pytest.fixture(scope="module")
def postgres_url(postgres_server: "Server") -> Iterator[str]:
    """The URL of an empty database that the tests of a module share."""
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture
def postgres_database(postgres_server: "Server") -> Iterator[str]:
    """The URL of an empty database for one test."""
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)
