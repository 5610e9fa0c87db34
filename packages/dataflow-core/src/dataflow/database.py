"""What plans and databases say to each other: commands and programs; and what a database's connections do.

A plan is a *program*: a generator that yields `Step`s (a command and its arguments) and is sent their replies. A
session drives it: SQLite on the connection's thread in one hop, PostgreSQL by awaiting each step. Programs are
synchronous and pure but for their steps, so one body of code serves both. All of it is also in `dataflow.dialect`.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import attrs

if TYPE_CHECKING:
    from dataflow.model import ModelSpec

ROWS, COUNT, MANY, COPY = "rows", "count", "many", "copy"
STANDING = "standing"
"""Of a command that asks the session, not the server, whether a transaction is open; for dialects that send it."""


@attrs.frozen(slots=True, eq=False)
class Command:
    """One SQL text as it goes to the driver.

    Attributes:
        sql: in the driver's own parameter style.
        returns: ROWS (list of tuples), COUNT (rows changed), MANY (one text, a list of argument tuples; rows changed),
            or COPY (the driver's way of loading a list of rows into `target`; only for dialects that send it).
        writes: whether it may change data.
        named: SQL of the user's own: the reply is (column names, rows, rows changed).
        target: (table, columns) of a COPY.
    """

    sql: str
    returns: str = ROWS
    writes: bool = False
    named: bool = False
    target: tuple[str, tuple[str, ...]] | None = None


Step = tuple[Command, Sequence[Any]]
T = TypeVar("T")
Program = Generator[Step, Any, T]
Convert = Callable[[Any], Any]


class Session(Protocol):
    """One leased connection. Either all `run`, or all `run_blocking`, at a time; never both at once.

    Attributes:
        depth: open transaction (1) plus savepoints.
        contended: whether somebody waits for this connection.
        max_parameters: most bound parameters of one statement, as the connection itself reports.
        context: what the connection knows of the call it serves (`Dialect.enter`).
        privileged: whether the database trusts it, where `Database.confine` was called.
        place: whose database or schema it is in, where each tenant has its own; else None.
    """

    depth: int
    max_parameters: int
    context: Mapping[str, str]
    privileged: bool
    place: str | None

    @property
    def contended(self) -> bool: ...
    async def run(self, program: Program[T]) -> T:
        """Drive a program to its end. On cancellation the statement under way is interrupted."""
        ...

    def run_blocking(self, program: Program[T]) -> T:
        """Drive a program in the calling thread; only where `Database.blocking`."""
        ...

    async def release(self) -> None:
        """Give the connection back, rolled back and clean."""
        ...

    def release_blocking(self) -> None:
        """`release` for the calling thread."""
        ...

    def abandon(self) -> None:
        """`release` from wherever this is, for a run that nobody drives any more (its event loop was closed)."""
        ...


class Database(Protocol):
    """The connections of one DataFlow.

    Attributes:
        blocking: whether sessions can be driven in the calling thread.
    """

    blocking: bool

    def confine(self, models: "Callable[[], Iterable[ModelSpec]]") -> None:
        """Lend only connections that the database itself keeps within the tenant of their context, unless privileged.

        Called once, before the first lease; then `lease` gets ``privileged=True`` where all is to be seen.

        Args:
            models: the registered models, as they grow; those with a `scope` are confined by its first field.

        Raises:
            NotYetAvailable: this dialect cannot.
        """
        ...

    async def lease(self, *, write: bool, holder: str, privileged: bool = False) -> Session:
        """Wait for a connection; `holder` is named in errors. Raises DatabaseTimeout after `lock_timeout` seconds."""
        ...

    def lease_blocking(self, *, write: bool, holder: str, privileged: bool = False) -> Session:
        """`lease` for the calling thread."""
        ...

    async def close(self) -> None:
        """Close every connection; leases after this raise UsageError. May be called again."""
        ...

    def close_blocking(self) -> None:
        """`close` for the calling thread."""
        ...

    def discard(self) -> None:
        """`close` for a DataFlow that nobody refers to any more; the garbage collector calls, so it must not wait."""
        ...

    def describe(self) -> dict[str, Any]:
        """Say where this is and how it is set, for doctor; JSON-able, without secrets."""
        ...


class Trial(Database, Protocol):
    """The connections of a DataFlow in tdd mode."""

    def mark(self) -> Any:
        """Remember how everything is now; return what `undo` takes. Marks are undone in the reverse order."""
        ...

    def undo(self, mark: Any) -> None:
        """Undo everything since a mark."""
        ...
