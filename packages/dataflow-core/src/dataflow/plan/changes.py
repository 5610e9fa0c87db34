"""Changes of an update: plain values and update operators, by shape and as SQL expressions.

`{"price": {"$multiply": 0.9}}` and `{"$multiply": {"price": 0.9}}` mean the same.
"""

import math
from collections.abc import Hashable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from types import NoneType
from typing import Any

from dataflow.errors import Problem, suggest
from dataflow.fields import UNSET, FieldSpec
from dataflow.plan.bound import BoundField, BoundModel
from dataflow.plan.builder import PlanBuilder, kept_problem, refused_problem
from dataflow.types import ArrayType, ValueRefused, canonical_json, kind

OPERATORS = ("$set", "$inc", "$dec", "$multiply", "$divide", "$min", "$max", "$unset", "$append")
ARITHMETIC = ("$inc", "$dec", "$multiply", "$divide")
ENCODED_HINT = "read the record, and write the new value"
_PLAIN = frozenset((int, str, float, bool, NoneType, datetime))
"""Types of values that are no operators."""
Change = tuple[str, str, Any]
"""(field, operator, operand); a plain value has the operator "$set"."""


def are_plain(values: Iterable[Any]) -> bool:
    """Tell that no value can be an operator."""
    return _PLAIN.issuperset(map(type, values))


def read_changes(bound: BoundModel, values: Mapping[str, Any], problems: list[Problem]) -> list[Change]:
    """Turn a dict of changes into a list; faults are appended to `problems`."""
    changes: list[Change] = []
    seen: set[str] = set()
    for name, value in values.items():
        if type(value) in _PLAIN and name in bound.fields:
            _add(bound, changes, seen, problems, (name, "$set", value))
        elif name in OPERATORS and isinstance(value, Mapping):
            for field, operand in value.items():
                _add(bound, changes, seen, problems, (field, name, operand))
        elif isinstance(name, str) and name.startswith("$"):
            close = suggest(name, OPERATORS)
            hint = f"did you mean {close!r}?" if close else f"operators: {', '.join(OPERATORS)}"
            problems.append(Problem("unknown-operator", f"{name!r} is not an update operator", hint))
        elif isinstance(value, Mapping) and any(isinstance(key, str) and key.startswith("$") for key in value):
            if len(value) > 1 or next(iter(value)) not in OPERATORS:
                wrong = next((str(key) for key in value if key not in OPERATORS), "")
                close = suggest(wrong, OPERATORS) if wrong else None
                message = f"{name}: {wrong!r} is not an update operator" if wrong else f"{name}: one operator per field"
                hint = f"did you mean {close!r}?" if close else f"operators: {', '.join(OPERATORS)}"
                problems.append(Problem("unknown-operator", message, hint, {"field": name}))
                continue
            _add(bound, changes, seen, problems, (name, *next(iter(value.items()))))
        else:
            _add(bound, changes, seen, problems, (name, "$set", value))
    return changes


def _add(bound: BoundModel, changes: list[Change], seen: set[str], problems: list[Problem], change: Change) -> None:
    name = change[0]
    if name not in bound.fields:
        close = suggest(str(name), bound.fields)
        hint = f"did you mean {close!r}?" if close else f"fields: {', '.join(bound.fields)}"
        where = {"field": str(name)}
        problems.append(Problem("unknown-field", f"model {bound.name} has no field {name!r}", hint, where))
    elif name in bound.spec.primary_key:
        problems.append(
            Problem(
                "key-changed",
                f"{name}: the primary key of a record cannot be changed",
                "create a new record",
                {"field": name},
            )
        )
    elif bound.fields[name].spec.kept:
        problems.append(kept_problem(bound.fields[name].spec))
    elif name in seen:
        problems.append(Problem("twice", f"{name}: the field is changed twice", "", {"field": name}))
    else:
        seen.add(name)
        changes.append(change)


def change_shape(changes: list[Change], operands: list[Any]) -> Hashable:
    """Return what determines the SQL of changes, and append their operands."""
    parts = []
    for field, op, operand in changes:
        operands.append(operand)
        parts.append((field, op, None if op == "$set" else type(operand)))
    return tuple(parts)


def change_problems(bound: BoundModel, changes: list[Change]) -> list[Problem]:
    """Return the faults of operands, each with its field."""
    problems = []
    for name, op, operand in changes:
        field = bound.fields[name]
        complaint = _fits(field, op)
        if complaint:
            problems.append(Problem("bad-operator", f"{name}: {complaint}", "", {"field": name}))
            continue
        try:
            _convert(field, op, operand)
        except ValueRefused as refused:
            problems.append(refused_problem(name, refused))
    return problems


