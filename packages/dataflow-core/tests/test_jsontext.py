"""JSON and instants as text: the codec writes and reads what the standard library would, and quick looks never err."""

import collections
import enum
import json
import math
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dataflow import canonical
from dataflow.canonical import MAX_DEPTH, ValueRefused, are_canonical, canonical_json
from dataflow.errors import WorkflowExecutionError
from dataflow.jsontext import dump_instants, dump_json, dump_json_column, load_json
from dataflow.types import JsonType

SETTINGS = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


class Text(str):
    __slots__ = ()


class Word(enum.StrEnum):
    ONE = "one"


class Digit(enum.IntEnum):
    TWO = 2


class Stamp(datetime):
    """As freezegun, pendulum and pandas have."""


NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
floats = st.floats(allow_nan=False, allow_infinity=False)
leaves = st.none() | st.booleans() | st.integers() | floats | texts


def documents(leaf, keys=texts):
    return st.recursive(
        leaf, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
    )


plain = documents(leaves)
kindred = documents(
    leaves
    | st.sampled_from([Word.ONE, Digit.TWO, Text("é"), (1, "a"), collections.OrderedDict(b=1, a=2), 0.0, -0.0, 1e300])
    | st.integers(-(2**80), 2**80),
    texts | st.sampled_from([Word.ONE, Text("one")]),
)
poisons = st.sampled_from([
    math.nan, math.inf, -math.inf, -0.0, 1e16, -1e300, "\0", "a\0b", "\ud800", "é\udfff", Decimal(1), UUID(int=1), b"x",
    {1, 2}, {1: 2}, {None: 1}, {True: 1}, {"\0": 1}, {"\ud800": 1}, (1, 2), Word.ONE, Digit.TWO, Text("x"),
    NOON, object(), 2**63, -(2**63), 2**13000, [[{"a": (1,)}]], {"a": [math.nan]}, [-0.0],
])  # fmt: skip


def standard(value):
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)


def exact(value):
    """Tell 1, 1.0 and True, 0.0 and -0.0, and the order of keys apart."""
    return repr(value)


def outcome(function, *arguments):
    try:
        return exact(function(*arguments))
    except ValueError:
        return "ValueError"


def slowly(value):
    return canonical._normalised(value, "$", 0)


# -- writing and reading ----------------------------------------------------------------------------------------------
@SETTINGS
@given(plain)
@example({"b": 1, "a": {"d": [], "c": {}}, "é": None, "Z": 1e-7, "\U0001f600": 2**64, "\uffff": 5e-324})
def test_text_written_by_the_codec_reads_as_text_of_the_standard_library_does(value):
    accepted = canonical_json(value)
    written = dump_json(accepted)
    assert exact(json.loads(written)) == exact(json.loads(standard(accepted)))
    assert exact(load_json(written)) == exact(json.loads(written))
    assert not set(written) & set("\n\r\t")


@SETTINGS
@given(kindred)
def test_whatever_is_accepted_as_json_comes_back_as_plain_values_in_key_order(value):
    written = dump_json(canonical_json(value))
    assert exact(load_json(written)) == exact(json.loads(standard(slowly(value))))


@SETTINGS
@given(st.lists(plain | kindred, max_size=6))
def test_a_column_of_json_is_written_as_its_values_are_one_by_one(values):
    accepted = list(map(canonical_json, values))
    assert dump_json_column(accepted) == list(map(dump_json, accepted))


@pytest.mark.parametrize("bits", [53, 63, 64, 65, 128, 1000, 12_999])
@pytest.mark.parametrize("sign", [1, -1])
def test_integers_of_any_size_come_back_to_the_last_digit(bits, sign):
    for number in (2**bits - 1, 2**bits, 2**bits + 1):
        assert load_json(dump_json(canonical_json([sign * number]))) == [sign * number]


@SETTINGS
@given(st.floats(-1e16, 1e16, exclude_min=True, exclude_max=True) | st.floats(-1e-300, 1e-300))
def test_floats_come_back_to_the_last_bit(number):
    accepted = canonical_json(number)
    assert exact(load_json(dump_json(accepted))) == exact(accepted)


digits = st.text("0123456789", max_size=25)
numbers = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "-", "+"]), digits, st.sampled_from(["", ".", ".0", ".5"]), digits,
        st.sampled_from(["", "e", "E", "e+", "e-", "E400", "e-400"]), st.text("0123456789", max_size=3),
    ),
)  # fmt: skip
writings = (
    st.builds(json.dumps, plain, ensure_ascii=st.booleans(), indent=st.sampled_from([None, 1]))
    | numbers
    | st.sampled_from(
        ["NaN", "Infinity", "-Infinity", "[1e400]", '"\\ud800"', '"\\ud83d\\ude00"', '"\ud800"', "\ufeff1"]
    )
    | st.text('[]{},:"\\/ \n\t0123456789.eE+-abcdeflnrstu\0\x1féNI', max_size=20)
)


@SETTINGS
@given(writings)
@example('{"a": 1, "a": 2}')
@example("[" * 500 + "]" * 500)
@example("1" * 4300)
@example("1" * 4301)
def test_any_text_is_read_as_the_standard_library_reads_it_or_refused_as_it_does(text):
    assert outcome(load_json, text) == outcome(json.loads, text)


