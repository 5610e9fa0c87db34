"""What a factory draws for each field type: readable values that the type accepts, and rarely equal ones for keys.

Knows field types; nothing of models, nor of the library that calls it.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from random import Random
from typing import Any
from uuid import UUID

from dataflow.types import ArrayType, EnumType, FieldType, ValueRefused

_SINCE = datetime(2020, 1, 1, tzinfo=UTC)
_NAMED = ("name", "first_name", "last_name", "city", "country", "company")
"""Fields whose texts the faker has under the same name."""

Draw = Callable[[Random, Any], Any]
"""Takes the random numbers and the faker of a factory; returns a value."""

DRAWS: Mapping[str, tuple[Draw, Draw]] = {
    "int": (lambda rng, _: rng.randrange(10_000), lambda rng, _: rng.randrange(2**53)),
    "float": (lambda rng, _: rng.randrange(1_000_000) / 100, lambda rng, _: rng.random() * 1_000_000),
    "str": (lambda _, fake: fake.word(), lambda rng, fake: f"{fake.word()}-{rng.getrandbits(40):010x}"),
    "bool": (lambda rng, _: rng.random() < 0.5,) * 2,
    "bytes": (lambda rng, _: rng.randbytes(8), lambda rng, _: rng.randbytes(16)),
    "datetime": (lambda rng, _: _SINCE + timedelta(seconds=rng.randrange(300_000_000)),) * 2,
    "date": (lambda rng, _: date.fromordinal(_SINCE.toordinal() + rng.randrange(3_650)),) * 2,
    "time": (lambda rng, _: time(rng.randrange(24), rng.randrange(60), rng.randrange(60)),) * 2,
    "decimal": (
        lambda rng, _: Decimal(rng.randrange(1_000_000)).scaleb(-2),
        lambda rng, _: Decimal(rng.randrange(10**15)).scaleb(-2),
    ),
    "uuid": (lambda rng, _: UUID(int=rng.getrandbits(128), version=4),) * 2,
    "json": (lambda rng, fake: {fake.word(): fake.word(), "count": rng.randrange(100)},) * 2,
}
"""Storage kind -> what draws a readable value, and what draws one that hardly comes twice, for unique keys."""


def draw_of(kind: FieldType, name: str, *, distinct: bool) -> Draw:
    """Return what draws the values of a field.

    Args:
        kind: its type, neither an enum nor a list.
        name: of the field; some names are known.
        distinct: whether it is part of a unique key, so that values should hardly come twice.
    """
    readable, wide = DRAWS[kind.storage]
    if kind.storage == "str" and "email" in name.lower():
        return lambda rng, fake: f"{fake.word()}.{rng.getrandbits(40):010x}@example.com"
    if kind.storage == "str" and name in _NAMED and not distinct:
        return lambda _, fake: getattr(fake, name)()
    return wide if distinct else readable


def drawable(kind: FieldType, fake: Any) -> bool:
    """Tell whether values are known that a type accepts; types of plugins may want others."""
    if isinstance(kind, EnumType):
        return True
    if isinstance(kind, ArrayType):
        return drawable(kind.item, fake)
    if kind.storage not in DRAWS:
        return False
    try:
        kind.accept(DRAWS[kind.storage][0](fake.random, fake))
    except ValueRefused:
        return False
    return True
