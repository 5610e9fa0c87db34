"""``dataflow graph``: a workflow as mermaid text, or as an SVG file."""

import attrs
import click

from dataflow.cli.app import app_option, opened
from dataflow.cli.lookup import pick_workflow
from dataflow.cli.output import json_option
from dataflow.cli.picture import draw, svg_option


@click.command()
@click.argument("workflow", metavar="[ID]", required=False)
@app_option
@svg_option
@json_option
def graph(workflow: str | None, app: str | None, svg: str | None, *, as_json: bool) -> None:
    """Draw the workflow ID of an application (or its only one), as mermaid text."""
    with opened(app) as found:
        name, built = pick_workflow(found, workflow)
        nodes = [{"id": node.id, "type": node.type_name} for node in built.nodes]
        connections = [attrs.asdict(connection) for connection in built.connections]
        draw(built, {"workflow": name, "nodes": nodes, "connections": connections}, svg, as_json=as_json)
