"""The layout of Llama's checkpoints, which most relatives of LLaDA have: field names, tensor names and layers."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

from llada_core.model.config import MOST_ROTATIONS, ModelConfig
from llada_core.model.description import Attention, Description, Experts, FeedForward, Rotary, TensorNames

NAMES = TensorNames(
    outside={"embedding": "model.embed_tokens", "final_norm": "model.norm", "head": "lm_head"},
    blocks="model.layers",
    block={
        "attention_norm": "input_layernorm",
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "attention_out": "self_attn.o_proj",
        "query_norm": "self_attn.q_norm",
        "key_norm": "self_attn.k_norm",
        "feed_forward_norm": "post_attention_layernorm",
        "gate": "mlp.gate_proj",
        "up": "mlp.up_proj",
        "down": "mlp.down_proj",
        "mixture": "mlp",
        "router": "mlp.gate",
        "expert_gate": "mlp.experts.{}.gate_proj",
        "expert_up": "mlp.experts.{}.up_proj",
        "expert_down": "mlp.experts.{}.down_proj",
        "shared_gate": "shared_expert.gate_proj",
        "shared_up": "shared_expert.up_proj",
        "shared_down": "shared_expert.down_proj",
    },
    # As dInfer's `fuse_moe` writes them.
    stacks={"mlp.w1": ("expert_gate", "expert_up"), "mlp.w2": ("expert_down",)},
)

# See `FieldRules`.
REQUIRED = (
    "hidden_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "rms_norm_eps",
    "rope_theta",
    "tie_word_embeddings",
    "vocab_size",
)
LIMITS = {
    "hidden_size": (1, 1 << 20),
    "max_position_embeddings": (1, 1 << 20),
    "num_attention_heads": (1, 1 << 16),
    "num_hidden_layers": (1, 10_000),
    "num_key_value_heads": (1, 1 << 16),
    "rms_norm_eps": (1e-12, 1),
    "rope_theta": (1, 1e12),
    "vocab_size": (1, 1 << 24),
}


class LlamaLayoutConfig(ModelConfig):
    """The fields that all configs of this layout have; a file must state those that matter.

    Attributes:
        names: role → published name.
        initializer_range: has an effect on random weights only.
    """

    names: ClassVar[TensorNames] = NAMES
    depth_field = "num_hidden_layers"
    hidden_act: str = "silu"
    hidden_size: int = 64
    initializer_range: float = 0.02
    max_position_embeddings: int = 512
    num_attention_heads: int = 4
    num_hidden_layers: int = 2
    num_key_value_heads: int = 2
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    tie_word_embeddings: bool = False
    vocab_size: int = 160

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    def _attention(self) -> Attention:
        return Attention(
            num_heads=self.num_attention_heads,
            num_key_value_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            rotary=Rotary(theta=self.rope_theta, dim=self._rotated(), is_float32=False),
        )

    def _rotated(self) -> int:
        """How many features of a head are rotated."""
        return self.head_dim

    def _description(
        self,
        feed_forwards: Sequence[FeedForward | Experts],
        *,
        biased: frozenset[str] = frozenset(),
        predicts_next: bool = False,
    ) -> Description:
        return Description(
            names=self.names,
            width=self.hidden_size,
            vocab_size=self.vocab_size,
            num_columns=self.vocab_size,
            max_sequence_length=self.max_position_embeddings,
            norm_eps=self.rms_norm_eps,
            attention=self._attention(),
            feed_forwards=tuple(feed_forwards),
            has_tied_head=self.tie_word_embeddings,
            biased=biased,
            predicts_next=predicts_next,
        )

    def _size_rules(self) -> Iterator[tuple[str, bool]]:
        heads, kv_heads = self.num_attention_heads, self.num_key_value_heads
        yield from self._head_width_rules()
        yield (
            f"num_attention_heads ({heads}) must be a multiple of num_key_value_heads ({kv_heads})",
            heads % kv_heads == 0,
        )
        yield (
            f"max_position_embeddings × half the width of a head ({self.max_position_embeddings} × "
            f"{self.head_dim // 2}) must be at most {MOST_ROTATIONS:,}",
            self.max_position_embeddings * self.head_dim // 2 <= MOST_ROTATIONS,
        )

    def _head_width_rules(self) -> Iterator[tuple[str, bool]]:
        width, heads = self.hidden_size, self.num_attention_heads
        yield f"hidden_size ({width}) must be a multiple of num_attention_heads ({heads})", width % heads == 0
        yield (
            f"hidden_size / num_attention_heads ({width}/{heads}) must be even for RoPE",
            self.head_dim % 2 == 0,
        )


class StatedHeadDimConfig(LlamaLayoutConfig):
    """The same with a field for the width of a head: all heads together need not be as wide as hidden states."""

    head_dim: int = 16

    def _head_width_rules(self) -> Iterator[tuple[str, bool]]:
        yield f"head_dim ({self.head_dim}) must be even for RoPE", self.head_dim % 2 == 0


class PartlyRotatedConfig(LlamaLayoutConfig):
    """The same with rotary embedding of a part of each head, its first features."""

    partial_rotary_factor: float = 1.0

    def _rotated(self) -> int:
        return int(self.head_dim * self.partial_rotary_factor)

    def _size_rules(self) -> Iterator[tuple[str, bool]]:
        yield from super()._size_rules()
        yield (
            f"partial_rotary_factor × the width of a head ({self.partial_rotary_factor} × {self.head_dim}) must be "
            "even for RoPE",
            self._rotated() > 0 and self._rotated() % 2 == 0,
        )
