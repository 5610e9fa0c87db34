"""The tdd fixtures, as projects of others use them: pytest runs in a folder of its own, on both databases."""

import asyncio
import os
import sqlite3
import subprocess
import sys

import pytest

from dataflow import DataFlow
from dataflow.dialect import Command
from dataflow.errors import DatabaseError, NotYetAvailable, UniqueError, UsageError
from dataflow.runtime import LocalRuntime
from dataflow.session import Call
from dataflow.testing import count_queries, empty_dataflow, existing_dataflow, savepoint
from dataflow.testing.tdd import TestContext

pytest_plugins = ["pytester"]

MODEL = """
    @db.model
    class User:
        name: str
        email: str
        __indexes__ = [{"name": "uq_users_email", "fields": ["email"], "unique": True}]
"""
SYNC = f"""
import pytest
from dataflow.errors import UniqueError
from dataflow.runtime import LocalRuntime
from dataflow.workflow import WorkflowBuilder

pytestmark = pytest.mark.tdd


@pytest.mark.parametrize("turn", range(3))
def test_same_unique_row(tdd_dataflow, turn):
    db = tdd_dataflow
{MODEL}
    assert db.express_sync.count("User")["count"] == 0
    db.express_sync.create("User", {{"name": "Ada", "email": "a@x"}})
    with pytest.raises(UniqueError):
        db.express_sync.create("User", {{"name": "Eve", "email": "a@x"}})
    with pytest.raises(UniqueError):
        db.express_sync.bulk_create("User", [{{"name": "B", "email": "b@x"}}, {{"name": "Eve", "email": "a@x"}}])
    assert db.express_sync.count("User")["count"] == 1


def test_workflow(tdd_dataflow):
    db = tdd_dataflow
{MODEL}
    workflow = WorkflowBuilder()
    workflow.add_node("TransactionScopeNode", "all", {{"isolation_level": "SERIALIZABLE"}})
    workflow.add_node("UserCreateNode", "create", {{"name": "Test User", "email": "test@example.com"}})
    results, _ = LocalRuntime().execute(workflow.build())
    assert results["create"]["id"] == 1


def test_failing(tdd_dataflow):
    db = tdd_dataflow
{MODEL}
    db.express_sync.create("User", {{"name": "Ada", "email": "a@x"}})
    raise RuntimeError("on purpose")


def test_after_a_failing_one(tdd_dataflow):
    db = tdd_dataflow
{MODEL}
    assert db.express_sync.count("User")["count"] == 0
"""
ASYNC = f"""
import asyncio
import pytest
from dataflow.runtime import AsyncLocalRuntime, LocalRuntime

pytestmark = [pytest.mark.MARK, pytest.mark.tdd]


@pytest.mark.parametrize("turn", range(2))
async def test_calls_of_every_kind(tdd_dataflow, turn):
    db = tdd_dataflow
{MODEL}
    await asyncio.gather(*(db.express.create("User", {{"name": f"n{{i}}", "email": f"{{i}}@x"}}) for i in range(10)))
    workflow = db.workflow().add_node("UserListNode", "users").build()
    results, _ = await AsyncLocalRuntime().execute_async(workflow)
    assert results["users"]["count"] == 10
    assert LocalRuntime().execute(workflow)[0]["users"]["count"] == 10
    assert db.express_sync.count("User") == {{"count": 10}}
    assert await asyncio.to_thread(db.express_sync.count, "User") == {{"count": 10}}


async def test_savepoints(tdd_test_context, tdd_models):
    context = tdd_test_context
    assert context.test_id.endswith("test_savepoints")
    user = {{"name": "Ada", "email": "a@x"}}
    async with context.savepoint():
        await context.db.express.create("User", user)
        with context.savepoint():
            await context.db.express.create("User", {{"name": "Bob", "email": "b@x"}})
        assert (await context.db.express.count("User"))["count"] == 1
    await context.db.express.create("User", user)
    assert (await context.db.express.count("User"))["count"] == 1
"""
KIT = """
import pytest


def test_models_relate(tdd_dataflow, tdd_models):
    calls = tdd_dataflow.express_sync
    ada = calls.create("User", {"name": "Ada", "email": "a@x"})
    order = calls.create("Order", {"user_id": ada["id"]})
    tea = calls.create("Product", {"name": "Tea", "price": 3})
    calls.create("OrderItem", {"order_id": order["id"], "product_id": tea["id"]})
    found = calls.list("OrderItem", {"order": {"user": {"name": "Ada"}}}, include=["product"])
    assert found["records"][0]["product"]["name"] == "Tea"
    assert tdd_models.User.__name__ == "User"


def test_budget_kept(tdd_dataflow, tdd_models, tdd_performance_test):
    with tdd_performance_test(max_ms=60_000, max_queries=1) as measured:
        tdd_dataflow.express_sync.count("User")
    assert measured.milliseconds > 0
    assert len(measured.queries) == 1


def test_too_many_queries(tdd_dataflow, tdd_models, tdd_performance_test):
    with tdd_performance_test(max_queries=1):
        tdd_dataflow.express_sync.count("User")
        tdd_dataflow.express_sync.count("User", {"name": "secret"})


def test_too_slow(tdd_dataflow, tdd_models, tdd_performance_test):
    with tdd_performance_test(max_ms=0):
        tdd_dataflow.express_sync.count("User")
"""


