"""AuditLog and AuditLogSync: the audit log of one DataFlow, for reports, proofs and retention."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from dataflow import types as t
from dataflow.changelog import change_log
from dataflow.dialect import Program
from dataflow.enterprise.audit import trail, whole
from dataflow.enterprise.audit.chain import Checkpoint, Report
from dataflow.enterprise.audit.images import decode_image, stored_image
from dataflow.errors import InputError, SchemaError
from dataflow.session import Call, atomic

if TYPE_CHECKING:
    from dataflow.core import Core
    from dataflow.engine import DataFlow
    from dataflow.plan.bound import BoundModel

T = TypeVar("T")
Given = Checkpoint | Mapping[str, Any]


class _Log:
    """What both forms share: the programs, and the checks of what they are asked."""

    def __init__(self, db: "DataFlow") -> None:
        self._core: Core = db.core
        change_log(self._core.dialect)

    def _audited(self) -> "list[BoundModel]":
        models = self._core.models.values()
        return [model for model in models if any(feature.name == "audit" for feature in model.features)]

    def _model(self, name: str) -> "BoundModel":
        bound = self._core.model(name)
        if bound not in self._audited():
            msg = f"model {name} is not audited"
            raise InputError(msg, hint="declare __dataflow__ = {'audit_log': True} on it", where={"model": name})
        return bound

    def _key(self) -> str | None:
        settings = self._core.plugins.settings
        return self._core.config["audit_key"] if ("instance", "audit_key") in settings else None

    def _there(self, program: Program[T]) -> Program[T]:
        """Run a program on the log, if there is one.

        Raises:
            SchemaError: there is none.
        """
        if not (yield from change_log(self._core.dialect).log_present()):
            msg = "this database has no audit log"
            hint = "it is created with the first audited model"
            raise SchemaError(msg, hint=hint, code="missing-extra")
        return (yield from program)

    def _body(self, program: Program[T], call: Call, how: str) -> Program[T]:
        """Run a program as it needs it: "read" (one statement), "whole" (one state of the database), "locked"."""
        if how == "read":
            return self._there(program)
        return atomic(call, self._there(program), isolation="REPEATABLE_READ" if how == "whole" else None)

    def _verify(self, model: str | None, checkpoint: Given | Iterable[Given] | None) -> Program[Report]:
        models = self._audited() if model is None else [self._model(model)]
        given = [checkpoint] if isinstance(checkpoint, (Checkpoint, Mapping)) else list(checkpoint or ())
        return whole.Verifier(self._core, models, self._key()).program(_checkpoint(one) for one in given)

    def _purge(self, older_than: datetime, reason: str) -> Program[int]:
        try:
            before = t.DateTimeType("reject").accept(older_than)
        except t.ValueRefused as refused:
            msg = f"older_than: {refused.message}"
            raise InputError(msg, hint="pass datetime.now(UTC) - timedelta(days=365)", code="bad-parameter") from None
        if not isinstance(reason, str) or not reason.strip():
            msg = "a purge is recorded with its reason"
            raise InputError(msg, hint='write reason="retention of a year"', code="bad-parameter")
        return whole.purge(self._core, before, reason)

    def _entries(self, model: str | None, options: Mapping[str, Any]) -> Program[dict[str, Any]]:
        if model is not None:
            bound = self._model(model)
            operation = bound.operation("audit")
            _, found = operation.split(options)
            return trail.read_entries(self._core, bound, operation.wanted(found, tenant=found.get("tenant_id")))
        unknown = set(options) - {"actor", "date_range", "limit", "cursor", "newest_first"}
        if unknown:
            msg = f"without a model, entries takes no {', '.join(sorted(unknown))}"
            raise InputError(msg, hint="name the model: entries('User', …)", code="unknown-parameter")
        attributes, faults = trail.read_options(options)
        if faults:
            raise InputError(faults[0].message, hint=faults[0].hint, problems=faults, code=faults[0].code)
        return trail.read_entries(self._core, None, trail.Wanted(**attributes))

    def _replay(self, model: str, at: datetime | None, *, stored: bool) -> Program[list[dict[str, Any]]]:
        bound = self._model(model)
        log = change_log(self._core.dialect)

        def rebuild() -> Program[list[dict[str, Any]]]:
            values: list[Any] = [bound.spec.table]
            where = f"tbl = {log.log_parameter(1, t.StrType())}"
            if at is not None:
                encode = self._core.dialect.encoder(t.DateTimeType())
                instant = t.DateTimeType("utc").accept(at)
                values.append(instant if encode is None else encode(instant))
                where += f" AND at <= {log.log_parameter(2, t.DateTimeType())}"
            source = whole.pages(self._core, ("seq",), where, values)
            images: dict[str, str] = {}
            while entries := (yield from source.next()):
                for entry in entries:
                    if entry.new is None:
                        images.pop(entry.record, None)
                    else:
                        images[entry.record] = entry.new
            read = [log.log_read(image) for image in images.values()]
            shown = [{name: image[name] for name in bound.fields if name in image} for image in read]
            records = [decode_image(bound, image, log) or {} for image in shown]
            order = sorted(range(len(read)), key=lambda place: bound.operation("audit").rank(records[place]))
            return [stored_image(bound, read[place], log) if stored else records[place] for place in order]

        return rebuild()


def _checkpoint(given: Given) -> Checkpoint:
    if isinstance(given, Checkpoint):
        return given
    try:
        return Checkpoint(**given)
    except TypeError:
        msg = "a checkpoint is what seal() returned, or its to_dict()"
        raise InputError(msg, hint="pass it unchanged", code="bad-parameter") from None


class AuditLog(_Log):
    """The audit log of a DataFlow: ``await AuditLog(db).verify()``. Tenants are not told apart here.

    Cancelling a call interrupts its statement; nothing is half done.

    Args:
        db: the DataFlow.
    """

    async def _run(self, program: Program[T], how: str = "whole") -> T:
        await self._core.ensure(self._audited())
        call = self._core.own_call()
        return await self._core.run(self._body(program, call, how), call, write=how != "read", holder="audit")

    async def verify(self, model: str | None = None, checkpoint: Given | Iterable[Given] | None = None) -> Report:
        """Follow every chain, compare the tables with the log, and check all checkpoints.

        Args:
            model: compare only the table of this model.
            checkpoint: one or several that were kept elsewhere; without one, who can write to everything can also make
                a log that fits.
        """
        return await self._run(self._verify(model, checkpoint))

    async def seal(self) -> Checkpoint:
        """Take a checkpoint of the whole log, store it, and return it to be kept elsewhere.

        It is signed where the setting `audit_key` is given. Writers wait meanwhile.
        """
        return await self._run(whole.take_checkpoint(self._core, self._key()), "locked")

    async def purge(self, older_than: datetime, *, reason: str) -> int:
        """Remove entries of before an instant; return how many.

        The last entry of each record that exists stays, and of those removed their hashes: chains and checkpoints can
        still be verified. The purge itself is an entry, with actor and reason.

        Args:
            older_than: an aware datetime.
            reason: why.
        """
        return await self._run(self._purge(older_than, reason), "locked")

    async def entries(self, model: str | None = None, **options: Any) -> dict[str, Any]:
        """Return entries, of one model (options as for its AuditNode) or of all, with those about no record."""
        return await self._run(self._entries(model, options), "read")

    async def replay(self, model: str, *, at: datetime | None = None) -> list[dict[str, Any]]:
        """Return the records of a model as the log tells them, now or at an instant, by primary key."""
        return await self._run(self._replay(model, at, stored=False))


class AuditLogSync(_Log):
    """`AuditLog` for synchronous code."""

    def _run(self, program: Program[T], how: str = "whole") -> T:
        call = self._core.own_call()
        self._core.ensure_sync(self._audited())
        return self._core.run_sync(self._body(program, call, how), call, write=how != "read", holder="audit")

    def verify(self, model: str | None = None, checkpoint: Given | Iterable[Given] | None = None) -> Report:
        """`AuditLog.verify` in the calling thread."""
        return self._run(self._verify(model, checkpoint))

    def seal(self) -> Checkpoint:
        """`AuditLog.seal` in the calling thread."""
        return self._run(whole.take_checkpoint(self._core, self._key()), "locked")

    def purge(self, older_than: datetime, *, reason: str) -> int:
        """`AuditLog.purge` in the calling thread."""
        return self._run(self._purge(older_than, reason), "locked")

    def entries(self, model: str | None = None, **options: Any) -> dict[str, Any]:
        """`AuditLog.entries` in the calling thread."""
        return self._run(self._entries(model, options), "read")

    def replay(self, model: str, *, at: datetime | None = None) -> list[dict[str, Any]]:
        """`AuditLog.replay` in the calling thread."""
        return self._run(self._replay(model, at, stored=False))

    def stored(self, model: str) -> list[dict[str, Any]]:
        """Return what `replay` does, with every column, in the form the driver gives them."""
        return self._run(self._replay(model, None, stored=True))
