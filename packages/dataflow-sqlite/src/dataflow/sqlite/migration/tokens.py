"""SQL texts as SQLite keeps them, cut into tokens: identifiers, words, literals; comments and spaces are skipped.

Two texts that mean the same but for spaces, comments, quotes and the case of words have one normal form (`normal`).
"""

import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

Token = tuple[str, int, int]
"""A token: its text, where it starts, where it ends."""
_TOKEN = re.compile(
    r"""(?>(?:[ \t\n\r\f]+|--[^\n]*|/\*.*?(?:\*/|\Z))*)
    ( [xX]'[^']*' | '(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\]
    | [A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*
    | 0[xX][0-9a-fA-F_]+ | (?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9_]+)?
    | \|\| | ->> | -> | << | >> | <= | >= | == | != | <> | . | \Z )""",
    re.VERBOSE | re.DOTALL,
)
_QUOTES = {'"': '"', "`": "`", "[": "]"}
_STARTS = frozenset('_"`[')
_KEYWORDS = """\
ABORT ACTION ADD AFTER ALL ALTER ALWAYS ANALYZE AND AS ASC ATTACH AUTOINCREMENT BEFORE BEGIN BETWEEN BY CASCADE CASE
CAST CHECK COLLATE COLUMN COMMIT CONFLICT CONSTRAINT CREATE CROSS CURRENT_DATE CURRENT_TIME CURRENT_TIMESTAMP DATABASE
DEFAULT DEFERRABLE DEFERRED DELETE DESC DETACH DISTINCT DO DROP EACH ELSE END ESCAPE EXCEPT EXCLUDE EXCLUSIVE EXISTS
EXPLAIN FAIL FILTER FIRST FOLLOWING FOR FOREIGN FROM FULL GENERATED GLOB GROUP GROUPS HAVING IF IGNORE IMMEDIATE IN
INDEX INDEXED INITIALLY INNER INSERT INSTEAD INTERSECT INTO IS ISNULL JOIN KEY LAST LEFT LIKE LIMIT MATCH MATERIALIZED
NATURAL NO NOT NOTHING NOTNULL NULL NULLS OF OFFSET ON OR ORDER OTHERS OUTER OVER PARTITION PLAN PRAGMA PRECEDING
PRIMARY QUERY RAISE RANGE RECURSIVE REFERENCES REGEXP REINDEX RELEASE RENAME REPLACE RESTRICT RETURNING RIGHT ROLLBACK
ROW ROWS SAVEPOINT SELECT SET TABLE TEMP TEMPORARY THEN TIES TO TRANSACTION TRIGGER UNBOUNDED UNION UNIQUE UPDATE
USING VACUUM VALUES VIEW VIRTUAL WHEN WHERE WINDOW WITH WITHOUT TRUE FALSE"""
KEYWORDS = frozenset(_KEYWORDS.split())
_NEEDED = """\
AND AS BETWEEN CASE CAST COLLATE DISTINCT ELSE END ESCAPE EXISTS FROM GLOB IN IS ISNULL LIKE MATCH NOT NOTNULL NULL OR
RAISE REGEXP SELECT THEN WHEN WHERE"""
_OPERATORS = frozenset(_NEEDED.split())
"""Words that an expression needs, so that a column of that name would be quoted there."""


def tokens(sql: str) -> list[Token]:
    """Return the tokens of a text."""
    return [(found[1], *found.span(1)) for found in _TOKEN.finditer(sql) if found[1]]


def named(token: str) -> str:
    """Return the name that a token stands for: without its quotes."""
    first = token[0]
    if first in _QUOTES:
        last = _QUOTES[first]
        return token[1:-1] if first == "[" else token[1:-1].replace(last * 2, last)
    if first == "'":  # SQLite takes texts for names where only a name can stand
        return token[1:-1].replace("''", "'")
    return token


def is_word(token: str) -> bool:
    """Tell whether a token is a word without quotes: a keyword or a plain name."""
    first = token[0]
    return (first.isalpha() or first == "_" or first >= "\x80") and token[-1] != "'"


