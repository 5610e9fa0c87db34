"""Carries a plan out as always, and looks at each step whether PostgreSQL does more than the step has announced."""

from typing import Any

from dataflow.changes import Step
from dataflow.dialect import Command, Program
from dataflow.migrations.execution import Execution

LOCKS = (
    "ACCESS SHARE", "ROW SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "SHARE", "SHARE ROW EXCLUSIVE",
    "EXCLUSIVE", "ACCESS EXCLUSIVE",
)  # fmt: skip
_MODES = {mode.title().replace(" ", "") + "Lock": mode for mode in LOCKS}
_RELATIONS = Command(
    r"""SELECT oid::int8, its.relname::text, relfilenode::int8, relkind::text,
           coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)
    FROM pg_class AS its LEFT JOIN pg_stat_xact_user_tables ON relid = oid
    WHERE relnamespace = to_regnamespace(current_schema()) AND relkind IN ('r', 'm', 'v')
          AND its.relname NOT LIKE 'dataflow\_%'"""
)
_HELD = Command(
    """SELECT relation::int8, mode FROM pg_locks
    WHERE pid = pg_backend_pid() AND locktype = 'relation' AND granted AND database <> 0"""
)


class Watched(Execution):
    """An execution that measures locks, rewrites and scans of every step in a transaction.

    Attributes:
        measured: how many steps were.
        excesses: what steps did that they had not announced.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.measured = 0
        self.excesses: list[str] = []

    def made(self, step: Step) -> Program[None]:
        before = {row[0]: row[1:] for row in (yield _RELATIONS, ())}
        held = {*map(tuple, (yield _HELD, ()))}
        yield from super().made(step)
        locks: dict[str, str] = {}
        for oid, mode in {*map(tuple, (yield _HELD, ()))} - held:
            if oid in before:
                name = before[oid][0]
                locks[name] = max(locks.get(name, ""), _MODES[mode], key=_strength)
        after = {row[0]: row[1:] for row in (yield _RELATIONS, ())}
        both = {oid: (before[oid], after[oid]) for oid in before.keys() & after.keys() if before[oid][2] == "r"}
        rewritten = [old[0] for old, new in both.values() if old[1] != new[1]]
        read = [old[0] for old, new in both.values() if new[3] > old[3]]
        self.measured += 1
        found = [
            f"{lock} on {table}, announced {step.locks.get(table)}"
            for table, lock in locks.items()
            if _strength(step.locks.get(table, "")) < _strength(lock)
        ]
        found += [f"rewrote {table}" for table in rewritten if not step.rewrites]
        found += [f"read {table}" for table in read if not (step.scans or step.rewrites)]
        self.excesses += [f"{step.operation} ({step.summary}): {each}" for each in found]


def _strength(lock: str) -> int:
    return LOCKS.index(lock) if lock else -1
