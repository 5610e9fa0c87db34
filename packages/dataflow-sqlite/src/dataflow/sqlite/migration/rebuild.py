"""A table made anew: SQLite's documented way to change what ALTER TABLE cannot, without losing anything.

The old table steps aside under another name and the new one is made under its own, so that its text is stored as it is
written, errors name the table, and statistics stay. References to the table, from wherever, are not rewritten then:
`legacy_alter_table` is on and `foreign_keys` is off.
"""

from collections.abc import Collection, Mapping, Sequence

import attrs

from dataflow.catalog import Column, Table
from dataflow.sqlite.migration.tables import alias, rowid
from dataflow.sqlite.migration.text import read_table
from dataflow.sqlite.migration.tokens import literal, quoted, renamed, tokens

ASIDE = "dataflow_replaced"
GUARD = "dataflow_guard"
_EXACT = "9007199254740992"
"""Integers up to here, and their negatives, are floats exactly."""


@attrs.frozen
class Rebuild:
    """A table made anew.

    Attributes:
        before: the table as it is.
        after: as it shall be, with its text.
        fresh: columns that are new, also where one of that name is dropped.
        values: column -> SQL expression that fills rows which have none.
        attached: statements that make its indexes and triggers.
    """

    before: Table
    after: Table
    fresh: Collection[str] = ()
    values: Mapping[str, str] = attrs.field(factory=dict)
    attached: Sequence[str] = ()

    def statements(self) -> tuple[str, ...]:
        """Return the statements that do it."""
        name = self.after.name
        guards = self._guards(name)
        if read_table(self.before.sql).qualified:  # SQLite cannot rename it without renaming all that refers to it
            made = _called(self.after.sql, ASIDE)
            moved = (*self._copied(name, ASIDE), f"DROP TABLE {quoted(name)}", *_rename(ASIDE, name))
            return (*guards, made, *moved, *self.attached)
        dropped = f"DROP TABLE {quoted(ASIDE)}"
        return (*guards, *_rename(name, ASIDE), self.after.sql, *self._copied(ASIDE, name), dropped, *self.attached)

    # -- rows -------------------------------------------------------------------------------------------------------
    def _copied(self, source: str, target: str) -> list[str]:
        pairs = self._pairs() or self._bare()
        order = rowid(self.before)
        columns, values = ", ".join(pairs), ", ".join(pairs.values())
        sql = f"INSERT OR ABORT INTO {quoted(target)} ({columns}) SELECT {values} FROM {quoted(source)}"  # noqa: S608
        statements = [f"{sql} ORDER BY {order}" if order else sql]
        return [*statements, *self._counter(source, target)]

    def _pairs(self) -> dict[str, str]:
        """Return what is copied: quoted column of the new table -> expression on the old one."""
        pairs = {}
        for name, column in self.after.columns.items():
            if column.generated is None:
                value = self._value(column)
                if value is not None:
                    pairs[quoted(name)] = value
        number, other = rowid(self.before), alias(self.after)
        if number is None or "without rowid" in self.after.options:
            return pairs
        if other is None:
            here = rowid(self.after)
            if here is not None:
                pairs = {here: number, **pairs}
        elif quoted(other) not in pairs:
            pairs[quoted(other)] = number
        return pairs

    def _bare(self) -> dict[str, str]:
        """Return what makes a row of one whose columns are all gone."""
        plain = next((name for name, column in self.after.columns.items() if column.generated is None), "")
        here = rowid(self.after)
        return {here: "NULL"} if here is not None else {quoted(plain): self.after.columns[plain].default or "NULL"}

    def _value(self, column: Column) -> str | None:
        """Return what a column of the rows gets; None for its default."""
        value = self.values.get(column.name)
        if column.name in self.fresh or column.name not in self.before.columns:
            return None if value is None else f"({value})"
        copied = converted(quoted(column.name), self.before.columns[column.name].type, column.type)
        return copied if value is None else f"coalesce({copied}, ({value}))"

    def _counter(self, source: str, target: str) -> list[str]:
        """Keep the highest id that AUTOINCREMENT has given."""
        if not any(column.identity for column in self.before.columns.values()):
            return []
        if not any(column.identity for column in self.after.columns.values()):
            return []
        old, new = literal(source), literal(target)
        seen = f"(SELECT seq FROM sqlite_sequence WHERE name = {old})"  # noqa: S608
        rises = f"UPDATE sqlite_sequence SET seq = max(seq, coalesce({seen}, 0)) WHERE name = {new}"  # noqa: S608
        there = f"NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = {new})"  # noqa: S608
        moves = f"SELECT {new}, seq FROM sqlite_sequence WHERE name = {old} AND {there}"  # noqa: S608
        return [rises, f"INSERT INTO sqlite_sequence (name, seq) {moves}"]

    def _guards(self, source: str) -> list[str]:
        """Return statements that fail where a row holds what the new type would change silently."""
        checks: list[str] = []
        probes: list[str] = []
        for name, column in self.after.columns.items():
            old = self.before.columns.get(name)
            if old is None or name in self.fresh or column.generated is not None:
                continue
            condition = fits(quoted(name), old.type, column.type)
            if condition:
                place = f"c{len(checks)}"
                what = f"{source}.{name} holds a value that is no {column.type}"
                checks.append(f"{place} CONSTRAINT {quoted(what)} CHECK ({place})")
                probes.append(
                    f"INSERT INTO {GUARD} ({place}) SELECT 0 WHERE EXISTS "  # noqa: S608
                    f"(SELECT 1 FROM {quoted(source)} WHERE NOT ({condition}))"
                )
        if not checks:
            return []
        return [f"CREATE TABLE {GUARD} ({', '.join(checks)})", *probes, f"DROP TABLE {GUARD}"]


