"""Tenancy: records of another tenant are not there, whatever is asked, and nothing tells of them."""

import asyncio
import threading
from typing import Annotated

import pytest

from dataflow import ForeignKey
from dataflow.errors import (
    ForeignKeyError,
    InputError,
    MissingCapability,
    ModelError,
    TenancyError,
    UniqueError,
    WorkflowExecutionError,
)
from dataflow.nodes import BaseDataFlowNode
from dataflow.runtime import AsyncLocalRuntime, LocalRuntime


def shop(db):
    @db.model
    class Customer:
        email: str
        name: str = ""
        __dataflow__ = {"multi_tenant": True}
        __indexes__ = [{"name": "uq_customer_email", "fields": ["email"], "unique": True}]

    @db.model
    class Order:
        customer_id: Annotated[int, ForeignKey("Customer")]
        total: float = 0.0
        __dataflow__ = {"multi_tenant": True}

    @db.model
    class Ticket:
        id: str
        text: str = ""
        __dataflow__ = {"multi_tenant": True}

    @db.model
    class Country:
        name: str

    return db.express_sync


def both(db):
    """Give two tenants a customer with the same e-mail each, with an order and a ticket of the same key."""
    x = shop(db)
    ids = {}
    for tenant in ("acme", "bolt"):
        with db.tenant(tenant):
            customer = x.create("Customer", {"email": "ann@x", "name": tenant})
            order = x.create("Order", {"customer_id": customer["id"], "total": 1.0 if tenant == "acme" else 100.0})
            x.create("Ticket", {"id": "T1", "text": tenant})
            ids[tenant] = customer["id"], order["id"]
    return x, ids


def test_a_call_without_a_tenant_is_refused_and_reads_nothing(opening):
    db = opening()
    x, _ = both(db)
    calls = [
        lambda: x.list("Customer"),
        lambda: x.read("Customer", 1),
        lambda: x.count("Customer"),
        lambda: x.aggregate("Order", aggregate={"n": {"$count": "*"}}),
        lambda: x.create("Customer", {"email": "new"}),
        lambda: x.update("Customer", 1, {"name": "x"}),
        lambda: x.delete("Customer", 1),
        lambda: x.upsert("Customer", {"email": "ann@x"}),
        lambda: x.bulk_create("Customer", [{"email": "new"}]),
        lambda: x.bulk_update("Customer", filter={}, update={"name": "x"}),
        lambda: x.bulk_update("Customer", data=[{"id": 1, "name": "x"}]),
        lambda: x.bulk_delete("Customer", filter={"name": "acme"}),
        lambda: x.bulk_upsert("Customer", [{"email": "ann@x", "name": "x"}], ["email"]),
    ]
    for _ in range(2):  # also once the plan is known
        for call in calls:
            with pytest.raises(TenancyError) as refused:
                call()
            assert refused.value.code == "no-tenant"
    with db.all_tenants(reason="test"):
        assert {r["name"] for r in x.list("Customer")["records"]} == {"acme", "bolt"}


def test_the_same_keys_live_side_by_side(opening):
    db = opening()
    x, ids = both(db)
    with db.tenant("acme"):
        assert [r["name"] for r in x.list("Customer")["records"]] == ["acme"]
        assert x.read("Ticket", "T1")["text"] == "acme"
        with pytest.raises(UniqueError):
            x.create("Customer", {"email": "ann@x"})
        assert x.read("Customer", ids["bolt"][0])["found"] is False
        assert x.update("Customer", ids["bolt"][0], {"name": "x"})["updated"] == 0
        assert x.delete("Order", ids["bolt"][1])["deleted"] == 0
    with db.tenant("bolt"):
        assert x.read("Customer", ids["bolt"][0])["name"] == "bolt"


def test_a_reference_to_another_tenants_record_is_refused_as_one_to_nothing_is(opening):
    db = opening()
    x, ids = both(db)
    texts = []
    with db.tenant("acme"):
        for target in (ids["bolt"][0], 999_999):
            with pytest.raises(ForeignKeyError) as refused:
                x.create("Order", {"customer_id": target})
            texts.append(str(refused.value).replace(str(target), "?"))
    assert texts[0] == texts[1]


