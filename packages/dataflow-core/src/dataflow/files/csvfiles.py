"""CSV, exactly: text is never altered, and a cell that is empty is told from one that holds the empty text.

Nothing between two separators is NULL, or no value; ``""`` is the empty text. Otherwise as RFC 4180, read by the
standard library's module; what that cannot tell (which empty cells were quoted) is looked up in the text of the row.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, BinaryIO

import attrs

from dataflow.errors import InputError
from dataflow.files.parts import NOTES, Fault, Origin, Part, fitting, reason
from dataflow.files.texts import has_empty, read_texts, write_text
from dataflow.model import ModelSpec
from dataflow.plan.bound import BoundField
from dataflow.plan.rows import MISSING

LONGEST_CELL = 2**30
"""Characters of a cell: an unclosed quote must not make all that follows one."""


@attrs.frozen
class _Record:
    """A row as it was read, where it needs a closer look.

    Attributes:
        line: its first line.
        text: its lines.
        cells: what it says.
        quoted: places of the cells that are empty and quoted.
        fault: why it is no row, or "".
    """

    line: int
    text: str
    cells: Sequence[str]
    quoted: frozenset[int] = frozenset()
    fault: str = ""


class CsvReader:
    """Reads a CSV file with a heading.

    Args:
        stream: its bytes.
        fields: of the model.
        delimiter: between cells.
        encoding: of its text; bytes that are none make their row a bad one.
        skipped: names of columns to leave out.
    """

    kind = "csv"

    def __init__(
        self,
        stream: BinaryIO,
        fields: Mapping[str, BoundField],
        *,
        delimiter: str,
        encoding: str,
        skipped: Sequence[str],
    ) -> None:
        csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))
        self._text = io.TextIOWrapper(stream, encoding=encoding, errors="surrogateescape", newline="")
        self._fields = fields
        self.delimiter = delimiter
        self._token = re.compile(rf'"(?:[^"]|"")*"|[^{re.escape(delimiter)}\r\n]*')
        self._kept: list[str] = []
        self._line = 0
        heading = next(self._each([]), None)
        while heading is not None and not heading.cells and not heading.fault:
            heading = next(self._each([]), None)
        if heading is None or heading.fault:
            msg = "the file has no heading" if heading is None else f"the heading cannot be read: {heading.fault}"
            raise InputError(msg, hint="the first line names the columns", code="no-heading")
        self.names = tuple(heading.cells)
        self._noted = len(NOTES) if self.names[: len(NOTES)] == NOTES else 0
        self.columns: Sequence[str] | None = self.names[self._noted :]
        self.heading = f"{delimiter.join(NOTES)}{delimiter}{self._own(heading.text)}"
        self._used = [(place, name) for place, name in enumerate(self.names) if name in fields and name not in skipped]
        self._reader = csv.reader(self._lines(), delimiter=delimiter, strict=True)

    def _lines(self) -> Iterator[str]:
        for line in self._text:
            self._kept.append(line)
            yield line

    def _own(self, text: str) -> str:
        """Return the text of a row without the notes of a file of refused rows, and with an end."""
        at = 0
        for _ in range(self._noted):
            found = self._token.match(text, at)
            assert found is not None
            at = min(found.end() + 1, len(text))
        own = text[at:]
        return own if own.endswith(("\n", "\r")) else f"{own}\n"

    def skip(self, count: int) -> None:
        """Pass over rows."""
        while count > 0 and (taken := self._take(min(count, 10_000))) is not None:
            count -= len(taken[0])

    def read(self, size: int) -> Part | None:
        """Return the next rows, `size` at most; None at the end."""
        taken = self._take(size)
        if taken is None:
            return None
        rows, records, first, lines = taken
        faults: dict[int, Fault] = {}
        quoted: Mapping[int, frozenset[int]] = {}
        if records is not None:
            quoted = {place: record.quoted for place, record in enumerate(records) if record.quoted}
            faults = {place: Fault(place, "", r.fault) for place, r in enumerate(records) if r.fault}
        width = len(self.names)
        if set(map(len, rows)) != {width}:
            for place, row in enumerate(rows):
                if len(row) != width:
                    fault = f"the row has {len(row) - self._noted} cells, and the heading {width - self._noted}"
                    faults.setdefault(place, Fault(place, "", fault))
                    rows[place] = [""] * width
        cells = list(zip(*rows, strict=True))
        columns = {}
        for place, name in self._used:
            own = {row for row, places in quoted.items() if place in places}
            columns[name] = self._values(self._fields[name], cells[place], own, faults)
        fitted, places = fitting(columns, self._fields, faults, len(rows))

        def origins(wanted: Sequence[int]) -> list[Origin]:
            found = records if records is not None else self._looked_at(first, lines)
            return [Origin(found[place].line, self._own(found[place].text)) for place in wanted]

        return Part(len(rows), fitted, places, list(faults.values()), origins)

    def _values(self, field: BoundField, cells: Sequence[str], quoted: set[int], faults: dict[int, Fault]) -> list[Any]:
        """Read the cells of a column; what cannot be read is a fault, and MISSING."""
        empty = self._meaning_of_nothing(field)
        if "" not in cells:
            values, bad = read_texts(field.type, cells)
        else:
            here = [place for place, cell in enumerate(cells) if cell or (place in quoted and has_empty(field.type))]
            found, wrong = read_texts(field.type, [cells[place] for place in here])
            values, bad = [empty] * len(cells), {here[place]: refused for place, refused in wrong.items()}
            for place, value in zip(here, found, strict=True):
                values[place] = value
        for place, refused in bad.items():
            faults.setdefault(place, Fault(place, field.name, reason(refused)))
            values[place] = MISSING
        return values

    @staticmethod
    def _meaning_of_nothing(field: BoundField) -> Any:
        """Return what an empty cell means: NULL, else the default, else the empty text, else nothing at all."""
        spec = field.spec
        if spec.nullable:
            return None
        return "" if spec.required and spec.type.storage == "str" else MISSING

    def _take(self, size: int) -> "tuple[list[Any], list[_Record] | None, int, list[str]] | None":
        """Take the next rows: (cells, records where they needed a closer look, their first line, their lines)."""
        self._kept = []
        first = self._line + 1
        try:
            rows = list(islice(self._reader, size))
            closer = any('""' in line for line in self._kept) or not all(rows)
        except csv.Error:
            rows, closer = [], True
        lines = self._kept
        if not closer:
            self._line += len(lines)
            return (rows, None, first, lines) if rows else None
        records = [record for record in islice(self._each(lines), size) if self._counts(record)]
        while len(records) < size and (more := next(self._each([]), None)) is not None:
            if self._counts(more):
                records.append(more)
        self._reader = csv.reader(self._lines(), delimiter=self.delimiter, strict=True)
        return ([list(record.cells) for record in records], records, first, lines) if records else None

    def _counts(self, record: _Record) -> bool:
        """Tell whether a record is a row: an empty line is one where there is a single column."""
        return bool(record.cells or record.fault or len(self.names) == 1)

    def _looked_at(self, first: int, lines: list[str]) -> list[_Record]:
        before, self._line = self._line, first - 1
        try:
            return [record for record in self._parsed(iter(lines)) if self._counts(record)]
        finally:
            self._line = before

    def _each(self, lines: list[str]) -> Iterator[_Record]:
        return self._parsed(chain(lines, self._text) if lines else self._text)

    def _parsed(self, lines: Iterator[str]) -> Iterator[_Record]:
        """Read row by row, with a closer look at each."""
        current: list[str] = []

        def fed() -> Iterator[str]:
            for line in lines:
                current.append(line)
                yield line

        reader = csv.reader(fed(), delimiter=self.delimiter, strict=True)
        while True:
            current.clear()
            fault, cells = "", []
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                fault = f"the row is no CSV: {error}"
            first = self._line + 1
            self._line += len(current)
            text = "".join(current)
            if not fault and not cells and hasattr(self, "names") and len(self.names) == 1:
                cells = [""]
            yield _Record(first, text, cells, self._quoted(text, cells), fault)

    def _quoted(self, text: str, cells: Sequence[str]) -> frozenset[int]:
        """Return the places of empty cells that are quoted."""
        if '""' not in text or "" not in cells:
            return frozenset()
        found, at = set(), 0
        for place, cell in enumerate(cells):
            token = self._token.match(text, at)
            assert token is not None
            if not cell and token[0]:
                found.add(place)
            at = token.end() + 1
        return frozenset(found)


_SPECIAL = re.compile(r'[",\r\n]')


class CsvWriter:
    """Writes records as CSV with a heading.

    Args:
        stream: where to.
        model: of the records.
        names: of the columns.
        delimiter: between cells.
    """

    def __init__(self, stream: BinaryIO, model: ModelSpec, names: Sequence[str], *, delimiter: str = ",") -> None:
        self._stream = stream
        self._delimiter = delimiter
        self._special = re.compile(rf'["\r\n{re.escape(delimiter)}]') if delimiter != "," else _SPECIAL
        self._kinds = [(name, model.fields[name].type) for name in names]
        self._put([[self._cell(name)] for name in names])

    def write(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Write some records."""
        self._put([
            ["" if (value := record[name]) is None else self._cell(write_text(kind, value)) for record in records]
            for name, kind in self._kinds
        ])  # fmt: skip

    def close(self) -> None:
        """Write what is left."""

    def _put(self, columns: list[list[str]]) -> None:
        lines = map(self._delimiter.join, zip(*columns, strict=True))
        self._stream.write("".join(f"{line}\n" for line in lines).encode())

    def _cell(self, text: str) -> str:
        if text and not self._special.search(text):
            return text
        return f'"{text.replace(chr(34), chr(34) * 2)}"'
