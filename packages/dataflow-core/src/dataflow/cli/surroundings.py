"""Options that say who a command acts for: they surround its calls as ``with db.tenant(…):`` and the like do."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, TypeVar

import attrs
import click

from dataflow.cli.app import App

F = TypeVar("F", bound=Callable[..., Any])


@attrs.frozen
class Around:
    """Who a command acts for.

    Attributes:
        tenant: the tenant, or None.
        all_tenants: why it is among all tenants, or None.
        actor: who makes the changes, or None.
        unlocked: why it may pass the write protection, or None.
    """

    tenant: str | None = None
    all_tenants: str | None = None
    actor: str | None = None
    unlocked: str | None = None

    def enter(self, app: App, stack: ExitStack) -> None:
        """Surround what follows, until the stack is unwound."""
        if self.actor is not None:
            stack.enter_context(app.db.actor(self.actor))
        if self.tenant is not None:
            stack.enter_context(app.db.tenant(self.tenant))
        if self.all_tenants is not None:
            stack.enter_context(app.db.all_tenants(reason=self.all_tenants))
        if self.unlocked is not None:
            stack.enter_context(app.db.unlocked(reason=self.unlocked))


def around_options(command: F) -> F:
    """Add the options to a command, which gets them as ``tenant``, ``all_tenants``, ``actor`` and ``unlocked``."""
    for option in (
        click.option("--unlocked", metavar="REASON", help="Pass the write protection; recorded with the reason."),
        click.option("--actor", metavar="NAME", help="Who does it, for the audit log."),
        click.option("--all-tenants", metavar="REASON", help="Act among all tenants; recorded with the reason."),
        click.option("--tenant", metavar="ID", help="The tenant to act for."),
    ):
        command = option(command)
    return command
