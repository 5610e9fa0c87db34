"""Operations with wrong input, and the error that each must raise: nothing may be written, on any database."""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, time
from decimal import Decimal
from random import Random
from typing import Any

from dataflow.testing.differential import values as v
from dataflow.testing.differential.models import TABLES
from dataflow.testing.differential.parts import key_parts
from dataflow.testing.differential.programs import Op, Wrong
from dataflow.testing.differential.world import World

Fault = Callable[[Random, World, str], tuple[str, dict[str, Any], str]]
"""(values, tables, model) -> (operation, params, code)."""
BAD: Mapping[str, Sequence[Any]] = {
    "int": (2**63, -(2**63) - 1, True, 1.0, "1", Decimal(1), [1], {"a": 1}),
    "float": (math.nan, math.inf, True, "1.0", Decimal(1), 10**400),
    "str": ("a\0b", "\ud800", 1, b"a", ["a"]),
    "bool": (0, 1, "true", 1.0),
    "bytes": ("a", 1, [1]),
    "datetime": ("2025-01-31T00:00:00", 0, time(1)),
    "date": ("2025-01-31", datetime(2025, 1, 31, tzinfo=UTC), 1),
    "time": ("12:00", time(12, tzinfo=UTC), 1),
    "decimal": (Decimal("NaN"), Decimal("Infinity"), 1.5, "1.5", True, Decimal("1E+131072")),
    "uuid": ("not a uuid", 1, b"a" * 16),
    "enum": ("no such member", 1, b"red"),
    "json": (math.nan, {"a": math.inf}, {1: "a"}, ["a\0"], {"a": Decimal(1)}, {"a": {2, 3}}),
    "list": ("a", {"a": 1}, {1, 2}, 1),
}
"""Values that a field of a kind refuses."""


def bad_value(rng: Random, kind: str) -> Any:
    """Return a value that a field of a kind must refuse."""
    if not kind.startswith("list["):
        return rng.choice(BAD[kind])
    if rng.random() < 0.5:
        return rng.choice(BAD["list"])
    wrong = None if rng.random() < 0.3 else rng.choice(BAD[kind[5:-1]])
    return [wrong]


def _required(rng: Random, world: World, model: str) -> dict[str, Any]:
    return {name: v.field_value(rng, world, model, name) for name in TABLES[model].required}


def _free(model: str) -> list[str]:
    table = TABLES[model]
    return [name for name in table.kinds if name not in table.key and name not in table.refs]


def _spare(model: str) -> str:
    return [name for name in _free(model) if TABLES[model].nullable(name)][-1]


def _key(rng: Random, world: World, model: str) -> dict[str, Any]:
    found: dict[str, Any] = key_parts(model)(rng, world)
    return {"id": found if len(found) > 1 else next(iter(found.values()))}


def _of_kind(rng: Random, model: str, *refused: str) -> str:
    names = [name for name in _free(model) if not TABLES[model].kinds[name].startswith(refused)]
    return rng.choice(names or TABLES[model].key[-1:])


def wrong_create(rng: Random, world: World, model: str) -> tuple[str, dict[str, Any], str]:
    """Give a field a value that it refuses."""
    name = rng.choice(_free(model))
    value = bad_value(rng, TABLES[model].kinds[name])
    return "create", {"values": {**_required(rng, world, model), name: Wrong(value)}}, "wrong-value"


def wrong_none(rng: Random, world: World, model: str) -> tuple[str, dict[str, Any], str]:
    """Give None to a field that must have a value."""
    solid = TABLES[model].solid or TABLES[model].key
    return "create", {"values": {**_required(rng, world, model), rng.choice(solid): None}}, "wrong-value"


def missing_field(rng: Random, world: World, model: str) -> tuple[str, dict[str, Any], str]:
    """Leave out a required field, or where there is none, name one that does not exist."""
    required = _required(rng, world, model)
    if not required:
        return "create", {"values": {"nmae": 1}}, "unknown-field"
    del required[rng.choice(list(required))]
    return "create", {"values": required}, "missing-field"


