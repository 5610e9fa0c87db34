"""Changes -> steps: finds who writes which."""

from collections.abc import Callable, Mapping, Sequence

from dataflow.catalog import Catalog
from dataflow.changes import Change, Step
from dataflow.errors import SchemaError
from dataflow.postgres.migration import columns, keys, objects, tables
from dataflow.postgres.migration.draft import Draft, Server

_WRITERS: Mapping[str, Callable[[Draft, Change], None]] = {
    function.__name__: function
    for function in (
        tables.create_table, tables.drop_table, tables.rename_table, tables.alter_table,
        columns.add_column, columns.alter_column, columns.drop_column, columns.rename_column,
        keys.add_constraint, keys.alter_constraint, keys.drop_constraint, keys.rename_constraint,
        keys.create_index, keys.drop_index, keys.rename_index,
        objects.create_view, objects.drop_view, objects.alter_view,
        objects.create_trigger, objects.drop_trigger, objects.alter_trigger,
        objects.create_policy, objects.drop_policy, objects.alter_policy,
        objects.create_function, objects.drop_function, objects.alter_function,
        objects.create_sequence, objects.drop_sequence, objects.alter_sequence,
        objects.rename_sequence,
        objects.create_enum, objects.drop_enum, objects.alter_enum,
    )
}  # fmt: skip


def steps(
    found: Catalog, wanted: Catalog, changes: Sequence[Change], *, quote: Callable[[str], str], server: Server
) -> list[Step]:
    """Return the steps that make the changes, in their order.

    Raises:
        SchemaError: a change cannot be made.
    """
    draft = Draft(found, wanted, changes, quote=quote, server=server)
    for change in changes:
        writer = _WRITERS.get(change.kind)
        if writer is None:
            raise SchemaError(
                f"PostgreSQL knows no change {change.kind!r}", hint="see dataflow.changes", code="cannot-alter"
            )
        writer(draft, change)
    return draft.steps
