"""The load: one workflow of BulkCreate nodes.

Each node is one transaction, so the database holds all its rows or none.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from dataflow import DataFlow
from dataflow.runtime import LocalRuntime, NodeEvent

from .data import Row, read
from .models import Airline, Airport, Flight, Plane, Weather


def read_all(limit: int | None) -> dict[str, tuple[str, list[Row]]]:
    """Read the files: node id -> (model, rows). The flights are cut by month; `limit` takes only the first of them."""
    batches = {
        "airlines": ("Airline", list(read("airlines", Airline))),
        "airports": ("Airport", list(read("airports", Airport))),
        "planes": ("Plane", list(read("planes", Plane))),
        "weather": ("Weather", list(read("weather", Weather))),
    }
    for flight in islice(read("flights", Flight), limit):
        batches.setdefault(f"flights_{flight['month']:02}", ("Flight", []))[1].append(flight)
    return batches


def load(db: DataFlow, batches: dict[str, tuple[str, list[Row]]], console: Console) -> dict[str, Any]:
    """Load the rows; those that an earlier run has loaded are skipped, by their unique keys."""
    total = sum(len(rows) for _, rows in batches.values())
    start = perf_counter()
    workflow = db.workflow()
    for node, (model, rows) in batches.items():
        workflow.add_node(f"{model}BulkCreateNode", node, {"data": rows, "conflict_resolution": "skip"})
    with show_progress(total, console) as progress:
        results, _ = LocalRuntime(progress=progress).execute(workflow.build())
    seconds = perf_counter() - start
    created = sum(result["created"] for result in results.values())
    return {"nodes": len(results), "rows": total, "created": created, "skipped": total - created, "seconds": seconds}


@contextmanager
def show_progress(total: int, console: Console) -> Iterator[Callable[[NodeEvent], None]]:
    """Show how far the load is: a bar on a terminal, else a line per node."""

    def print_line(event: NodeEvent) -> None:
        if event.result is not None:
            rows = event.result["total"]
            speed = rows / event.seconds
            console.out(f"{event.node_id:10} {rows:7,} rows {event.seconds:6.2f} s {speed:9,.0f} rows/s")

    if not console.is_terminal:
        yield print_line
        return
    columns = SpinnerColumn(), TextColumn("{task.description:10}"), BarColumn(), MofNCompleteColumn(), RowsPerSecond()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("loading", total=total)

        def move_bar(event: NodeEvent) -> None:
            if event.result is None:
                bar.update(task, description=event.node_id)
            else:
                bar.advance(task, event.result["total"])

        yield move_bar
        bar.update(task, description="loaded")


class RowsPerSecond(ProgressColumn):
    """How fast rows go in."""

    def render(self, task: Task) -> Text:
        """Return the column's text."""
        return Text(f"{task.finished_speed or task.speed or 0:,.0f} rows/s")
