"""class DataFlow: the facade users build, and `Core`, what one instance is made of.

A DataFlow holds its Core and nothing refers back to the DataFlow, so that an instance nobody uses any more is gone at
once, and with it its claim to node types.
"""

import gc
import os
import sys
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import attrs

from dataflow import _loop, config, naming
from dataflow.dialect import Command, Dialect, Program
from dataflow.errors import (
    ConfigurationError,
    InputError,
    MissingCapability,
    ModelError,
    NotYetAvailable,
    PluginConflictError,
    UsageError,
    suggest,
)
from dataflow.fields import ForeignKey, Relation
from dataflow.model import FEATURE_OPTIONS, ClassReader, ModelDraft, ModelSpec, forbid_instances
from dataflow.plan.bound import BoundModel, BoundRelation
from dataflow.plan.stages import ordered
from dataflow.plugins import specs
from dataflow.plugins.hints import extra_for
from dataflow.plugins.manager import PluginSet, plugin_set
from dataflow.session import CURRENT_RUN, Call, atomic

if TYPE_CHECKING:
    import sqlalchemy as sa

    from dataflow.express import Express, ExpressSync
    from dataflow.workflow import Workflow, WorkflowBuilder

T = TypeVar("T")
M = TypeVar("M", bound=type)
_INSTANCES: "weakref.WeakSet[DataFlow]" = weakref.WeakSet()
_ANNOUNCED: set[str] = set()


@attrs.define
class Stats:
    """Counters of one instance, filled while the setting `monitoring` is on."""

    statements: int = 0
    slow_statements: int = 0
    seconds: float = 0.0
    operations: dict[str, int] = attrs.field(factory=dict)


