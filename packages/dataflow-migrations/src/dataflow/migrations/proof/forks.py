"""Children that migrate, and kill themselves in the middle: forks of one warm process, so that a kill costs no imports.

``python -m dataflow.migrations.proof.forks`` reads a list of tasks as JSON from each line of stdin, forks a child for
each task, lets them go at the same instant, and prints how they ended. `Forks` is the other side.
"""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from importlib import import_module
from typing import Any, Self, TypeVar

from dataflow import DataFlow
from dataflow.core import Core
from dataflow.dialect import Command, Program, Step
from dataflow.migrations.proof.releases import CHANGES, Change, fill
from dataflow.plugins.manager import PluginSet
from dataflow.plugins.specs import load
from dataflow.session import through

T = TypeVar("T")
BATCH = 1_500
"""Rows of a batch, so that the table of notes is several."""


class Ended:
    """How a child ended.

    Attributes:
        killed: whether it was killed.
        told: what it told before; "error" where it raised, with the text.
    """

    def __init__(self, status: int, told: Mapping[str, Any]) -> None:
        self.killed = status == -signal.SIGKILL
        self.told = told


class Forks:
    """A warm process that forks children."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dataflow.migrations.proof.forks"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(BrokenPipeError):
            self._process.communicate(timeout=30)

    def start(self, *tasks: Mapping[str, Any]) -> None:
        """Fork a child for each task."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(tasks) + "\n")
        self._process.stdin.flush()

    def ended(self) -> list[Ended]:
        """Wait for the children that were started last."""
        assert self._process.stdout is not None
        return [Ended(status, told) for status, told in json.loads(self._process.stdout.readline())]

    def run(self, *tasks: Mapping[str, Any]) -> list[Ended]:
        """Start, and wait."""
        self.start(*tasks)
        return self.ended()


# -- in the warm process ----------------------------------------------------------------------------------------------
def main() -> None:
    """Fork children until stdin ends."""
    import dataflow.migrations.engine  # noqa: F401  # once, not in each child

    for dialect in PluginSet().dialects.values():
        load(dialect.dialect)
    with DataFlow(":memory:") as db:
        CHANGES["grow"].new(db)
        db.express_sync.count("Tag")
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_forked(json.loads(line))) + "\n")
        sys.stdout.flush()


def _forked(tasks: Sequence[Mapping[str, Any]]) -> list[tuple[int, Mapping[str, Any]]]:
    gate, opener = os.pipe()
    children = []
    for task in tasks:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(opener)
            os.read(gate, 1)
            try:
                asyncio.run(Child(task, writer).work())
            except BaseException as error:  # noqa: BLE001  # a fork must not go on with the loop above
                trace = traceback.format_exc()
                text = f"{type(error).__name__}: {error}"
                os.write(writer, json.dumps({"error": text, "trace": trace[-4000:]}).encode() + b"\n")
            os._exit(0)
        os.close(writer)
        children.append((child, reader))
    os.close(opener)
    os.close(gate)
    return [_waited(child, reader) for child, reader in children]


def _waited(child: int, reader: int) -> tuple[int, Mapping[str, Any]]:
    with os.fdopen(reader) as told:
        lines = told.read().splitlines()
    _, status = os.waitpid(child, 0)
    found: dict[str, Any] = {}
    for line in lines:
        found |= json.loads(line)
    return os.waitstatus_to_exitcode(status), found


