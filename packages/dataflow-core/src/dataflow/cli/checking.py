"""``dataflow plugins check``: looks at a plugin's project, wheel or installed distribution, as others would get it.

A project is built first; what the wheel holds is what is looked at, in a process of its own (`inspecting`). Nothing of
the plugin is imported here.
"""

import ast
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, PathDistribution, distribution
from importlib.util import find_spec
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import attrs

from dataflow.cli.program import CommandError
from dataflow.errors import Problem

GROUP = "dataflow.plugins"
CORE = "workflow-dataflow-core"
SECONDS = 180
"""How long a build, or a look at one plugin, may take."""


@attrs.frozen
class Finding:
    """One thing that was looked at.

    Attributes:
        check: metadata, requires, entry point, build, contents, typed, private, conformance, or what `inspecting` says.
        state: ok, warning or problem.
        message: what was found.
        hint: the fix, unless it is ok.
    """

    check: str
    state: str
    message: str
    hint: str = ""

    def as_problem(self) -> Problem:
        """Return it as the other commands tell problems."""
        point, several, _ = self.check.rpartition(": ")
        return Problem(self.check, f"{point}{several}{self.message}", self.hint)


@attrs.frozen
class Report:
    """What was found out about a plugin's distribution; `subject` is its name and version."""

    subject: str
    findings: tuple[Finding, ...]


def check_target(target: str) -> Report:
    """Check the folder of a project, a wheel, or an installed distribution.

    Raises:
        CommandError: it is none of them.
    """
    path = Path(target)
    with tempfile.TemporaryDirectory(prefix="dataflow-check-") as place:
        scratch = Path(place)
        if (path / "pyproject.toml").is_file():
            return _project(path.resolve(), scratch)
        if path.is_file() and path.suffix == ".whl":
            return _wheel(path, scratch, tests=None)
        try:
            return _installed(distribution(target))
        except (PackageNotFoundError, ValueError):
            what = "has no pyproject.toml" if path.is_dir() else "is neither a project, a wheel nor installed"
            hint = "name the folder of a project, a .whl file, or a distribution that is installed here"
            raise CommandError(f"{target!r} {what}", hint=hint, code="no-plugin") from None


# -- the three kinds of targets ----------------------------------------------------------------------------------------
def _project(folder: Path, scratch: Path) -> Report:
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        found = Finding("metadata", "problem", f"pyproject.toml cannot be read: {error}", "correct that line")
        return Report(folder.name, (found,))
    if not project.get("name"):
        found = Finding("metadata", "problem", "pyproject.toml has no [project] with a name", "give it a name")
        return Report(folder.name, (found,))
    built = _build(folder, scratch / "wheel")
    if isinstance(built, Finding):
        return Report(project["name"], (built,))
    report = _wheel(built, scratch, tests=folder / "tests")
    return attrs.evolve(report, findings=(Finding("build", "ok", f"{built.name} was built"), *report.findings))


def _build(folder: Path, target: Path) -> Path | Finding:
    if find_spec("pip") is None:
        hint = f"install pip for {sys.executable}, or build the wheel and check that"
        return Finding("build", "problem", "the wheel cannot be built: pip is not installed here", hint)
    build = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    isolated = [] if find_spec("hatchling") is None else ["--no-build-isolation"]
    for options in (isolated, []) if isolated else ([],):
        done = _run([*build, *options, "--wheel-dir", str(target), str(folder)])
        wheels = sorted(target.glob("*.whl"))
        if done.returncode == 0 and wheels:
            return wheels[0]
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["no wheel"]
    cause = next((line for line in reversed(lines) if re.match(r"[\w.]*(Error|Exception): ", line)), lines[0])
    return Finding("build", "problem", f"the wheel cannot be built: {cause}", "see 'pip wheel --no-deps .'")


