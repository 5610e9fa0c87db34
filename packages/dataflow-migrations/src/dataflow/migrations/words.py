"""SQL texts as words, just far enough to find and rename identifiers in them; no parser.

Used on expressions that the database itself wrote. A wrong guess costs a step (something is dropped and made anew),
never a wrong result: what is compared in the end is the database's own text.
"""

import re
from collections.abc import Iterator, Mapping

_WORD = re.compile(
    r"""(?P<text>'(?:[^']|'')*'|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)"""
    r"""|(?P<quoted>"(?:[^"]|"")*")|(?P<plain>[^\W\d]\w*)|(?P<other>.)""",
    re.DOTALL,
)


def _words(sql: str) -> Iterator[tuple[str, str]]:
    """Yield (identifier or "", text) for each word."""
    for match in _WORD.finditer(sql):
        if match["quoted"] is not None:
            yield match["quoted"][1:-1].replace('""', '"'), match[0]
        elif match["plain"] is not None:
            yield match["plain"], match[0]
        else:
            yield "", match[0]


def identifiers(sql: str | None) -> frozenset[str]:
    """Return the words of a text that may be identifiers, as they are written."""
    return frozenset(name for name, _ in _words(sql or "") if name)


def renamed(sql: str, names: Mapping[str, str]) -> str:
    """Replace identifiers, outside of string literals."""
    if not names:
        return sql
    return "".join(_written(text, names[name]) if name in names else text for name, text in _words(sql))


def _written(like: str, name: str) -> str:
    """Write a name quoted where the old one was, or where it has to be."""
    if like.startswith('"') or not re.fullmatch(r"[a-z_][a-z0-9_$]*", name):
        return '"' + name.replace('"', '""') + '"'
    return name
