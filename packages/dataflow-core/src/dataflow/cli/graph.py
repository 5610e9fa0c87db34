"""``dataflow graph``: a workflow as mermaid text, or as an SVG file."""

from pathlib import Path

import attrs
import click

from dataflow.cli.app import app_option, opened
from dataflow.cli.lookup import pick_workflow
from dataflow.cli.output import json_option, print_json
from dataflow.cli.program import CommandError


@click.command()
@click.argument("workflow", metavar="[ID]", required=False)
@app_option
@click.option("--svg", metavar="FILE", help="Write an SVG picture instead; - is standard output.")
@json_option
def graph(workflow: str | None, app: str | None, svg: str | None, *, as_json: bool) -> None:
    """Draw the workflow ID of an application (or its only one), as mermaid text."""
    with opened(app) as found:
        name, built = pick_workflow(found, workflow)
        if svg == "-" and not as_json:
            click.echo(built.to_svg())
            return
        if svg not in (None, "-"):
            _write(Path(str(svg)), built.to_svg())
        if as_json:
            nodes = [{"id": node.id, "type": node.type_name} for node in built.nodes]
            connections = [attrs.asdict(connection) for connection in built.connections]
            picture = {"mermaid": built.to_mermaid(), "svg": built.to_svg() if svg == "-" else None, "svg_file": None}
            if svg not in (None, "-"):
                picture["svg_file"] = svg
            print_json({"workflow": name, "nodes": nodes, "connections": connections, **picture})
        elif svg is None:
            click.echo(built.to_mermaid().rstrip())
        else:
            click.echo(f"wrote {svg}", err=True)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        msg = f"{str(path)!r} cannot be written: {error.strerror}"
        raise CommandError(msg, hint="choose another file", code="bad-file") from error
