"""PlanBuilder: the vocabulary in which operations and features write a plan, and its compilation to SQL text.

SQLAlchemy Core compiles once per shape; afterwards a plan is SQL text, slots for its arguments, and functions.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from dataflow import later
from dataflow.dialect import COUNT, ROWS, Command, Convert, Program
from dataflow.errors import InputError, Problem
from dataflow.filters import bucket
from dataflow.plan.stages import Stage
from dataflow.session import Call
from dataflow.types import INT_MAX, ValueRefused

if TYPE_CHECKING:
    from sqlalchemy.sql import ColumnElement
    from sqlalchemy.sql.selectable import FromClause

    from dataflow.fields import FieldSpec
    from dataflow.plan.bound import BoundField, BoundModel

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
        guards, unmatched, records, notifications, conflicts, preludes, authorizations: what features added.
        plain: whether one step is all there is to it, with nothing to undo afterwards.
        probe: finds the keys of the rows that only what features expect excludes, or None.
        targets: finds the keys of the rows that the statement is about to change, or None.
        keyed: the statement for rows by their keys, given the size of the list; only where there are `targets`.
    """

    __slots__ = (
        "_binders", "_pairs", "_slots", "authorizations", "columns", "command", "conflicts", "decode", "guards",
        "keyed", "model", "notifications", "operation", "plain", "preludes", "probe", "records", "targets", "unmatched",
        "written",
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
        self.written = builder.written
        self.probe: Plan | None = None
        self.targets: Plan | None = None
        self.keyed: Callable[[int], Plan] = _no_keys
        self.plain = not (self.guards or self.records or self.notifications or self.preludes)

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


def _part(row: int, place: int, field: "BoundField") -> Convert:
    """Return what takes one part of one key out of a list of keys; the last stands in where there are fewer."""
    return lambda keys: field.filter_operand(keys[min(row, len(keys) - 1)][place])


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


class PlanBuilder:
    """A plan under construction.

    Attributes:
        model: the bound model.
        operation: create read update delete list count aggregate upsert bulk_create …; "related" for a model that
            a relation filter or include brings in.
        statement: "insert", "select", "update" or "delete".
        options: the options of the call that shape SQL.
        table: the occurrence of the model's table; predicates must use its columns.
        predicates, expected, sets, encodes, decodes, guards, unmatched, records, notifications, preludes,
            authorizations: what has been asked for.
        written: the fields that the caller gives or changes.
        row_options: option -> its column, where rows bring it instead of the call.
        by_key: whether the call names one record by its primary key.
    """

    def __init__(
        self,
        model: "BoundModel",
        operation: str,
        statement: str,
        *,
        options: Mapping[str, Hashable] | None = None,
        table: "FromClause | None" = None,
        root: "PlanBuilder | None" = None,
    ) -> None:
        self.model = model
        self.operation = operation
        self.statement = statement
        self.options = options or {}
        self.table: Any = model.table if table is None else table
        self.root: PlanBuilder = root or self
        self.predicates: list[ColumnElement[bool]] = []
        self.sets: dict[str, Any] = {}
        self.encodes: dict[str, list[Convert]] = {}
        self.decodes: dict[str, list[Convert]] = {}
        self.guards: list[Guard] = []
        self.unmatched: list[Guard] = []
        self.records: list[Record] = []
        self.notifications: list[Callable[[Call, list[dict[str, Any]]], Any]] = []
        self.expected: list[tuple[ColumnElement[bool], Conflict]] = []
        self.preludes: list[Prelude] = []
        self.authorizations: list[Authorization] = []
        self.written: tuple[str, ...] = ()
        self.by_key = False
        self.row_options: dict[str, ColumnElement[Any]] = {}
        self.replacement: Callable[[PlanBuilder], Any] | None = None
        self._undoing = False
        self._own = 0  # predicates of features, which come first
        if root is None:
            self.slots: dict[str, tuple[int | Binder, Convert | None, str]] = {}
            self.binders: list[Binder] = []

    # -- for features --------------------------------------------------------------------------------------------
    def where(self, predicate: "ColumnElement[bool]") -> None:
        """Confine the statement to rows that satisfy `predicate`."""
        self.predicates.append(predicate)

    def expect(self, predicate: "ColumnElement[bool]", conflict: Conflict) -> None:
        """Confine a statement that writes to rows as the caller expects them.

        Where it finds none because of that, ``conflict(call, keys)`` is called with the keys of those that are there,
        and raises; the check and the write are one statement all the same.
        """
        self.expected.append((predicate, conflict))

    def before(self, function: Prelude) -> None:
        """Run the program ``function(call, keys)`` in the same transaction before an update or delete.

        `keys` are those of the rows that the statement is about to change, which are locked.
        """
        self.preludes.append(function)

    def authorize(self, function: Authorization) -> None:
        """Call ``function(call, fields)`` at the start of every call, before anything is sent; raising refuses it.

        `fields` are the names that the caller gives or changes.
        """
        self.authorizations.append(function)

    def given(self, option: str, convert: Convert | None = None, like: "ColumnElement[Any] | None" = None) -> Any:
        """Return the value of an option that was declared with ``shapes="given"``, as an expression.

        A bound parameter of the call, or a column where each row of a bulk operation brings its own.
        """
        if option in self.row_options:
            return self.row_options[option]
        return self.bind(lambda call: call.options[option], convert, option, like=like)

    def set(self, column: str, value: Any) -> None:
        """Write a column, whatever the caller gives for it.

        Args:
            column: its name.
            value: a constant or a binder, called with the `Call` each time, either encoded as the field is; or, in an
                update, a Core expression.
        """
        if isinstance(value, sa.ColumnElement):
            self.sets[column] = value
            return
        binder = value if callable(value) else lambda _call: value
        self.sets[column] = self.bind(binder, self.encoder(column), column, like=self.table.c[column])

    def bind(
        self,
        binder: Binder,
        convert: Convert | None = None,
        label: str = "",
        *,
        like: "ColumnElement[Any] | None" = None,
    ) -> "ColumnElement[Any]":
        """Make a bound parameter whose value a function of the `Call` gives each time."""
        return self._parameter(binder, convert, label, like)  # type: ignore[no-any-return]

    def encode(self, field: str, function: Convert) -> None:
        """Pass accepted values of a field through `function` before they are stored, or compared for equality.

        Give `decode` the way back. The database can neither order such values nor compute with them: that is refused.
        """
        self.encodes.setdefault(field, []).append(function)
        name = str(getattr(self.sets.get(field), "key", None))
        if name in self.root.slots:  # an earlier feature sets the field
            source, _, label = self.root.slots[name]
            self.root.slots[name] = (source, self.encoder(field), label)

    def decode(self, field: str, function: Convert) -> None:
        """Pass values of a field through `function` after they are read.

        Features undo each other's encoding last to first; those of the stage DECODE and later follow, in their order.
        """
        functions = self.decodes.setdefault(field, [])
        functions.insert(0 if self._undoing else len(functions), function)

    def guard(self, function: Guard, *, unmatched: bool = False) -> None:
        """Call ``function(call, number of rows)`` after the statement; raising undoes it.

        Args:
            function: raises where the number is wrong.
            unmatched: call it only where no row was found. Then there is nothing to undo, and a statement that needs no
                transaction otherwise needs none for this either.
        """
        (self.unmatched if unmatched else self.guards).append(function)

    def record(self, function: Record) -> None:
        """Run the program ``function(call, rows)`` in the same transaction, after a statement that writes."""
        self.records.append(function)

    def after_commit(self, function: Callable[[Call, list[dict[str, Any]]], Any]) -> None:
        """Call ``function(call, rows)`` once the change is committed."""
        self.notifications.append(function)

    def around(self, factory: Around) -> None:
        """Enter the async context manager ``factory(call)`` around the operation.

        Raises:
            NotYetAvailable: always; no operation runs around hooks yet.
        """
        del factory
        raise later.refuse("plan step", "around", model=self.model.name)

    def replace(self, statement: "Callable[[PlanBuilder], Any]") -> None:
        """Use another statement: ``statement(builder)`` returns the Core statement (soft delete: an UPDATE).

        It has to restrict itself (``builder.restrict(…)``); what it returns is added to it.
        """
        self.replacement = statement

    # -- for operations ------------------------------------------------------------------------------------------
    def apply_features(self) -> "PlanBuilder":
        """Let the model's features edit this plan, in their order."""
        for feature in self.model.features:
            self._undoing = feature.stage < Stage.DECODE
            feature.extend_plan(self)
        self._own = len(self.predicates)
        return self

    def related(self, model: "BoundModel", table: Any) -> "PlanBuilder":
        """Return a builder for another model's table inside this statement, already confined by its features."""
        inner = PlanBuilder(model, "related", "select", options=self.options, table=table, root=self.root)
        return inner.apply_features()

    def field(self, name: str) -> "BoundField":
        """Return a field as filters see it, with what features do to its values."""
        bound = self.model.fields[name]
        return (
            bound.through(self.encodes.get(name, ()), self.decodes.get(name, ())) if self.transformed(name) else bound
        )

    def transformed(self, name: str) -> bool:
        """Tell whether features change values of a field on their way in or out."""
        return name in self.encodes or name in self.decodes

    def encoder(self, field: str) -> Convert:
        """Return the encoder of a field, with what features asked for."""
        bound = self.model.fields[field]
        return bound.encoder(*self.encodes[field]) if field in self.encodes else bound.encode

    def operand(
        self, index: int, convert: Convert | None, label: str, *, like: "ColumnElement[Any] | None" = None
    ) -> "ColumnElement[Any]":
        """Make a bound parameter for the call's value number `index`."""
        return self._parameter(index, convert, label, like)  # type: ignore[no-any-return]

    def _parameter(self, source: "int | Binder", convert: Convert | None, label: str, like: Any) -> Any:
        slots = self.root.slots
        name = f"p{len(slots)}"
        slots[name] = (source, convert, label)
        return sa.bindparam(name, type_=None if like is None else like.type)

    @property
    def remembers(self) -> bool:
        """Whether a feature wants to see the written records."""
        return bool(self.records or self.notifications)

    def forced(self) -> dict[str, tuple[Binder, Convert | None]]:
        """Return what features set by themselves: column -> (binder, encoder)."""
        found: dict[str, tuple[Binder, Convert | None]] = {}
        for name, parameter in self.sets.items():
            source, convert, _ = self.root.slots[str(parameter.key)]
            assert not isinstance(source, int)
            found[name] = (source, convert)
        return found

    @property
    def conditions(self) -> "list[ColumnElement[bool]]":
        """All predicates, with what features expect of the rows."""
        return [*self.predicates, *[predicate for predicate, _ in self.expected]]

    def restrict(self, statement: Any) -> Any:
        """Add all predicates to a statement."""
        conditions = self.conditions
        return statement.where(*conditions) if conditions else statement

    def returned(self, names: Sequence[str]) -> "list[ColumnElement[Any]]":
        """Return what RETURNING lists to give these columns as a SELECT would."""
        dialect = self.model.core.dialect
        return [dialect.returned(self.table.c[name], self.model.fields[name].type) for name in names]

    def compile(self, statement: Any, *, operands: int, columns: Sequence[str] = (), returns: str = ROWS) -> Plan:
        """Compile a Core statement.

        Args:
            statement: what to compile; a feature's replacement wins.
            operands: number of values each call brings.
            columns: names of the returned columns.
            returns: ROWS or COUNT.
        """
        if self.replacement is not None:
            statement = self.replacement(self)
            if columns:
                statement = statement.returning(*[self.table.c[name] for name in columns])
        writes = self.statement != "select"
        if self.records and not writes:
            raise later.refuse("plan step", "record of a read", model=self.model.name)
        plan = self._compiled(statement, operands, columns, returns, writes=writes)
        if self.statement in ("update", "delete"):
            names = self.model.spec.primary_key
            keys = sa.select(*[self.table.c[name] for name in names])
            if self.expected:
                probe = keys.where(*self.predicates)
                plan.probe = self._compiled(probe, operands, names, ROWS, writes=False, bare=True)
            if self.preludes:
                targets = self.restrict(keys).with_for_update()
                plan.targets = self._compiled(targets, operands, names, ROWS, writes=False, bare=True)
                plan.keyed = cache(partial(self._keyed, operands, columns, returns))
        return plan

    def _keyed(self, operands: int, columns: Sequence[str], returns: str, size: int) -> Plan:
        """Compile the statement for rows given by their keys, a list of at most `size`, after the call's operands."""
        wanted = self.predicates
        self.predicates = [*wanted[: self._own], self._among(operands, size)]
        try:
            if self.replacement is not None:
                statement = self.replacement(self)
            elif self.statement == "update":
                statement = self.restrict(sa.update(self.table).values(self.sets))
            else:
                statement = self.restrict(sa.delete(self.table))
            if columns:
                statement = statement.returning(*self.returned(columns))
            return self._compiled(statement, operands + 1, columns, returns, writes=True, bare=True)
        finally:
            self.predicates = wanted

    def _among(self, index: int, size: int) -> "ColumnElement[bool]":
        names = self.model.spec.primary_key
        fields = [self.field(name) for name in names]
        if len(names) == 1:

            def bind(convert: Any) -> Any:
                return self.operand(index, convert, names[0])

            dialect = self.model.core.dialect
            return dialect.in_list(self.table.c[names[0]], fields[0].type, fields[0].filter_operand, bind, size)
        alternatives = [
            sa.and_(*[
                self.table.c[name] == self.operand(index, _part(row, place, field), name, like=self.table.c[name])
                for place, (name, field) in enumerate(zip(names, fields, strict=True))
            ])
            for row in range(size)
        ]  # fmt: skip
        return sa.or_(*alternatives)

    def _compiled(
        self,
        statement: Any,
        operands: int,
        columns: Sequence[str],
        returns: str,
        *,
        writes: bool,
        bare: bool = False,
    ) -> Plan:
        compiled = statement.compile(dialect=self.model.core.dialect.sqlalchemy)
        command = Command(str(compiled), returns, writes)
        self.root.binders = []
        slots = [self._slot(name, compiled, operands) for name in compiled.positiontup or ()]
        return Plan(command, slots, self, columns, bare=bare)

    def source(self, name: str, compiled: Any) -> tuple[Binder, Convert | None]:
        """Return (binder, encoder) of a parameter of a compiled statement that no operand of the call fills."""
        source, convert, _ = self._found(name, compiled)
        assert not isinstance(source, int)
        return source, convert

    def _found(self, name: str, compiled: Any) -> tuple[int | Binder, Convert | None, str]:
        if name not in self.root.slots:  # a literal that SQLAlchemy bound by itself (LIMIT 1 …)
            value = compiled.params[name]
            self.root.slots[name] = (lambda _call: value, None, name)
        return self.root.slots[name]

    def _slot(self, name: str, compiled: Any, operands: int) -> Slot:
        source, convert, label = self._found(name, compiled)
        if isinstance(source, int):
            return Slot(source, convert, label)
        binders = self.root.binders
        if source not in binders:
            binders.append(source)
        return Slot(operands + binders.index(source), convert, label)
