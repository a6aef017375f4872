"""From a training checkpoint to a Hugging Face folder that this server and LLaDA's own code load."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from llada_core.checkpoint.load import load_checkpoint
from llada_core.checkpoint.save import save_checkpoint
from llada_core.model.architectures.llada.config import LLaDAConfig
from llada_core.model.architectures.llada.network import LLaDAModelLM
from llada_core.text.special_tokens import SpecialTokens
from training.errors import TrainingError
from training.files import require_writable
from training.options.fields import ExportOptions, LoraParams
from training.run.checkpoints import load_weights, newest, read_state
from training.run.start import weights_digest


def export(
    checkpoint: Path, output_dir: Path, *, dtype: torch.dtype = torch.bfloat16, base_model: str | None = None
) -> None:
    """Write weights, config, tokenizer, chat template and generation_config.

    LoRA's adapters are merged into the base model's weights; unmerged they go into `adapter/`, as `peft` reads them.

    Args:
        base_model: where the model that the adapters belong to lies; None: where it lay in training.

    Raises:
        TrainingError: the base model is gone, or is another one.
    """
    state = read_state(checkpoint)
    if state.run.lora is None:
        model = LLaDAModelLM(LLaDAConfig.from_pretrained(checkpoint))
        load_weights(model, checkpoint)
    else:
        # Imported here: `peft` takes seconds, and most runs train all weights.
        from training.run import lora

        base = Path(base_model or str(state.run.base_model))
        if not (base / "config.json").exists():
            raise TrainingError(f"{base}: the base model of these adapters is not there; give --base-model")
        if weights_digest(base) != state.run.decisive["base model's weights"]:
            raise TrainingError(f"{base}: other weights than those that the adapters were trained on")
        params = LoraParams(**state.run.lora)
        model = load_checkpoint(base, dtype="float32")
        lora.add_adapters(model, params, seed=0)
        load_weights(model, checkpoint)
        adapter = output_dir / "adapter"
        adapter.mkdir(parents=True, exist_ok=True)
        save_file(lora.adapter_weights(model), adapter / "adapter_model.safetensors")
        config = lora.adapter_config(params, str(base))
        (adapter / "adapter_config.json").write_text(json.dumps(config, indent=2))
        lora.merge_adapters(model)
    save_checkpoint(
        model,
        output_dir,
        tokenizer_file=checkpoint / "tokenizer.json",
        special_tokens=SpecialTokens(**state.run.special_tokens),
        dtype=dtype,
    )


def find_checkpoint(folder: Path) -> Path:
    """`folder` itself, or the newest checkpoint of an output folder.

    Raises:
        TrainingError: there is none.
    """
    if (folder / "state.json").exists():
        return folder
    found = newest(folder / "checkpoints")
    if found is None:
        raise TrainingError(
            f"--checkpoint {folder}: neither a checkpoints/step-<n> folder nor an output folder with one"
        )
    return found


def run_export(options: ExportOptions, *, log: Callable[[str], None]) -> None:
    """The `export` command."""
    checkpoint = find_checkpoint(options.checkpoint)
    require_writable(options.output_dir)
    # Written before all else by an export: what one that was stopped has left.
    if any(entry.name not in ("incomplete", "adapter") for entry in options.output_dir.iterdir()):
        raise TrainingError(f"--output-dir {options.output_dir} is not empty")
    export(checkpoint, options.output_dir, dtype=getattr(torch, options.dtype), base_model=options.base_model)
    log(f"{checkpoint.name} exported to {options.output_dir}; serve it with: llada-server --model {options.output_dir}")
