"""``dataflow load``: rows of a file become records, bad ones go to a file of their own."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import click

from dataflow.cli.app import app_option, opened
from dataflow.cli.lookup import pick_model
from dataflow.cli.output import json_option, print_json
from dataflow.cli.program import PROBLEM
from dataflow.cli.surroundings import Around, around_options

if TYPE_CHECKING:
    from dataflow.files.options import Report


@click.command()
@click.argument("file")
@click.option("--model", "model", metavar="MODEL", required=True, help="The model that the rows are records of.")
@app_option
@click.option("--format", "format", type=click.Choice(["csv", "jsonl", "parquet"]), help="By default, what FILE says.")
@click.option("--upsert", metavar="KEY[,KEY]", default="", help="Update records that are there, by this unique key.")
@click.option("--dry-run", is_flag=True, help="Check everything, and write nothing.")
@click.option(
    "--on-error",
    type=click.Choice(["reject", "stop"]),
    default="reject",
    show_default=True,
    help="Bad rows: put them into the reject file and load the rest, or load nothing.",
)
@click.option("--reject-file", metavar="FILE", help="Where bad rows go; by default beside FILE.")
@click.option("--batch-size", type=click.IntRange(1), metavar="N", help="Rows per transaction (10000).")
@click.option("--resume", is_flag=True, help="Only go on with a load that was interrupted.")
@click.option("--restart", is_flag=True, help="Load from the first row, whatever was loaded of the file before.")
@click.option("--skip", metavar="COLUMN[,COLUMN]", default="", help="Leave columns out.")
@click.option("--delimiter", metavar="CHAR", help="Between the cells of CSV (a comma; a tab for .tsv).")
@click.option("--encoding", metavar="NAME", default="utf-8", show_default=True, help="Of the text of CSV.")
@around_options
@json_option
def load(
    file: str,
    model: str,
    app: str | None,
    upsert: str,
    skip: str,
    delimiter: str | None,
    batch_size: int | None,
    *,
    tenant: str | None,
    all_tenants: str | None,
    actor: str | None,
    unlocked: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Load the rows of FILE (CSV, JSON Lines or Parquet; - is standard input) into a model.

    A load that was interrupted goes on where it was when it is run again: no row is lost, none comes twice.
    """
    from dataflow.files import load as load_file

    options |= {"upsert": names(upsert), "skip": names(skip), "delimiter": tab(delimiter)}
    if batch_size is not None:
        options["batch_size"] = batch_size
    with opened(app) as found, ExitStack() as stack:
        bound = pick_model(found, model)
        Around(tenant, all_tenants, actor, unlocked).enter(found, stack)
        with shown(f"{model} from {file}", shows=not as_json) as tell:
            report = load_file(found.db, bound.name, file, progress=tell, **options)
    if as_json:
        print_json(report.to_dict())
    else:
        _print(report)
    if report.rejected:
        click.get_current_context().exit(PROBLEM)


def names(text: str) -> list[str]:
    """Read a list of names that commas separate."""
    return [name.strip() for name in text.split(",") if name.strip()]


def tab(delimiter: str | None) -> str | None:
    r"""Read a delimiter; ``\t`` is a tab."""
    return "\t" if delimiter in (r"\t", "tab") else delimiter


@contextmanager
def shown(what: str, *, shows: bool) -> "Iterator[Callable[[Report], None] | None]":
    """Show progress on standard error, where that is a terminal."""
    if not (shows and sys.stderr.isatty()):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rows]:,} rows"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None, rows=0)

        def tell(report: "Report") -> None:
            bar.update(task, total=report.size or None, completed=report.read, rows=report.rows)

        yield tell


def _print(report: "Report") -> None:
    """Print what was done: one line, the first faults, and where the others are."""
    done = [f"{report.created:,} created"]
    done += [f"{value:,} {name}" for name in ("updated", "skipped", "rejected") if (value := getattr(report, name))]
    verb = {"loaded": "loaded", "checked": "checked, nothing written", "already-loaded": "loaded already"}[
        report.status
    ]
    click.echo(f"{report.file}: {verb}: {report.rows:,} row{'s' * (report.rows != 1)} read, {', '.join(done)}")
    if report.resumed_at and report.status == "loaded":
        click.echo(f"  went on after row {report.resumed_at:,}")
    for note in report.notes:
        click.echo(f"  {note}")
    for fault in report.faults:
        field = f" {fault['field']}:" if fault["field"] and not fault["reason"].startswith(fault["field"]) else ""
        click.echo(f"  line {fault['line']}:{field} {fault['reason']}")
    if report.rejected > len(report.faults) > 0:
        click.echo(f"  … and {report.rejected - len(report.faults):,} more")
    if report.reject_file:
        click.echo(f"  bad rows are in {report.reject_file}; correct them there, and load that file")
