"""Databases in which a history is replayed: one that Alembic brings forward, and copies of it; dropped in the end."""

import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Self

import sqlalchemy as sa


class Place(ABC):
    """Where a history is replayed.

    Attributes:
        blobs: how a literal of bytes is written there.
        booleans: how False and True are.
    """

    blobs: str
    booleans: tuple[str, str]

    @classmethod
    def at(cls, url: str) -> "Place":
        """Return a place: "sqlite", or on the PostgreSQL server with a URL."""
        return SQLite() if url.startswith("sqlite") else PostgreSQL(url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @abstractmethod
    def url(self, name: str) -> str:
        """Return the URL of the database "history" or "copy", as DataFlow takes it."""

    @abstractmethod
    def copy(self) -> None:
        """Make the database "copy" anew, as "history" is."""

    def extend(self) -> None:
        """Add to "copy" what "history" has and no catalog tells: extensions."""
        return

    @abstractmethod
    def engine(self) -> sa.Engine:
        """Return an engine for "history"."""

    @abstractmethod
    def close(self) -> None:
        """Drop what was made."""

    @contextmanager
    def connection(self) -> Iterator[sa.Connection]:
        """Connect to "history", as a program with a history of its own would."""
        engine = self.engine()
        try:
            with engine.connect() as connection:
                yield connection
        finally:
            engine.dispose()


class SQLite(Place):
    """Files in a temporary directory."""

    blobs = "X'{:02x}'"
    booleans = ("0", "1")

    def __init__(self) -> None:
        self._directory = tempfile.mkdtemp(prefix="histories-")

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, f"{name}.db")

    def url(self, name: str) -> str:
        return f"sqlite:///{self._path(name)}"

    def copy(self) -> None:
        for end in ("-wal", "-shm"):
            if os.path.exists(self._path("copy") + end):
                os.remove(self._path("copy") + end)
        if not os.path.exists(self._path("history")):
            with open(self._path("history"), "wb"):
                pass
        shutil.copyfile(self._path("history"), self._path("copy"))

    def engine(self) -> sa.Engine:
        return sa.create_engine(self.url("history"), poolclass=sa.pool.NullPool)

    def close(self) -> None:
        shutil.rmtree(self._directory)


class PostgreSQL(Place):
    """Two databases of a server, named by this process.

    Args:
        url: of any database there, of a role that may create others.
    """

    blobs = r"'\x{:02x}'"
    booleans = ("false", "true")

    def __init__(self, url: str) -> None:
        driver = "psycopg2" if find_spec("psycopg2") else "psycopg"
        self._url = sa.make_url(url).set(drivername=f"postgresql+{driver}")
        self._admin(f'CREATE DATABASE "{self._name("history")}" TEMPLATE template0')

    def _name(self, name: str) -> str:
        return f"replay_{os.getpid()}_{name}"

    def _admin(self, *statements: str, database: str | None = None) -> None:
        url = self._url.set(database=database or self._url.database)
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    def url(self, name: str) -> str:
        plain = self._url.set(drivername="postgresql", database=self._name(name))
        return plain.render_as_string(hide_password=False)

    def copy(self) -> None:
        copy, history = self._name("copy"), self._name("history")
        self._admin(
            f'DROP DATABASE IF EXISTS "{copy}" WITH (FORCE)',
            f'CREATE DATABASE "{copy}" TEMPLATE "{history}"',
        )

    def extend(self) -> None:
        with self.connection() as history:
            names = (
                history.exec_driver_sql("SELECT extname FROM pg_extension WHERE extname <> 'plpgsql'").scalars().all()
            )
        if names:
            self._admin(*(f'CREATE EXTENSION IF NOT EXISTS "{name}"' for name in names), database=self._name("copy"))

    def engine(self) -> sa.Engine:
        return sa.create_engine(self._url.set(database=self._name("history")), poolclass=sa.pool.NullPool)

    def close(self) -> None:
        for name in ("copy", "history"):
            self._admin(f'DROP DATABASE IF EXISTS "{self._name(name)}" WITH (FORCE)')
