"""Rows for random schemas, and whether a migration has kept them: what stays is compared through the driver."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time
from decimal import ROUND_HALF_UP, Decimal
from random import Random
from typing import Any

import attrs

from dataflow.catalog import Catalog, Column, Table
from dataflow.migrations.proof.drawing import Drawer, key_columns
from dataflow.migrations.proof.schema import Column as Drawn
from dataflow.migrations.proof.schema import Part, Schema
from dataflow.migrations.renames import Renames

Rows = Mapping[str, list[dict[str, Any]]]
"""Table -> its rows."""
Quote = Callable[[str], str]


# -- filling ----------------------------------------------------------------------------------------------------------
def inserts(schema: Schema, drawer: Drawer, quote: Quote, rows: int) -> Iterator[str]:
    """Yield statements that insert a row each; constraints may refuse some.

    Args:
        schema: what the rows are for.
        drawer: knows values of types.
        quote: how the dialect quotes.
        rows: of each table.
    """
    for table in schema.of("table"):
        columns = [c for c in schema.columns(table.id) if c.generated is None and c.identity != "always"]
        keys = schema.of("foreign key", owner=table.id)
        for _ in range(rows):
            chosen = [c for c in columns if not c.identity and (c.default is None or drawer.chance(0.7))]
            values = {c.id: _value(c, drawer) for c in chosen}
            for key in keys:
                values.update(_reference(schema, key, drawer))
            name = quote(table.name)
            if not values:
                yield f"INSERT INTO {name} DEFAULT VALUES"
                continue
            listed = ", ".join(quote(schema.parts[number].name) for number in values)
            made = schema.write(", ".join(values.values()), quote)
            yield f"INSERT INTO {name} ({listed}) VALUES ({made})"  # noqa: S608


def _value(column: Drawn, drawer: Drawer) -> str:
    if column.nullable and drawer.chance(0.2):
        return "NULL"
    value = drawer.pick(drawer.values(column.type))
    return f"'{value}'" if drawer.name == "postgres" else value


def _reference(schema: Schema, key: Part, drawer: Drawer) -> Iterable[tuple[int, str]]:
    """Yield values of the columns of a foreign key: those of some row, or none."""
    own = key_columns(key)
    target = schema.parts[key.needs[0]]
    none = all(schema.columns(key.owner) and _nullable(schema, number) for number in own)
    if none and drawer.chance(0.3):
        return [(number, "NULL") for number in own]
    place = drawer.rng.randrange(3)
    return [
        (number, f"(SELECT «{far}» FROM «{target.owner}» ORDER BY 1 LIMIT 1 OFFSET {place})")  # noqa: S608
        for number, far in zip(own, key_columns(target), strict=True)
    ]


def _nullable(schema: Schema, number: int) -> bool:
    column = schema.parts[number]
    return isinstance(column, Drawn) and column.nullable


# -- comparing --------------------------------------------------------------------------------------------------------
@attrs.define
class Comparison:
    """What became of rows.

    Attributes:
        kept: how many values were found as they were.
        cast: how many values were found in their new type.
        skipped: how many columns were not compared: they are computed otherwise now, or no cast is known here.
        lost: columns and tables whose values went.
        wrong: what differs.
    """

    kept: int = 0
    cast: int = 0
    skipped: int = 0
    lost: set[str] = attrs.field(factory=set)
    wrong: list[str] = attrs.field(factory=list)


def compare(
    before: tuple[Catalog, Rows],
    after: tuple[Catalog, Rows],
    renames: Renames,
    filled: Iterable[tuple[str, str]] = (),
) -> Comparison:
    """Compare rows from before a migration with those after it, whatever order they are in.

    Args:
        before: the schema and the rows.
        after: the same.
        renames: of the migration.
        filled: (table, column), by their new names, in which NULLs have got a value.
    """
    found = Comparison()
    filled = set(filled)
    for old, table in before[0].tables.items():
        new = renames.tables.get(old, old)
        rows = before[1][old]
        if new not in after[0].tables:
            found.lost |= {old} if rows else set()
            continue
        names = renames.columns.get(new, {})
        pairs = {column: names.get(column, column) for column in table.columns}
        moved = _Table(table, after[0].tables[new], pairs, {c for t, c in filled if t == new}, found)
        moved.compare(rows, after[1][new])
    return found


class _Table:
    """One table's rows: columns that stay are compared together, row by row; those that are filled, alone."""

    def __init__(
        self, before: Table, after: Table, pairs: Mapping[str, str], filled: set[str], found: Comparison
    ) -> None:
        self.before = before
        self.after = after
        self.found = found
        self.casts: dict[str, tuple[str, Callable[[Any], Any]]] = {}
        self.filled: dict[str, tuple[str, Callable[[Any], Any]]] = {}
        both = [
            (column, after.columns[pairs[name]])
            for name, column in before.columns.items()
            if pairs[name] in after.columns
        ]
        self.moved = bool(filled) or any(_content(column) != _content(then) for column, then in both)
        for old, new in pairs.items():
            self._sort(old, new, filled)

    def _sort(self, old: str, new: str, filled: set[str]) -> None:
        column, then = self.before.columns[old], self.after.columns.get(new)
        if then is None or (then.generated is not None and column.generated is None):
            if column.generated is None:
                self.found.lost.add(f"{self.before.name}.{old}")
            return
        cast = _cast(column, then)
        strict = ["strict" in table.options for table in (self.before, self.after)]
        if then.type == "ANY" and strict[0] != strict[1]:  # it has the affinity NUMERIC where tables are not strict
            cast = None
        if column.generated is not None and not column.stored and then.generated is None:
            cast = None  # PostgreSQL does not keep what is stored nowhere, and says so
        if cast is None or (then.generated is not None and (self.moved or new in filled)):
            self.found.skipped += 1
        elif new in filled:
            self.filled[old] = new, cast
        else:
            self.casts[old] = new, cast

    def compare(self, before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> None:
        name = self.after.name
        if len(before) != len(after):
            self.found.wrong.append(f"{name} had {len(before)} rows and has {len(after)}")
            return
        expected = Counter(tuple(_key(cast(row[old])) for old, (_, cast) in self.casts.items()) for row in before)
        got = Counter(tuple(_key(row[new]) for new, _ in self.casts.values()) for row in after)
        if expected != got:
            lacks, new = list((expected - got).elements())[:2], list((got - expected).elements())[:2]
            self.found.wrong.append(f"{name} {list(self.casts)} had {lacks} and has {new}")
        for old, (new_name, _) in self.casts.items():
            same = self.before.columns[old].type == self.after.columns[new_name].type
            self.found.kept += len(before) * same
            self.found.cast += len(before) * (not same)
        for old, (new_name, cast) in self.filled.items():
            had = Counter(_key(cast(row[old])) for row in before if row[old] is not None)
            has = Counter(_key(row[new_name]) for row in after)
            if had - has:
                self.found.wrong.append(f"{name}.{new_name} lacks {list(had - has)[:2]}")


def _content(column: Column) -> tuple[str, bool]:
    return column.type, column.generated is None


def _key(value: Any) -> Any:
    """Return what tells values apart: by type and text, but for numbers that are equal."""
    if isinstance(value, (int, float, Decimal)):
        return value
    return type(value).__name__, repr(value)


def _same(value: Any) -> Any:
    return value


_WHOLE = ("smallint", "integer", "bigint", "INTEGER", "INT", "BIGINT")
_TEXT = ("text", "character varying")


def _cast(before: Column, after: Column) -> Callable[[Any], Any] | None:
    """Return what makes of an old value the new one, independently of the database; None where it is not known."""
    if before.generated != after.generated:
        return None if after.generated is not None else _cast(before, attrs.evolve(after, generated=before.generated))
    old, new = before.type, after.type
    if old == new:
        return _same
    known = _CASTS.get((_base(old), _base(new)))
    if known is None or (new != _base(new) and new not in ("numeric(12,2)", "character varying(20)")):
        return None
    return lambda value: None if value is None else known(value)


def _base(type_: str) -> str:
    return type_.partition("(")[0] if type_.startswith(("numeric", "character varying")) else type_


def _rounded(value: Decimal) -> int:
    return int(value.quantize(Decimal(1), ROUND_HALF_UP))


def _midnight(value: date) -> datetime:
    return datetime.combine(value, time())


def _spaced(value: Any) -> Any:
    return json.dumps(json.loads(value)) if isinstance(value, str) else value


def _casts() -> Iterator[tuple[tuple[str, str], Callable[[Any], Any]]]:
    for old in _WHOLE:
        for new in (*_WHOLE, "numeric", "double precision", "REAL", "NUMERIC"):
            yield (old, new), _same
        for new in (*_TEXT, "TEXT"):
            yield (old, new), str
    for text in _TEXT:
        yield (text, "integer"), int
        for new in _TEXT:
            yield (text, new), _same
        yield ("numeric", text), lambda value: format(value, "f")
        yield ("boolean", text), lambda value: "true" if value else "false"
        yield ("date", text), date.isoformat
        yield ("uuid", text), str
    yield ("numeric", "numeric"), _same
    yield ("numeric", "integer"), _rounded
    yield ("real", "double precision"), _same
    yield ("boolean", "integer"), int
    yield ("date", "timestamp without time zone"), _midnight
    yield ("timestamp without time zone", "date"), datetime.date
    yield ("json", "jsonb"), _spaced
    yield ("BOOLEAN", "INTEGER"), _same
    yield ("VARCHAR(20)", "TEXT"), _same
    yield ("TEXT", "VARCHAR(20)"), _same
    yield ("DATE", "TEXT"), _same


_CASTS = dict(_casts())


def some_rows(rng: Random) -> int:
    """Return how many rows tables get."""
    return rng.choice((0, 1, 4, 8, 8))
