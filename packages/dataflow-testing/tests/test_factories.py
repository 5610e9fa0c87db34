"""Factories: values that fit the model, by seed, with the parents that a record needs; on both databases."""

# ruff: noqa: RUF012  # __dataflow__ and __indexes__ are declarations

import enum
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, datetime, time
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID, uuid4

import pytest

from dataflow import DataFlow, Factory, ForeignKey
from dataflow.errors import ConfigurationError, InputError, UniqueError
from dataflow.fields import Relation
from dataflow.plugins import hookimpl
from dataflow.testing import count_queries
from dataflow.testing.factories import factory_for
from dataflow.testing.opening import Opening, opened
from dataflow.types import StrType, ValueRefused

pytest.importorskip("polyfactory")


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


@pytest.fixture(params=["sqlite", "postgresql"])
def opening(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Opening]:
    yield from opened(request, tmp_path, "factories")


@pytest.fixture
def db(opening: Opening) -> DataFlow:
    return opening()


@pytest.fixture
def memory() -> Iterator[DataFlow]:
    with DataFlow(":memory:") as db:
        yield db


def everything(db: DataFlow) -> None:
    @db.model
    class Thing:
        number: int
        ratio: float
        text: str
        flag: bool
        raw: bytes
        moment: datetime
        day: date
        clock: time
        price: Decimal
        token: UUID
        colour: Colour
        document: dict
        words: list[str]
        colours: list[Colour]
        amounts: list[Decimal] | None
        note: str | None
        kind: str = "plain"
        made: UUID = Factory(uuid4)


def shop(db: DataFlow) -> None:
    @db.model
    class Customer:
        email: str
        name: str
        __indexes__ = [{"name": "customer_email", "fields": ["email"], "unique": True}]

    @db.model
    class Order:
        customer_id: Annotated[int, ForeignKey("Customer")]
        total: Decimal

    @db.model
    class Line:
        order_id: int
        before_id: Annotated[int | None, ForeignKey("Line")]
        amount: int


# -- values -----------------------------------------------------------------------------------------------------------
def test_records_of_every_field_type_come_back_as_they_were_made(db: DataFlow) -> None:
    everything(db)
    things = factory_for(db, "Thing", seed=3)
    rows = things.batch(30)
    db.express_sync.bulk_create("Thing", rows)
    stored = db.express_sync.list("Thing", sort=["id"])["records"]
    assert [{name: record[name] for name in rows[0]} for record in stored] == rows
    assert {record["kind"] for record in stored} == {"plain"}


def test_what_the_framework_keeps_and_what_has_a_default_is_left_out(memory: DataFlow) -> None:
    everything(memory)
    left_out = {"id", "created_at", "updated_at", "kind", "made"}
    assert factory_for(memory, "Thing").build().keys() == memory.get_spec("Thing").fields.keys() - left_out


def test_fields_with_a_default_are_drawn_when_wanted(memory: DataFlow) -> None:
    everything(memory)
    row = factory_for(memory, "Thing", defaults=False).build()
    assert row["kind"] != "plain"
    assert isinstance(row["made"], UUID)


def test_fields_that_take_none_are_sometimes_none_unless_forbidden(memory: DataFlow) -> None:
    everything(memory)
    notes = [row["note"] for row in factory_for(memory, "Thing").batch(40)]
    assert None in notes
    assert any(notes)
    assert all(row["note"] and row["amounts"] for row in factory_for(memory, "Thing", nulls=False).batch(40))


def test_given_values_are_taken_and_the_others_stay(memory: DataFlow) -> None:
    everything(memory)
    plain = factory_for(memory, "Thing", seed=5).build()
    given = factory_for(memory, memory.get_model("Thing"), seed=5).build(text="mine", kind="other")
    assert given == {**plain, "text": "mine", "kind": "other"}


def test_equal_seeds_give_equal_values_whatever_other_factories_do(memory: DataFlow) -> None:
    everything(memory)
    alone = factory_for(memory, "Thing", seed=7).batch(5)
    one, other = factory_for(memory, "Thing", seed=7), factory_for(memory, "Thing", seed=8)
    mixed = []
    for _ in range(5):
        other.build()
        mixed.append(one.build())
    assert mixed == alone
    assert other.build() not in alone


def test_equal_seeds_give_equal_values_in_every_process() -> None:
    code = """
from dataflow import DataFlow
from dataflow.testing.factories import factory_for
db = DataFlow(":memory:")
@db.model
class User:
    name: str
    email: str
    tags: list[str]
    when: __import__("datetime").datetime
    id: __import__("uuid").UUID
print(factory_for(db, "User", seed=7).batch(3))
"""
    printed = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": hashes}, capture_output=True, text=True, check=True
        ).stdout
        for hashes in ("1", "2")
    }
    assert len(printed) == 1


