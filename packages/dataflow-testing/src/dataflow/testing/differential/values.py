"""Random values of fields: small pools so that filters hit and keys clash, edges, and now and then anything.

A *form* fixes the Python type a value is spelled with ("plain", "int", "text"), because plans go by it.
"""

import string
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from random import Random
from typing import Any
from uuid import UUID

from dataflow.testing.differential.models import TABLES
from dataflow.testing.differential.programs import GHOSTS, SPAN, Ref
from dataflow.testing.differential.world import World
from dataflow.testing.oracle import ENUMS, INT_MAX, INT_MIN, Level, stored_text
from dataflow.testing.oracle.pools import KEYS, LETTERS, MEMBERS, POOLS, TEXTS, WORDS

DOMAINS: Mapping[tuple[str, str], Sequence[Any]] = {
    ("Vendor", "code"): ("", "a", "A", "é", "😀"),
    ("Part", "sku"): ("a", "A", "日本"),
    ("Part", "batch"): (-1, 0, INT_MAX),
    ("Visit", "id"): ("", "a", "A", "b", "é", "z", "日本", "😀", "\uffff", "a'b", "100"),
    ("Visit", "token"): (UUID(int=0), UUID(int=1), UUID(int=2**127), UUID(int=2**128 - 1)),
    ("Shelf", "aisle"): ("a", "A", "é"),
    ("Shelf", "slot"): (INT_MIN, -1, 0, 2),
    ("Rate", "moment"): (datetime(1, 1, 1, tzinfo=UTC), datetime(2025, 1, 31, 12, tzinfo=UTC)),
    ("Rate", "price"): (Decimal(-1), Decimal("1.5"), Decimal(10), Decimal(9)),
    ("Rate", "token"): (UUID(int=1), UUID(int=2**127)),
    ("Rate", "level"): tuple(Level),
}
"""Fields in keys: few values, so that they clash."""
ZONES = (UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=9, minutes=30)))
EXTRA: Mapping[str, Sequence[Any]] = {
    "datetime": (
        datetime(1969, 12, 31, 23, 59, 59, 999999, UTC),
        datetime(2024, 2, 29, 12, 0, 0, 1, timezone(timedelta(hours=14))),
        datetime(2025, 3, 30, 1, 30, tzinfo=timezone(-timedelta(hours=3, minutes=30))),
        datetime(2025, 3, 30, 2, 30),  # noqa: DTZ001  # local time
        datetime(2024, 11, 3, 1, 30, fold=1),  # noqa: DTZ001
    ),
    "decimal": (
        Decimal("-0.00"),
        Decimal("1E+3"),
        Decimal("0.10"),
        Decimal(f"0.{'3' * 30}"),
        Decimal("1E+100"),
        Decimal("-1E-100"),
        Decimal("1.2345678901234567890123456785"),
    ),
    "float": (-0.0, 3, 2.5, 1e-300),
    "int": (INT_MIN + 1, 10, 7),
}
FORMS: Mapping[str, Sequence[str]] = {
    "float": ("plain", "int"),
    "decimal": ("plain", "int"),
    "uuid": ("plain", "text"),
    "enum": ("plain", "text"),
    "datetime": ("plain", "text"),
    "date": ("plain", "text"),
    "time": ("plain", "text"),
}
"""How operands of filters may be spelled."""
JSON_FORMS = ("int", "float", "str", "true", "false", "null", "dict", "empty list", "list")


def new_id(world: World, model: str, place: int = 0) -> Ref:
    """Return an id of the program's own choice for a new record, greater than all before."""
    return Ref(world.number * SPAN + 100 * (place + 1), model)


def ghost(rng: Random, model: str) -> Ref:
    """Return an id that belongs to no record."""
    return Ref(GHOSTS + rng.randrange(3), model)


def reference(rng: Random, world: World, model: str, *, orphans: float = 0.1) -> Ref:
    """Return the id of a record, or one of none."""
    keys = list(world.tables[model])
    if not keys or rng.random() < orphans:
        return ghost(rng, model)
    found: Ref = rng.choice(keys)[0]
    return found


def draw(rng: Random, kind: str, name: str = "") -> Any:
    """Return a random value of a kind, never None; as a user might pass it."""
    if kind == "json":
        return document(rng)
    if kind.startswith("list["):
        return [_element(rng, kind[5:-1], name) for _ in range(rng.randrange(4))]
    if kind == "enum":
        return rng.choice(list(ENUMS[name]))
    if kind == "bool":
        return rng.random() < 0.5
    if rng.random() < 0.25:
        return anything(rng, kind)
    if rng.random() < 0.2 and kind in EXTRA:
        return rng.choice(EXTRA[kind])
    return rng.choice(TEXTS if kind == "str" else POOLS[kind])


def _element(rng: Random, kind: str, name: str) -> Any:
    return rng.choice(WORDS) if kind == "str" else draw(rng, kind, name)


