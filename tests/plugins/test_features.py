"""What a feature asks of a plan holds in every operation, by express (sync and async) and in workflows.

The features here are throw-away ones, each using a part of the vocabulary: `Rooms` (set, where, a field, an index, an
option that shapes SQL), `Secret` (encode, decode), `Strict` (guard), `Journal` (record, after_commit).
"""

import asyncio
import sqlite3
from contextlib import closing, contextmanager

import pytest

from dataflow import DataFlow
from dataflow.dialect import COUNT, Command
from dataflow.errors import DataFlowError, InputError, ModelError, NotYetAvailable, UniqueError
from dataflow.fields import FieldSpec
from dataflow.model import IndexSpec
from dataflow.operations import BY_NAME
from dataflow.plan.stages import Stage
from dataflow.plugins import SettingSpec, hookimpl
from dataflow.runtime import LocalRuntime
from dataflow.session import AMBIENT
from dataflow.types import StrType

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

        def record(call, rows):
            for row in rows:
                command = Command('INSERT INTO "journal" ("what", "size") VALUES (?, ?)', COUNT, writes=True)
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


class World:
    """A DataFlow with the features, and one way to call it."""

    def __init__(self, db, plugin, path, how):
        self.db = db
        self.plugin = plugin
        self.path = path
        self.how = how

    def call(self, operation, model, **params):
        if self.how == "sync":
            return self.db.express_sync.call(operation, model, **params)
        if self.how == "async":
            return asyncio.run(self.db.express.call(operation, model, **params))
        workflow = self.db.workflow().add_node(f"{model}{BY_NAME[operation].suffix}", "node", params).build()
        try:
            results, _ = LocalRuntime().execute(workflow)
        except DataFlowError as error:
            raise error.__cause__ from None
        return results["node"]

    def sql(self, query, *params):
        """Ask the file, past DataFlow."""
        with closing(sqlite3.connect(self.path)) as raw:
            return raw.execute(query, params).fetchall()

    def column(self, query, *params):
        return [row[0] for row in self.sql(query, *params)]


@pytest.fixture(params=["sync", "async", "workflow"])
def world(request, tmp_path):
    """Folders and notes: 1 to 3 are red, 4 and 5 blue; each colour has a note in a folder of the other."""
    plugin = Features()
    path = tmp_path / "app.db"
    with DataFlow(f"sqlite:///{path}", plugins=[plugin]) as db:

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
        found = World(db, plugin, path, request.param)
        with closing(sqlite3.connect(path)) as raw, raw:
            raw.execute("DELETE FROM journal")
        plugin.notes.clear()
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
def test_a_predicate_confines_every_read(world, what):
    assert READS[what](world) == RED_SEES[what]


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
    assert "room" in world.column("SELECT name FROM pragma_table_info('notes')")
    columns = world.column("SELECT name FROM pragma_index_info('ix_notes_room')")
    assert columns == ["room", "id"]


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
def test_a_field_is_decoded_by_every_read(world, what):
    assert SECRET_READS[what](world) == "one"


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
def test_what_cannot_be_done_on_encoded_values_is_refused_not_faked(world, what):
    with pytest.raises(InputError, match="text.*is stored encoded"):
        SECRET_REFUSED[what](world)
    assert world.column("SELECT count(*) FROM notes") == [5]


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


# -- Journal: more statements in the same transaction, and what follows the commit --------------------------------------
RECORDED = {
    "create": (lambda w: w.call("create", "Note", **ROW), [("create Note", 6)]),
    "update": (lambda w: w.call("update", "Note", id=1, size=9), [("update Note", 9)]),
    "delete": (lambda w: w.call("delete", "Note", id=1), [("delete Note", 1)]),
    "upsert, new": (
        lambda w: w.call("upsert", "Note", where={"text": "six"}, create={"size": 6, "folder_id": 1}), [("upsert Note", 6)]
    ),
    "upsert, existing": (
        lambda w: w.call("upsert", "Note", where={"text": "one"}, create={"folder_id": 1}, update={"size": 9}),
        [("upsert Note", 9)],
    ),
    "bulk_create": (lambda w: w.call("bulk_create", "Note", data=[ROW, {**ROW, "text": "7"}]), [("bulk_create Note", 6)] * 2),
    "bulk_create, one by one": (
        lambda w: w.call("bulk_create", "Note", data=[ROW], conflict_resolution="skip", return_ids=True),
        [("bulk_create Note", 6)],
    ),
    "bulk_update": (
        lambda w: w.call("bulk_update", "Note", filter={"size": {"$lt": 3}}, update={"size": {"$inc": 10}}),
        [("bulk_update Note", 11), ("bulk_update Note", 12)],
    ),
    "bulk_update by rows": (lambda w: w.call("bulk_update", "Note", data=[{"id": 1, "size": 9}]), [("bulk_update Note", 9)]),
    "bulk_delete": (
        lambda w: w.call("bulk_delete", "Note", filter={"size": {"$lt": 3}}), [("bulk_delete Note", 1), ("bulk_delete Note", 2)]
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
    "update of nothing": (lambda w: w.call("update", "Note", id=4, size=9), []),
}  # fmt: skip


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
    assert [ids for _, ids in world.plugin.notes] == [[6], [7]]
