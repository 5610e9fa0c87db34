"""Writing one record: create, update, delete."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from dataflow.dialect import Program
from dataflow.errors import Problem
from dataflow.filters import shape
from dataflow.plan import changes as ch
from dataflow.plan.bound import BoundModel
from dataflow.plan.builder import Plan, PlanBuilder
from dataflow.plan.operation import SCALARS, ModelOperation, Result, run_plan
from dataflow.plan.read import not_found
from dataflow.session import Call, atomic

_CREATED = {"created": True}
_UPDATED = {"updated": 1}


def missing_fields(operation: ModelOperation, given: Iterable[str]) -> list[Problem]:
    """Return a problem for each required field that is not given."""
    have = set(given)
    return [
        Problem("missing-field", f"{spec.name} is required", f"give {spec.name}: {spec.type}", {"field": spec.name})
        for spec in operation.bound.spec.fields.values()
        if spec.required and spec.name not in have
    ]


def insert_plan(operation: ModelOperation, names: tuple[str, ...], extra: Any) -> Plan:
    """Compile INSERT … RETURNING for a set of given fields."""
    builder = PlanBuilder(operation.bound, operation.name, "insert", options=dict(extra))
    builder.apply_features()
    operands = builder.derived(len(names))
    for index, name in enumerate(names):
        if name not in builder.sets:
            builder.sets[name] = builder.operand(index, builder.encoder(name), name, like=builder.table.c[name])
    ch.defaults(builder, set(names))
    builder.written = names
    columns = tuple(operation.bound.fields)
    statement = sa.insert(builder.table).values(builder.sets).returning(*builder.returned(columns))
    return builder.compile(statement, operands=operands, columns=columns)


def counted_fields(bound: BoundModel) -> tuple[str, ...]:
    """Return the fields that the database fills where no value is given."""
    return tuple(field.name for field in bound.spec.fields.values() if field.generated)


def counted(operation: ModelOperation, values: Mapping[str, Any], body: Program[Any], call: Call) -> Program[Any]:
    """Run what inserts a record; where the caller chose an id, the counter of ids goes on after it."""
    if not operation.bound.core.dialect.numbers_apart:
        return (yield from body)
    chosen = [name for name in counted_fields(operation.bound) if values.get(name) is not None]
    if not chosen:
        return (yield from body)
    return (yield from atomic(call, _numbering(operation.bound, values, chosen, body)))


def _numbering(bound: BoundModel, values: Mapping[str, Any], chosen: list[str], body: Program[Any]) -> Program[Any]:
    reply = yield from body
    for name in chosen:
        yield from bound.core.dialect.numbered(bound.spec.table, name, values[name])
    return reply


class Create(ModelOperation):
    """Insert one record."""

    name = "create"

    def __init__(self, bound: BoundModel) -> None:
        super().__init__(bound)
        self.counted = counted_fields(bound)

    def check(self, params: Mapping[str, Any], *, partial: bool) -> list[Problem]:
        problems = super().check(params, partial=partial)
        for field, value in self.inner(params, "values"):
            if field not in self.value_options:
                unknown = self.known_field(field, "values")
                problems += [unknown] if unknown else self.check_field(field, value)
        return problems

    def _record(self, params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        fields, options = self.split(params)
        values = self.mapping(options, "values")
        if values is not None:
            problems = [p for name in values if (p := self.known_field(name, "values"))]
            problems += [
                Problem("twice", f"{name} is given twice: at top level and in values", "give it once")
                for name in values
                if name in fields
            ]
            if problems:
                raise self.bound.refuse(problems, self.name)
            fields |= values
            self.take_options(fields, options)
        for name in self.counted:  # None asks the database for its value, as in rows of a bulk
            if name in fields and fields[name] is None and not self.bound.fields[name].nullable:
                del fields[name]
        return fields, options

    def missing(self, names: set[str]) -> list[str]:
        """Return the required fields that are not given, unless `values` brings them."""
        if "values" in {self.route.get(name) for name in names}:
            return []
        given = {name for name in names if self.route.get(name, "") is None}
        return [problem.where["field"] for problem in missing_fields(self, given)]  # type: ignore[misc]

    def program(self, params: Mapping[str, Any], call: Call) -> Program[dict[str, Any]]:
        fields: Mapping[str, Any] = params
        nested = False
        if len(params) == 1:
            ((name, value),) = params.items()
            nested = type(value) is dict and self.route.get(name) == "values"
            fields = value if nested else params
        quick = self.quick(call)
        plan: Plan | None = self.bound.plans.peek(("create", nested, *fields, *quick))
        if plan is not None:
            rows = yield from run_plan(plan, list(fields.values()), call)
        else:
            fields, options = self._record(params)
            extra = self.shaped(options, call)
            names = tuple(fields)
            plan = self.bound.plans.get(("create", names, extra), lambda: self._compile(fields, extra))
            self._remember(params, fields, plan, quick)
            body = run_plan(plan, list(fields.values()), call)
            rows = yield from counted(self, fields, body, call)
        result = Result(plan.decode(rows[0]))
        result.status = _CREATED
        return result

    def _remember(
        self, params: Mapping[str, Any], fields: Mapping[str, Any], plan: Plan, quick: tuple[Any, ...]
    ) -> None:
        """Keep a plan for calls that give nothing but these fields: none of them a chosen id, no options."""
        routes = {self.route[name] for name in params}
        nested = routes == {"values"} and len(params) == 1
        values = next(iter(params.values())) if nested else params
        if (nested or routes <= {None}) and len(values) == len(fields) and not set(self.counted) & fields.keys():
            self.bound.plans.put(("create", nested, *fields, *quick), plan)

    def _compile(self, fields: Mapping[str, Any], extra: Any) -> Plan:
        problems = missing_fields(self, fields)
        for name, value in fields.items():
            problems += self.check_field(name, value)
        if problems:
            raise self.bound.refuse(problems, self.name)
        return insert_plan(self, tuple(fields), extra)


class Update(ModelOperation):
    """Change a record."""

    name = "update"

    def _routes(self) -> dict[str, str | None]:
        return {**dict.fromkeys(ch.OPERATORS), **super()._routes()}  # {"$inc": {"n": 1}} stands among the fields

    def check(self, params: Mapping[str, Any], *, partial: bool) -> list[Problem]:
        plain = {name: value for name, value in params.items() if self.route.get(name, "") is not None}
        problems = super().check(plain, partial=partial)
        changed = {name: value for name, value in params.items() if name not in plain}
        inner = self.inner(params, "values", "fields")
        changed |= {name: value for name, value in inner if name not in self.value_options}
        found = ch.read_changes(self.bound, changed, problems)
        return problems + ch.change_problems(self.bound, found)

    def _changes(self, fields: dict[str, Any], options: dict[str, Any]) -> list[ch.Change]:
        problems: list[Problem] = []
        values = dict(self.mapping(options, "values", "fields") or {})
        self.take_options(values, options)
        problems += [
            Problem("twice", f"{name} is given twice: at top level and in values", "give it once")
            for name in values
            if name in fields
        ]
        found = ch.read_changes(self.bound, {**fields, **values}, problems)
        if not found and not problems:
            names = [name for name in self.bound.fields if name not in self.bound.spec.primary_key]
            hint = f"give a field of {self.bound.name}: {', '.join(names)}"
            problems.append(Problem("empty-update", "nothing to change", hint))
        if problems:
            raise self.bound.refuse(problems, self.name)
        return found

    def program(self, params: Mapping[str, Any], call: Call) -> Program[dict[str, Any]]:
        names, values = _flat(params)
        quick = self.quick(call)
        known: _KeyedUpdate | None = None
        if ch.are_plain(values):
            known = self.bound.plans.peek(("update", *names, *quick))
        if known is not None and type(values[known.place]) is known.kind:
            key_value = values.pop(known.place)
            rows = yield from run_plan(known.plan, [*values, key_value], call)
            if len(rows) == 1:
                return Result(known.plan.decode(rows[0]), _UPDATED)
            return Result({self.bound.spec.primary_key[0]: key_value}, {"updated": 0})
        fields, options = self.split(params)
        found = self._changes(fields, options)
        extra = self.shaped(options, call)
        strict = self.flag(options, "raise_on_not_found")
        document, by_key = self.target(options, "conditions", "filter")
        operands: list[Any] = []
        key = ("update", by_key, ch.change_shape(found, operands), shape(document, operands), extra)
        plan: Plan = self.bound.plans.get(
            key, lambda: self._compile(found, document, len(operands), extra, by_key=by_key)
        )
        if by_key and ch.are_plain(values) and len(found) == len(values) - 1:
            self._remember(params, (*names, *quick), values, plan)
        rows = yield from run_plan(plan, operands, call)
        if not rows:
            if strict:
                raise not_found(self, by_key)
            return Result(document if by_key else {}, {"updated": 0})
        if len(rows) == 1:
            return Result(plan.decode(rows[0]), {"updated": 1})
        return Result(min(map(plan.decode, rows), key=self.rank), {"updated": len(rows)})

    def _remember(
        self, params: Mapping[str, Any], names: Sequence[Hashable], values: Sequence[Any], plan: Plan
    ) -> None:
        """Keep a plan for calls that give nothing but a key and plain values of the same fields."""
        routes = [self.route[name] for name in params]
        dicts = [name for name, value in params.items() if type(value) is dict]
        flat = set(routes) == {"id", None} and not dicts
        nested = (
            len(routes) == 2
            and set(routes) in ({"id", "values"}, {"id", "fields"})
            and [self.route[name] for name in dicts] in (["values"], ["fields"])
        )
        if not (flat or nested) or routes.count("id") != 1 or len(self.bound.spec.primary_key) > 1:
            return
        place = 0 if routes[0] == "id" else len(values) - 1 if nested else routes.index("id")
        kind = type(values[place])
        if kind in SCALARS:
            self.bound.plans.put(("update", *names), _KeyedUpdate(plan, place, kind))

    def _compile(
        self, found: list[ch.Change], document: Mapping[str, Any], operands: int, extra: Any, *, by_key: bool
    ) -> Plan:
        problems = ch.change_problems(self.bound, found)
        if problems:
            raise self.bound.refuse(problems, self.name)
        builder = PlanBuilder(self.bound, self.name, "update", options=dict(extra))
        builder.by_key = by_key
        builder.apply_features()
        ch.compile_changes(builder, found)
        self.compile_filter(builder, document, len(found))
        columns = tuple(self.bound.fields)
        statement = builder.restrict(sa.update(builder.table)).values(builder.sets)
        statement = statement.returning(*builder.returned(columns))
        return builder.compile(statement, operands=operands, columns=columns)


class _KeyedUpdate(NamedTuple):
    """A plan for a key and plain values: the place of the key among them, and its type."""

    plan: Plan
    place: int
    kind: type


def _flat(params: Mapping[str, Any]) -> tuple[list[Hashable], list[Any]]:
    """Return the structure of parameters, down to the names in a dict, and their values."""
    names: list[Hashable] = []
    values: list[Any] = []
    for name, value in params.items():
        if type(value) is dict:
            names.append((name, *value))
            values += value.values()
        else:
            names.append(name)
            values.append(value)
    return names, values


class Delete(ModelOperation):
    """Remove a record."""

    name = "delete"

    def program(self, params: Mapping[str, Any], call: Call) -> Program[dict[str, Any]]:
        _, options = self.split(params)
        extra = self.shaped(options, call)
        document, by_key = self.target(options, "conditions")
        operands: list[Any] = []
        key = ("delete", by_key, shape(document, operands), extra)
        plan: Plan = self.bound.plans.get(key, lambda: self._compile(document, len(operands), extra, by_key=by_key))
        rows = yield from run_plan(plan, operands, call)
        names = self.bound.spec.primary_key
        first = min(map(plan.decode, rows), key=self.rank) if rows else {}
        key_values = dict(document) if by_key else {name: first[name] for name in names if rows}
        out: dict[str, Any] = {"deleted": len(rows), **key_values}
        if names != ("id",) and key_values and "id" not in self.bound.fields:
            out["id"] = key_values[names[0]] if len(names) == 1 else tuple(key_values[name] for name in names)
        result = Result(out)
        result.status = {"deleted": len(rows)}
        return result

    def _compile(self, document: Mapping[str, Any], operands: int, extra: Any, *, by_key: bool) -> Plan:
        builder = PlanBuilder(self.bound, self.name, "delete", options=dict(extra))
        builder.by_key = by_key
        builder.apply_features()
        self.compile_filter(builder, document)
        columns = tuple(self.bound.fields) if builder.remembers else self.bound.spec.primary_key
        statement = builder.restrict(sa.delete(builder.table)).returning(*builder.returned(columns))
        return builder.compile(statement, operands=operands, columns=columns)
