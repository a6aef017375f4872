"""A run that was stopped in any way ends as one that was not."""

import os
import pickle
import resource
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.training.conftest import llada_train, losses, start, succeed
from training.data.samples import Sample
from training.evaluation.likelihood_bound import evaluate
from training.run.state import newest_checkpoint, read_state
from training.run.trainer import Trainer

STAGES = {
    "pretrain": lambda workspace, output: workspace.pretrain(output),
    "sft": lambda workspace, output: workspace.sft(output),
    "lora": lambda workspace, output: workspace.sft(output, "--lora-r", 2),
}


def contents(checkpoint):
    """Every tensor of a checkpoint, weights and optimizer, by name."""
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    file = checkpoint.parent / "as-one-file.pt"
    dcp_to_torch_save(checkpoint, file)
    found = {}

    def collect(prefix, value):
        if isinstance(value, dict):
            for key, inner in value.items():
                collect(f"{prefix}.{key}", inner)
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                collect(f"{prefix}.{index}", inner)
        else:
            found[prefix] = value

    collect("", torch.load(file, weights_only=False))
    file.unlink()
    return found


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        same = torch.equal(value, second[name]) if isinstance(value, torch.Tensor) else value == second[name]
        assert same, name


def until_exists(path, process=None):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process is None or process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_run_that_resumes_ends_bit_for_bit_as_one_that_was_not(workspace, tmp_path, stage):
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
    # The losses show that the batches were the same; each step is there once.
    assert losses(tmp_path / "whole") == losses(broken)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "broken")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_a_checkpoint_and_says_how_to_go_on(workspace, tmp_path, number):
    process = start(*workspace.pretrain(tmp_path / "out", "--max-steps", 100000, "--save-steps", 50000))
    until_exists(tmp_path / "out" / "metrics.jsonl", process)
    while not losses(tmp_path / "out"):
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "--resume continues" in errors
    assert len(list((tmp_path / "out" / "checkpoints").iterdir())) == 1


def test_a_second_interrupt_leaves_at_once_without_a_checkpoint(workspace, tmp_path, monkeypatch):
    interrupted = False
    step = Trainer.train_step

    def interrupt_twice(trainer):
        nonlocal interrupted
        step(trainer)
        if trainer.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
            interrupted = True
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("the second one was ignored")

    monkeypatch.setattr(Trainer, "train_step", interrupt_twice)
    result = llada_train(*workspace.pretrain(tmp_path / "out"))
    assert interrupted and result.returncode == 130
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_who_stops_a_run_does_not_wait_for_its_validation(workspace, tmp_path, monkeypatch):
    scored = []

    def interrupt(samples, index):
        scored.append(index)
        os.kill(os.getpid(), signal.SIGTERM)
        return Sample(np.arange(6, 16), 0, (10,))

    monkeypatch.setattr(
        "training.run.validation.evaluate", lambda model, samples, **rest: evaluate(model, Fake(), **rest)
    )
    monkeypatch.setattr(Fake, "__getitem__", interrupt)
    options = ["--val-data-path", workspace.folder / "pretrain.jsonl"]
    result = llada_train(*workspace.pretrain(tmp_path / "out", *options))
    assert "stopped by a signal after step 4" in result.stderr
    assert scored == [0]
    assert read_state(tmp_path / "out" / "checkpoints" / "step-4").val_loss is None
    # Stopped again while it makes that up: the step is not trained on from.
    again = [*workspace.pretrain(tmp_path / "out", *options), "--keep-last", 9, "--resume"]
    assert "stopped by a signal after step 4" in llada_train(*again).stderr
    monkeypatch.undo()
    succeed(*again)
    measured = [read_state(folder).val_loss for folder in sorted((tmp_path / "out" / "checkpoints").iterdir())]
    assert len(measured) == 3 and None not in measured


def test_a_stop_during_the_last_step_is_a_stop_too(workspace, tmp_path, monkeypatch):
    step = Trainer.train_step

    def interrupt(trainer):
        step(trainer)
        if trainer.step == 12:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "train_step", interrupt)
    assert "stopped by a signal after step 12" in llada_train(*workspace.pretrain(tmp_path / "out")).stderr
    monkeypatch.undo()
    assert "saved to" in succeed(*workspace.pretrain(tmp_path / "out", "--resume"))


