"""Rows for tables of which only the catalog is known, so that schemas which nobody here wrote can be changed with data.

Values are literals made from the texts of types; what cannot be filled that way is left empty, and counted. Checks are
satisfied where they list what they allow. Knows no dialect.
"""

import re
from collections.abc import Iterable, Mapping

import attrs

from dataflow.catalog import Catalog, Column, Constraint, Table

ROWS = 3
FIRST = 101
"""Number of the first row: what migrations insert themselves has lower keys."""
_LITERAL = re.compile(r"'((?:[^']|'')*)'")
_LENGTH = re.compile(r"\((\d+)\)")
_ARRAY = "[]"


def quoted(name: str) -> str:
    """Write an identifier."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """Write a text."""
    return "'" + value.replace("'", "''") + "'"


@attrs.frozen
class Filler:
    """Writes rows for the tables of a catalog.

    Attributes:
        catalog: the schema.
        blobs: how a blob is written, with {:02x} in it.
        booleans: how False and True are written.
    """

    catalog: Catalog
    blobs: str
    booleans: tuple[str, str]

    def ordered(self) -> list[Table]:
        """Return the tables, those first that others refer to, above all by columns that must have a value."""
        done: dict[str, Table] = {}

        def visit(name: str, above: frozenset[str]) -> None:
            if name in done or name in above:
                return
            table, inside = self.catalog.tables[name], above | {name}
            for target in self._targets(table, required=True):
                visit(target, inside)
            for target in self._targets(table, required=False):
                if not self._needed(target, frozenset()) & inside:
                    visit(target, inside)
            done[name] = table

        for name in self.catalog.tables:
            visit(name, frozenset())
        return list(done.values())

    def _targets(self, table: Table, *, required: bool) -> list[str]:
        """Return the tables that a table refers to by columns that must, or need not, have a value."""
        keys = [key for key in table.constraints if key.kind == "foreign key" and key.target in self.catalog.tables]
        must = [key for key in keys if not any(table.columns[name].nullable for name in key.columns)]
        return [key.target for key in keys if (key in must) == required]

    def _needed(self, name: str, above: frozenset[str]) -> frozenset[str]:
        """Return a table and all that have to have rows before it can."""
        found = above | {name}
        for target in self._targets(self.catalog.tables[name], required=True):
            if target not in found:
                found = self._needed(target, found)
        return found

    def rows(self, table: Table) -> list[str]:
        """Return statements that insert `ROWS` rows; the last has NULL wherever that may be."""
        return [self._insert(table, number, bare=number == ROWS - 1) for number in range(ROWS)]

    def _insert(self, table: Table, number: int, *, bare: bool) -> str:
        values = {}
        for column in table.columns.values():
            if column.generated is not None or column.identity == "always":
                continue
            key = column.name in table.primary_key
            value = None if bare and column.nullable and not key else self.value(table, column, number)
            if value is not None:
                values[column.name] = value
        if not values:
            return f"INSERT INTO {quoted(table.name)} DEFAULT VALUES"
        names, literals = ", ".join(map(quoted, values)), ", ".join(values.values())
        return f"INSERT INTO {quoted(table.name)} ({names}) VALUES ({literals})"  # noqa: S608

    def value(self, table: Table, column: Column, number: int) -> str | None:
        """Return SQL of a value for a row; None where none is known, or where it has to wait for other rows."""
        for key in table.constraints:
            if key.kind == "foreign key" and column.name in key.columns:
                return self._referred(table, key, key.columns.index(column.name), number)
        allowed = [word for check in table.constraints if check.kind == "check" for word in _listed(check, column.name)]
        if allowed:
            return text(allowed[number % len(allowed)])
        return self.literal(column, number)

    def _referred(self, table: Table, key: Constraint, place: int, number: int) -> str | None:
        target = self.catalog.tables.get(key.target)
        if target is None or target.name == table.name:
            return None
        remote = key.remote or target.primary_key
        if place >= len(remote):
            return None
        order = ", ".join(map(quoted, remote))
        return f"(SELECT {quoted(remote[place])} FROM {quoted(target.name)} ORDER BY {order} LIMIT 1 OFFSET {number})"  # noqa: S608

    def literal(self, column: Column, number: int) -> str | None:
        """Return a literal of a column's type, another one for each number."""
        kind = column.type.lower()
        labels = self.catalog.enums.get(column.type.strip('"'))
        if labels is not None:
            return text(labels.labels[number % len(labels.labels)])
        if kind.endswith(_ARRAY):
            return "'{}'"
        return self._scalar(kind, column.name, FIRST + number)

    def _scalar(self, kind: str, name: str, number: int) -> str | None:
        if "interval" in kind:
            return f"'{number} days'"
        if "bool" in kind:
            return self.booleans[number % 2]
        if any(word in kind for word in ("int", "serial", "oid")):
            return str(number)
        if any(word in kind for word in ("num", "dec", "real", "double", "float", "money")):
            return f"{number}.5" if "(" not in kind else "1.5"
        if "json" in kind:
            return f"""'{{"n": {number}}}'"""
        if "timestamp" in kind or "datetime" in kind:
            return f"'2024-01-01 03:04:05.{number:06d}'"
        if "date" in kind:
            return f"'2024-01-{number % 28 + 1:02d}'"
        if "time" in kind:
            return f"'03:04:05.{number:06d}'"
        if "uuid" in kind:
            return f"'00000000-0000-4000-8000-{number:012d}'"
        if any(word in kind for word in ("bytea", "blob", "binary")):
            return self.blobs.format(number)
        if not kind or any(word in kind for word in ("char", "text", "clob", "string", "enum")):
            length = _LENGTH.search(kind)
            made = f"{number} {name}"
            return text(made[: int(length[1])] if length else made)
        return None

    def wanted_values(self) -> Mapping[tuple[str, str], str]:
        """Return (table, column) -> a value for rows that are there, of each column that has to have one."""
        found = {}
        for table in self.catalog.tables.values():
            for column in table.columns.values():
                value = column.default
                if value is None and column.generated is None and not column.identity:
                    allowed = [w for c in table.constraints if c.kind == "check" for w in _listed(c, column.name)]
                    value = text(allowed[0]) if allowed else self.literal(column, 0)
                if not column.nullable and value is not None:
                    found[table.name, column.name] = value
        return found


def _listed(check: Constraint, column: str) -> Iterable[str]:
    """Return the literals that a check of one column lists, or the number that it wants."""
    if check.columns != (column,):
        return ()
    only = re.search(r"= ?(\d+)\)*$", check.definition)
    if only:
        return [only[1]]
    if re.search(r"\bIN\b|= ANY", check.definition, re.IGNORECASE):
        return [found.replace("''", "'") for found in _LITERAL.findall(check.definition)]
    return ()
