"""Annotations to fields: what a model's author writes, turned into frozen `FieldSpec` records.

Knows Python typing and the field types; knows nothing of tables, dialects or features.
"""

import dataclasses
import types as pytypes
import typing
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Final, Union, get_args, get_origin
from uuid import UUID

import attrs

from dataflow import types as t
from dataflow.errors import ModelError


class Unset(Enum):
    """The type of `UNSET`, which tells 'not given' from None."""

    UNSET = "UNSET"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET


def _callable(_factory: Any, _attribute: Any, value: Any) -> None:
    if not callable(value):
        msg = f"Factory takes a function, got {t.kind(value)}"
        raise ModelError(msg, hint="write Factory(list), Factory(uuid4), Factory(lambda: …)", code="bad-default")


@attrs.frozen
class Computed:
    """A default that a function gives for each record; see `Factory`."""

    call: Callable[[], Any] = attrs.field(validator=_callable)


def Factory(call: Callable[[], Any]) -> Any:  # noqa: N802  # users write it where the value stands, as in attrs
    """Compute a default in the client for each record: ``Factory(uuid4)``, ``Factory(list)``.

    Raises:
        ModelError: `call` is not a function.
    """
    return Computed(call)


def _model_name(model: "str | type") -> str:
    return model if isinstance(model, str) else model.__name__


@attrs.frozen
class Relation:
    """Relate a field to a model without a constraint in the database (real data has orphans).

    Attributes:
        model: name of the target model, or its class.
        name: what filters and `include` call it; the field's name without ``_id`` by default.
        reverse: name on the target; the plural of this model by default.
        to: field of the target that is referred to; its primary key by default.
    """

    model: str = attrs.field(converter=_model_name)
    name: str | None = attrs.field(default=None, kw_only=True)
    reverse: str | None = attrs.field(default=None, kw_only=True)
    to: str | None = attrs.field(default=None, kw_only=True)


ON_DELETE = ("restrict", "cascade", "set null", "no action")


def _on_delete(value: str) -> str:
    folded = str(value).lower().replace("_", " ")
    if folded not in ON_DELETE:
        msg = f"a foreign key cannot have on_delete={value!r}"
        raise ModelError(msg, hint=f"choose one of {', '.join(map(repr, ON_DELETE))}", code="bad-relation")
    return folded


@attrs.frozen
class ForeignKey(Relation):
    """A relation that the database enforces.

    Attributes:
        on_delete: "restrict" (default), "cascade", "set null" or "no action".
    """

    on_delete: str = attrs.field(default="restrict", kw_only=True, converter=_on_delete)


@attrs.frozen
class Field:
    """What an annotation says of a column besides its type: ``mail: Annotated[str, Field(renamed_from="email")]``.

    Attributes:
        renamed_from: the column's name before, so that a migration renames it; "" where it was never called otherwise.
    """

    renamed_from: str = attrs.field(default="", kw_only=True)


@attrs.frozen
class FieldSpec:
    """One field of a model.

    Attributes:
        name: the field and its column.
        type: which values it takes.
        nullable: whether None is a value.
        default: a literal, also written into the DDL; UNSET when there is none.
        factory: computes the default in the client; None when there is none.
        generated: the database gives the value when none is passed (auto-increment ids).
        origin: "user", or who added it: "id", "timestamps", a feature's name.
        relation: what its annotation says about another model.
        write: when the framework sets it: "" (never), "create", or "update" (on create and each update).
        kept: what keeps it, where callers may not write it: a feature's name, or "the database" for its generated ids.
        renamed_from: its column's name before.
    """

    name: str
    type: t.FieldType
    nullable: bool = False
    default: Any = UNSET
    factory: Callable[[], Any] | None = None
    generated: bool = False
    origin: str = "user"
    relation: Relation | None = None
    write: str = ""
    kept: str = ""
    renamed_from: str = ""

    @property
    def required(self) -> bool:
        """Whether a new record must be given a value; what a feature adds, the feature sets."""
        given = self.nullable or self.generated or self.write or self.factory or self.default is not UNSET
        return self.origin == "user" and not given


