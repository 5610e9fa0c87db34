"""What a step must do: run on the oracle's tables, with the way back where it fails."""

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from dataflow.testing.differential import bulk, reads, writes
from dataflow.testing.differential.programs import Failure, Op, Step, Wire, Wrong
from dataflow.testing.differential.world import World

OPERATIONS: Mapping[str, Callable[[World, Op, Mapping[str, Any]], dict[str, Any]]] = {
    "create": writes.create,
    "read": reads.read,
    "update": writes.update,
    "delete": writes.delete,
    "list": reads.listed,
    "count": reads.count,
    "aggregate": reads.aggregate,
    "upsert": writes.upsert,
    "bulk_create": bulk.bulk_create,
    "bulk_update": bulk.bulk_update,
    "bulk_delete": bulk.bulk_delete,
    "bulk_upsert": bulk.bulk_upsert,
}
ROWWISE = ("bulk_create", "bulk_upsert")
"""These judge wrong values row by row."""


@attrs.frozen
class Outcome:
    """What a step must give.

    Attributes:
        results: of the operations that succeed.
        error: (class, code) of the error that ends the step, or None. A node of the user's own fails with ("Boom", "").
        failed: index of the operation that fails.
    """

    results: tuple[Any, ...]
    error: tuple[str, str] | None = None
    failed: int = -1


def apply(world: World, op: Op, params: Mapping[str, Any]) -> dict[str, Any]:
    """Carry one operation out.

    Raises:
        Failure: it fails, and the tables are as before, but for what `commit_every` committed.
        Ambiguous: the specification leaves the outcome open.
    """
    if op.fault is not None:
        raise Failure(*op.fault)
    if op.kind not in ROWWISE and any(type(leaf) is Wrong for leaf in op.symbols):
        raise Failure("InputError", "wrong-value")
    before = world.snapshot()
    try:
        return OPERATIONS[op.kind](world, op, params)
    except Failure as failure:
        if not failure.kept:
            world.restore(before)
        raise
    except BaseException:
        world.restore(before)
        raise


def execute(world: World, step: Step) -> Outcome:
    """Run a step on the oracle.

    Raises:
        Ambiguous: the specification leaves the outcome open; the tables are as before.
        Dangling: it refers to an operation that is not there.
    """
    before = world.snapshot()
    results: dict[int, Any] = {}
    for op in step.ops:
        world.cursors.pop(op.number, None)  # of a draw that was given up
    for index, op in enumerate(step.ops):
        wired = {
            name: results[value.source][value.output] if isinstance(value, Wire) else value
            for name, value in op.params.items()
        }
        try:
            results[op.number] = apply(world, op, wired)
        except Failure as failure:
            _undo(world, step, before)
            return Outcome(tuple(results.values()), (failure.name, failure.code), index)
        except BaseException:
            world.restore(before)
            raise
    if step.boom:
        _undo(world, step, before)
        return Outcome(tuple(results.values()), ("Boom", ""), len(step.ops))
    return Outcome(tuple(results.values()))


def _undo(world: World, step: Step, before: Any) -> None:
    if step.scope is not None and step.scope.get("rollback_on_error", True):
        world.restore(before)
        for op in step.ops:
            world.cursors.pop(op.number, None)  # it stands for a record that never was
