"""``dataflow demo``: a small application, shown and run; all in memory."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from dataflow.cli.output import heading, indented, json_option, print_json, show, table
from dataflow.cli.program import CommandError
from dataflow.cli.values import plain

if TYPE_CHECKING:
    from rich.console import RenderableType

SHOP = """\
from decimal import Decimal

from dataflow import DataFlow

db = DataFlow(":memory:")  # "sqlite:///shop.db" would keep the data


@db.model
class Customer:
    name: str
    email: str

    __indexes__ = [{"name": "uq_email", "fields": ["email"], "unique": True}]


@db.model
class Order:
    customer_id: int  # relates to Customer, by its name
    total: Decimal
    tags: list[str] = []


shopping = db.workflow()
shopping.add_node("CustomerUpsertNode", "ada", {
    "where": {"email": "ada@example.com"}, "create": {"name": "Ada"},
})
shopping.add_node("OrderBulkCreateNode", "orders", {"data": [
    {"total": Decimal("12.50")},
    {"total": Decimal("30.25"), "tags": ["gift"]},
]})
shopping.add_node("OrderListNode", "gifts", {
    "filter": {"tags": {"$contains": "gift"}, "customer": {"name": "Ada"}},
})
shopping.add_node("OrderAggregateNode", "spent", {
    "group_by": ["customer_id"], "aggregate": {"sum": {"$sum": "total"}},
})
shopping.add_connection("ada", "id", "orders", "customer_id")
shopping.add_connection("orders", "result", "gifts", "input")  # only order
shopping.add_connection("orders", "result", "spent", "input")
db.register_workflow("shopping", shopping)
"""

NEXT = (
    ("dataflow demo --save shop.py", "keep this application"),
    ("dataflow nodes Order --app shop.py", "what a model's nodes take"),
    ("dataflow graph --app shop.py --svg shop.svg", "a picture of the workflow"),
    ("dataflow run shopping --app shop.py", "run it, with results as JSON"),
    ("dataflow doctor", "check this installation"),
)


@click.command()
@click.option("--save", metavar="FILE", help="Also write the application to a file that does not exist yet.")
@json_option
def demo(save: str | None, *, as_json: bool) -> None:
    """Show DataFlow at work, in memory: two models, their nodes, a workflow and its results."""
    from dataflow.runtime import LocalRuntime

    if save:
        _save(Path(save))
    name = "dataflow_demo"
    module = sys.modules[name] = ModuleType(name)
    try:
        exec(compile(SHOP, "shop.py", "exec"), module.__dict__)  # noqa: S102  # the text above: what is shown is what runs
        with module.db as db:
            workflow = module.shopping.build()
            start = perf_counter()
            results, run_id = LocalRuntime().execute(workflow)
            seconds = perf_counter() - start
            nodes = {model: list(db.core.model(model).nodes) for model in db.list_models()}
            mermaid, mistake = workflow.to_mermaid(), _mistake(module)
    finally:
        del sys.modules[name]
    if as_json:
        print_json(
            {
                "source": SHOP,
                "nodes": nodes,
                "mermaid": mermaid,
                "run_id": run_id,
                "results": results,
                "mistake": mistake,
            }
        )
        return
    show(*_page(nodes, results, seconds, mistake))


def _mistake(module: ModuleType) -> str:
    """Return what DataFlow answers to a typing error."""
    from dataflow.errors import WorkflowBuildError

    try:
        module.db.workflow().add_node("OrderListNode", "list", {"filter": {"totl": {"$gt": 20}}}).build()
    except WorkflowBuildError as error:
        return str(error)
    return ""


def _save(path: Path) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(SHOP)
    except OSError as error:
        msg = f"{str(path)!r} cannot be written: {error.strerror}"
        raise CommandError(msg, hint="name a file that does not exist yet", code="bad-file") from error
    click.echo(f"wrote {path}", err=True)


def _page(
    nodes: dict[str, list[str]], results: dict[str, Any], seconds: float, mistake: str
) -> "Iterator[RenderableType]":

    yield heading("You write classes, and wire the nodes generated for them")
    yield indented("\n" + SHOP)
    (first, types), *others = nodes.items()
    yield heading(f"DataFlow generated {len(types)} nodes for {first}, and the same for {others[0][0]}")
    yield indented(", ".join(types))
    yield ""
    yield heading(f"The workflow ran in {seconds * 1000:.0f} ms, from the first CREATE TABLE on; its results")
    yield table(("node", "result"), [(node, json.dumps(plain(result))) for node, result in results.items()], indent=2)
    yield ""
    yield heading('A typing error, {"filter": {"totl": {"$gt": 20}}}, is found before anything runs')
    yield indented(mistake)
    yield ""
    yield heading("Next")
    yield table(("", ""), NEXT, indent=2)
