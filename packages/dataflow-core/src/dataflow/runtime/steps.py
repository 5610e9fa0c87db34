"""How a run proceeds, as a generator of effects: one description for both the blocking and the async driver.

Consecutive database nodes of one database are one program, which crosses to the connection's thread once. A connection
is given back before a node that is no database operation, unless a transaction scope is open.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

import attrs

from dataflow import _log
from dataflow.dialect import COUNT, Command, Program, Session
from dataflow.errors import DatabaseTimeout, DataFlowError, InputError, UsageError, WorkflowExecutionError
from dataflow.session import COMMIT, Call, Run, surroundings, undone
from dataflow.types import kind
from dataflow.workflow.tasks import DatabaseTask, PythonTask, ScopeTask, Task

if TYPE_CHECKING:
    from dataflow.core import Core

Progress = Callable[["NodeEvent"], None]


@attrs.frozen
class NodeEvent:
    """What `progress` callbacks get: a node started, was done, or failed.

    Attributes:
        node_id, node_type: the node.
        state: "running", "done" or "failed".
        seconds: how long it took; 0.0 when it starts.
        result: its outputs, when done.
    """

    node_id: str
    node_type: str
    state: str
    seconds: float = 0.0
    result: Mapping[str, Any] | None = None


@attrs.define(eq=False)
class Lease:
    """Effect: lease a connection; the reply is the session."""

    core: "Core"
    write: bool
    holder: str
    ambient: Mapping[Any, Any]


@attrs.define(eq=False)
class Drive:
    """Effect: run a program on a session; the reply is its result."""

    session: Session
    program: Program[Any]


@attrs.define(eq=False)
class Release:
    """Effect: give a session back, rolled back where a transaction is open."""

    session: Session


@attrs.define(eq=False)
class CallPython:
    """Effect: call a custom node; the reply is its result."""

    task: PythonTask
    inputs: Mapping[str, Any]


Effect = Lease | Drive | Release | CallPython
Steps = Generator[Effect, Any, None]


class NodeFailed(Exception):  # an internal signal
    """Carries the node that failed out of a program."""

    def __init__(self, task: Task, cause: BaseException) -> None:
        super().__init__(task.id)
        self.task = task
        self.cause = cause


_NOTHING: Mapping[str, Any] = {}


@attrs.define
class RunState:
    """One run under way.

    Attributes:
        run: its id, transactions and after-commit queue.
        results: node id -> outputs, filled as nodes are done.
        parameters: inputs of this run.
        deadline: instant (perf_counter) at which an open scope times out, or None.
        ambient: what surrounded the run when it started, for calls made on a connection's thread.
    """

    run: Run
    results: dict[str, Any]
    parameters: Mapping[str, Mapping[str, Any]]
    progress: Progress | None = None
    deadline: float | None = None
    ambient: Mapping[str, Any] = attrs.field(factory=surroundings)

    def inputs(self, task: Task) -> dict[str, Any]:
        """Gather the inputs of a node.

        Raises:
            InputError: an output that a connection names is not in the result.
        """
        try:
            return task.inputs(self.results, self.parameters.get(task.id, _NOTHING))
        except KeyError as error:
            wanted = next((w for w in task.wiring if w[1] == error.args[0]), ("?", str(error.args[0]), "?"))
            have = ", ".join(map(str, self.results[wanted[0]])) if wanted[0] in self.results else "nothing"
            msg = f"the result of node {wanted[0]!r} has no {wanted[1]!r}, which {task.id}.{wanted[2]} is connected to"
            raise InputError(msg, hint=f"it has: {have}", code="missing-output") from None

    def tell(self, task: Task, state: str, start: float = 0.0, result: Any = None) -> None:
        """Call the progress callback, if there is one."""
        if self.progress is None:
            return
        try:
            self.progress(NodeEvent(task.id, task.type, state, perf_counter() - start if start else 0.0, result))
        except Exception as error:  # noqa: BLE001  # watching a run does not change its outcome
            _log.event("progress.failed", node=task.id, error=f"{type(error).__name__}: {error}")


def chain(tasks: Sequence[DatabaseTask], state: RunState, session: Session, *, scoped: bool) -> Program[int]:
    """Run database nodes one after another in one program; return how many were done.

    It stops early when somebody waits for the connection, so that a long workflow does not starve others.
    """
    core, run, watched = tasks[0].core, state.run, state.progress is not None
    assert core is not None
    for done, task in enumerate(tasks, 1):
        call = Call(core, task.id, ambient=state.ambient, run=run)
        call.session = session
        start = 0.0
        if watched:
            start = perf_counter()
            state.tell(task, "running")
        try:
            program = core.supervise(task.program(state.inputs(task), call), call)
            result = yield from undone(program, f"df_node_{session.depth}") if scoped else program
        except GeneratorExit:
            raise
        except BaseException as error:
            if not scoped:  # what is left is of transactions that the node has committed
                run.remember(core, call.after_commit)
            state.tell(task, "failed", start)
            if task.bound is not None and isinstance(error, DataFlowError):
                error.at(model=task.bound.name, operation=task.spec.operation)
            raise NodeFailed(task, error) from error
        state.results[task.id] = result
        if call.after_commit:
            run.remember(core, call.after_commit)
        if task.bound is not None:
            core.count(task.bound, task.spec.operation)
        if watched:
            state.tell(task, "done", start, result)
        if not scoped and session.contended and done < len(tasks):
            return done
    return len(tasks)


def _begin(scope: ScopeTask, session: Session) -> Program[None]:
    assert scope.core is not None
    yield scope.core.dialect.begin(scope.options.isolation_level, write=True), ()
    session.depth = 1


def _end(session: Session, command: Command) -> Program[None]:
    yield command, ()
    session.depth = 0


def _send(sql: str) -> Program[None]:
    yield Command(sql, COUNT), ()


def steps(stretches: Sequence[Sequence[Task]], state: RunState) -> Steps:
    """Run the stretches of a workflow in order.

    Raises:
        NodeFailed: a node failed; open transactions are rolled back, or committed where their scope says so.
    """
    scopes: dict[Core, ScopeTask] = {}
    try:
        for stretch in stretches:
            first = stretch[0]
            if isinstance(first, ScopeTask):
                yield from _open_scope(first, state, scopes)
            elif isinstance(first, DatabaseTask):
                yield from _database(stretch, state, scopes)  # type: ignore[arg-type]
            elif isinstance(first, PythonTask):
                yield from _python(first, state, scopes)
    except GeneratorExit:  # nobody drives the run any more
        _abandon(state, scopes)
        raise
    except BaseException as error:
        yield from _end_scopes(error, state, scopes)
        if isinstance(error, DatabaseTimeout) and error.code == "scope-timeout":
            raise NodeFailed(next(reversed(scopes.values())), error) from error
        raise


def _end_scopes(error: BaseException, state: RunState, scopes: "dict[Core, ScopeTask]") -> Steps:
    """Roll open transactions back, or commit them where their scope says so and a node failed."""
    for core, scope in list(scopes.items()):
        session = state.run.transactions.pop(core)
        cause = error.cause if isinstance(error, NodeFailed) else error
        try:
            if cause is not error and isinstance(cause, Exception) and not scope.options.rollback_on_error:
                yield Drive(session, _end(session, COMMIT))
            else:  # as well where the run was interrupted
                session.depth = 0
                state.run.rolled_back(core)
        except DataFlowError as lost:
            cause.add_note(f"what {scope.id!r} had done before could not be kept: {lost.message}")
            state.run.rolled_back(core)
        except BaseException:
            state.run.rolled_back(core)
            raise
        finally:
            yield from _give_back(session, state, core)


def _give_back(session: Session, state: RunState, core: "Core") -> Steps:
    """Release a connection, and do what was to follow its commits, even where the release is interrupted."""
    try:
        yield Release(session)
    finally:
        state.run.committed(core)


def _abandon(state: RunState, scopes: "dict[Core, ScopeTask]") -> None:
    for core in scopes:
        state.run.rolled_back(core)
        state.run.transactions.pop(core).abandon()


def _open_scope(scope: ScopeTask, state: RunState, scopes: "dict[Core, ScopeTask]") -> Steps:
    core = scope.core
    assert core is not None
    if state.run.outer is not None and state.run.outer.joined(core) is not None:
        msg = "the run was started inside a transaction of the same database, so it cannot open its own"
        raise NodeFailed(
            scope, UsageError(msg, hint="leave TransactionScopeNode out: the run belongs to the outer one")
        )
    start = perf_counter()
    state.tell(scope, "running")
    try:
        session: Session = yield Lease(core, True, f"transaction {scope.id}", state.ambient)
    except DataFlowError as error:
        raise NodeFailed(scope, error) from error
    try:
        yield Drive(session, _begin(scope, session))
    except GeneratorExit:  # nobody drives the run any more
        session.abandon()
        raise
    except BaseException as error:
        yield Release(session)
        raise NodeFailed(scope, error) from error
    state.run.transactions[core] = session
    scopes[core] = scope
    if scope.options.timeout is not None:
        state.deadline = start + scope.options.timeout
    level = scope.options.isolation_level
    assert scope.db is not None
    state.results[scope.id] = {"database": scope.db.config.url.database, "isolation_level": level}
    state.tell(scope, "done", start, state.results[scope.id])
    if scope.last == scope.id:
        yield from _close_scope(core, state, scopes)


def _close_scope(core: "Core", state: RunState, scopes: "dict[Core, ScopeTask]") -> Steps:
    session = state.run.transactions[core]
    scope = scopes[core]
    if state.deadline is not None and perf_counter() > state.deadline:
        raise NodeFailed(
            scope,
            DatabaseTimeout(
                f"the transaction took longer than {scope.options.timeout:g} s", hint="raise timeout (seconds)"
            ),
        )
    try:
        yield Drive(session, _end(session, COMMIT))
    except BaseException as error:
        raise NodeFailed(scope, error) from error
    del state.run.transactions[core], scopes[core]
    state.deadline = None
    yield from _give_back(session, state, core)


def _database(stretch: Sequence[DatabaseTask], state: RunState, scopes: "dict[Core, ScopeTask]") -> Steps:
    core = stretch[0].core
    assert core is not None
    while stretch:
        scope = scopes.get(core)
        surrounding = core.joined(state.run.outer, state.ambient)
        if scope is None and surrounding is not None:  # started by a node inside a transaction: part of it
            yield Drive(surrounding, core.observe(chain(stretch, state, surrounding, scoped=True)))
            return
        if scope is not None:
            ids = [task.id for task in stretch]
            upto = ids.index(scope.last) + 1 if scope.last in ids else len(ids)
            session = state.run.transactions[core]
            yield Drive(session, core.observe(chain(stretch[:upto], state, session, scoped=True)))
            if scope.last in ids:
                yield from _close_scope(core, state, scopes)
            stretch = stretch[upto:]
            continue
        write = any(task.writes for task in stretch)
        try:
            session = yield Lease(core, write, f"node {stretch[0].id}", state.ambient)
        except DataFlowError as error:
            raise NodeFailed(stretch[0], error) from error
        try:
            done = yield Drive(session, core.observe(chain(stretch, state, session, scoped=False)))
        except GeneratorExit:  # nobody drives the run any more
            session.abandon()
            raise
        except BaseException:
            yield from _give_back(session, state, core)
            raise
        yield from _give_back(session, state, core)
        stretch = stretch[done:]


def _python(task: PythonTask, state: RunState, scopes: "dict[Core, ScopeTask]") -> Steps:
    start = perf_counter()
    core = task.core
    scope = None if core is None else scopes.get(core)
    session = state.run.transactions[core] if scope is not None and not scope.options.rollback_on_error else None
    noted = len(state.run.after_commit.get(core, ()))
    state.tell(task, "running")
    if session is not None:  # what the node writes before it fails must not be committed with the rest
        yield Drive(session, _send("SAVEPOINT df_python"))
    try:
        result = yield CallPython(task, state.inputs(task))
        if result is None:
            result = {}
        if isinstance(result, list):  # the rows of run_custom_query(), returned as they are
            result = {"result": result}
        if not isinstance(result, Mapping):
            msg = f"{task.type} returned {kind(result)}; a node returns a dict of outputs"
            raise InputError(msg, hint="write return {'result': value}", code="bad-result")
        if session is not None:
            yield Drive(session, _send("RELEASE SAVEPOINT df_python"))
    except GeneratorExit:
        raise
    except BaseException as error:
        state.tell(task, "failed", start)
        if session is not None:
            yield Drive(session, _send("ROLLBACK TO SAVEPOINT df_python"))
            del state.run.after_commit.get(core, [])[noted:]
        raise NodeFailed(task, error) from error
    state.results[task.id] = with_whole(result)
    state.tell(task, "done", start, result)
    if core is not None and scope is not None and scope.last == task.id:
        yield from _close_scope(core, state, scopes)


class _Whole(dict[str, Any]):
    """A custom node's result: `result` means the whole, unless it is an output of its own."""

    def __missing__(self, key: str) -> Any:
        if key in ("result", "_result"):
            return self
        raise KeyError(key)


def with_whole(result: Mapping[str, Any]) -> dict[str, Any]:
    """Let connections take the whole result as `result`."""
    return result if isinstance(result, dict) and "result" in result else _Whole(result)


def execution_error(failed: NodeFailed, state: RunState) -> WorkflowExecutionError:
    """Build the error of a run from the node that failed."""
    cause = failed.cause
    what = cause.message if isinstance(cause, DataFlowError) else f"{type(cause).__name__}: {cause}"
    hint = cause.hint if isinstance(cause, DataFlowError) else ""
    error = WorkflowExecutionError(
        f"node {failed.task.id!r} failed: {what}",
        node_id=failed.task.id,
        node_type=failed.task.type,
        run_id=state.run.id,
        results=state.results,
        hint=hint,
    )
    if isinstance(cause, DataFlowError):
        error.problems = cause.problems
        error.where = {**error.where, **cause.where}
    error.__cause__ = cause
    return error


__all__ = ["NodeEvent", "RunState", "execution_error", "steps"]
