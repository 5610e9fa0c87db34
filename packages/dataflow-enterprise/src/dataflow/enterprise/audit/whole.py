"""What proves the log whole: chains are followed, tables compared with it, checkpoints taken and checked."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dataflow import types as t
from dataflow.changelog import ChangeLog, change_log
from dataflow.dialect import COUNT, Command, Program
from dataflow.enterprise.audit.chain import Checkpoint, Digest, Entry, Fault, Follower, Report, Stub, chain_name
from dataflow.enterprise.audit.images import masked
from dataflow.jsontext import dump_json, load_json

if TYPE_CHECKING:
    from dataflow.core import Core
    from dataflow.plan.bound import BoundModel

PAGE = 5_000
"""Entries read at a time."""
_TEXTS = ("tbl", "record", "tenant", "actor", "run", "node", "action", "old", "new")


def _columns(log: ChangeLog) -> str:
    return f"seq, {log.log_at}, {', '.join(_TEXTS)}, n, hash"


def pages(core: "Core", order: tuple[str, ...], where: str = "", values: Iterable[Any] = ()) -> "_Pages":
    """Read all entries in an order that names each, page by page."""
    return _Pages(core, order, where, tuple(values))


class _Pages:
    """A keyset over the log.

    Args:
        core: whose log.
        order: columns: ("seq",) or ("tbl", "record", "n").
        where: a further condition.
        values: its values.
    """

    _kinds: Mapping[str, t.FieldType] = {
        "seq": t.IntType(),
        "n": t.IntType(),
        "tbl": t.StrType(),
        "record": t.StrType(),
    }

    def __init__(self, core: "Core", order: tuple[str, ...], where: str, values: tuple[Any, ...]) -> None:
        self.log = change_log(core.dialect)
        self.order = order
        self.where = where
        self.values = values
        self.last: list[Any] | None = None

    def next(self) -> Program[list[Entry]]:
        """Return the next page; an empty one at the end."""
        conditions, values = [self.where] if self.where else [], list(self.values)
        if self.last is not None:
            places = []
            for name, value in zip(self.order, self.last, strict=True):
                values.append(value)
                places.append(self.log.log_parameter(len(values), self._kinds[name]))
            conditions.append(f"({', '.join(self.order)}) > ({', '.join(places)})")
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        sql = (
            f"SELECT {_columns(self.log)} FROM {self.log.log_source}{where} "  # noqa: S608
            f"ORDER BY {', '.join(self.order)} LIMIT {PAGE}"
        )
        entries = [Entry(*row) for row in (yield Command(sql), values)]
        if entries:
            self.last = [getattr(entries[-1], name) for name in self.order]
        return entries


def _stubs(core: "Core") -> Program[list[Stub]]:
    del core
    rows = yield Command("SELECT seq, chain, n, hash, purge FROM dataflow_audit_purged ORDER BY seq"), ()
    return [Stub(*row) for row in rows]


class Verifier:
    """One look at the whole log.

    Args:
        core: whose log.
        models: the audited models whose tables are compared with it.
        key: what signs checkpoints.
    """

    def __init__(self, core: "Core", models: Iterable["BoundModel"], key: str | None) -> None:
        self.core = core
        self.log = change_log(core.dialect)
        self.models = list(models)
        self.key = key
        self.faults: list[Fault] = []
        self.notes: list[str] = []
        self.images: dict[tuple[str, str], str | None] = {}
        self.purges: dict[int, Mapping[str, Any]] = {}
        self.entries = 0
        self.records = 0

    def program(self, given: Iterable[Checkpoint]) -> Program[Report]:
        """Return what is wrong; `given`: checkpoints that were kept elsewhere."""
        yield from self._unsealed()
        yield from self.log.log_complete()
        stubs = yield from _stubs(self.core)
        yield from self._chains(stubs)
        self._check_stubs(stubs)
        checkpoints = yield from self._checkpoints(list(given))
        for model in self.models:
            yield from self._compare(model)
        compared = tuple(model.spec.table for model in self.models)
        return Report(self.entries, self.records, tuple(self.faults), tuple(self.notes), compared, checkpoints)

    def _unsealed(self) -> Program[None]:
        """Look for what the next seals would paint over."""
        for seq in (yield from self.log.log_unsealed()):
            self.faults.append(Fault("forged", "an entry without its seal, or a seal without its entry", seq))
        entries, seals = yield from self.log.log_counters()
        if entries is None or seals is None:
            return
        rows = yield (
            Command(
                "SELECT (SELECT max(seq) FROM dataflow_audit), (SELECT max(seq) FROM dataflow_audit_seal), "
                "(SELECT max(seq) FROM dataflow_audit_purged)"
            ),
            (),
        )
        found, sealed, purged = (value or 0 for value in rows[0])
        if max(found, purged) != entries:
            detail = f"the last entry is {max(found, purged)}, and {entries} were written"
            self.faults.append(Fault("missing", detail, found))
        if max(sealed, purged) != seals:
            self.faults.append(Fault("missing", f"the last seal is {sealed}, and {seals} were made", sealed))

    # -- chains -----------------------------------------------------------------------------------------------------
    def _chains(self, stubs: list[Stub]) -> Program[None]:
        order = ("seq",) if self.log.log_single else ("tbl", "record", "n")
        by_chain: dict[str, list[Stub]] = {}
        for stub in stubs:
            by_chain.setdefault(stub.chain, []).append(stub)
        found = pages(self.core, order)
        follower, name = Follower(by_chain.get("", ())), ("", "")
        while entries := (yield from found.next()):
            for entry in entries:
                if not self.log.log_single and (entry.tbl, entry.record) != name:
                    name = (entry.tbl, entry.record)
                    self.images.clear()
                    follower = Follower(by_chain.get(chain_name(entry), ()))
                self.faults += follower.follow(entry)
                self._look(entry, purged=bool(stubs))

    def _look(self, entry: Entry, *, purged: bool) -> None:
        """Look at what an entry says."""
        self.entries += 1
        if entry.action == "purge" and not entry.tbl and entry.new:
            self.purges[entry.seq] = load_json(entry.new)
        if not entry.tbl:
            return
        name = (entry.tbl, entry.record)
        known = name in self.images
        self.records += not known
        before = self.images.get(name)
        self.images[name] = entry.new
        if entry.action == "found":
            if known and before is not None and _changed(before, entry.new, self.log):
                text = f"entry {entry.seq}: a record of {entry.tbl} had changed while nothing watched it"
                self.notes.append(text)
            return
        if not known and purged:
            return  # what came before may have been purged
        if not known and entry.action == "insert":
            before = None
        elif not known:
            self._discontinuous(entry)
            return
        replaced = entry.action == "insert" and self.log.log_single  # REPLACE by a tool without recursive triggers
        if not replaced and not _same(entry.old, before, self.log):
            self._discontinuous(entry)

    def _discontinuous(self, entry: Entry) -> None:
        detail = "the entry begins with other values than the one before it ended with"
        self.faults.append(Fault("discontinuous", detail, entry.seq, entry.tbl, entry.record))

    def _check_stubs(self, stubs: list[Stub]) -> None:
        digests: dict[int, Digest] = {}
        for stub in stubs:
            digests.setdefault(stub.purge, Digest()).add(stub.seq, stub.hash)
        for purge, digest in digests.items():
            recorded = self.purges.get(purge)
            if recorded is None or (recorded.get("removed"), recorded.get("digest")) != (digest.count, digest.hex()):
                self.faults.append(
                    Fault("forged", "what is left of purged entries is not as the purge recorded", purge)
                )
        for seq, recorded in self.purges.items():
            if seq not in digests and recorded.get("removed"):
                self.faults.append(Fault("missing", "what the purge left of its entries is gone", seq))
            self.notes.append(
                f"entry {seq}: {recorded.get('removed')} entries were purged, up to {recorded.get('before')}"
            )

    # -- tables -----------------------------------------------------------------------------------------------------
    def _compare(self, model: "BoundModel") -> Program[None]:
        details = {
            "absent": "the log says that the record exists, and the table has none",
            "unknown": "the table has a record that the log does not know",
            "other": "the record has other values than its last entry says",
        }
        for record, what in (yield from self.log.log_differences(model.spec, masked(model))):
            self.faults.append(Fault("differs", details[what], None, model.spec.table, record))

    # -- checkpoints ------------------------------------------------------------------------------------------------
    def _checkpoints(self, given: list[Checkpoint]) -> Program[int]:
        kept = yield from stored_checkpoints()
        for place, found in enumerate(kept, 1):
            if found is None or found.number != place:
                self.faults.append(Fault("checkpoint", f"checkpoint {place} is missing, or cannot be read"))
                return 0
        wanted = list(dict.fromkeys([*(found for found in kept if found is not None), *given]))
        for one in given:
            if one.number > len(kept) or kept[one.number - 1] != one:
                detail = f"checkpoint {one.number}, which was kept elsewhere, is not the one the database holds"
                self.faults.append(Fault("checkpoint", detail))
        sums = yield from digests(self.core, {one.last for one in wanted})
        good = 0
        for one in wanted:
            count, digest = sums[one.last]
            if not one.genuine(self.key):
                self.faults.append(
                    Fault("checkpoint", f"the signature of checkpoint {one.number} is not that of the key")
                )
            elif (one.count, one.digest) != (count, digest):
                detail = f"the entries up to {one.last} are not those that checkpoint {one.number} covers"
                self.faults.append(Fault("checkpoint", detail, one.last))
            else:
                good += 1
        return good


def _same(one: str | None, other: str | None, log: ChangeLog) -> bool:
    """Tell whether two images hold the same values, whatever their marks."""
    if one is None or other is None:
        return one is other
    return one == other or _unmarked(one, log) == _unmarked(other, log)


def _changed(before: str, after: str | None, log: ChangeLog) -> bool:
    """Tell whether a record is gone, or differs in a column that both images have; others come and go with releases."""
    if after is None:
        return True
    one, other = _unmarked(before, log), _unmarked(after, log)
    return any(one[name] != other[name] for name in one.keys() & other.keys())


def _unmarked(image: str, log: ChangeLog) -> dict[str, Any]:
    try:
        return {name: value for name, value in log.log_read(image).items() if not name.startswith("$")}
    except _UNREADABLE:
        return {"": image}


_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError)


def stored_checkpoints() -> Program[list[Checkpoint | None]]:
    """Return the checkpoints that the database holds; None for one that cannot be read."""
    rows = yield Command("SELECT number, body FROM dataflow_audit_checkpoint ORDER BY number"), ()
    found: list[Checkpoint | None] = []
    for number, body in rows:
        try:
            one = Checkpoint(**load_json(body))
        except (ValueError, TypeError):
            found.append(None)
            continue
        found.append(one if one.number == number else None)
    return found


def digests(core: "Core", lasts: set[int]) -> Program[dict[int, tuple[int, str]]]:
    """Return, for each of some entries, how many there are up to it, and their digest; purged ones included."""
    stubs = iter((yield from _stubs(core)))
    stub = next(stubs, None)
    running, found, wanted = Digest(), dict.fromkeys(lasts, (0, "")), sorted(lasts, reverse=True)

    def add(seq: int, value: str | None) -> None:
        while wanted and wanted[-1] < seq:
            found[wanted.pop()] = running.count, running.hex()
        running.add(seq, value)

    source = pages(core, ("seq",))
    while wanted and (entries := (yield from source.next())):
        for entry in entries:
            while stub is not None and stub.seq < entry.seq:
                add(stub.seq, stub.hash)
                stub = next(stubs, None)
            add(entry.seq, entry.hash)
    while stub is not None:
        add(stub.seq, stub.hash)
        stub = next(stubs, None)
    found |= {last: (running.count, running.hex()) for last in wanted}
    return found


def take_checkpoint(core: "Core", key: str | None) -> Program[Checkpoint]:
    """Take a checkpoint of all that is committed, and store it."""
    log = change_log(core.dialect)
    yield from log.log_settled()
    yield from log.log_complete()
    rows = yield (
        Command(
            f"SELECT (SELECT max(seq) FROM {log.log_source}), (SELECT max(seq) FROM dataflow_audit_purged), "  # noqa: S608
            "(SELECT max(number) FROM dataflow_audit_checkpoint)"
        ),
        (),
    )
    last, purged, number = (value or 0 for value in rows[0])
    last = max(last, purged)
    found = yield from digests(core, {last})
    at = datetime.now(UTC).isoformat(timespec="microseconds")
    one = Checkpoint(number + 1, at, last, *found[last]).signed(key)
    first, second = (log.log_parameter(place, of) for place, of in ((1, t.IntType()), (2, t.StrType())))
    sql = f"INSERT INTO dataflow_audit_checkpoint (number, body) VALUES ({first}, {second})"  # noqa: S608
    yield Command(sql, COUNT, writes=True), (one.number, dump_json(one.to_dict()))
    return one


def purge(core: "Core", before: datetime, reason: str) -> Program[int]:
    """Remove entries from before an instant but the last of each record that exists; leave their hashes."""
    log = change_log(core.dialect)
    yield from log.log_settled()
    yield from log.log_complete()
    instant = t.DateTimeType()
    encode = core.dialect.encoder(instant)
    stored = before if encode is None else encode(before)
    its = log.log_source
    goes = (
        f"at < {log.log_parameter(1, instant)} AND action <> 'purge' AND NOT (new IS NOT NULL AND seq = ("  # noqa: S608
        f"SELECT max(l.seq) FROM dataflow_audit l WHERE l.tbl = {its}.tbl AND l.record = {its}.record))"
    )
    digest = Digest()
    source = pages(core, ("seq",), goes, [stored])
    last = 0
    while entries := (yield from source.next()):
        for entry in entries:
            digest.add(entry.seq, entry.hash)
        last = entries[-1].seq
    if not digest.count:
        return 0
    note = {"before": before.isoformat(), "digest": digest.hex(), "reason": reason, "removed": digest.count}
    yield from log.log_note("purge", "purge", dump_json(note))
    rows = yield Command(f"SELECT max(seq) FROM {log.log_source} WHERE action = 'purge'"), ()  # noqa: S608
    number = rows[0][0]
    places = [log.log_parameter(place, of) for place, of in ((1, instant), (2, t.IntType()), (3, t.IntType()))]
    sql = (
        f"INSERT INTO dataflow_audit_purged (seq, chain, n, hash, purge) "  # noqa: S608
        f"SELECT seq, {log.log_chain}, n, hash, p.purge FROM {log.log_source}, (SELECT {places[1]} AS purge) p "
        f"WHERE {goes} AND seq <= {places[2]}"
    )
    ordered = (number, stored, last) if places[0] == places[1] else (stored, number, last)
    yield Command(sql, COUNT, writes=True), ordered
    yield from log.log_purge(number)
    return digest.count
