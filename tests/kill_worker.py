"""Loads rows until it is killed; run by test_kill.py.

It warms up once, also by importing the modules that its arguments name, then forks a loader for each line of stdin (a
task as JSON), so that a kill costs no imports. It prints the loader's process id, "ready" when loading begins, a line
for each run of the workflow that the loader has finished, and how the loader ended.
"""

import importlib
import json
import os
import sys
import traceback
from itertools import chain

from dataflow import DataFlow
from dataflow.runtime import LocalRuntime

PARTS = 4
ROWS = 1000  # of a part: a node, or a commit
BATCH = 300  # rows of a statement, so that a part is several


class Item:
    """A row: `run` counts runs of the workflow, `part` its nodes or commits, `place` rows within them."""

    __indexes__ = ({"name": "items_by_place", "fields": ["run", "part", "place"], "unique": True},)

    run: int
    part: int
    place: int
    text: str


def loading(db, mode, conflict="error"):
    """Build the workflow: for `nodes` a node per part, for `commits` a single node that commits after each part."""
    parts = [
        [{"part": part, "place": place, "text": f"{part} {place} " * 16} for place in range(ROWS)]
        for part in range(PARTS)
    ]
    builder = db.workflow()
    if mode == "nodes":
        for part, rows in enumerate(parts):
            params = {"data": rows, "batch_size": BATCH, "conflict_resolution": conflict}
            builder.add_node("ItemBulkCreateNode", f"part_{part}", params)
    else:
        rows = list(chain.from_iterable(parts))
        params = {"data": rows, "batch_size": BATCH, "commit_every": ROWS, "conflict_resolution": conflict}
        builder.add_node("ItemBulkCreateNode", "parts", params)
    return builder.build()


def load(workflow, run):
    """Run it; `run` is a default for all rows of each node."""
    LocalRuntime().execute(workflow, parameters={node.id: {"run": run} for node in workflow.nodes})


def load_forever(url, mode, run):
    db = DataFlow(url)
    db.model(Item)
    workflow = loading(db, mode)
    say("ready", run)
    while True:
        load(workflow, run)
        say("finished", run)
        run += 1


def say(word, number):
    os.write(1, f"{word} {number}\n".encode())


def main():
    for module in sys.argv[1:]:
        importlib.import_module(module)
    with DataFlow(":memory:") as db:
        db.model(Item)
        load(loading(db, "nodes"), 0)
    for line in sys.stdin:
        loader = os.fork()
        if loader == 0:
            try:
                load_forever(**json.loads(line))
            except BaseException:  # noqa: BLE001  # a fork must not go on with the loop above
                traceback.print_exc()
            os._exit(1)
        say("loader", loader)
        _, status = os.waitpid(loader, 0)
        say("ended", os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
