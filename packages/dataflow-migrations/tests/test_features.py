"""Models with features of the enterprise package follow their models too, and their features go on meanwhile."""

import asyncio
from contextlib import nullcontext
from typing import Annotated

import pytest

from dataflow import DataFlow, Field
from dataflow.dialect import COUNT, Command
from dataflow.errors import InputError, SchemaError, TenancyError, UniqueError, VersionConflict

ALL = {"multi_tenant": True, "soft_delete": True, "versioned": True, "audit_log": True}


def invoice(db, options, *, more=None, kinds=None, indexes=()):
    """Register a model with a number and more fields."""
    annotations = {"number": str, **(kinds or {})}
    unique = {"name": "uq_invoice_number", "fields": ["number"], "unique": True}
    members = {"__annotations__": annotations, "__dataflow__": options, "__indexes__": [unique, *indexes]}
    return db.model(type("Invoice", (), {**members, **(more or {})}))


def migrate(db, **options):
    return asyncio.run(db.auto_migrate(auto_confirm=True, **options))


def numbers(db):
    return [record["number"] for record in db.express_sync.list("Invoice")["records"]]


def audited(db):
    return [entry["action_type"] for entry in db.express_sync.call("audit", "Invoice")["entries"]]


@pytest.mark.parametrize("isolation", ["shared", "strict"])
def test_a_model_with_all_features_gets_a_column_and_keeps_its_promises(opening, isolation):
    db = opening(tenant_isolation=isolation)
    invoice(db, ALL)
    for tenant in ("acme", "bolt"):
        with db.tenant(tenant), db.actor("ann"):
            db.express_sync.create("Invoice", {"number": "1"})
    db.close()

    db = opening(tenant_isolation=isolation)
    invoice(db, ALL, kinds={"paid": bool}, more={"paid": False}, indexes=[{"name": "by_paid", "fields": ["paid"]}])
    with db.tenant("acme"), db.actor("bob"):
        (record,) = db.express_sync.list("Invoice")["records"]
        assert (record["paid"], record["version"]) == (False, 1)
        db.express_sync.update("Invoice", record["id"], {"paid": True, "version": 1})
        with pytest.raises(VersionConflict):
            db.express_sync.update("Invoice", record["id"], {"paid": False, "version": 1})
        with pytest.raises(UniqueError):
            db.express_sync.create("Invoice", {"number": "1"})
        db.express_sync.delete("Invoice", record["id"])
        assert numbers(db) == []
        assert audited(db)[-2:] == ["update", "soft_delete"]
    with db.tenant("bolt"):
        assert numbers(db) == ["1"]
        assert db.express_sync.list("Invoice")["records"][0]["paid"] is False
    assert db.core.schema_engine.plan_sync().steps == ()
    assert db.health()["ok"], db.health()


@pytest.mark.parametrize("isolation", ["shared", "strict"])
def test_a_table_with_all_features_is_changed_and_they_go_on(opening, isolation):
    db = opening(tenant_isolation=isolation)
    invoice(db, ALL, kinds={"amount": int, "old": str | None}, more={"old": None})
    with db.tenant("acme"), db.actor("ann"):
        db.express_sync.create("Invoice", {"number": "1", "amount": 5, "old": "x"})
    db.close()

    db = opening(tenant_isolation=isolation)
    invoice(db, ALL, kinds={"amount": str})
    with db.tenant("acme"), pytest.raises(SchemaError, match="more than additions"):
        numbers(db)
    assert migrate(db, max_risk_level="HIGH")[0]
    with db.tenant("acme"), db.actor("bob"):
        (record,) = db.express_sync.list("Invoice")["records"]
        assert record["amount"] == "5"
        db.express_sync.update("Invoice", record["id"], {"amount": "6"})
        db.express_sync.delete("Invoice", record["id"])
        assert audited(db)[-2:] == ["update", "soft_delete"]
    with db.tenant("bolt"):
        assert numbers(db) == []
    assert db.core.schema_engine.plan_sync().steps == ()
    assert db.health()["ok"], db.health()


