"""What each operation does to the oracle's world, and what it must return or raise.

An operation that must fail says with which errors: where several things are wrong with it, any of them will do.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from dataflow.enterprise.proof import world as w
from dataflow.enterprise.proof.shop import KEYED, MODELS, RELATIONS, REQUIRED
from dataflow.enterprise.proof.world import Around, Errors, Op, Open, Pending, Refused, Row, World

READS = ("read", "list", "count", "aggregate")
DELETES = ("delete", "bulk_delete")
VERSIONED = ("update", "delete", "upsert", "restore")
"""Operations that take an expected version."""
UNKNOWN = {("InputError", "unknown-parameter"), ("InputError", "unknown-field"), ("InputError", "bad-row")}
WRONG = {("InputError", code) for code in ("wrong-value", "missing-field", "kept-field", "bad-row", "bad-parameter")}
"""Errors of values that do not fit. Which of them it is, other tests tell."""
TYPES: Mapping[str, tuple[type, ...]] = {"int": (int,), "str": (str,), "decimal": (Decimal, int)}


def apply(world: World, op: Op) -> Any:
    """Carry out an operation; return what it must return.

    Raises:
        Refused: it must fail; the world is as it was.
        Open: the specification does not say what happens.
    """
    trial = world.copy()
    result = Execution(trial, op).run()
    trial.check()
    world.take(trial)
    return result


class Execution:
    """One operation on a world that is thrown away where it fails."""

    def __init__(self, world: World, op: Op) -> None:
        self.world = world
        self.shop = world.shop
        self.op = op
        self.model = op.model
        self.params = dict(op.params)
        self.around: Around = op.around
        self.now = Pending("instant")
        self.token = object()
        self.errors: Errors = set()
        self.tenant: str | None = None

    def run(self) -> Any:
        """Carry it out."""
        self._check_options()
        self._find_tenant()
        self._check_values()
        if self.errors:
            if self.op.kind == "bulk_upsert" or self.params.get("conflict_resolution") == "upsert":
                # rows of one shape go together, and those before may fail first
                self.errors |= {w.UNIQUE, w.FOREIGN, w.CONFLICT}
            raise Refused(*self.errors)
        return getattr(self, f"do_{self.op.kind}")()

    # -- what is wrong beforehand -------------------------------------------------------------------------------------
    @property
    def soft(self) -> bool:
        """Whether the model has soft delete."""
        return self.shop.has(self.model, "soft_delete")

    @property
    def inserts(self) -> bool:
        """Whether the operation may make a record."""
        return self.op.kind in ("create", "upsert", "bulk_create", "bulk_upsert")

    def _check_options(self) -> None:
        kind = self.op.kind
        if not self.soft:
            self.errors |= UNKNOWN if {"include_deleted", "only_deleted"} & self.params.keys() else set()
            if self.params.get("soft_delete"):
                self.errors.add(("MissingCapability", "missing-capability"))
            if kind in ("restore", "purge"):
                self.errors |= {("InputError", "input"), ("WorkflowBuildError", "unknown-node")}
        if "tenant_id" in self.params and not self.shop.has(self.model, "multi_tenant"):
            self.errors |= UNKNOWN
        if "version" in self.params and not (self.shop.has(self.model, "versioned") and kind in VERSIONED):
            self.errors |= UNKNOWN
        elif kind in DELETES and self.params.get("include_deleted") and self.params.get("soft_delete", True):
            self.errors.add(("InputError", "bad-parameter"))
        given = [self.params.get(name) for name in ("values", "where", "create", "update")]
        versions = [
            values["version"] for values in (self.params, *given) if isinstance(values, dict) and "version" in values
        ]
        if any(version != versions[0] for version in versions):
            self.errors.add(("InputError", "twice"))
        if self.world.protects(self.op, self._changed()) and not self._only_counts():
            self.errors.add(w.PROTECTED_ERROR)

    def _only_counts(self) -> bool:
        return bool(self.params.get("confirmation_required")) and not self.params.get("confirmed")

    def _changed(self) -> set[str]:
        """Return the fields that the operation changes in records that are there."""
        kind, params = self.op.kind, self.params
        if kind == "update":
            return _named(params["values"])
        if kind == "bulk_update":
            return _named(params["update"]) if "update" in params else {name for row in params["data"] for name in row}
        if kind == "upsert":
            return set(self._upsert_changes())
        if kind == "bulk_upsert" or params.get("conflict_resolution") == "upsert":
            return {name for row in params["data"] for name in row}
        return set()

    def _find_tenant(self) -> None:
        """Find out for whom the call acts; None is for all."""
        if not self.shop.has(self.model, "multi_tenant"):
            return
        given = [self.params.get("tenant_id")] if "tenant_id" in self.params else []
        if self.shop.scoped(self.model):
            for name in ("values", "where", "create", "update"):
                values = self.params.get(name)
                if isinstance(values, dict) and (name != "update" or self.op.kind == "upsert"):
                    given += [values["tenant_id"]] if "tenant_id" in values else []
        if len(set(given)) > 1:
            self.errors.add(("InputError", "twice"))
        tenant = given[0] if given else None
        around = self.around.tenant
        if given and around is not None and tenant != around:
            self.errors.add(w.OTHER_TENANT)
        self.tenant = tenant if tenant is not None else around
        if self.shop.placed and around is None:  # a place is that of what surrounds the call
            self.errors.add(w.NO_TENANT)
        if self.tenant is None and (not self.around.everyone or self._needs_tenant()):
            self.errors.add(w.NO_TENANT)
        rows = self.params.get("data") or ()
        for row in rows:
            if "tenant_id" in row and self.tenant is None and self.op.kind == "bulk_update":
                raise Open
            if self.op.kind == "bulk_create" and self._collecting:
                continue
            if self.shop.scoped(self.model) and row.get("tenant_id", self.tenant) != self.tenant:
                self.errors |= {w.OTHER_TENANT, ("InputError", "bad-row"), ("InputError", "twice")}

    def _needs_tenant(self) -> bool:
        """Tell whether the operation has no meaning among all tenants."""
        if self.inserts:
            return True
        if self.model != KEYED:
            return False
        kind, params = self.op.kind, self.params
        softly = kind in DELETES and self.soft and params.get("soft_delete", True) and not self._only_counts()
        keyed = "id" in params or "data" in params or ("ids" in params and not self._only_counts())
        return keyed or softly

    def _check_values(self) -> None:
        kind, params = self.op.kind, self.params
        if kind == "create":
            self._check_record(params["values"], params["values"])
        elif kind == "update":
            self._check_changes(params["values"])
        elif kind == "bulk_update":
            if "update" in params:
                self._check_changes(params["update"], options=False)
            for row in params.get("data", ()):
                self._check_changes({name: value for name, value in row.items() if name != "id"})
                if "id" in row and self._wrong("id", row["id"]):
                    self.errors |= WRONG
            self._check_repeated([row.get("id") for row in params.get("data", ())])
        elif kind == "bulk_delete" and params.get("filter", True) == {} and not params.get("confirmed"):
            self.errors |= set() if self._only_counts() else {("InputError", "unconfirmed")}
        elif kind == "upsert":
            record = {**params["where"], **params.get("create", {})}
            self._check_record(record, record, versions=True)
            if "update" in params:
                self._check_changes(params["update"], empty=True)
        elif kind in ("bulk_create", "bulk_upsert"):
            upserts = kind == "bulk_upsert" or params.get("conflict_resolution") == "upsert"
            for row in params["data"]:
                before = set(self.errors)
                self._check_record(row, row, versions=upserts, names_only=self._collecting)
                if self.errors - before:
                    self.errors.add(("InputError", "bad-row"))

    def _check_repeated(self, keys: Sequence[Any]) -> None:
        if len(set(keys)) < len(keys):
            self.errors |= {("InputError", "duplicate-key"), ("InputError", "bad-row")}

    def _kept(self, name: str, *, versions: bool) -> bool | None:
        """Tell whether a name is that of a field that nobody writes; None where it is no field."""
        if name in MODELS[self.model] or name in ("created_at", "updated_at"):
            return False
        if name == "id":
            return self.shop.scoped(self.model)
        if name == "tenant_id" and self.shop.scoped(self.model):
            return False
        if name == "version" and self.shop.has(self.model, "versioned"):
            return not versions
        if name == "deleted_at" and self.soft:
            return True
        return None

    def _check_name(self, name: str, *, versions: bool) -> bool:
        kept = self._kept(name, versions=versions)
        if kept is None:
            self.errors |= UNKNOWN
        elif kept:
            self.errors |= WRONG
        return kept is False

    def _check_record(
        self, values: Mapping[str, Any], given: Mapping[str, Any], *, versions: bool = False, names_only: bool = False
    ) -> None:
        for name, value in values.items():
            if self._check_name(name, versions=versions) and not names_only and self._wrong(name, value):
                self.errors |= WRONG
        lacking = [
            name for name, field in MODELS[self.model].items() if field.default is REQUIRED and name not in given
        ]
        if lacking and not names_only:
            self.errors |= WRONG | {("InputError", "missing-key")}

    def _wrong(self, name: str, value: Any) -> bool:
        if name == "version":
            return type(value) is not int
        field = MODELS[self.model].get(name)
        if field is None:
            return False
        if value is None:
            return not field.nullable
        return isinstance(value, bool) or not isinstance(value, TYPES[field.kind])

    def _check_changes(self, values: Mapping[str, Any], *, options: bool = True, empty: bool = False) -> None:
        changed = 0
        for name, value in values.items():
            if not self._check_name(name, versions=options):
                continue
            if name == "tenant_id":
                self.errors |= set() if options else WRONG
                continue
            if name == "version":
                self.errors |= WRONG if self._wrong(name, value) else set()
                continue
            changed += 1
            if name == "id":
                self.errors.add(("InputError", "key-changed"))
            elif not isinstance(value, dict) and self._wrong(name, value):
                self.errors |= WRONG
        if not changed and not empty:
            self.errors.add(("InputError", "empty-update"))

    # -- what it sees -------------------------------------------------------------------------------------------------
    def see(self, model: str) -> list[Row]:
        """Return the records of a model that the call sees."""
        if self.shop.has(model, "multi_tenant") and self.tenant is None and self.around.tenant is None:
            if not self.around.everyone:
                raise Refused(w.NO_TENANT)
            rows = self.world.visible(model, None)
        else:
            rows = self.world.visible(model, self.tenant or self.around.tenant)
        if self.params.get("only_deleted"):
            return [row for row in rows if not self.world.lives(model, row)]
        if self.params.get("include_deleted") or (self.op.kind in ("restore", "purge") and model == self.model):
            return rows
        return [row for row in rows if self.world.lives(model, row)]

    def living(self) -> list[Row]:
        """Return the model's records that live."""
        return [row for row in self.world.visible(self.model, self.tenant) if self.world.lives(self.model, row)]

    def found(self, document: Mapping[str, Any] | None, rows: list[Row] | None = None) -> list[Row]:
        """Return the records that match, in key order."""
        rows = self.see(self.model) if rows is None else rows
        self._touch_relations(document or {}, self.model)
        return [row for row in rows if self.world.matches(document, self.model, row, self.see)]

    def _touch_relations(self, document: Mapping[str, Any], model: str) -> None:
        """Look at what relations lead to, even where there is no record: a call without a tenant may not."""
        for key, value in document.items():
            if key in ("$and", "$or", "$nor"):
                for branch in value:
                    self._touch_relations(branch, model)
            elif key == "$not":
                self._touch_relations(value, model)
            elif key in RELATIONS[model]:
                target = RELATIONS[model][key].target
                self.see(target)
                if isinstance(value, dict):
                    self._touch_relations(value, target)

    def targets(self) -> list[Row]:
        """Return what a single-record operation acts on."""
        if "id" in self.params:
            return [row for row in self.see(self.model) if w.same(row["id"], self.params["id"])]
        return self.found(self.params["conditions"])

    def expected(self, rows: list[Row], version: Any = None) -> list[Row]:
        """Return those rows that have the expected version.

        Raises:
            Refused: there are rows, but none of them has it.
        """
        version = self.params.get("version") if version is None else version
        if version is None:
            return rows
        found = [row for row in rows if row["version"] == version]
        if rows and not found:
            raise Refused(w.CONFLICT)
        return found

    def echo(self) -> Row:
        """Return what stands in a result where there is no record."""
        return {"id": self.params["id"]} if "id" in self.params else {}

    def shown(self, row: Row) -> Row:
        """Return a record as results show it."""
        return self.world.shown(self.model, row)

    # -- reading ------------------------------------------------------------------------------------------------------
    def do_read(self) -> Any:
        rows = self.targets()
        self._touch_includes(self.model, self.params.get("include", ()))
        if not rows:
            if self.params.get("raise_on_not_found"):
                raise Refused(("NotFoundError", "not-found"))
            return {**self.echo(), "found": False}
        return {**self._projected(rows[0]), "found": True}

    def _projected(self, row: Row) -> Row:
        shown = self.shown(row)
        if "fields" in self.params:
            shown = {name: shown[name] for name in self.params["fields"]}
        return {**shown, **self._included(self.model, row, self.params.get("include", ()))}

    def _touch_includes(self, model: str, names: Iterable[str]) -> None:
        for name in names:
            for part in name.split("."):
                model = RELATIONS[model][part].target
                self.see(model)

    def _included(self, model: str, row: Row, names: Iterable[str]) -> Row:
        tree: dict[str, list[str]] = {}
        for name in names:
            head, _, rest = name.partition(".")
            tree.setdefault(head, []).extend([rest] if rest else [])
        out: Row = {}
        for name, inner in tree.items():
            relation = RELATIONS[model][name]
            others = self.world.related(model, name, row, self.see)
            shown = [
                {**self.world.shown(relation.target, other), **self._included(relation.target, other, inner)}
                for other in others
            ]
            out[name] = shown if relation.many else (shown[0] if shown else None)
        return out

    def do_list(self) -> Any:
        """Return all records, of whatever pages."""
        rows = self.found(self.params.get("filter"))
        sort = [(name, direction == -1) for item in self.params.get("sort", ()) for name, direction in item.items()]
        self._touch_includes(self.model, self.params.get("include", ()))
        if self.params.get("count_only"):
            return {"total": len(rows), "records": []}
        ordered = self.world.ordered(rows, sort)[self.params.get("offset", 0) :]
        found = {"records": [self._projected(row) for row in ordered]}
        return {**found, "total": len(rows)} if self.params.get("include_total") else found

    def do_count(self) -> Any:
        return {"count": len(self.found(self.params.get("filter")))}

    def do_aggregate(self) -> Any:
        rows = self.found(self.params.get("filter"))
        names = self.params.get("group_by", [])
        groups: dict[Any, list[Row]] = {} if names else {(): []}
        for row in rows:
            groups.setdefault(tuple(row[name] for name in names), []).append(row)
        out = []
        for key, members in groups.items():
            record = dict(zip(names, key, strict=True))
            for name, item in self.params["aggregate"].items():
                ((function, field),) = item.items()
                record[name] = _aggregate(function, field, members)
            if all(_aggregate_holds(test, record[name]) for name, test in self.params.get("having", {}).items()):
                out.append(record)
        for name in reversed(names):
            out.sort(key=lambda record: w.order_of(record[name]))
        return {"groups": out}

    def do_sql(self) -> Any:
        """Count the rows that a query of the user's own sees, with the tenant's predicate."""
        return {"n": len(self.world.visible(self.model, self.tenant))}

    # -- writing ------------------------------------------------------------------------------------------------------
    def fresh(self, values: Mapping[str, Any]) -> Row:
        """Make a row of given values and defaults."""
        row: Row = {"id": Pending("id")}
        for name, field in MODELS[self.model].items():
            row[name] = values.get(name, field.default)
        row |= {"created_at": self.now, "updated_at": self.now, "version": 1, "deleted_at": None, "_deletion": None}
        row["tenant_id"] = self.tenant if self.shop.has(self.model, "multi_tenant") else None
        return row

    def insert(self, values: Mapping[str, Any]) -> Row:
        """Make a record."""
        row = self.fresh(values)
        self.world.tables[self.model].append(row)
        self.world.note(self.model, row, "create", self.around)
        return row

    def do_create(self) -> Any:
        return self.shown(self.insert(self.params["values"]))

    def change(self, row: Row, values: Mapping[str, Any]) -> None:
        """Apply values and update operators."""
        for name, value in values.items():
            if name in ("version", "tenant_id"):
                continue
            row[name] = _changed(row[name], value) if isinstance(value, dict) else value
        self.world.touch(self.model, row, self.now)
        self.world.note(self.model, row, "update", self.around)

    def do_update(self) -> Any:
        values = self.params["values"]
        rows = self.expected(self.targets(), values.get("version"))
        if not rows:
            if self.params.get("raise_on_not_found"):
                raise Refused(("NotFoundError", "not-found"))
            return {**self.echo(), "updated": 0}
        self._refuse_moves(rows, values)
        for row in rows:
            self.change(row, values)
        return {**self.shown(rows[0]), "updated": len(rows)}

    def _refuse_moves(self, rows: Sequence[Row], *values: Mapping[str, Any]) -> None:
        """Leave out what depends on the order in which rows are changed: unique values that move among several."""
        unique = [name for name, field in MODELS[self.model].items() if field.unique]
        if len(rows) > 1 and any(name in given for given in values for name in unique):
            raise Open

    def do_delete(self) -> Any:
        rows = self._deletable(self.targets())
        rows = self.expected(rows)
        self._delete(rows)
        if "id" in self.params:
            return {"deleted": len(rows), "id": self.params["id"]}
        return {"deleted": len(rows), **({"id": rows[0]["id"]} if rows else {})}

    @property
    def softly(self) -> bool:
        """Whether the delete marks."""
        return self.soft and bool(self.params.get("soft_delete", True))

    def _deletable(self, rows: list[Row]) -> list[Row]:
        return [row for row in rows if self.world.lives(self.model, row)] if self.softly else rows

    def _delete(self, rows: list[Row]) -> None:
        if self.softly:
            self.world.mark(self.model, rows, self.now, self.token, self.around)
        else:
            self.world.remove(self.model, rows, self.around)

    def do_restore(self) -> Any:
        rows = self.expected([row for row in self.targets() if not self.world.lives(self.model, row)])
        if not rows:
            if self.params.get("raise_on_not_found"):
                raise Refused(("NotFoundError", "not-found"))
            return {**self.echo(), "restored": 0}
        self.world.unmark(self.model, rows, self.now, self.around, cascade=self.params.get("cascade", True))
        return {**self.shown(rows[0]), "restored": len(rows)}

    def do_purge(self) -> Any:
        rows = [row for row in self.see(self.model) if not self.world.lives(self.model, row)]
        rows = rows[: self.params.get("limit")]
        self.world.remove(self.model, rows, self.around)
        return {"purged": len(rows)}

    # -- upserts ------------------------------------------------------------------------------------------------------
    def _upsert_changes(self) -> Mapping[str, Any]:
        where, create = self.params["where"], self.params.get("create", {})
        update = self.params.get("update")
        if update is None:
            update = {name: value for name, value in {**where, **create}.items() if name not in (*where, "id")}
        return {name: value for name, value in update.items() if name not in ("version", "tenant_id")}

    def _version(self, *values: Mapping[str, Any]) -> Any:
        return next((given["version"] for given in values if "version" in given), self.params.get("version"))

    def do_upsert(self) -> Any:
        where = {name: value for name, value in self.params["where"].items() if name not in ("tenant_id", "version")}
        create = {**where, **self.params.get("create", {})}
        version = self._version(self.params["where"], create, self.params.get("update", {}))
        row, created = self._put(where, create, self._upsert_changes(), version, always=False)
        return {**self.shown(row), "created": created}

    def _put(
        self,
        key: Mapping[str, Any],
        create: Mapping[str, Any],
        changes: Mapping[str, Any],
        version: Any = None,
        *,
        always: bool,
    ) -> tuple[Row, bool]:
        """Change the record with a key, or create it: (record, whether it is new)."""
        mine = self.world.visible(self.model, self.tenant)
        holders = [row for row in mine if all(w.same(row[name], value) for name, value in key.items())]
        living = [row for row in holders if self.world.lives(self.model, row)]
        if not living:
            if holders and "id" in key:  # a deleted record still has its primary key
                raise Refused(w.UNIQUE)
            return self.insert(create), True
        (row,) = self.expected(living, version)
        if changes or always:
            self.change(row, changes)
        return row, False

    # -- bulk ---------------------------------------------------------------------------------------------------------
    def do_bulk_create(self) -> Any:
        rows, conflict = self.params["data"], self.params.get("conflict_resolution", "error")
        if conflict == "upsert":
            return self.do_bulk_upsert()
        created = skipped = 0
        ids: list[Any] = []
        errors = []
        collecting = self._collecting
        for index, values in enumerate(rows):
            if collecting and self._faulty(values):
                skipped += 1
                ids.append(None)
                errors.append(index)
                continue
            before = self.world.copy()
            row = self.insert(values)
            try:
                self.world.check()
            except Refused as refused:
                clash = refused.errors == {w.UNIQUE} and conflict == "skip"
                if refused.errors == {w.UNIQUE, w.FOREIGN} and conflict == "skip":
                    clash = True  # what conflicts is not inserted, so its references do not matter
                if not (clash or collecting):
                    raise
                self.world.take(before)
                skipped += 1
                ids.append(None)
                errors += [] if clash else [index]
            else:
                created += 1
                ids.append(row["id"])
        out: Row = {"created": created, "updated": 0, "skipped": skipped, "total": len(rows)}
        out |= {"ids": ids} if self.params.get("return_ids") else {}
        return {**out, "errors": errors} if self.params.get("on_error") == "collect" else out

    def _faulty(self, values: Mapping[str, Any]) -> bool:
        before, self.errors = self.errors, set()
        self._check_record(values, values)
        found, self.errors = bool(self.errors), before
        elsewhere = values.get("tenant_id", self.tenant) != self.tenant
        return found or (self.shop.scoped(self.model) and elsewhere)

    @property
    def _collecting(self) -> bool:
        return bool(self.params.get("on_error", "stop") != "stop")

    def do_bulk_upsert(self) -> Any:
        rows = self.params["data"]
        key = tuple(self.params.get("key_fields") or self._natural_key(rows))
        values = [tuple(row.get(name) for name in key) for row in rows]
        if len(set(values)) < len(values):
            raise Refused(("InputError", "duplicate-key"))
        expecting = any("version" in row for row in rows)
        created = 0
        ids = []
        conflicts = 0
        for row in rows:
            changes = {n: v for n, v in row.items() if n not in (*key, "id", "version", "tenant_id")}
            named = {name: row[name] for name in key}
            try:
                found, new = self._put(named, row, changes, row.get("version"), always=not expecting)
            except Refused as refused:
                if refused.errors != {w.CONFLICT}:
                    raise
                conflicts += 1
                continue
            created += new
            ids.append(found["id"])
        if conflicts:
            raise Refused(w.CONFLICT, *self._broken())
        self._refuse_moves([{}, {}], *[{n: 0 for n in row if n not in key} for row in rows])
        out = {"created": created, "updated": len(rows) - created, "skipped": 0, "total": len(rows)}
        return {**out, "ids": ids} if self.params.get("return_ids") else out

    def _broken(self) -> Errors:
        try:
            self.world.check()
        except Refused as refused:
            return refused.errors
        return set()

    def _natural_key(self, rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
        names = [name for name, field in MODELS[self.model].items() if field.unique or name == "id"]
        return (next(name for name in names if any(name in row for row in rows)),)

    def do_bulk_update(self) -> Any:
        if "data" in self.params:
            return self._bulk_update_rows()
        rows = self.found(self.params["filter"])[: self.params.get("limit")]
        self._refuse_moves(rows, self.params["update"])
        for row in rows:
            self.change(row, self.params["update"])
        out = {"updated": len(rows)}
        return {**out, "ids": [row["id"] for row in rows]} if self.params.get("return_ids") else out

    def _bulk_update_rows(self) -> Any:
        rows = self.params["data"]
        self._refuse_moves([{}, {}], *rows)
        updated = 0
        ids: list[Any] = []
        conflicts = []
        for values in rows:
            found = [row for row in self.living() if w.same(row["id"], values["id"])]
            ids.append(None)
            try:
                found = self.expected(found, values.get("version"))
            except Refused:
                conflicts.append(values["id"])
                continue
            for row in found:
                self.change(row, {name: value for name, value in values.items() if name != "id"})
                ids[-1] = row["id"]
            updated += len(found)
        collect = self.params.get("on_error") == "collect"
        if conflicts and not collect:
            raise Refused(w.CONFLICT, *self._broken())
        out: Row = {"updated": updated, "total": len(rows), "missing": len(rows) - updated - len(conflicts)}
        out |= {"conflicts": conflicts} if collect else {}
        return {**out, "ids": ids} if self.params.get("return_ids") else out

    def do_bulk_delete(self) -> Any:
        if "ids" in self.params:
            rows = [row for row in self.see(self.model) if any(w.same(row["id"], key) for key in self.params["ids"])]
        else:
            rows = self.found(self.params["filter"])
        rows = self._deletable(rows)[: self.params.get("limit")]
        if self._only_counts():
            return {"deleted": 0, "confirmation_required": True, "would_delete": len(rows)}
        ids = [row["id"] for row in rows]
        self._delete(rows)
        return {"deleted": len(rows), **({"ids": ids} if self.params.get("return_ids") else {})}


def _named(values: Mapping[str, Any]) -> set[str]:
    return set(values)


def _changed(value: Any, change: Mapping[str, Any]) -> Any:
    ((op, operand),) = change.items()
    if op == "$set":
        return operand
    if op == "$unset" or (value is None and op not in ("$min", "$max")):
        return None
    functions: Mapping[str, Callable[[], Any]] = {
        "$inc": lambda: value + operand,
        "$dec": lambda: value - operand,
        "$multiply": lambda: value * operand,
        "$min": lambda: min(value, operand),
        "$max": lambda: max(value, operand),
    }
    return functions[op]()


def _aggregate(function: str, field: str, rows: Sequence[Row]) -> Any:
    if field == "*":
        return len(rows)
    found = [row[field] for row in rows if row[field] is not None]
    if function == "$count":
        return len(found)
    if function == "$count_distinct":
        return len({value.value if isinstance(value, Pending) else value for value in found})
    if function == "$sum":
        return sum(found)
    if not found:
        return None
    if function == "$avg":
        return sum(found) / len(found)
    return min(found) if function == "$min" else max(found)


def _aggregate_holds(test: Mapping[str, Any], value: Any) -> bool:
    return w._holds(test, value)  # noqa: SLF001  # the same rule
