"""What commands that draw share: mermaid text on standard output, or an SVG file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import click

from dataflow.cli.output import print_json
from dataflow.cli.program import CommandError

svg_option = click.option("--svg", metavar="FILE", help="Write an SVG picture instead; - is standard output.")


class Drawable(Protocol):
    """What can be drawn: a workflow, or the models of a DataFlow."""

    def to_mermaid(self) -> str: ...
    def to_svg(self) -> str: ...


def draw(subject: Drawable, data: Mapping[str, Any], svg: str | None, *, as_json: bool) -> None:
    """Print or write a picture.

    Args:
        subject: what to draw.
        data: what it shows, for JSON.
        svg: file to write; "-" is standard output, None asks for mermaid text.
        as_json: whether to print JSON.

    Raises:
        CommandError: the file cannot be written.
    """
    if svg == "-" and not as_json:
        click.echo(subject.to_svg())
        return
    file = None if svg == "-" else svg
    if file is not None:
        _write(Path(file), subject.to_svg())
    if as_json:
        drawn = {"mermaid": subject.to_mermaid(), "svg": subject.to_svg() if svg == "-" else None, "svg_file": file}
        print_json({**data, **drawn})
    elif file is None:
        click.echo(subject.to_mermaid().rstrip())
    else:
        click.echo(f"wrote {file}", err=True)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        msg = f"{str(path)!r} cannot be written: {error.strerror}"
        raise CommandError(msg, hint="choose another file", code="bad-file") from error
