"""Tasks: nodes resolved for running. One generic task serves every generated operation."""

import inspect
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from dataflow.dialect import Program
from dataflow.errors import DataFlowError, Problem, suggest
from dataflow.nodes import BaseDataFlowNode
from dataflow.nodes.scope import ScopeNode
from dataflow.session import BUILDING, Call, surroundings
from dataflow.sqltext import parse
from dataflow.workflow.graph import plain_copy

if TYPE_CHECKING:
    from dataflow.core import Core
    from dataflow.engine import DataFlow
    from dataflow.plan.bound import BoundModel
    from dataflow.plugins.specs import NodeSpec

CONTROL = {"input": "input", "_after": "input", "database": "database", "_database": "database"}
"""Inputs that every node has -> what they mean; a parameter of the node wins its name."""


@attrs.define(eq=False)
class Task:
    """One node, resolved.

    Attributes:
        id, type: as the user wrote them.
        db: the instance it runs on; None for nodes without a database.
        constants: its params, without the control inputs.
        wiring: (source id, output, input) for each connection that carries a value.
        spec: its node spec.
    """

    id: str
    type: str
    db: "DataFlow | None"
    constants: dict[str, Any]
    spec: "NodeSpec"
    wiring: tuple[tuple[str, str, str], ...] = ()

    @property
    def core(self) -> "Core | None":
        """The inside of its instance."""
        return None if self.db is None else self.db.core

    @property
    def may_block(self) -> bool:
        """Whether the calling thread can run it itself."""
        return _calls_may_block(self)

    @property
    def parameters(self) -> set[str]:
        """Names of the inputs it takes."""
        return {parameter.name for parameter in self.spec.parameters}

    def accepts(self, name: str) -> bool:
        """Tell whether an input exists."""
        return name in self.parameters

    def gives(self, output: str) -> bool:
        """Tell whether an output exists, as far as that is known."""
        return self.spec.outputs is None or output in self.spec.outputs or output in ("result", "_result", "_status")

    def check(self) -> list[Problem]:
        """Return the faults of its constants."""
        return []

    def missing(self, given: set[str]) -> list[str]:
        """Return the required inputs that are neither constant nor connected."""
        return [
            parameter.name for parameter in self.spec.parameters if parameter.required and parameter.name not in given
        ]

    def inputs(self, results: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
        """Merge constants, parameters of this run, and what is connected."""
        if not self.wiring:
            return {**self.constants, **extra} if extra else self.constants
        inputs = {**self.constants, **extra} if extra or self.constants else {}
        for source, output, name in self.wiring:
            inputs[name] = results[source][output]
        return inputs


def _calls_may_block(task: Task) -> bool:
    return task.db is None or task.db.core.database.blocking


@attrs.define(eq=False)
class DatabaseTask(Task):
    """A node whose work is a program on one database."""

    implementation: Any = None
    bound: "BoundModel | None" = None
    writes: bool = True

    def program(self, inputs: Mapping[str, Any], call: Call) -> Program[Any]:
        """Return the program that does the node's work."""
        return self.implementation.program(inputs, call)  # type: ignore[no-any-return]


@attrs.define(eq=False)
class ModelTask(DatabaseTask):
    """An operation on a model."""

    def accepts(self, name: str) -> bool:
        route = getattr(self.implementation, "route", None)
        return name in route if route is not None else name in self.parameters

    def check(self) -> list[Problem]:
        problems: list[Problem] = list(self.implementation.check(self.constants, partial=True))
        for feature in () if self.bound is None else self.bound.features:
            if hasattr(feature, "check_node"):
                problems += feature.check_node(self.implementation, self.constants)
        return problems

    def missing(self, given: set[str]) -> list[str]:
        return self.implementation.missing(given)  # type: ignore[no-any-return]


@attrs.define(eq=False)
class SQLTask(DatabaseTask):
    """SQL of the user's own."""

    def check(self) -> list[Problem]:
        problems = unknown_parameters(self)
        query = self.constants.get("query")
        if self.core is not None and self.core.guards and isinstance(query, str):
            try:
                statements = parse(query)
                for guard in self.core.guards:
                    guard.sql(self.core, {**surroundings(), BUILDING: True}, statements)
            except DataFlowError as error:
                problems.append(Problem(error.code, error.message, error.hint))
        return problems


@attrs.define(eq=False)
class ScopeTask(Task):
    """The start of a transaction that `members` share; it is committed after the last of them."""

    options: ScopeNode = attrs.field(factory=ScopeNode)
    members: tuple[str, ...] = ()
    last: str = ""

    @property
    def may_block(self) -> bool:
        return self.options.timeout is None and _calls_may_block(self)

    def check(self) -> list[Problem]:
        return unknown_parameters(self)


@attrs.frozen
class Shape:
    """What a node class looks like to a task.

    Attributes:
        method: "run" or "execute".
        is_async: whether that is a coroutine function.
        names: the inputs it takes; None: any.
        required: those without a default.
        constructor: what its constructor takes.
    """

    method: str
    is_async: bool
    names: frozenset[str] | None
    required: tuple[str, ...]
    constructor: inspect.Signature


_SHAPES: "weakref.WeakKeyDictionary[type, Shape]" = weakref.WeakKeyDictionary()


def shape_of(cls: type) -> Shape:
    """Look at a node class, once."""
    found = _SHAPES.get(cls)
    if found is None:
        method = "run" if hasattr(cls, "run") else "execute"
        function = getattr(cls, method)
        parameters = inspect.signature(function).parameters
        open_ended = method == "execute" or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        found = _SHAPES[cls] = Shape(
            method,
            inspect.iscoroutinefunction(function),
            None if open_ended else frozenset(parameters) - {"self"},
            ()
            if open_ended
            else tuple(
                p.name
                for p in parameters.values()
                if p.default is p.empty and p.name != "self" and p.kind is not p.VAR_POSITIONAL
            ),
            inspect.signature(cls),
        )
    return found


@attrs.define(eq=False)
class PythonTask(Task):
    """A custom node."""

    cls: type[BaseDataFlowNode] = BaseDataFlowNode
    shape: "Shape" = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.shape = shape_of(self.cls)

    @property
    def is_async(self) -> bool:
        """Whether its method is a coroutine function."""
        return self.shape.is_async

    @property
    def may_block(self) -> bool:
        return not self.shape.is_async and _calls_may_block(self)

    def accepts(self, name: str) -> bool:
        return self.shape.names is None or name in self.shape.names

    def missing(self, given: set[str]) -> list[str]:
        return [name for name in self.shape.required if name not in given]

    def check(self) -> list[Problem]:
        try:
            self.shape.constructor.bind(self.id, **self.constants)
        except TypeError as error:
            return [Problem("bad-node", f"{self.type} cannot be made with these params: {error}", "see its __init__")]
        return []

    def inputs(self, results: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
        """Merge the inputs; constants are copied, so that no run changes what the next one gets."""
        inputs = plain_copy(self.constants) if self.constants else {}
        inputs.update(extra)
        for source, output, name in self.wiring:
            inputs[name] = results[source][output]
        return inputs

    def call(self, inputs: Mapping[str, Any], *, caller_thread: bool) -> Any:
        """Make the node and call it; returns its result, or an awaitable if it is async."""
        node = self.cls(self.id, **plain_copy(self.constants)) if self.constants else self.cls(self.id)
        node._on_caller_thread = caller_thread  # noqa: SLF001
        if self.db is not None:
            node.db = self.db
        if self.shape.method == "execute":
            return node.execute(dict(inputs))
        names = self.shape.names
        return node.run(**(inputs if names is None else {k: v for k, v in inputs.items() if k in names}))  # type: ignore[attr-defined]


def stretches(tasks: Sequence[Task]) -> tuple[Sequence[Task], ...]:
    """Cut tasks into stretches: consecutive database nodes of one database, or a single other node."""
    found: list[list[Task]] = []
    for task in tasks:
        before = found[-1][-1] if found else None
        if isinstance(before, DatabaseTask) and isinstance(task, DatabaseTask) and before.core is task.core:
            found[-1].append(task)
        else:
            found.append([task])
    return tuple(found)


def unknown_parameters(task: Task) -> list[Problem]:
    """Return a problem for each constant that is no parameter."""
    problems = []
    for name in task.constants:
        if not task.accepts(name):
            close = suggest(name, task.parameters)
            hint = f"did you mean {close!r}?" if close else f"parameters: {', '.join(sorted(task.parameters))}"
            problems.append(
                Problem("unknown-parameter", f"{task.type} takes no parameter {name!r}", hint, {"parameter": name})
            )
    return problems
