"""Rows of bulk operations: checked and encoded column by column, so that Python's cost per value stays small."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property
from itertools import islice
from types import NoneType
from typing import Any, overload

import attrs

from dataflow.dialect import Convert
from dataflow.errors import Problem, suggest
from dataflow.plan.bound import BoundModel
from dataflow.plan.builder import Binder
from dataflow.plan.changes import default_of
from dataflow.session import Call
from dataflow.types import ValueRefused, kind

MOST_PROBLEMS = 20
HINT = "write data=[{'field': value}, …]"
MISSING: Any = object()
"""Stands in a column for a value that its row does not give."""


@attrs.frozen
class RowFault:
    """A bad row: its index among the rows looked at, what is wrong, what to do."""

    index: int
    message: str
    hint: str

    def problem(self, index: int) -> Problem:
        """Describe the fault for row number `index` of the whole input."""
        return Problem("bad-row", f"row {index}: {self.message}", self.hint, {"row": index})


class ColumnRows(Sequence[Mapping[str, Any]]):
    """Rows that are held as columns, as files and tables of others give them; each row looks like a dict.

    Args:
        columns: name -> values; `MISSING` where a row does not give one.
        count: number of rows.
        gaps: names of the columns in which `MISSING` may stand.
    """

    def __init__(self, columns: Mapping[str, list[Any]], count: int, gaps: AbstractSet[str] = frozenset()) -> None:
        self.columns = columns
        self.gaps = gaps
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> "ColumnRows": ...
    def __getitem__(self, index: int | slice) -> "dict[str, Any] | ColumnRows":
        if isinstance(index, slice):
            cut = {name: values[index] for name, values in self.columns.items()}
            return ColumnRows(cut, len(range(*index.indices(self._count))), self.gaps)
        place = range(self._count)[index]
        return {name: v for name, values in self.columns.items() if (v := values[place]) is not MISSING}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        names = list(self.columns)
        rows = zip(*self.columns.values(), strict=True) if names else iter([()] * self._count)
        if not self.gaps:
            return (dict(zip(names, row, strict=True)) for row in rows)
        return ({name: v for name, v in zip(names, row, strict=True) if v is not MISSING} for row in rows)


def is_arrow(data: Any) -> bool:
    """Tell whether data is a table that offers itself by the Arrow PyCapsule interface."""
    return hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__")


def as_rows(data: Any, first: int = 0) -> Sequence[Mapping[str, Any]] | str:
    """Return the rows of a bulk operation, or a complaint; `first`: the place of the first in the whole input.

    Raises:
        InputError: it is a table whose values Python cannot hold.
        MissingCapability: it is a table, and what reads it is not installed.
    """
    if isinstance(data, ColumnRows):
        return data
    if is_arrow(data):
        from dataflow.arrow import read_rows

        return read_rows(data)
    if isinstance(data, (str, bytes, Mapping)) or not isinstance(data, Iterable):
        return f"data takes a list of dicts, got {kind(data)}"
    rows = data if isinstance(data, (list, tuple)) else list(data)
    if set(map(type, rows)) == {dict}:
        return rows
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            return f"row {first + index} is not a dict but {kind(row)}"
    return rows


def chunks(rows: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Cut what comes out of an iterator into lists of at most `size`."""
    while part := list(islice(rows, size)):
        yield part