@pytest.mark.parametrize("option", ["soft_delete", "versioned", "audit_log"])
def test_a_feature_can_be_switched_on_for_a_table_with_records(opening, option):
    db = opening()
    invoice(db, {})
    db.express_sync.create("Invoice", {"number": "1"})
    db.close()

    db = opening()
    invoice(db, {option: True})
    migrate(db, max_risk_level="HIGH")
    assert numbers(db) == ["1"]
    db.express_sync.update("Invoice", 1, {"number": "2"})
    db.express_sync.delete("Invoice", 1)
    assert numbers(db) == []
    if option == "soft_delete":
        assert db.express_sync.count("Invoice", only_deleted=True)["count"] == 1
        db.express_sync.create("Invoice", {"number": "2"})
    if option == "audit_log":
        assert audited(db)[-2:] == ["update", "delete"]
    assert db.core.schema_engine.plan_sync().steps == ()


def test_a_release_without_soft_delete_stops_where_the_keys_of_a_newer_one_hold(opening):
    db = opening()
    invoice(db, {"soft_delete": True})
    db.express_sync.create("Invoice", {"number": "1"})
    db.close()

    db = opening()
    invoice(db, {})
    with pytest.raises(SchemaError, match="more than additions") as caught:
        numbers(db)
    assert "uq_invoice_number" in str(caught.value)
    db.close()

    db = opening()
    invoice(db, {"soft_delete": True})
    assert numbers(db) == ["1"]


def test_tenancy_can_be_switched_on_where_it_is_said_whose_the_records_are(opening):
    db = opening()
    invoice(db, {})
    db.express_sync.create("Invoice", {"number": "1"})
    db.close()

    db = opening()
    invoice(db, {"multi_tenant": True})
    with db.tenant("acme"), pytest.raises(SchemaError, match="what do existing rows of invoices get as tenant_id"):
        numbers(db)
    assert migrate(db, max_risk_level="HIGH", backfill={"Invoice.tenant_id": "acme"})[0]
    with db.tenant("acme"):
        assert numbers(db) == ["1"]
    with db.tenant("bolt"):
        assert numbers(db) == []
        db.express_sync.create("Invoice", {"number": "1"})
    assert db.core.schema_engine.plan_sync().steps == ()


def test_each_tenant_s_own_place_follows_by_itself(opening, tmp_path):
    isolation = "database" if opening.dialect == "sqlite" else "schema"

    def release(**more):
        db = opening(
            tenant_isolation=isolation,
            multi_tenant=True,
            **({} if isolation == "database" else {"postgres_schema": None}),
        )
        invoice(db, {}, **more)
        return db

    def tenants():
        return (
            [f"{name}{len(str(tmp_path)) % 7}" for name in ("acme", "bolt")]
            if isolation == "schema"
            else ["acme", "bolt"]
        )

    db = release()
    for tenant in tenants():
        with db.tenant(tenant):
            db.express_sync.create("Invoice", {"number": tenant})
    db.close()
    db = release(kinds={"paid": bool}, more={"paid": False})
    for tenant in tenants():
        with db.tenant(tenant):
            (record,) = db.express_sync.list("Invoice")["records"]
            assert (record["number"], record["paid"]) == (tenant, False)
            assert db.core.schema_engine.plan_sync().steps == ()


@pytest.mark.parametrize("isolation", ["shared", "strict"])
def test_a_table_of_a_model_with_features_is_no_model_by_its_columns_alone(opening, isolation):
    db = opening(tenant_isolation=isolation)
    invoice(db, ALL)
    for tenant in ("acme", "bolt"):
        with db.tenant(tenant):
            db.express_sync.create("Invoice", {"number": "1"})
    db.close()

    db = opening(tenant_isolation=isolation, existing_schema_mode=True)
    made = db.register_schema_as_models()
    assert made["models"] == {}
    assert "multi_tenant, soft_delete, versioned, audit_log" in made["skipped"]["invoices"]
    with pytest.raises(InputError, match="reconstruct_models_from_registry"):
        db.register_schema_as_models(tables=["invoices"])
    assert db.reconstruct_models_from_registry()["reconstructed_models"] == ["Invoice"]
    with db.tenant("acme"):
        assert numbers(db) == ["1"]
    with pytest.raises(TenancyError):
        numbers(db)


