"""Fixtures for core's tests.

Core alone has no database: these tests run on SQLite and PostgreSQL, so the packages of both must be installed, and
workflow-dataflow-testing, which starts the server. What core says about a package that is missing is tested with the
package disabled, so workflow-dataflow-enterprise and workflow-dataflow-migrations must be installed as well.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from dataflow import DataFlow
from dataflow.runtime import LocalRuntime
from dataflow.workflow import Workflow


class Bench:
    """A DataFlow under test, with the shortest ways to use its nodes."""

    def __init__(self, db: DataFlow, path: Path | None = None) -> None:
        self.db = db
        self.path = path

    def build(self, node_type: Any, params: Mapping[str, Any] | None = None) -> Workflow:
        """Build a workflow of one node, called "node"."""
        return self.db.workflow().add_node(node_type, "node", params).build()

    def run(self, node_type: Any, params: Mapping[str, Any] | None = None, **more: Any) -> Any:
        """Run one node and return its result."""
        results, _ = LocalRuntime().execute(self.build(node_type, {**(params or {}), **more}))
        return results["node"]

    def late(self, node_type: Any, params: Mapping[str, Any]) -> Any:
        """Run one node whose params arrive at execution, so that build() cannot check them."""
        results, _ = LocalRuntime().execute(self.build(node_type), parameters={"node": params})
        return results["node"]

    def sql(self, query: str, params: Any = None) -> list[dict[str, Any]]:
        """Run SQL through AsyncSQLDatabaseNode and return the rows."""
        return self.run("AsyncSQLDatabaseNode", {"query": query, "params": params})["result"]["data"]

    def dump(self) -> str:
        """Return everything in the database file, read by the standard library."""
        assert self.path is not None
        if not self.path.exists():
            return ""
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as raw:
            return "\n".join(raw.iterdump())


_SCHEMAS = count()


@contextmanager
def _bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "sqlite":
        with DataFlow(":memory:") as db:
            yield Bench(db)
        return
    schema = f"bench_{next(_SCHEMAS)}"
    with DataFlow(request.getfixturevalue("core_postgres"), postgres_schema=schema, pool_size=3) as db:
        yield Bench(db)


@pytest.fixture(scope="session")
def core_postgres(postgres_server: Any) -> str:
    """One database for all of core's tests; each has a schema of its own."""
    return str(postgres_server.create_database())


@pytest.fixture(params=["sqlite", "postgresql"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A fresh database, on each dialect."""
    with _bench(request) as found:
        yield found


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def module_bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """One database for a module's tests that only read, on each dialect."""
    with _bench(request) as found:
        yield found


@pytest.fixture
def file_bench(tmp_path: Path) -> Iterator[Bench]:
    """A fresh database in a file."""
    path = tmp_path / "app.db"
    with DataFlow(f"sqlite:///{path}") as db:
        yield Bench(db, path)
