"""Models: how classes are read, tables and keys, defaults, indexes, relations and foreign keys."""

import dataclasses
import sqlite3
import sys
import types
import uuid
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import Path
from textwrap import dedent
from typing import Annotated, Any, ClassVar, Optional, TypedDict, Union

import pytest

from dataflow import DataFlow, Factory, ForeignKey, Relation
from dataflow.errors import (
    ForeignKeyError,
    ModelError,
    SchemaError,
    UniqueError,
    UsageError,
    WorkflowExecutionError,
)
from dataflow.model import IndexSpec
from dataflow.naming import plural, snake, table_name


class Mood(StrEnum):
    GLAD = "glad"
    SAD = "sad"


class Address(TypedDict):
    street: str


def fields(bench: Any, model: str) -> dict[str, tuple[str, bool]]:
    """Return field -> (type, nullable) without what the framework adds."""
    spec = bench.db.get_spec(model)
    return {f.name: (str(f.type), f.nullable) for f in spec.fields.values() if f.origin == "user"}


def table_sql(bench: Any, table: str) -> str:
    return bench.sql("SELECT sql FROM sqlite_master WHERE name = :name", {"name": table})[0]["sql"]


# -- reading classes --------------------------------------------------------------------------------------------------
def test_every_annotation_of_the_documents_is_understood(bench: Any) -> None:
    @bench.db.model
    class Thing:
        a: int
        b: float | None
        c: Optional[str]  # noqa: UP045
        d: Union[bool, None]  # noqa: UP007
        e: Annotated[bytes, "a comment"]
        f: Annotated[int | None, "a comment"]
        g: dict
        h: dict[str, int]
        i: Mapping[str, Any]
        j: list
        k: list[str]
        ll: list[int | None]
        m: list[dict[str, str]]
        n: list[list[int]]
        o: Any
        p: Mood
        q: Address
        r: list[Mood]
        s: Decimal
        t: uuid.UUID
        u: date
        v: datetime
        w: str = None  # type: ignore[assignment]
        constant: ClassVar[int] = 3

        def method(self) -> None:
            """Belong to the class, not to the table."""

    assert fields(bench, "Thing") == {
        "a": ("int", False), "b": ("float", True), "c": ("str", True), "d": ("bool", True), "e": ("bytes", False),
        "f": ("int", True), "g": ("JSON", False), "h": ("JSON", False), "i": ("JSON", False), "j": ("JSON", False),
        "k": ("list[str]", False), "ll": ("JSON", False), "m": ("JSON", False), "n": ("JSON", False),
        "o": ("JSON", False), "p": ("Mood", False), "q": ("JSON", False), "r": ("list[Mood]", False),
        "s": ("Decimal", False), "t": ("UUID", False), "u": ("date", False), "v": ("datetime", False),
        "w": ("str", True),
    }  # fmt: skip


def test_a_model_with_postponed_annotations_may_use_local_names(bench: Any, tmp_path: Path) -> None:
    source = """
        from __future__ import annotations
        from enum import Enum
        from typing import Annotated, Optional
        from dataflow import Relation

        def register(db):
            class Local(Enum):
                ON = "on"

            @db.model
            class Switch:
                state: Local = Local.ON
                states: list[Local] = []
                parent: Annotated[Optional[int], Relation("Switch", name="above", reverse="below")] = None
            return Switch, Local
    """
    module = types.ModuleType("postponed_models")
    sys.modules["postponed_models"] = module
    try:
        exec(compile(dedent(source), "postponed_models.py", "exec"), module.__dict__)
        _, local = module.register(bench.db)
        made = bench.run("SwitchCreateNode", states=[local.ON])
        assert (made["state"], made["states"]) == (local.ON, [local.ON])
        assert bench.run("SwitchListNode", include=["above", "below"])["records"][0]["below"] == []
    finally:
        del sys.modules["postponed_models"]


def test_a_class_may_be_registered_by_a_call_and_by_a_notebook_like_namespace(bench: Any) -> None:
    space: dict[str, Any] = {"db": bench.db, "__name__": "nowhere_to_be_found"}
    exec(
        dedent("""
            from __future__ import annotations
            from decimal import Decimal

            @db.model
            class Cell:
                amount: Decimal = Decimal(1)
        """),
        space,
    )
    assert bench.run("CellCreateNode")["amount"] == Decimal(1)


