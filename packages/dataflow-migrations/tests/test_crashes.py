"""Migrations that are killed: another process ends them, or finds what was there before.

A share of the kill points, drawn by ``DATAFLOW_CRASH_SEED``; all of them with ``DATAFLOW_CRASHES=all`` (an hour), or by
``python -m dataflow.migrations.proof.crashes``.
"""

import asyncio
import os
import time
from contextlib import asynccontextmanager

import pytest

from dataflow.migrations.proof.copies import Copies
from dataflow.migrations.proof.crashes import Report, campaign, trial
from dataflow.migrations.proof.forks import Forks
from dataflow.migrations.proof.releases import KILLED

SEED = int(os.environ.get("DATAFLOW_CRASH_SEED", "0"))
ALL = os.environ.get("DATAFLOW_CRASHES") == "all"


@pytest.fixture(scope="module")
def forks():
    with Forks() as started:
        yield started


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def place(request):
    return "sqlite" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
def copies(place):
    with Copies.at(place) as made:
        yield made


@pytest.fixture
def databases(postgres_url):
    with Copies.at(postgres_url) as made:
        yield made


@pytest.mark.timeout(7200 if ALL else 120)
@pytest.mark.parametrize("name", KILLED if ALL else ["grow", "change"])
def test_a_migration_that_is_killed_at_any_statement_is_ended_by_another_process(place, name):
    report = campaign(place, [name], every=1 if ALL else 40, seed=SEED, writes=not ALL, thorough=ALL)
    assert report.failures == []
    assert report.points[name] > 0


@pytest.mark.parametrize("name", ["undo", "refused"])
def test_a_migration_that_is_killed_while_it_is_undone_is_undone_once(copies, forks, name):
    report = Report()
    own = trial(name, copies, forks, report)
    commits = [n for n, sql in enumerate(own.trace, 1) if sql.startswith(("COMMIT", "RELEASE"))]
    for number in (commits[-2] + 1, commits[-1], commits[-1] + 1):
        own.kill({"number": number})
    assert report.failures == []
    assert report.points[name] == 3


@pytest.mark.skipif(not ALL, reason="a hundred thousand rows")
@pytest.mark.timeout(7200)
def test_a_rebuild_that_is_killed_at_any_moment_leaves_the_old_table_or_the_new_one():
    report = campaign("sqlite", ["rebuild"], seed=SEED)
    assert report.failures == []


# -- PostgreSQL: a concurrent build of an index goes on in the server -------------------------------------------------
BUILDING = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'CREATE%INDEX CONCURRENTLY%' AND pid <> pg_backend_pid()"
INVALID = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"


@asynccontextmanager
async def held(url):
    """Hold a snapshot, which concurrent builds wait for; yield what runs queries beside it."""
    import asyncpg

    holder, other = await asyncpg.connect(url), await asyncpg.connect(url)
    try:
        await holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        yield other.fetchval
    finally:
        await holder.close()
        await other.close()


async def until(ask, sql):
    deadline = time.monotonic() + 60
    while not (found := await ask(sql)):
        assert time.monotonic() < deadline, f"never: {sql}"
        await asyncio.sleep(0.02)
    return found


def test_a_build_that_outlives_its_process_is_waited_for_and_its_index_is_kept(databases, forks):
    own = trial("grow", databases, forks, Report())
    url = databases.fresh()
    task = {"url": url, "settings": databases.settings, "change": "grow"}

    async def scene():
        async with held(url) as ask:
            kill = {"sql": " INDEX CONCURRENTLY ", "delay": 0.5}
            (ended,) = await asyncio.to_thread(forks.run, {**task, "do": "act", "kill": kill})
            assert ended.killed
            pid = await until(ask, BUILDING)
            assert await until(ask, INVALID) == 1
            forks.start({**task, "do": "recover"})  # it finds the lock held by a server process without a client
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_try_advisory_lock%'"
            await until(ask, waiting)
            assert await ask(BUILDING) == pid
        (again,) = await asyncio.to_thread(forks.ended)
        return again.told

    found = asyncio.run(scene())
    assert "error" not in found, found
    assert {key: found[key] for key in ("schema", "rows", "registry", "history", "plan", "checks")} == {
        key: own.reference[key] for key in ("schema", "rows", "registry", "history", "plan", "checks")
    }


def test_a_lost_connection_is_told_and_what_it_has_left_of_an_index_is_repaired(databases, forks):
    own = trial("grow", databases, forks, Report())
    url = databases.fresh()
    task = {"url": url, "settings": databases.settings, "change": "grow"}

    async def scene():
        async with held(url) as ask:
            forks.start({**task, "do": "act"})
            pid = await until(ask, BUILDING)
            await until(ask, INVALID)
            await ask(f"SELECT pg_terminate_backend({pid}, 10000)")
            (ended,) = await asyncio.to_thread(forks.ended)
            assert await ask(INVALID) == 1
            return ended.told

    told = asyncio.run(scene())
    assert told["code"] == "migration-failed"
    assert "the connection to the database was lost" in told["error"]
    assert "migrate again: it goes on where it was" in told["error"]
    (again,) = forks.run({**task, "do": "recover"})
    assert "error" not in again.told, again.told
    assert again.told["schema"] == own.reference["schema"]
    assert again.told["checks"] == []
    assert again.told["history"] == ["done"]
