"""Versions: each change of a record makes its version one higher, and a change that expects another one is refused.

The check stands in the WHERE clause of the change itself, so nothing can come between the two.
"""

from typing import TYPE_CHECKING, Any

from dataflow.errors import VersionConflict
from dataflow.fields import FieldSpec
from dataflow.model import ModelDraft
from dataflow.plan.stages import Stage
from dataflow.session import Call
from dataflow.types import IntType

if TYPE_CHECKING:
    from dataflow.plan.builder import PlanBuilder

VERSION = "version"


class Versioning:
    """Adds ``version`` to a model: 1 when a record is created, one more with each change."""

    name = "versioning"
    stage = Stage.VERSION
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    capability = "versioned"

    def __init__(self) -> None:
        self.model = ""

    def extend_model(self, draft: ModelDraft) -> None:
        """Add the column, and the option by which a call says what it expects."""
        self.model = draft.name
        draft.add_field(FieldSpec(VERSION, IntType(), default=1, origin=self.name, kept=self.name))
        draft.add_option(
            VERSION,
            shapes="given",
            operations=("update", "delete", "upsert", "restore"),
            rows=("bulk_update", "bulk_upsert"),
        )

    def extend_plan(self, plan: "PlanBuilder") -> None:
        """Count changes, and confine them to the expected version where one is given."""
        if plan.statement == "insert":
            plan.set(VERSION, 1)
            return
        column = plan.table.c[VERSION]
        if plan.statement in ("update", "delete"):  # a delete may be replaced by an update
            plan.set(VERSION, column + 1)
        elif plan.operation != "upsert":
            return
        if plan.options.get(VERSION):
            expected = plan.given(VERSION, plan.model.fields[VERSION].encode, like=column)
            plan.expect(column == expected, self._conflict)

    def _conflict(self, call: Call, keys: list[Any]) -> None:
        del call
        what = "the record has" if len(keys) == 1 else f"{len(keys)} records have"
        msg = f"{what} another version than the one expected; nothing was written"
        hint = "read it again, and apply the change to what it is now"
        raise VersionConflict(msg, ids=keys, hint=hint, where={"model": self.model})
