"""The architecture of a checkpoint, in the field names of the published `config.json`.

Most of the published fields choose between variants of the OLMo code base that no LLaDA checkpoint uses. A file that
asks for such a variant is refused: computed with the wrong arithmetic, it would silently generate bad text. Sizes are
bounded before anything is made in them: a file may come from strangers.
"""

from collections.abc import Mapping
from reprlib import repr as short
from types import NoneType
from typing import Any, get_args

from transformers import PreTrainedConfig

from llada_core.errors import UnsupportedCheckpointError, shorten
from llada_core.model.architectures.llada.names import tensor_name
from llada_core.model.shape import ModelShape

# field → the only value implemented; every field here changes what the network computes.
_IMPLEMENTED: dict[str, object] = {
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
}

# Null in these fields means the value of `include_bias`, which is false.
_NULLABLE = ("bias_for_layer_norm", "include_qkv_bias")

# Fields whose default in the published ModelConfig is not what LLaDA-8B uses: a file must state them.
_REQUIRED = (
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
)

# The smallest and the largest value of a field: many times those of any model, and nothing overflows within them.
_LIMITS: Mapping[str, tuple[float, float]] = {
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
}
# The rotary table has a number for every pair of a head at every position: at most half a gigabyte.
_MOST_ROTATIONS = 1 << 26

_DTYPES = ("float32", "bfloat16", "float16")

# Fields that record how a file was produced, not what the network computes.
_DESCRIPTIVE = {"auto_map", "transformers_version", "_name_or_path", "model_type"}
# Fields without effect on what this network computes: how other programs attend, cache, generate, train or classify.
# Older versions of transformers wrote all of them.
_WITHOUT_EFFECT = {
    *("_attn_implementation", "_attn_implementation_autoset", "attn_implementation", "use_cache", "pretraining_tp"),
    *("gradient_checkpointing", "torchscript", "use_bfloat16", "tf_legacy_loss", "chunk_size_feed_forward"),
    *("return_dict", "return_dict_in_generate", "output_attentions", "output_hidden_states", "output_scores"),
    *("max_length", "min_length", "max_new_tokens", "do_sample", "early_stopping", "num_beams", "num_beam_groups"),
    *("diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty"),
    *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences"),
    *("forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values", "exponential_decay_length_penalty"),
    *("suppress_tokens", "begin_suppress_tokens", "decoder_start_token_id", "sep_token_id", "tokenizer_class"),
    *("id2label", "label2id", "num_labels", "problem_type", "task_specific_params", "finetuning_task", "prefix"),
    *("is_decoder", "is_encoder_decoder", "add_cross_attention", "cross_attention_hidden_size", "pruned_heads"),
    *("tie_encoder_decoder",),
}
# The marks of trainers.
_TRAINERS_PREFIX = "unsloth_"

# Read by `resolve_special_tokens`.
_TOKEN_IDS = {"bos_token_id", "eos_token_id", "eot_token_id", "pad_token_id"}

_TYPE_RULES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


