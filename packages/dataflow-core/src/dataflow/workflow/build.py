"""`build()`: every problem of a workflow at once, then the frozen `Workflow`."""

import heapq
import re
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

from dataflow.canonical import MAX_DEPTH
from dataflow.errors import DataFlowError, Problem, WorkflowBuildError, suggest
from dataflow.nodes.scope import ScopeNode
from dataflow.workflow.graph import Connection, NodeRecord
from dataflow.workflow.resolve import Resolver
from dataflow.workflow.tasks import CONTROL, DatabaseTask, ScopeTask, Task
from dataflow.workflow.workflow import Workflow

if TYPE_CHECKING:
    from dataflow.engine import DataFlow

_TEMPLATE = re.compile(r"\$\{\s*([A-Za-z_][\w-]*)\.([\w.]+)\s*\}")


def build(nodes: Sequence[NodeRecord], connections: Sequence[Connection], db: "DataFlow | None") -> Workflow:
    """Check and resolve a workflow.

    Raises:
        WorkflowBuildError: listing all problems.
    """
    problems: list[Problem] = []
    tasks = _tasks(nodes, db, problems)
    ids = [record.id for record in nodes]
    known = set(ids)
    _check_templates(nodes, known, problems)
    sound = _check_connections(connections, tasks, known, problems)
    order = _order(ids, sound, problems)
    if not problems:
        _wire(tasks, sound)
        _scopes([tasks[node] for node in order], sound, problems)
    if problems:
        count = len(problems)
        msg = f"the workflow has {count} problem{'s' * (count > 1)}"
        raise WorkflowBuildError(msg, problems=problems)
    inputs = _open_inputs(tasks, sound)
    return Workflow(tuple(nodes), tuple(connections), tuple(tasks[node] for node in order), inputs)


def _tasks(nodes: Sequence[NodeRecord], db: "DataFlow | None", problems: list[Problem]) -> dict[str, Task]:
    resolver = Resolver(db)
    tasks: dict[str, Task] = {}
    seen: set[str] = set()
    for record in nodes:
        where = {"node": record.id, "type": record.type_name}
        if record.id in seen:
            problems.append(Problem("duplicate-id", f"two nodes are called {record.id!r}", "rename one", where))
            continue
        seen.add(record.id)
        try:
            task = resolver.task(record)
            tasks[record.id] = task
            faults = task.check()
        except DataFlowError as error:
            problems.append(_placed(Problem(error.code, error.message, error.hint, where), record))
            continue
        problems += [_placed(fault, record) for fault in faults]
    return tasks


def _placed(problem: Problem, record: NodeRecord) -> Problem:
    """Name the node in a problem."""
    where = {"node": record.id, "type": record.type_name, **problem.where}
    return Problem(problem.code, f"node {record.id!r} ({record.type_name}): {problem.message}", problem.hint, where)


def _check_templates(nodes: Sequence[NodeRecord], known: set[str], problems: list[Problem]) -> None:
    for record in nodes:
        for path, text in _texts(record.params, ""):
            for source, output in _TEMPLATE.findall(text):
                if source in known:
                    name, _, inner = path.partition(".")
                    line = f'workflow.add_connection("{source}", "{output}", "{record.id}", "{name}")'
                    hint = f"leave {name} out and write {line}"
                    if inner:
                        hint = (
                            f"a connection fills a whole input: let a node of your own return {name}, and connect that"
                        )
                    message = f"{path} holds the template ${{{source}.{output}}}, which is not replaced"
                    _drop_values_of(record, {*path.split(".")}, problems)
                    problems.append(_placed(Problem("template", message, hint), record))


def _drop_values_of(record: NodeRecord, fields: set[str], problems: list[Problem]) -> None:
    """Take back what was said of a value that is a template: its type is not the point."""
    problems[:] = [
        problem
        for problem in problems
        if not (
            problem.code == "wrong-value"
            and problem.where.get("node") == record.id
            and str(problem.where.get("field")) in fields
        )
    ]


