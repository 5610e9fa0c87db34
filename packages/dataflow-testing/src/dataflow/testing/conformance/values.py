"""The values that the suites store: for every kind of field the hard ones, what comes back, and what is refused."""

import math
import sys
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any
from uuid import UUID

import attrs

INT_MIN, INT_MAX = -(2**63), 2**63 - 1
TOKYO = timezone(timedelta(hours=9))
MARQUESAS = timezone(timedelta(hours=-9, minutes=-30))
HARD_TEXT = "a'b\"c\\d%e_f\n\t\r$1 :x ?;-- /* {} ${y} Ünïcödé ß İi ﬁ 🦁 א עברית \u200b\U0010ffff\x01\x7f"


class Color(Enum):
    """Texts as values: they are what is stored."""

    RED = "red"
    DEEP_BLUE = "Blue"
    QUOTED = 'it\'s; "%"'


class Level(IntEnum):
    """Numbers as values: the names are stored."""

    HIGH = 2
    LOW = 1


class Label(StrEnum):
    """Members that are texts themselves."""

    RED = "red"


class Count(IntEnum):
    """Members that are ints, for int fields."""

    ONE = 1


@attrs.frozen
class Kind:
    """A kind of field.

    Attributes:
        annotation: as in a model.
        capability: which declaration it falls under.
        values: what is stored, the hard cases; the first two differ.
        restored: given value -> what comes back, where that is not the value itself.
        refused: what no way in takes.
        ordered: values in ascending order, or empty where there is no order.
    """

    annotation: Any
    capability: str
    values: tuple[Any, ...]
    restored: tuple[tuple[Any, Any], ...] = ()
    refused: tuple[Any, ...] = ()
    ordered: tuple[Any, ...] = ()

    @property
    def pairs(self) -> list[tuple[Any, Any]]:
        """Return (given, comes back) of everything that is accepted."""
        return [*((value, value) for value in self.values), *self.restored]


def _nested(levels: int) -> Any:
    found: Any = []
    for _ in range(levels - 1):
        found = [found]
    return found


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


_INSTANTS = (
    _utc("2024-02-29T23:59:59.999999"),
    _utc("1969-12-31T23:59:59.000001"),
    _utc("0001-01-01T00:00:00"),
    _utc("9999-12-31T23:59:59.999999"),
)
_DECIMALS = tuple(
    map(Decimal, ("19.990000000000000001", "-0.1", "0", "123456789012345678901234567890.123456789", "1000", "0.000001"))
)
_TEXTS = ("a", "", " ", HARD_TEXT, "007", "1e5", "null", "true", "x" * 70_000)
_JSON: tuple[Any, ...] = (
    {"a": {"c": 2, "d": [1, 2.5, None, True, "x"]}, "b": 1},
    {},
    {"": 0, "\\": "\\u0041", "a.b": 3, "d$": 1, 'q"u': 2, "ключ": "🦁"},
    {"big": 2**63, "deep": _nested(150), "small": -(2**70), "tiny": 5e-324},
    {"text": HARD_TEXT},
)

