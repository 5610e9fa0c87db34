import asyncio
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid4

from office import GreetNode, Status, db

from dataflow import DataFlow
from dataflow.runtime import AsyncLocalRuntime, LocalRuntime
from dataflow.typed import AccountFilter, PersonRecord, PersonRow
from dataflow.workflow import Workflow, WorkflowBuilder

if TYPE_CHECKING:
    from dataflow.express import Express


def names(people: list[PersonRecord]) -> list[str]:
    return [person["name"] for person in people]


def build() -> Workflow:
    flow = db.workflow()
    flow.add_node("GreetNode", "greet", {"word": "Hello", "name": "Ada"})
    flow.add_node(GreetNode, "again", {"word": "Bye", "name": "Bob"})
    flow.add_node("AsyncSQLDatabaseNode", "sql", {"query": "SELECT :n AS n", "params": {"n": 1}, "fetch_mode": "value"})
    flow.add_node("TransactionScopeNode", "scope", {"timeout": 10, "rollback_on_error": True})
    flow.add_node("PersonCreateNode", "ada", {"name": "Ada", "age": 36, "born": date(1815, 12, 10)})
    flow.add_node("PersonReadNode", "same", {"raise_on_not_found": True, "include": ["accounts"]})
    flow.add_node("PersonUpdateNode", "older", {"age": {"$inc": 1}, "name": "Ada L.", "$multiply": {"score": 2.5}})
    flow.add_node("AccountBulkCreateNode", "rows", {"data": [{"balance": 5, "labels": ["a"]}, {}], "return_ids": True})
    flow.add_node(
        "AccountUpsertNode", "one", {"where": {"id": UUID(int=1)}, "create": {"status": "open", "owner_id": 1}}
    )
    flow.add_node("PersonCountNode", "count", {"filter": {"age": {"$gte": 1}}})
    flow.add_node(
        "PersonAggregateNode", "ages", {"aggregate": {"oldest": {"$max": "age"}}, "having": {"oldest": {"$gt": 1}}}
    )
    flow.add_node("PersonListNode", "all", {"filter": {"age": {"$gte": 1, "$lt": 90}}, "sort": [{"age": -1}, "name"]})
    flow.add_node("LineBulkCreateNode", "lines", {"data": [{"number": 7, "text": "x"}], "account": UUID(int=1)})
    flow.add_node("LineUpdateNode", "line", {"_filter": {"number": 7}, "filter": "x", "limit": {"$inc": 1}})
    flow.add_node(
        "LineBulkUpsertNode",
        "upsert",
        {"data": [{"account": UUID(int=1), "number": 7, "text": None}], "on_duplicate": "last"},
    )
    flow.add_node("LineBulkUpdateNode", "update", {"filter": {"number": 7}, "update": {"text": "y"}})
    flow.add_node("LineDeleteNode", "delete", {"account": UUID(int=1), "number": 7})
    flow.add_node("LineBulkDeleteNode", "none", {"filter": {}, "confirmed": True})
    flow.add_connection("ada", "id", "same", "id")
    flow.add_connection("same", "id", "older", "id")
    flow.add_connection("older", "id", "rows", "owner_id")
    return flow.build()


