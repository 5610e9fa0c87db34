"""A stranger's guard watches over every call: what connections know, which SQL is refused, who passes.

On both databases.
The feature beside it uses the rest of the vocabulary: what is expected of rows, what runs before, what is authorized.
"""

import asyncio
from itertools import count

import pytest

from dataflow import DataFlow
from dataflow.errors import InputError, NotYetAvailable, PluginConflictError, PluginError, VersionConflict
from dataflow.fields import FieldSpec
from dataflow.nodes import BaseDataFlowNode
from dataflow.plan.stages import Stage
from dataflow.plugins import SettingSpec, hookimpl
from dataflow.runtime import AsyncLocalRuntime, LocalRuntime
from dataflow.types import IntType

_SCHEMAS = count()


class Watch:
    """Tells connections who acts, refuses SQL that names a secret, and counts what it is asked."""

    name = "watch"
    confines = False
    exclusive = True

    def __init__(self):
        self.asked = []
        self.escapes = []
        self.refused = False

    def privileged(self, core, ambient):
        return False

    def context(self, call, *, writes):
        self.asked.append((call.around("actor"), call.node_id, writes))
        return {"actor": call.around("actor") or "nobody", "node": call.node_id} if writes else {}

    def sql(self, core, ambient, statements):
        if any("SECRET" in statement.words for statement in statements):
            raise InputError("that is a secret", code="secret")

    def seal(self, call, command):
        return (lambda: InputError("sealed", code="sealed")) if command.named and self.refused else None

    def escape(self, core, name, reason):
        self.escapes.append((name, reason, core.number))


class Counting:
    """Counts changes in a field, expects a count where one is given, and notes what happens before and first."""

    name = "counting"
    stage = Stage.VERSION
    before = after = ()
    capability = "counting"

    def __init__(self, notes):
        self.notes = notes

    def extend_model(self, draft):
        draft.add_field(FieldSpec("changes", IntType(), default=0, origin=self.name, kept=self.name))
        draft.add_option("changes", shapes="given", operations=("update", "delete", "upsert"), rows=("bulk_update",))
        draft.add_option("loud", operations=("update",), flag=True)

    def extend_plan(self, plan):
        if plan.statement == "insert":
            plan.set("changes", 0)
        if plan.statement in ("update", "delete"):
            column = plan.table.c.changes
            plan.set("changes", column + 1)
            if plan.options.get("changes"):
                given = plan.given("changes", plan.model.fields["changes"].encode, like=column)
                plan.expect(column == given, self.differs)
            plan.before(self.note)
        plan.authorize(lambda call, fields: self.notes.append(("asked", plan.operation, fields)))

    def note(self, call, keys):
        self.notes.append(("before", sorted(keys)))
        yield from ()

    def differs(self, call, keys):
        raise VersionConflict("changed meanwhile", ids=keys)


class Plugin:
    dataflow_api = "1.0"

    def __init__(self, name="watching"):
        self.__name__ = name
        self.guard = Watch()
        self.notes = []

    @hookimpl
    def dataflow_settings(self):
        return [SettingSpec("counting", bool, False, "Count changes.", scope="model")]

    @hookimpl
    def dataflow_guards(self, config):
        return [self.guard]

    @hookimpl
    def dataflow_features(self, model, config):
        return [Counting(self.notes)] if model.options.get("counting") else None


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request, tmp_path):
    """A DataFlow with the plugin, and the plugin."""
    url, settings = f"sqlite:///{tmp_path / 'a.db'}", {}
    if request.param == "postgresql":
        url, settings = request.getfixturevalue("postgres_url"), {"postgres_schema": f"guards_{next(_SCHEMAS)}"}
    plugin = Plugin()
    with DataFlow(url, plugins=[plugin], disable={"enterprise"}, **settings) as db:

        @db.model
        class Note:
            text: str
            __dataflow__ = {"counting": True}  # noqa: RUF012

        db.express_sync.bulk_create("Note", [{"text": text} for text in "abc"])
        plugin.guard.asked.clear()
        plugin.notes.clear()
        yield db, plugin


def test_a_guard_is_asked_before_every_statement_and_knows_who_and_where(world):
    db, plugin = world
    with db.actor("ann"):
        db.express_sync.list("Note")
        assert plugin.guard.asked == [("ann", "", False)]
        plugin.guard.asked.clear()
        builder = db.workflow().add_node("NoteUpdateNode", "change", {"id": 1, "text": "x"})
        builder.add_node("AsyncSQLDatabaseNode", "sql", {"query": "SELECT count(*) AS n FROM notes"})
        LocalRuntime().execute(builder.build())
        assert {(who, node) for who, node, _ in plugin.guard.asked} == {("ann", "change"), ("ann", "sql")}
    plugin.guard.asked.clear()
    asyncio.run(db.express.update("Note", 1, {"text": "y"}))
    assert plugin.guard.asked[-1] == (None, "", True)


def test_sql_of_the_users_own_is_refused_by_build_and_by_every_way_to_run_it(world):
    db, _ = world

    @db.register_node
    class Peek(BaseDataFlowNode):
        def execute(self, input_data):
            return self.run_custom_query("SELECT 1 AS secret")

    @db.register_node
    class PeekLater(BaseDataFlowNode):
        async def execute(self, input_data):
            return {"rows": await self.query("SELECT 1 AS secret")}

    with pytest.raises(Exception, match="that is a secret"):
        db.workflow().add_node("AsyncSQLDatabaseNode", "sql", {"query": "SELECT 1 AS secret"}).build()
    for node in ("Peek", "PeekLater"):
        workflow = db.workflow().add_node(node, "peek", {}).build()
        with pytest.raises(Exception, match="that is a secret"):
            LocalRuntime().execute(workflow)
        with pytest.raises(Exception, match="that is a secret"):
            asyncio.run(AsyncLocalRuntime().execute_async(workflow))


