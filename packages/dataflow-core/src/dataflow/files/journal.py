"""How far loads have come: the framework's table `dataflow_loads`, written in the transactions that write the rows.

A load is known by what the file holds, the model and the tenant, not by the file's name.
"""

import json
from datetime import UTC, datetime
from typing import Any

import attrs

from dataflow.dialect import COUNT, Command, Dialect, Program
from dataflow.errors import InputError

TABLE = "dataflow_loads"


@attrs.frozen
class Load:
    """A load, as far as it has come.

    Attributes:
        id: of file, model and tenant.
        position: rows read, loaded or refused.
        file: its name when it was begun.
        model: name.
        options: that decide what rows mean.
        begun: when, ISO 8601 in UTC.
        done: whether nothing is left to do.
        created, updated, skipped, rejected: rows.
        reject_file: where refused rows are.
        reject_bytes: how much of it counts.
    """

    id: str
    position: int
    file: str
    model: str
    options: dict[str, Any]
    begun: str = attrs.field(factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    done: bool = False
    created: int = 0
    updated: int = 0
    skipped: int = 0
    rejected: int = 0
    reject_file: str = ""
    reject_bytes: int = 0

    def body(self) -> str:
        """Return all but what has a column of its own, as JSON."""
        return json.dumps(attrs.asdict(self, filter=lambda its, _: its.name not in ("id", "position")))


class Journal:
    """Reads and writes the table.

    Args:
        dialect: of the database.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._table = dialect.table_name(TABLE)
        self._id, self._position, self._body = map(dialect.quote, ("id", "position", "body"))
        self._marks = [dialect.placeholder(place) for place in range(1, 5)]

    def there(self) -> Program[bool]:
        """Tell whether the table is there."""
        return bool((yield from self._dialect.list_columns(TABLE)))

    def make(self) -> Program[None]:
        """Create the table unless it is there; inside a transaction."""
        yield from self._dialect.schema_lock()
        sql = (
            f"CREATE TABLE IF NOT EXISTS {self._table} ({self._id} TEXT NOT NULL, {self._position} BIGINT NOT NULL,"
            f" {self._body} TEXT NOT NULL, PRIMARY KEY ({self._id}))"
        )
        yield Command(sql, COUNT, writes=True), ()

    def find(self, key: str) -> Program[Load | None]:
        """Return a load, or None."""
        sql = f"SELECT {self._position}, {self._body} FROM {self._table} WHERE {self._id} = {self._marks[0]}"  # noqa: S608
        rows = yield Command(sql), (key,)
        return Load(id=key, position=rows[0][0], **json.loads(rows[0][1])) if rows else None

    def begin(self, load: Load) -> Program[None]:
        """Write a new load down."""
        marks = ", ".join(self._marks[:3])
        sql = f"INSERT INTO {self._table} ({self._id}, {self._position}, {self._body}) VALUES ({marks})"  # noqa: S608
        yield Command(sql, COUNT, writes=True), (load.id, load.position, load.body())

    def forget(self, key: str) -> Program[None]:
        """Remove a load."""
        sql = f"DELETE FROM {self._table} WHERE {self._id} = {self._marks[0]}"  # noqa: S608
        yield Command(sql, COUNT, writes=True), (key,)

    def claim(self, load: Load, position: int) -> Program[None]:
        """Move a load on, if it still is where it was; hold it until the transaction ends.

        Raises:
            InputError: another process has moved it.
        """
        first, second, third = self._marks[:3]
        sql = (
            f"UPDATE {self._table} SET {self._position} = {first}"  # noqa: S608
            f" WHERE {self._id} = {second} AND {self._position} = {third}"
        )
        changed = yield Command(sql, COUNT, writes=True), (position, load.id, load.position)
        if changed != 1:
            msg = "another process is loading the same file into the same model"
            raise InputError(msg, hint="let it finish; this one has written nothing twice", code="loading-already")

    def note(self, load: Load) -> Program[None]:
        """Write down how far a load has come."""
        sql = f"UPDATE {self._table} SET {self._body} = {self._marks[0]} WHERE {self._id} = {self._marks[1]}"  # noqa: S608
        yield Command(sql, COUNT, writes=True), (load.body(), load.id)
