"""{M}AuditNode: the entries about a model's records, filtered and paged, with values as results show them."""

import base64
import binascii
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Any, cast

import attrs

from dataflow import types as t
from dataflow.changelog import ChangeLog, change_log
from dataflow.dialect import Command, Program
from dataflow.enterprise.audit.images import decode_image, difference, order_of, record_key
from dataflow.errors import Problem, TenancyError, suggest
from dataflow.operations import OperationKind
from dataflow.plan.operation import KEY, ModelOperation, Result
from dataflow.plugins.specs import NodeSpec, Parameter
from dataflow.session import Call
from dataflow.types import ValueRefused, kind

if TYPE_CHECKING:
    from dataflow.core import Core
    from dataflow.model import ModelSpec
    from dataflow.plan.bound import BoundModel

ACTIONS = ("create", "update", "delete", "soft_delete", "restore", "found")
"""What entries about records tell; "found": what was there when watching began."""
MANY_ENTRIES = 10_000
_NAMES = {"insert": "create"}
TRAIL = OperationKind(
    "audit",
    "AuditNode",
    "dataflow.enterprise.audit.trail:Trail",
    (
        Parameter("id", "key", doc="Only entries about this record. `record_id` is the same."),
        Parameter("action_type", "str or list[str]", doc=f"Only these: {', '.join(ACTIONS)}."),
        Parameter(
            "date_range", "dict", doc="{'start': …, 'end': …}, inclusive, UTC; a date as end covers its whole day."
        ),
        Parameter("actor", "str", doc="Only what this actor did."),
        Parameter("field", "str", doc="Only entries that changed this field."),
        Parameter("limit", "int", doc="Most entries to return."),
        Parameter("cursor", "str", doc="next_cursor of the page before."),
        Parameter("newest_first", "bool", default=False, doc="Begin with the latest entry."),
    ),
    outputs=("entries", "count", "has_more", "next_cursor"),
    writes=False,
    doc="List the recorded changes of a model's records.",
)


def nodes(spec: "ModelSpec", config: Any) -> list[NodeSpec]:
    """Return the node types of a model: one where it is audited."""
    from dataflow.enterprise.audit.feature import is_audited

    return [TRAIL.node(spec.name, (), ())] if is_audited(spec.options, config) else []


@attrs.frozen
class Wanted:
    """Which entries are asked for.

    Attributes:
        key: stored parts of a record's key, by field; None for all records.
        actions: action types; empty for all.
        start, end: instants, inclusive, or None.
        actor, field: or None.
        limit: most entries, or None.
        after: the last entry of the page before, or None.
        newest_first: whether later entries come first.
        tenant: whose entries, or None for everybody's.
    """

    key: Mapping[str, Any] | None = None
    actions: tuple[str, ...] = ()
    start: datetime | None = None
    end: datetime | None = None
    actor: str | None = None
    field: str | None = None
    limit: int | None = None
    after: int | None = None
    newest_first: bool = False
    tenant: str | None = None


