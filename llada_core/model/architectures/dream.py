"""Dream (Dream-org/Dream-v0-7B, DiffuCoder): Qwen2.5's network, in which a position predicts the token after it."""

from llada_core.model.architectures.llama_layout import LIMITS, REQUIRED, LlamaLayoutConfig
from llada_core.model.config import FieldRules
from llada_core.model.description import Description, FeedForward
from llada_core.model.published_sampler import PublishedSampler, PublishedSetting
from llada_core.model.published_training import PublishedTraining
from llada_core.text.special_tokens import PublishedTokens

_RULES = FieldRules(
    implemented={"attention_dropout": 0.0, "hidden_act": "silu", "use_sliding_window": False},
    required=(*REQUIRED, "hidden_act", "intermediate_size"),
    limits={**LIMITS, "intermediate_size": (1, 1 << 24)},
)

_TOKENS = PublishedTokens(
    mask="<|mask|>",
    eos="<|endoftext|>",
    eot="<|im_end|>",
    vocab_size=152064,
    ids={"<|endoftext|>": 151643, "<|im_end|>": 151645, "<|mask|>": 151666},
)

_ALGORITHMS = {"origin": "origin", "maskgit_plus": "low_confidence", "topk_margin": "margin", "entropy": "entropy"}
_SAMPLER = PublishedSampler(
    family="Dream",
    schedule="timestep",
    defaults={"remasking": "origin"},
    scores_drawn=True,
    reads={
        "alg": PublishedSetting(setting="remasking", names=_ALGORITHMS),
        "alg_temp": PublishedSetting(setting="remasking_temperature"),
        "eps": PublishedSetting(setting="eps", least=1e-9, most=0.999),
        "temperature": PublishedSetting(setting="temperature"),
        "top_k": PublishedSetting(setting="top_k", is_whole=True),
        "top_p": PublishedSetting(setting="top_p", most=1.0),
    },
)


class DreamConfig(LlamaLayoutConfig):
    """Dream's architecture; a `config.json` must state what it relies on.

    Attributes:
        max_window_layers: has an effect with a sliding window only.

    Raises:
        UnsupportedCheckpointError: a field has a value that this implementation does not compute.
    """

    model_type = "Dream"
    architecture = "DreamModel"
    rules = _RULES
    published_tokens = _TOKENS
    sampler = _SAMPLER
    # The published training's `cart[geo_p:0.3]`.
    training = PublishedTraining(context_weight=0.3)
    attention_dropout: float = 0.0
    intermediate_size: int = 96
    max_window_layers: int = 28
    use_sliding_window: bool = False

    def describe(self) -> Description:
        feed_forwards = [FeedForward(width=self.intermediate_size)] * self.num_hidden_layers
        return self._description(feed_forwards, biased=frozenset({"query", "key", "value"}), predicts_next=True)
