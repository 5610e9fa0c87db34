"""Changing and removing many records: by filter in one statement, or row by row by key."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import attrs
import sqlalchemy as sa

from dataflow.dialect import COUNT, MANY, ROWS_TABLE, Command, Convert, Joined, Program, Rows
from dataflow.errors import InputError, Problem, VersionConflict
from dataflow.filters import shape
from dataflow.plan import changes as ch
from dataflow.plan import rows as rw
from dataflow.plan.bound import BoundField
from dataflow.plan.builder import Plan, PlanBuilder, row_count
from dataflow.plan.operation import ModelOperation, Result, run_plan
from dataflow.plan.read import count_rows
from dataflow.plan.sorting import order_by, total_order
from dataflow.session import Call, atomic
from dataflow.types import ValueRefused


class _ByFilter(ModelOperation):
    """What bulk update and bulk delete share: a filter, a limit, keys in return."""

    def scope(self, builder: PlanBuilder, document: Mapping[str, Any], first: int, limit: int | None) -> int:
        """Confine a statement to the first `limit` matches in key order; return the number of operands used."""
        operands: list[Any] = []
        shape(document, operands)
        used = first + len(operands)
        self.compile_filter(builder, document, first)
        if limit is None:
            return used
        table = builder.table
        keys = [table.c[name] for name in self.bound.spec.row_key]
        most = builder.operand(used, row_count, "limit", like=sa.literal(1, sa.BigInteger))
        inner = table.alias()
        chosen = PlanBuilder(self.bound, "related", "select", options=builder.options, table=inner, root=builder.root)
        chosen.apply_features()
        self.compile_filter(chosen, document, first)
        inner_keys = [inner.c[name] for name in self.bound.spec.row_key]
        order = order_by(chosen, total_order(self.bound, ()))
        select = chosen.restrict(sa.select(*inner_keys)).order_by(*order).limit(most)
        target = keys[0] if len(keys) == 1 else sa.tuple_(*keys)
        builder.where(target.in_(select))
        return used + 1

    def finish(self, plan: Plan, values: list[Any], call: Call, *, ids: bool) -> Program[tuple[int, list[Any]]]:
        """Run the plan: (rows changed, their keys in key order)."""
        reply = yield from run_plan(plan, values, call)
        if plan.command.returns == COUNT:
            return int(reply), []
        if not ids:
            return len(reply), []
        records = sorted(map(plan.decode, reply), key=self.rank)
        return len(reply), [self.scalar(record) for record in records]

    def returning(self, builder: PlanBuilder, statement: Any, operands: int, *, ids: bool) -> Plan:
        """Compile with RETURNING: all columns where a feature wants to see them, the key where asked, else a count."""
        names = tuple(self.bound.fields) if builder.remembers else (self.bound.spec.primary_key if ids else ())
        if not names:
            return builder.compile(statement, operands=operands, returns=COUNT)
        statement = statement.returning(*builder.returned(names))
        return builder.compile(statement, operands=operands, columns=names)


def by_keys(names: Sequence[str], filters: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Join filters by key into few, each of bounded size."""
    if len(names) == 1:
        parts = [filters[i : i + 1000] for i in range(0, len(filters), 1000)]
        return [{names[0]: {"$in": [key[names[0]] for key in part]}} for part in parts]
    return [{"$or": filters[i : i + 100]} for i in range(0, len(filters), 100)]


def _matches_all(document: Mapping[str, Any]) -> bool:
    """Tell whether a filter compares nothing, so that it may match every record."""
    operands: list[Any] = []
    form = repr(shape(document, operands))
    return not operands or ("$nin" in form and all(operand == [] for operand in operands))


