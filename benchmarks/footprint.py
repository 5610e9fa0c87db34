"""What DataFlow costs before it does anything: imports, the first row, memory, registering models. SQLite.

Each measurement is a process of its own, beside one that does the same with SQLAlchemy Core by hand.
"""

import subprocess
import sys
import textwrap
from collections.abc import AsyncGenerator, Callable
from typing import Any

from benchmarks.harness import Contest, Target, case

_IMPORT = """
from time import perf_counter
start = perf_counter()
{imports}
print((perf_counter() - start) * 1000)
"""
_BY_HAND = """
import sqlalchemy as sa
engine = sa.create_engine("sqlite:///{path}")
users = sa.Table("users", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text))
users.metadata.create_all(engine)
with engine.begin() as connection:
    key = connection.execute(sa.insert(users).values(name="Ada")).inserted_primary_key[0]
with engine.connect() as connection:
    print(connection.execute(sa.select(users).where(users.c.id == key)).one().name)
"""
_DATAFLOW = """
from dataflow import DataFlow
db = DataFlow("sqlite:///{path}")
@db.model
class User:
    name: str
made = db.express_sync.create("User", {{"name": "Ada"}})
print(db.express_sync.read("User", made["id"])["name"])
"""
_RESIDENT = """
import os
with open("/proc/self/statm") as file:
    print(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20)
"""
_MODELS = """
import sys, tracemalloc
from time import perf_counter
from datetime import datetime
from typing import Annotated
from dataflow import DataFlow, ForeignKey
db = DataFlow(":memory:")
fields = {"name": str, "size": int, "price": float, "at": datetime, "data": dict, "note": str | None}
def declare(i):
    own = dict(fields)
    if i % 10:
        own["parent_id"] = Annotated[int, ForeignKey(f"Model{i - 1}")]
    index = [{"name": f"ix_{i}", "fields": ["name"]}]
    db.model(type(f"Model{i}", (), {"__annotations__": own, "size": 0, "__indexes__": index}))
declare(0)
if sys.argv[1] == "memory":
    tracemalloc.start()
start = perf_counter()
for i in range(1, 501):
    declare(i)
print(tracemalloc.get_traced_memory()[0] / 500 / 1024 if sys.argv[1] == "memory" else (perf_counter() - start) * 1000)
"""


def _run(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.split()[-1]


def _process(script: str) -> Callable[[], Any]:
    """Return a side that runs a script on a new file, and returns what it printed last."""

    def run() -> str:
        from tempfile import TemporaryDirectory

        with TemporaryDirectory() as folder:
            return _run(script.format(path=f"{folder}/users.db"))

    return run


@case("footprint/import")
async def imports() -> AsyncGenerator[Contest, None]:
    """Importing the package, and the names that a script needs."""
    for name, text, target in (
        ("import dataflow", "import dataflow", Target(value=60, unit="ms")),
        (
            "import DataFlow, WorkflowBuilder, LocalRuntime",
            (
                "from dataflow import DataFlow; from dataflow.workflow import WorkflowBuilder; "
                "from dataflow.runtime import LocalRuntime"
            ),
            Target(unit="ms"),
        ),
    ):
        script = _IMPORT.format(imports=text)
        yield Contest(
            {"dataflow": lambda script=script: float(_run(script))},
            target,
            reported=True,
            calls=1,
            rounds=11,
            name=name,
        )


@case("footprint/start")
async def start() -> AsyncGenerator[Contest, None]:
    """From the start of the process to the first row printed, on a new file."""
    yield Contest(
        {"sqlalchemy core": _process(_BY_HAND), "dataflow": _process(_DATAFLOW)}, Target(most=1.25), calls=1, rounds=15,
        name="process start to first row", note="SQLAlchemy Core by hand: table, insert, select",
    )  # fmt: skip


@case("footprint/memory")
async def memory() -> AsyncGenerator[Contest, None]:
    """Resident memory after the first row, beyond SQLAlchemy and the driver; and each registered model's."""
    by_hand, own = (_process(script + _RESIDENT) for script in (_BY_HAND, _DATAFLOW))
    yield Contest(
        {"dataflow": lambda: float(own()) - float(by_hand())}, Target(value=10, unit="MB"), reported=True, calls=1,
        rounds=7, name="memory over SQLAlchemy and driver",
    )  # fmt: skip
    yield Contest(
        {"dataflow": lambda: float(_run(_MODELS, "memory"))}, Target(value=150, unit="KB"), reported=True, calls=1,
        rounds=3, name="memory per registered model",
    )  # fmt: skip


@case("footprint/models")
async def models() -> AsyncGenerator[Contest, None]:
    """Registering 500 models of 9 fields with relations."""
    yield Contest(
        {"dataflow": lambda: float(_run(_MODELS, "time"))}, Target(value=1000, unit="ms"), reported=True, calls=1,
        rounds=5, name="registering 500 models",
    )  # fmt: skip
