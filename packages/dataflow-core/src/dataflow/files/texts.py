"""Values as text and JSON, and back, by the type of their field: what CSV cells and members of JSON lines say.

Strict: a text that is not plainly a value of the type is refused. Texts of `str` fields are never touched.
"""

import base64
import re
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any

from dataflow import types as t
from dataflow.jsontext import dump_json

_INT = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_LONGEST_INT = 400
"""Digits of an integer that are looked at: more are beyond 64 bits, whatever they are."""
_BOOLS = {
    **dict.fromkeys(("true", "t", "yes", "y", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0"), False),
}


# -- text to value ------------------------------------------------------------------------------------------------
def has_empty(kind: t.FieldType) -> bool:
    """Tell whether the empty text is a value of a type."""
    return kind.storage in ("str", "bytes") or "" in kind.choices


def read_text(kind: t.FieldType, text: str) -> Any:
    """Return the value that a text says; spaces around what is not text itself do not count.

    Raises:
        ValueRefused: it says none.
    """
    storage = kind.storage
    if storage == "str":
        return kind.from_text(text)
    if storage == "enum":
        return kind.accept(text)
    reader = _READERS.get(storage)
    return kind.from_text(text.strip()) if reader is None else reader(kind, text.strip())


def _int(kind: t.FieldType, text: str) -> Any:
    if not _INT.fullmatch(text):
        raise _refused(kind, text, "a whole number", "write 12")
    if len(text) > _LONGEST_INT:
        text = "9" * _LONGEST_INT
    return kind.accept(int(text))


def _float(kind: t.FieldType, text: str) -> Any:
    if not _NUMBER.fullmatch(text):
        raise _refused(kind, text, "a number", "write 12.5")
    return kind.accept(float(text))


def _decimal(kind: t.FieldType, text: str) -> Any:
    if not _NUMBER.fullmatch(text):
        raise _refused(kind, text, "a number", "write 12.50, without separators of thousands")
    try:
        return kind.accept(Decimal(text))
    except InvalidOperation:
        msg = "the number has more digits than a Decimal holds"
        raise t.ValueRefused(msg) from None


def _bool(kind: t.FieldType, text: str) -> Any:
    found = _BOOLS.get(text.lower())
    if found is None:
        raise _refused(kind, text, "true or false", "write true or false")
    return kind.accept(found)


def _bytes(kind: t.FieldType, text: str) -> Any:
    try:
        return kind.accept(base64.b64decode(text, validate=True))
    except ValueError:
        raise _refused(kind, text, "base64", "encode it with base64") from None


def _json(kind: t.FieldType, text: str) -> Any:
    return kind.accept(read_document(text))


def _array(kind: t.FieldType, text: str) -> Any:
    found = read_document(text, exact=True)
    if not isinstance(found, list):
        raise _refused(kind, text, "a list", 'write a JSON array: ["a", "b"]')
    return read_member(kind, found)


def _refused(kind: t.FieldType, text: str, form: str, hint: str) -> t.ValueRefused:
    what = "nothing" if not text else f"text that is not {form}"
    return t.ValueRefused(f"expected {kind}, got {what}", hint)


_READERS: dict[str, Callable[[t.FieldType, str], Any]] = {
    "int": _int,
    "float": _float,
    "decimal": _decimal,
    "bool": _bool,
    "bytes": _bytes,
    "json": _json,
    "array": _array,
}


@cache
def _decoders() -> tuple[Callable[[str | bytes], Any], Callable[[str | bytes], Any]]:
    from msgspec.json import Decoder

    return Decoder().decode, Decoder(float_hook=Decimal).decode


def read_document(text: str | bytes, *, exact: bool = False) -> Any:
    """Read JSON, strictly; `exact`: numbers with a point become Decimals.

    Raises:
        ValueRefused: it is none.
    """
    try:
        return _decoders()[exact](text)
    except Exception as error:  # msgspec's errors have no base in common
        msg = "expected JSON, got text that is not JSON"
        raise t.ValueRefused(msg, 'text needs double quotes: "text"') from error


def read_member(kind: t.FieldType, value: Any) -> Any:
    """Return the value that a member of a JSON document says; texts of dates, Decimals, bytes … are read.

    Args:
        kind: the field's type.
        value: as `read_document` returns it, exact or not.

    Raises:
        ValueRefused: it says none.
    """
    storage = kind.storage
    if storage == "json":
        return kind.accept(_floats(value))
    if isinstance(kind, t.ArrayType):
        return _items(kind, value)
    if type(value) is Decimal and storage != "decimal":
        value = float(value)
    if isinstance(value, str) and storage not in ("int", "float", "bool"):
        return read_text(kind, value)
    return kind.accept(value)


def _items(kind: t.ArrayType, value: Any) -> Any:
    if not isinstance(value, list):
        return kind.accept(value)
    items = []
    for index, item in enumerate(value):
        try:
            items.append(read_member(kind.item, item))
        except t.ValueRefused as fault:
            raise t.ValueRefused(f"element {index}: {fault.message}", fault.hint) from None
    return kind.accept(items)


def _floats(value: Any) -> Any:
    if type(value) is Decimal:
        return float(value)
    if isinstance(value, list):
        return [_floats(item) for item in value]
    return {key: _floats(item) for key, item in value.items()} if isinstance(value, dict) else value


# -- columns of texts ---------------------------------------------------------------------------------------------
def _joined(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"{pattern}(?:\n{pattern})*")


_QUICK: dict[str, tuple[re.Pattern[str], Callable[[str], Any]]] = {
    "int": (_joined("-?[0-9]{1,18}"), int),
    "float": (_joined(r"-?[0-9]{1,300}(?:\.[0-9]{1,300})?"), float),
    "decimal": (_joined(r"-?[0-9]{1,300}(?:\.[0-9]{1,300})?"), Decimal),
    "bool": (_joined("(?:true|false)"), "true".__eq__),
}
"""What most numbers look like, so that a column of them is read in C."""


def read_texts(kind: t.FieldType, texts: Sequence[str]) -> tuple[list[Any], dict[int, t.ValueRefused]]:
    """Read a column of texts: (values, place -> why a text says none; its value is None).

    The values have yet to be accepted by the type.
    """
    quick = _QUICK.get(kind.storage)
    try:
        if quick is not None and quick[0].fullmatch("\n".join(texts)):
            return [*map(quick[1], texts)], {}
        if kind.storage == "str" and type(kind).from_text is t.FieldType.from_text:
            return list(texts), {}
        return [read_text(kind, text) for text in texts], {}
    except (t.ValueRefused, ValueError):
        return read_each(lambda text: read_text(kind, text), texts)


def read_each(read: Callable[[Any], Any], values: Sequence[Any]) -> tuple[list[Any], dict[int, t.ValueRefused]]:
    """Read values one by one: (values, place -> why it is refused)."""
    found: list[Any] = []
    faults: dict[int, t.ValueRefused] = {}
    for place, value in enumerate(values):
        try:
            found.append(read(value))
        except t.ValueRefused as refused:
            faults[place] = refused
            found.append(None)
    return found, faults


# -- value to text ------------------------------------------------------------------------------------------------
def write_text(kind: t.FieldType, value: Any) -> str:
    """Return the text that `read_text` reads as the value, which is one that results show, and not None."""
    accepted = kind.accept(value)
    storage = kind.storage
    if storage == "bool":
        return "true" if accepted else "false"
    if storage == "float":
        return repr(accepted)
    if storage == "decimal":
        return format(accepted, "f")
    if storage == "bytes":
        return base64.b64encode(accepted).decode()
    if storage == "json":
        return dump_json(accepted)
    if storage == "array":
        return dump_json(write_member(kind, value))
    return accepted.isoformat() if hasattr(accepted, "isoformat") else str(accepted)


def write_member(kind: t.FieldType, value: Any) -> Any:
    """Return what `read_member` reads as the value, for JSON."""
    storage = kind.storage
    if isinstance(kind, t.ArrayType):
        return [write_member(kind.item, item) for item in kind.accept(value)]
    if storage in ("int", "float", "bool", "json", "str"):
        return kind.accept(value)
    return write_text(kind, value)
