"""The plugin loader: finds plugins by entry point, loads what is wanted, and says exactly what is wrong.

Not pluggy's own loader: that one aborts all plugins when one is broken, and takes a misspelt hook in silence.
Nothing here is called while an operation runs.
"""

import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache, partial
from importlib.metadata import Distribution, entry_points
from typing import Any, TypeVar

import attrs
import pluggy

from dataflow.errors import (
    ConfigurationError,
    DataFlowError,
    PluginConflictError,
    PluginError,
    PluginLoadError,
    suggest,
)
from dataflow.plugins import hookspecs, specs

GROUP = "dataflow.plugins"
CORE = "core"
"""Name of core's own plugin, which is always active."""
HOOKS = tuple(name for name in vars(hookspecs) if name.startswith("dataflow_"))
"""Every hook there is."""
_ONE_FEATURE = frozenset({"dataflow_tenancy", "dataflow_soft_delete", "dataflow_versioning"})
_GUARD = ("name", "confines", "exclusive", "privileged", "context", "sql", "escape")
_FEATURE = ("name", "stage", "before", "after", "capability", "extend_model", "extend_plan")
_DESCRIPTORS: Mapping[str, tuple[type, Callable[[Any], list[str]]]] = {
    "dataflow_settings": (
        specs.SettingSpec,
        lambda s: [f"{'model option' if s.scope == 'model' else 'setting'} {s.name!r}"],
    ),
    "dataflow_dialects": (
        specs.DialectSpec,
        lambda d: [f"dialect {d.name!r}", *(f"URL scheme {scheme!r}" for scheme in d.schemes)],
    ),
    "dataflow_field_types": (specs.FieldTypeSpec, lambda f: [f"field type for {_annotation(f)}"]),
    "dataflow_nodes": (specs.NodeSpec, lambda n: [f"node type {n.type!r}", f"operation {n.operation!r} of {n.model}"]),
    "dataflow_workflow_nodes": (specs.NodeSpec, lambda n: [f"node type {n.type!r}"]),
    "dataflow_runtimes": (specs.RuntimeSpec, lambda r: [f"runtime {r.name!r}"]),
    "dataflow_migration_engines": (specs.MigrationEngineSpec, lambda e: [f"migration engine for {e.role!r}"]),
    "dataflow_schema_rules": (specs.SchemaRuleSpec, lambda r: [f"schema rule {r.name!r}"]),
    "dataflow_backends": (specs.BackendSpec, lambda b: [f"{b.kind} backend for {b.scheme}://"]),
    "dataflow_health": (specs.HealthCheck, lambda h: [f"health check {h.name!r}"]),
    "dataflow_commands": (specs.CommandSpec, lambda c: [f"command {c.name!r}"]),
}
"""Hook -> (what it returns, what of it no two plugins may provide)."""
T = TypeVar("T")


def _annotation(spec: specs.FieldTypeSpec) -> str:
    annotation = specs.load(spec.annotation)
    return getattr(annotation, "__qualname__", repr(annotation))


def _not_a_feature(item: Any) -> str:
    lacking = [name for name in _FEATURE if not hasattr(item, name)]
    return f"{type(item).__name__}, which is no Feature: it lacks {', '.join(lacking)}" if lacking else ""


def _not_a_guard(item: Any) -> str:
    lacking = [name for name in _GUARD if not hasattr(item, name)]
    return f"{type(item).__name__}, which is no Guard: it lacks {', '.join(lacking)}" if lacking else ""


@attrs.frozen
class PluginInfo:
    """What is known of one plugin.

    Attributes:
        name: its entry-point name, or the name it was passed under.
        distribution: "name version" of the package it came from; "" for plugins passed as objects.
        state: "active", "disabled", or "broken".
        reason: why it is not active.
        hooks: the hooks it implements.
    """

    name: str
    distribution: str
    state: str
    reason: str = ""
    hooks: tuple[str, ...] = ()


class _Candidate:
    """A plugin to load; what is known of its distribution is read only when it is told, for that takes milliseconds."""

    def __init__(self, name: str, load: Callable[[], Any], *, installed: Distribution | str | None = None) -> None:
        self.name = name
        self.load = load
        self.installed = installed

    @cached_property
    def distribution(self) -> str:
        """Name and version of what it comes from; "" for objects."""
        if self.installed is None or isinstance(self.installed, str):
            return self.installed or ""
        return f"{self.installed.name} {self.installed.version}"

    @property
    def source(self) -> str:
        return self.distribution or "an object passed as plugin"

    @property
    def label(self) -> str:
        return f"plugin {self.name!r} ({self.source})"

    @property
    def off(self) -> str:
        """Say how to do without it."""
        if self.installed is None:
            return "leave it out of DataFlow(plugins=[…])"
        return f"disable it with DATAFLOW_DISABLE_PLUGINS={self.name} or DataFlow(disable={{{self.name!r}}})"


