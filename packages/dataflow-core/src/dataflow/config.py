"""Settings: declared by core and plugins, read from keywords, environment and defaults, then frozen.

Also the tolerant parser for database URLs. Knows no setting's meaning.
"""

import os
from collections.abc import Iterator, Mapping
from math import inf
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

import attrs

from dataflow import later
from dataflow.errors import ConfigurationError, MissingCapability, ModelError, suggest
from dataflow.plugins.hints import extra_for
from dataflow.plugins.manager import PluginSet
from dataflow.plugins.specs import SettingSpec

CORE_SETTINGS = (
    SettingSpec("name", str, None, "Name by which nodes pick this instance: database='name'."),
    SettingSpec("auto_migrate", bool, True, "Create missing tables when a model is first used."),
    SettingSpec("existing_schema_mode", bool, False, "Use the schema as it is: never create or change anything."),
    SettingSpec("enable_model_persistence", bool, True, "Keep a registry of models (by the migrations package)."),
    SettingSpec("tdd_mode", bool, False, "Leave nothing behind: for tests; what is written is gone on close."),
    SettingSpec("echo", bool, False, "Log every SQL text (never its values)."),
    SettingSpec("monitoring", bool, False, "Count and time operations; see db.stats()."),
    SettingSpec("slow_query_threshold", float, 1000.0, "Log statements slower than this, in ms.", minimum=0),
    SettingSpec("bulk_batch_size", int, 1000, "Rows per statement of bulk operations; COPY takes all.", minimum=1),
    SettingSpec(
        "naive_datetimes", str, "local", "Meaning of a datetime without offset.", choices=("local", "utc", "reject")
    ),
    SettingSpec(
        "async_operations", bool, True, "Accepted for the documents' sake; both ways always work.", choices=(True,)
    ),
    SettingSpec("lock_timeout", float, 30.0, "Seconds to wait for a connection or the writer.", minimum=0),
    SettingSpec("pool_size", int, 20, "Connections kept open, for server databases.", minimum=1),
    SettingSpec("connection_pool_size", int, None, "Another name for pool_size.", minimum=1),
    SettingSpec("pool_max_overflow", int, 30, "Connections beyond pool_size, for server databases.", minimum=0),
    SettingSpec("pool_recycle", int, 3600, "Seconds after which a connection is replaced.", minimum=1),
    SettingSpec("pool_pre_ping", bool, True, "Check an idle connection before use."),
    SettingSpec(
        "pool_reset_on_return",
        str,
        "rollback",
        "Accepted for the documents' sake: no transaction is open when a connection is returned.",
        choices=("rollback", "commit"),
    ),
)
"""The settings core declares. Pool settings are for server databases; embedded ones have one writer and one reader."""

ELSEWHERE = frozenset(
    {
        "audit_key",
        "audit_logging",
        "multi_tenant",
        "protection",
        "tenant_database_prefix",
        "tenant_id_header",
        "tenant_isolation",
    }
)
"""Settings of the public API that other packages declare; without the package they are refused, never ignored."""
_OFF = ("", "0", "false", "no", "off")


@attrs.frozen
class DatabaseURL:
    """A parsed database URL. Its text and repr never show the password.

    Attributes:
        scheme: before ``://``.
        path: database name, or file path; "" where there is none, ":memory:" for one in memory.
        host, port, user, password: as given, percent-decoded; None where absent.
        query: options after ``?``.
    """

    scheme: str
    path: str
    host: str | None = None
    port: int | None = None
    user: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    query: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        login = "" if self.user is None else quote(self.user, safe="") + (":***" if self.password else "") + "@"
        port = f":{self.port}" if self.port else ""
        return f"{self.scheme}://{login}{self.host or ''}{port}/{self.path}"

    @property
    def database(self) -> str:
        """The database's short name: file stem, or database name."""
        return Path(self.path).stem if self.scheme.startswith("sqlite") and self.path != ":memory:" else self.path


