"""The operations every model gets: their names, parameters, results, and where each is implemented.

One row per operation; the node generator, the express API, the command line and the documentation read this table.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import attrs

from dataflow.dialect import Program
from dataflow.errors import Problem
from dataflow.plugins.specs import NodeSpec, Parameter
from dataflow.session import Call


class Operation(Protocol):
    """An operation on one bound model. Plugins implement it for node types of their own.

    Attributes:
        name: as in its NodeSpec.
        writes: whether it needs the writer.
    """

    name: str
    writes: bool

    def check(self, params: Mapping[str, Any], *, partial: bool) -> list[Problem]:
        """Return every fault of the parameters; `partial`: others will come by connections."""
        ...

    def missing(self, names: "set[str]") -> list[str]:
        """Return the required inputs that are not among `names`."""
        ...

    def program(self, params: Mapping[str, Any], call: Call) -> Program[dict[str, Any]]:
        """Return the program that carries the operation out."""
        ...


P = Parameter
_FILTER = P("filter", "dict", doc="Filter document; all records when empty.")
_KEY = P("id", "key", doc="Key of the record; a tuple or dict for a composite key. `record_id` is the same.")
_CONDITIONS = P("conditions", "dict", doc="Filter document instead of a key.")
_INCLUDE = P("include", "list[str]", doc="Relations to load along, dotted for deeper ones.")
_PROJECTION = P("fields", "list[str]", doc="Only these fields.")
_SORT = (
    P("sort", "list", doc="[{'field': 1 or -1}], ['-field'], 'field'; every sort ends in the primary key."),
    P("order_by", "list", doc="The same as `sort`."),
)
_DATA = P("data", "list[dict]", required=True, doc="The rows.")
_BATCH = P(
    "batch_size",
    "int",
    doc="Most rows per statement. By default the setting bulk_batch_size, and all rows where the database loads them.",
)
_IDS = P("return_ids", "bool", default=False, doc="Return the keys, in input order.")


@attrs.frozen
class OperationKind:
    """One operation that core generates for every model.

    Attributes:
        name: as in the express API.
        suffix: what follows the model in the node type.
        implementation: reference to the class.
        parameters: options besides fields.
        takes_fields: fields as inputs: "" none, "values" all, "changes" all but the key, "defaults" for all rows.
        outputs: keys of the result besides the record's fields.
        record: whether the result is a record.
        writes: whether it changes data.
        doc: one sentence.
    """

    name: str
    suffix: str
    implementation: str
    parameters: tuple[Parameter, ...] = ()
    takes_fields: str = ""
    outputs: tuple[str, ...] = ()
    record: bool = False
    writes: bool = True
    doc: str = ""

    def node(self, model: str, fields: tuple[Parameter, ...], names: tuple[str, ...]) -> NodeSpec:
        """Return the node type of a model."""
        outputs = (*(names if self.record else ()), *self.outputs)
        return NodeSpec(
            f"{model}{self.suffix}",
            self.name,
            self.implementation,
            model,
            (*fields, *self.parameters),
            tuple(dict.fromkeys(outputs)),
            self.writes,
            self.doc,
        )


KINDS = (
    OperationKind(
        "create",
        "CreateNode",
        "dataflow.plan.write:Create",
        (P("values", "dict", doc="Fields as one dict; the escape for names that collide."),),
        "values",
        (),
        record=True,
        doc="Insert one record and return it as stored.",
    ),
    OperationKind(
        "read",
        "ReadNode",
        "dataflow.plan.read:Read",
        (
            _KEY,
            _CONDITIONS,
            P("raise_on_not_found", "bool", default=False, doc="Raise NotFoundError instead."),
            _INCLUDE,
            _PROJECTION,
        ),
        "",
        ("found",),
        record=True,
        writes=False,
        doc="Return one record by key or conditions.",
    ),
    OperationKind(
        "update",
        "UpdateNode",
        "dataflow.plan.write:Update",
        (
            _KEY,
            _CONDITIONS,
            P("filter", "dict", doc="The same as `conditions`."),
            P("values", "dict", doc="Changed fields as one dict."),
            P("fields", "dict", doc="The same as `values`."),
            P("raise_on_not_found", "bool", default=False, doc="Raise NotFoundError instead."),
        ),
        "changes",
        ("updated",),
        record=True,
        doc="Change a record and return it as stored.",
    ),
    OperationKind(
        "delete",
        "DeleteNode",
        "dataflow.plan.write:Delete",
        (_KEY, _CONDITIONS, P("soft_delete", "bool", default=False, doc="Needs the feature soft_delete.")),
        "",
        ("deleted", "id"),
        doc="Remove a record.",
    ),
    OperationKind(
        "list",
        "ListNode",
        "dataflow.plan.read:List",
        (
            _FILTER,
            *_SORT,
            P("limit", "int", doc="Most records to return; all by default."),
            P("offset", "int", default=0, doc="Records to skip."),
            _PROJECTION,
            _INCLUDE,
            P("count_only", "bool", default=False, doc="Only count."),
            P("include_total", "bool", default=False, doc="Count all matches too."),
            P("cursor", "str", doc="next_cursor of the page before (keyset paging)."),
        ),
        "",
        ("records", "count", "total", "limit", "offset", "has_more", "next_cursor"),
        writes=False,
        doc="Return the records that match a filter, sorted and paged.",
    ),
    OperationKind(
        "count",
        "CountNode",
        "dataflow.plan.read:Count",
        (_FILTER,),
        "",
        ("count",),
        writes=False,
        doc="Count the records that match a filter.",
    ),
    OperationKind(
        "aggregate",
        "AggregateNode",
        "dataflow.plan.aggregate:Aggregate",
        (
            _FILTER,
            P("group_by", "list[str]", doc="Fields to group by."),
            P(
                "aggregate",
                "dict",
                required=True,
                doc="{'name': {'$sum' | '$avg' | '$min' | '$max' | '$count' | '$count_distinct': field or '*'}}",
            ),
            P("having", "dict", doc="Filter on groups: comparisons of aggregates and group fields."),
            *_SORT,
            P("limit", "int", doc="Most groups to return."),
        ),
        "",
        ("groups",),
        writes=False,
        doc="Compute sums, averages, counts … per group.",
    ),
    OperationKind(
        "upsert",
        "UpsertNode",
        "dataflow.plan.upsert:Upsert",
        (
            P("where", "dict", required=True, doc="Values of a unique key."),
            P("create", "dict", doc="More fields for a new record."),
            P("update", "dict", doc="Changes for an existing one; `create` by default."),
            P("conflict_on", "list[str]", doc="The unique key; the fields of `where` by default."),
        ),
        "",
        ("created",),
        record=True,
        doc="Update the record with that key, or create it.",
    ),
    OperationKind(
        "bulk_create",
        "BulkCreateNode",
        "dataflow.plan.bulk_create:BulkCreate",
        (
            _DATA,
            _BATCH,
            P(
                "conflict_resolution",
                "str",
                default="error",
                doc="On an existing key: error, skip or upsert.",
                choices=("error", "skip", "upsert"),
            ),
            P("key_fields", "list[str]", doc="The unique key an upsert goes by."),
            _IDS,
            P(
                "on_error",
                "str",
                default="stop",
                doc="A bad row: stop (nothing is written), skip, or collect (report it).",
                choices=("stop", "skip", "collect"),
            ),
            P("commit_every", "int", doc="Rows per transaction, instead of one transaction for all."),
        ),
        "defaults",
        ("created", "updated", "skipped", "total", "ids", "errors", "committed"),
        doc="Insert many records.",
    ),
    OperationKind(
        "bulk_update",
        "BulkUpdateNode",
        "dataflow.plan.bulk_change:BulkUpdate",
        (
            _FILTER,
            P("update", "dict", doc="Changes for all matches."),
            P("data", "list[dict]", doc="Rows with their key instead, each its own changes."),
            P("limit", "int", doc="Most records to change, in key order."),
            _IDS,
            _BATCH,
            P(
                "on_error",
                "str",
                default="stop",
                doc="A row of data that expects another version: stop (nothing is written), or collect (report it).",
                choices=("stop", "collect"),
            ),
        ),
        "",
        ("updated", "total", "ids", "missing", "conflicts"),
        doc="Change many records, by filter or row by row.",
    ),
    OperationKind(
        "bulk_delete",
        "BulkDeleteNode",
        "dataflow.plan.bulk_change:BulkDelete",
        (
            _FILTER,
            P("ids", "list", doc="Keys instead of a filter."),
            P("limit", "int", doc="Most records to remove, in key order."),
            P("confirmation_required", "bool", default=False, doc="Only count, unless confirmed."),
            P("confirmed", "bool", default=False, doc="Needed for an empty filter too."),
            _IDS,
            P("soft_delete", "bool", default=False, doc="Needs the feature soft_delete."),
        ),
        "",
        ("deleted", "ids", "would_delete", "confirmation_required"),
        doc="Remove many records.",
    ),
    OperationKind(
        "bulk_upsert",
        "BulkUpsertNode",
        "dataflow.plan.bulk_upsert:BulkUpsert",
        (
            _DATA,
            P("key_fields", "list[str]", doc="The unique key; the one unique index, or the primary key, by default."),
            _BATCH,
            _IDS,
            P(
                "on_duplicate",
                "str",
                default="error",
                doc="The same key twice in `data`: error, or last wins.",
                choices=("error", "last"),
            ),
            P("commit_every", "int", doc="Rows per transaction, instead of one transaction for all."),
        ),
        "defaults",
        ("created", "updated", "skipped", "total", "ids", "errors", "committed"),
        doc="Create or update many records by a unique key.",
    ),
)
BY_NAME: Mapping[str, OperationKind] = {kind.name: kind for kind in KINDS}
