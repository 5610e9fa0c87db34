"""Filters, sorts, pages and aggregates against the plain-Python oracle, on generated rows and questions."""

from contextlib import suppress

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dataflow.errors import QueryError
from dataflow.testing import oracle
from dataflow.testing.oracle import strategies

ALWAYS = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def db(module_bench):
    oracle.declare(module_bench.db)
    return module_bench.db


def fill(db, data):
    """Replace everything by these rows."""
    for model in ("Thing", "Maker"):
        db.express_sync.bulk_delete(model, filter={}, confirmed=True)
        db.express_sync.bulk_create(model, data[model])


def listed(db, model="Thing", filter=None, **options):
    return db.express_sync.list(model, filter, **options)["records"]


def ids(rows):
    return [row["id"] for row in rows]


def spelled(sort):
    return [{name: -1 if descending else 1} for name, descending in sort]


@settings(ALWAYS, max_examples=100)
@given(data=strategies.tables(), questions=st.lists(strategies.filters(), min_size=3, max_size=6))
def test_a_filter_finds_exactly_the_rows_that_satisfy_it_in_plain_python(db, data, questions):
    fill(db, data)
    for question in questions:
        expected = [row["id"] for row in data["Thing"] if oracle.matches(question, row, "Thing", data)]
        assert ids(listed(db, filter=question)) == sorted(expected), question
        assert db.express_sync.count("Thing", question) == {"count": len(expected)}, question


@pytest.mark.parametrize("name", sorted(oracle.KINDS))
def test_every_operator_of_a_field_means_what_it_means_in_plain_python(db, name):
    kind = oracle.KINDS[name]

    @settings(ALWAYS, max_examples=50 if name == "text" else 15)
    @given(
        column=st.lists(st.none() | strategies.values(name, kind), max_size=8),
        questions=st.lists(
            strategies.member_conditions() if kind == "json" else strategies.conditions(name, kind),
            min_size=1,
            max_size=6,
        ),
    )
    def check(column, questions):
        rows = [{**dict.fromkeys(oracle.FIELDS["Thing"]), "id": n, name: value} for n, value in enumerate(column, 1)]
        fill(db, {"Maker": [], "Thing": rows})
        for question in questions:
            expected = [row["id"] for row in rows if oracle.matches({name: question}, row, "Thing", {})]
            assert ids(listed(db, filter={name: question})) == expected, question

    check()


@settings(ALWAYS, max_examples=80)
@given(data=strategies.tables(), question=strategies.filters("Maker"))
def test_a_filter_reaches_through_a_relation_to_many(db, data, question):
    fill(db, data)
    expected = [row["id"] for row in data["Maker"] if oracle.matches(question, row, "Maker", data)]
    assert ids(listed(db, "Maker", question)) == sorted(expected)


@settings(ALWAYS, max_examples=80)
@given(rows=st.lists(strategies.documents | st.none(), max_size=6), condition=strategies.member_conditions())
@example(rows=[{"a": 1}], condition={"$eq": {"a": 1.0}})
@example(rows=[{"a": 10**20}, {"a": 1}], condition={"a": {"$gte": 1e20}})
@example(rows=[{'q"t': 1}, {"b\\s": 1}, {"n\nl": 1}], condition={'q"t': 1})
@example(rows=[{"a": True}, {"a": 1}], condition={"a": {"$in": [True]}})
@example(rows=["1", 1, [1]], condition=1)
@example(rows=[{"a": "x"}, {"a": 3}], condition={"a": {"$in": [*range(2000), "x"]}})
def test_a_filter_on_json_compares_members_with_their_type(db, rows, condition):
    data = {"Maker": [], "Thing": [{"id": n, "document": row} for n, row in enumerate(rows, 1)]}
    fill(db, data)
    expected = [row["id"] for row in data["Thing"] if oracle.matches({"document": condition}, row, "Thing", data)]
    assert ids(listed(db, filter={"document": condition})) == expected


@settings(ALWAYS, max_examples=100)
@given(data=strategies.tables(things=9), sort=strategies.sorts())
def test_rows_come_in_the_order_asked_for_and_by_key_where_that_leaves_a_choice(db, data, sort):
    fill(db, data)
    expected = oracle.ordered(data["Thing"], sort)
    assert ids(listed(db, sort=spelled(sort))) == ids(expected)
    assert ids(listed(db, order_by=["-" * down + name for name, down in sort])) == ids(expected)


