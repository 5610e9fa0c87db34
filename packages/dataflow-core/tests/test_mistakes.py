"""What a newcomer does wrong, and the whole text of the answer: what, where, and what to type next.

Every mistake also leaves the database, the registered models and the folder as they were; its error turns into JSON
and survives pickling; and no stored value stands in it.
"""

# ruff: noqa: E501  # messages stand as they are printed

import json
import pickle
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from pathlib import Path
from textwrap import dedent
from typing import Annotated, Any
from uuid import UUID

import attrs
import pytest

from dataflow import BaseDataFlowNode, DataFlow, DataFlowError, Factory, ForeignKey, Relation
from dataflow.runtime import LocalRuntime
from dataflow.workflow import Workflow, WorkflowBuilder

SECRETS = ("ada@x", "hunter2", "Lovelace")
"""Values of stored rows, and a password: no error may name them."""


class Status(Enum):
    """Of an order."""

    PENDING = "pending"
    PAID = "paid"


@attrs.frozen
class Mistake:
    """One row of the table.

    Attributes:
        make: makes the mistake.
        codes: of the error, of its cause, and of its single problems, in this order.
        text: all of ``str(error)``.
    """

    make: Callable[[Any], object]
    codes: str
    text: str


MISTAKES: list[Mistake] = []


def mistake(codes: str, text: str) -> Callable[[Callable[[Any], object]], Callable[[Any], object]]:
    """Add the function below to the table."""

    def add(make: Callable[[Any], object]) -> Callable[[Any], object]:
        MISTAKES.append(Mistake(make, codes, dedent(text).strip()))
        return make

    return add


def user_class() -> type:
    """Return a new model class User."""

    class User:
        name: str
        email: str
        age: int | None = None
        active: bool = True
        balance: Decimal = Decimal(0)
        born: datetime | None = None
        tags: list[str] = []  # noqa: RUF012
        settings: dict = {}  # noqa: RUF012
        __indexes__ = [{"name": "uq_users_email", "fields": ["email"], "unique": True}]  # noqa: RUF012

    return User


def tag_class() -> type:
    """Return a new model class Tag."""

    class Tag:
        label: str

    return Tag


