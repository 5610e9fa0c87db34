"""Every type gives back exactly what was stored, along every way in and every way out; the rest is refused."""

from collections.abc import Iterable
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import Any, ClassVar
from uuid import UUID

import pytest

from dataflow.errors import DatabaseError, InputError
from dataflow.testing.conformance.bench import WAYS, Bench, keys_of
from dataflow.testing.conformance.suite import Suite, requires
from dataflow.testing.conformance.values import KINDS, Color, Kind, exactly


def each_kind(names: Iterable[str]) -> pytest.MarkDecorator:
    """Run a test once per kind of field, under the capability that it falls under."""
    params = [pytest.param(name, marks=requires(KINDS[name].capability)) for name in names]
    return pytest.mark.parametrize("model", params)


class TestTypes(Suite):
    """One table per type; everything that can be stored, sorted, or must be refused."""

    conformance_area: ClassVar[str] = "types"
    reads_only: ClassVar[bool] = True  # each test empties its own table

    @pytest.fixture
    def kind(self, bench: Bench, model: str) -> Kind:
        """The kind of the test, with its model registered."""
        kind = KINDS[model]
        if model not in bench.db.models:
            unique = {"name": f"uq_{model.lower()}_key", "fields": ["key"], "unique": True}
            fields = {"key": str, "value": kind.annotation, "maybe": kind.annotation | None}
            bench.register(model, fields, __tablename__=f"kind_{model.lower()}", __indexes__=[unique], maybe=None)
        return kind

    @each_kind(KINDS)
    def test_a_value_comes_back_the_same_along_every_way_and_none_is_null(
        self, bench: Bench, kind: Kind, model: str
    ) -> None:
        start = kind.values[1]
        for given, expected in kind.pairs:
            bench.clear(model)
            one = {"value": given, "maybe": given}
            answers = [bench.by(way).create(model, {"key": way, **one}) for way in WAYS]
            rows = [{"key": "bulk", **one}]
            rows += [
                {"key": key, "value": start} for key in ("update", "set", "filter", "row", "upsert", "bulk_upsert")
            ]
            ids = bench.bulk_create(model, rows, return_ids=True)["ids"]
            answers += [bench.update(model, ids[1], one), bench.update(model, ids[2], {"$set": one})]
            changes = {"value": {"$set": given}, "maybe": {"$set": given}}
            bench.bulk_update(model, filter={"key": "filter"}, update=changes)
            bench.bulk_update(model, data=[{"id": ids[4], "value": given, "maybe": given}])
            answers += [bench.upsert(model, {"key": key}, create=one) for key in ("upsert", "new upsert")]
            bench.bulk_upsert(model, [{"key": key, **one} for key in ("bulk_upsert", "new bulk_upsert")], ["key"])
            answers += [bench.by(way).read(model, ids[0]) for way in WAYS]
            answers += bench.list(model)["records"] + bench.by("async workflow").list(model)["records"]
            assert len(answers) == 4 + 2 + 2 + 4 + 13 + 13
            wrong = {row["key"]: row["value"] for row in answers if exactly(row["value"]) != exactly(expected)}
            wrong |= {row["key"]: row["maybe"] for row in answers if exactly(row["maybe"]) != exactly(expected)}
            assert wrong == {}
            for question in ({"value": {"$eq": given}}, {"value": {"$in": [given]}}, {"maybe": {"$nin": [None]}}):
                assert bench.count(model, question)["count"] == 13
            assert bench.count(model, {"value": {"$ne": given}})["count"] == 0
        bench.create(model, {"key": "none", "value": start, "maybe": None})
        bench.bulk_create(model, [{"key": "left out", "value": start}, {"key": "set none", **one}])
        bench.bulk_update(model, filter={"key": "set none"}, update={"maybe": None})
        assert keys_of(bench.list(model, {"maybe": None}), "key") == ["none", "left out", "set none"]
        assert [row["maybe"] for row in bench.list(model, {"maybe": {"$null": True}})["records"]] == [None] * 3

    @each_kind(name for name, kind in KINDS.items() if kind.refused)
    def test_what_does_not_fit_is_refused_on_every_way_in_and_nothing_is_written(
        self, bench: Bench, kind: Kind, model: str
    ) -> None:
        bench.clear(model)
        good = kind.values[0]
        first = bench.create(model, {"key": "first", "value": good})
        before = bench.list(model)["records"]
        for bad in kind.refused:
            rows = [{"key": "good", "value": good}, {"key": "first", "value": bad}]
            attempts = {
                "create": partial(bench.create, model, {"key": "bad", "value": bad}),
                "node": partial(bench.by("async workflow").create, model, {"key": "bad", "value": bad}),
                "bulk_create": partial(bench.bulk_create, model, rows),
                "update": partial(bench.update, model, first["id"], {"key": "changed", "value": bad}),
                "bulk_update": partial(bench.bulk_update, model, filter={}, update={"value": {"$set": bad}}),
                "upsert": partial(bench.upsert, model, {"key": "first"}, create={"value": bad}),
                "bulk_upsert": partial(bench.bulk_upsert, model, rows, ["key"]),
            }
            for attempt in attempts.values():
                with pytest.raises(InputError, match="value") as caught:
                    attempt()
                if isinstance(bad, str) and len(bad) > 9:
                    assert bad not in str(caught.value)
        assert bench.list(model)["records"] == before

    @each_kind(name for name, kind in KINDS.items() if kind.ordered)
    def test_values_are_sorted_and_compared_by_their_order(self, bench: Bench, kind: Kind, model: str) -> None:
        bench.clear(model)
        rows = [{"key": str(place), "value": value} for place, value in enumerate(kind.ordered)]
        bench.bulk_create(model, [*rows[1::2], *rows[0::2]])
        keys = [row["key"] for row in rows]
        assert keys_of(bench.list(model, sort="value"), "key") == keys
        assert keys_of(bench.list(model, sort="-value"), "key") == keys[::-1]
        for place, value in enumerate(kind.ordered if model != "Bool" else ()):  # bools are sorted, not compared
            assert keys_of(bench.list(model, {"value": {"$lt": value}}, sort="value"), "key") == keys[:place]
            assert keys_of(bench.list(model, {"value": {"$gte": value}}, sort="value"), "key") == keys[place:]
        seen: list[str] = []
        cursor = None
        while len(seen) <= len(keys):
            page = bench.list(model, sort="-value", limit=2, cursor=cursor)
            seen += keys_of(page, "key")
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert seen == keys[::-1]
        if model != "Bool":
            between = {"value": {"$between": [kind.ordered[0], kind.ordered[1]]}}
            assert keys_of(bench.list(model, between, sort="value"), "key") == keys[:2]
            extremes = bench.aggregate(model, aggregate={"low": {"$min": "value"}, "high": {"$max": "value"}})["groups"]
            expected = [restored_of(bench, model, keys[0]), restored_of(bench, model, keys[-1])]
            assert exactly(list(extremes[0].values())) == exactly(expected)
        groups = bench.aggregate(model, group_by=["value"], aggregate={"n": {"$count": "*"}})["groups"]
        assert exactly([group["value"] for group in groups]) == exactly(
            [row["value"] for row in bench.list(model, sort="value")["records"]]
        )


