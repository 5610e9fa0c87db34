"""What filters mean: operators, NULL and negation, dates as text, relations, members of JSON, lists."""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest

from dataflow.errors import WorkflowBuildError, WorkflowExecutionError


class Kind(Enum):
    CAT = "cat"
    DOG = "dog"


def fill(bench: Any) -> Any:
    """Register owners, pets and visits, and write some."""
    db = bench.db

    @db.model
    class Owner:
        name: str
        city: str | None = None
        profile: dict = {}  # noqa: RUF012

    @db.model
    class Pet:
        name: str
        owner_id: int | None = None
        age: int | None = None
        weight: float | None = None
        fee: Decimal | None = None
        kind: Kind = Kind.CAT
        tame: bool | None = None
        born: datetime | None = None
        day: date | None = None
        fed: time | None = None
        chip: UUID | None = None
        photo: bytes | None = None
        tags: list[str] | None = None
        marks: list[int] = []  # noqa: RUF012
        meta: dict | None = None

    @db.model
    class Visit:
        pet_id: int
        note: str | None = None

    x = db.express_sync
    ada = {"name": "Ada", "city": "Bern", "profile": {"vip": True, "level": 3}}
    x.bulk_create("Owner", [ada, {"name": "Bob"}, {"name": "Cy", "city": "Rom"}])
    x.bulk_create("Pet", [
        {"name": "Anna_1", "owner_id": 1, "age": 1, "weight": 1.5, "fee": Decimal("9.5"), "tame": True, "kind": "dog",
         "born": datetime(2024, 1, 31, 23, 59, 59, 999999, tzinfo=UTC), "day": date(2024, 1, 31), "fed": time(8),
         "chip": UUID(int=1), "photo": b"\x01", "tags": ["a", "b"], "marks": [1, 2],
         "meta": {"color": "red", "size": 3, "deep": {"list": [1, 2], "none": None, "t": True}, "name.x": 1}},
        {"name": "anna%2", "owner_id": 1, "age": 2, "weight": 10.0, "fee": Decimal("10.5"), "tame": False,
         "born": datetime(2024, 2, 1, tzinfo=UTC), "day": date(2024, 2, 1), "fed": time(9), "chip": UUID(int=2),
         "photo": b"\x02", "tags": ["b"], "marks": [2],
         "meta": {"color": "Blue", "size": 3.5, "deep": {"list": []}}},
        {"name": "Bär*", "owner_id": 2, "age": 3, "weight": -1.0, "fee": Decimal(-1), "tags": [],
         "meta": {"color": 7}},
        {"name": "none", "owner_id": 99},
        {"name": ""},
    ])  # fmt: skip
    x.bulk_create("Visit", [{"pet_id": 1, "note": "ok"}, {"pet_id": 1}, {"pet_id": 3, "note": "sick"}])
    return bench


@pytest.fixture
def pets(bench: Any) -> Any:
    return fill(bench)


@pytest.fixture(scope="module")
def known_pets(module_bench: Any) -> Any:
    return fill(module_bench)


