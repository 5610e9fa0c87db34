"""What a feature asks of a plan holds in every operation, by express (sync and async), in workflows, on both databases.

The features here are throw-away ones, each using a part of the vocabulary: `Rooms` (set, where, a field, an index, an
option that shapes SQL), `Secret` (encode, decode), `Strict` (guard), `Journal` (record, after_commit).
"""

import asyncio
import sqlite3
from contextlib import closing, contextmanager
from itertools import count

import asyncpg
import pytest
from sqlalchemy import or_, update

from dataflow import DataFlow
from dataflow.dialect import COUNT, Command
from dataflow.errors import (
    DataFlowError,
    InputError,
    ModelError,
    NotYetAvailable,
    UniqueError,
    WorkflowBuildError,
    WorkflowExecutionError,
)
from dataflow.fields import FieldSpec
from dataflow.model import IndexSpec
from dataflow.nodes import BaseDataFlowNode
from dataflow.operations import BY_NAME
from dataflow.plan.stages import Stage
from dataflow.plugins import SettingSpec, hookimpl
from dataflow.plugins.manager import plugin_set
from dataflow.runtime import LocalRuntime
from dataflow.session import AMBIENT
from dataflow.types import DateTimeType, IntType, StrType

RED, BLUE = "red", "blue"


def room_of(call):
    return call.ambient.get("room", RED)


@contextmanager
def inside(room):
    """Surround calls with a room."""
    token = AMBIENT.set({**AMBIENT.get({}), "room": room})
    try:
        yield
    finally:
        AMBIENT.reset(token)


class Feature:
    before = after = ()

    @property
    def capability(self):
        return self.name

    def extend_model(self, draft):
        pass

    def extend_plan(self, plan):
        pass


class Rooms(Feature):
    """Stamp every record with the room it is written in; show and change only the records of one's own room."""

    name = "rooms"
    stage = Stage.SCOPE

    def extend_model(self, draft):
        draft.add_field(FieldSpec("room", StrType(), origin=self.name))
        draft.add_index(IndexSpec(f"ix_{draft.table}_room", ("room", draft.primary_key[0])))
        draft.add_option("every_room", shapes=True)

    def extend_plan(self, plan):
        if plan.statement in ("insert", "update"):
            plan.set("room", room_of)
        if not plan.options.get("every_room"):
            column = plan.table.c.room
            plan.where(column == plan.bind(room_of, like=column))


class Secret(Feature):
    """Store the texts of a field backwards."""

    name = "secret"
    stage = Stage.ENCODE

    def __init__(self, field):
        self.field = field

    def extend_plan(self, plan):
        plan.encode(self.field, lambda text: text[::-1])
        plan.decode(self.field, lambda text: text[::-1])


class Refused(DataFlowError):
    code = "refused"


class Strict(Feature):
    """Refuse an update or delete that changes more rows than the option `most` says."""

    name = "strict"
    stage = Stage.VERSION

    def extend_model(self, draft):
        draft.add_option("most")

    def extend_plan(self, plan):
        if plan.statement != "select":
            plan.guard(self.check)

    def check(self, call, rows):
        most = call.options.get("most")
        if most is not None and rows > most:
            raise Refused(f"{rows} rows, not {most}")


class Journal(Feature):
    """Write what was done into another table, in the same transaction; tell a list once it is committed."""

    name = "journal"
    stage = Stage.RECORD

    def __init__(self, notes):
        self.notes = notes

    def extend_model(self, draft):
        draft.ddl_extras.append(
            'CREATE TABLE IF NOT EXISTS "journal" ("what" TEXT, "size" INTEGER CHECK ("size" < 1000))'
        )

    def extend_plan(self, plan):
        if plan.statement == "select":
            return
        name = f"{plan.operation} {plan.model.name}"
        what, size = map(plan.model.core.dialect.placeholder, (1, 2))
        command = Command(f'INSERT INTO "journal" ("what", "size") VALUES ({what}, {size})', COUNT, writes=True)

        def record(call, rows):
            for row in rows:
                yield command, [name, row.get("size")]

        plan.record(record)
        plan.after_commit(lambda call, rows: self.notes.append((name, [row["id"] for row in rows])))


class Features:
    """The plugin: which features a model has stands in its ``__dataflow__``."""

    dataflow_api = "1.0"

    def __init__(self):
        self.notes = []

    @hookimpl
    def dataflow_settings(self):
        options = {"rooms": bool, "secret": str, "strict": bool, "journal": bool}
        return [SettingSpec(name, kind, scope="model") for name, kind in options.items()]

    @hookimpl
    def dataflow_features(self, model, config):
        options = model.options
        found = [Rooms()] if options.get("rooms") else []
        found += [Secret(options["secret"])] if "secret" in options else []
        found += [Strict()] if options.get("strict") else []
        return [*found, *([Journal(self.notes)] if options.get("journal") else [])]


class SQLitePlace:
    """A file of one's own, and a look at it past DataFlow."""

    def __init__(self, folder):
        self.path = folder / "app.db"
        self.url = f"sqlite:///{self.path}"
        self.settings = {"sqlite_synchronous": "OFF"}

    def sql(self, query, *params):
        with closing(sqlite3.connect(self.path)) as raw, raw:
            return raw.execute(query, params).fetchall()

    def columns(self, table):
        return [row[0] for row in self.sql("SELECT name FROM pragma_table_info(?)", table)]

    def index_columns(self, index):
        return [row[0] for row in self.sql("SELECT name FROM pragma_index_info(?)", index)]

    def close(self):
        pass


class PostgresPlace:
    """A schema of one's own, and a look at it past DataFlow."""

    schemas = count()

    def __init__(self, url):
        self.url = url
        self.schema = f"place_{next(self.schemas)}"
        self.settings = {"postgres_schema": self.schema, "pool_size": 2}
        self.loop = asyncio.new_event_loop()
        self.raw = None

    def sql(self, query, *params):
        return self.loop.run_until_complete(self._sql(query.replace("?", "$1"), params))

    async def _sql(self, query, params):
        if self.raw is None:
            self.raw = await asyncpg.connect(self.url, server_settings={"search_path": self.schema})
        return [tuple(row) for row in await self.raw.fetch(query, *params)]

    def columns(self, table):
        sql = "SELECT attname::text FROM pg_attribute WHERE attrelid = ?::text::regclass AND attnum > 0 ORDER BY attnum"
        return [row[0] for row in self.sql(sql, table)]

    index_columns = columns

    def close(self):
        if self.raw is not None:
            self.loop.run_until_complete(self.raw.close())
        self.loop.close()


@contextmanager
def a_place(dialect, request, folder):
    place = SQLitePlace(folder) if dialect == "sqlite" else PostgresPlace(request.getfixturevalue("postgres_url"))
    try:
        yield place
    finally:
        place.close()


DIALECTS = ("sqlite", "postgresql")


@pytest.fixture(params=DIALECTS)
def place(request, tmp_path):
    """An empty database, or what is as good, on each dialect."""
    with a_place(request.param, request, tmp_path) as found:
        yield found