class AnnotationRefused(Exception):  # an internal signal, turned into ModelError
    """An annotation has no field type."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


SCALARS: Mapping[Any, t.FieldType] = {
    int: t.IntType(),
    float: t.FloatType(),
    str: t.StrType(),
    bool: t.BoolType(),
    bytes: t.BytesType(),
    date: t.DateType(),
    time: t.TimeType(),
    Decimal: t.DecimalType(),
    UUID: t.UUIDType(),
}
_JSON_ORIGINS = (dict, Mapping, typing.MutableMapping.__origin__)  # type: ignore[attr-defined]


def split_optional(annotation: Any) -> tuple[Any, bool, Relation | None]:
    """Take ``Annotated[…]`` and ``| None`` off: (inner annotation, nullable, relation)."""
    relation = None
    nullable = False
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *extras = get_args(annotation)
            relation = next((extra for extra in extras if isinstance(extra, Relation)), relation)
            continue
        if get_origin(annotation) in (Union, pytypes.UnionType):
            members = [member for member in get_args(annotation) if member is not type(None)]
            if len(members) < len(get_args(annotation)):
                nullable = True
            if len(members) == 1:
                annotation = members[0]
                continue
        return annotation, nullable, relation


def column_notes(annotation: Any) -> Field:
    """Return the `Field` among the notes of ``Annotated[…]``, or an empty one."""
    notes = getattr(annotation, "__metadata__", ())
    return next((note for note in notes if isinstance(note, Field)), Field())


def resolve(annotation: Any, *, naive: str, custom: Callable[[Any], t.FieldType | None]) -> t.FieldType:
    """Find the type for a bare annotation.

    Args:
        annotation: without Optional and Annotated.
        naive: the setting `naive_datetimes`.
        custom: asks the plugins; called for what core does not know, and first for classes.

    Raises:
        AnnotationRefused: there is none.
    """
    found = custom(annotation)
    if found is not None:
        return found
    if annotation is datetime:
        return t.DateTimeType(naive)
    if annotation in SCALARS:
        return SCALARS[annotation]
    if annotation in (Any, object, dict, list) or typing.is_typeddict(annotation):
        return t.JsonType()
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        if not len(annotation):
            raise AnnotationRefused(f"the enum {annotation.__name__} has no members", "give it some")
        return t.EnumType(annotation)
    origin = get_origin(annotation)
    if origin in _JSON_ORIGINS:
        return t.JsonType()
    if origin is list:
        return _resolve_list(get_args(annotation)[0], naive=naive, custom=custom)
    raise _no_type(annotation, origin)


def _resolve_list(item: Any, *, naive: str, custom: Callable[[Any], t.FieldType | None]) -> t.FieldType:
    bare, nullable, _ = split_optional(item)
    if nullable or get_origin(bare) in (Union, pytypes.UnionType):
        return t.JsonType()
    inner = resolve(bare, naive=naive, custom=custom)
    return t.JsonType() if isinstance(inner, (t.JsonType, t.ArrayType)) else t.ArrayType(inner)


def _no_type(annotation: Any, origin: Any) -> AnnotationRefused:
    name = getattr(annotation, "__name__", None) or str(annotation)
    if origin in (Union, pytypes.UnionType):
        return AnnotationRefused(f"a field has one type; {annotation} has several", "choose one, or Any for JSON")
    if annotation in (set, frozenset, tuple) or origin in (set, frozenset, tuple):
        return AnnotationRefused(f"{name} is not a field type", "use list[…]")
    known = "int float str bool bytes datetime date time Decimal UUID, an Enum, dict, list[…] or Any"
    return AnnotationRefused(f"{name} is not a field type", f"use {known}")


def read_default(cls: type, name: str) -> tuple[Any, Callable[[], Any] | None]:
    """Read the default of a field from a class body, plain or dataclass: (literal or UNSET, factory)."""
    found = getattr(cls, "__dataclass_fields__", {}).get(name)
    value = found if found is not None else cls.__dict__.get(name, getattr(cls, name, UNSET))
    if isinstance(value, dataclasses.Field):
        if value.default_factory is not dataclasses.MISSING:
            return UNSET, value.default_factory
        value = UNSET if value.default is dataclasses.MISSING else value.default
    if isinstance(value, Computed):
        return UNSET, value.call
    if isinstance(value, pytypes.MemberDescriptorType):  # __slots__
        return UNSET, None
    return value, None
