"""Patterns as trees: the nodes, how large an automaton they make, and their forms for each engine.

The half of ``dataflow.regex`` that knows the engines and not the grammar. Import it from there.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Final, Literal, TypeAlias

import attrs

_LAST: Final = 0x10FFFF
Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""Code points as inclusive ranges, sorted and disjoint."""
Node: TypeAlias = "Chars | Mark | Seq | Either | Repeat | Gap"


@attrs.frozen
class Chars:
    """One character out of a set (or, negated, out of all others)."""

    literal: Ranges = ()
    """What the pattern spells out; widened to all cases when case is ignored."""
    shorthand: Ranges = ()
    """What ``\\d \\w \\s`` and their opposites stand for; the same in every case."""
    negated: bool = False


@attrs.frozen
class Mark:
    """A place between characters."""

    place: Literal["start", "end", "edge", "inside"]


@attrs.frozen
class Seq:
    """One after the other; without items, the empty text."""

    items: tuple[Node, ...] = ()


@attrs.frozen
class Either:
    """Any one of the branches."""

    branches: tuple[Node, ...]


@attrs.frozen
class Repeat:
    """The item from ``least`` to ``most`` times (None: without bound)."""

    item: Node
    least: int
    most: int | None


@attrs.frozen
class Gap:
    """Any run of characters, then the first place where ``then`` (of fixed length) fits. Only LIKE has it."""

    then: Node


ANY: Final = Chars(shorthand=((0, _LAST),))
EMPTY: Final = Seq()


@attrs.frozen
class Pattern:
    """A parsed pattern."""

    root: Node

    def to_python(self, *, ignore_case: bool = False) -> str:
        """Write the pattern for ``re.search``, to be compiled without flags.

        ``re`` backtracks: ``(a+)+$`` takes exponential time on SQLite, but not on PostgreSQL. No rule finds
        all such patterns, so none is refused for it. A LIKE pattern is always linear: let strangers use that.

        Args:
            ignore_case: write every letter as the class of its cases.
        """
        return _PYTHON.prefix + _write(self.root, _PYTHON, ignore_case=ignore_case)

    def to_postgres(self, *, ignore_case: bool = False) -> str:
        """Write the pattern for PostgreSQL's ``~``, with its left side under ``COLLATE "C"``.

        Args:
            ignore_case: write every letter as the class of its cases; ``~*`` is not needed.
        """
        return _POSTGRES.prefix + _write(self.root, _POSTGRES, ignore_case=ignore_case)


# --- sets of characters ---


def merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Sort ranges and join those that touch."""
    result: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if result and low <= result[-1][1] + 1:
            result[-1] = result[-1][0], max(result[-1][1], high)
        else:
            result.append((low, high))
    return tuple(result)


def others(ranges: Ranges) -> Ranges:
    """Return all characters that are not in the ranges."""
    starts = [0, *(high + 1 for _, high in ranges)]
    ends = [*(low - 1 for low, _ in ranges), _LAST]
    return tuple((low, high) for low, high in zip(starts, ends, strict=True) if low <= high)


def _fold(char: str) -> str:
    """Return the character's simple case folding, as Unicode's CaseFolding.txt defines it.

    Python offers only the full folding, to several characters. The Kelvin sign is a ``k`` and the long s an
    ``s``, but the Turkish dotless i and dotted I stay themselves.
    """
    return next((folded for folded in (char.casefold(), char.lower()) if len(folded) == 1), char)


@cache
def _cases() -> tuple[Sequence[int], Mapping[int, Sequence[int]]]:
    """Return the code points that have other cases, sorted, and those cases of each."""
    groups: dict[str, list[int]] = {}
    for code in range(0x20000):  # scripts with case all lie in the first two planes
        groups.setdefault(_fold(chr(code)), []).append(code)
    cases = {code: group for group in groups.values() if len(group) > 1 for code in group}
    return sorted(cases), cases


def _all_cases(ranges: Ranges) -> Ranges:
    codes, cases = _cases()
    cased = (code for low, high in ranges for code in codes[bisect_left(codes, low) : bisect_right(codes, high)])
    return merged((*ranges, *((other, other) for code in cased for other in cases[code])))


# --- how large it is ---


@attrs.frozen
class Size:
    """How large PostgreSQL's automaton for a node grows: it copies arcs past whatever may be empty.

    Attributes:
        exits: arcs that reach the end of the node from within.
        arcs: arcs at the places within.
        leak: places within that every arc from before is copied to, since all between may be empty.
        empty: the node may match the empty text.
        bare: it may match a mere place, such as ``^``.
        chars: it contains a character.
    """

    exits: int = 0
    arcs: int = 0
    leak: int = 0
    empty: bool = True
    bare: bool = False
    chars: bool = False


def size(node: Node) -> Size:
    """Measure a node without building anything: fast for every pattern, whatever its counts."""
    match node:
        case Chars():
            return Size(exits=1, empty=False, chars=True)
        case Mark():
            return Size(exits=1, bare=True)
        case Seq(items):
            return _size_in_sequence([size(item) for item in items])
        case Either(branches):
            sizes = [size(branch) for branch in branches]
            return Size(
                exits=sum(each.exits for each in sizes),
                arcs=sum(each.arcs for each in sizes),
                leak=sum(each.leak for each in sizes),
                empty=any(each.empty for each in sizes),
                bare=any(each.bare for each in sizes),
                chars=any(each.chars for each in sizes),
            )
        case Repeat(item, least, most):
            return _size_repeated(size(item), least, most)
        case Gap(then):
            inner = size(then)
            return attrs.evolve(inner, arcs=inner.arcs + inner.leak + 1, leak=inner.leak + 1, empty=False)


def _size_in_sequence(sizes: Sequence[Size]) -> Size:
    exits = arcs = leak = 0
    empty = True
    for index, each in enumerate(sizes):
        arcs += each.arcs + exits * (each.leak + 1)
        leak += each.leak + (index > 0) if empty else 0
        exits = each.exits + (exits if each.empty else 0)
        empty = empty and each.empty
    bare = empty and any(each.bare for each in sizes)
    return Size(exits, arcs, leak, empty, bare, any(each.chars for each in sizes))


def _size_repeated(item: Size, least: int, most: int | None) -> Size:
    copies = max(least, 1) if most is None else most
    between = item.exits * (copies * (copies - 1) // 2 if item.empty else copies - 1)
    loop = item.exits * (item.leak + 1) if most is None else 0
    return attrs.evolve(
        item,
        exits=item.exits * (copies if item.empty else min(copies, copies - least + 1)),
        arcs=copies * item.arcs + between * (item.leak + 1) + loop,
        leak=item.leak + ((copies - 1) * (item.leak + 1) if item.empty else 0),
        empty=item.empty or least == 0,
    )


# --- writing it out ---


@attrs.frozen
class _Engine:
    prefix: str
    marks: Mapping[str, str]
    gap: str


# (?!\b) because Python before 3.14 lets \B not match in an empty text. The gap is an atomic group: otherwise
# every % of a LIKE would multiply the time by the length of the text.
_PYTHON: Final = _Engine("(?as)", {"start": "^", "end": r"\Z", "edge": r"\b", "inside": r"(?!\b)"}, "(?>.*?{})")
_POSTGRES: Final = _Engine("", {"start": "^", "end": "$", "edge": r"\y", "inside": r"\Y"}, ".*{}")
_SPECIAL: Final = frozenset(r"\.^$*+?{}[]()|-&~")


def _write(node: Node, engine: _Engine, *, ignore_case: bool) -> str:
    match node:
        case Chars():
            return _write_chars(node, ignore_case=ignore_case)
        case Mark(place):
            return engine.marks[place]
        case Seq(items):
            return "".join(_write(item, engine, ignore_case=ignore_case) for item in items)
        case Either(branches):
            return f"(?:{'|'.join(_write(branch, engine, ignore_case=ignore_case) for branch in branches)})"
        case Repeat(item, least, most):
            text = _write(item, engine, ignore_case=ignore_case)
            return (text if isinstance(item, Chars | Either) else f"(?:{text})") + _write_counts(least, most)
        case Gap(then):
            return engine.gap.format(_write(then, engine, ignore_case=ignore_case))


def _write_counts(least: int, most: int | None) -> str:
    known = {(0, None): "*", (1, None): "+", (0, 1): "?", (least, least): f"{{{least}}}"}
    return known.get((least, most), f"{{{least},{'' if most is None else most}}}")


def _write_chars(chars: Chars, *, ignore_case: bool) -> str:
    literal = _all_cases(chars.literal) if ignore_case else chars.literal
    ranges = merged((*literal, *chars.shorthand))
    if ranges == ANY.shorthand and not chars.negated:
        return "."
    if len(ranges) == 1 and ranges[0][0] == ranges[0][1] and not chars.negated:
        return _write_char(ranges[0][0])
    members = (
        _write_char(low) + ("" if low == high else ("-" if low + 1 < high else "") + _write_char(high))
        for low, high in ranges
    )
    return f"[{'^' if chars.negated else ''}{''.join(members)}]"


def _write_char(code: int) -> str:
    char = chr(code)
    if not char.isprintable():
        return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
    return f"\\{char}" if char in _SPECIAL else char
