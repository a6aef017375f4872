"""Questions for rewards, from their records."""

import pytest

from training.data.dialogues import Turn
from training.data.files import Record
from training.data.formats import ReadReport, read_questions
from training.errors import DataError


def read(*values, needs_answer=True, limit=0):
    report = ReadReport(limit)
    records = (Record(f"q.jsonl, line {number}", value) for number, value in enumerate(values, start=1))
    return list(read_questions(records, report, needs_answer=needs_answer)), report


def test_a_question_is_a_prompt_or_messages_and_its_record_is_kept_whole():
    text = {"prompt": " 3 + 4? ", "answer": "7", "level": 2}
    chat = {
        "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "3 + 4?"}],
        "answer": "7",
    }
    (first, second), report = read(text, chat)
    assert first.prompt == [Turn("user", "3 + 4?")] and first.record == text
    assert second.prompt == [Turn("system", "Be short."), Turn("user", "3 + 4?")] and second.record == chat
    assert report.format == "question"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"prompt": "3 + 4?"}, 'needs a non-empty string "answer"'),
        ({"prompt": "3 + 4?", "answer": 7}, 'needs a non-empty string "answer"'),
        ({"answer": "7"}, 'needs a non-empty string "prompt"'),
        ({"messages": [{"role": "assistant", "content": "7"}], "answer": "7"}, "it must be by 'user'"),
    ],
)
def test_a_record_that_cannot_be_asked_is_a_bad_line(value, problem):
    with pytest.raises(DataError, match="line 1: ") as error:
        read(value)
    assert problem in str(error.value)
    questions, report = read(value, {"prompt": "1 + 1?", "answer": "2"}, limit=1)
    assert len(questions) == report.count == 1


def test_an_answer_is_needed_only_by_rewards_that_compare_with_it():
    questions, _ = read({"prompt": "Tell me a story."}, needs_answer=False)
    assert questions[0].record == {"prompt": "Tell me a story."}
