"""Any subset of the features on one model, in every node kind, on both databases: as a plain-Python oracle says.

A hypothesis state machine runs random programs; for longer ones: ``python -m dataflow.enterprise.proof --help``.
"""

import contextlib
import os
import zlib
from random import Random
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, note, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from dataflow.enterprise.proof import effects
from dataflow.enterprise.proof.__main__ import Report, main
from dataflow.enterprise.proof.drawing import WEIGHTS
from dataflow.enterprise.proof.machine import FILLING, Target, draw_step, hunt
from dataflow.enterprise.proof.shop import SUBSETS, initials, shop_of
from dataflow.enterprise.proof.world import Open, Refused
from dataflow.enterprise.soft_delete import feature as soft_delete
from dataflow.enterprise.tenancy.rows import RowTenancy
from dataflow.enterprise.versioning import Versioning

SEED = int(os.environ.get("DATAFLOW_FEATURES_SEED", "0"))
PROGRAMS, STEPS = 2, 36
DATABASES = ("sqlite", "postgresql")
ELSEWHERE = [("sqlite", "strict"), ("sqlite", "database"), ("postgresql", "strict"), ("postgresql", "schema")]
FEW = [frozenset(wish.split()) for wish in (
    "multi_tenant", "multi_tenant soft_delete protection", "multi_tenant versioned audit_log",
    "multi_tenant soft_delete versioned audit_log protection",
)]  # fmt: skip


class Program(RuleBasedStateMachine):
    """One random program; `target` is set by the test."""

    target: ClassVar[Target]

    def __init__(self):
        super().__init__()
        self.target.reset()

    def run_step(self, rng, kind):
        step = draw_step(rng, self.target.world, kind)
        trial = self.target.world.copy()
        try:
            with contextlib.suppress(Refused):
                for op in step.ops:
                    effects.apply(trial, op)
        except Open:
            return
        note(str(step))
        self.target.run(step)

    @initialize(number=st.integers(0, 2**16))
    def fill(self, number):
        for place, kind in enumerate(FILLING):
            self.run_step(Random(f"{number} {place}"), kind)

    @rule(number=st.integers(0, 2**16))
    def step(self, number):
        self.run_step(Random(number), "")

    def teardown(self):
        self.target.check_audit()


def opening(stack, request, tmp_path, database, shop, **options):
    """Open a database with the models of a shop."""
    if database == "sqlite":
        target = Target(f"sqlite:///{tmp_path}/app.db", shop, sqlite_synchronous="OFF", **options)
    else:
        url = request.getfixturevalue("postgres_url")
        name = f"m{zlib.crc32(request.node.name.encode())}_{len(stack._exit_callbacks)}"
        where = {"tenant_database_prefix": f"{name}_"} if shop.placed else {"postgres_schema": name}
        target = Target(url, shop, pool_size=2, **where, **options)
    return stack.enter_context(contextlib.closing(target))


def complete(target, number):
    """Run each operation that the program did not draw."""
    for kind in WEIGHTS:
        possible = kind not in ("restore", "purge") or any(
            target.shop.has(m, "soft_delete") for m in target.shop.features
        )
        for turn in range(40):
            if not possible or any(own == kind for own, _ in target.seen):
                break
            step = draw_step(Random(f"{number} {kind} {turn}"), target.world, kind)
            with contextlib.suppress(Open, Refused):
                effects.apply(target.world.copy(), step.ops[0])
                target.run(step)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("database", DATABASES)
@pytest.mark.parametrize("number", range(len(SUBSETS)), ids=[initials(subset) for subset in SUBSETS])
def test_every_subset_of_the_features_does_what_the_oracle_says(request, tmp_path, database, number):
    with contextlib.ExitStack() as stack:
        target = opening(stack, request, tmp_path, database, shop_of(SUBSETS[number], number + SEED))
        machine = seed(SEED + number)(type("Machine", (Program,), {"target": target}))
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=PROGRAMS,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
                report_multiple_bugs=False,
            ),
        )
        complete(target, number)
        report = Report([SUBSETS[number]])
        report.add(target, initials(SUBSETS[number]))
    print(report.table())
    kinds = {kind for kind, column in report.empty() if column == initials(SUBSETS[number])}
    assert kinds == set()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("database", "isolation"), ELSEWHERE)
def test_the_oracle_is_right_however_tenants_are_kept_apart(request, tmp_path, database, isolation):
    with contextlib.ExitStack() as stack:
        for number, subset in enumerate(FEW):
            shop = shop_of(subset, number + SEED, placed=isolation in ("schema", "database"))
            folder = tmp_path / str(number)
            folder.mkdir()
            target = opening(stack, request, folder, database, shop, isolation=isolation)
            assert hunt(target, f"{SEED}:{number}", STEPS) is None


def unchecked(feature, plan):
    """Count versions, and never look at them."""
    if plan.statement == "insert":
        plan.set("version", 1)
    elif plan.statement in ("update", "delete"):
        plan.set("version", plan.table.c["version"] + 1)


def unconfined(feature, plan):
    """Stamp new records, and show all."""
    if plan.statement == "insert":
        plan.set("tenant_id", lambda call: call.around("tenant") or call.options.get("tenant_id") or "acme")


@pytest.mark.parametrize(
    ("subset", "where", "name", "broken"),
    [
        ({"versioned"}, Versioning, "extend_plan", unchecked),
        ({"multi_tenant"}, RowTenancy, "extend_plan", unconfined),
        ({"soft_delete"}, soft_delete, "dependents", lambda model: []),
    ],
    ids=["versions", "tenants", "children"],
)
def test_a_feature_that_does_not_do_its_work_is_caught(tmp_path, monkeypatch, subset, where, name, broken):
    monkeypatch.setattr(where, name, broken)
    with contextlib.closing(
        Target(f"sqlite:///{tmp_path}/app.db", shop_of(frozenset(subset), 4), sqlite_synchronous="OFF")
    ) as target:
        found = next((failure for turn in range(20) if (failure := hunt(target, str(turn), 60))), None)
    assert found is not None
    assert len(found.steps) <= 8


def test_the_command_prints_what_occurred(capsys):
    assert main(["--operations", "60", "--seed", "3"]) == 0
    text = capsys.readouterr().out
    assert "0 divergences" in text
    assert "bulk_upsert" in text
    assert "msvap" in text
