"""Histories that Alembic keeps, replayed: at each revision, our way from the schema before leads to the one after.

``python -m dataflow.migrations.proof.histories --alembic DIRECTORY --url URL`` brings one database forward revision by
revision with Alembic. Before each, a copy is made and filled (`filling`); after it, the two schemas are compared
(`dataflow.migrations.diff`), the changes are made in the copy as any plan is, and the copy has to be equal then, with
its data. What Alembic's revisions do to data is not compared. Run it where the application whose history it is is
installed; the revisions are imported, its env.py is not.
"""

import argparse
import importlib
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import sqlalchemy as sa

from dataflow import DataFlow
from dataflow.catalog import Catalog, Table
from dataflow.changes import Change, SchemaEditor
from dataflow.dialect import COUNT, Command, Program
from dataflow.errors import DataFlowError, IntegrityError, QueryError
from dataflow.migrations.alembic import Revision, directory, revisions
from dataflow.migrations.diff import changes, renameable
from dataflow.migrations.execution import Execution, Limits
from dataflow.migrations.journal import Entry, Journal
from dataflow.migrations.plan import Plan, PlannedStep
from dataflow.migrations.planning import editor_of
from dataflow.migrations.proof.filling import Filler, quoted
from dataflow.migrations.proof.places import Place
from dataflow.migrations.proof.upgrading import upgrade
from dataflow.migrations.renames import Renames
from dataflow.migrations.risk import level_of

_LIMITS = Limits(lock_timeout=10, patience=10, waiting=30)
Rows = Mapping[str, tuple[tuple[str, ...], list[str]]]


class Different(Exception):
    """What was made is not what was wanted."""


@attrs.define
class Report:
    """What a replay did.

    Attributes:
        counts: what -> how often.
        kinds: kind of change -> how often.
        failures: (revision, what went wrong).
        left: reasons for which tables stayed empty, and what else was not proven.
    """

    counts: Counter[str] = attrs.field(factory=Counter)
    kinds: Counter[str] = attrs.field(factory=Counter)
    failures: list[tuple[str, str]] = attrs.field(factory=list)
    left: Counter[str] = attrs.field(factory=Counter)

    def __str__(self) -> str:
        lines = [", ".join(f"{count} {what}" for what, count in sorted(self.counts.items()))]
        lines.append("changes: " + ", ".join(f"{count} {kind}" for kind, count in self.kinds.most_common()))
        lines += [f"  {count} x {reason}" for reason, count in self.left.most_common()]
        lines += [f"FAILED at {revision}: {reason}" for revision, reason in self.failures]
        return "\n".join(lines)


@attrs.frozen
class Replay:
    """Replays one history in one place.

    Attributes:
        place: where.
        report: what to tell.
        rename: whether columns and tables whose successor is plain are renamed, not dropped and made.
    """

    place: Place
    report: Report
    rename: bool = False

    def step(self, revision: Revision, forward: Callable[[], None]) -> None:
        """Prove one revision: `forward` makes it with Alembic."""
        self.place.copy()
        forward()
        self.place.extend()
        wanted = self._read("history")
        self.report.counts["revisions"] += 1
        with DataFlow(self.place.url("copy")) as db:
            own = Copy(db)
            if own.inspect() == wanted:
                self.report.counts["revisions that change no schema"] += 1
                return
            filled = self._fill(own)
        try:
            self._proven(wanted, self.place.url("copy"))
        except Exception as error:  # noqa: BLE001  # all that goes wrong is told
            self._again(revision, wanted, error, filled)

    def _again(self, revision: Revision, wanted: Catalog, error: Exception, filled: int) -> None:
        """Tell a failure; where rows cannot be as the new schema wants them, prove it without any."""
        if filled and not isinstance(error, Different) and _is_about_rows(error):
            self.report.left[f"needs data of its own: {_first_line(error)}"] += 1
            with DataFlow(self.place.url("copy")) as db:
                Copy(db).empty()
            try:
                self._proven(wanted, self.place.url("copy"))
            except Exception as second:  # noqa: BLE001
                error = second
            else:
                self.report.counts["revisions proven without rows"] += 1
                return
        self.report.failures.append((f"{revision.id} {revision.message}", _explained(error)))

    def _read(self, name: str) -> Catalog:
        with DataFlow(self.place.url(name)) as db:
            return Copy(db).inspect()

    def _fill(self, own: "Copy") -> int:
        filler = Filler(own.inspect(), self.place.blobs, self.place.booleans)
        filled = 0
        for table in filler.ordered():
            made, reason = own.insert(filler.rows(table))
            filled += bool(made)
            self.report.counts["tables filled" if made else "tables left empty"] += 1
            self.report.counts["rows"] += made
            if not made:
                self.report.left[f"left empty: {table.name}: {reason}"] += 1
        return filled

    def _proven(self, wanted: Catalog, url: str) -> None:
        with DataFlow(url) as db:
            own = Copy(db)
            found = own.inspect()
            renames = guessed(found, wanted) if self.rename else Renames()
            values = Filler(wanted, self.place.blobs, self.place.booleans).wanted_values()
            loose = db.core.dialect.references_ahead
            some = changes(found, wanted, renames=renames, values=values, loose=loose)
            before = own.rows(renames.apply(found), wanted, renames)
            plan = own.carry_out(found, wanted, some)
            _compare(wanted, own.inspect())
            _compare_rows(before, own.rows(wanted, wanted, Renames(), like=before))
            self.report.kinds.update(change.kind for change in some)
            self.report.counts["steps"] += len(plan.steps)
            self.report.counts["rows compared"] += sum(len(rows) for _, rows in before.values())
            self._undone(own, found, plan)

    def _undone(self, own: "Copy", found: Catalog, plan: Plan) -> None:
        back = plan.inverse(range(len(plan.steps)))
        if back is None:
            self.report.counts["plans that cannot be undone"] += 1
            return
        own.run(back)
        _compare(found, own.inspect())
        self.report.counts["plans undone"] += 1


