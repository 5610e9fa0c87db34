"""``--app``: loads the user's module and finds the DataFlow in it.

What the module prints while it is imported goes to standard error, so that standard output stays the command's own.
"""

import contextlib
import importlib
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import click

import dataflow
from dataflow import DataFlow
from dataflow.cli.program import CommandError
from dataflow.errors import ConfigurationError, DataFlowError, suggest

FORMS = "path/to/file.py, path/to/file.py:name or package.module:name"

app_option = click.option(
    "--app", "app", metavar="APP", envvar="DATAFLOW_APP", help=f"The DataFlow to look at: {FORMS}. [env: DATAFLOW_APP]"
)

tenant_option = click.option(
    "--tenant", metavar="ID", help="Whose database or schema it is about, where each tenant has its own."
)


@attrs.frozen
class App:
    """A DataFlow of the user's, and how it was found: "shop.py:db"."""

    db: DataFlow
    reference: str


@contextlib.contextmanager
def opened(reference: str | None, *, tenant: str | None = None) -> Iterator[App]:
    """Load what ``--app`` names, and close it in the end.

    Args:
        reference: the option's value.
        tenant: surrounds what is done meanwhile, or None.

    Raises:
        CommandError: nothing is named, or it names no DataFlow.
        ConfigurationError: the module fails on import.
        DataFlowError: so does the DataFlow in it, or a model.
    """
    app = load_app(reference)
    try:
        with contextlib.nullcontext() if tenant is None else app.db.tenant(tenant):
            yield app
    finally:
        if not app.db.core.closed:
            app.db.close()


def load_app(reference: str | None) -> App:
    """Load what ``--app`` names; `opened` says what it raises."""
    if not reference:
        raise CommandError("this command needs to know your DataFlow", hint=f"add --app {FORMS}", code="no-app")
    place, name = _split(reference)
    module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
    if not name:
        name = _only(module, place)
    return App(_named(module, name, place), f"{place}:{name}")


def _split(reference: str) -> tuple[str, str]:
    """Split "place:name"; a drive letter is no place."""
    if ".py:" in reference:
        place, _, name = reference.rpartition(".py:")
        return f"{place}.py", name
    if reference.endswith(".py"):
        return reference, ""
    place, _, name = reference.partition(":")
    return place, name


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        close = suggest(path.stem, [found.stem for found in path.parent.glob("*.py")])
        hint = f"did you mean {path.parent / close}.py?" if close else "give a path relative to the current folder"
        raise CommandError(f"there is no file {str(path)!r}", hint=hint, code="bad-app")
    path = path.resolve()
    root, parts = path.parent, [path.stem]
    while (root / "__init__.py").is_file():
        root, parts = root.parent, [root.name, *parts]
    if len(parts) > 1:  # in a package, whose relative imports must work
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        return _guarded(name, str(root), lambda: importlib.import_module(name))
    return _guarded(str(path), str(root), lambda: _execute(path))


def _execute(path: Path) -> ModuleType:
    """Run a file as a module of its own name, or of a free one: a script may be called like something installed."""
    name = path.stem if path.stem not in sys.modules else f"dataflow_app_{path.stem}"
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # annotations that are text are looked up there
    spec.loader.exec_module(module)
    return module


def _import_module(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        hint = f"did you mean '{name}.py'?" if Path(f"{name}.py").is_file() else f"write {FORMS}"
        raise CommandError(f"{name!r} is neither a file nor a module", hint=hint, code="bad-app")
    return _guarded(name, ".", lambda: importlib.import_module(name))


def _guarded(what: str, folder: str, load: Callable[[], ModuleType]) -> ModuleType:
    """Import with `folder` on the path, as Python does for scripts, and say where in the user's code it failed."""
    sys.path.insert(0, str(Path(folder).resolve()))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return load()
    except DataFlowError as error:
        if "file" not in error.where:
            error.at(**_place(error))
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and f"{what}.".startswith(f"{error.name}."):
            msg = f"there is no module {error.name!r}"
            hint = f"did you mean '{what}.py'?" if Path(f"{what}.py").is_file() else f"write {FORMS}"
            raise CommandError(msg, hint=hint, code="bad-app") from error
        raise _failed(what, error) from error
    except (Exception, SystemExit) as error:
        raise _failed(what, error) from error


def _failed(what: str, error: BaseException) -> ConfigurationError:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    msg = f"the app cannot be imported: {type(error).__name__}{': ' * bool(text)}{text}"
    if isinstance(error, SystemExit):
        msg = "the app ends the program while it is imported"
        hint = 'put what is to run only as a script under `if __name__ == "__main__":`'
    elif isinstance(error, ModuleNotFoundError):
        hint = f"install what provides {error.name!r} in this environment: {sys.executable}"
    else:
        hint = f"'python {_short(what)}' shows the whole traceback" if what.endswith(".py") else "correct that line"
    return ConfigurationError(msg, hint=hint, where=_place(error), code="app-import")


def _place(error: BaseException) -> dict[str, str | int]:
    """Say where in the user's code an import failed: the last line that is neither ours, Python's nor a library's."""
    if isinstance(error, SyntaxError) and error.filename:
        return {"file": f"{_short(error.filename)}:{error.lineno}"}
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    libraries = (*dataflow.__path__, sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"))
    theirs = [frame for frame in frames if not any(Path(frame.filename).is_relative_to(lib) for lib in libraries)]
    return {"file": f"{_short(theirs[-1].filename)}:{theirs[-1].lineno}"} if theirs else {}


def _short(filename: str) -> str:
    """Write a path relative to the current folder where that is shorter."""
    with contextlib.suppress(ValueError, OSError):
        return str(Path(filename).resolve().relative_to(Path.cwd()))
    return filename


def _instances(module: ModuleType) -> dict[str, DataFlow]:
    """Return the DataFlows among a module's globals, each under its first name."""
    found: dict[int, tuple[str, DataFlow]] = {}
    for name, value in vars(module).items():
        if isinstance(value, DataFlow):
            found.setdefault(id(value), (name, value))
    return dict(found.values())


def _only(module: ModuleType, place: str) -> str:
    names = list(_instances(module))
    if len(names) == 1:
        return names[0]
    if names:
        listed = " or ".join(f"--app {place}:{name}" for name in names)
        msg = f"{place} has {len(names)} DataFlow instances"
        raise CommandError(msg, hint=f"say which: {listed}", code="bad-app")
    msg = f"{place} has no DataFlow among its global names"
    raise CommandError(msg, hint="it needs a line like db = DataFlow('sqlite:///app.db')", code="bad-app")


def _named(module: ModuleType, name: str, place: str) -> DataFlow:
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part, None)
    if isinstance(value, DataFlow):
        return value
    known = list(_instances(module))
    what = "is not a DataFlow" if value is not None else "does not exist"
    hint = f"write {' or '.join(f'{place}:{found}' for found in known)}" if known else "name a DataFlow of the module"
    raise CommandError(f"{name!r} in {place} {what}", hint=hint, code="bad-app")