@pytest.fixture
def shop(file_bench: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A shop with two customers and an order, in a file; the current directory is its folder."""
    monkeypatch.chdir(file_bench.path.parent)
    for variable in ("DATABASE_URL", "DATAFLOW_PLUGINS", "DATAFLOW_DISABLE_PLUGINS"):
        monkeypatch.delenv(variable, raising=False)
    db = file_bench.db
    db.model(user_class())

    @db.model
    class Order:
        user_id: Annotated[int, ForeignKey("User")]
        total: float
        status: Status = Status.PENDING

    @db.model
    class Note:
        text: str
        key: UUID | None = None
        at: time | None = None

    users = [
        {"name": "Lovelace", "email": "ada@x", "age": 36, "settings": {"theme": "dark"}},
        {"name": "Bob", "email": "bob@x", "age": 2**63 - 1},
    ]
    db.express_sync.bulk_create("User", users)
    db.express_sync.create("Order", {"user_id": 1, "total": 3.5})
    db.express_sync.create("Note", {"text": "hello"})
    table = "CREATE TABLE events (id INTEGER PRIMARY KEY, name TEXT)"
    file_bench.run("AsyncSQLDatabaseNode", {"query": table, "validate_queries": False})
    return file_bench


def normal(text: str, shop: Any) -> str:
    """Take out of a message what differs from run to run: folder, run id, line number."""
    text = text.replace(str(shop.path.parent), "<folder>")
    text = re.sub(r"run [0-9a-f]{32}", "run <id>", text)
    return re.sub(r"test_mistakes\.py:\d+", "test_mistakes.py:<line>", text)


def codes(error: DataFlowError) -> str:
    """Return the codes of an error, outermost first."""
    cause = [error.__cause__.code] if isinstance(error.__cause__, DataFlowError) else []
    return " ".join([error.code, *cause, *[problem.code for problem in error.problems]])


def state(shop: Any) -> dict[str, Any]:
    """Take down everything that a refused call must leave alone."""
    files = sorted(path.name for path in shop.path.parent.iterdir() if path.name != "notes.txt")
    return {"database": shop.dump(), "models": shop.db.list_models(), "files": files}


# -- names of nodes, ids and ports ------------------------------------------------------------------------------------
@mistake(
    "workflow-build unknown-node",
    """
    the workflow has 1 problem
      - node 'node' (UserCraeteNode): there is no node type 'UserCraeteNode'; did you mean 'UserCreateNode'?
    """,
)
def misspelt_node_type(shop):
    shop.build("UserCraeteNode", {"name": "Cy", "email": "cy@x"})


@mistake(
    "workflow-build unknown-node",
    """
    the workflow has 1 problem
      - node 'node' (InvoiceCreateNode): there is no node type 'InvoiceCreateNode'; models: Note, Order, User; each has CreateNode, ReadNode, UpdateNode, ListNode …
    """,
)
def node_type_of_a_model_that_is_not_registered(shop):
    shop.build("InvoiceCreateNode", {})


@mistake(
    "workflow-build unknown-node",
    """
    the workflow has 1 problem
      - node 'create' (PersonCreateNode): there is no node type 'PersonCreateNode'; no live DataFlow has a model yet: register one with @db.model, and keep `db` referenced
    """,
)
def node_type_when_nothing_is_registered(shop):
    with DataFlow(":memory:") as empty:
        empty.workflow().add_node("PersonCreateNode", "create", {}).build()


@mistake(
    "workflow-build bad-node",
    """
    the workflow has 1 problem
      - node 'node' (User): User is not a node class; write add_node("UserCreateNode", …) for a model, or derive from BaseDataFlowNode
    """,
)
def model_class_instead_of_a_node_type(shop):
    shop.build(shop.db.get_model("User"), {"name": "Cy"})


@mistake(
    "bad-node",
    """
    the node type is a str, got None
      fix: write add_node("UserCreateNode", "create", {…})
    """,
)
def node_type_that_is_no_text(shop):
    shop.db.workflow().add_node(None, "create", {})


@mistake(
    "bad-node",
    """
    the node id is a non-empty str, got dict
      fix: write add_node("UserCreateNode", "create", {…})
    """,
)
def node_id_forgotten(shop):
    shop.db.workflow().add_node("UserCreateNode", {"name": "Cy", "email": "cy@x"})


@mistake(
    "bad-node",
    """
    the params of node 'create' are a dict, got list
      fix: write {"name": value}
    """,
)
def params_as_a_list(shop):
    shop.db.workflow().add_node("UserCreateNode", "create", [("name", "Cy")])


@mistake(
    "workflow-build duplicate-id",
    """
    the workflow has 1 problem
      - two nodes are called 'users'; rename one
    """,
)
def one_node_id_twice(shop):
    new = shop.db.workflow()
    new.add_node("UserListNode", "users", {})
    new.add_node("OrderListNode", "users", {})
    new.build()


@mistake(
    "bad-connection",
    """
    add_connection takes four names; input is None
      fix: write add_connection("create", "id", "read", "id")
    """,
)
def connection_with_a_missing_name(shop):
    shop.db.workflow().add_connection("create", "id", "order", None)


@mistake(
    "workflow-build unknown-node-id",
    """
    the workflow has 1 problem
      - connection raeder.id -> order.user_id: there is no node 'raeder'; did you mean 'reader'?
    """,
)
def connection_to_an_unknown_node(shop):
    new = shop.db.workflow()
    new.add_node("UserReadNode", "reader", {"id": 1})
    new.add_node("OrderCreateNode", "order", {"total": 1.0})
    new.add_connection("raeder", "id", "order", "user_id")
    new.build()


@mistake(
    "workflow-build unknown-output",
    """
    the workflow has 1 problem
      - connection reader.user_id -> order.user_id: UserReadNode has no output 'user_id'; outputs: id, name, email, age, active, balance, born, tags, settings, created_at, updated_at, found, result
    """,
)
def connection_from_an_unknown_output(shop):
    new = shop.db.workflow()
    new.add_node("UserReadNode", "reader", {"id": 1})
    new.add_node("OrderCreateNode", "order", {"total": 1.0})
    new.add_connection("reader", "user_id", "order", "user_id")
    new.build()


@mistake(
    "workflow-build unknown-input",
    """
    the workflow has 1 problem
      - connection reader.id -> order.userid: OrderCreateNode has no input 'userid'; did you mean 'user_id'?
    """,
)
def connection_into_an_unknown_input(shop):
    new = shop.db.workflow()
    new.add_node("UserReadNode", "reader", {"id": 1})
    new.add_node("OrderCreateNode", "order", {"total": 1.0})
    new.add_connection("reader", "id", "order", "userid")
    new.build()


@mistake(
    "workflow-build two-connections",
    """
    the workflow has 1 problem
      - two connections lead into order.user_id: ada.id -> order.user_id and bob.id -> order.user_id; remove one of them
    """,
)
def two_connections_into_one_input(shop):
    new = shop.db.workflow()
    new.add_node("UserReadNode", "ada", {"id": 1})
    new.add_node("UserReadNode", "bob", {"id": 2})
    new.add_node("OrderCreateNode", "order", {"total": 1.0})
    new.add_connection("ada", "id", "order", "user_id")
    new.add_connection("bob", "id", "order", "user_id")
    new.build()


@mistake(
    "workflow-build cycle",
    """
    the workflow has 1 problem
      - the connections form a cycle: one -> two -> three -> one; remove one of them
    """,
)
def connections_in_a_cycle(shop):
    new = shop.db.workflow()
    for name in ("one", "two", "three"):
        new.add_node("UserListNode", name, {})
    new.add_connection("one", "result", "two", "input")
    new.add_connection("two", "result", "three", "input")
    new.add_connection("three", "result", "one", "input")
    new.build()


@mistake(
    "workflow-build cycle",
    """
    the workflow has 1 problem
      - the connections form a cycle: users -> users; remove one of them
    """,
)
def node_connected_to_itself(shop):
    new = shop.db.workflow().add_node("UserListNode", "users", {})
    new.add_connection("users", "result", "users", "input").build()


@mistake(
    "workflow-build unknown-input",
    """
    the workflow has 1 problem
      - connection reader.name -> orders.database: OrderListNode has no input 'database'; the database is fixed by build(): give it in params
    """,
)
def database_by_connection(shop):
    new = shop.db.workflow()
    new.add_node("UserReadNode", "reader", {"id": 1})
    new.add_node("OrderListNode", "orders", {})
    new.add_connection("reader", "name", "orders", "database")
    new.build()


@mistake(
    "workflow-build template",
    """
    the workflow has 1 problem
      - node 'order' (OrderCreateNode): user_id holds the template ${reader.id}, which is not replaced; leave user_id out and write workflow.add_connection("reader", "id", "order", "user_id")
    """,
)
def template_of_another_node(shop):
    new = shop.db.workflow()
    new.add_node("UserReadNode", "reader", {"id": 1})
    new.add_node("OrderCreateNode", "order", {"user_id": "${reader.id}", "total": 1.0})
    new.build()


@mistake(
    "workflow-build template",
    """
    the workflow has 1 problem
      - node 'orders' (OrderListNode): filter.status holds the template ${reader.name}, which is not replaced; a connection fills a whole input: let a node of your own return filter, and connect that
    """,
)
def template_inside_a_filter(shop):
    new = shop.db.workflow()
    new.add_node("UserReadNode", "reader", {"id": 1})
    new.add_node("OrderListNode", "orders", {"filter": {"status": "${reader.name}"}})
    new.build()


# -- running a workflow -----------------------------------------------------------------------------------------------
@mistake(
    "not-built",
    """
    a WorkflowBuilder cannot be executed; build it first
      fix: runtime.execute(workflow.build())
    """,
)
def builder_passed_to_execute(shop):
    LocalRuntime().execute(shop.db.workflow().add_node("UserListNode", "users", {}))


@mistake(
    "not-built",
    """
    execute takes a Workflow, got NoneType
      fix: runtime.execute(workflow.build())
    """,
)
def nothing_passed_to_execute(shop):
    LocalRuntime().execute(None)


@mistake(
    "missing-input",
    """
    required inputs have no value: email of node 'node'
      fix: connect them, or execute(workflow, parameters={"node": {"email": …}})
    """,
)
def required_fields_left_out_of_the_workflow(shop):
    LocalRuntime().execute(shop.build("UserCreateNode", {"name": "Cy"}))


@mistake(
    "missing-input",
    """
    required inputs have no value: id of node 'node'
      fix: connect them, or execute(workflow, parameters={"node": {"id": …}})
    """,
)
def record_to_read_left_out(shop):
    LocalRuntime().execute(shop.build("UserReadNode", {}))


@mistake(
    "missing-input",
    """
    required inputs have no value: data of node 'node'
      fix: connect them, or execute(workflow, parameters={"node": {"data": …}})
    """,
)
def rows_left_out(shop):
    LocalRuntime().execute(shop.build("UserBulkCreateNode", {}))


@mistake(
    "unknown-node-id",
    """
    parameters name a node 'nodes' that the workflow does not have
      fix: did you mean 'node'?
    """,
)
def parameters_for_another_node(shop):
    LocalRuntime().execute(shop.build("UserListNode"), parameters={"nodes": {"limit": 1}})


@mistake(
    "unknown-input",
    """
    parameters give node 'node' an input 'limt' that UserListNode does not take
      where: node node
      fix: did you mean 'limit'?
    """,
)
def parameters_with_an_unknown_input(shop):
    LocalRuntime().execute(shop.build("UserListNode"), parameters={"node": {"limt": 1}})


@mistake(
    "bad-parameters",
    """
    parameters is a dict of dicts: {node id: {input: value}}
      fix: write parameters={"create": {"name": "Ada"}}
    """,
)
def parameters_without_node_ids(shop):
    LocalRuntime().execute(shop.build("UserListNode"), parameters={"limit": 1})


@mistake(
    "bad-setting",
    """
    timeout is a number of seconds above 0
      fix: write timeout=30
    """,
)
def runtime_without_patience(shop):
    LocalRuntime(timeout=0)


@mistake(
    "bad-setting",
    """
    max_concurrency is a whole number of at least 1
      fix: 1 runs nodes one after another; more allows parallel branches
    """,
)
def runtime_without_branches(shop):
    LocalRuntime(max_concurrency=0)


@mistake(
    "bad-workflow",
    """
    this is not a workflow of format 1
      fix: pass what Workflow.to_dict() returned
    """,
)
def workflow_from_other_json(shop):
    Workflow.from_dict({"nodes": [], "connections": []}, shop.db)


@mistake(
    "not-json",
    """
    builtin_function_or_method has no JSON form
      where: node node
      fix: pass str, numbers, dates, Decimal, UUID, bytes, lists and dicts
    """,
)
def workflow_with_an_object_to_json(shop):
    class Call(BaseDataFlowNode):
        pass

    shop.db.register_node(Call)
    shop.build("Call", {"callbacks": [print]}).to_dict()


@mistake(
    "not-json",
    """
    node 'node' is of the class Call, which JSON cannot name
      where: node node
      fix: register it: db.register_node(Call)
    """,
)
def workflow_with_an_unregistered_class_to_json(shop):
    class Call(BaseDataFlowNode):
        pass

    shop.build(Call).to_dict()


@mistake(
    "workflow-build unknown-node",
    """
    the workflow has 1 problem
      - node 'node' (UserListNode): there is no node type 'UserListNode'; no live DataFlow has a model yet: register one with @db.model, and keep `db` referenced
    """,
)
def workflow_from_json_without_its_models(shop):
    data = shop.build("UserListNode").to_dict()
    with DataFlow(":memory:") as other:
        Workflow.from_dict(data, other)


@mistake(
    "duplicate-workflow",
    """
    a workflow 'nightly' is registered already
      fix: choose another id
    """,
)
def two_workflows_of_one_id(shop):
    shop.db.register_workflow("nightly", shop.build("UserListNode"))
    shop.db.register_workflow("nightly", shop.build("OrderListNode"))


# -- fields and values ------------------------------------------------------------------------------------------------
@mistake(
    "workflow-build unknown-parameter",
    """
    the workflow has 1 problem
      - node 'node' (UserCreateNode): User has no field or option 'emial'; did you mean 'email'?
    """,
)
def misspelt_field(shop):
    shop.build("UserCreateNode", {"name": "Cy", "emial": "cy@x"})


@mistake(
    "workflow-build unknown-parameter wrong-value wrong-value wrong-value",
    """
    the workflow has 4 problems
      - node 'node' (UserCreateNode): User has no field or option 'nam'; did you mean 'name'?
      - node 'node' (UserCreateNode): email: expected str, got int; convert it with str(…)
      - node 'node' (UserCreateNode): age: expected int, got str; convert it with int(…)
      - node 'node' (UserCreateNode): active: expected bool, got str; pass True or False
    """,
)
def several_faults_at_once(shop):
    shop.build("UserCreateNode", {"nam": "Cy", "email": 7, "age": "old", "active": "yes"})


@mistake(
    "workflow-execution several-faults wrong-value wrong-value wrong-value",
    """
    node 'node' failed: 3 faults in the parameters of create on User; nothing was written
      where: node node, type UserCreateNode, run <id>, model User, operation create
      - name: expected str, got int; convert it with str(…)
      - email: None is not allowed; give a value, or annotate it `| None`
      - age: expected int, got str; convert it with int(…)
    """,
)
def several_faults_at_execution(shop):
    shop.late("UserCreateNode", {"name": 1, "email": None, "age": "old"})


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (UserCreateNode): age: expected int, got str; convert it with int(…)
    """,
)
def text_for_an_int(shop):
    shop.build("UserCreateNode", {"name": "Cy", "email": "cy@x", "age": "41"})


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (UserCreateNode): age: expected int, got bool; convert it with int(…)
    """,
)
def bool_for_an_int(shop):
    shop.build("UserCreateNode", {"name": "Cy", "email": "cy@x", "age": True})


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (UserCreateNode): active: expected bool, got int; pass True or False
    """,
)
def int_for_a_bool(shop):
    shop.build("UserCreateNode", {"name": "Cy", "email": "cy@x", "active": 1})


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (UserCreateNode): age: expected int, got float; convert it with int(…)
    """,
)
def float_for_an_int(shop):
    shop.build("UserCreateNode", {"name": "Cy", "email": "cy@x", "age": 41.0})


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (UserCreateNode): name: expected str, got int; convert it with str(…)
    """,
)
def int_for_text(shop):
    shop.build("UserCreateNode", {"name": 41, "email": "cy@x"})


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (UserCreateNode): name: expected str, got bytes; decode it with .decode()
    """,
)
def bytes_for_text(shop):
    shop.build("UserCreateNode", {"name": b"Cy", "email": "cy@x"})


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (UserCreateNode): born: expected datetime, got str; pass datetime.fromisoformat(…)
    """,
)
def text_for_a_datetime(shop):
    shop.build("UserCreateNode", {"name": "Cy", "email": "cy@x", "born": "2001-01-31T12:00:00"})


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (UserCreateNode): born: expected datetime, got date; pass datetime.combine(…, time.min)
    """,
)
def date_for_a_datetime(shop):
    shop.build("UserCreateNode", {"name": "Cy", "email": "cy@x", "born": date(2001, 1, 31)})


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (UserCreateNode): balance: expected Decimal, got float; pass Decimal('…') built from text
    """,
)
def float_for_a_decimal(shop):
    shop.build("UserCreateNode", {"name": "Cy", "email": "cy@x", "balance": 9.99})


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (UserCreateNode): balance: expected Decimal, got str; pass Decimal('…') built from text
    """,
)
def text_for_a_decimal(shop):
    shop.build("UserCreateNode", {"name": "Cy", "email": "cy@x", "balance": "9.99"})


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (OrderCreateNode): total: expected float, got str; convert it with float(…)
    """,
)
def text_for_a_float(shop):
    shop.build("OrderCreateNode", {"user_id": 1, "total": "3.5"})


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (OrderCreateNode): total: NaN and infinities cannot be stored; use None for a missing number
    """,
)
def not_a_number(shop):
    shop.build("OrderCreateNode", {"user_id": 1, "total": float("nan")})


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (UserCreateNode): balance: NaN and infinities cannot be stored; use None for a missing number
    """,
)
def infinite_decimal(shop):
    shop.build("UserCreateNode", {"name": "Cy", "email": "cy@x", "balance": Decimal("Infinity")})


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (UserCreateNode): settings: NaN and infinities are not JSON (at $.zoom[1]); use None for a missing number
    """,
)
def not_a_number_in_json(shop):
    shop.build("UserCreateNode", {"name": "Cy", "email": "cy@x", "settings": {"zoom": [1.0, float("nan")]}})


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (UserCreateNode): name: text with a NUL character cannot be stored; remove it, or declare the field as bytes
    """,
)
def nul_character(shop):
    shop.build("UserCreateNode", {"name": "C\0y", "email": "cy@x"})


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (UserCreateNode): name: text with a lone surrogate cannot be stored; decode the input properly, or declare the field as bytes
    """,
)
def lone_surrogate(shop):
    shop.build("UserCreateNode", {"name": "\udc43y", "email": "cy@x"})


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (UserCreateNode): age: the integer does not fit in 64 bits; store it as Decimal or str
    """,
)
def integer_beyond_64_bits(shop):
    shop.build("UserCreateNode", {"name": "Cy", "email": "cy@x", "age": 2**63})


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (UserCreateNode): name: None is not allowed; give a value, or annotate it `| None`
    """,
)
def none_for_a_field_that_is_not_nullable(shop):
    shop.build("UserCreateNode", {"name": None, "email": "cy@x"})


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (OrderCreateNode): status: expected one of pending, paid; got other text
    """,
)
def unknown_enum_text(shop):
    shop.build("OrderCreateNode", {"user_id": 1, "total": 1.0, "status": "payed"})


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (OrderCreateNode): status: expected Status, got int; pass Status.PENDING
    """,
)
def number_for_an_enum(shop):
    shop.build("OrderCreateNode", {"user_id": 1, "total": 1.0, "status": 2})


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (NoteCreateNode): key: expected UUID, got text that is not a UUID; pass uuid.uuid4() or its text
    """,
)
def text_that_is_no_uuid(shop):
    shop.build("NoteCreateNode", {"text": "a", "key": "note-1"})


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (NoteCreateNode): at: a time with an offset has no meaning without a date; pass it without tzinfo, or use datetime
    """,
)
def time_with_an_offset(shop):
    shop.build("NoteCreateNode", {"text": "a", "at": time(8, tzinfo=UTC)})


@mistake(
    "wrong-value",
    """
    born: a datetime without offset is refused (setting naive_datetimes='reject')
      where: model User, operation create, field born
      fix: pass datetime.now(UTC) or add tzinfo=
    """,
)
def datetime_without_offset_where_that_is_refused(shop):
    with DataFlow(":memory:", naive_datetimes="reject") as strict:
        strict.model(user_class())
        strict.express_sync.create("User", {"name": "Cy", "email": "cy@x", "born": datetime(2001, 1, 31)})  # noqa: DTZ001


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (UserCreateNode): tags: expected list[str], got str; wrap it in a list
    """,
)
def text_for_a_list(shop):
    shop.build("UserCreateNode", {"name": "Cy", "email": "cy@x", "tags": "admin"})


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (UserCreateNode): tags: element 1: expected str, got int; convert it with str(…)
    """,
)
def wrong_element_in_a_list(shop):
    shop.build("UserCreateNode", {"name": "Cy", "email": "cy@x", "tags": ["admin", 7]})


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (UserCreateNode): tags: expected list[str], got set; turn it into one: list(…)
    """,
)
def set_for_a_list(shop):
    shop.build("UserCreateNode", {"name": "Cy", "email": "cy@x", "tags": {"admin"}})


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (UserCreateNode): settings: datetime is not JSON (at $.since); convert it to text
    """,
)
def datetime_in_json(shop):
    shop.build(
        "UserCreateNode", {"name": "Cy", "email": "cy@x", "settings": {"since": datetime(2025, 1, 1, tzinfo=UTC)}}
    )


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (UserCreateNode): settings: JSON keys are str, got int (at $); convert the key with str(…)
    """,
)
def number_as_a_json_key(shop):
    shop.build("UserCreateNode", {"name": "Cy", "email": "cy@x", "settings": {1: "one"}})


