"""The files of the stubs: what stands in them, whether those on disk are current, and writing them."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dataflow.stubs import calls
from dataflow.stubs.models import ModelTypes
from dataflow.stubs.values import Values, literal

if TYPE_CHECKING:
    from dataflow.core import Core

FOLDER = "typings"
"""Where pyright looks for stubs by itself."""
NOTE = """\
# Written by `dataflow stubs`: change the models, and run it again.
# mypy: ignore-errors
# pyright: basic, reportRedeclaration=false, reportPrivateUsage=false, reportOverlappingOverload=false
# pyright: reportIncompatibleMethodOverride=false, reportMissingModuleSource=false
# ruff: noqa
# fmt: off
"""
TYPED = """
import datetime
import decimal
import uuid
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, Literal, NoReturn, NotRequired, Protocol, SupportsIndex, TypeAlias, TypedDict, TypeVar

_T = TypeVar("_T", covariant=True)

class _Many(Protocol[_T]):  # a list or tuple: no text, and no set
    def __contains__(self, value: object, /) -> bool: ...
    def __getitem__(self, index: SupportsIndex, /) -> _T: ...
    def __iter__(self) -> Iterator[_T]: ...
    def __len__(self) -> int: ...

Direction: TypeAlias = Literal[1, -1, "asc", "desc"]

class _Table(Protocol):
    def __arrow_c_stream__(self, requested_schema: object | None = ...) -> object: ...

class _Page(TypedDict):
    count: int
    total: int
    limit: int | None
    offset: int
    has_more: bool
    next_cursor: str | None

class _Counted(TypedDict):
    count: int

class _Aggregated(TypedDict):
    groups: list[dict[str, Any]]

class _BulkWritten(TypedDict):
    created: int
    updated: int
    skipped: int
    total: int
    ids: list[Any]
    errors: list[dict[str, Any]]
    committed: int

class _BulkUpdated(TypedDict):
    updated: int
    total: int
    ids: list[Any]
    missing: list[Any]
    conflicts: list[Any]

class _BulkDeleted(TypedDict):
    deleted: int
    ids: list[Any]
    would_delete: int
    confirmation_required: bool

"""
EXPRESS = """
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable, Iterator, Mapping, Sequence
import datetime
import decimal
import uuid
from builtins import list as _list
from enum import Enum
from typing import Any, Literal, NoReturn, overload

from dataflow.engine import DataFlow
from dataflow.typed import *
from dataflow.typed import {private}

DATAFLOW_MYPY: bool
MYPY: bool
Key = Any
Row = Mapping[str, Any]

"""
BUILDER = """
from collections.abc import Mapping
from typing import Any, Literal, Self, overload

from dataflow.engine import DataFlow
from dataflow.nodes import BaseDataFlowNode
from dataflow.typed import {private}
from dataflow.workflow.graph import Connection, NodeRecord
from dataflow.workflow.workflow import Workflow

DATAFLOW_MYPY: bool
MYPY: bool

"""
_RESULTS = ("_Aggregated", "_BulkDeleted", "_BulkUpdated", "_BulkWritten", "_Counted", "_Many", "_Table")


def render(core: "Core") -> dict[str, str]:
    """Return the stubs of an application: path below their folder -> text."""
    values = Values()
    models = [ModelTypes(core.models[name], values) for name in sorted(core.models)]
    texts = [model.text() for model in models]
    nodes = {node.type: f"_{node.type}" for model in models for node in model.bound.nodes.values()}
    free = calls.free_nodes([core.plugins.workflow_nodes[name] for name in sorted(core.plugins.workflow_nodes)])
    nodes |= {name: f"_{name}" if text else "Mapping[str, Any]" for name, text in free.items()}
    nodes |= {name: "Mapping[str, Any]" for name, (bound, _) in core.node_types.items() if bound is None}
    nodes = dict(sorted(nodes.items()))
    imports = "".join(f"import {module}\n" for module in sorted(values.modules))
    names = f"ModelName: TypeAlias = {literal(sorted(core.models))}\nNodeType: TypeAlias = {literal(nodes)}\n"
    typed = [
        NOTE,
        imports,
        TYPED,
        names,
        *(values.shared[name] for name in sorted(values.shared)),
        *texts,
        *free.values(),
    ]
    express = EXPRESS.format(private=", ".join(_RESULTS))
    private = ", ".join(name for name in nodes.values() if name.startswith("_")) or "_Table"
    return {
        "dataflow/__init__.pyi": NOTE + _package("dataflow"),
        "dataflow/express.pyi": NOTE + imports + express + calls.express(models),
        "dataflow/typed.pyi": "".join(typed),
        "dataflow/workflow/__init__.pyi": NOTE + _package("dataflow.workflow"),
        "dataflow/workflow/builder.pyi": NOTE + BUILDER.format(private=private) + calls.builder(nodes),
    }


def _package(name: str) -> str:
    """Write what a package exports: each public name from the module where it is defined."""
    from importlib import import_module

    module = import_module(name)
    lines = []
    for public in module.__all__:
        home = getattr(getattr(module, public), "__module__", None)
        lines.append(f"from {home} import {public} as {public}" if home else f"{public}: str")
    return "\n".join(["", *sorted(lines), f"\n__all__ = {list(module.__all__)!r}\n"])


def compare(files: Mapping[str, str], folder: Path) -> dict[str, list[str]]:
    """Return the files that are not as they would be written: path -> lines of their difference."""
    found = {}
    for path, text in files.items():
        place = folder / path
        if not place.is_file():
            found[path] = ["it is missing"]
            continue
        old = place.read_text(encoding="utf-8")
        if old != text:
            lines = difflib.unified_diff(old.splitlines(), text.splitlines(), "on disk", "now", lineterm="", n=1)
            found[path] = list(lines)[2:]
    return found


def write(files: Mapping[str, str], folder: Path) -> None:
    """Write files below a folder. Raises OSError."""
    for path, text in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
