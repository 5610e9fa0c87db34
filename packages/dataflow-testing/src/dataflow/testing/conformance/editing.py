"""A small schema that is changed by a dialect's schema editor, as a migration engine does it.

Schemas are written with SQLAlchemy and compiled by the dialect, so that they are the same on every database; changes
are found in the catalogs that the editor itself reads.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import attrs
import sqlalchemy as sa
from sqlalchemy.schema import CreateIndex, CreateTable

from dataflow.catalog import Catalog, Table
from dataflow.changes import Change, SchemaEditor, Step
from dataflow.dialect import COUNT, Command, Dialect, Program, support
from dataflow.errors import NotYetAvailable
from dataflow.plugins import specs
from dataflow.testing.conformance.bench import Bench
from dataflow.types import IntType, StrType

PREFIX = "edited_"
WRITERS, BOOKS, SHELVES, TOMES = (f"{PREFIX}{name}" for name in ("writers", "books", "shelves", "tomes"))
ROWS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    WRITERS: (
        {"id": 1, "name": "Ada", "code": "a", "age": 41},
        {"id": 2, "name": "o'hara ä🦁", "code": None, "age": None},
    ),
    BOOKS: (
        {"id": 1, "writer_id": 1, "title": "One", "pages": 10, "note": "x"},
        {"id": 2, "writer_id": 1, "title": "Two", "pages": 600, "note": None},
        {"id": 3, "writer_id": None, "title": "Three", "pages": None, "note": ""},
    ),
}
"""The rows of the tables before they are changed."""
Listed = tuple[str, ...]
"""A change: kind, table, name, and for what is renamed the name before."""


def editor_of(bench: Bench) -> SchemaEditor:
    """Return the schema editor of a dialect.

    Raises:
        NotYetAvailable: it has none.
    """
    core = bench.db.core
    spec = next(spec for spec in core.plugins.dialects.values() if spec.name == core.dialect.name)
    if spec.schema_editor is None:
        reason = support(core.dialect, "schema_editor").reason
        raise NotYetAvailable(f"{core.dialect.name} has no schema editor", hint=reason, code="unsupported")
    found: SchemaEditor = specs.load(spec.schema_editor)(core.dialect)
    return found


@attrs.frozen
class IndexItem:
    """An index to build, once its table is there."""

    name: str
    columns: tuple[str, ...]
    unique: bool
    options: Mapping[str, str]

    def on(self, table: sa.Table) -> sa.Index:
        """Return it as an index of a table."""
        parts = [table.c[c.split()[0]].desc() if c.endswith(" DESC") else table.c[c] for c in self.columns]
        options: dict[str, Any] = {name: sa.text(text) for name, text in self.options.items()}
        return sa.Index(self.name, *parts, unique=self.unique, **options)


Item = Callable[[], Any] | IndexItem
Edit = Callable[["Draft"], None]


class Draft:
    """A schema to build: table -> what it is made of, by names that edits use.

    Attributes:
        tables: table -> key -> what makes a column, constraint or index.
        integer, text: the dialect's types.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.integer, self.text = dialect.column_type(IntType()), dialect.column_type(StrType())
        self.tables: dict[str, dict[str, Item]] = {
            WRITERS: {
                "id": self.column("id", self.integer, nullable=False),
                "name": self.column("name", self.text, nullable=False),
                "code": self.column("code", self.text),
                "age": self.column("age", self.integer),
                "key": self.key("pk_edited_writers"),
                "uq": self.unique("uq_edited_writers_code", "code"),
            },
            BOOKS: {
                "id": self.column("id", self.integer, nullable=False),
                "writer_id": self.column("writer_id", self.integer),
                "title": self.column("title", self.text, nullable=False, server_default="untitled"),
                "pages": self.column("pages", self.integer),
                "note": self.column("note", self.text),
                "key": self.key("pk_edited_books"),
                "ck": self.check("ck_edited_books_pages", "pages > 0"),
                "ix": self.index("ix_edited_books_title", "title DESC", "pages"),
            },
        }
        if support(dialect, "foreign_keys").level != "unsupported":
            self.tables[BOOKS]["fk"] = self.foreign_key()
        if support(dialect, "partial_indexes").level != "unsupported":
            self.tables[BOOKS]["part"] = self.index("ix_edited_books_long", "pages", where="pages > 500")

    # -- what tables are made of ----------------------------------------------------------------------------------
    @staticmethod
    def column(name: str, kind: Any, **options: Any) -> Item:
        """Return what makes a column."""
        return lambda: sa.Column(name, kind, autoincrement=False, **options)

    @staticmethod
    def key(name: str, *columns: str) -> Item:
        """Return what makes a primary key, of ``id`` if nothing is said."""
        return lambda: sa.PrimaryKeyConstraint(*(columns or ("id",)), name=name)

    @staticmethod
    def unique(name: str, *columns: str) -> Item:
        """Return what makes a unique constraint."""
        return lambda: sa.UniqueConstraint(*columns, name=name)

    @staticmethod
    def check(name: str, condition: str) -> Item:
        """Return what makes a check."""
        return lambda: sa.CheckConstraint(sa.text(condition), name=name)

    def foreign_key(self) -> Item:
        """Return what makes the foreign key of books, with an action where the database has such."""
        acts = support(self.dialect, "foreign_key_actions").level != "unsupported"
        action = "CASCADE" if acts else None
        return lambda: sa.ForeignKeyConstraint(
            ["writer_id"], [f"{WRITERS}.id"], name="fk_edited_books_writer", ondelete=action
        )

    def index(self, name: str, *columns: str, unique: bool = False, where: str = "") -> "IndexItem":
        """Return what makes an index; a column may have ``DESC`` behind it."""
        options = {f"{self.dialect.sqlalchemy.name}_where": where} if where else {}
        return IndexItem(name, columns, unique, options)

    # -- building -------------------------------------------------------------------------------------------------
    def statements(self) -> Iterator[str]:
        """Yield the statements that create the schema from nothing."""
        metadata = sa.MetaData()
        for name, items in self.tables.items():
            table = sa.Table(name, metadata, *(make() for make in items.values() if not isinstance(make, IndexItem)))
            yield self._text(CreateTable(table))
            for item in items.values():
                if isinstance(item, IndexItem):
                    yield self._text(CreateIndex(item.on(table)))

    def _text(self, element: Any) -> str:
        return str(element.compile(dialect=self.dialect.sqlalchemy)).strip()

    def build(self) -> Program[None]:
        """Create the schema."""
        for sql in self.statements():
            yield Command(sql, COUNT, writes=True), ()


