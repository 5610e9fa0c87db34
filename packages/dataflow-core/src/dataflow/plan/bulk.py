"""Creating many records, and what bulk create and bulk upsert share.

One call is one transaction unless `commit_every` says otherwise.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property, partial
from itertools import groupby
from typing import Any

import attrs
import sqlalchemy as sa

from dataflow.dialect import Convert, Dialect, Insert, Program, Rows
from dataflow.errors import InputError, IntegrityError, Problem
from dataflow.plan import changes as ch
from dataflow.plan import rows as rw
from dataflow.plan.builder import Authorization, Binder, PlanBuilder, kept_problem
from dataflow.plan.derived import Derivation, settle
from dataflow.plan.operation import ModelOperation, Result
from dataflow.session import Call, atomic
from dataflow.types import ValueRefused

CONFLICTS = ("error", "skip", "upsert")
ON_ERROR = ("stop", "skip", "collect")
AT_ONCE = 10_000
"""Rows that are taken from an iterator and written together."""
_GROUP = re.compile(r"""\((?:[^()"]|"[^"]*"|\([^()]*\))*\)""")
"""A parenthesis of parameters, which may be cast to types such as "a type" or numeric(10, 2)."""


class BulkWriting(ModelOperation):
    """What bulk create and bulk upsert share: rows, batches, commits."""

    def check(self, params: Mapping[str, Any], *, partial: bool) -> list[Problem]:
        problems = super().check(params, partial=partial)
        for name, target in self.route.items():
            if target != "data" or name not in params or rw.is_arrow(params[name]):  # a table may be read only once
                continue
            if not isinstance(complaint := rw.as_rows(params[name]), str):
                problems += rw.unknown_names(self.bound, complaint, rw.given_names(complaint))
        return problems

    def choice(self, options: Mapping[str, Any], name: str, choices: Sequence[str]) -> str:
        """Read an option that is one of a few words."""
        value = options.get(name, choices[0])
        if value not in choices:
            raise self.fault(f"{name} is one of {', '.join(choices)}; got something else")
        return str(value)

    def data(self, options: Mapping[str, Any]) -> Any:
        """Read `data`, whatever it is."""
        if "data" not in options:
            hint = "give data=[{…}, …]"
            if "data" in self.bound.fields:
                hint = "this model has a field 'data', so pass the rows as _data=[{…}, …]"
            raise self.fault(f"{self.name} needs rows", hint, "missing-data")
        return options["data"]

    def rows(self, data: Any, first: int = 0) -> Sequence[Mapping[str, Any]]:
        """Read rows, refusing unknown keys; `first`: the place of the first in the whole input."""
        rows = rw.as_rows(data, first)
        if isinstance(rows, str):
            raise self.fault(rows, rw.HINT)
        given = rw.given_names(rows)
        problems = rw.unknown_names(self.bound, rows, given, first) or self.kept_names(rows, given, first)
        if problems:
            raise self.bound.refuse(problems, self.name)
        asked = {name for name in given if name in self.filled and not self.bound.fields[name].nullable}
        if asked:  # None asks the database for its value
            rows = [
                {name: value for name, value in row.items() if value is not None or name not in asked} for row in rows
            ]
        return rows

    @cached_property
    def filled(self) -> frozenset[str]:
        """Fields that the database fills where no value is given, but for ids that it counts."""
        fields = self.bound.fields.items()
        return frozenset(name for name, field in fields if field.spec.generated and name != self.bound.spec.counter)

    def kept_names(self, rows: Sequence[Mapping[str, Any]], given: set[str], first: int) -> list[Problem]:
        """Return a problem for each field that rows give and callers do not write, naming the first such row."""
        problems = []
        for name in sorted(given & self.bound.fields.keys() - set(self.row_options)):
            spec = self.bound.fields[name].spec
            index = next((i for i, row in enumerate(rows, first) if row.get(name) is not None), None)
            if spec.kept and index is not None:
                problem = kept_problem(spec)
                where: dict[str, str | int] = {"row": index, "field": name}
                problems.append(attrs.evolve(problem, message=f"row {index}: {problem.message}", where=where))
        return problems

    @property
    def row_options(self) -> tuple[str, ...]:
        """Options that rows may bring as the fields of the same name: what they name has to be what is set."""
        return tuple(self.value_options)

    def batch(self, options: Mapping[str, Any]) -> "Batch":
        """Read the rows per statement."""
        asked = self.whole(options, "batch_size", minimum=1)
        return Batch(asked or int(self.bound.core.config["bulk_batch_size"]), asked is not None)

    def columns(self, given: AbstractSet[str]) -> tuple[str, ...]:
        """Return the columns to write: the given ones and those with a default."""
        columns = tuple(
            name
            for name, field in self.bound.fields.items()
            if name in given or not (field.spec.generated or (field.nullable and ch.default_of(field.spec) is None))
        )
        if columns:
            return columns
        empty = [name for name, field in self.bound.fields.items() if field.nullable and not field.spec.generated]
        own = self.bound.spec.counter
        return tuple(empty or ([own] if own else self.bound.fields))[-1:]  # an INSERT of rows needs one; it gets None

    def plan(
        self,
        builder: PlanBuilder,
        statement: Any,
        columns: tuple[str, ...],
        batch: "Batch",
        keys: tuple[str, ...],
        *,
        told: Any = None,
    ) -> "BulkPlan":
        """Compile an INSERT for one row, and cut its text where rows repeat.

        Args:
            builder: with the features' wishes.
            statement: the INSERT, its values bound in the order of `columns`.
            columns: names to write.
            batch: rows per statement.
            keys: columns to return; all where a feature wants to see the records.
            told: an expression to return after them: whether the row was created.
        """
        returned = tuple(self.bound.fields) if builder.remembers else keys
        listed = [*builder.returned(returned), *([] if told is None else [told])]
        if listed:
            statement = statement.returning(*listed)
        compiled = statement.compile(dialect=self.bound.core.dialect.sqlalchemy)
        head, group, tail = self._cut(str(compiled), columns)
        insert = Insert(
            self.bound.spec.table,
            head,
            group,
            tail,
            columns,
            tuple(builder.table.c[name].type for name in columns),
            returning=len(listed),
            batch_size=batch.size,
            capped=batch.asked,
            generated=self.bound.spec.counter,
        )
        return BulkPlan(
            insert,
            returned,
            self.bound.decoder(returned, builder.decodes),
            builder.forced(),
            builder.encodes,
            tuple(builder.guards),
            tuple(builder.unmatched),
            tuple(builder.records),
            tuple(builder.notifications),
            tuple(builder.source(name, compiled) for name in compiled.positiontup[len(columns) :]),
            told is not None,
            self._is_bare(returned, builder),
            tuple(builder.authorizations),
            builder.written,
            dict(builder.derivations),
        )

    def _is_bare(self, returned: Sequence[str], builder: PlanBuilder) -> bool:
        return (
            len(returned) == 1
            and returned == self.bound.spec.primary_key
            and self.bound.fields[returned[0]].decode is None
            and returned[0] not in builder.decodes
        )

    def _cut(self, sql: str, columns: Sequence[str]) -> tuple[str, str, str]:
        """Cut an INSERT of one row into what stands before its values, their parenthesis, and what follows.

        Every identifier is quoted, so the text before the values is known whatever the names hold.
        """
        dialect = self.bound.core.dialect
        table, names = dialect.table_name(self.bound.spec.table), ", ".join(map(dialect.quote, columns))
        head = f"INSERT INTO {table} ({names}) VALUES "  # noqa: S608
        found = _GROUP.match(sql, len(head))
        if not sql.startswith(head) or found is None:
            raise self.fault("the rows cannot be written together", "please report this model", "insert-contract")
        return head, found[0], sql[found.end() :]

    def encoder(
        self, plan: "BulkPlan", shared: Mapping[str, Any], call: Call, given: AbstractSet[str]
    ) -> rw.RowEncoder:
        """Return the encoder of rows for a plan; `given`: every name that stands in any of the rows."""
        return rw.RowEncoder(
            self.bound,
            plan.insert.columns,
            shared,
            call,
            forced=plan.forced,
            encodes=plan.encodes,
            given=given,
            derived=plan.derivations,
        )

    def groups(self, rows: Sequence[Any], size: int | None) -> Iterator[tuple[int, Sequence[Any]]]:
        """Cut rows into (index of the first, rows) of at most `size`."""
        step = size or max(len(rows), 1)
        for start in range(0, len(rows), step):
            yield start, rows[start : start + step]

    def in_transactions(
        self, call: Call, bodies: Iterator[Program[None]], tally: "Tally", every: int | None
    ) -> Program[None]:
        """Run bodies each in its transaction (`every`), or all in one."""
        if every and call.session.depth:
            raise self.fault(
                "commit_every cannot commit inside a transaction scope", "leave it out, or leave the scope"
            )
        if not every:
            yield from atomic(call, _all(bodies))
            return
        for body in bodies:
            try:
                yield from atomic(call, body)
            except (InputError, IntegrityError) as error:
                error.message += f" (commit_every={every}: {tally.committed} rows were committed before)"
                error.where["committed"] = tally.committed
                raise
            tally.committed = tally.done


@attrs.frozen
class Batch:
    """How many rows a statement takes, and whether the caller said so."""

    size: int
    asked: bool


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

    def _filled(self, call: Call) -> Insert:
        for authorize in self.authorizations:
            authorize(call, self.written)
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


def _all(bodies: Iterator[Program[None]]) -> Program[None]:
    for body in bodies:
        yield from body


@attrs.define
class Tally:
    """What a bulk call has done so far."""

    created: int = 0
    updated: int = 0
    skipped: int = 0
    done: int = 0
    committed: int = 0
    ids: list[Any] = attrs.field(factory=list)
    errors: list[dict[str, Any]] = attrs.field(factory=list)

    def result(self, total: int, *, ids: bool, collect: bool, every: int | None) -> Result:
        """Return the node's result."""
        out: dict[str, Any] = {
            "created": self.created,
            "updated": self.updated,
            "skipped": self.skipped,
            "total": total,
        }
        if ids:
            out["ids"] = self.ids
        if collect:
            out["errors"] = self.errors
        if every:
            out["committed"] = self.committed
        return Result(out)


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
