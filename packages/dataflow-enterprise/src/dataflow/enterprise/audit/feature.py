"""The feature `audit`: asks the database to watch over a model; the triggers do the rest, whatever SQL is sent."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from dataflow.dialect import Dialect, Program, refuse_unsupported
from dataflow.errors import ModelError, suggest
from dataflow.model import ModelDraft, ModelSpec, SchemaExtra
from dataflow.plan.stages import Stage


def is_audited(options: Mapping[str, Any], config: Any) -> bool:
    """Tell whether a model is audited: by its own option, or by the setting `audit_logging` where it has none."""
    return bool(options.get("audit_log", config["audit_logging"]))


def features(model: ModelDraft, config: Any) -> "list[Audit]":
    """Return the features of a model: one where it is audited.

    Raises:
        ModelError: `audit_mask` names no fields, or the model is not audited.
    """
    masked = model.options.get("audit_mask", ())
    if is_audited(model.options, config):
        return [Audit(masked)]
    if masked:
        msg = f"model {model.name} has an audit_mask, but is not audited"
        raise ModelError(msg, hint="add 'audit_log': True to __dataflow__", where={"model": model.name})
    return []


class Audit:
    """Records every change of a model.

    Args:
        masked: fields of which the log tells that they changed, never their values.
    """

    name = "audit"
    stage = Stage.RECORD
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    capability = "audit_log"

    def __init__(self, masked: Any = ()) -> None:
        self.masked: tuple[str, ...] = masked

    def extend_model(self, draft: ModelDraft) -> None:
        """Ask for the log and for the triggers that write to it.

        Raises:
            ModelError: the mask names what is no field, or a key.
        """
        self.masked = _mask(self.masked, draft)
        draft.ddl_extras.append(
            SchemaExtra(self.name, partial(_present, masked=self.masked), partial(_create, masked=self.masked))
        )

    def extend_plan(self, plan: Any) -> None:
        """Leave plans as they are."""


def _mask(masked: Any, draft: ModelDraft) -> tuple[str, ...]:
    where = {"model": draft.name}
    if not isinstance(masked, (list, tuple)) or not all(isinstance(name, str) for name in masked):
        msg = "audit_mask is a list of field names"
        raise ModelError(msg, hint="write __dataflow__ = {'audit_log': True, 'audit_mask': ['ssn']}", where=where)
    for name in masked:
        if name not in draft.fields:
            close = suggest(name, draft.fields)
            msg = f"audit_mask of model {draft.name} names the field {name!r}, which does not exist"
            hint = f"did you mean {close!r}?" if close else f"fields: {', '.join(draft.fields)}"
            raise ModelError(msg, hint=hint, where=where)
        if name in draft.primary_key or name in draft.scope:
            msg = f"audit_mask of model {draft.name} names {name!r}, by which entries are found"
            raise ModelError(msg, hint="mask other fields", where=where)
    return tuple(dict.fromkeys(masked))


def _present(dialect: Dialect, spec: ModelSpec, masked: tuple[str, ...]) -> Program[bool]:
    refuse_unsupported(dialect, "change_log")
    return (yield from dialect.watched(spec, masked))


def _create(dialect: Dialect, spec: ModelSpec, masked: tuple[str, ...]) -> Program[None]:
    yield from dialect.watch(spec, masked)
