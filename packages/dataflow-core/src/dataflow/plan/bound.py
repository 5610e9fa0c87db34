"""A model on one database: its fields with encoders and decoders, its table, relations, features and plans."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from functools import cached_property
from types import NoneType
from typing import TYPE_CHECKING, Any

import attrs

from dataflow import types as t
from dataflow.dialect import Convert, Dialect
from dataflow.errors import DatabaseError, InputError, Problem
from dataflow.fields import FieldSpec
from dataflow.model import ModelSpec
from dataflow.plan.cache import PlanCache
from dataflow.plugins.specs import Feature, NodeSpec

if TYPE_CHECKING:
    import sqlalchemy as sa

    from dataflow.core import Core


class BoundField:
    """A field on one dialect.

    Attributes:
        spec: the field.
        type: its type.
        plain_int: whether a filter on it takes integers as they are.
        encoded: whether features change its values on their way in, so that the database cannot order them.
        encode: any value of the user's -> the driver's; raises `ValueRefused`.
        decode: the driver's value (never None) -> what results show; None for identity.
    """

    __slots__ = (
        "_store",
        "_store_column",
        "decode",
        "encode",
        "encoded",
        "name",
        "nullable",
        "plain_int",
        "spec",
        "store",
        "type",
    )

    def __init__(self, spec: FieldSpec, dialect: Dialect) -> None:
        self.spec = spec
        self.name = spec.name
        self.type = spec.type
        self.nullable = spec.nullable
        self._store = dialect.encoder(spec.type)
        self._store_column = dialect.column_encoder(spec.type)
        self.store: Convert = self._store or _identity
        self.plain_int = spec.type.storage == "int" and self._store is None
        self.encoded = False
        self.encode = self.encoder()
        self.decode = _chain(dialect.decoder(spec.type), spec.type.restore())

    def encoder(self, *extra: Callable[[Any], Any]) -> Convert:
        """Build an encoder: accept, then `extra` (features), then the dialect's."""
        accept, nullable = self.type.accept, self.nullable
        after = _chain(*extra, self._store)

        def encode(value: Any) -> Any:
            if value is None:
                if nullable:
                    return None
                raise t.ValueRefused(t.NOT_NULL, t.NOT_NULL_HINT)
            value = accept(value)
            return value if after is None else after(value)

        return encode

    def through(self, encodes: Sequence[Convert], decodes: Sequence[Convert] = ()) -> "BoundField":
        """Return the field as it is where features change its values on their way in and out."""
        changed = copy(self)
        changed.encoded = bool(encodes)
        changed.plain_int = False
        changed.store = _chain(*encodes, self._store) or _identity
        changed.encode = self.encoder(*encodes)
        changed.decode = _chain(self.decode, *decodes)
        return changed

    def filter_operand(self, value: Any, *, end: bool = False) -> Any:
        """Encode an operand of a filter: as `encode`, but ISO text of dates and times is parsed."""
        if type(value) is int and self.plain_int:
            return self.type.accept(value)
        if value is None:
            msg = "None cannot be compared with this operator"
            raise t.ValueRefused(msg, "use {'field': None} or {'$null': True}")
        return self.store(t.filter_value(self.type, value, end=end))

    def column(self, values: list[Any], *extra: Convert) -> list[Any]:
        """Encode a column of values at once, as `encoder` does; `ValueRefused.index` tells which does not fit."""
        accepted = self.type.accept_column(values, nullable=self.nullable)
        if extra or self._store_column is None:
            after = _chain(*extra, self._store)
            if after is None:
                return accepted
            if self.nullable and NoneType in set(map(type, accepted)):
                return [None if value is None else after(value) for value in accepted]
            return list(map(after, accepted))
        if self.nullable and NoneType in set(map(type, accepted)):
            present = [value for value in accepted if value is not None]
            stored = iter(self._store_column(present) if present else ())
            return [None if value is None else next(stored) for value in accepted]
        return self._store_column(accepted) if accepted else []


def _identity(value: Any) -> Any:
    return value


def _chain(*functions: Convert | None) -> Convert | None:
    present = [function for function in functions if function is not None]
    if not present:
        return None
    if len(present) == 1:
        return present[0]

    def chained(value: Any) -> Any:
        for function in present:
            value = function(value)
        return value

    return chained


def write_decoder(
    names: Sequence[str], decodes: Mapping[str, Convert], unreadable: Callable[[str], Exception]
) -> "Decoder":
    """Write the functions that turn rows into dicts, as attrs writes ``__init__``: twice as fast as a loop.

    Args:
        names: of the columns; where one comes twice, its last value counts.
        decodes: what turns a column's value (never None) into what results show.
        unreadable: builds the error for a column whose stored value does not fit.
    """
    places = {name: place for place, name in enumerate(names)}
    scope: dict[str, Any] = {f"decode_{places[name]}": decode for name, decode in decodes.items()}
    items = [
        f"{name!r}: None if (value := row[{place}]) is None else decode_{place}(value)"
        if name in decodes
        else f"{name!r}: row[{place}]"
        for name, place in places.items()
    ]
    record = f"{{{', '.join(items)}}}"
    exec(f"def decode(row):\n    return {record}\ndef decode_all(rows):\n    return [{record} for row in rows]", scope)  # noqa: S102  # names are literals
    decode_all: Callable[[Iterable[Sequence[Any]]], list[dict[str, Any]]] = scope["decode_all"]
    return Decoder(scope["decode"], decode_all, places, decodes, unreadable)


