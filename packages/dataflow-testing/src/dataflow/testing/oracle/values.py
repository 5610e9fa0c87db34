"""What is stored for a value that was passed: the accepted conversions and the one form of each value (SPEC §4, §8)."""

from datetime import UTC, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from dataflow.testing.oracle.models import ENUMS

EXPONENT_FROM = 1e16
"""From here on JSON floats come back as integers: one database would write them so."""


def stored_text(member: Enum) -> str:
    """Return the text an enum member is stored, compared and ordered by."""
    by_value = all(isinstance(one.value, str) for one in type(member))
    return str(member.value) if by_value else member.name


def key_of(value: Any) -> Any:
    """Return what a value is compared by."""
    if isinstance(value, Enum):
        return stored_text(value)
    return [key_of(item) for item in value] if isinstance(value, list) else value


def accept(kind: str, value: Any, name: str = "") -> Any:
    """Return what results show for a value of a field; `name` tells which enum."""
    if value is None:
        return None
    if kind.startswith("list["):
        return [accept(kind[5:-1], item, name) for item in value]
    if kind == "float":
        return float(value) + 0.0
    if kind == "decimal":
        return plain_decimal(value)
    if kind == "uuid":
        return UUID(value) if isinstance(value, str) else value
    if kind == "enum":
        return value if isinstance(value, Enum) else {stored_text(one): one for one in ENUMS[name]}[value]
    if kind == "datetime":
        return value.astimezone(UTC)  # a naive one is local time: Python's own convention
    if kind == "json":
        return plain_json(value)
    if kind == "bytes":
        return bytes(value)
    return value.replace(fold=0) if isinstance(value, time) else value


def plain_decimal(value: Decimal | int) -> Decimal:
    """Strip trailing zeros, exponent and the sign of zero, without rounding."""
    text = format(Decimal(value), "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return Decimal("0" if text == "-0" else text)


def plain_json(value: Any) -> Any:
    """Sort keys; write -0.0 as 0.0 and huge floats as integers."""
    if isinstance(value, dict):
        return {key: plain_json(value[key]) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [plain_json(item) for item in value]
    if isinstance(value, float):
        return int(value) if abs(value) >= EXPONENT_FROM else value + 0.0
    return value
