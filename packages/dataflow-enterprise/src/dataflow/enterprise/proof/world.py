"""The oracle's database: rows with tenants, deletions and versions, what constraints refuse, and what is recorded.

Plain Python over lists of dicts: knows SPEC.md §4 and §6, and nothing of DataFlow's inside. What single operations do
stands in `dataflow.enterprise.proof.effects`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import attrs

from dataflow.enterprise.proof.shop import DENIED_FIELD, DENIED_OPERATION, KEYED, MODELS, PROTECTED, RELATIONS, Shop

Row = dict[str, Any]
Errors = set[tuple[str, str]]
UNIQUE = ("UniqueError", "unique")
FOREIGN = ("ForeignKeyError", "foreign-key")
CONFLICT = ("VersionConflict", "version-conflict")
NO_TENANT = ("TenancyError", "no-tenant")
OTHER_TENANT = ("TenancyError", "other-tenant")
PROTECTED_ERROR = ("WriteProtectedError", "write-protected")


class Refused(Exception):
    """The operation must raise one of these errors, and write nothing."""

    def __init__(self, *errors: tuple[str, str]) -> None:
        super().__init__(*errors)
        self.errors: Errors = set(errors)


class Open(Exception):
    """The specification leaves open what happens: such an operation is not run."""


class Pending:
    """An id or an instant that the database gives; it has a value once a result told it."""

    __slots__ = ("kind", "value")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.value: Any = None

    def __repr__(self) -> str:
        return f"<{self.kind} {self.value}>"


@attrs.frozen
class Around:
    """What surrounds a call: a tenant, or all of them, an actor, and whether it passes the protection."""

    tenant: str | None = None
    everyone: bool = False
    actor: str | None = None
    unlocked: bool = False

    def __str__(self) -> str:
        """Name it as blocks do."""
        names = [
            *([f"tenant {self.tenant}"] if self.tenant else []),
            *(["all_tenants"] if self.everyone else []),
            *([f"actor {self.actor}"] if self.actor else []),
            *(["unlocked"] if self.unlocked else []),
        ]
        return ", ".join(names) or "nothing"


@attrs.define(eq=False)
class Op:
    """One operation.

    Attributes:
        kind: name of the operation; "sql" is a query of the user's own.
        model: name.
        params: of the node.
        around: what surrounds it.
    """

    kind: str
    model: str
    params: dict[str, Any]
    around: Around

    def __str__(self) -> str:
        """Write it as a call."""
        inner = ", ".join(f"{name}={value!r}" for name, value in self.params.items())
        return f"{self.kind} {self.model}({inner})  # {self.around}"


@attrs.frozen
class Note:
    """An entry that the audit log must have."""

    model: str
    action: str
    record: Any
    actor: str
    tenant: str | None


def order_of(value: Any) -> tuple[Any, ...]:
    """Return what values of one field are ordered by: None first, ids that are not known yet last."""
    if isinstance(value, Pending):
        return (2, 0) if value.value is None else (1, value.value)
    return (0, 0) if value is None else (1, value)


def same(one: Any, other: Any) -> bool:
    """Compare values; an id that is not known yet equals only itself."""
    left = one.value if isinstance(one, Pending) and one.value is not None else one
    right = other.value if isinstance(other, Pending) and other.value is not None else other
    return left is right or bool(left == right)


class World:
    """The contents of all tables.

    Attributes:
        shop: the models.
        tables: model -> rows, in the order they were created.
        notes: what the audit log must hold.
    """

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.tables: dict[str, list[Row]] = {model: [] for model in MODELS}
        self.notes: list[Note] = []

    def copy(self) -> Self:
        """Return a world that can be changed by itself."""
        other = type(self)(self.shop)
        other.tables = {model: [dict(row) for row in rows] for model, rows in self.tables.items()}
        other.notes = list(self.notes)
        return other

    def take(self, other: "World") -> None:
        """Become another world."""
        self.tables, self.notes = other.tables, other.notes

    # -- looking ----------------------------------------------------------------------------------------------------
    def visible(self, model: str, tenant: str | None) -> list[Row]:
        """Return the records a tenant has, or all where it is None, deleted ones among them, in key order."""
        mine = not self.shop.has(model, "multi_tenant") or tenant is None
        rows = [row for row in self.tables[model] if mine or row["tenant_id"] == tenant]
        return self.ordered(rows, ())

    def ordered(self, rows: Iterable[Row], sort: Sequence[tuple[str, bool]]) -> list[Row]:
        """Sort by (name, descending) pairs, then by key."""
        found = list(rows)
        for name, descending in reversed([*sort, ("id", False), ("tenant_id", False)]):
            found.sort(key=_by(name), reverse=descending)
        return found

    def shown(self, model: str, row: Mapping[str, Any]) -> Row:
        """Return a record as results show it."""
        names = ["id", *MODELS[model], "created_at", "updated_at"]
        names += [*(["tenant_id"] if self.shop.scoped(model) else [])]
        names += [*(["deleted_at"] if self.shop.has(model, "soft_delete") else [])]
        names += [*(["version"] if self.shop.has(model, "versioned") else [])]
        return {name: row[name] for name in names}

    def lives(self, model: str, row: Mapping[str, Any]) -> bool:
        """Tell whether a record is not deleted."""
        return not self.shop.has(model, "soft_delete") or row["deleted_at"] is None

    def related(self, model: str, name: str, row: Row, see: Callable[[str], list[Row]]) -> list[Row]:
        """Return the records a relation leads to; `see` gives those that the call sees."""
        relation = RELATIONS[model][name]
        both = all(self.shop.has(one, "multi_tenant") for one in (model, relation.target))
        return [
            other
            for other in see(relation.target)
            if row[relation.here] is not None
            and same(other[relation.there], row[relation.here])
            and (not both or other["tenant_id"] == row["tenant_id"])
        ]

    def matches(
        self, document: Mapping[str, Any] | None, model: str, row: Row, see: Callable[[str], list[Row]]
    ) -> bool:
        """Tell whether a record satisfies a filter."""
        return all(self._entry(key, value, model, row, see) for key, value in (document or {}).items())

    def _entry(self, key: str, value: Any, model: str, row: Row, see: Callable[[str], list[Row]]) -> bool:
        if key in ("$and", "$or", "$nor"):
            found = [self.matches(branch, model, row, see) for branch in value]
            return all(found) if key == "$and" else any(found) is (key == "$or")
        if key == "$not":
            return not self.matches(value, model, row, see)
        if key in RELATIONS[model]:
            others = self.related(model, key, row, see)
            if value is None or value == {"$exists": False}:
                return not others
            if value == {"$exists": True}:
                return bool(others)
            target = RELATIONS[model][key].target
            return any(self.matches(value, target, other, see) for other in others)
        return _holds(value, row[key])

    # -- changing ---------------------------------------------------------------------------------------------------
    def note(self, model: str, row: Row, action: str, around: Around) -> None:
        """Remember what the audit log must tell of a change."""
        if self.shop.has(model, "audit_log"):
            tenant = row["tenant_id"] if self.shop.has(model, "multi_tenant") else None
            self.notes.append(Note(model, action, row["id"], around.actor or "unknown", tenant))

    def check(self) -> None:
        """Raise if a constraint does not hold.

        Raises:
            Refused: naming all kinds of constraints that do not.
        """
        broken: Errors = set()
        for model, fields in MODELS.items():
            rows = self.tables[model]
            living = [row for row in rows if self.lives(model, row)]
            for name, field in fields.items():
                if field.unique and not self._distinct(model, name, living):
                    broken.add(UNIQUE)
                if field.enforced and not all(self._leads(model, name, field.refers, row) for row in rows):
                    broken.add(FOREIGN)
            if model == KEYED and not self._distinct(model, "id", rows):
                broken.add(UNIQUE)
        if broken:
            raise Refused(*broken)

    def _distinct(self, model: str, name: str, rows: Sequence[Row]) -> bool:
        scoped = self.shop.has(model, "multi_tenant")
        found = [(row["tenant_id"] if scoped else None, row[name]) for row in rows if row[name] is not None]
        return len(set(found)) == len(found)

    def _leads(self, model: str, name: str, target: str, row: Row) -> bool:
        if row[name] is None:
            return True
        scoped = self.shop.has(target, "multi_tenant")
        found = [
            other
            for other in self.tables[target]
            if same(other["id"], row[name]) and (not scoped or other["tenant_id"] == row["tenant_id"])
        ]
        return bool(found) and (self.lives(target, found[0]) or not self.lives(model, row))

    def referring(self, model: str, rows: Sequence[Row]) -> Iterator[tuple[str, str, str, list[Row]]]:
        """Yield (child, field, on_delete, those of its rows that refer to the given ones)."""
        scoped = self.shop.has(model, "multi_tenant")
        for child, field, action in self.shop.children(model):
            yield (
                child,
                field,
                action,
                [
                    row
                    for row in self.tables[child]
                    if any(
                        row[field] is not None
                        and same(row[field], parent["id"])
                        and (not scoped or row["tenant_id"] == parent["tenant_id"])
                        for parent in rows
                    )
                ],
            )

    def remove(self, model: str, rows: Sequence[Row], around: Around) -> None:
        """Remove rows for good, and do to others what their foreign keys say.

        Raises:
            Refused: a record is still referred to.
        """
        if not rows:
            return
        for child, field, action, found in list(self.referring(model, rows)):
            if found and action == "restrict":
                raise Refused(FOREIGN)
            if action == "cascade":
                self.remove(child, found, around)
            elif action == "set null":
                for row in found:
                    row[field] = None
                    self.note(child, row, "update", around)
        self.tables[model] = [row for row in self.tables[model] if not any(row is gone for gone in rows)]
        for row in rows:
            self.note(model, row, "delete", around)

    def touch(self, model: str, row: Row, stamp: Pending) -> None:
        """Do what every change of a record does."""
        row["updated_at"] = stamp
        if self.shop.has(model, "versioned"):
            row["version"] += 1

    def mark(self, model: str, rows: Sequence[Row], stamp: Pending, token: object, around: Around) -> None:
        """Delete rows softly, with their children as their foreign keys say."""
        if not rows:
            return
        for child, field, action, found in list(self.referring(model, rows)):
            follows = action == "set null" or (action == "cascade" and self.shop.has(child, "soft_delete"))
            living = [row for row in found if self.lives(child, row)]
            living = self._own(model, child, living, around) if follows else living
            if action == "set null":
                for row in living:
                    row[field] = None
                    self.touch(child, row, stamp)
                    self.note(child, row, "update", around)
            elif follows:
                self.mark(child, living, stamp, token, around)
        for row in rows:
            row["deleted_at"], row["_deletion"] = stamp, token
            self.touch(model, row, stamp)
            self.note(model, row, "soft_delete", around)

    def unmark(self, model: str, rows: Sequence[Row], stamp: Pending, around: Around, *, cascade: bool) -> None:
        """Restore rows, with those children that were deleted together with them."""
        tokens = [(row, row["_deletion"]) for row in rows]
        for row in rows:
            row["deleted_at"] = row["_deletion"] = None
            self.touch(model, row, stamp)
            self.note(model, row, "restore", around)
        if not cascade:
            return
        for row, token in tokens:
            for child, _field, action, found in list(self.referring(model, [row])):
                if action == "restrict" or not self.shop.has(child, "soft_delete"):
                    continue
                own = self._own(model, child, found, around)
                marked = [other for other in own if not self.lives(child, other) and other["_deletion"] is token]
                self.unmark(child, marked, stamp, around, cascade=True)

    def _own(self, model: str, child: str, rows: list[Row], around: Around) -> list[Row]:
        """Return those children of everybody's records that the call may touch: its tenant's.

        Raises:
            Refused: it has no tenant.
        """
        if self.shop.has(model, "multi_tenant") or not self.shop.has(child, "multi_tenant") or around.everyone:
            return rows
        if around.tenant is None:
            raise Refused(NO_TENANT)
        return [row for row in rows if row["tenant_id"] == around.tenant]

    # -- protection -------------------------------------------------------------------------------------------------
    def protects(self, op: Op, changed: Iterable[str] = ()) -> bool:
        """Tell whether the policy refuses an operation that changes these fields."""
        if not self.shop.protected or op.model != PROTECTED or op.around.unlocked:
            return False
        return op.kind == DENIED_OPERATION or DENIED_FIELD in set(changed)


def _by(name: str) -> Callable[[Row], Any]:
    return lambda row: order_of(row[name])


def _holds(condition: Any, value: Any) -> bool:
    if not isinstance(condition, dict):
        return same(condition, value)
    return all(_compare(op, operand, value) for op, operand in condition.items())


def _compare(op: str, operand: Any, value: Any) -> bool:
    if op == "$not":
        return not _holds(operand, value)
    if op in ("$null", "$exists"):
        return (value is None) is (operand if op == "$null" else not operand)
    if op in ("$eq", "$ne"):
        return same(operand, value) is (op == "$eq")
    if op in ("$in", "$nin"):
        return any(same(item, value) for item in operand) is (op == "$in")
    if value is None:
        return False
    if isinstance(value, Pending):
        if value.value is None:
            raise Open
        value = value.value
    tests: Mapping[str, Callable[[], bool]] = {
        "$gt": lambda: value > operand,
        "$gte": lambda: value >= operand,
        "$lt": lambda: value < operand,
        "$lte": lambda: value <= operand,
        "$between": lambda: operand[0] <= value <= operand[1],
        "$contains": lambda: operand in value,
        "$startswith": lambda: value.startswith(operand),
        "$endswith": lambda: value.endswith(operand),
    }
    return tests[op]()
