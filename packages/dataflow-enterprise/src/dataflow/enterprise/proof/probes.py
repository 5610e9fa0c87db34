"""Questions that could tell of another tenant's records though no value of theirs is shown.

Every filter operator on every type of field, directly and through relations, in every kind of node: the other tenant's
values lie where none of one's own does, so a filter that means them must find nothing, and its negation everything.
Aggregates, groups and pages must be what one's own records alone give; and unique keys, upserts and references must
behave as if the others' records were not there.
``python -m dataflow.enterprise.proof.probes --help``.
"""

import argparse
import enum
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import cycle
from random import Random
from time import perf_counter
from typing import Annotated, Any
from unittest import mock
from uuid import UUID

import attrs

from dataflow import DataFlow, ForeignKey
from dataflow.enterprise.proof.shop import OF_MODELS, SUBSETS, initials
from dataflow.enterprise.tenancy.rows import RowTenancy
from dataflow.errors import DataFlowError

ME, OTHER = "acme", "bolt"
TENANTED = tuple(subset for subset in SUBSETS if "multi_tenant" in subset)
KINDS = (
    "list", "count", "aggregate", "read", "update", "bulk_update", "delete", "bulk_delete", "negated list",
    "negated count", "negated aggregate",
)  # fmt: skip
PATHS = ("own", "to one", "to many", "to one twice")
"""How the filter reaches the field: directly, or through relations."""
ROWS = 7


class Color(enum.Enum):
    """Stored by value."""

    GREEN = "green"
    RED = "red"
    THEIRS = "THEIRS"


def _values(number: int, *, theirs: bool) -> dict[str, Any]:
    """Return one record; what is theirs is outside the range of one's own in every field."""
    if theirs:
        return {
            "text": f"THEIRS {number} SRIEHT", "number": 10**9 + number, "ratio": 1e50 + number,
            "price": Decimal(10**9 + number), "raw": b"THEIRS%d" % number,
            "moment": datetime(1977, 7, 1 + number, tzinfo=UTC), "day": date(1977, 7, 1 + number),
            "clock": time(3, 33, number), "token": UUID(int=(0xFEEDFEED << 96) + number),
            "color": Color.THEIRS, "words": ["THEIRS", f"THEIRS {number}"], "numbers": [10**9, 10**9 + number],
            "data": {"k": f"THEIRS {number}", "n": 10**9 + number, "deep": {"x": ["THEIRS"]}},
        }  # fmt: skip
    empty = number == ROWS - 1
    own = {
        "text": f"mine {number} enim", "number": number, "ratio": number / 4, "price": Decimal(number) / 8,
        "raw": b"mine%d" % number,
        "moment": datetime(2020, 1, 1 + number, tzinfo=UTC), "day": date(2020, 1, 1 + number),
        "clock": time(12, number), "token": UUID(int=number + 1), "color": Color.RED if number % 2 else Color.GREEN,
        "words": ["mine", str(number)], "numbers": [number], "data": {"k": f"mine {number}", "n": number},
    }  # fmt: skip
    return dict.fromkeys(own) if empty else own


LOW, HIGH = _values(0, theirs=True), _values(ROWS - 1, theirs=True)
_RANGED = ("number", "ratio", "price", "token")
"""Fields where theirs lie above; in all others that have an order they lie below."""


