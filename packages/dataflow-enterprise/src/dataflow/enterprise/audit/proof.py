"""Proof of the audit log: random programs of every way to write, replayed; random tamperings, all to be found.

``python -m dataflow.enterprise.audit.proof --database URL --programs 1000 --tamperings 1000``; the database is a fresh
one, or a fresh schema of one: the proof fills it, and then breaks into it.
"""

import argparse
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from dataflow import DataFlow
from dataflow.dialect import COUNT, Command, Program
from dataflow.enterprise.audit.chain import Checkpoint, Report
from dataflow.enterprise.audit.log import AuditLogSync
from dataflow.errors import DataFlowError
from dataflow.nodes import BaseDataFlowNode
from dataflow.runtime import LocalRuntime

WORDS = ("", "a", "ä", "O'Neil", 'quo"te', "line\nbreak", "tab\t\\", "***", "{}", "漢字", "x" * 300)
FLOATS = (0.0, 0.1, 1 / 3, -2.5, 1e22, 5e-324, 1.7976931348623157e308, 1.1308526572524318e294, 700.0)
MODELS = ("Ledger", "Tag", "Pair")


class Colour(Enum):
    """A choice."""

    RED = "red"
    BLUE = "blue"


class Fails(BaseDataFlowNode):
    """Fails, so that the transaction around it is undone."""

    def execute(self, input_data: dict[str, Any]) -> dict[str, Any]:
        """Fail."""
        del input_data
        raise RuntimeError("as was to be proved")


def register(db: DataFlow) -> None:
    """Register the models: one of all types, one with a text for a key, one with a key of two parts."""

    @db.model
    class Ledger:
        name: str
        size: int = 0
        rate: float | None = None
        price: Decimal | None = None
        flag: bool = False
        raw: bytes | None = None
        moment: datetime | None = None
        day: date | None = None
        clock: time | None = None
        token: UUID | None = None
        colour: Colour | None = None
        document: dict | None = None  # type: ignore[type-arg]
        words: list[str] | None = None
        numbers: list[float] | None = None
        __dataflow__ = {"audit_log": True, "timestamps": False}  # noqa: RUF012

    @db.model
    class Tag:
        code: str
        label: str
        weight: int = 1
        __dataflow__ = {"audit_log": True, "timestamps": False, "primary_key": ["code"]}  # noqa: RUF012
        __indexes__ = [{"name": "uq_tag_label", "fields": ["label"], "unique": True}]  # noqa: RUF012

    @db.model
    class Pair:
        left: int
        right: str
        value: int = 0
        __dataflow__ = {"audit_log": True, "timestamps": False, "primary_key": ["left", "right"]}  # noqa: RUF012

    del Ledger, Tag, Pair
    db.register_node(Fails)


