"""``dataflow audit`` and ``dataflow protection``: the audit log of an application, and its policy as privileges."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import click

from dataflow.cli.app import app_option, opened, tenant_option
from dataflow.cli.output import json_option, print_json
from dataflow.enterprise.audit import AuditLogSync


@click.group()
def audit() -> None:
    """Verify, seal, read and shorten the audit log of an application."""


@audit.command()
@click.argument("model", required=False)
@click.option(
    "--checkpoint", "files", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE", help="A checkpoint that `seal --json` wrote, kept elsewhere; may be given several times.",
)  # fmt: skip
@tenant_option
@app_option
@json_option
@click.pass_context
def verify(
    context: click.Context,
    model: str | None,
    files: tuple[Path, ...],
    tenant: str | None,
    app: str | None,
    *,
    as_json: bool,
) -> None:
    """Follow every hash chain and compare the tables with the log; MODEL compares one table only.

    Ends with 1 where anything was tampered with, is missing or differs.
    """
    given = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    with opened(app, tenant=tenant) as found:
        report = AuditLogSync(found.db).verify(model, given)
    if as_json:
        print_json({"ok": report.ok, **attrs.asdict(report)})
    else:
        click.echo(f"{report.entries} entries about {report.records} records; {len(report.faults)} faults")
        for fault in report.faults:
            click.echo(f"  {fault.kind}: {fault.detail}")
        for note in report.notes:
            click.echo(f"  note: {note}")
    context.exit(0 if report.ok else 1)


@audit.command()
@tenant_option
@app_option
@json_option
def seal(tenant: str | None, app: str | None, *, as_json: bool) -> None:
    """Take a checkpoint of the whole log; keep what it prints where nobody can write who can write to the database."""
    with opened(app, tenant=tenant) as found:
        checkpoint = AuditLogSync(found.db).seal()
    if as_json:
        print_json(checkpoint.to_dict())
    else:
        click.echo(f"checkpoint {checkpoint.number}: {checkpoint.count} entries, {checkpoint.digest}")


@audit.command()
@click.option("--older-than", type=click.FloatRange(min=0), required=True, metavar="DAYS", help="Age in days.")
@click.option("--reason", required=True, help="Why; recorded with the actor.")
@click.option("--actor", default="command line", show_default=True, help="Who does it.")
@tenant_option
@app_option
@json_option
def purge(older_than: float, reason: str, actor: str, tenant: str | None, app: str | None, *, as_json: bool) -> None:
    """Remove old entries; the chains of what is left can still be verified."""
    with opened(app, tenant=tenant) as found, found.db.actor(actor):
        count = AuditLogSync(found.db).purge(datetime.now(UTC) - timedelta(days=older_than), reason=reason)
    if as_json:
        print_json({"purged": count})
    else:
        click.echo(f"{count} entries removed")


@audit.command()
@click.argument("model")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Most entries.")
@click.option("--actor", help="Only changes by this actor.")
@tenant_option
@app_option
@json_option
def entries(model: str, limit: int, actor: str | None, tenant: str | None, app: str | None, *, as_json: bool) -> None:
    """List what happened to the records of MODEL, the latest first."""
    options: dict[str, Any] = {"limit": limit, "newest_first": True, **({"actor": actor} if actor else {})}
    with opened(app, tenant=tenant) as found:
        if tenant is not None and found.db.core.model(model).spec.scope:
            options["tenant_id"] = tenant
        listed = AuditLogSync(found.db).entries(model, **options)["entries"]
    if as_json:
        print_json({"model": model, "entries": listed})
        return
    for entry in listed:
        what = ", ".join(entry["changed"])
        click.echo(
            f"{entry['at']:%Y-%m-%d %H:%M:%S}  {entry['actor']}  {entry['action_type']} {entry['record_id']}: {what}"
        )


@click.group()
def protection() -> None:
    """Give a role of the database what the write protection of an application permits."""


@protection.command()
@click.argument("role")
@click.option("--apply", "carried_out", is_flag=True, help="Carry the statements out, in one transaction.")
@app_option
@json_option
def grants(role: str, app: str | None, *, carried_out: bool, as_json: bool) -> None:
    """Print the SQL that gives ROLE what the policy permits, and nothing else.

    Run it as the owner of the tables, again whenever the policy or the models have changed; the application then logs
    in as ROLE.
    """
    from dataflow.enterprise.protection.grants import grant

    with opened(app) as found:
        statements = grant(found.db, role, apply=carried_out)
    if as_json:
        print_json({"role": role, "statements": statements, "applied": carried_out})
        return
    for sql in statements:
        click.echo(f"{sql};")
    if carried_out:
        click.echo(f"-- done: the role {role} has these privileges now")
