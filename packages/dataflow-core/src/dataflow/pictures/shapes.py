"""The parts of an SVG image that all pictures share: text, boxes, arrows, labels, and the frame around them.

Every text is escaped here. An image stands alone: no script, style sheet, font or link.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Final
from xml.sax.saxutils import escape

import attrs

from dataflow.pictures.layout import Point, Route, Size

INK: Final = "#1b1f24"
FAINT: Final = "#4d5966"
LINE: Final = "#7d8995"
MARGIN: Final = 16.0
_FONTS: Final = "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif"


@attrs.frozen
class Look:
    """Of a box: colours of its inside and its border, and the border's dashes ("": a whole line)."""

    fill: str
    border: str
    dashes: str = ""


PLAIN: Final = Look("#eef2f6", "#6b7f92")
"""Dark text on light boxes, borders and lines of middle grey: readable on any page."""


# -- text -------------------------------------------------------------------------------------------------------------
def one_line(text: str) -> str:
    """Turn runs of white space, controls and what XML does not allow into one space each."""
    return " ".join(re.sub("[\0-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", " ", text).split())


def shortened(text: str, most: int) -> str:
    """Take letters out of the middle of a text that is longer than `most`."""
    plain = one_line(text)
    tail = most // 3
    return plain if len(plain) <= most else f"{plain[: most - tail - 1]}…{plain[-tail:]}"


def mermaid_text(text: str) -> str:
    """Keep letters, digits and what joins them; anything else could be Mermaid's or Markdown's syntax."""
    plain = one_line(text)
    return re.sub(r"(?<![^\W_])[_-]|[_-](?![^\W_])|[^\w -]", lambda found: f"#{ord(found[0])};", plain)


def xml(text: str) -> str:
    """Escape a text for XML."""
    return escape(one_line(text), {'"': "&quot;"})


def number(value: float) -> str:
    """Write a coordinate."""
    return f"{value:.1f}".removesuffix(".0")


def text_width(text: str, size: float) -> float:
    """Estimate a width in pixels, generously: which font the reader has is not known."""
    wide = {"W": 1.05, "F": 1.05}
    return size * sum(
        wide.get(unicodedata.east_asian_width(char), 0.72 if char.isupper() or char in "mw" else 0.56) for char in text
    )


# -- parts ------------------------------------------------------------------------------------------------------------
def text(place: Point, content: str, *, size: float, fill: str, anchor: str = "middle", more: str = "") -> str:
    """Write a text; `place` is its baseline's middle, start or end, as `anchor` says."""
    at = f'x="{number(place[0])}" y="{number(place[1])}" text-anchor="{anchor}"'
    return f'<text {at} font-size="{number(size)}" fill="{fill}"{more}>{xml(content)}</text>'


def rect(corner: Point, size: Size, *, look: Look = PLAIN, role: str) -> str:
    """Draw a box; `role` is its class."""
    place = f'x="{number(corner[0])}" y="{number(corner[1])}" width="{number(size.width)}"'
    dashed = f' stroke-dasharray="{look.dashes}"' if look.dashes else ""
    outline = f'rx="7" fill="{look.fill}" stroke="{look.border}" stroke-width="1.4"{dashed}'
    return f'<rect class="{role}" {place} height="{number(size.height)}" {outline}/>'


def curve(points: Sequence[Point], *, dashes: str = "") -> str:
    """Draw a link along the points of a `Route`."""
    path = ""
    for (x0, y0), (x1, y1) in zip(points[::2], points[1::2], strict=True):
        middle = number((y0 + y1) / 2)
        path += (
            f"{'L' if path else 'M'}{number(x0)} {number(y0)}C{number(x0)} {middle} {number(x1)} {middle}"
            f" {number(x1)} {number(y1)}"
        )
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<path d="{path}" fill="none" stroke="{LINE}" stroke-width="1.5"{dashed}/>'


def arrow(route: Route) -> Iterator[str]:
    """Draw a line that ends below the arrowhead, and the arrowhead."""
    *_, before, (x, y) = route.points
    back = y - 8 if before[1] < y else y + 8
    yield curve([*route.points[:-1], (x, back)])
    yield f'<path d="M{number(x - 4.5)} {number(back)}H{number(x + 4.5)}L{number(x)} {number(y)}Z" fill="{LINE}"/>'


def label_size(lines: Sequence[str]) -> Size | None:
    """Return the room that a link's label needs; None: there is none."""
    return Size(max(text_width(line, 10) for line in lines) + 12, 13 * len(lines) + 4) if lines else None


def label(lines: Sequence[str], middle: Point) -> Iterator[str]:
    """Draw the label of a link."""
    size = label_size(lines) or Size(0, 0)
    x, y = middle[0] - size.width / 2, middle[1] - size.height / 2
    place = f'x="{number(x)}" y="{number(y)}" width="{number(size.width)}" height="{number(size.height)}"'
    yield f'<rect class="label" {place} rx="4" fill="#fbfcfd" stroke="#c5cdd5" stroke-width="0.7"/>'
    for count, line in enumerate(lines):
        yield text((middle[0], y + 12 + 13 * count), line, size=10, fill=FAINT)


def image(title: str, drawn: Iterable[str], size: Size, *, left: float = 0.0) -> str:
    """Put a frame around what is drawn.

    Args:
        title: for those who cannot see it.
        drawn: the parts, from the origin on.
        size: of all, margins included.
        left: where the image begins, margin included.
    """
    box = f'width="{number(size.width)}" height="{number(size.height)}"'
    view = f'viewBox="{number(left)} {number(-MARGIN)} {number(size.width)} {number(size.height)}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {box} {view} font-family="{_FONTS}">'
    return "\n".join([head, f"<title>{xml(title)}</title>", *drawn, "</svg>\n"])
