"""The local runtimes: synchronous callers and event loops, one description of a run, two drivers.

A synchronous run stays in the calling thread where every node allows it, else it goes to the background loop.
"""

import asyncio
import contextlib
import inspect
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextvars import copy_context
from types import TracebackType
from typing import Any, Self

from dataflow import _loop
from dataflow.errors import ConfigurationError, DatabaseTimeout, InputError
from dataflow.runtime.results import RunResults
from dataflow.runtime.steps import (
    CallPython,
    Drive,
    Effect,
    Lease,
    NodeFailed,
    Progress,
    Release,
    RunState,
    Steps,
    execution_error,
    steps,
)
from dataflow.session import CURRENT_NODE, CURRENT_RUN, Run
from dataflow.surrounding import Surrounding, named
from dataflow.workflow import Workflow, WorkflowBuilder
from dataflow.workflow.tasks import ScopeTask, Task, stretches

Parameters = Mapping[str, Mapping[str, Any]] | None
Results = dict[str, Any]


def _checked(workflow: Any) -> Workflow:
    if isinstance(workflow, Workflow):
        return workflow
    if isinstance(workflow, WorkflowBuilder):
        msg = "a WorkflowBuilder cannot be executed; build it first"
        raise InputError(msg, hint="runtime.execute(workflow.build())", code="not-built")
    msg = f"execute takes a Workflow, got {type(workflow).__name__}"
    raise InputError(msg, hint="runtime.execute(workflow.build())", code="not-built")


class _Options:
    """What both runtimes are configured with."""

    def __init__(
        self, *, max_concurrency: int = 1, timeout: float | None = None, progress: Progress | None = None
    ) -> None:
        if type(max_concurrency) is not int or max_concurrency < 1:
            msg = "max_concurrency is a whole number of at least 1"
            raise ConfigurationError(
                msg, hint="1 runs nodes one after another; more allows parallel branches", code="bad-setting"
            )
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or timeout <= 0):
            msg = "timeout is a number of seconds above 0"
            raise ConfigurationError(msg, hint="write timeout=30", code="bad-setting")
        self.max_concurrency = max_concurrency
        self.timeout = timeout
        self.progress = progress


class AsyncLocalRuntime(_Options):
    """Runs workflows on the running event loop; may be shared by concurrent tasks.

    Args:
        max_concurrency: how many branches may run at once; 1 keeps the order in which nodes were added.
        timeout: seconds for a whole run, or None.
        progress: called with a `NodeEvent` when a node starts and ends, maybe from another thread.
    """

    async def execute_async(
        self, workflow: Workflow, parameters: Parameters = None, *, actor: str | None = None
    ) -> tuple[Results, str]:
        """Run a workflow: (node id -> outputs, run id).

        Cancelling it interrupts the statement under way and rolls open transactions back.

        Args:
            workflow: what to run.
            parameters: node id -> inputs.
            actor: who makes the changes of the run, for the audit log; by default whom `with db.actor(…)` names.

        Raises:
            InputError: the parameters are wrong; nothing was run.
            WorkflowExecutionError: a node failed.
            DatabaseTimeout: the run took longer than `timeout`.
        """
        checked = _checked(workflow)
        with _acting(checked, actor):
            return await self._execute(checked, parameters)

    async def _execute(self, checked: Workflow, parameters: Parameters) -> tuple[Results, str]:
        given = checked.check_parameters(parameters)
        state = RunState(Run(uuid.uuid4().hex), RunResults(), given, self.progress)
        limit = contextlib.nullcontext() if self.timeout is None else asyncio.timeout(self.timeout)
        try:
            async with limit:
                await _ensure(checked)
                if self.max_concurrency == 1:
                    await _drive(steps(checked.stretches, state), state)
                else:
                    await _branches(checked, state, self.max_concurrency)
        except TimeoutError as error:
            if not isinstance(limit, asyncio.Timeout) or not limit.expired():
                raise
            msg = f"the run took longer than {self.timeout:g} s and was cancelled"
            raise DatabaseTimeout(
                msg, hint="raise the runtime's timeout (seconds)", where={"run": state.run.id}
            ) from error
        except NodeFailed as failed:
            raise execution_error(failed, state) from failed.cause
        return state.results, state.run.id

    execute_workflow_async = execute_async

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class LocalRuntime(_Options):
    """Runs workflows for synchronous callers: scripts, threads, notebooks; may be shared by threads.

    Args:
        max_concurrency: how many branches may run at once; 1 keeps the order in which nodes were added.
        timeout: seconds for a whole run, or None.
        progress: called with a `NodeEvent` when a node starts and ends, maybe from another thread.
    """

    def execute(
        self, workflow: Workflow, parameters: Parameters = None, *, actor: str | None = None
    ) -> tuple[Results, str]:
        """Run a workflow: (node id -> outputs, run id).

        Args:
            workflow: what to run.
            parameters: node id -> inputs.
            actor: who makes the changes of the run, for the audit log; by default whom `with db.actor(…)` names.

        Raises:
            InputError: the parameters are wrong; nothing was run.
            WorkflowExecutionError: a node failed.
            DatabaseTimeout: the run took longer than `timeout`.
            UsageError: called where waiting would stop the loop that has to do the work.
        """
        checked = _checked(workflow)
        if self.max_concurrency > 1 or self.timeout is not None or not checked.blocking:
            runtime = AsyncLocalRuntime(
                max_concurrency=self.max_concurrency, timeout=self.timeout, progress=self.progress
            )
            return _loop.run(runtime.execute_async(checked, parameters, actor=actor))
        with _acting(checked, actor):
            return self._execute(checked, parameters)

    def _execute(self, checked: Workflow, parameters: Parameters) -> tuple[Results, str]:
        given = checked.check_parameters(parameters)
        state = RunState(Run(uuid.uuid4().hex), RunResults(), given, self.progress)
        _ensure_blocking(checked)
        try:
            copy_context().run(_drive_blocking, steps(checked.stretches, state), state)
        except NodeFailed as failed:
            raise execution_error(failed, state) from failed.cause
        return state.results, state.run.id

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


