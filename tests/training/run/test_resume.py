"""A run that was interrupted ends like one that was not."""

import signal

import pytest
import torch

from tests.training.conftest import llada_train, losses, start, succeed, until_exists
from training.run.state import newest_checkpoint

STAGES = {
    "pretrain": lambda workspace, output: workspace.pretrain(output),
    "sft": lambda workspace, output: workspace.sft(output),
    "dpo": lambda workspace, output: workspace.dpo(output),
    # Of three updates on the same answers the checkpoint that is killed after follows the first.
    "grpo": lambda workspace, output: workspace.grpo(output, "--updates", 3),
    "distill": lambda workspace, output: workspace.distill(output),
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
    rollouts = [tmp_path / name / "rollouts.jsonl" for name in ("whole", "broken") if stage == "grpo"]
    assert len({file.read_bytes() for file in rollouts}) <= 1
    # Equal losses show that the batches were the same; each step occurs once.
    assert losses(tmp_path / "whole") == losses(broken)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "broken")]
    assert weights[0] == weights[1]


def test_a_longer_run_goes_on_from_before_the_decay_and_equals_one_that_was_planned_so(workspace, tmp_path):
    longer = ["--max-steps", 24, "--decay-fraction", 0.25, "--keep-last", 9]
    succeed(*workspace.pretrain(tmp_path / "planned", *longer))
    out = tmp_path / "extended"
    succeed(*workspace.pretrain(out, "--decay-fraction", 0.25, "--keep-last", 9))
    refused = llada_train(*workspace.pretrain(out, *longer, "--resume"))
    assert refused.returncode == 1
    assert (
        "step-12 belongs to another run: step 10 had the learning rate 0.0007 and would now have 0.001"
        in refused.stderr
    )
    assert "go on from a checkpoint before the decay: --resume-from" in refused.stderr
    assert "continuing from step 8" in succeed(*workspace.pretrain(out, *longer, "--resume-from", 8))
    assert losses(out) == losses(tmp_path / "planned")
    assert_equal(*(contents(tmp_path / name / "checkpoints" / "step-24") for name in ("planned", "extended")))


def test_a_constant_run_may_be_ended_by_a_decay_from_any_checkpoint(workspace, tmp_path):
    out = tmp_path / "out"
    succeed(*workspace.pretrain(out, "--decay-fraction", 0, "--keep-last", 9))
    succeed(*workspace.pretrain(tmp_path / "planned", "--max-steps", 10, "--decay-fraction", 0.2))
    ended = ["--max-steps", 10, "--decay-fraction", 0.2, "--resume-from", 8]
    assert "continuing from step 8" in succeed(*workspace.pretrain(out, *ended))
    assert losses(out) == losses(tmp_path / "planned")
    assert [folder.name for folder in sorted((out / "checkpoints").iterdir())] == ["step-10", "step-8"]


def test_a_step_without_a_checkpoint_is_named_with_those_there_are(workspace, tmp_path):
    succeed(*workspace.pretrain(tmp_path / "out", "--keep-last", 2))
    result = llada_train(*workspace.pretrain(tmp_path / "out", "--resume-from", 5))
    assert "--resume-from 5:" in result.stderr and "has step-8, step-12" in result.stderr
