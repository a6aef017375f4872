"""LLaDA's relatives against their published code: logits, with both ways in which a checkpoint is computed."""

import json
from functools import cache
from math import prod
from shutil import copy
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llada_core import load_checkpoint, load_model
from llada_core.errors import UnsupportedCheckpointError
from llada_core.model import layers
from llada_core.model.backends import cpu
from llada_core.model.description import Experts
from llada_core.model.network import Network
from llada_core.model.packed import PackedTokens, Rows
from llada_core.model.registry import ARCHITECTURES
from llada_core.model.rotary import RotaryTable, rotate
from llada_core.model.routing import choose_experts, places_by_expert
from tests.conftest import GOLDEN

FAMILY = GOLDEN / "family"
CASES: dict[str, dict[str, Any]] = {
    folder.name: json.loads((folder / "cases.json").read_text()) for folder in sorted(FAMILY.iterdir())
}


@cache
def logits_of(family: str) -> dict[str, torch.Tensor]:
    return load_file(FAMILY / family / "logits.safetensors")


@cache
def network_of(family: str, model: str) -> Network:
    # Whichever test comes first: weights made in inference mode have no gradients.
    with torch.inference_mode(mode=False):
        return load_checkpoint(FAMILY / family / "models" / model).eval()


def first_of(family: str) -> tuple[str, str]:
    return family, next(iter(CASES[family]["special_ids"]))


def config_of(family: str, model: str, **changes: Any) -> Any:
    fields = json.loads((FAMILY / family / "models" / model / "config.json").read_text())
    return ARCHITECTURES[fields["architectures"][0]].from_dict({**fields, **changes})


def cases(kind: str) -> list[Any]:
    return [pytest.param(family, case, id=case["id"]) for family in CASES for case in CASES[family].get(kind, ())]


@pytest.mark.parametrize(("family", "case"), cases("logits"))
@torch.inference_mode()
def test_outputs_of_the_network_equal_the_published_model(family, case):
    mask_BL = None if case["attention_mask"] is None else torch.tensor(case["attention_mask"])
    network, block_length = network_of(family, case["model"]), case.get("block_length")
    logits_BLV = network(torch.tensor(case["input_ids"]), mask_BL, block_length=block_length).logits
    is_token_BL = torch.ones(logits_BLV.shape[:2]).bool() if mask_BL is None else mask_BL.bool()
    assert list(logits_BLV.shape) == case["shape"]
    expected_BLV = logits_of(family)[case["tensor"]]
    torch.testing.assert_close(logits_BLV[is_token_BL], expected_BLV[is_token_BL], atol=1e-4, rtol=0)


@pytest.mark.parametrize(("family", "case"), cases("logits"))
@torch.inference_mode()
def test_predictions_equal_the_published_model(family, case):
    ids_BL = torch.tensor(case["input_ids"])
    is_token_BL = torch.tensor(case["attention_mask"] or torch.ones(ids_BL.shape).tolist()).bool()
    lengths = tuple(is_token_BL.sum(dim=1).tolist())
    packed = PackedTokens(ids_BL[is_token_BL], lengths, block_lengths=(case.get("block_length"),) * len(lengths))
    expected_TV = logits_of(family)[case["tensor"]][is_token_BL]
    if network_of(family, case["model"]).shape.predicts_next:
        # The published sampler: cat([logits[:, :1], logits[:, :-1]], dim=1).
        expected_TV = torch.cat([torch.cat((row[:1], row[:-1])) for row in expected_TV.split(packed.lengths)])
    for model in (network_of(family, case["model"]), load_model(FAMILY / family / "models" / case["model"])):
        logits_TV = model.head(model.hidden_states(packed))
        torch.testing.assert_close(logits_TV, expected_TV, atol=1e-4, rtol=0)
        rows = Rows.of(packed, [torch.arange(0, length, 3).numpy() for length in packed.lengths])
        logits_RV = model.head(model.hidden_states(packed, rows))
        torch.testing.assert_close(logits_RV, expected_TV[rows.index_R], atol=1e-4, rtol=0)