class Programs:
    """Random programs: each step writes in a way of its own, and may fail.

    Args:
        db: with the models of `register`.
        seed: equal seeds make equal programs.
    """

    def __init__(self, db: DataFlow, seed: int) -> None:
        self.db = db
        self.call = db.express_sync
        self.random = random.Random(seed)  # noqa: S311  # a proof that can be repeated
        self.steps: tuple[Callable[[], Any], ...] = (
            self.create, self.update, self.update, self.upsert, self.delete, self.bulk_create, self.bulk_update,
            self.bulk_update_rows, self.bulk_delete, self.bulk_upsert, self.skip, self.sql, self.scope, self.commit_every,
        )  # fmt: skip

    def run(self, steps: int) -> int:
        """Take so many steps; return how many failed, which is part of the program."""
        failed = 0
        for _ in range(steps):
            actor = self.random.choice(("alice", "bob", None))
            step = self.random.choice(self.steps)
            try:
                if actor is None:
                    step()
                else:
                    with self.db.actor(actor):
                        step()
            except DataFlowError:
                failed += 1
        return failed

    # -- values -----------------------------------------------------------------------------------------------------
    def word(self) -> str:
        return self.random.choice(WORDS)

    def ledger(self) -> dict[str, Any]:
        """Return the values of a record, some left out."""
        r = self.random
        instant = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(microseconds=r.randrange(10**15))
        values = {
            "name": self.word(),
            "size": r.choice((0, 1, -7, 2**63 - 1, -(2**63), r.randrange(1000))),
            "rate": r.choice((*FLOATS, r.random() * 10 ** r.randrange(-300, 300))),
            "price": Decimal(r.randrange(-(10**12), 10**12)).scaleb(-r.randrange(12)),
            "flag": r.random() < 0.5,
            "raw": r.randbytes(r.randrange(9)),
            "moment": r.choice((instant, datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC))),
            "day": r.choice((instant.date(), date.max, date.min)),
            "clock": instant.time(),
            "token": UUID(int=r.getrandbits(128)),
            "colour": r.choice(tuple(Colour)),
            "document": {self.word(): [1, None, 2.5, {"k": self.word()}]},
            "words": [self.word() for _ in range(r.randrange(3))],
            "numbers": [r.choice(FLOATS) for _ in range(r.randrange(3))],
        }
        left_out = [name for name in values if name != "name" and r.random() < 0.4]
        return {name: value for name, value in values.items() if name not in left_out}

    def tag(self) -> dict[str, Any]:
        return {"code": f"t{self.random.randrange(12)}", "label": f"l{self.random.randrange(15)}", "weight": self.number()}

    def pair(self) -> dict[str, Any]:
        right = self.random.choice(("a", "b,1:x", "1:c", "ä"))
        return {"left": self.random.randrange(4), "right": right, "value": self.number()}

    def number(self) -> int:
        return self.random.randrange(100)

    def any_row(self) -> tuple[str, dict[str, Any]]:
        model = self.random.choice(MODELS)
        return model, {"Ledger": self.ledger, "Tag": self.tag, "Pair": self.pair}[model]()

    def key(self) -> int:
        """Return the key of a Ledger, most likely of one that exists."""
        found = self.call.list("Ledger", fields=["id"])["records"]
        return self.random.choice(found)["id"] if found else 1

    # -- steps ------------------------------------------------------------------------------------------------------
    def create(self) -> None:
        model, row = self.any_row()
        self.call.create(model, row)

    def update(self) -> None:
        changes: dict[str, Any] = self.random.choice((
            self.ledger(), {"size": {"$inc": 1}}, {"name": "same"}, {"rate": 1.5}, {"words": {"$append": "w"}},
            {"price": {"$multiply": Decimal("1.1")}},
        ))  # fmt: skip
        self.call.update("Ledger", self.key(), changes)

    def upsert(self) -> None:
        row = self.tag()
        code = row.pop("code")
        self.call.upsert("Tag", {"code": code}, row, {"weight": {"$inc": 1}})

    def delete(self) -> None:
        self.call.delete("Ledger", self.key())

    def bulk_create(self) -> None:
        size = self.random.choice((1, 3, 20, 600))
        self.call.bulk_create("Ledger", [self.ledger() for _ in range(size)])
        if size > 100:
            self.call.bulk_delete("Ledger", filter={"id": {"$gt": self.key() + 5}})

    def bulk_update(self) -> None:
        self.call.bulk_update("Ledger", filter={"size": {"$lt": 500}}, update={"size": {"$inc": 3}, "flag": True})

    def bulk_update_rows(self) -> None:
        keys = {self.key() for _ in range(5)}
        self.call.bulk_update("Ledger", data=[{"id": key, "name": self.word()} for key in sorted(keys)])

    def bulk_delete(self) -> None:
        if self.random.random() < 0.5:
            self.call.bulk_delete("Ledger", ids=sorted({self.key(), self.key()}))
        else:
            self.call.bulk_delete("Pair", filter={"value": {"$lt": 20}})

    def bulk_upsert(self) -> None:
        model, rows = self.random.choice((("Tag", self.tag), ("Pair", self.pair)))
        self.call.bulk_upsert(model, [rows() for _ in range(6)], on_duplicate="last")

    def skip(self) -> None:
        rows = [self.tag() for _ in range(5)]
        rows += [{"code": "t1", "label": "l1", "weight": 1}] * 2
        how = self.random.choice(({"on_error": "skip"}, {"conflict_resolution": "skip"}))
        self.call.bulk_create("Tag", rows, **how)

    def commit_every(self) -> None:
        rows = [{"left": 50 + self.number(), "right": "e"} for _ in range(9)]
        self.call.bulk_create("Pair", rows, commit_every=4)

    def sql(self) -> None:
        """Send SQL of the user's own."""
        text = self.random.choice((
            "UPDATE ledgers SET size = 7 WHERE flag", "DELETE FROM pairs WHERE value > 90",
            "INSERT INTO pairs (\"left\", \"right\", value) SELECT id + 1000, name, 1 FROM ledgers WHERE size = 7",
            "UPDATE tags SET code = code || 'x', weight = 0 WHERE weight > 80", "DELETE FROM tags WHERE length(code) > 4",
            "UPDATE pairs SET \"left\" = \"left\" + 500 WHERE \"left\" < 3",
        ))  # fmt: skip
        builder = self.db.workflow().add_node("AsyncSQLDatabaseNode", "sql", {"query": text})
        self._execute(builder)

    def scope(self) -> None:
        """Write in one transaction, which fails now and then."""
        builder = self.db.workflow().add_node("TransactionScopeNode", "scope")
        builder.add_node("LedgerCreateNode", "create", self.ledger())
        builder.add_node("PairBulkUpdateNode", "change", {"filter": {"value": {"$gt": 50}}, "update": {"value": 1}})
        if self.random.random() < 0.5:
            builder.add_node("Fails", "fails")
        self._execute(builder)

    @staticmethod
    def _execute(builder: Any) -> None:
        LocalRuntime().execute(builder.build())


