"""``dataflow doctor``: the installation, the plugins, the settings and the database, checked one by one."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import click

from dataflow.cli.app import App, app_option, load_app
from dataflow.cli.database import check_database
from dataflow.cli.discovery import Discovery
from dataflow.cli.installation import Check, check_files, check_packages
from dataflow.cli.output import (
    counted,
    definitions,
    heading,
    indented,
    json_option,
    print_json,
    problem_list,
    show,
    table,
)
from dataflow.cli.program import PROBLEM, CommandError, discovery
from dataflow.cli.settings import check_settings, list_settings
from dataflow.errors import DataFlowError, Problem

if TYPE_CHECKING:
    from rich.console import RenderableType


@click.command()
@app_option
@click.option("--settings", "with_settings", is_flag=True, help="List every setting, its value and where that is from.")
@json_option
@click.pass_context
def doctor(ctx: click.Context, app: str | None, *, with_settings: bool, as_json: bool) -> None:
    """Check the installation, the settings and the database.

    Without --app, the database is the one that DataFlow() would use here; it is opened without changing anything.
    Exits with 1 if there is a problem.
    """
    found = discovery(ctx)
    checks = [check_packages(), check_files(), _check_plugins(found)]
    loaded = None
    if app:
        check, loaded = _check_app(app)
        checks.append(check)
    try:
        plugins = loaded.db.core.plugins if loaded else found.plugins
        checks += [check_settings(plugins, loaded), check_database(found, loaded)]
        settings = list_settings(plugins, loaded) if with_settings else None
    finally:
        if loaded is not None and not loaded.db.core.closed:
            loaded.db.close()
    problems = list({problem.message: problem for check in checks for problem in check.problems}.values())
    if as_json:
        described = [{"ok": not check.problems, **attrs.asdict(check)} for check in checks]
        print_json({"ok": not problems, "checks": described, "settings": settings})
    else:
        show(*_page(checks, problems, settings))
    ctx.exit(PROBLEM if problems else 0)


def _check_plugins(found: Discovery) -> Check:
    _, problems = found.provides()
    states = {info.name: info.state for info in found.plugins.infos}
    listed = ", ".join(name if state == "active" else f"{name} ({state})" for name, state in sorted(states.items()))
    return Check("plugins", listed, states, tuple(problems))


def _check_app(reference: str) -> tuple[Check, App | None]:
    """Load the application; that it fails is a finding, that it is not there a usage error."""
    try:
        app = load_app(reference)
    except CommandError:
        raise
    except DataFlowError as error:
        faults = "; ".join(map(str, (error.message, *error.problems)))
        return Check("app", reference, {}, (Problem(error.code, faults, error.hint, error.where),)), None
    models, workflows = app.db.list_models(), list(app.db.workflows)
    summary = f"{app.reference}: {counted(len(models), 'model')}, {counted(len(workflows), 'workflow')}"
    return Check("app", summary, {"models": models, "workflows": workflows}), app


def _page(
    checks: Sequence[Check], problems: Sequence[Problem], settings: Sequence[Mapping[str, Any]] | None
) -> "Iterator[RenderableType]":
    rows = [("PROBLEM" if check.problems else "ok", check.name, check.summary) for check in checks]
    yield table(("", "check", "found"), rows)
    for check in checks:
        if check.name in ("packages", "database") and check.details:
            yield ""
            yield heading(check.name)
            yield definitions(check.details)
    if settings is not None:
        yield ""
        yield heading("settings")
        for setting in settings:
            yield from _setting(setting)
    yield from problem_list(problems)
    yield ""
    yield heading(counted(len(problems), "problem") if problems else "no problems")


def _setting(setting: Mapping[str, Any]) -> "Iterator[RenderableType]":
    """Lay a setting out: its value and where that is from, then what it means."""
    notes = [setting["type"]]
    if setting["source"] is None:
        first = setting["variable"] or f"{setting['name']}, an option of models"
        notes.append(f"default {setting['default']}")
    else:
        first = f"{setting['name']} = {setting['value']}"
        changed = f"from the {setting['source']}, default {setting['default']}"
        notes += ["default" if setting["source"] == "default" else changed, setting["variable"]]
    yield indented(f"{first}  ({'; '.join(notes)})")
    choices = f" One of {', '.join(map(str, setting['choices']))}." if len(setting["choices"]) > 1 else ""
    yield indented(setting["doc"] + choices, 6)
