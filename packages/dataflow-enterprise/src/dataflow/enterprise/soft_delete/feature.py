"""The feature: deleting marks a record with the time and the operation, and reading passes over what is marked.

The database keeps it consistent: unique keys count only what lives, and references to the model lead only to what
lives, so that a parent with live children cannot be deleted, nor a child of a deleted parent be made or restored.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from dataflow.dialect import Program
from dataflow.errors import InputError, TenancyError
from dataflow.fields import FieldSpec, ForeignKey
from dataflow.model import HiddenColumn, ModelDraft
from dataflow.plan.changes import touch
from dataflow.plan.stages import Stage
from dataflow.session import Call
from dataflow.types import DateTimeType, StrType

if TYPE_CHECKING:
    from dataflow.plan.bound import BoundModel, BoundRelation
    from dataflow.plan.builder import PlanBuilder

DELETED = "deleted_at"
DELETION = "_deletion"
"""The id of the operation that deleted a record, which deletes and restores its children with it."""
_READS = ("read", "list", "count", "aggregate")
_DELETES = ("delete", "bulk_delete")


class SoftDelete:
    """Adds ``deleted_at`` to a model, and makes deletes mark instead of remove."""

    name = "soft_delete"
    stage = Stage.SCOPE
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ("tenancy",)
    capability = "soft_delete"

    def extend_model(self, draft: ModelDraft) -> None:
        """Add the columns, and the options of deletes and reads."""
        draft.add_field(FieldSpec(DELETED, DateTimeType(), nullable=True, origin=self.name, kept=self.name))
        draft.hidden.append(HiddenColumn(DELETION, StrType()))
        draft.ends = DELETED
        draft.add_option("soft_delete", shapes=True, operations=_DELETES, flag=True)
        draft.add_option("include_deleted", shapes=True, operations=(*_READS, *_DELETES), flag=True)
        draft.add_option("only_deleted", shapes=True, operations=_READS, flag=True)

    def extend_plan(self, plan: "PlanBuilder") -> None:
        """Pass over deleted records; turn deletes into updates."""
        deleted = plan.table.c[DELETED]
        if plan.statement == "insert":
            return
        if plan.operation in _DELETES and soft(plan) and plan.options.get("include_deleted"):
            plan.authorize(_refuse_again)
        only = plan.options.get("only_deleted")
        if plan.operation in ("restore", "purge") or (only and plan.operation != "related"):
            plan.where(deleted.is_not(None))
        elif not only and not plan.options.get("include_deleted"):
            plan.where(deleted.is_(None))  # what is deleted already keeps its first time
        if plan.statement == "delete" and soft(plan):
            plan.replace(_mark)
            if plan.options.get("@tenancy") and plan.model.spec.row_key != plan.model.spec.primary_key:
                plan.authorize(_refuse_across)
            for child, relation in dependents(plan.model):
                plan.before(partial(_end, child, relation))


def _refuse_again(call: Call, fields: tuple[str, ...]) -> None:
    del call, fields
    msg = "include_deleted goes with soft_delete=False: what is deleted already cannot be deleted again"
    raise InputError(msg, hint="leave it out, or add soft_delete=False", code="bad-parameter")


def _refuse_across(call: Call, fields: tuple[str, ...]) -> None:
    del call, fields
    msg = "a key means one record of each tenant, and children follow their parent by its key"
    raise TenancyError(msg, hint="give tenant_id='acme'")


def soft(plan: "PlanBuilder") -> bool:
    """Tell whether a delete marks: unless the call, or its purpose, says otherwise."""
    return plan.operation in _DELETES and bool(plan.options.get("soft_delete", True))


def _mark(plan: "PlanBuilder") -> Any:
    table = plan.table
    touch(plan)
    plan.set(DELETED, lambda call: call.now)
    deletion = plan.bind(lambda call: call.id, label=DELETION, like=table.c[DELETION])
    return plan.restrict(sa.update(table)).values({**plan.sets, DELETION: deletion})


def dependents(model: "BoundModel") -> "list[tuple[BoundModel, BoundRelation]]":
    """Return the models whose foreign keys say what becomes of their records when one of this model ends."""
    found = []
    for back in model.relations.values():
        child = model.target(back)
        declared = child.spec.fields[back.remote].relation
        if not back.many or not isinstance(declared, ForeignKey):
            continue
        if declared.on_delete == "set null" or (declared.on_delete == "cascade" and child.spec.ends):
            found.append((child, back))
    return found


def _end(child: "BoundModel", back: "BoundRelation", call: Call, keys: list[Any]) -> Program[None]:
    """Delete the children of records, or let go of them, as their foreign key says."""
    declared = child.spec.fields[back.remote].relation
    assert isinstance(declared, ForeignKey)
    document = {back.remote: {"$in": keys}}
    options = call.options
    call.options = {name: value for name, value in options.items() if name == "tenant_id"}
    with following(child):
        if declared.on_delete == "cascade":
            yield from child.operation("bulk_delete").program({"_filter": document}, call)
        else:
            params = {"_filter": document, "_update": {back.remote: None}}
            yield from child.operation("bulk_update").program(params, call)
    call.options = options


@contextmanager
def following(child: "BoundModel") -> Iterator[None]:
    """Say why a tenant is needed where a record that all share ends or comes back: tenants' records follow it."""
    try:
        yield
    except TenancyError as error:
        error.message += f", and records of {child.name}, which belong to tenants, go with the record"
        error.hint = "call inside `with db.tenant('acme'):`, or for all of them `with db.all_tenants(reason=…):`"
        raise
