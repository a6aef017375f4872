import pytest

from tests.training.conftest import llada_train
from training.options.foreign import _FOREIGN, hint
from training.options.sections import SECTIONS, option_names

KNOWN = {name for kind in SECTIONS.values() for name in option_names(kind)}


def test_every_foreign_name_means_an_option_that_there_is():
    assert {ours.split(" ")[0].rstrip(",") for ours in _FOREIGN.values()} <= KNOWN


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lr", "here it is learning_rate"),
        ("--num-train-epochs", "here it is num_epochs"),
        ("learning_rat", "did you mean learning_rate?"),
        ("quantum", ""),
        ("", ""),
    ],
)
def test_a_name_is_explained_corrected_or_left(name, expected):
    assert hint(name, KNOWN) == expected


def test_a_name_that_only_another_command_has_is_not_offered():
    assert hint("lr", option_names(SECTIONS["evaluation"])) == ""


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--per-device-train-batch-size", "here it is --micro-batch-size (batch_size counts the samples"),
        ("--per_device_train_batch_size", "here it is --micro-batch-size (batch_size counts the samples"),
        ("--gradient-checkpointing", "here it is --activation-checkpointing"),
        ("--learning-rat", "did you mean --learning-rate?"),
        ("--quantum", "No such option: --quantum"),
    ],
)
def test_the_command_line_says_what_an_option_is_called_here(option, expected):
    result = llada_train("sft", option, "3")
    assert result.returncode == 2
    assert expected in " ".join(result.stderr.split())


def test_a_config_file_says_it_too(config):
    result = llada_train("pipeline", "--config", config(lr=3))
    assert "config.yaml: lr: unknown key; here it is learning_rate" in result.stderr
    section = {"train_data_path": "x", "num_train_epochs": 3}
    result = llada_train("pipeline", "--config", config(sft=section))
    assert "num_train_epochs: unknown option; here it is num_epochs" in result.stderr
