"""AdamW with its moments in 8 bits."""

import pytest
import torch
from safetensors.torch import load_file

from tests.training.conftest import llada_train, losses, start, succeed

EIGHT_BITS = ["--optimizer", "adamw_8bit", "--dtype", "float32", "--batch-size", 8, "--keep-last", 3]


def test_moments_in_8_bits_train_nearly_the_same_curve_and_resume_exactly(workspace, tmp_path):
    plain, whole, broken = (tmp_path / name for name in ("plain", "whole", "broken"))
    succeed(*workspace.pretrain(plain, "--dtype", "float32", "--batch-size", 8))
    succeed(*workspace.pretrain(whole, *EIGHT_BITS))
    ours, theirs = losses(whole), losses(plain)
    assert ours != theirs
    assert max(abs(ours[step] - theirs[step]) for step in ours) < 0.02
    succeed(*workspace.pretrain(broken, *EIGHT_BITS))
    succeed(*workspace.pretrain(broken, *EIGHT_BITS, "--resume-from", 4))
    assert losses(broken) == ours
    ours, theirs = (load_file(out / "model.safetensors") for out in (broken, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    sizes = [sum(file.stat().st_size for file in (out / "checkpoints" / "step-12").iterdir()) for out in (whole, plain)]
    assert sizes[0] < sizes[1]


def test_another_optimizer_does_not_resume_the_run(workspace, tmp_path):
    out = tmp_path / "out"
    succeed(*workspace.pretrain(out, *EIGHT_BITS))
    outcome = llada_train(*workspace.pretrain(out, "--dtype", "float32", "--batch-size", 8, "--resume-from", 8))
    assert "optimizer was 'adamw_8bit' and is 'adamw'" in outcome.stderr


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_keep_moments_in_8_bits_too(workspace, tmp_path, strategy):
    one, two = tmp_path / "one", tmp_path / "two"
    succeed(*workspace.pretrain(one, *EIGHT_BITS))
    _, errors = start(*workspace.pretrain(two, *EIGHT_BITS, "--strategy", strategy), processes=2).communicate(
        timeout=110
    )
    assert (two / "model.safetensors").exists(), errors
    # A shard's values are grouped otherwise into the blocks that share a scale.
    assert max(abs(losses(one)[step] - losses(two)[step]) for step in losses(one)) < 0.02
    before, again = losses(two), workspace.pretrain(two, *EIGHT_BITS, "--strategy", strategy, "--resume-from", 8)
    process = start(*again, processes=2)
    _, errors = process.communicate(timeout=110)
    assert process.returncode == 0, errors
    assert losses(two) == before
    if strategy == "fsdp":
        assert "they go on with as many processes as wrote them" in llada_train(*again).stderr
