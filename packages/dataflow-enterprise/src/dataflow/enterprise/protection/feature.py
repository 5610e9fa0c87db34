"""Protection of a model: every plan that writes asks the policy before anything is sent, and `build()` asks beforehand.

Asks about what the statement does to its own table, and about what the database does to others because of it (foreign
keys that cascade).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dataflow.enterprise.protection.decision import Request
from dataflow.enterprise.protection.policy import EFFECTS, Protection
from dataflow.errors import Problem
from dataflow.fields import ForeignKey
from dataflow.instances import labels
from dataflow.plan.stages import Stage
from dataflow.session import Call, surroundings

if TYPE_CHECKING:
    from dataflow.core import Core
    from dataflow.plan.bound import BoundModel
    from dataflow.plan.builder import PlanBuilder

NAME = "protection"
_BY_STATEMENT = {"insert": "create", "update": "update", "delete": "delete"}
_GIVEN = ("values", "fields", "create", "where", "data")
_CHANGED = ("values", "fields", "update", "data")
_OPERATORS = "$"


def unlocked(core: "Core", ambient: Mapping[Any, Any]) -> bool:
    """Tell whether calls in these surroundings pass the protection."""
    return core.around(ambient, "unlocked") is not None


def labels_of(core: "Core") -> frozenset[str]:
    """Return the names by which rules may name the connection."""
    return frozenset(labels(core))  # type: ignore[arg-type]  # it has the config, which is all that is looked at


def requests(
    model: str,
    operation: str,
    statement: str,
    fields: tuple[str, ...],
    names: frozenset[str],
    *,
    tentative: bool = False,
) -> Iterator[Request]:
    """Yield what a statement of an operation asks for: one request for each of its effects.

    An upsert has to be permitted to create and to update, whichever of the two it is going to do; the fields are those
    of the statement at hand.
    """
    own = _BY_STATEMENT.get(statement)
    effects = EFFECTS.get(operation) or ((own,) if own else ())
    for effect in sorted(effects, key=lambda effect: effect != own):
        given = fields if effect == own and effect != "delete" else ()
        partial = tentative or effect != own
        yield Request(operation, effect, model, given, names, partial=partial, tentative=tentative)


class _Counter:
    """The rows that one call has changed: among what it does after the commit, for what is undone takes it along."""

    rows = 0

    def __call__(self) -> None:
        """Do nothing: it has served."""


class ProtectionFeature:
    """What every model has where a policy is set.

    Args:
        policy: the policy.
    """

    name = NAME
    stage = Stage.AUTHORIZE
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    capability = NAME

    def __init__(self, policy: Protection) -> None:
        self.policy = policy

    def extend_model(self, draft: Any) -> None:
        """Leave the model as it is."""

    def extend_plan(self, plan: "PlanBuilder") -> None:
        """Ask the policy at the start of every call that writes."""
        operation, statement = plan.operation, plan.statement
        if operation == "related" or (statement == "select" and operation not in ("upsert", "bulk_upsert")):
            return
        model, policy = plan.model, self.policy
        names = labels_of(model.core)
        known: dict[tuple[str, ...], tuple[Request, ...]] = {}

        def authorize(call: Call, written: tuple[str, ...]) -> None:
            if unlocked(call.core, call.ambient):
                return
            wanted = known.get(written)
            if wanted is None:
                wanted = known[written] = tuple(requests(model.name, operation, statement, written, names))
            self._ask(wanted, call)
            if statement == "delete" and plan.replacement is None:
                self._ask(cascades(model, names), call)

        plan.authorize(authorize)
        effects = EFFECTS.get(operation, (_BY_STATEMENT.get(statement, ""),))
        counted = {rule for rule in policy.rules if rule.max_rows is not None}
        if counted and statement in ("update", "delete") and {"update", "delete"}.intersection(effects):
            plan.guard(self._count(model.name, operation, _BY_STATEMENT[statement], names))

    def _ask(self, wanted: Iterable[Request], call: Call) -> None:
        for request in wanted:
            decision = self.policy.decide(request, lambda: call.now)
            if not decision.permitted:
                raise decision.error(request)

    def _count(self, model: str, operation: str, effect: str, names: frozenset[str]) -> Any:
        def count(call: Call, rows: int) -> None:
            if unlocked(call.core, call.ambient):
                return
            found = next((note for note in call.after_commit if isinstance(note, _Counter)), None)
            if found is None:
                found = _Counter()
                call.after_commit.append(found)
            found.rows += rows
            self._ask([Request(operation, effect, model, (), names, rows=found.rows)], call)

        return count

    def check_node(self, operation: Any, params: Mapping[str, Any]) -> list[Problem]:
        """Return what `build()` can tell of a node: rules that refuse it whatever the run brings."""
        bound = operation.bound
        if unlocked(bound.core, surroundings()) or not operation.writes or _only_counts(operation, params):
            return []
        names = labels_of(bound.core)
        effects = EFFECTS.get(operation.name, ())
        problems: dict[str, Problem] = {}
        for effect in effects:
            statement = {"create": "insert"}.get(effect, effect)
            fields = tuple(_constant_fields(operation, params, effect))
            for request in requests(bound.name, operation.name, statement, fields, names, tentative=True):
                decision = self.policy.decide(request, _no_clock)
                if not decision.permitted:
                    problems.setdefault(decision.rule, decision.problem(request))
        return list(problems.values())


def _no_clock() -> Any:
    return None


def _only_counts(operation: Any, params: Mapping[str, Any]) -> bool:
    """Tell whether a bulk delete waits for its confirmation, which the run may bring."""
    given = {operation.route.get(name): value for name, value in params.items()}
    return bool(given.get("confirmation_required")) and not given.get("confirmed")


def _constant_fields(operation: Any, params: Mapping[str, Any], effect: str) -> Iterator[str]:
    """Yield the fields that constants of a node give or change."""
    known = operation.bound.fields
    options = _GIVEN if effect == "create" else _CHANGED
    found: dict[str, None] = {}
    for name, value in params.items():
        target = operation.route.get(name, "")
        if target is None:
            found |= _names({name: value}, known)
        elif target in options and isinstance(value, Mapping):
            found |= _names(value, known)
        elif target in options and isinstance(value, (list, tuple)):
            for row in value:
                if isinstance(row, Mapping):
                    found |= _names(row, known)
    if effect == "update":
        keys = operation.bound.spec.primary_key
        return (name for name in found if name not in keys)
    return iter(found)


def _names(values: Mapping[Any, Any], known: Mapping[str, Any]) -> dict[str, None]:
    """Return the fields that a dict names, also below update operators."""
    found: dict[str, None] = {}
    for name, value in values.items():
        if name in known:
            found[name] = None
        elif str(name).startswith(_OPERATORS) and isinstance(value, Mapping):
            found |= dict.fromkeys(inner for inner in value if inner in known)
    return found


def cascades(model: "BoundModel", names: frozenset[str]) -> Iterator[Request]:
    """Yield what the database does to other tables when rows of a model are deleted."""
    seen = {model.name}
    stack = [model.name]
    while stack:
        target = stack.pop()
        for other in list(model.core.models.values()):
            for field in other.spec.fields.values():
                relation = field.relation
                if not isinstance(relation, ForeignKey) or relation.model != target:
                    continue
                if relation.on_delete == "set null":
                    yield Request("cascade", "update", other.name, (field.name,), names)
                elif relation.on_delete == "cascade":
                    yield Request("cascade", "delete", other.name, (), names)
                    if other.name not in seen:
                        seen.add(other.name)
                        stack.append(other.name)
