"""iLLaDA (GSAI-ML/iLLaDA-8B): LLaDA's successor in Llama's layout, with grouped heads and a tied head."""

from llada_core.model.architectures.llama_layout import LIMITS, REQUIRED, LlamaLayoutConfig
from llada_core.model.config import FieldRules
from llada_core.model.description import Description, FeedForward
from llada_core.model.published_sampler import PublishedSampler
from llada_core.text.special_tokens import PublishedTokens

_RULES = FieldRules(
    # With a `layer_norm_eps`, the published code has LayerNorm in place of RMSNorm.
    implemented={"attention_dropout": 0.0, "hidden_act": "silu", "layer_norm_eps": None, "resid_pdrop": 0.0},
    required=(*REQUIRED, "attention_bias", "hidden_act", "intermediate_size", "mlp_bias"),
    limits={**LIMITS, "intermediate_size": (1, 1 << 24)},
)

_TOKENS = PublishedTokens(mask="<[MASK]>", vocab_size=155136, ids={"<[MASK]>": 5})


class ILLaDAConfig(LlamaLayoutConfig):
    """iLLaDA's architecture; a `config.json` must state what it relies on.

    Raises:
        UnsupportedCheckpointError: a field has a value that this implementation does not compute.
    """

    model_type = "illada"
    architecture = "ILLaDAForCausalLM"
    rules = _RULES
    published_tokens = _TOKENS
    sampler = PublishedSampler(family="iLLaDA", settings=frozenset({"end_thinking"}))
    attention_bias: bool = False
    attention_dropout: float = 0.0
    intermediate_size: int = 96
    layer_norm_eps: float | None = None
    mlp_bias: bool = False
    resid_pdrop: float = 0.0

    def describe(self) -> Description:
        biased = {
            *(("query", "key", "value", "attention_out") if self.attention_bias else ()),
            *(("gate", "up", "down") if self.mlp_bias else ()),
        }
        feed_forwards = [FeedForward(width=self.intermediate_size)] * self.num_hidden_layers
        return self._description(feed_forwards, biased=frozenset(biased))
