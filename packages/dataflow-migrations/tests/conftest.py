"""Databases that somebody else has made, for the tests of this package."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from itertools import count
from typing import Any

import pytest

from dataflow import DataFlow
from dataflow.testing.opening import Opening, opened

_SCHEMAS = count()


class Foreign:
    """An empty place of a database, changed past DataFlow.

    Attributes:
        url: of the database.
        settings: what a DataFlow needs to find the place.
        dialect: "sqlite" or "postgresql".
    """

    def __init__(self, url: str, settings: dict[str, Any], dialect: str, stack: ExitStack) -> None:
        self.url = url
        self.settings = settings
        self.dialect = dialect
        self._stack = stack

    def __call__(self, sql: str | Mapping[str, str], **settings: Any) -> DataFlow:
        """Run SQL (of each dialect), then open a DataFlow that changes no schema; it closes with the test."""
        self.run(sql if isinstance(sql, str) else sql[self.dialect])
        settings = {"existing_schema_mode": True, **self.settings, **settings}
        return self._stack.enter_context(DataFlow(self.url, **settings))

    def run(self, sql: str) -> list[Any]:
        """Run SQL with the bare driver; return the rows of a query."""
        if self.dialect == "sqlite":
            with sqlite3.connect(self.url.removeprefix("sqlite:///")) as connection:
                if sql.lstrip().upper().startswith(("SELECT", "PRAGMA")):
                    return connection.execute(sql).fetchall()
                connection.executescript(sql)
            connection.close()
            return []
        return asyncio.run(self._run(sql))

    async def _run(self, sql: str) -> list[Any]:
        import asyncpg

        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(f"SET search_path TO {self.settings['postgres_schema']}")
            if sql.lstrip().upper().startswith("SELECT"):
                return [tuple(row) for row in await connection.fetch(sql)]
            await connection.execute(sql)
            return []
        finally:
            await connection.close()


def _place(dialect: str, request: pytest.FixtureRequest, stack: ExitStack) -> Foreign:
    if dialect == "sqlite":
        path = request.getfixturevalue("tmp_path") / "theirs.db"
        return Foreign(f"sqlite:///{path}", {}, dialect, stack)
    schema = f"theirs_{next(_SCHEMAS)}"
    place = Foreign(
        request.getfixturevalue("postgres_url"), {"postgres_schema": schema, "pool_size": 3}, dialect, stack
    )
    place.run(f"CREATE SCHEMA {schema}")
    return place


@pytest.fixture
def foreign(request: pytest.FixtureRequest) -> Iterator[Callable[..., DataFlow]]:
    """An empty schema of PostgreSQL."""
    with ExitStack() as stack:
        yield _place("postgresql", request, stack)


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest) -> Iterator[Callable[..., DataFlow]]:
    """An empty place of each database."""
    with ExitStack() as stack:
        yield _place(request.param, request, stack)


@pytest.fixture(params=["sqlite", "postgresql"])
def opening(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Opening]:
    """What opens DataFlows on an empty place of each database."""
    yield from opened(request, tmp_path, "migrations")
