import json
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.training.data.records import DIALOGUE, RECORDS
from training.data.formats import ReadReport, read_dialogues, read_documents
from training.data.sources import find_sources
from training.errors import DataError


def test_parquet_rows_are_read_like_lines(tmp_path):
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

    def load_dataset(name, config, *, split, revision, streaming):
        assert streaming and revision == "c0ffee"
        asked.append((name, config, split))
        return iter([{"text": "one"}, {"text": "two", "extra": None}])

    # There is no hub here.
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda hub, name: SimpleNamespace(sha="c0ffee"))
    (source,) = find_sources([path])
    assert source.version == [path, "c0ffee"]
    assert list(read_documents(source.records(), ReadReport(0))) == [("one",), ("two",)]
    assert asked == [expected]


def test_a_file_that_is_missing_is_not_looked_for_on_the_hub():
    with pytest.raises(DataError, match=r"data/text\.jsonl: no such file"):
        find_sources(["data/text.jsonl"])


def test_blank_lines_windows_line_ends_and_a_byte_order_mark_are_accepted(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "x"}\r\n\r\n{"text": "y"}\n\n')
    (source,) = find_sources([str(tmp_path / "rows.jsonl")])
    assert list(read_documents(source.records(), ReadReport(0))) == [("x",), ("y",)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a \\ud800"}', "holds half of a surrogate pair"),
        ('{"text": ' + "9" * 5000 + "}", "not readable"),
        ('{"text": ' + "[" * 100_000, "not readable"),
    ],
)
def test_json_that_cannot_be_used_is_a_bad_line(tmp_path, line, message):
    (tmp_path / "rows.jsonl").write_text(line + "\n")
    (source,) = find_sources([str(tmp_path / "rows.jsonl")])
    with pytest.raises(DataError, match=f"rows.jsonl, line 1: {message}"):
        list(read_documents(source.records(), ReadReport(0)))


def test_a_folder_is_refused_and_a_file_with_brackets_in_its_name_is_read(tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        find_sources([str(tmp_path)])
    (tmp_path / "we[i]rd.jsonl").write_text('{"text": "x"}\n')
    (source,) = find_sources([str(tmp_path / "we[i]rd.jsonl")])
    assert source.name == "we[i]rd.jsonl"


def test_bytes_that_are_not_utf8_are_a_bad_line(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'{"text": "\xff"}\n')
    (source,) = find_sources([str(tmp_path / "rows.jsonl")])
    with pytest.raises(DataError, match="line 1: not UTF-8"):
        list(read_documents(source.records(), ReadReport(0)))


def test_columns_are_read_under_the_formats_names(tmp_path):
    row = {"question": "Q", "reply": "A", "prompt": "not this", "id": 3}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n" + '{"question": "Q"}\n[]\n')
    (source,) = find_sources([str(tmp_path / "rows.jsonl")], {"prompt": "question", "completion": "reply"})
    report = ReadReport(5)
    (dialogue,) = read_dialogues(source.records(), report)
    assert [turn.content for turn in dialogue] == ["Q", "A"]
    assert report.shown == [
        f"{tmp_path}/rows.jsonl, line 2: has nothing in the column 'reply'; its columns are ['question']",
        f"{tmp_path}/rows.jsonl, line 3: is a list; it must be an object",
    ]


def test_two_columns_may_change_places(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "A", "completion": "Q"}\n')
    (source,) = find_sources([str(tmp_path / "rows.jsonl")], {"prompt": "completion", "completion": "prompt"})
    assert next(source.records()).value == {"prompt": "Q", "completion": "A"}


def test_other_columns_make_other_data(tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}")
    plain, renamed = (find_sources([str(tmp_path / "rows.jsonl")], columns)[0] for columns in (None, {"text": "body"}))
    assert plain.version != renamed.version