def test_a_model_comes_back_with_the_features_that_a_setting_gave_it(opening):
    db = opening(multi_tenant=True, audit_logging=True)
    invoice(db, {})
    for tenant in ("acme", "bolt"):
        with db.tenant(tenant):
            db.express_sync.create("Invoice", {"number": tenant})
    db.close()

    db = opening(existing_schema_mode=True)
    assert db.reconstruct_models_from_registry()["reconstructed_models"] == ["Invoice"]
    with pytest.raises(TenancyError):
        numbers(db)
    with db.tenant("acme"):
        assert numbers(db) == ["acme"]
        assert audited(db) == ["create"]


def test_a_strict_instance_takes_no_table_of_several_tenants_for_everybody_s(opening):
    db = opening(tenant_isolation="strict")
    invoice(db, {"multi_tenant": True})
    for tenant in ("acme", "bolt"):
        with db.tenant(tenant):
            db.express_sync.create("Invoice", {"number": tenant})
    db.close()

    db = opening(tenant_isolation="strict", existing_schema_mode=True)
    invoice(db, {"multi_tenant": False})
    with db.tenant("acme"):
        if opening.dialect == "sqlite":
            with pytest.raises(SchemaError, match="tenant_isolation='strict'"):
                numbers(db)
        else:  # the policies are there, whatever the class says
            assert numbers(db) == ["acme"]


@pytest.mark.parametrize("isolation", ["shared", "strict"])
def test_features_come_and_go_and_the_table_stays_usable(opening, isolation):
    combinations = [{}, {"soft_delete": True}, {"versioned": True, "audit_log": True}, ALL, {"multi_tenant": True}]
    if isolation == "shared":
        combinations += [{"soft_delete": True, "audit_log": True}, {"versioned": True}, {}]
    for number, options in enumerate(combinations, 1):
        db = opening(tenant_isolation=isolation)
        invoice(db, options)
        tenancy = options.get("multi_tenant", False)
        if number > 1:
            backfill = {"backfill": {"Invoice.tenant_id": "acme"}} if tenancy else {}
            assert migrate(db, max_risk_level="CRITICAL", **backfill)[0]
            assert migrate(db) == (True, [])
        with db.tenant("acme") if tenancy else nullcontext():
            db.express_sync.create("Invoice", {"number": str(number)})
            assert db.express_sync.count("Invoice")["count"] == number
            if "audit_log" in options and (tenancy or isolation == "shared"):
                assert audited(db)[-1] == "create"
        db.close()


def test_an_audited_table_is_written_to_and_audited_all_the_while_its_columns_change(postgres_database, monkeypatch):
    monkeypatch.setattr("dataflow.postgres.migration.draft.LARGE", 0)
    kinds = {"a": int, "b": int, "c": str}
    with DataFlow(postgres_database) as db:
        invoice(db, {"audit_log": True}, kinds=kinds)
        db.express_sync.create("Invoice", {"number": "1", "a": 1, "b": 2, "c": "c"})
    later, other = DataFlow(postgres_database), DataFlow(postgres_database)
    kinds = {"a": int, "bb": Annotated[int, Field(renamed_from="b")], "d": int | None}
    invoice(later, {"audit_log": True}, kinds=kinds, more={"d": None}, indexes=[{"name": "by_a", "fields": ["a"]}])
    editor = later.core.schema_engine.editor
    perform = editor.perform

    def between(step):  # the column is gone, the index is not there yet
        sql = "INSERT INTO invoices (number, a, bb) VALUES ('2', 3, 4)"
        other.core.ask(one(Command(sql, COUNT, writes=True)), write=True)
        return perform(step)

    monkeypatch.setattr(editor, "perform", between)
    migrate(later, max_risk_level="HIGH")
    assert audited(later) == ["create", "found", "create"]
    later.close()
    other.close()


def one(command):
    yield command, ()
