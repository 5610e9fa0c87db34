"""A plan as SQL for the database's own shell: what features keep on tables goes before it, and comes back after it.

Features say what they need by programs that look at the database first. So the migration is rehearsed on a copy of the
schema, and what the programs write there is what the script says. What they write into tables is left out.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from dataflow.changes import SchemaEditor, Step
from dataflow.dialect import COUNT, Command, Program
from dataflow.errors import DataFlowError
from dataflow.session import through

T = TypeVar("T")
_SCHEMA = ("CREATE ", "DROP ", "ALTER ")
_ROWS = """
-- Left out: what DataFlow would tell tables of its own (the audit log) of rows that the migration changes.
"""
_EXTRAS = """
-- Left out: what features need besides tables ({names}). DataFlow makes it when the models are next used, where it may
-- (auto_migrate=True); until then their queries may be refused. 'dataflow migrate apply' does all at once.
"""


def written(
    editor: SchemaEditor, steps: Sequence[Step], extras: Callable[[], Program[None]], names: Sequence[str]
) -> Program[str]:
    """Write steps as a script.

    Args:
        editor: of the dialect.
        steps: of the plan.
        extras: makes what features need of all models, where it is not there.
        names: of what features need of some model.
    """
    before: list[str] = []
    after: list[str] = []

    def body() -> Program[bool]:
        yield from _recorded(editor.clear(steps), before)
        for step in steps:
            for sql in step.sql:
                yield Command(sql, COUNT, writes=True), ()
        yield from _recorded(extras(), after)
        return True

    rehearsed = False
    if steps and names:
        try:
            rehearsed = bool((yield from editor.rehearse(body())))
        except DataFlowError:  # what rows would not have come to is the script's business
            rehearsed = False
    if not rehearsed:
        before, after = [], []
        yield from _recorded(editor.clear(steps), before, run=False)
    schema = [sql for sql in after if sql.lstrip().upper().startswith(_SCHEMA)]
    script = editor.script(steps, before=before, after=schema)
    if not rehearsed and steps and names:
        return script + _EXTRAS.format(names=", ".join(names))
    return script + _ROWS if len(schema) < len(after) else script


def _recorded(program: Program[T], into: list[str], *, run: bool = True) -> Program[T]:
    """Run a program, and note what it writes; with `run=False` only note it."""

    def send(step: tuple[Command, Sequence[Any]]) -> Program[Any]:
        command, _ = step
        if command.writes:
            into.append(command.sql)
        return (yield step) if run or not command.writes else 0

    return through(program, send)
