"""Which cells of the table node kind by field type by operator a program touches, and the table of all of them.

A cell is (node kind, field type, operator). The operators "value", "None" and "default" stand for what is written into
a field, ":=" for a plain value in an update, "group_by" and "sort asc" for the places a field can stand in.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from dataflow.testing.differential import conditions, updates
from dataflow.testing.differential.changes import read_changes
from dataflow.testing.differential.models import TABLES
from dataflow.testing.differential.programs import Op, Step, Wire
from dataflow.testing.differential.reads import parse_sort
from dataflow.testing.oracle import NUMERIC, ORDERED, RELATIONS

Cell = tuple[str, str, str]
FILTERED: Mapping[str, tuple[str, ...]] = {
    "read": ("conditions",),
    "update": ("conditions", "filter"),
    "delete": ("conditions",),
    "list": ("filter",),
    "count": ("filter",),
    "aggregate": ("filter",),
    "bulk_update": ("filter",),
    "bulk_delete": ("filter",),
}
"""Node kinds that take filters, and under which names."""
UPDATING = ("update", "upsert", "bulk_update", "bulk_update rows")
WRITING = ("create", "upsert", "bulk_create", "bulk_upsert")
RELATION_OPERATORS = ("=", "=None", "$exists", "$null")
MODES = ("direct", "sync", "async", "node", "late", "anode", "scope")
KINDS = tuple(dict.fromkeys(kind for table in TABLES.values() for kind in table.kinds.values()))
"""All field types."""


def cells_of(step: Step, done: int) -> Iterator[Cell]:
    """Yield the cells that the first `done` operations of a step touch: those that gave a result."""
    for op in step.ops[:done]:
        yield from _op(op)
        yield op.kind, "(run as)", "scope" if step.scope is not None else step.mode


def _op(op: Op) -> Iterator[Cell]:
    table = TABLES[op.model]
    for name in FILTERED.get(op.kind, ()):
        if isinstance(op.params.get(name), dict):
            yield from _document(op.kind, op.params[name], op.model)
    if op.kind == "list":
        sort = parse_sort(op.params)
        kinds = [(table.kinds.get(name, "datetime"), "desc" if down else "asc") for name, down in sort]
        yield from (("list", kind, f"sort {way}") for kind, way in kinds)
        if "cursor" in op.params:
            yield from (("list", kind, f"cursor {way}") for kind, way in kinds)
    elif op.kind == "aggregate":
        yield from _aggregate(op)
    elif op.kind in WRITING:
        yield from _written(op)
    if op.kind in UPDATING:
        yield from _updates(op)


def _document(node: str, document: Mapping[str, Any], model: str) -> Iterator[Cell]:
    for key, value in document.items():
        if key in conditions.LOGIC:
            for branch in value:
                yield from _document(node, branch, model)
        elif key == "$not":
            yield from _document(node, value, model)
        else:
            yield from _entry(node, key, value, model)


def _entry(node: str, key: str, value: Any, model: str) -> Iterator[Cell]:
    head, _, path = key.partition(".")
    if head in RELATIONS[model]:
        target = RELATIONS[model][head][0]
        if path:
            yield from _entry(node, path, value, target)
        elif value is None:
            yield node, "relation", "=None"
        elif set(value) & {"$exists", "$null"}:
            yield node, "relation", next(iter(value))
        else:
            yield node, "relation", "="
            yield from _document(node, value, target)
        return
    yield from _under(node, value, TABLES[model].kinds[head])


def _under(node: str, value: Any, kind: str) -> Iterator[Cell]:
    if not isinstance(value, dict):
        yield node, kind, "=None" if value is None else "="
        return
    for op, operand in value.items():
        if not op.startswith("$"):
            yield from _under(node, operand, kind)
            continue
        yield node, kind, op
        if op in conditions.LOGIC:
            for branch in operand:
                yield from _under(node, branch, kind)
        elif op == "$not" and isinstance(operand, dict):
            yield from _under(node, operand, kind)


def _aggregate(op: Op) -> Iterator[Cell]:
    kinds = TABLES[op.model].kinds
    names = {name: kinds[name] for name in op.params.get("group_by", ())}
    yield from (("aggregate", kind, "group_by") for kind in names.values())
    for name, item in op.params["aggregate"].items():
        ((function, field),) = item.items()
        names[name] = kinds.get(field, "int") if function in ("$min", "$max", "$sum") else "int"
        yield "aggregate", kinds.get(field, "*"), function
    for name, down in parse_sort(op.params):
        yield "aggregate", names[name], "sort desc" if down else "sort asc"
    for name, value in op.params.get("having", {}).items():
        yield from _under("having", value, names[name])


def _written(op: Op) -> Iterator[Cell]:
    table = TABLES[op.model]
    if op.kind in ("bulk_create", "bulk_upsert"):
        if isinstance(op.params["data"], Wire):
            return
        shared = {name: value for name, value in op.params.items() if name in table.kinds}
        rows = [{**shared, **row} for row in op.params["data"]]
    elif op.kind == "upsert":
        rows = [{**op.params["where"], **op.params.get("create", {})}]
    else:
        rows = [
            {**{name: value for name, value in op.params.items() if name != "values"}, **op.params.get("values", {})}
        ]
    for row in rows:
        for name, kind in table.kinds.items():
            if name in row:
                yield op.kind, kind, "None" if row[name] is None else "value"
            elif name in table.defaults:
                yield op.kind, kind, "default"


def _updates(op: Op) -> Iterator[Cell]:
    table = TABLES[op.model]
    node = op.kind
    changes: list[Mapping[str, Any]] = []
    if op.kind == "bulk_update" and "data" in op.params:
        node = "bulk_update rows"
        changes = op.params["data"]
    elif op.kind in ("upsert", "bulk_update"):
        changes = [op.params.get("update") or {}]
    else:
        given = op.params.get("values", op.params.get("fields"))
        top = {name: value for name, value in op.params.items() if name in table.kinds or name.startswith("$")}
        changes = [top if given is None else given]
    for one in changes:
        plain = {name: value for name, value in one.items() if name not in table.key}
        flat = {name for name in plain if not name.startswith("$") and not _has_operator(plain[name])}
        for name, operator, _ in read_changes(plain):
            if name not in table.key:
                yield node, table.kinds[name], ":=" if name in flat else operator


def _has_operator(value: Any) -> bool:
    return isinstance(value, dict) and any(key.startswith("$") for key in value)


def allowed() -> Iterator[Cell]:
    """Yield every cell that the specification allows."""
    for kind in KINDS:
        sortable = kind in ORDERED or kind == "bool"
        for node in FILTERED:
            yield from ((node, kind, op) for op in conditions.operators(kind))
        for node in UPDATING:
            yield from ((node, kind, op) for op in updates.operators(kind))
        for node in WRITING:
            yield from ((node, kind, op) for op in ("value", "None"))
        yield "aggregate", kind, "$count"
        yield "aggregate", kind, "$count_distinct"
        if kind in NUMERIC:
            yield from (("aggregate", kind, function) for function in ("$sum", "$avg"))
        if kind in ORDERED:
            yield from (("aggregate", kind, function) for function in ("$min", "$max"))
        if sortable:
            yield "aggregate", kind, "group_by"
            for node in ("list", "aggregate"):
                yield from ((node, kind, f"sort {way}") for way in ("asc", "desc"))
            yield from (("list", kind, f"cursor {way}") for way in ("asc", "desc"))
            yield from (("having", kind, op) for op in conditions.operators(kind))
    yield "aggregate", "*", "$count"
    yield from ((node, "relation", op) for node in FILTERED for op in RELATION_OPERATORS)
    yield from ((node, "(run as)", mode) for node in NODES for mode in MODES)


NODES = (
    "create", "read", "update", "delete", "list", "count", "aggregate", "upsert", "bulk_create", "bulk_update",
    "bulk_delete", "bulk_upsert",
)  # fmt: skip


def table(counts: Mapping[Cell, int]) -> str:
    """Write the coverage table: per node kind, a line per operator and a column per field type."""
    cells = set(allowed())
    short = {kind: kind.replace("list[", "[").replace("datetime", "moment") for kind in (*KINDS, "relation", "*")}
    lines = []
    for node in (*NODES, "bulk_update rows", "having"):
        own = {cell for cell in cells if cell[0] == node}
        columns = [kind for kind in (*KINDS, "relation", "*") if any(cell[1] == kind for cell in own)]
        names = list(dict.fromkeys(cell[2] for cell in sorted(own) if cell[1] != "(run as)"))
        wide = max([len(node), *map(len, names)])
        modes = "  ".join(f"{mode} {counts.get((node, '(run as)', mode), 0)}" for mode in MODES)
        lines.append(f"{node}" + (f"  (run as: {modes})" if node in NODES else ""))
        widths = {kind: max(len(short[kind]), 5) for kind in columns}
        lines.append(" " * wide + "".join(f" {short[kind]:>{widths[kind]}}" for kind in columns))
        for name in names:
            row = [
                f" {counts.get((node, kind, name), 0) if (node, kind, name) in own else '·':>{widths[kind]}}"
                for kind in columns
            ]
            lines.append(f"{name:<{wide}}" + "".join(row))
        lines.append("")
    return "\n".join(lines)


def empty(counts: Mapping[Cell, int]) -> list[Cell]:
    """Return the cells that the specification allows and nothing touched."""
    return [cell for cell in allowed() if not counts.get(cell)]


def summary(counts: Counter[Cell]) -> str:
    """Write one line about the coverage."""
    cells = list(allowed())
    hit = [counts[cell] for cell in cells if counts[cell]]
    return f"{len(hit)} of {len(cells)} cells (node kind by field type by operator), least {min(hit, default=0)} times"
