import yaml

from tests.training.conftest import losses, succeed
from training.options.file import RunConfig


def test_a_run_is_repeated_from_its_own_file(workspace, tmp_path):
    out, again = tmp_path / "out", tmp_path / "again"
    succeed(*workspace.sft(out, "--lora-r", 2, "--eval-prompt", "After 7?", "--max-length", 48))
    succeed("sft", "--config", out / "run.yaml", "--output-dir", again)
    assert losses(again) == losses(out)
    first, second = (yaml.safe_load((folder / "run.yaml").read_text()) for folder in (out, again))
    assert first["provenance"] == second["provenance"]
    assert {**first["sft"], "output_dir": str(again)} == second["sft"]


def test_the_file_has_every_option_with_the_value_it_had(workspace, tmp_path):
    succeed(*workspace.pretrain(tmp_path / "out"))
    content = yaml.safe_load((tmp_path / "out" / "run.yaml").read_text())
    values = content["pretraining"]
    assert (values["max_length"], values["weight_decay"], values["keep_last"]) == (24, 0.1, 2)
    assert values["model_config"] == str(workspace.folder / "config.json")
    assert not {"resume", "num_epochs", "lora_alpha"} & values.keys()
    assert {"llada", "commit", "torch", "training_data", "tokenizer"} <= content["provenance"].keys()


def test_epochs_are_written_as_steps(workspace, tmp_path):
    options = workspace.sft(tmp_path / "out")
    place = options.index("--max-steps")
    options[place : place + 2] = ["--num-epochs", 0.2]
    succeed(*options)
    assert RunConfig.load(tmp_path / "out" / "run.yaml").stage("sft").max_steps == 5
