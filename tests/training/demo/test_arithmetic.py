"""Exercises: right, in their shares, and as people type them."""

import re
from collections import Counter
from itertools import islice
from random import Random

from training.demo.arithmetic import DIFFERENCE, PRODUCT, SUM, arithmetic_dialogues, arithmetic_documents, digits

NONE = frozenset[tuple[str, tuple[int, int]]]()
ANSWER = re.compile(r"(\d+) ([+*-]) (\d+) = (-?\d+)\.")


def test_every_answer_is_right_and_repeats_its_exercise() -> None:
    results = {operation.sign: operation.result for operation in (SUM, DIFFERENCE, PRODUCT)}
    signs: Counter[str] = Counter()
    for _, dialogue in zip(range(3000), arithmetic_dialogues(NONE, Random(0)), strict=False):
        for question, answer in zip(dialogue.turns[::2], dialogue.turns[1::2], strict=True):
            match = ANSWER.fullmatch(answer)
            assert match
            a, b = int(match[1]), int(match[3])
            assert results[match[2]](a, b) == int(match[4])
            assert {match[1], match[3]} <= set(re.findall(r"\d+", question))
            signs[match[2]] += 1
    assert all(signs[sign] > 100 for sign in "+-*")


def test_exercises_are_asked_as_people_type_them() -> None:
    asked = [d.turns[0] for _, d in zip(range(3000), arithmetic_dialogues(NONE, Random(0)), strict=False)]
    for pattern in (
        r"What is \d+ \+ \d+\?",
        r"\d+\+\d+",
        r"What is \d+ minus \d+\?",
        r"\d+-\d+",
        r"What is \d+ \* \d+\?",
    ):
        assert any(re.fullmatch(pattern, question) for question in asked), pattern


def test_results_close_to_another_number_of_digits_come_more_often() -> None:
    two_digits: dict[str, list[int]] = {"+": [], "-": []}
    for dialogue in islice(arithmetic_dialogues(NONE, Random(0)), 6000):
        a, sign, b, result = ANSWER.fullmatch(dialogue.turns[1]).groups()
        if sign in two_digits and digits((int(a), int(b))) == "two":
            two_digits[sign].append(int(result))
    for sign, near in (("+", range(80, 110)), ("-", range(20))):
        share = sum(result in near for result in two_digits[sign]) / len(two_digits[sign])
        assert 0.5 < share < 0.75, sign


def test_differences_may_be_negative_for_small_numbers_only() -> None:
    assert (4, 9) in DIFFERENCE.pairs and (9, 4) in DIFFERENCE.pairs
    assert (40, 90) not in DIFFERENCE.pairs and (4, 90) not in DIFFERENCE.pairs


def test_digit_counts() -> None:
    assert [digits(pair) for pair in ((2, 9), (2, 10), (10, 2), (10, 99))] == ["one", "mixed", "mixed", "two"]


def test_documents_are_lists_of_solved_exercises() -> None:
    for _, text in zip(range(200), arithmetic_documents(NONE, Random(0)), strict=False):
        assert all(ANSWER.fullmatch(line + ".") for line in text.splitlines())
        assert 3 <= len(text.splitlines()) <= 6
