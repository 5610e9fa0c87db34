"""How models look on the server: types, identity columns, collations, checks, enum types, tables of others."""

import asyncio
import enum
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import asyncpg
import pytest

from dataflow import DataFlow, ForeignKey
from dataflow.errors import CheckError, QueryError, SchemaError, UniqueError


class Mood(enum.Enum):
    """Ordered by text, not by definition."""

    GLAD = "glad"
    ANGRY = "angry"


@pytest.fixture
def ask(postgres_database):
    """Return a function that runs SQL outside of DataFlow."""

    def run(sql, *arguments):
        async def query():
            connection = await asyncpg.connect(postgres_database)
            try:
                return [tuple(row) for row in await connection.fetch(sql, *arguments)]
            finally:
                await connection.close()

        return asyncio.run(query())

    return run


@pytest.fixture
def db(postgres_database):
    with DataFlow(postgres_database, pool_size=2) as instance:
        yield instance


def declare(db):
    @db.model
    class Sample:
        whole: int = -5
        ratio: float = 0.1
        text: str = "it's \\ : %"
        flag: bool = True
        raw: bytes = b"\0\xff"
        moment: datetime = datetime(2025, 1, 31, 12, 30, 0, 1, UTC)
        day: date = date(2025, 1, 31)
        clock: time = time(12, 30)
        price: Decimal = Decimal("19.990000000000000001")
        token: UUID = UUID(int=7)
        mood: Mood = Mood.GLAD
        document: dict = {"b": 1, "a": [None, "x"]}  # noqa: RUF012
        words: list[str] = ["a", "it's"]  # noqa: RUF012
        prices: list[Decimal] | None = None

    return Sample


COLUMNS = """
    SELECT attname::text, format_type(atttypid, atttypmod), attidentity::text, coalesce(collname::text, '')
    FROM pg_attribute LEFT JOIN pg_collation c ON c.oid = attcollation
    WHERE attrelid = 'samples'::regclass AND attnum > 0 ORDER BY attnum
"""


def test_columns_have_native_types(db, ask):
    declare(db)
    db.express_sync.create("Sample", {})
    assert ask(COLUMNS) == [
        ("id", "bigint", "d", ""),
        ("whole", "bigint", "", ""),
        ("ratio", "double precision", "", ""),
        ("text", "text", "", "C"),
        ("flag", "boolean", "", ""),
        ("raw", "bytea", "", ""),
        ("moment", "timestamp with time zone", "", ""),
        ("day", "date", "", ""),
        ("clock", "time without time zone", "", ""),
        ("price", "numeric", "", ""),
        ("token", "uuid", "", ""),
        ("mood", "text", "", "C"),
        ("document", "jsonb", "", ""),
        ("words", "text[]", "", "C"),
        ("prices", "numeric[]", "", ""),
        ("created_at", "timestamp with time zone", "", ""),
        ("updated_at", "timestamp with time zone", "", ""),
    ]


def test_rows_of_other_tools_get_the_same_defaults(db, ask):
    declare(db)
    ours = db.express_sync.create("Sample", {})
    ask("INSERT INTO samples DEFAULT VALUES")
    theirs = db.express_sync.read("Sample", ours["id"] + 1)
    for name in set(ours) - {"id", "created_at", "updated_at", "created"}:
        assert theirs[name] == ours[name], name
    assert theirs["created_at"] >= ours["created_at"]


def test_a_check_keeps_other_tools_from_writing_what_is_no_member(db, ask):
    declare(db)
    db.express_sync.create("Sample", {})
    with pytest.raises(asyncpg.CheckViolationError):
        ask("INSERT INTO samples (mood) VALUES ('sad')")


@pytest.mark.parametrize("jump", [3, 5_000])
def test_the_sequence_goes_on_after_ids_that_callers_chose(db, jump):
    declare(db)
    first = db.express_sync.create("Sample", {})["id"]
    chosen = first + jump
    db.express_sync.create("Sample", {"id": chosen})
    assert db.express_sync.create("Sample", {})["id"] == chosen + 1
    db.express_sync.bulk_create("Sample", [{"id": chosen + 10}, {"id": chosen + 20}])
    assert db.express_sync.create("Sample", {})["id"] == chosen + 21
    db.express_sync.create("Sample", {"id": chosen + 5})
    assert db.express_sync.create("Sample", {})["id"] == chosen + 22
    db.express_sync.bulk_upsert("Sample", [{"id": chosen + 50, "whole": 1}])
    db.express_sync.upsert("Sample", where={"id": chosen + 60}, create={})
    assert db.express_sync.create("Sample", {})["id"] == chosen + 61


