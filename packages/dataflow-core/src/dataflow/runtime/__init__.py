"""Runtimes: what executes a workflow. The local ones run it in this process; plugins bring others."""

from typing import TYPE_CHECKING, Any

from dataflow.errors import MissingCapability, suggest
from dataflow.plugins.manager import plugin_set
from dataflow.plugins.specs import load
from dataflow.runtime.local import AsyncLocalRuntime, LocalRuntime
from dataflow.runtime.steps import NodeEvent

if TYPE_CHECKING:
    from dataflow.engine import DataFlow

__all__ = ["AsyncLocalRuntime", "LocalRuntime", "NodeEvent", "get"]


def get(name: str, db: "DataFlow | None" = None) -> Any:
    """Return the runtime class of a name: "local", "async", or what a plugin provides.

    Args:
        name: as in the plugin's `RuntimeSpec`.
        db: the instance whose plugins are asked; the installed ones are asked without it.

    Raises:
        MissingCapability: no active plugin provides it.
        PluginLoadError: its package cannot be imported.
    """
    runtimes = (plugin_set() if db is None else db.core.plugins).runtimes
    if name not in runtimes:
        close = suggest(name, runtimes)
        hint = f"did you mean {close!r}?" if close else f"runtimes: {', '.join(sorted(runtimes))}"
        raise MissingCapability(f"no active plugin provides a runtime {name!r}", hint=hint, code="unknown-runtime")
    return load(runtimes[name].runtime)