def _pairs() -> Iterator[tuple[str, str, Any, bool]]:
    """Yield (field, operator, condition, whether it finds only theirs; else it finds all of one's own)."""
    for name in LOW:
        low, high = LOW[name], HIGH[name]
        plain = not isinstance(low, (list, dict))
        yield name, "=", low, True
        yield name, "$eq", {"$eq": low}, True
        yield name, "$ne", {"$ne": low}, False
        yield name, "$not", {"$not": low if not isinstance(low, dict) else {"$eq": low}}, False
        if name not in ("words", "numbers"):
            yield name, "$in", {"$in": [low, high]}, True
            yield name, "$nin", {"$nin": [low, high]}, False
        if plain:
            yield from _ordered(name, low, high)
    for op, pattern in {
        "$like": "THEIRS%", "$ilike": "theirs%", "$regex": "^THEIRS", "$iregex": "^theirs", "$startswith": "THEIRS",
        "$endswith": "SRIEHT", "$contains": "HEIRS",
    }.items():  # fmt: skip
        yield "text", op, {op: pattern}, True
    yield "words", "$contains", {"$contains": "THEIRS"}, True
    yield "words", "$overlap", {"$overlap": ["THEIRS", "nothing"]}, True
    yield "numbers", "$contains", {"$contains": 10**9}, True
    yield "numbers", "$overlap", {"$overlap": [10**9, -1]}, True
    yield "data", "$contains", {"$contains": {"k": LOW["data"]["k"]}}, True
    for op, operand in {
        "$eq": LOW["data"]["k"], "$in": [LOW["data"]["k"]], "$regex": "^THEIRS", "$startswith": "THEIRS",
        "$ilike": "theirs%", "$contains": "HEIRS",
    }.items():  # fmt: skip
        yield "data", f"member {op}", {"k": {op: operand}}, True
    yield "data", "member $gt", {"n": {"$gt": 10**8}}, True
    yield "data", "member $between", {"n": {"$between": [10**8, 10**10]}}, True
    yield "data", "member $ne", {"k": {"$ne": LOW["data"]["k"]}}, False
    yield "data", "member $exists", {"deep": {"$exists": True}}, True
    yield "data", "member $overlap", {"deep": {"x": {"$overlap": ["THEIRS"]}}}, True


def _ordered(name: str, low: Any, high: Any) -> Iterator[tuple[str, str, Any, bool]]:
    yield name, "$between", {"$between": [low, high]}, True
    for op in ("$gt", "$gte") if name in _RANGED else ("$lt", "$lte"):
        strict = op in ("$gt", "$lt")
        bound = low if name in _RANGED else high
        if not strict or name != "color":
            yield name, op, {op: bound}, True
    if name == "color":
        yield name, "$lt", {"$lt": Color.GREEN}, True
    for op in ("$lt", "$lte") if name in _RANGED else ("$gt", "$gte"):
        limit = {"number": -1, "ratio": -1.0, "price": Decimal(-1), "text": "z", "raw": b"z", "clock": time(23),
                 "moment": datetime(2030, 1, 1, tzinfo=UTC), "day": date(2030, 1, 1), "color": Color.RED,
                 "token": UUID(int=0)}[name]  # fmt: skip
        if not (name == "color" and op == "$gte"):
            yield name, op, {op: limit}, True


PAIRS = tuple(_pairs())


