"""Fixtures for tests that leave nothing behind, an embedded PostgreSQL, and conformance suites for dialects."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataflow.testing.tdd import count_queries, empty_dataflow, existing_dataflow, savepoint

__all__ = ["count_queries", "empty_dataflow", "existing_dataflow", "savepoint"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import a public name on first use: pytest imports this package at the start of every run."""
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from dataflow.testing import tdd

    return getattr(tdd, name)
