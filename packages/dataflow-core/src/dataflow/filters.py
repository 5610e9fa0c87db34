"""Filter documents: their shape (the plan key), and their compilation to a Core predicate.

`shape` walks a document without knowing the model: it yields a hashable key that determines the SQL, and the operands.
`FilterCompiler` walks the same document in the same order once per shape, and makes a bound parameter per operand.
Operands are numbered in walking order by both: that is the contract between the two.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from dataflow import types as t
from dataflow.errors import InputError, Problem, suggest

if TYPE_CHECKING:
    from sqlalchemy.sql import ColumnElement

    from dataflow.plan.bound import BoundField, BoundModel, BoundRelation
    from dataflow.plan.builder import PlanBuilder

COMPARISONS = {"$eq", "$ne", "$gt", "$gte", "$lt", "$lte"}
TEXT = {"$like", "$ilike", "$regex", "$iregex", "$startswith", "$endswith"}
LISTS = {"$in", "$nin"}
FLAGS = {"$exists", "$null"}
LOGIC = {"$and", "$or", "$nor"}
OPERATORS = COMPARISONS | TEXT | LISTS | FLAGS | LOGIC | {"$between", "$contains", "$overlap", "$not"}
_LEAVES = OPERATORS - LOGIC - {"$not"}
_ORDER = {"$gt", "$gte", "$lt", "$lte", "$between"}


MAX_DEPTH = 100
"""Most levels of a filter document."""


def shape(document: Any, operands: list[Any], depth: int = 0) -> Hashable:
    """Return what determines the SQL of a document, and append its operands to `operands`.

    Raises:
        InputError: it is nested too deeply.
    """
    if depth > MAX_DEPTH:
        msg = f"the filter is nested more than {MAX_DEPTH} levels deep"
        raise InputError(msg, hint="join the inner conditions into one dict or list", code="bad-filter")
    if not isinstance(document, Mapping):
        operands.append(document)
        return ("=", _kind(document))
    parts: list[Hashable] = []
    for key, value in document.items():
        if key in LOGIC and isinstance(value, (list, tuple)):
            parts.append((key, tuple(shape(branch, operands, depth + 1) for branch in value)))
        elif key in _LEAVES or not isinstance(value, Mapping):
            operands.append(value)
            parts.append((key, _kind(value)))
        else:
            parts.append((key, shape(value, operands, depth + 1)))
    return tuple(parts)


def _kind(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        kinds = frozenset(item if isinstance(item, bool) else type(item) for item in value)
        return (bucket(len(value)), kinds)
    if isinstance(value, bool):
        return value  # a flag decides the SQL
    return type(value)


def bucket(size: int) -> int:
    """Round a list length up to a power of two, so that few shapes serve all lengths."""
    return 0 if not size else 1 << (size - 1).bit_length()


class FilterCompiler:
    """Compiles one document for one shape.

    Args:
        builder: receives parameters; its model and table are where the document starts.
        problems: faults are appended here, all of them.
        first: number of the document's first operand among the call's values.
    """

    def __init__(self, builder: "PlanBuilder", problems: list[Problem], first: int = 0) -> None:
        self.builder = builder
        self.problems = problems
        self.next = first

    def compile(self, document: Any) -> "ColumnElement[bool]":
        """Return the predicate; what is faulty is reported in `problems` and compiles to true."""
        return self._document(document, self.builder)

    # -- structure ------------------------------------------------------------------------------------------------
    def _fault(self, code: str, message: str, hint: str = "") -> "ColumnElement[bool]":
        self.problems.append(Problem(code, message, hint))
        return sa.true()

    def _document(self, document: Any, at: "PlanBuilder") -> "ColumnElement[bool]":
        if not isinstance(document, Mapping):
            self.next += 1
            return self._fault("bad-filter", f"a filter is a dict, got {t.kind(document)}", "write {'field': value}")
        parts = []
        for key, value in document.items():
            if key in LOGIC:
                parts.append(self.logic(key, value, at, self._document))
            elif key == "$not":
                parts.append(_negate(self._document(value, at)))
            else:
                parts.append(self._entry(key, value, at))
        return sa.and_(sa.true(), *parts)

    def logic(
        self, key: str, branches: Any, at: Any, inner: Callable[[Any, Any], "ColumnElement[bool]"]
    ) -> "ColumnElement[bool]":
        """Compile $and, $or, $nor; `inner` compiles each branch."""
        if not isinstance(branches, (list, tuple)) or not branches:
            if not isinstance(branches, (list, tuple)):
                self.skip(branches)
            return self._fault(
                "bad-filter", f"{key} takes a non-empty list of filters", f"write {{'{key}': [{{…}}, {{…}}]}}"
            )
        parts = [inner(branch, at) for branch in branches]
        if key == "$and":
            return _joined(sa.and_, parts)
        return _joined(sa.or_, parts) if key == "$or" else _negate(_joined(sa.or_, parts))

    def skip(self, value: Any) -> None:
        """Step over the operands of a part that cannot be compiled."""
        ignored: list[Any] = []
        shape(value, ignored)
        self.next += len(ignored) if isinstance(value, Mapping) else 1

    def _entry(self, key: Any, value: Any, at: "PlanBuilder") -> "ColumnElement[bool]":
        model = at.model
        if not isinstance(key, str) or key.startswith("$"):
            self.skip(value)
            close = None if key in OPERATORS else suggest(str(key), LOGIC | {"$not"})
            hint = f"did you mean {close!r}?" if close else "it belongs inside a field: {'age': {'$gt': 18}}"
            return self._fault("unknown-operator", f"{key!r} is not a filter operator that can stand here", hint)
        head, _, path = key.partition(".")
        if any(part.startswith("$") for part in path.split(".")):
            self.skip(value)
            hint = f"nest it: {{{head!r}: {{{path[path.index('$') :]!r}: …}}}}"
            return self._fault("unknown-operator", f"{key!r} has an operator behind a dot", hint)
        if head in model.relations and head not in model.fields:
            return self._relation(model.relations[head], {path: value} if path else value, at, dotted=bool(path))
        if head not in model.fields:
            self.skip(value)
            return self._unknown(head, model)
        field = at.field(head)
        column = at.table.c[head]
        if field.type.storage == "json" and not field.encoded:
            return self._json(value, column, tuple(path.split(".")) if path else (), key)
        if path:
            self.skip(value)
            return self._fault(
                "not-json", f"{head!r} of model {model.name} is {field.type}, not JSON: it has no member {path!r}"
            )
        return self.field(value, column, field, key)

    def _unknown(self, name: str, model: "BoundModel") -> "ColumnElement[bool]":
        close = suggest(name, [*model.fields, *model.relations])
        hint = f"did you mean {close!r}?" if close else f"fields: {', '.join([*model.fields, *model.relations])}"
        return self._fault("unknown-field", f"model {model.name} has no field or relation {name!r}", hint)

    def _relation(
        self, relation: "BoundRelation", value: Any, at: "PlanBuilder", *, dotted: bool
    ) -> "ColumnElement[bool]":
        target = at.model.target(relation)
        inner = at.related(target, target.table.alias())
        shared = [name for name in target.spec.scope if name in at.model.spec.scope]
        joined = [inner.table.c[relation.remote] == at.table.c[relation.local]]
        joined += [inner.table.c[name] == at.table.c[name] for name in shared]
        joined += inner.predicates
        if value is None and not dotted:
            self.next += 1
            return sa.not_(sa.exists().where(*joined))
        if isinstance(value, Mapping) and set(value) in ({"$exists"}, {"$null"}):
            wanted = self._flag(*next(iter(value.items())))
            found = sa.exists().where(*joined)
            return found if wanted else sa.not_(found)
        if not isinstance(value, Mapping):
            self.skip(value)
            return self._fault(
                "bad-filter", f"{relation.name!r} is a relation to {relation.target}; a filter on it is a dict",
                f"write {{'{relation.name}': {{'{target.key[0].name}': …}}}} or filter on {relation.local!r}",
            )  # fmt: skip
        return sa.exists().where(*joined, self._document(value, inner))

    # -- fields ---------------------------------------------------------------------------------------------------
    def field(self, value: Any, column: "ColumnElement[Any]", field: "BoundField", label: str) -> "ColumnElement[bool]":
        """Compile what stands under one field (or aggregate): a value, or operators."""
        if not isinstance(value, Mapping):
            return self._operator("$eq", value, column, field, label)
        if not value:
            return self._fault(
                "bad-filter", f"the filter on {label!r} is empty", "write {'$exists': True} or leave it out"
            )
        parts = []
        for op, operand in value.items():
            if op == "$not":
                parts.append(self._not(operand, column, field, label))
            elif op in LOGIC:
                parts.append(self.logic(op, operand, None, lambda branch, _: self.field(branch, column, field, label)))
            else:
                parts.append(self._operator(op, operand, column, field, label))
        return sa.and_(*parts)

    def _not(
        self, operand: Any, column: "ColumnElement[Any]", field: "BoundField", label: str
    ) -> "ColumnElement[bool]":
        if isinstance(operand, Mapping):
            return _negate(self.field(operand, column, field, label))
        return self._operator("$ne", operand, column, field, label)

    def _flag(self, op: str, value: Any) -> bool:
        self.next += 1
        if not isinstance(value, bool):
            self._fault("bad-operand", f"{op} takes True or False, got {t.kind(value)}")
            return True
        return value if op == "$exists" else not value

    def _operator(
        self, op: Any, value: Any, column: "ColumnElement[Any]", field: "BoundField", label: str
    ) -> "ColumnElement[bool]":
        dialect = self.builder.model.core.dialect
        if op in FLAGS:
            return column.is_not(None) if self._flag(op, value) else column.is_(None)
        if op not in _LEAVES:
            self.skip(value)
            close = suggest(str(op), OPERATORS)
            hint = f"did you mean {close!r}?" if close else f"operators: {', '.join(sorted(OPERATORS))}"
            return self._fault("unknown-operator", f"{op!r} on {label!r} is not a filter operator", hint)
        if op in LISTS:
            return self._in(op, value, column, field, label)
        if value is None:
            self.next += 1
            if op in ("$eq", "$ne"):
                return column.is_(None) if op == "$eq" else column.is_not(None)
            return self._fault(
                "bad-operand",
                f"{op} on {label!r} cannot compare with None",
                f"write {{{label!r}: None}} or {{{label!r}: {{'$ne': None}}}}",
            )
        if op in ("$eq", "$ne"):
            parameter = self._operand(field.filter_operand, label, column)
            return column == parameter if op == "$eq" else column.is_distinct_from(parameter)
        if field.encoded:
            self.next += 1
            hint = "the database can tell whether such values are equal, no more: $eq, $ne, $in, $nin, $null"
            return self._fault("bad-operator", f"{op} has no meaning on {label!r}, which is stored encoded", hint)
        if op in _ORDER:
            if not field.type.orders:
                self.next += 1
                return self._fault("bad-operator", f"{op} needs an order, and {label!r} is {field.type}")
            return self._compare(op, value, dialect.comparable(column, field.type), field, label)
        if op == "$overlap" or (op == "$contains" and field.type.storage == "array"):
            return self._list(op, value, column, field, label)
        if field.type.storage != "str":
            self.next += 1
            return self._fault("bad-operator", f"{op} is for text, and {label!r} is {field.type}")
        return self._text(op, value, column, field, label)

    def _operand(self, convert: Callable[[Any], Any], label: str, like: Any = None) -> "ColumnElement[Any]":
        index, self.next = self.next, self.next + 1
        return self.builder.operand(index, convert, label, like=like)

    def _compare(
        self, op: str, value: Any, column: "ColumnElement[Any]", field: "BoundField", label: str
    ) -> "ColumnElement[bool]":
        if op == "$between":
            if not isinstance(value, (list, tuple)) or len(value) != 2:
                self.next += 1
                return self._fault(
                    "bad-operand", f"$between on {label!r} takes a list of two values", "write [low, high]"
                )
            index, self.next = self.next, self.next + 1
            low = self.builder.operand(index, lambda pair: field.filter_operand(pair[0]), label, like=column)
            high = self.builder.operand(index, lambda pair: field.filter_operand(pair[1], end=True), label, like=column)
            return sa.and_(column >= low, column <= high)
        end = op == "$lte"
        parameter = self._operand(lambda v: field.filter_operand(v, end=end), label, column)
        return {
            "$gt": column.__gt__, "$gte": column.__ge__, "$lt": column.__lt__, "$lte": column.__le__,
        }[op](parameter)  # fmt: skip

    def _in(
        self, op: str, value: Any, column: "ColumnElement[Any]", field: "BoundField", label: str
    ) -> "ColumnElement[bool]":
        if not isinstance(value, (list, tuple)):
            self.next += 1
            hint = f"write {{'{op}': [value]}}"
            if isinstance(value, (set, frozenset)):
                hint = "turn the set into a list"
            return self._fault("bad-operand", f"{op} on {label!r} takes a list, got {t.kind(value)}", hint)
        index, self.next = self.next, self.next + 1
        has_none = None in value
        found: ColumnElement[bool] = sa.false()
        if any(item is not None for item in value):

            def bind(convert: Any) -> Any:
                return self.builder.operand(
                    index, lambda items: convert([i for i in items if i is not None]), label, like=None
                )

            dialect = self.builder.model.core.dialect
            found = dialect.in_list(column, field.type, field.filter_operand, bind, bucket(len(value)))
        if op == "$in":
            return sa.or_(found, column.is_(None)) if has_none else found
        if has_none:
            return sa.and_(sa.not_(found), column.is_not(None))
        return _negate(found) if value else sa.true()

    def _text(
        self, op: str, value: Any, column: "ColumnElement[Any]", field: "BoundField", label: str
    ) -> "ColumnElement[bool]":
        if not isinstance(value, str):
            self.next += 1
            return self._fault("bad-operand", f"{op} on {label!r} takes text, got {t.kind(value)}")
        del field
        dialect = self.builder.model.core.dialect
        index, self.next = self.next, self.next + 1

        def bind(convert: Any) -> Any:
            return self.builder.operand(index, _pattern(op, convert), label, like=None)

        return dialect.text_match(op, column, bind)

    def _list(
        self, op: str, value: Any, column: "ColumnElement[Any]", field: "BoundField", label: str
    ) -> "ColumnElement[bool]":
        if not isinstance(field.type, t.ArrayType):
            if field.type.storage == "json":
                return self._json({op: value}, column, (), label)
            self.next += 1
            return self._fault("bad-operator", f"{op} is for lists, and {label!r} is {field.type}")
        if op == "$overlap" and not isinstance(value, (list, tuple)):
            self.next += 1
            return self._fault("bad-operand", f"$overlap on {label!r} takes a list, got {t.kind(value)}")
        index, self.next = self.next, self.next + 1
        item = field.type.item

        def bind(convert: Any) -> Any:
            return self.builder.operand(index, convert, label, like=None)

        return self.builder.model.core.dialect.list_match(
            op, column, field.type, lambda v: t.filter_value(item, v), bind
        )

    # -- JSON -----------------------------------------------------------------------------------------------------
    def _json(self, value: Any, column: "ColumnElement[Any]", path: Sequence[str], label: str) -> "ColumnElement[bool]":
        if isinstance(value, Mapping) and value:
            parts = []
            for key, operand in value.items():
                if key in LOGIC:
                    parts.append(
                        self.logic(key, operand, None, lambda branch, _: self._json(branch, column, path, label))
                    )
                elif key == "$not":
                    negated = operand if isinstance(operand, Mapping) else None
                    parts.append(
                        _negate(self._json(operand, column, path, label))
                        if negated is not None
                        else self._json_operator("$ne", operand, column, path, label)
                    )
                elif isinstance(key, str) and not key.startswith("$"):
                    parts.append(self._json(operand, column, (*path, *key.split(".")), f"{label}.{key}"))
                else:
                    parts.append(self._json_operator(key, operand, column, path, label))
            return sa.and_(*parts)
        if isinstance(value, Mapping):
            return self._fault(
                "bad-filter", f"the filter on {label!r} is empty", "write {'$eq': {}} for an empty object"
            )
        return self._json_operator("$eq", value, column, path, label)

    def _json_operator(
        self, op: Any, value: Any, column: "ColumnElement[Any]", path: Sequence[str], label: str
    ) -> "ColumnElement[bool]":
        dialect = self.builder.model.core.dialect
        if op not in _LEAVES:
            self.skip(value)
            close = suggest(str(op), OPERATORS)
            hint = f"did you mean {close!r}?" if close else f"operators: {', '.join(sorted(OPERATORS))}"
            return self._fault("unknown-operator", f"{op!r} on {label!r} is not a filter operator", hint)
        index, self.next = self.next, self.next + 1

        def match(op: str, item: Any, pick: Callable[[Any], Any] = lambda v: v) -> "ColumnElement[bool]":
            kind = _json_kind(item)

            def bind(convert: Any) -> Any:
                def encode(operand: Any) -> Any:
                    picked = pick(operand)
                    value = picked if op in TEXT or op in FLAGS else _canonical(op, _plain(picked))
                    found = _pattern(op, convert)
                    return value if found is None else found(value)

                return self.builder.operand(index, encode, label)

            return dialect.json_match(op, column, path, kind, bind)

        if op in FLAGS:
            if not isinstance(value, bool):
                return self._fault("bad-operand", f"{op} takes True or False, got {t.kind(value)}")
            found = match("$exists" if op == "$exists" else "$eq", None)  # $null: null, or not there at all
            return found if value else sa.not_(found)
        if op in ("$in", "$nin", "$overlap", "$between"):
            return self._json_list(op, value, label, match)
        if op == "$ne":
            return _negate(match("$eq", value))
        if op in ("$gt", "$gte", "$lt", "$lte") and _json_kind(value) not in ("number", "str"):
            return self._fault("bad-operand", f"{op} on {label!r} takes a number or text, got {t.kind(value)}")
        if op in TEXT and not isinstance(value, str):
            return self._fault("bad-operand", f"{op} on {label!r} takes text, got {t.kind(value)}")
        return match(op, value)

    def _json_list(self, op: str, value: Any, label: str, match: Any) -> "ColumnElement[bool]":
        if not isinstance(value, (list, tuple)) or (op == "$between" and len(value) != 2):
            return self._fault("bad-operand", f"{op} on {label!r} takes a list, got {t.kind(value)}")
        if op == "$overlap":
            return match(op, value)  # type: ignore[no-any-return]
        if op == "$between":
            if {_json_kind(bound) for bound in value} not in ({"number"}, {"str"}):
                return self._fault("bad-operand", f"$between on {label!r} takes two numbers or two texts")
            return sa.and_(match("$gte", value[0], lambda v: v[0]), match("$lte", value[1], lambda v: v[1]))
        found = self._json_any(value, match)
        return found if op == "$in" else _negate(found)

    def _json_any(self, value: Sequence[Any], match: Any) -> "ColumnElement[bool]":
        """One alternative per type: members are compared with their type."""
        parts: list[ColumnElement[bool]] = []
        for kind in sorted({_json_kind(item) for item in value}):
            sample = next(item for item in value if _json_kind(item) == kind)
            if kind in ("null", "bool"):
                for wanted in sorted({repr(item): item for item in value if _json_kind(item) == kind}):
                    item = {"None": None, "True": True, "False": False}[wanted]
                    parts.append(match("$eq", item, _constant(item)))
                continue
            parts.append(match("$in", sample, _only(kind)))
        return sa.or_(sa.false(), *parts)


def _constant(item: Any) -> Callable[[Any], Any]:
    return lambda _operand: item


def _only(kind: str) -> Callable[[Any], Any]:
    return lambda operand: [item for item in operand if _json_kind(item) == kind]


def _canonical(op: str, value: Any) -> Any:
    """Normalise an operand; the list of an `$in` is no level of the documents in it."""
    return [t.canonical_json(item) for item in value] if op == "$in" else t.canonical_json(value)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _json_kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    return "str" if isinstance(value, str) else "json"


_LIKE = ("$like", "$ilike")


def _pattern(op: str, convert: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
    """Turn a refused pattern into a refused value."""
    if convert is None and op not in _LIKE:
        return None
    from dataflow import regex

    def encode(value: Any) -> Any:
        if op in _LIKE and (len(value) - len(value.rstrip("\\"))) % 2:
            msg = "the pattern ends in a backslash"
            raise t.ValueRefused(msg, "double it, or put the character it escapes")
        try:
            return value if convert is None else convert(value)
        except regex.PatternError as error:
            raise t.ValueRefused(str(error)) from None

    return encode


def _joined(
    join: Callable[..., "ColumnElement[bool]"], parts: list["ColumnElement[bool]"], most: int = 200
) -> "ColumnElement[bool]":
    """AND or OR of any number of parts, in groups: databases limit how deep an expression may be."""
    while len(parts) > most:
        parts = [join(*parts[start : start + most]).is_(sa.true()) for start in range(0, len(parts), most)]
    return join(*parts)


def _negate(predicate: "ColumnElement[bool]") -> "ColumnElement[bool]":
    """NOT, true as well where the predicate is unknown because of a NULL (as in MongoDB)."""
    return predicate.is_not(sa.true())