def parse_url(text: str) -> DatabaseURL:
    """Parse a database URL, tolerating special characters in passwords.

    ``sqlite:///rel.db`` is relative to the current directory, ``sqlite:////abs.db`` absolute, ``:memory:`` alone works.
    Three slashes mean a path, for any scheme. The last ``@`` ends the login, so ``@ # ? %`` may stand in a password as
    they are.

    Raises:
        ConfigurationError: the text is no URL.
    """
    if text == ":memory:":
        return DatabaseURL("sqlite", ":memory:")
    scheme, separator, rest = text.partition("://")
    if not separator or not scheme or not scheme.replace("+", "").replace("-", "").isalnum():
        msg = "the database URL is not of the form scheme://…"
        hint = "write 'sqlite:///app.db', ':memory:' or 'postgresql://user:password@host/database'"
        if text.endswith((".db", ".sqlite", ".sqlite3")) and "@" not in text:
            hint = f"write 'sqlite:///{text}'"
        raise ConfigurationError(msg, hint=hint, code="bad-url")
    scheme = scheme.lower()
    if scheme == "sqlite":
        path, _, options = rest.partition("?")
        if not path.startswith("/"):
            msg = "a SQLite URL has three slashes before a relative path, four before an absolute one"
            hint = f"write 'sqlite:///{path or 'app.db'}' or ':memory:'"
            raise ConfigurationError(msg, hint=hint, code="bad-url")
        path = unquote(path[1:])
        return DatabaseURL(scheme, path or ":memory:", query=tuple(parse_qsl(options)))
    if rest.startswith("/"):  # no host, so no login either: a file of an embedded database, or a local server
        path, _, options = rest[1:].partition("?")
        return DatabaseURL(scheme, unquote(path), query=tuple(parse_qsl(options)))
    login, at, place = rest.rpartition("@")
    place, _, options = place.partition("?")
    host_port, _, database = place.partition("/")
    host, port = _split_port(host_port)
    user, _, password = login.partition(":")
    return DatabaseURL(
        scheme,
        unquote(database),
        host,
        port,
        _decode(user) if at else None,
        _decode(password) if password else None,
        tuple(parse_qsl(options)),
    )


def _split_port(text: str) -> tuple[str | None, int | None]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        return text or None, None
    if not port.isdigit():
        msg = "the port of the database URL is not a number"
        raise ConfigurationError(
            msg, hint="write …@host:5432/database; encode '@' in a password as %40 and '/' as %2F", code="bad-url"
        )
    return host or None, int(port)


def _decode(text: str) -> str:
    """Percent-decode, leaving a lone % as it is: people paste passwords."""
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        return text


class Config(Mapping[str, Any]):
    """The frozen settings of one DataFlow: a read-only mapping name -> value."""

    def __init__(self, values: Mapping[str, Any], explicit: frozenset[str], url: DatabaseURL) -> None:
        self._values = dict(values)
        self.explicit = explicit
        self.url = url

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<Config of {self.url} ({len(self)} settings)>"


def read_settings(given: Mapping[str, Any], plugins: PluginSet, url: DatabaseURL) -> Config:
    """Merge keywords, ``DATAFLOW_*`` variables and defaults into a `Config`.

    Raises:
        ConfigurationError: a name is unknown, or a value has the wrong type or is out of range.
        MissingCapability: no active plugin declares a setting that asks for its package.
        NotYetAvailable: a setting of a later release has another value than its default.
    """
    declared = {name: spec for (scope, name), spec in plugins.settings.items() if scope == "instance"}
    for name, value in given.items():
        if name in declared:
            continue
        if name in later.SETTINGS:
            if value not in (later.SETTINGS[name], None, False):
                raise later.refuse("setting", name)
            continue
        raise _unknown(name, declared)
    values: dict[str, Any] = {}
    explicit = set()
    for name, spec in declared.items():
        text = os.environ.get(f"DATAFLOW_{name.upper()}")
        if name in given:
            values[name] = _checked(spec, given[name], "")
            explicit.add(name)
        elif text is not None:
            values[name] = _checked(spec, _from_text(spec, text), f"DATAFLOW_{name.upper()}")
            explicit.add(name)
        else:
            values[name] = spec.default
    for name in (ELSEWHERE | later.SETTINGS.keys()) - declared.keys():
        variable = f"DATAFLOW_{name.upper()}"
        text = os.environ.get(variable, "").lower()
        if text in _OFF or text == str(later.SETTINGS.get(name)).lower():
            continue
        raise (
            _lacking(name, variable=variable) if name in ELSEWHERE else later.refuse("setting", name, variable=variable)
        )
    if values.get("connection_pool_size") is not None:
        values["pool_size"] = values["connection_pool_size"]
    return Config(values, frozenset(explicit), url)


