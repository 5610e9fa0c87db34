"""Many upserts by a unique key: rows that are there are changed, the others created; how many of each is told."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any

import attrs
import sqlalchemy as sa

from dataflow.dialect import Program, Rows
from dataflow.errors import Problem, VersionConflict
from dataflow.filters import bucket
from dataflow.plan import rows as rw
from dataflow.plan.builder import Plan, PlanBuilder
from dataflow.plan.bulk import Batch, BulkWriting, Tally
from dataflow.plan.bulk_plan import BulkPlan
from dataflow.plan.upsert import asked, conflict_target, require_unique, unseen
from dataflow.session import Call, atomic
from dataflow.types import INT_MIN, ValueRefused


@attrs.frozen
class _Group:
    """Rows of one bulk upsert that give the same columns.

    Attributes:
        plan, encoder: of these columns.
        indexes: places of the rows in the input.
        rows: the rows.
    """

    plan: BulkPlan
    encoder: rw.RowEncoder
    indexes: Sequence[int]
    rows: Sequence[Mapping[str, Any]]

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, start: int, stop: int) -> "_Group":
        """Return some of the rows."""
        cut = slice(start, stop)
        return attrs.evolve(self, indexes=self.indexes[cut], rows=self.rows[cut])


class BulkUpsert(BulkWriting):
    """Create or update many records by a unique key."""

    name = "bulk_upsert"

    def program(self, params: Mapping[str, Any], call: Call) -> Program[dict[str, Any]]:
        shared, options = self.split(params)
        extra = self.shaped(options, call)
        rows = self.rows(self.data(options))
        if rw.given_names(rows) & set(self.expectations):
            return (yield from atomic(call, self._one_by_one(rows, shared, options, call)))
        ids = self.flag(options, "return_ids")
        every = self.whole(options, "commit_every", minimum=1)
        batch = self.batch(options)
        key = self._key_fields(options, rw.given_names(rows) | set(shared))
        keys = self._keys(rows, shared, key)
        kept = self._distinct(keys, key, self.choice(options, "on_duplicate", ("error", "last")))
        tally = Tally(ids=[None] * len(rows))
        bodies = (
            self._write(part, rows, shared, key, batch, extra, tally, call, ids=ids)
            for _, part in self.groups(kept, every)
        )
        yield from self.in_transactions(call, bodies, tally, every)
        tally.skipped = len(rows) - len(kept)
        if tally.skipped and ids:  # a row that a later one replaced has the id of its record
            last = dict(zip(keys, tally.ids, strict=True))
            tally.ids[:] = [last[found] for found in keys]
        return tally.result(len(rows), ids=ids, collect=False, every=every)

    @property
    def expectations(self) -> tuple[str, ...]:
        """Options by which a row says what it expects of the record that is there."""
        return tuple(name for name in self.value_options if name not in self.bound.spec.scope)

    def _one_by_one(
        self, rows: Sequence[Mapping[str, Any]], shared: Mapping[str, Any], options: Mapping[str, Any], call: Call
    ) -> Program[dict[str, Any]]:
        """Upsert rows that expect something each of their record; all that disappoint are named together."""
        if "commit_every" in options:
            raise self.fault("commit_every does not go with rows that name what they expect", "leave it out")
        key = self._key_fields(options, rw.given_names(rows) | set(shared))
        keys = self._keys(rows, shared, key)
        kept = self._distinct(keys, key, self.choice(options, "on_duplicate", ("error", "last")))
        upsert = self.bound.operation("upsert")
        tally = Tally(ids=[None] * len(rows))
        conflicts: list[Any] = []
        before = call.options
        passed = {f"_{name}": options[name] for name in self.call_options if name in options}
        for index in kept:
            values = {**shared, **rows[index]}
            where = {name: values[name] for name in key}
            call.options = before
            try:
                found = yield from upsert.program({"_where": where, "_create": values, **passed}, call)
            except VersionConflict as conflict:
                conflicts += conflict.ids
                continue
            tally.created += found.status["created"]
            tally.updated += not found.status["created"]
            tally.ids[index] = self.scalar(found)
        if conflicts:
            msg = f"{len(conflicts)} of the rows expect another version than their record has; nothing was written"
            hint = "read the records again, and apply the change to what they are now"
            raise VersionConflict(msg, ids=conflicts, hint=hint, where={"model": self.bound.name})
        tally.skipped = len(rows) - len(kept)
        return tally.result(len(rows), ids=self.flag(options, "return_ids"), collect=False, every=None)

    def _key_fields(self, options: Mapping[str, Any], given: set[str]) -> tuple[str, ...]:
        named = self.names(options, "key_fields")
        if named:
            return require_unique(self, named, "key_fields")
        candidates = [key for key in self.bound.spec.unique_keys if set(key) <= given]
        if self.bound.spec.primary_key in candidates:
            return self.bound.spec.primary_key
        if len(candidates) == 1:
            return candidates[0]
        what = "several unique keys" if candidates else "no complete unique key"
        keys = "; ".join(", ".join(key) for key in candidates or self.bound.spec.unique_keys)
        raise self.fault(
            f"the rows hold {what}, so it is not clear which record each means",
            f"give key_fields=[…]: {keys}" if candidates else f"give the fields of one in every row: {keys}",
            "missing-key",
        )

    def _keys(
        self, rows: Sequence[Mapping[str, Any]], shared: Mapping[str, Any], key: tuple[str, ...]
    ) -> list[tuple[Any, ...]]:
        """Return the encoded key of every row."""
        columns = []
        for name in key:
            default = shared.get(name)
            values = [row.get(name, default) for row in rows]
            try:
                if rw.lacks(values):
                    msg = "the key is missing"
                    raise ValueRefused(msg, f"give {name} in every row")
                encoded = self.bound.fields[name].column(values)
                columns.append(list(map(tuple, encoded)) if encoded and type(encoded[0]) is list else encoded)
            except ValueRefused:
                raise self.bound.refuse(self._key_faults(rows, shared, key), self.name) from None
        return list(zip(*columns, strict=True))

    def _key_faults(
        self, rows: Sequence[Mapping[str, Any]], shared: Mapping[str, Any], key: tuple[str, ...]
    ) -> list[Problem]:
        problems = []
        for index, row in enumerate(rows):
            for name in key:
                value = row.get(name, shared.get(name))
                try:
                    if value is None:
                        msg = "the key is missing"
                        raise ValueRefused(msg, f"give {name} in every row")
                    self.bound.fields[name].encode(value)
                except ValueRefused as refused:
                    fault = rw.RowFault(index, f"{name}: {refused.message}", refused.hint)
                    problems.append(fault.problem(index))
                    break
            if len(problems) >= rw.MOST_PROBLEMS:
                break
        return problems

    def _distinct(self, keys: Sequence[tuple[Any, ...]], key: tuple[str, ...], on_duplicate: str) -> Sequence[int]:
        """Return the rows that count, of those with the same key the last; or refuse such rows."""
        last = dict(zip(keys, range(len(keys)), strict=True))
        if len(last) == len(keys):
            return range(len(keys))
        if on_duplicate == "last":
            return sorted(last.values())
        problems: list[Problem] = []
        seen: dict[tuple[Any, ...], int] = {}
        for index, found in enumerate(keys):
            if found in seen and len(problems) < rw.MOST_PROBLEMS:
                message = f"row {index}: the same key as row {seen[found]} ({', '.join(key)})"
                hint = "remove one, or pass on_duplicate='last'"
                problems.append(Problem("duplicate-key", message, hint, {"row": index}))
            seen[found] = index
        raise self.bound.refuse(problems, self.name)

    def _write(
        self, kept: Sequence[int], rows: Sequence[Mapping[str, Any]],
        shared: Mapping[str, Any], key: tuple[str, ...], batch: Batch, extra: Any, tally: Tally, call: Call,
        *, ids: bool,
    ) -> Program[None]:  # fmt: skip
        for names, indexes in rw.alike(kept, rows):
            given = names | set(shared)
            plan: BulkPlan = self.bound.plans.get(
                ("bulk_upsert", given, key, batch, ids, extra),
                partial(self._compile, given, key, batch, extra, ids=ids),
            )
            group = _Group(
                plan,
                self.encoder(plan, shared, call, names),
                indexes,
                [rows[index] for index in indexes],
            )
            if plan.plain:
                yield from self._batch(group, key, extra, tally, call, ids=ids)
                continue
            for start in range(0, len(group), batch.size):
                yield from self._batch(group.part(start, start + batch.size), key, extra, tally, call, ids=ids)

    def _compile(
        self, given: AbstractSet[str], key: tuple[str, ...], batch: Batch, extra: Any, *, ids: bool
    ) -> BulkPlan:
        builder = PlanBuilder(self.bound, self.name, "insert", options=dict(extra)).apply_features()
        table = builder.table
        change = PlanBuilder(self.bound, self.name, "update", options=dict(extra), table=table, root=builder)
        change.apply_features()  # a row that is there is updated, with what features ask of any update
        builder.written = tuple(name for name in self.bound.fields if name in given)
        written = tuple(name for name in builder.written if name not in key)
        builder.authorizations += [partial(asked, authorize, written) for authorize in change.authorizations]
        columns = self.columns(given | set(builder.sets) | set(builder.derivations))
        values = {name: sa.bindparam(f"v{i}", type_=table.c[name].type) for i, name in enumerate(columns)}
        statement = self.bound.core.dialect.insert(table).values(values)
        pk = set(self.bound.spec.primary_key)
        changed = {name for name in columns if name in given and name not in key and name not in pk}
        changed -= {name for name in changed if self.bound.fields[name].spec.kept}
        changed |= {f.name for f in self.bound.spec.fields.values() if f.write == "update"}
        fresh = {name: statement.excluded[name] for name in columns if name in changed}
        fresh |= change.sets
        if not fresh:  # nothing to change: write a key onto itself, so that RETURNING and counts see the row
            fresh = {key[0]: statement.excluded[key[0]]}
        confined = sa.and_(*change.conditions) if change.conditions else None
        target = conflict_target(self.bound, table, key)
        statement = statement.on_conflict_do_update(**target, set_=fresh, where=confined)
        plan = self.plan(
            builder,
            statement,
            columns,
            batch,
            (*self.bound.spec.primary_key, *key) if ids else (),
            told=self.bound.core.dialect.created(table),
        )
        return attrs.evolve(plan, changed=tuple(change.guards))

    def _batch(
        self, group: _Group, key: tuple[str, ...], extra: Any, tally: Tally, call: Call, *, ids: bool
    ) -> Program[None]:
        plan, dialect = group.plan, self.bound.core.dialect
        places = [group.encoder.names.index(name) for name in key]
        stored: list[tuple[Any, ...]] = []  # keys as they are written; features may change them

        def encode(start: int, stop: int) -> list[list[Any]]:
            try:
                columns = group.encoder.columns(group.rows[start:stop])
            except ValueRefused:
                faults = group.encoder.faults(group.rows[start:stop], group.indexes[start:stop])
                raise self.bound.refuse(faults, self.name) from None
            stored.extend(zip(*[columns[place] for place in places], strict=True))
            return columns

        rows = Rows(len(group), encode)
        counted = not plan.told and plan.insert.generated not in (None, *plan.insert.columns)
        existing = highest = 0
        if counted:
            highest = yield from self._highest(extra, call)
        elif not plan.told:
            rows = Rows.of(list(rows))
            existing = yield from self._existing(stored, key, extra, call)
        if plan.plain:
            written, returned = yield from plan.write_all(dialect, rows, call)
        else:
            written, returned = yield from plan.write(dialect, list(rows), call, group.encoder, group.rows)
        if plan.told:
            existing = sum(not row[-1] for row in returned)
            returned = [row[:-1] for row in returned] if ids else []
        elif counted:
            existing = written - (yield from self._above(highest, extra, call))
        if written < len(group):
            raise unseen(key, " of one of the rows")
        for guard in plan.changed if existing else ():
            guard(call, existing)
        tally.created += written - existing
        tally.updated += existing
        tally.done += written
        if ids:
            self._note_ids(group, stored, key, returned, tally)

    def _note_ids(
        self,
        group: _Group,
        stored: Sequence[tuple[Any, ...]],
        key: tuple[str, ...],
        returned: Sequence[Any],
        tally: Tally,
    ) -> None:
        names = group.plan.returned
        pk = [names.index(name) for name in self.bound.spec.primary_key]
        at = [len(names) - 1 - names[::-1].index(name) for name in key]
        # a driver may give back what equals nothing that was passed (datetime.max): compare what both mean
        decoders = [self.bound.core.dialect.decoder(self.bound.fields[name].type) for name in key]
        by_key = {rw.meant([row[i] for i in at], decoders): group.plan.decode(row) for row in returned}
        for index, found in zip(group.indexes, stored, strict=True):
            record = by_key[rw.meant(found, decoders)]
            identity = tuple(record[names[i]] for i in pk)
            tally.ids[index] = identity[0] if len(identity) == 1 else identity

    def _highest(self, extra: Any, call: Call) -> Program[int]:
        """Return the highest id: those of rows created from now on are above it, while the transaction lasts."""

        def build() -> Plan:
            builder = PlanBuilder(self.bound, self.name, "select", options=dict(extra))
            return builder.compile(sa.select(sa.func.max(builder.table.c[self._counter])), operands=0)

        plan: Plan = self.bound.plans.get(("bulk_highest", extra), build)
        rows = yield plan.command, plan.arguments([], call)
        return INT_MIN if rows[0][0] is None else int(rows[0][0])

    def _above(self, highest: int, extra: Any, call: Call) -> Program[int]:
        def build() -> Plan:
            builder = PlanBuilder(self.bound, self.name, "select", options=dict(extra))
            column = builder.table.c[self._counter]
            builder.where(column > builder.operand(0, None, self._counter, like=column))
            return builder.compile(builder.restrict(sa.select(sa.func.count()).select_from(builder.table)), operands=1)

        plan: Plan = self.bound.plans.get(("bulk_above", extra), build)
        rows = yield plan.command, plan.arguments([highest], call)
        return int(rows[0][0])

    @property
    def _counter(self) -> str:
        return str(self.bound.spec.counter)

    def _existing(self, keys: list[tuple[Any, ...]], names: tuple[str, ...], extra: Any, call: Call) -> Program[int]:
        """Count which of the encoded keys are there; the open write transaction keeps that true."""
        total = 0
        step = 1000 if len(names) == 1 else 100
        for start in range(0, len(keys), step):
            part = keys[start : start + step]
            size = bucket(len(part))
            plan: Plan = self.bound.plans.get(
                ("bulk_existing", names, size, extra), partial(self._compile_existing, names, size, extra)
            )
            values = [[key[0] for key in part]] if len(names) == 1 else [*part, *[part[-1]] * (size - len(part))]
            rows = yield plan.command, plan.arguments(list(values), call)
            total += int(rows[0][0])
        return total

    def _compile_existing(self, names: tuple[str, ...], size: int, extra: Any) -> Plan:
        builder = PlanBuilder(self.bound, "related", "select", options=dict(extra)).apply_features()
        table = builder.table
        if len(names) == 1:
            field = self.bound.fields[names[0]]

            def bind(convert: Any) -> Any:
                return builder.operand(0, convert, names[0])

            builder.where(self.bound.core.dialect.in_list(table.c[names[0]], field.type, lambda v: v, bind, size))
        else:
            builder.where(sa.or_(*[
                sa.and_(*[
                    table.c[name] == builder.operand(row, _part(position), name, like=table.c[name])
                    for position, name in enumerate(names)
                ])
                for row in range(size)
            ]))  # fmt: skip
        statement = builder.restrict(sa.select(sa.func.count()).select_from(table))
        return builder.compile(statement, operands=size if len(names) > 1 else 1)


def _part(position: int) -> Any:
    return lambda key: key[position]
