"""LLaDA's config, in the field names of the published `config.json`.

Most of the published fields choose between variants of the OLMo code base that no LLaDA checkpoint uses.
"""

from collections.abc import Iterator, Mapping
from reprlib import repr as short
from types import MappingProxyType
from typing import Any, Self

from llada_core.model.architectures.llada.names import NAMES
from llada_core.model.config import MOST_ROTATIONS, FieldRules, ModelConfig, refused
from llada_core.model.description import Attention, Description, FeedForward, Rotary
from llada_core.text.special_tokens import LLADA_TOKENS

_RULES = FieldRules(
    implemented={
        "activation_type": "silu",
        "alibi": False,
        "attention_dropout": 0.0,
        "attention_layer_norm": False,
        "bias_for_layer_norm": False,
        "block_group_size": 1,
        "block_type": "llama",
        "embedding_dropout": 0.0,
        "include_bias": False,
        "include_qkv_bias": False,
        "input_emb_norm": False,
        "layer_norm_type": "rms",
        "layer_norm_with_affine": True,
        "residual_dropout": 0.0,
        "rope": True,
        "rope_full_precision": True,
        "scale_logits": False,
    },
    # Null in these fields means the value of `include_bias`, which is false.
    nullable=frozenset({"bias_for_layer_norm", "include_qkv_bias"}),
    required=(
        "activation_type",
        "block_type",
        "d_model",
        "layer_norm_type",
        "max_sequence_length",
        "n_heads",
        "n_layers",
        "rope",
        "rope_theta",
        "rms_norm_eps",
        "vocab_size",
        "weight_tying",
    ),
    limits={
        "d_model": (1, 1 << 20),
        "embedding_size": (1, 1 << 24),
        "max_sequence_length": (1, 1 << 20),
        "mlp_hidden_size": (1, 1 << 24),
        "mlp_ratio": (1, 1 << 10),
        "n_heads": (1, 1 << 16),
        "n_kv_heads": (1, 1 << 16),
        "n_layers": (1, 10_000),
        "rms_norm_eps": (1e-12, 1),
        "rope_theta": (1, 1e12),
        "vocab_size": (1, 1 << 24),
    },
)


# What `AutoModel.from_pretrained(folder, trust_remote_code=True)` fetches.
_CODE = {
    auto_class: f"GSAI-ML/LLaDA-8B-Instruct--{name}"
    for auto_class, name in (
        ("AutoConfig", "configuration_llada.LLaDAConfig"),
        ("AutoModel", "modeling_llada.LLaDAModelLM"),
        ("AutoModelForCausalLM", "modeling_llada.LLaDAModelLM"),
    )
}


