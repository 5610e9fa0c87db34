"""Stored CREATE TABLE and CREATE INDEX texts, read: what no pragma tells, and where each part stands."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import attrs

from dataflow.catalog import Constraint, ConstraintKind
from dataflow.sqlite.migration.tokens import Token, columns_in, is_word, named, normal, quoted, tokens

_TABLE_WORDS = frozenset(("CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"))
_COLUMN_WORDS = frozenset(
    (
        "CONSTRAINT",
        "PRIMARY",
        "NOT",
        "NULL",
        "UNIQUE",
        "CHECK",
        "DEFAULT",
        "COLLATE",
        "REFERENCES",
        "GENERATED",
        "AS",
        "DEFERRABLE",
    )
)
_RANKS = {"primary key": 0, "unique": 1, "foreign key": 2, "check": 3, "not null": 4}


@attrs.frozen
class Item:
    """One part of the body of a CREATE TABLE: a column, or constraints of the table.

    Attributes:
        before: spaces and comments in front of it.
        text: the part.
        after: spaces and comments up to the comma.
        column: name of the column, or "".
        constraints: what it says.
        collation: of the column.
        generated: its expression.
        stored: whether that is stored.
        counted: names the column that is AUTOINCREMENT, if it says so.
        qualified: whether a check names columns with their table.
    """

    before: str
    text: str
    after: str = ""
    column: str = ""
    constraints: tuple[Constraint, ...] = ()
    collation: str | None = None
    generated: str | None = None
    stored: bool = False
    counted: str = ""
    qualified: bool = False

    def __str__(self) -> str:
        return f"{self.before}{self.text}{self.after}"


@attrs.frozen
class TableText:
    """A CREATE TABLE text: `head` up to the first parenthesis, the items, and `tail` from the last one."""

    head: str
    items: tuple[Item, ...]
    tail: str

    def __str__(self) -> str:
        return f"{self.head}{','.join(map(str, self.items))}{self.tail}"

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """All constraints: keys first, then by name."""
        return ordered(constraint for item in self.items for constraint in item.constraints)

    @property
    def qualified(self) -> bool:
        """Whether a check names columns with their table."""
        return any(item.qualified for item in self.items)


def ordered(constraints: Iterable[Constraint]) -> tuple[Constraint, ...]:
    """Return constraints in the order of a catalog, each once."""
    return tuple(
        sorted(
            dict.fromkeys(constraints), key=lambda one: (_RANKS.get(one.kind, 9), one.name, one.columns, one.definition)
        )
    )


@lru_cache(maxsize=4096)
def read_table(sql: str) -> TableText:
    """Read a stored CREATE TABLE text."""
    every = tokens(sql)
    words = [token[0].upper() for token in every]
    opening = words.index("(")
    ranges, closing = _items(words, opening)
    columns = {
        (name := named(every[begin][0])).lower(): name for begin, _ in ranges if words[begin] not in _TABLE_WORDS
    }
    table = named(every[opening - 1][0]).lower()
    items = []
    for begin, end in ranges:
        start, stop = every[begin][1], every[end - 1][2]
        before, after = sql[every[begin - 1][2] : start], sql[stop : every[end][1]]
        reader = Reader(every[begin:end], words[begin:end], columns, table)
        items.append(reader.item(before, sql[start:stop], after))
    return TableText(sql[: every[opening][2]], tuple(items), sql[every[closing][1] :])


def _items(words: Sequence[str], opening: int) -> tuple[list[tuple[int, int]], int]:
    """Return where the items between the parentheses begin and end, and where those are closed."""
    found: list[tuple[int, int]] = []
    depth, begin = 0, opening + 1
    for place in range(opening, len(words)):
        word = words[place]
        if word == "(":
            depth += 1
        elif word == ")":
            depth -= 1
            if depth == 0:
                return [*found, (begin, place)], place
        elif word == "," and depth == 1:
            found.append((begin, place))
            begin = place + 1
    return found, len(words) - 1


class Reader:
    """Reads one item of a table's body.

    Args:
        item: its tokens.
        words: the same in upper case.
        columns: of the table, in lower case -> as they are declared.
        table: its name, in lower case.
    """

    def __init__(self, item: Sequence[Token], words: Sequence[str], columns: Mapping[str, str], table: str) -> None:
        self.tokens = item
        self.words = [*words, ""]
        self.columns = columns
        self.table = table
        self.place = 0
        self.name = ""
        self.column = ""
        self.found: list[Constraint] = []
        self.more: dict[str, Any] = {}

    # -- tokens -----------------------------------------------------------------------------------------------------
    @property
    def word(self) -> str:
        """The token at hand in upper case; "" at the end."""
        return self.words[self.place]

    def take(self) -> str:
        """Return the token at hand, and go on."""
        token = self.tokens[self.place][0]
        self.place += 1
        return token

    def skip(self, *words: str) -> bool:
        """Go on past words, if they are at hand."""
        if self.words[self.place] != words[0] or self.words[self.place : self.place + len(words)] != [*words]:
            return False
        self.place += len(words)
        return True

    def parenthesis(self) -> Sequence[Token]:
        """Return what is in the parentheses at hand, and go past them."""
        depth, begin = 0, self.place + 1
        while self.words[self.place]:
            word = self.words[self.place]
            self.place += 1
            if word == "(":
                depth += 1
            elif word == ")":
                depth -= 1
                if depth == 0:
                    break
        return self.tokens[begin : self.place - 1]

    def _declared(self, token: str) -> str:
        return self.columns.get(named(token).lower(), named(token))

    # -- items ------------------------------------------------------------------------------------------------------
    def item(self, before: str, text: str, after: str) -> Item:
        """Read it; the arguments are those of `Item`."""
        if self.word not in _TABLE_WORDS:
            self.column = named(self.take())
            while self.word and self.word not in _COLUMN_WORDS:  # the type
                self.parenthesis() if self.word == "(" else self.take()
        while self.word:
            if self.skip("CONSTRAINT"):
                self.name = named(self.take())
                continue
            read = self._read.get(self.word)
            self.place += 1
            if read is not None:
                read(self)
                self.name = ""
        return Item(before, text, after, self.column, tuple(self.found), **self.more)

    def _primary(self) -> None:
        self.skip("KEY")
        self._key("primary key", "PRIMARY KEY")

    def _unique(self) -> None:
        self._key("unique", "UNIQUE")

    def _foreign(self) -> None:
        self.skip("KEY")
        columns = tuple(self._declared(t) for t, _, _ in self.parenthesis() if t != ",")
        self.skip("REFERENCES")
        self._refers(columns)

    def _references(self) -> None:
        self._refers((self.column,))

    def _not(self) -> None:
        conflict = self._conflict() if self.skip("NULL") else ""
        if conflict:
            self.add("not null", (self.column,), f"NOT NULL{conflict}")

    def _null(self) -> None:
        self._conflict()

    def _collate(self) -> None:
        collation = named(self.take()).upper()
        self.more["collation"] = None if collation == "BINARY" else collation

    def _generated(self) -> None:
        self.skip("ALWAYS", "AS")
        self.more["generated"] = normal(self.parenthesis(), self.columns, self.table)
        self.more["stored"] = self.skip("STORED")

    def _default(self) -> None:
        if self.word == "(":
            self.parenthesis()
            return
        if self.word in ("+", "-"):
            self.take()
        self.take()

    def add(self, kind: ConstraintKind, columns: tuple[str, ...], definition: str) -> None:
        """Note a constraint."""
        self.found.append(Constraint(self.name, kind, columns, definition))

    def _conflict(self) -> str:
        if not self.skip("ON", "CONFLICT"):
            return ""
        action = self.take().upper()
        return "" if action == "ABORT" else f" ON CONFLICT {action}"

    def _key(self, kind: ConstraintKind, title: str) -> None:
        if self.column:
            descending = self.skip("DESC")
            self.skip("ASC")
            conflict = self._conflict()
            if self.skip("AUTOINCREMENT"):
                self.more["counted"] = self.column
            # INTEGER PRIMARY KEY DESC, of all, is no name of the rowid
            definition = f"{title} DESC" if descending else f"{title} ({quoted(self.column)})"
            self.add(kind, (self.column,), f"{definition}{conflict}")
            return
        names, parts = [], []
        for part in _split(self.parenthesis()):
            names.append(self._declared(part[0][0]))
            words = [token.upper() if is_word(token) else token for token, _, _ in part[1:]]
            if "AUTOINCREMENT" in words:
                self.more["counted"] = names[-1]
            parts.append(
                quoted(names[-1]) + "".join(f" {word}" for word in words if word not in ("ASC", "AUTOINCREMENT"))
            )
        self.add(kind, tuple(names), f"{title} ({', '.join(parts)}){self._conflict()}")

    def _check(self) -> None:
        condition = self.parenthesis()
        self._conflict()  # SQLite accepts it and takes no notice
        text = normal(condition, self.columns, self.table)
        if any(token == "." for token, _, _ in condition):  # noqa: S105
            self.more["qualified"] = text != normal(condition, self.columns)
        self.add("check", columns_in(condition, self.columns), f"CHECK ({text})")

    def _refers(self, columns: tuple[str, ...]) -> None:
        target = named(self.take())
        remote = tuple(named(t) for t, _, _ in self.parenthesis() if t != ",") if self.word == "(" else ()
        actions, deferred = {"DELETE": "NO ACTION", "UPDATE": "NO ACTION"}, False
        while True:
            if self.skip("ON", "DELETE"):
                actions["DELETE"] = self._action()
            elif self.skip("ON", "UPDATE"):
                actions["UPDATE"] = self._action()
            elif self.skip("MATCH"):
                self.take()  # SQLite takes no notice of it
            elif self.skip("NOT", "DEFERRABLE"):
                self.skip("INITIALLY", "DEFERRED") or self.skip("INITIALLY", "IMMEDIATE")
            elif self.skip("DEFERRABLE"):
                deferred = self.skip("INITIALLY", "DEFERRED")
                self.skip("INITIALLY", "IMMEDIATE")
            else:
                break
        key = Constraint(self.name, "foreign key", columns, "", target, remote, actions["DELETE"], actions["UPDATE"])
        self.found.append(attrs.evolve(key, definition=foreign_key(key, deferred=deferred)))

    def _action(self) -> str:
        first = self.take().upper()
        return f"{first} {self.take().upper()}" if first in ("SET", "NO") else first

    _read: ClassVar[Mapping[str, Callable[["Reader"], None]]] = {
        "PRIMARY": _primary,
        "UNIQUE": _unique,
        "CHECK": _check,
        "FOREIGN": _foreign,
        "REFERENCES": _references,
        "NOT": _not,
        "NULL": _null,
        "DEFAULT": _default,
        "COLLATE": _collate,
        "GENERATED": _generated,
        "AS": _generated,
    }


def foreign_key(key: Constraint, *, deferred: bool) -> str:
    """Write a foreign key."""
    columns = ", ".join(map(quoted, key.columns))
    remote = f" ({', '.join(map(quoted, key.remote))})" if key.remote else ""
    text = f"FOREIGN KEY ({columns}) REFERENCES {quoted(key.target)}{remote}"
    if key.on_delete != "NO ACTION":
        text += f" ON DELETE {key.on_delete}"
    if key.on_update != "NO ACTION":
        text += f" ON UPDATE {key.on_update}"
    return f"{text} DEFERRABLE INITIALLY DEFERRED" if deferred else text


def _split(parts: Sequence[Token]) -> list[Sequence[Token]]:
    """Split at commas outside of parentheses."""
    found, depth, begin = [], 0, 0
    for place, (word, _, _) in enumerate(parts):
        depth += (word == "(") - (word == ")")
        if word == "," and depth == 0:
            found.append(parts[begin:place])
            begin = place + 1
    return [*found, parts[begin:]]


@attrs.frozen
class IndexText:
    """A CREATE INDEX text: the normal forms of its keys, without order and collation, and of its predicate."""

    unique: bool
    keys: tuple[str, ...]
    where: str | None


def read_index(sql: str, columns: Mapping[str, str]) -> IndexText:
    """Read a stored CREATE INDEX text; `columns`: of the table, in lower case -> as declared."""
    every = tokens(sql)
    words = [token[0].upper() for token in every]
    opening = words.index("(")
    reader = Reader(every[opening:], words[opening:], columns, "")
    keys = tuple(normal(_bare(part), columns) for part in _split(reader.parenthesis()))
    where = normal(reader.tokens[reader.place :], columns) if reader.skip("WHERE") else None
    return IndexText(words[1] == "UNIQUE", keys, where)


def _bare(part: Sequence[Token]) -> Sequence[Token]:
    """Return a key without its order and collation."""
    if len(part) > 1 and part[-1][0].upper() in ("ASC", "DESC"):
        part = part[:-1]
    return part[:-2] if len(part) > 2 and part[-2][0].upper() == "COLLATE" else part
