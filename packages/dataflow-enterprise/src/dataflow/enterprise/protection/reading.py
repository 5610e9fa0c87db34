"""A policy as a document: what stands in a TOML file, in words that read at once. Reads, checks and writes them.

    default = "allow"                  # or "deny": then only what a rule allows is permitted

    [global]
    deny = ["ddl"]

    [connection.reporting]             # a name by which database="reporting" picks an instance
    deny = true                        # read-only, by the database as well

    [model.Invoice]
    deny = ["delete"]                  # also bulk_delete, purge, and DELETE in SQL
    message = "invoices are kept for ten years"

    [operation]
    deny = ["bulk_delete", "sql"]

    [field.Invoice.total]
    deny = ["update"]

    [[runtime]]                        # any table may be a list of tables
    deny = ["write"]
    days = ["sat", "sun"]
    from = 22:00:00
    until = 06:00:00
    zone = "Europe/Berlin"

Every table takes `deny`, `allow` (true, or operations), `message`, and where they make sense `models`, `connections`,
`max_rows`. ``[[rule]]`` tables spell out the attributes of `Rule`; `write` uses them.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from datetime import time
from typing import Any

import attrs

from dataflow.enterprise.protection.policy import LEVELS, Rule, Window, bad_policy, known
from dataflow.errors import ConfigurationError

_RULE = ("deny", "allow", "message", "models", "connections", "max_rows")
_WINDOW = ("days", "from", "until", "zone")
_SECTIONS = ("default", *LEVELS, "rule")
_SPELLED = ("level", "effect", "operations", "models", "fields", "connections", "message", "max_rows", *_WINDOW)


def load(path: "str | os.PathLike[str]") -> dict[str, Any]:
    """Load a TOML file.

    Raises:
        ConfigurationError: it is not there, or no TOML.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise bad_policy(f"the file cannot be read: {reason}", "correct DataFlow(protection=…)", name) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise bad_policy(
            f"the file is no TOML: {error}", 'for example [model.User], deny = ["delete"]', name
        ) from error


def read(document: Mapping[str, Any]) -> tuple[str, tuple[Rule, ...]]:
    """Read a document: (default, rules).

    Raises:
        ConfigurationError: a word of it is not known, or a value has the wrong form.
    """
    for name in document:
        known(name, _SECTIONS, "section")
    default = known(document.get("default", "allow"), ("allow", "deny"), "default", "default")
    rules: list[Rule] = []
    for level in LEVELS:
        for place, scope, table in _tables(level, document.get(level, {})):
            rules += _rules(level, place, scope, table)
    for table in _each(document.get("rule", []), "rule"):
        rules.append(_spelled(table))
    return default, tuple(rules)


def _tables(level: str, section: Any) -> Iterator[tuple[str, dict[str, Any], Mapping[str, Any]]]:
    """Yield (place, scope, table) for every table of a section."""
    if level in ("global", "operation", "runtime"):
        for table in _each(section, level):
            yield level, {}, table
        return
    for name, inner in _named(section, level):
        if level != "field":
            scope = "connections" if level == "connection" else "models"
            for table in _each(inner, f"{level}.{name}"):
                yield f"{level}.{name}", {scope: (name,)}, table
            continue
        for field, tables in _named(inner, f"field.{name}"):
            for table in _each(tables, f"field.{name}.{field}"):
                yield f"field.{name}.{field}", {"models": (name,), "fields": (field,)}, table


