"""Creating many records: rows that are there, or come bit by bit.

All together where that is possible; batch by batch or row by row where a wrong one has to be found, or left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from dataflow.dialect import Program, Rows
from dataflow.errors import InputError, IntegrityError
from dataflow.plan import rows as rw
from dataflow.plan.builder import PlanBuilder
from dataflow.plan.bulk import Batch, BulkWriting, Tally
from dataflow.plan.bulk_plan import BulkPlan
from dataflow.plan.operation import Result
from dataflow.session import Call, atomic
from dataflow.types import ValueRefused

CONFLICTS = ("error", "skip", "upsert")
ON_ERROR = ("stop", "skip", "collect")
AT_ONCE = 10_000
"""Rows that are taken from an iterator and written together."""


class BulkCreate(BulkWriting):
    """Insert many records."""

    name = "bulk_create"

    def program(self, params: Mapping[str, Any], call: Call) -> Program[dict[str, Any]]:
        shared, options = self.split(params)
        if self.choice(options, "conflict_resolution", CONFLICTS) == "upsert":
            return (yield from self._as_upsert(shared, options, call))
        feed = Feed(self, shared, options, call)
        data = self.data(options)
        bodies: Iterator[Program[None]]
        if rw.is_arrow(data):
            from dataflow.arrow import parts

            bodies = map(feed.write, parts(data, feed.size))
        elif isinstance(data, Iterator):
            bodies = map(feed.write, rw.chunks(data, feed.size))
        else:
            bodies = feed.groups(self.rows(data))
        yield from self.in_transactions(call, bodies, feed.tally, feed.every)
        return feed.result()

    def feed(self, params: Mapping[str, Any], call: Call) -> "Feed":
        """Begin to create records that are handed over bit by bit, `data` aside.

        Raises:
            InputError: an option is wrong, or means an upsert, which has to see all rows together.
        """
        shared, options = self.split(params)
        if self.choice(options, "conflict_resolution", CONFLICTS) == "upsert":
            hint = "pass a list, or conflict_resolution='skip'"
            raise self.fault("an upsert needs all its rows at once, not an async iterator", hint)
        return Feed(self, shared, options, call)

    def _as_upsert(self, shared: Mapping[str, Any], options: Mapping[str, Any], call: Call) -> Program[dict[str, Any]]:
        if self.choice(options, "on_error", ON_ERROR) != "stop":
            raise self.fault("on_error works with conflict_resolution 'error' or 'skip'", "leave on_error out")
        passed = {
            f"_{name}": value for name, value in options.items() if name not in ("conflict_resolution", "on_error")
        }
        rows = rw.as_rows(options.get("data"))
        if not isinstance(rows, str):  # an iterator can be read only once
            options = {**options, "data": rows}
            passed["_data"] = rows
        given = set(shared) | (set() if isinstance(rows, str) else rw.given_names(rows))
        if "key_fields" not in options and not any(set(key) <= given for key in self.bound.spec.unique_keys):
            options = {**options, "conflict_resolution": "error"}  # no unique key is given, so nothing can conflict
            return (yield from self.program({**shared, **{f"_{n}": v for n, v in options.items()}}, call))
        upsert = self.bound.operation("bulk_upsert")
        return (yield from upsert.program({**shared, **passed}, call))  # type: ignore[no-any-return]


class Feed:
    """One bulk create, whose rows come all at once or bit by bit.

    Args:
        operation: it.
        shared: fields that every row has.
        options: of the call.
        call: its context.

    Attributes:
        tally: what it has done so far.
        every: rows per transaction, or None for one transaction.
        size: rows to hand over at once, where they come bit by bit.
    """

    def __init__(
        self, operation: BulkCreate, shared: Mapping[str, Any], options: Mapping[str, Any], call: Call
    ) -> None:
        self.op = operation
        self.shared = shared
        self.call = call
        self.conflict = operation.choice(options, "conflict_resolution", CONFLICTS)
        self.on_error = operation.choice(options, "on_error", ON_ERROR)
        if "key_fields" in options:
            raise operation.fault("key_fields goes with conflict_resolution='upsert'", "leave one of them out")
        self.extra = operation.shaped(options, call)
        self.return_ids = operation.flag(options, "return_ids")
        self.every = operation.whole(options, "commit_every", minimum=1)
        self.size = self.every or AT_ONCE
        self.batch = operation.batch(options)
        self.tally = Tally()
        self.total = 0

    def groups(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[Program[None]]:
        """Return the programs that write rows, one a transaction."""
        self.total += len(rows)
        if self.op.filled:
            return (self._runs(start, part) for start, part in self.op.groups(rows, self.every))
        job = _Job(self, rows)
        return (job.group(start, part) for start, part in self.op.groups(rows, self.every))

    def _runs(self, start: int, rows: Sequence[Mapping[str, Any]]) -> Program[None]:
        """Write rows that follow each other and leave the same fields to the database together."""
        for _, run in groupby(enumerate(rows, start), lambda row: self.op.filled & row[1].keys()):
            numbered = list(run)
            yield from _Job(self, [row for _, row in numbered]).group(numbered[0][0], [row for _, row in numbered])

    def write(self, rows: Sequence[Any]) -> Program[None]:
        """Write more rows."""
        start = self.total
        checked = self.op.rows(rows, start)
        self.total += len(rows)
        yield from self._runs(start, checked) if self.op.filled else _Job(self, checked).group(start, checked)

    def result(self) -> Result:
        """Return the node's result."""
        return self.tally.result(self.total, ids=self.return_ids, collect=self.on_error == "collect", every=self.every)


