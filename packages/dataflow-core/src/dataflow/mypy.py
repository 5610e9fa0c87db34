"""The mypy plugin that goes with `dataflow stubs`: it picks the signature of a call by the name of the model or node.

mypy understands the stubs without it, trying one overload per name; with it, mistakes are reported where they are
instead of as a list of all overloads. Needs mypy, which loads it: ``plugins = ["dataflow.mypy"]``.
"""

from collections.abc import Callable, Sequence
from typing import Any

from mypy.errorcodes import ARG_TYPE
from mypy.nodes import (
    ARG_NAMED,
    CallExpr,
    Context,
    DictExpr,
    Expression,
    FuncDef,
    OverloadedFuncDef,
    StrExpr,
    SymbolNode,
    TypeInfo,
)
from mypy.options import Options
from mypy.plugin import MethodSigContext, Plugin
from mypy.types import (
    AnyType,
    CallableType,
    FunctionLike,
    Instance,
    LiteralType,
    NoneType,
    Overloaded,
    ProperType,
    Type,
    TypeVarType,
    UnionType,
    get_proper_type,
)

from dataflow.errors import suggest

CONDITION = "DATAFLOW_MYPY"
CLASSES = {
    "dataflow.express.Express": "model",
    "dataflow.express.ExpressSync": "model",
    "dataflow.workflow.builder.WorkflowBuilder": "node type",
}
"""Classes whose calls begin with a name -> of what."""
Signatures = dict[str, list[CallableType]]