def _texts(value: Any, path: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        if "${" in value:
            yield path, value
    elif depth == MAX_DEPTH:
        return
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(item, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(value, list) and len(value) <= 1000:  # rows of data are not templates
        for item in value:
            yield from _texts(item, path, depth + 1)


def _check_connections(
    connections: Sequence[Connection], tasks: Mapping[str, Task], known: set[str], problems: list[Problem]
) -> list[Connection]:
    """Return the connections between existing nodes."""
    sound = []
    taken: dict[tuple[str, str], Connection] = {}
    for connection in connections:
        ends_exist = True
        for end in (connection.source, connection.target):
            if end not in known:
                ends_exist = False
                close = suggest(end, known)
                hint = f"did you mean {close!r}?" if close else f"nodes: {', '.join(sorted(known)) or 'none'}"
                problems.append(Problem("unknown-node-id", f"connection {connection}: there is no node {end!r}", hint))
        if not ends_exist:
            continue
        sound.append(connection)
        _check_ports(connection, tasks, problems)
        key = (connection.target, connection.input)
        if CONTROL.get(connection.input) == "input" and not _is_parameter(
            tasks.get(connection.target), connection.input
        ):
            continue
        if key in taken:
            message = f"two connections lead into {connection.target}.{connection.input}: {taken[key]} and {connection}"
            problems.append(Problem("two-connections", message, "remove one of them"))
        taken[key] = connection
    return sound


def _is_parameter(task: Task | None, name: str) -> bool:
    return task is not None and task.spec.model is not None and task.accepts(name)


def _check_ports(connection: Connection, tasks: Mapping[str, Task], problems: list[Problem]) -> None:
    source, target = tasks.get(connection.source), tasks.get(connection.target)
    if source is not None and not source.gives(connection.output):
        outputs = [*(source.spec.outputs or ()), "result"]
        close = suggest(connection.output, outputs)
        hint = f"did you mean {close!r}?" if close else f"outputs: {', '.join(outputs)}"
        message = f"connection {connection}: {source.type} has no output {connection.output!r}"
        problems.append(Problem("unknown-output", message, hint))
    if target is not None and not target.accepts(connection.input) and CONTROL.get(connection.input) != "input":
        names = [*sorted(target.parameters), "input"]
        close = suggest(connection.input, names)
        hint = f"did you mean {close!r}?" if close else f"inputs: {', '.join(names)}"
        if CONTROL.get(connection.input) == "database":
            hint = "the database is fixed by build(): give it in params"
        message = f"connection {connection}: {target.type} has no input {connection.input!r}"
        problems.append(Problem("unknown-input", message, hint))


def _order(ids: Sequence[str], connections: Sequence[Connection], problems: list[Problem]) -> list[str]:
    """Order nodes: after what they depend on, else as they were added."""
    position = {node: index for index, node in reversed(list(enumerate(ids)))}
    sorter: TopologicalSorter[str] = TopologicalSorter({node: set() for node in ids})
    for connection in connections:
        sorter.add(connection.target, connection.source)
    try:
        sorter.prepare()
    except CycleError as error:
        path = " -> ".join(error.args[1])
        problems.append(Problem("cycle", f"the connections form a cycle: {path}", "remove one of them"))
        return []
    order: list[str] = []
    ready: list[int] = []
    while sorter.is_active():
        for node in sorter.get_ready():
            heapq.heappush(ready, position[node])
        node = ids[heapq.heappop(ready)]
        order.append(node)
        sorter.done(node)
    return order


def _wire(tasks: Mapping[str, Task], connections: Sequence[Connection]) -> None:
    wires: dict[str, list[tuple[str, str, str]]] = {}
    for connection in connections:
        target = tasks[connection.target]
        if CONTROL.get(connection.input) == "input" and not _is_parameter(target, connection.input):
            continue
        wires.setdefault(connection.target, []).append((connection.source, connection.output, connection.input))
    for node, wiring in wires.items():
        tasks[node].wiring = tuple(wiring)


def _scopes(order: list[Task], connections: Sequence[Connection], problems: list[Problem]) -> None:
    """Find the members of each transaction scope, and nodes that would run inside without belonging."""
    position = {task.id: index for index, task in enumerate(order)}
    followers: dict[str, list[str]] = {}
    for connection in connections:
        followers.setdefault(connection.source, []).append(connection.target)
    inside: dict[str, str] = {}
    for scope in order:
        if not isinstance(scope, ScopeTask):
            continue
        after = order[position[scope.id] + 1 :]
        if scope.id in followers:
            reached = _reach(scope.id, followers)
            after = [task for task in after if task.id in reached]
        if not _settle(scope, after, problems):
            continue
        members = [task for task in after if not isinstance(task, ScopeTask) and task.core is scope.core]
        if not members:
            problems.append(_empty(scope))
            continue
        scope.members = tuple(task.id for task in members)
        scope.last = members[-1].id
        for task in order[position[scope.id] + 1 : position[scope.last]]:
            same = isinstance(task, ScopeTask) or (isinstance(task, DatabaseTask) and _one_database(task, scope))
            if same and task.id not in scope.members:
                message = f"node {task.id!r} would run inside the transaction {scope.id!r} without belonging to it"
                line = f'add_connection("{scope.id}", "result", "{task.id}", "input")'
                hint = f"connect it: {line}, or move it before the scope"
                problems.append(Problem("inside-scope", message, hint, {"node": task.id, "scope": scope.id}))
        for member in scope.members:
            if member in inside:
                message = f"node {member!r} belongs to two transactions: {inside[member]!r} and {scope.id!r}"
                problems.append(Problem("two-scopes", message, "connect it to one of them", {"node": member}))
            inside[member] = scope.id


def _empty(scope: ScopeTask) -> Problem:
    message = f"node {scope.id!r} (TransactionScopeNode): no database node comes after it"
    hint = "remove it, or add it before the nodes it should hold together"
    return Problem("empty-scope", message, hint, {"node": scope.id})


def _one_database(one: Task, other: Task) -> bool:
    """Tell whether two nodes meet in one database, maybe through two instances."""
    here, there = one.core, other.core
    if here is None or there is None or here is there:
        return here is there
    identity = here.dialect.identity(here.config.url)
    return bool(identity) and identity == there.dialect.identity(there.config.url)


def _settle(scope: ScopeTask, after: list[Task], problems: list[Problem]) -> bool:
    """Choose the scope's database and read its options."""
    if scope.db is None:
        databases = {task.core: task.db for task in after if isinstance(task, DatabaseTask)}
        databases = databases or {task.core: task.db for task in after if task.core is not None}
        if len(databases) > 1:
            message = f"node {scope.id!r} (TransactionScopeNode): the nodes after it use several databases"
            problems.append(
                Problem("ambiguous-database", message, "say which: params {'database': name}", {"node": scope.id})
            )
            return False
        if not databases:
            problems.append(_empty(scope))
            return False
        scope.db = next(iter(databases.values()))
    assert scope.core is not None
    try:
        scope.options = ScopeNode.read(scope.constants, scope.core.dialect)
    except DataFlowError as error:
        message = f"node {scope.id!r} (TransactionScopeNode): {error.message}"
        problems.append(Problem(error.code, message, error.hint, {"node": scope.id}))
        return False
    return True


def _reach(start: str, followers: Mapping[str, list[str]]) -> set[str]:
    found: set[str] = set()
    stack = list(followers.get(start, ()))
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack += followers.get(node, ())
    return found


def _open_inputs(tasks: Mapping[str, Task], connections: Sequence[Connection]) -> dict[str, tuple[str, ...]]:
    """Return node -> required inputs that only `execute(parameters=…)` can supply."""
    connected: dict[str, set[str]] = {}
    for connection in connections:
        connected.setdefault(connection.target, set()).add(connection.input)
    found = {}
    for node, task in tasks.items():
        missing = task.missing(set(task.constants) | connected.get(node, set()))
        if missing:
            found[node] = tuple(missing)
    return found
