"""``dataflow plugins``: what is active, disabled or broken, what each provides, and what conflicts.

Below it what plugin authors need: ``new`` begins a distribution (`scaffold`), ``check`` looks at one (`checking`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import click

from dataflow.cli.discovery import KINDS
from dataflow.cli.output import counted, heading, json_option, print_json, problem_list, show, table
from dataflow.cli.program import PROBLEM, discovery
from dataflow.plugins.manager import PluginInfo


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def plugins(ctx: click.Context, *, as_json: bool) -> None:
    """List plugins: what is active, broken, and why. Begin one of your own, or check it.

    Exits with 1 if a plugin is broken or two are in conflict.
    """
    if ctx.invoked_subcommand is not None:
        return
    found = discovery(ctx)
    provided, problems = found.provides()
    infos = sorted(found.plugins.infos, key=lambda info: info.name)
    if as_json:
        listed = [{**attrs.asdict(info), "provides": provided.get(info.name, {})} for info in infos]
        print_json({"ok": not problems, "plugins": listed, "problems": [attrs.asdict(problem) for problem in problems]})
    else:
        rows = [(info.name, info.state, info.distribution, _about(info, provided.get(info.name, {}))) for info in infos]
        show(table(("plugin", "state", "from", "provides"), rows), *problem_list(problems))
    ctx.exit(PROBLEM if problems else 0)


@plugins.command()
@click.argument("kind", type=click.Choice(["node", "feature", "dialect"]))
@click.argument("name")
@click.option("--into", metavar="FOLDER", default=".", help="Where to put it: NAME becomes a folder there.")
@json_option
def new(kind: str, name: str, into: str, *, as_json: bool) -> None:
    """Begin a plugin: a distribution called NAME with source, tests and README, which works as it is."""
    from dataflow.cli.scaffold import scaffold

    made = scaffold(kind, name, Path(into))
    if as_json:
        print_json({"ok": True, **attrs.asdict(made)})
        return
    click.echo(f"wrote {counted(len(made.files), 'file')} to {made.folder}")
    steps = (
        (f"cd {made.folder}", ""),
        ("pip install -e '.[test]'", "install it, in an environment of its own"),
        ("pytest", "run its tests"),
        ("dataflow plugins check .", "see whether it is ready for others"),
    )
    show("", heading("Next"), table(("", ""), steps, indent=2))


@plugins.command()
@click.argument("target", metavar="PATH")
@json_option
@click.pass_context
def check(ctx: click.Context, target: str, *, as_json: bool) -> None:
    """Check a plugin: the folder of its project, a wheel, or the name of an installed distribution.

    Builds the wheel, and looks at it in a process of its own. Exits with 1 if there is a problem; warnings are none.
    """
    from dataflow.cli.checking import check_target

    report = check_target(target)
    problems = [finding.as_problem() for finding in report.findings if finding.state == "problem"]
    warnings = [finding for finding in report.findings if finding.state == "warning"]
    if as_json:
        print_json({"ok": not problems, **attrs.asdict(report)})
    else:
        rows = [(finding.check, finding.state, finding.message) for finding in report.findings]
        show(heading(report.subject), table(("check", "state", "found"), rows))
        show(*problem_list(problems), *[f"\nwarning: {w.message}\n  fix: {w.hint}" for w in warnings if w.hint])
    ctx.exit(PROBLEM if problems else 0)


def _about(info: PluginInfo, provided: Mapping[str, Sequence[str]]) -> str:
    """Count what a plugin provides; of hooks that are called with a model or a DataFlow, give the names."""
    if info.state != "active":
        return info.reason if info.state == "disabled" else "see below"
    known = {hook for hook, _, _ in KINDS.values()}
    kinds = [counted(len(names), kind.removesuffix("s").replace("_", " ")) for kind, names in provided.items()]
    return ", ".join(kinds + [hook for hook in info.hooks if hook not in known])
