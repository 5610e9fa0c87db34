"""What surrounds the steps: one migration at a time, limits, concurrent indexes, batches, scripts, copies."""

import asyncio
import contextlib
import subprocess
import time

import attrs
import pytest

from dataflow.catalog import Column
from dataflow.changes import Change
from dataflow.dialect import COUNT, Command
from dataflow.errors import (
    CheckError,
    ConfigurationError,
    DatabaseTimeout,
    DatabaseUnavailable,
    QueryError,
    SchemaError,
    UniqueError,
    UsageError,
)
from dataflow.postgres.migration.draft import LARGE
from dataflow.postgres.migration.editor import PostgresEditor
from dataflow.postgres.standing import SCHEMA_LOCK
from dataflow.session import atomic

ADVISORY = """
SELECT count(*) FROM pg_locks
WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
TABLE = "CREATE TABLE t (id bigint PRIMARY KEY, a text, b integer)"


class Editing:
    """A schema of its own, and the editor of it."""

    def __init__(self, pg):
        self.pg = pg
        pg.server.execute(f"CREATE SCHEMA {pg.schema}; SET search_path = {pg.schema}, public")
        self.db = pg.open()
        self.editor = PostgresEditor(self.db.core.dialect)

    def run(self, program, db=None):
        return (db or self.db).core.ask(program, write=True)

    async def run_async(self, program):
        core = self.db.core
        return await core.run(program, core.own_call(), write=True, holder="test")

    def execute(self, sql):
        self.pg.server.execute(sql)

    def value(self, sql):
        return self.pg.server.value(sql)

    def locks(self):
        return self.value(ADVISORY)

    def found(self, *, large=True):
        found = self.run(self.editor.inspect())
        if not large:
            return found
        return attrs.evolve(
            found, tables={name: attrs.evolve(table, bytes=LARGE + 1) for name, table in found.tables.items()}
        )

    def steps(self, sql, kind, table, name, value=None):
        """Return the steps of one change, to what SQL makes of the schema."""
        found = self.found()

        def build():
            yield Command(f"{TABLE}; {sql}", COUNT, writes=True), ()

        wanted = self.run(self.editor.desired(build()))
        before, after = (each.tables[table] for each in (found, wanted))
        what = {"index": "indexes", "column": "columns"}.get(kind.partition("_")[2])
        if what is None:
            objects = [{c.name: c for c in each.constraints}.get(name) for each in (before, after)]
        else:
            objects = [getattr(each, what).get(name) for each in (before, after)]
        return self.editor.steps(found, wanted, [Change(kind, table, name, *objects, value)])


@pytest.fixture
def editing(pg):
    found = Editing(pg)
    yield found
    pg.server.execute("ROLLBACK; RESET search_path")


def sql(text):
    return (yield Command(text, COUNT, writes=True), ())


def rows(text):
    return (yield Command(text), ())


# -- the lock ---------------------------------------------------------------------------------------------------------
def test_a_migration_holds_the_lock_and_gives_it_back(editing):
    def body():
        assert editing.locks() == 1
        return "done"
        yield

    assert editing.run(editing.editor.locked(body(), timeout=1)) == "done"
    assert editing.locks() == 0


def test_the_lock_costs_little(editing):
    def nothing():
        return
        yield

    taken = []
    for _ in range(20):
        start = time.perf_counter()
        editing.run(editing.editor.locked(nothing(), timeout=1))
        taken.append(time.perf_counter() - start)
    print(f"lock and unlock: {min(taken) * 1000:.1f} ms at best, {sorted(taken)[10] * 1000:.1f} ms in the middle")
    assert min(taken) < 0.01


def test_a_failing_migration_gives_the_lock_back(editing):
    def body():
        yield from sql("BEGIN")
        yield from sql("SELECT nothing")

    with pytest.raises(QueryError, match="nothing"):
        editing.run(editing.editor.locked(body(), timeout=1))
    editing.pg.until(lambda: editing.locks() == 0)


def test_a_second_migration_waits_for_the_first(editing):
    with editing.pg.locked(SCHEMA_LOCK):
        start = time.monotonic()
        with pytest.raises(DatabaseTimeout, match="another process") as caught:
            editing.run(editing.editor.locked(rows("SELECT 1"), timeout=0.3))
        assert caught.value.code == "migrating"
        assert 0.25 < time.monotonic() - start < 2
    assert editing.run(editing.editor.locked(rows("SELECT 1"), timeout=0.3))


def test_who_creates_tables_waits_for_a_migration_and_its_indexes_for_nobody(editing):
    editing.execute(TABLE)
    (step,) = editing.steps("CREATE INDEX x ON t (a)", "create_index", "t", "x")

    def body():
        creating = asyncio.run_coroutine_threadsafe(ensure(), editing.pg.server.background.loop)
        time.sleep(0.3)
        assert not creating.done()
        yield from editing.editor.perform(step)
        return creating

    async def ensure():
        await asyncio.to_thread(lambda: other.core.ensure_sync(list(other.core.models.values())))

    other = editing.pg.open()
    start = time.monotonic()
    creating = editing.run(editing.editor.locked(body(), timeout=1))
    assert time.monotonic() - start < 5, "the index waited for a snapshot of who waits for the lock"
    creating.result(10)
    assert {"rows", "t"} <= set(editing.found().tables)


async def test_a_cancelled_migration_leaves_no_lock(editing):
    def body():
        yield Command("SELECT pg_sleep(60)"), ()

    task = asyncio.ensure_future(editing.run_async(editing.editor.locked(body(), timeout=1)))
    await editing.pg.eventually(lambda: editing.pg.connections("query LIKE '%pg_sleep(60)%' AND state = 'active'"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert editing.locks() == 0


async def test_a_migration_cancelled_while_it_asks_for_the_lock_leaves_none(editing):
    await editing.run_async(rows("SELECT 1"))
    for delay in (0.0, 0.001, 0.002, 0.004, 0.008):
        task = asyncio.ensure_future(editing.run_async(editing.editor.locked(rows("SELECT 1"), timeout=1)))
        await asyncio.sleep(delay)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await editing.pg.eventually(lambda: editing.locks() == 0)


async def test_an_abandoned_migration_leaves_no_lock(editing):
    core = editing.db.core
    session = await core.lease(write=True, holder="test", ambient={})
    program = editing.editor.locked(rows("SELECT 1"), timeout=1)

    def abandoned():
        yield next(program)
        (granted,) = yield program.send(False)
        assert granted[0]
        program.close()  # as the garbage collector does

    await session.run(abandoned())
    assert editing.locks() == 1
    await session.release()
    assert editing.locks() == 0


def test_a_migration_that_loses_its_connection_says_so(editing):
    def body():
        (pid,) = (yield from rows("SELECT pg_backend_pid()"))[0]
        editing.pg.terminate([pid])
        yield from rows("SELECT 1")

    with pytest.raises(Exception, match="connection"):
        editing.run(editing.editor.locked(body(), timeout=1))
    assert editing.locks() == 0


def test_a_migration_does_not_run_in_an_open_transaction(editing):
    core = editing.db.core
    call = core.own_call()
    program = atomic(call, editing.editor.locked(rows("SELECT 1"), timeout=1))
    with pytest.raises(UsageError) as caught:
        core.run_sync(program, call, write=True, holder="test")
    assert caught.value.code == "in-transaction"


def test_a_migration_is_refused_behind_a_pooler(pg):
    db = pg.open(pooler="transaction", postgres_schema=None)
    with pytest.raises(ConfigurationError) as caught:
        db.core.ask(PostgresEditor(db.core.dialect).locked(rows("SELECT 1"), timeout=1), write=True)
    assert caught.value.code == "pooler"


# -- limits -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("transaction", [True, False])
def test_an_attempt_has_limits_and_leaves_none(editing, transaction):
    names = "current_setting('lock_timeout'), current_setting('statement_timeout')"

    def both():
        before = yield from rows(f"SELECT {names}")
        attempt = editing.editor.attempt(
            rows(f"SELECT {names}"), lock_timeout=0.25, statement_timeout=7, transaction=transaction
        )
        within = yield from attempt
        failing = editing.editor.attempt(
            rows("SELECT nothing"), lock_timeout=1, statement_timeout=0, transaction=transaction
        )
        with pytest.raises(QueryError):
            yield from failing
        return before, within, (yield from rows(f"SELECT {names}"))

    before, within, after = editing.run(both())
    assert tuple(within[0]) == ("250ms", "7s")
    assert before == after


@pytest.mark.parametrize("transaction", [True, False])
def test_a_lock_that_is_not_granted_is_a_timeout_that_says_so(editing, transaction):
    editing.execute(TABLE)

    def body():
        yield from sql("CREATE TABLE u (a int)")
        yield from sql("ALTER TABLE t ADD COLUMN c int")

    with editing.pg.transaction(f"LOCK TABLE {editing.pg.schema}.t IN ACCESS SHARE MODE"):
        start = time.monotonic()
        with pytest.raises(DatabaseTimeout) as caught:
            editing.run(editing.editor.attempt(body(), lock_timeout=0.2, statement_timeout=0, transaction=transaction))
        assert time.monotonic() - start < 3
    assert caught.value.code == "lock-timeout"
    assert ("u" in editing.found().tables) is not transaction


def test_an_attempt_in_a_transaction_is_kept_or_undone(editing):
    limits = {"lock_timeout": 1, "statement_timeout": 0, "transaction": True}
    editing.run(editing.editor.attempt(sql(TABLE), **limits))

    def failing():
        yield from sql("DROP TABLE t")
        raise SchemaError("no", hint="no")

    with pytest.raises(SchemaError):
        editing.run(editing.editor.attempt(failing(), **limits))
    assert "t" in editing.found().tables


@pytest.mark.parametrize("outer", ["attempt", "desired"])
def test_nothing_of_a_transaction_goes_on_after_its_connection_is_lost(editing, outer):
    def body():
        (pid,) = (yield from rows("SELECT pg_backend_pid()"))[0]
        editing.pg.terminate([pid])
        yield from rows("SELECT 1")  # which could be asked again, on another connection

    program = editing.editor.desired(body())
    if outer == "attempt":
        program = editing.editor.attempt(body(), lock_timeout=1, statement_timeout=0, transaction=True)
    with pytest.raises(DatabaseUnavailable):
        editing.run(program)


def test_filling_rows_does_not_stand_in_the_way_of_what_follows(editing):
    more = "ALTER TABLE t ADD CONSTRAINT f FOREIGN KEY (b) REFERENCES u (n) DEFERRABLE INITIALLY DEFERRED"
    base = f"CREATE TABLE u (n int PRIMARY KEY); {TABLE}; {more}"
    editing.execute(f"{base}; INSERT INTO u VALUES (1); INSERT INTO t (id) VALUES (1)")
    found = editing.found(large=False)
    before = found.tables["t"].columns["b"]
    change = Change("alter_column", "t", "b", before, attrs.evolve(before, nullable=False), "1")
    steps = editing.editor.steps(found, found, [change])
    assert [step.mode for step in steps] == ["together", "together"]

    def body():
        for step in steps:
            for text in step.sql:
                yield from sql(text)

    editing.run(editing.editor.attempt(body(), lock_timeout=1, statement_timeout=0, transaction=True))
    assert not editing.found().tables["t"].columns["b"].nullable


def test_a_pause_waits(editing):
    start = time.monotonic()
    editing.run(editing.editor.pause(0.1))
    assert time.monotonic() - start >= 0.1


# -- indexes ----------------------------------------------------------------------------------------------------------
def test_an_index_of_a_large_table_is_built_and_dropped_concurrently(editing):
    editing.execute(TABLE)
    (step,) = editing.steps("CREATE INDEX x ON t (a, b DESC) WHERE b > 0", "create_index", "t", "x")
    assert (step.operation, step.mode, step.locks) == (
        "create_index_concurrently", "outside", {"t": "SHARE UPDATE EXCLUSIVE"},
    )  # fmt: skip
    editing.run(editing.editor.perform(step))
    editing.run(editing.editor.perform(step))  # as after a crash that lost the journal's word
    assert editing.found().tables["t"].indexes["x"].valid
    (step,) = editing.steps("", "drop_index", "t", "x")
    assert step.operation == "drop_index_concurrently"
    editing.run(editing.editor.perform(step))
    editing.run(editing.editor.perform(step))
    assert not editing.found().tables["t"].indexes


def test_an_index_left_invalid_is_built_anew(editing):
    editing.execute(TABLE)
    editing.execute("INSERT INTO t VALUES (1, 'x'), (2, 'x')")
    with pytest.raises(Exception, match="could not create unique index"):
        editing.execute("CREATE UNIQUE INDEX CONCURRENTLY x ON t (a)")
    assert not editing.found().tables["t"].indexes["x"].valid
    editing.execute("DELETE FROM t WHERE id = 1")
    editing.execute("INSERT INTO t VALUES (3, 'y')")
    (step,) = editing.steps("CREATE UNIQUE INDEX x ON t (a)", "create_index", "t", "x")
    editing.run(editing.editor.perform(step))
    index = editing.found().tables["t"].indexes["x"]
    assert index.valid
    assert index.unique


def test_an_index_that_cannot_be_built_leaves_nothing(editing):
    editing.execute(TABLE)
    editing.execute("INSERT INTO t VALUES (1, 'x'), (2, 'x')")
    (step,) = editing.steps("CREATE UNIQUE INDEX x ON t (a)", "create_index", "t", "x")
    with pytest.raises(UniqueError):
        editing.run(editing.editor.perform(step))
    assert not editing.found().tables["t"].indexes


def test_an_index_that_waits_too_long_leaves_nothing(editing):
    editing.execute(TABLE)
    (step,) = editing.steps("CREATE INDEX x ON t (a)", "create_index", "t", "x")
    snapshot = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1"
    with editing.pg.transaction(snapshot):
        with pytest.raises(DatabaseTimeout) as caught:
            editing.run(
                editing.editor.attempt(
                    editing.editor.perform(step), lock_timeout=0.3, statement_timeout=0, transaction=False
                )
            )
        assert caught.value.code == "lock-timeout"
    assert not editing.found().tables["t"].indexes


async def test_a_cancelled_build_leaves_no_index(editing):
    editing.execute(TABLE)
    (step,) = await asyncio.to_thread(editing.steps, "CREATE INDEX x ON t (a)", "create_index", "t", "x")
    with editing.pg.transaction("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1"):
        task = asyncio.ensure_future(editing.run_async(editing.editor.perform(step)))
        await editing.pg.eventually(lambda: editing.pg.connections("wait_event = 'virtualxid'"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert editing.value("SELECT count(*) FROM pg_class WHERE relname = 'x'") == 0


def test_another_index_of_the_name_is_not_touched(editing):
    editing.execute(TABLE)
    (step,) = editing.steps("CREATE INDEX x ON t (a)", "create_index", "t", "x")
    editing.execute("CREATE INDEX x ON t (b)")
    with pytest.raises(SchemaError) as caught:
        editing.run(editing.editor.perform(step))
    assert caught.value.code == "index-differs"


def test_a_key_of_a_large_table_is_built_concurrently(editing):
    editing.execute(TABLE)
    steps = editing.steps("ALTER TABLE t ADD CONSTRAINT k UNIQUE (a, b)", "add_constraint", "t", "k")
    assert [step.operation for step in steps] == ["create_index_concurrently", "add_unique_using_index"]
    editing.run(editing.editor.perform(steps[0]))
    editing.run(editing.editor.perform(steps[0]))
    assert not steps[1].scans


# -- batches ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("key", ["id bigint PRIMARY KEY", "id bigint, PRIMARY KEY (a, id)", "id bigint"])
def test_rows_are_filled_in_batches(editing, key):
    table = f"CREATE TABLE t (a text COLLATE \"C\" DEFAULT 'x' NOT NULL, b integer, {key})"
    editing.execute(table)
    editing.execute("INSERT INTO t (id, a) SELECT n, 'k' || n % 7 FROM generate_series(1, 12345) AS n")
    editing.execute("UPDATE t SET b = -1 WHERE id % 5 = 0")
    found = editing.found()
    before = found.tables["t"].columns["b"]
    wanted = attrs.evolve(
        found,
        tables={
            "t": attrs.evolve(
                found.tables["t"], columns={**found.tables["t"].columns, "b": attrs.evolve(before, nullable=False)}
            )
        },
    )
    change = Change("alter_column", "t", "b", before, attrs.evolve(before, nullable=False), "id * 2")
    steps = editing.editor.steps(found, wanted, [change])
    assert [step.mode for step in steps] == ["batches", "together", "apart", "together"]
    changed, cursor, calls = 0, None, 0
    while True:
        some, cursor = editing.run(editing.editor.batch(steps[0], cursor))
        changed, calls = changed + some, calls + 1
        assert some <= 5000
        if cursor is None:
            break
    assert (changed, calls) == (12345 - 12345 // 5, 2)
    assert editing.value("SELECT count(*) FROM t WHERE b = CASE WHEN id % 5 = 0 THEN -1 ELSE id * 2 END") == 12345
    for step in steps[1:]:
        for text in step.sql:
            editing.execute(text)
    assert editing.found(large=False) == wanted


def test_batches_end_where_the_value_itself_is_missing(editing):
    editing.execute(TABLE)
    editing.execute("INSERT INTO t (id) SELECT generate_series(1, 11000)")
    steps = editing.steps("ALTER TABLE t ALTER b SET NOT NULL", "alter_column", "t", "b", "nullif(id, 7)")
    cursor, calls = None, 0
    while cursor is not None or not calls:
        _, cursor = editing.run(editing.editor.batch(steps[0], cursor))
        calls += 1
    assert calls == 3
    assert editing.value("SELECT count(*) FROM t WHERE b IS NULL") == 1
    editing.execute("; ".join(steps[1].sql))
    with pytest.raises(CheckError):
        editing.run(sql(steps[2].sql[0]))


# -- scripts ----------------------------------------------------------------------------------------------------------
def test_a_script_does_in_psql_what_the_steps_do(editing, postgres_server):
    editing.execute(TABLE)
    editing.execute("INSERT INTO t (id) SELECT generate_series(1, 11000)")
    found = editing.found()
    table = found.tables["t"]

    def build():
        more = "ALTER TABLE t ALTER b SET NOT NULL, ADD COLUMN c text; CREATE INDEX x ON t (a)"
        yield Command(f"{TABLE}; {more}", COUNT, writes=True), ()

    wanted = editing.run(editing.editor.desired(build()))
    after = wanted.tables["t"]
    changes = [
        Change("add_column", "t", "c", None, after.columns["c"]),
        Change("alter_column", "t", "b", table.columns["b"], after.columns["b"], "1"),
        Change("create_index", "t", "x", None, after.indexes["x"]),
    ]
    steps = editing.editor.steps(found, wanted, changes)
    text = editing.editor.script(steps)
    assert "-- add column t.c (text) (locks: ACCESS EXCLUSIVE on t)" in text
    path = f"SET search_path = {editing.pg.schema};\n"
    words = ["psql", "-X", "-q", "-f", "-", editing.pg.url.replace("+asyncpg", "")]
    done = subprocess.run(words, input=path + text, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert editing.found(large=False) == wanted
    assert editing.locks() == 0
    with editing.pg.locked(SCHEMA_LOCK):
        done = subprocess.run(words, input=path + text, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode
    assert "another process changes the schema" in done.stderr


# -- beside -----------------------------------------------------------------------------------------------------------
def test_rows_are_copied_before_a_migration(editing):
    editing.execute(TABLE)
    editing.execute("INSERT INTO t VALUES (1, 'x'), (2, 'x')")
    where = editing.run(editing.editor.locked(editing.editor.backup(["t", "not there"]), timeout=1))
    schema = where.split()[2]
    assert where == f"the schema {schema} (tables t)"
    assert editing.value(f"SELECT count(*) FROM {schema}.t") == 2
    editing.execute(f"DROP SCHEMA {schema} CASCADE")


def test_what_the_framework_keeps_on_a_column_gets_out_of_the_way(editing):
    editing.execute(TABLE)
    editing.execute(
        """
        CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
        CREATE TRIGGER dataflow_a BEFORE UPDATE OF a ON t FOR EACH ROW EXECUTE FUNCTION touch();
        CREATE TRIGGER dataflow_b BEFORE UPDATE OF b ON t FOR EACH ROW EXECUTE FUNCTION touch();
        CREATE POLICY dataflow_owner ON t USING (a = 'x');
        """
    )
    found = editing.found()
    assert not found.tables["t"].policies
    change = Change("drop_column", "t", "a", Column("a", "text"))
    steps = editing.editor.steps(found, found, [change])
    editing.run(editing.editor.clear(steps))
    editing.run(sql(steps[0].sql[0]))
    left = "SELECT string_agg(tgname, ',') FROM pg_trigger WHERE tgname LIKE 'dataflow%'"
    assert editing.value(left) is None  # their functions may name any column
    editing.run(editing.editor.clear([]))
