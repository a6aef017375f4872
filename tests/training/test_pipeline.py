import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.training.conftest import ROOT, llada_train, succeed


@pytest.fixture
def config(workspace, tmp_path):
    """A config file whose stages take a second each; call it with changes."""

    def write(**changes):
        content = {
            "output_dir": str(tmp_path / "out"),
            "seed": 1,
            "threads": 1,
            "model": {"config": str(workspace.folder / "config.json"), "max_length": 48},
            "tokenizer": {"train_data_path": [str(workspace.folder / "pretrain.jsonl")], "vocab_size": 300},
            "pretraining": {
                "train_data_path": [str(workspace.folder / "pretrain.jsonl")],
                "max_steps": 3, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 1, "max_length": 24,
            },
            "sft": {"train_data_path": str(workspace.folder / "sft.jsonl"), "max_steps": 3, "batch_size": 4},
            "inference": {"default_method": "fixed_length", "gen_length": 8, "remasking": "low_confidence"},
            **changes,
        }  # fmt: skip
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump(content))
        return file

    return write


def test_stages_feed_each_other_and_answer_a_prompt(config, tmp_path):
    printed = succeed("pipeline", "--config", config(), "--stage", "all", "--prompt", "After 7?")
    out = tmp_path / "out"
    assert (out / "tokenizer" / "tokenizer.json").exists()
    assert json.loads((out / "base" / "config.json").read_text())["vocab_size"] <= 300
    state = json.loads((out / "instruct" / "checkpoints" / "step-3" / "state.json").read_text())
    assert state["run"]["base_model"] == str(out / "base")
    assert state["run"]["decisive"]["seed"] == 1
    assert state["run"]["decisive"]["max_length"] == 48
    assert "inference with" in printed


def test_a_pipeline_started_again_leaves_finished_stages_alone(config, tmp_path):
    file = config()
    succeed("pipeline", "--config", file, "--stage", "tokenizer")
    succeed("pipeline", "--config", file, "--stage", "pretraining")
    printed = succeed("pipeline", "--config", file, "--resume")
    assert printed.count("finished already") == 2
    assert (tmp_path / "out" / "instruct" / "config.json").exists()


def test_a_command_takes_its_section_and_the_command_line_wins(config, tmp_path, workspace):
    file = config()
    succeed("tokenizer", "--config", file)
    succeed("pretrain", "--config", file, "--max-steps", 2)
    state = json.loads((tmp_path / "out" / "base" / "checkpoints" / "step-2" / "state.json").read_text())
    assert state["run"]["decisive"]["max_steps"] == 2
    options = ["--config", file, "--model-name-or-path", workspace.folder / "base"]
    assert succeed("generate", *options, "--prompt", "x", "--method", "semi_autoregressive_padding")
    assert "NLL bound" in succeed("eval", *options, "--val-data-path", workspace.folder / "pretrain.jsonl")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pretrainig": {}}, "config.yaml: pretrainig: unknown key"),
        ({"model": {"name_or_path": "x", "config": "y"}}, "config.yaml: model: give either config"),
        ({"model": {"name": "x"}}, "config.yaml: model.name: unknown key; known are config, max_length, name_or_path"),
        ({"sft": {"train_data_path": ["x"], "max_step": 3}}, "config.yaml: sft: max_step: unknown option"),
        ({"sft": {"train_data_path": ["x"], "max_steps": "many"}}, "config.yaml: sft: max_steps is 'many'"),
        ({"tokenizer": {}}, "config.yaml: tokenizer: train_data_path: missing"),
        ({"inference": {"remasking": "best"}}, "config.yaml: inference: remasking is 'best'"),
        ({"output_dir": None}, "config.yaml: output_dir: needs a folder"),
        ({"sft": 3}, "config.yaml: sft: must be a mapping"),
    ],
)
def test_a_wrong_key_or_value_of_the_file_is_named_before_anything_runs(config, tmp_path, changes, message):
    result = llada_train("pipeline", "--config", config(**changes))
    assert result.returncode == 1
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_stage_that_does_not_exist_is_named(config):
    result = llada_train("pipeline", "--config", config(), "--stage", "sleep")
    assert "--stage is 'sleep'; it must be one of all, tokenizer, pretraining, sft, inference" in result.stderr


def test_a_dry_run_of_a_whole_pipeline_needs_no_earlier_stage_and_writes_nothing(config, tmp_path):
    printed = succeed("pipeline", "--config", config(), "--dry-run", "--prompt", "After 7?")
    assert printed.count("Dry run: nothing was written.") == 2
    assert "┃" in printed
    assert not (tmp_path / "out").exists()


def test_the_script_runs_every_stage_and_goes_on_where_it_was(config, tmp_path):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    outputs = []
    for _ in range(2):
        command = [ROOT / "training" / "train.sh", config()]
        run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        outputs.append(run.stdout)
    assert (tmp_path / "out" / "instruct" / "config.json").exists()
    assert outputs[1].count("finished already") == 3


def test_sft_alone_starts_from_the_models_name(config, workspace, tmp_path):
    file = config(model={"name_or_path": str(workspace.folder / "base"), "max_length": 48})
    content = yaml.safe_load(file.read_text())
    del content["pretraining"], content["tokenizer"]
    file.write_text(yaml.safe_dump(content))
    succeed("pipeline", "--config", file)
    assert (tmp_path / "out" / "instruct" / "config.json").exists()
