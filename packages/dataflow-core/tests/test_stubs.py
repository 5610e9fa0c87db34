"""What `dataflow stubs` writes: mypy and pyright find the faults of a program, and none in a right one."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dataflow import DataFlow, typed
from dataflow.plugins import hookimpl
from dataflow.stubs import render
from dataflow.types import FieldType
from dataflow.workflow import WorkflowBuilder

ROOT = Path(__file__).parents[3]
PROGRAMS = Path(__file__).parent / "typed_app"
CONFIG = """
[tool.mypy]
strict = true
mypy_path = "$MYPY_CONFIG_FILE_DIR/typings"
plugins = ["dataflow.mypy"]

[tool.pyright]
typeCheckingMode = "strict"
"""
FAULT = re.compile(r"# fault: ([\w-]+), (\w+)$")


def run(folder, *command, code=0):
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def dataflow(folder, *arguments, code=0):
    return run(folder, "-c", "from dataflow.cli import main; main()", *arguments, code=code)


def mypy(folder, *arguments, code=0):
    """Return the errors as (file, line, code)."""
    out = run(folder, "-m", "mypy", "--hide-error-context", "--no-error-summary", *arguments, code=code)
    found = re.findall(r"^(\w+)\.py:(\d+): error: .*\[([\w-]+)\]$", out, re.MULTILINE)
    assert len(found) == out.count(": error: "), out
    return {(file, int(line), kind) for file, line, kind in found}


def pyright(folder, *arguments, code=0):
    """Return the errors as (file, line, rule)."""
    arguments = ("-p", ".", "--pythonpath", sys.executable, "--outputjson", *arguments)
    report = json.loads(run(folder, "-m", "pyright", *arguments, code=code))
    return {
        (Path(one["file"]).stem, one["range"]["start"]["line"] + 1, one["rule"]) for one in report["generalDiagnostics"]
    }


@pytest.fixture(scope="module")
def office(tmp_path_factory):
    """A project with an app, its stubs, and programs that use it."""
    folder = tmp_path_factory.mktemp("office")
    shutil.copytree(PROGRAMS, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "pyproject.toml").write_text(CONFIG)
    assert "wrote 5 files in typings: 3 models of office.py:db" in dataflow(folder, "stubs", "--app", "office.py")
    return folder


def faults():
    """Return the faults that `faults.py` announces: (line, mypy's code, pyright's rule)."""
    lines = (PROGRAMS / "faults.py").read_text(encoding="utf-8").splitlines()
    return [(number, *found.groups()) for number, line in enumerate(lines, 1) if (found := FAULT.search(line))]


def test_mypy_finds_every_fault_where_it_is_and_none_in_a_right_program(office):
    assert mypy(office, ".", code=1) == {("faults", line, code) for line, code, _ in faults()}


def test_pyright_finds_every_fault_where_it_is_and_none_in_a_right_program(office):
    found = pyright(office, code=1)
    assert {file for file, _, _ in found} == {"faults"}  # the stubs themselves are checked along
    assert {line for _, line, _ in found if line != faults()[-1][0] + 1} == {line for line, *_ in faults()}
    assert {("faults", line, rule) for line, _, rule in faults()} <= found


def test_mypy_without_the_plugin_finds_the_same_lines(office):
    (office / "plain.toml").write_text(CONFIG.replace("plugins", "# plugins"))
    found = mypy(office, "--config-file", "plain.toml", "tour.py", "faults.py", code=1)
    assert {(file, line) for file, line, _ in found} == {("faults", line) for line, *_ in faults()}


def test_the_right_program_runs(office):
    assert "'greeting': 'Hello Ada'" in run(office, "tour.py")


def test_the_program_of_the_readme_is_right_in_strict_mode(tmp_path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first, second, *_ = re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    (tmp_path / "shop.py").write_text(f"{first}\n\n{second}", encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(CONFIG)
    dataflow(tmp_path, "stubs", "--app", "shop.py")
    assert mypy(tmp_path, "shop.py") == set()
    assert pyright(tmp_path, "shop.py") == set()


# -- the command ------------------------------------------------------------------------------------------------------
APP = """
from dataflow import DataFlow

db = DataFlow(":memory:")


@db.model
class User:
    name: str
    {field}
"""


def test_check_says_what_is_not_current_and_fails(tmp_path):
    app = tmp_path / "app.py"
    app.write_text(APP.format(field="age: int = 0"))
    command = ("stubs", "--app", "app.py", "--out", "stubs")
    assert "stubs/dataflow/typed.pyi:\n  it is missing" in dataflow(tmp_path, *command, "--check", code=1)
    assert not (tmp_path / "stubs").exists()
    dataflow(tmp_path, *command)
    assert "are current: 1 model" in dataflow(tmp_path, *command, "--check")
    assert "all files are current" in dataflow(tmp_path, *command)
    app.write_text(APP.format(field="age: str = ''"))
    told = dataflow(tmp_path, *command, "--check", code=1)
    assert "-    'age': int,\n  +    'age': str," in told
    assert "to write them: dataflow stubs --app app.py --out stubs" in told
    report = json.loads(dataflow(tmp_path, *command, "--check", "--json", code=1))
    assert "dataflow/typed.pyi" in report["outdated"]


def test_an_app_without_models_has_no_stubs(tmp_path):
    (tmp_path / "app.py").write_text("from dataflow import DataFlow\ndb = DataFlow(':memory:')\n")
    dataflow(tmp_path, "stubs", "--app", "app.py", code=2)
    assert not (tmp_path / "typings").exists()


def models(names):
    db = DataFlow(":memory:")
    for name in names:
        db.model(type(name, (), {"__annotations__": {"name": str}}))
    return db


def test_the_order_of_registration_does_not_change_the_stubs():
    with models(["User", "Order"]) as one, models(["Order", "User"]) as other:
        assert render(one.core) == render(other.core)


def test_the_builder_of_the_stubs_has_the_methods_of_the_real_one():
    with models(["User"]) as db:
        text = render(db.core)["dataflow/workflow/builder.pyi"]
    real = {name for name in vars(WorkflowBuilder) if not name.startswith("_")} | set(vars(WorkflowBuilder()))
    assert real == set(re.findall(r"^ +(?:def )?([a-z]\w*)[(:]", text, re.MULTILINE)) - {"if", "else"}


class Money:
    pass


class MoneyType(FieldType):
    annotations = (f"{__name__}.Money", f"{__name__}.Money")


def test_a_field_type_of_a_plugin_says_what_it_takes_and_gives():
    class Plugin:
        dataflow_api = "1.0"

        @hookimpl
        def dataflow_resolve_annotation(self, annotation, model_name):
            return MoneyType() if annotation is Money else None

    with DataFlow(":memory:", plugins=[Plugin()]) as db:
        db.model(type("Bill", (), {"__annotations__": {"sum": Money}}))
        text = render(db.core)["dataflow/typed.pyi"]
    assert f"import {__name__}\n" in text
    assert f"'sum': {__name__}.Money,\n" in text


def test_names_of_record_types_can_be_imported_when_a_program_runs():
    assert typed.UserRecord.__origin__ is dict
    with pytest.raises(AttributeError):
        typed.__wrapped__  # noqa: B018
