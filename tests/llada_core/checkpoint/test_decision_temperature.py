"""The temperature of decisions in a checkpoint's folder."""

import json
from pathlib import Path

import pytest

from llada_core.checkpoint.decision_temperature import read_decision_temperature, write_decision_temperature


def test_a_checkpoint_that_names_none_has_1(tmp_path: Path) -> None:
    assert read_decision_temperature(tmp_path) == 1.0
    (tmp_path / "generation_config.json").write_text('{"mask_token_id": 2, "decision_temperature": null}')
    assert read_decision_temperature(tmp_path) == 1.0


def test_writing_keeps_everything_else(tmp_path: Path) -> None:
    content = {"mask_token_id": 2, "eos_token_id": [1, 2], "décision": "Ä\u2028\ud800", "decision_temperature": 3}
    (tmp_path / "generation_config.json").write_text(json.dumps(content))
    write_decision_temperature(tmp_path, 1.25)
    assert read_decision_temperature(tmp_path) == 1.25
    written = json.loads((tmp_path / "generation_config.json").read_text())
    assert written == {**content, "decision_temperature": 1.25}
    assert list(written) == list(content)
    assert [file.name for file in tmp_path.iterdir()] == ["generation_config.json"]


def test_a_folder_without_the_file_gets_one(tmp_path: Path) -> None:
    write_decision_temperature(tmp_path, 0.5)
    assert json.loads((tmp_path / "generation_config.json").read_text()) == {"decision_temperature": 0.5}


def test_a_file_that_cannot_be_read_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(OSError, match="is not JSON"):
        write_decision_temperature(tmp_path, 0.5)
    assert (tmp_path / "generation_config.json").read_text() == "{"
