"""Core: what one DataFlow is made of. Gets tables ready, and runs programs on leased connections.

Knows nothing of the facade that users hold, nor of workflows.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack
from functools import cached_property, partial
from itertools import count
from time import perf_counter
from typing import Any, TypeVar

import attrs

from dataflow import _loop, config
from dataflow.dialect import Command, Dialect, Program, Step
from dataflow.errors import DataFlowError
from dataflow.fields import ForeignKey
from dataflow.plan.bound import BoundModel
from dataflow.plugins import specs
from dataflow.plugins.manager import PluginSet
from dataflow.registering import Registering
from dataflow.session import CURRENT_RUN, ITSELF, Call, atomic, notify, surroundings, through, undone

T = TypeVar("T")
_NUMBERS = count()


@attrs.define
class Stats:
    """Counters of one instance, filled while the setting `monitoring` is on."""

    statements: int = 0
    slow_statements: int = 0
    seconds: float = 0.0
    operations: dict[str, int] = attrs.field(factory=dict)


class Core(Registering):
    """The inside of one DataFlow.

    Attributes:
        config: frozen settings.
        plugins: active plugins.
        dialect: the database's dialect.
        database: its connections.
        workflows: id -> registered workflow.
        lifespan: what plugins run alongside, entered on the loop `home`.
        number: counts the instances of this process.
    """

    def __init__(self, settings: config.Config, plugins: PluginSet, dialect: Dialect) -> None:
        self.config = settings
        self.plugins = plugins
        self.dialect = dialect
        connect = dialect.trial if settings["tdd_mode"] else dialect.connect
        self.database = connect(settings.url, settings)
        self._begin()
        self.workflows: dict[str, Any] = {}
        self.stats = Stats()
        self.lifespan = AsyncExitStack()
        self.home: asyncio.AbstractEventLoop | None = None
        self.started = False
        self.closed = False
        self.number = next(_NUMBERS)
        self._post(plugins.guards(settings))
        self._ready: dict[Any, set[str]] = {}
        self._monitored = bool(settings["monitoring"])
        self._observed = self._told = bool(settings["echo"] or settings["monitoring"])
        self._watchers: tuple[Callable[[Command], None], ...] = ()
        self._wake()

    # -- schema ---------------------------------------------------------------------------------------------------
    def unready(self, models: Iterable[BoundModel], place: Any = None) -> list[BoundModel]:
        """Return the models whose tables are not known to exist, with all they are related to, in key order.

        Args:
            models: the models that are to be used.
            place: in which tenant's database or schema, where each has its own.
        """
        ready = self._ready.get(place, ())
        found: dict[str, BoundModel] = {}
        stack = [model for model in (self.models.values() if self.confined else models) if not model.ready]
        while stack:
            model = stack.pop()
            if model.name not in found and not model.ready and model.name not in ready:
                found[model.name] = model
                stack += [model.target(relation) for relation in model.relations.values()]
        return self.in_key_order(found.values())

    def in_key_order(self, models: Iterable[BoundModel]) -> list[BoundModel]:
        """Return models so that what their foreign keys lead to comes first, as far as there is such an order."""
        found = {model.name: model for model in models}
        order: dict[str, BoundModel] = {}

        def settle(model: BoundModel, above: tuple[str, ...]) -> None:
            for relation in model.relations.values():
                target = found.get(relation.target)
                strict = not relation.many and isinstance(model.spec.fields[relation.local].relation, ForeignKey)
                if strict and target is not None and target.name not in above:  # a cycle has no right order
                    settle(target, (*above, target.name))
            order.setdefault(model.name, model)

        for name in self.models:
            if name in found:
                settle(found[name], (name,))
        return list(order.values())

    @property
    def _creates(self) -> bool:
        return self.config["auto_migrate"] and not self.config["existing_schema_mode"]

    @cached_property
    def schema_engine(self) -> Any:
        """The migration engine of the role "schema", or None."""
        found = self.plugins.migration_engines.get("schema")
        return None if found is None else specs.load(found.engine)(self)

    @property
    def _column_hint(self) -> str:
        """How a missing column can be added; "" where the package for that is not installed."""
        spec = self.plugins.dialects.get(self.config.url.scheme)
        if self.schema_engine is None and spec is not None and spec.schema_editor is None:
            return f"the dialect {self.dialect.name} has no schema editor that would do it"
        return str(getattr(self.schema_engine, "hint", ""))

    def _look(self, models: list[BoundModel], call: Call) -> Program[str]:
        """Check what is there: "" if nothing has to be done, "create" or "migrate"."""
        from dataflow.schema import create_missing, lacks

        engine, todo = self.schema_engine, ""
        if self._creates:
            if hasattr(engine, "look"):
                todo = yield from engine.look(models)
            elif (yield from lacks(models, self.dialect)):
                todo = "create"
        if todo:
            self.permit_schema_change(call)
            return todo
        yield from create_missing(models, self.dialect, create=False, hint=self._column_hint)
        call.after_commit.append(partial(self._now_ready, models, call))
        return ""

    def permit_schema_change(self, call: Call) -> None:
        """Let guards refuse that the schema is changed, by raising."""
        for guard in self.guards:
            if hasattr(guard, "schema"):
                guard.schema(self, call.ambient)

    def _create(self, models: list[BoundModel], call: Call) -> Program[None]:
        yield from atomic(call, self._create_locked(models))
        call.after_commit.append(partial(self._now_ready, models, call))

    def _migrate(self, models: list[BoundModel], call: Call) -> Program[None]:
        yield from self.schema_engine.bring(models, call)
        call.after_commit.append(partial(self._now_ready, models, call))

    def forget_tables(self) -> None:
        """Look again whether tables are there when models are next used: some may have been undone."""
        self._ready.clear()
        for model in self.models.values():
            model.ready = False

    def _now_ready(self, models: list[BoundModel], call: Call) -> None:
        if self.placed is not None:
            place = self.placed.place(self, call.ambient)
            self._ready.setdefault(place, set()).update(model.name for model in models)
            return
        for model in models:
            model.ready = True

    def own_call(self) -> Call:
        """Return a call of the framework itself, with all privileges: on the schema, or on logs."""
        return Call(self, ambient={**surroundings(), **ITSELF})

    def _schema_call(self) -> tuple[Call, Any]:
        """Return a call that may change the schema, and in which tenant's place it does."""
        return self.own_call(), self.placed and self.placed.place(self, surroundings())

    def _create_locked(self, models: list[BoundModel]) -> Program[None]:
        from dataflow.schema import create_missing

        yield from self.dialect.schema_lock()
        yield from self.dialect.before_tables([model.spec for model in models])
        if hasattr(self.schema_engine, "create"):
            yield from self.schema_engine.create(models)
        else:
            yield from create_missing(models, self.dialect, create=True, hint=self._column_hint)

    async def ensure(self, models: Iterable[BoundModel]) -> None:
        """Create what is missing for these models, once."""
        call, place = self._schema_call()
        todo = self.unready(models, place)
        what = await self.run(self._look(todo, call), call, write=False, holder="schema") if todo else ""
        if what:
            change = self._migrate if what == "migrate" else self._create
            await self.run(change(todo, call), call, write=True, holder="schema")

    def ensure_blocking(self, models: Iterable[BoundModel]) -> None:
        """`ensure` in the calling thread."""
        call, place = self._schema_call()
        todo = self.unready(models, place)
        what = self.run_blocking(self._look(todo, call), call, write=False, holder="schema") if todo else ""
        if what:
            change = self._migrate if what == "migrate" else self._create
            self.run_blocking(change(todo, call), call, write=True, holder="schema")

    def tell(self, event: str, **keys: Any) -> None:
        """Log an event named ``noun.verb`` where statements are logged or timed; never values of rows."""
        if self._told:
            from dataflow import _log

            _log.event(event, **keys)

    # -- execution ------------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def observing(self, see: Callable[[Command], None]) -> Iterator[None]:
        """Let a function see every command that is sent while the context is open, from whatever thread or task."""
        self._watchers = (*self._watchers, see)
        self._observed = True
        try:
            yield
        finally:
            self._watchers = tuple(watcher for watcher in self._watchers if watcher is not see)
            self._observed = self._told or bool(self._watchers)

    def observe(self, program: Program[T]) -> Program[T]:
        """Wrap a program where SQL is logged or timed; every statement of the framework passes here."""
        return self._timed(program) if self._observed else program

    def _timed(self, program: Program[T]) -> Program[T]:
        from dataflow import _log

        limit = self.config["slow_query_threshold"] / 1000

        def send(step: Step) -> Program[Any]:
            if self.config["echo"]:
                _log.event("statement.sent", sql=step[0].sql)
            for see in self._watchers:
                see(step[0])
            start = perf_counter()
            reply = yield step
            taken = perf_counter() - start
            if self._told:
                self.stats.statements += 1
                self.stats.seconds += taken
            if taken > limit and self.config["monitoring"]:
                self.stats.slow_statements += 1
                _log.event("statement.slow", sql=step[0].sql, milliseconds=round(taken * 1000, 1))
            return reply

        return through(program, send)

    def _apart(self, program: Program[T], call: Call) -> Program[T]:
        """Keep a failing call from spoiling the transaction it joined, where a failed statement does."""
        return undone(program, f"df_node_{call.session.depth}") if self.dialect.aborts_on_error else program

    async def run(self, program: Program[T], call: Call, *, write: bool, holder: str) -> T:
        """Run a program: in the open transaction of the surrounding run, else on a leased connection."""
        program = self.supervise(program, call)
        run = CURRENT_RUN.get()
        session = self.joined(run, call.ambient)
        if session is not None:
            call.session = session
            result = await session.run(self.observe(self._apart(program, call)))
            assert run is not None
            run.remember(self, call.after_commit)
            return result
        session = await self.lease(write=write, holder=holder, ambient=call.ambient)
        try:
            call.session = session
            result = await session.run(self.observe(program))
        finally:
            try:
                await session.release()
            finally:  # what was committed is, even where the release is interrupted
                notify(call.after_commit)
        return result

    def run_blocking(self, program: Program[T], call: Call, *, write: bool, holder: str) -> T:
        """`run` in the calling thread; only where the database allows it."""
        program = self.supervise(program, call)
        run = CURRENT_RUN.get()
        session = self.joined(run, call.ambient)
        if session is not None:
            call.session = session
            result = session.run_blocking(self.observe(self._apart(program, call)))
            assert run is not None
            run.remember(self, call.after_commit)
            return result
        session = self.lease_blocking(write=write, holder=holder, ambient=call.ambient)
        try:
            call.session = session
            result = session.run_blocking(self.observe(program))
        finally:
            session.release_blocking()
            notify(call.after_commit)
        return result

    def count(self, bound: BoundModel, operation: str) -> None:
        """Count an operation while `monitoring` is on."""
        if self._monitored:
            key = f"{bound.name}.{operation}"
            self.stats.operations[key] = self.stats.operations.get(key, 0) + 1

    async def execute(self, bound: BoundModel, name: str, params: Mapping[str, Any]) -> Any:
        """Carry out one operation, outside a workflow."""
        if not bound.ready:
            await self.ensure([bound])
        operation = bound.operation(name)
        call = Call(self)
        self.count(bound, name)
        try:
            return await self.run(
                operation.program(params, call), call, write=operation.writes, holder=f"{bound.name}.{name}"
            )
        except DataFlowError as error:
            error.at(model=bound.name, operation=name)
            raise

    def execute_blocking(self, bound: BoundModel, name: str, params: Mapping[str, Any]) -> Any:
        """`execute` for synchronous callers: in the calling thread where possible, else on the background loop."""
        if not self.database.blocking:
            return _loop.run(self.execute(bound, name, params))
        if not bound.ready:
            self.ensure_blocking([bound])
        operation = bound.operation(name)
        call = Call(self)
        self.count(bound, name)
        try:
            return self.run_blocking(
                operation.program(params, call), call, write=operation.writes, holder=f"{bound.name}.{name}"
            )
        except DataFlowError as error:
            error.at(model=bound.name, operation=name)
            raise

    def ensure_sync(self, models: Iterable[BoundModel]) -> None:
        """`ensure` for synchronous callers: in the calling thread where possible, else on the background loop."""
        if self.database.blocking:
            self.ensure_blocking(models)
        else:
            _loop.run(self.ensure(models))

    def run_sync(self, program: Program[T], call: Call, *, write: bool, holder: str) -> T:
        """`run` for synchronous callers: in the calling thread where possible, else on the background loop."""
        if self.database.blocking:
            return self.run_blocking(program, call, write=write, holder=holder)
        return _loop.run(self.run(program, call, write=write, holder=holder))

    def ask(self, program: Program[T], *, write: bool = False) -> T:
        """Run a program of the schema or of doctor, synchronously."""
        return self.run_sync(program, self.own_call(), write=write, holder="schema")
