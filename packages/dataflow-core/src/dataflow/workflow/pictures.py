"""Draw a workflow: nodes and connections in, Mermaid or SVG text out.

Pure functions over two small records, so that workflows, runs and plans can all be drawn. Knows nothing of
workflows, databases or files. The same input gives the same text.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, TypeAlias, get_args
from xml.sax.saxutils import escape

import attrs

from dataflow.workflow._layout import Link, Point, Route, Size, lay_out

State: TypeAlias = Literal["done", "failed", "skipped", "running", "pending"]

# Fill, border, dashes. Dark text on light boxes, borders and lines of middle grey: readable on any page.
_COLOURS: Final[Mapping[State | None, tuple[str, str, str]]] = {
    None: ("#eef2f6", "#6b7f92", ""),
    "done": ("#dcf2e0", "#2e8b3d", ""),
    "failed": ("#fcdfdc", "#d0342c", ""),
    "skipped": ("#fcf0cf", "#b08400", "5 3"),
    "running": ("#d9eafc", "#2477c9", ""),
    "pending": ("#f2f3f5", "#8a949e", "2 3"),
}
_INK: Final = "#1b1f24"
_FAINT: Final = "#4d5966"
_LINE: Final = "#7d8995"
_FONTS: Final = "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif"
_MARGIN: Final = 16.0
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
        texts = [text for text in map(_mermaid_text, (node.id, node.type, node.detail)) if text]
        lines.append(f'    {names[node.id]}["{"<br/>".join(texts) or " "}"]')
    for edge in edges:
        if edge.source in names and edge.target in names:
            label = " → ".join(map(_mermaid_text, _label_parts(edge)))
            arrow = f'-->|"{label}"|' if label else "-->"
            lines.append(f"    {names[edge.source]} {arrow} {names[edge.target]}")
    for state in _states(nodes):
        fill, border, dashes = _COLOURS[state]
        style = f"fill:{fill},stroke:{border},color:{_INK}" + (f",stroke-dasharray:{dashes}" if dashes else "")
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
        [Link(source, target, _label_size(lines)) for (source, target), lines in labels.items()],
    )
    states = _states(nodes)
    width = max(layout.size.width, _LEGEND * len(states), 80) + 2 * _MARGIN
    height = layout.size.height + 2 * _MARGIN + (34 if states else 0 if nodes else 20)
    left = (layout.size.width - width) / 2
    drawn = [line for route in layout.routes if route for line in _arrow(route)]
    for lines, route in zip(labels.values(), layout.routes, strict=True):
        drawn += _label(lines, route.label) if route and route.label else []
    for node, corner in zip(nodes, layout.corners, strict=True):
        drawn += _box(node, corner)
    drawn += _legend(states, left + _MARGIN, layout.size.height + 16)
    drawn += [] if nodes else [_text((0, 14), "no nodes", size=13, fill=_LINE)]
    box = f'width="{_n(width)}" height="{_n(height)}"'
    view = f'viewBox="{_n(left)} {_n(-_MARGIN)} {_n(width)} {_n(height)}"'
    title = ", ".join(node.id for node in nodes[:10]) + (", …" if len(nodes) > 10 else "")
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {box} {view} font-family="{_FONTS}">',
            f"<title>{_xml(f'Workflow with {len(nodes)} nodes: {title}'.rstrip(': '))}</title>",
            *drawn,
            "</svg>\n",
        ]
    )


# --- text ---


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
            parts = [_shortened(part, _LONGEST // 2) for part in _label_parts(edge)]
            lines += [" → ".join(parts)] if parts else []
    return {ends: _at_most(_MOST_LABELS, lines) for ends, lines in labels.items()}


def _at_most(most: int, lines: Sequence[str]) -> Sequence[str]:
    return lines if len(lines) <= most else [*lines[: most - 1], f"{len(lines) - most + 1} more"]


def _mermaid_text(text: str) -> str:
    """Keep letters, digits and what joins them; anything else could be Mermaid's or Markdown's syntax."""
    plain = _one_line(text)
    return re.sub(r"(?<![^\W_])[_-]|[_-](?![^\W_])|[^\w -]", lambda found: f"#{ord(found[0])};", plain)


def _shortened(text: str, most: int) -> str:
    plain = _one_line(text)
    tail = most // 3
    return plain if len(plain) <= most else f"{plain[: most - tail - 1]}…{plain[-tail:]}"


def _one_line(text: str) -> str:
    """Turn runs of white space, controls and what XML does not allow into one space each."""
    return " ".join(re.sub("[\0-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", " ", text).split())


def _xml(text: str) -> str:
    return escape(_one_line(text), {'"': "&quot;"})


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


# --- shapes ---


def _text_width(text: str, size: float) -> float:
    """Estimate a width in pixels, generously: which font the reader has is not known."""
    wide = {"W": 1.05, "F": 1.05}
    return size * sum(
        wide.get(unicodedata.east_asian_width(char), 0.72 if char.isupper() or char in "mw" else 0.56) for char in text
    )


def _box_lines(node: PictureNode) -> Iterator[tuple[str, float, str]]:
    """Yield text, size and colour of each line in a node's box."""
    yield _shortened(node.id, _LONGEST), 13, _INK
    yield _shortened(node.type, _LONGEST + 4), 11, _FAINT
    if node.detail.strip():
        yield _shortened(node.detail, _LONGEST + 8), 10, _FAINT


