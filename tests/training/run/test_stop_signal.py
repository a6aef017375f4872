"""A signal stops a run in a way that can be resumed."""

import os
import signal
import time

import numpy as np
import pytest

from tests.training.conftest import llada_train, losses, start, succeed, until_exists
from training.data.samples import Sample
from training.evaluation.likelihood_bound import evaluate
from training.run.state import read_state
from training.run.trainer import Trainer


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_saves_a_checkpoint_and_says_how_to_continue(workspace, tmp_path, number):
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


def test_a_stop_does_not_wait_for_a_validation(workspace, tmp_path, monkeypatch):
    scored = []

    def interrupt(samples, index):
        scored.append(index)
        os.kill(os.getpid(), signal.SIGTERM)
        return Sample(np.arange(6, 16), 0, 0, (10,))

    validations = []

    def evaluate_later_ones_on_fakes(model, samples, **rest):
        validations.append(samples)
        return evaluate(model, samples if len(validations) == 1 else Fake(), **rest)

    monkeypatch.setattr("training.stages.denoising.evaluate", evaluate_later_ones_on_fakes)
    monkeypatch.setattr(Fake, "__getitem__", interrupt)
    options = ["--val-data-path", workspace.folder / "pretrain.jsonl", "--eval-samples", 5]
    result = llada_train(*workspace.pretrain(tmp_path / "out", *options))
    assert "stopped by a signal after step 4" in result.stderr
    assert scored == [0]
    assert read_state(tmp_path / "out" / "checkpoints" / "step-4").val_loss is None
    # Stopped again while it makes up for the validation: no further step is trained.
    again = [*workspace.pretrain(tmp_path / "out", *options), "--keep-last", 9, "--resume"]
    assert "stopped by a signal after step 4" in llada_train(*again).stderr
    monkeypatch.undo()
    succeed(*again)
    measured = [read_state(folder).val_loss for folder in sorted((tmp_path / "out" / "checkpoints").iterdir())]
    assert len(measured) == 3 and None not in measured


def test_a_stop_during_the_first_validation_trains_nothing(workspace, tmp_path, monkeypatch):
    def interrupt(model, samples, *, is_stopping, **rest):
        os.kill(os.getpid(), signal.SIGTERM)
        return

    monkeypatch.setattr("training.stages.denoising.evaluate", interrupt)
    result = llada_train(*workspace.pretrain(tmp_path / "out", "--val-data-path", workspace.folder / "pretrain.jsonl"))
    assert "stopped by a signal before the first step" in result.stderr
    assert not (tmp_path / "out" / "checkpoints").exists()


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


class Fake:
    """Validation data of a hundred samples."""

    def __len__(self):
        return 100

    def __getitem__(self, index):
        raise NotImplementedError