def _itself(plugin: Any) -> Any:
    return plugin


def _installed() -> list[_Candidate]:
    found = [_Candidate(point.name, point.load, installed=point.dist or "") for point in entry_points(group=GROUP)]
    times = Counter(candidate.name for candidate in found)
    return sorted(found, key=lambda found: (found.name, found.distribution if times[found.name] > 1 else ""))


def _names(variable: str) -> frozenset[str] | None:
    text = os.environ.get(variable)
    return None if text is None else frozenset(part.strip() for part in text.split(",") if part.strip())


def _check_version(plugin: Any, candidate: _Candidate) -> None:
    version = getattr(plugin, "dataflow_api", None)
    ours = ".".join(map(str, specs.API_VERSION))
    try:
        major, minor = (int(part) for part in str(version).split("."))
    except ValueError:
        msg = f"{candidate.label} does not state the plugin API it was written for"
        raise PluginLoadError(msg, hint=f'add dataflow_api = "{ours}" to it, or {candidate.off}') from None
    if major != specs.API_VERSION[0] or minor > specs.API_VERSION[1]:
        msg = f"{candidate.label} needs plugin API {major}.{minor}; this workflow-dataflow-core has {ours}"
        fix = "upgrade workflow-dataflow-core" if (major, minor) > specs.API_VERSION else "upgrade the plugin"
        raise PluginLoadError(msg, hint=f"{fix}, or {candidate.off}")


def _check_hooks(plugin: Any, candidate: _Candidate, pm: pluggy.PluginManager) -> tuple[str, ...]:
    """Check the names and marks of a plugin's functions; return the hooks it implements."""
    hooks = []
    for name in dir(plugin):
        marks = pm.parse_hookimpl_opts(plugin, name)
        if marks is None:
            if name.startswith("dataflow_") and name != "dataflow_api" and callable(getattr(plugin, name)):
                msg = f"{candidate.label} has a function {name} without @hookimpl, so it would never be called"
                hint = f"from dataflow.plugins import hookimpl, mark it, or {candidate.off}"
                raise PluginLoadError(msg, hint=hint)
            continue
        hook = marks.get("specname") or name
        if hook not in HOOKS:
            close = suggest(hook, HOOKS)
            msg = f"{candidate.label} implements {hook}, which is not a hook"
            hint = f"did you mean {close}? Or {candidate.off}" if close else f"rename it, or {candidate.off}"
            raise PluginLoadError(msg, hint=hint)
        if marks.get("wrapper") or marks.get("hookwrapper"):
            msg = f"{candidate.label} wraps {hook}, and hooks have no wrappers: each plugin answers for itself"
            raise PluginLoadError(msg, hint=f"return descriptors of its own instead, or {candidate.off}")
        hooks.append(hook)
    return tuple(hooks)


def _unknown_names(
    only: frozenset[str] | None, disabled: frozenset[str], candidates: list[_Candidate]
) -> Iterator[tuple[str, ConfigurationError]]:
    """Yield (name, error) for each name asked for or disabled that no plugin has."""
    known = {candidate.name for candidate in candidates}
    for name in sorted(((only or frozenset()) - {CORE}) | disabled):
        if name in known:
            continue
        close = suggest(name, known)
        msg = f"no installed plugin is called {name!r}"
        hint = f"did you mean {close!r}?" if close else f"installed: {', '.join(sorted(known)) or 'none'}"
        if name == CORE:
            msg, hint = "core's own plugin is always active", f"leave {CORE!r} out"
        yield name, ConfigurationError(msg, hint=hint, code="unknown-plugin")