class _Query:
    """Builds the SELECT of one page; parameters stand in the text in the order of their values."""

    def __init__(self, core: "Core", bound: "BoundModel | None") -> None:
        self.dialect = core.dialect
        self.log: ChangeLog = change_log(core.dialect)
        self.bound = bound
        self.places = {} if bound is None else order_of(bound)
        self.where: list[str] = []
        self.values: list[Any] = []

    def bind(self, value: Any, of: t.FieldType) -> str:
        """Add a value; return its placeholder."""
        encode = self.dialect.encoder(of)
        return self.bind_stored(value if encode is None else encode(value), of)

    def bind_stored(self, value: Any, of: t.FieldType) -> str:
        """Add a value that is encoded already."""
        self.values.append(value)
        return self.log.log_parameter(len(self.values), of)

    def member(self, image: str, name: str) -> str:
        """Return the text of a member of an image."""
        return self.log.log_member(image, name, self.places.get(name, 0))

    def write(self, wanted: Wanted) -> str:
        """Return the text of the SELECT."""
        if self.bound is not None:
            self.where.append(f"tbl = {self.bind(self.bound.spec.table, t.StrType())}")
            if wanted.key is not None:
                self.where.append(self._record(wanted))
        if wanted.tenant is not None:
            self.where.append(f"tenant = {self.bind(wanted.tenant, t.StrType())}")
        if wanted.actions:
            self.where.append(f"({' OR '.join(map(self._action, wanted.actions))})")
        if wanted.start is not None:
            self.where.append(f"at >= {self.bind(wanted.start, t.DateTimeType())}")
        if wanted.end is not None:
            self.where.append(f"at <= {self.bind(wanted.end, t.DateTimeType())}")
        if wanted.actor is not None:
            self.where.append(f"actor = {self.bind(wanted.actor, t.StrType())}")
        if wanted.field is not None:
            self.where.append(self._changed(wanted.field))
        if wanted.after is not None:
            sign = "<" if wanted.newest_first else ">"
            self.where.append(f"seq {sign} {self.bind(wanted.after, t.IntType())}")
        where = f" WHERE {' AND '.join(self.where)}" if self.where else ""
        limit = "" if wanted.limit is None else f" LIMIT {self.bind(wanted.limit + 1, t.IntType())}"
        order = "DESC" if wanted.newest_first else "ASC"
        columns = f"seq, {self.log.log_at}, tbl, record, tenant, actor, run, node, action, old, new"
        return f"SELECT {columns} FROM {self.log.log_source}{where} ORDER BY seq {order}{limit}"  # noqa: S608

    def _record(self, wanted: Wanted) -> str:
        assert self.bound is not None
        assert wanted.key is not None
        inner, parts = [], []
        for place, name in enumerate(self.bound.spec.row_key):
            of = self.bound.spec.fields[name].type
            if name in wanted.key:
                inner.append(f"{self.bind_stored(wanted.key[name], of)} AS c{place}")
                parts.append((of, f"c{place}"))
            else:  # of the scope: the entry says it
                parts.append((t.StrType(), "tenant"))
        return f"record = (SELECT {self.log.log_key(parts)} FROM (SELECT {', '.join(inner)}) AS k)"  # noqa: S608

    def _action(self, name: str) -> str:
        ends = None if self.bound is None else self.bound.spec.ends
        if name not in ("update", "soft_delete", "restore"):
            return f"action = '{({'create': 'insert'}).get(name, name)}'"
        if ends is None:
            return "action = 'update'" if name == "update" else "1 = 0"
        old, new = (f"{self.member(image, ends)} IS NULL" for image in ("old", "new"))
        condition = {
            "soft_delete": f"{old} AND NOT ({new})",
            "restore": f"NOT ({old}) AND {new}",
            "update": f"({old}) = ({new})",
        }
        return f"(action = 'update' AND {condition[name]})"

    def _changed(self, name: str) -> str:
        old, new = (self.member(image, name) for image in ("old", "new"))
        differs = f"coalesce({old} <> {new}, ({old} IS NULL) <> ({new} IS NULL))"
        if f"${name}" not in self.places:
            return differs
        return f"({differs} OR {self.member('old', f'${name}')} IN ('1', 'true'))"


def read_entries(core: "Core", bound: "BoundModel | None", wanted: Wanted) -> Program[dict[str, Any]]:
    """Return a page of entries."""
    query = _Query(core, bound)
    text = query.write(wanted)
    rows = yield Command(text), query.values
    more = wanted.limit is not None and len(rows) > wanted.limit
    rows = rows[: wanted.limit] if more else rows
    if wanted.limit is None and len(rows) > MANY_ENTRIES:
        warnings.warn(f"{len(rows):,} entries were read at once; page with limit= and cursor=", stacklevel=2)
    tables = {model.spec.table: model for model in core.models.values()} if bound is None else {}
    entries = [_entry(row, tables.get(row[2], bound), query.log) for row in rows]
    if bound is None:
        entries = [{**entry, "table": row[2]} for entry, row in zip(entries, rows, strict=True)]
    cursor = write_cursor(rows[-1][0], newest_first=wanted.newest_first) if more and rows else None
    return {"entries": entries, "count": len(entries), "has_more": more, "next_cursor": cursor}