def _acting(workflow: Workflow, actor: str | None) -> contextlib.ExitStack:
    """Name who makes the changes of a run, on all of its databases."""
    stack = contextlib.ExitStack()
    if actor is not None:
        known = named(actor, "an actor's name", "actor='alice'")
        for core in {task.core for task in workflow.tasks if task.core is not None}:
            stack.enter_context(Surrounding(core, {"actor": known}))
    return stack


def _models(workflow: Workflow) -> dict[Any, list[Any]]:
    """Return database -> models whose tables a run needs and which are not known to exist."""
    found: dict[Any, list[Any]] = {}
    for model in workflow.models:
        if not model.ready:
            found.setdefault(model.core, []).append(model)
    return found


async def _ensure(workflow: Workflow) -> None:
    for core, models in _models(workflow).items():
        await core.ensure(models)


def _ensure_blocking(workflow: Workflow) -> None:
    for core, models in _models(workflow).items():
        core.ensure_blocking(models)


# -- the two drivers --------------------------------------------------------------------------------------------------
def _pass_interruption(failed: NodeFailed) -> None:
    """Raise what interrupted a node (Ctrl-C, cancellation, exit) as it is: the node did not fail."""
    if not isinstance(failed.cause, Exception):
        raise failed.cause from None


def _drive_blocking(run: Steps, state: RunState) -> None:
    CURRENT_RUN.set(state.run)  # in a context of its own
    try:
        effect = next(run)
        while True:
            try:
                reply = _perform_blocking(effect)
            except BaseException as error:  # noqa: BLE001  # the run decides what it means
                effect = run.throw(error)
            else:
                effect = run.send(reply)
    except StopIteration:
        return
    except NodeFailed as failed:
        _pass_interruption(failed)
        raise


def _perform_blocking(effect: Effect) -> Any:
    if isinstance(effect, Drive):
        return effect.session.run_blocking(effect.program)
    if isinstance(effect, Lease):
        return effect.core.lease_blocking(write=effect.write, holder=effect.holder, ambient=effect.ambient)
    if isinstance(effect, Release):
        return effect.session.release_blocking()
    with _inside(effect.task):
        found = effect.task.call(effect.inputs, caller_thread=True)
        if inspect.isawaitable(found):
            return _loop.run(_awaited(found))
    return found


@contextlib.contextmanager
def _inside(task: Task) -> Iterator[None]:
    """Let calls know which node makes them."""
    outer = CURRENT_NODE.set(task.id)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # collected in another context, because its loop was closed meanwhile
            CURRENT_NODE.reset(outer)


async def _awaited(found: Any) -> Any:
    return await found


