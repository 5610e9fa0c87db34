"""Write docs/reference from the code: settings, hooks, nodes, errors, parity. A test checks that it is current.

Run: python docs/generate.py
With `parity` behind it, the conformance suites of all dialects run first, and what they find is kept in parity.json.
"""

import ast
import inspect
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import click

from dataflow import DataFlow, errors
from dataflow.operations import KINDS
from dataflow.plugins import hookspecs
from dataflow.plugins.manager import PluginSet
from dataflow.plugins.specs import NodeSpec, Parameter, load
from dataflow.testing.conformance import CAPABILITIES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
FEATURES = ("multi_tenant", "soft_delete", "versioned", "audit_log")
PARITY = REFERENCE / "parity.json"
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
    intro = (
        "A model `User` gets `UserCreateNode`, `UserReadNode` and so on; `db.express` has the same operations.\n"
        "Every node also takes `database` (which instance) and the input `input` (only orders two nodes)."
    )
    parts = [f"{NOTE}# Nodes\n\n{intro}\n"]
    takes = {
        "": "",
        "values": "Takes the model's fields.",
        "changes": "Takes the model's fields except the key, as values or update operators.",
        "defaults": "Takes any field as a default for all rows.",
    }
    for kind in KINDS:
        record = "the record's fields, " if kind.record else ""
        gives = f"Gives {record}{', '.join(f'`{name}`' for name in kind.outputs)}".rstrip(", ") + "."
        doc = f"{kind.doc} {takes[kind.takes_fields]}".rstrip()
        parts.append(_node(f"{{Model}}{kind.suffix}", kind.name, doc, kind.parameters, gives))
    parts.append("# Nodes of features\n\nModels that ask for the feature have them as well.\n")
    for spec, fields in _nodes_of_features():
        gives = ["the record's fields"] if fields else []
        gives += [f"`{name}`" for name in spec.outputs or () if name not in fields]
        parts.append(
            _node(
                spec.type.replace("Sample", "{Model}"),
                spec.operation,
                spec.doc,
                spec.parameters,
                f"Gives {', '.join(gives)}.",
            )
        )
    parts.append("# Nodes without a model\n")
    for spec in PluginSet().workflow_nodes.values():
        outputs = ", ".join(f"`{name}`" for name in spec.outputs or ())
        parts.append(_node(spec.type, "", spec.doc, spec.parameters, f"Gives {outputs}."))
    return "\n".join(parts)


def _node(type_: str, operation: str, doc: str, parameters: Iterable[Parameter], gives: str) -> str:
    rows = ["| parameter | type | default | meaning |", "|---|---|---|---|"]
    for p in parameters:
        default = "required" if p.required else f"`{p.default!r}`"
        rows.append(f"| `{p.name}` | {_cell(p.type)} | {default} | {_cell(p.doc)} |")
    head = f"## `{type_}`{f' · `express.{operation}`' if operation else ''}\n\n{doc}"
    return f"{head}\n\n{chr(10).join(rows)}\n\n{gives}\n"


def _nodes_of_features() -> list[tuple[NodeSpec, Collection[str]]]:
    """Return the node types that a model has only with a feature of ours, and the fields of that model."""
    usual = {kind.name for kind in KINDS}
    with DataFlow(":memory:") as db:
        sample = type("Sample", (), {"__annotations__": {"text": str}, "__dataflow__": dict.fromkeys(FEATURES, True)})
        db.model(sample)
        bound = db.core.models["Sample"]
        own = [spec for spec in bound.nodes.values() if spec.operation not in usual]
        return [(spec, bound.spec.fields if "restored" in (spec.outputs or ()) else ()) for spec in own]


def error_classes() -> str:
    """Every exception class, and every code with the text that comes with it."""
    rows = ["| class | is a | code | when |", "|---|---|---|---|"]
    own = {}
    for name, cls in vars(errors).items():
        if inspect.isclass(cls) and issubclass(cls, errors.DataFlowError):
            first = (cls.__doc__ or "").split("\n")[0]
            rows.append(f"| `{name}` | `{cls.__bases__[0].__name__}` | `{cls.code}` | {first} |")
            own[name] = cls.code
    intro = (
        "Every error has `code`, `message`, `where`, `hint`, `problems` and `to_dict()`. A code may be more precise "
        "than the class's own."
    )
    more = ["| code | class | for example |", "|---|---|---|"]
    for code, (cls, text) in sorted(_codes(own).items()):
        more.append(f"| `{code}` | `{cls}` | {_cell(text)} |")
    return (
        f"{NOTE}# Errors\n\n{intro}\n\n"
        + "\n".join(rows)
        + "\n\n## By code\n\n`…` stands for what is at fault.\n\n"
        + "\n".join(more)
        + "\n"
    )


