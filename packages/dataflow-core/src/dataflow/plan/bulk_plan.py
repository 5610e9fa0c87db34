"""The plan of a bulk write: a multi-row INSERT, compiled once per shape, and what features want of it.

What is written, and in how many transactions, `bulk_create` and `bulk_upsert` know.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import attrs

from dataflow.dialect import Convert, Dialect, Insert, Program, Rows
from dataflow.errors import Problem
from dataflow.plan import rows as rw
from dataflow.plan.builder import Authorization, Binder
from dataflow.plan.derived import Derivation, settle
from dataflow.session import Call
from dataflow.types import ValueRefused


@attrs.frozen
class BulkPlan:
    """A compiled multi-row INSERT, and what features want of it.

    Attributes:
        insert: the statement's parts.
        returned: names of the returned columns.
        decode: returned row -> dict.
        forced, encodes, guards, unmatched, records, notifications: what features asked for.
        tail: (binder, encoder) of each parameter that follows the rows.
        told: whether each returned row ends in whether it was created.
        bare: whether a returned row holds the key, as results show it, and nothing else.
        authorizations: asked before anything is sent, with the names of what is `written`.
        derivations: field -> what derives its values from the rows.
        changed: of an upsert, what features ask with the number of rows that were there, as of any update.
    """

    insert: Insert
    returned: tuple[str, ...]
    decode: Any
    forced: Mapping[str, Any]
    encodes: Mapping[str, Any]
    guards: tuple[Any, ...]
    unmatched: tuple[Any, ...]
    records: tuple[Any, ...]
    notifications: tuple[Any, ...]
    tail: tuple[tuple[Binder, Convert | None], ...] = ()
    told: bool = False
    bare: bool = False
    authorizations: tuple[Authorization, ...] = ()
    written: tuple[str, ...] = ()
    derivations: Mapping[str, Derivation] = attrs.field(factory=dict)
    changed: tuple[Any, ...] = ()

    @property
    def plain(self) -> bool:
        """Whether no feature wants to see what was written, and the database gives every id."""
        watched = self.guards or self.unmatched or self.records or self.notifications or self.derivations
        return not watched and self.insert.generated not in self.insert.columns

    def write(
        self,
        dialect: Dialect,
        rows: Sequence[Sequence[Any]],
        call: Call,
        encoder: rw.RowEncoder,
        source: Sequence[Mapping[str, Any]],
    ) -> Program[tuple[int, list[Any]]]:
        """Insert encoded rows: (rows written, returned rows); features see the records in the same transaction.

        Args:
            dialect: of the database.
            rows: the values of the driver.
            call: its context.
            encoder: what encoded them.
            source: the rows as the caller gave them, from which features derive values.
        """
        if not self.derivations:
            return (yield from self._write(dialect, rows, call))

        def write(records: list[dict[str, Any]]) -> Program[tuple[int, list[Any]]]:
            try:
                filled = encoder.filled(rows, records)
            except ValueRefused as refused:
                fault = Problem("wrong-value", refused.message, refused.hint)
                raise encoder.bound.refuse([fault], "derive") from None
            return (yield from self._write(dialect, filled, call))

        def skipped(reply: tuple[int, list[Any]]) -> bool:  # perhaps because somebody took a derived value meanwhile
            return len(rows) == 1 and not reply[0]

        return (yield from settle(self.derivations, call, encoder.records(source), write, missed=skipped))

    def _write(self, dialect: Dialect, rows: Sequence[Sequence[Any]], call: Call) -> Program[tuple[int, list[Any]]]:
        insert = self._filled(call)
        written, returned = yield from dialect.insert_many(insert, Rows.of(rows), call.session.max_parameters)
        yield from self._follow(dialect, rows, written, returned, call)
        return written, returned

    def write_all(self, dialect: Dialect, rows: Rows, call: Call) -> Program[tuple[int, list[Any]]]:
        """Insert rows that are encoded meanwhile; only for plans that are `plain`."""
        return (yield from dialect.insert_many(self._filled(call), rows, call.session.max_parameters))

    def authorize(self, call: Call) -> None:
        """Ask whether the call may do it; before ids are drawn, too, which would be lost."""
        for authorize in self.authorizations:
            authorize(call, self.written)

    def _filled(self, call: Call) -> Insert:
        self.authorize(call)
        insert = self.insert
        if self.tail:
            values = [(binder(call), convert) for binder, convert in self.tail]
            arguments = tuple(value if convert is None else convert(value) for value, convert in values)
            insert = attrs.evolve(insert, arguments=arguments)
        return insert

    def _follow(
        self, dialect: Dialect, rows: Sequence[Sequence[Any]], written: int, returned: Sequence[Any], call: Call
    ) -> Program[None]:
        insert = self.insert
        if dialect.numbers_apart and insert.generated in insert.columns:
            place = insert.columns.index(insert.generated)
            highest = max((row[place] for row in rows if row[place] is not None), default=None)
            if highest is not None:
                yield from dialect.numbered(insert.table, insert.generated, highest)
        for guard in self.guards if written else (*self.guards, *self.unmatched):
            guard(call, written)
        if self.records or self.notifications:
            records = [self.decode(row[:-1] if self.told else row) for row in returned]
            for record in self.records:
                yield from record(call, records)
            call.after_commit += [partial(note, call, records) for note in self.notifications]
