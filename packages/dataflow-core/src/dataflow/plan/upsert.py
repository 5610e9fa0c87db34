"""Upserts: the row with that unique key is changed, or created; which of the two is told."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import sqlalchemy as sa

from dataflow.dialect import Program
from dataflow.errors import Problem, UniqueError
from dataflow.filters import shape
from dataflow.plan import changes as ch
from dataflow.plan.builder import Authorization, Plan, PlanBuilder
from dataflow.plan.operation import DICT_HINT, ModelOperation, Result
from dataflow.plan.write import counted, insert_plan, missing_fields
from dataflow.session import Call, atomic
from dataflow.types import kind

if TYPE_CHECKING:
    from dataflow.plan.bound import BoundModel


def require_unique(operation: ModelOperation, names: Sequence[str], what: str) -> tuple[str, ...]:
    """Check that `names` are a unique key of the model; return them in the key's order.

    Raises:
        InputError: they are not; the database could not tell which row is meant.
    """
    problems = [p for name in names if (p := operation.known_field(name, what))]
    if problems:
        raise operation.bound.refuse(problems, operation.name)
    names = [name for name in names if name not in operation.bound.spec.scope]
    for key in operation.bound.spec.unique_keys:
        if set(key) == set(names):
            return key
    keys = "; ".join(", ".join(key) for key in operation.bound.spec.unique_keys)
    msg = f"{what} ({', '.join(names)}) is not a unique key of {operation.bound.name}"
    index = (
        f"{{'name': 'uq_{operation.bound.spec.table}_{'_'.join(names)}', 'fields': {list(names)!r}, 'unique': True}}"
    )
    raise operation.fault(msg, f"unique keys: {keys}. Or declare __indexes__ = [{index}]", "not-unique")


class Upsert(ModelOperation):
    """Update the record with that key, or create it."""

    name = "upsert"

    def check(self, params: Mapping[str, Any], *, partial: bool) -> list[Problem]:
        given = {name: value for name, value in params.items() if self.route.get(name) in ("where", "create")}
        given = {
            name: {field: v for field, v in value.items() if field not in self.value_options}
            if isinstance(value, Mapping)
            else value
            for name, value in given.items()
        }
        problems = super().check({n: v for n, v in params.items() if n not in given}, partial=partial)
        for name, values in given.items():  # these are values of a record: what a filter means is another matter
            if not isinstance(values, Mapping):
                faulty = values is not None
                problems += [Problem("bad-parameter", f"{name} takes a dict, got {kind(values)}", DICT_HINT)] * faulty
                continue
            for field, value in values.items():
                unknown = self.known_field(field, name)
                if unknown or value is not None:
                    problems += [unknown] if unknown else self.check_field(field, value)
        return problems

    def program(self, params: Mapping[str, Any], call: Call) -> Program[dict[str, Any]]:
        _, options = self.split(params)
        where = dict(self.mapping(options, "where") or {})
        create = dict(self.mapping(options, "create") or {})
        self.take_options(where, options)
        self.take_options(create, options)
        update = self.mapping(options, "update")
        if update is not None:
            update = dict(update)
            self.take_options(update, options)
        extra = self.shaped(options, call)
        if not where:
            raise self.fault("upsert needs where", "give the unique key: where={'email': …}", "missing-key")
        create = {**where, **create}
        target = self.names(options, "conflict_on")
        key = require_unique(self, target or tuple(where), "conflict_on" if target else "where")
        self._check_key(where, create, key)
        if update is None:
            fixed = {*key, *self.bound.spec.primary_key}  # a record keeps its own key, as in bulk upserts
            update = {name: value for name, value in create.items() if name not in fixed}
        problems: list[Problem] = []
        found = ch.read_changes(self.bound, update, problems)
        problems += ch.change_problems(self.bound, found)
        problems += [p for name in create if (p := self.known_field(name, "create"))]
        if not problems:
            problems += [
                attrs.evolve(problem, hint=f"the record may be new: give create={{'{problem.where['field']}': …}}")
                for problem in missing_fields(self, create)
            ]
            for name, value in create.items():
                problems += self.check_field(name, value)
        if problems:
            raise self.bound.refuse(problems, self.name)
        named = {name: create[name] for name in key}
        if self.bound.core.dialect.created(self.bound.table) is None:
            two = counted(self, create, self._in_two(named, create, found, extra, call), call)
            return (yield from atomic(call, two))  # type: ignore[no-any-return]
        body = self._in_one(named, create, found, extra, call)
        return (yield from counted(self, create, body, call))  # type: ignore[no-any-return]

    def _check_key(self, where: Mapping[str, Any], create: Mapping[str, Any], key: tuple[str, ...]) -> None:
        problems = [
            Problem("bad-parameter", f"{name} differs between where and create", "give it once", {"field": name})
            for name in where
            if where[name] != create[name]
        ]
        problems += [
            Problem(
                "missing-key",
                f"{name} is part of the unique key, and has no value",
                f"give where={{'{name}': …}}",
                {"field": name},
            )
            for name in key
            if create.get(name) is None
        ]
        if problems:
            raise self.bound.refuse(problems, self.name)

    def _in_one(
        self, key: dict[str, Any], create: dict[str, Any], found: list[ch.Change], extra: Any, call: Call
    ) -> Program[dict[str, Any]]:
        """Let the database decide, in one statement that tells what it did."""
        names = tuple(create)
        operands: list[Any] = list(create.values())
        plan_key = ("upsert_one", names, tuple(key), ch.change_shape(found, operands), extra)
        both: _Either = self.bound.plans.get(
            plan_key, lambda: self._compile_one(names, tuple(key), found, len(operands), extra)
        )
        if both.fresh.plain and both.changed.plain:
            rows = yield both.fresh.command, both.fresh.arguments(operands, call)
            return (yield from self._told(rows, both, key, call))
        if both.fresh.derivations:
            settled = both.fresh.settled(operands, call, lambda filled: self._followed(both, filled, key, call))
            return (yield from settled)  # type: ignore[no-any-return]
        return (yield from atomic(call, self._followed(both, operands, key, call)))

    def _followed(
        self, both: "_Either", operands: list[Any], key: Mapping[str, Any], call: Call
    ) -> Program[dict[str, Any]]:
        rows = yield both.fresh.command, both.fresh.arguments(operands, call)
        result = yield from self._told(rows, both, key, call)
        half = both.fresh if result.status["created"] else both.changed
        yield from half.follow([row[:-1] for row in rows], call)
        return result

    def _told(self, rows: Sequence[Any], both: "_Either", key: Mapping[str, Any], call: Call) -> Program[Result]:
        if not rows:
            raise (yield from self._untouched(both.changed, key, call))
        half = both.fresh if rows[0][-1] else both.changed
        return Result(half.decode(rows[0][:-1]), {"created": bool(rows[0][-1])})

    def _compile_one(
        self, names: tuple[str, ...], key: tuple[str, ...], found: list[ch.Change], operands: int, extra: Any
    ) -> "_Either":
        dialect = self.bound.core.dialect
        builder = PlanBuilder(self.bound, self.name, "insert", options=dict(extra)).apply_features()
        table = builder.table
        operands = builder.derived(operands)
        for index, name in enumerate(names):
            if name not in builder.sets:
                builder.sets[name] = builder.operand(index, builder.encoder(name), name, like=table.c[name])
        ch.defaults(builder, set(names))
        kind = "update" if found else "select"
        change = PlanBuilder(self.bound, self.name, kind, options=dict(extra), table=table, root=builder)
        change.apply_features()
        idle = idle_column(self.bound, key)
        fresh = {idle: table.c[idle]}  # nothing to change: RETURNING must see the row all the same
        if found:
            ch.compile_changes(change, found, len(names))
            fresh = change.sets
        statement = dialect.insert(table).values(builder.sets)
        statement = statement.on_conflict_do_update(
            **conflict_target(self.bound, table, key),
            set_=fresh,
            where=sa.and_(*change.conditions) if change.conditions else None,
        )
        builder.written = names
        builder.authorizations += [partial(asked, authorize, change.written) for authorize in change.authorizations]
        columns = tuple(self.bound.fields)
        statement = statement.returning(*builder.returned(columns), dialect.created(table))
        return _Either(
            builder.compile(statement, operands=operands, columns=columns),
            change.compile(statement, operands=operands, columns=columns),
        )

    def _in_two(
        self, key: dict[str, Any], create: dict[str, Any], found: list[ch.Change], extra: Any, call: Call
    ) -> Program[dict[str, Any]]:
        """Lock the writer, change what is there, else insert. The transaction makes both steps one."""
        operands: list[Any] = []
        plan_key = ("upsert", ch.change_shape(found, operands), shape(key, operands), extra)
        change: Plan = self.bound.plans.get(plan_key, lambda: self._compile(found, key, len(operands), extra))
        rows = yield change.command, change.arguments(operands, call)
        if rows:
            yield from change.follow(rows, call)
            return Result(change.decode(rows[0]), {"created": False})
        names = tuple(create)
        insert: Plan = self.bound.plans.get(("upsert_new", names, extra), lambda: insert_plan(self, names, extra))
        try:
            rows = yield from insert.run(list(create.values()), call)
        except UniqueError as error:
            if not set(key) <= set(str(error.where.get("columns")).split(", ")):
                raise
            if self.bound.core.dialect.aborts_on_error:  # nothing more can be asked in this transaction
                raise unseen(tuple(key)) from error
            raise (yield from self._untouched(change, key, call)) from error
        return Result(insert.decode(rows[0]), {"created": True})

    def _compile(self, found: list[ch.Change], key: Mapping[str, Any], operands: int, extra: Any) -> Plan:
        columns = tuple(self.bound.fields)
        if not found:
            builder = PlanBuilder(self.bound, self.name, "select", options=dict(extra)).apply_features()
            self.compile_filter(builder, key)
            statement = builder.restrict(sa.select(*[builder.table.c[name] for name in columns]))
            return builder.compile(statement, operands=operands, columns=columns)
        builder = PlanBuilder(self.bound, self.name, "update", options=dict(extra)).apply_features()
        ch.compile_changes(builder, found)
        self.compile_filter(builder, key, len(found))
        statement = builder.restrict(sa.update(builder.table)).values(builder.sets)
        statement = statement.returning(*builder.returned(columns))
        return builder.compile(statement, operands=operands, columns=columns)

    def _untouched(self, change: Plan, key: Mapping[str, Any], call: Call) -> Program[UniqueError]:
        """Build the error for a record that is there, and that what features demand of a change excluded.

        Features are asked first: they may know better (another version than the expected one).
        """
        if change.conflicts:
            operands: list[Any] = []
            extra = self.surrounded(call)
            plan_key = ("upsert_probe", shape(key, operands), extra)
            probe: Plan = self.bound.plans.get(plan_key, lambda: self.compile_keys(key, len(operands), extra))
            rows = yield probe.command, probe.arguments(operands, call)
            if rows:
                for conflict in change.conflicts:
                    conflict(call, [probe.key_of(row) for row in rows])
        for guard in (*change.guards, *change.unmatched):
            guard(call, 0)
        return unseen(tuple(key))


def idle_column(bound: "BoundModel", key: Sequence[str]) -> str:
    """Return the column that an upsert writes onto itself where it changes nothing.

    One that every update sets where there is one: whoever may change records may write it, and need not write a key.
    """
    clocks = (field.name for field in bound.spec.fields.values() if field.write == "update")
    return next(clocks, key[0])


def conflict_target(bound: "BoundModel", table: Any, key: Sequence[str]) -> dict[str, Any]:
    """Return what names the unique key of an upsert: its columns with those of the scope, and the index's predicate."""
    spec = bound.spec
    if set(key) == set(spec.primary_key):
        return {"index_elements": [table.c[name] for name in spec.row_key]}
    target: dict[str, Any] = {"index_elements": [table.c[name] for name in spec.scoped(key)]}
    if spec.ends:
        target["index_where"] = table.c[spec.ends].is_(None)
    return target


def asked(authorize: Authorization, written: tuple[str, ...], call: Call, _fields: tuple[str, ...]) -> None:
    """Ask for the half of an upsert that changes what is there, with the fields that it changes."""
    authorize(call, written)


@attrs.frozen
class _Either:
    """One statement that inserts or changes; features may want different things done after each."""

    fresh: Plan
    changed: Plan


def unseen(key: Sequence[str], rows: str = "") -> UniqueError:
    """Build the error for a key that a record holds which features hide from the call."""
    msg = f"a record that this call cannot see holds the key ({', '.join(key)}){rows}"
    return UniqueError(msg, hint="give other keys, or call with the right to see that record")
