"""Models as data: what one process registered, another one gets back, whatever the declaration holds."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from types import GenericAlias
from typing import Annotated, Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow import DataFlow, Factory, Field, ForeignKey, Relation
from dataflow.migrations import existing as own
from dataflow.migrations.registry import dump, restore
from dataflow.model import ModelSpec
from dataflow.plugins import FieldTypeSpec, hookimpl
from dataflow.types import ArrayType, EnumType, StrType


class Color(Enum):
    RED = "red"
    GREEN = "light green"
    ALSO_RED = "red"  # noqa: PIE796  # an alias


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Kind(StrEnum):
    A = "a"


@pytest.fixture
def db() -> Iterator[DataFlow]:
    with DataFlow(":memory:") as opened:
        yield opened


def kept(db: DataFlow, *names: str) -> dict[str, dict[str, Any]]:
    """Return the entries of models, as they come back from a table."""
    entries = {name: dump(db.get_spec(name), db.core.plugins, db.get_model(name)) for name in names or db.list_models()}
    return json.loads(json.dumps(entries))


def comparable(spec: ModelSpec) -> dict[str, Any]:
    """Return a spec with its Enum classes, which each process builds for itself, as what they hold."""

    def plain(value: Any) -> Any:
        if isinstance(value, ArrayType):
            return ["list", plain(value.item)]
        if isinstance(value, EnumType):
            return (value.enum.__name__, [(name, its.value) for name, its in value.enum.__members__.items()])
        return value.name if isinstance(value, Enum) else value

    fields = {
        name: (plain(f.type), f.nullable, repr(plain(f.default)), f.generated, f.origin, f.relation, f.write, f.kept)
        for name, f in spec.fields.items()
    }
    whole = (spec.name, spec.table, spec.primary_key, spec.indexes, dict(spec.options), spec.doc, spec.unique_keys)
    return {"fields": fields, "order": list(fields), "whole": whole}


def test_a_model_comes_back_equal_with_all_it_declares(db: DataFlow) -> None:
    @db.model
    class Customer:
        """Who buys.

        With more:
            indented
        """

        __tablename__ = "clients"
        __indexes__ = [
            {"name": "uq_mail", "fields": ["email"], "unique": True},
            {"name": "some", "fields": ["name", "created_at"], "where": "name <> ''"},
        ]

        email: Annotated[str, Field(renamed_from="mail")]
        name: str | None
        color: Color = Color.GREEN
        colors: list[Color] | None
        level: Level = Level.HIGH
        kind: Kind | None = Kind.A
        price: Decimal = Decimal("1.10")
        at: datetime = datetime(2025, 1, 31, tzinfo=UTC)
        day: date = date(2025, 1, 31)
        clock: time = time(12)
        key: UUID = UUID(int=7)
        raw: bytes = b"\0\xff"
        note: Any = {"$type": "x", "a": [1, None]}
        numbers: list[int] = [1, 2]
        flag: bool = False

    @db.model
    class Order:
        __dataflow__ = {"primary_key": ["code"], "timestamps": False}

        code: str
        customer_id: Annotated[int, ForeignKey("Customer", on_delete="cascade", reverse="bought")]
        other: Annotated[int | None, Relation("Customer", name="friend", reverse="friends")]

    entries = kept(db)
    with DataFlow(":memory:") as again:
        answer = restore(again.core, entries)
        assert answer["reconstructed_models"] == ["Customer", "Order"]
        assert answer["generated_nodes"]["Order"]["create"] == "OrderCreateNode"
        assert answer["skipped"] == {}
        for name in entries:
            assert comparable(again.get_spec(name)) == comparable(db.get_spec(name))
        assert kept(again) == entries
        assert sorted(again.core.models["Customer"].relations) == ["bought", "friends"]
        made = again.express_sync.create(
            "Customer", {"email": "a", "colors": [again.get_spec("Customer")]} | {"colors": None}
        )
        assert (made["color"].value, made["price"], made["note"]) == (
            "light green",
            Decimal("1.1"),
            {"$type": "x", "a": [1, None]},
        )


def test_a_default_that_a_function_computes_stays_behind_and_is_named(db: DataFlow) -> None:
    @db.model
    class Note:
        tags: list[str] = Factory(list)
        text: str

    with DataFlow(":memory:") as again:
        answer = restore(again.core, kept(db))
        assert answer["reconstructed_models"] == ["Note"]
        assert list(answer["skipped"]) == ["Note.tags"]
        assert "list()" in answer["skipped"]["Note.tags"]
        assert again.get_spec("Note").fields["tags"].required


def test_options_of_features_come_back_with_the_fields_they_add(db: DataFlow) -> None:
    @db.model
    class Page:
        __dataflow__ = {"soft_delete": True, "versioned": True}
        __indexes__ = [{"name": "by_title", "fields": ["title"]}]
        title: str

    with DataFlow(":memory:") as again:
        restore(again.core, kept(db))
        assert comparable(again.get_spec("Page")) == comparable(db.get_spec("Page"))


def test_a_registered_model_stays_as_it_is_and_the_others_are_restored(db: DataFlow) -> None:
    db.model(type("A", (), {"__annotations__": {"x": int}}))
    db.model(type("B", (), {"__annotations__": {"x": int}}))
    with DataFlow(":memory:") as again:
        again.model(type("A", (), {"__annotations__": {"y": str}}))
        answer = restore(again.core, kept(db))
        assert answer["reconstructed_models"] == ["B"]
        assert answer["skipped"] == {"A": "a model of this name is registered already"}
        assert "y" in again.get_spec("A").fields


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 99}, "later version"),
        ({"fields": [{"name": "x", "type": {"kind": "vector"}, "nullable": False}]}, "no field type 'vector'"),
        ({"fields": [{"name": "x"}]}, "cannot be read: KeyError"),
        ({"options": {"no_such": True}}, "no model option 'no_such'"),
        ({"table": "dataflow_x"}, "reserved"),
    ],
)
def test_an_entry_that_cannot_be_restored_is_skipped_with_the_reason(
    db: DataFlow, change: dict[str, Any], reason: str
) -> None:
    db.model(type("A", (), {"__annotations__": {"x": int}}))
    db.model(type("B", (), {"__annotations__": {"x": int}}))
    entries = kept(db)
    entries["A"] |= change
    with DataFlow(":memory:") as again:
        answer = restore(again.core, entries)
        assert answer["reconstructed_models"] == ["B"]
        assert reason in answer["skipped"]["A"]


class Slug:
    """What users write as annotation."""


class SlugType(StrType):
    """A field type of a plugin."""


class Plugin:
    """A plugin with a field type."""

    dataflow_api = "1.0"

    @hookimpl
    def dataflow_field_types(self) -> list[FieldTypeSpec]:
        return [FieldTypeSpec("slug", "registry_types:Slug", "registry_types:SlugType")]


def test_a_type_of_a_plugin_comes_back_where_the_plugin_is_active(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "registry_types", sys.modules[__name__])
    plugin = Plugin()
    with DataFlow(":memory:", plugins=[plugin]) as first:
        first.model(type("A", (), {"__annotations__": {"x": Slug, "many": GenericAlias(list, (Slug,))}}))
        entries = kept(first)
    with DataFlow(":memory:", plugins=[plugin]) as again:
        assert restore(again.core, entries)["reconstructed_models"] == ["A"]
        assert again.get_spec("A").fields["x"].type == SlugType()
    with DataFlow(":memory:") as without:
        assert "no active plugin knows the field type" in restore(without.core, entries)["skipped"]["A"]


def test_what_has_no_name_is_kept_as_the_reason_for_it(db: DataFlow) -> None:
    class NamelessType(StrType):
        pass

    db.model(type("A", (), {"__annotations__": {"x": own.Stored(NamelessType())}}))
    entries = kept(db)
    assert "fields" not in entries["A"]
    with DataFlow(":memory:") as again:
        assert "could not be kept" in restore(again.core, entries)["skipped"]["A"]


# -- any model ------------------------------------------------------------------------------------------------------
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("aé", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "$type", "b c"]), inner, max_size=2)
    ),
    max_leaves=4,
)
_TEXT = st.text("aé \n'\"\\漢🎉", max_size=5)
_VALUES: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    str: _TEXT,
    bool: st.booleans(),
    bytes: st.binary(max_size=4),
    datetime: st.datetimes(timezones=st.just(UTC)).map(lambda value: value.replace(fold=0)),
    date: st.dates(),
    time: st.times().map(lambda value: value.replace(fold=0)),
    Decimal: st.decimals(allow_nan=False, allow_infinity=False, places=3),
    UUID: st.uuids(),
    Any: _JSON.filter(lambda value: value is not None),
    Color: st.sampled_from(Color),
    Level: st.sampled_from(Level),
    Kind: st.sampled_from(Kind),
}
_STORED = [
    own.Stored(kind)
    for kind in (
        own.SingleType(),
        own.PaddedType(),
        own.ScaledType(2),
        own.NumberType(),
        own.DocumentType(),
        own.TimestampType(),
        own.WholeType("integer"),
        own.TextType("character varying"),
        own.NativeEnumType(Color, "mood"),
        own.InstantTextType(),
        own.TimeTextType(),
    )
]


@st.composite
def field(draw: st.DrawFn) -> tuple[Any, Any]:
    """Draw (annotation, default or ...)."""
    kind = draw(st.sampled_from([*_VALUES, *_STORED]))
    nullable = draw(st.booleans())
    if isinstance(kind, own.Stored):
        return kind, None if nullable else ...
    listed = kind is not Any and draw(st.booleans())
    values = st.lists(_VALUES[kind], max_size=2) if listed else _VALUES[kind]
    default = draw(st.just(...) | values | (st.none() if nullable else st.nothing()))
    annotation = GenericAlias(list, (kind,)) if listed else kind
    return (annotation | None if nullable and annotation is not Any else annotation), default


@st.composite
def model(draw: st.DrawFn) -> type:
    """Draw a model class."""
    names = draw(st.lists(st.sampled_from(["id", "a", "b c", "ü", "select", "created_at", "x_id", "Q"]), unique=True))
    names = names or ["a"]
    annotations: dict[str, Any] = {}
    body: dict[str, Any] = {
        "__annotations__": annotations,
        "__doc__": draw(st.none() | _TEXT | st.just("A\n\n    b\n      c\n")),
    }
    for name in names:
        annotations[name], default = draw(field())
        if default is not ...:
            body[name] = default
    options: dict[str, Any] = draw(st.fixed_dictionaries({}, optional={"timestamps": st.booleans()}))
    if draw(st.booleans()):
        annotations["key"] = draw(st.sampled_from([int, str, UUID, date]))
        options["primary_key"] = draw(st.sampled_from(["key", ["key"]]))
    elif annotations.get("id") not in (None, int, str, UUID):
        annotations["id"] = int
        body.pop("id", None)
    if draw(st.booleans()):
        fields = draw(st.lists(st.sampled_from(sorted(annotations)), unique=True, min_size=1))
        body["__indexes__"] = [{"name": "an index", "fields": fields, "unique": draw(st.booleans())}]
    body["__dataflow__"] = options
    return type("Thing", (), body)


@given(model())
def test_any_model_comes_back_as_it_was(cls: type) -> None:
    with DataFlow(":memory:") as first, DataFlow(":memory:") as again:
        first.model(cls)
        entries = kept(first)
        assert restore(again.core, entries)["reconstructed_models"] == ["Thing"]
        assert comparable(again.get_spec("Thing")) == comparable(first.get_spec("Thing"))
        assert kept(again) == entries
