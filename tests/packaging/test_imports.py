"""Who may import what: the arrows of DESIGN.md §2, read from the syntax trees."""

import ast
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import packages_distributions

import pytest
from packaging.utils import canonicalize_name

PRIVATE = re.compile(r"\._(?!_)")


def imports(module, path):
    """Yield every module that a source file may import, absolute; ``from a import b`` counts as a and a.b."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


@cache
def imported(package):
    """Return (importing module, imported module) for every import of a package."""
    return [
        (module, name)
        for module, path in package.modules.items()
        for name in imports(module, package.folder / "src" / path)
    ]


def inside(name, module):
    return name == module or name.startswith(f"{module}.")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("import a.b", {"a.b"}),
        ("from a import b", {"a", "a.b"}),
        ("from . import b", {"dataflow.part", "dataflow.part.b"}),
        ("from ..errors import E", {"dataflow.errors", "dataflow.errors.E"}),
    ],
)
def test_imports_are_recognised_in_every_form(tmp_path, line, expected):
    source = tmp_path / "module.py"
    source.write_text(f"def f():\n    {line}\n")
    assert set(imports("dataflow.part.module", source)) == expected


def test_every_import_is_declared(package):
    owners = packages_distributions()
    undeclared = set()
    for module, name in imported(package):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top == "dataflow":
            continue
        required = package.requirements(*package.extras_of(module))
        declared = {canonicalize_name(requirement.name) for requirement in required}
        if not declared & {canonicalize_name(owner) for owner in owners.get(top, [])}:
            undeclared.add((module, top))
    assert undeclared == set()


def test_no_package_imports_a_part_but_itself(package, packages, core):
    others = [other.module for other in packages if other not in (core, package)]
    found = [pair for pair in imported(package) if any(inside(pair[1], other) for other in others)]
    assert found == []


def test_a_part_imports_nothing_private_of_core(part):
    found = [
        (module, name)
        for module, name in imported(part)
        if inside(name, "dataflow") and not inside(name, part.module) and PRIVATE.search(name)
    ]
    assert found == []


def test_importing_dataflow_loads_no_heavy_module():
    code = "import dataflow, sys; print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "dataflow" in output.split()
    assert {"sqlalchemy", "aiosqlite", "structlog", "click", "rich"} & set(output.split()) == set()
