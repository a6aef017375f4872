"""LLaDA-MoE (inclusionAI/LLaDA-MoE-7B-A1B): a mixture of experts with norms on queries and keys.

Its `model_type` is LLaDA's. The published class has sentinels for defaults: a file must state what it relies on.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Self

from llada_core.model.architectures.llama_layout import LIMITS, REQUIRED, PartlyRotatedConfig
from llada_core.model.architectures.mixture_rules import mixture_rules
from llada_core.model.config import FieldRules
from llada_core.model.description import Attention, Description, Experts, FeedForward
from llada_core.model.published_sampler import PublishedSampler
from llada_core.text.special_tokens import PublishedTokens

_RULES = FieldRules(
    implemented={
        "attention_bias": False,
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "moe_router_score_function": "softmax",
    },
    nullable=frozenset({"moe_router_score_function"}),
    required=(
        *REQUIRED,
        "expert_intermediate_size",
        "hidden_act",
        "moe_layer_freq",
        "moe_router_enable_expert_bias",
        "num_experts",
        "num_experts_per_tok",
        "partial_rotary_factor",
        "qk_layernorm",
    ),
    limits={
        **LIMITS,
        "expert_intermediate_size": (1, 1 << 24),
        "num_experts": (1, 1 << 12),
        "num_experts_per_tok": (1, 1 << 12),
        "partial_rotary_factor": (1e-3, 1),
    },
)

TOKENS = PublishedTokens(
    mask="<|mask|>",
    eos="<|endoftext|>",
    eot="<|role_end|>",
    vocab_size=157184,
    ids={"<|endoftext|>": 156892, "<|mask|>": 156895},
)


class LLaDAMoEConfig(PartlyRotatedConfig):
    """LLaDA-MoE's architecture; a `config.json` must state what it relies on.

    Attributes:
        norm_topk_prob, routed_scaling_factor: the published network reads neither.
        router_aux_loss_coef: has an effect in training only.
        moe_layer_freq: for each layer, 1 for a mixture of experts and 0 for one feed-forward.

    Raises:
        UnsupportedCheckpointError: a field has a value that this implementation does not compute.
    """

    model_type = "llada"
    architecture = "LLaDAMoEModelLM"
    rules = _RULES
    published_tokens = TOKENS
    sampler = PublishedSampler(family="LLaDA-MoE")
    attention_bias: bool = False
    attention_dropout: float = 0.0
    dense_intermediate_size: int | None = None
    expert_intermediate_size: int = 16
    moe_layer_freq: list[int] | None = None
    moe_router_enable_expert_bias: bool = False
    moe_router_score_function: str | None = "softmax"
    norm_topk_prob: bool | None = None
    num_experts: int = 8
    num_experts_per_tok: int = 2
    qk_layernorm: bool = True
    routed_scaling_factor: float | None = None
    router_aux_loss_coef: float = 0.01
    shared_expert_intermediate_size: int | None = None

    def describe(self) -> Description:
        experts = Experts(
            num_experts=self.num_experts,
            num_chosen=self.num_experts_per_tok,
            width=self.expert_intermediate_size,
            balance_weight=self.router_aux_loss_coef,
            shared_width=self.shared_expert_intermediate_size,
            has_bias=self.moe_router_enable_expert_bias,
        )
        assert self.moe_layer_freq is not None
        return self._description(
            [experts if is_mixture else FeedForward(width=self.dense_width) for is_mixture in self.moe_layer_freq]
        )

    @property
    def dense_width(self) -> int:
        """The hidden features of a feed-forward that is no mixture."""
        assert self.dense_intermediate_size is not None
        return self.dense_intermediate_size

    def _attention(self) -> Attention:
        return replace(super()._attention(), has_head_norms=self.qk_layernorm)

    def cut(self, num_layers: int) -> Self:
        shorter = super().cut(num_layers)
        assert self.moe_layer_freq is not None
        shorter.moe_layer_freq = self.moe_layer_freq[-num_layers:]
        return shorter

    def _fill_in(self) -> None:
        if self.moe_layer_freq is None:
            self.moe_layer_freq = [1] * self.num_hidden_layers

    def _size_rules(self) -> Iterator[tuple[str, bool]]:
        yield from super()._size_rules()
        layers = self.moe_layer_freq or []
        yield (
            f"moe_layer_freq must have a 0 or 1 for each of the {self.num_hidden_layers} layers (num_hidden_layers)",
            len(layers) == self.num_hidden_layers and all(type(value) is int and value in (0, 1) for value in layers),
        )
        yield from mixture_rules(self.num_hidden_layers, self.num_experts)
        yield (
            f"num_experts_per_tok ({self.num_experts_per_tok}) must be at most num_experts ({self.num_experts})",
            self.num_experts_per_tok <= self.num_experts,
        )
        widths = {
            "shared_expert_intermediate_size": self.shared_expert_intermediate_size,
            "dense_intermediate_size": self.dense_intermediate_size if 0 in layers else None,
        }
        for name, width in widths.items():
            yield f"{name} ({width}) must be from 1 to {1 << 24:,}", width is None or 1 <= width <= 1 << 24
        yield (
            "dense_intermediate_size missing, and moe_layer_freq has a 0",
            0 not in layers or self.dense_intermediate_size is not None,
        )
