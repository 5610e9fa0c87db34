"""The same five pieces of work in each framework: a module per framework, imported only where that is installed.

Each module has two context managers, `sqlite(bench)` and `postgres(bench)`, that open what the framework needs, yield
its sides by name, and close it all. The code is what the framework's own documentation recommends for the purpose.
"""

from datetime import UTC, datetime
from typing import Any, Protocol

from benchmarks import rows

POOL = 10
"""Connections of every pool."""
AUTOCOMMIT = "SQLAlchemy Core, autocommit"
"""The side that has no transactions, so that many rows are not its work."""


class Framework(Protocol):
    """One way to do the work. Records are dicts of all columns, decoded.

    Attributes:
        table: where its readings are: DataFlow's own table, unless its texts are not in the framework's form.
    """

    table: str

    async def read(self, key: int) -> dict[str, Any]:
        """Return the record with that key."""
        ...

    async def update(self, key: int, label: str) -> dict[str, Any]:
        """Change the label and ``updated_at`` of a record, and return it."""
        ...

    async def create(self, row: dict[str, Any]) -> dict[str, Any]:
        """Insert a record and return it, with key and timestamps."""
        ...

    async def many(self, low: int, high: int) -> list[dict[str, Any]]:
        """Return the records with ``low <= n < high``, by key."""
        ...

    async def bulk(self, data: list[dict[str, Any]]) -> int:
        """Insert many records in one transaction, and return how many."""
        ...


def now() -> datetime:
    """Return the instant, for timestamps."""
    return datetime.now(UTC)


def record(instance: Any) -> dict[str, Any]:
    """Return an ORM's object as a dict."""
    return {name: getattr(instance, name) for name in rows.READING}
