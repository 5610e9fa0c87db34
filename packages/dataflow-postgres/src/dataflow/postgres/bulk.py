"""Many rows at once: binary COPY where nothing else is asked, else one INSERT … SELECT FROM unnest(…).

Wanted ids are taken from the sequence first, so that they are those of the rows, in their order, by construction.
"""

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from dataflow.dialect import COPY, COUNT, Command, Dialect, Insert, Program

COPY_FROM = 50
"""Rows from which COPY pays off: it needs a second round trip."""
_JUMP = 1000
_PARAMETER = re.compile(r"\$(\d+)")


class Bulk(Dialect):
    """The bulk operations of the PostgreSQL dialect."""

    def insert(self, table: sa.Table) -> Any:
        return pg.insert(table)

    def type_text(self, kind: sa.types.TypeEngine[Any]) -> str:
        """Write a column type as casts take it: without its collation."""
        if isinstance(kind, pg.ARRAY):
            return f"{self.type_text(kind.item_type)}[]"
        return "text" if isinstance(kind, sa.Text) else kind.compile(dialect=self.sqlalchemy)

    def numbered(self, table: str, column: str, highest: int) -> Program[None]:
        """Move the sequence on, never back.

        Small gaps are drawn from the sequence, so that values others draw meanwhile stay theirs; for a large one it is
        set, while a lock keeps out others that set it.
        """
        rows = yield Command(_SEQUENCE), (self.quote(table), column)
        sequence, last = rows[0] if rows else (None, None)
        if sequence is None or highest <= (last or 0):
            return
        if highest - (last or 0) <= _JUMP:
            yield Command(_DRAW, writes=True), (sequence, highest - (last or 0))
            return
        yield Command("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"), (sequence,)
        yield Command(_SET, writes=True), (sequence, highest)

    def insert_many(
        self, insert: Insert, rows: Sequence[Sequence[Any]], most_parameters: int
    ) -> Program[tuple[int, list[Any]]]:
        written = 0
        returned: list[Any] = []
        plain = not insert.tail.replace("RETURNING", "").strip() or insert.tail.strip().startswith("RETURNING")
        only_id = insert.generated is not None and insert.tail.strip() == self._returning(insert)
        rows = yield from self.number_rows(insert, rows)
        for start in range(0, len(rows), insert.batch_size):
            part = rows[start : start + insert.batch_size]
            if len(part) >= COPY_FROM and plain and (not insert.returning or only_id):
                done, found = yield from self._copied(insert, part)
            else:
                done, found = yield from self._inserted(insert, part, most_parameters)
            written += done
            returned += found
        return written, returned

    def _returning(self, insert: Insert) -> str:
        return f"RETURNING {self.quote(insert.table)}.{self.quote(str(insert.generated))}"

    def _numbers(self, insert: Insert, count: int) -> Program[list[int]]:
        rows = yield Command(_RESERVE, writes=True), (self.quote(insert.table), insert.generated, count)
        return [row[0] for row in rows]

    def number_rows(self, insert: Insert, rows: Sequence[Sequence[Any]]) -> Program[Sequence[Sequence[Any]]]:
        """Take open ids from the sequence, each beyond those of the rows before, as a counter of the table would."""
        if insert.generated not in insert.columns:
            return rows
        place = insert.columns.index(insert.generated)
        if all(row[place] is not None for row in rows):
            return rows
        filled = list(rows)
        for given, stretch in groupby(range(len(rows)), lambda index: rows[index][place] is not None):
            indexes = list(stretch)
            if given:
                yield from self.numbered(insert.table, insert.generated, max(rows[index][place] for index in indexes))
                continue
            numbers = yield from self._numbers(insert, len(indexes))
            for index, number in zip(indexes, numbers, strict=True):
                filled[index] = (*filled[index][:place], number, *filled[index][place + 1 :])
        return filled

    def _copied(self, insert: Insert, rows: Sequence[Sequence[Any]]) -> Program[tuple[int, list[Any]]]:
        columns, returned = insert.columns, []
        if insert.returning and insert.generated not in columns:
            numbers = yield from self._numbers(insert, len(rows))
            if numbers and numbers[0] is None:  # a table of others, whose ids come from somewhere else
                return (yield from self._inserted(insert, rows, 32767))
            columns = (*columns, str(insert.generated))
            rows = [(*row, number) for row, number in zip(rows, numbers, strict=True)]
            returned = [(number,) for number in numbers]
        elif insert.returning:
            place = columns.index(str(insert.generated))
            returned = [(row[place],) for row in rows]
        names = ", ".join(map(self.quote, columns))
        sql = f"COPY {self.quote(insert.table)} ({names}) FROM STDIN"
        written = yield Command(sql, COPY, writes=True, target=(insert.table, columns)), rows
        return written, returned

    def _inserted(
        self, insert: Insert, rows: Sequence[Sequence[Any]], most_parameters: int
    ) -> Program[tuple[int, list[Any]]]:
        if not any(isinstance(kind, pg.ARRAY) for kind in insert.types):
            arrays = ", ".join(f"${i}::{self.type_text(kind)}[]" for i, kind in enumerate(insert.types, 1))
            sql = f"{insert.head.removesuffix('VALUES ')}SELECT * FROM unnest({arrays}){insert.tail}"  # noqa: S608
            arguments = [*map(list, zip(*rows, strict=True)), *insert.arguments]
            return (yield from self._sent(sql, arguments, insert))
        written, returned = 0, []
        width = max(len(insert.columns), 1)  # arrays cannot be unnested by rows
        size = max(1, (most_parameters - len(insert.arguments)) // width)
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            groups = [_shifted(insert.group, width * index) for index in range(len(part))]
            sql = insert.head + ", ".join(groups) + _shifted(insert.tail, width * (len(part) - 1))
            done, found = yield from self._sent(sql, [*(v for row in part for v in row), *insert.arguments], insert)
            written += done
            returned += found
        return written, returned

    @staticmethod
    def _sent(sql: str, arguments: list[Any], insert: Insert) -> Program[tuple[int, list[Any]]]:
        if not insert.returning:
            return (yield Command(sql, COUNT, writes=True), arguments), []
        found = yield Command(sql, writes=True), arguments
        return len(found), found


def _shifted(text: str, by: int) -> str:
    """Renumber the parameters of a piece of SQL."""
    return _PARAMETER.sub(lambda found: f"${int(found[1]) + by}", text) if by else text


_SEQUENCE = """\
SELECT found::text, pg_sequence_last_value(found)
FROM (SELECT pg_get_serial_sequence($1, $2)::regclass AS found) AS its"""
_DRAW = "SELECT max(nextval($1::text::regclass)) FROM generate_series(1, $2::bigint)"
_SET = """\
SELECT setval($1::text::regclass, $2::bigint)
WHERE coalesce(pg_sequence_last_value($1::text::regclass), 0) < $2::bigint"""
_RESERVE = """\
SELECT nextval(found) FROM (SELECT pg_get_serial_sequence($1, $2)::regclass AS found OFFSET 0) AS its,
generate_series(1, $3::bigint)"""