@mistake(
    "workflow-execution twice",
    """
    node 'node' failed: name is given twice: at top level and in values
      where: node node, type UserCreateNode, run <id>, model User, operation create
      fix: give it once
    """,
)
def field_given_twice(shop):
    shop.run("UserCreateNode", {"name": "Cy", "values": {"name": "Dy", "email": "cy@x"}})


@mistake(
    "workflow-build unknown-parameter",
    """
    the workflow has 1 problem
      - node 'node' (UserCreateNode): User has no field or option 'tenant_id'; declare __dataflow__ = {'multi_tenant': True} on the model, or leave it out
    """,
)
def tenant_of_a_model_without_tenants(shop):
    shop.build("UserCreateNode", {"name": "Cy", "email": "cy@x", "tenant_id": "acme"})


# -- one record -------------------------------------------------------------------------------------------------------
@mistake(
    "workflow-execution not-found",
    """
    node 'node' failed: no User with that key
      where: node node, type UserReadNode, run <id>, model User, operation read
      fix: check the key, or leave out raise_on_not_found to get a result instead
    """,
)
def record_that_does_not_exist(shop):
    shop.run("UserReadNode", {"id": 99, "raise_on_not_found": True})


@mistake(
    "workflow-execution wrong-value",
    """
    node 'node' failed: id: expected int, got str
      where: node node, type UserReadNode, run <id>, model User, operation read, field id
      fix: convert it with int(…)
    """,
)
def key_of_the_wrong_type(shop):
    shop.run("UserReadNode", {"id": "1"})


@mistake(
    "workflow-execution missing-key",
    """
    node 'node' failed: id is None; a key has a value
      where: node node, type UserDeleteNode, run <id>, model User, operation delete, field id
      fix: give id, or connect it
    """,
)
def key_that_is_none(shop):
    shop.run("UserDeleteNode", {"id": None})


@mistake(
    "workflow-execution bad-parameter",
    """
    node 'node' failed: both a key and conditions were given
      where: node node, type UserReadNode, run <id>, model User, operation read
      fix: give one of them
    """,
)
def key_and_conditions(shop):
    shop.run("UserReadNode", {"id": 1, "conditions": {"name": "Ada"}})


@mistake(
    "workflow-execution bad-parameter",
    """
    node 'node' failed: conditions is empty, which would mean every record
      where: node node, type UserDeleteNode, run <id>, model User, operation delete
      fix: give the key, or use UserBulkDeleteNode
    """,
)
def empty_conditions_of_a_delete(shop):
    shop.run("UserDeleteNode", {"conditions": {}})


@mistake(
    "workflow-execution empty-update",
    """
    node 'node' failed: nothing to change
      where: node node, type UserUpdateNode, run <id>, model User, operation update
      fix: give a field of User: name, email, age, active, balance, born, tags, settings, created_at, updated_at
    """,
)
def update_of_nothing(shop):
    shop.run("UserUpdateNode", {"id": 1})


@mistake(
    "workflow-build unknown-parameter",
    """
    the workflow has 1 problem
      - node 'node' (UserUpdateNode): User has no field or option 'nmae'; did you mean 'name'?
    """,
)
def update_of_an_unknown_field(shop):
    shop.build("UserUpdateNode", {"id": 1, "nmae": "Cy"})


@mistake(
    "workflow-execution not-found",
    """
    node 'node' failed: no User with that key
      where: node node, type UserUpdateNode, run <id>, model User, operation update
      fix: check the key, or leave out raise_on_not_found to get a result instead
    """,
)
def update_of_a_missing_record(shop):
    shop.run("UserUpdateNode", {"id": 99, "name": "Cy", "raise_on_not_found": True})


@mistake(
    "workflow-build unknown-operator",
    """
    the workflow has 1 problem
      - node 'node' (UserUpdateNode): age: '$increment' is not an update operator; operators: $set, $inc, $dec, $multiply, $divide, $min, $max, $unset, $append
    """,
)
def unknown_update_operator(shop):
    shop.run("UserUpdateNode", {"id": 1, "age": {"$increment": 1}})


@mistake(
    "workflow-build bad-operator",
    """
    the workflow has 1 problem
      - node 'node' (UserUpdateNode): name: $inc needs a number, and the field is str
    """,
)
def increment_of_text(shop):
    shop.build("UserUpdateNode", {"id": 1, "name": {"$inc": 1}})


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (UserUpdateNode): age: expected int, got str; convert it with int(…)
    """,
)
def increment_by_text(shop):
    shop.build("UserUpdateNode", {"id": 1, "age": {"$inc": "1"}})


@mistake(
    "workflow-build key-changed",
    """
    the workflow has 1 problem
      - node 'node' (UserUpdateNode): id: the primary key of a record cannot be changed; create a new record
    """,
)
def primary_key_changed(shop):
    shop.run("UserUpdateNode", {"conditions": {"name": "Ada"}, "fields": {"id": 7}})


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (OrderUpdateNode): total: $divide by zero
    """,
)
def division_by_zero(shop):
    shop.build("OrderUpdateNode", {"id": 1, "total": {"$divide": 0}})


@mistake(
    "workflow-execution arithmetic",
    """
    node 'node' failed: the result is not a whole number; nothing is rounded silently
      where: node node, type UserUpdateNode, run <id>, model User, operation update
      fix: change the operand, or the stored values
    """,
)
def fraction_for_an_int(shop):
    shop.run("UserUpdateNode", {"id": 1, "age": {"$divide": 7}})


@mistake(
    "workflow-execution arithmetic",
    """
    node 'node' failed: the result does not fit in 64 bits
      where: node node, type UserUpdateNode, run <id>, model User, operation update
      fix: change the operand, or the stored values
    """,
)
def increment_beyond_64_bits(shop):
    shop.run("UserUpdateNode", {"id": 1, "age": {"$inc": 2**63 - 1}})


@mistake(
    "workflow-build bad-operator",
    """
    the workflow has 1 problem
      - node 'node' (UserUpdateNode): name: $unset sets None, which the field does not allow
    """,
)
def unset_of_a_required_field(shop):
    shop.build("UserUpdateNode", {"id": 1, "name": {"$unset": True}})


@mistake(
    "workflow-build bad-operator",
    """
    the workflow has 1 problem
      - node 'node' (UserUpdateNode): name: $append needs a list, and the field is str
    """,
)
def append_to_text(shop):
    shop.build("UserUpdateNode", {"id": 1, "name": {"$append": "!"}})


@mistake(
    "workflow-execution arithmetic",
    """
    node 'node' failed: $append needs a list, and the stored JSON is not one
      where: node node, type UserUpdateNode, run <id>, model User, operation update
      fix: change the operand, or the stored values
    """,
)
def append_to_a_json_object(shop):
    shop.run("UserUpdateNode", {"id": 1, "settings": {"$append": "dark"}})


@mistake(
    "workflow-execution missing-capability",
    """
    node 'node' failed: soft_delete is asked for, but model User does not have that feature
      where: node node, type UserDeleteNode, run <id>, model User, operation delete
      fix: declare __dataflow__ = {'soft_delete': True} on the model; install it: pip install 'workflow-dataflow[enterprise]' (not on the public index yet: pip install ./packages/dataflow-enterprise in a checkout of the project)
    """,
)
def soft_delete_of_a_model_without_it(shop):
    shop.run("UserDeleteNode", {"id": 1, "soft_delete": True})


# -- filters, sorting, paging -----------------------------------------------------------------------------------------
@mistake(
    "workflow-build unknown-operator",
    """
    the workflow has 1 problem
      - node 'node' (UserListNode): '$get' on 'age' is not a filter operator; did you mean '$gt'?
    """,
)
def misspelt_operator(shop):
    shop.build("UserListNode", {"filter": {"age": {"$get": 18}}})


@mistake(
    "workflow-build unknown-operator",
    """
    the workflow has 1 problem
      - node 'node' (UserListNode): 'gte' on 'age' is not a filter operator; did you mean '$gte'?
    """,
)
def operator_without_dollar(shop):
    shop.build("UserListNode", {"filter": {"age": {"gte": 18}}})


@mistake(
    "workflow-build unknown-operator",
    """
    the workflow has 1 problem
      - node 'node' (UserListNode): '$gt' is not a filter operator that can stand here; it belongs inside a field: {'age': {'$gt': 18}}
    """,
)
def operator_outside_a_field(shop):
    shop.build("UserListNode", {"filter": {"$gt": {"age": 18}}})


@mistake(
    "workflow-build unknown-field",
    """
    the workflow has 1 problem
      - node 'node' (UserListNode): model User has no field or relation 'emial'; did you mean 'email'?
    """,
)
def unknown_field_in_a_filter(shop):
    shop.build("UserListNode", {"filter": {"emial": "ada@x"}})


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (UserListNode): age: expected int, got str; convert it with int(…)
    """,
)
def wrong_type_in_a_filter(shop):
    shop.build("UserListNode", {"filter": {"age": {"$gte": "18"}}})


@mistake(
    "workflow-build bad-operand",
    """
    the workflow has 1 problem
      - node 'node' (UserListNode): $in on 'name' takes a list, got str; write {'$in': [value]}
    """,
)
def in_without_a_list(shop):
    shop.build("UserListNode", {"filter": {"name": {"$in": "Ada"}}})


@mistake(
    "workflow-build bad-operand",
    """
    the workflow has 1 problem
      - node 'node' (UserListNode): $in on 'name' takes a list, got set; turn the set into a list
    """,
)
def in_with_a_set(shop):
    shop.build("UserListNode", {"filter": {"name": {"$in": {"Ada"}}}})


@mistake(
    "workflow-build bad-operand",
    """
    the workflow has 1 problem
      - node 'node' (UserListNode): $between on 'age' takes a list of two values; write [low, high]
    """,
)
def between_of_one_value(shop):
    shop.build("UserListNode", {"filter": {"age": {"$between": [18]}}})


@mistake(
    "workflow-build bad-filter",
    """
    the workflow has 1 problem
      - node 'node' (UserListNode): $or takes a non-empty list of filters; write {'$or': [{…}, {…}]}
    """,
)
def or_without_a_list(shop):
    shop.build("UserListNode", {"filter": {"$or": {"age": 1, "name": "Ada"}}})


@mistake(
    "workflow-build bad-filter",
    """
    the workflow has 1 problem
      - node 'node' (UserListNode): the filter on 'age' is empty; write {'$exists': True} or leave it out
    """,
)
def empty_filter_on_a_field(shop):
    shop.build("UserListNode", {"filter": {"age": {}}})


@mistake(
    "workflow-build bad-operand",
    """
    the workflow has 1 problem
      - node 'node' (UserListNode): $gt on 'age' cannot compare with None; write {'age': None} or {'age': {'$ne': None}}
    """,
)
def comparison_with_none(shop):
    shop.build("UserListNode", {"filter": {"age": {"$gt": None}}})


@mistake(
    "workflow-build bad-operator",
    """
    the workflow has 1 problem
      - node 'node' (UserListNode): $gt needs an order, and 'active' is bool
    """,
)
def order_of_a_bool(shop):
    shop.build("UserListNode", {"filter": {"active": {"$gt": False}}})


@mistake(
    "workflow-build bad-operator",
    """
    the workflow has 1 problem
      - node 'node' (UserListNode): $startswith is for text, and 'age' is int
    """,
)
def text_operator_on_a_number(shop):
    shop.build("UserListNode", {"filter": {"age": {"$startswith": "4"}}})


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (UserListNode): name: not the same on every database: the lookahead (?=…) (at position 1)
    """,
)
def regex_with_lookahead(shop):
    shop.build("UserListNode", {"filter": {"name": {"$regex": "A(?=da)"}}})


