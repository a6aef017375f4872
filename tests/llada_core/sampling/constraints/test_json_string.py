"""The keyword `pattern` against `re.search`, and the formats against those who read them."""

import datetime
import ipaddress
import json
import random
import re
from itertools import chain, product

import pytest

from llada_core.sampling.constraints.json_string import FORMATS, string_pattern
from llada_core.sampling.constraints.syntax import PatternError

_WORDS = ["".join(word) for word in chain.from_iterable(product('ab"\\c1 é-\n', repeat=length) for length in range(4))]


@pytest.mark.parametrize(
    "expression",
    [
        *(
            "",
            "a+",
            "^a$",
            "^(a|b)*c$",
            "^a|b$",
            "a.c",
            "^$|a",
            "^[a-c]{1,2}?$",
            "^a$|^ab$",
            "a{2}",
            "(?P<name>a)b",
            "(?:a|b)$",
            "(?:^|a)b",
            "(?:^a|b)(?:c|$)",
            "^^a$$",
            "^(^a|b)c?",
            "$",
            "$|a",
        ),
        *(r"^\d{1}-\d$", r"^\w+\s?$", '"', r"\\", r"^\S+$", r"[^ab]c", r'^[^"]*$', "\\Aa", "b\\Z", "a\nb"),
    ],
)
def test_a_string_matches_where_the_expression_is_found(expression):
    matches = re.compile(f'"{string_pattern(expression).text}"').fullmatch
    for word in _WORDS:
        if "$" in expression and word.endswith("\n"):
            continue  # where `re` alone lets `$` match before the last character
        assert bool(matches(json.dumps(word, ensure_ascii=False))) == bool(re.search(expression, word, re.ASCII)), word


def test_random_expressions_match_where_they_are_found():
    generator, num_supported = random.Random(0), 0
    pieces = ["a", "b", "c", r"\d", "[^a]", ".", "(", "(?:", ")", "|", "*", "?", "{1,2}", "^", "$"]
    for _ in range(4000):
        expression = "".join(generator.choice(pieces) for _ in range(generator.randint(1, 9)))
        try:
            expected = re.compile(expression, re.ASCII)
            matches = re.compile(f'"{string_pattern(expression).text}"').fullmatch
        except (re.error, PatternError):
            continue
        num_supported += 1
        for word in filter(lambda word: not word.endswith("\n"), _WORDS[:90]):
            assert bool(matches(json.dumps(word, ensure_ascii=False))) == bool(expected.search(word)), (
                expression,
                word,
            )
    assert num_supported > 400


@pytest.mark.parametrize("expression", [r"^\W$", r"^[^\w]$", r"^\D$", r"^[^\d]$", r"^\s$", r"^[^\S]$", r"^.$"])
def test_what_dialects_of_expressions_disagree_on_is_not_written(expression):
    matches = re.compile(string_pattern(expression).text).fullmatch
    for code in (*range(0x20, 0x7F), 0x85, 0xA0, 0xE9, 0x660, 0x1680, 0x2028, 0x65E5, 0xFEFF, 0x1F388):
        written = bool(matches(json.dumps(chr(code), ensure_ascii=False)[1:-1]))
        agreed = bool(re.search(expression, chr(code))) and bool(re.search(expression, chr(code), re.ASCII))
        assert not written or agreed, hex(code)
        assert code > 0x7F or written == agreed, hex(code)


def test_a_control_character_is_written_where_nothing_else_would_do():
    assert string_pattern("^\x01$").text == r"\\u0001"
    assert string_pattern("^[\x01\n]$").text == r"\\[n]"


def test_the_lengths_of_what_an_expression_holds_at_both_ends_are_known():
    text = string_pattern("^[a-z]{2,5}-?$")
    assert (text.shortest, text.longest) == (2, 6)
    assert string_pattern("^a*$").longest is None
    assert string_pattern("^(?:|ab|c{3})$").longest == 3
    assert string_pattern("[a-z]{2,5}").longest is None


@pytest.mark.parametrize(
    ("expression", "rule"),
    [
        ("(a)\\1", "a back-reference"),
        ("(?=a)", "look-ahead"),
        ("(?<!a)b", "look-behind"),
        ("(?>a)", "an atomic group"),
        ("a*+", "a possessive repeat"),
        ("(?i)a", "inline flags"),
        ("(?i:a)", "inline flags"),
        ("a^b", "has an anchor ^ that is not at an end of it (at position 1)"),
        (r"\bword\b", "an anchor \\b"),
        ("(^a)+", "an anchor ^"),
        ("a*^b", "an anchor ^"),
        ("(a|$)^", "an anchor $"),
        ("a$?", "nothing to repeat"),
        ("[", "a set that is not closed"),
        (r"\p{L}", "an unknown escape"),
        ("a{99999999999}", "repeats a part more than 10000 times"),
        (r"[^\s\S]", "a class without characters"),
        ("x" * 1001, "has 1001 characters; it must have at most 1000"),
        ("(" * 450 + ")" * 450, "more than 64 groups inside each other"),
    ],
)
def test_what_cannot_be_written_for_json_is_refused(expression, rule):
    with pytest.raises(PatternError, match=re.escape(rule)):
        string_pattern(expression)


def test_dates_are_those_of_the_calendar():
    matches = re.compile(FORMATS["date"]).fullmatch
    for year, month, day in product((1000, 1900, 2000, 2023, 2024, 2100, 2400, 9999), range(14), range(33)):
        text = f"{year:04}-{month:02}-{day:02}"
        try:
            datetime.date.fromisoformat(text)
        except ValueError:
            assert not matches(text), text
        else:
            assert matches(text), text


def test_addresses_of_computers_are_those_that_python_reads():
    matches = re.compile(FORMATS["ipv4"]).fullmatch
    for byte in ("0", "9", "10", "99", "100", "199", "249", "255", "256", "300", "00", "01", "1000", ""):
        text = f"10.{byte}.0.1"
        try:
            ipaddress.IPv4Address(text)
        except ValueError:
            assert not matches(text), text
        else:
            assert matches(text), text


@pytest.mark.parametrize("text", ["00:00:00Z", "23:59:59.123456+23:59", "12:30:00-05:00"])
def test_times_have_an_offset(text):
    assert re.fullmatch(FORMATS["time"], text)
    assert re.fullmatch(FORMATS["date-time"], f"2024-02-29T{text}")
    assert not re.fullmatch(FORMATS["time"], text[:8]) and not re.fullmatch(FORMATS["time"], f"24{text[2:]}")
