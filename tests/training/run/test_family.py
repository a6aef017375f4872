"""LLaDA's relatives are trained, saved and loaded as LLaDA is."""

import json

import pytest
import torch

from llada_core import LLM, load_checkpoint
from llada_core.checkpoint.adapter import Adapter
from llada_core.text.tokenizer import Message
from tests.training.conftest import llada_train, losses, succeed, write_jsonl

FAMILIES = ("ILLaDAForCausalLM", "LLaDAMoEModelLM", "DreamModel")
SHORT = ["--max-length", 48, "--batch-size", 4, "--max-steps", 3, "--warmup-steps", 1, "--dtype", "float32"]
SHORT += ["--threads", 1, "--log-steps", 1, "--learning-rate", 1e-3]

# What a checkpoint's own generation_config.json says besides the special ids; `alg` is Dream's.
PUBLISHED = {"alg": "entropy", "temperature": 0.25, "no_field_of_ours": [1]}


def generation_config(folder):
    return json.loads((folder / "generation_config.json").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("family")
    for family in FAMILIES:
        succeed("tiny", family, "--output-dir", folder / family)
        with_defaults = {**generation_config(folder / family), **PUBLISHED, "decision_temperature": 2.0}
        (folder / family / "generation_config.json").write_text(json.dumps(with_defaults))
    write_jsonl(folder / "text.jsonl", [{"text": f"The number {number} follows {number - 1}."} for number in range(40)])
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"After {number}?"},
                {"role": "assistant", "content": f"{number + 1}"},
            ]
        }
        for number in range(20)
    ]
    write_jsonl(folder / "chats.jsonl", chats)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_all_weights_are_trained_and_the_folder_loads_bit_for_bit(folder, tmp_path, family):
    start, output = folder / family, tmp_path / "out"
    data = ["--train-data-path", folder / "text.jsonl", "--val-data-path", folder / "text.jsonl"]
    succeed("pretrain", "--model-name-or-path", start, *data, "--eval-steps", 3, *SHORT, "--output-dir", output)
    assert len(losses(output)) == 3 and all(loss > 0 for loss in losses(output).values())
    before, after = load_checkpoint(start), load_checkpoint(output)
    changed = {
        name for name, weight in after.state_dict().items() if not torch.equal(weight, before.state_dict()[name])
    }
    assert len(changed) > 0.9 * len(after.state_dict())
    config, origin = (json.loads((place / "config.json").read_text()) for place in (output, start))
    assert config["architectures"] == origin["architectures"] and config["dtype"] == "bfloat16"
    exported = tmp_path / "exported"
    succeed("export", "--checkpoint", output, "--output-dir", exported)
    again = load_checkpoint(exported)
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in after.state_dict().items())
    for place in (output, exported):
        assert generation_config(place) == {**generation_config(place), **PUBLISHED}
        assert "decision_temperature" not in generation_config(place)
    if family == "LLaDAMoEModelLM":
        assert all(load > 0 for load in losses(output, "load_balance_loss").values())


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_are_trained_on_chats_in_the_checkpoints_own_format(folder, tmp_path, family):
    start, output = folder / family, tmp_path / "out"
    lora = ["--lora-r", 2, "--train-data-path", folder / "chats.jsonl"]
    succeed("sft", "--model-name-or-path", start, *lora, *SHORT, "--output-dir", output)
    adapter = Adapter(output / "adapter")
    assert adapter.updates.keys() <= load_checkpoint(start).state_dict().keys()
    assert generation_config(output) == {**generation_config(output), **PUBLISHED}
    assert any(update.up.any() for update in adapter.updates.values())
    merged = tmp_path / "merged"
    succeed("export", "--adapter", output / "adapter", "--output-dir", merged, "--dtype", "float32")
    assert generation_config(merged) == generation_config(output)
    model = LLM(merged)
    chat = [Message("user", "After 3?")]
    assert model.tokenizer.encode_chat(chat) == LLM(start).tokenizer.encode_chat(chat)
    assert isinstance(model.chat("After 3?", max_tokens=4), str)
    # Adapters go on from where they are.
    more = ["--adapter", output / "adapter", "--train-data-path", folder / "chats.jsonl"]
    succeed("sft", "--model-name-or-path", start, *more, *SHORT, "--output-dir", tmp_path / "more")


def test_an_answer_is_what_the_template_writes_after_its_prompt(folder):
    shown = succeed(
        "sft", "--model-name-or-path", folder / "LLaDAMoEModelLM", "--train-data-path", folder / "chats.jsonl", *SHORT,
        "--output-dir", folder / "unused", "--dry-run",
    )  # fmt: skip
    clean = next(line for line in shown.splitlines() if "clean:" in line)
    assert "┃" in clean and clean.split("┃")[1].startswith(tuple("0123456789"))
    assert "⟦role_end⟧" in clean.split("┃")[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_dry_run_counts_the_parameters_and_the_memory(folder, family):
    start = folder / family
    data = ["--train-data-path", folder / "text.jsonl", "--output-dir", folder / "unused"]
    shown = succeed("pretrain", "--model-name-or-path", start, *data, *SHORT, "--dry-run")
    number = sum(weight.numel() for weight in load_checkpoint(start).parameters())
    assert f"{number:,} parameters, {number:,} of them trained" in shown
    assert "this run" in shown


def test_a_layer_that_the_model_has_not_is_refused_by_name(folder):
    data = ["--train-data-path", folder / "chats.jsonl", "--output-dir", folder / "unused"]
    options = ["--lora-r", 2, "--lora-target-modules", "att_proj", *data, *SHORT]
    refused = llada_train("sft", "--model-name-or-path", folder / "DreamModel", *options)
    assert refused.returncode and "['att_proj'] unknown; choose from q_proj, k_proj" in refused.stderr


@pytest.mark.parametrize("architecture", ["SDARForCausalLM", "LLaDA2MoeModelLM"])
def test_a_model_that_attends_block_by_block_is_not_trained(folder, tmp_path, architecture):
    succeed("tiny", architecture, "--output-dir", tmp_path / "tiny")
    data = ["--train-data-path", folder / "text.jsonl", "--output-dir", tmp_path / "out"]
    refused = llada_train("pretrain", "--model-name-or-path", tmp_path / "tiny", *data, *SHORT)
    assert refused.returncode and "model attends block by block" in refused.stderr


def test_an_unknown_miniature_is_refused(tmp_path):
    refused = llada_train("tiny", "gpt", "--output-dir", tmp_path)
    assert refused.returncode and "must be one of DreamModel, ILLaDAForCausalLM, LLaDA" in refused.stderr


@pytest.mark.parametrize("family", ["LLaDA2MoeModelLM", "SDARForCausalLM"])
def test_a_model_that_attends_block_by_block_is_not_trained_with_full_attention(folder, tmp_path, family):
    succeed("tiny", family, "--output-dir", tmp_path / "start")
    data = ["--train-data-path", folder / "chats.jsonl", "--output-dir", tmp_path / "out"]
    refused = llada_train("sft", "--model-name-or-path", tmp_path / "start", *data, *SHORT)
    assert refused.returncode and "model attends block by block" in refused.stderr and "for training" in refused.stderr
    assert not (tmp_path / "out").exists()
