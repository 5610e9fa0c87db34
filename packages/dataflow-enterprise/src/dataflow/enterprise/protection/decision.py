"""The decision: may this be done, under this policy, now? One pure function; everything else asks it."""

from collections.abc import Iterator, Mapping
from datetime import datetime

import attrs

from dataflow.enterprise.protection.policy import LEVELS, Protection, Rule
from dataflow.errors import Problem, WriteProtectedError

HINT = "write inside `with db.unlocked(reason=…):`, which is recorded, or change that rule of the policy"

_SPOKEN = {"cascade": "a delete that goes on", "sql": "SQL that writes", "ddl": "the making of tables (ddl)"}


@attrs.frozen(cache_hash=True)
class Request:
    """What somebody is about to do: one effect of one operation.

    Attributes:
        operation: create, bulk_update, sql …; "cascade" for what the database does to rows that refer to deleted ones.
        effect: create, update, delete or ddl.
        model: name of the model; None where it is about none that is known.
        fields: what is given or changed; each has to be permitted.
        labels: names of the connection.
        rows: how many rows were changed; None before it is known, infinity where it never is.
        partial: other fields are asked about elsewhere, or not known yet: a rule that allows some of them is enough.
        tentative: asked by `build()`: rules of the level runtime count only where they permit.
    """

    operation: str
    effect: str
    model: str | None = None
    fields: tuple[str, ...] = ()
    labels: frozenset[str] = frozenset()
    rows: float | None = None
    partial: bool = False
    tentative: bool = False

    @property
    def where(self) -> dict[str, str | int]:
        """The places for errors."""
        return {**({"model": self.model} if self.model else {}), "operation": self.operation}


@attrs.frozen
class Decision:
    """The answer.

    Attributes:
        permitted: whether it may be done.
        level: that of the deciding rule; "" where nothing but the default permits it.
        rule: the deciding rule, as the policy words it.
        field: the field that is refused, or "".
        message: what the rule says to who is refused.
    """

    permitted: bool
    level: str = ""
    rule: str = ""
    field: str = ""
    message: str = ""

    def problem(self, request: Request) -> Problem:
        """Word a refusal."""
        target = f" {'to' if request.operation in _SPOKEN else 'of'} {request.model}" if request.model else ""
        target += f".{self.field}" if self.field else ""
        note = f" ({self.message})" if self.message else ""
        what = _SPOKEN.get(request.operation, request.operation)
        text = f"{what}{target} is write-protected at level {self.level}: {self.rule}{note}"
        where: Mapping[str, str | int] = {**request.where, **({"field": self.field} if self.field else {})}
        return Problem(WriteProtectedError.code, text, HINT, where)

    def error(self, request: Request) -> WriteProtectedError:
        """Build the error of a refusal."""
        problem = self.problem(request)
        return WriteProtectedError(
            problem.message, level=self.level, rule=self.rule, hint=problem.hint, where=problem.where
        )


def decide(policy: Protection, request: Request, now: datetime | None) -> Decision:
    """Decide whether a policy permits what is requested.

    Args:
        policy: the rules.
        request: what is about to be done.
        now: the instant, for rules of the level runtime; None where no such rule counts but those that permit.
    """
    fields: tuple[str | None, ...] = request.fields or (None,)
    permitted = Decision(permitted=True)
    for field in fields:
        applying = list(_applying(policy, request, field, now))
        denies = [rule for rule in applying if rule.effect == "deny"]
        if denies:
            first = min(denies, key=lambda rule: LEVELS.index(rule.level))
            return Decision(False, first.level, _worded(policy, first), _field(first, field), first.message)
        allows = [rule for rule in applying if rule.effect == "allow"]
        if policy.default == "deny" and not allows:
            named = field if field is not None and _names_fields(policy, request.model) else ""
            return Decision(False, "global", 'default = "deny"', named, "no rule allows it")
        if allows:
            first = min(allows, key=lambda rule: LEVELS.index(rule.level))
            permitted = Decision(True, first.level, str(first))
    return permitted


def _worded(policy: Protection, rule: Rule) -> str:
    return "policy.freeze(…)" if rule is policy.switch.rule else str(rule)


def _names_fields(policy: Protection, model: str | None) -> bool:
    return any(rule.fields and model in rule.models for rule in policy.rules)


def _field(rule: Rule, field: str | None) -> str:
    return field if field is not None and rule.level == "field" else ""


def _applying(policy: Protection, request: Request, field: str | None, now: datetime | None) -> Iterator[Rule]:
    frozen = policy.switch.rule
    if frozen is not None and not request.tentative:
        yield frozen
    for rule in policy.rules:
        if _covers(rule, request) and _concerns(rule, request, field) and _holds(rule, request, now):
            yield rule


def _covers(rule: Rule, request: Request) -> bool:
    """Tell whether a rule speaks of the operation, or of what it does."""
    named = rule.operations
    if "all" in named or request.operation in named or request.effect in named:
        return True
    return "write" in named and request.effect != "ddl"


def _concerns(rule: Rule, request: Request, field: str | None) -> bool:
    """Tell whether a rule speaks of the connection, the model and the field."""
    if rule.connections and not request.labels.intersection(rule.connections):
        return False
    if rule.models and request.model not in rule.models:
        return False
    if rule.level != "field":
        return True
    if request.effect not in ("create", "update"):
        return False
    return field in rule.fields or (field is None and request.partial and rule.effect == "allow")


def _holds(rule: Rule, request: Request, now: datetime | None) -> bool:
    """Tell whether the conditions of a rule are met: the time, the number of rows."""
    if rule.max_rows is not None and (request.rows is None or request.rows <= rule.max_rows):
        return False
    if rule.level != "runtime":
        return True
    if request.tentative or now is None:
        return rule.effect == "allow"
    return rule.window is None or rule.window.covers(now)