def anything(rng: Random, kind: str) -> Any:
    """Return a value from the whole range of a scalar kind."""
    if kind == "int":
        return rng.randrange(-(2 ** rng.randrange(1, 64)), 2 ** rng.randrange(1, 64))
    if kind == "float":
        return rng.uniform(-1, 1) * 10.0 ** rng.randrange(-12, 12)
    if kind == "decimal":
        digits = "".join(rng.choices(string.digits, k=rng.randrange(1, 25)))
        return Decimal(f"{rng.choice(('', '-'))}{digits}E{rng.randrange(-18, 6)}")
    if kind == "bytes":
        return rng.randbytes(rng.randrange(6))
    if kind == "uuid":
        return UUID(int=rng.getrandbits(128))
    if kind == "str":
        return "".join(rng.choices(LETTERS + string.printable + "ßıİǅ\u0301\u200d\ue000", k=rng.randrange(6)))
    moment = datetime(1, 1, 3, tzinfo=UTC) + timedelta(
        days=rng.randrange(3_652_050), seconds=rng.randrange(86_400), microseconds=rng.randrange(1_000_000)
    )
    parts: dict[str, Any] = {
        "date": moment.date(),
        "time": moment.time(),
        "datetime": moment.astimezone(rng.choice(ZONES)),
    }
    return parts[kind]


def document(rng: Random, depth: int = 2) -> Any:
    """Return a random JSON document, never None."""
    choice = rng.random()
    if depth == 0 or choice < 0.35:
        return (
            rng.choice((1, 1.0, True, [1], [1.0]) if choice < 0.05 else MEMBERS[1:]) if choice < 0.9 else _number(rng)
        )
    inner = [None if rng.random() < 0.1 else document(rng, depth - 1) for _ in range(rng.randrange(4))]
    if choice < 0.85:
        return dict(zip(rng.sample(KEYS, len(inner)), inner, strict=True))
    return inner


def _number(rng: Random) -> float:
    large = (rng.randrange(-(10**25), 10**25), 10**20 + 1, 2**63, 10**400)
    return rng.choice((*large, rng.uniform(-10, 10), 5e-324, 1.5e300, -0.0, 1e15))


def spelled(rng: Random, value: Any, form: str) -> Any:
    """Spell a value another way that filters accept; the Python type goes by the form."""
    if form == "int":
        return rng.randrange(-2, 3)
    if form != "text":
        return value
    if isinstance(value, Enum):
        return stored_text(value)
    if isinstance(value, UUID):
        return rng.choice((str(value), str(value).upper(), value.hex))
    if isinstance(value, datetime):
        return _moment_text(rng, value)
    return value.isoformat() if isinstance(value, (date, time)) else str(value)


def _moment_text(rng: Random, value: datetime) -> str:
    texts = [value.isoformat()]
    if 1 < value.year < 9999:
        utc = value.astimezone(UTC)
        texts += [utc.replace(tzinfo=None).isoformat(), utc.date().isoformat(), value.astimezone(ZONES[1]).isoformat()]
    return rng.choice(texts)


def plain_number(value: Any) -> Decimal:
    """Return a Decimal of at most thirty digits, so that results of arithmetic stay readable."""
    return Decimal(value) if len(Decimal(value).as_tuple().digits) <= 30 else Decimal(7)


def json_operand(rng: Random, form: str) -> Any:
    """Return an operand for JSON whose Python type goes by the form."""
    fixed: dict[str, Any] = {"true": True, "false": False, "null": None, "empty list": []}
    if form in fixed:
        return fixed[form]
    if form == "int":
        return rng.choice((0, 1, 2, 10**20, 10**20 + 1, 2**63, 10**400, rng.randrange(-5, 5)))
    if form == "float":
        return rng.choice((1.0, -1.5, 0.1, 1e20, 5e-324, rng.uniform(-2, 2)))
    if form == "str":
        return rng.choice(("", "a", "A", "ab", "é", "1"))
    if form == "dict":
        return dict(zip(rng.sample(KEYS, 2), (rng.choice(MEMBERS), rng.choice(MEMBERS)), strict=True))
    return [rng.choice(("", "a", "é")), rng.choice((0, 1, 2))]


def stored(rng: Random, world: World, model: str, name: str) -> Any:
    """Return the value of a field in some row, or None."""
    rows = world.tables[model]
    return rng.choice(list(rows.values()))[name] if rows else None


def field_value(rng: Random, world: World, model: str, name: str) -> Any:
    """Return a value to write into a field; None where it may be, sometimes."""
    table = TABLES[model]
    if table.nullable(name) and rng.random() < 0.15:
        return None
    if name in table.foreign:
        keys = list(world.tables[table.foreign[name][0]])
        if rng.random() < 0.06:
            return ghost(rng, table.refs[name]) if name in table.refs else "nowhere"
        return rng.choice(keys)[0] if keys else None
    if name in table.refs:
        return reference(rng, world, table.refs[name], orphans=0.15)
    if (model, name) in DOMAINS:
        return rng.choice(DOMAINS[model, name])
    kind = table.kinds[name]
    value = draw(rng, kind, name)
    if kind in ("uuid", "enum") and rng.random() < 0.2:
        return spelled(rng, value, "text")
    if kind.startswith("list[") and rng.random() < 0.1:
        return tuple(value)
    return value


def sought(rng: Random, world: World, model: str, name: str, form: str = "plain") -> Any:
    """Return an operand to compare a field with: often the value of some row; never None."""
    table = TABLES[model]
    kind = table.kinds[name]
    value = stored(rng, world, model, name) if rng.random() < 0.5 else None
    if name in table.refs:
        return value if value is not None else reference(rng, world, table.refs[name])
    if value is None:
        domain = DOMAINS.get((model, name))
        value = rng.choice(domain) if domain is not None else draw(rng, kind, name)
    if kind == "float" and form == "plain":
        value = float(value)
    return spelled(rng, value, form)