async def _drive(run: Steps, state: RunState) -> None:
    outer = CURRENT_RUN.set(state.run)
    try:
        effect = next(run)
        while True:
            try:
                reply = await _perform(effect, state)
            except BaseException as error:  # noqa: BLE001  # the run decides what it means
                effect = run.throw(error)
            else:
                effect = run.send(reply)
    except StopIteration:
        return
    except NodeFailed as failed:
        _pass_interruption(failed)
        raise
    finally:
        with contextlib.suppress(ValueError):  # collected in another context, because its loop was closed meanwhile
            CURRENT_RUN.reset(outer)


async def _perform(effect: Effect, state: RunState) -> Any:
    if isinstance(effect, Release):
        return await effect.session.release()
    if state.deadline is None:
        return await _do(effect)
    try:
        async with asyncio.timeout(max(state.deadline - time.perf_counter(), 0.0)):
            try:
                return await _do(effect)
            except NodeFailed as failed:  # the timeout must see that it was its cancellation that the node failed with
                _pass_interruption(failed)
                raise
    except TimeoutError as error:
        msg = "the transaction took longer than its scope's timeout"
        hint = "raise the timeout of TransactionScopeNode (seconds)"
        raise DatabaseTimeout(msg, hint=hint, code="scope-timeout") from error


async def _do(effect: Effect) -> Any:
    if isinstance(effect, Drive):
        return await effect.session.run(effect.program)
    if isinstance(effect, Lease):
        return await effect.core.lease(write=effect.write, holder=effect.holder, ambient=effect.ambient)
    assert isinstance(effect, CallPython)
    return await _call(effect)


async def _call(effect: CallPython) -> Any:
    task = effect.task
    with _inside(task):
        if task.is_async or not task.cls.blocking:
            found = task.call(effect.inputs, caller_thread=False)
        else:
            found = await _in_thread(effect)
        return await found if inspect.isawaitable(found) else found


async def _in_thread(effect: CallPython) -> Any:
    """Call a blocking node in a thread of its own.

    asyncio's own threads would not do: there are few of them, so that nodes which run workflows could wait for each
    other for ever, and the interpreter does not end before they do.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()
    context = copy_context()

    def settle(found: Any, error: BaseException | None) -> None:
        if done.done():
            return  # cancelled
        if error is None:
            done.set_result(found)
        else:
            done.set_exception(error)

    def work() -> None:
        found: Any = None
        error: BaseException | None = None
        try:
            found = context.run(effect.task.call, effect.inputs, caller_thread=False)
        except StopIteration as stop:  # a future cannot carry it
            error = RuntimeError("the node raised StopIteration")
            error.__cause__ = stop
        except BaseException as raised:  # noqa: BLE001  # the run decides what it means
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(settle, found, error)

    threading.Thread(target=work, name=f"dataflow-{effect.task.id}", daemon=True).start()
    return await done


# -- parallel branches ------------------------------------------------------------------------------------------------
def _units(workflow: Workflow) -> list[list[Task]]:
    """Cut the order into units: a transaction with all that runs inside it, or a single node."""
    units: list[list[Task]] = []
    last = ""
    for task in workflow.tasks:
        if last:
            units[-1].append(task)
            last = "" if task.id == last else last
            continue
        units.append([task])
        if isinstance(task, ScopeTask) and task.last != task.id:
            last = task.last
    return units


async def _branches(workflow: Workflow, state: RunState, most: int) -> None:
    """Run units as soon as what they depend on is done, at most `most` at once."""
    units = _units(workflow)
    unit_of = {task.id: index for index, unit in enumerate(units) for task in unit}
    needs: list[set[int]] = [set() for _ in units]
    for connection in workflow.connections:
        source, target = unit_of[connection.source], unit_of[connection.target]
        if source != target:
            needs[target].add(source)
    done = [asyncio.Event() for _ in units]
    slots = asyncio.Semaphore(most)

    async def one(index: int) -> None:
        for needed in needs[index]:
            await done[needed].wait()
        async with slots:
            run = Run(state.run.id)
            branch = RunState(run, state.results, state.parameters, state.progress)
            await _drive(steps(stretches(units[index]), branch), branch)
        done[index].set()

    try:
        async with asyncio.TaskGroup() as group:
            for index in range(len(units)):
                group.create_task(one(index))
    except BaseExceptionGroup as failures:
        for failure in failures.exceptions:
            if isinstance(failure, NodeFailed):
                raise failure from failure.cause
        raise failures.exceptions[0] from None
