"""``dataflow plugins``: what is active, disabled or broken, what each provides, and what conflicts."""

from collections.abc import Mapping, Sequence

import attrs
import click

from dataflow.cli.discovery import KINDS
from dataflow.cli.output import counted, json_option, print_json, problem_list, show, table
from dataflow.cli.program import PROBLEM, discovery
from dataflow.plugins.manager import PluginInfo


@click.command()
@json_option
@click.pass_context
def plugins(ctx: click.Context, *, as_json: bool) -> None:
    """List plugins: what is active, broken, and why.

    Exits with 1 if a plugin is broken or two are in conflict.
    """
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


def _about(info: PluginInfo, provided: Mapping[str, Sequence[str]]) -> str:
    """Count what a plugin provides; of hooks that are called with a model or a DataFlow, give the names."""
    if info.state != "active":
        return info.reason if info.state == "disabled" else "see below"
    known = {hook for hook, _, _ in KINDS.values()}
    kinds = [counted(len(names), kind.removesuffix("s").replace("_", " ")) for kind, names in provided.items()]
    return ", ".join(kinds + [hook for hook in info.hooks if hook not in known])
