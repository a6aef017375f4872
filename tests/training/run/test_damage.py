"""A run goes on from what a power cut left whole, and ends like one that had none."""

import errno
import shutil
import subprocess
from contextlib import suppress

import pytest

from tests.training.conftest import llada_train, losses, start, succeed, until_exists
from tests.training.damage import zeroed_page, zeros
from training.run import checkpoints
from training.run.trainer import Trainer


@pytest.fixture(scope="module")
def finished(workspace, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "out"
    succeed(*workspace.pretrain(out, "--keep-last", 3))
    return out


@pytest.fixture
def out(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "out")


def break_files(folder, pattern, damage):
    files = [file for file in folder.rglob(pattern) if file.is_file()]
    assert files
    for file in files:
        file.write_bytes(damage(file.read_bytes()))


@pytest.mark.parametrize("pattern", ["*.distcp", ".metadata", "state.json"])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_continued(workspace, out, finished, pattern):
    break_files(out / "checkpoints" / "step-12", pattern, zeros)
    printed = succeed(*workspace.pretrain(out, "--resume"))
    assert f"checkpoints/step-12/{'__0_0.distcp' if '*' in pattern else pattern}: is damaged" in printed
    assert "going on from the checkpoint before" in printed and "continuing from step 8" in printed
    assert losses(out) == losses(finished)
    assert (out / "model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()


def test_a_run_whose_checkpoints_are_all_damaged_says_so(workspace, out):
    break_files(out / "checkpoints", "*.distcp", zeroed_page)
    result = llada_train(*workspace.pretrain(out, "--resume"))
    assert result.returncode == 1
    assert result.stderr.count("is damaged") == 3
    assert "no other checkpoint is left. Start again in a new --output-dir" in result.stderr


def test_a_damaged_checkpoint_that_was_asked_for_is_named(workspace, out):
    break_files(out / "checkpoints" / "step-8", "*.distcp", zeros)
    result = llada_train(*workspace.pretrain(out, "--resume-from", 8))
    assert "step-8/__0_0.distcp: is damaged" in result.stderr
    assert "choose another step for --resume-from" in result.stderr


def test_a_damaged_checkpoint_is_not_exported(out, tmp_path):
    break_files(out / "checkpoints" / "step-12", "*.distcp", zeros)
    result = llada_train("export", "--checkpoint", out, "--output-dir", tmp_path / "exported")
    assert result.returncode == 1
    assert "step-12/__0_0.distcp: is damaged" in result.stderr


def test_damaged_data_is_tokenised_again_and_trains_the_same_curve(workspace, out, finished):
    break_files(out / "data", "*.*", zeros)
    shutil.rmtree(out / "checkpoints")
    succeed(*workspace.pretrain(out, "--resume"))
    assert losses(out) == losses(finished)


def test_a_second_run_in_the_same_folder_is_refused_and_the_first_goes_on(workspace, tmp_path):
    out = tmp_path / "out"
    process = start(*workspace.pretrain(out, "--max-steps", 100000, "--save-steps", 50000))
    until_exists(out / "metrics.jsonl", process)
    second = llada_train(*workspace.pretrain(out, "--resume"))
    assert second.returncode == 1
    assert f"{out}: another run is working in this folder (process {process.pid} on " in second.stderr
    assert process.poll() is None
    process.kill()
    process.communicate()
    assert "no checkpoint yet" in succeed(*workspace.pretrain(out, "--resume"))
    assert not (out / ".lock").exists()


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """A folder on a disk of 20 MB; where nothing may be mounted, one in which the third write of a checkpoint fails."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", disk], check=False).returncode == 0:
        yield disk
        subprocess.run(["umount", "--lazy", disk], check=True)
        return
    save = checkpoints.state_dict_saver.save

    def fail_when_full(*arguments, **options):
        if (disk / "ballast").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        save(*arguments, **options)

    monkeypatch.setattr(checkpoints.state_dict_saver, "save", fail_when_full)
    yield disk


def test_a_disk_that_fills_up_during_a_save_is_called_full_and_the_part_deleted(workspace, small_disk, monkeypatch):
    out, step = small_disk / "out", Trainer.train_step

    def fill_up(trainer):
        step(trainer)
        if trainer.step == 6:
            with suppress(OSError), (small_disk / "ballast").open("wb", buffering=0) as file:
                for _ in range(1000):
                    file.write(bytes(100_000))

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train_step", fill_up)
        result = llada_train(*workspace.pretrain(out, "--log-steps", 100))
    assert result.returncode == 1
    assert "step-8 cannot be written: the disk is full; --resume continues from the checkpoint before" in result.stderr
    assert [folder.name for folder in (out / "checkpoints").iterdir()] == ["step-4"]
    (small_disk / "ballast").unlink()
    assert "continuing from step 4" in succeed(*workspace.pretrain(out, "--resume"))