def _entry(row: Sequence[Any], bound: "BoundModel | None", log: ChangeLog) -> dict[str, Any]:
    seq, at, _, record, tenant, actor, run, node, action, before, after = row
    old = None if before is None else log.log_read(before)
    new = None if after is None else log.log_read(after)
    changed = difference(old, new, bound)
    return {
        "seq": seq,
        "at": datetime.fromisoformat(at),
        "action_type": action_type(action, old, new, bound),
        "record_id": record if bound is None else record_key(bound, new or old or {}, log),
        "actor": actor,
        "tenant": tenant,
        "run": run,
        "node": node,
        "old": decode_image(bound, old, log),
        "new": decode_image(bound, new, log),
        "changed": changed,
    }


def action_type(
    action: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None, bound: "BoundModel | None"
) -> str:
    """Return what an entry is called: soft deletion and restoration are told by the field that ends a record."""
    ends = None if bound is None else bound.spec.ends
    if action == "update" and ends is not None:
        before, after = (None if image is None else image.get(ends) for image in (old, new))
        if (before is None) != (after is None):
            return "soft_delete" if before is None else "restore"
    return _NAMES.get(action, action)


# -- parameters -----------------------------------------------------------------------------------------------------
def write_cursor(seq: int, *, newest_first: bool) -> str:
    """Return the opaque text that stands for the place after an entry."""
    return base64.urlsafe_b64encode(f"{'-' if newest_first else ''}{seq}".encode()).decode()


def read_cursor(cursor: Any, *, newest_first: bool) -> int | Problem:
    """Read what `write_cursor` wrote."""
    try:
        number = int(base64.urlsafe_b64decode(cursor.encode()))
    except (binascii.Error, ValueError, AttributeError):
        return Problem("bad-cursor", "the cursor is not one that an AuditNode returned", "pass next_cursor unchanged")
    if (number < 0) != newest_first:
        return Problem("bad-cursor", "the cursor belongs to the other order", "keep newest_first of the page before")
    return abs(number)


def read_actions(value: Any) -> tuple[str, ...] | Problem:
    """Read one action type, or a list of them."""
    if value is None:
        return ()
    listed = (value,) if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple, set, frozenset)) or not all(isinstance(item, str) for item in listed):
        return Problem("bad-parameter", f"action_type takes a text or a list of texts, got {kind(value)}")
    for item in listed:
        if item not in ACTIONS:
            close = suggest(item, ACTIONS)
            hint = f"did you mean {close!r}?" if close else f"action types: {', '.join(ACTIONS)}"
            return Problem("bad-parameter", f"there is no action type {item!r}", hint)
    if not listed:
        return Problem("bad-parameter", "action_type is an empty list, so no entry fits", "leave it out for all")
    return tuple(dict.fromkeys(listed))


def read_range(value: Any) -> tuple[datetime | None, datetime | None] | Problem:
    """Read a date range."""
    example = "write date_range={'start': '2025-01-01', 'end': '2025-01-31'}"
    if value is None:
        return None, None
    if not isinstance(value, Mapping):
        return Problem("bad-parameter", f"date_range takes a dict, got {kind(value)}", example)
    for name in value:
        if name not in ("start", "end"):
            close = suggest(str(name), ("start", "end"))
            return Problem(
                "bad-parameter", f"date_range has no {name!r}", f"did you mean {close!r}?" if close else example
            )
    try:
        start, end = (_instant(value.get(name), end=name == "end") for name in ("start", "end"))
    except ValueRefused as refused:
        return Problem("bad-parameter", f"date_range: {refused.message}", refused.hint or example)
    if start is not None and end is not None and start > end:
        return Problem("bad-parameter", "date_range ends before it starts", "exchange start and end")
    return start, end


def _instant(value: Any, *, end: bool) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, str):
        return t.DateTimeType("utc").from_text(value, end=end)
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime.combine(value, time.max if end else time.min, UTC)
    return t.DateTimeType("utc").accept(value)


def read_limit(value: Any) -> int | Problem | None:
    """Read the most entries that are wanted, or None."""
    if value is None or (type(value) is int and value >= 1):
        return value
    given = value if type(value) is int else kind(value)
    return Problem("bad-parameter", f"limit takes a whole number of at least 1, got {given}")


