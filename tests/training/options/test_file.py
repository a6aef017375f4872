"""How a config file and the command line become options."""

import pytest
import yaml

from tests.training.conftest import llada_train, succeed
from training.options.file import command_options


def test_a_file_with_only_a_tokenizer_may_configure_generation(config, tmp_path):
    content = yaml.safe_load(config().read_text())
    del content["pretraining"], content["sft"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    succeed("tokenizer", "--config", tmp_path / "config.yaml")


def test_an_option_replaces_those_that_it_excludes(config, workspace, tmp_path):
    options = command_options("pretrain", config(), {"model_name_or_path": "x", "num_epochs": 2})
    assert (options.model_config_file, options.tokenizer, options.max_steps) == (None, None, None)
    file = config(inference={"input": "in.jsonl", "output": "out.jsonl"})
    options = command_options("generate", file, {"prompt": ["x"]})
    assert (options.input, options.output) == (None, None)


def test_a_section_takes_precedence_over_the_top_of_the_file(config, workspace):
    section = {"train_data_path": "x", "num_epochs": 2, "model_name_or_path": "y"}
    options = command_options("pretrain", config(max_steps=3, pretraining=section), {})
    assert (options.max_steps, options.num_epochs, options.model_config_file, options.tokenizer) == (
        None,
        2,
        None,
        None,
    )


def test_the_models_length_holds_for_evaluation_too(config, workspace):
    file = config(evaluation={"val_data_path": "x"})
    assert command_options("eval", file, {}).max_length == 48


def test_an_empty_list_of_data_is_named(workspace, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("output_dir: out\npretraining: {train_data_path: [], max_steps: 1}\n")
    assert "pretraining: train_data_path is []" in llada_train("pipeline", "--config", file).stderr


@pytest.mark.parametrize(
    "columns",
    [
        "prompt=question,completion=reply",
        ["prompt=question", "completion=reply"],
        {"prompt": "question", "completion": "reply"},
    ],
)
def test_columns_may_be_written_with_commas_as_a_list_or_as_a_mapping(config, columns):
    options = command_options("eval", config(evaluation={"val_data_path": "x", "columns": columns}), {})
    assert options.column_names == {"prompt": "question", "completion": "reply"}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("prompt", "'prompt'; each must be NAME=COLUMN"),
        ("prompt=", "'prompt='; each must be"),
        ("prompt=a,", "''; each must be"),
        ("prompt=a,prompt=b", "'prompt' is given twice"),
    ],
)
def test_columns_that_are_no_pairs_are_refused(config, columns, message):
    with pytest.raises(Exception, match=message):
        command_options("eval", config(evaluation={"val_data_path": "x", "columns": columns}), {})
