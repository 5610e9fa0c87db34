r"""One regular-expression language with the same meaning on SQLite and PostgreSQL.

Owns the grammar behind ``$regex``, ``$iregex`` and ``$ilike``: it parses a pattern, refuses whatever the two
engines do not share, and writes the rest for Python's ``re`` and for PostgreSQL's ``~``. It knows nothing of
filters, SQL or connections. Only *whether* a text contains a match is kept, not which match or which groups.
The written forms need no flags: a letter that ignores case becomes a class; ``\d \w \s \b`` mean ASCII.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, NoReturn

from dataflow._regex_tree import (
    ANY,
    EMPTY,
    Chars,
    Either,
    Gap,
    Mark,
    Node,
    Pattern,
    Ranges,
    Repeat,
    Seq,
    merged,
    others,
    size,
)

__all__ = [
    "MAX_DEPTH",
    "MAX_REPEAT",
    "MAX_SIZE",
    "Pattern",
    "PatternError",
    "like_pattern",
    "parse",
    "postgres_pattern",
    "python_pattern",
]

MAX_REPEAT: Final = 255
"""PostgreSQL's largest count in ``{m,n}`` (documentation, 9.7.3.1)."""
MAX_SIZE: Final = 10_000
"""Steps of a pattern with its counts written out; a character is a step, unless it may be missing and so lets
others skip it. Of 200,000 random patterns below it, PostgreSQL 18 compiled each within about a second."""
MAX_DEPTH: Final = 50
"""Groups within groups; Python's compiler recurses into each."""


class PatternError(ValueError):
    """A pattern that is wrong, or that does not mean the same on every database.

    Attributes:
        reason: what is wrong and, where there is an obvious alternative, what to write instead.
        position: index into the pattern, in characters from 0.
    """

    def __init__(self, reason: str, position: int) -> None:
        super().__init__(f"{reason} (at position {position})")
        self.reason = reason
        self.position = position

    def __reduce__(self) -> tuple[type["PatternError"], tuple[str, int]]:
        return type(self), (self.reason, self.position)


def parse(pattern: str) -> Pattern:
    """Parse a regular expression of the shared language.

    Raises:
        PatternError: the pattern is malformed, or uses a construct that not every database has.
    """
    _refuse_surrogates(pattern)
    return _checked(_Parser(pattern).parse())


def like_pattern(text: str) -> Pattern:
    r"""Parse a LIKE pattern: ``%`` is any run, ``_`` any character, ``\`` takes the next one literally.

    It covers the whole text, newlines included, as LIKE does; it is matched in linear time on both databases.

    Raises:
        PatternError: the pattern ends in a lone backslash, or is too long.
    """
    _refuse_surrogates(text)
    first, *rest = _like_segments(text)
    if not rest:
        return _checked(Seq((Mark("start"), *first, Mark("end"))))
    *middle, last = rest
    if not first and not last and len(middle) == 1:  # "%word%": a plain search is what both engines do best
        return _checked(_seq(middle[0]))
    tail = (Repeat(ANY, 0, None), *last, Mark("end")) if last else ()
    return _checked(Seq((Mark("start"), *first, *(Gap(_seq(segment)) for segment in middle), *tail)))


@lru_cache(maxsize=512)
def python_pattern(pattern: str, *, ignore_case: bool = False) -> str:
    """Return ``parse(pattern).to_python(ignore_case=…)``, remembering recent answers."""
    return parse(pattern).to_python(ignore_case=ignore_case)


@lru_cache(maxsize=512)
def postgres_pattern(pattern: str, *, ignore_case: bool = False) -> str:
    """Return ``parse(pattern).to_postgres(ignore_case=…)``, remembering recent answers."""
    return parse(pattern).to_postgres(ignore_case=ignore_case)


# --- building the tree ---

_LONE_BACKSLASH: Final = r"a lone backslash at the end; write \\ for the character"


def _literal(char: str) -> Chars:
    return Chars(((ord(char), ord(char)),))


def _seq(items: Sequence[Node]) -> Node:
    return items[0] if len(items) == 1 else Seq(tuple(items))


def _repeat(item: Node, least: int, most: int | None) -> Node:
    if most == 0 or not size(item).chars:  # a place is where it is, however often one asks
        return EMPTY if least == 0 else item
    return Repeat(item, least, most)


def _checked(root: Node) -> Pattern:
    if (arcs := size(root).arcs) > MAX_SIZE:
        reason = f"the pattern is too large: {arcs:,} steps with its counts written out, where {MAX_SIZE:,} may be"
        raise PatternError(reason, 0)
    return Pattern(root)


def _refuse_surrogates(text: str, start: int = 0) -> None:
    if found := re.search("[\ud800-\udfff]", text):
        reason = "a lone surrogate is not a character; no database can store it"
        raise PatternError(reason, start + found.start())


