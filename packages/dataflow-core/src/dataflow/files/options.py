"""What a caller wants of a load, and what it is told in return."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from dataflow.errors import InputError, suggest

PART = 10_000
"""Rows of a part, unless the caller says otherwise."""
ON_ERROR = ("reject", "stop")


@attrs.define
class Report:
    """What a load has done; while it runs, so far.

    Attributes:
        file: its name.
        model: name.
        status: "loaded"; "already-loaded" (by an earlier run; nothing was done); "checked" (a dry run).
        rows: rows read, by all runs of this load.
        created, updated, skipped: what became of them.
        rejected: rows that were refused.
        resumed_at: rows that an earlier run had done.
        reject_file: where the refused rows are, or "".
        faults: the first of them: ``{"line", "field", "reason"}``.
        notes: what else there is to know.
        read: bytes of the file that have been read.
        size: its bytes; 0 where nobody knows.
    """

    file: str
    model: str
    status: str = "loaded"
    rows: int = 0
    created: int = 0
    updated: int = 0
    skipped: int = 0
    rejected: int = 0
    resumed_at: int = 0
    reject_file: str = ""
    faults: list[dict[str, Any]] = attrs.field(factory=list)
    notes: list[str] = attrs.field(factory=list)
    read: int = 0
    size: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        return attrs.asdict(self, filter=lambda its, _: its.name not in ("read", "size"))


def _listed(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


@attrs.frozen(kw_only=True)
class Options:
    """What a caller wants; see `load`."""

    format: str | None = None
    upsert: list[str] = attrs.field(default=(), converter=_listed)
    on_error: str = "reject"
    batch_size: int = PART
    dry_run: bool = False
    reject_file: str | None = None
    resume: bool = False
    restart: bool = False
    delimiter: str | None = None
    encoding: str = "utf-8"
    skip: list[str] = attrs.field(default=(), converter=_listed)


def read_options(given: Mapping[str, Any]) -> Options:
    """Check the options of a load.

    Raises:
        InputError: one is unknown or wrong.
    """
    known = [field.name for field in attrs.fields(Options)]
    for name in given:
        if name not in known:
            close = suggest(name, known)
            hint = f"did you mean {close!r}?" if close else f"options: {', '.join(known)}"
            raise InputError(f"load() has no option {name!r}", hint=hint, code="unknown-parameter")
    found = Options(**given)
    if found.on_error not in ON_ERROR:
        raise InputError("on_error is reject or stop; got something else", code="bad-parameter")
    if type(found.batch_size) is not int or found.batch_size < 1:
        raise InputError("batch_size takes a whole number of at least 1", hint=f"write {PART}", code="bad-parameter")
    if found.resume and (found.restart or found.dry_run):
        raise InputError("resume goes with neither restart nor dry_run", hint="give one of them", code="bad-parameter")
    if found.delimiter is not None and (len(found.delimiter) != 1 or found.delimiter in '"\r\n'):
        raise InputError("the delimiter is one character", hint="write ';' or a tab", code="bad-parameter")
    return attrs.evolve(found, encoding=_encoding(found.encoding))


def _encoding(name: str) -> str:
    """Check an encoding: text must keep ASCII as it is, so that lines can be told apart."""
    try:
        if "a,\n".encode(name) == b"a,\n" or name.lower().replace("_", "-") == "utf-8-sig":
            return name
    except LookupError:
        close = suggest(name, ["utf-8", "latin-1", "cp1252", "ascii"])
        hint = f"did you mean {close!r}?" if close else "write utf-8, latin-1, cp1252 …"
        raise InputError(f"there is no encoding {name!r}", hint=hint, code="bad-parameter") from None
    msg = f"files in {name} are not read"
    raise InputError(msg, hint="convert the file to UTF-8 first", code="bad-parameter")
