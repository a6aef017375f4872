"""Checkpoints are whole, few, and read as data only."""

import pickle
import resource
import shutil
from pathlib import Path

import torch

from tests.training.conftest import llada_train, records, succeed
from training.run.state import read_state, write_state


def test_the_best_checkpoint_by_validation_loss_is_kept_besides_the_last(workspace, tmp_path):
    out = tmp_path / "out"
    # A learning rate this high makes validation worse after the first steps.
    succeed(
        *workspace.sft(out, "--save-steps", 2, "--learning-rate", 0.3, "--warmup-steps", 0, "--keep-last", 2),
        "--val-data-path", workspace.folder / "sft.jsonl", "--eval-samples", 8,
    )  # fmt: skip
    measured = {record["step"]: record["val_loss"] for record in records(out) if "val_loss" in record}
    best = min(measured, key=measured.__getitem__)
    kept = {int(folder.name.removeprefix("step-")) for folder in (out / "checkpoints").iterdir()}
    assert kept == {best, 10, 12}


def test_a_kill_while_an_old_checkpoint_is_deleted_costs_nothing(workspace, tmp_path, monkeypatch):
    out = tmp_path / "out"

    delete = shutil.rmtree

    def half_delete(folder, **options):
        if not folder.name.startswith("incomplete-step"):
            return delete(folder, **options)
        (folder / "state.json").unlink(missing_ok=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("llada_core.files.shutil.rmtree", half_delete)
        assert llada_train(*workspace.pretrain(out, "--keep-last", 1)).returncode != 0
    assert "continuing from step 8" in succeed(*workspace.pretrain(out, "--resume", "--keep-last", 1))
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


def test_too_little_memory_for_a_checkpoint_is_reported_as_that(workspace, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("training.run.checkpoints.state_dict_saver.save", fail)
    assert "out of memory: lower" in llada_train(*workspace.pretrain(tmp_path / "out")).stderr


def test_a_checkpoint_is_read_as_data_and_runs_no_code(workspace, tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path(tmp_path / "was-here").touch, ())

    out = tmp_path / "out"
    succeed(*workspace.pretrain(out))
    checkpoint = out / "checkpoints" / "step-12"
    (checkpoint / ".metadata").write_bytes(pickle.dumps(Evil()))
    write_state(checkpoint, read_state(checkpoint))  # its digests are right
    result = llada_train("export", "--checkpoint", out, "--output-dir", tmp_path / "exported")
    assert result.returncode == 1
    assert "it is not read" in result.stderr
    assert not (tmp_path / "was-here").exists()


def test_an_incomplete_checkpoint_is_not_resumed_from(workspace, tmp_path):
    out = tmp_path / "out"
    succeed(*workspace.pretrain(out))
    (out / "checkpoints" / "incomplete-13").mkdir()
    (out / "checkpoints" / "incomplete-13" / "state.json").write_text("{")
    assert "continuing from step 12" in succeed(*workspace.pretrain(out, "--resume"))
