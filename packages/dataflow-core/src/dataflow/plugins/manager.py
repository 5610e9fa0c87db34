"""The plugin loader: finds plugins by entry point, loads what is wanted, and says exactly what is wrong.

Not pluggy's own loader: that one aborts all plugins when one is broken, and takes a misspelt hook in silence.
Nothing here is called while an operation runs.
"""

import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache, partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

import attrs
import pluggy

from dataflow.errors import ConfigurationError, PluginConflictError, PluginLoadError, suggest
from dataflow.plugins import hookspecs, specs

GROUP = "dataflow.plugins"
_HOOKS = tuple(name for name in vars(hookspecs) if name.startswith("dataflow_"))
T = TypeVar("T")


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


@attrs.frozen
class _Candidate:
    name: str
    distribution: str
    load: Callable[[], Any]


def _itself(plugin: Any) -> Any:
    return plugin


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else ""


def _installed() -> list[_Candidate]:
    found: dict[tuple[str, str], EntryPoint] = {}
    for point in entry_points(group=GROUP):
        found.setdefault((point.name, point.value), point)
    return [_Candidate(point.name, _distribution(point), point.load) for point in found.values()]


def _names(variable: str) -> frozenset[str] | None:
    text = os.environ.get(variable)
    return None if text is None else frozenset(part.strip() for part in text.split(",") if part.strip())


def _check(plugin: Any, candidate: _Candidate) -> tuple[str, ...]:
    """Check API version and hook names of a plugin; return its hooks."""
    source = candidate.distribution or "passed as an object"
    where = f"plugin {candidate.name!r} ({source})"
    off = f"disable it with DATAFLOW_DISABLE_PLUGINS={candidate.name} or DataFlow(disable={{{candidate.name!r}}})"
    version = getattr(plugin, "dataflow_api", None)
    try:
        major, minor = (int(part) for part in str(version).split("."))
    except ValueError:
        msg = f"{where} does not state the plugin API it was written for"
        ours = ".".join(map(str, specs.API_VERSION))
        raise PluginLoadError(msg, hint=f'add dataflow_api = "{ours}" to it, or {off}') from None
    if major != specs.API_VERSION[0] or minor > specs.API_VERSION[1]:
        ours = ".".join(map(str, specs.API_VERSION))
        msg = f"{where} needs plugin API {major}.{minor}; this workflow-dataflow-core has {ours}"
        fix = "upgrade workflow-dataflow-core" if (major, minor) > specs.API_VERSION else "upgrade the plugin"
        raise PluginLoadError(msg, hint=f"{fix}, or {off}")
    hooks = []
    for name in dir(plugin):
        if not name.startswith("dataflow_") or name == "dataflow_api" or not callable(getattr(plugin, name)):
            continue
        if not getattr(getattr(plugin, name), "dataflow_impl", None):
            msg = f"{where} has a function {name} without @hookimpl, so it would never be called"
            raise PluginLoadError(msg, hint=f"from dataflow.plugins import hookimpl, mark it, or {off}")
        if name not in _HOOKS:
            close = suggest(name, _HOOKS)
            msg = f"{where} implements {name}, which is not a hook"
            raise PluginLoadError(msg, hint=f"did you mean {close}? Or {off}" if close else f"rename it, or {off}")
        hooks.append(name)
    return tuple(hooks)


