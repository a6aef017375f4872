"""Runs of `llada-train grpo`."""

import json

import pytest
import yaml

from llada_core.sampling.params import PRESETS
from tests.training.conftest import llada_train, losses, records, succeed, write_jsonl


def test_a_run_earns_more_and_reports_it_and_its_answers(workspace, tmp_path):
    out = tmp_path / "out"
    printed = succeed(
        *workspace.grpo(
            out, "--dtype", "float32", "--group-size", 8, "--batch-size", 4, "--updates", 2, "--max-steps", 16,
            "--learning-rate", 5e-3, "--beta", 0.01, "--val-size", 4, "--eval-steps", 16, "--eval-prompt", "After 7?",
        )
    )  # fmt: skip
    rewards = list(losses(out, "reward").values())
    assert sum(rewards[-4:]) > sum(rewards[:4]) + 0.4
    first, last = records(out)[1], records(out)[-2]
    assert first["kl"] == 0 and last["kl"] > 0
    assert 0 <= last["groups_without_signal"] <= 1 and last["reward_spread"] >= 0 and 1 <= last["answer_length"] <= 6
    assert "of greedy answers" in printed and records(out)[-1]["val_reward"] == -records(out)[-1]["val_loss"]
    groups = [json.loads(line) for line in (out / "rollouts.jsonl").read_text().splitlines()]
    assert len(groups) == 8 * 4 and {len(group["rollouts"]) for group in groups} == {8}
    of_first = [answer["reward"] for group in groups if group["step"] == 1 for answer in group["rollouts"]]
    assert first["reward"] == pytest.approx(sum(of_first) / len(of_first))
    assert (out / "loss.png").exists()


def test_a_run_is_repeated_by_its_own_run_file_with_the_settings_of_its_preset(workspace, tmp_path):
    out, again = tmp_path / "out", tmp_path / "again"
    command = workspace.grpo(out, "--max-steps", 1, "--preset", "fast", "--reward", "0.5*length")
    succeed(*(word for index, word in enumerate(command) if "--steps" not in command[max(0, index - 1) : index + 1]))
    written = yaml.safe_load((out / "run.yaml").read_text())["grpo"]
    assert written.items() >= PRESETS["fast"].items()
    succeed("grpo", "--config", out / "run.yaml", "--output-dir", again)
    assert (again / "rollouts.jsonl").read_bytes() == (out / "rollouts.jsonl").read_bytes()
    assert (again / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    assert "score/length" in records(out)[-1]


def test_a_dry_run_shows_the_canvas_and_counts_the_rows_of_all_answers(workspace, tmp_path):
    printed = succeed(*workspace.grpo(tmp_path / "out", "--dry-run", "--updates", 2))
    assert ", the canvas of an answer: " in printed and "┃░░░░░░\n" in printed
    # Two steps with each batch of two prompts.
    assert "12 steps of 2 samples, 0.30 epochs of 40 samples" in printed
    assert "  answers   total\n" in printed
    rows = [line.split()[2] for line in printed.splitlines() if "single" in line]
    assert rows == ["12"]  # 2 prompts, 3 answers, a mask and its complement
    assert not (tmp_path / "out").exists()


def test_a_pipeline_learns_from_rewards_after_dialogues(workspace, tmp_path, config):
    content = yaml.safe_load(config().read_text())
    content["grpo"] = {
        "train_data_path": str(workspace.folder / "questions.jsonl"), "max_steps": 1, "batch_size": 2, "group_size": 2,
        "reward": "length", "gen_length": 4,
    }  # fmt: skip
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(content))
    printed = succeed("pipeline", "--config", file, "--prompt", "After 3?")
    assert f"inference with {tmp_path}/out/rewarded" in printed


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--reward", "right"], "grpo: reward: 'right'; it must be exact, regex:PATTERN"),
        (["--temperature", 0], "grpo: temperature is 0; it must be above, or all answers to a prompt are the same"),
        (["--temperature", -1], "temperature is -1.0"),
        (["--confidence-threshold", 0.9], "steps is 3; it must be absent: under confidence_threshold"),
        (["--gen-length", 48], "--gen-length is 48; it must be below --max-length, 48"),
        (["--group-size", 1], "group_size is 1"),
        (["--reward", "no_such_module:f"], "--reward no_such_module:f cannot be imported"),
        (["--reward", "tests.training.scoring:no_number"], "no_number gave nan; a score must be a number from -1 to 1"),
        (["--num-generations", 4], "here it is --group-size"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(workspace, tmp_path, options, problem):
    refused = llada_train(*workspace.grpo(tmp_path / "out", "--max-steps", 1, *options))
    assert refused.returncode != 0
    assert problem in " ".join(refused.stderr.split()), refused.stderr


def test_a_line_without_the_answer_that_a_reward_needs_is_bad(workspace, tmp_path):
    file = write_jsonl(tmp_path / "q.jsonl", [{"prompt": "3 + 4?"}, {"prompt": "1 + 1?", "answer": "2"}])
    command = workspace.grpo(tmp_path / "out", "--train-data-path", file, "--reward", "exact", "--max-steps", 1)
    refused = llada_train(*command, "--batch-size", 1)
    assert refused.returncode == 1 and 'q.jsonl, line 1: needs a non-empty string "answer"' in refused.stderr


def test_answers_that_are_not_in_the_log_are_missed(workspace, tmp_path):
    out = tmp_path / "out"
    succeed(*workspace.grpo(out, "--updates", 2, "--max-steps", 3))
    (out / "rollouts.jsonl").unlink()
    refused = llada_train(*workspace.grpo(out, "--updates", 2, "--max-steps", 4, "--decay-fraction", 0, "--resume"))
    assert refused.returncode == 1
    assert "rollouts.jsonl lacks the answers of step 3 to sample" in refused.stderr