class World:
    """A DataFlow with the features, and one way to call it."""

    def __init__(self, db, plugin, place, how):
        self.db = db
        self.plugin = plugin
        self.place = place
        self.how = how

    def call(self, operation, model, **params):
        if self.how == "sync":
            return self.db.express_sync.call(operation, model, **params)
        if self.how == "async":
            return asyncio.run(self.db.express.call(operation, model, **params))
        builder = self.db.workflow().add_node(f"{model}{BY_NAME[operation].suffix}", "node", params)
        try:
            results, _ = LocalRuntime().execute(builder.build())
        except WorkflowExecutionError as error:
            raise error.__cause__ from None
        except WorkflowBuildError as error:
            raise InputError(str(error)) from None
        return results["node"]

    def sql(self, query, *params):
        """Ask the database, past DataFlow."""
        return self.place.sql(query, *params)

    def column(self, query, *params):
        return [row[0] for row in self.sql(query, *params)]


@contextmanager
def a_world(place, how):
    """Folders and notes: 1 to 3 are red, 4 and 5 blue; each colour has a note in a folder of the other."""
    plugin = Features()
    with DataFlow(place.url, plugins=[plugin], **place.settings) as db:

        @db.model
        class Folder:
            name: str
            __dataflow__ = {"rooms": True}  # noqa: RUF012
            __indexes__ = [{"name": "uq_folder", "fields": ["name"], "unique": True}]  # noqa: RUF012

        @db.model
        class Note:
            folder_id: int
            text: str
            size: int = 0
            __dataflow__ = {"rooms": True, "secret": "text", "strict": True, "journal": True}  # noqa: RUF012
            __indexes__ = [{"name": "uq_note", "fields": ["text"], "unique": True}]  # noqa: RUF012

        call = db.express_sync
        call.create("Folder", {"name": "inbox"})
        with inside(BLUE):
            call.create("Folder", {"name": "attic"})
        rows = [("one", 1, 1), ("two", 2, 1), ("three", 3, 2)]
        call.bulk_create("Note", [{"text": text, "size": size, "folder_id": folder} for text, size, folder in rows])
        with inside(BLUE):
            call.bulk_create("Note", [{"text": "four", "size": 40, "folder_id": 2}])
            call.bulk_create("Note", [{"text": "five", "size": 50, "folder_id": 1}])
        place.sql("DELETE FROM journal")
        plugin.notes.clear()
        yield World(db, plugin, place, how)


WAYS = [(dialect, how) for dialect in DIALECTS for how in ("sync", "async", "workflow")]
WORKFLOWS = [way for way in WAYS if way[1] == "workflow"]


def called(way):
    return "-".join(way)


@pytest.fixture(params=WAYS, ids=called)
def world(request, tmp_path):
    """A world of one's own."""
    dialect, how = request.param
    with a_place(dialect, request, tmp_path) as place, a_world(place, how) as found:
        yield found


@pytest.fixture(scope="module", params=WAYS, ids=called)
def gallery(request, tmp_path_factory):
    """A world for tests that only look."""
    dialect, how = request.param
    with a_place(dialect, request, tmp_path_factory.mktemp("gallery")) as place, a_world(place, how) as found:
        yield found


# -- Rooms: a column that is stamped, rows that are hidden ------------------------------------------------------------
def texts(result):
    return [record["text"] for record in result["records"]]


READS = {
    "read": lambda w: (w.call("read", "Note", id=1)["text"], w.call("read", "Note", id=4)["found"]),
    "read by conditions": lambda w: (
        w.call("read", "Note", conditions={"size": 2})["text"],
        w.call("read", "Note", conditions={"size": 40})["found"],
    ),
    "list": lambda w: texts(w.call("list", "Note")),
    "list with a filter": lambda w: texts(w.call("list", "Note", filter={"size": {"$gt": 1}})),
    "list with an alternative": lambda w: texts(w.call("list", "Note", filter={"$or": [{"size": 3}, {"size": 40}]})),
    "list with a negation": lambda w: texts(w.call("list", "Note", filter={"$nor": [{"size": 1}]})),
    "list, sorted": lambda w: texts(w.call("list", "Note", sort=["-size"])),
    "list, paged": lambda w: texts(w.call("list", "Note", offset=1, limit=5)),
    "list, total": lambda w: w.call("list", "Note", limit=1, include_total=True)["total"],
    "list, counted": lambda w: w.call("list", "Note", count_only=True)["count"],
    "list, next page": lambda w: texts(
        w.call("list", "Note", limit=2, cursor=w.call("list", "Note", limit=2)["next_cursor"])
    ),
    "count": lambda w: w.call("count", "Note")["count"],
    "count with a filter": lambda w: w.call("count", "Note", filter={"size": {"$in": [1, 40]}})["count"],
    "aggregate": lambda w: w.call("aggregate", "Note", aggregate={"sum": {"$sum": "size"}})["groups"],
    "aggregate, grouped": lambda w: w.call(
        "aggregate", "Note", group_by=["folder_id"], aggregate={"n": {"$count": "*"}}, having={"n": {"$gt": 0}}
    )["groups"],
    "include one": lambda w: [
        record["folder"] and record["folder"]["name"]
        for record in w.call("list", "Note", include=["folder"])["records"]
    ],
    "include many": lambda w: [note["text"] for note in w.call("read", "Folder", id=1, include=["notes"])["notes"]],
    "include many of one": lambda w: [
        [note["text"] for note in (record["folder"] or {"notes": []})["notes"]]
        for record in w.call("list", "Note", include=["folder.notes"])["records"]
    ],
    "relation filter": lambda w: texts(w.call("list", "Note", filter={"folder": {"name": "attic"}})),
    "relation filter, dotted": lambda w: texts(w.call("list", "Note", filter={"folder.name": {"$ne": "inbox"}})),
    "relation filter, absent": lambda w: texts(w.call("list", "Note", filter={"folder": None})),
    "relation filter, negated": lambda w: texts(w.call("list", "Note", filter={"$not": {"folder": {"name": "inbox"}}})),
    "relation filter, many": lambda w: w.call("count", "Folder", filter={"notes": {"size": {"$gte": 3}}})["count"],
    "relation filter, there and back": lambda w: texts(
        w.call("list", "Note", filter={"folder": {"notes": {"size": 50}}})
    ),
    "aggregate over a relation filter": lambda w: w.call(
        "aggregate", "Note", filter={"folder": {"name": "attic"}}, aggregate={"n": {"$count": "*"}}
    )["groups"],
}
RED_SEES = {
    "read": ("one", False),
    "read by conditions": ("two", False),
    "list": ["one", "two", "three"],
    "list with a filter": ["two", "three"],
    "list with an alternative": ["three"],
    "list with a negation": ["two", "three"],
    "list, sorted": ["three", "two", "one"],
    "list, paged": ["two", "three"],
    "list, total": 3,
    "list, counted": 3,
    "list, next page": ["three"],
    "count": 3,
    "count with a filter": 1,
    "aggregate": [{"sum": 6}],
    "aggregate, grouped": [{"folder_id": 1, "n": 2}, {"folder_id": 2, "n": 1}],
    "include one": ["inbox", "inbox", None],
    "include many": ["one", "two"],
    "include many of one": [["one", "two"], ["one", "two"], []],
    "relation filter": [],
    "relation filter, dotted": [],
    "relation filter, absent": ["three"],
    "relation filter, negated": ["three"],
    "relation filter, many": 0,
    "relation filter, there and back": [],
    "aggregate over a relation filter": [{"n": 0}],
}


