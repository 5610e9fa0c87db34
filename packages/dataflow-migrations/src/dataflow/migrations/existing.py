"""What models of existing tables need beyond the models of tables that DataFlow made: field types and two options.

The types hold values as the database keeps them, so that what is accepted is what is stored, compared and read back.
The options ``given`` and ``computed`` say which columns the database fills. Knows no database; `discovery` writes it.
"""

import struct
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from dataflow import types as t
from dataflow.errors import ModelError, suggest
from dataflow.model import ModelDraft
from dataflow.plan.stages import Stage

if TYPE_CHECKING:
    from dataflow.plan.builder import PlanBuilder

GIVEN, COMPUTED = "given", "computed"
_EXACT_DIGITS = 15
"""Significant decimal digits that a 64-bit float always keeps."""


class SingleType(t.FloatType):
    """Floats that the database keeps with 32 bits (``real``): values are rounded to those first."""

    def accept(self, value: Any) -> float:
        number = super().accept(value)
        try:
            return float(struct.unpack("f", struct.pack("f", number))[0])
        except OverflowError:
            msg = "the number is too large for a 32-bit float"
            raise t.ValueRefused(msg) from None

    def accept_column(self, values: list[Any], *, nullable: bool) -> list[Any]:
        return t.FieldType.accept_column(self, values, nullable=nullable)

    @property
    def column(self) -> str:
        return "real"


@attrs.frozen
class WholeType(t.IntType):
    """Integers of arrays of ``smallint`` and ``integer``, which PostgreSQL compares only with their own kind.

    Attributes:
        written: the SQL type.
    """

    written: str

    @property
    def column(self) -> str:
        return self.written


@attrs.frozen
class TextType(t.StrType):
    """Text of arrays of ``varchar``; see `WholeType`.

    Attributes:
        written: the SQL type.
    """

    written: str

    @property
    def column(self) -> str:
        return self.written


@attrs.frozen
class NativeEnumType(t.EnumType):
    """Members of an Enum in a column of an enum type of PostgreSQL.

    Attributes:
        written: the SQL type.
    """

    written: str

    @property
    def column(self) -> str:
        return self.written


@attrs.frozen
class TimestampType(t.DateTimeType):
    """Instants of a column without time zone, where they are kept as UTC."""

    @property
    def column(self) -> str:
        return "timestamp without time zone"

    def accept(self, value: Any) -> datetime:
        return super().accept(value).replace(tzinfo=None)

    def accept_column(self, values: list[Any], *, nullable: bool) -> list[Any]:
        return t.FieldType.accept_column(self, values, nullable=nullable)


class PaddedType(t.StrType):
    """Text of ``char(n)``, where spaces at the end mean nothing: they are neither stored, compared nor shown."""

    def accept(self, value: Any) -> str:
        return super().accept(value).rstrip(" ")

    def accept_column(self, values: list[Any], *, nullable: bool) -> list[Any]:
        return t.FieldType.accept_column(self, values, nullable=nullable)

    def restore(self) -> Callable[[Any], Any]:
        return lambda text: text.rstrip(" ")


@attrs.frozen(eq=True, repr=True)
class ScaledType(t.DecimalType):
    """Decimals with at most `scale` digits after the point (``numeric(p, scale)``): others would be rounded."""

    scale: int

    def __hash__(self) -> int:
        return hash((type(self), self.scale))

    def accept(self, value: Any) -> Decimal:
        number = super().accept(value)
        if -int(number.as_tuple().exponent) > self.scale:
            msg = f"the column keeps {self.scale} digits after the point"
            raise t.ValueRefused(msg, "round it as you want it: value.quantize(Decimal('0.01'))")
        return number


