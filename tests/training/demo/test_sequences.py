"""Small questions: what comes next, opposites, colors, counting."""

import re
from itertools import islice
from random import Random

from training.demo.sampling import data_lines
from training.demo.sequences import sequence_dialogues, sequence_documents


def some_dialogues() -> dict[str, set[str]]:
    """Answers by question, without the casual spelling."""
    found: dict[str, set[str]] = {}
    for _, dialogue in zip(range(5000), sequence_dialogues(Random(0)), strict=False):
        found.setdefault(dialogue.turns[0], set()).add(dialogue.turns[1])
    return found


def test_a_question_has_one_answer() -> None:
    assert not {question: answers for question, answers in some_dialogues().items() if len(answers) > 1}


def test_answers_are_right() -> None:
    found = {question: next(iter(answers)) for question, answers in some_dialogues().items()}
    assert found["What is the opposite of hot?"] == "The opposite of hot is cold."
    assert found["What color is the sky?"] == "The sky is blue."
    assert found["What color are bananas?"] == "Bananas are yellow."
    assert found["What day comes after Sunday?"] == "Monday comes after Sunday."
    assert found["What month comes after January?"] == "February comes after January."
    assert found["Count from 1 to 5."] == "1, 2, 3, 4, 5."


def test_an_opposite_has_one_opposite() -> None:
    (row,) = (line for line in data_lines("sequences.txt") if line.startswith("opposite"))
    firsts = [entry.split()[0] for entry in row.split("\t")[1].split(";")]
    assert len(firsts) == len(set(firsts))


def test_opposites_are_asked_for_as_often_as_what_comes_next() -> None:
    asked = [dialogue.turns[0].lower() for dialogue in islice(sequence_dialogues(Random(0)), 2000)]
    assert 0.15 < sum("opposite" in question for question in asked) / len(asked) < 0.3


def test_documents_leave_no_slot_open() -> None:
    for _, text in zip(range(500), sequence_documents(Random(0)), strict=False):
        assert not re.search(r"[{}_;]", text)
