"""What arguments of commands name in an application: models, node types, workflows. Wrong names are usage errors."""

from collections.abc import Iterable

from dataflow.cli.app import App
from dataflow.cli.program import CommandError
from dataflow.core import Core
from dataflow.errors import suggest
from dataflow.plan.bound import BoundModel
from dataflow.plugins.specs import NodeSpec
from dataflow.workflow import Workflow


def pick_model(app: App, name: str) -> BoundModel:
    """Return a model. Raises CommandError if there is none of that name."""
    if name not in app.db.core.models:
        raise unknown("model ", name, app.db.core.models, f"{app.reference} has no models yet")
    return app.db.core.model(name)


def node_types(core: Core) -> dict[str, NodeSpec]:
    """Return every node type of an application: of its models, registered ones, and those without a model."""
    return {**{name: spec for name, (_, spec) in core.node_types.items()}, **core.plugins.workflow_nodes}


def pick_workflow(app: App, name: str | None) -> tuple[str, Workflow]:
    """Return a registered workflow, built: (id, workflow). Without a name: the only one there is.

    Raises:
        CommandError: there is none of that name, or there are several to choose from.
        WorkflowBuildError: it has problems.
    """
    known = app.db.workflows
    if not known:
        msg = f"{app.reference} has no workflows"
        raise CommandError(msg, hint="register one in it: db.register_workflow('name', workflow)", code="no-workflow")
    if name is None:
        if len(known) > 1:
            msg = f"{app.reference} has {len(known)} workflows"
            raise CommandError(msg, hint=f"name one of them: {', '.join(known)}", code="no-workflow")
        (name,) = known
    if name not in known:
        raise unknown("workflow ", name, known)
    found = known[name]
    return name, found if isinstance(found, Workflow) else found.build()


def unknown(what: str, name: str, known: Iterable[str], none: str = "") -> CommandError:
    """Return the error for a name that does not exist.

    Args:
        what: of which kind, as the text before the name: "model ", "input create.".
        name: what was asked for.
        known: what there is.
        none: the hint when there is nothing.
    """
    names = list(known)
    close = suggest(name, names)
    hint = f"did you mean {close!r}?" if close else f"there is: {', '.join(names)}" if names else none
    shown = f"{what}{name!r}" if what.endswith(" ") else f"{what}{name}"
    return CommandError(f"there is no {shown}", hint=hint, code="unknown-name")
