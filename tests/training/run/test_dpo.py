"""Runs of `llada-train dpo`."""

import math

import pytest
import yaml

from tests.training.conftest import llada_train, losses, records, succeed, write_jsonl


def test_a_run_prefers_what_was_chosen_and_reports_it(workspace, tmp_path):
    out = tmp_path / "out"
    printed = succeed(
        *workspace.dpo(out, "--val-size", 8, "--dtype", "float32", "--eval-steps", 6, "--eval-prompt", "After 7?")
    )
    # Before the first step policy and reference are the same, to the last bit.
    assert losses(out, "val_loss")[0] == pytest.approx(math.log(2), abs=1e-9)
    assert losses(out)[1] == pytest.approx(math.log(2), abs=1e-6)
    last = records(out)[-1]
    assert last["val_reward_accuracy"] >= 0.75 and last["val_reward_margin"] > 0.05
    assert last["val_loss"] < losses(out, "val_loss")[0]
    step = [record for record in records(out) if "loss" in record][-1]
    assert step["chosen_reward"] - step["rejected_reward"] == pytest.approx(step["reward_margin"])
    assert "of the chosen answers preferred" in printed and "best validation loss" in printed
    assert (out / "loss.png").exists()
    again = tmp_path / "again"
    succeed("dpo", "--config", out / "run.yaml", "--output-dir", again)
    assert (again / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


def test_a_run_of_another_objective_does_not_go_on_from_this_one(workspace, tmp_path):
    out = tmp_path / "out"
    succeed(*workspace.dpo(out, "--max-steps", 1))
    refused = llada_train(*workspace.dpo(out, "--max-steps", 1, "--resume", "--loss", "ipo", "--beta", 0.1))
    assert refused.returncode == 1
    assert "beta was 0.2 and is 0.1; loss was 'dpo' and is 'ipo'" in refused.stderr


def test_a_dry_run_shows_both_answers_and_counts_their_rows(workspace, tmp_path):
    printed = succeed(*workspace.dpo(tmp_path / "out", "--dry-run", "--micro-batch-size", 1))
    assert ", chosen, draw 1 of 2: " in printed and ", rejected, draw 1 of 2: " in printed
    rows = [line.split()[2] for line in printed.splitlines() if "single" in line]
    assert rows == ["4"]
    assert not (tmp_path / "out").exists()


def test_a_pipeline_learns_preferences_after_dialogues(workspace, tmp_path, config):
    content = yaml.safe_load(config().read_text())
    content["dpo"] = {"train_data_path": str(workspace.folder / "pairs.jsonl"), "max_steps": 1, "batch_size": 2}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(content))
    printed = succeed("pipeline", "--config", file, "--prompt", "After 3?")
    assert f"inference with {tmp_path}/out/preferred" in printed
    state = yaml.safe_load((tmp_path / "out" / "preferred" / "run.yaml").read_text())
    assert state["dpo"]["model_name_or_path"] == f"{tmp_path}/out/instruct"
    assert "dpo: finished already" in succeed("pipeline", "--config", file, "--resume")


def test_dialogues_are_no_preferences(workspace, tmp_path):
    refused = llada_train(*workspace.dpo(tmp_path / "out", "--train-data-path", workspace.folder / "sft.jsonl"))
    assert refused.returncode == 1
    assert "line 1: has the keys ['messages']; needs ['chosen', 'rejected']" in refused.stderr
    same = write_jsonl(tmp_path / "same.jsonl", [{"prompt": "x", "chosen": "y", "rejected": "y"}])
    refused = llada_train(*workspace.dpo(tmp_path / "out", "--train-data-path", same))
    assert "same.jsonl, line 1: chosen and rejected are the same answer" in refused.stderr
