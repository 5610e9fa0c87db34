"""What has to hold before a release, checked by doing it: build, look at the metadata, install, start.

Run: ./dev release-check. Works on a copy of what is committed, in a temporary folder, and prints a line per check.
"""

import json
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
from collections.abc import Callable, Iterator
from email.parser import Parser
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

from packaging.metadata import Metadata
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
OWN = "workflow-dataflow"
PRIVATE = "Private :: Do Not Upload"


class Failed(Exception):
    """A check that does not hold; its text says what and where."""


def run(*command: object, cwd: Path) -> str:
    """Run a program, and return what it printed.

    Raises:
        Failed: it ended with an error.
    """
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def committed(folder: Path) -> Path:
    """Write what is committed into a folder of its own."""
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout  # noqa: S607
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(folder / "source", filter="data")
    return folder / "source"


def build(source: Path, target: Path) -> list[Path]:
    """Build the wheel and the source distribution of every package, and return the wheels."""
    for package in (source, *sorted((source / "packages").iterdir())):
        run(sys.executable, "-m", "hatchling", "build", "--directory", target, cwd=package)
    return sorted(target.glob("*.whl"))


def read(wheel: Path, name: str) -> str:
    """Return a file of a wheel's metadata."""
    with ZipFile(wheel) as archive:
        (path,) = (path for path in archive.namelist() if path.endswith(f".dist-info/{name}"))
        return archive.read(path).decode()


def check_metadata(wheel: Path) -> None:
    """Check what an index, and pip, read of a wheel.

    Raises:
        Failed: something is missing or not allowed.
    """
    text = read(wheel, "METADATA")
    Metadata.from_email(text, validate=True)
    fields = Parser().parsestr(text)
    name = fields["Name"]
    wanted = {"Requires-Python", "License-Expression", "Description-Content-Type", "Summary"}
    if missing := wanted - set(fields.keys()):
        raise Failed(f"{name}: no {', '.join(sorted(missing))}")
    if PRIVATE not in fields.get_all("Classifier", []):
        raise Failed(f"{name}: no classifier {PRIVATE}")
    for requirement in map(Requirement, fields.get_all("Requires-Dist", [])):
        operators = sorted(specifier.operator for specifier in requirement.specifier)
        if operators != (["<", ">="] if requirement.name.startswith(OWN) else [">="]):
            raise Failed(f"{name}: {requirement} needs a lower bound, and an upper one only if it is ours")
    if name != OWN:
        check_files(wheel, name)


def check_files(wheel: Path, name: str) -> None:
    """Check that a package stays in its place, is typed, and has its entry point.

    Raises:
        Failed: it does not.
    """
    with ZipFile(wheel) as archive:
        files = [path for path in archive.namelist() if ".dist-info/" not in path]
    own = "dataflow/" if name == f"{OWN}-core" else f"dataflow/{name.removeprefix(f'{OWN}-')}/"
    if strangers := [path for path in files if not path.startswith(own)]:
        raise Failed(f"{name}: {strangers[0]} is outside {own}")
    if f"{own}py.typed" not in files:
        raise Failed(f"{name}: no py.typed")
    if name != f"{OWN}-core" and "[dataflow.plugins]" not in read(wheel, "entry_points.txt"):
        raise Failed(f"{name}: no entry point in the group dataflow.plugins")


def check_changelog(package: Path) -> None:
    """Check that a package explains itself: README, CHANGELOG and fragments that towncrier can read.

    Raises:
        Failed: something is missing.
    """
    for needed in ("README.md", "CHANGELOG.md"):
        if not (package / needed).is_file():
            raise Failed(f"{package.name}: no {needed}")
    for fragment in (package / "changelog.d").glob("*.md"):
        if not re.fullmatch(r"\d+\.(feature|bugfix|doc|removal|misc)(\.\d+)?\.md", fragment.name):
            raise Failed(f"{package.name}: {fragment.name} is no name of a fragment")


def check_install(extra: str, source: Path, wheels: list[Path], folder: Path) -> str:
    """Install the meta-distribution with an extra into a bare environment, and start it there.

    Raises:
        Failed: it does not install, doctor finds problems, or the README's program fails.
    """
    place = folder / f"env-{extra or 'base'}"
    venv.create(place, with_pip=False, symlinks=True)
    (meta,) = (wheel for wheel in wheels if read(wheel, "METADATA").split("\nName: ")[1].startswith(f"{OWN}\n"))
    own = [f"{Parser().parsestr(read(wheel, 'METADATA'))['Name']} @ {wheel.as_uri()}" for wheel in wheels]
    (folder / "own.txt").write_text("\n".join(own), encoding="utf-8")
    pins = ["--constraint", folder / "own.txt", "--constraint", source / "constraints.txt"]
    wanted = f"{OWN}{f'[{extra}]' if extra else ''} @ {meta.as_uri()}"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--python", place / "bin/python"]
    run(*pip, "install", "--no-compile", wanted, *pins, cwd=folder)
    work = place / "work"
    work.mkdir()
    found = json.loads(run(place / "bin/dataflow", "doctor", "--json", cwd=work))
    if not found["ok"]:
        raise Failed(f"doctor finds problems: {found['problems']}")
    readme = (source / "README.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(from dataflow import DataFlow\n.*?__main__.*?)```", readme, re.DOTALL)
    (work / "shop.py").write_text(program, encoding="utf-8")
    if (printed := run(place / "bin/python", "shop.py", cwd=work)) != "2 Ada\n":
        raise Failed(f"the README's program printed {printed!r}")
    return f"{len(list(place.glob('lib/python*/site-packages/*.dist-info')))} distributions"


def check_docs(source: Path, folder: Path) -> None:
    """Build the documentation; a warning is an error.

    Raises:
        Failed: there was one.
    """
    run(sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", source / "docs", folder / "site", cwd=source)


def checks(folder: Path) -> Iterator[tuple[str, Callable[[], str | None]]]:
    """Yield every check: what it is about, and what carries it out."""
    source = committed(folder)
    wheels: list[Path] = []
    yield "wheels and source distributions are built", lambda: wheels.extend(build(source, folder / "dist"))
    for wheel in wheels:
        yield f"metadata of {wheel.name.split('-')[0]}", lambda wheel=wheel: check_metadata(wheel)
    for package in sorted((source / "packages").iterdir()):
        yield f"README and changelog of {package.name}", lambda package=package: check_changelog(package)
    extras = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for extra in ("", *extras):
        name = f"pip install {OWN}{f'[{extra}]' if extra else ''}, doctor, README"
        yield name, lambda extra=extra: check_install(extra, source, wheels, folder)
    yield "documentation", lambda: check_docs(source, folder)


def main() -> int:
    """Carry out every check, and return the exit code."""
    failed = 0
    with tempfile.TemporaryDirectory() as place:
        for name, check in checks(Path(place)):
            try:
                found = check()
            except Exception as error:  # noqa: BLE001  # every check is carried out, whatever the ones before said
                failed += 1
                print(f"FAILED  {name}: {error}", flush=True)
            else:
                print(f"ok      {name}{f' ({found})' if found else ''}", flush=True)
    print(f"{failed} checks failed" if failed else "ready for a release")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
