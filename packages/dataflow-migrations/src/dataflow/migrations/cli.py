"""``dataflow migrate``: plan, apply and undo changes of an application's schema, and see what was done."""

import json
import sys
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import click

from dataflow.cli.app import app_option, opened, tenant_option
from dataflow.cli.output import json_option, print_json, show, table
from dataflow.cli.program import CommandError
from dataflow.errors import SchemaError
from dataflow.migrations.engine import SchemaEngine
from dataflow.migrations.plan import Plan
from dataflow.migrations.preview import ask, shown, steps_of
from dataflow.migrations.risk import RiskLevel

_LEVELS = click.Choice([level.value for level in RiskLevel], case_sensitive=False)


def _wishes(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what the models do not."""
    options = [
        click.option(
            "--rename", "renames", multiple=True, metavar="NEW=OLD",
            help="A column (table.column=old) or table (new=old) was renamed; may be given several times.",
        ),
        click.option("--new", "new", multiple=True, metavar="TABLE.COLUMN", help="The column is new, not a rename."),
        click.option(
            "--value", "values", multiple=True, metavar="TABLE.COLUMN=VALUE",
            help="What existing rows get: JSON, or text; may be given several times.",
        ),
        click.option(
            "--drop", multiple=True, metavar="NAME",
            help="A table, table.column or table.index that may go though DataFlow has not made it.",
        ),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def _read(renames: Iterable[str], new: Iterable[str], values: Iterable[str], drop: Iterable[str]) -> dict[str, Any]:
    return {
        "renames": {**dict(_pair(text, "--rename") for text in renames), **dict.fromkeys(new)},
        "backfill": {name: _value(text) for name, text in (_pair(given, "--value") for given in values)},
        "drop": tuple(drop),
    }


def _pair(given: str, option: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not equals or not name:
        raise CommandError(f"{option} takes name=value, got {given!r}", hint=f"write {option} users.mail=email")
    return name, value


def _value(given: str) -> Any:
    try:
        return json.loads(given, parse_float=Decimal)
    except ValueError:
        return given


@click.group()
def migrate() -> None:
    """Plan, apply and undo changes of the schema of an application."""


@migrate.command()
@_wishes
@click.option("--sql", "as_sql", is_flag=True, help="Print the plan as SQL for the database's own shell.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the plan to a file, as JSON.")
@tenant_option
@app_option
@json_option
def plan(
    renames: tuple[str, ...],
    new: tuple[str, ...],
    values: tuple[str, ...],
    drop: tuple[str, ...],
    output: Path | None,
    tenant: str | None,
    app: str | None,
    *,
    as_sql: bool,
    as_json: bool,
) -> None:
    """Show what would have to change for the schema to follow the models; changes nothing."""
    with opened(app, tenant=tenant) as found:
        engine = _engine(found.db)
        made = engine.plan_sync(**_read(renames, new, values, drop))
        script = engine.script_sync(made) if as_sql else ""
    if output is not None:
        output.write_text(json.dumps(made.to_dict(), indent=2) + "\n", encoding="utf-8")
    if as_sql:
        click.echo(script)
    elif as_json:
        print_json(made.to_dict())
    else:
        _show(made)


@migrate.command()
@_wishes
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--max-risk", type=_LEVELS, help="Refuse a plan with a step above this level.")
@click.option("--backup", is_flag=True, help="Copy first what the plan touches.")
@click.option("--keep-partial", is_flag=True, help="When a step fails, keep what was done instead of undoing it.")
@click.option("--plan-id", help="Apply only if the plan still has this id (see 'plan').")
@tenant_option
@app_option
@json_option
def apply(
    renames: tuple[str, ...],
    new: tuple[str, ...],
    values: tuple[str, ...],
    drop: tuple[str, ...],
    max_risk: str | None,
    plan_id: str | None,
    tenant: str | None,
    app: str | None,
    *,
    yes: bool,
    backup: bool,
    keep_partial: bool,
    as_json: bool,
) -> None:
    """Make the schema follow the models: shows the plan, asks, and carries it out."""
    wishes = _read(renames, new, values, drop)
    with opened(app, tenant=tenant) as found:
        engine = _engine(found.db)
        made = engine.plan_sync(**wishes)
        if plan_id is not None and made.id != plan_id:
            msg = f"the plan is {made.id} now, not {plan_id}"
            raise SchemaError(msg, hint="look at it again: dataflow migrate plan", code="plan-stale")
        if made:
            engine.refuse(made, max_risk, confirmed=yes)
            if not yes and not (sys.stdin.isatty() and ask(made)):
                raise CommandError("not applied: nobody said yes", hint="add --yes", code="declined")
        entry = engine.apply_sync(made, wishes, backup=backup, rollback=not keep_partial)
    if as_json:
        print_json({"applied": None if entry is None else entry.to_dict()})
    elif entry is None:
        click.echo("nothing to do: the schema follows the models")
    else:
        click.echo(f"{steps_of(entry.plan)} done: migration {entry.id}")
        if entry.note:
            click.echo(entry.note)


@migrate.command()
@click.argument("migration", required=False)
@click.option("--yes", is_flag=True, help="Do not ask.")
@tenant_option
@app_option
@json_option
def undo(migration: str | None, tenant: str | None, app: str | None, *, yes: bool, as_json: bool) -> None:
    """Undo a MIGRATION (the last one): its steps backwards. Data that it dropped does not come back."""
    with opened(app, tenant=tenant) as found:
        engine = _engine(found.db)
        entry, back = engine.undo_plan_sync(migration)
        if not yes and not (sys.stdin.isatty() and ask(back)):
            raise CommandError("not undone: nobody said yes", hint="add --yes", code="declined")
        engine.undo_sync(entry.id)
    if as_json:
        print_json({"undone": entry.to_dict()})
    else:
        click.echo(f"migration {entry.id} is undone")


@migrate.command()
@tenant_option
@app_option
@json_option
def history(tenant: str | None, app: str | None, *, as_json: bool) -> None:
    """List the migrations of the database, the latest last."""
    with opened(app, tenant=tenant) as found:
        entries = _engine(found.db).history_sync()
    if as_json:
        print_json({"migrations": [entry.to_dict() for entry in entries]})
    elif entries:
        rows = [
            (
                entry.id,
                entry.status,
                entry.plan.risk.value,
                entry.actor,
                entry.error or ", ".join(_summaries(entry.plan)),
            )
            for entry in entries
        ]
        show(table(("migration", "status", "risk", "by", "what"), rows))
    else:
        click.echo("no migrations yet")


@migrate.command()
@tenant_option
@app_option
@json_option
@click.pass_context
def status(context: click.Context, tenant: str | None, app: str | None, *, as_json: bool) -> None:
    """Say whether the schema follows the models; ends with 1 where it does not."""
    with opened(app, tenant=tenant) as found:
        engine = _engine(found.db)
        made, entries = engine.plan_sync(), engine.history_sync()
    interrupted = [entry.id for entry in entries if entry.status == "running"]
    last = entries[-1].id if entries else None
    if as_json:
        pending = [planned.to_dict() for planned in made.steps]
        print_json({"pending": pending, "notes": list(made.notes), "interrupted": interrupted, "last": last})
    else:
        what = "the schema follows the models" if not made else f"{steps_of(made)} pending, risk {made.risk}"
        click.echo(what)
        for planned in made.steps:
            click.echo(f"  {planned}")
        for note in made.notes:
            click.echo(f"  note: {note}")
        for name in interrupted:
            click.echo(f"  interrupted: migration {name}; 'dataflow migrate apply' goes on with it")
    context.exit(1 if made or interrupted else 0)


def _summaries(made: Plan) -> list[str]:
    return [planned.step.summary for planned in made.steps]


def _show(made: Plan) -> None:
    if made:
        show(*shown(made))
    else:
        click.echo("nothing to do: the schema follows the models")
    for note in made.notes:
        click.echo(f"note: {note}")
    for question in made.questions:
        click.echo(f"question: {question}")


def _engine(db: Any) -> SchemaEngine:
    engine = db.core.schema_engine
    if not isinstance(engine, SchemaEngine):
        msg = "this DataFlow uses another schema engine than that of workflow-dataflow-migrations"
        raise CommandError(msg, hint="leave the other plugin out, or use its own command", code="other-engine")
    return engine
