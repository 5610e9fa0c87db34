"""What SQL of the user's own may touch, read from its text with suspicion: what is not understood may touch everything.

Looks into comments and quotes too, for what is hidden from one reader of SQL may be plain to another. It may so suspect
more than there is. What no text tells (functions, triggers and views behind a table's name) it cannot know.
"""

import re
from collections.abc import Iterable, Mapping

import attrs

from dataflow.sqltext import Statement

_PART = r'(?:"(?:[^"]|"")*"|`[^`]*`|\[[^\]]*\]|[\w$]+)'
_NAME = rf"\s*(?:only\b\s*)?({_PART}(?:\s*\.\s*{_PART})*)"
_CHANGE = re.compile(
    rf"""
    \bdo\s+update\s+set\b | \breplace\s*\(                               # parts of an INSERT, of an expression
    | \bfor\s+(?:no\s+key\s+)?update(?=\s*(?:$|[;),]|of\b|nowait\b|skip\b))
    | \b(?:insert\s+(?:or\s+\w+\s+)?into|replace\s+into|update(?:\s+or\s+\w+)?|delete\s+from)\b{_NAME}
    | \b(?P<unread>insert|replace|update|delete|merge|truncate|copy)\b
    """,
    re.VERBOSE | re.IGNORECASE,
)
_HIDDEN = re.compile(r"\bu&", re.IGNORECASE)
"""Identifiers of PostgreSQL may be written in escapes: U&"\\0075sers"."""
_UNSURE = re.compile(r'--|/\*|\\|["`\[$]')
"""Without these, nothing but a quote begins or ends a literal."""
_ROW = re.compile(r"\b(?:_?rowid_?|oid)\b", re.IGNORECASE)
"""Other names of a key in SQLite."""
_FUNCTION = re.compile(r"\breplace\s*\(")
_EFFECTS: Mapping[str, frozenset[str]] = {
    "create": frozenset({"insert", "replace", "merge", "copy"}),
    "update": frozenset({"update", "replace", "merge"}),
    "delete": frozenset({"delete", "replace", "merge", "truncate"}),
}


@attrs.frozen
class Touch:
    """What a statement may do.

    Attributes:
        effects: of create, update, delete and ddl.
        tables: those of the given tables that it may change; None: any.
        text: the statement, without what are certainly literals.
    """

    effects: tuple[str, ...]
    tables: frozenset[str] | None
    text: str

    def fields(self, effect: str, names: Iterable[str]) -> tuple[str, ...]:
        """Return which fields of a table it may give or change: an UPDATE names them, an INSERT need not."""
        if effect == "delete":
            return ()
        plain = effect == "update" and self.tables is not None and not _ROW.search(self.text)
        return tuple(name for name in names if not plain or mentions(self.text, name))


def touched(statement: Statement, tables: Iterable[str]) -> Touch:
    """Tell what a statement that writes may touch.

    Args:
        statement: as parsed.
        tables: the tables of all models.
    """
    text = "".join(part if isinstance(part, str) else " " for part in statement.parts)
    if not _UNSURE.search(text):
        text = re.sub(r"'[^']*'", " ", text)
    everything = tuple(_EFFECTS)
    if statement.defines:
        return Touch((*everything, "ddl"), None, text)
    words = set(re.findall(r"\w+", _FUNCTION.sub("(", text.lower())))
    effects = tuple(effect for effect in everything if words & _EFFECTS[effect])
    pool = list(tables)
    if _HIDDEN.search(text) or not effects or not _changes_only(text, pool):
        return Touch(effects or everything, None, text)
    return Touch(effects, frozenset(table for table in pool if mentions(text, table)), text)


def mentions(text: str, name: str) -> bool:
    """Tell whether a text names a table or column, in whatever case or quotes."""
    lowered, low = text.lower(), name.lower()
    forms = {low, low.replace('"', '""'), low.replace("`", "``")}
    return any(re.search(rf"(?<![\w$]){re.escape(form)}(?![\w$])", lowered) for form in forms)


def _changes_only(text: str, tables: Iterable[str]) -> bool:
    """Tell whether all that a text changes are these tables, under their bare names."""
    known = {table.lower() for table in tables}
    targets = []
    for match in _CHANGE.finditer(text):
        if match["unread"]:
            return False
        if match[1]:
            targets.append(match[1])
    return bool(targets) and all(_bare(target) in known for target in targets)


def _bare(name: str) -> str:
    """Return a name without its quotes in lower case; of a dotted one, what is no name."""
    if not re.fullmatch(_PART, name):
        return "."
    if name[0] in '"`[':
        name = name[1:-1].replace('""', '"')
    return name.lower()
