"""One empty place on each database, a file or a schema, and what opens DataFlows on it: for tests of plugins."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import count
from typing import Any

import pytest

from dataflow import DataFlow

_SCHEMAS = count()


class Opening:
    """Opens DataFlows on one empty place: a file of its own, or a schema.

    Attributes:
        url: of the database.
        settings: of every DataFlow that is opened.
        dialect: "sqlite" or "postgresql".
    """

    def __init__(self, url: str, settings: Mapping[str, Any], stack: ExitStack, dialect: str) -> None:
        self.url = url
        self.settings = settings
        self.dialect = dialect
        self._stack = stack

    def __call__(self, **settings: Any) -> DataFlow:
        """Open one with more settings; it closes with the test."""
        return self._stack.enter_context(DataFlow(self.url, **{**self.settings, **settings}))


def opened(request: pytest.FixtureRequest, folder: Any, prefix: str) -> Iterator[Opening]:
    """Yield an `Opening` on an empty place of the database that ``request.param`` names.

    Args:
        request: of a fixture with the parameters "sqlite" and "postgresql".
        folder: where a file may be created.
        prefix: what the schema's name begins with.
    """
    with ExitStack() as stack:
        if request.param == "sqlite":
            yield Opening(f"sqlite:///{folder / 'app.db'}", {"sqlite_synchronous": "OFF"}, stack, "sqlite")
            return
        url = request.getfixturevalue("postgres_url")
        settings = {"postgres_schema": f"{prefix}_{next(_SCHEMAS)}", "pool_size": 3}
        yield Opening(url, settings, stack, "postgresql")