def _codes(own: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Find every code that is raised: code -> (class, one of the messages)."""
    found: dict[str, tuple[str, str]] = {}
    for source in sorted(ROOT.glob("packages/*/src/dataflow/**/*.py")):
        if "proof" in source.parts or "conformance" in source.parts or "differential" in source.parts:
            continue
        for function in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for cls, code, text in _raised(function, own):
                    found.setdefault(code, (cls, text))
    return found


def _raised(function: ast.AST, own: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yield the errors that a function makes: class, code, message."""
    messages: dict[str, str] = {}
    nodes = [node for node in ast.walk(function) if isinstance(node, ast.Assign | ast.Call)]
    for node in sorted(nodes, key=lambda node: node.lineno):
        if isinstance(node, ast.Assign):
            (target,) = node.targets[:1]
            if isinstance(target, ast.Name):
                messages[target.id] = _text(node.value, {})
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        codes = [
            keyword.value.value
            for keyword in node.keywords
            if keyword.arg == "code" and isinstance(keyword.value, ast.Constant)
        ]
        text = _text(node.args[0], messages) if node.args else ""
        if name in own and text:
            yield name, codes[0] if codes else own[name], text


def _text(node: ast.expr, messages: Mapping[str, str]) -> str:
    """Write a message with … for what it is told at run time."""
    if isinstance(node, ast.Name):
        return messages.get(node.id, "")
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return re.sub("…+", "…", "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
    return ""


def commands() -> str:
    """Every command with its help."""
    parts = [f"{NOTE}# The command line\n\nExit codes: 0 done, 1 a problem was found, 2 wrong usage.\n"]
    group = click.Context(
        click.Group("dataflow"),
        info_name="dataflow",
        terminal_width=100,
        max_content_width=100,
        help_option_names=["-h", "--help"],  # as the program's; click keeps what a command was first asked with
    )
    for name, spec in sorted(PluginSet().commands.items()):
        command = load(spec.command)
        text = command.get_help(click.Context(command, info_name=name, parent=group, max_content_width=100))
        parts.append(f"## `dataflow {name}`\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def parity() -> str:
    """What each dialect does natively, emulates or refuses, as its conformance suites found it."""
    found = json.loads(PARITY.read_text(encoding="utf-8"))
    rows = [f"| feature | promise | {' | '.join(found)} |", f"|---|---|{'---|' * len(found)}"]
    for name, promise in CAPABILITIES.items():
        cells = [_cell(features.get(name, "not tested")) for features in found.values()]
        rows.append(f"| `{name}` | {_cell(promise)} | {' | '.join(cells)} |")
    intro = (
        "What the conformance suites found on each database. *Native*: the database does it. *Emulated*: the dialect "
        "does, with the same result. *Refused*: an error says so, and why. Results are the same wherever the table "
        "does not say *refused*. [plugins.md](../plugins.md#prove-a-dialect) tells how a dialect of your own is tested."
    )
    return f"{NOTE}# Parity\n\n{intro}\n\n" + "\n".join(rows) + "\n"


def measure_parity() -> None:
    """Run the conformance suites of every package, and keep what they found."""
    found = {}
    for module in sorted(ROOT.glob("packages/*/tests/test_conformance.py")):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "card.json"
            own = f"{module.relative_to(ROOT)}::test_the_parity_table_tells_what_the_suites_find"
            options = ["-q", str(module), f"--deselect={own}", f"--scorecard-json={file}"]
            subprocess.run([sys.executable, "-m", "pytest", *options], cwd=ROOT, check=True)  # noqa: S603
            (card,) = json.loads(file.read_text(encoding="utf-8"))
        found[card["dialect"]] = card["features"]
    PARITY.write_text(json.dumps(dict(sorted(found.items())), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


PAGES = {
    "settings.md": settings,
    "hooks.md": hooks,
    "nodes.md": nodes,
    "errors.md": error_classes,
    "cli.md": commands,
    "parity.md": parity,
}

if __name__ == "__main__":
    if sys.argv[1:] == ["parity"]:
        measure_parity()
    REFERENCE.mkdir(exist_ok=True)
    for page, write in PAGES.items():
        (REFERENCE / page).write_text(write(), encoding="utf-8")