def table(db: DataFlow, model: str) -> list[dict[str, Any]]:
    """Return the rows of a table as the driver gives them, past all decoding."""
    spec = db.get_spec(model)
    quote = db.core.dialect.quote
    names = [*spec.fields, *(column.name for column in spec.hidden)]

    def read() -> Program[list[Any]]:
        columns = ", ".join(map(quote, names))
        return (yield Command(f"SELECT {columns} FROM {quote(spec.table)}"), ())  # noqa: S608

    rows = [dict(zip(names, row, strict=True)) for row in db.core.ask(read())]
    return sorted(rows, key=lambda row: [row[name] for name in spec.primary_key])


def differences(db: DataFlow) -> list[str]:
    """Return what is wrong with the log of the models of `register`; empty if it rebuilds the tables exactly."""
    log = AuditLogSync(db)
    report = log.verify()
    found = [repr(fault) for fault in report.faults]
    for model in MODELS:
        there, rebuilt = table(db, model), log.stored(model)
        if list(map(repr, there)) != list(map(repr, rebuilt)):
            found.append(f"{model}: the log rebuilds other rows than the table has")
    return found


# -- tampering --------------------------------------------------------------------------------------------------------
class Intruder:
    """Somebody with all rights, who takes the guards away, changes the log, and puts them back.

    Args:
        db: the DataFlow whose log it is.
        seed: equal seeds make equal changes.
    """

    def __init__(self, db: DataFlow, seed: int) -> None:
        self.db = db
        self.random = random.Random(seed)  # noqa: S311  # a proof that can be repeated
        self.sqlite = db.core.dialect.name == "sqlite"
        self.sealed = ("tenant", "actor", "run", "node", "hash")

    def ask(self, sql: str, *values: Any) -> Any:
        """Send one statement."""

        def program() -> Program[Any]:
            return (yield Command(sql), values)

        return self.db.core.ask(program(), write=True)

    def do(self, *statements: str) -> None:
        """Send statements."""

        def program() -> Program[None]:
            for sql in statements:
                yield Command(sql, COUNT, writes=True), ()

        self.db.core.ask(program(), write=True)

    def break_in(self) -> Iterator[None]:
        """Take the guards away; put them back at the end."""
        if not self.sqlite:
            tables = ("dataflow_audit", "dataflow_audit_checkpoint", "dataflow_audit_purged")
            self.do(*(f"ALTER TABLE {name} DISABLE TRIGGER USER" for name in tables))
            yield
            self.do(*(f"ALTER TABLE {name} ENABLE TRIGGER USER" for name in tables))
            return
        rows = self.ask(
            "SELECT name, sql FROM main.sqlite_master WHERE type = 'trigger' AND tbl_name LIKE 'dataflow_audit%'"
        )
        self.do(*(f"DROP TRIGGER {name}" for name, _ in rows), "DROP TRIGGER IF EXISTS temp.dataflow_audit_sealing")
        yield
        self.do(*(sql for _, sql in rows))

    def tamper(self) -> str:
        """Change one thing; return what."""
        ways = [
            self.edit, self.edit, self.edit, self.remove, self.remove, self.swap, self.renumber, self.forge,
            self.truncate, self.edit_checkpoint,
        ]  # fmt: skip
        within = self.break_in()
        next(within)
        try:
            return self.random.choice(ways)()
        finally:
            next(within, None)

    def _some(self) -> int:
        rows = self.ask("SELECT seq FROM dataflow_audit ORDER BY seq")
        return int(self.random.choice(rows)[0])

    def edit(self) -> str:
        """Change one column of one entry, or of its seal."""
        seq = self._some()
        columns = ["at", "tbl", "record", "tenant", "actor", "run", "node", "action", "old", "new", "hash"]
        name = self.random.choice(columns if self.sqlite else [*columns, "n"])
        source = "dataflow_audit_seal" if self.sqlite and name in self.sealed else "dataflow_audit"
        if self.sqlite and name == "tenant" and self.random.random() < 0.5:
            source = "dataflow_audit"
        changed = {
            "at": f"strftime('%Y-%m-%dT%H:%M:%f', at, '+1 second')" if self.sqlite else "at + interval '1 microsecond'",
            "n": "n + 100000",
            "action": "CASE action WHEN 'insert' THEN 'update' ELSE 'insert' END",
        }.get(name, f"CASE WHEN {name} IS NULL THEN 'x' ELSE {name} || ' ' END")
        if name in ("tenant", "run", "node", "old", "new") and self.random.random() < 0.3:
            changed = f"CASE WHEN {name} IS NULL THEN '' ELSE NULL END"
        self.do(f"UPDATE {source} SET {name} = {changed} WHERE seq = {seq}")  # noqa: S608
        return f"{source}.{name} of {seq} was edited"

    def remove(self) -> str:
        """Remove one entry, with its seal or without, or a seal alone."""
        seq = self._some()
        tables = self.random.choice((("dataflow_audit",), ("dataflow_audit_seal",), ("dataflow_audit", "dataflow_audit_seal")))
        tables = tables if self.sqlite else ("dataflow_audit",)
        self.do(*(f"DELETE FROM {name} WHERE seq = {seq}" for name in tables))  # noqa: S608
        return f"entry {seq} was removed from {', '.join(tables)}"

    def swap(self) -> str:
        """Exchange what two entries say."""
        one, other = self._some(), self._some()
        name = self.random.choice(("new", "action", "record", "at"))
        rows = self.ask(f"SELECT CAST({name} AS text) FROM dataflow_audit WHERE seq IN ({one}, {other})")  # noqa: S608
        if len(rows) < 2 or rows[0] == rows[1]:
            return self.remove()
        self.do(
            f"UPDATE dataflow_audit SET {name} = (SELECT o.{name} FROM dataflow_audit o WHERE o.seq = "  # noqa: S608
            f"CASE dataflow_audit.seq WHEN {one} THEN {other} ELSE {one} END) WHERE seq IN ({one}, {other})"
        )
        rows = self.ask(f"SELECT CAST({name} AS text) FROM dataflow_audit WHERE seq IN ({one}, {other})")  # noqa: S608
        if rows[0] == rows[1]:  # the second saw the first changed already
            return f"{name} of {one} was copied over that of {other}, or the other way round"
        return f"{name} of {one} and {other} was exchanged"

    def renumber(self) -> str:
        """Exchange the places of two entries."""
        one, other = sorted((self._some(), self._some()))
        if one == other:
            return self.remove()
        steps = ((one, -1), (other, one), (-1, other))
        tables = ("dataflow_audit", "dataflow_audit_seal") if self.sqlite else ("dataflow_audit",)
        self.do(*(f"UPDATE {name} SET seq = {to} WHERE seq = {seq}" for name in tables for seq, to in steps))  # noqa: S608
        return f"{one} and {other} changed places"

    def forge(self) -> str:
        """Add an entry that copies another's words."""
        seq = self._some()
        if self.sqlite:
            self.do(
                "INSERT INTO dataflow_audit (tbl, record, action, old, new) SELECT tbl, record || '9', 'update', old, new "  # noqa: S608
                f"FROM dataflow_audit WHERE seq = {seq}"
            )
            if self.random.random() < 0.5:
                self.do(
                    "INSERT INTO dataflow_audit_seal (seq, actor, hash) SELECT max(seq), 'alice', "
                    "(SELECT hash FROM dataflow_audit_seal ORDER BY seq DESC LIMIT 1) FROM dataflow_audit"
                )
        else:
            self.do(
                "INSERT INTO dataflow_audit (at, tbl, record, actor, action, old, new, n, hash) SELECT at, tbl, record, "  # noqa: S608
                f"'alice', 'update', old, new, n + 1000, hash FROM dataflow_audit WHERE seq = {seq}"
            )
        return f"an entry like {seq} was forged"

    def truncate(self) -> str:
        """Remove the last entries."""
        count = self.random.randrange(1, 6)
        seqs = [row[0] for row in self.ask("SELECT seq FROM dataflow_audit ORDER BY seq DESC")][:count]
        tables = ("dataflow_audit", "dataflow_audit_seal") if self.sqlite else ("dataflow_audit",)
        self.do(*(f"DELETE FROM {name} WHERE seq IN ({', '.join(map(str, seqs))})" for name in tables))  # noqa: S608
        return f"the last {count} entries were removed"

    def edit_checkpoint(self) -> str:
        """Change a checkpoint."""
        self.do("UPDATE dataflow_audit_checkpoint SET body = replace(body, '\"count\":', '\"count\":1')")
        return "the checkpoints were edited"


