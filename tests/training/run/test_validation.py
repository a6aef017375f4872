"""Validation that ends a run: `--early-stopping`."""

import json

import pytest

from tests.training.conftest import llada_train, losses, succeed
from training.run.state import all_checkpoints
from training.run.validation import ValidationHistory


@pytest.mark.parametrize(
    ("measured", "has_stopped"),
    [
        ([], False),
        ([3.0], False),
        ([3.0, 3.1], False),
        ([3.0, 3.1, 2.9], False),
        ([3.0, 3.1, 3.2], True),
        # An equal loss is not a lower one.
        ([3.0, 3.0, 3.0], True),
        ([3.0, 2.0, 2.5, 1.9, 1.95], False),
    ],
    ids=str,
)
def test_a_loss_has_stopped_falling_after_two_validations_without_a_lower_one(measured, has_stopped):
    history = ValidationHistory(2)
    history.losses = measured
    assert history.has_stopped_falling is has_stopped
    forever = ValidationHistory(None)
    forever.losses = measured
    assert not forever.has_stopped_falling


def test_a_run_that_gets_worse_ends_early_with_its_best_checkpoint_as_output(workspace, tmp_path):
    out = tmp_path / "out"
    # With such a rate the loss rises soon; validations are between the regular checkpoints.
    options = [
        "--val-size", 20, "--eval-samples", 8, "--eval-steps", 3, "--save-steps", 1000, "--early-stopping", 2,
        "--max-steps", 400, "--learning-rate", 0.3, "--warmup-steps", 0,
    ]  # fmt: skip
    printed = succeed(*workspace.pretrain(out, *options))
    measured = {step: loss for step, loss in losses(out, "val_loss").items() if step}
    last, best = max(measured), min(measured, key=measured.get)
    assert last == best + 6 < 400
    assert f"stopping early after step {last}" in printed
    assert f"in checkpoints/step-{best}" in printed
    assert [path.name for path in all_checkpoints(out / "checkpoints")][-1] == f"step-{best}"
    export = tmp_path / "export"
    succeed("export", "--checkpoint", out / "checkpoints" / f"step-{best}", "--output-dir", export)
    assert (export / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    # Started again, it comes to the same end.
    weights = (out / "model.safetensors").read_bytes()
    assert f"stopping early after step {last}" in succeed(*workspace.pretrain(out, *options, "--resume"))
    assert (out / "model.safetensors").read_bytes() == weights


def test_the_losses_of_all_validations_are_in_a_checkpoint(workspace, tmp_path):
    out = tmp_path / "out"
    options = ["--val-data-path", workspace.folder / "pretrain.jsonl", "--eval-samples", 2, "--eval-steps", 3]
    succeed(*workspace.pretrain(out, *options, "--resume"))
    measured = list(losses(out, "val_loss").values())
    state = json.loads((out / "checkpoints" / "step-12" / "state.json").read_text())
    assert state["val_losses"] == measured
    assert len(measured) == 5


def test_a_run_that_never_gets_better_than_its_start_ends_and_says_so(workspace, tmp_path):
    out = tmp_path / "out"
    options = ["--val-size", 10, "--eval-samples", 4, "--eval-steps", 1, "--early-stopping", 1, "--save-steps", 100]
    printed = succeed(*workspace.sft(out, *options, "--learning-rate", 3, "--warmup-steps", 0))
    assert "stopping early after step 1: the validation loss has never been lower than before the first step" in printed
    assert (out / "model.safetensors").exists()


@pytest.mark.parametrize("option", ["early_stopping", "eval_steps"])
def test_what_counts_validations_needs_something_to_validate_with(workspace, tmp_path, option):
    outcome = llada_train(*workspace.pretrain(tmp_path / "out", f"--{option.replace('_', '-')}", 3))
    assert outcome.returncode == 1
    assert f"{option}: without val_data_path or val_size there is no validation" in outcome.stderr
