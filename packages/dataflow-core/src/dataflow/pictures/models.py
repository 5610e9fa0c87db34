"""Draw models and how they relate: an entity-relationship diagram, as Mermaid or SVG text.

Crow's feet as everywhere: a bar for one, a foot for many, a ring for none; a whole line is a foreign key in the
database, a dashed one a relation without.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import attrs

from dataflow.fields import ForeignKey
from dataflow.pictures.layout import Link, Point, Route, Size, lay_out
from dataflow.pictures.shapes import (
    FAINT,
    INK,
    LINE,
    MARGIN,
    PLAIN,
    curve,
    image,
    label,
    label_size,
    mermaid_text,
    number,
    rect,
    shortened,
    text,
    text_width,
    xml,
)

if TYPE_CHECKING:
    from dataflow.plan.bound import BoundModel

_ROW: Final = 16.0
_HEAD: Final = 42.0
_LONGEST: Final = 28
_MOST_FIELDS: Final = 40


@attrs.frozen
class PictureField:
    """A field to draw.

    Attributes:
        name: of the field.
        type: as text.
        mark: "PK" (key), "FK" (leads elsewhere) or none.
        itself: whether it leads to its own model, which no line shows.
    """

    name: str
    type: str
    mark: str = ""
    itself: bool = False


@attrs.frozen
class PictureModel:
    """A model to draw."""

    name: str
    table: str
    fields: tuple[PictureField, ...]


@attrs.frozen
class PictureRelation:
    """A relation to draw.

    Attributes:
        parent: the model that is referred to.
        child: the model whose field refers.
        names: what it is called: on the child's side, and on the parent's if there too.
        one: whether at most one child refers to a parent.
        optional: whether a child may do without.
        constraint: whether the database enforces it.
    """

    parent: str
    child: str
    names: tuple[str, ...]
    one: bool = False
    optional: bool = False
    constraint: bool = False


def drawn(models: "Mapping[str, BoundModel]") -> tuple[list[PictureModel], list[PictureRelation]]:
    """Return what there is to draw of an instance's models."""
    boxes = [_model(bound) for bound in models.values()]
    return boxes, [relation for bound in models.values() for relation in _relations(bound, models)]


def _model(bound: "BoundModel") -> PictureModel:
    spec = bound.spec
    leads = {relation.local: relation.target for relation in bound.relations.values() if not relation.many}
    fields = []
    for field in spec.fields.values():
        mark = "PK" if field.name in spec.primary_key else "FK" if field.name in leads else ""
        shown = f"{field.type}{'?' if field.nullable else ''}"
        fields.append(PictureField(field.name, shown, mark, itself=leads.get(field.name) == spec.name))
    return PictureModel(spec.name, spec.table, tuple(fields))


def _relations(bound: "BoundModel", models: "Mapping[str, BoundModel]") -> Iterator[PictureRelation]:
    for relation in bound.relations.values():
        if relation.many or relation.target not in models:
            continue
        back = [
            other.name
            for other in models[relation.target].relations.values()
            if other.many and (other.target, other.local, other.remote) == (bound.name, relation.remote, relation.local)
        ]
        field = bound.spec.fields[relation.local]
        yield PictureRelation(
            relation.target,
            bound.name,
            (relation.name, *back),
            one=(relation.local,) in bound.spec.unique_keys,
            optional=field.nullable,
            constraint=isinstance(field.relation, ForeignKey),
        )


# -- Mermaid ----------------------------------------------------------------------------------------------------------
def to_mermaid(models: Sequence[PictureModel], relations: Sequence[PictureRelation]) -> str:
    """Write a Mermaid ``erDiagram``, for Markdown pages."""
    lines = ["erDiagram"]
    for model in models:
        lines.append(f'    "{mermaid_text(model.name)}" {{')
        lines += [f"        {_word(f.type)} {_word(f.name)}{f' {f.mark}' if f.mark else ''}" for f in model.fields]
        lines.append("    }")
    for relation in relations:
        parent, child = mermaid_text(relation.parent), mermaid_text(relation.child)
        ends = ("|o" if relation.optional else "||", "o|" if relation.one else "o{")
        link = ("--" if relation.constraint else "..").join(ends)
        names = " / ".join(map(mermaid_text, relation.names))
        lines.append(f'    "{parent}" {link} "{child}" : "{names}"')
    return "\n".join(lines) + "\n"


def _word(shown: str) -> str:
    """Write a name or type with the characters that Mermaid allows there."""
    word = re.sub(r"[^\w\[\]()-]+", "_", shown.replace("?", ""), flags=re.ASCII).strip("_")
    return word if word[:1].isalpha() else f"x{word}"


