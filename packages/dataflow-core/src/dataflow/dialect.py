"""What a database dialect must provide: everything that differs between databases.

What it and plans say to each other, commands and programs, is described in `dataflow.database`; dialects find it here.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from dataflow import types as t
from dataflow.database import (
    COPY,
    COUNT,
    MANY,
    ROWS,
    STANDING,
    Command,
    Convert,
    Database,
    Program,
    Session,
    Step,
    Trial,
)
from dataflow.errors import ConfigurationError, DataFlowError, NotYetAvailable
from dataflow.loading import ROWS_TABLE, Insert, Joined, Rows, interleaved
from dataflow.privileges import RolePrivileges, TablePrivileges

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.engine.interfaces import Dialect as SQLAlchemyDialect
    from sqlalchemy.sql import ColumnElement
    from sqlalchemy.types import TypeEngine

    from dataflow.config import Config, DatabaseURL
    from dataflow.fields import FieldSpec
    from dataflow.model import ModelSpec


@attrs.frozen
class ColumnInfo:
    """A column found in a database: name, SQL type, whether it takes NULL, whether it is in the primary key."""

    name: str
    type: str
    nullable: bool
    primary_key: bool
    default: str | None = None


Bind = Callable[[Convert | None], "ColumnElement[Any]"]
"""Makes a bound parameter for the operand at hand; the argument converts the operand to what the driver takes."""


class Dialect:
    """Base of dialects: everything that differs between databases, in one object without state.

    Attributes:
        name: as in its DialectSpec.
        capabilities: filled in from its DialectSpec.
        nulls_need_order: whether NULLS FIRST and LAST must be written to get the common order.
        aborts_on_error: whether a failed statement spoils its transaction, so that only a savepoint can save the rest.
        numbers_apart: whether generated ids come from a counter that must be told (`numbered`) of ids callers choose.
        references_ahead: whether a table may be created with a foreign key to one that is not there yet.
    """

    name: ClassVar[str] = ""
    capabilities: Mapping[str, str] = {}
    nulls_need_order: ClassVar[bool] = False
    aborts_on_error: ClassVar[bool] = True
    numbers_apart: ClassVar[bool] = False
    references_ahead: ClassVar[bool] = False
    isolation_levels: ClassVar[tuple[str, ...]] = (
        "READ_UNCOMMITTED",
        "READ_COMMITTED",
        "REPEATABLE_READ",
        "SERIALIZABLE",
    )

    # -- connections ---------------------------------------------------------------------------------------------
    def connect(self, url: "DatabaseURL", config: "Config") -> Database:
        """Return the connections for a URL; opens nothing yet. Raises ConfigurationError for a bad URL."""
        raise NotImplementedError

    def trial(self, url: "DatabaseURL", config: "Config") -> "Trial":
        """Return the connections of a DataFlow in tdd mode: as usual, but for what they leave behind, which is nothing.

        By default one connection, whose transaction is rolled back in the end (savepoints are needed). A dialect that
        can copy its database cheaply overrides it.
        """
        from dataflow.trial import TrialDatabase

        refuse_unsupported(self, "savepoints")
        inner = self.connect(url, config)
        return TrialDatabase(inner, self.begin(None, write=True), config, aborts_on_error=self.aborts_on_error)

    def identity(self, url: "DatabaseURL") -> str:
        """Return a text that two URLs share exactly if they mean one database; "" if never shared."""
        raise NotImplementedError

    # -- the compiler ---------------------------------------------------------------------------------------------
    @cached_property
    def sqlalchemy(self) -> "SQLAlchemyDialect":
        """The SQLAlchemy dialect that compiles statements, with the driver's parameter style."""
        raise NotImplementedError

    def quote(self, identifier: str) -> str:
        """Quote an identifier, always."""
        return self.sqlalchemy.identifier_preparer.quote_identifier(identifier)

    def table_name(self, name: str) -> str:
        """Write a table's name as statements on rows do; with its schema, where SQL of the user's own is confined."""
        return self.quote(name)

    def placeholder(self, position: int) -> str:
        """Return how parameter number `position` (from 1) is written in the driver's style."""
        raise NotImplementedError

    # -- types ----------------------------------------------------------------------------------------------------
    def column_type(self, field: t.FieldType) -> "TypeEngine[Any]":
        """Return the column type for a storage kind."""
        raise NotImplementedError

    def encoder(self, field: t.FieldType) -> Convert | None:
        """Return what turns an accepted value (never None) into the driver's; None for identity."""
        raise NotImplementedError

    def column_encoder(self, field: t.FieldType) -> "Callable[[list[Any]], list[Any]] | None":
        """Return what does to a list of accepted values (none of them None) what `encoder` does to one, but faster.

        None: `encoder` is called for each.
        """
        del field
        return None

    def decoder(self, field: t.FieldType) -> Convert | None:
        """Return what turns the driver's value (never None) into the accepted form; None for identity."""
        raise NotImplementedError

    def encode_any(self, value: Any) -> Any:
        """Turn a Python value of the user's own SQL into the driver's, by its Python type."""
        raise NotImplementedError

    def refused_any(self, value: Any) -> str:
        """Return why a value of the user's own SQL cannot be stored, or ""."""
        del value
        return ""

    # -- schema ---------------------------------------------------------------------------------------------------
    def table_options(self, model: "ModelSpec") -> dict[str, Any]:
        """Return keyword arguments for ``sqlalchemy.Table``."""
        del model
        return {}

    def column_options(self, field: "FieldSpec", check: str) -> dict[str, Any]:
        """Return keyword arguments for ``sqlalchemy.Column``: server_default, autoincrement … `check`: table name."""
        raise NotImplementedError

    def checks(self, field: "FieldSpec") -> "list[str]":
        """Return CHECK conditions for a field, as SQL text with quoted identifiers."""
        del field
        return []

    def set_null_of(self, column: str) -> str | None:
        """Return the ON DELETE action that sets one column of a composite foreign key to NULL, and leaves the others.

        None where the database sets all or none: then `nulling` is asked for a trigger that does it.
        """
        del column
        return None

    def nulling(self, name: str, child: str, columns: Sequence[str], parent: str, remotes: Sequence[str]) -> str:
        """Return the statement that creates a trigger, for databases without `set_null_of`.

        Before a row of `parent` is deleted, it sets the last of `columns` to NULL in the rows of `child` that refer to
        the row by them.
        """
        del name, child, columns, parent, remotes
        raise self._cannot("set_null_of_one_column")

    def create_database(self, name: str) -> Program[None]:
        """Create a database on the server unless it exists; nothing to do where opening a database creates it."""
        del name
        yield from ()

    def list_tables(self) -> Program[list[str]]:
        """List the users' tables, sorted."""
        raise NotImplementedError

    def list_columns(self, table: str) -> Program[list[ColumnInfo]]:
        """List the columns of a table; empty if there is no such table."""
        raise NotImplementedError

    def list_indexes(self, table: str) -> Program[list[str]]:
        """List the names of the indexes of a table."""
        raise NotImplementedError

    def schema_lock(self) -> Program[None]:
        """Hold off other processes that create tables, until the transaction ends."""
        raise NotImplementedError

    def before_tables(self, models: "Sequence[ModelSpec]") -> Program[None]:
        """Create what tables need before they can be created: schemas, types. Runs under the schema lock."""
        del models
        yield from ()

    # -- transactions ---------------------------------------------------------------------------------------------
    def begin(self, isolation: str | None, *, write: bool) -> Command:
        """Return the command that opens a transaction."""
        raise NotImplementedError

    # -- what the database itself watches over --------------------------------------------------------------------
    def enter(self, session: Session, context: Mapping[str, str]) -> Program[None]:
        """Let a connection know of the call it serves, and note it in ``session.context``.

        Args:
            session: the leased connection.
            context: tenant, actor, run, node; what is not named stays as it was.

        Raises:
            ConfigurationError: something else is named (`refuse_unknown_context`).
        """
        del session, context
        raise self._cannot("context")
        yield  # a program

    def sealed(self, session: Session, step: Step) -> Program[Any]:
        """Send a statement so that the database refuses it if it writes (DatabaseError, code "read-only").

        A program that is cancelled meanwhile may only roll back: the session's release lifts what is left of a seal.
        """
        del session, step
        raise self._cannot("read_only")
        yield

    def shielded(self, session: Session, step: Step, denies: Callable[[str, str, str], bool]) -> Program[Any]:
        """Send a statement; where the database can, it asks ``denies(effect, table, column)`` about each change.

        `effect` is create, update or delete. What is denied is a DatabaseError with the code "denied". Here nothing is
        asked.
        """
        del session, denies
        return (yield step)

    def enclosed(self, model: "ModelSpec") -> Program[bool]:
        """Tell whether the database keeps the rows of a model within its scope, whatever SQL is sent."""
        del model
        raise self._cannot("confinement")
        yield

    def enclose(self, model: "ModelSpec") -> Program[None]:
        """Let the database keep the rows of a model within its scope; of one without scope, let everybody use it."""
        del model
        raise self._cannot("confinement")
        yield

    def enforcement_problems(self, models: "Sequence[ModelSpec]") -> Program[list[str]]:
        """List what the database lacks to keep the rows of models within their scopes by itself."""
        problems = []
        for model in models:
            if not (yield from self.enclosed(model)):
                problems.append(f"{model.table}: nothing keeps SQL of the user's own within {', '.join(model.scope)}")
        return problems

    def watched(self, model: "ModelSpec", masked: "Sequence[str]") -> Program[bool]:
        """Tell whether triggers write every change of a model's rows to the change log, as its columns are now.

        What the log itself is, and how it is read: `dataflow.changelog`.
        """
        del model, masked
        raise self._cannot("change_log")
        yield

    def watch(self, model: "ModelSpec", masked: "Sequence[str]") -> Program[None]:
        """Create the change log if need be, and the triggers that write every change of a model's rows to it.

        Args:
            model: the model.
            masked: fields of which the log tells that they changed, never their values.
        """
        del model, masked
        raise self._cannot("change_log")
        yield

    def grants(self, wanted: RolePrivileges) -> Program[list[str]]:
        """Return the statements that give a role exactly these privileges, whatever it had, and reading.

        With them comes what the framework itself needs under such a role: its own tables, counters of ids.

        Raises:
            ConfigurationError: there is no such role, or it is one that nothing can be kept from.
            SchemaError: a table is not there.
        """
        del wanted
        raise self._cannot("grants")
        yield

    def privileges(self, tables: Sequence[str], role: str | None = None) -> Program[RolePrivileges]:
        """Look up what a role may do with tables, by whatever way: its own privileges, everybody's, other roles'.

        Args:
            tables: their names.
            role: None for that of the connection.
        """
        del tables, role
        raise self._cannot("grants")
        yield

    def _cannot(self, capability: str) -> NotYetAvailable:
        reason = support(self, capability).reason or f"use a database whose dialect provides {capability}"
        return NotYetAvailable(f"{self.name} does not support {capability}", hint=reason, code="unsupported")

    # -- expressions ----------------------------------------------------------------------------------------------
    def comparable(self, column: "ColumnElement[Any]", field: t.FieldType) -> "ColumnElement[Any]":
        """Return what to order and compare by: code points for text, numeric order for Decimal.

        What it is compared with has its type, whose ``bind_expression`` may do to it what is done to the column here.
        """
        del field
        return column

    def returned(self, column: "ColumnElement[Any]", field: t.FieldType) -> "ColumnElement[Any]":
        """Return what RETURNING lists for a column."""
        del field
        return column

    def in_list(
        self, column: "ColumnElement[Any]", field: t.FieldType, encode: Convert, bind: Bind, size: int
    ) -> "ColumnElement[bool]":
        """``column IN (…)`` for an operand that is a list without None; `size` is the bucket it falls into."""
        raise NotImplementedError

    def text_match(self, op: str, column: "ColumnElement[Any]", bind: Bind) -> "ColumnElement[bool]":
        """`op`: $like $ilike $regex $iregex $startswith $endswith $contains, on a text column."""
        raise NotImplementedError

    def list_match(
        self, op: str, column: "ColumnElement[Any]", field: t.FieldType, encode: Convert, bind: Bind
    ) -> "ColumnElement[bool]":
        """`op`: $contains (an element) or $overlap (a list), on an array column."""
        raise NotImplementedError

    def json_match(
        self, op: str, column: "ColumnElement[Any]", path: Sequence[str], kind: str, bind: Bind
    ) -> "ColumnElement[bool]":
        """Compare a JSON document (empty path) or a member.

        `kind`: str number bool null json, of the operand; for `$in`, a list, of every element (str number json).
        """
        raise NotImplementedError

    def arithmetic(
        self, op: str, column: "ColumnElement[Any]", field: t.FieldType, operand: type, bind: Bind
    ) -> "ColumnElement[Any]":
        """`op`: $inc $dec $multiply $divide $min $max. Nothing is rounded silently; `operand` is the Python type."""
        raise NotImplementedError

    def append(
        self, column: "ColumnElement[Any]", field: t.FieldType, encode: Convert, bind: Bind
    ) -> "ColumnElement[Any]":
        """Return the list or JSON array in `column` with one element more."""
        raise NotImplementedError

    def aggregate(
        self, op: str, column: "ColumnElement[Any] | None", field: t.FieldType | None
    ) -> "ColumnElement[Any]":
        """`op`: $sum $avg $min $max $count $count_distinct; column None counts rows."""
        raise NotImplementedError

    # -- bulk -----------------------------------------------------------------------------------------------------
    def insert(self, table: "sa.Table") -> Any:
        """Return an INSERT construct that knows ``on_conflict_do_update`` and ``on_conflict_do_nothing``."""
        raise NotImplementedError

    def created(self, table: "sa.Table") -> "ColumnElement[Any] | None":
        """Return what RETURNING of an upsert lists as true for a row that was created, false for one that was changed.

        None where the database cannot tell: then the keys are looked up beforehand, which needs a dialect whose write
        transactions exclude each other.
        """
        del table
        return None

    def numbered(self, table: str, column: str, highest: int) -> Program[None]:
        """Let the counter of a generated column go on after `highest`, which the caller chose."""
        del table, column, highest
        yield from ()

    def number_rows(self, insert: "Insert", rows: "Sequence[Sequence[Any]]") -> "Program[Sequence[Sequence[Any]]]":
        """Give encoded rows that leave their id open, among others that do not, the ids they get, before the writing.

        Only a dialect whose counter goes on when a statement is undone needs it: a second attempt gets the same ids.
        """
        del insert
        yield from ()
        return rows

    def insert_many(self, insert: "Insert", rows: "Rows", most_parameters: int) -> Program[tuple[int, list[Any]]]:
        """Insert rows; return (rows written, RETURNING rows in input order).

        `most_parameters`: what the leased connection allows per statement.
        """
        raise NotImplementedError

    def with_rows(self, joined: "Joined", rows: "Rows", most_parameters: int) -> Program[list[Any]]:
        """Run a statement on rows, some hundred at a time; return the replies.

        Here as ``WITH dataflow_rows(c0, …) AS (VALUES (…), …)`` before the statement.
        """
        width, own = len(joined.types), len(joined.arguments)
        most = (most_parameters - own) // width
        size = max(1, min(joined.batch_size or JOINED_AT_ONCE, JOINED_AT_ONCE, most))
        numbered = self.placeholder(1) != self.placeholder(2)
        full = attrs.evolve(joined.command, sql=self._joined_text(joined, min(size, len(rows))))
        replies = []
        for start in range(0, len(rows), size):
            count = min(size, len(rows) - start)
            last = full if count == size or not start else attrs.evolve(full, sql=self._joined_text(joined, count))
            values = interleaved(rows.columns(start, start + count), count)
            arguments = [*joined.arguments, *values] if numbered else [*values, *joined.arguments]
            replies.append((yield last, arguments))
        return replies

    def _joined_text(self, joined: "Joined", count: int) -> str:
        names = ", ".join(f"c{place}" for place in range(len(joined.types)))
        places = itertools.count(len(joined.arguments) + 1)
        groups = ", ".join(
            f"({', '.join(self.typed_placeholder(next(places), kind) for kind in joined.types)})" for _ in range(count)
        )
        return f"WITH {ROWS_TABLE}({names}) AS (VALUES {groups}) {joined.command.sql}"

    def typed_placeholder(self, position: int, kind: "TypeEngine[Any]") -> str:
        """Return a placeholder in a list of values, with a cast where the database needs one to know its type."""
        del kind
        return self.placeholder(position)


