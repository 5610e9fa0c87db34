"""What reading a file gives, whatever its format: parts of some thousand rows, and what is wrong with some of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import attrs

from dataflow.plan.bound import BoundField
from dataflow.plan.rows import MISSING, ColumnRows
from dataflow.types import ValueRefused

NOTES = ("_line", "_field", "_reason")
"""Columns that a file of refused rows has besides those of its rows; no field begins with an underscore."""


@attrs.frozen
class Fault:
    """Why a row is refused.

    Attributes:
        place: of the row in its part.
        field: the field, or "".
        reason: what is wrong and what to do, without values.
    """

    place: int
    field: str
    reason: str


@attrs.frozen
class Origin:
    """Where a row comes from.

    Attributes:
        line: line of the file (the first of the row), or number of the row where there are no lines.
        text: the row as a file of refused rows holds it.
    """

    line: int
    text: str


@attrs.frozen
class Part:
    """Rows that were read together.

    Attributes:
        count: rows read.
        rows: those that fit the model, or may.
        places: their places among those that were read.
        faults: why the others do not.
        origins: tells where the rows at some places come from.
    """

    count: int
    rows: ColumnRows | Sequence[Mapping[str, Any]]
    places: Sequence[int]
    faults: Sequence[Fault]
    origins: Callable[[Sequence[int]], list[Origin]]


class Reader(Protocol):
    """A file that is open for reading.

    Attributes:
        kind: the format of its file of refused rows: "csv" or "jsonl".
        columns: names of its columns, where all rows have the same; else None.
        heading: what a file of refused rows begins with.
    """

    kind: str
    columns: Sequence[str] | None
    heading: str

    def skip(self, count: int) -> None:
        """Pass over rows."""
        ...

    def read(self, size: int) -> Part | None:
        """Return the next rows, `size` at most; None at the end."""
        ...


def reason(refused: ValueRefused) -> str:
    """Say why a value is refused, and what to do."""
    if "lone surrogate" in refused.message:
        return "the bytes are not text in the encoding of the file; give the encoding it has"
    return f"{refused.message}; {refused.hint}" if refused.hint else refused.message


def fitting(
    columns: Mapping[str, list[Any]], fields: Mapping[str, BoundField], faults: dict[int, Fault], count: int
) -> tuple[ColumnRows, Sequence[int]]:
    """Check columns of values against the model; return the rows that fit, and their places; add to `faults`.

    Values that are `MISSING` or None where the field does not take it stand for the database's or the field's default.
    """
    gaps = set()
    checked: dict[str, list[Any]] = {}
    for name, values in columns.items():
        field = fields[name]
        if any(value is MISSING for value in values):
            gaps.add(name)
            if field.spec.required:
                text = f"{name} is required; give {field.type}"
                missing = (place for place, value in enumerate(values) if value is MISSING)
                faults |= {place: Fault(place, name, text) for place in missing if place not in faults}
        checked[name] = _accepted(field, values, name, faults)
    places: Sequence[int] = range(count)
    if faults:
        places = [place for place in places if place not in faults]
        checked = {name: [values[place] for place in places] for name, values in checked.items()}
    return ColumnRows(checked, len(places), frozenset(gaps)), places


def _accepted(field: BoundField, values: list[Any], name: str, faults: dict[int, Fault]) -> list[Any]:
    loose = field.nullable or field.spec.generated
    present = [value for value in values if value is not MISSING]
    try:
        accepted = field.type.accept_column(present, nullable=loose)
    except ValueRefused:
        return [_one(field, value, place, name, faults, loose=loose) for place, value in enumerate(values)]
    if len(present) == len(values):
        return accepted
    rest = iter(accepted)
    return [MISSING if value is MISSING else next(rest) for value in values]


def _one(field: BoundField, value: Any, place: int, name: str, faults: dict[int, Fault], *, loose: bool) -> Any:
    if value is MISSING or (value is None and loose):
        return value
    try:
        if value is None:
            raise ValueRefused("None is not allowed", "give a value")
        return field.type.accept(value)
    except ValueRefused as refused:
        faults.setdefault(place, Fault(place, name, reason(refused)))
        return None