class Core:
    """The inside of one DataFlow.

    Attributes:
        config: frozen settings.
        plugins: active plugins.
        dialect: the database's dialect.
        database: its connections.
        models: name -> bound model.
        classes: name -> the user's class.
        node_types: node type -> (model or None, spec), of this instance's models and registered nodes.
        workflows: id -> registered workflow.
    """

    def __init__(self, settings: config.Config, plugins: PluginSet, dialect: Dialect) -> None:
        self.config = settings
        self.plugins = plugins
        self.dialect = dialect
        self.database = dialect.connect(settings.url, settings)
        self.models: dict[str, BoundModel] = {}
        self.classes: dict[str, type] = {}
        self.node_types: dict[str, tuple[BoundModel | None, specs.NodeSpec]] = {}
        self.workflows: dict[str, Any] = {}
        self.stats = Stats()
        self.lifespan = AsyncExitStack()
        self.started = False
        self.closed = False
        self._metadata: sa.MetaData | None = None
        self._waiting: dict[str, list[tuple[str, str, Relation]]] = {}
        self._observed = bool(settings["echo"] or settings["monitoring"])

    # -- registration ---------------------------------------------------------------------------------------------
    def register(self, cls: type, namespace: Mapping[str, Any], place: str) -> None:
        """Turn a class into a bound model with nodes.

        Raises:
            ModelError: the class, its name or its table cannot be used.
            MissingCapability: it asks for a feature that no plugin provides.
        """
        reader = ClassReader(
            cls,
            naive=self.config["naive_datetimes"],
            custom=self.plugins.resolve_annotation,
            model_options={name for scope, name in self.plugins.settings if scope == "model"},
            namespace=namespace,
            place=place,
        )
        draft = reader.read()
        features = self._features(draft)
        for feature in features:
            feature.extend_model(draft)
        spec = draft.freeze()
        if spec.name in self.models and self._same(spec):
            return
        self._refuse_clashes(spec)
        bound = BoundModel(self, spec, features)
        nodes: dict[Any, specs.NodeSpec] = self.plugins.descriptors(
            "dataflow_nodes", lambda node: node.type, model=spec, config=self.config
        )
        for node in nodes.values():
            self._refuse_taken_node(node.type, f"model {spec.name}")
        self.models[spec.name] = bound
        try:
            self._relate(bound)
        except ModelError:
            del self.models[spec.name]
            raise
        self.classes[spec.name] = cls
        for node in nodes.values():
            bound.nodes[node.type] = node
            self.node_types[node.type] = (bound, node)

    def _same(self, spec: ModelSpec) -> bool:
        return self.models[spec.name].spec == spec

    def _features(self, draft: ModelDraft) -> tuple[specs.Feature, ...]:
        found: list[specs.Feature] = []
        for option, hook in FEATURE_OPTIONS.items():
            answers = self.plugins.collect(hook, model=draft, config=self.config)
            if option == "audit_log":
                features = [feature for _, answer in answers for feature in answer]
            else:
                features = [answer for _, answer in answers]
                if len(features) > 1:
                    names = " and ".join(plugin for plugin, _ in answers)
                    msg = f"{option} of model {draft.name} is provided by two plugins: {names}"
                    raise PluginConflictError(msg, hint="disable one with DATAFLOW_DISABLE_PLUGINS")
            if draft.options.get(option) and not features:
                msg = f"model {draft.name} asks for {option}, which no active plugin provides"
                hint = extra_for("capability", option) or f"remove {option!r} from __dataflow__"
                raise MissingCapability(msg, hint=hint, where={"model": draft.name, "option": option})
            found += features
        for _, answer in self.plugins.collect("dataflow_features", model=draft, config=self.config):
            found += answer
        return ordered(found, draft.name)

    def _refuse_clashes(self, spec: ModelSpec) -> None:
        where = {"model": spec.name, **({"file": spec.place} if spec.place else {})}
        if spec.name in self.models:
            first = self.models[spec.name].spec.place
            msg = f"a different model {spec.name} is registered already" + (f" ({first})" if first else "")
            raise ModelError(
                msg, hint="rename one, or register it on another DataFlow", where=where, code="duplicate-model"
            )
        for other in self.models.values():
            if other.spec.table == spec.table:
                msg = f"the models {other.name} and {spec.name} share the table {spec.table!r}"
                hint = f"set __tablename__ on {spec.name}"
                raise ModelError(msg, hint=hint, where=where, code="duplicate-table")
        taken = {index.name: model.name for model in self.models.values() for index in model.spec.indexes}
        for index in spec.indexes:
            if index.name in taken:
                msg = f"the index name {index.name!r} is taken by model {taken[index.name]}"
                raise ModelError(
                    msg, hint="index names are global in a schema: rename it", where=where, code="duplicate-index"
                )
            taken[index.name] = spec.name

    def _refuse_taken_node(self, name: str, what: str) -> None:
        if name in self.node_types or name in self.plugins.workflow_nodes:
            msg = f"{what} would define the node type {name!r}, which exists already"
            raise ModelError(msg, hint="rename the model or the node", code="duplicate-node")

    # -- relations ------------------------------------------------------------------------------------------------
    def _relate(self, bound: BoundModel) -> None:
        """Connect a new model with those that are there, in both directions."""
        for name, field in bound.spec.fields.items():
            declared = field.relation
            if declared is None and name.endswith("_id") and field.origin == "user":
                declared = Relation(name.removesuffix("_id"))
            if declared is None:
                continue
            target = self._model_called(declared.model)
            if target is None:
                self._waiting.setdefault(_folded(declared.model), []).append((bound.name, name, declared))
            else:
                self._connect(bound, name, declared, target)
        for source, name, declared in self._waiting.pop(_folded(bound.name), []):
            if source in self.models:
                self._connect(self.models[source], name, declared, bound)

    def _model_called(self, name: str) -> BoundModel | None:
        folded = _folded(name)
        return next((model for model in self.models.values() if _folded(model.name) == folded), None)

    def _connect(self, source: BoundModel, field: str, declared: Relation, target: BoundModel) -> None:
        implicit = source.spec.fields[field].relation is None
        remote = declared.to or (target.spec.primary_key[0] if len(target.spec.primary_key) == 1 else None)
        if remote is None or remote not in target.fields:
            if implicit:
                return
            msg = f"{source.name}.{field} relates to {target.name}, whose key has several fields or which lacks {remote!r}"
            raise ModelError(
                msg,
                hint=f"name one field: {type(declared).__name__}({target.name!r}, to='…')",
                where={"model": source.name, "field": field},
            )
        if source.fields[field].type != target.fields[remote].type:
            if implicit:
                return
            msg = f"{source.name}.{field} is {source.fields[field].type}, and {target.name}.{remote} is {target.fields[remote].type}"
            raise ModelError(msg, hint="give both fields one type", where={"model": source.name, "field": field})
        name = declared.name or (field.removesuffix("_id") if field.endswith("_id") else None)
        if name is None:
            msg = f"the relation of {source.name}.{field} needs a name"
            hint = f"write {type(declared).__name__}({target.name!r}, name='…')"
            raise ModelError(msg, hint=hint, where={"model": source.name, "field": field})
        self._add_relation(
            source,
            BoundRelation(name, target.name, many=False, local=field, remote=remote),
            declared,
            implicit=implicit,
        )
        reverse = declared.reverse or naming.plural(naming.snake(source.name))
        back = BoundRelation(reverse, source.name, many=True, local=remote, remote=field)
        self._add_relation(target, back, declared, implicit=implicit)
        source.plans.clear()
        target.plans.clear()

    @staticmethod
    def _add_relation(model: BoundModel, relation: BoundRelation, declared: Relation, *, implicit: bool) -> None:
        if relation.name not in model.fields and relation.name not in model.relations:
            model.relations[relation.name] = relation
            return
        if implicit and relation.name in model.fields:
            return  # a field wins its name; the relation can be declared under another
        taken = "a field" if relation.name in model.fields else "another relation"
        msg = f"model {model.name} has {taken} called {relation.name!r}, which a relation with {relation.target} would take"
        which = "reverse" if relation.many else "name"
        hint = f"write Annotated[…, {type(declared).__name__}({declared.model!r}, {which}='…')]"
        raise ModelError(
            msg, hint=hint, where={"model": model.name, "relation": relation.name}, code="duplicate-relation"
        )

    # -- compilation ----------------------------------------------------------------------------------------------
    def table(self, bound: BoundModel) -> "sa.Table":
        """Build the SQLAlchemy table of a model, and of those its foreign keys lead to."""
        import sqlalchemy as sa  # the compiler loads when the first plan does

        from dataflow.schema import build_table

        if self._metadata is None:
            self._metadata = sa.MetaData()
        existing = self._metadata.tables.get(bound.spec.table)
        if existing is not None:
            return existing
        foreign = {}
        for relation in bound.relations.values():
            if not relation.many and isinstance(bound.spec.fields[relation.local].relation, ForeignKey):
                foreign[relation.local] = (self.models[relation.target].spec.table, relation.remote)
        table = build_table(bound.spec, self.dialect, self._metadata, foreign)
        for relation in bound.relations.values():
            if relation.local in foreign and not relation.many:
                _ = self.models[relation.target].table
        return table

    def bind_operation(self, bound: BoundModel, name: str) -> Any:
        """Return a new implementation object of an operation for a model."""
        for node in bound.nodes.values():
            if node.operation == name:
                return specs.load(node.implementation)(bound)
        known = [node.operation for node in bound.nodes.values()]
        close = suggest(name, known)
        msg = f"model {bound.name} has no operation {name!r}"
        raise InputError(msg, hint=f"did you mean {close!r}?" if close else f"operations: {', '.join(known)}")

    def model(self, name: str) -> BoundModel:
        """Return a model by name.

        Raises:
            InputError: it is not registered here.
        """
        found = self.models.get(name)
        if found is None:
            close = suggest(str(name), self.models)
            known = ", ".join(self.models) or "none yet"
            msg = f"no model {name!r} is registered on this DataFlow"
            raise InputError(
                msg, hint=f"did you mean {close!r}?" if close else f"models: {known}", code="unknown-model"
            )
        return found

    # -- schema ---------------------------------------------------------------------------------------------------
    def unready(self, models: Iterable[BoundModel]) -> list[BoundModel]:
        """Return the models whose tables are not known to exist, with all they are related to, in key order."""
        found: dict[str, BoundModel] = {}
        stack = [model for model in models if not model.ready]
        while stack:
            model = stack.pop()
            if model.name not in found and not model.ready:
                found[model.name] = model
                stack += [model.target(relation) for relation in model.relations.values()]
        if len(found) < 2:
            return list(found.values())
        tables = {model.table: model for model in found.values()}
        assert self._metadata is not None
        return [tables[table] for table in self._metadata.sorted_tables if table in tables]

    def _create(self, models: list[BoundModel], call: Call) -> Program[None]:
        from dataflow.schema import create_missing

        create = self.config["auto_migrate"] and not self.config["existing_schema_mode"]
        body = self._create_locked(create_missing(models, self.dialect, create=create), create=create)
        yield from atomic(call, body) if create else body
        for model in models:
            model.ready = True

    def _create_locked(self, body: Program[None], *, create: bool) -> Program[None]:
        if create:
            yield from self.dialect.schema_lock()
        yield from body

    async def ensure(self, models: Iterable[BoundModel]) -> None:
        """Create what is missing for these models, once."""
        todo = self.unready(models)
        if todo:
            call = Call(self)
            await self.run(self._create(todo, call), call, write=bool(self.config["auto_migrate"]), holder="schema")

    def ensure_blocking(self, models: Iterable[BoundModel]) -> None:
        """`ensure` in the calling thread."""
        todo = self.unready(models)
        if todo:
            call = Call(self)
            self.run_blocking(self._create(todo, call), call, write=bool(self.config["auto_migrate"]), holder="schema")

    # -- execution ------------------------------------------------------------------------------------------------
    def observe(self, program: Program[T]) -> Program[T]:
        """Wrap a program where SQL is logged or timed; every statement of the framework passes here."""
        return self._timed(program) if self._observed else program

    def _timed(self, program: Program[T]) -> Program[T]:
        from dataflow import _log

        limit = self.config["slow_query_threshold"] / 1000
        try:
            step: tuple[Command, Sequence[Any]] = next(program)
            while True:
                if self.config["echo"]:
                    _log.event("statement.sent", sql=step[0].sql)
                start = perf_counter()
                try:
                    reply = yield step
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001  # hand it to the program, which decides
                    step = program.throw(error)
                    continue
                taken = perf_counter() - start
                self.stats.statements += 1
                self.stats.seconds += taken
                if taken > limit and self.config["monitoring"]:
                    self.stats.slow_statements += 1
                    _log.event("statement.slow", sql=step[0].sql, milliseconds=round(taken * 1000, 1))
                step = program.send(reply)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        finally:
            program.close()

    async def run(self, program: Program[T], call: Call, *, write: bool, holder: str) -> T:
        """Run a program: in the open transaction of the surrounding run, else on a leased connection."""
        run = CURRENT_RUN.get()
        session = None if run is None else run.transactions.get(self)
        if session is not None:
            call.session = session
            result = await session.run(self.observe(program))
            assert run is not None
            run.after_commit += call.after_commit
            return result
        session = await self.database.lease(write=write, holder=holder)
        try:
            call.session = session
            result = await session.run(self.observe(program))
        finally:
            await session.release()
        for note in call.after_commit:
            note()
        return result

    def run_blocking(self, program: Program[T], call: Call, *, write: bool, holder: str) -> T:
        """`run` in the calling thread; only where the database allows it."""
        run = CURRENT_RUN.get()
        session = None if run is None else run.transactions.get(self)
        if session is not None:
            call.session = session
            result = session.run_blocking(self.observe(program))
            assert run is not None
            run.after_commit += call.after_commit
            return result
        session = self.database.lease_blocking(write=write, holder=holder)
        try:
            call.session = session
            result = session.run_blocking(self.observe(program))
        finally:
            session.release_blocking()
        for note in call.after_commit:
            note()
        return result

    def count(self, bound: BoundModel, operation: str) -> None:
        """Count an operation while `monitoring` is on."""
        if self.config["monitoring"]:
            key = f"{bound.name}.{operation}"
            self.stats.operations[key] = self.stats.operations.get(key, 0) + 1

    async def execute(self, bound: BoundModel, name: str, params: Mapping[str, Any]) -> Any:
        """Carry out one operation, outside a workflow."""
        if not bound.ready:
            await self.ensure([bound])
        operation = bound.operation(name)
        call = Call(self)
        self.count(bound, name)
        return await self.run(
            operation.program(params, call), call, write=operation.writes, holder=f"{bound.name}.{name}"
        )

    def execute_blocking(self, bound: BoundModel, name: str, params: Mapping[str, Any]) -> Any:
        """`execute` for synchronous callers: in the calling thread where possible, else on the background loop."""
        if not self.database.blocking:
            return _loop.run(self.execute(bound, name, params))
        if not bound.ready:
            self.ensure_blocking([bound])
        operation = bound.operation(name)
        call = Call(self)
        self.count(bound, name)
        return self.run_blocking(
            operation.program(params, call), call, write=operation.writes, holder=f"{bound.name}.{name}"
        )

    def ask(self, program: Program[T], *, write: bool = False) -> T:
        """Run a program of the schema or of doctor, synchronously."""
        call = Call(self)
        if self.database.blocking:
            return self.run_blocking(program, call, write=write, holder="schema")
        return _loop.run(self.run(program, call, write=write, holder="schema"))


