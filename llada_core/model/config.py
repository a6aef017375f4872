"""Reading a `config.json`: what every architecture's config checks in the same way.

A published config has many fields that choose between variants of a code base. A file that asks for a variant that is
not implemented is refused: computed with the wrong arithmetic, it would silently generate bad text. Sizes are bounded
before anything is made in them: a file may come from strangers.
"""

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from reprlib import repr as short
from types import NoneType
from typing import Any, ClassVar, Self, dataclass_transform, get_args, get_origin

import torch

from llada_core.errors import UnsupportedCheckpointError, shorten
from llada_core.model.description import Description
from llada_core.model.published_sampler import LLADA_SAMPLER, PublishedSampler
from llada_core.model.published_training import LLADA_TRAINING, PublishedTraining
from llada_core.model.shape import ModelShape
from llada_core.text.special_tokens import PublishedTokens

# The rotary table has a number for every pair of a head at every position: at most half a gigabyte.
MOST_ROTATIONS = 1 << 26

_DTYPES = ("float32", "bfloat16", "float16")

# Fields that record how a file was produced, or say which class reads it, not what the network computes.
_DESCRIPTIVE = {"architectures", "auto_map", "transformers_version", "_name_or_path", "model_type"}
# Fields without effect on what a network computes: how other programs attend, cache, generate, train or classify.
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

_TYPE_RULES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    list: "a list",
    NoneType: "null",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRules:
    """What an architecture asks of the fields of a `config.json`.

    Attributes:
        implemented: field → the only value implemented; every one of them changes what the network computes.
        nullable: fields of `implemented` that may also be null, or absent.
        required: fields whose published default is not what the architecture's checkpoints use: a file must state them.
        limits: the smallest and the largest value of a field: many times those of any model, and nothing overflows
            within them.
    """

    implemented: Mapping[str, object]
    required: tuple[str, ...]
    limits: Mapping[str, tuple[float, float]]
    nullable: frozenset[str] = frozenset()


