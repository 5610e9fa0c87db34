"""The records of a workflow graph: nodes and connections, as the user wrote them."""

from collections.abc import Mapping
from typing import Any

import attrs

from dataflow.canonical import MAX_DEPTH


@attrs.frozen
class NodeRecord:
    """A node: its type (a name, or a node class), its id, its params."""

    type: Any
    id: str
    params: Mapping[str, Any]

    @property
    def type_name(self) -> str:
        """The type's name."""
        return self.type if isinstance(self.type, str) else self.type.__name__


@attrs.frozen
class Connection:
    """A connection from an output of one node to an input of another."""

    source: str
    output: str
    target: str
    input: str

    def __str__(self) -> str:
        return f"{self.source}.{self.output} -> {self.target}.{self.input}"


def plain_copy(value: Any, depth: int = 0) -> Any:
    """Copy dicts and lists as deep as JSON goes; lists of more than a thousand items (rows of data) only at the top."""
    if depth > MAX_DEPTH:
        return value
    if type(value) is dict:
        return {key: plain_copy(item, depth + 1) for key, item in value.items()}
    if type(value) is list:
        return list(value) if len(value) > 1000 else [plain_copy(item, depth + 1) for item in value]
    return value