def _lacking(name: str, **where: str) -> MissingCapability:
    msg = f"the setting {name!r} needs a package that is not installed"
    return MissingCapability(msg, hint=extra_for("setting", name) or "leave it out", where={"setting": name, **where})


def _unknown(name: str, declared: Mapping[str, SettingSpec]) -> ConfigurationError:
    if name in ELSEWHERE:
        return _lacking(name)
    close = suggest(name, [*declared, *ELSEWHERE, *later.SETTINGS, "database_url", "plugins", "disable"])
    msg = f"there is no setting {name!r}"
    hint = f"did you mean {close!r}?" if close else "run 'dataflow doctor --settings' to list all settings"
    hint = extra_for("unknown_setting", name) or hint
    return ConfigurationError(msg, hint=hint, code="unknown-setting")


def _from_text(spec: SettingSpec, text: str) -> Any:
    if spec.type is bool:
        folded = text.strip().lower()
        if folded in ("1", "true", "yes", "on"):
            return True
        return False if folded in _OFF else text
    if spec.type in (int, float):
        try:
            return spec.type(text)
        except ValueError:
            return text
    return text


def _example(spec: SettingSpec, variable: str) -> str:
    sample = {bool: True, str: "…"}.get(spec.type, 1) if spec.default is None else spec.default
    text = f"{variable}={str(sample).lower()}" if variable else f"{spec.name}={sample!r}"
    return f"for example {text} ({spec.doc.removesuffix('.')})"


def check_option(spec: SettingSpec, value: Any) -> None:
    """Check a model option that a plugin declared.

    Raises:
        ModelError: it has the wrong type or is out of range.
    """
    try:
        _checked(spec, value, "")
    except ConfigurationError as error:
        msg = error.message.replace("the setting", "the model option", 1)
        raise ModelError(msg, hint=f"write __dataflow__ = {{{spec.name!r}: …}}: {spec.doc}".rstrip(": ")) from None


def _checked(spec: SettingSpec, value: Any, variable: str) -> Any:
    where = {"variable": variable} if variable else {}
    if value is None and spec.default is None:
        return None
    if spec.type is float and type(value) is int:
        value = float(value)
    a_flag = isinstance(value, bool) and spec.type is not bool
    if spec.type is not object and (not isinstance(value, spec.type) or a_flag):
        msg = f"the setting {spec.name!r} takes {spec.type.__name__}, got {type(value).__name__}"
        raise ConfigurationError(msg, hint=_example(spec, variable), where=where, code="bad-setting")
    if spec.choices and value not in spec.choices:
        msg = f"the setting {spec.name!r} cannot be {value!r}"
        hint = f"choose one of {', '.join(map(repr, spec.choices))}"
        raise ConfigurationError(msg, hint=hint, where=where, code="bad-setting")
    if spec.minimum is not None and not spec.minimum <= value < inf:
        msg = f"the setting {spec.name!r} must be at least {spec.minimum:g}"
        raise ConfigurationError(msg, hint=_example(spec, variable), where=where, code="bad-setting")
    return value
