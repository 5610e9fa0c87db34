"""How commands print: JSON for programs, plain tidy text for people.

Text is laid out by rich, imported on first use. Codes for bold or colour go to terminals only, never with NO_COLOR.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from dataflow.cli.values import plain
from dataflow.errors import Problem

if TYPE_CHECKING:
    from rich.console import RenderableType

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON; errors too, on standard error.")


def print_json(data: Any, *, err: bool = False) -> None:
    """Print data as JSON; values of records as `dataflow.cli.values.plain` turns them.

    Args:
        data: what to print.
        err: whether it goes to standard error.
    """
    stream = sys.stderr if err else sys.stdout
    unicode = (getattr(stream, "encoding", None) or "").lower().startswith("utf")
    click.echo(json.dumps(plain(data), indent=2, ensure_ascii=not unicode), err=err)


def show(*parts: "RenderableType") -> None:
    """Print texts, headings and tables below each other."""
    from rich.console import Console

    console = Console(
        color_system=None if os.environ.get("NO_COLOR") else "auto", highlight=False, markup=False, emoji=False
    )
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    click.echo("\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n")))


def heading(text: str) -> "RenderableType":
    """Return a line in bold, where there is bold."""
    from rich.text import Text

    return Text(text, style="bold")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, indent: int = 0) -> "RenderableType":
    """Return a table without lines; the last column takes the space that is left and wraps.

    Args:
        columns: titles; all empty for none.
        rows: texts.
        indent: columns of space on the left.
    """
    from rich.padding import Padding
    from rich.table import Table

    drawn = Table(box=None, show_header=any(columns), header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for number, title in enumerate(columns):
        drawn.add_column(title, overflow="fold", no_wrap=number == 0)
    for row in rows:
        drawn.add_row(*row)
    return Padding(drawn, (0, 0, 0, indent), expand=False)


def definitions(facts: Mapping[str, Any], *, indent: int = 2) -> "RenderableType":
    """Return names and values below each other."""
    return table(("", ""), [(name, _text(value)) for name, value in facts.items()], indent=indent)


def counted(number: int, noun: str) -> str:
    """Return "1 model", "2 models"."""
    return f"{number} {noun}{'s' * (number != 1)}"


def indented(text: str, indent: int = 2) -> "RenderableType":
    """Return text that is wrapped behind an indent."""
    from rich.padding import Padding

    return Padding(text, (0, 0, 0, indent), expand=False)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def problem_list(problems: Iterable[Problem]) -> "Iterator[RenderableType]":
    """Yield problems as people read them: what is wrong, and below it what to do."""
    for problem in problems:
        yield ""
        yield heading(f"problem: {problem.message}")
        place = ", ".join(f"{key} {problem.where[key]}" for key in ("file", "variable") if key in problem.where)
        if place:
            yield indented(f"where: {place}")
        if problem.hint:
            yield indented(f"fix: {problem.hint}")
