"""The published sizes of LLaDA's relatives, on the meta device: names, shapes and numbers of parameters."""

from math import prod
from typing import Any

import pytest
import torch

from llada_core.model.config import ModelConfig
from llada_core.model.network import Network
from llada_core.model.registry import find_architecture
from training.run.memory import count_parameters

COMMON = {"hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1e6}
# As config files and reports state them; what changes no shape is chosen.
FIELDS: dict[str, dict[str, Any]] = {
    "iLLaDA-8B": {
        **COMMON, "architectures": ["ILLaDAForCausalLM"], "attention_bias": False, "hidden_size": 4096,
        "intermediate_size": 14336, "max_position_embeddings": 8192, "mlp_bias": False, "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "tie_word_embeddings": True, "vocab_size": 155136,
    },
    "LLaDA-MoE-7B-A1B": {
        **COMMON, "architectures": ["LLaDAMoEModelLM"], "dense_intermediate_size": 8192,
        "expert_intermediate_size": 1024, "hidden_size": 2048, "max_position_embeddings": 8192,
        "moe_layer_freq": [1] * 16,
        "moe_router_enable_expert_bias": False, "num_attention_heads": 16, "num_experts": 64, "num_experts_per_tok": 8,
        "num_hidden_layers": 16, "num_key_value_heads": 16, "partial_rotary_factor": 1.0, "qk_layernorm": True,
        "tie_word_embeddings": False, "vocab_size": 157184,
    },
    "Dream-v0-7B": {
        **COMMON, "architectures": ["DreamModel"], "hidden_size": 3584, "intermediate_size": 18944,
        "max_position_embeddings": 2048, "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4,
        "tie_word_embeddings": False, "use_sliding_window": False, "vocab_size": 152064,
    },
}  # fmt: skip
# Dream has the shapes of Qwen2.5-7B, which has 7,615,616,512 parameters; of the others, reports say 8 B and 7 B.
PARAMETERS = {"iLLaDA-8B": 7_615_025_152, "LLaDA-MoE-7B-A1B": 7_356_880_896, "Dream-v0-7B": 7_615_616_512}


def config_of(name: str) -> ModelConfig:
    config: ModelConfig = find_architecture(FIELDS[name]).from_dict(FIELDS[name])
    return config


@pytest.mark.parametrize("name", FIELDS)
def test_the_network_has_the_published_tensors_and_number_of_parameters(record_property, name):
    config = config_of(name)
    with torch.device("meta"):
        network = Network(config)
    shapes = {tensor: tuple(weight.shape) for tensor, weight in network.state_dict().items()}
    assert shapes == config.tensor_shapes()
    number = sum(map(prod, shapes.values()))
    record_property(name, f"{number:,} parameters")
    assert number == PARAMETERS[name]


@pytest.mark.parametrize("name", FIELDS)
def test_a_dry_run_counts_them_from_two_blocks(name):
    assert count_parameters(config_of(name)) == (PARAMETERS[name], PARAMETERS[name])
