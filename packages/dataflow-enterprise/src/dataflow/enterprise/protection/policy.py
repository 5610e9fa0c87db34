"""The policy: rules on six levels, time windows, and the switch that freezes everything. Plain values; decides nothing.

An operation that a rule names means either just that operation (`bulk_delete`, `upsert`), or, for `create`, `update`
and `delete`, everything that creates, updates or deletes: single, bulk, upsert or SQL.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING, Any, Self
from zoneinfo import ZoneInfo

import attrs

from dataflow.errors import ConfigurationError, suggest

if TYPE_CHECKING:
    from dataflow.enterprise.protection.decision import Decision, Request

LEVELS = ("global", "connection", "model", "operation", "field", "runtime")
"""In the order in which the deciding rule is looked for."""
EFFECTS: Mapping[str, tuple[str, ...]] = {
    "create": ("create",),
    "update": ("update",),
    "delete": ("delete",),
    "upsert": ("create", "update"),
    "bulk_create": ("create",),
    "bulk_update": ("update",),
    "bulk_delete": ("delete",),
    "bulk_upsert": ("create", "update"),
    "restore": ("update",),
    "purge": ("delete",),
    "sql": ("create", "update", "delete"),
    "ddl": ("ddl",),
}
"""Operation -> what it may do. `sql` is SQL of the user's own that writes; `ddl` creates or changes tables."""
OPERATIONS = (*EFFECTS, "write", "all")
"""What rules may name: `write` is every change of records, `all` that and `ddl`."""
COUNTED = ("update", "delete", "bulk_update", "bulk_delete")
"""Operations that `max_rows` may limit."""
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MEMO = 4096


def bad_policy(message: str, hint: str, place: str = "") -> ConfigurationError:
    """Build the error for a policy that cannot be meant."""
    where = {"policy": place} if place else {}
    return ConfigurationError(f"the protection policy: {message}", hint=hint, where=where, code="bad-policy")


def known(name: object, names: Iterable[str], what: str, place: str = "") -> str:
    """Check a word of the policy.

    Raises:
        ConfigurationError: it is none of `names`.
    """
    pool = list(names)
    if isinstance(name, str) and name in pool:
        return name
    close = suggest(name, pool) if isinstance(name, str) else None
    hint = f"did you mean {close!r}?" if close else f"choose from {', '.join(pool)}"
    raise bad_policy(f"there is no {what} {name!r}", hint, place)


@attrs.frozen
class Window:
    """A time of the week, on the wall clock of a zone.

    Attributes:
        days: "mon" … "sun"; every day when empty. A window across midnight belongs to the day on which it begins.
        start: when it begins; midnight by default.
        end: when it is over, itself outside; midnight by default. Not after `start`: on the next day.
        zone: name of the time zone.
    """

    days: tuple[str, ...] = ()
    start: time = time(0)
    end: time = time(0)
    zone: str = "UTC"

    def __attrs_post_init__(self) -> None:
        for day in self.days:
            known(day, DAYS, "day")
        try:
            ZoneInfo(self.zone)
        except (LookupError, ValueError, OSError, TypeError) as error:
            raise bad_policy(f"there is no time zone {self.zone!r}", "write 'Europe/Berlin' or 'UTC'") from error
        if self.start == self.end != time(0):
            raise bad_policy("a window begins and ends at the same time", "leave both out for whole days")

    def covers(self, now: datetime) -> bool:
        """Tell whether an instant lies in the window."""
        local = now.astimezone(ZoneInfo(self.zone))
        clock = local.time()
        begun = local
        if self.start < self.end:
            inside = self.start <= clock < self.end
        elif clock >= self.start:
            inside = True
        else:
            inside = clock < self.end
            begun = local - timedelta(days=1)
        return inside and (not self.days or DAYS[begun.weekday()] in self.days)

    def __str__(self) -> str:
        """Word the window as a policy file does."""
        days = [f"days = {_list(self.days)}"] if self.days else []
        hours = [f"from = {self.start}", f"until = {self.end}"] if self.start != self.end else []
        return ", ".join([*days, *hours, f'zone = "{self.zone}"'])


