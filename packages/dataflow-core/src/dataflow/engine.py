"""class DataFlow: the facade users build.

It holds its `Core` and nothing refers back to it, so that an instance nobody uses any more is gone at once, and with it
its claim to node types.
"""

import asyncio
import os
import sys
import weakref
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import attrs

from dataflow import _loop, config
from dataflow.dialect import Dialect, Program
from dataflow.errors import (
    ConfigurationError,
    InputError,
    MissingCapability,
    ModelError,
    UsageError,
    suggest,
)
from dataflow.model import ModelSpec, forbid_instances
from dataflow.plugins import specs
from dataflow.plugins.hints import extra_for
from dataflow.plugins.manager import PluginSet, plugin_set

if TYPE_CHECKING:
    from dataflow.workflow import Workflow, WorkflowBuilder

from dataflow import instances
from dataflow.core import Core
from dataflow.express import Express, ExpressSync
from dataflow.session import surroundings
from dataflow.surrounding import Surrounding, named, require

M = TypeVar("M", bound=type)
_ANNOUNCED: set[str] = set()


def _close_core(core: Core) -> None:
    core.closed = True
    core.database.close_blocking()  # also the second time: the first may have been refused


def _discard_core(core: Core) -> None:
    core.closed = True
    core.database.discard()


def _leave(core: Core) -> None:
    """Leave the contexts of plugins from synchronous code, on the loop where they were entered if that still runs."""
    home, core.started, core.home = core.home, False, None
    if home is not None and home.is_running():
        asyncio.run_coroutine_threadsafe(core.lifespan.aclose(), home).result()
    else:
        _loop.run(core.lifespan.aclose())


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class DataFlow:
    """A database with models, from which workflow nodes are generated.

    Args:
        database_url: URL; None reads ``DATABASE_URL``, else uses ``sqlite:///dataflow.db`` and says so.
        plugins: plugin modules or objects to use besides the installed ones.
        disable: names of installed plugins not to use.
        settings: see ``dataflow doctor --settings`` or `dataflow.config.CORE_SETTINGS`.

    Attributes:
        core: the inside of the instance, for plugins and runtimes.

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
        self.core = Core(frozen, active, dialect)
        self._finalizer = weakref.finalize(self, _discard_core, self.core)
        self._finalizer.atexit = False  # the dialect closes what is idle when the interpreter ends
        instances.add(self)

    def __repr__(self) -> str:
        state = " closed" if self.core.closed else ""
        return f"<DataFlow {self.core.config.url} models={list(self.core.models)}{state}>"

    @property
    def config(self) -> config.Config:
        """The frozen settings."""
        return self.core.config

    # -- models ---------------------------------------------------------------------------------------------------
    def model(self, cls: M = None) -> M:  # type: ignore[assignment]  # left out: an error that says so
        """Register an annotated class as a model (use as decorator) and generate its nodes.

        Raises:
            ModelError: the declaration is wrong.
            MissingCapability: it asks for a feature that no active plugin provides.
        """
        if not isinstance(cls, type):
            msg = f"@db.model decorates a class, got {'nothing' if cls is None else type(cls).__name__}"
            raise ModelError(msg, hint="write @db.model above class User: …, without parentheses")
        self._open()
        frame = sys._getframe(1)  # noqa: SLF001  # annotations that are text may name locals of the caller
        known = cls.__module__ in sys.modules
        namespace = frame.f_locals if known else {**frame.f_globals, **frame.f_locals}
        place = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
        self.core.register(cls, namespace, place)
        forbid_instances(cls)
        return cls

    @property
    def models(self) -> dict[str, type]:
        """The registered models: name -> class."""
        return dict(self.core.classes)

    def list_models(self) -> list[str]:
        """Return the names of the registered models."""
        return list(self.core.models)

    def get_model(self, name: str) -> type:
        """Return the class of a model. Raises InputError if it is not registered."""
        return self.core.classes[self.core.model(name).name]

    def get_spec(self, name: str) -> ModelSpec:
        """Return the frozen `ModelSpec` of a model."""
        return self.core.model(name).spec

    # -- nodes and workflows ----------------------------------------------------------------------------------------
    def register_node(self, cls: M) -> M:
        """Register a custom node class (a `BaseDataFlowNode`) under its name; usable as decorator."""
        from dataflow.nodes import BaseDataFlowNode

        self._open()
        if not (isinstance(cls, type) and issubclass(cls, BaseDataFlowNode)):
            msg = f"a node class derives from BaseDataFlowNode; got {getattr(cls, '__name__', type(cls).__name__)}"
            raise InputError(msg, hint="write class MyNode(BaseDataFlowNode): …", code="bad-node")
        name = cls.__name__
        current = self.core.node_types.get(name)
        if current is not None and current[1].implementation is cls:
            return cls
        self.core.refuse_taken_node(name, "the node class")
        node = specs.NodeSpec(name, name, cls, outputs=cls.outputs, writes=True, doc=(cls.__doc__ or "").split("\n")[0])
        self.core.node_types[name] = (None, node)
        return cls

    def register_workflow(self, workflow_id: str, workflow: "Workflow | WorkflowBuilder") -> None:
        """Register a workflow under an id, for the command line. Raises InputError if the id is taken."""
        if workflow_id in self.core.workflows:
            msg = f"a workflow {workflow_id!r} is registered already"
            raise InputError(msg, hint="choose another id", code="duplicate-workflow")
        self.core.workflows[workflow_id] = workflow

    @property
    def workflows(self) -> dict[str, Any]:
        """The registered workflows: id -> workflow."""
        return dict(self.core.workflows)

    def workflow(self) -> "WorkflowBuilder":
        """Return a builder bound to this instance: its node types mean this database."""
        from dataflow.workflow import WorkflowBuilder

        return WorkflowBuilder(self)

    @property
    def express(self) -> Express:
        """Direct calls without a workflow: ``await db.express.create("User", {…})``."""
        return Express(self)

    @property
    def express_sync(self) -> ExpressSync:
        """The same for synchronous code: ``db.express_sync.create("User", {…})``."""
        return ExpressSync(self)

    # -- surroundings -----------------------------------------------------------------------------------------------
    def tenant(self, tenant_id: str) -> Surrounding:
        """Let the calls of a block act for a tenant: ``with db.tenant("acme"):``, or ``async with``.

        Holds for the calling task or thread and what it starts; an inner block wins.

        Raises:
            MissingCapability: no active plugin provides tenancy.
        """
        require(self.core, "dataflow_tenancy", "multi_tenant")
        name = named(tenant_id, "a tenant's id", 'with db.tenant("acme"):')
        values = {"tenant": name, "all_tenants": None}
        if self.core.placed is not None:
            values["unlocked"] = None  # it was recorded in the log of another place, so it holds there only
        return Surrounding(self.core, values)

    def all_tenants(self, *, reason: str) -> Surrounding:
        """Let the calls of a block see the records of all tenants, for administrators; entering it is recorded.

        Args:
            reason: why; kept with the actor.

        Raises:
            MissingCapability: no active plugin provides tenancy.
        """
        require(self.core, "dataflow_tenancy", "multi_tenant")
        why = named(reason, "a reason", 'with db.all_tenants(reason="monthly invoices"):')
        return Surrounding(self.core, {"tenant": None, "all_tenants": why}, escape="all_tenants", reason=why)

    def actor(self, name: str) -> Surrounding:
        """Name who makes the changes of a block, for the audit log: ``with db.actor("alice"):``."""
        return Surrounding(self.core, {"actor": named(name, "an actor's name", 'with db.actor("alice"):')})

    def unlocked(self, *, reason: str) -> Surrounding:
        """Let the calls of a block pass the write protection; entering it is recorded.

        Args:
            reason: why; kept with the actor.

        Raises:
            MissingCapability: no active plugin provides write protection.
        """
        if ("instance", "protection") not in self.core.plugins.settings:
            msg = "no active plugin provides write protection"
            raise MissingCapability(msg, hint=extra_for("setting", "protection") or "leave the block out")
        why = named(reason, "a reason", 'with db.unlocked(reason="correct a price"):')
        return Surrounding(self.core, {"unlocked": why}, escape="unlocked", reason=why)

    # -- schema ---------------------------------------------------------------------------------------------------
    async def initialize(self) -> bool:
        """Create missing tables and start what plugins run alongside; True when all is ready."""
        self._open()
        core = self.core
        if not core.started:
            core.started = True
            await self._start()
        await core.ensure(core.models.values())
        return True

    async def _start(self) -> None:
        core = self.core
        try:
            async with AsyncExitStack() as entered:
                contexts = core.plugins.collect("dataflow_lifespan", db=self)
                for _, context in contexts:
                    await entered.enter_async_context(context)
                core.lifespan = entered.pop_all()
        except BaseException:
            core.started = False
            raise
        core.home = asyncio.get_running_loop() if contexts else None

    def show_tables(self, *, use_real_inspection: bool = True) -> list[str]:
        """List the users' tables of the database, sorted; framework tables are left out."""
        self._real(use_real_inspection)
        return self.core.ask(self.core.dialect.list_tables())

    def discover_schema(self, *, use_real_inspection: bool = True) -> dict[str, dict[str, Any]]:
        """Return table -> ``{"columns": {name -> {type, nullable, primary_key, default}}}`` of the database."""
        self._real(use_real_inspection)
        found = getattr(self.core.schema_engine, "discover_schema", lambda: None)()
        return self.core.ask(self._discover()) if found is None else found

    def _discover(self) -> Program[dict[str, dict[str, Any]]]:
        found = {}
        for table in (yield from self.core.dialect.list_tables()):
            columns = yield from self.core.dialect.list_columns(table)
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
        self._open()
        engine = self.core.schema_engine
        if engine is None:
            msg = f"{what} needs the migrations package, which is not installed"
            raise MissingCapability(msg, hint=extra_for("capability", "migrations") or "install it")
        return engine

    async def auto_migrate(self, **options: Any) -> tuple[bool, list[Any]]:
        """Preview and apply schema changes, by the migrations package, whose guide lists the options.

        Raises:
            MissingCapability: it is not installed.
        """
        return await self._migrations("auto_migrate()").auto_migrate(**options)  # type: ignore[no-any-return]

    def register_schema_as_models(self, tables: Sequence[str] | None = None, **options: Any) -> dict[str, Any]:
        """Register existing tables as models, by the migrations package."""
        return self._migrations("register_schema_as_models()").register_schema_as_models(tables, **options)  # type: ignore[no-any-return]

    def reconstruct_models_from_registry(self) -> dict[str, Any]:
        """Register models that an earlier process registered, by the migrations package."""
        return self._migrations("reconstruct_models_from_registry()").reconstruct_models_from_registry()  # type: ignore[no-any-return]

    @property
    def connection_manager(self) -> "DataFlow":
        """What migration classes take; the DataFlow itself."""
        return self

    # -- pictures -------------------------------------------------------------------------------------------------
    def to_mermaid(self) -> str:
        """Draw the models and their relations as a Mermaid ``erDiagram``."""
        from dataflow.pictures import models

        return models.to_mermaid(*models.drawn(self.core.models))

    def to_svg(self) -> str:
        """Draw the models and their relations as SVG."""
        from dataflow.pictures import models

        return models.to_svg(*models.drawn(self.core.models))

    def _repr_html_(self) -> str:
        return self.to_svg()

    # -- state ----------------------------------------------------------------------------------------------------
    def stats(self) -> dict[str, Any]:
        """Return counters: plans and compilations always; statements and operations while `monitoring` is on."""
        models = self.core.models.values()
        return {
            "models": len(models),
            "plans": sum(len(model.plans) for model in models),
            "compilations": sum(model.plans.compilations for model in models),
            **attrs.asdict(self.core.stats),
        }

    def health(self) -> dict[str, Any]:
        """Check the database and what plugins check: ``{"ok": bool, "checks": {name: {"ok": bool, …}}}``."""
        checks: dict[str, Any] = {}
        try:
            checks["database"] = self._check_database()
        except Exception as error:  # noqa: BLE001  # health reports faults, it does not raise them
            checks["database"] = {"ok": False, "error": str(error).split("\n")[0]}
        for name, check in self.core.plugins.health_checks(self).items():
            try:
                found = _loop.run(check.check())
                checks[name] = {**found, "ok": bool(found["ok"])}
            except Exception as error:  # noqa: BLE001
                checks[name] = {"ok": False, "error": str(error).split("\n")[0]}
        return {"ok": all(check["ok"] for check in checks.values()), "checks": checks}

    def _check_database(self) -> dict[str, Any]:
        core = self.core
        if core.placed is not None and core.around(surroundings(), "tenant") is None:
            return {"ok": True, **core.database.describe()}  # each tenant has its own, and no one's is meant
        tables = core.ask(core.dialect.list_tables())
        return {"ok": True, "tables": len(tables), **core.database.describe()}

    def _open(self) -> None:
        if self.core.closed:
            msg = "this DataFlow is closed"
            raise UsageError(msg, hint="create a new one, or close it later", code="closed")

    def close(self) -> None:
        """Stop what plugins run alongside and close the connections; operations after this raise UsageError.

        May be called twice.

        Raises:
            UsageError: what plugins run alongside belongs to the running event loop, which this call would stop.
        """
        core = self.core
        if core.home is not None and core.home is _running_loop():
            msg = "close() would stop the event loop on which plugins have to stop what they run"
            raise UsageError(msg, hint="await db.aclose(), or write async with DataFlow(…)", code="would-deadlock")
        instances.remove(self)
        try:
            if core.started:
                _leave(core)
        finally:
            _close_core(core)

    async def aclose(self) -> None:
        """`close`, on an event loop."""
        core = self.core
        instances.remove(self)
        try:
            if core.started:
                core.started, core.home = False, None
                await core.lifespan.aclose()
        finally:
            core.closed = True
            await core.database.close()

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
    close = suggest(scheme, known)
    hint = f"did you mean {close}://?" if close else f"active schemes: {', '.join(f'{s}://' for s in known) or 'none'}"
    msg = f"no active plugin handles {scheme}:// URLs" if extra else f"no dialect is known for {scheme}:// URLs"
    return MissingCapability(msg, hint=extra or hint, code="unknown-scheme")