def _named(section: Any, place: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(section, Mapping):
        raise bad_policy(f"{place} takes tables with names", f"write [{place}.NAME]", place)
    for name, inner in section.items():
        if not isinstance(inner, Mapping) and not (inner and isinstance(inner, list) and isinstance(inner[0], Mapping)):
            raise bad_policy(f"{place}.{name} is no table", f"write [{_example(place)}]", place)
        yield name, inner


def _example(place: str) -> str:
    return {"field": "field.MODEL.FIELD"}.get(place, f"{place}.NAME")


def _each(section: Any, place: str) -> Iterator[Mapping[str, Any]]:
    for table in section if isinstance(section, (list, tuple)) else (section,):
        if not isinstance(table, Mapping):
            raise bad_policy(f"{place} is no table", f"write [{place}]", place)
        yield table


def _rules(level: str, place: str, scope: Mapping[str, Any], table: Mapping[str, Any]) -> Iterator[Rule]:
    """Read one table: a rule for its `deny`, and one for its `allow`."""
    for name in table:
        _known_key(name, level, place)
        if name in scope:
            raise bad_policy(f"{name} stands in the name of the table already", f"leave {name} out", place)
    if not table:
        return
    if "deny" not in table and "allow" not in table:
        raise bad_policy(f"[{place}] says neither deny nor allow", 'for example deny = ["delete"]', place)
    rest = {name: table[name] for name in table if name not in ("deny", "allow", *_WINDOW)}
    for effect in ("deny", "allow"):
        if table.get(effect, False) is not False:
            operations = _operations(table[effect], effect, place)
            yield _rule(place, level=level, effect=effect, operations=operations, table=table, **scope, **rest)


def _known_key(name: str, level: str, place: str) -> None:
    keys = (*_RULE, *_WINDOW) if level == "runtime" else _RULE
    if name in _WINDOW and level != "runtime":
        raise bad_policy(f"{name} belongs to the level runtime", "write it under [runtime]", place)
    if name == "default":
        raise bad_policy("default stands at the top of the policy", "move it above the first table", place)
    known(name, keys, "key", place)


def _operations(value: Any, effect: str, place: str) -> tuple[str, ...]:
    if value is True:
        return ("all",)
    return _names(value, effect, place)


def _names(value: Any, what: str, place: str) -> tuple[str, ...]:
    listed = (value,) if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)) or not all(isinstance(name, str) for name in listed):
        raise bad_policy(f"{what} takes a list of names", f'for example {what} = ["…"]', place)
    return tuple(listed)


def _spelled(table: Mapping[str, Any]) -> Rule:
    for name in table:
        known(name, _SPELLED, "key", "rule")
    if "level" not in table:
        raise bad_policy("a rule says no level", f"level is one of {', '.join(LEVELS)}", "rule")
    operations = _operations(table.get("operations", True), "operations", "rule")
    rest = {name: table[name] for name in table if name not in ("operations", *_WINDOW)}
    return _rule("rule", operations=operations, table=table, **rest)


def _rule(place: str, *, table: Mapping[str, Any], **values: Any) -> Rule:
    for name in ("models", "fields", "connections"):
        if name in values:
            values[name] = _names(values[name], name, place)
    if not isinstance(values.get("message", ""), str):
        raise bad_policy("message takes a text", 'for example message = "ask the accountants"', place)
    try:
        return Rule(**values, window=_window(table, place))
    except ConfigurationError as error:
        error.where = {"policy": place}
        raise


def _window(table: Mapping[str, Any], place: str) -> Window | None:
    given = {name: table[name] for name in _WINDOW if name in table}
    if not given:
        return None
    values: dict[str, Any] = {"days": _names(given.get("days", ()), "days", place)}
    for name, attribute in (("from", "start"), ("until", "end")):
        if name in given:
            values[attribute] = _time(given[name], name, place)
    if "zone" in given:
        values["zone"] = given["zone"]
    return Window(**values)


def _time(value: Any, name: str, place: str) -> time:
    if isinstance(value, str):
        try:
            value = time.fromisoformat(value)
        except ValueError:
            value = None
    if not isinstance(value, time) or value.tzinfo is not None:
        raise bad_policy(f"{name} takes a time of day", f'for example {name} = "22:00"', place)
    return value


def write(default: str, rules: tuple[Rule, ...]) -> dict[str, Any]:
    """Return a document that reads as the same policy; every value fits TOML."""
    return {"default": default, "rule": [_written(rule) for rule in rules]}


def _written(rule: Rule) -> dict[str, Any]:
    values = attrs.asdict(rule, filter=lambda field, value: field.name != "window" and value not in ((), None, ""))
    out = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    window = rule.window
    if window is not None:
        out |= {"days": list(window.days), "zone": window.zone}
        if window.start != window.end:
            out |= {"from": window.start, "until": window.end}
    return out
