"""The packages of this repository as the packaging tests see them: sources, wheels and bare environments.

Tests take the fixtures `package` (each in turn), `part` (each but core), `core` and `packages`.
"""

import subprocess
import sys
import tomllib
import venv
from email.parser import Parser
from functools import cached_property
from pathlib import Path
from zipfile import ZipFile

import attrs
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
EXTRAS = {
    "dataflow.arrow": "arrow",
    "dataflow.cli": "cli",
    "dataflow.enterprise.cli": "cli",
    "dataflow.files.parquet": "arrow",
    "dataflow.migrations.alembic": "alembic",
    "dataflow.migrations.cli": "cli",
    "dataflow.migrations.preview": "cli",
    "dataflow.migrations.proof": "proof",
    "dataflow.mypy": "typing",
    "dataflow.testing.dev_pg": "cli",
    "dataflow.testing.factories": "factories",
    "dataflow.testing.oracle.strategies": "hypothesis",
}
"""Modules that need an extra of their package."""
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def run(*command, **options):
    """Run a command, show what it printed if it fails, and return its standard output."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@attrs.frozen(slots=False)
class Package:
    """A folder with a ``pyproject.toml``."""

    folder: Path

    @cached_property
    def project(self):
        return tomllib.loads((self.folder / "pyproject.toml").read_text())["project"]

    @property
    def name(self):
        return self.project["name"]

    @property
    def files(self):
        """Everything under ``src/dataflow``, relative to ``src``."""
        found = (self.folder / "src").glob("dataflow/**/*")
        return [
            path.relative_to(self.folder / "src")
            for path in sorted(found)
            if path.is_file() and "__pycache__" not in path.parts
        ]

    @property
    def module(self):
        """What it owns: ``dataflow`` for core, ``dataflow.<part>`` for a part."""
        if Path("dataflow/__init__.py") in self.files:
            return "dataflow"
        (part,) = {path.parts[1] for path in self.files}
        return f"dataflow.{part}"

    @property
    def modules(self):
        """Module name -> path of its source; ``__main__`` is left out because importing it runs it."""
        sources = [path for path in self.files if path.suffix == ".py" and path.stem != "__main__"]
        return {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in sources}

    @property
    def modules_without_extras(self):
        return [module for module in self.modules if not self.extras_of(module)]

    def modules_with(self, *extras):
        """Return the modules that need no other extras than these."""
        return [module for module in self.modules if set(self.extras_of(module)) <= set(extras)]

    def extras_of(self, module):
        """Return the extras that a module needs."""
        return [extra for name, extra in EXTRAS.items() if f"{module}.".startswith(f"{name}.")]

    @property
    def extras(self):
        return self.project.get("optional-dependencies", {})

    def requirements(self, *extras):
        """Return what the package and these extras of it declare."""
        optional = (line for extra in extras for line in self.extras[extra])
        return [Requirement(line) for line in (*self.project["dependencies"], *optional)]


PACKAGES = [Package(path.parent) for path in sorted(ROOT.glob("packages/*/pyproject.toml"))]
CORE = next(package for package in PACKAGES if package.module == "dataflow")


@attrs.frozen
class Wheel:
    path: Path

    @property
    def files(self):
        """Paths it installs, without its metadata."""
        with ZipFile(self.path) as archive:
            return [Path(name) for name in archive.namelist() if ".dist-info/" not in name]

    @property
    def metadata(self):
        with ZipFile(self.path) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            return Parser().parsestr(archive.read(name).decode())


@attrs.frozen
class Environment:
    """A virtual environment that holds only what a test installs."""

    folder: Path

    @property
    def python(self):
        return self.folder / "bin/python"

    def install(self, *arguments):
        run(*PIP, "--python", self.python, "install", "--quiet", "--no-compile", *arguments)

    def run(self, code, *arguments):
        """Run code away from the repository, so that only what is installed can be imported."""
        return run(self.python, "-I", "-c", code, *arguments, cwd=self.folder)

    def import_all(self, modules):
        self.run("import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)", *modules)


@pytest.fixture
def root():
    return ROOT


@pytest.fixture
def packages():
    return PACKAGES


@pytest.fixture
def core():
    return CORE


@pytest.fixture(params=PACKAGES, ids=lambda package: package.folder.name)
def package(request):
    return request.param


@pytest.fixture(params=[p for p in PACKAGES if p is not CORE], ids=lambda package: package.folder.name)
def part(request):
    return request.param


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    """Return distribution name -> wheel, built from the working tree."""
    target = tmp_path_factory.mktemp("wheels")
    folders = [ROOT, *(package.folder for package in PACKAGES)]
    run(*PIP, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", target, *folders)
    built = [Wheel(path) for path in target.glob("*.whl")]
    return {wheel.metadata["Name"]: wheel for wheel in built}


@pytest.fixture
def environment(tmp_path):
    """Return a bare environment."""
    venv.create(tmp_path / "env", symlinks=True)
    return Environment(tmp_path / "env")
