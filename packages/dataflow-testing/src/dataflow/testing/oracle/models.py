"""The models that the oracle knows: which fields they have, of which kinds, and how they relate.

`declare` registers `Thing` and `Maker`, which have one nullable field of every type. The models of the differential
test are declared by `dataflow.testing.differential.models`; their kinds stand here, so that filters can be answered.
"""

import enum
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

INT_MIN, INT_MAX = -(2**63), 2**63 - 1


class Color(enum.Enum):
    """An enum stored by value, whose order by text is not its order of definition."""

    RED = "red"
    GREEN = "green"
    DEEP_BLUE = "Blue"


class Level(enum.Enum):
    """An enum that is stored by name, because not all values are texts."""

    LOW = 1
    HIGH = "zz"
    MIDDLE = 2.5


KINDS = {
    "number": "int",
    "ratio": "float",
    "text": "str",
    "flag": "bool",
    "raw": "bytes",
    "moment": "datetime",
    "day": "date",
    "clock": "time",
    "price": "decimal",
    "token": "uuid",
    "color": "enum",
    "level": "enum",
    "document": "json",
    "words": "list[str]",
    "numbers": "list[int]",
    "ratios": "list[float]",
    "prices": "list[decimal]",
    "days": "list[date]",
    "blobs": "list[bytes]",
    "colors": "list[enum]",
    "tokens": "list[uuid]",
    "flags": "list[bool]",
}
SHOP: Mapping[str, Mapping[str, str]] = {
    "Vendor": {
        "id": "int",
        "code": "str",
        "name": "str",
        "rating": "float",
        "opened": "date",
        "profile": "json",
        "tags": "list[str]",
    },
    "Part": {
        "id": "int",
        "sku": "str",
        "batch": "int",
        "vendor_id": "int",
        "number": "int",
        "stock": "int",
        "ratio": "float",
        "price": "decimal",
        "title": "str",
        "flag": "bool",
        "color": "enum",
        "raw": "bytes",
    },
    "Visit": {
        "id": "str",
        "vendor_id": "int",
        "moment": "datetime",
        "day": "date",
        "clock": "time",
        "token": "uuid",
        "level": "enum",
        "note": "str",
    },
    "Shelf": {
        "aisle": "str",
        "slot": "int",
        "visit_id": "str",
        "part_id": "int",
        "document": "json",
        "words": "list[str]",
        "numbers": "list[int]",
        "ratios": "list[float]",
        "prices": "list[decimal]",
        "days": "list[date]",
        "moments": "list[datetime]",
        "clocks": "list[time]",
        "blobs": "list[bytes]",
        "colors": "list[enum]",
        "tokens": "list[uuid]",
        "flags": "list[bool]",
    },
    "Rate": {
        "level": "enum",
        "token": "uuid",
        "price": "decimal",
        "moment": "datetime",
        "factor": "float",
        "steps": "list[int]",
    },
}
"""The models of the differential test."""
FIELDS: Mapping[str, Mapping[str, str]] = {
    "Thing": {"id": "int", "maker_id": "int", **KINDS},
    "Maker": {"id": "int", "name": "str", "rating": "float", "document": "json", "words": "list[str]"},
    **SHOP,
}
RELATIONS: Mapping[str, Mapping[str, tuple[str, str, str, bool]]] = {
    "Thing": {"maker": ("Maker", "maker_id", "id", False)},
    "Maker": {"things": ("Thing", "id", "maker_id", True)},
    "Vendor": {"parts": ("Part", "id", "vendor_id", True), "visits": ("Visit", "id", "vendor_id", True)},
    "Part": {"vendor": ("Vendor", "vendor_id", "id", False), "shelves": ("Shelf", "id", "part_id", True)},
    "Visit": {"vendor": ("Vendor", "vendor_id", "id", False), "shelves": ("Shelf", "id", "visit_id", True)},
    "Shelf": {"visit": ("Visit", "visit_id", "id", False), "part": ("Part", "part_id", "id", False)},
    "Rate": {},
}
"""model -> relation -> (target, field here, field there, whether it leads to several)."""
ENUMS: Mapping[str, type[enum.Enum]] = {"color": Color, "level": Level, "colors": Color}
ORDERED = ("int", "float", "str", "bytes", "datetime", "date", "time", "decimal", "uuid", "enum")
NUMERIC = ("int", "float", "decimal")


def declare(db: Any) -> None:
    """Register the two models on an instance. Every field is nullable, and things may have makers that do not exist."""

    @db.model
    class Maker:
        name: str | None
        rating: float | None
        document: Any = None
        words: list[str] | None

    @db.model
    class Thing:
        maker_id: int | None
        number: int | None
        ratio: float | None
        text: str | None
        flag: bool | None
        raw: bytes | None
        moment: datetime | None
        day: date | None
        clock: time | None
        price: Decimal | None
        token: UUID | None
        color: Color | None
        level: Level | None
        document: Any = None
        words: list[str] | None
        numbers: list[int] | None
        ratios: list[float] | None
        prices: list[Decimal] | None
        days: list[date] | None
        blobs: list[bytes] | None
        colors: list[Color] | None
        tokens: list[UUID] | None
        flags: list[bool] | None

    del Maker, Thing