class BulkUpdate(_ByFilter):
    """Change many records, by filter or row by row."""

    name = "bulk_update"

    def check(self, params: Mapping[str, Any], *, partial: bool) -> list[Problem]:
        problems = super().check(params, partial=partial)
        update = params.get("update", params.get("_update"))
        if isinstance(update, Mapping):
            problems += ch.change_problems(self.bound, ch.read_changes(self.bound, update, problems))
        return problems

    def program(self, params: Mapping[str, Any], call: Call) -> Program[dict[str, Any]]:
        _, options = self.split(params)
        extra = self.shaped(options, call)
        ids = self.flag(options, "return_ids")
        if "data" in options:
            if "filter" in options or "update" in options or "limit" in options:
                raise self.fault(
                    "data was given together with filter, update or limit", "give rows, or a filter and an update"
                )
            size = self.whole(options, "batch_size", minimum=1)
            collect = options.get("on_error", "stop") == "collect"
            if options.get("on_error", "stop") not in ("stop", "collect"):
                raise self.fault("on_error is stop or collect; got something else")
            body = self._by_rows(options["data"], size, extra, call, collect=collect, ids=ids)
            return (yield from atomic(call, body))
        if "on_error" in options:
            raise self.fault("on_error goes with data, whose rows may expect a version", "leave it out")
        update = self.mapping(options, "update")
        document = self.mapping(options, "filter")
        if document is None or update is None:
            raise self.fault(
                "bulk_update needs filter and update, or data",
                "give filter={…} (all records: {}) and update={…}",
                "missing-data",
            )
        problems: list[Problem] = []
        found = ch.read_changes(self.bound, update, problems)
        if not found and not problems:
            problems.append(Problem("empty-update", "nothing to change", "give at least one field in update"))
        if problems:
            raise self.bound.refuse(problems, self.name)
        limit = self.whole(options, "limit")
        operands: list[Any] = []
        key = ("bulk_update", ch.change_shape(found, operands), shape(document, operands), limit is None, ids, extra)
        plan: Plan = self.bound.plans.get(key, lambda: self._compile(found, document, limit, extra, ids=ids))
        operands += [] if limit is None else [limit]
        count, keys = yield from self.finish(plan, operands, call, ids=ids)
        return Result({"updated": count, **({"ids": keys} if ids else {})})

    def _compile(
        self,
        found: list[ch.Change],
        document: Mapping[str, Any],
        limit: int | None,
        extra: Any,
        *,
        ids: bool,
        by_key: bool = False,
    ) -> Plan:
        problems = ch.change_problems(self.bound, found)
        if problems:
            raise self.bound.refuse(problems, self.name)
        builder = PlanBuilder(self.bound, self.name, "update", options=dict(extra))
        builder.by_key = by_key
        builder.apply_features()
        ch.compile_changes(builder, found)
        used = self.scope(builder, document, len(found), limit)
        statement = builder.restrict(sa.update(builder.table)).values(builder.sets)
        return self.returning(builder, statement, used, ids=ids)

    def _by_rows(
        self, data: Any, size: int | None, extra: Any, call: Call, *, collect: bool, ids: bool
    ) -> Program[dict[str, Any]]:
        rows = rw.as_rows(data)
        if isinstance(rows, str):
            raise self.fault(rows, rw.HINT)
        groups = self._groups(rows, extra, ids=ids)
        if groups is None:
            return (yield from self._one_by_one(rows, extra, call, collect=collect, ids=ids))
        updated = 0
        keys: list[Any] = [None] * len(rows)
        conflicts: list[Any] = []
        decoders = [self.bound.core.dialect.decoder(field.type) for field in self.bound.key]
        for group in groups:
            joined = Joined(group.plan.command, group.plan.arguments([], call), group.types, size)
            encoded = Rows(len(group.indexes), group.columns)
            replies = yield from self.bound.core.dialect.with_rows(joined, encoded, call.session.max_parameters)
            if not group.plan.columns:
                updated += sum(replies)
                continue
            found = {rw.meant(row, decoders): group.plan.key_of(row) for reply in replies for row in reply}
            updated += len(found)
            for index, key in zip(group.indexes, group.keys, strict=True):
                keys[index] = found.get(rw.meant(key, decoders))
            if group.plan.conflicts and len(found) < len(group.indexes):
                left = [self.scalar(rows[index]) for index in group.indexes if keys[index] is None]
                there = yield from self._there(left, extra, call)
                conflicts += there
                self._refuse_conflicts(group.plan, there, call, collect=collect)
        return self._updated(updated, keys, conflicts, ids=ids, collect=collect)

    @staticmethod
    def _updated(updated: int, keys: list[Any], conflicts: list[Any], *, ids: bool, collect: bool) -> Result:
        missing = len(keys) - updated - len(conflicts)
        out: dict[str, Any] = {"updated": updated, "total": len(keys), "missing": missing}
        if collect:
            out["conflicts"] = conflicts
        return Result({**out, "ids": keys} if ids else out)

    @staticmethod
    def _refuse_conflicts(plan: Plan, conflicts: list[Any], call: Call, *, collect: bool) -> None:
        if conflicts and not collect:
            for conflict in plan.conflicts:
                conflict(call, conflicts)

    def _there(self, keys: list[Any], extra: Any, call: Call) -> Program[list[Any]]:
        """Return those of the keys whose records are there, as this call sees them, in the order of the input."""
        found: set[Any] = set()
        names = self.bound.spec.primary_key
        for document in by_keys(names, [self.key_filter(key) for key in keys]):
            operands: list[Any] = []
            plan_key = ("bulk_there", shape(document, operands), extra)
            plan: Plan = self.bound.plans.get(plan_key, partial(self.compile_keys, document, len(operands), extra))
            rows = yield plan.command, plan.arguments(operands, call)
            found.update(plan.key_of(row) for row in rows)
        accepted = [self.bound.fields[name].type.accept for name in names]
        one = len(names) == 1

        def meant(key: Any) -> Any:
            parts = [accept(part) for accept, part in zip(accepted, (key,) if one else key, strict=True)]
            return parts[0] if one else tuple(parts)

        restored = {meant(key) for key in found}
        return [key for key in keys if meant(key) in restored]

    def _groups(self, rows: Sequence[Mapping[str, Any]], extra: Any, *, ids: bool) -> "list[_Group] | None":
        """Encode rows of plain values column by column; None where they need a closer look, one by one.

        They do where something is wrong with them, where a feature looks at each, and where their order counts
        because fields of a unique key change.
        """
        groups: list[_Group] = []
        seen: set[tuple[Any, ...]] = set()
        for names, indexes in rw.alike(range(len(rows)), rows):
            group = self._group(names, [rows[index] for index in indexes], indexes, extra, ids=ids)
            if group is None:
                return None
            seen.update(group.keys)
            groups.append(group)
        return groups if len(seen) == len(rows) else None

    def _group(
        self, names: frozenset[str], rows: Sequence[Mapping[str, Any]], indexes: Sequence[int], extra: Any, *, ids: bool
    ) -> "_Group | None":
        spec = self.bound.spec
        options = tuple(name for name in self.value_options if name in names)
        own = {*spec.primary_key, *options}
        changed = tuple(name for name in self.bound.fields if name in names and name not in own)
        if not changed or names != {*changed, *own} or self._order_counts(changed):
            return None
        if any(self.bound.fields[name].spec.kept for name in changed) or set(options) & set(spec.scope):
            return None
        key = ("bulk_update_columns", changed, options, ids, extra)
        found: _Columns = self.bound.plans.get(key, partial(self._compile_columns, changed, options, extra, ids=ids))
        if found.watched:
            return None
        columns = []
        try:
            for name, encodes in found.encodes.items():
                field = self.bound.fields[name]
                values = [row[name] for row in rows]
                if self._may_hold_operators(field, values) or (name in own and rw.lacks(values)):
                    return None
                columns.append(field.column(values, *encodes))
        except ValueRefused:
            return None
        return _Group(found.plan, found.types, indexes, columns, len(spec.primary_key))

    def _order_counts(self, changed: Sequence[str]) -> bool:
        """Tell whether rows may get into each other's way, because of a unique key or of who is under one."""
        return any(
            name in index.fields or name in (index.where or "")
            for index in self.bound.spec.indexes
            if index.unique
            for name in changed
        )

    @staticmethod
    def _may_hold_operators(field: BoundField, values: Sequence[Any]) -> bool:
        """Tell whether a value may mean ``{"$inc": 1}``."""
        kinds = set(map(type, values))
        if not any(issubclass(kind, Mapping) for kind in kinds):
            return False
        if field.type.storage != "json" or not all(kind is dict or not issubclass(kind, Mapping) for kind in kinds):
            return True
        names = set().union(*[value for value in values if type(value) is dict])
        return any(not isinstance(name, str) or name.startswith("$") for name in names)

    def _compile_columns(
        self, changed: tuple[str, ...], options: tuple[str, ...], extra: Any, *, ids: bool
    ) -> "_Columns":
        table, key = self.bound.table, self.bound.spec.primary_key
        names = (*key, *changed, *options)
        new = sa.table(ROWS_TABLE, *[sa.column(f"c{i}", table.c[name].type) for i, name in enumerate(names)])
        shaping = {**dict(extra), **dict.fromkeys(options, True)}
        builder = PlanBuilder(self.bound, self.name, "update", options=shaping)
        builder.by_key = True
        builder.row_options = {name: new.c[f"c{i}"] for i, name in enumerate(names) if name in options}
        builder.apply_features()
        builder.written = changed
        for place, name in enumerate(key):
            builder.where(table.c[name] == new.c[f"c{place}"])
        for place, name in enumerate(changed, len(key)):
            if name not in builder.sets:  # a feature's value wins, as it does in a new record
                builder.sets[name] = new.c[f"c{place}"]
        ch.touch(builder)
        statement = builder.restrict(sa.update(table)).values(builder.sets)
        plan = self.returning(builder, statement, 0, ids=ids or bool(builder.expected))
        return _Columns(
            plan,
            tuple(table.c[name].type for name in names),
            {name: builder.encodes.get(name, ()) for name in names},
            bool(not plan.plain or plan.unmatched or builder.replacement is not None),
        )

    def _one_by_one(
        self, rows: Sequence[Mapping[str, Any]], extra: Any, call: Call, *, collect: bool, ids: bool
    ) -> Program[dict[str, Any]]:
        batches: dict[Any, tuple[Plan, list[_Item]]] = {}
        around = call.options
        problems: list[Problem] = []
        seen: dict[tuple[Any, ...], int] = {}
        for index, row in enumerate(rows):
            try:
                plain, expected = self._expected(row, around)
                shape_key, found, key, operands = self._row(plain)
                self._refuse_repeated(key, index, seen)
                shaping = {**dict(extra), **{name: True for name in expected if name not in self.bound.spec.scope}}
                inner = tuple(shaping.items())
                plan = self.bound.plans.get(
                    ("bulk_update_rows", shape_key, ids, inner),
                    partial(self._compile, found, key, None, inner, ids=ids, by_key=True),
                )
                call.options = {**around, **expected}
                item = _Item(index, operands, plan.arguments(operands, call), call.options, self.scalar(key))
                batches.setdefault((shape_key, inner), (plan, []))[1].append(item)
            except InputError as error:
                faults = error.problems or (Problem(error.code, error.message, error.hint),)
                problems += [attrs.evolve(p, message=f"row {index}: {p.message}", where={"row": index}) for p in faults]
                if len(problems) >= rw.MOST_PROBLEMS:
                    break
        if problems:
            raise self.bound.refuse(problems, self.name)
        updated = 0
        keys: list[Any] = [None] * len(rows)
        conflicts: list[Any] = []
        for plan, items in batches.values():
            if plan.command.returns == COUNT and plan.plain and not (plan.unmatched or plan.conflicts):
                updated += yield Command(plan.command.sql, MANY, writes=True), [item.arguments for item in items]
                continue
            for item in items:
                call.options = item.options
                try:
                    reply = yield from plan.run(item.operands, call)
                except VersionConflict:
                    conflicts.append(item.key)
                    continue
                updated += reply if plan.command.returns == COUNT else len(reply)
                if ids and reply:
                    keys[item.index] = plan.key_of(reply[0])
            self._refuse_conflicts(plan, conflicts, call, collect=collect)
        call.options = around
        return self._updated(updated, keys, conflicts, ids=ids, collect=collect)

    def _expected(self, row: Mapping[str, Any], around: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, Any]]:
        """Take what a row expects of its record (a version) out of the row.

        Raises:
            InputError: it names another scope than the call's.
        """
        expected = {name: row[name] for name in self.value_options if name in row}
        if not expected:
            return row, expected
        for name, value in expected.items():
            if around.get(name, value) != value:
                raise self.fault(f"{name} differs from that of the call", "give it once", "twice")
            try:
                self.bound.fields[name].encode(value)
            except ValueRefused as refused:
                raise self.fault(f"{name}: {refused.message}", refused.hint, "wrong-value") from None
        return {name: value for name, value in row.items() if name not in expected}, expected

    def _refuse_repeated(self, key: Mapping[str, Any], index: int, seen: dict[tuple[Any, ...], int]) -> None:
        """Refuse a second row for one record: rows of one shape run together, so their order would not be kept."""
        try:
            found = tuple(self.bound.fields[name].encode(value) for name, value in key.items())
        except ValueRefused:
            return  # reported with the row's other values
        if found in seen:
            raise self.fault(f"the same key as row {seen[found]}", "join the rows of one record", "duplicate-key")
        seen[found] = index

    def _row(self, row: Mapping[str, Any]) -> tuple[Any, list[ch.Change], dict[str, Any], list[Any]]:
        names = self.bound.spec.primary_key
        lacking = [name for name in names if name not in row]
        if lacking:
            raise self.fault(
                f"the key {', '.join(lacking)} is missing", f"every row of data names its {', '.join(names)}"
            )
        problems: list[Problem] = []
        found = ch.read_changes(self.bound, {n: v for n, v in row.items() if n not in names}, problems)
        if not found and not problems:
            problems.append(Problem("empty-update", "nothing to change", "give at least one field besides the key"))
        if problems:
            raise self.bound.refuse(problems, self.name)
        key = self.key_filter({name: row[name] for name in names})
        operands: list[Any] = []
        return (ch.change_shape(found, operands), shape(key, operands)), found, key, operands