KINDS: dict[str, Kind] = {
    "Int": Kind(
        int,
        "int64",
        (1, 0, -1, INT_MIN, INT_MAX, 2**53 + 1),
        restored=((Count.ONE, 1),),
        refused=(2**63, -(2**63) - 1, True, 1.0, "1", Decimal(1), math.nan, None, []),
        ordered=(INT_MIN, -10, -9, 0, 2, 10, 2**53, 2**53 + 1, INT_MAX),
    ),
    "Float": Kind(
        float,
        "int64",
        (1.5, 0.0, 0.1 + 0.2, -1e308, 5e-324, -5e-324, sys.float_info.max, 700.0, 1e16, 123456.789e3),
        restored=((-0.0, 0.0), (3, 3.0)),
        refused=(math.nan, math.inf, -math.inf, True, "1.5", Decimal(1), 10**400, None),
        ordered=(-sys.float_info.max, -2.0, -0.5, 0.0, 5e-324, 0.3, 0.1 + 0.2, 10.0, 1e300),
    ),
    "Str": Kind(
        str,
        "text",
        _TEXTS,
        restored=((Label.RED, "red"),),
        refused=("a\0b", "\ud800", 1, b"x", None, UUID(int=1), ["a"]),
        ordered=("", " ", "A", "Z", "_", "a", "a ", "aa", "z", "Ä", "ß", "я", "漢", "\uffff", "🦁"),
    ),
    "Bool": Kind(bool, "bool", (True, False), refused=(0, 1, "true", None, 1.0), ordered=(False, True)),
    "Bytes": Kind(
        bytes,
        "bytes",
        (b"\x00\xff", b"", b"a\0b", bytes(range(256)), b"x" * 70_000),
        restored=((bytearray(b"y"), b"y"),),
        refused=("x", 1, None, [1]),
        ordered=(b"", b"\x00", b"\x00\x00", b"A", b"a", b"\x80", b"\xff"),
    ),
    "Moment": Kind(
        datetime,
        "instants",
        _INSTANTS,
        restored=(
            (datetime(2024, 1, 1, 9, tzinfo=TOKYO), _utc("2024-01-01T00:00:00")),
            (datetime(2024, 1, 1, 9, 0, 0, 1, tzinfo=MARQUESAS), _utc("2024-01-01T18:30:00.000001")),
        ),
        refused=(
            "2025-01-01T00:00:00+00:00", date(2025, 1, 1), 0, None, datetime.min.replace(tzinfo=TOKYO),
            datetime.max.replace(tzinfo=MARQUESAS),
        ),
        ordered=(_INSTANTS[2], _INSTANTS[1], datetime(2024, 1, 1, 9, tzinfo=TOKYO), _utc("2024-01-01T00:00:00.000001"),
                 _INSTANTS[0], _INSTANTS[3]),
    ),
    "Day": Kind(
        date,
        "dates",
        (date(2024, 2, 29), date(1970, 1, 1), date.min, date.max),
        refused=(_utc("2025-01-01T00:00:00"), "2025-01-01", 0, None),
        ordered=(date.min, date(999, 12, 31), date(1969, 12, 31), date(2024, 2, 29), date.max),
    ),
    "Clock": Kind(
        time,
        "dates",
        (time(23, 59, 59, 999999), time.min, time(8), time(12, 30, 0, 1)),
        refused=(time(12, tzinfo=UTC), "12:00", _utc("2025-01-01T00:00:00"), None),
        ordered=(time.min, time(0, 0, 0, 1), time(8), time(12, 30, 0, 1), time.max),
    ),
    "Dec": Kind(
        Decimal,
        "decimal",
        (*_DECIMALS, Decimal("1" * 1000 + "." + "1" * 1000)),
        restored=((Decimal("1.10"), Decimal("1.1")), (Decimal("1E+3"), Decimal(1000)), (Decimal("-0.00"), Decimal(0)),
                  (7, Decimal(7))),
        refused=(*map(Decimal, ("NaN", "sNaN", "Infinity", "1E+131072", "1E-16384")), 1.5, "1", True, None),
        ordered=tuple(map(Decimal, ("-10.5", "-9.5", "-0.1", "0", "0.09", "0.1", "2", "9.5", "10", "10.5"))),
    ),
    "Uuid": Kind(
        UUID,
        "uuid",
        (UUID(int=1), UUID(int=0), UUID(int=2**128 - 1)),
        restored=((str(UUID(int=2**127)).upper(), UUID(int=2**127)),),
        refused=("no", 1, b"0" * 16, None, ""),
        ordered=(UUID(int=0), UUID(int=1), UUID(int=2**64), UUID(int=2**127), UUID(int=2**128 - 1)),
    ),
    "Color": Kind(
        Color,
        "enum",
        (Color.RED, Color.DEEP_BLUE, Color.QUOTED),
        restored=(("Blue", Color.DEEP_BLUE),),
        refused=("RED", "blue", 1, None, Level.LOW, ""),
        ordered=(Color.DEEP_BLUE, Color.QUOTED, Color.RED),
    ),
    "Level": Kind(
        Level,
        "enum",
        (Level.LOW, Level.HIGH),
        restored=(("HIGH", Level.HIGH),),
        refused=(1, "zz", Color.RED, None),
        ordered=(Level.HIGH, Level.LOW),
    ),
    "Json": Kind(
        dict,
        "json",
        _JSON,
        restored=(
            ({"b": (1, Count.ONE), "a": Label.RED}, {"a": "red", "b": [1, 1]}),
            ({"zero": -0.0, "huge": 1e300, "whole": 3.0}, {"huge": int(1e300), "whole": 3.0, "zero": 0.0}),
        ),
        refused=(
            None, {1: "a"}, {"a": math.nan}, {"a": math.inf}, {"a": "\0"}, {"\0": 1}, {"a": "\ud800"}, {"a": {1, 2}},
            {"a": datetime(2025, 1, 1, tzinfo=UTC)}, {"a": _nested(201)},
        ),
    ),
    "Anything": Kind(Any, "json", ([1, "two"], {"a": 1}, "text", "", 0, 2.5, True, False, [], _nested(200))),
    "Texts": Kind(
        list[str],
        "arrays",
        (["a", "b"], [], [""], [HARD_TEXT, "null", "NULL", "{}", ","]),
        restored=((("a", Label.RED), ["a", "red"]),),
        refused=("abc", ["a", None], ["a\0"], ["\ud800"], [1], None),
    ),
    "Ints": Kind(
        list[int], "arrays", ([1, -2], [], [INT_MIN, INT_MAX]), refused=("1", [None], [True], [2**63], {1}, 1)
    ),
    "Floats": Kind(
        list[float], "arrays", ([1.5, 700.0], [], [5e-324, sys.float_info.max]), refused=([math.nan], ["1"])
    ),
    "Bools": Kind(list[bool], "arrays", ([True, False], []), refused=([1],)),
    "Blobs": Kind(list[bytes], "arrays", ([b"\x00\xff", b""], []), refused=(["x"],)),
    "Moments": Kind(list[datetime], "arrays", ([*_INSTANTS], []), refused=(["2025-01-01"],)),
    "Days": Kind(list[date], "arrays", ([date.min, date.max], []), refused=([datetime(2025, 1, 1, tzinfo=UTC)],)),
    "Decs": Kind(list[Decimal], "arrays", ([*_DECIMALS], []), refused=([1.5], [Decimal("NaN")])),
    "Uuids": Kind(list[UUID], "arrays", ([UUID(int=1), UUID(int=0)], []), refused=(["x"],)),
    "Colors": Kind(list[Color], "arrays", ([Color.RED, Color.DEEP_BLUE], []), refused=(["RED"], [Level.LOW])),
}  # fmt: skip
"""Name of a model -> its kind of field."""


def exactly(value: Any) -> Any:
    """Return what two values share only if they are the same in type and every detail, for asserting equality."""
    if isinstance(value, dict):
        return [(key, exactly(item)) for key, item in value.items()]
    if isinstance(value, list):
        return [exactly(item) for item in value]
    if isinstance(value, Decimal):
        return ("Decimal", str(value))
    if isinstance(value, float):
        return ("float", repr(value))
    if isinstance(value, datetime):
        return ("datetime", value.isoformat(), value.tzinfo is UTC, value.fold)
    return (type(value).__name__, value)