CASES: list[tuple[Any, list[int]]] = [
    ({}, [1, 2, 3, 4, 5]),
    ({"age": 2}, [2]),
    ({"age": {"$eq": 2}}, [2]),
    ({"age": None}, [4, 5]),
    ({"age": {"$eq": None}}, [4, 5]),
    ({"age": {"$null": True}}, [4, 5]),
    ({"age": {"$exists": False}}, [4, 5]),
    ({"age": {"$exists": True}}, [1, 2, 3]),
    ({"age": {"$not": None}}, [1, 2, 3]),
    ({"age": {"$ne": None}}, [1, 2, 3]),
    # negation matches NULL, as in MongoDB
    ({"age": {"$ne": 2}}, [1, 3, 4, 5]),
    ({"age": {"$nin": [1, 2]}}, [3, 4, 5]),
    ({"age": {"$nin": [1, None]}}, [2, 3]),
    ({"age": {"$not": {"$gt": 1}}}, [1, 4, 5]),
    ({"age": {"$not": 2}}, [1, 3, 4, 5]),
    ({"$not": {"age": {"$gt": 1}}}, [1, 4, 5]),
    ({"$nor": [{"age": 1}, {"tame": False}]}, [3, 4, 5]),
    ({"tame": {"$ne": True}}, [2, 3, 4, 5]),
    # lists of values
    ({"age": {"$in": []}}, []),
    ({"age": {"$nin": []}}, [1, 2, 3, 4, 5]),
    ({"age": {"$in": [1, 3, 3, 8]}}, [1, 3]),
    ({"age": {"$in": [None]}}, [4, 5]),
    ({"age": {"$in": [1, None]}}, [1, 4, 5]),
    ({"age": {"$in": (1, 2)}}, [1, 2]),
    ({"weight": {"$in": [10, 1.5]}}, [1, 2]),
    ({"photo": {"$in": [b"\x02"]}}, [2]),
    ({"chip": {"$in": [UUID(int=1), str(UUID(int=2))]}}, [1, 2]),
    ({"kind": {"$in": [Kind.DOG, "cat"]}}, [1, 2, 3, 4, 5]),
    ({"fee": {"$in": [Decimal("10.50"), 7]}}, [2]),
    ({"born": {"$in": ["2024-02-01T01:00:00+01:00"]}}, [2]),
    ({"age": {"$in": list(range(2, 2000))}}, [2, 3]),
    # order
    ({"age": {"$gt": 1, "$lt": 3}}, [2]),
    ({"age": {"$gte": 2}}, [2, 3]),
    ({"age": {"$lte": 2}}, [1, 2]),
    ({"age": {"$between": [2, 3]}}, [2, 3]),
    ({"weight": {"$gt": 1}}, [1, 2]),
    ({"fee": {"$gt": Decimal("9.5")}}, [2]),
    ({"fee": {"$gte": Decimal("9.50")}}, [1, 2]),
    ({"fee": {"$lt": 0}}, [3]),
    ({"fee": Decimal("9.500")}, [1]),
    ({"name": {"$gt": "a"}}, [2, 4]),
    ({"name": {"$lt": "B"}}, [1, 5]),
    ({"photo": {"$gte": b"\x02"}}, [2]),
    ({"kind": {"$lt": "dog"}}, [2, 3, 4, 5]),
    ({"fed": {"$gte": "08:30"}}, [2]),
    # dates as text
    ({"born": {"$lte": "2024-01-31"}}, [1]),
    ({"born": {"$lt": "2024-02-01"}}, [1]),
    ({"born": {"$gte": "2024-02-01"}}, [2]),
    ({"born": {"$gt": "2024-01-31"}}, [1, 2]),
    ({"born": {"$between": ["2024-01-31", "2024-02-01"]}}, [1, 2]),
    ({"born": "2024-02-01T00:00:00"}, [2]),
    ({"born": {"$gte": datetime(2024, 2, 1, tzinfo=UTC)}}, [2]),
    ({"day": "2024-02-01"}, [2]),
    ({"day": {"$lte": date(2024, 1, 31)}}, [1]),
    ({"created_at": {"$gte": "2020-01-01"}}, [1, 2, 3, 4, 5]),
    # text
    ({"name": {"$like": "anna%"}}, [2]),
    ({"name": {"$like": "_nna\\_%"}}, [1]),
    ({"name": {"$like": "%\\%_"}}, [2]),
    ({"name": {"$like": "B_r*"}}, [3]),
    ({"name": {"$ilike": "ANNA%"}}, [1, 2]),
    ({"name": {"$ilike": "bÄR_"}}, [3]),
    ({"name": {"$startswith": "Anna_"}}, [1]),
    ({"name": {"$startswith": ""}}, [1, 2, 3, 4, 5]),
    ({"name": {"$endswith": "*"}}, [3]),
    ({"name": {"$endswith": "%2"}}, [2]),
    ({"name": {"$contains": "nn"}}, [1, 2]),
    ({"name": {"$contains": "*"}}, [3]),
    ({"name": {"$regex": "^[Aa]nna"}}, [1, 2]),
    ({"name": {"$regex": "nna.\\d$"}}, [1, 2]),
    ({"name": {"$iregex": "^ANNA"}}, [1, 2]),
    ({"name": {"$not": {"$regex": "n"}}}, [3, 5]),
    # lists
    ({"tags": {"$contains": "b"}}, [1, 2]),
    ({"tags": {"$contains": "x"}}, []),
    ({"tags": {"$overlap": ["a", "x"]}}, [1]),
    ({"tags": {"$overlap": []}}, []),
    ({"tags": ["a", "b"]}, [1]),
    ({"tags": ["b", "a"]}, []),
    ({"tags": []}, [3]),
    ({"tags": {"$ne": ["b"]}}, [1, 3, 4, 5]),
    ({"tags": {"$not": {"$contains": "b"}}}, [3, 4, 5]),
    ({"tags": None}, [4, 5]),
    ({"marks": {"$contains": 2}}, [1, 2]),
    ({"marks": {"$overlap": [1, 9]}}, [1]),
    # JSON
    ({"meta.color": "red"}, [1]),
    ({"meta": {"color": "red"}}, [1]),
    ({"meta": {"color": {"$ne": "red"}}}, [2, 3, 4, 5]),
    ({"meta.color": 7}, [3]),
    ({"meta.color": "7"}, []),
    ({"meta.color": {"$ilike": "bl%"}}, [2]),
    ({"meta.color": {"$startswith": "r"}}, [1]),
    ({"meta.color": {"$regex": "e$"}}, [2]),
    ({"meta.color": {"$contains": "e"}}, [1, 2]),
    ({"meta.size": {"$gt": 3}}, [2]),
    ({"meta.size": {"$gte": 3}}, [1, 2]),
    ({"meta.size": {"$between": [1, 3.2]}}, [1]),
    ({"meta.size": 3.0}, [1]),
    ({"meta.size": {"$in": [3.5, "3", None]}}, [2, 3, 4, 5]),
    ({"meta.size": {"$nin": [3, 3.5]}}, [3, 4, 5]),
    ({"meta.deep.t": True}, [1]),
    ({"meta.deep.t": {"$in": [True, False]}}, [1]),
    ({"meta.deep.t": 1}, []),
    ({"meta.deep.none": None}, [1, 2, 3, 4, 5]),
    ({"meta.deep.none": {"$exists": True}}, [1]),
    ({"meta.deep.none": {"$exists": False}}, [2, 3, 4, 5]),
    ({"meta.deep": {"$null": False}}, [1, 2]),
    ({"meta.deep.list": [1, 2]}, [1]),
    ({"meta.deep.list": {"$contains": 2}}, [1]),
    ({"meta.deep.list": {"$overlap": [2, 9]}}, [1]),
    ({"meta.deep.list": []}, [2]),
    ({"meta": {"deep": {"list": {"$ne": [1, 2]}}}}, [2, 3, 4, 5]),
    ({"meta": {"$contains": {"deep": {"list": [2]}}}}, [1]),
    ({"meta": {"$contains": {"size": 3}}}, [1]),
    ({"meta": {"$not": {"color": "red"}}}, [2, 3, 4, 5]),
    ({"meta": {"$or": [{"color": "red"}, {"size": 3.5}]}}, [1, 2]),
    ({"meta": {"$eq": {"color": 7}}}, [3]),
    ({"meta": None}, [4, 5]),
    ({"meta": {"$ne": None}}, [1, 2, 3]),
    # logic
    ({"$or": [{"age": 1}, {"name": "none"}]}, [1, 4]),
    ({"$and": [{"age": {"$gt": 1}}, {"age": {"$lt": 3}}]}, [2]),
    ({"age": {"$or": [{"$lt": 2}, {"$gt": 2}]}}, [1, 3]),
    ({"age": {"$and": [{"$gt": 1}, {"$lt": 3}]}}, [2]),
    ({"age": {"$nor": [{"$lt": 2}]}}, [2, 3, 4, 5]),
    ({"$or": [{"$and": [{"age": 1}, {"tame": True}]}, {"$not": {"age": {"$exists": True}}}]}, [1, 4, 5]),
    ({"age": 2, "name": "anna%2"}, [2]),
    # relations
    ({"owner": {"name": "Ada"}}, [1, 2]),
    ({"owner.name": "Ada"}, [1, 2]),
    ({"owner": {"name": {"$regex": "^[AB]"}}}, [1, 2, 3]),
    ({"owner.city": None}, [3]),
    ({"owner": None}, [4, 5]),
    ({"owner": {"$exists": True}}, [1, 2, 3]),
    ({"owner": {"$null": True}}, [4, 5]),
    ({"owner": {"profile.vip": True, "profile": {"level": {"$gte": 3}}}}, [1, 2]),
    ({"$not": {"owner": {"name": "Ada"}}}, [3, 4, 5]),
    ({"visits": {"note": "ok"}}, [1]),
    ({"visits": {"$exists": True}}, [1, 3]),
    ({"visits": {"$exists": False}}, [2, 4, 5]),
    ({"visits.pet.owner.name": "Bob"}, [3]),
    ({"visits": {"note": None}}, [1]),
    ({"$or": [{"owner": {"name": "Bob"}}, {"visits": {"note": "ok"}}]}, [1, 3]),
]


