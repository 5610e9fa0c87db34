"""What a random program is made of: operations, steps, and values that each database spells in its own way.

Plain data: knows neither how operations are drawn nor what they mean.
"""

from collections.abc import Mapping
from typing import Any, Self

import attrs

SPAN = 10_000
"""Symbolic ids of one operation: those of operation 3 are 30,000 to 39,999, so that a later one is greater."""
GHOSTS = 2**40
"""Ids from here on belong to no record, on no database."""


class Ref(int):
    """An auto id. Its number orders it among all ids of its model; databases call it what they like.

    Attributes:
        model: whose id it is.
    """

    model: str

    def __new__(cls, value: int, model: str) -> Self:
        """Make one."""
        self = super().__new__(cls, value)
        self.model = model
        return self

    def __repr__(self) -> str:
        return f"Ref({int(self)}, {self.model!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Ref, (int(self), self.model))

    @property
    def origin(self) -> int:
        """Number of the operation that made it; of none for ghosts."""
        return -1 if self >= GHOSTS else self // SPAN


@attrs.frozen(order=True)
class Stamp:
    """An instant that the framework's clock gave: the same for all that one operation wrote."""

    number: int


@attrs.frozen
class Wire:
    """An input that is connected to an output of an earlier operation of the same workflow."""

    source: int
    output: str


@attrs.frozen
class Cursor:
    """`next_cursor` of the page that an earlier operation returned."""

    number: int


@attrs.frozen
class Text:
    """A text of the framework's: any, but the same on all databases.

    Attributes:
        place: where it stands in the program; empty where it may differ.
    """

    place: tuple[int, ...]


@attrs.frozen
class Wrong:
    """A value that its field must refuse."""

    value: Any


SYMBOLS = frozenset({Ref, Cursor, Wrong})


def symbols(value: Any) -> list[Any]:
    """Return the symbolic values anywhere in params."""
    kind = type(value)
    if kind in SYMBOLS:
        return [value]
    inner = value.values() if kind is dict else value if kind is list or kind is tuple else ()
    found: list[Any] = []
    for item in inner:
        found += symbols(item)
    return found


@attrs.frozen(eq=False)
class Op:
    """One operation, with the params of its node.

    Attributes:
        number: place in the program it was drawn for; it stays when others are left out.
        kind: as in `dataflow.operations`.
        model: name.
        params: of the node.
        fault: (class, code) of the error that its input must raise, where it was drawn wrong on purpose.
        symbols: the symbolic values in its params.
    """

    number: int
    kind: str
    model: str
    params: Mapping[str, Any]
    fault: tuple[str, str] | None = None
    symbols: tuple[Any, ...] = attrs.field(init=False, repr=False)

    @symbols.default
    def _find_symbols(self) -> tuple[Any, ...]:
        return tuple(symbols(self.params))


@attrs.frozen(eq=False)
class Step:
    """What is run at once: one operation, or a workflow of several.

    Attributes:
        ops: in the order they run.
        mode: "direct" (express, whichever costs the database less), "sync", "async", "node" (a workflow), "late" (the
            same, params given at execution) or "anode" (the same on the async runtime).
        scope: params of a TransactionScopeNode before them, or None.
        boom: whether a node of the user's own fails after the last.
    """

    ops: tuple[Op, ...]
    mode: str = "direct"
    scope: Mapping[str, Any] | None = None
    boom: bool = False


class Failure(Exception):
    """An operation must raise this error, and write nothing.

    Args:
        name: class of the error.
        code: its code.

    Attributes:
        kept: whether parts were committed before, by `commit_every`.
    """

    def __init__(self, name: str, code: str) -> None:
        super().__init__(name, code)
        self.name = name
        self.code = code
        self.kept = False


class Ambiguous(Exception):
    """The specification leaves open what happens: such an operation is not run."""


class Dangling(Exception):
    """An operation refers to what an operation that is no longer in the program made."""


def origins(step: Step) -> set[int]:
    """Return the numbers of the operations that a step refers to."""
    found = set()
    for op in step.ops:
        found |= {leaf.origin for leaf in op.symbols if isinstance(leaf, Ref)}
        found |= {leaf.number for leaf in op.symbols if isinstance(leaf, Cursor)}
    return found - {op.number for op in step.ops} - {-1}
