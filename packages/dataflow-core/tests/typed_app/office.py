"""Models of every kind of field, key and relation, a feature or two, nodes of one's own."""

# ruff: noqa: RUF012  # models are declarations

from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any
from uuid import UUID, uuid4

from dataflow import BaseDataFlowNode, DataFlow, Factory, ForeignKey, Relation


class Status(Enum):
    OPEN = "open"
    PAID = "paid"


db = DataFlow(":memory:")


@db.model
class Person:
    name: str
    age: int = 0
    born: date | None = None
    score: float = 0.0


@db.model
class Account:
    id: UUID = Factory(uuid4)
    owner_id: Annotated[int, ForeignKey("Person", name="owner", reverse="accounts")]
    balance: Decimal = Decimal(0)
    status: Status = Status.OPEN
    history: list[Status] = []
    labels: list[str] = []
    marks: list[UUID] = []
    settings: dict[str, Any] = {}
    picture: bytes | None = None
    wakes: time | None = None
    closed_at: datetime | None = None
    opened: bool = True


@db.model
class Line:
    account: Annotated[UUID, Relation("Account", name="of_account", reverse="lines")]
    number: int
    text: str | None
    filter: str = ""
    limit: int = 0
    __dataflow__ = {"primary_key": ["account", "number"]}


@db.register_node
class GreetNode(BaseDataFlowNode):
    """Greets."""

    outputs = ("greeting",)

    def execute(self, input_data: Mapping[str, Any]) -> dict[str, str]:
        return {"greeting": f"{self.config['word']} {input_data['name']}"}
