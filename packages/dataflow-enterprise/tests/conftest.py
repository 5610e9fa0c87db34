"""Fixtures for the features' tests, which run on both databases."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from typing import Any

import pytest

from dataflow import DataFlow

_SCHEMAS = count()


class Opening:
    """Opens DataFlows on one empty place: a file of its own, or a schema."""

    def __init__(self, url: str, settings: dict[str, Any], stack: ExitStack, dialect: str) -> None:
        self.url = url
        self.settings = settings
        self.dialect = dialect
        self._stack = stack

    def __call__(self, **settings: Any) -> DataFlow:
        """Open one with more settings; it closes with the test."""
        return self._stack.enter_context(DataFlow(self.url, **{**self.settings, **settings}))


@pytest.fixture(params=["sqlite", "postgresql"])
def opening(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Callable[..., DataFlow]]:
    """What opens DataFlows on an empty place of each database."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            yield Opening(f"sqlite:///{tmp_path / 'app.db'}", {"sqlite_synchronous": "OFF"}, stack, "sqlite")
            return
        url = request.getfixturevalue("postgres_url")
        settings = {"postgres_schema": f"enterprise_{next(_SCHEMAS)}", "pool_size": 3}
        yield Opening(url, settings, stack, "postgresql")