@attrs.define
class Outcome:
    """What was asked, and what told too much.

    Attributes:
        questions: how many.
        pairs: (operator, field) -> how often.
        kinds: (kind of node, subset) -> how often.
        paths: how fields were reached -> how often.
        faults: answers that tell of others.
    """

    questions: int = 0
    pairs: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    kinds: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    paths: Counter[str] = attrs.field(factory=Counter)
    faults: list[str] = attrs.field(factory=list)

    def empty(self) -> list[tuple[str, str]]:
        """Return the pairs of operator and field, and of node and subset, that did not occur."""
        wanted = [(op, name) for name, op, _, _ in PAIRS]
        cells = [(kind, initials(subset)) for kind in (*KINDS, *OTHERS) for subset in TENANTED]
        return [pair for pair in wanted if not self.pairs[pair]] + [cell for cell in cells if not self.kinds[cell]]

    def table(self) -> str:
        """Return what occurred: operators by fields, nodes by subsets."""
        lines = []
        for title, found in (("operator", self.pairs), ("node", self.kinds)):
            columns = list(dict.fromkeys(column for _, column in found))
            rows = [[title, *columns]]
            for name in dict.fromkeys(row for row, _ in found):
                rows.append([name, *(str(found[name, column] or ".") for column in columns)])
            widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
            lines += [" ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
            lines.append("")
        return "\n".join([*lines, f"paths: {dict(self.paths)}"])


def declare(db: DataFlow, subset: frozenset[str], prefix: str) -> None:
    """Register the models: shelves hold secrets, secrets have tickets, whose keys are the client's."""
    wish = {name: True for name in OF_MODELS if name in subset}

    class Shelf:
        title: str
        __dataflow__ = wish
        __tablename__ = f"{prefix}shelves"

    class Secret:
        shelf_id: Annotated[int | None, ForeignKey("Shelf", on_delete="set null")] = None
        email: str
        text: str | None
        number: int | None
        ratio: float | None
        price: Decimal | None
        raw: bytes | None
        moment: datetime | None
        day: date | None
        clock: time | None
        token: UUID | None
        color: Color | None
        words: list[str] | None
        numbers: list[int] | None
        data: Any = None
        __dataflow__ = wish
        __tablename__ = f"{prefix}secrets"
        __indexes__ = [{"name": f"uq_{prefix}secrets_email", "fields": ["email"], "unique": True}]

    class Ticket:
        id: str
        secret_id: int | None = None
        label: str = ""
        __dataflow__ = wish
        __tablename__ = f"{prefix}tickets"

    for model in (Shelf, Secret, Ticket):
        db.model(model)


OTHERS = ("arithmetic", "groups", "pages", "unique keys", "upserts", "references", "keys", "includes")
POLICY: Mapping[str, Any] = {"operation": {"deny": ["purge"]}}


class Prober:
    """Asks as one tenant.

    Args:
        db: with the models, and rows of both tenants.
        subset: the features of the models.
        theirs: ids of the other tenant's secrets.
        outcome: where it is noted.
    """

    def __init__(self, db: DataFlow, subset: frozenset[str], theirs: list[int], outcome: Outcome) -> None:
        self.db = db
        self.x = db.express_sync
        self.subset = subset
        self.theirs = theirs
        self.outcome = outcome
        self.hard: dict[str, Any] = {"soft_delete": False} if "soft_delete" in subset else {}

    def note(self, kind: str, what: Any, found: Any, wanted: Any) -> None:
        """Note a question and its answer."""
        self.outcome.questions += 1
        self.outcome.kinds[kind, initials(self.subset)] += 1
        if found != wanted:
            self.outcome.faults.append(f"{initials(self.subset)} {kind}: {what}: {found!r} instead of {wanted!r}"[:700])

    def all(self, model: str) -> int:
        """Return how many records one has oneself."""
        return len(self.x.list(model)["records"])

    def mine(self) -> list[dict[str, Any]]:
        """Return one's own secrets, whatever else is shown."""
        found = self.x.list("Secret")["records"]
        return [record for record in found if record["number"] is None or record["number"] < LOW["number"]]

    # -- filters ------------------------------------------------------------------------------------------------------
    def ask(self, pair: tuple[str, str, Any, bool], path: str, kind: str) -> None:
        """Ask one question about a field, in one way.

        Args:
            pair: field, operator, condition, and whether it means only theirs.
            path: one of `PATHS`.
            kind: one of `KINDS`; a negated one asks for everything.
        """
        name, op, condition, finds_theirs = pair
        self.outcome.pairs[op, name] += 1
        self.outcome.paths[path] += 1
        document = {name: condition} if finds_theirs else {"$not": {name: condition}}
        model = "Secret"
        if path == "to one":
            model, document = "Ticket", {"secret": document}
        elif path == "to many":
            model, document = "Shelf", {"secrets": {"$and": [document]}}
        elif path == "to one twice":
            model, document = "Ticket", {"secret": {"shelf": {"secrets": document}}}
        wanted = 0
        if kind.startswith("negated "):
            wanted, document = self.all(model), {"$not": document} if len(op) % 2 else {"$nor": [document]}
        self.note(kind, (path, document), self._count(kind.removeprefix("negated "), model, document), wanted)

    def _count(self, kind: str, model: str, document: Mapping[str, Any]) -> int:
        x = self.x
        change = {"Secret": {"text": "taken"}, "Ticket": {"label": "taken"}, "Shelf": {"title": "taken"}}[model]
        ways: dict[str, Callable[[], Any]] = {
            "list": lambda: len(x.list(model, document, limit=100)["records"]),
            "count": lambda: x.count(model, document)["count"],
            "aggregate": lambda: x.aggregate(model, filter=document, aggregate={"n": {"$count": "*"}})["groups"][0][
                "n"
            ],
            "read": lambda: int(x.read(model, conditions=document)["found"]),
            "update": lambda: x.call("update", model, conditions=document, values=change)["updated"],
            "bulk_update": lambda: x.bulk_update(model, filter=document, update=change)["updated"],
            "delete": lambda: x.call("delete", model, conditions=document)["deleted"],
            "bulk_delete": lambda: x.bulk_delete(model, filter=document, confirmed=True)["deleted"],
        }
        return int(ways[kind]())

    # -- other questions ----------------------------------------------------------------------------------------------
    def ask_others(self) -> None:
        """Ask all that is no filter."""
        for kind in OTHERS:
            try:
                getattr(self, f"_{kind.replace(' ', '_')}")(kind)
            except DataFlowError as error:
                self.note(kind, "error", f"{type(error).__name__}: {error.message}", "an answer")

    def _arithmetic(self, kind: str) -> None:
        """Compare aggregates with those of one's own records."""
        own = self.mine()
        for name in ("number", "ratio", "price"):
            values = [record[name] for record in own if record[name] is not None]
            wanted = {"a": sum(values), "b": min(values), "c": max(values), "d": len(values), "e": len(set(values))}
            asked = {"a": "$sum", "b": "$min", "c": "$max", "d": "$count", "e": "$count_distinct"}
            found = self.x.aggregate("Secret", aggregate={key: {function: name} for key, function in asked.items()})
            self.note(kind, name, found["groups"], [wanted])
        for name in ("text", "raw", "moment", "day", "clock", "token", "color"):
            found = self.x.aggregate("Secret", aggregate={"a": {"$min": name}, "b": {"$max": name}})["groups"][0]
            self.note(kind, name, [found[key] in (LOW[name], HIGH[name]) for key in "ab"], [False, False])

    def _groups(self, kind: str) -> None:
        """Compare groups, their number and what `having` says of them."""
        own = self.mine()
        for name in ("text", "number", "color", "day"):
            values = {record[name] for record in own}
            asked = {"group_by": [name], "aggregate": {"n": {"$count": "*"}}}
            found = {group[name] for group in self.x.aggregate("Secret", **asked)["groups"]}
            self.note(kind, name, found, values)
            theirs = self.x.aggregate("Secret", **asked, having={name: LOW[name]})["groups"]
            self.note(kind, f"having {name}", theirs, [])

    def _pages(self, kind: str) -> None:
        """Walk through pages sorted by every field."""
        wanted = sorted(record["id"] for record in self.mine())
        names = ("text", "number", "ratio", "price", "moment", "day", "clock", "token", "color")
        for name in names[len(self.subset) % 3 :: 3]:
            found: list[int] = []
            page: dict[str, Any] = {"next_cursor": None, "has_more": True}
            while page["has_more"]:
                more: dict[str, Any] = {} if page["next_cursor"] is None else {"cursor": page["next_cursor"]}
                page = self.x.list("Secret", sort=[{name: -1}], limit=3, fields=["id"], include_total=True, **more)
                found += [record["id"] for record in page["records"]]
                self.note(kind, f"total by {name}", page["total"], len(wanted))
            self.note(kind, name, sorted(found), wanted)

    def _unique_keys(self, kind: str) -> None:
        """Take their unique values and keys for records of one's own."""
        made = self.x.bulk_create("Secret", [{"email": f"theirs{n}@x"} for n in range(3)], return_ids=True)
        self.note(kind, "bulk_create", made["created"], 3)
        skipped = self.x.bulk_create(
            "Ticket", [{"id": f"T{n}"} for n in range(3)], conflict_resolution="skip", return_ids=True
        )
        self.note(kind, "skip", skipped["created"], 3)
        self.x.bulk_delete("Secret", ids=made["ids"], **self.hard)
        self.x.bulk_delete("Ticket", ids=skipped["ids"], **self.hard)

    def _upserts(self, kind: str) -> None:
        """Upsert by their keys: every one is new."""
        found = self.x.upsert("Secret", {"email": "theirs1@x"}, {"text": "mine too"})
        self.note(kind, "upsert", found["created"], True)
        other = self.x.upsert("Ticket", {"id": "T1"}, {"label": "mine too"})
        self.note(kind, "upsert by id", other["created"], True)
        many = self.x.bulk_upsert("Ticket", [{"id": f"T{n}", "label": "mine"} for n in range(4)])
        self.note(kind, "bulk_upsert", (many["created"], many["updated"]), (3, 1))
        self.x.bulk_delete("Secret", ids=[found["id"]], **self.hard)
        self.x.bulk_delete("Ticket", ids=[f"T{n}" for n in range(4)], **self.hard)

    def _references(self, kind: str) -> None:
        """Refer to their records: refused as references to nothing are, in the same words."""
        texts = []
        for target in (self.theirs[0], 88_888_888):
            try:
                self.x.create("Secret", {"email": "refers@x", "shelf_id": target})
                texts.append("accepted")
            except DataFlowError as error:
                texts.append(str(error).replace(str(target), "?"))
        self.note(kind, "create", texts[0], texts[1])
        self.note(kind, "refused", texts[0] == "accepted", False)

    def _keys(self, kind: str) -> None:
        """Name their records by their keys."""
        for key in self.theirs[1:3]:
            self.note(kind, "read", self.x.read("Secret", key)["found"], False)
            self.note(kind, "update", self.x.update("Secret", key, {"text": "taken"})["updated"], 0)
            self.note(kind, "delete", self.x.delete("Secret", key, **self.hard)["deleted"], 0)
        rows = [{"id": key, "text": "taken"} for key in self.theirs[1:3]]
        self.note(kind, "bulk_update", self.x.bulk_update("Secret", data=rows)["updated"], 0)
        self.note(kind, "bulk_delete", self.x.bulk_delete("Secret", ids=self.theirs[1:3], **self.hard)["deleted"], 0)
        if "soft_delete" in self.subset:
            self.note(kind, "restore", self.x.call("restore", "Secret", id=self.theirs[-1])["restored"], 0)
        if "audit_log" in self.subset:
            self.note(kind, "audit", self.x.call("audit", "Secret", id=self.theirs[1])["count"], 0)

    def _includes(self, kind: str) -> None:
        """Let a ticket of one's own name a record of theirs: it leads to nothing."""
        self.x.upsert("Ticket", {"id": "mine"}, {"secret_id": self.theirs[1]})
        found = self.x.read("Ticket", "mine", include=["secret.shelf"])
        self.note(kind, "read", found["secret"], None)
        self.note(kind, "exists", self.x.count("Ticket", {"id": "mine", "secret": {"$exists": True}})["count"], 0)
        self.note(kind, "none", self.x.count("Ticket", {"id": "mine", "secret": None})["count"], 1)
        self.x.delete("Ticket", "mine", **self.hard)


def _burn(db: DataFlow, subset: frozenset[str]) -> None:
    """Use up ids, so that those of theirs are none of one's own, even where each has tables of their own."""
    hard: dict[str, Any] = {"soft_delete": False} if "soft_delete" in subset else {}
    for model, field in (("Shelf", "title"), ("Secret", "email")):
        made = db.express_sync.bulk_create(model, [{field: f"gone {n}"} for n in range(100)], return_ids=True)
        db.express_sync.bulk_delete(model, ids=made["ids"], **hard)


def fill(db: DataFlow, subset: frozenset[str]) -> list[int]:
    """Give both tenants rows; return the ids of the other's secrets, the last of them deleted where that marks."""
    x = db.express_sync
    ids: list[int] = []
    for tenant in (OTHER, ME):
        theirs = tenant == OTHER
        with db.tenant(tenant):
            if theirs:
                _burn(db, subset)
            shelves = [x.create("Shelf", {"title": f"{tenant} {n}"})["id"] for n in range(3)]
            rows = [
                {
                    "email": f"{'theirs' if theirs else 'mine'}{n}@x",
                    "shelf_id": shelves[n % 3],
                    **_values(n, theirs=theirs),
                }
                for n in range(ROWS)
            ]
            made = x.bulk_create("Secret", rows, return_ids=True)["ids"]
            if theirs:
                ids = made
            key = "T" if theirs else "M"
            x.bulk_create("Ticket", [{"id": f"{key}{n}", "secret_id": made[n]} for n in range(ROWS)])
            if theirs and "soft_delete" in subset:
                x.delete("Secret", made[-1])
    return ids


def state(db: DataFlow, subset: frozenset[str]) -> str:
    """Return all that the other tenant has."""
    more: dict[str, Any] = {"include_deleted": True} if "soft_delete" in subset else {}
    with db.tenant(OTHER):
        return repr([db.express_sync.list(model, **more)["records"] for model in ("Shelf", "Secret", "Ticket")])


@contextmanager
def alone(db: DataFlow, *, rewriting: bool) -> Iterator[None]:
    """Leave the database alone with its task: no statement of the framework names the tenant, unless `rewriting`."""
    if rewriting:
        yield
        return
    original = RowTenancy.extend_plan

    def only_stamp(feature: RowTenancy, plan: Any) -> None:
        if plan.statement == "insert":
            original(feature, plan)

    def forget() -> None:
        for model in db.core.models.values():
            model.plans.clear()

    forget()
    with mock.patch.object(RowTenancy, "extend_plan", only_stamp):
        yield
    forget()


def run(
    place: Callable[[int], tuple[str, dict[str, Any]]],
    *,
    questions: int,
    isolation: str,
    rewriting: bool = True,
    seed: int = 1,
    subsets: Sequence[frozenset[str]] = TENANTED,
) -> Outcome:
    """Ask questions over all feature subsets.

    Args:
        place: number of a subset -> (URL of a database, settings).
        questions: how many about fields, in all; at least so many that every cell is met.
        isolation: setting `tenant_isolation`.
        rewriting: whether the framework confines its own statements.
        seed: of the order.
        subsets: of the features.
    """
    outcome = Outcome()
    rng = Random(seed)
    pairs = _forever(rng, PAIRS)
    paths, kinds = cycle(PATHS), cycle(KINDS)
    for number, subset in enumerate(subsets):
        url, settings = place(number)
        policy = {"protection": POLICY} if "protection" in subset else {}
        with ExitStack() as stack:
            db = stack.enter_context(DataFlow(url, tenant_isolation=isolation, **policy, **settings))
            declare(db, subset, f"probe{number}_")
            theirs = fill(db, subset)
            before = state(db, subset)
            with alone(db, rewriting=rewriting), db.tenant(ME):
                prober = Prober(db, subset, theirs, outcome)
                for _ in range(max(-(-questions // len(subsets)), len(KINDS))):
                    prober.ask(next(pairs), next(paths), next(kinds))
                prober.ask_others()
            if state(db, subset) != before:
                outcome.faults.append(f"{initials(subset)}: the other tenant's rows changed")
    return outcome


def _forever(rng: Random, items: Sequence[Any]) -> Iterator[Any]:
    while True:
        yield from rng.sample(items, len(items))


def main(arguments: list[str] | None = None) -> int:
    """Ask, and print what was asked; 1 where an answer told too much."""
    parser = argparse.ArgumentParser(prog="python -m dataflow.enterprise.proof.probes", description=__doc__)
    parser.add_argument("--database", default="sqlite", help='"sqlite" (temporary files), or the URL of a database')
    parser.add_argument("--operations", type=int, default=20_000)
    parser.add_argument("--isolation", choices=["shared", "strict", "schema", "database"], default="shared")
    parser.add_argument(
        "--without", choices=["rewriting"], help="leave the database alone with it (PostgreSQL, strict)"
    )
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    start = perf_counter()
    with tempfile.TemporaryDirectory() as folder:

        def place(number: int) -> tuple[str, dict[str, Any]]:
            own = f"probes_{os.getpid()}_{number}"
            settings: dict[str, Any] = {"tenant_database_prefix": f"{own}_"}
            if given.database == "sqlite":
                return f"sqlite:///{os.path.join(folder, f'{number}.db')}", {**settings, "sqlite_synchronous": "OFF"}
            if given.isolation not in ("schema", "database"):
                settings["postgres_schema"] = own
            return given.database, {**settings, "pool_size": 2}

        outcome = run(
            place, questions=given.operations, isolation=given.isolation, rewriting=not given.without, seed=given.seed
        )
    told = {
        "questions": outcome.questions,
        "isolation": given.isolation,
        "without": given.without,
        "empty cells": outcome.empty(),
        "faults": outcome.faults[:20],
        "fault_count": len(outcome.faults),
        "seconds": round(perf_counter() - start, 1),
    }
    sys.stdout.write(f"{outcome.table()}\n{json.dumps(told, indent=1)}\n")
    return bool(outcome.faults or outcome.empty())


if __name__ == "__main__":
    sys.exit(main())
