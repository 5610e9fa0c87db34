"""Direct calls: the same meanings and results as the nodes, awaited and synchronous; several instances; statistics."""

import asyncio
from typing import Any

import pytest

from dataflow import DataFlow
from dataflow.errors import InputError, NotFoundError, UniqueError, UsageError, WorkflowBuildError
from dataflow.runtime import LocalRuntime
from dataflow.workflow import WorkflowBuilder

DAY = ("created_at", "updated_at")


def tag(db: DataFlow) -> DataFlow:
    @db.model
    class Tag:
        label: str
        weight: int = 1
        parent_id: int | None = None
        __indexes__ = [{"name": "uq_tags", "fields": ["label"], "unique": True}]  # noqa: RUF012

    return db


def story(x: Any) -> list[Any]:
    """Use every call; return what each gave, in order. Awaitables are left to the caller."""
    return [
        lambda: x.create("Tag", {"label": "a"}),
        lambda: x.create("Tag", {"label": "b", "parent_id": 1}),
        lambda: x.read("Tag", 2, fields=["label", "parent_id"]),
        lambda: x.read("Tag", 9),
        lambda: x.update("Tag", 1, {"weight": {"$inc": 4}}),
        lambda: x.update("Tag", 9, {"weight": 1}),
        lambda: x.upsert("Tag", {"label": "c"}, {"weight": 3}),
        lambda: x.upsert("Tag", {"label": "c"}, {"weight": 3}, {"weight": {"$multiply": 2}}),
        lambda: x.bulk_create("Tag", [{"label": "d"}, {"label": "e"}], return_ids=True),
        lambda: x.bulk_upsert("Tag", [{"label": "e", "weight": 9}, {"label": "f"}], key_fields=["label"]),
        lambda: x.bulk_update("Tag", filter={"weight": 1}, update={"weight": 2}),
        lambda: x.bulk_update("Tag", data=[{"id": 1, "label": "A"}]),
        lambda: x.list("Tag", {"weight": {"$gte": 2}}, sort=["-weight"], limit=2, include_total=True, fields=["label"]),
        lambda: x.list("Tag", fields=["label"]),
        lambda: x.count("Tag"),
        lambda: x.count("Tag", {"label": {"$in": ["A", "b"]}}),
        lambda: x.aggregate("Tag", aggregate={"n": {"$count": "*"}, "w": {"$sum": "weight"}}),
        lambda: x.call("count", "Tag", filter={"weight": 9}),
        lambda: x.delete("Tag", 2),
        lambda: x.bulk_delete("Tag", filter={"weight": {"$gt": 5}}),
        lambda: x.bulk_delete("Tag", ids=[1]),
    ]


def bare(result: Any) -> Any:
    """Leave out what the clock decides, and cursors."""
    return {key: value for key, value in result.items() if key not in DAY and key != "next_cursor"}


async def test_awaited_and_synchronous_calls_give_the_same(file_bench: Any) -> None:
    db = tag(file_bench.db)
    awaited = [bare(await step()) for step in story(db.express)]
    with tag(DataFlow(":memory:")) as other:
        direct = await asyncio.to_thread(lambda: [bare(step()) for step in story(other.express_sync)])
        in_the_loop = other.express_sync.count("Tag")
    assert awaited == direct
    assert in_the_loop == {"count": 2}
    assert awaited[3] == {"id": 9, "found": False}
    assert [awaited[i]["created"] for i in (6, 7)] == [True, False]
    assert awaited[16] == {"groups": [{"n": 6, "w": 26}]}
    assert awaited[-1] == {"deleted": 1}


def test_errors_name_model_and_operation(bench: Any) -> None:
    x = tag(bench.db).express_sync
    x.create("Tag", {"label": "a"})
    with pytest.raises(UniqueError) as unique:
        x.create("Tag", {"label": "a"})
    assert unique.value.where == {"model": "Tag", "operation": "create", "table": "tags", "columns": "label"}
    with pytest.raises(InputError) as wrong:
        x.create("Tag", {"label": 1})
    assert wrong.value.where == {"model": "Tag", "operation": "create", "field": "label"}
    with pytest.raises(NotFoundError):
        x.read("Tag", 9, raise_on_not_found=True)
    with pytest.raises(NotFoundError):
        x.update("Tag", 9, {"label": "x"}, raise_on_not_found=True)


async def test_a_closed_instance_refuses_both_ways() -> None:
    db = tag(DataFlow(":memory:"))
    await db.express.create("Tag", {"label": "a"})
    await db.aclose()
    await db.aclose()
    with pytest.raises(UsageError, match="this DataFlow is closed"):
        await db.express.count("Tag")
    with pytest.raises(UsageError, match="this DataFlow is closed"):
        db.express_sync.count("Tag")


# -- several instances ------------------------------------------------------------------------------------------------
def test_instances_are_isolated() -> None:
    with tag(DataFlow(":memory:")) as one, tag(DataFlow(":memory:")) as two, DataFlow(":memory:") as three:
        one.express_sync.create("Tag", {"label": "only here"})
        assert two.express_sync.count("Tag")["count"] == 0
        assert (one.list_models(), three.list_models()) == (["Tag"], [])
        assert one.get_model("Tag") is not two.get_model("Tag")
        with pytest.raises(InputError, match="no model 'Tag' is registered"):
            three.express_sync.count("Tag")