def test_dataclasses_are_models_too(bench: Any) -> None:
    @bench.db.model
    @dataclass
    class Plain:
        name: str
        tags: list[str] = field(default_factory=list)
        size: int = 3
        weight: float = field(default=1.5)

    @bench.db.model
    @dataclass(frozen=True, slots=True)
    class Strict:
        name: str
        size: int = 3

    made = bench.run("PlainCreateNode", name="a")
    assert (made["tags"], made["size"], made["weight"]) == ([], 3, 1.5)
    assert bench.run("StrictCreateNode", name="a")["size"] == 3
    assert dataclasses.is_dataclass(bench.db.get_model("Plain"))
    for model in ("Plain", "Strict"):
        with pytest.raises(UsageError, match=f"{model} is a model, not a class of objects"):
            bench.db.get_model(model)(name="a")


def test_fields_are_inherited_base_first_and_overridden(bench: Any) -> None:
    class Named:
        name: str
        note: str | None = None

    class Sized:
        size: int = 1

    @bench.db.model
    class Box(Named, Sized):
        note: str = "none"
        color: str = "red"

    made = bench.run("BoxCreateNode", name="a")
    assert (made["note"], made["size"], made["color"]) == ("none", 1, "red")
    assert set(fields(bench, "Box")) == {"name", "note", "size", "color"}


def test_a_model_may_inherit_from_a_model(bench: Any) -> None:
    @bench.db.model
    class Animal:
        name: str
        __indexes__ = [{"name": "ix_animal", "fields": ["name"]}]  # noqa: RUF012

    @bench.db.model
    class Dog(Animal):
        breed: str = "mixed"
        __indexes__ = [{"name": "ix_dog", "fields": ["name"]}]  # noqa: RUF012

    bench.run("AnimalCreateNode", name="Tom")
    made = bench.run("DogCreateNode", name="Rex")
    assert (made["id"], made["breed"]) == (1, "mixed")
    with pytest.raises(UsageError, match="Dog is a model"):
        Dog()


def test_registering_the_same_model_again_does_no_harm_and_a_different_one_is_refused(bench: Any) -> None:
    def make(*, wide: bool) -> type:
        class User:
            name: str

        if wide:
            User.__annotations__["size"] = int
        return User

    first = make(wide=False)
    bench.db.model(first)
    bench.db.model(make(wide=False))
    assert bench.db.models == {"User": first}
    with pytest.raises(ModelError) as caught:
        bench.db.model(make(wide=True))
    assert caught.value.code == "duplicate-model"


def test_a_refused_model_leaves_nothing_behind(bench: Any) -> None:
    @bench.db.model
    class Owner:
        name: str

    with pytest.raises(ModelError):

        @bench.db.model
        class Pet:
            owner_id: int  # a relation that works
            keeper: Annotated[int, Relation("Owner")]  # one that lacks a name

    assert bench.db.list_models() == ["Owner"]
    bench.run("OwnerCreateNode", name="Ada")
    with pytest.raises(WorkflowExecutionError, match="has no relation 'pets'"):
        bench.run("OwnerListNode", include=["pets"])

    @bench.db.model
    class Pet:  # type: ignore[no-redef]
        owner_id: int

    bench.run("PetCreateNode", owner_id=1)
    assert bench.run("OwnerListNode", include=["pets"])["records"][0]["pets"][0]["id"] == 1


# -- tables and names -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("model", "table"),
    [
        ("User", "users"), ("SsoSession", "sso_sessions"), ("TenantData", "tenant_data"), ("Category", "categories"),
        ("Day", "days"), ("Box", "boxes"), ("Bus", "buses"), ("Quiz", "quizzes"), ("Branch", "branches"),
        ("Status", "statuses"), ("Person", "people"), ("SalesPerson", "sales_people"), ("HTTPServer", "http_servers"),
        ("APIKey", "api_keys"), ("Weather", "weather"), ("Series", "series"),
        ("Y", "ys"), ("Child", "children"), ("MetaData", "meta_data"), ("Köln", "kölns"), ("Flight", "flights"),
    ],
)  # fmt: skip
def test_a_table_is_the_plural_of_its_model(model: str, table: str) -> None:
    assert table_name(model) == table


def test_names_are_split_at_capitals() -> None:
    assert snake("UserProfileHTMLPage2") == "user_profile_html_page2"
    assert plural("purchase_order_entry") == "purchase_order_entries"


