"""Tagged JSON: values of a workflow or a cursor as JSON that gives back the same Python values.

``Decimal("1.10")`` is ``{"$type": "decimal", "value": "1.10"}``; dicts with a key ``$type`` are tagged themselves.
"""

import base64
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from dataflow.errors import InputError
from dataflow.types import EnumType

_LOADERS: Mapping[str, Callable[[Any], Any]] = {
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "decimal": Decimal,
    "uuid": UUID,
    "bytes": lambda text: base64.b64decode(text.encode()),
    "tuple": lambda items: tuple(from_wire(item) for item in items),
    "dict": lambda items: {key: from_wire(item) for key, item in items.items()},
}


def to_wire(value: Any) -> Any:
    """Return `value` as JSON-able data.

    Raises:
        InputError: a value inside has no JSON form.
    """
    if isinstance(value, Enum):  # first: members may be int or str as well
        return EnumType(type(value)).accept(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        plain = {str(key): to_wire(item) for key, item in value.items()}
        return {"$type": "dict", "value": plain} if "$type" in plain else plain
    if isinstance(value, list):
        return [to_wire(item) for item in value]
    return _tagged(value)


def _tagged(value: Any) -> dict[str, Any]:
    if isinstance(value, tuple):
        return {"$type": "tuple", "value": [to_wire(item) for item in value]}
    if isinstance(value, (bytes, bytearray)):
        return {"$type": "bytes", "value": base64.b64encode(value).decode()}
    for kind, name in ((datetime, "datetime"), (date, "date"), (time, "time")):
        if isinstance(value, kind):
            return {"$type": name, "value": value.isoformat()}
    if isinstance(value, Decimal):
        return {"$type": "decimal", "value": str(value)}
    if isinstance(value, UUID):
        return {"$type": "uuid", "value": str(value)}
    msg = f"{type(value).__name__} has no JSON form"
    raise InputError(msg, hint="pass str, numbers, dates, Decimal, UUID, bytes, lists and dicts", code="not-json")


def from_wire(data: Any) -> Any:
    """Return the Python value that `to_wire` wrote.

    Raises:
        InputError: the data names an unknown type.
    """
    if isinstance(data, list):
        return [from_wire(item) for item in data]
    if not isinstance(data, Mapping):
        return data
    if "$type" not in data:
        return {key: from_wire(item) for key, item in data.items()}
    loader = _LOADERS.get(data["$type"])
    if loader is None:
        msg = f"unknown value type {data['$type']!r} in JSON"
        raise InputError(msg, hint=f"known: {', '.join(_LOADERS)}", code="not-json")
    try:
        return loader(data["value"])
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        msg = f"a value of type {data['$type']!r} in JSON cannot be read"
        raise InputError(msg, hint="pass what to_dict() wrote", code="not-json") from error
