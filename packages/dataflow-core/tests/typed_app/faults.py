"""Every line with a fault says what mypy and pyright call it."""

from office import db

from dataflow.workflow import WorkflowBuilder

flow = WorkflowBuilder(db)
flow.add_node("PersonCreatNode", "a", {"name": "Ada"})  # fault: arg-type, reportArgumentType
flow.add_node("PersonCreateNode", "b", {"nam": "Ada"})  # fault: typeddict-unknown-key, reportArgumentType
flow.add_node("PersonCreateNode", "c", {"name": 5})  # fault: typeddict-item, reportArgumentType
flow.add_node("AccountCreateNode", "d", {"closed_at": "2025-01-31"})  # fault: typeddict-item, reportArgumentType
flow.add_node("AccountCreateNode", "e", {"status": "closed"})  # fault: typeddict-item, reportArgumentType
flow.add_node("AccountCreateNode", "f", {"balance": 0.5})  # fault: typeddict-item, reportArgumentType
flow.add_node("PersonListNode", "g", {"limt": 3})  # fault: typeddict-unknown-key, reportArgumentType
flow.add_node("PersonListNode", "h", {"filter": {"name": {"$gtt": "A"}}})  # fault: typeddict-item, reportArgumentType
flow.add_node("PersonListNode", "i", {"filter": {"opened": 1}})  # fault: typeddict-unknown-key, reportArgumentType
flow.add_node("AccountListNode", "j", {"filter": {"opened": {"$gt": 1}}})  # fault: typeddict-item, reportArgumentType
flow.add_node("AccountListNode", "k", {"filter": {"owner": {"nam": "A"}}})  # fault: typeddict-item, reportArgumentType
flow.add_node("PersonBulkCreateNode", "l", {"data": [{"nam": "A"}]})  # fault: typeddict-unknown-key, reportArgumentType
flow.add_node("PersonBulkCreateNode", "m", {"on_error": "ignore"})  # fault: typeddict-item, reportArgumentType
flow.add_node("AsyncSQLDatabaseNode", "n", {"sql": "SELECT 1"})  # fault: typeddict-unknown-key, reportArgumentType
db.express_sync.create("Persn", {"name": "A"})  # fault: arg-type, reportArgumentType
db.express_sync.create("Person", {"age": 3})  # fault: typeddict-item, reportArgumentType
db.express_sync.update("Person", 1, {"nam": "A"})  # fault: typeddict-unknown-key, reportArgumentType
db.express_sync.update("Person", 1, {"name": {"$inc": 1}})  # fault: typeddict-item, reportArgumentType
db.express_sync.update("Person", "1", {"name": "A"})  # fault: arg-type, reportArgumentType
db.express_sync.list("Person", sort=["-ag"])  # fault: list-item, reportArgumentType
db.express_sync.list("Person", limit="3")  # fault: arg-type, reportArgumentType
db.express_sync.list("Person", limt=3)  # fault: call-arg, reportCallIssue
db.express_sync.list("Person", include=["acounts"])  # fault: list-item, reportArgumentType
print(db.express_sync.read("Person", 1)["nam"])  # fault: typeddict-item, reportGeneralTypeIssues


async def awaited(model: str) -> None:
    await db.express.create("Person", {"name": None})  # fault: typeddict-item, reportArgumentType
    await db.express.create(model, {"name": "A"})  # fault: arg-type, reportArgumentType
    async for person in db.express.stream("Person", {"ag": 3}):  # fault: typeddict-unknown-key, reportArgumentType
        print(person)
