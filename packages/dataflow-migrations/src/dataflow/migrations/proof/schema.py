"""A schema as parts that name each other by number, so that what is renamed is renamed wherever it is mentioned.

In the text of a part, ``«7»`` stands for the quoted name of part 7, and ``§7§`` for the same within a string literal.
Knows no dialect, but for how it quotes.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

import attrs

_MARK = re.compile("([«§])([0-9]+)[»§]")


def mark(*parts: "Part | int") -> str:
    """Return what stands for parts in a text, separated by commas."""
    return ", ".join(f"«{part if isinstance(part, int) else part.id}»" for part in parts)


@attrs.frozen
class Part:
    """Anything that has a name.

    Attributes:
        id: its number.
        kind: "table", "column", "primary key", "unique", "check", "foreign key", "index", "trigger", "policy", "view",
            "function", "sequence" or "enum".
        name: its name; "" for a constraint that the database is to name.
        owner: number of its table, or 0.
        text: what follows its name, or its whole statement.
        options: words of a table; labels of an enum; traits of others.
        comment: its comment, or None.
        needs: numbers of parts that it cannot be without, besides those in its texts.
    """

    id: int
    kind: str
    name: str
    owner: int = 0
    text: str = ""
    options: tuple[str, ...] = ()
    comment: str | None = None
    needs: tuple[int, ...] = ()

    def texts(self) -> Iterator[str]:
        """Yield the texts in which other parts may be mentioned."""
        yield self.text

    @property
    def uses(self) -> frozenset[int]:
        """Numbers of the parts that it mentions or needs."""
        named = {int(found[2]) for text in self.texts() for found in _MARK.finditer(text)}
        return frozenset({*named, *self.needs, self.owner}) - {0, self.id}


@attrs.frozen
class Column(Part):
    """A column; see `dataflow.catalog.Column`. `identity` may be "serial" as well."""

    type: str = ""
    nullable: bool = True
    default: str | None = None
    generated: str | None = None
    stored: bool = False
    identity: str = ""
    collation: str | None = None

    def texts(self) -> Iterator[str]:
        yield from (self.text, self.type, self.default or "", self.generated or "")


@attrs.frozen
class Schema:
    """All parts, by number."""

    parts: Mapping[int, Part] = attrs.field(factory=dict)

    def of(self, *kinds: str, owner: int = 0) -> list[Part]:
        """Return the parts of some kinds, all or those of one table."""
        return [part for part in self.parts.values() if part.kind in kinds and (not owner or part.owner == owner)]

    def columns(self, table: int) -> list[Column]:
        """Return the columns of a table."""
        return [part for part in self.parts.values() if isinstance(part, Column) and part.owner == table]

    def with_(self, *parts: Part) -> "Schema":
        """Return it with parts added, or put in place of those of their numbers."""
        return Schema({**self.parts, **{part.id: part for part in parts}})

    def without(self, *ids: int) -> "Schema":
        """Return it without parts, and without all that cannot be without them."""
        gone = set(ids)
        while True:
            more = {part.id for part in self.parts.values() if part.id not in gone and part.uses & gone}
            more |= {
                table.id for table in self.of("table") if all(c.id in gone for c in self.columns(table.id))
            } - gone  # fmt: skip
            if not more:
                return Schema({number: part for number, part in self.parts.items() if number not in gone})
            gone |= more

    def users(self, *ids: int) -> list[Part]:
        """Return the parts that mention or need one of some."""
        return [part for part in self.parts.values() if part.uses & set(ids)]

    @property
    def next(self) -> int:
        """A number that is free."""
        return max(self.parts, default=0) + 1

    def write(self, text: str, quote: Callable[[str], str]) -> str:
        """Write names in place of numbers."""

        def name(found: re.Match[str]) -> str:
            quoted = quote(self.parts[int(found[2])].name)
            return quoted if found[1] == "«" else quoted.replace("'", "''")

        return _MARK.sub(name, text)


def in_order(parts: Iterable[Part]) -> list[Part]:
    """Order parts so that what they use comes first; all uses are of lower numbers, or not among them."""
    return sorted(parts, key=lambda part: part.id)
