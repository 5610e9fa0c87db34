"""What the tdd fixtures give: a DataFlow that leaves nothing behind, savepoints, counted statements, sample models.

The fixtures themselves are in `pytest_plugin`. All of it is synchronous, and works in synchronous and in async tests
alike, under whatever runs those.
"""

import asyncio
import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from decimal import Decimal
from time import perf_counter
from types import SimpleNamespace, TracebackType
from typing import Any, Self

import attrs

from dataflow import DataFlow
from dataflow.dialect import Command
from dataflow.errors import UsageError

_CONTROL = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")
_STATEMENTS = ("rows", "count", "many", "copy")


def database_url(environment: Mapping[str, str] = os.environ) -> str:
    """Return the URL of the database to test on: ``TEST_DATABASE_URL``, else ``DATABASE_URL``, else in memory."""
    return environment.get("TEST_DATABASE_URL") or environment.get("DATABASE_URL") or ":memory:"


def empty_dataflow(url: str | None = None, **settings: Any) -> DataFlow:
    """Return a DataFlow in tdd mode on an empty database: in memory, or in a schema that no one else sees.

    Args:
        url: whose kind of database is wanted; None asks `database_url`.
        settings: of the DataFlow.
    """
    wanted = url or database_url()
    if wanted == ":memory:" or wanted.startswith("sqlite:"):
        return DataFlow(":memory:", tdd_mode=True, **settings)
    if wanted.startswith("postgres"):
        settings.setdefault("postgres_schema", f"tdd_{secrets.token_hex(8)}")
    return DataFlow(wanted, tdd_mode=True, **settings)


def existing_dataflow(url: str | None = None, **settings: Any) -> DataFlow:
    """Return a DataFlow in tdd mode that sees what the database has; what is written is gone when it closes."""
    return DataFlow(url or database_url(), tdd_mode=True, **settings)


# -- statements -------------------------------------------------------------------------------------------------------
class CountedQueries:
    """The statements that were sent while a `count_queries` was open, without their values.

    Attributes:
        statements: SQL texts in the order they were sent; transaction control and the making of tables left out.
    """

    def __init__(self) -> None:
        self.statements: list[str] = []

    def __len__(self) -> int:
        return len(self.statements)

    def see(self, command: Command) -> None:
        """Take note of a command."""
        if command.returns in _STATEMENTS and not command.sql.startswith(_CONTROL):
            self.statements.append(command.sql)

    def __str__(self) -> str:
        return "\n".join(f"  {number}. {sql}" for number, sql in enumerate(self.statements, 1)) or "  none"


@contextlib.contextmanager
def count_queries(db: DataFlow, *, at_most: int | None = None, exactly: int | None = None) -> Iterator[CountedQueries]:
    """Count the statements that a DataFlow sends in a ``with`` block.

    Args:
        db: whose statements are counted, from all threads and tasks.
        at_most: how many there may be.
        exactly: how many there have to be.

    Raises:
        AssertionError: there were more, or another number; the message lists them.
    """
    db.core.ensure_sync(db.core.models.values())
    counted = CountedQueries()
    with db.core.observing(counted.see):
        yield counted
    number = len(counted)
    if (exactly is not None and number != exactly) or (at_most is not None and number > at_most):
        wanted = f"exactly {exactly}" if exactly is not None else f"at most {at_most}"
        raise AssertionError(f"expected {wanted} statements, got {number}:\n{counted}")


# -- savepoints -------------------------------------------------------------------------------------------------------
class Savepoint:
    """A ``with`` or ``async with`` block whose changes are undone when it ends."""

    def __init__(self, db: DataFlow) -> None:
        self._db = db
        self._mark: Any = None

    def __enter__(self) -> Self:
        self._mark = _trial(self._db).mark()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _trial(self._db).undo(self._mark)
        self._db.core.forget_tables()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.__enter__)  # it may have to wait for a call of this event loop

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, trace)


def savepoint(db: DataFlow) -> Savepoint:
    """Return a block whose changes are undone when it ends, for ``with`` and ``async with``; blocks may be nested.

    Args:
        db: a DataFlow in tdd mode, maybe the one of a whole program.

    Raises:
        UsageError: it is not in tdd mode.
    """
    _trial(db)
    return Savepoint(db)


def _trial(db: DataFlow) -> Any:
    if not db.config["tdd_mode"]:
        msg = "savepoints of tests need a DataFlow in tdd mode"
        raise UsageError(msg, hint="DataFlow(…, tdd_mode=True), or the fixture tdd_dataflow", code="no-tdd")
    return db.core.database


@attrs.frozen
class TestContext:
    """What surrounds a test in tdd mode: the fixture ``tdd_test_context``.

    Attributes:
        db: the DataFlow of the test, as the fixture ``tdd_dataflow`` gives it.
        test_id: pytest's name of the test.
    """

    __test__ = False  # no test, whatever its name

    db: DataFlow
    test_id: str

    def savepoint(self) -> Savepoint:
        """Return a block whose changes are undone when it ends; blocks may be nested."""
        return savepoint(self.db)

    def count_queries(
        self, *, at_most: int | None = None, exactly: int | None = None
    ) -> AbstractContextManager[CountedQueries]:
        """`dataflow.testing.count_queries` on the DataFlow of the test."""
        return count_queries(self.db, at_most=at_most, exactly=exactly)


# -- time -------------------------------------------------------------------------------------------------------------
class Measured:
    """What a block took: the result of ``tdd_performance_test``.

    Attributes:
        milliseconds: from its beginning to its end; 0 before.
        queries: the statements that were sent.
    """

    def __init__(self, queries: CountedQueries) -> None:
        self.milliseconds = 0.0
        self.queries = queries


@contextlib.contextmanager
def measured(db: DataFlow, *, max_ms: float | None = None, max_queries: int | None = None) -> Iterator[Measured]:
    """Measure a ``with`` block, and hold it to a budget; tables are made before.

    Args:
        db: whose statements are counted.
        max_ms: milliseconds that the block may take.
        max_queries: statements that it may send.

    Raises:
        AssertionError: it took more.
    """
    with count_queries(db, at_most=max_queries) as queries:
        found = Measured(queries)
        start = perf_counter()
        yield found
        found.milliseconds = (perf_counter() - start) * 1000
    if max_ms is not None and found.milliseconds > max_ms:
        took = f"took {found.milliseconds:.1f} ms for {len(queries)} statements"
        msg = f"expected at most {max_ms:g} ms, {took}:\n{queries}"
        raise AssertionError(msg)


# -- models -----------------------------------------------------------------------------------------------------------
def sample_models(db: DataFlow) -> SimpleNamespace:
    """Register User, Product, Order and OrderItem, and return the classes: ``models.User`` and so on."""

    @db.model
    class User:
        """Somebody who orders."""

        name: str
        email: str
        active: bool = True
        __indexes__ = ({"name": "uq_users_email", "fields": ["email"], "unique": True},)

    @db.model
    class Product:
        """What is ordered."""

        name: str
        price: Decimal
        stock: int = 0

    @db.model
    class Order:
        """An order of a user."""

        user_id: int
        status: str = "pending"
        total: Decimal = Decimal(0)

    @db.model
    class OrderItem:
        """A product of an order."""

        order_id: int
        product_id: int
        quantity: int = 1

    return SimpleNamespace(User=User, Product=Product, Order=Order, OrderItem=OrderItem)
