"""The command line of the example. Exit code 0: all numbers agree; 1: some do not; 2: it could not run."""

import argparse
import json
import os
import sys
from datetime import datetime
from time import perf_counter

from rich.console import Console

from dataflow import DataFlow, DataFlowError

from . import check, report
from .data import DataMissing
from .load import load, read_all
from .models import open_database
from .raw import PostgresSchema, SQLiteFile


def main() -> int:
    """Run the example."""
    options = read_options()
    limit = options.limit
    name = "flights" if limit is None else f"flights_{limit}"
    url = options.database or os.environ.get("DATABASE_URL") or f"sqlite:///{name}.db"
    try:
        with open_database(url, name) as db:
            return run(db, name, limit, as_json=options.json)
    except (DataMissing, DataFlowError) as error:
        print(error, file=sys.stderr)
        return 2


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("python -m examples.flights", description="Load and query 336,776 real flights.")
    parser.add_argument(
        "--database", metavar="URL",
        help="a SQLite file or a PostgreSQL database, in which the schema 'flights' is used; both may exist. "
        "By default DATABASE_URL, else sqlite:///flights.db",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=int, metavar="N", help="only the first N flights; file or schema are then called flights_N"
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    options = parser.parse_args()
    if options.limit is not None and options.limit < 1:
        parser.error("--limit is a number of flights, at least 1")
    return options


def run(db: DataFlow, name: str, limit: int | None, *, as_json: bool) -> int:
    """Load, measure, change, ask, check."""
    database = raw_database(db, name)
    console = Console(stderr=as_json, highlight=False)
    console.out(f"Database: {database.place}")
    start = perf_counter()
    batches = read_all(limit)
    console.out(f"Read the CSV files in {perf_counter() - start:.1f} s")
    loaded = load(db, batches, console)
    batches.clear()
    plain = database.copy()
    for what, figures in (("DataFlow", loaded), (f"raw {database.driver}", plain)):
        figures["rows_per_second"] = round(figures["rows"] / figures["seconds"])
        skipped = f" ({figures['skipped']:,} were there already)" if figures.get("skipped") else ""
        speed = f"{figures['rows_per_second']:,} rows/s{skipped}"
        console.out(f"{what:11} {figures['rows']:,} rows in {figures['seconds']:.2f} s: {speed}")

    start = perf_counter()
    changes = report.change(db)
    answers = report.ask(db)
    seconds = perf_counter() - start
    numbers = {
        "known": check.KNOWN,
        "files": check.from_files(limit),
        "driver": check.from_database(database),
        "dataflow": check.from_dataflow(changes, answers),
    }
    if limit is not None:
        del numbers["known"]
    checks = check.compare(numbers)
    ok = all(row["ok"] for row in checks)
    if as_json:
        times = {"load": loaded, "raw": plain, "seconds": seconds}
        document = {"database": database.place, **times, "changes": changes, "answers": answers}
        print(json.dumps({**document, "check": checks, "ok": ok}, default=datetime.isoformat, indent=2))
    else:
        report.show(changes, answers, console)
        console.out(f"Changes and questions took {seconds:.1f} s.\n")
        check.show(checks, list(numbers), console)
    return 0 if ok else 1


def raw_database(db: DataFlow, schema: str) -> SQLiteFile | PostgresSchema:
    """Return the database as its driver sees it, which the check will ask on its own."""
    url = db.config.url
    if url.scheme.startswith("postgres"):
        return PostgresSchema(url, schema)
    if url.scheme != "sqlite" or url.path == ":memory:":
        msg = "This example checks the database by its driver alone, so it needs a SQLite file or PostgreSQL"
        raise DataFlowError(msg, hint="--database sqlite:///flights.db")
    return SQLiteFile(url)


if __name__ == "__main__":
    sys.exit(main())
