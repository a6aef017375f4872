import json

import pytest

from llada_core.errors import UnsupportedCheckpointError
from llada_core.model.architectures.llada.config import LLaDAConfig
from tests.conftest import GOLDEN

PUBLISHED = json.loads((GOLDEN / "models" / "tiny-mha" / "config.json").read_text())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("block_type", "sequential"),
        ("alibi", True),
        ("layer_norm_type", "low_precision"),
        ("activation_type", "swiglu"),
        ("include_bias", True),
        ("include_qkv_bias", True),
        ("bias_for_layer_norm", True),
        ("attention_layer_norm", True),
        ("input_emb_norm", True),
        ("scale_logits", True),
        ("rope", False),
        ("rope_full_precision", False),
        ("block_group_size", 2),
        ("residual_dropout", 0.1),
        ("num_experts", 64),
    ],
)
def test_a_field_that_is_not_implemented_is_refused_by_name(field, value):
    with pytest.raises(UnsupportedCheckpointError, match=f"{field} is"):
        LLaDAConfig.from_dict({**PUBLISHED, field: value})


@pytest.mark.parametrize("field", ["block_type", "rope_theta", "weight_tying", "d_model"])
def test_a_missing_field_is_not_guessed(field):
    with pytest.raises(UnsupportedCheckpointError, match=f"{field} missing"):
        LLaDAConfig.from_dict({name: value for name, value in PUBLISHED.items() if name != field})


def test_null_fields_follow_the_published_rules():
    config = LLaDAConfig.from_dict({**PUBLISHED, "n_kv_heads": None, "embedding_size": None, "mlp_hidden_size": None})
    assert config.n_kv_heads == config.n_heads
    assert config.embedding_size == config.vocab_size
    assert config.mlp_hidden_size == config.mlp_ratio * config.d_model
    grouped = LLaDAConfig.from_dict({**PUBLISHED, "n_kv_heads": None, "multi_query_attention": True})
    assert grouped.n_kv_heads == 1


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(UnsupportedCheckpointError, match="embedding_size"):
        LLaDAConfig.from_dict({**PUBLISHED, "embedding_size": 100})
    with pytest.raises(UnsupportedCheckpointError, match="n_heads"):
        LLaDAConfig.from_dict({**PUBLISHED, "n_heads": 3})


def test_a_saved_config_states_what_it_relies_on(tmp_path):
    config = LLaDAConfig.from_dict(PUBLISHED)
    config.save(tmp_path)
    assert LLaDAConfig.from_dict(json.loads((tmp_path / "config.json").read_text())) == config


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("_attn_implementation", "sdpa"),
        ("_attn_implementation_autoset", True),
        ("use_cache", True),
        ("gradient_checkpointing", True),
        ("pretraining_tp", 1),
        ("tie_word_embeddings", PUBLISHED["weight_tying"]),
        ("temperature", 1.0),
        ("max_length", 20),
        ("id2label", {"0": "LABEL_0"}),
        ("return_dict", True),
        ("unsloth_version", "2025.1"),
        ("unsloth_fixed", True),
    ],
)
def test_a_field_without_effect_on_the_network_does_not_stop_the_load(field, value):
    config = LLaDAConfig.from_dict({**PUBLISHED, field: value})
    assert config.tensor_shapes() == LLaDAConfig.from_dict(PUBLISHED).tensor_shapes()
    # What is saved again states only the network.
    assert field not in config.to_dict() or config.to_dict()[field] == LLaDAConfig.from_dict(PUBLISHED).to_dict()[field]


def test_a_tying_that_contradicts_itself_is_refused():
    with pytest.raises(UnsupportedCheckpointError, match="tie_word_embeddings is True; it must be weight_tying"):
        LLaDAConfig.from_dict({**PUBLISHED, "weight_tying": False, "tie_word_embeddings": True})


@pytest.mark.parametrize(
    ("field", "value"), [("rope_scaling", {"type": "linear"}), ("qk_norm", True), ("clip_qkv", 8.0)]
)
def test_a_field_that_may_change_the_arithmetic_is_refused_and_called_that(field, value):
    with pytest.raises(UnsupportedCheckpointError, match=rf"{field} is .* may change what the network computes"):
        LLaDAConfig.from_dict({**PUBLISHED, field: value})
