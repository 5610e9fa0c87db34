"""What the audit log asks of a dialect, beyond `Dialect.watch`: how the log is read and kept."""

from collections.abc import Sequence
from typing import Any, Protocol, cast

from dataflow import types as t
from dataflow.dialect import Convert, Dialect, Program, refuse_unsupported
from dataflow.errors import NotYetAvailable
from dataflow.model import ModelSpec


class ChangeLog(Protocol):
    """The part of a dialect that keeps the change log.

    Attributes:
        log_source: table or view with the entries: seq, at, tbl, record, tenant, actor, run, node, action, old, new, n
            and hash.
        log_at: SQL for the instant of an entry as text, in microseconds and UTC.
        log_single: whether all entries form one chain, else those of each record.
        log_chain: SQL for the name of an entry's chain in the stubs of purged entries.
    """

    log_source: str
    log_at: str
    log_single: bool
    log_chain: str

    def log_present(self) -> Program[bool]: ...
    def log_create(self) -> Program[None]: ...
    def log_note(self, action: str, subject: str, new: str) -> Program[None]: ...
    def log_complete(self) -> Program[None]: ...
    def log_settled(self) -> Program[None]: ...
    def log_counters(self) -> Program[tuple[int | None, int | None]]: ...
    def log_unsealed(self) -> Program[list[int]]: ...
    def log_key(self, parts: Sequence[tuple[t.FieldType, str]]) -> str: ...
    def log_parameter(self, position: int, kind: t.FieldType) -> str: ...
    def log_member(self, image: str, name: str, place: int) -> str: ...
    def log_differences(self, model: ModelSpec, masked: Sequence[str]) -> Program[list[tuple[str, str]]]: ...
    def log_purge(self, purge: int) -> Program[None]: ...
    def log_read(self, image: str) -> dict[str, Any]: ...
    def log_value(self, kind: t.FieldType) -> Convert | None: ...


def change_log(dialect: Dialect) -> ChangeLog:
    """Return a dialect as keeper of the change log.

    Raises:
        NotYetAvailable: it keeps none.
    """
    refuse_unsupported(dialect, "change_log")
    if not hasattr(dialect, "log_source"):
        msg = f"{dialect.name} keeps no change log"
        raise NotYetAvailable(msg, hint="audit on SQLite or PostgreSQL", code="unsupported")
    return cast("ChangeLog", dialect)