@mistake(
    "workflow-build wrong-value",
    r"""
    the workflow has 1 problem
      - node 'node' (UserListNode): name: '(' is never closed; write \( for the character (at position 1)
    """,
)
def regex_that_is_broken(shop):
    shop.build("UserListNode", {"filter": {"name": {"$regex": "A(da"}}})


@mistake(
    "workflow-build not-json",
    """
    the workflow has 1 problem
      - node 'node' (UserListNode): 'name' of model User is str, not JSON: it has no member 'first'
    """,
)
def member_of_a_field_that_is_not_json(shop):
    shop.build("UserListNode", {"filter": {"name.first": "Ada"}})


@mistake(
    "workflow-build bad-filter",
    """
    the workflow has 1 problem
      - node 'node' (OrderListNode): 'user' is a relation to User; a filter on it is a dict; write {'user': {'id': …}} or filter on 'user_id'
    """,
)
def relation_compared_with_a_value(shop):
    shop.build("OrderListNode", {"filter": {"user": 1}})


@mistake(
    "workflow-build bad-parameter",
    """
    the workflow has 1 problem
      - node 'node' (UserListNode): filter takes a dict, got list; write {'field': value}
    """,
)
def filter_that_is_a_list(shop):
    shop.build("UserListNode", {"filter": [{"age": 1}]})


@mistake(
    "workflow-build wrong-value",
    """
    the workflow has 1 problem
      - node 'node' (UserListNode): born: expected datetime, got text that is not ISO 8601; write '2025-01-31T12:00:00+00:00' or '2025-01-31'
    """,
)
def text_that_is_no_datetime_in_a_filter(shop):
    shop.build("UserListNode", {"filter": {"born": {"$gte": "31.01.2001"}}})


@mistake(
    "workflow-execution unknown-field",
    """
    node 'node' failed: sort: model User has no field 'nmae'
      where: node node, type UserListNode, run <id>, model User, operation list
      fix: did you mean 'name'?
    """,
)
def unknown_sort_field(shop):
    shop.run("UserListNode", {"order_by": ["-nmae"]})


@mistake(
    "workflow-execution bad-parameter",
    """
    node 'node' failed: the direction of 'name' is 1 or -1: sort=[{'name': -1}]
      where: node node, type UserListNode, run <id>, model User, operation list
    """,
)
def sort_in_no_direction(shop):
    shop.run("UserListNode", {"sort": [{"name": "down"}]})


@mistake(
    "workflow-execution bad-parameter",
    """
    node 'node' failed: a sort is [{'field': 1 or -1}], ['-field'] or 'field', not pairs
      where: node node, type UserListNode, run <id>, model User, operation list
    """,
)
def sort_as_pairs(shop):
    shop.run("UserListNode", {"sort": [("name", -1)]})


@mistake(
    "workflow-execution bad-sort",
    """
    node 'node' failed: sort: 'settings' is JSON, which has no order
      where: node node, type UserListNode, run <id>, model User, operation list
    """,
)
def sort_by_json(shop):
    shop.run("UserListNode", {"sort": "settings"})


@mistake(
    "workflow-execution bad-parameter",
    """
    node 'node' failed: limit takes a whole number of at least 0, got -1
      where: node node, type UserListNode, run <id>, model User, operation list
    """,
)
def negative_limit(shop):
    shop.run("UserListNode", {"limit": -1})


@mistake(
    "workflow-execution bad-parameter",
    """
    node 'node' failed: limit takes a whole number of at least 0, got str
      where: node node, type UserListNode, run <id>, model User, operation list
    """,
)
def limit_as_text(shop):
    shop.run("UserListNode", {"limit": "10"})


@mistake(
    "workflow-execution bad-cursor",
    """
    node 'node' failed: the cursor is not one that a ListNode returned
      where: node node, type UserListNode, run <id>, model User, operation list
      fix: pass next_cursor unchanged
    """,
)
def cursor_made_up(shop):
    shop.run("UserListNode", {"limit": 1, "cursor": "page-2"})


@mistake(
    "workflow-execution bad-cursor",
    """
    node 'node' failed: the cursor belongs to another sort
      where: node node, type UserListNode, run <id>, model User, operation list
      fix: keep the sort of the page before: name, id
    """,
)
def cursor_of_another_sort(shop):
    page = shop.run("UserListNode", {"limit": 1, "sort": "name"})
    shop.run("UserListNode", {"limit": 1, "sort": "-name", "cursor": page["next_cursor"]})


@mistake(
    "workflow-execution bad-parameter",
    """
    node 'node' failed: cursor and offset were both given
      where: node node, type UserListNode, run <id>, model User, operation list
      fix: page with one of them
    """,
)
def cursor_and_offset(shop):
    page = shop.run("UserListNode", {"limit": 1})
    shop.run("UserListNode", {"limit": 1, "offset": 1, "cursor": page["next_cursor"]})


@mistake(
    "workflow-execution unknown-relation",
    """
    node 'node' failed: include: model User has no relation 'order'
      where: node node, type UserListNode, run <id>, model User, operation list
      fix: did you mean 'orders'?
    """,
)
def unknown_include(shop):
    shop.run("UserListNode", {"include": ["order"]})


@mistake(
    "workflow-execution unknown-relation",
    """
    node 'node' failed: include: model Note has no relation 'author'
      where: node node, type NoteListNode, run <id>, model Note, operation list
      fix: a field customer_id relates to a registered model Customer; or annotate Relation('Customer')
    """,
)
def include_without_relations(shop):
    shop.run("NoteListNode", {"include": ["author"]})


@mistake(
    "workflow-execution unknown-field",
    """
    node 'node' failed: fields: model User has no field 'emial'
      where: node node, type UserListNode, run <id>, model User, operation list
      fix: did you mean 'email'?
    """,
)
def unknown_field_in_a_projection(shop):
    shop.run("UserListNode", {"fields": ["name", "emial"]})


@mistake(
    "workflow-build unknown-parameter",
    """
    the workflow has 1 problem
      - node 'node' (UserListNode): list takes no parameter 'where'; list takes: filter, sort, order_by, limit, offset, fields, include, count_only, include_total, cursor
    """,
)
def parameter_of_another_node(shop):
    shop.build("UserListNode", {"where": {"age": 1}})


@mistake(
    "workflow-execution missing-aggregate",
    """
    node 'node' failed: aggregate is required
      where: node node, type UserAggregateNode, run <id>, model User, operation aggregate
      fix: give aggregate={'total': {'$sum': 'price'}, 'n': {'$count': '*'}}
    """,
)
def aggregate_of_nothing(shop):
    shop.late("UserAggregateNode", {"group_by": "active", "aggregate": {}})


@mistake(
    "workflow-execution unknown-operator",
    """
    node 'node' failed: '$total' is not an aggregate function
      where: node node, type OrderAggregateNode, run <id>, model Order, operation aggregate
      fix: functions: $sum, $avg, $min, $max, $count, $count_distinct
    """,
)
def unknown_aggregate_function(shop):
    shop.run("OrderAggregateNode", {"aggregate": {"t": {"$total": "total"}}})


@mistake(
    "workflow-execution bad-aggregate",
    """
    node 'node' failed: $sum needs numbers, and 'name' is str
      where: node node, type UserAggregateNode, run <id>, model User, operation aggregate
    """,
)
def sum_of_text(shop):
    shop.run("UserAggregateNode", {"aggregate": {"t": {"$sum": "name"}}})


@mistake(
    "workflow-execution unknown-field",
    """
    node 'node' failed: having: no group field or aggregate 'totl'
      where: node node, type OrderAggregateNode, run <id>, model Order, operation aggregate
      fix: did you mean 'total'?
    """,
)
def having_something_unknown(shop):
    shop.run("OrderAggregateNode", {"aggregate": {"total": {"$sum": "total"}}, "having": {"totl": {"$gt": 1}}})


@mistake(
    "workflow-execution arithmetic",
    """
    node 'node' failed: the sum does not fit in 64 bits
      where: node node, type UserAggregateNode, run <id>, model User, operation aggregate
      fix: declare the field as Decimal, or sum fewer rows
    """,
)
def sum_beyond_64_bits(shop):
    shop.run("UserAggregateNode", {"filter": {"age": {"$gt": 0}}, "aggregate": {"t": {"$sum": "age"}}})


# -- many records -----------------------------------------------------------------------------------------------------
@mistake(
    "workflow-execution bad-parameter",
    """
    node 'node' failed: data takes a list of dicts, got dict
      where: node node, type UserBulkCreateNode, run <id>, model User, operation bulk_create
      fix: write data=[{'field': value}, …]
    """,
)
def bulk_rows_as_one_dict(shop):
    shop.run("UserBulkCreateNode", {"data": {"name": "Cy", "email": "cy@x"}})


@mistake(
    "workflow-execution bad-parameter",
    """
    node 'node' failed: row 1 is not a dict but tuple
      where: node node, type UserBulkCreateNode, run <id>, model User, operation bulk_create
      fix: write data=[{'field': value}, …]
    """,
)
def bulk_rows_that_are_no_dicts(shop):
    shop.run("UserBulkCreateNode", {"data": [{"name": "Cy", "email": "cy@x"}, ("Dy", "dy@x")]})


@mistake(
    "workflow-build unknown-field",
    """
    the workflow has 1 problem
      - node 'node' (UserBulkCreateNode): row 1: model User has no field 'emial'; did you mean 'email'?
    """,
)
def bulk_row_with_an_unknown_key(shop):
    shop.build("UserBulkCreateNode", {"data": [{"name": "Cy", "email": "cy@x"}, {"name": "Dy", "emial": "dy@x"}]})


@mistake(
    "workflow-execution several-faults bad-row bad-row",
    """
    node 'node' failed: 2 faults in the parameters of bulk_create on User; nothing was written
      where: node node, type UserBulkCreateNode, run <id>, model User, operation bulk_create
      - row 1: email is required; give email: str
      - row 2: age: expected int, got str; convert it with int(…)
    """,
)
def bulk_rows_with_bad_values(shop):
    shop.run("UserBulkCreateNode", {"data": [
        {"name": "Cy", "email": "cy@x"}, {"name": "Dy"}, {"name": "Ey", "email": "ey@x", "age": "old"},
    ]})  # fmt: skip


@mistake(
    "workflow-execution unique",
    """
    node 'node' failed: row 1: a record with that email exists already
      where: node node, type UserBulkCreateNode, run <id>, model User, operation bulk_create, table users, columns email, row 1
      fix: use another value, an UpsertNode, or conflict_resolution='skip'
    """,
)
def bulk_rows_with_an_existing_key(shop):
    shop.run("UserBulkCreateNode", {"data": [{"name": "Cy", "email": "cy@x"}, {"name": "Eve", "email": "ada@x"}]})


