"""SQL of the user's own: finds placeholders, statements and their first words, leaving quoted text and comments alone.

Placeholders are `:name` with a dict or `$1` with a list, on every database; the dialect's own style comes out.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import attrs

from dataflow.errors import InputError

_TOKEN = re.compile(
    r"""
    (?P<quoted>'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|\[[^\]]*\]|\$(?P<tag>[A-Za-z_]*)\$.*?\$(?P=tag)\$)
    |(?P<comment>--[^\n]*|/\*.*?\*/)
    |(?P<cast>::)
    |(?P<named>(?<![\w:]):[A-Za-z_]\w*)
    |(?P<numbered>\$\d+)
    |(?P<mark>\?)
    |(?P<end>;)
    |(?P<word>[A-Za-z_]\w*)
    |(?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_READS = frozenset({"SELECT", "VALUES", "EXPLAIN", "SHOW"})
_CHANGES = frozenset({"INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE"})
DEFINITIONS = frozenset(
    {"CREATE", "ALTER", "DROP", "TRUNCATE", "PRAGMA", "ATTACH", "DETACH", "VACUUM", "ANALYZE", "SET"}
)
_TRANSACTION = frozenset({"BEGIN", "COMMIT", "ROLLBACK", "END", "SAVEPOINT", "RELEASE", "START", "ABORT"})


@attrs.frozen
class Statement:
    """One statement of a text.

    Attributes:
        parts: text pieces and placeholders in turn; a placeholder is a str name or an int position (from 1).
        verb: its first word, upper case.
        words: all its words, upper case.
    """

    parts: tuple[str | tuple[str | int], ...]
    verb: str
    words: frozenset[str]

    @property
    def writes(self) -> bool:
        """Whether it may change data."""
        if self.verb in _READS:
            return False
        return self.verb != "WITH" or bool(self.words & _CHANGES)

    @property
    def defines(self) -> bool:
        """Whether it is something else than reading and changing rows: DDL, PRAGMA, ATTACH or the like."""
        return self.verb not in _READS | _CHANGES | {"WITH"}


@lru_cache(maxsize=512)
def parse(sql: str) -> tuple[Statement, ...]:
    """Split a text into statements.

    Raises:
        InputError: there is none, or it uses `?`.
    """
    statements = [built for chunk in _chunks(sql) if (built := _statement(chunk)) is not None]
    if not statements:
        msg = "the query is empty"
        raise InputError(msg, hint="write SQL, for example SELECT count(*) AS n FROM users", code="bad-query")
    for statement in statements:
        if statement.verb in _TRANSACTION:
            msg = f"{statement.verb} cannot be sent by hand: the framework opens and ends transactions"
            raise InputError(
                msg, hint="put a TransactionScopeNode before the nodes that belong together", code="bad-query"
            )
    return tuple(statements)


def _chunks(sql: str) -> Iterator[list[re.Match[str]]]:
    chunk: list[re.Match[str]] = []
    trigger = False
    for token in _TOKEN.finditer(sql):
        if token.lastgroup == "word":
            words = {m.group().upper() for m in chunk if m.lastgroup == "word"}
            trigger = trigger or (token.group().upper() == "TRIGGER" and "CREATE" in words)
        if token.lastgroup == "end" and not (trigger and not _ended(chunk)):
            yield chunk
            chunk, trigger = [], False
            continue
        chunk.append(token)
    yield chunk


def _ended(chunk: list[re.Match[str]]) -> bool:
    words = [m.group().upper() for m in chunk if m.lastgroup == "word"]
    return bool(words) and words[-1] == "END"


def _statement(chunk: list[re.Match[str]]) -> Statement | None:
    parts: list[str | tuple[str | int]] = []
    words = [m.group().upper() for m in chunk if m.lastgroup == "word"]
    text = ""
    for token in chunk:
        kind = token.lastgroup
        if kind in ("named", "numbered"):
            parts += [text, (token.group()[1:] if kind == "named" else int(token.group()[1:]),)]
            text = ""
        elif kind == "mark":
            msg = "'?' is not a placeholder here"
            raise InputError(msg, hint="write :name with a dict of params, or $1 with a list", code="bad-query")
        else:
            text += token.group()
    if not words and not parts and not text.strip(" \t\r\n;"):
        return None
    if not words and all(m.lastgroup == "comment" or m.group().isspace() for m in chunk):
        return None
    return Statement(
        (*parts, text.strip() if not parts else text.rstrip()), words[0] if words else "", frozenset(words)
    )


def bind(statement: Statement, params: Any, encode: Any, placeholder: Callable[[int], str]) -> tuple[str, list[Any]]:
    """Return a statement's SQL and its arguments in the driver's style.

    Args:
        statement: from `parse`.
        params: dict for `:name`, list for `$1`, or None.
        encode: turns each value into the driver's.
        placeholder: writes the place of argument number n (from 1).

    Raises:
        InputError: placeholders and params do not match.
    """
    out, arguments = [], []
    used: set[str | int] = set()
    for part in statement.parts:
        if isinstance(part, str):
            out.append(part)
            continue
        name = part[0]
        used.add(name)
        arguments.append(encode(_value(name, params)))
        out.append(placeholder(len(arguments)))
    _all_used(used, params)
    return "".join(out), arguments


def _value(name: str | int, params: Any) -> Any:
    if isinstance(name, int):
        if not isinstance(params, Sequence) or isinstance(params, (str, bytes)) or not 1 <= name <= len(params):
            msg = f"the placeholder ${name} has no value"
            raise InputError(msg, hint=f"pass params as a list of {name} or more", code="bad-params")
        return params[name - 1]
    if not isinstance(params, Mapping) or name not in params:
        msg = f"the placeholder :{name} has no value"
        raise InputError(msg, hint=f"pass params={{{name!r}: …}}", code="bad-params")
    return params[name]


def _all_used(used: set[str | int], params: Any) -> None:
    if isinstance(params, Mapping):
        spare = sorted(str(name) for name in params if name not in used)
    elif isinstance(params, Sequence) and not isinstance(params, (str, bytes)):
        spare = [f"${i}" for i in range(1, len(params) + 1) if i not in used]
    elif params is None:
        spare = []
    else:
        msg = f"params is a dict or a list, got {type(params).__name__}"
        raise InputError(msg, hint="pass {'name': value} for :name, [value] for $1", code="bad-params")
    if spare:
        msg = f"params without a placeholder in the query: {', '.join(spare)}"
        hint = "placeholders are :name with a dict of params, or $1 with a list; use these params or remove them"
        raise InputError(msg, hint=hint, code="bad-params")