@SETTINGS
@given(plain, st.integers(0, 200), st.sampled_from(["", ",", "}", "]", '"', "0", "\0", "\\"]))
def test_damaged_text_is_read_or_refused_as_the_standard_library_does(value, place, damage):
    text = json.dumps(value)
    text = text[:place] + damage + text[place + 1 :]
    assert outcome(load_json, text) == outcome(json.loads, text)


def test_appending_to_what_another_tool_wrote_changes_no_other_item(bench):
    """An infinity is no JSON on SQLite; PostgreSQL keeps the number."""

    @bench.db.model
    class Doc:
        items: list = []  # noqa: RUF012

    bench.run("DocCreateNode")
    bench.sql("UPDATE docs SET items = '[1e400]'")
    if bench.db.core.dialect.name == "sqlite":
        with pytest.raises(WorkflowExecutionError, match="holds an infinity or NaN"):
            bench.run("DocUpdateNode", id=1, items={"$append": 2})
    else:
        bench.run("DocUpdateNode", id=1, items={"$append": 2})
    (stored,) = bench.sql("SELECT CAST(items AS TEXT) AS items FROM docs")
    assert "null" not in stored["items"]


# -- looking quickly --------------------------------------------------------------------------------------------------
def judge(values):
    """Check that a quick look said nothing that the slow one denies."""
    if are_canonical(values):
        assert dump_json_column(values) == [dump_json(slowly(value)) for value in values]


@SETTINGS
@given(st.lists(plain, max_size=6))
def test_a_quick_look_at_many_values_is_never_wrong_about_plain_ones(values):
    judge(values)


@SETTINGS
@given(st.lists(kindred, min_size=1, max_size=6))
def test_a_quick_look_at_many_values_is_never_wrong_about_kindred_ones(values):
    judge(values)


@SETTINGS
@given(st.data(), poisons)
def test_a_quick_look_at_many_values_finds_a_bad_one_wherever_it_hides(data, poison):
    holder = st.recursive(
        st.just(poison), lambda inner: st.builds(lambda i, n: [n, i], inner, leaves) | st.builds(dict, a=inner)
    )
    values = data.draw(st.lists(plain, max_size=4))
    values.insert(data.draw(st.integers(0, len(values))), data.draw(holder))
    try:
        slow = [slowly(value) for value in values]
    except ValueRefused:
        assert not are_canonical(values)
        with pytest.raises(ValueRefused):
            JsonType().accept_column(values, nullable=True)
        return
    if are_canonical(values):
        assert dump_json_column(values) == dump_json_column(slow)
    assert dump_json_column(JsonType().accept_column(values, nullable=True)) == dump_json_column(slow)


@SETTINGS
@given(poisons)
def test_a_quick_look_at_one_value_finds_what_only_the_slow_one_may_judge(poison):
    for value in (poison, [poison], {"a": [poison]}):
        assert outcome_of(canonical_json, value) == outcome_of(slowly, value)


def outcome_of(function, value):
    try:
        return dump_json(function(value))
    except ValueRefused as refused:
        return refused.message, refused.hint


def nested(depth, inner):
    for level in range(depth):
        inner = [inner] if level % 2 else {"k": inner}
    return inner


@pytest.mark.parametrize("inner", [[], {}, 1, None, "x"])
@pytest.mark.parametrize("depth", [MAX_DEPTH - 2, MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 5000])
def test_documents_may_be_as_deep_along_the_quick_ways_as_along_the_slow_one(depth, inner):
    value = nested(depth, inner)
    if depth <= MAX_DEPTH - 1 or (depth == MAX_DEPTH and not isinstance(inner, (list, dict))):
        slow = dump_json(slowly(value))
        assert dump_json(canonical_json(value)) == slow
        assert dump_json_column(JsonType().accept_column([value, 1], nullable=False)) == [slow, "1"]
        assert load_json(slow) == value
        return
    assert not are_canonical([value])
    for refuse in (canonical_json, lambda v: JsonType().accept_column([v], nullable=False)):
        with pytest.raises(ValueRefused, match="levels deep"):
            refuse(value)


def test_a_quick_look_at_a_list_that_holds_itself_takes_little_memory():
    pytest.importorskip("resource")
    program = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (600_000_000, 600_000_000))
from dataflow.canonical import are_canonical
own = []
own.extend([own] * 1000)
print(are_canonical([own]))
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert found.stdout == "False\n", found.stderr


# -- instants ---------------------------------------------------------------------------------------------------------
ZONES = [UTC, timezone(timedelta(0), "GMT")]


@SETTINGS
@given(st.lists(st.datetimes(timezones=st.sampled_from(ZONES)), min_size=1, max_size=5))
@example([datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
@example([datetime(1, 1, 1, microsecond=1, tzinfo=UTC), datetime(999, 12, 31, 23, 59, 59, 100000, tzinfo=UTC)])
@example([datetime(2025, 1, 1, fold=1, tzinfo=UTC)])
def test_instants_are_written_as_isoformat_writes_them(values):
    assert dump_instants(values) == [value.isoformat(timespec="microseconds") for value in values]


def test_instants_of_a_class_of_ones_own_are_written_too():
    values = [Stamp(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, microsecond=5, tzinfo=UTC)]
    assert dump_instants(values) == [value.isoformat(timespec="microseconds") for value in values]
