"""``dataflow plugins new`` and ``dataflow plugins check``: names that are refused, faults that are found."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from dataflow.cli import scaffold as scaffolding
from dataflow.cli.checking import check_target, private_names
from dataflow.cli.program import CommandError
from dataflow.cli.scaffold import placeholders, scaffold

FAULTY = Path(__file__).parent / "distributions/faulty"
PROGRAM = [sys.executable, "-c", "from dataflow.cli import main; main()"]


def program(*arguments, cwd):
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, check=False, cwd=cwd)


# -- new --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["slugs", "dataflow-slugs", "order_numbers", "a1-b2"])
def test_names_that_can_be_used(name):
    words = placeholders(name)
    assert words["package"].isidentifier()
    assert words["Name"].isidentifier()
    assert "_" not in words["distribution"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        *[(name, "is no name") for name in ("Slugs", "a--b", "1a", "", "../a", "a/b", "é", "a\n")],
        ("asyncio", "Python's own library"), ("dataflow-json", "Python's own library"),
        ("class", "a word of the language"), ("dataflow", "DataFlow's own"), ("workflow-dataflow-x", "DataFlow's own"),
        ("sqlite", "is installed"), ("dataflow-sqlite", "is installed"),
        ("soft-delete", "setting or model option"), ("pool-size", "setting or model option"),
    ],
)  # fmt: skip
def test_a_name_that_cannot_be_used_is_refused_and_nothing_is_written(name, why, tmp_path):
    with pytest.raises(CommandError, match=why) as caught:
        scaffold("node", name, tmp_path)
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays_as_it_is(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(CommandError, match="is there already"):
        scaffold("node", "mine", tmp_path)
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_failure_on_the_way_leaves_nothing(tmp_path, monkeypatch):
    def fails(part, words):
        if part.startswith("README"):
            raise OSError(28, "No space left on device")
        return part

    monkeypatch.setattr(scaffolding, "_part", fails)
    with pytest.raises(CommandError, match="No space left"):
        scaffold("feature", "mine", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match="cannot be written"):
        scaffold("node", "mine", tmp_path / "file")


def test_no_placeholder_is_left_over(tmp_path):
    made = scaffold("feature", "dataflow-order-numbers", tmp_path / "new")
    folder = Path(made.folder)
    assert (made.distribution, made.package, made.plugin) == (
        "dataflow-order-numbers", "dataflow_order_numbers", "order-numbers",
    )  # fmt: skip
    assert sorted(made.files) == sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    assert {".gitignore", "pyproject.toml", "src/dataflow_order_numbers/py.typed"} <= set(made.files)
    assert "$" not in "".join((folder / file).read_text() for file in made.files)


def test_the_program_answers_in_json_and_lists_plugins_as_before(tmp_path):
    made = json.loads(program("plugins", "new", "node", "mine", "--json", cwd=tmp_path).stdout)
    assert (made["ok"], made["folder"]) == (True, "mine")
    again = program("plugins", "new", "node", "mine", "--json", cwd=tmp_path)
    assert (again.returncode, json.loads(again.stderr)["code"]) == (2, "bad-file")
    assert program("plugins", "new", "nod", "mine", cwd=tmp_path).returncode == 2
    listed = json.loads(program("plugins", "--json", cwd=tmp_path).stdout)
    assert "sqlite" in {plugin["name"] for plugin in listed["plugins"]}


# -- check ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def project(tmp_path):
    """The project of a feature, without faults."""
    return Path(scaffold("feature", "acme-mark", tmp_path).folder)


def change(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def problems(report):
    return {found.check: found for found in report.findings if found.state == "problem"}


@pytest.mark.packaging
def test_a_good_project_has_no_problem_and_is_not_imported_here(project):
    report = check_target(str(project))
    assert [found for found in report.findings if found.state != "ok"] == []
    assert {found.check for found in report.findings} == {
        "build", "metadata", "requires", "entry point", "contents", "typed", "private", "import", "light", "api",
        "hooks", "descriptors", "model",
    }  # fmt: skip
    assert "acme_mark" not in sys.modules
    assert [path for path in project.rglob("*") if path.suffix == ".whl" or path.name == "__pycache__"] == []


PLUGIN, FEATURE, TOML = "src/acme_mark/plugin.py", "src/acme_mark/feature.py", "pyproject.toml"
FAULTS = {
    "no core": (TOML, '["workflow-dataflow-core>=0.1,<1"]', "[]", "requires", "does not require"),
    "no lower bound": (TOML, "core>=0.1,<1", "core<1", "requires", "no lower bound"),
    "no upper bound": (TOML, "core>=0.1,<1", "core>=0.1", "requires", "next major version"),
    "too high": (TOML, "core>=0.1,<1", "core>=0.1,<10", "requires", "next major version"),
    "other group": (TOML, '"dataflow.plugins"', '"dataflow.plugin"', "entry point", "no entry point"),
    "other module": (TOML, '"acme_mark.plugin"', '"acme_mark.plugins"', "import", "No module named"),
    "our name": (TOML, 'name = "acme-mark"', 'name = "workflow-dataflow-mark"', "metadata", "DataFlow's own"),
    "no backend": (TOML, "hatchling.build", "hatchling.bild", "build", "cannot be built"),
    "not toml": (TOML, "[project]", "[project", "metadata", "cannot be read"),
    "misspelt": (PLUGIN, "def dataflow_settings", "def dataflow_setings", "hooks", "which is not a hook"),
    "unmarked": (PLUGIN, "@hookimpl\ndef dataflow_settings", "def dataflow_settings", "hooks", "without @hookimpl"),
    "argument": (PLUGIN, 'model: "ModelDraft"', 'model: "ModelDraft", table: str', "hooks", "misuses a hook"),
    "later api": (PLUGIN, 'dataflow_api = "1.0"', 'dataflow_api = "2.0"', "api", "needs plugin API 2.0"),
    "no api": (PLUGIN, "dataflow_api =", "api =", "api", "does not state"),
    "heavy": (PLUGIN, "from collections", "import sqlalchemy\nfrom collections", "light", "imports sqlalchemy"),
    "exits": (PLUGIN, "dataflow_api =", "import os\nos._exit(3)\ndataflow_api =", "import", "ends the process"),
    "no spec": (PLUGIN, "return [SettingSpec(", "return [dict(", "descriptors", ""),
    "taken": (PLUGIN, '"acme_mark", bool, False, doc, scope="model"', '"echo", bool', "descriptors", "provided twice"),
    "private": (FEATURE, "from dataflow.m", "import dataflow._loop\nfrom dataflow.m", "private", "dataflow._loop"),
    "broken feature": (FEATURE, "draft.add_field(", "draft.add_feld(", "model", "add_feld"),
    "syntax": (FEATURE, "class AcmeMark:", "class AcmeMark", "private", "feature.py:14"),
}  # fmt: skip


@pytest.mark.packaging
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_and_comes_with_its_fix(project, fault):
    file, old, new, check, message = FAULTS[fault]
    change(project / file, old, new)
    found = problems(check_target(str(project)))
    assert message in found[check].message
    assert found[check].hint


@pytest.mark.packaging
def test_files_in_dataflows_package_and_a_missing_mark_of_types_are_found(project):
    (project / "src/acme_mark/py.typed").unlink()
    (project / "src/dataflow/mark").mkdir(parents=True)
    (project / "src/dataflow/mark/__init__.py").write_text("")
    change(project / TOML, '["src/acme_mark"]', '["src/acme_mark", "src/dataflow"]')
    report = check_target(str(project))
    assert "into DataFlow's package: dataflow/mark/__init__.py" in problems(report)["contents"].message
    assert [found.check for found in report.findings if found.state == "warning"] == ["typed"]


@pytest.mark.packaging
def test_a_dialect_needs_a_test_that_runs_the_suites(project):
    (project / PLUGIN).write_text(
        'from dataflow.plugins import DialectSpec, hookimpl\n\ndataflow_api = "1.0"\n\n\n@hookimpl\n'
        "def dataflow_dialects():\n"
        '    return [DialectSpec("acme", ("acme",), "acme_mark.feature:AcmeMark", {"arrays": "perhaps"})]\n'
    )
    found = problems(check_target(str(project)))
    assert "'arrays' is 'perhaps'" in found["descriptors"].message
    assert "no test runs the conformance suites" in found["conformance"].message
    (project / "tests/test_conformance.py").write_text("from dataflow.testing.conformance import *\n")
    assert "conformance" not in problems(check_target(str(project)))


@pytest.mark.packaging
def test_every_faulty_plugin_of_a_distribution_is_told_by_name(tmp_path):
    done = program("plugins", "check", str(FAULTY), "--json", cwd=tmp_path)
    findings = json.loads(done.stdout)["findings"]
    wrong = {found["check"].partition(":")[0] for found in findings if found["state"] == "problem"}
    assert wrong == {"broken", "exiting", "absent", "modern", "misspelt", "unmarked", "curious", "failing"}
    text = program("plugins", "check", str(FAULTY), cwd=tmp_path)
    assert text.returncode == done.returncode == 1
    assert "problem: misspelt: implements dataflow_setings" in " ".join(text.stdout.split())
    assert "fix: did you mean dataflow_settings?" in text.stdout


def test_what_is_no_plugin_is_a_usage_error(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "no.whl").write_text("")
    for target, message in (("nobody", "neither a project"), ("folder", "no pyproject.toml")):
        done = program("plugins", "check", target, cwd=tmp_path)
        assert done.returncode == 2
        assert message in done.stderr
    assert "is no wheel" in program("plugins", "check", "no.whl", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("import dataflow._loop", ["dataflow._loop"]),
        ("import dataflow\ndataflow.session._loop.stopped()", ["dataflow.session._loop"]),
        ("from dataflow.session import _loop as here", ["dataflow.session._loop"]),
        ("from dataflow._loop import stopped", ["dataflow._loop.stopped"]),
        ("from dataflow import session\nsession._NOTHING", ["dataflow.session._NOTHING"]),
        ("import dataflow.session as s\ns._NOTHING", ["dataflow.session._NOTHING"]),
        ("import dataflow, other\ndataflow.__version__; other._x; self._x", []),
        ("from .dataflow import _x\nfrom dataflows import _y", []),
    ],
)
def test_private_names_are_found_however_they_are_reached(code, names):
    assert [name for name, _ in private_names(ast.parse(code))] == names
