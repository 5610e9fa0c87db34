"""Models as JSON-able data, and back: what lets a process work with models that another one registered.

`dump` writes what the class says, not what features make of it: they do that again where the model is restored. A
default that a function computes stays in the process that has the function. Reads and writes no database.
"""

import types
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin
from uuid import UUID

from dataflow import types as t
from dataflow.errors import DataFlowError, ModelError
from dataflow.fields import UNSET, Field, FieldSpec, ForeignKey, Relation
from dataflow.migrations import existing as own
from dataflow.model import ModelSpec, forbid_instances
from dataflow.wire import from_wire, to_wire

if TYPE_CHECKING:
    from dataflow.core import Core
    from dataflow.plugins.manager import PluginSet

FORMAT = 1
_PLAIN: Mapping[type[t.FieldType], Any] = {
    t.IntType: int,
    t.FloatType: float,
    t.StrType: str,
    t.BoolType: bool,
    t.BytesType: bytes,
    t.DateTimeType: datetime,
    t.DateType: date,
    t.TimeType: time,
    t.DecimalType: Decimal,
    t.UUIDType: UUID,
    t.JsonType: Any,
}
_EXISTING: tuple[type[t.FieldType], ...] = (
    own.SingleType,
    own.PaddedType,
    own.ScaledType,
    own.NumberType,
    own.DocumentType,
    own.TimestampType,
    own.WholeType,
    own.TextType,
    own.InstantTextType,
    own.TimeTextType,
)
_BY_NAME = {kind.__name__.removesuffix("Type").lower(): kind for kind in (*_PLAIN, *_EXISTING)}
_NAMES = {kind: name for name, kind in _BY_NAME.items()}


def dump(
    spec: ModelSpec,
    plugins: "PluginSet | None" = None,
    declared: type | None = None,
    *,
    features: Iterable[str] = (),
) -> dict[str, Any]:
    """Return a model as JSON-able data; never fails: what cannot be kept is a reason under ``unkept``.

    Args:
        spec: the model.
        plugins: the active ones, which know field types of their own.
        declared: its class; with it, indexes that features added are left out, which add them again.
        features: options of `FEATURE_OPTIONS` that hold for it, also where only a setting says so: without them, a
            process with other settings would show what they hide.
    """
    indexes = spec.indexes
    if declared is not None:
        listed = {_index_name(index) for index in getattr(declared, "__indexes__", ())}
        indexes = tuple(index for index in indexes if index.name in listed)
    entry: dict[str, Any] = {"format": FORMAT, "name": spec.name, "table": spec.table, "doc": spec.doc}
    try:
        entry["options"] = to_wire({**spec.options, **dict.fromkeys(features, True)})
        entry["fields"] = [_dump_field(field, plugins) for field in spec.fields.values() if field.origin == "user"]
    except DataFlowError as error:
        return {**entry, "unkept": error.message}
    entry["indexes"] = [
        {"name": index.name, "fields": list(index.fields), "unique": index.unique, "where": index.where}
        for index in indexes
    ]
    return entry


def _index_name(index: Any) -> str:
    return str(index["name"] if isinstance(index, Mapping) else index.name)


def _dump_field(field: FieldSpec, plugins: "PluginSet | None") -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": field.name,
        "type": _dump_type(field.type, plugins),
        "nullable": field.nullable,
    }
    if field.default is not UNSET:
        found["default"] = to_wire(field.default)
    if field.factory is not None:
        found["factory"] = getattr(field.factory, "__qualname__", type(field.factory).__name__)
    if field.renamed_from:
        found["renamed_from"] = field.renamed_from
    if field.relation is not None:
        its = field.relation
        found["relation"] = {"model": its.model, "name": its.name, "reverse": its.reverse, "to": its.to}
        if isinstance(its, ForeignKey):
            found["relation"]["on_delete"] = its.on_delete
    return found


def _dump_type(kind: t.FieldType, plugins: "PluginSet | None") -> dict[str, Any]:
    if isinstance(kind, t.ArrayType):
        return {"kind": "array", "item": _dump_type(kind.item, plugins)}
    if isinstance(kind, t.EnumType):
        members = [[name, to_wire(_plain(member.value))] for name, member in kind.enum.__members__.items()]
        entry = {"kind": "enum", "name": kind.enum.__name__, "members": members}
        return {**entry, "column": kind.column} if isinstance(kind, own.NativeEnumType) else entry
    if isinstance(kind, own.ScaledType):
        return {"kind": _NAMES[own.ScaledType], "scale": kind.scale}
    if isinstance(kind, (own.WholeType, own.TextType)):
        return {"kind": _NAMES[type(kind)], "column": kind.written}
    if type(kind) in _NAMES:
        return {"kind": _NAMES[type(kind)]}
    for name, (_, known) in _custom(plugins).items():
        if known == kind:
            return {"kind": "custom", "name": name}
    msg = f"the type {kind} has no name by which it could be found again"
    raise ModelError(msg, hint="its plugin can give it one: hook dataflow_field_types")