def wrong_update(rng: Random, world: World, model: str) -> tuple[str, dict[str, Any], str]:
    """Change a record in a way that cannot be meant."""
    table = TABLES[model]
    name = rng.choice(_free(model))
    kind = table.kinds[name]
    no_number = _of_kind(rng, model, "int", "float", "decimal")
    no_list = _of_kind(rng, model, "list", "json") if model != "Shelf" else "visit_id"
    choices: list[tuple[dict[str, Any], str]] = [
        ({name: Wrong(bad_value(rng, kind))}, "wrong-value"),
        ({table.key[0]: "x"}, "key-changed"),
        ({}, "empty-update"),
        ({name: {"$push": 1}}, "unknown-operator"),
        ({"$rename": {name: "x"}}, "unknown-operator"),
        ({no_number: {"$inc": 1}}, "bad-operator"),
        ({"nmae": 1}, "unknown-field"),
        ({"$set": {_spare(model): None}, _spare(model): None}, "twice"),
    ]
    choices.append(({no_list: {"$append": 1}}, "bad-operator"))
    if model == "Part":
        choices.append(({rng.choice(("number", "ratio", "price")): {"$divide": Wrong(0)}}, "wrong-value"))
        choices.append(({"number": {"$inc": Wrong(1.5)}}, "wrong-value"))
        choices.append(({"number": {"$multiply": Wrong("2")}}, "wrong-value"))
        choices.append(({"price": {"$max": None}}, "wrong-value"))
    values, code = rng.choice(choices)
    if rng.random() < 0.3:
        return "bulk_update", {"filter": {}, "update": values}, code
    return "update", {**_key(rng, world, model), "values": values}, code


def wrong_filter(rng: Random, world: World, model: str) -> tuple[str, dict[str, Any], str]:
    """Ask a question that has no meaning."""
    del world
    table = TABLES[model]
    ordered = _of_kind(rng, model, "json", "list", "bool")
    text = _of_kind(rng, model, "str", "json", "list")
    plain = _of_kind(rng, model, "json")
    document, code = rng.choice((
        ({"nmae": 1}, "unknown-field"),
        ({plain: {"$like_": "a"}}, "unknown-operator"),
        ({"$xor": [{}]}, "unknown-operator"),
        ({ordered: {"$gt": None}}, "bad-operand") if model != "Shelf" else ({"slot": {"$lt": None}}, "bad-operand"),
        ({text: {"$like": "a"}}, "bad-operator"),
        ({plain: {"$in": 1}}, "bad-operand"),
        ({plain: {"$null": 1}}, "bad-operand"),
        ({"$and": []}, "bad-filter"),
        ({plain: {}}, "bad-filter"),
        ({f"{plain}.a": 1}, "not-json"),
        ({next(iter(table.key)): {"$overlap": [1]}}, "bad-operator"),
        ({"$or": [1]}, "bad-filter"),
    ))  # fmt: skip
    node = rng.choice(("list", "count", "bulk_delete", "bulk_update", "read"))
    if node == "bulk_update":
        return node, {"filter": document, "update": {_spare(model): None}}, code
    if node == "read":
        return node, {"conditions": document}, code
    return node, {"filter": document}, code


def wrong_pattern(rng: Random, world: World, model: str) -> tuple[str, dict[str, Any], str]:
    """Ask with an operand of the wrong type, or a pattern that not every database has."""
    del world, model
    document = rng.choice((
        {"title": {"$regex": "(?=a)"}},
        {"title": {"$regex": "("}},
        {"title": {"$like": "a\\"}},
        {"number": 2**63},
        {"number": {"$gt": "1"}},
        {"price": {"$in": [1.5]}},
        {"flag": 1},
        {"color": "no such member"},
        {"ratio": {"$lt": math.nan}},
        {"raw": "a"},
    ))  # fmt: skip
    return rng.choice(("list", "count")), {"filter": document}, "wrong-value"


def wrong_list(rng: Random, world: World, model: str) -> tuple[str, dict[str, Any], str]:
    """Ask for an order, page or relation that there is not."""
    del world
    shapeless = {"Vendor": "profile", "Shelf": "words"}.get(model)
    choices: list[tuple[dict[str, Any], str]] = [
        ({"sort": "nmae"}, "unknown-field"),
        ({"sort": [{TABLES[model].key[0]: 2}]}, "bad-parameter"),
        ({"sort": [TABLES[model].key[0], "-" + TABLES[model].key[0]]}, "bad-sort"),
        ({"limit": -1}, "bad-parameter"),
        ({"limit": "3"}, "bad-parameter"),
        ({"offset": 1.0}, "bad-parameter"),
        ({"cursor": "no cursor"}, "bad-cursor"),
        ({"include": ["nobody"]}, "unknown-relation"),
        ({"fields": ["nmae"]}, "unknown-field"),
        ({"lmit": 1}, "unknown-parameter"),
        ({"include_total": 1}, "bad-parameter"),
    ]
    if shapeless:
        choices.append(({"sort": shapeless}, "bad-sort"))
    params, code = rng.choice(choices)
    return "list", params, code


