"""What is installed, for ``dataflow doctor``: versions that fit together, and folders that hold only our files.

Reads what installers recorded (RECORD, direct_url.json). Imports no part.
"""

import base64
import hashlib
import json
import platform
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import Distribution, FileHash, distributions
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import attrs

import dataflow
from dataflow.errors import Problem

PREFIX, CORE, GROUP = "workflow-dataflow", "workflow-dataflow-core", "dataflow.plugins"
_REQUIREMENT = re.compile(r"\s*([\w.-]+)\s*(?:\[[^]]*\])?\s*\(?([^;)]*)\)?\s*(;.*)?")
_CLAUSE = re.compile(r"(>=|<=|==|!=|<|>)\s*(\d+(?:\.\d+)*)[\w.+]*\Z")


@attrs.frozen
class Check:
    """One thing that doctor looked at.

    Attributes:
        name: "packages", "files" …
        summary: what was found, in one line.
        details: more of it, JSON-able.
        problems: what is wrong; none if all is well.
    """

    name: str
    summary: str
    details: Mapping[str, Any] = attrs.field(factory=dict)
    problems: Sequence[Problem] = ()


def check_packages() -> Check:
    """Check that core and the packages that build on it fit together."""
    related = _related()
    versions = {name: dist.version for name, dist in sorted(related.items())}
    problems = []
    if CORE not in related:
        problems.append(
            Problem("not-installed", f"{CORE} is not installed: its source is used as it is", "install it with pip")
        )
    elif versions[CORE] != dataflow.__version__:
        message = f"{CORE} {versions[CORE]} is installed, but the files in use are of {dataflow.__version__}"
        problems.append(Problem("version-skew", message, "install it again"))
    for name, dist in sorted(related.items()):
        for requirement in dist.requires or ():
            problems += _skew(name, dist.version, requirement, dataflow.__version__)
    listed = ", ".join(f"{name.removeprefix(PREFIX + '-')} {version}" for name, version in versions.items())
    details = {**versions, "python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    return Check("packages", listed or "none installed", details, tuple(problems))


def _related() -> dict[str, Distribution]:
    """Return our distributions, and those that provide plugins: name -> the one that is in use."""
    found: dict[str, Distribution] = {}
    for dist in distributions():
        name = _name(dist)
        if name.startswith(PREFIX) or any(point.group == GROUP for point in dist.entry_points):
            found.setdefault(name, dist)
    return found


def _name(dist: Distribution) -> str:
    return re.sub(r"[-_.]+", "-", dist.metadata["Name"] or "").lower()


def _skew(name: str, version: str, requirement: str, core: str) -> Iterator[Problem]:
    """Yield a problem if a requirement on core is not met; of a clause that is not understood, say nothing."""
    match = _REQUIREMENT.match(requirement)
    if match is None or re.sub(r"[-_.]+", "-", match[1]).lower() != CORE or match[3]:
        return
    clauses = [_CLAUSE.match(clause.strip()) for clause in match[2].split(",") if clause.strip()]
    if all(clause is None or _holds(core, clause[1], clause[2]) for clause in clauses):
        return
    message = f"{name} {version} needs {CORE} {match[2].strip()}; {core} is installed"
    yield Problem("version-skew", message, f"upgrade {name} or {CORE}", {"distribution": name})


def _holds(version: str, operator: str, bound: str) -> bool:
    ours, theirs = _release(version), _release(bound)
    tests = {
        ">=": ours >= theirs, "<=": ours <= theirs, "==": ours == theirs,
        "!=": ours != theirs, "<": ours < theirs, ">": ours > theirs,
    }  # fmt: skip
    return tests[operator]


def _release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, "0.2.0rc1" as (0, 2): zeros at the end and stages do not count."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    numbers = [int(part) for part in match[0].split(".")] if match else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def check_files() -> Check:
    """Check that the folders of the package ``dataflow`` hold what our distributions put there, unchanged."""
    ours = [dist for dist in distributions() if _name(dist).startswith(PREFIX)]
    sources = [root for root in map(_editable_root, ours) if root is not None]
    recorded = {Path(str(dist.locate_file(file))).resolve(): file.hash for dist in ours for file in dist.files or ()}
    folders = [Path(folder).resolve() for folder in dataflow.__path__]
    present = {path for folder in folders for path in _files(folder)}
    installed = {path for path in present if not any(path.is_relative_to(root) for root in sources)}
    foreign = {path for path in installed if path not in recorded}
    changed = {path for path in installed - foreign if not _same(path, recorded[path])}
    missing = {path for path in recorded if any(path.is_relative_to(f) for f in folders) and not path.exists()}
    problems = [
        *_problems("foreign-file", "not DataFlow's own", foreign, folders),
        *_problems("changed-file", "changed since they were installed", changed, folders),
        *_problems("missing-file", "missing", missing, folders),
    ]
    details = {
        "folders": list(map(str, folders)),
        "editable": list(map(str, sources)),
        "files": len(present),
        "foreign": sorted(map(str, foreign)),
        "changed": sorted(map(str, changed)),
        "missing": sorted(map(str, missing)),
    }
    found = f"{len(present)} files in {len(folders)} folder{'s' * (len(folders) != 1)} of the package dataflow"
    return Check("files", found, details, tuple(problems))


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder that somebody put there: not the interpreter's, not hidden ones."""
    for path in folder.rglob("*"):
        inner = path.relative_to(folder).parts
        if path.is_file() and not any(part == "__pycache__" or part.startswith(".") for part in inner):
            yield path.resolve()


def _editable_root(dist: Distribution) -> Path | None:
    """Return the folder of the project that an editable install points to."""
    origin = json.loads(dist.read_text("direct_url.json") or "{}")
    if not origin.get("dir_info", {}).get("editable"):
        return None
    return Path(url2pathname(urlparse(origin["url"]).path)).resolve()


def _same(path: Path, recorded: FileHash | None) -> bool:
    if recorded is None:
        return True
    digest = hashlib.new(recorded.mode, path.read_bytes()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=") == recorded.value


def _problems(code: str, what: str, paths: set[Path], folders: Sequence[Path]) -> Iterator[Problem]:
    """Yield one problem for each distribution that claims some of the files, and one for the rest."""
    owners = _claims(paths)
    for owner in sorted({owners.get(path, "") for path in paths}):
        names = sorted(_inside(path, folders) for path in paths if owners.get(path, "") == owner)
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        message = f"files of the package dataflow are {what}: {', '.join(names[:3])}{more}"
        hint = (
            "remove them, and reinstall DataFlow's packages"
            if code == "foreign-file"
            else "reinstall DataFlow's packages"
        )
        if owner:
            message += f" (from {owner})"
            hint = f"uninstall {owner.partition(' ')[0]}, then reinstall DataFlow's packages"
        yield Problem(code, message, hint, {"distribution": owner} if owner else {})


def _inside(path: Path, folders: Sequence[Path]) -> str:
    folder = next(folder for folder in folders if path.is_relative_to(folder))
    return (Path(dataflow.__name__) / path.relative_to(folder)).as_posix()


def _claims(paths: set[Path]) -> dict[Path, str]:
    """Return path -> "name version" of a stranger's distribution that records it."""
    claims: dict[Path, str] = {}
    for dist in distributions() if paths else ():
        if _name(dist).startswith(PREFIX):
            continue
        for file in dist.files or ():
            path = Path(str(dist.locate_file(file))).resolve() if file.parts[0] == dataflow.__name__ else None
            if path in paths:
                claims[path] = f"{dist.metadata['Name']} {dist.version}"
    return claims