class NumberType(t.DecimalType):
    """Decimals of a column that keeps them as numbers (``NUMERIC`` and ``DECIMAL`` of SQLite), up to 15 digits."""

    storage: ClassVar[str] = "float"

    def accept(self, value: Any) -> Any:
        number = super().accept(value)
        if len(number.as_tuple().digits) > _EXACT_DIGITS:
            msg = f"the column keeps {_EXACT_DIGITS} digits"
            raise t.ValueRefused(msg, "round it, or keep it in a text column")
        return float(number)

    def restore(self) -> Callable[[Any], Any]:
        return lambda number: t.canonical_decimal(Decimal(repr(number)))


class DocumentType(t.JsonType):
    """JSON of a column that would keep a bare number as a number (``JSON`` of SQLite): such a document is refused."""

    def accept(self, value: Any) -> Any:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            msg = "the column keeps documents, not bare numbers"
            raise t.ValueRefused(msg, "wrap it in a list or dict")
        return super().accept(value)

    def accept_column(self, values: list[Any], *, nullable: bool) -> list[Any]:
        return t.FieldType.accept_column(self, values, nullable=nullable)


@attrs.frozen
class InstantTextType(t.DateTimeType):
    """Instants as most programs write them to SQLite: ``2025-01-31 12:00:00``, in UTC, a fraction only if there is one.

    Text order is time order among such texts; an offset is read, but never written.
    """

    storage: ClassVar[str] = "str"

    def accept(self, value: Any) -> Any:
        return super().accept(value).replace(tzinfo=None).isoformat(" ")

    def accept_column(self, values: list[Any], *, nullable: bool) -> list[Any]:
        return t.FieldType.accept_column(self, values, nullable=nullable)

    def restore(self) -> Callable[[Any], Any]:
        return _instant


def _instant(text: str) -> datetime:
    value = datetime.fromisoformat(text)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class TimeTextType(t.TimeType):
    """Times as most programs write them to SQLite: ``12:00:00``, a fraction only if there is one."""

    storage: ClassVar[str] = "str"

    def accept(self, value: Any) -> Any:
        return super().accept(value).isoformat()

    def restore(self) -> Callable[[Any], Any]:
        return time.fromisoformat


@attrs.frozen
class Stored:
    """An annotation that names a field type itself: what no Python class says.

    Attributes:
        type: the field type; of `InstantTextType`, what the setting `naive_datetimes` says takes the place of its own.
    """

    type: t.FieldType


def resolve(annotation: Any) -> t.FieldType | None:
    """Return the type that a `Stored` annotation names; for the hook ``dataflow_resolve_annotation``."""
    return annotation.type if isinstance(annotation, Stored) else None


class Existing:
    """The feature behind the options ``given`` and ``computed`` of ``__dataflow__``: lists of fields.

    ``given``: the database has a value where none is passed (a DEFAULT, a sequence, an identity).
    ``computed``: the database alone sets them (generated columns, identities GENERATED ALWAYS).
    """

    name = "existing"
    stage = Stage.AUTHORIZE
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    capability = "existing"

    def extend_model(self, draft: ModelDraft) -> None:
        """Mark the fields."""
        for option in (GIVEN, COMPUTED):
            for name in _names(draft, option):
                kept = "the database" if option == COMPUTED else draft.fields[name].kept
                draft.fields[name] = attrs.evolve(draft.fields[name], generated=True, kept=kept)

    def extend_plan(self, plan: "PlanBuilder") -> None:
        """Leave plans as they are."""


def _names(draft: ModelDraft, option: str) -> Sequence[str]:
    names = draft.options.get(option) or ()
    if isinstance(names, str) or not isinstance(names, Sequence):
        msg = f"the model option {option!r} is a list of fields"
        raise ModelError(msg, hint=f"write __dataflow__ = {{{option!r}: ['created']}}")
    for name in names:
        if name not in draft.fields:
            close = suggest(str(name), draft.fields)
            msg = f"the model option {option!r} names the field {name!r}, which does not exist"
            raise ModelError(msg, hint=f"did you mean {close!r}?" if close else f"fields: {', '.join(draft.fields)}")
    return names