def test_upserts_meet_only_ones_own_records(opening):
    db = opening()
    x, _ = both(db)
    with db.tenant("acme"):
        assert x.upsert("Customer", {"email": "ann@x"}, update={"name": "A"})["created"] is False
        found = x.bulk_upsert("Customer", [{"email": "ann@x", "name": "B"}, {"email": "bob@x"}], ["email"])
        assert (found["created"], found["updated"]) == (1, 1)
        assert x.upsert("Ticket", {"id": "T1"}, update={"text": "mine"})["created"] is False
        found = x.bulk_create("Ticket", [{"id": "T1"}, {"id": "T2"}], conflict_resolution="skip")
        assert (found["created"], found["skipped"]) == (1, 1)
    with db.tenant("bolt"):
        assert x.list("Customer", fields=["name"])["records"] == [{"name": "bolt"}]
        assert x.list("Ticket", fields=["text"])["records"] == [{"text": "bolt"}]


def test_includes_relation_filters_and_aggregates_stay_within(opening):
    db = opening()
    x, _ = both(db)
    with db.tenant("acme"):
        order = x.list("Order", include=["customer"])["records"][0]
        assert order["customer"]["name"] == "acme"
        assert [o["total"] for o in x.list("Customer", include=["orders"])["records"][0]["orders"]] == [1.0]
        assert x.count("Order", {"customer": {"name": "bolt"}})["count"] == 0
        assert x.aggregate("Order", aggregate={"sum": {"$sum": "total"}})["groups"] == [{"sum": 1.0}]
        assert x.bulk_update("Order", filter={"customer": {"email": "ann@x"}}, update={"total": 2.0})["updated"] == 1
        assert x.bulk_delete("Order", filter={"total": {"$gt": 0}})["deleted"] == 1
    with db.tenant("bolt"):
        assert x.list("Order")["records"][0]["total"] == 100.0


def test_tenant_id_can_be_given_to_a_call_and_has_to_agree_with_what_surrounds_it(opening):
    db = opening()
    x, _ = both(db)
    assert x.list("Customer", tenant_id="bolt")["records"][0]["name"] == "bolt"
    assert x.create("Ticket", {"id": "T9", "tenant_id": "bolt"})["tenant_id"] == "bolt"
    with db.tenant("acme"):
        assert x.list("Customer", tenant_id="acme")["count"] == 1
        for call in (
            lambda: x.list("Customer", tenant_id="bolt"),
            lambda: x.create("Ticket", {"id": "T3", "tenant_id": "bolt"}),
            lambda: x.upsert("Ticket", {"id": "T3", "tenant_id": "bolt"}),
        ):
            with pytest.raises(TenancyError) as refused:
                call()
            assert refused.value.code == "other-tenant"
        with pytest.raises(InputError, match="tenancy sets another value"):
            x.bulk_create("Ticket", [{"id": "T3", "tenant_id": "bolt"}])
        with pytest.raises(TenancyError, match="another tenant"):
            x.bulk_update("Ticket", data=[{"id": "T1", "text": "x", "tenant_id": "bolt"}])
        with pytest.raises(InputError, match="kept by tenancy"):
            x.bulk_update("Ticket", filter={"id": "T1"}, update={"tenant_id": "bolt"})
        assert x.bulk_create("Ticket", [{"id": "T4", "tenant_id": "acme"}])["created"] == 1
        assert x.bulk_update("Ticket", data=[{"id": "T4", "text": "y", "tenant_id": "acme"}])["updated"] == 1
    for odd in ("", " ", 7):
        with pytest.raises((TenancyError, InputError)):
            x.list("Customer", tenant_id=odd)


def test_ids_that_the_database_generates_cannot_be_chosen(opening):
    db = opening()
    x, ids = both(db)
    with db.tenant("acme"):
        for call in (
            lambda: x.create("Customer", {"id": ids["bolt"][0], "email": "q"}),
            lambda: x.create("Customer", {"id": 12345, "email": "q"}),
            lambda: x.bulk_create("Customer", [{"id": ids["bolt"][0], "email": "q"}]),
            lambda: x.upsert("Customer", {"id": ids["bolt"][0]}, {"email": "q"}),
            lambda: x.bulk_upsert("Customer", [{"id": ids["bolt"][0], "email": "q"}]),
        ):
            with pytest.raises(InputError, match="kept by the database"):
                call()
        assert x.create("Customer", {"id": None, "email": "q"})["id"] not in ids.values()


