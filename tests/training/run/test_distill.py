"""Runs of `llada-train distill`."""

import json

import pytest
import yaml

from tests.training.conftest import llada_train, losses, records, succeed, write_jsonl


def answer(workspace, model, output):
    """Answer the questions of the workspace by a parallel rule, and return the lines."""
    succeed(
        "generate", "--model-name-or-path", model, "--input", workspace.folder / "questions.jsonl",
        "--output", output, "--trajectory", "--gen-length", 10, "--block-length", 5, "--entropy-threshold", 0.5,
    )  # fmt: skip
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_a_model_answers_as_before_in_fewer_steps(workspace, tmp_path):
    before = answer(workspace, workspace.folder / "base", tmp_path / "before.jsonl")
    out = tmp_path / "out"
    printed = succeed(
        *workspace.distill(
            out, "--block-length", 5, "--batch-size", 8,
            "--max-steps", 80, "--learning-rate", 5e-3, "--dtype", "float32", "--val-size", 4, "--eval-steps", 40,
            "--stratified-noise", "--entropy-temperature", 1, answers=tmp_path / "before.jsonl",
        )
    )  # fmt: skip
    after = answer(workspace, out, tmp_path / "after.jsonl")
    steps = [sum(line["denoising_steps"] for line in lines) for lines in (before, after)]
    assert steps[1] < 0.7 * steps[0], steps
    same = [
        then == now
        for lines in zip(before, after, strict=True)
        for then, now in zip(*(line["trajectory"]["token_ids"] for line in lines), strict=True)
    ]
    assert sum(same) > 0.7 * len(same), sum(same) / len(same)
    first, last = records(out)[1], records(out)[-2]
    assert last["entropy"] < first["entropy"] and last["accuracy"] > first["accuracy"]
    assert losses(out, "val_loss")[80] < losses(out, "val_loss")[0]
    assert "of the masked tokens guessed right" in printed and (out / "loss.png").exists()


def test_adapters_on_checkpointed_blocks_learn_it_too_and_a_run_is_repeated_by_its_run_file(workspace, tmp_path):
    out, again = tmp_path / "out", tmp_path / "again"
    rows = [json.loads(line) for line in (workspace.folder / "answers.jsonl").read_text().splitlines()[:9]]
    other = workspace.folder / "answers.jsonl"
    mixed = ["--train-data-path", f"{other}=0.5", "--max-steps", 2, "--lora-r", 2, "--activation-checkpointing"]
    succeed(*workspace.distill(out, *mixed, answers=f"{write_jsonl(tmp_path / 'more.jsonl', rows)}=0.5"))
    assert yaml.safe_load((out / "run.yaml").read_text())["distill"]["entropy_weight"] == 2
    succeed("distill", "--config", out / "run.yaml", "--output-dir", again)
    assert (again / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


def test_a_dry_run_shows_the_state_of_an_answer_and_counts_the_entropy(workspace, tmp_path):
    printed = succeed(*workspace.distill(tmp_path / "out", "--dry-run"))
    assert "12 steps of 4 samples, 1.20 epochs of 40 samples" in printed
    assert "generation format, 40 samples" in printed and "░" in printed
    sft = succeed(*workspace.sft(tmp_path / "out", "--dry-run", "--pad-to", 48))
    totals = [
        float(next(line for line in text.splitlines() if "← this run" in line).split()[-4]) for text in (printed, sft)
    ]
    assert totals[0] > totals[1]
    assert not (tmp_path / "out").exists()


def test_a_pipeline_ends_with_distillation(workspace, tmp_path, config):
    content = yaml.safe_load(config().read_text())
    content["distill"] = {"train_data_path": str(workspace.folder / "answers.jsonl"), "max_steps": 1, "batch_size": 2}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(content))
    printed = succeed("pipeline", "--config", file, "--prompt", "After 3?")
    assert f"inference with {tmp_path}/out/distilled" in printed


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--entropy-weight", -1], "entropy_weight is -1"),
        (["--entropy-temperature", 0], "entropy_temperature is 0"),
        (["--block-length", 0], "block_length is 0"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(workspace, tmp_path, options, problem):
    refused = llada_train(*workspace.distill(tmp_path / "out", *options))
    assert refused.returncode != 0 and problem in " ".join(refused.stderr.split())


def test_answers_without_their_trajectories_are_bad_lines(workspace, tmp_path):
    file = write_jsonl(tmp_path / "answers.jsonl", [{"prompt": "x", "text": "y"}])
    refused = llada_train(*workspace.distill(tmp_path / "out", answers=file))
    assert refused.returncode == 1 and 'answers.jsonl, line 1: needs a "trajectory"' in refused.stderr