def _rename(name: str, to: str) -> tuple[str, str, str]:
    return (
        "PRAGMA legacy_alter_table = ON",
        f"ALTER TABLE {quoted(name)} RENAME TO {quoted(to)}",
        "PRAGMA legacy_alter_table = OFF",
    )


def _called(sql: str, name: str) -> str:
    """Return a CREATE TABLE text under another name, whose checks name no table."""
    old = next(token for token, _, _ in tokens(sql)[2:])
    head, body = read_table(sql).head, str(read_table(sql))
    body = body[len(head) :]
    table = old.strip('"`[]').lower()
    every = tokens(body)
    parts, place = [], 0
    for here, (token, start, _) in enumerate(every[:-1]):
        if every[here + 1][0] == "." and token.strip('"`[]').lower() == table:
            parts.append(body[place:start])
            place = every[here + 1][2]
    return f"CREATE TABLE {quoted(name)} ({''.join([*parts, body[place:]])}"


# -- types ------------------------------------------------------------------------------------------------------------
def affinity(kind: str) -> str:
    """Return a type's affinity, by SQLite's rules: INTEGER, TEXT, BLOB, REAL or NUMERIC."""
    name = kind.upper()
    for words, found in ((("INT",), "INTEGER"), (("CHAR", "CLOB", "TEXT"), "TEXT"), (("BLOB",), "BLOB")):
        if any(word in name for word in words):
            return found
    if not name or name == "ANY":
        return "BLOB" if not name else "ANY"
    return "REAL" if any(word in name for word in ("REAL", "FLOA", "DOUB")) else "NUMERIC"


def converted(value: str, old: str, new: str) -> str:
    """Return an expression for a value in its new type, as far as SQLite does not convert it when it is stored."""
    before, after = affinity(old), affinity(new)
    if after in (before, "ANY"):
        return value
    if after == "TEXT":  # SQLite writes 15 digits of a float; where that is another float, 17
        short = f"CAST({value} AS TEXT)"
        exact = f"CASE WHEN CAST({short} AS REAL) = {value} THEN {short} ELSE printf('%!.17g', {value}) END"
        return f"CASE typeof({value}) WHEN 'real' THEN {exact} ELSE {value} END"
    if after == "BLOB" and new:
        return f"CASE typeof({value}) WHEN 'text' THEN CAST({value} AS BLOB) ELSE {value} END"
    return value


def fits(value: str, old: str, new: str) -> str:
    """Return a condition that holds for values which a new type keeps as they are, or "" where all are."""
    before, after = affinity(old), affinity(new)
    if before == after or not new:
        return ""
    number = f"CAST({value} AS NUMERIC)"
    if after == "INTEGER":
        return (
            f"CASE typeof({value}) WHEN 'real' THEN {value} = CAST({value} AS INTEGER) "
            f"WHEN 'text' THEN {number} = {value} AND typeof({number}) = 'integer' "
            "WHEN 'blob' THEN 0 ELSE 1 END"
        )
    if after == "REAL":
        return (
            f"CASE typeof({value}) WHEN 'integer' THEN {value} BETWEEN -{_EXACT} AND {_EXACT} "
            f"WHEN 'text' THEN {number} = {value} AND (typeof({number}) = 'real' "
            f"OR {number} BETWEEN -{_EXACT} AND {_EXACT}) WHEN 'blob' THEN 0 ELSE 1 END"
        )
    if after == "TEXT":
        return f"typeof({value}) <> 'blob'"
    if after == "BLOB":
        return f"typeof({value}) IN ('text', 'blob', 'null')"
    return ""


def lossy(old: str, new: str) -> bool:
    """Tell whether a change of type may lose something, or be refused."""
    return bool(fits("x", old, new)) and (affinity(old), affinity(new)) != ("INTEGER", "TEXT")


__all__ = ["ASIDE", "GUARD", "Rebuild", "affinity", "converted", "fits", "lossy", "renamed"]
