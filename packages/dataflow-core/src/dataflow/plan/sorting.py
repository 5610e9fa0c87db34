"""Sorting and keyset paging: sort documents, the total order they mean, cursors."""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import NoneType
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from dataflow.errors import InputError, Problem, suggest
from dataflow.jsontext import dump_json
from dataflow.plan.builder import PlanBuilder
from dataflow.wire import from_wire, to_wire

if TYPE_CHECKING:
    from dataflow.plan.bound import BoundModel

Sort = tuple[tuple[str, bool], ...]
"""(name, descending) for each column."""


def parse_sort(value: Any) -> Sort | str:
    """Read a sort in any of its spellings; return a complaint where it is none.

    ``"f"``, ``"-f"``, ``["-f"]``, ``{"f": -1}``, ``[{"f": -1}, "g"]``.
    """
    if value is None:
        return ()
    parts: list[tuple[str, bool]] = []
    for item in [value] if isinstance(value, (str, Mapping)) else value if isinstance(value, Sequence) else [None]:
        if isinstance(item, str):
            parts.append((item.removeprefix("-"), item.startswith("-")))
        elif isinstance(item, Mapping):
            for name, direction in item.items():
                if direction not in (1, -1, "asc", "desc") or isinstance(direction, bool):
                    return f"the direction of {name!r} is 1 or -1: sort=[{{{name!r}: -1}}]"
                parts.append((str(name), direction in (-1, "desc")))
        elif isinstance(item, (tuple, list)) and len(item) == 2:
            return "a sort is [{'field': 1 or -1}], ['-field'] or 'field', not pairs"
        else:
            return "a sort is [{'field': 1 or -1}], ['-field'] or 'field'"
    return tuple(parts)


def total_order(bound: "BoundModel", sort: Sort) -> Sort:
    """End a sort in the primary key, so that it orders every two records; keys may be unique only within a scope."""
    given = {name for name, _ in sort}
    key = dict.fromkeys((*bound.spec.primary_key, *bound.spec.row_key))
    return sort + tuple((name, False) for name in key if name not in given)


def sort_problems(bound: "BoundModel", sort: Sort) -> list[Problem]:
    """Return the faults of a sort: unknown, repeated, or unordered fields."""
    problems = []
    for position, (name, _) in enumerate(sort):
        if name not in bound.fields:
            close = suggest(name, bound.fields)
            hint = f"did you mean {close!r}?" if close else f"fields: {', '.join(bound.fields)}"
            problems.append(Problem("unknown-field", f"sort: model {bound.name} has no field {name!r}", hint))
        elif bound.fields[name].type.storage in ("json", "array"):
            problems.append(Problem("bad-sort", f"sort: {name!r} is {bound.fields[name].type}, which has no order"))
        elif name in [other for other, _ in sort[:position]]:
            problems.append(Problem("bad-sort", f"sort: {name!r} stands twice"))
    return problems


def order_by(builder: PlanBuilder, sort: Sort) -> list[Any]:
    """Return the ORDER BY terms: NULLs first when ascending, last when descending."""
    terms = []
    for name, descending in sort:
        if builder.transformed(name) and name not in builder.model.spec.primary_key:
            fault = Problem("bad-sort", f"sort: {name!r} is stored encoded, so the database cannot order it")
            raise builder.model.refuse([fault], builder.operation)
        field = builder.model.fields[name]
        column = builder.model.core.dialect.comparable(builder.table.c[name], field.type)
        term = column.desc() if descending else column.asc()
        if field.nullable and builder.model.core.dialect.nulls_need_order:
            term = term.nulls_last() if descending else term.nulls_first()
        terms.append(term)
    return terms


def write_cursor(sort: Sort, record: Mapping[str, Any]) -> str:
    """Return the opaque text that stands for the place after `record`."""
    values = [record[name] for name, _ in sort]
    wired = values if _PLAIN.issuperset(map(type, values)) else list(map(to_wire, values))
    return base64.urlsafe_b64encode(dump_json({"s": _order(sort), "v": wired}).encode()).decode()


_PLAIN = frozenset((int, str, bool, NoneType))
"""Types that a wire format leaves as they are."""


@lru_cache(maxsize=256)
def _order(sort: Sort) -> list[str]:
    return ["-" * descending + name for name, descending in sort]


def read_cursor(bound: "BoundModel", text: Any, sort: Sort) -> list[Any]:
    """Return the sort values of the record that a cursor stands for.

    Raises:
        InputError: the text is no cursor, or belongs to another sort.
    """
    order = _order(sort)
    try:
        data = json.loads(base64.urlsafe_b64decode(text.encode()))
        given, values = list(data["s"]), [from_wire(value) for value in data["v"]]
    except (binascii.Error, ValueError, KeyError, TypeError, AttributeError, InputError):
        fault = Problem("bad-cursor", "the cursor is not one that a ListNode returned", "pass next_cursor unchanged")
        raise bound.refuse([fault], "list") from None
    if given != order or len(values) != len(order):
        hint = f"keep the sort of the page before: {', '.join(map(str, given))}"
        raise bound.refuse([Problem("bad-cursor", "the cursor belongs to another sort", hint)], "list")
    return values


def after(builder: PlanBuilder, sort: Sort, values: Sequence[Any], first: int) -> Any:
    """Return the predicate for records after a place; operand numbers start at `first`."""
    alternatives = []
    equal: list[Any] = []
    for position, (name, descending) in enumerate(sort):
        field = builder.field(name)
        column = builder.table.c[name]
        ordered = builder.model.core.dialect.comparable(column, field.type)
        index = first + position
        if values[position] is None:  # NULLs come first when ascending, last when descending
            beyond = None if descending else column.is_not(None)
            same = column.is_(None)
        else:
            parameter = builder.operand(index, field.filter_operand, name, like=ordered)
            beyond = ordered < parameter if descending else ordered > parameter
            if descending and field.nullable:
                beyond = sa.or_(beyond, column.is_(None))
            same = column == builder.operand(index, field.filter_operand, name, like=column)
        if beyond is not None:
            alternatives.append(sa.and_(*equal, beyond))
        equal = [*equal, same]
    beyond_all = sa.or_(sa.false(), *alternatives)
    bound = _bound(builder, sort, values, first)
    return beyond_all if bound is None else sa.and_(bound, beyond_all)


def _bound(builder: PlanBuilder, sort: Sort, values: Sequence[Any], first: int) -> Any:
    """Return what bounds the first column alone, or None: planners search an index by that, and not by alternatives."""
    name, descending = sort[0]
    field = builder.field(name)
    if len(sort) == 1 or values[0] is None or (descending and field.nullable):
        return None
    column = builder.table.c[name]
    ordered = builder.model.core.dialect.comparable(column, field.type)
    parameter = builder.operand(first, field.filter_operand, name, like=ordered)
    return ordered <= parameter if descending else ordered >= parameter