CONTEXT_NAMES = ("tenant", "actor", "run", "node")
"""What connections know of a call."""


def refuse_unknown_context(context: Mapping[str, str]) -> None:
    """Raise if a context names what connections know nothing of.

    Raises:
        ConfigurationError: with what may be named.
    """
    unknown = context.keys() - set(CONTEXT_NAMES)
    if unknown:
        msg = f"connections know nothing called {', '.join(sorted(unknown))}"
        raise ConfigurationError(msg, hint=f"name {', '.join(CONTEXT_NAMES)}", code="bad-parameter")


JOINED_AT_ONCE = 250
"""Rows that a statement takes as a list of values: more cost more each."""


@attrs.frozen
class Support:
    """How well a dialect supports something, parsed from its declaration."""

    level: str
    reason: str = ""


def support(dialect: Dialect, capability: str) -> Support:
    """Look a capability up; undeclared means full."""
    level, _, reason = dialect.capabilities.get(capability, "full").partition(":")
    return Support(level.strip(), reason.strip())


def refuse_unsupported(dialect: Dialect, capability: str) -> None:
    """Raise if a dialect declares a capability unsupported.

    Raises:
        NotYetAvailable: naming the reason the dialect gives.
    """
    found = support(dialect, capability)
    if found.level == "unsupported":
        msg = f"{dialect.name} does not support {capability}"
        raise NotYetAvailable(msg, hint=found.reason or "use another database", code="unsupported")


__all__ = [
    "CONTEXT_NAMES",
    "COPY",
    "COUNT",
    "MANY",
    "ROWS",
    "ROWS_TABLE",
    "STANDING",
    "Bind",
    "ColumnInfo",
    "Command",
    "Convert",
    "DataFlowError",
    "Database",
    "Dialect",
    "Insert",
    "Joined",
    "Program",
    "RolePrivileges",
    "Rows",
    "Session",
    "Step",
    "TablePrivileges",
    "Trial",
    "interleaved",
    "refuse_unknown_context",
    "refuse_unsupported",
    "support",
]
