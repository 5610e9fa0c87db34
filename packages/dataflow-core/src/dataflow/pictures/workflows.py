"""Draw a workflow: nodes and connections in, Mermaid or SVG text out.

Works on two small records, so that workflows, runs and plans can all be drawn.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, TypeAlias, get_args

import attrs

from dataflow.pictures.layout import Link, Point, Size, lay_out
from dataflow.pictures.shapes import (
    FAINT,
    INK,
    LINE,
    MARGIN,
    PLAIN,
    Look,
    arrow,
    image,
    label,
    label_size,
    mermaid_text,
    rect,
    shortened,
    text,
    text_width,
    xml,
)

State: TypeAlias = Literal["done", "failed", "skipped", "running", "pending"]

_LOOKS: Final[Mapping[State | None, Look]] = {
    None: PLAIN,
    "done": Look("#dcf2e0", "#2e8b3d"),
    "failed": Look("#fcdfdc", "#d0342c"),
    "skipped": Look("#fcf0cf", "#b08400", "5 3"),
    "running": Look("#d9eafc", "#2477c9"),
    "pending": Look("#f2f3f5", "#8a949e", "2 3"),
}
_LEGEND: Final = 78.0
_LONGEST: Final = 36
_MOST_LABELS: Final = 4


@attrs.frozen
class PictureNode:
    """A node to draw.

    Attributes:
        id: what connections refer to; unique.
        type: shown below the id.
        detail: a third, smaller line, such as a duration or a row count.
        state: colours the node; None before a run.
    """

    id: str
    type: str
    detail: str = ""
    state: State | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.in_(get_args(State)))
    )


@attrs.frozen
class PictureEdge:
    """A connection to draw; left out if either node is not in the picture."""

    source: str
    output: str
    target: str
    input: str


def to_mermaid(nodes: Sequence[PictureNode], edges: Sequence[PictureEdge]) -> str:
    """Write a Mermaid flowchart, for Markdown pages. Any text is safe as an id, type or detail."""
    names = {node.id: f"n{index}" for index, node in enumerate(nodes)}
    lines = ["flowchart TD"]
    for node in nodes:
        texts = [shown for shown in map(mermaid_text, (node.id, node.type, node.detail)) if shown]
        lines.append(f'    {names[node.id]}["{"<br/>".join(texts) or " "}"]')
    for edge in edges:
        if edge.source in names and edge.target in names:
            said = " → ".join(map(mermaid_text, _label_parts(edge)))
            way = f'-->|"{said}"|' if said else "-->"
            lines.append(f"    {names[edge.source]} {way} {names[edge.target]}")
    for state in _states(nodes):
        look = _LOOKS[state]
        style = f"fill:{look.fill},stroke:{look.border},color:{INK}"
        style += f",stroke-dasharray:{look.dashes}" if look.dashes else ""
        members = ",".join(names[node.id] for node in nodes if node.state == state)
        lines += [f"    classDef {state} {style}", f"    class {members} {state}"]
    return "\n".join(lines) + "\n"


def to_svg(nodes: Sequence[PictureNode], edges: Sequence[PictureEdge]) -> str:
    """Draw an SVG image that stands alone: no script, style sheet, font or link.

    Long names are shortened (a tooltip has them whole). Connections of the same two nodes share an arrow.
    """
    labels = _labels(nodes, edges)
    layout = lay_out(
        [_box_size(node) for node in nodes],
        [Link(source, target, label_size(lines)) for (source, target), lines in labels.items()],
    )
    states = _states(nodes)
    width = max(layout.size.width, _LEGEND * len(states), 80) + 2 * MARGIN
    height = layout.size.height + 2 * MARGIN + (34 if states else 0 if nodes else 20)
    left = (layout.size.width - width) / 2
    drawn = [line for route in layout.routes if route for line in arrow(route)]
    for lines, route in zip(labels.values(), layout.routes, strict=True):
        drawn += label(lines, route.label) if route and route.label else []
    for node, corner in zip(nodes, layout.corners, strict=True):
        drawn += _box(node, corner)
    drawn += _legend(states, left + MARGIN, layout.size.height + 16)
    drawn += [] if nodes else [text((0, 14), "no nodes", size=13, fill=LINE)]
    named = ", ".join(node.id for node in nodes[:10]) + (", …" if len(nodes) > 10 else "")
    title = f"Workflow with {len(nodes)} nodes: {named}".rstrip(": ")
    return image(title, drawn, Size(width, height), left=left)


def _states(nodes: Sequence[PictureNode]) -> list[State]:
    present = {node.state for node in nodes}
    return [state for state in get_args(State) if state in present]


def _label_parts(edge: PictureEdge) -> list[str]:
    """Return what is worth saying of a connection: nothing of the plain one, one name if both are equal."""
    if (edge.output, edge.input) == ("result", "input"):
        return []
    return [edge.output] if edge.output == edge.input else [edge.output, edge.input]


def _labels(nodes: Sequence[PictureNode], edges: Sequence[PictureEdge]) -> Mapping[tuple[int, int], Sequence[str]]:
    """Return the lines of each arrow's label, by the places of its nodes."""
    places = {node.id: place for place, node in enumerate(nodes)}
    labels: dict[tuple[int, int], list[str]] = {}
    for edge in edges:
        if edge.source in places and edge.target in places:
            lines = labels.setdefault((places[edge.source], places[edge.target]), [])
            parts = [shortened(part, _LONGEST // 2) for part in _label_parts(edge)]
            lines += [" → ".join(parts)] if parts else []
    return {ends: _at_most(_MOST_LABELS, lines) for ends, lines in labels.items()}


def _at_most(most: int, lines: Sequence[str]) -> Sequence[str]:
    return lines if len(lines) <= most else [*lines[: most - 1], f"{len(lines) - most + 1} more"]


def _box_lines(node: PictureNode) -> Iterator[tuple[str, float, str]]:
    """Yield text, size and colour of each line in a node's box."""
    yield shortened(node.id, _LONGEST), 13, INK
    yield shortened(node.type, _LONGEST + 4), 11, FAINT
    if node.detail.strip():
        yield shortened(node.detail, _LONGEST + 8), 10, FAINT


def _box_size(node: PictureNode) -> Size:
    lines = list(_box_lines(node))
    width = max(text_width(shown, size) * (1.07 if size == 13 else 1) for shown, size, _ in lines)
    return Size(max(width + 24, 96), 12 + 16 * len(lines))


def _box(node: PictureNode, corner: Point) -> Iterator[str]:
    size = _box_size(node)
    middle, y = corner[0] + size.width / 2, corner[1] + 2
    title = " · ".join(part for part in (node.id, node.type, node.detail, node.state) if part)
    yield f"<g><title>{xml(title)}</title>"
    yield rect(corner, size, look=_LOOKS[node.state], role="node")
    for count, (shown, height, fill) in enumerate(_box_lines(node)):
        y += 16
        yield text((middle, y), shown, size=height, fill=fill, more="" if count else ' font-weight="600"')
    yield "</g>"


def _legend(states: Sequence[State], left: float, top: float) -> Iterator[str]:
    for count, state in enumerate(states):
        x = left + _LEGEND * count
        yield rect((x, top), Size(_LEGEND - 8, 20), look=_LOOKS[state], role="legend")
        yield text((x + (_LEGEND - 8) / 2, top + 14), state, size=11, fill=INK)
