"""Read, list, count, aggregate on the oracle's tables."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from dataflow.testing.differential.models import TABLES
from dataflow.testing.differential.programs import Ambiguous, Cursor, Dangling, Failure, Op
from dataflow.testing.differential.world import Row, World
from dataflow.testing.oracle import RELATIONS, Overflow, aggregated
from dataflow.testing.oracle.results import Near, Sort, ordered, rank

Params = Mapping[str, Any]
CLOSE = 1e-9
"""Sums that differ by less are not compared: their order would depend on the order of adding up."""


def key_document(model: str, params: Params) -> dict[str, Any] | None:
    """Return the equality filter of the key that params name, in any spelling; None where they name none."""
    names = TABLES[model].key
    given = params.get("id", params.get("record_id"))
    if len(names) > 1 and given is None and names[0] in params:
        return {name: params[name] for name in names}
    if given is None:
        return None
    if isinstance(given, dict):
        return {name: given[name] for name in names}
    return dict(zip(names, given, strict=True)) if isinstance(given, (tuple, list)) else {names[0]: given}


def target(world: World, op: Op, params: Params) -> tuple[list[Row], dict[str, Any] | None]:
    """Return the rows that a single-record operation means, and the key it names them by, if any."""
    key = key_document(op.model, params)
    if key is not None:
        return world.found(op.model, key), key
    return world.found(op.model, params.get("conditions", params.get("filter"))), None


def project(model: str, rows: Sequence[Row], params: Params) -> list[Row]:
    """Keep the fields asked for."""
    names = params.get("fields") or TABLES[model].columns
    return [{name: row[name] for name in names} for row in rows]


def include(world: World, model: str, rows: Sequence[Row], records: Sequence[Row], names: Sequence[str]) -> None:
    """Put related records into `records`, which show `rows`."""
    tree: dict[str, list[str]] = {}
    for name in names:
        head, _, rest = name.partition(".")
        tree.setdefault(head, []).extend([rest] if rest else [])
    for relation, below in tree.items():
        other, here, there, many = RELATIONS[model][relation]
        for row, record in zip(rows, records, strict=True):
            related = [one for one in world.rows(other) if row[here] is not None and one[there] == row[here]]
            copies = project(other, related, {})
            include(world, other, related, copies, below)
            record[relation] = copies if many else (copies[0] if copies else None)


def read(world: World, op: Op, params: Params) -> Row:
    """Answer a read."""
    rows, key = target(world, op, params)
    if not rows:
        if params.get("raise_on_not_found"):
            raise Failure("NotFoundError", "not-found")
        return {**(key or {}), "found": False}
    record = project(op.model, rows[:1], params)
    include(world, op.model, rows[:1], record, params.get("include", ()))
    return {**record[0], "found": True}


def parse_sort(params: Params) -> Sort:
    """Read a sort in any of its spellings."""
    given = params.get("sort") or params.get("order_by") or ()
    found: list[tuple[str, bool]] = []
    for item in [given] if isinstance(given, (str, dict)) else given:
        if isinstance(item, str):
            found.append((item.removeprefix("-"), item.startswith("-")))
        else:
            found += [(name, direction == -1) for name, direction in item.items()]
    return found


def _after(row: Row, sort: Sort, values: Sequence[Any]) -> bool:
    for (name, descending), value in zip(sort, values, strict=True):
        one, other = rank(row[name]), rank(value)
        if one != other:
            return (one < other) is descending
    return False


def listed(world: World, op: Op, params: Params) -> dict[str, Any]:
    """Answer a list."""
    rows = world.found(op.model, params.get("filter"))
    total = len(rows)
    out: dict[str, Any] = {"records": [], "count": total, "total": total, "limit": None, "offset": 0}
    if params.get("count_only"):
        return {**out, "has_more": False, "next_cursor": None}
    table = TABLES[op.model]
    sort = parse_sort(params)
    names = [name for name, _ in sort]
    sort = [*sort, *((name, False) for name in table.key if name not in names)]
    rows = ordered(rows, sort, table.key)
    limit, offset, cursor = params.get("limit"), params.get("offset", 0), params.get("cursor")
    if isinstance(cursor, Cursor):
        if cursor.number not in world.cursors:
            raise Dangling
        rows = [row for row in rows if _after(row, sort, world.cursors[cursor.number][1])]
    rows = rows[offset:]
    more = limit is not None and len(rows) > limit
    rows = rows[:limit]
    records = project(op.model, rows, params)
    include(world, op.model, rows, records, params.get("include", ()))
    if more and rows:
        world.cursors[op.number] = (sort, [rows[-1][name] for name, _ in sort])
    out = {"records": records, "count": len(records)}
    if params.get("include_total"):
        out["total"] = total
    next_cursor = Cursor(op.number) if more and rows else None
    return {**out, "limit": limit, "offset": offset, "has_more": more, "next_cursor": next_cursor}


def count(world: World, op: Op, params: Params) -> dict[str, Any]:
    """Answer a count."""
    return {"count": len(world.found(op.model, params.get("filter")))}


def aggregate(world: World, op: Op, params: Params) -> dict[str, Any]:
    """Answer an aggregate."""
    rows = world.found(op.model, params.get("filter"))
    asked = {**params, "sort": [{name: -1 if down else 1} for name, down in parse_sort(params)]}
    try:
        whole = aggregated(rows, {**asked, "limit": None}, op.model)
    except Overflow as overflow:
        if not overflow.certain or "limit" in params or "having" in params:  # is that group's sum needed?
            raise Ambiguous from None
        raise Failure("QueryError", "arithmetic") from None
    for name, _ in parse_sort(params):
        _refuse_close([record[name] for record in whole if isinstance(record[name], Near)])
    return {"groups": whole[: params.get("limit")]}


def _refuse_close(values: Sequence[Near]) -> None:
    in_order = sorted(values)
    for one, other in pairwise(in_order):
        if other - one <= CLOSE * max(one.magnitude, other.magnitude):
            raise Ambiguous
