"""No lost update: writers read, modify and write the same few records at once, each change against the version it read.

``python -m dataflow.enterprise.proof.versions sqlite:///versions.db --histories 100000`` tells what happened. Each
success must have made a version that no other made, and the sum of all that was added must be there in the end.
"""

import argparse
import asyncio
import json
import random
import sys
from collections import Counter
from time import perf_counter
from typing import Any

import attrs

from dataflow import DataFlow
from dataflow.errors import VersionConflict
from dataflow.runtime import AsyncLocalRuntime

WAYS = ("update", "update by conditions", "upsert", "bulk_update", "bulk_upsert", "workflow", "transaction")


@attrs.define
class Outcome:
    """What the writers saw.

    Attributes:
        histories: attempts to read, modify and write.
        conflicts: those that were refused, because the record had changed meanwhile.
        made: (record, version) -> how often a success reported to have made it.
        added: record -> what successes added.
        ways: way of writing -> successes.
        faults: what must not be, in words.
    """

    histories: int = 0
    conflicts: int = 0
    made: Counter[tuple[int, int]] = attrs.field(factory=Counter)
    added: Counter[int] = attrs.field(factory=Counter)
    ways: Counter[str] = attrs.field(factory=Counter)
    faults: list[str] = attrs.field(factory=list)


def _model(db: DataFlow) -> None:
    class Hot:
        code: str
        total: int = 0
        __dataflow__ = {"versioned": True}
        __indexes__ = [{"name": "uq_hot_code", "fields": ["code"], "unique": True}]

    db.model(Hot)


async def _write(db: DataFlow, way: str, record: dict[str, Any], value: int) -> int:
    """Write a new total against the version that was read; return the version it makes."""
    x, key = db.express, record["id"]
    version: int = record["version"]
    if way == "update":
        return _made(await x.update("Hot", key, {"total": value, "version": version}))
    if way == "update by conditions":
        params = {"conditions": {"code": record["code"]}, "values": {"total": value}, "version": version}
        return _made(await x.call("update", "Hot", **params))
    if way == "upsert":
        return _made(await x.upsert("Hot", {"code": record["code"]}, {"total": value}, version=version))
    if way == "bulk_update":
        await x.bulk_update("Hot", data=[{"id": key, "total": value, "version": version}])
    elif way == "bulk_upsert":
        row = {"code": record["code"], "total": value, "version": version}
        await x.bulk_upsert("Hot", [row], ["code"])
    elif way == "workflow":
        builder = db.workflow().add_node("HotUpdateNode", "write", {"id": key, "total": value, "version": version})
        await AsyncLocalRuntime().execute_async(builder.build())
    else:  # two changes, both or none
        builder = db.workflow().add_node("TransactionScopeNode", "scope", {})
        builder.add_node("HotUpdateNode", "first", {"id": key, "total": value + 1, "version": version})
        builder.add_node("HotUpdateNode", "second", {"id": key, "total": value, "version": version + 1})
        await AsyncLocalRuntime().execute_async(builder.build())
        return version + 2
    return version + 1


def _made(record: dict[str, Any]) -> int:
    version: int = record["version"]
    return version


def _is_conflict(error: BaseException) -> bool:
    return isinstance(error, VersionConflict) or isinstance(error.__cause__, VersionConflict)


async def _writer(db: DataFlow, seed: int, times: int, rows: int, outcome: Outcome) -> None:
    chance = random.Random(seed)
    for _ in range(times):
        key, way = chance.randrange(1, rows + 1), chance.choice(WAYS)
        record = await db.express.read("Hot", key)
        outcome.histories += 1
        add = chance.randrange(1, 10)
        try:
            version = await _write(db, way, record, record["total"] + add)
        except Exception as error:  # noqa: BLE001  # what else happened is a finding
            if not _is_conflict(error):
                outcome.faults.append(f"{way}: {type(error).__name__}: {error}")
            outcome.conflicts += 1
            continue
        for made in range(record["version"] + 1, version + 1):
            outcome.made[key, made] += 1
        outcome.added[key] += add
        outcome.ways[way] += 1


async def run(
    url: str, *, histories: int, writers: int = 16, rows: int = 10, seed: int = 1, **settings: Any
) -> Outcome:
    """Let writers work on the same records, and check what is left.

    Args:
        url: of an empty database.
        histories: attempts in all.
        writers: tasks at once.
        rows: records that all of them change.
        seed: of the random choices.
        settings: of the DataFlow.
    """
    outcome = Outcome()
    async with DataFlow(url, **settings) as db:
        _model(db)
        await db.express.bulk_create("Hot", [{"code": f"c{n}"} for n in range(rows)])
        each = histories // writers
        await asyncio.gather(*[_writer(db, seed * 1000 + n, each, rows, outcome) for n in range(writers)])
        for record in (await db.express.list("Hot"))["records"]:
            _check(record, outcome)
    return outcome


def _check(record: dict[str, Any], outcome: Outcome) -> None:
    key = record["id"]
    versions = sorted(version for made, version in outcome.made if made == key)
    twice = [version for version in versions if outcome.made[key, version] > 1]
    if twice:
        outcome.faults.append(f"record {key}: version {twice[0]} was made twice: an update is lost")
    if record["version"] != 1 + len(versions):
        outcome.faults.append(f"record {key} has version {record['version']} after {len(versions)} changes")
    if record["total"] != outcome.added[key]:
        outcome.faults.append(f"record {key} has {record['total']}, and {outcome.added[key]} was added")


def main(arguments: list[str] | None = None) -> int:
    """Run the proof and print the outcome as JSON; 1 where something must not be."""
    parser = argparse.ArgumentParser(prog="python -m dataflow.enterprise.proof.versions", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--histories", type=int, default=100_000)
    parser.add_argument("--writers", type=int, default=16)
    parser.add_argument("--rows", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    start = perf_counter()
    work = run(given.url, histories=given.histories, writers=given.writers, rows=given.rows, seed=given.seed)
    outcome = asyncio.run(work)
    told = {
        "histories": outcome.histories,
        "conflicts": outcome.conflicts,
        "share": round(outcome.conflicts / outcome.histories, 3),
        "ways": dict(outcome.ways),
        "faults": outcome.faults[:10],
        "seconds": round(perf_counter() - start, 1),
    }
    sys.stdout.write(json.dumps(told, indent=1) + "\n")
    return bool(outcome.faults)


if __name__ == "__main__":
    sys.exit(main())
