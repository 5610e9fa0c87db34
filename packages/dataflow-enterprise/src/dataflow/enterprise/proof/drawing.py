"""Draws random operations, with the oracle's world at hand, so that they often meet records that exist.

Whatever has the methods of `random.Random` can be the source, also one that hypothesis shrinks.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from random import Random
from typing import Any

from dataflow.enterprise.proof.shop import KEYED, MODELS, RELATIONS, REQUIRED, Field
from dataflow.enterprise.proof.world import Around, Op, Pending, Row, World

TENANTS = ("acme", "bolt")
WEIGHTS = {
    "create": 14, "read": 6, "update": 12, "upsert": 10, "delete": 9, "restore": 6, "purge": 2, "list": 9, "count": 3,
    "aggregate": 4, "bulk_create": 7, "bulk_update": 8, "bulk_delete": 5, "bulk_upsert": 8, "sql": 2,
}  # fmt: skip
"""How often each operation is drawn."""
WRITES = frozenset(WEIGHTS) - {"read", "list", "count", "aggregate", "sql"}
CROWD = 12
"""Rows of a table from which on few more are created."""
GHOST = 1_000_000
EMAILS = tuple(f"{name}@x" for name in ("ann", "bob", "cid", "dee", "eve", "fay", "gus", "hal"))
NAMES = ("Ann", "Bob", "Cid", "nobody", "Zoë")
BADGES = ("K1", "K2", "K3", "K4", "K5", "K6")
WORDS = ("open", "paid", "sent", "", "a_b%c")
MOMENT = datetime(2020, 2, 2, tzinfo=UTC)


def draw(rng: Random, world: World, kind: str = "", model: str = "") -> Op:
    """Draw an operation.

    Args:
        rng: the source.
        world: what is there.
        kind: which operation; any when left out.
        model: on which model; any when left out.
    """
    model = model or rng.choice(list(MODELS))
    kind = kind or rng.choices(list(WEIGHTS), weights=list(WEIGHTS.values()))[0]
    if kind in ("restore", "purge") and not world.shop.has(model, "soft_delete"):
        soft = [name for name in MODELS if world.shop.has(name, "soft_delete")]
        kind, model = (kind, rng.choice(soft)) if soft else ("update", model)
    if kind in ("restore", "purge"):
        gone = [name for name in MODELS if any(not world.lives(name, row) for row in world.tables[name])]
        kind, model = (
            (kind, rng.choice(gone)) if gone else (rng.choice((kind, "delete", "delete", "bulk_delete")), model)
        )
    return _Draw(rng, world, model, kind).op()


class _Draw:
    """One operation that is being drawn."""

    def __init__(self, rng: Random, world: World, model: str, kind: str) -> None:
        self.rng = rng
        self.world = world
        self.shop = world.shop
        self.model = model
        self.kind = kind
        self.around = self._around()
        self.option: str | None = None

    def chance(self, probability: float) -> bool:
        """Tell whether something happens."""
        return self.rng.random() < probability

    def op(self) -> Op:
        """Return the operation."""
        params: dict[str, Any] = getattr(self, f"draw_{self.kind}")()
        if self.shop.has(self.model, "multi_tenant") and self.kind != "sql":
            outside = self.around.tenant is None
            if self.chance(0.5 if outside and self.around.everyone else 0.04):
                params["tenant_id"] = self.around.tenant if self.chance(0.5) and not outside else self._tenant()
        elif self.kind == "sql" and self.shop.has(self.model, "multi_tenant") and not self.around.everyone:
            self.around = Around(self.around.tenant or TENANTS[0], actor=self.around.actor)
        if self.chance(0.06):
            self._spoil(params)
        return Op(self.kind, self.model, params, self.around)

    def _tenant(self) -> str:
        return self.rng.choice(TENANTS)

    def _around(self) -> Around:
        actor = self.rng.choice((None, None, "alice", "bob"))
        unlocked = self.shop.protected and self.chance(0.25)
        place = self.rng.random()
        if place < 0.7:
            return Around(TENANTS[0], actor=actor, unlocked=unlocked)
        if place < 0.86:
            return Around(TENANTS[1], actor=actor, unlocked=unlocked)
        if place < 0.96 and not self.shop.placed:
            return Around(everyone=True, actor=actor, unlocked=unlocked)
        return Around(actor=actor, unlocked=unlocked and not self.shop.placed)  # who passes is noted in a place

    # -- values -------------------------------------------------------------------------------------------------------
    def rows(self, model: str = "") -> list[Row]:
        """Return the rows of a model whose ids are known."""
        return [row for row in self.world.tables[model or self.model] if not isinstance(row["id"], Pending)]

    def near(self, model: str = "", *, alive: bool = True) -> list[Row]:
        """Return rows that the call is likely to see."""
        model = model or self.model
        mine = [row for row in self.rows(model) if row["tenant_id"] in (None, self.around.tenant)]
        pool = mine if mine and self.chance(0.85) else self.rows(model)
        living = [row for row in pool if self.world.lives(model, row)]
        return living if alive and living and self.chance(0.85) else pool

    def key(self, model: str = "", *, alive: bool = True) -> Any:
        """Return the key of a record, or, seldom, of none."""
        model = model or self.model
        pool = self.near(model, alive=alive)
        if self.shop.placed and any(isinstance(row["id"], Pending) for row in self.world.tables[model]):
            pool = [row for row in pool if row["tenant_id"] == self.around.tenant]  # others may have the id to come
        if pool and self.chance(0.93):
            return self.rng.choice(pool)["id"]
        return self.rng.choice(BADGES) if model == KEYED else GHOST

    def value(self, name: str, field: Field) -> Any:
        """Return a value for a field."""
        if field.nullable and self.chance(0.25):
            return None
        if field.refers:
            return self.key(field.refers)
        if field.kind == "decimal":
            return Decimal(self.rng.choice(("0", "1.5", "2.25", "-3", "10")))
        if field.kind == "int":
            return self.rng.randint(1, 9)
        pools: Mapping[str, Sequence[str]] = {"email": EMAILS, "name": NAMES, "id": BADGES}
        return self.rng.choice(pools.get(name, WORDS))

    def record(self) -> Row:
        """Return values of a new record."""
        fields = MODELS[self.model]
        needed = {name for name, field in fields.items() if field.default is not None and self.chance(0.8)}
        needed |= {name for name, field in fields.items() if field.refers and self.chance(0.7)}
        names = [name for name, field in fields.items() if name in needed or not _has_default(field)]
        return {name: self.value(name, fields[name]) for name in names}

    def changes(self, *, operators: bool = True, unique: bool = True) -> Row:
        """Return values or update operators for some fields."""
        fields = {n: f for n, f in MODELS[self.model].items() if n != "id" and (unique or not f.unique)}
        names = self.rng.sample(sorted(fields), k=min(len(fields), self.rng.choice((1, 1, 2))))
        found: Row = {}
        for name in names:
            field = fields[name]
            if operators and field.kind == "int" and not field.refers and not field.unique and self.chance(0.4):
                op = self.rng.choice(("$inc", "$dec", "$multiply", "$min", "$max", "$set"))
                found[name] = {op: self.rng.randint(1, 3)}
            elif operators and field.nullable and self.chance(0.15):
                found[name] = {"$unset": True}
            else:
                found[name] = self.value(name, field)
        return found

    def filter(self, depth: int = 2, model: str = "", *, relations: bool = True) -> Row:
        """Return a filter document."""
        model = model or self.model
        choice = self.rng.random()
        if depth and choice < 0.15:
            return {self.rng.choice(("$and", "$or", "$nor")): [self.filter(depth - 1, model, relations=relations)
                                                              for _ in range(self.rng.choice((1, 2)))]}  # fmt: skip
        if depth and choice < 0.2:
            return {"$not": self.filter(depth - 1, model, relations=relations)}
        if depth and relations and choice < 0.4:
            name = self.rng.choice(sorted(RELATIONS[model]))
            inner = self.rng.choice((None, {"$exists": True}, {"$exists": False}, "", "", ""))
            return {name: self.filter(depth - 1, RELATIONS[model][name].target) if inner == "" else inner}
        return self._condition(model)

    def _condition(self, model: str) -> Row:
        fields = MODELS[model]
        extra = [
            *(["version"] if self.shop.has(model, "versioned") else []),
            *(["deleted_at"] if self.shop.has(model, "soft_delete") else []),
            *(["tenant_id"] if self.shop.scoped(model) else []),
        ]
        name = self.rng.choice([*fields, "id", *extra])
        if name == "deleted_at":
            return {name: self.rng.choice((None, {"$null": True}, {"$not": None}))}
        if name == "tenant_id":
            return {name: self._tenant()}
        if name == "id":
            keys = [self.key(model) for _ in range(self.rng.choice((1, 2)))]
            return {name: self.rng.choice((keys[0], {"$in": keys}, {"$nin": keys}))}
        if name == "version":
            return {name: {self.rng.choice(("$gt", "$eq", "$lte")): self.rng.randint(1, 3)}}
        return {name: self._test(name, fields[name])}

    def _test(self, name: str, field: Field) -> Any:
        def one() -> Any:
            found = self.value(name, field)
            return self.value(name, field) if found is None else found

        value = one()
        if value is None or self.chance(0.3):
            return value
        if field.kind == "str":
            ops = ("$ne", "$in", "$nin", "$contains", "$startswith", "$endswith", "$gt", "$lte", "$null")
        else:
            ops = ("$ne", "$in", "$nin", "$gt", "$gte", "$lt", "$lte", "$between", "$exists")
        op = self.rng.choice(ops)
        if op in ("$null", "$exists"):
            return {op: self.chance(0.5)}
        if op in ("$in", "$nin"):
            return {op: [value, *[found for found in [one()] if found is not None]]}
        if op == "$between":
            other = one()
            return {op: sorted([value, value if other is None else other])}
        return {op: value}

    def version(self, row: Row | None = None) -> int:
        """Return an expected version: mostly the right one."""
        if row is not None and self.chance(0.7):
            return int(row["version"])
        return self.rng.randint(1, 3)

    def expecting(self, row: Row | None, chance: float = 0.5) -> Row:
        """Return an expected version, or nothing."""
        if self.shop.has(self.model, "versioned") and self.chance(chance):
            return {"version": self.version(row)}
        return {}

    def row_of(self, key: Any) -> Row | None:
        """Return the row with a key that the call is likely to mean."""
        found = [row for row in self.rows() if row["id"] == key]
        mine = [row for row in found if row["tenant_id"] == self.around.tenant]
        return next(iter([*mine, *found]), None)

    def flags(self, params: Row) -> Row:
        """Add the options of soft delete to a reading operation."""
        if self.shop.has(self.model, "soft_delete"):
            choice = self.rng.random()
            if choice < 0.15:
                params["include_deleted"] = True
            elif choice < 0.25 and not _reaches(params, self.model):
                params["only_deleted"] = True
        return params

    def target(self, *, alive: bool = True, relations: bool = True) -> Row:
        """Return what names one record."""
        if self.chance(0.8):
            return {"id": self.key(alive=alive)}
        return {"conditions": self.filter(1, relations=relations)}

    def includes(self) -> list[str]:
        """Return relations to load along."""
        name = self.rng.choice(sorted(RELATIONS[self.model]))
        deeper = sorted(RELATIONS[RELATIONS[self.model][name].target])
        return [f"{name}.{self.rng.choice(deeper)}"] if self.chance(0.3) else [name]

    # -- operations ---------------------------------------------------------------------------------------------------
    def draw_create(self) -> Row:
        return {"values": self.record()}

    def draw_read(self) -> Row:
        params = self.target(alive=self.chance(0.5))
        if self.chance(0.3):
            params["include"] = self.includes()
        if self.chance(0.15):
            params["fields"] = self.rng.sample(sorted(MODELS[self.model]), k=2)
        if self.chance(0.1):
            params["raise_on_not_found"] = True
        return self.flags(params)

    def draw_update(self) -> Row:
        params = self.target()
        params["values"] = self.changes()
        expected = self.expecting(self.row_of(params.get("id")))
        if self.chance(0.5):
            params["values"] |= expected
        else:
            params |= expected
        if self.chance(0.1):
            params["raise_on_not_found"] = True
        return params

    def draw_delete(self) -> Row:
        params = self.target(alive=self.chance(0.8))
        params |= self.expecting(self.row_of(params.get("id")), 0.3)
        return self._deleting(params)

    def _deleting(self, params: Row) -> Row:
        if self.shop.has(self.model, "soft_delete"):
            choice = self.rng.random()
            if choice < 0.3:
                params["soft_delete"] = choice < 0.1
            if self.chance(0.2):
                params["include_deleted"] = True
        return params

    def draw_restore(self) -> Row:
        gone = [row for row in self.near(alive=False) if not self.world.lives(self.model, row)]
        key = self.rng.choice(gone)["id"] if gone and self.chance(0.9) else self.key()
        params: Row = {"id": key} if self.chance(0.8) else {"conditions": self.filter(1, relations=False)}
        params |= self.expecting(self.row_of(key) if "id" in params else None, 0.3)
        if self.chance(0.2):
            params["cascade"] = self.chance(0.5)
        return params

    def draw_purge(self) -> Row:
        return {"older_than": 0, **({"limit": 1} if self.chance(0.3) else {})}

    def draw_list(self) -> Row:
        params: Row = {"filter": self.filter()} if self.chance(0.7) else {}
        if self.chance(0.5):
            names = self.rng.sample(sorted(MODELS[self.model]), k=self.rng.choice((1, 2)))
            params["sort"] = [{name: self.rng.choice((1, -1))} for name in names]
        if self.chance(0.25):
            params["include"] = self.includes()
        if self.chance(0.2):
            params["include_total"] = True
        elif self.chance(0.1):
            return self.flags({"filter": params.get("filter", {}), "count_only": True})
        if self.chance(0.35):
            params["limit"] = self.rng.randint(1, 3)
        elif self.chance(0.2):
            params |= {"limit": 50, "offset": self.rng.randint(0, 3)}
        return self.flags(params)

    def draw_count(self) -> Row:
        return self.flags({"filter": self.filter()})

    def draw_aggregate(self) -> Row:
        numbers = [name for name, field in MODELS[self.model].items() if field.kind != "str" and not field.refers]
        name = self.rng.choice(numbers)
        functions = ("$sum", "$min", "$max", "$count", "$count_distinct", *(["$avg"] if name != "total" else []))
        params: Row = {"aggregate": {"n": {"$count": "*"}, "x": {self.rng.choice(functions): name}}}
        if self.chance(0.6):
            params["group_by"] = [self.rng.choice(sorted(set(MODELS[self.model]) - {name, "id"}))]
        if self.chance(0.3):
            params["having"] = {"n": {"$gt": 1}}
        if self.chance(0.6):
            params["filter"] = self.filter()
        return self.flags(params)

    def draw_sql(self) -> Row:
        return {}

    def _upsert_key(self, values: Row) -> str:
        """Return the field of the unique key to go by."""
        del values
        return next((name for name, field in MODELS[self.model].items() if field.unique), "id")

    def draw_upsert(self) -> Row:
        if self.model == "Line":  # has no unique key but its id
            self.model = self.rng.choice(("Customer", "Order", KEYED))
        values = self.record()
        key = self._upsert_key(values)
        pool = self.near()
        if pool and self.chance(0.6):
            values[key] = self.rng.choice(pool)[key]
        params: Row = {"where": {key: values.pop(key)}, "create": values}
        if self.chance(0.5):
            params["update"] = self.changes(unique=self.chance(0.2)) if self.chance(0.9) else {}
        elif not values:
            params["create"] = {}
        row = next((row for row in pool if row[key] == params["where"][key]), None)
        expected = self.expecting(row)
        place = self.rng.choice(("", "create", "update"))
        (params if not expected or not isinstance(params.get(place), dict) else params[place]).update(expected)
        return params

    def _many(self) -> int:
        crowded = len(self.world.tables[self.model]) >= CROWD
        return 1 if crowded else self.rng.choice((1, 2, 3, 4))

    def draw_bulk_create(self) -> Row:
        params: Row = {"data": [self.record() for _ in range(self._many())]}
        choice = self.rng.random()
        if choice < 0.3:
            params["conflict_resolution"] = "skip"
        elif choice < 0.5 and self.model != "Line":
            key = self._upsert_key({})
            params["conflict_resolution"] = "upsert"
            params["data"] = _uniform(params["data"], key)
        elif choice < 0.7:
            params["on_error"] = self.rng.choice(("skip", "collect"))
            if self.chance(0.4):
                params["data"].insert(self.rng.randint(0, len(params["data"])), self._wrong_row())
        if self.chance(0.6):
            params["return_ids"] = True
        return params

    def _wrong_row(self) -> Row:
        row = self.record()
        name = self.rng.choice(sorted(MODELS[self.model]))
        row[name] = {"int": "7", "str": 7, "decimal": "x"}[MODELS[self.model][name].kind]
        return row

    def draw_bulk_upsert(self) -> Row:
        if self.model == "Line":
            self.model = self.rng.choice(("Customer", "Order", KEYED))
        key = self._upsert_key({})
        rows = []
        pool = self.near()
        for _ in range(self._many()):
            row = self.record()
            if pool and self.chance(0.5):
                row[key] = self.rng.choice(pool)[key]
            rows.append(row)
        if self.shop.has(self.model, "versioned") and self.chance(0.4):
            for row in rows:
                there = next((other for other in pool if other[key] == row[key]), None)
                row.update(self.expecting(there, 0.7))
        params: Row = {"data": _uniform(rows, key), "key_fields": [key]}
        if self.chance(0.5):
            params["return_ids"] = True
        return params

    def draw_bulk_update(self) -> Row:
        params: Row
        if self.chance(0.5):
            params = {"filter": self.filter(), "update": self.changes(unique=self.chance(0.1))}
            if self.chance(0.2):
                params["limit"] = self.rng.randint(1, 2)
        else:
            keys = list(dict.fromkeys(self.key() for _ in range(self.rng.choice((1, 2, 3)))))
            rows = []
            alike = self.changes(operators=False, unique=False)
            for key in keys:
                row = {"id": key, **(alike if self.chance(0.6) else self.changes(unique=False))}
                rows.append({**row, **self.expecting(self.row_of(key))})
            params = {"data": rows}
            if self.chance(0.3):
                params["on_error"] = "collect"
        if self.chance(0.5):
            params["return_ids"] = True
        return params

    def draw_bulk_delete(self) -> Row:
        params: Row
        if self.chance(0.4):
            keys = list(dict.fromkeys(self.key(alive=self.chance(0.7)) for _ in range(self.rng.choice((1, 2, 3)))))
            params = {"ids": keys}
        else:
            params = {"filter": self.filter(), "confirmed": True}
            if self.chance(0.1):
                params = {"filter": {}, "confirmed": self.chance(0.3)}
            if self.chance(0.2):
                params["limit"] = self.rng.randint(1, 2)
        if self.chance(0.15):
            params |= {"confirmation_required": True, "confirmed": False}
        if self.chance(0.5):
            params["return_ids"] = True
        return self._deleting(params)

    # -- faults -------------------------------------------------------------------------------------------------------
    def _spoil(self, params: Row) -> None:
        """Make something about an operation wrong, or at least strange."""
        places = [params[name] for name in ("values", "create", "update") if isinstance(params.get(name), dict)]
        rows = params.get("data")
        places += [self.rng.choice(rows)] if rows else []
        kinds = ["option", *(["field", "kept", "kept", "type", "tenant"] if places else [])]
        kind = self.rng.choice(kinds)
        if kind == "option":
            name, value = self.rng.choice(
                (("include_deleted", True), ("soft_delete", True), ("version", 1), ("tenant_id", self._tenant()))
            )
            fits = {
                "include_deleted": self.kind in ("read", "list", "count", "aggregate"),
                "soft_delete": self.kind in ("delete", "bulk_delete"),
                "version": self.kind in ("update", "delete", "upsert", "restore"),
                "tenant_id": self.kind != "sql",
            }
            if fits[name] and not (name == "include_deleted" and params.get("only_deleted")):
                params[name] = value
            return
        place = self.rng.choice(places)
        if kind == "field":
            place[self.rng.choice(("nmae", "_deletion", "_alive", "password"))] = 1
        elif kind == "kept":
            place[self.rng.choice(("deleted_at", "version"))] = self.rng.choice((MOMENT, 7))
        elif kind == "tenant":
            place["tenant_id"] = self._tenant()
        else:
            name = self.rng.choice(sorted(MODELS[self.model]))
            place[name] = {"int": "7", "str": 7, "decimal": "x"}[MODELS[self.model][name].kind]


def _uniform(rows: Sequence[Row], key: str) -> list[Row]:
    """Leave one row for each key."""
    return list({row[key]: row for row in rows}.values())


def _has_default(field: Field) -> bool:
    return field.default is not REQUIRED


def _reaches(params: Mapping[str, Any], model: str) -> bool:
    """Tell whether an operation looks at related records."""
    del model
    names = {name for relations in RELATIONS.values() for name in relations}
    return "include" in params or any(f"'{name}': " in repr(params.get("filter", params.get("conditions")))
                                      for name in names)  # fmt: skip