def _like_segments(text: str) -> list[list[Node]]:
    """Split at the runs of ``%``. In a mixed run the ``_`` go first: ``%_%`` is ``_%``."""
    segments: list[list[Node]] = [[]]
    for token in re.finditer(r"\\?+(.)|\\", text, re.DOTALL):
        in_gap = len(segments) > 1 and not segments[-1]
        if token[1] is None:
            raise PatternError(_LONE_BACKSLASH, token.start())
        if token[0] == "%":
            segments.extend([] if in_gap else [[]])
        elif token[0] == "_":
            segments[-2 if in_gap else -1].append(ANY)
        else:
            segments[-1].append(_literal(token[1]))
    return segments


# --- the grammar ---

_DIGIT: Final = ((0x30, 0x39),)
_WORD: Final = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_SPACE: Final = ((0x09, 0x0D), (0x20, 0x20))
_SHORTHAND: Final[Mapping[str, Ranges]] = {
    name: ranges
    for letter, members in (("d", _DIGIT), ("w", _WORD), ("s", _SPACE))
    for name, ranges in ((letter, members), (letter.upper(), others(members)))
}
_ATOMS: Final[Mapping[str, Node]] = {
    ".": Chars(shorthand=((0x0A, 0x0A),), negated=True),
    "^": Mark("start"),
    "$": Mark("end"),
}
_ESCAPED_ATOMS: Final[Mapping[str, Node]] = {
    "b": Mark("edge"),
    "B": Mark("inside"),
    **{letter.upper(): Chars(shorthand=_SHORTHAND[letter], negated=True) for letter in "dws"},
}
_CONTROLS: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v"}
_HEX_DIGITS: Final = {"x": 2, "u": 4}
_QUANTIFIER: Final = re.compile(r"[*+?]|\{([0-9]+)(?:(,)([0-9]*))?\}")
_POSIX_CLASS: Final = re.compile(r"\[([:.=])[^\]]*?\1\]")

_REFUSED_ESCAPES: Final = (
    ("A", r"the anchor \A; write ^ instead"),
    ("Zz", r"the anchor \{}; write $ instead"),
    ("y", r"the boundary \y; write \b instead"),
    ("Y", r"the boundary \Y; write \B instead"),
    ("mM", r"the boundary \{}; write \b instead"),
    ("pP", r"the Unicode property \{}; list the characters in brackets instead"),
    ("0", r"the octal escape \0; write \x00 instead"),
    ("123456789k", r"the backreference \{}"),
    ("a", r"the escape \a; write \x07 instead"),
    ("e", r"the escape \e; write \x1b instead"),
    ("UN", r"the escape \{}; write the character itself instead"),
    ("hR", r"the class \{}; list the characters in brackets instead"),
)
_REFUSED_GROUPS: Final = (
    ("?=", "the lookahead (?=…)"),
    ("?!", "the negative lookahead (?!…)"),
    ("?<=", "the lookbehind (?<=…)"),
    ("?<!", "the negative lookbehind (?<!…)"),
    ("?P=", "the backreference (?P=…)"),
    ("?P<", "the named group (?P<…>…); write (…) instead"),
    ("?<", "the named group (?<…>…); write (…) instead"),
    ("?>", "the atomic group (?>…); write (?:…) instead"),
    ("?(", "the condition (?(…)…); write an alternative (…|…) instead"),
    ("?#", "the comment (?#…); leave it out"),
    ("?i", "the inline flag (?i); use $iregex instead of (?i)"),
    ("?s", r"the inline flag (?s); write [\s\S] for any character instead"),
    ("?", "the inline flag or group (?…); write (…) instead"),
)