def is_name(token: str) -> bool:
    """Tell whether a token may be an identifier."""
    first = token[0]
    return (first.isalpha() or first in _STARTS or first >= "\x80") and token[-1] != "'"


@lru_cache(maxsize=8192)
def names_in(sql: str) -> frozenset[str]:
    """Return the words and quoted names of a text, in lower case."""
    return frozenset(named(token).lower() for token, _, _ in tokens(sql) if is_name(token))


def renamed(sql: str, names: Mapping[str, str]) -> str:
    """Return a text with other names in it; `names` has the old ones in lower case. What is a text stays."""
    parts, place = [], 0
    for token, start, end in tokens(sql):
        if is_name(token) and named(token).lower() in names:
            parts += [sql[place:start], quoted(names[named(token).lower()])]
            place = end
    return "".join([*parts, sql[place:]])


def quoted(name: str) -> str:
    """Quote an identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Write a text as SQL."""
    return "'" + text.replace("'", "''") + "'"


def normal(expression: Sequence[Token], columns: Mapping[str, str], table: str = "") -> str:
    """Return the normal form of an expression.

    Args:
        expression: its tokens.
        columns: names of the table's columns in lower case -> as they are declared; they are always quoted.
        table: name of the table in lower case: columns need no such qualifier.
    """
    words = [token for token, _, _ in expression]
    if table:
        words = _unqualified(words, columns, table)
    parts: list[str] = []
    before = ""
    for place, word in enumerate(words):
        after = words[place + 1] if place + 1 < len(words) else ""
        text = _normal(word, before, after, columns)
        if parts and not _sticks(before, word):
            parts.append(" ")
        parts.append(text)
        before = word
    return "".join(parts)


@lru_cache(maxsize=1024)
def normal_type(kind: str) -> str:
    """Return the normal form of a column's type: in upper case, without comments."""
    text = ""
    for word, _, _ in tokens(kind):
        stuck = not text or word in "(),." or text[-1] in "(+-"
        text += word.upper() if stuck else f" {word.upper()}"
    return text


def _unqualified(words: Sequence[str], columns: Mapping[str, str], table: str) -> list[str]:
    kept = list(words)
    for place in range(len(kept) - 3, -1, -1):
        one, dot, column = kept[place : place + 3]
        if dot == "." and is_name(one) and named(one).lower() == table and named(column).lower() in columns:
            del kept[place : place + 2]
    return kept


def _normal(word: str, before: str, after: str, columns: Mapping[str, str]) -> str:
    if not is_name(word):
        return word.upper() if word[0] in "0123456789." else word
    plain = is_word(word)
    name = named(word)
    column = columns.get(name.lower())
    if (
        column is not None
        and not (plain and (after == "(" or word.upper() in _OPERATORS))
        and before.upper() != "COLLATE"
    ):
        return quoted(column)
    if not plain:
        return quoted(name)
    return word.upper() if word.upper() in KEYWORDS else word.lower()


def _sticks(before: str, word: str) -> bool:
    """Tell whether no space belongs between two tokens."""
    if word in (")", ",", ".") or before in ("(", "."):
        return True
    return word == "(" and is_word(before) and before.upper() not in KEYWORDS - {"REPLACE", "GLOB", "LIKE", "CAST"}


def constant(expression: str) -> bool:
    """Tell whether a default is a plain literal, so that ADD COLUMN takes it for rows that are there."""
    words = [token for token, _, _ in tokens(expression)]
    if len(words) == 2 and words[0] in "+-":
        words = words[1:]
    if len(words) != 1:
        return False
    word = words[0]
    return word[0] in "0123456789.'" or word[:2].lower() == "x'" or word.upper() in ("NULL", "TRUE", "FALSE")


def is_null(expression: str) -> bool:
    """Tell whether an expression is NULL: as a default it gives rows nothing."""
    return [token.upper() for token, _, _ in tokens(expression)] == ["NULL"]


def columns_in(expression: Collection[Token], columns: Mapping[str, str]) -> tuple[str, ...]:
    """Return the columns that an expression mentions, in their order in the table."""
    found = {named(token).lower() for token, _, _ in expression if is_name(token)}
    return tuple(declared for name, declared in columns.items() if name in found)
