"""Two releases of one application, in several versions of what changes between them: what proofs of crashes migrate.

Models are made by functions, so that each process registers its own.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import attrs

from dataflow import DataFlow, Field, ForeignKey

_TEXT: Any = Annotated[str, Field(renamed_from="body")]  # type: ignore[operator]  # it is no call
ROWS = 8_000
"""Of the table of notes: more than a megabyte, from which on PostgreSQL's steps let others work."""


@attrs.frozen
class Change:
    """What one release changes.

    Attributes:
        old: registers the models of the release before; None where there is none.
        new: registers those of the next one.
        act: "use" (the models are used first), "migrate", or "undo" (of what "migrate" has done).
        rows: of the table of notes.
        wishes: for `auto_migrate`.
        fails: whether rows are in the way, so that all has to be undone.
    """

    old: Callable[[DataFlow], None] | None
    new: Callable[[DataFlow], None]
    act: str
    rows: int = ROWS
    wishes: Mapping[str, Any] = attrs.field(factory=dict)
    fails: bool = False


def model(db: DataFlow, name: str, fields: Mapping[str, Any], indexes: Sequence[Any] = (), **options: Any) -> None:
    """Register a model: field -> annotation, or (annotation, default)."""
    annotations = {field: kind[0] if isinstance(kind, tuple) else kind for field, kind in fields.items()}
    defaults = {field: kind[1] for field, kind in fields.items() if isinstance(kind, tuple)}
    body = {"__annotations__": annotations, "__indexes__": list(indexes), "__dataflow__": options, **defaults}
    db.model(type(name, (), body))


def before(db: DataFlow) -> None:
    """Register the models of the release before."""
    model(db, "Writer", {"name": str})
    notes: dict[str, Any] = {
        "title": str,
        "body": str,
        "size": int,
        "state": str | None,
        "legacy": str | None,
        "writer_id": int | None,
    }
    model(db, "Note", notes, [{"name": "notes_title", "fields": ["title"]}])


def rows(number: int) -> list[dict[str, Any]]:
    """Return the rows of the table of notes."""
    return [
        {
            "title": f"title {place // 2}",
            "body": f"{place:09d} " * 20,
            "size": place,
            "state": "old" if place % 3 else None,
            "legacy": f"legacy {place}",
            "writer_id": place % 10 + 1 if place % 2 else None,
        }
        for place in range(number)
    ]


def fill(db: DataFlow, number: int) -> None:
    """Write the rows of the release before."""
    db.express_sync.bulk_create("Writer", [{"name": f"writer {place}"} for place in range(10)])
    db.express_sync.bulk_create("Note", rows(number))


def grown(db: DataFlow) -> None:
    """Register models that only have more."""
    model(db, "Writer", {"name": str, "mail": (str, "nobody")}, [{"name": "writers_name", "fields": ["name"]}])
    model(db, "Tag", {"label": str}, [{"name": "tags_label", "fields": ["label"], "unique": True}])
    notes: dict[str, Any] = {
        "title": str,
        "body": str,
        "size": int,
        "state": str | None,
        "legacy": str | None,
        "writer_id": int | None,
    }
    more: dict[str, Any] = {"tag_id": Annotated[int | None, ForeignKey("Tag")], "stars": (int, 3)}
    indexes = [
        {"name": "notes_title", "fields": ["title"]},
        {"name": "notes_size", "fields": ["size"], "unique": True},
        {"name": "notes_state", "fields": ["state", "title"]},
    ]
    model(db, "Note", {**notes, **more}, indexes)


def moved(db: DataFlow, *, size: Any = str, indexes: Sequence[Any] = ()) -> None:
    """Register models that have what there was in another way, and all that there was."""
    model(db, "Author", {"name": str, "mail": str | None}, renamed_from="writers")
    pages: dict[str, Any] = {
        "title": str,
        "text": _TEXT,
        "size": size,
        "state": str,
        "legacy": str | None,
        "writer_id": Annotated[int | None, ForeignKey("Author")],
    }
    some = [{"name": "pages_size", "fields": ["size"], "unique": True}, *indexes]
    model(db, "Page", pages, some, renamed_from="notes")


def changed(db: DataFlow) -> None:
    """Register models that have what there was in another way, and less."""
    model(db, "Author", {"name": str, "mail": str | None}, renamed_from="writers")
    model(db, "Tag", {"label": str})
    pages: dict[str, Any] = {
        "title": str,
        "text": _TEXT,
        "size": str,
        "state": str,
        "writer_id": Annotated[int | None, ForeignKey("Author")],
        "tag_id": Annotated[int | None, ForeignKey("Tag")],
    }
    model(db, "Page", pages, [{"name": "pages_size", "fields": ["size"], "unique": True}], renamed_from="notes")


def refused(db: DataFlow) -> None:
    """Register models of which the rows break the last key."""
    moved(db, size=int, indexes=[{"name": "pages_title", "fields": ["title"], "unique": True}])


def beside(db: DataFlow) -> None:
    """Register a model of another application on the same database."""
    model(db, "Visit", {"page": str, "count": (int, 0)}, [{"name": "visits_page", "fields": ["page"]}])


_VALUES = {"backfill": {"Page.state": "new"}}
CHANGES: Mapping[str, Change] = {
    "create": Change(None, grown, "use"),
    "grow": Change(before, grown, "use"),
    "grow-small": Change(before, grown, "use", rows=50),
    "change": Change(before, changed, "migrate", wishes=_VALUES),
    "change-small": Change(before, changed, "migrate", rows=50, wishes=_VALUES),
    "undo": Change(before, moved, "undo", wishes=_VALUES),
    "refused": Change(before, refused, "migrate", wishes=_VALUES, fails=True),
    "beside": Change(before, beside, "use", rows=50),
    "rebuild": Change(before, moved, "migrate", rows=100_000, wishes=_VALUES),
}
"""Name -> what changes. "beside" is for several processes at once, "rebuild" for kills by the clock on SQLite."""
KILLED = ("create", "grow", "grow-small", "change", "change-small", "undo", "refused")
"""Those that are killed at each statement."""
