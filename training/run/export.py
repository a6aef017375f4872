"""Turns a training checkpoint into a Hugging Face folder that this server and the authors' own code load."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from llada_core.checkpoint.adapter import Adapter
from llada_core.checkpoint.generation_config import read_generation_config
from llada_core.checkpoint.load import Checkpoint, load_checkpoint
from llada_core.checkpoint.placement import Placement
from llada_core.checkpoint.save import save_checkpoint
from llada_core.files import read_json, share
from llada_core.model.config import ModelConfig
from llada_core.model.network import Network
from llada_core.model.registry import find_architecture
from llada_core.text.special_tokens import SpecialTokens
from training.errors import TrainingError
from training.options.fields import LoraParams
from training.run.checkpoints import read_weights
from training.run.digests import weights_digest
from training.run.state import RunIdentity, read_intact


def export(
    checkpoint: Path,
    output_dir: Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    base_model: str | None = None,
    adapter_only: bool = False,
) -> None:
    """Write weights, config, tokenizer, chat template and generation_config.

    LoRA's adapters are merged into the base model's weights; unmerged they go into `adapter/`, in `peft`'s format.

    Args:
        base_model: the folder of the model that the adapters belong to; None for its folder during training.
        adapter_only: write the adapters alone; the base model is not needed.

    Raises:
        TrainingError: the base model is missing, or is not the one that the adapters were trained on; there are no
            adapters to write alone.
    """
    run = read_intact(checkpoint).run
    if run.lora is None:
        if adapter_only:
            raise TrainingError(f"{checkpoint}: was trained without adapters; leave --adapter-only out")
        model = Network(_config_in(checkpoint))
        read_weights(model, checkpoint, averaged=run.is_averaged)
    else:
        # Looked for first: a refused export leaves nothing behind.
        base = None if adapter_only else _find_base(run, base_model)
        _write_adapter(checkpoint, run, base_model or str(run.base_model), output_dir / "adapter")
        if base is None:
            return
        model = _merged(checkpoint, run, base)
    save_checkpoint(
        model,
        output_dir,
        tokenizer_file=checkpoint / "tokenizer.json",
        special_tokens=SpecialTokens(**run.special_tokens),
        dtype=dtype,
        generation_config=read_generation_config(checkpoint),
    )


def merge_adapter(
    adapter: Path, output_dir: Path, *, dtype: torch.dtype = torch.bfloat16, base_model: str | None = None
) -> None:
    """Write a base model's folder with a `peft` adapter merged into its weights.

    Args:
        base_model: a folder or hub id; None for the one that the adapter's config names.

    Raises:
        TrainingError: the config names none.
        FileNotFoundError, UnsupportedCheckpointError: no such base model; no adapter of it.
    """
    base = base_model or Adapter(adapter).base_model
    if base is None:
        raise TrainingError(f"{adapter}: its config names no base model; give --base-model")
    checkpoint = Checkpoint.open(base, adapter=adapter)
    tokenizer_file = checkpoint.folder / "tokenizer.json"
    save_checkpoint(
        checkpoint.load_network(Placement.of("cpu", "float32")),
        output_dir,
        tokenizer_file=tokenizer_file if tokenizer_file.exists() else None,
        special_tokens=checkpoint.special_tokens,
        dtype=dtype,
        generation_config=read_generation_config(checkpoint.folder),
    )


def _config_in(checkpoint: Path) -> ModelConfig:
    fields = read_json(checkpoint / "config.json")
    config: ModelConfig = find_architecture(fields).from_dict(fields)
    return config


def _find_base(run: RunIdentity, base_model: str | None) -> Path:
    base = Path(base_model or str(run.base_model))
    if not (base / "config.json").exists():
        raise TrainingError(f"{base}: the base model of these adapters is not there; give --base-model")
    if weights_digest(base) != run.decisive["base model's weights"]:
        raise TrainingError(f"{base}: other weights than those that the adapters were trained on")
    return base


def _write_adapter(checkpoint: Path, run: RunIdentity, base_model: str, folder: Path) -> None:
    # Imported here: `peft` takes seconds, and most runs train all weights.
    from training.run import lora

    params = _lora_params(run)
    model = lora.adapters_alone(_config_in(checkpoint), params)
    read_weights(model, checkpoint, averaged=run.is_averaged)
    folder.mkdir(parents=True, exist_ok=True)
    weights_file = folder / "adapter_model.safetensors"
    save_file(lora.adapter_weights(model), weights_file)
    share(weights_file)
    (folder / "adapter_config.json").write_text(json.dumps(lora.adapter_config(model, params, base_model), indent=2))


def _merged(checkpoint: Path, run: RunIdentity, base: Path) -> Network:
    """The base model with the checkpoint's adapters merged."""
    from training.run import lora

    model = load_checkpoint(base, dtype="float32")
    lora.add_adapters(model, _lora_params(run), seed=0)
    read_weights(model, checkpoint, averaged=run.is_averaged)
    lora.merge_adapters(model)
    return model


def _lora_params(run: RunIdentity) -> LoraParams:
    assert run.lora is not None
    return LoraParams(**run.lora)
