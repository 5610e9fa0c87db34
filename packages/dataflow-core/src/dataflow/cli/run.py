"""``dataflow run``: execute a registered workflow and print its results as JSON."""

import contextlib
import sys
from collections.abc import Sequence
from typing import Any

import click

from dataflow.cli.app import app_option, opened
from dataflow.cli.lookup import pick_workflow, unknown
from dataflow.cli.output import json_option, print_json
from dataflow.cli.program import CommandError
from dataflow.cli.surroundings import Around, around_options
from dataflow.cli.values import read_json
from dataflow.errors import InputError
from dataflow.runtime import LocalRuntime
from dataflow.types import ValueRefused
from dataflow.workflow import Workflow
from dataflow.workflow.tasks import Task


@click.command()
@click.argument("workflow", metavar="[ID]", required=False)
@app_option
@click.option(
    "--param", "params", metavar="NODE.INPUT=JSON", multiple=True, help="A value for an input; may be repeated."
)
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="End the run then.")
@around_options
@json_option
def run(
    workflow: str | None,
    app: str | None,
    params: tuple[str, ...],
    timeout: float | None,
    *,
    tenant: str | None,
    all_tenants: str | None,
    actor: str | None,
    unlocked: str | None,
    as_json: bool,
) -> None:
    """Run the workflow ID of an application (or its only one), and print the results as JSON.

    Values are JSON: text needs its quotes, as in --param 'create.name="Ada"'. Dates are ISO 8601 text, bytes base64.
    """
    del as_json  # results are JSON anyway; the program looks at it when an error ends the run
    with opened(app) as found, contextlib.ExitStack() as stack:
        Around(tenant, all_tenants, actor, unlocked).enter(found, stack)
        name, built = pick_workflow(found, workflow)
        parameters = _parameters(built, params)
        with contextlib.redirect_stdout(sys.stderr), LocalRuntime(timeout=timeout) as runtime:
            results, run_id = runtime.execute(built, parameters=parameters)
        print_json({"workflow": name, "run_id": run_id, "results": results})


def _parameters(workflow: Workflow, texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read ``node.input=JSON`` texts.

    Raises:
        CommandError: one cannot be read, or names no input, or a required input is missing.
    """
    tasks = {task.id: task for task in workflow.tasks}
    parameters: dict[str, dict[str, Any]] = {}
    for text in texts:
        target, equals, value = text.partition("=")
        node, dot, name = target.rpartition(".")
        if not (equals and dot and node and name):
            raise CommandError("--param takes NODE.INPUT=JSON", hint="write --param create.age=36", code="bad-param")
        if node not in tasks:
            raise unknown("node ", node, tasks)
        if not tasks[node].accepts(name):
            raise unknown(f"input {node}.", name, sorted(getattr(tasks[node], "names", None) or tasks[node].parameters))
        if name in parameters.setdefault(node, {}):
            raise CommandError(f"--param {target} is given twice", hint="give it once", code="bad-param")
        parameters[node][name] = _value(target, value, tasks[node], name)
    missing = [
        f"{node}.{name}"
        for node, names in workflow.inputs.items()
        for name in names
        if name not in parameters.get(node, {})
    ]
    if missing:
        msg = f"the workflow needs {', '.join(missing)}"
        raise CommandError(msg, hint=f"add {' '.join(f'--param {name}=…' for name in missing)}", code="missing-input")
    return parameters


def _value(target: str, text: str, task: Task, name: str) -> Any:
    try:
        return read_json(text, task, name)
    except ValueError as error:
        hint = f"text needs double quotes inside the shell's: --param '{target}=\"…\"'"
        raise CommandError(f"--param {target} is not JSON", hint=hint, code="bad-param") from error
    except (ValueRefused, InputError) as error:
        raise CommandError(f"--param {target}: {error.message}", hint=error.hint, code="bad-param") from error
