"""How a connection to the server is opened: URL and settings into the driver's arguments; is there a pooler in between?

A pooler in transaction mode gives every transaction another session, so nothing may be kept in one: no prepared
statements, no session settings.
"""

import asyncio
import socket
import ssl
import warnings
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import asyncpg
import attrs

from dataflow.config import Config, DatabaseURL
from dataflow.errors import ConfigurationError, DatabaseUnavailable, DataFlowError
from dataflow.postgres.errors import translate

_OPTIONS = (
    "application_name", "channel_binding", "connect_timeout", "dbname", "gsslib", "host", "krbsrvname", "options",
    "passfile", "password", "port", "service", "sslcert", "sslcrl", "sslkey", "sslmode", "sslnegotiation",
    "sslpassword", "sslrootcert", "ssl_max_protocol_version", "ssl_min_protocol_version", "target_session_attrs",
    "user",
)  # fmt: skip
"""What may follow ``?`` in a URL: libpq's words, as far as the driver knows them."""
_STATEMENTS = 1024
"""Prepared statements that a connection keeps."""
_CONNECTING = 5.0
"""Seconds that a connection gets at least to be opened: it is not somebody else that is waited for."""
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 60_000}
"""Seconds until the other side is asked for a sign of life, between questions, how many; milliseconds without one."""


@attrs.frozen
class Target:
    """Where to connect, and how.

    Attributes:
        arguments: what the driver's ``connect`` takes.
        settings: parameters of the session.
        pooled: whether a pooler in transaction mode is in between; None: find out.
        needed: settings of the user's that a pooler would lose, each with what to do instead.
        most: connections that one event loop may open.
        place: host and port, for errors.
    """

    arguments: Mapping[str, Any] = attrs.field(repr=False)
    settings: Mapping[str, str]
    pooled: bool | None
    needed: tuple[str, ...]
    most: int
    place: Mapping[str, str | int]

    def warn_beyond(self, most: int) -> None:
        """Warn where the server allows fewer connections than one event loop may open."""
        if self.most > most:
            warnings.warn(
                f"pool_size + pool_max_overflow is {self.most}, and the server allows {most} connections in all",
                stacklevel=2,
            )

    @property
    def key(self) -> tuple[Any, ...]:
        """What two targets share exactly if their connections are interchangeable."""
        return (tuple(sorted(self.arguments.items())), tuple(sorted(self.settings.items())), self.pooled)


def target(url: DatabaseURL, config: Config) -> Target:
    """Read URL and settings.

    Raises:
        ConfigurationError: an option of the URL is unknown, or contradicts a setting.
    """
    query = dict(url.query)
    for name in query:
        if name not in _OPTIONS:
            msg = f"PostgreSQL URLs take no option {name!r}"
            raise ConfigurationError(msg, hint=f"options: {', '.join(_OPTIONS)}", code="bad-url")
    for option in ("sslmode", "sslrootcert", "sslcert", "sslkey"):
        value = config[f"postgres_{option}"]
        if value is not None and query.setdefault(option, value) != value:
            msg = f"the URL says {option}={query[option]}, the setting postgres_{option} says {value}"
            raise ConfigurationError(msg, hint="say it once", code="bad-setting")
    name = query.pop("application_name", "") or config["postgres_application_name"]
    timeout = query.pop("connect_timeout", "")
    settings = {"application_name": name, "lock_timeout": f"{max(int(config['lock_timeout'] * 1000), 1)}"}
    needed = []
    if config["postgres_statement_timeout"]:
        settings["statement_timeout"] = f"{max(int(config['postgres_statement_timeout'] * 1000), 1)}"
        needed.append("postgres_statement_timeout (ALTER ROLE … SET statement_timeout = …)")
    if config["postgres_schema"]:
        settings["search_path"] = '"' + config["postgres_schema"].replace('"', '""') + '"'
        needed.append("postgres_schema (ALTER ROLE … SET search_path = …)")
    if "options" in query:
        settings["options"] = query.pop("options")
        needed.append("the URL's options (ALTER ROLE … SET …)")
    hosts, ports = _hosts(url)
    arguments: dict[str, Any] = {
        "dsn": f"postgresql://?{urlencode(query)}" if query else None,
        "host": hosts or None,
        "port": ports or None,
        "user": url.user or None,
        "password": url.password,
        "database": url.path or None,
        "timeout": float(timeout) if timeout else max(config["lock_timeout"], _CONNECTING),
    }
    pooled = {"auto": None, "none": False, "transaction": True}[config["pooler"]]
    place: dict[str, str | int] = {"host": url.host or query.get("host", "localhost")}
    if url.port or "port" in query:
        place["port"] = url.port or query["port"]
    most = config["pool_size"] + config["pool_max_overflow"]
    return Target(arguments, settings, pooled, tuple(needed), most, place)


