"""The shared regular-expression language: what it accepts, refuses and means.

``pieces`` and ``likes`` generate a pattern and an oracle for it: a matcher that follows sets of positions and
shares nothing with the parser or with ``re``. Tests that have a PostgreSQL server can import them as well.
"""

import pickle
import re
import sys
import time
import warnings
from collections.abc import Callable

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataflow.regex import (
    MAX_DEPTH,
    MAX_SIZE,
    PatternError,
    like_pattern,
    parse,
    postgres_pattern,
    python_pattern,
)

# --- the generator and its oracle ---

CASES = (
    *("aA", "bB", "kK\u212a", "sS\u017f", "iI", "\u0131", "\u0130", "éÉ", "ßẞ"),
    *("\u03c3\u03c2\u03a3", "\xb5\u03bc\u039c", "\u01c4\u01c5\u01c6", "\U00010428\U00010400"),
)
"""Characters that are one another's cases."""
UNCASED = "019_ -]^\\.{}[()|&~#*+?$\t\n\r\x0b\x1c\xa0\u0663日\u2028😀"
ALPHABET = "".join(CASES) + UNCASED
WORD = re.compile("[0-9A-Za-z_]")
SHORTHANDS = {"d": "[0-9]", "w": "[0-9A-Za-z_]", "s": "[ \t\n\r\f\v]"}

Ends = Callable[[str, frozenset[int], bool], frozenset[int]]
"""(text, start positions, ignore case) -> positions where a match can end."""


@attrs.frozen
class Piece:
    """A pattern as a user writes it, and what it means."""

    source: str
    ends: Ends = attrs.field(repr=False)

    def found_in(self, text: str, *, ignore_case: bool = False) -> bool:
        """Tell whether the text contains a match."""
        return bool(self.ends(text, frozenset(range(len(text) + 1)), ignore_case))


def _cases_of(char: str) -> str:
    return next((group for group in CASES if char in group), char)


def _one(source: str, accepts: Callable[[str, bool], bool]) -> Piece:
    def ends(text: str, starts: frozenset[int], ignore_case: bool) -> frozenset[int]:
        return frozenset(at + 1 for at in starts if at < len(text) and accepts(text[at], ignore_case))

    return Piece(source, ends)


def _place(source: str, holds: Callable[[str, int], bool]) -> Piece:
    return Piece(source, lambda text, starts, _: frozenset(at for at in starts if holds(text, at)))


def _at_edge(text: str, at: int) -> bool:
    before, after = text[max(at - 1, 0) : at], text[at : at + 1]
    return bool(WORD.match(before)) != bool(WORD.match(after))


def _spelled(char: str, how: int) -> str:
    if how == 1 and ord(char) <= 0xFF:
        return f"\\x{ord(char):02x}"
    if how == 2 and ord(char) <= 0xFFFF:
        return f"\\u{ord(char):04X}"
    return char if char.isalnum() else f"\\{char}"


@st.composite
def _characters(draw: st.DrawFn) -> Piece:
    char = draw(st.sampled_from(ALPHABET))
    return _one(_spelled(char, draw(st.integers(0, 2))), lambda c, i: c == char or (i and c in _cases_of(char)))


@st.composite
def _brackets(draw: st.DrawFn) -> Piece:
    tests: list[Callable[[str, bool], bool]] = []
    sources: list[str] = []
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            letter = draw(st.sampled_from("dwsDWS"))
            members = re.compile(SHORTHANDS[letter.lower()])
            opposite = letter.isupper()
            tests.append(lambda c, _, members=members, opposite=opposite: bool(members.match(c)) != opposite)
            sources.append(f"\\{letter}")
        else:
            low, high = sorted(draw(st.tuples(*[st.sampled_from(ALPHABET)] * 2)))
            tests.append(lambda c, i, lo=low, hi=high: any(lo <= x <= hi for x in (_cases_of(c) if i else c)))
            spelled = [_spelled(char, draw(st.integers(0, 2))) for char in (low, high)]
            sources.append(spelled[0] if low == high else "-".join(spelled))
    negated = draw(st.booleans())
    source = f"[{'^' if negated else ''}{''.join(sources)}]"
    return _one(source, lambda c, i: any(test(c, i) for test in tests) != negated)


