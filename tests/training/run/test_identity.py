"""A run resumes only checkpoints of the same run."""

import shutil

from safetensors.torch import load_file, save_file

from tests.training.conftest import llada_train, succeed


def test_a_checkpoint_of_another_run_is_refused_and_says_what_differs(workspace, tmp_path):
    succeed(*workspace.pretrain(tmp_path / "out"))
    result = llada_train(*workspace.pretrain(tmp_path / "out", "--seed", 1, "--resume"))
    assert result.returncode == 1
    assert "step-12 belongs to another run: seed was 0 and is 1" in result.stderr
    # A run that was refused leaves no trace.
    assert "seed: 0\n" in (tmp_path / "out" / "run.yaml").read_text()


def test_options_that_do_not_change_the_result_may_change_on_resume(workspace, tmp_path):
    out = tmp_path / "out"
    succeed(*workspace.pretrain(out))
    assert "continuing from step 12" in succeed(
        *workspace.pretrain(out, "--micro-batch-size", 2, "--save-steps", 7, "--log-steps", 3, "--resume")
    )


def test_adapters_do_not_resume_on_another_base_model(workspace, tmp_path):
    base = shutil.copytree(workspace.folder / "base", tmp_path / "base")
    options = [*workspace.sft(tmp_path / "out"), "--model-name-or-path", base, "--lora-r", 2]
    succeed(*options)
    # Change the middle of the file: its size, beginning and end stay the same.
    weights = load_file(base / "model.safetensors")
    weights["model.transformer.blocks.0.v_proj.weight"][:] = 0
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    assert "base model's weights was" in llada_train(*options, "--resume").stderr
    exported = ["export", "--checkpoint", tmp_path / "out", "--output-dir", tmp_path / "merged"]
    assert "other weights than those" in llada_train(*exported).stderr
    shutil.rmtree(base)
    assert "the base model of these adapters is not there; give --base-model" in llada_train(*exported).stderr
    assert not (tmp_path / "merged").exists()
    succeed(*exported, "--base-model", workspace.folder / "base")


def test_a_model_config_that_changed_is_another_run(workspace, tmp_path):
    config = tmp_path / "config.json"
    config.write_text((workspace.folder / "config.json").read_text())
    options = workspace.pretrain(tmp_path / "out", "--model-config", config)
    succeed(*options)
    config.write_text(config.read_text().replace('"mlp_hidden_size": 48', '"mlp_hidden_size": 64'))
    assert "model config was" in llada_train(*options, "--resume").stderr


def test_other_validation_data_is_another_run(workspace, tmp_path):
    options = workspace.pretrain(tmp_path / "out", "--eval-samples", 2, "--val-data-path")
    succeed(*options, workspace.folder / "pretrain.jsonl")
    other = tmp_path / "other.jsonl"
    other.write_text((workspace.folder / "pretrain.jsonl").read_text().replace("comes", "follows"))
    assert "validation data was" in llada_train(*options, other, "--resume").stderr