@pytest.mark.parametrize("what", READS)
def test_a_predicate_confines_every_read(gallery, what):
    assert READS[what](gallery) == RED_SEES[what]


def test_a_predicate_follows_what_surrounds_the_call_not_the_plan(world):
    for _ in range(2):
        assert texts(world.call("list", "Note")) == ["one", "two", "three"]
        with inside(BLUE):
            assert texts(world.call("list", "Note")) == ["four", "five"]
            assert texts(world.call("list", "Note", filter={"folder": {"notes": {"size": 40}}})) == ["four"]


def test_an_option_that_shapes_sql_has_plans_of_its_own(world):
    for _ in range(2):
        assert world.call("count", "Note") == {"count": 3}
        assert world.call("count", "Note", every_room=True) == {"count": 5}
    everything = {"every_room": True}
    assert world.call("list", "Note", count_only=True, **everything)["count"] == 5
    assert world.call("list", "Note", include_total=True, limit=1, **everything)["total"] == 5
    assert world.call("read", "Note", id=4, **everything)["text"] == "four"
    assert world.call("aggregate", "Note", aggregate={"sum": {"$sum": "size"}}, **everything)["groups"] == [{"sum": 96}]
    assert texts(world.call("list", "Note", filter={"folder": {"name": "attic"}}, **everything)) == ["three", "four"]
    folders = [
        note["folder"]["name"] for note in world.call("list", "Note", include=["folder"], **everything)["records"]
    ]
    assert folders == ["inbox", "inbox", "attic", "attic", "inbox"]
    assert world.call("bulk_delete", "Note", filter={"size": {"$gt": 2}}, **everything) == {"deleted": 3}


def test_an_option_of_a_feature_is_unknown_where_the_feature_is_not(world):
    @world.db.model
    class Plain:
        text: str = ""

    with pytest.raises(DataFlowError, match="every_room"):
        world.call("count", "Plain", every_room=True)


def test_the_field_and_the_index_of_a_feature_are_in_the_database(world):
    assert "room" in world.place.columns("notes")
    assert world.place.index_columns("ix_notes_room") == ["room", "id"]


ROW = {"text": "six", "size": 6, "folder_id": 1}
WRITES = {
    "create": lambda w: w.call("create", "Note", **ROW),
    "create, naming the column": lambda w: w.call("create", "Note", **ROW, room=BLUE),
    "upsert": lambda w: w.call("upsert", "Note", where={"text": "six"}, create={"size": 6, "folder_id": 1}),
    "bulk_create": lambda w: w.call("bulk_create", "Note", data=[ROW]),
    "bulk_create, naming the column": lambda w: w.call("bulk_create", "Note", data=[{**ROW, "room": BLUE}]),
    "bulk_create, a default": lambda w: w.call("bulk_create", "Note", data=[ROW], room=BLUE),
    "bulk_create, skipping": lambda w: w.call(
        "bulk_create", "Note", data=[ROW], conflict_resolution="skip", return_ids=True
    ),
    "bulk_create, collecting": lambda w: w.call("bulk_create", "Note", data=[ROW], on_error="collect"),
    "bulk_create, upserting": lambda w: w.call("bulk_create", "Note", data=[ROW], conflict_resolution="upsert"),
    "bulk_upsert": lambda w: w.call("bulk_upsert", "Note", data=[ROW], key_fields=["text"], return_ids=True),
    "update, naming the column": lambda w: w.call("update", "Note", id=1, size=6, room=BLUE),
    "bulk_update, naming the column": lambda w: w.call(
        "bulk_update", "Note", filter={"size": 1}, update={"size": 6, "room": BLUE}
    ),
    "bulk_update by rows": lambda w: w.call("bulk_update", "Note", data=[{"id": 1, "size": 6, "room": BLUE}]),
    "upsert of an existing record": lambda w: w.call(
        "upsert", "Note", where={"text": "one"}, create={"folder_id": 1}, update={"size": 6, "room": BLUE}
    ),
    "bulk_upsert of an existing record": lambda w: w.call(
        "bulk_upsert", "Note", data=[{**ROW, "text": "one", "room": BLUE}], key_fields=["text"]
    ),
}


@pytest.mark.parametrize("what", WRITES)
def test_a_column_that_a_feature_sets_has_its_value_after_every_write(world, what):
    WRITES[what](world)
    assert world.sql("SELECT room, count(*) FROM notes WHERE size = 6 GROUP BY room") == [("red", 1)]
    with inside(BLUE):
        assert texts(world.call("list", "Note")) == ["four", "five"]


def test_a_required_column_that_a_feature_sets_is_asked_of_nobody(world):
    workflow = world.db.workflow().add_node("NoteCreateNode", "note", ROW).build()
    assert not workflow.inputs
    assert "room" not in [p.name for p in world.db.core.node_types["NoteCreateNode"][1].parameters if p.required]


UNREACHED = {
    "update": lambda w: w.call("update", "Note", id=4, size=0)["updated"],
    "update by conditions": lambda w: w.call("update", "Note", conditions={"size": 40}, values={"size": 0})["updated"],
    "delete": lambda w: w.call("delete", "Note", id=4)["deleted"],
    "delete by conditions": lambda w: w.call("delete", "Note", conditions={"size": 40})["deleted"],
    "bulk_update": lambda w: w.call("bulk_update", "Note", filter={"size": {"$gte": 40}}, update={"size": 0})[
        "updated"
    ],
    "bulk_update with a limit": lambda w: w.call(
        "bulk_update", "Note", filter={"size": {"$gte": 40}}, update={"size": 0}, limit=1
    )["updated"],
    "bulk_update by rows": lambda w: w.call("bulk_update", "Note", data=[{"id": 4, "size": 0}])["updated"],
    "bulk_delete": lambda w: w.call("bulk_delete", "Note", filter={"size": {"$gte": 40}})["deleted"],
    "bulk_delete with a limit": lambda w: w.call("bulk_delete", "Note", filter={"size": {"$gte": 40}}, limit=1)[
        "deleted"
    ],
    "bulk_delete by ids": lambda w: w.call("bulk_delete", "Note", ids=[4, 5])["deleted"],
    "bulk_delete by a relation": lambda w: w.call("bulk_delete", "Note", filter={"folder": {"name": "attic"}})[
        "deleted"
    ],
    "bulk_delete, asking first": lambda w: w.call(
        "bulk_delete", "Note", filter={"size": {"$gte": 40}}, confirmation_required=True
    )["would_delete"],
}


@pytest.mark.parametrize("what", UNREACHED)
def test_a_write_does_not_reach_hidden_rows(world, what):
    assert UNREACHED[what](world) == 0
    assert world.column("SELECT size FROM notes ORDER BY id") == [1, 2, 3, 40, 50]


def test_a_write_without_a_filter_stays_within_what_is_shown(world):
    assert world.call("bulk_update", "Note", filter={}, update={"size": {"$inc": 10}}) == {"updated": 3}
    assert world.column("SELECT size FROM notes ORDER BY id") == [11, 12, 13, 40, 50]
    assert world.call("bulk_delete", "Note", filter={}, confirmed=True) == {"deleted": 3}
    assert world.column("SELECT size FROM notes ORDER BY id") == [40, 50]