@st.composite
def _shorthands(draw: st.DrawFn) -> Piece:
    letter = draw(st.sampled_from("dwsDWS"))
    members = re.compile(SHORTHANDS[letter.lower()])
    return _one(f"\\{letter}", lambda c, _: bool(members.match(c)) != letter.isupper())


PLACES = (
    _place("^", lambda _, at: at == 0),
    _place("$", lambda text, at: at == len(text)),
    _place(r"\b", _at_edge),
    _place(r"\B", lambda text, at: not _at_edge(text, at)),
)


def _then(*pieces: Piece) -> Piece:
    def ends(text: str, starts: frozenset[int], ignore_case: bool) -> frozenset[int]:
        for piece in pieces:
            starts = piece.ends(text, starts, ignore_case)
        return starts

    return Piece("".join(piece.source for piece in pieces), ends)


def _either(*pieces: Piece) -> Piece:
    def ends(text: str, starts: frozenset[int], ignore_case: bool) -> frozenset[int]:
        return frozenset().union(*(piece.ends(text, starts, ignore_case) for piece in pieces))

    return Piece("|".join(piece.source for piece in pieces), ends)


def _grouped(piece: Piece, opening: str = "(?:") -> Piece:
    return Piece(f"{opening}{piece.source})", piece.ends)


def _times(piece: Piece, least: int, most: int | None, written: str) -> Piece:
    def ends(text: str, starts: frozenset[int], ignore_case: bool) -> frozenset[int]:
        for _ in range(least):
            starts = piece.ends(text, starts, ignore_case)
        for _ in range(len(text) + 1 if most is None else most - least):
            starts |= piece.ends(text, starts, ignore_case)
        return starts

    return Piece(f"{piece.source}{written}", ends)


COUNTS = (
    (0, None, "*"),
    (1, None, "+"),
    (0, 1, "?"),
    (0, 0, "{0}"),
    (2, 2, "{2}"),
    (1, None, "{1,}"),
    (1, 3, "{1,3}"),
)


def _larger(inner: st.SearchStrategy[Piece]) -> st.SearchStrategy[Piece]:
    groups = st.builds(_grouped, inner, st.sampled_from(["(", "(?:"]))
    repeated = st.builds(
        lambda piece, count, lazy: _times(_grouped(piece), *count[:2], count[2] + lazy),
        inner,
        st.sampled_from(COUNTS),
        st.sampled_from(["", "?"]),
    )
    sequences = st.lists(inner, max_size=4).map(lambda parts: _grouped(_then(*parts)))
    choices = st.lists(inner, min_size=1, max_size=3).map(lambda parts: _grouped(_either(*parts)))
    return groups | repeated | sequences | choices


def pieces() -> st.SearchStrategy[Piece]:
    """Generate patterns of the shared language with their meaning."""
    dot = _one(".", lambda char, _: char != "\n")
    leaves = _characters() | _brackets() | _shorthands() | st.sampled_from([dot, *PLACES, _then()])
    parts = st.lists(st.recursive(leaves, _larger, max_leaves=8), max_size=4)
    return parts.map(lambda parts: _then(*parts)).filter(_repeats_characters)


def _repeats_characters(piece: Piece) -> bool:
    try:
        parse(piece.source)
    except PatternError as error:
        if "mere place" not in error.reason:
            raise
        return False
    return True


def texts() -> st.SearchStrategy[str]:
    """Generate texts from the characters that the patterns speak of."""
    return st.text(ALPHABET, max_size=8)


@st.composite
def likes(draw: st.DrawFn) -> Piece:
    """Generate LIKE patterns with their meaning."""
    parts = [PLACES[0]]
    for char in draw(st.lists(st.sampled_from("%%%__abkK\u017f\\%_é\n"), max_size=7)):
        anything = _one("_", lambda _, __: True)
        if char in "%_":
            parts.append(_times(anything, 0, None, "") if char == "%" else anything)
            parts[-1] = Piece(char, parts[-1].ends)
        else:
            source = f"\\{char}" if char == "\\" or draw(st.booleans()) else char
            parts.append(_one(source, lambda c, i, char=char: c == char or (i and c in _cases_of(char))))
    parts = [attrs.evolve(parts[0], source=""), *parts[1:], attrs.evolve(PLACES[1], source="")]
    return _then(*parts)


