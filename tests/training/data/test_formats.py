import pytest

from llada_core.text.tokenizer import Message
from tests.training.data.records import ANSWER, DIALOGUE, QUESTION, RECORDS, records_of
from training.data.formats import (
    FilledGap,
    ReadReport,
    detect_format,
    read_any_text,
    read_dialogues,
    read_documents,
    read_prompts,
)
from training.errors import DataError


@pytest.mark.parametrize("name", RECORDS)
def test_every_dialogue_format_gives_the_same_dialogue(tmp_path, name):
    report = ReadReport(0)
    assert list(read_dialogues(records_of(tmp_path, RECORDS[name]), report)) == [DIALOGUE]
    assert report.format == name == detect_format(RECORDS[name])


def test_conversations_may_use_role_and_content_too(tmp_path):
    record = {"conversations": RECORDS["messages"]["messages"]}
    assert list(read_dialogues(records_of(tmp_path, record), ReadReport(0))) == [DIALOGUE]


def test_alpacas_input_follows_the_instruction(tmp_path):
    record = {"instruction": "Add.", "input": "1 and 1", "output": ANSWER}
    (dialogue,) = read_dialogues(records_of(tmp_path, record), ReadReport(0))
    assert dialogue[0].content == "Add.\n\n1 and 1"


def test_the_tokenizer_reads_the_text_of_any_format(tmp_path):
    assert list(read_any_text(records_of(tmp_path, {"text": "x"}), ReadReport(0))) == ["x"]
    assert list(read_any_text(records_of(tmp_path, RECORDS["alpaca"]), ReadReport(0))) == [QUESTION, ANSWER]
    assert list(read_any_text(records_of(tmp_path, {"text": ["a ", "b"]}), ReadReport(0))) == ["a b"]


def test_a_documents_text_may_be_a_list_of_parts(tmp_path):
    rows = records_of(tmp_path, {"text": ["a big ", "fox", "."]}, {"text": "a fox."})
    assert list(read_documents(rows, ReadReport(0))) == [("a big ", "fox", "."), ("a fox.",)]


def test_a_gap_is_read_with_the_text_around_it_and_may_be_the_beginning(tmp_path):
    rows = [{"prefix": "a big ", "middle": "fox", "suffix": "."}, {"prefix": "", "middle": "One", "suffix": " fox."}]
    report = ReadReport(0)
    gaps = list(read_dialogues(records_of(tmp_path, *rows), report))
    assert gaps == [FilledGap("a big ", "fox", "."), FilledGap("", "One", " fox.")]
    assert report.format == "gap" == detect_format(rows[0])
    assert list(read_any_text(records_of(tmp_path, *rows), ReadReport(0))) == ["a big fox.", "One fox."]


@pytest.mark.parametrize(
    ("key", "value"), [("middle", ""), ("suffix", ""), ("suffix", None), ("prefix", None), ("prefix", 3)]
)
def test_a_gap_without_text_in_it_or_after_it_is_a_bad_line(tmp_path, key, value):
    row = {"prefix": "a big ", "middle": "fox", "suffix": ".", key: value}
    with pytest.raises(DataError, match=f'line 1: needs a non-empty string "{key}"'):
        list(read_dialogues(records_of(tmp_path, row), ReadReport(0)))


@pytest.mark.parametrize("parts", [[], ["a", ""], ["a", 3], [["a"]], [None]])
def test_parts_that_are_not_text_are_a_bad_line(tmp_path, parts):
    with pytest.raises(DataError, match=r'line 1: needs a non-empty string "text", or a list of them'):
        list(read_documents(records_of(tmp_path, {"text": parts}), ReadReport(0)))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"messages": []}, 'needs a non-empty list of turns "messages"'),
        ({"messages": [{"role": "user", "content": "x"}]}, "the last message is by 'user'; it must be by 'assistant'"),
        ({"instruction": "x", "output": 3}, 'needs a string "output"'),
        ({"question": "x"}, "has the keys \\['question'\\]; needs"),
    ],
)
def test_a_record_that_breaks_a_rule_is_named_with_it(tmp_path, record, message):
    with pytest.raises(DataError, match=f"rows.jsonl, line 1: {message}"):
        list(read_dialogues(records_of(tmp_path, record), ReadReport(0)))


def test_the_first_usable_record_decides_the_format(tmp_path):
    rows = records_of(tmp_path, {"question": "x"}, RECORDS["alpaca"], RECORDS["completion"])
    report = ReadReport(limit=5)
    assert list(read_dialogues(rows, report)) == [DIALOGUE]
    assert report.count == 2
    assert 'rows.jsonl, line 3: needs a non-empty string "instruction"' in str(report)


def test_prompts_are_strings_or_messages_that_end_with_the_user(tmp_path):
    rows = records_of(tmp_path, {"prompt": "x"}, {"messages": [{"role": "user", "content": "y"}]}, RECORDS["messages"])
    prompts = read_prompts(rows, ReadReport(0))
    assert next(prompts) == "x"
    assert next(prompts) == [Message("user", "y")]
    with pytest.raises(DataError, match="line 3: the last message is by 'assistant'"):
        next(prompts)


def test_a_record_with_the_keys_of_two_formats_is_read_in_the_requested_one(tmp_path):
    record = {**RECORDS["alpaca"], "text": "all of it"}
    assert list(read_documents(records_of(tmp_path, record), ReadReport(0))) == [("all of it",)]
    assert list(read_dialogues(records_of(tmp_path, record), ReadReport(0))) == [DIALOGUE]
