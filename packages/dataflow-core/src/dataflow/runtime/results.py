"""What a run returns: a dict, node id -> the node's outputs, that shows itself as a table in a notebook."""

from typing import Any


class RunResults(dict[str, Any]):
    """The results of a run: node id -> outputs. A dict in every respect."""

    def _repr_html_(self) -> str:
        from dataflow.notebook import run_html

        return run_html(self)
