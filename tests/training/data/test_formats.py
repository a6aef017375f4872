import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llada_core.text.tokenizer import Message
from training.data.formats import ReadReport, detect_format, read_any_text, read_dialogues, read_prompts, read_texts
from training.data.sources import find_sources
from training.errors import DataError

QUESTION, ANSWER = "What is 1 + 1?", "2."
DIALOGUE = [Message("user", QUESTION), Message("assistant", ANSWER)]
RECORDS = {
    "messages": {"messages": [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]},
    "conversations": {"conversations": [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": ANSWER}]},
    "alpaca": {"instruction": QUESTION, "input": "", "output": ANSWER},
    "completion": {"prompt": QUESTION, "completion": ANSWER},
}


def records_of(tmp_path, *rows):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return find_sources([str(file)])[0].records()


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


def test_parquet_rows_are_read_as_lines_are(tmp_path):
    rows = [RECORDS["messages"], RECORDS["messages"]]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    (source,) = find_sources([str(tmp_path / "*.parquet")])
    assert list(read_dialogues(source.records(), ReadReport(0))) == [DIALOGUE, DIALOGUE]


def test_a_file_that_is_not_parquet_is_named(tmp_path):
    (tmp_path / "rows.parquet").write_text("no")
    (source,) = find_sources([str(tmp_path / "rows.parquet")])
    with pytest.raises(DataError, match=r"rows\.parquet: not parquet"):
        list(source.records())


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("owner/name", ("owner/name", None, "train")),
        ("owner/name-1.0.dev", ("owner/name-1.0.dev", None, "train")),
        ("owner/name:en@train_sft", ("owner/name", "en", "train_sft")),
        ("owner/name@test", ("owner/name", None, "test")),
    ],
)
def test_a_hub_dataset_is_streamed_by_its_id(monkeypatch, path, expected):
    import datasets

    asked = []

    def load_dataset(name, config, *, split, streaming):
        assert streaming
        asked.append((name, config, split))
        return iter([{"text": "one"}, {"text": "two", "extra": None}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)  # no hub here
    (source,) = find_sources([path])
    assert list(read_texts(source.records(), ReadReport(0))) == ["one", "two"]
    assert asked == [expected]


def test_a_file_that_is_missing_is_not_looked_for_on_the_hub():
    with pytest.raises(DataError, match=r"data/text\.jsonl: no such file"):
        find_sources(["data/text.jsonl"])


def test_the_tokenizer_reads_the_text_of_any_format(tmp_path):
    assert list(read_any_text(records_of(tmp_path, {"text": "x"}), ReadReport(0))) == ["x"]
    assert list(read_any_text(records_of(tmp_path, RECORDS["alpaca"]), ReadReport(0))) == [QUESTION, ANSWER]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"messages": []}, 'needs a non-empty list "messages"'),
        ({"messages": [{"role": "robot", "content": "x"}]}, 'a message needs a "role"'),
        ({"messages": [{"role": "user", "content": "x"}]}, "the last message is by 'user'; it must be by 'assistant'"),
        ({"instruction": "x", "output": 3}, 'needs a non-empty string "output"'),
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
    with pytest.raises(DataError, match="line 3: needs a list"):
        next(prompts)


def test_blank_lines_and_windows_line_ends_and_a_byte_order_mark_are_no_problem(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "x"}\r\n\r\n{"text": "y"}\n\n')
    (source,) = find_sources([str(tmp_path / "rows.jsonl")])
    assert list(read_texts(source.records(), ReadReport(0))) == ["x", "y"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a \\ud800"}', "holds half of a surrogate pair"),
        ('{"text": ' + "9" * 5000 + "}", "not readable"),
        ("[" * 100_000, "not readable"),
    ],
)
def test_what_json_allows_and_nobody_can_use_is_a_bad_line(tmp_path, line, message):
    (tmp_path / "rows.jsonl").write_text(line + "\n")
    (source,) = find_sources([str(tmp_path / "rows.jsonl")])
    with pytest.raises(DataError, match=f"rows.jsonl, line 1: {message}"):
        list(read_texts(source.records(), ReadReport(0)))


def test_a_record_with_the_keys_of_two_formats_is_read_as_what_is_wanted(tmp_path):
    record = {**RECORDS["alpaca"], "text": "all of it"}
    assert list(read_texts(records_of(tmp_path, record), ReadReport(0))) == ["all of it"]
    assert list(read_dialogues(records_of(tmp_path, record), ReadReport(0))) == [DIALOGUE]


def test_a_folder_is_no_data_and_a_file_with_brackets_in_its_name_is(tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        find_sources([str(tmp_path)])
    (tmp_path / "we[i]rd.jsonl").write_text('{"text": "x"}\n')
    (source,) = find_sources([str(tmp_path / "we[i]rd.jsonl")])
    assert source.name == "we[i]rd.jsonl"


def test_bytes_that_are_not_utf8_are_a_bad_line(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'{"text": "\xff"}\n')
    (source,) = find_sources([str(tmp_path / "rows.jsonl")])
    with pytest.raises(DataError, match="line 1: not UTF-8"):
        list(read_texts(source.records(), ReadReport(0)))
