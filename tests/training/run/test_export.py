"""The published code and this server read what training writes."""

import json
import re
import warnings

import pytest
import torch
from safetensors.torch import load_file

from llada_core import load_checkpoint
from llada_core.text.tokenizer import Message, Tokenizer
from tests.conftest import GOLDEN
from tests.training.conftest import llada_train, succeed


def test_a_checkpoint_from_the_middle_of_a_run_can_be_exported(workspace, tmp_path):
    out = tmp_path / "out"
    succeed(*workspace.pretrain(out, "--keep-last", 3))
    succeed("export", "--checkpoint", out / "checkpoints" / "step-4", "--output-dir", tmp_path / "four")
    succeed("export", "--checkpoint", out, "--output-dir", tmp_path / "last", "--dtype", "float32")
    four, last = (load_checkpoint(tmp_path / name) for name in ("four", "last"))
    finished = load_checkpoint(out)
    for name, weight in finished.state_dict().items():
        torch.testing.assert_close(weight, last.state_dict()[name].bfloat16().float(), atol=0, rtol=0)
    assert any(not torch.equal(weight, four.state_dict()[name]) for name, weight in finished.state_dict().items())


def test_adapters_are_merged(workspace, tmp_path):
    out = tmp_path / "out"
    succeed(*workspace.sft(out, "--lora-r", 2, "--learning-rate", 1e-2))
    succeed("export", "--checkpoint", out, "--output-dir", tmp_path / "merged")
    finished, exported = (load_file(folder / "model.safetensors") for folder in (out, tmp_path / "merged"))
    assert all(torch.equal(finished[name], exported[name]) for name in finished)


def test_an_interrupted_export_of_adapters_can_be_repeated(workspace, tmp_path):
    succeed(*workspace.sft(tmp_path / "out", "--lora-r", 2))
    (tmp_path / "merged" / "adapter").mkdir(parents=True)
    export = ("export", "--checkpoint", tmp_path / "out", "--output-dir", tmp_path / "merged")
    succeed(*export)
    assert "is not empty" in llada_train(*export).stderr


def test_names_and_config_fields_are_the_official_ones(workspace):
    base = workspace.folder / "base"
    golden = GOLDEN / "models" / "tiny-mha"
    official, exported = (
        {re.sub(r"blocks\.\d+", "blocks.0", name) for name in load_file(folder / "model.safetensors")}
        for folder in (golden, base)
    )
    # The demo's head is tied; an untied one has `model.transformer.ff_out.weight` too.
    assert official - exported <= {"model.transformer.ff_out.weight"}
    assert exported <= official
    config = json.loads((base / "config.json").read_text())
    # What transformers once wrote: now `dtype`, and the version that is not used.
    written_by_transformers = {"torch_dtype", "transformers_version"}
    assert json.loads((golden / "config.json").read_text()).keys() <= config.keys() | written_by_transformers
    assert config["auto_map"]["AutoModel"] == "GSAI-ML/LLaDA-8B-Instruct--modeling_llada.LLaDAModelLM"


def test_the_tokenizer_loads_with_transformers_and_has_the_same_template(workspace):
    from transformers import AutoTokenizer

    base = workspace.folder / "base"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = AutoTokenizer.from_pretrained(base)
    ours = Tokenizer.from_folder(base)
    messages = [Message("system", "Be brief."), Message("user", " After 5? "), Message("assistant", "6.")]
    rows = [{"role": message.role, "content": message.content} for message in messages]
    for add_generation_prompt in (False, True):
        text = theirs.apply_chat_template(rows, tokenize=False, add_generation_prompt=add_generation_prompt)
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        assert ids == ours.encode_chat(messages, add_generation_prompt=add_generation_prompt)
    assert theirs.mask_token_id == ours.token_to_id("<|mdm_mask|>")
    assert theirs.eos_token == theirs.pad_token == "<|endoftext|>"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder, "neither a checkpoints/step-<n> folder nor an output folder with one"),
        (lambda folder: folder / "missing", "neither a checkpoints/step-<n> folder"),
    ],
)
def test_a_folder_without_a_checkpoint_is_named(tmp_path, make, message):
    result = llada_train("export", "--checkpoint", make(tmp_path), "--output-dir", tmp_path / "out")
    assert result.returncode == 1
    assert message in result.stderr


def test_an_output_folder_with_something_in_it_is_refused(workspace, tmp_path):
    (tmp_path / "note").write_text("mine")
    result = llada_train("export", "--checkpoint", workspace.folder / "base", "--output-dir", tmp_path)
    assert "is not empty" in result.stderr
