"""The differential test by hand: ``python -m dataflow.testing.differential --help``."""

import argparse
import sys
import tempfile
from pathlib import Path

from dataflow.testing.differential.campaign import Report, run_campaign

LINE = 1000
"""Programs between two lines of progress, where the terminal is none."""


def main(arguments: list[str] | None = None) -> int:
    """Run programs and print what they showed; return 1 if a database diverged."""
    parser = argparse.ArgumentParser(prog="python -m dataflow.testing.differential", description=__doc__)
    parser.add_argument("--programs", type=int, default=2000, metavar="N", help="how many (2000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the first program; others follow (0)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="worker processes (1)")
    parser.add_argument(
        "--database", action="append", metavar="URL",
        help="may be given several times; {job} stands for the number of the worker. Tables whose names begin with "
        "diff0_, diff1_ … are created there, and emptied. By default a SQLite file in a temporary folder",
    )  # fmt: skip
    parser.add_argument("--no-table", action="store_true", help="leave the coverage table out")
    options = parser.parse_args(arguments)
    seeds = range(options.seed, options.seed + options.programs)

    def progress(report: Report) -> None:
        speed = report.programs / report.seconds
        text = f"{report.programs} programs, {len(report.failures)} divergences, {speed:.1f} programs/s"
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{text} ")
        elif report.programs % LINE == 0:
            sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    with tempfile.TemporaryDirectory() as folder:
        urls = options.database or [f"sqlite:///{Path(folder) / 'job{job}.db'}"]
        report = run_campaign(seeds, urls, jobs=options.jobs, progress=progress)
    sys.stdout.write(f"{report.text(table=not options.no_table)}\n{report.seconds:.0f} s\n")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
