"""Which Python values fields take and give, as text for type checkers; and the shared types of filters and changes.

Follows `dataflow.types` (what a type accepts), `dataflow.filters` and `dataflow.plan.changes` (what operators take).
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from keyword import iskeyword

import attrs

from dataflow import types as t
from dataflow.fields import FieldSpec

NUMBER = "int | float | decimal.Decimal"
_PLAIN: Mapping[type, tuple[tuple[str, ...], str]] = {
    t.IntType: (("int",), "int"),
    t.FloatType: (("float",), "float"),
    t.StrType: (("str",), "str"),
    t.BoolType: (("bool",), "bool"),
    t.BytesType: (("bytes", "bytearray"), "bytes"),
    t.DateTimeType: (("datetime.datetime",), "datetime.datetime"),
    t.DateType: (("datetime.date",), "datetime.date"),
    t.TimeType: (("datetime.time",), "datetime.time"),
    t.DecimalType: (("decimal.Decimal", "int"), "decimal.Decimal"),
    t.UUIDType: (("uuid.UUID", "str"), "uuid.UUID"),
}
"""Field types -> (what they take, what results show)."""
_DATED = (t.DateTimeType, t.DateType, t.TimeType)


@attrs.frozen
class Value:
    """One kind of value.

    Attributes:
        name: what its shared types are called.
        takes: annotations of what is written.
        gives: annotation of what results show.
        finds: annotations of what filters compare with.
        item: of a list, its elements.
    """

    name: str
    takes: tuple[str, ...]
    gives: str
    finds: tuple[str, ...]
    item: "Value | None" = None


ANYTHING = Value("Any", ("Any",), "Any", ("Any",))


def union(*annotations: str) -> str:
    """Join annotations; whatever stands beside Any says nothing."""
    parts = list(dict.fromkeys(annotations))
    return "Any" if "Any" in parts else " | ".join(parts)


def many(atoms: Iterable[str]) -> str:
    """Annotate a list or tuple of values: a text alone, though a sequence of texts, is none."""
    return f"_Many[{union(*atoms)}]"


def literal(names: Iterable[str]) -> str:
    """Annotate one of some texts; without any, nothing fits."""
    listed = ", ".join(map(repr, names))
    return f"Literal[{listed}]" if listed else "NoReturn"


def typed_dict(name: str, entries: Mapping[str, str], *, total: bool = False) -> str:
    """Write a dict type whose keys need not be identifiers."""
    lines = "".join(f"\n    {key!r}: {annotation}," for key, annotation in entries.items())
    return f"{name} = TypedDict({name!r}, {{{lines}\n}}{'' if total else ', total=False'})\n"


class Values:
    """Finds the values of field types, and collects the types and imports they need.

    Attributes:
        shared: name -> text of a type that several models use.
        modules: what these texts name beyond the standard modules.
    """

    def __init__(self) -> None:
        self.shared: dict[str, str] = {}
        self.modules: set[str] = set()
        self._enums: dict[type[Enum], str] = {}

    def of(self, kind: t.FieldType) -> Value:
        """Return the values of a field type; for types of plugins, what they say of themselves."""
        if isinstance(kind, t.EnumType):
            return self._enum(kind)
        if isinstance(kind, t.ArrayType):
            item = self.of(kind.item)
            listed = (many(item.takes),)
            return Value(f"{item.name}List", listed, f"list[{item.gives}]", listed, item)
        if type(kind) not in _PLAIN:
            return self._foreign(kind)
        takes, gives = _PLAIN[type(kind)]
        name = gives.rpartition(".")[2].capitalize()
        return Value(name, takes, gives, (*takes, "str") if isinstance(kind, _DATED) else takes)

    def _foreign(self, kind: t.FieldType) -> Value:
        takes, gives = kind.annotations
        if takes == gives == "Any":
            return ANYTHING
        for annotation in (takes, gives):
            self.modules |= {annotation.rpartition(".")[0]} if "." in annotation else set()
        return Value(type(kind).__name__, (takes,), gives, (takes,))

    def _enum(self, kind: t.EnumType) -> Value:
        texts = literal(kind.choices)
        module, name = kind.enum.__module__.removeprefix("dataflow_app_"), kind.enum.__qualname__
        shared = self._enums.get(kind.enum)
        if shared is None:
            plain = "".join(part for part in name.split(".") if part.isidentifier())
            taken = sum(other.rstrip("0123456789") == plain for other in self._enums.values())
            shared = self._enums[kind.enum] = f"{plain}{taken + 1 if taken else ''}"
        if not all(part.isidentifier() and not iskeyword(part) for part in (*module.split("."), *name.split("."))):
            return Value(shared, ("Enum", texts), "Any", ("Enum", texts))  # defined within a function
        self.modules.add(module)
        own = f"{module}.{name}"
        return Value(shared, (own, texts), own, (own, texts))

    def operand(self, field: FieldSpec) -> str:
        """Annotate what stands under a field in a filter: a value, or operators."""
        value = self.of(field.type)
        if "Any" in value.finds:
            return "Any"
        name = f"_{value.name}Is"
        if name not in self.shared:
            self.shared[name] = ""  # its place
            self.shared[name] = typed_dict(name, self._operators(name, field.type, value))
        return union(*value.finds, "None", name)

    def _operators(self, name: str, kind: t.FieldType, value: Value) -> dict[str, str]:
        one, nothing = union(*value.finds), union(*value.finds, "None")
        inner = union(*value.finds, "None", name)
        entries = {"$eq": nothing, "$ne": nothing, "$in": many((*value.finds, "None"))}
        entries |= {"$nin": entries["$in"], "$exists": "bool", "$null": "bool", "$not": inner}
        entries |= dict.fromkeys(("$and", "$or", "$nor"), f"list[{inner}]")
        if kind.orders:
            entries |= dict.fromkeys(("$gt", "$gte", "$lt", "$lte"), one)
            entries["$between"] = many(value.finds)
        if kind.storage == "str":
            texts = ("$like", "$ilike", "$regex", "$iregex", "$startswith", "$endswith", "$contains")
            entries |= dict.fromkeys(texts, "str")
        if value.item is not None:
            entries |= {"$contains": union(*value.item.finds), "$overlap": many(value.item.finds)}
        return entries

    def written(self, field: FieldSpec) -> str:
        """Annotate what a new record takes for a field."""
        return union(*self.of(field.type).takes, *(("None",) if field.nullable else ()))

    def given(self, field: FieldSpec) -> str:
        """Annotate what results show of a field."""
        return union(self.of(field.type).gives, *(("None",) if field.nullable else ()))

    def changed(self, field: FieldSpec) -> str:
        """Annotate what an update takes for a field: a value, or an update operator."""
        value = self.of(field.type)
        if "Any" in value.takes:
            return "Any"
        name = f"_{value.name}{'OrNone' if field.nullable else ''}Change"
        if name not in self.shared:
            self.shared[name] = typed_dict(name, self._changes(field, value))
        return union(self.written(field), name)

    def _changes(self, field: FieldSpec, value: Value) -> dict[str, str]:
        kind, one = field.type, union(*value.takes)
        entries = {"$set": self.written(field)}
        if kind.numeric:
            entries |= {"$inc": one, "$dec": one}
            entries |= dict.fromkeys(("$multiply", "$divide"), NUMBER if kind.storage == "int" else one)
        if kind.orders:
            entries |= {"$min": one, "$max": one}
        if value.item is not None:
            entries["$append"] = union(*value.item.takes)
        if field.nullable:
            entries["$unset"] = "object"
        return entries