@pytest.mark.parametrize(("document", "expected"), CASES, ids=[str(document)[:60] for document, _ in CASES])
def test_a_filter_matches_what_the_rules_say(known_pets: Any, document: Any, expected: list[int]) -> None:
    page = known_pets.run("PetListNode", filter=document)
    assert [record["id"] for record in page["records"]] == expected
    assert known_pets.run("PetCountNode", filter=document)["count"] == len(expected)


def test_one_shape_of_filter_serves_all_values(pets: Any) -> None:
    for wanted, expected in ((1, [1]), (2, [2]), (9, [])):
        found = pets.run("PetListNode", filter={"age": {"$in": [wanted]}, "meta.size": {"$gte": 0}})
        assert [record["id"] for record in found["records"]] == expected
    before = pets.db.stats()["compilations"]
    pets.run("PetListNode", filter={"age": {"$in": [7]}, "meta.size": {"$gte": 1}})
    assert pets.db.stats()["compilations"] == before


def test_filters_of_the_other_side_of_a_relation(pets: Any) -> None:
    found = pets.run("OwnerListNode", filter={"pets": {"visits": {"note": "ok"}}})
    assert [record["name"] for record in found["records"]] == ["Ada"]
    found = pets.run("OwnerListNode", filter={"pets": None})
    assert [record["name"] for record in found["records"]] == ["Cy"]