@pytest.mark.parametrize("name", ["Order", "Group", "Select", "Table", "User", "Index", "Values", "Where"])
def test_reserved_words_are_fine_as_models(bench: Any, name: str) -> None:
    model = type(name, (), {"__annotations__": {"order": int, "group": str, "from_": str | None}})
    model.__module__ = __name__
    bench.db.model(model)
    made = bench.run(f"{name}CreateNode", order=1, group="x")
    assert (made["order"], made["group"]) == (1, "x")
    assert bench.run(f"{name}ListNode", filter={"order": {"$gt": 0}}, sort=["-group"])["count"] == 1
    assert bench.run(f"{name}BulkUpsertNode", data=[{"id": 1, "order": 5, "group": "y"}])["updated"] == 1


@pytest.mark.parametrize("word", ["order", "select", "transaction", "default", "primary", "check", "null", "limit"])
def test_reserved_words_are_fine_as_tables_and_columns(bench: Any, word: str) -> None:
    model = type("Odd", (), {"__annotations__": {word: int}, "__tablename__": word})
    model.__module__ = __name__
    bench.db.model(model)
    assert bench.run("OddCreateNode", {"values": {word: 1}})[word] == 1
    assert bench.run("OddCountNode", filter={word: 1})["count"] == 1
    assert bench.db.show_tables() == [word]


def test_identifiers_may_be_any_letters(bench: Any) -> None:
    @bench.db.model
    class Straße:  # noqa: PLC2401
        größe: int  # noqa: PLC2401
        名前: str  # noqa: PLC2401
        __tablename__ = 'weird "table" %s :x'
        __indexes__ = [{"name": 'ix "odd" :y', "fields": ["größe", "名前"], "unique": True}]  # noqa: RUF012

    made = bench.run("StraßeCreateNode", größe=3, 名前="名")
    assert (made["größe"], made["名前"]) == (3, "名")
    assert bench.run("StraßeListNode", filter={"名前": {"$startswith": "名"}}, sort="größe")["count"] == 1
    assert bench.run("StraßeBulkCreateNode", data=[{"größe": 4, "名前": "b"}], return_ids=True)["ids"] == [2]
    again = bench.run("StraßeBulkUpsertNode", data=[{"größe": 4, "名前": "b"}], return_ids=True)
    assert (again["updated"], again["ids"]) == (1, [2])
    assert bench.db.show_tables() == ['weird "table" %s :x']


def test_a_table_can_be_named_but_names_have_limits(bench: Any) -> None:
    for name in ("x" * 64, "sqlite_x", "DATAFLOW_x", "a\0b", 3):
        model = type("Odd", (), {"__annotations__": {"a": int}, "__tablename__": name})
        model.__module__ = __name__
        with pytest.raises(ModelError):
            bench.db.model(model)
    with pytest.raises(ModelError, match="longer than 63 bytes"):
        bench.db.model(type("Odd", (), {"__annotations__": {"ä" * 32: int}}))
    assert bench.db.list_models() == []


# -- keys and stamps --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("bench", ["sqlite"], indirect=True)
def test_an_id_is_added_first_and_stamps_last(bench: Any) -> None:
    @bench.db.model
    class Note:
        text: str

    spec = bench.db.get_spec("Note")
    assert list(spec.fields) == ["id", "text", "created_at", "updated_at"]
    assert spec.primary_key == ("id",)
    bench.run("NoteCreateNode", text="a")
    assert "AUTOINCREMENT" in table_sql(bench, "notes")
    assert table_sql(bench, "notes").endswith("STRICT")


def test_a_declared_id_keeps_its_type_and_is_required_unless_it_counts(bench: Any) -> None:
    @bench.db.model
    class Text:
        id: str

    @bench.db.model
    class Number:
        id: int
        name: str = "x"

    @bench.db.model
    class Unique:
        id: uuid.UUID = Factory(uuid.uuid4)

    @bench.db.model
    class Fixed:
        id: int = 7

    with pytest.raises(Exception, match="id"):
        bench.run("TextCreateNode")
    assert bench.run("NumberCreateNode")["id"] == 1
    assert isinstance(bench.run("UniqueCreateNode")["id"], uuid.UUID)
    assert bench.run("FixedCreateNode")["id"] == 7
    with pytest.raises(WorkflowExecutionError):
        bench.run("FixedCreateNode")