def _tuple(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


@attrs.frozen
class Rule:
    """One sentence of a policy.

    Attributes:
        level: one of `LEVELS`.
        effect: "deny" or "allow".
        operations: which; one of `OPERATIONS` each.
        models: names of models; all when empty. Of level model or field: at least one.
        fields: names of fields of these models, for level field.
        connections: names by which ``database=`` picks instances; all when empty. Of level connection: at least one.
        window: when it holds, for level runtime; always when None.
        max_rows: a deny that holds only for changes of more rows than this (`COUNTED` operations).
        message: what to tell who is refused.
    """

    level: str
    effect: str = "deny"
    operations: tuple[str, ...] = attrs.field(default=("all",), converter=_tuple)
    models: tuple[str, ...] = attrs.field(default=(), converter=_tuple)
    fields: tuple[str, ...] = attrs.field(default=(), converter=_tuple)
    connections: tuple[str, ...] = attrs.field(default=(), converter=_tuple)
    window: Window | None = None
    max_rows: int | None = None
    message: str = ""

    def __attrs_post_init__(self) -> None:
        known(self.level, LEVELS, "level")
        known(self.effect, ("deny", "allow"), "effect")
        for operation in self.operations:
            known(operation, OPERATIONS, "operation")
        if not self.operations:
            raise bad_policy("a rule names no operation", "name some, or write 'all'", self.level)
        self._check_scope()
        self._check_limits()

    def _check_scope(self) -> None:
        needed = {"connection": "connections", "model": "models", "field": "models"}.get(self.level)
        if needed and not getattr(self, needed):
            raise bad_policy(f"a {self.level} rule names no {needed}", f"give it {needed}", self.level)
        if bool(self.fields) != (self.level == "field"):
            raise bad_policy("fields belong to rules of the level field, and to each of them", "see level", self.level)
        if self.models and self.level in ("global", "connection"):
            raise bad_policy(f"a {self.level} rule is about all models", "use the level model", self.level)
        if self.connections and self.level == "global":
            raise bad_policy("a global rule is about all connections", "use the level connection", self.level)

    def _check_limits(self) -> None:
        if self.window is not None and self.level != "runtime":
            raise bad_policy("a time window belongs to the level runtime", "write it under runtime", self.level)
        if self.max_rows is None:
            return
        if type(self.max_rows) is not int or self.max_rows < 0:
            raise bad_policy("max_rows takes a whole number of rows", "for example max_rows = 1000", self.level)
        if self.effect != "deny" or self.level == "field" or not set(self.operations) <= set(COUNTED):
            hint = f"name operations of {', '.join(COUNTED)}: deny = ['bulk_delete'], max_rows = 1000"
            raise bad_policy("max_rows limits a deny of counted operations", hint, self.level)

    def __str__(self) -> str:
        """Word the rule as a policy file does."""
        named = {
            "connection": "|".join(self.connections),
            "model": "|".join(self.models),
            "field": f"{'|'.join(self.models)}.{'|'.join(self.fields)}",
        }.get(self.level)
        head = f"[{self.level}.{named}]" if named else f"[{self.level}]"
        what = "true" if self.operations == ("all",) else _list(self.operations)
        return ", ".join([f"{head} {self.effect} = {what}", *self._conditions()])

    def _conditions(self) -> Iterator[str]:
        if self.models and self.level not in ("model", "field"):
            yield f"models = {_list(self.models)}"
        if self.connections and self.level != "connection":
            yield f"connections = {_list(self.connections)}"
        if self.max_rows is not None:
            yield f"max_rows = {self.max_rows}"
        if self.window is not None:
            yield str(self.window)


def _list(names: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"


class Switch:
    """Freezes all writes of a policy while a process runs. Any thread may turn it: it is one reference."""

    __slots__ = ("rule",)

    def __init__(self) -> None:
        self.rule: Rule | None = None


def _rules(value: Iterable[Rule]) -> tuple[Rule, ...]:
    return tuple(value)


@attrs.frozen
class Protection:
    """A policy. What ``DataFlow(protection=…)`` takes: this, a dict like the TOML file, or the path of one.

    Any deny that applies refuses; else any allow that applies permits, or `default` does. Reads are never refused.

    Attributes:
        default: "allow" or "deny", for what no rule speaks of.
        rules: in any order.
        clock: gives the instant for time windows; by default that of the call.
    """

    default: str = "allow"
    rules: tuple[Rule, ...] = attrs.field(default=(), converter=_rules)
    clock: Callable[[], datetime] | None = attrs.field(default=None, eq=False, repr=False, kw_only=True)
    switch: Switch = attrs.field(factory=Switch, init=False, eq=False, repr=False)
    _clocked: bool = attrs.field(init=False, eq=False, repr=False)
    _memo: "dict[Request, Decision]" = attrs.field(factory=dict, init=False, eq=False, repr=False)

    @_clocked.default
    def _find_clocked(self) -> bool:
        return any(rule.level == "runtime" for rule in self.rules)

    def __attrs_post_init__(self) -> None:
        known(self.default, ("allow", "deny"), "default")

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Read a policy from what a TOML file holds; see `dataflow.enterprise.protection.reading`."""
        from dataflow.enterprise.protection.reading import read

        default, rules = read(document)
        return cls(default, rules)

    @classmethod
    def from_toml(cls, path: "str | os.PathLike[str]") -> Self:
        """Read a policy from a TOML file.

        Raises:
            ConfigurationError: there is no such file, it is no TOML, or a word of it is not known.
        """
        from dataflow.enterprise.protection.reading import load

        return cls.from_dict(load(path))

    def to_dict(self) -> dict[str, Any]:
        """Return a document from which `from_dict` makes an equal policy."""
        from dataflow.enterprise.protection.reading import write

        return write(self.default, self.rules)

    def freeze(self, reason: str) -> None:
        """Refuse every write from now on, in this process; `with db.unlocked(…)` still passes.

        Args:
            reason: told to who is refused.
        """
        if not isinstance(reason, str) or not reason.strip():
            raise bad_policy("a reason to freeze is a text that is not empty", 'write policy.freeze("moving the data")')
        self.switch.rule = Rule("runtime", message=reason)

    def thaw(self) -> None:
        """End what `freeze` began."""
        self.switch.rule = None

    @property
    def frozen(self) -> str:
        """The reason of `freeze`, or ""."""
        rule = self.switch.rule
        return rule.message if rule is not None else ""

    def read_only(self, labels: frozenset[str]) -> Rule | None:
        """Return the rule that forbids every write on a connection, whatever it is about, if there is one now."""
        if self.switch.rule is not None:
            return self.switch.rule
        for rule in self.rules:
            whole = rule.level in ("global", "connection") and rule.effect == "deny"
            here = not rule.connections or labels.intersection(rule.connections)
            if whole and here and {"all", "write"}.intersection(rule.operations) and rule.max_rows is None:
                return rule
        return None

    def named_models(self) -> dict[str, tuple[str, ...]]:
        """Return model -> fields that rules name."""
        found: dict[str, tuple[str, ...]] = {}
        for rule in self.rules:
            for model in rule.models:
                found[model] = tuple(dict.fromkeys((*found.get(model, ()), *rule.fields)))
        return found

    def decide(self, request: "Request", now: Callable[[], datetime]) -> "Decision":
        """Decide, and remember what does not depend on when it is asked.

        Args:
            request: what somebody is about to do.
            now: gives the instant, unless the policy has a clock.
        """
        from dataflow.enterprise.protection.decision import decide

        if self._clocked or self.switch.rule is not None:
            return decide(self, request, (self.clock or now)())
        found = self._memo.get(request)
        if found is None:
            if len(self._memo) >= _MEMO:
                self._memo.clear()
            found = self._memo[request] = decide(self, request, None)
        return found
