"""Random programs on SQLite, on PostgreSQL, and on an oracle in plain Python: the same results, errors and tables.

``-s`` shows the coverage table. By hand, for longer: ``python -m dataflow.testing.differential --help``.
"""

import contextlib
import io
import os

import pytest

from dataflow import DataFlow
from dataflow.testing.differential import (
    Script,
    Target,
    declare,
    empty,
    run_campaign,
    run_seeds,
)
from dataflow.testing.differential.__main__ import main
from dataflow.testing.differential.generator import LEAST, Generator
from dataflow.testing.differential.models import TABLES
from dataflow.testing.differential.world import World

pytestmark = pytest.mark.filterwarnings("ignore:.*records by reading them")  # offsets beyond all rows are asked for

PROGRAMS = 2000
SEED = int(os.environ.get("DATAFLOW_DIFFERENTIAL_SEED", "0"))
ERRORS = {
    ("UniqueError", "unique"), ("ForeignKeyError", "foreign-key"), ("QueryError", "arithmetic"),
    ("NotFoundError", "not-found"), ("Boom", ""),
    *(("InputError", code) for code in (
        "wrong-value", "missing-field", "unknown-field", "unknown-parameter", "unknown-operator", "unknown-relation",
        "bad-row", "bad-operand", "bad-operator", "bad-filter", "bad-sort", "bad-cursor", "bad-parameter",
        "bad-aggregate", "not-json", "not-unique", "duplicate-key", "missing-key", "missing-data", "key-changed",
        "empty-update", "twice", "unconfirmed", "several-faults", "missing-aggregate",
    )),
}  # fmt: skip
"""Errors that the programs must have met; "Boom" is a node of the user's own that fails."""


@pytest.fixture(scope="module")
def report(tmp_path_factory, postgres_url):
    files = tmp_path_factory.mktemp("differential") / "job{job}.db"
    return run_campaign(range(SEED, SEED + PROGRAMS), [f"sqlite:///{files}", postgres_url], jobs=2)


@pytest.mark.timeout(1800)  # minutes on a busy machine
def test_two_thousand_programs_do_the_same_on_every_database_as_in_plain_python(report):
    print(report.text(table=False))
    assert not report.failures, report.text(table=False)
    assert report.programs == PROGRAMS
    assert report.operations >= PROGRAMS * LEAST


def test_every_operator_meets_every_field_type_in_every_node(report):
    print(report.text())
    assert empty(report.cells) == []


def test_the_programs_meet_every_kind_of_error(report):
    assert ERRORS - set(report.errors) == set()


def test_a_seed_determines_its_program():
    def steps(seed):
        generator, world = Generator(seed), World()
        found = []
        while not generator.done:
            step, outcome = generator.next(world)
            found.append(repr((step.mode, step.scope, step.boom, [(op.kind, op.model, op.params) for op in step.ops])))
            found.append(repr(outcome))
        return found

    assert steps(7) == steps(7)
    assert steps(7) != steps(8)


def test_the_oracle_knows_the_columns_of_the_models_as_they_are_declared(tmp_path):
    target = Target(f"sqlite:///{tmp_path}/app.db")
    with contextlib.closing(target):
        declared = {name: tuple(model.fields) for name, model in target.db.core.models.items()}
        keys = {name: model.spec.unique_keys for name, model in target.db.core.models.items()}
    assert declared == {name: table.columns for name, table in TABLES.items()}
    assert keys == {name: list(table.keys) for name, table in TABLES.items()}


class Forgetful(Target):
    """A database that loses the last record of lists whose filter negates something."""

    def perform(self, step):
        results, error = super().perform(step)
        for op, result in zip(step.ops, results, strict=False):
            if op.kind == "list" and any(word in repr(op.params.get("filter")) for word in ("$ne", "$nin", "$not")):
                del result["records"][-1:]
        return results, error


def printed(text, url):
    """Run a printed program on another database; return what it prints."""
    lines = [f"db = DataFlow({url!r})" if line.startswith("db = ") else line for line in text.splitlines()]
    code = "\n".join(lines[lines.index("import datetime") :])
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, "program", "exec"), {})
    return out.getvalue()


def test_a_database_that_loses_records_is_caught_with_the_smallest_program_that_shows_it(tmp_path):
    with contextlib.closing(Forgetful(f"sqlite:///{tmp_path}/lies.db")) as target:
        report = run_seeds(range(40), [target])
    assert report.failures
    for failure in report.failures:
        assert failure.steps <= 3, failure.text
        assert f"seed {failure.seed} (sqlite)" in failure.text
        assert "'$n" in failure.text
        assert "'records'" in printed(failure.text, f"sqlite:///{tmp_path}/{failure.seed}.db")


@pytest.mark.parametrize("seed", range(0, 60, 10))
def test_every_program_can_be_printed_as_python_that_does_the_same(tmp_path, seed):
    generator, world = Generator(seed), World()
    steps = []
    while not generator.done:
        steps.append(generator.next(world)[0])
    url = f"sqlite:///{tmp_path}/app.db"
    printed(Script(steps).text(url), url)
    with DataFlow(url) as db:
        declare(db)
        counts = {model: db.express_sync.count(model)["count"] for model in TABLES}
    assert counts == {model: len(rows) for model, rows in world.tables.items()}


def test_a_wrong_rule_of_the_oracle_is_caught_too(tmp_path, monkeypatch):
    from dataflow.testing.differential import changes

    right = changes.apply

    def wrong(op, kind, value, operand, name):
        return right({"$max": "$min"}.get(op, op), kind, value, operand, name)

    monkeypatch.setattr(changes, "apply", wrong)
    with contextlib.closing(Target(f"sqlite:///{tmp_path}/app.db")) as target:
        report = run_seeds(range(60), [target])
    assert report.failures
    assert all("'$max'" in failure.text and failure.steps <= 3 for failure in report.failures)


def test_the_command_prints_coverage_and_divergences(capsys):
    assert main(["--programs", "3", "--seed", "5"]) == 0
    text = capsys.readouterr().out
    assert "3 programs" in text
    assert "0 divergences" in text
    assert "bulk_update rows" in text


def test_a_worker_that_cannot_start_is_an_error_not_a_wait(capfd):
    with pytest.raises(RuntimeError, match="worker 0 failed: MissingCapability"):
        run_campaign([1], ["nowhere://here"])
