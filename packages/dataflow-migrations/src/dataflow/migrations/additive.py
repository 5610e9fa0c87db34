"""Which changes DataFlow makes by itself when a model is first used: those that only add.

Tables, columns and indexes are added; nothing is dropped, rewritten or renamed. What the database has and models no
longer mention is left alone as long as models work with it, so that an older and a newer release can run side by side.
"""

from collections.abc import Callable, Iterable, Sequence

import attrs

from dataflow.catalog import Catalog, Column, Table
from dataflow.changes import Change, Step

_ADDING = {
    "create_table", "add_column", "create_index", "create_enum", "create_sequence", "create_view", "create_function",
    "create_trigger", "create_policy",
}  # fmt: skip
_LEAVING = {"drop_index", "drop_constraint", "rename_index", "rename_constraint", "drop_trigger", "drop_policy"}
_DECLARED = {"rename_table", "rename_column"}
_REPLACING = {"drop_index", "create_index"}


@attrs.frozen
class Sorted:
    """Changes by what is done about them at first use."""

    made: tuple[Change, ...]
    left: tuple[Change, ...]
    refused: tuple[Change, ...]


def sort(some: Iterable[Change], *, foreign: Callable[[Change], bool]) -> Sorted:
    """Sort changes.

    Args:
        some: the changes.
        foreign: whether a change is about what DataFlow has not made: such tables and columns only get what they lack.
    """
    listed = list(some)
    new_columns = {(c.table, c.name) for c in listed if c.kind == "add_column"}
    replaced = _named(listed, "drop_index") & _named(listed, "create_index")
    made, left, refused = [], [], []
    for change in listed:
        if change.kind in _REPLACING and (change.table, change.name) in replaced:
            refused.append(change)  # its name is taken until the other is dropped
        elif _adds(change, new_columns):
            made.append(change)
        elif change.kind in _DECLARED:
            refused.append(change)
        elif change.kind in _LEAVING or _harmless(change) or foreign(change):
            left.append(change)
        else:
            refused.append(change)
    return Sorted(tuple(made), tuple(left), tuple(refused))


def _named(changes: Iterable[Change], kind: str) -> set[tuple[str, str]]:
    return {(change.table, change.name) for change in changes if change.kind == kind}


def _adds(change: Change, new_columns: set[tuple[str, str]]) -> bool:
    if change.kind == "alter_enum":
        return bool(change.after.labels[: len(change.before.labels)] == change.before.labels)
    if change.kind == "alter_sequence":
        return bool(change.before.owner != change.after.owner)
    if change.kind == "add_constraint":  # of columns that come with it
        return change.after.kind != "primary key" and any(
            (change.table, c) in new_columns for c in change.after.columns
        )
    return change.kind in _ADDING


def _harmless(change: Change) -> bool:
    """Tell whether models work with a column that they do not mention."""
    if change.kind != "drop_column":
        return False
    column: Column = change.before
    return column.nullable or column.default is not None or column.generated is not None or bool(column.identity)


def unexpected(step: Step) -> bool:
    """Tell whether a step does more than add."""
    return step.rewrites or step.data_loss != "none"


def applied(found: Catalog, wanted: Catalog, made: Sequence[Change]) -> Catalog:
    """Return the live schema with additions, and nothing else changed."""
    tables = dict(found.tables)
    for change in made:
        if change.kind == "create_table":
            tables[change.table] = wanted.tables[change.table]
        elif change.table in tables:
            tables[change.table] = _with(tables[change.table], change)
    return attrs.evolve(
        found,
        tables=tables,
        views={**wanted.views, **found.views},
        functions={**wanted.functions, **found.functions},
        sequences={**wanted.sequences, **found.sequences},
        enums={**found.enums, **wanted.enums},
    )


def _with(table: Table, change: Change) -> Table:
    if change.kind == "add_column":
        return attrs.evolve(table, columns={**table.columns, change.name: change.after})
    if change.kind == "create_index":
        return attrs.evolve(table, indexes={**table.indexes, change.name: change.after})
    if change.kind == "add_constraint":
        return attrs.evolve(table, constraints=(*table.constraints, change.after))
    if change.kind == "create_trigger":
        return attrs.evolve(table, triggers={**table.triggers, change.name: change.after})
    return table
