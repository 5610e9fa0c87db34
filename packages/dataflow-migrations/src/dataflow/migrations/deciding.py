"""Whether a plan may be carried out, and what callers wish besides the models."""

import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import attrs

from dataflow.errors import InputError, Problem, SchemaError, suggest
from dataflow.migrations.journal import DONE, FAILED, Entry
from dataflow.migrations.plan import Plan
from dataflow.migrations.planning import Wishes
from dataflow.migrations.risk import RiskLevel

_OPTIONS = ("dry_run", "auto_confirm", "max_risk_level", "backup_before_migration", "rollback_on_error")
UNDOES = "undoes "
"""How the note of a migration begins that undoes another."""


def wishes_of(given: Mapping[str, Any]) -> Wishes:
    """Read `renames`, `backfill` and `drop`.

    Raises:
        InputError: there is no such option.
    """
    known = [field.name for field in attrs.fields(Wishes)]
    for name in given:
        if name not in known:
            options = sorted((*known, *_OPTIONS))
            close = suggest(name, options)
            msg = f"auto_migrate() has no option {name!r}"
            hint = f"did you mean {close!r}?" if close else f"options: {', '.join(options)}"
            raise InputError(msg, hint=hint, code="bad-parameter")
    drop: Collection[str] = given.get("drop", ())
    return Wishes(
        given.get("renames") or {}, given.get("backfill") or {}, (drop,) if isinstance(drop, str) else tuple(drop)
    )


def level_of(given: str | None) -> RiskLevel | None:
    """Read a risk level, whatever its case.

    Raises:
        InputError: there is no such level.
    """
    if given is None:
        return None
    try:
        return RiskLevel(str(given).upper())
    except ValueError:
        msg = f"there is no risk level {given!r}"
        raise InputError(msg, hint=f"choose one of {', '.join(RiskLevel)}", code="bad-parameter") from None


def check_flags(**flags: object) -> None:
    """Refuse what is neither True nor False.

    Raises:
        InputError: one of them is not.
    """
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise InputError(f"{name} is True or False", hint=f"got {type(value).__name__}", code="bad-parameter")


def somebody_there() -> bool:
    """Tell whether somebody sits at a terminal who can be asked."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


def refusal(plan: Plan, limit: RiskLevel | None, *, confirmed: bool) -> str:
    """Return why a plan is not carried out, or "".

    Args:
        plan: the plan.
        limit: highest level that is allowed, or None.
        confirmed: whether nobody is asked any more.

    Raises:
        SchemaError: a question is open that only the caller can answer.
    """
    if plan.questions:
        problems = [Problem("question", str(question)) for question in plan.questions]
        msg = "the plan has questions that only you can answer"
        raise SchemaError(msg, problems=problems, hint="answer them, or declare it on the model", code="question")
    above = [str(planned) for planned in plan.steps if limit is not None and planned.risk.rank > limit.rank]
    if above:
        return f"refused: above {limit}: " + "; ".join(above)
    if confirmed and limit is None and plan.loses_data:
        return f"refused: data would be lost; confirm that with max_risk_level={plan.risk.value!r}"
    return ""


def undoing(entries: Sequence[Entry], migration: str | None) -> tuple[Entry, Plan]:
    """Return the migration to undo (the last one, when none is named), and the plan that undoes it.

    Raises:
        SchemaError: there is none, it is not the last one, or one of its steps cannot be undone.
    """
    done = [entry for entry in entries if entry.status in (DONE, FAILED) and entry.done]
    done = [entry for entry in done if not entry.note.startswith(UNDOES)]
    chosen = [entry for entry in done if migration is None or entry.id == migration]
    if not chosen:
        msg = "there is no migration to undo" if migration is None else f"there is no migration {migration!r} to undo"
        raise SchemaError(msg, hint="see 'dataflow migrate history'", code="unknown-migration")
    entry = chosen[-1]
    if entry is not done[-1]:
        msg = f"migration {entry.id} is not the last one"
        raise SchemaError(msg, hint=f"undo {done[-1].id} first", code="not-last")
    back = entry.plan.inverse(entry.done)
    if back is None:
        lost = [str(planned) for planned in entry.plan.steps if planned.step.inverse is None]
        msg = f"migration {entry.id} cannot be undone: {'; '.join(lost)}"
        raise SchemaError(msg, hint="restore a backup, or change the models and migrate", code="not-undoable")
    return entry, back