# --- meaning ---


@settings(max_examples=500, deadline=None)
@given(pieces(), texts(), st.booleans())
def test_a_pattern_finds_what_the_oracle_finds(piece: Piece, text: str, ignore_case: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled = re.compile(python_pattern(piece.source, ignore_case=ignore_case))
    assert bool(compiled.search(text)) == piece.found_in(text, ignore_case=ignore_case)


@settings(max_examples=300, deadline=None)
@given(likes(), texts(), st.booleans())
def test_a_like_pattern_finds_what_the_oracle_finds(piece: Piece, text: str, ignore_case: bool) -> None:
    compiled = re.compile(like_pattern(piece.source).to_python(ignore_case=ignore_case))
    assert bool(compiled.search(text)) == piece.found_in(text, ignore_case=ignore_case)


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from(r"ab^$.|()[]{}?:*+\\-,0123dwsbDWSBxu!=<>P#i"), max_size=12), texts())
@example(pattern="(?:a|(?:b)*)", text="ab")
def test_any_text_is_refused_or_means_what_re_makes_of_it(pattern: str, text: str) -> None:
    try:
        written = python_pattern(pattern)
    except PatternError as error:
        assert 0 <= error.position <= len(pattern)  # noqa: PT017
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # "--" and the like in brackets, which re may give a meaning
        plain = re.compile(pattern, re.ASCII)
    trailing = text.removesuffix("\n") if "$" in pattern else text  # where re's own $ differs on purpose
    if r"\B" in pattern and not trailing:  # before Python 3.14
        return
    assert bool(re.search(written, trailing)) == bool(plain.search(trailing))


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("", ["", "x"], []),
        ("b", ["abc"], ["ac"]),
        ("a.c", ["abc", "a\rc", "a\u2028c"], ["a\nc", "ac"]),
        ("^a", ["ab"], ["ba", "b\na"]),
        ("a$", ["ba"], ["a\n", "a\nb"]),
        ("^$", [""], ["\n"]),
        ("a|bc|", ["", "x"], []),
        ("^(a|)b$", ["ab", "b"], ["aab"]),
        ("^(?:ab){2}$", ["abab"], ["ab", "ababab"]),
        ("^a{2,}?$", ["aa", "aaa"], ["a"]),
        ("^a{1,2}$", ["a", "aa"], ["", "aaa"]),
        ("^(?:){255}a{0}$", [""], ["a"]),
        ("^{}}{x{$", ["{}}{x{"], []),
        ("^[]a]]$", ["]]", "a]"], ["a"]),
        ("^[^]a]$", ["b"], ["]", "a"]),
        ("^[a-c-]$", ["a", "b", "-"], ["d"]),
        ("^[-+.*]$", ["-", "+", ".", "*"], [",", "a"]),
        ("^[a-z0-9-_]$", ["-", "_"], ["."]),
        (r"^[\^\]\\\-]$", ["^", "]", "\\", "-"], ["_"]),
        ("^[[.]$", ["[", "."], ["]"]),
        (r"^\d$", ["7"], ["\u0663"]),
        (r"^\w$", ["a", "_"], ["é", "\u017f", "日"]),
        (r"^\s$", [" ", "\v"], ["\xa0", "\x1c", "\u2028"]),
        (r"^[\s\S]$", ["\n", "😀"], [""]),
        (r"^[^\d\D]$", [], ["", "a"]),
        (r"^[\W\d]$", ["é", "5", "-"], ["a", "_"]),
        (r"^[^\W_]$", ["a", "5"], ["_", "-", "é"]),
        (r"\bcat\b", ["a cat!", "écaté"], ["cats", "cat_"]),
        (r"\Bcat", ["scat"], ["cat", "écat"]),
        (r"^\B$", [""], ["a"]),
        (r"^\t\n\r\f\v$", ["\t\n\r\f\v"], []),
        (r"^\x41\u00e9\x2e\x00$", ["Aé.\0"], ["Aéx\0"]),
        (r"^\.\*\/\ \_$", [".*/ _"], []),
        ("^(?:^)*a$", ["a"], ["ba"]),
        (r"b(?:\b){2,3}a?$", ["b", "ab"], ["ba"]),
        (r"^(?:(?:^|,)?\d)+$", ["1,2", "12"], ["1,", "1,,2"]),
    ],
)
def test_a_pattern_means_what_the_language_says(pattern: str, matching: list[str], other: list[str]) -> None:
    found = re.compile(parse(pattern).to_python())
    assert [text for text in matching if not found.search(text)] == []
    assert [text for text in other if found.search(text)] == []


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("^straße$", ["STRAẞE", "Straße"], ["strasse"]),
        ("^k$", ["K", "\u212a"], ["c"]),
        ("^\u017f$", ["s", "S"], ["f"]),
        ("^[j-l]$", ["K", "\u212a", "k"], ["m"]),
        ("^[^j-l]$", ["m", "M"], ["K", "\u212a", "k"]),
        ("^i$", ["I"], ["\u0131", "\u0130"]),
        ("^\u0130$", ["\u0130"], ["i", "I"]),
        ("^ΌΣΟΣ$", ["όσος", "ΌΣΟΣ"], ["οσος"]),
        ("^\u01c6$", ["\u01c4", "\u01c5"], []),
        (r"^\w$", ["s"], ["\u017f"]),
        (r"^[\da]$", ["A", "1"], ["b"]),
        ("^[\x00-\U0010ffff]$", ["x"], [""]),
        ("^[^\x00-jl-\U0010ffff]$", [], ["k", "K", "j"]),
    ],
)
def test_ignoring_case_follows_simple_case_folding(pattern: str, matching: list[str], other: list[str]) -> None:
    found = re.compile(parse(pattern).to_python(ignore_case=True))
    assert [text for text in matching if not found.search(text)] == []
    assert [text for text in other if found.search(text)] == []