@pytest.mark.parametrize("how", ["single", "bulk"])
def test_ids_are_never_used_twice(file_bench: Any, how: str) -> None:
    @file_bench.db.model
    class Note:
        text: str = ""

    def add() -> int:
        if how == "bulk":
            return file_bench.run("NoteBulkCreateNode", data=[{}], return_ids=True)["ids"][0]
        return file_bench.run("NoteCreateNode")["id"]

    seen = [add(), add()]
    file_bench.run("NoteBulkDeleteNode", filter={}, confirmed=True)
    seen += [add(), file_bench.run("NoteCreateNode")["id"]]
    assert seen == sorted(set(seen))
    file_bench.db.close()
    with DataFlow(f"sqlite:///{file_bench.path}") as db:
        db.model(file_bench.db.get_model("Note"))
        db.express_sync.bulk_delete("Note", filter={}, confirmed=True)
        assert db.express_sync.create("Note", {})["id"] > max(seen)


def test_stamps_can_be_left_out_or_be_ones_own(bench: Any) -> None:
    @bench.db.model
    class Bare:
        a: int
        __dataflow__ = {"timestamps": False}  # noqa: RUF012

    @bench.db.model
    class Own:
        a: int = 0
        created_at: datetime
        updated_at: datetime | None = None

    @bench.db.model
    class Text:
        created_at: str = "yesterday"

    assert bench.run("BareCreateNode", a=1) == {"id": 1, "a": 1}
    assert isinstance(bench.run("OwnCreateNode")["created_at"], datetime)
    assert bench.run("TextCreateNode")["created_at"] == "yesterday"


@pytest.mark.parametrize(
    "key",
    ["code", ["code"], ("code",), ["code", "day"], ["day", "code"]],
    ids=["str", "list", "tuple", "two", "turned"],
)
def test_a_primary_key_is_one_or_more_fields(bench: Any, key: Any) -> None:
    @bench.db.model
    class Rate:
        code: str | None
        day: date = date(2025, 1, 1)
        __dataflow__ = {"primary_key": key}  # noqa: RUF012

    spec = bench.db.get_spec("Rate")
    assert spec.primary_key == ((key,) if isinstance(key, str) else tuple(key))
    assert not any(part.nullable for part in spec.key)
    bench.run("RateCreateNode", code="EUR")
    with pytest.raises(WorkflowExecutionError) as caught:
        bench.run("RateCreateNode", code="EUR")
    assert isinstance(caught.value.__cause__, UniqueError)


@pytest.mark.parametrize("key", [[], ["code", "code"], ["nope"], 3, [3], ["data"], ["words"]])
def test_a_primary_key_that_is_none_is_refused(bench: Any, key: Any) -> None:
    with pytest.raises(ModelError):

        @bench.db.model
        class Rate:
            code: str
            data: dict
            words: list[str]
            __dataflow__ = {"primary_key": key}  # noqa: RUF012


# -- defaults in the DDL ----------------------------------------------------------------------------------------------
def test_rows_written_by_others_get_the_literal_defaults(file_bench: Any) -> None:
    @file_bench.db.model
    class Item:
        name: str
        size: int = -3
        ratio: float = 0.5
        price: Decimal = Decimal("1.10")
        fine: bool = True
        text: str = "it's :x \" %s ü"
        mood: Mood = Mood.SAD
        tags: list[str] = ["a", "b:c"]  # noqa: RUF012
        meta: dict = {"b": ["it's", None], "a": 1.5}  # noqa: RUF012
        day: date = date(2025, 1, 31)
        at: datetime = datetime(2025, 1, 31, tzinfo=UTC)
        key: uuid.UUID = uuid.UUID(int=7)
        empty: str | None = None
        made: list[int] = Factory(list)

    mine = file_bench.run("ItemCreateNode", name="mine")
    with closing(sqlite3.connect(file_bench.path)) as raw:
        raw.execute("INSERT INTO items (name, made) VALUES ('theirs', '[]')")
        raw.commit()
    theirs = file_bench.run("ItemReadNode", id=2)
    skip = {"id", "name", "created_at", "updated_at", "found"}
    assert {k: v for k, v in theirs.items() if k not in skip} == {k: v for k, v in mine.items() if k not in skip}
    assert abs(theirs["created_at"] - mine["created_at"]).total_seconds() < 60
    assert theirs["created_at"] == theirs["updated_at"]


def test_the_database_itself_refuses_what_does_not_fit(file_bench: Any) -> None:
    @file_bench.db.model
    class Item:
        size: int
        ratio: float
        fine: bool
        mood: Mood
        name: str | None = None

    file_bench.run("ItemCreateNode", size=1, ratio=1.0, fine=True, mood="sad", name="x")
    with closing(sqlite3.connect(file_bench.path)) as raw:
        for change in (
            "size = 'x'",
            "size = 1.5",
            "size = NULL",
            "ratio = 9e999",
            "fine = 2",
            "mood = 'odd'",
            "ratio = 'x'",
        ):
            with pytest.raises(sqlite3.IntegrityError):
                raw.execute(f"UPDATE items SET {change}")


