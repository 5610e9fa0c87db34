"""PostgreSQL passes the public conformance suites."""

import pytest

from dataflow.testing.conformance import *  # noqa: F403


@pytest.fixture(scope="module")
def database_url(postgres_url):
    return postgres_url