def _wheel(path: Path, scratch: Path, *, tests: Path | None) -> Report:
    inside = scratch / "inside"
    try:
        with ZipFile(path) as archive:
            archive.extractall(inside)
        (info,) = inside.glob("*.dist-info")
    except (BadZipFile, OSError, ValueError):
        found = Finding("contents", "problem", f"{path.name} is no wheel", "build it again")
        return Report(path.name, (found,))
    files = [file.relative_to(inside) for file in sorted(inside.rglob("*")) if file.is_file()]
    return _look(PathDistribution(info), inside, files, tests)


def _installed(dist: Distribution) -> Report:
    root = Path(str(dist.locate_file("")))
    files = [Path(str(file)) for file in dist.files or () if ".." not in file.parts and "__pycache__" not in file.parts]
    origin = json.loads(dist.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        hint = "check the folder of the project instead"
        found = Finding("contents", "warning", "it is installed from a folder that is being worked on", hint)
        report = _look(dist, root, files, None)
        kept = [finding for finding in report.findings if finding.check not in ("contents", "typed", "private")]
        return attrs.evolve(report, findings=(found, *kept))
    return _look(dist, root, files, None)


def _look(dist: Distribution, root: Path, files: Sequence[Path], tests: Path | None) -> Report:
    findings = [*_metadata(dist), *_contents(dist, root, files), *_private(root, files)]
    dialects = False
    for point in dist.entry_points:
        if point.group != GROUP:
            continue
        rows = _inspected(root, point.value)
        several = sum(other.group == GROUP for other in dist.entry_points) > 1
        findings += [attrs.evolve(row, check=f"{point.name}: {row.check}") for row in rows] if several else rows
        dialects |= any(row.check == "hooks" and "dataflow_dialects" in row.message for row in rows)
    if dialects:
        findings.append(_conformance(tests))
    return Report(f"{dist.metadata['Name']} {dist.version}", tuple(findings))


# -- the checks --------------------------------------------------------------------------------------------------------
def _metadata(dist: Distribution) -> Iterator[Finding]:
    name = dist.metadata["Name"]
    if name == "dataflow" or name.startswith("workflow-dataflow"):
        yield Finding("metadata", "problem", f"{name} is a name of DataFlow's own", "call it dataflow-… or as you like")
    else:
        yield Finding("metadata", "ok", f"{name} {dist.version}")
    core = next((line for line in dist.requires or () if re.match(rf"{CORE}(?![\w.-])", line)), None)
    hint = f'dependencies = ["{CORE}>=0.1,<1"]'
    if core is None or ";" in core:
        yield Finding("requires", "problem", f"it does not require {CORE}", hint)
    elif ">=" not in core and "~=" not in core:
        yield Finding("requires", "problem", f"{core!r} has no lower bound: older ones may lack what it needs", hint)
    elif not re.search(r"<\s*1(\.0)*(?![\d.])", core):
        yield Finding("requires", "problem", f"{core!r} lets the next major version in, which may differ", hint)
    else:
        yield Finding("requires", "ok", core)
    points = [point for point in dist.entry_points if point.group == GROUP]
    if points:
        yield Finding("entry point", "ok", ", ".join(f"{point.name} = {point.value}" for point in points))
    else:
        hint = f'[project.entry-points."{GROUP}"] name = "package.plugin"'
        yield Finding("entry point", "problem", f"no entry point in the group {GROUP!r}: nobody would find it", hint)


def _contents(dist: Distribution, root: Path, files: Sequence[Path]) -> Iterator[Finding]:
    inside = [file for file in files if not file.parts[0].endswith((".dist-info", ".data"))]
    foreign = [file.as_posix() for file in inside if file.parts[0] == "dataflow"]
    if foreign:
        hint = "give the plugin a top-level package of its own"
        yield Finding("contents", "problem", f"it puts files into DataFlow's package: {', '.join(foreign[:3])}", hint)
    packages = sorted(
        {point.module.partition(".")[0] for point in dist.entry_points if point.group == GROUP} - {"dataflow"}
    )
    for package in packages:
        own = [file for file in inside if file.parts[0] in (package, f"{package}.py")]
        if not own:
            hint = f'[tool.hatch.build.targets.wheel] packages = ["src/{package}"]'
            yield Finding("contents", "problem", f"the wheel does not contain {package}", hint)
            continue
        yield Finding("contents", "ok", f"{package}, {len(own)} file{'s' * (len(own) != 1)}")
        if (root / package / "py.typed").is_file():
            yield Finding("typed", "ok", f"{package} is marked as typed")
        else:
            hint = f"add an empty file {package}/py.typed"
            yield Finding("typed", "warning", f"{package} has no py.typed: type checkers ignore its annotations", hint)


def _private(root: Path, files: Sequence[Path]) -> Iterator[Finding]:
    used: list[str] = []
    for file in files:
        if file.suffix == ".py" and file.parts[0] != "dataflow":
            try:
                tree = ast.parse((root / file).read_bytes())
            except (SyntaxError, ValueError) as error:
                line = getattr(error, "lineno", None) or 1
                yield Finding("private", "problem", f"{file.as_posix()}:{line} cannot be parsed", "correct that line")
                continue
            used += [f"{name} ({file.as_posix()}:{line})" for name, line in private_names(tree)]
    if used:
        more = f" and {len(used) - 5} more" if len(used) > 5 else ""
        hint = "use public names; what cannot be done with them is a defect of DataFlow: tell us"
        yield Finding("private", "problem", f"it uses private names: {', '.join(used[:5])}{more}", hint)
    else:
        yield Finding("private", "ok", "it uses public names of DataFlow only")


def private_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield (dotted name, line) of each private name of DataFlow that a module imports or reaches by attributes."""
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if f"{alias.name}.".startswith("dataflow."):
                    known[alias.asname or "dataflow"] = alias.name if alias.asname else "dataflow"
                    if _is_private(alias.name):
                        yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and not node.level and f"{node.module}.".startswith("dataflow."):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                known[alias.asname or alias.name] = name
                if _is_private(name):
                    yield name, node.lineno
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _is_private(node.attr):
            parts, value = [node.attr], node.value
            while isinstance(value, ast.Attribute):
                parts.insert(0, value.attr)
                value = value.value
            if isinstance(value, ast.Name) and value.id in known:
                yield ".".join([known[value.id], *parts]), node.lineno


def _is_private(name: str) -> bool:
    return any(part.startswith("_") and not part.endswith("__") for part in name.split("."))


def _conformance(tests: Path | None) -> Finding:
    if tests is None:
        hint = "check the folder of the project"
        return Finding("conformance", "warning", "whether the dialect passes the suites cannot be seen here", hint)
    for file in sorted(tests.rglob("*.py")):
        if "dataflow.testing.conformance" in file.read_text(encoding="utf-8", errors="replace"):
            return Finding("conformance", "ok", f"{tests.name}/{file.relative_to(tests).as_posix()} runs the suites")
    hint = "add tests/test_conformance.py: from dataflow.testing.conformance import *, and a fixture database_url"
    return Finding("conformance", "problem", "no test runs the conformance suites on the dialect", hint)


def _inspected(root: Path, reference: str) -> list[Finding]:
    command = [sys.executable, "-m", "dataflow.cli.inspecting", str(root), reference.partition(" [")[0].strip()]
    done = _run(command)
    try:
        return [Finding(*row) for row in json.loads(done.stdout)]
    except (json.JSONDecodeError, TypeError):
        lines = done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"]
        return [Finding("import", "problem", f"{reference} ends the process: {lines[-1]}", "import the module by hand")]


def _run(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Run a command without the settings of this process: only the plugin is to be looked at."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("DATAFLOW_", "DATABASE_URL"))}
    clean |= {"DATAFLOW_PLUGINS": "", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}
    try:
        return subprocess.run(  # noqa: S603  # our own interpreter
            command, capture_output=True, text=True, timeout=SECONDS, check=False, env=clean, encoding="utf-8"
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"it did not end within {SECONDS} s")
