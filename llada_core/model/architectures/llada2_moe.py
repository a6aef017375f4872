"""LLaDA2.0 and LLaDA2.1 (inclusionAI/LLaDA2.0-mini, -flash): a block-causal mixture of experts, chosen by groups.

The published network reads neither `norm_topk_prob` (it always divides by the sum) nor `rotary_dim`.
"""

from collections.abc import Iterator
from dataclasses import replace

from llada_core.model.architectures.llada_moe import TOKENS
from llada_core.model.architectures.llama_layout import (
    LIMITS,
    NAMES,
    REQUIRED,
    PartlyRotatedConfig,
    StatedHeadDimConfig,
)
from llada_core.model.architectures.mixture_rules import group_rules, mixture_rules
from llada_core.model.config import FieldRules
from llada_core.model.description import Attention, Description, Experts, FeedForward, Groups
from llada_core.model.published_sampler import PublishedSampler
from llada_core.model.published_training import PublishedTraining

# The length of a block in training and in the published samplers; no field says it.
_BLOCK_LENGTH = 32

_RULES = FieldRules(
    implemented={
        "attention_dropout": 0.0,
        "embedding_dropout": 0.0,
        "hidden_act": "silu",
        "moe_router_enable_expert_bias": True,
        "norm_head": False,
        "norm_softmax": False,
        "output_dropout": 0.0,
        "router_dtype": "fp32",
        "score_function": "sigmoid",
        "use_rmsnorm": True,
        "use_sliding_window": False,
    },
    nullable=frozenset({"norm_head", "norm_softmax", "router_dtype"}),
    # The published class has defaults for all of them, such as biases, that no checkpoint uses.
    required=(
        *REQUIRED,
        *("first_k_dense_replace", "head_dim", "hidden_act", "intermediate_size", "moe_intermediate_size", "n_group"),
        *("moe_router_enable_expert_bias", "num_experts", "num_experts_per_tok", "num_shared_experts"),
        *("partial_rotary_factor", "routed_scaling_factor", "score_function", "topk_group", "use_bias", "use_qkv_bias"),
    ),
    limits={
        **LIMITS,
        **dict.fromkeys(("intermediate_size", "moe_intermediate_size"), (1, 1 << 24)),
        **dict.fromkeys(("n_group", "num_experts", "num_experts_per_tok", "topk_group"), (1, 1 << 12)),
        "first_k_dense_replace": (0, 10_000),
        "head_dim": (1, 1 << 16),
        "num_shared_experts": (1, 1 << 12),
        "partial_rotary_factor": (1e-3, 1),
        "routed_scaling_factor": (1e-6, 1e6),
    },
)

_NAMES = replace(
    NAMES,
    outside={**NAMES.outside, "embedding": "model.word_embeddings"},
    block={
        **NAMES.block,
        "query_key_value": "attention.query_key_value",
        "attention_out": "attention.dense",
        "query_norm": "attention.query_layernorm",
        "key_norm": "attention.key_layernorm",
        # The bias of the experts' probabilities lies beside the router's weight.
        "mixture": "mlp.gate",
        **{f"shared_{part}": f"mlp.shared_experts.{part}_proj" for part in ("gate", "up", "down")},
    },
    # As dFactory, which trains these models, writes them.
    stacks={f"mlp.experts.{part}_proj": (f"expert_{part}",) for part in ("gate", "up", "down")},
)


class LLaDA2MoeConfig(PartlyRotatedConfig, StatedHeadDimConfig):
    """LLaDA2's architecture; a `config.json` must state what it relies on.

    Attributes:
        max_window_layers: has an effect with a sliding window only.
        norm_topk_prob, rotary_dim: the published network reads neither.
        output_router_logits: what other programs return.
        first_k_dense_replace: so many layers, from the first on, have one feed-forward in place of a mixture.
        use_qk_norm: published files leave it out, and their tensors show that it is true.

    Raises:
        UnsupportedCheckpointError: a field has a value that this implementation does not compute.
    """

    model_type = "llada2_moe"
    architecture = "LLaDA2MoeModelLM"
    rules = _RULES
    published_tokens = TOKENS
    sampler = PublishedSampler(family="LLaDA2", confidence_threshold=0.95, steps_per_block=32)
    # dFactory's `noise_range`, and its mean over the masks of a sample.
    training = PublishedTraining(lowest=0.3, highest=0.8, weighs_share=True)
    names = _NAMES
    attention_dropout: float = 0.0
    embedding_dropout: float = 0.0
    first_k_dense_replace: int = 1
    intermediate_size: int = 64
    max_window_layers: int | None = None
    moe_intermediate_size: int = 16
    moe_router_enable_expert_bias: bool = True
    n_group: int = 2
    norm_head: bool | None = False
    norm_softmax: bool | None = False
    norm_topk_prob: bool | None = None
    num_experts: int = 8
    num_experts_per_tok: int = 2
    num_shared_experts: int = 1
    output_dropout: float = 0.0
    output_router_logits: bool | None = None
    rotary_dim: int | None = None
    routed_scaling_factor: float = 2.5
    router_dtype: str | None = "fp32"
    score_function: str = "sigmoid"
    topk_group: int = 1
    use_bias: bool = False
    use_qk_norm: bool = True
    use_qkv_bias: bool = False
    use_rmsnorm: bool = True
    use_sliding_window: bool = False

    def describe(self) -> Description:
        experts = Experts(
            num_experts=self.num_experts,
            num_chosen=self.num_experts_per_tok,
            width=self.moe_intermediate_size,
            shared_width=self.moe_intermediate_size * self.num_shared_experts,
            has_bias=True,
            groups=Groups(num_groups=self.n_group, num_chosen=self.topk_group, scale=self.routed_scaling_factor),
        )
        dense = FeedForward(width=self.intermediate_size)
        layers = [dense if depth < self.first_k_dense_replace else experts for depth in range(self.num_hidden_layers)]
        has_bias = {"query_key_value": self.use_qkv_bias, "attention_out": self.use_bias}
        biased = frozenset(role for role, is_biased in has_bias.items() if is_biased)
        return self._description(layers, biased=biased)

    def _attention(self) -> Attention:
        attention = super()._attention()
        return replace(attention, has_head_norms=self.use_qk_norm, is_fused=True, block_length=_BLOCK_LENGTH)

    def _size_rules(self) -> Iterator[tuple[str, bool]]:
        yield from super()._size_rules()
        yield from mixture_rules(self.num_hidden_layers, self.num_experts)
        yield from group_rules(self.num_experts, self.num_experts_per_tok, self.n_group, self.topk_group)