def kinds_of(entry: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields of an entry, with the kinds of their types: "date", "array of int"."""
    return {field["name"]: _kind(field["type"]) for field in entry.get("fields", ())}


def _kind(kind: Mapping[str, Any]) -> str:
    return f"array of {_kind(kind['item'])}" if kind["kind"] == "array" else str(kind["kind"])


def reads_all(before: str, now: str) -> bool:
    """Tell whether values of one kind can be read as another, or what cannot is refused by a constraint."""
    return now in ("str", "enum", "bool") or (before, now) == ("bool", "int")


def _plain(value: Any) -> Any:
    """Return what an Enum member is called by, without the mixed-in Enum class."""
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def _custom(plugins: "PluginSet | None") -> dict[str, tuple[Any, t.FieldType]]:
    """Return reference -> (annotation, field type) of the types that plugins declare."""
    if plugins is None:
        return {}
    return {f"{its.__module__}:{its.__qualname__}": (its, known) for its, known in plugins.field_types.items()}


def restore(core: "Core", entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Register models that `dump` wrote.

    Args:
        core: of the DataFlow.
        entries: model -> what `dump` returned.

    Returns:
        ``reconstructed_models``: names; ``generated_nodes``: model -> operation -> node type; ``skipped``: "Model" or
        "Model.field" -> what could not be restored, and why. Models that are registered already stay as they are.
    """
    names: list[str] = []
    nodes: dict[str, dict[str, str]] = {}
    skipped: dict[str, str] = {}
    for name, entry in entries.items():
        if name in core.models:
            skipped[name] = "a model of this name is registered already"
            continue
        if "unkept" in entry:
            skipped[name] = f"it could not be kept: {entry['unkept']}"
            continue
        try:
            cls = build(entry, core.plugins)
            core.register(cls, {}, "")
        except DataFlowError as error:
            skipped[name] = error.message
            continue
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            skipped[name] = f"its entry in the registry cannot be read: {type(error).__name__}"
            continue
        forbid_instances(cls)
        names.append(name)
        nodes[name] = {node.operation: node.type for node in core.models[name].nodes.values()}
        for field in entry["fields"]:
            if "factory" in field:
                text = f"its default is computed by {field['factory']}(), which is not kept: give a value"
                skipped[f"{name}.{field['name']}"] = text
    return {"reconstructed_models": names, "generated_nodes": nodes, "skipped": skipped}


def build(entry: Mapping[str, Any], plugins: "PluginSet | None" = None) -> type:
    """Return the class of an entry, ready to be registered.

    Raises:
        ModelError: a later version wrote it, or no active plugin knows a type.
    """
    if entry["format"] > FORMAT:
        msg = f"a later version of DataFlow wrote the entry of model {entry['name']}"
        raise ModelError(msg, hint="upgrade workflow-dataflow-migrations", code="later-format")
    annotations: dict[str, Any] = {}
    body: dict[str, Any] = {
        "__annotations__": annotations,
        "__tablename__": entry["table"],
        "__dataflow__": from_wire(entry["options"]),
        "__indexes__": [dict(index) for index in entry["indexes"]],
        "__doc__": f"\n{entry['doc']}" if entry["doc"] else None,  # cleaned once more, it stays what it is
    }
    for field in entry["fields"]:
        name, kind = field["name"], _restore_type(field["type"], plugins)
        annotations[name] = _annotated(kind, field)
        if "default" in field:
            body[name] = _default(kind, field["default"])
        elif field["nullable"]:
            body[name] = None
    return type(entry["name"], (), body)


def _annotated(kind: Any, field: Mapping[str, Any]) -> Any:
    found = field.get("relation")
    if found is not None:
        options = {key: value for key, value in found.items() if key != "model"}
        kind = Annotated[kind, (ForeignKey if "on_delete" in found else Relation)(found["model"], **options)]
    if field.get("renamed_from"):
        kind = Annotated[kind, Field(renamed_from=field["renamed_from"])]
    return kind | None if field["nullable"] and "default" in field else kind


def _default(kind: Any, wire: Any) -> Any:
    """Return a default as its author wrote it: members of an Enum, not what they are stored as."""
    if isinstance(wire, list) and get_origin(kind) is list:
        return [_default(get_args(kind)[0], item) for item in wire]
    value = from_wire(wire)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return t.EnumType(kind).texts[value]
    return value


def _restore_type(data: Mapping[str, Any], plugins: "PluginSet | None") -> Any:
    """Return the annotation for a type."""
    kind = data["kind"]
    if kind == "array":
        return types.GenericAlias(list, (_restore_type(data["item"], plugins),))
    if kind == "enum":
        made: Any = Enum  # its functional form, whose name is not known here
        enum = made(data["name"], [(name, from_wire(value)) for name, value in data["members"]])
        return own.Stored(own.NativeEnumType(enum, data["column"])) if "column" in data else enum
    if kind == "custom":
        known = _custom(plugins).get(data["name"])
        if known is not None:
            return known[0]
        msg = f"no active plugin knows the field type {data['name']}"
        raise ModelError(msg, hint="install the plugin it comes from", code="unknown-type")
    found = _BY_NAME.get(kind)
    if found is None:
        msg = f"there is no field type {kind!r}"
        raise ModelError(msg, hint="upgrade workflow-dataflow-migrations", code="unknown-type")
    if found in _PLAIN:
        return _PLAIN[found]
    parameters = [data[name] for name in ("scale", "column") if name in data]
    return own.Stored(found(*parameters))
