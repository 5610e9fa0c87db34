"""The group behind ``dataflow``: finds commands without importing them, and turns errors into text and exit codes."""

import difflib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from dataflow import __version__
from dataflow.cli.discovery import Command, Discovery, discover
from dataflow.cli.output import print_json
from dataflow.errors import DataFlowError, PluginLoadError
from dataflow.plugins.hints import extra_for
from dataflow.plugins.specs import load

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

PROBLEM, USAGE, INTERRUPTED = 1, 2, 130
"""Exit codes; 0 when all is well."""
_DISCOVERY = "dataflow.discovery"


class CommandError(DataFlowError):
    """The command line names something that does not exist or cannot be read; the program exits with 2."""

    code = "command-line"


def discovery(ctx: click.Context) -> Discovery:
    """Return what plugins offer, found once per run of the program."""
    if _DISCOVERY not in ctx.meta:
        ctx.meta[_DISCOVERY] = discover()
    found: Discovery = ctx.meta[_DISCOVERY]
    return found


class Program(click.Group):
    """A group whose commands come from plugins."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, core's first."""
        return list(discovery(ctx).commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command that is about to run."""
        command = discovery(ctx).commands.get(cmd_name)
        return None if command is None else _load(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with the help texts of their descriptors, importing none."""
        found = discovery(ctx)
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.spec.help) for name, command in found.commands.items()])
        if found.problems:
            formatter.write_paragraph()
            formatter.write_text(f"Problems with plugins: {len(found.problems)}; see 'dataflow plugins'.")

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Complete names of commands, importing none."""
        from click.shell_completion import CompletionItem

        names = discovery(ctx).commands
        own = [CompletionItem(name, help=names[name].spec.help) for name in names if name.startswith(incomplete)]
        return own + click.Command.shell_complete(self, ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one was meant."""
        names = discovery(ctx).commands
        if args[0] not in names and not args[0].startswith("-") and not ctx.resilient_parsing:
            close = difflib.get_close_matches(args[0], names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"commands: {', '.join(names)}"
            hint = extra_for("command", args[0]) or hint
            ctx.fail(f"there is no command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Show the help when nothing is given, which is a usage error in every version of click."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(USAGE)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> None:
        """Run the command; what it returns is not an exit code."""
        super().invoke(ctx)

    def main(self, args: Sequence[str] | None = None, **options: Any) -> NoReturn:  # type: ignore[override]
        """Run the program and exit."""
        given = list(sys.argv[1:] if args is None else args)
        as_json = "--json" in (given[: given.index("--")] if "--" in given else given)
        options["standalone_mode"] = False
        try:
            code = super().main(args, **options) or 0
        except click.ClickException as error:
            code = error.exit_code
            if as_json:
                print_json(_usage_dict(error), err=True)
            else:
                error.show()
        except click.Abort:
            click.echo("Interrupted.", err=True)
            code = INTERRUPTED
        except DataFlowError as error:
            code = USAGE if isinstance(error, CommandError) else PROBLEM
            if as_json:
                print_json(error.to_dict(), err=True)
            else:
                click.echo(str(error), err=True)
        sys.exit(code)


def _load(command: Command) -> click.Command:
    if command.problem is not None:
        raise command.problem
    name = f"command {command.spec.name!r} of plugin {command.plugin!r}"
    try:
        loaded = load(command.spec.command)
    except Exception as error:
        cause = error.__cause__ or error
        msg = f"the {name} cannot be loaded: {type(cause).__name__}: {cause}"
        raise PluginLoadError(msg, hint="upgrade or reinstall the package that provides it") from error
    if not isinstance(loaded, click.Command):
        msg = f"the {name} is a {type(loaded).__name__}, not a click command"
        raise PluginLoadError(msg, hint="decorate it with @click.command()")
    return loaded


def _usage_dict(error: click.ClickException) -> dict[str, Any]:
    ctx = getattr(error, "ctx", None)
    hint = f"see '{ctx.command_path} --help'" if ctx is not None else ""
    out = {"error": type(error).__name__, "code": CommandError.code, "message": error.format_message()}
    return {**out, "hint": hint, "where": {}}


EPILOG = """\
All of these take --json: plain JSON on standard output, errors as JSON on standard error.

Exit codes: 0 all is well, 1 a problem was found, 2 the command line is wrong.
"""


@click.group(cls=Program, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dataflow", message="%(prog)s %(version)s")
def program() -> None:
    """DataFlow: models become workflow nodes.

    APP names your DataFlow: path/to/file.py, path/to/file.py:name or package.module:name. The variable DATAFLOW_APP
    stands in for --app.
    """
