"""``dataflow er``: models and their relations as an entity-relationship diagram."""

import attrs
import click

from dataflow.cli.app import app_option, opened
from dataflow.cli.output import json_option
from dataflow.cli.picture import draw, svg_option


@click.command()
@app_option
@svg_option
@json_option
def er(app: str | None, svg: str | None, *, as_json: bool) -> None:
    """Draw the models of an application and how they relate, as mermaid text."""
    from dataflow.pictures.models import drawn

    with opened(app) as found:
        models, relations = drawn(found.db.core.models)
        data = {"models": [attrs.asdict(m) for m in models], "relations": [attrs.asdict(r) for r in relations]}
        draw(found.db, data, svg, as_json=as_json)
