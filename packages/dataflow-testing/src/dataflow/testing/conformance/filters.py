"""What filters mean: every operator on every kind of field, NULL and negation, JSON members, lists, relations.

One known set of records; a case is a filter and the ids of what it matches.
"""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any, ClassVar
from uuid import UUID

import pytest

from dataflow import DataFlow
from dataflow.errors import InputError
from dataflow.testing.conformance.bench import Bench, keys_of
from dataflow.testing.conformance.suite import Suite, requires

Case = tuple[dict[str, Any], list[int]]


class Species(Enum):
    """What a pet is."""

    CAT = "cat"
    DOG = "dog"


def check(bench: Bench, model: str, cases: list[Case]) -> None:
    """Assert that every filter lists and counts what it should, by a direct call and on an event loop."""
    wrong = {}
    for document, expected in cases:
        listed = keys_of(bench.list(model, document))
        counted = bench.by("express").count(model, document)["count"]
        if (listed, counted) != (expected, len(expected)):
            wrong[str(document)] = (listed, counted, expected)
    assert wrong == {}


ALL, NONE = [1, 2, 3, 4, 5], list[int]()
CASES: dict[str, list[Case]] = {
    "equality": [
        ({}, ALL),
        ({"age": 2}, [2]),
        ({"age": {"$eq": 2}}, [2]),
        ({"name": ""}, [5]),
        ({"name": "Anna_1", "age": 1}, [1]),
        ({"name": "Anna_1", "age": 2}, NONE),
        ({"name": "anna_1"}, NONE),
        ({"tame": True}, [1]),
        ({"species": Species.DOG}, [1]),
        ({"species": "dog"}, [1]),
        ({"weight": 10}, [2]),
        ({"photo": b"\x01"}, [1]),
    ],
    "null": [
        ({"age": None}, [4, 5]),
        ({"age": {"$eq": None}}, [4, 5]),
        ({"age": {"$null": True}}, [4, 5]),
        ({"age": {"$null": False}}, [1, 2, 3]),
        ({"age": {"$exists": False}}, [4, 5]),
        ({"age": {"$exists": True}}, [1, 2, 3]),
        ({"age": {"$not": None}}, [1, 2, 3]),
        ({"age": {"$ne": None}}, [1, 2, 3]),
    ],
    "negation matches null": [
        ({"age": {"$ne": 2}}, [1, 3, 4, 5]),
        ({"age": {"$nin": [1, 2]}}, [3, 4, 5]),
        ({"age": {"$nin": [1, None]}}, [2, 3]),
        ({"age": {"$not": {"$gt": 1}}}, [1, 4, 5]),
        ({"age": {"$not": {"$not": {"$gt": 1}}}}, [2, 3]),
        ({"age": {"$not": 2}}, [1, 3, 4, 5]),
        ({"$not": {"age": {"$gt": 1}}}, [1, 4, 5]),
        ({"$not": {"age": {"$gt": 1}, "name": "anna%2"}}, [1, 3, 4, 5]),
        ({"$nor": [{"age": 1}, {"tame": False}]}, [3, 4, 5]),
        ({"tame": {"$ne": True}}, [2, 3, 4, 5]),
        ({"name": {"$not": {"$startswith": "A"}}}, [2, 3, 4, 5]),
        ({"nick": {"$not": {"$contains": "a"}}}, [2, 3, 4, 5]),
    ],
    "$in and $nin": [
        ({"age": {"$in": []}}, NONE),
        ({"age": {"$nin": []}}, ALL),
        ({"age": {"$in": [1, 3, 3, 8]}}, [1, 3]),
        ({"age": {"$in": [None]}}, [4, 5]),
        ({"age": {"$in": [1, None]}}, [1, 4, 5]),
        ({"age": {"$nin": [None]}}, [1, 2, 3]),
        ({"age": {"$in": (1, 2)}}, [1, 2]),
        ({"age": {"$in": list(range(2, 3000))}}, [2, 3]),
        ({"weight": {"$in": [10, 1.5]}}, [1, 2]),
        ({"weight": {"$nin": [10]}}, [1, 3, 4, 5]),
        ({"photo": {"$in": [b"\x02", b""]}}, [2]),
        ({"species": {"$in": [Species.DOG, "cat"]}}, ALL),
        ({"name": {"$in": ["it's", "Bär*", ""]}}, [3, 5]),
        ({"tame": {"$in": [False, None]}}, [2, 3, 4, 5]),
    ],
    "order": [
        ({"age": {"$gt": 1, "$lt": 3}}, [2]),
        ({"age": {"$gte": 2}}, [2, 3]),
        ({"age": {"$lte": 2}}, [1, 2]),
        ({"age": {"$between": [2, 3]}}, [2, 3]),
        ({"age": {"$between": [3, 2]}}, NONE),
        ({"age": {"$gt": 2**62}}, NONE),
        ({"weight": {"$gt": 1}}, [1, 2]),
        ({"weight": {"$lt": 0.0}}, [3]),
        ({"name": {"$gt": "a"}}, [2, 4]),
        ({"name": {"$lt": "B"}}, [1, 5]),
        ({"photo": {"$gte": b"\x02"}}, [2]),
        ({"species": {"$lt": "dog"}}, [2, 3, 4, 5]),
    ],
    "logic": [
        ({"$or": [{"age": 1}, {"name": "none"}]}, [1, 4]),
        ({"$and": [{"age": {"$gt": 1}}, {"age": {"$lt": 3}}]}, [2]),
        ({"$and": [{}]}, ALL),
        ({"$or": [{}, {"age": 1}]}, ALL),
        ({"$nor": [{"$nor": [{"age": 1}]}]}, [1]),
        ({"age": {"$or": [{"$lt": 2}, {"$gt": 2}]}}, [1, 3]),
        ({"age": {"$and": [{"$gt": 1}, {"$lt": 3}]}}, [2]),
        ({"age": {"$nor": [{"$lt": 2}]}}, [2, 3, 4, 5]),
        ({"$or": [{"$and": [{"age": 1}, {"tame": True}]}, {"$not": {"age": {"$exists": True}}}]}, [1, 4, 5]),
        ({"$or": [{"age": number} for number in range(3, 900)]}, [3]),
    ],
    "$like": [
        ({"name": {"$like": "anna%"}}, [2]),
        ({"name": {"$like": "_nna\\_%"}}, [1]),
        ({"name": {"$like": "%\\%_"}}, [2]),
        ({"name": {"$like": "B_r*"}}, [3]),
        ({"name": {"$like": "B_r\\*"}}, [3]),
        ({"name": {"$like": "%[A]%"}}, NONE),
        ({"name": {"$like": ""}}, [5]),
        ({"name": {"$like": "%"}}, ALL),
        ({"nick": {"$like": "%"}}, [1, 2]),
    ],
    "parts of text": [
        ({"name": {"$startswith": "Anna_"}}, [1]),
        ({"name": {"$startswith": "anna_"}}, NONE),
        ({"name": {"$startswith": ""}}, ALL),
        ({"name": {"$endswith": "*"}}, [3]),
        ({"name": {"$endswith": "%2"}}, [2]),
        ({"name": {"$contains": "nn"}}, [1, 2]),
        ({"name": {"$contains": "*"}}, [3]),
        ({"name": {"$contains": "N"}}, NONE),
        ({"nick": {"$contains": ""}}, [1, 2]),
        ({"nick": {"$endswith": "\\"}}, [2]),
        ({"nick": {"$startswith": "a[b"}}, [1]),
    ],
}
CALENDAR: list[Case] = [
    ({"born": {"$lte": "2024-01-31"}}, [1]),  # an end date covers its whole day
    ({"born": {"$lt": "2024-02-01"}}, [1]),
    ({"born": {"$gte": "2024-02-01"}}, [2]),
    ({"born": {"$gt": "2024-01-31"}}, [1, 2]),
    ({"born": {"$between": ["2024-01-31", "2024-02-01"]}}, [1, 2]),
    ({"born": {"$between": ["2024-01-01", "2024-01-31"]}}, [1]),
    ({"born": "2024-02-01T00:00:00"}, [2]),
    ({"born": "2024-02-01T01:00:00+01:00"}, [2]),
    ({"born": {"$in": ["2024-02-01T01:00:00+01:00", None]}}, [2, 3, 4, 5]),
    ({"born": {"$gte": datetime(2024, 2, 1, tzinfo=UTC)}}, [2]),
    ({"born": {"$ne": datetime(2024, 2, 1, tzinfo=UTC)}}, [1, 3, 4, 5]),
    ({"day": "2024-02-01"}, [2]),
    ({"day": {"$lte": date(2024, 1, 31)}}, [1]),
    ({"day": {"$between": ["2024-01-31", date(2024, 2, 1)]}}, [1, 2]),
    ({"fed": {"$gte": "08:30"}}, [2]),
    ({"fed": {"$in": [time(8), "09:00:00"]}}, [1, 2]),
    ({"created_at": {"$gte": "2020-01-01"}}, ALL),
]
DECIMALS: list[Case] = [
    ({"fee": {"$gt": Decimal("9.5")}}, [2]),
    ({"fee": {"$gte": Decimal("9.50")}}, [1, 2]),
    ({"fee": {"$lt": 0}}, [3]),
    ({"fee": Decimal("9.500")}, [1]),
    ({"fee": {"$in": [Decimal("10.50"), 7]}}, [2]),
    ({"fee": {"$between": [Decimal(9), 10]}}, [1]),
    ({"fee": {"$ne": Decimal("10.5")}}, [1, 3, 4, 5]),
]
UUIDS: list[Case] = [
    ({"chip": UUID(int=1)}, [1]),
    ({"chip": str(UUID(int=2)).upper()}, [2]),
    ({"chip": {"$in": [UUID(int=1), str(UUID(int=2))]}}, [1, 2]),
    ({"chip": {"$gt": UUID(int=1)}}, [2]),
    ({"chip": {"$nin": [UUID(int=1), None]}}, [2]),
]
ILIKE: list[Case] = [
    ({"name": {"$ilike": "ANNA%"}}, [1, 2]),
    ({"name": {"$ilike": "bÄR_"}}, [3]),
    ({"name": {"$ilike": "%\\%2"}}, [2]),
    ({"name": {"$ilike": ""}}, [5]),
    ({"name": {"$not": {"$ilike": "%N%"}}}, [3, 5]),
]
REGEX: list[Case] = [
    ({"name": {"$regex": "^[Aa]nna"}}, [1, 2]),
    ({"name": {"$regex": "nna.\\d$"}}, [1, 2]),
    ({"name": {"$regex": "^$"}}, [5]),
    ({"name": {"$regex": "n{2}"}}, [1, 2]),
    ({"name": {"$regex": "(?:Anna|none)"}}, [1, 4]),
    ({"name": {"$regex": "^[^a-z]"}}, [1, 3]),
    ({"name": {"$regex": "\\bnone\\b"}}, [4]),
    ({"name": {"$regex": "ä"}}, [3]),
    ({"name": {"$regex": "\\*$"}}, [3]),
    ({"name": {"$regex": "a%"}}, [2]),
    ({"name": {"$regex": "^\\w+$"}}, [1, 4]),
    ({"name": {"$regex": "n+e?"}}, [1, 2, 4]),
    ({"name": {"$iregex": "^ANNA"}}, [1, 2]),
    ({"name": {"$iregex": "BÄR"}}, [3]),
    ({"name": {"$not": {"$regex": "n"}}}, [3, 5]),
    ({"nick": {"$regex": ""}}, [1, 2]),
]
RELATIONS: list[Case] = [
    ({"owner": {"name": "Ada"}}, [1, 2]),
    ({"owner.name": "Ada"}, [1, 2]),
    ({"owner": {"name": {"$in": ["Ada", "Bob"]}, "city": {"$null": True}}}, [3]),
    ({"owner.city": None}, [3]),
    ({"owner": None}, [4, 5]),
    ({"owner": {"$exists": True}}, [1, 2, 3]),
    ({"owner": {"$null": True}}, [4, 5]),
    ({"owner_id": 99}, [4]),
    ({"$not": {"owner": {"name": "Ada"}}}, [3, 4, 5]),
    ({"visits": {"note": "ok"}}, [1]),
    ({"visits": {"$exists": True}}, [1, 3]),
    ({"visits": {"$exists": False}}, [2, 4, 5]),
    ({"visits": {"note": None}}, [1]),
    ({"visits.pet.owner.name": "Bob"}, [3]),
    ({"owner": {"pets": {"visits": {"note": "ok"}}}}, [1, 2]),
    ({"$or": [{"owner": {"name": "Bob"}}, {"visits": {"note": "ok"}}]}, [1, 3]),
]