def test_blocks_nest_and_belong_to_their_task_and_thread(opening):
    db = opening()
    x, _ = both(db)
    seen = {}
    with db.tenant("acme"):
        with db.tenant("bolt"):
            assert x.list("Customer")["records"][0]["name"] == "bolt"
        assert x.list("Customer")["records"][0]["name"] == "acme"

        def other():
            try:
                x.list("Customer")
            except TenancyError as error:
                seen["thread"] = error.code

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert seen == {"thread": "no-tenant"}

    async def one(tenant, times):
        async with db.tenant(tenant):
            for _ in range(times):
                names = {r["name"] for r in (await db.express.list("Customer"))["records"]}
                await asyncio.sleep(0)
                assert names == {tenant}

    async def many():
        await asyncio.gather(*[one(tenant, 10) for tenant in ("acme", "bolt") * 4])

    asyncio.run(many())


def test_one_block_serves_several_threads_at_a_time_and_itself(opening):
    db = opening()
    x, _ = both(db)
    acme, seen = db.tenant("acme"), []

    def inside(entered, leave):
        with acme:
            entered.set()
            leave.wait(10)
        try:
            x.list("Customer")
        except TenancyError as error:
            seen.append(error.code)

    stays = [(threading.Event(), threading.Event()) for _ in range(2)]
    threads = [threading.Thread(target=inside, args=stay) for stay in stays]
    for thread, (entered, _) in zip(threads, stays, strict=True):
        thread.start()
        entered.wait(10)
    for thread, (_, leave) in zip(threads, stays, strict=True):  # who came first leaves first
        leave.set()
        thread.join()
    assert seen == ["no-tenant"] * 2

    with acme, db.tenant("bolt"), acme:
        assert x.list("Customer")["records"][0]["name"] == "acme"
    with pytest.raises(ZeroDivisionError), acme:
        raise ZeroDivisionError
    with pytest.raises(TenancyError):
        x.list("Customer")


@pytest.mark.parametrize("isolation", ["shared", "strict"])
def test_a_stream_belongs_to_the_tenant_it_was_made_for_wherever_it_is_read(opening, isolation):
    db = opening(tenant_isolation=isolation)
    x = shop(db)
    for tenant in ("acme", "bolt"):
        with db.tenant(tenant):
            x.bulk_create("Customer", [{"email": f"{number}@x", "name": tenant} for number in range(5)])
    with db.tenant("acme"):
        before, begun = (x.stream("Customer", batch_size=2) for _ in range(2))
        names = [next(begun)["name"]]
    with db.tenant("bolt"):
        names += [record["name"] for stream in (begun, before) for record in stream]
        assert x.list("Customer")["records"][0]["name"] == "bolt"
    assert names == ["acme"] * 10

    async def read():
        with db.tenant("acme"):
            before, begun = (db.express.stream("Customer", batch_size=2) for _ in range(2))
            names = [(await anext(begun))["name"]]
        names += [record["name"] async for record in before]
        with db.tenant("bolt"):
            async for record in begun:
                names.append(record["name"])
                assert (await db.express.list("Customer"))["records"][0]["name"] == "bolt"
        with pytest.raises(TenancyError):
            await db.express.list("Customer")
        return names

    assert asyncio.run(read()) == ["acme"] * 10


