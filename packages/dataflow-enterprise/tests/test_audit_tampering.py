"""Whoever may do anything to the database is found out: random changes of the log, each looked for."""

from itertools import count

import pytest

from dataflow import DataFlow
from dataflow.enterprise.audit.proof import main, prove_tamperings

SCHEMAS = count()


@pytest.mark.parametrize("part", range(2))
def test_every_tampering_is_found_on_sqlite(part):
    with DataFlow(":memory:", audit_key="k") as db:
        assert prove_tamperings(db, 60, 10_000 * part) == []


@pytest.mark.parametrize("part", range(2))
def test_every_tampering_is_found_on_postgresql(postgres_url, part):
    with DataFlow(postgres_url, postgres_schema=f"tamper_{next(SCHEMAS)}", audit_key="k") as db:
        assert prove_tamperings(db, 60, 10_000 * part) == []


def test_the_proof_runs_as_a_program(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["proof", "--programs", "2", "--steps", "8", "--tamperings", "5"])
    assert main() == 0
    assert "5 of 5 tamperings were found" in capsys.readouterr().out
