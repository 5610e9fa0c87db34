"""Tenants with a place of their own: a database each, or a schema each; the same calls, and no way to the others."""

import pytest

from dataflow import DataFlow
from dataflow.enterprise.audit import AuditLogSync
from dataflow.errors import (
    ConfigurationError,
    InputError,
    TenancyError,
    UsageError,
    WorkflowExecutionError,
    WriteProtectedError,
)
from dataflow.files import dump, load
from dataflow.runtime import LocalRuntime

MODES = [("sqlite", "database"), ("postgresql", "database"), ("postgresql", "schema")]


@pytest.fixture(params=MODES, ids="-".join)
def placed(request, tmp_path):
    """A DataFlow whose tenants have a place each, with two of them filled."""
    from dataflow import DataFlow

    dialect, mode = request.param
    url = f"sqlite:///{tmp_path / 'main.db'}"
    settings = {"multi_tenant": True, "tenant_isolation": mode}
    if dialect == "postgresql":
        url = request.getfixturevalue("postgres_url")
        name = tmp_path.name.replace("-", "_")[-20:]
        settings |= {"tenant_database_prefix": f"t_{name}_{mode}_", "pool_size": 2, "pool_max_overflow": 2}
    with DataFlow(url, **settings) as db:

        @db.model
        class Note:
            text: str
            __dataflow__ = {"soft_delete": True, "versioned": True, "audit_log": True}
            __indexes__ = [{"name": "uq_note_text", "fields": ["text"], "unique": True}]

        x = db.express_sync
        for tenant in ("acme", "bolt"):
            with db.tenant(tenant), db.actor(f"{tenant}-user"):
                x.create("Note", {"text": "same"})
                x.create("Note", {"text": tenant})
        yield db


def test_each_tenant_sees_its_own_place_by_every_way(placed):
    x = placed.express_sync
    for tenant in ("acme", "bolt", "acme"):
        with placed.tenant(tenant):
            assert [r["text"] for r in x.list("Note")["records"]] == ["same", tenant]
            assert [r["id"] for r in x.list("Note")["records"]] == [1, 2]
            builder = placed.workflow().add_node("NoteListNode", "list", {})
            builder.add_node("AsyncSQLDatabaseNode", "sql", {"query": "SELECT text FROM notes ORDER BY id"})
            results, _ = LocalRuntime().execute(builder.build())
            assert results["list"]["count"] == 2
            assert [row["text"] for row in results["sql"]["result"]["data"]] == ["same", tenant]
            assert "tenant_id" not in x.read("Note", 1)


def test_tenant_id_of_a_call_has_to_agree_and_none_is_an_error(placed):
    x = placed.express_sync
    with placed.tenant("acme"):
        assert x.list("Note", tenant_id="acme")["count"] == 2
        with pytest.raises(TenancyError) as refused:
            x.list("Note", tenant_id="bolt")
        assert refused.value.code == "other-tenant"
    for call in (
        lambda: x.list("Note"),
        lambda: x.create("Note", {"text": "x"}),
        lambda: x.list("Note", tenant_id="acme"),
    ):
        with pytest.raises(TenancyError) as refused:
            call()
        assert refused.value.code == "no-tenant"
    workflow = placed.workflow().add_node("NoteCountNode", "n", {}).build()
    with pytest.raises((WorkflowExecutionError, TenancyError)):
        LocalRuntime().execute(workflow)


def test_ids_that_cannot_be_part_of_a_name_are_refused(placed):
    x = placed.express_sync
    for odd in ("../x", "a b", 'a"b', "a;b", "ä", "a" * 80):
        with placed.tenant(odd), pytest.raises(TenancyError) as refused:
            x.list("Note")
        assert refused.value.code == "bad-tenant"


def test_a_transaction_stays_in_its_place(placed):
    from dataflow.nodes import BaseDataFlowNode

    @placed.register_node
    class Elsewhere(BaseDataFlowNode):
        def execute(self, input_data):
            with placed.tenant("bolt"):
                return {"n": placed.express_sync.count("Note")["count"]}

    builder = placed.workflow().add_node("TransactionScopeNode", "scope", {"database": placed})
    builder.add_node("NoteCreateNode", "create", {"text": "more"})
    builder.add_node("Elsewhere", "other", {})
    builder.add_node("NoteCountNode", "count", {})
    workflow = builder.build()
    with placed.tenant("acme"), pytest.raises(WorkflowExecutionError) as failed:
        LocalRuntime().execute(workflow)
    assert isinstance(failed.value.__cause__, UsageError)
    with placed.tenant("acme"):
        assert placed.express_sync.count("Note")["count"] == 2


