"""Patterns mean what they mean to `re`, and what is not supported is refused by name and position."""

import random
import re
import time
import warnings
from contextlib import suppress
from itertools import product

import pytest

from llada_core.errors import InvalidParameterError
from llada_core.sampling.constraints import automaton
from llada_core.sampling.constraints.anchors import matched_whole
from llada_core.sampling.constraints.automaton import DEAD, Deadline, build_automaton
from llada_core.sampling.constraints.syntax import PatternError, parse

# Everything that the syntax has, and pieces of it that do not fit together.
PIECES = r"""
a b é . [ab] [^a] [a-é] \w \W \d \D \s \S \n ( (?: ) | * + ? {2} {1,2} {,2} {1,} {0} *? ?? {0,1}? { } , ] - [ [^ \\ ^ $
\x61 \u00e9 \101 \0 \141 [\b] []a] [a\]é] [\w-] [+--] [[a] (?P<n> 1 \. \é (?:) () [^\s\S] \U0001F642 [\0-\377]
""".split()  # noqa: SIM905 - a list of raw strings would be three times as long
TEXTS = ["".join(letters) for length in range(5) for letters in product("abé\n", repeat=length)]


def accepts(pattern, text):
    found = build_automaton(pattern, Deadline())
    state = 0
    for byte in text.encode():
        state = found.next_QB[state, found.byte_classes[byte]]
        if state == DEAD:
            return False
    return bool(found.is_accepting_Q[state])


def compare(pattern):
    """Whether a pattern is accepted; if so, every short text must match as `re` has it."""
    try:
        with warnings.catch_warnings(action="ignore"):
            expected = re.compile(pattern, re.ASCII)
    except (re.error, OverflowError):
        expected = None
    try:
        found = build_automaton(pattern, Deadline())
    except InvalidParameterError as error:
        # What `re` has and is refused here is refused by name.
        assert expected is None or re.search(r"anchor|repeat of a repeat|possessive|back-ref", str(error)), pattern
        return False
    assert expected is not None, pattern
    for text in TEXTS:
        state = 0
        for byte in text.encode():
            state = found.next_QB[state, found.byte_classes[byte]] if state != DEAD else DEAD
        is_accepted = state != DEAD and bool(found.is_accepting_Q[state])
        assert is_accepted == bool(expected.fullmatch(text)), (pattern, text)
    return True


def random_pattern(generator):
    return "".join(generator.choice(PIECES) for _ in range(generator.randint(1, 8)))


def test_random_patterns_accept_what_re_fully_matches():
    generator = random.Random(0)
    assert sum(compare(random_pattern(generator)) for _ in range(600)) > 170


@pytest.mark.fuzz
def test_many_random_patterns_accept_what_re_fully_matches():
    generator = random.Random(1)
    assert sum(compare(random_pattern(generator)) for _ in range(60_000)) > 15_000


@pytest.mark.parametrize(
    "pattern", [r"\w", r"\W", r"\s", r"\S", ".", r"\d", r"\D", "[^a]", "[À-ɏ]", "[^߿-ࠀ]", "[퟿-\ue000]"]
)
def test_every_character_matches_as_re_has_it(pattern):
    found, expected = build_automaton(pattern, Deadline()), re.compile(pattern, re.ASCII)
    codes = [*range(0x900), *range(0xD7F0, 0xD800), *range(0xE000, 0xE010), *range(0xFFF0, 0x10010), 0x1F642, 0x10FFFF]
    for code in codes:
        state = 0
        for byte in chr(code).encode():
            state = found.next_QB[state, found.byte_classes[byte]] if state != DEAD else DEAD
        assert (state != DEAD and found.is_accepting_Q[state]) == bool(expected.match(chr(code))), hex(code)


