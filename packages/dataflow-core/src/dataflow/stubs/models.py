"""The types of one model: its records, what a new one and a change take, its filters, and what each node takes.

Asks the operations themselves which parameters they know (`ModelOperation.route`), so that features and collisions of
names count as they do at run time.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from dataflow.fields import FieldSpec
from dataflow.operations import BY_NAME
from dataflow.plan.bound import BoundModel
from dataflow.plan.changes import ARITHMETIC
from dataflow.plan.operation import KEY
from dataflow.plugins.specs import NodeSpec, Parameter
from dataflow.stubs.values import NUMBER, Values, literal, many, typed_dict, union

DEPTH = 3
"""How far included relations are named."""
MOST_PATHS = 200
_TEXTS: Mapping[str, str] = {
    "int": "int",
    "float": "float",
    "str": "str",
    "bool": "bool",
    "dict": "Mapping[str, Any]",
    "list[str]": "str | Sequence[str]",
    "str or list[str]": "str | Sequence[str]",
}
"""What the types of parameters say, as annotations."""


class ModelTypes:
    """Writes the types of one model.

    Args:
        bound: the model.
        values: collects what models share.
    """

    def __init__(self, bound: BoundModel, values: Values) -> None:
        self.bound = bound
        self.spec = bound.spec
        self.name = bound.name
        self.values = values
        self.fields = bound.spec.fields
        self.key = self._key()
        """Annotations of a key: a value; for a composite key a tuple or a dict."""

    # -- names ----------------------------------------------------------------------------------------------------
    def _key(self) -> tuple[str, ...]:
        parts = [self.values.of(field.type).takes for field in self.spec.key]
        if len(parts) == 1:
            return parts[0]
        return f"tuple[{', '.join(union(*takes) for takes in parts)}]", "Mapping[str, Any]"

    def _paths(self) -> str:
        """Annotate what `include` takes; beyond some hundred paths, any text."""
        found: list[str] = []
        layer = [("", self.bound)]
        for _ in range(DEPTH):
            layer = [
                (f"{path}{relation.name}.", model.target(relation))
                for path, model in layer
                for relation in sorted(model.relations.values(), key=lambda relation: relation.name)
            ]
            found += [path[:-1] for path, _ in layer]
            if len(found) > MOST_PATHS:
                return "str"
        return literal(found)

    # -- types ----------------------------------------------------------------------------------------------------
    def text(self) -> str:
        """Return the definitions of all types of the model."""
        name, ordered = self.name, [n for n, f in self.fields.items() if f.type.storage not in ("json", "array")]
        sorts = [sign + field for field in ordered for sign in ("", "-")]
        columns = {name: self.values.given(field) for name, field in self.fields.items()}
        related = {**columns, **self._related()}
        parts = [
            f"{name}Field: TypeAlias = {literal(self.fields)}\n",
            f"{name}Path: TypeAlias = {self._paths()}\n",
            f"_{name}Order: TypeAlias = {literal(sorts)} | Mapping[{literal(ordered)}, Direction]\n",
            f"{name}Sort: TypeAlias = _{name}Order | Sequence[_{name}Order]\n",
            typed_dict(f"{name}Record", columns, total=True),
            typed_dict(f"{name}Related", related, total=True),
            typed_dict(f"{name}Found", self._flagged(columns, "found", "bool"), total=True),
            typed_dict(f"{name}FoundRelated", self._flagged(related, "found", "bool"), total=True),
            typed_dict(f"{name}Updated", self._flagged(columns, "updated", "int"), total=True),
            typed_dict(f"{name}Upserted", self._flagged(columns, "created", "bool"), total=True),
            typed_dict(f"{name}Deleted", self._deleted(), total=True),
            f"class {name}List(_Page):\n    records: list[{name}Record]\n",
            f"class {name}RelatedList(_Page):\n    records: list[{name}Related]\n",
            typed_dict(f"{name}Create", self._create(), total=True),
            typed_dict(f"{name}Row", self._row()),
            typed_dict(f"{name}Update", self._update()),
            typed_dict(f"_{name}Where", self._where()),
            typed_dict(f"{name}Filter", self._filter()),
            typed_dict(f"{name}Aggregate", self._aggregate()),
        ]
        parts += [typed_dict(f"_{node.type}", self.node(node)) for node in self._nodes()]
        return "".join(parts)

    def _nodes(self) -> list[NodeSpec]:
        return sorted(self.bound.nodes.values(), key=lambda node: node.type)

    def _related(self) -> dict[str, str]:
        found = {}
        for relation in sorted(self.bound.relations.values(), key=lambda relation: relation.name):
            record = f"{relation.target}Related"
            found[relation.name] = f"list[{record}]" if relation.many else f"{record} | None"
        return found

    @staticmethod
    def _flagged(columns: Mapping[str, str], flag: str, annotation: str) -> dict[str, str]:
        return {flag: annotation, **columns, "_status": "dict[str, Any]"}

    def _deleted(self) -> dict[str, str]:
        key = {field.name: self.values.given(field) for field in self.spec.key}
        return {"deleted": "int", "id": "Any", **key}

    def _writable(self) -> Iterator[FieldSpec]:
        return (field for field in self.fields.values() if not field.kept)

    def _taken(self, field: FieldSpec) -> str:
        """Annotate what a new record takes; None asks the database for a value it gives itself."""
        taken = self.values.written(field)
        return union(taken, "None") if field.generated else taken

    def _create(self) -> dict[str, str]:
        named = {field.name: (self._taken(field), field.required) for field in self._writable()}
        return {name: taken if required else f"NotRequired[{taken}]" for name, (taken, required) in named.items()}

    def _row(self) -> dict[str, str]:
        """The fields of a row of a bulk: the key, which tells what is changed, and an expected version among them."""
        keys = {field.name: self._taken(field) for field in self.spec.key}
        found = {field.name: self._taken(field) for field in self._writable()}
        return {**keys, **found, **self._options_in_values()}

    def _options_in_values(self) -> dict[str, str]:
        """Fields that a feature keeps, whose expected value may stand among the values."""
        return {
            name: self.values.given(self.fields[name])
            for name in sorted(self.spec.call_options)
            if name in self.fields and self.fields[name].kept
        }

    def _changeable(self) -> list[FieldSpec]:
        return [field for field in self._writable() if field.name not in self.spec.primary_key]

    def _update(self) -> dict[str, str]:
        found = {field.name: self.values.changed(field) for field in self._changeable()}
        return {**found, **self._options_in_values(), **self._update_operators()}

    def _update_operators(self) -> dict[str, str]:
        fields = self._changeable()
        of = {
            "$set": (fields, ""),
            **dict.fromkeys(ARITHMETIC, ([f for f in fields if f.type.numeric], NUMBER)),
            **dict.fromkeys(("$min", "$max"), ([f for f in fields if f.type.orders], "")),
            "$unset": ([f for f in fields if f.nullable], "object"),
            "$append": ([f for f in fields if f.type.storage in ("array", "json")], "Any"),
        }
        return {
            operator: f"Mapping[{literal(f.name for f in fits)}, {taken}]" if taken else f"{self.name}Row"
            for operator, (fits, taken) in of.items()
            if fits
        }

    def _filter(self) -> dict[str, str]:
        own = f"{self.name}Filter"
        found = {field.name: self.values.operand(field) for field in self.fields.values()}
        for relation in sorted(self.bound.relations.values(), key=lambda relation: relation.name):
            if relation.name in found:
                continue
            target = self.bound.target(relation)
            found[relation.name] = f"_{target.name}Where | None"
            found |= {f"{relation.name}.{f.name}": self.values.operand(f) for f in target.spec.fields.values()}
        joined = f"Sequence[{own}]"
        return {**found, "$and": joined, "$or": joined, "$nor": joined, "$not": own}

    def _where(self) -> dict[str, str]:
        """What filters of related models take: fields. What lies deeper is left to `build()`: mypy unfolds it all."""
        found = {field.name: self.values.operand(field) for field in self.fields.values()}
        deeper = {name: "Mapping[str, Any] | None" for name in sorted(self.bound.relations) if name not in found}
        inner = dict.fromkeys(("$and", "$or", "$nor"), "Sequence[Mapping[str, Any]]")
        flags = {"$not": "Mapping[str, Any]", "$exists": "bool", "$null": "bool"}
        return {**found, **deeper, **inner, **flags}

    def _aggregate(self) -> dict[str, str]:
        fields = self.fields.values()
        numbers, ordered = (literal(f.name for f in fields if fits(f.type)) for fits in (_numeric, _orders))
        found = {"$sum": numbers, "$avg": numbers, "$min": ordered, "$max": ordered}
        return {**found, "$count": literal((*self.fields, "*")), "$count_distinct": literal(self.fields)}

    # -- parameters -----------------------------------------------------------------------------------------------
    def node(self, node: NodeSpec) -> dict[str, str]:
        """Return what the params of a node take: name -> annotation."""
        control = {"database": "str", "_database": "str"}
        return {**control, **dict(self.parameters(node))}

    def parameters(self, node: NodeSpec) -> Iterator[tuple[str, str]]:
        """Yield each parameter of an operation with its annotation."""
        described = {parameter.name: parameter for parameter in node.parameters}
        operation = self.bound.operation(node.operation)
        route: Mapping[str, str | None] | None = getattr(operation, "route", None)
        if route is None:
            yield from ((p.name, self._parameter(p, node.operation)) for p in node.parameters)
            return
        kind = operation.kind
        options = {parameter.name: parameter for parameter in kind.parameters}
        for name, target in route.items():
            plain = name.removeprefix("_")
            if name != plain and route.get(plain) == target:
                continue  # the escape for names that collide, and this one does not
            if target is None and name in self.fields:
                if not self.fields[name].kept:
                    changes = kind.takes_fields == "changes"
                    yield name, self.values.changed(self.fields[name]) if changes else self._taken(self.fields[name])
            elif target is None:
                yield from ((op, taken) for op, taken in self._update_operators().items() if op == name)
            elif target == KEY:
                yield name, union(*self.values.of(self.fields[name].type).takes)
            else:
                parameter = options.get(target) or described.get(target)
                yield name, self._option(target) if parameter is None else self._parameter(parameter, node.operation)

    def _option(self, name: str) -> str:
        """Annotate an option that a feature adds."""
        option = self.spec.call_options[name]
        if option.flag:
            return "bool"
        return self.values.written(self.fields[name]) if name in self.fields else "Any"

    def _parameter(self, parameter: Parameter, operation: str) -> str:
        """Annotate an option of an operation; None is as good as leaving it out, but for flags."""
        if parameter.type == "bool":
            return "bool"
        found = literal(parameter.choices) if parameter.choices else self._meaning(parameter, operation)
        plain = parameter.required or parameter.choices or parameter.type == "dict"  # dicts: for the sake of messages
        return found if plain else union(found, "None")

    def _meaning(self, parameter: Parameter, operation: str) -> str:
        name = self.name
        field = self.fields.get(parameter.name)
        if field is not None and parameter.type.removesuffix(" | None") == str(field.type):
            return self._taken(field)
        meanings = {
            ("filter", "dict"): f"{name}Filter",
            ("conditions", "dict"): f"{name}Filter",
            ("id", "key"): union(*self.key),
            ("include", "list[str]"): f"{name}Path | Sequence[{name}Path]",
            ("fields", "list[str]"): f"{name}Field | Sequence[{name}Field]",
        }
        if operation in BY_NAME:
            fields = f"{name}Field | Sequence[{name}Field]"
            sort = "Any" if operation == "aggregate" else f"{name}Sort"
            meanings |= {
                ("values", "dict"): f"{name}Update" if operation == "update" else f"{name}Row",
                ("fields", "dict"): f"{name}Update",
                ("sort", "list"): sort,
                ("order_by", "list"): sort,
                ("group_by", "list[str]"): fields,
                ("key_fields", "list[str]"): fields,
                ("conflict_on", "list[str]"): fields,
                ("aggregate", "dict"): f"Mapping[str, {name}Aggregate]",
                ("where", "dict"): f"{name}Row",
                ("create", "dict"): f"{name}Row",
                ("update", "dict"): f"{name}Update",
                ("data", "list[dict]"): f"Sequence[{name}Row] | _Table",
                ("ids", "list"): many(self.key),
            }
        return meanings.get((parameter.name, parameter.type)) or _TEXTS.get(parameter.type, "Any")


def _numeric(kind: Any) -> bool:
    return bool(kind.numeric)


def _orders(kind: Any) -> bool:
    return bool(kind.orders)
