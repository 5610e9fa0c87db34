"""JSON Lines: a JSON object a line; texts of dates, Decimals, UUIDs and bytes are read by the fields' types."""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, BinaryIO

from dataflow.errors import suggest
from dataflow.files.parts import NOTES, Fault, Origin, Part, reason
from dataflow.files.texts import read_document, read_member, write_member
from dataflow.jsontext import dump_json
from dataflow.model import ModelSpec
from dataflow.plan.bound import BoundField
from dataflow.types import ValueRefused

TEXT = "_text"
"""Member that holds the text of a line that is no JSON object, in a file of refused rows."""
_BOM = b"\xef\xbb\xbf"


class JsonReader:
    """Reads a file of JSON lines.

    Args:
        stream: its bytes.
        fields: of the model.
        skipped: names of members to leave out.
        required: names of members that a row must have.
    """

    kind = "jsonl"
    columns: Sequence[str] | None = None
    heading = ""

    def __init__(
        self, stream: BinaryIO, fields: Mapping[str, BoundField], *, skipped: Sequence[str], required: Sequence[str]
    ) -> None:
        self._stream = stream
        self._fields = fields
        self._skipped = {*skipped, *NOTES}
        self._required = required
        self._exact = any(_has_decimals(field.type) for field in fields.values())
        self._line = 0

    def skip(self, count: int) -> None:
        """Pass over rows."""
        while count > 0 and (taken := self._take(min(count, 10_000))):
            count -= len(taken)

    def read(self, size: int) -> Part | None:
        """Return the next rows, `size` at most; None at the end."""
        lines = self._take(size)
        if not lines:
            return None
        rows, places, faults = [], [], []
        for place, (_, text) in enumerate(lines):
            row = self._row(text, place)
            if isinstance(row, Fault):
                faults.append(row)
                continue
            rows.append(row)
            places.append(place)

        def origins(wanted: Sequence[int]) -> list[Origin]:
            return [Origin(lines[place][0], _kept(lines[place][1])) for place in wanted]

        return Part(len(lines), rows, places, faults, origins)

    def _take(self, size: int) -> list[tuple[int, bytes]]:
        """Take the next lines that are not empty: (number, bytes)."""
        taken: list[tuple[int, bytes]] = []
        while len(taken) < size:
            lines = list(islice(self._stream, size - len(taken)))
            if not lines:
                break
            if self._line == 0:
                lines[0] = lines[0].removeprefix(_BOM)
            taken += [(number, line) for number, line in enumerate(lines, self._line + 1) if line.strip()]
            self._line += len(lines)
        return taken

    def _row(self, text: bytes, place: int) -> "dict[str, Any] | Fault":
        try:
            found = read_document(text, exact=self._exact)
            if isinstance(found, dict) and isinstance(found.get(TEXT), str) and TEXT not in self._fields:
                found = read_document(found[TEXT], exact=self._exact)
        except ValueRefused:
            return Fault(place, "", "the line is not JSON")
        if not isinstance(found, dict):
            return Fault(place, "", "the line is not a JSON object; write {…}")
        row = {}
        for name, value in found.items():
            if name in self._skipped:
                continue
            field = self._fields.get(name)
            if field is None:
                close = suggest(name, self._fields)
                return Fault(
                    place, name, f"there is no field {name!r}" + (f"; did you mean {close!r}?" if close else "")
                )
            try:
                if value is None and not (field.nullable or field.spec.generated):
                    raise ValueRefused("None is not allowed", "give a value, or leave the member out")
                row[name] = None if value is None else read_member(field.type, value)
            except ValueRefused as refused:
                return Fault(place, name, reason(refused))
        for name in self._required:
            if name not in row:
                return Fault(place, name, f"{name} is required; give {self._fields[name].type}")
        return row


def _has_decimals(kind: Any) -> bool:
    return kind.storage == "decimal" or (kind.storage == "array" and _has_decimals(kind.item))


def _kept(line: bytes) -> str:
    """Return the inside of the object that a file of refused rows holds for a line."""
    text = line.decode("utf-8", "surrogateescape").strip()
    try:
        found = read_document(line)
    except ValueRefused:
        found = None
    if not isinstance(found, dict):
        return f"{json.dumps(TEXT)}: {json.dumps(text)}"
    if NOTES[0] not in found:
        return text[1:-1].strip()
    return json.dumps({k: v for k, v in found.items() if k not in NOTES}, ensure_ascii=False)[1:-1]


class JsonWriter:
    """Writes records as JSON lines.

    Args:
        stream: where to.
        model: of the records.
        names: of the members.
    """

    def __init__(self, stream: BinaryIO, model: ModelSpec, names: Sequence[str]) -> None:
        self._stream = stream
        self._members: list[tuple[str, str, Callable[[Any], Any]]] = []
        self._kinds = [(name, f"{dump_json(name)}:", model.fields[name].type) for name in names]

    def write(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Write some records."""
        columns = [
            [
                key + ("null" if (value := record[name]) is None else dump_json(write_member(kind, value)))
                for record in records
            ]
            for name, key, kind in self._kinds
        ]
        lines = map(",".join, zip(*columns, strict=True))
        self._stream.write("".join(f"{{{line}}}\n" for line in lines).encode())

    def close(self) -> None:
        """Write what is left."""
