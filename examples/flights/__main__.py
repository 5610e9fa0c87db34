"""The command line of the example. Exit code 0: all numbers agree; 1: some do not; 2: it could not run."""

import argparse
import json
import os
import sys
from datetime import datetime
from time import perf_counter

from rich.console import Console

from dataflow import DataFlow, DataFlowError

from . import check, raw, report
from .data import DataMissing
from .load import load, read_all
from .models import open_database


def main() -> int:
    """Run the example."""
    options = read_options()
    limit = options.limit
    url = options.database or ("sqlite:///flights.db" if limit is None else f"sqlite:///flights-{limit}.db")
    try:
        with open_database(url) as db:
            return run(db, limit, as_json=options.json)
    except (DataMissing, DataFlowError) as error:
        print(error, file=sys.stderr)
        return 2


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("python -m examples.flights", description="Load and query 336,776 real flights.")
    parser.add_argument("--database", metavar="URL", help="a SQLite file, sqlite:///flights.db by default; may exist")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N flights, in flights-N.db by default")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    options = parser.parse_args()
    if options.limit is not None and options.limit < 1:
        parser.error("--limit is a number of flights, at least 1")
    return options


def run(db: DataFlow, limit: int | None, *, as_json: bool) -> int:
    """Load, measure, change, ask, check."""
    path = database_file(db)
    console = Console(stderr=as_json, highlight=False)
    console.out(f"Database: {path}")
    start = perf_counter()
    batches = read_all(limit)
    console.out(f"Read the CSV files in {perf_counter() - start:.1f} s")
    loaded = load(db, batches, console)
    batches.clear()
    plain = raw.copy(path)
    for name, figures in (("DataFlow", loaded), ("raw sqlite3", plain)):
        figures["rows_per_second"] = round(figures["rows"] / figures["seconds"])
        skipped = f" ({figures['skipped']:,} were there already)" if figures.get("skipped") else ""
        speed = f"{figures['rows_per_second']:,} rows/s{skipped}"
        console.out(f"{name:11} {figures['rows']:,} rows in {figures['seconds']:.2f} s: {speed}")

    start = perf_counter()
    changes = report.change(db)
    answers = report.ask(db)
    seconds = perf_counter() - start
    numbers = {
        "known": check.KNOWN,
        "files": check.from_files(limit),
        "sqlite3": check.from_database(path),
        "dataflow": check.from_dataflow(changes, answers),
    }
    if limit is not None:
        del numbers["known"]
    checks = check.compare(numbers)
    ok = all(row["ok"] for row in checks)
    if as_json:
        document = {"database": path, "load": loaded, "raw": plain, "changes": changes, "answers": answers}
        print(json.dumps({**document, "check": checks, "ok": ok}, default=datetime.isoformat, indent=2))
    else:
        report.show(changes, answers, console)
        console.out(f"Changes and questions took {seconds:.1f} s.\n")
        check.show(checks, list(numbers), console)
    return 0 if ok else 1


def database_file(db: DataFlow) -> str:
    """Return the file's path, which the check will open on its own."""
    url = db.config.url
    if url.scheme != "sqlite" or url.path == ":memory:":
        msg = "This example checks the database file with the standard library, so it needs a SQLite file"
        raise DataFlowError(msg, hint="--database sqlite:///flights.db")
    return os.path.abspath(url.path)


if __name__ == "__main__":
    sys.exit(main())