def _folded(name: str) -> str:
    return name.replace("_", "").lower()


def _close_core(core: Core) -> None:
    if not core.closed:
        core.closed = True
        core.database.close_blocking()


class DataFlow:
    """A database with models, from which workflow nodes are generated.

    Args:
        database_url: URL; None reads ``DATABASE_URL``, else uses ``sqlite:///dataflow.db`` and says so.
        plugins: plugin modules or objects to use besides the installed ones.
        disable: names of installed plugins not to use.
        settings: see ``dataflow doctor --settings`` or `dataflow.config.CORE_SETTINGS`.

    Raises:
        ConfigurationError: the URL or a setting is wrong.
        PluginError: a plugin is broken or in conflict.
    """

    def __init__(
        self,
        database_url: str | None = None,
        *,
        plugins: Iterable[Any] = (),
        disable: Iterable[str] = (),
        **settings: Any,
    ) -> None:
        if database_url is not None and not isinstance(database_url, str):
            msg = f"the database URL is a str, got {type(database_url).__name__}"
            raise ConfigurationError(msg, hint="write DataFlow('sqlite:///app.db')", code="bad-url")
        active = plugin_set(plugins, disable)
        text = database_url or os.environ.get("DATABASE_URL") or _default_url()
        url = config.parse_url(text)
        spec = active.dialects.get(url.scheme)
        if spec is None:
            raise _unknown_scheme(url.scheme, active)
        frozen = config.read_settings(settings, active, url)
        dialect: Dialect = specs.load(spec.dialect)()
        dialect.capabilities = spec.capabilities
        for _plugin, _answer in active.collect("dataflow_configure", config=frozen):
            pass
        self._core = Core(frozen, active, dialect)
        self._finalizer = weakref.finalize(self, _close_core, self._core)
        self._finalizer.atexit = False  # the dialect closes what is idle when the interpreter ends
        _INSTANCES.add(self)

    def __repr__(self) -> str:
        state = " closed" if self._core.closed else ""
        return f"<DataFlow {self._core.config.url} models={list(self._core.models)}{state}>"

    @property
    def config(self) -> config.Config:
        """The frozen settings."""
        return self._core.config

    # -- models ---------------------------------------------------------------------------------------------------
    def model(self, cls: M) -> M:
        """Register an annotated class as a model (use as decorator) and generate its nodes.

        Raises:
            ModelError: the declaration is wrong.
            MissingCapability: it asks for a feature that no active plugin provides.
        """
        if not isinstance(cls, type):
            msg = f"@db.model decorates a class, got {type(cls).__name__}"
            raise ModelError(msg, hint="write @db.model above class User: …, without parentheses")
        self._open()
        frame = sys._getframe(1)  # noqa: SLF001  # annotations that are text may name locals of the caller
        known = cls.__module__ in sys.modules
        namespace = frame.f_locals if known else {**frame.f_globals, **frame.f_locals}
        place = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
        self._core.register(cls, namespace, place)
        forbid_instances(cls)
        return cls

    @property
    def models(self) -> dict[str, type]:
        """The registered models: name -> class."""
        return dict(self._core.classes)

    def list_models(self) -> list[str]:
        """Return the names of the registered models."""
        return list(self._core.models)

    def get_model(self, name: str) -> type:
        """Return the class of a model. Raises InputError if it is not registered."""
        return self._core.classes[self._core.model(name).name]

    def get_spec(self, name: str) -> ModelSpec:
        """Return the frozen `ModelSpec` of a model."""
        return self._core.model(name).spec

    # -- nodes and workflows ----------------------------------------------------------------------------------------
    def register_node(self, cls: M) -> M:
        """Register a custom node class (a `BaseDataFlowNode`) under its name; usable as decorator."""
        from dataflow.nodes import BaseDataFlowNode

        self._open()
        if not (isinstance(cls, type) and issubclass(cls, BaseDataFlowNode)):
            msg = f"a node class derives from BaseDataFlowNode; got {getattr(cls, '__name__', type(cls).__name__)}"
            raise InputError(msg, hint="write class MyNode(BaseDataFlowNode): …", code="bad-node")
        name = cls.__name__
        current = self._core.node_types.get(name)
        if current is not None and current[1].implementation is cls:
            return cls
        self._core._refuse_taken_node(name, "the node class")  # noqa: SLF001
        node = specs.NodeSpec(name, name, cls, outputs=cls.outputs, writes=True, doc=(cls.__doc__ or "").split("\n")[0])
        self._core.node_types[name] = (None, node)
        return cls

    def register_workflow(self, workflow_id: str, workflow: "Workflow | WorkflowBuilder") -> None:
        """Register a workflow under an id, for the command line. Raises InputError if the id is taken."""
        if workflow_id in self._core.workflows:
            msg = f"a workflow {workflow_id!r} is registered already"
            raise InputError(msg, hint="choose another id", code="duplicate-workflow")
        self._core.workflows[workflow_id] = workflow

    @property
    def workflows(self) -> dict[str, Any]:
        """The registered workflows: id -> workflow."""
        return dict(self._core.workflows)

    def workflow(self) -> "WorkflowBuilder":
        """Return a builder bound to this instance: its node types mean this database."""
        from dataflow.workflow import WorkflowBuilder

        return WorkflowBuilder(self)

    @property
    def express(self) -> "Express":
        """Direct calls without a workflow: ``await db.express.create("User", {…})``."""
        from dataflow.express import Express

        return Express(self)

    @property
    def express_sync(self) -> "ExpressSync":
        """The same for synchronous code: ``db.express_sync.create("User", {…})``."""
        from dataflow.express import ExpressSync

        return ExpressSync(self)

    # -- schema ---------------------------------------------------------------------------------------------------
    async def initialize(self) -> bool:
        """Create missing tables and start what plugins run alongside; True when all is ready."""
        self._open()
        core = self._core
        if not core.started:
            core.started = True
            for _, context in core.plugins.collect("dataflow_lifespan", db=self):
                await core.lifespan.enter_async_context(context)
        await core.ensure(core.models.values())
        return True

    def show_tables(self, *, use_real_inspection: bool = True) -> list[str]:
        """List the users' tables of the database, sorted; framework tables are left out."""
        self._real(use_real_inspection)
        return self._core.ask(self._core.dialect.list_tables())

    def discover_schema(self, *, use_real_inspection: bool = True) -> dict[str, dict[str, Any]]:
        """Return table -> ``{"columns": {name -> {type, nullable, primary_key, default}}}`` of the database."""
        self._real(use_real_inspection)
        return self._core.ask(self._discover())

    def _discover(self) -> Program[dict[str, dict[str, Any]]]:
        found = {}
        for table in (yield from self._core.dialect.list_tables()):
            columns = yield from self._core.dialect.list_columns(table)
            found[table] = {
                "columns": {c.name: {k: v for k, v in attrs.asdict(c).items() if k != "name"} for c in columns}
            }
        return found

    @staticmethod
    def _real(use_real_inspection: bool) -> None:  # noqa: FBT001
        if not use_real_inspection:
            msg = "use_real_inspection=False asks for invented data"
            raise ConfigurationError(msg, hint="leave it out: inspection is always real", code="bad-setting")

    def _migrations(self, what: str) -> Any:
        engine = self._core.plugins.migration_engines.get("schema")
        if engine is None:
            msg = f"{what} needs the migrations package, which is not installed"
            raise MissingCapability(msg, hint=extra_for("capability", "migrations") or "install it")
        return specs.load(engine.engine)(self)

    async def auto_migrate(self, **options: Any) -> tuple[bool, list[Any]]:
        """Preview and apply schema changes, by the migrations package.

        Raises:
            MissingCapability: it is not installed.
        """
        return await self._migrations("auto_migrate()").auto_migrate(**options)  # type: ignore[no-any-return]

    def register_schema_as_models(self, tables: Sequence[str] | None = None) -> dict[str, Any]:
        """Register existing tables as models, by the migrations package."""
        return self._migrations("register_schema_as_models()").register_schema_as_models(tables)  # type: ignore[no-any-return]

    def reconstruct_models_from_registry(self) -> dict[str, Any]:
        """Register models that an earlier process registered, by the migrations package."""
        return self._migrations("reconstruct_models_from_registry()").reconstruct_models_from_registry()  # type: ignore[no-any-return]

    @property
    def connection_manager(self) -> "DataFlow":
        """What migration classes take; the DataFlow itself."""
        return self

    # -- state ----------------------------------------------------------------------------------------------------
    def stats(self) -> dict[str, Any]:
        """Return counters: plans and compilations always; statements and operations while `monitoring` is on."""
        models = self._core.models.values()
        return {
            "models": len(models),
            "plans": sum(len(model.plans) for model in models),
            "compilations": sum(model.plans.compilations for model in models),
            **attrs.asdict(self._core.stats),
        }

    def health(self) -> dict[str, Any]:
        """Check the database and what plugins check: ``{"ok": bool, "checks": {name: {"ok": bool, …}}}``."""
        checks: dict[str, Any] = {}
        try:
            tables = self._core.ask(self._core.dialect.list_tables())
            checks["database"] = {"ok": True, "tables": len(tables), **self._core.database.describe()}
        except Exception as error:  # noqa: BLE001  # health reports faults, it does not raise them
            checks["database"] = {"ok": False, "error": str(error).split("\n")[0]}
        extra: Any = self._core.plugins.descriptors("dataflow_health", lambda check: check.name, db=self)
        for name, check in extra.items():
            try:
                checks[name] = _loop.run(check.check())
            except Exception as error:  # noqa: BLE001
                checks[name] = {"ok": False, "error": str(error).split("\n")[0]}
        return {"ok": all(check["ok"] for check in checks.values()), "checks": checks}

    def _open(self) -> None:
        if self._core.closed:
            msg = "this DataFlow is closed"
            raise UsageError(msg, hint="create a new one, or close it later", code="closed")

    def close(self) -> None:
        """Close the connections; operations after this raise UsageError. May be called twice."""
        if self._core.started:
            _loop.run(self._core.lifespan.aclose())
            self._core.started = False
        _INSTANCES.discard(self)
        _close_core(self._core)

    async def aclose(self) -> None:
        """Close the connections, on an event loop."""
        _INSTANCES.discard(self)
        if self._core.started:
            self._core.started = False
            await self._core.lifespan.aclose()
        if not self._core.closed:
            self._core.closed = True
            await self._core.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await self.initialize()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _default_url() -> str:
    path = os.path.abspath("dataflow.db")
    if path not in _ANNOUNCED:
        _ANNOUNCED.add(path)
        sys.stderr.write(f"dataflow: no DATABASE_URL, so data is kept in {path}\n")
    return "sqlite:///dataflow.db"


