import pytest
import torch

from llada_core.errors import UnsupportedCheckpointError
from llada_core.model.backends.cpu import CPUMaskPredictor
from llada_core.model.network import Network
from llada_core.model.registry import ARCHITECTURES, find_architecture
from llada_core.text.special_tokens import SpecialTokens

# Architecture → the fields of a config small enough for a test. An architecture more is a line more.
LLAMA_LAYOUT = {
    "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2, "vocab_size": 60,
    "intermediate_size": 48, "max_position_embeddings": 64,
}  # fmt: skip
MIXTURE = {
    **{name: value for name, value in LLAMA_LAYOUT.items() if name != "intermediate_size"},
    "moe_layer_freq": [0, 1], "dense_intermediate_size": 48, "shared_expert_intermediate_size": 8,
    "moe_router_enable_expert_bias": True, "num_experts": 3, "partial_rotary_factor": 0.5,
}  # fmt: skip
HEADS = {**LLAMA_LAYOUT, "head_dim": 12}
SMALL = {
    "FusedLLaDAMoEModelLM": MIXTURE,
    "DreamModel": LLAMA_LAYOUT,
    "ILLaDAForCausalLM": {**LLAMA_LAYOUT, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    "LLaDA2MoeModelLM": {**HEADS, "moe_intermediate_size": 8, "use_bias": True, "use_qkv_bias": True},
    "LLaDAMoEModelLM": MIXTURE,
    "LLaDAModelLM": {
        "d_model": 32, "n_heads": 4, "n_kv_heads": 2, "n_layers": 2, "mlp_hidden_size": 48, "vocab_size": 60,
        "max_sequence_length": 64,
    },
    "SDARForCausalLM": {**HEADS, "attention_bias": True},
}  # fmt: skip


def test_another_architecture_of_the_same_model_type_is_refused():
    with pytest.raises(UnsupportedCheckpointError, match="LLaDA9ModelLM"):
        find_architecture({"model_type": "llada", "architectures": ["LLaDA9ModelLM"]})


@pytest.mark.parametrize(
    "named", [None, [], "LLaDAModelLM", ["LLaDAModelLM", "LLaDAMoEModelLM"], [7], [{}], [["LLaDAModelLM"]]]
)
def test_a_config_that_names_no_single_architecture_is_refused(named):
    with pytest.raises(UnsupportedCheckpointError, match="architectures is"):
        find_architecture({"architectures": named})


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_tensors_of_an_architectures_config_are_those_of_its_network(name):
    config = ARCHITECTURES[name](**SMALL[name])
    network = Network(config)
    assert {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()} == config.tensor_shapes()
    assert network.shape == config.shape
    assert len(network.blocks) == config.shape.num_layers


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_saved_config_names_the_published_kind_of_model(name):
    assert ARCHITECTURES[name](**SMALL[name]).to_dict()["model_type"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_block_causal_attention_brings_an_exact_cache_and_the_settings_of_blocks(name):
    shape = ARCHITECTURES[name](**SMALL[name]).shape
    is_block_causal = shape.block_length is not None
    assert (shape.sampler.defaults.get("cache") == "exact") == is_block_causal
    assert ("editing_threshold" in shape.sampler.settings) == is_block_causal


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_cpu_backend_reads_every_tensor_of_an_architecture_by_its_role(name):
    config = ARCHITECTURES[name](**SMALL[name])
    names, state = config.describe().names, Network(config).state_dict()
    names_read = set()

    def read(role: str, depth: int | None) -> torch.Tensor:
        names_read.add(names.tensor(role, depth))
        return state[names.tensor(role, depth)]

    CPUMaskPredictor(config, SpecialTokens(59, 58, None), read, dtype=torch.float32)
    assert names_read == set(state)