class Decoder:
    """Turns rows of a statement into dicts; tells which column it is where a stored value does not fit."""

    __slots__ = ("_all", "_decodes", "_one", "_places", "_unreadable")

    def __init__(
        self,
        one: Callable[[Sequence[Any]], dict[str, Any]],
        every: Callable[[Iterable[Sequence[Any]]], list[dict[str, Any]]],
        places: Mapping[str, int],
        decodes: Mapping[str, Convert],
        unreadable: Callable[[str], Exception],
    ) -> None:
        self._one = one
        self._all = every
        self._places = places
        self._decodes = decodes
        self._unreadable = unreadable

    def __call__(self, row: Sequence[Any]) -> dict[str, Any]:
        """Decode one row."""
        try:
            return self._one(row)
        except _UNREADABLE as error:
            self._explain([row], error)
            raise

    def all(self, rows: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
        """Decode many rows."""
        try:
            return self._all(rows)
        except _UNREADABLE as error:
            self._explain(rows, error)
            raise

    def _explain(self, rows: Sequence[Sequence[Any]], error: Exception) -> None:
        for row in rows:
            for name, decode in self._decodes.items():
                value = row[self._places[name]]
                try:
                    if value is not None:
                        decode(value)
                except _UNREADABLE:
                    raise self._unreadable(name) from error


_UNREADABLE = (ValueError, TypeError, LookupError, ArithmeticError)


@attrs.frozen
class BoundRelation:
    """How one model reaches another.

    Attributes:
        name: what filters and `include` call it.
        target: name of the other model.
        many: whether it leads to several records.
        local: field on this side.
        remote: field on the other side.
    """

    name: str
    target: str
    many: bool
    local: str
    remote: str


class BoundModel:
    """A model on one database.

    Attributes:
        core: the database.
        spec: the model.
        features: what edits its plans, in order.
        fields: name -> bound field.
        key: the bound fields of its primary key.
        relations: name -> relation; grows when related models are registered.
        nodes: node type -> spec.
        plans: its compiled plans by shape.
        ready: whether its table is known to be there.
    """

    def __init__(self, core: "Core", spec: ModelSpec, features: Sequence[Feature]) -> None:
        self.core = core
        self.spec = spec
        self.name = spec.name
        self.features = tuple(features)
        self.fields = {name: BoundField(field, core.dialect) for name, field in spec.fields.items()}
        self.key = tuple(self.fields[name] for name in spec.primary_key)
        self.relations: dict[str, BoundRelation] = {}
        self.nodes: dict[str, NodeSpec] = {}
        self.plans: PlanCache[Any] = PlanCache()
        self.ready = False
        self._operations: dict[str, Any] = {}

    @cached_property
    def table(self) -> "sa.Table":
        """The SQLAlchemy table, built when the first plan is compiled."""
        return self.core.table(self)

    def operation(self, name: str) -> Any:
        """Return the implementation of an operation on this model.

        Raises:
            InputError: this model has no such operation.
        """
        found = self._operations.get(name)
        if found is None:
            found = self._operations[name] = self.core.bind_operation(self, name)
        return found

    def target(self, relation: BoundRelation) -> "BoundModel":
        """Return the model a relation leads to."""
        return self.core.models[relation.target]

    def decoder(self, names: Sequence[str], extra: dict[str, list[Convert]] | None = None) -> "Decoder":
        """Build what turns rows of these columns into dicts."""
        decodes: dict[str, Convert] = {}
        for name in dict.fromkeys(names):
            decode = _chain(self.fields[name].decode, *(extra or {}).get(name, ()))
            if decode is not None:
                decodes[name] = decode
        return write_decoder(names, decodes, self.unreadable)

    def unreadable(self, name: str) -> DatabaseError:
        """Build the error for a stored value that is not of its field's type."""
        msg = f"a stored value of {self.name}.{name} is not {self.fields[name].type}"
        hint = "something else wrote it: correct the row, or the field's type"
        return DatabaseError(msg, hint=hint, where={"table": self.spec.table, "column": name}, code="bad-stored-value")

    def refuse(self, problems: Iterable[Problem], operation: str) -> InputError:
        """Build the error that reports all faults of a call together."""
        found = list(problems)
        where = {"model": self.name, "operation": operation}
        if len(found) == 1:
            one = found[0]
            return InputError(one.message, hint=one.hint, where={**where, **one.where}, code=one.code)
        msg = f"{len(found)} faults in the parameters of {operation} on {self.name}; nothing was written"
        return InputError(msg, where=where, problems=found, code="several-faults")