def test_a_node_goes_to_the_instance_that_database_names(tmp_path: Any) -> None:
    file = tmp_path / "archive.db"
    with tag(DataFlow(":memory:", name="primary")) as one, tag(DataFlow(f"sqlite:///{file}")) as two:
        new = WorkflowBuilder()
        new.add_node("TagCreateNode", "a", {"label": "a", "database": "primary"})
        new.add_node("TagCreateNode", "b", {"label": "b", "database": "archive"})  # the file's stem
        new.add_node("TagCreateNode", "c", {"label": "c", "_database": "archive"})
        new.add_node("TagListNode", "all", {"database": one})  # the instance itself
        results, _ = LocalRuntime().execute(new.build())
        assert [record["label"] for record in results["all"]["records"]] == ["a"]
        assert two.express_sync.count("Tag")["count"] == 2
        new.add_node("TagListNode", "which", {})
        with pytest.raises(WorkflowBuildError) as caught:
            new.build()
        assert [problem.code for problem in caught.value.problems] == ["ambiguous-database"]
        with pytest.raises(WorkflowBuildError, match="there is no node type 'TagsListNode'"):
            WorkflowBuilder().add_node("TagsListNode", "x", {"database": "archive"}).build()


def test_a_name_wins_over_the_file_of_another(tmp_path: Any) -> None:
    with tag(DataFlow(f"sqlite:///{tmp_path}/main.db")) as one, tag(DataFlow(":memory:", name="main")) as two:
        workflow = WorkflowBuilder().add_node("TagListNode", "x", {"database": "main"}).build()
        assert workflow.tasks[0].db is two
        assert one.config.url.database == "main"


def test_one_candidate_needs_no_choice_and_closed_or_forgotten_ones_do_not_count() -> None:
    first = tag(DataFlow(":memory:"))
    first.close()
    forgotten = tag(DataFlow(":memory:"))
    del forgotten
    with tag(DataFlow(":memory:")) as db, DataFlow(":memory:"):
        workflow = WorkflowBuilder().add_node("TagListNode", "x").build()
        assert workflow.tasks[0].db is db


def test_a_subclass_of_the_builder_works() -> None:
    class Builder(WorkflowBuilder):
        def add_tag(self, label: str) -> "Builder":
            return self.add_node("TagCreateNode", f"tag_{label}", {"label": label})

    with tag(DataFlow(":memory:")) as db:
        results, _ = LocalRuntime().execute(Builder(db).add_tag("a").add_tag("b").build())
        assert [results[name]["id"] for name in ("tag_a", "tag_b")] == [1, 2]


# -- what an instance tells -------------------------------------------------------------------------------------------
def test_monitoring_counts_operations_and_statements() -> None:
    with tag(DataFlow(":memory:", monitoring=True)) as db:
        db.express_sync.bulk_create("Tag", [{"label": str(i)} for i in range(10)])
        LocalRuntime().execute(db.workflow().add_node("TagCountNode", "n").build())
        stats = db.stats()
        assert stats["operations"] == {"Tag.bulk_create": 1, "Tag.count": 1}
        assert stats["statements"] > 2
        assert stats["seconds"] > 0
        assert stats["models"] == 1
        assert stats["plans"] == stats["compilations"] > 0
    with tag(DataFlow(":memory:")) as db:
        db.express_sync.count("Tag")
        assert db.stats()["operations"] == {}
        assert db.stats()["statements"] == 0


def test_slow_statements_are_logged_without_their_values(caplog: pytest.LogCaptureFixture, capsys: Any) -> None:
    with tag(DataFlow(":memory:", monitoring=True, slow_query_threshold=0)) as db:
        db.express_sync.create("Tag", {"label": "Lovelace"})
        assert db.stats()["slow_statements"] == db.stats()["statements"] > 0
    with tag(DataFlow(":memory:", echo=True)) as db:
        db.express_sync.create("Tag", {"label": "Lovelace"})
    out = caplog.text + capsys.readouterr().err + capsys.readouterr().out
    assert "statement.slow" in out
    assert "statement.sent" in out
    assert 'INSERT INTO "tags"' in out
    assert "Lovelace" not in out


def test_a_failing_statement_is_handed_on_under_monitoring() -> None:
    with tag(DataFlow(":memory:", monitoring=True)) as db:
        db.express_sync.create("Tag", {"label": "a"})
        with pytest.raises(UniqueError):
            db.express_sync.create("Tag", {"label": "a"})
        made = db.express_sync.bulk_create("Tag", [{"label": "a"}, {"label": "b"}], on_error="collect")
        assert (made["created"], made["errors"][0]["row"]) == (1, 0)


def test_health_and_schema_are_told(file_bench: Any) -> None:
    db = tag(file_bench.db)
    assert db.show_tables() == []
    db.express_sync.create("Tag", {"label": "a"})
    assert db.show_tables() == ["tags"]
    columns = db.discover_schema()["tags"]["columns"]
    assert list(columns) == ["id", "label", "weight", "parent_id", "created_at", "updated_at"]
    assert columns["id"]["primary_key"] is True
    assert (columns["parent_id"]["nullable"], columns["label"]["nullable"]) == (True, False)
    assert columns["weight"]["default"] == "1"
    health = db.health()
    assert health["ok"] is True
    assert health["checks"]["database"]["tables"] == 1
    assert health["checks"]["database"]["file"] == str(file_bench.path)
    db.close()
    health = db.health()
    assert health["ok"] is False
    assert health["checks"]["database"]["error"] == "this DataFlow is closed"


async def test_initialize_creates_all_tables(file_bench: Any) -> None:
    db = tag(file_bench.db)
    assert await db.initialize() is True
    assert await db.initialize() is True
    assert db.show_tables() == ["tags"]
    assert db.connection_manager is db
    async with DataFlow(f"sqlite:///{file_bench.path}") as other:
        assert other.show_tables() == ["tags"]
