import pytest

from tests.training.conftest import llada_train, succeed, write_jsonl


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "bad.jsonl, line 2: not JSON"),
        ('{"txt": "x"}', 'line 2: needs a non-empty string "text"'),
        ("[1]", "line 2: is a list; it must be an object"),
    ],
)
def test_a_bad_line_is_named_by_file_and_line(workspace, tmp_path, line, message):
    bad = tmp_path / "bad.jsonl"
    bad.write_text(f'{{"text": "fine"}}\n{line}\n')
    result = llada_train(*workspace.pretrain(tmp_path / "out", "--train-data-path", bad))
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_bad_lines_within_the_limit_are_counted_and_shown(workspace, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "fine"}\n{\n[1]\n')
    options = ["--train-data-path", bad, "--max-steps", 1, "--max-bad-lines"]
    assert "2 bad lines left out" in succeed(*workspace.pretrain(tmp_path / "out", *options, 2))
    result = llada_train(*workspace.pretrain(tmp_path / "other", *options, 1))
    assert "(2 bad lines; --max-bad-lines allows 1)" in result.stderr


def test_samples_over_the_maximal_length_are_dropped_or_truncated_and_counted(workspace, tmp_path):
    long = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "word " * 60}]}
    short = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "yes"}]}
    data = write_jsonl(tmp_path / "data.jsonl", [long, short])
    options = ["--train-data-path", data, "--max-steps", 1]
    dropped = succeed(*workspace.sft(tmp_path / "drop", *options))
    assert "1 samples, " in dropped and "1 longer than 48 tokens left out" in dropped
    truncated = succeed(*workspace.sft(tmp_path / "truncate", *options, "--overlong", "truncate"))
    assert "2 samples, " in truncated and "1 longer than 48 tokens cut" in truncated
