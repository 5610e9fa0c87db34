"""The connections of a DataFlow in tdd mode: to a copy of the file, which is removed in the end."""

import contextlib
import os
import shutil
import sqlite3
import tempfile
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs

from dataflow.config import Config, DatabaseURL
from dataflow.sqlite.connection import SQLiteDatabase
from dataflow.sqlite.enclosure import quoted
from dataflow.sqlite.errors import translate


def copied(path: str, folder: str) -> str:
    """Copy a database with all that was committed, if it exists, into a folder; return the path of the copy.

    Nothing is written beside the original: SQLite itself would make the files of a log there, and leave them.
    """
    copy = os.path.join(folder, os.path.basename(path))
    if os.path.exists(path):
        before = _state(path)
        if before.alone:
            _back_up(path, copy, "immutable=1")
        if not before.alone or _state(path) != before:  # others use it, or have used it meanwhile
            _back_up(path, copy, "mode=ro")
    return copy


@attrs.frozen
class _State:
    """How a file looks from outside; `alone` means that it is whole by itself."""

    alone: bool
    size: int
    changed: int


def _state(path: str) -> _State:
    found = os.stat(path)
    alone = not any(os.path.exists(path + beside) for beside in ("-wal", "-journal"))
    return _State(alone, found.st_size, found.st_mtime_ns)


def _back_up(path: str, copy: str, how: str) -> None:
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?{how}", uri=True)) as original,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            target.execute("PRAGMA synchronous = OFF")
            original.backup(target)
    except sqlite3.Error as error:
        raise translate(error, path) from error


class TrialDatabase(SQLiteDatabase):
    """A database that can be put back to how it was."""

    def mark(self) -> sqlite3.Connection:
        """Copy what is there into memory."""
        with self._alone() as raw:
            copy = sqlite3.connect(":memory:", check_same_thread=False)
            raw.backup(copy)
            return copy

    def undo(self, mark: sqlite3.Connection) -> None:
        """Put back what was there."""
        with self._alone() as raw:
            # a connection's own triggers would stay behind, without effect, on tables that are put back
            for (name,) in raw.execute("SELECT name FROM sqlite_temp_master WHERE type = 'trigger'").fetchall():
                raw.execute(f"DROP TRIGGER temp.{quoted(name)}")
            mark.backup(raw)
            self.writer.prepare(raw)
        mark.close()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[sqlite3.Connection]:
        session = self.lease_blocking(write=True, holder="tdd mode")
        try:
            assert self.writer.raw is not None
            yield self.writer.raw
        finally:
            session.release_blocking()


class CopiedDatabase(TrialDatabase):
    """A copy of a file: what the file has is there, and what is written stays in the copy."""

    def __init__(self, url: DatabaseURL, config: Config, *, confining: Callable[[], None] = lambda: None) -> None:
        folder = tempfile.mkdtemp(prefix="dataflow-tdd-")
        self._remove = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.original = os.path.abspath(url.path)
        super().__init__(attrs.evolve(url, path=copied(self.original, folder)), config, confining=confining)

    async def close(self) -> None:
        await super().close()
        self._remove()

    def close_blocking(self) -> None:
        super().close_blocking()
        self._remove()

    def discard(self) -> None:
        super().discard()
        self._remove()

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "tdd_mode": True, "copy_of": self.original}
