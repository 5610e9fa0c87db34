"""The bulk operations on the oracle's tables."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dataflow.testing.differential.changes import changed, read_changes
from dataflow.testing.differential.models import TABLES, Table
from dataflow.testing.differential.programs import Ambiguous, Failure, Op, Text, Wrong, symbols
from dataflow.testing.differential.reads import Params, key_document
from dataflow.testing.differential.world import UNIQUE, Key, Row, World
from dataflow.testing.differential.writes import change_rows
from dataflow.testing.oracle import accept

BATCH = 1000
Rows = Sequence[Mapping[str, Any]]


def scalar(table: Table, row: Mapping[str, Any]) -> Any:
    """Return the key of a row as results show it: a scalar, or a tuple."""
    return row[table.key[0]] if len(table.key) == 1 else tuple(row[name] for name in table.key)


def _refused(count: int, code: str) -> Failure:
    return Failure("InputError", code if count == 1 else "several-faults")


def _parts(rows: Sequence[Any], size: int | None) -> Iterator[Sequence[Any]]:
    step = size or max(len(rows), 1)
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def _shared(op: Op, params: Params) -> dict[str, Any]:
    return {name: value for name, value in params.items() if name in TABLES[op.model].kinds}


# -- bulk create ------------------------------------------------------------------------------------------------------
class _Tally:
    def __init__(self) -> None:
        self.created = self.updated = self.skipped = self.done = self.committed = 0
        self.ids: list[Any] = []
        self.errors: list[dict[str, Any]] = []

    def result(self, total: int, params: Params, *, collect: bool) -> dict[str, Any]:
        out: dict[str, Any] = {
            "created": self.created, "updated": self.updated, "skipped": self.skipped, "total": total,
        }  # fmt: skip
        if params.get("return_ids"):
            out["ids"] = self.ids
        if collect:
            out["errors"] = self.errors
        if params.get("commit_every"):
            out["committed"] = self.committed
        return out


def bulk_create(world: World, op: Op, params: Params) -> dict[str, Any]:
    """Insert rows; all or nothing, unless `commit_every` says otherwise."""
    rows: Rows = params["data"]
    shared = _shared(op, params)
    conflict = params.get("conflict_resolution", "error")
    if conflict == "upsert":
        given = set(shared).union(*rows)
        if "key_fields" in params or any(set(key) <= given for key in TABLES[op.model].keys):
            return bulk_upsert(world, op, params)
    tally = _Tally()
    tally.ids = [None] * len(rows)
    every = params.get("commit_every")
    for part in _parts(list(enumerate(rows)), every):
        before = world.snapshot()
        try:
            for batch in _parts(part, params.get("batch_size", BATCH)):
                _create_batch(world, op, batch, shared, params, tally)
        except Failure as failure:
            world.restore(before)
            failure.kept = bool(every)
            raise
        tally.committed = tally.done
    return tally.result(len(rows), params, collect=params.get("on_error") == "collect")


def _create_batch(
    world: World,
    op: Op,
    rows: Sequence[tuple[int, Mapping[str, Any]]],
    shared: Mapping[str, Any],
    params: Params,
    tally: _Tally,
) -> None:
    bad = [index for index, row in rows if _wrong(op.model, {**shared, **row})]
    strict = params.get("on_error", "stop") == "stop"
    if bad and strict:
        raise _refused(len(bad), "bad-row")
    for index in bad:
        _report(tally, op.number, index, "bad-row")
    for index, row in rows:
        if index in bad:
            continue
        new = world.fresh(op.model, {**shared, **row}, op.number)
        if params.get("conflict_resolution") == "skip" and world.holder(TABLES[op.model], new) is not None:
            tally.skipped += 1
            continue
        try:
            stored = world.insert(op.model, new, op.number)
        except Failure as failure:
            if strict:
                raise
            several = world.clashes(TABLES[op.model], new) > 1  # databases name one of them, whichever they see first
            _report(tally, op.number, index, failure.code, open_text=several)
            continue
        tally.created += 1
        tally.ids[index] = scalar(TABLES[op.model], stored)
    tally.done += len(rows)


def _wrong(model: str, row: Mapping[str, Any]) -> bool:
    missing = [name for name in TABLES[model].required if name not in row]
    return bool(missing) or any(type(leaf) is Wrong for leaf in symbols(row))


def _report(tally: _Tally, number: int, index: int, code: str, *, open_text: bool = False) -> None:
    tally.skipped += 1
    tally.errors.append({"row": index, "code": code, "message": Text(() if open_text else (number, index))})


# -- bulk upsert ------------------------------------------------------------------------------------------------------
def bulk_upsert(world: World, op: Op, params: Params) -> dict[str, Any]:
    """Create or update rows by a unique key."""
    rows: Rows = params["data"]
    shared = _shared(op, params)
    key = _upsert_key(op, params, set(shared).union(*rows))
    kept = _distinct(op, rows, shared, key, params.get("on_duplicate", "error"))
    tally = _Tally()
    tally.ids = [None] * len(rows)
    every = params.get("commit_every")
    for part in _parts(kept, every):
        before = world.snapshot()
        try:
            groups: dict[frozenset[str], list[int]] = {}
            for index in part:
                groups.setdefault(frozenset(rows[index]), []).append(index)
            for group in groups.values():
                for batch in _parts(group, params.get("batch_size", BATCH)):
                    _upsert_batch(world, op, [(index, {**shared, **rows[index]}) for index in batch], key, tally)
        except Failure as failure:
            world.restore(before)
            failure.kept = bool(every)
            raise
        tally.committed = tally.done
    tally.skipped = len(rows) - len(kept)
    last = {_key_of(op, {**shared, **rows[index]}, key): tally.ids[index] for index in kept}
    tally.ids = [last[_key_of(op, {**shared, **row}, key)] for row in rows]
    return tally.result(len(rows), params, collect=False)


def _upsert_key(op: Op, params: Params, given: set[str]) -> tuple[str, ...]:
    table = TABLES[op.model]
    named = params.get("key_fields")
    if named:
        return next(key for key in table.keys if set(key) == set(named))
    candidates = [key for key in table.keys if set(key) <= given]
    if table.key in candidates or len(candidates) == 1:
        return candidates[0]
    raise Failure("InputError", "missing-key")


def _key_of(op: Op, row: Mapping[str, Any], key: Sequence[str]) -> Key:
    kinds = TABLES[op.model].kinds
    return tuple(row.get(name) if kinds[name] == "int" else accept(kinds[name], row.get(name), name) for name in key)


def _distinct(op: Op, rows: Rows, shared: Mapping[str, Any], key: Sequence[str], on_duplicate: str) -> list[int]:
    seen: dict[Key, int] = {}
    faults: list[str] = []
    for index, row in enumerate(rows):
        found = _key_of(op, {**shared, **row}, key)
        if None in found:
            faults.append("bad-row")
            continue
        if found in seen and on_duplicate == "error":
            faults.append("duplicate-key")
        seen[found] = index
    if faults:
        raise _refused(len(faults), faults[0])
    return sorted(seen.values())


def _upsert_batch(
    world: World, op: Op, rows: Sequence[tuple[int, Mapping[str, Any]]], key: Sequence[str], tally: _Tally
) -> None:
    table = TABLES[op.model]
    bad = [index for index, row in rows if _wrong(op.model, row)]
    if bad:
        raise _refused(len(bad), "bad-row")
    broken: list[Failure] = []  # foreign keys are checked at the end of the statement
    for index, row in rows:
        wanted = _key_of(op, row, key)
        old = [one for one in world.tables[op.model].values() if tuple(one[name] for name in key) == wanted]
        new = world.fresh(op.model, row, op.number)
        if old:
            given = {name: new[name] for name in row if name not in key and name not in table.key}
            stamp = {"updated_at": new["updated_at"]} if table.stamped else {}
            new = {**old[0], **given, **stamp}
        ignored = [world.key(table, old[0])] if old else []
        if not (table.auto and new["id"] is None) and world.holder(table, new, ignored) is not None:
            raise Failure(*UNIQUE)
        if old:
            world.tables[op.model][ignored[0]] = new
        else:
            new = world.insert(op.model, new, op.number, checked=False)
        try:
            world.check_foreign(table, new)
        except Failure as failure:
            broken.append(failure)
        tally.created += not old
        tally.updated += bool(old)
        tally.ids[index] = scalar(table, new)
    if broken:
        raise broken[0]
    tally.done += len(rows)


# -- bulk update ------------------------------------------------------------------------------------------------------
def bulk_update(world: World, op: Op, params: Params) -> dict[str, Any]:
    """Change all that match, or row by row."""
    table = TABLES[op.model]
    if "data" in params:
        return _update_rows(world, op, params)
    rows = world.found(op.model, params["filter"])[: params.get("limit")]
    done = change_rows(world, op, rows, params["update"])
    ids = {"ids": [scalar(table, row) for row in done]} if params.get("return_ids") else {}
    return {"updated": len(done), **ids}


def _update_rows(world: World, op: Op, params: Params) -> dict[str, Any]:
    table = TABLES[op.model]
    new: dict[Key, Row] = {}
    ids: list[Any] = []
    failures: list[Failure] = []
    for given in params["data"]:
        key = _key_of(op, given, table.key)
        row = world.tables[op.model].get(key)
        ids.append(None if row is None else scalar(table, row))
        if row is not None:
            try:
                changes = read_changes({name: value for name, value in given.items() if name not in table.key})
                new[key] = changed(op.model, row, changes, op.number)
                world.check_foreign(table, new[key])
            except Failure as failure:
                failures.append(failure)
    try:
        world.change(op.model, {key: row for key, row in new.items() if not failures})
    except Failure as failure:
        failures.append(failure)
    if len({failure.name for failure in failures}) > 1:
        raise Ambiguous
    if failures:
        before = world.snapshot()
        try:
            world.change(op.model, new)
        except Failure as failure:
            if failure.name != failures[0].name:
                raise Ambiguous from None
        world.restore(before)
        raise failures[0]
    out = {"updated": len(new), "total": len(params["data"]), "missing": len(params["data"]) - len(new)}
    return {**out, "ids": ids} if params.get("return_ids") else out


# -- bulk delete ------------------------------------------------------------------------------------------------------
def bulk_delete(world: World, op: Op, params: Params) -> dict[str, Any]:
    """Remove all that match, or those with these keys."""
    table = TABLES[op.model]
    limit = params.get("limit")
    if "ids" in params:
        keys = [key_document(op.model, {"id": key}) or {} for key in params["ids"]]
        wanted = {_key_of(op, key, table.key) for key in keys}
        rows = [row for row in world.rows(op.model) if world.key(table, row) in wanted]
    else:
        rows = world.found(op.model, params["filter"])
    if params.get("confirmation_required") and not params.get("confirmed"):
        would = len(rows) if limit is None else min(len(rows), limit)
        return {"deleted": 0, "confirmation_required": True, "would_delete": would}
    if "filter" in params and not params.get("confirmed") and compares_nothing(params["filter"]):
        raise Failure("InputError", "unconfirmed")
    rows = rows[:limit]
    world.remove(op.model, [world.key(table, row) for row in rows])
    ids = {"ids": [scalar(table, row) for row in rows]} if params.get("return_ids") else {}
    return {"deleted": len(rows), **ids}


def compares_nothing(document: Mapping[str, Any]) -> bool:
    """Tell whether a filter may match every record because it compares nothing."""

    def operands(part: Any) -> Iterator[Any]:
        for key, value in part.items():
            if key in ("$and", "$or", "$nor"):
                for branch in value:
                    yield from operands(branch) if isinstance(branch, dict) else [branch]
            elif isinstance(value, dict):
                yield from operands(value)
            else:
                yield value

    found = list(operands(document))
    return not found or ("$nin" in repr(document) and all(value == [] for value in found))