class CodeType(StrType):
    """Texts of a kind that no factory knows."""

    def accept(self, value: Any) -> str:
        if value != "A-1":
            raise ValueRefused("not a code")
        return "A-1"


class Codes:
    dataflow_api = "1.0"

    @hookimpl
    def dataflow_resolve_annotation(self, annotation: Any) -> CodeType | None:
        return CodeType() if annotation is Codes else None


def test_values_of_types_that_no_factory_knows_must_be_given() -> None:
    with DataFlow(":memory:", plugins=[Codes()]) as db:

        @db.model
        class Ticket:
            code: Codes
            spare: Codes | None

        with pytest.raises(InputError, match="no values are known for Ticket"):
            factory_for(db, "Ticket").create()
        ticket = factory_for(db, "Ticket").create(code="A-1")
        assert (ticket["code"], ticket["spare"]) == ("A-1", None)


# -- keys -------------------------------------------------------------------------------------------------------------
def test_unique_keys_differ_within_a_factory(db: DataFlow) -> None:
    shop(db)
    made = factory_for(db, "Customer").create_batch(300)
    assert len({record["email"] for record in made}) == 300


def test_factories_of_one_seed_create_records_beside_each_other(db: DataFlow) -> None:
    shop(db)
    for _ in range(3):
        factory_for(db, "Customer", seed=1).create()
        factory_for(db, "Customer", seed=1).create_batch(4)
    assert db.express_sync.count("Customer")["count"] == 15


def test_few_values_of_a_key_are_used_up_with_an_error(db: DataFlow) -> None:
    @db.model
    class Paint:
        colour: Colour
        __dataflow__ = {"primary_key": "colour"}

    db.express_sync.create("Paint", {"colour": Colour.RED})
    paints = factory_for(db, "Paint", seed=1)
    assert paints.create()["colour"] is Colour.GREEN
    with pytest.raises(InputError, match="used up"):
        paints.create_batch(2)
    with pytest.raises(UniqueError):
        factory_for(db, "Paint").create()
    with pytest.raises(InputError, match="used up"):
        factory_for(db, "Paint").batch(3)


def test_a_batch_whose_key_is_an_enum_is_returned(db: DataFlow) -> None:
    @db.model
    class Paint:
        colour: Colour
        __dataflow__ = {"primary_key": "colour"}

    assert {record["colour"] for record in factory_for(db, "Paint").create_batch(2)} == set(Colour)


def test_a_given_value_that_exists_already_is_an_error_of_the_database(db: DataFlow) -> None:
    shop(db)
    customers = factory_for(db, "Customer")
    customers.create(email="ada@example.com")
    with count_queries(db) as sent, pytest.raises(UniqueError):
        customers.create(email="ada@example.com")
    assert len(sent) == 1


def test_composite_keys_differ_and_records_come_in_order(db: DataFlow) -> None:
    @db.model
    class Place:
        row: bool
        code: str
        label: str
        __dataflow__ = {"primary_key": ["row", "code"]}

    alike = factory_for(db, "Place", seed=2).batch(20)
    made = factory_for(db, "Place", seed=2).create_batch(20)
    assert [{name: record[name] for name in alike[0]} for record in made] == alike


# -- parents ----------------------------------------------------------------------------------------------------------
def test_a_record_is_created_with_the_parents_it_needs(db: DataFlow) -> None:
    shop(db)
    line = factory_for(db, "Line").create()
    order = db.express_sync.read("Order", line["order_id"])
    assert order["found"]
    assert db.express_sync.read("Customer", order["customer_id"])["found"]
    assert line["before_id"] is None


def test_a_batch_shares_its_parent_and_is_one_bulk_operation(db: DataFlow) -> None:
    shop(db)
    orders = factory_for(db, "Order")
    orders.create()
    with count_queries(db) as sent:
        made = orders.create_batch(50)
    assert len({record["customer_id"] for record in made}) == 1
    assert [record["id"] for record in made] == sorted(record["id"] for record in made)
    assert len(sent) <= 4


def test_a_large_batch_is_read_in_parts_and_comes_in_order(memory: DataFlow) -> None:
    shop(memory)
    made = factory_for(memory, "Customer").create_batch(10_001)
    assert [record["id"] for record in made] == list(range(1, 10_002))


def test_fields_may_have_the_names_that_the_methods_use(memory: DataFlow) -> None:
    @memory.model
    class Odd:
        self: int
        cls: str
        n: int

    assert factory_for(memory, "Odd").create_batch(2, self=1, cls="a", n=3)[1]["self"] == 1


def test_parents_that_are_given_are_not_created(db: DataFlow) -> None:
    shop(db)
    customer = factory_for(db, "Customer").create()
    made = factory_for(db, "Order").create_batch(3, customer_id=customer["id"])
    assert {record["customer_id"] for record in made} == {customer["id"]}
    assert db.express_sync.count("Customer")["count"] == 1