@pytest.fixture(params=["memory", "file", "postgresql"])
def url(request, tmp_path):
    """An empty database."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgres_database")
    return ":memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/app.db"


@pytest.fixture(params=[":memory:", "postgresql"])
def project(request, pytester, monkeypatch):
    """A project of others, whose tests run on that database."""
    url = request.param if request.param == ":memory:" else request.getfixturevalue("postgres_database")
    for name in ("DATABASE_URL", "DATAFLOW_TDD_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TEST_DATABASE_URL", url)
    pytester.makeini("[pytest]\nfilterwarnings = error\nstrict_markers = true\n")
    return pytester


def run(project, *arguments):
    without = [f"-pno:{plugin}" for plugin in ("cacheprovider", "faker", "hypothesispytest")]
    quiet = (*without, "-W", "ignore::pytest.PytestDeprecationWarning")
    return project.runpytest_subprocess(*quiet, *arguments, timeout=100)


def dump(server, url):
    """Everything that is in the catalog and in the tables of a database."""
    return server.psql(
        "SELECT nspname FROM pg_namespace ORDER BY 1; SELECT oid, relname FROM pg_class ORDER BY 1", database=url
    )


def test_synchronous_tests_begin_empty_and_leave_nothing(project, request):
    url = os.environ["TEST_DATABASE_URL"]
    server = request.getfixturevalue("postgres_server") if url.startswith("postgres") else None
    before = dump(server, url) if server else ""
    project.makepyfile(SYNC)
    run(project).assert_outcomes(passed=5, failed=1)
    if server:
        assert dump(server, url) == before


@pytest.mark.parametrize("plugin", ["asyncio", "anyio"])
def test_async_tests_run_under_either_plugin(project, plugin):
    project.makepyfile(ASYNC.replace("MARK", plugin))
    project.makeconftest("import pytest\n\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n")
    other = "anyio" if plugin == "asyncio" else "asyncio"
    run(project, "-p", f"no:{other}").assert_outcomes(passed=3)


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_async_tests_run_in_either_mode_of_pytest_asyncio(project, mode):
    project.makepyfile(ASYNC.replace("pytest.mark.MARK, ", "" if mode == "auto" else "pytest.mark.asyncio, "))
    run(project, "-p", "no:anyio", "-o", f"asyncio_mode={mode}").assert_outcomes(passed=3)


def test_workers_run_the_same_models_at_the_same_time(project):
    project.makepyfile(test_a=SYNC, test_b=SYNC.replace('raise RuntimeError("on purpose")', "pass"))
    run(project, "-n", "2").assert_outcomes(passed=11, failed=1)


def test_sample_models_and_budgets(project):
    project.makepyfile(KIT)
    result = run(project)
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(
        ["*expected at most 1 statements, got 2:*", "*1. SELECT count*", "*expected at most 0 ms*"]
    )
    assert "secret" not in "\n".join(line for line in result.outlines if line.startswith("E "))


def test_the_database_is_named_by_either_variable_and_otherwise_in_memory(pytester, monkeypatch, tmp_path):
    other = f"sqlite:///{tmp_path}/other.db"
    marked = "import pytest\n@pytest.mark.tdd(existing=True)\n"
    marked += "def test_it(tdd_dataflow):\n    print('URL', tdd_dataflow.config.url)\n"
    pytester.makepyfile(marked)
    for name in ("TEST_DATABASE_URL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    run(pytester, "-s").stdout.fnmatch_lines(["*URL sqlite:///:memory:*"])
    monkeypatch.setenv("DATABASE_URL", other)
    run(pytester, "-s").stdout.fnmatch_lines([f"*URL {other}*"])
    monkeypatch.setenv("TEST_DATABASE_URL", ":memory:")
    run(pytester, "-s").stdout.fnmatch_lines(["*URL sqlite:///:memory:*"])


def test_starting_pytest_imports_nothing_of_this():
    code = (
        "import dataflow.testing.pytest_plugin, sys\n"
        "print('dataflow.testing.tdd' in sys.modules, 'dataflow.core' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


# -- tdd mode itself --------------------------------------------------------------------------------------------------
def with_user(db):
    @db.model
    class User:
        name: str
        __indexes__ = ({"name": "uq_users_name", "fields": ["name"], "unique": True},)

    return db


@pytest.fixture(params=["file", "postgresql"])
def filled(request, tmp_path):
    """The URL of a database that has a user already."""
    url = f"sqlite:///{tmp_path}/app.db"
    url = url if request.param == "file" else request.getfixturevalue("postgres_database")
    with with_user(DataFlow(url)) as db:
        db.express_sync.create("User", {"name": "old"})
    return url


def test_what_the_database_has_is_seen_and_what_is_written_is_gone(filled):
    for _ in range(2):
        with with_user(existing_dataflow(filled)) as db:
            assert db.express_sync.create("User", {"name": "new"})["name"] == "new"
            db.express_sync.update("User", 1, {"name": "changed"})
            assert [user["name"] for user in db.express_sync.list("User")["records"]] == ["changed", "new"]
    with with_user(DataFlow(filled)) as db:
        assert [user["name"] for user in db.express_sync.list("User")["records"]] == ["old"]


def test_the_variable_switches_a_program_to_tdd_mode(filled, monkeypatch):
    monkeypatch.setenv("DATAFLOW_TDD_MODE", "true")
    with with_user(DataFlow(filled)) as db:
        db.express_sync.create("User", {"name": "new"})
        assert db.health()["checks"]["database"]["tdd_mode"] is True
    monkeypatch.delenv("DATAFLOW_TDD_MODE")
    with with_user(DataFlow(filled)) as db:
        assert db.express_sync.count("User")["count"] == 1


def test_a_file_is_not_touched_while_others_use_it(tmp_path):
    file = tmp_path / "app.db"
    with with_user(DataFlow(f"sqlite:///{file}")) as db:
        db.express_sync.create("User", {"name": "old"})
        with with_user(DataFlow(f"sqlite:///{file}", tdd_mode=True)) as trial:
            trial.express_sync.create("User", {"name": "new"})
            copy = trial.core.database.path
            assert db.express_sync.create("User", {"name": "new"})["id"] == 2
        assert not os.path.exists(copy)
    with sqlite3.connect(file) as raw:
        assert raw.execute("SELECT count(*) FROM users").fetchone() == (2,)


def test_a_savepoint_undoes_tables_too(url):
    with empty_dataflow(url) as db:
        context = TestContext(with_user(db), "here")
        with context.savepoint():
            db.express_sync.create("User", {"name": "Ada"})
        with context.savepoint():
            db.express_sync.bulk_create("User", [{"name": "Ada"}])
            with pytest.raises(UniqueError):
                db.express_sync.create("User", {"name": "Ada"})
        assert db.express_sync.count("User")["count"] == 0


def test_a_savepoint_needs_tdd_mode():
    with DataFlow(":memory:") as db, pytest.raises(UsageError, match="tdd mode"):
        TestContext(db, "here").savepoint().__enter__()


def test_a_read_only_statement_stays_read_only_in_tdd_mode(url):
    with empty_dataflow(url) as db:
        with_user(db).express_sync.create("User", {"name": "Ada"})
        step = db.core.dialect.sealed
        call = Call(db.core)

        def sealed():
            command = Command("DELETE FROM users", "rows", writes=True)
            return (yield from step(call.session, (command, ())))

        with pytest.raises(DatabaseError):
            db.core.run_sync(sealed(), call, write=True, holder="test")
        assert db.express_sync.count("User")["count"] == 1


def test_what_needs_more_than_one_connection_says_so(postgres_database):
    with empty_dataflow(postgres_database) as db, pytest.raises(NotYetAvailable, match="strict"):
        db.core.database.confine(list)


def test_a_schema_that_lags_behind_is_added_to_for_the_length_of_the_test(filled):
    db = existing_dataflow(filled)

    @db.model
    class User:
        name: str
        phone: str | None = None
        __indexes__ = ({"name": "uq_users_name", "fields": ["name"], "unique": True},)

    with db:
        assert db.express_sync.read("User", 1)["phone"] is None
    with DataFlow(filled) as db:
        assert "phone" not in db.discover_schema()["users"]["columns"]


@pytest.mark.parametrize("kind", ["at_most", "exactly"])
def test_counted_queries_leave_out_transactions_and_the_making_of_tables(url, kind):
    with with_user(empty_dataflow(url)) as db:
        with count_queries(db, **{kind: 2}) as counted:
            db.express_sync.create("User", {"name": "Ada"})
            db.express_sync.count("User")
        assert [sql.split()[0] for sql in counted.statements] == ["INSERT", "SELECT"]
        assert "Ada" not in str(counted)
        with pytest.raises(AssertionError, match="statements, got"), count_queries(db, exactly=0):
            db.express_sync.count("User")
        assert db.stats()["statements"] == 0  # that is of monitoring


# -- the program's own DataFlow ---------------------------------------------------------------------------------------
APPLICATION = """
from dataflow import DataFlow