class _Job:
    """Rows of one bulk create that are handed over together."""

    def __init__(self, feed: Feed, rows: Sequence[Mapping[str, Any]]) -> None:
        operation, call, batch, extra = feed.op, feed.call, feed.batch, feed.extra
        self.op = operation
        self.call = call
        self.conflict = feed.conflict
        self.on_error = feed.on_error
        self.return_ids = feed.return_ids
        self.tally = feed.tally
        names = rw.given_names(rows)
        given = frozenset(names | set(feed.shared))
        key = ("bulk_create", given, self.conflict, self.return_ids, batch, extra)
        self.plan: BulkPlan = operation.bound.plans.get(key, lambda: self._compile(given, batch, extra))
        self.encoder = operation.encoder(self.plan, feed.shared, call, names)
        width = max(len(self.plan.insert.columns), 1)
        self.batch = max(1, min(batch.size, call.session.max_parameters // width))  # a batch is one statement
        self.whole = self.on_error == "stop" and self.plan.plain and not (self.conflict == "skip" and self.return_ids)

    def _compile(self, given: frozenset[str], batch: Batch, extra: Any) -> BulkPlan:
        bound = self.op.bound
        builder = PlanBuilder(bound, self.op.name, "insert", options=dict(extra)).apply_features()
        builder.written = tuple(name for name in bound.fields if name in given)
        columns = self.op.columns(given | set(builder.sets) | set(builder.derivations))
        values = {name: sa.bindparam(f"v{i}", type_=builder.table.c[name].type) for i, name in enumerate(columns)}
        statement = bound.core.dialect.insert(builder.table).values(values)
        if self.conflict == "skip":
            statement = statement.on_conflict_do_nothing()
        return self.op.plan(builder, statement, columns, batch, bound.spec.primary_key if self.return_ids else ())

    def group(self, start: int, rows: Sequence[Mapping[str, Any]]) -> Program[None]:
        """Write the rows of one transaction: all together where that is possible, else batch by batch."""
        if self.whole:
            try:
                yield from atomic(self.call, self._all(start, rows))
            except (InputError, IntegrityError):  # nothing of it was written: find the first row that is wrong
                pass
            else:
                return
        for offset, part in self.op.groups(rows, self.batch):
            yield from self._batch(start + offset, part)

    def _all(self, start: int, rows: Sequence[Mapping[str, Any]]) -> Program[None]:
        def encode(first: int, stop: int) -> list[list[Any]]:
            part = rows[first:stop]
            try:
                return self.encoder.columns(part)
            except ValueRefused:
                faults = self.encoder.faults(part, range(start + first, start + stop))
                raise self.op.bound.refuse(faults, self.op.name) from None

        written, returned = yield from self.plan.write_all(
            self.op.bound.core.dialect, Rows(len(rows), encode), self.call
        )
        self._count(len(rows), written, returned)

    def _batch(self, start: int, rows: Sequence[Mapping[str, Any]]) -> Program[None]:
        try:
            encoded = self.encoder.encode(rows)
        except ValueRefused:
            if self.on_error == "stop":
                raise self.op.bound.refuse(
                    self.encoder.faults(rows, range(start, start + len(rows))), self.op.name
                ) from None
            good, bad = self.encoder.sift(rows)
            for fault in bad:
                self._bad(start + fault.index, fault.message, "bad-row")
            yield from self._each(start, rows, good)
            return
        self.plan.authorize(self.call)
        numbered = yield from self.op.bound.core.dialect.number_rows(self.plan.insert, encoded)
        if self.conflict == "skip" and (self.return_ids or self.plan.derivations):
            # which rows were skipped is known only one by one
            yield from self._each(start, rows, list(enumerate(numbered)))
            return
        try:
            body = self._write(numbered, rows)
            yield from atomic(self.call, body) if self.op.bound.core.dialect.aborts_on_error else body
        except IntegrityError:  # the one statement of the batch wrote nothing: find the row that is wrong
            yield from self._each(start, rows, list(enumerate(numbered)))
            if self.on_error == "stop":
                raise

    def _write(self, encoded: Sequence[Sequence[Any]], rows: Sequence[Mapping[str, Any]]) -> Program[None]:
        dialect = self.op.bound.core.dialect
        written, returned = yield from self.plan.write(dialect, encoded, self.call, self.encoder, rows)
        self._count(len(encoded), written, returned)

    def _count(self, rows: int, written: int, returned: Sequence[Any]) -> None:
        self.tally.created += written
        self.tally.skipped += rows - written
        self.tally.done += rows
        if self.return_ids:
            self.tally.ids += self._keys(returned)

    def _keys(self, returned: Sequence[Any]) -> list[Any]:
        if self.plan.bare:
            return [row[0] for row in returned]
        return [self._key(row) for row in returned]

    def _key(self, row: Sequence[Any]) -> Any:
        record = self.plan.decode(row)
        key = tuple(record[name] for name in self.op.bound.spec.primary_key)
        return key[0] if len(key) == 1 else key

    def _each(
        self, start: int, source: Sequence[Mapping[str, Any]], rows: Sequence[tuple[int, Sequence[Any]]]
    ) -> Program[None]:
        """Write rows one by one, each in a savepoint; None stands for the id of a row that was not written."""
        dialect, size = self.op.bound.core.dialect, len(source)
        ids: list[Any] = [None] * size
        for index, row in rows:
            body = self.plan.write(dialect, [row], self.call, self.encoder, [source[index]])
            try:
                written, returned = yield from atomic(self.call, body)
            except IntegrityError as error:
                if self.on_error == "stop":
                    error.message = f"row {start + index}: {error.message}"
                    error.where["row"] = start + index
                    raise
                self._bad(start + index, error.message, error.code)
                continue
            self.tally.created += written
            self.tally.skipped += 1 - written
            if returned and self.return_ids:
                ids[index] = self._key(returned[0])
        self.tally.done += size
        if self.return_ids:
            self.tally.ids += ids

    def _bad(self, index: int, message: str, code: str) -> None:
        self.tally.skipped += 1
        self.tally.errors.append({"row": index, "code": code, "message": message})