def _hosts(url: DatabaseURL) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Read ``host``, ``[::1]`` or several in a row, ``one:5432,two:5433``: the first that answers is taken."""
    names, ports = [], []
    for part in (url.host or "").split(",") if url.host else ():
        name, colon, port = part.rpartition(":") if not part.endswith("]") else (part, "", "")
        known = colon and port.isdigit()
        names.append((name if known else part).strip("[]"))
        ports.append(int(port) if known else url.port)
    return tuple(names), tuple(port or 5432 for port in ports) if any(ports) else ()


async def open_connection(to: Target) -> tuple[asyncpg.Connection, bool]:
    """Open a connection: (connection, whether a pooler is in between).

    Raises:
        DatabaseUnavailable: the server cannot be reached, or refuses.
        ConfigurationError: a pooler cannot keep a setting that was asked for.
    """
    try:
        if to.pooled is not None:
            return await _open(to, pooled=to.pooled), to.pooled
        try:
            connection = await _open(to, pooled=False)
        except asyncpg.PostgresError as error:
            if "startup parameter" not in str(error):
                raise
            return await _open(to, pooled=True), True
        try:
            async with asyncio.timeout(to.arguments["timeout"]):
                pooled, most = await _asked(connection)
            if not pooled:
                to.warn_beyond(most)
                return connection, False
        except BaseException:
            connection.terminate()
            raise
        connection.terminate()
        return await _open(to, pooled=True), True
    except (DataFlowError, Warning):
        raise
    except Exception as error:
        raise refused(to, error) from error


async def _open(to: Target, *, pooled: bool) -> asyncpg.Connection:
    if pooled and to.needed:
        msg = f"a pooler in transaction mode cannot keep {'; '.join(to.needed)}"
        raise ConfigurationError(msg, hint="set it on the role as shown, and leave the setting out", code="pooler")
    name = {"application_name": to.settings["application_name"]}
    connection = await asyncpg.connect(
        **{name: list(value) if isinstance(value, tuple) else value for name, value in to.arguments.items()},
        server_settings=name if pooled else dict(to.settings),
        statement_cache_size=0 if pooled else _STATEMENTS,
        max_cached_statement_lifetime=0,
        max_cacheable_statement_size=0,
    )
    _notice_cuts(connection)
    return connection


def _notice_cuts(connection: asyncpg.Connection) -> None:
    """Let the system find out, within about a minute, that a network has dropped a connection without a word."""
    found = connection._transport.get_extra_info("socket")  # noqa: SLF001  # the driver has no option for it
    if found is None or found.family not in (socket.AF_INET, socket.AF_INET6):
        return
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def _asked(connection: asyncpg.Connection) -> tuple[bool, int]:
    """Return (whether a pooler is in between, connections that the server allows).

    A pooler makes up the process that the connection names; another one answers.
    """
    await connection.execute("BEGIN")  # one server for both round trips of the question
    statement = await connection.prepare("SELECT pg_backend_pid(), current_setting('max_connections')::int", name="")
    process, most = await statement.fetchrow()
    await connection.execute("COMMIT")
    return process != connection.get_server_pid(), most


def refused(to: Target, error: Exception) -> DataFlowError:
    """Explain why no connection could be opened, without the password."""
    where = to.place
    if isinstance(error, TimeoutError):
        msg = f"the database server did not answer within {to.arguments['timeout']:g} s"
        return DatabaseUnavailable(msg, hint="check host, port and firewall", where=where)
    if isinstance(error, asyncpg.PostgresError):
        known = translate(error)
        text = str(error).split("\n", maxsplit=1)[0]  # names the role, the database, the host
        if not isinstance(known, DatabaseUnavailable) or "was lost" in known.message:
            known = DatabaseUnavailable(f"the database server refused the connection: {text}", hint="see its log")
        elif type(error) is asyncpg.InvalidAuthorizationSpecificationError:
            known = DatabaseUnavailable(f"{known.message}: {text}", hint=known.hint)
        return known.at(**where)
    if isinstance(error, (ConnectionError, OSError)):
        msg = "the database server cannot be reached"
        hint = "start it, or correct host and port of the URL"
        if isinstance(error, FileNotFoundError):
            hint = "start it, or correct host and port of the URL; a missing certificate file gives this error as well"
        if "rejected SSL upgrade" in str(error):
            msg, hint = "the database server speaks no SSL", "turn it on there, or ask for less: sslmode=prefer"
        if isinstance(error, ssl.SSLCertVerificationError):
            msg = f"the server's certificate was refused: {error.verify_message}"
            hint = "correct the host, or name the file that vouches for it: sslrootcert"
        return DatabaseUnavailable(msg, hint=hint, where=where)
    if isinstance(error, (asyncpg.InterfaceError, ValueError)):
        text = str(error).split("\n", maxsplit=1)[0]
        return ConfigurationError(f"the connection options do not fit: {text}", hint="correct the URL", code="bad-url")
    return DatabaseUnavailable(
        f"the driver could not connect: {type(error).__name__}", hint="see the cause", where=where
    )
