"""PlanBuilder: the vocabulary in which operations and features write a plan, and its compilation to SQL text.

SQLAlchemy Core compiles once per shape; afterwards a plan is SQL text, slots for its arguments, and functions.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from dataflow import later
from dataflow.dialect import ROWS, Command, Convert
from dataflow.plan.compiled import (
    AT_ONCE,
    Around,
    Authorization,
    Binder,
    Conflict,
    Guard,
    Plan,
    Prelude,
    Record,
    Slot,
    kept_problem,
    refused_problem,
    row_count,
)
from dataflow.plan.derived import Derivation
from dataflow.plan.stages import Stage
from dataflow.session import Call

if TYPE_CHECKING:
    from sqlalchemy.sql import ColumnElement
    from sqlalchemy.sql.selectable import FromClause

    from dataflow.plan.bound import BoundField, BoundModel


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
            authorizations, derivations: what has been asked for.
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
        self.derivations: dict[str, Derivation] = {}
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

    def derive(self, field: str, function: Derivation) -> None:
        """Give a field of new records values that are derived from them; other statements than inserts have none.

        The program ``function(call, records)`` runs just before the INSERT, in its transaction, and returns one value
        for each record. `records` are dicts of what the caller gives, literal defaults included, whose types are right;
        a value that a caller gives for the field itself stands in them too, and should be returned as it is. Where the
        database refuses the insert because another record has such a value by then, it is undone, and the program is
        asked again.
        """
        if self.statement == "insert":
            self.derivations[field] = function

    def derived(self, operands: int) -> int:
        """Make operands of what features derive, after those of the call; return how many there are in all."""
        for place, name in enumerate(self.derivations, operands):
            self.sets[name] = self.operand(place, self.encoder(name), name, like=self.table.c[name])
        return operands + len(self.derivations)

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


def _part(row: int, place: int, field: "BoundField") -> Convert:
    """Return what takes one part of one key out of a list of keys; the last stands in where there are fewer."""
    return lambda keys: field.filter_operand(keys[min(row, len(keys) - 1)][place])


__all__ = [
    "AT_ONCE",
    "Authorization",
    "Binder",
    "Plan",
    "PlanBuilder",
    "kept_problem",
    "refused_problem",
    "row_count",
]
