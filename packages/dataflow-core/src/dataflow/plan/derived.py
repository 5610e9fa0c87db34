"""Values that features derive from new records, just before these are inserted.

Another call may write such a value at the same time: where the database then refuses the insert, it is undone, and the
values are derived again. Knows neither SQL nor fields.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from dataflow.dialect import Program
from dataflow.errors import PluginError, UniqueError
from dataflow.session import Call, atomic

Derivation = Callable[[Call, list[dict[str, Any]]], Program[Sequence[Any]]]
ATTEMPTS = 1000
"""Each attempt but the first means that somebody else has written a record: a bound for functions that go astray."""
T = TypeVar("T")


def settle(
    derivations: Mapping[str, Derivation],
    call: Call,
    records: Sequence[Mapping[str, Any]],
    write: Callable[[list[dict[str, Any]]], Program[T]],
    *,
    missed: Callable[[T], bool] = lambda _reply: False,
) -> Program[T]:
    """Derive values, and run what inserts them, as one transaction; again where others took one of them meanwhile.

    Args:
        derivations: field -> what derives it.
        call: the context.
        records: what callers give.
        write: gets copies of the records, with what was derived, and inserts them.
        missed: whether a reply of `write` may mean that a value was taken.

    Raises:
        UniqueError: a value is taken, and nothing else was derived for it.
    """
    last: list[Any] | None = None
    clash: UniqueError | None = None
    reply: Any = None
    for _ in range(ATTEMPTS):
        found: list[Any] = []
        try:
            reply = yield from atomic(call, _attempt(derivations, call, records, write, last=last, found=found))
        except _Unchanged:
            if clash is not None:
                raise clash from None
            return reply  # type: ignore[no-any-return]
        except UniqueError as error:
            if not _about(error, derivations):
                raise
            clash = error
        else:
            if not missed(reply):
                return reply  # type: ignore[no-any-return]
            clash = None
        last = found
    if clash is not None:
        raise clash
    return reply  # type: ignore[no-any-return]


class _Unchanged(Exception):  # an internal signal
    """What is derived is what was refused before."""


def _attempt(
    derivations: Mapping[str, Derivation],
    call: Call,
    records: Sequence[Mapping[str, Any]],
    write: Callable[[list[dict[str, Any]]], Program[T]],
    *,
    last: list[Any] | None,
    found: list[Any],
) -> Program[T]:
    fresh = [dict(record) for record in records]
    for field, function in derivations.items():
        values = yield from function(call, fresh)
        if len(values) != len(fresh):
            msg = f"{len(values)} values were derived for the field {field!r} of {len(fresh)} records"
            raise PluginError(msg, hint="return one for each record", code="plugin-failed")
        for record, value in zip(fresh, values, strict=True):
            record[field] = value
        found.append(list(values))
    if found == last:
        raise _Unchanged
    return (yield from write(fresh))


def _about(error: UniqueError, fields: Mapping[str, Any]) -> bool:
    """Tell whether a clash may be about derived values: not all databases name the columns."""
    columns = str(error.where.get("columns", ""))
    return not columns or not fields.keys().isdisjoint(columns.split(", "))
