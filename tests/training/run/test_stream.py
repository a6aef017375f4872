"""`--streaming`: parts are trained one after the other, and a run that resumes ends like one that did not stop."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file

from tests.training.conftest import llada_train, losses, succeed, write_jsonl
from training.data.parts import marks_of, parts_of
from training.data.sources import find_sources
from training.run import stream

SMALL_PART = 1500


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(stream, "PART", SMALL_PART)


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for name, first in (("a", 0), ("b", 60), ("c", 63)):
        numbers = range(first, first + (60 if name == "a" else 3 if name == "b" else 40))
        write_jsonl(folder / f"{name}.jsonl", [{"prompt": f"After {n}?", "completion": f"{n + 1}."} for n in numbers])
    return folder


def streamed(workspace, files, out, *options):
    words = workspace.sft(out, "--streaming", *options)
    words[words.index(workspace.folder / "sft.jsonl")] = files / "*.jsonl"
    return words


def weights(out):
    return load_file(out / "model.safetensors")


def sizes(out):
    return json.loads((out / "data" / "stream" / "stream.json").read_text())["sizes"]


def test_parts_hold_every_record_once_in_order_and_may_span_files(files):
    sources = find_sources([str(files / "*.jsonl")])
    parts = list(parts_of(sources, SMALL_PART))
    assert len(parts) > 2
    records = [record for part in parts for source in part for record in source.records()]
    assert [record.value for record in records] == [record.value for source in sources for record in source.records()]
    assert [source.name for source in parts[1]] == ["a.jsonl", "b.jsonl", "c.jsonl"]
    for part in parts[:-1]:
        assert (
            SMALL_PART
            <= sum(len(str(record.value)) for source in part for record in source.records())
            < SMALL_PART + 100
        )


def test_sources_are_recognised_by_their_beginnings_and_sizes(files):
    before = marks_of(find_sources([str(files / "*.jsonl")]))
    assert before == marks_of(find_sources([str(files / "*.jsonl")]))
    (files / "b.jsonl").write_text((files / "b.jsonl").read_text().replace("60", "61"))
    assert before != marks_of(find_sources([str(files / "*.jsonl")]))


def test_every_sample_of_a_part_is_trained_before_the_next_and_the_data_begins_again(workspace, files, tmp_path):
    out = tmp_path / "out"
    printed = succeed(*streamed(workspace, files, out, "--max-steps", 40))
    assert "a stream of samples; 40 steps of 4 samples" in printed
    assert sum(sizes(out)) == 103
    steps = sum(size // 4 for size in sizes(out))
    seen = re.findall(r"part (\d+) of the data: (\d+) samples", printed)
    # 40 steps are more than one pass.
    assert steps < 40
    assert [int(size) for _, size in seen] == (sizes(out) * 2)[: len(seen)]
    assert len(seen) > len(sizes(out))
    # Only the part in work is on the disk.
    assert [folder.name for folder in (out / "data" / "stream").glob("part-*")] == [f"part-{int(seen[-1][0]) - 1}"]


@pytest.mark.parametrize("loses_notes", [False, True])
def test_a_run_that_resumes_in_any_part_ends_bit_for_bit_like_one_that_did_not_stop(
    workspace, files, tmp_path, loses_notes
):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options = ["--max-steps", 40, "--keep-last", 20]
    succeed(*streamed(workspace, files, whole, *options))
    succeed(*streamed(workspace, files, broken, *options))
    for step in (36, 20, 4):
        if loses_notes:
            (broken / "data" / "stream" / "stream.json").write_bytes(b"\0" * 100)
        succeed(*streamed(workspace, files, broken, *options, "--resume-from", step))
        assert losses(broken) == losses(whole)
        assert all(torch.equal(weights(broken)[name], tensor) for name, tensor in weights(whole).items())


def test_no_two_passes_or_parts_have_the_same_noise(workspace, files, tmp_path):
    out = tmp_path / "out"
    # At such a rate the model stays as it is: equal losses would be equal batches with equal noise.
    still = ["--learning-rate", 1e-30, "--dtype", "float32", "--max-steps", 60]
    succeed(*streamed(workspace, files, out, *still))
    assert len(set(losses(out).values())) == 60


def test_two_processes_train_the_stream_of_one(workspace, files, tmp_path, monkeypatch, two_processes):
    # What the new processes have.
    monkeypatch.setattr(stream, "PART", 32_000_000)
    options = ["--max-steps", 20, "--dtype", "float32", "--batch-size", 8]
    succeed(*streamed(workspace, files, tmp_path / "one", *options))
    two_processes.run(*streamed(workspace, files, tmp_path / "two", *options))
    one, two = (losses(tmp_path / name) for name in ("one", "two"))
    assert max(abs(one[step] - two[step]) for step in one) < 1e-4


def test_other_data_under_the_same_name_is_not_resumed(workspace, files, tmp_path):
    out = tmp_path / "out"
    succeed(*streamed(workspace, files, out))
    (files / "a.jsonl").write_text((files / "a.jsonl").read_text().replace("After", "Since"))
    outcome = llada_train(*streamed(workspace, files, out, "--resume-from", 8))
    assert "belongs to another run: training data was" in outcome.stderr


def test_bad_lines_are_counted_over_all_parts(workspace, files, tmp_path):
    for name in ("a", "c"):
        with (files / f"{name}.jsonl").open("a") as file:
            file.write("no JSON\n")
    outcome = llada_train(*streamed(workspace, files, tmp_path / "out", "--max-bad-lines", 1, "--max-steps", 40))
    assert outcome.returncode == 1
    assert "c.jsonl, line 41: not JSON" in outcome.stderr
    assert (tmp_path / "out" / "checkpoints").exists()
    succeed(*streamed(workspace, files, tmp_path / "more", "--max-bad-lines", 2, "--max-steps", 40))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--val-size", 5], "streaming: how much data there is shows at its end"),
        (["--batch-size", 80], "no part of the data has the 80 samples of a batch"),
    ],
)
def test_what_a_stream_cannot_do_is_refused(workspace, files, tmp_path, options, message):
    outcome = llada_train(*streamed(workspace, files, tmp_path / "out", *options))
    assert outcome.returncode == 1
    assert message in outcome.stderr


def test_a_stream_has_no_shares_and_an_empty_one_is_named(workspace, tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    for name, path, message in (
        ("empty", empty, "the data has no records"),
        ("shared", f"{empty}=0.5", "a stream is read in order"),
    ):
        words = workspace.sft(tmp_path / name, "--streaming")
        words[words.index(workspace.folder / "sft.jsonl")] = path
        assert message in llada_train(*words).stderr


def test_documents_are_packed_within_a_part(workspace, tmp_path):
    out, options = tmp_path / "out", ["--streaming", "--max-steps", 30]
    printed = succeed(*workspace.pretrain(out, *options))
    assert sum(sizes(out)) == sum(
        int(size) for size in re.findall(r"of the data: (\d+) samples", printed)[: len(sizes(out))]
    )
    assert len(sizes(out)) > 2
    before = losses(out)
    succeed(*workspace.pretrain(out, *options, "--resume-from", 28))
    assert losses(out) == before