def restored_of(bench: Bench, model: str, key: str) -> Any:
    """Return the value stored under a key."""
    return bench.list(model, {"key": key})["records"][0]["value"]


class TestDefaults(Suite):
    """Defaults of the class stand in the table as well, so that rows written by others get them."""

    conformance_area: ClassVar[str] = "types"
    reads_only: ClassVar[bool] = True  # each test has its own table
    DEFAULTS: ClassVar[dict[str, tuple[str, Any, Any]]] = {
        "int": ("int64", int, -4),
        "float": ("int64", float, 0.1),
        "text": ("text", str, 'it\'s :a "%" \\ ${x} Ü'),
        "bool": ("bool", bool, True),
        "bytes": ("bytes", bytes, b"\x00\xff'"),
        "instant": ("instants", datetime, datetime.fromisoformat("2024-02-29T12:00:00.000001+00:00")),
        "date": ("dates", date, date(2024, 2, 29)),
        "time": ("dates", time, time(23, 59, 59, 1)),
        "decimal": ("decimal", Decimal, Decimal("19.990000000000000001")),
        "uuid": ("uuid", UUID, UUID(int=2**127)),
        "enum": ("enum", Color, Color.QUOTED),
        "json": ("json", dict, {"a": ["it's", {"b": None}], "ö": 1.5}),
        "json list": ("json", list, []),
        "texts": ("arrays", list[str], ["it's", ""]),
        "no texts": ("arrays", list[str], []),
        "decimals": ("arrays", list[Decimal], [Decimal("0.1")]),
    }

    @pytest.mark.parametrize(
        "name", [pytest.param(name, marks=requires(found[0], "raw_sql")) for name, found in DEFAULTS.items()]
    )
    def test_a_row_written_by_others_gets_the_default_and_the_timestamps(self, bench: Bench, name: str) -> None:
        _, annotation, default = self.DEFAULTS[name]
        table = f"default_{name.replace(' ', '_')}"
        bench.register(f"Default{name.title().replace(' ', '')}", {"name": str, "field": annotation},
                       __tablename__=table, field=default)  # fmt: skip
        model = bench.db.list_models()[-1]
        bench.create(model, {"name": "ours"})
        bench.sql(f'INSERT INTO "{table}" ("name") VALUES (:name)', {"name": "theirs"})
        ours, theirs = bench.list(model)["records"]
        assert (ours["name"], theirs["name"]) == ("ours", "theirs")
        assert exactly(ours["field"]) == exactly(theirs["field"]) == exactly(default)
        assert theirs["id"] > ours["id"]
        assert abs((theirs["created_at"] - ours["created_at"]).total_seconds()) < 3600
        assert theirs["updated_at"].tzinfo is not None

    @requires("enum", "raw_sql")
    def test_an_enum_field_refuses_other_text_from_others_too(self, bench: Bench) -> None:
        bench.register("Painted", {"name": str, "color": Color}, __tablename__="default_painted")
        bench.create("Painted", {"name": "ours", "color": Color.RED})
        with pytest.raises(DatabaseError):
            bench.sql("INSERT INTO default_painted (name, color) VALUES ('theirs', 'GREEN')")
        assert [isinstance(row["color"], Enum) for row in bench.list("Painted")["records"]] == [True]