def test_no_script_with_case_lies_beyond_the_table_of_cases() -> None:
    beyond = map(chr, range(0x20000, sys.maxunicode + 1))
    assert [char for char in beyond if char.casefold() != char or char.lower() != char or char.upper() != char] == []


# --- refusals ---


@pytest.mark.parametrize(
    ("pattern", "position", "part"),
    [
        ("(?i)a", 0, "use $iregex instead of (?i)"),
        ("a(?s:.)", 1, r"write [\s\S]"),
        ("(?m)^a", 0, "inline flag"),
        ("x(?=a)", 1, "lookahead"),
        ("x(?!a)", 1, "negative lookahead"),
        ("(?<=a)x", 0, "lookbehind"),
        ("(?<!a)x", 0, "negative lookbehind"),
        ("(?P<n>a)", 0, "named group"),
        ("(?P=n)", 0, "backreference"),
        ("(?>a)", 0, "write (?:…) instead"),
        ("(?(1)a|b)", 0, "condition"),
        ("(?#x)", 0, "comment"),
        (r"(a)\1", 3, "backreference"),
        (r"\07", 0, r"write \x00"),
        (r"a\Z", 1, "write $ instead"),
        (r"\Aa", 0, "write ^ instead"),
        (r"\ya", 0, r"write \b instead"),
        (r"\p{L}", 0, "Unicode property"),
        (r"\q", 0, "write q"),
        (r"\é", 0, "write é"),
        (r"\U0001F600", 0, "the character itself"),
        (r"[\b]", 1, r"\x08"),
        ("[[:alpha:]]", 1, "POSIX class [:alpha:]"),
        ("[a[=e=]]", 2, "POSIX class [=e=]"),
        ("a++", 1, "possessive quantifier ++"),
        ("a{2}+", 1, "possessive"),
        ("a**", 2, "quantifier on a quantifier"),
        ("a{2}{3}", 4, "quantifier on a quantifier"),
        ("a???", 3, "quantifier on a quantifier"),
        ("*a", 0, r"write \*"),
        ("a|+", 2, "nothing to repeat"),
        ("(?a", 0, "inline flag"),
        ("(*a)", 1, "nothing to repeat"),
        ("^*", 1, "^ is a place"),
        (r"\b+", 2, r"\b is a place"),
        ("***:a", 0, "nothing to repeat"),
        ("a{2", 1, r"write \{"),
        ("a{,3}", 1, r"counts are {m}, {m,} or {m,n}"),
        ("{2}", 0, "starts no count"),
        ("a{256}", 1, "255"),
        ("a{0,999}", 1, "255"),
        ("a{3,2}", 1, "ends below its start"),
        ("(a", 0, "never closed"),
        ("a)", 1, "')' without '('"),
        ("[a", 0, "never closed"),
        ("[]", 0, "never closed"),
        ("[a-", 0, "never closed"),
        ("[a-\\", 3, "lone backslash"),
        ("[z-a]", 1, "z-a ends before its start"),
        (r"[a-\d]", 1, "ends in a class"),
        (r"[\d-z]", 1, "ends in a class"),
        ("a\\", 1, r"write \\"),
        (r"\x4", 0, "2 hexadecimal digits"),
        (r"\u12g4", 0, "4 hexadecimal digits"),
        (r"a\ud83d", 1, "surrogate"),
        ("a\ud83d", 1, "surrogate"),
        ("(" * (MAX_DEPTH + 1), MAX_DEPTH, "groups within each other"),
        ("(?:a{255}){255}", 0, "65,024 steps"),
        ("(?:(?:(?:ab?){0,9}c?){0,9}d?){0,9}", 0, "too large"),
        ("a" * (MAX_SIZE + 2), 0, "too large"),
        ("a(?:^|,)*", 1, "repeat only the characters"),
        (r"(?:a*\b)+", 0, "mere place"),
    ],
)
def test_a_refusal_names_the_construct_and_its_position(pattern: str, position: int, part: str) -> None:
    with pytest.raises(PatternError) as caught:
        parse(pattern)
    assert part in caught.value.reason
    assert caught.value.position == position
    assert f"at position {position}" in str(caught.value)


