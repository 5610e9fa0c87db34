"""Protection of a whole DataFlow: SQL of the user's own, and what the database itself has to refuse.

SQL that writes is judged by its text (`statements`). SQL that claims to read is sent so that the database refuses it if
it writes after all, and so is every write of an instance that is read-only.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from dataflow.enterprise.protection.decision import HINT, Request
from dataflow.enterprise.protection.feature import NAME, labels_of, unlocked
from dataflow.enterprise.protection.policy import Protection, Rule
from dataflow.enterprise.protection.statements import Touch, touched
from dataflow.errors import WriteProtectedError

if TYPE_CHECKING:
    from dataflow.core import Core
    from dataflow.dialect import Command
    from dataflow.session import Call
    from dataflow.sqltext import Statement

UNCOUNTED = float("inf")
"""Rows that SQL of the user's own may change: nobody knows before it has."""
_SCHEMA = "dataflow.schema"
_BUILD = "dataflow.build"


class ProtectionGuard:
    """Watches over the calls of one DataFlow where a policy is set.

    Args:
        policy: the policy.
    """

    name = NAME
    confines = False
    exclusive = True

    def __init__(self, policy: Protection) -> None:
        self.policy = policy

    def privileged(self, core: "Core", ambient: Mapping[Any, Any]) -> bool:
        """Give no privileges."""
        del core, ambient
        return False

    def context(self, call: "Call", *, writes: bool) -> Mapping[str, str]:
        """Tell connections nothing."""
        del call, writes
        return {}

    def escape(self, core: "Core", name: str, reason: str) -> None:
        """Record nothing: the audit log records who unlocks."""
        del core, name, reason

    def schema(self, core: "Core", ambient: Mapping[Any, Any]) -> None:
        """Refuse to create missing tables where a rule denies it.

        Raises:
            WriteProtectedError: naming the rule.
        """
        request = Request("ddl", "ddl", None, (), labels_of(core))
        decision = self.policy.decide(request, _now)
        if not decision.permitted and not unlocked(core, ambient):
            raise decision.error(request)

    # -- SQL of the user's own ------------------------------------------------------------------------------------
    def sql(self, core: "Core", ambient: Mapping[Any, Any], statements: "Sequence[Statement]") -> None:
        """Refuse SQL that writes where a rule denies it.

        Raises:
            WriteProtectedError: naming the rule.
        """
        if unlocked(core, ambient):
            return
        tentative = bool(ambient.get(_BUILD))
        for statement in statements:
            for request in self._requests(core, statement, tentative=tentative) if statement.writes else ():
                decision = self.policy.decide(request, _now)
                if not decision.permitted:
                    raise decision.error(request)

    def _requests(self, core: "Core", statement: "Statement", *, tentative: bool) -> Iterator[Request]:
        models = {model.spec.table: model for model in core.models.values()}
        touch = touched(statement, models)
        names = labels_of(core)
        make = partial(Request, labels=names, rows=UNCOUNTED, tentative=tentative)
        if "ddl" in touch.effects:
            yield make("ddl", "ddl")
        for effect in touch.effects:
            if touch.tables is None:
                yield from self._anything(core, touch, effect, make)
                continue
            for table in sorted(touch.tables):
                bound = models[table]
                yield make("sql", effect, bound.name, touch.fields(effect, bound.fields))

    def _anything(self, core: "Core", touch: Touch, effect: str, make: Callable[..., Request]) -> Iterator[Request]:
        """Yield requests about every model that is registered, or that the policy speaks of."""
        yield make("sql", effect)
        for bound in list(core.models.values()):
            yield make("sql", effect, bound.name, touch.fields(effect, bound.fields))
        for name, fields in self.policy.named_models().items():
            if name not in core.models:
                yield make("sql", effect, name, fields if effect != "delete" else ())

    # -- what the database refuses --------------------------------------------------------------------------------
    def seal(self, call: "Call", command: "Command") -> Callable[[], WriteProtectedError] | None:
        """Return the error to raise where the database refuses a statement as a write; None: let it write."""
        claims_to_read = command.named and not command.writes
        if not claims_to_read and not command.writes:
            return None  # the framework's own reading
        core = call.core
        if unlocked(core, call.ambient):
            return None
        if claims_to_read:
            return self._disguised
        if _SCHEMA in call.ambient:
            return None
        rule = self.policy.read_only(labels_of(core))
        return None if rule is None else partial(self._read_only, rule)

    def shield(self, call: "Call", command: "Command") -> "Shield | None":
        """Return what the database asks about every change that SQL of the user's own makes, where it can ask."""
        nothing = self.policy == Protection() and not self.policy.frozen
        if nothing or not (command.named and command.writes) or unlocked(call.core, call.ambient):
            return None
        return Shield(self.policy, call.core)

    def _disguised(self) -> WriteProtectedError:
        frozen = self.policy.switch.rule
        message = "the SQL reads as a query, and the database refused it as a write"
        level, rule = ("runtime", "policy.freeze(…)") if frozen is not None else ("global", "a query writes nothing")
        return WriteProtectedError(message, level=level, rule=rule, hint=HINT)

    def _read_only(self, rule: Rule) -> WriteProtectedError:
        message = f"the database refused a write, for the connection is read-only: {rule}"
        return WriteProtectedError(message, level=rule.level, rule=str(rule), hint=HINT)


class Shield:
    """Judges what a statement does in fact: also by triggers, views and foreign keys, which its text does not tell."""

    def __init__(self, policy: Protection, core: "Core") -> None:
        self._policy = policy
        self._labels = labels_of(core)
        self._models = {model.spec.table.lower(): model for model in core.models.values()}
        self._error: WriteProtectedError | None = None

    def denies(self, effect: str, table: str, column: str) -> bool:
        """Tell whether a change is refused.

        Args:
            effect: create, update or delete.
            table: its name.
            column: which is changed; "" where all may be.
        """
        bound = self._models.get(table.lower())
        if bound is None:
            return False
        fields = () if effect == "delete" else (column,) if column else tuple(bound.fields)
        request = Request("sql", effect, bound.name, fields, self._labels, UNCOUNTED)
        decision = self._policy.decide(request, _now)
        if not decision.permitted:
            self._error = decision.error(request)
        return not decision.permitted

    def error(self) -> WriteProtectedError:
        """Return the error of what was refused."""
        assert self._error is not None
        return self._error


def _now() -> datetime:
    return datetime.now(UTC)
