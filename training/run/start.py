"""The model a run starts from: random weights of a config, or a checkpoint; with its tokenizer and special tokens."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llada_core.checkpoint.load import Checkpoint, load_checkpoint
from llada_core.model.architectures.llada.config import LLaDAConfig
from llada_core.model.architectures.llada.network import LLaDAModelLM
from llada_core.model.registry import find_architecture
from llada_core.text.special_tokens import (
    BOS_TOKEN,
    END_HEADER_TOKEN,
    EOS_TOKEN,
    EOT_TOKEN,
    MASK_TOKEN,
    START_HEADER_TOKEN,
    SpecialTokens,
)
from llada_core.text.tokenizer import Tokenizer
from training.errors import DataError, TrainingError
from training.options.fields import LoraParams, PretrainOptions, SFTOptions, TrainingOptions


@dataclass(frozen=True, slots=True)
class Start:
    """Everything about a model but its weights."""

    config: LLaDAConfig
    tokenizer: Tokenizer
    tokenizer_file: Path
    special_tokens: SpecialTokens
    folder: Path | None
    lora: LoraParams | None

    def save_without_weights(self, folder: Path) -> None:
        """Config and tokenizer alone: enough for a dry run to start from."""
        self.config.save_pretrained(folder)
        shutil.copyfile(self.tokenizer_file, folder / "tokenizer.json")

    def model(self, options: TrainingOptions, *, on_meta: bool = False) -> LLaDAModelLM:
        """The model, ready to train: float32, or under LoRA frozen in `--dtype` with float32 adapters.

        Args:
            on_meta: shapes alone, for a process that is sent its weights and for `--dry-run`.
        """
        frozen_dtype = options.dtype if self.lora else "float32"
        if on_meta:
            with torch.device("meta"):
                model = LLaDAModelLM(self.config).to(getattr(torch, frozen_dtype))
        elif self.folder is None:
            torch.manual_seed(options.seed)
            model = LLaDAModelLM(self.config)
        else:
            model = load_checkpoint(self.folder, dtype=frozen_dtype)
        if self.lora:
            # Imported here: `peft` takes seconds, and most runs train all weights.
            from training.run.lora import add_adapters

            add_adapters(model, self.lora, seed=options.seed)
        if options.activation_checkpointing:
            # Non-reentrant: the other kind recomputes nothing where a block's input needs no gradient, as under LoRA.
            model.activation_checkpointing_enable({"use_reentrant": False})
        model.special_tokens = self.special_tokens
        return model.train()


def find_start(options: TrainingOptions, *, log: Callable[[str], None], with_weights: bool = True) -> Start:
    """Read config, tokenizer and special tokens; where config and tokenizer differ, the tokenizer wins and it is said.

    Args:
        with_weights: False leaves the weights of a hub id on the hub.

    Raises:
        DataError: a tokenizer without LLaDA's special tokens.
        TrainingError: samples longer than the model's positions.
    """
    lora = None
    if options.lora_r is not None:
        lora = LoraParams(options.lora_r, options.lora_alpha, tuple(options.lora_target_modules))
    if isinstance(options, PretrainOptions) and options.model_config_file is not None:
        assert options.tokenizer is not None
        file = options.tokenizer / "tokenizer.json"
        if not file.is_file():
            raise DataError(f"--tokenizer {options.tokenizer}: no tokenizer.json in this folder")
        tokenizer = Tokenizer.from_folder(options.tokenizer)
        special_tokens = _special_tokens_of(tokenizer)
        config = _config_for(options.model_config_file, tokenizer, special_tokens, log)
        start = Start(config, tokenizer, file, special_tokens, None, lora)
    else:
        assert options.model_name_or_path is not None
        checkpoint = Checkpoint.open(options.model_name_or_path, with_weights=with_weights)
        if checkpoint.tokenizer is None:
            raise DataError(f"{options.model_name_or_path}: no tokenizer.json in this checkpoint; training needs one")
        folder, tokenizer = checkpoint.folder, checkpoint.tokenizer
        start = Start(checkpoint.config, tokenizer, folder / "tokenizer.json", checkpoint.special_tokens, folder, lora)
    _require_fitting_lengths(options, start.config.max_sequence_length)
    if isinstance(options, SFTOptions):
        missing = [t for t in (START_HEADER_TOKEN, END_HEADER_TOKEN, EOT_TOKEN) if tokenizer.token_to_id(t) is None]
        if missing:
            raise DataError(f"the tokenizer has no {', '.join(missing)}, which SFT's chat template needs")
    return start


def num_parameters(model: torch.nn.Module) -> tuple[int, int]:
    """All of them, and those that are trained."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, is_trained in sizes if is_trained)


def weights_digest(folder: Path) -> str:
    """Of all bytes of a checkpoint's weights: ten seconds for 16 GB."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as content:
            digest.update(file.name.encode() + hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16]


def config_digest(config: LLaDAConfig) -> str:
    """Of what a config says of the model; the version of transformers that wrote it is left out."""
    fields = {name: value for name, value in config.to_dict().items() if name != "transformers_version"}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def _require_fitting_lengths(options: TrainingOptions, longest: int) -> None:
    lengths = {
        "max_length": options.max_length,
        "eval_gen_length": options.eval_gen_length if options.eval_prompt else 0,
    }
    if isinstance(options, SFTOptions):
        lengths["pad_to"] = options.pad_to or 0
    for name, length in lengths.items():
        if length > longest:
            option = name.replace("_", "-")
            raise TrainingError(
                f"--{option} is {length}; it must be at most the model's max_sequence_length, {longest}"
            )


def _config_for(
    file: Path, tokenizer: Tokenizer, special_tokens: SpecialTokens, log: Callable[[str], None]
) -> LLaDAConfig:
    try:
        fields: dict[str, Any] = json.loads(file.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise TrainingError(f"--model-config {file}: cannot be read: {error}") from None
    if not isinstance(fields, dict):
        raise TrainingError(f"--model-config {file}: is a {type(fields).__name__}; it must be an object")
    wanted = {
        "vocab_size": len(tokenizer),
        "embedding_size": len(tokenizer),
        "mask_token_id": special_tokens.mask_id,
        "eos_token_id": special_tokens.eos_id,
        "pad_token_id": special_tokens.eos_id,
    }
    for name, value in wanted.items():
        if fields.get(name) not in (None, value):
            log(f"{name}: {fields[name]} in {file.name}, {value} in the tokenizer; taking the tokenizer's")
    return find_architecture(fields).config_class.from_dict({**fields, **wanted})


def _special_tokens_of(tokenizer: Tokenizer) -> SpecialTokens:
    mask_id, eos_id, bos_id = (tokenizer.token_to_id(token) for token in (MASK_TOKEN, EOS_TOKEN, BOS_TOKEN))
    if mask_id is None or eos_id is None or bos_id is None:
        raise DataError(f"the tokenizer needs the tokens {BOS_TOKEN}, {EOS_TOKEN} and {MASK_TOKEN}")
    return SpecialTokens(mask_id, eos_id, tokenizer.token_to_id(EOT_TOKEN))