def test_a_workflow_runs_for_the_tenant_that_surrounds_it_in_all_its_nodes(opening):
    db = opening()
    both(db)

    @db.register_node
    class Names(BaseDataFlowNode):
        def execute(self, input_data):
            return {"names": [r["name"] for r in db.express_sync.list("Customer")["records"]]}

    @db.register_node
    class Later(BaseDataFlowNode):
        async def execute(self, input_data):
            return {"names": [r["name"] for r in (await db.express.list("Customer"))["records"]]}

    builder = db.workflow()
    builder.add_node("CustomerListNode", "list", {})
    builder.add_node("Names", "names", {})
    builder.add_node("Later", "later", {})
    builder.add_node("CustomerCountNode", "given", {"tenant_id": "acme"})
    workflow = builder.build()
    with db.tenant("acme"):
        for results in (
            LocalRuntime().execute(workflow)[0],
            asyncio.run(AsyncLocalRuntime(max_concurrency=4).execute_async(workflow))[0],
        ):
            assert [r["name"] for r in results["list"]["records"]] == ["acme"]
            assert results["names"]["names"] == results["later"]["names"] == ["acme"]
            assert results["given"]["count"] == 1
    with db.tenant("bolt"), pytest.raises(WorkflowExecutionError) as failed:
        LocalRuntime().execute(workflow)
    assert isinstance(failed.value.__cause__, TenancyError)
    with pytest.raises(WorkflowExecutionError, match="no tenant"):
        LocalRuntime().execute(workflow)


def test_among_all_tenants_a_key_needs_a_tenant_where_it_means_several_records(opening):
    db = opening()
    x, ids = both(db)
    with db.all_tenants(reason="support"):
        assert x.list("Ticket")["count"] == 2
        page = x.list("Ticket", limit=1)
        assert x.list("Ticket", limit=1, cursor=page["next_cursor"])["records"][0]["text"] != page["records"][0]["text"]
        for call in (x.read, x.delete):
            with pytest.raises(TenancyError):
                call("Ticket", "T1")
        with pytest.raises(TenancyError):
            x.update("Ticket", "T1", {"text": "x"})
        with pytest.raises(TenancyError, match="belongs to one tenant"):
            x.create("Ticket", {"id": "T5"})
        assert x.read("Ticket", "T1", tenant_id="bolt")["text"] == "bolt"
        assert x.update("Customer", ids["bolt"][0], {"name": "seen"})["updated"] == 1
        assert x.bulk_update("Ticket", filter={"text": "bolt"}, update={"text": "B"}, limit=5)["updated"] == 1
        with db.tenant("acme"):
            assert x.list("Ticket", fields=["text"])["records"] == [{"text": "acme"}]


def test_a_plan_of_one_kind_of_call_is_never_used_for_another(opening):
    db = opening()
    x, _ = both(db)
    for _ in range(3):
        with db.tenant("acme"):
            assert x.read("Ticket", "T1")["text"] == "acme"
            assert x.update("Ticket", "T1", {"text": "acme"})["updated"] == 1
        with db.all_tenants(reason="audit"):
            assert x.count("Ticket")["count"] == 2
            assert {o["customer"]["name"] for o in x.list("Order", include=["customer"])["records"]} == {"acme", "bolt"}
        with db.tenant("bolt"):
            assert x.read("Ticket", "T1")["text"] == "bolt"


def test_a_global_model_may_not_refer_to_a_tenants_record_but_may_include_it(opening):
    db = opening()
    x, _ = both(db)

    @db.model
    class Memo:
        customer_id: int
        text: str = ""

    with db.tenant("acme"):
        x.create("Memo", {"customer_id": 1, "text": "a"})
        assert x.list("Memo", include=["customer"])["records"][0]["customer"]["name"] == "acme"
    with db.tenant("bolt"):
        assert x.list("Memo", include=["customer"])["records"][0]["customer"] is None
    with pytest.raises(TenancyError):
        x.list("Memo", include=["customer"])
    with db.all_tenants(reason="test"):
        assert x.list("Memo", include=["customer"])["records"][0]["customer"]["name"] == "acme"

    @db.model
    class Bad:
        customer_id: Annotated[int, ForeignKey("Customer", name="owner")]

    with db.tenant("acme"), pytest.raises(ModelError, match="belong to a tenant_id each"):
        x.create("Bad", {"customer_id": 1})


def test_deleting_a_parent_sets_only_the_reference_to_null(opening):
    db = opening()

    @db.model
    class Team:
        name: str
        __dataflow__ = {"multi_tenant": True}

    @db.model
    class Member:
        team_id: Annotated[int | None, ForeignKey("Team", on_delete="set null")] = None
        __dataflow__ = {"multi_tenant": True}

    x = db.express_sync
    with db.tenant("acme"):
        team = x.create("Team", {"name": "t"})["id"]
        member = x.create("Member", {"team_id": team})["id"]
        x.delete("Team", team)
        found = x.read("Member", member)
        assert (found["team_id"], found["tenant_id"]) == (None, "acme")


