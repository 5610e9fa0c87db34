"""Many programs, in one process or several: counted, compared, and reported."""

import multiprocessing
import os
import queue
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from dataflow.testing.differential import coverage
from dataflow.testing.differential.expect import Outcome
from dataflow.testing.differential.printing import Script
from dataflow.testing.differential.programs import Step
from dataflow.testing.differential.run import Found, Minimiser, run_program
from dataflow.testing.differential.target import Target

BLOCK = 50
"""Programs between two reports of a worker."""
MOST_FAILURES = 5
"""Divergences after which a worker stops."""


@attrs.frozen
class Failure:
    """A divergence, as it is printed.

    Attributes:
        seed: of the program.
        database: name of the dialect.
        text: what differs, and the smallest program that shows it.
        steps: number of its steps.
    """

    seed: int
    database: str
    text: str
    steps: int


@attrs.define
class Report:
    """What some programs have shown.

    Attributes:
        programs, operations: how many were run.
        cells: (node kind, field type, operator) -> how often.
        errors: (class, code) -> how often it was expected, and raised.
        failures: the divergences.
        seconds: how long it took.
    """

    programs: int = 0
    operations: int = 0
    cells: Counter[coverage.Cell] = attrs.field(factory=Counter)
    errors: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    failures: list[Failure] = attrs.field(factory=list)
    seconds: float = 0.0

    def add(self, other: "Report") -> None:
        """Add what another worker has shown."""
        self.programs += other.programs
        self.operations += other.operations
        self.cells.update(other.cells)
        self.errors.update(other.errors)
        self.failures += other.failures

    def see(self, step: Step, outcome: Outcome) -> None:
        """Count a step on which all agreed."""
        self.operations += len(step.ops)
        self.cells.update(coverage.cells_of(step, len(outcome.results)))
        if outcome.error is not None:
            self.errors[outcome.error] += 1

    def text(self, *, table: bool = True) -> str:
        """Write the report."""
        lines = [failure.text for failure in self.failures]
        if table:
            lines.append(coverage.table(self.cells))
        lines.append(f"{self.programs} programs, {self.operations} operations, {len(self.failures)} divergences")
        lines.append(coverage.summary(self.cells))
        errors = ", ".join(
            f"{name} {code} {count}".replace("  ", " ") for (name, code), count in self.errors.most_common()
        )
        lines.append(f"errors that all agreed on: {errors or 'none'}")
        return "\n".join(lines)


def explain(seed: int, found: Found, url: str, size: int) -> Failure:
    """Write a divergence for people: seed, difference, and the program as Python."""
    text = Script(found.steps).text(url)
    head = f"seed {seed} ({found.database}), {len(found.steps)} of {size} steps: {found.what}"
    head += f"\n  again:    python -m dataflow.testing.differential --programs 1 --seed {seed} --database …"
    return Failure(
        seed,
        found.database,
        f"{'=' * 100}\n{head}\n  expected: {found.expected!r}\n  got:      {_short(found.actual)}\n{'-' * 100}\n{text}",
        len(found.steps),
    )


def _short(value: Any) -> str:
    text = value[2] if isinstance(value, tuple) and len(value) == 3 and isinstance(value[2], str) else repr(value)
    shown = f"{value[:2]!r}\n{text}" if text != repr(value) else text
    return shown if len(shown) < 3000 else f"{shown[:3000]} …"


def run_seeds(seeds: Sequence[int], targets: Sequence[Target]) -> Report:
    """Run the programs of some seeds in this process."""
    report = Report()
    for seed in seeds:
        found = run_program(seed, targets, report.see)
        report.programs += 1
        if found is not None:
            size = len(found.steps)
            small = Minimiser(found, targets).run()
            url = next(target.url for target in targets if target.name == small.database)
            report.failures.append(explain(seed, small, url, size))
            if len(report.failures) >= MOST_FAILURES:
                break
    return report


def _worker(job: int, seeds: Sequence[int], urls: Sequence[str], out: Any) -> None:
    if job % 2 and hasattr(time, "tzset"):  # naive datetimes are local time, wherever that is
        os.environ["TZ"] = "America/St_Johns"
        time.tzset()
    try:
        targets = [Target(url, job) for url in urls]
        failures = 0
        for start in range(0, len(seeds), BLOCK):
            report = run_seeds(seeds[start : start + BLOCK], targets)
            failures += len(report.failures)
            out.put((job, report))
            if failures >= MOST_FAILURES:
                break
        for target in targets:
            target.close()
        out.put((job, None))
    except BaseException as error:
        out.put((job, f"{type(error).__name__}: {error}"))
        raise


def run_campaign(
    seeds: Sequence[int],
    urls: Sequence[str],
    *,
    jobs: int = 1,
    progress: Callable[[Report], None] | None = None,
) -> Report:
    """Run the programs of some seeds on several databases.

    Args:
        seeds: one program each.
        urls: the databases; ``{job}`` in a URL stands for the number of the worker. Every worker has tables of its own.
        jobs: worker processes.
        progress: called now and then with what there is so far.

    Raises:
        RuntimeError: a worker died.
    """
    began = time.monotonic()
    context = multiprocessing.get_context("spawn")  # no state of this process, and no event loop of it
    out: Any = context.Queue()
    workers = [
        context.Process(target=_worker, args=(job, list(seeds)[job::jobs], list(urls), out), daemon=True)
        for job in range(jobs)
    ]
    for worker in workers:
        worker.start()
    whole = Report()
    open_jobs = set(range(jobs))
    try:
        while open_jobs:
            try:
                job, report = out.get(timeout=1)
            except queue.Empty:
                dead = [job for job in open_jobs if not workers[job].is_alive()]
                if dead and out.empty():
                    raise RuntimeError(f"worker {dead[0]} died with exit code {workers[dead[0]].exitcode}") from None
                continue
            if report is None:
                open_jobs.discard(job)
                continue
            if not isinstance(report, Report):
                raise RuntimeError(f"worker {job} failed: {report}")  # noqa: TRY004  # what it said when it died
            whole.add(report)
            whole.seconds = time.monotonic() - began
            if progress is not None:
                progress(whole)
    finally:
        for worker in workers:
            if open_jobs:
                worker.terminate()
            worker.join()
        out.close()
        out.join_thread()
    whole.seconds = time.monotonic() - began
    return whole