async def main() -> None:
    express: Express = db.express
    ada = await express.create("Person", {"name": "Ada"})
    age: int = ada["age"]
    created: datetime = ada["created_at"]
    account = await express.create(
        "Account",
        {
            "owner_id": ada["id"],
            "balance": 3,
            "status": Status.PAID,
            "history": ["open", Status.PAID],
            "marks": [uuid4(), str(uuid4())],
            "settings": {"a": [1, {"b": None}]},
            "picture": b"x",
            "closed_at": None,
        },
    )
    balance: Decimal = account["balance"]
    status: Status = account["status"]
    marks: list[UUID] = account["marks"]
    where: AccountFilter = {"status": {"$in": ["open", Status.PAID]}, "owner": {"name": {"$like": "A%"}}}
    page = await express.list("Account", where, include=["owner", "lines"], limit=5, include_total=True)
    owner = page["records"][0]["owner"]
    assert owner is not None
    assert page["total"] == 1
    found = await express.read("Person", ada["id"])
    if found["found"]:
        print(found["name"])
    same = await express.read("Account", str(account["id"]), include="owner", raise_on_not_found=True)
    assert same["owner"] is not None
    await express.update(
        "Account", account["id"], {"balance": {"$multiply": Decimal("1.5")}, "labels": {"$append": "x"}}
    )
    await express.update("Account", account["id"], {"$inc": {"balance": 1}, "$unset": {"closed_at": 1}})
    await express.update("Account", account["id"], {"settings": {"b": 1}, "closed_at": datetime.now(UTC)})
    changed = await express.update("Person", ada["id"], {"born": None, "age": {"$max": 40}})
    assert changed["updated"] == 1
    counted = await express.count("Account", {"labels": {"$contains": "x"}, "settings": {"b": {"$gte": 1}}})
    assert counted["count"] == 1
    await express.count(
        "Account", {"closed_at": {"$gte": "2020-01-01", "$not": None}, "owner.age": {"$between": [1, 99]}}
    )
    await express.count("Person", {"$or": [{"name": "x"}, {"$not": {"age": {"$in": [1, 2]}}}], "accounts": None})
    groups = await express.aggregate(
        "Account", group_by=["status"], aggregate={"n": {"$count": "*"}, "s": {"$sum": "balance"}}
    )
    print(groups["groups"][0]["n"])
    rows: list[PersonRow] = [{"name": "Bob"}, {"name": "Cy", "age": 3}]
    written = await express.bulk_create("Person", rows, batch_size=10, age=7, on_error="collect")
    assert written["created"] == 2
    await express.bulk_update("Person", filter={"age": 7}, update={"age": {"$inc": 1}}, limit=5)
    await express.bulk_update("Person", data=[{"id": ada["id"], "name": "A"}])
    await express.bulk_upsert("Line", [{"account": account["id"], "number": 1, "text": None}], ["account", "number"])
    line = await express.read("Line", (account["id"], 1))
    await express.read("Line", account=account["id"], number=1)
    print(line["filter"], line["limit"])
    ids: list[int] = [1, 2]
    await express.list(
        "Person", {"id": {"$in": ids}, "name": {"$in": ["a", None]}, "born": {"$in": ["2020-01-01", date(2020, 1, 1)]}}
    )
    await express.list("Line", {"filter": "", "of_account": {"owner": {"name": "Ada"}}}, sort="-number")
    await express.bulk_delete("Person", ids=[99999], return_ids=True)
    upserted = await express.upsert("Person", {"id": ada["id"]}, {"name": "Ada"}, {"score": {"$inc": 1}})
    assert upserted["created"] is False
    async for person in express.stream("Person", {"age": {"$gt": 0}}, batch_size=100, sort=["age"]):
        print(person["name"])
    deleted = await express.delete("Person", 99999)
    assert deleted["deleted"] == 0
    print(age, created, balance, status, marks)


def sync() -> None:
    print(names(db.express_sync.list("Person")["records"]))
    for model in db.list_models():
        print(db.express_sync.call("count", model)["count"])
    for record in db.express_sync.stream("Account", include=["owner"]):
        print(record["owner"])
    name: Any = "PersonListNode"
    WorkflowBuilder(db).add_node(name, "x", {"limit": 5}).add_node(cast("Any", "Person" + "CountNode"), "y").build()


class Flow(WorkflowBuilder):
    def counting(self) -> "Flow":
        return self.add_node("LineCountNode", "lines", {"filter": {"number": 1}})


def other(db: DataFlow) -> None:
    print(db.express_sync.count("Line")["count"])


if __name__ == "__main__":
    asyncio.run(main())
    results, run_id = LocalRuntime().execute(build())
    print(results["greet"], run_id)
    asyncio.run(AsyncLocalRuntime().execute_async(Flow(db).counting().build()))
    sync()
    other(db)
    db.close()