@attrs.frozen
class _Item:
    """One row to change: its place in the input, operands, encoded arguments, options of its call, and its key."""

    index: int
    operands: list[Any]
    arguments: list[Any]
    options: Mapping[str, Any]
    key: Any


@attrs.frozen
class _Columns:
    """A plan for rows that give the same columns.

    Attributes:
        plan: the statement.
        types: types of the columns: first the key, then what changes.
        encodes: column -> what features do to its values.
        watched: whether a feature looks at each row, so that they are changed one by one.
    """

    plan: Plan
    types: tuple[Any, ...]
    encodes: Mapping[str, Sequence[Convert]]
    watched: bool


@attrs.frozen
class _Group:
    """Rows that give the same columns: their places in the input, the encoded columns, how many of them are the key."""

    plan: Plan
    types: tuple[Any, ...]
    indexes: Sequence[int]
    encoded: Sequence[Sequence[Any]]
    width: int

    def columns(self, start: int, stop: int) -> list[Sequence[Any]]:
        """Return the columns of some of the rows."""
        return [column[start:stop] for column in self.encoded]

    @property
    def keys(self) -> list[tuple[Any, ...]]:
        """The keys of the rows."""
        return list(zip(*self.encoded[: self.width], strict=True))


class BulkDelete(_ByFilter):
    """Remove many records."""

    name = "bulk_delete"

    def program(self, params: Mapping[str, Any], call: Call) -> Program[dict[str, Any]]:
        _, options = self.split(params)
        extra = self.shaped(options, call)
        ids = self.flag(options, "return_ids")
        limit = self.whole(options, "limit")
        confirmed = self.flag(options, "confirmed")
        documents = self._documents(options, limit)
        if self.flag(options, "confirmation_required") and not confirmed:
            total = 0
            for document in documents:
                operands: list[Any] = []
                total += yield from count_rows(self, document, shape(document, operands), operands, extra, call)
            total = total if limit is None else min(total, limit)
            return Result({"deleted": 0, "confirmation_required": True, "would_delete": total})
        if "filter" in options and not confirmed and _matches_all(documents[0]):
            problems = self.check_filter(documents[0])
            if problems:
                raise self.bound.refuse(problems, self.name)
            hint = "pass confirmed=True to delete every record, or give a filter"
            raise self.fault("an empty filter would delete every record", hint, "unconfirmed")
        body = self._delete(documents, limit, extra, call, ids=ids, by_key="ids" in options)
        return (yield from body if len(documents) == 1 else atomic(call, body))

    def _documents(self, options: Mapping[str, Any], limit: int | None) -> list[Mapping[str, Any]]:
        document = self.mapping(options, "filter")
        keys = options.get("ids")
        if (keys is None) == (document is None):
            raise self.fault(
                "bulk_delete needs filter or ids, and not both", "give filter={…} or ids=[…]", "missing-data"
            )
        if keys is None:
            assert document is not None
            return [document]
        if isinstance(keys, (str, bytes, Mapping)) or not isinstance(keys, Sequence):
            raise self.fault("ids takes a list of keys", "write ids=[1, 2]")
        if limit is not None:
            raise self.fault("limit goes with filter, not with ids")
        return by_keys(self.bound.spec.primary_key, [self.key_filter(key) for key in keys])

    def _delete(
        self, documents: list[Mapping[str, Any]], limit: int | None, extra: Any, call: Call, *, ids: bool, by_key: bool
    ) -> Program[dict[str, Any]]:
        deleted = 0
        keys: list[Any] = []
        for document in documents:
            operands: list[Any] = []
            key = ("bulk_delete", by_key, shape(document, operands), limit is None, ids, extra)
            compile_ = partial(self._compile, document, limit, extra, ids=ids, by_key=by_key)
            plan: Plan = self.bound.plans.get(key, compile_)
            operands += [] if limit is None else [limit]
            count, found = yield from self.finish(plan, operands, call, ids=ids)
            deleted += count
            keys += found
        return Result({"deleted": deleted, **({"ids": keys} if ids else {})})

    def _compile(self, document: Mapping[str, Any], limit: int | None, extra: Any, *, ids: bool, by_key: bool) -> Plan:
        builder = PlanBuilder(self.bound, self.name, "delete", options=dict(extra))
        builder.by_key = by_key
        builder.apply_features()
        used = self.scope(builder, document, 0, limit)
        statement = builder.restrict(sa.delete(builder.table))
        return self.returning(builder, statement, used, ids=ids)
