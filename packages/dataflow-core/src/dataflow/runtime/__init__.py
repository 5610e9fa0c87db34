"""Runtimes: what executes a workflow. The local ones run it in this process."""

from dataflow.runtime.local import AsyncLocalRuntime, LocalRuntime
from dataflow.runtime.steps import NodeEvent

__all__ = ["AsyncLocalRuntime", "LocalRuntime", "NodeEvent"]