@mistake(
    "workflow-execution bad-parameter",
    """
    node 'node' failed: conflict_resolution is one of error, skip, upsert; got something else
      where: node node, type UserBulkCreateNode, run <id>, model User, operation bulk_create
    """,
)
def unknown_conflict_resolution(shop):
    shop.run("UserBulkCreateNode", {"data": [{"name": "Cy", "email": "cy@x"}], "conflict_resolution": "ignore"})


@mistake(
    "workflow-execution bad-parameter",
    """
    node 'node' failed: batch_size takes a whole number of at least 1, got 0
      where: node node, type UserBulkCreateNode, run <id>, model User, operation bulk_create
    """,
)
def batch_of_no_rows(shop):
    shop.run("UserBulkCreateNode", {"data": [{"name": "Cy", "email": "cy@x"}], "batch_size": 0})


@mistake(
    "workflow-execution missing-data",
    """
    node 'node' failed: bulk_update needs filter and update, or data
      where: node node, type UserBulkUpdateNode, run <id>, model User, operation bulk_update
      fix: give filter={…} (all records: {}) and update={…}
    """,
)
def bulk_update_without_a_filter(shop):
    shop.run("UserBulkUpdateNode", {"update": {"active": False}})


@mistake(
    "workflow-execution bad-parameter",
    """
    node 'node' failed: row 1: the key id is missing
      where: node node, type UserBulkUpdateNode, run <id>, model User, operation bulk_update, row 1
      fix: every row of data names its id
    """,
)
def bulk_update_rows_without_their_key(shop):
    shop.run("UserBulkUpdateNode", {"data": [{"id": 1, "name": "Al"}, {"name": "Bo"}]})


@mistake(
    "workflow-execution unconfirmed",
    """
    node 'node' failed: an empty filter would delete every record
      where: node node, type OrderBulkDeleteNode, run <id>, model Order, operation bulk_delete
      fix: pass confirmed=True to delete every record, or give a filter
    """,
)
def empty_filter_of_a_bulk_delete(shop):
    shop.run("OrderBulkDeleteNode", {"filter": {}})


@mistake(
    "workflow-execution missing-data",
    """
    node 'node' failed: bulk_delete needs filter or ids, and not both
      where: node node, type OrderBulkDeleteNode, run <id>, model Order, operation bulk_delete
      fix: give filter={…} or ids=[…]
    """,
)
def bulk_delete_of_nothing_named(shop):
    shop.run("OrderBulkDeleteNode", {"confirmed": True})


@mistake(
    "workflow-execution bad-parameter",
    """
    node 'node' failed: ids takes a list of keys
      where: node node, type OrderBulkDeleteNode, run <id>, model Order, operation bulk_delete
      fix: write ids=[1, 2]
    """,
)
def ids_that_are_no_list(shop):
    shop.run("OrderBulkDeleteNode", {"ids": 1})


@mistake(
    "workflow-execution duplicate-key",
    """
    node 'node' failed: row 1: the same key as row 0 (email)
      where: node node, type UserBulkUpsertNode, run <id>, model User, operation bulk_upsert, row 1
      fix: remove one, or pass on_duplicate='last'
    """,
)
def one_key_twice_in_a_bulk_upsert(shop):
    rows = [{"name": "Cy", "email": "cy@x"}, {"name": "Dy", "email": "cy@x"}]
    shop.run("UserBulkUpsertNode", {"data": rows, "key_fields": ["email"]})


@mistake(
    "workflow-execution not-unique",
    """
    node 'node' failed: where (name) is not a unique key of User
      where: node node, type UserUpsertNode, run <id>, model User, operation upsert
      fix: unique keys: id; email. Or declare __indexes__ = [{'name': 'uq_users_name', 'fields': ['name'], 'unique': True}]
    """,
)
def upsert_by_a_field_that_is_not_unique(shop):
    shop.run("UserUpsertNode", {"where": {"name": "Ada"}, "create": {"email": "al@x"}})


@mistake(
    "workflow-execution missing-field",
    """
    node 'node' failed: name is required
      where: node node, type UserUpsertNode, run <id>, model User, operation upsert, field name
      fix: the record may be new: give create={'name': …}
    """,
)
def upsert_that_cannot_create(shop):
    shop.run("UserUpsertNode", {"where": {"email": "cy@x"}, "update": {"age": 3}})


@mistake(
    "workflow-execution missing-key",
    """
    node 'node' failed: the rows hold no complete unique key, so it is not clear which record each means
      where: node node, type UserBulkUpsertNode, run <id>, model User, operation bulk_upsert
      fix: give the fields of one in every row: id; email
    """,
)
def bulk_upsert_without_a_unique_key(shop):
    shop.run("UserBulkUpsertNode", {"data": [{"name": "Cy"}]})


# -- constraints of the database --------------------------------------------------------------------------------------
@mistake(
    "workflow-execution unique",
    """
    node 'node' failed: a record with that email exists already
      where: node node, type UserCreateNode, run <id>, model User, operation create, table users, columns email
      fix: use another value, an UpsertNode, or conflict_resolution='skip'
    """,
)
def unique_key_taken(shop):
    shop.run("UserCreateNode", {"name": "Eve", "email": "ada@x"})


@mistake(
    "workflow-execution unique",
    """
    node 'node' failed: a record with that id exists already
      where: node node, type UserCreateNode, run <id>, model User, operation create, table users, columns id
      fix: use another value, an UpsertNode, or conflict_resolution='skip'
    """,
)
def primary_key_taken(shop):
    shop.run("UserCreateNode", {"id": 1, "name": "Eve", "email": "eve@x"})


@mistake(
    "workflow-execution foreign-key",
    """
    node 'node' failed: a foreign key refers to a record that does not exist, or a record is still referred to
      where: node node, type OrderCreateNode, run <id>, model Order, operation create
      fix: write the record referred to first, or delete what refers to it first
    """,
)
def foreign_key_to_nothing(shop):
    shop.run("OrderCreateNode", {"user_id": 99, "total": 1.0})


@mistake(
    "workflow-execution foreign-key",
    """
    node 'node' failed: row 1: a foreign key refers to a record that does not exist, or a record is still referred to
      where: node node, type OrderBulkCreateNode, run <id>, model Order, operation bulk_create, row 1
      fix: write the record referred to first, or delete what refers to it first
    """,
)
def bulk_row_with_a_foreign_key_to_nothing(shop):
    shop.run("OrderBulkCreateNode", {"data": [{"user_id": 1, "total": 1.0}, {"user_id": 99, "total": 2.0}]})


@mistake(
    "workflow-execution foreign-key",
    """
    node 'node' failed: the record is still referred to by others (foreign key)
      where: node node, type UserDeleteNode, run <id>, model User, operation delete
      fix: delete them first, or declare ForeignKey(…, on_delete='cascade')
    """,
)
def delete_of_a_record_still_referred_to(shop):
    shop.run("UserDeleteNode", {"id": 1})


# -- SQL of one's own -------------------------------------------------------------------------------------------------
@mistake(
    "workflow-execution refused-query",
    """
    node 'node' failed: validate_queries refuses SELEC statements
      where: node node, type AsyncSQLDatabaseNode, run <id>
      fix: did you mean SELECT?
    """,
)
def sql_with_a_syntax_error(shop):
    shop.sql("SELEC 1")


@mistake(
    "workflow-execution no-such-name",
    """
    node 'node' failed: the database says: no such table: user
      where: node node, type AsyncSQLDatabaseNode, run <id>
      fix: check the name; db.show_tables() lists tables
    """,
)
def sql_on_an_unknown_table(shop):
    shop.sql("SELECT * FROM user")


@mistake(
    "workflow-execution no-such-name",
    """
    node 'node' failed: the database says: no such column: nmae
      where: node node, type AsyncSQLDatabaseNode, run <id>
      fix: check the name; db.show_tables() lists tables
    """,
)
def sql_on_an_unknown_column(shop):
    shop.sql("SELECT nmae FROM users")


@mistake(
    "workflow-execution bad-params",
    """
    node 'node' failed: the placeholder :name has no value
      where: node node, type AsyncSQLDatabaseNode, run <id>
      fix: pass params={'name': …}
    """,
)
def sql_without_its_params(shop):
    shop.sql("SELECT * FROM users WHERE name = :name")


@mistake(
    "workflow-execution bad-params",
    """
    node 'node' failed: the placeholder $2 has no value
      where: node node, type AsyncSQLDatabaseNode, run <id>
      fix: pass params as a list of 2 or more
    """,
)
def sql_with_too_few_params(shop):
    shop.sql("SELECT * FROM users WHERE name = $1 AND age = $2", ["Ada"])


@mistake(
    "workflow-execution bad-params",
    """
    node 'node' failed: params without a placeholder in the query: age
      where: node node, type AsyncSQLDatabaseNode, run <id>
      fix: placeholders are :name with a dict of params, or $1 with a list; use these params or remove them
    """,
)
def sql_with_spare_params(shop):
    shop.sql("SELECT * FROM users WHERE name = :name", {"name": "Ada", "age": 3})


@mistake(
    "workflow-execution bad-query",
    """
    node 'node' failed: '?' is not a placeholder here
      where: node node, type AsyncSQLDatabaseNode, run <id>
      fix: write :name with a dict of params, or $1 with a list
    """,
)
def sql_with_question_marks(shop):
    shop.sql("SELECT * FROM users WHERE name = ?", ["Ada"])


@mistake(
    "workflow-execution bad-params",
    """
    node 'node' failed: params without a placeholder in the query: $1
      where: node node, type AsyncSQLDatabaseNode, run <id>
      fix: placeholders are :name with a dict of params, or $1 with a list; use these params or remove them
    """,
)
def sql_with_percent_placeholders(shop):
    shop.sql("SELECT * FROM users WHERE name = %s", ["Ada"])


@mistake(
    "workflow-execution refused-query",
    """
    node 'node' failed: validate_queries refuses DROP statements
      where: node node, type AsyncSQLDatabaseNode, run <id>
      fix: pass validate_queries=False to run DDL on purpose
    """,
)
def ddl_as_a_query(shop):
    shop.sql("DROP TABLE users")


@mistake(
    "workflow-execution refused-query",
    """
    node 'node' failed: the query has 2 statements
      where: node node, type AsyncSQLDatabaseNode, run <id>
      fix: send one at a time, or pass validate_queries=False
    """,
)
def two_statements_as_a_query(shop):
    shop.sql("DELETE FROM orders; DELETE FROM users")


@mistake(
    "workflow-execution bad-query",
    """
    node 'node' failed: COMMIT cannot be sent by hand: the framework opens and ends transactions
      where: node node, type AsyncSQLDatabaseNode, run <id>
      fix: put a TransactionScopeNode before the nodes that belong together
    """,
)
def commit_by_hand(shop):
    shop.sql("COMMIT")


@mistake(
    "workflow-execution bad-query",
    """
    node 'node' failed: the query is empty
      where: node node, type AsyncSQLDatabaseNode, run <id>
      fix: write SQL, for example SELECT count(*) AS n FROM users
    """,
)
def sql_that_is_empty(shop):
    shop.sql("-- nothing yet")


@mistake(
    "workflow-execution bad-params",
    """
    node 'node' failed: the placeholder $1 has no value
      where: node node, type AsyncSQLDatabaseNode, run <id>
      fix: pass params as a list of 1 or more
    """,
)
def sql_params_that_are_one_value(shop):
    shop.sql("SELECT * FROM users WHERE id = $1", 1)


@mistake(
    "workflow-execution bad-parameter",
    """
    node 'node' failed: fetch_mode cannot be 'first'
      where: node node, type AsyncSQLDatabaseNode, run <id>
      fix: choose one of all, one, value, none
    """,
)
def unknown_fetch_mode(shop):
    shop.run("AsyncSQLDatabaseNode", {"query": "SELECT 1", "fetch_mode": "first"})


