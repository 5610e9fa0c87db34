"""The field types: which Python values a field takes, exactly, and how they look when stored.

A type accepts a value (strictly: nothing is coerced but what SPEC §4 lists), or raises `ValueRefused`.
How a database stores the accepted value is the dialect's business; it goes by `FieldType.storage`.
"""

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from types import NoneType
from typing import Any, ClassVar
from uuid import UUID

import attrs

from dataflow.canonical import (
    ValueRefused,
    are_canonical,
    canonical_decimal,
    canonical_json,
    check_text,
    encodable,
    is_canonical,
    kind,
)

INT_MIN, INT_MAX = -(2**63), 2**63 - 1
NOT_NULL, NOT_NULL_HINT = "None is not allowed", "give a value, or annotate it `| None`"


class FieldType:
    """One kind of value. Plugins subclass it to add their own (hook ``dataflow_field_types``).

    Attributes:
        name: how errors and listings call it.
        storage: the storage kind a dialect knows: int float str bool bytes datetime date time decimal uuid
            enum json array.
        orders: whether `$gt` … and min/max make sense.
        numeric: whether arithmetic makes sense.
        annotations: what type stubs say of values it takes, and of those results show: ``("app.Money", "app.Money")``.
    """

    name: ClassVar[str] = "value"
    storage: ClassVar[str] = "str"
    orders: ClassVar[bool] = True
    numeric: ClassVar[bool] = False
    annotations: ClassVar[tuple[str, str]] = ("Any", "Any")

    def __init_subclass__(cls) -> None:
        """Let a type that accepts in a way of its own be asked about each value of a column, too."""
        if "accept" in vars(cls) and not {"accept_column", "exact"} & vars(cls).keys():
            cls.accept_column = FieldType.accept_column  # type: ignore[method-assign]

    @property
    def choices(self) -> tuple[str, ...]:
        """The only stored texts allowed, or an empty tuple."""
        return ()

    @property
    def column(self) -> str:
        """The SQL type of its column, as the database writes it, where others chose another than the dialect would."""
        return ""

    def __str__(self) -> str:
        return self.name

    def accept(self, value: Any) -> Any:
        """Return `value` as it is to be stored and compared; raise `ValueRefused` if it does not fit."""
        raise NotImplementedError

    def restore(self) -> Callable[[Any], Any] | None:
        """Return the function that turns a stored value (never None) into what results show; None for identity."""
        return None

    def from_text(self, text: str, *, end: bool = False) -> Any:
        """Parse text of a filter or a wire format. `end`: a date stands for the last instant of its day."""
        del end
        return self.accept(text)

    def accept_column(self, values: list[Any], *, nullable: bool) -> list[Any]:
        """Accept many values at once; `ValueRefused.index` tells which one does not fit."""
        out: list[Any] = []
        for index, value in enumerate(values):
            if value is None:
                if not nullable:
                    raise ValueRefused(NOT_NULL, NOT_NULL_HINT, index)
                out.append(None)
                continue
            try:
                out.append(self.accept(value))
            except ValueRefused as fault:
                fault.index = index
                raise
        return out

    def _refuse(self, value: object, hint: str = "") -> ValueRefused:
        return ValueRefused(f"expected {self.name}, got {kind(value)}", hint)

    def _only(self, values: list[Any], python: type, *, nullable: bool) -> bool:
        """Tell in C speed whether all values are of exactly one type (or None where allowed)."""
        kinds = set(map(type, values))
        kinds.discard(python)
        return not kinds or (nullable and kinds == {NoneType})


