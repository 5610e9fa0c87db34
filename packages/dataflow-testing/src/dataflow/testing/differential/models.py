"""The five models of the differential test: their tables as the oracle sees them, and their declaration.

Between them they have every field type, nullable and not, literal and computed defaults, auto ids, a text key,
composite keys of many types, unique keys of one and two fields, relations without and foreign keys of all three kinds.
"""

from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import attrs

from dataflow import Factory, ForeignKey
from dataflow.testing.oracle import SHOP, Color, Level


@attrs.frozen
class Table:
    """What the oracle knows of a model.

    Attributes:
        name: of the model.
        kinds: field -> kind, without timestamps.
        key: the primary key.
        auto: whether the database gives the key.
        required: fields that a new record must be given.
        defaults: field -> what a new record gets otherwise; None for the others.
        solid: fields that are never None.
        uniques: unique keys besides the primary key.
        foreign: field -> (model, what happens to this record when that one is removed).
        refs: fields that hold auto ids -> whose.
        stamped: whether it has created_at and updated_at.
    """

    name: str
    kinds: Mapping[str, str]
    key: tuple[str, ...] = ("id",)
    auto: bool = True
    required: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = attrs.field(factory=dict)
    solid: tuple[str, ...] = ()
    uniques: tuple[tuple[str, ...], ...] = ()
    foreign: Mapping[str, tuple[str, str]] = attrs.field(factory=dict)
    refs: Mapping[str, str] = attrs.field(factory=dict)
    stamped: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns, in the order of results."""
        return (*self.kinds, *(("created_at", "updated_at") if self.stamped else ()))

    @property
    def keys(self) -> tuple[tuple[str, ...], ...]:
        """All unique keys, the primary key first."""
        return (self.key, *self.uniques)

    def nullable(self, name: str) -> bool:
        """Tell whether None is a value of a field."""
        return name not in self.solid and name not in self.key


TABLES: Mapping[str, Table] = {
    "Vendor": Table(
        "Vendor",
        SHOP["Vendor"],
        defaults={"name": "it's: unnamed", "opened": date(2025, 1, 31), "tags": []},
        solid=("name", "tags"),
        uniques=(("code",),),
        refs={"id": "Vendor"},
    ),
    "Part": Table(
        "Part",
        SHOP["Part"],
        defaults={"stock": 1, "price": Decimal("1.5"), "flag": False, "color": Color.DEEP_BLUE},
        solid=("stock",),
        uniques=(("sku", "batch"),),
        refs={"id": "Part", "vendor_id": "Vendor"},
    ),
    "Visit": Table(
        "Visit",
        SHOP["Visit"],
        auto=False,
        required=("id", "day"),
        defaults={"level": Level.MIDDLE},
        solid=("day", "level"),
        uniques=(("token",),),
        foreign={"vendor_id": ("Vendor", "restrict")},
        refs={"vendor_id": "Vendor"},
    ),
    "Shelf": Table(
        "Shelf",
        SHOP["Shelf"],
        key=("aisle", "slot"),
        auto=False,
        required=("aisle", "slot"),
        foreign={"visit_id": ("Visit", "cascade"), "part_id": ("Part", "set null")},
        refs={"part_id": "Part"},
        stamped=False,
    ),
    "Rate": Table(
        "Rate",
        SHOP["Rate"],
        key=("moment", "price", "token", "level"),
        auto=False,
        required=("moment", "price", "token"),
        defaults={"level": Level.HIGH, "factor": 0.5, "steps": [3, -1]},
        stamped=False,
    ),
}
CLEARING = ("Rate", "Shelf", "Visit", "Part", "Vendor")
"""The order in which tables can be emptied."""


def declare(db: Any, prefix: str = "") -> None:
    """Register the models on an instance.

    Args:
        db: the DataFlow.
        prefix: of the names of tables and indexes, so that several workers can share one database.
    """

    def unique(table: str, *fields: str) -> dict[str, Any]:
        return {"name": f"uq_{prefix}{table}", "fields": list(fields), "unique": True}

    @db.model
    class Vendor:
        __tablename__ = f"{prefix}vendors"
        __indexes__ = (unique("vendors", "code"),)
        code: str | None
        name: str = "it's: unnamed"
        rating: float | None
        opened: date | None = date(2025, 1, 31)
        profile: Any = None
        tags: list[str] = Factory(list)

    @db.model
    class Part:
        __tablename__ = f"{prefix}parts"
        __indexes__ = (unique("parts", "sku", "batch"),)
        sku: str | None
        batch: int | None
        vendor_id: int | None
        number: int | None
        stock: int = 1
        ratio: float | None
        price: Decimal | None = Decimal("1.50")
        title: str | None
        flag: bool | None = False
        color: Color | None = Color.DEEP_BLUE
        raw: bytes | None

    @db.model
    class Visit:
        __tablename__ = f"{prefix}visits"
        __indexes__ = (unique("visits", "token"),)
        id: str
        vendor_id: Annotated[int | None, ForeignKey("Vendor", on_delete="restrict")]
        moment: datetime | None
        day: date
        clock: time | None
        token: UUID | None
        level: Level = Level.MIDDLE
        note: str | None

    @db.model
    class Shelf:
        __tablename__ = f"{prefix}shelves"
        __dataflow__ = {"primary_key": ["aisle", "slot"], "timestamps": False}  # noqa: RUF012
        aisle: str
        slot: int
        visit_id: Annotated[str | None, ForeignKey("Visit", on_delete="cascade")]
        part_id: Annotated[int | None, ForeignKey("Part", on_delete="set null")]
        document: Any = None
        words: list[str] | None
        numbers: list[int] | None
        ratios: list[float] | None
        prices: list[Decimal] | None
        days: list[date] | None
        moments: list[datetime] | None
        clocks: list[time] | None
        blobs: list[bytes] | None
        colors: list[Color] | None
        tokens: list[UUID] | None
        flags: list[bool] | None

    @db.model
    class Rate:
        __tablename__ = f"{prefix}rates"
        __dataflow__ = {"primary_key": ["moment", "price", "token", "level"], "timestamps": False}  # noqa: RUF012
        level: Level = Level.HIGH
        token: UUID
        price: Decimal
        moment: datetime
        factor: float | None = 0.5
        steps: list[int] | None = [3, -1]  # noqa: RUF012

    del Vendor, Part, Visit, Shelf, Rate