@mistake(
    "workflow-build unknown-parameter",
    """
    the workflow has 1 problem
      - node 'node' (AsyncSQLDatabaseNode): AsyncSQLDatabaseNode takes no parameter 'sql'; parameters: allow_foreign_connections, connection_string, fetch_mode, params, query, validate_queries
    """,
)
def misspelt_parameter_of_the_sql_node(shop):
    shop.build("AsyncSQLDatabaseNode", {"sql": "SELECT 1"})


@mistake(
    "missing-input",
    """
    required inputs have no value: query of node 'node'
      fix: connect them, or execute(workflow, parameters={"node": {"query": …}})
    """,
)
def sql_node_without_a_query(shop):
    shop.run("AsyncSQLDatabaseNode", {})


@mistake(
    "workflow-execution unique",
    """
    node 'node' failed: a record with that email exists already
      where: node node, type AsyncSQLDatabaseNode, run <id>, table users, columns email
      fix: use another value, an UpsertNode, or conflict_resolution='skip'
    """,
)
def sql_that_breaks_a_constraint(shop):
    shop.sql("INSERT INTO users (name, email) VALUES (:name, 'ada@x')", {"name": "Eve"})


@mistake(
    "workflow-execution not-null",
    """
    node 'node' failed: email must have a value
      where: node node, type AsyncSQLDatabaseNode, run <id>, table users, columns email
      fix: give it a value
    """,
)
def sql_that_leaves_a_required_column_empty(shop):
    shop.sql("INSERT INTO users (name) VALUES ('Eve')")


@mistake(
    "workflow-execution check",
    """
    node 'node' failed: age holds INTEGER, and the value is TEXT
      where: node node, type AsyncSQLDatabaseNode, run <id>, table users, columns age
      fix: change the value or the field's type
    """,
)
def sql_that_stores_another_type(shop):
    shop.sql("UPDATE users SET age = 'old' WHERE id = 1")


@mistake(
    "workflow-execution check",
    """
    node 'node' failed: a check refused the value: status
      where: node node, type AsyncSQLDatabaseNode, run <id>
      fix: see the table's CHECK constraints
    """,
)
def sql_that_breaks_a_check(shop):
    shop.sql("UPDATE orders SET status = 'lost' WHERE id = 1")


@mistake(
    "workflow-execution no-such-name",
    """
    node 'node' failed: the database says: no such table: tags
      where: node node, type AsyncSQLDatabaseNode, run <id>
      fix: the table comes with the first node of Tag that runs, or with await db.initialize()
    """,
)
def sql_on_a_table_that_comes_later(shop):
    with DataFlow(f"sqlite:///{shop.path}", name="later") as other:
        other.model(tag_class())
        shop.run("AsyncSQLDatabaseNode", {"query": "SELECT count(*) FROM tags", "database": "later"})


@mistake(
    "workflow-build bad-parameter",
    """
    the workflow has 1 problem
      - node 'node' (AsyncSQLDatabaseNode): connection_string and database were both given; give one of them
    """,
)
def sql_node_with_two_databases_named(shop):
    shop.build(
        "AsyncSQLDatabaseNode", {"query": "SELECT 1", "database": "app", "connection_string": "sqlite:///app.db"}
    )


@mistake(
    "workflow-execution bad-parameter",
    """
    node 'node' failed: validate_queries takes True or False, got str
      where: node node, type AsyncSQLDatabaseNode, run <id>
      fix: leave it out for True
    """,
)
def sql_validation_as_text(shop):
    shop.run("AsyncSQLDatabaseNode", {"query": "SELECT 1", "validate_queries": "no"})


# -- models -----------------------------------------------------------------------------------------------------------
@mistake(
    "model-instantiated",
    """
    User is a model, not a class of objects: User() creates nothing
      where: model User
      fix: write workflow.add_node("UserCreateNode", "create", {"name": …, "email": …}) or db.express.create("User", {…})
    """,
)
def model_used_as_a_class(shop):
    shop.db.get_model("User")(name="Cy", email="cy@x")


@mistake(
    "duplicate-model",
    """
    a different model User is registered already (test_mistakes.py:<line>)
      where: model User, file test_mistakes.py:<line>
      fix: rename one, or register it on another DataFlow
    """,
)
def two_models_of_one_name(shop):
    class User:
        login: str

    shop.db.model(User)


@mistake(
    "duplicate-table",
    """
    the models User and Person share the table 'users'
      where: model Person, file test_mistakes.py:<line>
      fix: set __tablename__ on Person
    """,
)
def two_models_of_one_table(shop):
    class Person:
        __tablename__ = "users"
        name: str

    shop.db.model(Person)


@mistake(
    "model",
    """
    @db.model decorates a class, got nothing
      fix: write @db.model above class User: …, without parentheses
    """,
)
def decorator_with_parentheses(shop):
    shop.db.model()(object)


@mistake(
    "bad-relation",
    """
    a foreign key cannot have on_delete='explode'
      fix: choose one of 'restrict', 'cascade', 'set null', 'no action'
    """,
)
def foreign_key_with_an_unknown_action(shop):
    ForeignKey("User", on_delete="explode")


@mistake(
    "bad-default",
    """
    Factory takes a function, got list
      fix: write Factory(list), Factory(uuid4), Factory(lambda: …)
    """,
)
def factory_of_a_value(shop):
    @shop.db.model
    class Tag:
        words: list[str] = Factory([])


@mistake(
    "model",
    """
    @db.model decorates a class, got function
      fix: write @db.model above class User: …, without parentheses
    """,
)
def decorator_on_a_function(shop):
    @shop.db.model
    def user():
        return None


@mistake(
    "model",
    """
    model Empty has no fields
      where: model Empty, file test_mistakes.py:<line>
      fix: annotate at least one: name: str
    """,
)
def model_without_fields(shop):
    @shop.db.model
    class Empty:
        pass


@mistake(
    "model",
    """
    'name' has a value but no annotation, so it is not a field
      where: model Tag, file test_mistakes.py:<line>
      fix: write name: str = …, or ClassVar for a constant
    """,
)
def field_without_annotation(shop):
    @shop.db.model
    class Tag:
        name = ""


@mistake(
    "model",
    """
    'words' has a value but no annotation, so it is not a field
      where: model Tag, file test_mistakes.py:<line>
      fix: write words: list = …, or ClassVar for a constant
    """,
)
def list_without_annotation(shop):
    @shop.db.model
    class Tag:
        label: str
        words = []  # noqa: RUF012


@mistake(
    "model",
    """
    field 'colour': complex is not a field type
      where: model Tag, file test_mistakes.py:<line>, field colour
      fix: use int float str bool bytes datetime date time Decimal UUID, an Enum, dict, list[…] or Any
    """,
)
def annotation_that_is_no_type(shop):
    @shop.db.model
    class Tag:
        colour: complex


@mistake(
    "model",
    """
    an annotation names 'strng', which is not defined here
      where: model Tag, file test_mistakes.py:<line>
      fix: did you mean 'str'?
    """,
)
def annotation_with_a_misspelt_name(shop):
    @shop.db.model
    class Tag:
        label: "strng"  # noqa: F821


@mistake(
    "model",
    """
    field 'label': a field has one type; int | str has several
      where: model Tag, file test_mistakes.py:<line>, field label
      fix: choose one, or Any for JSON
    """,
)
def annotation_of_two_types(shop):
    @shop.db.model
    class Tag:
        label: int | str


@mistake(
    "model",
    """
    field 'words': set is not a field type
      where: model Tag, file test_mistakes.py:<line>, field words
      fix: use list[…]
    """,
)
def annotation_with_a_set(shop):
    @shop.db.model
    class Tag:
        words: set[str]


@mistake(
    "model",
    """
    the default of field 'weight' does not fit: expected int, got str
      where: model Tag, file test_mistakes.py:<line>, field weight
      fix: convert it with int(…)
    """,
)
def default_of_the_wrong_type(shop):
    @shop.db.model
    class Tag:
        weight: int = "1"


@mistake(
    "model",
    """
    the default of field 'words' is a function
      where: model Tag, file test_mistakes.py:<line>, field words
      fix: wrap it: words: … = Factory(list)
    """,
)
def default_that_is_a_function(shop):
    @shop.db.model
    class Tag:
        words: list[str] = list


@mistake(
    "model",
    """
    a field name cannot start with an underscore: '_label'
      where: model Tag, file test_mistakes.py:<line>, field _label
      fix: call it 'label'
    """,
)
def field_with_an_underscore(shop):
    @shop.db.model
    class Tag:
        _label: str


@mistake(
    "model",
    """
    there is no model option 'softdelete'
      where: model Tag, file test_mistakes.py:<line>
      fix: did you mean 'soft_delete'?
    """,
)
def misspelt_model_option(shop):
    @shop.db.model
    class Tag:
        label: str
        __dataflow__ = {"softdelete": True}  # noqa: RUF012


@mistake(
    "not-yet-available",
    """
    the model option 'encryption' is part of a later release
      where: model Tag, file test_mistakes.py:<line>
      fix: leave it out for now
    """,
)
def model_option_of_a_later_release(shop):
    @shop.db.model
    class Tag:
        label: str
        __dataflow__ = {"encryption": ["label"]}  # noqa: RUF012


@mistake(
    "missing-capability",
    """
    model Tag asks for multi_tenant, which no active plugin provides
      where: model Tag, file test_mistakes.py:<line>, option multi_tenant
      fix: install it: pip install 'workflow-dataflow[enterprise]' (not on the public index yet: pip install ./packages/dataflow-enterprise in a checkout of the project)
    """,
)
def tenants_without_the_package(shop):
    with DataFlow(f"sqlite:///{shop.path}", disable={"enterprise"}) as other:

        @other.model
        class Tag:
            label: str
            __dataflow__ = {"multi_tenant": True}  # noqa: RUF012


@mistake(
    "model",
    """
    the model option 'soft_delete' is True or False
      where: model Tag, file test_mistakes.py:<line>
      fix: write __dataflow__ = {'soft_delete': True}
    """,
)
def model_option_that_is_no_flag(shop):
    @shop.db.model
    class Tag:
        label: str
        __dataflow__ = {"soft_delete": "yes"}  # noqa: RUF012


@mistake(
    "model",
    """
    __dataflow__ is a dict of options
      where: model Tag, file test_mistakes.py:<line>
      fix: write __dataflow__ = {'soft_delete': True}
    """,
)
def model_options_as_a_list(shop):
    @shop.db.model
    class Tag:
        label: str
        __dataflow__ = ["soft_delete"]  # noqa: RUF012


@mistake(
    "model",
    """
    the primary key of model Tag names the field 'lable', which does not exist
      where: model Tag, file test_mistakes.py:<line>
      fix: did you mean 'label'?
    """,
)
def primary_key_that_is_no_field(shop):
    @shop.db.model
    class Tag:
        label: str
        __dataflow__ = {"primary_key": ["lable"]}  # noqa: RUF012


@mistake(
    "model",
    """
    index 'ix_tags' of model Tag names the field 'lable', which does not exist
      where: model Tag, file test_mistakes.py:<line>
      fix: did you mean 'label'?
    """,
)
def index_on_an_unknown_field(shop):
    @shop.db.model
    class Tag:
        label: str
        __indexes__ = [{"name": "ix_tags", "fields": ["lable"]}]  # noqa: RUF012


@mistake(
    "model",
    """
    an index is {'name': …, 'fields': […], 'unique': …, 'where': …}
      where: model Tag, file test_mistakes.py:<line>
      fix: give name and a list of fields; unique and where are optional
    """,
)
def index_without_a_name(shop):
    @shop.db.model
    class Tag:
        label: str
        __indexes__ = [{"fields": ["label"]}]  # noqa: RUF012