def wrong_key(rng: Random, world: World, model: str) -> tuple[str, dict[str, Any], str]:
    """Name no record, or name it twice."""
    kind = rng.choice(("read", "update", "delete"))
    more = {"values": {_spare(model): None}} if kind == "update" else {}
    one = _key(rng, world, model)
    params, code = rng.choice((
        ({"conditions": {}}, "bad-parameter"),
        ({**one, "conditions": {TABLES[model].key[0]: {"$exists": True}}}, "bad-parameter"),
        ({"id": None}, "missing-key" if len(TABLES[model].key) == 1 else "bad-parameter"),
        ({"id": (1, 2, 3)}, "wrong-value" if len(TABLES[model].key) == 1 else "bad-parameter"),
        ({**one, "idd": 1}, "unknown-parameter"),
    ))  # fmt: skip
    return kind, {**params, **more}, code


def wrong_aggregate(rng: Random, world: World, model: str) -> tuple[str, dict[str, Any], str]:
    """Compute what cannot be computed."""
    del world
    key = TABLES[model].key[0]
    no_number = _of_kind(rng, model, "int", "float", "decimal")
    no_order = {"Vendor": "profile", "Part": "flag", "Shelf": "flags"}.get(model, "nmae")
    choices: list[tuple[dict[str, Any], str]] = [
        ({"aggregate": {}}, "missing-aggregate"),
        ({"aggregate": {"x": {"$median": key}}}, "unknown-operator"),
        ({"aggregate": {"x": {"$sum": no_number}}}, "bad-aggregate"),
        ({"aggregate": {"x": {"$max": no_order}}}, "unknown-field" if no_order == "nmae" else "bad-aggregate"),
        ({"aggregate": {"x": {"$count": "*"}}, "sort": "y"}, "bad-parameter"),
        ({"aggregate": {"x": {"$count": "*"}}, "having": {"y": 1}}, "unknown-field"),
        ({"aggregate": {"x": {"$count": "*"}}, "group_by": ["nmae"]}, "unknown-field"),
        ({"aggregate": {key: {"$count": "*"}}, "group_by": [key]}, "bad-aggregate"),
    ]
    params, code = rng.choice(choices)
    return "aggregate", params, code


def wrong_upsert(rng: Random, world: World, model: str) -> tuple[str, dict[str, Any], str]:
    """Upsert by what is no unique key."""
    name = {"Vendor": "name", "Part": "sku", "Visit": "note", "Shelf": "aisle", "Rate": "factor"}[model]
    required = _required(rng, world, model)
    where = {name: required.pop(name, 0.5 if model == "Rate" else "a")}
    if rng.random() < 0.3:
        return "upsert", {"where": {}}, "missing-key"
    if rng.random() < 0.3:
        return "bulk_upsert", {"data": [{**required, **where}], "key_fields": [name]}, "not-unique"
    return "upsert", {"where": where, "create": required}, "not-unique"


def wrong_rows(rng: Random, world: World, model: str) -> tuple[str, dict[str, Any], str]:
    """Give bulk operations rows that are none, or one row too many."""
    required = _required(rng, world, model)
    key = {name: rng.choice(v.DOMAINS.get((model, name), (1,))) for name in TABLES[model].key}
    choices: list[tuple[str, dict[str, Any], str]] = [
        ("bulk_create", {"data": [required, {**required, "nmae": 1}]}, "unknown-field"),
        ("bulk_create", {"data": {"a": 1}}, "bad-parameter"),
        ("bulk_create", {"data": [1]}, "bad-parameter"),
        ("bulk_create", {"data": [required], "conflict_resolution": "merge"}, "bad-parameter"),
        ("bulk_create", {"data": [required], "batch_size": 0}, "bad-parameter"),
        ("bulk_upsert", {"data": [{**required, **key}] * 2, "key_fields": list(key)}, "duplicate-key"),
        ("bulk_update", {"data": [{**key, _spare(model): None}] * 2}, "duplicate-key"),
        ("bulk_update", {"data": [{_spare(model): None}]}, "bad-parameter"),
        ("bulk_update", {"data": [key]}, "empty-update"),
        ("bulk_delete", {"filter": {}}, "unconfirmed"),
        ("bulk_delete", {"filter": {}, "ids": []}, "missing-data"),
        ("bulk_delete", {}, "missing-data"),
    ]
    return rng.choice(choices)


FAULTS: Sequence[Fault] = (
    wrong_create, wrong_create, wrong_none, missing_field, wrong_update, wrong_update, wrong_filter, wrong_filter,
    wrong_list, wrong_key, wrong_aggregate, wrong_upsert, wrong_rows, wrong_rows,
)  # fmt: skip


def faulty(rng: Random, world: World, number: int) -> Op:
    """Draw an operation that must be refused."""
    model = rng.choice(list(TABLES))
    if rng.random() < 0.08:
        kind, params, code = wrong_pattern(rng, world, "Part")
        return Op(number, kind, "Part", params, ("InputError", code))
    kind, params, code = rng.choice(FAULTS)(rng, world, model)
    return Op(number, kind, model, params, ("InputError", code))
