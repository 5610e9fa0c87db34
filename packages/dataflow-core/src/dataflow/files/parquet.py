"""Parquet, by pyarrow (the extra ``arrow``): its types are those of `dataflow.arrow`; texts are read by the fields."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from typing import Any, BinaryIO

from dataflow.arrow import column, load_pyarrow, python_values, schema
from dataflow.errors import InputError
from dataflow.files.parts import Fault, Origin, Part, fitting, reason
from dataflow.files.places import FileError
from dataflow.files.texts import read_each, read_member, read_texts
from dataflow.jsontext import dump_json
from dataflow.model import ModelSpec
from dataflow.plan.bound import BoundField
from dataflow.plan.rows import MISSING
from dataflow.types import ArrayType, ValueRefused

_TEXTS = ("string", "large_string", "string_view")


class ParquetReader:
    """Reads a Parquet file.

    Args:
        stream: its bytes, in which one can jump.
        fields: of the model.
        skipped: names of columns to leave out.
    """

    kind = "jsonl"
    heading = ""

    def __init__(self, stream: BinaryIO, fields: Mapping[str, BoundField], *, skipped: Sequence[str]) -> None:
        self._pa = load_pyarrow("Parquet")
        import pyarrow.parquet as pq

        if not stream.seekable():
            msg = "Parquet is read from its end, which a stream does not show before it is over"
            raise InputError(msg, hint="save it to a file, or send CSV or JSON Lines", code="bad-format")
        try:
            self._file = pq.ParquetFile(stream)
        except self._pa.ArrowException as error:
            raise FileError("the file is not Parquet", hint="give its format: csv or jsonl") from error
        names = tuple(self._file.schema_arrow.names)
        self.columns: Sequence[str] | None = names
        self._fields = fields
        self._used = [name for name in names if name in fields and name not in skipped]
        self._first = 0
        self._row = 0
        self._batches: Iterator[Any] | None = None
        self._rest: Any = None

    def skip(self, count: int) -> None:
        """Pass over rows: whole groups of them, and the beginning of one."""
        left = count
        while self._first < self._file.num_row_groups:
            rows = self._file.metadata.row_group(self._first).num_rows
            if rows > left:
                break
            left -= rows
            self._first += 1
        self._row = count - left
        while left and (table := self._take(min(left, 10_000))) is not None:
            left -= table.num_rows
            self._row += table.num_rows

    def _take(self, size: int) -> Any:
        """Return the next rows as a table; None at the end."""
        if self._batches is None:
            groups = range(self._first, self._file.num_row_groups)
            self._batches = self._file.iter_batches(10_000, row_groups=list(groups), columns=self._used)
        held = [] if self._rest is None else [self._rest]
        have = sum(table.num_rows for table in held)
        while have < size:
            try:
                batch = next(self._batches, None)
            except (self._pa.ArrowException, OSError) as error:
                raise FileError("the Parquet file is damaged", hint="write it again") from error
            if batch is None:
                break
            held.append(self._pa.Table.from_batches([batch]))
            have += batch.num_rows
        self._rest = None
        if not have:
            return None
        whole = self._pa.concat_tables(held)
        if have > size:
            self._rest = whole.slice(size)
        return whole.slice(0, size)

    def read(self, size: int) -> Part | None:
        """Return the next rows, `size` at most; None at the end."""
        table = self._take(size)
        if table is None:
            return None
        first = self._row + 1
        self._row += table.num_rows
        faults: dict[int, Fault] = {}
        columns = {name: self._values(table.column(name), self._fields[name], faults) for name in self._used}
        fitted, places = fitting(columns, self._fields, faults, table.num_rows)

        def origins(wanted: Sequence[int]) -> list[Origin]:
            rows = [table.slice(place, 1).to_pylist(maps_as_pydicts="strict")[0] for place in wanted]
            return [Origin(first + place, dump_json(row)[1:-1]) for place, row in zip(wanted, rows, strict=True)]

        return Part(table.num_rows, fitted, places, list(faults.values()), origins)

    def _values(self, found: Any, field: BoundField, faults: dict[int, Fault]) -> list[Any]:
        """Read a column; NULL means no value where the field does not take it."""
        values = python_values(self._pa, found, field.name)
        kind = field.type
        here = [place for place, value in enumerate(values) if value is not None]
        present = [values[place] for place in here] if len(here) < len(values) else values
        bad: dict[int, ValueRefused] = {}
        inner = found.type.value_type if self._pa.types.is_dictionary(found.type) else found.type
        if str(inner) in _TEXTS or str(inner) == "extension<arrow.json>":
            present, bad = ([*present], {}) if kind.storage == "str" else read_texts(kind, present)
        elif kind.storage == "datetime" and self._pa.types.is_timestamp(inner) and inner.tz is None:
            present = [value.replace(tzinfo=UTC) for value in present]  # as text without an offset
        elif isinstance(kind, ArrayType):
            present, bad = read_each(lambda value: read_member(kind, value), present)
        for place, refused in bad.items():
            faults.setdefault(here[place], Fault(here[place], field.name, reason(refused)))
            present[place] = MISSING
        if len(present) == len(values):
            return present
        nothing = None if field.nullable else MISSING
        rest = iter(present)
        return [nothing if value is None else next(rest) for value in values]


class ParquetWriter:
    """Writes records as Parquet.

    Args:
        stream: where to.
        model: of the records.
        names: of the columns.
        as_text: Decimals that are written as text.
    """

    def __init__(self, stream: BinaryIO, model: ModelSpec, names: Sequence[str], *, as_text: Sequence[str]) -> None:
        self._pa = load_pyarrow("Parquet")
        import pyarrow.parquet as pq

        self._model = model
        self._schema = schema(model, names, as_text=as_text)
        self._writer = pq.ParquetWriter(stream, self._schema)
        self._held: list[Any] = []
        self._rows = 0

    def write(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Write some records. Raises DoesNotFit if a Decimal does not."""
        columns = [
            column([record[field.name] for record in records], self._model, field.name, field.type)
            for field in self._schema
        ]
        self._held.append(self._pa.Table.from_arrays(columns, schema=self._schema))
        self._rows += len(records)
        if self._rows >= GROUP:
            self._put()

    def _put(self) -> None:
        if self._held:
            self._writer.write_table(self._pa.concat_tables(self._held))
        self._held, self._rows = [], 0

    def close(self) -> None:
        """Write what is left."""
        try:
            self._put()
        finally:
            self._writer.close()


GROUP = 100_000
"""Rows of a group: what is held in memory until it is written."""
