"""SQLite in a file passes the public conformance suites."""

import json
from pathlib import Path

import pytest

from dataflow.testing.conformance import *  # noqa: F403
from dataflow.testing.conformance import CAPABILITIES


@pytest.fixture(scope="module")
def database_url(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('conformance')}/app.db"


def test_the_parity_table_tells_what_the_suites_find(scorecard):
    if scorecard.not_run:
        pytest.skip("only a part of the suites ran")
    table = Path(__file__).parents[3] / "docs" / "reference" / "parity.json"
    known = json.loads(table.read_text(encoding="utf-8"))["sqlite"]
    assert scorecard.features() == known, "run python docs/generate.py parity"
    assert set(known) == set(CAPABILITIES), "every feature is backed by a test"
