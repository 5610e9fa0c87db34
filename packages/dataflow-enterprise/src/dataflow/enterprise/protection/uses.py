"""What every way of writing to a model needs of the database, and what the policy is asked about it.

A use is one way: an operation on one field, say. It needs privileges, all of them: for the columns that the caller
gives or changes, and for those that the framework sets by itself, which plans tell.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import sqlalchemy as sa

from dataflow.enterprise.protection.decision import Request
from dataflow.enterprise.protection.feature import cascades, labels_of, requests
from dataflow.fields import ForeignKey
from dataflow.plan.builder import PlanBuilder
from dataflow.plan.changes import defaults, touch
from dataflow.plan.upsert import idle_column

if TYPE_CHECKING:
    from dataflow.plan.bound import BoundModel

Need = tuple[str, str]
"""("insert" or "update", column), or ("delete", "")."""
DELETE: Need = ("delete", "")
_HARD = "soft_delete"
"""The option by which a delete removes what it would mark otherwise."""


@attrs.frozen
class Use:
    """One way of writing.

    Attributes:
        operation: its name.
        needs: the privileges without any of which the database refuses it.
        requests: what the policy has to permit, all of it.
        done: what it does, where the policy is asked about more, for the text of SQL does not tell.
    """

    operation: str
    needs: frozenset[Need]
    requests: tuple[Request, ...]
    done: tuple[Request, ...] = attrs.field()

    @done.default
    def _as_asked(self) -> tuple[Request, ...]:
        return self.requests


def uses_of(model: "BoundModel") -> list[Use]:
    """Return every use of a model."""
    return list(_Uses(model).all())


class _Uses:
    """Finds the uses of one model."""

    def __init__(self, model: "BoundModel") -> None:
        self.model = model
        self.labels = labels_of(model.core)
        self.offered = {node.operation for node in model.nodes.values()}
        spec = model.spec
        self.columns = (*spec.fields, *(hidden.name for hidden in spec.hidden))
        self.given = [name for name, field in spec.fields.items() if not field.kept]
        self.changed = [name for name in self.given if name not in spec.primary_key]
        self.required = tuple(name for name, field in spec.fields.items() if field.required)
        self.keys = [key for key in spec.unique_keys if set(key) <= set(self.given)]

    def all(self) -> Iterator[Use]:
        for operation in ("create", "bulk_create"):
            yield from self._creating(operation)
        for operation in ("upsert", "bulk_upsert"):
            yield from self._upserting(operation)
        yield from self._updating()
        yield from self._deleting()
        yield from self._by_sql()

    def _asked(self, operation: str, statement: str, fields: Sequence[str] = ()) -> tuple[Request, ...]:
        return tuple(requests(self.model.name, operation, statement, tuple(fields), self.labels))

    def _set(self, operation: str, statement: str, options: Mapping[str, Any] | None = None) -> PlanBuilder:
        """Return a plan in which features and the framework have set what they set by themselves."""
        plan = PlanBuilder(self.model, operation, statement, options=options).apply_features()
        if statement == "insert":
            defaults(plan, set())
        elif statement == "update":
            touch(plan)
        return plan

    def _inserted(self, operation: str) -> set[str]:
        plan = self._set(operation, "insert")
        counter = self.model.spec.counter
        reserved = {counter} if counter and operation.startswith("bulk_") else set()  # ids that are to be returned
        return {*plan.sets, *plan.derivations, *reserved}

    def _marked(self, plan: PlanBuilder) -> set[str]:
        """Return the columns that tell whether a record lives, with those that go with every change."""
        spec = self.model.spec
        return {*plan.sets, *(hidden.name for hidden in spec.hidden), *([spec.ends] if spec.ends else [])}

    def _creating(self, operation: str) -> Iterator[Use]:
        if operation not in self.offered:
            return
        own = self._inserted(operation)
        for more in [[], *([name] for name in self.given)]:
            given = dict.fromkeys((*self.required, *more))
            yield Use(operation, _needs(insert={*own, *given}), self._asked(operation, "insert", [*given]))

    def _upserting(self, operation: str) -> Iterator[Use]:
        if operation not in self.offered:
            return
        own, follows = self._inserted(operation), set(self._set(operation, "update").sets)
        bulk = operation == "bulk_upsert"
        for key in self.keys:
            for more in [[], *([name] for name in self.given)]:
                given = dict.fromkeys((*self.required, *key, *more))
                inserting = self._asked(operation, "insert", [*given])
                if bulk:
                    yield from self._bulk_upserting(own, follows, key, [*given], inserting)
                    continue
                needs, idle = {*own, *given}, self._idle(key)
                yield Use(operation, _needs(insert=needs, update={idle}), (*inserting, *self._idly(idle)))
                for name in more:
                    if name in self.changed and name not in key:
                        changing = self._asked(operation, "update", [name])
                        least = dict.fromkeys((*self.required, *key))
                        asked = (*self._asked(operation, "insert", [*least]), *changing)
                        yield Use(operation, _needs(insert={*own, *least}, update={*follows, name}), asked)

    def _bulk_upserting(
        self, own: set[str], follows: set[str], key: Sequence[str], given: list[str], inserting: tuple[Request, ...]
    ) -> Iterator[Use]:
        """Yield the use that gives these fields: the same are changed where the record is there, but for the key."""
        changed = [name for name in given if name not in key]
        written = {*follows, *(name for name in changed if name in self.changed)} or {self._idle(key)}
        asked = (*inserting, *self._asked("bulk_upsert", "update", changed))
        yield Use("bulk_upsert", _needs(insert={*own, *given}, update=written), asked)

    def _idle(self, key: Sequence[str]) -> str:
        return idle_column(self.model, key)

    def _idly(self, column: str) -> tuple[Request, ...]:
        """Return what an upsert that changes nothing asks; to write a key onto itself, it may have to be changed."""
        if self.model.spec.fields[column].write:
            return self._asked("upsert", "select")
        return self._asked("upsert", "update", [column])

    def _updating(self) -> Iterator[Use]:
        for operation in ("update", "bulk_update"):
            if operation in self.offered:
                follows = set(self._set(operation, "update").sets)
                for name in self.changed:
                    yield Use(operation, _needs(update={*follows, name}), self._asked(operation, "update", [name]))
        if "restore" in self.offered:
            marks = self._marked(self._set("restore", "update"))
            yield Use("restore", _needs(update=marks), self._asked("restore", "update"))

    def _deleting(self) -> Iterator[Use]:
        cascading = tuple(cascades(self.model, self.labels))
        for operation in ("delete", "bulk_delete"):
            if operation not in self.offered:
                continue
            asked = self._asked(operation, "delete")
            plan = self._set(operation, "delete")
            statement = None if plan.replacement is None else plan.replacement(plan)
            if isinstance(statement, sa.Update):
                ending = tuple(self._ending(self.model, {self.model.name}))
                yield Use(operation, _needs(update=self._marked(plan)), (*asked, *ending))
            if statement is None or _HARD in self.model.spec.call_options:
                yield Use(operation, frozenset({DELETE}), (*asked, *cascading))
        if "purge" in self.offered:
            yield Use("purge", frozenset({DELETE}), (*self._asked("purge", "delete"), *cascading))

    def _ending(self, model: "BoundModel", seen: set[str]) -> Iterator[Request]:
        """Yield what the framework does to other records when some of this model are marked as deleted."""
        for back in model.relations.values():
            child = model.target(back)
            declared = child.spec.fields[back.remote].relation
            if not back.many or not isinstance(declared, ForeignKey):
                continue
            if declared.on_delete == "set null":
                yield from requests(child.name, "bulk_update", "update", (back.remote,), self.labels)
            elif declared.on_delete == "cascade" and child.spec.ends:
                yield from requests(child.name, "bulk_delete", "delete", (), self.labels)
                if child.name not in seen:
                    seen.add(child.name)
                    yield from self._ending(child, seen)

    def _by_sql(self) -> Iterator[Use]:
        """Yield what SQL of the user's own may do: an INSERT need not name the columns, an UPDATE does."""
        every = self._sql("create", *self.model.spec.fields)
        for name in self.columns:
            known = [name] if name in self.model.spec.fields else []
            yield Use("sql", _needs(insert={name}), every, self._sql("create", *known))
            yield Use("sql", _needs(update={name}), self._sql("update", *known))
        yield Use("sql", frozenset({DELETE}), (*self._sql("delete"), *cascades(self.model, self.labels)))

    def _sql(self, effect: str, *fields: str) -> tuple[Request, ...]:
        return (Request("sql", effect, self.model.name, fields, self.labels),)


def _needs(*, insert: set[str] | frozenset[str] = frozenset(), update: set[str] | frozenset[str] = frozenset()) -> Any:
    return frozenset({*(("insert", name) for name in insert), *(("update", name) for name in update)})
