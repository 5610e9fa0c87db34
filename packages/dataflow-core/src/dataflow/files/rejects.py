"""The rows that a load refused, as a file of the same form that can be corrected and loaded.

Beside the row it tells the line, the field and the reason, in columns that a load leaves out again. The file is longer
than the journal says only while a transaction is open; what a killed load has left beyond is cut off.
"""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import attrs

from dataflow.errors import InputError
from dataflow.files.parts import NOTES, Fault, Origin
from dataflow.files.places import FileError, sync_folder
from dataflow.jsontext import dump_json


@attrs.define
class Rejects:
    """A file of refused rows.

    Attributes:
        path: where it is.
        kind: "csv" or "jsonl".
        heading: the first line, or "".
        delimiter: of CSV.
        encoding: of its text.
        size: bytes that count.
    """

    path: str
    kind: str
    heading: str = ""
    delimiter: str = ","
    encoding: str = "utf-8"
    size: int = 0

    def prepare(self, *, new: bool) -> None:
        """Make sure that the file is as the journal says, before more is written.

        Args:
            new: whether the load begins: then nothing may be there.

        Raises:
            InputError: something is there, or what should be is gone.
        """
        length = os.path.getsize(self.path) if os.path.exists(self.path) else None
        if new and length is not None:
            msg = f"{self.path!r} is there already, and refused rows would go there"
            hint = "move it away, or name another: --reject-file FILE"
            raise InputError(msg, hint=hint, code="reject-file")
        if (length or 0) < self.size:
            msg = f"the file of refused rows {self.path!r} is gone, or shorter than it was"
            hint = "put it back, or load the file from the start: --restart"
            raise InputError(msg, hint=hint, code="reject-file")

    def write(self, faults: Sequence[Fault], origins: Sequence[Origin]) -> None:
        """Append rows, and let them reach the disk."""
        lines = [self._line(fault, origin) for fault, origin in zip(faults, origins, strict=True)]
        text = ("" if self.size else self.heading) + "".join(lines)
        data = text.encode(self.encoding, "surrogateescape")
        try:
            new = not os.path.exists(self.path)
            with open(self.path, "ab") as file:
                file.truncate(self.size)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if new:
                sync_folder(self.path)
        except OSError as error:
            msg = f"the file of refused rows {self.path!r} cannot be written: {error.strerror}"
            raise FileError(msg, hint="name another file for refused rows") from error
        self.size += len(data)

    def cut(self, size: int) -> None:
        """Take back what was written for a transaction that failed."""
        self.size = size
        with contextlib.suppress(OSError):
            if size:
                os.truncate(self.path, size)
            elif os.path.exists(self.path):
                os.unlink(self.path)

    def _line(self, fault: Fault, origin: Origin) -> str:
        if self.kind == "csv":
            cells = (str(origin.line), fault.field, _cell(fault.reason))
            return self.delimiter.join(cells) + self.delimiter + origin.text
        notes = ", ".join(
            f"{dump_json(name)}: {dump_json(value)}"
            for name, value in zip(NOTES, (origin.line, fault.field, fault.reason), strict=True)
        )
        return f"{{{notes}{', ' * bool(origin.text)}{origin.text}}}\n"


def _cell(text: str) -> str:
    return f'"{text.replace(chr(34), chr(34) * 2)}"'


def name_for(path: str, kind: str) -> str:
    """Return where the refused rows of a file go: beside it."""
    if path == "-":
        return f"stdin.rejects.{kind}"
    bare = path.removesuffix(".gz")
    found = Path(bare)
    return str(found.with_name(f"{found.name.removesuffix(found.suffix)}.rejects.{kind}"))