class Copy:
    """The database that is brought forward by us.

    Args:
        db: connected to it.
    """

    def __init__(self, db: DataFlow) -> None:
        self.db = db
        self.dialect = db.core.dialect
        self.editor: SchemaEditor = editor_of(self.dialect, db.core.plugins)

    def inspect(self) -> Catalog:
        """Read the schema."""
        return self.db.core.ask(self.editor.inspect())

    def insert(self, statements: Sequence[str]) -> tuple[int, str]:
        """Insert rows one by one: how many went, and why one did not."""
        made, reason = 0, ""
        for sql in statements:
            try:
                self.db.core.ask(_executed(sql), write=True)
            except DataFlowError as error:
                reason = reason or _first_line(error)
            else:
                made += 1
        return made, reason

    def empty(self) -> None:
        """Delete all rows."""
        tables = Filler(self.inspect(), "", ("", "")).ordered()
        for table in reversed(tables):
            self.insert([f"DELETE FROM {quoted(table.name)}"])  # noqa: S608

    def carry_out(self, found: Catalog, wanted: Catalog, some: Sequence[Change]) -> Plan:
        """Make changes as a migration does."""
        steps = self.editor.steps(found, wanted, some)
        planned = tuple(PlannedStep(step, level_of(step)) for step in steps)
        plan = Plan.from_dict(Plan(self.dialect.name, found.fingerprint, planned).to_dict())
        self.run(plan)
        return plan

    def run(self, plan: Plan) -> None:
        """Carry a plan out."""
        execution = Execution(self.editor, Journal(self.dialect), limits=_LIMITS, finish=_nothing)

        def body() -> Program[None]:
            yield from self.editor.clear([planned.step for planned in plan.steps])
            yield from execution.run(plan)

        self.db.core.ask(self.editor.locked(body(), timeout=_LIMITS.waiting), write=True)

    def rows(self, there: Catalog, wanted: Catalog, renames: Renames, *, like: Rows | None = None) -> Rows:
        """Return the rows of tables and columns that stay as they are, by the names they will have."""
        found = {}
        back = {new: old for old, new in renames.tables.items()}
        for name, table in there.tables.items():
            if name not in wanted.tables:
                continue
            kept = tuple(_kept(table, wanted.tables[name])) if like is None else like[name][0] if name in like else ()
            if kept:
                before = {new: old for old, new in renames.columns.get(name, {}).items()}
                names = ", ".join(quoted(before.get(column, column)) for column in kept)
                sql = f"SELECT {names} FROM {quoted(back.get(name, name))}"  # noqa: S608
                found[name] = (kept, sorted(repr(tuple(row)) for row in self.db.core.ask(_asked(sql))))
        return found


def guessed(found: Catalog, wanted: Catalog) -> Renames:
    """Return renames that are plain: one table of the same columns, one column of the same type."""
    gone = [table for name, table in found.tables.items() if name not in wanted.tables]
    new = [table for name, table in wanted.tables.items() if name not in found.tables]
    tables: dict[str, str] = {}
    for old in gone:
        alike = [table for table in new if table.columns == old.columns]
        if len(alike) == 1 and alike[0].name not in tables.values():
            tables[old.name] = alike[0].name
    columns = {}
    for name, table in Renames(tables).apply(found).tables.items():
        pairs = renameable(table, wanted.tables[name]) if name in wanted.tables else []
        plain = [(old.name, column.name) for old, column in pairs]
        olds, news = Counter(old for old, _ in plain), Counter(column for _, column in plain)
        own = {old: column for old, column in plain if olds[old] == news[column] == 1}
        if own:
            columns[name] = own
    return Renames(tables, columns)


