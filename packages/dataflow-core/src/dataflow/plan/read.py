"""Reading: one record, a list, a count."""

import warnings
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from dataflow.dialect import Program
from dataflow.errors import DataFlowError, NotFoundError
from dataflow.filters import shape
from dataflow.plan import include as related
from dataflow.plan import sorting
from dataflow.plan.bound import BoundModel
from dataflow.plan.builder import Plan, PlanBuilder, row_count
from dataflow.plan.operation import SCALARS, ModelOperation, Result, run_plan
from dataflow.session import Call

MANY_ROWS = 10_000
_FOUND = {"found": True}
_PAGING = {"sort", "order_by", "cursor", "offset"}


def not_found(operation: ModelOperation, by_key: bool) -> DataFlowError:  # noqa: FBT001
    """Build the NotFoundError of an operation."""
    what = "with that key" if by_key else "that matches the conditions"
    msg = f"no {operation.bound.name} {what}"
    hint = "check the key, or leave out raise_on_not_found to get a result instead"
    return NotFoundError(msg, hint=hint, where={"model": operation.bound.name, "operation": operation.name})


class _Reading(ModelOperation):
    """What Read and List share: projection, include, hidden columns."""

    def __init__(self, bound: BoundModel) -> None:
        super().__init__(bound)
        self.columns = tuple(bound.fields)

    def _projection(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        if "fields" not in options:
            return self.columns
        names = self.names(options, "fields")
        problems = [p for name in names if (p := self.known_field(name, "fields"))]
        if problems:
            raise self.bound.refuse(problems, self.name)
        return names or self.columns

    def _select(self, builder: PlanBuilder, names: tuple[str, ...]) -> Any:
        return builder.restrict(sa.select(*[builder.table.c[name] for name in names]))


class Read(_Reading):
    """Return one record by key or conditions; the first by primary key where several match."""

    name = "read"

    def program(self, params: Mapping[str, Any], call: Call) -> Program[dict[str, Any]]:
        if len(params) == 1:
            ((name, key),) = params.items()
            known: Plan | None = self.bound.plans.peek(("read", name, type(key), *self.quick(call)))
            if known is not None:
                if known.plain and not known.unmatched:  # as run_plan does, without a generator of its own
                    rows = yield known.command, known.arguments([key], call)
                else:
                    rows = yield from run_plan(known, [key], call)
                if rows:
                    return Result(known.decode(rows[0]), _FOUND)
                return Result({self.bound.spec.primary_key[0]: key}, {"found": False})
        _, options = self.split(params)
        extra = self.shaped(options, call)
        document, by_key = self.target(options, "conditions")
        strict = self.flag(options, "raise_on_not_found")
        operands: list[Any] = []
        wanted = self.names(options, "fields"), self.names(options, "include")
        key = ("read", by_key, shape(document, operands), *wanted, extra)
        plan: _ReadPlan = self.bound.plans.get(key, lambda: self._compile(document, options, extra, by_key=by_key))
        self._remember(params, plan, call, by_key=by_key)
        rows = yield from run_plan(plan.plan, operands, call)
        records = [plan.plan.decode(row) for row in rows[:1]]
        if plan.tree:
            yield from related.attach(self.bound, records, plan.tree, call, dict(extra))
        if not records:
            if strict:
                raise not_found(self, by_key)
            return Result(document if by_key else {}, {"found": False})
        (record,) = records
        for name in plan.hidden:
            del record[name]
        return Result(record, {"found": True})

    def _remember(self, params: Mapping[str, Any], plan: "_ReadPlan", call: Call, *, by_key: bool) -> None:
        """Keep a plan for calls that give nothing but a key of the same type, which then need no look at options."""
        if not by_key or len(params) > 1:
            return
        ((name, key),) = params.items()
        if type(key) in SCALARS and len(self.bound.spec.primary_key) == 1:
            self.bound.plans.put(("read", name, type(key), *self.quick(call)), plan.plan)

    def _compile(
        self, document: Mapping[str, Any], options: Mapping[str, Any], extra: Any, *, by_key: bool
    ) -> "_ReadPlan":
        names = self._projection(options)
        tree = related.parse_include(self.bound, self.names(options, "include"), self.name)
        hidden = tuple(sorted(related.needed(self.bound, tree) - set(names)))
        builder = PlanBuilder(self.bound, self.name, "select", options=dict(extra))
        operands: list[Any] = []
        shape(document, operands)
        builder.by_key = by_key
        builder.apply_features()
        self.compile_filter(builder, document)
        statement = self._select(builder, (*names, *hidden))
        if not by_key:
            statement = statement.order_by(*sorting.order_by(builder, sorting.total_order(self.bound, ()))).limit(1)
        plan = builder.compile(statement, operands=len(operands), columns=(*names, *hidden))
        return _ReadPlan(plan, tree, hidden)


class _ReadPlan(NamedTuple):
    plan: Plan
    tree: related.Tree
    hidden: tuple[str, ...]


class _Page(NamedTuple):
    """The checked options of one list call."""

    sort: sorting.Sort
    limit: int | None
    offset: int
    after: list[Any] | None


class List(_Reading):
    """Return the records that match a filter, sorted and paged."""

    name = "list"

    def __init__(self, bound: BoundModel) -> None:
        super().__init__(bound)
        self.by_key = sorting.total_order(bound, ())

    def program(self, params: Mapping[str, Any], call: Call) -> Program[dict[str, Any]]:
        _, options = self.split(params)
        extra = self.shaped(options, call)
        document = self.mapping(options, "filter") or {}
        operands: list[Any] = []
        filter_shape = shape(document, operands)
        total = None
        if self.flag(options, "count_only"):
            total = yield from self._count(document, filter_shape, operands, extra, call)
            return Result(
                {
                    "records": [],
                    "count": total,
                    "total": total,
                    "limit": None,
                    "offset": 0,
                    "has_more": False,
                    "next_cursor": None,
                }
            )
        if self.flag(options, "include_total"):
            total = yield from self._count(document, filter_shape, operands, extra, call)
        page = self._page(options)
        names = self._projection(options)
        wanted = self.names(options, "include")
        place = None if page.after is None else tuple(value is None for value in page.after)
        key = ("list", filter_shape, page.sort, names, wanted, page.limit is None, bool(page.offset), place, extra)
        plan: _ListPlan = self.bound.plans.get(
            key, lambda: self._compile(document, options, page, len(operands), extra)
        )
        values = [*operands, *(page.after or ())]
        values += [] if page.limit is None else [page.limit + 1]
        values += [page.offset] if page.offset else []
        rows = yield from run_plan(plan.plan, values, call)
        return (yield from self._result(plan, rows, page, total, call, extra))

    def _page(self, options: Mapping[str, Any]) -> _Page:
        if _PAGING.isdisjoint(options):
            return _Page(self.by_key, self.whole(options, "limit"), 0, None)
        given = options.get("sort"), options.get("order_by")
        if all(given):
            raise self.fault("sort and order_by mean the same; both were given", "give one of them")
        sort = sorting.parse_sort(given[0] or given[1])
        if isinstance(sort, str):
            raise self.fault(sort)
        problems = sorting.sort_problems(self.bound, sort)
        if problems:
            raise self.bound.refuse(problems, self.name)
        sort = sorting.total_order(self.bound, sort)
        cursor = options.get("cursor")
        after = None if cursor is None else sorting.read_cursor(self.bound, cursor, sort)
        offset = self.whole(options, "offset") or 0
        if offset > MANY_ROWS:
            msg = f"{self.bound.name}ListNode skips {offset:,} records by reading them; page with cursor=next_cursor"
            warnings.warn(msg, stacklevel=2)
        if after is not None and offset:
            raise self.fault("cursor and offset were both given", "page with one of them")
        return _Page(sort, self.whole(options, "limit"), offset, after)

    def _compile(
        self, document: Mapping[str, Any], options: Mapping[str, Any], page: _Page, operands: int, extra: Any
    ) -> "_ListPlan":
        names = self._projection(options)
        tree = related.parse_include(self.bound, self.names(options, "include"), self.name)
        need = related.needed(self.bound, tree) | ({name for name, _ in page.sort} if page.limit is not None else set())
        hidden = tuple(sorted(need - set(names)))
        builder = PlanBuilder(self.bound, self.name, "select", options=dict(extra))
        builder.apply_features()
        self.compile_filter(builder, document)
        if page.after is not None:
            builder.where(sorting.after(builder, page.sort, page.after, operands))
            operands += len(page.after)
        statement = self._select(builder, (*names, *hidden)).order_by(*sorting.order_by(builder, page.sort))
        if page.limit is not None:
            most = builder.operand(operands, row_count, "limit", like=sa.literal(1, sa.BigInteger))
            statement = statement.limit(most)
            operands += 1
        if page.offset:
            skipped = builder.operand(operands, row_count, "offset", like=sa.literal(1, sa.BigInteger))
            statement = statement.offset(skipped)
            operands += 1
        return _ListPlan(builder.compile(statement, operands=operands, columns=(*names, *hidden)), tree, hidden)

    def _result(
        self, plan: "_ListPlan", rows: list[Any], page: _Page, total: int | None, call: Call, extra: Any
    ) -> Program[dict[str, Any]]:
        more = page.limit is not None and len(rows) > page.limit
        if more:
            rows = rows[: page.limit]
        elif page.limit is None and len(rows) > MANY_ROWS:
            msg = f"{self.bound.name}ListNode returned {len(rows):,} records at once; page with limit= and cursor="
            warnings.warn(msg, stacklevel=2)
        records = plan.plan.decode.all(rows)
        cursor = sorting.write_cursor(page.sort, records[-1]) if more and records else None
        if plan.tree:
            yield from related.attach(self.bound, records, plan.tree, call, dict(extra))
        if plan.hidden:
            for record in records:
                for name in plan.hidden:
                    del record[name]
        out: dict[str, Any] = {"records": records, "count": len(records)}
        if total is not None:
            out["total"] = total
        out |= {"limit": page.limit, "offset": page.offset, "has_more": more, "next_cursor": cursor}
        return Result(out)

    def _count(
        self, document: Mapping[str, Any], filter_shape: Hashable, operands: list[Any], extra: Any, call: Call
    ) -> Program[int]:
        return (yield from count_rows(self, document, filter_shape, operands, extra, call))


class _ListPlan(NamedTuple):
    plan: Plan
    tree: related.Tree
    hidden: tuple[str, ...]


def count_rows(
    operation: ModelOperation,
    document: Mapping[str, Any],
    filter_shape: Hashable,
    operands: list[Any],
    extra: Any,
    call: Call,
) -> Program[int]:
    """Count the records that match a filter."""

    def build() -> Plan:
        builder = PlanBuilder(operation.bound, operation.name, "select", options=dict(extra))
        builder.apply_features()
        operation.compile_filter(builder, document)
        statement = builder.restrict(sa.select(sa.func.count()).select_from(builder.table))
        return builder.compile(statement, operands=len(operands))

    plan: Plan = operation.bound.plans.get(("count", operation.name, filter_shape, extra), build)
    rows = yield from run_plan(plan, operands, call)
    return int(rows[0][0])


class Count(ModelOperation):
    """Count the records that match a filter."""

    name = "count"

    def program(self, params: Mapping[str, Any], call: Call) -> Program[dict[str, Any]]:
        _, options = self.split(params)
        extra = self.shaped(options, call)
        document = self.mapping(options, "filter") or {}
        operands: list[Any] = []
        filter_shape = shape(document, operands)
        return Result({"count": (yield from count_rows(self, document, filter_shape, operands, extra, call))})