FAULTY: list[tuple[dict[str, Any], str, str]] = [
    ({"nmae": 1}, "model Pet has no field or relation 'nmae'", "did you mean 'name'?"),
    ({"owner": {"nmae": "x"}}, "model Owner has no field or relation 'nmae'", "did you mean 'name'?"),
    ({"age": {"$gtt": 1}}, "'$gtt' on 'age' is not a filter operator", "did you mean '$gt'?"),
    ({"age": {"$gt": None}}, "$gt on 'age' cannot compare with None", ""),
    ({"age": {"$gte": True}}, "age: expected int, got bool", ""),
    ({"age": "2"}, "age: expected int, got str", ""),
    ({"age": {"$in": 3}}, "$in on 'age' takes a list, got int", ""),
    ({"name": {"$like": "x\\"}}, "the pattern ends in a backslash", ""),
    ({"age": {"$like": "1"}}, "$like is for text, and 'age' is int", ""),
    ({"tame": {"$gt": False}}, "$gt needs an order, and 'tame' is bool", ""),
    ({"$or": []}, "$or takes a non-empty list of filters", ""),
]
"""(filter, what its error says, what its hint says)."""


class TestFilters(Suite):
    """Filters on fields and on related records."""

    conformance_area: ClassVar[str] = "filters"
    reads_only: ClassVar[bool] = True

    @classmethod
    def declare(cls, db: DataFlow) -> None:
        @db.model
        class Owner:
            name: str
            city: str | None = None

        @db.model
        class Pet:
            name: str
            nick: str | None = None
            owner_id: int | None = None
            age: int | None = None
            weight: float | None = None
            species: Species = Species.CAT
            tame: bool | None = None
            photo: bytes | None = None

        @db.model
        class Visit:
            pet_id: int
            note: str | None = None

        @db.model
        class Calendar:
            born: datetime | None = None
            day: date | None = None
            fed: time | None = None
            __tablename__ = "filter_calendars"

        @db.model
        class Fee:
            fee: Decimal | None = None

        @db.model
        class Chip:
            chip: UUID | None = None

    @classmethod
    def fill(cls, bench: Bench) -> None:
        bench.bulk_create("Owner", [
            {"id": 1, "name": "Ada", "city": "Bern"}, {"id": 2, "name": "Bob"}, {"id": 3, "name": "Cy", "city": "Rom"},
        ])  # fmt: skip
        bench.bulk_create("Pet", [
            {"id": 1, "name": "Anna_1", "nick": "a[b", "owner_id": 1, "age": 1, "weight": 1.5, "tame": True,
             "species": "dog", "photo": b"\x01"},
            {"id": 2, "name": "anna%2", "nick": "b\\", "owner_id": 1, "age": 2, "weight": 10.0, "tame": False,
             "photo": b"\x02"},
            {"id": 3, "name": "Bär*", "owner_id": 2, "age": 3, "weight": -1.0},
            {"id": 4, "name": "none", "owner_id": 99},
            {"id": 5, "name": ""},
        ])  # fmt: skip
        visits: list[dict[str, Any]] = [{"pet_id": 1, "note": "ok"}, {"pet_id": 1}, {"pet_id": 3, "note": "sick"}]
        bench.bulk_create("Visit", [{"id": number, **row} for number, row in enumerate(visits, 1)])

    @pytest.mark.parametrize("topic", CASES)
    def test_a_filter_matches_what_the_rules_say(self, bench: Bench, topic: str) -> None:
        check(bench, "Pet", CASES[topic])

    @requires("ilike")
    def test_ilike_ignores_case(self, bench: Bench) -> None:
        check(bench, "Pet", ILIKE)

    @requires("regex")
    def test_a_pattern_matches_what_the_common_language_says(self, bench: Bench) -> None:
        check(bench, "Pet", REGEX)

    @requires("regex")
    def test_a_pattern_outside_the_common_language_is_refused(self, bench: Bench) -> None:
        for pattern in ("(?=a)", "(a)\\1", "(?<n>a)", "a**", "[", "\\p{L}", "(?i)a", "a{2,1}", "*a"):
            with pytest.raises(InputError, match=r"name: .+\(at position \d\)"):
                bench.list("Pet", {"name": {"$regex": pattern}})

    def test_a_relation_leads_to_the_fields_of_other_records(self, bench: Bench) -> None:
        check(bench, "Pet", RELATIONS)

    def test_a_relation_leads_back_as_well(self, bench: Bench) -> None:
        check(bench, "Owner", [
            ({"pets": {"visits": {"note": "ok"}}}, [1]), ({"pets": None}, [3]), ({"pets": {"$exists": True}}, [1, 2]),
            ({"pets": {"age": {"$gt": 2}}, "name": "Bob"}, [2]), ({"$not": {"pets": {"age": 1}}}, [2, 3]),
        ])  # fmt: skip

    @requires("instants", "dates")
    def test_dates_and_instants_may_be_iso_text(self, bench: Bench) -> None:
        rows = [
            {"born": datetime(2024, 1, 31, 23, 59, 59, 999999, tzinfo=UTC), "day": date(2024, 1, 31), "fed": time(8)},
            {"born": datetime(2024, 2, 1, tzinfo=UTC), "day": date(2024, 2, 1), "fed": time(9)},
            {}, {}, {},
        ]  # fmt: skip
        bench.bulk_create("Calendar", [{"id": number, **row} for number, row in enumerate(rows, 1)])
        check(bench, "Calendar", CALENDAR)

    @requires("decimal")
    def test_decimals_are_compared_by_value(self, bench: Bench) -> None:
        fees = [Decimal("9.5"), Decimal("10.5"), Decimal(-1), None, None]
        bench.bulk_create("Fee", [{"id": number, "fee": fee} for number, fee in enumerate(fees, 1)])
        check(bench, "Fee", DECIMALS)

    @requires("uuid")
    def test_uuids_are_compared_with_uuids_and_their_text(self, bench: Bench) -> None:
        chips = [UUID(int=1), UUID(int=2), None, None, None]
        bench.bulk_create("Chip", [{"id": number, "chip": chip} for number, chip in enumerate(chips, 1)])
        check(bench, "Chip", UUIDS)

    def test_values_are_bound_and_never_sql(self, bench: Bench) -> None:
        evil = "' OR 1=1; DROP TABLE pets; --"
        check(bench, "Pet", [
            ({"name": evil}, []), ({"name": {"$like": evil}}, []), ({"name": {"$in": [evil]}}, []),
            ({"name": {"$contains": evil}}, []), ({"name": {"$gt": "'"}, "age": 1}, [1]), ({}, ALL),
        ])  # fmt: skip

    def test_one_shape_of_filter_serves_all_values(self, bench: Bench) -> None:
        check(bench, "Pet", [({"age": {"$in": [value]}, "name": {"$ne": "x"}}, [value]) for value in (1, 2, 3)])
        before = bench.db.stats()["compilations"]
        check(bench, "Pet", [({"age": {"$in": [value]}, "name": {"$ne": "y"}}, [value]) for value in (3, 2, 1)])
        assert bench.db.stats()["compilations"] == before

    def test_a_faulty_filter_is_refused_and_nothing_is_deleted(self, calls: Bench) -> None:
        for document, message, hint in FAULTY:
            with pytest.raises(InputError) as caught:
                calls.bulk_delete("Pet", filter=document)
            assert message in caught.value.message
            assert hint in caught.value.hint
        assert calls.count("Pet") == {"count": 5}
