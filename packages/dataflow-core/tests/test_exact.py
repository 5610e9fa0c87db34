"""What `dataflow.exact` computes for databases that cannot: the same results and refusals whoever asks."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow import exact
from dataflow.jsontext import dump_json
from dataflow.types import ValueRefused, canonical_decimal

DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30, places=12)


def text(value):
    return exact.decimal_text(canonical_decimal(value))


@given(DECIMALS, DECIMALS)
def test_sort_keys_of_decimals_are_ordered_as_the_decimals_are(one, other):
    key, next_key = exact.decimal_key(text(one)), exact.decimal_key(text(other))
    assert (key < next_key, key == next_key) == (one < other, one == other)
    assert exact.compare_decimals(text(one), text(other)) == (one > other) - (one < other)


@pytest.mark.parametrize(
    "values", [["-100", "-10.5", "-9.5", "-0.1", "-0.09", "0", "0.009", "0.1", "9", "10", "1" * 200]]
)
def test_sort_keys_know_signs_and_magnitudes(values):
    assert sorted(values, key=exact.decimal_key) == values


@pytest.mark.parametrize(
    ("sign", "left", "right", "kind", "result"),
    [
        ("+", 4, 2, "int", 6),
        ("*", 4, 0.5, "int", 2),
        ("/", 4, 0.5, "int", 8),
        ("*", "0.1", "1.1", "decimal", "0.11"),
        ("/", "1", 8, "decimal", "0.125"),
        ("-", None, 1, "int", None),
    ],
)
def test_arithmetic_is_exact(sign, left, right, kind, result):
    assert exact.arithmetic(sign, left, right, kind) == result


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: exact.arithmetic("/", 4, 3, "int"), "not a whole number"),
        (lambda: exact.arithmetic("/", "10", 3, "decimal"), "not an exact Decimal"),
        (lambda: exact.arithmetic("/", 4, 0, "int"), "division by zero"),
        (lambda: exact.arithmetic("*", 4, 2**62, "int"), "does not fit in 64 bits"),
        (lambda: exact.multiply_floats(5e-324, 0.1), "too small for a float"),
        (lambda: exact.divide_floats(1.0, 0.0), "by zero"),
        (lambda: exact.finite(float("inf")), "too large for a float"),
        (lambda: exact.whole_sum(2**31, 0), "the sum does not fit"),
        (lambda: exact.decimal_of("4711x"), "not a Decimal"),
        (lambda: exact.json_append('{"a":4711}', "1"), "not one"),
    ],
)
def test_what_has_no_exact_result_is_refused_without_a_value(call, says):
    with pytest.raises(ValueRefused, match=says) as refused:
        call()
    assert "4711" not in refused.value.message


def test_totals_are_exact_and_none_of_nothing():
    total = exact.DecimalTotal()
    assert (total.sum(), total.average()) == (None, None)
    for value in ("0.1", None, "0.1", "0.1"):
        total.add(value)
    assert (total.sum(), total.average()) == ("0.3", "0.1")
    assert exact.whole_sum(0, 5) == 5
    assert exact.whole_average(0, 9, 2) == 4.5
    assert exact.whole_average(None, None, 0) is None


def test_json_is_compared_by_value_and_type():
    assert exact.json_equal('{"a":1}', '{"a":1.0}')
    assert not exact.json_equal("true", "1")
    assert exact.json_in('"7"', '["7",8]')
    assert not exact.json_in("7", '["7",8]')
    assert exact.json_contains('{"a":[1,2],"b":1}', '{"a":[2]}')
    assert exact.json_contains('["a",{"b":1}]', '{"b":1}')
    assert exact.json_overlap("[1,2]", "[2,9]")
    assert exact.json_overlap("1", "[1]") is False
    assert (exact.json_order("3", "3.5"), exact.json_order(str(2**70), str(2**63)), exact.json_order('"3"', "3")) == (
        -1,
        1,
        None,
    )
    assert exact.json_value('{"a":[1.0]}') == '{"a":[1]}'


def test_members_are_found_by_keys_only():
    document = dump_json({"a.b": {'q"': 1}, "list": [5]})
    assert exact.json_member(document, dump_json(["a.b", 'q"'])) == "1"
    assert exact.json_member(document, dump_json(["list", "0"])) is None
    assert exact.json_member(None, "[]") == "null"


@pytest.mark.parametrize(
    ("document", "kind", "characters"),
    [('"a"', "str", "a"), ("1.5", "number", None), ("-1", "number", None), ("true", "bool", None),
     ("null", "null", None), ("[]", "json", None), ("{}", "json", None), (None, None, None)],
)  # fmt: skip
def test_a_document_tells_its_kind_and_its_text(document, kind, characters):
    assert (exact.json_kind(document), exact.json_text(document)) == (kind, characters)


def test_lists_grow_and_begin():
    assert exact.json_append(None, "1") == "[1]"
    assert exact.json_append("[1]", '"x"') == '[1,"x"]'
    assert exact.matches("^a", 5) is exact.matches("^a", None) is None
    assert exact.decimal_text(Decimal("1.10")) == "1.1"
