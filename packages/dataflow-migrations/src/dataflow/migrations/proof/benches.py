"""Databases on which round trips are made: one is migrated; in another, the wanted schema is built from nothing."""

import os
import secrets
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit, urlunsplit

from dataflow import DataFlow
from dataflow.catalog import Catalog
from dataflow.dialect import COUNT, Command, Program
from dataflow.migrations.execution import Execution
from dataflow.migrations.planning import editor_of
from dataflow.migrations.proof import dumps, postgres, sqlite
from dataflow.migrations.proof.drawing import Drawer
from dataflow.migrations.proof.rows import Rows
from dataflow.migrations.proof.schema import Schema
from dataflow.migrations.proof.watching import Watched
from dataflow.session import COMMIT

T = TypeVar("T")


class Bench:
    """A database with the editor of its dialect.

    Attributes:
        drawer: draws schemas for it.
        execution: how plans are carried out.
    """

    drawer: ClassVar[type[Drawer]]
    execution: ClassVar[type[Execution]] = Execution

    def __init__(self, db: DataFlow) -> None:
        self.db = db
        self.dialect = db.core.dialect
        self.editor = editor_of(self.dialect, db.core.plugins)

    def run(self, program: Program[T]) -> T:
        """Run a program on a connection."""
        return self.db.core.ask(program, write=True)

    def execute(self, *statements: str) -> None:
        """Execute statements, each by itself."""
        self.run(executed(statements))

    def built(self, schema: Schema) -> Program[None]:
        """Return the program that makes a schema from nothing."""
        return executed(self.sql(schema))

    def sql(self, schema: Schema) -> list[str]:
        """Return the statements that make a schema from nothing."""
        write = sqlite.statements if self.drawer.name == "sqlite" else postgres.statements
        return write(schema, self.dialect.quote)

    def rows(self, catalog: Catalog) -> Rows:
        """Read all rows of all tables."""

        def program() -> Program[dict[str, list[dict[str, Any]]]]:
            found = {}
            for name, table in catalog.tables.items():
                columns = list(table.columns)
                listed = ", ".join(map(self.dialect.quote, columns)) or "1"
                sql = f"SELECT {listed} FROM {self.dialect.table_name(name)}"  # noqa: S608
                found[name] = [dict(zip(columns, row, strict=False)) for row in (yield Command(sql), ())]
            return found

        return self.run(program())

    def start(self, schema: Schema) -> None:
        """Make a schema, and nothing else."""
        raise NotImplementedError

    def dumps(self, schema: Schema) -> tuple[list[str], list[str]]:
        """Return what the database says of its schema, and what it says of one that is made from nothing."""
        raise NotImplementedError

    def damage(self) -> list[str]:
        """Return what is wrong with the database."""
        return []

    def close(self) -> None:
        """Close and remove it."""
        self.db.close()


def executed(statements: list[str] | tuple[str, ...]) -> Program[None]:
    """Execute statements."""
    for sql in statements:
        yield Command(sql, COUNT, writes=True), ()


class SQLiteBench(Bench):
    """A file, which is emptied for every trip.

    Args:
        path: the file.
    """

    drawer = sqlite.SQLiteDrawer

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(DataFlow(f"sqlite:///{path}", sqlite_synchronous="OFF"))

    def start(self, schema: Schema) -> None:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as raw:
            raw.execute("PRAGMA synchronous = OFF")
            found = raw.execute("SELECT type, name FROM sqlite_master WHERE type IN ('view', 'table')").fetchall()
            for kind, name in sorted(found, reverse=True):  # views first
                if not name.startswith("sqlite_"):
                    raw.execute(f"DROP {kind} {self.dialect.quote(name)}")
        self.run(self.built(schema))

    def dumps(self, schema: Schema) -> tuple[list[str], list[str]]:
        with DataFlow(":memory:") as db:
            fresh = Bench(db)
            fresh.run(self.built(schema))
            return self.run(dumps.sqlite_dump()), fresh.run(dumps.sqlite_dump())

    def damage(self) -> list[str]:
        def program() -> Program[list[str]]:
            rows = yield Command("PRAGMA integrity_check"), ()
            try:
                broken = yield Command("PRAGMA foreign_key_check"), ()
            except Exception as error:  # noqa: BLE001  # a key that fits no key, which fresh builds have as well
                broken = [] if "mismatch" in str(error) else [(str(error),)]
            # Before 3.42, SQLite finds NULLs where there are none in tables without rowid.
            wrong = [str(row[0]) for row in rows if row[0] != "ok" and not str(row[0]).startswith("NULL value in ")]
            return wrong + [f"{tuple(row)} refers to nothing" for row in broken]

        return self.run(program())


class PostgresBench(Bench):
    """Two databases of their own on a server, removed at the end.

    Args:
        url: of a database of the server.
    """

    drawer = postgres.PostgresDrawer
    execution = Watched

    def __init__(self, url: str) -> None:
        self._server = DataFlow(url, pool_size=1)
        parts = urlsplit(url)
        self.program = dumps.pg_dump()
        self._names = [f"dataflow_trip_{secrets.token_hex(6)}" for _ in range(2)]
        self.urls = [urlunsplit(parts._replace(path=f"/{name}")) for name in self._names]
        for name in self._names:
            self._on_server(f"CREATE DATABASE {name}")
        super().__init__(DataFlow(self.urls[0], pool_size=2))
        self.fresh = Bench(DataFlow(self.urls[1], pool_size=2))

    def _on_server(self, sql: str) -> None:
        self._server.core.ask(executed([sql]), write=True)

    def start(self, schema: Schema) -> None:
        self.run(self._anew(schema))

    def _anew(self, schema: Schema) -> Program[None]:
        begin = ("DROP SCHEMA IF EXISTS public CASCADE", "CREATE SCHEMA public")
        yield from executed(["BEGIN", *begin, *self.sql(schema)])
        yield COMMIT, ()

    def dumps(self, schema: Schema) -> tuple[list[str], list[str]]:
        first = dumps.start_dump(self.urls[0], self.program)
        self.fresh.run(self._anew(schema))
        second = dumps.start_dump(self.urls[1], self.program)
        return dumps.read_dump(first), dumps.read_dump(second)

    def close(self) -> None:
        super().close()
        self.fresh.close()
        for name in self._names:
            self._on_server(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        self._server.close()


@contextmanager
def bench(url: str) -> Iterator[Bench]:
    """Open a bench: "sqlite" (a temporary file), or the URL of a PostgreSQL database next to which two are made."""
    with tempfile.TemporaryDirectory() as folder:
        found = SQLiteBench(os.path.join(folder, "trip.db")) if url == "sqlite" else PostgresBench(url)
        try:
            yield found
        finally:
            found.close()
