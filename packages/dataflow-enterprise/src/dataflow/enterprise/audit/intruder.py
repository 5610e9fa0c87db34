"""Somebody with all rights: takes the guards of the log away, changes something, and puts them back. For the proof."""

import random
from collections.abc import Iterator, Mapping
from typing import Any

from dataflow import DataFlow
from dataflow.dialect import COUNT, Command, Program
from dataflow.enterprise.audit.chain import Checkpoint, Report
from dataflow.enterprise.audit.log import AuditLogSync


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
            "at": "strftime('%Y-%m-%dT%H:%M:%f', at, '+1 second')" if self.sqlite else "at + interval '1 microsecond'",
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
        tables = self.random.choice(
            (("dataflow_audit",), ("dataflow_audit_seal",), ("dataflow_audit", "dataflow_audit_seal"))
        )
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
                "INSERT INTO dataflow_audit (tbl, record, action, old, new) "  # noqa: S608
                f"SELECT tbl, record || '9', 'update', old, new FROM dataflow_audit WHERE seq = {seq}"
            )
            if self.random.random() < 0.5:
                self.do(
                    "INSERT INTO dataflow_audit_seal (seq, actor, hash) SELECT max(seq), 'alice', "
                    "(SELECT hash FROM dataflow_audit_seal ORDER BY seq DESC LIMIT 1) FROM dataflow_audit"
                )
        else:
            self.do(
                "INSERT INTO dataflow_audit (at, tbl, record, actor, action, old, new, n, hash) "  # noqa: S608
                "SELECT at, tbl, record, 'alice', 'update', old, new, n + 1000, hash FROM dataflow_audit "
                f"WHERE seq = {seq}"
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
    if db.core.dialect.name != "sqlite":
        Intruder(db, seed).do("DROP INDEX IF EXISTS uq_dataflow_audit_record")  # it would refuse some
    missed = []
    for number in range(tamperings):
        what = Intruder(db, seed + number).tamper()
        report: Report = log.verify(checkpoint=checkpoint)
        if report.ok:
            missed.append(what)
        restore(db, saved)
    return missed
