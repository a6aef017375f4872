import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data import files
from training.data.files import read_file
from training.errors import DataError

ROWS = [{"text": "one"}, {"text": 'two ", [ ] { } \\', "n": 1.5}, {"text": "drei\n\u00fc \U0001f600", "list": [[], {}]}]


def read(tmp_path, content, name="rows.json"):
    (tmp_path / name).write_bytes(content)
    return [(record.value, record.problem) for record in read_file(tmp_path / name)]


def good(tmp_path, content, name="rows.json"):
    values = read(tmp_path, content, name)
    assert all(problem is None for _, problem in values), values
    return [value for value, _ in values]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


LAYOUTS = {
    "lines": lines(ROWS),
    "an array": json.dumps(ROWS).encode(),
    "an array over several lines": json.dumps(ROWS, indent=2, ensure_ascii=False).encode(),
    "an array with a byte order mark": b"\xef\xbb\xbf\r\n" + json.dumps(ROWS, indent=1).encode() + b"\n\n",
    "objects over several lines": "\n".join(json.dumps(row, indent=2) for row in ROWS).encode(),
}
COMPRESSIONS = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda content: pa.compress(content, "zstd", asbytes=True),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_layout_is_read_plain_and_compressed_whatever_the_name(tmp_path, layout, compression):
    content = COMPRESSIONS[compression](LAYOUTS[layout])
    assert good(tmp_path, content, "rows.jsonl") == good(tmp_path, content, "rows.data") == ROWS


def test_one_object_over_several_lines_is_one_record(tmp_path):
    assert good(tmp_path, json.dumps(ROWS[2], indent=4).encode()) == [ROWS[2]]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=3), st.one_of(st.text(), st.integers(), st.booleans()), max_size=3)))
def test_an_array_is_the_same_wherever_its_text_is_cut(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("array")
    with pytest.MonkeyPatch.context() as patch:
        for size in (1, 2, 7):
            patch.setattr(files, "_CHUNK_BYTES", size)
            assert good(folder, json.dumps(rows).encode()) == rows


def test_an_array_is_not_read_whole(tmp_path):
    (tmp_path / "rows.json").write_bytes(b"[" + b",".join([b'{"text": "x"}'] * 50_000))
    records = read_file(tmp_path / "rows.json")
    shares = [next(records).share for _ in range(10)]
    assert max(shares) < 0.5
    with pytest.raises(DataError, match=r"rows.json, item 50001: not JSON"):
        list(records)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"a": 1}, {"b": }]', r"item 2: not JSON \(Expecting value\)"),
        (b'[{"a": 1}, {"b": "x', r"item 2: not JSON \(Unterminated string"),
        (b'[{"a": 1}', "item 2: not JSON"),
        (b'[{"a": 1}] [', "something follows the array"),
        (b'[{"a": 1}]' + b" \n" * 100_000 + b"x", "something follows the array"),
        (b'[{"a": "\xff"}]', "can't decode|not UTF-8"),
        (b'{\n  "a": 1,\n  "b"', "item 1: not JSON"),
        (b"[" * 100_000, "item 1: not readable"),
    ],
)
def test_an_array_that_is_damaged_stops_with_the_item(tmp_path, content, message):
    with pytest.raises(DataError, match=f"rows.json.*({message})"):
        read(tmp_path, content)


def test_a_value_that_is_never_closed_is_not_read_to_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_MAX_VALUE_LENGTH", 1000)
    with pytest.raises(DataError, match=r"item 2: not readable \(longer than 1,000 characters, or never closed"):
        read(tmp_path, b'[{"a": 1}, {"b": "' + b"x" * 500_000)


def test_items_that_are_no_objects_are_bad_records_and_the_rest_is_read(tmp_path):
    assert read(tmp_path, b'[3, {"a": 1}, "x"]') == [
        ({}, "is a int; it must be an object"),
        ({"a": 1}, None),
        ({}, "is a str; it must be an object"),
    ]


def test_an_empty_file_has_no_records(tmp_path):
    assert read(tmp_path, b"") == read(tmp_path, gzip.compress(b"\n\n")) == read(tmp_path, b"[]") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04...", "is a zip archive; unpack it"),
        ("{}".encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        (b"\x80\x04\x95", "is a pickle"),
        (b"ARROW1\x00\x00", "is an Arrow file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a git-lfs pointer"),
        (gzip.compress(LAYOUTS["lines"], mtime=0)[:-9], "the gzip cannot be read to its end"),
        (lzma.compress(LAYOUTS["lines"])[:-9], "the xz cannot be read to its end"),
        (bz2.compress(LAYOUTS["lines"])[:-9], "the bzip2 cannot be read to its end"),
        (pa.compress(LAYOUTS["lines"], "zstd", asbytes=True)[:-3], "the zstd cannot be read to its end"),
        (b"PAR1" + b"x" * 50, "not parquet"),
    ],
)
def test_a_file_of_another_kind_is_called_what_it_is(tmp_path, content, message):
    with pytest.raises(DataError, match=f"rows.jsonl: {message}"):
        read(tmp_path, content, "rows.jsonl")