HIDDEN_KEY = {
    "create": lambda w: w.call("create", "Note", text="four", folder_id=1, size=7),
    "upsert": lambda w: w.call("upsert", "Note", where={"text": "four"}, create={"folder_id": 1, "size": 7}),
    "upsert by id": lambda w: w.call(
        "upsert", "Note", where={"id": 4}, create={"text": "x", "folder_id": 1, "size": 7}
    ),
    "bulk_create": lambda w: w.call("bulk_create", "Note", data=[{"text": "four", "folder_id": 1, "size": 7}]),
    "bulk_create, upserting": lambda w: w.call(
        "bulk_create", "Note", data=[ROW, {"text": "four", "folder_id": 1, "size": 7}], conflict_resolution="upsert"
    ),
    "bulk_upsert": lambda w: w.call(
        "bulk_upsert", "Note", data=[ROW, {"text": "four", "folder_id": 1, "size": 7}], key_fields=["text"]
    ),
    "bulk_upsert, returning ids": lambda w: w.call(
        "bulk_upsert",
        "Note",
        data=[ROW, {"text": "four", "folder_id": 1, "size": 7}],
        key_fields=["text"],
        return_ids=True,
    ),
}


@pytest.mark.parametrize("what", HIDDEN_KEY)
def test_a_key_that_a_hidden_row_holds_is_taken_and_nothing_is_written(world, what):
    with pytest.raises(UniqueError):
        HIDDEN_KEY[what](world)
    assert world.column("SELECT size FROM notes ORDER BY id") == [1, 2, 3, 40, 50]
    assert world.plugin.notes == []


# -- Secret: values that change on their way in and out ---------------------------------------------------------------
def stored(world, number=1):
    return world.column("SELECT text FROM notes WHERE size = ?", number)


SECRET_WRITES = {
    "create": lambda w: w.call("create", "Note", text="abc", size=9, folder_id=1)["text"],
    "update": lambda w: w.call("update", "Note", id=1, text="abc", size=9)["text"],
    "upsert, new": lambda w: w.call("upsert", "Note", where={"text": "abc"}, create={"size": 9, "folder_id": 1})[
        "text"
    ],
    "upsert, existing": lambda w: w.call(
        "upsert", "Note", where={"text": "one"}, create={"folder_id": 1}, update={"text": "abc", "size": 9}
    )["text"],
    "bulk_create": lambda w: w.call("bulk_create", "Note", data=[{"text": "abc", "size": 9, "folder_id": 1}]),
    "bulk_create, one by one": lambda w: w.call(
        "bulk_create",
        "Note",
        data=[{"text": "abc", "size": 9, "folder_id": 1}],
        conflict_resolution="skip",
        return_ids=True,
    ),
    "bulk_create, a default": lambda w: w.call("bulk_create", "Note", data=[{"size": 9, "folder_id": 1}], text="abc"),
    "bulk_update": lambda w: w.call("bulk_update", "Note", filter={"size": 1}, update={"text": "abc", "size": 9}),
    "bulk_update by rows": lambda w: w.call("bulk_update", "Note", data=[{"id": 1, "text": "abc", "size": 9}]),
    "bulk_upsert, new": lambda w: w.call(
        "bulk_upsert", "Note", data=[{"text": "abc", "size": 9, "folder_id": 1}], key_fields=["text"]
    ),
    "bulk_upsert, existing": lambda w: w.call(
        "bulk_upsert", "Note", data=[{"id": 1, "text": "abc", "size": 9, "folder_id": 1}], key_fields=["id"]
    ),
}


@pytest.mark.parametrize("what", SECRET_WRITES)
def test_a_field_is_encoded_once_by_every_write_and_decoded_by_what_it_returns(world, what):
    returned = SECRET_WRITES[what](world)
    assert stored(world, 9) == ["cba"]
    assert returned == "abc" or not isinstance(returned, str)
    assert world.call("read", "Note", conditions={"size": 9})["text"] == "abc"


SECRET_READS = {
    "read": lambda w: w.call("read", "Note", id=1)["text"],
    "read, projected": lambda w: w.call("read", "Note", id=1, fields=["text"])["text"],
    "list": lambda w: texts(w.call("list", "Note", filter={"size": 1}))[0],
    "include": lambda w: w.call("read", "Folder", id=1, include=["notes"])["notes"][0]["text"],
    "group": lambda w: w.call(
        "aggregate", "Note", filter={"size": 1}, group_by=["text"], aggregate={"n": {"$count": "text"}}
    )["groups"][0]["text"],
}


@pytest.mark.parametrize("what", SECRET_READS)
def test_a_field_is_decoded_by_every_read(gallery, what):
    assert SECRET_READS[what](gallery) == "one"


SECRET_FILTERS = {
    "equality": {"text": "one"},
    "$eq": {"text": {"$eq": "one"}},
    "$in": {"text": {"$in": ["one", "four"]}},
    "$nin": {"text": {"$nin": ["two", "three"]}},
    "$ne": {"text": {"$ne": "two"}, "size": {"$lt": 3}},
    "$not": {"text": {"$not": "two"}, "size": {"$lt": 3}},
    "$or": {"$or": [{"text": "one"}, {"text": {"$null": True}}]},
}


@pytest.mark.parametrize("what", SECRET_FILTERS)
def test_equality_with_an_encoded_field_finds_what_was_written(world, what):
    document = SECRET_FILTERS[what]
    assert texts(world.call("list", "Note", filter=document)) == ["one"]
    assert world.call("count", "Note", filter=document) == {"count": 1}
    assert world.call("read", "Note", conditions=document)["id"] == 1
    assert world.call("count", "Folder", filter={"notes": document}) == {"count": 1}
    assert world.call("bulk_update", "Note", filter=document, update={"size": 9}, limit=5) == {"updated": 1}
    assert stored(world, 9) == ["eno"]


SECRET_REFUSED = {
    "order": lambda w: w.call("list", "Note", filter={"text": {"$gt": "a"}}),
    "range": lambda w: w.call("count", "Note", filter={"text": {"$between": ["a", "z"]}}),
    "pattern": lambda w: w.call("list", "Note", filter={"text": {"$like": "o%"}}),
    "regex": lambda w: w.call("bulk_delete", "Note", filter={"text": {"$regex": "^o"}}),
    "relation": lambda w: w.call("list", "Folder", filter={"notes": {"text": {"$startswith": "o"}}}),
    "sort": lambda w: w.call("list", "Note", sort="text"),
    "minimum": lambda w: w.call("aggregate", "Note", aggregate={"first": {"$min": "text"}}),
}


@pytest.mark.parametrize("what", SECRET_REFUSED)
def test_what_cannot_be_done_on_encoded_values_is_refused_not_faked(gallery, what):
    with pytest.raises(InputError, match=r"(?s)text.*is stored encoded"):
        SECRET_REFUSED[what](gallery)
    assert gallery.column("SELECT count(*) FROM notes") == [5]