async def test_ids_chosen_and_generated_at_once_never_collide(db):
    declare(db)
    await db.initialize()

    async def chosen(start):
        for offset in range(15):
            await db.express.create("Sample", {"id": start + offset * 40})

    async def generated():
        for _ in range(60):
            await db.express.create("Sample", {})

    outcomes = await asyncio.gather(chosen(2_000), generated(), chosen(9_000), generated(), return_exceptions=True)
    collided = [error for error in outcomes if isinstance(error, UniqueError)]
    assert len(collided) == len([error for error in outcomes if error is not None])  # a chosen id may be taken by then
    assert outcomes[1] is outcomes[3] is None or collided
    highest = (await db.express.aggregate("Sample", aggregate={"id": {"$max": "id"}}))["groups"][0]["id"]
    assert (await db.express.create("Sample", {}))["id"] > highest


@pytest.mark.parametrize("many", [3, 200])
@pytest.mark.parametrize(
    "key",
    [
        "id bigserial PRIMARY KEY",
        "id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        "id bigint PRIMARY KEY DEFAULT floor(random() * 1e15)",
    ],
)
def test_bulk_ids_are_those_of_their_rows_whatever_gives_them(db, ask, key, many):
    ask(f"CREATE TABLE notes ({key}, text text NOT NULL)")

    @db.model
    class Note:
        text: str
        __dataflow__ = {"timestamps": False}  # noqa: RUF012

    rows = [{"text": f"n{number}"} for number in range(many)]
    ids = db.express_sync.bulk_create("Note", rows, return_ids=True)["ids"]
    assert len(set(ids)) == many
    found = {row["id"]: row["text"] for row in db.express_sync.list("Note")["records"]}
    assert [found[identity] for identity in ids] == [row["text"] for row in rows]


def test_enum_types_on_request(postgres_database, ask):
    with DataFlow(postgres_database, postgres_native_enums=True) as db:

        @db.model
        class Diary:
            mood: Mood
            moods: list[Mood] = [Mood.ANGRY]  # noqa: RUF012

        x = db.express_sync
        x.create("Diary", {"mood": Mood.GLAD})
        x.bulk_create("Diary", [{"mood": "angry", "moods": []}] * 60)
        x.bulk_upsert("Diary", [{"id": 1, "mood": Mood.GLAD, "moods": [Mood.GLAD]}])
        assert x.list("Diary", sort=["-mood"], limit=1)["records"][0]["moods"] == [Mood.GLAD]
        assert x.count("Diary", {"mood": {"$in": ["angry"]}}) == {"count": 60}
        assert x.count("Diary", {"mood": {"$lt": "glad"}}) == {"count": 60}
        assert x.count("Diary", {"moods": {"$contains": Mood.GLAD}}) == {"count": 1}
        groups = x.aggregate("Diary", group_by=["mood"], aggregate={"most": {"$max": "mood"}, "n": {"$count": "*"}})
        assert groups["groups"] == [
            {"mood": Mood.ANGRY, "most": Mood.ANGRY, "n": 60},
            {"mood": Mood.GLAD, "most": Mood.GLAD, "n": 1},
        ]
        x.update("Diary", 1, {"mood": "angry", "moods": {"$append": Mood.ANGRY}})
    assert ask("SELECT enumlabel::text FROM pg_enum ORDER BY enumsortorder") == [("glad",), ("angry",)]
    assert ask("SELECT pg_typeof(mood)::text FROM diaries LIMIT 1") == [("mood",)]


def test_an_enum_type_that_lacks_a_member_is_told(postgres_database, ask):
    ask("CREATE TYPE mood AS ENUM ('glad')")
    with DataFlow(postgres_database, postgres_native_enums=True) as db:

        @db.model
        class Diary:
            mood: Mood

        with pytest.raises(SchemaError, match="lacks angry"):
            db.express_sync.count("Diary")
        assert db.show_tables() == []


def test_names_of_63_bytes_work_and_longer_names_of_keys_are_shortened(db, ask):
    table = "é" * 31 + "e"

    @db.model
    class Longest:
        text: str
        __tablename__ = table
        __indexes__ = [{"name": "i" * 63, "fields": ["text"], "unique": True}]  # noqa: RUF012

    @db.model
    class Follower:
        first_of_two_long_field_names_that_differ_in_the_end_one_id: Annotated[int, ForeignKey("Longest", reverse="a")]
        first_of_two_long_field_names_that_differ_in_the_end_two_id: Annotated[int, ForeignKey("Longest", reverse="b")]
        __tablename__ = "f" * 60

    db.express_sync.create("Longest", {"text": "x"})
    assert db.show_tables() == ["f" * 60, table]
    with pytest.raises(UniqueError):
        db.express_sync.create("Longest", {"text": "x"})
    assert ask("SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND length(conname::bytea) <= 63") == [(2,)]


