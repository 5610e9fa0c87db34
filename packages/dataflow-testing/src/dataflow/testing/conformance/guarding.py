"""A plugin as a stranger writes it, for suites about what a database itself watches over: a guard, and a feature.

The guard tells connections of the calls they serve, and is asked what a suite wants; the feature asks the dialect for
what tables need. No part of the framework is needed to prove what they use.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from dataflow.dialect import Command, Program, support
from dataflow.errors import DataFlowError
from dataflow.model import ModelDraft, SchemaExtra
from dataflow.plan.stages import Stage
from dataflow.plugins import SettingSpec, hookimpl
from dataflow.session import Call


class Telling:
    """Tells connections the tenant, actor, run and node of every statement, and notes what they know then.

    Args:
        needed: whether it tells them where the dialect declares that they cannot know.

    Attributes:
        seen: what each connection knew, and should have known, when a statement was sent.
        refusing: returns the error of a statement that writes, while writes are refused; else None.
    """

    name = "conformance"
    confines = False
    exclusive = False

    def __init__(self, *, needed: bool = True) -> None:
        self.needed = needed
        self.seen: list[tuple[Mapping[str, str], Mapping[str, str]]] = []
        self.refusing: Callable[[], DataFlowError] | None = None

    def privileged(self, core: Any, ambient: Mapping[Any, Any]) -> bool:
        """Grant everything where ``everybody`` surrounds the call."""
        return core.around(ambient, "everybody") is not None

    def context(self, call: Call, *, writes: bool) -> Mapping[str, str]:
        """Return what surrounds the call."""
        del writes
        if not self.needed and support(call.core.dialect, "context").level == "unsupported":
            return {}
        return {
            "tenant": call.around("tenant") or "",
            "actor": call.around("actor") or "",
            "run": call.run.id if call.run is not None else "",
            "node": call.node_id,
        }

    def seal(self, call: Call, command: Command) -> Callable[[], DataFlowError] | None:
        """Note what the connection knows, and refuse writes where that is asked for."""
        self.seen.append((dict(call.session.context), self.context(call, writes=command.writes)))
        return self.refusing

    def sql(self, core: Any, ambient: Mapping[Any, Any], statements: Any) -> None:
        """Refuse nothing."""

    def escape(self, core: Any, name: str, reason: str) -> None:
        """Record nothing."""


class Confining(Telling):
    """Demands connections that the database keeps within the tenant of the call."""

    confines = True


class Asking:
    """A feature that wants something of a model's table.

    Args:
        extra: what it wants.
        scope: the field that says whose a record is, or "".
    """

    name = capability = "conformance"
    stage = Stage.SCOPE
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    def __init__(self, extra: SchemaExtra, scope: str = "") -> None:
        self.extra = extra
        self.scope = scope

    def extend_model(self, draft: ModelDraft) -> None:
        """Ask for it."""
        if self.scope:
            draft.scope = (self.scope,)
        draft.ddl_extras.append(self.extra)

    def extend_plan(self, plan: Any) -> None:
        """Leave plans as they are."""


def extra(present: Callable[[Any, Any], Program[bool]], create: Callable[[Any, Any], Program[None]]) -> SchemaExtra:
    """Return what a table needs."""
    return SchemaExtra("conformance", present, create)


class GuardPlugin:
    """Brings a guard, and the feature that the option ``conformance`` of a model asks for.

    Args:
        guard: what watches.
        feature: returns the feature of a model, given the option's value; None: there is none.
    """

    dataflow_api: ClassVar[str] = "1.0"

    def __init__(self, guard: Telling, feature: Callable[[Any], Asking] | None = None) -> None:
        self.guard = guard
        self.feature = feature

    @hookimpl
    def dataflow_settings(self) -> Iterable[SettingSpec]:
        """Declare the option."""
        return [SettingSpec("conformance", list, None, "What a suite wants of a model.", scope="model")]

    @hookimpl
    def dataflow_guards(self) -> Iterable[Telling]:
        """Offer the guard."""
        return [self.guard]

    @hookimpl
    def dataflow_features(self, model: ModelDraft) -> Iterable[Asking] | None:
        """Offer the feature."""
        wanted = model.options.get("conformance")
        return None if wanted is None or self.feature is None else [self.feature(wanted)]
