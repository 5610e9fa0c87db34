"""``dataflow stubs``: type stubs that make mypy and pyright know the models of an application."""

from pathlib import Path

import click

from dataflow.cli.app import app_option, opened
from dataflow.cli.output import counted, json_option, print_json
from dataflow.cli.program import PROBLEM, CommandError
from dataflow.stubs import FOLDER

SHOWN = 20
"""Lines of a difference that are shown per file."""


@click.command()
@app_option
@click.option("--out", metavar="FOLDER", default=FOLDER, show_default=True, help="Where to write them.")
@click.option("--check", is_flag=True, help="Write nothing; fail if the stubs in the folder are not current.")
@json_option
@click.pass_context
def stubs(ctx: click.Context, app: str | None, out: str, *, check: bool, as_json: bool) -> None:
    r"""Write type stubs, with which type checkers know the models of an application.

    pyright finds the folder `typings` by itself. For mypy, in pyproject.toml:

    \b
    [tool.mypy]
    mypy_path = "$MYPY_CONFIG_FILE_DIR/typings"
    plugins = ["dataflow.mypy"]
    """
    from dataflow.stubs import compare, render, write

    with opened(app) as found:
        core = found.db.core
        if not core.models:
            msg = f"{found.reference} has no models, so there is nothing to know about them"
            raise CommandError(msg, hint="register a class with @db.model, or name another --app", code="no-models")
        files = render(core)
        what = f"{counted(len(core.models), 'model')} of {found.reference}"
    folder = Path(out)
    try:
        changed = compare(files, folder)
        if not check:
            write({path: files[path] for path in changed}, folder)
    except OSError as error:
        msg = f"{out!r} cannot be {'read' if check else 'written'}: {error.strerror}"
        raise CommandError(msg, hint="choose another folder: --out", code="bad-file") from error
    if as_json:
        key = "outdated" if check else "written"
        print_json({"app": found.reference, "folder": out, "files": list(files), key: list(changed)})
    elif not check:
        text = f"wrote {counted(len(changed), 'file')}" if changed else "all files are current"
        click.echo(f"{text} in {out}: {what}")
    elif changed:
        _tell(
            changed,
            folder,
            f"dataflow stubs --app {app or found.reference}" + (f" --out {out}" if out != FOLDER else ""),
        )
    else:
        click.echo(f"the stubs in {out} are current: {what}")
    ctx.exit(PROBLEM if check and changed else 0)


def _tell(changed: dict[str, list[str]], folder: Path, command: str) -> None:
    for path, lines in changed.items():
        click.echo(f"{folder / path}:")
        for line in lines[:SHOWN]:
            click.echo(f"  {line}")
        if len(lines) > SHOWN:
            click.echo(f"  … {counted(len(lines) - SHOWN, 'more line')}")
    click.echo(f"\n{counted(len(changed), 'file')} not current; to write them: {command}")
