"""The command line of the benchmarks: ``python -m benchmarks`` (``./dev bench``)."""

import argparse
import asyncio
import json
import os
import re
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import bulk, databases, engine, enterprise, features, footprint, frameworks, lists, migrations, single  # noqa: F401  # they register their cases
from benchmarks.harness import CASES, Outcome, hold, machine
from dataflow.testing.server import ExistingServer, PostgresServer

_ORDER = ("engine", "features", "footprint", "sqlite", "postgresql", "migrations", "frameworks")
"""What comes first; bulk operations come last, for they leave large heaps behind."""


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("only", nargs="*", default=[], help="regular expressions; cases that match one are run")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it runs, not to quote")
    parser.add_argument("--json", type=Path, help="write the outcomes here too")
    parser.add_argument("--commit", choices=["on", "off"], default="on", help="PostgreSQL's synchronous_commit")
    parser.add_argument("--uvloop", action="store_true", help="run on uvloop, which has to be installed")
    return parser.parse_args(arguments)


def line(outcome: Outcome) -> str:
    """Return an outcome as a row of the table."""
    found = outcome.to_dict()
    own = found["microseconds"]["dataflow"]
    reference = "" if found["reference"] is None else f"{found['microseconds'][found['reference']]:10.2f}"
    ratio = "" if found["ratio"] is None else f"{found['ratio']:.2f}"
    mark = {True: "met", False: "MISSED", None: ""}[found["met"]]
    others = ", ".join(
        f"{name} {value:.1f}"
        for name, value in found["microseconds"].items()
        if name not in ("dataflow", found["reference"])
    )
    return f"{outcome.name:58} {own:10.2f} {reference:>10} {ratio:>6}  {found['target']:14} {mark:6} {others}"


async def _measure(names: list[str], *, quick: bool) -> list[Outcome]:
    outcomes = []
    for name in names:
        cases = CASES[name]()
        try:
            async for contest in cases:
                outcome = await hold(contest, quick=quick)
                print(line(outcome), flush=True)
                outcomes.append(outcome)
        finally:
            await cases.aclose()
    return outcomes


def main(arguments: list[str] | None = None) -> int:
    """Run the cases, print the table, write JSON; 0 unless a result was wrong."""
    options = _arguments(arguments)
    names = [name for name in CASES if not options.only or any(re.search(part, name) for part in options.only)]
    names.sort(key=lambda name: ("bulk" in name, _ORDER.index(name.partition("/")[0])))
    if options.list:
        print("\n".join(names))
        return 0
    before = machine()
    print(f"{before}\n{'microseconds per operation':58} {'dataflow':>10} {'reference':>10}  ratio  target")
    with ExitStack() as stack:
        if any("postgresql" in name for name in names):
            given = os.environ.get("DATAFLOW_TEST_POSTGRES")
            settings = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": options.commit}
            server: Any = ExistingServer(given) if given else PostgresServer(settings=settings)
            stack.enter_context(server)
            databases.SERVER = server.create_database
        factory = None
        if options.uvloop:
            import uvloop

            factory = uvloop.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            outcomes = runner.run(_measure(names, quick=options.quick))
    options_said = {"commit": options.commit, "uvloop": options.uvloop, "quick": options.quick}
    found = {
        "options": options_said,
        "before": before,
        "after": machine(),
        "outcomes": [outcome.to_dict() for outcome in outcomes],
    }
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    print(f"load now: {found['after']['load']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