# -- in a child -------------------------------------------------------------------------------------------------------
class Child:
    """What a child does.

    Args:
        task: ``url``, ``settings``, the name of a ``change``, what to ``do`` (see `work`), and where to ``kill`` it:
            ``number`` (of the statement) or ``sql`` (what is in it), and after how many seconds of it (``delay``); with
            ``trace``, it tells all statements.
        writer: the end of a pipe, for what it tells.
    """

    def __init__(self, task: Mapping[str, Any], writer: int) -> None:
        self.task = task
        self.writer = writer
        self.count = 0
        self.trace: list[str] = []

    @property
    def change(self) -> Change:
        """What changes."""
        return CHANGES[self.task["change"]]

    def tell(self, **what: Any) -> None:
        """Tell the process that has asked."""
        os.write(self.writer, json.dumps(what).encode() + b"\n")

    async def work(self) -> None:
        """Do what the task says: "prepare" the release before, "act", or "recover": act, and tell the state."""
        with suppress(ImportError):
            import_module("dataflow.postgres.migration.columns").BATCH = BATCH  # type: ignore[attr-defined]
        do = self.task["do"]
        if do == "prepare":
            await asyncio.to_thread(self._prepare)
            return
        if "kill" in self.task:
            self._watch(self.task["kill"])
        start = time.perf_counter()
        try:
            await self._act(self.task.get("act") or self.change.act)
        except Exception as error:  # noqa: BLE001  # the other side knows what may be
            self.tell(error=f"{type(error).__name__}: {error}", code=getattr(error, "code", ""))
        self.tell(statements=self.count, seconds=time.perf_counter() - start, trace=self.trace)
        if do == "recover":
            self.tell(**await asyncio.to_thread(self.state))

    def _open(self, stack: ExitStack, register: Any = None) -> DataFlow:
        db = stack.enter_context(DataFlow(self.task["url"], **self.task.get("settings", {})))
        (register or self.change.new)(db)
        return db

    def _prepare(self) -> None:
        change = self.change
        with ExitStack() as stack:
            if change.old is None:
                stack.enter_context(DataFlow(self.task["url"])).show_tables()
                return
            db = self._open(stack, change.old)
            fill(db, change.rows)
        if change.act == "undo":
            with ExitStack() as stack:
                db = self._open(stack)
                asyncio.run(self._migrate(db))

    async def _migrate(self, db: DataFlow) -> None:
        done, steps = await db.auto_migrate(auto_confirm=True, max_risk_level="CRITICAL", **self.change.wishes)
        self.tell(done=done, steps=len(steps))

    async def _act(self, act: str) -> None:
        async with DataFlow(self.task["url"], **self.task.get("settings", {})) as db:
            old = self.change.old
            (old if act == "use-old" and old is not None else self.change.new)(db)
            if act == "migrate":
                await self._migrate(db)
            elif act == "nothing":
                return
            elif act == "undo":
                await db.core.schema_engine.undo()
            else:
                await db.initialize()

    # -- killing ------------------------------------------------------------------------------------------------------
    def _watch(self, kill: Mapping[str, Any]) -> None:
        observe = Core.observe

        def watched(core: Core, program: Program[T]) -> Program[T]:
            return self._counted(observe(core, program), kill)

        setattr(Core, "observe", watched)  # noqa: B010  # what is tested has no hooks for tests

    def _counted(self, program: Program[T], kill: Mapping[str, Any]) -> Program[T]:
        def send(step: Step) -> Program[Any]:
            self.count += 1
            if kill.get("trace"):
                self.trace.append(step[0].sql[:100])
            if self.count == kill.get("number") or kill.get("sql", "\0") in step[0].sql:
                self._kill(step[0].sql, kill.get("delay"))
            return (yield step)

        return through(program, send)

    def _kill(self, sql: str, delay: float | None) -> None:
        self.tell(at=sql[:200], number=self.count)
        if delay is None:
            os.kill(os.getpid(), signal.SIGKILL)
        timer = threading.Timer(delay or 0, os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()

    # -- what is there ------------------------------------------------------------------------------------------------
    def state(self) -> dict[str, Any]:
        """Return all that is to be equal, with or without a crash."""
        with ExitStack() as stack:
            db = self._open(stack)
            core, engine = db.core, db.core.schema_engine
            found = core.ask(engine.editor.inspect(), write=True)
            registered = core.ask(engine.journal.registered())
            plan = engine.plan_sync()
            return {
                "schema": found.fingerprint,
                "catalog": json.dumps(found.to_dict(), sort_keys=True, default=str),
                "history": [entry.status for entry in engine.history_sync()],
                "running": [entry.status for entry in engine.history_sync() if entry.status == "running"],
                "registry": {
                    table: [each.model, each.ddl, sorted(each.owned.columns), sorted(each.owned.objects)]
                    for table, each in registered.items()
                },
                "rows": {name: core.ask(_digest(name, table.columns)) for name, table in found.tables.items()},
                "plan": [str(step) for step in plan.steps],
                "checks": core.ask(_checks(core.dialect.name)),
            }


def _digest(name: str, columns: Mapping[str, Any]) -> Program[str]:
    quoted = ", ".join('"' + column.replace('"', '""') + '"' for column in columns)
    rows = yield Command(f'SELECT {quoted} FROM "{name}" ORDER BY id'), ()  # noqa: S608
    told = hashlib.sha256()
    for row in rows:
        told.update(repr(tuple(row)).encode())
    return f"{len(rows)} {told.hexdigest()[:16]}"


def _checks(dialect: str) -> Program[list[Any]]:
    if dialect != "sqlite":
        rows = yield Command("SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"), ()
        return [tuple(row) for row in rows]
    found = [*(yield Command("PRAGMA integrity_check"), ()), *(yield Command("PRAGMA foreign_key_check"), ())]
    return [tuple(row) for row in found if tuple(row) != ("ok",)]


if __name__ == "__main__":
    main()
