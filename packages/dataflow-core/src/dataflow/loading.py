"""What a dialect is handed to write many rows: the rows, encoded while they are read, and the statements to widen.

A neighbour of `dataflow.dialect`, which passes its names on.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from sqlalchemy.types import TypeEngine

    from dataflow.dialect import Command

ROWS_TABLE = "dataflow_rows"
"""What a statement calls the rows that `Dialect.with_rows` hands it; their columns are c0, c1 …"""


def interleaved(columns: "Sequence[Sequence[Any]]", count: int) -> list[Any]:
    """Put columns side by side: the arguments of a statement with a parenthesis for each row."""
    width = len(columns)
    flat: list[Any] = [None] * (count * width)
    for place, column in enumerate(columns):
        flat[place::width] = column
    return flat


class Rows(Sequence[tuple[Any, ...]]):
    """Rows to write, encoded while they are read, so that memory stays bounded and the server can work meanwhile.

    Args:
        count: number of rows.
        encode: ``encode(start, stop)`` returns the columns of these rows, each a list of the driver's values; it may
            raise, for a value that does not fit, what has to leave the program unchanged.
    """

    __slots__ = ("_count", "_encode")

    def __init__(self, count: int, encode: "Callable[[int, int], Sequence[Sequence[Any]]]") -> None:
        self._count = count
        self._encode = encode

    @classmethod
    def of(cls, rows: "Sequence[Sequence[Any]]") -> "Rows":
        """Wrap rows that are encoded already."""
        return cls(len(rows), lambda start, stop: list(zip(*rows[start:stop], strict=True)))

    def __len__(self) -> int:
        return self._count

    def columns(self, start: int, stop: int) -> "Sequence[Sequence[Any]]":
        """Return the columns of some of the rows."""
        return self._encode(start, stop)

    def part(self, start: int, stop: int) -> "Rows":
        """Return some of the rows."""
        return Rows(stop - start, lambda first, last: self._encode(start + first, start + last))

    def beside(self, column: "Sequence[Any]") -> "Rows":
        """Return the rows with one value more each."""
        return Rows(self._count, lambda start, stop: [*self._encode(start, stop), column[start:stop]])

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._count)
            return list(zip(*self._encode(start, stop), strict=True))[::step] if start < stop else []
        place = range(self._count)[index]
        return tuple(column[0] for column in self._encode(place, place + 1))

    def __iter__(self) -> "Iterator[tuple[Any, ...]]":
        for start in range(0, self._count, ENCODED_AT_ONCE):
            yield from zip(*self._encode(start, min(start + ENCODED_AT_ONCE, self._count)), strict=True)


ENCODED_AT_ONCE = 1000
"""Rows that are encoded together where a statement takes any number."""


@attrs.frozen
class Joined:
    """A statement on rows that come with it, as the table `ROWS_TABLE`, for `Dialect.with_rows` to complete.

    Attributes:
        command: the statement.
        arguments: values of its own parameters.
        types: column types of the rows.
        batch_size: most rows per statement, or None for what suits the database.
    """

    command: "Command"
    arguments: Sequence[Any]
    types: "tuple[TypeEngine[Any], ...]"
    batch_size: int | None = None


@attrs.frozen
class Insert:
    """An INSERT compiled for one row, for `Dialect.insert_many` to widen.

    Attributes:
        table: name of the table.
        head: SQL text up to and including VALUES.
        group: text of one row's parenthesis.
        tail: what follows (ON CONFLICT …, RETURNING …).
        columns: names, in the order of a row's values.
        types: their column types.
        returning: number of returned columns.
        batch_size: most rows per statement of many rows.
        capped: whether `batch_size` binds the driver's way of loading (COPY) as well, for the caller asked for it.
        generated: the column whose values the database generates where rows do not give one (it may be among
            `columns`; then None asks for a generated value), or None.
        arguments: values of the parameters in `tail`.
    """

    table: str
    head: str
    group: str
    tail: str
    columns: tuple[str, ...]
    types: "tuple[TypeEngine[Any], ...]" = attrs.field(repr=False)
    returning: int = 0
    batch_size: int = 1000
    capped: bool = False
    generated: str | None = None
    arguments: tuple[Any, ...] = ()