# -- indexes ----------------------------------------------------------------------------------------------------------
def test_indexes_may_be_unique_partial_and_name_added_columns(bench: Any) -> None:
    @bench.db.model
    class Seat:
        room: str
        number: int
        gone: bool = False
        __indexes__ = [  # noqa: RUF012
            {"name": "ix_room", "fields": ["room", "created_at"]},
            {"name": "uq_seat", "fields": ["room", "number"], "unique": True, "where": "NOT gone"},
            IndexSpec("ix_number", ("number",)),
        ]

    bench.run("SeatCreateNode", room="a", number=1, gone=True)
    bench.run("SeatCreateNode", room="a", number=1, gone=True)
    bench.run("SeatCreateNode", room="a", number=1)
    with pytest.raises(WorkflowExecutionError) as caught:
        bench.run("SeatCreateNode", room="a", number=1)
    assert isinstance(caught.value.__cause__, UniqueError)
    present = bench.db.core.ask(bench.db.core.dialect.list_indexes("seats"))
    assert {"ix_number", "ix_room", "uq_seat"} <= set(present)
    with pytest.raises(WorkflowExecutionError, match="is not a unique key"):  # a partial key does not identify
        bench.run("SeatUpsertNode", where={"room": "a", "number": 1})


def test_an_index_that_is_new_is_added_to_an_existing_table(file_bench: Any) -> None:
    @file_bench.db.model
    class Seat:
        room: str

    file_bench.run("SeatCreateNode", room="a")
    file_bench.db.close()
    with DataFlow(f"sqlite:///{file_bench.path}") as db:

        @db.model
        class Seat:  # type: ignore[no-redef]
            room: str
            __indexes__ = [{"name": "uq_room", "fields": ["room"], "unique": True}]  # noqa: RUF012

        with pytest.raises(UniqueError):
            db.express_sync.create("Seat", {"room": "a"})


@pytest.mark.parametrize(
    "index",
    [{"fields": ["a"]}, {"name": "x"}, {"name": "x", "fields": "a"}, {"name": "x", "fields": []}, "x", 3,
     {"name": "x", "fields": ["a"], "uniqe": True}, {"name": "x", "fields": ["b"]}, {"name": 3, "fields": ["a"]},
     {"name": "x", "fields": ["a"], "where": {"a": 1}}, {"name": "x", "fields": ["a"], "where": " "},
     {"name": "x", "fields": ["a"], "unique": "no"}],
)  # fmt: skip
def test_a_faulty_index_is_refused(bench: Any, index: Any) -> None:
    with pytest.raises(ModelError):

        @bench.db.model
        class Odd:
            a: int
            __indexes__ = [index]  # noqa: RUF012


def test_names_of_indexes_and_tables_are_global_whatever_their_case(bench: Any) -> None:
    @bench.db.model
    class One:
        a: int
        __indexes__ = [{"name": "ix", "fields": ["a"]}]  # noqa: RUF012

    with pytest.raises(ModelError) as caught:
        bench.db.model(type("Other", (), {"__annotations__": {"a": int}, "__tablename__": "ONES"}))
    assert caught.value.code == "duplicate-table"
    for name in ("ix", "IX", "ones", "twos"):
        with pytest.raises(ModelError) as caught:

            @bench.db.model
            class Two:
                a: int
                __indexes__ = [{"name": name, "fields": ["a"]}]  # noqa: RUF012

        assert caught.value.code == "duplicate-index"


def test_fields_that_differ_only_in_case_are_refused(bench: Any) -> None:
    with pytest.raises(ModelError, match="the fields 'name' and 'Name' of model Odd differ only in case"):

        @bench.db.model
        class Odd:
            name: str
            Name: str


# -- relations --------------------------------------------------------------------------------------------------------
def test_a_field_named_after_a_model_relates_to_it_in_whatever_order(bench: Any) -> None:
    @bench.db.model
    class OrderLine:
        purchase_order_id: int
        sku_id: str

    @bench.db.model
    class PurchaseOrder:
        name: str

    @bench.db.model
    class Sku:
        id: str

    order = bench.run("PurchaseOrderCreateNode", name="a")
    bench.run("SkuCreateNode", id="s")
    bench.run("OrderLineCreateNode", purchase_order_id=order["id"], sku_id="s")
    record = bench.run("OrderLineReadNode", id=1, include=["purchase_order", "sku"])
    assert (record["purchase_order"]["name"], record["sku"]["id"]) == ("a", "s")
    assert bench.run("SkuReadNode", id="s", include="order_lines")["order_lines"][0]["id"] == 1
    bench.run("OrderLineCreateNode", purchase_order_id=999, sku_id="none")  # no constraint unless declared


