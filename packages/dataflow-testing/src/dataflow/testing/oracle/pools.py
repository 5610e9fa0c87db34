"""Values to fill tables and questions with: small pools, so that filters hit, with the edges among them."""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from dataflow.testing.oracle.models import INT_MAX, INT_MIN

TEXTS = (
    "",
    "a",
    "A",
    "ab",
    "aB",
    "b",
    "ba",
    "é",
    "É",
    "z",
    "ä\nb",
    "a%",
    "a_b",
    "a*?[",
    "\\",
    "100",
    "日本",
    "😀",
    "\uffff",
)
WORDS = ("", "a", "b", "é", '"', "\\", "😀")
POOLS: dict[str, tuple[Any, ...]] = {
    "int": (INT_MIN, -7, -1, 0, 1, 2, 3, 2**53 + 1, INT_MAX),
    "float": (-1e308, -1.5, -5e-324, 0.0, 5e-324, 0.1, 0.30000000000000004, 1.0, 2.0, 1e16, 1.7976931348623157e308),
    "str": TEXTS,
    "bool": (True, False),
    "bytes": (b"", b"\0", b"\0a", b"a", b"\x7f", b"\xff", b"\xff\0"),
    "datetime": (
        datetime.min.replace(tzinfo=UTC),
        datetime(2025, 1, 30, 23, 59, 59, 999999, UTC),
        datetime(2025, 1, 31, tzinfo=UTC),
        datetime(2025, 1, 31, 12, 30, 0, 1, UTC),
        datetime(2025, 1, 31, 23, 59, 59, 999999, UTC),
        datetime(2025, 2, 1, tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
    ),
    "date": (date.min, date(2025, 1, 30), date(2025, 1, 31), date(2025, 2, 1), date.max),
    "time": (time.min, time(12), time(12, 30), time(12, 30, 0, 1), time.max),
    "decimal": tuple(
        map(
            Decimal,
            (
                "-1E+20",
                "-2",
                "-1.5",
                "0",
                "0.0000000000000000000000001",
                "1",
                "1.10",
                "2",
                "10",
                "19.990000000000000001",
                "19.990000000000000002",
                "9" * 40,
            ),
        )
    ),
    "uuid": tuple(UUID(int=n) for n in (0, 1, 2**64, 2**127, 2**128 - 1)),
}
MEMBERS: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    1.0,
    -1.5,
    2,
    0.1,
    10**20,
    1e20,
    "",
    "a",
    "A",
    "ab",
    "é",
    "1",
    [],
    {},
)
"""Values of JSON members."""
KEYS = ("a", "b", "é", 'q"t', "b\\s", "n\nl", "", "0")
PATTERNS = (
    ("a", "a"),
    ("^a", r"\Aa"),
    ("b$", r"b\Z"),
    ("^$", r"\A\Z"),
    ("a.b", r"a[^\n]b"),
    ("[a-c]+", "[a-c]+"),
    ("[^a]", "[^a]"),
    (r"\d{2,}", "[0-9]{2,}"),
    (r"\bab?\b", r"(?a:\bab?\b)"),
    ("(?:a|é)B?", "(?:a|é)B?"),
    (r"\\", r"\\"),
    ("", ""),
)
"""(pattern of the shared language, what it means to Python's `re`)."""
LETTERS = "aAbéÉ%_*?[]^\\\n😀"
LIKES = ("%", "_", "a%", "%b", "%a%", "a_b", "a\\%", "a\\_b", "%\\\\%", "", "%*?[%", "__", "É", "a%%b")
