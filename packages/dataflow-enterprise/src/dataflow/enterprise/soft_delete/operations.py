"""{M}RestoreNode and {M}PurgeNode."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, ClassVar

import sqlalchemy as sa

from dataflow.dialect import COUNT, Program
from dataflow.enterprise.soft_delete.feature import DELETED, DELETION, dependents, following
from dataflow.errors import ForeignKeyError, UniqueError
from dataflow.filters import bucket, shape
from dataflow.model import ModelSpec
from dataflow.operations import OperationKind
from dataflow.plan import changes as ch
from dataflow.plan.bound import BoundModel, BoundRelation
from dataflow.plan.builder import AT_ONCE, Plan, PlanBuilder
from dataflow.plan.operation import ModelOperation, Result, run_plan
from dataflow.plan.read import not_found
from dataflow.plugins import NodeSpec, Parameter
from dataflow.session import Call, atomic
from dataflow.types import DateTimeType, StrType, ValueRefused, kind

RESTORE = OperationKind(
    "restore",
    "RestoreNode",
    "dataflow.enterprise.soft_delete.operations:Restore",
    (
        Parameter("id", "key", doc="Key of the record; a tuple or dict for a composite key. `record_id` is the same."),
        Parameter("conditions", "dict", doc="Filter document instead of a key."),
        Parameter("cascade", "bool", default=True, doc="Restore what was deleted together with the record, too."),
        Parameter("raise_on_not_found", "bool", default=False, doc="Raise NotFoundError instead."),
    ),
    outputs=("restored",),
    record=True,
    doc="Bring a deleted record back, with what was deleted together with it.",
)
PURGE = OperationKind(
    "purge",
    "PurgeNode",
    "dataflow.enterprise.soft_delete.operations:Purge",
    (
        Parameter(
            "older_than",
            "timedelta | datetime | float",
            required=True,
            doc="Remove what was deleted before: an age (a number is days), or an instant; 0 for all.",
        ),
        Parameter("limit", "int", doc="Most records to remove, in key order."),
    ),
    outputs=("purged",),
    doc="Remove deleted records for good.",
)


def nodes(spec: ModelSpec) -> list[NodeSpec]:
    """Return the node types that a model with soft delete gets besides."""
    names = tuple(spec.fields)
    return [RESTORE.node(spec.name, (), names), PURGE.node(spec.name, (), names)]


class Restore(ModelOperation):
    """Bring deleted records back."""

    name: ClassVar[str] = "restore"
    described = RESTORE

    def program(self, params: Mapping[str, Any], call: Call) -> Program[dict[str, Any]]:
        _, options = self.split(params)
        extra = self.shaped(options, call)
        strict = self.flag(options, "raise_on_not_found")
        cascade = self.flag({"cascade": True, **options}, "cascade")
        document, by_key = self.target(options, "conditions")
        operands: list[Any] = []
        form = shape(document, operands)
        marks: Plan = self.bound.plans.get(
            ("restore_marks", by_key, form, extra), partial(self._compile_marks, document, len(operands), extra, by_key)
        )
        plan: Plan = self.bound.plans.get(
            ("restore", by_key, form, extra), partial(self._compile, document, len(operands), extra, by_key)
        )
        rows = yield from atomic(call, self._restore(marks, plan, operands, call, cascade=cascade))
        if not rows:
            if strict:
                raise not_found(self, by_key)
            return Result(document if by_key else {}, {"restored": 0})
        return Result(min(map(plan.decode, rows), key=self.rank), {"restored": len(rows)})

    def _restore(
        self, marks: Plan, plan: Plan, operands: list[Any], call: Call, *, cascade: bool
    ) -> Program[list[Any]]:
        found = yield marks.command, marks.arguments(operands, call)
        deletions = sorted({row[0] for row in found if row[0] is not None})
        with _clashes(self.bound):
            rows: list[Any] = yield from run_plan(plan, operands, call)
        if cascade and rows and deletions:
            keys = [plan.key_of(row) for row in rows]
            yield from _restore_children(self.bound, keys, deletions, call, self.surrounded(call))
        return rows

    def _compile_marks(self, document: Mapping[str, Any], operands: int, extra: Any, by_key: bool) -> Plan:  # noqa: FBT001
        builder = PlanBuilder(self.bound, self.name, "select", options=dict(extra))
        builder.by_key = by_key
        builder.apply_features()
        self.compile_filter(builder, document)
        statement = builder.restrict(sa.select(builder.table.c[DELETION])).with_for_update()
        return builder.compile(statement, operands=operands)

    def _compile(self, document: Mapping[str, Any], operands: int, extra: Any, by_key: bool) -> Plan:  # noqa: FBT001
        builder = PlanBuilder(self.bound, self.name, "update", options=dict(extra))
        builder.by_key = by_key
        builder.apply_features()
        self.compile_filter(builder, document)
        columns = tuple(self.bound.fields)
        statement = _unmarked(builder).returning(*builder.returned(columns))
        return builder.compile(statement, operands=operands, columns=columns)


def _unmarked(builder: PlanBuilder) -> Any:
    ch.touch(builder)
    values = {**builder.sets, DELETED: sa.null(), DELETION: sa.null()}
    return builder.restrict(sa.update(builder.table)).values(values)


def _restore_children(
    model: BoundModel, parents: list[Any], deletions: list[str], call: Call, extra: Any
) -> Program[None]:
    """Restore, from parents to children, what the same operations deleted below them."""
    for child, relation in dependents(model):
        if not child.spec.ends:
            continue
        restored: list[Any] = []
        for start in range(0, len(parents), AT_ONCE):
            part = parents[start : start + AT_ONCE]
            sizes = bucket(len(part)), bucket(len(deletions))
            key = ("restore_children", relation.remote, sizes, extra)
            plan: Plan = child.plans.get(key, partial(_compile_children, child, relation, sizes, extra))
            with _clashes(child, relation), following(child):
                rows = yield from run_plan(plan, [part, deletions], call)
            restored += [plan.key_of(row) for row in rows]
        if restored:
            yield from _restore_children(child, restored, deletions, call, extra)


def _compile_children(child: BoundModel, relation: BoundRelation, sizes: tuple[int, int], extra: Any) -> Plan:
    builder = PlanBuilder(child, "restore", "update", options=dict(extra)).apply_features()
    dialect, field = child.core.dialect, child.fields[relation.remote]

    def bound_to(index: int, label: str) -> Callable[[Any], Any]:
        return lambda convert: builder.operand(index, convert, label)

    parents = bound_to(0, relation.remote)
    builder.where(dialect.in_list(builder.table.c[field.name], field.type, field.filter_operand, parents, sizes[0]))
    deletions = bound_to(1, DELETION)
    builder.where(dialect.in_list(builder.table.c[DELETION], StrType(), str, deletions, sizes[1]))
    names = tuple(child.fields) if builder.remembers else child.spec.primary_key
    return builder.compile(_unmarked(builder).returning(*builder.returned(names)), operands=2, columns=names)


class _clashes:  # noqa: N801  # reads as a phrase
    """Say what a restored record clashes with."""

    def __init__(self, model: BoundModel, relation: BoundRelation | None = None) -> None:
        self.model = model
        self.relation = relation

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, UniqueError):
            columns = error.where.get("columns", "")
            error.message = f"a live {self.model.name} holds the key of the deleted one ({columns})"
            error.hint = "change or delete the live record first, or leave the deleted one as it is"
        elif isinstance(error, ForeignKeyError):
            error.message = f"the deleted {self.model.name} belongs to a record that is deleted itself"
            error.hint = "restore that record first"


class Purge(ModelOperation):
    """Remove deleted records for good."""

    name: ClassVar[str] = "purge"
    described = PURGE

    def program(self, params: Mapping[str, Any], call: Call) -> Program[dict[str, Any]]:
        _, options = self.split(params)
        extra = self.shaped(options, call)
        if options.get("older_than") is None:
            hint = "give older_than=timedelta(days=30), or 0 for all that is deleted"
            raise self.fault("purge needs to know how old", hint, "missing-parameter")
        before = self._instant(options["older_than"], call)
        limit = self.whole(options, "limit")
        plan: Plan = self.bound.plans.get(("purge", limit is None, extra), partial(self._compile, limit, extra))
        count = yield from run_plan(plan, [before, *([] if limit is None else [limit])], call)
        return Result({"purged": count})

    def _instant(self, value: Any, call: Call) -> datetime:
        if isinstance(value, datetime):
            try:
                found: datetime = DateTimeType().accept(value)
            except ValueRefused as refused:
                raise self.fault(f"older_than: {refused.message}", refused.hint, "wrong-value") from None
            return found
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            value = timedelta(days=value)
        if not isinstance(value, timedelta) or value < timedelta(0):
            hint = "give a timedelta, a number of days, or a datetime"
            raise self.fault(f"older_than takes an age of at least 0, got {kind(value)}", hint, "wrong-value")
        return call.now - value

    def _compile(self, limit: int | None, extra: Any) -> Plan:
        builder = PlanBuilder(self.bound, self.name, "delete", options=dict(extra)).apply_features()
        deleted = builder.table.c[DELETED]
        field = self.bound.fields[DELETED]
        builder.where(deleted <= builder.operand(0, field.store, "older_than", like=deleted))
        used = 1
        if limit is not None:
            keys = self.bound.spec.row_key
            inner = builder.table.alias()
            chosen = PlanBuilder(
                self.bound, self.name, "select", options=builder.options, table=inner, root=builder.root
            ).apply_features()
            old = inner.c[DELETED] <= builder.operand(0, field.store, "older_than", like=deleted)
            most = builder.operand(1, None, "limit", like=sa.literal(1, sa.BigInteger))
            select = chosen.restrict(sa.select(*[inner.c[name] for name in keys])).where(old)
            select = select.order_by(*[inner.c[name] for name in keys]).limit(most)
            columns = [builder.table.c[name] for name in keys]
            builder.where((columns[0] if len(columns) == 1 else sa.tuple_(*columns)).in_(select))
            used = 2
        statement = builder.restrict(sa.delete(builder.table))
        if builder.remembers:
            columns_kept = tuple(self.bound.fields)
            statement = statement.returning(*builder.returned(columns_kept))
            return builder.compile(statement, operands=used, columns=columns_kept)
        return builder.compile(statement, operands=used, returns=COUNT)
