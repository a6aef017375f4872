"""AdamW with its moments in 8 bits."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.conftest import llada_train, losses, start, succeed

EIGHT_BITS = ["--optimizer", "adamw_8bit", "--dtype", "float32", "--batch-size", 8, "--keep-last", 3]


@pytest.fixture(scope="module")
def whole(workspace, tmp_path_factory) -> Path:
    """A finished run in one process; tests that go on from it take a copy."""
    out = tmp_path_factory.mktemp("whole") / "out"
    succeed(*workspace.pretrain(out, *EIGHT_BITS))
    return out


def test_moments_in_8_bits_train_nearly_the_same_curve_and_resume_exactly(workspace, whole, tmp_path):
    plain, broken = tmp_path / "plain", tmp_path / "broken"
    succeed(*workspace.pretrain(plain, "--dtype", "float32", "--batch-size", 8))
    ours, theirs = losses(whole), losses(plain)
    assert ours != theirs
    assert max(abs(ours[step] - theirs[step]) for step in ours) < 0.02
    shutil.copytree(whole, broken)
    succeed(*workspace.pretrain(broken, *EIGHT_BITS, "--resume-from", 4))
    assert losses(broken) == ours
    ours, theirs = (load_file(out / "model.safetensors") for out in (broken, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    sizes = [sum(file.stat().st_size for file in (out / "checkpoints" / "step-12").iterdir()) for out in (whole, plain)]
    assert sizes[0] < sizes[1]


def test_another_optimizer_does_not_resume_the_run(workspace, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "out")
    outcome = llada_train(*workspace.pretrain(out, "--dtype", "float32", "--batch-size", 8, "--resume-from", 8))
    assert "optimizer was 'adamw_8bit' and is 'adamw'" in outcome.stderr


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_keep_moments_in_8_bits_too(workspace, whole, tmp_path, strategy):
    two = tmp_path / "two"
    _, errors = start(*workspace.pretrain(two, *EIGHT_BITS, "--strategy", strategy), processes=2).communicate(
        timeout=110
    )
    assert (two / "model.safetensors").exists(), errors
    # A shard's values are grouped otherwise into the blocks that share a scale.
    assert max(abs(losses(whole)[step] - losses(two)[step]) for step in losses(whole)) < 0.02
    before, again = losses(two), workspace.pretrain(two, *EIGHT_BITS, "--strategy", strategy, "--resume-from", 8)
    process = start(*again, processes=2)
    _, errors = process.communicate(timeout=110)
    assert process.returncode == 0, errors
    assert losses(two) == before
    if strategy == "fsdp":
        assert "they go on with as many processes as wrote them" in llada_train(*again).stderr
