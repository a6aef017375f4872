"""A run that was interrupted ends like one that was not."""

import signal

import pytest
import torch

from tests.training.conftest import losses, start, succeed, until_exists
from training.run.state import newest_checkpoint

STAGES = {
    "pretrain": lambda workspace, output: workspace.pretrain(output),
    "sft": lambda workspace, output: workspace.sft(output),
    "lora": lambda workspace, output: workspace.sft(output, "--lora-r", 2),
}


def contents(checkpoint):
    """Every tensor of a checkpoint, weights and optimizer, by name."""
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    file = checkpoint.parent / "as-one-file.pt"
    dcp_to_torch_save(checkpoint, file)
    tensors = {}

    def collect(prefix, value):
        if isinstance(value, dict):
            for key, inner in value.items():
                collect(f"{prefix}.{key}", inner)
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                collect(f"{prefix}.{index}", inner)
        else:
            tensors[prefix] = value

    collect("", torch.load(file, weights_only=False))
    file.unlink()
    return tensors


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        same = torch.equal(value, second[name]) if isinstance(value, torch.Tensor) else value == second[name]
        assert same, name


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_run_that_resumes_ends_bit_for_bit_like_one_that_was_not(workspace, tmp_path, stage):
    options = STAGES[stage]
    succeed(*options(workspace, tmp_path / "whole"))
    broken = tmp_path / "broken"
    process = start(*options(workspace, broken))
    until_exists(broken / "checkpoints" / "step-4", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (broken / "config.json").exists()
    printed = succeed(*options(workspace, broken), "--resume")
    assert "continuing from step" in printed
    assert_equal(*(contents(newest_checkpoint(tmp_path / name / "checkpoints")) for name in ("whole", "broken")))
    # Equal losses show that the batches were the same; each step occurs once.
    assert losses(tmp_path / "whole") == losses(broken)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "broken")]
    assert weights[0] == weights[1]