def test_a_field_of_another_type_relates_to_nothing(bench: Any) -> None:
    @bench.db.model
    class Customer:
        name: str

    @bench.db.model
    class Visit:
        customer_id: str

    bench.run("VisitCreateNode", customer_id="walk-in")
    with pytest.raises(WorkflowExecutionError, match="has no relation 'customer'"):
        bench.run("VisitListNode", include=["customer"])


def test_two_relations_to_one_model_need_names(bench: Any) -> None:
    @bench.db.model
    class Airport:
        code: str
        __dataflow__ = {"primary_key": "code"}  # noqa: RUF012

    with pytest.raises(ModelError) as caught:

        @bench.db.model
        class Flight:
            origin: Annotated[str, Relation("Airport", name="origin_airport")]
            dest: Annotated[str, Relation("Airport", name="dest_airport")]

    assert caught.value.code == "duplicate-relation"
    assert "reverse='…'" in caught.value.hint

    @bench.db.model
    class Flight:  # type: ignore[no-redef]
        origin: Annotated[str, Relation(Airport, name="origin_airport", reverse="departures")]
        dest: Annotated[str, Relation("Airport", name="dest_airport", reverse="arrivals")]

    bench.run("AirportBulkCreateNode", data=[{"code": "ZRH"}, {"code": "JFK"}])
    bench.run("FlightCreateNode", origin="ZRH", dest="JFK")
    record = bench.run("AirportReadNode", code="ZRH", include=["departures.dest_airport", "arrivals"])
    assert record["departures"][0]["dest_airport"]["code"] == "JFK"
    assert record["arrivals"] == []


def test_a_relation_may_lead_to_another_field_than_the_key(bench: Any) -> None:
    @bench.db.model
    class User:
        email: str

    @bench.db.model
    class Login:
        mail: Annotated[str, Relation("User", name="user", to="email", reverse="logins")]

    bench.run("UserCreateNode", email="a@x")
    bench.run("LoginCreateNode", mail="a@x")
    assert bench.run("LoginReadNode", id=1, include=["user"])["user"]["id"] == 1
    assert len(bench.run("UserReadNode", id=1, include=["logins"])["logins"]) == 1


def test_a_model_may_relate_to_itself(bench: Any) -> None:
    @bench.db.model
    class Folder:
        name: str
        folder_id: Annotated[int | None, ForeignKey("Folder", name="parent", reverse="children")] = None

    bench.run(
        "FolderBulkCreateNode", data=[{"name": "root"}, {"name": "a", "folder_id": 1}, {"name": "b", "folder_id": 2}]
    )
    tree = bench.run("FolderReadNode", id=1, include=["children.children"])
    assert tree["children"][0]["children"][0]["name"] == "b"
    found = bench.run("FolderListNode", filter={"parent.parent.name": "root"})
    assert [record["name"] for record in found["records"]] == ["b"]


def test_models_may_refer_to_each_other(bench: Any) -> None:
    @bench.db.model
    class Team:
        name: str
        lead: Annotated[int | None, ForeignKey("Member", name="leader", reverse="leads")] = None

    @bench.db.model
    class Member:
        name: str
        team_id: Annotated[int | None, ForeignKey("Team", on_delete="set null")] = None

    bench.run("TeamCreateNode", name="core")
    bench.run("MemberCreateNode", name="Ada", team_id=1)
    bench.run("TeamUpdateNode", id=1, lead=1)
    assert bench.run("TeamReadNode", id=1, include=["leader.team", "members"])["leader"]["team"]["name"] == "core"


@pytest.mark.parametrize("action", ["cascade", "set null", "SET_NULL", "restrict", "no action"])
def test_on_delete_is_the_databases_doing(bench: Any, action: str) -> None:
    @bench.db.model
    class Parent:
        name: str = ""

    @bench.db.model
    class Child:
        parent_id: Annotated[int | None, ForeignKey("Parent", on_delete=action)]

    bench.run("ParentCreateNode")
    bench.run("ChildCreateNode", parent_id=1)
    with pytest.raises(WorkflowExecutionError) as caught:
        bench.run("ChildCreateNode", parent_id=2)
    assert isinstance(caught.value.__cause__, ForeignKeyError)
    if action in ("restrict", "no action"):
        with pytest.raises(WorkflowExecutionError) as caught:
            bench.run("ParentDeleteNode", id=1)
        assert isinstance(caught.value.__cause__, ForeignKeyError)
        assert bench.run("ParentCountNode")["count"] == 1
        return
    assert bench.run("ParentDeleteNode", id=1)["deleted"] == 1
    left = [record["parent_id"] for record in bench.run("ChildListNode")["records"]]
    assert left == ([] if action == "cascade" else [None])


