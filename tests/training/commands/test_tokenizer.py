import re

from tests.training.conftest import llada_train, succeed, write_jsonl


def test_a_tokenizer_that_cannot_be_written_is_found_before_it_is_trained(workspace):
    result = llada_train(
        "tokenizer", "--output-dir", "/proc/out", "--train-data-path", workspace.folder / "pretrain.jsonl"
    )
    assert "--output-dir /proc/out: cannot be written" in result.stderr


def test_fewer_tokens_than_asked_for_are_explained(tmp_path):
    data = write_jsonl(tmp_path / "data.jsonl", [{"text": "one two one"}])
    printed = succeed("tokenizer", "--output-dir", tmp_path / "out", "--train-data-path", data, "--vocab-size", 1000)
    assert re.search(
        r"^2\d\d tokens in .*tokenizer.json \(not 1000: every word of the data is one token already\)", printed
    )


def test_data_without_text_makes_no_tokenizer(tmp_path):
    data = write_jsonl(tmp_path / "empty.jsonl", [])
    result = llada_train("tokenizer", "--output-dir", tmp_path / "out", "--train-data-path", data)
    assert "empty.jsonl: no text to train a tokenizer on" in result.stderr
    assert not (tmp_path / "out" / "tokenizer.json").exists()
