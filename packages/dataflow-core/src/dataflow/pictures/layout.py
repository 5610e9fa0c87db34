"""Find places for boxes and the links between them: layers from top to bottom, after Sugiyama.

Geometry only: numbers in, numbers out, in pixels with y downwards. Knows nothing of SVG or of workflows;
`workflows` and `models` draw the result. Cycles, which a workflow being built may have, get one link that runs upwards.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, pairwise
from math import sqrt
from typing import Final, TypeAlias

import attrs

COLUMN_GAP: Final = 28.0
ROW_GAP: Final = 44.0
LABEL_GAP: Final = 4.0
PART_GAP: Final = 34.0
PORT_GAP: Final = 18.0
SWEEPS: Final = 12
MOST_BENDS: Final = 10_000

Point: TypeAlias = tuple[float, float]


@attrs.frozen
class Size:
    """Of a box or a label, in pixels."""

    width: float
    height: float


@attrs.frozen
class Link:
    """From one box (by index) to another, with room for a label, or none."""

    source: int
    target: int
    label: Size | None = None


@attrs.frozen
class Route:
    """The way of a link from border to border.

    Attributes:
        points: an even number. Curves that start and end vertically join the first to the second, the third
            to the fourth …; vertical lines join the curves.
        label: the middle of the label, if there is one.
    """

    points: tuple[Point, ...]
    label: Point | None


@attrs.frozen
class Layout:
    """Where everything goes: the upper left corner of each box, the route of each link (None: to itself)."""

    size: Size
    corners: tuple[Point, ...]
    routes: tuple[Route | None, ...]


def lay_out(boxes: Sequence[Size], links: Sequence[Link]) -> Layout:
    """Place boxes so that none overlap and every link, cycles aside, runs downwards.

    Args:
        boxes: their sizes, in the order in which unconnected ones shall appear.
        links: at most one between the same two boxes.
    """
    order, ends = _downwards(len(boxes), links)
    layers = _layers(order, ends)
    parts = [_Part(boxes, links, members) for members in _connected(len(boxes), ends)]
    part_of = {box: part for part in parts for box in part.sizes}
    for index, (upper, lower) in enumerate(ends):
        if upper != lower:
            part_of[upper].chains[index] = [upper, lower]
    for part in parts:
        part.arrange(layers)
    size = _shelve(parts)
    corners = {box: corner for part in parts for box, corner in part.corners(len(boxes))}
    routes = {index: part.route(index) for part in parts for index in part.chains}
    return Layout(
        size,
        tuple(corners[box] for box in range(len(boxes))),
        tuple(routes.get(index) for index in range(len(links))),
    )


def _downwards(total: int, links: Sequence[Link]) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the boxes in topological order, and each link's ends in that order: a search depth first."""
    outgoing: list[list[int]] = [[] for _ in range(total)]
    for index, link in enumerate(links):
        outgoing[link.source].append(index)
    ends = [(link.source, link.target) for link in links]
    finished: list[int] = []
    seen: set[int] = set()
    under_way: set[int] = set()
    for start in range(total):
        stack = [] if start in seen else [(start, iter(outgoing[start]))]
        while stack:
            box, rest = stack[-1]
            seen.add(box)
            under_way.add(box)
            following = next(rest, None)
            if following is None:
                stack.pop()
                under_way.discard(box)
                finished.append(box)
            elif (target := links[following].target) in under_way:  # closes a cycle
                ends[following] = (target, box)
            elif target not in seen:
                stack.append((target, iter(outgoing[target])))
    return finished[::-1], ends


def _layers(order: Sequence[int], ends: Sequence[tuple[int, int]]) -> Mapping[int, int]:
    """Return each box's layer: the longest way to it; one without input stands just above what it feeds."""
    below: dict[int, list[int]] = {box: [] for box in order}
    for upper, lower in ends:
        below[upper] += [lower] if lower != upper else []
    layers = dict.fromkeys(order, 0)
    for box in order:
        for lower in below[box]:
            layers[lower] = max(layers[lower], layers[box] + 1)
    fed = {lower for lowers in below.values() for lower in lowers}
    for box in order:
        if below[box] and box not in fed:
            layers[box] = min(layers[lower] for lower in below[box]) - 1
    return layers


