"""``dataflow shell``: a Python prompt with an application's models and nodes at hand, where `await` works.

IPython's prompt where that is installed, else the standard library's. Code can also come from ``-c`` or a pipe.
"""

import ast
import code
import inspect
import sys
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any, Self

import click

from dataflow.cli.app import App, app_option, opened
from dataflow.cli.lookup import node_types
from dataflow.cli.output import json_option, print_json
from dataflow.cli.program import CommandError


@click.command()
@app_option
@click.option("-c", "code", metavar="CODE", help="Run this instead, print the value of its last expression, and end.")
@click.option("--plain", is_flag=True, help="Use the standard library's prompt, also where IPython is installed.")
@json_option
def shell(app: str | None, code: str | None, *, plain: bool, as_json: bool) -> None:
    """Open a Python prompt with db, express, every model and every node type; await works there.

    A node type is a function: `await UserCreateNode(name="Ada")` runs it and returns its result.
    """
    with opened(app) as found:
        names = namespace(found)
        piped = None if code is not None or sys.stdin.isatty() else sys.stdin.read()
        script = code if code is not None else piped
        if script is not None:
            _run(script, names, as_json=as_json)
        elif as_json:
            raise CommandError(
                "a prompt prints no JSON", hint="give the code with -c, or through a pipe", code="no-code"
            )
        elif not plain and find_spec("IPython") is not None:
            _ipython(found, names)
        else:
            _standard(found, names)


def namespace(app: App) -> dict[str, Any]:
    """Return what is at hand: models and node types by name; a word of the shell's own wins."""
    from dataflow.runtime import AsyncLocalRuntime, LocalRuntime
    from dataflow.workflow import WorkflowBuilder

    nodes = {name: _Node(app, name) for name in node_types(app.db.core)}
    own = {"db": app.db, "express": app.db.express, "WorkflowBuilder": partial(WorkflowBuilder, app.db)}
    runtimes = {"LocalRuntime": LocalRuntime, "AsyncLocalRuntime": AsyncLocalRuntime}
    return {"__name__": "__console__", "__doc__": None, **nodes, **app.db.models, **runtimes, **own}


class _Node:
    """A node type as a function: awaiting its call runs a workflow of this one node."""

    def __init__(self, app: App, name: str) -> None:
        self._app = app
        self.__name__ = name
        self.__doc__ = f"Run {name} with these parameters and return its result; see dataflow nodes {name}."

    async def __call__(self, **params: Any) -> Any:
        from dataflow.runtime import AsyncLocalRuntime

        workflow = self._app.db.workflow()
        workflow.add_node(self.__name__, "node", params)
        results, _ = await AsyncLocalRuntime().execute_async(workflow.build())
        return results["node"]

    def __repr__(self) -> str:
        return f"<node type {self.__name__}: await {self.__name__}(…) runs it>"


def _welcome(app: App) -> str:
    models = ", ".join(app.db.models) or "no models yet"
    return (
        f"DataFlow shell on {app.reference} ({models})\n"
        "At hand: db, express, each model, each node type; try: await express.list('Model', limit=5)"
    )


def _run(script: str, names: dict[str, Any], *, as_json: bool) -> None:
    """Run a script whose statements may await, and print the value of an expression that ends it.

    Raises:
        CommandError: it is no Python.
    """
    try:
        tree = ast.parse(script, "<shell>")
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        blocks = [compile(tree, "<shell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)]
        if isinstance(last, ast.Expr):
            expression = ast.Expression(last.value)
            blocks.append(compile(expression, "<shell>", "eval", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT))
    except SyntaxError as error:
        msg = f"the code does not compile: {error.msg} (line {error.lineno})"
        raise CommandError(msg, hint="correct it", code="bad-code") from error
    with _Loop() as loop:
        value = None
        for block in blocks:
            value = loop.evaluate(block, names)
        if as_json:
            print_json(value)
        elif value is not None:
            click.echo(repr(value))


class _Loop:
    """An event loop that compiled code may await on."""

    def __enter__(self) -> Self:
        import asyncio

        self._runner = asyncio.Runner().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._runner.__exit__(None, None, None)

    def evaluate(self, block: Any, names: dict[str, Any]) -> Any:
        """Run a block of code; its value is awaited where its compiler made it a coroutine."""
        value = eval(block, names)  # noqa: S307  # a shell runs what it is given
        if block.co_flags & inspect.CO_COROUTINE:
            return self._runner.run(value)
        return value


class _Console(code.InteractiveConsole):
    """The standard library's prompt, with await."""

    def __init__(self, names: dict[str, Any], loop: _Loop) -> None:
        super().__init__(names)
        self.compile.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self._names = names
        self._loop = loop

    def runcode(self, code: Any) -> None:
        try:
            self._loop.evaluate(code, self._names)
        except SystemExit:
            raise
        except BaseException:  # noqa: BLE001  # the prompt shows what was raised, Ctrl-C too, and goes on
            self.showtraceback()


def _standard(app: App, names: Mapping[str, Any]) -> None:
    import contextlib

    with contextlib.suppress(ImportError):  # not everywhere
        import readline
        import rlcompleter

        readline.set_completer(rlcompleter.Completer(dict(names)).complete)
        readline.parse_and_bind("tab: complete")
    with _Loop() as loop:
        _Console(dict(names), loop).interact(_welcome(app), "")


def _ipython(app: App, names: Mapping[str, Any]) -> None:
    from importlib import import_module

    ipython = import_module("IPython")  # it is optional
    config = import_module("traitlets.config").Config()
    config.TerminalInteractiveShell.banner1 = f"{_welcome(app)}\n"
    config.TerminalIPythonApp.display_banner = True
    ipython.start_ipython(argv=[], user_ns=dict(names), config=config)
