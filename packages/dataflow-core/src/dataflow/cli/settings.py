"""Settings as ``dataflow doctor`` shows them: what is declared, what is set, and by whom."""

import contextlib
import os
import re
from collections.abc import Mapping
from typing import Any

from dataflow import later
from dataflow.cli.app import App
from dataflow.cli.installation import Check
from dataflow.config import Config, parse_url, read_settings
from dataflow.errors import ConfigurationError, DataFlowError, PluginError, Problem, suggest
from dataflow.plugins.hints import extra_for
from dataflow.plugins.manager import PluginSet
from dataflow.plugins.specs import SettingSpec

_SECRET = re.compile(r"key|secret|password|token|_url")
_OWN = ("DATAFLOW_PLUGINS", "DATAFLOW_DISABLE_PLUGINS", "DATAFLOW_APP")


def declared(plugins: PluginSet) -> list[SettingSpec]:
    """Return the settings of all plugins, or none when they are in conflict (the plugins check says so)."""
    try:
        return list(plugins.settings.values())
    except Exception:  # noqa: BLE001  # a stranger's code
        return []


def from_environment(plugins: PluginSet) -> Config:
    """Return the settings of a DataFlow that is given none. Raises ConfigurationError for a bad variable."""
    return read_settings({}, plugins, parse_url(":memory:"))


def check_settings(plugins: PluginSet, app: App | None) -> Check:
    """Check the ``DATAFLOW_…`` variables: each must be known, and fit."""
    every = declared(plugins)
    specs = {_variable(spec): spec for spec in every if spec.scope == "instance"}
    others = [_variable(spec) for spec in every if spec.scope == "process"]
    known = [*specs, *others, *_OWN, *(f"DATAFLOW_{name.upper()}" for name in later.SETTINGS)]
    given = sorted(name for name in os.environ if name.startswith("DATAFLOW_"))
    problems = [_unread(name, known) for name in given if name not in known]
    with contextlib.suppress(PluginError):  # settings in conflict: see `declared`
        try:
            from_environment(plugins)
        except ConfigurationError as error:
            problems.append(Problem(error.code, error.message, error.hint, error.where))
    explicit = sorted(app.db.config.explicit) if app else [spec.name for name, spec in specs.items() if name in given]
    summary = f"{len(specs)} known, {len(explicit)} set" + (f": {', '.join(explicit)}" if explicit else "")
    return Check("settings", summary, {"variables": given, "set": explicit}, tuple(problems))


def _unread(variable: str, known: list[str]) -> Problem:
    """Describe a variable that nothing reads: a setting nobody applies."""
    extra = extra_for("setting", variable.removeprefix("DATAFLOW_").lower())
    if extra:
        return Problem("unread-variable", f"{variable} is set, but its package is not installed", extra)
    close = suggest(variable, known)
    hint = f"did you mean {close}?" if close else "see 'dataflow doctor --settings', or unset it"
    return Problem("unread-variable", f"{variable} is set, but no setting is called that", hint)


def list_settings(plugins: PluginSet, app: App | None) -> list[dict[str, Any]]:
    """Return every declared setting as data: the stable shape of ``doctor --settings --json``.

    ``source`` is "default", "environment" or "app"; None for options of models, which have a value per model, and for
    variables that a package reads by itself.
    """
    plugins = app.db.core.plugins if app else plugins
    try:
        environment: Mapping[str, Any] = from_environment(plugins)
    except DataFlowError:
        environment = {}  # the check says what is wrong
    return [_setting(spec, environment, app) for spec in declared(plugins)]


def _setting(spec: SettingSpec, environment: Mapping[str, Any], app: App | None) -> dict[str, Any]:
    about = {"name": spec.name, "scope": spec.scope, "type": spec.type.__name__, "default": _shown(spec, spec.default)}
    rest = {"choices": list(spec.choices), "minimum": spec.minimum, "doc": spec.doc}
    if spec.scope != "instance":
        variable = _variable(spec) if spec.scope == "process" else None
        return {**about, "value": None, "source": None, "variable": variable, **rest}
    value = environment.get(spec.name, spec.default)
    source = "environment" if _variable(spec) in os.environ else "default"
    if app is not None:
        given = app.db.config[spec.name]
        if spec.name not in app.db.config.explicit:
            source = "default"
        elif source == "default" or given != value:  # keywords win
            source = "app"
        value = given
    return {**about, "value": _shown(spec, value), "source": source, "variable": _variable(spec), **rest}


def _variable(spec: SettingSpec) -> str:
    return f"DATAFLOW_{spec.name.upper()}"


def _shown(spec: SettingSpec, value: Any) -> Any:
    """Return a value for listings; secrets only as "***"."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return "***" if _SECRET.search(spec.name) else str(value)
