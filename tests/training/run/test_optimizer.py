"""AdamW with its moments in 8 bits, and Muon."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint import FileSystemReader

from tests.training.conftest import llada_train, losses, succeed

SHORT = ["--dtype", "float32", "--batch-size", 8, "--max-steps", 6, "--save-steps", 2, "--keep-last", 3]
EIGHT_BITS = ["--optimizer", "adamw_8bit", *SHORT]
MUON = ["--optimizer", "muon", *SHORT]


@pytest.fixture(scope="module")
def whole(workspace, tmp_path_factory) -> Path:
    """A finished run in one process; tests that go on from it take a copy."""
    out = tmp_path_factory.mktemp("whole") / "out"
    succeed(*workspace.pretrain(out, *EIGHT_BITS))
    return out


def test_moments_in_8_bits_train_nearly_the_same_curve_and_resume_exactly(workspace, whole, tmp_path):
    plain, broken = tmp_path / "plain", tmp_path / "broken"
    succeed(*workspace.pretrain(plain, *SHORT))
    ours, theirs = losses(whole), losses(plain)
    assert ours != theirs
    assert max(abs(ours[step] - theirs[step]) for step in ours) < 0.02
    shutil.copytree(whole, broken)
    succeed(*workspace.pretrain(broken, *EIGHT_BITS, "--resume-from", 4))
    assert losses(broken) == ours
    ours, theirs = (load_file(out / "model.safetensors") for out in (broken, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    sizes = [sum(file.stat().st_size for file in (out / "checkpoints" / "step-6").iterdir()) for out in (whole, plain)]
    assert sizes[0] < sizes[1]


def test_another_optimizer_does_not_resume_the_run(workspace, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "out")
    outcome = llada_train(*workspace.pretrain(out, *SHORT, "--resume-from", 4))
    assert "optimizer was 'adamw_8bit' and is 'adamw'" in outcome.stderr


def test_two_processes_keep_moments_in_8_bits_too(workspace, whole, tmp_path, two_processes):
    two = tmp_path / "two"
    sharded = [*EIGHT_BITS, "--strategy", "fsdp"]
    two_processes.run(*workspace.pretrain(two, *sharded))
    # A shard's values are grouped otherwise into the blocks that share a scale.
    assert max(abs(losses(whole)[step] - losses(two)[step]) for step in losses(whole)) < 0.02
    before, again = losses(two), workspace.pretrain(two, *sharded, "--resume-from", 4)
    two_processes.run(*again)
    assert losses(two) == before
    assert "they go on with as many processes as wrote them" in llada_train(*again).stderr


def test_muon_updates_the_matrices_of_the_blocks_and_resumes_exactly(workspace, tmp_path):
    out, broken = tmp_path / "out", tmp_path / "broken"
    succeed(*workspace.pretrain(out, *MUON))
    shutil.copytree(out, broken)
    succeed(*workspace.pretrain(broken, *MUON, "--resume-from", 4))
    assert losses(broken) == losses(out)
    names = FileSystemReader(out / "checkpoints" / "step-6").read_metadata().state_dict_metadata
    by_muon = {name.split(".", 2)[2].rpartition(".")[0] for name in names if name.endswith(".momentum_buffer")}
    by_adamw = {name.split(".", 2)[2].rpartition(".")[0] for name in names if name.endswith(".exp_avg")}
    assert by_muon and all("blocks" in name and "norm" not in name for name in by_muon)
    assert any("wte" in name for name in by_adamw) and by_muon.isdisjoint(by_adamw)


def test_shards_take_the_steps_of_muon_that_the_whole_takes(workspace, tmp_path, two_processes):
    out, two = tmp_path / "out", tmp_path / "two"
    succeed(*workspace.pretrain(out, *MUON))
    two_processes.run(*workspace.pretrain(two, *MUON, "--strategy", "fsdp"))
    assert losses(two) == pytest.approx(losses(out), abs=2e-3)


def test_adapters_are_trained_by_muon_alone(workspace, tmp_path):
    options = ["--optimizer", "muon", "--lora-r", 2, "--max-steps", 2, "--dtype", "float32"]
    succeed(*workspace.sft(tmp_path / "out", *options))
    names = FileSystemReader(tmp_path / "out" / "checkpoints" / "step-2").read_metadata().state_dict_metadata
    assert any(name.endswith(".momentum_buffer") for name in names)
    assert not any(name.endswith(".exp_avg") for name in names)
