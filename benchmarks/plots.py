"""Pictures of what was measured: ``python -m benchmarks.plots FILE.json`` writes SVG files.

Takes the documents of `scale` (curves) and of ``python -m benchmarks --json`` (contests). Knows their form, and nothing
of how the numbers came about. The same document gives the same bytes.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

INK = "#6e7781"
"""Of text and axes: legible on white and on black, as the background is left out. So are the colours."""
COLOURS = ("#2f81f7", "#d9730d", "#2da44e", "#cf4a4a", "#a371f7", "#0aa5a5", "#bf8700", "#e0569b", "#7a8793", "#8a6d3b")
MARKERS = "osD^vPX<>h"
MET, MISSED, FREE, TARGET = "#2da44e", "#cf4a4a", "#7a8793", "#a371f7"
DATABASES = {"sqlite": "SQLite", "postgresql": "PostgreSQL", None: "no database"}
STYLE: Any = {  # of the names that matplotlib knows
    "svg.fonttype": "none",
    "svg.hashsalt": "dataflow",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}

Curve = Mapping[str, Any]
"""As `scale` writes it."""


@attrs.frozen
class Panel:
    """One pair of axes.

    Attributes:
        title: above it.
        lines: label -> curve.
    """

    title: str
    lines: Mapping[str, Curve]


def _label(curve: Curve) -> str:
    return str(curve["name"]).partition("/")[2]


def _sides(prefix: str) -> Callable[[Sequence[Curve]], list[Panel]]:
    """Return what makes a panel for each database, a line for each operation."""

    def panels(curves: Sequence[Curve]) -> list[Panel]:
        chosen = [curve for curve in curves if curve["name"].startswith(prefix)]
        databases = dict.fromkeys(curve["database"] for curve in chosen)
        return [
            Panel(DATABASES[name], {_label(curve): curve for curve in chosen if curve["database"] == name})
            for name in databases
        ]

    return panels


def _parts(titles: Mapping[str, str], *, kinds: bool = False) -> Callable[[Sequence[Curve]], list[Panel]]:
    """Return what makes a panel for each part, a line for each database.

    Args:
        titles: how the names of a part's curves begin -> title.
        kinds: whether what follows a comma in their names belongs to the label.
    """

    def label(curve: Curve) -> str:
        kind = _label(curve).partition(", ")[2] + ", " if kinds else ""
        return kind + DATABASES[curve["database"]]

    def panels(curves: Sequence[Curve]) -> list[Panel]:
        found = [
            Panel(title, {label(curve): curve for curve in curves if curve["name"].startswith(prefix)})
            for prefix, title in titles.items()
        ]
        return [panel for panel in found if panel.lines]

    return panels


_BUILD_AND_RUN = {"workflow/build": "build()", "workflow/run": "a run"}
_REGISTERED = {"models/register": "registering", "models/memory": "memory", "models/first": "the first operation"}
FIGURES: Mapping[str, tuple[str, Callable[[Sequence[Curve]], list[Panel]]]] = {
    "single": ("Single operations", _sides("one/")),
    "paging": ("Pages of 50 records", _sides("page/")),
    "bulk": ("Bulk operations", _sides("bulk/")),
    "workflows": ("Workflows: chains of nodes", _parts(_BUILD_AND_RUN, kinds=True)),
    "models": ("Models", _parts(_REGISTERED)),
    "concurrency": ("Workflows of a read and an update", _parts({"concurrent/": ""})),
}
"""File -> title, and what makes the panels."""


# -- curves -----------------------------------------------------------------------------------------------------------
def _short(value: float, _: int = 0) -> str:
    """Write 20000 as 20k."""
    for size, letter in ((10**6, "M"), (10**3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _numbers(axis: Any, steps: Sequence[float] = (1.0,), *, base: int = 10) -> None:
    """Put numbers on a logarithmic axis: at each power of the base, times each step."""
    axis.set_major_locator(LogLocator(base=base, subs=steps, numticks=20))
    axis.set_major_formatter(FuncFormatter(_short))
    axis.set_minor_locator(NullLocator())


def _steps(low: float, high: float) -> Sequence[float]:
    """Return steps that put a few numbers on an axis, however short it is."""
    return (1.0,) if high / low > 300 else (1.0, 2.0, 5.0) if high / low > 10 else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)


def _panel(axes: Axes, panel: Panel, looks: Mapping[str, tuple[str, str]]) -> None:
    for label, curve in panel.lines.items():
        colour, marker = looks[label]
        x, y = zip(*curve["points"], strict=True)
        axes.plot(x, y, color=colour, marker=marker, markersize=4, linewidth=1.4, label=label)
    first = next(iter(panel.lines.values()))
    axes.set(title=panel.title, xlabel=first["x"], ylabel=first["y"], xscale="log", yscale="log")
    _numbers(axes.xaxis, base=2 if first["x"] == "runs at once" else 10)
    axes.grid(visible=True)


def _reach(panels: Iterable[Panel]) -> tuple[float, float]:
    """Return where the y axis begins and ends: with room around the lines, so that noise does not fill the picture."""
    values = [y for panel in panels for curve in panel.lines.values() for _, y in curve["points"]]
    return min(values) / 2, max(values) * 2


def draw(title: str, panels: Sequence[Panel]) -> Figure:
    """Draw panels side by side, with one legend; panels that measure the same share their scale."""
    last = {label: curve["points"][-1][1] for panel in panels for label, curve in panel.lines.items()}
    looks = {label: (COLOURS[i % 10], MARKERS[i % 10]) for i, label in enumerate(last)}
    shared = len({curve["y"] for panel in panels for curve in panel.lines.values()}) == 1
    figure = Figure(figsize=(2.3 + 2.5 * len(panels), 3.6), layout="constrained")
    found = figure.subplots(1, len(panels), sharey=shared, squeeze=False)[0]
    for axes, panel in zip(found, panels, strict=True):
        _panel(axes, panel, looks)
        low, high = _reach(panels if shared else [panel])
        axes.set_ylim(low, high)
        _numbers(axes.yaxis, _steps(low, high))
        if shared and axes is not found[0]:
            axes.set_ylabel("")
    ranked = sorted(last, key=lambda label: -last[label])  # as the lines end
    handles = [Line2D([], [], color=looks[name][0], marker=looks[name][1], markersize=4, label=name) for name in ranked]
    figure.legend(handles=handles, loc="outside right center")
    figure.suptitle(title, fontsize=11)
    return figure


# -- contests ---------------------------------------------------------------------------------------------------------
def _wanted(target: str) -> float | None:
    """Return the highest ratio of the times that a target allows; None where it is no ratio."""
    found = re.fullmatch(r"[≤≥] ([\d.]+) ×( speed)?", target)
    if found is None:
        return None
    return 1 / float(found[1]) if found[2] else float(found[1])


def bars(outcomes: Iterable[Mapping[str, Any]]) -> Figure:
    """Draw the time that DataFlow takes as a multiple of the driver's, with the targets."""
    shown = [outcome for outcome in outcomes if outcome["ratio"] is not None]
    colours = [{True: MET, False: MISSED, None: FREE}[outcome["met"]] for outcome in shown]
    ratios = [outcome["ratio"] for outcome in shown]
    figure = Figure(figsize=(8.6, 1.5 + 0.26 * len(shown)), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.barh(range(len(shown)), [ratio - 1 for ratio in ratios], left=1, color=colours, height=0.62)
    axes.axvline(1, color=INK, linewidth=1)
    targets = [(place, wanted) for place, outcome in enumerate(shown) if (wanted := _wanted(outcome["target"]))]
    axes.vlines(
        [wanted for _, wanted in targets], [place - 0.42 for place, _ in targets],
        [place + 0.42 for place, _ in targets], color=TARGET, linewidth=2.5,
    )  # fmt: skip
    for place, ratio in enumerate(ratios):
        # A column beside the axes, as at the ends of the bars the marks of targets would be in the way.
        axes.annotate(f"{ratio:.2f}", (1.01, place), xycoords=("axes fraction", "data"), va="center")
    axes.set_yticks(range(len(shown)), [f"{outcome['name']} ({outcome['reference']})" for outcome in shown])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    low, high = min([*ratios, 0.5]), max([*ratios, 2])
    _numbers(axes.xaxis, _steps(low, high))
    axes.set_xlim(low / 1.4, high * 1.4)
    axes.set_xlabel("time of DataFlow as a multiple of the driver's: less is faster")
    axes.grid(visible=True, axis="x")
    axes.set_axisbelow(True)
    kinds = ((MET, "target met"), (MISSED, "target missed"), (FREE, "no target"))
    handles: list[Any] = [Patch(color=colour, label=label) for colour, label in kinds if colour in colours]
    handles.append(
        Line2D([], [], color=TARGET, linewidth=0, marker="|", markersize=9, markeredgewidth=2.5, label="target")
    )
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


# -- the command line -------------------------------------------------------------------------------------------------
def pictures(document: Mapping[str, Any]) -> dict[str, Figure]:
    """Draw what a document holds: name of the file -> picture."""
    if "outcomes" in document:
        return {"ratios": bars(document["outcomes"])}
    drawn = {}
    for name, (title, make) in FIGURES.items():
        panels = make(document["curves"])
        if panels:
            drawn[name] = draw(title, panels)
    return drawn


def main(arguments: list[str] | None = None) -> int:
    """Write the pictures of a document."""
    parser = argparse.ArgumentParser("python -m benchmarks.plots", description=__doc__)
    parser.add_argument("document", type=Path, help="written by `python -m benchmarks[.scale] --json`")
    parser.add_argument("--to", type=Path, default=Path("docs/explanation/performance"), help="folder")
    parser.add_argument("--format", choices=["svg", "png"], default="svg", help="png: to look at")
    options = parser.parse_args(arguments)
    options.to.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        document = json.loads(options.document.read_text())
        place = "{implementation} {python}, {system}, {cores} cores".format_map(document["before"])
        for name, figure in pictures(document).items():
            figure.supxlabel(place, fontsize=7)
            path = options.to / f"{name}.{options.format}"
            # No date and no version: the bytes change when the numbers do.
            about = {"Date": None, "Creator": None} if options.format == "svg" else {"Software": None}
            figure.savefig(path, format=options.format, metadata=about, dpi=130)
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
