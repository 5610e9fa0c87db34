"""``dataflow dev-pg``: a PostgreSQL server for a newcomer, which runs until Ctrl-C and keeps its data."""

import signal
from pathlib import Path

import click

from dataflow.cli.output import json_option, print_json
from dataflow.errors import DatabaseUnavailable
from dataflow.testing.server import PostgresServer

DATABASE = "dataflow"


@click.command("dev-pg")
@click.option(
    "--data", type=click.Path(file_okay=False, path_type=Path), default=Path(".dataflow-pg"), show_default=True,
    metavar="DIR", help="Folder that keeps the data between starts; created when missing.",
)  # fmt: skip
@click.option(
    "--port", type=click.IntRange(1, 65535), metavar="PORT",
    help="TCP port at 127.0.0.1. By default that of the last start with these data, or a free one.",
)  # fmt: skip
@json_option
def dev_pg(data: Path, port: int | None, *, as_json: bool) -> None:
    """Run a PostgreSQL server to develop with, until Ctrl-C.

    Prints the URL of a database. The next start with the same folder finds the data again, under the same URL if its
    port is still free. Everybody on this machine may connect: it is nothing for secrets.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # as Ctrl-C
    try:
        with PostgresServer(folder=data, port=port, fast=False) as server:
            (server.folder / ".gitignore").write_text("*\n")
            if not server.psql("SELECT 1 FROM pg_database WHERE datname = :'name'", name=DATABASE):
                server.psql('CREATE DATABASE :"name"', name=DATABASE)
            _show(server, as_json=as_json)
            server.wait()
            raise DatabaseUnavailable("PostgreSQL ended by itself", hint=f"see its log: {server.log}")
    except KeyboardInterrupt:
        return


def _show(server: PostgresServer, *, as_json: bool) -> None:
    url = server.url(DATABASE)
    if as_json:
        print_json({"url": url, "port": server.port, "data": str(server.folder)})
    else:
        click.echo(f"PostgreSQL runs until Ctrl-C; its data are in {server.folder}\n\nexport DATABASE_URL={url}\n")