@dataclass_transform(kw_only_default=True)
@dataclass(kw_only=True)
class ModelConfig:
    """The config of an architecture, in the field names of its published `config.json`; a subclass is a dataclass.

    Attributes:
        architecture: the published class, which files name.
        model_type: the published name of the kind of model, for other programs; need not be unique.
        rules: what is asked of the fields.
        published_tokens: the special tokens of its published checkpoints.
        sampler: in what its published sampler differs from LLaDA's; `shape` adds what block-causal attention brings.
        training: in what its published training differs from LLaDA's.
        miniature: the fields of a tiny model of random weights.
        depth_field: the field with the number of layers.
        vocabulary_fields: the fields with the size of the vocabulary.
        published_code: where the authors' loading code is, as a saved config says in `auto_map`; empty if not known.
        has_own_chat_format: chats are written in LLaDA's format, in place of the template that a checkpoint has.
        dtype: of the weights in the files.
        bos_token_id, eos_token_id, eot_token_id, mask_token_id, pad_token_id: read by `resolve_special_tokens`.

    Raises:
        UnsupportedCheckpointError: a field has a value that this implementation does not compute.
    """

    architecture: ClassVar[str]
    model_type: ClassVar[str]
    rules: ClassVar[FieldRules]
    published_tokens: ClassVar[PublishedTokens]
    sampler: ClassVar[PublishedSampler] = LLADA_SAMPLER
    training: ClassVar[PublishedTraining] = LLADA_TRAINING
    miniature: ClassVar[Mapping[str, Any]] = {}
    depth_field: ClassVar[str]
    vocabulary_fields: ClassVar[tuple[str, ...]] = ("vocab_size",)
    published_code: ClassVar[Mapping[str, str]] = {}
    has_own_chat_format: ClassVar[bool] = False
    dtype: torch.dtype | None = None
    bos_token_id: int | list[int] | None = None
    eos_token_id: int | list[int] | None = None
    eot_token_id: int | list[int] | None = None
    mask_token_id: int | None = None
    pad_token_id: int | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        dataclass(kw_only=True)(cls)

    def __post_init__(self) -> None:
        self._check_types()
        self._fill_in()
        self._refuse_what_is_not_implemented()
        self._check_sizes()

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any]) -> Self:
        """Read a `config.json`; unlike the constructor, it assumes no default for a field that matters.

        Raises:
            UnsupportedCheckpointError: a required field is missing, or an unknown one is set.
        """
        missing = [name for name in cls.rules.required if config_dict.get(name) is None]
        if missing:
            raise UnsupportedCheckpointError(f"config.json: {', '.join(missing)} missing; not guessed")
        stated = {
            name: value
            for name, value in config_dict.items()
            if not _is_without_effect(name) and (value is not None or name in cls.rules.implemented)
        }
        older_name = stated.pop("torch_dtype", None)
        dtype = stated.get("dtype", older_name)
        if dtype not in (None, *_DTYPES):
            raise refused("dtype", dtype, f"be one of {', '.join(_DTYPES)}, or null")
        known = {field.name for field in fields(cls)}
        for name in sorted(stated.keys() - known):
            if stated[name] not in (None, False, 0):
                raise UnsupportedCheckpointError(
                    f"config.json: {shorten(name)} is {short(stated[name])}; this field is unknown, may change what "
                    "the network computes, and is not implemented"
                )
        values = {name: stated[name] for name in stated.keys() & known}
        return cls(**values | {"dtype": None if dtype is None else getattr(torch, dtype)})

    def to_dict(self) -> dict[str, Any]:
        """Return the content of a `config.json`: it states what it relies on, so defaults are in it; unset ids not."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            **{name: value for name, value in values.items() if value is not None or not name.endswith("_token_id")},
            "dtype": None if self.dtype is None else str(self.dtype).removeprefix("torch."),
            "architectures": [self.architecture],
            "model_type": self.model_type,
            **({"auto_map": dict(self.published_code)} if self.published_code else {}),
        }

    def save(self, folder: Path) -> None:
        """Write the `config.json` of a checkpoint."""
        (folder / "config.json").write_text(json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n")

    def describe(self) -> Description:
        """Return the network that the fields describe."""
        raise NotImplementedError

    @property
    def shape(self) -> ModelShape:
        """What the code around the network depends on."""
        shape = self.describe().shape
        sampler = self.sampler if shape.block_length is None else self.sampler.block_by_block()
        return replace(shape, sampler=sampler, training=self.training)

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor of a checkpoint, by its published name."""
        return self.describe().tensor_shapes()

    def cut(self, num_layers: int) -> Self:
        """Return the config of the same model with fewer layers: its last ones."""
        shorter = copy.deepcopy(self)
        setattr(shorter, self.depth_field, num_layers)
        return shorter

    def _fill_in(self) -> None:
        """Apply the published rules for fields left null."""

    def _size_rules(self) -> Iterator[tuple[str, bool]]:
        """Yield what the sizes must fulfil together, and whether they do."""
        yield from ()

    def _check_types(self) -> None:
        for name, annotation in ((field.name, field.type) for field in fields(self) if field.name != "dtype"):
            value = getattr(self, name)
            # JSON writes 1.0 as 1; and Python takes True for 1.
            types = tuple(get_origin(type_) or type_ for type_ in get_args(annotation) or (annotation,))
            if type(value) not in types and not (type(value) is int and float in types):
                *rules, last = (_TYPE_RULES[type_] for type_ in types)
                raise refused(name, value, f"be {', '.join(rules)}{' or ' if rules else ''}{last}")

    def _refuse_what_is_not_implemented(self) -> None:
        for name, implemented in self.rules.implemented.items():
            value = getattr(self, name)
            is_unset = value is None and name in self.rules.nullable
            if value != implemented and not is_unset:
                raise UnsupportedCheckpointError(
                    f"config.json: {name} is {short(value)}; only {implemented!r} is implemented"
                )

    def _check_sizes(self) -> None:
        for name, (least, most) in self.rules.limits.items():
            # NaN fails as well.
            if not least <= getattr(self, name) <= most:
                raise refused(name, getattr(self, name), f"be from {least:,} to {most:,}")
        for rule, is_kept in self._size_rules():
            if not is_kept:
                raise UnsupportedCheckpointError(f"config.json: {rule}")


def refused(name: str, value: object, rule: str) -> UnsupportedCheckpointError:
    """Return the error for a field whose value breaks a rule."""
    return UnsupportedCheckpointError(f"config.json: {name} is {short(value)}; it must {rule}")


def _is_without_effect(name: str) -> bool:
    return name in _WITHOUT_EFFECT | _DESCRIPTIVE or name.startswith(_TRAINERS_PREFIX)
