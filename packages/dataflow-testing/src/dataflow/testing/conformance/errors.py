"""Errors: one class, code and text on every database, the place, a hint, and never a value."""

import json
import pickle
import traceback
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Annotated, Any, ClassVar

import pytest

from dataflow import DataFlow, ForeignKey
from dataflow.errors import (
    CheckError,
    DataFlowError,
    ForeignKeyError,
    InputError,
    NotFoundError,
    NotNullError,
    QueryError,
    UniqueError,
    WorkflowBuildError,
    WorkflowExecutionError,
)
from dataflow.testing.conformance.bench import WAYS, Bench
from dataflow.testing.conformance.suite import Suite, requires

SECRET = "Lovelace-4711"  # noqa: S105  # a value that no message may hold
TAKEN_HINT = "use another value, an UpsertNode, or conflict_resolution='skip'"


class Grade(Enum):
    """A field that the database checks."""

    GOOD = "good"


class TestErrors(Suite):
    """What goes wrong says so the same way everywhere."""

    conformance_area: ClassVar[str] = "errors"

    @classmethod
    def declare(cls, db: DataFlow) -> None:
        @db.model
        class Part:
            sku: str
            shelf: str = "s"
            row: int = 1
            grade: Grade = Grade.GOOD
            __indexes__: ClassVar = [
                {"name": "uq_parts_sku", "fields": ["sku"], "unique": True},
                {"name": "uq_parts_place", "fields": ["shelf", "row"], "unique": True},
            ]

        @db.model
        class Cell:
            x: int
            y: int
            __dataflow__: ClassVar = {"primary_key": ["x", "y"]}

        @db.model
        class Bolt:
            part_id: Annotated[int, ForeignKey("Part")]

    @pytest.fixture
    def part(self, bench: Bench, clean: None) -> int:
        """The id of a part whose keys are taken."""
        del clean
        return int(bench.create("Part", {"sku": SECRET, "shelf": SECRET, "row": 7})["id"])

    def test_a_taken_key_is_named_the_same_way_by_every_call(self, calls: Bench, part: int) -> None:
        other = calls.create("Part", {"sku": "other", "row": 2})["id"]
        attempts: list[tuple[Callable[[], Any], str]] = [
            (lambda: calls.create("Part", {"sku": SECRET}), "sku"),
            (lambda: calls.create("Part", {"sku": "x", "shelf": SECRET, "row": 7}), "shelf, row"),
            (lambda: calls.create("Part", {"id": part, "sku": "x"}), "id"),
            (lambda: calls.upsert("Part", {"id": -1}, {"sku": SECRET}), "sku"),
        ]
        attempts += [
            (lambda: calls.update("Part", other, {"sku": SECRET}), "sku"),
            (lambda: calls.bulk_update("Part", filter={"id": other}, update={"shelf": SECRET, "row": 7}), "shelf, row"),
        ]
        for attempt, columns in attempts:
            with pytest.raises(UniqueError) as caught:
                attempt()
            error = caught.value
            assert (error.message, error.code) == (f"a record with that {columns} exists already", "unique")
            assert (error.where["table"], error.where["columns"]) == ("parts", columns)
            assert (error.where["model"], error.hint) == ("Part", TAKEN_HINT)
        calls.create("Cell", {"x": 1, "y": 2})
        with pytest.raises(UniqueError, match="a record with that x, y exists already"):
            calls.create("Cell", {"x": 1, "y": 2})

    def test_rows_of_a_bulk_report_the_same_text(self, calls: Bench, part: int) -> None:
        rows: list[dict[str, Any]] = [
            {"sku": SECRET},
            {"sku": "b"},
            {"sku": "c", "shelf": SECRET, "row": 7},
            {"id": part, "sku": "d"},
        ]
        errors = calls.bulk_create("Part", rows, on_error="collect")["errors"]
        assert json.loads(json.dumps(errors)) == errors
        assert [(error["row"], error["code"], error["message"]) for error in errors] == [
            (0, "unique", "a record with that sku exists already"),
            (2, "unique", "a record with that shelf, row exists already"),
            (3, "unique", "a record with that id exists already"),
        ]

    @requires("foreign_keys")
    def test_a_foreign_key_says_which_end_is_missing(self, calls: Bench, part: int) -> None:
        calls.create("Bolt", {"part_id": part})
        with pytest.raises(ForeignKeyError) as caught:
            calls.create("Bolt", {"part_id": -4711})
        text = "a foreign key refers to a record that does not exist, or a record is still referred to"
        assert (caught.value.message, caught.value.code) == (text, "foreign-key")
        assert caught.value.hint == "write the record referred to first, or delete what refers to it first"
        assert "4711" not in str(caught.value)
        with pytest.raises(ForeignKeyError) as caught:
            calls.delete("Part", part)
        assert caught.value.message == "the record is still referred to by others (foreign key)"
        made = calls.bulk_create("Bolt", [{"part_id": -1}], on_error="collect")
        assert [(error["code"], error["message"]) for error in made["errors"]] == [("foreign-key", text)]

    @requires("raw_sql")
    def test_what_sql_of_ones_own_breaks_is_told_the_same_way(self, calls: Bench, part: int) -> None:
        update = "UPDATE parts SET {} WHERE id = :id"
        for change, kind, message, where in (
            ("sku = NULL", NotNullError, "sku must have a value", {"table": "parts", "columns": "sku"}),
            ("grade = 'bad'", CheckError, None, {}),
            ("shelf = shelf, row = NULL", NotNullError, "row must have a value", {"table": "parts", "columns": "row"}),
        ):
            with pytest.raises(kind) as caught:
                calls.sql(update.format(change), {"id": part})
            assert caught.value.hint
            assert message in (None, caught.value.message)
            assert {name: caught.value.where.get(name) for name in where} == where
        with pytest.raises(UniqueError, match="a record with that sku exists already"):
            calls.sql("INSERT INTO parts (sku) VALUES (:sku)", {"sku": SECRET})

    @requires("raw_sql")
    def test_wrong_sql_is_a_query_error(self, calls: Bench) -> None:
        for query, code in (
            ("SELECT * FROM nowhere", "no-such-name"),
            ("SELECT absent FROM parts", "no-such-name"),
            ("SELECT FROM WHERE", "query"),
        ):
            calls.count("Part")
            with pytest.raises(QueryError) as caught:
                calls.sql(query)
            assert (caught.value.code, bool(caught.value.hint)) == (code, True)

    def test_what_is_not_found_says_so_the_same_way(self, calls: Bench) -> None:
        attempts: list[Callable[[], Any]] = [
            lambda: calls.read("Part", -1, raise_on_not_found=True),
            lambda: calls.update("Part", -1, {"sku": "x"}, raise_on_not_found=True),
        ]
        for attempt in attempts:
            with pytest.raises(NotFoundError) as caught:
                attempt()
            assert caught.value.code == "not-found"
            assert caught.value.where["model"] == "Part"

    def test_all_faults_of_a_call_are_told_together_before_anything_is_written(self, calls: Bench) -> None:
        with pytest.raises(InputError) as caught:
            calls.create("Part", {"row": "1", "grade": "awful"})
        assert [problem.message for problem in caught.value.problems] == [
            "sku is required", "row: expected int, got str", "grade: expected one of good; got other text",
        ]  # fmt: skip
        assert calls.count("Part") == {"count": 0}

    def test_a_builder_tells_all_faults_together(self, bench: Bench) -> None:
        new = bench.workflow().add_node("PartCreateNode", "a", {"skuu": 1}).add_node("PartReedNode", "b", {"id": 1})
        with pytest.raises(WorkflowBuildError) as caught:
            new.build()
        text = str(caught.value)
        assert "did you mean 'sku'?" in text
        assert "did you mean 'PartReadNode'?" in text

    def test_the_error_of_a_workflow_names_the_node_and_holds_what_was_done(self, calls: Bench, part: int) -> None:
        new = calls.workflow().add_node("PartReadNode", "read", {"id": part})
        new.add_node("PartCreateNode", "again", {"sku": SECRET})
        with pytest.raises(WorkflowExecutionError) as caught:
            calls.run(new)
        error = caught.value
        assert (error.node_id, error.node_type, error.results["read"]["id"]) == ("again", "PartCreateNode", part)
        assert error.run_id
        assert isinstance(error.__cause__, UniqueError)

    def test_no_error_holds_a_value_not_even_in_its_traceback(self, bench: Bench, part: int) -> None:
        bolt = bench.create("Bolt", {"part_id": part})["id"]
        for way in WAYS:
            calls = bench.by(way)
            attempts: list[Callable[[], Any]] = [
                partial(calls.create, "Part", {"sku": SECRET}),
                partial(calls.bulk_create, "Part", [{"sku": "x"}, {"sku": SECRET}]),
                partial(calls.update, "Bolt", bolt, {"part_id": -47114711}),
                partial(calls.update, "Part", part, {"row": {"$multiply": 2**62}}),
                partial(calls.sql, "INSERT INTO parts (sku) VALUES (:v)", {"v": SECRET}),
                partial(calls.sql, "UPDATE parts SET grade = :v", {"v": SECRET}),
                partial(calls.sql, "UPDATE parts SET sku = NULL, shelf = :v", {"v": SECRET}),
                partial(calls.sql, "SELECT :v FROM nowhere", {"v": SECRET}),
                partial(calls.list, "Part", {"row": SECRET}),
            ]
            for attempt in attempts:
                with pytest.raises(DataFlowError) as caught:
                    attempt()
                told = "".join(traceback.format_exception_only(caught.value)) + json.dumps(caught.value.to_dict())
                cause: BaseException | None = caught.value
                while cause is not None:
                    told += repr(cause) + str(cause)
                    cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
                assert SECRET not in told
                assert "47114711" not in told

    def test_an_error_survives_json_and_pickling(self, calls: Bench, part: int) -> None:
        with pytest.raises(UniqueError) as caught:
            calls.create("Part", {"sku": SECRET})
        again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
        assert (type(again), again.to_dict()) == (UniqueError, caught.value.to_dict())
        assert json.loads(json.dumps(again.to_dict()))["code"] == "unique"
