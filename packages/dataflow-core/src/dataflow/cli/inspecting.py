"""Looks at one plugin, in a process of its own: ``python -m dataflow.cli.inspecting FOLDER REFERENCE``.

Prints a list of findings as JSON. `dataflow.cli.checking` starts it; what the plugin prints goes to standard error.
"""

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

import attrs

from dataflow.cli.discovery import KINDS, ask
from dataflow.errors import DataFlowError
from dataflow.plugins import specs
from dataflow.plugins.manager import HOOKS, PluginSet

HEAVY = (
    "sqlalchemy", "aiosqlite", "asyncpg", "psycopg", "duckdb", "pymysql", "aiomysql", "click", "rich", "pandas",
    "numpy", "polars", "pyarrow", "requests", "httpx",
)  # fmt: skip
"""What takes long to import: drivers, SQLAlchemy, and what commands and readers of files are made of."""
_REFERENCES = (
    "dialect", "schema_editor", "annotation", "type", "implementation", "runtime", "engine", "backend", "command",
)  # fmt: skip
_OFF = re.compile(r"(?:,? [Oo]r )?leave it out of DataFlow\(plugins=\[…\]\)")
_OWN = re.compile(r"^plugin '.*?' \(.*?\) ")
Row = tuple[str, str, str, str]
"""(check, state, message, hint)."""


def inspect(reference: str) -> Iterator[Row]:
    """Yield what is found out about a plugin."""
    before = set(sys.modules)
    module, _, attribute = reference.partition(":")
    try:
        plugin: Any = import_module(module)
        for part in filter(None, attribute.split(".")):
            plugin = getattr(plugin, part)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # a stranger's code
        cause = f"{reference} fails on import: {type(error).__name__}: {error}"
        yield "import", "problem", cause, "correct the module, or the entry point; declare what it needs as dependency"
        return
    loaded = {found.partition(".")[0] for found in sys.modules.keys() - before}
    heavy = sorted(loaded & set(HEAVY))
    yield "import", "ok", f"{reference} can be imported by itself", ""
    if heavy:
        hint = 'import it inside the function that needs it, and name classes by reference: "package.module:Object"'
        yield "light", "problem", f"importing {module} imports {', '.join(heavy)}", hint
    else:
        yield "light", "ok", "it imports neither SQLAlchemy nor a driver", ""
    yield from _hooks(plugin)


def _hooks(plugin: Any) -> Iterator[Row]:
    try:
        plugins = PluginSet([plugin], only=frozenset())
    except DataFlowError as error:
        check = "api" if "plugin API" in error.message else "hooks"
        yield check, "problem", _OWN.sub("", error.message), _OFF.sub("", error.hint)
        return
    info = next(info for info in plugins.infos if info.state == "active" and info.name != "core")
    ours = ".".join(map(str, specs.API_VERSION))
    yield "api", "ok", f"written for plugin API {plugin.dataflow_api}; this is {ours}", ""
    if not info.hooks:
        hint = f"write functions marked @hookimpl that are called like a hook: {', '.join(HOOKS[:6])} …"
        yield "hooks", "problem", "it implements no hook", hint
        return
    yield "hooks", "ok", ", ".join(info.hooks), ""
    described = list(_descriptors(plugins, info.name))
    yield from described
    if all(state == "ok" for _, state, _, _ in described):
        yield from _on_a_model(plugin, plugins, info.name)


def _descriptors(plugins: PluginSet, name: str) -> Iterator[Row]:
    """Check what it describes, and that each reference leads somewhere."""
    described = 0
    faults: list[tuple[str, str]] = []
    for kind in KINDS:
        answer = next((answer for answer in ask(plugins, kind) if answer.plugin == name), None)
        if answer is None:
            continue
        if answer.problem is not None:
            faults.append((_OWN.sub("", answer.problem.message), "return what dataflow.plugins.hookspecs says"))
            continue
        try:
            getattr(plugins, kind)
        except Exception as error:  # noqa: BLE001  # a stranger's code
            hint = _OFF.sub("", getattr(error, "hint", "")) or "rename it"
            faults.append((getattr(error, "message", str(error)), hint))
        for key, spec in answer.found.items():
            described += 1
            faults += [(f"{type(spec).__name__} {key!r}: {fault}", hint) for fault, hint in _faults(spec)]
    yield from (("descriptors", "problem", message, hint) for message, hint in faults)
    if described and not faults:
        yield "descriptors", "ok", f"{described} described, and every reference leads somewhere", ""


def _faults(spec: Any) -> Iterator[tuple[str, str]]:
    if not attrs.has(type(spec)):
        return
    for field in _REFERENCES:
        value = getattr(spec, field, None)
        text = isinstance(value, str) and not (isinstance(spec, specs.NodeSpec) and field == "type")
        if text and not isinstance(spec, specs.SettingSpec):
            try:
                specs.load(value)
            except Exception as error:  # noqa: BLE001  # a stranger's code
                yield getattr(error, "message", str(error)), "correct the reference, or the module it names"
    if isinstance(spec, specs.DialectSpec):
        for capability, state in spec.capabilities.items():
            if not re.match(r"full\b|emulated\b|unsupported: .", state):
                yield f"the capability {capability!r} is {state!r}", "write full, emulated: how, or unsupported: why"


def _on_a_model(plugin: Any, plugins: PluginSet, name: str) -> Iterator[Row]:
    """Register a model with every option that is True or False, in memory."""
    wanted = {
        "dataflow_features",
        "dataflow_nodes",
        "dataflow_resolve_annotation",
        "dataflow_guards",
        "dataflow_configure",
    }
    if not wanted & set(next(info.hooks for info in plugins.infos if info.name == name)):
        return
    dialects = ask(PluginSet(strict=False), "dialects")
    memory = next((a.plugin for a in dialects if any("sqlite" in spec.schemes for spec in a.found.values())), None)
    if memory is None:
        hint = "install workflow-dataflow-sqlite beside it, and check again"
        yield "model", "warning", "no model was registered: no installed plugin has a database in memory", hint
        return
    from dataflow import DataFlow

    os.environ["DATAFLOW_PLUGINS"] = memory
    own = [s for (scope, _), s in plugins.settings.items() if scope == "model" and s.type is bool]
    options = {spec.name: True for spec in own}
    model = type("Probe", (), {"__annotations__": {"title": str}, "__dataflow__": options})
    try:
        with DataFlow(":memory:", plugins=[plugin]) as db:
            db.model(model)
            db.express_sync.create("Probe", {"title": "probe"})
            made = len(db.core.model("Probe").nodes)
            for spec in db.core.model("Probe").nodes.values():
                specs.load(spec.implementation)
    except Exception as error:  # noqa: BLE001  # a stranger's code
        text = f"a model{' with ' + ', '.join(options) if options else ''} fails: {type(error).__name__}: {error}"
        yield "model", "problem", text.partition("\n")[0], "register a model in a test of yours, and see the traceback"
        return
    yield "model", "ok", f"a model{' with ' + ', '.join(options) if options else ''} works, and has {made} nodes", ""


def main(arguments: Sequence[str]) -> None:
    """Print what is found."""
    folder, reference = arguments
    sys.path.insert(0, folder)
    with contextlib.redirect_stdout(sys.stderr):
        found = list(inspect(reference))
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
