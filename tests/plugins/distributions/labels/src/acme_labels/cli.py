"""The command."""

import click


@click.command()
@click.argument("number", type=int)
def labels(number):
    """List colours."""
    for step in range(number):
        click.echo(f"{step * 17:02x}" * 3)
