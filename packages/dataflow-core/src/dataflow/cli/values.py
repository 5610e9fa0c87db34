"""Values on their way out as plain JSON, and in from ``--param``.

Out: dates as ISO 8601, Decimal and UUID as text, bytes as base64, Enum as its value. In: the same texts, read by what
the field takes, and the tagged form of `dataflow.wire` everywhere.
"""

import base64
import json
import math
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import TYPE_CHECKING, Any

from dataflow import types as t
from dataflow.wire import from_wire

if TYPE_CHECKING:
    from dataflow.plan.bound import BoundModel
    from dataflow.workflow.tasks import Task

_KEYS = frozenset({"id", "record_id", "ids"})
_FILTERS = frozenset({"filter", "conditions", "having"})
_RECORDS = frozenset({"data", "values", "fields", "where", "create", "update"})
"""Inputs that hold keys, filters, and records or changes, where a model has no field of that name."""


def plain(value: Any) -> Any:
    """Return a value as what `json` writes without help; NaN and infinities, which JSON lacks, become None."""
    if value is None or isinstance(value, (bool, int, str)):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(bytes(value)).decode()
    return str(value)


def read_json(text: str, task: "Task", name: str) -> Any:
    """Read the value of a node's input from JSON text.

    Args:
        text: the JSON.
        task: the node; the fields of its model tell dates, decimals and bytes from other text.
        name: the input.

    Raises:
        ValueError: the text is no JSON.
        ValueRefused: a field of the model cannot be read from its text.
        InputError: a tagged value (``{"$type": …}``) is of no known type.
    """
    data = json.loads(text, parse_float=Decimal, parse_constant=_refuse_constant)
    bound: BoundModel | None = getattr(task, "bound", None)
    if bound is None:
        return _read(data, None, None)
    route = getattr(getattr(task, "implementation", None), "route", {})
    if name in bound.fields and route.get(name) is None:
        return _read(data, None, bound.fields[name].type)
    if name in _KEYS and len(bound.key) == 1:
        return _read(data, None, bound.key[0].type)
    if name in _FILTERS:
        return _read(data, bound, None, filters=True)
    return _read(data, bound if name in _RECORDS else None, None)


def _refuse_constant(text: str) -> None:
    msg = f"{text} is not JSON"
    raise ValueError(msg)


def _read(value: Any, bound: "BoundModel | None", kind: t.FieldType | None, *, filters: bool = False) -> Any:
    """Convert JSON by the fields of a model (`bound`: keys are its fields) or by one field type (`kind`)."""
    if isinstance(kind, t.JsonType):
        return _floats(value)
    if isinstance(value, list):
        inner = kind.item if isinstance(kind, t.ArrayType) else kind
        return [_read(item, bound, inner, filters=filters) for item in value]
    if isinstance(value, Mapping):
        if "$type" in value:
            return from_wire(_floats(value))
        out = {}
        for key, item in value.items():
            place = (bound, kind) if key.startswith("$") else _member(bound, key)
            out[key] = _read(item, *place, filters=filters)
        return out
    return _scalar(value, kind.item if isinstance(kind, t.ArrayType) else kind, filters=filters)


def _member(bound: "BoundModel | None", key: str) -> "tuple[BoundModel | None, t.FieldType | None]":
    """Return what the values below a key of a document are read by: the model behind a relation, or a field's type."""
    if bound is None:
        return None, None
    if key in bound.fields:
        return None, bound.fields[key].type
    head, _, rest = key.partition(".")
    if head not in bound.relations:
        return None, None
    target = bound.target(bound.relations[head])
    return _member(target, rest) if rest else (target, None)


def _scalar(value: Any, kind: t.FieldType | None, *, filters: bool) -> Any:
    if isinstance(kind, t.DecimalType):
        return _decimal(value) if isinstance(value, str) else value
    if isinstance(value, Decimal):
        return float(value)
    if not isinstance(value, str) or kind is None:
        return value
    if isinstance(kind, t.BytesType):
        return _bytes(value)
    own_texts = type(kind).from_text is not t.FieldType.from_text
    return kind.from_text(value) if own_texts and not filters else value  # filters read texts, end dates by their day


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        msg = "expected Decimal, got text that is not a number"
        raise t.ValueRefused(msg, "write 12.50 or '12.50'") from None


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        msg = "expected bytes, got text that is not base64"
        raise t.ValueRefused(msg, "encode it with base64") from None


def _floats(value: Any) -> Any:
    """Turn the exact numbers that JSON was read with into floats."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list):
        return [_floats(item) for item in value]
    return {key: _floats(item) for key, item in value.items()} if isinstance(value, dict) else value
