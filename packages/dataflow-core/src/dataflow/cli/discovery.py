"""What plugins offer, found without stumbling over broken ones: for help, ``plugins`` and ``doctor``.

Asks each plugin by itself, because `PluginSet` rightly fails as a whole. Knows nothing of click.
"""

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from dataflow.errors import DataFlowError, Problem
from dataflow.plugins import specs
from dataflow.plugins.manager import PluginInfo, PluginSet, plugin_set

KINDS: Mapping[str, tuple[str, type, Callable[[Any], str]]] = {
    "commands": ("dataflow_commands", specs.CommandSpec, lambda spec: spec.name),
    "dialects": ("dataflow_dialects", specs.DialectSpec, lambda spec: spec.name),
    "settings": ("dataflow_settings", specs.SettingSpec, lambda spec: spec.name),
    "field_types": ("dataflow_field_types", specs.FieldTypeSpec, lambda spec: spec.name),
    "workflow_nodes": ("dataflow_workflow_nodes", specs.NodeSpec, lambda spec: spec.type),
    "runtimes": ("dataflow_runtimes", specs.RuntimeSpec, lambda spec: spec.name),
    "migration_engines": ("dataflow_migration_engines", specs.MigrationEngineSpec, lambda spec: spec.role),
    "backends": ("dataflow_backends", specs.BackendSpec, lambda spec: f"{spec.kind} {spec.scheme}"),
}
"""What plugins provide without being given a model -> (hook, its descriptor, how one is called)."""


@attrs.frozen
class Command:
    """A command and who provides it; `problem` says why it cannot run, if it cannot."""

    plugin: str
    spec: specs.CommandSpec
    problem: DataFlowError | None = None


@attrs.frozen
class Answer:
    """What one plugin answered to one hook: its descriptors by name, or what went wrong."""

    plugin: str
    found: Mapping[str, Any] = attrs.field(factory=dict)
    problem: Problem | None = None


@attrs.frozen
class Discovery:
    """The plugins of this process and the commands they offer.

    Attributes:
        plugins: loaded tolerantly: broken ones are in its `infos`.
        commands: name -> command.
        problems: broken plugins, failing hooks and conflicts among commands.
    """

    plugins: PluginSet
    commands: Mapping[str, Command]
    problems: tuple[Problem, ...]

    @property
    def broken(self) -> list[PluginInfo]:
        """The plugins that cannot be used."""
        return [info for info in self.plugins.infos if info.state == "broken"]

    def provides(self) -> tuple[dict[str, dict[str, list[str]]], list[Problem]]:
        """Ask every plugin for everything: (plugin -> kind -> names, what is wrong). Imports field types, no more."""
        provided: dict[str, dict[str, list[str]]] = {}
        problems = list(self.problems)
        for kind in KINDS:
            answers = ask(self.plugins, kind)
            for answer in answers:
                if answer.found:
                    provided.setdefault(answer.plugin, {})[kind] = sorted(answer.found)
            if kind == "commands":
                continue  # among the problems already
            faults = [answer.problem for answer in answers if answer.problem is not None]
            problems += faults or _conflicts(self.plugins, kind)
        return provided, problems


def discover() -> Discovery:
    """Find plugins and commands, whatever is wrong with them."""
    plugins = plugin_set(strict=False)
    problems = [_broken(info) for info in plugins.infos if info.state == "broken"]
    commands: dict[str, Command] = {}
    for answer in sorted(ask(plugins, "commands"), key=lambda answer: (answer.plugin != "core", answer.plugin)):
        if answer.problem is not None:
            problems.append(answer.problem)
        for name, spec in answer.found.items():
            first = commands.get(name)
            if first is None:
                commands[name] = Command(answer.plugin, spec)
                continue
            conflict = plugins.conflict(f"the command {name!r}", first.plugin, answer.plugin)
            problems.append(Problem(conflict.code, conflict.message, conflict.hint, {"command": name}))
            if first.plugin != "core":  # core's own stay usable: they are what explains the conflict
                commands[name] = attrs.evolve(first, problem=conflict)
    return Discovery(plugins, commands, tuple(problems))


def ask(plugins: PluginSet, kind: str) -> list[Answer]:
    """Call one hook on each plugin by itself, in name order."""
    hook, expected, key = KINDS[kind]
    answers = []
    for impl in sorted(getattr(plugins.pm.hook, hook).get_hookimpls(), key=lambda impl: str(impl.plugin_name)):
        try:
            found = list(impl.function() or ())
        except Exception as error:  # noqa: BLE001  # a stranger's code
            problem = _failing(plugins, impl.plugin_name, hook, f"fails in {hook}: {type(error).__name__}: {error}")
            answers.append(Answer(impl.plugin_name, problem=problem))
            continue
        strange = next((type(spec).__name__ for spec in found if not isinstance(spec, expected)), "")
        if strange:
            problem = _failing(plugins, impl.plugin_name, hook, f"returns {strange} in {hook}, not {expected.__name__}")
            answers.append(Answer(impl.plugin_name, problem=problem))
        else:
            answers.append(Answer(impl.plugin_name, {key(spec): spec for spec in found}))
    return answers


def _conflicts(plugins: PluginSet, kind: str) -> list[Problem]:
    """Let the plugin set put the answers together, as a DataFlow does."""
    try:
        getattr(plugins, kind)
    except DataFlowError as error:
        return [Problem(error.code, error.message, error.hint)]
    except Exception as error:  # noqa: BLE001  # a stranger's code
        message = f"the {kind.replace('_', ' ')} of the plugins cannot be used: {type(error).__name__}: {error}"
        return [Problem("plugin-failed", message, "disable plugins one by one: DATAFLOW_DISABLE_PLUGINS=name")]
    return []


def _broken(info: PluginInfo) -> Problem:
    message, _, fix = info.reason.partition(" (fix: ")
    return Problem("plugin-broken", message, fix.removesuffix(")"), {"plugin": info.name})


def _failing(plugins: PluginSet, plugin: str, hook: str, what: str) -> Problem:
    hint = f"upgrade or reinstall it, or disable it with DATAFLOW_DISABLE_PLUGINS={plugin}"
    return Problem(
        "plugin-failed", f"plugin {plugin!r} ({plugins.source(plugin)}) {what}", hint, {"plugin": plugin, "hook": hook}
    )
