"""The stubs of the modules whose calls name models and node types: `dataflow.express` and `dataflow.workflow.builder`.

One overload per model or node type, taken from the signatures of the calls themselves. mypy with the plugin
`dataflow.mypy` picks among them by the name, and sees classes without them.
"""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from keyword import iskeyword

from dataflow.express import Express, ExpressSync
from dataflow.operations import KINDS
from dataflow.plugins.specs import NodeSpec
from dataflow.stubs.models import ModelTypes
from dataflow.stubs.values import literal, typed_dict, union

CALLS = (*(kind.name for kind in KINDS), "stream")
_LIST = re.compile(r"(?<![\w'\"])list\[")
"""What a method called `list` hides behind it."""
_PLAIN = {
    "create": "Record",
    "read": "Found",
    "update": "Updated",
    "delete": "Deleted",
    "list": "List",
    "upsert": "Upserted",
    "stream": "Record",
}
"""Operation -> what its result is called, behind the model."""
_RELATED = {"read": "FoundRelated", "list": "RelatedList", "stream": "Related"}
"""The same with `include`."""
_SHARED = {
    "count": "_Counted",
    "aggregate": "_Aggregated",
    "bulk_create": "_BulkWritten",
    "bulk_update": "_BulkUpdated",
    "bulk_delete": "_BulkDeleted",
    "bulk_upsert": "_BulkWritten",
}
"""Operation -> its result, where that is the same for all models."""


def overloads(signatures: Sequence[str], indent: str = "    ") -> str:
    """Write a method with several signatures; one alone is no overload."""
    if len(signatures) == 1:
        return f"{indent}def {signatures[0]}: ...\n"
    return "".join(f"{indent}@overload\n{indent}def {signature}: ...\n" for signature in signatures)


# -- express ----------------------------------------------------------------------------------------------------------
def express(models: Sequence[ModelTypes]) -> str:
    """Write the two classes of direct calls."""
    parts = []
    for cls in (Express, ExpressSync):
        awaited = cls is Express
        kind = "async def" if awaited else "def"
        methods = "".join(overloads([s for model in models for s in _call(model, name, cls)]) for name in CALLS)
        methods = _LIST.sub("_list[", methods)
        loose = "".join(
            f"    {'def' if name == 'stream' or not awaited else 'async def'} {name}"
            f"(self, model: str, *args: Any, **options: Any) -> Any: ...\n"
            for name in CALLS
        )
        head = "    def __init__(self, db: DataFlow) -> None: ...\n"
        head += f"    {kind} call(self, operation: str, model: str, **params: Any) -> Any: ...\n"
        parts.append(
            f"class _{cls.__name__}:\n{methods}\n"
            + _twofold(f"class {cls.__name__}(_{cls.__name__}):\n{head}", f"class {cls.__name__}:\n{head}{loose}")
        )
    return "\n".join(parts)


def _twofold(strict: str, loose: str) -> str:
    """Write a class for all, and one for mypy with the plugin. Of two, mypy takes the first, pyright the last."""
    return f"if not DATAFLOW_MYPY:\n{_deeper(strict)}else:\n{_deeper(loose)}if not MYPY:\n{_deeper(strict)}"