class DataFlowPlugin(Plugin):
    """Gives calls of `db.express` and `WorkflowBuilder.add_node` the signature that belongs to their first argument."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        if CONDITION not in options.always_true:
            options.always_true.append(CONDITION)
        self._known: dict[int, tuple[SymbolNode, Signatures]] = {}

    def get_method_signature_hook(self, fullname: str) -> Callable[[MethodSigContext], FunctionLike] | None:
        """Return what picks the signature of a method of ours."""
        cls, _, method = fullname.rpartition(".")
        if cls not in CLASSES or method in ("call", "build", "add_connection", "__init__"):
            return None
        return lambda ctx: self._pick(ctx, cls, method)

    def _pick(self, ctx: MethodSigContext, cls: str, method: str) -> FunctionLike:
        known = self._signatures(ctx, cls, method)
        if known is None or not ctx.args or not ctx.args[0]:
            return ctx.default_signature
        first = ctx.args[0][0]
        names = _names(ctx, first)
        if names is None:
            return self._unnamed(ctx, cls, first, known)
        unknown = [name for name in names if name not in known]
        if unknown:
            what = CLASSES[cls]
            close = suggest(unknown[0], [name for name in known if name])
            hint = f"did you mean {close!r}?" if close else "if it is new, run `dataflow stubs`"
            ctx.api.fail(f"there is no {what} {unknown[0]!r}; {hint}", first, code=ARG_TYPE)
            return ctx.default_signature
        return _joined([_fitted(next(s for s in known[name] if _reached(s, ctx)), ctx) for name in names])

    def _unnamed(self, ctx: MethodSigContext, cls: str, first: Expression, known: Signatures) -> FunctionLike:
        """Serve node classes and Any; a text that is only known when it runs cannot be checked."""
        kind = get_proper_type(ctx.api.get_expression_type(first))
        if isinstance(kind, AnyType):
            return ctx.default_signature
        if known.get("") and not (isinstance(kind, Instance) and kind.type.fullname == "builtins.str"):
            return _joined([_fitted(signature, ctx) for signature in known[""]])
        what = CLASSES[cls]
        way = "use express.call(…)" if what == "model" else 'cast("Any", …) leaves it unchecked'
        ctx.api.fail(f"the {what} is not known before it runs; {way}", first, code=ARG_TYPE)
        return ctx.default_signature

    def _signatures(self, ctx: MethodSigContext, cls: str, method: str) -> Signatures | None:
        """Return name -> signatures, as the stubs have them; None where there are no stubs."""
        module, _, name = cls.rpartition(".")
        modules: dict[str, Any] = ctx.api.modules  # type: ignore[attr-defined]  # the checker has it, its protocol not
        symbol = modules[module].names.get(f"_{name}")
        info = None if symbol is None else symbol.node
        found = info.names.get(method) if isinstance(info, TypeInfo) else None
        node = None if found is None else found.node
        if not isinstance(node, (OverloadedFuncDef, FuncDef)):
            return None
        if id(node) not in self._known:
            self._known[id(node)] = node, _by_name(node)  # the node is kept, so that no other gets its id
        return self._known[id(node)][1]


def _by_name(node: OverloadedFuncDef | FuncDef) -> Signatures:
    found: Signatures = {}
    kind = node.type
    items = kind.items if isinstance(kind, Overloaded) else [kind]
    for item in items:
        if isinstance(item, CallableType):
            for name in _texts(get_proper_type(item.arg_types[1])) or [""]:  # "" is the one that takes classes
                found.setdefault(name, []).append(item)
    return found


def _texts(kind: ProperType) -> list[str] | None:
    """Return the texts that a type stands for; None where it stands for others."""
    if isinstance(kind, Instance) and kind.last_known_value is not None:
        kind = kind.last_known_value
    if isinstance(kind, LiteralType):
        return [kind.value] if isinstance(kind.value, str) else None
    if isinstance(kind, UnionType):
        parts = [_texts(get_proper_type(item)) for item in kind.items]
        return None if None in parts else [text for part in parts for text in part or ()]
    return None


def _names(ctx: MethodSigContext, first: Expression) -> list[str] | None:
    if isinstance(first, StrExpr):
        return [first.value]
    return _texts(get_proper_type(ctx.api.get_expression_type(first)))


def _reached(signature: CallableType, ctx: MethodSigContext) -> bool:
    """Tell whether a call gives the option that a special signature is for; the last one is for all calls."""
    call = ctx.context
    given = set(call.arg_names) if isinstance(call, CallExpr) else set()
    need = {name for name, kind in zip(signature.arg_names, signature.arg_kinds, strict=True) if kind == ARG_NAMED}
    return "include" not in need or "include" in given


def _fitted(signature: CallableType, ctx: MethodSigContext) -> CallableType:
    """Bind a method to its object."""
    result = signature.ret_type
    if isinstance(result, TypeVarType):  # Self
        result = ctx.default_signature.ret_type
    names = signature.arg_names[1:]
    dicts = _dicts(ctx.context, names)
    types = signature.arg_types[1:]
    return signature.copy_modified(
        arg_types=[_required(kind) if number in dicts else kind for number, kind in enumerate(types)],
        arg_kinds=signature.arg_kinds[1:],
        arg_names=names,
        ret_type=result,
        variables=(),
    )


def _dicts(call: Context, names: Sequence[str | None]) -> set[int]:
    """Return the places of the arguments that are written as dicts."""
    if not isinstance(call, CallExpr):
        return set()
    given = enumerate(zip(call.args, call.arg_names, strict=True))
    places = {
        number if name is None else names.index(name): arg for number, (arg, name) in given if name in (None, *names)
    }
    return {place for place, arg in places.items() if isinstance(arg, DictExpr)}


def _required(kind: Type) -> Type:
    """Take None off: mypy says what is wrong with a dict where it can be of one type only."""
    kind = get_proper_type(kind)
    if not isinstance(kind, UnionType):
        return kind
    rest = [item for item in kind.items if not isinstance(get_proper_type(item), NoneType)]
    return UnionType.make_union(rest)


def _joined(signatures: list[CallableType]) -> FunctionLike:
    return signatures[0] if len(signatures) == 1 else Overloaded(signatures)


def plugin(version: str) -> type[Plugin]:
    """Answer mypy, which asks for the plugin."""
    del version
    return DataFlowPlugin


__all__ = ["DataFlowPlugin", "plugin"]