def test_values_in_filters_are_bound_never_sql(pets: Any) -> None:
    evil = "' OR 1=1; DROP TABLE pets; --"
    for document in (
        {"name": evil},
        {"name": {"$like": evil}},
        {"meta.color": evil},
        {"name": {"$in": [evil]}},
        {f"meta.{evil}": 1},
    ):
        assert pets.run("PetListNode", filter=document)["records"] == []
    assert pets.run("PetCountNode")["count"] == 5


def test_json_members_with_quotes_and_brackets_are_names_not_paths(bench: Any) -> None:
    @bench.db.model
    class Doc:
        body: dict

    keys = ['a"b', "a[0]", "$", "ключ", "a b", "*"]
    for key in keys:
        bench.run("DocCreateNode", body={key: key})
    for number, key in enumerate(keys, 1):
        document = {"$contains": {"$": "$"}} if key == "$" else {key: key}
        found = bench.run("DocListNode", filter={"body": document})
        assert [record["id"] for record in found["records"]] == [number], key


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"owner": {"nmae": "x"}}, "model Owner has no field or relation 'nmae'; did you mean 'name'?"),
        ({"visits": {"note": {"$gt": None}}}, "$gt on 'note' cannot compare with None"),
        ({"meta": {}}, "the filter on 'meta' is empty"),
        ({"meta.size": {"$gt": None}}, "$gt on 'meta.size' takes a number or text, got None"),
        ({"meta.size": {"$exists": 1}}, "$exists takes True or False, got int"),
        ({"meta.size": {"$in": 3}}, "$in on 'meta.size' takes a list, got int"),
        ({"meta.size": {"$lik": "x"}}, "'$lik' on 'meta.size' is not a filter operator; did you mean '$like'?"),
        ({"meta.size": {"$like": 3}}, "$like on 'meta.size' takes text, got int"),
        ({"age": {"$exists": "yes"}}, "$exists takes True or False, got str"),
        ({"tags": {"$overlap": "a"}}, "$overlap on 'tags' takes a list, got str"),
        ({"tags": {"$gt": ["a"]}}, "$gt needs an order, and 'tags' is list[str]"),
        ({"age": {"$overlap": [1]}}, "$overlap is for lists, and 'age' is int"),
        ({"name": {"$like": 3}}, "$like on 'name' takes text, got int"),
        ({"name": {"$like": "x\\"}}, "the pattern ends in a backslash"),
        ({"$nor": []}, "$nor takes a non-empty list of filters"),
        ({"$adn": [{"age": 1}]}, "'$adn' is not a filter operator that can stand here; did you mean '$and'?"),
        ({"age": {"$or": 1}}, "$or takes a non-empty list of filters"),
        ({"age": {"$gte": True}}, "age: expected int, got bool"),
        ({"$and": [{"age": 1}, 2]}, "a filter is a dict, got int"),
    ],
)
def test_a_faulty_filter_is_refused_before_anything_runs(pets: Any, document: Any, message: str) -> None:
    with pytest.raises(WorkflowBuildError) as built:
        pets.build("PetListNode", {"filter": document})
    assert message in str(built.value)
    with pytest.raises(WorkflowExecutionError) as late:
        pets.late("PetBulkDeleteNode", {"filter": document})
    assert message.partition(";")[0] in str(late.value)
    assert pets.run("PetCountNode")["count"] == 5


def test_all_faults_of_a_filter_are_reported_together(pets: Any) -> None:
    with pytest.raises(WorkflowBuildError) as caught:
        pets.build("PetListNode", {"filter": {"nam": 1, "age": {"$gt": "1", "$nope": 2}, "owner": {"x": 1}}})
    assert [problem.code for problem in caught.value.problems] == ["unknown-field", "unknown-operator", "unknown-field"]