class LLaDAConfig(PreTrainedConfig):
    """LLaDA's architecture. Defaults are LLaDA-8B's; a `config.json` must state what it relies on.

    Raises:
        UnsupportedCheckpointError: a field has a value that this implementation does not compute.
    """

    model_type = "llada"
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
    mask_token_id: int | None = None
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

    def __post_init__(self, **kwargs: Any) -> None:
        self._check_types()
        # The published rules for fields left null.
        if self.n_kv_heads is None:
            self.n_kv_heads = 1 if self.multi_query_attention else self.n_heads
        if self.embedding_size is None:
            self.embedding_size = self.vocab_size
        if self.mlp_hidden_size is None:
            self.mlp_hidden_size = self.mlp_ratio * self.d_model
        super().__post_init__(**kwargs)
        self._refuse_what_is_not_implemented()
        self._check_sizes()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Read a `config.json`; unlike the constructor, it assumes no default for a field that matters.

        Raises:
            UnsupportedCheckpointError: a required field is missing, or an unknown one is set.
        """
        missing = [name for name in _REQUIRED if config_dict.get(name) is None]
        if missing:
            raise UnsupportedCheckpointError(f"config.json: {', '.join(missing)} missing; not guessed")
        fields = {
            name: value
            for name, value in config_dict.items()
            if not _is_without_effect(name) and (value is not None or name in _IMPLEMENTED)
        }
        tied = fields.pop("tie_word_embeddings", fields["weight_tying"])
        if tied != fields["weight_tying"]:
            raise UnsupportedCheckpointError(
                f"config.json: tie_word_embeddings is {short(tied)}; it must be weight_tying "
                f"({short(fields['weight_tying'])}), or absent"
            )
        older_name = fields.pop("torch_dtype", None)
        dtype = fields.get("dtype", older_name)
        if dtype not in (None, *_DTYPES):
            raise _refused("dtype", dtype, f"be one of {', '.join(_DTYPES)}, or null")
        known = _TOKEN_IDS | set(cls.__dataclass_fields__)
        for name in sorted(fields.keys() - known):
            if fields[name] not in (None, False, 0):
                raise UnsupportedCheckpointError(
                    f"config.json: {shorten(name)} is {short(fields[name])}; this field is unknown, may change what "
                    "the network computes, and is not implemented"
                )
        return super().from_dict({name: fields[name] for name in fields.keys() & known} | {"dtype": dtype}, **kwargs)

    def to_diff_dict(self) -> dict[str, Any]:
        """Return every field, defaults included: a saved `config.json` states what it relies on."""
        return self.to_dict()

    @property
    def head_dim(self) -> int:
        return self.d_model // self.n_heads

    @property
    def hidden_size(self) -> int:
        """The width under the name that other libraries look for (`peft`, `accelerate`)."""
        return self.d_model

    @property
    def shape(self) -> ModelShape:
        """The sizes that the code around the network depends on."""
        assert self.n_kv_heads is not None
        return ModelShape(
            num_layers=self.n_layers,
            num_key_value_heads=self.n_kv_heads,
            head_dim=self.head_dim,
            vocab_size=self.vocab_size,
            max_sequence_length=self.max_sequence_length,
        )

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor of a checkpoint, by its published name."""
        assert self.n_kv_heads is not None
        assert self.embedding_size is not None
        assert self.mlp_hidden_size is not None
        width, kv_width, mlp_width = self.d_model, self.n_kv_heads * self.head_dim, self.mlp_hidden_size
        block = {
            "attention_norm": (width,),
            "query": (width, width),
            "key": (kv_width, width),
            "value": (kv_width, width),
            "attention_out": (width, width),
            "feed_forward_norm": (width,),
            "gate": (mlp_width, width),
            "up": (mlp_width, width),
            "down": (width, mlp_width),
        }
        shapes: dict[str, tuple[int, ...]] = {
            tensor_name("embedding"): (self.embedding_size, width),
            tensor_name("final_norm"): (width,),
        }
        for depth in range(self.n_layers):
            shapes |= {tensor_name(role, depth): shape for role, shape in block.items()}
        if not self.weight_tying:
            shapes[tensor_name("head")] = (self.embedding_size, width)
        return shapes

    def _check_types(self) -> None:
        for name, annotation in LLaDAConfig.__annotations__.items():
            value = getattr(self, name)
            # JSON writes 1.0 as 1; and Python takes True for 1.
            types = get_args(annotation) or (annotation,)
            if type(value) not in types and not (type(value) is int and float in types):
                rules = [_TYPE_RULES[type_] for type_ in types if type_ is not NoneType]
                raise _refused(name, value, f"be {rules[0]}{' or null' if NoneType in types else ''}")

    def _refuse_what_is_not_implemented(self) -> None:
        for name, implemented in _IMPLEMENTED.items():
            value = getattr(self, name)
            is_unset = value is None and name in _NULLABLE
            if value != implemented and not is_unset:
                raise UnsupportedCheckpointError(
                    f"config.json: {name} is {short(value)}; only {implemented!r} is implemented"
                )

    def _check_sizes(self) -> None:
        assert self.n_kv_heads is not None
        assert self.embedding_size is not None
        for name, (least, most) in _LIMITS.items():
            # NaN fails as well.
            if not least <= getattr(self, name) <= most:
                raise _refused(name, getattr(self, name), f"be from {least:,} to {most:,}")
        heads, kv_heads = self.n_heads, self.n_kv_heads
        rules = {
            f"d_model ({self.d_model}) must be a multiple of n_heads ({heads})": self.d_model % heads == 0,
            f"n_heads ({heads}) must be a multiple of n_kv_heads ({kv_heads})": heads % kv_heads == 0,
            f"d_model / n_heads ({self.d_model}/{heads}) must be even for RoPE": self.head_dim % 2 == 0,
            f"embedding_size ({self.embedding_size}) must be at least vocab_size ({self.vocab_size})": (
                self.embedding_size >= self.vocab_size
            ),
            f"max_sequence_length × d_model / n_heads / 2 ({self.max_sequence_length} × {self.head_dim // 2}) must be "
            f"at most {_MOST_ROTATIONS:,}": self.max_sequence_length * self.head_dim // 2 <= _MOST_ROTATIONS,
        }
        for rule, is_kept in rules.items():
            if not is_kept:
                raise UnsupportedCheckpointError(f"config.json: {rule}")


def _refused(name: str, value: object, rule: str) -> UnsupportedCheckpointError:
    return UnsupportedCheckpointError(f"config.json: {name} is {short(value)}; it must {rule}")


def _is_without_effect(name: str) -> bool:
    return name in _WITHOUT_EFFECT | _DESCRIPTIVE or name.startswith(_TRAINERS_PREFIX)