# -- Strict: a guard that undoes --------------------------------------------------------------------------------------
GUARDED = {
    "update": lambda w: w.call("update", "Note", conditions={"size": {"$lt": 9}}, values={"size": 9}, most=1),
    "delete": lambda w: w.call("delete", "Note", conditions={"size": {"$lt": 9}}, most=1),
    "bulk_update": lambda w: w.call("bulk_update", "Note", filter={}, update={"size": 9}, most=1),
    "bulk_update with a limit": lambda w: w.call("bulk_update", "Note", filter={}, update={"size": 9}, limit=2, most=1),
    "bulk_update by rows": lambda w: w.call(
        "bulk_update", "Note", data=[{"id": 1, "size": 9}, {"id": 2, "size": 9}], most=0
    ),
    "bulk_delete": lambda w: w.call("bulk_delete", "Note", filter={}, confirmed=True, most=1),
    "bulk_delete by ids": lambda w: w.call("bulk_delete", "Note", ids=[1, 2], most=1),
    "create": lambda w: w.call("create", "Note", **ROW, most=0),
    "upsert": lambda w: w.call(
        "upsert", "Note", where={"text": "one"}, create={"folder_id": 1}, update={"size": 9}, most=0
    ),
    "bulk_create": lambda w: w.call("bulk_create", "Note", data=[ROW, {**ROW, "text": "seven"}], most=1),
    "bulk_create, collecting": lambda w: w.call("bulk_create", "Note", data=[ROW], on_error="collect", most=0),
    "bulk_create, one by one": lambda w: w.call(
        "bulk_create", "Note", data=[ROW], conflict_resolution="skip", return_ids=True, most=0
    ),
    "bulk_upsert": lambda w: w.call(
        "bulk_upsert", "Note", data=[ROW, {**ROW, "text": "one"}], key_fields=["text"], most=1
    ),
}


@pytest.mark.parametrize("what", GUARDED)
def test_a_guard_that_raises_undoes_the_operation(world, what):
    before = world.sql("SELECT * FROM notes ORDER BY id")
    with pytest.raises(Refused):
        GUARDED[what](world)
    assert world.sql("SELECT * FROM notes ORDER BY id") == before
    assert world.sql("SELECT * FROM journal") == []
    assert world.plugin.notes == []


# -- Journal: more statements in the same transaction, and what follows the commit ------------------------------------
RECORDED = {
    "create": (lambda w: w.call("create", "Note", **ROW), [("create Note", 6)]),
    "update": (lambda w: w.call("update", "Note", id=1, size=9), [("update Note", 9)]),
    "update of nothing": (lambda w: w.call("update", "Note", id=4, size=9), []),
    "delete": (lambda w: w.call("delete", "Note", id=1), [("delete Note", 1)]),
    "upsert, new": (
        lambda w: w.call("upsert", "Note", where={"text": "six"}, create={"size": 6, "folder_id": 1}),
        [("upsert Note", 6)],
    ),
    "upsert, existing": (
        lambda w: w.call("upsert", "Note", where={"text": "one"}, create={"folder_id": 1}, update={"size": 9}),
        [("upsert Note", 9)],
    ),
    "bulk_create": (
        lambda w: w.call("bulk_create", "Note", data=[ROW, {**ROW, "text": "7"}]),
        [("bulk_create Note", 6)] * 2,
    ),
    "bulk_create, one by one": (
        lambda w: w.call("bulk_create", "Note", data=[ROW], conflict_resolution="skip", return_ids=True),
        [("bulk_create Note", 6)],
    ),
    "bulk_update": (
        lambda w: w.call("bulk_update", "Note", filter={"size": {"$lt": 3}}, update={"size": {"$inc": 10}}),
        [("bulk_update Note", 11), ("bulk_update Note", 12)],
    ),
    "bulk_update by rows": (
        lambda w: w.call("bulk_update", "Note", data=[{"id": 1, "size": 9}]),
        [("bulk_update Note", 9)],
    ),
    "bulk_delete": (
        lambda w: w.call("bulk_delete", "Note", filter={"size": {"$lt": 3}}),
        [("bulk_delete Note", 1), ("bulk_delete Note", 2)],
    ),
    "bulk_delete by ids": (lambda w: w.call("bulk_delete", "Note", ids=[2, 4]), [("bulk_delete Note", 2)]),
    "bulk_upsert": (
        lambda w: w.call("bulk_upsert", "Note", data=[ROW, {**ROW, "text": "one", "size": 9}], key_fields=["text"]),
        [("bulk_upsert Note", 6), ("bulk_upsert Note", 9)],
    ),
    "bulk_create, upserting": (
        lambda w: w.call("bulk_create", "Note", data=[{**ROW, "text": "one"}], conflict_resolution="upsert"),
        [("bulk_upsert Note", 6)],
    ),
}


@pytest.mark.parametrize("what", RECORDED)
def test_a_record_is_written_for_every_change_and_told_after_the_commit(world, what):
    act, expected = RECORDED[what]
    act(world)
    assert sorted(world.sql("SELECT what, size FROM journal")) == expected
    told = [name for name, ids in world.plugin.notes for _ in ids]
    assert sorted(told) == [name for name, _ in expected]
    assert all(isinstance(number, int) for _, ids in world.plugin.notes for number in ids)


FAILING = {  # the journal takes sizes below 1000 only
    "create": lambda w: w.call("create", "Note", **{**ROW, "size": 1000}),
    "update": lambda w: w.call("update", "Note", id=1, size=1000),
    "upsert": lambda w: w.call("upsert", "Note", where={"text": "six"}, create={"size": 1000, "folder_id": 1}),
    "bulk_create": lambda w: w.call(
        "bulk_create", "Note", data=[ROW, {**ROW, "text": "7", "size": 1000}], batch_size=1
    ),
    "bulk_update": lambda w: w.call("bulk_update", "Note", filter={}, update={"size": 1000}),
    "bulk_update by rows": lambda w: w.call(
        "bulk_update", "Note", data=[{"id": 1, "size": 9}, {"id": 2, "size": 1000}]
    ),
    "bulk_upsert": lambda w: w.call(
        "bulk_upsert", "Note", data=[ROW, {**ROW, "text": "one", "size": 1000}], key_fields=["text"], batch_size=1
    ),
}


@pytest.mark.parametrize("what", FAILING)
def test_a_record_that_fails_undoes_the_change_it_records(world, what):
    before = world.sql("SELECT * FROM notes ORDER BY id")
    with pytest.raises(DataFlowError):
        FAILING[what](world)
    assert world.sql("SELECT * FROM notes ORDER BY id") == before
    assert world.sql("SELECT * FROM journal") == []
    assert world.plugin.notes == []


def test_of_a_bulk_call_that_commits_in_parts_what_is_committed_is_told(world):
    rows = [{**ROW, "text": f"t{n}", "size": 6 if n < 2 else 1000} for n in range(3)]
    with pytest.raises(DataFlowError, match="commit_every=1: 2 rows were committed"):
        world.call("bulk_create", "Note", data=rows, commit_every=1)
    assert world.column("SELECT count(*) FROM notes WHERE size = 6") == [2]
    assert world.plugin.notes == [("bulk_create Note", [6]), ("bulk_create Note", [7])]


def test_a_row_that_is_skipped_is_neither_recorded_nor_told(world):
    rows = [ROW, {**ROW, "text": "one"}, {**ROW, "text": "7", "size": 7}]
    result = world.call("bulk_create", "Note", data=rows, on_error="collect")
    assert (result["created"], result["skipped"]) == (2, 1)
    assert world.column("SELECT size FROM journal") == [6, 7]
    told = [[number] for number in world.column("SELECT id FROM notes WHERE size IN (6, 7) ORDER BY size")]
    assert [ids for _, ids in world.plugin.notes] == told  # a failed insert may have used ids up


