"""Related records: `include`, foreign keys and what deleting does to them."""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import pytest

from dataflow import DataFlow, ForeignKey, Relation
from dataflow.errors import ForeignKeyError, InputError
from dataflow.testing.conformance.bench import Bench, keys_of
from dataflow.testing.conformance.suite import Suite, requires


class TestInclude(Suite):
    """Related records come along, one query per relation."""

    conformance_area: ClassVar[str] = "relations"
    reads_only: ClassVar[bool] = True

    @classmethod
    def declare(cls, db: DataFlow) -> None:
        @db.model
        class Writer:
            name: str

        @db.model
        class House:
            id: str
            city: str

        @db.model
        class Novel:
            title: str
            writer_id: int | None = None
            house_id: str | None = None

        @db.model
        class Critique:
            novel_id: int
            stars: int
            critic: Annotated[int | None, Relation("Writer", name="written_by", reverse="critiques_written")] = None

    @classmethod
    def fill(cls, bench: Bench) -> None:
        bench.bulk_create(
            "Writer", [{"id": 1, "name": "Le Guin"}, {"id": 2, "name": "Lem"}, {"id": 3, "name": "Nobody"}]
        )
        bench.bulk_create("House", [{"id": "ace", "city": "New York"}, {"id": "lit", "city": "Kraków"}])
        bench.bulk_create("Novel", [
            {"id": 1, "title": "The Dispossessed", "writer_id": 1, "house_id": "ace"},
            {"id": 2, "title": "Solaris", "writer_id": 2, "house_id": "lit"},
            {"id": 3, "title": "Lavinia", "writer_id": 1},
            {"id": 4, "title": "Orphan", "writer_id": 99},
            {"id": 5, "title": "Anonymous"},
        ])  # fmt: skip
        bench.bulk_create("Critique", [
            {"id": 9, "novel_id": 1, "stars": 3}, {"id": 2, "novel_id": 1, "stars": 5, "critic": 2},
            {"id": 3, "novel_id": 2, "stars": 4},
        ])  # fmt: skip

    def test_one_many_and_nested_relations_come_along_in_key_order(self, calls: Bench) -> None:
        include = ["novels.critiques.written_by", "novels.house", "critiques_written"]
        le_guin, lem, nobody = calls.list("Writer", include=include)["records"]
        assert [novel["title"] for novel in le_guin["novels"]] == ["The Dispossessed", "Lavinia"]
        assert [critique["stars"] for critique in le_guin["novels"][0]["critiques"]] == [5, 3]
        assert le_guin["novels"][0]["critiques"][0]["written_by"]["name"] == "Lem"
        assert le_guin["novels"][0]["critiques"][1]["written_by"] is None
        assert (le_guin["novels"][0]["house"]["city"], le_guin["novels"][1]["house"]) == ("New York", None)
        assert [critique["stars"] for critique in lem["critiques_written"]] == [5]
        assert nobody["novels"] == nobody["critiques_written"] == []

    def test_a_relation_that_leads_to_nothing_is_none(self, calls: Bench) -> None:
        page = calls.list("Novel", {"id": {"$gte": 4}}, include="writer")
        assert [record["writer"] for record in page["records"]] == [None, None]

    def test_a_projection_hides_the_columns_an_include_needs(self, calls: Bench) -> None:
        record = calls.read("Novel", 1, fields=["title"], include=["writer"])
        assert set(record) == {"title", "writer", "found"}
        assert record["writer"]["name"] == "Le Guin"

    @requires("shared_database")
    def test_an_include_reads_once_per_relation(self, bench: Bench) -> None:
        with bench.another(monitoring=True) as other:
            other.list("Novel", include=["writer", "critiques"])
            before = other.db.stats()["statements"]
            other.list("Novel", include=["writer", "critiques"])
            assert other.db.stats()["statements"] - before == 3

    def test_an_unknown_relation_is_refused_with_what_was_meant(self, calls: Bench) -> None:
        with pytest.raises(InputError, match="'writter'") as caught:
            calls.list("Novel", include=["writter"])
        assert "writer" in str(caught.value)