def _unknown_scheme(scheme: str, active: PluginSet) -> ConfigurationError:
    known = sorted(active.dialects)
    extra = extra_for("scheme", scheme)
    if extra:
        msg = f"no active plugin handles {scheme}:// URLs"
        return MissingCapability(msg, hint=extra, code="unknown-scheme")
    close = suggest(scheme, known)
    hint = f"did you mean {close}://?" if close else f"active schemes: {', '.join(f'{s}://' for s in known) or 'none'}"
    msg = f"no dialect is known for {scheme}:// URLs"
    return ConfigurationError(msg, hint=hint, code="unknown-scheme")


def live_instances() -> "list[DataFlow]":
    """Return the instances that are neither closed nor forgotten, oldest first."""
    return sorted((db for db in list(_INSTANCES) if not db._core.closed), key=lambda db: id(db._core))  # noqa: SLF001


def labels(db: DataFlow) -> set[str]:
    """Return the names by which ``database=`` may pick an instance: its name, database, file stem or host."""
    url = db.config.url
    return {label for label in (db.config["name"], url.database, url.host) if label}


def find_instance(label: str) -> DataFlow:
    """Pick the live instance that ``database=label`` means.

    Raises:
        InputError: none or several answer to the label.
    """
    found = [db for db in live_instances() if label in labels(db)]
    exact = [db for db in found if db.config["name"] == label]
    if len(exact) == 1:
        return exact[0]
    if len(found) == 1:
        return found[0]
    known = sorted({known for db in live_instances() for known in labels(db)})
    if not found:
        close = suggest(label, known)
        msg = f"no DataFlow instance answers to database={label!r}"
        hint = (
            f"did you mean {close!r}?"
            if close
            else f"known: {', '.join(known) or 'none'}; set DataFlow(…, name={label!r})"
        )
        raise InputError(msg, hint=hint, code="unknown-database")
    listed = "; ".join(map(repr, found))
    msg = f"database={label!r} fits several instances: {listed}"
    raise InputError(msg, hint="give each its own DataFlow(…, name=…)", code="ambiguous-database")


def forget_garbage() -> None:
    """Collect instances that only reference cycles keep alive, before calling a name ambiguous."""
    gc.collect()


__all__ = ["Core", "DataFlow", "NotYetAvailable", "find_instance", "live_instances"]
