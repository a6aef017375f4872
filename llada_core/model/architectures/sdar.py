"""SDAR (JetLM/SDAR-1.7B to 8B, and TraDo): Qwen3's network with block-causal attention."""

from dataclasses import replace

from llada_core.model.architectures.llama_layout import LIMITS, REQUIRED, StatedHeadDimConfig
from llada_core.model.config import FieldRules
from llada_core.model.description import Attention, Description, FeedForward
from llada_core.model.published_sampler import PublishedSampler
from llada_core.text.special_tokens import PublishedTokens

_RULES = FieldRules(
    implemented={"attention_dropout": 0.0, "hidden_act": "silu", "use_sliding_window": False},
    required=(*REQUIRED, "attention_bias", "block_size", "head_dim", "hidden_act", "intermediate_size"),
    limits={**LIMITS, "block_size": (1, 1 << 20), "head_dim": (1, 1 << 16), "intermediate_size": (1, 1 << 24)},
)

_TOKENS = PublishedTokens(
    mask="<|MASK|>",
    eos="<|endoftext|>",
    eot="<|im_end|>",
    vocab_size=151936,
    ids={"<|endoftext|>": 151643, "<|im_end|>": 151645, "<|MASK|>": 151669},
)


class SDARConfig(StatedHeadDimConfig):
    """SDAR's architecture; a `config.json` must state what it relies on.

    Attributes:
        block_size: the length of a block, unless a request names another.
        fuse_cross_entropy: has an effect in training only.
        max_window_layers: has an effect with a sliding window only.

    Raises:
        UnsupportedCheckpointError: a field has a value that this implementation does not compute.
    """

    model_type = "sdar"
    architecture = "SDARForCausalLM"
    rules = _RULES
    published_tokens = _TOKENS
    sampler = PublishedSampler(family="SDAR", confidence_threshold=0.85)
    attention_bias: bool = False
    attention_dropout: float = 0.0
    block_size: int = 4
    fuse_cross_entropy: bool | None = None
    intermediate_size: int = 96
    max_window_layers: int | None = None
    use_sliding_window: bool = False

    def describe(self) -> Description:
        biased = {"query", "key", "value", "attention_out"} if self.attention_bias else set()
        feed_forwards = [FeedForward(width=self.intermediate_size)] * self.num_hidden_layers
        return self._description(feed_forwards, biased=frozenset(biased))

    def _attention(self) -> Attention:
        return replace(super()._attention(), has_head_norms=True, block_length=self.block_size)
