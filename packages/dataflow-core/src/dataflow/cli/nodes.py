"""``dataflow nodes``: node types, what each takes and gives; without an app, the ones that need no model."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import click

from dataflow.cli.app import App, app_option, opened
from dataflow.cli.lookup import node_types, unknown
from dataflow.cli.output import heading, indented, json_option, print_json, show, table
from dataflow.cli.program import discovery
from dataflow.operations import KINDS
from dataflow.plugins.specs import NodeSpec, Parameter

if TYPE_CHECKING:
    from rich.console import RenderableType

EVERY = "Every node also takes `database` (which instance) and the input `input` (only orders two nodes)."


@click.command()
@click.argument("name", metavar="[MODEL|NODE]", required=False)
@app_option
@json_option
@click.pass_context
def nodes(ctx: click.Context, name: str | None, app: str | None, *, as_json: bool) -> None:
    """List node types, or the parameters and results of those of one MODEL, or of one NODE.

    Without --app: the nodes that need no model, and how those of a model will be called.
    """
    if not app:
        _without_app(list(discovery(ctx).plugins.workflow_nodes.values()), name, as_json=as_json)
        return
    with opened(app) as found:
        chosen = _choose(found, name)
        if as_json:
            print_json({"app": found.reference, "nodes": [describe(node) for node in chosen], "generated": []})
        elif name:
            show(*_details(chosen), "", EVERY)
        else:
            show(*_overview(chosen))


def describe(node: NodeSpec) -> dict[str, Any]:
    """Return a node type as data: the stable shape of ``--json``; outputs None are not known beforehand."""
    return {
        "type": node.type,
        "model": node.model,
        "operation": node.operation,
        "writes": node.writes,
        "doc": node.doc,
        "parameters": [attrs.asdict(parameter) for parameter in node.parameters],
        "outputs": None if node.outputs is None else list(node.outputs),
    }


def _without_app(free: Sequence[NodeSpec], name: str | None, *, as_json: bool) -> None:
    if name is not None:
        by_name = {node.type: node for node in free}
        if name not in by_name:
            error = unknown("node type ", name, by_name)
            error.hint = f"{error.hint}; those of a model need --app path/to/file.py"
            raise error
        free = [by_name[name]]
    generated = [{"type": f"{{Model}}{kind.suffix}", "operation": kind.name, "doc": kind.doc} for kind in KINDS]
    if as_json:
        described = [describe(node) for node in free]
        print_json({"app": None, "nodes": described, "generated": [] if name else generated})
        return
    if name:
        show(*_details(free), "", EVERY)
        return
    show(
        *_details(free),
        "",
        heading("Each model, User for example, adds"),
        table(("", ""), [(f"User{kind.suffix}", kind.doc) for kind in KINDS], indent=2),
        "",
        "Parameters and results of your models' nodes: dataflow nodes User --app path/to/file.py",
    )


def _choose(app: App, name: str | None) -> list[NodeSpec]:
    """Return the node types of a model, the one of that name, or all."""
    core = app.db.core
    types = node_types(core)
    if name is None:
        return list(types.values())
    if name in core.models:
        return list(core.models[name].nodes.values())
    if name in types:
        return [types[name]]
    raise unknown("model or node type ", name, [*core.models, *types])


def _overview(nodes: Sequence[NodeSpec]) -> "Iterator[RenderableType]":
    """List node types with what they do, model by model."""
    by_model: dict[str, list[tuple[str, str]]] = {}
    for node in nodes:
        by_model.setdefault(node.model or "without a model", []).append((node.type, node.doc))
    for number, (model, rows) in enumerate(by_model.items()):
        if number:
            yield ""
        yield heading(model)
        yield table(("", ""), rows, indent=2)


def _details(nodes: Sequence[NodeSpec]) -> "Iterator[RenderableType]":
    for number, node in enumerate(nodes):
        if number:
            yield ""
        yield heading(node.type)
        yield indented(node.doc)
        if node.parameters:
            yield table(("parameter", "type", "", ""), map(_row, node.parameters), indent=2)
        outputs = "known only when it runs" if node.outputs is None else ", ".join(node.outputs)
        yield indented(f"results: {outputs}")


def _row(parameter: Parameter) -> tuple[str, ...]:
    need = "required" if parameter.required else ""
    if parameter.default is not None:
        need = f"= {parameter.default!r}"
    return parameter.name, parameter.type, need, parameter.doc