@requires("foreign_keys")
class TestForeignKeys(Suite):
    """Constraints between tables."""

    conformance_area: ClassVar[str] = "relations"

    @classmethod
    def declare(cls, db: DataFlow) -> None:
        @db.model
        class Team:
            name: str

        @db.model
        class Player:
            name: str
            team_id: Annotated[int, ForeignKey("Team")]

    @pytest.fixture
    def team(self, bench: Bench) -> int:
        """The id of a team with one player."""
        team = bench.create("Team", {"name": "Reds"})["id"]
        bench.create("Player", {"name": "Ada", "team_id": team})
        return int(team)

    def test_a_reference_to_nothing_is_refused_everywhere(self, calls: Bench, team: int) -> None:
        attempts: list[Callable[[], Any]] = [
            lambda: calls.create("Player", {"name": "Bob", "team_id": -1}),
            lambda: calls.bulk_create("Player", [{"name": "Bob", "team_id": team}, {"name": "Cy", "team_id": -1}]),
            lambda: calls.bulk_update("Player", filter={}, update={"team_id": -1}),
            lambda: calls.call("update", "Player", conditions={"name": "Ada"}, team_id=-1),
        ]
        for attempt in attempts:
            with pytest.raises(ForeignKeyError) as caught:
                attempt()
            assert caught.value.code == "foreign-key"
        assert keys_of(calls.list("Player"), "team_id") == [team]

    def test_what_is_referred_to_stays_unless_declared_otherwise(self, calls: Bench, team: int) -> None:
        with pytest.raises(ForeignKeyError):
            calls.delete("Team", team)
        with pytest.raises(ForeignKeyError):
            calls.bulk_delete("Team", filter={"id": team})
        assert calls.count("Team") == {"count": 1}

    def test_bad_rows_of_a_bulk_say_which_reference(self, calls: Bench, team: int) -> None:
        rows: list[dict[str, Any]] = [{"name": "Bob", "team_id": team}, {"name": "Cy", "team_id": -1}]
        made = calls.bulk_create("Player", rows, on_error="collect")
        assert (made["created"], made["skipped"]) == (1, 1)
        assert [(error["row"], error["code"]) for error in made["errors"]] == [(1, "foreign-key")]


@requires("foreign_keys", "foreign_key_actions")
class TestForeignKeyActions(Suite):
    """What deleting a record does to those that refer to it."""

    conformance_area: ClassVar[str] = "relations"

    @classmethod
    def declare(cls, db: DataFlow) -> None:
        @db.model
        class Crew:
            name: str
            __tablename__ = "action_crews"

        @db.model
        class Sailor:
            name: str
            crew_id: Annotated[int, ForeignKey("Crew")]
            __tablename__ = "action_sailors"

        @db.model
        class Voyage:
            home: Annotated[
                int | None, ForeignKey("Crew", name="home_crew", reverse="voyages", on_delete="set null")
            ] = None
            __tablename__ = "action_voyages"

        @db.model
        class Badge:
            sailor_id: Annotated[int, ForeignKey("Sailor", on_delete="cascade")]
            parent_id: Annotated[int | None, ForeignKey("Badge", reverse="children", on_delete="cascade")] = None
            __tablename__ = "action_badges"

    def test_deleting_cascades_where_declared(self, calls: Bench) -> None:
        crew = calls.create("Crew", {"name": "Reds"})["id"]
        sailor = calls.create("Sailor", {"name": "Ada", "crew_id": crew})["id"]
        badge = calls.create("Badge", {"sailor_id": sailor})["id"]
        calls.create("Badge", {"sailor_id": sailor, "parent_id": badge})
        assert calls.bulk_delete("Sailor", filter={"crew": {"name": "Reds"}}) == {"deleted": 1}
        assert calls.count("Badge") == {"count": 0}

    def test_deleting_sets_null_where_declared(self, calls: Bench) -> None:
        crew = calls.create("Crew", {"name": "Reds"})["id"]
        calls.create("Voyage", {"home": crew})
        assert calls.delete("Crew", crew)["deleted"] == 1
        assert keys_of(calls.list("Voyage"), "home") == [None]
