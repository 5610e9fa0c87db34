"""What a migration changes, the steps in which a database makes it, and what a dialect provides for both.

Migration engines find `Change`s by comparing catalogs; a dialect's `SchemaEditor` knows in which steps its database
makes them, what each locks, and how to read and build schemas. Knows no database and no model.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar

import attrs

from dataflow.catalog import Catalog
from dataflow.dialect import Program

T = TypeVar("T")
Mode = Literal["together", "apart", "outside", "batches"]
SWAPPED = "dataflow_swapped"
"""What is called so for a moment, while names are swapped."""


@attrs.frozen
class Change:
    """One difference between two catalogs.

    Attributes:
        kind: ``create_table drop_table rename_table alter_table`` (options, comment), ``add_column drop_column
            rename_column alter_column``, ``add_constraint drop_constraint rename_constraint``, ``create_index
            drop_index rename_index``, ``rename_sequence``, ``create_… drop_… alter_…`` of ``trigger policy view
            function sequence enum``.
        table: of the table (where it is renamed: the new name), or "" for what belongs to none.
        name: of the column, constraint …; of the table itself for changes of whole tables.
        before: the object of `dataflow.catalog` as it is; None for what is created.
        after: as it shall be; None for what is dropped.
        value: for a column that has to have a value: SQL expression that fills the existing rows, or None.
    """

    kind: str
    table: str
    name: str
    before: Any = None
    after: Any = None
    value: str | None = None


def renaming(pairs: Iterable[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """Return in which steps names change, so that none is taken: one for each name, but one for names that swap.

    Args:
        pairs: (old name, new name), in an order in which no name is taken, but for those that swap.

    Returns:
        For each step (old name, new name) of what it renames, in order; names that swap go by way of `SWAPPED`.
    """
    left, steps = dict(pairs), []
    while left:
        first = next(iter(left))
        names = [first]
        while left.get(names[-1], first) not in names:
            names.append(left[names[-1]])
        if left.get(names[-1]) == first and len(names) > 1:
            moves = [(first, SWAPPED), *zip(names[:0:-1], [first, *names[:1:-1]], strict=True), (SWAPPED, names[1])]
        else:
            moves = [(first, left[first])]
            names = [first]
        steps.append(moves)
        left = {old: new for old, new in left.items() if old not in names}
    return steps


@attrs.frozen
class Step:
    """One step of a plan: SQL, and what it does to the database meanwhile.

    Attributes:
        operation: its class: "add_column_nullable", "create_index_concurrently" …; risk rules go by it.
        summary: "add column users.phone (text)".
        table: the table it is about, or "".
        sql: statements, in order.
        inverse: statements that undo it; None where nothing can.
        mode: "together" with its neighbours in one transaction; "apart" in one of its own; "outside" any transaction,
            made by `SchemaEditor.perform`; in "batches", by `SchemaEditor.batch`.
        locks: table -> the strongest lock taken; empty where none is.
        rewrites: whether all rows are written anew.
        scans: whether all rows are read (indexes built, checks verified) while the locks are held.
        data_loss: "none", "possible" or "certain".
        fails_on_data: "no", or when the rows can make it fail.
        details: what `perform` and `batch` need, as JSON-able data.
    """

    operation: str
    summary: str
    table: str
    sql: tuple[str, ...]
    inverse: tuple[str, ...] | None = None
    mode: Mode = "together"
    locks: Mapping[str, str] = attrs.field(factory=dict)
    rewrites: bool = False
    scans: bool = False
    data_loss: str = "none"
    fails_on_data: str = "no"
    details: Mapping[str, Any] = attrs.field(factory=dict)


class SchemaEditor(Protocol):
    """How a dialect reads and changes schemas; `DialectSpec.schema_editor` names the class, called with the dialect.

    All programs run on one connection, with the schema at hand as it is for models (search path, privileges).

    Attributes:
        whole: whether `locked` runs its body in one transaction, so that a migration happens wholly or not at all.
    """

    whole: bool

    def inspect(self) -> Program[Catalog]:
        """Read the whole schema, without what the framework itself keeps in it (names beginning with ``dataflow_``)."""
        ...

    def desired(self, build: Program[None]) -> Program[Catalog]:
        """Run `build` (statements that create a schema from nothing) aside, read what it made, and undo it."""
        ...

    def steps(self, found: Catalog, wanted: Catalog, changes: Sequence[Change]) -> list[Step]:
        """Return the steps that make the changes, which lead from `found` to `wanted`; reads no database.

        Changes come in an order that suits databases where everything can be altered: what is in the way is dropped
        first, then tables, columns, keys, indexes, foreign keys, views, triggers are made. One step may make several
        changes, and one change may take several steps. Names of tables or columns may swap (see `renaming`).
        """
        ...

    def locked(self, body: Program[T], *, timeout: float) -> Program[T]:
        """Run a program while no other process migrates; they are waited for.

        Where the database needs it, settings of the connection are changed meanwhile, and rows are checked afterwards.

        Args:
            body: the program.
            timeout: seconds to wait.

        Raises:
            DatabaseTimeout: another process still migrates.
        """
        ...

    def clear(self, steps: Sequence[Step]) -> Program[None]:
        """Drop what the framework keeps on tables (triggers, views) where it is in the way of steps; inside `locked`.

        What features need is made anew afterwards.
        """
        ...

    def attempt(
        self, body: Program[T], *, lock_timeout: float, statement_timeout: float, transaction: bool
    ) -> Program[T]:
        """Run part of a migration, in a transaction of its own or outside any, with limits to waiting and working.

        Args:
            body: the program.
            lock_timeout: seconds to wait for a lock of a table.
            statement_timeout: seconds that a statement may take; 0 for any.
            transaction: whether it runs in one.

        Raises:
            DatabaseTimeout: with the code "lock-timeout" where a lock was not granted; nothing of `body` is done then.
        """
        ...

    def pause(self, seconds: float) -> Program[None]:
        """Wait, without holding any lock of a table."""
        ...

    def perform(self, step: Step) -> Program[None]:
        """Make a step that cannot run in a transaction; what an interrupted attempt has left is repaired first."""
        ...

    def batch(self, step: Step, cursor: Any) -> Program[tuple[int, Any]]:
        """Make the next part of a step in batches: (rows changed, the cursor to go on from; None when it is done)."""
        ...

    def backup(self, tables: Sequence[str]) -> Program[str]:
        """Copy what a migration is going to touch; return where to, in words for the history. Inside `locked`.

        Args:
            tables: names of the tables that the plan changes.
        """
        ...

    def rehearse(self, body: Program[T]) -> Program[T | None]:
        """Run a program on a copy of the schema, without rows, that is thrown away; None where there can be none."""
        ...

    def script(self, steps: Sequence[Step], *, before: Sequence[str] = (), after: Sequence[str] = ()) -> str:
        """Write steps as plain SQL for the database's own shell, with what `locked` and `perform` do around them.

        Args:
            steps: the steps.
            before: statements that let what the framework keeps on tables step aside.
            after: statements that make it anew.
        """
        ...
