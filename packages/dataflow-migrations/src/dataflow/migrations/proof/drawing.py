"""Draws the parts of random schemas that all databases have; subclasses know types, expressions, and what else is."""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import ClassVar, TypeVar

import attrs

from dataflow.migrations.proof.schema import Column, Part, Schema, mark

T = TypeVar("T")
_WORDS = ("id", "code", "name", "price", "at", "note", "size", "kind", "state", "ref", "flag", "data", "level", "tag")
_ODD = (
    "my name", 'we"ird', "Ünïcode", "select", "order", "CamelCase", "it's", "a.b", "1st", "x%y", "日本", "d$1", "a,b",
    "(in)", "semi;colon", "--dash", "UPPER", "user", "[box]", "back`tick", "long_" + "e" * 46,
)  # fmt: skip
_ACTIONS = ("", "", "ON DELETE CASCADE", "ON DELETE SET NULL", "ON UPDATE CASCADE", "ON DELETE RESTRICT",
            "ON DELETE SET NULL ON UPDATE CASCADE", "ON DELETE SET DEFAULT")  # fmt: skip


class Drawer:
    """Draws parts for a schema, which grows meanwhile.

    Args:
        rng: the source.
        schema: what is there.
        first: the lowest number of new parts.
    """

    name: ClassVar[str]
    kinds: ClassVar[Mapping[str, int]]
    """Kinds of parts -> how often they are drawn."""
    retypes: ClassVar[Mapping[str, Sequence[str]]]
    """Type -> types that a column of it may get."""

    def __init__(self, rng: Random, schema: Schema | None = None, first: int = 1) -> None:
        self.rng = rng
        self.schema = schema or Schema()
        self.first = first
        self.taken = {part.name.lower() for part in self.schema.parts.values()}

    # -- small things -----------------------------------------------------------------------------------------------
    def chance(self, share: float) -> bool:
        """Return True in this share of cases."""
        return self.rng.random() < share

    def pick(self, things: Sequence[T]) -> T:
        """Return one of some things."""
        return things[self.rng.randrange(len(things))]

    def fresh(self, base: str = "") -> str:
        """Return a name that nothing has; mostly a plain one."""
        base = base or (self.pick(_ODD) if self.chance(0.2) else self.pick(_WORDS))
        name, number = base, 2
        while name.lower() in self.taken:
            name, number = f"{base}_{number}", number + 1
        self.taken.add(name.lower())
        return name

    def add(self, part: Part) -> Part:
        """Put a part into the schema."""
        self.schema = self.schema.with_(part)
        return part

    @property
    def number(self) -> int:
        """The number of the next part."""
        return max(self.first, self.schema.next)

    def comment(self) -> str | None:
        """Return a comment, now and then."""
        return self.pick(("a note", "it's -- odd", 'with "quotes"')) if self.chance(0.1) else None

    # -- the whole ----------------------------------------------------------------------------------------------------
    def whole(self, tables: int) -> Schema:
        """Draw a schema.

        Args:
            tables: how many, at most.
        """
        self.before_tables()
        for _ in range(self.rng.randint(1, tables)):
            self.draw("table")
        for _ in range(self.rng.randint(1, 4 * tables)):
            self.draw(self.pick_kind())
        return self.schema

    def before_tables(self) -> None:
        """Draw what tables may use."""

    def pick_kind(self) -> str:
        """Return the kind of something to add."""
        return self.rng.choices(list(self.kinds), list(self.kinds.values()))[0]

    def draw(self, kind: str) -> Part | None:
        """Draw a part and put it into the schema; None where the schema has no place for it."""
        return self.maker(kind)()

    def maker(self, kind: str) -> Callable[[], Part | None]:
        """Return the method that draws a kind."""
        return getattr(self, kind.replace(" ", "_"))  # type: ignore[no-any-return]

    # -- tables and columns -------------------------------------------------------------------------------------------
    def table(self) -> Part:
        """Draw a table with columns and, mostly, a key."""
        table = self.add(Part(self.number, "table", self.fresh(), comment=self.comment()))
        if self.chance(0.6):
            self.key_column(table)
        for _ in range(self.rng.randint(1, 5)):
            self.column(table)
        if not self.schema.of("primary key", owner=table.id) and self.chance(0.4):
            self.primary_key(table)
        table = attrs.evolve(table, options=self.table_options(table))
        self.add(table)
        while self.chance(0.3):
            self.draw(self.pick(("unique", "check", "index", "foreign key")))
        return table

    def table_options(self, table: Part) -> tuple[str, ...]:
        """Return the options of a new table."""
        raise NotImplementedError

    def key_column(self, table: Part) -> None:
        """Draw the usual key."""
        raise NotImplementedError

    def some_table(self) -> Part | None:
        """Return one of the tables."""
        tables = self.schema.of("table")
        return self.pick(tables) if tables else None

    def column(self, table: Part | None = None) -> Part | None:
        """Draw a column: plain, or computed."""
        table = table or self.some_table()
        if table is None:
            return None
        column = Column(self.number, "column", self.fresh(), table.id, comment=self.comment())
        plain = [c for c in self.schema.columns(table.id) if c.generated is None]
        stored = self.stored()
        computed = self.computed(plain, stored=stored) if plain and self.chance(0.15) else None
        if computed is not None:
            return self.add(attrs.evolve(column, type=computed[0], generated=computed[1], stored=stored))
        type_ = self.type()
        return self.add(
            attrs.evolve(
                column,
                type=type_,
                nullable=self.chance(0.7),
                default=self.default(type_) if self.chance(0.35) else None,
                collation=self.collation(type_) if self.chance(0.15) else None,
            )
        )

    def stored(self) -> bool:
        """Tell whether a computed column is stored."""
        return self.chance(0.5)

    def type(self) -> str:
        """Draw a type."""
        raise NotImplementedError

    def values(self, type_: str) -> Sequence[str]:
        """Return values of a type."""
        raise NotImplementedError

    def default(self, type_: str) -> str | None:
        """Draw a default."""
        raise NotImplementedError

    def collation(self, type_: str) -> str | None:
        """Draw a collation that suits a type."""
        raise NotImplementedError

    def computed(self, columns: Sequence[Column], *, stored: bool) -> tuple[str, str] | None:
        """Draw the type and the expression of a computed column; what is not stored can be computed of all values."""
        raise NotImplementedError

    def condition(self, columns: Sequence[Column]) -> str:
        """Draw a condition on columns."""
        raise NotImplementedError

    def keyable(self, table: Part, count: int) -> list[Column]:
        """Return columns that can be a key together."""
        raise NotImplementedError

    # -- constraints ------------------------------------------------------------------------------------------------
    def constraint(self, kind: str, table: Part, text: str, needs: tuple[int, ...] = ()) -> Part:
        """Put a constraint into the schema, with or without a name."""
        name = self.fresh() if self.chance(0.6) else ""
        return self.add(Part(self.number, kind, name, table.id, text, needs=needs))

    def primary_key(self, table: Part | None = None) -> Part | None:
        """Draw a primary key for a table that has none."""
        table = table or self.some_table()
        if table is None or self.schema.of("primary key", owner=table.id):
            return None
        columns = self.keyable(table, self.rng.randint(1, 2))
        if not columns:
            return None
        return self.constraint("primary key", table, f"PRIMARY KEY ({mark(*columns)})")

    def unique(self) -> Part | None:
        """Draw a unique constraint."""
        table = self.some_table()
        columns = self.keyable(table, self.rng.randint(1, 2)) if table else []
        if table is None or not columns:
            return None
        return self.constraint("unique", table, f"UNIQUE {self.unique_words()}({mark(*columns)}){self.deferrable()}")

    def unique_words(self) -> str:
        """Return what stands before the columns of a unique constraint."""
        return ""

    def deferrable(self) -> str:
        """Return what a constraint ends with."""
        return ""

    def check(self) -> Part | None:
        """Draw a check."""
        table = self.some_table()
        if table is None:
            return None
        condition = self.condition([c for c in self.schema.columns(table.id) if c.generated is None])
        return self.constraint("check", table, f"CHECK ({condition})")

    def foreign_key(self) -> Part | None:
        """Draw a foreign key, with columns of its own: to another table, or to the same."""
        child, keys = self.some_table(), self.schema.of("primary key", "unique")
        keys = [key for key in keys if "DEFERR" not in key.text]
        if child is None or not keys:
            return None
        key = self.pick(keys)
        far = [self.schema.parts[number] for number in key_columns(key)]
        action = self.pick(_ACTIONS)
        own = []
        for column in far:
            assert isinstance(column, Column)
            type_, collation = self.referring(column), column.collation
            new = Column(self.number, "column", self.fresh(), child.id, type=type_, collation=collation)
            own.append(self.add(attrs.evolve(new, nullable=self.chance(0.8) or "SET NULL" in action)))
        text = f"FOREIGN KEY ({mark(*own)}) REFERENCES {mark(key.owner)} ({mark(*far)}) {action}".rstrip()
        return self.constraint("foreign key", child, text + self.deferrable(), (key.id,))

    def referring(self, column: Column) -> str:
        """Return the type of a column that refers to another."""
        return column.type


def key_columns(key: Part) -> tuple[int, ...]:
    """Return the columns of a key, in order."""
    inner = key.text.partition("(")[2].partition(")")[0]
    return tuple(int(word.strip("«»")) for word in inner.replace(" DESC", "").split(", "))
