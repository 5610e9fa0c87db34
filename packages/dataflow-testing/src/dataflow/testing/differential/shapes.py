"""Templates of all operations.

A pool holds some templates per operation and model. It belongs to a range of seeds: the next range gets other shapes.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from random import Random
from typing import Any

from dataflow.testing.differential import updates
from dataflow.testing.differential import values as v
from dataflow.testing.differential.conditions import Fill, document, mapping
from dataflow.testing.differential.models import TABLES
from dataflow.testing.differential.parts import (
    Template,
    both,
    chosen_fields,
    key_parts,
    key_value,
    one_record,
    op_of,
    options,
    written,
)
from dataflow.testing.differential.world import World
from dataflow.testing.oracle import FUNCTIONS, NUMERIC, ORDERED, RELATIONS

SIZES: Mapping[str, int] = {
    "create": 10,
    "read": 14,
    "update": 22,
    "delete": 10,
    "list": 36,
    "count": 10,
    "aggregate": 24,
    "upsert": 12,
    "bulk_create": 14,
    "bulk_update": 16,
    "bulk_delete": 12,
    "bulk_upsert": 12,
}
"""Templates per operation and model."""
EPOCH = 2000
"""Programs that share a pool."""
INCLUDES: Mapping[str, Sequence[Sequence[str]]] = {
    "Vendor": (["parts"], ["visits", "parts"], ["parts.shelves"], ["visits.shelves.part"]),
    "Part": (["vendor"], ["shelves"], ["vendor.visits", "shelves"]),
    "Visit": (["vendor"], ["shelves"], ["shelves.part.vendor"]),
    "Shelf": (["visit"], ["part"], ["part.vendor", "visit"], ["visit.vendor.parts"]),
    "Rate": ([],),
}


@lru_cache(maxsize=8)
def pool(epoch: int) -> Mapping[tuple[str, str], Sequence[Template]]:
    """Return the templates of a range of seeds, by (operation, model)."""
    found = {}
    for kind, size in SIZES.items():
        for model in TABLES:
            shapes = Random(f"{epoch}/{kind}/{model}")  # noqa: S311
            found[kind, model] = [BUILDERS[kind](shapes, model) for _ in range(size)]
    return found


def create(shapes: Random, model: str) -> Template:
    """Insert one record; now and then with an id of its own."""
    names = chosen_fields(shapes, model)
    top = shapes.random() < 0.5
    explicit = TABLES[model].auto and shapes.random() < 0.15
    inner = written(model, names, explicit=explicit)
    return op_of("create", model, inner if top else mapping({"values": inner}))


def read(shapes: Random, model: str) -> Template:
    """Read one record."""
    table = TABLES[model]
    more = options(shapes, {
        "fields": (0.3, [shapes.sample(table.columns, shapes.randrange(1, 4))]),
        "include": (0.3, INCLUDES[model]),
        "raise_on_not_found": (0.3, [True]),
    })  # fmt: skip
    return op_of("read", model, both(one_record(shapes, model, keyed=0.5), mapping(more)))


def update(shapes: Random, model: str) -> Template:
    """Change one record, or all that match conditions."""
    which = one_record(shapes, model, keyed=0.7, spelling=("conditions", "filter"))
    changes = updates.changes(shapes, model)
    style = shapes.choice(("values", "fields", "top"))
    styled: Fill = changes if style == "top" else mapping({style: changes})
    strict = mapping(options(shapes, {"raise_on_not_found": (0.2, [True])}))
    return op_of("update", model, both(which, styled, strict))


def delete(shapes: Random, model: str) -> Template:
    """Remove one record, or all that match conditions."""
    return op_of("delete", model, one_record(shapes, model, keyed=0.7))


def upsert(shapes: Random, model: str) -> Template:
    """Change or create by a unique key."""
    table = TABLES[model]
    names = shapes.choice([*table.keys, *table.uniques] if table.auto else table.keys)
    others = [name for name in chosen_fields(shapes, model, 4) if name not in names and name not in table.key]
    others += [name for name in (*table.required,) if name not in names and name not in others]
    create_values = written(model, others)
    spelled = shapes.choice(("both", "both", "create", "conflict_on"))
    changes = updates.changes(shapes, model)

    def fill(rng: Random, world: World) -> dict[str, Any]:
        where = key_value(rng, world, model, names)
        new = create_values(rng, world)
        if spelled == "conflict_on":
            return {"where": {**where, **new}, "conflict_on": list(names)}
        update_values = {"update": changes(rng, world)} if spelled == "both" else {}
        return {"where": where, **({"create": new} if new else {}), **update_values}

    return op_of("upsert", model, fill)


def sort(shapes: Random, names: Sequence[str]) -> dict[str, Fill]:
    """Choose a sort in one of its spellings."""
    pairs = [
        (name, shapes.random() < 0.5) for name in shapes.sample(names, min(len(names), shapes.choice((1, 1, 2, 3))))
    ]
    parameter = shapes.choice(("sort", "order_by"))
    if shapes.random() < 0.5:
        given: Any = [{name: -1 if down else 1} for name, down in pairs]
    else:
        given = [("-" if down else "") + name for name, down in pairs]
        given = given[0] if len(given) == 1 and shapes.random() < 0.5 else given
    return {parameter: lambda _rng, _world: given}


def limit(most: int) -> Fill:
    """Fill in a limit: small, or beyond everything."""
    return lambda rng, _world: rng.choice((2**63 - 1, 10**30)) if rng.random() < 0.02 else rng.randrange(most)


def listing(shapes: Random, model: str) -> Template:
    """List records: filter, sort, page, fields, include, totals."""
    table = TABLES[model]
    parts: dict[str, Fill] = {}
    if shapes.random() < 0.75:
        parts["filter"] = document(shapes, model)
    sortable = [name for name, kind in table.kinds.items() if kind in ORDERED or kind == "bool"]
    sortable += ["created_at", "updated_at"] if table.stamped else []
    if shapes.random() < 0.6:
        parts |= sort(shapes, sortable)
    if shapes.random() < 0.5:
        parts["limit"] = limit(5)
    if shapes.random() < 0.25:
        parts["offset"] = limit(4)
    parts |= options(shapes, {
        "fields": (0.25, [shapes.sample(table.columns, shapes.randrange(1, 5))]),
        "include": (0.25, INCLUDES[model]),
        "include_total": (0.25, [True]),
        "count_only": (0.06, [True]),
    })  # fmt: skip
    return op_of("list", model, mapping(parts))


def count(shapes: Random, model: str) -> Template:
    """Count records."""
    inner = document(shapes, model)
    return op_of("count", model, mapping({"filter": inner} if shapes.random() < 0.9 else {}))


def aggregate(shapes: Random, model: str) -> Template:
    """Compute aggregates per group."""
    table = TABLES[model]
    groupable = [name for name, kind in table.kinds.items() if kind in ORDERED or kind == "bool"]
    groups = shapes.sample(groupable, shapes.choice((0, 1, 1, 2)))
    items: dict[str, dict[str, str]] = {}
    for position in range(shapes.choice((1, 1, 2, 3))):
        function = shapes.choice(FUNCTIONS)
        items[f"x_{position}"] = {function: shapes.choice(aggregable(model, function))}
    return op_of("aggregate", model, mapping(aggregate_parts(shapes, model, groups, items)))


def aggregable(model: str, function: str) -> list[str]:
    """Return what a function can be applied to."""
    table = TABLES[model]
    kinds = {"$sum": NUMERIC, "$avg": NUMERIC, "$min": ORDERED, "$max": ORDERED}.get(function)
    found = [
        name for name, kind in table.kinds.items()
        if (kinds is None or kind in kinds) and not (function in ("$sum", "$avg") and name in table.refs)
    ]  # fmt: skip
    return ["*", *found] if function == "$count" or not found else found


def aggregate_parts(
    shapes: Random, model: str, groups: Sequence[str], items: dict[str, dict[str, str]]
) -> dict[str, Fill]:
    """Return templates of the params of an aggregate."""
    items = {name: item if "*" not in item.values() else {"$count": "*"} for name, item in items.items()}
    parts: dict[str, Fill] = {"aggregate": lambda _rng, _world: items}
    if groups:
        parts["group_by"] = lambda _rng, _world: list(groups)
    if shapes.random() < 0.4:
        parts["filter"] = document(shapes, model, 1)
    if shapes.random() < 0.5:
        parts |= sort(shapes, [*groups, *items])
    if shapes.random() < 0.3:
        parts["limit"] = limit(4)
    counts = [name for name, item in items.items() if next(iter(item)).startswith("$count")]
    if counts and shapes.random() < 0.5:
        op = shapes.choice(("$gt", "$gte", "$lt", "$ne", "$eq"))
        parts["having"] = mapping({counts[0]: mapping({op: lambda rng, _world: rng.randrange(3)})})
    return parts


def row_sets(shapes: Random, model: str) -> list[Fill]:
    """Choose templates of rows with different keys."""
    auto = TABLES[model].auto
    found = []
    for _ in range(shapes.choice((1, 2, 2, 3))):
        explicit = auto and shapes.random() < 0.1
        found.append(written(model, chosen_fields(shapes, model, 4), explicit=explicit))
    return found


def rows_of(sets: Sequence[Fill], most: int = 5) -> Fill:
    """Return a template of rows."""
    return lambda rng, world: [rng.choice(sets)(rng, world) for _ in range(rng.randrange(most + 1))]


def shared(shapes: Random, model: str) -> dict[str, Fill]:
    """Choose a default that all rows of a bulk share."""
    table = TABLES[model]
    usable = [name for name in table.kinds if name not in table.key and not any(name in key for key in table.uniques)]
    if shapes.random() < 0.7:
        return {}
    name = shapes.choice(usable)
    return {name: lambda rng, world: v.field_value(rng, world, model, name)}


def bulk_create(shapes: Random, model: str) -> Template:
    """Insert many records."""
    conflict = shapes.choice(("error", "error", "skip", "upsert"))
    more = options(shapes, {
        "return_ids": (0.4, [True]),
        "batch_size": (0.4, [1, 2, 3]),
        "commit_every": (0.12, [1, 2]),
        **({} if conflict == "upsert" else {"on_error": (0.5, ["stop", "skip", "collect"])}),
        "conflict_resolution": (1 if conflict != "error" else 0.3, [conflict]),
    })  # fmt: skip
    sets = row_sets(shapes, model)
    if conflict == "upsert":
        names = shapes.choice(TABLES[model].keys)
        more |= options(shapes, {"key_fields": (0.7, [list(names)])})
        sets = upsert_sets(shapes, model, names)
    return op_of("bulk_create", model, mapping({"data": rows_of(sets), **more, **shared(shapes, model)}))


def upsert_sets(shapes: Random, model: str, names: Sequence[str]) -> list[Fill]:
    """Choose templates of rows that all hold a unique key."""
    sets: list[Fill] = []
    for _ in range(shapes.choice((1, 2))):
        others = [name for name in chosen_fields(shapes, model, 3) if name not in names]
        inner = written(model, others)

        def fill(rng: Random, world: World, inner: Fill = inner) -> dict[str, Any]:
            return {**key_value(rng, world, model, names), **inner(rng, world)}

        sets.append(fill)
    return sets


def bulk_upsert(shapes: Random, model: str) -> Template:
    """Create or change many records by a unique key."""
    table = TABLES[model]
    names = shapes.choice(table.keys if not table.auto else (*table.uniques, *table.uniques, table.key))
    more = options(shapes, {
        "key_fields": (1 if table.key != names else 0.5, [list(names), list(reversed(names))]),
        "return_ids": (0.4, [True]),
        "batch_size": (0.3, [1, 2]),
        "commit_every": (0.1, [2]),
        "on_duplicate": (0.85, ["last", "last", "last", "error"]),
    })  # fmt: skip
    data = rows_of(upsert_sets(shapes, model, names))
    return op_of("bulk_upsert", model, mapping({"data": data, **more, **shared(shapes, model)}))


def bulk_update(shapes: Random, model: str) -> Template:
    """Change many records: by filter, or row by row."""
    more = options(shapes, {"return_ids": (0.4, [True])})
    if shapes.random() < 0.4:
        sets = [updates.changes(shapes, model) for _ in range(shapes.choice((1, 2)))]
        parts = key_parts(model)

        def rows(rng: Random, world: World) -> list[Any]:
            found = {}
            for _ in range(rng.randrange(1, 4)):
                row = {**parts(rng, world), **rng.choice(sets)(rng, world)}
                found[tuple(row[name] for name in TABLES[model].key)] = row
            return list(found.values())

        return op_of("bulk_update", model, mapping({"data": rows, **more}))
    if shapes.random() < 0.3:
        more["limit"] = limit(4)
    inner = {"filter": document(shapes, model, 1), "update": updates.changes(shapes, model)}
    return op_of("bulk_update", model, mapping({**inner, **more}))


def bulk_delete(shapes: Random, model: str) -> Template:
    """Remove many records: by filter, or by keys."""
    more = options(shapes, {
        "return_ids": (0.4, [True]),
        "confirmation_required": (0.3, [True]),
        "confirmed": (0.4, [True]),
    })  # fmt: skip
    if shapes.random() < 0.4:
        one = key_parts(model)

        def ids(rng: Random, world: World) -> list[Any]:
            found = [one(rng, world) for _ in range(rng.randrange(3))]
            return [
                next(iter(each.values())) if len(each) == 1 else rng.choice((each, tuple(each.values())))
                for each in found
            ]

        return op_of("bulk_delete", model, mapping({"ids": ids, **more}))
    if shapes.random() < 0.6:
        more["limit"] = limit(3)
    return op_of("bulk_delete", model, mapping({"filter": document(shapes, model, 1), **more}))


BUILDERS: Mapping[str, Callable[[Random, str], Template]] = {
    "create": create,
    "read": read,
    "update": update,
    "delete": delete,
    "list": listing,
    "count": count,
    "aggregate": aggregate,
    "upsert": upsert,
    "bulk_create": bulk_create,
    "bulk_update": bulk_update,
    "bulk_delete": bulk_delete,
    "bulk_upsert": bulk_upsert,
}
__all__ = ["EPOCH", "RELATIONS", "Template", "pool"]