def test_what_a_failed_save_left_is_gone_before_room_is_looked_for(workspace, tmp_path, monkeypatch):
    out = tmp_path / "out"
    succeed(*workspace.pretrain(out))
    (out / "checkpoints" / "incomplete-13").mkdir()
    found = []
    monkeypatch.setattr("training.run.run.require_room", lambda *_, **__: found.extend((out / "checkpoints").iterdir()))
    succeed(*workspace.pretrain(out, "--resume"))
    assert [folder.name for folder in found] == ["step-12"]


class Fake:
    """A hundred samples of validation data."""

    def __len__(self):
        return 100

    def __getitem__(self, index):
        raise NotImplementedError


def test_a_checkpoint_of_another_run_is_refused_and_says_what_differs(workspace, tmp_path):
    succeed(*workspace.pretrain(tmp_path / "out"))
    result = llada_train(*workspace.pretrain(tmp_path / "out", "--seed", 1, "--resume"))
    assert result.returncode == 1
    assert "step-12 belongs to another run: seed was 0 and is 1" in result.stderr


def test_where_and_how_fast_a_run_computes_may_change_on_resume(workspace, tmp_path):
    out = tmp_path / "out"
    succeed(*workspace.pretrain(out))
    assert "continuing from step 12" in succeed(
        *workspace.pretrain(out, "--micro-batch-size", 2, "--save-steps", 7, "--log-steps", 3, "--resume")
    )


def test_a_kill_while_an_old_checkpoint_is_deleted_costs_nothing(workspace, tmp_path, monkeypatch):
    out = tmp_path / "out"

    delete = shutil.rmtree

    def half_delete(folder, **options):
        if not folder.name.startswith("incomplete-step"):
            return delete(folder, **options)
        (folder / "state.json").unlink(missing_ok=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("training.run.checkpoints.shutil.rmtree", half_delete)
        assert llada_train(*workspace.pretrain(out)).returncode != 0
    assert "continuing from step 8" in succeed(*workspace.pretrain(out, "--resume"))
    assert [folder.name for folder in (out / "checkpoints").iterdir()] == ["step-12"]


def test_a_checkpoint_that_cannot_be_written_is_named_with_the_reason(workspace, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        result = llada_train(*workspace.pretrain(tmp_path / "out"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert result.returncode == 1
    assert "step-4 cannot be written: [Errno 27] File too large; --resume continues" in result.stderr


def test_too_little_memory_for_a_checkpoint_is_called_by_its_name(workspace, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("training.run.checkpoints.state_dict_saver.save", fail)
    assert "out of memory: lower" in llada_train(*workspace.pretrain(tmp_path / "out")).stderr


def test_adapters_do_not_go_on_upon_another_base_model(workspace, tmp_path):
    base = shutil.copytree(workspace.folder / "base", tmp_path / "base")
    options = [*workspace.sft(tmp_path / "out"), "--model-name-or-path", base, "--lora-r", 2]
    succeed(*options)
    # In the middle of the file: its size, beginning and end stay.
    weights = load_file(base / "model.safetensors")
    weights["model.transformer.blocks.0.v_proj.weight"][:] = 0
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    assert "base model's weights was" in llada_train(*options, "--resume").stderr
    exported = ["export", "--checkpoint", tmp_path / "out", "--output-dir", tmp_path / "merged"]
    assert "other weights than those" in llada_train(*exported).stderr
    shutil.rmtree(base)
    assert "the base model of these adapters is not there; give --base-model" in llada_train(*exported).stderr
    succeed(*exported, "--base-model", workspace.folder / "base")


def test_a_checkpoint_is_read_as_data_and_runs_nothing(workspace, tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path(tmp_path / "was-here").touch, ())

    out = tmp_path / "out"
    succeed(*workspace.pretrain(out))
    (out / "checkpoints" / "step-12" / ".metadata").write_bytes(pickle.dumps(Evil()))
    result = llada_train("export", "--checkpoint", out, "--output-dir", tmp_path / "exported")
    assert result.returncode == 1
    assert "it is not read" in result.stderr
    assert not (tmp_path / "was-here").exists()


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


def test_an_incomplete_checkpoint_is_not_resumed_from(workspace, tmp_path):
    out = tmp_path / "out"
    succeed(*workspace.pretrain(out))
    (out / "checkpoints" / "incomplete-13").mkdir()
    (out / "checkpoints" / "incomplete-13" / "state.json").write_text("{")
    assert "continuing from step 12" in succeed(*workspace.pretrain(out, "--resume"))
