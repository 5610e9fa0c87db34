"""Write docs/reference from the code: settings, hooks, nodes, errors. A test checks that nothing is out of date.

Run: python docs/generate.py
"""

import inspect
from pathlib import Path

import click

from dataflow import errors
from dataflow.operations import KINDS
from dataflow.plugins import hookspecs
from dataflow.plugins.manager import PluginSet
from dataflow.plugins.specs import load

REFERENCE = Path(__file__).parent / "reference"
NOTE = "<!-- Written by docs/generate.py from the code; edit the code. -->\n"


def settings() -> str:
    """Every setting that the installed packages declare."""
    rows = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for (scope, name), spec in sorted(PluginSet().settings.items()):
        if scope == "instance":
            choices = f" One of {', '.join(map(repr, spec.choices))}." if spec.choices else ""
            rows.append(f"| `{name}` | {spec.type.__name__} | `{spec.default!r}` | {spec.doc}{choices} |")
    intro = "Keywords of `DataFlow(…)`; the environment variable is `DATAFLOW_` and the name in capitals. Keywords win."
    return f"{NOTE}# Settings\n\n{intro}\n\n" + "\n".join(rows) + "\n"


def hooks() -> str:
    """Every hook with its signature and docstring."""
    parts = [f"{NOTE}# Hooks\n\n{inspect.cleandoc(hookspecs.__doc__ or '').split(chr(10), 2)[2]}\n"]
    for name, function in vars(hookspecs).items():
        if name.startswith("dataflow_"):
            arguments = ", ".join(inspect.signature(function).parameters)
            doc = inspect.getdoc(function) or ""
            text, _, example = doc.partition("Example:")
            parts.append(f"## `{name}({arguments})`\n\n{text.strip()}\n\nExample: {' '.join(example.split())}\n")
    return "\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def nodes() -> str:
    """Every operation with its parameters and results."""
    parts = [f"{NOTE}# Generated nodes\n\nA model `User` gets `UserCreateNode`, `UserReadNode` and so on.\n"]
    takes = {
        "": "",
        "values": "Takes the model's fields.",
        "changes": "Takes the model's fields except the key, as values or update operators.",
        "defaults": "Takes any field as a default for all rows.",
    }
    for kind in KINDS:
        rows = ["| parameter | type | default | meaning |", "|---|---|---|---|"]
        for p in kind.parameters:
            default = "required" if p.required else f"`{p.default!r}`"
            rows.append(f"| `{p.name}` | {_cell(p.type)} | {default} | {_cell(p.doc)} |")
        record = "the record's fields, " if kind.record else ""
        gives = f"Gives {record}{', '.join(f'`{name}`' for name in kind.outputs)}".rstrip(", ") + "."
        head = f"## `{{Model}}{kind.suffix}` · `express.{kind.name}`\n\n{kind.doc} {takes[kind.takes_fields]}".rstrip()
        parts.append(f"{head}\n\n{chr(10).join(rows)}\n\n{gives}\n")
    return "\n".join(parts)


def error_classes() -> str:
    """Every exception class with its code and meaning."""
    rows = ["| class | is a | code | when |", "|---|---|---|---|"]
    for name, cls in vars(errors).items():
        if inspect.isclass(cls) and issubclass(cls, errors.DataFlowError):
            first = (cls.__doc__ or "").split("\n")[0]
            rows.append(f"| `{name}` | `{cls.__bases__[0].__name__}` | `{cls.code}` | {first} |")
    intro = (
        "Every error has `code`, `message`, `where`, `hint`, `problems` and `to_dict()`. A code may be more precise "
        "than the class's own."
    )
    return f"{NOTE}# Errors\n\n{intro}\n\n" + "\n".join(rows) + "\n"


def commands() -> str:
    """Every command with its help."""
    parts = [f"{NOTE}# The command line\n\nExit codes: 0 done, 1 a problem was found, 2 wrong usage.\n"]
    group = click.Context(click.Group("dataflow"), info_name="dataflow", terminal_width=100, max_content_width=100)
    for name, spec in sorted(PluginSet().commands.items()):
        command = load(spec.command)
        text = command.get_help(click.Context(command, info_name=name, parent=group, max_content_width=100))
        parts.append(f"## `dataflow {name}`\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


PAGES = {"settings.md": settings, "hooks.md": hooks, "nodes.md": nodes, "errors.md": error_classes, "cli.md": commands}

if __name__ == "__main__":
    REFERENCE.mkdir(exist_ok=True)
    for page, write in PAGES.items():
        (REFERENCE / page).write_text(write(), encoding="utf-8")
