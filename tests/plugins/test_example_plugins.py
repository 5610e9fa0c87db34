"""The plugins under ``examples/plugins``, and what ``dataflow plugins new`` writes, as others have them.

Wheels of ours and of the examples are installed into one fresh environment, with what they need from the package index;
there each suite runs, each distribution is checked, and the shell lines of the guide for authors are typed.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPEC = spec_from_file_location("tests_of_packaging", ROOT / "tests/packaging/conftest.py")
PACKAGING = module_from_spec(SPEC)
SPEC.loader.exec_module(PACKAGING)
wheels = PACKAGING.wheels

EXAMPLES = sorted(path.parent for path in ROOT.glob("examples/plugins/*/pyproject.toml"))
TEMPLATES = ROOT / "packages/dataflow-core/src/dataflow/cli/templates"
KINDS = sorted(path.name for path in TEMPLATES.iterdir() if path.is_dir())
GUIDE = ROOT / "docs/plugins.md"
SHELL = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
SECONDS = 240
SHARE = """
def pytest_collection_modifyitems(config, items):
    config.hook.pytest_deselected(items=[item for place, item in enumerate(items) if place % {every}])
    items[:] = items[::{every}]
"""
EVERY = {"dataflow-duckdb": 5, "dialect": 5}
"""Of suites of hundreds of tests, that many-th is run here: each of them has passed whole where its author works."""
pytestmark = [pytest.mark.packaging, pytest.mark.timeout(300)]


class Installation:
    """A fresh environment in which a plugin's author works."""

    def __init__(self, folder, built):
        self.folder = folder
        self.bin = folder / "env/bin"
        self.built = built

    def run(self, *command, cwd=None, ok=True):
        """Run a command of the environment away from the repository; return what it did."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("DATAFLOW_", "DATABASE_"))}
        mine = {
            "PATH": f"{self.bin}{os.pathsep}{clean['PATH']}",
            "PIP_FIND_LINKS": str(self.folder / "wheels"),
            "PIP_CONSTRAINT": str(ROOT / "constraints.txt"),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this one the other way round
            "PIP_QUIET": "1",
        }
        # the server of the surrounding run is used, where there is one
        mine |= {name: os.environ[name] for name in ("DATAFLOW_TEST_POSTGRES",) if name in os.environ}
        done = subprocess.run(
            command, cwd=cwd or self.folder, env={**clean, **mine}, capture_output=True, text=True, timeout=SECONDS,
            check=False,
        )  # fmt: skip
        assert not ok or done.returncode == 0, f"{command}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
        return done

    def pytest(self, folder, *, every=1):
        """Run the tests of a project, or a share of them; return what pytest says."""
        options = ["-q", "-p", "no:cacheprovider"]
        if every > 1:
            (self.folder / f"every_{every}.py").write_text(SHARE.format(every=every), encoding="utf-8")
            options += ["-p", f"every_{every}", "--override-ini", f"pythonpath={self.folder}"]
        return self.run(self.bin / "python", "-m", "pytest", *options, cwd=folder).stdout

    def check(self, target):
        return json.loads(self.run(self.bin / "dataflow", "plugins", "check", str(target), "--json").stdout)


@pytest.fixture(scope="session")
def installed(tmp_path_factory, wheels):
    """Build the examples, and install everything with what it needs to be tested."""
    folder = tmp_path_factory.mktemp("author")
    (folder / "wheels").mkdir()
    for wheel in wheels.values():
        (folder / "wheels" / wheel.path.name).symlink_to(wheel.path)
    built = {}
    for example in EXAMPLES:  # one that cannot be built fails its own tests only
        target = folder / "wheels" / example.name
        build = [
            *PACKAGING.PIP,
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--wheel-dir",
            target,
            example,
        ]
        done = subprocess.run(build, capture_output=True, text=True, check=False)
        built[example.name] = next(target.glob("*.whl"), None) if done.returncode == 0 else None
    venv.create(folder / "env", symlinks=True)
    core = f"workflow-dataflow-core[cli] @ {wheels['workflow-dataflow-core'].path.as_uri()}"
    postgres = ["workflow-dataflow-postgres", "workflow-dataflow-sqlite", "workflow-dataflow-testing[postgres]"]
    requested = [f"{path}[test]" for path in built.values() if path is not None]
    PACKAGING.run(
        *PACKAGING.PIP, "--python", folder / "env/bin/python", "install", "--quiet", "--no-compile",
        "--find-links", folder / "wheels", "--constraint", ROOT / "constraints.txt",
        core, *postgres, *requested, "pytest", "pip", "hatchling", "editables",
    )  # fmt: skip
    return Installation(folder, built)


@pytest.fixture(scope="session")
def begun(installed):
    """Begin a plugin of each kind."""
    for kind in KINDS:
        installed.run(installed.bin / "dataflow", "plugins", "new", kind, f"acme-{kind}", "--into", "begun")
    return installed.folder / "begun"


def without_problems(report):
    return report["ok"] and [(f["check"], f["message"]) for f in report["findings"] if f["state"] != "ok"] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_passes_its_own_tests_where_it_is_installed(installed, example):
    assert installed.built[example.name] is not None, f"pip wheel {example} fails"
    tests = shutil.copytree(example, installed.folder / f"tests-of-{example.name}")
    shutil.rmtree(tests / "src")  # what is tested is what is installed
    assert re.search(r"\d+ passed", installed.pytest(tests, every=EVERY.get(example.name, 1)))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_passes_the_check_as_project_as_wheel_and_installed(installed, example):
    wheel = installed.built[example.name]
    project = installed.check(example)
    assert without_problems(project), project
    for target in (wheel, project["subject"].partition(" ")[0]):
        report = installed.check(target)
        assert report["ok"], report


@pytest.mark.parametrize("kind", KINDS)
def test_what_new_writes_passes_its_tests_and_the_check_as_it_is(installed, begun, kind):
    folder = begun / f"acme-{kind}"
    installed.run(installed.bin / "python", "-m", "pip", "install", "-e", ".[test]", cwd=folder)
    assert re.search(r"\d+ passed", installed.pytest(folder, every=EVERY.get(kind, 1)))
    report = installed.check(folder)
    assert without_problems(report), report


@pytest.mark.parametrize("kind", KINDS)
def test_what_new_writes_is_clean_to_ruff_and_mypy(installed, begun, kind):
    folder = begun / f"acme-{kind}"
    for command in (
        ["ruff", "check"],
        ["ruff", "format", "--check"],
        ["mypy", "--python-executable", installed.bin / "python"],
    ):
        cache = [] if command[0] == "ruff" else ["--cache-dir", installed.folder / "mypy"]
        done = subprocess.run(
            [sys.executable, "-m", *command, *cache],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_shell_lines_of_the_guide_work_one_after_the_other(installed):
    lines = "".join(SHELL.findall(GUIDE.read_text(encoding="utf-8")))
    assert "dataflow plugins new" in lines
    (installed.folder / "guide").mkdir()
    done = installed.run("bash", "-euxc", lines, cwd=installed.folder / "guide")
    assert re.search(r"\d+ passed", done.stdout)
    assert "problem" not in done.stdout