# -- workflows: what several nodes do together ------------------------------------------------------------------------
def two_notes(world, *, size, scope=None):
    """Build a workflow that writes a note, then one that the journal takes or refuses."""
    builder = world.db.workflow()
    if scope is not None:
        builder.add_node("TransactionScopeNode", "scope", scope)
    builder.add_node("NoteCreateNode", "first", {**ROW, "text": "first"})
    return builder.add_node("NoteCreateNode", "second", {**ROW, "text": "second", "size": size}).build()


def run(workflow):
    try:
        LocalRuntime().execute(workflow)
    except WorkflowExecutionError:
        return "failed"
    return "done"


TOLD = {
    "done": ({"size": 6}, "done", 2),
    "done in a scope": ({"size": 6, "scope": {}}, "done", 2),
    "failed": ({"size": 1000}, "failed", 1),
    "failed in a scope": ({"size": 1000, "scope": {}}, "failed", 0),
    "failed in a scope that keeps the rest": ({"size": 1000, "scope": {"rollback_on_error": False}}, "failed", 1),
}


@pytest.mark.parametrize("what", TOLD)
@pytest.mark.parametrize("world", WORKFLOWS, indirect=True, ids=called)
def test_after_a_run_exactly_what_is_committed_has_been_told(world, what):
    options, outcome, written = TOLD[what]
    assert run(two_notes(world, **options)) == outcome
    assert world.column("SELECT count(*) FROM notes WHERE size = 6") == [written]
    assert world.column("SELECT count(*) FROM journal") == [written]
    assert len(world.plugin.notes) == written


@pytest.mark.parametrize("world", WORKFLOWS, indirect=True, ids=called)
def test_what_is_told_within_a_scope_waits_for_its_commit(world):
    seen = []

    @world.db.register_node
    class Look(BaseDataFlowNode):
        def run(self, input=None):
            self.run_custom_query("SELECT 1")
            nested = world.db.express_sync.create("Note", {**ROW, "text": "nested"})
            seen.append((nested["size"], list(world.plugin.notes)))

    builder = world.db.workflow().add_node("TransactionScopeNode", "scope")
    builder.add_node("NoteCreateNode", "first", {**ROW, "text": "first"}).add_node("Look", "look")
    builder.add_node("NoteCreateNode", "last", {**ROW, "text": "last"})
    LocalRuntime().execute(builder.build())
    assert seen == [(6, [])]
    assert [ids for _, ids in world.plugin.notes] == [[6], [7], [8]]


def test_a_note_that_fails_is_logged_and_takes_back_nothing(world, capsys, monkeypatch):
    class Sour(list):
        def append(self, note):
            raise OSError("a row's value")

    journal = next(f for f in world.db.core.models["Note"].features if f.name == "journal")
    monkeypatch.setattr(journal, "notes", Sour())
    assert world.call("create", "Note", **ROW)["size"] == 6
    assert world.column("SELECT count(*) FROM notes WHERE size = 6") == [1]
    logged = capsys.readouterr().err
    assert "note.failed" in logged
    assert "OSError" in logged
    assert "a row's value" not in logged


# -- more of the vocabulary -------------------------------------------------------------------------------------------
class Plugin:
    """A plugin of these features, for every model."""

    dataflow_api = "1.0"

    def __init__(self, *features):
        self.features = features

    @hookimpl
    def dataflow_features(self, model, config):
        return self.features


@pytest.fixture
def using(place):
    """Return a function that makes a database whose one model, Note, has the given features."""
    opened = []

    def make(*features):
        db = DataFlow(place.url, plugins=[Plugin(*features)], **place.settings)
        opened.append(db)

        @db.model
        class Note:
            text: str
            size: int = 0

        return db.express_sync

    yield make
    for db in opened:
        db.close()


def made(name, stage, extend_plan, extend_model=None, **attributes):
    """Make a feature from its functions."""
    methods = {"extend_plan": staticmethod(extend_plan)}
    if extend_model is not None:
        methods["extend_model"] = staticmethod(extend_model)
    return type(name, (Feature,), {"name": name, "stage": stage, **methods, **attributes})()


def wrap(name, left, stage=Stage.ENCODE, **attributes):
    def extend_plan(plan):
        plan.encode("text", lambda text: left + text)
        plan.decode("text", lambda text: text.removeprefix(left))

    return made(name, stage, extend_plan, **attributes)


def test_features_undo_each_others_encoding_last_to_first(using):
    def mask(plan):
        plan.decode("text", lambda text: text + "!")

    call = using(wrap("b", "b"), wrap("a", "a"), made("mask", Stage.DECODE, mask))
    assert call.create("Note", {"text": "abba"})["text"] == "abba!"
    assert call.read("Note", 1)["text"] == "abba!"
    assert call.count("Note", {"text": "abba"}) == {"count": 1}


def test_a_column_that_an_earlier_feature_sets_is_encoded_by_a_later_one(using, place):
    def stamp(plan):
        if plan.statement == "insert":
            plan.set("text", "stamped")

    call = using(made("stamp", Stage.SCOPE, stamp), wrap("a", "a"))
    assert call.create("Note", {"text": "mine"})["text"] == "stamped"
    call.bulk_create("Note", [{"text": "mine"}])
    assert place.sql("SELECT text FROM notes") == [("astamped",)] * 2


@pytest.mark.parametrize("operator", ["$append", "$min"])
def test_a_stored_value_that_is_encoded_is_not_changed_in_place(place, operator):
    def extend_plan(plan):
        for field in ("tags", "text"):
            plan.encode(field, lambda value: value[::-1])
            plan.decode(field, lambda value: value[::-1])

    with DataFlow(place.url, plugins=[Plugin(made("back", Stage.ENCODE, extend_plan))], **place.settings) as db:

        @db.model
        class Note:
            text: str
            tags: list[str]

        call = db.express_sync
        call.create("Note", {"text": "abc", "tags": ["a", "b"]})
        change = {"tags": {"$append": "c"}} if operator == "$append" else {"text": {"$min": "b"}}
        with pytest.raises(InputError, match="cannot change a value that is stored encoded"):
            call.update("Note", 1, change)
        found = call.read("Note", 1)
        assert (found["text"], found["tags"]) == ("abc", ["a", "b"])
        assert call.update("Note", 1, {"tags": {"$set": ["c"]}})["tags"] == ["c"]


class Versions(Feature):
    """Count the changes of a record; an update may say which version it expects."""

    name = "versions"
    stage = Stage.VERSION

    def extend_model(self, draft):
        draft.add_field(FieldSpec("version", IntType(), origin=self.name))
        draft.add_option("expected")

    def extend_plan(self, plan):
        if plan.statement == "insert":
            plan.set("version", 1)
        if plan.statement == "update":
            column = plan.table.c.version
            plan.set("version", column + 1)
            expected = [plan.bind(lambda call: call.options.get("expected"), like=column) for _ in range(2)]
            plan.where(or_(expected[0].is_(None), column == expected[1]))
            plan.guard(self.check)

    @staticmethod
    def check(call, rows):
        if rows == 0 and "expected" in call.options:
            raise Refused("it has changed meanwhile")


