"""Images: the JSON of a record before or after a change, turned back into values."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dataflow.changelog import ChangeLog

if TYPE_CHECKING:
    from dataflow.plan.bound import BoundModel

MASK = "***"
_UNREADABLE = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError)


def masked(bound: "BoundModel") -> tuple[str, ...]:
    """Return the fields of a model whose values the log does not hold."""
    return next((tuple(getattr(f, "masked", ())) for f in bound.features if f.name == "audit"), ())


def order_of(bound: "BoundModel") -> dict[str, int]:
    """Return where the members of an image stand: the columns, then the marks of masked fields."""
    names = [*bound.spec.fields, *(column.name for column in bound.spec.hidden)]
    names += [f"${name}" for name in names if name in masked(bound)]
    return {name: place for place, name in enumerate(names)}


def decode_image(bound: "BoundModel | None", image: Mapping[str, Any] | None, log: ChangeLog) -> dict[str, Any] | None:
    """Return the fields of an image as results show them; what cannot be read stays as the log holds it."""
    if image is None:
        return None
    if bound is None:
        return {name: value for name, value in image.items() if not name.startswith("$")}
    hidden = {column.name for column in bound.spec.hidden}
    secret = masked(bound)
    found = {}
    for name, value in image.items():
        if name.startswith("$") or name in hidden:
            continue
        plain = value is None or name not in bound.fields or (name in secret and value == MASK)
        found[name] = value if plain else _decoded(bound, name, value, log)
    return found


def _decoded(bound: "BoundModel", name: str, value: Any, log: ChangeLog) -> Any:
    field = bound.fields[name]
    convert = log.log_value(field.type)
    try:
        stored = value if convert is None else convert(value)
        return stored if field.decode is None else field.decode(stored)
    except _UNREADABLE:
        return value


def stored_image(bound: "BoundModel", image: Mapping[str, Any], log: ChangeLog) -> dict[str, Any]:
    """Return all columns of an image in the form that the driver gives them."""
    kinds = {name: field.type for name, field in bound.spec.fields.items()}
    kinds |= {column.name: column.type for column in bound.spec.hidden}
    found = {}
    for name, of in kinds.items():
        value = image.get(name)
        convert = log.log_value(of)
        found[name] = value if value is None or convert is None else convert(value)
    return found


def record_key(bound: "BoundModel", image: Mapping[str, Any], log: ChangeLog) -> Any:
    """Return the key of the record an image is of: a scalar, or a tuple."""
    parts = [image.get(name) for name in bound.spec.primary_key]
    values = [
        None if value is None else _decoded(bound, name, value, log)
        for name, value in zip(bound.spec.primary_key, parts, strict=True)
    ]
    return values[0] if len(values) == 1 else tuple(values)


def difference(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None, bound: "BoundModel | None") -> list[str]:
    """Return the fields in which two images differ, in the order of the model."""
    before, after = old or {}, new or {}
    hidden = set() if bound is None else {column.name for column in bound.spec.hidden}
    names = [name for name in {**before, **after} if not name.startswith("$") and name not in hidden]
    return [name for name in names if before.get(name) != after.get(name) or before.get(f"${name}")]