class _Parser:
    """Recursive descent over the pattern; ``at`` is the next character to read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0

    def parse(self) -> Node:
        node = self.alternatives()
        if self.at < len(self.text):
            self.fail(r"')' without '('; write \) for the character")
        return node

    def fail(self, reason: str, at: int | None = None) -> NoReturn:
        raise PatternError(reason, self.at if at is None else at)

    def refuse(self, construct: str, at: int) -> NoReturn:
        self.fail(f"not the same on every database: {construct}", at)

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def take(self, token: str) -> bool:
        found = self.text.startswith(token, self.at)
        self.at += len(token) if found else 0
        return found

    def alternatives(self) -> Node:
        branches = [self.branch()]
        while self.take("|"):
            branches.append(self.branch())
        filled = [branch for branch in branches if branch != EMPTY]
        node = Either(tuple(filled)) if len(filled) > 1 else _seq(filled)
        return node if len(filled) == len(branches) else _repeat(node, 0, 1)

    def branch(self) -> Node:
        items: list[Node] = []
        while self.peek() not in ("", "|", ")"):
            items.append(self.quantified())
        return _seq([item for item in items if item != EMPTY])

    def quantified(self) -> Node:
        start = self.at
        node = self.atom()
        found = _QUANTIFIER.match(self.text, quantifier := self.at)
        if found is None:
            return node
        if isinstance(node, Mark) and self.text[start] != "(":
            self.fail(f"nothing to repeat: {self.text[start:quantifier]} is a place, not a character")
        self.at = found.end()
        if not self.take("?") and self.peek() == "+":
            self.refuse(f"the possessive quantifier {found[0]}+; write {found[0]} instead", quantifier)
        if _QUANTIFIER.match(self.text, self.at):
            self.fail("a quantifier on a quantifier; put the first into a group, as in (?:a*)*")
        least, most = self.counts(found)
        measured = size(node)
        if measured.bare and measured.chars and most != 1:  # PostgreSQL: "regular expression is too complex"
            self.refuse("repeating what may be a mere place, as in (?:^|,)*; repeat only the characters", start)
        return _repeat(node, least, most)

    def counts(self, found: re.Match[str]) -> tuple[int, int | None]:
        if found[1] is None:
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[found[0]]
        least = int(found[1])
        most = (int(found[3]) if found[3] else None) if found[2] else least
        if max(least, most or 0) > MAX_REPEAT:
            self.fail(f"the count {found[0]} is above {MAX_REPEAT}, PostgreSQL's largest", found.start())
        if most is not None and most < least:
            self.fail(f"the count {found[0]} ends below its start", found.start())
        return least, most

    def atom(self) -> Node:
        start = self.at
        char = self.text[start]
        self.at += 1
        if char == "(":
            return self.group(start)
        if char == "[":
            return self.bracket(start)
        if char == "\\":
            return self.escape(start)
        if char in "*+?":
            self.fail(rf"nothing to repeat before {char}; write \{char} for the character", start)
        if char == "{" and re.match("[0-9,]", self.peek()):
            self.fail(r"{ starts no count here; counts are {m}, {m,} or {m,n}; write \{ for the character", start)
        return _ATOMS.get(char) or _literal(char)

    def group(self, start: int) -> Node:
        if not self.take("?:"):
            for opening, construct in _REFUSED_GROUPS:
                if self.text.startswith(opening, self.at):
                    self.refuse(construct, start)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(f"more than {MAX_DEPTH} groups within each other", start)
        node = self.alternatives()
        self.depth -= 1
        if not self.take(")"):
            self.fail(r"'(' is never closed; write \( for the character", start)
        return node

    def escape(self, start: int) -> Node:
        if node := _ESCAPED_ATOMS.get(self.peek()):
            self.at += 1
            return node
        member = self.escaped(start)
        return _literal(member) if isinstance(member, str) else Chars(shorthand=member)

    def escaped(self, start: int) -> str | Ranges:
        """Read what follows a backslash, inside brackets or outside: a character, or a shorthand's set."""
        if not (char := self.peek()):
            self.fail(_LONE_BACKSLASH, start)
        self.at += 1
        if char in _SHORTHAND:
            return _SHORTHAND[char]
        if char in _HEX_DIGITS:
            return self.hexadecimal(start, _HEX_DIGITS[char])
        if char.isalnum() and char not in _CONTROLS:
            known = (reason.replace("{}", char) for letters, reason in _REFUSED_ESCAPES if char in letters)
            self.refuse(next(known, rf"the escape \{char}; write {char} for the character"), start)
        return _CONTROLS.get(char, char)

    def hexadecimal(self, start: int, width: int) -> str:
        found = re.compile(f"[0-9A-Fa-f]{{{width}}}").match(self.text, self.at)
        if found is None:
            self.fail(rf"\{self.text[start + 1]} needs {width} hexadecimal digits", start)
        self.at = found.end()
        char = chr(int(found[0], 16))
        _refuse_surrogates(char, start)
        return char

    def bracket(self, start: int) -> Node:
        negated = self.take("^")
        literal: list[tuple[int, int]] = []
        shorthand: list[tuple[int, int]] = []
        first = self.at
        while self.peek() != "]" or self.at == first:
            begin = self.at
            low = high = self.member(start)
            if self.peek() == "-" and self.text[self.at + 1 : self.at + 2] not in ("", "]"):
                self.at += 1
                high = self.member(start)
                self.check_range(low, high, begin)
            if isinstance(low, str) and isinstance(high, str):
                literal.append((ord(low), ord(high)))
            else:
                shorthand.extend(low if isinstance(low, tuple) else ())
        self.at += 1
        return Chars(merged(literal), merged(shorthand), negated)

    def member(self, start: int) -> str | Ranges:
        if not (char := self.peek()):
            self.fail(r"'[' is never closed; write \[ for the character", start)
        if found := _POSIX_CLASS.match(self.text, self.at):
            self.refuse(rf"the POSIX class {found[0]}; write \d, \w, \s or the characters instead", self.at)
        self.at += 1
        if char != "\\":
            return char
        if (mark := self.peek()) and mark in "bB":
            self.refuse(rf"\{mark} inside brackets; write \x08 for a backspace", self.at - 1)
        return self.escaped(self.at - 1)

    def check_range(self, low: str | Ranges, high: str | Ranges, begin: int) -> None:
        written = self.text[begin : self.at]
        if not isinstance(low, str) or not isinstance(high, str):
            self.fail(rf"the range {written} ends in a class; write \- for the character", begin)
        if high < low:
            self.fail(f"the range {written} ends before its start", begin)
