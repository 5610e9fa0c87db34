"""Random programs as one tenant never show, or change, a value of another: the share of the proof that always runs.

In full: ``python -m dataflow.enterprise.proof.canaries --help``.
"""

from collections import Counter

import pytest

from dataflow.enterprise.proof import canaries
from dataflow.operations import BY_NAME

MODES = [
    ("sqlite", "shared", True),
    ("sqlite", "strict", True),
    ("sqlite", "strict", False),
    ("sqlite", "database", True),
    ("postgresql", "shared", True),
    ("postgresql", "strict", True),
    ("postgresql", "strict", False),
    ("postgresql", "schema", True),
]
OPERATORS = {
    "$and", "$between", "$contains", "$eq", "$endswith", "$exists", "$gt", "$gte", "$ilike", "$in", "$iregex", "$like",
    "$lt", "$lte", "$ne", "$nin", "$nor", "$not", "$null", "$or", "$overlap", "$regex", "$startswith",
}  # fmt: skip


def proof(request, folder, dialect, isolation, *, rewriting, operations, seed):
    def place(number):
        settings = {"multi_tenant": True, "tenant_database_prefix": f"{folder.name[-12:]}_{number}_".replace("-", "_")}
        if dialect == "sqlite":
            return f"sqlite:///{folder}/{number}.db", {**settings, "sqlite_synchronous": "OFF"}
        if isolation != "schema":
            settings["postgres_schema"] = f"leaks_{isolation}_{rewriting}_{number}".lower()
        return request.getfixturevalue("postgres_url"), {**settings, "pool_size": 2}

    return canaries.run(place, operations=operations, isolation=isolation, rewriting=rewriting, seed=seed)


@pytest.mark.parametrize(("dialect", "isolation", "rewriting"), MODES)
def test_no_canary_is_seen(request, tmp_path, dialect, isolation, rewriting):
    found = proof(request, tmp_path, dialect, isolation, rewriting=rewriting, operations=200, seed=7)
    assert found.faults == []
    assert found.operations >= 200
    assert len(found.subsets) == len(canaries.SUBSETS)


def test_every_kind_of_node_by_every_route_and_every_operator_occurs(request, tmp_path):
    found = proof(request, tmp_path, "sqlite", "shared", rewriting=True, operations=2400, seed=3)
    assert found.faults == []
    kinds = Counter(kind.split()[0] for kind in found.kinds.elements())
    routes = {tuple(kind.split()) for kind in found.kinds if kind != "sql"}
    named = {*BY_NAME, "restore", "purge", "audit"}
    print({kind: kinds[kind] for kind in sorted(kinds)}, dict(found.operators))
    every = {(kind, route) for kind in named for route in ("sync", "async", "workflow", "scope")}
    assert routes == every
    assert set(kinds) == {*named, "sql"}
    assert not OPERATORS - set(found.operators)


def test_what_is_not_confined_is_seen(request, tmp_path, monkeypatch):
    """The proof can fail: without anything that confines, canaries are all over the place."""
    monkeypatch.setattr(canaries, "SUBSETS", canaries.SUBSETS[:1])
    with canaries._alone(rewriting=False):
        found = proof(request, tmp_path, "sqlite", "shared", rewriting=True, operations=100, seed=1)
    assert any("shows 'CANARY" in fault for fault in found.faults)