def read_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Read the options that are of no model: (attributes of `Wanted`, faults)."""
    faults: list[Problem] = []
    newest_first = options.get("newest_first", False)
    if not isinstance(newest_first, bool):
        faults.append(Problem("bad-parameter", f"newest_first takes True or False, got {kind(newest_first)}"))
        newest_first = False
    cursor = options.get("cursor")
    found = {
        "actions": read_actions(options.get("action_type")),
        "range": read_range(options.get("date_range")),
        "after": None if cursor is None else read_cursor(cursor, newest_first=newest_first),
        "actor": _named(options.get("actor")),
        "limit": read_limit(options.get("limit")),
    }
    faults += [value for value in found.values() if isinstance(value, Problem)]
    if faults:
        return {}, faults
    start, end = cast("tuple[datetime | None, datetime | None]", found.pop("range"))
    return {**found, "start": start, "end": end, "newest_first": newest_first}, []


class Trail(ModelOperation):
    """Return the recorded changes of a model's records."""

    name = "audit"
    described = TRAIL

    def missing(self, names: set[str]) -> list[str]:
        """Return nothing: every parameter may be left out."""
        del names
        return []

    def check(self, params: Mapping[str, Any], *, partial: bool) -> list[Problem]:
        problems = super().check(params, partial=partial)
        options = {self.route[name]: value for name, value in params.items() if self.route.get(name) is not None}
        _, faults = self._read({str(name): value for name, value in options.items()})
        return problems + faults

    def _read(self, options: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
        """Read the options that name no record: (attributes of `Wanted`, faults)."""
        found, faults = read_options(options)
        field = self._field(options.get("field"))
        if isinstance(field, Problem):
            return {}, [*faults, field]
        return {**found, "field": field}, faults

    def _field(self, name: Any) -> str | Problem | None:
        if name is None:
            return None
        if not isinstance(name, str):
            return Problem("bad-parameter", f"field takes the name of a field, got {kind(name)}")
        return self.known_field(name, "field") or name

    def program(self, params: Mapping[str, Any], call: Call) -> Program[dict[str, Any]]:
        _, options = self.split(params)
        self.shaped(options, call)
        wanted = self.wanted(options, tenant=self._tenant(call))
        return Result((yield from read_entries(self.bound.core, self.bound, wanted)))

    def wanted(self, options: Mapping[str, Any], *, tenant: str | None) -> Wanted:
        """Read which entries the options of a call ask for.

        Args:
            options: as `split` returns them.
            tenant: whose entries, or None for everybody's.

        Raises:
            InputError: naming all that is wrong with them.
        """
        attributes, faults = self._read(options)
        if faults:
            raise self.bound.refuse(faults, self.name)
        key = options.get(KEY, options.get("id"))
        stored = None if key is None else self._stored(key, tenant)
        return Wanted(key=stored, tenant=tenant, **attributes)

    def _stored(self, key: Any, tenant: str | None) -> dict[str, Any]:
        found, problems = {}, []
        for name, value in self.key_filter(key).items():
            try:
                found[name] = self.bound.fields[name].filter_operand(value)
            except ValueRefused as refused:
                problems.append(Problem("wrong-value", f"{name}: {refused.message}", refused.hint, {"field": name}))
        if problems:
            raise self.bound.refuse(problems, self.name)
        if tenant is not None:
            found |= dict.fromkeys(self.bound.spec.scope, tenant)
        return found

    def _tenant(self, call: Call) -> str | None:
        """Return whose entries the call may see; None for everybody's.

        Raises:
            TenancyError: the model is multi-tenant, and the call names no tenant, or two.
        """
        core = self.bound.core
        if not self.bound.spec.scope:  # strict: the log of a model of everybody's tells who the others are
            confined = core.confined and not core.privileged(call.ambient)
            return call.around("tenant") or "" if confined else None
        given: str | None = call.options.get("tenant_id")
        around: str | None = call.around("tenant")
        if given is not None and around is not None and given != around:
            msg = "tenant_id names another tenant than the one around the call"
            raise TenancyError(msg, hint="leave tenant_id out, or leave the block", code="other-tenant")
        tenant = given if given is not None else around
        if tenant is None and not call.around("all_tenants"):
            msg = f"{self.bound.name} is multi-tenant, and the call names no tenant"
            hint = 'give tenant_id=…, or write with db.tenant("acme"): around it'
            raise TenancyError(msg, hint=hint, where={"model": self.bound.name, "operation": self.name})
        return tenant


def _named(actor: Any) -> str | Problem | None:
    if actor is None or isinstance(actor, str):
        return actor
    return Problem("bad-parameter", f"actor takes a text, got {kind(actor)}")