def _deeper(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


def _call(model: ModelTypes, name: str, cls: type) -> Iterator[str]:
    """Yield the signatures of one call for one model: those with options that change the result first."""
    operation = "list" if name == "stream" else name
    node = next((node for node in model.bound.nodes.values() if node.operation == operation), None)
    if node is None:
        return  # a feature took the operation away
    options = dict(model.parameters(node))
    fixed, keyed = _fixed(model, name, cls, options)
    taken = _without(model, options, fixed, operation, keyed=keyed)
    if name == "stream":
        taken = {key: annotation for key, annotation in taken.items() if key in _streamed(model, options)}
    related = _RELATED.get(name)
    if related and model.bound.relations:
        yield _signature(model, name, fixed, taken, "include", _wrapped(f"{model.name}{related}", name, cls))
    result = _SHARED.get(name) or f"{model.name}{_PLAIN[name]}"
    yield _signature(model, name, fixed, taken, "aggregate", _wrapped(result, name, cls))


def _streamed(model: ModelTypes, options: Mapping[str, str]) -> set[str]:
    return {"sort", "order_by", "fields", "include", *(o for o in model.spec.call_options if o in options)}


def _fixed(model: ModelTypes, name: str, cls: type, options: Mapping[str, str]) -> tuple[dict[str, str], bool]:
    """Return what the call names itself, as declarations, and whether it must be given a key."""
    fixed: dict[str, str] = {}
    keyed = False
    star = False
    for parameter in list(inspect.signature(getattr(cls, name)).parameters.values())[2:]:
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            star, fixed["*"] = True, "*"
        optional = parameter.default is not parameter.empty
        keyed |= parameter.name == "key" and not optional
        annotation = _own(model, name, cls, parameter.name, options)
        fixed[parameter.name] = f"{parameter.name}: {annotation}{' = ...' if optional else ''}"
    return fixed, keyed


def _own(model: ModelTypes, name: str, cls: type, parameter: str, options: Mapping[str, str]) -> str:
    if parameter == "record":
        return f"{model.name}Create"
    if parameter == "key":
        return union(*model.key, "None") if name == "read" else union(*model.key)
    if parameter == "data" and name == "bulk_create":
        rows = f"Iterable[{model.name}Row]"
        return union(rows, f"AsyncIterable[{model.name}Row]" if cls is Express else rows, "_Table")
    if parameter == "batch_size":
        return "int"
    found = options.get(f"_{parameter}") or options[parameter]
    optional = inspect.signature(getattr(cls, name)).parameters[parameter].default is None
    return union(found, "None") if optional else found.removesuffix(" | None")


def _without(
    model: ModelTypes, options: Mapping[str, str], fixed: Mapping[str, str], operation: str, *, keyed: bool
) -> dict[str, str]:
    """Return the options that can be given as keywords besides what the call names itself."""
    said = set(fixed) | {"self", "model"}
    if "record" in fixed or "values" in fixed:
        said |= {"values", "fields"}
    if "key" in fixed:
        said |= {"record_id"}
    if keyed:
        said |= {"id", "conditions", "filter"}
    shown = {*model.spec.call_options, "raise_on_not_found"} if operation in ("create", "update") else set(options)
    return {
        key: annotation
        for key, annotation in options.items()
        if key not in said
        and key.removeprefix("_") not in said
        and key.isidentifier()
        and not iskeyword(key)
        and key in shown  # fields of one record stand in the dict
    }


def _wrapped(result: str, name: str, cls: type) -> str:
    if name == "stream":
        return f"AsyncIterator[{result}]" if cls is Express else f"Iterator[{result}]"
    return f"Coroutine[Any, Any, {result}]" if cls is Express else result


def _signature(
    model: ModelTypes, name: str, fixed: Mapping[str, str], options: Mapping[str, str], needed: str, result: str
) -> str:
    """Write a signature whose option `needed`, if it has that, must be given."""
    keywords = [f"{key}: {taken}{'' if key == needed else ' = ...'}" for key, taken in options.items()]
    star = ["*"] if keywords and "*" not in fixed else []
    parts = ["self", f"model: {literal([model.name])}", *fixed.values(), *star, *keywords]
    return f"{name}({', '.join(parts)}) -> {result}"


# -- workflows --------------------------------------------------------------------------------------------------------
BUILDER = """\
    db: DataFlow | None
    nodes: list[NodeRecord]
    connections: list[Connection]
    def __init__(self, db: DataFlow | None = None) -> None: ...
    def add_connection(self, source: str, output: str, target: str, input: str) -> Self: ...
    def build(self) -> Workflow: ...
"""


def free_nodes(nodes: Sequence[NodeSpec]) -> dict[str, str]:
    """Return node type -> the type of its params, for nodes without a model; what is not described takes anything."""
    found = {}
    for node in nodes:
        entries = {parameter.name: _free(parameter.type, parameter.choices) for parameter in node.parameters}
        control = {"database": "str", "_database": "str"}
        found[node.type] = typed_dict(f"_{node.type}", {**control, **entries}) if node.parameters else ""
    return found


def _free(text: str, choices: tuple[str, ...]) -> str:
    if choices:
        return literal(choices)
    plain = {"int": "int", "float": "float", "str": "str", "bool": "bool"}
    taken = plain.get(text) or {"dict": "Mapping[str, Any]", "dict | list": "Mapping[str, Any] | Sequence[Any]"}.get(
        text
    )
    return taken if taken == "bool" else union(taken or "Any", "None")


def builder(params: Mapping[str, str]) -> str:
    """Write the builder.

    Args:
        params: node type -> annotation of its params.
    """
    kinds = {
        "type[BaseDataFlowNode]": "Mapping[str, Any]",
        **{literal([name]): taken for name, taken in params.items()},
    }
    signatures = [
        f"add_node(self, node_type: {kind}, node_id: str, params: {taken} = ...) -> Self"
        for kind, taken in kinds.items()
    ]
    loose = "def add_node(self, node_type: Any, node_id: str, params: Any = ...) -> Self: ..."
    strict = f"class WorkflowBuilder(_WorkflowBuilder):\n{BUILDER}"
    return f"class _WorkflowBuilder:\n{overloads(signatures)}\n" + _twofold(
        strict, f"class WorkflowBuilder:\n{BUILDER}    {loose}\n"
    )
