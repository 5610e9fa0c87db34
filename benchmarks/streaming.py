"""Rows in and out without holding them: ``python -m benchmarks.streaming [ROWS] [--database sqlite|postgresql]``.

Loads rows out of an async iterator and reads them back as a stream, and says how much memory the process needed at most.
"""

import argparse
import asyncio
import resource
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks import rows
from dataflow import DataFlow
from dataflow.testing.server import PostgresServer


async def _source(count: int) -> AsyncIterator[dict[str, Any]]:
    for i in range(count):
        yield rows.reading(i)


def peak() -> float:
    """Return the most memory the process has had so far, in MB (on Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def _run(url: str, count: int) -> None:
    async with DataFlow(url) as db:
        rows.declare(db)
        await db.initialize()
        print(f"before: {peak():.0f} MB")
        start = perf_counter()
        made = await db.express.bulk_create("Reading", _source(count))
        taken = perf_counter() - start
        print(f"in: {made['created']:,} rows in {taken:.1f} s, {count / taken:,.0f} rows/s; at most {peak():.0f} MB")
        start, seen, total = perf_counter(), 0, 0
        async for record in db.express.stream("Reading", fields=["id", "n"]):
            seen, total = seen + 1, total + record["n"]
        taken = perf_counter() - start
        print(f"out: {seen:,} rows in {taken:.1f} s, {count / taken:,.0f} rows/s; at most {peak():.0f} MB")
        if (seen, total) != (count, sum(i % 1000 for i in range(count))):
            msg = f"{seen} rows came back, and the sum of n is {total}"
            raise AssertionError(msg)


def main() -> None:
    """Run it on one database."""
    parser = argparse.ArgumentParser("python -m benchmarks.streaming", description=__doc__)
    parser.add_argument("rows", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    options = parser.parse_args()
    with ExitStack() as stack:
        if options.database == "sqlite":
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            url = f"sqlite:///{Path(folder) / 'stream.db'}"
        else:
            server = stack.enter_context(PostgresServer(settings={"fsync": "on", "full_page_writes": "on"}))
            url = server.create_database()
        asyncio.run(_run(url, options.rows))


if __name__ == "__main__":
    main()