def test_each_record_has_its_own_parent_where_only_that_keeps_keys_distinct(db: DataFlow) -> None:
    shop(db)

    @db.model
    class Profile:
        customer_id: Annotated[int, ForeignKey("Customer")]
        __dataflow__ = {"primary_key": "customer_id"}

    @db.model
    class Buying:
        customer_id: Annotated[int, ForeignKey("Customer")]
        order_id: Annotated[int, ForeignKey("Order")]
        __dataflow__ = {"primary_key": ["customer_id", "order_id"]}

    assert len({record["customer_id"] for record in factory_for(db, "Profile").create_batch(4)}) == 4
    assert len(factory_for(db, "Buying").create_batch(3)) == 3
    given = factory_for(db, "Customer").create()["id"]
    assert len({record["order_id"] for record in factory_for(db, "Buying").create_batch(3, customer_id=given)}) == 3


def test_relations_without_constraint_and_to_other_fields_get_parents_too(db: DataFlow) -> None:
    shop(db)

    @db.model
    class Letter:
        to: Annotated[str, Relation("Customer", name="receiver", to="email")]

    letter = factory_for(db, "Letter").create()
    assert db.express_sync.count("Customer", {"email": letter["to"]})["count"] == 1


def test_build_asks_for_a_parent(memory: DataFlow) -> None:
    shop(memory)
    with pytest.raises(InputError, match=r"customer_id refers to a Customer(.|\n)*give customer_id=…"):
        factory_for(memory, "Order").build()
    assert factory_for(memory, "Order").build(customer_id=3)["customer_id"] == 3


def test_models_that_need_each_other_are_refused_with_the_path(memory: DataFlow) -> None:
    @memory.model
    class Hen:
        egg_id: int

    @memory.model
    class Egg:
        hen_id: int

    with pytest.raises(InputError, match="Hen → Egg → Hen"):
        factory_for(memory, "Hen").create()
    assert memory.express_sync.count("Egg")["count"] == 0


# -- ways to call -----------------------------------------------------------------------------------------------------
async def test_records_are_created_in_async_code_alike(db: DataFlow) -> None:
    shop(db)
    lines = factory_for(db, "Line", seed=4)
    one, more = await lines.acreate(), await lines.acreate_batch(3)
    assert [record["amount"] for record in (one, *more)] == [
        row["amount"] for row in factory_for(db, "Line", seed=4).batch(4, order_id=1)
    ]
    await factory_for(db, "Customer", seed=4).acreate_batch(2)
    await factory_for(db, "Customer", seed=4).acreate_batch(2)
    assert (await db.express.count("Customer"))["count"] == 6


def test_a_clash_of_keys_does_no_harm_in_tdd_mode(opening: Opening) -> None:
    db = opening(tdd_mode=True)
    shop(db)
    for _ in range(2):
        factory_for(db, "Customer", seed=1).create()
        factory_for(db, "Customer", seed=1).create_batch(3)
    assert db.express_sync.count("Customer")["count"] == 8


def test_records_of_a_tenant_get_parents_of_that_tenant(db: DataFlow) -> None:
    @db.model
    class Account:
        code: str
        __dataflow__ = {"multi_tenant": True, "soft_delete": True, "versioned": True}
        __indexes__ = [{"name": "account_code", "fields": ["code"], "unique": True}]

    @db.model
    class Payment:
        account_id: Annotated[int, ForeignKey("Account")]
        __dataflow__ = {"multi_tenant": True}

    with db.tenant("acme"):
        factory_for(db, "Payment").create_batch(2)
    payments = factory_for(db, "Payment").create_batch(2, tenant_id="umbrella")
    with db.tenant("umbrella"):
        assert db.express_sync.read("Account", payments[0]["account_id"])["found"]
    assert factory_for(db, "Account").build().keys() == {"code"}


@pytest.mark.parametrize("number", [-1, True, "3", 1.0])
def test_a_number_that_is_none_is_refused(memory: DataFlow, number: Any) -> None:
    shop(memory)
    with pytest.raises(InputError, match="number of records"):
        factory_for(memory, "Customer").batch(number)


def test_no_records_need_no_parent(memory: DataFlow) -> None:
    shop(memory)
    assert factory_for(memory, "Order").create_batch(0) == []
    assert memory.express_sync.count("Customer")["count"] == 0


def test_names_that_do_not_exist_are_refused_with_the_likely_ones(memory: DataFlow) -> None:
    shop(memory)
    with pytest.raises(InputError, match="did you mean 'email'"):
        factory_for(memory, "Customer").create(emial="x")
    with pytest.raises(InputError, match="did you mean 'Customer'"):
        factory_for(memory, "Custmer")


def test_without_polyfactory_the_error_names_the_extra(memory: DataFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    shop(memory)
    monkeypatch.setitem(sys.modules, "polyfactory.factories", None)
    with pytest.raises(ConfigurationError, match=r"workflow-dataflow-testing\[factories\]"):
        factory_for(memory, "Customer")
