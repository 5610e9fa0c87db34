"""The types of your models' records, for annotations: ``from dataflow.typed import UserRecord``.

`dataflow stubs` writes what type checkers see of this module. At run time there is nothing to see: any name is the
type that records have then, a dict.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return dict[str, Any]
