"""Savepoints for a database without them, and whose transaction is spoiled by the first error.

Rolling back to a savepoint rolls back everything, and does again what was written before it. Nobody else writes
meanwhile (`dataflow_duckdb.database` has one writer per file), and sequences are set back, so that the same statements
have the same effects; every reply is compared with the one that was seen, to be sure.
"""

import re
from collections.abc import Sequence
from typing import Any

import attrs

from dataflow.blocking import BlockingSession
from dataflow.dialect import Command
from dataflow.errors import DataFlowError, QueryError, SerializationError

MOST_VALUES = 10_000_000
"""Arguments that are kept to be sent again; a transaction with more cannot take back a part of itself."""
_NUMBERING = re.compile(r"\b(insert|merge|nextval|setval)\b", re.IGNORECASE)
_SEQUENCES = (
    "SELECT sequence_name, coalesce(last_value, 0) FROM duckdb_sequences() WHERE schema_name = current_schema()"
)
_SET = """\
SELECT setval('"' || replace($1, '"', '""') || '"', $2::BIGINT) FROM duckdb_sequences()
WHERE sequence_name = $1 AND schema_name = current_schema() AND coalesce(last_value, 0) <> $2::BIGINT"""


@attrs.define
class _Journal:
    """What an open transaction has written.

    Attributes:
        begin: the command that opened it.
        counters: sequence -> its last value, before the first statement that may take one; None until then.
        entries: (command, arguments, reply), in order.
        marks: (name of a savepoint, entries before it).
        values: how many arguments the entries have.
        spoiled: whether a statement failed, after which DuckDB accepts nothing but ROLLBACK.
        stale: whether something was taken back, and what is left has to be done again before anything else.
        over: whether it was rolled back because that failed.
    """

    begin: Command
    counters: dict[str, int] | None = None
    entries: list[tuple[Command, Sequence[Any], Any]] = attrs.field(factory=list)
    marks: list[tuple[str, int]] = attrs.field(factory=list)
    values: int = 0
    spoiled: bool = False
    stale: bool = False
    over: bool = False

    def note(self, command: Command, arguments: Sequence[Any], reply: Any) -> None:
        """Keep a statement that wrote something."""
        if command.writes:
            self.values += sum(len(value) if isinstance(value, list) else 1 for value in arguments)
            self.entries.append((command, arguments, reply))
            if self.values > MOST_VALUES:
                self.entries.clear()

    def drop(self, name: str) -> None:
        """Forget a savepoint, and those set after it."""
        place = next(place for place in reversed(range(len(self.marks))) if self.marks[place][0] == name)
        del self.marks[place:]

    def before(self, name: str) -> int:
        """Return how many entries came before a savepoint."""
        return next(count for mark, count in reversed(self.marks) if mark == name)


class DuckDBSession(BlockingSession):
    """A leased connection with savepoints of our own."""

    _journal: _Journal | None = None

    def send(self, raw: Any, command: Command, arguments: Sequence[Any]) -> Any:
        """Send a command; those about transactions and savepoints are told apart by their first words."""
        if not command.named:  # of SQL of the user's own, the framework lets none of these through
            verb, _, rest = command.sql.partition(" ")
            if verb in ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE"):
                return self._boundary(raw, command, verb, rest)
        journal = self._journal
        if journal is None:
            return super().send(raw, command, arguments)
        if journal.over:
            msg = "the database rolled the transaction back after an earlier error"
            raise QueryError(msg, hint="let that error end the transaction, then run it again", code="rolled-back")
        self._settle(raw, journal)
        if journal.counters is None and command.writes and _NUMBERING.search(command.sql):
            journal.counters = dict(raw.execute(_SEQUENCES).fetchall())
        try:
            reply = super().send(raw, command, arguments)
        except self.database.faults:
            journal.spoiled = True
            raise
        journal.note(command, arguments, reply)
        return reply

    def undo(self, raw: Any) -> None:
        """Roll back what is open."""
        if self._journal is not None:
            self.database.rollback(raw)
            self._journal = None

    def _boundary(self, raw: Any, command: Command, verb: str, rest: str) -> Any:
        journal = self._journal
        if verb == "BEGIN":
            super().send(raw, command, ())
            self._journal = _Journal(command)
        elif journal is None:
            return super().send(raw, command, ())
        elif verb == "SAVEPOINT":
            journal.marks.append((rest, len(journal.entries)))
        elif verb == "RELEASE":
            journal.drop(rest.removeprefix("SAVEPOINT "))
        elif rest:
            self._back(journal, rest.removeprefix("TO SAVEPOINT "))
        else:
            if verb == "COMMIT":
                self._settle(raw, journal)
            self._journal = None
            return 0 if journal.over else super().send(raw, command, ())
        return 0

    @staticmethod
    def _back(journal: _Journal, name: str) -> None:
        kept = journal.before(name)
        if journal.spoiled or len(journal.entries) > kept:
            journal.stale = True
            del journal.entries[kept:]

    def _settle(self, raw: Any, journal: _Journal) -> None:
        """Do again what is left of the transaction, if anything was taken back; not before it is needed."""
        if not journal.stale or journal.over:
            return
        self.database.rollback(raw)
        try:
            self._again(raw, journal, journal.entries)
        except BaseException:
            self.database.rollback(raw)
            journal.over = True
            raise
        journal.spoiled = journal.stale = False

    def _again(self, raw: Any, journal: _Journal, entries: Sequence[tuple[Command, Sequence[Any], Any]]) -> None:
        if journal.values > MOST_VALUES:
            msg = "the transaction is too large to take back only a part of it; all of it was rolled back"
            raise QueryError(msg, hint="write in smaller transactions (commit_every=…)", code="rolled-back")
        raw.execute(journal.begin.sql)
        # what was never used is at 0, which the sequences of ours take
        for sequence, value in (journal.counters or {}).items():
            raw.execute(_SET, (sequence, value))
        for command, arguments, reply in entries:
            if self._differs(raw, command, arguments, reply):
                msg = "a part of the transaction could not be taken back: the rest did not come out the same"
                raise SerializationError(msg, hint="run it again; leave random() and now() out of its SQL")

    def _differs(self, raw: Any, command: Command, arguments: Sequence[Any], reply: Any) -> bool:
        try:
            return bool(super().send(raw, command, arguments) != reply)
        except (DataFlowError, *self.database.faults):  # type: ignore[misc]  # a tuple of classes
            return True
