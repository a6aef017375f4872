"""Problems of the output folder are found before anything is trained."""

import shutil

from tests.training.conftest import llada_train, succeed


def test_a_model_is_not_written_over_by_its_own_training(workspace, tmp_path):
    base = shutil.copytree(workspace.folder / "base", tmp_path / "base")
    result = llada_train(*workspace.sft(base, "--model-name-or-path", base, "--resume"))
    assert f"--output-dir {base}: is --model-name-or-path too" in result.stderr


def test_an_output_folder_with_something_in_it_is_refused_without_resume(workspace, tmp_path):
    (tmp_path / "note").write_text("mine")
    result = llada_train(*workspace.pretrain(tmp_path))
    assert result.returncode == 1
    assert "is not empty" in result.stderr


def test_an_output_folder_that_cannot_be_written_is_found_at_the_start(workspace, tmp_path):
    (tmp_path / "file").write_text("")
    result = llada_train(*workspace.pretrain(tmp_path / "file"))
    assert "file: cannot be written: File exists" in result.stderr


def test_a_full_disk_is_found_at_the_start(workspace, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("usage", (), {"free": 10_000}))
    result = llada_train(*workspace.pretrain(tmp_path / "out"))
    assert "MB needed for checkpoints and the finished model, 0 MB free; lower --keep-last" in result.stderr


def test_the_rest_of_a_failed_save_is_deleted_before_the_room_is_checked(workspace, tmp_path, monkeypatch):
    out = tmp_path / "out"
    succeed(*workspace.pretrain(out))
    (out / "checkpoints" / "incomplete-13").mkdir()
    at_the_check = []
    monkeypatch.setattr(
        "training.run.run.require_room", lambda *_: at_the_check.extend((out / "checkpoints").iterdir())
    )
    succeed(*workspace.pretrain(out, "--resume"))
    assert sorted(folder.name for folder in at_the_check) == ["step-12", "step-8"]
