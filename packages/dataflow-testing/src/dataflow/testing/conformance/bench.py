"""One DataFlow under test, and every way to carry out an operation on it.

The same call through `db.express_sync`, `db.express`, a node run by `LocalRuntime` and one run by `AsyncLocalRuntime`
must give the same; tests say which way they mean, or run once per way.
"""

import copy
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from dataflow import DataFlow
from dataflow.dialect import COUNT, ROWS, Command, Program
from dataflow.errors import DataFlowError, NotYetAvailable, WorkflowExecutionError
from dataflow.express import ExpressSync
from dataflow.operations import BY_NAME
from dataflow.runtime import AsyncLocalRuntime, LocalRuntime
from dataflow.session import Call
from dataflow.surrounding import Surrounding
from dataflow.workflow import Workflow, WorkflowBuilder

T = TypeVar("T")
WAYS = ("express_sync", "express", "workflow", "async workflow")
"""The ways to carry out an operation; the first is the default."""
PATHS = ("express_sync", "async workflow")
"""Two ways that have as little as possible in common."""


class Bench(ExpressSync):
    """A DataFlow with the calls of express, carried out one of four ways.

    Args:
        url: where the database is.
        await_: runs a coroutine on the one event loop of the suite.
        declare: registers the suite's models on an instance.
        settings: of the instance.

    Attributes:
        db: the instance.
        way: how calls are carried out, one of `WAYS`.
    """

    def __init__(
        self,
        url: str,
        await_: Callable[[Coroutine[Any, Any, Any]], Any],
        declare: Callable[[DataFlow], None],
        **settings: Any,
    ) -> None:
        self.db = DataFlow(url, **settings)
        super().__init__(self.db)
        self.await_ = await_
        self.way = WAYS[0]
        self.refused: dict[str, DataFlowError] = {}
        self._url = url
        self._declare = declare
        self._settings = settings

    def declare(self) -> None:
        """Register the suite's models; what the dialect refuses is refused again when a test uses it."""
        self._declare(cast(DataFlow, _Declaring(self)))

    def by(self, way: str) -> "Bench":
        """Return the same bench, going another way."""
        other = copy.copy(self)
        other.way = way
        return other

    def call(self, operation: str, model: str, **params: Any) -> Any:
        """Carry out an operation; what a workflow wraps is unwrapped, so that errors are the same every way."""
        if model in self.refused:
            refused = self.refused[model]
            raise type(refused)(refused.message, hint=refused.hint, code=refused.code)
        if self.way == "express_sync":
            return super().call(operation, model, **params)
        if self.way == "express":
            return self.await_(self.db.express.call(operation, model, **params))
        workflow = self.workflow().add_node(f"{model}{BY_NAME[operation].suffix}", "node").build()
        return self.execute(workflow, parameters={"node": params})["node"]

    # -- workflows ------------------------------------------------------------------------------------------------
    def workflow(self) -> WorkflowBuilder:
        """Return a builder whose node types mean this instance."""
        return self.db.workflow()

    def execute(
        self, workflow: Workflow | WorkflowBuilder, parameters: Mapping[str, Any] | None = None, **options: Any
    ) -> dict[str, Any]:
        """Run a workflow, on the event loop if that is the way, and return its results.

        Raises:
            DataFlowError: why a node failed; `WorkflowExecutionError` itself comes from `run`.
        """
        try:
            return self.run(workflow, parameters, **options)
        except WorkflowExecutionError as error:
            if isinstance(error.__cause__, DataFlowError):
                raise error.__cause__ from None
            raise

    def run(
        self, workflow: Workflow | WorkflowBuilder, parameters: Mapping[str, Any] | None = None, **options: Any
    ) -> dict[str, Any]:
        """Run a workflow, on the event loop if that is the way, and return its results."""
        built = workflow.build() if isinstance(workflow, WorkflowBuilder) else workflow
        if self.way in ("express", "async workflow"):
            results, _ = self.await_(AsyncLocalRuntime(**options).execute_async(built, parameters))
        else:
            results, _ = LocalRuntime(**options).execute(built, parameters)
        return dict(results)

    def node(self, node_type: str, params: Mapping[str, Any]) -> Any:
        """Run one node whose params `build()` sees, and return its result."""
        return self.execute(self.workflow().add_node(node_type, "node", params))["node"]

    def sql(self, query: str, params: Any = None, **options: Any) -> Any:
        """Run SQL of one's own, and return its data."""
        given = {"query": query, **({} if params is None else {"params": params}), **options}
        return self.node("AsyncSQLDatabaseNode", given)["result"]["data"]

    # -- the database ---------------------------------------------------------------------------------------------
    def program(self, body: Callable[[Call], Program[T]], *, write: bool = True) -> T:
        """Run a program on a leased connection, which it finds as ``call.session``."""
        core, call = self.db.core, Call(self.db.core)
        if self.way in ("express", "async workflow"):
            return cast("T", self.await_(core.run(body(call), call, write=write, holder="conformance")))
        return core.run_sync(body(call), call, write=write, holder="conformance")

    def step(self, sql: str, arguments: Sequence[Any] = (), *, returns: str = ROWS) -> Any:
        """Send one statement of the framework's, and return its reply."""

        def body(call: Call) -> Program[Any]:
            del call
            return (yield Command(sql, returns, writes=returns == COUNT), arguments)

        return self.program(body)

    def around(self, **values: str) -> Surrounding:
        """Let calls of a block be surrounded by values: ``with bench.around(actor="ada"):``."""
        return Surrounding(self.db.core, values)

    def register(self, name: str, fields: Mapping[str, Any], **body: Any) -> type:
        """Register a model built from annotations; what else stands in its body comes by keyword."""
        return self.db.model(type(name, (), {"__annotations__": dict(fields), "__module__": __name__, **body}))

    def clear(self, *models: str) -> None:
        """Remove the records of some models, or of every model whose table is there, what refers to others first."""
        tables = set() if models else set(self.db.show_tables())
        for name in models or reversed(self.db.list_models()):
            if models or self.db.get_spec(name).table in tables:
                self.db.express_sync.bulk_delete(name, filter={}, confirmed=True)

    @contextmanager
    def another(self, **settings: Any) -> "Iterator[Bench]":
        """Open the same database a second time, with the same models."""
        other = Bench(self._url, self.await_, self._declare, **{**self._settings, **settings})
        try:
            other.declare()
            yield other
        finally:
            self.await_(other.db.aclose())


class _Declaring:
    """What `declare` gets for a DataFlow: a model whose types the dialect does not know spoils no other."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def model(self, cls: type) -> type:
        """Register a model, or note why it is refused."""
        try:
            return self._bench.db.model(cls)
        except NotYetAvailable as refused:
            self._bench.refused[cls.__name__] = refused
            return cls


def keys_of(page: Mapping[str, Any], field: str = "id") -> list[Any]:
    """Return one field of the records of a list, in their order."""
    return [record[field] for record in page["records"]]
