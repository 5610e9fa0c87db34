"""The pytest plugin: fixtures for tests that leave nothing behind, PostgreSQL databases, the conformance scorecard.

pytest imports this module and the scorecard at the start of every run, wanted or not: both must stay light, and import
no other module of DataFlow, which would then escape measurements of coverage. Fixtures import what they need.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from dataflow import DataFlow
    from dataflow.testing.server import Server
    from dataflow.testing.tdd import Measured, TestContext

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


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    text = "tdd(existing=False, **settings): tdd_dataflow starts empty, or sees what the database has; its settings"
    config.addinivalue_line("markers", text)


@pytest.fixture
def tdd_dataflow(request: pytest.FixtureRequest) -> "Iterator[DataFlow]":
    """A DataFlow in tdd mode: what the test writes, tables too, is gone when it ends.

    The database is that of ``TEST_DATABASE_URL``, else of ``DATABASE_URL``, else SQLite in memory. It starts empty: in
    memory, or in a schema of the test's own. With ``@pytest.mark.tdd(existing=True)`` it sees what the database has;
    other arguments of the marker are settings of the DataFlow. Those of outer markers (class, module) hold as well.
    """
    from dataflow.testing import tdd

    given: dict[str, Any] = {}
    for marker in reversed(list(request.node.iter_markers("tdd"))):
        given |= marker.kwargs
    opening = tdd.existing_dataflow if given.pop("existing", False) else tdd.empty_dataflow
    with opening(**given) as db:
        yield db


@pytest.fixture
def tdd_test_context(request: pytest.FixtureRequest, tdd_dataflow: "DataFlow") -> "TestContext":
    """The surroundings of a test: ``db``, ``test_id``, ``savepoint()``, ``count_queries(…)``."""
    from dataflow.testing.tdd import TestContext

    return TestContext(tdd_dataflow, request.node.nodeid)


@pytest.fixture
def tdd_models(tdd_dataflow: "DataFlow") -> SimpleNamespace:
    """Sample models on the test's DataFlow: ``User``, ``Product``, ``Order``, ``OrderItem``."""
    from dataflow.testing.tdd import sample_models

    return sample_models(tdd_dataflow)


@pytest.fixture
def tdd_performance_test(tdd_dataflow: "DataFlow") -> "Callable[..., AbstractContextManager[Measured]]":
    """Hold a ``with`` block to a budget: ``tdd_performance_test(max_ms=100, max_queries=3)``."""
    from dataflow.testing.tdd import measured

    return partial(measured, tdd_dataflow)