@pytest.mark.parametrize("interpreter", [layers, cpu])
@pytest.mark.parametrize(("family", "case"), cases("routing"))
@torch.inference_mode()
def test_experts_and_their_weights_equal_the_published_model(monkeypatch, family, case, interpreter):
    chosen = []

    def recorded(*args):
        chosen.append(choose_experts(*args))
        return chosen[-1]

    folder = FAMILY / family / "models" / case["model"]
    model = network_of(family, case["model"]) if interpreter is layers else load_model(folder)
    monkeypatch.setattr(interpreter, "choose_experts", recorded)
    (ids,) = case["input_ids"]
    model.hidden_states(PackedTokens(torch.tensor(ids), (len(ids),)))
    layers_before = config_of(family, case["model"]).describe().feed_forwards[: case["layer"]]
    weights_TN, experts_TN = chosen[sum(isinstance(layer, Experts) for layer in layers_before)]
    assert experts_TN[: len(ids)].tolist() == case["experts"]
    torch.testing.assert_close(weights_TN[: len(ids)], torch.tensor(case["weights"]), atol=2e-6, rtol=0)


def test_places_by_expert_name_every_token_once_in_order():
    experts_TN = torch.tensor([[3, 0], [0, 1], [3, 1]])
    places = {expert: places.tolist() for expert, places in places_by_expert(experts_TN, 5)}
    assert places == {0: [1, 2], 1: [3, 5], 3: [0, 4]}


MODELS = [(family, model) for family in CASES for model in CASES[family]["special_ids"]]


@pytest.mark.parametrize(("family", "model"), MODELS)
@pytest.mark.parametrize(("quantization", "tolerance"), [("none", 0.04), ("int8", 0.1)])
@torch.inference_mode()
def test_lower_precision_stays_near(family, model, quantization, tolerance):
    folder = FAMILY / family / "models" / model
    packed = PackedTokens(torch.arange(3, 63), (33, 27))
    exact, rounded = (
        predictor.head(predictor.hidden_states(packed)).float()
        for predictor in (load_model(folder), load_model(folder, dtype="bfloat16", quantization=quantization))
    )
    if family == "llada2_moe":
        # A token whose group of experts changes by rounding is far off; there are few.
        errors_T = (rounded - exact).norm(dim=1) / exact.norm(dim=1)
        assert errors_T.quantile(0.9) < tolerance
    else:
        assert (rounded - exact).norm() / exact.norm() < tolerance


def test_rotation_in_the_dtype_of_the_queries_rounds_as_the_published_code():
    torch.manual_seed(0)
    x_THD = torch.randn(5, 2, 8).bfloat16()
    cos_T1D, sin_T1D = RotaryTable(8, 10000.0).at(torch.arange(5), longest=5)
    cos, sin = cos_T1D.bfloat16(), sin_T1D.bfloat16()
    expected = x_THD * cos + torch.cat((-x_THD[..., 4:], x_THD[..., :4]), dim=-1) * sin
    assert torch.equal(rotate(x_THD, cos_T1D, sin_T1D, is_float32=False), expected)
    assert not torch.equal(rotate(x_THD, cos_T1D, sin_T1D), expected)