def edited(dialect: Dialect, *edits: Edit | None) -> Draft:
    """Return the schema with edits."""
    draft = Draft(dialect)
    for edit in edits:
        if edit is not None:
            edit(draft)
    return draft


def _object(catalog: Catalog, kind: str, table: str, name: str) -> Any:
    """Return the object that a change is about."""
    what = kind.partition("_")[2]
    owner = catalog.tables[table]
    if what == "table":
        return owner
    if what == "constraint":
        return next(found for found in owner.constraints if found.name == name)
    return owner.columns[name] if what == "column" else owner.indexes[name]


def change_of(found: Catalog, wanted: Catalog, listed: Listed, value: str | None = None) -> Change:
    """Return a change as a migration engine finds it.

    Args:
        found: what is there.
        wanted: what shall be there.
        listed: the change in words.
        value: what fills a column in rows that have no value.
    """
    kind, table, name, *former = listed
    if kind in ("rename_table", "rename_column"):
        return Change(kind, table, name, former[0], name)
    before = None if kind.startswith(("add_", "create_")) else _object(found, kind, table, *(former or (name,)))
    after = None if kind.startswith("drop_") else _object(wanted, kind, table, name)
    return Change(kind, table, name, before, after, value if kind in ("add_column", "alter_column") else None)


