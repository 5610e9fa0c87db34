"""No value of another tenant ever appears: random programs as one tenant, beside rows of another full of canaries.

``python -m dataflow.enterprise.proof.canaries sqlite:///canaries.db --operations 200000 --isolation strict`` prints
what was done. Every result and every error, down to its causes, is searched; the other tenant's rows must be the same
at the end. ``--without rewriting`` takes the conditions out of the framework's own statements, so that the database is
alone.
"""

import argparse
import asyncio
import json
import random
import re
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from time import perf_counter
from typing import Annotated, Any
from unittest import mock
from uuid import UUID

import attrs

from dataflow import DataFlow, ForeignKey
from dataflow.enterprise.proof import canary_sql
from dataflow.enterprise.tenancy.rows import RowTenancy
from dataflow.errors import DataFlowError
from dataflow.operations import BY_NAME
from dataflow.runtime import LocalRuntime

ME, OTHER = "acme", "bolt"
CANARY = re.compile(r"CANARY|bolt|77007700\d|date(time)?\(2077|2077-07|7\.7007e\+77|c0ffee", re.IGNORECASE)
"""What only the other tenant's rows hold."""
SUBSETS: tuple[dict[str, bool], ...] = tuple(
    {"soft_delete": soft, "versioned": versioned, "audit_log": audit}
    for soft in (False, True)
    for versioned in (False, True)
    for audit in (False, True)
)
PROGRAM = 25
"""Operations of one program."""
_SUFFIXES = {"restore": "RestoreNode", "purge": "PurgeNode", "audit": "AuditNode"}


@attrs.define
class Outcome:
    """What was done and found.

    Attributes:
        operations: how many.
        kinds: operation and route -> how often.
        operators: filter operators -> how often.
        subsets: feature subset -> operations.
        refused: class of error -> how often.
        faults: canaries that were seen, and other things that must not be.
    """

    operations: int = 0
    kinds: Counter[str] = attrs.field(factory=Counter)
    operators: Counter[str] = attrs.field(factory=Counter)
    subsets: Counter[str] = attrs.field(factory=Counter)
    refused: Counter[str] = attrs.field(factory=Counter)
    faults: list[str] = attrs.field(factory=list)


def _declare(db: DataFlow, options: dict[str, bool]) -> None:
    wish = {"multi_tenant": True, **options}

    class Account:
        email: str
        secret: str
        size: int = 0
        ratio: float = 0.0
        price: Decimal = Decimal(0)
        flag: bool = False
        at: datetime | None = None
        day: date | None = None
        token: UUID | None = None
        data: dict[str, Any] | None = None
        tags: list[str] | None = None
        __dataflow__ = wish
        __indexes__ = [{"name": "uq_account_email", "fields": ["email"], "unique": True}]

    class Entry:
        account_id: Annotated[int, ForeignKey("Account", on_delete="cascade")]
        text: str = ""
        amount: int = 0
        badge_id: str | None = None
        __dataflow__ = wish

    class Badge:
        id: str
        label: str = ""
        worth: int = 0
        __dataflow__ = wish

    for model in (Account, Entry, Badge):
        db.model(model)


def _account(number: int, *, canary: bool) -> dict[str, Any]:
    if canary:
        return {
            "email": f"user{number}@x", "secret": f"CANARY-{number}", "size": 770077000 + number % 10,
            "ratio": 7.7007e77, "price": Decimal("770077001.5"), "flag": True, "at": datetime(2077, 7, 7, tzinfo=UTC),
            "day": date(2077, 7, 7), "token": UUID(int=0xC0FFEE << 100 | number), "data": {"k": f"CANARY-{number}"},
            "tags": [f"CANARY-{number}", "x"],
        }  # fmt: skip
    return {
        "email": f"user{number}@x", "secret": f"mine {number}", "size": number, "ratio": number / 4,
        "price": Decimal(number), "at": datetime(2020, 1, 1 + number % 28, tzinfo=UTC), "day": date(2020, 1, 1),
        "token": UUID(int=number), "data": {"k": number}, "tags": ["x", str(number)],
    }  # fmt: skip