def test_foreign_keys_create_tables_in_an_order_that_works(file_bench: Any) -> None:
    @file_bench.db.model
    class C:
        b_id: Annotated[int, ForeignKey("B")]

    @file_bench.db.model
    class B:
        a_id: Annotated[int, ForeignKey("A")]

    @file_bench.db.model
    class A:
        name: str

    file_bench.run("ACreateNode", name="a")
    assert file_bench.db.show_tables() == ["as", "bs", "cs"]
    file_bench.run("BCreateNode", a_id=1)
    file_bench.run("CCreateNode", b_id=1)


def test_a_foreign_key_to_a_model_that_never_came_is_an_error_at_first_use(bench: Any) -> None:
    @bench.db.model
    class Child:
        parent: Annotated[int, ForeignKey("Parnet", name="above", reverse="below")]

    @bench.db.model
    class Parent:
        name: str = ""

    with pytest.raises(ModelError) as caught:
        bench.run("ChildCreateNode", parent=1)
    assert caught.value.message == "Child.parent is a foreign key to model Parnet, which is not registered"
    assert caught.value.hint == "did you mean 'Parent'?"
    assert bench.db.show_tables() == []


# -- existing tables --------------------------------------------------------------------------------------------------
EXISTING = "CREATE TABLE customers (id INTEGER PRIMARY KEY, full_name TEXT, joined TEXT, extra BLOB)"


def test_an_existing_table_is_used_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as raw:
        raw.execute(EXISTING)
        raw.execute("INSERT INTO customers VALUES (5, 'Ada', '2024-01-31', x'00')")
        raw.commit()
        before = list(raw.iterdump())
    with DataFlow(f"sqlite:///{path}", existing_schema_mode=True) as db:

        @db.model
        class Customer:
            full_name: str | None
            joined: date | None
            __dataflow__ = {"timestamps": False}  # noqa: RUF012
            __indexes__ = [{"name": "ix_new", "fields": ["full_name"]}]  # noqa: RUF012

        assert db.express_sync.read("Customer", 5)["joined"] == date(2024, 1, 31)
        with closing(sqlite3.connect(path)) as raw:
            assert list(raw.iterdump()) == before
        assert db.express_sync.create("Customer", {"full_name": "Bob"})["id"] == 6
        assert db.discover_schema()["customers"]["columns"]["extra"]["type"] == "BLOB"


def test_repeated_runs_keep_all_data(tmp_path: Path) -> None:
    for run in (1, 2, 3):
        with DataFlow(f"sqlite:///{tmp_path}/app.db") as db:

            @db.model
            class Note:
                text: str

            assert db.express_sync.create("Note", {"text": "x"})["id"] == run
            assert db.express_sync.count("Note")["count"] == run


def test_without_auto_migrate_an_existing_table_works_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/app.db"

    class Note:
        text: str

    with DataFlow(url) as db:
        db.model(Note)
        db.express_sync.create("Note", {"text": "x"})
    with DataFlow(url, auto_migrate=False) as db:
        db.model(Note)

        @db.model
        class Other:
            text: str

        assert db.express_sync.count("Note")["count"] == 1
        with pytest.raises(SchemaError, match="the table 'others' of model Other does not exist"):
            db.express_sync.count("Other")
        assert db.show_tables() == ["notes"]


def test_plain_enums_are_stored_by_value_or_by_name(bench: Any) -> None:
    class Number(Enum):
        ONE = 1
        TWO = 2

    @bench.db.model
    class Pick:
        mood: Mood
        number: Number

    bench.run("PickCreateNode", mood=Mood.GLAD, number=Number.TWO)
    assert bench.sql("SELECT mood, number FROM picks") == [{"mood": "glad", "number": "TWO"}]
    record = bench.run("PickReadNode", id=1)
    assert (record["mood"], record["number"]) == (Mood.GLAD, Number.TWO)


