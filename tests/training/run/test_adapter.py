"""Adapters that a run goes on training, and runs that write nothing else."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.training.conftest import llada_train, losses, succeed

LORA = ["--lora-r", 2, "--lora-alpha", 8, "--lora-target-modules", "q_proj", "--lora-target-modules", "v_proj"]
EXACT = ["--learning-rate", 1e-2, "--dtype", "float32", "--weight-decay", 0]


@pytest.fixture(scope="module")
def trained(workspace, tmp_path_factory):
    """A LoRA run's output folder."""
    out = tmp_path_factory.mktemp("trained") / "out"
    succeed(*workspace.sft(out, *LORA, *EXACT))
    return out


def adapter(out):
    return load_file(out / "adapter" / "adapter_model.safetensors")


def test_a_run_goes_on_from_the_adapters_of_another(workspace, tmp_path, trained):
    out = tmp_path / "out"
    # At such a rate nothing moves: what comes out is what went in.
    still = ["--learning-rate", 1e-30, "--dtype", "float32"]
    succeed(*workspace.sft(out, "--adapter", trained / "adapter", *still))
    assert all(torch.equal(adapter(out)[name], tensor) for name, tensor in adapter(trained).items())
    config = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (2, 8)
    # Its loss begins where a run on the merged model begins.
    merged = tmp_path / "merged"
    succeed("export", "--checkpoint", trained, "--dtype", "float32", "--output-dir", merged)
    options = workspace.sft(tmp_path / "full", *still)
    options[options.index(workspace.folder / "base")] = merged
    succeed(*options)
    assert losses(out)[1] == pytest.approx(losses(tmp_path / "full")[1], abs=1e-4)


def test_it_resumes_only_with_the_same_adapters(workspace, tmp_path, trained):
    out, copy = tmp_path / "out", tmp_path / "copy"
    options = workspace.sft(out, "--adapter", trained / "adapter", *EXACT)
    succeed(*options)
    before = losses(out)
    succeed(*options, "--resume-from", 8)
    assert losses(out) == before
    copy.mkdir()
    (copy / "adapter_config.json").write_bytes((trained / "adapter" / "adapter_config.json").read_bytes())
    save_file({name: 2 * tensor for name, tensor in adapter(trained).items()}, copy / "adapter_model.safetensors")
    outcome = llada_train(*workspace.sft(out, "--adapter", copy, *EXACT, "--resume-from", 8))
    assert "belongs to another run: adapter was" in outcome.stderr


def test_an_adapter_alone_is_what_a_whole_export_has_beside_the_model(workspace, tmp_path, trained):
    out, exported = tmp_path / "out", tmp_path / "exported"
    printed = succeed(*workspace.sft(out, *LORA, *EXACT, "--adapter-only"))
    assert f"llada-server --model {workspace.folder / 'base'} --adapter {out / 'adapter'}" in printed
    assert not list(out.glob("*.safetensors")) and not (out / "config.json").exists()
    succeed("export", "--checkpoint", out, "--adapter-only", "--output-dir", exported)
    assert [path.name for path in exported.iterdir()] == ["adapter"]
    for folder in (out, exported):
        assert all(torch.equal(adapter(folder)[name], tensor) for name, tensor in adapter(trained).items())
    merged = tmp_path / "merged"
    succeed("export", "--adapter", out / "adapter", "--output-dir", merged)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (merged, trained))
    assert all(torch.allclose(ours[name], theirs[name], rtol=0.01, atol=1e-4) for name in theirs)


def broken(folder, trained, change):
    """A copy of the adapter with its tensors, and its config, changed."""
    folder.mkdir()
    tensors = adapter(trained)
    config = json.loads((trained / "adapter" / "adapter_config.json").read_text())
    change(tensors, config)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def only_the_first_block(tensors, config):
    for name in [name for name in tensors if ".blocks.1." in name]:
        del tensors[name]


def of_two_ranks(tensors, config):
    config["rank_pattern"] = {"blocks.1.q_proj": 4}
    for name in [name for name in tensors if ".blocks.1.q_proj." in name]:
        tensors[name] = torch.cat([tensors[name]] * 2, dim=0 if "lora_A" in name else 1)


def scaled_by_a_third(tensors, config):
    config["lora_alpha"] = 1 / 3


def of_the_head(tensors, config):
    for name in list(tensors):
        if ".blocks.0.q_proj." in name:
            tensors[name.replace("blocks.0.q_proj", "ff_out")] = tensors[name].clone()


def of_narrower_layers(tensors, config):
    for name, tensor in tensors.items():
        tensors[name] = tensor[:, :16].contiguous() if "lora_A" in name else tensor


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (of_narrower_layers, "q_proj.weight of shape [32, 16], and the model has it in shape [32, 32]"),
        (only_the_first_block, "must adapt the same layers in each of the 2 blocks"),
        (of_two_ranks, "its layers have ranks [2, 4]"),
        (scaled_by_a_third, "which is no whole alpha / 2"),
        (of_the_head, "must adapt the same layers"),
    ],
)
def test_adapters_of_another_shape_are_refused(workspace, tmp_path, trained, change, message):
    folder = broken(tmp_path / "adapter", trained, change)
    outcome = llada_train(*workspace.sft(tmp_path / "out", "--adapter", folder))
    assert outcome.returncode == 1
    assert message in outcome.stderr
    assert not (tmp_path / "out" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--adapter", "x", "--lora-r", 2], "lora_r: the adapters that training goes on with decide this"),
        (["--adapter", "nowhere"], "adapter nowhere: no such folder"),
        (["--adapter-only"], "adapter_only: without lora_r or adapter all weights are trained"),
    ],
    ids=str,
)
def test_options_that_do_not_go_together_are_refused(workspace, tmp_path, options, message):
    outcome = llada_train(*workspace.sft(tmp_path / "out", *options))
    assert outcome.returncode == 1
    assert message in outcome.stderr


def test_an_adapter_is_not_exported_alone_and_a_missing_one_is_called_missing(trained, tmp_path):
    words = ["--adapter", trained / "adapter", "--adapter-only", "--output-dir", tmp_path / "out"]
    assert "is an adapter alone already; leave this out to merge it" in llada_train("export", *words).stderr
    words = ["--adapter", tmp_path / "nowhere", "--output-dir", tmp_path / "out"]
    assert f"adapter {tmp_path / 'nowhere'}: no such folder" in llada_train("export", *words).stderr


def test_a_checkpoint_without_adapters_has_none_to_export(workspace, tmp_path):
    words = ["--checkpoint", workspace.folder / "base", "--adapter-only", "--output-dir", tmp_path / "out"]
    outcome = llada_train("export", *words)
    assert outcome.returncode == 1
    assert "was trained without adapters; leave --adapter-only out" in outcome.stderr


def test_a_pipeline_knows_that_a_stage_of_adapters_alone_is_finished(config, tmp_path, workspace):
    sft = {
        "train_data_path": str(workspace.folder / "sft.jsonl"), "max_steps": 3, "batch_size": 4, "lora_r": 2,
        "adapter_only": True,
    }  # fmt: skip
    file = config(sft=sft)
    succeed("pipeline", "--config", file)
    assert (tmp_path / "out" / "instruct" / "adapter" / "adapter_config.json").exists()
    assert succeed("pipeline", "--config", file, "--resume").count("finished already") == 3