def _fill(db: DataFlow, tenant: str, *, canary: bool) -> list[int]:
    x = db.express_sync
    with db.tenant(tenant), db.actor(f"{tenant}-admin"):
        ids: list[int] = x.bulk_create("Account", [_account(n, canary=canary) for n in range(12)], return_ids=True)[
            "ids"
        ]
        text = "CANARY entry" if canary else "entry"
        rows = [
            {"account_id": ids[n % 12], "text": f"{text} {n}", "amount": 770077001 if canary else n} for n in range(24)
        ]
        x.bulk_create("Entry", [{**row, "badge_id": f"K{n % 6}"} for n, row in enumerate(rows)])
        label = "CANARY badge" if canary else "badge"
        x.bulk_create(
            "Badge", [{"id": f"K{n}", "label": f"{label} {n}", "worth": 770077002 if canary else n} for n in range(6)]
        )
    return ids


class Program:
    """One sequence of random operations as one tenant.

    Args:
        db: the DataFlow.
        chance: the source of choices.
        ids: keys of one's own accounts and of the other tenant's.
        options: what the models have.
        outcome: where it is noted.
        isolation: how tenants are kept apart.
        only_sql: leave out all but SQL of one's own.
        loop: runs what is awaited.
    """

    def __init__(
        self, db: DataFlow, chance: random.Random, ids: list[int], options: dict[str, bool], outcome: Outcome,
        isolation: str, *, only_sql: bool, loop: asyncio.Runner,
    ) -> None:  # fmt: skip
        self.db = db
        self.chance = chance
        self.ids = ids
        self.options = options
        self.outcome = outcome
        self.isolation = isolation
        self.makers: list[tuple[str, Callable[[], tuple[str, dict[str, Any]]]]] = [
            (name.removeprefix("_do_"), getattr(self, name)) for name in sorted(dir(self)) if name.startswith("_do_")
        ]
        self.makers = [pair for pair in self.makers if pair[0] in self._kinds()]
        self.only_sql = only_sql
        self.loop = loop

    def _kinds(self) -> set[str]:
        kinds = set(BY_NAME)
        kinds |= {"restore", "purge"} if self.options["soft_delete"] else set()
        return kinds | ({"audit"} if self.options["audit_log"] else set())

    # -- values --------------------------------------------------------------------------------------------------
    def _id(self) -> int:
        return self.chance.choice([*self.ids, 999_999])

    def _key(self) -> str:
        return f"K{self.chance.randrange(9)}"

    def _email(self) -> str:
        return f"user{self.chance.randrange(16)}@x"

    def _model(self) -> str:
        return self.chance.choice(("Account", "Account", "Entry", "Badge"))

    def _condition(self, model: str) -> dict[str, Any]:
        pick, chance = self.chance.choice, self.chance
        number = chance.randrange(16)
        by_model: dict[str, list[dict[str, Any]]] = {
            "Account": [
                {"email": pick([self._email(), {"$in": [self._email(), self._email()]}, {"$startswith": "user"}])},
                {
                    "secret": pick(
                        [
                            {"$ilike": "%canary%"},
                            {"$regex": "^C"},
                            {"$contains": "ARY"},
                            {"$ne": "mine 1"},
                            {"$endswith": "1"},
                        ]
                    )
                },
                {
                    "size": pick(
                        [
                            {"$gt": 700},
                            {"$between": [0, 10**9]},
                            {"$nin": [1, 2]},
                            {"$gte": 770077000},
                            {"$lt": 10},
                            {"$lte": 10},
                        ]
                    )
                },
                {"ratio": pick([{"$gt": 1e70}, {"$lt": 3.0}])},
                {"price": pick([{"$gte": Decimal(770)}, {"$eq": Decimal(number)}])},
                {"flag": pick([True, {"$ne": False}])},
                {"at": pick([{"$gte": "2070-01-01"}, {"$exists": True}, None, {"$null": False}])},
                {"day": {"$gt": "2070-01-01"}},
                {"token": pick([{"$ne": UUID(int=1)}, {"$in": [UUID(int=number)]}])},
                {"data": pick([{"k": {"$regex": "CAN"}}, {"$contains": {"k": number}}, {"k": {"$gt": 3}}])},
                {"tags": pick([{"$overlap": ["x"]}, {"$contains": "x"}])},
                {"entries": pick([{"amount": {"$gt": 100}}, {"text": {"$like": "%entry%"}}, {"$exists": True}])},
                {"id": pick([self._id(), {"$in": [self._id(), self._id()]}, {"$not": {"$in": self.ids}}])},
            ],
            "Entry": [
                {"account": pick([{"secret": {"$regex": "C"}}, {"email": self._email()}, None, {"flag": True}])},
                {"badge": pick([{"label": {"$ilike": "%badge%"}}, {"worth": {"$gt": 1000}}])},
                {"account_id": self._id()},
                {"text": pick([{"$iregex": "canary"}, {"$like": "entry%"}])},
                {"amount": pick([{"$gt": number}, {"$ne": 3}])},
            ],
            "Badge": [
                {"id": pick([self._key(), {"$in": [self._key(), self._key()]}])},
                {"label": pick([{"$contains": "badge"}, {"$regex": "^[A-Z]"}])},
                {"worth": {"$gte": number}},
                {"entries": {"amount": {"$gt": number}}},
            ],
        }
        document = pick(by_model[model])
        turn = chance.random()
        if turn < 0.15:
            document = {"$or": [document, pick(by_model[model])]}
        elif turn < 0.25:
            document = {"$nor": [document]}
        elif turn < 0.35:
            document = {"$and": [document, pick(by_model[model])]}
        elif turn < 0.4:
            document = {"$not": document}
        self.outcome.operators.update(re.findall(r"'(\$\w+)'", repr(document)))
        return document

    def _reading(self) -> dict[str, Any]:
        if not self.options["soft_delete"] or self.chance.random() < 0.7:
            return {}
        return {self.chance.choice(["include_deleted", "only_deleted"]): True}

    def _include(self, model: str) -> dict[str, Any]:
        choices = {
            "Account": ["entries", "entries.badge"],
            "Entry": ["account", "badge", "account.entries"],
            "Badge": ["entries.account"],
        }
        return {"include": [self.chance.choice(choices[model])]} if self.chance.random() < 0.4 else {}

    # -- operations: (model, parameters) --------------------------------------------------------------------------
    def _do_create(self) -> tuple[str, dict[str, Any]]:
        model = self._model()
        if model == "Account":
            return model, {"values": _account(self.chance.randrange(16), canary=False)}
        if model == "Entry":
            return model, {"values": {"account_id": self._id(), "text": "new", "badge_id": self._key()}}
        return model, {"values": {"id": self._key(), "label": "new"}}

    def _named(self, model: str) -> dict[str, Any]:
        if self.chance.random() < 0.3:
            return {"conditions": self._condition(model)}
        return {"id": self._key() if model == "Badge" else self._id()}

    def _do_read(self) -> tuple[str, dict[str, Any]]:
        model = self._model()
        return model, {**self._named(model), **self._reading(), **self._include(model)}

    def _changes(self, model: str) -> dict[str, Any]:
        n = self.chance.randrange(50)
        if model == "Account":
            return self.chance.choice(
                [{"secret": f"mine {n}"}, {"size": {"$inc": n}}, {"email": self._email()}, {"tags": {"$append": "y"}}]
            )
        return {"text": f"t{n}"} if model == "Entry" else {"label": f"l{n}"}

    def _do_update(self) -> tuple[str, dict[str, Any]]:
        model = self._model()
        values = self._changes(model)
        if self.options["versioned"] and self.chance.random() < 0.3:
            values["version"] = self.chance.randrange(1, 4)
        return model, {**self._named(model), "values": values}

    def _do_delete(self) -> tuple[str, dict[str, Any]]:
        model = self._model()
        hard = {"soft_delete": False} if self.options["soft_delete"] and self.chance.random() < 0.3 else {}
        return model, {**self._named(model), **hard}

    def _do_list(self) -> tuple[str, dict[str, Any]]:
        model = self._model()
        page: dict[str, Any] = self.chance.choice(
            [{}, {"limit": 3}, {"limit": 5, "offset": 2}, {"include_total": True}, {"count_only": True}]
        )
        sort = {"sort": [self.chance.choice(["-id", "id"])]} if self.chance.random() < 0.5 else {}
        return model, {"filter": self._condition(model), **page, **sort, **self._reading(), **self._include(model)}

    def _do_count(self) -> tuple[str, dict[str, Any]]:
        model = self._model()
        return model, {"filter": self._condition(model), **self._reading()}

    def _do_aggregate(self) -> tuple[str, dict[str, Any]]:
        model, pick = self._model(), self.chance.choice
        number = {"Account": "size", "Entry": "amount", "Badge": "worth"}[model]
        text = {"Account": "secret", "Entry": "text", "Badge": "label"}[model]
        wanted = {
            "n": {"$count": "*"},
            "a": {pick(["$sum", "$avg", "$min", "$max"]): number},
            "t": {pick(["$max", "$count_distinct"]): text},
        }
        group = {"group_by": [text], "having": {"n": {"$gte": 1}}} if self.chance.random() < 0.5 else {}
        return model, {"aggregate": wanted, "filter": self._condition(model), **group, **self._reading()}

    def _do_upsert(self) -> tuple[str, dict[str, Any]]:
        if self.chance.random() < 0.5:
            return "Badge", {"where": {"id": self._key()}, "create": {"label": "up"}}
        values = _account(self.chance.randrange(16), canary=False)
        return "Account", {"where": {"email": values.pop("email")}, "create": values}

    def _do_bulk_create(self) -> tuple[str, dict[str, Any]]:
        resolution = self.chance.choice(["error", "skip", "upsert"])
        common = {"conflict_resolution": resolution, "return_ids": self.chance.random() < 0.5}
        if self.chance.random() < 0.5:
            return "Badge", {"data": [{"id": key, "label": "b"} for key in {self._key(), self._key()}], **common}
        numbers = self.chance.sample(range(16), 3)
        return "Account", {"data": [_account(n, canary=False) for n in numbers], **common}

    def _do_bulk_update(self) -> tuple[str, dict[str, Any]]:
        model = self._model()
        if self.chance.random() < 0.5:
            return model, {"filter": self._condition(model), "update": self._changes(model), "return_ids": True}
        keys = {self._key(), self._key()} if model == "Badge" else {self._id(), self._id()}
        changes = self._changes(model)
        return model, {"data": [{"id": key, **changes} for key in keys], "return_ids": True}

    def _do_bulk_delete(self) -> tuple[str, dict[str, Any]]:
        model = self._model()
        if self.chance.random() < 0.3:
            keys = [self._key()] if model == "Badge" else [self._id(), self._id()]
            return model, {"ids": keys, "return_ids": True}
        return model, {"filter": self._condition(model), "limit": 2, "return_ids": True}

    def _do_bulk_upsert(self) -> tuple[str, dict[str, Any]]:
        if self.chance.random() < 0.5:
            return "Badge", {
                "data": [{"id": key, "label": "u"} for key in {self._key(), self._key()}],
                "return_ids": True,
            }
        rows = [_account(n, canary=False) for n in self.chance.sample(range(16), 3)]
        return "Account", {"data": rows, "key_fields": ["email"], "return_ids": True}

    def _do_restore(self) -> tuple[str, dict[str, Any]]:
        model = self._model()
        return model, self._named(model)

    def _do_purge(self) -> tuple[str, dict[str, Any]]:
        return self._model(), {"older_than": 0, "limit": 3}

    def _do_audit(self) -> tuple[str, dict[str, Any]]:
        model = self._model()
        key = self._key() if model == "Badge" else self._id()
        return model, self.chance.choice(
            [
                {"record_id": key},
                {"limit": 5},
                {"actor": "acme-admin", "limit": 2},
                {"action_type": "update", "limit": 3},
            ]
        )

    # -- running --------------------------------------------------------------------------------------------------
    def run(self) -> None:
        """Run the operations, and search what comes of them."""
        for _ in range(PROGRAM):
            if self.only_sql or self.chance.random() < 0.12:
                self._sql()
                continue
            name, make = self.chance.choice(self.makers)
            model, params = make()
            if self.chance.random() < 0.03:
                params["tenant_id"] = self.chance.choice([ME, OTHER])
            self._watched(name, partial(self._call, name, model, params), (model, params))

    def _call(self, name: str, model: str, params: dict[str, Any]) -> Any:
        route = self.chance.choice(("sync", "async", "workflow", "scope"))
        self.outcome.kinds[f"{name} {route}"] += 1
        if route == "sync":
            return self.db.express_sync.call(name, model, **params)
        if route == "async":
            return self.loop.run(self.db.express.call(name, model, **params))
        builder = self.db.workflow()
        if route == "scope":
            builder.add_node("TransactionScopeNode", "scope", {})
        suffix = _SUFFIXES.get(name) or BY_NAME[name].suffix
        builder.add_node(f"{model}{suffix}", "node", params)
        return LocalRuntime().execute(builder.build())[0]

    def _sql(self) -> None:
        dialect = self.db.core.dialect.name
        query = canary_sql.query(
            self.chance, dialect, confined=self.isolation != "shared", rows=self.isolation in ("shared", "strict")
        )
        self.outcome.kinds["sql"] += 1
        params = {"query": query, "fetch_mode": self.chance.choice(["all", "all", "one", "value"])}

        def run() -> Any:
            builder = self.db.workflow()
            if self.chance.random() < 0.2:
                builder.add_node("TransactionScopeNode", "scope", {})
            builder.add_node("AsyncSQLDatabaseNode", "node", params)
            return LocalRuntime().execute(builder.build())[0]

        self._watched("sql", run, query)

    def _watched(self, name: str, call: Callable[[], Any], what: Any) -> None:
        outcome = self.outcome
        outcome.operations += 1
        outcome.subsets[" ".join(key for key, on in self.options.items() if on) or "none"] += 1
        try:
            found = repr(call())
        except DataFlowError as error:
            outcome.refused[type(error.__cause__ or error).__name__] += 1
            found = _told(error)
        except Exception as error:  # noqa: BLE001  # an error that is none of ours is a finding
            outcome.faults.append(f"{name} raised {type(error).__name__}: {error}; {what}"[:600])
            return
        seen = CANARY.search(found)
        if seen:
            outcome.faults.append(
                f"{name} shows {seen[0]!r}: {found[max(seen.start() - 80, 0) : seen.end() + 40]}; {what}"[:900]
            )