def test_an_enum_may_be_a_key(bench: Any) -> None:
    class Zone(Enum):
        NORTH = "n"
        SOUTH = "s"
        EAST = "e"

    @bench.db.model
    class Region:
        zone: Zone
        size: int = 0
        __dataflow__ = {"primary_key": "zone"}  # noqa: RUF012

    bench.run("RegionBulkCreateNode", data=[{"zone": "s"}, {"zone": Zone.NORTH}, {"zone": "e"}])
    assert bench.run("RegionUpdateNode", conditions={"size": 0}, size=1)["zone"] is Zone.EAST
    changed = bench.run("RegionBulkUpdateNode", filter={}, update={"size": 2}, return_ids=True)
    assert changed["ids"] == [Zone.EAST, Zone.NORTH, Zone.SOUTH]
    page = bench.run("RegionListNode", limit=2)
    rest = bench.run("RegionListNode", limit=2, cursor=page["next_cursor"])
    assert [r["zone"] for r in page["records"] + rest["records"]] == [Zone.EAST, Zone.NORTH, Zone.SOUTH]
    gone = bench.run("RegionDeleteNode", conditions={"size": 2})
    assert (gone["deleted"], gone["zone"], gone["id"]) == (3, Zone.EAST, Zone.EAST)


def test_a_decimal_key_is_ordered_by_value(bench: Any) -> None:
    @bench.db.model
    class Step:
        at: Decimal
        lines: list[str] = []  # noqa: RUF012
        __dataflow__ = {"primary_key": "at"}  # noqa: RUF012

    values = [Decimal(10), Decimal("9.5"), Decimal(-1)]
    bench.run("StepBulkCreateNode", data=[{"at": value} for value in values])
    assert [r["at"] for r in bench.run("StepListNode")["records"]] == sorted(values)
    params = {"filter": {"at": {"$gt": -5}}, "limit": 2, "return_ids": True}
    assert bench.run("StepBulkDeleteNode", params)["ids"] == [Decimal(-1), Decimal("9.5")]


def test_an_id_that_is_none_is_given_by_the_database(bench: Any) -> None:
    @bench.db.model
    class Note:
        id: int | None = None
        text: str = ""

    assert bench.run("NoteCreateNode", text="a")["id"] == 1
    assert bench.run("NoteCreateNode", id=None)["id"] == 2
    assert bench.late("NoteCreateNode", {"values": {"id": None}})["id"] == 3
    assert bench.run("NoteBulkCreateNode", data=[{"id": None}, {}], return_ids=True)["ids"] == [4, 5]


def test_a_model_may_be_nothing_but_its_key(bench: Any) -> None:
    @bench.db.model
    class Mark:
        id: int
        __dataflow__ = {"timestamps": False}  # noqa: RUF012

    assert bench.run("MarkCreateNode") == {"id": 1}
    assert bench.run("MarkBulkCreateNode", data=[{}, {}], return_ids=True)["ids"] == [2, 3]
    assert bench.run("MarkUpsertNode", where={"id": 2})["created"] is False
    assert bench.run("MarkBulkUpsertNode", data=[{"id": 3}, {"id": 9}])["created"] == 1


def test_a_foreign_key_leads_to_a_unique_field(bench: Any) -> None:
    @bench.db.model
    class Country:
        code: str
        name: str
        __indexes__ = [{"name": "uq_countries", "fields": ["code"], "unique": True}]  # noqa: RUF012

    @bench.db.model
    class City:
        country: Annotated[str, ForeignKey("Country", to="code", name="land", reverse="cities")]

    bench.run("CountryCreateNode", code="CH", name="Schweiz")
    assert bench.run("CityCreateNode", country="CH")["id"] == 1
    with pytest.raises(WorkflowExecutionError):
        bench.run("CityCreateNode", country="XX")
    with pytest.raises(ModelError, match=r"refers to Country\.name, which is not a unique key"):

        @bench.db.model
        class Town:
            country: Annotated[str, ForeignKey("Country", to="name", name="land", reverse="towns")]


def test_a_relation_to_a_composite_key_needs_a_field(bench: Any) -> None:
    @bench.db.model
    class Seat:
        row: int
        letter: str
        __dataflow__ = {"primary_key": ["row", "letter"]}  # noqa: RUF012

    @bench.db.model
    class Claim:
        seat_id: int  # relates to nothing: the key has two parts

    bench.run("ClaimCreateNode", seat_id=1)
    with pytest.raises(ModelError, match="relates to Seat, which has no single field as key"):

        @bench.db.model
        class Ticket:
            seat: Annotated[int, Relation("Seat", name="place")]