def snapshot(db: DataFlow) -> Mapping[str, list[Any]]:
    """Return all tables of the log, to be put back after a tampering."""
    tables = ["dataflow_audit", "dataflow_audit_checkpoint", "dataflow_audit_purged"]
    tables += ["dataflow_audit_seal", "sqlite_sequence"] if db.core.dialect.name == "sqlite" else []
    intruder = Intruder(db, 0)
    return {name: intruder.ask(f"SELECT * FROM {name}") for name in tables}  # noqa: S608


def restore(db: DataFlow, saved: Mapping[str, list[Any]]) -> None:
    """Put all tables of the log back."""
    intruder = Intruder(db, 0)
    within = intruder.break_in()
    next(within)
    placeholder = db.core.dialect.placeholder
    for name in (*(name for name in saved if name != "sqlite_sequence"), *(n for n in saved if n == "sqlite_sequence")):
        rows = [tuple(row) for row in saved[name]]

        def fill(name: str = name, rows: list[Any] = rows) -> Program[None]:
            yield Command(f"DELETE FROM {name}", COUNT, writes=True), ()  # noqa: S608
            for row in rows:
                places = ", ".join(placeholder(place) for place in range(1, len(row) + 1))
                yield Command(f"INSERT INTO {name} VALUES ({places})", COUNT, writes=True), row  # noqa: S608

        db.core.ask(fill(), write=True)
    next(within, None)


