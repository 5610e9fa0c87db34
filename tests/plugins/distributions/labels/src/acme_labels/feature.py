"""The feature: a column, its default, and an option that picks records by it."""

from dataflow.fields import FieldSpec
from dataflow.model import IndexSpec
from dataflow.plan.stages import Stage
from dataflow.types import StrType


class Labels:
    """Give every record a label; `with_label` confines any operation to one."""

    name = "labels"
    stage = Stage.SCOPE
    before = ()
    after = ()
    capability = "labels"

    def __init__(self, default):
        self.default = default

    def extend_model(self, draft):
        draft.add_field(FieldSpec("label", StrType(), default=self.default, origin=self.name))
        draft.add_index(IndexSpec(f"ix_{draft.table}_label", ("label",)))
        draft.add_option("with_label", shapes=True)

    def extend_plan(self, plan):
        if "with_label" in plan.options:
            column = plan.table.c.label
            plan.where(column == plan.bind(lambda call: call.options["with_label"], like=column))
