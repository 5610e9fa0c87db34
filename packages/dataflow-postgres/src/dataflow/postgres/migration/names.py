"""Names: of what migrations keep in the schema for a while, and those that PostgreSQL itself gives after columns."""

from collections.abc import Callable, Collection, Iterable, Mapping
from zlib import crc32

import attrs

Place = tuple[str, str]
"""(table, column)."""
_LONGEST = 63
"""Bytes of a name."""


def not_null_check(table: str, column: str) -> str:
    """Return the name of the check that proves a column to be filled before it is declared so."""
    return f"dataflow_notnull_{crc32(f'{table}.{column}'.encode()):08x}"


def counter_aside(name: str) -> str:
    """Return what a sequence is called for a while whose name another one has yet."""
    return f"dataflow_counter_{crc32(name.encode()):08x}"


@attrs.frozen
class Given:
    """Something that belongs to a column, and is mostly named after it.

    Attributes:
        label: "not_null" (the constraint that demands values, since PostgreSQL 18) or "seq" (of an identity column).
        name: its name.
    """

    label: str
    name: str


def usual(place: Place, label: str) -> str:
    """Return the name that PostgreSQL gives, as long as it is free (its function makeObjectName)."""
    first, second = (name.encode() for name in place)
    while len(first) + len(second) + len(label) + 2 > _LONGEST:
        if len(first) > len(second):
            first = first[:-1]
        else:
            second = second[:-1]
    return f"{first.decode(errors='ignore')}_{second.decode(errors='ignore')}_{label}"


def following(
    given: Mapping[Place, tuple[Given, ...]],
    moves: Iterable[tuple[Place, Place]],
    *,
    taken: Collection[str],
    quote: Callable[[str], str],
) -> tuple[dict[Place, tuple[Given, ...]], list[str], list[str]]:
    """Let what was named as usual follow columns that get other names, so that it is named as in a fresh build.

    Args:
        given: what belongs to columns, by their names before.
        moves: names of columns before and after.
        taken: names that are not free.
        quote: how the dialect quotes identifiers.

    Returns:
        What belongs to columns afterwards, statements that rename it, and those that undo it.
    """
    left = dict(given)
    sql, inverse = [], []
    for old, new in moves:
        kept = []
        for each in left.pop(old, ()):
            name = usual(new, each.label)
            if each.name != usual(old, each.label) or name == each.name or name in taken:
                kept.append(each)
                continue
            kept.append(Given(each.label, name))
            sql.append(_renaming(new[0], each, name, quote))
            inverse.append(_renaming(new[0], kept[-1], each.name, quote))
        left[new] = tuple(kept)
    return left, sql, inverse


def _renaming(table: str, what: Given, name: str, quote: Callable[[str], str]) -> str:
    if what.label == "seq":
        return f"ALTER SEQUENCE {quote(what.name)} RENAME TO {quote(name)}"
    return f"ALTER TABLE {quote(table)} RENAME CONSTRAINT {quote(what.name)} TO {quote(name)}"
