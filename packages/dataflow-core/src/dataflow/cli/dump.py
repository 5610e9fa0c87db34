"""``dataflow dump``: records of a model become a file, which ``dataflow load`` reads back exactly."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any, cast

import click

from dataflow.cli.app import app_option, opened
from dataflow.cli.load import names, tab
from dataflow.cli.lookup import pick_model
from dataflow.cli.output import counted, json_option, print_json
from dataflow.cli.program import CommandError
from dataflow.cli.surroundings import Around, around_options
from dataflow.cli.values import read_json
from dataflow.errors import InputError
from dataflow.plan.bound import BoundModel
from dataflow.types import ValueRefused
from dataflow.workflow.tasks import Task


@click.command()
@click.option("--model", "model", metavar="MODEL", required=True, help="The model whose records are written.")
@app_option
@click.option("--out", "out", metavar="FILE", default="-", help="The file; standard output by default.")
@click.option(
    "--format", "format", type=click.Choice(["csv", "jsonl", "parquet"]), help="By default what FILE says, else csv."
)
@click.option("--filter", "filter", metavar="JSON", help='Only these records: \'{"age": {"$gte": 18}}\'.')
@click.option("--fields", metavar="FIELD[,FIELD]", default="", help="Only these fields, in this order.")
@click.option("--sort", metavar="FIELD[,FIELD]", default="", help="In this order; -FIELD is descending.")
@click.option("--delimiter", metavar="CHAR", help="Between the cells of CSV (a comma; a tab for .tsv).")
@around_options
@json_option
def dump(
    model: str,
    app: str | None,
    out: str,
    format: str | None,
    filter: str | None,
    fields: str,
    sort: str,
    delimiter: str | None,
    *,
    tenant: str | None,
    all_tenants: str | None,
    actor: str | None,
    unlocked: str | None,
    as_json: bool,
) -> None:
    """Write the records of a model as CSV, JSON Lines or Parquet, out of one snapshot of the database.

    The file is there when it is whole, and not before; 'dataflow load' reads the same records from it.
    """
    from dataflow.files import dump as dump_file

    kind = format or ("csv" if out == "-" else None)
    with opened(app) as found, ExitStack() as stack:
        bound = pick_model(found, model)
        document = None if filter is None else _filter(filter, bound)
        Around(tenant, all_tenants, actor, unlocked).enter(found, stack)
        with _shown(out, shows=not as_json) as tell:
            done = dump_file(
                found.db, bound.name, out, format=kind, filter=document, fields=names(fields) or None,
                sort=names(sort) or None, delimiter=tab(delimiter), progress=tell,
            )  # fmt: skip
    if as_json:
        print_json(done, err=out == "-")
    elif out != "-":
        click.echo(f"{out}: {counted(done['rows'], 'record')} of {model}")
        for note in done["notes"]:
            click.echo(f"  {note}")


def _filter(text: str, bound: BoundModel) -> Any:
    reader = SimpleNamespace(bound=bound, implementation=bound.operation("list"))
    try:
        found = read_json(text, cast("Task", reader), "filter")
    except ValueError as error:
        hint = 'write JSON: --filter \'{"name": "Ada"}\''
        raise CommandError("--filter is not JSON", hint=hint, code="bad-param") from error
    except (ValueRefused, InputError) as error:
        raise CommandError(f"--filter: {error.message}", hint=error.hint, code="bad-param") from error
    if not isinstance(found, dict):
        raise CommandError("--filter is not a JSON object", hint='write \'{"name": "Ada"}\'', code="bad-param")
    return found


@contextmanager
def _shown(out: str, *, shows: bool) -> Iterator[Callable[[int], None] | None]:
    """Show progress on standard error, where that is a terminal and the records do not go to one."""
    if not (shows and sys.stderr.isatty()) or (out == "-" and sys.stdout.isatty()):
        yield None
        return
    from rich.console import Console
    from rich.status import Status

    with Status("dumping", console=Console(stderr=True)) as status:
        yield lambda rows: status.update(f"{rows:,} records")
