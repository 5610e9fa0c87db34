"""Aggregates per group: sums, averages, extremes, counts; filtered by `having`, ordered, limited."""

from collections.abc import Mapping
from typing import Any

import attrs
import sqlalchemy as sa

from dataflow import types as t
from dataflow.dialect import Program
from dataflow.errors import Problem, suggest
from dataflow.fields import FieldSpec
from dataflow.filters import LOGIC, FilterCompiler, shape
from dataflow.plan.bound import BoundField
from dataflow.plan.builder import Plan, PlanBuilder, row_count
from dataflow.plan.operation import ModelOperation, Result, run_plan
from dataflow.plan.sorting import Sort, parse_sort
from dataflow.session import Call

_COMPUTING = ("$sum", "$avg", "$min", "$max")
FUNCTIONS = (*_COMPUTING, "$count", "$count_distinct")


@attrs.frozen
class _Item:
    """One column of a group: a group field or an aggregate."""

    name: str
    function: str
    field: str


class Aggregate(ModelOperation):
    """Compute aggregates per group."""

    name = "aggregate"

    def program(self, params: Mapping[str, Any], call: Call) -> Program[dict[str, Any]]:
        _, options = self.split(params)
        extra = self.shaped(options, call)
        groups = self.names(options, "group_by")
        items = self._items(groups, self.mapping(options, "aggregate"))
        sort = self._sort(options, groups, items)
        limit = self.whole(options, "limit")
        document = self.mapping(options, "filter") or {}
        having = self.mapping(options, "having") or {}
        operands: list[Any] = []
        key = (
            "aggregate",
            tuple(items),
            sort,
            limit is None,
            shape(document, operands),
            shape(having, operands),
            extra,
        )
        plan, decode = self.bound.plans.get(
            key, lambda: self._compile(groups, items, sort, document, having, len(operands), limit is not None, extra)
        )
        values = [*operands, *([] if limit is None else [limit])]
        rows = yield from run_plan(plan, values, call)
        return Result({"groups": [decode(row) for row in rows]})

    def _items(self, groups: tuple[str, ...], aggregate: Mapping[str, Any] | None) -> list[_Item]:
        problems = [p for name in groups if (p := self.known_field(name, "group_by"))]
        for name in groups:
            if name in self.bound.fields and self.bound.fields[name].type.storage in ("json", "array"):
                problems.append(
                    Problem("bad-group", f"group_by: {name!r} is {self.bound.fields[name].type}, which has no groups")
                )
        if not aggregate:
            hint = "give aggregate={'total': {'$sum': 'price'}, 'n': {'$count': '*'}}"
            problems.append(Problem("missing-aggregate", "aggregate is required", hint))
        items = [_Item(name, "", name) for name in groups]
        for name, document in (aggregate or {}).items():
            found = self._item(str(name), document, groups)
            if isinstance(found, Problem):
                problems.append(found)
            else:
                items.append(found)
        if problems:
            raise self.bound.refuse(problems, self.name)
        return items

    def _item(self, name: str, document: Any, groups: tuple[str, ...]) -> "_Item | Problem":
        if name in groups:
            return Problem("bad-aggregate", f"{name!r} is a group field and an aggregate", "rename the aggregate")
        if not isinstance(document, Mapping) or len(document) != 1:
            return Problem(
                "bad-aggregate", f"the aggregate {name!r} is {{function: field}}", f"functions: {', '.join(FUNCTIONS)}"
            )
        function, field = next(iter(document.items()))
        if function not in FUNCTIONS:
            close = suggest(str(function), FUNCTIONS)
            hint = f"did you mean {close!r}?" if close else f"functions: {', '.join(FUNCTIONS)}"
            return Problem("unknown-operator", f"{function!r} is not an aggregate function", hint)
        if field == "*" and function == "$count":
            return _Item(name, "$count", "*")
        if not isinstance(field, str) or field not in self.bound.fields:
            return self.known_field(str(field), f"aggregate {name!r}") or Problem(
                "bad-aggregate", f"{name!r} names no field"
            )
        kind = self.bound.fields[field].type
        if function in ("$sum", "$avg") and not kind.numeric:
            return Problem("bad-aggregate", f"{function} needs numbers, and {field!r} is {kind}")
        if function in ("$min", "$max") and not kind.orders:
            return Problem("bad-aggregate", f"{function} needs an order, and {field!r} is {kind}")
        return _Item(name, function, field)

    def _sort(self, options: Mapping[str, Any], groups: tuple[str, ...], items: list[_Item]) -> Sort:
        sort = parse_sort(options.get("sort") or options.get("order_by"))
        if isinstance(sort, str):
            raise self.fault(sort)
        known = [item.name for item in items]
        for name, _ in sort:
            if name not in known:
                close = suggest(name, known)
                raise self.fault(
                    f"sort: no group field or aggregate {name!r}",
                    f"did you mean {close!r}?" if close else f"names: {', '.join(known)}",
                )
        return sort + tuple((name, False) for name in groups if name not in dict(sort))

    def _compile(
        self, groups: tuple[str, ...], items: list[_Item], sort: Sort, document: Mapping[str, Any],
        having: Mapping[str, Any], operands: int, limited: bool, extra: Any,  # noqa: FBT001
    ) -> tuple[Plan, Any]:  # fmt: skip
        dialect = self.bound.core.dialect
        builder = PlanBuilder(self.bound, self.name, "select", options=dict(extra)).apply_features()
        self.compile_filter(builder, document)
        columns: dict[str, Any] = {}
        fields: dict[str, BoundField] = {}
        for item in items:
            column = None if item.field == "*" else builder.table.c[item.field]
            source = None if item.field == "*" else self.bound.fields[item.field].type
            if item.function in _COMPUTING and builder.transformed(item.field):
                raise self.fault(f"{item.function} has no meaning on {item.field!r}, which is stored encoded")
            columns[item.name] = column if not item.function else dialect.aggregate(item.function, column, source)
            spec = FieldSpec(item.name, _result_type(item.function, source), nullable=True)
            fields[item.name] = BoundField(spec, dialect)
            if not item.function and builder.transformed(item.field):
                encodes, decodes = builder.encodes.get(item.field, ()), builder.decodes.get(item.field, ())
                fields[item.name] = fields[item.name].through(encodes, decodes)
        statement = sa.select(*[columns[item.name].label(f"c{i}") for i, item in enumerate(items)]).select_from(
            builder.table
        )
        statement = builder.restrict(statement)
        if groups:
            statement = statement.group_by(*[columns[name] for name in groups])
        if having:
            filtered: list[Any] = []
            shape(document, filtered)
            statement = statement.having(self._having(builder, having, columns, fields, len(filtered)))
        order = []
        for name, descending in sort:
            term = dialect.comparable(columns[name], fields[name].type)
            order.append(term.desc() if descending else term.asc())
            if dialect.nulls_need_order:
                order[-1] = order[-1].nulls_last() if descending else order[-1].nulls_first()
        statement = statement.order_by(*order)
        if limited:
            most = builder.operand(operands, row_count, "limit", like=sa.literal(1, sa.BigInteger))
            statement = statement.limit(most)
            operands += 1
        plan = builder.compile(statement, operands=operands)
        names = [item.name for item in items]
        sources = {item.name: item.field for item in items}
        pairs = [(name, fields[name].decode) for name in names if fields[name].decode is not None]

        def decode(row: Any) -> dict[str, Any]:
            record = dict(zip(names, row, strict=True))
            for name, function in pairs:
                if record[name] is not None and function is not None:
                    try:
                        record[name] = function(record[name])
                    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
                        raise self.bound.unreadable(sources[name]) from error
            return record

        return plan, decode

    def _having(
        self,
        builder: PlanBuilder,
        having: Mapping[str, Any],
        columns: dict[str, Any],
        fields: dict[str, BoundField],
        first: int,
    ) -> Any:
        problems: list[Problem] = []
        compiler = FilterCompiler(builder, problems, first)

        def document(part: Any, _at: Any) -> Any:
            terms = []
            if not isinstance(part, Mapping):
                compiler.skip(part)
                problems.append(Problem("bad-filter", f"having: a filter is a dict, got {t.kind(part)}"))
                return sa.true()
            for name, value in part.items():
                if name in LOGIC:
                    terms.append(compiler.logic(name, value, builder, document))
                elif name == "$not":
                    terms.append(compiler.logic("$nor", [value], builder, document))
                elif name in columns:
                    terms.append(compiler.field(value, columns[name], fields[name], f"having {name}"))
                else:
                    compiler.skip(value)
                    close = suggest(str(name), columns)
                    hint = f"did you mean {close!r}?" if close else f"names: {', '.join(columns)}"
                    problems.append(Problem("unknown-field", f"having: no group field or aggregate {name!r}", hint))
            return sa.and_(sa.true(), *terms)

        predicate = document(having, builder)
        if problems:
            raise self.bound.refuse(problems, self.name)
        return predicate


def _result_type(function: str, source: t.FieldType | None) -> t.FieldType:
    if function in ("$count", "$count_distinct") or source is None:
        return t.IntType()
    if function == "$avg" and source.storage != "decimal":
        return t.FloatType()
    return source
