"""Plans: compiled shapes of calls, with what features want of each. `PlanBuilder` makes them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from dataflow.dialect import COUNT, Command, Convert, Program
from dataflow.errors import InputError, Problem
from dataflow.filters import bucket
from dataflow.plan.derived import Derivation, settle
from dataflow.session import Call
from dataflow.types import INT_MAX, ValueRefused

if TYPE_CHECKING:
    from dataflow.fields import FieldSpec
    from dataflow.plan.builder import PlanBuilder

Binder = Callable[[Call], Any]
Record = Callable[[Call, list[dict[str, Any]]], Program[None]]
Guard = Callable[[Call, int], None]
Authorization = Callable[[Call, tuple[str, ...]], None]
Conflict = Callable[[Call, list[Any]], None]
Prelude = Callable[[Call, list[Any]], Program[None]]
Around = Callable[[Call], Any]


AT_ONCE = 1000
"""Keys that a statement names."""


class Slot(NamedTuple):
    """Where one argument comes from.

    Attributes:
        place: position in the call's values; binders' values follow the operands.
        convert: what encodes it, or None.
        label: field or path, for errors.
    """

    place: int
    convert: Convert | None
    label: str


class Plan:
    """A compiled shape of call.

    Attributes:
        command: what goes to the driver.
        columns: names of the returned columns.
        decode: row -> dict.
        guards, unmatched, records, notifications, conflicts, preludes, authorizations, derivations: what features
            added.
        plain: whether one step is all there is to it, with nothing to undo afterwards.
        probe: finds the keys of the rows that only what features expect excludes, or None.
        targets: finds the keys of the rows that the statement is about to change, or None.
        keyed: the statement for rows by their keys, given the size of the list; only where there are `targets`.
    """

    __slots__ = (
        "_binders", "_pairs", "_slots", "authorizations", "columns", "command", "conflicts", "decode", "derivations",
        "guards", "keyed", "model", "notifications", "operation", "plain", "preludes", "probe", "records", "targets",
        "unmatched", "written",
    )  # fmt: skip

    def __init__(
        self,
        command: Command,
        slots: Sequence[Slot],
        builder: "PlanBuilder",
        columns: Sequence[str],
        *,
        bare: bool = False,
    ) -> None:
        self.command = command
        self.model = builder.model
        self.operation = builder.operation
        self._slots = tuple(slots)
        self._pairs = tuple((slot.place, slot.convert) for slot in slots)
        self._binders = tuple(builder.root.binders)
        self.columns = tuple(columns)
        self.decode = builder.model.decoder(columns, builder.decodes)
        self.guards: tuple[Guard, ...] = () if bare else tuple(builder.guards)
        self.unmatched: tuple[Guard, ...] = () if bare else tuple(builder.unmatched)
        self.records: tuple[Record, ...] = () if bare else tuple(builder.records)
        self.notifications = () if bare else tuple(builder.notifications)
        self.authorizations: tuple[Authorization, ...] = () if bare else tuple(builder.authorizations)
        self.preludes: tuple[Prelude, ...] = () if bare else tuple(builder.preludes)
        self.conflicts: tuple[Conflict, ...] = () if bare else tuple(conflict for _, conflict in builder.expected)
        self.derivations: Mapping[str, Derivation] = {} if bare else dict(builder.derivations)
        self.written = builder.written
        self.probe: Plan | None = None
        self.targets: Plan | None = None
        self.keyed: Callable[[int], Plan] = _no_keys
        self.plain = not (self.guards or self.records or self.notifications or self.preludes or self.derivations)

    def arguments(self, values: list[Any], call: Call) -> list[Any]:
        """Encode a call's operands into driver arguments.

        Raises:
            InputError: naming every operand that does not fit.
        """
        if self.authorizations:
            for authorize in self.authorizations:
                authorize(call, self.written)
        if self._binders:
            values = [*values, *[binder(call) for binder in self._binders]]
        try:
            return [values[i] if convert is None else convert(values[i]) for i, convert in self._pairs]
        except ValueRefused:
            raise self._explain(values) from None

    def ask(self, call: Call) -> None:
        """Ask what every call is asked where nothing is to be sent: whether it is permitted, and for whom it acts."""
        for authorize in self.authorizations:
            authorize(call, self.written)
        for binder in self._binders:
            binder(call)

    def _explain(self, values: list[Any]) -> InputError:
        problems = []
        seen = set()
        for slot in self._slots:
            try:
                if slot.convert is not None:
                    slot.convert(values[slot.place])
            except ValueRefused as refused:
                if (slot.place, slot.label) not in seen:
                    seen.add((slot.place, slot.label))
                    problems.append(refused_problem(slot.label, refused))
        return self.model.refuse(problems, self.operation)

    def run(self, values: list[Any], call: Call) -> Program[Any]:
        """Execute: one step, then guards, records of the same transaction, and notes for after the commit."""
        if self.derivations:
            return (yield from self.settled(values, call, lambda filled: self._run(filled, call)))
        return (yield from self._run(values, call))

    def settled(self, values: list[Any], call: Call, write: Callable[[list[Any]], Program[Any]]) -> Program[Any]:
        """Run ``write(operands)``, which inserts a record, with what features derive from it, in a transaction."""
        for authorize in self.authorizations:
            authorize(call, self.written)
        given = dict(zip(self.written, values, strict=False))
        self._accept(given)
        record = {**self.model.spec.literals, **given}
        return (
            yield from settle(
                self.derivations,
                call,
                [record],
                lambda found: write([*values, *[found[0][name] for name in self.derivations]]),
            )
        )

    def _accept(self, given: Mapping[str, Any]) -> None:
        """Refuse values that do not fit: whoever derives others from them can rely on their types."""
        problems = []
        for name, value in given.items():
            try:
                self.model.fields[name].encode(value)
            except ValueRefused as refused:
                problems.append(refused_problem(name, refused))
        if problems:
            raise self.model.refuse(problems, self.operation)

    def _run(self, values: list[Any], call: Call) -> Program[Any]:
        arguments = self.arguments(values, call)
        if self.targets is None:
            reply = yield self.command, arguments
        else:
            reply = yield from self._run_by_keys(self.targets, values, call)
        if not reply and (self.conflicts or self.unmatched):
            yield from self.missed(values, call)
        if not self.plain:
            yield from self.follow(reply, call)
        return reply

    def _run_by_keys(self, targets: "Plan", values: list[Any], call: Call) -> Program[Any]:
        """Find the rows first, and change just these: what preludes do may be what the filter looks at."""
        rows = yield targets.command, targets.arguments(values, call)
        keys = [targets.key_of(row) for row in rows]
        if keys:
            for prelude in self.preludes:
                yield from prelude(call, keys)
        reply: Any = 0 if self.command.returns == COUNT else []
        step = AT_ONCE if len(self.model.spec.primary_key) == 1 else AT_ONCE // 10
        for start in range(0, len(keys), step):
            part = keys[start : start + step]
            plan = self.keyed(bucket(len(part)))
            reply = reply + (yield plan.command, plan.arguments([*values, part], call))
        return reply

    def missed(self, values: list[Any], call: Call) -> Program[None]:
        """Ask features about a statement that found no row: they may know better than that there is none."""
        found = yield from self.conflicting(values, call)
        if found:
            for conflict in self.conflicts:
                conflict(call, found)
        for guard in self.unmatched:
            guard(call, 0)

    def conflicting(self, values: list[Any], call: Call) -> Program[list[Any]]:
        """Return the keys of the rows that only what features expect excludes."""
        if self.probe is None:
            return []
        rows = yield self.probe.command, self.probe.arguments(values, call)
        return [self.probe.key_of(row) for row in rows]

    def key_of(self, row: Sequence[Any]) -> Any:
        """Return the key of a returned row: a scalar, or a tuple."""
        record = self.decode(row)
        key = tuple(record[name] for name in self.model.spec.primary_key)
        return key[0] if len(key) == 1 else key

    def follow(self, reply: Any, call: Call) -> Program[None]:
        """Do what features want done after the statement."""
        changed = reply if self.command.returns == COUNT else len(reply)
        for guard in self.guards:
            guard(call, changed)
        if self.records or self.notifications:
            rows = [] if self.command.returns == COUNT else [self.decode(row) for row in reply]
            for record in self.records:
                yield from record(call, rows)
            call.after_commit += [partial(note, call, rows) for note in self.notifications]


def _no_keys(size: int) -> Plan:
    raise AssertionError(size)


def refused_problem(label: str, refused: ValueRefused, **where: str | int) -> Problem:
    """Turn a refused value into a problem that names its field."""
    return Problem("wrong-value", f"{label}: {refused.message}", refused.hint, {"field": label, **where})


def kept_problem(spec: "FieldSpec") -> Problem:
    """Describe a value given for a field that callers do not write."""
    message = f"{spec.name} is kept by {spec.kept}: it cannot be written"
    return Problem("kept-field", message, f"leave {spec.name} out", {"field": spec.name})


def row_count(value: int) -> int:
    """Encode a limit or offset: no table has more rows than the largest integer a database takes."""
    return min(value, INT_MAX)
