"""Copies of a prepared database, one for each trial: files, or databases of a PostgreSQL server."""

import asyncio
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit


class Copies(ABC):
    """A database, and copies of it.

    Attributes:
        settings: what a DataFlow needs there.
        whole: whether a migration happens wholly or not at all.
    """

    settings: ClassVar[Mapping[str, Any]]
    whole: ClassVar[bool]

    @classmethod
    def at(cls, url: str) -> "Copies":
        """Return a place: "sqlite", or on the PostgreSQL server with a URL."""
        return Files() if url == "sqlite" else Databases(url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @abstractmethod
    def first(self) -> str:
        """Return the URL of an empty database, which will be copied."""

    @abstractmethod
    def fresh(self) -> str:
        """Return the URL of a new copy; the one before goes."""

    @abstractmethod
    def close(self) -> None:
        """Drop what was made."""


class Files(Copies):
    """SQLite files in a temporary directory."""

    settings: ClassVar = {"sqlite_synchronous": "OFF"}
    whole = True

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="crashes-")

    def _empty(self, name: str) -> str:
        for end in ("", "-wal", "-shm"):
            if os.path.exists(self._path(name) + end):
                os.remove(self._path(name) + end)
        return f"sqlite:///{self._path(name)}"

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, f"{name}.db")

    def first(self) -> str:
        return self._empty("first")

    def fresh(self) -> str:
        url = self._empty("copy")
        for end in ("", "-wal"):
            if os.path.exists(self._path("first") + end):
                shutil.copyfile(self._path("first") + end, self._path("copy") + end)
        return url

    def close(self) -> None:
        shutil.rmtree(self._folder)


class Databases(Copies):
    """Databases of a server, named by this process.

    Args:
        url: of any database there, of a role that may create others.
    """

    settings: ClassVar = {"pool_size": 2}
    whole = False

    def __init__(self, url: str) -> None:
        self._url = url
        self._runner = asyncio.Runner()

    def run(self, *statements: str, database: str | None = None) -> list[Any]:
        """Execute statements on a database of the server; return the rows of the last one."""
        return self._runner.run(self._run(statements, database))

    async def _run(self, statements: tuple[str, ...], database: str | None) -> list[Any]:
        import asyncpg

        connection = await asyncpg.connect(database or self._url)
        try:
            rows: list[Any] = []
            for statement in statements:
                rows = await connection.fetch(statement)
            return rows
        finally:
            await connection.close()

    def _name(self, name: str) -> str:
        return f"crashes_{os.getpid()}_{name}"

    def _drop(self, name: str) -> str:
        return f'DROP DATABASE IF EXISTS "{self._name(name)}" WITH (FORCE)'

    def _at(self, name: str) -> str:
        return urlsplit(self._url)._replace(path=f"/{self._name(name)}").geturl()

    def first(self) -> str:
        self.run(self._drop("first"), f'CREATE DATABASE "{self._name("first")}" TEMPLATE template0')
        return self._at("first")

    def fresh(self) -> str:
        own, template = self._name("copy"), self._name("first")
        ended = f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{template}'"  # noqa: S608
        self.run(self._drop("copy"), ended, f'CREATE DATABASE "{own}" TEMPLATE "{template}"')
        return self._at("copy")

    def close(self) -> None:
        self.run(self._drop("copy"), self._drop("first"))
        self._runner.close()
