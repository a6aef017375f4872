"""Labelled questions as records."""

import pytest

from training.data.decisions import read_decisions
from training.data.files import Record
from training.data.formats import ReadReport
from training.errors import DataError

CHOICES = [{"value": "true", "description": "as a word"}, {"value": True}, {"value": "b", "description": None}]
CHOICE = {"type": "choice", "name": "x", "instructions": "Which?", "choices": CHOICES}
SCORE = {"type": "score", "instructions": "How much?", "levels": [{"label": "low"}, {"label": "high"}]}
PREDICATE = {"type": "predicate", "instructions": "It is so."}


def read(*rows, limit=0):
    report = ReadReport(limit)
    records = (Record(f"line {number}", row) for number, row in enumerate(rows, start=1))
    return list(read_decisions(records, report)), report


@pytest.mark.parametrize(
    ("question", "answer", "index", "names"),
    [
        (PREDICATE, True, 0, ["yes", "no"]),
        (PREDICATE, False, 1, ["yes", "no"]),
        (CHOICE, "true", 0, ["true", "true", "b"]),
        (CHOICE, True, 1, ["true", "true", "b"]),
        (SCORE, "high", 1, ["low", "high"]),
    ],
)
def test_each_type_is_read_with_its_answer(question, answer, index, names):
    ((read_one,), _) = read({"input": "text", "question": question, "answer": answer, "split": "held out"})
    assert (read_one.kind, read_one.answer) == (question["type"], index)
    assert [option.name for option in read_one.question.options] == names
    assert [(turn.role, turn.content) for turn in read_one.conversation] == [("user", "text")]


def test_an_input_may_be_a_conversation():
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
    ((read_one,), _) = read({"input": turns, "question": PREDICATE, "answer": True})
    assert [turn.role for turn in read_one.conversation] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": "yes"}, "line 1: answer: is 'yes'; it must be one of the question's options"),
        ({"answer": 1}, "answer: is 1"),
        ({"answer": [True]}, "answer: is [True]"),
        ({"question": CHOICE, "answer": False}, "answer: is False"),
        ({"question": SCORE, "answer": 1}, "answer: is 1"),
        ({"question": {**CHOICE, "choices": CHOICES * 2}, "answer": "b"}, "question: lists an option twice"),
        ({"question": {**CHOICE, "choices": CHOICES[:1]}, "answer": "true"}, "at least 2 items"),
        ({"question": {**PREDICATE, "choices": CHOICES}}, "Extra inputs"),
        ({"question": {"type": "noul"}}, "'noul'"),
        ({"question": {**PREDICATE, "instructions": ""}}, "question.predicate.instructions"),
        ({"input": 3}, "input"),
        ({"input": "half \ud800"}, "half of a surrogate pair"),
        ({"question": None}, "question"),
    ],
    ids=str,
)
def test_a_record_that_is_no_labelled_question_is_a_bad_line(changes, message):
    good = {"input": "text", "question": PREDICATE, "answer": True}
    with pytest.raises(DataError) as caught:
        read({**good, **changes})
    assert message in str(caught.value)
    questions, report = read(good, {**good, **changes}, good, limit=1)
    assert (len(questions), report.count) == (2, 1)
