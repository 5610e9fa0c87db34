"""Connections to one DuckDB database: one that writes, and some that read, all of one process.

DuckDB lets one process have a file open, and detects conflicts of writers only when they happen. So there is one writer
per file, whichever instances of DataFlow have it open; who else wants to write waits.
"""

import contextlib
import os
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import attrs
import duckdb

from dataflow.blocking import BlockingDatabase, BlockingSession
from dataflow.config import Config, DatabaseURL
from dataflow.dialect import COUNT, MANY, Command
from dataflow.errors import ConfigurationError, DatabaseUnavailable, DataFlowError, UsageError
from dataflow.session import FairLock
from dataflow_duckdb.errors import Sent, columns_of, translate
from dataflow_duckdb.functions import install
from dataflow_duckdb.savepoints import DuckDBSession

READERS = 3
_STATEFUL = re.compile(r"\b(set|reset|use|attach|detach|temp|temporary|pragma|load|macro|prepare)\b", re.IGNORECASE)
"""Words without which SQL of the user's own leaves a connection as it was."""
_PREPARE = "SET SESSION TimeZone = 'UTC'"
_CONSTRAINTS = """\
SELECT constraint_column_names FROM duckdb_constraints()
WHERE table_name = $1 AND schema_name = current_schema() AND constraint_type IN ('PRIMARY KEY', 'UNIQUE')"""
_INDEXES = """\
SELECT sql FROM duckdb_indexes() WHERE table_name = $1 AND schema_name = current_schema() AND is_unique"""


@attrs.define
class _File:
    """A database that is open in this process, however many instances use it.

    Attributes:
        root: keeps it open; our functions live as long as this connection.
        users: how many instances use it.
    """

    root: duckdb.DuckDBPyConnection
    users: int = 0


_FILES: dict[str, _File] = {}
_ABANDONED: list[Any] = []
_CROSSED: set[str] = set()
"""Files that were open when this process was forked: DuckDB's threads did not come along."""
_WRITERS: dict[str, FairLock] = {}
_opening = threading.RLock()  # the garbage collector may close one while another is opened


