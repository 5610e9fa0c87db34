"""The change log that a database keeps by itself: what a dialect provides beside `Dialect.watch`, and how it is read.

Triggers, or whatever the database has, write an entry for every change of a watched record, whoever makes it. The
dialect says how entries are written and read; what they are used for (trails, verification, purges) is not its affair.

An entry has these columns, all but the numbers as text: `seq` (ascending), `at`, `tbl`, `record` (the key, from
`log_key`), `tenant` (of the record's own scope, else of the call), `actor` ("unknown" where nobody is known), `run`,
`node`, `action` (insert, update, delete; found: the record was there when watching began; others are those of
`log_note`), `old` and `new` (images, or NULL), `n` (its place in its chain) and `hash`. A key that changes is a delete
and an insert; a change that changes nothing is none.

The hash is SHA-256, in hexadecimal digits, of twelve texts: the hash of the entry before in the chain ("" for the
first), seq, at, tbl, record, tenant, actor, run, node, action, old, new. Their lengths in characters come first, joined
by ``:`` (nothing for NULL), then ``|``, then the texts themselves.

Beside the entries, in the table `dataflow_audit`, lie `dataflow_audit_purged` (seq, chain, n, hash, purge: what is left
of purged entries) and `dataflow_audit_checkpoint` (number, body). All three take rows, and never change or lose them.
"""

import json
import re
from collections.abc import Collection, Sequence
from typing import Any, Protocol, cast

import attrs

from dataflow import types as t
from dataflow.dialect import Convert, Dialect, Program, refuse_unsupported
from dataflow.errors import NotYetAvailable
from dataflow.model import ModelSpec


class ChangeLog(Protocol):
    """The part of a dialect that keeps the change log.

    Attributes:
        log_source: table or view with the columns of entries.
        log_at: SQL for the instant of an entry as text, in microseconds and UTC: what is hashed.
        log_single: whether all entries form one chain, else those of each record.
        log_chain: SQL for the name of an entry's chain in the stubs of purged entries.
    """

    log_source: str
    log_at: str
    log_single: bool
    log_chain: str

    def log_present(self) -> Program[bool]:
        """Tell whether the log is there, and kept from changes."""
        ...

    def log_create(self) -> Program[None]:
        """Create the log and what keeps it append-only, where missing."""
        ...

    def log_note(self, action: str, subject: str, new: str) -> Program[None]:
        """Append an entry about no record: `tbl` is "", `record` the subject."""
        ...

    def log_complete(self) -> Program[None]:
        """Complete (hash) entries of others, where entries are not complete from the start."""
        ...

    def log_settled(self) -> Program[None]:
        """Wait until no transaction that wrote entries is open, and let none begin until this one ends."""
        ...

    def log_counters(self) -> Program[tuple[int | None, int | None]]:
        """Return the numbers given last, to an entry and to a seal; None where they tell nothing of missing ones."""
        ...

    def log_unsealed(self) -> Program[list[int]]:
        """Return the entries that lack a hash though later ones have one, and hashes without an entry."""
        ...

    def log_key(self, parts: Sequence[tuple[t.FieldType, str]]) -> str:
        """Return SQL for the text that names a record, given SQL for the parts of its key; no two keys share one."""
        ...

    def log_parameter(self, position: int, kind: t.FieldType) -> str:
        """Return a placeholder for a stored value of a field."""
        ...

    def log_member(self, image: str, name: str, place: int) -> str:
        """Return SQL for a member of an image as text.

        Args:
            image: "old" or "new".
            name: of the column, or ``$name``.
            place: where it stands among the columns and marks of the model, from 0. Entries of other releases of the
                program may have more columns before it.
        """
        ...

    def log_differences(self, model: ModelSpec, masked: Sequence[str]) -> Program[list[tuple[str, str]]]:
        """Return (record, "absent", "unknown" or "other") where the table is not as the log says."""
        ...

    def log_purge(self, purge: int) -> Program[None]:
        """Remove the entries whose stubs name a purge; what keeps the log as it is stands aside for it."""
        ...

    def log_read(self, image: str) -> dict[str, Any]:
        """Read an image: column -> value, for `log_value`. A masked value is ``***``.

        Images from before an update also have ``$name`` for each masked field: whether it changes.
        """
        ...

    def log_value(self, kind: t.FieldType) -> Convert | None:
        """Return what turns a value of an image into the driver's; None for identity."""
        ...


@attrs.frozen
class WatchedColumn:
    """A column of which entries tell.

    Attributes:
        name: of the column.
        storage: of its field type, by which its values are written.
        masked: whether its values are not written.
    """

    name: str
    storage: str
    masked: bool = False


_LISTED = re.compile(r"/\* dataflow watches (\[.*?\]) \*/")


def columns_of(model: ModelSpec, masked: Sequence[str]) -> list[WatchedColumn]:
    """Return the columns of a model, in its order."""
    kinds = {name: field.type for name, field in model.fields.items()}
    kinds |= {column.name: column.type for column in model.hidden}
    return [WatchedColumn(name, kind.storage, name in masked) for name, kind in kinds.items()]


def columns_to_watch(
    own: Sequence[WatchedColumn], known: Sequence[WatchedColumn], there: Collection[str]
) -> list[WatchedColumn]:
    """Return the columns to watch: those of a model, and those that other releases of the program watch besides.

    Releases run side by side, and each begins to watch when it starts: none may stop what another relies on.

    Args:
        own: of the model.
        known: that are watched now, by the triggers' own list.
        there: names of the columns that the table has.
    """
    kept = [column for column in known if column.name in there]
    if len(kept) == len(known) and set(own) <= set(kept):
        return kept
    names = {column.name for column in own}
    return [*own, *(column for column in kept if column.name not in names)]


def write_columns(columns: Sequence[WatchedColumn]) -> str:
    """Return the list of what is watched as a comment of SQL, to be kept in a trigger."""
    listed = json.dumps([attrs.astuple(column) for column in columns]).replace("*/", "*\\/")
    return f"/* dataflow watches {listed} */"


def read_columns(text: str) -> list[WatchedColumn]:
    """Read the list that a trigger keeps; nothing where there is none."""
    found = _LISTED.search(text)
    return [WatchedColumn(*column) for column in json.loads(found[1])] if found else []


def change_log(dialect: Dialect) -> ChangeLog:
    """Return a dialect as keeper of the change log.

    Raises:
        NotYetAvailable: it keeps none.
    """
    refuse_unsupported(dialect, "change_log")
    if not hasattr(dialect, "log_source"):
        msg = f"{dialect.name} keeps no change log"
        raise NotYetAvailable(msg, hint="use a database whose dialect keeps one", code="unsupported")
    return cast("ChangeLog", dialect)
