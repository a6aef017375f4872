"""LLaDA's relatives are trained, saved and loaded as LLaDA is."""

import json
import math

import pytest
import torch

from llada_core import LLM, load_checkpoint
from llada_core.checkpoint.adapter import Adapter
from llada_core.text.tokenizer import Message
from tests.training.conftest import llada_train, losses, succeed, write_jsonl
from training.errors import TrainingError
from training.options.fields import SFTOptions
from training.run.start import find_start

FAMILIES = ("ILLaDAForCausalLM", "LLaDAMoEModelLM", "DreamModel", "LLaDA2MoeModelLM")
SHORT = ["--max-length", 48, "--batch-size", 4, "--max-steps", 3, "--warmup-steps", 1, "--dtype", "float32"]
SHORT += ["--threads", 1, "--log-steps", 1, "--learning-rate", 1e-3]

# What a checkpoint's own generation_config.json says besides the special ids; `alg` is Dream's.
PUBLISHED = {"alg": "entropy", "temperature": 0.25, "no_field_of_ours": [1]}


def generation_config(folder):
    return json.loads((folder / "generation_config.json").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("family")
    for family in (*FAMILIES, "SDARForCausalLM"):
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


def test_an_unknown_miniature_is_refused(tmp_path):
    refused = llada_train("tiny", "gpt", "--output-dir", tmp_path)
    assert refused.returncode and "must be one of DreamModel, ILLaDAForCausalLM, LLaDA" in refused.stderr


@pytest.mark.parametrize(("family", "blocks"), [("SDARForCausalLM", []), ("LLaDA2MoeModelLM", ["--block-length", 8])])
def test_a_block_causal_model_learns_a_handful_of_answers_and_gives_them(folder, tmp_path, family, blocks):
    answers = {"Who barks?": "The dog barks at the moon.", "Name a tree": "Oak"}
    chats = write_jsonl(tmp_path / "chats.jsonl", [{"prompt": text, "completion": answers[text]} for text in answers])
    succeed(
        "sft", "--model-name-or-path", folder / family, "--train-data-path", chats, "--val-data-path", chats, *SHORT,
        "--batch-size", 8, "--max-steps", 70, "--learning-rate", 5e-3, "--weight-decay", 0, "--lr-schedule", "cosine",
        "--stratified-noise", "--output-dir", tmp_path / "out", *blocks,
    )  # fmt: skip
    before, after = losses(tmp_path / "out", "val_loss").values()
    assert after < 0.5 < 5 < before
    model = LLM(tmp_path / "out")
    settings = {"block_length": blocks[1]} if blocks else {}
    assert [model.chat(text, max_tokens=24, **settings) for text in answers] == list(answers.values())
    shown = succeed("eval", "--model-name-or-path", tmp_path / "out", "--val-data-path", chats, "--json")
    assert json.loads(shown)["nll"] == pytest.approx(after, abs=0.3)


def test_a_block_causal_run_that_resumes_ends_bit_for_bit_like_one_that_did_not(folder, tmp_path):
    options = [
        "sft",
        "--model-name-or-path",
        folder / "LLaDA2MoeModelLM",
        "--train-data-path",
        folder / "chats.jsonl",
        *SHORT,
    ]
    options += ["--max-steps", 4, "--save-steps", 2, "--micro-batch-size", 2, "--output-dir", tmp_path / "out"]
    succeed(*options)
    weights, curve = load_checkpoint(tmp_path / "out").state_dict(), losses(tmp_path / "out")
    succeed(*options, "--resume-from", 2)
    assert losses(tmp_path / "out") == curve
    for name, weight in load_checkpoint(tmp_path / "out").state_dict().items():
        assert torch.equal(weight, weights[name]), name


@pytest.mark.parametrize("adapters", [[], ["--lora-r", 4]], ids=["all", "lora"])
def test_a_block_causal_model_learns_preferences_and_resumes_bit_for_bit(folder, tmp_path, adapters):
    pairs = [
        {"prompt": f"After {number}?", "chosen": f"{number + 1}", "rejected": f"It is {number}."} for number in range(8)
    ]
    options: list[object] = [
        "dpo", "--model-name-or-path", folder / "SDARForCausalLM", "--train-data-path",
        write_jsonl(tmp_path / "pairs.jsonl", pairs), *SHORT, "--block-length", 8, "--mc-num", 2, "--max-steps", 4,
        "--save-steps", 2, "--learning-rate", 1e-3, "--warmup-steps", 0, *adapters, "--output-dir", tmp_path / "out",
    ]  # fmt: skip
    assert "chosen, draw 1 of 2" in succeed(*options, "--dry-run")
    succeed(*options)
    weights, curve = load_checkpoint(tmp_path / "out").state_dict(), losses(tmp_path / "out")
    # The first step compares the model with itself.
    assert curve[1] == pytest.approx(math.log(2)) and curve[4] < curve[1]
    succeed(*options, "--resume-from", 2)
    assert losses(tmp_path / "out") == curve
    for name, weight in load_checkpoint(tmp_path / "out").state_dict().items():
        assert torch.equal(weight, weights[name]), name


def test_a_block_causal_model_learns_to_be_sure_of_its_own_recorded_answers(folder, tmp_path):
    model, questions = folder / "SDARForCausalLM", [{"prompt": f"After {number}?"} for number in range(8)]
    succeed(
        "generate", "--model-name-or-path", model, "--input", write_jsonl(tmp_path / "questions.jsonl", questions),
        "--output", tmp_path / "answers.jsonl", "--trajectory", "--gen-length", 10, "--block-length", 8,
        "--steps-per-block", 4,
    )  # fmt: skip
    options: list[object] = [
        "distill", "--model-name-or-path", model, "--train-data-path", tmp_path / "answers.jsonl", *SHORT,
        "--block-length", 8, "--max-steps", 12, "--learning-rate", 3e-3, "--output-dir", tmp_path / "out",
    ]  # fmt: skip
    assert "░" in succeed(*options, "--dry-run")
    succeed(*options)
    curve = losses(tmp_path / "out")
    assert curve[12] < 0.8 * curve[1]


def test_a_block_causal_model_learns_from_rewards_and_resumes_bit_for_bit(folder, tmp_path):
    questions = [{"prompt": f"After {number}?"} for number in range(4)]
    options: list[object] = [
        "grpo", "--model-name-or-path", folder / "SDARForCausalLM", "--train-data-path",
        write_jsonl(tmp_path / "questions.jsonl", questions), *SHORT, "--block-length", 8, "--gen-length", 10,
        "--temperature", 1, "--reward", "length", "--group-size", 2, "--batch-size", 2, "--updates", 2,
        "--prompt-masking", 0.2, "--max-steps", 4, "--save-steps", 2, "--output-dir", tmp_path / "out",
    ]  # fmt: skip
    assert "the canvas of an answer" in succeed(*options, "--dry-run")
    succeed(*options)
    weights, divergences = load_checkpoint(tmp_path / "out").state_dict(), losses(tmp_path / "out", "kl")
    assert divergences[1] == 0 < divergences[4]
    succeed(*options, "--resume-from", 2)
    assert losses(tmp_path / "out", "kl") == divergences
    for name, weight in load_checkpoint(tmp_path / "out").state_dict().items():
        assert torch.equal(weight, weights[name]), name


def test_blocks_are_for_block_causal_models_and_these_fill_no_gaps(folder, tmp_path):
    options = ["--train-data-path", folder / "chats.jsonl", *SHORT, "--output-dir", tmp_path / "out"]
    refused = llada_train("sft", "--model-name-or-path", folder / "DreamModel", *options, "--block-length", 8)
    assert refused.returncode and "--block-length: only models that attend block by block" in refused.stderr
    options[1] = write_jsonl(tmp_path / "gaps.jsonl", [{"prefix": "a big ", "middle": "fox", "suffix": "."}])
    refused = llada_train("sft", "--model-name-or-path", folder / "SDARForCausalLM", *options)
    assert refused.returncode and "prefix, middle and suffix; the model attends block by block" in refused.stderr


def test_blocks_are_no_longer_than_those_that_can_be_sampled(folder):
    options = SFTOptions(
        model_name_or_path=str(folder / "SDARForCausalLM"), train_data_path=["x"], output_dir="x", max_steps=1
    )
    for length in (257, 300, 10**6):
        with pytest.raises(TrainingError, match=f"--block-length is {length}; it must be at most 256"):
            find_start(options.model_copy(update={"block_length": length}), log=print)
    find_start(options.model_copy(update={"block_length": 256}), log=print)


def test_without_a_length_samples_have_the_models_whole_blocks(folder):
    options = SFTOptions(
        model_name_or_path=str(folder / "SDARForCausalLM"), train_data_path=["x"], output_dir="x", max_steps=1,
        block_length=48,
    )  # fmt: skip
    start = find_start(options, log=print)
    assert start.model.config.shape.max_sequence_length == 512 and start.stage.row_lengths["max_length"] == 480
    assert start.build_model(device=torch.device("cpu")).shape.block_length == 48
