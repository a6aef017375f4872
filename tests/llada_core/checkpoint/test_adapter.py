"""LoRA adapters merged while the weights are read, compared with `peft` itself."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from llada_core import LLM, load_checkpoint, load_model
from llada_core.checkpoint.adapter import Adapter
from llada_core.errors import UnsupportedCheckpointError
from llada_core.model.packed import PackedTokens
from tests.conftest import GOLDEN

BASE = GOLDEN / "models" / "tiny-gqa"
IDS = torch.arange(3, 23)

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def write_adapter(folder, **config):
    """An adapter of the tiny model with random weights, written by `peft`; returns the adapted network."""
    torch.manual_seed(1)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": r".*\.blocks\.\d+\.(q_proj|v_proj|ff_out)", **config}
    adapted = get_peft_model(load_checkpoint(BASE, dtype="float32"), LoraConfig(**settings))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name or "trainable_tokens_delta" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(folder)
    return adapted.eval()


def edit_config(folder, **fields):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 32}},
        {"trainable_token_indices": {"model.transformer.wte": [3, 9], "transformer.ff_out": [4]}},
        {"trainable_token_indices": [3, 9]},
        {"layers_to_transform": [1], "layers_pattern": "blocks", "target_modules": ["k_proj", "up_proj"]},
    ],
    ids=str,
)
@torch.inference_mode()
def test_merged_weights_give_pefts_logits(tmp_path, config):
    expected = write_adapter(tmp_path, **config)(IDS[None]).logits[0]
    plain = load_checkpoint(BASE, dtype="float32")(IDS[None]).logits[0]
    assert (expected - plain).abs().max() > 0.1
    packed = PackedTokens(IDS, (len(IDS),))
    for model in (load_model(BASE, adapter=tmp_path), load_checkpoint(BASE, dtype="float32", adapter=tmp_path)):
        logits = model.head(model.hidden_states(packed))
        torch.testing.assert_close(logits, expected, atol=2e-4, rtol=2e-4)


def test_an_adapted_model_can_be_quantised_and_used_through_llm(tmp_path):
    write_adapter(tmp_path)
    plain = LLM(BASE).generate([[3, 4, 5]], max_tokens=8, ignore_eos=True)[0].token_ids
    adapted = LLM(BASE, adapter=tmp_path).generate([[3, 4, 5]], max_tokens=8, ignore_eos=True)[0].token_ids
    assert plain != adapted
    quantised = LLM(BASE, adapter=tmp_path, quantization="int8")
    assert len(quantised.generate([[3, 4, 5]], max_tokens=8, ignore_eos=True)[0].token_ids) == 8


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; it must be 'LORA'"),
        ({"use_dora": True}, "use_dora is True, which is not supported"),
        ({"modules_to_save": ["ff_out"]}, r"modules_to_save is \['ff_out'\], which is not supported"),
        ({"bias": "all"}, "bias is 'all'; it must be 'none'"),
    ],
    ids=str,
)
def test_an_adapter_that_is_more_than_plain_lora_is_refused_by_name(tmp_path, fields, message):
    write_adapter(tmp_path)
    edit_config(tmp_path, **fields)
    with pytest.raises(UnsupportedCheckpointError, match=message):
        load_model(BASE, adapter=tmp_path)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ({"wte": [3]}, "does not fit trainable_token_indices in its config"),
        ({"other": [3, 9]}, "does not fit trainable_token_indices in its config"),
        ({"wte": [3, 100_000]}, r"rows of width 64 for the tokens \[3, 100000\] of model\.transformer\.wte\.weight"),
    ],
    ids=str,
)
def test_rows_of_tokens_that_do_not_fit_are_refused(tmp_path, indices, message):
    write_adapter(tmp_path, trainable_token_indices=[3, 9])
    edit_config(tmp_path, trainable_token_indices=indices)
    with pytest.raises(UnsupportedCheckpointError, match=message):
        load_model(BASE, adapter=tmp_path)


def test_an_adapter_of_another_model_is_refused_with_the_weight(tmp_path):
    write_adapter(tmp_path)
    edit_config(tmp_path, base_model_name_or_path="someone/other")
    with pytest.raises(UnsupportedCheckpointError, match=r"v_proj\.weight .* the adapter was trained on someone/other"):
        load_model(GOLDEN / "models" / "tiny-mha", adapter=tmp_path)


@pytest.mark.parametrize("name", ["base_model.model.model.x.lora_embedding_A", "base_model.model.model.x.weight"])
def test_a_tensor_that_is_no_adapter_is_refused_by_name(tmp_path, name):
    write_adapter(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file({**load_file(file), name: torch.zeros(2, 2)}, file)
    with pytest.raises(UnsupportedCheckpointError, match=f"holds {name}, which is not part of a plain LoRA adapter"):
        Adapter(tmp_path)


def test_a_rank_that_contradicts_the_config_is_refused(tmp_path):
    write_adapter(tmp_path)
    edit_config(tmp_path, r=8)
    with pytest.raises(UnsupportedCheckpointError, match="has rank 4, and its config says r = 8"):
        Adapter(tmp_path)


def test_half_an_adapter_is_refused(tmp_path):
    write_adapter(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    del tensors[next(name for name in tensors if "lora_B" in name)]
    save_file(tensors, file)
    with pytest.raises(UnsupportedCheckpointError, match=r"needs lora_A \[r, in\] and lora_B \[out, r\]"):
        Adapter(tmp_path)


def test_an_adapter_file_without_tensors_is_refused(tmp_path):
    write_adapter(tmp_path)
    save_file({}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(UnsupportedCheckpointError, match="holds no tensor"):
        Adapter(tmp_path)


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_folder_without_an_adapter_is_named_with_what_it_lacks(tmp_path, missing):
    write_adapter(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(FileNotFoundError, match=f"no {missing} in this folder"):
        load_model(BASE, adapter=tmp_path)


def test_a_damaged_adapter_is_named(tmp_path):
    write_adapter(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid x")
    with pytest.raises(UnsupportedCheckpointError, match="is a git-lfs pointer"):
        load_model(BASE, adapter=tmp_path)


def test_an_adapter_given_as_the_model_is_told_apart(tmp_path):
    write_adapter(tmp_path)
    edit_config(tmp_path, base_model_name_or_path="GSAI-ML/LLaDA-8B-Instruct")
    with pytest.raises(FileNotFoundError, match="a LoRA adapter, not a model: load GSAI-ML/LLaDA-8B-Instruct with"):
        load_model(tmp_path)
