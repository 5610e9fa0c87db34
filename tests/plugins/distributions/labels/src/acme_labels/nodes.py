"""Node types: one of every labelled model, one of none."""

from dataflow.nodes import BaseDataFlowNode


class Relabel:
    """Change the label of a record."""

    name = "relabel"
    writes = True

    def __init__(self, bound):
        self.bound = bound

    def check(self, params, *, partial):
        return []

    def missing(self, names):
        return [name for name in ("id", "label") if name not in names]

    def program(self, params, call):
        changes = {"id": params["id"], "values": {"label": params["label"]}}
        return (yield from self.bound.operation("update").program(changes, call))


class ShoutNode(BaseDataFlowNode):
    """Return a text in capitals."""

    outputs = ("text",)

    def run(self, text):
        return {"text": text.upper()}