class DuckDBDatabase(BlockingDatabase):
    """The connections of one DataFlow.

    Args:
        url: of the file, or of memory.
        config: settings of the DataFlow.
        known: unique keys of tables, as far as they are known.
    """

    faults: ClassVar[tuple[type[Exception], ...]] = (duckdb.Error, UnicodeError, OverflowError)
    sessions: ClassVar[type[BlockingSession]] = DuckDBSession

    def __init__(self, url: DatabaseURL, config: Config, known: Mapping[str, Sequence[Sequence[str]]]) -> None:
        if url.query:
            msg = f"DuckDB URLs take no options, got {', '.join(name for name, _ in url.query)}"
            raise ConfigurationError(msg, hint="write duckdb:///shop.duckdb", code="bad-url")
        if url.host or not url.path:
            msg = "a DuckDB URL has three slashes before a relative path, four before an absolute one"
            raise ConfigurationError(msg, hint="write duckdb:///shop.duckdb or duckdb:///:memory:", code="bad-url")
        self.path = url.path if url.path == ":memory:" else os.path.abspath(url.path)
        self.memory = self.path == ":memory:"
        self._known = known
        self._file: _File | None = None
        self._crossed = False
        name = os.path.basename(self.path)
        shared = FairLock(f"the writer of {name}")
        if not self.memory:
            shared = _WRITERS.setdefault(os.path.realpath(self.path), shared)
        super().__init__(name, config, readers=READERS, shared=shared)

    def open(self, *, write: bool) -> duckdb.DuckDBPyConnection:
        del write  # DuckDB knows no connections that only read, beside others that write
        if self._file is None:
            self._file = self._opened_file()
        raw = self._file.root.cursor()
        raw.execute(_PREPARE)
        return raw

    def _opened_file(self) -> _File:
        key = os.path.realpath(self.path)
        if self._crossed or key in _CROSSED:
            msg = f"this process was forked while {self.name} was open, so it cannot use it"
            hint = "start processes with 'spawn', or fork before the database is used"
            raise UsageError(msg, hint=hint, code="forked-in-use")
        with _opening:
            known = None if self.memory else _FILES.get(key)
            if known is None:
                self._may_create()
                known = _File(duckdb.connect(self.path))
                install(known.root)
                if self.config["duckdb_threads"]:
                    known.root.execute(f"SET threads = {self.config['duckdb_threads']}")
                if not self.memory:
                    _FILES[key] = known
            known.users += 1
            return known

    def _may_create(self) -> None:
        create = self.config["auto_migrate"] and not self.config["existing_schema_mode"]
        if not create and not self.memory and not os.path.exists(self.path):
            msg = "the database file does not exist, and this DataFlow may not create it"
            hint = "correct the URL, or allow it: DataFlow(auto_migrate=True, existing_schema_mode=False)"
            raise DatabaseUnavailable(msg, hint=hint, where={"file": self.path})

    def execute(self, raw: Any, command: Command, arguments: Sequence[Any]) -> Any:
        if command.returns is MANY:
            raw.executemany(command.sql, arguments)
            return len(arguments)
        try:
            found = raw.execute(command.sql, arguments)
            rows = found.fetchall()
        except RuntimeError as error:
            if type(error) is RuntimeError and "interrupted" in str(error):  # DuckDB's word for Ctrl-C
                raise KeyboardInterrupt from None
            raise
        if command.named:
            if _changes(found.description, command):
                return [], [], rows[0][0] if rows else 0
            return [column[0] for column in found.description or ()], rows, len(rows)
        if command.returns is COUNT:
            return rows[0][0] if rows else 0
        return rows

    def explain(self, error: Exception, command: Command, arguments: Sequence[Any]) -> DataFlowError:
        return translate(error, Sent(command.sql, arguments), self.path, self._keys)

    def _keys(self, table: str) -> list[Sequence[str]]:
        """Read the unique keys of a table on another connection: the transaction of this one is spoiled."""
        if self._file is None or table in self._known:
            return list(self._known.get(table, ()))
        with self._file.root.cursor() as cursor:
            keys = [row[0] for row in cursor.execute(_CONSTRAINTS, [table]).fetchall()]
            indexes = [row[0] for row in cursor.execute(_INDEXES, [table]).fetchall()]
        return keys + [columns_of(sql) for sql in indexes]

    def rollback(self, raw: Any) -> None:
        with contextlib.suppress(duckdb.TransactionException):  # none is open
            raw.rollback()

    def interrupt(self, raw: Any) -> None:
        raw.interrupt()

    def refresh(self, raw: Any, own_sql: Iterable[str]) -> Any:
        """Go on with a new connection where the old one may have other settings, or temporary objects."""
        if not any(_STATEFUL.search(sql) for sql in own_sql):
            return raw
        fresh = self.open(write=True)
        raw.close()
        return fresh

    def shut(self, raw: Any) -> None:
        raw.close()
        if self.closed and raw is not None and self._file is not None and not self._in_use():
            file, self._file = self._file, None
            with _opening:
                file.users -= 1
                if not file.users:
                    _FILES.pop(os.path.realpath(self.path), None)
                    file.root.close()

    def _in_use(self) -> bool:
        return any(link.raw is not None for link in (*self.readers, self.writer))

    def in_child(self) -> None:
        super().in_child()
        self._crossed = self._crossed or self._file is not None
        _ABANDONED.append(self._file)
        self._file = None

    def describe(self) -> dict[str, Any]:
        return {"dialect": "duckdb", "file": self.path, "duckdb": duckdb.__version__, "readers": len(self.readers)}


def _changes(description: Any, command: Command) -> bool:
    """Tell whether a statement was no question: DuckDB then answers with one column Count, or Success."""
    names = [column[0] for column in description or ()]
    return not names or (command.writes and names in (["Count"], ["Success"]))


def _in_child() -> None:
    """Forget the files of the parent process, without closing them."""
    global _opening  # noqa: PLW0603  # another thread may have held it
    _opening = threading.RLock()
    _ABANDONED.append(dict(_FILES))
    _CROSSED.update(_FILES)
    _FILES.clear()


os.register_at_fork(after_in_child=_in_child)