def given_names(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return every key that stands in any row."""
    if isinstance(rows, ColumnRows):
        return set(rows.columns)
    return set().union(*rows)


def unknown_names(
    bound: BoundModel, rows: Sequence[Mapping[str, Any]], names: set[str], first: int = 0
) -> list[Problem]:
    """Return a problem for each key that is no field, naming the first row that has it; `first`: as in `as_rows`."""
    problems = []
    for name in sorted(map(str, names - bound.fields.keys())):
        index = next(i for i, row in enumerate(rows, first) if name in map(str, row))
        close = suggest(name, bound.fields)
        hint = f"did you mean {close!r}?" if close else f"fields: {', '.join(bound.fields)}"
        problems.append(
            Problem(
                "unknown-field",
                f"row {index}: model {bound.name} has no field {name!r}",
                hint,
                {"row": index, "field": name},
            )
        )
    return problems


def alike(kept: Sequence[int], rows: Sequence[Mapping[str, Any]]) -> list[tuple[frozenset[str], Sequence[int]]]:
    """Group rows that give the same columns: (names, places of the rows)."""
    if isinstance(rows, ColumnRows) and not rows.gaps:
        return [(frozenset(rows.columns), kept)] if kept else []
    chosen = rows if len(kept) == len(rows) else [rows[index] for index in kept]
    names = frozenset(given_names(chosen))
    if set(map(len, chosen)) <= {len(names)}:
        return [(names, kept)] if chosen else []
    groups: dict[frozenset[str], list[int]] = {}
    for index in kept:
        groups.setdefault(frozenset(rows[index]), []).append(index)
    return list(groups.items())


def lacks(values: Sequence[Any]) -> bool:
    """Tell whether None is among values, without asking strangers what they equal."""
    return NoneType in set(map(type, values))


def meant(values: Sequence[Any], decoders: Sequence[Convert | None]) -> tuple[Any, ...]:
    """Return what values of the driver mean: it may give back what equals nothing that was passed (datetime.max)."""
    found = (value if decode is None else decode(value) for value, decode in zip(values, decoders, strict=True))
    return tuple(tuple(value) if isinstance(value, list) else value for value in found)


class RowEncoder:
    """Encodes rows of one bulk call.

    Args:
        bound: the model.
        columns: names to write, in order.
        shared: values that stand in for a missing key, before the field's own default.
        call: gives the clock.
        forced: columns that features set by themselves -> (binder, encoder).
        encodes: what features do to accepted values before they are stored.
        given: every name that stands in any of the rows.
        derived: columns whose values features derive from the rows, later.
    """

    def __init__(
        self,
        bound: BoundModel,
        columns: Sequence[str],
        shared: Mapping[str, Any],
        call: Call,
        *,
        forced: Mapping[str, tuple[Binder, Convert | None]],
        encodes: Mapping[str, Sequence[Convert]],
        given: AbstractSet[str],
        derived: Iterable[str] = (),
    ) -> None:
        self.bound = bound
        self.names = tuple(columns)
        self.shared = shared
        self.call = call
        self.forced = forced
        self.encodes = encodes
        self.given = given
        self.derived = {name: self.names.index(name) for name in derived}

    def records(self, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return rows as features see them that derive values from them: with shared values and literal defaults."""
        basis = {**self.bound.spec.literals, **self.shared}
        return [{**basis, **row} for row in rows]

    def filled(self, encoded: Iterable[Sequence[Any]], records: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
        """Put what was derived into encoded rows.

        Raises:
            ValueRefused: a derived value does not fit.
        """
        columns = list(zip(*encoded, strict=True))
        for name, place in self.derived.items():
            columns[place] = tuple(self._encoded(name, [record[name] for record in records]))
        return list(zip(*columns, strict=True))

    def columns(self, rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
        """Encode rows into columns of the driver's values.

        Raises:
            ValueRefused: a value does not fit, or a required one is missing; `index` tells the row.
        """
        # other mappings may make up what they lack
        quick = not isinstance(rows, ColumnRows) and set(map(type, rows)) == {dict}
        return [self._column(name, rows, quick=quick) for name in self.names]

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
        """Encode rows into driver tuples; see `columns`."""
        return list(zip(*self.columns(rows), strict=True)) if self.names else [() for _ in rows]

    def _column(self, name: str, rows: Sequence[Mapping[str, Any]], *, quick: bool) -> list[Any]:
        if name in self.derived:
            return self._own(name, rows)
        if name in self._constant:
            if name in self.given and self.bound.fields[name].spec.kept:
                self._compare(name, rows)
            return [self._constant[name]] * len(rows)
        try:
            values = [row[name] for row in rows] if quick else self._filled(name, rows)
        except KeyError:
            values = self._filled(name, rows)
        if self.bound.fields[name].spec.generated and lacks(values):
            encoded = iter(self._encoded(name, [value for value in values if value is not None]))
            return [None if value is None else next(encoded) for value in values]
        return self._encoded(name, values)

    def _own(self, name: str, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Encode what rows give for a column that is derived, and hold the place of what is not there yet."""
        given = [row[name] if name in row else self.shared.get(name, MISSING) for row in rows]
        encoded = iter(self._encoded(name, [value for value in given if value is not MISSING]))
        return [None if value is MISSING else next(encoded) for value in given]

    def _compare(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Refuse rows that bring another value than the one their feature sets."""
        for index, row in enumerate(rows):
            if row.get(name) is not None and row[name] != self.forced[name][0](self.call):
                msg = f"{name}: {self.bound.fields[name].spec.kept} sets another value"
                raise ValueRefused(msg, f"leave {name} out", index)

    def _encoded(self, name: str, values: list[Any]) -> list[Any]:
        try:
            return self.bound.fields[name].column(values, *self.encodes.get(name, ()))
        except ValueRefused as refused:
            refused.message = f"{name}: {refused.message}"
            raise

    @cached_property
    def _constant(self) -> dict[str, Any]:
        """Encode once what is the same in every row: what features set, shared values, literal defaults, the clock."""
        found = {}
        for name in self.names:
            spec = self.bound.fields[name].spec
            if name in self.forced:
                binder, convert = self.forced[name]
                value = binder(self.call)
                found[name] = value if convert is None else convert(value)
            elif name not in self.given and name not in self.shared and spec.factory is None and not spec.required:
                source = default_of(spec)
                value = None if source is None else source(self.call)
                found[name] = None if value is None else self._encoded(name, [value])[0]
        return found

    def _filled(self, name: str, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        spec = self.bound.fields[name].spec
        if isinstance(rows, ColumnRows) and name in rows.columns:
            values = rows.columns[name]
            if name not in rows.gaps:
                return values
        else:
            values = [row[name] if name in row else MISSING for row in rows]  # noqa: SIM401  # a get may make values up
        if not any(value is MISSING for value in values):
            return values
        if name in self.shared:
            shared = self.shared[name]
            return [shared if value is MISSING else value for value in values]
        source = default_of(spec)
        if source is not None:
            return [source(self.call) if value is MISSING else value for value in values]
        if not (spec.nullable or spec.generated):
            index = next(place for place, value in enumerate(values) if value is MISSING)
            msg = f"{name} is required"
            raise ValueRefused(msg, f"give {name}: {spec.type}", index)
        return [None if value is MISSING else value for value in values]

    def sift(self, rows: Sequence[Mapping[str, Any]]) -> tuple[list[tuple[int, tuple[Any, ...]]], list[RowFault]]:
        """Encode rows one by one: (index and tuple of the good ones, faults of the bad ones)."""
        good, bad = [], []
        for index, row in enumerate(rows):
            try:
                good.append((index, self.encode([row])[0]))
            except ValueRefused as refused:
                bad.append(RowFault(index, refused.message, refused.hint))
        return good, bad

    def faults(self, rows: Sequence[Mapping[str, Any]], places: Sequence[int]) -> list[Problem]:
        """Return the problems of bad rows, the first twenty; `places` are the rows' indexes in the input."""
        return [fault.problem(places[fault.index]) for fault in self.sift(rows)[1][:MOST_PROBLEMS]]
