"""The guard `audit`: tells connections who acts before they write, and records who passes other guards."""

from collections.abc import Mapping
from typing import Any

from dataflow.changelog import change_log
from dataflow.dialect import Program
from dataflow.errors import SchemaError
from dataflow.jsontext import dump_json
from dataflow.session import Call


class AuditGuard:
    """Lets the database know the actor, tenant, run and node of each statement that writes."""

    name = "audit"
    confines = False
    exclusive = False

    def active(self, core: Any) -> bool:
        """Tell whether a model is audited."""
        return any(feature.name == "audit" for model in core.models.values() for feature in model.features)

    def privileged(self, core: Any, ambient: Mapping[Any, Any]) -> bool:
        """Grant nothing."""
        del core, ambient
        return False

    def context(self, call: Call, *, writes: bool) -> Mapping[str, str]:
        """Return what entries of the log say of a call; "" is nobody, or none."""
        if not writes:
            return _NOTHING
        tenant = call.around("tenant") or call.options.get("tenant_id")
        return {
            "tenant": tenant if isinstance(tenant, str) else "",
            "actor": call.around("actor") or "",
            "run": call.run.id if call.run is not None else "",
            "node": call.node_id,
        }

    def sql(self, core: Any, ambient: Mapping[Any, Any], statements: Any) -> None:
        """Refuse nothing."""

    def escape(self, core: Any, name: str, reason: str) -> Program[None]:
        """Return the program that records who passes a guard, and why.

        Raises:
            SchemaError: there is no log, and this DataFlow may not create one.
        """
        core.awaken(self)  # the entry has to name the actor
        return self._record(core, name, reason)

    @staticmethod
    def _record(core: Any, name: str, reason: str) -> Program[None]:
        log = change_log(core.dialect)
        if not (yield from log.log_present()):
            if not core.config["auto_migrate"] or core.config["existing_schema_mode"]:
                msg = "there is no audit log to record this in"
                hint = "allow it to be made: DataFlow(auto_migrate=True, existing_schema_mode=False)"
                raise SchemaError(msg, hint=hint, code="missing-extra")
            yield from core.dialect.before_tables(())
            yield from log.log_create()
        yield from log.log_note(name, name, dump_json({"reason": reason}))


_NOTHING: Mapping[str, str] = {}
