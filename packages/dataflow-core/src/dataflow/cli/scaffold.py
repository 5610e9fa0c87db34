"""``dataflow plugins new``: a distribution from the templates in the folder of that name.

A template is a file whose name ends in ``.tmpl``; in its path ``PACKAGE`` stands for the import package, and ``dot_``
for a dot at the beginning. Its text takes the placeholders of `placeholders`, as `string.Template` writes them.
"""

import keyword
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

import attrs

from dataflow import __version__
from dataflow.cli.program import CommandError
from dataflow.config import CORE_SETTINGS
from dataflow.model import CORE_OPTIONS, FEATURE_OPTIONS
from dataflow.plugins.specs import API_VERSION

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_SUFFIX = ".tmpl"


@attrs.frozen
class Made:
    """What was written.

    Attributes:
        folder: of the project.
        distribution: its name.
        package: what is imported.
        plugin: the name of its entry point.
        files: paths within the folder.
    """

    folder: str
    distribution: str
    package: str
    plugin: str
    files: tuple[str, ...]


def scaffold(kind: str, name: str, into: Path) -> Made:
    """Write the project of a plugin; all of it or nothing.

    Args:
        kind: "node", "feature" or "dialect".
        name: of the distribution.
        into: the folder in which it becomes a folder.

    Raises:
        CommandError: the name cannot be used, the folder is there already or cannot be written, or there is no
            template.
    """
    words = placeholders(name)
    root = files("dataflow.cli").joinpath("templates", kind)
    if not root.is_dir():
        msg = f"there is no template for a {kind} yet"
        raise CommandError(msg, hint="see dataflow.dialect.Dialect, and docs/plugins.md", code="no-template")
    folder = into / words["distribution"]
    if folder.exists():
        msg = f"{str(folder)!r} is there already"
        raise CommandError(msg, hint="give another name, or another folder: --into FOLDER", code="bad-file")
    try:
        into.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=into, prefix=".new-") as place:
            draft = Path(place) / words["distribution"]
            written = tuple(_write(root, draft, words))
            shutil.copystat(into, draft)
            draft.rename(folder)
    except OSError as error:
        msg = f"{str(folder)!r} cannot be written: {error.strerror}"
        raise CommandError(msg, hint="name a folder that you may write to: --into FOLDER", code="bad-file") from error
    return Made(str(folder), words["distribution"], words["package"], words["plugin"], written)


def placeholders(name: str) -> dict[str, str]:
    """Return what templates call things: distribution, package, plugin, option, Name, title, api and core.

    Raises:
        CommandError: the name cannot be used.
    """
    if not _NAME.fullmatch(name):
        plain = "-".join(re.findall(r"[a-z0-9]+", name.lower())).lstrip("0123456789-")
        hint = f"write {plain!r}" if plain else "write, for example, 'order-numbers'"
        msg = f"{name!r} is no name: it takes lower-case letters, digits and hyphens, and begins with a letter"
        raise CommandError(msg, hint=hint, code="bad-name")
    distribution, package = name.replace("_", "-"), name.replace("-", "_")
    plugin = distribution.removeprefix("dataflow-")
    taken = _taken(distribution, package, plugin)
    if taken:
        raise CommandError(f"{name!r} cannot be used: {taken}", hint=f"write 'my-{plugin}'", code="bad-name")
    words = plugin.split("-")
    return {
        "distribution": distribution,
        "package": package,
        "plugin": plugin,
        "option": plugin.replace("-", "_"),
        "Name": "".join(word.capitalize() for word in words),
        "title": " ".join(words),
        "api": ".".join(map(str, API_VERSION)),
        "core": ".".join(__version__.split(".")[:2]),
    }


def _taken(distribution: str, package: str, plugin: str) -> str:
    """Say who has a name already, or ""."""
    option = plugin.replace("-", "_")
    if package in sys.stdlib_module_names or option in sys.stdlib_module_names:
        return "Python's own library has a module of that name"
    if keyword.iskeyword(package) or keyword.iskeyword(option):
        return "it is a word of the language"
    if (
        distribution == "dataflow"
        or distribution.startswith("workflow-dataflow")
        or package.startswith("dataflow_test")
    ):
        return "it is one of DataFlow's own"
    if option in (*CORE_OPTIONS, *FEATURE_OPTIONS, *(setting.name for setting in CORE_SETTINGS)):
        return "DataFlow has a setting or model option of that name"
    for point in entry_points(group="dataflow.plugins"):
        if point.name == plugin and (point.dist is None or point.dist.name != distribution):
            return f"a plugin of that name is installed, from {point.dist.name if point.dist else point.value}"
    return ""


def _write(root: Traversable, folder: Path, words: Mapping[str, str]) -> Iterator[str]:
    """Write every template below `root`; yield the paths within `folder`."""
    for parts, template in sorted(_templates(root, ()), key=lambda found: found[0]):
        path = folder.joinpath(*(_part(part, words) for part in parts))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(Template(template.read_text(encoding="utf-8")).substitute(words), encoding="utf-8")
        yield path.relative_to(folder).as_posix()


def _templates(root: Traversable, parts: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Traversable]]:
    for entry in root.iterdir():
        if entry.is_dir():
            yield from _templates(entry, (*parts, entry.name))
        elif entry.name.endswith(_SUFFIX):
            yield (*parts, entry.name), entry


def _part(part: str, words: Mapping[str, str]) -> str:
    name = part.removesuffix(_SUFFIX)
    name = f".{name.removeprefix('dot_')}" if name.startswith("dot_") else name
    return name.replace("PACKAGE", words["package"])
