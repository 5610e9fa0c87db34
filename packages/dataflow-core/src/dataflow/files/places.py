"""Files as places to read from and to write to: which format a name means, gzip, standard input and output.

What is written appears under its name when it is whole, and not before.
"""

import contextlib
import gzip
import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import attrs

from dataflow.errors import DataFlowError, InputError

FORMATS = {"csv": (".csv", ".tsv"), "jsonl": (".jsonl", ".ndjson"), "parquet": (".parquet", ".pq")}
STANDARD = "-"
"""Standard input, or standard output."""
_BLOCK = 1 << 20


class FileError(DataFlowError):
    """A file cannot be read, written, or told apart."""

    code = "bad-file"


def format_of(path: str, given: str | None) -> str:
    """Return the format of a file: the given one, or the one its name means.

    Raises:
        InputError: neither tells.
    """
    if given is not None:
        if given not in FORMATS:
            raise InputError(f"there is no format {given!r}", hint=f"formats: {', '.join(FORMATS)}", code="bad-format")
        return given
    name = path.lower().removesuffix(".gz")
    for found, endings in FORMATS.items():
        if name.endswith(endings):
            return found
    what = "standard input or output has" if path == STANDARD else f"the name {path!r} has"
    raise InputError(
        f"{what} no ending that tells the format", hint="give the format: csv, jsonl or parquet", code="bad-format"
    )


@attrs.frozen
class Source:
    """A file that is being read.

    Attributes:
        stream: its bytes, decompressed.
        raw: its bytes as they are, whose position tells how much of it is read.
        size: bytes; 0 where nobody knows.
    """

    stream: BinaryIO
    raw: BinaryIO
    size: int = 0

    def position(self) -> int:
        """Return how many bytes of the file have been read."""
        return self.raw.tell() if self.size else 0


@contextlib.contextmanager
def reading(path: str) -> Iterator[Source]:
    """Open a file; ``-`` is standard input.

    Raises:
        FileError: it cannot be read.
    """
    if path == STANDARD:
        yield Source(sys.stdin.buffer, sys.stdin.buffer)
        return
    try:
        raw = open(path, "rb")  # noqa: SIM115  # closed below; only opening it fails like this
    except OSError as error:
        raise FileError(f"{path!r} cannot be read: {error.strerror}", hint="correct the name") from error
    with raw:
        size = os.fstat(raw.fileno()).st_size
        stream = cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if path.lower().endswith(".gz") else raw
        try:
            yield Source(stream, raw, size)
        except (EOFError, gzip.BadGzipFile, OSError) as error:
            if stream is raw:
                raise
            raise FileError(f"{path!r} is no whole gzip file", hint="write it again") from error


def fingerprint(path: str) -> str:
    """Return a hash of what a file holds."""
    found = hashlib.blake2b(digest_size=20)
    with reading(path) as source:
        while block := source.raw.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


@contextlib.contextmanager
def writing(path: str) -> Iterator[BinaryIO]:
    """Write a file that takes its place when it is whole and on disk; ``-`` is standard output.

    Raises:
        FileError: it cannot be written; what was there under its name still is.
    """
    if path == STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = f"{path}.part"
    try:
        with contextlib.ExitStack() as stack:
            raw = stack.enter_context(open(part, "wb"))
            if path.lower().endswith(".gz"):
                packed = gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0)
                with packed:
                    yield cast("BinaryIO", packed)
            else:
                yield raw
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(part, path)
        sync_folder(path)
    except OSError as error:
        raise FileError(f"{path!r} cannot be written: {error.strerror}", hint="choose another file") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(part)


def sync_folder(path: str) -> None:
    """Let the name of a new file survive a crash of the machine."""
    with contextlib.suppress(OSError):  # not every system opens folders
        folder = os.open(Path(path).resolve().parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
