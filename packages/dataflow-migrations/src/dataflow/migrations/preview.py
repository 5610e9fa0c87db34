"""A plan for people: a table with risk, locks and SQL, and the questions it has."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dataflow.migrations.plan import Plan, PlannedStep

if TYPE_CHECKING:
    from rich.console import RenderableType


def effects(planned: PlannedStep) -> str:
    """Say what a step does to the database meanwhile: "ACCESS EXCLUSIVE users; rewrites"."""
    step = planned.step
    parts = [f"{lock} {table}" for table, lock in step.locks.items()]
    parts += ["rewrites"] * step.rewrites + ["scans"] * (step.scans and not step.rewrites)
    if step.mode in ("outside", "batches"):
        parts.append("outside a transaction" if step.mode == "outside" else "in batches")
    return "; ".join(parts) or "none"


def loss(planned: PlannedStep) -> str:
    """Say whether data can be lost, and whether rows can make the step fail."""
    step = planned.step
    parts = [f"{step.data_loss} loss"] * (step.data_loss != "none")
    parts += [f"may fail: {step.fails_on_data}"] * (step.fails_on_data not in ("no", "n/a"))
    parts += ["cannot be undone"] * (step.inverse is None)
    return "; ".join(parts)


def text(plan: Plan, *, sql: bool = True) -> str:
    """Return a plan as plain text."""
    lines = [f"plan {plan.id} ({plan.dialect}): {steps_of(plan)}, risk {plan.risk}"]
    for number, planned in enumerate(plan.steps, 1):
        lines.append(f"{number:>3}. {planned.risk.value:<8} {planned.step.summary}")
        lines.append(f"     locks: {effects(planned)}" + f"; {loss(planned)}" * bool(loss(planned)))
        lines += [f"       {line}" for statement in planned.step.sql if sql for line in statement.splitlines()]
    lines += [f"note: {note}" for note in plan.notes]
    lines += [f"question: {question}" for question in plan.questions]
    return "\n".join(lines)


def shown(plan: Plan) -> "Iterator[RenderableType]":
    """Yield a plan as a rich table, and below it the SQL of each step."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    colours = {"LOW": "green", "MEDIUM": "yellow", "HIGH": "red", "CRITICAL": "bold red"}
    steps = Table(title=f"plan {plan.id}: {steps_of(plan)}, risk {plan.risk}", title_justify="left")
    for name in ("#", "risk", "change", "locks", "data"):
        steps.add_column(name, justify="right" if name == "#" else "left")
    for number, planned in enumerate(plan.steps, 1):
        risk = Text(planned.risk.value, style=colours[planned.risk.value])
        steps.add_row(str(number), risk, planned.step.summary, effects(planned), loss(planned))
    yield steps
    for number, planned in enumerate(plan.steps, 1):
        yield Text(f"{number}. {planned.step.summary}", style="bold")
        for statement in planned.step.sql:
            yield Padding(Text(f"{statement.strip()};".expandtabs(4), style="dim"), (0, 0, 0, 3), expand=False)


def steps_of(plan: Plan) -> str:
    """Say how many steps a plan has."""
    return "1 step" if len(plan.steps) == 1 else f"{len(plan.steps)} steps"


def ask(plan: Plan) -> bool:
    """Show a plan at the terminal and ask whether to carry it out."""
    try:
        from rich.console import Console

        console = Console(markup=False, highlight=False, emoji=False)
        for part in shown(plan):
            console.print(part)
        for line in (*plan.notes, *map(str, plan.questions)):
            console.print(f"note: {line}")
    except ImportError:  # rich comes with the extra "cli"
        print(text(plan))  # noqa: T201  # it is what the user is to see
    return input(f"Carry out {steps_of(plan)}? [y/N] ").strip().lower() in ("y", "yes")


def answers(plan: Plan) -> dict[str, Any]:
    """Ask at the terminal what only the user knows about renames; return wishes."""
    renames: dict[str, str | None] = {}
    for question in plan.questions:
        if question.kind != "rename":
            continue
        names = " / ".join(question.candidates)
        given = input(f"Was {question.name} called {names} before? [name, or empty: it is new] ").strip()
        renames[question.name] = given or None
    return {"renames": renames} if renames else {}
