"""Proof of the audit log: random programs of every way to write, replayed; random tamperings, all to be found.

``python -m dataflow.enterprise.audit.proof --database URL --programs 1000 --tamperings 1000``; the database is a fresh
one, or a fresh schema of one: the proof fills it, and then breaks into it.
"""

import argparse
import random
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from dataflow import DataFlow
from dataflow.dialect import Command, Program
from dataflow.enterprise.audit.intruder import undetected
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

    def execute(self, input_data: Mapping[str, Any]) -> dict[str, Any]:
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
            self.bulk_update_rows, self.bulk_delete, self.bulk_upsert, self.skip, self.sql, self.scope,
            self.commit_every,
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
        return {
            "code": f"t{self.random.randrange(12)}",
            "label": f"l{self.random.randrange(15)}",
            "weight": self.number(),
        }

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
            'INSERT INTO pairs ("left", "right", value) SELECT id + 1000, name, 1 FROM ledgers WHERE size = 7',
            "UPDATE tags SET code = code || 'x', weight = 0 WHERE weight > 80",
            "DELETE FROM tags WHERE length(code) > 4",
            'UPDATE pairs SET "left" = "left" + 500 WHERE "left" < 3',
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
        found: list[Any] = yield Command(f"SELECT {columns} FROM {quote(spec.table)}"), ()  # noqa: S608
        return found

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


def prove_programs(db: DataFlow, programs: int, steps: int, seed: int) -> str:
    """Run programs and compare after every few; return what is wrong, or ""."""
    register(db)
    for number in range(programs):
        Programs(db, seed + number).run(steps)
        if number % 10 == 9 or number == programs - 1:
            found = differences(db)
            if found:
                return f"program {seed + number}: {found[:5]}"
            db.express_sync.bulk_delete("Ledger", filter={}, confirmed=True)
    return ""


def prove_tamperings(db: DataFlow, tamperings: int, seed: int) -> list[str]:
    """Make a log of some hundred entries, half of them under a checkpoint, and tamper; return what was not found."""
    register(db)
    call = db.express_sync

    def work(first: int) -> None:
        with db.actor("alice"):
            keys = call.bulk_create("Ledger", [{"name": f"n{n}"} for n in range(first, first + 12)], return_ids=True)[
                "ids"
            ]
            call.bulk_update("Ledger", filter={"id": {"$in": keys}}, update={"size": {"$inc": 1}})
        call.bulk_delete("Ledger", ids=keys[:4])
        for key in keys[4:8]:
            call.update("Ledger", key, {"flag": True, "rate": 0.1})
        call.bulk_upsert("Pair", [{"left": first + n % 3, "right": "x", "value": n} for n in range(3)])

    work(0)
    checkpoint = AuditLogSync(db).seal()
    work(100)
    return undetected(db, checkpoint, tamperings, seed)


def main() -> int:
    """Prove, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", default=":memory:", help="URL of a fresh database")
    parser.add_argument("--schema", help="a fresh schema (PostgreSQL; proof by default)")
    parser.add_argument("--programs", type=int, default=100)
    parser.add_argument("--steps", type=int, default=20, help="steps of a program")
    parser.add_argument("--tamperings", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if asked.schema is None and asked.database.startswith("postgres"):
        asked.schema = "proof"  # and "proof_broken"
    settings = {"postgres_schema": asked.schema} if asked.schema else {}
    if asked.programs:
        with DataFlow(asked.database, **settings) as db:
            wrong = prove_programs(db, asked.programs, asked.steps, asked.seed)
        if wrong:
            sys.stdout.write(f"{wrong}\n")
            return 1
        sys.stdout.write(f"{asked.programs} programs of {asked.steps} steps: the log rebuilds the tables\n")
    if not asked.tamperings:
        return 0
    if asked.schema:
        settings["postgres_schema"] = f"{asked.schema}_broken"
    url = asked.database if asked.schema or asked.database == ":memory:" else f"{asked.database}.broken"
    with DataFlow(url, audit_key="proof", **settings) as db:
        missed = prove_tamperings(db, asked.tamperings, asked.seed)
    sys.stdout.write(f"{asked.tamperings - len(missed)} of {asked.tamperings} tamperings were found\n")
    for what in missed[:20]:
        sys.stdout.write(f"  not found: {what}\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