@mistake(
    "duplicate-index",
    """
    the index name 'uq_users_email' is taken by model User
      where: model Tag, file test_mistakes.py:<line>
      fix: names of indexes and tables are global in a schema, whatever their case: rename it
    """,
)
def index_name_taken(shop):
    @shop.db.model
    class Tag:
        label: str
        __indexes__ = [{"name": "uq_users_email", "fields": ["label"]}]  # noqa: RUF012


@mistake(
    "model",
    """
    the table name 'dataflow_tags' is reserved
      where: model Tag, file test_mistakes.py:<line>
      fix: choose another __tablename__
    """,
)
def table_name_that_is_reserved(shop):
    @shop.db.model
    class Tag:
        label: str
        __tablename__ = "dataflow_tags"


@mistake(
    "duplicate-relation",
    """
    a relation of Parcel with User would be called 'user', as a field is
      where: model Parcel, file test_mistakes.py:<line>, relation user
      fix: write Annotated[…, Relation('User', name='…')]
    """,
)
def relation_named_like_a_field(shop):
    @shop.db.model
    class Parcel:
        user: str
        owner_id: Annotated[int, Relation("User", name="user")]


@mistake(
    "model",
    """
    the relation of Parcel.owner needs a name
      where: model Parcel, file test_mistakes.py:<line>, field owner
      fix: write Relation('User', name='…')
    """,
)
def relation_without_a_name(shop):
    @shop.db.model
    class Parcel:
        owner: Annotated[int, Relation("User")]


@mistake(
    "model",
    """
    Parcel.user_id is str, and User.id is int
      where: model Parcel, file test_mistakes.py:<line>, field user_id
      fix: give both fields one type
    """,
)
def relation_of_two_types(shop):
    @shop.db.model
    class Parcel:
        user_id: Annotated[str, ForeignKey("User")]


@mistake(
    "bad-relation",
    """
    Parcel.owner_id is a foreign key to model Usr, which is not registered
      where: model Parcel, file test_mistakes.py:<line>, field owner_id
      fix: did you mean 'User'?
    """,
)
def foreign_key_to_a_misspelt_model(shop):
    with DataFlow(f"sqlite:///{shop.path}") as other:

        @other.model
        class Parcel:
            owner_id: Annotated[int, ForeignKey("Usr")]

        other.model(user_class())
        other.express_sync.create("Parcel", {"owner_id": 1})


@mistake(
    "model",
    """
    the fields 'label' and 'Label' of model Tag differ only in case
      where: model Tag, file test_mistakes.py:<line>
      fix: rename one: databases may not tell them apart
    """,
)
def fields_that_differ_only_in_case(shop):
    @shop.db.model
    class Tag:
        label: str
        Label: str


@mistake(
    "duplicate-node",
    """
    model UserBulk would define the node type 'UserBulkCreateNode', which exists already
      fix: rename the model or the node
    """,
)
def model_whose_nodes_exist(shop):
    @shop.db.model
    class UserBulk:
        label: str


# -- instances, settings, URLs ----------------------------------------------------------------------------------------
@mistake(
    "unknown-setting",
    """
    there is no setting 'auto_migrat'
      fix: did you mean 'auto_migrate'?
    """,
)
def misspelt_setting(shop):
    DataFlow(":memory:", auto_migrat=False)


@mistake(
    "unknown-setting",
    """
    there is no setting 'sharding'
      fix: run 'dataflow doctor --settings' to list all settings
    """,
)
def setting_nobody_knows(shop):
    DataFlow(":memory:", sharding="by moon")


@mistake(
    "bad-setting",
    """
    the setting 'auto_migrate' takes bool, got str
      fix: for example auto_migrate=True (Create missing tables when a model is first used)
    """,
)
def setting_of_the_wrong_type(shop):
    DataFlow(":memory:", auto_migrate="no")


@mistake(
    "bad-setting",
    """
    the setting 'bulk_batch_size' must be at least 1
      fix: for example bulk_batch_size=1000 (Rows per statement of bulk operations; COPY takes all)
    """,
)
def setting_out_of_range(shop):
    DataFlow(":memory:", bulk_batch_size=0)


@mistake(
    "bad-setting",
    """
    the setting 'naive_datetimes' cannot be 'UTC'
      fix: choose one of 'local', 'utc', 'reject'
    """,
)
def setting_with_an_unknown_choice(shop):
    DataFlow(":memory:", naive_datetimes="UTC")


@mistake(
    "not-yet-available",
    """
    the setting 'query_cache_enabled' is part of a later release
      fix: leave it out for now
    """,
)
def setting_of_a_later_release(shop):
    DataFlow(":memory:", query_cache_enabled=True)


@mistake(
    "missing-capability",
    """
    the setting 'multi_tenant' needs a package that is not installed
      where: setting multi_tenant
      fix: install it: pip install 'workflow-dataflow[enterprise]' (not on the public index yet: pip install ./packages/dataflow-enterprise in a checkout of the project)
    """,
)
def setting_of_a_package_that_is_not_installed(shop):
    DataFlow(":memory:", disable={"enterprise"}, multi_tenant=True)


@mistake(
    "bad-setting",
    """
    the setting 'bulk_batch_size' takes int, got str
      where: variable DATAFLOW_BULK_BATCH_SIZE
      fix: for example DATAFLOW_BULK_BATCH_SIZE=1000 (Rows per statement of bulk operations; COPY takes all)
    """,
)
def variable_of_the_wrong_type(shop):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATAFLOW_BULK_BATCH_SIZE", "many")
        DataFlow(":memory:")


@mistake(
    "bad-url",
    """
    the database URL is not of the form scheme://…
      fix: write 'sqlite:///shop.db'
    """,
)
def path_instead_of_a_url(shop):
    DataFlow("shop.db")


@mistake(
    "bad-url",
    """
    a SQLite URL has three slashes before a relative path, four before an absolute one
      fix: write 'sqlite:///shop.db' or ':memory:'
    """,
)
def sqlite_url_with_two_slashes(shop):
    DataFlow("sqlite://shop.db")


@mistake(
    "bad-url",
    """
    the database URL is a str, got PosixPath
      fix: write DataFlow('sqlite:///app.db')
    """,
)
def url_that_is_no_text(shop):
    DataFlow(Path("shop.db"))


@mistake(
    "bad-url",
    """
    the port of the database URL is not a number
      fix: write …@host:5432/database; encode '@' in a password as %40 and '/' as %2F
    """,
)
def port_that_is_no_number(shop):
    DataFlow("postgresql://ada:pass:word@db.example.org:54e2/shop")


@mistake(
    "unknown-scheme",
    """
    no dialect is known for sqllite:// URLs
      fix: did you mean sqlite://?
    """,
)
def misspelt_scheme(shop):
    DataFlow("sqllite:///shop.db")


@mistake(
    "unknown-scheme",
    """
    no dialect is known for oracle:// URLs
      fix: active schemes: sqlite://
    """,
)
def unknown_scheme(shop):
    DataFlow("oracle://ada:hunter2@db.example.org/shop", disable=["postgres"])


@mistake(
    "unknown-scheme",
    """
    no active plugin handles postgresql:// URLs
      fix: install it: pip install 'workflow-dataflow[postgres]' (not on the public index yet: pip install ./packages/dataflow-postgres in a checkout of the project)
    """,
)
def postgres_without_its_package(shop):
    DataFlow("postgresql://ada:hunter2@db.example.org/shop", disable=["postgres"])


@mistake(
    "bad-url",
    """
    SQLite URLs take no options, got mode
      fix: use settings: DataFlow(url, sqlite_synchronous=…)
    """,
)
def sqlite_url_with_options(shop):
    DataFlow("sqlite:///shop.db?mode=ro")


@mistake(
    "unavailable",
    """
    the folder '<folder>/nowhere' of the database file does not exist
      where: file <folder>/nowhere/shop.db
      fix: create it, or correct the URL
    """,
)
def folder_that_does_not_exist(shop):
    with DataFlow(f"sqlite:///{shop.path.parent}/nowhere/shop.db") as other:
        other.show_tables()


@mistake(
    "unavailable",
    """
    the file is not a SQLite database
      where: file <folder>/notes.txt
      fix: check the path in the URL
    """,
)
def file_that_is_no_database(shop):
    (shop.path.parent / "notes.txt").write_text("these are notes, not a database " * 8)
    with DataFlow(f"sqlite:///{shop.path.parent}/notes.txt") as other:
        other.show_tables()


@mistake(
    "unknown-plugin",
    """
    no installed plugin is called 'sqlit'
      fix: did you mean 'sqlite'?
    """,
)
def unknown_plugin_disabled(shop):
    DataFlow(":memory:", disable={"sqlit"})


@mistake(
    "unknown-model",
    """
    no model 'Usr' is registered on this DataFlow
      fix: did you mean 'User'?
    """,
)
def unknown_model_in_express(shop):
    shop.db.express_sync.create("Usr", {"name": "Cy"})


@mistake(
    "unknown-model",
    """
    no model 'User' is registered on this DataFlow
      fix: models: none yet
    """,
)
def model_never_registered(shop):
    with DataFlow(":memory:") as empty:
        empty.get_model("User")


@mistake(
    "unknown-parameter",
    """
    list takes no parameter 'limitt'
      where: model User, operation list, parameter limitt
      fix: did you mean 'limit'?
    """,
)
def misspelt_option_in_express(shop):
    shop.db.express_sync.list("User", {}, limitt=3)


@mistake(
    "bad-parameter",
    """
    values takes a dict, got list
      where: model User, operation create
      fix: write {'field': value}
    """,
)
def express_record_that_is_no_dict(shop):
    shop.db.express_sync.create("User", ["Cy", "cy@x"])


@mistake(
    "input",
    """
    model User has no operation 'remove'
      fix: operations: create, read, update, delete, list, count, aggregate, upsert, bulk_create, bulk_update, bulk_delete, bulk_upsert
    """,
)
def unknown_operation_in_express(shop):
    shop.db.express_sync.call("remove", "User", id=1)


@mistake(
    "closed",
    """
    this DataFlow is closed
      fix: create a new one, or close it later
    """,
)
def instance_used_after_close(shop):
    other = DataFlow(f"sqlite:///{shop.path}")
    other.model(user_class())
    other.close()
    other.express_sync.list("User")


@mistake(
    "closed",
    """
    this DataFlow is closed
      fix: create a new one, or close it later
    """,
)
def model_registered_after_close(shop):
    other = DataFlow(":memory:")
    other.close()
    other.model(user_class())


@mistake(
    "workflow-build unknown-database",
    """
    the workflow has 1 problem
      - node 'node' (UserListNode): no DataFlow instance answers to database='wharehouse'; known: app; set DataFlow(…, name='wharehouse')
    """,
)
def unknown_database(shop):
    shop.build("UserListNode", {"database": "wharehouse"})


@mistake(
    "workflow-build unknown-database",
    """
    the workflow has 1 problem
      - node 'node' (UserListNode): database takes the name of an instance, got int; write database='primary'
    """,
)
def database_that_is_a_number(shop):
    shop.build("UserListNode", {"database": 1})


@mistake(
    "workflow-build ambiguous-database",
    """
    the workflow has 1 problem
      - node 'users' (UserListNode): UserListNode is registered by several live instances: <DataFlow sqlite:///<folder>/app.db models=['User', 'Order', 'Note']>; <DataFlow sqlite:///:memory: models=['User']>; pick one: params {'database': name}, or WorkflowBuilder(db) / db.workflow()
    """,
)
def node_of_two_instances_without_database(shop):
    with DataFlow(":memory:", name="spare") as other:
        other.model(user_class())
        WorkflowBuilder().add_node("UserListNode", "users", {}).build()


