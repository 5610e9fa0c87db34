"""Stored CREATE TABLE and CREATE INDEX texts, read: what no pragma tells, and where each part stands."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import attrs

from dataflow.catalog import Constraint
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
    opening = next(place for place, token in enumerate(every) if token[0] == "(")
    ranges, depth, begin, closing = [], 0, opening + 1, opening
    for place in range(opening, len(every)):
        word = every[place][0]
        if word == "(":
            depth += 1
        elif word == ")":
            depth -= 1
        if depth == 1 and word == ",":
            ranges.append((begin, place))
            begin = place + 1
        elif depth == 0:
            ranges.append((begin, place))
            closing = place
            break
    columns = {
        named(every[begin][0]).lower(): named(every[begin][0])
        for begin, _ in ranges
        if every[begin][0].upper() not in _TABLE_WORDS
    }
    table = named(every[opening - 1][0]).lower()
    items = []
    for begin, end in ranges:
        reader = Reader(sql, every[begin:end], columns, table)
        start, stop = every[begin][1], every[end - 1][2]
        before, after = sql[every[begin - 1][2] : start], sql[stop : every[end][1]]
        items.append(attrs.evolve(reader.item(), before=before, text=sql[start:stop], after=after))
    return TableText(sql[: every[opening][2]], tuple(items), sql[every[closing][1] :])


class Reader:
    """Reads one item of a table's body."""

    def __init__(self, sql: str, item: Sequence[Token], columns: Mapping[str, str], table: str) -> None:
        self.sql = sql
        self.item_tokens = item
        self.columns = columns
        self.table = table
        self.place = 0
        self.name = ""
        self.column = ""
        self.found: list[Constraint] = []
        self.more: dict[str, object] = {}

    # -- tokens -----------------------------------------------------------------------------------------------------
    @property
    def word(self) -> str:
        """The token at hand, in upper case where it is a word."""
        if self.place >= len(self.item_tokens):
            return ""
        token = self.item_tokens[self.place][0]
        return token.upper() if is_word(token) else token

    def take(self) -> str:
        """Return the token at hand, and go on."""
        self.place += 1
        return self.item_tokens[self.place - 1][0]

    def skip(self, *words: str) -> bool:
        """Go on past words, if they are at hand."""
        here = self.item_tokens[self.place : self.place + len(words)]
        if len(here) == len(words) and all(t[0].upper() == w for t, w in zip(here, words, strict=True)):
            self.place += len(words)
            return True
        return False

    def parenthesis(self) -> Sequence[Token]:
        """Return what is in the parentheses at hand, and go past them."""
        depth, begin = 0, self.place + 1
        while self.place < len(self.item_tokens):
            word = self.take()
            depth += (word == "(") - (word == ")")
            if depth == 0:
                return self.item_tokens[begin : self.place - 1]
        return self.item_tokens[begin:]

    def _declared(self, token: str) -> str:
        return self.columns.get(named(token).lower(), named(token))

    # -- items ------------------------------------------------------------------------------------------------------
    def item(self) -> Item:
        """Read it; where it stands is for the caller to say."""
        if self.word not in _TABLE_WORDS:
            self.column = named(self.take())
            while self.word and self.word not in _COLUMN_WORDS:  # the type
                if self.word == "(":
                    self.parenthesis()
                else:
                    self.take()
        while self.word:
            if self.skip("CONSTRAINT"):
                self.name = named(self.take())
            elif self._constraint():
                self.name = ""
            else:
                self.take()
        return Item("", "", column=self.column, constraints=tuple(self.found), **self.more)  # type: ignore[arg-type]

    def _constraint(self) -> bool:
        """Read one constraint; False where there is none."""
        if self.skip("PRIMARY", "KEY"):
            self._key("primary key", "PRIMARY KEY")
        elif self.skip("UNIQUE"):
            self._key("unique", "UNIQUE")
        elif self.skip("CHECK"):
            self._check()
        elif self.skip("FOREIGN", "KEY"):
            columns = tuple(self._declared(t) for t, _, _ in self.parenthesis() if t != ",")
            self._references(columns)
        elif self.column:
            return self._of_column()
        else:
            return False
        return True

    def _of_column(self) -> bool:
        if self.word == "REFERENCES":
            self._references((self.column,))
        elif self.skip("NOT", "NULL"):
            conflict = self._conflict()
            if conflict:
                self.add("not null", (self.column,), f"NOT NULL{conflict}")
        elif self.skip("NULL"):
            self._conflict()
        elif self.skip("DEFAULT"):
            self._default()
        elif self.skip("COLLATE"):
            collation = named(self.take())
            self.more["collation"] = None if collation.upper() == "BINARY" else collation.upper()
        elif self.skip("GENERATED", "ALWAYS", "AS") or self.skip("AS"):
            self.more["generated"] = normal(self.parenthesis(), self.columns, self.table)
            self.more["stored"] = self.skip("STORED")
        else:
            return False
        return True

    def _default(self) -> None:
        if self.word == "(":
            self.parenthesis()
            return
        if self.word in ("+", "-"):
            self.take()
        self.take()

    def add(self, kind: str, columns: tuple[str, ...], definition: str, **more: object) -> None:
        """Note a constraint."""
        self.found.append(Constraint(self.name, kind, columns, definition, **more))  # type: ignore[arg-type]

    def _conflict(self) -> str:
        if not self.skip("ON", "CONFLICT"):
            return ""
        action = self.take().upper()
        return "" if action == "ABORT" else f" ON CONFLICT {action}"

    def _key(self, kind: str, title: str) -> None:
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
        plain, text = normal(condition, self.columns), normal(condition, self.columns, self.table)
        if plain != text:
            self.more["qualified"] = True
        self.add("check", columns_in(condition, self.columns), f"CHECK ({text})")

    def _references(self, columns: tuple[str, ...]) -> None:
        self.skip("REFERENCES")
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
    opening = next(place for place, token in enumerate(every) if token[0] == "(")
    reader = Reader(sql, every[opening:], columns, "")
    keys = tuple(normal(_bare(part), columns) for part in _split(reader.parenthesis()))
    where = normal(reader.item_tokens[reader.place :], columns) if reader.skip("WHERE") else None
    return IndexText(every[1][0].upper() == "UNIQUE", keys, where)


def _bare(part: Sequence[Token]) -> Sequence[Token]:
    """Return a key without its order and collation."""
    if len(part) > 1 and part[-1][0].upper() in ("ASC", "DESC"):
        part = part[:-1]
    return part[:-2] if len(part) > 2 and part[-2][0].upper() == "COLLATE" else part