def test_no_call_is_among_all_tenants(placed):
    with pytest.raises(TenancyError), placed.all_tenants(reason="all"):
        placed.express_sync.list("Note")


def test_every_model_belongs_to_tenants_where_each_has_a_place(tmp_path):
    from dataflow import DataFlow

    class Country:
        name: str

    with DataFlow(f"sqlite:///{tmp_path / 'a.db'}", tenant_isolation="database") as db:
        with pytest.raises(ConfigurationError, match="not multi-tenant"):
            db.model(Country)
        assert db.list_models() == []

    with pytest.raises(ConfigurationError, match="SQLite has no schemas"):
        DataFlow(":memory:", tenant_isolation="schema")
    with pytest.raises(ConfigurationError, match="part of a name"):
        DataFlow(":memory:", tenant_isolation="database", tenant_database_prefix="../")


def test_a_file_each_lies_beside_the_main_one_and_many_can_be_open(tmp_path):
    from dataflow import DataFlow

    with DataFlow(f"sqlite:///{tmp_path / 'main.db'}", multi_tenant=True, tenant_isolation="database") as db:

        @db.model
        class Note:
            text: str

        x = db.express_sync
        for n in range(70):  # more than are kept open
            with db.tenant(f"t{n}"):
                x.create("Note", {"text": str(n)})
        for n in (0, 69, 35):
            with db.tenant(f"t{n}"):
                assert x.list("Note", fields=["text"])["records"] == [{"text": str(n)}]
    assert (tmp_path / "tenant_t0.db").exists()
    assert not (tmp_path / "main.db").exists()


def test_memory_keeps_a_database_for_each_tenant():
    from dataflow import DataFlow

    with DataFlow(":memory:", multi_tenant=True, tenant_isolation="database") as db:

        @db.model
        class Note:
            text: str

        x = db.express_sync
        for tenant in ("a", "b"):
            with db.tenant(tenant):
                x.create("Note", {"text": tenant})
        with db.tenant("a"):
            assert x.list("Note", fields=["text"])["records"] == [{"text": "a"}]


def test_tenancy_names_take_no_odd_values():
    from dataflow import DataFlow

    with DataFlow(":memory:") as db, pytest.raises(InputError):
        db.tenant("\0")


def test_health_looks_at_the_place_that_is_meant_and_at_none_without_a_tenant(placed):
    found = placed.health()
    assert found["ok"], found
    assert "tables" not in found["checks"]["database"]
    with placed.tenant("acme"):
        assert placed.health()["checks"]["database"]["tables"] == 1


def test_an_unlock_holds_in_the_place_whose_log_it_stands_in(tmp_path):
    settings = {"multi_tenant": True, "tenant_isolation": "database", "protection": {"global": {"deny": ["delete"]}}}
    with DataFlow(f"sqlite:///{tmp_path / 'main.db'}", **settings) as db:

        @db.model
        class Note:
            text: str

        x = db.express_sync
        for tenant in ("acme", "bolt"):
            with db.tenant(tenant):
                x.create("Note", {"text": tenant})
        with db.tenant("acme"), db.actor("root"), db.unlocked(reason="a wish"):
            with db.tenant("bolt"), pytest.raises(WriteProtectedError):
                x.delete("Note", 1)
            assert x.delete("Note", 1)["deleted"] == 1
            assert [entry["new"] for entry in AuditLogSync(db).entries()["entries"]] == [{"reason": "a wish"}]
        with pytest.raises(TenancyError), db.unlocked(reason="nobody's"):
            pass


def test_streams_files_and_arrow_stay_in_their_place(placed, tmp_path):
    pa = pytest.importorskip("pyarrow")
    x = placed.express_sync
    with pytest.raises(TenancyError):
        dump(placed, "Note", tmp_path / "none.jsonl")
    with placed.tenant("acme"):
        stream = x.stream("Note", batch_size=1)
        texts = [next(stream)["text"]]
        assert dump(placed, "Note", tmp_path / "notes.csv", fields=["text"])["rows"] == 2
    with placed.tenant("bolt"), placed.actor("bob"):
        texts += [record["text"] for record in stream]
        report = load(placed, "Note", tmp_path / "notes.csv", reject_file=tmp_path / "rejects.csv")
        assert (report.created, report.rejected) == (1, 1)  # "same" is there already
        x.bulk_create("Note", pa.table({"text": ["arrow"]}))
        entries = x.call("audit", "Note", actor="bob")["entries"]
        assert [entry["new"]["text"] for entry in entries] == ["acme", "arrow"]
        assert AuditLogSync(placed).verify().ok
    assert texts == ["same", "acme"]
    with placed.tenant("acme"):
        assert x.count("Note") == {"count": 2}
