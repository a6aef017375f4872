"""Two processes, as torchrun starts them (gloo), have the loss curve of one; either reads the other's checkpoints."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from tests.training.conftest import losses, start, succeed

EXACT = ["--dtype", "float32", "--batch-size", 8]
# Validation reads the average of the weights, which FSDP2 shards like the weights.
AVERAGED = ["--ema-decay", 0.9, "--eval-samples", 4]


def assert_same_curve(first, second, tolerance=1e-4):
    assert first.keys() == second.keys()
    assert max(abs(first[step] - second[step]) for step in first) < tolerance


@pytest.fixture(scope="module")
def one_process(workspace, tmp_path_factory):
    out = tmp_path_factory.mktemp("one-process") / "out"
    validated = ["--val-data-path", workspace.folder / "pretrain.jsonl"]
    succeed(*workspace.pretrain(out, *EXACT, *AVERAGED, *validated))
    return out


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_have_the_loss_curve_of_one_and_one_resumes_their_checkpoint(
    workspace, tmp_path, one_process, two_processes, strategy
):
    out = tmp_path / "out"
    options = [
        *workspace.pretrain(out, *EXACT, *AVERAGED), "--strategy", strategy, "--micro-batch-size", 2,
        "--val-data-path", workspace.folder / "pretrain.jsonl", "--keep-last", 3,
        "--eval-prompt", "The number", "--eval-gen-length", 4,
    ]  # fmt: skip
    two_processes.run(*options)
    assert_same_curve(losses(one_process), losses(out))
    assert_same_curve(*(losses(folder, "val_loss") for folder in (one_process, out)))
    ours, theirs = load_file(one_process / "model.safetensors"), load_file(out / "model.safetensors")
    for name, weight in ours.items():
        torch.testing.assert_close(theirs[name], weight, atol=2e-3, rtol=1e-2)
    # One process continues from the checkpoint in the middle of the run.
    for step in (8, 12):
        shutil.rmtree(out / "checkpoints" / f"step-{step}")
    assert "continuing from step 4" in succeed(*options, "--resume")
    assert_same_curve(losses(one_process), losses(out))


def test_sharded_adapters_train_as_on_one_process(workspace, tmp_path, two_processes):
    options = ["--lora-r", 2, "--max-steps", 6, "--activation-checkpointing", *EXACT]
    succeed(*workspace.sft(tmp_path / "one", *options))
    two_processes.run(*workspace.sft(tmp_path / "out", *options, "--strategy", "fsdp"))
    assert_same_curve(losses(tmp_path / "one"), losses(tmp_path / "out"))


@pytest.mark.parametrize(
    "options", [["--strategy", "ddp"], ["--strategy", "fsdp", "--lora-r", 2], ["--strategy", "fsdp"]], ids=str
)
def test_preferences_are_learnt_by_two_processes_as_by_one(workspace, tmp_path, two_processes, options):
    shared = [*EXACT, "--max-steps", 3, "--val-size", 5, "--eval-samples", 3, *options]
    succeed(*workspace.dpo(tmp_path / "one", *shared))
    two_processes.run(*workspace.dpo(tmp_path / "out", *shared, "--micro-batch-size", 2))
    for name in ("loss", "val_loss", "reward_margin", "val_reward_margin"):
        assert_same_curve(*(losses(tmp_path / folder, name) for folder in ("one", "out")))


@pytest.mark.parametrize("options", [["--strategy", "ddp"], ["--strategy", "fsdp", "--lora-r", 2]], ids=str)
def test_rewards_are_learnt_by_two_processes_as_by_one(workspace, tmp_path, two_processes, options):
    shared = ["--dtype", "float32", "--max-steps", 3, "--updates", 2, "--val-size", 5, "--eval-samples", 3, *options]
    succeed(*workspace.grpo(tmp_path / "one", *shared))
    two_processes.run(*workspace.grpo(tmp_path / "out", *shared))
    for name in ("loss", "val_loss", "reward", "kl", "answer_length"):
        assert_same_curve(*(losses(tmp_path / folder, name) for folder in ("one", "out")))
    texts = [
        [[answer["text"] for answer in json.loads(line)["rollouts"]] for line in file.read_text().splitlines()]
        for file in (tmp_path / folder / "rollouts.jsonl" for folder in ("one", "out"))
    ]
    assert texts[0] == texts[1] and len(texts[0]) == 4


@pytest.mark.parametrize("options", [["--strategy", "ddp"], ["--strategy", "fsdp", "--lora-r", 2]], ids=str)
def test_own_answers_are_learnt_by_two_processes_as_by_one(workspace, tmp_path, two_processes, options):
    shared = [*EXACT, "--max-steps", 3, "--val-size", 5, "--eval-samples", 3, *options]
    succeed(*workspace.distill(tmp_path / "one", *shared))
    two_processes.run(*workspace.distill(tmp_path / "out", *shared, "--micro-batch-size", 2))
    for name in ("loss", "val_loss", "entropy", "val_accuracy"):
        assert_same_curve(*(losses(tmp_path / folder, name) for folder in ("one", "out")))


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("LLaDAMoEModelLM", ["--strategy", "ddp"]),
        ("LLaDA2MoeModelLM", ["--strategy", "fsdp", "--activation-checkpointing"]),
    ],
)
def test_mixtures_of_experts_learn_on_two_processes_as_on_one(workspace, tmp_path, two_processes, family, options):
    succeed("tiny", family, "--output-dir", tmp_path / "tiny")
    # A micro-batch balances the load of its experts by itself.
    shared = [*EXACT, "--model-name-or-path", tmp_path / "tiny", "--max-steps", 3, "--micro-batch-size", 2]
    shared += ["--val-data-path", workspace.folder / "sft.jsonl", "--eval-samples", 3, *options]
    succeed(*workspace.sft(tmp_path / "one", *shared))
    two_processes.run(*workspace.sft(tmp_path / "out", *shared))
    for name in ("loss", "val_loss"):
        assert_same_curve(*(losses(tmp_path / folder, name) for folder in ("one", "out")))
    ours, theirs = (load_file(tmp_path / folder / "model.safetensors") for folder in ("one", "out"))
    for name, weight in ours.items():
        torch.testing.assert_close(theirs[name], weight, atol=2e-3, rtol=1e-2)


def test_a_batch_that_the_processes_cannot_share_evenly_is_refused(workspace, tmp_path, two_processes):
    outcomes = two_processes.attempt(*workspace.pretrain(tmp_path / "out", "--batch-size", 3))
    assert all(status != 0 for status, _ in outcomes)
    assert "a batch has 3 samples; it must be a multiple of the 2 processes" in outcomes[0][1]


def test_an_error_of_the_first_process_is_printed_once_and_ends_all(workspace, tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"text": "x"}\n{\n')
    options = workspace.pretrain(tmp_path / "out", "--train-data-path", tmp_path / "bad.jsonl")
    _, errors = start(*options, processes=2).communicate(timeout=110)
    assert errors.count("bad.jsonl, line 2: not JSON") == 1
    # The traceback in it is torchrun's.
    assert "training/run/run.py" not in errors