def test_a_feature_can_lock_optimistically(using):
    call = using(Versions())
    assert call.create("Note", {"text": "a", "version": 7})["version"] == 1
    assert call.update("Note", 1, {"text": "b"}, expected=1)["version"] == 2
    assert call.update("Note", 1, {"text": "c", "version": 9})["version"] == 3
    assert call.bulk_update("Note", filter={}, update={"size": 1}) == {"updated": 1}
    assert call.upsert("Note", {"id": 1}, {"text": "x"}, {"size": 2})["version"] == 5
    with pytest.raises(Refused, match="changed meanwhile"):
        call.update("Note", 1, {"text": "d"}, expected=2)
    found = call.read("Note", 1)
    assert (found["text"], found["version"]) == ("c", 5)


def test_an_upsert_asks_the_guards_of_an_update_only_about_a_record_that_is_there(using):
    call = using(Versions())
    call.call("upsert", "Note", where={"id": 1}, create={"text": "a"}, update={"size": 1}, expected=5)
    assert (
        call.call("upsert", "Note", where={"id": 1}, create={"text": "b"}, update={"size": 2}, expected=1)["size"] == 2
    )
    with pytest.raises(Refused, match="changed meanwhile"):
        call.call("upsert", "Note", where={"id": 1}, create={"text": "b"}, update={"size": 3}, expected=1)
    assert [(note["text"], note["size"], note["version"]) for note in call.list("Note")["records"]] == [("a", 2, 2)]


def test_an_upsert_that_changes_nothing_is_no_update_for_features(using):
    call = using(Versions())
    before = call.create("Note", {"text": "a"})
    found = call.call("upsert", "Note", where={"id": 1}, create={"text": "b"}, update={}, expected=7)
    assert found == {**before, "created": False}


def test_what_a_feature_sets_in_updates_is_set_where_a_bulk_upsert_updates(using):
    call = using(Versions())
    call.bulk_create("Note", [{"text": "a"}, {"text": "b"}])
    rows = [{"id": 1, "text": "c"}, {"id": 3, "text": "d"}]
    assert call.bulk_upsert("Note", rows)["updated"] == 1
    assert [note["version"] for note in call.list("Note")["records"]] == [2, 1, 1]


class Soft(Feature):
    """Mark records as deleted instead of removing them."""

    name = "soft"
    stage = Stage.SCOPE

    def extend_model(self, draft):
        draft.add_field(FieldSpec("deleted_at", DateTimeType("utc"), nullable=True, origin=self.name))
        draft.add_option("deleted_too", shapes=True)

    def extend_plan(self, plan):
        column = plan.table.c.deleted_at
        if not plan.options.get("deleted_too"):
            plan.where(column.is_(None))
        if plan.statement == "delete":
            now = plan.bind(lambda call: call.now, plan.encoder("deleted_at"), like=column)
            plan.replace(lambda plan: plan.restrict(update(plan.table)).values(deleted_at=now))


@pytest.mark.parametrize("watched", [False, True])
def test_a_feature_can_replace_a_statement(using, watched):
    told = []

    def watch(plan):
        if plan.statement == "delete":
            plan.after_commit(lambda call, rows: told.extend(row["text"] for row in rows))

    call = using(Soft(), made("watch", Stage.NOTIFY, watch)) if watched else using(Soft())
    call.bulk_create("Note", [{"text": text} for text in "abcdef"])
    assert call.delete("Note", 1) == {"deleted": 1, "id": 1}
    assert call.delete("Note", 1) == {"deleted": 0, "id": 1}
    assert call.bulk_delete("Note", filter={"text": {"$in": ["a", "b"]}}) == {"deleted": 1}
    assert call.bulk_delete("Note", ids=[3, 4], return_ids=True) == {"deleted": 2, "ids": [3, 4]}
    assert call.bulk_delete("Note", filter={}, limit=1, confirmed=True) == {"deleted": 1}
    assert call.list("Note", fields=["id"])["records"] == [{"id": 6}]
    assert call.count("Note", deleted_too=True) == {"count": 6}
    assert call.update("Note", 1, {"size": 9})["updated"] == 0
    assert told == (["a", "b", "c", "d", "e"] if watched else [])


class Named:
    """The same features, by the hooks that model options demand."""

    dataflow_api = "1.0"

    def __init__(self):
        self.notes = []

    @hookimpl
    def dataflow_tenancy(self, model):
        return Rooms() if model.options.get("multi_tenant") else None

    @hookimpl
    def dataflow_soft_delete(self, model):
        return Soft() if model.options.get("soft_delete") else None

    @hookimpl
    def dataflow_versioning(self, model):
        return Versions() if model.options.get("versioned") else None

    @hookimpl
    def dataflow_audit(self, model):
        return [Journal(self.notes)] if model.options.get("audit_log") else None


def test_the_features_that_model_options_demand_work_together(place):
    named = Named()
    with DataFlow(place.url, plugins=[named], disable={"enterprise"}, **place.settings) as db:

        @db.model
        class Note:
            text: str
            size: int = 0
            __dataflow__ = dict.fromkeys(("audit_log", "versioned", "soft_delete", "multi_tenant"), True)

        @db.model
        class Plain:
            text: str

        assert [feature.name for feature in db.core.models["Note"].features] == ["rooms", "soft", "versions", "journal"]
        assert db.core.models["Plain"].features == ()
        call = db.express_sync
        call.bulk_create("Note", [{"text": "a"}, {"text": "b"}])
        with inside(BLUE):
            call.create("Note", {"text": "c"})
            assert call.bulk_update("Note", filter={}, update={"size": 1}) == {"updated": 1}
        with pytest.raises(Refused):
            call.update("Note", 1, {"size": 2}, expected=7)
        assert call.update("Note", 1, {"size": 2}, expected=1)["version"] == 2
        assert call.delete("Note", 3) == {"deleted": 0, "id": 3}
        assert call.delete("Note", 1) == {"deleted": 1, "id": 1}
        assert [note["text"] for note in call.list("Note")["records"]] == ["b"]
        assert [note["text"] for note in call.list("Note", deleted_too=True)["records"]] == ["a", "b"]
        everything = call.list("Note", deleted_too=True, every_room=True, sort="text")["records"]
        assert [(n["text"], n["room"], n["version"], n["deleted_at"] is None) for n in everything] == [
            ("a", RED, 2, False), ("b", RED, 1, True), ("c", BLUE, 2, True)
        ]  # fmt: skip
        operations = [name.removesuffix(" Note") for name, ids in named.notes for _ in ids]
        assert operations == ["bulk_create", "bulk_create", "create", "bulk_update", "update", "delete"]


def test_a_guard_and_a_note_see_reads_as_well(using):
    told = []

    def extend_plan(plan):
        if plan.statement == "select" and plan.operation != "related":
            plan.guard(lambda call, rows: told.append((plan.operation, rows)))
            plan.after_commit(lambda call, rows: told.append([row.get("text") for row in rows]))

    call = using(made("watch", Stage.NOTIFY, extend_plan))
    call.bulk_create("Note", [{"text": "a"}, {"text": "b"}])
    call.list("Note")
    call.read("Note", 2)
    call.count("Note")
    assert told == [("list", 2), ["a", "b"], ("read", 1), ["b"], ("count", 1), [None]]


def test_a_guard_may_refuse_a_read(using):
    def refuse(call, rows):
        raise Refused("not today")

    call = using(made("shut", Stage.AUTHORIZE, lambda plan: plan.guard(refuse)))
    with pytest.raises(Refused):
        call.list("Note")