def test_every_model_is_multi_tenant_where_the_setting_says_so(opening):
    db = opening(multi_tenant=True)

    @db.model
    class Note:
        text: str

    @db.model
    class Country:
        name: str
        __dataflow__ = {"multi_tenant": False}

    x = db.express_sync
    assert x.create("Country", {"name": "x"})["name"] == "x"
    with pytest.raises(TenancyError):
        x.create("Note", {"text": "x"})


def test_blocks_need_a_name_a_reason_and_a_plugin(opening):
    db = opening()
    for odd in ("", " ", None, 5):
        with pytest.raises(InputError):
            db.tenant(odd)
        with pytest.raises(InputError):
            db.all_tenants(reason=odd)
        with pytest.raises(InputError):
            db.actor(odd)
    bare = opening(disable={"enterprise"})
    for call in (lambda: bare.tenant("a"), lambda: bare.all_tenants(reason="r"), lambda: bare.unlocked(reason="r")):
        with pytest.raises(MissingCapability):
            call()


def test_instances_have_surroundings_of_their_own(opening):
    one, two = opening(), opening()
    x, y = shop(one), shop(two)
    with one.tenant("acme"):
        x.create("Ticket", {"id": "1"})
        with pytest.raises(TenancyError):
            y.list("Ticket")


def test_among_all_tenants_nothing_is_upserted_or_changed_by_a_key_of_several(opening):
    db = opening()
    x, _ = both(db)
    with db.all_tenants(reason="test"):
        for call in (
            lambda: x.upsert("Customer", {"email": "ann@x"}, {"name": "z"}),
            lambda: x.bulk_upsert("Customer", [{"email": "ann@x", "name": "z"}], ["email"]),
            lambda: x.bulk_update("Ticket", data=[{"id": "T1", "text": "z"}]),
            lambda: x.bulk_update("Ticket", data=[{"id": "T1", "text": {"$set": "z"}}]),
            lambda: x.bulk_delete("Ticket", ids=["T1"]),
        ):
            with pytest.raises(TenancyError):
                call()
        assert {r["name"] for r in x.list("Customer")["records"]} == {"acme", "bolt"}
        assert {r["text"] for r in x.list("Ticket")["records"]} == {"acme", "bolt"}


def test_among_all_tenants_a_relation_stays_within_the_tenant_of_its_record(opening):
    db = opening()
    x, _ = both(db)

    @db.model
    class Stub:
        ticket_id: str
        __dataflow__ = {"multi_tenant": True}

    with db.tenant("bolt"):
        x.create("Stub", {"ticket_id": "T1"})
    with db.all_tenants(reason="test"):
        stub = x.list("Stub", include=["ticket"], fields=["ticket_id"])["records"][0]
        assert (stub["ticket"]["text"], set(stub)) == ("bolt", {"ticket_id", "ticket"})
        assert x.count("Stub", {"ticket": {"text": "acme"}})["count"] == 0
        found = {t["text"]: t["stubs"] for t in x.list("Ticket", include=["stubs"])["records"]}
        assert (found["acme"], len(found["bolt"])) == ([], 1)


def test_whether_a_tenant_is_needed_does_not_depend_on_what_there_is(opening):
    db = opening()

    @db.model
    class Depot:
        name: str

    @db.model
    class Shelf:
        depot_id: Annotated[int, ForeignKey("Depot")]

    @db.model
    class Crate:
        shelf_id: Annotated[int, ForeignKey("Shelf")]
        __dataflow__ = {"multi_tenant": True}

    x = db.express_sync
    for _ in range(2):  # the second time there is a depot, without shelves
        with pytest.raises(TenancyError):
            x.list("Depot", include=["shelves.crates"])
        with pytest.raises(TenancyError):
            x.read("Depot", 1, include=["shelves.crates"])
        x.create("Depot", {"name": "north"})
    with pytest.raises(TenancyError):
        x.read("Depot", 1, include=["shelves.crates"])
    with db.tenant("a"):
        assert x.read("Depot", 1, include=["shelves.crates"])["shelves"] == []
