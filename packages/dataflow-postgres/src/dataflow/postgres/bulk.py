"""Many rows at once: binary COPY where nothing else is asked, else one INSERT … SELECT FROM unnest(…).

Wanted ids are taken from the sequence first, so that they are those of the rows, in their order, by construction.
"""

import re
from collections.abc import Sequence
from hashlib import md5
from itertools import groupby
from typing import Any

import attrs
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from dataflow.dialect import COPY, COUNT, ROWS_TABLE, Command, Dialect, Insert, Joined, Program, Rows
from dataflow.postgres.confinement import Confinement

COPY_FROM = 50
"""Rows from which COPY pays off: it needs a second round trip."""
STAGE_FROM = 500
"""Rows from which a temporary table pays off: it has to be made."""
CONFINED_AT_ONCE = 5_000
"""Rows that an INSERT of arrays takes, where COPY would take them all."""
UNNESTED_AT_ONCE = 50_000
"""Rows that a statement takes as arrays, so that memory stays bounded."""
_JUMP = 1000
_PARAMETER = re.compile(r'"(?:[^"]|"")*"|\$(\d+)')
"""A quoted name, which may hold anything, or a parameter."""


class Bulk(Dialect):
    """The bulk operations of the PostgreSQL dialect."""

    stages: bool | None = None
    alone: bool
    confinement: Confinement

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
        if self.confinement.models is not None:  # who may set a sequence may set it back
            yield Command(_ADVANCE, writes=True), (table, column, highest)
            return
        if not self.alone:
            yield Command("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"), (sequence,)
        yield Command(_SET, writes=True), (sequence, highest)

    def insert_many(self, insert: Insert, rows: Rows, most_parameters: int) -> Program[tuple[int, list[Any]]]:
        """Load rows by COPY: straight into the table where nothing else is asked, else through a temporary one.

        COPY knows no policies: into a confined table go arrays.
        """
        written = 0
        returned: list[Any] = []
        tail = insert.tail.strip()
        plain = not tail or tail == self._returning(insert)
        if insert.generated in insert.columns:
            rows = Rows.of((yield from self.number_rows(insert, list(rows))))
        size = insert.batch_size if insert.capped else max(len(rows), 1)
        for start in range(0, len(rows), size):
            part = rows if size >= len(rows) else rows.part(start, min(start + size, len(rows)))
            if self.confinement.covers(insert.table):
                done, found = yield from self._confined(insert, part, most_parameters, plain=plain)
            elif plain and len(part) >= COPY_FROM:
                done, found = yield from self._copied(insert, part)
            elif len(part) >= STAGE_FROM and (yield from self._may_stage()):
                done, found = yield from self._staged(insert, part)
            else:
                done, found = yield from self._inserted(insert, part, most_parameters)
            written += done
            returned += found
        return written, returned

    def _may_stage(self) -> Program[bool]:
        """Tell whether the user may create temporary tables; asked once, where there is one user."""
        if self.stages is None or self.confinement.models is not None:
            rows = yield Command("SELECT has_database_privilege(current_database(), 'TEMP')"), ()
            self.stages = bool(rows[0][0])
        return self.stages

    def _staged(self, insert: Insert, rows: Rows) -> Program[tuple[int, list[Any]]]:
        """COPY into a temporary table, and insert from there.

        Its name stands for its columns: the driver remembers their types by it.
        """
        names = ", ".join(map(self.quote, insert.columns))
        shape = "\0".join([insert.table, *insert.columns, *map(self.type_text, insert.types)])
        table = f"dataflow_{md5(shape.encode(), usedforsecurity=False).hexdigest()[:16]}"
        staged, target = f'pg_temp."{table}"', self.quote(insert.table)
        create = f"CREATE TEMP TABLE {table} ON COMMIT DROP AS SELECT {names} FROM {target} WITH NO DATA"  # noqa: S608
        yield Command(create, COUNT, writes=True), ()
        copy = Command(f"COPY {staged} ({names}) FROM STDIN", COPY, writes=True, target=(table, insert.columns))
        yield copy, rows
        tail = _shifted(insert.tail, -len(insert.columns))
        sql = f"{insert.head.removesuffix('VALUES ')}SELECT {names} FROM {staged}{tail}"  # noqa: S608
        found = yield from self._sent(sql, list(insert.arguments), insert)
        yield Command(f"DROP TABLE {staged}", COUNT, writes=True), ()
        return found

    def _returning(self, insert: Insert) -> str:
        return f"RETURNING {self.quote(insert.table)}.{self.quote(str(insert.generated))}"

    def _numbers(self, insert: Insert, count: int) -> Program[list[int]]:
        rows = yield Command(_RESERVE, writes=True), (self.quote(insert.table), insert.generated, count)
        return rows[0][0]  # type: ignore[no-any-return]

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

    def _copied(self, insert: Insert, rows: Rows) -> Program[tuple[int, list[Any]]]:
        columns, returned = insert.columns, []
        if insert.returning and insert.generated not in columns:
            numbers = yield from self._numbers(insert, len(rows))
            if numbers and numbers[0] is None:  # a table of others, whose ids come from somewhere else
                return (yield from self._inserted(insert, rows, 32767))
            columns = (*columns, str(insert.generated))
            rows = rows.beside(numbers)
            returned = [(number,) for number in numbers]
        elif insert.returning:
            place = columns.index(str(insert.generated))
            returned = [(number,) for number in rows.columns(0, len(rows))[place]]
        names = ", ".join(map(self.quote, columns))
        sql = f"COPY {self.quote(insert.table)} ({names}) FROM STDIN"
        written = yield Command(sql, COPY, writes=True, target=(insert.table, columns)), rows
        return written, returned

    def _confined(
        self, insert: Insert, rows: Rows, most_parameters: int, *, plain: bool
    ) -> Program[tuple[int, list[Any]]]:
        """Insert arrays; ids that are asked for and not given are taken from the sequence first, as for COPY."""
        own, generated = insert, insert.generated
        if not insert.capped:
            own = attrs.evolve(insert, batch_size=max(insert.batch_size, CONFINED_AT_ONCE))
        if not (plain and insert.returning and len(rows) >= COPY_FROM and generated not in insert.columns):
            return (yield from self._inserted(own, rows, most_parameters))
        numbers = yield from self._numbers(insert, len(rows))
        if numbers and numbers[0] is None:  # a table of others, whose ids come from somewhere else
            return (yield from self._inserted(own, rows, most_parameters))
        columns = (*insert.columns, str(generated))
        names = ", ".join(map(self.quote, columns))
        head = f"INSERT INTO {self.quote(insert.table)} ({names}) VALUES "  # noqa: S608
        group = f"{insert.group[:-1]}, {self.placeholder(len(columns))})"
        types = (*insert.types, sa.BigInteger())
        own = attrs.evolve(
            own, head=head, group=group, tail="", columns=columns, types=types, returning=0, arguments=()
        )
        written, _ = yield from self._inserted(own, rows.beside(numbers), most_parameters)
        return written, [(number,) for number in numbers]

    def _inserted(self, insert: Insert, rows: Rows, most_parameters: int) -> Program[tuple[int, list[Any]]]:
        written, returned = 0, []
        if not any(isinstance(kind, pg.ARRAY) for kind in insert.types):
            arrays = ", ".join(f"${i}::{self.type_text(kind)}[]" for i, kind in enumerate(insert.types, 1))
            sql = f"{insert.head.removesuffix('VALUES ')}SELECT * FROM unnest({arrays}){insert.tail}"  # noqa: S608
            for start in range(0, len(rows), insert.batch_size):
                columns = rows.columns(start, min(start + insert.batch_size, len(rows)))
                done, found = yield from self._sent(sql, [*columns, *insert.arguments], insert)
                written += done
                returned += found
            return written, returned
        width = max(len(insert.columns), 1)  # arrays cannot be unnested by rows
        size = max(1, min((most_parameters - len(insert.arguments)) // width, insert.batch_size))
        for start in range(0, len(rows), size):
            part = list(zip(*rows.columns(start, min(start + size, len(rows))), strict=True))
            groups = [_shifted(insert.group, width * index) for index in range(len(part))]
            sql = insert.head + ", ".join(groups) + _shifted(insert.tail, width * (len(part) - 1))
            done, found = yield from self._sent(sql, [*(v for row in part for v in row), *insert.arguments], insert)
            written += done
            returned += found
        return written, returned

    def with_rows(self, joined: Joined, rows: Rows, most_parameters: int) -> Program[list[Any]]:
        """Hand the rows over as arrays, one a column."""
        if any(isinstance(kind, pg.ARRAY) for kind in joined.types):  # arrays cannot be unnested by rows
            return (yield from super().with_rows(joined, rows, most_parameters))
        own = len(joined.arguments)
        arrays = ", ".join(f"${own + i}::{self.type_text(kind)}[]" for i, kind in enumerate(joined.types, 1))
        names = ", ".join(f"c{place}" for place in range(len(joined.types)))
        sql = f"WITH {ROWS_TABLE}({names}) AS (SELECT * FROM unnest({arrays})) {joined.command.sql}"  # noqa: S608
        command = attrs.evolve(joined.command, sql=sql)
        size = joined.batch_size or UNNESTED_AT_ONCE
        replies = []
        for start in range(0, len(rows), size):
            columns = rows.columns(start, min(start + size, len(rows)))
            replies.append((yield command, [*joined.arguments, *columns]))
        return replies

    def typed_placeholder(self, position: int, kind: sa.types.TypeEngine[Any]) -> str:
        return f"${position}::{self.type_text(kind)}"

    @staticmethod
    def _sent(sql: str, arguments: list[Any], insert: Insert) -> Program[tuple[int, list[Any]]]:
        if not insert.returning:
            return (yield Command(sql, COUNT, writes=True), arguments), []
        found = yield Command(sql, writes=True), arguments
        return len(found), found


def _shifted(text: str, by: int) -> str:
    """Renumber the parameters of a piece of SQL."""
    return _PARAMETER.sub(lambda found: f"${int(found[1]) + by}" if found[1] else found[0], text) if by else text


_SEQUENCE = """\
SELECT found::text, pg_sequence_last_value(found)
FROM (SELECT pg_get_serial_sequence($1, $2)::regclass AS found) AS its"""
_DRAW = "SELECT max(nextval($1::text::regclass)) FROM generate_series(1, $2::bigint)"
_SET = """\
SELECT setval($1::text::regclass, $2::bigint)
WHERE coalesce(pg_sequence_last_value($1::text::regclass), 0) < $2::bigint"""
_ADVANCE = "SELECT dataflow_advance($1, $2, $3)"
_RESERVE = """\
SELECT array_agg(nextval(found)) FROM (SELECT pg_get_serial_sequence($1, $2)::regclass AS found OFFSET 0) AS its,
generate_series(1, $3::bigint)"""
