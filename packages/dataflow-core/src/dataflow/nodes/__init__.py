"""Nodes of one's own: the base class, and what it offers to `execute`.

Generated nodes are not classes: one generic task serves all operations (`dataflow.workflow.tasks`).
"""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from dataflow.errors import UsageError
from dataflow.nodes.sql import run_sql, sql_program
from dataflow.session import Call

if TYPE_CHECKING:
    from dataflow.engine import DataFlow


class BaseDataFlowNode:
    """Base of custom nodes; register with ``db.register_node``.

    Write either ``execute(self, input_data)``, sync or async, or ``run(self, **inputs)``. Both return a dict, whose
    keys are the outputs. Inputs are the node's params, overridden by what is connected.

    Attributes:
        outputs: names of the outputs, checked by `build()`; None when they are not known.
        blocking: whether a sync `execute` runs in a worker thread when the workflow runs on an event loop.
        db: the DataFlow the node is registered on.

    Args:
        node_id: id in the workflow.
        config: the node's params.
    """

    outputs: ClassVar[tuple[str, ...] | None] = None
    blocking: ClassVar[bool] = True
    db: "DataFlow"
    _on_caller_thread: bool = False

    def __init__(self, node_id: str, **config: Any) -> None:
        self.node_id = node_id
        self.config = config

    def execute(self, input_data: Mapping[str, Any]) -> Any:
        """Do the node's work; override this, or `run`."""
        del input_data
        msg = f"{type(self).__name__} has neither execute(self, input_data) nor run(self, **inputs)"
        raise UsageError(msg, hint="write one of them", code="bad-node")

    def run_custom_query(self, sql: str, params: Any = None) -> list[dict[str, Any]]:
        """Run SQL of your own on the instance's database and return the rows; joins the run's transaction.

        Args:
            sql: one statement, with `:name` placeholders (params is a dict) or `$1` (a list).
            params: their values.

        Raises:
            UsageError: called on a running event loop's own thread, which it would stop.
        """
        if not self._on_caller_thread:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                pass
            else:
                msg = "run_custom_query() would stop the event loop it was called on"
                raise UsageError(
                    msg, hint="write `rows = await self.query(sql, params)` in an async execute", code="would-deadlock"
                )
        rows: list[dict[str, Any]] = run_sql(self._instance(), sql, params)["data"]
        return rows

    def _instance(self) -> "DataFlow":
        db: DataFlow | None = getattr(self, "db", None)
        if db is None:
            name = type(self).__name__
            msg = f"{name} does not know which database it belongs to"
            hint = f"register it: db.register_node({name}), or build the workflow with db.workflow()"
            raise UsageError(msg, hint=hint, code="no-database")
        return db

    async def query(self, sql: str, params: Any = None) -> list[dict[str, Any]]:
        """Await SQL of your own on the instance's database; see `run_custom_query`."""
        core = self._instance().core
        call = Call(core, self.node_id)
        program, writes = sql_program(core, call, sql, params, fetch_mode="all", validate=True)
        found: dict[str, Any] = await core.run(program, call, write=writes, holder=self.node_id)
        rows: list[dict[str, Any]] = found["data"]
        return rows


__all__ = ["BaseDataFlowNode"]
