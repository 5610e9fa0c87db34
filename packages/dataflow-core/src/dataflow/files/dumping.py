"""Records become a file: read in keyset pages out of one snapshot, and there under its name only when it is whole."""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from dataflow.arrow import DoesNotFit
from dataflow.dialect import Program
from dataflow.errors import DataFlowError, InputError, Problem
from dataflow.files.csvfiles import CsvWriter
from dataflow.files.jsonlines import JsonWriter
from dataflow.files.places import STANDARD, format_of, writing
from dataflow.plan.bound import BoundModel
from dataflow.session import COMMIT, ROLLBACK, Call

if TYPE_CHECKING:
    from dataflow.core import Core
    from dataflow.engine import DataFlow

PAGE = 5000
"""Records read at once."""


class _Writer(Protocol):
    def write(self, records: Sequence[Mapping[str, Any]]) -> None: ...
    def close(self) -> None: ...


def dump(
    db: "DataFlow",
    model: str,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    filter: Mapping[str, Any] | None = None,
    fields: Sequence[str] | None = None,
    sort: Any = None,
    delimiter: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Write the records of a model to a file, from synchronous code; `load` reads exactly the same records from it.

    Args:
        db: the DataFlow.
        model: name of the model.
        path: the file; ``-`` is standard output. A name that ends in .gz is packed.
        format: csv, jsonl or parquet; by default what the name says.
        filter: filter document; all records by default.
        fields: names of the fields to write, in this order; all by default.
        sort: as for lists; by primary key by default.
        delimiter: of CSV.
        progress: called with the number of records so far.

    Returns:
        ``{"file", "model", "format", "rows", "notes"}``.

    Raises:
        InputError: an option is wrong.
        FileError: the file cannot be written.
        MissingCapability: Parquet, without the extra ``arrow``.
    """
    core = db.core
    bound = core.model(model)
    place = os.fspath(path)
    try:
        kind = format_of(place, format)
        names = _names(bound, fields)
        if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
            raise InputError("the delimiter is one character", hint="write ';' or a tab", code="bad-parameter")
        if kind == "parquet" and place.lower().endswith(".gz"):
            raise InputError("Parquet is packed already", hint="leave out .gz", code="bad-format")
        tabs = place.lower().removesuffix(".gz").endswith(".tsv")
        comma = delimiter or ("\t" if tabs else ",")
        core.ensure_sync([bound])
        wanted = {"_filter": filter, "_sort": sort, "_fields": names}
        params = {name: value for name, value in wanted.items() if value is not None}
        texts: list[str] = []
        with writing(place) as stream:
            call = Call(core)
            program = _Dumping(bound, stream, kind, names, comma, place, texts, progress).program(core, params, call)
            rows = core.run_sync(program, call, write=False, holder=f"{model}.dump")
    except DataFlowError as error:
        error.at(model=model, file=place)
        raise
    notes = [f"{name} is text in the file: a value has more digits than decimal128(38, 18)" for name in texts]
    return {"file": place, "model": model, "format": kind, "rows": rows, "notes": notes}


def _names(bound: BoundModel, fields: Sequence[str] | None) -> list[str]:
    names = list(bound.fields) if fields is None else [fields] if isinstance(fields, str) else list(fields)
    operation = bound.operation("list")
    problems = [problem for name in names if (problem := operation.known_field(name, "fields"))]
    if len(set(names)) < len(names) or not names:
        problems.append(Problem("bad-parameter", "fields names one or more fields, each once", "name each field once"))
    if problems:
        raise bound.refuse(problems, "dump")
    return names


class _Dumping:
    """Writes one file."""

    def __init__(
        self,
        bound: BoundModel,
        stream: BinaryIO,
        kind: str,
        names: list[str],
        delimiter: str,
        path: str,
        texts: list[str],
        progress: Callable[[int], None] | None,
    ) -> None:
        self.bound = bound
        self.stream = stream
        self.kind = kind
        self.names = names
        self.delimiter = delimiter
        self.path = path
        self.texts = texts
        self.progress = progress

    def program(self, core: "Core", params: Mapping[str, Any], call: Call) -> Program[int]:
        """Read all pages out of one snapshot, and write them; return the number of records."""
        levels = core.dialect.isolation_levels
        level = "REPEATABLE_READ" if "REPEATABLE_READ" in levels else None
        yield core.dialect.begin(level, write=False), ()
        call.session.depth = 1
        try:
            rows = yield from self._whole(params, call)
            yield COMMIT, ()
        except GeneratorExit:  # abandoned: the session rolls back when it is released
            raise
        except BaseException:
            yield ROLLBACK, ()
            call.session.depth = 0
            raise
        call.session.depth = 0
        return rows

    def _whole(self, params: Mapping[str, Any], call: Call) -> Program[int]:
        """Write the file; once more where a Decimal turns out not to fit its column, which is text then."""
        while True:
            try:
                return (yield from self._pages(self._writer(), params, call))
            except DoesNotFit as misfit:
                if self.path == STANDARD:
                    misfit.hint = "write to a file, where such a column becomes text, or leave the field out"
                    raise
                self.texts.append(misfit.field)
                self.stream.seek(0)
                self.stream.truncate()

    def _writer(self) -> _Writer:
        if self.kind == "csv":
            return CsvWriter(self.stream, self.bound.spec, self.names, delimiter=self.delimiter)
        if self.kind == "jsonl":
            return JsonWriter(self.stream, self.bound.spec, self.names)
        from dataflow.files.parquet import ParquetWriter

        return ParquetWriter(self.stream, self.bound.spec, self.names, as_text=self.texts)

    def _pages(self, writer: _Writer, params: Mapping[str, Any], call: Call) -> Program[int]:
        operation = self.bound.operation("list")
        rows = 0
        page: dict[str, Any] = {**params, "_limit": PAGE}
        with contextlib.closing(writer):
            while True:
                found = yield from operation.program(page, call)
                if found["records"]:
                    writer.write(found["records"])
                    rows += found["count"]
                if self.progress is not None:
                    self.progress(rows)
                if not found["has_more"]:
                    return rows
                page["_cursor"] = found["next_cursor"]