class Editing:
    """A database whose small schema is changed.

    Attributes:
        bench: where it is.
        dialect: of the database.
        editor: of the dialect.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.dialect = bench.db.core.dialect
        self.editor = editor_of(bench)

    def run(self, program: Program[Any]) -> Any:
        """Run a program on a connection with all privileges."""
        return self.bench.db.core.ask(program, write=True)

    def clear(self) -> None:
        """Drop the tables of earlier tests, what refers to others first."""
        there = self.run(self.dialect.list_tables())
        for table in (SHELVES, TOMES, BOOKS, WRITERS):
            if table in there:
                self.send(f"DROP TABLE {self.dialect.quote(table)}")
        for table in there:
            if table.startswith(PREFIX) and table not in (SHELVES, TOMES, BOOKS, WRITERS):
                self.send(f"DROP TABLE {self.dialect.quote(table)}")

    def send(self, *statements: str) -> None:
        """Run statements."""
        self.run(self.made(statements))

    @staticmethod
    def made(statements: Sequence[str]) -> Program[None]:
        """Run statements in a program."""
        for sql in statements:
            yield Command(sql, COUNT, writes=True), ()

    def build(self, *edits: Edit | None, rows: bool = True) -> None:
        """Create the schema with edits, and its rows."""
        draft = edited(self.dialect, *edits)
        self.run(draft.build())
        for table, records in ROWS.items():
            if rows and table in draft.tables:
                names = [name for name in records[0] if name in draft.tables[table]]
                columns = ", ".join(map(self.dialect.quote, names))
                places = ", ".join(self.dialect.placeholder(place) for place, _ in enumerate(names, 1))
                command = Command(
                    f"INSERT INTO {self.dialect.quote(table)} ({columns}) VALUES ({places})", COUNT, writes=True
                )
                for record in records:
                    self.run(iter_step(command, [record[name] for name in names]))

    def rows(self, table: str, *columns: str) -> list[tuple[Any, ...]]:
        """Return columns of a table by id."""
        listed = ", ".join(map(self.dialect.quote, columns))
        command = Command(f"SELECT {listed} FROM {self.dialect.quote(table)} ORDER BY {self.dialect.quote('id')}")
        return [tuple(row) for row in self.run(iter_step(command, ()))]

    # -- catalogs -------------------------------------------------------------------------------------------------
    def inspect(self) -> Catalog:
        """Return the catalog of the small schema."""
        return self._own(self.run(self.editor.inspect()))

    def desired(self, *edits: Edit | None) -> Catalog:
        """Return the catalog of a fresh build, made aside."""
        return self._own(self.run(self.editor.desired(edited(self.dialect, *edits).build())))

    @staticmethod
    def _own(catalog: Catalog) -> Catalog:
        """Leave out what other suites have made."""
        return Catalog({name: table for name, table in catalog.tables.items() if name.startswith(PREFIX)})

    def table(self, name: str) -> Table:
        """Return one table of the catalog."""
        return self.inspect().tables[name]

    # -- steps ----------------------------------------------------------------------------------------------------
    def steps(
        self, wanted: Catalog, changes: Sequence[Listed], value: str | None = None, *, found: Catalog | None = None
    ) -> list[Step]:
        """Return the steps that lead to a catalog, from that which was found."""
        found = self.inspect() if found is None else found
        return self.editor.steps(found, wanted, [change_of(found, wanted, listed, value) for listed in changes])

    def follow(self, steps: Sequence[Step]) -> None:
        """Make steps, as a migration engine does: neighbours together, all behind the lock."""
        self.run(self.editor.locked(self._all(steps), timeout=10))

    def _all(self, steps: Sequence[Step]) -> Program[None]:
        yield from self._attempt(self.editor.clear(steps))
        for mode, group in groupby(steps, key=lambda step: step.mode):
            members = list(group)
            if mode == "together":
                yield from self._attempt(self.made([sql for step in members for sql in step.sql]))
                continue
            for step in members:
                yield from self._alone(step)

    def _alone(self, step: Step) -> Program[None]:
        if step.mode == "outside":
            yield from self._attempt(self.editor.perform(step), transaction=False)
        elif step.mode == "apart":
            yield from self._attempt(self.made(step.sql))
        else:
            cursor: Any = None
            while True:
                _, cursor = yield from self._attempt(self.editor.batch(step, cursor))
                if cursor is None:
                    return

    def _attempt(self, body: Program[Any], *, transaction: bool = True) -> Program[Any]:
        return self.editor.attempt(body, lock_timeout=5, statement_timeout=0, transaction=transaction)

    def back(self, steps: Sequence[Step]) -> None:
        """Undo steps by their inverses."""
        statements = [sql for step in reversed(steps) for sql in step.inverse or ()]
        self.run(self.editor.locked(self._attempt(self.made(statements)), timeout=10))


def iter_step(command: Command, arguments: Sequence[Any]) -> Program[Any]:
    """Send one statement."""
    return (yield command, arguments)


@attrs.frozen
class Case:
    """A change of the small schema.

    Attributes:
        after: what it becomes.
        changes: the changes that lead there.
        before: what it is at first.
        value: fills a column in rows that have no value.
        loses: data loss that has to be announced: "none", "possible" or "certain"; "" for either of the first two.
        rows: table -> columns and what they hold afterwards, as the tables and columns are called then.
    """

    after: Edit | None
    changes: tuple[Listed, ...]
    before: Edit | None = None
    value: str | None = None
    loses: str = "none"
    rows: Mapping[str, Mapping[str, Sequence[Any]]] = attrs.field(factory=dict)