@pytest.mark.parametrize(
    "pattern",
    [
        "(?:a{255}){39}",
        r"^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}$",
        r"(?:(?:\d{1,3}\.){3}\d{1,3},?){1,40}",
        "|".join(f"word{n}" for n in range(1000)),
        "(?:" * MAX_DEPTH + "a" + ")*" * MAX_DEPTH,
    ],
)
def test_large_patterns_are_fine_as_long_as_postgresql_copes(pattern: str) -> None:
    re.compile(python_pattern(pattern, ignore_case=True))


def test_a_pattern_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(PatternError("bad", 3)))
    assert (error.reason, error.position) == ("bad", 3)


@pytest.mark.parametrize("text", ["a\\", "\\", "%\\\\\\"])
def test_a_like_pattern_must_not_end_in_a_lone_backslash(text: str) -> None:
    with pytest.raises(PatternError) as caught:
        like_pattern(text)
    assert caught.value.position == len(text) - 1


# --- the written forms ---


@pytest.mark.parametrize(
    ("pattern", "postgres"),
    [
        ("", ""),
        ("a||b", "(?:a|b)?"),
        (r"^\bx.\B$", r"^\yx[^\u000a]\Y$"),
        ("(ab)+?", "(?:ab)+"),
        (r"[\s\S]", "."),
        ("{x}", r"\{x\}"),
        (r"\*\*\*=x", r"\*\*\*=x"),
        (r"\(\?i\)", r"\(\?i\)"),
        (r"\x00", r"\u0000"),
        (r"[\]\^\-\\]", r"[\-\\-\^]"),
        (r"\D", "[^0-9]"),
    ],
)
def test_the_form_for_postgresql_needs_neither_flags_nor_luck(pattern: str, postgres: str) -> None:
    assert postgres_pattern(pattern) == postgres


def test_ignoring_case_writes_classes_instead_of_a_flag() -> None:
    assert postgres_pattern("ka-1", ignore_case=True) == "[Kk\u212a][Aa]\\-1"
    assert python_pattern("ka-1", ignore_case=True) == "(?as)[Kk\u212a][Aa]\\-1"


def test_the_runs_of_a_like_pattern_are_put_in_order() -> None:
    assert like_pattern("a%_%b%c").to_postgres() == "^a..*b.*c$"
    assert like_pattern("%%ab%").to_postgres() == "ab"
    assert like_pattern("_%").to_postgres() == "^."


def test_a_like_pattern_of_many_runs_stays_linear_in_python() -> None:
    found = re.compile(like_pattern("%a%a%a%a%a%a%a%a%b").to_python(ignore_case=True))
    started = time.perf_counter()
    assert not found.search("a" * 100_000)
    assert time.perf_counter() - started < 2