def _fits(field: BoundField, op: str) -> str:
    """Return why an operator does not fit a field, or ""."""
    if op in ARITHMETIC and not field.type.numeric:
        return f"{op} needs a number, and the field is {field.type}"
    if op in ("$min", "$max") and not field.type.orders:
        return f"{op} needs an order, and the field is {field.type}"
    if op == "$append" and field.type.storage not in ("array", "json"):
        return f"$append needs a list, and the field is {field.type}"
    if op == "$unset" and not field.nullable:
        return "$unset sets None, which the field does not allow"
    return ""


def _convert(field: BoundField, op: str, operand: Any) -> Any:
    """Encode an operand for its operator."""
    if op == "$set":
        return field.encode(operand)
    if op == "$unset":
        return None
    if op == "$append":
        return field.type.item.accept(operand) if isinstance(field.type, ArrayType) else canonical_json(operand)
    if operand is None:
        msg = f"{op} takes a value, got None"
        raise ValueRefused(msg)
    if op in ("$multiply", "$divide") and field.type.storage == "int":
        number = _factor(field, op, operand)
    else:
        number = field.type.accept(operand)
    if op == "$divide" and not number:
        msg = "$divide by zero"
        raise ValueRefused(msg)
    return number if op in ("$multiply", "$divide") and field.type.storage == "int" else field.store(number)


def _factor(field: BoundField, op: str, operand: Any) -> Any:
    """Check what an int field is multiplied with or divided by: any finite number."""
    if isinstance(operand, bool) or not isinstance(operand, (int, float, Decimal)):
        msg = f"{op} takes a number, got {kind(operand)}"
        raise ValueRefused(msg)
    if isinstance(operand, int):
        return field.type.accept(operand)
    if not (operand.is_finite() if isinstance(operand, Decimal) else math.isfinite(operand)):
        msg = f"{op} takes a finite number"
        raise ValueRefused(msg)
    return operand


def compile_changes(builder: PlanBuilder, changes: list[Change], first: int = 0) -> None:
    """Write changes into a builder's `sets`; operand numbers start at `first`. `updated_at` follows by itself."""
    builder.written = tuple(name for name, _, _ in changes)
    for position, (name, op, operand) in enumerate(changes):
        field = builder.model.fields[name]
        column = builder.table.c[name]
        index = first + position
        if name in builder.sets:  # a feature's value wins, as it does in a new record
            continue
        if op not in ("$set", "$unset") and name in builder.encodes:
            fault = Problem("bad-operator", f"{name}: {op} cannot change a value that is stored encoded", ENCODED_HINT)
            raise builder.model.refuse([fault], builder.operation)
        if op == "$set":
            builder.sets[name] = builder.operand(index, builder.encoder(name), name, like=column)
            continue
        if op == "$unset":
            builder.sets[name] = builder.operand(index, lambda _value: None, name, like=column)
            continue

        def bind(convert: Any, index: int = index, field: BoundField = field, op: str = op) -> Any:
            def encode(value: Any) -> Any:
                value = _convert(field, op, value)
                return value if convert is None else convert(value)

            return builder.operand(index, encode, field.name, like=None)

        dialect = builder.model.core.dialect
        if op == "$append":
            item = field.type.item if isinstance(field.type, ArrayType) else field.type
            builder.sets[name] = dialect.append(column, field.type, item.accept, bind)
        else:
            builder.sets[name] = dialect.arithmetic(op, column, field.type, type(operand), bind)
    touch(builder)


def touch(builder: PlanBuilder) -> None:
    """Set what the framework's clock sets on each update, unless the caller sets it."""
    for spec in builder.model.spec.fields.values():
        if spec.write == "update" and spec.name not in builder.sets:
            builder.set(spec.name, lambda call: call.now)


def defaults(builder: PlanBuilder, given: "set[str]") -> None:
    """Set the default of every column of a new record that the caller does not give."""
    for spec in builder.model.spec.fields.values():
        if spec.name in given or spec.name in builder.sets or spec.generated:
            continue
        source = default_of(spec)
        if source is not None:
            builder.set(spec.name, source)


def default_of(spec: FieldSpec) -> Any:
    """Return a binder for the default of a field; None where the column is left out (NULL)."""
    if spec.write:
        return lambda call: call.now
    if spec.factory is not None:
        factory = spec.factory
        return lambda _call: factory()
    if spec.default is not UNSET:
        default = spec.default
        return lambda _call: default
    return None
