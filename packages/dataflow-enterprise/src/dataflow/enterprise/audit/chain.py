"""Hash chains and checkpoints: what they are made of, and how one is followed. Knows no database.

The rule is written here once more than in the dialects, on purpose: what verifies is not what wrote.
"""

import hashlib
import hmac
from collections.abc import Sequence
from typing import Any, NamedTuple

import attrs

from dataflow.jsontext import dump_json


class Entry(NamedTuple):
    """An entry of the log, as it is stored; `at` as text."""

    seq: int
    at: str
    tbl: str
    record: str
    tenant: str | None
    actor: str
    run: str | None
    node: str | None
    action: str
    old: str | None
    new: str | None
    n: int
    hash: str | None


class Stub(NamedTuple):
    """What is left of a purged entry."""

    seq: int
    chain: str
    n: int
    hash: str
    purge: int


@attrs.frozen
class Fault:
    """Something the log should not show.

    Attributes:
        kind: "tampered" (an entry is not what was written), "missing" (entries are gone), "reordered", "forged" (an
            entry, seal or stub that nothing wrote), "discontinuous" (an entry begins with other values than the one
            before it ended with), "differs" (a record is not as its last entry says), "checkpoint" (a checkpoint does
            not fit the log, or is not genuine).
        detail: a sentence, without values of records.
        seq: the entry, or None.
        table: the record's table, or "".
        record: the record's key as text, or "".
    """

    kind: str
    detail: str
    seq: int | None = None
    table: str = ""
    record: str = ""


@attrs.frozen
class Report:
    """What `verify` found.

    Attributes:
        entries: how many were looked at.
        records: how many records they are about.
        faults: what is wrong.
        notes: what is right, and still worth knowing: values found when watching began anew, purges.
        compared: tables that were compared with the log.
        checkpoints: how many fitted.
    """

    entries: int
    records: int
    faults: tuple[Fault, ...]
    notes: tuple[str, ...]
    compared: tuple[str, ...]
    checkpoints: int

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


@attrs.frozen
class Checkpoint:
    """The state of the log at one moment: keep it where nobody who can write to the database can.

    Attributes:
        number: from 1.
        at: when it was taken, ISO 8601.
        last: the last entry that it covers.
        count: how many it covers, purged ones included.
        digest: SHA-256 over the hashes of all of them.
        mac: HMAC of the others with the setting `audit_key`; "" without one.
    """

    number: int
    at: str
    last: int
    count: int
    digest: str
    mac: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        return attrs.asdict(self)

    def signed(self, key: str | None) -> "Checkpoint":
        """Return it with its signature."""
        return attrs.evolve(self, mac=self.signature(key) if key else "")

    def signature(self, key: str) -> str:
        """Return what `mac` is to be."""
        body = dump_json({name: value for name, value in self.to_dict().items() if name != "mac"})
        return hmac.new(key.encode(), body.encode(), hashlib.sha256).hexdigest()

    def genuine(self, key: str | None) -> bool:
        """Tell whether the signature is that of the key; without a key, all are."""
        return key is None or hmac.compare_digest(self.mac, self.signature(key))


class Digest:
    """The digest of a checkpoint, entry by entry."""

    def __init__(self) -> None:
        self.count = 0
        self._sum = hashlib.sha256()

    def add(self, seq: int, value: str | None) -> None:
        """Add the hash of an entry; they come in the order of their numbers."""
        self.count += 1
        self._sum.update(f"{seq}:{value}\n".encode())

    def hex(self) -> str:
        """Return what was added up to now."""
        return self._sum.hexdigest()


def hash_of(prev: str, entry: Entry) -> str:
    """Hash an entry: SHA-256 of the lengths of all columns, then their texts; NULL has no length."""
    columns = (
        prev, entry.seq, entry.at, entry.tbl, entry.record, entry.tenant, entry.actor, entry.run, entry.node,
        entry.action, entry.old, entry.new,
    )  # fmt: skip
    texts = [None if column is None else str(column) for column in columns]
    lengths = ":".join("" if text is None else str(len(text)) for text in texts)
    return hashlib.sha256(f"{lengths}|{''.join(text or '' for text in texts)}".encode()).hexdigest()


def chain_name(entry: Entry) -> str:
    """Return what stubs call the chain of a record."""
    return hashlib.sha256(f"{len(entry.tbl)}:{entry.tbl}{entry.record}".encode()).hexdigest()


class Follower:
    """Follows one chain, entry by entry, over the stubs of purged ones.

    A chain that was purged to its end begins anew with the record's next entry.

    Args:
        stubs: of the chain, in the order of their numbers.
    """

    def __init__(self, stubs: Sequence[Stub]) -> None:
        self._all = stubs
        self._stubs: dict[int, Stub] = {}
        self._next = 1
        self._prev: str | None = ""
        self._seq = 0
        self._begun = False

    def follow(self, entry: Entry) -> list[Fault]:
        """Return the faults of the next entry."""
        if not self._begun:
            self._begun = True
            self._stubs = {stub.n: stub for stub in _current(self._all, entry)}

        def fault(kind: str, detail: str) -> Fault:
            return Fault(kind, detail, entry.seq, entry.tbl, entry.record)

        if entry.n < self._next:
            return [fault("reordered", f"place {entry.n} of the chain is taken twice")]
        faults = []
        if entry.n in self._stubs:
            faults.append(fault("forged", "the entry was purged, and is there"))
        gap = self._skip_to(entry.n)
        if gap:
            faults.append(fault("missing", f"the chain lacks {gap}"))
        if entry.seq <= self._seq:
            faults.append(fault("reordered", "the entry is older than the one before it in the chain"))
        if entry.hash is None:
            faults.append(fault("missing", "the entry has no seal"))
        elif self._prev is not None and hash_of(self._prev, entry) != entry.hash:
            faults.append(fault("tampered", "the entry does not have the hash it was written with"))
        self._next, self._prev, self._seq = entry.n + 1, entry.hash, entry.seq
        return faults

    def _skip_to(self, place: int) -> str:
        """Go over stubs to a place in the chain; return what lacks between."""
        while self._next < place and self._next in self._stubs:
            stub = self._stubs[self._next]
            self._next, self._prev, self._seq = stub.n + 1, stub.hash, stub.seq
        if self._next == place:
            return ""
        gap = f"{self._next}" if self._next == place - 1 else f"{self._next} to {place - 1}"
        last = self._stubs.get(place - 1)
        self._next, self._prev = place, None if last is None else last.hash
        return gap


def _current(stubs: Sequence[Stub], first: Entry) -> list[Stub]:
    """Return the stubs of the chain that goes on to an entry, without those of chains that ended before it."""
    if first.n == 1:
        return [stub for stub in stubs if stub.seq > first.seq]
    begins = [stub.seq for stub in stubs if stub.n == 1 and stub.seq < first.seq]
    return [stub for stub in stubs if not begins or stub.seq >= begins[-1]]
