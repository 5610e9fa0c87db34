"""Filters, aggregates, pages, keys and references tell nothing of another tenant: the share that always runs.

``-s`` shows the table. In full: ``python -m dataflow.enterprise.proof.probes --help``.
"""

import pytest

from dataflow import DataFlow
from dataflow.enterprise.proof import probes

MODES = [
    ("sqlite", "shared", True),
    ("sqlite", "strict", True),
    ("sqlite", "database", True),
    ("postgresql", "shared", True),
    ("postgresql", "strict", True),
    ("postgresql", "strict", False),
    ("postgresql", "schema", True),
]
QUESTIONS = len(probes.PAIRS)


def asked(request, folder, dialect, isolation, *, rewriting, subsets, questions=QUESTIONS):
    def place(number):
        name = f"{isolation}_{rewriting}_{number}".lower()
        settings = {"tenant_database_prefix": f"p_{name}_"}
        if dialect == "sqlite":
            return f"sqlite:///{folder}/{number}.db", {**settings, "sqlite_synchronous": "OFF"}
        if isolation != "schema":
            settings["postgres_schema"] = f"probes_{name}"
        return request.getfixturevalue("postgres_url"), {**settings, "pool_size": 2}

    return probes.run(place, questions=questions, isolation=isolation, rewriting=rewriting, subsets=subsets)


@pytest.mark.parametrize(("dialect", "isolation", "rewriting"), MODES)
def test_no_question_tells_of_another_tenant(request, tmp_path, dialect, isolation, rewriting):
    turn = MODES.index((dialect, isolation, rewriting))
    subsets = probes.TENANTED if (dialect, isolation) == ("sqlite", "shared") else probes.TENANTED[turn::8]
    found = asked(request, tmp_path, dialect, isolation, rewriting=rewriting, subsets=subsets)
    print(found.table())
    assert found.faults == []
    assert {op for op, _ in found.pairs} == {op for _, op, _, _ in probes.PAIRS}
    if subsets is probes.TENANTED:
        assert found.empty() == []


def test_what_is_not_confined_tells(request, tmp_path):
    """The probes can find something: without the conditions, nearly every question does."""
    subsets = probes.TENANTED[-1:]
    found = asked(request, tmp_path, "sqlite", "shared", rewriting=False, subsets=subsets, questions=60)
    kinds = {fault.split(":")[0] for fault in found.faults}
    assert len(found.faults) > 20
    assert {f"msvap {kind}" for kind in ("list", "count", "arithmetic", "groups", "pages", "keys")} <= kinds


def test_every_field_of_theirs_lies_outside_of_ones_own(tmp_path):
    with DataFlow(f"sqlite:///{tmp_path}/app.db", sqlite_synchronous="OFF") as db:
        probes.declare(db, frozenset({"multi_tenant"}), "")
        probes.fill(db, frozenset({"multi_tenant"}))
        with db.tenant(probes.OTHER):
            for name, op, condition, finds_theirs in probes.PAIRS:
                document = {name: condition} if finds_theirs else {"$not": {name: condition}}
                bounded = op in ("$lt", "$lte", "$gt", "$gte", "$between")
                found = db.express_sync.count("Secret", document)["count"]
                assert found > 0 or bounded, (name, op)