class _Plain(FieldType):
    """A type without parameters: all its instances are equal.

    Attributes:
        exact: the Python type whose own values, not those of subclasses, are accepted as they are; None: look at each.
    """

    exact: ClassVar[type | None] = None

    def accept_column(self, values: list[Any], *, nullable: bool) -> list[Any]:
        if self.exact is not None and self._only(values, self.exact, nullable=nullable):
            return values
        return FieldType.accept_column(self, values, nullable=nullable)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class IntType(_Plain):
    """64-bit integers."""

    name: ClassVar[str] = "int"
    storage: ClassVar[str] = "int"
    numeric: ClassVar[bool] = True

    def accept(self, value: Any) -> int:
        if type(value) is not int:
            if not isinstance(value, int) or isinstance(value, bool):
                hint = "convert it with int(…)" if isinstance(value, (str, float, bool, Decimal)) else ""
                raise self._refuse(value, hint)
            value = int(value)
        if not INT_MIN <= value <= INT_MAX:
            msg = "the integer does not fit in 64 bits"
            raise ValueRefused(msg, "store it as Decimal or str")
        return value  # type: ignore[no-any-return]

    def accept_column(self, values: list[Any], *, nullable: bool) -> list[Any]:
        if self._only(values, int, nullable=nullable):
            present = [value for value in values if value is not None] if nullable else values
            if not present or (min(present) >= INT_MIN and max(present) <= INT_MAX):
                return values
        return FieldType.accept_column(self, values, nullable=nullable)


class FloatType(_Plain):
    """Finite 64-bit floats; -0.0 is stored as 0.0."""

    name: ClassVar[str] = "float"
    storage: ClassVar[str] = "float"
    numeric: ClassVar[bool] = True

    def accept(self, value: Any) -> float:
        if type(value) is not float:
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                hint = "convert it with float(…)" if isinstance(value, (str, bool, Decimal)) else ""
                raise self._refuse(value, hint)
            try:
                value = float(value)
            except OverflowError:
                msg = "the integer is too large for a float"
                raise ValueRefused(msg) from None
        if not math.isfinite(value):
            msg = "NaN and infinities cannot be stored"
            raise ValueRefused(msg, "use None for a missing number")
        return value + 0.0  # type: ignore[no-any-return]

    def accept_column(self, values: list[Any], *, nullable: bool) -> list[Any]:
        if self._only(values, float, nullable=nullable):
            present = [value for value in values if value is not None] if nullable else values
            if math.isfinite(sum(present)):
                return values if 0.0 not in present else [None if value is None else value + 0.0 for value in values]
        return FieldType.accept_column(self, values, nullable=nullable)


class StrType(_Plain):
    """Unlimited text; everything Unicode but NUL and lone surrogates, which no database can hold."""

    name: ClassVar[str] = "str"
    storage: ClassVar[str] = "str"

    def accept(self, value: Any) -> str:
        if not isinstance(value, str):
            hint = "convert it with str(…)" if isinstance(value, (int, float, UUID)) else ""
            raise self._refuse(value, "decode it with .decode()" if isinstance(value, (bytes, bytearray)) else hint)
        check_text(value)
        return value if type(value) is str else str.__str__(value)

    def accept_column(self, values: list[Any], *, nullable: bool) -> list[Any]:
        if self._only(values, str, nullable=nullable):
            joined = "".join(filter(None, values))
            if "\0" not in joined and (joined.isascii() or encodable(joined)):
                return values
        return FieldType.accept_column(self, values, nullable=nullable)


class BoolType(_Plain):
    """True and False; not 0 and 1."""

    name: ClassVar[str] = "bool"
    storage: ClassVar[str] = "bool"
    exact: ClassVar[type | None] = bool
    orders: ClassVar[bool] = False

    def accept(self, value: Any) -> bool:
        if value is True or value is False:
            return value
        raise self._refuse(value, "pass True or False")


class BytesType(_Plain):
    """Binary data."""

    name: ClassVar[str] = "bytes"
    storage: ClassVar[str] = "bytes"

    def accept(self, value: Any) -> bytes:
        if isinstance(value, (bytes, bytearray)):
            return bytes(value)
        raise self._refuse(value, "encode it with .encode()" if isinstance(value, str) else "")