def _connected(total: int, ends: Sequence[tuple[int, int]]) -> list[list[int]]:
    near: list[list[int]] = [[] for _ in range(total)]
    for upper, lower in ends:
        near[upper].append(lower)
        near[lower].append(upper)
    parts: list[list[int]] = []
    seen: set[int] = set()
    for start in range(total):
        if start in seen:
            continue
        part = [start]
        seen.add(start)
        for box in part:  # grows while it is read
            fresh = [other for other in dict.fromkeys(near[box]) if other not in seen]
            seen.update(fresh)
            part.extend(fresh)
        parts.append(sorted(part))
    return parts


def _apart(wanted: Sequence[float], widths: Sequence[float], gap: float) -> list[float]:
    """Move intervals apart in their order, as little as possible: least squares over their middles."""
    offsets = [0.0]
    for left, right in pairwise(widths):
        offsets.append(offsets[-1] + (left + right) / 2 + gap)
    blocks: list[tuple[float, int]] = []  # a sum of origins and how many share it: adjacent violators are pooled
    for want, offset in zip(wanted, offsets, strict=True):
        total, members = want - offset, 1
        while blocks and blocks[-1][0] / blocks[-1][1] >= total / members:
            total, members = total + blocks[-1][0], members + blocks[-1][1]
            blocks.pop()
        blocks.append((total, members))
    origins = [total / members for total, members in blocks for _ in range(members)]
    return [origin + offset for origin, offset in zip(origins, offsets, strict=True)]


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _x_at(y: float, start: Point, end: Point) -> float:
    """Return where the curve of a route passes a height, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(20):
        t = (low + high) / 2
        passed = start[1] + (end[1] - start[1]) * (1.5 * t - 1.5 * t * t + t**3)
        low, high = (t, high) if passed < y else (low, t)
    return start[0] + (end[0] - start[0]) * (3 * low * low - 2 * low**3)


class _Part:
    """Boxes that are connected, being laid out.

    A vertex is a box or, where a link passes a row, a bend: a small vertex of its own, so boxes make room.
    """

    def __init__(self, boxes: Sequence[Size], links: Sequence[Link], members: Sequence[int]) -> None:
        self.links = links
        self.sizes = {box: boxes[box] for box in members}
        self.chains: dict[int, list[int]] = {}  # link -> its vertices from top to bottom
        self.rows: list[list[int]] = []
        self.row_of: dict[int, int] = {}
        self.middles: dict[int, float] = {}  # vertex -> x
        self.ports: dict[tuple[int, int], float] = {}  # link, box -> x
        self.fan: Counter[tuple[int, bool]] = Counter()  # box, below it -> number of ports
        self.tops: list[float] = []  # of the rows
        self.heights: list[float] = []
        self.labels: dict[int, Point] = {}
        self.bends = count(len(boxes))
        self.shift = (0.0, 0.0)
        self.size = Size(0, 0)

    def arrange(self, layers: Mapping[int, int]) -> None:
        first = min(layers[box] for box in self.sizes)
        self.row_of = {box: layers[box] - first for box in self.sizes}
        self.rows = [[] for _ in range(max(self.row_of.values()) + 1)]
        for box, row in self.row_of.items():
            self.rows[row].append(box)
        self.bend()
        above: dict[int, list[int]] = {vertex: [] for vertex in self.row_of}
        below: dict[int, list[int]] = {vertex: [] for vertex in self.row_of}
        for chain in self.chains.values():
            for upper, lower in pairwise(chain):
                below[upper].append(lower)
                above[lower].append(upper)
        self.order(above, below)
        self.align(above, below)
        self.open_ports()
        self.stack()
        self.enclose()

    def bend(self) -> None:
        spans = {
            index: range(self.row_of[upper] + 1, self.row_of[lower]) for index, (upper, lower) in self.chains.items()
        }
        if sum(map(len, spans.values())) > MOST_BENDS:
            return  # rather lines behind boxes than no picture for minutes
        for index, span in spans.items():
            for row in span:
                vertex = next(self.bends)
                self.sizes[vertex] = Size(8, 0)
                self.row_of[vertex] = row
                self.rows[row].append(vertex)
                self.chains[index].insert(-1, vertex)

    def order(self, above: Mapping[int, list[int]], below: Mapping[int, list[int]]) -> None:
        """Sort each row by the barycentres of its neighbours, so that fewer links cross."""
        place = {vertex: index for row in self.rows for index, vertex in enumerate(row)}
        for sweep in range(SWEEPS):
            near, rows = (above, self.rows) if sweep % 2 == 0 else (below, self.rows[::-1])
            for row in rows:
                centres = {vertex: _mean([place[other] for other in near[vertex]], place[vertex]) for vertex in row}
                row.sort(key=centres.__getitem__)
                place.update((vertex, index) for index, vertex in enumerate(row))

    def align(self, above: Mapping[int, list[int]], below: Mapping[int, list[int]]) -> None:
        """Move each vertex towards the middle of its neighbours, within the order of its row."""
        both = {vertex: above[vertex] + below[vertex] for vertex in self.row_of}
        self.middles = x = dict.fromkeys(self.row_of, 0.0)
        for sweep in range(SWEEPS):
            downwards = sweep % 2 == 0
            near = both if sweep >= SWEEPS - 2 else above if downwards else below
            for row in self.rows if downwards else self.rows[::-1]:
                wanted = [_mean([x[other] for other in near[vertex]], x[vertex]) for vertex in row]
                widths = [self.sizes[vertex].width for vertex in row]
                x.update(zip(row, _apart(wanted, widths, COLUMN_GAP), strict=True))

    def open_ports(self) -> None:
        """Let the links of a box start, and end, side by side in the order of where they lead."""
        sides: dict[tuple[int, bool], list[tuple[float, int]]] = {}
        for index, chain in self.chains.items():
            sides.setdefault((chain[0], True), []).append((self.middles[chain[1]], index))
            sides.setdefault((chain[-1], False), []).append((self.middles[chain[-2]], index))
        self.fan = Counter({side: len(leading) for side, leading in sides.items()})
        for (box, _), leading in sides.items():
            step = min(PORT_GAP, self.sizes[box].width * 0.7 / len(leading))
            for place, (_, index) in enumerate(sorted(leading)):
                self.ports[index, box] = self.middles[box] + step * (place - (len(leading) - 1) / 2)

    def stack(self) -> None:
        """Give each row its height, and each gap below room for its labels and for wide curves."""
        ending: dict[int, list[int]] = {}
        for index, chain in self.chains.items():
            ending.setdefault(self.row_of[chain[-1]] - 1, []).append(index)
        y = 0.0
        for number, row in enumerate(self.rows):
            self.tops.append(y)
            self.heights.append(max(self.sizes[vertex].height for vertex in row))
            y += self.heights[-1]
            y += self.label(ending.get(number, []), y)

    def last_curve(self, index: int) -> tuple[float, float]:
        *_, before, end = self.chains[index]
        return self.ports.get((index, before), self.middles[before]), self.ports[index, end]

    def label(self, ending: Sequence[int], top: float) -> float:
        """Place the labels of the links that end below the gap at ``top``, and return its height.

        A label stands where its link is least among others: low if many links start together, high if many
        end together. Labels that would overlap go to lines of their own.
        """
        curves = {index: self.last_curve(index) for index in ending}
        lines = [line for band in self.bands(ending) for line in self.lines(band, curves)]
        sizes = [self.label_size(index) for _, line in lines for index in line]
        step = max((size.height for size in sizes), default=0) + LABEL_GAP
        bend = max((min(abs(end - start) / 6, 90) for start, end in curves.values()), default=0)
        height = max(ROW_GAP + step * len(lines), bend)
        for number, (where, line) in enumerate(lines):
            spare = height - step * len(lines) - 22  # 8 px above the first line, 14 px for arrowheads
            y = top + 8 + spare * where + step * (number + 0.5)
            self.place_line(line, y, {i: ((curves[i][0], top), (curves[i][1], top + height)) for i in line})
        return height

    def bands(self, ending: Sequence[int]) -> list[tuple[float, list[int]]]:
        """Sort the labelled links into high (0), middle and low (1)."""
        bands: dict[float, list[int]] = {0.0: [], 0.5: [], 1.0: []}
        for index in ending:
            if self.links[index].label:
                lead = self.fan[self.chains[index][-2], True] - self.fan[self.chains[index][-1], False]
                bands[0.5 + (lead > 0) / 2 - (lead < 0) / 2].append(index)
        return list(bands.items())

    def lines(
        self, band: tuple[float, list[int]], curves: Mapping[int, tuple[float, float]]
    ) -> list[tuple[float, list[int]]]:
        """Distribute a band's labels over lines: each to the first where it has room."""
        where, members = band
        share = 0.5 + (where - 0.5) * 0.8
        middles = {index: curves[index][0] * (1 - share) + curves[index][1] * share for index in members}
        lines: list[tuple[float, list[int]]] = []
        rights: list[float] = []
        for index in sorted(members, key=middles.__getitem__):
            left = middles[index] - self.label_size(index).width / 2
            free = next((n for n, right in enumerate(rights) if right + LABEL_GAP <= left), len(lines))
            if free == len(lines):
                lines.append((where, []))
                rights.append(left)
            lines[free][1].append(index)
            rights[free] = left + self.label_size(index).width
        return lines

    def place_line(self, line: Sequence[int], y: float, curves: Mapping[int, tuple[Point, Point]]) -> None:
        wanted = {index: _x_at(y, *curves[index]) for index in line}
        order = sorted(line, key=wanted.__getitem__)
        widths = [self.label_size(index).width for index in order]
        middles = _apart([wanted[index] for index in order], widths, LABEL_GAP)
        self.labels.update((index, (x, y)) for index, x in zip(order, middles, strict=True))

    def label_size(self, index: int) -> Size:
        return self.links[index].label or Size(0, 0)

    def enclose(self) -> None:
        spans = [(x, self.sizes[vertex].width / 2) for vertex, x in self.middles.items()]
        spans += [(x, label.width / 2) for i, (x, _) in self.labels.items() if (label := self.links[i].label)]
        left = min(x - half for x, half in spans)
        self.shift = (-left, 0.0)
        self.size = Size(max(x + half for x, half in spans) - left, self.tops[-1] + self.heights[-1])

    def move(self, x: float, y: float) -> None:
        self.shift = self.shift[0] + x, self.shift[1] + y

    def corners(self, boxes: int) -> Iterator[tuple[int, Point]]:
        for box, middle in self.middles.items():
            if box < boxes:
                yield box, (middle - self.sizes[box].width / 2 + self.shift[0], self.top(box) + self.shift[1])

    def top(self, box: int) -> float:
        row = self.row_of[box]
        return self.tops[row] + (self.heights[row] - self.sizes[box].height) / 2

    def route(self, index: int) -> Route:
        first, *bends, last = self.chains[index]
        points = [(self.ports[index, first], self.top(first) + self.sizes[first].height)]
        for bend in bends:
            top, height = self.tops[self.row_of[bend]], self.heights[self.row_of[bend]]
            points += [(self.middles[bend], top), (self.middles[bend], top + height)]
        points.append((self.ports[index, last], self.top(last)))
        moved = [(x + self.shift[0], y + self.shift[1]) for x, y in points]
        label = self.labels.get(index)
        return Route(
            tuple(moved if first == self.links[index].source else moved[::-1]),
            label and (label[0] + self.shift[0], label[1] + self.shift[1]),
        )


def _shelve(parts: Sequence[_Part]) -> Size:
    """Put the parts side by side in lines, about as wide as high in all, and return the size of all."""
    area = sum((part.size.width + PART_GAP) * (part.size.height + PART_GAP) for part in parts)
    most = max([1.4 * sqrt(area), *(part.size.width for part in parts)])
    x = y = height = width = 0.0
    for part in parts:
        if x and x + part.size.width > most:
            x, y, height = 0.0, y + height + PART_GAP, 0.0
        part.move(x, y)
        x += part.size.width + PART_GAP
        height = max(height, part.size.height)
        width = max(width, x - PART_GAP)
    return Size(width, y + height)