def test_tables_live_in_the_schema_of_the_setting(postgres_database, ask):
    with DataFlow(postgres_database, postgres_schema='My "app"') as db:
        declare(db)
        db.express_sync.create("Sample", {})
        assert db.show_tables() == ["samples"]
        assert "price" in db.discover_schema()["samples"]["columns"]
    assert ask("SELECT schemaname::text FROM pg_tables WHERE tablename = 'samples'") == [('My "app"',)]
    with DataFlow(postgres_database) as db:
        assert db.show_tables() == []


def test_the_last_day_is_kept(db, ask):
    declare(db)
    last = datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)
    for day, moment in ((date.max, last), (date.min, datetime(1, 1, 1, tzinfo=UTC))):
        record = db.express_sync.create("Sample", {"day": day, "moment": moment})
        assert (record["day"], record["moment"]) == (day, moment)
        assert db.express_sync.count("Sample", {"day": day, "moment": moment}) == {"count": 1}
    ordered = db.express_sync.list("Sample", sort=["-day"], fields=["day"])["records"]
    assert [row["day"] for row in ordered] == [date.max, date.min]


def test_one_row_that_a_check_refuses_is_found_in_a_bulk(db, ask):
    declare(db)
    db.express_sync.count("Sample")
    ask("ALTER TABLE samples ADD CONSTRAINT small CHECK (whole < 100)")
    rows: list[dict[str, Any]] = [{"whole": number} for number in range(99)]
    rows.insert(60, {"whole": 100})
    with pytest.raises(CheckError) as caught:
        db.express_sync.bulk_create("Sample", rows)
    assert caught.value.where["row"] == 60
    assert db.express_sync.count("Sample") == {"count": 0}
    outcome = db.express_sync.bulk_create("Sample", rows, on_error="collect", return_ids=True)
    assert (outcome["created"], outcome["errors"][0]["row"], outcome["ids"][60]) == (99, 60, None)


def test_a_failing_call_inside_a_transaction_leaves_the_rest_of_it(db):
    from dataflow import BaseDataFlowNode
    from dataflow.runtime import LocalRuntime

    declare(db)

    @db.register_node
    class Careful(BaseDataFlowNode):
        async def execute(self, input_data):
            try:
                await db.express.create("Sample", {"id": 1})
            except UniqueError:
                return {"refused": (await db.express.create("Sample", {"id": 2}))["id"]}

    builder = db.workflow().add_node("TransactionScopeNode", "tx").add_node("SampleCreateNode", "one", {"id": 1})
    results, _ = LocalRuntime().execute(builder.add_node("Careful", "two").build())
    assert results["two"]["refused"] == 2
    assert db.express_sync.count("Sample") == {"count": 2}


def test_raw_sql_takes_and_gives_native_values(db):
    def value(sql, params=None):
        node = {"query": sql, "params": params, "fetch_mode": "value"}
        builder = db.workflow().add_node("AsyncSQLDatabaseNode", "sql", node)
        from dataflow.runtime import LocalRuntime

        return LocalRuntime().execute(builder.build())[0]["sql"]["result"]["data"]

    assert value("SELECT :n", {"n": 5}) == 5
    assert value("SELECT :n + 1", {"n": 5}) == 6
    assert value("SELECT '$1' || :t", {"t": "x"}) == "$1x"
    assert value("SELECT $1", [Decimal("1.10")]) == Decimal("1.10")
    assert value("SELECT sum(x) FROM unnest(CAST(:xs AS bigint[])) AS x WHERE x = ANY (:xs)", {"xs": [1, 2]}) == 3
    assert value("SELECT CAST(:d AS jsonb) ->> 'a'", {"d": {"a": "b"}}) == "b"
    with pytest.raises(Exception, match="parameter 1 of the statement does not fit") as caught:
        value("SELECT 1 + :n", {"n": "five hundred"})
    assert "five hundred" not in str(caught.value)
    with pytest.raises(Exception, match=r"relation \"nothing\" does not exist") as caught:
        value("SELECT 1 FROM nothing")
    assert isinstance(caught.value.__cause__, QueryError)
    assert caught.value.__cause__.code == "no-such-name"