@attrs.frozen
class DateTimeType(FieldType):
    """Instants. Stored and returned as aware UTC.

    Attributes:
        naive: what a datetime without offset means: "local" (Python's own convention), "utc", or "reject".
    """

    name: ClassVar[str] = "datetime"
    storage: ClassVar[str] = "datetime"
    naive: str = "local"

    def accept(self, value: Any) -> datetime:
        if not isinstance(value, datetime):
            hint = "pass datetime.fromisoformat(…)" if isinstance(value, str) else ""
            raise self._refuse(value, "pass datetime.combine(…, time.min)" if isinstance(value, date) else hint)
        if value.tzinfo is UTC:
            return value
        if value.tzinfo is None:
            if self.naive == "reject":
                msg = "a datetime without offset is refused (setting naive_datetimes='reject')"
                raise ValueRefused(msg, "pass datetime.now(UTC) or add tzinfo=")
            if self.naive == "utc":
                return value.replace(tzinfo=UTC)
        try:
            return value.astimezone(UTC)
        except (OverflowError, ValueError):
            msg = "the datetime is outside the years 1 to 9999 in UTC"
            raise ValueRefused(msg) from None

    def accept_column(self, values: list[Any], *, nullable: bool) -> list[Any]:
        if self._only(values, datetime, nullable=nullable) and all(v.tzinfo is UTC for v in values if v is not None):
            return values
        return FieldType.accept_column(self, values, nullable=nullable)

    def from_text(self, text: str, *, end: bool = False) -> datetime:
        try:
            value = datetime.fromisoformat(text)
        except ValueError:
            msg = "expected datetime, got text that is not ISO 8601"
            raise ValueRefused(msg, "write '2025-01-31T12:00:00+00:00' or '2025-01-31'") from None
        if end and len(text.strip()) <= len("2025-01-31"):
            value = value.replace(hour=23, minute=59, second=59, microsecond=999999)
        return self.accept(value if value.tzinfo else value.replace(tzinfo=UTC))


class DateType(_Plain):
    """Calendar days."""

    name: ClassVar[str] = "date"
    storage: ClassVar[str] = "date"
    exact: ClassVar[type | None] = date

    def accept(self, value: Any) -> date:
        if isinstance(value, datetime) or not isinstance(value, date):
            hint = {str: "pass date.fromisoformat(…)", datetime: "pass its .date()"}.get(type(value), "")
            raise self._refuse(value, hint)
        return value

    def from_text(self, text: str, *, end: bool = False) -> date:
        del end
        try:
            return date.fromisoformat(text)
        except ValueError:
            msg = "expected date, got text that is not ISO 8601"
            raise ValueRefused(msg, "write '2025-01-31'") from None


class TimeType(_Plain):
    """Wall-clock times without offset."""

    name: ClassVar[str] = "time"
    storage: ClassVar[str] = "time"

    def accept(self, value: Any) -> time:
        if not isinstance(value, time):
            raise self._refuse(value, "pass time.fromisoformat(…)" if isinstance(value, str) else "")
        if value.tzinfo is not None:
            msg = "a time with an offset has no meaning without a date"
            raise ValueRefused(msg, "pass it without tzinfo, or use datetime")
        return value.replace(fold=0)

    def from_text(self, text: str, *, end: bool = False) -> time:
        del end
        try:
            return self.accept(time.fromisoformat(text))
        except ValueError:
            msg = "expected time, got text that is not ISO 8601"
            raise ValueRefused(msg, "write '12:30:00'") from None


class DecimalType(_Plain):
    """Exact decimals, without trailing zeros and without exponent.

    The limits (131,072 digits before the point, 16,383 after) are PostgreSQL's for `numeric`.
    """

    name: ClassVar[str] = "Decimal"
    storage: ClassVar[str] = "decimal"
    numeric: ClassVar[bool] = True

    def accept(self, value: Any) -> Decimal:
        if isinstance(value, int) and not isinstance(value, bool):
            value = Decimal(value)
        if not isinstance(value, Decimal):
            hint = "pass Decimal('…') built from text" if isinstance(value, (str, float)) else ""
            raise self._refuse(value, hint)
        return canonical_decimal(value)


class UUIDType(_Plain):
    """UUIDs; text of a UUID is accepted too."""

    name: ClassVar[str] = "UUID"
    storage: ClassVar[str] = "uuid"
    exact: ClassVar[type | None] = UUID

    def accept(self, value: Any) -> UUID:
        if isinstance(value, UUID):
            return value
        if isinstance(value, str):
            try:
                return UUID(value)
            except ValueError:
                msg = "expected UUID, got text that is not a UUID"
                raise ValueRefused(msg, "pass uuid.uuid4() or its text") from None
        raise self._refuse(value)


