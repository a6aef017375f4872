import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.training.conftest import ROOT, llada_train, succeed
from training.options.file import RunConfig


def environment(**variables):
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **variables}


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


def test_a_command_reads_its_section_and_the_command_line_takes_precedence(config, tmp_path, workspace):
    file = config()
    succeed("tokenizer", "--config", file)
    succeed("pretrain", "--config", file, "--max-steps", 2)
    state = json.loads((tmp_path / "out" / "base" / "checkpoints" / "step-2" / "state.json").read_text())
    assert state["run"]["decisive"]["schedule"]["max_steps"] == 2
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
        ({"sft": {"train_data_path": ["x"], "output_dir": 5}}, "config.yaml: sft: output_dir is 5: must be a folder"),
        ({"sft": {"train_data_path": ["x.jsonl"], "max_steps": 1}}, "x.jsonl: no such file"),
    ],
)
def test_a_wrong_key_or_value_of_the_file_is_named_before_anything_runs(config, tmp_path, changes, message):
    result = llada_train("pipeline", "--config", config(**changes))
    assert result.returncode == 1
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("nproc", ["1", "2"])
@pytest.mark.parametrize("content", [None, "sft: {train_data_path: [x]"])
def test_the_script_fails_where_the_config_cannot_be_read(tmp_path, content, nproc):
    file = tmp_path / "config.yaml"
    if content is not None:
        file.write_text(content)
    run = subprocess.run(
        [ROOT / "training" / "train.sh", file], cwd=ROOT, env=environment(NPROC=nproc), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert run.returncode == 1
    assert "config.yaml" in run.stderr


def test_the_script_passes_a_signal_on_and_waits_for_the_checkpoint(config, tmp_path):
    content = yaml.safe_load(config().read_text())
    content["pretraining"] |= {"max_steps": 100_000, "save_steps": 100_000, "log_steps": 1}
    out = tmp_path / "out" / "base"
    script = subprocess.Popen(
        [ROOT / "training" / "train.sh", config(**content)], cwd=ROOT, env=environment(), stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    while not (out / "metrics.jsonl").exists() or not (out / "metrics.jsonl").read_text():
        assert script.poll() is None
        time.sleep(0.05)
    script.terminate()
    _, errors = script.communicate(timeout=60)
    assert script.returncode == 1
    assert "--resume continues" in errors
    assert len(list((out / "checkpoints").iterdir())) == 1


def test_the_stages_of_a_file_are_listed_in_their_order(tmp_path):
    file = tmp_path / "config.json"
    file.write_text('{"output_dir": "out", "sft": {"train_data_path": "x", "model_name_or_path": "x", "max_steps": 1}}')
    assert succeed("pipeline", "--config", file, "--list-stages") == "sft\n"


def test_a_stage_whose_start_is_missing_says_which_stage_makes_it(config, tmp_path):
    for option in ((), ("--dry-run",)):
        result = llada_train("pipeline", "--config", config(), "--stage", "sft", *option)
        assert result.returncode == 1
        assert f"starts from {tmp_path / 'out' / 'base'}, which is not there; run --stage pretraining" in result.stderr


def test_a_section_may_write_elsewhere_and_later_stages_find_it(config, tmp_path):
    content = yaml.safe_load(config().read_text())
    content["pretraining"]["output_dir"] = str(tmp_path / "elsewhere")
    file = config(**content)
    assert "Dry run" in succeed("pipeline", "--config", file, "--dry-run")
    assert not (tmp_path / "elsewhere").exists()
    succeed("pipeline", "--config", file)
    assert (tmp_path / "out" / "instruct" / "config.json").exists()
    assert "finished already, in " + str(tmp_path / "elsewhere") in succeed("pipeline", "--config", file, "--resume")


def test_a_finished_stage_with_other_options_is_not_skipped(config):
    succeed("pipeline", "--config", config())
    content = yaml.safe_load(config().read_text())
    content["sft"] |= {"learning_rate": 1e-4}
    result = llada_train("pipeline", "--config", config(**content), "--resume")
    assert result.returncode == 1
    assert "was finished from another start: learning_rate was 2.5e-05 and is 0.0001" in result.stderr


def test_the_files_own_prompt_is_answered(config, tmp_path, workspace):
    inference = {"gen_length": 8, "prompt": "After 7?"}
    file = config(model={"name_or_path": str(workspace.folder / "base")}, inference=inference)
    content = yaml.safe_load(file.read_text())
    for stage in ("tokenizer", "pretraining", "sft"):
        del content[stage]
    file.write_text(yaml.safe_dump(content))
    assert "inference with" in succeed("pipeline", "--config", file)
    assert "inference with" in succeed("pipeline", "--config", file, "--stage", "inference")


def test_a_prompt_for_a_stage_without_generation_is_refused(config):
    result = llada_train("pipeline", "--config", config(), "--stage", "sft", "--prompt", "x")
    assert "--prompt is for --stage all and inference" in result.stderr


def test_the_data_of_a_finished_stage_may_be_gone(config, workspace, tmp_path):
    data = tmp_path / "text.jsonl"
    shutil.copyfile(workspace.folder / "pretrain.jsonl", data)
    content = yaml.safe_load(config().read_text())
    content["tokenizer"]["train_data_path"] = content["pretraining"]["train_data_path"] = [str(data)]
    file = config(**content)
    for stage in ("tokenizer", "pretraining"):
        succeed("pipeline", "--config", file, "--stage", stage)
    data.unlink()
    assert succeed("pipeline", "--config", file, "--resume").count("finished already") == 2


def test_a_finished_stage_whose_start_was_trained_again_is_not_skipped(config, tmp_path):
    succeed("pipeline", "--config", config())
    shutil.rmtree(tmp_path / "out" / "base")
    content = yaml.safe_load(config().read_text())
    content["pretraining"] |= {"learning_rate": 2e-3}
    result = llada_train("pipeline", "--config", config(**content), "--resume")
    assert "instruct was finished from another start: base model's weights was" in result.stderr


def test_a_stage_that_does_not_exist_is_named(config):
    result = llada_train("pipeline", "--config", config(), "--stage", "sleep")
    assert (
        "--stage is 'sleep'; it must be one of all, tokenizer, pretraining, sft, dpo, grpo, distill, inference"
        in result.stderr
    )


def test_a_dry_run_of_a_whole_pipeline_needs_no_earlier_stage_and_writes_nothing(config, tmp_path):
    printed = succeed("pipeline", "--config", config(), "--dry-run", "--prompt", "After 7?")
    assert printed.count("Dry run: nothing was written.") == 2
    assert "┃" in printed
    assert not (tmp_path / "out").exists()


def test_the_script_runs_every_stage_and_continues_where_it_stopped(config, tmp_path):
    outputs = []
    for _ in range(2):
        command = [ROOT / "training" / "train.sh", config()]
        run = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        outputs.append(run.stdout)
    assert (tmp_path / "out" / "instruct" / "config.json").exists()
    assert outputs[1].count("finished already") == 3


def test_the_configs_that_come_with_the_project_are_valid(monkeypatch):
    for file in (ROOT / "training" / "configs").glob("*.yaml"):
        RunConfig.load(file)
    monkeypatch.chdir(ROOT)
    printed = succeed("pipeline", "--config", "examples/own_model/config.yaml", "--dry-run")
    assert printed.count("Dry run: nothing was written.") == 2


def test_sft_without_pretraining_starts_from_the_models_name(config, workspace, tmp_path):
    file = config(model={"name_or_path": str(workspace.folder / "base"), "max_length": 48})
    content = yaml.safe_load(file.read_text())
    del content["pretraining"], content["tokenizer"]
    file.write_text(yaml.safe_dump(content))
    succeed("pipeline", "--config", file)
    assert (tmp_path / "out" / "instruct" / "config.json").exists()


def test_a_finished_stage_is_recognised_although_its_length_was_the_models(config, workspace):
    file = config(model={"config": str(workspace.folder / "config.json")})
    succeed("pipeline", "--config", file)
    assert succeed("pipeline", "--config", file, "--resume").count("finished already") == 3


@pytest.mark.parametrize("place", ["top", "section", "command line"])
def test_the_command_line_completes_the_section_of_a_file(tmp_path, workspace, place):
    out = tmp_path / "out"
    section = {"lora_r": 2, **({"output_dir": str(out)} if place == "section" else {})}
    content = {"sft": section, **({"output_dir": str(out)} if place == "top" else {})}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(content))
    words = workspace.sft(out, "--config", file)
    if place != "command line":
        at = words.index("--output-dir")
        del words[at : at + 2]
    succeed(*words)
    folder = out / "instruct" if place == "top" else out
    assert (folder / "adapter" / "adapter_config.json").exists()
    if place == "top":
        # A pipeline has no command line to complete it.
        assert "missing; it must be given" in llada_train("pipeline", "--config", file, "--dry-run").stderr