def undetected(db: DataFlow, checkpoint: Checkpoint, tamperings: int, seed: int) -> list[str]:
    """Tamper so often, each time with the log as it was; return what `verify` did not find."""
    log = AuditLogSync(db)
    saved = snapshot(db)
    missed = []
    for number in range(tamperings):
        what = Intruder(db, seed + number).tamper()
        report: Report = log.verify(checkpoint=checkpoint)
        if report.ok:
            missed.append(what)
        restore(db, saved)
    return missed


def main() -> int:
    """Prove, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", default=":memory:", help="URL of a fresh database")
    parser.add_argument("--schema", help="a fresh schema (PostgreSQL)")
    parser.add_argument("--programs", type=int, default=100)
    parser.add_argument("--steps", type=int, default=20, help="steps of a program")
    parser.add_argument("--tamperings", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    settings = {"postgres_schema": asked.schema} if asked.schema else {}
    with DataFlow(asked.database, audit_key="proof", **settings) as db:
        register(db)
        failed = 0
        for number in range(asked.programs):
            failed += Programs(db, asked.seed + number).run(asked.steps)
            if number % 10 == 9 or number == asked.programs - 1:
                found = differences(db)
                if found:
                    sys.stdout.write(f"program {asked.seed + number}: {found[:5]}\n")
                    return 1
                db.express_sync.bulk_delete("Ledger", filter={}, confirmed=True)
        sys.stdout.write(f"{asked.programs} programs of {asked.steps} steps ({failed} failed): the log rebuilds the tables\n")
        if not asked.tamperings:
            return 0
        checkpoint = AuditLogSync(db).seal()
        Programs(db, asked.seed - 1).run(5)
        missed = undetected(db, checkpoint, asked.tamperings, asked.seed)
        sys.stdout.write(f"{asked.tamperings - len(missed)} of {asked.tamperings} tamperings were found\n")
        for what in missed[:20]:
            sys.stdout.write(f"  not found: {what}\n")
        return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
