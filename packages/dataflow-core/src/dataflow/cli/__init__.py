"""The ``dataflow`` program.

Each command is in the module of its name (demo, doctor, er, graph, models, run, shell …), imported only
when it runs. `program` holds the group and what ends a run: errors and exit codes. `discovery` finds commands and
plugins without stumbling over broken ones; `app` loads what ``--app`` names, and `lookup` finds things in it; `values`
turns values into JSON and back; `output` prints; `installation`, `settings` and `database` are what doctor looks at.
`scaffold` begins plugins from ``templates``; `checking` looks at one, with `inspecting` in a process of its own.

Exit codes: 0 all is well; 1 a problem was found (a check failed, a plugin is broken, a workflow failed); 2 the command
line is wrong; 130 interrupted.
"""

import contextlib
import io
import sys
from importlib.util import find_spec


def main() -> None:
    """Run the program: the entry point of the ``dataflow`` script."""
    missing = [name for name in ("click", "rich") if find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"dataflow: the command line needs {' and '.join(missing)}; install the extra 'cli':"
            " pip install 'workflow-dataflow-core[cli]' (not on the public index yet:"
            " pip install './packages/dataflow-core[cli]' in a checkout of the project)\n"
        )
        sys.exit(1)
    from dataflow.cli.program import program

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(io.UnsupportedOperation):
                stream.reconfigure(errors="replace")  # an old terminal shows "?" instead of failing
    program.main(prog_name="dataflow")
