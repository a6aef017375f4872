"""The starting point of a run: its options, its stage, and a model, with random weights or from a checkpoint."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from llada_core.checkpoint.generation_config import copy_generation_config
from llada_core.checkpoint.load import Checkpoint, load_checkpoint, read_tokenizer
from llada_core.checkpoint.save import copy_tokenizer
from llada_core.model.config import ModelConfig
from llada_core.model.network import Network
from llada_core.model.registry import find_architecture
from llada_core.model.shape import ModelShape
from llada_core.sampling.model_settings import MOST_IN_BLOCK
from llada_core.text.special_tokens import SpecialTokens, resolve_special_tokens
from llada_core.text.tokenizer import Tokenizer
from training.errors import DataError, TrainingError
from training.options.fields import LoraParams, RandomWeights, TrainingOptions
from training.run.adapter import read_adapter
from training.run.quantized_base import quantize_linears
from training.stages.base import Stage
from training.stages.table import stage_of


@dataclass(frozen=True, slots=True)
class StartModel:
    """A model without its weights.

    Attributes:
        folder: the checkpoint that has the weights, None for random ones.
    """

    config: ModelConfig
    tokenizer: Tokenizer
    tokenizer_file: Path
    special_tokens: SpecialTokens
    folder: Path | None

    def save(self, folder: Path) -> None:
        """Write config and tokenizer: enough for a dry run to start from."""
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save(folder)
        self.copy_files(folder)

    def copy_files(self, folder: Path) -> None:
        """Copy the tokenizer with its chat format and, of a checkpoint, the sampler's defaults."""
        copy_tokenizer(self.tokenizer_file, folder)
        if self.folder is not None:
            copy_generation_config(self.folder, folder)


@dataclass(frozen=True, slots=True)
class Start:
    """Everything that decides a run before its data is read.

    Attributes:
        token_ids: tokens whose rows in the embedding and the head are trained beside adapters.
    """

    options: TrainingOptions
    stage: Stage
    model: StartModel
    token_ids: tuple[int, ...] = ()

    @property
    def lora(self) -> LoraParams | None:
        """The adapters to train; None to train all weights."""
        lora = self.options.lora
        return None if lora is None else replace(lora, token_ids=self.token_ids)

    def build_model(self, *, device: torch.device, on_meta: bool = False) -> Network:
        """The model, ready to train: in float32, or with LoRA frozen in `--dtype` under float32 adapters.

        Args:
            device: where a base of `--base-dtype` is quantized, layer by layer; all else is on the CPU.
            on_meta: without weights, for a process that receives its share of them from another one.
        """
        options, lora = self.options, self.lora
        dtype = options.dtype if lora else "float32"
        if on_meta:
            with torch.device("meta"):
                model = Network(self.model.config).to(getattr(torch, dtype))
        elif self.model.folder is None:
            torch.manual_seed(options.seed)
            model = Network(self.model.config)
        else:
            model = load_checkpoint(self.model.folder, dtype=dtype)
        if lora:
            # Imported here: `peft` takes seconds, and most runs train all weights.
            from training.run.lora import add_adapters, load_adapters

            if options.base_dtype is not None:
                quantize_linears(model.blocks, options.base_dtype, device=device)
            add_adapters(model, lora, seed=options.seed)
            if options.adapter is not None and not on_meta:
                load_adapters(model, options.adapter)
        if options.activation_checkpointing:
            model.recompute_blocks()
        model.special_tokens = self.model.special_tokens
        model.shape = with_blocks(model.shape, options)
        return model.train()


# The length of LLaDA's own training.
_LONGEST_DEFAULT = 4096


def find_start(options: TrainingOptions, *, log: Callable[[str], None], with_weights: bool = True) -> Start:
    """Read config, tokenizer and special tokens. Where they differ, the tokenizer takes precedence and `log` is called.

    Args:
        with_weights: False does not download the weights of a hub id.

    Raises:
        DataError: the tokenizer lacks special tokens that LLaDA or the stage needs.
        TrainingError: samples longer than the model's positions; adapters that cannot be trained further.
    """
    if options.random_weights is not None:
        model = _untrained(options.random_weights, log)
    else:
        assert options.model_name_or_path is not None
        model = _from_checkpoint(options.model_name_or_path, with_weights=with_weights)
    shape = with_blocks(model.config.shape, options)
    if options.max_length is None:
        default = min(_LONGEST_DEFAULT, shape.max_sequence_length)
        # In whole blocks, as rows are padded to.
        options = options.model_copy(update={"max_length": default - default % (shape.block_length or 1)})
    targets = _adapted(options.lora_target_modules, model.config)
    options = options.model_copy(update={"lora_target_modules": targets})
    token_ids = _ids_of(options.train_tokens, model.tokenizer)
    if options.adapter is not None:
        decided, token_ids = read_adapter(options.adapter, model.config)
        options = options.model_copy(update=decided)
    stage = stage_of(options, shape)
    _require_fitting_lengths(options, stage, shape.max_sequence_length)
    # The tokens of LLaDA's own chat format; a template brings its own.
    required = () if model.tokenizer.has_template else stage.required_tokens
    missing = [token for token in required if model.tokenizer.token_to_id(token) is None]
    if missing:
        raise DataError(f"the tokenizer has no {', '.join(missing)}, which this stage's chat template needs")
    return Start(options, stage, model, token_ids)


