"""`include`: related records, one query per relation (and per thousand keys), never one per record."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from dataflow.dialect import Program
from dataflow.errors import Problem, suggest
from dataflow.filters import bucket
from dataflow.plan.builder import Plan, PlanBuilder
from dataflow.plan.sorting import order_by, total_order
from dataflow.session import Call

if TYPE_CHECKING:
    from dataflow.plan.bound import BoundModel, BoundRelation

CHUNK = 1000
Tree = dict[str, Any]


def parse_include(bound: "BoundModel", names: Iterable[str], operation: str) -> Tree:
    """Turn dotted relation names into a tree.

    Raises:
        InputError: a name is no relation.
    """
    tree: Tree = {}
    problems = []
    for name in names:
        model, branch = bound, tree
        for part in name.split("."):
            relation = model.relations.get(part)
            if relation is None:
                problems.append(_no_relation(model, part))
                break
            branch = branch.setdefault(part, {})
            model = model.target(relation)
    if problems:
        raise bound.refuse(problems, operation)
    return tree


def _no_relation(model: "BoundModel", name: str) -> Problem:
    close = suggest(name, model.relations)
    hint = f"did you mean {close!r}?" if close else f"relations: {', '.join(model.relations) or 'none'}"
    if not close and not model.relations:
        hint = "a field customer_id relates to a registered model Customer; or annotate Relation('Customer')"
    return Problem("unknown-relation", f"include: model {model.name} has no relation {name!r}", hint)


def needed(bound: "BoundModel", tree: Tree) -> set[str]:
    """Return the fields that the relations of a tree start from."""
    needs: set[str] = set()
    for name in tree:
        relation = bound.relations[name]
        needs |= {relation.local, *_shared(bound, bound.target(relation))}
    return needs


def _shared(bound: "BoundModel", target: "BoundModel") -> list[str]:
    """Return the fields of the scope that both models have: a relation never leaves it."""
    return [name for name in target.spec.scope if name in bound.spec.scope]


def attach(
    bound: "BoundModel", records: Sequence[dict[str, Any]], tree: Tree, call: Call, options: Mapping[str, Any]
) -> Program[None]:
    """Put the related records of a tree into `records`: a dict or None, or a list ordered by primary key."""
    for name, branch in tree.items():
        relation = bound.relations[name]
        target = bound.target(relation)
        keys = list(dict.fromkeys(r[relation.local] for r in records if r[relation.local] is not None))
        found: list[dict[str, Any]] = []
        if not keys:  # whether a call is refused must not depend on what there is
            _plan(target, relation, bucket(1), options).ask(call)
        for start in range(0, len(keys), CHUNK):
            part = keys[start : start + CHUNK]
            plan = _plan(target, relation, bucket(len(part)), options)
            rows = yield plan.command, plan.arguments([part], call)
            found += [plan.decode(row) for row in rows]
        if branch:
            yield from attach(target, found, branch, call, options)
        shared = _shared(bound, target)
        groups: dict[Any, list[dict[str, Any]]] = {}
        for record in found:
            groups.setdefault((record[relation.remote], *[record[name] for name in shared]), []).append(record)
        for record in records:
            group = groups.get((record[relation.local], *[record[name] for name in shared]), [])
            record[name] = [dict(item) for item in group] if relation.many else (dict(group[0]) if group else None)


def _plan(target: "BoundModel", relation: "BoundRelation", size: int, options: Mapping[str, Any]) -> Plan:
    def build() -> Plan:
        builder = PlanBuilder(target, "related", "select", options=options).apply_features()
        field = builder.field(relation.remote)
        column = builder.table.c[relation.remote]

        def bind(convert: Any) -> Any:
            return builder.operand(0, convert, relation.name)

        builder.where(target.core.dialect.in_list(column, field.type, field.filter_operand, bind, size))
        names = list(target.fields)
        statement = builder.restrict(sa.select(*[builder.table.c[name] for name in names]))
        statement = statement.order_by(*order_by(builder, total_order(target, ())))
        return builder.compile(statement, operands=1, columns=names)

    return target.plans.get(("include", relation.remote, size, tuple(options.items())), build)  # type: ignore[no-any-return]
