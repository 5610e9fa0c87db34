"""Workflows: a mutable `WorkflowBuilder`, and the frozen `Workflow` that `build()` makes of it."""

from dataflow.workflow.builder import WorkflowBuilder
from dataflow.workflow.workflow import Workflow

__all__ = ["Workflow", "WorkflowBuilder"]
