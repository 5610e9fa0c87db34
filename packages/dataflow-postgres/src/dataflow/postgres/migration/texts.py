"""Expressions as PostgreSQL writes them once it has read its own writing, so that equal ones have equal texts.

``status IN ('a', 'b')`` on a varchar column is kept with a cast of the whole array, and written so. Read again, the
cast is one of each element: what was made from a catalog's text would differ from what was made from a model, for ever.
"""

import re

_ELEMENT = r"(?:E?'(?:[^'\\]|''|\\.)*'|NULL)::character varying(?:\(\d+\))?"
_ELEMENTS = re.compile(_ELEMENT)
_ARRAY = re.compile(rf"\((?P<inner>\()?ARRAY\[(?P<items>{_ELEMENT}(?:, {_ELEMENT})*)\](?(inner)\))::text\[\]\)")


def literal(text: str) -> str:
    """Write a text."""
    return "'" + text.replace("'", "''") + "'"


def settled(text: str) -> str:
    """Return an expression, or a statement with expressions, with casts of arrays as casts of their elements."""
    return _ARRAY.sub(_spread, text) if "]" in text else text


def _spread(found: re.Match[str]) -> str:
    write = "({})::text" if found["inner"] else "{}::text"
    return f"(ARRAY[{', '.join(write.format(each) for each in _ELEMENTS.findall(found['items']))}])"
