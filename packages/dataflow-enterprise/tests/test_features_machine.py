"""Any subset of the features on one model, in every node kind, on both databases: as a plain-Python oracle says.

A hypothesis state machine runs random programs; for longer ones: ``python -m dataflow.enterprise.proof --help``.
"""

import contextlib
import os
from collections import Counter
from random import Random
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, note, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from dataflow.enterprise.proof import effects
from dataflow.enterprise.proof.drawing import WEIGHTS
from dataflow.enterprise.proof.machine import FILLING, Divergence, Target, draw_step, hunt
from dataflow.enterprise.proof.shop import MODELS, SUBSETS, initials, shop_of
from dataflow.enterprise.proof.world import Open, Refused

SEED = int(os.environ.get("DATAFLOW_FEATURES_SEED", "0"))
PROGRAMS, STEPS = 2, 36
DATABASES = ("sqlite", "postgresql")
KINDS = ["", *(kind for kind, weight in WEIGHTS.items() for _ in range(weight))]
SEEN = Counter()
"""(subset, database, operation) -> how often it ran in this worker."""


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


@pytest.fixture(params=DATABASES)
def opened(request, tmp_path):
    """What opens a database with the models of a shop."""
    with contextlib.ExitStack() as stack:

        def build(shop, **options):
            if request.param == "sqlite":
                target = Target(f"sqlite:///{tmp_path}/app.db", shop, sqlite_synchronous="OFF", **options)
            else:
                url = request.getfixturevalue("postgres_url")
                prefix = f"m{abs(hash(request.node.name)) % 10**8}_"
                target = Target(url, shop, prefix=prefix, pool_size=2, **options)
            stack.enter_context(contextlib.closing(target))
            return target

        build.database = request.param
        yield build


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", range(len(SUBSETS)), ids=[initials(subset) for subset in SUBSETS])
def test_every_subset_of_the_features_does_what_the_oracle_says(opened, number):
    target = opened(shop_of(SUBSETS[number], number + SEED))
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
    assert target.operations > 0
    assert {model for model, rows in target.world.tables.items() if rows} <= set(MODELS)