def _kept(table: Table, wanted: Table) -> Iterator[str]:
    """Yield columns that keep their values."""
    for name, column in table.columns.items():
        after = wanted.columns.get(name)
        if after is None or (after.type, after.generated) != (column.type, column.generated):
            continue
        if after.nullable or not column.nullable:
            yield name


def _compare(wanted: Catalog, made: Catalog) -> None:
    if made == wanted:
        return
    lines = [f"{change.kind} {change.table}.{change.name}:\n    {change.before}\n    {change.after}"
             for change in changes(made, wanted)]  # fmt: skip
    raise Different("not what was wanted: " + ("\n  ".join(lines) or "equal but for what no change says"))


def _compare_rows(before: Rows, after: Rows) -> None:
    for name, (columns, rows) in before.items():
        if after.get(name) != (columns, rows):
            raise Different(f"the rows of {name} are others: {rows} -> {after.get(name)}")


def _is_about_rows(error: BaseException | None) -> bool:
    """Tell whether an error came of what rows hold: keys taken, references to nothing, NULL, what is no such value."""
    if error is None:
        return False
    refused = isinstance(error, QueryError) and "refused a value" in error.message
    return refused or isinstance(error, IntegrityError) or _is_about_rows(error.__cause__)


def _executed(sql: str) -> Program[Any]:
    return (yield Command(sql, COUNT, writes=True), ())


def _asked(sql: str) -> Program[list[tuple[Any, ...]]]:
    rows: list[tuple[Any, ...]] = yield Command(sql), ()
    return rows


def _nothing(entry: Entry) -> Program[None]:
    del entry
    yield from ()


def _first_line(error: Exception) -> str:
    return str(error).split("\n", maxsplit=1)[0][:200]


def _explained(error: BaseException) -> str:
    if isinstance(error, Different):
        return str(error)
    cause = error.__cause__
    told = f"{type(error).__name__}: {error}" + (f"\n  from {type(cause).__name__}: {cause}" if cause else "")
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if "dataflow" in frame.filename][-1:]
    return told + "".join(f"\n  at {frame.filename}:{frame.lineno}" for frame in own)


def replay(
    location: str, url: str, *, versions: Sequence[str] = (), base: str = "", target: str = "", rename: bool = False
) -> Report:
    """Replay a history, and return what was proven.

    Args:
        location: Alembic's script directory.
        url: "sqlite", or of a PostgreSQL server.
        versions: directories of the revisions, where it is not "versions" there.
        base: "module:attribute" of the SQLAlchemy metadata that the history starts from, where it does.
        target: the same of the metadata that env.py names, where revisions rely on how it names constraints.
        rename: whether plain renames are made as such.
    """
    report = Report()
    started = time.monotonic()
    scripts = directory(location, *versions)
    metadata = _metadata(target) if target else None
    with Place.at(url) as place:
        if base:
            with place.connection() as connection, connection.begin():
                _metadata(base).create_all(connection)
        proof = Replay(place, report, rename)
        for revision in revisions(scripts):

            def forward(upto: str = revision.id) -> None:
                with place.connection() as connection:
                    upgrade(connection, scripts, upto, metadata)

            try:
                proof.step(revision, forward)
            except (Exception, SystemExit) as error:  # noqa: BLE001  # a foreign revision may do anything
                report.failures.append((revision.id, f"Alembic stopped: {_explained(error)}"))
                break
    report.counts["seconds"] = int(time.monotonic() - started)
    return report


def _metadata(named: str) -> sa.MetaData:
    module, _, path = named.partition(":")
    found: object = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    assert isinstance(found, sa.MetaData)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay one history; 1 where something failed."""
    parser = argparse.ArgumentParser(prog="python -m dataflow.migrations.proof.histories", description=__doc__)
    parser.add_argument("--alembic", required=True, metavar="DIRECTORY", help="Alembic's script directory")
    parser.add_argument("--versions", nargs="*", default=(), metavar="DIRECTORY", help="of the revisions, if elsewhere")
    parser.add_argument("--url", default="sqlite", help="sqlite, or the URL of a PostgreSQL server")
    parser.add_argument("--base", default="", metavar="MODULE:ATTRIBUTE", help="metadata that the history starts from")
    parser.add_argument("--target", default="", metavar="MODULE:ATTRIBUTE", help="metadata that names constraints")
    parser.add_argument("--rename", action="store_true", help="make plain renames as such")
    given = vars(parser.parse_args(arguments))
    report = replay(given.pop("alembic"), given.pop("url"), **given)
    sys.stdout.write(f"{report}\n")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