def _told(error: BaseException) -> str:
    """Return everything an error tells, with its causes; not what the traceback's source lines say."""
    parts: list[str] = []
    step: BaseException | None = error
    while step is not None:
        parts += ["".join(traceback.format_exception_only(step)), repr(step), repr(step.args)]
        if isinstance(step, DataFlowError):
            parts.append(json.dumps(step.to_dict(), default=repr))
            parts.append(repr(getattr(step, "results", "")))
        step = step.__cause__ or (None if step.__suppress_context__ else step.__context__)
    return "\n".join(parts)


@contextmanager
def _alone(*, rewriting: bool) -> Iterator[None]:
    """Take the tenant's condition out of the framework's statements, unless `rewriting`."""
    if rewriting:
        yield
        return

    def only_stamp(feature: RowTenancy, plan: Any) -> None:
        if plan.statement == "insert":
            original(feature, plan)

    original = RowTenancy.extend_plan
    with mock.patch.object(RowTenancy, "extend_plan", only_stamp):
        yield


def _state(db: DataFlow) -> str:
    with db.tenant(OTHER):
        found = {}
        for model in ("Account", "Entry", "Badge"):
            options: dict[str, Any] = {"include_deleted": True} if db.get_spec(model).ends else {}
            found[model] = db.express_sync.list(model, **options)["records"]
        return repr(found)