def test_the_database_refuses_what_a_guard_seals_also_inside_a_transaction(world):
    db, plugin = world
    plugin.guard.refused = True
    query = {"query": "SELECT text FROM notes ORDER BY id"}
    read = db.workflow().add_node("AsyncSQLDatabaseNode", "sql", query).build()
    assert LocalRuntime().execute(read)[0]["sql"]["result"]["row_count"] == 3
    for scoped in (False, True):
        builder = db.workflow()
        if scoped:
            builder.add_node("TransactionScopeNode", "scope", {"rollback_on_error": False})
            builder.add_node("NoteCreateNode", "new", {"text": "kept"})
        builder.add_node("AsyncSQLDatabaseNode", "sql", {"query": "UPDATE notes SET text = 'gone'"})
        with pytest.raises(Exception, match="sealed"):
            LocalRuntime().execute(builder.build())
    plugin.guard.refused = False
    assert [r["text"] for r in db.express_sync.list("Note")["records"]] == ["a", "b", "c", "kept"]
    assert db.express_sync.update("Note", 1, {"text": "z"})["updated"] == 1


def test_other_databases_are_refused_while_an_exclusive_guard_watches(world, tmp_path):
    db, _ = world
    params = {"connection_string": f"sqlite:///{tmp_path / 'other.db'}", "query": "SELECT 1 AS n"}
    with pytest.raises(Exception, match="allow_foreign_connections=True"):
        db.workflow().add_node("AsyncSQLDatabaseNode", "sql", params).build()
    allowed = db.workflow().add_node("AsyncSQLDatabaseNode", "sql", {**params, "allow_foreign_connections": True})
    assert LocalRuntime().execute(allowed.build())[0]["sql"]["result"]["data"] == [{"n": 1}]


def test_passing_a_guard_is_announced_to_all_of_them(tmp_path):
    plugin = Plugin()
    plugin.dataflow_tenancy = hookimpl(lambda model: None, specname="dataflow_tenancy")
    with DataFlow(":memory:", plugins=[plugin], disable={"enterprise"}) as db:
        with db.all_tenants(reason="tidying"):
            pass
        assert plugin.guard.escapes == [("all_tenants", "tidying", db.core.number)]


def test_what_a_feature_expects_is_checked_where_it_is_written(world):
    db, _ = world
    x = db.express_sync
    assert x.update("Note", 1, {"text": "x", "changes": 0})["changes"] == 1
    for call in (
        lambda: x.update("Note", 1, {"text": "y", "changes": 0}),
        lambda: x.delete("Note", 1, changes=0),
        lambda: x.bulk_update("Note", data=[{"id": 1, "text": "y", "changes": 0}, {"id": 2, "text": "y"}]),
    ):
        with pytest.raises(VersionConflict) as conflict:
            call()
        assert conflict.value.ids == [1]
    assert [r["text"] for r in x.list("Note")["records"]] == ["x", "b", "c"]
    with pytest.raises(InputError, match="kept by counting"):
        x.create("Note", {"text": "n", "changes": 4})
    with pytest.raises(InputError, match="loud takes True or False"):
        x.update("Note", 1, {"text": "y"}, loud="very")
    with pytest.raises(InputError, match="loud"):
        x.delete("Note", 1, loud=True)


def test_a_feature_is_asked_first_and_sees_the_keys_before_they_change(world):
    db, plugin = world
    x = db.express_sync
    x.update("Note", 2, {"text": "x"})
    assert plugin.notes == [("asked", "update", ("text",)), ("before", [2])]
    plugin.notes.clear()
    x.bulk_delete("Note", filter={"text": {"$in": ["a", "x"]}})
    assert plugin.notes == [("asked", "bulk_delete", ()), ("before", [1, 2])]
    plugin.notes.clear()
    x.update("Note", 99, {"text": "x"})
    assert plugin.notes == [("asked", "update", ("text",))]


def test_guards_that_are_none_or_share_a_name_are_refused():
    class Odd:
        dataflow_api = "1.0"

        @hookimpl
        def dataflow_guards(self, config):
            return [object()]

    with pytest.raises(PluginError, match="no Guard: it lacks name"):
        DataFlow(":memory:", plugins=[Odd()])
    plugins = [Plugin("one"), Plugin("two")]
    plugins[1].dataflow_settings = None
    with pytest.raises(PluginConflictError, match="the guard 'watch' is provided twice"):
        DataFlow(":memory:", plugins=plugins)


def test_a_dialect_that_cannot_watch_over_anything_says_so():
    from dataflow.dialect import Dialect

    class Bare(Dialect):
        name = "bare"

    for call in (
        lambda: Bare().enter(None, {}),
        lambda: Bare().sealed(None, None),
        lambda: Bare().enclosed(None),
        lambda: Bare().enclose(None),
        lambda: Bare().watched(None, ()),
        lambda: Bare().watch(None, ()),
    ):
        with pytest.raises(NotYetAvailable, match="bare does not support"):
            next(call())
