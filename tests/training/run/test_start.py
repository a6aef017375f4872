import json

import pytest

from llada_core.text.tokenizer import Tokenizer
from tests.training.conftest import CONFIG, llada_train, succeed


def test_the_tokenizers_sizes_take_precedence_over_the_configs_and_it_says_so(workspace, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**CONFIG, "vocab_size": 999}))
    printed = succeed(*workspace.pretrain(tmp_path / "out", "--model-config", config, "--max-steps", 1))
    size = len(Tokenizer.from_folder(workspace.folder / "tokenizer"))
    assert f"vocab_size: 999 in config.json, {size} in the tokenizer" in printed


def without(words, option):
    at = words.index(option)
    return [*words[:at], *words[at + 2 :]]


@pytest.mark.parametrize("stage", ["pretrain", "sft"])
def test_without_a_length_samples_have_the_models(workspace, tmp_path, stage):
    words = without(getattr(workspace, stage)(tmp_path / "out", "--max-steps", 1), "--max-length")
    succeed(*words)
    state = json.loads(next((tmp_path / "out" / "checkpoints").glob("*/state.json")).read_text())
    assert state["run"]["decisive"]["max_length"] == CONFIG["max_sequence_length"]


def test_a_default_length_hides_no_other_error(workspace, tmp_path):
    words = without(workspace.sft(tmp_path / "out"), "--max-length")
    words[words.index("--train-data-path") + 1] = "nowhere.jsonl"
    outcome = llada_train(*words)
    assert (outcome.returncode, "nowhere.jsonl: no such file" in outcome.stderr) == (1, True)


@pytest.mark.parametrize("option", ["--max-length", "--pad-to"])
def test_a_length_past_the_models_is_refused_with_both(workspace, tmp_path, option):
    outcome = llada_train(*workspace.sft(tmp_path / "out", option, 4096))
    assert f"{option} is 4096; it must be at most the model's max_sequence_length, 96" in outcome.stderr