class LLaDAConfig(ModelConfig):
    """LLaDA's architecture. Defaults are LLaDA-8B's; a `config.json` must state what it relies on.

    Raises:
        UnsupportedCheckpointError: a field has a value that this implementation does not compute.
    """

    model_type = "llada"
    architecture = "LLaDAModelLM"
    rules = _RULES
    published_tokens = LLADA_TOKENS
    published_code = _CODE
    miniature = MappingProxyType(
        {"d_model": 64, "n_heads": 4, "n_layers": 2, "mlp_hidden_size": 96, "max_sequence_length": 512}
    )
    depth_field = "n_layers"
    vocabulary_fields = ("vocab_size", "embedding_size")
    # The published template adds the assistant's header where it must not.
    has_own_chat_format = True
    activation_type: str = "silu"
    alibi: bool = False
    alibi_bias_max: float = 8.0
    attention_dropout: float = 0.0
    attention_layer_norm: bool = False
    attention_layer_norm_with_affine: bool = True
    bias_for_layer_norm: bool | None = False
    block_group_size: int = 1
    block_type: str = "llama"
    d_model: int = 4096
    embedding_dropout: float = 0.0
    embedding_size: int | None = None
    flash_attention: bool = False
    include_bias: bool = False
    include_qkv_bias: bool | None = False
    init_cutoff_factor: float | None = None
    init_device: str | None = "meta"
    init_fn: str = "mitchell"
    init_std: float = 0.02
    input_emb_norm: bool = False
    layer_norm_type: str = "rms"
    layer_norm_with_affine: bool = True
    max_sequence_length: int = 4096
    mlp_hidden_size: int | None = None
    mlp_ratio: int = 4
    multi_query_attention: bool | None = None
    n_heads: int = 32
    n_kv_heads: int | None = None
    n_layers: int = 32
    precision: str | None = "amp_bf16"
    residual_dropout: float = 0.0
    rms_norm_eps: float = 1e-5
    rope: bool = True
    rope_full_precision: bool = True
    rope_theta: float = 500000.0
    scale_logits: bool = False
    use_cache: bool = False
    vocab_size: int = 126464
    weight_tying: bool = False

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any]) -> Self:
        """Read a `config.json`; see `ModelConfig.from_dict`.

        Raises:
            UnsupportedCheckpointError: `tie_word_embeddings`, which transformers adds, contradicts `weight_tying`.
        """
        fields = dict(config_dict)
        tying = fields.get("weight_tying")
        tied = fields.pop("tie_word_embeddings", None)
        if None not in (tied, tying) and tied != tying:
            raise refused("tie_word_embeddings", tied, f"be weight_tying ({short(tying)}), or absent")
        return super().from_dict(fields)

    @property
    def head_dim(self) -> int:
        return self.d_model // self.n_heads

    @property
    def hidden_size(self) -> int:
        """The width under the name that other libraries look for (`peft`, `accelerate`)."""
        return self.d_model

    def describe(self) -> Description:
        assert self.n_kv_heads is not None
        assert self.embedding_size is not None
        assert self.mlp_hidden_size is not None
        return Description(
            names=NAMES,
            width=self.d_model,
            vocab_size=self.vocab_size,
            num_columns=self.embedding_size,
            max_sequence_length=self.max_sequence_length,
            norm_eps=self.rms_norm_eps,
            attention=Attention(
                num_heads=self.n_heads,
                num_key_value_heads=self.n_kv_heads,
                head_dim=self.head_dim,
                rotary=Rotary(theta=self.rope_theta, dim=self.head_dim, is_float32=True),
            ),
            feed_forwards=(FeedForward(width=self.mlp_hidden_size),) * self.n_layers,
            has_tied_head=self.weight_tying,
        )

    def _fill_in(self) -> None:
        if self.n_kv_heads is None:
            self.n_kv_heads = 1 if self.multi_query_attention else self.n_heads
        if self.embedding_size is None:
            self.embedding_size = self.vocab_size
        if self.mlp_hidden_size is None:
            self.mlp_hidden_size = self.mlp_ratio * self.d_model

    def _size_rules(self) -> Iterator[tuple[str, bool]]:
        assert self.n_kv_heads is not None
        assert self.embedding_size is not None
        heads, kv_heads = self.n_heads, self.n_kv_heads
        yield f"d_model ({self.d_model}) must be a multiple of n_heads ({heads})", self.d_model % heads == 0
        yield f"n_heads ({heads}) must be a multiple of n_kv_heads ({kv_heads})", heads % kv_heads == 0
        yield f"d_model / n_heads ({self.d_model}/{heads}) must be even for RoPE", self.head_dim % 2 == 0
        yield (
            f"embedding_size ({self.embedding_size}) must be at least vocab_size ({self.vocab_size})",
            self.embedding_size >= self.vocab_size,
        )
        yield (
            f"max_sequence_length × d_model / n_heads / 2 ({self.max_sequence_length} × {self.head_dim // 2}) must be "
            f"at most {MOST_ROTATIONS:,}",
            self.max_sequence_length * self.head_dim // 2 <= MOST_ROTATIONS,
        )
