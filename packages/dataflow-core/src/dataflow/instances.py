"""The live instances of this process, and which of them a name means.

Live means not closed and still referenced: instances are held weakly here.
"""

import gc
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from dataflow.errors import InputError, suggest

if TYPE_CHECKING:
    from dataflow.engine import DataFlow

_INSTANCES: "weakref.WeakSet[DataFlow]" = weakref.WeakSet()


def add(db: "DataFlow") -> None:
    """Count an instance among the live ones."""
    _INSTANCES.add(db)


def remove(db: "DataFlow") -> None:
    """Count an instance out."""
    _INSTANCES.discard(db)


def live_instances() -> "list[DataFlow]":
    """Return the instances that are neither closed nor forgotten, oldest first."""
    return sorted((db for db in list(_INSTANCES) if not db.core.closed), key=lambda db: db.core.number)


def labels(db: "DataFlow") -> set[str]:
    """Return the names by which ``database=`` may pick an instance: its name, database, file stem or host."""
    url = db.config.url
    stem = Path(url.path).stem if url.host is None else ""
    return {label for label in (db.config["name"], url.database, stem, url.host) if label}


def find_instance(label: str) -> "DataFlow":
    """Pick the live instance that ``database=label`` means.

    Raises:
        InputError: none or several answer to the label.
    """
    found = [db for db in live_instances() if label in labels(db)]
    exact = [db for db in found if db.config["name"] == label]
    if len(exact) == 1:
        return exact[0]
    if len(found) == 1:
        return found[0]
    known = sorted({known for db in live_instances() for known in labels(db)})
    if not found:
        close = suggest(label, known)
        msg = f"no DataFlow instance answers to database={label!r}"
        hint = (
            f"did you mean {close!r}?"
            if close
            else f"known: {', '.join(known) or 'none'}; set DataFlow(…, name={label!r})"
        )
        raise InputError(msg, hint=hint, code="unknown-database")
    listed = "; ".join(map(repr, found))
    msg = f"database={label!r} fits several instances: {listed}"
    raise InputError(msg, hint="give each its own DataFlow(…, name=…)", code="ambiguous-database")


def forget_garbage() -> None:
    """Collect instances that only reference cycles keep alive, before calling a name ambiguous."""
    gc.collect()
