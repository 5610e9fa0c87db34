"""Rows of a file become records: checked against the model, written in parts, each exactly once.

A part is one transaction, in which the journal moves on as well, so that a load that was killed goes on where it was.
Where the framework may not keep a journal (existing schemas, strict tenancy) or the input cannot be read twice, the
whole load is one transaction. Rows go through the ordinary bulk operations, so that all features of a model hold.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from typing import TYPE_CHECKING, Any

import attrs

from dataflow.dialect import Program
from dataflow.errors import (
    DataFlowError,
    InputError,
    IntegrityError,
    Problem,
    SchemaError,
    VersionConflict,
    WriteProtectedError,
)
from dataflow.files.columns import check_columns, check_members, required
from dataflow.files.csvfiles import CsvReader
from dataflow.files.journal import Journal, Load
from dataflow.files.jsonlines import JsonReader
from dataflow.files.options import Options, Report, read_options
from dataflow.files.parts import Fault, Part, Reader
from dataflow.files.places import STANDARD, Source, fingerprint, format_of, reading
from dataflow.files.rejects import Rejects, name_for
from dataflow.plan.bound import BoundModel
from dataflow.plan.rows import ColumnRows
from dataflow.plan.upsert import require_unique
from dataflow.session import Call, atomic, surroundings

if TYPE_CHECKING:
    from dataflow.core import Core
    from dataflow.engine import DataFlow

SHOWN = 20
"""Faults that a report lists."""
Rows = ColumnRows | Sequence[Mapping[str, Any]]


def load(
    db: "DataFlow",
    model: str,
    path: str | os.PathLike[str],
    *,
    progress: Callable[[Report], None] | None = None,
    **options: Any,
) -> Report:
    """Load a file into a model, from synchronous code.

    Args:
        db: the DataFlow.
        model: name of the model.
        path: the file; ``-`` is standard input. A name that ends in .gz is unpacked.
        progress: called after each part.
        options: ``format`` (csv, jsonl, parquet; by default what the name says); ``upsert``: names of a unique key,
            whose records are updated where they are there; ``on_error``: "reject" (bad rows go to ``reject_file``, the
            rest is loaded) or "stop" (a bad row, and nothing is loaded); ``batch_size``: rows per transaction;
            ``dry_run``: check everything and write nothing; ``resume``: only go on with a load that was interrupted,
            which is what happens by itself otherwise; ``restart``: forget that there was one; ``delimiter`` and
            ``encoding`` of CSV; ``skip``: columns to leave out.

    Returns:
        What was done.

    Raises:
        InputError: an option or a column is wrong; nothing was written. Or on_error="stop", and a row is bad.
        FileError: the file cannot be read.
        MissingCapability: Parquet, without the extra ``arrow``.
    """
    core = db.core
    bound = core.model(model)
    try:
        return _Loading(core, bound, os.fspath(path), read_options(options), progress).run()
    except DataFlowError as error:
        error.at(model=model, file=os.fspath(path))
        raise


class _Undo(Exception):  # an internal signal
    """A dry run is over: nothing of it stays."""


class _Loading:
    """One call of `load`."""

    def __init__(
        self, core: "Core", bound: BoundModel, path: str, options: Options, progress: Callable[[Report], None] | None
    ) -> None:
        self.core = core
        self.bound = bound
        self.path = path
        self.options = options
        self.format = format_of(path, options.format)
        self.operation = bound.operation("bulk_upsert" if options.upsert else "bulk_create")
        if options.upsert:
            require_unique(self.operation, tuple(options.upsert), "upsert")
        self.report = Report(path, bound.name)
        self.journal: Journal | None = None
        self.entry: Load | None = None
        self.writes = True
        self._progress = progress
        self._holder = f"{bound.name}.load"

    def run(self) -> Report:
        """Do it."""
        with ExitStack() as stack:
            source = stack.enter_context(reading(self.path))
            self.report.size = source.size
            reader = self._open(source)
            check_columns(self.operation, reader, skipped=self.options.skip, key=self.options.upsert)
            rejects = self._rejects(reader)
            self._prepare()
            if self.entry is not None and self.entry.done:
                return self._done_before(self.entry)
            self._begin(rejects)
            if self.entry is not None and self.entry.position:
                reader.skip(self.entry.position)
            parts = self._parts(reader, source)
            if self.journal is None or self.options.on_error == "stop":
                self._together(parts, rejects)
            else:
                for part in parts:
                    self._apart(part, rejects)
                self._finish()
        self.report.reject_file = rejects.path if rejects.size else ""
        return self.report

    # -- the file -------------------------------------------------------------------------------------------------
    def _open(self, source: Source) -> Reader:
        fields, skipped = self.bound.fields, self.options.skip
        if self.format == "csv":
            tabs = self.path.lower().removesuffix(".gz").endswith(".tsv")
            encoding = "utf-8-sig" if self.options.encoding.lower() in ("utf-8", "utf8") else self.options.encoding
            delimiter = self.options.delimiter or ("\t" if tabs else ",")
            return CsvReader(source.stream, fields, delimiter=delimiter, encoding=encoding, skipped=skipped)
        if self.format == "jsonl":
            return JsonReader(source.stream, fields, skipped=skipped, required=required(self.bound))
        from dataflow.files.parquet import ParquetReader

        return ParquetReader(source.stream, fields, skipped=skipped)

    def _parts(self, reader: Reader, source: Source) -> Iterator[Part]:
        first = reader.read(self.options.batch_size)
        if first is not None and reader.columns is None and not self.report.rows:
            check_members(self.bound, first)
        parts = chain([] if first is None else [first], iter(lambda: reader.read(self.options.batch_size), None))
        for part in parts:
            assert part is not None
            self.report.read = source.position()
            yield part

    # -- what was done before -------------------------------------------------------------------------------------
    def _rejects(self, reader: Reader) -> Rejects:
        path = self.options.reject_file or name_for(self.path, reader.kind)
        delimiter = getattr(reader, "delimiter", ",")
        encoding = "utf-8" if reader.kind == "jsonl" else self.options.encoding
        return Rejects(path, reader.kind, reader.heading, delimiter, "utf-8" if encoding == "utf-8-sig" else encoding)

    def _ask(self, program: Program[Any], *, write: bool = False) -> Any:
        call = Call(self.core)
        return self.core.run_sync(atomic(call, program) if write else program, call, write=write, holder=self._holder)

    def _prepare(self) -> None:
        """Make tables ready, and find out what earlier runs have done."""
        if self.options.dry_run:
            self._prepare_dry()
            return
        self.core.ensure_sync([self.bound])
        why = self._no_journal()
        if why:
            if self.options.resume:
                raise InputError(
                    f"the load cannot be resumed: {why}", hint="it is one transaction: load the whole file"
                )
            self.report.notes.append(f"all in one transaction: {why}")
            return
        journal = Journal(self.core.dialect)
        if not self._ask(journal.there()):
            call = self.core.own_call()
            self.core.run_sync(atomic(call, journal.make()), call, write=True, holder=self._holder)
        self.journal = journal
        self.entry = self._ask(journal.find(self._id()))
        if self.options.restart:
            self.entry = None
        if self.entry is None and self.options.resume:
            msg = "there is no interrupted load of this file to go on with"
            raise InputError(msg, hint="load it without resume; was the file changed?", code="nothing-to-resume")
        if self.entry is not None and not self.entry.done and self.entry.options != self._meaning():
            msg = "the interrupted load of this file was begun with other options"
            raise InputError(msg, hint=f"give the same: {self.entry.options}; or --restart", code="other-options")

    def _no_journal(self) -> str:
        """Say why no journal can be kept, or ""."""
        if self.path == STANDARD:
            return "standard input cannot be read again"
        if self.core.config["existing_schema_mode"] or not self.core.config["auto_migrate"]:
            return "the framework may create no table here to note how far it is"
        if self.core.confined:
            return "strict tenancy keeps all but the tenant's own tables from this connection"
        call = Call(self.core)
        try:
            self.core.permit_schema_change(call)
        except WriteProtectedError:
            return "a rule keeps the framework from creating its table"
        return ""

    def _prepare_dry(self) -> None:
        """Find out whether there is a table to try the rows on; a dry run creates none."""
        from dataflow.schema import create_missing

        try:
            self._ask(create_missing([self.bound], self.core.dialect, create=False))
        except SchemaError as error:
            self.writes = False
            self.report.notes.append(f"{error.message}; the rows were checked against the model only")

    def _id(self) -> str:
        tenant = self.core.around(surroundings(), "tenant")
        size = os.path.getsize(self.path)
        parts = [fingerprint(self.path), size, self.bound.name, self.bound.spec.table, tenant]
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=20).hexdigest()

    def _meaning(self) -> dict[str, Any]:
        """Return the options that decide what rows mean."""
        its = self.options
        listed = (its.delimiter, its.encoding, list(its.upsert), sorted(its.skip), its.on_error)
        return {
            "format": self.format,
            **dict(zip(("delimiter", "encoding", "upsert", "skip", "on_error"), listed, strict=True)),
        }

    def _done_before(self, entry: Load) -> Report:
        self._restore(entry)
        self.report.status = "already-loaded"
        self.report.reject_file = entry.reject_file if entry.rejected else ""
        name = f" as {entry.file}" if entry.file != self.path else ""
        self.report.notes.append(f"the same file was loaded{name} on {entry.begun}; --restart loads it once more")
        return self.report

    def _restore(self, entry: Load) -> None:
        self.report.rows = self.report.resumed_at = entry.position
        for name in ("created", "updated", "skipped", "rejected"):
            setattr(self.report, name, getattr(entry, name))

    def _begin(self, rejects: Rejects) -> None:
        """Write a new load down, or take up an old one."""
        if self.options.dry_run:
            self.report.status = "checked"
            return
        if self.entry is None:
            if self.options.on_error == "reject":
                rejects.prepare(new=True)
            if self.journal is not None:
                self.entry = Load(
                    self._id(),
                    0,
                    self.path,
                    self.bound.name,
                    self._meaning(),
                    reject_file=os.path.abspath(rejects.path),
                )
                if self.options.on_error == "reject":
                    self._ask(self._begun(self.journal, self.entry), write=True)
            return
        if self.options.reject_file and os.path.abspath(rejects.path) != self.entry.reject_file:
            msg = f"the interrupted load of this file has its refused rows in {self.entry.reject_file!r}"
            raise InputError(msg, hint="leave reject_file out, or --restart", code="other-options")
        rejects.path, rejects.size = os.path.relpath(self.entry.reject_file), self.entry.reject_bytes
        rejects.prepare(new=False)
        self._restore(self.entry)

    def _begun(self, journal: Journal, entry: Load) -> Program[None]:
        if self.options.restart:
            yield from journal.forget(entry.id)
        try:
            yield from journal.begin(entry)
        except IntegrityError as error:
            msg = "another process has just begun to load the same file"
            raise InputError(msg, hint="let it finish", code="loading-already") from error

    # -- writing --------------------------------------------------------------------------------------------------
    def _apart(self, part: Part, rejects: Rejects) -> None:
        """Load a part in a transaction of its own."""
        before = attrs.evolve(self.report, faults=list(self.report.faults)), rejects.size
        call = Call(self.core)
        try:
            body = atomic(call, self._noted(part, rejects, call))
            self.core.run_sync(body, call, write=True, holder=self._holder)
        except BaseException:
            self.report, size = before
            rejects.cut(size)
            raise
        self.entry = self._moved(rejects)
        self._tell()

    def _noted(self, part: Part, rejects: Rejects, call: Call) -> Program[None]:
        assert self.journal is not None
        assert self.entry is not None
        yield from self.journal.claim(self.entry, self.entry.position + part.count)
        yield from self._write(part, rejects, call)
        yield from self.journal.note(self._moved(rejects))

    def _moved(self, rejects: Rejects, *, done: bool = False) -> Load:
        assert self.entry is not None
        its = self.report
        counts = {name: getattr(its, name) for name in ("created", "updated", "skipped", "rejected")}
        return attrs.evolve(self.entry, position=its.rows, reject_bytes=rejects.size, done=done, **counts)

    def _finish(self) -> None:
        assert self.journal is not None
        assert self.entry is not None
        self._ask(self.journal.note(attrs.evolve(self.entry, done=True)), write=True)

    def _together(self, parts: Iterator[Part], rejects: Rejects) -> None:
        """Load all parts in one transaction; in a dry run, undo it."""
        if not self.writes:
            for part in parts:
                self._count(part, list(part.faults), rejects)
                self._tell()
            return
        call = Call(self.core)
        try:
            body = atomic(call, self._all(parts, rejects, call))
            self.core.run_sync(body, call, write=True, holder=self._holder)
        except _Undo:
            pass
        except BaseException:
            rejects.cut(0)
            raise

    def _all(self, parts: Iterator[Part], rejects: Rejects, call: Call) -> Program[None]:
        if self.journal is not None and self.entry is not None:
            yield from self._begun(self.journal, self.entry)
        for part in parts:
            yield from self._write(part, rejects, call)
            self._tell()
        if self.options.dry_run:
            raise _Undo
        if self.journal is not None:
            moved = self._moved(rejects, done=True)
            yield from self.journal.claim(attrs.evolve(moved, position=0), moved.position)
            yield from self.journal.note(moved)

    def _write(self, part: Part, rejects: Rejects, call: Call) -> Program[None]:
        """Write the good rows of a part, and note the bad ones."""
        faults = list(part.faults)
        if len(part.rows):
            faults += yield from self._records(part, call)
        self._count(part, faults, rejects)

    def _count(self, part: Part, faults: list[Fault], rejects: Rejects) -> None:
        self.report.rows += part.count
        self.report.rejected += len(faults)
        if not faults:
            return
        faults.sort(key=lambda fault: fault.place)
        origins = part.origins([fault.place for fault in faults])
        listed: list[dict[str, Any]] = [
            {"line": origin.line, "field": fault.field, "reason": fault.reason}
            for fault, origin in zip(faults, origins, strict=True)
        ]
        self.report.faults += listed[: SHOWN - len(self.report.faults)]
        if self.options.dry_run:
            return
        if self.options.on_error == "stop":
            problems = [
                Problem("bad-row", f"line {its['line']}: {its['reason']}", "", {"line": int(its["line"])})
                for its in listed[:SHOWN]
            ]
            msg = f"{len(faults)} bad rows so far; nothing was loaded"
            hint = "correct them, or let the rest be loaded: --on-error reject"
            raise InputError(msg, hint=hint, problems=problems, code="bad-rows")
        rejects.write(faults, origins)

    def _records(self, part: Part, call: Call) -> Program[list[Fault]]:
        """Write rows: return why some of them were refused."""
        if self.options.upsert:
            faults: list[Fault] = []
            for start, rows in self._distinct(part.rows):
                places = part.places[start : start + len(rows)]
                faults += yield from self._sifted(rows, places, call)
            return faults
        try:
            yield from self._operate(part.rows, call)
        except InputError:
            return (yield from self._sifted(part.rows, part.places, call))
        except IntegrityError:
            pass
        else:
            return []
        try:
            found = yield from self._operate(part.rows, call, _on_error="collect")
        except InputError:
            return (yield from self._sifted(part.rows, part.places, call))
        return [Fault(part.places[its["row"]], "", its["message"]) for its in found["errors"]]

    def _operate(self, rows: Rows, call: Call, **options: Any) -> Program[Mapping[str, Any]]:
        if self.options.upsert:
            options["_key_fields"] = list(self.options.upsert)
        found = yield from atomic(call, self.operation.program({"_data": rows, **options}, call))
        self.report.created += found["created"]
        self.report.updated += found["updated"]
        self.report.skipped += found["skipped"] - len(found.get("errors", ()))
        return found  # type: ignore[no-any-return]

    def _sifted(self, rows: Rows, places: Sequence[int], call: Call) -> Program[list[Fault]]:
        """Write rows, in halves where something is wrong with them, down to the rows that it is."""
        try:
            yield from self._operate(rows, call)
        except (InputError, IntegrityError, VersionConflict) as error:
            if len(rows) == 1:
                return [_fault(error, places[0])]
        else:
            return []
        half = len(rows) // 2
        faults = yield from self._sifted(rows[:half], places[:half], call)
        return [*faults, *(yield from self._sifted(rows[half:], places[half:], call))]

    def _distinct(self, rows: Rows) -> Iterator[tuple[int, Rows]]:
        """Cut rows so that no part has a key twice: a later row finds what an earlier one has written."""
        names = self.options.upsert
        if isinstance(rows, ColumnRows):
            keys = list(zip(*[map(_hashable, rows.columns[name]) for name in names], strict=True))
        else:
            keys = [tuple(_hashable(row.get(name)) for name in names) for row in rows]
        if len(set(keys)) == len(keys):
            yield 0, rows
            return
        seen: set[Any] = set()
        start = 0
        for place, key in enumerate(keys):
            if key in seen:
                yield start, rows[start:place]
                seen.clear()
                start = place
            seen.add(key)
        yield start, rows[start:]

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self.report)


def _fault(error: DataFlowError, place: int) -> Fault:
    """Say why the database, or an operation, refused a row."""
    message = error.problems[0].message if error.problems else error.message
    hint = error.problems[0].hint if error.problems else error.hint if isinstance(error, InputError) else ""
    message = message.removeprefix("row 0: ")
    return Fault(place, str(error.where.get("field", "")), f"{message}; {hint}" if hint else message)


def _hashable(value: Any) -> Any:
    return repr(value) if isinstance(value, (list, dict)) else value