def run(
    place: Callable[[int], tuple[str, dict[str, Any]]],
    *,
    operations: int,
    isolation: str,
    rewriting: bool = True,
    seed: int = 1,
) -> Outcome:
    """Run programs over all feature subsets.

    Args:
        place: number of a subset -> (URL of an empty database, settings).
        operations: how many in all.
        isolation: setting `tenant_isolation`.
        rewriting: whether the framework confines its own statements.
        seed: of the choices.
    """
    outcome = Outcome()
    each = max(operations // len(SUBSETS) // PROGRAM, 1)
    for number, options in enumerate(SUBSETS):
        chance = random.Random(seed * 100 + number)
        url, settings = place(number)
        with ExitStack() as stack:
            db = stack.enter_context(DataFlow(url, tenant_isolation=isolation, **settings))
            _declare(db, options)
            others = _fill(db, OTHER, canary=True)
            own = _fill(db, ME, canary=False)
            before = _state(db)
            only_sql = not rewriting and db.core.dialect.name == "sqlite"
            _forget_plans(db)
            with _alone(rewriting=rewriting), db.tenant(ME), db.actor("acme-user"), asyncio.Runner() as loop:
                for turn in range(each):
                    if turn % 20 == 19 and not only_sql:
                        _refill(db)
                    Program(
                        db, chance, [*own[:6], *others[:6]], options, outcome, isolation, only_sql=only_sql, loop=loop
                    ).run()
            _forget_plans(db)
            if _state(db) != before:
                outcome.faults.append(f"{options}: the other tenant's rows changed")
    return outcome


def _forget_plans(db: DataFlow) -> None:
    """Compile everything anew: what features ask of plans has changed."""
    for model in db.core.models.values():
        model.plans.clear()


def _refill(db: DataFlow) -> None:
    """Give the tenant rows again, where its programs have deleted most of them."""
    x = db.express_sync
    x.bulk_upsert("Account", [_account(n, canary=False) for n in range(12)], ["email"])
    ids = [record["id"] for record in x.list("Account", fields=["id"])["records"]]
    x.bulk_create("Entry", [{"account_id": key, "text": "entry", "badge_id": "K1"} for key in ids[:6]])
    if x.count("Entry")["count"] > 200:
        hard: dict[str, Any] = {"soft_delete": False} if db.get_spec("Entry").ends else {}
        x.bulk_delete("Entry", filter={"amount": 0}, **hard)


def main(arguments: list[str] | None = None) -> int:
    """Run the proof and print the outcome as JSON; 1 where a canary was seen."""
    parser = argparse.ArgumentParser(prog="python -m dataflow.enterprise.proof.canaries", description=__doc__)
    parser.add_argument("url", help="a SQLite file (others are made beside it), or a PostgreSQL database")
    parser.add_argument("--operations", type=int, default=200_000)
    parser.add_argument("--isolation", choices=["shared", "strict", "schema", "database"], default="shared")
    parser.add_argument("--without", choices=["rewriting"])
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)

    def place(number: int) -> tuple[str, dict[str, Any]]:
        settings: dict[str, Any] = {"multi_tenant": True, "tenant_database_prefix": f"c{number}_"}
        if given.url.startswith("sqlite"):
            return given.url.replace(".db", f"_{given.isolation}_{number}.db"), {
                **settings,
                "sqlite_synchronous": "OFF",
            }
        if given.isolation not in ("schema", "database"):
            settings["postgres_schema"] = f"canaries_{number}"
        return given.url, {**settings, "pool_size": 2}

    start = perf_counter()
    outcome = run(
        place, operations=given.operations, isolation=given.isolation, rewriting=not given.without, seed=given.seed
    )
    told = {
        "operations": outcome.operations,
        "isolation": given.isolation,
        "without": given.without,
        "kinds": dict(sorted(outcome.kinds.items())),
        "operators": dict(sorted(outcome.operators.items())),
        "subsets": dict(outcome.subsets),
        "refused": dict(outcome.refused),
        "faults": outcome.faults[:20],
        "fault_count": len(outcome.faults),
        "seconds": round(perf_counter() - start, 1),
    }
    sys.stdout.write(json.dumps(told, indent=1) + "\n")
    return bool(outcome.faults)


if __name__ == "__main__":
    sys.exit(main())