REFUSED: dict[str, list[tuple[str, object]]] = {
    "illada": [
        ("hidden_act", "gelu"), ("layer_norm_eps", 1e-5), ("resid_pdrop", 0.1), ("attention_dropout", 0.1),
        ("rope_scaling", {"type": "linear", "factor": 2}), ("head_dim", 32), ("hidden_size", 50), ("rope_theta", 0),
        ("num_attention_heads", 5), ("tie_word_embeddings", "yes"),
    ],
    "llada_moe": [
        ("attention_bias", True), ("clip_qkv", 8.0), ("hidden_act", "gelu"), ("rope_scaling", {"type": "linear"}),
        ("moe_router_score_function", "sigmoid"), ("router_num_group", 4), ("output_router_logits", True),
        ("moe_layer_freq", [1]), ("moe_layer_freq", [1, 2]), ("moe_layer_freq", [0, 1]), ("num_experts_per_tok", 9),
        ("partial_rotary_factor", 0.2), ("num_experts", 5000), ("hidden_size", -1), ("rope_theta", -1),
        ("partial_rotary_factor", -1), ("num_hidden_layers", -1), ("expert_intermediate_size", -1),
        ("shared_expert_intermediate_size", 0),
    ],
    "dream": [
        ("hidden_act", "gelu"), ("use_sliding_window", True), ("sliding_window", 128), ("attention_dropout", 0.1),
        ("rope_scaling", {"type": "yarn", "factor": 2}), ("num_key_value_heads", 2), ("rms_norm_eps", 0),
    ],
    "sdar": [
        ("hidden_act", "gelu"), ("use_sliding_window", True), ("sliding_window", 128), ("attention_dropout", 0.1),
        ("rope_scaling", {"type": "yarn", "factor": 2}), ("head_dim", 15), ("head_dim", 0), ("block_size", 0),
        ("num_key_value_heads", 3), ("attention_bias", "no"),
    ],
    "llada2_moe": [
        ("hidden_act", "gelu"), ("use_sliding_window", True), ("rope_scaling", {"type": "yarn"}), ("head_dim", 15),
        ("use_bias", "no"), ("use_qk_norm", "no"), ("use_rmsnorm", False), ("using_split_qkv_in_self_attention", True),
        ("score_function", "softmax"), ("router_dtype", "bf16"), ("norm_head", True), ("norm_softmax", True),
        ("moe_router_enable_expert_bias", False), ("attention_dropout", 0.1), ("embedding_dropout", 0.1),
        ("output_dropout", 0.1), ("n_group", 3), ("n_group", 16), ("topk_group", 5), ("topk_group", 0),
        ("num_experts_per_tok", 9), ("num_experts", 5000), ("partial_rotary_factor", 0.2), ("num_shared_experts", 0),
        ("routed_scaling_factor", 0), ("first_k_dense_replace", -1), ("num_hidden_layers", 10_001),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "field", "value"), [(family, *change) for family, changes in REFUSED.items() for change in changes]
)
def test_a_field_that_is_not_implemented_is_refused_by_name(family, field, value):
    with pytest.raises(UnsupportedCheckpointError, match=rf"config\.json: .*{field}"):
        config_of(*first_of(family), **{"dense_intermediate_size": None, field: value})


# The published sizes, and the numbers of parameters that follow from them.
PUBLISHED = {
    "sdar-8b": (
        "SDARForCausalLM",
        {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32,
         "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 32768},
        8_190_735_360,
    ),
    "llada2-mini": (
        "LLaDA2MoeModelLM",
        {"hidden_size": 2048, "intermediate_size": 5120, "moe_intermediate_size": 512, "num_hidden_layers": 20,
         "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 128, "num_experts": 256, "n_group": 8,
         "topk_group": 4, "num_experts_per_tok": 8, "vocab_size": 157184, "max_position_embeddings": 16384},
        16_255_643_392,
    ),
    "llada2-flash": (
        "LLaDA2MoeModelLM",
        {"hidden_size": 4096, "intermediate_size": 9216, "moe_intermediate_size": 1024, "num_hidden_layers": 32,
         "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "num_experts": 256, "n_group": 8,
         "topk_group": 4, "num_experts_per_tok": 8, "vocab_size": 157184, "max_position_embeddings": 16384},
        102_889_705_216,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_have_the_published_numbers_of_parameters(name):
    architecture, fields, num_parameters = PUBLISHED[name]
    shapes = ARCHITECTURES[architecture](**fields).tensor_shapes()
    assert sum(map(prod, shapes.values())) == num_parameters


@pytest.mark.parametrize(("family", "model"), MODELS)
def test_a_missing_field_is_not_guessed(family, model):
    config = config_of(family, model)
    assert config.rules.required
    for field in config.rules.required:
        with pytest.raises(UnsupportedCheckpointError, match=f"{field} missing"):
            config_of(family, model, **{field: None})


@pytest.mark.parametrize(("family", "model"), MODELS)
def test_a_saved_config_states_what_it_relies_on(family, model, tmp_path):
    config = config_of(family, model)
    config.save(tmp_path)
    assert type(config).from_dict(json.loads((tmp_path / "config.json").read_text())) == config


@pytest.mark.parametrize(("family", "model"), MODELS)
def test_a_network_saved_as_published_checkpoints_are_loads_again(family, model, tmp_path):
    network = network_of(family, model)
    network.config.save(tmp_path)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    # The special tokens are there.
    copy(FAMILY / family / "models" / model / "generation_config.json", tmp_path)
    loaded = load_checkpoint(tmp_path)
    assert type(loaded.config) is type(network.config)
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