@attrs.frozen
class EnumType(FieldType):
    """Members of an Enum, stored as text: the value where all values are texts, else the name."""

    name: ClassVar[str] = "enum"
    storage: ClassVar[str] = "enum"
    enum: type[Enum]
    texts: dict[str, Enum] = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        by_value = all(isinstance(member.value, str) for member in self.enum)
        texts = {str(member.value) if by_value else member.name: member for member in self.enum}
        object.__setattr__(self, "texts", texts)

    @property
    def choices(self) -> tuple[str, ...]:
        return tuple(self.texts)

    def __str__(self) -> str:
        return self.enum.__name__

    def accept(self, value: Any) -> str:
        if isinstance(value, self.enum):
            for text, member in self.texts.items():
                if member is value:
                    return text
            msg = f"expected a single member of {self.enum.__name__}, got a combination"
            raise ValueRefused(msg, "declare the field as int to store flags")
        if isinstance(value, str) and not isinstance(value, Enum):
            if value in self.texts:
                return value
            msg = f"expected one of {', '.join(self.texts)}; got other text"
            raise ValueRefused(msg)
        msg = f"expected {self.enum.__name__}, got {kind(value)}"
        raise ValueRefused(msg, f"pass {self.enum.__name__}.{next(iter(self.enum)).name}")

    def restore(self) -> Callable[[Any], Any]:
        return self.texts.__getitem__


class JsonType(_Plain):
    """JSON documents: dict, list, str, numbers, bool, None inside; returned parsed, with sorted keys."""

    name: ClassVar[str] = "JSON"
    storage: ClassVar[str] = "json"
    orders: ClassVar[bool] = False

    def accept(self, value: Any) -> Any:
        return canonical_json(value)

    def accept_column(self, values: list[Any], *, nullable: bool) -> list[Any]:
        if (nullable or NoneType not in set(map(type, values))) and are_canonical(values):
            return values
        return FieldType.accept_column(self, values, nullable=nullable)


@attrs.frozen
class ArrayType(FieldType):
    """Lists of one scalar type; None is not an element."""

    name: ClassVar[str] = "list"
    storage: ClassVar[str] = "array"
    orders: ClassVar[bool] = False
    item: FieldType

    def __str__(self) -> str:
        return f"list[{self.item}]"

    def accept(self, value: Any) -> list[Any]:
        if not isinstance(value, (list, tuple)):
            msg = f"expected {self}, got {kind(value)}"
            turn = isinstance(value, (set, frozenset, dict))
            raise ValueRefused(msg, "turn it into one: list(…)" if turn else "wrap it in a list")
        out = []
        for index, item in enumerate(value):
            try:
                out.append(self.item.accept(item))
            except ValueRefused as fault:
                msg = f"element {index}: {fault.message}"
                raise ValueRefused(msg, fault.hint) from None
        return out

    def restore(self) -> Callable[[Any], Any] | None:
        inner = self.item.restore()
        return None if inner is None else lambda values: [inner(value) for value in values]


def filter_value(kind: FieldType, value: Any, *, end: bool = False) -> Any:
    """Accept an operand of a filter: ISO text of dates and times is parsed, inside lists as well."""
    if isinstance(value, str) and isinstance(kind, (DateTimeType, DateType, TimeType)):
        return kind.from_text(value, end=end)
    if isinstance(kind, ArrayType) and isinstance(value, (list, tuple)):
        return kind.accept([filter_value(kind.item, item) for item in value])
    return kind.accept(value)


__all__ = [
    "INT_MAX",
    "INT_MIN",
    "ArrayType",
    "BoolType",
    "BytesType",
    "DateTimeType",
    "DateType",
    "DecimalType",
    "EnumType",
    "FieldType",
    "FloatType",
    "IntType",
    "JsonType",
    "StrType",
    "TimeType",
    "UUIDType",
    "ValueRefused",
    "canonical_decimal",
    "canonical_json",
    "filter_value",
    "is_canonical",
    "kind",
]