class PluginSet:
    """The plugins that are active together, and everything they provide.

    Args:
        extra: plugin objects or modules to use besides the installed ones.
        only: names of installed plugins to use; None for all (core's own is always on).
        disabled: names not to use.
        strict: raise for a broken plugin; False collects it in `infos` instead (for ``dataflow plugins``).

    Raises:
        PluginLoadError: a plugin fails on import, does not fit the API, or misspells a hook.
        PluginConflictError: two plugins share a name.
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
        self.infos: list[PluginInfo] = []
        self._sources: dict[Any, str] = {}
        candidates = [_Candidate("core", "workflow-dataflow-core", lambda: _builtin), *_installed()]
        candidates += [
            _Candidate(str(getattr(plugin, "__name__", type(plugin).__name__)), "", partial(_itself, plugin))
            for plugin in extra
        ]
        self._refuse_unknown(only, disabled, candidates)
        for candidate in sorted(candidates, key=lambda c: (c.name, c.distribution)):
            wanted = candidate.distribution == "" or candidate.name == "core" or only is None or candidate.name in only
            if candidate.name in disabled or not wanted:
                reason = "disabled by name" if candidate.name in disabled else "not among the plugins asked for"
                self.infos.append(PluginInfo(candidate.name, candidate.distribution, "disabled", reason))
                continue
            try:
                self._register(candidate)
            except (PluginLoadError, PluginConflictError) as error:
                if strict:
                    raise
                reason = f"{error.message} (fix: {error.hint})"
                self.infos.append(PluginInfo(candidate.name, candidate.distribution, "broken", reason))

    @staticmethod
    def _refuse_unknown(only: frozenset[str] | None, disabled: frozenset[str], candidates: list[_Candidate]) -> None:
        known = {candidate.name for candidate in candidates}
        for name in sorted((only or frozenset()) | disabled):
            if name not in known:
                close = suggest(name, known)
                msg = f"no installed plugin is called {name!r}"
                hint = f"did you mean {close!r}?" if close else f"installed: {', '.join(sorted(known))}"
                raise ConfigurationError(msg, hint=hint)

    def _register(self, candidate: _Candidate) -> None:
        try:
            plugin = candidate.load()
        except Exception as error:
            msg = (
                f"plugin {candidate.name!r} ({candidate.distribution}) fails on import: {type(error).__name__}: {error}"
            )
            hint = f"reinstall it, or disable it with DATAFLOW_DISABLE_PLUGINS={candidate.name}"
            raise PluginLoadError(msg, hint=hint) from error
        hooks = _check(plugin, candidate)
        if self.pm.has_plugin(candidate.name):
            other = self._sources[self.pm.get_plugin(candidate.name)]
            msg = f"two plugins are called {candidate.name!r}: from {other} and from {candidate.distribution or 'an object'}"
            raise PluginConflictError(msg, hint="uninstall one of them, or disable both with DATAFLOW_DISABLE_PLUGINS")
        try:
            self.pm.register(plugin, candidate.name)
            self.pm.check_pending()
        except pluggy.PluginValidationError as error:
            msg = f"plugin {candidate.name!r} ({candidate.distribution}) misuses a hook: {error}"
            hint = f"see dataflow.plugins.hookspecs, or disable it with DATAFLOW_DISABLE_PLUGINS={candidate.name}"
            raise PluginLoadError(msg, hint=hint) from error
        except ValueError as error:
            msg = f"plugin {candidate.name!r} was passed twice"
            raise PluginConflictError(msg, hint="pass each plugin once") from error
        self._sources[plugin] = candidate.distribution or "an object passed as plugin"
        self.infos.append(PluginInfo(candidate.name, candidate.distribution, "active", "", hooks))

    def source(self, plugin: Any) -> str:
        """Name the distribution a plugin came from."""
        return self._sources.get(plugin, "an unknown source")

    def collect(self, hook: str, **arguments: Any) -> list[tuple[str, Any]]:
        """Call a hook on every plugin in name order; return (plugin name, answer) for each answer but None."""
        caller = getattr(self.pm.hook, hook)
        answers = []
        for impl in sorted(caller.get_hookimpls(), key=lambda impl: impl.plugin_name):
            subset = self.pm.subset_hook_caller(hook, [p for p in self.pm.get_plugins() if p is not impl.plugin])
            answers += [(impl.plugin_name, answer) for answer in subset(**arguments) if answer is not None]
        return answers

    def descriptors(self, hook: str, key: Callable[[T], Hashable], **arguments: Any) -> dict[Hashable, T]:
        """Collect the descriptors of a hook, refusing two with one key."""
        found: dict[Hashable, tuple[str, T]] = {}
        for plugin, answer in self.collect(hook, **arguments):
            for descriptor in answer:
                name = key(descriptor)
                if name in found:
                    first = self.source(self.pm.get_plugin(found[name][0]))
                    second = self.source(self.pm.get_plugin(plugin))
                    msg = f"{name!r} is provided twice ({hook}): by {found[name][0]!r} ({first}) and {plugin!r} ({second})"
                    hint = f"disable one: DATAFLOW_DISABLE_PLUGINS={plugin}"
                    raise PluginConflictError(msg, hint=hint)
                found[name] = (plugin, descriptor)
        return {name: descriptor for name, (_, descriptor) in found.items()}

    @cached_property
    def settings(self) -> Mapping[tuple[str, str], specs.SettingSpec]:
        """(scope, name) -> setting."""
        found: Any = self.descriptors("dataflow_settings", lambda s: (s.scope, s.name))
        return found  # type: ignore[no-any-return]

    @cached_property
    def dialects(self) -> Mapping[str, specs.DialectSpec]:
        """URL scheme -> dialect."""
        self.descriptors("dataflow_dialects", lambda d: d.name)
        flat: Any = self.descriptors("dataflow_dialects", lambda d: d.schemes)
        schemes: dict[str, specs.DialectSpec] = {}
        for spec in flat.values():
            for scheme in spec.schemes:
                if scheme in schemes:
                    msg = f"URL scheme {scheme!r} is provided by two dialects: {schemes[scheme].name} and {spec.name}"
                    raise PluginConflictError(msg, hint="disable one with DATAFLOW_DISABLE_PLUGINS")
                schemes[scheme] = spec
        return schemes

    @cached_property
    def field_types(self) -> Mapping[Any, Any]:
        """Annotation class -> field type instance."""
        found: Any = self.descriptors("dataflow_field_types", lambda f: specs.load(f.annotation))
        types = {annotation: specs.load(spec.type) for annotation, spec in found.items()}
        return {key: value() if isinstance(value, type) else value for key, value in types.items()}

    @cached_property
    def workflow_nodes(self) -> Mapping[str, specs.NodeSpec]:
        """Node type -> node without model."""
        found: Any = self.descriptors("dataflow_workflow_nodes", lambda n: n.type)
        return found  # type: ignore[no-any-return]

    @cached_property
    def runtimes(self) -> Mapping[str, specs.RuntimeSpec]:
        """Name -> runtime."""
        found: Any = self.descriptors("dataflow_runtimes", lambda r: r.name)
        return found  # type: ignore[no-any-return]

    @cached_property
    def migration_engines(self) -> Mapping[str, specs.MigrationEngineSpec]:
        """Role -> migration engine."""
        found: Any = self.descriptors("dataflow_migration_engines", lambda e: e.role)
        return found  # type: ignore[no-any-return]

    @cached_property
    def backends(self) -> Mapping[tuple[str, str], specs.BackendSpec]:
        """(kind, URL scheme) -> backend."""
        found: Any = self.descriptors("dataflow_backends", lambda b: (b.kind, b.scheme))
        return found  # type: ignore[no-any-return]

    @cached_property
    def commands(self) -> Mapping[str, specs.CommandSpec]:
        """Name -> command of the ``dataflow`` program."""
        found: Any = self.descriptors("dataflow_commands", lambda c: c.name)
        return found  # type: ignore[no-any-return]

    def resolve_annotation(self, annotation: Any, model_name: str) -> Any:
        """Ask the plugins for the type of an annotation; None when no one knows it."""
        try:
            if annotation in self.field_types:
                return self.field_types[annotation]
        except TypeError:  # an unhashable annotation
            pass
        return self.pm.hook.dataflow_resolve_annotation(annotation=annotation, model_name=model_name)


@lru_cache(maxsize=8)
def _shared(only: frozenset[str] | None, disabled: frozenset[str]) -> PluginSet:
    return PluginSet(only=only, disabled=disabled)


def plugin_set(plugins: Iterable[Any] = (), disable: Iterable[str] = ()) -> PluginSet:
    """Return the plugin set for these arguments and the environment, shared where nothing is special.

    Environment: ``DATAFLOW_PLUGINS`` (comma-separated names: only these) and ``DATAFLOW_DISABLE_PLUGINS``.
    """
    extra = list(plugins)
    only = _names("DATAFLOW_PLUGINS")
    disabled = frozenset(disable) | (_names("DATAFLOW_DISABLE_PLUGINS") or frozenset())
    if extra:
        return PluginSet(extra, only=only, disabled=disabled)
    return _shared(only, disabled)
