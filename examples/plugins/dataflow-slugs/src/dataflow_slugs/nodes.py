"""{Model}BySlugNode and {Model}ReslugNode, built on the model's own read and update."""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from dataflow.dialect import Program
from dataflow.operations import Operation, OperationKind
from dataflow.plan.derived import settle
from dataflow.plan.operation import ModelOperation, Result
from dataflow.plugins import Parameter
from dataflow.session import Call

from dataflow_slugs.feature import SLUG, Slugs
from dataflow_slugs.words import is_slug

_STRICT = Parameter("raise_on_not_found", "bool", default=False, doc="Raise NotFoundError instead.")
BY_SLUG = OperationKind(
    "by_slug",
    "BySlugNode",
    "dataflow_slugs.nodes:BySlug",
    (
        Parameter("slug", "str", required=True, doc="The slug of the record."),
        Parameter("include", "list[str]", doc="Relations to load along."),
        Parameter("fields", "list[str]", doc="Only these fields."),
        _STRICT,
    ),
    outputs=("found",),
    record=True,
    writes=False,
    doc="Return the record with that slug.",
)
RESLUG = OperationKind(
    "reslug",
    "ReslugNode",
    "dataflow_slugs.nodes:Reslug",
    (Parameter("id", "key", required=True, doc="Key of the record. `record_id` is the same."), _STRICT),
    outputs=("updated",),
    record=True,
    doc="Give a record the slug that fits what it says now.",
)


class BySlug(ModelOperation):
    """Return one record by its slug."""

    name: ClassVar[str] = "by_slug"
    described = BY_SLUG

    def program(self, params: Mapping[str, Any], call: Call) -> Program[dict[str, Any]]:
        """Read it; text that is no slug is nobody's."""
        _, options = self.split(params)
        self.shaped(options, call)
        slug = options.pop(SLUG, None)
        if not isinstance(slug, str):
            msg = "by_slug takes a slug"
            raise self.fault(msg, "give slug='…'")
        conditions = {SLUG: slug if is_slug(slug) else {"$in": []}}
        passed = {f"_{name}": value for name, value in options.items()}
        read: Operation = self.bound.operation("read")
        return (yield from read.program({"_conditions": conditions, **passed}, call))


class Reslug(ModelOperation):
    """Derive a record's slug anew."""

    name: ClassVar[str] = "reslug"
    described = RESLUG

    def program(self, params: Mapping[str, Any], call: Call) -> Program[dict[str, Any]]:
        """Read the record, and change its slug unless it still fits."""
        _, options = self.split(params)
        self.shaped(options, call)
        key, _ = self.target(options, "conditions")
        strict = {"_raise_on_not_found": self.flag(options, "raise_on_not_found")}
        found = yield from self.bound.operation("read").program({"_id": key, **strict}, call)
        if not found["_status"]["found"]:
            return Result(key, {"updated": 0})
        slugs = next(feature for feature in self.bound.features if isinstance(feature, Slugs))
        if re.fullmatch(rf"{re.escape(slugs.base(found))}(-[0-9]+)?", found[SLUG]):
            return Result({name: found[name] for name in self.bound.fields}, {"updated": 0})

        def change(records: list[dict[str, Any]]) -> Program[dict[str, Any]]:
            update: Operation = self.bound.operation("update")
            return update.program({"_id": key, "_values": {SLUG: records[0][SLUG]}}, call)

        texts = {name: found[name] for name in slugs.sources}
        return (yield from settle({SLUG: partial(slugs.derive, self.bound)}, call, [texts], change))
