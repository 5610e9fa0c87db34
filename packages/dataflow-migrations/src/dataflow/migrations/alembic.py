"""The bridge to Alembic, for projects that move between the tools: its version table, and its history in ours.

Nothing of Alembic is run: its scripts are read for their names and messages. Needs the extra "alembic" where scripts
are read. Our own history stays the truth for what DataFlow does; what Alembic did before is there to be looked up.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import sqlalchemy as sa
from sqlalchemy.schema import CreateTable

from dataflow.dialect import COUNT, Command, Program
from dataflow.errors import InputError, MissingCapability, SchemaError
from dataflow.migrations.execution import Limits, who
from dataflow.migrations.journal import DONE, HISTORY, STEPS, Entry, Journal, now
from dataflow.migrations.plan import Plan
from dataflow.migrations.planning import editor_of
from dataflow.plugins.hints import INSTALL

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

    from dataflow import DataFlow

TABLE = "alembic_version"
_SYMBOLIC = ("base", "head", "heads", "current")
_FIRST = "00000000T000000"
"""How ids of imported entries begin: they sort before ours, which begin with an instant."""


@attrs.frozen
class Revision:
    """A revision of an Alembic history.

    Attributes:
        id: its identifier.
        message: its message, "" where it has none.
        below: the revisions that it follows.
    """

    id: str
    message: str
    below: tuple[str, ...]


def directory(location: str, *versions: str) -> "ScriptDirectory":
    """Open Alembic's script directory.

    Args:
        location: its path, as ``script_location`` says in alembic.ini.
        versions: directories of the revisions, where it is not "versions" in there.

    Raises:
        MissingCapability: Alembic is not installed.
        InputError: there is none.
    """
    try:
        from alembic.script import ScriptDirectory
        from alembic.util.exc import CommandError
    except ImportError as error:
        msg = "Alembic's scripts cannot be read: the package alembic is missing"
        hint = (
            f"{INSTALL.format(extra='migrations')} with its extra: pip install 'workflow-dataflow-migrations[alembic]'"
        )
        raise MissingCapability(msg, hint=hint) from error
    try:
        return ScriptDirectory(location, version_locations=list(versions) or None)
    except CommandError as error:
        raise InputError(str(error), hint="name the directory that holds env.py and versions/") from error


def revisions(scripts: "ScriptDirectory", upto: Sequence[str] = ("heads",)) -> list[Revision]:
    """Return the revisions of a history, each after those that it follows or depends on.

    Args:
        scripts: the history.
        upto: the last ones.

    Raises:
        InputError: the scripts do not know one of them, or cannot be read.
    """
    from alembic.script.revision import RevisionError
    from alembic.util.exc import CommandError

    try:
        found = [each for each in scripts.iterate_revisions(tuple(upto), "base") if each is not None]
    except (CommandError, RevisionError) as error:
        raise InputError(str(error), hint="is it the script directory of this database?") from error
    return [
        Revision(each.revision, each.doc or "", tuple(each._versioned_down_revisions))  # noqa: SLF001
        for each in reversed(found)
    ]


def stamp(db: "DataFlow", revision: str | Sequence[str], *, script_location: str | None = None) -> None:
    """Let Alembic believe that the schema is at a revision; the schema itself is not touched.

    Args:
        db: connected to the database.
        revision: its identifier; several where the history has several heads; none: Alembic has done nothing yet.
        script_location: Alembic's script directory: the revision has to be there then, and may be "head" or "heads".

    Raises:
        InputError: the revision is unknown, or a symbolic name without scripts.
        MissingCapability: scripts are to be read, and Alembic is missing.
    """
    chosen = (revision,) if isinstance(revision, str) else tuple(revision)
    if script_location is not None:
        chosen = _resolved(script_location, chosen)
    for name in chosen:
        if name in _SYMBOLIC or not name:
            msg = f"{name!r} is no identifier of a revision"
            raise InputError(msg, hint="name script_location=, or write the identifier", code="unknown-revision")
    _run(db, _stamped(db, chosen))


def _resolved(location: str, names: Sequence[str]) -> tuple[str, ...]:
    from dataflow.errors import suggest

    scripts = directory(location)
    from alembic.util.exc import CommandError

    try:
        found = [each.revision for name in names for each in scripts.get_revisions(name) if each is not None]
    except CommandError as error:
        known = {each.id for each in revisions(scripts)}
        close = next((near for name in names if (near := suggest(name, known))), None)
        hint = f"did you mean {close!r}?" if close else "is it the script directory of this database?"
        raise InputError(str(error), hint=hint, code="unknown-revision") from error
    return tuple(dict.fromkeys(found))


def _stamped(db: "DataFlow", chosen: Sequence[str]) -> Program[None]:
    dialect = db.core.dialect
    if not (yield from dialect.list_columns(TABLE)):
        yield from dialect.before_tables([])
        yield Command(_create(db), COUNT, writes=True), ()
    table = dialect.table_name(TABLE)
    yield Command(f"DELETE FROM {table}", COUNT, writes=True), ()  # noqa: S608
    mark = dialect.placeholder(1)
    for name in chosen:
        yield Command(f"INSERT INTO {table} (version_num) VALUES ({mark})", COUNT, writes=True), (name,)  # noqa: S608


def _create(db: "DataFlow") -> str:
    """Write the statement that makes the table, as Alembic itself would."""
    table = sa.Table(
        TABLE,
        sa.MetaData(),
        sa.Column("version_num", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("version_num", name=f"{TABLE}_pkc"),
    )
    return str(CreateTable(table).compile(dialect=db.core.dialect.sqlalchemy))


def stamped(db: "DataFlow") -> tuple[str, ...]:
    """Return the revisions at which Alembic believes the schema to be."""
    return _run(db, _read(db))  # type: ignore[no-any-return]


def _read(db: "DataFlow") -> Program[tuple[str, ...]]:
    dialect = db.core.dialect
    if not (yield from dialect.list_columns(TABLE)):
        return ()
    rows = yield Command(f"SELECT version_num FROM {dialect.table_name(TABLE)} ORDER BY version_num"), ()  # noqa: S608
    return tuple(row[0] for row in rows)


def import_history(db: "DataFlow", script_location: str) -> list[Entry]:
    """Put the revisions that Alembic has made here into the history of migrations.

    They are done, and their plans are empty, for DataFlow cannot undo them; the note names revision and message. What
    was imported before is left alone, so that it can be done again after Alembic was used again.

    Args:
        db: connected to the database.
        script_location: Alembic's script directory.

    Returns:
        The entries that are new.

    Raises:
        InputError: the scripts do not know the revision at which the database is.
        MissingCapability: Alembic is missing.
        SchemaError: Alembic has made nothing here.
    """
    scripts = directory(script_location)
    at = stamped(db)
    if not at:
        msg = f"Alembic has made nothing in this database: {TABLE} names no revision"
        raise SchemaError(msg, hint="is it the right database? nothing has changed", code="no-revision")
    made = revisions(scripts, at)
    return _run(db, _imported(db, made))  # type: ignore[no-any-return]


def _imported(db: "DataFlow", made: Sequence[Revision]) -> Program[list[Entry]]:
    journal = Journal(db.core.dialect)
    yield from journal.make(HISTORY, STEPS)
    before = [entry.id for entry in (yield from journal.history()) if entry.id.startswith(_FIRST)]
    known = {name.partition("-")[2] for name in before}
    new: list[Entry] = []
    for revision in made:
        if revision.id in known:
            continue
        place = len(before) + len(new) + 1
        note = f"Alembic revision {revision.id}" + (f": {revision.message}" if revision.message else "")
        at = now()
        plan = Plan(db.core.dialect.name, "", ())
        entry = Entry(f"{_FIRST}{place:06d}-{revision.id}", plan, DONE, at, ended_at=at, actor=who(), note=note)
        yield from journal.record(entry)
        new.append(entry)
    return new


def _run(db: "DataFlow", body: Program[Any]) -> Any:
    """Run a program in one transaction, while no other process migrates."""
    core = db.core
    core.permit_schema_change(core.own_call())
    editor = editor_of(core.dialect, core.plugins)
    limits = Limits()
    attempt = editor.attempt(
        body, lock_timeout=limits.lock_timeout, statement_timeout=limits.statement_timeout, transaction=True
    )
    return core.ask(editor.locked(attempt, timeout=limits.waiting), write=True)