def test_a_guard_of_the_unmatched_looks_only_where_nothing_was_found(using):
    told = []

    def extend_plan(plan):
        if plan.operation != "related":
            plan.guard(lambda call, rows: told.append((plan.operation, rows)), unmatched=True)

    call = using(made("watch", Stage.VERSION, extend_plan))
    for turn in range(2):  # the second goes by the shape of the first
        call.create("Note", {"text": f"a{turn}"})
        call.bulk_create("Note", [{"text": f"b{turn}"}, {"text": f"c{turn}"}])
        key = call.list("Note", sort="-id", limit=1)["records"][0]["id"]
        call.read("Note", key)
        call.update("Note", key, {"text": f"d{turn}"})
        call.bulk_update("Note", filter={"text": f"d{turn}"}, update={"text": f"e{turn}"})
        call.bulk_update("Note", data=[{"id": key, "text": f"f{turn}"}])
        call.delete("Note", key)
        call.count("Note")
        assert told == []
        call.read("Note", 900)
        call.update("Note", 900, {"text": "x"})
        call.bulk_update("Note", filter={"text": "x"}, update={"text": "y"})
        call.bulk_update("Note", data=[{"id": 900, "text": "x"}])
        call.delete("Note", 900)
        call.list("Note", {"text": "x"})
        kinds = ["read", "update", "bulk_update", "bulk_update", "delete", "list"]
        assert told == [(kind, 0) for kind in kinds]
        told.clear()


@pytest.mark.parametrize("turn", range(2))
def test_a_guard_of_the_unmatched_that_raises_reaches_the_caller(using, turn):
    def refuse(call, rows):
        raise Refused("there is none")

    def extend_plan(plan):
        if plan.operation == "update":
            plan.guard(refuse, unmatched=True)

    call = using(made("strict", Stage.VERSION, extend_plan))
    call.create("Note", {"text": "a"})
    for _ in range(turn):
        call.update("Note", 1, {"text": "b"})
    with pytest.raises(Refused):
        call.update("Note", 900, {"text": "x"})
    assert call.read("Note", 1)["text"] == ("b" if turn else "a")


def test_a_record_of_a_read_is_refused_not_ignored(using):
    def extend_plan(plan):
        if plan.operation == "read":
            plan.record(lambda call, rows: iter(()))

    call = using(made("access", Stage.RECORD, extend_plan))
    call.create("Note", {"text": "a"})
    with pytest.raises(NotYetAvailable, match="'record of a read'"):
        call.read("Note", 1)
    assert call.count("Note") == {"count": 1}


def test_a_step_that_no_release_has_is_refused_when_the_plan_is_compiled(using):
    call = using(made("around", Stage.EXECUTE, lambda plan: plan.around(lambda call: None)))
    with pytest.raises(NotYetAvailable, match="'around'"):
        call.create("Note", {"text": "a"})


def test_a_field_that_the_model_has_already_is_not_added_again():
    clash = made("clash", Stage.SCOPE, lambda plan: None, lambda draft: draft.add_field(FieldSpec("text", StrType())))
    with DataFlow(":memory:", plugins=[Plugin(clash)]) as db:
        with pytest.raises(ModelError, match="already has a field 'text'"):

            @db.model
            class Note:
                text: str

        assert db.list_models() == []


def test_an_option_of_a_feature_wins_the_name_of_the_field_it_adds(using):
    def extend_model(draft):
        draft.add_field(FieldSpec("owner", StrType()))
        draft.add_option("owner")

    def extend_plan(plan):
        if plan.statement == "insert":
            plan.set("owner", lambda call: call.options.get("owner", "nobody"))
        else:
            plan.where(plan.table.c.owner == plan.bind(lambda call: call.options.get("owner", "nobody")))

    call = using(made("owners", Stage.SCOPE, extend_plan, extend_model))
    assert call.call("create", "Note", text="a", owner="ada")["owner"] == "ada"
    assert call.create("Note", {"text": "b"})["owner"] == "nobody"
    call.bulk_create("Note", [{"text": "c"}], owner="ada")
    assert [n["text"] for n in call.list("Note", owner="ada")["records"]] == ["a", "c"]
    assert call.update("Note", 2, {"size": 1}, owner="ada")["updated"] == 0
    assert call.count("Note") == {"count": 1}


def test_the_stage_and_the_wishes_of_features_decide_who_edits_a_plan_first(using):
    edited = []

    def note(name, stage, **attributes):
        return made(name, stage, lambda plan: edited.append(name), **attributes)

    call = using(
        note("last", Stage.NOTIFY),
        note("b", Stage.SCOPE),
        note("a", Stage.SCOPE, after=("b",)),
        note("first", Stage.AUTHORIZE),
    )
    call.count("Note")
    assert edited == ["first", "b", "a", "last"]
    call.count("Note")
    assert len(edited) == 4


# -- no hook is called while an operation runs ------------------------------------------------------------------------
EVERYTHING = {
    "create": {"text": "six", "size": 6, "folder_id": 1},
    "read": {"id": 1, "include": ["folder"]},
    "update": {"id": 1, "size": 7},
    "delete": {"id": 2},
    "list": {"filter": {"folder": {"name": "inbox"}}, "sort": ["-size"], "limit": 2, "include_total": True},
    "count": {"filter": {"size": {"$gt": 1}}},
    "aggregate": {"group_by": ["folder_id"], "aggregate": {"sum": {"$sum": "size"}}},
    "upsert": {"where": {"text": "one"}, "create": {"folder_id": 1}, "update": {"size": 1}},
    "bulk_create": {"data": [{"text": "seven", "folder_id": 1}, {"text": "eight", "folder_id": 2}]},
    "bulk_update": {"filter": {"size": {"$lt": 9}}, "update": {"size": {"$inc": 1}}},
    "bulk_delete": {"filter": {"text": {"$in": ["seven", "eight"]}}},
    "bulk_upsert": {"data": [{"text": "nine", "folder_id": 1}], "key_fields": ["text"]},
}


def test_no_hook_is_called_while_an_operation_runs_the_first_time_or_later(world):
    assert set(EVERYTHING) == set(BY_NAME)
    calls = []
    undo = [
        pm.add_hookcall_monitoring(lambda name, *_: calls.append(name), lambda *_: None)
        for pm in (world.db.core.plugins.pm, plugin_set().pm)
    ]

    @world.db.model
    class Shelf:
        name: str

    assert {"dataflow_features", "dataflow_nodes"} <= set(calls)  # the monitor sees what is called
    world.db.workflow().add_node("ShelfListNode", "shelves").build()  # the nodes without model are asked for once
    calls.clear()
    world.db.express_sync.create("Shelf", {"name": "top"})
    for _ in range(2):
        for operation, params in EVERYTHING.items():
            if operation in ("create", "bulk_create"):
                world.db.express_sync.bulk_delete("Note", filter={"text": {"$in": ["six", "seven", "eight"]}})
            world.call(operation, "Note", **params)
    builder = world.db.workflow().add_node("TransactionScopeNode", "scope")
    builder.add_node("AsyncSQLDatabaseNode", "sql", {"query": "SELECT 1"}).add_node("NoteCountNode", "count")
    LocalRuntime().execute(builder.build())
    assert calls == []
    for stop in undo:
        stop()
    plugin_set().health_checks(world.db)
    assert calls == []