# -- SVG --------------------------------------------------------------------------------------------------------------
def to_svg(models: Sequence[PictureModel], relations: Sequence[PictureRelation]) -> str:
    """Draw an SVG image that stands alone; relations of the same two models share a line."""
    places = {model.name: place for place, model in enumerate(models)}
    between: dict[tuple[int, int], list[PictureRelation]] = {}
    for relation in relations:
        if relation.parent in places and relation.child in places and relation.parent != relation.child:
            between.setdefault((places[relation.parent], places[relation.child]), []).append(relation)
    labels = {ends: [shortened(" / ".join(r.names), _LONGEST) for r in shared] for ends, shared in between.items()}
    layout = lay_out(
        [_size(model) for model in models],
        [Link(parent, child, _room(lines)) for (parent, child), lines in labels.items()],
    )
    parts: list[str] = []
    for (ends, shared), route in zip(between.items(), layout.routes, strict=True):
        parts += _line(route, shared) if route else []
        parts += label(labels[ends], route.label) if route and route.label else []
    for model, corner in zip(models, layout.corners, strict=True):
        parts += _box(model, corner)
    parts += [] if models else [text((0, 14), "no models", size=13, fill=LINE)]
    width, height = max(layout.size.width, 80) + 2 * MARGIN, layout.size.height + 2 * MARGIN + (0 if models else 20)
    named = ", ".join(model.name for model in models[:10]) + (", …" if len(models) > 10 else "")
    title = f"{len(models)} models: {named}".rstrip(": ")
    return image(title, parts, Size(width, height), left=(layout.size.width - width) / 2)


def _room(lines: Sequence[str]) -> Size | None:
    """Return the room of a label with what stands at the ends of its line."""
    size = label_size(lines)
    return Size(size.width, size.height + 18) if size else None


def _rows(model: PictureModel) -> list[PictureField]:
    fields = [
        PictureField(
            shortened(field.name, _LONGEST),
            shortened(f"{field.type} → {model.name}" if field.itself else field.type, _LONGEST),
            field.mark,
        )
        for field in model.fields
    ]
    if len(fields) <= _MOST_FIELDS:
        return fields
    return [*fields[: _MOST_FIELDS - 1], PictureField(f"… {len(fields) - _MOST_FIELDS + 1} more", "")]


def _size(model: PictureModel) -> Size:
    rows = _rows(model)
    names = max((text_width(field.name, 11) for field in rows), default=0)
    types = max((text_width(field.type, 11) for field in rows), default=0)
    heads = (text_width(shortened(model.name, _LONGEST), 14), text_width(shortened(model.table, _LONGEST), 10))
    return Size(max(names + types + 58, max(heads) + 24, 110), _HEAD + _ROW * len(rows) + 8)


def _box(model: PictureModel, corner: Point) -> Iterator[str]:
    size, (left, top) = _size(model), corner
    middle, right = left + size.width / 2, left + size.width - 10
    yield f"<g><title>{xml(f'{model.name} · table {model.table}')}</title>"
    yield rect(corner, size, role="model")
    name = shortened(model.name, _LONGEST)
    yield text((middle, top + 18), name, size=13, fill=INK, more=' font-weight="600"')
    yield text((middle, top + 32), shortened(model.table, _LONGEST), size=10, fill=FAINT)
    yield f'<path d="M{number(left)} {number(top + _HEAD - 3)}h{number(size.width)}" stroke="{PLAIN.border}"/>'
    for count, field in enumerate(_rows(model)):
        y = top + _HEAD + _ROW * count + 11
        if field.mark:
            yield text((left + 8, y), field.mark, size=8, fill=FAINT, anchor="start")
        bold = ' font-weight="600"' if field.mark == "PK" else ""
        yield text((left + 26, y), field.name, size=11, fill=INK, anchor="start", more=bold)
        yield text((right, y), field.type, size=11, fill=FAINT, anchor="end")
    yield "</g>"


def _line(route: Route, shared: Sequence[PictureRelation]) -> Iterator[str]:
    """Draw the line of relations that two models share, with what stands at its ends."""
    (x0, y0), (_, beside), *_ = route.points
    *_, (_, before), (x1, y1) = route.points
    out, into = (1 if beside > y0 else -1), (1 if before < y1 else -1)
    dashes = "" if any(relation.constraint for relation in shared) else "5 4"
    yield curve(route.points, dashes=dashes)
    marks = f"M{number(x0 - 5)} {number(y0 + 6 * out)}h10"  # one parent
    if all(relation.one for relation in shared):
        marks += f"M{number(x1 - 5)} {number(y1 - 6 * into)}h10"
    else:
        tip = number(y1 - 10 * into)
        marks += f"M{number(x1)} {tip}L{number(x1 - 6)} {number(y1)}M{number(x1)} {tip}L{number(x1 + 6)} {number(y1)}"
    yield f'<path d="{marks}" fill="none" stroke="{LINE}" stroke-width="1.5"/>'
    rings = [(x1, y1 - 14 * into)]  # there may be no child
    rings += [(x0, y0 + 11 * out)] if all(relation.optional for relation in shared) else []
    for x, y in rings:
        yield f'<circle cx="{number(x)}" cy="{number(y)}" r="3.5" fill="#ffffff" stroke="{LINE}" stroke-width="1.5"/>'
