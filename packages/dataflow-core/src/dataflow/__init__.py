__path__ = __import__("pkgutil").extend_path(__path__, __name__)
__doc__ = """DataFlow: a workflow-native database framework.

The public names, loaded on first use: importing this package imports neither SQLAlchemy nor a database driver.
Parts (``dataflow.sqlite`` …) are separate distributions that share this namespace.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataflow.engine import DataFlow
    from dataflow.errors import DataFlowError
    from dataflow.fields import Factory, ForeignKey, Relation
    from dataflow.nodes import BaseDataFlowNode
    from dataflow.workflow import Workflow, WorkflowBuilder

__version__ = "0.1.0"

__all__ = [
    "BaseDataFlowNode",
    "DataFlow",
    "DataFlowError",
    "Factory",
    "Field",
    "ForeignKey",
    "Relation",
    "Workflow",
    "WorkflowBuilder",
    "__version__",
]

_HOMES = {
    "BaseDataFlowNode": "dataflow.nodes",
    "DataFlow": "dataflow.engine",
    "DataFlowError": "dataflow.errors",
    "Factory": "dataflow.fields",
    "Field": "dataflow.fields",
    "ForeignKey": "dataflow.fields",
    "Relation": "dataflow.fields",
    "Workflow": "dataflow.workflow",
    "WorkflowBuilder": "dataflow.workflow",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        msg = f"module 'dataflow' has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
