"""Every hook is documented in one form, and a test exercises it. Both are read from the sources."""

import ast
import inspect
import re
from functools import cache
from pathlib import Path

import pytest

from dataflow import plugins
from dataflow.plugins import hookspecs
from dataflow.plugins.manager import HOOKS

ROOT = Path(__file__).parents[1]
SOURCE = ast.parse(Path(hookspecs.__file__).read_text(encoding="utf-8"))
SPECS = {node.name: node for node in SOURCE.body if isinstance(node, ast.FunctionDef)}
TESTS = [
    path for start in ("tests", "packages/*/tests") for path in ROOT.glob(f"{start}/**/*.py") if path != Path(__file__)
]


def parts_of(hook):
    """Return the paragraphs of a hook's docstring before its example, and the example."""
    text, _, example = inspect.cleandoc(ast.get_docstring(SPECS[hook])).partition("\nExample:\n")
    return [" ".join(part.split()) for part in text.split("\n\n") if part.strip()], example


@cache
def exercised():
    """Return every hook that a test implements: a marked function, or a keyword of a call of ``plugin(…)``."""
    found = {}
    for path in TESTS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and any("hookimpl" in ast.unparse(d) for d in node.decorator_list):
                found.setdefault(node.name, path)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("plugin", "twice"):
                names = [keyword.arg for keyword in node.keywords]
                names += [part.value for part in node.args if isinstance(part, ast.Constant)]
                found.update({name: path for name in names if name in SPECS})
    return found


def test_the_specifications_are_the_hooks():
    assert tuple(SPECS) == HOOKS
    assert all(ast.unparse(node.decorator_list[0]).startswith("hookspec") for node in SPECS.values())


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_says_what_it_is_for_when_it_is_called_what_it_returns_and_what_conflicts(hook):
    (purpose, called, returns, rule), _ = parts_of(hook)
    assert re.fullmatch(r"[A-Z][a-z]+ ([^.`]|``.+?``|`.+?`)*\.", purpose), "one imperative sentence"
    assert called.startswith("Called ")
    assert returns.startswith("Returns ")
    assert re.search(r"conflict|wins", rule)
    assert all(part.endswith(".") for part in (called, returns, rule))


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_shows_an_example_that_is_code_for_its_body(hook):
    _, example = parts_of(hook)
    code = re.match(r"\s*``(.+?)``", example).group(1)
    arguments = ", ".join(argument.arg for argument in SPECS[hook].args.args)
    (function,) = ast.parse(f"def {hook}({arguments}):\n    {code}").body
    names = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    specs = {name for name in names if name.endswith(("Spec", "Check"))}
    assert specs <= set(plugins.__all__)
    assert specs or names & set(arguments.split(", ")), "it shows a descriptor or uses an argument"


@pytest.mark.parametrize("hook", HOOKS)
def test_only_the_resolution_of_annotations_stops_at_the_first_answer(hook):
    first = "firstresult=True" in ast.unparse(SPECS[hook].decorator_list[0])
    assert first == (hook == "dataflow_resolve_annotation")


@pytest.mark.parametrize("hook", HOOKS)
def test_a_test_exercises_the_hook(hook):
    assert hook in exercised()


def test_the_table_of_the_guide_to_plugins_links_to_the_reference_of_every_hook():
    reference = (ROOT / "docs" / "reference" / "hooks.md").read_text(encoding="utf-8")
    assert re.findall(r"^## `(dataflow_\w+)", reference, re.MULTILINE) == list(HOOKS)
    assert "reference/hooks.md" in (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