def with_blocks(shape: ModelShape, options: TrainingOptions) -> ModelShape:
    """The shape with blocks of `--block-length`."""
    if options.block_length is None:
        return shape
    if shape.block_length is None:
        # Other models have blocks only while they answer.
        if options.trains_on_answers:
            return shape
        raise TrainingError("--block-length: only models that attend block by block have blocks; leave it out")
    if options.block_length > MOST_IN_BLOCK:
        raise TrainingError(
            f"--block-length is {options.block_length}; it must be at most {MOST_IN_BLOCK}, the most that is sampled"
        )
    return replace(shape, block_length=options.block_length)


def _ids_of(tokens: Sequence[str], tokenizer: Tokenizer) -> tuple[int, ...]:
    ids = {token: tokenizer.token_to_id(token) for token in tokens}
    if missing := [token for token, token_id in ids.items() if token_id is None]:
        raise DataError(f"--train-tokens: the tokenizer has no {', '.join(missing)}; add them to its tokenizer.json")
    return tuple(sorted(token_id for token_id in ids.values() if token_id is not None))


def _adapted(names: list[str], config: ModelConfig) -> list[str]:
    adaptable = config.describe().adaptable()
    if unknown := set(names) - set(adaptable):
        raise TrainingError(f"lora_target_modules: {sorted(unknown)} unknown; choose from {', '.join(adaptable)}")
    return names or list(adaptable)


def _untrained(random_weights: RandomWeights, log: Callable[[str], None]) -> StartModel:
    folder = random_weights.tokenizer
    fields = _config_fields(random_weights.config_file)
    architecture = find_architecture(fields)
    tokenizer = read_tokenizer(folder, architecture)
    if tokenizer is None:
        raise DataError(f"--tokenizer {folder}: no tokenizer.json in this folder")
    published = architecture.published_tokens
    needed = [token for token in (published.bos, published.eos, published.mask) if token is not None]
    if any(tokenizer.token_to_id(token) is None for token in needed):
        raise DataError(f"the tokenizer needs the tokens {', '.join(needed[:-1])} and {needed[-1]}")
    special_tokens = resolve_special_tokens(folder, {"vocab_size": len(tokenizer)}, tokenizer.token_to_id, published)
    config = _config_for(fields, random_weights.config_file, tokenizer, special_tokens, log)
    return StartModel(config, tokenizer, folder / "tokenizer.json", special_tokens, None)


def _from_checkpoint(name_or_path: str, *, with_weights: bool) -> StartModel:
    checkpoint = Checkpoint.open(name_or_path, with_weights=with_weights)
    if checkpoint.tokenizer is None:
        raise DataError(f"{name_or_path}: no tokenizer.json in this checkpoint; training needs one")
    return StartModel(
        checkpoint.config,
        checkpoint.tokenizer,
        checkpoint.folder / "tokenizer.json",
        checkpoint.special_tokens,
        checkpoint.folder,
    )


def _config_fields(file: Path) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = json.loads(file.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise TrainingError(f"--model-config {file}: cannot be read: {error}") from None
    if not isinstance(fields, dict):
        raise TrainingError(f"--model-config {file}: is a {type(fields).__name__}; it must be an object")
    return fields


def _config_for(
    fields: dict[str, Any],
    file: Path,
    tokenizer: Tokenizer,
    special_tokens: SpecialTokens,
    log: Callable[[str], None],
) -> ModelConfig:
    architecture = find_architecture(fields)
    from_tokenizer = {
        **dict.fromkeys(architecture.vocabulary_fields, len(tokenizer)),
        "mask_token_id": special_tokens.mask_id,
        "eos_token_id": special_tokens.eos_id,
        "pad_token_id": special_tokens.eos_id,
    }
    for name, value in from_tokenizer.items():
        if fields.get(name) not in (None, value):
            log(f"{name}: {fields[name]} in {file.name}, {value} in the tokenizer; taking the tokenizer's")
    config: ModelConfig = architecture.from_dict({**fields, **from_tokenizer})
    return config


def _require_fitting_lengths(options: TrainingOptions, stage: Stage, max_sequence_length: int) -> None:
    generated = {"eval_gen_length": options.eval_gen_length} if options.eval_prompt else {}
    for name, length in {**stage.row_lengths, **generated}.items():
        if length > max_sequence_length:
            option = name.replace("_", "-")
            raise TrainingError(
                f"--{option} is {length}; it must be at most the model's max_sequence_length, {max_sequence_length}"
            )