class PluginSet:
    """The plugins that are active together, and everything they provide.

    Args:
        extra: plugin objects or modules to use besides the installed ones.
        only: names of installed plugins to use; None for all (core's own is always on).
        disabled: names not to use.
        strict: raise for a broken plugin or an unknown name; False collects them in `infos` (for ``dataflow plugins``).

    Raises:
        PluginLoadError: a plugin fails on import, does not fit the API, or misspells a hook.
        PluginConflictError: two plugins share a name.
        ConfigurationError: a name of `only` or `disabled` is no plugin's.
    """

    def __init__(
        self,
        extra: Sequence[Any] = (),
        *,
        only: frozenset[str] | None = None,
        disabled: frozenset[str] = frozenset(),
        strict: bool = True,
    ) -> None:
        from dataflow.plugins import _builtin  # it imports the operations, not needed by authors

        self.pm = pluggy.PluginManager("dataflow")
        self.pm.add_hookspecs(hookspecs)
        self._found: list[tuple[_Candidate, str, str, tuple[str, ...]]] = []
        self._candidates: dict[str, _Candidate] = {}
        self._register(_Candidate(CORE, lambda: _builtin, installed="workflow-dataflow-core"))
        candidates = _installed()
        objects = [
            _Candidate(str(getattr(plugin, "__name__", type(plugin).__name__)), partial(_itself, plugin))
            for plugin in extra
        ]
        candidates += sorted(objects, key=lambda c: c.name)
        for name, error in _unknown_names(only, disabled, candidates):
            if strict:
                raise error
            nothing = _Candidate(name, partial(_itself, None))
            self._found.append((nothing, "broken", f"{error.message} (fix: {error.hint})", ()))
        for candidate in candidates:
            wanted = candidate.installed is None or only is None or candidate.name in only
            if candidate.name in disabled or not wanted:
                reason = "disabled by name" if candidate.name in disabled else "not among the plugins asked for"
                self._found.append((candidate, "disabled", reason, ()))
                continue
            try:
                self._register(candidate)
            except (PluginLoadError, PluginConflictError) as error:
                if strict:
                    raise
                reason = f"{error.message} (fix: {error.hint})"
                self._found.append((candidate, "broken", reason, ()))

    def _register(self, candidate: _Candidate) -> None:
        try:
            plugin = candidate.load()
        except (Exception, SystemExit) as error:
            msg = f"{candidate.label} fails on import: {type(error).__name__}: {error}"
            raise PluginLoadError(msg, hint=f"reinstall it, or {candidate.off}") from error
        if type(plugin).__hash__ is None:
            msg = f"{candidate.label} is not hashable"
            raise PluginLoadError(msg, hint=f"pass a module, or an object without __eq__; or {candidate.off}")
        _check_version(plugin, candidate)
        hooks = _check_hooks(plugin, candidate, self.pm)
        first = self._candidates.get(candidate.name)
        if first is not None:
            msg = f"two plugins are called {candidate.name!r}: from {first.source} and from {candidate.source}"
            both = "it" if first.name == CORE else "both"
            hint = f"uninstall one of them, or disable {both} with DATAFLOW_DISABLE_PLUGINS={candidate.name}"
            raise PluginConflictError(msg, hint=candidate.off if candidate.installed is None else hint)
        known = self.pm.get_name(plugin)
        if known is not None:
            msg = f"{candidate.label} is active already, as {known!r} ({self._candidates[known].source})"
            raise PluginConflictError(msg, hint="pass each plugin once, and none that is installed")
        try:
            self.pm.register(plugin, candidate.name)
            self.pm.check_pending()
        except pluggy.PluginValidationError as error:
            if self.pm.has_plugin(candidate.name):  # older pluggys keep a part of it
                self.pm.unregister(name=candidate.name)
            msg = f"{candidate.label} misuses a hook: {' '.join(str(error).split())}"
            raise PluginLoadError(msg, hint=f"see dataflow.plugins.hookspecs, or {candidate.off}") from error
        self._candidates[candidate.name] = candidate
        self._found.append((candidate, "active", "", hooks))

    @property
    def infos(self) -> list[PluginInfo]:
        """What is known of each plugin, installed or passed."""
        return [
            PluginInfo(found.name, found.distribution, state, reason, hooks)
            for found, state, reason, hooks in self._found
        ]

    def source(self, plugin: Any) -> str:
        """Name the distribution a plugin, or the plugin of that name, came from."""
        name = plugin if isinstance(plugin, str) else self.pm.get_name(plugin)
        return self._candidates[name].source if name in self._candidates else "an unknown source"

    def conflict(self, what: str, first: str, second: str) -> PluginConflictError:
        """Build the error for something that two plugins provide; `first` and `second` are their names."""
        sources = [f"{name!r} ({self.source(name)})" for name in (first, second)]
        if first == second:
            return PluginConflictError(f"{what} is provided twice by {sources[0]}", hint="upgrade the plugin")
        msg = f"{what} is provided twice: by {sources[0]} and {sources[1]}"
        return PluginConflictError(msg, hint=self._candidates[second if first == CORE else first].off)

    # -- asking ---------------------------------------------------------------------------------------------------
    def _answers(self, hook: str, arguments: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Call a hook on one plugin after another, by name; yield (plugin name, answer) for each answer but None."""
        for impl in sorted(getattr(self.pm.hook, hook).get_hookimpls(), key=lambda impl: impl.plugin_name):
            others = [plugin for name, plugin in self.pm.list_name_plugin() if name != impl.plugin_name]
            with self._blame(impl.plugin_name, hook):
                answer = self.pm.subset_hook_caller(hook, others)(**arguments)
            if isinstance(answer, list):  # what pluggy makes of one plugin's answer, but for firstresult hooks
                answer = answer[0] if answer else None
            if answer is not None:
                yield impl.plugin_name, answer

    @contextmanager
    def _blame(self, plugin: str, hook: str) -> Iterator[None]:
        """Name the plugin in whatever goes wrong in a hook; errors that are meant for users pass."""
        try:
            yield
        except DataFlowError:
            raise
        except Exception as error:
            candidate = self._candidates[plugin]
            msg = f"{candidate.label} fails in {hook}: {type(error).__name__}: {error}"
            raise PluginError(msg, hint=f"upgrade it, or {candidate.off}", code="plugin-failed") from error

    def _listed(self, plugin: str, hook: str, answer: Any, fits: Callable[[Any], str]) -> list[Any]:
        """Return the items of an answer; `fits` says why one is none of what the hook returns, or ""."""
        single = not fits(answer)
        with self._blame(plugin, hook):
            items = [answer] if single else list(answer)
        fault = "one, not a list of them" if single else next((why for item in items if (why := fits(item))), "")
        if fault:
            candidate = self._candidates[plugin]
            msg = f"{hook} of {candidate.label} returned {fault}"
            hint = f"see dataflow.plugins.hookspecs, or {candidate.off}"
            raise PluginError(msg, hint=hint, code="plugin-failed")
        return items

    def collect(self, hook: str, **arguments: Any) -> list[tuple[str, Any]]:
        """Call a hook on every plugin in name order; return (plugin name, answer) for each answer but None.

        Raises:
            PluginError: a plugin fails in it.
        """
        return list(self._answers(hook, arguments))

    def features(self, hook: str, **arguments: Any) -> list[tuple[str, specs.Feature]]:
        """Call a hook that returns features; return (plugin name, feature) for each.

        Raises:
            PluginError: a plugin fails in it, or returns something else.
        """
        found: list[tuple[str, specs.Feature]] = []
        for plugin, answer in self._answers(hook, arguments):
            one = hook in _ONE_FEATURE
            items = self._listed(plugin, hook, [answer] if one else answer, _not_a_feature)
            found += [(plugin, item) for item in items]
        return found

    def _descriptors(self, hook: str, key: Callable[[Any], Hashable], **arguments: Any) -> dict[Any, Any]:
        """Collect the descriptors of a hook by key, refusing what two plugins provide."""
        expected, claims = _DESCRIPTORS[hook]

        def fits(item: Any) -> str:
            return "" if isinstance(item, expected) else f"{type(item).__name__}, not {expected.__name__}"

        found: dict[Hashable, Any] = {}
        owners: dict[str, str] = {}
        for plugin, answer in self._answers(hook, arguments):
            for descriptor in self._listed(plugin, hook, answer, fits):
                for claim in claims(descriptor):
                    if claim in owners:
                        raise self.conflict(f"the {claim}", owners[claim], plugin)
                    owners[claim] = plugin
                found[key(descriptor)] = descriptor
        return found

    # -- what there is --------------------------------------------------------------------------------------------
    @cached_property
    def settings(self) -> Mapping[tuple[str, str], specs.SettingSpec]:
        """(scope, name) -> setting."""
        return self._descriptors("dataflow_settings", lambda s: (s.scope, s.name))

    @cached_property
    def dialects(self) -> Mapping[str, specs.DialectSpec]:
        """URL scheme -> dialect."""
        found = self._descriptors("dataflow_dialects", lambda d: d.name)
        return {scheme: spec for spec in found.values() for scheme in spec.schemes}

    @cached_property
    def field_types(self) -> Mapping[Any, Any]:
        """Annotation class -> field type instance."""
        found = self._descriptors("dataflow_field_types", lambda f: specs.load(f.annotation))
        types = {annotation: specs.load(spec.type) for annotation, spec in found.items()}
        return {key: value() if isinstance(value, type) else value for key, value in types.items()}

    @cached_property
    def workflow_nodes(self) -> Mapping[str, specs.NodeSpec]:
        """Node type -> node without model."""
        return self._descriptors("dataflow_workflow_nodes", lambda n: n.type)

    @cached_property
    def runtimes(self) -> Mapping[str, specs.RuntimeSpec]:
        """Name -> runtime."""
        return self._descriptors("dataflow_runtimes", lambda r: r.name)

    @cached_property
    def migration_engines(self) -> Mapping[str, specs.MigrationEngineSpec]:
        """Role -> migration engine."""
        return self._descriptors("dataflow_migration_engines", lambda e: e.role)

    @cached_property
    def backends(self) -> Mapping[tuple[str, str], specs.BackendSpec]:
        """(kind, URL scheme) -> backend."""
        return self._descriptors("dataflow_backends", lambda b: (b.kind, b.scheme))

    @cached_property
    def commands(self) -> Mapping[str, specs.CommandSpec]:
        """Name -> command of the ``dataflow`` program."""
        return self._descriptors("dataflow_commands", lambda c: c.name)

    def guards(self, config: Any) -> tuple[specs.Guard, ...]:
        """Ask what is to watch over the calls of a DataFlow, in order of the plugins' names."""
        found: dict[str, tuple[str, specs.Guard]] = {}
        for plugin, answer in self._answers("dataflow_guards", {"config": config}):
            for guard in self._listed(plugin, "dataflow_guards", answer, _not_a_guard):
                if guard.name in found:
                    raise self.conflict(f"the guard {guard.name!r}", found[guard.name][0], plugin)
                found[guard.name] = (plugin, guard)
        return tuple(guard for _, guard in found.values())

    def provides(self, hook: str) -> bool:
        """Tell whether an active plugin implements a hook."""
        return any(state == "active" and hook in hooks for _, state, _, hooks in self._found)

    def nodes(self, model: Any, config: Any) -> dict[str, specs.NodeSpec]:
        """Ask for the node types of a frozen model: type -> node."""
        return self._descriptors("dataflow_nodes", lambda n: n.type, model=model, config=config)

    def schema_rules(self, dialect: str) -> dict[str, specs.SchemaRuleSpec]:
        """Ask for the extra rules of schema plans on a dialect: name -> rule."""
        return self._descriptors("dataflow_schema_rules", lambda r: r.name, dialect=dialect)

    def health_checks(self, db: Any) -> dict[str, specs.HealthCheck]:
        """Ask for the health checks of a DataFlow: name -> check."""
        return self._descriptors("dataflow_health", lambda h: h.name, db=db)

    def resolve_annotation(self, annotation: Any, model_name: str) -> Any:
        """Ask the plugins for the type of an annotation; None when no one knows it. The first by name wins."""
        try:
            if annotation in self.field_types:
                return self.field_types[annotation]
        except TypeError:  # an unhashable annotation
            pass
        asked = {"annotation": annotation, "model_name": model_name}
        return next((found for _, found in self._answers("dataflow_resolve_annotation", asked)), None)


@lru_cache(maxsize=8)
def _shared(only: frozenset[str] | None, disabled: frozenset[str]) -> PluginSet:
    return PluginSet(only=only, disabled=disabled)


def plugin_set(plugins: Iterable[Any] = (), disable: Iterable[str] = (), *, strict: bool = True) -> PluginSet:
    """Return the plugin set for these arguments and the environment, shared where nothing is special.

    Environment: ``DATAFLOW_PLUGINS`` (comma-separated names: only these) and ``DATAFLOW_DISABLE_PLUGINS``.
    ``strict=False`` is for diagnosis: what is broken stands in `PluginSet.infos`.
    """
    extra = list(plugins)
    only = _names("DATAFLOW_PLUGINS")
    disabled = frozenset(disable) | (_names("DATAFLOW_DISABLE_PLUGINS") or frozenset())
    if extra or not strict:
        return PluginSet(extra, only=only, disabled=disabled, strict=strict)
    return _shared(only, disabled)
