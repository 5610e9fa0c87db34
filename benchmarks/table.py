"""Outcomes as a table: ``python -m benchmarks.table FILE.json [PAGE.md]`` prints it, or writes it between a page's marks."""

import json
import re
import sys
from pathlib import Path
from typing import Any

_MARKS = re.compile(r"(<!-- outcomes -->\n).*?(<!-- end of outcomes -->)", re.DOTALL)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def row(outcome: dict[str, Any]) -> str:
    """Return a row of the table."""
    own = outcome["microseconds"]["dataflow"]
    reference = outcome["reference"]
    beside = "" if reference is None else f"{_number(outcome['microseconds'][reference])} ({reference})"
    ratio = "" if outcome["ratio"] is None else f"{outcome['ratio']:.2f}"
    met = {True: "yes", False: "**no**", None: ""}[outcome["met"]]
    return (
        f"| {outcome['name']} | {_number(own)} {outcome['unit']} | {beside} | {ratio} | {outcome['target']} | {met} |"
    )


def table(found: dict[str, Any]) -> str:
    """Return all outcomes as a table of Markdown, and the machine they come from."""
    before, after = found["before"], found["after"]
    head = "| case | DataFlow | beside | time ratio | target | met |\n|---|---|---|---|---|---|\n"
    machine = f"Python {before['python']}, {before['system']}, {before['cores']} cores; load {before['load']} before, {after['load']} after."
    return f"{head}{chr(10).join(map(row, found['outcomes']))}\n\n{machine}\n"


def main(arguments: list[str]) -> None:
    """Print the table, or write it into a page."""
    text = table(json.loads(Path(arguments[0]).read_text()))
    if len(arguments) == 1:
        print(text)
        return
    page = Path(arguments[1])
    page.write_text(_MARKS.sub(lambda marks: f"{marks[1]}{text}{marks[2]}", page.read_text()))


if __name__ == "__main__":
    main(sys.argv[1:])