db = DataFlow()


@db.model
class User:
    name: str
    __indexes__ = [{"name": "uq_users_name", "fields": ["name"], "unique": True}]


async def welcome(name):
    return await db.express.create("User", {"name": name})
"""
EACH_UNDONE = """
import asyncio
import os
import pytest

os.environ["DATAFLOW_TDD_MODE"] = "true"

from dataflow.testing import savepoint
from application import db


@pytest.fixture(autouse=True)
def undone():
    with savepoint(db):
        yield


@pytest.fixture
def anyio_backend():
    return "asyncio"
"""
USES = """
import pytest
from application import db, welcome


@pytest.mark.anyio
@pytest.mark.parametrize("turn", range(3))
async def test_welcome(turn):
    await welcome("Ada")
    assert (await db.express.count("User"))["count"] == 1


@pytest.mark.parametrize("turn", range(2))
def test_synchronous(turn):
    db.express_sync.create("User", {"name": "Ada"})
    assert db.express_sync.count("User")["count"] == 1
"""


def test_the_dataflow_of_a_program_is_put_back_after_each_test(project, monkeypatch):
    url = os.environ["TEST_DATABASE_URL"]
    monkeypatch.setenv("DATABASE_URL", url)
    project.makepyfile(application=APPLICATION, test_uses=USES)
    project.makeconftest(EACH_UNDONE)
    project.makeini("[pytest]\nfilterwarnings = error\npythonpath = .\n")
    run(project, "-p", "no:asyncio").assert_outcomes(passed=5)
    with DataFlow(url) as db:
        assert db.show_tables() == []


def test_other_arguments_of_the_marker_are_settings(project):
    project.makepyfile("""
        import pytest
        from dataflow.errors import ConfigurationError

        pytestmark = pytest.mark.tdd(multi_tenant=True)


        @pytest.mark.tdd(name="here")
        def test_settings(tdd_dataflow, tdd_models):
            assert tdd_dataflow.config["name"] == "here"
            with tdd_dataflow.tenant("acme"):
                tdd_dataflow.express_sync.create("User", {"name": "Ada", "email": "a@x"})
                assert tdd_dataflow.express_sync.count("User")["count"] == 1
            with tdd_dataflow.tenant("bolt"):
                assert tdd_dataflow.express_sync.count("User")["count"] == 0


        @pytest.mark.tdd(exsting=True)
        def test_misspelt(tdd_dataflow):
            pass
    """)
    result = run(project)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*there is no setting 'exsting'*"])


def test_features_work_after_what_they_made_was_undone(url):
    with empty_dataflow(url) as db:

        @db.model
        class Note:
            text: str
            __dataflow__ = {"audit_log": True, "soft_delete": True, "versioned": True, "multi_tenant": True}  # noqa: RUF012

        for turn in range(3):
            if turn == 2:  # the log is there at the savepoint, and not only made in it
                with db.tenant("acme"):
                    db.express_sync.create("Note", {"text": "before"})
            with savepoint(db), db.tenant("acme"), db.actor("alice"):
                note = db.express_sync.create("Note", {"text": "one"})
                db.express_sync.update("Note", note["id"], {"text": "two"})
                db.express_sync.delete("Note", note["id"])
                flow = db.workflow().add_node("NoteAuditNode", "log", {"record_id": note["id"]})
                results, _ = LocalRuntime().execute(flow.build())
                assert [entry["actor"] for entry in results["log"]["entries"]] == ["alice"] * 3
                assert db.express_sync.count("Note")["count"] == (turn == 2)


async def test_an_awaited_savepoint_lets_calls_of_its_loop_end_first(url):
    async with with_user(empty_dataflow(url)) as db:

        async def rows():
            for number in range(20):
                yield {"name": f"n{number}"}
                await asyncio.sleep(0.005)

        task = asyncio.create_task(db.express.bulk_create("User", rows()))
        await asyncio.sleep(0.02)
        async with savepoint(db):
            assert (await db.express.count("User"))["count"] == 20
            await db.express.create("User", {"name": "Ada"})
        await task
        assert (await db.express.count("User"))["count"] == 20


def test_sql_of_a_workflow_on_another_database_leaves_nothing_there_either(filled):
    with DataFlow(":memory:", tdd_mode=True) as db:
        for kind, sql in (("write", "INSERT INTO users (name) VALUES ('new')"), ("read", "SELECT name FROM users")):
            flow = db.workflow().add_node("AsyncSQLDatabaseNode", kind, {"query": sql, "connection_string": filled})
            workflow = flow.build()
            LocalRuntime().execute(workflow)
            workflow.tasks[0].db.close()
    with with_user(DataFlow(filled)) as db:
        assert [user["name"] for user in db.express_sync.list("User")["records"]] == ["old"]
