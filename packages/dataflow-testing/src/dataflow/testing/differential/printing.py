"""Writing a program as Python that runs on its own, with the ids that a database gives."""

import math
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any

from dataflow.errors import DataFlowError
from dataflow.operations import BY_NAME
from dataflow.testing.differential.expect import Outcome, execute
from dataflow.testing.differential.models import TABLES
from dataflow.testing.differential.programs import GHOSTS, Cursor, Op, Ref, Step, Wire, Wrong
from dataflow.testing.differential.target import EXPRESS, arguments, node_id, wires
from dataflow.testing.differential.world import World

HEAD = """\
import datetime
from decimal import Decimal
from uuid import UUID
from dataflow import DataFlow
from dataflow.errors import DataFlowError
from dataflow.runtime import LocalRuntime
from dataflow.testing.differential import Boom, declare, outcome
from dataflow.testing.oracle import Color, Level

db = DataFlow({url!r})
declare(db)
db.register_node(Boom)
x = db.express_sync
"""


def outcome(call: Callable[[], Any]) -> Any:
    """Return what a call gives, or the error it raises as data."""
    try:
        return call()
    except DataFlowError as error:
        return {"error": error.to_dict()}


class Script:
    """A program as Python text.

    Args:
        steps: the program.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self.world = World()
        self.ids: dict[tuple[str, int], str] = {}
        self.lines: list[str] = []
        self.lookups: set[str] = set()
        self.pages: dict[int, str] = {}
        self.last = ""
        for step in steps:
            self._step(step)

    def text(self, url: str) -> str:
        """Return the whole script; it prints what the last step gives."""
        lines = [line for line in self.lines if line not in self.lookups or self._used(line.partition(" ")[0])]
        return "\n".join([HEAD.format(url=url), *lines, f"print({self.last})", "db.close()", ""])

    def _used(self, name: str) -> bool:
        return any(f"{name}[" in line for line in self.lines)

    def _step(self, step: Step) -> None:
        before = {model: set(rows) for model, rows in self.world.tables.items()}
        outcome = execute(self.world, step)
        name = f"r{step.ops[0].number}"
        self._name_explicit(step)
        if step.mode in EXPRESS:
            body = ", ".join(self._call(op) for op in step.ops)
        else:
            self.lines += self._workflow(step)
            body = f"LocalRuntime().execute(w{step.ops[0].number}.build())[0]"
        remark = "" if step.mode in ("direct", "node") else f"  # ran as {step.mode}"
        self.lines.append(f"{name} = outcome(lambda: {body}){remark}")
        self.last = name
        single = step.mode in EXPRESS
        self.pages |= {op.number: name if single else f"{name}[{node_id(op)!r}]" for op in step.ops}
        self._name_new(step, outcome, before, name)

    def _name_explicit(self, step: Step) -> None:
        for op in step.ops:
            for leaf in op.symbols:
                if isinstance(leaf, Ref) and leaf < GHOSTS:
                    self.ids.setdefault((leaf.model, int(leaf)), str(1_000_000 + int(leaf)))

    def _name_new(self, step: Step, outcome: Outcome, before: Mapping[str, set[Any]], name: str) -> None:
        """Say where the ids of new records come from."""
        made = step.ops[0]
        for model, rows in self.world.tables.items():
            new = sorted(key[0] for key in set(rows) - before[model]) if TABLES[model].auto else []
            unnamed = [ref for ref in new if (model, int(ref)) not in self.ids]
            if not unnamed:
                continue
            if len(step.ops) == 1 and made.kind in ("create", "upsert") and step.mode in EXPRESS and not outcome.error:
                self.ids[model, int(unnamed[0])] = f'{name}["id"]'
                continue
            found = f"{name}_{model.lower()}"
            rest = f'[row["id"] for row in x.list({model!r}, fields=["id"])["records"]][-{len(unnamed)}:]'
            self.lines.append(f"{found} = {rest}")
            self.lookups.add(self.lines[-1])
            for place, ref in enumerate(unnamed):
                self.ids[model, int(ref)] = f"{found}[{place}]"

    def _call(self, op: Op) -> str:
        method, positional, named = arguments(op.kind, op.params)
        parts = [repr(op.model), *map(self.code, positional)]
        if all(name.isidentifier() for name in named):
            parts += [f"{name}={self.code(value)}" for name, value in named.items()]
        else:
            parts.append(f"**{self.code(named)}")
        if method == "call":
            parts.insert(0, repr(op.kind))
        return f"x.{method}({', '.join(parts)})"

    def _workflow(self, step: Step) -> list[str]:
        builder = f"w{step.ops[0].number}"
        lines = [f"{builder} = db.workflow()"]
        if step.scope is not None:
            lines.append(f'{builder}.add_node("TransactionScopeNode", "scope", {self.code(step.scope)})')
        for op in step.ops:
            params = {name: value for name, value in op.params.items() if not isinstance(value, Wire)}
            node = f"{op.model}{BY_NAME[op.kind].suffix}"
            lines.append(f"{builder}.add_node({node!r}, {node_id(op)!r}, {self.code(params)})")
        lines += [f"{builder}.add_connection({', '.join(map(repr, wire))})" for wire in wires(step)]
        if step.boom:
            lines.append(f'{builder}.add_node("Boom", "boom")')
        return lines

    def code(self, value: Any) -> str:
        """Write a value as a Python expression."""
        if isinstance(value, Ref):
            return str(int(value)) if value >= GHOSTS else self.ids[value.model, int(value)]
        if isinstance(value, Cursor):
            return f'{self.pages[value.number]}["next_cursor"]'
        if isinstance(value, Wrong):
            return self.code(value.value)
        if isinstance(value, dict):
            return "{" + ", ".join(f"{self.code(key)}: {self.code(item)}" for key, item in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(self.code, value)) + "]"
        if isinstance(value, tuple):
            return "(" + "".join(f"{self.code(item)}, " for item in value) + ")"
        if isinstance(value, Enum):
            return f"{type(value).__name__}.{value.name}"
        if isinstance(value, float) and not math.isfinite(value):
            return f'float("{value}")'
        return repr(value)
