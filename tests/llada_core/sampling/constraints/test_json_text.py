"""Patterns of JSON values against Python's own `re` and `json`."""

import json
import re
from random import Random

import pytest

from llada_core.sampling.constraints.json_text import (
    NUMBER,
    STRING,
    integer_pattern,
    literal_pattern,
    number_pattern,
    object_pattern,
    value_pattern,
)


def test_an_integer_range_has_exactly_its_integers():
    rng = Random(0)
    for _ in range(60):
        low = rng.randint(-1200, 1200)
        high = low + rng.choice([0, 1, 5, 37, 400, 2400])
        matches = re.compile(integer_pattern(low, high)).fullmatch
        assert all(bool(matches(str(value))) == (low <= value <= high) for value in range(-1300, 3700)), (low, high)


@pytest.mark.parametrize(("low", "high"), [(None, None), (None, -5), (100, None), (10**17, 10**40)])
def test_an_open_range_ends_where_readers_of_json_agree_on_integers(low, high):
    pattern = integer_pattern(low, high)
    assert re.fullmatch(pattern, str(10**18 - 1)) or high == -5
    assert not re.fullmatch(pattern, str(10**18))
    assert bool(re.fullmatch(pattern, str(1 - 10**18))) == (low is None)


def test_there_is_no_pattern_for_a_range_without_integers():
    assert integer_pattern(5, 4) == integer_pattern(10**18, None) == integer_pattern(None, -(10**20)) == ""


def test_a_number_range_has_its_decimals_and_keeps_its_ends():
    rng = Random(1)
    for _ in range(60):
        low, high = rng.choice([None, rng.randint(-30, 30)]), rng.choice([None, rng.randint(-30, 60)])
        is_low_open, is_high_open = low is not None and rng.random() < 0.5, high is not None and rng.random() < 0.5
        pattern = number_pattern(low, high, is_low_open=is_low_open, is_high_open=is_high_open)
        for tenths in range(-700, 700):
            text = str(tenths / 10)
            value = float(text)
            above = low is None or value > low or (value == low and not is_low_open)
            below = high is None or value < high or (value == high and not is_high_open)
            assert bool(pattern and re.fullmatch(pattern, text)) == (above and below), (low, high, text)


def test_no_number_is_rounded_to_an_excluded_bound():
    pattern = re.compile(number_pattern(0, 10**9, is_low_open=True, is_high_open=True))
    assert pattern.fullmatch("999999999.0") and not pattern.fullmatch("1000000000.0")
    assert not pattern.fullmatch("0.0000001") and pattern.fullmatch("0.000001")


@pytest.mark.parametrize("text", ['"a"', '"\\""', '"\\u00e9"', '"\\ud83c\\udf88"', '"🎈"', '""', '"/\\/"'])
def test_a_string_is_any_string_of_json(text):
    assert re.fullmatch(STRING, text)
    json.loads(text)


@pytest.mark.parametrize("text", ['"', '"\\x"', '"\n"', '"\\ud83c"', '"\\udf88\\ud83c"', '"\\u12"', "a", '"""'])
def test_nothing_else_is_a_string(text):
    assert not re.fullmatch(STRING, text)


@pytest.mark.parametrize("text", ["0", "-0", "12", "1.50", "1e9", "2.5E-10", "-3.0e+1"])
def test_a_number_is_any_number_of_json(text):
    assert re.fullmatch(NUMBER, text)
    json.loads(text)


@pytest.mark.parametrize("text", ["01", "1.", ".5", "+1", "1e", "NaN", "1e999", "", "--1"])
def test_nothing_else_is_a_number(text):
    assert not re.fullmatch(NUMBER, text)


@pytest.mark.parametrize(
    "value", ["a.b", 'x"y', "ž\n", 1.5, -3, True, None, [], {}, [1, {"a": ["x"]}], {"b": 1, "a": 2}]
)
def test_a_literal_is_itself_with_or_without_blanks(value):
    for separators in ((",", ":"), (", ", ": ")):
        assert re.fullmatch(literal_pattern(value), json.dumps(value, ensure_ascii=False, separators=separators))
    assert not re.fullmatch(literal_pattern(value), json.dumps([value]))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", ["\udfff"]])
def test_a_literal_that_json_or_utf8_lacks_is_refused(value):
    with pytest.raises(ValueError):
        literal_pattern(value)


def test_an_object_nests_to_its_depth_and_no_deeper():
    pattern = re.compile(object_pattern(3))
    assert pattern.fullmatch('{"a": {"b": [1, "x"]}, "c":{}}')
    assert not pattern.fullmatch('{"a": {"b": [[]]}}')
    assert not pattern.fullmatch("[]") and re.fullmatch(value_pattern(1), "[]")
    assert (
        not pattern.fullmatch('{"a":  1}') and not pattern.fullmatch('{ "a": 1}') and not pattern.fullmatch('{"a": 1,}')
    )
