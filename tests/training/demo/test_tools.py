"""Exercises that a tool solves."""

import json
import re
from itertools import islice
from random import Random

from training.demo.tools import CALCULATOR, tool_dialogues

NONE = frozenset[tuple[str, tuple[int, int]]]()


def test_a_call_copies_the_exercise_and_the_answer_the_result() -> None:
    calls = [d for d in islice(tool_dialogues(NONE, Random(0)), 1000) if len(d.turns) == 4]
    assert len(calls) > 850
    for dialogue in calls:
        question, call, result, answer = dialogue.turns
        assert f"{CALCULATOR.name}(expression: string): " in dialogue.system
        called = json.loads(call)
        assert called["name"] == CALCULATOR.name
        a, sign, b = called["arguments"]["expression"].split(" ")
        assert {a, b} == set(re.findall(r"\d+", question))
        value = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}[sign](int(a), int(b))
        assert result == f"Result: {value}"
        assert answer == f"{a} {sign} {b} = {value}."


def test_numbers_have_one_to_four_digits() -> None:
    exercises = " ".join(d.turns[1] for d in islice(tool_dialogues(NONE, Random(0)), 1000) if len(d.turns) == 4)
    lengths = [len(number) for number in re.findall(r"\d+", exercises)]
    assert all(lengths.count(length) > 200 for length in (1, 2, 3, 4))


def test_held_out_exercises_are_not_called() -> None:
    held_out = frozenset(("sums", (a, b)) for a in range(100) for b in range(100))
    for dialogue in islice(tool_dialogues(held_out, Random(0)), 1000):
        if (match := re.search(r'"(\d+) \+ (\d+)"', dialogue.turns[1])) is not None:
            assert max(int(match[1]), int(match[2])) >= 100