@mistake(
    "workflow-build ambiguous-database",
    """
    the workflow has 1 problem
      - node 'node' (UserListNode): database='twin' fits several instances: <DataFlow sqlite:///:memory: models=[]>; <DataFlow sqlite:///:memory: models=[]>; give each its own DataFlow(…, name=…)
    """,
)
def database_name_of_two_instances(shop):
    with DataFlow(":memory:", name="twin"), DataFlow(":memory:", name="twin"):
        shop.build("UserListNode", {"database": "twin"})


@mistake(
    "workflow-build ambiguous-database",
    """
    the workflow has 1 problem
      - node 'sql' (AsyncSQLDatabaseNode): AsyncSQLDatabaseNode needs to know the database; give database=… or connection_string=…; live instances: <DataFlow sqlite:///<folder>/app.db models=['User', 'Order', 'Note']>; <DataFlow sqlite:///:memory: models=[]>
    """,
)
def sql_without_a_database(shop):
    with DataFlow(":memory:", name="spare"):
        WorkflowBuilder().add_node("AsyncSQLDatabaseNode", "sql", {"query": "SELECT 1"}).build()


@mistake(
    "workflow-build not-yet-available",
    """
    the workflow has 1 problem
      - node 'node' (TransactionManagerNode): the node type 'TransactionManagerNode' is part of a later release; leave it out for now
    """,
)
def node_of_a_later_release(shop):
    shop.build("TransactionManagerNode", {})


@mistake(
    "workflow-build not-yet-available",
    """
    the workflow has 1 problem
      - node 'node' (UserAnalyticsNode): the node type 'UserAnalyticsNode' is part of a later release; leave it out for now
    """,
)
def generated_node_of_a_later_release(shop):
    shop.build("UserAnalyticsNode", {})


@mistake(
    "workflow-build not-yet-available",
    """
    the workflow has 1 problem
      - node 'node' (UserListNode): the parameter 'cache_key' is part of a later release; leave it out for now
    """,
)
def option_of_a_later_release(shop):
    shop.build("UserListNode", {"cache_key": "all-users"})


@mistake(
    "missing-capability",
    """
    register_schema_as_models() needs the migrations package, which is not installed
      fix: install it: pip install 'workflow-dataflow[migrations]' (not on the public index yet: pip install ./packages/dataflow-migrations in a checkout of the project)
    """,
)
def migration_without_its_package(shop):
    with DataFlow(f"sqlite:///{shop.path}", disable={"migrations"}) as alone:
        alone.register_schema_as_models(tables=["users"])


@mistake(
    "bad-setting",
    """
    use_real_inspection=False asks for invented data
      fix: leave it out: inspection is always real
    """,
)
def invented_schema(shop):
    shop.db.discover_schema(use_real_inspection=False)


@mistake(
    "missing-table",
    """
    the table 'tags' of model Tag does not exist
      where: model Tag, table tags
      fix: create it yourself, or allow it: DataFlow(auto_migrate=True, existing_schema_mode=False)
    """,
)
def missing_table_without_auto_migrate(shop):
    with DataFlow(f"sqlite:///{shop.path}", auto_migrate=False) as other:
        other.model(user_class())
        other.model(tag_class())
        other.express_sync.create("Tag", {"label": "new"})


@mistake(
    "missing-table",
    """
    the table 'tags' of model Tag does not exist
      where: model Tag, table tags
      fix: create it yourself, or allow it: DataFlow(auto_migrate=True, existing_schema_mode=False)
    """,
)
def missing_table_of_an_existing_schema(shop):
    with DataFlow(f"sqlite:///{shop.path}", existing_schema_mode=True) as other:
        other.model(tag_class())
        other.express_sync.list("Tag")


@mistake(
    "missing-column",
    """
    the table 'notes' of model Note lacks author
      where: model Note, table notes
      fix: add what is missing with ALTER TABLE; to have columns added by themselves, install it: pip install 'workflow-dataflow[migrations]' (not on the public index yet: pip install ./packages/dataflow-migrations in a checkout of the project)
    """,
)
def missing_column(shop):
    with DataFlow(f"sqlite:///{shop.path}", disable={"migrations"}) as other:

        @other.model
        class Note:
            text: str
            author: str

        other.express_sync.list("Note")


@mistake(
    "missing-column",
    """
    the table 'events' of model Event lacks created_at, updated_at
      where: model Event, table events
      fix: set __dataflow__ = {'timestamps': False} if the table has no timestamps; or add what is missing with ALTER TABLE; to have columns added by themselves, install it: pip install 'workflow-dataflow[migrations]' (not on the public index yet: pip install ./packages/dataflow-migrations in a checkout of the project)
    """,
)
def missing_columns_of_a_table_without_timestamps(shop):
    with DataFlow(f"sqlite:///{shop.path}", disable={"migrations"}) as other:

        @other.model
        class Event:
            name: str

        other.express_sync.list("Event")


# -- nodes of one's own -----------------------------------------------------------------------------------------------
@mistake(
    "bad-node",
    """
    a node class derives from BaseDataFlowNode; got Shout
      fix: write class MyNode(BaseDataFlowNode): …
    """,
)
def node_class_that_is_not_derived(shop):
    @shop.db.register_node
    class Shout:
        pass


@mistake(
    "duplicate-node",
    """
    the node class would define the node type 'UserCreateNode', which exists already
      fix: rename the model or the node
    """,
)
def node_class_named_like_a_generated_node(shop):
    @shop.db.register_node
    class UserCreateNode(BaseDataFlowNode):
        pass


@mistake(
    "workflow-execution bad-result",
    """
    node 'node' failed: Count returned int; a node returns a dict of outputs
      where: node node, type Count, run <id>
      fix: write return {'result': value}
    """,
)
def node_that_returns_a_number(shop):
    class Count(BaseDataFlowNode):
        def execute(self, input_data):
            return 2

    shop.run(Count)


@mistake(
    "workflow-execution bad-node",
    """
    node 'node' failed: Idle has neither execute(self, input_data) nor run(self, **inputs)
      where: node node, type Idle, run <id>
      fix: write one of them
    """,
)
def node_without_execute(shop):
    class Idle(BaseDataFlowNode):
        pass

    shop.run(Idle)


@mistake(
    "workflow-execution",
    """
    node 'node' failed: ValueError: invalid literal for int() with base 10: 'forty'
      where: node node, type Fussy, run <id>
    """,
)
def node_that_raises(shop):
    class Fussy(BaseDataFlowNode):
        def execute(self, input_data):
            return {"age": int("forty")}

    shop.run(Fussy)


@mistake(
    "workflow-build bad-node",
    """
    the workflow has 1 problem
      - node 'node' (Greet): Greet cannot be made with these params: missing a required argument: 'greeting'; see its __init__
    """,
)
def node_whose_constructor_does_not_take_its_params(shop):
    class Greet(BaseDataFlowNode):
        def __init__(self, node_id, greeting):
            super().__init__(node_id)

    shop.build(Greet, {"greting": "hello"})


@mistake(
    "workflow-execution missing-output",
    """
    node 'users' failed: the result of node 'names' has no 'name', which users.filter is connected to
      where: node users, type UserListNode, run <id>, model User, operation list
      fix: it has: names
    """,
)
def connection_from_an_output_that_never_came(shop):
    class Names(BaseDataFlowNode):
        def execute(self, input_data):
            return {"names": ["Ada"]}

    new = shop.db.workflow()
    new.add_node(Names, "names")
    new.add_node("UserListNode", "users", {})
    new.add_connection("names", "name", "users", "filter")
    LocalRuntime().execute(new.build())


@mistake(
    "workflow-execution would-deadlock",
    """
    node 'node' failed: run_custom_query() would stop the event loop it was called on
      where: node node, type Count, run <id>
      fix: write `rows = await self.query(sql, params)` in an async execute
    """,
)
def run_custom_query_on_the_event_loop(shop):
    class Count(BaseDataFlowNode):
        async def execute(self, input_data):
            return {"rows": self.run_custom_query("SELECT count(*) AS n FROM users")}

    shop.run(Count)


@mistake(
    "workflow-execution no-database",
    """
    node 'count' failed: Count does not know which database it belongs to
      where: node count, type Count, run <id>
      fix: register it: db.register_node(Count), or build the workflow with db.workflow()
    """,
)
def node_without_a_database(shop):
    class Count(BaseDataFlowNode):
        def execute(self, input_data):
            return {"rows": self.run_custom_query("SELECT count(*) AS n FROM users")}

    with DataFlow(":memory:"):
        LocalRuntime().execute(WorkflowBuilder().add_node(Count, "count").build())


@mistake(
    "workflow-execution bad-parameter",
    """
    node 'notes' failed: commit_every cannot commit inside a transaction scope
      where: node notes, type NoteBulkCreateNode, run <id>, model Note, operation bulk_create
      fix: leave it out, or leave the scope
    """,
)
def commit_every_inside_a_transaction(shop):
    new = shop.db.workflow().add_node("TransactionScopeNode", "tx", {})
    new.add_node("NoteBulkCreateNode", "notes", {"data": [{"text": "a"}, {"text": "b"}], "commit_every": 1})
    LocalRuntime().execute(new.build())


@mistake(
    "workflow-build empty-scope",
    """
    the workflow has 1 problem
      - node 'node' (TransactionScopeNode): no database node comes after it; remove it, or add it before the nodes it should hold together
    """,
)
def transaction_without_nodes(shop):
    shop.build("TransactionScopeNode", {})


@mistake(
    "workflow-build bad-parameter",
    """
    the workflow has 1 problem
      - node 'tx' (TransactionScopeNode): there is no isolation level 'CAREFUL' on sqlite; choose one of READ_UNCOMMITTED, READ_COMMITTED, REPEATABLE_READ, SERIALIZABLE
    """,
)
def unknown_isolation_level(shop):
    new = shop.db.workflow().add_node("TransactionScopeNode", "tx", {"isolation_level": "CAREFUL"})
    new.add_node("UserListNode", "users", {}).build()


@mistake(
    "workflow-build bad-parameter",
    """
    the workflow has 1 problem
      - node 'tx' (TransactionScopeNode): timeout is a number of seconds above 0; write timeout=10
    """,
)
def transaction_with_a_timeout_in_text(shop):
    new = shop.db.workflow().add_node("TransactionScopeNode", "tx", {"timeout": "10s"})
    new.add_node("UserListNode", "users", {}).build()


@mistake(
    "workflow-build inside-scope",
    """
    the workflow has 1 problem
      - node 'stray' would run inside the transaction 'tx' without belonging to it; connect it: add_connection("tx", "result", "stray", "input"), or move it before the scope
    """,
)
def node_inside_a_transaction_it_does_not_belong_to(shop):
    new = shop.db.workflow()
    new.add_node("TransactionScopeNode", "tx", {})
    new.add_node("UserCreateNode", "first", {"name": "Cy", "email": "cy@x"})
    new.add_node("UserCreateNode", "stray", {"name": "Dy", "email": "dy@x"})
    new.add_node("UserCreateNode", "last", {"name": "Ey", "email": "ey@x"})
    new.add_connection("tx", "result", "first", "input")
    new.add_connection("tx", "result", "last", "input")
    new.build()


@pytest.mark.parametrize("one", [pytest.param(one, id=one.make.__name__) for one in MISTAKES])
def test_a_mistake_is_answered_in_full_and_changes_nothing(one: Mistake, shop: Any) -> None:
    before = state(shop)
    with pytest.raises(DataFlowError) as caught:
        one.make(shop)
    error = caught.value
    assert normal(str(error), shop) == one.text
    assert codes(error) == one.codes
    assert state(shop) == before
    for secret in SECRETS:
        assert secret not in repr(error.to_dict())
    assert json.loads(json.dumps(error.to_dict())) == error.to_dict()
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.to_dict() == error.to_dict()