def _box_size(node: PictureNode) -> Size:
    lines = list(_box_lines(node))
    width = max(_text_width(text, size) * (1.07 if size == 13 else 1) for text, size, _ in lines)
    return Size(max(width + 24, 96), 12 + 16 * len(lines))


def _label_size(lines: Sequence[str]) -> Size | None:
    return Size(max(_text_width(line, 10) for line in lines) + 12, 13 * len(lines) + 4) if lines else None


def _text(place: Point, text: str, *, size: float, fill: str, more: str = "") -> str:
    at = f'x="{_n(place[0])}" y="{_n(place[1])}" text-anchor="middle"'
    return f'<text {at} font-size="{_n(size)}" fill="{fill}"{more}>{_xml(text)}</text>'


def _rect(corner: Point, size: Size, *, state: State | None = None, role: str) -> str:
    fill, border, dashes = _COLOURS[state]
    place = f'x="{_n(corner[0])}" y="{_n(corner[1])}" width="{_n(size.width)}" height="{_n(size.height)}"'
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<rect class="{role}" {place} rx="7" fill="{fill}" stroke="{border}" stroke-width="1.4"{dashed}/>'


def _box(node: PictureNode, corner: Point) -> Iterator[str]:
    size = _box_size(node)
    middle, y = corner[0] + size.width / 2, corner[1] + 2
    title = " · ".join(text for text in (node.id, node.type, node.detail, node.state) if text)
    yield f"<g><title>{_xml(title)}</title>"
    yield _rect(corner, size, state=node.state, role="node")
    for number, (text, height, fill) in enumerate(_box_lines(node)):
        y += 16
        yield _text((middle, y), text, size=height, fill=fill, more="" if number else ' font-weight="600"')
    yield "</g>"


def _arrow(route: Route) -> Iterator[str]:
    """Yield a line that ends below the arrowhead, and the arrowhead."""
    *_, before, (x, y) = route.points
    back = y - 8 if before[1] < y else y + 8
    points = [*route.points[:-1], (x, back)]
    path = ""
    for (x0, y0), (x1, y1) in zip(points[::2], points[1::2], strict=True):
        middle = _n((y0 + y1) / 2)
        path += f"{'L' if path else 'M'}{_n(x0)} {_n(y0)}C{_n(x0)} {middle} {_n(x1)} {middle} {_n(x1)} {_n(y1)}"
    yield f'<path d="{path}" fill="none" stroke="{_LINE}" stroke-width="1.5"/>'
    yield f'<path d="M{_n(x - 4.5)} {_n(back)}H{_n(x + 4.5)}L{_n(x)} {_n(y)}Z" fill="{_LINE}"/>'


def _label(lines: Sequence[str], middle: Point) -> Iterator[str]:
    size = _label_size(lines) or Size(0, 0)
    x, y = middle[0] - size.width / 2, middle[1] - size.height / 2
    place = f'x="{_n(x)}" y="{_n(y)}" width="{_n(size.width)}" height="{_n(size.height)}"'
    yield f'<rect class="label" {place} rx="4" fill="#fbfcfd" stroke="#c5cdd5" stroke-width="0.7"/>'
    for number, line in enumerate(lines):
        yield _text((middle[0], y + 12 + 13 * number), line, size=10, fill=_FAINT)


def _legend(states: Sequence[State], left: float, top: float) -> Iterator[str]:
    for number, state in enumerate(states):
        x = left + _LEGEND * number
        yield _rect((x, top), Size(_LEGEND - 8, 20), state=state, role="legend")
        yield _text((x + (_LEGEND - 8) / 2, top + 14), state, size=11, fill=_INK)
