"""SQL of the user's own on a connection that is confined to a tenant: what the database cannot refuse is refused here.

Its privileges and policies keep every row; but any role may look at plans, whose estimates and counts come from the
rows of all tenants, and may change itself, which all tenants share. Only the first words of a statement count: what
stands in a DO block or a function could hide them, so those are refused as well.
"""

import re

from dataflow.errors import InputError

_BLANK = re.compile(r"(?:[\s;]|--[^\n\r]*)*")
_WORD = re.compile(r"[A-Za-z_]+")
_MARKS = re.compile(r"/\*|\*/")
_REFUSED: tuple[tuple[str, str], ...] = (
    (r"EXPLAIN\b", "it counts and estimates from the records of all tenants"),
    (r"DO\b", "what it does is not known before"),
    (r"CREATE (OR REPLACE )?(FUNCTION|PROCEDURE)\b", "what it does is not known before"),
    (r"ALTER (ROLE|USER|GROUP)\b", "all tenants share the role"),
    (r"(DROP|REASSIGN) OWNED\b", "all tenants share the role"),
)
_LONGEST = 4
"""Words at the beginning of a statement that tell what it is."""


def refuse_beyond_tenant(sql: str) -> None:
    """Raise for a statement that reaches beyond the tenant of its connection where the database cannot tell.

    Raises:
        InputError: names the statement and why.
    """
    words = " ".join(_first_words(sql))
    for pattern, reason in _REFUSED:
        found = re.match(pattern, words)
        if found:
            msg = f"{found[0]} is not for the connection of a tenant: {reason}"
            hint = "run it where all tenants are meant, or outside DataFlow"
            raise InputError(msg, hint=hint, code="refused-query")


def _first_words(sql: str) -> list[str]:
    """Return the words that a statement begins with, upper case, as the server reads them."""
    words: list[str] = []
    place = _after_blanks(sql, 0)
    while len(words) < _LONGEST and (word := _WORD.match(sql, place)):
        words.append(word[0].upper())
        place = _after_blanks(sql, word.end())
    return words


def _after_blanks(sql: str, place: int) -> int:
    """Skip white space and comments, which the server lets contain each other."""
    while True:
        place = _BLANK.match(sql, place).end()  # type: ignore[union-attr]  # it matches nothing, too
        if not sql.startswith("/*", place):
            return place
        depth = 0
        for mark in _MARKS.finditer(sql, place):
            depth += 1 if mark[0] == "/*" else -1
            place = mark.end()
            if not depth:
                break
        else:
            return len(sql)
