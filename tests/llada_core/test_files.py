"""Leftovers of a killed process never look complete."""

import pytest

from llada_core.files import move_files, new_file, new_folder, remove_folder, remove_incomplete, replace_folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_under_its_name_only_when_it_is_whole(tmp_path):
    with new_file(tmp_path / "a.json") as aside:
        aside.write_text("{")
        assert names(tmp_path) == ["incomplete-a.json"]
        aside.write_text("{}")
    assert (tmp_path / "a.json").read_text() == "{}"
    assert names(tmp_path) == ["a.json"]


def test_an_old_file_survives_a_failed_rewrite(tmp_path):
    (tmp_path / "a.json").write_text("old")
    with pytest.raises(OSError, match="disk"), new_file(tmp_path / "a.json") as aside:
        aside.write_text("ne")
        raise OSError("disk")
    assert (tmp_path / "a.json").read_text() == "old"


def test_a_folder_appears_only_when_it_is_whole_and_starts_empty(tmp_path):
    (tmp_path / "incomplete-shard").mkdir()
    (tmp_path / "incomplete-shard" / "left-over").touch()
    with new_folder(tmp_path / "shard") as aside:
        assert names(aside) == []
        assert not (tmp_path / "shard").exists()
        (aside / "tokens.bin").touch()
    assert names(tmp_path) == ["shard"]
    assert names(tmp_path / "shard") == ["tokens.bin"]


def test_a_folder_that_fails_is_deleted(tmp_path):
    with pytest.raises(OSError, match="disk"), new_folder(tmp_path / "shard") as aside:
        (aside / "tokens.bin").touch()
        raise OSError("disk")
    assert names(tmp_path) == []


def test_a_new_folder_takes_the_place_of_an_old_one(tmp_path):
    for name in ("incomplete-8", "step-8"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    replace_folder(tmp_path / "incomplete-8", tmp_path / "step-8")
    assert names(tmp_path) == ["step-8"]
    assert names(tmp_path / "step-8") == ["incomplete-8"]


def test_the_file_that_completes_a_folder_is_moved_last(tmp_path):
    aside = tmp_path / "incomplete"
    aside.mkdir()
    for name in ("config.json", "model.safetensors"):
        (aside / name).touch()
    (tmp_path / "model.safetensors").mkdir()  # cannot be replaced by a file
    with pytest.raises(OSError):
        move_files(aside, tmp_path, last="config.json")
    assert not (tmp_path / "config.json").exists()


def test_a_half_deleted_folder_has_another_name(tmp_path, monkeypatch):
    def fail(folder):
        raise KeyboardInterrupt

    (tmp_path / "step-8").mkdir()
    monkeypatch.setattr("llada_core.files.shutil.rmtree", fail)
    with pytest.raises(KeyboardInterrupt):
        remove_folder(tmp_path / "step-8")
    assert names(tmp_path) == ["incomplete-step-8"]
    monkeypatch.undo()
    remove_incomplete(tmp_path)
    assert names(tmp_path) == []