def test_bytes_that_are_no_text_are_never_accepted():
    for pattern in (".", r"[^a]", r"\W", r"\S"):
        found = build_automaton(pattern, Deadline())
        for wrong in (b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff", b"\xc3", b"\xe0\x80\x80", b"\xa9"):
            state = 0
            for byte in wrong:
                state = found.next_QB[state, found.byte_classes[byte]] if state != DEAD else DEAD
            assert state == DEAD or not found.is_accepting_Q[state], (pattern, wrong)


def test_anchors_at_the_ends_change_nothing():
    for pattern in ("^ab$", r"\Aab\Z", "^ab", "ab$"):
        assert accepts(pattern, "ab")
        assert not accepts(pattern, "ab\n")
    for pattern in ("^a|b$", "(a$)|^(?:b$)", "(?:^|c)(?:b|$)", "(^|a)b$"):
        assert accepts(pattern, "b")
        assert not accepts(pattern, "bb")
    assert accepts(r"a\$", "a$")


@pytest.mark.parametrize(
    ("pattern", "rule"),
    [
        ("a(?=b)", r"has look-ahead (?=, which is not supported (at position 1: '(?=b)')"),
        ("(?!b)", "look-ahead (?!"),
        ("(?<=b)a", "look-behind (?<="),
        ("(?<!b)a", "look-behind (?<!"),
        (r"(a)\1", r"a back-reference \1, which is not supported (at position 3"),
        ("(?P<x>a)(?P=x)", "a back-reference (?P="),
        ("(?i)a", "inline flags"),
        ("(?-i:a)", "inline flags"),
        ("(?>a)", "an atomic group (?>"),
        ("(a)?(?(1)b)", "a conditional group (?("),
        ("a(?#x)", "a comment (?#"),
        ("a*+", "a possessive repeat"),
        ("a{2}+", "a possessive repeat"),
        ("a^b", "has an anchor ^ that is not at an end of it (at position 1)"),
        ("a$b", "an anchor $"),
        ("(a$)?", "an anchor $"),
        (r"\bword", r"an anchor \b"),
        ("a**", "a repeat of a repeat"),
        ("*", "nothing to repeat"),
        ("^*", "nothing to repeat"),
        ("{2}", "nothing to repeat"),
        ("a)", "an unbalanced )"),
        ("(a", "a group that is not closed (at position 0"),
        ("[a", "a set that is not closed (at position 0"),
        ("[b-a]", "a range whose ends"),
        (r"[\d-z]", "a range whose ends"),
        (r"\y", r"an unknown escape \y"),
        ("\\", "an unknown escape"),
        (r"\xg1", "hexadecimal"),
        (r"\U00110000", "hexadecimal"),
        (r"\777", "octal"),
        ("(?P<1>a)", "whose name"),
        ("(?P<n>a)(?P<n>b)", "whose name"),
        ("(?<n>a)", "an unknown group"),
        ("a{3,2}", "least is above its most"),
        ("a{10001}", "repeats a part more than 10000 times"),
        ("a{" + "9" * 5000 + "}", "repeats a part more than 10000 times"),
        ("(" * 65 + ")" * 65, "more than 64 groups inside each other"),
        ("a" * 65537, "has 65537 characters; it must have at most 65536"),
        (r"[^\s\S]", "matches no text"),
        ("\ud800", "matches no text"),
    ],
)
def test_what_is_not_supported_is_refused_by_name_and_position(pattern, rule, compile_pattern):
    with pytest.raises(InvalidParameterError) as caught:
        compile_pattern(pattern)
    assert rule in str(caught.value)
    assert caught.value.field == "regex"


PATHOLOGICAL = [
    "(?:(?:a|aa){0,50}){0,50}",
    "(?:(?:){10000}){10000}",
    ".*a.{14}",
    "(?:(?:(?:)*)*){10000}",
    "(" * 60 + "a|b" + "*)" * 59 + ")",
    r"(?:\w{1,50} ){1,80}",
]
MORE_PATHOLOGICAL = [
    "(?:a?){10000}",
    "(?:[^a]{1,1000}){1,1000}",
    "(?:(?:a{100}){100}){100}",
    "(?:.*a){12}(?:.{0,30}b){12}",
    "|".join(f".*{number}.*" for number in range(60)),
    "[^x]{4000}",
    "(?:a|b|c|d|e|f|g|h){9000}",
    "((a*)*)*" * 1000,
    "[^a]" * 16000,
    "(?:" + "|".join(f"[^{chr(code)}]{{0,30}}" for code in range(0x100, 0x180)) + ")*",
]


def assert_bounded(pattern, compile_pattern):
    started = time.thread_time()
    try:
        compile_pattern(pattern)
    except InvalidParameterError as error:
        assert re.search(r"more than [\d,.]+|at most [\d,]+", str(error))
    # The deadline is looked at between operations that take a moment.
    assert time.thread_time() - started < automaton.MAX_CPU_SECONDS + 1


@pytest.mark.parametrize("pattern", PATHOLOGICAL, ids=lambda pattern: pattern[:30])
def test_a_pathological_pattern_costs_at_most_the_limits(pattern, compile_pattern):
    assert_bounded(pattern, compile_pattern)


@pytest.mark.fuzz
@pytest.mark.parametrize("pattern", MORE_PATHOLOGICAL, ids=lambda pattern: pattern[:30])
def test_more_pathological_patterns_cost_at_most_the_limits(pattern, compile_pattern):
    assert_bounded(pattern, compile_pattern)


def test_the_deadline_ends_every_stage(monkeypatch, compile_pattern):
    monkeypatch.setattr(automaton, "MAX_CPU_SECONDS", 0.0)
    with pytest.raises(InvalidParameterError, match="takes more than 0 seconds of computing"):
        compile_pattern("[a-z]{1,100}")


def test_patterns_of_any_length_and_kind_are_parsed_in_linear_time():
    for piece in ("(a)|", "[a-z]?", "a{1", "{", "a{1,2", "(?:", "[^", r"\\", "[]", "^", "$", "^a|", "b$|", "^(b)$"):
        started = time.thread_time()
        with suppress(PatternError):
            matched_whole(parse(piece * (8192 // len(piece))))
        assert time.thread_time() - started < 2
