"""Random schemas with rows become other random schemas; what comes out is what a fresh build makes, with the same rows.

The share that always runs; for more: ``python -m dataflow.migrations.proof --help``.
"""

import attrs
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dataflow.changes import Step
from dataflow.migrations.execution import Execution, Limits, MigrationError, nothing
from dataflow.migrations.journal import Journal
from dataflow.migrations.plan import Plan, PlannedStep
from dataflow.migrations.proof import __main__ as program
from dataflow.migrations.proof.benches import bench
from dataflow.migrations.proof.schema import Column, Part, Schema
from dataflow.migrations.proof.shrinking import shrunk
from dataflow.migrations.proof.trips import Divergence, Report, Trip, drawn, travel
from dataflow.migrations.risk import level_of

TRIPS = {"sqlite": 300, "postgres": 24}
EDITS = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=6)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def place(request):
    url = "sqlite" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    with bench(url) as opened:
        yield opened


def test_random_schemas_become_others_and_keep_their_rows(place):
    report = Report()

    @settings(
        max_examples=TRIPS["postgres" if place.dialect.name == "postgresql" else "sqlite"],
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 10**6), EDITS)
    def trips(seed, edits):
        travel(place, drawn(place, seed, edits), report)

    trips()
    assert report.outcomes["done"] > report.trips / 2
    assert report.numbers["values that stayed"] > report.trips
    if place.dialect.name == "postgresql":
        assert report.numbers["steps measured"] > report.trips


# -- the proof can fail -----------------------------------------------------------------------------------------------
def column(number, name, **how):
    return Column(number, "column", name, 1, type="integer", **how)


def table(*columns):
    return Schema().with_(Part(1, "table", "t"), *columns)


class Forgetful:
    """An editor that leaves some operations out, or announces too little."""

    def __init__(self, editor, *, without="", change=lambda step: step):
        self.editor = editor
        self.without = without
        self.change = change

    def __getattr__(self, name):
        return getattr(self.editor, name)

    def steps(self, *arguments):
        made = self.editor.steps(*arguments)
        return [self.change(step) for step in made if step.operation != self.without]


def fitted(place, schema):
    """Return a schema with types that the database knows by name."""
    upper = place.dialect.name != "postgresql"
    columns = [part for part in schema.parts.values() if isinstance(part, Column)]
    return schema.with_(*(attrs.evolve(one, type=one.type.upper() if upper else one.type) for one in columns))


def fault(place, monkeypatch, before, after, **how):
    monkeypatch.setattr(place, "editor", Forgetful(place.editor, **how))
    with pytest.raises(Divergence) as caught:
        travel(place, Trip(fitted(place, before), fitted(place, after), apart=True), Report())
    return caught.value


BOTH = table(column(2, "a"), column(3, "b"))


def test_a_step_that_is_left_out_is_seen(place, monkeypatch):
    found = fault(place, monkeypatch, table(column(2, "a")), BOTH, without="add_column_nullable")
    assert found.kind == "second difference"


def test_lost_rows_are_seen(place, monkeypatch):

    def emptied(step):
        return attrs.evolve(step, sql=(*step.sql, "DELETE FROM t"))

    found = fault(place, monkeypatch, table(column(2, "a")), BOTH, change=emptied)
    assert found.kind == "rows"


def test_loss_that_is_not_announced_is_seen(place, monkeypatch):

    def silent(step):
        return attrs.evolve(step, data_loss="none")

    assert fault(place, monkeypatch, BOTH, table(column(2, "a")), change=silent).kind == "loss, unannounced"


def test_refusals_that_are_not_announced_are_seen(place, monkeypatch):

    def sure(step):
        return attrs.evolve(step, fails_on_data="no")

    unique = Part(4, "unique", "u", 1, "UNIQUE («2»)")
    found = fault(place, monkeypatch, table(column(2, "a")), table(column(2, "a"), unique), change=sure)
    assert found.kind == "refused by data, unannounced"


def test_locks_that_are_not_announced_are_seen(place, monkeypatch):

    if place.dialect.name != "postgresql":
        pytest.skip("SQLite has one lock")

    def modest(step):
        return attrs.evolve(step, locks=dict.fromkeys(step.locks, "SHARE"))

    found = fault(place, monkeypatch, table(column(2, "a")), BOTH, change=modest)
    assert found.kind == "more than announced"


def test_what_goes_wrong_is_made_small(place, monkeypatch):
    monkeypatch.setattr(place, "editor", Forgetful(place.editor, without="add_column_nullable"))
    more = [Part(9, "table", "other"), Column(10, "column", "c", 9, type="integer")]
    before, after = table(column(2, "a"), column(5, "z")).with_(*more), BOTH.with_(column(5, "z"), *more)
    trip = Trip(fitted(place, before), fitted(place, after), apart=True)
    with pytest.raises(Divergence) as caught:
        travel(place, trip, Report())
    small, again = shrunk(place, trip, caught.value)
    assert again.kind == caught.value.kind
    assert len(small.after.parts) <= 3
    assert small.rows == 0


# -- what trips have shown --------------------------------------------------------------------------------------------
def test_values_that_a_step_has_changed_are_told_of_when_it_is_undone(place):
    if place.editor.whole:
        pytest.skip("all of a migration is undone there")
    place.start(Schema())
    place.execute("CREATE TABLE t (a numeric)", "INSERT INTO t VALUES (1.5)")
    there, back = (f"ALTER TABLE t ALTER COLUMN a TYPE {kind}" for kind in ("numeric(9, 0)", "numeric"))
    steps = [
        Step("change_type_narrowing", "round t.a", "t", (there,), (back,), mode="apart", data_loss="possible"),
        Step("other", "fail", "t", ("SELECT 1 / 0",), (), mode="apart"),
    ]
    plan = Plan("postgresql", "", tuple(PlannedStep(step, level_of(step)) for step in steps))
    execution = Execution(place.editor, Journal(place.dialect), limits=Limits(), finish=nothing)
    with pytest.raises(MigrationError) as caught:
        place.run(place.editor.locked(execution.run(plan), timeout=5))
    assert caught.value.undone
    assert caught.value.hint.endswith("the schema is as it was, but values may have changed: round t.a")


def test_the_proof_runs_as_a_program(capsys):
    assert program.main(["sqlite", "--seed", "1", "--count", "3", "--edits", "2"]) == 0
    printed = capsys.readouterr().out
    assert "3 trips" in printed
    assert "0 failures" in printed
