import pytest

from tests.training.conftest import llada_train, records, succeed, write_jsonl


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


def test_runs_may_share_tokenised_data(workspace, tmp_path):
    cache = tmp_path / "cache"
    for name in ("one", "two"):
        succeed(*workspace.sft(tmp_path / name, "--data-cache-dir", cache, "--max-steps", 1))
        assert not (tmp_path / name / "data").exists()
    assert len([entry for entry in cache.iterdir() if entry.is_dir()]) == 1


def test_paths_with_shares_are_mixed_and_the_mixture_is_part_of_the_run(workspace, tmp_path):
    numbers = write_jsonl(tmp_path / "numbers.jsonl", [{"text": f"{n} " * 30} for n in range(9)])
    text = workspace.folder / "pretrain.jsonl"
    options = workspace.pretrain(tmp_path / "out", "--train-data-path", f"{numbers}=0.25")
    options[options.index(text)] = f"{text}=0.75"
    printed = succeed(*options)
    assert "pretrain.jsonl: text format" in printed and "numbers.jsonl: text format" in printed
    assert "continuing from step 12" in succeed(*options, "--resume")
    options[options.index(f"{text}=0.75")] = f"{text}=0.5"
    assert "training data was '3:" in llada_train(*options, "--resume").stderr


@pytest.mark.parametrize(
    ("paths", "more", "message"),
    [
        (["{text}=0.5", "{text}"], [], "pretrain.jsonl: give every path a share, or none"),
        (["{text}=0.5", "{empty}=0.5"], [], "empty.jsonl: no samples, and it should have a share of every batch"),
        (["{text}=0"], [], "a share must be above 0"),
        (["{text}=0.5", "{text}=0.5"], ["--group-by-length"], "--group-by-length: batches in which every path has"),
        (["{text}=x"], [], "pretrain.jsonl=x: no such file"),
    ],
)
def test_shares_that_make_no_sense_are_refused(workspace, tmp_path, paths, more, message):
    files = {"text": workspace.folder / "pretrain.jsonl", "empty": write_jsonl(tmp_path / "empty.jsonl", [])}
    named = [part for path in paths for part in ("--train-data-path", path.format(**files))]
    options = workspace.pretrain(tmp_path / "out", *named[2:], *more)
    options[options.index(files["text"])] = named[1]
    assert message in llada_train(*options).stderr


def test_a_part_of_the_training_data_may_be_held_out(workspace, tmp_path):
    out = tmp_path / "out"
    printed = succeed(*workspace.sft(out, "--val-size", 0.1, "--eval-samples", 5))
    assert "90 samples, " in printed
    assert [record["step"] for record in records(out) if "val_loss" in record] == [0, 4, 8, 12]
    assert "continuing from step 12" in succeed(*workspace.sft(out, "--val-size", 0.1, "--eval-samples", 5, "--resume"))
    both = workspace.sft(tmp_path / "x", "--val-size", 5, "--val-data-path", workspace.folder / "sft.jsonl")
    assert "give either val_data_path or val_size" in llada_train(*both).stderr
    assert "must be whole" in llada_train(*workspace.sft(tmp_path / "x", "--val-size", 1.5)).stderr