@settings(ALWAYS, max_examples=100)
@given(
    data=strategies.tables(things=9),
    sort=strategies.sorts(),
    question=st.just({}) | strategies.filters(),
    limit=st.integers(1, 4),
)
def test_keyset_pages_visit_every_row_once_in_the_order_of_the_whole_list(db, data, sort, question, limit):
    fill(db, data)
    rows = [row for row in data["Thing"] if oracle.matches(question, row, "Thing", data)]
    expected = ids(oracle.ordered(rows, sort))
    seen, cursor, more = [], None, True
    while more:
        page = db.express_sync.list(
            "Thing", question, sort=spelled(sort), limit=limit, fields=["id"], include_total=True, cursor=cursor
        )
        assert page["total"] == len(expected)
        assert page["count"] == len(page["records"]) <= limit
        seen += ids(page["records"])
        cursor, more = page["next_cursor"], page["has_more"]
        assert more is (cursor is not None)
    assert seen == expected
    pages = [listed(db, filter=question, sort=spelled(sort), limit=limit, offset=n) for n in range(0, 10, limit)]
    assert [key for page in pages for key in ids(page)] == expected


@settings(ALWAYS, max_examples=120)
@given(
    data=strategies.tables(things=8), question=st.just({}) | strategies.filters(depth=1), asked=strategies.aggregates()
)
@example(
    data={"Maker": [], "Thing": [{"id": n, "number": v} for n, v in enumerate((oracle.INT_MAX, 1, -1), 1)]},
    question={},
    asked={"group_by": [], "aggregate": {"s": {"$sum": "number"}, "m": {"$avg": "number"}}, "sort": []},
)
def test_aggregates_equal_those_computed_in_plain_python(db, data, question, asked):
    whole = {"Maker": data["Maker"], "Thing": [{**dict.fromkeys(oracle.FIELDS["Thing"]), **r} for r in data["Thing"]]}
    fill(db, whole)
    rows = [row for row in whole["Thing"] if oracle.matches(question, row, "Thing", whole)]
    try:
        expected = oracle.aggregated(rows, asked)
    except oracle.Overflow as overflow:
        with pytest.raises(QueryError) if overflow.certain else suppress(QueryError):
            db.express_sync.aggregate("Thing", filter=question, **asked)
        return
    got = db.express_sync.aggregate("Thing", filter=question, **asked)["groups"]
    assert [list(group) for group in got] == [list(group) for group in expected]
    magnitude = sum(abs(row[f]) for row in rows for f in ("number", "ratio") if row[f] is not None)
    for group, wanted in zip(got, expected, strict=True):
        for name, value in wanted.items():
            assert oracle.same_number(group[name], value, magnitude), (name, group, wanted)


def test_lists_longer_than_any_limit_of_the_database_are_looked_up(db):
    fill(
        db,
        {"Maker": [], "Thing": [{"id": 1, "ratio": 0.1, "number": 3, "raw": b"x", "document": {"a": "7", "b": 1.5}}]},
    )
    many = range(40_000)
    for question in (
        {"number": {"$in": list(many)}},
        {"ratio": {"$in": [*(n / 10 for n in many)]}},
        {"raw": {"$in": [*(str(n).encode() for n in many), b"x"]}},
        {"document.a": {"$in": [str(n) for n in many]}},
        {"document.b": {"$in": [n / 2 for n in many]}},
        {"$or": [{"number": n} for n in range(3000)]},
    ):
        assert ids(listed(db, filter=question)) == [1], list(question)
        assert ids(listed(db, filter={"$nor": [question]})) == []


@pytest.mark.parametrize("bounds", [[None, 3], [1, "a"], ["a", 1], [True, False], [{}, 1], [1, []]])
def test_a_range_over_json_members_has_two_numbers_or_two_texts(db, bounds):
    with pytest.raises(Exception, match=r"\$between on 'document.a'") as caught:
        listed(db, filter={"document.a": {"$between": bounds}})
    assert type(caught.value).__name__ == "InputError"


def test_a_shape_seen_before_does_not_answer_for_operands_of_another_type(db):
    fill(
        db,
        {"Maker": [], "Thing": [{"id": n, "document": {"a": v}} for n, v in enumerate([1, True, "1", None, [1]], 1)]},
    )
    for _ in range(2):
        for operand, expected in ((1, [1]), (True, [2]), ("1", [3]), (None, [4]), ([1], [5]), (1.0, [1]), (False, [])):
            assert ids(listed(db, filter={"document.a": operand})) == expected
            assert ids(listed(db, filter={"document.a": {"$in": [operand]}})) == expected
